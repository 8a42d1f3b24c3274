//! Turns, queues and approvals, over the death of the server.

use super::follower::Follower;
use super::scene::{SOON, Scene, agent_pid, text};
use gooselake_harness::demo::{OUTCOME, flood_text, slow_text};
use gooselake_harness::proc;
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::stream::Record;
use gooselake_harness::thread;
use serde_json::{Value, json};
use std::sync::mpsc;
use std::time::Duration;

fn kinds<'a>(events: &'a [Record], kind: &str) -> Vec<&'a Record> {
    events.iter().filter(|event| event.kind == kind).collect()
}

#[test]
fn a_flood_loses_and_doubles_nothing_over_many_deaths() {
    let mut rng = Rng::from_environment();
    let mut scene = Scene::new();
    let session = scene.session("flood");
    let mut follower = Follower::of_session(&session);
    let (count, bytes) = (30_000, 60);
    let turn = scene.turn(&session, &format!("flood {count} {bytes}"));
    for _ in 0..4 {
        follower.attach(&scene);
        follower.read(1 + rng.below(30) as usize, Duration::from_millis(300));
        scene.server.kill9();
        follower.drain();
        scene.server.restart();
    }
    let record = scene.ended(&session, &turn, "completed");
    assert!(record["assistant_text"] == flood_text(count, bytes), "the text is another one");
    follower.attach(&scene);
    follower.until("the end", |event| event.kind == "turn.completed");
    follower.prove(&scene);
    let events = scene.prove(&session);
    assert_eq!(kinds(&events, "agent.started").len(), 1);
    scene.finish();
}

#[test]
fn twenty_turns_in_twenty_sessions_go_on_with_the_same_agents() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..20).map(|number| format!("many-{number}")).collect();
    let prompt = "slow 30 20\nrun echo once >> marks";
    let started: Vec<(String, String)> = names
        .iter()
        .map(|name| {
            let session = scene.session_with(name, json!({"wait": false}));
            let turn = scene.turn(&session, prompt);
            (session, turn)
        })
        .collect();
    let mut followers: Vec<Follower> =
        started.iter().map(|(session, _)| Follower::of_session(session)).collect();
    for follower in &mut followers {
        follower.attach(&scene);
        follower.until("the agent's first word", |event| event.kind == "item.delta");
    }
    let pids: Vec<u32> = followers.iter().map(|follower| agent_pid(&follower.seen)).collect();
    scene.server.kill9();
    followers.iter_mut().for_each(Follower::drain);
    assert!(pids.iter().all(|pid| proc::alive(*pid)), "an agent died with the server");
    scene.server.restart();
    for ((session, turn), name) in started.iter().zip(&names) {
        let record = scene.ended(session, turn, "completed");
        let said = record["assistant_text"].as_str().unwrap_or_default().to_owned();
        assert_eq!(said, format!("{}\n\n{OUTCOME}", slow_text(30)));
        assert_eq!(scene.marks(name), ["once"], "{name}");
    }
    for (follower, pid) in followers.iter_mut().zip(&pids) {
        follower.attach(&scene);
        follower.until("the end", |event| event.kind == "turn.completed");
        follower.prove(&scene);
        proof::log(&follower.seen);
        assert_eq!(agent_pid(&follower.seen), *pid);
    }
    assert!(pids.iter().all(|pid| proc::alive(*pid)), "an agent did not live on");
    assert_eq!(proc::keepers_of(scene.server.data_dir()).len(), 20);
    scene.finish();
}

#[test]
fn a_pending_approval_is_answerable_and_its_answer_outlives_the_next_death() {
    let mut scene = Scene::new();
    let session = scene.session_with("ask", json!({"mode": "default"}));
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    let turn = scene.turn(&session, "run echo once >> marks");
    follower.until("the question", |event| event.kind == "approval.requested");
    scene.crash();
    assert_eq!(scene.turn_record(&session, &turn)["status"], "waiting_for_approval");
    let pending = scene.pending(&session);
    assert_eq!(pending.len(), 1);
    let reply = scene.decide(&session, &pending[0], "accept").expect(200);
    assert_eq!(reply.json()["status"], "accept");
    scene.crash();
    scene.ended(&session, &turn, "completed");
    assert_eq!(scene.marks("ask"), ["once"]);
    scene.decide(&session, &pending[0], "accept").expect(409);
    scene.prove(&session);
    scene.finish();
}

