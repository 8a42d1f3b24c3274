//! The built bridge, as an ACP client sees it, in front of a program that behaves and misbehaves.

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

mod client;

use client::Place;
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::process::Command;

#[test]
fn a_prompt_is_just_a_prompt_however_it_looks_and_never_an_argument() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    let prompt = format!("--help {}", "a".repeat(1 << 20));
    let (said, answer) = client.prompt(&session, &prompt);
    assert_eq!(answer["result"]["stopReason"], "end_turn");
    let bytes: usize = said.strip_prefix("bytes ").unwrap().parse().unwrap();
    assert!(bytes > 1 << 20, "{said}");
    assert_eq!(place.starts().len(), 1);
    assert!(!place.starts()[0].contains("--help"), "{:?}", place.starts());
    assert!(place.starts()[0].contains(&format!("--session-id {session}")));
    assert_eq!(client.leave(), Some(0));
}

#[test]
fn lines_that_are_broken_are_told_and_nothing_else_is_lost() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    let (said, answer) = client.prompt(&session, "broken");
    assert_eq!((said.as_str(), &answer["result"]["stopReason"]), ("mended", &json!("end_turn")));
    let is_notice = |m: &&Value| m["params"]["update"]["sessionUpdate"] == "notice";
    assert_eq!(client.seen.iter().filter(is_notice).count(), 4, "{:?}", client.seen);
}

#[test]
fn a_program_that_ends_fails_its_prompt_and_the_next_one_goes_on() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    let (_, answer) = client.prompt(&session, "exit");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("exit code 3") && message.contains("out of luck"), "{message}");
    let (said, _) = client.prompt(&session, "again");
    assert!(said.starts_with("bytes"), "{said}");
    assert_eq!(place.starts().len(), 2, "one process after the other");
    // The program had said nothing, so it has kept nothing; the session begins anew under its id.
    assert!(place.starts()[1].contains(&format!("--session-id {session}")));
}

#[test]
fn a_flood_comes_through_whole() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    let (said, answer) = client.prompt(&session, "flood");
    assert_eq!(said, "x".repeat(20_000));
    assert_eq!(answer["result"]["stopReason"], "end_turn");
}

#[test]
fn what_nobody_understands_is_refused_at_once() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    assert_eq!(client.prompt(&session, "odd").0, "refused");
    assert_eq!(client.error("session/fork", json!({"sessionId": session}))["code"], -32601);
    client.send(&json!("no request"));
    client.until("an error", |message| message["error"]["code"] == -32700);
}

#[test]
fn a_question_is_answered_by_the_client_and_an_error_is_no_consent() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    let selected = |id: &str| json!({"outcome": {"outcome": "selected", "optionId": id}});
    let cancelled = json!({"outcome": {"outcome": "cancelled"}});
    for (result, expected) in [
        (selected("allow"), "allowed"),
        (selected("reject"), "denied"),
        (selected("nonsense"), "denied"),
        (cancelled, "denied"),
        (Value::Null, "denied"),
    ] {
        client.seen.clear();
        let prompt = client.start_prompt(&session, "ask");
        let asked = client.until("a question", |m| m["method"] == "session/request_permission");
        assert_eq!(asked["params"]["toolCall"]["rawInput"]["command"], "ls");
        client.send(&json!({"jsonrpc": "2.0", "id": asked["id"], "result": result}));
        client.answer(prompt);
        let said = client.seen.iter().filter_map(|m| {
            m["params"]["update"]["content"]["text"].as_str().filter(|text| *text != "```")
        });
        assert_eq!(said.collect::<String>(), expected);
    }
}

#[test]
fn two_sessions_are_two_programs_and_a_second_prompt_in_one_is_refused() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let (one, two) = (client.session(), client.session());
    let waiting = client.start_prompt(&one, "ask");
    let asked = client.until("a question", |m| m["method"] == "session/request_permission");
    assert_eq!(asked["params"]["sessionId"], one.as_str());
    assert!(client.prompt(&two, "beside").0.starts_with("bytes"));
    let again = json!({"sessionId": one, "prompt": [{"type": "text", "text": "again"}]});
    assert_eq!(client.error("session/prompt", again)["code"], -32600);
    client.send(&json!({"jsonrpc": "2.0", "method": "session/cancel",
        "params": {"sessionId": one}}));
    assert_eq!(client.answer(waiting)["result"]["stopReason"], "cancelled");
    client.result("session/close", json!({"sessionId": two}));
    let gone = json!({"sessionId": two, "prompt": [{"type": "text", "text": "x"}]});
    assert_eq!(client.error("session/prompt", gone)["code"], -32002);
}

