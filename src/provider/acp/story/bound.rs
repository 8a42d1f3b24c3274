//! Tests of what is kept of texts that have no bound of their own: names stay apart, and the snapshot stays small.

use super::super::Acp;
use super::super::talk::{Talk, initialized};
use crate::model::ItemStatus;
use crate::provider::{Adapter, AgentEvent, Effects, Open};
use serde_json::{Value, json};

/// The least that is more than an agent may have kept of one text.
const LONG: usize = 20_000;
/// Above all that is kept in these tests, and below what the agents say in them.
const SNAPSHOT_BYTES_MAX: usize = 4_000_000;

fn long(end: &str) -> String {
    "x".repeat(LONG) + end
}

#[test]
fn calls_with_long_texts_are_kept_small_and_apart() {
    let mut talk = Talk::busy();
    for number in 0..256 {
        talk.update(json!({"sessionUpdate": "tool_call", "toolCallId": long(&number.to_string()),
            "title": long(""), "kind": long(""), "name": long("")}));
        assert!(matches!(talk.out.events[..], [AgentEvent::ItemStarted { .. }]), "{number}");
    }
    assert!(talk.acp.snapshot().len() < SNAPSHOT_BYTES_MAX, "{}", talk.acp.snapshot().len());
    let over = |end: &str| {
        json!({"sessionUpdate": "tool_call_update", "toolCallId": long(end),
            "status": "completed"})
    };
    talk.update(over("7"));
    let [(seventh, ItemStatus::Completed)] = talk.completed()[..] else { panic!() };
    let seventh = seventh.to_owned();
    talk.update(over("8"));
    let [(eighth, ItemStatus::Completed)] = talk.completed()[..] else { panic!() };
    assert_ne!(seventh, eighth);
    assert!(talk.update(over("8")).is_quiet(), "it is over, and known to be");
}

#[test]
fn messages_with_long_ids_are_kept_small_and_apart() {
    let mut talk = Talk::busy();
    let mut say = |id: &str| {
        talk.update(json!({"sessionUpdate": "agent_message_chunk", "messageId": long(id),
            "content": {"type": "text", "text": "a"}}));
        let is_new = |event: &AgentEvent| matches!(event, AgentEvent::ItemStarted { .. });
        assert!(talk.acp.snapshot().len() < LONG);
        talk.out.events.iter().any(is_new)
    };
    assert_eq!([say("1"), say("1"), say("2")], [true, false, true]);
}

#[test]
fn options_with_long_texts_are_cut_or_left_out() {
    let mut talk = Talk::busy();
    for id in 0..250 {
        let options = json!([
            {"optionId": "yes", "name": long(""), "kind": long("")},
            {"optionId": long(""), "name": "Never", "kind": "reject_once"},
        ]);
        let call = json!({"toolCallId": long(""), "title": long("")});
        let params = json!({"sessionId": "s1", "toolCall": call, "options": options});
        talk.hear(json!({"id": id, "method": "session/request_permission", "params": params}));
        let Some(AgentEvent::ApprovalAsked { options, title, .. }) = talk.out.events.last() else {
            panic!("{:?}", talk.out.events)
        };
        assert_eq!(options.len(), 1);
        assert!(options[0].label.len() < LONG && title.len() < LONG);
    }
    assert!(talk.acp.snapshot().len() < SNAPSHOT_BYTES_MAX, "{}", talk.acp.snapshot().len());
}

#[test]
fn what_an_agent_says_of_itself_is_cut_or_left_out() {
    let choices = |id: &str| -> Vec<Value> {
        let choice = |n: usize| json!({id: format!("m{n}"), "value": n, "name": long("")});
        (0..600).map(choice).chain([json!({id: long(""), "name": "long"})]).collect()
    };
    let mut acp = Acp::new();
    let mut out = Effects::default();
    acp.open(&Open::default(), &mut out);
    let mut hello = initialized(json!({}));
    hello["result"]["agentInfo"] = json!({"name": long("")});
    let session = json!({"id": 2, "result": {"sessionId": "s1",
        "modes": {"currentModeId": long(""), "availableModes": choices("id")},
        "models": {"currentModelId": long(""), "availableModels": choices("modelId")},
        "configOptions": [{"id": long(""), "category": "thought_level",
            "currentValue": long(""), "options": choices("value")}]}});
    for line in [hello, session] {
        acp.line(line.to_string().as_bytes(), &mut out);
    }
    assert!(acp.is_open());
    let told = acp.capabilities();
    assert!(told.modes.iter().chain(&told.models).all(|choice| choice.id.len() < LONG));
    assert!(told.modes.len() < 600 && told.models.len() < 600 && !told.modes.is_empty());
    assert!(acp.snapshot().len() < SNAPSHOT_BYTES_MAX, "{}", acp.snapshot().len());
    // A session that can not be named later is none.
    let mut talk = Talk::open(&Open::default());
    talk.hear(initialized(json!({})));
    talk.hear(json!({"id": 2, "result": {"sessionId": long("")}}));
    assert_eq!(talk.failed_open(), ("protocol_error", false));
}

#[test]
fn what_an_older_server_has_kept_whole_is_found() {
    let mut talk = Talk::busy();
    let call = |kind: &str, status: &str| {
        let id = long("");
        json!({"sessionUpdate": kind, "toolCallId": id, "status": status})
    };
    talk.update(call("tool_call", "in_progress"));
    let mut snapshot: Value = serde_json::from_str(&talk.acp.snapshot()).unwrap();
    assert_ne!(snapshot["tools"][0]["id"], long(""));
    snapshot["tools"][0]["id"] = json!(long(""));
    talk.acp = Acp::restore(&snapshot).unwrap().0;
    talk.update(call("tool_call_update", "completed"));
    assert!(matches!(talk.out.events[..], [AgentEvent::ItemCompleted { .. }]), "{:?}", talk.out);
}
