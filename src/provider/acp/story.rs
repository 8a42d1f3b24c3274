//! Tests of what the recordings do not show: sessions, turns and questions. One story each.

mod bound;
mod extension;
mod item;

use super::Acp;
use super::talk::{Talk, initialized, settings, turn};
use crate::model::input::Input;
use crate::model::{ItemStatus, TurnStatus};
use crate::provider::{
    Adapter, AgentEvent, Answer, Command, Effects, HostError, HostRequest, Open,
};
use serde_json::{Value, json};

#[test]
fn a_session_is_resumed_in_the_way_the_agent_offers() {
    let open = Open { resume: Some("old".to_owned()), ..Open::default() };
    let offers = json!({"loadSession": true, "sessionCapabilities": {"resume": {}}});
    assert_eq!(Talk::open(&open).hear(initialized(offers)).methods(), ["session/resume"]);
    let offers = json!({"loadSession": true});
    assert_eq!(Talk::open(&open).hear(initialized(offers)).methods(), ["session/load"]);
    let mut talk = Talk::open(&open);
    talk.hear(initialized(json!({})));
    assert_eq!(talk.failed_open(), ("resume_unsupported", true));
    assert!(!talk.acp.capabilities().resume);
}

#[test]
fn what_cannot_be_opened_says_why() {
    let mut talk = Talk::open(&Open::default());
    talk.hear(json!({"id": 1, "result": {"protocolVersion": 2}}));
    assert_eq!(talk.failed_open(), ("protocol_error", false));

    let failed = |resume: Option<&str>, error: Value| {
        let open = Open { resume: resume.map(str::to_owned), ..Open::default() };
        let mut talk = Talk::open(&open);
        talk.hear(initialized(json!({"loadSession": true})));
        talk.hear(json!({"id": 2, "error": error}));
        let (code, gone) = talk.failed_open();
        (code.to_owned(), gone)
    };
    let is = |code: &str, gone| (code.to_owned(), gone);
    let login = json!({"code": -32000, "message": "Authentication required"});
    assert_eq!(failed(None, login.clone()), is("authentication_required", false));
    assert_eq!(failed(Some("old"), login), is("authentication_required", false));
    let missing = json!({"code": -32002, "message": "Resource not found"});
    assert_eq!(failed(Some("old"), missing.clone()), is("session_gone", true));
    assert_eq!(failed(None, missing), is("open_failed", false));
    let vague = json!({"code": -32603, "message": "Internal error: service failure"});
    assert_eq!(failed(Some("old"), vague), is("open_failed", false));
    let details = json!({"code": -32603, "message": "Internal error",
        "data": {"details": "No conversation found with session ID: old"}});
    assert_eq!(failed(Some("old"), details), is("session_gone", true));
}

#[test]
fn a_replay_is_swallowed_also_behind_the_answer_to_the_load() {
    let open = Open { resume: Some("s1".to_owned()), ..Open::default() };
    let mut talk = Talk::open(&open);
    talk.hear(initialized(json!({"loadSession": true})));
    assert!(talk.say("an old answer").is_quiet());
    talk.hear(json!({"id": 2, "result": settings()}));
    assert_eq!(talk.methods(), ["_gooselake/sync"]);
    assert!(talk.say("another old answer").is_quiet());
    let call = json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "Shell"});
    assert!(talk.update(call).is_quiet());
    talk.update(json!({"sessionUpdate": "current_mode_update", "currentModeId": "plan"}));
    assert!(talk.is_quiet());
    talk.hear(json!({"id": 3, "error": {"code": -32601, "message": "no such method"}}));
    let opened = AgentEvent::Opened {
        native_ref: "s1".to_owned(),
        model: Some("small".to_owned()),
        mode: Some("plan".to_owned()),
        reasoning_level: Some("low".to_owned()),
    };
    assert_eq!(talk.out.events, [opened]);
}

