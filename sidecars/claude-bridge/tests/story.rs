//! The translator alone, in conversations that were not recorded: what the program says of its messages decides which
//! result ends a prompt, and time decides when nothing is said.

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

use claude_bridge::bridge::{Bridge, Effect};
use serde_json::{Value, json};

/// A translator with one open session, `id-1`.
struct Talk {
    bridge: Bridge,
    effects: Vec<Effect>,
    last_id: i64,
}

impl Talk {
    fn open() -> Talk {
        let mut number = 0;
        let fresh_id = move || {
            number += 1;
            format!("id-{number}")
        };
        let bridge = Bridge::new(false, Box::new(fresh_id));
        let mut talk = Talk { bridge, effects: Vec::new(), last_id: 0 };
        talk.ask("initialize", json!({"clientCapabilities": {"session": {"notices": {}}}}));
        talk.ask("session/new", json!({"cwd": "/", "mcpServers": []}));
        talk.begin();
        assert_eq!(talk.answer(2)["result"]["sessionId"], "id-1");
        talk
    }

    /// The program has started.
    fn begin(&mut self) {
        let request = self.control("initialize");
        self.succeed(&request, json!({}));
        let request = self.control("get_settings");
        self.hear(json!({"type": "control_response", "response":
            {"subtype": "error", "request_id": request, "error": "unknown"}}));
    }

    /// The program ends by itself.
    fn crash(&mut self) {
        self.bridge.claude_ended("id-1", " (exit code 3)", &mut self.effects);
    }

    fn set_mode(&mut self, mode: &str) -> i64 {
        self.ask("session/set_mode", json!({"sessionId": "id-1", "modeId": mode}))
    }

    fn set_option(&mut self, option: &str, value: &str) -> i64 {
        let params = json!({"sessionId": "id-1", "configId": option, "value": value});
        self.ask("session/set_config_option", params)
    }

    /// What follows this argument in the command line of the last program.
    fn argument(&self, name: &str) -> Option<&str> {
        let arguments = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Start { arguments, .. } => Some(arguments),
            _ => None,
        })?;
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(String::as_str)
    }

    /// How often a program was started.
    fn starts(&self) -> usize {
        self.effects.iter().filter(|effect| matches!(effect, Effect::Start { .. })).count()
    }

    /// A prompt that may have to wait for a program.
    fn ask_prompt(&mut self, text: &str) -> i64 {
        let prompt = json!([{"type": "text", "text": text}]);
        self.ask("session/prompt", json!({"sessionId": "id-1", "prompt": prompt}))
    }

    fn ask(&mut self, method: &str, params: Value) -> i64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    fn send(&mut self, message: Value) {
        self.bridge.client_line(message.to_string().as_bytes(), &mut self.effects);
    }

    fn hear(&mut self, message: Value) {
        let line = message.to_string();
        self.bridge.claude_line("id-1", line.as_bytes(), &mut self.effects);
    }

    /// Asks with a text; the id of the request, and of the message.
    fn say(&mut self, method: &str, text: &str) -> (i64, String) {
        let prompt = json!([{"type": "text", "text": text}]);
        let id = self.ask(method, json!({"sessionId": "id-1", "prompt": prompt}));
        let uuid = self.claude().last().unwrap()["uuid"].as_str().unwrap().to_owned();
        (id, uuid)
    }

    fn cancel(&mut self) {
        let params = json!({"sessionId": "id-1"});
        self.send(json!({"jsonrpc": "2.0", "method": "session/cancel", "params": params}));
    }

    fn place(&mut self, uuid: &str, state: &str) {
        self.hear(json!({"type": "command_lifecycle", "command_uuid": uuid, "state": state}));
    }

    fn result(&mut self) {
        self.hear(json!({"type": "result", "subtype": "success", "is_error": false,
            "usage": {"input_tokens": 10, "output_tokens": 1}}));
    }

    fn succeed(&mut self, request: &str, response: Value) {
        self.hear(json!({"type": "control_response", "response":
            {"subtype": "success", "request_id": request, "response": response}}));
    }

    /// Lines for the program.
    fn claude(&self) -> Vec<Value> {
        let lines = self.effects.iter().filter_map(|effect| match effect {
            Effect::Claude { line, .. } => Some(line.clone()),
            _ => None,
        });
        lines.collect()
    }

    /// The id of the last control request of this kind.
    fn control(&self, kind: &str) -> String {
        let lines = self.claude();
        let line = lines.iter().rfind(|line| line["request"]["subtype"] == kind);
        line.unwrap()["request_id"].as_str().unwrap().to_owned()
    }

    /// The answer to a request of the client; null when there is none yet. Panics: there are two.
    fn answer(&self, id: i64) -> Value {
        let answers: Vec<&Value> = self
            .effects
            .iter()
            .filter_map(|effect| match effect {
                Effect::Client(line) if line["id"] == id && line["method"].is_null() => Some(line),
                _ => None,
            })
            .collect();
        assert!(answers.len() < 2, "{answers:?}");
        answers.first().map_or(Value::Null, |answer| (*answer).clone())
    }

    fn is_ended(&self) -> bool {
        self.effects.iter().any(|effect| matches!(effect, Effect::End { .. }))
    }
}

