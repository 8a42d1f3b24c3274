//! A disk that is full, read only, slow, or that errs: nothing is told that is not kept, and it goes on by itself.

use super::{Broken, ENOSPC, options};
use crate::hostile_agent::{ends, opening};
use crate::stage::{SOON, Stage, check_error, check_told, text};
use gooselake_harness::demo::{flood_text, slow_text};
use gooselake_harness::fault::{Fault, Number};
use gooselake_harness::server::Server;
use gooselake_harness::stream::Record;
use gooselake_harness::temp::TempDir;
use gooselake_harness::{proof, thread, wait};
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;

const EROFS: i64 = 30;
const EIO: i64 = 5;

/// Clients that write at once; as many sessions as the demo agent may have besides the first.
const WRITERS: u64 = 12;

/// While every change of a file fails like this, new work is refused, reads go on, and what runs completes afterwards.
fn check_refused_and_recovered(number: Number, errno: i64, status: u16, code: &str, part: &str) {
    let broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    stage.run(&session_id, "say before");
    let turn_id = stage.start(&session_id, "slow 40 25");
    stage.event(&session_id, "item.delta", 0);
    broken.fault.set(number, errno);
    check_told(&stage.post_session(&json!({}), &[]), status, code, part);
    let body = json!({"input": ["say more"], "when": "queue"});
    check_error(&stage.post_turn(&session_id, &body), status, code);
    let transcript = stage.get(&format!("/v1/sessions/{session_id}/transcript"));
    assert!(transcript.to_string().contains("before"), "{transcript}");
    broken.fault.set(number, 0);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(
        (&turn["status"], &turn["assistant_text"]),
        (&json!("completed"), &json!(slow_text(40)))
    );
    let sessions = stage.get("/v1/sessions");
    assert_eq!(sessions.as_array().unwrap().len(), 1, "what was refused is there: {sessions}");
    assert_eq!(stage.run(&stage.session(), "say on")["assistant_text"], "on");
    broken.verify();
}

#[test]
fn a_full_disk_refuses_new_work_and_what_runs_completes_when_there_is_room() {
    check_refused_and_recovered(Number::WriteErrno, ENOSPC, 503, "capacity", "no room");
}

#[test]
fn a_data_folder_that_becomes_read_only_refuses_new_work_and_what_runs_completes_afterwards() {
    check_refused_and_recovered(Number::WriteErrno, EROFS, 500, "internal", "disk");
}

/// What the disk did not confirm is not acknowledged.
#[test]
fn a_sync_that_fails_acknowledges_nothing() {
    check_refused_and_recovered(Number::SyncErrno, EIO, 500, "internal", "disk");
}

/// An agent whose session can not write ends with the server all the same.
#[test]
fn on_a_full_disk_a_final_stop_ends_the_agents() {
    let config = "[server]\nshutdown_grace_secs = 5\n[keeper]\ngrace_ms = 300\n";
    let mut broken = Broken::with_config(config);
    let stage = &mut broken.stage;
    let session_id = stage.session();
    stage.start(&session_id, "slow 100000 25");
    stage.event(&session_id, "item.delta", 0);
    broken.fault.set(Number::WriteErrno, ENOSPC);
    let body = json!({"input": ["say more"], "when": "queue"});
    check_error(&stage.post_turn(&session_id, &body), 503, "capacity");
    stage.server.interrupt();
    proof::nothing_runs_in(&stage.cwd);
}

/// So does a command, whose end can not be wished for in the ledger.
#[test]
fn on_a_full_disk_a_final_stop_ends_the_commands() {
    let mut broken = Broken::with_config("[server]\nshutdown_grace_secs = 5\n");
    let stage = &mut broken.stage;
    let body = json!({"args": ["/bin/sleep", "1000"], "cwd": stage.cwd, "kill_grace_ms": 200});
    let started = stage.client.post("/v1/processes", &body).expect(200).json();
    assert_eq!(started["process"]["status"], "running");
    broken.fault.set(Number::WriteErrno, ENOSPC);
    stage.server.interrupt();
    proof::nothing_runs_in(&stage.cwd);
}

