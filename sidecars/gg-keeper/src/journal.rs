//! The segment files of one stream of a child.
//!
//! Owns: the files `<name>.<20-digit offset of the first byte>` in the child's folder. The keeper's
//! one thread writes them ([`Journal`]); the server reads them when the keeper is gone
//! ([`Remains`]). A byte has one offset for ever: it counts what the child ever wrote, whatever was
//! deleted since.
//!
//! Promises: a byte that [`Journal::append`] took is in the page cache before it goes anywhere
//! else, so it outlives any process (not a loss of power: nothing is synced). A write that fails
//! half-way is counted to the byte, so a retry neither loses nor doubles. The files together never
//! hold more than the bound and one append, save for what a `block` journal is made to take when
//! its child has ended. Deliberately not here: when to read the child, and what to do about a full
//! disk; that is the keeper's.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::protocol::{JournalPolicy, Policy};

/// A segment is never smaller than this, so that a small bound does not make a file of each line.
const SEGMENT_BYTES_MIN: u64 = 4096;

/// A bound is made of at least this many segments, so that giving up the oldest one gives up
/// little.
const SEGMENTS_IN_BOUND: u64 = 4;

/// The journal of one stream, open for appending.
#[derive(Debug)]
pub struct Journal {
    files: Files,
    policy: JournalPolicy,
    segment_bytes: u64,
    /// The first offset of each segment, oldest first. Never empty: the last one is being written.
    bases: VecDeque<u64>,
    active: File,
    end: u64,
    acknowledged: u64,
    dropped: u64,
}

impl Journal {
    /// Starts an empty journal with the files `<name>.*` in `dir`. Fails when there is one already.
    pub fn create(
        dir: &Path,
        name: &'static str,
        policy: JournalPolicy,
        segment_bytes: u64,
    ) -> io::Result<Journal> {
        let share = policy.bytes_max / SEGMENTS_IN_BOUND;
        let mut files = Files { dir: dir.to_path_buf(), name, open: None };
        let active = files.create(0)?;
        Ok(Journal {
            files,
            policy,
            segment_bytes: segment_bytes.min(share).max(SEGMENT_BYTES_MIN),
            bases: VecDeque::from([0]),
            active,
            end: 0,
            acknowledged: 0,
            dropped: 0,
        })
    }

    /// The first offset that can still be read.
    pub fn base(&self) -> u64 {
        self.bases[0]
    }

    /// The offset that the next byte gets.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// How many bytes a full `drop_newest` journal did not keep.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether the child has to wait: a `block` journal with its bound of unacknowledged bytes.
    pub fn is_full(&self) -> bool {
        self.policy.policy == Policy::Block && self.end - self.acknowledged >= self.policy.bytes_max
    }

    /// Takes bytes and says how many it took; fewer than all of them only with an error. Bytes that
    /// the policy drops count as taken and do not move the end. A full `block` journal takes them
    /// all the same: whether to read the child is the caller's question ([`Journal::is_full`]), and
    /// what was read must not be lost.
    pub fn append(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let room = match self.policy.policy {
            Policy::DropNewest => self.policy.bytes_max.saturating_sub(self.end),
            Policy::Block | Policy::DropOldest => u64::MAX,
        };
        let kept = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let mut taken = 0;
        while taken < kept {
            match self.append_some(&bytes[taken..kept]) {
                Ok(count) => taken += count,
                Err(error) => return (taken, Err(error)),
            }
        }
        self.dropped += (bytes.len() - kept) as u64;
        (bytes.len(), Ok(()))
    }

