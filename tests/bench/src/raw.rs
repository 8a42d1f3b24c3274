//! A client that costs as little as it can: prebuilt requests, answers read by their length, and event
//! streams cut at blank lines. It shares two CPUs with what it measures, so each saved copy counts.
//!
//! Owns: one socket and one buffer. Everything fails by a panic, since a benchmark whose requests fail
//! has nothing to tell; every read has a timeout, so nothing waits for ever.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer or an event may take.
const READ_TIME: Duration = Duration::from_secs(60);

/// The first size of a buffer; it grows when one event is larger.
const BUFFER_BYTES: usize = 256 * 1024;

/// Whom to ask, and with which token.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    pub(crate) token: String,
}

impl Peer {
    /// The bytes of a GET.
    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        let Peer { address, token } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\r\n")
            .into_bytes()
    }

    /// The bytes of a POST with a JSON body.
    pub(crate) fn post(&self, path: &str, body: &str) -> Vec<u8> {
        let Peer { address, token } = self;
        let length = body.len();
        format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .into_bytes()
    }

    pub(crate) fn connect(&self) -> Raw {
        let socket = TcpStream::connect(self.address).expect("the server accepts");
        socket.set_nodelay(true).expect("a TCP socket");
        socket.set_read_timeout(Some(READ_TIME)).expect("the time is not zero");
        Raw { socket, buffer: vec![0; 16 * 1024], from: 0, to: 0 }
    }

    /// Opens a stream and reads its head.
    pub(crate) fn events(&self, path: &str) -> Events {
        self.events_with(path, BUFFER_BYTES)
    }

    pub(crate) fn events_with(&self, path: &str, buffer_bytes: usize) -> Events {
        let mut raw = self.connect();
        raw.buffer = vec![0; buffer_bytes];
        raw.send(&self.get(path));
        let end = raw.head_end();
        let head = String::from_utf8_lossy(&raw.buffer[raw.from..end]).into_owned();
        assert!(head.starts_with("HTTP/1.1 200"), "{path}: {head}");
        assert!(!head.to_ascii_lowercase().contains("transfer-encoding"), "{head}");
        raw.from = end;
        Events { raw, scanned: 0 }
    }
}

/// A connection that is kept.
pub(crate) struct Raw {
    socket: TcpStream,
    buffer: Vec<u8>,
    /// What was read and not used yet.
    from: usize,
    to: usize,
}

impl Raw {
    pub(crate) fn send(&mut self, request: &[u8]) {
        self.socket.write_all(request).expect("the server reads");
    }

    /// Reads one answer to its end and returns its status and body.
    pub(crate) fn answer(&mut self) -> (u16, &[u8]) {
        let head_end = self.head_end();
        let head = &self.buffer[self.from..head_end];
        let status = std::str::from_utf8(&head[9..12]).ok().and_then(|text| text.parse().ok());
        let length = content_length(head).expect("the answer has a length");
        let end = head_end + length;
        let start = self.from;
        while self.to - start < end - start {
            self.fill(end);
        }
        self.from = if end == self.to { self.to } else { end };
        let body = &self.buffer[head_end..end];
        if self.from == self.to {
            (self.from, self.to) = (0, 0);
        }
        (status.expect("a status"), body)
    }

    /// Where the head that begins at `from` ends. The buffer may move before it returns, not after.
    fn head_end(&mut self) -> usize {
        if self.from > 0 {
            self.buffer.copy_within(self.from..self.to, 0);
            (self.from, self.to) = (0, self.to - self.from);
        }
        loop {
            let seen = &self.buffer[self.from..self.to];
            if let Some(at) = find(seen, b"\r\n\r\n") {
                return self.from + at + 4;
            }
            self.fill(0);
        }
    }

    /// Reads once more; the buffer then has room for at least `bytes`.
    fn fill(&mut self, bytes: usize) {
        assert!(self.try_fill(bytes), "the server has closed the connection");
    }

    fn try_fill(&mut self, bytes: usize) -> bool {
        if self.buffer.len() < bytes || self.to == self.buffer.len() {
            let size = bytes.max(self.buffer.len() * 2);
            self.buffer.resize(size, 0);
        }
        loop {
            match self.socket.read(&mut self.buffer[self.to..]) {
                Ok(count) => {
                    self.to += count;
                    return count > 0;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => panic!("awaited an answer for at most {READ_TIME:?}: {error}"),
            }
        }
    }
}

/// An open event stream.
pub(crate) struct Events {
    raw: Raw,
    /// Bytes behind `raw.from` that hold no end of an event.
    scanned: usize,
}

impl Events {
    /// The next event, its lines without the blank one. Panics: the stream has ended.
    pub(crate) fn next(&mut self) -> &[u8] {
        loop {
            if let Some((from, to)) = self.cut() {
                return &self.raw.buffer[from..to];
            }
            self.make_room();
            self.raw.fill(0);
        }
    }

