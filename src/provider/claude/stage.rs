//! What the bridge and the `claude` program behind it find when they start.
//!
//! Owns: the variables of one agent. Whose login they use is [`super::auth`]'s matter. Runs on the session's thread,
//! before the keeper is started. It writes nothing; what the configuration and the session set is stronger.
//!
//! The program is kept from updating itself under a running session and from sending reports of its errors. It is not
//! told to be silent altogether (`CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC`, `DISABLE_TELEMETRY`): behind a gateway its
//! mode `auto` denies everything then. Who wants that sets them in the configuration.

use super::auth::Auth;
use crate::error::{Error, Result};
use crate::provider::stage::Staging;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Variables of the server that Claude alone gets: logins, the address of a gateway, and whether the machine is one on
/// which it may run without questions as root.
const PASSED_ON: &[&str] = &[
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "ANTHROPIC_BASE_URL",
    "CLAUDE_CODE_OAUTH_TOKEN",
    "IS_SANDBOX",
];

/// What every program of a runtime is told.
const QUIET: &[&str] = &["DISABLE_AUTOUPDATER", "DISABLE_ERROR_REPORTING", "DISABLE_BUG_COMMAND"];

/// Names the program to the bridge.
pub const PROGRAM: &str = "CLAUDE_BRIDGE_CLAUDE";

/// Adds the variables of a Claude agent. Errors: a file of its login is there and can not be read.
pub fn stage(staging: &Staging<'_>, env: &mut BTreeMap<String, String>) -> Result<()> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    for name in PASSED_ON {
        if let Some(value) = variable(name) {
            env.insert((*name).to_owned(), value);
        }
    }
    for name in QUIET {
        env.insert((*name).to_owned(), "1".to_owned());
    }
    let auth = Auth::new(staging.providers_dir, staging.claude_auth_mode, variable);
    env.extend(auth.variables()?);
    if variable("GG_CLAUDE_BRIDGE_FORCE_OAUTH_TOKEN").is_some_and(|value| value == "1") {
        let named = variable("GG_CLAUDE_BRIDGE_CREDENTIALS_FILE").map(PathBuf::from);
        let path = named.or_else(|| credentials(env)).unwrap_or_default();
        env.insert("CLAUDE_CODE_OAUTH_TOKEN".to_owned(), access_token(&path)?);
    }
    Ok(())
}

/// Where the program has its credentials.
fn credentials(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let home = || env.get("HOME").map(|home| PathBuf::from(home).join(".claude"));
    let folder = env.get("CLAUDE_CONFIG_DIR").map(PathBuf::from).or_else(home)?;
    Some(folder.join(".credentials.json"))
}

fn access_token(path: &std::path::Path) -> Result<String> {
    let failed = |why: &str| {
        Error::internal(format!("{}: {why}", path.display())).hint(
            "GG_CLAUDE_BRIDGE_FORCE_OAUTH_TOKEN wants the token of this file; name another with \
             GG_CLAUDE_BRIDGE_CREDENTIALS_FILE, or leave the variable out",
        )
    };
    let bytes = std::fs::read(path).map_err(|error| failed(&error.to_string()))?;
    let credentials: Value =
        serde_json::from_slice(&bytes).map_err(|_| failed("the file is no JSON"))?;
    let token = credentials["claudeAiOauth"]["accessToken"].as_str();
    let token = token.ok_or_else(|| failed("there is no claudeAiOauth.accessToken in it"))?;
    Ok(token.to_owned())
}
