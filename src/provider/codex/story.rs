//! Tests of what the recordings do not show. One story each.

mod bound;
mod turn;

use super::Codex;
use crate::model::input::Input;
use crate::model::{ItemStatus, TurnStatus};
use crate::provider::{Adapter, AgentEvent, Answer, Command, Effects, Open, Steer};
use serde_json::{Value, json};

/// An adapter, and what came out of its last step.
struct Talk {
    codex: Codex,
    out: Effects,
}

const THREAD: &str = "t1";

impl Talk {
    /// The requests 1 initialize, 2 account, 3 thread, 4 models.
    fn open(open: &Open) -> Talk {
        let mut talk = Talk { codex: Codex::new(), out: Effects::default() };
        talk.codex.open(open, &mut talk.out);
        talk
    }

    fn ready_with(open: &Open) -> Talk {
        let mut talk = Talk::open(open);
        talk.hear(json!({"id": 1, "result": {"userAgent": "gooselake/0.169.0 (x)"}}));
        talk.hear(
            json!({"id": 2, "result": {"account": {"type": "apiKey"}, "requiresOpenaiAuth": true}}),
        );
        talk.hear(json!({"id": 4, "result": {"data": [
            {"model": "small", "displayName": "Small",
                "supportedReasoningEfforts": [{"reasoningEffort": "low"}]},
            {"model": "large", "supportedReasoningEfforts": [{"reasoningEffort": "high"}]}]}}));
        talk.hear(json!({"id": 3, "result": {
            "thread": {"id": THREAD}, "model": "small", "reasoningEffort": "low",
            "approvalPolicy": "on-request",
            "sandbox": {"type": "readOnly", "networkAccess": false}}}));
        talk
    }

    fn ready() -> Talk {
        Talk::ready_with(&Open::default())
    }

    /// In a turn of ours that Codex calls `n1`; its start has the id 5.
    fn busy() -> Talk {
        let mut talk = Talk::ready();
        talk.tell(turn("hello"));
        talk.hear(json!({"id": 5, "result": {"turn": {"id": "n1"}}}));
        talk
    }

    fn hear(&mut self, message: Value) -> &mut Talk {
        self.out = Effects::default();
        self.codex.line(message.to_string().as_bytes(), &mut self.out);
        self
    }

    fn note(&mut self, method: &str, mut params: Value) -> &mut Talk {
        params["threadId"] = json!(THREAD);
        self.hear(json!({"method": method, "params": params}))
    }

    fn item(&mut self, method: &str, turn: &str, item: Value) -> &mut Talk {
        self.note(method, json!({"turnId": turn, "item": item}))
    }

    fn tell(&mut self, command: Command) -> &mut Talk {
        self.out = Effects::default();
        self.codex.command(command, &mut self.out);
        self
    }

    fn answer(&mut self, key: &str, option_id: &str, payload: Option<Value>) -> Value {
        let option_id = option_id.to_owned();
        let answer = Answer::Option { option_id, message: None, payload };
        self.tell(Command::Answer { key: key.to_owned(), answer });
        self.sent()[0]["result"].clone()
    }

    fn completes(&mut self, turn: &str, status: &str) -> &mut Talk {
        self.note("turn/completed", json!({"turn": {"id": turn, "status": status}}))
    }

    fn sent(&self) -> Vec<Value> {
        let lines = self.out.stdin.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }

    fn failed_open(&self) -> (&str, bool, &str) {
        match self.out.events.last() {
            Some(AgentEvent::OpenFailed { error, gone }) => (&error.code, *gone, &error.message),
            other => panic!("{other:?}"),
        }
    }

    fn asked(&self) -> (&str, Option<&str>, &serde_json::Map<String, Value>, Vec<&str>) {
        match self.out.events.last() {
            Some(AgentEvent::ApprovalAsked { key, item, subject, options, .. }) => {
                let ids = options.iter().map(|option| option.id.as_str()).collect();
                (key, item.as_deref(), subject, ids)
            }
            other => panic!("{other:?}"),
        }
    }

    fn completed(&self) -> Vec<(&str, ItemStatus)> {
        let one = |event| match event {
            &AgentEvent::ItemCompleted { ref item, status, .. } => Some((item.as_str(), status)),
            _ => None,
        };
        self.out.events.iter().filter_map(one).collect()
    }

    fn has_ended(&self) -> Option<TurnStatus> {
        self.out.events.iter().find_map(|event| match event {
            AgentEvent::TurnEnded { status, .. } => Some(*status),
            _ => None,
        })
    }
}

