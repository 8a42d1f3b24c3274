//! Claims: which session works in which worktree.
//!
//! A session has one active claim at most (an index says so), and a session that is over has none: the change that ends
//! it releases its claims in the same transaction, and marks the worktrees whose last claim that was for their cleanup.

use super::event::NewEvent;
use super::worktree::WorktreeRecord;
use super::{Tx, session, team, to_json};
use crate::error::{Code, Error, Result};
use crate::model::event::EventKind;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::json;

/// A claim as clients see it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Claim"))]
pub struct ClaimRecord {
    pub worktree_id: String,
    pub session_id: String,
    pub claim_role: String,
    pub created_at: i64,
    pub released_at: Option<i64>,
}

const COLUMNS: &str = "worktree_id, session_id, claim_role, worktree_claim.created_at, released_at";

fn record_of(row: &Row<'_>) -> rusqlite::Result<ClaimRecord> {
    Ok(ClaimRecord {
        worktree_id: row.get(0)?,
        session_id: row.get(1)?,
        claim_role: row.get(2)?,
        created_at: row.get(3)?,
        released_at: row.get(4)?,
    })
}

/// All claims of a worktree, oldest first; those that are over too.
pub fn list(connection: &Connection, worktree_id: &str) -> Result<Vec<ClaimRecord>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM worktree_claim JOIN worktree USING (worktree_key)
         WHERE worktree_id = ?1 ORDER BY worktree_claim.created_at, session_id"
    ))?;
    let records = statement.query_map([worktree_id], record_of)?;
    Ok(records.collect::<rusqlite::Result<_>>()?)
}

/// Sessions that are over or gone and still have a claim: left by a server that was older than this rule, or by hand.
pub fn orphaned_sessions(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id FROM worktree_claim LEFT JOIN session USING (session_id)
         WHERE released_at IS NULL AND ifnull(state, 'closed') IN ('closed', 'failed')",
    )?;
    let sessions = statement.query_map([], |row| row.get(0))?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

fn find(
    connection: &Connection,
    worktree_id: &str,
    session_id: &str,
) -> Result<Option<ClaimRecord>> {
    Ok(connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM worktree_claim JOIN worktree USING (worktree_key)
             WHERE worktree_id = ?1 AND session_id = ?2"
        ))?
        .query_row([worktree_id, session_id], record_of)
        .optional()?)
}

