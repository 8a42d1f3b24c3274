//! Claude, beside its dialect: what the server keeps for it on disk, and what its program finds there.
//!
//! The dialect itself is ACP: the bridge that comes with the server (`sidecars/claude-bridge`) stands between.

pub mod auth;
pub mod stage;

use super::PERMISSION_MODES;
use crate::error::{Error, Result};

/// Errors: there is no such permission mode. A misspelt one would look like a limit and be none.
pub(super) fn check_permission_mode(permission_mode: &str) -> Result<()> {
    if PERMISSION_MODES.contains(&permission_mode) {
        return Ok(());
    }
    Err(Error::bad_request(format!("permission_mode: claude has no {permission_mode:?}"))
        .hint(format!("it has {}", PERMISSION_MODES.join(", "))))
}
