//! Cancel in the middle of everything, the end of stdin, misbehaviour, and the flood.

use crate::client::{Client, DEADLINE, LeftBehind, choose};
use gooselake_harness::temp::TempDir;
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::fs;

/// The pid that a command of the agent wrote into a file.
fn pid_in(client: &Client, name: &str) -> u32 {
    let path = client.cwd.path().join(name);
    wait::until(DEADLINE, "the command has written its pid", || {
        fs::read_to_string(&path).ok()?.trim().parse().ok()
    })
}

#[test]
fn a_cancel_ends_any_wait_at_once_and_keeps_what_was_said() {
    let (mut client, session, _state) = Client::ready(&[]);
    let id = client.start_prompt(&session, "say start\nslow 5 600000");
    client.until_update("agent_message_chunk");
    client.cancel(&session);
    let turn = client.until_answer(id);
    assert_eq!(turn.stop_reason(), "cancelled");

    // While a permission is asked, which is never answered.
    let id = client.start_prompt(&session, "ask me");
    client.until("the question", |message| message["method"] == "session/request_permission");
    client.cancel(&session);
    let turn = client.until_answer(id);
    assert_eq!(turn.stop_reason(), "cancelled");
    assert_eq!(turn.of("tool_call_update")[0]["status"], "failed");

    // A cancel without a turn is nothing, and the session is as good as before.
    client.cancel(&session);
    assert_eq!(client.prompt(&session, "instant").stop_reason(), "end_turn");
}

#[test]
fn a_cancelled_command_is_ended_with_its_children_even_if_it_ignores_term() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    let command = "run trap '' TERM; sh -c 'echo $$ > pid; exec sleep 1000'; wait";
    let id = client.start_prompt(&session, command);
    let pid = pid_in(&client, "pid");
    client.cancel(&session);
    let turn = client.until_answer(id);
    assert_eq!(
        (turn.stop_reason(), turn.call().1.last().unwrap().as_str()),
        ("cancelled", "failed")
    );
    assert_eq!(proc::wait_gone(&[pid], DEADLINE), Ok(()));
}

#[test]
fn a_cancel_is_heard_while_nobody_reads_and_stops_a_flood_without_a_gap() {
    let (mut client, session, _state) = Client::ready(&[]);
    let id = client.start_prompt(&session, "flood 1000000000");
    client.until_update("agent_message_chunk");
    // From here on the pipe is full, and the flood is stuck in a write.
    client.cancel(&session);
    let turn = client.until_answer(id);
    assert_eq!(turn.stop_reason(), "cancelled");
    for (number, chunk) in (2..).zip(turn.of("agent_message_chunk")) {
        let text = chunk["content"]["text"].as_str().unwrap();
        assert_eq!(text.split(' ').next(), Some(number.to_string().as_str()));
    }
}

#[test]
fn a_flood_is_whole_and_in_order() {
    let (mut client, session, _state) = Client::ready(&[]);
    for bytes in [1_usize, 40, 100] {
        let turn = client.prompt(&session, &format!("flood 20000 {bytes}"));
        assert_eq!(turn.stop_reason(), "end_turn");
        let chunks = turn.of("agent_message_chunk");
        assert_eq!(chunks.len(), 20_000);
        for (number, chunk) in (1..).zip(chunks) {
            let text = chunk["content"]["text"].as_str().unwrap();
            assert_eq!(text.split(' ').next(), Some(number.to_string().as_str()));
            assert_eq!(text.len(), bytes.max(number.to_string().len() + 1));
        }
    }
}

#[test]
fn a_long_line_is_one_chunk() {
    let (mut client, session, _state) = Client::ready(&[]);
    let turn = client.prompt(&session, "longline 5000000");
    assert_eq!((turn.of("agent_message_chunk").len(), turn.said().len()), (1, 5_000_000));
}

#[test]
fn a_late_chunk_comes_after_the_answer() {
    let (mut client, session, _state) = Client::ready(&[]);
    let turn = client.prompt(&session, "late good bye\nsay now");
    assert_eq!(turn.said(), "now");
    assert_eq!(client.until_update("agent_message_chunk")["content"]["text"], "good bye");
}