/// Two questions run out at once, and the first of these ends is not written down: what is told of the second is told
/// to the agent as well.
#[test]
fn a_sync_that_fails_between_two_ends_of_questions_leaves_no_agent_waiting() {
    let asks = |id: u32| {
        json!({"jsonrpc": "2.0", "id": id, "method": "session/request_permission", "params": {
            "sessionId": "s", "toolCall": {"toolCallId": format!("call-{id}"), "title": "x"},
            "options": [{"optionId": "no", "name": "No", "kind": "reject_once"}]}})
    };
    let script = [
        opening(),
        format!("printf '%s\\n' '{}' '{}'\n", asks(51), asks(52)),
        "read l; read l\n".to_owned(),
        ends("end_turn"),
        "read l\n".to_owned(),
    ];
    let arguments = json!(["-c", script.concat()]);
    let broken = Broken::with_config(&format!(
        "[approvals]\ntimeout_secs = 1\n[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n"
    ));
    let stage = &broken.stage;
    let session_id = stage.agent_session();
    let turn_id = stage.start(&session_id, "go");
    let first = stage.event(&session_id, "approval.requested", 0);
    stage.event(&session_id, "approval.requested", first.seq);
    broken.fault.set(Number::SyncErrno, -EIO);
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "completed");
    assert_eq!(broken.fault.get(Number::SyncErrno), 0);
    broken.verify();
}

#[test]
fn a_data_folder_that_is_read_only_at_the_start_is_told() {
    let (fault, folder) = (Fault::new(), TempDir::new("gg-broken"));
    let options = options("", &fault, &folder);
    fault.set(Number::WriteErrno, EROFS);
    let error = Server::try_start(options).unwrap_err();
    fault.check_loaded();
    assert!(error.contains("exit status: 1") && error.contains("Read-only file system"), "{error}");
    assert!(error.contains(&folder.path().join("data").display().to_string()), "{error}");
}

/// One that was served before, and is mounted read only when it starts again.
#[test]
fn a_folder_with_data_that_is_read_only_at_the_start_is_told_and_not_changed() {
    let mut broken = Broken::new();
    let session_id = broken.stage.session();
    broken.stage.server.terminate();
    broken.fault.set(Number::WriteErrno, EROFS);
    let error = broken.stage.server.try_restart().unwrap_err();
    assert!(error.contains("Read-only file system") && error.contains("writable"), "{error}");
    broken.fault.set(Number::WriteErrno, 0);
    broken.stage.restart();
    assert_eq!(broken.stage.record(&session_id)["status"], "ready");
}

/// Who writes waits for the disk; who reads does not, and what waits goes into one commit.
#[test]
fn a_slow_disk_delays_who_writes_and_nobody_who_reads() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    stage.run(&session_id, "say before");
    // No sync comes to its end until the disk is let go.
    broken.fault.set(Number::SyncDelayMs, -1);
    let (answered, answers) = mpsc::channel();
    let is_held = || (broken.fault.get(Number::Fired) > 0).then_some(());
    let writers: Vec<_> = (0..WRITERS)
        .map(|number| {
            if number == 1 {
                wait::until(SOON, "the disk holds a sync", is_held);
            }
            let (client, answered) = (stage.client.clone(), answered.clone());
            let body = json!({"provider": "demo", "cwd": stage.cwd, "wait": false});
            let write = move || {
                client.post("/v1/sessions", &body).expect(200);
                answered.send(()).unwrap();
            };
            thread::spawn(format!("writer-{number}"), write).unwrap()
        })
        .collect();
    // All of them wait, the first for the disk and the others behind it. Reads are served meanwhile.
    let writer = || stage.get("/v1/diagnostics")["writer"].clone();
    wait::until(SOON, "the others wait", || {
        (writer()["queue_depth"].as_u64()? >= WRITERS - 1).then_some(())
    });
    stage.get(&format!("/v1/sessions/{session_id}/transcript"));
    assert!(answers.try_recv().is_err(), "a write was acknowledged before the disk had it");
    broken.fault.set(Number::SyncDelayMs, 0);
    for _ in 0..WRITERS {
        answers.recv_timeout(SOON).unwrap();
    }
    writers.into_iter().for_each(thread::Thread::join);
    let batch = writer()["batch_max"].as_u64().unwrap();
    assert!(batch >= WRITERS - 1, "{batch} in one commit");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    broken.verify();
}

