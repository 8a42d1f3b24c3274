//! The server: sockets in, replies out.
//!
//! Owns: the listener on loopback, one thread that accepts, and one thread per connection.
//! Promises: a dropped [`Mock`] has ended its threads and closed its sockets; nothing is read or
//! written without a deadline. The accepting thread ends when the gate says so (it is woken by a
//! connection of our own), a connection's thread when its socket closes, which [`Mock`] forces.
//! Deliberately decides nothing: the dialects make replies, this file plays them.

use std::collections::HashMap;
use std::io::{self, BufReader};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, Scope};
use std::time::Duration;

use serde_json::{Value, json};

use crate::gate::Gate;
use crate::http::{self, Request};
use crate::journal::Journal;
use crate::plan::Memory;
use crate::reply::{Ids, Reply, Step};
use crate::route::{Route, route};
use crate::speech::Wait;

/// How long a connection may stay silent. Agents keep connections open between turns, and one that
/// is closed under them costs them a retry.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// How long a client may take to read what is written.
const WRITE_MAX: Duration = Duration::from_secs(30);
/// The pause after a failed accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How many connections there may be at a time. One more is closed at once.
const CONNECTIONS_MAX: usize = 256;

/// A running mock. Dropping it ends it.
#[derive(Debug)]
pub struct Mock {
    /// Where it listens: a port of 127.0.0.1.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What all threads of a mock see.
#[derive(Debug)]
struct Shared {
    gate: Gate,
    journal: Journal,
    mind: Mutex<Mind>,
    connections: Mutex<HashMap<u64, TcpStream>>,
}

/// What answers depend on beside the request.
#[derive(Debug)]
struct Mind {
    memory: Memory,
    ids: Ids,
}

impl Mock {
    /// Starts a mock on a free port.
    /// Errors: the system has no port or no thread to give.
    pub fn start() -> io::Result<Mock> {
        Mock::start_on(0)
    }

    /// Starts a mock on that port; 0 is a free one.
    /// Errors: the port is taken, or the system has no thread to give.
    pub fn start_on(port: u16) -> io::Result<Mock> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            gate: Gate::default(),
            journal: Journal::default(),
            mind: Mutex::new(Mind { memory: Memory::default(), ids: Ids::now() }),
            connections: Mutex::new(HashMap::new()),
        });
        let theirs = Arc::clone(&shared);
        #[allow(clippy::disallowed_methods, reason = "a test program has no src/thread.rs")]
        let accepting = thread::Builder::new()
            .name("mock-accept".into())
            .spawn(move || accept(&listener, &theirs))?;
        Ok(Mock { address, shared, accepting: Some(accepting) })
    }

    /// What it was asked so far, oldest first, as `GET /__log` tells it.
    pub fn log(&self) -> Vec<Value> {
        self.shared.journal.records()
    }

    /// Lets every HOLD go on that waits now, as `POST /__gate/open` does.
    pub fn open_gate(&self) {
        self.shared.gate.open();
    }

    /// Serves until the process ends.
    pub fn serve(mut self) {
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

impl Drop for Mock {
    fn drop(&mut self) {
        self.shared.gate.end();
        for stream in self.shared.connections().values() {
            // It may be closed already.
            drop(stream.shutdown(Shutdown::Both));
        }
        if let Some(accepting) = self.accepting.take() {
            // Wakes the thread out of its accept. When nobody accepts, it has ended by itself.
            drop(TcpStream::connect(self.address));
            drop(accepting.join());
        }
    }
}

impl Shared {
    fn connections(&self) -> MutexGuard<'_, HashMap<u64, TcpStream>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enters a connection, so that the end of the mock can close it. False: there are too many,
    /// or the mock has ended. The lock makes it see either the entry or the end.
    fn enter(&self, number: u64, stream: &TcpStream) -> bool {
        let mut connections = self.connections();
        let Ok(copy) = stream.try_clone() else { return false };
        if connections.len() >= CONNECTIONS_MAX || self.gate.has_ended() {
            return false;
        }
        connections.insert(number, copy);
        true
    }
}

/// Accepts until the mock ends. The scope waits for the connections' threads.
fn accept(listener: &TcpListener, shared: &Shared) {
    thread::scope(|scope| {
        for (number, stream) in (0..).zip(listener.incoming()) {
            if shared.gate.has_ended() {
                return;
            }
            match stream {
                Ok(stream) if shared.enter(number, &stream) => {
                    if start(scope, number, stream, shared).is_err() {
                        shared.connections().remove(&number);
                    }
                }
                Ok(_) => {}
                // Most likely there are no descriptors; asking again at once would only spin.
                Err(_) => shared.gate.pause(ACCEPT_PAUSE),
            }
        }
    });
}

fn start<'scope>(
    scope: &'scope Scope<'scope, '_>,
    number: u64,
    stream: TcpStream,
    shared: &'scope Shared,
) -> io::Result<()> {
    thread::Builder::new().name(format!("mock-{number}")).spawn_scoped(scope, move || {
        // A client that goes away or talks no HTTP ends its connection; the journal has what came
        // before, and there is nobody else to tell.
        drop(serve(stream, shared));
        shared.connections().remove(&number);
    })?;
    Ok(())
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let request = match http::read(&mut reader) {
            Ok(Some(request)) => request,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let body = json!({ "error": { "message": format!("mock: {error}") } });
                http::write_json(&mut stream, 400, &body, false)?;
                return http::leave(&mut reader);
            }
            Err(error) => return Err(error),
        };
        let openings = shared.gate.openings();
        let reply = answer(&request, shared);
        play(&mut stream, &request, reply, openings, shared)?;
        if request.closes() {
            return Ok(());
        }
    }
}

