//! The tool for worktrees: what an agent has done in its own, and what its teammates have in theirs.
//!
//! It only looks. Runs on the caller's thread, which git may hold up within its time limit.

use super::argument::Arguments;
use super::tool::{Feature, Tool, ToolCode, ToolError, shown};
use super::{Gateway, Invocation};
use crate::error::{Code, Error, Result as Outcome};
use crate::ledger::{Connection, claim, session, team, worktree};
use serde_json::{Value, json};

pub(super) const STATUS: Tool = Tool {
    name: "gg_worktree_status",
    feature: Feature::Worktrees,
    shown: shown_status,
    run: status,
};

fn shown_status() -> Value {
    let properties = json!({
        "worktree_id": {"type": "string", "minLength": 1,
            "description": "Your own unless given; else one that a teammate works in"},
    });
    let description = "Tells how a git worktree stands: branch, head, commits ahead and behind, \
        changed files, and what a cleanup would do with it now.";
    shown(STATUS.name, description, true, &properties, &[])
}

fn status(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let named = Arguments(&call.arguments).text("worktree_id")?;
    let looked_at = gateway.ledger.read(|db| {
        let own = session::get(db, &call.session_id)?.worktree_id;
        let Some(worktree_id) = named.map(str::to_owned).or_else(|| own.clone()) else {
            let told = format!("session {} works in no worktree", call.session_id);
            return Err(Error::new(Code::NotFound, told).hint("name one in worktree_id"));
        };
        let record = worktree::get(db, &worktree_id)?;
        let is_own = own.as_ref() == Some(&worktree_id)
            || record.created_by_session_id.as_ref() == Some(&call.session_id);
        if !is_own && !is_of_teammate(db, &worktree_id, &call.session_id)? {
            let told = format!("nobody in a team of yours works in worktree {worktree_id}");
            return Err(Error::new(Code::Forbidden, told));
        }
        Ok(record)
    });
    let record = looked_at.map_err(|error| failed(&error))?;
    let status = gateway.worktrees.status(&record.id).map_err(|error| failed(&error))?;
    Ok(json!({"worktree": record, "status": status}))
}

/// Whether one who works there is in a team with the caller.
fn is_of_teammate(db: &Connection, worktree_id: &str, session_id: &str) -> Outcome<bool> {
    let teams = team::teams_of(db, session_id)?;
    for claim in claim::list(db, worktree_id)? {
        let is_active = claim.released_at.is_none();
        if is_active && team::teams_of(db, &claim.session_id)?.iter().any(|id| teams.contains(id)) {
            return Ok(true);
        }
    }
    Ok(false)
}

fn failed(error: &Error) -> ToolError {
    let code = match error.code {
        Code::NotFound => ToolCode::NotFound,
        Code::Forbidden => ToolCode::Unauthorized,
        _ => ToolCode::ToolFailed,
    };
    ToolError::of(code, error)
}
