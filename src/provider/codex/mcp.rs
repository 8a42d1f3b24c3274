//! The MCP servers of a session, as a thread's configuration.
//!
//! Owns: the way from ACP's `McpServer` shape to Codex's `mcp_servers`. Codex's servers inherit nothing, so a
//! server's variables are written whole. Pure; deliberately starts no server.

use crate::provider::rpc::{list, object, text};
use serde_json::{Map, Value, json};

/// How long Codex waits for a server to start.
const STARTUP_TIMEOUT_SECS: u64 = 30;
/// A server's name is part of a key of the configuration.
const NAME_BYTES_MAX: usize = 200;

/// The value of `mcp_servers`, and the names of servers that Codex can not have, each with the reason.
pub(super) fn config(servers: &[Value], is_asked_about: bool) -> (Value, Vec<(String, String)>) {
    let mut config = Map::new();
    let mut left_out = Vec::new();
    for server in servers.iter().filter_map(Value::as_object) {
        let name = text(server, "name");
        match one(server) {
            Ok(_) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                left_out.push((name.chars().take(40).collect(), "its name is no name".to_owned()));
            }
            Ok(mut one) => {
                one["startup_timeout_sec"] = json!(STARTUP_TIMEOUT_SECS);
                if !is_asked_about {
                    // Where nobody may be asked Codex would refuse each call.
                    one["default_tools_approval_mode"] = json!("approve");
                }
                config.insert(name.to_owned(), one);
            }
            Err(why) => left_out.push((name.to_owned(), why)),
        }
    }
    (Value::Object(config), left_out)
}

fn one(server: &Map<String, Value>) -> Result<Value, String> {
    let is_plain = matches!(text(server, "type"), "" | "stdio");
    match text(server, "type") {
        _ if is_plain && server.contains_key("command") => {
            let args: Vec<&str> = list(server, "args").iter().filter_map(Value::as_str).collect();
            let env = pairs(server, "env");
            Ok(json!({"command": text(server, "command"), "args": args, "env": env}))
        }
        "" | "http" => {
            let headers = pairs(server, "headers");
            Ok(json!({"url": text(server, "url"), "http_headers": headers}))
        }
        other => Err(format!("Codex has no transport {other:?}")),
    }
}

/// A list of name and value as an object; an object as it is.
fn pairs(server: &Map<String, Value>, field: &str) -> Value {
    if let Some(object) = object(server, field) {
        return Value::Object(object.clone());
    }
    let pairs = list(server, field).iter().filter_map(|pair| {
        Some((pair.get("name")?.as_str()?.to_owned(), pair.get("value")?.clone()))
    });
    Value::Object(pairs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_keeps_its_variables_and_headers() {
        let servers = [
            json!({"name": "a", "command": "/x", "args": ["1"],
                "env": [{"name": "K", "value": "V"}]}),
            json!({"name": "b", "type": "http", "url": "http://h/mcp",
                "headers": [{"name": "Authorization", "value": "Bearer t"}]}),
            json!({"name": "c", "type": "sse", "url": "http://h"}),
        ];
        let (config, left_out) = super::config(&servers, true);
        assert_eq!(config["a"]["env"], json!({"K": "V"}));
        assert_eq!(config["a"].get("default_tools_approval_mode"), None);
        assert_eq!(config["b"]["http_headers"], json!({"Authorization": "Bearer t"}));
        assert_eq!(left_out.len(), 1);
        assert!(left_out[0].1.contains("\"sse\""), "{left_out:?}");
        let (config, _) = super::config(&servers, false);
        assert_eq!(config["a"]["default_tools_approval_mode"], "approve");
    }
}
