//! Bodies that are small on the wire and large, or slow, once they are read.

use crate::stage::{JSON, Stage, check_told};
use serde_json::{Value, json};
use std::fs;

/// What the server may grow by for all of them together, in KiB. Without its bound each takes more than that alone.
const GROWTH_KIB: u64 = 200 * 1024;

fn deep(open: &str, close: &str) -> String {
    format!("{}1{}", open.repeat(100_000), close.repeat(100_000))
}

fn many(count: usize, value: impl Fn(usize) -> String) -> String {
    (0..count).map(value).collect::<Vec<_>>().join(",")
}

#[test]
fn bodies_that_grow_when_they_are_read_are_refused() {
    let stage = Stage::new();
    let session_id = stage.session();
    let (before, before_kib) = (stage.last_row(), stage.server.rss_kib());
    let turns = format!("/v1/sessions/{session_id}/turns");
    let sessions = "/v1/sessions";
    let image = stage.cwd.join("image.png");
    fs::write(&image, [&b"\x89PNG"[..], &[0; 4 << 20]].concat()).unwrap();
    let image = json!({"type": "image", "path": image}).to_string();
    let pairs = many(100_000, |n| format!("\"k{n}\":\"\""));
    let metadata = |value: &str| format!("{{\"provider\":\"demo\",\"metadata\":{value}}}");
    let field =
        |name: &str, bytes: usize| json!({"provider": "demo", name: "x".repeat(bytes)}).to_string();
    let (big, small) = (3 << 20, 1500 << 10);
    let mut wrong = Vec::new();
    let input = |items: String| format!("{{\"input\":[{items}]}}");
    for (path, body, status, part) in [
        (sessions, metadata(&deep("[", "]")), 400, "metadata"),
        (sessions, metadata(&deep("{\"a\":", "}")), 400, "metadata"),
        (sessions, deep("{\"provider\":", "}"), 400, "provider"),
        (sessions, deep("[", "]"), 400, "array"),
        (sessions, "[".repeat(100_000), 400, "array"),
        (sessions, "{\"provider\":\"".to_owned() + &"x".repeat(small), 400, "provider"),
        (&turns, input(deep("[", "]")), 400, "input"),
        (&turns, input(format!("{{\"text\":{}}}", deep("[", "]"))), 400, "input"),
        (sessions, metadata("1e999"), 400, "metadata"),
        (sessions, metadata(&"9".repeat(50_000)), 400, "metadata"),
        (sessions, metadata("\"\\ud800\""), 400, "metadata"),
        (sessions, metadata("\"\\udc00\\ud800\""), 400, "metadata"),
        (sessions, metadata("NaN"), 400, "metadata"),
        (sessions, metadata("0x10"), 400, "not JSON"),
        (sessions, metadata("\"\u{1}\""), 400, "metadata"),
        ("/v1/processes", "{\"args\":[\"true\"],\"timeout_ms\":1e3}".to_owned(), 400, "timeout_ms"),
        ("/v1/processes", "{\"args\":[\"true\"],\"timeout_ms\":-1}".to_owned(), 400, "timeout_ms"),
        (
            "/v1/processes",
            "{\"args\":[\"true\"],\"timeout_ms\":1e999}".to_owned(),
            400,
            "timeout_ms",
        ),
        ("/v1/processes", "{\"args\":[\"true\"],\"args\":[\"x\"]}".to_owned(), 400, "args"),
        (
            "/v1/processes",
            "{\"args\":[\"true\"],\"env\":{\"A\":\"1\",\"A\":\"2\"}}".to_owned(),
            400,
            "A",
        ),
        (
            sessions,
            "{\"provider\":\"demo\",\"env\":{\"A\":\"1\",\"A\":\"2\"}}".to_owned(),
            400,
            "A",
        ),
        (
            sessions,
            "{\"provider\":\"demo\",\"title\":\"a\",\"title\":\"b\"}".to_owned(),
            400,
            "title",
        ),
        (sessions, "\u{feff}{\"provider\":\"demo\"}".to_owned(), 400, "JSON"),
        // Values, many times larger in memory than here.
        (&turns, input(many(500_000, |_| "\"\"".to_owned())), 413, "values"),
        (&turns, input(many(400_000, |_| "{\"\":0}".to_owned())), 413, "values"),
        (&turns, input(many(700_000, |_| "[]".to_owned())), 413, "values"),
        (&turns, input(many(2000, |_| "\"\"".to_owned())), 400, "input"),
        (sessions, format!("{{\"provider\":\"demo\",\"env\":{{{pairs}}}}}"), 413, "values"),
        (sessions, format!("{{{pairs}}}"), 413, "values"),
        (sessions, metadata(&format!("{{{pairs}}}")), 413, "values"),
        // A file that is named again and again.
        (&turns, input(many(500, |_| image.clone())), 413, "input[7]"),
        // Texts that every list would repeat.
        (sessions, field("title", big), 413, "body"),
        (sessions, field("title", small), 400, "title"),
        (sessions, field("model", small), 400, "model"),
        (sessions, field("mode", small), 400, "mode"),
        (sessions, field("reasoning_level", small), 400, "reasoning_level"),
        (sessions, field("permission_mode", small), 400, "permission_mode"),
        (sessions, field("system_prompt", small), 400, "system_prompt"),
        (sessions, field("metadata", small), 400, "metadata"),
        (sessions, field("provider", small), 400, "provider"),
        (sessions, field("agent", small), 400, "agent"),
        (sessions, field("cwd", small), 400, "cwd"),
        (
            "/v1/teams",
            json!({"name": "x".repeat(small), "lead_agent_id": "x"}).to_string(),
            400,
            "name",
        ),
        (
            "/v1/processes",
            json!({"args": ["true"], "name": "x".repeat(small)}).to_string(),
            400,
            "name",
        ),
        ("/v1/processes", json!({"args": ["true", "x".repeat(small)]}).to_string(), 413, "command"),
        (
            "/v1/processes",
            json!({"args": ["true"], "env": {"A": "x".repeat(small)}}).to_string(),
            413,
            "env",
        ),
        (
            sessions,
            json!({"provider": "demo", "env": {"A": "x".repeat(small)}}).to_string(),
            413,
            "env",
        ),
    ] {
        let reply = stage.client.request("POST", path, &[JSON], body.as_bytes());
        let told = reply.text();
        if reply.status != status || !told.contains(part) || told.len() > 8 * 1024 {
            let asked: String = body.chars().take(80).collect();
            wrong.push(format!("{status} {part} is awaited for {asked}…: {:.300}", told));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let servers = vec![json!({"name": "x", "command": "x"}); 1000];
    let body = json!({"provider": "demo", "mcp_servers": servers});
    check_told(&stage.client.post(sessions, &body), 400, "bad_request", "mcp_servers");
    assert_eq!(stage.last_row(), before);
    let grown_kib = stage.server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < GROWTH_KIB, "the server grew by {grown_kib} KiB");
}

/// What nobody reads is passed over, however deep it is.
#[test]
fn an_unknown_field_that_is_ignored_costs_nothing() {
    let stage = Stage::new();
    let session_id = stage.session();
    let path = format!("/v1/sessions/{session_id}/close");
    let lenient = [JSON, ("X-Gooselake-Lenient", "1")];
    let body = format!("{{\"x\":[{}]}}", many(60_000, |n| n.to_string()));
    let reply = stage.client.request("POST", &path, &lenient, body.as_bytes());
    check_told(&reply, 413, "payload_too_large", "values");
    let body = format!("{{\"x\":{}}}", deep("[", "]"));
    stage.client.request("POST", &path, &lenient, body.as_bytes()).expect(200);
}

#[test]
fn a_body_is_not_unpacked() {
    let stage = Stage::new();
    let before = stage.last_row();
    let body = json!({"provider": "demo"}).to_string();
    for coding in ["gzip", "br", "deflate", "zstd", "gzip, gzip", "identity, gzip", "x"] {
        let headers = [JSON, ("Content-Encoding", coding)];
        let reply = stage.client.request("POST", "/v1/sessions", &headers, body.as_bytes());
        check_told(&reply, 415, "unsupported_media_type", coding);
    }
    assert_eq!(stage.last_row(), before);
    let headers = [JSON, ("Content-Encoding", "identity")];
    stage.client.request("POST", "/v1/sessions", &headers, body.as_bytes()).expect(200);
}

#[test]
fn queries_and_cursors_have_a_size() {
    let stage = Stage::new();
    let flood = "a=b&".repeat(3500);
    // The client of the stage would miss these parameters in the document.
    stage.server.client().get(&format!("/v1/sessions?{flood}")).expect(200);
    let longer = "a".repeat(17_000);
    let reply = stage.client.get(&format!("/v1/sessions?{longer}"));
    check_told(&reply, 431, "head_too_large", "head");
    let digits = "9".repeat(10_000);
    for id in ["-1", "1e3", "0x1", "1 1", "99999999999999999999", &digits] {
        let headers = [("Last-Event-ID", id)];
        let reply = stage.client.request("GET", "/v1/events/stream", &headers, b"");
        assert_eq!(reply.status, 400, "{id}: {reply}");
        assert!(reply.body.len() < 8 * 1024);
    }
    for query in ["limit=99999999999999999999", "limit=-1", "cursor=9999999999999999999999.1"] {
        check_told(&stage.client.get(&format!("/v1/sessions?{query}")), 400, "bad_request", "is");
    }
    let none = stage.client.get("/v1/sessions?limit=9223372036854775807").expect(200);
    assert_eq!(none.json(), Value::Array(Vec::new()));
}