#[test]
fn garbage_is_garbage_and_the_turn_goes_on() {
    let (mut client, session, _state) = Client::ready(&[]);
    client.answer = Box::new(|method, _| {
        assert_eq!(method, "_demo/unknown_request");
        Some(Err(json!({"code": -32601, "message": "Method not found"})))
    });
    let turn = client.prompt(&session, "garbage\nsay after");
    let said = "This line came in two halves. The unknown request got error -32601.after";
    assert_eq!(turn.said(), said);
    assert_eq!(turn.of("demo_unknown_update").len(), 1);
    assert!(client.seen.contains(&Value::from("this is not JSON\n")));
    assert!(client.seen.iter().any(|it| it["method"] == "_demo/unknown"));
}

#[test]
fn an_ignored_cancel_changes_nothing() {
    let (mut client, session, _state) = Client::ready(&[]);
    let id = client.start_prompt(&session, "ignorecancel 5 20\nsay done");
    client.until_update("agent_message_chunk");
    client.cancel(&session);
    let turn = client.until_answer(id);
    assert_eq!((turn.stop_reason(), turn.said().as_str()), ("end_turn", "2 3 4 5 done"));
}

#[test]
fn a_crash_is_exit_code_1_and_what_was_said_before_is_kept() {
    let (mut client, session, state) = Client::ready(&[]);
    client.start_prompt(&session, "say before\nstderr 2\ncrash\nsay never");
    let (code, stderr) = client.wait_end();
    assert_eq!((code, stderr.as_str()), (Some(1), "stderr line 1\nstderr line 2\n"));
    let mut second = Client::start(state.path(), &[], &[]);
    second.initialize(json!({}));
    let params = json!({"sessionId": session, "cwd": "/", "mcpServers": []});
    let id = second.send_request("session/load", params);
    assert_eq!(second.until_answer(id).said(), "before");
}

#[test]
fn a_hang_hears_no_cancel_but_ends_with_stdin() {
    let (mut client, session, _state) = Client::ready(&[]);
    let id = client.start_prompt(&session, "say hanging\nhang");
    client.until_update("agent_message_chunk");
    client.cancel(&session);
    // Another session's whole turn passes, and there is still no answer.
    let other = client.new_session();
    client.prompt(&other, "slow 3 20");
    assert!(!client.seen.iter().any(|message| message["id"] == id));
    client.close_stdin();
    assert_eq!(client.wait_end().0, Some(0));
}

#[test]
fn the_end_of_stdin_ends_everything_that_runs() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    client.start_prompt(&session, "run echo $$ > pid; exec sleep 1000");
    let pid = pid_in(&client, "pid");
    let other = client.new_session();
    client.answer = choose("allow_once");
    client.start_prompt(&other, "slow 10 600000");
    client.close_stdin();
    assert_eq!(client.wait_end().0, Some(0));
    assert_eq!(proc::wait_gone(&[pid], DEADLINE), Ok(()));
}

#[test]
fn a_spawned_command_outlives_the_agent_in_a_session_of_its_own() {
    let (mut client, session, _state) = Client::ready(&[]);
    let turn = client.prompt(&session, "spawn sleep 1000");
    let said = turn.said();
    let pid: u32 = said.strip_prefix("spawned ").unwrap().parse().unwrap();
    let left = LeftBehind(pid);
    // It leads its session once `setsid` has done its work.
    wait::until(DEADLINE, "it leads a session", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[3] == pid.to_string()).then_some(())
    });
    assert!(proc::descendants(client.pid()).contains(&pid));
    client.close_stdin();
    client.wait_end();
    assert!(proc::alive(pid));
    left.end();
    assert!(!proc::alive(pid));
}

#[test]
fn without_a_folder_for_its_state_the_agent_says_so() {
    let folder = TempDir::new("gg-demo-state");
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let mut client = Client::start(&file.join("state"), &[], &[]);
    client.initialize(json!({}));
    let error = client.error("session/new", json!({"cwd": "/", "mcpServers": []}));
    assert_eq!(error["code"], -32603);
}
