//! Requests that a proxy in front and this server could split differently: each is refused and its connection closed.
//!
//! Behind each shape stands a whole request with the operator's token that would make a session. It is never served.

use crate::stage::{Stage, check_error, text};
use serde_json::json;

/// The head of a request with the token, up to the fields of the framing.
fn post(stage: &Stage, path: &str) -> String {
    let (address, token) = (stage.server.address(), stage.authorization());
    format!("POST {path} HTTP/1.1\r\nHost: {address}\r\n{token}Content-Type: application/json\r\n")
}

/// What must not be served: a request that makes a session.
fn smuggled(stage: &Stage) -> String {
    let body = json!({"provider": "demo", "title": "smuggled"}).to_string();
    format!("{}Content-Length: {}\r\n\r\n{body}", post(stage, "/v1/sessions"), body.len())
}

/// Framing fields, and what stands behind the empty line in front of the smuggled request.
const LENGTHS: &[(&str, &str)] = &[
    ("Content-Length: 2\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 2\r\n", "{}"),
    ("Content-Length: 2\r\nContent-Length: 2\r\n", "{}"),
    ("Content-Length: 2\r\ncontent-length: 0\r\n", "{}"),
    ("Content-Length: 2, 2\r\n", "{}"),
    ("Content-Length: +2\r\n", "{}"),
    ("Content-Length: -2\r\n", "{}"),
    ("Content-Length: 0x2\r\n", "{}"),
    ("Content-Length: 2.0\r\n", "{}"),
    ("Content-Length: 2e0\r\n", "{}"),
    ("Content-Length: 99999999999999999999\r\n", "{}"),
    ("Content-Length:\r\n", "{}"),
    ("Content-Length : 2\r\n", "{}"),
    ("Content-Length\t: 2\r\n", "{}"),
    ("Content-Length: 2\r\n 0\r\n", "{}"),
    ("X: y\r\n\tContent-Length: 2\r\n", "{}"),
    ("X: y\nContent-Length: 2\r\n", "{}"),
    ("X: y\rContent-Length: 2\r\n", "{}"),
    ("X: y\0\r\nContent-Length: 2\r\n", "{}"),
    ("X\u{0}: y\r\nContent-Length: 2\r\n", "{}"),
    ("X: \u{e4}\r\nContent-Length: 2\r\n", "{}"),
    ("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: identity, chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked;q=1\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: \"chunked\"\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: identity\r\nContent-Length: 2\r\n", "{}"),
    ("Transfer-Encoding: \u{b}chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding : chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding:\r\n chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n", "0\r\n\r\n"),
    (" Transfer-Encoding: chunked\r\n", "0\r\n\r\n"),
    ("Transfer-Encoding: chunked\n", "0\r\n\r\n"),
];

/// Chunks, each a body of a request whose framing is good up to there.
const CHUNKS: &[&str] = &[
    "2\n{}\r\n0\r\n\r\n",
    "2\r{}\r\n0\r\n\r\n",
    "2\r\n{}0\r\n\r\n",
    "2\r\n{}\n0\r\n\r\n",
    "2 \r\n{}\r\n0\r\n\r\n",
    " 2\r\n{}\r\n0\r\n\r\n",
    "+2\r\n{}\r\n0\r\n\r\n",
    "-2\r\n{}\r\n0\r\n\r\n",
    "0x2\r\n{}\r\n0\r\n\r\n",
    "2_0\r\n{}\r\n0\r\n\r\n",
    "00000000000000002\r\n{}\r\n0\r\n\r\n",
    "2;a\n=b\r\n{}\r\n0\r\n\r\n",
    "2;a\0\r\n{}\r\n0\r\n\r\n",
    "3\r\n{}\r\n0\r\n\r\n",
    "\r\n2\r\n{}\r\n0\r\n\r\n",
    "2\r\n{}\r\n0\nX: y\r\n\r\n",
    "2\r\n{}\r\n0\r\nX: y\n\r\n",
];

