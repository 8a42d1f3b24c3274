//! The reading side of a connection.
//!
//! Owns: the one read buffer of a connection and the deadlines of its reads; used by the
//! connection's thread alone. It finds the end of a head, hands out lines and counted bytes, and
//! keeps what belongs to the next request. Promises: the buffer never grows beyond the head limit;
//! every read ends at its deadline, however slowly bytes come (a timeout per read would let one
//! byte a second go on for ever). The socket's timeout is changed only when it has to be, since
//! each change is a system call. It deliberately knows no header field and no answer.

use super::registry::Link;
use crate::error::{Code, Error};
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Enough for nearly every head; a connection whose heads are larger grows its buffer.
const BUFFER_BYTES: usize = 4096;

/// The least head limit, so that a chunk-size line always fits.
const HEAD_BYTES_MIN: usize = 1024;

/// Why no request comes out of a connection.
#[derive(Debug)]
pub(super) enum End {
    /// Nobody is there to be answered.
    Gone,
    /// The client is told, and the connection closed.
    Refused(Error),
}

impl From<Error> for End {
    fn from(error: Error) -> End {
        End::Refused(error)
    }
}

impl End {
    /// The end that a failed read of `what` means.
    pub(super) fn of(error: &io::Error, what: &str) -> End {
        match error.kind() {
            ErrorKind::TimedOut => End::Refused(Error::new(
                Code::RequestTimeout,
                format!("the {what} of the request did not arrive in time"),
            )),
            ErrorKind::UnexpectedEof => {
                End::Refused(Error::bad_request(format!("the {what} of the request ended early")))
            }
            _ => End::Gone,
        }
    }
}

pub(super) struct Inbox {
    socket: Socket,
    /// All initialised; `start..end` is what was read and not yet taken.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    head_bytes_max: usize,
}

impl Inbox {
    pub(super) fn new(link: Arc<Link>, head_bytes_max: usize) -> Inbox {
        let head_bytes_max = head_bytes_max.max(HEAD_BYTES_MIN);
        let buffer = vec![0; BUFFER_BYTES.min(head_bytes_max)];
        let socket = Socket { link, timeout: None };
        Inbox { socket, buffer, start: 0, end: 0, head_bytes_max }
    }

    /// What was read and not yet taken.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// The bytes of a range that [`Self::head`] or [`Self::line`] returned; valid until the next
    /// read.
    pub(super) fn bytes(&self, range: Range<usize>) -> &[u8] {
        &self.buffer[range]
    }

    /// Waits until the first byte of a request is there. False: the connection is over, or was
    /// quiet for too long.
    pub(super) fn wait(&mut self, quiet: Duration) -> bool {
        if !self.waiting().is_empty() {
            return true;
        }
        if self.room().is_err() {
            return false;
        }
        match self.socket.read_for(&mut self.buffer[self.end..], quiet) {
            Ok(count) => {
                self.end += count;
                count > 0
            }
            Err(_) => false,
        }
    }

    /// Reads up to the end of a head and takes it.
    pub(super) fn head(
        &mut self,
        headers_max: usize,
        deadline: Instant,
    ) -> Result<Range<usize>, End> {
        let mut scan = Scan::default();
        loop {
            if let Some(head) = scan.go_on(self.waiting(), headers_max)? {
                let taken = self.start + head.start..self.start + head.end;
                self.start = taken.end;
                return Ok(taken);
            }
            if self.waiting().len() >= self.head_bytes_max {
                let text = format!("the request head is longer than {} bytes", self.head_bytes_max);
                return Err(Error::new(Code::HeadTooLarge, text).into());
            }
            self.fill(deadline).map_err(|error| End::of(&error, "head"))?;
        }
    }

    /// Reads one line of a body's framing, takes it with its line end, and returns it without.
    pub(super) fn line(
        &mut self,
        bytes_max: usize,
        deadline: Instant,
    ) -> Result<Range<usize>, End> {
        loop {
            let waiting = self.waiting();
            if let Some(length) = waiting.iter().position(|&byte| byte == b'\n') {
                let line = &waiting[..length];
                let is_good = line.split_last().is_some_and(|(&last, text)| {
                    last == b'\r' && text.len() <= bytes_max && text.iter().all(is_text)
                });
                if !is_good {
                    return Err(Error::bad_request("a line between the chunks is malformed").into());
                }
                let taken = self.start..self.start + length - 1;
                self.start += length + 1;
                return Ok(taken);
            }
            if waiting.len() > bytes_max + 1 {
                return Err(Error::bad_request("a line between the chunks is too long").into());
            }
            self.fill(deadline).map_err(|error| End::of(&error, "body"))?;
        }
    }

