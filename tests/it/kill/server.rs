//! Starts and ends of the server itself: TERM, a kill in the middle of the end, two servers, locks.

use super::follower::Follower;
use super::scene::{SOON, Scene, agent_pid, names_in};
use gooselake_harness::demo::slow_text;
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::proof;
use gooselake_harness::server::program;
use serde_json::json;
use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

#[test]
fn a_terminated_server_leaves_busy_agents_at_work_and_takes_them_up_again() {
    let mut scene = Scene::new();
    let (busy, idle) = (scene.session("busy"), scene.session("idle"));
    let mut follower = Follower::of_session(&busy);
    follower.attach(&scene);
    let turn = scene.turn(&busy, "slow 60 10");
    follower.until("its first word", |event| event.kind == "item.delta");
    let pid = agent_pid(&follower.seen);
    assert_eq!(scene.server.terminate(), Some(0));
    follower.drain();
    assert!(proc::alive(pid), "a busy agent was ended");
    proof::nothing_runs_in(&scene.folder("idle"));
    scene.server.restart();
    let record = scene.ended(&busy, &turn, "completed");
    assert_eq!(record["assistant_text"], slow_text(60));
    assert_eq!(scene.record(&idle)["status"], "ready");
    let woken = scene.turn(&idle, "say again");
    scene.ended(&idle, &woken, "completed");
    follower.attach(&scene);
    follower.until("the end", |event| event.kind == "turn.completed");
    follower.prove(&scene);
    let events = scene.prove(&busy);
    assert_eq!(agent_pid(&events), pid);
    scene.prove(&idle);
    scene.finish();
}

#[test]
fn a_kill_in_the_middle_of_the_shutdown_changes_nothing() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut scene = Scene::new();
        let (busy, idle) = (scene.session("busy"), scene.session("idle"));
        let turn = scene.turn(&busy, "slow 60 10\nrun echo once >> marks");
        let mut stream = scene.client().stream(&format!("/v1/sessions/{busy}/events/stream"), &[]);
        stream.until("item.delta", SOON);
        proc::signal(scene.server.pid(), signal).expect("it runs");
        stream.until("stream.closing", SOON);
        scene.server.kill9();
        scene.server.restart();
        if signal == Signal::TERM {
            scene.ended(&busy, &turn, "completed");
            assert_eq!(scene.marks("busy"), ["once"]);
        } else {
            // Whether the agent was told to end before the kill is chance; a hang is not allowed.
            let record = scene.get(&format!("/v1/sessions/{busy}/turns/{turn}?wait_ms=25000"));
            assert!(record["completed_at"].is_i64(), "{record}");
        }
        for session in [&busy, &idle] {
            let next = scene.turn(session, "run echo next >> marks");
            let path = format!("/v1/sessions/{session}/turns/{next}?wait_ms=25000");
            let record = scene.get(&path);
            assert!(record["completed_at"].is_i64(), "{record}");
            let again = scene.turn(session, "say still here");
            scene.ended(session, &again, "completed");
            scene.prove(session);
        }
        scene.finish();
    }
}

#[test]
fn after_ctrl_c_the_queues_go_on_at_the_next_start() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..16).map(|number| format!("stopped-{number}")).collect();
    let started: Vec<(String, String, String)> = names
        .iter()
        .map(|name| {
            let session = scene.session_with(name, json!({"wait": false}));
            let turn = scene.turn(&session, "slow 100000 20");
            let queued = scene.queued(&session, "run echo once >> marks");
            (session, turn, queued)
        })
        .collect();
    for (session, ..) in &started {
        let mut follower = Follower::of_session(session);
        follower.attach(&scene);
        follower.until("the agent's first word", |event| event.kind == "item.delta");
    }
    assert_eq!(scene.server.interrupt(), Some(0));
    proof::nothing_runs_in(scene.server.folder());
    scene.server.restart();
    for ((session, turn, queued), name) in started.iter().zip(&names) {
        scene.ended(session, turn, "interrupted");
        scene.ended(session, queued, "completed");
        assert_eq!(scene.marks(name), ["once"]);
        scene.prove(session);
    }
    scene.finish();
}

#[test]
fn a_second_server_on_the_same_data_is_refused_and_changes_nothing() {
    let scene = Scene::new();
    let session = scene.session("first");
    let turn = scene.turn(&session, "slow 40 10\nrun echo once >> marks");
    let names = names_in(scene.server.data_dir());
    let (status, error) = run_second(scene.server.data_dir());
    assert_eq!(status, Some(1), "{error}");
    assert!(error.contains("another server runs on the data folder"), "{error}");
    assert_eq!(names_in(scene.server.data_dir()), names);
    assert!(scene.server.is_alive());
    scene.ended(&session, &turn, "completed");
    assert_eq!(scene.marks("first"), ["once"]);
    let starts = scene.pages("/v1/system/events");
    assert_eq!(starts.iter().filter(|event| event.kind == "runtime.started").count(), 1);
    scene.prove(&session);
    scene.finish();
}

#[test]
fn a_lock_that_a_dead_server_left_does_not_stop_the_next() {
    let mut scene = Scene::new();
    let session = scene.session("lock");
    scene.server.kill9();
    let lock = scene.server.data_dir().join("lock");
    assert!(lock.exists());
    // Whatever stands in it is of no meaning: the lock is the kernel's.
    fs::write(&lock, "12345\n").expect("the folder is ours");
    scene.server.restart();
    let turn = scene.turn(&session, "say here");
    scene.ended(&session, &turn, "completed");
    scene.prove(&session);
    scene.finish();
}

/// Starts one more server as the harness would, but without its care for the keepers of the folder:
/// those are the first one's. Gives its exit code and stderr.
fn run_second(data_dir: &Path) -> (Option<i32>, String) {
    let program = program("GG_TEST_SERVER", "gg-runtime-server").expect("it is built");
    let mut second = Command::new(program)
        .arg("--data-dir")
        .arg(data_dir)
        .args(["--bind", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    if proc::wait_gone(&[second.id()], Duration::from_secs(10)).is_err() {
        // The answer is then no exit code.
        drop(second.kill());
    }
    let mut error = String::new();
    let read = second.stderr.take().expect("it is piped").read_to_string(&mut error);
    read.expect("its last words are text");
    (second.wait().expect("our child").code(), error)
}
