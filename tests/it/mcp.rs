//! The MCP gateway, through the real sidecar and by hand: what agents do with it, and what they can not.
//!
//! Owns: how an agent of a story calls a tool. `agent` is the way of an agent that calls tools, `access` what its token
//! opens, `wire` the gateway over HTTP, and `wiretap` lets a test read what an agent is told, its token among it;
//! `process`, `team` and `feature` are about the tools themselves.

mod access;
mod agent;
mod feature;
mod process;
mod team;
mod wire;
pub(crate) mod wiretap;

use crate::stage::{Stage, text};
use serde_json::{Value, json};

/// The envelope that the agent was answered in its turn.
pub(crate) fn envelope(turn: &Value) -> Value {
    let told = text(turn, "assistant_text");
    serde_json::from_str(&told).unwrap_or_else(|error| panic!("{error}: {told}"))
}

/// The prompt that makes the demo agent call a tool of ours.
pub(crate) fn prompt(tool: &str, arguments: &Value) -> String {
    format!("mcp gg {tool} {arguments}")
}

impl Stage {
    /// The session's agent calls a tool in a turn; the envelope that it is answered.
    pub(crate) fn call(&self, session_id: &str, tool: &str, arguments: &Value) -> Value {
        envelope(&self.run(session_id, &prompt(tool, arguments)))
    }

    /// The same when it works; the result.
    #[track_caller]
    pub(crate) fn called(&self, session_id: &str, tool: &str, arguments: &Value) -> Value {
        let envelope = self.call(session_id, tool, arguments);
        assert_eq!(envelope["ok"], true, "{tool}: {envelope}");
        envelope["result"].clone()
    }

    /// The same when it is refused with this code, for a reason that has this in it.
    #[track_caller]
    pub(crate) fn refused(
        &self,
        session_id: &str,
        tool: &str,
        arguments: &Value,
        (code, part): (&str, &str),
    ) {
        let envelope = self.call(session_id, tool, arguments);
        let told = envelope["error"]["message"].as_str().unwrap_or_default();
        let is_it = envelope["ok"] == false && envelope["error"]["code"] == code;
        assert!(is_it && told.contains(part), "{tool}: {code} and {part:?} awaited in {envelope}");
    }

    /// The operator calls a tool in the session's name, under an id.
    fn invoke(&self, session_id: &str, tool: &str, id: &str, arguments: &Value) -> Value {
        let body = json!({"tool_name": tool, "caller_agent_id": session_id, "invocation_id": id,
            "args": arguments});
        self.client.post("/v1/mcp/invoke", &body).expect(200).json()
    }
}
