//! Tests of what the recordings do not show: items, settings, usage, bounds. One story each.

use crate::model::{ItemStatus, ItemType};
use crate::provider::acp::talk::{Talk, initialized, settings};
use crate::provider::{Adapter, AgentEvent, Command, DeltaField, Open};
use serde_json::{Value, json};

#[test]
fn a_message_with_an_id_goes_on_around_a_tool_and_one_without_does_not() {
    let tool = json!({"sessionUpdate": "tool_call", "toolCallId": "t", "kind": "execute"});
    let piece = |id: Option<&str>| {
        json!({"sessionUpdate": "agent_message_chunk", "messageId": id,
            "content": {"type": "text", "text": "x"}})
    };
    let mut talk = Talk::busy();
    talk.update(piece(Some("m1")));
    assert!(talk.update(tool.clone()).completed().is_empty());
    assert_eq!(talk.update(piece(Some("m1"))).out.events.len(), 1);
    let next = talk.update(piece(Some("m2"))).completed();
    assert_eq!(next, [("message:m1", ItemStatus::Completed)]);

    let mut talk = Talk::busy();
    talk.update(piece(None));
    talk.update(json!({"sessionUpdate": "available_commands_update", "availableCommands": []}));
    assert_eq!(talk.update(piece(None)).out.events.len(), 1);
    assert_eq!(talk.update(tool).completed(), [("message#1", ItemStatus::Completed)]);
    let started = &talk.update(piece(None)).out.events[0];
    assert!(matches!(started, AgentEvent::ItemStarted { item, .. } if item == "message#2"));
}

#[test]
fn content_that_is_no_text_is_an_item_of_its_own() {
    let mut talk = Talk::busy();
    let mut shown = |content: Value| {
        talk.update(json!({"sessionUpdate": "agent_message_chunk", "content": content}));
        match &talk.out.events[..] {
            [AgentEvent::ItemStarted { item_type, body, .. }, AgentEvent::ItemCompleted { .. }] => {
                (*item_type, json!(body))
            }
            other => panic!("{other:?}"),
        }
    };
    let image = json!({"type": "image", "mimeType": "image/png", "data": "AAAA"});
    let body = json!({"media_type": "image/png", "data": "AAAA"});
    assert_eq!(shown(image), (ItemType::Image, body));
    let link = json!({"type": "resource_link", "uri": "file:///a", "name": "a"});
    assert_eq!(shown(link.clone()), (ItemType::Other, json!({"content": link})));
}

#[test]
fn output_is_told_as_it_grows() {
    let mut talk = Talk::busy();
    let mut output = |status: &str, text: &str| {
        let content = json!([{"type": "content", "content": {"type": "text", "text": text}}]);
        talk.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "t",
            "kind": "execute", "status": status, "content": content}));
        talk.out.events.clone()
    };
    let delta = |text: &str| AgentEvent::ItemDelta {
        item: "tool:t".to_owned(),
        field: DeltaField::Output,
        text: text.to_owned(),
    };
    assert_eq!(output("pending", "what it is for").len(), 1);
    assert_eq!(output("in_progress", "a\n"), [delta("a\n")]);
    assert_eq!(output("in_progress", "a\n"), []);
    assert_eq!(output("in_progress", "a\nb\n"), [delta("b\n")]);
    let rewritten = output("in_progress", "c\n");
    assert!(
        matches!(&rewritten[..], [AgentEvent::ItemSet { body, .. }] if body["output"] == "c\n")
    );
    let last = output("completed", "c\nd");
    assert_eq!(last[0], delta("d"));
    assert!(matches!(&last[1], AgentEvent::ItemCompleted { body, .. } if body.is_empty()));
    assert_eq!(output("in_progress", "late"), [], "a call that is over");
}

#[test]
fn terminal_pieces_are_appended_and_not_told_twice() {
    let mut talk = Talk::busy();
    let mut piece = |data: &str, more: Value| {
        let mut update = json!({"sessionUpdate": "tool_call_update", "toolCallId": "t",
            "kind": "execute", "_meta": {"terminal_output_delta": {"data": data}}});
        update.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        talk.update(update);
        talk.out.events.clone()
    };
    assert_eq!(piece("a\n", json!({"status": "in_progress"})).len(), 2);
    assert_eq!(piece("b\n", json!({})).len(), 1);
    let last = piece(
        "",
        json!({"status": "completed", "rawOutput": {"output": "a\nb\n",
        "exit_code": 3}}),
    );
    let [AgentEvent::ItemCompleted { status, body, .. }] = &last[..] else { panic!("{last:?}") };
    assert_eq!((*status, json!(body)), (ItemStatus::Completed, json!({"exit_code": 3})));
}

