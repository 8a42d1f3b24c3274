//! Servers that die or go while processes run: the same processes go on, and nothing of their output is lost.

use super::{id, kinds, marked, nothing_lives, status, told};
use crate::stage::{JSON, SOON, Stage, list, text};
use gooselake_harness::proc::{self, Signal};
use serde_json::{Value, json};
use std::fs;

fn pid(record: &Value) -> u32 {
    u32::try_from(record["process"]["pid"].as_u64().unwrap()).unwrap()
}

/// The events tell each byte of the log once, in order.
fn is_told_whole(stage: &Stage, record: &Value) {
    let events = stage.process_events(&id(record));
    let mut at = 0;
    for event in &events {
        let payload = &event.json["payload"];
        if event.kind == "process.output" && payload["stream"] == "stdout" {
            assert_eq!(payload["offset"].as_u64(), Some(at), "{payload}");
            at += payload["bytes_seen"].as_u64().unwrap();
        }
    }
    assert_eq!(Some(at), record["stdout_bytes"].as_u64());
}

#[test]
fn thirty_processes_outlive_a_killed_server() {
    let mut stage = Stage::new();
    let started: Vec<Value> = (0..30)
        .map(|n| {
            let command = format!(
                "echo start {n}; until [ -e go ]; do sleep 0.1; done; echo end {n}; exit {n}"
            );
            stage.start_process(&json!({"command": command, "cwd": stage.cwd}))
        })
        .collect();
    stage.server.kill9();
    for record in &started {
        assert!(proc::alive(pid(record)), "{record}");
    }
    stage.restart();
    assert_eq!(stage.get("/v1/diagnostics/recovery")["startup"]["processes_adopted"], 30);
    for record in &started {
        let now = stage.process(&id(record));
        assert_eq!((pid(&now), status(&now)), (pid(record), "running"));
        assert!(proc::alive(pid(record)));
    }
    fs::write(stage.cwd.join("go"), "").unwrap();
    for (n, record) in started.iter().enumerate() {
        let end = stage.process_end(&id(record));
        assert_eq!((pid(&end), &end["exit_code"]), (pid(record), &json!(n)));
        let log = fs::read_to_string(text(&end, "stdout_path")).unwrap();
        assert_eq!(log, format!("start {n}\nend {n}\n"));
        let events = stage.process_events(&id(record));
        assert_eq!(told(&events, "stdout"), log);
        let last = if n == 0 { "process.completed" } else { "process.failed" };
        assert_eq!(kinds(&events), ["process.started", "process.adopted", last]);
    }
}

#[test]
fn a_flood_over_several_killed_servers_is_kept_byte_for_byte() {
    let mut stage = Stage::new();
    let process_id =
        stage.shell("for n in 1 2 3 4 5 6 7 8; do seq 300000; sleep 0.3; done; echo done >&2");
    for round in 1..=4 {
        let path =
            format!("/v1/processes/{process_id}/events/stream?kinds=process.output&limit={round}");
        stage.client.stream(&path, &[]).rest(SOON);
        stage.server.kill9();
        stage.restart();
    }
    let record = stage.process_end(&process_id);
    assert_eq!((status(&record), &record["exit_code"]), ("completed", &json!(0)));
    let once: String = (1..=300_000).map(|n| format!("{n}\n")).collect();
    let log = fs::read_to_string(text(&record, "stdout_path")).unwrap();
    assert!(log == once.repeat(8), "{} bytes of {}", log.len(), once.len() * 8);
    assert_eq!(fs::read_to_string(text(&record, "stderr_path")).unwrap(), "done\n");
    is_told_whole(&stage, &record);
}

#[test]
fn an_end_while_no_server_was_there_is_known() {
    let mut stage = Stage::new();
    let started = stage.start_process(&json!({
        "command": "echo up; until [ -e go ]; do sleep 0.05; done; seq 1000; exit 5", "cwd": stage.cwd,
    }));
    stage.await_line(&id(&started), "up");
    stage.server.kill9();
    fs::write(stage.cwd.join("go"), "").unwrap();
    proc::wait_gone(&marked(&id(&started)), SOON).unwrap();
    stage.restart();
    let record = stage.process_end(&id(&started));
    assert_eq!((status(&record), &record["exit_code"]), ("failed", &json!(5)));
    assert_eq!(fs::read_to_string(text(&record, "stdout_path")).unwrap().lines().count(), 1001);
    is_told_whole(&stage, &record);
    let wanted = ["process.started", "process.adopted", "process.failed"];
    assert_eq!(kinds(&stage.process_events(&id(&started))), wanted);
}

