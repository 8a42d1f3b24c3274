//! No descriptors, no threads, no memory, no programs: who asks is told, who has something keeps it, and when there is
//! room again nothing has to be started anew.

use super::{Broken, options};
use crate::shutdown::hang_on_log;
use crate::stage::{SOON, Stage, text};
use gooselake_harness::fault::{Fault, Number};
use gooselake_harness::server::{Server, program};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

const EAGAIN: i64 = 11;
const ENOMEM: i64 = 12;

/// Descriptors that the server may have, and connections that want one each.
const DESCRIPTORS: usize = 90;
const CONNECTIONS: usize = 150;

/// Between two tries to accept.
const ACCEPT_PAUSE_MS: u128 = 50;

/// A connection that stays, with requests one after the other.
struct Kept {
    socket: BufReader<TcpStream>,
    token: String,
}

impl Kept {
    fn connect(server: &Server) -> Kept {
        let socket = TcpStream::connect(server.address()).unwrap();
        socket.set_read_timeout(Some(SOON)).unwrap();
        Kept { socket: BufReader::new(socket), token: server.token() }
    }

    /// One that the server has taken.
    fn new(server: &Server) -> Kept {
        let mut kept = Kept::connect(server);
        assert_eq!(kept.call("GET", "/health", "").0, 200);
        kept
    }

    /// The status and the body.
    fn call(&mut self, method: &str, path: &str, body: &str) -> (u16, Value) {
        self.call_with(method, path, "", body)
    }

    /// A POST with an Idempotency-Key.
    fn post_once(&mut self, path: &str, key: &str, body: &str) -> (u16, Value) {
        self.call_with("POST", path, &format!("Idempotency-Key: {key}\r\n"), body)
    }

    fn call_with(&mut self, method: &str, path: &str, more: &str, body: &str) -> (u16, Value) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n{more}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        );
        self.socket.get_mut().write_all(head.as_bytes()).unwrap();
        self.answer()
    }

    fn answer(&mut self) -> (u16, Value) {
        let mut line = String::new();
        self.socket.read_line(&mut line).unwrap();
        let status = line.split(' ').nth(1).expect(&line).parse().unwrap();
        let mut length = 0;
        loop {
            line.clear();
            self.socket.read_line(&mut line).unwrap();
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.trim().is_empty() {
                break;
            }
        }
        let mut bytes = vec![0; length];
        self.socket.read_exact(&mut bytes).unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }
}

fn session_body(stage: &Stage) -> String {
    json!({"provider": "demo", "cwd": stage.cwd, "mode": "auto"}).to_string()
}