fn turn(text: &str) -> Command {
    Command::StartTurn {
        turn_id: "turn_1".to_owned(),
        input: said(text),
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
    }
}

fn steer(text: &str) -> Steer {
    Steer { input: said(text), mail: vec![7] }
}

fn said(text: &str) -> Vec<Input> {
    vec![Input::Text { text: text.to_owned() }]
}

fn command(id: &str) -> Value {
    json!({"type": "commandExecution", "id": id, "command": "/bin/bash -lc 'sleep 9'",
        "status": "inProgress"})
}

#[test]
fn what_can_not_be_opened_says_why_and_what_to_do() {
    let mut talk = Talk::open(&Open::default());
    talk.hear(json!({"id": 1, "result": {"userAgent": "gooselake/0.42.1 (x)"}}));
    let (code, gone, message) = talk.failed_open();
    assert_eq!((code, gone), ("agent_too_old", false));
    assert!(message.contains("0.42.1") && message.contains("update it"), "{message}");

    let mut talk = Talk::open(&Open::default());
    talk.hear(json!({"id": 1, "result": {"userAgent": "gooselake/0.169.0 (x)"}}));
    talk.hear(json!({"id": 2, "result": {"account": null, "requiresOpenaiAuth": true}}));
    let (code, gone, message) = talk.failed_open();
    assert_eq!((code, gone), ("authentication_required", false));
    assert!(message.contains("codex login"), "{message}");
    assert!(talk.sent().is_empty(), "no thread is asked for");

    let failed = |words: &str| {
        let open = Open { resume: Some("old".to_owned()), ..Open::default() };
        let mut talk = Talk::open(&open);
        talk.hear(json!({"id": 1, "result": {"userAgent": "gooselake/0.169.0 (x)"}}));
        talk.hear(json!({"id": 2, "result": {"account": null, "requiresOpenaiAuth": false}}));
        let asked = talk.sent();
        assert_eq!(asked[0]["method"], "thread/resume");
        assert_eq!(asked[0]["params"]["threadId"], "old");
        talk.hear(json!({"id": 3, "error": {"code": -32600, "message": words}}));
        let (code, gone, _) = talk.failed_open();
        (code.to_owned(), gone)
    };
    assert_eq!(failed("no rollout found for thread id old"), ("session_gone".to_owned(), true));
    let busy = "thread old already has an active writer";
    assert_eq!(failed(busy), ("open_failed".to_owned(), false));
}

#[test]
fn a_thread_starts_with_what_the_session_has() {
    let open = Open {
        cwd: "/w".to_owned(),
        model: Some("large".to_owned()),
        reasoning_level: Some("high".to_owned()),
        permission_mode: Some("full-auto".to_owned()),
        system_prompt: Some("be brief".to_owned()),
        mcp_servers: vec![json!({"name": "a", "command": "/x", "args": [], "env": []})],
        ..Open::default()
    };
    let mut talk = Talk::open(&open);
    talk.hear(json!({"id": 1, "result": {"userAgent": "gooselake/0.169.0 (x)"}}));
    assert_eq!(talk.sent()[0], json!({"method": "initialized"}));
    talk.hear(json!({"id": 2, "result": {"account": null, "requiresOpenaiAuth": false}}));
    let params = talk.sent()[0]["params"].clone();
    assert_eq!(
        (&params["approvalPolicy"], &params["sandbox"]),
        (&json!("never"), &json!("workspace-write"))
    );
    assert_eq!(params["config"]["model_reasoning_effort"], "high");
    assert_eq!(params["config"]["mcp_servers"]["a"]["default_tools_approval_mode"], "approve");
    assert_eq!((&params["model"], &params["cwd"]), (&json!("large"), &json!("/w")));
    assert_eq!(params["developerInstructions"], "be brief");
}

#[test]
fn the_models_and_the_levels_of_the_one_in_force_are_told() {
    let talk = Talk::ready();
    let can = talk.codex.capabilities();
    assert!(can.image && can.steer && can.resume);
    assert_eq!(can.models[1].id, "large");
    assert_eq!(can.reasoning_levels.len(), 1);
    assert_eq!(can.reasoning_levels[0].id, "low");
    assert_eq!(can.agent_info["version"], "0.169.0");
    assert!(matches!(talk.out.events[..], [AgentEvent::Opened { .. }]));
}

