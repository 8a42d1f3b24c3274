//! The tool for worktrees: what an agent has done in its own, and what its teammates have in theirs.
//!
//! It only looks. Runs on the caller's thread, which git may hold up within its time limit.

use super::argument::Arguments;
use super::tool::{Feature, Tool, ToolCode, ToolError, shown};
use super::{Gateway, Invocation};
use crate::error::{Code, Error};
use crate::ledger::{claim, session, worktree};
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
        let Some(worktree_id) = named.map(str::to_owned).or(own) else {
            let told = format!("session {} works in no worktree", call.session_id);
            return Err(Error::new(Code::NotFound, told).hint("name one in worktree_id"));
        };
        let record = worktree::get(db, &worktree_id)?;
        if !claim::is_shown_to(db, &record, &call.session_id)? {
            let told = format!("nobody in a team of yours works in worktree {worktree_id}");
            return Err(Error::new(Code::Forbidden, told));
        }
        Ok(record)
    });
    let record = looked_at.map_err(|error| failed(&error))?;
    let status = gateway.worktrees.status(&record.id).map_err(|error| failed(&error))?;
    Ok(json!({"worktree": record, "status": status}))
}

fn failed(error: &Error) -> ToolError {
    let code = match error.code {
        Code::NotFound => ToolCode::NotFound,
        Code::Forbidden => ToolCode::Unauthorized,
        _ => ToolCode::ToolFailed,
    };
    ToolError::of(code, error)
}
