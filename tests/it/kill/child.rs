//! Agents, keepers and terminals that die, end or begin while the server is away.

use super::follower::Follower;
use super::scene::{SOON, Scene, agent_pid, names_in, text};
use gooselake_harness::demo::{OUTCOME, flood_text, slow_text};
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::wait;
use serde_json::json;
use std::time::Duration;

const QUIET: Duration = Duration::from_millis(300);

/// One look after a folder that is there for some milliseconds only.
const LOOK: Duration = Duration::from_millis(4);

/// Kills all keepers and all that is below them, as a machine that goes down does.
fn kill_all(scene: &Scene) {
    let mut all: Vec<u32> = proc::keepers_of(scene.server.data_dir());
    let below: Vec<u32> = all.iter().flat_map(|keeper| proc::descendants(*keeper)).collect();
    all.extend(below);
    for pid in &all {
        // Some are gone with those before.
        drop(proc::signal(*pid, Signal::KILL));
    }
    proc::wait_gone(&all, Duration::from_secs(10)).expect("nothing outlives KILL");
}

fn kill9(pid: u32) {
    proc::signal(pid, Signal::KILL).expect("it runs");
    proc::wait_gone(&[pid], Duration::from_secs(10)).expect("nothing outlives KILL");
}

#[test]
fn an_agent_that_was_still_opening_opens() {
    let mut scene = Scene::new();
    let late = json!({"wait": false, "env": {"GG_DEMO_DELAY_MS": "300"}});
    // From the moment of the answer to the middle of the handshake.
    for round in 0..6 {
        let name = format!("opening-{round}");
        let session = scene.session_with(&name, late.clone());
        let turn = (round % 2 == 0).then(|| scene.turn(&session, "run echo once >> marks"));
        if round > 2 {
            let mut follower = Follower::of_session(&session);
            follower.attach(&scene);
            follower.until("the agent's start", |event| event.kind == "agent.started");
        }
        scene.crash();
        let turn = turn.unwrap_or_else(|| {
            let mut follower = Follower::of_session(&session);
            follower.attach(&scene);
            // No turn pushes it: the session gets ready by itself.
            follower.until("the session", |event| {
                event.kind == "session.updated" && event.payload["session"]["status"] == "ready"
            });
            scene.turn(&session, "run echo once >> marks")
        });
        scene.ended(&session, &turn, "completed");
        assert_eq!(scene.marks(&name), ["once"]);
        scene.prove(&session);
    }
    scene.finish();
}

#[test]
fn an_agent_that_was_written_down_and_never_started_is_started() {
    let mut scene = Scene::new();
    let late = json!({"wait": false, "env": {"GG_DEMO_DELAY_MS": "300"}});
    let session = scene.session_with("never", late);
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    follower.until("the agent's start", |event| event.kind == "agent.started");
    scene.server.kill9();
    follower.drain();
    kill_all(&scene);
    let keepers = scene.server.data_dir().join("keepers");
    for name in names_in(&keepers) {
        std::fs::remove_dir_all(keepers.join(name)).expect("the folder is ours");
    }
    scene.server.restart();
    follower.attach(&scene);
    follower.until("the session", |event| {
        event.kind == "session.updated" && event.payload["session"]["status"] == "ready"
    });
    let turn = scene.turn(&session, "run echo once >> marks");
    scene.ended(&session, &turn, "completed");
    scene.prove(&session);
    scene.finish();
}

#[test]
fn an_agent_that_died_while_the_server_was_away_fails_its_turn_with_what_it_said() {
    let mut scene = Scene::new();
    let session = scene.session("dies");
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    let turn = scene.turn(&session, "slow 20 10\ncrash");
    let queued = scene.queued(&session, "run echo once >> marks");
    follower.until("its first word", |event| event.kind == "item.delta");
    let pid = agent_pid(&follower.seen);
    scene.server.kill9();
    follower.drain();
    proc::wait_gone(&[pid], Duration::from_secs(20)).expect("the agent crashes");
    scene.server.restart();
    let record = scene.ended(&session, &turn, "failed");
    assert_eq!(record["assistant_text"], slow_text(20));
    assert_eq!(record["error"]["code"], "agent_exited", "{record}");
    scene.ended(&session, &queued, "completed");
    assert_eq!(scene.marks("dies"), ["once"]);
    follower.attach(&scene);
    follower.until("the queued turn's end", |event| event.kind == "turn.completed");
    follower.prove(&scene);
    scene.prove(&session);
    scene.finish();
}

