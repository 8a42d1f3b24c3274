//! Handshake, prompts, settings, and what stays on disk.

use crate::client::{Client, DEADLINE, said};
use gooselake_harness::temp::TempDir;
use serde_json::{Value, json};
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn the_handshake_says_what_the_agent_can_do() {
    let state = TempDir::new("gg-demo-state");
    let mut client = Client::start(state.path(), &[], &[]);
    let early = client.error("session/new", json!({"cwd": "/", "mcpServers": []}));
    assert_eq!(early["code"], -32600);
    let told = client.initialize(json!({}));
    assert_eq!(told["protocolVersion"], 1);
    assert_eq!(told["agentInfo"]["name"], "gg-demo-agent");
    let can = &told["agentCapabilities"];
    assert_eq!(can["loadSession"], true);
    assert_eq!(can["promptCapabilities"]["image"], true);
    assert_eq!(can["promptCapabilities"]["embeddedContext"], true);
    assert_eq!(can["sessionCapabilities"], json!({"resume": {}, "list": {}, "close": {}}));
    client.close_stdin();
    assert_eq!(client.wait_end(), (Some(0), String::new()));
}

#[test]
fn a_newcomers_hello_is_answered_in_deltas_with_usage_and_a_title() {
    let (mut client, session, _state) = Client::ready(&[]);
    let turn = client.prompt(&session, "hello");
    assert_eq!(turn.stop_reason(), "end_turn");
    assert!(turn.said().starts_with("You said: hello\n"), "{}", turn.said());
    assert!(turn.of("agent_message_chunk").len() > 5);
    let usage = &turn.answer["result"]["usage"];
    assert_eq!(usage["inputTokens"], 2);
    let tokens = |name| usage[name].as_u64().unwrap();
    assert_eq!(tokens("totalTokens"), 2 + tokens("outputTokens"));
    let update = turn.of("usage_update")[0];
    assert_eq!((&update["used"], &update["size"]), (&usage["totalTokens"], &json!(100_000)));
    assert_eq!(turn.of("session_info_update")[0]["title"], "hello");
    // Only the first prompt gives a title.
    assert!(client.prompt(&session, "again").of("session_info_update").is_empty());
}

