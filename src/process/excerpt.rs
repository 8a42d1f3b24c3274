//! Parts of a process's logs, as those who ask for them get them: the first and last lines, or bytes from an offset on.
//!
//! Runs on the caller's thread and holds no more of a log than was asked for. Bytes that are no UTF-8 are replaced,
//! never left out, and a character that is not there whole yet waits for its rest.

use super::Processes;
use super::log::{Part, Window, open_character, read_from, read_window};
use crate::error::{Error, Result};
use crate::keeper::Stream;
use crate::ledger::process::ProcessRow;
use crate::limits;
use serde_json::{Value, json};
use std::io;

/// The last lines that are shown when nothing else is asked for.
const TAIL_LINES: usize = 80;

/// What is wanted of the logs, as it was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ExcerptRequest {
    /// None = both.
    pub stream: Option<Stream>,
    pub head_lines: Option<u64>,
    pub tail_lines: Option<u64>,
    pub offset: Option<u64>,
    /// Of each stream.
    pub bytes_max: Option<u64>,
}

/// What is wanted of the logs, checked.
#[derive(Clone, Debug)]
pub struct Excerpt {
    pub streams: Vec<Stream>,
    pub head_lines: usize,
    pub tail_lines: usize,
    /// None = lines are wanted, not bytes.
    pub offset: Option<u64>,
    pub bytes_max: u64,
}

impl ExcerptRequest {
    /// Errors: bytes and lines are asked for at once.
    pub fn checked(self) -> Result<Excerpt> {
        if self.offset.is_some() && (self.head_lines.is_some() || self.tail_lines.is_some()) {
            return Err(Error::bad_request("offset counts bytes, head_lines and tail_lines lines")
                .hint("leave one of them out"));
        }
        let lines = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let bytes_max = self.bytes_max.unwrap_or(limits::PROCESS_LOG_BYTES);
        Ok(Excerpt {
            streams: self.stream.map_or_else(|| Stream::ALL.to_vec(), |stream| vec![stream]),
            head_lines: self.head_lines.map_or(0, lines),
            tail_lines: self.tail_lines.map_or(TAIL_LINES, lines),
            offset: self.offset,
            bytes_max: bytes_max.min(limits::PROCESS_LOG_BYTES_MAX),
        })
    }
}

/// Up to where a log may be read: what is told is in the file.
pub fn end(row: &ProcessRow, stream: Stream) -> u64 {
    u64::try_from(row.bytes[stream.index()]).unwrap_or(0)
}

impl Processes {
    /// One chunk for each stream that is wanted.
    pub fn excerpts(&self, row: &ProcessRow, wanted: &Excerpt) -> Result<Vec<Value>> {
        wanted.streams.iter().map(|stream| self.excerpt(row, *stream, wanted)).collect()
    }

    fn excerpt(&self, row: &ProcessRow, stream: Stream, wanted: &Excerpt) -> Result<Value> {
        let path = self.log_path(&row.process_id, stream);
        let end = end(row, stream);
        let failed = |error: io::Error| {
            Error::internal(format!("the log {} can not be read", path.display())).source(error)
        };
        let (part, next_offset) = match wanted.offset {
            Some(offset) => {
                // A character fits, so a reader that goes on at next_offset always comes further.
                let mut bytes =
                    read_from(&path, end, offset, wanted.bytes_max.max(4)).map_err(failed)?;
                let at = offset + bytes.len() as u64;
                if at < end || !row.status.is_terminal() {
                    bytes.truncate(bytes.len() - open_character(&bytes));
                }
                let next_offset = offset + bytes.len() as u64;
                (Part { bytes, is_cut: next_offset < end }, next_offset)
            }
            None => {
                let window = Window {
                    head_lines: wanted.head_lines,
                    tail_lines: wanted.tail_lines,
                    bytes_max: wanted.bytes_max,
                };
                (read_window(&path, end, window).map_err(failed)?, end)
            }
        };
        let content = String::from_utf8_lossy(&part.bytes);
        Ok(json!({
            "process_id": row.process_id,
            "stream": stream.as_str(),
            "content": content,
            "head_lines": wanted.head_lines,
            "tail_lines": wanted.tail_lines,
            "truncated": part.is_cut || row.is_truncated(stream.index()),
            "bytes": content.len(),
            "offset": wanted.offset,
            "next_offset": next_offset,
            "log_bytes": end,
        }))
    }
}
