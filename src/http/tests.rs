//! Tests of the HTTP layer over real sockets.
//!
//! Owns: a server on port 0 with a small handler, and a client that sends exactly the bytes that a
//! test wants and waits no longer than [`PATIENCE`]. The tests are in the files below: what is
//! understood (`framing`), what is survived (`hostile`), streams (`stream`) and the end
//! (`shutdown`).

mod framing;
mod hostile;
mod shutdown;
mod stream;

use super::{Admission, Answer, Handler, Head, Limits, Request, Response, Server};
use super::{StreamHead, StreamWriter};
use crate::error::{Code, Error};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use serde_json::{Value, json};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// No test waits longer for one thing.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server with the handler below.
struct House {
    server: Server,
    /// Lets one request to `/wait`, or one step of a held stream, go on.
    release: Sender<()>,
    /// What handlers tell the test.
    reports: Receiver<String>,
}

impl House {
    fn new() -> House {
        House::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Limits)) -> House {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        House::on(listener, change)
    }

    fn on(listener: TcpListener, change: impl FnOnce(&mut Limits)) -> House {
        let mut limits = Limits::default();
        change(&mut limits);
        let (release, released) = bounded(64);
        let (report, reports) = unbounded();
        let handler = Arc::new(Porter { released, report });
        House { server: Server::start(listener, limits, handler).unwrap(), release, reports }
    }

    fn client(&self) -> Client {
        Client::connect(&self.server)
    }

    /// Whether so many connections are open before the patience ends.
    fn comes_to(&self, open: usize) -> bool {
        self.server.registry().await_open_count(open, Instant::now() + PATIENCE)
    }

    fn report(&self) -> String {
        self.reports.recv_timeout(PATIENCE).expect("the handler reports in time")
    }

    /// The server still serves.
    fn check_alive(&self) {
        let mut client = self.client();
        client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(client.answer().status, 200);
    }
}

/// The handler: what each path does is said in [`Porter::handle`].
struct Porter {
    released: Receiver<()>,
    report: Sender<String>,
}

impl Handler for Porter {
    fn admit(&self, head: &Head) -> Result<Admission, Answer> {
        let first = head.path.first().map_or("", String::as_str);
        match first {
            "refuse" => Err(Error::new(Code::Forbidden, "not for you").into()),
            "panic-early" => panic!("the handler's own panic, before the body"),
            "method" if head.method() != "GET" => {
                Err(Response::from(&Error::new(Code::MethodNotAllowed, head.method()))
                    .header("Allow", "GET")
                    .into())
            }
            "bottomless" => Ok(Admission { body_bytes_max: usize::MAX }),
            _ => Ok(Admission { body_bytes_max: 1000 }),
        }
    }