#[test]
fn what_the_open_wants_is_set_before_it_is_open() {
    let open = Open {
        model: Some("large".to_owned()),
        reasoning_level: Some("high".to_owned()),
        permission_mode: Some("read_only".to_owned()),
        ..Open::default()
    };
    let mut talk = Talk::ready_with(&open, settings());
    assert_eq!(talk.sent()[0]["params"]["value"], "large");
    talk.hear(json!({"id": 3, "error": {"code": -32602, "message": "not for you"}}));
    assert_eq!(talk.notices(), ["the agent did not take the model large: not for you"]);
    assert_eq!(talk.sent()[0]["params"]["configId"], "effort");
    talk.hear(json!({"id": 4, "result": {}}));
    assert_eq!(talk.sent()[0]["params"], json!({"sessionId": "s1", "modeId": "plan"}));
    talk.hear(json!({"id": 5, "result": null}));
    let opened = AgentEvent::Opened {
        native_ref: "s1".to_owned(),
        model: Some("small".to_owned()),
        mode: Some("plan".to_owned()),
        reasoning_level: Some("high".to_owned()),
    };
    assert_eq!(talk.out.events, [opened]);
    let models = &talk.acp.capabilities().models;
    assert_eq!(models[1].name, "large");
}

#[test]
fn an_agent_without_the_setting_is_not_asked_and_a_person_hears_of_it() {
    let open = Open {
        mode: None,
        reasoning_level: Some("high".to_owned()),
        permission_mode: Some("read_only".to_owned()),
        ..Open::default()
    };
    let talk = Talk::ready_with(&open, json!({}));
    assert_eq!(
        talk.notices(),
        [
            "the agent has no mode for the permission mode read_only",
            "the agent has no setting for the reasoning level",
        ]
    );
    assert!(talk.sent().is_empty());
    assert!(matches!(talk.out.events.last(), Some(AgentEvent::Opened { .. })));
}

#[test]
fn a_prompt_waits_for_its_settings_and_an_interrupt_takes_it_back() {
    let mut talk = Talk::ready_with(&Open::default(), settings());
    let with_mode = |mode: &str| {
        let mut command = turn("go");
        if let Command::StartTurn { mode: wanted, .. } = &mut command {
            *wanted = Some(mode.to_owned());
        }
        command
    };
    assert_eq!(talk.tell(with_mode("plan")).methods(), ["session/set_mode"]);
    talk.tell(Command::Interrupt);
    assert!(talk.sent().is_empty(), "the agent has not heard of the prompt");
    assert_eq!(talk.turn_ended(), (TurnStatus::Interrupted, None));
    // The next turn does not overtake the answer that is still on its way.
    assert!(talk.tell(with_mode("default")).is_quiet());
    talk.hear(json!({"id": 3, "result": {}}));
    assert_eq!(talk.methods(), ["session/set_mode"]);
    assert!(matches!(talk.out.events[..], [AgentEvent::SettingsChanged { .. }]));
    talk.hear(json!({"id": 4, "result": {}}));
    assert_eq!(talk.methods(), ["session/prompt"]);
}

#[test]
fn a_prompt_carries_every_kind_of_input() {
    let mut talk = Talk::ready();
    let link = |uri: &str| Input::ResourceLink { uri: uri.to_owned(), name: None };
    let mut command = turn("look");
    if let Command::StartTurn { input, .. } = &mut command {
        let (data, media_type) = ("AAAA".to_owned(), "image/png".to_owned());
        input.extend([Input::Image { data, media_type }, link("file:///a/b.txt")]);
    }
    let expected = json!([
        {"type": "text", "text": "look"},
        {"type": "image", "data": "AAAA", "mimeType": "image/png"},
        {"type": "resource_link", "uri": "file:///a/b.txt", "name": "b.txt"},
    ]);
    assert_eq!(talk.tell(command).sent()[0]["params"]["prompt"], expected);
}