#[test]
fn a_server_without_descriptors_serves_who_is_there_and_then_everybody_again() {
    let folder = TempDir::new("gg-few");
    let few = folder.path().join("gg-few");
    let server = program("GG_TEST_SERVER", "gg-runtime-server").unwrap();
    let script =
        format!("#!/bin/sh\nulimit -n {DESCRIPTORS}\nexec '{}' \"$@\"\n", server.display());
    fs::write(&few, script).unwrap();
    fs::set_permissions(&few, fs::Permissions::from_mode(0o755)).unwrap();
    let fault = Fault::new();
    let mut options = options("", &fault, &folder);
    (options.program, options.env) = (Some(few), Vec::new());
    let server = Server::start(options);
    let cwd = server.folder().join("work");
    fs::create_dir(&cwd).unwrap();
    let stage = Stage { client: crate::contract::client(&server), server, cwd };
    let session_id = stage.session();
    stage.run(&session_id, "say before");
    let mut kept = Kept::new(&stage.server);
    let crowd: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| TcpStream::connect(stage.server.address()).unwrap()).collect();
    let begun = Instant::now();
    wait::until(SOON, "accept fails", || {
        stage.server.stderr_text().contains("can not accept connections").then_some(())
    });
    // The page that a person opens now tells what is known without a file, and what is not.
    let told = wait::until(SOON, "nothing is left to look at the keepers with", || {
        let (status, told) = kept.call("GET", "/v1/diagnostics", "");
        assert_eq!(status, 200, "{told}");
        told["keepers"].is_null().then_some(told)
    });
    assert_eq!(told["unread"][0]["part"], "keepers", "{told}");
    assert!(text(&told["unread"][0], "error").contains("Too many open files"), "{told}");
    let connections = &told["connections"];
    assert!(connections["accept_errors"].as_u64() > Some(0), "{connections}");
    assert_eq!(told["session_status_counts"]["ready"], 1, "{told}");
    assert_eq!(kept.call("GET", "/metrics", "").0, 200);
    // An agent needs descriptors too: it is refused, and told why.
    let (status, told) = kept.call("POST", "/v1/sessions", &session_body(&stage));
    assert!(status >= 500, "{status} {told}");
    assert!(text(&told, "error").contains("Too many open files"), "{told}");
    // What lives goes on.
    let body = json!({"input": ["say still"]}).to_string();
    let path = format!("/v1/sessions/{session_id}/turns?wait=true&timeout_ms=20000");
    let (status, told) = kept.call("POST", &path, &body);
    assert_eq!((status, &told["assistant_text"]), (200, &json!("still")), "{told}");
    drop(crowd);
    wait::until(SOON, "the crowd is gone", || {
        let told = stage.client.get("/v1/diagnostics");
        let open = (told.status == 200).then(|| told.json()["connections"]["open"].as_u64());
        (open?? < 10).then_some(())
    });
    // It does not spin: it tries again after a pause, so there are no more tries than pauses.
    let again = wait::until(SOON, "accept is told to work again", || {
        let told = stage.server.stderr_text();
        told.split("accepts connections again after ").nth(1).map(str::to_owned)
    });
    let tries: u128 = again.split(' ').next().unwrap().parse().unwrap();
    let pauses = begun.elapsed().as_millis() / ACCEPT_PAUSE_MS + 10;
    assert!(tries <= pauses, "{tries} tries in the time of {pauses} pauses");
    assert_eq!(stage.run(&stage.session(), "say on")["assistant_text"], "on");
    assert!(stage.server.is_alive());
}

#[test]
fn a_server_without_threads_refuses_new_connections_and_sessions_and_then_serves_again() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    let mut kept = Kept::new(&stage.server);
    broken.fault.set(Number::ThreadErrno, EAGAIN);
    let (status, told) = Kept::connect(&stage.server).answer();
    assert_eq!((status, &told["code"]), (503, &json!("capacity")), "{told}");
    let (status, told) = kept.call("POST", "/v1/sessions", &session_body(stage));
    assert_eq!((status, &told["code"]), (503, &json!("capacity")), "{told}");
    let process = json!({"command": "true", "cwd": stage.cwd}).to_string();
    let (status, told) = kept.call("POST", "/v1/processes", &process);
    assert_eq!((status, &told["code"]), (503, &json!("capacity")), "{told}");
    // A session that has its threads goes on.
    let body = json!({"input": ["say still"]}).to_string();
    let path = format!("/v1/sessions/{session_id}/turns?wait=true&timeout_ms=20000");
    let (status, told) = kept.call("POST", &path, &body);
    assert_eq!((status, &told["assistant_text"]), (200, &json!("still")), "{told}");
    broken.fault.set(Number::ThreadErrno, 0);
    assert_eq!(stage.run(&stage.session(), "say on")["assistant_text"], "on");
    broken.verify();
}

/// Whichever it is that a start does not get, and all behind it: what it has begun by then ends.
#[test]
fn a_start_that_gets_no_thread_ends_with_the_reason() {
    let mut broken = Broken::new();
    let session_id = broken.stage.session();
    for nth in 1.. {
        // The agent lives, so the next start has a thread for it.
        broken.stage.server.kill9();
        broken.fault.set(Number::ThreadsLeft, nth);
        let started = broken.stage.server.try_restart();
        broken.fault.set(Number::ThreadsLeft, 0);
        broken.fault.set(Number::ThreadErrno, 0);
        let Err(told) = started else {
            assert!(nth > 12, "the lanes of the mail alone are eight");
            break;
        };
        assert!(told.contains("(exit status: 1)"), "without thread {nth}: {told}");
        assert!(told.contains("Resource temporarily unavailable"), "{nth}: {told}");
    }
    broken.stage.restart();
    assert_eq!(broken.stage.run(&session_id, "say on")["assistant_text"], "on");
    broken.verify();
}

