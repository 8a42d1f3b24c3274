//! Commands that do not end by themselves, and what is left of them: nothing.

use super::{id, kinds, marked, nothing_lives, status};
use crate::stage::{SOON, Stage, text};
use gooselake_harness::proc::{self, Signal};
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn a_kill_ends_the_whole_tree_and_says_who_did_it() {
    let stage = Stage::new();
    // A child, a grandchild in a session of its own, and one that was forked twice.
    let process_id = stage.shell(
        "sleep 1000 & setsid sh -c 'sleep 1000 & wait' & (setsid sleep 1000 &) & echo up; wait",
    );
    stage.await_line(&process_id, "up");
    gooselake_harness::wait::until(SOON, "the tree is there", || {
        (marked(&process_id).len() >= 6).then_some(())
    });
    let keepers = proc::keepers_of(stage.server.data_dir());
    let mut tree = marked(&process_id);
    tree.retain(|pid| !keepers.contains(pid));
    let record = stage.kill_process(&process_id, &json!({"reason": "enough"}));
    assert!(tree.len() >= 5 && tree.iter().all(|pid| !proc::alive(*pid)), "{tree:?}");
    nothing_lives(&process_id);
    assert_eq!(status(&record), "killed");
    assert_eq!(
        (&record["killed_by"], &record["kill_reason"]),
        (&json!("request"), &json!("enough"))
    );
    assert_eq!((&record["signal"], &record["exit_code"]), (&json!(15), &json!(null)));
    let wanted = ["process.started", "process.kill_requested", "process.killed"];
    assert_eq!(kinds(&stage.process_events(&process_id)), wanted);
    // Once more changes nothing.
    assert_eq!(stage.kill_process(&process_id, &json!({"signal": "KILL"})), record);
}

#[test]
fn one_that_ignores_term_is_killed_after_the_grace() {
    let stage = Stage::new();
    let process_id = stage.shell("trap '' TERM; echo up; while :; do sleep 1000; done");
    stage.await_line(&process_id, "up");
    let begun = Instant::now();
    let path = format!("/v1/processes/{process_id}/kill");
    let answer =
        stage.client.post(&path, &json!({"kill_grace_ms": 500, "wait": false})).expect(200);
    assert_eq!(status(&answer.json()), "running");
    let record = stage.process_end(&process_id);
    assert!(begun.elapsed() >= Duration::from_millis(500));
    assert_eq!((status(&record), &record["signal"]), ("killed", &json!(9)));
    nothing_lives(&process_id);
}

#[test]
fn a_second_kill_can_cut_the_grace_short() {
    let stage = Stage::new();
    let process_id = stage.shell("trap '' TERM; echo up; while :; do sleep 1000; done");
    stage.await_line(&process_id, "up");
    let path = format!("/v1/processes/{process_id}/kill?wait=false");
    stage.client.post(&path, &json!({"kill_grace_ms": 3_600_000})).expect(200);
    let record = stage.kill_process(&process_id, &json!({"signal": "SIGKILL"}));
    assert_eq!((status(&record), &record["signal"]), ("killed", &json!(9)));
    nothing_lives(&process_id);
}

#[test]
fn the_first_signal_can_be_chosen() {
    let stage = Stage::new();
    let command =
        "trap 'echo caught; exit 7' INT; trap '' TERM; echo up; while :; do sleep 0.05; done";
    let process_id = stage.shell(command);
    stage.await_line(&process_id, "up");
    let record = stage.kill_process(&process_id, &json!({"signal": "INT"}));
    assert_eq!((status(&record), &record["exit_code"]), ("killed", &json!(7)));
    stage.await_line(&process_id, "caught");
    let path = format!("/v1/processes/{process_id}/kill");
    stage.client.post(&path, &json!({"signal": "STOP"})).expect(400);
}

#[test]
fn a_timeout_ends_the_tree_and_is_told() {
    let stage = Stage::new();
    let process_id = id(&stage.start_process(&json!({
        "command": "(sleep 1000; echo late) & echo early; sleep 1000", "timeout_ms": 700,
    })));
    let record = stage.process_end(&process_id);
    assert_eq!((status(&record), &record["killed_by"]), ("timed_out", &json!("timeout")));
    assert_eq!(std::fs::read_to_string(text(&record, "stdout_path")).unwrap(), "early\n");
    let wanted = ["process.started", "process.kill_requested", "process.timed_out"];
    assert_eq!(kinds(&stage.process_events(&process_id)), wanted);
    nothing_lives(&process_id);
}