/// Two close a session at once: it is closed once.
#[test]
fn a_session_that_two_close_is_closed_once() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    broken.fault.set(Number::SyncDelayMs, -1);
    let close = |name: &str| {
        let client = stage.client.clone();
        let path = format!("/v1/sessions/{session_id}/close");
        let body = move || drop(client.request("POST", &path, &[], b"").expect(200));
        thread::spawn(name, body).unwrap()
    };
    let first = close("first");
    let is_held = || (broken.fault.get(Number::Fired) > 0).then_some(());
    wait::until(SOON, "the disk holds the first", is_held);
    let mut asked = 0;
    let mut requests = || {
        asked += 1;
        stage.get("/v1/diagnostics")["connections"]["requests"].as_i64().unwrap() - asked
    };
    let before = requests();
    let second = close("second");
    wait::until(SOON, "the second is heard", || (requests() > before).then_some(()));
    broken.fault.set(Number::SyncDelayMs, 0);
    first.join();
    second.join();
    let closed = |event: &&Record| event.kind == "session.closed";
    assert_eq!(stage.events(&session_id).iter().filter(closed).count(), 1);
    broken.verify();
}

/// A probe comes again and again: none may wait for a writer that hangs.
#[test]
fn a_writer_that_hangs_is_told_to_who_asks_whether_the_server_is_ready() {
    let broken = Broken::with_config("[server]\nstuck_after_secs = 1\n");
    let stage = &broken.stage;
    stage.client.get("/ready").expect(200);
    broken.fault.set(Number::SyncDelayMs, -1);
    let client = stage.client.clone();
    let body = json!({"provider": "demo", "cwd": stage.cwd, "wait": false});
    let write = move || drop(client.post("/v1/sessions", &body).expect(200));
    let writing = thread::spawn("writing", write).unwrap();
    wait::until(SOON, "the writer hangs", || {
        let threads = stage.get("/v1/diagnostics")["threads"].as_array().unwrap().clone();
        let is_stuck = |thread: &Value| thread["name"] == "writer" && thread["stuck"] == true;
        threads.iter().any(is_stuck).then_some(())
    });
    check_told(&stage.client.get("/ready"), 503, "capacity", "the writer");
    broken.fault.set(Number::SyncDelayMs, 0);
    writing.join();
    wait::until(SOON, "it is ready again", || {
        (stage.client.get("/ready").status == 200).then_some(())
    });
}

/// The stream of one who reads slowly is no matter of the disk: a turn on a slow disk is told whole.
#[test]
fn a_turn_on_a_slow_disk_is_told_whole() {
    let broken = Broken::new();
    let stage: &Stage = &broken.stage;
    let session_id = stage.session();
    broken.fault.set(Number::SyncDelayMs, 150);
    let mut stream = stage.stream(&session_id, "?control=false&until=turn.completed");
    let turn_id = stage.start(&session_id, "flood 2000 100");
    let frames = stream.rest(Duration::from_secs(60));
    broken.fault.set(Number::SyncDelayMs, 0);
    let told: Vec<Record> = frames.iter().map(|frame| frame.record()).collect();
    assert!(told.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1), "a hole or a double");
    let deltas = told.iter().filter(|record| record.kind == "item.delta");
    let said: String = deltas.map(|record| text(&record.payload, "delta")).collect();
    assert!(said == flood_text(2000, 100), "the stream tells another text: {said}");
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(turn["status"], "completed");
    assert!(turn["assistant_text"] == said, "the record has another text: {turn}");
}