/// Nor does the stop want one: not even for a thread that it has to leave behind.
#[test]
fn a_server_without_threads_stops_in_time_whatever_hangs() {
    let mut broken = Broken::with_config("[server]\nshutdown_grace_secs = 2\n");
    let stage = &mut broken.stage;
    let body = json!({"command": "while sleep 0.05; do echo more; done", "cwd": stage.cwd});
    let log = text(&stage.client.post("/v1/processes", &body).expect(200).json(), "stdout_path");
    stage.session();
    hang_on_log(stage, &log);
    stage.session();
    broken.fault.set(Number::ThreadErrno, EAGAIN);
    let begun = Instant::now();
    assert_eq!(stage.server.terminate(), Some(0), "{}", stage.server.stderr_text());
    assert!(begun.elapsed() < Duration::from_secs(8), "it took {:?}", begun.elapsed());
    broken.fault.set(Number::ThreadErrno, 0);
    fs::remove_file(&log).unwrap();
    stage.restart();
    broken.verify();
}

#[test]
fn a_process_that_was_refused_without_threads_is_started_by_the_same_key() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let mut kept = Kept::new(&stage.server);
    let body = json!({"command": "true", "cwd": stage.cwd}).to_string();
    broken.fault.set(Number::ThreadErrno, EAGAIN);
    let (status, told) = kept.post_once("/v1/processes", "once", &body);
    assert_eq!((status, &told["code"]), (503, &json!("capacity")), "{told}");
    broken.fault.set(Number::ThreadErrno, 0);
    let (status, made) = kept.post_once("/v1/processes", "once", &body);
    assert_eq!(status, 200, "{made}");
    let process_id = text(&made["process"], "process_id");
    assert_eq!(stage.process_end(&process_id)["process"]["status"], "completed");
    let (_, again) = kept.post_once("/v1/processes", "once", &body);
    assert_eq!(text(&again["process"], "process_id"), process_id);
    let counts = &stage.get("/v1/diagnostics/processes")["process_status_counts"];
    assert_eq!(counts, &json!({"completed": 1, "failed": 1}));
    broken.verify();
}

#[test]
fn a_session_that_was_refused_without_threads_is_opened_by_the_same_key_or_closed() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let mut kept = Kept::new(&stage.server);
    let body = json!({"provider": "demo", "cwd": stage.cwd, "mode": "auto", "wait": false});
    let body = body.to_string();
    broken.fault.set(Number::ThreadErrno, EAGAIN);
    let (status, told) = kept.post_once("/v1/sessions", "once", &body);
    assert_eq!((status, &told["code"]), (503, &json!("capacity")), "{told}");
    let sessions = "/v1/sessions?status=starting";
    let (_, starting) = kept.call("GET", sessions, "");
    let session_id = text(&starting[0], "id");
    // Whoever has no key asks for another one.
    let (status, told) = kept.call("POST", "/v1/sessions", &body);
    assert_eq!((status, &told["code"]), (503, &json!("capacity")), "{told}");
    let (_, starting) = kept.call("GET", sessions, "");
    assert_eq!(starting.as_array().unwrap().len(), 1, "{starting}");
    let (_, closed) = kept.call("GET", "/v1/sessions?status=closed", "");
    let closed_id = text(&closed[0], "id");
    let events = kinds_of(&mut kept, &closed_id);
    assert_eq!(events, ["session.created", "session.closed"]);
    broken.fault.set(Number::ThreadErrno, 0);
    let (status, made) = kept.post_once("/v1/sessions", "once", &body);
    assert_eq!((status, &made["id"]), (200, &json!(session_id)), "{made}");
    wait::until(SOON, "it is opened", || {
        (stage.record(&session_id)["status"] == "ready").then_some(())
    });
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    broken.verify();
}

