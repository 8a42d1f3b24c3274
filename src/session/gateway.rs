//! The tools of ours that an agent is given: an MCP server of its own, with a token of its own.
//!
//! Runs on the session's thread, when an agent process is about to be started. The token lives as long as that process:
//! its hash is committed with the row of the agent and goes with it. The text is in one private file, which the sidecar
//! reads and which is removed when the process is gone; a server that is restarted has no need of it.

use super::actor::Actor;
use crate::error::{Error, Result};
use crate::provider::Open;
use crate::secret::{self, Hash};
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The name of our server among an agent's MCP servers; no client may use it.
pub const GATEWAY_SERVER: &str = "gg";

/// What an agent's token begins with, so that it is known when it is seen where it should not be.
pub const AGENT_TOKEN_PREFIX: &str = "ggt_";

/// The folder of the tokens of agents that live, in the data folder. Each is in a file of the agent's name.
pub const TOKENS_FOLDER: &str = "agent-tokens";

/// How agents reach the gateway.
#[derive(Clone, Debug)]
pub struct GatewayAccess {
    /// The program that speaks MCP on stdio.
    pub program: PathBuf,
    pub url: String,
    /// Holds the URL of the server that runs now: an agent may outlive this one.
    pub url_file: PathBuf,
}

/// The token of an agent process that is about to be started.
pub(super) struct Token {
    text: String,
    pub(super) hash: Hash,
}

impl Actor {
    /// Adds our server to those that the agent opens. None: the gateway is switched off.
    pub(super) fn give_tools(&self, open: &mut Open, child_id: &str) -> Result<Option<Token>> {
        let Some(access) = &self.shared.gateway else { return Ok(None) };
        let text = format!("{AGENT_TOKEN_PREFIX}{}", secret::random()?);
        let file = token_file(&self.shared.config.root_dir, child_id);
        open.mcp_servers.push(server(access, &self.session_id, &file));
        Ok(Some(Token { hash: secret::hash(&text), text }))
    }
}

/// Puts the token where the agent's sidecar finds it. Errors: the file can not be written.
pub(super) fn hand_over(root_dir: &Path, child_id: &str, token: &Token) -> Result<()> {
    let path = token_file(root_dir, child_id);
    secret::write(&path, &token.text).map_err(|error| {
        Error::internal(format!("the token can not be written to {}", path.display())).source(error)
    })
}

/// Removes what [`hand_over`] has written, if it has.
pub(super) fn take_back(root_dir: &Path, child_id: &str) {
    let path = token_file(root_dir, child_id);
    if let Err(error) = std::fs::remove_file(&path)
        && error.kind() != ErrorKind::NotFound
    {
        log::warn!("the token {} can not be removed; it opens nothing: {error}", path.display());
    }
}

/// Removes the tokens of agents that are not among `known`.
pub(super) fn take_back_others(root_dir: &Path, known: &[String]) {
    let entries = std::fs::read_dir(root_dir.join(TOKENS_FOLDER)).into_iter().flatten().flatten();
    for child_id in entries.filter_map(|entry| entry.file_name().into_string().ok()) {
        if !known.contains(&child_id) {
            take_back(root_dir, &child_id);
        }
    }
}

fn token_file(root_dir: &Path, child_id: &str) -> PathBuf {
    root_dir.join(TOKENS_FOLDER).join(child_id)
}

/// Our server in ACP's shape. It is told where its token is and not the token: some agents pass what they are told on
/// as arguments of a process, which everybody on the machine can read.
fn server(access: &GatewayAccess, session_id: &str, token_file: &Path) -> Value {
    let env = [
        ("GG_MCP_GATEWAY_URL", access.url.as_str()),
        ("GG_MCP_GATEWAY_URL_FILE", &access.url_file.to_string_lossy()),
        ("GG_MCP_GATEWAY_TOKEN_FILE", &token_file.to_string_lossy()),
        ("GG_MCP_CALLER_AGENT_ID", session_id),
    ];
    json!({
        "name": GATEWAY_SERVER,
        "command": access.program.to_string_lossy(),
        "args": [],
        "env": env.map(|(name, value)| json!({"name": name, "value": value})),
    })
}
