//! The end of the server has a bound, whatever hangs in it or below it.

use crate::stage::{SOON, Stage, text};
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::server::program;
use gooselake_harness::{proof, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::process::Command;
use std::time::{Duration, Instant};

/// The grace of the stories, and what a busy machine may add.
const CONFIG: &str = "[server]\nshutdown_grace_secs = 2\n[keeper]\ngrace_ms = 500\n";
const AT_MOST: Duration = Duration::from_secs(8);

/// Starts the server again, with a thread of a process that hangs on this log.
pub(crate) fn hang_on_log(stage: &mut Stage, log: &str) {
    stage.server.kill9();
    // The next server opens the log to write on, which waits for a reader that never comes.
    fs::remove_file(log).unwrap();
    assert!(Command::new("mkfifo").arg(log).status().unwrap().success());
    assert!(fs::metadata(log).unwrap().file_type().is_fifo());
    stage.restart();
    let path = format!("/proc/{}/task", stage.server.pid());
    // It opens the log first of all.
    wait::until(SOON, "the process has its thread", || {
        fs::read_dir(&path).unwrap().flatten().find_map(|task| {
            let name = fs::read_to_string(task.path().join("comm")).ok()?;
            name.starts_with("process-").then_some(())
        })
    });
}

#[test]
fn a_thread_that_hangs_on_its_disk_does_not_hold_up_the_end() {
    let mut stage = Stage::with_config(CONFIG);
    let body = json!({"command": "while sleep 0.05; do echo more; done", "cwd": stage.cwd});
    let record = stage.client.post("/v1/processes", &body).expect(200).json();
    let session_id = stage.session();
    let log = text(&record, "stdout_path");
    hang_on_log(&mut stage, &log);
    let turn = stage.run(&session_id, "say everybody else goes on");
    assert_eq!(turn["status"], "completed");
    let begun = Instant::now();
    assert_eq!(stage.server.terminate(), Some(0), "{}", stage.server.stderr_text());
    assert!(begun.elapsed() < AT_MOST, "it took {:?}", begun.elapsed());
    // Nothing of what was committed is lost, and the data folder is free.
    fs::remove_file(&log).unwrap();
    stage.restart();
    assert_eq!(stage.ended(&session_id, &text(&turn, "id"))["status"], "completed");
}

#[test]
fn a_keeper_that_does_not_answer_does_not_hold_up_the_end() {
    let mut stage = Stage::with_config(CONFIG);
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "slow 100000 5");
    stage.event(&session_id, "item.delta", 0);
    let keepers = proc::keepers_of(stage.server.data_dir());
    keepers.iter().for_each(|keeper| proc::signal(*keeper, Signal::STOP).unwrap());
    let begun = Instant::now();
    assert_eq!(stage.server.interrupt(), Some(0), "{}", stage.server.stderr_text());
    assert!(begun.elapsed() < AT_MOST, "it took {:?}", begun.elapsed());
    keepers.iter().for_each(|keeper| proc::signal(*keeper, Signal::CONT).unwrap());
    stage.restart();
    assert!(!stage.ended(&session_id, &turn_id)["completed_at"].is_null());
}

