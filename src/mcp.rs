//! Floor 5: the MCP gateway, through which agents act on the runtime.
//!
//! Owns: the one table of tools ([`tool`]), the check of arguments against a tool's own schema, and the record of each
//! call: an event in the caller's session, committed before the caller is answered. Tools call the same functions as
//! the HTTP routes. Runs on the thread of whoever calls.
//!
//! Promises: a call that is refused changes nothing but the log; what is written of arguments and results is bounded.
//! It deliberately knows no HTTP and no JSON-RPC: `api::mcp` reads requests, `gg_mcp_server::rpc` knows the protocol.

mod schema;
mod tool;

use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::{Ledger, to_json, token};
use crate::limits;
use crate::model::event::EventKind;
use crate::secret;
use serde_json::{Value, json};
use std::time::Instant;

pub use tool::ToolError;

/// The gateway of this server.
pub struct Gateway {
    ledger: Ledger,
    is_enabled: bool,
}

/// A call of a tool.
#[derive(Debug)]
pub struct Invocation {
    /// In whose name.
    pub session_id: String,
    pub called_by: CalledBy,
    pub tool: String,
    /// The caller's own id of the call.
    pub invocation_id: Option<String>,
    pub arguments: Value,
}

/// Whose token a call came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledBy {
    Agent,
    Operator,
}

impl CalledBy {
    fn as_str(self) -> &'static str {
        match self {
            CalledBy::Agent => "agent",
            CalledBy::Operator => "operator",
        }
    }
}

impl Gateway {
    pub fn new(ledger: Ledger, is_enabled: bool) -> Gateway {
        Gateway { ledger, is_enabled }
    }

    /// Errors: the configuration has switched the gateway off.
    pub fn check_enabled(&self) -> Result<()> {
        if self.is_enabled {
            return Ok(());
        }
        Err(Error::new(Code::NotFound, "the MCP gateway is switched off")
            .hint("set mcp.enabled = true in the configuration"))
    }

    /// The session whose agent has this token, if any has.
    pub fn session_of_token(&self, token: &str) -> Result<Option<String>> {
        let token_hash = secret::hash(token);
        self.ledger.read(|db| token::session_of(db, &token_hash))
    }

    /// The tools as `tools/list` shows them.
    pub fn tools(&self) -> Vec<Value> {
        tool::TOOLS.iter().map(|tool| (tool.shown)()).collect()
    }

    /// What the gateway has, for clients that ask before they call.
    pub fn capabilities(&self) -> Value {
        let names: Vec<&str> = tool::TOOLS.iter().map(|tool| tool.name).collect();
        let has = |namespace: &str| names.iter().any(|name| tool::namespace(name) == namespace);
        let namespaces = ["gg_process", "gg_team", "gg_worktree"].map(|name| (name, has(name)));
        json!({
            "ggProcessEnabled": has("gg_process"),
            "ggTeamEnabled": has("gg_team"),
            "ggTeamManagePermissions":
                {"nonLeadCanAddMembers": false, "nonLeadCanRemoveMembers": false},
            "ggTeamModelPresets": [],
            "supportedNamespaces":
                namespaces.iter().filter(|(_, has)| *has).map(|(name, _)| name).collect::<Vec<_>>(),
            "tools": names,
            "toolSchemas": self.tools(),
        })
    }

    /// Calls a tool and gives its envelope, when the call is in the log of the caller's session. Errors: the session is
    /// gone, or the log can not be written.
    pub fn invoke(&self, invocation: Invocation) -> Result<Value> {
        let begun = Instant::now();
        let outcome = self.run(&invocation);
        let duration_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let envelope = match &outcome {
            Ok(result) => json!({"ok": true, "result": result}),
            Err(error) => gg_mcp_server::failure(error.code.as_str(), &error.message),
        };
        let payload = json!({
            "tool": bounded_text(&invocation.tool),
            "invocation_id": invocation.invocation_id.as_deref().map(bounded_text),
            "called_by": invocation.called_by.as_str(),
            "arguments": bounded(&invocation.arguments),
            "result": outcome.as_ref().ok().map(bounded),
            "is_error": outcome.is_err(),
            "error": outcome.is_err().then(|| &envelope["error"]),
            "duration_ms": duration_ms,
        });
        let payload = to_json(&payload);
        self.ledger.write(move |tx| {
            let session_id = &invocation.session_id;
            let turn_id = tx.session(session_id)?.active_turn_id;
            let mut event = NewEvent::session(session_id, EventKind::McpToolCalled, payload);
            event.turn_id = turn_id.as_deref();
            tx.append(event)?;
            tx.touch_session(session_id)
        })?;
        Ok(envelope)
    }

    fn run(&self, invocation: &Invocation) -> std::result::Result<Value, ToolError> {
        let name = &invocation.tool;
        let Some(tool) = tool::TOOLS.iter().find(|tool| tool.name == name) else {
            let names: Vec<&str> = tool::TOOLS.iter().map(|tool| tool.name).collect();
            let told = format!("there is no tool {name:?}; there are {}", names.join(", "));
            return Err(ToolError::bad_request(told));
        };
        schema::check(&(tool.shown)()["inputSchema"], &invocation.arguments)
            .map_err(ToolError::bad_request)?;
        (tool.run)(self, invocation)
    }
}

/// A value as the log keeps it: whole, or the beginning of its JSON with its size.
fn bounded(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= limits::TOOL_CALL_BYTES {
        return value.clone();
    }
    let kept = &text[..text.floor_char_boundary(limits::TOOL_CALL_BYTES)];
    json!({"cut": kept, "bytes": text.len()})
}

/// A name that a caller made up, as the log keeps it.
fn bounded_text(text: &str) -> &str {
    const TEXT_BYTES: usize = 256;
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_cut_for_the_log_and_says_how_large_it_was() {
        assert_eq!(bounded(&json!({"a": 1})), json!({"a": 1}));
        let large = json!("ü".repeat(limits::TOOL_CALL_BYTES));
        let kept = bounded(&large);
        assert_eq!(kept["bytes"], 2 * limits::TOOL_CALL_BYTES + 2);
        // A quote, then letters of two bytes.
        assert_eq!(kept["cut"].as_str().unwrap().len(), limits::TOOL_CALL_BYTES - 1);
        assert_eq!(bounded_text(&"x".repeat(1000)).len(), 256);
    }
}
