//! The call of a tool that takes long: what the log has of it when the server is killed in it, and who waits for it.

use super::scene::Nest;
use crate::stage::SOON;
use gooselake_harness::stream::Record;
use gooselake_harness::thread::{self, Thread};
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::fs;

/// The operator calls a tool in the session's name, and nobody waits for it here.
fn calling(nest: &Nest, session_id: &str, tool: &str, args: &Value) -> Thread<Option<Value>> {
    let client = nest.stage().client.clone();
    let body = json!({"tool_name": tool, "caller_agent_id": session_id, "args": args}).to_string();
    thread::spawn("calling", move || {
        let headers = [("Content-Type", "application/json")];
        let reply = client.try_request("POST", "/v1/mcp/invoke", &headers, body.as_bytes());
        reply.ok().map(|reply| reply.expect(200).json())
    })
    .unwrap()
}

fn calls(nest: &Nest, session_id: &str) -> Vec<Record> {
    let events = nest.stage().events(session_id).into_iter();
    events.filter(|event| event.kind.starts_with("mcp.")).collect()
}

#[test]
fn a_server_that_dies_in_a_call_leaves_its_beginning_and_the_next_one_tells_the_end() {
    let mut nest = Nest::new();
    let lead = nest.lead().to_owned();
    nest.init_script("exec sleep 1000");
    let args = json!({"team_id": nest.crew.id, "worktree_name": "one"});
    let call = calling(&nest, &lead, "gg_team_manage", &args);
    nest.operation_at("planned");
    let begun = calls(&nest, &lead).remove(0);
    assert_eq!((begun.kind.as_str(), &begun.payload["arguments"]), ("mcp.tool_begun", &args));
    nest.crash();
    assert_eq!(call.join(), None);
    let log = calls(&nest, &lead);
    assert_eq!(log.len(), 2, "{log:?}");
    let told = &log[1].payload;
    assert_eq!(log[1].kind, "mcp.tool_called");
    for field in ["call_id", "tool", "arguments", "called_by"] {
        assert_eq!(told[field], begun.payload[field], "{field}");
    }
    assert_eq!((&told["is_error"], &told["result"]), (&json!(true), &Value::Null));
    assert_eq!(
        (&told["error"]["code"], &told["duration_ms"]),
        (&json!("outcome_unknown"), &Value::Null)
    );
    // It is told once, and the calls that follow are as ever.
    nest.crash();
    let args = json!({"team_id": nest.crew.id});
    let answer = calling(&nest, &lead, "gg_team_status", &args).join().unwrap();
    assert_eq!(answer["ok"], true, "{answer}");
    let log = calls(&nest, &lead);
    assert_eq!(log.len(), 3, "what changes nothing is told when it is over: {log:?}");
    assert!(log[2].payload["duration_ms"].is_u64());
}

#[test]
fn calls_of_one_session_in_teams_are_one_after_the_other_and_others_do_not_wait() {
    let nest = Nest::new();
    let lead = nest.lead().to_owned();
    let member =
        crate::stage::text(&nest.spawn(json!({"title": "First"}))["spawned_session"], "id");
    let gate = nest.stage().server.folder().join("gate");
    nest.init_script(&format!("until [ -e {} ]; do sleep 0.02; done", gate.display()));
    let team = json!({"team_id": nest.crew.id});
    let mut adding = team.clone();
    adding["worktree_name"] = json!("two");
    let manage = calling(&nest, &lead, "gg_team_manage", &adding);
    nest.operation_at("planned");
    let mut writing = team.clone();
    writing["recipient_agent_id"] = json!("broadcast");
    writing["message"] = json!("say all");
    let message = calling(&nest, &lead, "gg_team_message", &writing);
    // Tools of another family, and other callers, do not wait.
    let ping = calling(&nest, &lead, "gg_ping", &json!({})).join().unwrap();
    let status = calling(&nest, &member, "gg_team_status", &team).join().unwrap();
    assert_eq!((&ping["ok"], &status["ok"]), (&json!(true), &json!(true)), "{ping} {status}");
    assert_eq!(status["result"]["members"].as_array().unwrap().len(), 2);
    fs::write(&gate, "").unwrap();
    let added = manage.join().unwrap();
    assert_eq!(added["ok"], true, "{added}");
    let sent = message.join().unwrap();
    // The message came when the second teammate was there.
    assert_eq!(sent["result"]["recipient_count"], 2, "{sent}");
    let log = calls(&nest, &lead);
    let told: Vec<(&str, &str)> = log
        .iter()
        .filter(|event| event.payload["tool"] != "gg_ping")
        .map(|event| (event.kind.as_str(), event.payload["tool"].as_str().unwrap()))
        .collect();
    let (begun, called) = ("mcp.tool_begun", "mcp.tool_called");
    let (manage, message) = ("gg_team_manage", "gg_team_message");
    assert_eq!(told, [(begun, manage), (called, manage), (begun, message), (called, message)]);
    wait::until(SOON, "the mail is on its way", || {
        let comms = nest.stage().get("/v1/diagnostics/comms");
        (comms["dispatcher"]["recipients_awaited"] == 0).then_some(())
    });
}
