//! What the MCP sidecar and the server's gateway have in common: the words of MCP, and the tool that both have.
//!
//! The gateway (`src/mcp` of the server) speaks MCP over HTTP, the program of this package over stdio; both read
//! messages and make answers here, so there is one place that knows the revisions. Nothing here does I/O.

pub mod rpc;

use serde_json::{Value, json};

/// The name of the tool that works without a gateway.
pub const PING: &str = "gg_ping";

/// The tool that works without a gateway, as `tools/list` shows it.
pub fn ping_tool() -> Value {
    json!({
        "name": PING,
        "description": "Tells whether the gateway of the runtime server answers, and as whom.",
        "inputSchema": {"type": "object", "properties": {}, "additionalProperties": false},
        "annotations": {"readOnlyHint": true},
    })
}

/// An envelope that says what went wrong.
pub fn failure(code: &str, message: &str) -> Value {
    json!({"ok": false, "error": {"code": code, "message": message}})
}

/// The text of a tool's answer, and whether it is an error. The caller is named in the envelope and in its result.
pub fn envelope_text(mut envelope: Value, caller_agent_id: Option<&str>) -> (String, bool) {
    let is_error = envelope["ok"] != true;
    if let (Some(caller), Some(fields)) = (caller_agent_id, envelope.as_object_mut()) {
        let name = |fields: &mut serde_json::Map<String, Value>| {
            fields.entry("caller_agent_id").or_insert_with(|| json!(caller));
        };
        if let Some(result) = fields.get_mut("result").and_then(Value::as_object_mut) {
            name(result);
        }
        name(fields);
    }
    (envelope.to_string(), is_error)
}
