//! What the token of an agent opens, and for how long.

use super::wiretap::Wiretap;
use crate::contract::hold;
use crate::stage::{SOON, Stage, check_error, text};
use crate::tidy::routes;
use gooselake_harness::client::Client;
use gooselake_harness::proc;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

fn ping(caller: Option<&str>) -> Value {
    json!({"tool_name": "gg_ping", "caller_agent_id": caller, "args": {}})
}

#[test]
fn an_agents_token_opens_the_gateway_and_nothing_else() {
    let wiretap = Wiretap::start("");
    let session_id = wiretap.session("one");
    let client = wiretap.client("one");
    let public = ["GET /health", "GET /ready", "GET /openapi.yaml"];
    let mut refused = 0;
    for route in routes() {
        let (method, pattern) = route.split_once(' ').unwrap();
        let part = |part: &str| match part {
            "{session_id}" => session_id.clone(),
            part if part.starts_with('{') => "x".to_owned(),
            part => part.to_owned(),
        };
        let path = pattern.split('/').map(part).collect::<Vec<_>>().join("/");
        let body = if method == "POST" { &b"{}"[..] } else { b"" };
        let json = [("Content-Type", "application/json")];
        let reply = client.request(method, &path, &json, body);
        if public.contains(&route.as_str()) {
            reply.expect(200);
        } else if pattern.starts_with("/v1/mcp") {
            assert!(!matches!(reply.status, 401 | 403), "{reply}");
        } else {
            let told = check_error(&reply, 403, "forbidden");
            assert!(told.contains("gateway"), "{told}");
            refused += 1;
        }
    }
    assert!(refused > 20, "{refused} routes were tried");
    assert_eq!(wiretap.stage.record(&session_id)["status"], "ready");
    // Methods that a path does not take are told where the agent may know the path.
    let get = client.get("/v1/mcp");
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")), "{get}");
    check_error(&client.delete("/v1/mcp"), 405, "method_not_allowed");
    check_error(&client.delete("/v1/events"), 403, "forbidden");
    check_error(&wiretap.stage.anonymous().get("/v1/mcp"), 401, "unauthorized");
}

#[test]
fn nobody_calls_in_the_name_of_another() {
    let wiretap = Wiretap::start("");
    let (one, other) = (wiretap.session("one"), wiretap.session("other"));
    let client = wiretap.client("one");
    let invoke = |client: &Client, caller| client.post("/v1/mcp/invoke", &ping(caller));
    for caller in [None, Some(""), Some(one.as_str())] {
        let envelope = invoke(&client, caller).expect(200).json();
        assert_eq!(envelope["result"]["caller_agent_id"], json!(one), "{envelope}");
    }
    for caller in [other.as_str(), "sess_x", "operator"] {
        check_error(&invoke(&client, Some(caller)), 403, "forbidden");
        let path = format!("/v1/mcp?caller_agent_id={caller}");
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "gg_ping"}});
        check_error(&client.post(&path, &call), 403, "forbidden");
    }
    let log = wiretap.stage.events(&other);
    assert!(log.iter().all(|event| event.kind != "mcp.tool_called"));
    // The operator calls for anybody, but must say for whom.
    let operator = &wiretap.stage.client;
    assert_eq!(invoke(operator, Some(&other)).expect(200).json()["ok"], true);
    let event = wiretap.stage.event(&other, "mcp.tool_called", 0);
    assert_eq!(event.payload["called_by"], "operator");
    for caller in [None, Some(" ")] {
        let told = check_error(&invoke(operator, caller), 400, "bad_request");
        assert!(told.starts_with("caller_agent_id is missing"), "{told}");
    }
    check_error(&invoke(operator, Some("sess_x")), 404, "not_found");
    wiretap.stage.close(&other);
    check_error(&invoke(operator, Some(&other)), 409, "session_closed");
}

