//! The two ways in which a request body is framed.
//!
//! Owns: the reading of a counted body and of a chunked one, on the connection's thread. Promises:
//! no more than the admitted number of bytes is ever held, whatever the request announces; chunk
//! lines and trailers are bounded and read strictly. It deliberately ignores chunk extensions and
//! drops trailers: nothing of ours reads them.

use super::head::Length;
use super::inbox::{End, Inbox};
use crate::error::{Code, Error};
use std::time::Instant;

/// A chunk-size line, with its extensions.
const CHUNK_LINE_BYTES_MAX: usize = 128;

/// One trailer line.
const TRAILER_LINE_BYTES_MAX: usize = 512;

/// Trailer lines of a body.
const TRAILERS_MAX: usize = 16;

/// What is set aside for a counted body before it arrives; the announced length is only a claim.
const FIRST_BYTES: usize = 64 * 1024;

/// Reads the whole body.
pub(super) fn read(
    inbox: &mut Inbox,
    length: Length,
    bytes_max: usize,
    deadline: Instant,
) -> Result<Vec<u8>, End> {
    match length {
        Length::None => Ok(Vec::new()),
        Length::Fixed(count) => {
            let count = fits(count, bytes_max, bytes_max)?;
            let mut body = Vec::with_capacity(count.min(FIRST_BYTES));
            inbox.take(count, &mut body, deadline)?;
            Ok(body)
        }
        Length::Chunked => read_chunks(inbox, bytes_max, deadline),
    }
}

/// The announced count as a number of bytes that still fits.
pub(super) fn fits(count: u64, left: usize, bytes_max: usize) -> Result<usize, Error> {
    match usize::try_from(count) {
        Ok(count) if count <= left => Ok(count),
        _ => Err(Error::new(
            Code::PayloadTooLarge,
            format!("the request body is longer than {bytes_max} bytes"),
        )),
    }
}

fn read_chunks(inbox: &mut Inbox, bytes_max: usize, deadline: Instant) -> Result<Vec<u8>, End> {
    let mut body = Vec::new();
    loop {
        let line = inbox.line(CHUNK_LINE_BYTES_MAX, deadline)?;
        let size = chunk_size(inbox.bytes(line))?;
        if size == 0 {
            break;
        }
        let size = fits(size, bytes_max - body.len(), bytes_max)?;
        inbox.take(size, &mut body, deadline)?;
        inbox.line(0, deadline)?;
    }
    for _ in 0..=TRAILERS_MAX {
        if inbox.line(TRAILER_LINE_BYTES_MAX, deadline)?.is_empty() {
            return Ok(body);
        }
    }
    Err(Error::bad_request(format!("the request has more than {TRAILERS_MAX} trailers")).into())
}

/// One to sixteen hex digits, and perhaps an extension after a semicolon.
fn chunk_size(line: &[u8]) -> Result<u64, Error> {
    let digits = line.split(|&byte| byte == b';').next().unwrap_or(line);
    let is_hex = (1..=16).contains(&digits.len()) && digits.iter().all(u8::is_ascii_hexdigit);
    let text = std::str::from_utf8(digits).unwrap_or_default();
    match u64::from_str_radix(text, 16) {
        Ok(size) if is_hex => Ok(size),
        _ => Err(Error::bad_request("a chunk size is not a hexadecimal number")),
    }
}