#[test]
fn instructions_go_where_the_agent_takes_them() {
    let open = Open { system_prompt: Some("be brief".to_owned()), ..Open::default() };
    let mut talk = Talk::open(&open);
    talk.hear(initialized(json!({"sessionCapabilities": {"systemPrompt": {}}})));
    let content = json!([{"type": "text", "text": "be brief"}]);
    let expected = json!({"mode": "append", "content": content});
    assert_eq!(talk.sent()[0]["params"]["systemPrompt"], expected);

    let mut talk = Talk::ready_with(&open, json!({}));
    let first = talk.tell(turn("hello")).sent()[0]["params"]["prompt"].clone();
    assert_eq!(first[0]["text"], "be brief");
    talk.hear(json!({"id": 3, "result": {"stopReason": "end_turn"}}));
    let second = talk.tell(turn("again")).sent()[0]["params"]["prompt"].clone();
    assert_eq!(second.as_array().map(Vec::len), Some(1));
}

#[test]
fn what_comes_outside_a_turn_is_a_turn_of_the_agents_own() {
    let mut talk = Talk::ready();
    talk.say("by the way");
    assert_eq!(talk.out.events[0], AgentEvent::AgentTurnStarted);
    assert!(!talk.say(", more").out.events.contains(&AgentEvent::AgentTurnStarted));
    talk.tell(Command::EndAgentTurn);
    assert_eq!(talk.turn_ended(), (TurnStatus::Completed, None));
    assert!(talk.tell(Command::EndAgentTurn).is_quiet());

    talk.say("once more");
    talk.tell(turn("hello"));
    assert_eq!(talk.turn_ended(), (TurnStatus::Completed, None));
    assert_eq!(talk.methods(), ["session/prompt"]);
    talk.hear(json!({"id": 3, "result": {"stopReason": "cancelled"}}));
    assert_eq!(talk.turn_ended(), (TurnStatus::Interrupted, None));

    talk.say("a late piece");
    assert_eq!(talk.out.events[0], AgentEvent::AgentTurnStarted);
    talk.tell(Command::Interrupt);
    assert_eq!(talk.turn_ended(), (TurnStatus::Interrupted, None));
    assert!(talk.tell(Command::Interrupt).is_quiet());
}

#[test]
fn turns_end_as_the_agent_says() {
    let ended = |interrupt: bool, answer: Value| {
        let mut talk = Talk::busy();
        if interrupt {
            talk.tell(Command::Interrupt);
        }
        let mut answer = answer;
        answer["id"] = json!(3);
        talk.hear(answer);
        let (status, code) = talk.turn_ended();
        (status, code.map(str::to_owned))
    };
    let is = |status, code: &str| (status, (!code.is_empty()).then(|| code.to_owned()));
    let reason = |reason: &str| json!({"result": {"stopReason": reason}});
    let error = |code: i64| json!({"error": {"code": code, "message": "no"}});
    assert_eq!(ended(false, reason("end_turn")), is(TurnStatus::Completed, ""));
    assert_eq!(ended(true, reason("end_turn")), is(TurnStatus::Completed, ""));
    assert_eq!(ended(true, reason("cancelled")), is(TurnStatus::Interrupted, ""));
    assert_eq!(ended(false, reason("max_tokens")), is(TurnStatus::Failed, "model_error"));
    assert_eq!(ended(false, reason("refusal")), is(TurnStatus::Failed, "model_error"));
    assert_eq!(ended(false, json!({"result": null})), is(TurnStatus::Failed, "protocol_error"));
    assert_eq!(ended(false, error(-32603)), is(TurnStatus::Failed, "model_error"));
    assert_eq!(ended(false, error(401)), is(TurnStatus::Failed, "authentication_required"));
    assert_eq!(ended(true, error(-32603)), is(TurnStatus::Interrupted, ""));
}