#[test]
fn the_result_of_work_of_its_own_does_not_end_a_prompt() {
    let mut talk = Talk::open();
    let (first, uuid) = talk.say("session/prompt", "one");
    talk.place(&uuid, "queued");
    talk.place(&uuid, "started");
    talk.result();
    talk.place(&uuid, "completed");
    assert_eq!(talk.answer(first)["result"]["stopReason"], "end_turn");
    // A background command has ended and the program works on its own; the next prompt has to wait.
    let (second, uuid) = talk.say("session/prompt", "two");
    talk.result();
    assert!(talk.answer(second).is_null(), "not heard of yet");
    talk.place(&uuid, "queued");
    talk.result();
    assert!(talk.answer(second).is_null(), "not begun yet");
    talk.place(&uuid, "started");
    talk.result();
    assert_eq!(talk.answer(second)["result"]["stopReason"], "end_turn");
}

#[test]
fn a_message_that_was_added_is_waited_for_whether_it_joins_or_comes_behind() {
    for joins in [true, false] {
        let mut talk = Talk::open();
        let (prompt, uuid) = talk.say("session/prompt", "one");
        talk.place(&uuid, "started");
        let (steer, added) = talk.say("_gooselake/steer", "two");
        assert_eq!(talk.answer(steer)["result"], json!({}));
        talk.place(&added, "queued");
        if joins {
            talk.place(&added, "started");
            talk.place(&added, "completed");
            talk.result();
        } else {
            talk.result();
            assert!(talk.answer(prompt).is_null(), "a turn for what was added comes behind");
            talk.place(&added, "started");
            talk.result();
        }
        let tokens = if joins { 11 } else { 22 };
        let result = &talk.answer(prompt)["result"];
        assert_eq!(result["stopReason"], "end_turn");
        assert_eq!(result["usage"]["totalTokens"], tokens);
    }
}

#[test]
fn an_older_program_that_does_not_say_it_is_taken_at_its_first_result() {
    let mut talk = Talk::open();
    let (prompt, _) = talk.say("session/prompt", "one");
    talk.say("_gooselake/steer", "two");
    talk.result();
    assert_eq!(talk.answer(prompt)["result"]["stopReason"], "end_turn");
}

#[test]
fn an_interrupt_takes_back_what_waits_and_ends_a_program_that_does_not_heed_it() {
    let mut talk = Talk::open();
    let (prompt, uuid) = talk.say("session/prompt", "one");
    talk.place(&uuid, "started");
    let (_, added) = talk.say("_gooselake/steer", "two");
    talk.place(&added, "queued");
    talk.cancel();
    let withdrawn = talk.claude();
    let is_withdrawn = |line: &Value| line["request"]["message_uuid"] == added.as_str();
    assert!(withdrawn.iter().any(is_withdrawn), "{withdrawn:?}");
    assert!(!talk.is_ended());
    let key = talk.control("interrupt");
    talk.bridge.alarm("id-1", &key, &mut talk.effects);
    assert!(talk.is_ended(), "it had its time");
    talk.bridge.claude_ended("id-1", " (signal 15)", &mut talk.effects);
    assert_eq!(talk.answer(prompt)["result"]["stopReason"], "cancelled");
}

