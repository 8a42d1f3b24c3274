//! What a provider's program finds on the machine when it starts: private folders, variables of its own.
//!
//! The part of this floor that writes for sessions; it runs on the session's thread before the keeper is started, on
//! the thread of a probe, and on whatever thread purges a session. Each provider that needs more than a line has a file
//! of its own. It starts nothing and speaks no protocol.

use super::{claude, codex};
use crate::config::ClaudeAuthMode;
use crate::error::{Error, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// For whom something is staged.
pub struct Staging<'a> {
    /// The data folder.
    pub providers_dir: &'a Path,
    pub session_id: &'a str,
    /// What the configuration and the session set for the program.
    pub given: &'a BTreeMap<String, String>,
    pub claude_auth_mode: ClaudeAuthMode,
}

/// Prepares what `provider`'s program needs and adds its variables to `env`; returns arguments for it. What the
/// configuration and the session set is added afterwards and stands. Errors: a folder or file can not be written.
pub fn stage(
    provider: &str,
    staging: &Staging<'_>,
    env: &mut BTreeMap<String, String>,
) -> Result<Vec<String>> {
    match provider {
        "claude" => claude::stage::stage(staging, env)?,
        "codex" => return codex::home::stage(staging, env),
        "demo" => {
            let state = demo_state(staging.providers_dir, staging.session_id);
            env.insert("GG_DEMO_STATE_DIR".to_owned(), state.to_string_lossy().into_owned());
        }
        _ => {}
    }
    Ok(Vec::new())
}

/// Removes what was staged for a session that is about to be purged. Errors: it can not be removed.
pub fn unstage(providers_dir: &Path, session_id: &str) -> Result<()> {
    let state = demo_state(providers_dir, session_id);
    match fs::remove_dir_all(&state) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let text = format!("{} can not be removed", state.display());
            return Err(Error::internal(text).source(error));
        }
        _ => {}
    }
    codex::home::unstage(providers_dir, session_id)
}

/// What the demo agent keeps of one session: its conversation, for the next process.
fn demo_state(providers_dir: &Path, session_id: &str) -> PathBuf {
    providers_dir.join("demo").join(session_id)
}
