//! An agent calls tools through the sidecar that it was given.

use super::envelope;
use super::wiretap::Wiretap;
use crate::stage::{Stage, check_error, list, text};
use gooselake_harness::server::{Options, Server, program};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

/// The payloads of the calls in a session's log.
fn calls(stage: &Stage, session_id: &str) -> Vec<Value> {
    let events = stage.events(session_id).into_iter();
    events.filter(|event| event.kind == "mcp.tool_called").map(|event| event.payload).collect()
}

#[test]
fn a_call_is_answered_and_stands_in_the_callers_log() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "mcp gg gg_ping {}");
    let envelope = envelope(&turn);
    assert_eq!((&envelope["ok"], &envelope["caller_agent_id"]), (&json!(true), &json!(session_id)));
    let gateway = &envelope["result"]["gateway"];
    assert_eq!(gateway["result"]["caller_agent_id"], json!(session_id), "{envelope}");
    let items = stage.items(&session_id, &text(&turn, "id"));
    let item = items.iter().find(|item| item["type"] == "tool_call").unwrap();
    assert_eq!((&item["server"], &item["tool"]), (&json!("gg"), &json!("gg_ping")), "{item}");
    let event = stage.event(&session_id, "mcp.tool_called", 0);
    let payload = &event.payload;
    for (field, value) in [
        ("tool", json!("gg_ping")),
        ("called_by", json!("agent")),
        ("arguments", json!({})),
        ("is_error", json!(false)),
        ("error", Value::Null),
    ] {
        assert_eq!(payload[field], value, "{field} of {payload}");
    }
    assert_eq!(payload["result"], gateway["result"]);
    assert!(payload["duration_ms"].is_u64() && payload["invocation_id"].is_string(), "{payload}");
    // It belongs to the turn, and was there before the agent was answered.
    let events = stage.events(&session_id);
    let event = events.iter().find(|event| event.kind == "mcp.tool_called").unwrap();
    assert_eq!(event.json["turn_id"], turn["id"]);
    let done = events.iter().find(|event| {
        event.kind == "item.completed" && event.payload["item"]["type"] == "tool_call"
    });
    assert!(event.seq < done.unwrap().seq);
}

#[test]
fn a_call_that_is_refused_is_told_to_the_agent_and_to_the_log() {
    let stage = Stage::new();
    let session_id = stage.session();
    for (prompt, told) in [
        ("mcp gg gg_nonsense {}", "there is no tool \"gg_nonsense\""),
        ("mcp gg gg_ping {\"colour\": \"red\"}", "colour: there is no such argument"),
    ] {
        stage.run(&session_id, prompt);
        let call = calls(&stage, &session_id).pop().unwrap();
        let sent = prompt.split(' ').skip(3).collect::<Vec<_>>().join(" ");
        assert_eq!(call["arguments"].to_string(), sent.replace(": ", ":"));
        assert_eq!((&call["is_error"], &call["result"]), (&json!(true), &Value::Null), "{call}");
        assert_eq!(call["error"]["code"], "bad_request");
        assert!(text(&call["error"], "message").starts_with(told), "{call}");
        let items = list(stage.get(&format!("/v1/sessions/{session_id}/transcript")));
        let item = items.iter().rfind(|item| item["type"] == "tool_call").unwrap();
        assert_eq!(item["status"], "failed", "{item}");
        assert!(item.to_string().contains("bad_request"), "{item}");
    }
}

#[test]
fn the_same_agent_goes_on_calling_when_the_server_was_killed_and_is_back_elsewhere() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "mcp gg gg_ping {}");
    // The new server takes a free port: as good as always another one.
    stage.server.kill9();
    stage.restart();
    let turn = stage.run(&session_id, "mcp gg gg_ping {}");
    assert_eq!(envelope(&turn)["result"]["gateway"]["ok"], true, "{turn}");
    assert_eq!(calls(&stage, &session_id).len(), 2);
    let events = stage.events(&session_id);
    assert_eq!(events.iter().filter(|event| event.kind == "agent.started").count(), 1);
}