#[test]
fn several_questions_are_open_at_once() {
    let mut talk = Talk::busy();
    talk.ask(7, "a");
    talk.ask(8, "b");
    talk.ask(9, "c");
    let yes = Answer::Option { option_id: "yes".to_owned(), message: None, payload: None };
    talk.tell(Command::Answer { key: "ask#2".to_owned(), answer: yes.clone() });
    let chosen = json!({"outcome": {"outcome": "selected", "optionId": "yes"}});
    assert_eq!(talk.sent(), [json!({"id": 8, "result": chosen})]);
    assert!(talk.tell(Command::Answer { key: "ask#2".to_owned(), answer: yes }).is_quiet());
    talk.hear(json!({"method": "$/cancel_request", "params": {"requestId": 7}}));
    assert_eq!(talk.sent()[0]["error"]["code"], -32800);
    assert!(matches!(talk.out.events[..], [AgentEvent::ApprovalWithdrawn { .. }]));
    talk.tell(Command::Interrupt);
    let cancelled = json!({"outcome": {"outcome": "cancelled"}});
    let cancel = json!({"method": "session/cancel", "params": {"sessionId": "s1"}});
    assert_eq!(talk.sent(), [cancel, json!({"id": 9, "result": cancelled.clone()})]);
    // One that crossed the cancel on its way.
    talk.ask(10, "d");
    assert_eq!(talk.sent(), [json!({"id": 10, "result": cancelled})]);
    assert!(talk.out.events.is_empty());
}

#[test]
fn a_declined_call_is_declined_whatever_the_agent_says() {
    for says in ["failed", "completed", ""] {
        let mut talk = Talk::busy();
        talk.ask(7, "a");
        let no = Answer::Option { option_id: "no".to_owned(), message: None, payload: None };
        talk.tell(Command::Answer { key: "ask#1".to_owned(), answer: no });
        let told = json!({"sessionUpdate": "tool_call_update", "toolCallId": "a", "status": says});
        let early = talk.update(told).completed().len();
        talk.hear(json!({"id": 3, "result": {"stopReason": "end_turn"}}));
        let late = talk.completed();
        if says.is_empty() {
            assert_eq!(late, [("tool:a", ItemStatus::Declined)]);
        } else {
            assert_eq!((early, late.len()), (1, 0));
        }
    }
}

#[test]
fn an_answered_turn_leaves_no_question_open() {
    let mut talk = Talk::busy();
    talk.ask(7, "a");
    talk.hear(json!({"id": 3, "result": {"stopReason": "end_turn"}}));
    assert_eq!(talk.sent()[0]["id"], 7);
    assert_eq!(talk.completed(), [("tool:a", ItemStatus::Completed)]);
    assert_eq!(talk.turn_ended(), (TurnStatus::Completed, None));
}

#[test]
fn the_machine_is_asked_and_asked_again_after_a_restart() {
    let mut talk = Talk::ready();
    let params = json!({"sessionId": "s1", "command": "ls", "args": ["-l"],
        "env": [{"name": "A", "value": "1"}, {"name": "broken"}], "outputByteLimit": 10});
    talk.hear(json!({"id": "x", "method": "terminal/create", "params": params}));
    let request = HostRequest::CreateTerminal {
        command: "ls".to_owned(),
        args: vec!["-l".to_owned()],
        env: vec![("A".to_owned(), "1".to_owned())],
        cwd: None,
        output_byte_limit: Some(10),
    };
    let asked = AgentEvent::Host { key: "host#1".to_owned(), request };
    assert_eq!(talk.out.events, std::slice::from_ref(&asked));
    let snapshot = serde_json::from_str(&talk.acp.snapshot()).expect("a snapshot is JSON");
    let (acp, again) = Acp::restore(&snapshot).expect("a snapshot restores");
    assert_eq!(again.events, [asked]);
    talk.acp = acp;
    let answer = Ok(json!({"terminalId": "t1"}));
    talk.tell(Command::HostAnswer { key: "host#1".to_owned(), answer });
    assert_eq!(talk.sent(), [json!({"id": "x", "result": {"terminalId": "t1"}})]);

    let read = json!({"id": 1, "method": "fs/read_text_file", "params": {"path": "/a"}});
    talk.hear(read.clone());
    let error = HostError { code: -32002, message: "no such file".to_owned() };
    talk.tell(Command::HostAnswer { key: "host#2".to_owned(), answer: Err(error) });
    assert_eq!(talk.sent()[0]["error"]["message"], "no such file");

    let mut talk = Talk::ready_with(&Open::default(), json!({}));
    assert_eq!(talk.hear(read).sent()[0]["error"]["code"], -32601);
    assert!(talk.out.events.is_empty());
}

