//! One connection's life.
//!
//! Owns: the order of things on a connection, on the thread `conn-<n>`: wait, head, admission,
//! body, handler, answer, and again; or a stream until its end. Promises: requests are answered in
//! the order in which they came; after a request that can not be read to its end, the connection is
//! closed in a way that lets the answer arrive; a panic in the handler is a 500; each answer names
//! its request, and so does the log. The thread ends when the client is gone, a deadline has passed,
//! the server stops, or the stream returns. It deliberately knows nothing of what requests mean.

use super::answer::{self, Answer, BadField, Persistence, Response, StreamBody, StreamHead};
use super::body;
use super::client::{self, Client};
use super::head::{Head, Length};
use super::inbox::{End, Inbox};
use super::outbox::{self, StreamWriter};
use super::registry::{Link, Registry};
use super::request_id;
use super::{Handler, Limits, Request};
use crate::error::Error;
use rustix::net::sockopt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// What is read away after an answer that left part of its request unread. Closing with unread
/// bytes makes the kernel send a reset, and a reset can take the answer from the client. Enough for a
/// body that any route takes, sent to one that takes less.
const DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(1);

/// The first size of the buffer for response heads, which is kept for the next answer.
const OUT_BYTES: usize = 512;

/// How long a stream's peer may leave our bytes unacknowledged. Without it a machine that vanished
/// holds its stream for as long as TCP repeats itself, about a quarter of an hour.
#[cfg(target_os = "linux")]
const PEER_SILENCE_MS: u32 = 60_000;

/// What all connections share.
pub(super) struct Common {
    pub(super) limits: Limits,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) registry: Arc<Registry>,
}

/// Serves the connection to its end.
pub(super) fn serve(common: &Arc<Common>, link: &Arc<Link>, peer: SocketAddr) {
    let write_timeout = Duration::from_millis(common.limits.write_ms);
    let is_ready = link
        .stream
        .set_nodelay(true)
        .and_then(|()| link.stream.set_write_timeout(Some(write_timeout)));
    if let Err(error) = is_ready {
        log::debug!("gave up the connection of {peer}: {error}");
        return;
    }
    let connection = Connection {
        common,
        link,
        inbox: Inbox::new(Arc::clone(link), common.limits.head_bytes),
        out: Vec::with_capacity(OUT_BYTES),
        write_timeout,
        peer,
        request_id: String::new(),
        is_first: true,
    };
    // The buffers are gone before the stream begins, since it may be quiet for days.
    if let Some(body) = connection.serve_requests() {
        run_stream(common, link, body);
    }
}

fn run_stream(common: &Common, link: &Arc<Link>, body: StreamBody) {
    let write_timeout = Duration::from_millis(common.limits.write_ms);
    let streams_open = &common.registry.totals.streams_open;
    streams_open.fetch_add(1, Ordering::Relaxed);
    let mut writer = StreamWriter::new(Arc::clone(link), write_timeout);
    let run = catch_unwind(AssertUnwindSafe(|| body(&mut writer)));
    streams_open.fetch_sub(1, Ordering::Relaxed);
    if run.is_err() {
        common.registry.totals.panics.fetch_add(1, Ordering::Relaxed);
    }
    // An error means that the client was faster.
    drop(link.stream.shutdown(Shutdown::Write));
}

struct Connection<'a> {
    common: &'a Common,
    link: &'a Arc<Link>,
    inbox: Inbox,
    /// The head of the answer; reused.
    out: Vec<u8>,
    write_timeout: Duration,
    peer: SocketAddr,
    /// What the request of now is called in its answer and in the log.
    request_id: String,
    /// No request has come yet.
    is_first: bool,
}

/// What follows an answer.
enum Step {
    Next,
    Close,
    /// Part of the request is unread.
    Drain,
    Stream(StreamBody),
}

/// What the request asks of its answer.
struct Terms {
    is_head: bool,
    /// How the connection goes on if it does.
    persistence: Persistence,
    has_unread_body: bool,
}