#[test]
fn a_permission_mode_holds_for_its_turn_alone() {
    let mut talk = Talk::ready();
    let mut start = |permission_mode: Option<&str>, n: u64| {
        let mut command = turn("go");
        if let Command::StartTurn { permission_mode: wanted, .. } = &mut command {
            *wanted = permission_mode.map(str::to_owned);
        }
        let params = talk.tell(command).sent()[0]["params"].clone();
        let native = format!("n{n}");
        talk.hear(json!({"id": n, "result": {"turn": {"id": native}}}));
        talk.completes(&native, "completed");
        (params["approvalPolicy"].clone(), params["sandboxPolicy"]["type"].clone())
    };
    assert_eq!(start(None, 5), (Value::Null, Value::Null), "as the thread was opened");
    assert_eq!(start(Some("danger_full_access"), 6), (json!("never"), json!("dangerFullAccess")));
    assert_eq!(
        start(Some("danger-full-access"), 7),
        (Value::Null, Value::Null),
        "it is so already"
    );
    assert_eq!(start(None, 8), (json!("on-request"), json!("readOnly")), "back to the session's");
}

#[test]
fn a_refused_turn_tells_the_error_and_the_next_one_all_settings() {
    let mut talk = Talk::ready();
    let mut command = turn("go");
    if let Command::StartTurn { permission_mode, model, .. } = &mut command {
        *permission_mode = Some("full_auto".to_owned());
        *model = Some("nonsense".to_owned());
    }
    assert_eq!(talk.tell(command).sent()[0]["params"]["model"], "nonsense");
    talk.hear(json!({"id": 5, "error": {"code": -32600, "message": "no such model"}}));
    assert_eq!(talk.has_ended(), Some(TurnStatus::Failed));
    let params = talk.tell(turn("go")).sent()[0]["params"].clone();
    assert_eq!(params["approvalPolicy"], "on-request");
    assert_eq!(params.get("model"), None);
}

#[test]
fn an_interrupt_ends_the_commands_of_its_turn_and_no_others() {
    let mut talk = Talk::busy();
    talk.item("item/started", "n1", command("server"));
    talk.completes("n1", "completed");
    assert!(talk.out.events.contains(&AgentEvent::ItemGoesOn { item: "item:server".to_owned() }));
    let listed = |ids: &[&str]| -> Value {
        ids.iter().map(|id| json!({"itemId": id, "processId": format!("p-{id}")})).collect()
    };
    talk.hear(json!({"id": 6, "result": {"data": listed(&["server"]), "nextCursor": null}}));
    assert!(talk.out.is_empty(), "it runs, and may");

    talk.tell(turn("next"));
    talk.hear(json!({"id": 7, "result": {"turn": {"id": "n2"}}}));
    talk.item("item/started", "n2", command("long"));
    talk.item("item/started", "n2", command("gone"));
    talk.tell(Command::Interrupt);
    talk.completes("n2", "interrupted");
    talk.hear(json!({"id": 9, "result": {"data": listed(&["server", "long"])}}));
    let sent = talk.sent();
    assert_eq!(sent.len(), 1, "{sent:?}");
    assert_eq!(sent[0]["method"], "thread/backgroundTerminals/terminate");
    assert_eq!(sent[0]["params"]["processId"], "p-long");
    assert_eq!(talk.completed(), [("item:gone", ItemStatus::Interrupted)]);

    let ended = |id: &str, status: &str| {
        let mut item = command(id);
        item["status"] = json!(status);
        item["aggregatedOutput"] = json!("out\n");
        item
    };
    talk.item("item/completed", "n2", ended("long", "failed"));
    assert_eq!(talk.completed(), [("item:long", ItemStatus::Interrupted)]);
    talk.item("item/completed", "n1", ended("server", "completed"));
    assert_eq!(talk.completed(), [("item:server", ItemStatus::Completed)]);
}

#[test]
fn a_list_that_can_not_be_had_leaves_the_command_open() {
    let mut talk = Talk::busy();
    talk.item("item/started", "n1", command("c"));
    talk.tell(Command::Interrupt);
    talk.completes("n1", "interrupted");
    talk.hear(json!({"id": 7, "error": {"code": -32600, "message": "experimental"}}));
    assert!(talk.out.is_empty());
}

