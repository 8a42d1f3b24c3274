//! Tests of what only some agents know: adding to a prompt, words with a refusal, permission modes without which an
//! agent is not used.

use super::super::Acp;
use super::super::talk::{Talk, initialized, settings, turn};
use crate::model::TurnStatus;
use crate::model::input::Input;
use crate::provider::{Adapter, AgentEvent, Answer, Command, Effects, Open, Steer};
use serde_json::{Value, json};

fn steer(text: &str) -> Steer {
    Steer { input: vec![Input::Text { text: text.to_owned() }], mail: vec![7] }
}

#[test]
fn an_agent_that_can_be_steered_gets_more_and_what_it_refuses_comes_back() {
    let mut talk = Talk::open(&Open::default());
    talk.hear(initialized(json!({"_meta": {"gooselake": {"steer": true}}})));
    assert!(talk.acp.capabilities().steer);
    talk.hear(json!({"id": 2, "result": {"sessionId": "s1"}}));
    talk.tell(Command::Steer(steer("early")));
    let refused = |text: &str| [AgentEvent::SteerRefused(steer(text))];
    assert_eq!(talk.out.events, refused("early"), "no prompt runs");
    talk.tell(turn("go"));
    talk.tell(Command::Steer(steer("more")));
    assert_eq!(talk.methods(), ["_gooselake/steer"]);
    assert_eq!(talk.sent()[0]["params"]["prompt"][0]["text"], "more");
    talk.hear(json!({"id": 4, "result": {}}));
    assert!(talk.is_quiet());
    talk.tell(Command::Steer(steer("late")));
    talk.hear(json!({"id": 3, "result": {"stopReason": "end_turn"}}));
    talk.hear(json!({"id": 5, "error": {"code": -32600, "message": "no prompt runs"}}));
    assert_eq!(talk.out.events, refused("late"));
}

#[test]
fn what_is_added_before_the_prompt_is_sent_goes_with_it() {
    let mut talk = Talk::ready_with(&Open::default(), settings());
    let mut command = turn("go");
    if let Command::StartTurn { mode, .. } = &mut command {
        *mode = Some("plan".to_owned());
    }
    talk.tell(command);
    talk.tell(Command::Steer(steer("more")));
    assert!(talk.sent().is_empty());
    talk.hear(json!({"id": 3, "result": {}}));
    assert_eq!(talk.sent()[0]["params"]["prompt"][1]["text"], "more");
}

#[test]
fn the_words_of_a_refusal_go_with_it_and_with_nothing_else() {
    let mut talk = Talk::ready();
    talk.tell(turn("go"));
    for (option, message, is_told) in
        [("no", Some("not here"), true), ("no", None, false), ("yes", Some("fine"), false)]
    {
        talk.ask(7, &format!("t-{option}-{is_told}"));
        let key = talk.out.events.iter().find_map(|event| match event {
            AgentEvent::ApprovalAsked { key, .. } => Some(key.clone()),
            _ => None,
        });
        let answer = Answer::Option {
            option_id: option.to_owned(),
            message: message.map(str::to_owned),
            payload: None,
        };
        talk.tell(Command::Answer { key: key.unwrap(), answer });
        let outcome = &talk.sent()[0]["result"]["outcome"];
        assert_eq!(outcome["_meta"]["gooselake"]["message"].as_str(), message.filter(|_| is_told));
    }
}