#[test]
fn directives_run_in_order_and_other_lines_are_passed_over() {
    let (mut client, session, _state) = Client::ready(&[]);
    let text = "<team_msg>\nTHINK hm, well\nplan look; act\nSay one two\ninstant\n</team_msg>";
    let turn = client.prompt(&session, text);
    assert_eq!(said(&turn.updates, "agent_thought_chunk"), "hm, well");
    assert_eq!(turn.said(), "one twook");
    let plans = turn.of("plan");
    let statuses = |plan: &Value| -> Vec<String> {
        let entries = plan["entries"].as_array().unwrap();
        entries.iter().map(|entry| entry["status"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(statuses(plans[0]), ["pending", "pending"]);
    assert_eq!(statuses(plans[1]), ["in_progress", "pending"]);
    assert_eq!(statuses(plans[plans.len() - 1]), ["completed", "completed"]);
    // Two messages have two ids, and one message has one.
    let chunks = turn.of("agent_message_chunk");
    assert_eq!(chunks[0]["messageId"], chunks[1]["messageId"]);
    assert_ne!(chunks[1]["messageId"], chunks[2]["messageId"]);
}

#[test]
fn a_turn_can_end_in_each_way() {
    let (mut client, session, _state) = Client::ready(&[]);
    for (text, reason) in [
        ("instant", "end_turn"),
        ("refuse\nsay not said", "refusal"),
        ("say some\nmaxtokens", "max_tokens"),
    ] {
        let turn = client.prompt(&session, text);
        assert_eq!(turn.stop_reason(), reason);
        assert!(!turn.said().contains("not said"));
    }
    let error = &client.prompt(&session, "fail out of luck").answer["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!(-32603), &json!("out of luck")));
    let error = &client.prompt(&session, "fail -32000 Log in").answer["error"];
    assert_eq!((&error["code"], &error["message"]), (&json!(-32000), &json!("Log in")));
    // And the session is as good as before.
    assert_eq!(client.prompt(&session, "instant").said(), "ok");
}

#[test]
fn another_process_loads_a_session_with_its_history_or_resumes_it_without() {
    let (mut first, session, state) = Client::ready(&["--no-permission"]);
    first.prompt(&session, "say the word is plum");
    first.prompt(&session, "think hm\nrun echo made; exit 3");
    first.result("session/set_mode", json!({"sessionId": session, "modeId": "auto"}));
    let large = json!({"sessionId": session, "configId": "model", "value": "demo-large"});
    first.result("session/set_config_option", large);
    drop(first);

    let params = json!({"sessionId": session, "cwd": "/tmp", "mcpServers": []});
    let mut second = Client::start(state.path(), &[], &[]);
    second.initialize(json!({}));
    let id = second.send_request("session/load", params.clone());
    let loaded = second.until_answer(id);
    assert_eq!(loaded.answer["result"]["modes"]["currentModeId"], "auto");
    assert_eq!(loaded.answer["result"]["configOptions"][0]["currentValue"], "demo-large");
    let users = said(&loaded.updates, "user_message_chunk");
    assert_eq!(users, "say the word is plumthink hm\nrun echo made; exit 3");
    assert!(loaded.said().starts_with("the word is plum"));
    let (call, statuses) = loaded.call();
    assert_eq!(
        (call["rawOutput"]["exit_code"].clone(), statuses),
        (json!(3), vec!["failed".to_owned()])
    );

    let mut third = Client::start(state.path(), &[], &[]);
    third.initialize(json!({}));
    let id = third.send_request("session/resume", params);
    assert!(third.until_answer(id).updates.is_empty());
    let told = third.prompt(&session, "history").said();
    assert_eq!(told, "1: say the word is plum\n2: think hm\nrun echo made; exit 3");
    // The usage goes on from where it was, and the title is not given again.
    let turn = third.prompt(&session, "instant");
    assert!(turn.of("usage_update")[0]["used"].as_u64().unwrap() > 20);
    assert!(turn.of("session_info_update").is_empty());
}

#[test]
fn a_history_that_was_torn_by_a_crash_is_read_up_to_there() {
    let (mut first, session, state) = Client::ready(&[]);
    first.prompt(&session, "say kept");
    drop(first);
    let file = state.path().join(format!("{session}.jsonl"));
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&whole[..], b"{\"update\":{\"sess"].concat()).unwrap();

    let mut second = Client::start(state.path(), &[], &[]);
    second.initialize(json!({}));
    let params = json!({"sessionId": session, "cwd": "/tmp", "mcpServers": []});
    second.result("session/resume", params.clone());
    second.prompt(&session, "say after");
    let id = second.send_request("session/load", params);
    assert_eq!(second.until_answer(id).said(), "keptafter");
}

#[test]
fn what_is_not_there_is_an_error() {
    let (mut client, session, _state) = Client::ready(&[]);
    let load = |id: &str, cwd: &str| json!({"sessionId": id, "cwd": cwd, "mcpServers": []});
    for (method, params, code) in [
        ("session/load", load("demo_none_1", "/"), -32002),
        ("session/resume", load("../../etc/passwd", "/"), -32002),
        ("session/load", load(&session, "relative"), -32602),
        ("session/new", json!({"cwd": "/"}), -32602),
        ("session/prompt", json!({"sessionId": "nope", "prompt": []}), -32002),
        ("session/prompt", json!({"sessionId": session, "prompt": "text"}), -32602),
        ("session/set_mode", json!({"sessionId": session, "modeId": "yolo"}), -32602),
        (
            "session/set_config_option",
            json!({"sessionId": session, "configId": "model", "value": "x"}),
            -32602,
        ),
        ("no/such", json!({}), -32601),
    ] {
        assert_eq!(client.error(method, params.clone())["code"], code, "{method} {params}");
    }
    client.send_line(b"{broken");
    let answer = client.until("a parse error", |message| message["id"].is_null());
    assert_eq!(answer["error"]["code"], -32700);
}

#[test]
fn an_agent_without_resume_offers_none() {
    let state = TempDir::new("gg-demo-state");
    let mut client = Client::start(state.path(), &["--no-resume"], &[]);
    let can = client.initialize(json!({}))["agentCapabilities"].clone();
    assert_eq!(can["loadSession"], false);
    assert!(can["sessionCapabilities"].get("resume").is_none());
    let session = client.new_session();
    let params = json!({"sessionId": session, "cwd": "/", "mcpServers": []});
    assert_eq!(client.error("session/load", params.clone())["code"], -32601);
    assert_eq!(client.error("session/resume", params)["code"], -32601);
}

#[test]
fn settings_are_answered_and_told() {
    let (mut client, session, _state) = Client::ready(&[]);
    let params = json!({"sessionId": session, "modeId": "plan"});
    let id = client.send_request("session/set_mode", params);
    let turn = client.until_answer(id);
    assert_eq!(turn.of("current_mode_update")[0]["currentModeId"], "plan");
    let params = json!({"sessionId": session, "configId": "effort", "value": "high"});
    let id = client.send_request("session/set_config_option", params);
    let turn = client.until_answer(id);
    let options = &turn.answer["result"]["configOptions"];
    assert_eq!(
        (&options[1]["id"], &options[1]["currentValue"]),
        (&json!("effort"), &json!("high"))
    );
    assert_eq!(turn.of("config_option_update")[0]["configOptions"], *options);
}

#[test]
fn sessions_are_listed_and_closed() {
    let (mut client, first, _state) = Client::ready(&[]);
    client.prompt(&first, "say one");
    let second = client.new_session();
    client.prompt(&second, "say two");
    let cwd = client.cwd.path().to_owned();
    let list = client.result("session/list", json!({"cwd": cwd}));
    let mut titles: Vec<&str> = list["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|it| it["title"].as_str().unwrap())
        .collect();
    titles.sort_unstable();
    assert_eq!(titles, ["say one", "say two"]);
    assert!(list["sessions"][0]["updatedAt"].as_str().unwrap().ends_with('Z'));
    assert_eq!(client.result("session/list", json!({"cwd": "/none"})), json!({"sessions": []}));

    // The one that is closed is gone, the other one is busy.
    let running = client.start_prompt(&second, "slow 10 600000");
    client.result("session/close", json!({"sessionId": first}));
    let prompt = json!({"sessionId": first, "prompt": []});
    assert_eq!(client.error("session/prompt", prompt)["code"], -32002);
    let prompt = json!({"sessionId": second, "prompt": []});
    assert_eq!(client.error("session/prompt", prompt)["code"], -32600);
    // Closing a busy session ends its turn.
    client.send_request("session/close", json!({"sessionId": second}));
    assert_eq!(client.until_answer(running).stop_reason(), "cancelled");
}

#[test]
fn two_sessions_talk_at_the_same_time() {
    let (mut client, first, _state) = Client::ready(&[]);
    let second = client.new_session();
    let slow = client.start_prompt(&first, "slow 1000000 1000");
    let turn = client.prompt(&second, "say quick");
    assert_eq!((turn.stop_reason(), turn.said().as_str()), ("end_turn", "quick"));
    client.cancel(&first);
    assert_eq!(client.until_answer(slow).stop_reason(), "cancelled");
}

#[test]
fn images_and_the_environment_are_told() {
    let state = TempDir::new("gg-demo-state");
    let mut client = Client::start(state.path(), &[], &[("GG_DEMO_TEST_WORD", "plum")]);
    client.initialize(json!({}));
    let session = client.new_session();
    let text = "image\nsay :\nenv GG_DEMO_TEST_WORD\nsay :\nenv GG_DEMO_TEST_NONE";
    let prompt = json!([{"type": "text", "text": text},
        {"type": "image", "mimeType": "image/png", "data": "iVBORw0KGgo="}]);
    let id = client.send_request("session/prompt", json!({"sessionId": session, "prompt": prompt}));
    assert_eq!(client.until_answer(id).said(), "1 image: image/png 8 bytes:plum:unset");
}

#[test]
fn a_slow_start_is_slow_and_ends_with_stdin() {
    let state = TempDir::new("gg-demo-state");
    let start = Instant::now();
    let mut client = Client::start(state.path(), &[], &[("GG_DEMO_DELAY_MS", "150")]);
    client.initialize(json!({}));
    assert!(start.elapsed() >= Duration::from_millis(150));
    let mut client = Client::start(state.path(), &[], &[("GG_DEMO_DELAY_MS", "3000000")]);
    client.send_request("initialize", json!({}));
    client.close_stdin();
    assert_eq!(client.wait_end().0, Some(0));
    assert!(start.elapsed() < DEADLINE);
}

#[test]
fn the_command_line_explains_itself() {
    let run = |argument: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gg-demo-agent"));
        let output = command.arg(argument).output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, help) = run("--help");
    assert_eq!(code, Some(0));
    let readme = include_str!("../../README.md");
    for word in include_str!("../../src/directive.rs").lines().filter_map(|line| {
        line.trim().strip_prefix('"')?.split_once("\" => ").map(|(word, _)| word)
    }) {
        let documented =
            |text: &str| text.contains(&format!("  {word} ")) || text.contains(&format!("`{word}"));
        assert!(documented(&help), "--help does not know {word}");
        assert!(documented(readme), "README.md does not know {word}");
    }
    assert_eq!(
        run("--version"),
        (Some(0), format!("gg-demo-agent {}\n", env!("CARGO_PKG_VERSION")))
    );
    assert_eq!(run("--fast").0, Some(2));
}
