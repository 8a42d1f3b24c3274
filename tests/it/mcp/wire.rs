//! The gateway over HTTP: MCP in both eras, the call by JSON, and what comes of nonsense.

use super::wiretap::Wiretap;
use crate::stage::{Stage, check_error, check_told, each, list};
use gooselake_harness::client::{Client, Reply};
use serde_json::{Value, json};

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn request(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

fn post(client: &Client, message: &Value) -> Value {
    client.post("/v1/mcp", message).expect(200).json()["result"].clone()
}

#[test]
fn an_agent_speaks_mcp_to_the_gateway_itself() {
    let wiretap = Wiretap::start("");
    let session_id = wiretap.session("one");
    let client = wiretap.client("one");
    for version in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"] {
        let hello = post(&client, &request("initialize", json!({"protocolVersion": version})));
        assert_eq!(hello["protocolVersion"], version);
        assert_eq!(hello["serverInfo"]["name"], "gooselake");
        let headers = [JSON, ("MCP-Protocol-Version", version)];
        let body = json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string();
        let reply = client.request("POST", "/v1/mcp", &headers, body.as_bytes()).expect(202);
        assert_eq!(reply.text(), "");
    }
    let tools = post(&client, &request("tools/list", json!({})))["tools"].clone();
    let called = post(&client, &request("tools/call", json!({"name": "gg_ping"})));
    assert_eq!(called["isError"], false);
    let envelope: Value =
        serde_json::from_str(called["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(envelope["caller_agent_id"], json!(session_id));
    // What the capabilities say, what MCP lists and what the sidecar lists is one list.
    let capabilities = client.get("/v1/mcp/capabilities").expect(200).json();
    assert_eq!(capabilities["ok"], true);
    let result = &capabilities["result"];
    assert_eq!(result["toolSchemas"], tools);
    assert_eq!(result["tools"], json!(each(&list(tools), "name")));
    for field in ["ggProcessEnabled", "ggTeamEnabled"] {
        assert!(result[field].is_boolean(), "{field} of {result}");
    }
    assert!(result["supportedNamespaces"].is_array() && result["ggTeamModelPresets"].is_array());
}

#[test]
fn an_agent_without_a_handshake_speaks_mcp_too() {
    let wiretap = Wiretap::start("");
    wiretap.session("one");
    let client = wiretap.client("one");
    let send = |method: &'static str, mut params: Value, header: &str| -> Reply {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let name = params["name"].as_str().unwrap_or_default().to_owned();
        let mut headers =
            vec![JSON, ("MCP-Protocol-Version", "2026-07-28"), ("Mcp-Method", header)];
        if !name.is_empty() {
            headers.push(("Mcp-Name", &name));
        }
        let body = request(method, params).to_string();
        client.request("POST", "/v1/mcp", &headers, body.as_bytes())
    };
    let found = send("server/discover", json!({}), "server/discover").expect(200).json();
    assert_eq!(found["result"]["supportedVersions"][0], "2026-07-28");
    let list = send("tools/list", json!({}), "tools/list").expect(200).json();
    assert_eq!(list["result"]["resultType"], "complete");
    let call = send("tools/call", json!({"name": "gg_ping"}), "tools/call").expect(200).json();
    assert_eq!(call["result"]["isError"], false, "{call}");
    let lie = send("tools/call", json!({"name": "gg_ping"}), "tools/list").expect(400).json();
    assert_eq!(lie["error"]["code"], -32020);
    let gone = send("initialize", json!({}), "initialize").expect(404).json();
    assert_eq!(gone["error"]["code"], -32601);
}

#[test]
fn nonsense_is_refused_and_changes_nothing() {
    let wiretap = Wiretap::start("");
    let session_id = wiretap.session("one");
    let client = wiretap.client("one");
    let before = wiretap.stage.events(&session_id).len();
    let send = |body: &str| client.request("POST", "/v1/mcp", &[JSON], body.as_bytes());
    for (body, status, code) in [
        ("", 400, -32700),
        ("{", 400, -32700),
        ("[]", 400, -32600),
        ("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/list\"}]", 400, -32600),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"resources/list\"}", 200, -32601),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{}}", 200, -32602),
        (&"[".repeat(60_000), 400, -32700),
    ] {
        let answer = send(body).expect(status).json();
        assert_eq!(answer["error"]["code"], code, "{body:.60}");
    }
    let large = format!("{{\"x\":\"{}\"}}", "y".repeat(64 * 1024));
    for path in ["/v1/mcp", "/v1/mcp/invoke"] {
        let reply = client.request("POST", path, &[JSON], large.as_bytes());
        check_error(&reply, 413, "payload_too_large");
        let reply = client.request("POST", path, &[("Content-Type", "text/plain")], b"{}");
        check_error(&reply, 415, "unsupported_media_type");
    }
    assert_eq!(wiretap.stage.events(&session_id).len(), before);
}

#[test]
fn a_call_by_json_is_checked_before_it_is_a_call() {
    let stage = Stage::new();
    let session_id = stage.session();
    let before = stage.events(&session_id).len();
    let invoke = |mut fields: Value| {
        fields["caller_agent_id"] = json!(session_id);
        stage.client.post("/v1/mcp/invoke", &fields)
    };
    for (fields, told) in [
        (json!({"args": {}}), "tool_name"),
        (json!({"tool_name": " ", "args": {}}), "tool_name is blank"),
        (json!({"tool_name": 7}), "tool_name: invalid type"),
        (json!({"tool_name": "gg_ping", "namespace": "gg_team"}), "namespace is \"gg_team\""),
        (json!({"tool_name": "gg_ping", "namespace": "gg_"}), "namespace is \"gg_\""),
        (json!({"tool_name": "gg_ping", "agrs": {}}), "agrs: there is no such field"),
    ] {
        check_told(&invoke(fields), 400, "bad_request", told);
    }
    assert_eq!(stage.events(&session_id).len(), before);
    // From here on it is a call, and the log has it.
    for args in [json!(null), json!([]), json!("x"), json!(7)] {
        let envelope = invoke(json!({"tool_name": "gg_ping", "args": args})).expect(200).json();
        let error = json!({"code": "bad_request", "message": "args must be an object"});
        assert_eq!(envelope, json!({"ok": false, "error": error}));
    }
    assert_eq!(stage.events(&session_id).len(), before + 4);
    // The other spelling of the names is understood.
    let body = json!({"toolName": "gg_ping", "callerAgentId": session_id, "invocationId": "mine",
        "args": {}});
    assert_eq!(stage.client.post("/v1/mcp/invoke", &body).expect(200).json()["ok"], true);
    let event = stage.events(&session_id).pop().unwrap();
    assert_eq!(event.payload["invocation_id"], "mine");
}

#[test]
fn what_a_call_says_is_cut_in_the_log_and_not_in_the_answer() {
    let stage = Stage::new();
    let session_id = stage.session();
    let args = json!({"text": "x".repeat(40_000)});
    let body = json!({"tool_name": "t".repeat(1000), "caller_agent_id": session_id, "args": args});
    let envelope = stage.client.post("/v1/mcp/invoke", &body).expect(200).json();
    assert_eq!(envelope["ok"], false);
    let event = stage.event(&session_id, "mcp.tool_called", 0);
    assert_eq!(event.payload["arguments"]["bytes"], args.to_string().len());
    assert_eq!(event.payload["arguments"]["cut"].as_str().unwrap().len(), 16 * 1024);
    assert_eq!(event.payload["tool"].as_str().unwrap().len(), 256);
}
