//! Agents that write what no protocol knows: no newline, no text, floods on both streams. The server goes on, the turn
//! ends as the agent says, and the log keeps a bounded part of what was not understood. And agents that answer when
//! nobody asks any more, or have the server open what would make it wait.

use crate::stage::{SOON, Stage, text};
use gooselake_harness::stream::Record;
use gooselake_harness::wait;
use serde_json::json;

/// More than one line of an agent may hold.
const LINE_BYTES: usize = 40_000_000;

/// What the log keeps of a line that was not understood, in bytes.
const KEPT_BYTES: usize = 8 * 1024;

/// A server whose ACP agent is this shell script between the handshake and the end of the turn.
fn stage_of(script: &str) -> Stage {
    let reply = |id: u32, result: &str| {
        format!(
            "read l; printf '%s\\n' '{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}'\n"
        )
    };
    let whole = [
        reply(1, r#"{"protocolVersion":1,"agentCapabilities":{}}"#),
        reply(2, r#"{"sessionId":"s"}"#),
        format!("read l\n{script}\n"),
        r#"printf '%s\n' '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'; read l"#
            .to_owned(),
    ];
    let arguments = json!(["-c", whole.concat()]);
    Stage::with_config(&format!("[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n"))
}

/// Runs the one turn of such an agent; returns what was not understood.
fn unparsed(stage: &Stage) -> Vec<Record> {
    let session = stage.client.post("/v1/sessions", &json!({"provider": "acp", "cwd": stage.cwd}));
    let session_id = text(&session.expect(200).json(), "id");
    let turn = stage.run(&session_id, "go");
    assert_eq!(turn["status"], "completed", "{turn}");
    assert_eq!(stage.client.get("/health").status, 200);
    let mut events = stage.events(&session_id);
    events.retain(|event| event.kind == "agent.unparsed");
    for event in &events {
        assert!(text(&event.payload, "text").len() <= KEPT_BYTES);
    }
    events
}

#[test]
fn a_line_that_does_not_end_is_cut_and_told() {
    let stage = stage_of(&format!("head -c {LINE_BYTES} /dev/zero | tr '\\0' x; echo"));
    let told = unparsed(&stage);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].payload["bytes"], LINE_BYTES);
}

#[test]
fn bytes_that_are_no_text_are_told_as_far_as_they_are() {
    let stage = stage_of(r"printf '\377\376 no text\n'");
    let told = unparsed(&stage);
    assert_eq!(told.len(), 1);
    assert!(text(&told[0].payload, "text").ends_with(" no text"));
}

#[test]
fn floods_of_nonsense_on_both_streams_end_with_the_turn() {
    let stage = stage_of("yes nonsense | head -n 500000 >&2; yes nonsense | head -n 500000");
    let told = unparsed(&stage);
    let has_counted = told.iter().any(|event| event.payload["more_left_out"] == true);
    assert!(has_counted && told.len() < 50_000, "{} lines told", told.len());
}

#[test]
fn an_agent_that_opens_when_its_session_is_closed_does_not_open_it_again() {
    // It answers to the session's opening only when its stdin has ended.
    let script = concat!(
        "trap '' TERM; read l; ",
        r#"printf '%s\n' '{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":1}}'; "#,
        "read l; touch asked; cat > rest; ",
        r#"printf '%s\n' '{"jsonrpc":"2.0","id":2,"result":{"sessionId":"late"}}'; "#,
        // And begins to speak by itself.
        r#"printf '%s\n' '{"jsonrpc":"2.0","method":"session/update","params":{"sessionId":"late","#,
        r#""update":{"sessionUpdate":"agent_message_chunk","content":{"type":"text","text":"x"}}}}'"#,
    );
    let arguments = json!(["-c", script]);
    let config = format!("[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n");
    let stage = Stage::with_config(&config);
    let body = json!({"provider": "acp", "cwd": stage.cwd, "wait": false});
    let session_id = text(&stage.client.post("/v1/sessions", &body).expect(200).json(), "id");
    let asked = stage.cwd.join("asked");
    wait::until(SOON, "the agent is asked to open", || asked.exists().then_some(()));
    assert_eq!(stage.close(&session_id)["status"], "closed");
    let exited = stage.event(&session_id, "agent.exited", 0);
    assert_eq!(exited.payload["exit_code"], 0, "it was to say its last words: {}", exited.json);
    assert_eq!(stage.record(&session_id)["status"], "closed");
    assert_eq!(stage.get(&format!("/v1/sessions/{session_id}/turns")), json!([]));
}

#[test]
fn a_pipe_in_place_of_a_file_makes_nobody_wait() {
    let stage = Stage::new();
    let session_id = stage.session();
    assert_eq!(stage.run(&session_id, "run mkfifo pipe")["status"], "completed");
    let turn = stage.run(&session_id, "read pipe");
    assert_eq!(turn["status"], "completed", "{turn}");
    let said = text(&turn, "assistant_text");
    assert!(said.starts_with("fs/read_text_file failed"), "{said}");
    assert_eq!(stage.run(&session_id, "say still here")["assistant_text"], "still here");
}
