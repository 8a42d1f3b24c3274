//! The listening socket: accept, refuse, stop, close.
//!
//! Owns: the accept thread and the server's handle. The accept thread ends when the server stops,
//! and for no other reason: a failing `accept` (no descriptors left) is logged and tried again.
//! Promises: a connection beyond the cap gets a 503 without anything that could block the accept
//! thread; closing ends within its grace and a second, whatever clients and handlers do. It
//! deliberately does not raise the limit of descriptors: that is the process's business, once.

use super::answer::{self, Persistence, Response};
use super::connection::{self, Common};
use super::registry::{Link, Registry};
use super::request_id;
use super::{Handler, Limits};
use crate::error::{Code, Error};
use crate::thread::{self, Thread};
use crate::watchdog;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Connections that the kernel keeps for us until we accept them; the standard library asks for
/// 128, fewer than the streams that come back together after a restart.
const BACKLOG: i32 = 1024;

/// What the accept thread waits after an error. Most errors mean that something ran out, and
/// nothing tells us when it is there again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Refused connections that are kept half closed until the next ones need their place, an `accept`
/// fails, or the server stops; so that the client reads its 503 instead of the reset that follows a
/// close over unread bytes.
const REFUSED_KEPT_MAX: usize = 16;

/// What threads get, after the grace, to see that their socket is gone.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// What a fallback connection to ourselves may take.
const WAKE_TIMEOUT: Duration = Duration::from_secs(1);

/// A running HTTP server. Dropping it closes it without a grace.
pub struct Server {
    listener: Arc<TcpListener>,
    address: SocketAddr,
    common: Arc<Common>,
    accepting: Option<Thread>,
    is_shut: AtomicBool,
}

/// What the server has done and does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections now, streams among them.
    pub open: usize,
    /// Streams now.
    pub streams: u64,
    /// Connections that got a thread.
    pub accepted: u64,
    /// Connections that got 503.
    pub refused: u64,
    /// Failed calls of `accept`.
    pub accept_errors: u64,
    /// Requests whose head was good.
    pub requests: u64,
    /// Panics of the handler, of streams, of the connections themselves, and of the accept thread.
    pub panics: u64,
}

/// A reader of the counters.
pub struct Meter {
    registry: Arc<Registry>,
}

impl Meter {
    pub fn counters(&self) -> Counters {
        let registry = &self.registry;
        let read = |total: &AtomicU64| total.load(Ordering::Relaxed);
        Counters {
            open: registry.open_count(),
            streams: read(&registry.totals.streams_open),
            accepted: read(&registry.totals.accepted),
            refused: read(&registry.totals.refused),
            accept_errors: read(&registry.totals.accept_errors),
            requests: read(&registry.totals.requests),
            panics: read(&registry.totals.panics),
        }
    }
}

impl Server {
    /// Starts to serve. Errors: the listener can not be used, or the system has no thread to give.
    pub fn start(
        listener: TcpListener,
        limits: Limits,
        handler: Arc<dyn Handler>,
    ) -> io::Result<Server> {
        listener.set_nonblocking(false)?;
        rustix::net::listen(&listener, BACKLOG)?;
        let address = listener.local_addr()?;
        let listener = Arc::new(listener);
        let registry = Arc::new(Registry::default());
        let common = Arc::new(Common { limits, handler, registry });
        let accepting = {
            let (listener, common) = (Arc::clone(&listener), Arc::clone(&common));
            thread::spawn("accept", move || accept_all(&listener, &common))?
        };
        let accepting = Some(accepting);
        Ok(Server { listener, address, common, accepting, is_shut: AtomicBool::new(false) })
    }

    /// The address that it listens on, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more connections, from now on. Requests under way are answered, with the word that
    /// their connection closes; streams go on. Does not wait.
    pub fn stop_accepting(&self) {
        self.common.registry.stop();
        if self.is_shut.swap(true, Ordering::SeqCst) {
            return;
        }
        // On Linux this ends a waiting `accept`. Where it does not, a connection does.
        if rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both).is_err() {
            drop(TcpStream::connect_timeout(&self.address, WAKE_TIMEOUT));
        }
    }

    /// Ends the server: waits for the connections to end for `grace`, shuts the sockets of those
    /// that did not, and joins the threads. A handler that still does not return is left behind,
    /// and said in the log. Streams end when their owners tell them to; who wants that tells them
    /// before.
    pub fn close(mut self, grace: Duration) {
        self.end(grace);
    }

    pub fn counters(&self) -> Counters {
        self.meter().counters()
    }

    /// Reads the counters without the server; what it says after the end is the end's.
    pub fn meter(&self) -> Meter {
        Meter { registry: Arc::clone(&self.common.registry) }
    }

    fn end(&mut self, grace: Duration) {
        let Some(accepting) = self.accepting.take() else { return };
        self.stop_accepting();
        accepting.join();
        // From here on the table only shrinks.
        let registry = &self.common.registry;
        registry.shut_idle();
        if !registry.await_open_count(0, Instant::now() + grace) {
            registry.shut_all();
            registry.await_open_count(0, Instant::now() + LAST_WAIT);
        }
        let stuck = registry.clear();
        if stuck > 0 {
            log::error!("{stuck} connections did not end; their handlers do not return");
        }
    }

    #[cfg(test)]
    pub(super) fn registry(&self) -> &Registry {
        &self.common.registry
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Duration::ZERO);
    }
}

