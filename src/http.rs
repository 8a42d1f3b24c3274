//! Floor 2: HTTP/1.1 on `std::net`.
//!
//! Owns: the listening socket, the connections and their threads, framing, limits, deadlines, the
//! bytes of answers, and the writing of streams. One accept thread; one thread per connection,
//! which serves the requests of its connection in order, or hands itself over to a stream and ends
//! with it.
//!
//! Promises: no input makes the server allocate more than the limits say, wait longer than the
//! deadlines say, or lose a thread; nothing that one connection does delays another; a failing
//! `accept` is retried for ever; a panic in a handler costs one connection. A request whose framing
//! could be read in two ways is refused and its connection closed, so that no proxy in front of us
//! can be made to see other requests than we do.
//!
//! Deliberately not here: routes, authentication, the check of `Host` and `Origin` against lists
//! (the handler has the head), JSON beyond the error text, TLS (a reverse proxy does it), trailers,
//! the `Date` header (the standard asks for it; no client of ours reads it).
//!
//! The parts: `target` (percent-decoding), `head` (what a request says), `inbox` (reading with
//! deadlines), `body` (the two framings), `client` (whether it is still there), `answer` (what a
//! handler returns and its bytes), `outbox` (writing with deadlines), `registry` (who is connected),
//! `request_id` (what a request is called), `connection` (one thread's life), `server` (accept,
//! stop, close).

mod answer;
mod body;
mod client;
mod connection;
mod head;
mod inbox;
mod outbox;
mod registry;
mod request_id;
mod server;
mod target;
#[cfg(test)]
mod tests;

pub use answer::{Answer, Body, Response, StreamBody, StreamHead};
pub use client::Client;
pub use head::Head;
pub use outbox::StreamWriter;
pub use server::{Counters, Meter, Server};

/// Header fields that a request can have, whatever [`Limits::headers`] says: the parser's table is
/// on the stack.
pub const HEADERS_MAX: usize = 128;

/// What a connection may cost. Beyond each limit the request is answered with an error and the
/// connection is closed; a silent peer is closed without one.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request line and its header fields; more is 431. At least 1024 are allowed.
    pub head_bytes: usize,
    /// Header fields of a request; more is 431. At most [`HEADERS_MAX`].
    pub headers: usize,
    /// Time for a whole head from its first byte, and for the first byte of a new connection; then
    /// 408.
    pub head_ms: u64,
    /// Time for a whole body; then 408.
    pub body_ms: u64,
    /// Time that a connection may be quiet between two requests; then it is closed.
    pub idle_ms: u64,
    /// Time for one answer or one write of a stream, plus its bytes at 16 KB/s; then the connection
    /// is closed.
    pub write_ms: u64,
    /// Connections that are open at once; the next one gets 503.
    pub connections: usize,
    /// The kernel's send buffer of a stream, so that a client that stops reading is noticed after
    /// this many bytes and not after megabytes.
    pub send_buffer_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 16 * 1024,
            headers: 64,
            head_ms: 10_000,
            body_ms: 30_000,
            idle_ms: 60_000,
            write_ms: 10_000,
            connections: 2048,
            send_buffer_bytes: 64 * 1024,
        }
    }
}

/// What the rest of the program does with requests. Called on connection threads, many at once.
pub trait Handler: Send + Sync + 'static {
    /// Decides before the body is read: an early answer (401, 403, 404, 405, 415), or leave to go
    /// on. After an early answer to a request with a body the connection is closed, since the body
    /// is in the way of the next request.
    fn admit(&self, head: &Head) -> Result<Admission, Answer>;

    /// Answers an admitted request. For HEAD it answers as for GET; the body is left out on the
    /// wire.
    fn handle(&self, request: Request) -> Answer;
}

/// Leave to read the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// A longer body is 413.
    pub body_bytes_max: usize,
}

/// A whole request.
#[derive(Debug)]
pub struct Request {
    pub head: Head,
    pub body: Vec<u8>,
    pub client: Client,
}
