//! A whole team at a look: what each member is at, and what was last said to it or by it.
//!
//! Runs on the caller's thread, as reads of one moment each. Unlike [`super::Activity`] it opens no turn and no item,
//! so it is good for a team of any size; texts are cut.

use super::Teams;
use super::supervise::state_of;
use crate::error::{Code, Result};
use crate::ledger::Connection;
use crate::ledger::session::{self, SessionRecord};
use crate::ledger::team::message::{self, MessageRecord};
use crate::ledger::team::{MemberRecord, TeamRecord};
use crate::ledger::worktree::{self, WorktreeRecord};
use crate::limits;
use crate::model::{SessionStatus, id};
use serde::Serialize;
use serde_json::Value;

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TeamStatus {
    pub team_id: String,
    pub lead_agent_id: String,
    pub generated_at_ms: i64,
    pub members: Vec<MemberStatus>,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MemberStatus {
    pub agent_id: String,
    pub session_id: String,
    pub title: Option<String>,
    /// The words of [`super::Activity`].
    pub state: &'static str,
    pub last_activity_at_ms: i64,
    /// The newest message that it wrote or was sent in this team.
    pub last_message: Option<LastMessage>,
    /// None when its agent does not tell how full its context is.
    pub context_window_remaining_percentage: Option<i64>,
    /// Where it works now, when that is a worktree.
    pub worktree_cwd: Option<String>,
    pub worktree_name: Option<String>,
    pub added_by: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastMessage {
    pub message_id: String,
    #[cfg_attr(test, schemars(with = "crate::model::team::MessageScope"))]
    pub scope: String,
    pub sender_agent_id: String,
    pub created_at_ms: i64,
    /// Its texts, up to [`limits::MESSAGE_PREVIEW_BYTES`].
    pub text: String,
    pub truncated: bool,
}

impl Teams {
    /// What each member is at. Errors: there is no such team.
    pub fn status(&self, team_id: &str) -> Result<TeamStatus> {
        let roster = self.roster(team_id)?;
        let of_member = |member: MemberRecord| {
            self.shared.ledger.read(|db| member_status(db, &roster.team, &member))
        };
        Ok(TeamStatus {
            team_id: roster.team.id.clone(),
            lead_agent_id: roster.team.lead_agent_id.clone(),
            generated_at_ms: id::now_ms(),
            members: roster.members.into_iter().map(of_member).collect::<Result<_>>()?,
        })
    }
}

fn member_status(
    db: &Connection,
    team: &TeamRecord,
    member: &MemberRecord,
) -> Result<MemberStatus> {
    let session = found(session::get(db, &member.agent_id))?;
    let last_message = message::newest_of(db, team, &member.agent_id)?;
    let worktree = match session.as_ref().and_then(|session| session.worktree_id.as_deref()) {
        Some(worktree_id) => found(worktree::get(db, worktree_id))?,
        None => None,
    };
    // A session that is over keeps the id of its worktree, which may be gone.
    let worktree = worktree.filter(|worktree: &WorktreeRecord| worktree.status != "deleted");
    let last_activity_at_ms = [
        Some(member.joined_at),
        session.as_ref().map(|session| session.updated_at),
        last_message.as_ref().map(|message| message.created_at),
    ];
    let status = session.as_ref().and_then(|session| SessionStatus::parse(&session.status));
    Ok(MemberStatus {
        agent_id: member.agent_id.clone(),
        session_id: member.agent_id.clone(),
        title: member.title.clone(),
        state: state_of(status),
        last_activity_at_ms: last_activity_at_ms.into_iter().flatten().max().unwrap_or(0),
        last_message: last_message.map(last_message_of),
        context_window_remaining_percentage: session.as_ref().and_then(remaining_of),
        worktree_cwd: worktree.as_ref().map(|worktree| worktree.worktree_cwd.clone()),
        worktree_name: worktree.map(|worktree| worktree.worktree_name),
        added_by: member.added_by.clone(),
    })
}

/// What is there; None when it is not.
fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn last_message_of(message: MessageRecord) -> LastMessage {
    let text = text_of(message.input.get());
    let end = text.floor_char_boundary(limits::MESSAGE_PREVIEW_BYTES);
    LastMessage {
        message_id: message.id,
        scope: message.scope,
        sender_agent_id: message.sender_agent_id,
        created_at_ms: message.created_at,
        truncated: end < text.len(),
        text: text[..end].to_owned(),
    }
}

/// The texts of a message's input, one below the other.
fn text_of(input: &str) -> String {
    let items: Vec<Value> = serde_json::from_str(input).unwrap_or_default();
    let texts = items.iter().filter_map(|item| item.as_str().or_else(|| item["text"].as_str()));
    texts.collect::<Vec<_>>().join("\n")
}

fn remaining_of(session: &SessionRecord) -> Option<i64> {
    context_remaining(session.usage.as_ref()?.get())
}

/// How much of the context window is left by this usage, in percent.
fn context_remaining(usage: &str) -> Option<i64> {
    let usage: Value = serde_json::from_str(usage).ok()?;
    let (used, window) = (usage["context_used"].as_f64()?, usage["context_window"].as_f64()?);
    let remaining = (1.0 - used / window) * 100.0;
    (window > 0.0).then(|| remaining.round().clamp(0.0, 100.0) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_message_is_that_of_its_items() {
        let input = r#"["a", {"type": "text", "text": "b"}, {"type": "image", "path": "x"}]"#;
        assert_eq!(text_of(input), "a\nb");
        assert_eq!(text_of("[]"), "");
    }

    #[test]
    fn what_is_left_of_a_context_is_a_percentage_or_not_known() {
        for (usage, left) in [
            (r#"{"context_used": 26, "context_window": 1000}"#, Some(97)),
            (r#"{"context_used": 2000, "context_window": 1000}"#, Some(0)),
            (r#"{"context_used": 0, "context_window": 1000}"#, Some(100)),
            (r#"{"context_used": 1, "context_window": 0}"#, None),
            (r#"{"context_used": 1, "context_window": null}"#, None),
            (r#"{"total_tokens": 1}"#, None),
        ] {
            assert_eq!(context_remaining(usage), left, "{usage}");
        }
    }
}