/// Whether the agent of a session may know of a worktree: it works there, its session made it, or one who works there
/// is in a team with it.
pub fn is_shown_to(
    connection: &Connection,
    worktree: &WorktreeRecord,
    session_id: &str,
) -> Result<bool> {
    let own = session::get(connection, session_id)?.worktree_id;
    if own.as_ref() == Some(&worktree.id)
        || worktree.created_by_session_id.as_deref() == Some(session_id)
    {
        return Ok(true);
    }
    let teams = team::teams_of(connection, session_id)?;
    for claim in list(connection, &worktree.id)? {
        let is_active = claim.released_at.is_none();
        let is_mate = |id| teams.contains(id);
        if is_active && team::teams_of(connection, &claim.session_id)?.iter().any(is_mate) {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Tx<'_> {
    /// The session works in this worktree from now on: `worktree.claimed`. A cleanup that was due is not any more.
    /// Errors: the worktree is not ready, the session is over, or works in another worktree.
    pub fn claim_worktree(
        &mut self,
        worktree_id: &str,
        session_id: &str,
        claim_role: &str,
    ) -> Result<ClaimRecord> {
        self.open_session_key(session_id)?;
        let worktree = self.worktree(worktree_id)?;
        if worktree.status != "ready" {
            return Err(Error::new(
                Code::Conflict,
                format!("worktree {worktree_id} can not be claimed: it is {}", worktree.status),
            )
            .detail("worktree", to_json(&worktree)));
        }
        let elsewhere: Option<String> = self
            .connection()
            .prepare_cached(
                "SELECT worktree_id FROM worktree_claim JOIN worktree USING (worktree_key)
                 WHERE session_id = ?1 AND released_at IS NULL AND worktree_id <> ?2",
            )?
            .query_row([session_id, worktree_id], |row| row.get(0))
            .optional()?;
        if let Some(elsewhere) = elsewhere {
            return Err(Error::new(
                Code::Conflict,
                format!("session {session_id} already works in worktree {elsewhere}"),
            )
            .hint("release that claim first"));
        }
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO worktree_claim (worktree_key, session_id, claim_role, created_at)
                 VALUES (?1, ?2, ?3, ?4)
                 ON CONFLICT DO UPDATE SET claim_role = ?3, created_at = ?4, released_at = NULL",
            )?
            .execute(params![worktree.worktree_key, session_id, claim_role, now_ms])?;
        self.connection().execute(
            "UPDATE worktree SET cleanup_reason = NULL, cleanup_force = 0, updated_at = ?2
             WHERE worktree_id = ?1",
            params![worktree_id, now_ms],
        )?;
        self.set_session_worktree(session_id, Some(worktree_id))?;
        self.tell_claim(worktree_id, session_id, EventKind::WorktreeClaimed)
    }

    /// The session does not work there any more: `worktree.released`. A claim that is over stays as it is. Errors:
    /// there never was one.
    pub fn release_claim(&mut self, worktree_id: &str, session_id: &str) -> Result<ClaimRecord> {
        self.worktree(worktree_id)?;
        let claim = find(self.connection(), worktree_id, session_id)?.ok_or_else(|| {
            Error::new(
                Code::NotFound,
                format!("session {session_id} has no claim on worktree {worktree_id}"),
            )
        })?;
        if claim.released_at.is_some() {
            return Ok(claim);
        }
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "UPDATE worktree_claim SET released_at = ?3 WHERE session_id = ?2 AND worktree_key
                     = (SELECT worktree_key FROM worktree WHERE worktree_id = ?1)",
            )?
            .execute(params![worktree_id, session_id, now_ms])?;
        self.tell_claim(worktree_id, session_id, EventKind::WorktreeReleased)
    }

    /// Releases what a session that ends has claimed. A worktree that nobody claims then, and that is not to stay, is
    /// due for its cleanup, unless an operation of a team has the session: that cleans up itself.
    pub fn release_claims_of(&mut self, session_id: &str, reason: &str) -> Result<()> {
        let Some(worktree_id) = self.claimed_worktree(session_id)? else { return Ok(()) };
        self.release_claim(&worktree_id, session_id)?;
        if self.is_under_operation(session_id)? {
            return Ok(());
        }
        self.set_cleanup_due(&worktree_id, reason)
    }

    /// The worktree that a session works in, as its active claim says.
    pub fn claimed_worktree(&mut self, session_id: &str) -> Result<Option<String>> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT worktree_id FROM worktree_claim JOIN worktree USING (worktree_key)
                 WHERE session_id = ?1 AND released_at IS NULL",
            )?
            .query_row([session_id], |row| row.get(0))
            .optional()?)
    }

    /// The worktree is to be cleaned up, unless somebody claims it or it is to stay.
    pub fn set_cleanup_due(&mut self, worktree_id: &str, reason: &str) -> Result<()> {
        self.connection()
            .prepare_cached(
                "UPDATE worktree SET cleanup_reason = ?2 WHERE worktree_id = ?1
                     AND status IN ('ready', 'missing')
                     AND deletion_policy = 'delete_on_last_claim'
                     AND NOT EXISTS (SELECT 1 FROM worktree_claim AS claim
                         WHERE claim.worktree_key = worktree.worktree_key
                             AND released_at IS NULL)",
            )?
            .execute([worktree_id, reason])?;
        Ok(())
    }

    /// Where the session works, as its record shows it. Tells nothing by itself.
    pub fn set_session_worktree(
        &mut self,
        session_id: &str,
        worktree_id: Option<&str>,
    ) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE session SET worktree_id = ?2 WHERE session_id = ?1")?
            .execute(params![session_id, worktree_id])?;
        self.touch_session(session_id)
    }

    /// `session.updated`, with the record as it is now.
    pub fn tell_session_updated(&mut self, session_id: &str) -> Result<()> {
        let payload = format!("{{\"session\":{}}}", to_json(&self.session(session_id)?));
        let event = NewEvent::session(session_id, EventKind::SessionUpdated, payload);
        self.append(event).map(|_seq| ())
    }

    fn tell_claim(
        &mut self,
        worktree_id: &str,
        session_id: &str,
        kind: EventKind,
    ) -> Result<ClaimRecord> {
        let claim = find(self.connection(), worktree_id, session_id)?
            .ok_or_else(|| Error::internal("the claim that was just written is not there"))?;
        let payload = to_json(&json!({"claim": claim}));
        self.append(NewEvent::worktree(worktree_id, kind, payload).concerning(session_id))?;
        Ok(claim)
    }
}