#[test]
fn a_strict_agent_without_the_mode_is_not_used() {
    let mut acp = Acp::strict();
    let mut out = Effects::default();
    let open = Open { permission_mode: Some("danger_full_access".to_owned()), ..Open::default() };
    acp.open(&open, &mut out);
    for line in [initialized(json!({})), json!({"id": 2, "result": {"sessionId": "s1"}})] {
        out = Effects::default();
        acp.line(line.to_string().as_bytes(), &mut out);
    }
    assert!(
        matches!(&out.events[..], [AgentEvent::OpenFailed { error, gone: false }]
            if error.code == "permission_mode_unavailable"),
        "{:?}",
        out.events
    );
    // In an open session it is the turn that fails.
    let mut acp = Acp::strict();
    acp.open(&Open::default(), &mut out);
    for line in [initialized(json!({})), json!({"id": 2, "result": {"sessionId": "s1"}})] {
        acp.line(line.to_string().as_bytes(), &mut out);
    }
    let mut command = turn("go");
    if let Command::StartTurn { permission_mode, .. } = &mut command {
        *permission_mode = Some("danger_full_access".to_owned());
    }
    out = Effects::default();
    acp.command(command, &mut out);
    assert!(out.stdin.is_empty(), "the agent hears nothing of it");
    assert!(matches!(out.events[..], [AgentEvent::TurnEnded { status: TurnStatus::Failed, .. }]));
}

/// An open session of a strict agent with the modes `default` and `plan`, and a turn that is to be
/// read-only: its `session/set_mode` has the id 3.
fn limited() -> Talk {
    let mut talk = Talk { acp: Acp::strict(), out: Effects::default() };
    let open = Open { system_prompt: Some("be brief".to_owned()), ..Open::default() };
    talk.acp.open(&open, &mut talk.out);
    talk.hear(initialized(json!({})));
    let mut session = settings();
    session["sessionId"] = json!("s1");
    talk.hear(json!({"id": 2, "result": session}));
    talk.tell(read_only());
    assert_eq!(talk.methods(), ["session/set_mode"]);
    talk
}

fn read_only() -> Command {
    let mut command = turn("look");
    if let Command::StartTurn { permission_mode, .. } = &mut command {
        *permission_mode = Some("read_only".to_owned());
    }
    command
}

fn refused(id: u64) -> Value {
    json!({"id": id, "error": {"code": -32600, "message": "not now"}})
}

#[test]
fn a_turn_whose_limit_a_strict_agent_does_not_take_is_not_sent() {
    let mut talk = limited();
    talk.hear(refused(3));
    assert!(talk.sent().is_empty(), "{:?}", talk.sent());
    assert_eq!(talk.turn_ended(), (TurnStatus::Failed, Some("permission_mode_unavailable")));
    // The next turn is one as any other, and still brings the instructions of the session.
    talk.tell(read_only());
    talk.hear(json!({"id": 4, "result": {}}));
    assert_eq!(talk.methods(), ["session/prompt"]);
    assert_eq!(talk.sent()[0]["params"]["prompt"][0]["text"], "be brief");
}

#[test]
fn a_limit_of_a_turn_that_is_over_does_not_end_the_next_one() {
    let mut talk = limited();
    talk.tell(Command::Interrupt);
    assert_eq!(talk.turn_ended().0, TurnStatus::Interrupted);
    assert!(talk.tell(turn("go")).is_quiet(), "an answer is on its way");
    talk.hear(refused(3));
    assert_eq!(talk.methods(), ["session/prompt"]);
}

#[test]
fn a_session_whose_limit_a_strict_agent_does_not_take_is_not_opened() {
    let mut talk = Talk { acp: Acp::strict(), out: Effects::default() };
    let open = Open { permission_mode: Some("read_only".to_owned()), ..Open::default() };
    talk.acp.open(&open, &mut talk.out);
    talk.hear(initialized(json!({})));
    let mut session = settings();
    session["sessionId"] = json!("s1");
    talk.hear(json!({"id": 2, "result": session}));
    talk.hear(refused(3));
    assert_eq!(talk.failed_open(), ("permission_mode_unavailable", false));
}

#[test]
fn a_kind_of_failure_that_our_bridge_names_is_told() {
    for (data, code) in [
        (json!({"code": "rate_limited"}), "rate_limited"),
        (json!({"code": "of its own"}), "model_error"),
        (json!(null), "model_error"),
    ] {
        let mut talk = Talk::ready();
        talk.tell(turn("go"));
        let error = json!({"code": -32603, "message": "no", "data": data});
        talk.hear(json!({"id": 3, "error": error}));
        assert_eq!(talk.turn_ended(), (TurnStatus::Failed, Some(code)));
    }
}
