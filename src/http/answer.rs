//! What a handler returns, and the bytes of its head.
//!
//! Owns: [`Response`], [`Answer`], the JSON form of an error, and the writing of a response head
//! into a buffer. Called on connection threads; no I/O. Promises: no header value with a line end
//! or a NUL goes out (such a value could forge fields or a whole second answer); each answer has
//! either a length or ends with its connection. It deliberately writes no `Date` and no `Server`.

use super::StreamWriter;
use crate::error::{Code, Error};
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;

/// The bytes after the head.
#[derive(Clone, Debug)]
pub enum Body {
    Owned(Vec<u8>),
    /// For an answer that is kept and sent more than once: it is not copied.
    Shared(Arc<[u8]>),
}

impl Body {
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Body::Owned(bytes) => bytes,
            Body::Shared(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Body {
        Body::Owned(bytes)
    }
}

impl From<String> for Body {
    fn from(text: String) -> Body {
        Body::Owned(text.into_bytes())
    }
}

impl From<Arc<[u8]>> for Body {
    fn from(bytes: Arc<[u8]>) -> Body {
        Body::Shared(bytes)
    }
}

/// A complete answer. `Content-Length` and `Connection` are this layer's to write: a response that
/// brings them, or a value with a control character, is replaced by a 500 and logged as the defect
/// that it is.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
    /// What an error is in the log. It is written down by the connection, which knows the request.
    pub(super) note: Option<Note>,
}

/// An error, for the log.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) level: log::Level,
    pub(super) text: String,
}

impl Response {
    /// An answer without fields and without a body.
    pub fn new(status: u16) -> Response {
        Response { status, headers: Vec::new(), body: Body::Owned(Vec::new()), note: None }
    }

    pub fn json(status: u16, json: impl Into<Body>) -> Response {
        let headers = vec![("Content-Type", "application/json".to_owned())];
        Response { status, headers, body: json.into(), note: None }
    }

    pub fn text(status: u16, text: impl Into<Body>) -> Response {
        let headers = vec![("Content-Type", "text/plain; charset=utf-8".to_owned())];
        Response { status, headers, body: text.into(), note: None }
    }

    /// Adds a header field.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Response {
        self.headers.push((name, value.into()));
        self
    }
}

/// The error as clients see it: `{"error":"…","code":"…"}`, and the detail under its own name. What
/// is ours to explain is a warning in the log, with all that is for the log alone.
impl From<&Error> for Response {
    fn from(error: &Error) -> Response {
        let (code, status) = error.code.parts();
        let is_ours = status >= 500 && (error.source.is_some() || error.code == Code::Internal);
        let level = if is_ours { log::Level::Warn } else { log::Level::Debug };
        let note = Note { level, text: format!("answered {status} {code}: {error}") };
        let mut json = format!(r#"{{"error":{},"code":"{code}""#, quoted(&error.told()));
        if let Some((name, value)) = &error.detail {
            write!(json, ",{}:{value}", quoted(name)).expect("a string takes any text");
        }
        json.push('}');
        let response = Response { note: Some(note), ..Response::json(status, json) };
        match error.code {
            Code::Unauthorized => response.header("WWW-Authenticate", "Bearer"),
            Code::Capacity | Code::ShuttingDown | Code::TooManyRequests => {
                response.header("Retry-After", "1")
            }
            _ => response,
        }
    }
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("text is always JSON")
}

/// The head of an answer whose body has no end yet.
#[derive(Clone, Debug)]
pub struct StreamHead {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
}

/// Writes a stream; it runs on the connection's thread, and when it returns the connection ends.
pub type StreamBody = Box<dyn FnOnce(&mut StreamWriter) + Send>;

/// What a handler returns.
pub enum Answer {
    Whole(Response),
    /// Takes over the connection's thread and ends with the connection. The body has no length and
    /// no chunks: it ends when the connection closes, which every client of event streams takes.
    Stream(StreamHead, StreamBody),
}

impl From<Response> for Answer {
    fn from(response: Response) -> Answer {
        Answer::Whole(response)
    }
}

impl From<Error> for Answer {
    fn from(error: Error) -> Answer {
        Answer::Whole(Response::from(&error))
    }
}

/// What the head says of the connection after this answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Persistence {
    /// HTTP/1.1 goes on without a word.
    Silent,
    /// HTTP/1.0 goes on when told so.
    KeepAlive,
    Close,
}

/// A header field that must not be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BadField(pub(super) &'static str);

