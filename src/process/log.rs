//! The log files of a process: one for stdout, one for stderr.
//!
//! Owns: the files `<logs_dir>/processes/<process_id>.<stream>.log`. A byte of a stream lies in its file at its own
//! offset, so writing it again changes nothing: that is what makes the copy from the keeper's journal safe against a
//! kill at any instruction. Written by the process's thread ([`Log`]), read by anybody ([`read_window`],
//! [`read_from`]) up to where the ledger says that it reaches. A read never holds more of a file in memory than it was
//! asked for.

use crate::keeper::Stream;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How much of a file is looked at in one go.
const BLOCK: u64 = 64 * 1024;

/// What stands between the first lines and the last ones where some are left out.
const GAP: &[u8] = b"...\n";

/// Where the log of a stream is.
pub fn path(logs_dir: &Path, process_id: &str, stream: Stream) -> PathBuf {
    logs_dir.join("processes").join(format!("{process_id}.{}.log", stream.as_str()))
}

/// A log that is being written.
#[derive(Debug)]
pub(super) struct Log {
    file: File,
}

impl Log {
    /// Opens the file, or makes it.
    pub(super) fn open(path: &Path) -> io::Result<Log> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).mode(0o600).open(path)?;
        Ok(Log { file })
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Puts the bytes where they belong.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }
}

/// Which lines of a log are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub head_lines: usize,
    pub tail_lines: usize,
    /// Of the content, the last of them.
    pub bytes_max: u64,
}

/// A part of a log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Part {
    pub bytes: Vec<u8>,
    /// Whether something of the log is left out.
    pub is_cut: bool,
}

/// The first and the last lines of the file, which counts up to `end`. Where they meet nothing is said twice; where
/// they do not, a line of three dots stands between. Each line gets an end.
pub fn read_window(path: &Path, end: u64, window: Window) -> io::Result<Part> {
    let Some((file, end)) = open(path, end)? else { return Ok(Part::default()) };
    let tail = tail_start(&file, end, window.tail_lines, window.bytes_max)?;
    let head_end = if window.head_lines == 0 {
        0
    } else {
        head_end(&file, end, window.head_lines, window.bytes_max)?
    };
    let mut part = Part::default();
    if head_end >= tail {
        let start = if window.head_lines == 0 { tail } else { 0 };
        // The bound holds for the content as a whole; the end of it is what counts.
        let from = start.max(end.saturating_sub(window.bytes_max));
        part.bytes = read(&file, from, end)?;
        part.is_cut = from > 0;
    } else {
        part.is_cut = true;
        if window.head_lines > 0 {
            part.bytes = read(&file, 0, head_end)?;
            end_line(&mut part.bytes);
            part.bytes.extend_from_slice(GAP);
        }
        part.bytes.extend(read(&file, tail, end)?);
    }
    end_line(&mut part.bytes);
    let bytes_max = usize::try_from(window.bytes_max).unwrap_or(usize::MAX);
    let excess = part.bytes.len().saturating_sub(bytes_max);
    part.is_cut |= excess > 0;
    part.bytes.drain(..excess);
    Ok(part)
}

/// The bytes from `offset` on, at most `bytes_max` of them and none behind `end`.
pub fn read_from(path: &Path, end: u64, offset: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
    let Some((file, end)) = open(path, end)? else { return Ok(Vec::new()) };
    read(&file, offset, end.min(offset.saturating_add(bytes_max)))
}

/// Where the last `lines` lines begin; at most `bytes_max` before the end.
pub fn last_lines(path: &Path, end: u64, lines: usize, bytes_max: u64) -> io::Result<u64> {
    match open(path, end)? {
        Some((file, end)) => tail_start(&file, end, lines, bytes_max),
        None => Ok(0),
    }
}

/// How many bytes at the end of `bytes` are the beginning of a character that is not there whole.
pub fn open_character(bytes: &[u8]) -> usize {
    for back in 1..=bytes.len().min(3) {
        let byte = bytes[bytes.len() - back];
        let length = match byte {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return 0,
        };
        return if length > back { back } else { 0 };
    }
    0
}

/// The file, and how far it may be read. None when there is none.
fn open(path: &Path, end: u64) -> io::Result<Option<(File, u64)>> {
    match File::open(path) {
        Ok(file) => {
            let end = end.min(file.metadata()?.len());
            Ok(Some((file, end)))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

fn end_line(bytes: &mut Vec<u8>) {
    if bytes.last().is_some_and(|byte| *byte != b'\n') {
        bytes.push(b'\n');
    }
}

fn head_end(file: &File, end: u64, lines: usize, bytes_max: u64) -> io::Result<u64> {
    let most = end.min(bytes_max);
    let (mut at, mut seen) = (0, 0);
    while at < most {
        let block = read(file, at, most.min(at + BLOCK))?;
        for (place, byte) in block.iter().enumerate() {
            if *byte == b'\n' {
                seen += 1;
                if seen == lines {
                    return Ok(at + place as u64 + 1);
                }
            }
        }
        at += block.len() as u64;
    }
    Ok(most)
}

fn tail_start(file: &File, end: u64, lines: usize, bytes_max: u64) -> io::Result<u64> {
    if lines == 0 {
        return Ok(end);
    }
    let least = end.saturating_sub(bytes_max);
    let (mut at, mut seen) = (end, 0);
    while at > least {
        let from = at.saturating_sub(BLOCK).max(least);
        let block = read(file, from, at)?;
        for (place, byte) in block.iter().enumerate().rev() {
            let behind = from + place as u64 + 1;
            // The end of the last line begins no further one.
            if *byte == b'\n' && behind < end {
                seen += 1;
                if seen == lines {
                    return Ok(behind);
                }
            }
        }
        at = from;
    }
    Ok(least)
}

#[cfg(test)]
mod tests;
