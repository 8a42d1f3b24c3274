//! Stories of Responses: plain tools, namespaces, code mode, and the ways to fail.

use serde_json::json;

use super::*;
use crate::dialect::Dialect;
use crate::plan::Memory;

fn answer(body: &Value) -> Reply {
    let question = Dialect::Responses.question(body, 400);
    Dialect::Responses.answer(&question, &mut Memory::default(), &mut Ids::fixed()).1
}

fn asked(text: &str, stream: bool, tools: Value) -> Reply {
    let content = json!([{ "type": "input_text", "text": text }]);
    let input = json!([{ "type": "message", "role": "user", "content": content }]);
    answer(&json!({ "model": "m", "stream": stream, "tools": tools, "input": input }))
}

/// The events of a stream, each as its data.
#[track_caller]
fn events(reply: &Reply) -> Vec<Value> {
    let Reply::Stream(steps) = reply else { panic!("not a stream: {reply:?}") };
    let data = |step: &Step| match step {
        Step::Frame(text) => serde_json::from_str(text.split_once("data: ")?.1).ok(),
        _ => None,
    };
    steps.iter().filter_map(data).collect()
}

#[track_caller]
fn only_item(reply: &Reply) -> Value {
    let Reply::Whole { body, .. } = reply else { panic!("no body: {reply:?}") };
    assert_eq!(body["output"].as_array().map(Vec::len), Some(1), "{body}");
    body["output"][0].clone()
}

fn shell() -> Value {
    json!([{ "type": "function", "name": "exec_command" }])
}

/// Codex's newer form: no tools in the body, a namespace with a script tool in the input.
fn script_body(text: &str) -> Value {
    let tools = json!([
        { "type": "custom", "name": "exec" },
        { "type": "function", "name": "request_user_input" },
    ]);
    json!({ "model": "m", "stream": false, "input": [
        { "type": "additional_tools", "tools": [
            { "type": "namespace", "name": "functions", "tools": tools }] },
        { "type": "message", "role": "developer", "content": "rules" },
        { "type": "message", "role": "user", "content": text },
    ] })
}

#[test]
fn a_request_is_read_item_by_item() {
    let body = json!({ "instructions": "four", "input": [
        { "type": "message", "role": "user", "content": [
            { "type": "input_text", "text": "ask" }, { "type": "input_image" }] },
        { "type": "reasoning", "summary": [] },
        { "type": "function_call", "name": "exec_command", "call_id": "c" },
        { "type": "function_call_output", "call_id": "c", "output": "out" },
        { "type": "custom_tool_call_output", "call_id": "d", "output": [
            { "type": "input_text", "text": "one" }, { "type": "input_text", "text": "two" }] },
    ] });
    let conversation = question(&body).conversation;
    let expected = [
        Entry::User("ask".into()),
        Entry::User("[input_image]".into()),
        Entry::Call("exec_command".into()),
        Entry::Output("out".into()),
        Entry::Output("one\ntwo".into()),
    ];
    assert_eq!(conversation.entries, expected);
    assert_eq!(conversation.system_bytes, 4);
}

#[test]
fn a_stream_numbers_its_events_and_ends_completed() {
    let events = events(&asked("USAGE 7 3\nTHINK hm hm\nSAY hello there", true, shell()));
    let numbers: Vec<u64> = events.iter().filter_map(|e| e["sequence_number"].as_u64()).collect();
    assert_eq!(numbers, (0..events.len() as u64).collect::<Vec<u64>>());
    let text: String = events
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta")
        .filter_map(|event| event["delta"].as_str())
        .collect();
    assert_eq!(text, "hello there");
    let last = events.last().unwrap();
    assert_eq!(last["type"], "response.completed");
    assert_eq!(last["response"]["output"][0]["type"], "reasoning");
    assert_eq!(last["response"]["output"][1]["content"][0]["text"], "hello there");
    assert_eq!(last["response"]["usage"]["total_tokens"], 10);
}

#[test]
fn a_function_is_called_with_its_arguments() {
    let item = only_item(&asked("BASHBG ls", false, shell()));
    assert_eq!((&item["type"], &item["name"]), (&json!("function_call"), &json!("exec_command")));
    let arguments: Value = serde_json::from_str(item["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments["sandbox_permissions"], "require_escalated");
}

#[test]
fn a_tool_of_a_namespace_is_called_in_it() {
    let tools = json!([{ "type": "namespace", "name": "mcp__echo", "tools": [
        { "type": "function", "name": "echo" }] }]);
    let item = only_item(&asked("MCP mcp__echo/echo {}", false, tools));
    assert_eq!((&item["name"], &item["namespace"]), (&json!("echo"), &json!("mcp__echo")));
}

#[test]
fn in_code_mode_the_calls_become_one_script() {
    let item = only_item(&answer(&script_body("PAR echo \"1\" ;; two")));
    assert_eq!((&item["type"], &item["name"]), (&json!("custom_tool_call"), &json!("exec")));
    let script = item["input"].as_str().unwrap();
    assert!(script.contains(r#"run("exec_command", {"cmd":"echo \"1\"""#), "{script}");
    assert!(script.contains(r#"{"cmd":"two""#), "{script}");
}

#[test]
fn in_code_mode_a_tool_outside_of_scripts_is_called_directly() {
    let item = only_item(&answer(&script_body("TOOL request_user_input {\"q\": 1}")));
    assert_eq!(item["name"], "request_user_input");
    let item = only_item(&answer(&script_body("MCP echo {\"text\": \"x\"}")));
    assert!(item["input"].as_str().unwrap().contains(r#"run("echo", {"text":"x"})"#), "{item}");
}

#[test]
fn errors_come_as_status_as_event_or_as_silence() {
    assert_eq!(asked("FAIL 401", true, shell()).status(), 401);
    assert_eq!(asked("FAIL context", false, shell()).status(), 400);
    let events_of = |text: &str| events(&asked(text, true, shell()));
    let context = events_of("FAIL context");
    let error = &context.last().unwrap()["response"]["error"];
    assert_eq!(error["code"], "context_length_exceeded");
    assert_eq!(events_of("FAIL stream").last().unwrap()["type"], "error");
    let Reply::Stream(steps) = asked("FAIL drop", true, shell()) else { panic!("no stream") };
    assert_eq!(steps.last(), Some(&Step::HangUp));
}