impl Terms {
    fn of(head: &Head) -> Terms {
        let persistence = match (head.framing.keeps_alive, head.http11) {
            (false, _) => Persistence::Close,
            (true, true) => Persistence::Silent,
            (true, false) => Persistence::KeepAlive,
        };
        let has_unread_body = head.framing.length != Length::None;
        Terms { is_head: head.is_head(), persistence, has_unread_body }
    }

    /// For an answer after which nothing more of the connection can be understood.
    fn last() -> Terms {
        Terms { is_head: false, persistence: Persistence::Close, has_unread_body: true }
    }
}

impl Connection<'_> {
    /// Serves requests until the connection is over or becomes a stream.
    fn serve_requests(mut self) -> Option<StreamBody> {
        loop {
            let step = match self.serve_request() {
                Ok(step) => step,
                Err(End::Gone) => Step::Close,
                Err(End::Refused(error)) => {
                    self.write_whole(&Response::from(&error), &Terms::last())
                }
            };
            match step {
                Step::Next => {}
                Step::Close => return None,
                Step::Drain => {
                    if self.link.stream.shutdown(Shutdown::Write).is_ok() {
                        self.inbox.drain(DRAIN_BYTES_MAX, Instant::now() + DRAIN_TIME);
                    }
                    return None;
                }
                Step::Stream(body) => return Some(body),
            }
        }
    }

    fn serve_request(&mut self) -> Result<Step, End> {
        let limits = &self.common.limits;
        if !self.wait_for_request() {
            return Ok(Step::Close);
        }
        // A head that can not be read is answered under an id too.
        self.request_id = request_id::make();
        let deadline = Instant::now() + Duration::from_millis(limits.head_ms);
        let range = self.inbox.head(limits.headers, deadline)?;
        let head = Head::parse(self.inbox.bytes(range), limits.headers, self.peer)?;
        self.common.registry.totals.requests.fetch_add(1, Ordering::Relaxed);
        if let Some(given) = request_id::given(&head) {
            given.clone_into(&mut self.request_id);
        }
        let mut terms = Terms::of(&head);
        let admitted = self.guard(|handler| handler.admit(&head));
        let body_bytes_max = match admitted {
            Some(Ok(admission)) => admission.body_bytes_max,
            Some(Err(answer)) => return Ok(self.write(answer, &terms)),
            None => return Ok(self.write_defect(&terms)),
        };
        let body = self.read_body(&head, body_bytes_max)?;
        terms.has_unread_body = false;
        let client = Client::of(self.link);
        let answer = self.guard(|handler| handler.handle(Request { head, body, client }));
        Ok(match answer {
            Some(answer) => self.write(answer, &terms),
            None => self.write_defect(&terms),
        })
    }

    /// Waits for the first byte of a request. The order matters: the flag is up before the stop is
    /// asked for, and the stop is set before the flags are looked at, so one of the two is seen.
    fn wait_for_request(&mut self) -> bool {
        let limits = &self.common.limits;
        let quiet_ms = if self.is_first { limits.head_ms } else { limits.idle_ms };
        self.is_first = false;
        self.link.is_idle.store(true, Ordering::SeqCst);
        let is_here =
            !self.common.registry.is_stopping() && self.inbox.wait(Duration::from_millis(quiet_ms));
        self.link.is_idle.store(false, Ordering::SeqCst);
        is_here
    }

    fn read_body(&mut self, head: &Head, bytes_max: usize) -> Result<Vec<u8>, End> {
        let length = head.framing.length;
        if let Length::Fixed(count) = length {
            body::fits(count, bytes_max, bytes_max)?;
        }
        let is_asked = head.framing.expects_continue && length != Length::None;
        if is_asked && self.inbox.waiting().is_empty() {
            let go_on = b"HTTP/1.1 100 Continue\r\n\r\n";
            outbox::write_parts(self.link, go_on, &[], self.write_timeout)
                .map_err(|_| End::Gone)?;
        }
        let deadline = Instant::now() + Duration::from_millis(self.common.limits.body_ms);
        body::read(&mut self.inbox, length, bytes_max, deadline)
    }

    /// Calls the handler. None: it panicked, which the panic hook has told.
    fn guard<T>(&self, call: impl FnOnce(&dyn Handler) -> T) -> Option<T> {
        let result = catch_unwind(AssertUnwindSafe(|| call(&*self.common.handler)));
        if result.is_err() {
            self.common.registry.totals.panics.fetch_add(1, Ordering::Relaxed);
        }
        result.ok()
    }

    fn write(&mut self, answer: Answer, terms: &Terms) -> Step {
        match answer {
            Answer::Whole(response) => self.write_whole(&response, terms),
            Answer::Stream(head, body) => self.write_stream_head(&head, body, terms),
        }
    }

    fn write_whole(&mut self, response: &Response, terms: &Terms) -> Step {
        // Asked now and not before the handler ran: it may have taken its time.
        let is_last = terms.has_unread_body || self.common.registry.is_stopping();
        let persistence = if is_last { Persistence::Close } else { terms.persistence };
        let body = response.body.as_bytes();
        self.out.clear();
        let head = answer::write_head(
            &mut self.out,
            &self.request_id,
            response.status,
            &response.headers,
            Some(body.len()),
            persistence,
        );
        if let Err(field) = head {
            return self.write_bad_field(&field, terms);
        }
        self.tell(response);
        let has_body = !terms.is_head && answer::has_length(response.status);
        let body = if has_body { body } else { &[] };
        match outbox::write_parts(self.link, &self.out, body, self.write_timeout) {
            Err(error) => self.give_up(&error),
            Ok(()) if terms.has_unread_body => Step::Drain,
            Ok(()) if persistence == Persistence::Close => Step::Close,
            Ok(()) => Step::Next,
        }
    }

    fn write_stream_head(&mut self, head: &StreamHead, body: StreamBody, terms: &Terms) -> Step {
        self.out.clear();
        let persistence = Persistence::Close;
        let written = answer::write_head(
            &mut self.out,
            &self.request_id,
            head.status,
            &head.headers,
            None,
            persistence,
        );
        if let Err(field) = written {
            return self.write_bad_field(&field, terms);
        }
        self.prepare_stream();
        match outbox::write_parts(self.link, &self.out, &[], self.write_timeout) {
            Err(error) => self.give_up(&error),
            Ok(()) if terms.is_head => Step::Close,
            Ok(()) => Step::Stream(body),
        }
    }

    /// Sets the socket up for a stream. It works without, only later: a failure is for the log.
    fn prepare_stream(&self) {
        let stream = &self.link.stream;
        let bytes = self.common.limits.send_buffer_bytes;
        let set = sockopt::set_socket_send_buffer_size(stream, bytes);
        #[cfg(target_os = "linux")]
        let set = set.and_then(|()| sockopt::set_tcp_user_timeout(stream, PEER_SILENCE_MS));
        // One that has nothing to say, and no heartbeat either, would be held for ever by a machine that vanished.
        let set = set.map_err(io::Error::from).and_then(|()| client::probe_peer(stream));
        if let Err(error) = set {
            log::debug!("the stream to {} keeps the system's buffers: {error}", self.peer);
        }
    }

    fn write_bad_field(&mut self, field: &BadField, terms: &Terms) -> Step {
        let error = Error::internal(format!("the answer has a bad value in its field {}", field.0));
        self.write_last(&error, terms)
    }

    /// Answers for a handler that panicked. The connection is closed: nobody knows what state the
    /// handler left for its next request.
    fn write_defect(&mut self, terms: &Terms) -> Step {
        let error = Error::internal("the server failed on this request");
        self.write_last(&error.hint("its log says why"), terms)
    }

    fn write_last(&mut self, error: &Error, terms: &Terms) -> Step {
        let terms = Terms { persistence: Persistence::Close, ..*terms };
        self.write_whole(&Response::from(error), &terms)
    }

    /// Writes down what the answer has for the log, with the name under which its client knows it.
    fn tell(&self, response: &Response) {
        if let Some(note) = &response.note {
            log::log!(note.level, "{} (request {} of {})", note.text, self.request_id, self.peer);
        }
    }

    fn give_up(&self, error: &io::Error) -> Step {
        log::debug!("gave up an answer to {}: {error}", self.peer);
        Step::Close
    }
}