    /// Skips to the first event of one of these kinds.
    pub(crate) fn skip_to(&mut self, kinds: &[&str]) {
        loop {
            let kind = kind(self.next());
            if kinds.iter().any(|wanted| wanted.as_bytes() == kind) {
                return;
            }
        }
    }

    /// The next event of what has been read already.
    pub(crate) fn next_read(&mut self) -> Option<&[u8]> {
        let (from, to) = self.cut()?;
        Some(&self.raw.buffer[from..to])
    }

    /// Reads once what has arrived; for a socket that was found readable.
    pub(crate) fn read_once(&mut self) {
        self.make_room();
        self.raw.fill(0);
    }

    pub(crate) fn socket(&self) -> &TcpStream {
        &self.raw.socket
    }

    /// Reads whatever comes, hands it to `take` as it is, and stops when that returns false.
    pub(crate) fn drain(mut self, mut take: impl FnMut(&[u8]) -> bool) {
        loop {
            let bytes = &self.raw.buffer[self.raw.from..self.raw.to];
            if !take(bytes) {
                return;
            }
            (self.raw.from, self.raw.to) = (0, 0);
            self.raw.fill(0);
        }
    }

    fn cut(&mut self) -> Option<(usize, usize)> {
        let Raw { from, to, .. } = self.raw;
        let start = from + self.scanned.saturating_sub(1);
        let Some(at) = find(&self.raw.buffer[start.max(from)..to], b"\n\n") else {
            self.scanned = to - from;
            return None;
        };
        let end = start.max(from) + at;
        self.raw.from = end + 2;
        self.scanned = 0;
        Some((from, end))
    }

    fn make_room(&mut self) {
        let Raw { from, to, .. } = self.raw;
        if from == to {
            (self.raw.from, self.raw.to) = (0, 0);
        } else if to == self.raw.buffer.len() && from > 0 {
            self.raw.buffer.copy_within(from..to, 0);
            (self.raw.from, self.raw.to) = (0, to - from);
        }
    }
}

/// The kind of an event; empty for a comment.
pub(crate) fn kind(event: &[u8]) -> &[u8] {
    value(event, b"event: ", b'\n').unwrap_or_default()
}

/// What stands behind `name` up to `end`, or to the end of the event.
pub(crate) fn value<'a>(event: &'a [u8], name: &[u8], end: u8) -> Option<&'a [u8]> {
    let rest = &event[find(event, name)? + name.len()..];
    let length = rest.iter().position(|byte| *byte == end).unwrap_or(rest.len());
    Some(&rest[..length])
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let mut start = 0;
    while let Some(at) = bytes[start..].iter().position(|byte| *byte == wanted[0]) {
        if bytes[start + at..].starts_with(wanted) {
            return Some(start + at);
        }
        start += at + 1;
    }
    None
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\r\ncontent-length: ";
    let at = head.windows(NAME.len()).position(|window| window.eq_ignore_ascii_case(NAME))?;
    let digits = head[at + NAME.len()..].iter().take_while(|byte| byte.is_ascii_digit());
    Some(digits.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gooselake_harness::thread;
    use std::net::TcpListener;

    /// A server that sends these pieces to its one client, each after the request was read.
    fn serve(pieces: Vec<&'static str>) -> (Peer, thread::Thread) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let thread = thread::spawn("fake", move || {
            let (mut socket, _) = listener.accept().unwrap();
            assert!(socket.read(&mut [0; 4096]).unwrap() > 0);
            for piece in pieces {
                socket.write_all(piece.as_bytes()).unwrap();
            }
        });
        (Peer { address, token: "t".to_owned() }, thread.unwrap())
    }

    #[test]
    fn answers_are_read_by_their_length() {
        let (peer, server) = serve(vec![
            "HTTP/1.1 200 OK\r\nContent-Le",
            "ngth: 5\r\n\r\nab",
            "cdeHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
        ]);
        let mut raw = peer.connect();
        raw.send(&peer.get("/"));
        assert_eq!(raw.answer(), (200, &b"abcde"[..]));
        assert_eq!(raw.answer(), (404, &b""[..]));
        server.join();
    }

    #[test]
    fn events_are_cut_at_blank_lines_wherever_the_pieces_end() {
        let (peer, server) = serve(vec![
            "HTTP/1.1 200 OK\r\n\r\nretry: 1\n\nid: 1\nevent: a\nda",
            "ta: {}\n",
            "\nevent: turn.completed\ndata: {\"delta\":\"x\"}\n\n",
        ]);
        let mut events = peer.events_with("/", 64);
        assert_eq!(events.next(), b"retry: 1");
        assert_eq!(kind(events.next()), b"a");
        let last = events.next();
        assert_eq!(kind(last), b"turn.completed");
        assert_eq!(value(last, b"\"delta\":\"", b'"'), Some(&b"x"[..]));
        server.join();
    }
}