#[test]
fn a_call_may_say_later_what_it_is() {
    let mut talk = Talk::busy();
    let call = json!({"sessionUpdate": "tool_call", "toolCallId": "t", "title": "Working"});
    talk.update(call);
    assert!(matches!(
        &talk.out.events[..],
        [AgentEvent::ItemStarted { item_type: ItemType::ToolCall, .. }]
    ));
    talk.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "t", "kind": "edit",
        "content": [{"type": "diff", "path": "/a", "oldText": "1\n", "newText": "2\n"}]}));
    let [AgentEvent::ItemSet { item_type, body, .. }] = &talk.out.events[..] else {
        panic!("{:?}", talk.out.events)
    };
    assert_eq!(*item_type, Some(ItemType::FileChange));
    assert_eq!(body["changes"][0]["kind"], "modify");
    // A path alone does not take the diff away.
    talk.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": "t",
        "locations": [{"path": "/a"}]}));
    assert!(talk.is_quiet());
}

#[test]
fn settings_are_told_when_they_change() {
    let mut talk = Talk::ready_with(&Open::default(), settings());
    let changed = |mode: &str| AgentEvent::SettingsChanged {
        model: None,
        mode: Some(mode.to_owned()),
        reasoning_level: None,
    };
    let mode = |mode: &str| json!({"sessionUpdate": "current_mode_update", "currentModeId": mode});
    assert!(talk.update(mode("default")).is_quiet());
    assert_eq!(talk.update(mode("plan")).out.events, [changed("plan")]);
    assert_eq!(talk.say("[MODE_UPDATE] default").out.events, [changed("default")]);
    talk.update(json!({"sessionUpdate": "session_info_update", "title": "T", "x": 1}));
    assert!(matches!(talk.out.events[..], [AgentEvent::TitleChanged { .. }]));
    talk.update(json!({"sessionUpdate": "session_info_update", "title": "T"}));
    assert!(talk.is_quiet());
    talk.update(json!({"sessionUpdate": "compaction_update", "status": "in_progress"}));
    assert_eq!(talk.notices(), ["compaction: in progress"]);
    talk.update(json!({"sessionUpdate": "notice", "severity": "warning", "message": "slow"}));
    assert_eq!(talk.notices(), ["slow"]);
}

#[test]
fn usage_is_told_once_and_completed_by_the_quota() {
    let mut talk = Talk::busy();
    let update = json!({"sessionUpdate": "usage_update", "used": 10, "size": 100,
        "cost": {"amount": 0.5, "currency": "USD"}});
    let [AgentEvent::Usage(usage)] = &talk.update(update.clone()).out.events[..] else {
        panic!("{:?}", talk.out.events)
    };
    let told = (usage.context_used, usage.context_window, usage.cost_usd);
    assert_eq!(told, (Some(10), Some(100), Some(0.5)));
    assert!(talk.update(update).is_quiet());
    let quota = json!({"token_count": {"input_tokens": 7, "output_tokens": 2.0}});
    let result = json!({"stopReason": "end_turn", "usage": {"inputTokens": 5},
        "_meta": {"quota": quota}});
    let Some(AgentEvent::Usage(usage)) =
        talk.hear(json!({"id": 3, "result": result})).out.events.first()
    else {
        panic!("{:?}", talk.out.events)
    };
    assert_eq!((usage.input_tokens, usage.output_tokens), (Some(5), Some(2)));
    assert_eq!((usage.context_used, usage.cost_usd), (Some(10), Some(0.5)));
}

#[test]
fn what_an_agent_can_leave_open_is_bounded() {
    let mut talk = Talk::busy();
    for n in 0..400 {
        talk.ask(n, &format!("{n}{}", "x".repeat(1000)));
    }
    assert_eq!(talk.sent()[0]["error"]["code"], -32603);
    for n in 0..400 {
        let id = format!("open {n}");
        talk.update(json!({"sessionUpdate": "tool_call", "toolCallId": id, "title": "t"}));
    }
    assert_eq!(talk.completed().len(), 1, "the oldest makes place");
    talk.hear(json!({"id": 3, "result": {"stopReason": "end_turn"}}));
    assert_eq!(talk.completed().len(), 256);
    let bytes = talk.acp.snapshot().len();
    assert!(bytes < 4096, "{bytes} bytes of snapshot between turns");
}

#[test]
fn closing_is_told_where_there_is_a_word_for_it() {
    let mut talk = Talk::busy();
    talk.ask(7, "a");
    talk.tell(Command::Close);
    let cancelled = json!({"outcome": {"outcome": "cancelled"}});
    assert_eq!(talk.sent()[0], json!({"id": 7, "result": cancelled}));
    assert_eq!(talk.methods(), ["session/close"]);
    assert!(talk.hear(json!({"id": 4, "result": {}})).is_quiet());
    let mut talk = Talk::open(&Open::default());
    talk.hear(initialized(json!({})));
    talk.hear(json!({"id": 2, "result": {"sessionId": "s1"}}));
    assert!(talk.tell(Command::Close).is_quiet());
}