#[test]
fn permissions_are_given_for_the_turn_or_the_session_or_not() {
    for (option, scope, is_given) in [
        ("accept", "turn", true),
        ("acceptForSession", "session", true),
        ("decline", "turn", false),
    ] {
        let mut talk = Talk::busy();
        let wanted = json!({"network": {"enabled": true}, "fileSystem": null});
        let params = json!({"threadId": THREAD, "turnId": "n1", "itemId": "i", "cwd": "/w",
            "reason": "to fetch", "permissions": wanted});
        let method = "item/permissions/requestApproval";
        talk.hear(json!({"id": 0, "method": method, "params": params}));
        let (key, _, subject, _) = talk.asked();
        assert_eq!(subject["description"], "to fetch");
        let key = key.to_owned();
        let result = talk.answer(&key, option, None);
        let given = if is_given { json!({"network": {"enabled": true}}) } else { json!({}) };
        assert_eq!(result, json!({"permissions": given, "scope": scope}));
    }
}

#[test]
fn an_mcp_tool_is_asked_about_with_its_item_and_can_be_allowed_for_the_session() {
    let ask = json!({"threadId": THREAD, "turnId": "n1", "serverName": "echo", "mode": "form",
        "_meta": {"codex_approval_kind": "mcp_tool_call", "persist": ["session", "always"],
            "tool_name": "say", "tool_params": {"a": 1}}, "message": "Allow?",
        "requestedSchema": {"type": "object", "properties": {}}});
    let call = json!({"type": "mcpToolCall", "id": "c", "server": "echo", "tool": "say",
        "arguments": {"a": 1}, "status": "inProgress"});
    let mut talk = Talk::busy();
    talk.item("item/started", "n1", call.clone());
    talk.hear(json!({"id": 0, "method": "mcpServer/elicitation/request", "params": ask}));
    let (key, item, subject, ids) = talk.asked();
    assert_eq!((key, item), ("ask#1", Some("item:c")));
    assert_eq!(subject["type"], "mcp_tool");
    assert_eq!(ids, ["accept", "acceptForSession", "decline", "cancel"]);
    let result = talk.answer("ask#1", "acceptForSession", None);
    assert_eq!(result, json!({"action": "accept", "content": {}, "_meta": {"persist": "session"}}));

    talk.hear(json!({"id": 1, "method": "mcpServer/elicitation/request", "params": ask}));
    let result = talk.answer("ask#2", "decline", None);
    assert_eq!(result["action"], "decline");
    let mut over = call;
    over["status"] = json!("failed");
    talk.item("item/completed", "n1", over);
    assert_eq!(talk.completed(), [("item:c", ItemStatus::Declined)]);
}

#[test]
fn several_questions_are_answered_by_the_payload() {
    let mut talk = Talk::busy();
    let questions = json!([
        {"id": "a", "question": "Which?", "options": [{"label": "x"}, {"label": "y"}]},
        {"id": "b", "question": "Why?", "options": null}]);
    let params = json!({"threadId": THREAD, "turnId": "n1", "itemId": "i", "questions": questions});
    talk.hear(json!({"id": 0, "method": "item/tool/requestUserInput", "params": params}));
    assert_eq!(talk.asked().3, ["accept", "decline"]);
    let payload = json!({"answers": {"a": "y", "b": ["because", "so"]}});
    let result = talk.answer("ask#1", "accept", Some(payload));
    let expected = json!({"a": {"answers": ["y"]}, "b": {"answers": ["because", "so"]}});
    assert_eq!(result, json!({"answers": expected}));
}

#[test]
fn the_network_is_asked_about_by_its_host() {
    let mut talk = Talk::busy();
    let params = json!({"threadId": THREAD, "turnId": "n1", "itemId": "i", "kind": "network",
        "networkApprovalContext": {"host": "example.org", "protocol": "https"}});
    let method = "item/commandExecution/requestApproval";
    talk.hear(json!({"id": 0, "method": method, "params": params}));
    let (_, _, subject, ids) = talk.asked();
    assert_eq!(
        (&subject["type"], &subject["host"]),
        (&json!("other"), &json!("https://example.org"))
    );
    assert_eq!(ids, ["accept", "acceptForSession", "decline", "cancel"]);
}

#[test]
fn a_question_that_codex_takes_back_is_withdrawn_and_one_of_no_kind_is_refused() {
    let mut talk = Talk::busy();
    let params = json!({"threadId": THREAD, "turnId": "n1", "itemId": "i"});
    let method = "item/fileChange/requestApproval";
    talk.hear(json!({"id": 7, "method": method, "params": params}));
    talk.note("serverRequest/resolved", json!({"requestId": 7}));
    assert!(
        matches!(&talk.out.events[0], AgentEvent::ApprovalWithdrawn { key, .. } if key == "ask#1")
    );
    talk.hear(json!({"id": 8, "method": "attestation/generate", "params": {}}));
    assert_eq!(talk.sent()[0]["error"]["code"], -32601);
    assert!(matches!(talk.out.events[..], [AgentEvent::Unparsed { .. }]));
}