    fn handle(&self, request: Request) -> Answer {
        let head = &request.head;
        let segments: Vec<&str> = head.path.iter().map(String::as_str).collect();
        match segments[..] {
            ["echo"] => Response::json(200, request.body).into(),
            ["seen"] | [] => Response::json(200, seen(head).to_string()).into(),
            ["empty"] => Response::new(204).into(),
            ["evil"] => Response::new(200).header("X-A", "a\r\nSet-Cookie: evil=1").into(),
            ["panic"] => panic!("the handler's own panic"),
            ["shared"] => Response::json(200, Arc::<[u8]>::from(&b"kept"[..])).into(),
            ["big", bytes] => Response::text(200, vec![b'x'; bytes.parse().unwrap()]).into(),
            ["wait"] => {
                self.report.send("waits".to_owned()).unwrap();
                let released = self.released.recv_timeout(PATIENCE).is_ok();
                Response::json(200, released.to_string()).into()
            }
            ["mine"] => {
                let mine = Mine;
                let head = StreamHead { status: 200, headers: Vec::new() };
                Answer::Stream(head, Box::new(move |_: &mut StreamWriter| drop(mine)))
            }
            ["stream", what] => self.stream(what.to_owned()),
            _ => Response::json(200, r#"{"hello":true}"#.to_owned()).into(),
        }
    }
}

impl Porter {
    fn stream(&self, what: String) -> Answer {
        let headers = vec![("Content-Type", "text/event-stream".to_owned())];
        let (released, report) = (self.released.clone(), self.report.clone());
        let head = StreamHead { status: 200, headers };
        let body = move |writer: &mut StreamWriter| match what.as_str() {
            "three" => {
                for number in 1..=3 {
                    writer.write_all(format!("id: {number}\n\n").as_bytes()).unwrap();
                }
                report.send(writer.bytes_written().to_string()).unwrap();
            }
            "held" => {
                // One event for each release; ends when the client is gone.
                report.send("held".to_owned()).unwrap();
                while released.recv_timeout(PATIENCE).is_ok() && !writer.is_client_gone() {
                    drop(writer.write_all(b"id: 1\n\n"));
                }
                report.send(format!("gone: {}", writer.is_client_gone())).unwrap();
            }
            "flood" => {
                let error = loop {
                    if let Err(error) = writer.write_all(&[b'x'; 4096]) {
                        break error;
                    }
                };
                let again = writer.write_all(b"more").unwrap_err().kind();
                report.send(format!("{:?} {again:?}", error.kind())).unwrap();
                report.send(writer.bytes_written().to_string()).unwrap();
            }
            _ => panic!("the stream's own panic"),
        };
        Answer::Stream(head, Box::new(body))
    }
}

/// Panics when it goes, outside of the handler's call: the head of a stream was all that was asked for.
struct Mine;

impl Drop for Mine {
    fn drop(&mut self) {
        panic!("a panic of the connection itself");
    }
}

/// What the handler sees of a head.
fn seen(head: &Head) -> Value {
    let headers: Vec<_> = head.headers().map(|(name, value)| format!("{name}={value}")).collect();
    json!({
        "method": head.method(), "target": head.target(), "path": head.path, "query": head.query,
        "headers": headers, "http11": head.http11, "peer_ip": head.peer.ip().to_string(),
    })
}

/// A client that knows just enough to read an answer.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

struct Reply {
    status: u16,
    /// The status line and the fields, as they came.
    head: String,
    body: Vec<u8>,
}

impl Reply {
    fn has(&self, field: &str) -> bool {
        self.head.split("\r\n").any(|line| line.eq_ignore_ascii_case(field))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the body is JSON")
    }

    fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }
}

impl Client {
    fn connect(server: &Server) -> Client {
        let stream = TcpStream::connect(server.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Client { stream, read: Vec::new() }
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).unwrap();
    }

    /// Sends what the server may have stopped to listen to.
    fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.stream.write_all(bytes.as_ref())
    }

    fn answer(&mut self) -> Reply {
        self.answer_to("GET")
    }

    /// Reads one answer; the body is as long as the head says, and none for HEAD.
    fn answer_to(&mut self, method: &str) -> Reply {
        let head = self.head();
        let length = head
            .split("\r\n")
            .find_map(|line| line.strip_prefix("Content-Length: "))
            .map_or(0, |value| value.parse().unwrap());
        let length = if method == "HEAD" { 0 } else { length };
        while self.read.len() < length {
            assert!(self.more() > 0, "the answer ended early");
        }
        let body = self.read.drain(..length).collect();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Reply { status, head, body }
    }

    /// Reads a status line with its fields and leaves the rest.
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

    /// Whether the server closes now, without a further byte.
    fn is_closed(&mut self) -> bool {
        self.read.is_empty() && self.more() == 0
    }

    /// All that comes until the server closes.
    fn rest(&mut self) -> Vec<u8> {
        while self.more() > 0 {}
        std::mem::take(&mut self.read)
    }

    /// Reads once. Zero: closed or reset.
    fn more(&mut self) -> usize {
        let mut buffer = [0; 16 * 1024];
        match self.stream.read(&mut buffer) {
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                count
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => 0,
            Err(error) => panic!("nothing came in time: {error}"),
        }
    }

    /// Whether an answer begins within so short a time; the pace of a slow sender.
    fn hears_within(&mut self, time: Duration) -> bool {
        self.stream.set_read_timeout(Some(time)).unwrap();
        let mut byte = [0];
        let heard = self.stream.peek(&mut byte);
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        match heard {
            Ok(_) => true,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}
