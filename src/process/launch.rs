//! How a process is started: its argument list, its environment, its keeper.
//!
//! The journals keep the first bytes of each stream, up to the cap of the log, and count the rest: so the cap holds
//! whether or not a server is there, and a command is never slowed down by how fast its output is stored.

use super::Shared;
use crate::environment;
use crate::error::{Error, Result};
use crate::keeper::{JournalPolicy, Policy, Spec};
use crate::ledger::process::{self as rows, ProcessRow};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// What the keeper needs to start this process.
pub(super) fn spec(shared: &Shared, row: &ProcessRow) -> Result<Spec> {
    let config = &shared.config;
    let mut env = environment::passed_on(&config.processes.env_passthrough);
    let of_request = shared.ledger.read(|db| rows::env(db, &row.process_id))?;
    let of_request: BTreeMap<String, String> =
        serde_json::from_str(&of_request).unwrap_or_default();
    env.extend(of_request);
    let bytes_max = u64::try_from(row.output_bytes_max).unwrap_or(0);
    let journal = JournalPolicy { policy: Policy::DropNewest, bytes_max };
    let lease_ms = u64::try_from(config.keeper_lease.as_millis()).unwrap_or(u64::MAX);
    Ok(Spec {
        child_id: row.process_id.clone(),
        dir: shared.child_dir(&row.process_id),
        program: shared.keeper.clone(),
        argv: argv(&row.command, config.processes.is_shell_allowed)?
            .into_iter()
            .map(Into::into)
            .collect(),
        env: env.into_iter().collect(),
        cwd: PathBuf::from(&row.cwd),
        stdout: journal,
        stderr: journal,
        grace_ms: u64::try_from(row.kill_grace_ms).unwrap_or(0),
        lease_ms,
        stdin_pipe: row.stdin != "none",
    })
}

/// The argument list of a command as the request gave it: a list as it is; a text for the shell, or split at white
/// space where the shell is not allowed.
pub(super) fn argv(command: &Value, is_shell_allowed: bool) -> Result<Vec<String>> {
    let argv: Vec<String> = match (&command["args"], command["command"].as_str()) {
        (Value::Array(args), _) => {
            args.iter().filter_map(|arg| arg.as_str().map(str::to_owned)).collect()
        }
        (_, Some(text)) if is_shell_allowed => {
            vec!["sh".to_owned(), "-lc".to_owned(), text.to_owned()]
        }
        (_, Some(text)) => text.split_whitespace().map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    if argv.is_empty() {
        return Err(Error::bad_request("the command is empty"));
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_command_goes_to_the_shell_only_where_that_is_allowed() {
        let text = json!({"command": "a  b"});
        assert_eq!(argv(&text, true).unwrap(), ["sh", "-lc", "a  b"]);
        assert_eq!(argv(&text, false).unwrap(), ["a", "b"]);
        assert_eq!(argv(&json!({"args": ["a b", ""]}), false).unwrap(), ["a b", ""]);
        assert!(argv(&json!({"command": " "}), false).is_err());
    }
}