#[test]
fn a_sub_agents_thread_is_silent_but_for_its_questions() {
    let mut talk = Talk::busy();
    let item = json!({"type": "agentMessage", "id": "m", "text": ""});
    let params = json!({"threadId": "other", "turnId": "x", "item": item});
    assert!(talk.hear(json!({"method": "item/started", "params": params})).out.is_empty());
    let params = json!({"threadId": "other", "turnId": "x", "itemId": "i",
        "command": "/bin/bash -lc 'ls'"});
    let method = "item/commandExecution/requestApproval";
    talk.hear(json!({"id": 0, "method": method, "params": params}));
    assert_eq!(talk.asked().2["command"], "ls");
}

#[test]
fn what_a_sub_agent_asks_is_declined_where_nobody_will_answer_it() {
    let ask = |id: u64, thread: &str| {
        json!({"id": id, "method": "item/commandExecution/requestApproval",
            "params": {"threadId": thread, "turnId": "x", "itemId": "i", "command": "ls"}})
    };
    let mut talk = Talk::busy();
    talk.hear(ask(7, "other"));
    talk.hear(ask(8, THREAD));
    talk.completes("n1", "completed");
    assert_eq!(talk.sent(), [json!({"id": 7, "result": {"decision": "decline"}})]);
    let withdrawn = |event: &&AgentEvent| matches!(event, AgentEvent::ApprovalWithdrawn { .. });
    assert_eq!(talk.out.events.iter().filter(withdrawn).count(), 2);
    // What Codex takes back is withdrawn, whoever has asked.
    let mut talk = Talk::busy();
    talk.hear(ask(7, "other"));
    let resolved = json!({"threadId": "other", "requestId": 7});
    talk.hear(json!({"method": "serverRequest/resolved", "params": resolved}));
    assert!(matches!(talk.out.events[..], [AgentEvent::ApprovalWithdrawn { .. }]));
    assert!(talk.completes("n1", "completed").sent().is_empty());
}

#[test]
fn tokens_are_of_the_turn_and_limits_come_along() {
    let mut talk = Talk::busy();
    let usage = |turn: &str, total: i64, last: i64| {
        json!({"turnId": turn, "tokenUsage": {"total": {"totalTokens": total}, 
            "last": {"totalTokens": last}, "modelContextWindow": 1000}})
    };
    talk.note("thread/tokenUsage/updated", usage("old", 500, 500));
    assert!(talk.out.is_empty(), "a resumed thread tells of its last turn");
    let primary = json!({"usedPercent": 12});
    talk.note("account/rateLimits/updated", json!({"rateLimits": {"primary": primary}}));
    talk.note("thread/tokenUsage/updated", usage("n1", 620, 120));
    let [AgentEvent::Usage(told)] = &talk.out.events[..] else { panic!("{:?}", talk.out) };
    assert_eq!((told.total_tokens, told.context_used), (Some(120), Some(120)));
    assert_eq!(told.raw["rateLimits"]["primary"]["usedPercent"], 12);
    talk.note("thread/tokenUsage/updated", usage("n1", 620, 120));
    assert!(talk.out.is_empty(), "the same is not told twice");
}

#[test]
fn what_an_unknown_version_tells_is_kept_and_warnings_are_told_once() {
    let mut talk = Talk::busy();
    talk.note("thread/dreamed", json!({}));
    assert!(matches!(talk.out.events[..], [AgentEvent::Unparsed { .. }]));
    talk.note("warning", json!({"message": "careful"}));
    assert!(matches!(talk.out.events[..], [AgentEvent::Notice { .. }]));
    assert!(talk.note("warning", json!({"message": "careful"})).out.is_empty());
}

#[test]
fn raw_thoughts_are_shown_where_there_is_no_summary() {
    let mut talk = Talk::busy();
    let thought = |summary: Value, content: Value| {
        let mut item = json!({"type": "reasoning", "id": "r", "summary": summary});
        item["content"] = content;
        item
    };
    talk.item("item/started", "n1", thought(json!([]), json!([])));
    talk.note("item/reasoning/textDelta", json!({"itemId": "r", "delta": "raw"}));
    assert!(matches!(&talk.out.events[..], [AgentEvent::ItemDelta { text, .. }] if text == "raw"));
    talk.item("item/completed", "n1", thought(json!(["short"]), json!(["raw"])));
    let [AgentEvent::ItemCompleted { body, .. }] = &talk.out.events[..] else { panic!() };
    assert_eq!(body["text"], "short");
}
