//! Permission modes: our words as Codex's approval policy and sandbox.
//!
//! | permission mode | approval policy | sandbox | MCP tools of the session |
//! | --- | --- | --- | --- |
//! | none given | as Codex is configured | as Codex is configured | asked about |
//! | `default`, `require_approval` | `on-request` | workspace-write | asked about |
//! | `read_only` | `on-request` | read-only | asked about |
//! | `full_auto` | `never` | workspace-write | run |
//! | `danger_full_access` | `never` | none | run |
//!
//! Words may be written with hyphens, but for `require_approval`, whose gate is the session's own. Pure;
//! deliberately knows nothing of threads and turns.

use crate::error::{Error, Result};
use crate::provider::PERMISSION_MODES;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What a thread may do without asking, in Codex's words. Null is not known.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Permission {
    pub(super) approval: Value,
    /// A sandbox policy (an object with a `type`).
    pub(super) sandbox: Value,
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) approval: &'static str,
    /// The name of the sandbox mode, for the start of a thread.
    pub(super) sandbox: &'static str,
}

impl Row {
    /// Whether nobody is asked.
    pub(super) fn is_silent(self) -> bool {
        self.approval == "never"
    }

    /// The row as a turn is told it. The workspace of `known`, with the folders that its owner added, is kept.
    pub(super) fn permission(self, known: &Permission) -> Permission {
        let is_workspace = known.sandbox["type"] == "workspaceWrite";
        let sandbox = match self.sandbox {
            "read-only" => json!({"type": "readOnly", "networkAccess": false}),
            "workspace-write" if is_workspace => known.sandbox.clone(),
            "workspace-write" => json!({
                "type": "workspaceWrite", "writableRoots": [], "networkAccess": false,
                "excludeTmpdirEnvVar": false, "excludeSlashTmp": false,
            }),
            _ => json!({"type": "dangerFullAccess"}),
        };
        Permission { approval: json!(self.approval), sandbox }
    }
}

/// None for a word that is not in the table.
pub(super) fn row(permission_mode: &str) -> Option<Row> {
    let (approval, sandbox) = match permission_mode.replace('-', "_").as_str() {
        "require_approval" | "default" => ("on-request", "workspace-write"),
        "read_only" => ("on-request", "read-only"),
        "full_auto" => ("never", "workspace-write"),
        "danger_full_access" => ("never", "danger-full-access"),
        _ => return None,
    };
    Some(Row { approval, sandbox })
}

/// Errors: not a word of ours.
pub(in crate::provider) fn check_permission_mode(permission_mode: &str) -> Result<()> {
    // The gate knows one spelling: another one would look like it and let everything through.
    if row(permission_mode).is_some() && permission_mode != "require-approval" {
        return Ok(());
    }
    Err(Error::bad_request(format!("permission_mode: codex has no {permission_mode:?}"))
        .hint(format!("it has {}", PERMISSION_MODES.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_has_a_row_in_both_spellings() {
        for word in PERMISSION_MODES {
            check_permission_mode(word).unwrap();
            assert_eq!(row(word), row(&word.replace('_', "-")));
        }
        let error = check_permission_mode("yolo").unwrap_err().to_string();
        assert!(error.contains("\"yolo\"") && error.contains("full_auto"), "{error}");
        assert!(check_permission_mode("require-approval").is_err());
    }

    #[test]
    fn a_workspace_keeps_the_folders_of_its_owner() {
        let own = json!({"type": "workspaceWrite", "writableRoots": ["/more"]});
        let known = Permission { approval: json!("on-request"), sandbox: own.clone() };
        assert_eq!(row("full_auto").unwrap().permission(&known).sandbox, own);
        let plain = row("default").unwrap().permission(&Permission::default());
        assert_eq!(plain.sandbox["writableRoots"], json!([]));
        assert_eq!(row("read-only").unwrap().permission(&known).sandbox["type"], "readOnly");
    }
}