#[test]
fn what_has_two_lengths_is_refused_and_nothing_behind_it_is_served() {
    let stage = Stage::new();
    let session_id = stage.session();
    let (before, smuggled) = (stage.last_row(), smuggled(&stage));
    let close = post(&stage, &format!("/v1/sessions/{session_id}/close"));
    let chunked = "Transfer-Encoding: chunked\r\n";
    let heads = LENGTHS.iter().copied();
    let shapes = heads.chain(CHUNKS.iter().map(|chunks| (chunked, *chunks)));
    for (fields, body) in shapes {
        let mut raw = stage.raw();
        raw.send(format!("{close}{fields}\r\n{body}{smuggled}"));
        let said = raw.rest();
        assert!(said.starts_with("HTTP/1.1 400 "), "{fields:?} {body:?}: {said}");
        assert!(said.contains("\r\nConnection: close\r\n"), "{fields:?} {body:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{fields:?} {body:?}: {said}");
    }
    // A chunk that is announced too large, and a body that ends with its connection.
    for (fields, body, status) in [
        (chunked, "ffffffffffffffff\r\n", "413"),
        (chunked, "7fffffff\r\n", "413"),
        ("Content-Length: 99999999999999\r\n", "", "413"),
    ] {
        let mut raw = stage.raw();
        raw.send(format!("{close}{fields}\r\n{body}{smuggled}"));
        let said = raw.rest();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{fields:?} {body:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{fields:?} {body:?}: {said}");
    }
    assert_eq!(stage.last_row(), before);
}

#[test]
fn what_is_inside_a_body_is_no_request() {
    let stage = Stage::new();
    let (before, smuggled) = (stage.last_row(), smuggled(&stage));
    let (address, token) = (stage.server.address(), stage.authorization());
    let length = smuggled.len();
    let get = format!("GET /v1/version HTTP/1.1\r\nHost: {address}\r\n{token}");
    let last = format!("{get}Connection: close\r\n\r\n");
    let chunk = format!("{length:x};name=\"v\\\"\"\r\n{smuggled}\r\n");
    let trailers = "0\r\nContent-Length: 7\r\nTransfer-Encoding: x\r\nHost: evil\r\n\r\n";
    for request in [
        format!("{get}Content-Length: {length}\r\n\r\n{smuggled}"),
        format!("{get}Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n"),
        format!("{get}Transfer-Encoding: chunked\r\n\r\n{chunk}{trailers}"),
    ] {
        let mut raw = stage.raw();
        raw.send(format!("{request}{last}"));
        assert_eq!((raw.answer().status, raw.answer().status), (200, 200), "{request}");
        assert_eq!(raw.rest(), "");
    }
    // Refused before its body is read: the body is not taken for the next request.
    for head in [
        post(&stage, "/v1/nothing"),
        post(&stage, "/v1/sessions").replace(&token, ""),
        post(&stage, "/v1/sessions").replace("application/json", "text/plain"),
        post(&stage, "/v1/sessions") + "Content-Encoding: gzip\r\n",
    ] {
        let mut raw = stage.raw();
        raw.send(format!("{head}Content-Length: {length}\r\n\r\n{smuggled}"));
        let said = raw.rest();
        assert!(said.starts_with("HTTP/1.1 4"), "{head}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{head}: {said}");
    }
    assert_eq!(stage.last_row(), before);
}

#[test]
fn other_versions_forms_and_protocols_are_refused() {
    let stage = Stage::new();
    let before = stage.last_row();
    let (address, token) = (stage.server.address(), stage.authorization());
    let many = |count: usize| "X: y\r\n".repeat(count);
    for (request, status) in [
        ("GET /health\r\n\r\n".to_owned(), 400),
        ("GET /health\n".to_owned(), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        (format!("GET /health HTTP/1.2\r\nHost: {address}\r\n\r\n"), 400),
        (format!("GET /health http/1.1\r\nHost: {address}\r\n\r\n"), 400),
        (format!("GET /health HTTP/1.1 x\r\nHost: {address}\r\n\r\n"), 400),
        (format!("GET  /health HTTP/1.1\r\nHost: {address}\r\n\r\n"), 400),
        (format!("G\u{0}T /health HTTP/1.1\r\nHost: {address}\r\n\r\n"), 400),
        (format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n{token}\r\n"), 400),
        (format!("GET {address} HTTP/1.1\r\nHost: {address}\r\n{token}\r\n"), 400),
        (format!("GET ftp://{address}/ HTTP/1.1\r\nHost: {address}\r\n{token}\r\n"), 400),
        (format!("GET * HTTP/1.1\r\nHost: {address}\r\n{token}\r\n"), 400),
        ("\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}".to_owned(), 400),
        ("SSH-2.0-x\r\n\r\n".to_owned(), 400),
        (format!("GET /health HTTP/1.1\r\nHost: {address}\r\n{}\r\n", many(64)), 431),
        (format!("GET /health HTTP/1.1\r\nHost: {address}\r\nX: {}", "y".repeat(17_000)), 431),
        (format!("GET /{} HTTP/1.1\r\nHost: {address}\r\n\r\n", "y".repeat(17_000)), 431),
        (format!("GET /health HTTP/1.1\r\nHost: {address}\r\n{token}{token}\r\n"), 400),
        (format!("GET /health HTTP/1.1\r\nHost: {address}\r\nOrigin: a\r\nOrigin: b\r\n\r\n"), 400),
    ] {
        let mut raw = stage.raw();
        // The server may have said no before all of it is there.
        drop(std::io::Write::write_all(&mut raw.socket, request.as_bytes()));
        let said = raw.rest();
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{request:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{request:?}: {said}");
    }
    // The head of a request comes back in no answer, so a page can not read a token by TRACE.
    let mut raw = stage.raw();
    raw.send(format!("TRACE /v1/sessions HTTP/1.1\r\nHost: {address}\r\n{token}\r\n"));
    let answer = raw.answer();
    assert_eq!(answer.status, 405);
    assert!(!answer.body.contains(&stage.server.token()) && !answer.head.contains("Bearer"));
    check_error(&stage.anonymous().request("TRACE", "/v1/sessions", &[], b""), 401, "unauthorized");
    assert_eq!(stage.last_row(), before);
}

/// Who asks for another protocol gets the answer to his request, in this one.
#[test]
fn no_connection_becomes_another_protocol() {
    let stage = Stage::new();
    let (address, token) = (stage.server.address(), stage.authorization());
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
    ] {
        let mut raw = stage.raw();
        let get = format!("GET /v1/version HTTP/1.1\r\nHost: {address}\r\n{token}");
        raw.send(format!("{get}{fields}\r\n{get}\r\n"));
        for _ in 0..2 {
            let answer = raw.answer();
            assert_eq!(answer.status, 200, "{fields}");
            assert!(!answer.head.to_lowercase().contains("upgrade"), "{}", answer.head);
        }
    }
}

#[test]
fn requests_that_come_at_once_are_answered_in_order() {
    let stage = Stage::new();
    let (address, token) = (stage.server.address(), stage.authorization());
    let get = |name: usize| {
        let named = format!("X-Request-Id: r-{name}\r\n");
        format!("GET /v1/version HTTP/1.1\r\nHost: {address}\r\n{token}{named}\r\n")
    };
    let mut raw = stage.raw();
    raw.send((0..500).map(get).collect::<String>());
    for name in 0..500 {
        let answer = raw.answer();
        assert_eq!(answer.status, 200);
        assert!(
            answer.head.contains(&format!("\r\nX-Request-Id: r-{name}\r\n")),
            "{}",
            answer.head
        );
    }
    // What is sent behind the start of a stream belongs to nobody.
    let before = stage.last_row();
    let mut raw = stage.raw();
    let stream = get(0).replace("/v1/version", "/v1/events/stream?limit=1");
    raw.send(format!("{stream}{}", smuggled(&stage)));
    let said = raw.rest();
    assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{said}");
    assert_eq!(stage.last_row(), before);
    assert_eq!(text(&stage.get("/health"), "status"), "ok");
}
