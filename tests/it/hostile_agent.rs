//! Agents that write what no protocol knows: no newline, no text, floods on both streams. The server goes on, the turn
//! ends as the agent says, and the log keeps a bounded part of what was not understood. And agents that answer when
//! nobody asks any more, or have the server open what would make it wait.

use crate::stage::{SOON, Stage, check_error, list, text};
use gooselake_harness::stream::Record;
use gooselake_harness::{proof, thread, wait};
use serde_json::json;
use std::fs;
use std::process::Command;

/// More than one line of an agent may hold.
const LINE_BYTES: usize = 40_000_000;

/// What the log keeps of a line that was not understood, in bytes.
const KEPT_BYTES: usize = 8 * 1024;

/// The handshake of an ACP agent, and the line with the prompt, as commands of a shell.
pub(crate) fn opening() -> String {
    let reply = |id: u32, result: &str| {
        format!(
            "read l; printf '%s\\n' '{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{result}}}'\n"
        )
    };
    [
        reply(1, r#"{"protocolVersion":1,"agentCapabilities":{}}"#),
        reply(2, r#"{"sessionId":"s"}"#),
        "read l\n".to_owned(),
    ]
    .concat()
}

/// A server whose ACP agent is this shell script between the handshake and the end of the turn.
fn stage_of(script: &str) -> Stage {
    stage_with(script, "")
}

fn stage_with(script: &str, config: &str) -> Stage {
    let whole = [
        opening(),
        format!("{script}\n"),
        r#"printf '%s\n' '{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}'; read l"#
            .to_owned(),
    ];
    let arguments = json!(["-c", whole.concat()]);
    let provider = format!("[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n");
    Stage::with_config(&[config, &provider].concat())
}

impl Stage {
    /// A session of the ACP agent.
    pub(crate) fn agent_session(&self) -> String {
        let body = json!({"provider": "acp", "cwd": self.cwd});
        text(&self.client.post("/v1/sessions", &body).expect(200).json(), "id")
    }
}

/// Runs the one turn of such an agent; returns what was not understood.
fn unparsed(stage: &Stage) -> Vec<Record> {
    let session_id = stage.agent_session();
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

/// Longer than the journal that the keeper has for it, within the bound on lines and beyond it.
#[test]
fn a_line_longer_than_its_journal_does_not_stop_its_agent() {
    for (line_bytes, journal_bytes_max) in [(1_000_000, 65_536), (LINE_BYTES, 1_048_576)] {
        let script = format!("head -c {line_bytes} /dev/zero | tr '\\0' x; echo");
        let config = format!("[keeper]\njournal_bytes_max = {journal_bytes_max}\n");
        let told = unparsed(&stage_with(&script, &config));
        assert_eq!(told.len(), 1, "{line_bytes} bytes");
        assert!(text(&told[0].payload, "text").starts_with("xxx"));
    }
}

/// Whole lines, each of which is dealt with: what was told leaves the journal before that is full.
#[test]
fn an_agent_that_says_more_in_a_turn_than_its_journal_holds_goes_on() {
    // Each in a write of its own, so that no read ends within one.
    let say = says(&chunk("word "));
    let script =
        format!("i=0; while [ $i -lt 1000 ]; do i=$((i+1)); {say}; done").replace("\n;", ";");
    let stage = stage_with(&script, "[keeper]\njournal_bytes_max = 65536\n");
    let session_id = stage.agent_session();
    let turn = stage.run(&session_id, "go");
    assert_eq!(turn["status"], "completed", "{turn}");
    assert_eq!(text(&turn, "assistant_text").matches("word").count(), 1000);
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

/// A line of the agent's, as a command of its shell.
pub(crate) fn says(line: &str) -> String {
    format!("printf '%s\\n' '{line}'\n")
}

/// What the agent says to the user.
pub(crate) fn speaks(text: &str) -> String {
    says(&chunk(text))
}

fn chunk(text: &str) -> String {
    format!(
        concat!(
            r#"{{"jsonrpc":"2.0","method":"session/update","params":{{"sessionId":"s","update":{{"#,
            r#""sessionUpdate":"agent_message_chunk","content":{{"type":"text","text":"{}"}}}}}}}}"#,
        ),
        text
    )
}

/// The answer to the prompt, which is the agent's third request.
pub(crate) fn ends(reason: &str) -> String {
    says(&format!(r#"{{"jsonrpc":"2.0","id":3,"result":{{"stopReason":"{reason}"}}}}"#))
}

#[test]
fn a_piece_of_text_larger_than_an_item_may_be_is_told_in_several_items() {
    // Two bytes a character behind one: 6 MB in one line, and a character across the bound.
    let line = chunk("@");
    let (head, tail) = line.split_once('@').unwrap();
    let script = format!(
        "printf %s '{head}a'; yes é | head -n 3000000 | tr -d '\\n'; printf '%s\\n' '{tail}'"
    );
    let stage = stage_of(&script);
    let session_id = stage.agent_session();
    let turn = stage.run(&session_id, "go");
    assert_eq!(turn["status"], "completed", "{turn}");
    let items = stage.items(&session_id, &text(&turn, "id"));
    let said = items.iter().filter(|item| item["type"] == "assistant_message");
    let said: Vec<String> = said.map(|item| text(item, "text")).collect();
    assert!(said.iter().all(|text| text.len() <= 4 * 1024 * 1024), "{}", said.len());
    assert_eq!(said.concat(), format!("a{}", "é".repeat(3_000_000)));
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let ok = |id: &str| says(&format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#));
    let script = [
        // To nobody, to one that was answered long ago, and under names that are none.
        ok("99"),
        ok("1"),
        ok("\"3\""),
        ok("null"),
        ok("-1"),
        says(r#"{"jsonrpc":"2.0","id":77,"error":{"code":-1,"message":"no"}}"#),
        speaks("so far"),
        // The answer comes twice, once as another; then the turn of the scene ends a third time.
        ends("end_turn"),
        ends("refusal"),
    ];
    let stage = stage_of(&script.concat());
    let session_id = stage.agent_session();
    let turn = stage.run(&session_id, "go");
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("completed"), &json!("so far")));
    stage.event(&session_id, "turn.completed", 0);
    proof::log(&stage.events(&session_id));
    assert_eq!(stage.record(&session_id)["status"], "ready");
}

#[test]
fn an_agent_that_exits_with_zero_in_the_middle_of_a_turn_fails_it_with_what_it_said() {
    let stage = stage_of(&[speaks("so far"), "exit 0\n".to_owned()].concat());
    let session_id = stage.agent_session();
    let turn = stage.run(&session_id, "go");
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("failed"), &json!("so far")));
    assert_eq!(turn["error"]["code"], "agent_exited", "{turn}");
    assert!(text(&turn["error"], "message").contains("exit code 0"), "{turn}");
    proof::log(&stage.events(&session_id));
}

#[test]
fn what_comes_after_a_cancel_belongs_to_the_turn_until_its_answer() {
    // The second line that it reads is the cancel; it goes on speaking, answers, and speaks again.
    let script = [
        speaks("before "),
        "read l\n".to_owned(),
        speaks("after"),
        ends("cancelled"),
        ends("end_turn"),
        speaks("late"),
    ];
    let stage = stage_of(&script.concat());
    let session_id = stage.agent_session();
    let turn_id = stage.start(&session_id, "go");
    stage.event(&session_id, "item.delta", 0);
    stage.interrupt(&session_id, &turn_id).expect(202);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(
        (&turn["status"], &turn["assistant_text"]),
        (&json!("interrupted"), &json!("before after"))
    );
    // What it says by itself is a turn of its own, and that ends too.
    stage.event(&session_id, "turn.completed", 0);
    proof::log(&stage.events(&session_id));
}

#[test]
fn what_an_agent_says_by_itself_without_end_is_over_at_its_time() {
    let answer = r#"{"jsonrpc":"2.0","id":3,"result":{"stopReason":"end_turn"}}"#;
    let script = format!("while :; do {}sleep 0.05; done", speaks("on "));
    let whole = format!("{}printf '%s\\n' '{answer}'\n{script}", opening());
    let arguments = json!(["-c", whole]);
    let config = format!("command = \"/bin/sh\"\nargs = {arguments}\nturn_timeout_secs = 1\n");
    let stage = Stage::with_config(&format!("[providers.acp]\n{config}"));
    let session_id = stage.agent_session();
    assert_eq!(stage.run(&session_id, "go")["status"], "completed");
    let asked = stage.event(&session_id, "turn.interrupt_requested", 0);
    assert_eq!(asked.payload["reason"], "turn_timeout");
    let own = stage.ended(&session_id, &text(&asked.json, "turn_id"));
    assert_eq!((&own["source"], &own["status"]), (&json!("agent"), &json!("interrupted")));
}

/// Longer quiet than ends such work otherwise: the pause is a constant of the server.
#[test]
fn what_a_tool_of_an_agents_own_work_says_after_a_pause_is_part_of_it() {
    let tool = |update: &str| {
        let head = r#"{"jsonrpc":"2.0","method":"session/update","params":"#;
        says(&format!(r#"{head}{{"sessionId":"s","update":{{"toolCallId":"t",{update}}}}}}}"#))
    };
    let output = r#""content":[{"type":"content","content":{"type":"text","text":"the output"}}]"#;
    let script = [
        ends("end_turn"),
        tool(r#""sessionUpdate":"tool_call","kind":"execute","title":"c","status":"in_progress""#),
        "sleep 3\n".to_owned(),
        tool(&format!(r#""sessionUpdate":"tool_call_update","status":"completed",{output}"#)),
    ];
    let stage = stage_of(&script.concat());
    let session_id = stage.agent_session();
    assert_eq!(stage.run(&session_id, "go")["status"], "completed");
    let ended = stage.event(&session_id, "turn.completed", 0);
    let started = stage.event(&session_id, "item.started", 0);
    let turn_id = text(&started.json, "turn_id");
    assert_ne!(text(&ended.json, "turn_id"), turn_id);
    let own = stage.ended(&session_id, &turn_id);
    assert_eq!((&own["source"], &own["status"]), (&json!("agent"), &json!("completed")));
    let items = stage.items(&session_id, &turn_id);
    assert!(items[0].to_string().contains("the output"), "{items:?}");
    proof::log(&stage.events(&session_id));
}

#[test]
fn an_agent_that_never_answers_fails_the_opening_at_its_time() {
    let config = "[providers.acp]\ncommand = \"/bin/sh\"\nargs = [\"-c\", \"cat > /dev/null\"]\n\
                  request_timeout_secs = 1\n";
    let stage = Stage::with_config(config);
    let body = json!({"provider": "acp", "cwd": stage.cwd});
    let reply = stage.client.post("/v1/sessions", &body);
    check_error(&reply, 504, "agent_timeout");
    proof::nothing_runs_in(&stage.cwd);
}

#[test]
fn an_agent_that_ignores_term_and_hides_its_children_ends_with_its_session() {
    let script = [
        "trap '' TERM HUP INT\n",
        // A grandchild of another session and group, which nobody waits for.
        "(setsid sh -c 'trap \"\" TERM; (sleep 1000 &) ; sleep 1000; :' > /dev/null 2>&1 &)\n",
        &speaks("up"),
        "while :; do sleep 1000; done\n",
    ];
    let arguments = json!(["-c", format!("{}{}", opening(), script.concat())]);
    let stage = Stage::with_config(&format!(
        "[keeper]\ngrace_ms = 300\n[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n"
    ));
    let session_id = stage.agent_session();
    let turn_id = stage.start(&session_id, "go");
    stage.event(&session_id, "item.delta", 0);
    wait::until(SOON, "its tree is there", || {
        (proof::running_in(&stage.cwd).len() >= 4).then_some(())
    });
    stage.close(&session_id);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("interrupted"), &json!("up")));
    proof::nothing_runs_in(&stage.cwd);
    proof::log(&stage.events(&session_id));
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

/// The session is closed, and its agent takes its time to end: no turn begins in between.
#[test]
fn a_session_that_is_closing_takes_no_turn() {
    // It ends when somebody opens the pipe, whatever it is told.
    let script = [opening().as_str(), "trap '' TERM\n", &speaks("up"), ": < end\n"].concat();
    let arguments = json!(["-c", script]);
    let stage = Stage::with_config(&format!(
        "[keeper]\ngrace_ms = 60000\n[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n"
    ));
    let end = stage.cwd.join("end");
    assert!(Command::new("mkfifo").arg(&end).status().unwrap().success());
    let session_id = stage.agent_session();
    let turn_id = stage.start(&session_id, "go");
    stage.event(&session_id, "item.delta", 0);
    let (client, path) = (stage.client.clone(), format!("/v1/sessions/{session_id}/close"));
    let close = move || drop(client.request("POST", &path, &[], b"").expect(200));
    let closing = thread::spawn("closing", close).unwrap();
    stage.event(&session_id, "session.closed", 0);
    for when in ["now", "queue"] {
        let reply = stage.post_turn(&session_id, &json!({"input": ["more"], "when": when}));
        check_error(&reply, 409, "session_closed");
    }
    fs::write(&end, "").unwrap();
    closing.join();
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "interrupted");
    let turns = list(stage.get(&format!("/v1/sessions/{session_id}/turns")));
    assert_eq!(turns.len(), 1, "{turns:?}");
    proof::log(&stage.events(&session_id));
}

#[test]
fn a_pipe_in_place_of_a_file_makes_nobody_wait() {
    let stage = Stage::new();
    let session_id = stage.session();
    assert_eq!(stage.run(&session_id, "run mkfifo pipe")["status"], "completed");
    for (prompt, told) in [
        ("read pipe", "fs/read_text_file failed"),
        ("save pipe text", "fs/write_text_file failed"),
        ("write pipe text", "pipe was not written: it is no file"),
    ] {
        let turn = stage.run(&session_id, prompt);
        assert_eq!(turn["status"], "completed", "{turn}");
        let said = text(&turn, "assistant_text");
        assert!(said.starts_with(told), "{prompt}: {said}");
    }
    assert_eq!(stage.run(&session_id, "say still here")["assistant_text"], "still here");
}