#[test]
fn a_keeper_that_was_killed_while_no_server_was_there_is_found_out() {
    let mut stage = Stage::new();
    let process_id = stage.shell("sleep 1000 & echo up; wait");
    stage.await_line(&process_id, "up");
    stage.server.kill9();
    for keeper in proc::keepers_of(stage.server.data_dir()) {
        proc::signal(keeper, Signal::KILL).unwrap();
    }
    stage.restart();
    let record = stage.process_end(&process_id);
    assert_eq!(status(&record), "failed");
    assert!(text(&record, "error").contains("keeper"), "{record}");
    nothing_lives(&process_id);
}

#[test]
fn a_terminated_server_leaves_its_processes_running() {
    let mut stage = Stage::new();
    let started = stage.start_process(&json!({
        "args": ["cat"], "stdin_open": true, "timeout_ms": 0, "cwd": stage.cwd,
    }));
    let stdin = format!("/v1/processes/{}/stdin", id(&started));
    stage.client.post(&stdin, &json!({"text": "before\n"})).expect(200);
    stage.await_line(&id(&started), "before");
    assert_eq!(stage.server.terminate(), Some(0));
    assert!(proc::alive(pid(&started)));
    stage.restart();
    stage.client.post(&stdin, &json!({"text": "after\n", "close": true})).expect(200);
    let record = stage.process_end(&id(&started));
    assert_eq!((pid(&record), status(&record)), (pid(&started), "completed"));
    assert_eq!(fs::read_to_string(text(&record, "stdout_path")).unwrap(), "before\nafter\n");
}

#[test]
fn a_kill_and_a_time_limit_outlive_the_server() {
    let mut stage = Stage::new();
    let body = json!({"command": "trap '' TERM; echo up; while :; do sleep 0.2; done"});
    let asked = id(&stage.start_process(&body));
    stage.await_line(&asked, "up");
    let limited = id(&stage.start_process(&json!({"command": "sleep 1000", "timeout_ms": 1500})));
    let path = format!("/v1/processes/{asked}/kill");
    stage.client.post(&path, &json!({"wait": false, "kill_grace_ms": 300})).expect(200);
    stage.server.kill9();
    stage.restart();
    assert_eq!(status(&stage.process_end(&asked)), "killed");
    assert_eq!(status(&stage.process_end(&limited)), "timed_out");
    nothing_lives(&asked);
    nothing_lives(&limited);
}

#[test]
fn a_kill_in_the_middle_of_many_starts_runs_each_recorded_process_once() {
    for starts_seen in [1, 4, 9] {
        let mut stage = Stage::new();
        let mut stream = stage.client.stream("/v1/events/stream?kinds=process.started", &[]);
        stream.until("stream.caught_up", SOON);
        let clients: Vec<_> = (0..12)
            .map(|n| {
                let (client, cwd) = (crate::contract::client(&stage.server), stage.cwd.clone());
                let body = json!({"command": format!("echo {n} >> marks"), "cwd": cwd}).to_string();
                let post = move || {
                    // The server may die before it answers.
                    drop(client.try_request("POST", "/v1/processes", &[JSON], body.as_bytes()));
                };
                gooselake_harness::thread::spawn(format!("client-{n}"), post).unwrap()
            })
            .collect();
        for _ in 0..starts_seen {
            stream.until("process.started", SOON);
        }
        stage.server.kill9();
        clients.into_iter().for_each(gooselake_harness::thread::Thread::join);
        stage.restart();
        let records = list(stage.get("/v1/processes"));
        assert!(records.len() >= starts_seen, "{records:?}");
        let mut wanted = Vec::new();
        for record in &records {
            let end = stage.process_end(&text(record, "process_id"));
            assert_eq!(status(&end), "completed", "{end}");
            let command = text(&end["process"]["command"], "command");
            wanted.push(command.split(' ').nth(1).unwrap().to_owned());
        }
        let marks = fs::read_to_string(stage.cwd.join("marks")).unwrap();
        let mut marks: Vec<&str> = marks.lines().collect();
        marks.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(marks, wanted);
    }
}
