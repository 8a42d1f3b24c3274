//! A stdio MCP server with one tool, `echo`: what an agent is to reach through the server.

use serde_json::{Value, json};
use std::io::{BufRead, Write};
use std::process::ExitCode;

/// The argument that makes this program that server.
pub(crate) const ARGUMENT: &str = "mcp-echo";
/// A variable that only the session's request sets.
pub(crate) const VARIABLE: &str = "GG_REAL_ECHO";

/// Serves until stdin closes.
pub(crate) fn serve() -> ExitCode {
    for line in std::io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(answer) = answer(&message) {
            let mut out = std::io::stdout();
            if writeln!(out, "{answer}").and_then(|()| out.flush()).is_err() {
                break;
            }
        }
    }
    ExitCode::SUCCESS
}

fn answer(message: &Value) -> Option<Value> {
    let id = message.get("id")?;
    let result = match message["method"].as_str()? {
        "initialize" => json!({
            "protocolVersion": message["params"]["protocolVersion"],
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "echo", "version": "1"},
        }),
        "tools/list" => json!({"tools": [{
            "name": "echo",
            "description": "Echoes text back.",
            "inputSchema": {
                "type": "object",
                "properties": {"text": {"type": "string"}},
                "required": ["text"],
            },
        }]}),
        "tools/call" => {
            let text = message["params"]["arguments"]["text"].as_str().unwrap_or_default();
            let seen = std::env::var(VARIABLE).unwrap_or_default();
            json!({
                "content": [{"type": "text", "text": format!("echo:{text} env:{seen}")}],
                "isError": false,
            })
        }
        "ping" => json!({}),
        other => {
            let error = json!({"code": -32601, "message": format!("no method {other}")});
            return Some(json!({"jsonrpc": "2.0", "id": id, "error": error}));
        }
    };
    Some(json!({"jsonrpc": "2.0", "id": id, "result": result}))
}
