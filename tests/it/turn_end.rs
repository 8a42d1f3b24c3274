//! How turns end when the agent does not do what it should.

use crate::stage::{SOON, Stage, list, text};
use rusqlite::Connection;
use serde_json::{Value, json};

/// A terminal event has four keys and the stop reason, and says what the record says. One for each turn.
fn check_end(stage: &Stage, turn: &Value, kind: &str) {
    let (session_id, turn_id) = (text(turn, "session_id"), text(turn, "id"));
    let ends = ["turn.completed", "turn.interrupted", "turn.failed"];
    let mut events = stage.events(&session_id);
    events.retain(|event| {
        event.json["turn_id"] == turn_id.as_str() && ends.contains(&event.kind.as_str())
    });
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0].kind, kind);
    for field in ["status", "usage", "error", "assistant_text", "stop_reason"] {
        assert_eq!(events[0].payload[field], turn[field], "{field} of {turn}");
    }
    assert_eq!(stage.record(&session_id)["status"], "ready");
}

/// Waits until the agent has said the word.
fn until_said(stage: &Stage, session_id: &str, word: &str) {
    let mut stream = stage.stream(session_id, "?control=false&kinds=item.delta");
    stream.until_match(word, SOON, |frame| frame.data.contains(word));
}

#[test]
fn an_error_of_the_agent_fails_the_turn_and_not_the_session() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "say so far\nfail -32001 Out of luck");
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("failed"), &json!("so far")));
    assert!(text(&turn["error"], "message").contains("Out of luck"), "{turn}");
    check_end(&stage, &turn, "turn.failed");
    let record = stage.record(&session_id);
    assert!(text(&record["last_error"], "message").contains("Out of luck"), "{record}");
    assert_eq!(stage.run(&session_id, "say again")["assistant_text"], "again");
}

#[test]
fn a_refusal_and_a_cut_answer_say_why() {
    let stage = Stage::new();
    let session_id = stage.session();
    for (prompt, reason) in [("refuse", "refusal"), ("say so far\nmaxtokens", "max_tokens")] {
        let turn = stage.run(&session_id, prompt);
        assert_eq!((&turn["status"], &turn["stop_reason"]), (&json!("failed"), &json!(reason)));
        check_end(&stage, &turn, "turn.failed");
    }
}

#[test]
fn a_crash_keeps_what_was_said_and_the_next_turn_goes_on() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say first");
    let turn = stage.run(&session_id, "slow 3 1\ncrash");
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("failed"), &json!("1 2 3 ")));
    assert_eq!(turn["error"]["code"], "agent_exited", "{turn}");
    check_end(&stage, &turn, "turn.failed");
    let exited = stage.event(&session_id, "agent.exited", 0);
    assert_eq!(exited.payload["exit_code"], 1);
    let open = stage.items(&session_id, &text(&turn, "id"));
    assert!(open.iter().all(|item| item["status"] != "in_progress"), "{open:?}");
    assert_eq!(stage.record(&session_id)["live"], false);
    // The native session is resumed by itself; what the agent had written down is known.
    let turn = stage.run(&session_id, "history");
    assert!(text(&turn, "assistant_text").starts_with("1: say first"), "{turn}");
    assert_eq!(stage.record(&session_id)["live"], true);
    // Its replay of the history made no items.
    let path = format!("/v1/sessions/{session_id}/transcript");
    assert_eq!(list(stage.get(&path)).len(), 6);
}

#[test]
fn a_crash_lets_the_queue_go_on() {
    let stage = Stage::new();
    let session_id = stage.session();
    let first = stage.start(&session_id, "slow 20 10\ncrash");
    let second = stage.queue(&session_id, "say after");
    assert_eq!(stage.ended(&session_id, &first)["status"], "failed");
    assert_eq!(stage.ended(&session_id, &second)["assistant_text"], "after");
}

#[test]
fn the_last_words_on_stderr_are_told() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "stderr 3000\ncrash");
    assert!(text(&turn["error"], "message").contains("stderr line 3000"), "{turn}");
    let exited = stage.event(&session_id, "agent.exited", 0);
    let stderr = text(&exited.payload, "stderr");
    assert!(stderr.ends_with("stderr line 3000\n") && stderr.len() <= 8192, "{}", stderr.len());
}