#[test]
fn a_prompt_that_has_not_begun_is_taken_back() {
    let mut talk = Talk::open();
    let (first, uuid) = talk.say("session/prompt", "one");
    talk.place(&uuid, "queued");
    talk.cancel();
    talk.place(&uuid, "cancelled");
    assert_eq!(talk.answer(first)["result"]["stopReason"], "cancelled");
}

/// The end of a program takes all that runs for its conversation with it, so the next one begins behind it.
#[test]
fn a_program_that_can_not_be_used_again_is_gone_before_the_client_hears_why() {
    let mut talk = Talk::open();
    talk.bridge.claude_ended("id-1", " (exit code 3)", &mut talk.effects);
    let prompt = talk.ask_prompt("one");
    let key = talk.control("initialize");
    talk.bridge.alarm("id-1", &key, &mut talk.effects);
    assert!(talk.is_ended());
    assert!(talk.answer(prompt).is_null(), "the program is still there");
    talk.bridge.claude_ended("id-1", " (signal 15)", &mut talk.effects);
    let error = talk.answer(prompt)["error"].clone();
    assert!(error["message"].as_str().unwrap().contains("did not start in time"), "{error}");
    let starts = talk.starts();
    talk.ask_prompt("two");
    assert_eq!(talk.starts(), starts + 1);
}

#[test]
fn a_prompt_behind_one_that_was_interrupted_in_the_start_waits_for_the_same_program() {
    let mut talk = Talk::open();
    talk.bridge.claude_ended("id-1", " (exit code 3)", &mut talk.effects);
    let first = talk.ask_prompt("one");
    talk.cancel();
    assert_eq!(talk.answer(first)["result"]["stopReason"], "cancelled");
    let second = talk.ask_prompt("two");
    assert!(talk.answer(second).is_null());
    talk.begin();
    assert_eq!(talk.starts(), 2);
    let said = talk.claude().pop().unwrap();
    assert_eq!(said["message"]["content"][0]["text"], "two");
    talk.result();
    assert_eq!(talk.answer(second)["result"]["stopReason"], "end_turn");
}

#[test]
fn a_setting_without_a_program_is_that_of_the_next_one() {
    let mut talk = Talk::open();
    let full = talk.set_mode("acceptEdits");
    let request = talk.control("set_permission_mode");
    talk.succeed(&request, json!({}));
    assert_eq!(talk.answer(full)["result"], json!({}));
    talk.crash();
    let mode = talk.set_mode("plan");
    let model = talk.set_option("model", "small");
    assert_eq!(talk.answer(mode)["result"], json!({}));
    assert_eq!(talk.answer(model)["result"]["configOptions"][0]["currentValue"], "small");
    let unknown = talk.set_mode("everything");
    assert!(talk.answer(unknown)["error"].is_object(), "there is none of that name");
    talk.ask_prompt("one");
    assert_eq!(talk.argument("--permission-mode"), Some("plan"));
    assert_eq!(talk.argument("--model"), Some("small"));
}

#[test]
fn a_program_that_begins_in_another_mode_than_the_one_before_is_put_into_it_or_not_used() {
    for is_taken in [true, false] {
        let mut talk = Talk::open();
        talk.crash();
        talk.set_mode("default");
        let prompt = talk.ask_prompt("one");
        let request = talk.control("initialize");
        talk.succeed(&request, json!({"current_permission_mode": "acceptEdits"}));
        let request = talk.control("set_permission_mode");
        assert_eq!(talk.claude().last().unwrap()["request"]["mode"], "default");
        if is_taken {
            talk.succeed(&request, json!({}));
            let request = talk.control("get_settings");
            talk.succeed(&request, json!({}));
            assert_eq!(talk.claude().last().unwrap()["type"], "user");
        } else {
            talk.hear(json!({"type": "control_response", "response":
                {"subtype": "error", "request_id": request, "error": "not here"}}));
            assert!(talk.is_ended());
            talk.crash();
            let error = talk.answer(prompt)["error"].to_string();
            assert!(error.contains("mode default") && error.contains("not here"), "{error}");
            assert!(talk.claude().iter().all(|line| line["type"] != "user"));
        }
    }
}

