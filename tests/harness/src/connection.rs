//! One HTTP/1.1 connection, read with deadlines.
//!
//! Owns: the socket, the bytes that were read and not yet used, and the rules of framing (length, chunks, or the end
//! of the connection). A deadline is a point in time for the whole of what is read, not for each read, and what came
//! before it is kept, so that a reader can try again. This file deliberately knows no method, no path and no event.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// The longest line of a head, in bytes: a server that sends more is not ours.
const LINE_BYTES_MAX: usize = 64 << 10;

/// The shortest wait that a socket takes.
const READ_TIMEOUT_MIN: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    /// What was read; used up to `used`.
    buffer: Vec<u8>,
    used: usize,
}

/// The start of an answer.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
}

/// How a body ends.
#[derive(Debug)]
pub(crate) enum Body {
    Length(usize),
    Chunked,
    /// With the connection.
    Open,
}

impl Connection {
    pub(crate) fn open(address: SocketAddr, deadline: Instant) -> io::Result<Connection> {
        let socket = TcpStream::connect_timeout(&address, left(deadline)?)?;
        socket.set_nodelay(true)?;
        Ok(Connection { socket, buffer: Vec::new(), used: 0 })
    }

    /// Whether the server has neither closed it nor sent something that nobody asked for.
    pub(crate) fn is_idle(&self) -> bool {
        let quiet = || -> io::Result<bool> {
            self.socket.set_nonblocking(true)?;
            let peeked = self.socket.peek(&mut [0]);
            self.socket.set_nonblocking(false)?;
            Ok(peeked.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock))
        };
        self.used == self.buffer.len() && quiet().unwrap_or(false)
    }

    pub(crate) fn write(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<()> {
        self.socket.set_write_timeout(Some(left(deadline)?))?;
        self.socket.write_all(bytes).map_err(timed_out)
    }

    /// The head of the answer; those of status 1xx are passed over.
    pub(crate) fn head(&mut self, deadline: Instant) -> io::Result<Head> {
        loop {
            let line = self.line(deadline)?;
            let status = status(&line).ok_or_else(|| bad(format!("status line {line:?}")))?;
            let mut headers = Vec::new();
            loop {
                let line = self.line(deadline)?;
                if line.is_empty() {
                    break;
                }
                let (name, value) =
                    line.split_once(':').ok_or_else(|| bad(format!("header {line:?}")))?;
                headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
            }
            if status >= 200 {
                return Ok(Head { status, headers });
            }
        }
    }

    /// A whole body.
    pub(crate) fn body(&mut self, body: &Body, deadline: Instant) -> io::Result<Vec<u8>> {
        match body {
            Body::Length(length) => self.bytes(*length, deadline),
            Body::Chunked => {
                let mut whole = Vec::new();
                while let Some(chunk) = self.chunk(deadline)? {
                    whole.extend(chunk);
                }
                Ok(whole)
            }
            Body::Open => {
                while self.fill(deadline)? {}
                Ok(self.take(self.buffer.len() - self.used))
            }
        }
    }

    /// More of a body that is read piece by piece; `None` at its end.
    pub(crate) fn piece(&mut self, body: &Body, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        if let Body::Chunked = body {
            return self.chunk(deadline);
        }
        if self.used == self.buffer.len() && !self.fill(deadline)? {
            return Ok(None);
        }
        Ok(Some(self.take(self.buffer.len() - self.used)))
    }

    /// The next chunk, whole; `None` for the last one. Nothing is used up before all of it is there.
    fn chunk(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        let end = self.line_end(0, deadline)?;
        let text = String::from_utf8_lossy(&self.buffer[self.used..self.used + end]);
        let digits = text.split(';').next().unwrap_or_default().trim().to_owned();
        let size = usize::from_str_radix(&digits, 16)
            .map_err(|_| bad(format!("chunk size {digits:?}")))?;
        let start = end + 1;
        if size == 0 {
            // The line after the last chunk; trailers are not expected.
            let last = self.line_end(start, deadline)?;
            self.take(last + 1);
            return Ok(None);
        }
        while self.buffer.len() - self.used < start + size + 2 {
            if !self.fill(deadline)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let all = self.take(start + size + 2);
        if &all[start + size..] != b"\r\n" {
            return Err(bad("no line end after a chunk".to_owned()));
        }
        Ok(Some(all[start..start + size].to_vec()))
    }

    fn line(&mut self, deadline: Instant) -> io::Result<String> {
        let end = self.line_end(0, deadline)?;
        let line = self.take(end + 1);
        let line = line.strip_suffix(b"\r\n").ok_or_else(|| bad("a line without CR".to_owned()))?;
        Ok(String::from_utf8_lossy(line).into_owned())
    }

    /// Where the line that starts at `start` has its newline, both counted from what is not used yet.
    fn line_end(&mut self, start: usize, deadline: Instant) -> io::Result<usize> {
        loop {
            let unused = &self.buffer[self.used..];
            let rest = unused.get(start..).unwrap_or_default();
            if let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
                return Ok(start + at);
            }
            if rest.len() > LINE_BYTES_MAX {
                return Err(bad("a line without an end".to_owned()));
            }
            if !self.fill(deadline)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn bytes(&mut self, count: usize, deadline: Instant) -> io::Result<Vec<u8>> {
        while self.buffer.len() - self.used < count {
            if !self.fill(deadline)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(self.take(count))
    }

    /// Uses up bytes that are there.
    fn take(&mut self, count: usize) -> Vec<u8> {
        let taken = self.buffer[self.used..self.used + count].to_vec();
        self.used += count;
        taken
    }

    /// Reads once; false at the end of the connection. Errors: `TimedOut` at the deadline.
    fn fill(&mut self, deadline: Instant) -> io::Result<bool> {
        self.buffer.drain(..self.used);
        self.used = 0;
        self.socket.set_read_timeout(Some(left(deadline)?))?;
        let mut piece = [0; 64 << 10];
        loop {
            match self.socket.read(&mut piece) {
                Ok(count) => {
                    self.buffer.extend_from_slice(&piece[..count]);
                    return Ok(count > 0);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timed_out(error)),
            }
        }
    }
}

impl Head {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// How the body of the answer to a request of this method ends.
    pub(crate) fn body(&self, method: &str) -> io::Result<Body> {
        if method == "HEAD" || matches!(self.status, 204 | 304) {
            return Ok(Body::Length(0));
        }
        let coding = self.header("transfer-encoding").unwrap_or_default();
        if coding.eq_ignore_ascii_case("chunked") {
            return Ok(Body::Chunked);
        }
        match self.header("content-length") {
            Some(text) => {
                let length = text.parse().map_err(|_| bad(format!("content-length {text:?}")))?;
                Ok(Body::Length(length))
            }
            None => Ok(Body::Open),
        }
    }

    /// Whether the connection can be used again after the body.
    pub(crate) fn keeps_alive(&self, body: &Body) -> bool {
        let closes = self.header("connection").is_some_and(|it| it.eq_ignore_ascii_case("close"));
        !closes && !matches!(body, Body::Open)
    }
}

fn status(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}

fn left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left.max(READ_TIMEOUT_MIN))
    }
}

/// A socket's timeout comes as `WouldBlock`.
fn timed_out(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::WouldBlock => io::ErrorKind::TimedOut.into(),
        _ => error,
    }
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server sent a bad {what}"))
}