#[test]
fn what_agents_finished_while_the_server_was_away_is_told_whole() {
    let mut scene = Scene::new();
    let names = ["away-0", "away-1", "away-2"];
    let (count, bytes) = (20_000, 60);
    let prompt = format!("flood {count} {bytes}\nrun touch done");
    let started: Vec<(String, String)> = names
        .iter()
        .map(|name| {
            let session = scene.session(name);
            let turn = scene.turn(&session, &prompt);
            (session, turn)
        })
        .collect();
    // An accepted turn may be on its way still; each agent must have it before the server goes.
    for (session, _) in &started {
        let path = format!("/v1/sessions/{session}/events?kinds=item.delta&limit=1");
        let begun = || scene.get(&path).as_array().is_some_and(|events| !events.is_empty());
        wait::until(SOON, "the agent begins", || begun().then_some(()));
    }
    scene.server.kill9();
    names.iter().for_each(|name| scene.await_file(name, "done"));
    scene.server.restart();
    for (session, turn) in &started {
        let record = scene.ended(session, turn, "completed");
        let said = text(&record, "assistant_text");
        let whole = format!("{}\n\n{OUTCOME}", flood_text(count, bytes));
        assert!(said == whole, "{session} said something else");
        scene.prove(session);
    }
    scene.finish();
}

#[test]
fn a_terminal_runs_once_and_is_heard_to_its_end() {
    let mut rng = Rng::from_environment();
    let mut scene = Scene::new();
    for round in 0..5 {
        let name = format!("terminal-{round}");
        let session = scene.session(&name);
        let mut follower = Follower::of_session(&session);
        follower.attach(&scene);
        let command = "echo once >> marks; until test -e go; do sleep 0.02; done";
        let turn = scene.turn(&session, &format!("terminal {command}; echo heard"));
        follower.read(3 + rng.below(8) as usize, QUIET);
        scene.server.kill9();
        follower.drain();
        if round % 2 == 0 {
            std::fs::write(scene.folder(&name).join("go"), "").expect("a file");
        }
        scene.server.restart();
        std::fs::write(scene.folder(&name).join("go"), "").expect("a file");
        scene.ended(&session, &turn, "completed");
        assert_eq!(scene.marks(&name), ["once"], "round {round}");
        let events = scene.prove(&session);
        let heard = events.iter().any(|event| {
            event.kind == "item.completed" && event.json.to_string().contains("heard")
        });
        assert!(heard, "the output is lost: {events:?}");
        follower.attach(&scene);
        follower.until("the end", |event| event.kind == "turn.completed");
        follower.prove(&scene);
    }
    scene.finish();
}

#[test]
fn a_terminal_whose_start_was_not_answered_yet_does_not_run_again() {
    let mut scene = Scene::new();
    for round in 0..8 {
        let name = format!("start-{round}");
        let session = scene.session(&name);
        let turn = scene.turn(&session, "terminal echo once >> marks");
        // The folder of the terminal's keeper is made before the answer is committed. The server is
        // stopped there, so that the command can run without the answer.
        let keepers = scene.server.data_dir().join("keepers");
        let is_there = || names_in(&keepers).iter().any(|name| name.starts_with("term_"));
        while wait::try_until(LOOK, || is_there().then_some(())).is_none() {
            let record = scene.turn_record(&session, &turn);
            assert!(record["completed_at"].is_null(), "no terminal was seen: {record}");
        }
        proc::signal(scene.server.pid(), Signal::STOP).expect("it runs");
        // Stopped too early, the keeper was not told the command; then the next server tells it.
        let has_run = || (!scene.marks(&name).is_empty()).then_some(());
        wait::try_until(Duration::from_millis(300), has_run);
        scene.crash();
        scene.ended(&session, &turn, "completed");
        assert_eq!(scene.marks(&name), ["once"], "round {round}");
        scene.prove(&session);
        scene.close(&session);
    }
    scene.finish();
}