#[test]
fn a_thread_that_hangs_is_told_of_until_it_goes_on() {
    let mut stage = Stage::with_config("[server]\nstuck_after_secs = 1\n");
    let body = json!({"command": "while sleep 0.05; do echo more; done", "cwd": stage.cwd});
    let record = stage.client.post("/v1/processes", &body).expect(200).json();
    let log = text(&record, "stdout_path");
    stage.server.kill9();
    // The next server opens the log to write on, which waits for a reader.
    fs::remove_file(&log).unwrap();
    assert!(Command::new("mkfifo").arg(&log).status().unwrap().success());
    stage.restart();
    let standing = |stage: &Stage| {
        let diagnostics = stage.client.get("/v1/diagnostics").expect(200).json();
        let threads = diagnostics["threads"].as_array().unwrap().clone();
        let of_process = |thread: &Value| thread["name"].as_str().unwrap().starts_with("process-");
        let found = threads.iter().find(|thread| of_process(thread)).cloned();
        assert!(threads.iter().any(|thread| thread["name"] == "writer"), "{threads:?}");
        assert!(threads.iter().all(|thread| thread["bound_ms"] == 1000), "{threads:?}");
        found
    };
    let is_stuck =
        |stage: &Stage, wanted: bool| standing(stage).filter(|thread| thread["stuck"] == wanted);
    let hung = wait::until(SOON, "the thread is told of", || is_stuck(&stage, true));
    assert!(hung["busy_since"].is_i64(), "{hung}");
    let name = text(&hung, "name");
    let told = format!("the thread {name} has been at one piece of work for 1 s");
    wait::until(SOON, "the log has it", || {
        stage.server.stderr_text().contains(&told).then_some(())
    });
    let metrics = stage.client.get("/metrics").expect(200).text();
    let value = |name: &str| -> Option<f64> {
        metrics.lines().find_map(|line| line.strip_prefix(name)?.parse().ok())
    };
    for name in ["gooselake_threads_stuck ", "gooselake_thread_busy_seconds_max "] {
        assert!(value(name).is_some_and(|value| value >= 1.0), "{name}: {metrics}");
    }
    // A reader comes, and the thread goes on.
    let reader = fs::File::open(&log).unwrap();
    wait::until(SOON, "it goes on", || is_stuck(&stage, false));
    let told = format!("the thread {name} goes on after");
    wait::until(SOON, "the log has it", || {
        stage.server.stderr_text().contains(&told).then_some(())
    });
    wait::until(SOON, "none is stuck", || {
        let metrics = stage.client.get("/metrics").expect(200).text();
        metrics.contains("\ngooselake_threads_stuck 0\n").then_some(())
    });
    drop(reader);
}

/// It does not heed the end of its stdin, which is all that it is told when it is to sleep.
#[test]
fn an_agent_that_is_falling_asleep_ends_with_the_server() {
    let script = concat!(
        r#"read l; printf '%s\n' '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"#,
        r#""agentCapabilities":{"sessionCapabilities":{"resume":{}}}}}'; "#,
        r#"read l; printf '%s\n' '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s"}}'; "#,
        "cat > /dev/null; touch closed; exec sleep 1000",
    );
    let arguments = json!(["-c", script]);
    let mut stage = Stage::with_config(&format!(
        "{CONFIG}[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\nidle_sleep_secs = 1\n"
    ));
    let body = json!({"provider": "acp", "cwd": stage.cwd});
    stage.client.post("/v1/sessions", &body).expect(200);
    let closed = stage.cwd.join("closed");
    wait::until(SOON, "it is told to sleep", || closed.exists().then_some(()));
    assert_eq!(stage.server.interrupt(), Some(0));
    proof::nothing_runs_in(&stage.cwd);
}

/// The next server meets an agent that the last one had told to sleep, and that takes its time: a turn is for the agent
/// that comes after it.
#[test]
fn a_turn_that_meets_an_agent_falling_asleep_is_told_to_the_next_one() {
    let demo = program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let script = "\"$0\"; touch closed; until test -e go; do sleep 0.02; done";
    let arguments = json!(["-c", script, demo.to_str().unwrap()]);
    let mut stage = Stage::with_config(&format!(
        "{CONFIG}[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\nidle_sleep_secs = 1\n"
    ));
    let body = json!({"provider": "acp", "cwd": stage.cwd});
    let session = stage.client.post("/v1/sessions", &body).expect(200).json();
    let session_id = session["id"].as_str().unwrap().to_owned();
    let closed = stage.cwd.join("closed");
    wait::until(SOON, "it is told to sleep", || closed.exists().then_some(()));
    stage.server.kill9();
    stage.restart();
    let turn_id = stage.start(&session_id, "say heard");
    std::fs::write(stage.cwd.join("go"), "").unwrap();
    assert_eq!(stage.ended(&session_id, &turn_id)["assistant_text"], "heard");
    let count = |kind: &str| stage.events(&session_id).iter().filter(|e| e.kind == kind).count();
    assert_eq!((count("agent.slept"), count("agent.exited")), (1, 0));
}