#[test]
fn a_gated_turn_waits_over_two_deaths_and_runs_once_when_it_is_let_through() {
    let mut scene = Scene::new();
    let session = scene.session_with("gate", json!({"permission_mode": "require_approval"}));
    let turn = scene.turn(&session, "run echo once >> marks");
    let behind = scene.queued(&session, "run echo second >> marks");
    let gate = scene.pending(&session);
    assert_eq!(gate.len(), 1);
    scene.crash();
    scene.crash();
    assert_eq!(scene.turn_record(&session, &turn)["status"], "waiting_for_approval");
    assert_eq!(scene.turn_record(&session, &behind)["status"], "queued");
    assert_eq!(scene.pending(&session), gate);
    assert_eq!(scene.marks("gate"), [""; 0], "a gated turn ran");
    scene.decide(&session, &gate[0], "accept").expect(200);
    scene.crash();
    scene.ended(&session, &turn, "completed");
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    let asked = |event: &Record| {
        event.kind == "approval.requested" && event.json["turn_id"] == behind.as_str()
    };
    follower.until("the second gate", asked);
    scene.crash();
    let second = scene.pending(&session);
    scene.decide(&session, &second[0], "decline").expect(200);
    scene.crash();
    scene.ended(&session, &behind, "interrupted");
    assert_eq!(scene.marks("gate"), ["once"]);
    scene.prove(&session);
    scene.finish();
}

#[test]
fn a_queue_runs_on_in_order_over_a_death_in_every_turn() {
    let mut rng = Rng::from_environment();
    let mut scene = Scene::new();
    let session = scene.session("queue");
    let prompt = |number: usize| format!("slow 5 5\nrun echo {number} >> marks");
    let turns: Vec<String> = (0..6).map(|number| scene.queued(&session, &prompt(number))).collect();
    let mut follower = Follower::of_session(&session);
    for turn in &turns {
        follower.attach(&scene);
        follower.until("the turn's start", |event| {
            event.kind == "turn.started" && event.json["turn_id"] == turn.as_str()
        });
        follower.read(rng.below(9) as usize, Duration::from_millis(100));
        scene.server.kill9();
        follower.drain();
        scene.server.restart();
    }
    for turn in &turns {
        scene.ended(&session, turn, "completed");
    }
    assert_eq!(scene.marks("queue"), ["0", "1", "2", "3", "4", "5"]);
    let events = scene.prove(&session);
    let order: Vec<String> =
        kinds(&events, "turn.started").iter().map(|event| text(&event.json, "turn_id")).collect();
    assert_eq!(order, turns);
    follower.attach(&scene);
    follower.until("the last end", |event| {
        event.kind == "turn.completed" && event.json["turn_id"] == turns[5].as_str()
    });
    follower.prove(&scene);
    scene.finish();
}