#[test]
fn a_setting_for_a_program_that_starts_comes_before_the_prompt() {
    let mut talk = Talk::open();
    talk.crash();
    talk.ask_prompt("one");
    talk.cancel();
    let mode = talk.set_mode("plan");
    talk.ask_prompt("two");
    assert!(talk.answer(mode).is_null(), "nobody has taken it yet");
    talk.begin();
    let lines = talk.claude();
    let asked = lines.iter().position(|line| line["request"]["mode"] == "plan").unwrap();
    let said = lines.iter().position(|line| line["type"] == "user").unwrap();
    assert!(asked < said, "{lines:?}");
    let request = talk.control("set_permission_mode");
    talk.succeed(&request, json!({}));
    assert_eq!(talk.answer(mode)["result"], json!({}));
}

#[test]
fn the_last_word_that_a_program_took_with_it_is_that_of_the_next_one() {
    for is_starting in [true, false] {
        let mut talk = Talk::open();
        if is_starting {
            talk.crash();
            talk.ask_prompt("one");
            talk.cancel();
        }
        // More than nine requests: the tenth must not come before the ninth.
        let modes = ["default", "acceptEdits"].into_iter().cycle().take(11).chain(["plan"]);
        let asked: Vec<i64> = modes.map(|mode| talk.set_mode(mode)).collect();
        talk.crash();
        for id in asked {
            assert_eq!(talk.answer(id)["result"], json!({}), "{is_starting}");
        }
        talk.ask_prompt("two");
        assert_eq!(talk.argument("--permission-mode"), Some("plan"));
    }
}

#[test]
fn a_message_that_was_added_and_never_begins_is_not_waited_for() {
    for is_cancelled in [true, false] {
        let mut talk = Talk::open();
        let (prompt, uuid) = talk.say("session/prompt", "one");
        talk.place(&uuid, "started");
        let (_, added) = talk.say("_gooselake/steer", "two");
        talk.place(&added, "queued");
        talk.result();
        assert!(talk.answer(prompt).is_null(), "it is to begin behind");
        if is_cancelled {
            talk.cancel();
        }
        talk.place(&added, if is_cancelled { "cancelled" } else { "discarded" });
        let reason = if is_cancelled { "cancelled" } else { "end_turn" };
        assert_eq!(talk.answer(prompt)["result"]["stopReason"], reason);
    }
}

#[test]
fn a_message_that_was_added_and_is_over_without_a_beginning_is_not_waited_for() {
    for is_told_first in [true, false] {
        let mut talk = Talk::open();
        let (prompt, uuid) = talk.say("session/prompt", "one");
        talk.place(&uuid, "started");
        let (_, added) = talk.say("_gooselake/steer", "two");
        talk.place(&added, "queued");
        if is_told_first {
            talk.place(&added, "completed");
            assert!(talk.answer(prompt).is_null(), "its result is to come");
            talk.result();
        } else {
            talk.result();
            talk.place(&uuid, "completed");
            assert!(talk.answer(prompt).is_null(), "it is to begin behind");
            talk.place(&added, "completed");
        }
        assert_eq!(talk.answer(prompt)["result"]["stopReason"], "end_turn");
    }
}