/// Finds the reply and writes the journal. The mind is locked for the thinking only.
fn answer(request: &Request, shared: &Shared) -> Reply {
    match route(request) {
        Route::Log => Reply::json(200, json!(shared.journal.records())),
        Route::OpenGate => {
            shared.gate.open();
            Reply::json(200, json!({ "ok": true }))
        }
        Route::Ready { api, reply } => {
            if let Some(api) = api {
                shared.journal.add(request, api, reply.status(), Value::Null);
            }
            reply
        }
        Route::Ask { dialect, question } => {
            let mut mind = shared.mind.lock().unwrap_or_else(PoisonError::into_inner);
            let Mind { memory, ids } = &mut *mind;
            let (plan, reply) = dialect.answer(&question, memory, ids);
            drop(mind);
            let told = crate::journal::told(&question, plan.word());
            shared.journal.add(request, dialect.word(), reply.status(), told);
            reply
        }
    }
}

fn play(
    stream: &mut TcpStream,
    request: &Request,
    reply: Reply,
    openings: u64,
    shared: &Shared,
) -> io::Result<()> {
    // A wait that the end of the mock has cut short is not followed by the rest of the answer.
    let wait = |wait: Wait| {
        match wait {
            Wait::Time(time) => shared.gate.pause(time),
            Wait::Gate => shared.gate.hold(openings),
        }
        if shared.gate.has_ended() {
            return Err(io::Error::from(io::ErrorKind::ConnectionAborted));
        }
        Ok(())
    };
    match reply {
        Reply::Whole { status, body, waits } => {
            waits.into_iter().try_for_each(wait)?;
            http::write_json(stream, status, &body, request.method == "HEAD")
        }
        Reply::Stream(steps) => {
            http::begin_stream(stream)?;
            for step in steps {
                match step {
                    Step::Frame(text) => http::write_chunk(stream, &text)?,
                    Step::Wait(time) => wait(time)?,
                    Step::HangUp => return stream.shutdown(Shutdown::Both),
                }
            }
            http::end_stream(stream)
        }
    }
}
