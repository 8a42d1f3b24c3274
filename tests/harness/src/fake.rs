//! A server for the tests of the client and the stream.
//!
//! Owns: a listener on the loopback and one thread that serves a known number of connections, one after the other, with
//! a function that says what happens on each. Every read has a deadline, so a broken test ends.

use crate::thread::{Thread, spawn};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

pub(crate) const OK_EMPTY: &str = "HTTP/1.1 204 No Content\r\n\r\n";

const DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct Fake {
    address: SocketAddr,
    tell: mpsc::Sender<()>,
    thread: Thread<Vec<String>>,
}

/// One connection, seen from the server.
pub(crate) struct Connection {
    socket: TcpStream,
    told: mpsc::Receiver<()>,
}

impl Fake {
    /// Serves so many connections; `serve` gives the requests that it read.
    pub(crate) fn start(
        connections: usize,
        serve: impl Fn(Connection) -> Vec<String> + Send + 'static,
    ) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::channel();
        let mut told = Some(told);
        let thread = spawn("fake-server", move || {
            let mut requests = Vec::new();
            for _ in 0..connections {
                let (socket, _) = listener.accept().unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                socket.set_nodelay(true).unwrap();
                // Only a server of one connection is told anything.
                let told = told.take().unwrap_or_else(|| mpsc::channel().1);
                requests.extend(serve(Connection { socket, told }));
            }
            requests
        });
        Fake { address, tell, thread: thread.unwrap() }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends a [`Connection::wait_told`].
    pub(crate) fn tell(&self) {
        self.tell.send(()).unwrap();
    }

    /// What was asked, after all connections were served.
    pub(crate) fn requests(self) -> Vec<String> {
        self.thread.join()
    }
}

impl Connection {
    /// One request with its body.
    pub(crate) fn request(&mut self) -> String {
        let mut bytes = Vec::new();
        let mut byte = [0];
        while !bytes.ends_with(b"\r\n\r\n") {
            self.socket.read_exact(&mut byte).unwrap();
            bytes.extend(byte);
        }
        let head = String::from_utf8(bytes).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        self.socket.read_exact(&mut body).unwrap();
        head + std::str::from_utf8(&body).unwrap()
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.socket.write_all(text.as_bytes()).unwrap();
    }

    pub(crate) fn send_in_pieces(&mut self, bytes: &[u8], size: usize) {
        for piece in bytes.chunks(size) {
            self.socket.write_all(piece).unwrap();
        }
    }

    /// Waits until the client has gone.
    pub(crate) fn wait_closed(&mut self) {
        drop(self.socket.read(&mut [0]));
    }

    /// Waits for [`Fake::tell`].
    pub(crate) fn wait_told(&self) {
        self.told.recv_timeout(DEADLINE).unwrap();
    }
}
