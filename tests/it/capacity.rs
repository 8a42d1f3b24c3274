//! At the limit of live agents: the idle one makes room, a busy one does not.

use crate::stage::{Stage, check_told, text};
use serde_json::json;

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
