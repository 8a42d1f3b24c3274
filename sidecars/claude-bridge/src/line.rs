//! Lines from a pipe, with a bound.
//!
//! Owns: the reading of one line at a time. A line beyond [`LINE_BYTES_MAX`] is skipped to its end and told as too
//! long, so that a flood without a newline costs bounded memory and does not end the conversation. Blocks the thread
//! that reads; knows nothing of what a line means.

use std::io::{self, BufRead, Read};

/// The longest line that is taken, in bytes: an image of a prompt is one line.
pub const LINE_BYTES_MAX: u64 = 256 << 20;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Line {
    /// Without its newline; never empty.
    Whole(Vec<u8>),
    TooLong,
    /// The other side has closed the pipe.
    End,
}

/// Reads the next line that is not empty. What stands behind the last newline counts as a line.
pub fn next(input: &mut impl BufRead) -> Line {
    loop {
        let mut line = Vec::new();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) => return Line::End,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return Line::End,
            Ok(count) if count as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") => {
                drop(line);
                return match input.skip_until(b'\n') {
                    Ok(_) => Line::TooLong,
                    Err(_) => Line::End,
                };
            }
            Ok(_) => {}
        }
        let trimmed = line.trim_ascii();
        if !trimmed.is_empty() {
            let (start, end) = (trimmed.as_ptr().addr() - line.as_ptr().addr(), trimmed.len());
            line.truncate(start + end);
            line.drain(..start);
            return Line::Whole(line);
        }
    }
}