    /// Reads what lies at `offset` into `buffer`, at most up to the end of a segment. 0 only at the
    /// end of the journal.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let active_base = *self.bases.back().expect("a journal always has a segment");
        let left = usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = buffer.len().min(left);
        if offset >= active_base {
            return read_at(&self.active, &mut buffer[..len], offset - active_base);
        }
        let next = self.bases.partition_point(|base| *base <= offset);
        let Some(base) = next.checked_sub(1).map(|index| self.bases[index]) else {
            return Err(io::Error::new(io::ErrorKind::NotFound, "these bytes were deleted"));
        };
        self.files.read(base, offset, &mut buffer[..len])
    }

    /// Gives up what lies below `to`: segments wholly below it are deleted. With `trim`, and with
    /// everything acknowledged, the last segment goes too, so that a quiet child holds no bytes at
    /// all.
    pub fn acknowledge(&mut self, to: u64, trim: bool) -> io::Result<()> {
        self.acknowledged = self.acknowledged.max(to.min(self.end));
        let active_base = *self.bases.back().expect("a journal always has a segment");
        if trim && self.acknowledged == self.end && active_base != self.end {
            self.roll()?;
        }
        while self.bases.len() > 1 && self.bases[1] <= self.acknowledged {
            self.delete_oldest()?;
        }
        Ok(())
    }

    fn append_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let active_base = *self.bases.back().expect("a journal always has a segment");
        if self.end - active_base >= self.segment_bytes {
            self.roll()?;
            return self.append_some(bytes);
        }
        let room = self.segment_bytes - (self.end - active_base);
        let len = usize::try_from(room).unwrap_or(usize::MAX).min(bytes.len());
        let count = self.active.write_at(&bytes[..len], self.end - active_base)?;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.end += count as u64;
        if self.policy.policy == Policy::DropOldest {
            while self.bases.len() > 1 && self.end - self.base() > self.policy.bytes_max {
                // The bytes are written, so this must not fail them: the next append tries again to
                // delete.
                if self.delete_oldest().is_err() {
                    break;
                }
            }
        }
        Ok(count)
    }

    fn roll(&mut self) -> io::Result<()> {
        self.active = self.files.create(self.end)?;
        self.bases.push_back(self.end);
        Ok(())
    }

    fn delete_oldest(&mut self) -> io::Result<()> {
        let base = self.bases[0];
        self.files.open = None;
        match fs::remove_file(self.files.path(base)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => {
                self.bases.pop_front();
                Ok(())
            }
        }
    }
}

/// What is left of a stream whose keeper is gone: the files, which nobody writes any more.
#[derive(Debug)]
pub struct Remains {
    files: Files,
    bases: Vec<u64>,
    end: u64,
}

impl Remains {
    /// Looks at the files `<name>.*` in `dir`. A stream without files is empty. Errors: also a file
    /// whose name and size name an offset that there can not be.
    pub fn open(dir: &Path, name: &'static str) -> io::Result<Remains> {
        let mut bases = Vec::new();
        for entry in fs::read_dir(dir)? {
            bases.extend(entry?.file_name().to_str().and_then(|file| base_of(file, name)));
        }
        bases.sort_unstable();
        let files = Files { dir: dir.to_path_buf(), name, open: None };
        let end = match bases.last() {
            Some(base) => {
                let bytes = fs::metadata(files.path(*base))?.len();
                let beyond = || io::Error::new(io::ErrorKind::InvalidData, "a segment has no end");
                base.checked_add(bytes).ok_or_else(beyond)?
            }
            None => 0,
        };
        Ok(Remains { files, bases, end })
    }

    /// The first offset that is left.
    pub fn base(&self) -> u64 {
        self.bases.first().copied().unwrap_or(0)
    }

    /// Where the stream ends.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Reads at `offset` or, where bytes are missing, at the next offset that is there. Returns
    /// where the bytes start and how many they are; 0 at the end.
    pub fn read(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<(u64, usize)> {
        let mut offset = offset.max(self.base());
        while offset < self.end {
            let next = self.bases.partition_point(|base| *base <= offset);
            // A segment that is longer than the name of the next one says is read up to there.
            let until = self.bases.get(next).copied().unwrap_or(self.end);
            let room = usize::try_from(until - offset).unwrap_or(usize::MAX).min(buffer.len());
            let count = self.files.read(self.bases[next - 1], offset, &mut buffer[..room])?;
            if count > 0 || buffer.is_empty() {
                return Ok((offset, count));
            }
            // A segment that is shorter than its name and the next one promise: the machine went
            // down while it was written.
            match self.bases.get(next) {
                Some(base) => offset = *base,
                None => break,
            }
        }
        Ok((offset, 0))
    }
}

/// Where the files are, and the older one that was read last.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    name: &'static str,
    open: Option<(u64, File)>,
}

impl Files {
    fn path(&self, base: u64) -> PathBuf {
        self.dir.join(format!("{}.{base:020}", self.name))
    }

    fn create(&mut self, base: u64) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600).open(self.path(base))
    }

    fn read(&mut self, base: u64, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let file = match self.open.take() {
            Some((open, file)) if open == base => file,
            _ => File::open(self.path(base))?,
        };
        let result = read_at(&file, buffer, offset - base);
        self.open = Some((base, file));
        result
    }
}

fn read_at(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(buffer, at) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn base_of(file: &str, name: &str) -> Option<u64> {
    let digits = file.strip_prefix(name)?.strip_prefix('.')?;
    let is_ours = digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_ours.then(|| digits.parse().ok()).flatten()
}

#[cfg(test)]
mod tests;