#[test]
fn any_number_of_tokens_is_told() {
    let mut talk = Talk::open();
    let (prompt, uuid) = talk.say("session/prompt", "one");
    talk.place(&uuid, "started");
    let (_, added) = talk.say("_gooselake/steer", "two");
    let usage = json!({"input_tokens": u64::MAX, "output_tokens": u64::MAX,
        "cache_read_input_tokens": u64::MAX, "cache_creation_input_tokens": 1,
        "output_tokens_details": {"thinking_tokens": u64::MAX}});
    let event = json!({"type": "message_delta", "delta": {}, "usage": usage});
    talk.hear(json!({"type": "stream_event", "parent_tool_use_id": null, "event": event}));
    for _ in 0..2 {
        talk.hear(json!({"type": "result", "subtype": "success", "is_error": false,
            "usage": usage, "modelUsage": {"m": {"contextWindow": 1000}}}));
        talk.place(&added, "started");
    }
    let told = &talk.answer(prompt)["result"]["usage"];
    for field in ["inputTokens", "thoughtTokens", "totalTokens"] {
        assert_eq!(told[field], u64::MAX, "{field}");
    }
    assert_eq!(told["cachedWriteTokens"], 2);
    let used = talk.effects.iter().any(|effect| {
        matches!(effect, Effect::Client(line) if line["params"]["update"]["used"] == u64::MAX)
    });
    assert!(used, "the window holds no more than that");
}

#[test]
fn a_program_that_does_not_start_in_time_is_ended_and_the_client_hears_why() {
    let fresh_id = || "id-1".to_owned();
    let bridge = Bridge::new(false, Box::new(fresh_id));
    let mut talk = Talk { bridge, effects: Vec::new(), last_id: 0 };
    talk.ask("initialize", json!({}));
    let id = talk.ask("session/new", json!({"cwd": "/", "mcpServers": []}));
    let key = talk.control("initialize");
    talk.bridge.alarm("id-1", &key, &mut talk.effects);
    assert_eq!(talk.answer(id)["error"]["code"], -32603);
    assert!(talk.is_ended());
}

#[test]
fn a_suggestion_holds_for_the_session_alone_and_never_for_the_project() {
    let mut talk = Talk::open();
    talk.say("session/prompt", "one");
    let suggestions = json!([
        {"type": "addRules", "behavior": "allow", "destination": "localSettings",
            "rules": [{"toolName": "Bash", "ruleContent": "rm x"}]},
        {"type": "setMode", "mode": "acceptEdits", "destination": "session"},
    ]);
    talk.hear(json!({"type": "control_request", "request_id": "r", "request": {
        "subtype": "can_use_tool", "tool_name": "Bash", "tool_use_id": "t",
        "input": {"command": "rm x"}, "permission_suggestions": suggestions}}));
    let outcome = json!({"outcome": "selected", "optionId": "allow_session"});
    talk.send(json!({"jsonrpc": "2.0", "id": 1, "result": {"outcome": outcome}}));
    let answer = talk.claude().pop().unwrap();
    let permissions = &answer["response"]["response"]["updatedPermissions"];
    assert_eq!(permissions.as_array().unwrap().len(), 1, "the rule is narrower than the mode");
    assert_eq!(permissions[0]["destination"], "session");
}

#[test]
fn secrets_and_instructions_go_through_the_pipe() {
    let fresh_id = || "id-1".to_owned();
    let bridge = Bridge::new(true, Box::new(fresh_id));
    let mut talk = Talk { bridge, effects: Vec::new(), last_id: 0 };
    talk.ask("initialize", json!({}));
    talk.ask(
        "session/new",
        json!({"cwd": "/", "systemPrompt": {"content": [{"text": "be kind"}]},
        "mcpServers": [{"name": "m", "command": "c", "env": [{"name": "T", "value": "secret"}]}]}),
    );
    let request = talk.control("initialize");
    talk.succeed(&request, json!({}));
    let request = talk.control("get_settings");
    talk.succeed(&request, json!({}));
    let sent = json!(talk.claude()).to_string();
    assert!(sent.contains(r#""T":"secret""#) && sent.contains(r#""appendSystemPrompt":"be kind""#));
    for effect in &talk.effects {
        if let Effect::Start { arguments, .. } = effect {
            let line = arguments.join(" ");
            assert!(!line.contains("secret") && !line.contains("kind"), "{line}");
            assert!(line.contains("--allow-dangerously-skip-permissions"), "{line}");
        }
    }
}