#[test]
fn an_agent_that_slept_has_another_token_and_the_old_one_opens_nothing() {
    // One agent at a time: who is needed wakes, and the other one sleeps for it.
    let wiretap = Wiretap::start("max_instances = 1\nmax_sessions_per_instance = 1\n");
    let stage = &wiretap.stage;
    let session_id = wiretap.session("one");
    let (old, old_client) = (wiretap.token("one"), wiretap.client("one"));
    wiretap.session("two");
    stage.event(&session_id, "agent.slept", 0);
    check_error(&old_client.get("/v1/mcp/capabilities"), 401, "unauthorized");
    let turn = stage.run(&session_id, "mcp gg gg_ping {}");
    assert_eq!(envelope(&turn)["result"]["gateway"]["ok"], true, "{turn}");
    assert_ne!(wiretap.token("one"), old);
    check_error(&old_client.get("/v1/mcp/capabilities"), 401, "unauthorized");
}

#[test]
fn the_clients_own_servers_stand_beside_ours_but_not_under_its_name() {
    let stage = Stage::new();
    let sidecar = program("GG_TEST_MCP_SERVER", "gg-mcp-server").unwrap();
    let server = |name: &str| json!({"mcp_servers": [{"name": name, "command": sidecar}]});
    let record = stage.create(&server("mine"));
    let session_id = text(&record, "id");
    // It has no environment of ours, so it knows no gateway.
    let mine = envelope(&stage.run(&session_id, "mcp mine gg_ping {}"));
    assert_eq!(mine["result"]["gateway"]["error"]["code"], "backend_unavailable", "{mine}");
    let ours = envelope(&stage.run(&session_id, "mcp gg gg_ping {}"));
    assert_eq!(ours["result"]["gateway"]["ok"], true, "{ours}");
    let refused = stage.post_session(&server("gg"), &[]);
    let told = check_error(&refused, 400, "bad_request");
    assert!(told.starts_with("mcp_servers[0]: the name \"gg\""), "{told}");
}

#[test]
fn a_gateway_that_is_switched_off_is_given_to_nobody() {
    let stage = Stage::with_config("[mcp]\nenabled = false\n");
    let session_id = stage.session();
    let turn = stage.run(&session_id, "mcp gg gg_ping {}");
    let items = stage.items(&session_id, &text(&turn, "id"));
    let item = items.iter().find(|item| item["type"] == "tool_call").unwrap();
    assert_eq!(item["status"], "failed", "{item}");
    let told = check_error(&stage.client.get("/v1/mcp/capabilities"), 404, "not_found");
    assert!(told.contains("mcp.enabled"), "{told}");
    let body = json!({"tool_name": "gg_ping", "caller_agent_id": session_id, "args": {}});
    check_error(&stage.client.post("/v1/mcp/invoke", &body), 404, "not_found");
    check_error(&stage.client.post("/v1/mcp", &body), 404, "not_found");
    assert!(calls(&stage, &session_id).is_empty());
}

#[test]
fn the_sidecar_can_be_another_program_that_must_be_there() {
    let with = |path: &str| {
        let env = vec![("GG_MCP_SERVER_PATH".to_owned(), path.to_owned())];
        Server::try_start(Options { env, ..Options::default() })
    };
    let error = with("/nowhere/gg-mcp-server").unwrap_err();
    assert!(error.contains("GG_MCP_SERVER_PATH is /nowhere/gg-mcp-server"), "{error}");
    let folder = gooselake_harness::temp::TempDir::new("gg-sidecar");
    let link = folder.path().join("another-name");
    symlink(program("GG_TEST_MCP_SERVER", "gg-mcp-server").unwrap(), &link).unwrap();
    let server = with(link.to_str().unwrap()).unwrap();
    let stage =
        Stage { client: crate::contract::client(&server), cwd: folder.path().to_owned(), server };
    let session_id = stage.session();
    assert_eq!(envelope(&stage.run(&session_id, "mcp gg gg_ping {}"))["ok"], true);
}
