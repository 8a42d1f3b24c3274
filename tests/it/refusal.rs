//! What is refused for what it takes: heads that are too large or do not come, too many waits; and what the server says
//! when a part of its installation is gone.

use crate::contract;
use crate::stage::{JSON, Stage, check_error, check_told};
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::thread;
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

/// How many requests of one address may wait (docs/ARCHITECTURE.md, Limits).
const WAITS: usize = 256;

const LONG: Duration = Duration::from_secs(60);

#[test]
fn a_head_that_is_too_large_is_431() {
    let stage = Stage::new();
    let long = "x".repeat(20_000);
    let reply = stage.client.request("GET", "/v1/sessions", &[("X-Long", &long)], b"");
    check_error(&reply, 431, "head_too_large");
    stage.client.get("/health").expect(200);
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_408() {
    let stage = Stage::new();
    let mut socket = TcpStream::connect(stage.server.address()).unwrap();
    socket.set_read_timeout(Some(LONG)).unwrap();
    socket.write_all(b"GET /health HTTP/1.1\r\nHost: loc").unwrap();
    let mut told = String::new();
    socket.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 408 "), "{told}");
    let (_, body) = told.split_once("\r\n\r\n").unwrap();
    let code = serde_json::from_str::<serde_json::Value>(body).unwrap()["code"].clone();
    assert_eq!(code, "request_timeout", "{told}");
    contract::note_error(408, body.as_bytes());
}

/// One more than may wait is refused, and only that one; the others are answered when the turn ends.
#[test]
fn of_too_many_waits_one_is_429_and_the_others_go_on() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "slow 100000 1000");
    let path = format!("/v1/sessions/{session_id}/turns/{turn_id}?wait_ms=3600000");
    let (send, replies) = mpsc::channel();
    let waits: Vec<_> = (0..=WAITS)
        .map(|_| {
            let client = stage.client.clone().with_deadline(LONG);
            let (path, send) = (path.clone(), send.clone());
            thread::spawn("wait", move || send.send(client.get(&path)).unwrap()).unwrap()
        })
        .collect();
    let refused = replies.recv_timeout(LONG).unwrap();
    check_error(&refused, 429, "too_many_requests");
    assert_eq!(refused.header("retry-after"), Some("1"));
    // A look is no wait.
    stage.get(&format!("/v1/sessions/{session_id}/turns/{turn_id}"));
    stage.interrupt(&session_id, &turn_id).expect(202);
    for _ in 0..WAITS {
        let reply = replies.recv_timeout(LONG).unwrap().expect(200);
        assert_eq!(reply.json()["status"], "interrupted", "{reply}");
    }
    waits.into_iter().for_each(thread::Thread::join);
    let waited = stage.ended(&session_id, &turn_id);
    assert_eq!(waited["status"], "interrupted", "the places are free again");
}

/// The programs beside the server are part of it: what is missing is told with its name, and nothing is half started.
#[test]
fn an_installation_that_lost_a_program_says_which() {
    let built = program("GG_TEST_SERVER", "gg-runtime-server").unwrap();
    let folder = gooselake_harness::temp::TempDir::new("installed");
    for name in
        ["gg-runtime-server", "gg-keeper", "gg-demo-agent", "gg-mcp-server", "claude-bridge"]
    {
        let from = built.parent().unwrap().join(name);
        let to = folder.path().join(name);
        if fs::hard_link(&from, &to).is_err() {
            fs::copy(&from, &to).unwrap();
        }
    }
    let program = Some(folder.path().join("gg-runtime-server"));
    let server = Server::start(Options { program, ..Options::default() });
    let client = contract::client(&server);
    fs::remove_file(folder.path().join("gg-keeper")).unwrap();
    let body = json!({"command": "true"}).to_string();
    let reply = client.request("POST", "/v1/processes", &[JSON], body.as_bytes());
    check_told(&reply, 500, "internal", "gg-keeper");
}
