//! Clients that mean harm, or are broken, against the built server over real sockets.
//!
//! Owns: a socket on which a test says exactly the bytes that it wants, and the look at the log that tells whether
//! anything came of them. `connection` is about too many, too slow, gone and deaf clients; `framing` about requests
//! that two readers would split in two ways; `name` about hosts and paths; `token` about whoever guesses one, and
//! agents with their own; `field` about what a client writes into fields that reach a file or a program; `bomb` about
//! bodies that are small on the wire only. The table that they prove is in docs/SECURITY.md.

mod bomb;
mod connection;
mod field;
mod framing;
mod name;
mod token;

use crate::stage::{SOON, Stage};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A socket, and what was read from it and not looked at yet.
struct Raw {
    socket: TcpStream,
    read: Vec<u8>,
}

/// An answer of known length.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Raw {
    fn open(address: SocketAddr) -> Raw {
        let socket = TcpStream::connect_timeout(&address, SOON).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        socket.set_write_timeout(Some(SOON)).unwrap();
        Raw { socket, read: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.socket.write_all(bytes.as_ref()).unwrap();
    }

    fn answer(&mut self) -> Answer {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let length = length.map_or(0, |length| length.parse().unwrap());
        while self.read.len() < length {
            assert!(self.more() > 0, "the answer ended early: {head}");
        }
        let body = self.read.drain(..length).collect();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    /// A status line with its fields; what follows is left.
    fn head(&mut self) -> String {
        loop {
            if let Some(end) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.read.drain(..end + 4).collect();
                return String::from_utf8(head).unwrap();
            }
            let so_far = String::from_utf8_lossy(&self.read).into_owned();
            assert!(self.more() > 0, "closed without a whole head: {so_far:?}");
        }
    }

    /// All that comes until the server closes.
    fn rest(&mut self) -> String {
        while self.more() > 0 {}
        String::from_utf8_lossy(&std::mem::take(&mut self.read)).into_owned()
    }

    /// Reads once. Zero: closed or reset. Panics: nothing comes.
    fn more(&mut self) -> usize {
        let mut piece = [0; 16 * 1024];
        match self.socket.read(&mut piece) {
            Ok(count) => {
                self.read.extend_from_slice(&piece[..count]);
                count
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }

    /// Whether something can be read, or the end, within so short a time; the pace of a slow sender.
    fn hears_within(&mut self, time: Duration) -> bool {
        self.socket.set_read_timeout(Some(time)).unwrap();
        let heard = self.socket.peek(&mut [0]);
        self.socket.set_read_timeout(Some(SOON)).unwrap();
        match heard {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

impl Stage {
    fn raw(&self) -> Raw {
        Raw::open(self.server.address())
    }

    /// The line that the operator's requests have.
    fn authorization(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.server.token())
    }

    /// The last row of the whole log: as long as it is the same, nothing was changed by anybody.
    fn last_row(&self) -> i64 {
        let last = self.get("/v1/events?order=desc&limit=1");
        last[0]["row_id"].as_i64().unwrap()
    }

    /// A figure of the server, by its name without the prefix.
    fn figure(&self, name: &str) -> u64 {
        let page = self.client.get("/metrics").expect(200).text();
        figure(&page, name)
    }
}

fn figure(page: &str, name: &str) -> u64 {
    let name = format!("gooselake_{name} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&name));
    line.unwrap_or_else(|| panic!("no {name}in {page}")).parse().unwrap()
}