#[test]
fn a_killed_keeper_fails_the_turn_and_takes_the_whole_tree_with_it() {
    let mut scene = Scene::new();
    for is_server_away in [false, true] {
        let name = format!("keeper-{is_server_away}");
        let session = scene.session(&name);
        let mut follower = Follower::of_session(&session);
        follower.attach(&scene);
        let turn = scene.turn(&session, "spawn sleep 1000\nslow 100000 20");
        follower.until("slow words", |event| {
            event.kind == "item.delta"
                && event.payload["delta"].as_str().is_some_and(|delta| delta.contains("2 "))
        });
        let agent = agent_pid(&follower.seen);
        let keepers = proc::keepers_of(scene.server.data_dir());
        let keeper = keepers.iter().find(|keeper| proc::descendants(**keeper).contains(&agent));
        let keeper = *keeper.expect("the agent has a keeper");
        if is_server_away {
            scene.server.kill9();
            follower.drain();
        }
        kill9(keeper);
        if is_server_away {
            scene.server.restart();
        }
        let record = scene.ended(&session, &turn, "failed");
        let reason = record["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert!(reason.contains("keeper"), "{record}");
        assert!(text(&record, "assistant_text").contains("1 2 "), "{record}");
        proof::nothing_runs_in(&scene.folder(&name));
        let next = scene.turn(&session, "run echo once >> marks");
        scene.ended(&session, &next, "completed");
        assert_eq!(scene.marks(&name), ["once"]);
        scene.prove(&session);
    }
    scene.finish();
}

#[test]
fn a_killed_agent_fails_the_turn_and_the_session_goes_on() {
    let mut scene = Scene::new();
    let session = scene.session("agent");
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    let turn = scene.turn(&session, "spawn sleep 1000\nslow 100000 20");
    follower.until("slow words", |event| {
        event.kind == "item.delta"
            && event.payload["delta"].as_str().is_some_and(|delta| delta.contains("2 "))
    });
    kill9(agent_pid(&follower.seen));
    let record = scene.ended(&session, &turn, "failed");
    assert_eq!(record["error"]["code"], "agent_exited", "{record}");
    assert_eq!(scene.record(&session)["status"], "ready");
    proof::nothing_runs_in(&scene.folder("agent"));
    let next = scene.turn(&session, "history");
    let record = scene.ended(&session, &next, "completed");
    assert_eq!(scene.record(&session)["status"], "ready", "{record}");
    scene.crash();
    scene.prove(&session);
    scene.finish();
}

#[test]
fn after_a_reboot_running_turns_fail_and_waiting_ones_run() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..8).map(|number| format!("boot-{number}")).collect();
    let started: Vec<(String, String, String)> = names
        .iter()
        .map(|name| {
            let session = scene.session(name);
            let turn = scene.turn(&session, "slow 100000 20");
            let queued = scene.queued(&session, "run echo once >> marks");
            (session, turn, queued)
        })
        .collect();
    let gated = scene.session_with("boot-gate", json!({"permission_mode": "require_approval"}));
    let waiting = scene.turn(&gated, "run echo once >> marks");
    scene.server.kill9();
    kill_all(&scene);
    scene.server.restart();
    for ((session, turn, queued), name) in started.iter().zip(&names) {
        let record = scene.ended(session, turn, "failed");
        assert_eq!(record["error"]["code"], "agent_exited", "{record}");
        scene.ended(session, queued, "completed");
        assert_eq!(scene.marks(name), ["once"]);
        scene.prove(session);
    }
    let gate = scene.pending(&gated);
    scene.decide(&gated, &gate[0], "accept").expect(200);
    scene.ended(&gated, &waiting, "completed");
    assert_eq!(scene.marks("boot-gate"), ["once"]);
    scene.prove(&gated);
    scene.finish();
}
