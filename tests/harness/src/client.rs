//! A small HTTP client.
//!
//! Owns: one connection that is kept between calls, and the token. A call is answered within the deadline or fails with
//! a message that says what was awaited. One call at a time: a second thread takes a clone, which has a connection of
//! its own. It never repeats a request, so a test knows that what it sent was sent once.

use crate::connection::{Connection, Head};
use crate::stream::Stream;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a call may take when nothing else is said.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Headers of a request, as name and value.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// A client of one server.
#[derive(Debug)]
pub struct Client {
    address: SocketAddr,
    token: String,
    deadline: Duration,
    watch: Option<Watch>,
    kept: Mutex<Option<Connection>>,
}

/// Looks at each exchange of a client; panics when it does not like one.
pub type Watch = fn(&Exchange<'_>);

/// A request and its answer.
pub struct Exchange<'a> {
    pub method: &'a str,
    /// With its query.
    pub path: &'a str,
    pub headers: Headers<'a>,
    pub body: &'a [u8],
    pub reply: &'a Reply,
}

/// An answer, whole.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// What was asked, for messages.
    asked: String,
}

impl Client {
    /// A client that sends the token with every call; an empty one is not sent.
    pub fn new(address: SocketAddr, token: &str) -> Client {
        let (token, kept) = (token.to_owned(), Mutex::new(None));
        Client { address, token, deadline: DEADLINE, watch: None, kept }
    }

    /// The same, whose answers somebody looks at; of a stream the head alone.
    pub fn watched(mut self, watch: Watch) -> Client {
        self.watch = Some(watch);
        self
    }

    /// The same with another deadline.
    pub fn with_deadline(mut self, deadline: Duration) -> Client {
        self.deadline = deadline;
        self
    }

    /// Whom it talks to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn get(&self, path: &str) -> Reply {
        self.request("GET", path, &[], b"")
    }

    pub fn post(&self, path: &str, json: &Value) -> Reply {
        self.request("POST", path, JSON, json.to_string().as_bytes())
    }

    pub fn delete(&self, path: &str) -> Reply {
        self.request("DELETE", path, &[], b"")
    }

    /// Any request. Panics: there is no answer in time.
    pub fn request(&self, method: &str, path: &str, headers: Headers, body: &[u8]) -> Reply {
        match self.try_request(method, path, headers, body) {
            Ok(reply) => reply,
            Err(error) => panic!(
                "awaited the answer to {method} {path} of {} for at most {:?}: {error}",
                self.address, self.deadline
            ),
        }
    }

    /// Any request. Errors: the server is not there, ends, sends what is no HTTP, or is too slow.
    pub fn try_request(
        &self,
        method: &str,
        path: &str,
        headers: Headers,
        body: &[u8],
    ) -> io::Result<Reply> {
        let deadline = Instant::now() + self.deadline;
        let (mut connection, head) = self.send(method, path, headers, body, deadline)?;
        let framing = head.body(method)?;
        let told = connection.body(&framing, deadline)?;
        if head.keeps_alive(&framing) {
            *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        }
        let asked = format!("{method} {path}");
        let reply = Reply { status: head.status, headers: head.headers, body: told, asked };
        if let Some(watch) = self.watch {
            watch(&Exchange { method, path, headers, body, reply: &reply });
        }
        Ok(reply)
    }

    /// Opens a stream over a connection of its own: NDJSON when `headers` accept it, else SSE. Panics: the answer is
    /// not 200, or does not start in time.
    pub fn stream(&self, path: &str, headers: Headers) -> Stream {
        match self.try_stream(path, headers) {
            Ok(Ok(stream)) => stream,
            Ok(Err(reply)) => panic!("awaited a stream: {reply}"),
            Err(error) => panic!("awaited the start of the stream {path}: {error}"),
        }
    }

    /// The same; the inner error is an answer that is no stream.
    pub fn try_stream(&self, path: &str, headers: Headers) -> io::Result<Result<Stream, Reply>> {
        let deadline = Instant::now() + self.deadline;
        let accepts = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("accept"));
        let mut all = headers.to_vec();
        if !accepts {
            all.push(("Accept", "text/event-stream"));
        }
        let (mut connection, head) = self.clone().send("GET", path, &all, b"", deadline)?;
        let framing = head.body("GET")?;
        let is_stream = head.status == 200;
        let body = if is_stream { Vec::new() } else { connection.body(&framing, deadline)? };
        let (status, asked) = (head.status, format!("GET {path}"));
        let reply = Reply { status, headers: head.headers.clone(), body, asked };
        if let Some(watch) = self.watch {
            watch(&Exchange { method: "GET", path, headers: &all, body: b"", reply: &reply });
        }
        Ok(if is_stream { Ok(Stream::new(connection, &head, framing, path)) } else { Err(reply) })
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: Headers,
        body: &[u8],
        deadline: Instant,
    ) -> io::Result<(Connection, Head)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut connection = match kept.filter(Connection::is_idle) {
            Some(connection) => connection,
            None => Connection::open(self.address, deadline)?,
        };
        let written = connection.write(&self.encode(method, path, headers, body), deadline);
        match (connection.head(deadline), written) {
            (Ok(head), _) => Ok((connection, head)),
            // A server that refuses a body may have answered before it was all written.
            (Err(_), Err(error)) | (Err(error), Ok(())) => Err(error),
        }
    }

    /// The whole request as bytes. A header that the caller gives replaces ours.
    fn encode(&self, method: &str, path: &str, headers: Headers, body: &[u8]) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\n");
        let given = |name: &str| headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        if !given("host") {
            text += &format!("Host: {}\r\n", self.address);
        }
        if !given("authorization") && !self.token.is_empty() {
            text += &format!("Authorization: Bearer {}\r\n", self.token);
        }
        if !given("content-length") && (!body.is_empty() || matches!(method, "POST" | "PUT")) {
            text += &format!("Content-Length: {}\r\n", body.len());
        }
        for (name, value) in headers {
            text += &format!("{name}: {value}\r\n");
        }
        text += "\r\n";
        let mut bytes = text.into_bytes();
        bytes.extend_from_slice(body);
        bytes
    }
}

