//! What a provider's program finds on the machine when it starts: private folders, variables of its own.
//!
//! The one part of this floor that touches files; it runs on the session's thread, before the keeper is started, and on
//! whatever thread purges a session. Each provider that needs more than a line has a file of its own. It starts nothing
//! and speaks no protocol.

use crate::error::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// For whom something is staged.
pub struct Staging<'a> {
    /// The data folder.
    pub root_dir: &'a Path,
    pub session_id: &'a str,
}

/// Prepares what `provider`'s program needs and adds its variables to `env`. What the configuration and the session set
/// is added afterwards and stands. Errors: a folder or file can not be written.
pub fn stage(
    provider: &str,
    staging: &Staging<'_>,
    env: &mut BTreeMap<String, String>,
) -> Result<()> {
    if provider == "demo" {
        let state = staging.root_dir.join("providers/demo");
        env.insert("GG_DEMO_STATE_DIR".to_owned(), state.to_string_lossy().into_owned());
    }
    Ok(())
}