/// The kinds of a session's events.
fn kinds_of(kept: &mut Kept, session_id: &str) -> Vec<String> {
    let (_, events) = kept.call("GET", &format!("/v1/sessions/{session_id}/events"), "");
    events.as_array().unwrap().iter().map(|event| text(event, "kind")).collect()
}

#[test]
fn without_threads_all_processes_that_wait_are_told_one_after_the_other() {
    const WAITING: usize = 300;
    // A call inside of a call for each of them would not fit.
    let stack = ("RUST_MIN_STACK", (256 * 1024).to_string());
    let broken = Broken::with_env("[processes]\nmax_concurrent = 1\n", Some(stack));
    let (stage, fault) = (&broken.stage, &broken.fault);
    let start = |command: &str| {
        let body = json!({"command": command, "cwd": stage.cwd, "queue": true});
        text(&stage.start_process(&body)["process"], "process_id")
    };
    let first = start("sleep 1000");
    let waiting: Vec<String> = (0..WAITING).map(|_| start("true")).collect();
    let mut kept = Kept::new(&stage.server);
    fault.set(Number::ThreadErrno, EAGAIN);
    let (status, told) = kept.call("POST", &format!("/v1/processes/{first}/kill"), "{}");
    assert_eq!(status, 200, "{told}");
    let last = format!("/v1/processes/{}?wait_ms=30000", waiting[WAITING - 1]);
    let (status, told) = kept.call("GET", &last, "");
    assert_eq!((status, &told["process"]["status"]), (200, &json!("failed")), "{told}");
    assert!(text(&told, "error").contains("no thread"), "{told}");
    fault.set(Number::ThreadErrno, 0);
    let counts = &stage.get("/v1/diagnostics/processes")["process_status_counts"];
    assert_eq!(counts, &json!({"failed": WAITING, "killed": 1}));
    assert_eq!(stage.process_end(&start("true"))["process"]["status"], "completed");
    broken.verify();
}

#[test]
fn a_program_that_can_not_be_started_is_told_and_leaves_nothing() {
    let broken = Broken::new();
    let stage = &broken.stage;
    broken.fault.set(Number::SpawnErrno, ENOMEM);
    let refused = stage.post_session(&json!({}), &[]);
    assert!(refused.status >= 500, "{refused}");
    assert!(text(&refused.json(), "error").contains("Cannot allocate memory"), "{refused}");
    let record = stage.start_process(&json!({"command": "true", "cwd": stage.cwd}));
    let record = stage.process_end(&text(&record["process"], "process_id"));
    assert_eq!(record["process"]["status"], "failed", "{record}");
    assert!(text(&record, "error").contains("Cannot allocate memory"), "{record}");
    broken.fault.set(Number::SpawnErrno, 0);
    assert_eq!(stage.run(&stage.session(), "say on")["assistant_text"], "on");
    broken.verify();
}

#[test]
fn an_agent_without_memory_fails_its_turn_with_the_reason() {
    let agent = program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let script = format!("ulimit -v 300000; exec '{}'", agent.display());
    let arguments = json!(["-c", script]);
    let stage = Stage::with_config(&format!(
        "[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n"
    ));
    let body = json!({"provider": "acp", "cwd": stage.cwd, "mode": "auto"});
    let session_id = text(&stage.client.post("/v1/sessions", &body).expect(200).json(), "id");
    let turn = stage.run(&session_id, "say so far\nlongline 250000000");
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("failed"), &json!("so far")));
    assert_eq!(turn["error"]["code"], "agent_exited", "{turn}");
    assert!(text(&turn["error"], "message").contains("memory allocation"), "{turn}");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}

#[test]
fn a_command_without_memory_fails_with_what_it_said() {
    let stage = Stage::new();
    let command = "ulimit -v 40000; head -c 200000000 /dev/zero | tail -c 150000000 > big";
    let record = stage.start_process(&json!({"command": command, "cwd": stage.cwd}));
    let record = stage.process_end(&text(&record["process"], "process_id"));
    assert_eq!(record["process"]["status"], "failed", "{record}");
    let stderr = fs::read_to_string(text(&record, "stderr_path")).unwrap();
    assert!(stderr.contains("memory"), "{stderr}");
}