    /// Takes exactly `count` bytes and appends them to `body`, which grows only as bytes arrive.
    pub(super) fn take(
        &mut self,
        count: usize,
        body: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<(), End> {
        let here = count.min(self.waiting().len());
        body.extend_from_slice(&self.buffer[self.start..self.start + here]);
        self.start += here;
        if here == count {
            return Ok(());
        }
        let missing = (count - here) as u64;
        let read = Arrival { socket: &mut self.socket, deadline }.take(missing).read_to_end(body);
        match read {
            Ok(arrived) if arrived as u64 == missing => Ok(()),
            Ok(_) => Err(End::of(&ErrorKind::UnexpectedEof.into(), "body")),
            Err(error) => Err(End::of(&error, "body")),
        }
    }

    /// Reads away what the client still sends, at most `bytes_max` and until `deadline`.
    pub(super) fn drain(&mut self, bytes_max: usize, deadline: Instant) {
        let mut drained = 0;
        while drained < bytes_max {
            (self.start, self.end) = (0, 0);
            match self.fill(deadline) {
                Ok(()) => drained += self.end,
                Err(_) => return,
            }
        }
    }

    /// Reads at least one more byte behind what waits.
    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        self.room()?;
        match self.socket.read_until(&mut self.buffer[self.end..], deadline)? {
            0 => Err(ErrorKind::UnexpectedEof.into()),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }

    /// Makes sure that the buffer has room behind what waits.
    fn room(&mut self) -> io::Result<()> {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end < self.buffer.len() {
            return Ok(());
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
            return Ok(());
        }
        let length = (self.buffer.len() * 2).min(self.head_bytes_max);
        if length == self.buffer.len() {
            // The callers check their own limits first, which are not above this one.
            return Err(io::Error::other("the read buffer is full"));
        }
        self.buffer.resize(length, 0);
        Ok(())
    }
}

/// The socket and the read timeout that it has now.
struct Socket {
    link: Arc<Link>,
    timeout: Option<Duration>,
}

impl Socket {
    /// One read that waits for so long. Zero is the end of the stream.
    fn read_for(&mut self, into: &mut [u8], wait: Duration) -> io::Result<usize> {
        if self.timeout != Some(wait) {
            self.link.stream.set_read_timeout(Some(wait))?;
            self.timeout = Some(wait);
        }
        loop {
            match (&self.link.stream).read(into) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }

    /// One read that ends at the deadline.
    fn read_until(&mut self, into: &mut [u8], deadline: Instant) -> io::Result<usize> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            match self.read_for(into, left) {
                // The kernel's timeout; whether it is also ours is asked above.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                read => return read,
            }
        }
    }
}

/// The socket as a reader with a deadline, for the adapters of the standard library.
struct Arrival<'a> {
    socket: &'a mut Socket,
    deadline: Instant,
}

impl Read for Arrival<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.socket.read_until(into, self.deadline)
    }
}

/// The search for the end of a head, which looks at each byte once however the head arrives. It
/// refuses at once what no head can have, so that a client that speaks something else (TLS, a bare
/// line feed) gets an answer instead of the deadline.
#[derive(Default)]
struct Scan {
    at: usize,
    head_start: usize,
    line_start: usize,
    lines: usize,
}

impl Scan {
    /// Looks at the new bytes of `waiting`; returns the range of the head when it is complete.
    fn go_on(&mut self, waiting: &[u8], headers_max: usize) -> Result<Option<Range<usize>>, Error> {
        while let Some(&byte) = waiting.get(self.at) {
            let follows_return = self.at > self.line_start && waiting[self.at - 1] == b'\r';
            if follows_return != (byte == b'\n') {
                return Err(Error::bad_request("a line of the request head does not end in CRLF"));
            }
            if byte != b'\r' && byte != b'\n' && !is_text(&byte) {
                return Err(Error::bad_request(format!(
                    "the request head has a byte that is not printable ASCII: 0x{byte:02x}"
                )));
            }
            self.at += 1;
            if byte == b'\n' && self.end_line(headers_max)? {
                return Ok(Some(self.head_start..self.at));
            }
        }
        Ok(None)
    }

    /// Whether the line that ends here ends the head.
    fn end_line(&mut self, headers_max: usize) -> Result<bool, Error> {
        let is_empty = self.at - self.line_start == 2;
        self.line_start = self.at;
        match (is_empty, self.lines) {
            (true, 0) if self.head_start == 0 => {
                // One empty line before a request is left over from old clients' bodies.
                self.head_start = self.at;
                Ok(false)
            }
            (true, 0) => Err(Error::bad_request("the request begins with empty lines")),
            (true, _) => Ok(true),
            (false, lines) if lines > headers_max => {
                let text = format!("the request has more than {headers_max} header fields");
                Err(Error::new(Code::HeadTooLarge, text))
            }
            (false, _) => {
                self.lines += 1;
                Ok(false)
            }
        }
    }
}

/// Printable ASCII, space and tab.
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b' '..=b'~')
}