const JSON: Headers<'static> = &[("Content-Type", "application/json")];

impl Clone for Client {
    /// The same client with a connection of its own.
    fn clone(&self) -> Client {
        let client = Client::new(self.address, &self.token).with_deadline(self.deadline);
        Client { watch: self.watch, ..client }
    }
}

impl Reply {
    /// The body as JSON. Panics: it is none.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// The body as text, with what is no UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// Panics with the whole answer when the status is another one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Reply {
        assert_eq!(self.status, status, "{self}");
        self
    }
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} was answered {}: {}", self.asked, self.status, self.text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, OK_EMPTY};
    use serde_json::json;

    #[test]
    fn calls_share_a_connection_and_carry_the_token() {
        let fake = Fake::start(1, |mut connection| {
            let first = connection.request();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\nX-One: a\r\n\r\n{\"a\": 1}");
            let second = connection.request();
            connection.send(OK_EMPTY);
            vec![first, second]
        });
        let client = Client::new(fake.address(), "secret");
        let reply = client.post("/v1/things", &json!({"b": 2})).expect(200);
        assert_eq!((reply.json(), reply.header("x-one")), (json!({"a": 1}), Some("a")));
        client.get("/v1/things").expect(204);
        let seen = fake.requests();
        assert!(seen[0].starts_with("POST /v1/things HTTP/1.1\r\n"), "{}", seen[0]);
        assert!(seen[0].contains("Authorization: Bearer secret\r\n"), "{}", seen[0]);
        assert!(seen[0].contains("Content-Type: application/json\r\n"), "{}", seen[0]);
        assert!(seen[0].ends_with("\r\n\r\n{\"b\":2}"), "{}", seen[0]);
        assert!(seen[1].starts_with("GET /v1/things HTTP/1.1\r\n"), "{}", seen[1]);
    }

    #[test]
    fn a_body_comes_in_chunks_after_an_interim_answer() {
        let fake = Fake::start(1, |mut connection| {
            let request = connection.request();
            connection.send("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n");
            connection
                .send("Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n");
            vec![request]
        });
        assert_eq!(Client::new(fake.address(), "").get("/").expect(200).text(), "abcde");
        assert!(!fake.requests()[0].contains("Authorization"));
    }

    #[test]
    fn a_connection_that_the_server_closed_is_not_used_again() {
        let fake = Fake::start(2, |mut connection| {
            let request = connection.request();
            connection.send(OK_EMPTY);
            vec![request]
        });
        let client = Client::new(fake.address(), "");
        client.get("/one").expect(204);
        // The end of the first connection has to arrive before it can be seen.
        crate::wait::until(Duration::from_secs(10), "the connection is closed", || {
            let kept = client.kept.lock().unwrap();
            (!kept.as_ref().unwrap().is_idle()).then_some(())
        });
        client.get("/two").expect(204);
        assert_eq!(fake.requests().len(), 2);
    }

    #[test]
    fn an_answer_that_does_not_come_is_named() {
        let fake = Fake::start(1, |mut connection| {
            let request = connection.request();
            connection.wait_closed();
            vec![request]
        });
        let client = Client::new(fake.address(), "").with_deadline(Duration::from_millis(50));
        let call = crate::thread::spawn("call", move || client.get("/v1/slow")).unwrap();
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| call.join()));
        let text = *panic.unwrap_err().downcast::<String>().unwrap();
        assert!(text.contains("awaited the answer to GET /v1/slow"), "{text}");
        assert!(text.ends_with("for at most 50ms: timed out"), "{text}");
    }

    #[test]
    fn a_connection_that_ends_in_a_body_is_an_error() {
        let fake = Fake::start(1, |mut connection| {
            let request = connection.request();
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
            vec![request]
        });
        let error = Client::new(fake.address(), "").try_request("GET", "/", &[], b"").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
