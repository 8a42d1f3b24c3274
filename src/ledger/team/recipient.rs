//! A session as a recipient of mail: what it is doing, and what its running turn carries.

use crate::error::Result;
use crate::ledger::Tx;
use crate::model::{ScopeKind, TurnSource, TurnStatus};
use rusqlite::{Connection, OptionalExtension, params};

/// What decides whether mail can go to a session now.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipient {
    /// A word of the column `session.state`: `starting`, `open`, `closed`, `failed`.
    pub state: String,
    /// An agent process is attached.
    pub is_live: bool,
    /// A person lets each of its turns through.
    pub is_gated: bool,
    /// What its agent said it can do (src/provider.rs, `Capabilities`).
    pub capabilities: Option<String>,
    pub active: Option<ActiveTurn>,
    /// Turns that wait in the session.
    pub queued: usize,
    /// One of them carries mail.
    pub has_queued_mail: bool,
}

/// The running turn of a recipient.
#[derive(Clone, Debug, PartialEq)]
pub struct ActiveTurn {
    pub turn_id: String,
    pub is_waiting_for_approval: bool,
    pub is_interrupted: bool,
    /// Its prompt is on its way to the agent.
    pub is_told: bool,
    /// The best rank of the mail that it began with; None when something else began it.
    pub mail_rank: Option<i64>,
    /// A tool call, a command or a change of files is in progress.
    pub has_tool: bool,
}

/// None when there is no such session (any more).
pub fn get(connection: &Connection, session_id: &str) -> Result<Option<Recipient>> {
    let found = connection
        .prepare_cached(
            "SELECT session_key, state, permission_mode = 'require_approval', capabilities,
                 EXISTS (SELECT 1 FROM agent WHERE agent.session_key = session.session_key),
                 (SELECT count(*) FROM turn
                     WHERE turn.session_key = session.session_key AND status = 'queued'),
                 EXISTS (SELECT 1 FROM turn
                     WHERE turn.session_key = session.session_key AND status = 'queued'
                         AND source = 'team')
             FROM session WHERE session_id = ?1",
        )?
        .query_row([session_id], |row| {
            let session_key: i64 = row.get(0)?;
            let recipient = Recipient {
                state: row.get(1)?,
                is_gated: row.get::<_, Option<bool>>(2)?.unwrap_or(false),
                capabilities: row.get(3)?,
                is_live: row.get(4)?,
                active: None,
                queued: usize::try_from(row.get::<_, i64>(5)?).unwrap_or(0),
                has_queued_mail: row.get(6)?,
            };
            Ok((session_key, recipient))
        })
        .optional()?;
    let Some((session_key, mut recipient)) = found else { return Ok(None) };
    recipient.active = active(connection, session_key)?;
    Ok(Some(recipient))
}

fn active(connection: &Connection, session_key: i64) -> Result<Option<ActiveTurn>> {
    let found = connection
        .prepare_cached(
            "SELECT turn_id, status, source, interrupt_requested_at IS NOT NULL,
                 dispatched_at IS NOT NULL,
                 (SELECT min(rank) FROM team_delivery WHERE injected_turn_id = turn_id)
             FROM turn
             WHERE session_key = ?1 AND status IN ('in_progress', 'waiting_for_approval')",
        )?
        .query_row([session_key], |row| {
            let status: String = row.get(1)?;
            let source: String = row.get(2)?;
            let is_mail = source == TurnSource::Team.as_str();
            Ok(ActiveTurn {
                turn_id: row.get(0)?,
                is_waiting_for_approval: status == TurnStatus::WaitingForApproval.as_str(),
                is_interrupted: row.get(3)?,
                is_told: row.get(4)?,
                mail_rank: row.get::<_, Option<i64>>(5)?.filter(|_| is_mail),
                has_tool: false,
            })
        })
        .optional()?;
    let Some(mut active) = found else { return Ok(None) };
    active.has_tool = has_tool(connection, session_key)?;
    Ok(Some(active))
}

/// Whether a tool call, a command or a change of files of the running turn is in progress. One that waits for an
/// approval has not begun; one that goes on behind an earlier turn is no part of this one.
pub fn has_tool(connection: &Connection, session_key: i64) -> Result<bool> {
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM item
             WHERE session_key = ?1 AND status = 'in_progress'
                 AND turn_key = (SELECT turn_key FROM turn
                     WHERE session_key = ?1 AND status IN ('in_progress', 'waiting_for_approval'))
                 AND type IN ('tool_call', 'command', 'file_change')
                 AND item_id NOT IN (SELECT item_id FROM approval
                     WHERE session_key = ?1 AND status = 'pending' AND item_id IS NOT NULL)
             LIMIT 1",
        )?
        .exists([session_key])?)
}

/// The key of the session's log, on which changes of its state are told.
pub fn scope_key(connection: &Connection, session_id: &str) -> Result<Option<i64>> {
    Ok(crate::ledger::event::scope_key(connection, ScopeKind::Session, session_id).optional()?)
}

impl Tx<'_> {
    pub fn recipient(&mut self, session_id: &str) -> Result<Option<Recipient>> {
        get(self.connection(), session_id)
    }

    /// The provider of a session; None when there is no such session.
    pub fn provider_of(&mut self, session_id: &str) -> Result<Option<String>> {
        Ok(self
            .connection()
            .prepare_cached("SELECT provider FROM session WHERE session_id = ?1")?
            .query_row([session_id], |row| row.get(0))
            .optional()?)
    }
}

/// What a session that is a member of a team is doing, for whoever watches over it.
#[derive(Debug, Default)]
pub struct Doing {
    /// Key of the item that was opened last and is still open.
    pub open_item: Option<i64>,
    /// Key of the last message of the assistant, whole or not.
    pub last_said: Option<i64>,
    /// When its log grew last.
    pub last_event_at: Option<i64>,
}

pub fn doing(connection: &Connection, session_id: &str) -> Result<Doing> {
    let Some(session_key) = connection
        .prepare_cached("SELECT session_key FROM session WHERE session_id = ?1")?
        .query_row([session_id], |row| row.get::<_, i64>(0))
        .optional()?
    else {
        return Ok(Doing::default());
    };
    let key = |which: &str| -> Result<Option<i64>> {
        Ok(connection
            .prepare_cached(&format!(
                "SELECT item_key FROM item WHERE session_key = ?1 AND {which}
                 ORDER BY item_key DESC LIMIT 1"
            ))?
            .query_row([session_key], |row| row.get(0))
            .optional()?)
    };
    let open_item = key("status = 'in_progress'")?;
    let last_said = key("type = 'assistant_message'")?;
    let last_event_at = connection
        .prepare_cached(
            "SELECT created_at FROM event
             WHERE scope_key =
                 (SELECT scope_key FROM scope WHERE kind = 'session' AND scope_id = ?1)
             ORDER BY seq DESC LIMIT 1",
        )?
        .query_row(params![session_id], |row| row.get(0))
        .optional()?;
    Ok(Doing { open_item, last_said, last_event_at })
}