#[test]
fn an_agent_that_does_not_hear_a_cancel_ends_its_turn_by_itself() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "ignorecancel 20 10");
    stage.event(&session_id, "item.started", 0);
    stage.interrupt(&session_id, &turn_id).expect(202);
    // A second wish changes nothing.
    let again = stage.interrupt(&session_id, &turn_id);
    assert!(matches!(again.status, 202 | 409), "{again}");
    let turn = stage.ended(&session_id, &turn_id);
    assert!(text(&turn, "assistant_text").ends_with(" 19 20 "), "{turn}");
    let kind = format!("turn.{}", text(&turn, "status"));
    check_end(&stage, &turn, &kind);
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}

#[test]
fn an_agent_that_hangs_is_ended_with_its_session() {
    let stage = Stage::with_config("[keeper]\ngrace_ms = 300\n");
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "say so far\nhang");
    until_said(&stage, &session_id, "far");
    stage.close(&session_id);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(
        (&turn["status"], &turn["stop_reason"]),
        (&json!("interrupted"), &json!("session_closed"))
    );
    assert_eq!(turn["assistant_text"], "so far");
}

/// Fifteen seconds long, and quiet all the while: the pause is a constant of the server.
#[test]
fn an_agent_that_hangs_is_ended_after_an_interrupt() {
    let stage = Stage::with_config("[keeper]\ngrace_ms = 300\n");
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "say so far\nhang");
    until_said(&stage, &session_id, "far");
    stage.interrupt(&session_id, &turn_id).expect(202);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(
        (&turn["status"], &turn["assistant_text"]),
        (&json!("interrupted"), &json!("so far"))
    );
    check_end(&stage, &turn, "turn.interrupted");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}

#[test]
fn output_that_is_no_protocol_is_kept_and_the_turn_goes_on() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "garbage");
    assert_eq!(turn["status"], "completed");
    let said = text(&turn, "assistant_text");
    assert!(said.contains("This line came in two halves."), "{said}");
    assert!(said.contains("The unknown request got error -32601."), "{said}");
    let mut events = stage.events(&session_id);
    events.retain(|event| event.kind == "agent.unparsed");
    let told: Vec<String> = events.iter().map(|event| text(&event.payload, "text")).collect();
    assert!(told.contains(&"this is not JSON".to_owned()), "{told:?}");
    assert!(told.iter().any(|line| line.contains("demo_unknown_update")), "{told:?}");
    check_end(&stage, &turn, "turn.completed");
}

#[test]
fn a_turn_over_its_time_is_interrupted() {
    let stage = Stage::with_config("[providers.demo]\nturn_timeout_secs = 1\n");
    let session_id = stage.session();
    let turn = stage.run(&session_id, "slow 1000 20");
    assert_ne!(turn["status"], "completed");
    assert!(text(&turn, "assistant_text").starts_with("1 2 "), "{turn}");
    let asked = stage.event(&session_id, "turn.interrupt_requested", 0);
    assert_eq!(asked.payload["reason"], "turn_timeout");
    assert_eq!(stage.record(&session_id)["status"], "ready");
}

#[test]
fn the_time_of_a_turn_goes_on_over_a_restart() {
    // Longer than its end is waited for below.
    let mut stage = Stage::with_config("[providers.demo]\nturn_timeout_secs = 60\n");
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "slow 100000 20");
    stage.event(&session_id, "item.delta", 0);
    stage.server.kill9();
    let database = Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap();
    let sql = "UPDATE turn SET dispatched_at = dispatched_at - 60000 WHERE turn_id = ?1";
    assert_eq!(database.execute(sql, [&turn_id]).unwrap(), 1);
    stage.restart();
    assert_ne!(stage.ended(&session_id, &turn_id)["status"], "completed");
    let asked = stage.event(&session_id, "turn.interrupt_requested", 0);
    assert_eq!(asked.payload["reason"], "turn_timeout");
}