/// The accept thread. Its loop has no way out but the stop.
fn accept_all(listener: &TcpListener, common: &Arc<Common>) {
    let registry = &common.registry;
    let mut refusal = Refusal::new();
    let mut failures: u64 = 0;
    watchdog::watch();
    loop {
        let accepted = watchdog::rest(|| listener.accept());
        if registry.is_stopping() {
            return;
        }
        match accepted {
            Ok((stream, peer)) => {
                if failures > 0 {
                    log::warn!("accepts connections again after {failures} failures");
                    failures = 0;
                }
                // One that panics costs its connection, and not all that come after it.
                let taken = catch_unwind(AssertUnwindSafe(|| {
                    take(common, stream, peer, &mut refusal);
                }));
                if taken.is_err() {
                    registry.totals.panics.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                registry.totals.accept_errors.fetch_add(1, Ordering::Relaxed);
                failures += 1;
                // Said once: it comes twenty times a second.
                if failures == 1 {
                    log::error!("can not accept connections, tries again: {error}");
                }
                // These hold descriptors that are now missing.
                refusal.kept.clear();
                registry.pause(ACCEPT_PAUSE);
            }
        }
    }
}

/// Gives the connection a thread, or refuses it.
fn take(common: &Arc<Common>, stream: TcpStream, peer: SocketAddr, refusal: &mut Refusal) {
    let registry = &common.registry;
    if registry.open_count() >= common.limits.connections {
        registry.totals.refused.fetch_add(1, Ordering::Relaxed);
        log::debug!("refused {peer}: at the limit of connections");
        return refusal.send(stream);
    }
    let link = Arc::new(Link { stream, is_idle: AtomicBool::new(true) });
    let entered = {
        let (common, link) = (Arc::clone(common), Arc::clone(&link));
        registry.enter(&Arc::clone(&link), move || connection::serve(&common, &link, peer))
    };
    match entered {
        Ok(()) => {
            registry.totals.accepted.fetch_add(1, Ordering::Relaxed);
        }
        Err(error) => {
            registry.totals.refused.fetch_add(1, Ordering::Relaxed);
            log::error!("can not start a thread for the connection of {peer}: {error}");
            // The closure that held the other half is gone with the failed start.
            if let Ok(link) = Arc::try_unwrap(link).map_err(drop) {
                refusal.send(link.stream);
            }
        }
    }
}

/// How connections are refused.
struct Refusal {
    /// The 503.
    response: Response,
    kept: VecDeque<TcpStream>,
}

impl Refusal {
    fn new() -> Refusal {
        let error = Error::new(Code::Capacity, "the server is at its limit of connections");
        let response = Response::from(&error.hint("try again in a moment"));
        Refusal { response, kept: VecDeque::with_capacity(REFUSED_KEPT_MAX) }
    }

    /// Answers without waiting: the socket is new, so its send buffer is empty. The request is not
    /// waited for; an error means that the client is gone.
    fn send(&mut self, mut stream: TcpStream) {
        let answer = self.bytes();
        let sent = stream
            .set_nonblocking(true)
            .and_then(|()| stream.write_all(&answer))
            .and_then(|()| stream.shutdown(Shutdown::Write));
        if sent.is_err() {
            return;
        }
        if self.kept.len() == REFUSED_KEPT_MAX
            && let Some(mut oldest) = self.kept.pop_front()
        {
            // One read takes what an ordinary request has sent meanwhile.
            drop(oldest.read(&mut [0; 4096]));
        }
        self.kept.push_back(stream);
    }

    /// The whole answer; its request was not read, so it has an id of ours.
    fn bytes(&self) -> Vec<u8> {
        let body = self.response.body.as_bytes();
        let mut answer = Vec::new();
        answer::write_head(
            &mut answer,
            &request_id::make(),
            self.response.status,
            &self.response.headers,
            Some(body.len()),
            Persistence::Close,
        )
        .expect("the fields are our own constants");
        answer.extend_from_slice(body);
        answer
    }
}