#[test]
fn what_a_command_leaves_in_the_background_ends_with_it() {
    let stage = Stage::new();
    let process_id = stage.shell("setsid sleep 1000 & echo done");
    let record = stage.process_end(&process_id);
    assert_eq!((status(&record), &record["exit_code"]), ("completed", &json!(0)));
    nothing_lives(&process_id);
}

#[test]
fn one_that_closes_its_pipes_runs_on_and_can_be_ended() {
    let stage = Stage::new();
    let process_id = stage.shell("echo up; exec sleep 1000 <&- >&- 2>&-");
    stage.await_line(&process_id, "up");
    assert_eq!(status(&stage.process(&process_id)), "running");
    let record = stage.kill_process(&process_id, &json!({}));
    assert_eq!((status(&record), &record["stdout_bytes"]), ("killed", &json!(3)));
    nothing_lives(&process_id);
}

#[test]
fn a_flood_can_be_ended_and_delays_nobody() {
    let stage = Stage::new();
    let process_id = stage.shell("exec yes");
    let path = format!("/v1/processes/{process_id}/events/stream?kinds=process.output&limit=3");
    stage.client.stream(&path, &[]).rest(SOON);
    let record = stage.kill_process(&process_id, &json!({}));
    assert_eq!(status(&record), "killed");
    let log = std::fs::read(text(&record, "stdout_path")).unwrap();
    assert_eq!(log.len() as u64, record["stdout_bytes"].as_u64().unwrap());
    assert!(log.chunks(2).all(|line| line == b"y\n" || line == b"y"));
    nothing_lives(&process_id);
}

#[test]
fn one_whose_keeper_is_killed_has_failed_and_nothing_of_it_lives() {
    let stage = Stage::new();
    let process_id = stage.shell("sleep 1000 & echo up; wait");
    stage.await_line(&process_id, "up");
    let keepers = proc::keepers_of(stage.server.data_dir());
    proc::signal(keepers[0], Signal::KILL).unwrap();
    let record = stage.process_end(&process_id);
    assert_eq!((status(&record), &record["killed_by"]), ("failed", &json!(null)));
    assert!(text(&record, "error").contains("keeper"), "{record}");
    nothing_lives(&process_id);
}

/// A kill, a time limit and the close of the session: each ends one, with what it had written.
#[test]
fn one_whose_keeper_does_not_answer_ends_a_little_after_its_grace() {
    let stage = Stage::new();
    let session_id = stage.session();
    let of = |more: serde_json::Value| {
        let mut body = json!({"command": "echo up; sleep 1000 & wait", "kill_grace_ms": 300});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        id(&stage.start_process(&body))
    };
    let killed = of(json!({}));
    let owned = of(json!({"session_id": session_id}));
    let limited = of(json!({"timeout_ms": 2000}));
    for process_id in [&killed, &owned, &limited] {
        stage.await_line(process_id, "up");
        let is_its = |keeper: &&u32| proc::arguments(**keeper)[1].contains(process_id.as_str());
        let keepers = proc::keepers_of(stage.server.data_dir());
        proc::signal(*keepers.iter().find(is_its).unwrap(), Signal::STOP).unwrap();
    }
    let path = format!("/v1/processes/{killed}/kill");
    stage.client.post(&path, &json!({"wait": false})).expect(200);
    stage.close(&session_id);
    for (process_id, end, killed_by) in [
        (&killed, "killed", "request"),
        (&owned, "killed", "session"),
        (&limited, "timed_out", "timeout"),
    ] {
        let record = stage.process_end(process_id);
        assert_eq!((status(&record), &record["killed_by"]), (end, &json!(killed_by)));
        assert!(text(&record, "error").contains("keeper did not answer"), "{record}");
        assert_eq!(std::fs::read_to_string(text(&record, "stdout_path")).unwrap(), "up\n");
        nothing_lives(process_id);
        let last = format!("process.{end}");
        let wanted = ["process.started", "process.kill_requested", last.as_str()];
        assert_eq!(kinds(&stage.process_events(process_id)), wanted);
    }
}

#[test]
fn the_processes_of_a_session_end_with_it() {
    let stage = Stage::new();
    let session_id = stage.session();
    let of = |command: &str| {
        id(&stage.start_process(&json!({"command": command, "session_id": session_id})))
    };
    let (owned, free) = (of("sleep 1000"), stage.shell("sleep 1000"));
    stage.close(&session_id);
    let record = stage.process(&owned);
    assert_eq!((status(&record), &record["killed_by"]), ("killed", &json!("session")));
    nothing_lives(&owned);
    assert_eq!(status(&stage.process(&free)), "running");
    let late = json!({"command": "true", "session_id": session_id});
    let told = stage.client.post("/v1/processes", &late).expect(409).json();
    assert_eq!(told["code"], "session_closed");
}
