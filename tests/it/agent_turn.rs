//! What an agent does by itself, while something waits for it: the one is not taken for the other.

use crate::crew::Crew;
use crate::hostile_agent::{ends, says, speaks};
use crate::stage::{Stage, check_error, text};
use serde_json::{Value, json};
use std::fs;

/// The handshake of an agent that takes input into a running prompt.
fn handshake() -> String {
    let hello = concat!(
        r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1,"#,
        r#""agentCapabilities":{"_meta":{"gooselake":{"steer":true}}}}}"#,
    );
    let session = r#"{"jsonrpc":"2.0","id":2,"result":{"sessionId":"s"}}"#;
    ["read l\n", &says(hello), "read l\n", &says(session)].concat()
}

/// The agent goes on when this file is in its folder.
fn awaits(file: &str) -> String {
    format!("until [ -e {file} ]; do sleep 0.02; done\n")
}

/// A server whose ACP agent is this shell script behind the handshake.
fn stage_of(parts: &[String]) -> Stage {
    let arguments = json!(["-c", handshake() + &parts.concat()]);
    Stage::with_config(&format!(
        "[providers.demo]\nenabled = true\n[providers.acp]\nenabled = true\ncommand = \"/bin/sh\"\nargs = {arguments}\n"
    ))
}

/// A session in which a person lets each turn through, its turn at the gate, and the agent that speaks meanwhile.
fn at_the_gate(stage: &Stage) -> (String, String, Value) {
    let body = json!({"provider": "acp", "cwd": stage.cwd, "permission_mode": "require_approval"});
    let session_id = text(&stage.client.post("/v1/sessions", &body).expect(200).json(), "id");
    let turn_id = stage.start(&session_id, "go");
    let approval = stage.approval(&session_id, 0);
    fs::write(stage.cwd.join("speak"), "").unwrap();
    stage.event(&session_id, "item.delta", 0);
    (session_id, turn_id, approval)
}

fn speaks_and_answers() -> Vec<String> {
    let read = "read l\n".to_owned();
    vec![
        awaits("speak"),
        speaks("by itself"),
        read.clone(),
        speaks("the answer"),
        ends("end_turn"),
        read,
    ]
}

#[test]
fn a_turn_that_is_let_through_while_the_agent_speaks_by_itself_ends_with_its_own_answer() {
    let stage = stage_of(&speaks_and_answers());
    let (session_id, turn_id, approval) = at_the_gate(&stage);
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(turn["status"], "completed", "{turn}");
    assert!(text(&turn, "assistant_text").ends_with("the answer"), "{turn}");
    stage.close(&session_id);
}

#[test]
fn a_turn_behind_one_that_was_not_let_through_ends_with_its_own_answer() {
    let stage = stage_of(&speaks_and_answers());
    let (session_id, first, approval) = at_the_gate(&stage);
    stage.decide(&approval, &json!({"decision": "decline"})).expect(200);
    assert_eq!(stage.ended(&session_id, &first)["status"], "interrupted");
    let seq = stage.event(&session_id, "turn.interrupted", 0).seq;
    let second = stage.start(&session_id, "go on");
    let approval = stage.approval(&session_id, seq);
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    let turn = stage.ended(&session_id, &second);
    assert_eq!(turn["assistant_text"], "the answer", "{turn}");
    stage.close(&session_id);
}

/// Mail that interrupts is not lost in work that nobody has asked for: it is what the agent hears next.
#[test]
fn mail_that_interrupts_what_an_agent_does_by_itself_is_a_turn_of_its_own() {
    let speaking = format!("until [ -e stop ]; do {} sleep 0.1; done\n", speaks("word "));
    let read = "read l\n".to_owned();
    let heard = "printf '%s' \"$l\" >heard\n".to_owned();
    let stage = stage_of(&[
        awaits("speak"),
        speaking,
        read.clone(),
        heard,
        speaks("the answer"),
        ends("end_turn"),
        read,
    ]);
    let agent = stage.agent_session();
    let crew = Crew::of(&stage, vec![stage.session(), agent.clone()]);
    fs::write(stage.cwd.join("speak"), "").unwrap();
    let own = stage.event(&agent, "turn.started", 0);
    assert_eq!(own.payload["source"], "agent");
    let delivery = crew.send_by(&stage, 1, "hear this", "immediate_interrupt");
    let turn_id = crew.injected(&stage, &delivery);
    fs::write(stage.cwd.join("stop"), "").unwrap();
    let turn = stage.ended(&agent, &turn_id);
    assert_eq!((&turn["status"], &turn["source"]), (&json!("completed"), &json!("team")), "{turn}");
    assert!(text(&turn, "assistant_text").ends_with("the answer"), "{turn}");
    let heard = fs::read_to_string(stage.cwd.join("heard")).unwrap();
    assert!(heard.contains("session/prompt") && heard.contains("hear this"), "{heard}");
    assert_eq!(crew.delivery(&stage, &delivery)["status"], "injected");
    stage.close(&agent);
    check_error(&stage.post_turn(&agent, &json!({"input": ["more"]})), 409, "session_closed");
}