#[test]
fn posts_that_a_death_cut_off_make_one_turn_when_they_are_repeated() {
    let mut scene = Scene::new();
    let session = scene.session("posts");
    let post = |client: &gooselake_harness::client::Client, session: &str, number: usize| {
        let prompt = format!("run echo {number} >> marks");
        let body = json!({"input": [{"type": "text", "text": prompt}], "when": "queue"});
        let key = format!("post-{number}");
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", &key)];
        let path = format!("/v1/sessions/{session}/turns");
        client.try_request("POST", &path, &headers, body.to_string().as_bytes())
    };
    let mut acknowledged: Vec<Value> = Vec::new();
    let count = 12;
    for round in 0..3 {
        let client = scene.client();
        let (told, heard) = mpsc::channel();
        let poster = session.clone();
        let first = acknowledged.len();
        let thread = thread::spawn("poster", move || {
            for number in first..count {
                let Ok(reply) = post(&client, &poster, number) else { return };
                assert_eq!(reply.status, 200, "{reply}");
                // Nobody listens when the server has been killed.
                drop(told.send(reply.json()));
            }
        });
        // The kill comes while the next one is on its way.
        for _ in 0..=round {
            acknowledged.extend(heard.recv_timeout(SOON));
        }
        scene.server.kill9();
        thread.expect("a thread").join();
        acknowledged.extend(heard.try_iter());
        scene.server.restart();
    }
    let again: Vec<Value> = (0..count)
        .map(|number| post(&scene.client(), &session, number).expect("it runs").json())
        .collect();
    for (first, second) in acknowledged.iter().zip(&again) {
        assert_eq!(first["turn_id"], second["turn_id"], "an acknowledged turn is another one");
    }
    for reply in &again {
        scene.ended(&session, &text(reply, "turn_id"), "completed");
    }
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(scene.marks("posts"), expected);
    assert_eq!(scene.turns(&session).len(), count);
    scene.prove(&session);
    scene.finish();
}

#[test]
fn an_interrupt_that_was_acknowledged_ends_the_turn_also_when_the_agent_does_not_obey() {
    let mut scene = Scene::new();
    let session = scene.session("deaf");
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    let turn = scene.turn(&session, "say before\nhang");
    follower.until("its word", |event| event.kind == "item.delta");
    scene.interrupt(&session, &turn);
    scene.crash();
    let record = scene.ended(&session, &turn, "interrupted");
    assert_eq!(record["assistant_text"], "before");
    let next = scene.turn(&session, "say after");
    scene.ended(&session, &next, "completed");
    scene.prove(&session);
    scene.finish();
}

#[test]
fn an_interrupt_is_obeyed_over_a_death() {
    let mut scene = Scene::new();
    let session = scene.session("obeys");
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    let turn = scene.turn(&session, "slow 100000 5");
    let queued = scene.queued(&session, "say next");
    follower.until("its word", |event| event.kind == "item.delta");
    scene.interrupt(&session, &turn);
    scene.crash();
    scene.ended(&session, &turn, "interrupted");
    scene.ended(&session, &queued, "completed");
    scene.prove(&session);
    scene.finish();
}

#[test]
fn what_an_agent_began_by_itself_ends_also_after_a_death() {
    let mut scene = Scene::new();
    let session = scene.session("late");
    let mut follower = Follower::of_session(&session);
    follower.attach(&scene);
    scene.turn(&session, "say now\nlate then");
    follower.until("the agent's own turn", |event| {
        event.kind == "turn.started" && event.payload["source"] == "agent"
    });
    scene.server.kill9();
    follower.drain();
    scene.server.restart();
    let turns = scene.turns(&session);
    assert_eq!(turns.len(), 2, "{turns:?}");
    let record = scene.ended(&session, &text(&turns[1], "id"), "completed");
    assert_eq!(record["assistant_text"], "then");
    scene.prove(&session);
    scene.finish();
}

#[test]
fn a_close_that_was_acknowledged_stays_and_one_that_was_cut_is_carried_out() {
    let mut scene = Scene::new();
    let told = scene.session("told");
    let cut = scene.session("cut");
    let turn = scene.turn(&cut, "slow 100000 5");
    scene.close(&told);
    let mut follower = Follower::of_session(&cut);
    follower.attach(&scene);
    let (client, path) = (scene.client(), format!("/v1/sessions/{cut}/close"));
    // The answer may be lost with the server; only what the log says counts.
    let closer = thread::spawn("closer", move || {
        drop(client.try_request("POST", &path, &[], b""));
    });
    follower.until("the close", |event| event.kind == "session.closed");
    scene.server.kill9();
    closer.expect("a thread").join();
    scene.server.restart();
    for session in [&told, &cut] {
        assert_eq!(scene.record(session)["status"], "closed");
    }
    scene.ended(&cut, &turn, "interrupted");
    scene.await_keepers(0);
    proof::nothing_runs_in(&scene.folder("cut"));
    scene.prove(&cut);
    scene.finish();
}