/// Appends a response head to `out`. `length` is that of the body; None for a stream.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    request_id: &str,
    status: u16,
    headers: &[(&'static str, String)],
    length: Option<usize>,
    persistence: Persistence,
) -> Result<(), BadField> {
    const TAKES_ANYTHING: &str = "a vector takes any bytes";
    write!(out, "HTTP/1.1 {status} {}\r\n", reason(status)).expect(TAKES_ANYTHING);
    for (name, value) in headers {
        if !is_good_field(name, value) {
            return Err(BadField(name));
        }
        for part in [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
    }
    write!(out, "X-Request-Id: {request_id}\r\n").expect(TAKES_ANYTHING);
    if let Some(length) = length
        && has_length(status)
    {
        write!(out, "Content-Length: {length}\r\n").expect(TAKES_ANYTHING);
    }
    out.extend_from_slice(match persistence {
        Persistence::Silent => b"\r\n",
        Persistence::KeepAlive => b"Connection: keep-alive\r\n\r\n",
        Persistence::Close => b"Connection: close\r\n\r\n",
    });
    Ok(())
}

/// Whether an answer with this status has a length, and so perhaps a body.
pub(super) fn has_length(status: u16) -> bool {
    status >= 200 && status != 204 && status != 304
}

fn is_good_field(name: &str, value: &str) -> bool {
    let is_ours = ["content-length", "connection", "transfer-encoding", "x-request-id"]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours));
    !is_ours && value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        // Any other text would do: nobody reads it.
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_error(error: Error, status: u16, json: &str) {
        let response = Response::from(&error);
        assert_eq!(response.status, status);
        assert_eq!(std::str::from_utf8(response.body.as_bytes()).unwrap(), json);
    }

    #[test]
    fn an_error_is_told_in_the_words_of_the_contract() {
        let plain = Error::not_found("session", "sess_1");
        check_error(plain, 404, r#"{"error":"there is no session sess_1","code":"not_found"}"#);
        let hinted = Error::bad_request("a \"quote\"\n").hint("leave it out");
        let json = r#"{"error":"a \"quote\"\n; leave it out","code":"bad_request"}"#;
        check_error(hinted, 400, json);
        let detailed = Error::new(Code::CursorAhead, "ahead").detail("head", "17".to_owned());
        check_error(detailed, 409, r#"{"error":"ahead","code":"cursor_ahead","head":17}"#);
        let inner = Error::internal("the writer failed").source("disk full, /secret/path");
        check_error(inner, 500, r#"{"error":"the writer failed","code":"internal"}"#);
    }

    #[test]
    fn being_full_says_when_to_come_again() {
        for code in [Code::Capacity, Code::ShuttingDown, Code::TooManyRequests] {
            let response = Response::from(&Error::new(code, "full"));
            assert!(response.headers.contains(&("Retry-After", "1".to_owned())), "{code:?}");
        }
    }

    fn check_head(status: u16, length: Option<usize>, persistence: Persistence, expected: &str) {
        let mut out = Vec::new();
        let headers = [("X-A", "b\tc".to_owned())];
        write_head(&mut out, "r-1", status, &headers, length, persistence).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn a_head_has_a_length_or_ends_with_the_connection() {
        let silent =
            "HTTP/1.1 200 OK\r\nX-A: b\tc\r\nX-Request-Id: r-1\r\nContent-Length: 3\r\n\r\n";
        check_head(200, Some(3), Persistence::Silent, silent);
        let empty = "HTTP/1.1 204 No Content\r\nX-A: b\tc\r\nX-Request-Id: r-1\r\n\
                     Connection: keep-alive\r\n\r\n";
        check_head(204, Some(0), Persistence::KeepAlive, empty);
        let stream =
            "HTTP/1.1 200 OK\r\nX-A: b\tc\r\nX-Request-Id: r-1\r\nConnection: close\r\n\r\n";
        check_head(200, None, Persistence::Close, stream);
    }

    #[test]
    fn a_field_that_could_forge_an_answer_is_refused() {
        for (name, value) in [
            ("X-A", "a\r\nSet-Cookie: evil=1"),
            ("X-A", "a\nb"),
            ("X-A", "a\rb"),
            ("X-A", "a\0b"),
            ("Content-Length", "5"),
            ("connection", "close"),
            ("Transfer-Encoding", "chunked"),
            ("X-Request-Id", "twice"),
        ] {
            let mut out = Vec::new();
            let headers = [(name, value.to_owned())];
            let written = write_head(&mut out, "r-1", 200, &headers, Some(0), Persistence::Silent);
            assert_eq!(written, Err(BadField(name)), "{name}: {value:?}");
        }
    }
}
