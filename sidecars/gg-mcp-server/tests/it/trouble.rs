//! Gateways that are away, come back, or talk nonsense; clients that do.

use crate::client::{Client, names};
use crate::stand_in::{StandIn, TOOLS};
use gooselake_harness::temp::TempDir;
use gooselake_harness::thread;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;

/// An address where nobody listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}/v1/mcp", listener.local_addr().unwrap())
}

#[test]
fn without_a_gateway_it_can_be_pinged_and_says_what_is_missing() {
    let mut client = Client::start(&[]);
    client.result("initialize", json!({"protocolVersion": "2025-11-25"}));
    assert_eq!(names(&client.result("tools/list", json!({}))), ["gg_ping"]);
    let ping = client.call("gg_ping", json!({}));
    assert_eq!((&ping["ok"], &ping["result"]["name"]), (&json!(true), &json!("gg-mcp-server")));
    assert_eq!(ping["result"]["gateway"]["error"]["code"], "backend_unavailable");
    let other = client.call("gg_team_status", json!({}));
    assert_eq!(other["error"]["code"], "backend_unavailable");
    let required = json!(["GG_MCP_GATEWAY_URL", "GG_MCP_GATEWAY_TOKEN"]);
    assert_eq!(other["error"]["details"]["required_env"], required);
}

#[test]
fn a_gateway_that_comes_back_elsewhere_is_found_and_its_tools_are_told() {
    let folder = TempDir::new("gg-mcp");
    let file = folder.path().join("gateway");
    fs::write(&file, nowhere()).unwrap();
    let token_file = folder.path().join("token");
    fs::write(&token_file, "from the file\n").unwrap();
    let mut client = Client::start(&[
        ("GG_MCP_GATEWAY_URL", &nowhere()),
        ("GG_MCP_GATEWAY_URL_FILE", file.to_str().unwrap()),
        ("GG_MCP_GATEWAY_TOKEN_FILE", token_file.to_str().unwrap()),
        ("GG_MCP_GATEWAY_TOKEN", "secret"),
    ]);
    assert_eq!(names(&client.result("tools/list", json!({}))), ["gg_ping"]);
    let away = client.call("gg_team_status", json!({}));
    assert_eq!(away["error"]["code"], "backend_unavailable", "{away}");
    let gateway = StandIn::start(3, |_| json!({"ok": true, "result": {}}));
    fs::write(&file, format!("{}\n", gateway.url)).unwrap();
    client.ask(5, "tools/call", json!({"name": "gg_team_status"}));
    let told = client.line();
    assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
    assert_eq!(client.line()["result"]["isError"], false);
    let asked = gateway.asked().head;
    assert!(asked.contains("Authorization: Bearer from the file\r\n"), "{asked}");
    assert_eq!(names(&client.result("tools/list", json!({}))), TOOLS);
    // It is told once.
    assert_eq!(client.call("gg_team_status", json!({}))["ok"], true);
    // The gateway ends: the list that it gave is kept.
    let away = client.call("gg_team_status", json!({}));
    assert_eq!(away["error"]["code"], "backend_unavailable", "{away}");
    assert_eq!(names(&client.result("tools/list", json!({}))), TOOLS);
}

#[test]
fn answers_that_make_no_sense_become_errors() {
    let answers = [
        "",
        "nonsense",
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
        "HTTP/1.1 200 OK\r\n\r\n<html>",
        "HTTP/1.1 200 OK\r\n\r\n{\"ok\":7}",
        "HTTP/1.1 500 No\r\n\r\n",
    ];
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/v1/mcp", listener.local_addr().unwrap());
    let serving = thread::spawn("nonsense", move || {
        for answer in answers {
            let (mut socket, _) = listener.accept().unwrap();
            let mut bytes = [0; 4096];
            assert!(socket.read(&mut bytes).unwrap() > 0);
            socket.write_all(answer.as_bytes()).unwrap();
        }
    });
    let mut client = Client::of(&url);
    for answer in answers {
        let told = client.call("gg_team_status", json!({}));
        assert_eq!(told["error"]["code"], "backend_unavailable", "{answer:?} became {told}");
    }
    serving.unwrap().join();
}

#[test]
fn hostile_lines_are_answered_and_do_no_harm() {
    let mut client = Client::start(&[]);
    let code = |client: &Client| client.line()["error"]["code"].clone();
    client.send("{");
    assert_eq!(code(&client), -32700);
    client.send("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\"}]");
    assert_eq!(code(&client), -32600);
    client.send(&"x".repeat(3 << 20));
    assert_eq!(code(&client), -32700);
    client.send("");
    client.send("{\"jsonrpc\":\"2.0\",\"method\":\"notifications/made/up\"}");
    assert_eq!(client.result("ping", Value::Null), json!({}));
    assert_eq!(client.end(), (Vec::new(), Some(0)));
}

#[test]
fn the_command_line_is_checked() {
    let run = |argument: &str| {
        Command::new(env!("CARGO_BIN_EXE_gg-mcp-server")).arg(argument).output().unwrap()
    };
    assert!(String::from_utf8(run("--help").stdout).unwrap().contains("GG_MCP_GATEWAY_TOKEN"));
    assert!(run("--version").stdout.starts_with(b"gg-mcp-server "));
    let wrong = run("--wrong");
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8(wrong.stderr).unwrap().contains("--wrong"));
}