#[test]
fn when_the_client_goes_nothing_of_the_program_stays() {
    let place = Place::new();
    let mut client = place.start(&[]);
    let session = client.session();
    client.start_prompt(&session, "leave");
    client.until("a word", |m| m["params"]["update"]["content"]["text"] == "left");
    let pid = std::fs::read_to_string(place.log().with_extension("pid")).unwrap();
    let pid: u32 = pid.trim().parse().unwrap();
    assert!(proc::alive(pid));
    let bridge = client.child.id();
    assert_eq!(client.leave(), Some(0));
    assert!(!proc::alive(pid), "the program's child lives");
    assert!(proc::descendants(bridge).is_empty());
}

#[test]
fn a_signal_ends_the_bridge_as_the_end_of_stdin_does() {
    let place = Place::new();
    let mut client = place.start(&[]);
    client.session();
    let programs = proc::descendants(client.child.id());
    assert!(!programs.is_empty());
    proc::signal(client.child.id(), proc::Signal::TERM).unwrap();
    let ended = || client.child.try_wait().unwrap();
    let status = wait::until(client::DEADLINE, "the end of the bridge", ended);
    assert_eq!(status.code(), Some(0));
    assert!(programs.iter().all(|pid| !proc::alive(*pid)));
}

#[test]
fn what_keeps_a_session_from_opening_is_told_with_the_remedy() {
    let check = |env: &[(&str, &str)], code: i64, words: &str| {
        let place = Place::new();
        let mut client = place.start(env);
        let error = client.error("session/new", json!({"cwd": "/", "mcpServers": []}));
        assert_eq!(error["code"], code, "{error}");
        assert!(error["message"].as_str().unwrap().contains(words), "{error}");
        // The client may try again; nothing of the first try is left.
        wait::until(client::DEADLINE, "the end of the program", || {
            proc::descendants(client.child.id()).is_empty().then_some(())
        });
    };
    check(&[("FAKE_VERSION", "2.0.1")], -32603, "claude update");
    check(&[("FAKE_ACCOUNT", r#"{"tokenSource":"none"}"#)], -32000, "/login");
    let place = Place::new();
    let mut client = place.start(&[]);
    for (params, field) in [
        (json!({"cwd": "relative", "mcpServers": []}), "cwd"),
        (json!({"cwd": "/", "mcpServers": [{"name": "x"}]}), "mcpServers[0].command"),
        (json!({"cwd": "/", "mcpServers": [{"command": "x"}]}), "mcpServers[0].name"),
    ] {
        let error = client.error("session/new", params);
        assert!(error["message"].as_str().unwrap().contains(field), "{error}");
    }
    let gone = client.error("session/new", json!({"cwd": "/no/such/folder", "mcpServers": []}));
    assert!(gone["message"].as_str().unwrap().contains("/no/such/folder"), "{gone}");
}

#[test]
fn a_probe_tells_what_is_there_in_one_line() {
    let place = Place::new();
    let (told, output) = place.probe(&[]);
    assert!(output.status.success());
    assert_eq!(output.stdout.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!((&told["version"], &told["error"]), (&json!("2.1.330"), &Value::Null));
    assert_eq!(
        (&told["logged_in"], &told["auth_method"]),
        (&json!(true), &json!("ANTHROPIC_API_KEY"))
    );
    assert_eq!(told["models"][0]["reasoning_levels"], json!(["low", "high"]));
    assert_eq!(told["models"][0]["is_default"], true);

    let (told, output) = place.probe(&[("FAKE_VERSION", "1.0.9")]);
    assert_eq!(
        (output.status.code(), &told["error"]["code"]),
        (Some(1), &json!("program_too_old"))
    );
    let (told, _) = place.probe(&[("FAKE_ACCOUNT", r#"{"tokenSource":"none"}"#)]);
    assert_eq!((&told["logged_in"], &told["error"]), (&json!(false), &Value::Null));
    let (told, output) = place.probe(&[("CLAUDE_BRIDGE_CLAUDE", "/no/such/program")]);
    assert_eq!(
        (output.status.code(), &told["error"]["code"]),
        (Some(1), &json!("program_missing"))
    );
    let (told, output) = place.probe(&[("FAKE_SILENT", "1")]);
    assert_eq!((output.status.code(), &told["error"]["code"]), (Some(1), &json!("no_answer")));
    assert_eq!(told["version"], "2.1.330", "a program that says nothing else tells its version");
}

#[test]
fn the_command_line_is_checked() {
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_claude-bridge");
        Command::new(program).args(arguments).output().unwrap()
    };
    let version = run(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("claude-bridge "));
    assert!(run(&["--help"]).status.success());
    assert_eq!(run(&["--claude"]).status.code(), Some(2));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    assert_eq!(run(&["--claude", "/no/such/program"]).status.code(), Some(1));
}
