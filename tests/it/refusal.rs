//! What is refused for what it takes: heads that are too large or do not come, too many waits; and what the server says
//! when something of its own was spoilt.

use crate::contract;
use crate::stage::{Stage, check_error, check_told, text};
use gooselake_harness::{thread, wait};
use serde_json::json;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
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

/// Clients that go away leave their places, also where more of the connection waits to be read.
#[test]
fn whoever_waits_and_goes_away_leaves_its_place() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "slow 100000 1000");
    let body = json!({"command": "sleep 1000", "cwd": stage.cwd});
    let process_id = text(&stage.start_process(&body)["process"], "process_id");
    let paths = [
        format!("/v1/sessions/{session_id}/turns/{turn_id}?wait_ms=3600000"),
        format!("/v1/processes/{process_id}?wait_ms=3600000"),
    ];
    let wait_at = |number: usize| {
        let more = if number.is_multiple_of(3) { "GET /health" } else { "" };
        let mut socket = asking(&stage, &format!("GET {}", paths[number % 2]), "");
        socket.write_all(more.as_bytes()).unwrap();
        socket
    };
    let mut waits: Vec<TcpStream> = (0..WAITS).map(wait_at).collect();
    let connections = || stage.get("/v1/diagnostics")["connections"]["open"].as_u64().unwrap();
    let ask = || stage.client.get(&format!("/v1/processes/{process_id}?wait_ms=1"));
    // A look that is answered may have had the place of one of them.
    wait::until(LONG, "all places are taken", || {
        let is_full = ask().status == 429;
        if !is_full {
            waits.push(wait_at(waits.len()));
        }
        is_full.then_some(())
    });
    // One who only says that nothing more comes is answered as if the time were over.
    let mut half = waits.remove(3);
    half.shutdown(Shutdown::Write).unwrap();
    half.set_read_timeout(Some(LONG)).unwrap();
    let mut told = String::new();
    half.read_to_string(&mut told).unwrap();
    assert!(told.starts_with("HTTP/1.1 200 ") && told.contains("\"running\""), "{told}");
    drop((waits, half));
    wait::until(LONG, "the connections are gone", || (connections() <= 2).then_some(()));
    ask().expect(200);
}

/// A connection on which this was asked, and whose answer nobody reads.
fn asking(stage: &Stage, line: &str, body: &str) -> TcpStream {
    let mut socket = TcpStream::connect(stage.server.address()).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        stage.server.token(),
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket
}

/// A command that ends by KILL alone, an hour after somebody wants its end.
fn stubborn(stage: &Stage, session_id: Option<&str>) -> String {
    let command = "trap '' TERM; echo up; while :; do sleep 1000; done";
    let body = json!({
        "command": command, "cwd": stage.cwd, "kill_grace_ms": 3_600_000, "session_id": session_id,
    });
    let process_id = text(&stage.start_process(&body)["process"], "process_id");
    stage.await_line(&process_id, "up");
    process_id
}

fn await_few_connections(stage: &Stage) {
    let connections = || stage.get("/v1/diagnostics")["connections"]["open"].as_u64().unwrap();
    wait::until(LONG, "the connections are gone", || (connections() <= 2).then_some(()));
}

#[test]
fn whoever_waits_for_a_kill_has_a_place_and_leaves_it_when_it_goes_away() {
    let stage = Stage::new();
    let process_id = stubborn(&stage, None);
    let path = format!("/v1/processes/{process_id}/kill");
    let line = format!("POST {path}");
    let ask = || asking(&stage, &line, "{}");
    let mut waits: Vec<TcpStream> = (0..WAITS).map(|_| ask()).collect();
    let look = || stage.client.get(&format!("/v1/processes/{process_id}?wait_ms=1"));
    // A look that is answered may have had the place of one of them.
    wait::until(LONG, "all places are taken", || {
        let is_full = look().status == 429;
        if !is_full {
            waits.push(ask());
        }
        is_full.then_some(())
    });
    // It is told to end all the same, and who has no place does not wait for that.
    let told = stage.client.post(&path, &json!({})).expect(202).json();
    assert_eq!(told["process"]["status"], "running");
    // Who does not wait needs no place.
    let told = stage.client.post(&path, &json!({"wait": false})).expect(200).json();
    assert_eq!(
        (&told["process"]["status"], &told["killed_by"]),
        (&json!("running"), &json!("request"))
    );
    drop(waits);
    await_few_connections(&stage);
    look().expect(200);
    let ended = stage.client.post(&path, &json!({"signal": "KILL"})).expect(200).json();
    assert_eq!(ended["process"]["status"], "killed", "{ended}");
}

#[test]
fn a_session_is_closed_with_its_processes_also_when_its_client_goes_away() {
    let stage = Stage::new();
    for way in ["POST close", "DELETE"] {
        let session_id = stage.session();
        let process_id = stubborn(&stage, Some(&session_id));
        let path = format!("/v1/sessions/{session_id}");
        let line = match way {
            "DELETE" => format!("DELETE {path}"),
            _ => format!("POST {path}/close"),
        };
        let asked: Vec<TcpStream> = (0..4).map(|_| asking(&stage, &line, "{}")).collect();
        let process = format!("/v1/processes/{process_id}");
        wait::until(LONG, "its process is told to end", || {
            (stage.get(&process)["killed_by"] == "session").then_some(())
        });
        assert_eq!(stage.record(&session_id)["status"], "closed");
        drop(asked);
        await_few_connections(&stage);
        assert_eq!(stage.get(&process)["process"]["status"], "running");
        let kill = json!({"signal": "KILL"});
        stage.client.post(&format!("{process}/kill"), &kill).expect(200);
    }
}

/// What fails without anybody's request being wrong is ours to explain: the answer names the file, the log has why.
#[test]
fn a_log_file_that_somebody_made_a_folder_is_told_as_ours() {
    let stage = Stage::new();
    let process = stage.client.post("/v1/processes", &json!({"command": "echo a"})).expect(200);
    let process_id = process.json()["process"]["process_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/processes/{process_id}");
    let ended = stage.get(&format!("{path}?wait_ms=30000"));
    assert_eq!(ended["process"]["status"], "completed", "{ended}");
    let log = ended["stdout_path"].as_str().unwrap();
    fs::remove_file(log).unwrap();
    fs::create_dir(log).unwrap();
    let reply = stage.client.get(&format!("{path}/logs"));
    check_told(&reply, 500, "internal", log);
}
