//! The tools of ours that an agent is given: an MCP server of its own, with a token of its own.
//!
//! Runs on the session's thread, when an agent process is about to be started. The token lives as long as that process:
//! its hash is committed with the row of the agent and goes with it. The text itself goes to the agent alone, in the
//! message that opens its session; a server that is restarted does not need it, for the agent has it.

use super::actor::Actor;
use crate::error::Result;
use crate::provider::Open;
use crate::secret::{self, Hash};
use serde_json::{Value, json};
use std::path::PathBuf;

/// The name of our server among an agent's MCP servers; no client may use it.
pub const GATEWAY_SERVER: &str = "gg";

/// What an agent's token begins with, so that it is known when it is seen where it should not be.
pub const AGENT_TOKEN_PREFIX: &str = "ggt_";

/// How agents reach the gateway.
#[derive(Clone, Debug)]
pub struct GatewayAccess {
    /// The program that speaks MCP on stdio.
    pub program: PathBuf,
    pub url: String,
    /// Holds the URL of the server that runs now: an agent may outlive this one.
    pub url_file: PathBuf,
}

impl Actor {
    /// Adds our server to those that the agent opens; gives the hash of its token. None: the gateway is switched off.
    pub(super) fn give_tools(&self, open: &mut Open) -> Result<Option<Hash>> {
        let Some(access) = &self.shared.gateway else { return Ok(None) };
        let token = format!("{AGENT_TOKEN_PREFIX}{}", secret::random()?);
        open.mcp_servers.push(server(access, &self.session_id, &token));
        Ok(Some(secret::hash(&token)))
    }
}

/// Our server in ACP's shape.
fn server(access: &GatewayAccess, session_id: &str, token: &str) -> Value {
    let env = [
        ("GG_MCP_GATEWAY_URL", access.url.as_str()),
        ("GG_MCP_GATEWAY_URL_FILE", &access.url_file.to_string_lossy()),
        ("GG_MCP_GATEWAY_TOKEN", token),
        ("GG_MCP_CALLER_AGENT_ID", session_id),
    ];
    json!({
        "name": GATEWAY_SERVER,
        "command": access.program.to_string_lossy(),
        "args": [],
        "env": env.map(|(name, value)| json!({"name": name, "value": value})),
    })
}
