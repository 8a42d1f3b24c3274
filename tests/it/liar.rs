//! A proxy that lies about one thing: what the conformance kit must find out.
//!
//! Owns: a listener on the loopback, one thread that accepts, and one for each connection. A request goes to the server
//! as HTTP/1.0, so that each answer ends with its connection; a whole answer comes back as it is, and of a stream the
//! frames are changed as the [`Lie`] says. Connections end when the kit or the server ends them.

use gooselake_harness::thread::{Thread, spawn};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What is told wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing: what the kit says of it must be what it says of the server.
    Nothing,
    /// An event is missing wherever it is asked for.
    Hole,
    /// An event is missing when it is told again.
    ForgottenInReplay,
    /// An event comes twice when it is told again.
    TwiceInReplay,
    /// Two events come in the wrong order.
    WrongOrder,
    /// The first event behind a cursor is missing.
    LostBehindCursor,
    /// An event is missing for whoever reads while many others do.
    LostForSlowReaders,
    /// `stream.opened` is missing.
    NoOpened,
    /// `stream.caught_up` is missing.
    NoCaughtUp,
    /// `stream.caught_up` has an id, which would move a client's cursor.
    CaughtUpWithId,
}

/// The cursor of the event that is lied about.
const LIED_ABOUT: &str = "id: 7";

/// So many streams at once are many; the kit has fewer but for its slow readers.
const MANY: usize = 5;

#[derive(Debug)]
struct Shared {
    server: SocketAddr,
    lie: Lie,
    is_over: AtomicBool,
    /// Streams so far, and those that are open.
    streams: AtomicUsize,
    open: AtomicUsize,
}

/// The proxy. Its threads have ended when it is dropped.
#[derive(Debug)]
pub(crate) struct Liar {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<Thread<()>>,
}

impl Liar {
    pub(crate) fn start(server: SocketAddr, lie: Lie) -> Liar {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            lie,
            is_over: AtomicBool::new(false),
            streams: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
        });
        let with = Arc::clone(&shared);
        let accept = move || {
            let mut connections = Vec::new();
            for socket in listener.incoming() {
                if with.is_over.load(Ordering::SeqCst) {
                    break;
                }
                let (socket, with) = (socket.unwrap(), Arc::clone(&with));
                // A connection that breaks is the end of it, as for any proxy.
                let serve = move || drop(with.serve(socket));
                connections.push(spawn("liar-connection", serve).unwrap());
            }
        };
        Liar { address, shared, accepting: Some(spawn("liar", accept).unwrap()) }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.address));
        drop(self.accepting.take());
    }
}

impl Shared {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        let mut from_client = BufReader::new(client.try_clone()?);
        let mut to_client = client;
        let head = read_head(&mut from_client)?;
        let mut body = vec![0; number(&head, "content-length:")];
        from_client.read_exact(&mut body)?;
        let mut server = TcpStream::connect(self.server)?;
        let request = head.replacen(" HTTP/1.1\r\n", " HTTP/1.0\r\n", 1);
        server.write_all(request.as_bytes())?;
        server.write_all(&body)?;
        let mut from_server = BufReader::new(server);
        let answer = read_head(&mut from_server)?;
        to_client.write_all(answer.as_bytes())?;
        if !answer.to_lowercase().contains("content-type: text/event-stream") {
            io::copy(&mut from_server, &mut to_client)?;
            return Ok(());
        }
        let place = self.streams.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let is_resumed = head.contains("after_seq=") || head.contains("Last-Event-ID");
        let told = self.tell(&mut from_server, &mut to_client, place, is_resumed);
        self.open.fetch_sub(1, Ordering::SeqCst);
        told
    }

    /// Passes the frames on. The first two streams of the kit are those that it has while its turns run.
    fn tell(
        &self,
        from: &mut impl BufRead,
        to: &mut impl Write,
        place: usize,
        is_resumed: bool,
    ) -> io::Result<()> {
        let is_replay = place >= 2;
        let mut held = String::new();
        let mut is_first = true;
        while let Some(frame) = read_frame(from)? {
            let is_event = frame.starts_with("id: ");
            let is_it = frame.lines().next() == Some(LIED_ABOUT);
            let is_caught_up = frame.starts_with("event: stream.caught_up\n");
            let is_lost = match self.lie {
                Lie::Hole => is_it,
                Lie::ForgottenInReplay => is_it && is_replay,
                Lie::LostBehindCursor => is_event && is_first && is_resumed && is_replay,
                Lie::LostForSlowReaders => is_it && self.open.load(Ordering::SeqCst) > MANY,
                Lie::NoOpened => frame.starts_with("event: stream.opened\n"),
                Lie::NoCaughtUp => is_caught_up,
                _ => false,
            };
            is_first &= !is_event;
            if is_lost {
                continue;
            }
            if self.lie == Lie::WrongOrder && is_it {
                held = frame;
                continue;
            }
            if self.lie == Lie::CaughtUpWithId && is_caught_up {
                to.write_all(b"id: 1\n")?;
            }
            to.write_all(frame.as_bytes())?;
            if self.lie == Lie::TwiceInReplay && is_it && is_replay {
                to.write_all(frame.as_bytes())?;
            }
            to.write_all(std::mem::take(&mut held).as_bytes())?;
        }
        Ok(())
    }
}

/// A head with the empty line at its end.
fn read_head(from: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// A frame with the empty line at its end; `None` behind the last one.
fn read_frame(from: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut frame = String::new();
    while !frame.ends_with("\n\n") && frame != "\n" {
        if from.read_line(&mut frame)? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(frame))
}

fn number(head: &str, name: &str) -> usize {
    let lower = head.to_lowercase();
    let value = lower.lines().find_map(|line| line.strip_prefix(name));
    value.map_or(0, |value| value.trim().parse().unwrap())
}
