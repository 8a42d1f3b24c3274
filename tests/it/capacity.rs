//! At the limit of live agents: the idle one makes room, a busy one does not.

use crate::spawn::scene::agent_with_end;
use crate::stage::{SOON, Stage, check_told, text};
use gooselake_harness::temp::TempDir;
use gooselake_harness::{thread, wait};
use serde_json::{Value, json};
use std::fs;

const ONE_AGENT: &str = "[providers.demo]\nmax_instances = 1\nmax_sessions_per_instance = 1\n";

#[test]
fn the_idle_agent_sleeps_for_the_next() {
    let stage = Stage::with_config(ONE_AGENT);
    let first = stage.session();
    stage.run(&first, "say first");
    let second = stage.session();
    stage.event(&first, "agent.slept", 0);
    assert_eq!(stage.record(&first)["live"], false);
    assert_eq!(stage.record(&second)["live"], true);
    // And back again, by a turn.
    assert_eq!(stage.run(&first, "history")["assistant_text"], "1: say first");
    assert_eq!(stage.record(&second)["live"], false);
}

/// It has been told to end, and takes its time.
#[test]
fn an_agent_that_falls_asleep_by_itself_makes_room_for_the_next() {
    let folder = TempDir::new("gg-gate");
    let (gate, ends) = (folder.path().join("gate"), folder.path().join("ends"));
    let end =
        format!("touch {}; until [ -e {} ]; do sleep 0.02; done", ends.display(), gate.display());
    let more = "idle_sleep_secs = 1\nmax_instances = 1\nmax_sessions_per_instance = 1\n";
    let stage = Stage::with_config(&agent_with_end(&end, more));
    let fields = json!({"provider": "acp", "mode": "auto"});
    let first = text(&stage.create(&fields), "id");
    wait::until(SOON, "it is to sleep", || ends.exists().then_some(()));
    let requests = || {
        let counts: Value = stage.get("/v1/diagnostics");
        counts["connections"]["requests"].as_u64().unwrap()
    };
    let before = requests();
    let (client, cwd) = (stage.client.clone(), stage.cwd.clone());
    let asking = thread::spawn("asking", move || {
        let body = json!({"provider": "acp", "mode": "auto", "cwd": cwd});
        client.post("/v1/sessions", &body)
    });
    // One request for the room, and one for each look.
    let mut looks = 0;
    wait::until(SOON, "room is asked for", || {
        looks += 1;
        (requests() > before + looks).then_some(())
    });
    fs::write(&gate, "").unwrap();
    let second = asking.unwrap().join().expect(200).json();
    assert_eq!(stage.record(&first)["live"], false);
    assert_eq!(second["live"], true);
}

#[test]
fn busy_agents_do_not_make_room() {
    let stage = Stage::with_config(ONE_AGENT);
    let first = stage.session();
    let turn_id = stage.start(&first, "slow 1000 50");
    let reply = stage.post_session(&json!({}), &[]);
    check_told(&reply, 503, "capacity", "max_instances");
    assert!(reply.header("retry-after").is_some(), "{reply}");
    assert_eq!(stage.get("/v1/sessions").as_array().unwrap().len(), 1);
    stage.interrupt(&first, &turn_id).expect(202);
    stage.ended(&first, &turn_id);
    let second = stage.session();
    assert_eq!(stage.record(&second)["status"], "ready");
}

/// The turn at the gate has the room already: letting it through needs no more.
#[test]
fn a_gated_turn_of_a_sleeping_session_is_let_through() {
    let stage = Stage::with_config(ONE_AGENT);
    let gated = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let other = stage.session();
    stage.event(&gated, "agent.slept", 0);
    let turn_id = stage.start(&gated, "say through");
    let approval = stage.approval(&gated, 0);
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    assert_eq!(stage.ended(&gated, &turn_id)["assistant_text"], "through");
    assert_eq!(stage.record(&other)["status"], "ready");
}

/// Saying no starts no agent.
#[test]
fn a_gated_turn_is_declined_without_room() {
    let stage = Stage::with_config(ONE_AGENT);
    let gated = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    stage.session();
    stage.event(&gated, "agent.slept", 0);
    let turn_id = stage.start(&gated, "say through");
    let approval = stage.approval(&gated, 0);
    stage.decide(&approval, &json!({"decision": "decline"})).expect(200);
    assert_eq!(stage.ended(&gated, &turn_id)["status"], "interrupted");
    // What was held for the turn is free again.
    stage.session();
}

/// The room of a session that is starting is its own: its first turn needs no second one.
#[test]
fn a_turn_may_follow_a_session_that_still_starts() {
    let stage = Stage::with_config(ONE_AGENT);
    let session_id = text(&stage.create(&json!({"wait": false})), "id");
    assert_eq!(stage.run(&session_id, "say hello")["assistant_text"], "hello");
}

/// Each turn that waits is told that there is no agent to be had, not only the first of them.
#[test]
fn a_queue_whose_agent_can_not_be_had_fails_to_its_end() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    let running = stage.start(&session_id, "slow 100000 20");
    let queued = ["one", "two", "three"].map(|word| stage.queue(&session_id, word));
    assert_eq!(stage.server.interrupt(), Some(0));
    stage.server.set_config(
        "[providers.demo]\nenabled = false\n[providers.acp]\nenabled = true\ncommand = \"false\"\n",
    );
    stage.restart();
    assert_eq!(stage.ended(&session_id, &running)["status"], "interrupted");
    for turn_id in &queued {
        let turn = stage.ended(&session_id, turn_id);
        assert_eq!(
            (&turn["status"], &turn["error"]["code"]),
            (&json!("failed"), &json!("capacity"))
        );
    }
    // With the agent there again the session is as good as before.
    stage.server.terminate();
    stage.server.set_config("");
    stage.restart();
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}
