//! What an agent does every day: it asks for the tools and calls them, in both eras of MCP, several at once.

use crate::client::{Client, envelope, names};
use crate::stand_in::{DEADLINE, StandIn, TOOLS};
use serde_json::{Value, json};
use std::sync::Mutex;
use std::sync::mpsc::channel;

fn done(_body: &Value) -> Value {
    json!({"ok": true, "result": {"done": true}})
}

#[test]
fn an_agent_with_a_handshake_gets_the_gateways_tools_and_their_answers() {
    let gateway = StandIn::start(2, done);
    let mut client = Client::of(&gateway.url);
    let hello = client.result("initialize", json!({"protocolVersion": "2025-06-18"}));
    assert_eq!(hello["protocolVersion"], "2025-06-18");
    assert_eq!(hello["serverInfo"]["name"], "gg-mcp-server");
    client.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);
    assert_eq!(client.result("ping", json!({})), json!({}));
    assert_eq!(names(&client.result("tools/list", json!({}))), TOOLS);
    let list = gateway.asked();
    assert!(list.head.contains("Authorization: Bearer secret\r\n"), "{}", list.head);
    let envelope = client.call("gg_team_status", json!({"team_id": "team_1"}));
    let result = json!({"done": true, "caller_agent_id": "sess_me"});
    let expected = json!({"ok": true, "result": result, "caller_agent_id": "sess_me"});
    assert_eq!(envelope, expected);
    let call = gateway.asked();
    assert!(call.head.starts_with("POST /v1/mcp/invoke HTTP/1.1\r\n"), "{}", call.head);
    assert_eq!(call.body["tool_name"], "gg_team_status");
    assert_eq!(call.body["args"], json!({"team_id": "team_1"}));
    assert_eq!(call.body["caller_agent_id"], "sess_me");
    assert_eq!(client.end(), (Vec::new(), Some(0)));
}

#[test]
fn an_agent_without_a_handshake_is_served_as_well() {
    let gateway = StandIn::start(2, done);
    let mut client = Client::of(&gateway.url);
    let with = |mut params: Value| {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        params
    };
    let found = client.result("server/discover", with(json!({})));
    assert!(found["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    let list = client.result("tools/list", with(json!({})));
    assert_eq!(
        (names(&list), &list["resultType"]),
        (TOOLS.map(String::from).into(), &json!("complete"))
    );
    let call = client.result("tools/call", with(json!({"name": "gg_team_status"})));
    assert_eq!(
        (envelope(&call)["ok"].clone(), &call["resultType"]),
        (json!(true), &json!("complete"))
    );
}

#[test]
fn a_slow_call_holds_up_no_other_and_is_answered_after_the_end_of_stdin() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let gateway = StandIn::start(2, move |body| {
        if body["tool_name"] == "slow" {
            gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        }
        done(body)
    });
    let mut client = Client::of(&gateway.url);
    client.ask(1, "tools/call", json!({"name": "slow"}));
    client.ask(2, "tools/call", json!({"name": "fast"}));
    client.ask(3, "ping", json!({}));
    let mut early = [client.line()["id"].clone(), client.line()["id"].clone()];
    early.sort_by_key(|id| id.as_i64());
    assert_eq!(early, [json!(2), json!(3)]);
    go.send(()).unwrap();
    let (rest, code) = client.end();
    assert_eq!((rest.len(), &rest[0]["id"], code), (1, &json!(1), Some(0)));
}

#[test]
fn calls_at_once_are_bounded() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let gateway = StandIn::start(33, move |body| {
        gone.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        done(body)
    });
    let mut client = Client::of(&gateway.url);
    for id in 1..=33 {
        client.ask(id, "tools/call", json!({"name": "slow"}));
    }
    let refused = client.line();
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(33), &json!(-32000)));
    for _ in 1..=32 {
        go.send(()).unwrap();
    }
    let mut answered: Vec<i64> = (1..=32).map(|_| client.line()["id"].as_i64().unwrap()).collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..=32).collect::<Vec<i64>>());
    // There is room again.
    go.send(()).unwrap();
    assert_eq!(client.call("slow", json!({}))["ok"], true);
}

#[test]
fn hidden_arguments_do_not_reach_the_tool_and_do_not_change_the_caller() {
    let gateway = StandIn::start(3, done);
    let mut client = Client::of(&gateway.url);
    let hidden = json!({"a": 1, "__gg_caller_agent_id": "sess_me", "__gg_tool_invocation_id": "x"});
    client.call("tool", hidden);
    let body = gateway.asked().body;
    assert_eq!(body["args"], json!({"a": 1}));
    assert_eq!(
        (&body["caller_agent_id"], &body["invocation_id"]),
        (&json!("sess_me"), &json!("x"))
    );
    let refused = client.call("tool", json!({"__gg_caller_agent_id": "sess_you"}));
    assert_eq!(refused["error"]["code"], "unauthorized");
    // Ids of calls that name none are this process's own.
    client.call("tool", json!({}));
    client.call("tool", json!({}));
    let (first, second) = (gateway.asked().body, gateway.asked().body);
    assert!(
        first["invocation_id"].is_string() && first["invocation_id"] != second["invocation_id"]
    );
}

#[test]
fn a_sidecar_for_several_agents_wants_each_call_to_name_its_caller() {
    let gateway = StandIn::start(1, done);
    let mut client = Client::start(&[
        ("GG_MCP_GATEWAY_URL", &gateway.url),
        ("GG_MCP_GATEWAY_TOKEN", "secret"),
        ("GG_MCP_REQUIRE_TOOL_CALLER_AGENT_ID", "1"),
    ]);
    let refused = client.call("tool", json!({}));
    assert_eq!(refused["error"]["code"], "unauthorized");
    assert_eq!(refused["error"]["details"]["required_tool_argument"], "__gg_caller_agent_id");
    let good = client.call("tool", json!({"__gg_caller_agent_id": "sess_you"}));
    assert_eq!(good["caller_agent_id"], "sess_you");
    assert_eq!(gateway.asked().body["caller_agent_id"], "sess_you");
}

#[test]
fn process_tools_can_be_switched_off() {
    let gateway = StandIn::start(1, done);
    let mut client = Client::start(&[
        ("GG_MCP_GATEWAY_URL", &gateway.url),
        ("GG_MCP_GATEWAY_TOKEN", "secret"),
        ("GG_MCP_ENABLE_PROCESS_TOOLS", "off"),
    ]);
    let shown = names(&client.result("tools/list", json!({})));
    assert_eq!(shown, ["gg_ping", "gg_team_status"]);
    let refused = client.call("gg_process_run", json!({"command": "true"}));
    assert_eq!(refused["error"]["code"], "feature_disabled");
}