#[test]
fn the_machine_hears_that_a_request_was_taken_back() {
    let mut talk = Talk::busy();
    let params = json!({"sessionId": "s1", "terminalId": "term_1"});
    talk.hear(json!({"id": 7, "method": "terminal/wait_for_exit", "params": params}));
    talk.hear(json!({"method": "$/cancel_request", "params": {"requestId": 7}}));
    assert_eq!(talk.sent()[0]["error"]["code"], -32800);
    assert_eq!(talk.out.events, [AgentEvent::HostTakenBack { key: "host#1".to_owned() }]);
}

#[test]
fn every_request_is_answered() {
    let mut talk = Talk::ready();
    let code = |talk: &Talk| talk.sent()[0]["error"]["code"].as_i64();
    talk.hear(json!({"id": 0, "method": "elicitation/create", "params": {}}));
    assert_eq!((code(&talk), talk.is_unparsed()), (Some(-32601), true));
    talk.hear(json!({"id": 0, "method": "_vendor/thing"}));
    assert_eq!((code(&talk), talk.is_unparsed()), (Some(-32601), true));
    talk.hear(json!({"id": 0, "method": "fs/read_text_file", "params": {"path": 1}}));
    assert_eq!((code(&talk), talk.is_unparsed()), (Some(-32602), true));
    talk.hear(json!({"id": 0, "method": "session/request_permission", "params": []}));
    assert_eq!((code(&talk), talk.is_unparsed()), (Some(-32602), true));
    talk.hear(json!({"id": 0, "method": 7}));
    assert_eq!((code(&talk), talk.is_unparsed()), (Some(-32600), true));
    talk.hear(json!({"id": [1], "method": "fs/read_text_file"}));
    assert_eq!((code(&talk), talk.is_unparsed()), (Some(-32600), true));
}

#[test]
fn what_is_not_understood_is_kept_and_cut() {
    let mut talk = Talk::busy();
    let long = format!("\u{e9}{}", "x".repeat(100_000));
    for line in [long.as_str(), "[]", "null", "{", "{}", "\u{feff}{}"] {
        assert!(talk.hear_text(line).is_unparsed(), "{line:.20}");
    }
    assert!(talk.hear_text(&"[".repeat(100_000)).is_unparsed());
    assert!(talk.hear_text(" \r").is_quiet());
    talk.out = Effects::default();
    talk.acp.line(b"\xff\xfe{}", &mut talk.out);
    assert!(talk.is_unparsed());
    assert!(talk.update(json!({"sessionUpdate": "dance"})).is_unparsed());
    assert!(talk.update(json!({"sessionUpdate": "tool_call"})).is_unparsed());
    assert!(talk.hear(json!({"method": "dance/began"})).is_unparsed());
    assert!(talk.hear(json!({"method": "_vendor/news", "params": {}})).is_quiet());
    assert!(talk.hear(json!({"id": 99, "result": {}})).is_unparsed());
    assert!(talk.hear(json!({"id": null, "error": {"code": -32700}})).is_unparsed());
    let chunk = json!({"sessionUpdate": "agent_message_chunk",
        "content": {"type": "text", "text": "another session's"}});
    let params = json!({"sessionId": "s2", "update": chunk});
    assert!(talk.hear(json!({"method": "session/update", "params": params})).is_unparsed());
}

#[test]
fn what_is_said_before_the_session_is_open_is_a_notice() {
    let mut talk = Talk::open(&Open::default());
    talk.hear(initialized(json!({})));
    assert_eq!(talk.say("your config is old").notices(), ["your config is old"]);
    talk.ask(7, "a");
    assert_eq!(talk.sent()[0]["result"]["outcome"]["outcome"], "cancelled");
    assert!(talk.out.events.is_empty());
    let call = json!({"sessionUpdate": "tool_call", "toolCallId": "t"});
    assert!(talk.update(call).is_unparsed());
}