#[test]
fn a_token_lives_as_long_as_its_agent() {
    let mut wiretap = Wiretap::start("");
    for name in ["closed", "killed"] {
        wiretap.session(name);
    }
    let status = |wiretap: &Wiretap, token: &str| {
        let client = Client::new(wiretap.stage.server.address(), token).watched(hold);
        client.get("/v1/mcp/capabilities").status
    };
    let tokens = [wiretap.token("closed"), wiretap.token("killed")];
    let both = |wiretap: &Wiretap| [status(wiretap, &tokens[0]), status(wiretap, &tokens[1])];
    let token = &tokens[0];
    for wrong in [&token[..token.len() - 1], &token.to_uppercase(), "ggt_", ""] {
        let client = Client::new(wiretap.stage.server.address(), wrong).watched(hold);
        check_error(&client.get("/v1/mcp/capabilities"), 401, "unauthorized");
    }
    wiretap.stage.server.kill9();
    wiretap.stage.restart();
    assert_eq!(both(&wiretap), [200, 200]);
    let list = |stage: &Stage| stage.get("/v1/sessions");
    let sessions = list(&wiretap.stage);
    let id_of = |name: &str| {
        let sessions = sessions.as_array().unwrap().iter();
        let is_it = |session: &&Value| text(session, "cwd").ends_with(name);
        text(sessions.clone().find(is_it).unwrap(), "id")
    };
    wiretap.stage.close(&id_of("closed"));
    assert_eq!(both(&wiretap), [401, 200]);
    let killed = id_of("killed");
    let pid = &wiretap.stage.event(&killed, "agent.started", 0).payload["pid"];
    let pid = u32::try_from(pid.as_u64().unwrap()).unwrap();
    proc::signal(pid, proc::Signal::KILL).unwrap();
    wiretap.stage.event(&killed, "agent.exited", 0);
    assert_eq!(both(&wiretap), [401, 401]);
    // The next process of the same session has a token of its own.
    wiretap.stage.run(&killed, "instant");
    assert_eq!(status(&wiretap, &wiretap.token("killed")), 200);
    assert_eq!(both(&wiretap), [401, 401]);
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

#[test]
fn a_token_is_told_to_its_agent_and_to_nobody_else() {
    let wiretap = Wiretap::start("");
    let stage = &wiretap.stage;
    let session_id = wiretap.session("one");
    stage.run(&session_id, "mcp gg gg_ping {}");
    let token = wiretap.token("one");
    assert_eq!((token.len(), &token[..4]), (68, "ggt_"));
    for path in [
        format!("/v1/sessions/{session_id}"),
        format!("/v1/sessions/{session_id}/transcript"),
        "/v1/sessions".to_owned(),
        "/v1/events?limit=10000".to_owned(),
        "/v1/diagnostics".to_owned(),
    ] {
        let told = stage.client.get(&path).expect(200).text();
        assert!(!told.contains("ggt_"), "{path} tells it: {told}");
    }
    assert!(!stage.server.stderr_text().contains("ggt_"));
    let keepers = proc::keepers_of(stage.server.data_dir());
    let below = keepers.iter().flat_map(|keeper| proc::descendants(*keeper));
    let tree: Vec<u32> = below.chain(keepers.clone()).collect();
    let sidecar = wiretap.server("one")["command"].as_str().unwrap().to_owned();
    assert!(tree.iter().any(|pid| proc::arguments(*pid).contains(&sidecar)), "no sidecar runs");
    for pid in tree {
        let arguments = proc::arguments(pid);
        assert!(!arguments.iter().any(|argument| argument.contains("ggt_")), "{arguments:?}");
    }
    // It is in one file, its owner's alone, and goes with the agent.
    let holds = |path: &std::path::PathBuf| {
        let bytes = fs::read(path).unwrap_or_default();
        bytes.windows(token.len()).any(|window| window == token.as_bytes())
    };
    let holders: Vec<_> = files(stage.server.data_dir()).into_iter().filter(holds).collect();
    assert_eq!(holders, [wiretap.token_file("one")]);
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&holders[0]), mode(holders[0].parent().unwrap())), (0o600, 0o700));
    stage.close(&session_id);
    assert!(!holders[0].exists());
    proc::wait_gone(&keepers, SOON).unwrap();
}

#[test]
fn a_token_that_a_killed_server_left_behind_is_removed_by_the_next() {
    let mut wiretap = Wiretap::start("");
    wiretap.session("one");
    let file = wiretap.token_file("one");
    let left_behind = file.with_file_name("agent_of_nobody");
    fs::write(&left_behind, "ggt_x").unwrap();
    wiretap.stage.server.kill9();
    wiretap.stage.restart();
    assert!(file.exists() && !left_behind.exists());
}
