//! Taking away what a spawn has made: because it has failed, or because its member has left.
//!
//! Runs on the thread of whoever wants it, or on that of `recovery`. What is to be taken away is in the journal
//! before anything is touched; each step can be done twice. The session is closed with all that its agent has started;
//! its claim goes in the transaction that closes it; then the worktree goes, unless it holds work, somebody else is in
//! it, or it is to stay. What can not be done is noted in the journal; where that can not be written either (a full
//! disk), all of it is left to `recovery`. A server that stops meanwhile leaves the rest to the next one.

use super::recovery::Undo;
use super::shared::Shared;
use super::spawn::found;
use crate::error::{Code, Error, Result};
use crate::ledger::claim::{self, ClaimRecord};
use crate::ledger::team::TeamRecord;
use crate::ledger::team::operation::{
    self, DiagnosticRecord, NewOperation, OperationChange, OperationRecord,
};
use crate::ledger::{Tx, session, to_json};
use crate::model::id;
use crate::model::team::{AssignmentMode, OperationKind, OperationStage};
use crate::model::worktree::CleanupStatus;
use crate::worktree::CleanupResult;
use serde_json::{Value, json};

/// What became of what a member had.
#[derive(Debug, Default)]
pub struct Departure {
    pub released_claims: Vec<ClaimRecord>,
    pub cleanups: Vec<CleanupResult>,
    pub diagnostics: Vec<DiagnosticRecord>,
}

/// A note of what went wrong: code, message, payload.
type Note = (&'static str, String, Value);

const MEMBER_REMOVED: &str = "team_member_removed";

/// Undoes a spawn that has failed; gives the error for the caller. Where the server stops there is nothing to undo: the
/// next start goes on from the stage that it finds.
pub(super) fn undo(
    shared: &Shared,
    operation_id: &str,
    reason: &'static str,
    error: Error,
) -> Error {
    if error.code == Code::ShuttingDown || shared.sessions.is_stopping() {
        return Error::new(
            Code::ShuttingDown,
            format!("the server is shutting down in the middle of operation {operation_id}"),
        )
        .hint("the next start completes it or takes it back; look at it then");
    }
    let undo = Undo { reason, message: error.to_string() };
    if let Err(failure) = take_back(shared, operation_id, &undo) {
        log::error!("operation {operation_id} is undone later: {failure}");
        shared.left.put(operation_id, Some(undo));
    }
    if error.detail.is_some() {
        return error;
    }
    match shared.ledger.read(|db| operation::get(db, operation_id)) {
        Ok(record) => error.detail("operation", to_json(&record)),
        Err(_) => error,
    }
}

/// Undoes a spawn that has failed, from whatever it has come to. Errors: it is not undone yet.
pub(super) fn take_back(shared: &Shared, operation_id: &str, undo: &Undo) -> Result<()> {
    match begin_undo(shared, operation_id, undo)? {
        true => Ok(()),
        false => finish(shared, operation_id).map(drop),
    }
}

/// Writes down that it is undone and why, unless that was done before; true when there is nothing to take away.
fn begin_undo(shared: &Shared, operation_id: &str, undo: &Undo) -> Result<bool> {
    let (id, reason, message) = (operation_id.to_owned(), undo.reason, undo.message.clone());
    shared.ledger.write(move |tx| {
        let record = tx.operation(&id)?;
        let to = match OperationStage::parse(&record.stage) {
            Some(OperationStage::Planned) => OperationStage::RolledBack,
            Some(OperationStage::SessionCreated) => OperationStage::RollingBack,
            Some(OperationStage::RollingBack) => return Ok(false),
            _ => return Ok(true),
        };
        let payload = to_json(&json!({
            "session_id": record.session_id, "worktree_id": record.worktree_id,
        }));
        tx.note_diagnostic(&id, reason, &message, &payload)?;
        let change = OperationChange {
            reason: Some(reason),
            message: Some(&message),
            ..OperationChange::default()
        };
        tx.move_operation(&id, to, &change)?;
        Ok(to == OperationStage::RolledBack)
    })
}

impl Tx<'_> {
    /// Notes that what was made for a member is to go, in the transaction in which it leaves. Gives the operation;
    /// None for a session that has joined by itself or is closed.
    pub(super) fn begin_departure(
        &mut self,
        team: &TeamRecord,
        agent_id: &str,
    ) -> Result<Option<String>> {
        if self.team_member(team, agent_id)?.operation_id.is_none() {
            return Ok(None);
        }
        let Some(session) = found(self.session(agent_id))? else { return Ok(None) };
        if session.status == "closed" {
            return Ok(None);
        }
        let operation_id = id::new("op");
        let worktree_id = self.claimed_worktree(agent_id)?;
        let mode = match worktree_id {
            Some(_) => AssignmentMode::Reused,
            None => AssignmentMode::None,
        };
        let new = NewOperation {
            operation_id: &operation_id,
            kind: OperationKind::Remove,
            stage: OperationStage::MemberLeft,
            source_session_id: None,
            session_id: Some(agent_id),
            worktree_id: worktree_id.as_deref(),
            worktree_assignment_mode: mode,
            request: "{}",
            enrolment: None,
        };
        self.begin_operation(team, &new)?;
        Ok(Some(operation_id))
    }
}

/// What a member had, taken away. Errors: something could not be done and is left to `recovery`.
pub(super) fn depart(shared: &Shared, operation_id: &str) -> Result<Departure> {
    finish(shared, operation_id).inspect_err(|_| shared.left.put(operation_id, None))
}

/// Takes away what the operation says, and finishes it. Errors: something could not be done.
pub(super) fn finish(shared: &Shared, operation_id: &str) -> Result<Departure> {
    let record = shared.ledger.read(|db| operation::get(db, operation_id))?;
    let reason = match &record.reason {
        Some(reason) => format!("spawn_rollback_{reason}"),
        None => MEMBER_REMOVED.to_owned(),
    };
    let mut notes = Vec::new();
    close(shared, &record, &reason, &mut notes)?;
    let mut departure = Departure::default();
    let mut due = None;
    if let (Some(worktree_id), Some(session_id)) = (&record.worktree_id, &record.session_id) {
        let claims = shared.ledger.read(|db| claim::list(db, worktree_id))?;
        let (own, others): (Vec<ClaimRecord>, Vec<ClaimRecord>) =
            claims.into_iter().partition(|claim| claim.session_id == *session_id);
        let begun_at = own.first().map_or(i64::MAX, |claim| claim.created_at);
        let was_last = others.iter().any(|claim| claim.released_at >= Some(begun_at));
        departure.released_claims = own;
        // A worktree that was there before stays, as it would have without this; unless its last other session left
        // meanwhile.
        if record.stage == OperationStage::MemberLeft.as_str()
            || record.is_worktree_made()
            || was_last
        {
            match shared.worktrees.take_up_cleanup(worktree_id, &reason) {
                Ok(result) => departure.cleanups.push(result),
                Err(error) if error.code == Code::ShuttingDown => return Err(error),
                Err(error) => {
                    let payload = json!({"worktree_id": worktree_id});
                    notes.push(("worktree_cleanup_failed", error.to_string(), payload));
                    due = Some(worktree_id.clone());
                }
            }
        }
    }
    for result in &departure.cleanups {
        let payload = json!({"cleanup": result});
        match result.status {
            CleanupStatus::CleanupFailed => {
                notes.push(("worktree_cleanup_failed", result.diagnostics.join("; "), payload));
            }
            CleanupStatus::KeptDirty | CleanupStatus::KeptUnmerged => {
                let told = format!("worktree {} holds work and stays", result.worktree_id);
                notes.push(("worktree_kept", told, payload));
            }
            _ => {}
        }
    }
    departure.diagnostics = settle(shared, &record, notes, due, reason)?;
    Ok(departure)
}

/// Closes the session, if it is still there. Errors: it is not closed.
fn close(
    shared: &Shared,
    record: &OperationRecord,
    reason: &str,
    notes: &mut Vec<Note>,
) -> Result<()> {
    let Some(session_id) = &record.session_id else { return Ok(()) };
    let Some(error) = shared.sessions.close(session_id, reason).err() else { return Ok(()) };
    let session = found(shared.ledger.read(|db| session::get(db, session_id)))?;
    let is_closed = session.is_none_or(|session| session.status == "closed");
    if shared.sessions.is_stopping() || !is_closed {
        return Err(error);
    }
    if error.code != Code::NotFound {
        let payload = json!({"session_id": session_id});
        notes.push(("spawn_rollback_session_close_failed", error.to_string(), payload));
    }
    Ok(())
}

/// The end of the operation. A worktree whose cleanup could not even begin is left to the thread that cleans up.
fn settle(
    shared: &Shared,
    record: &OperationRecord,
    notes: Vec<Note>,
    due: Option<String>,
    reason: String,
) -> Result<Vec<DiagnosticRecord>> {
    let id = record.operation_id.clone();
    let to = match record.stage == OperationStage::MemberLeft.as_str() {
        true => OperationStage::Completed,
        false => OperationStage::RolledBack,
    };
    let is_due = due.is_some();
    let diagnostics = shared.ledger.write(move |tx| {
        for (code, message, payload) in &notes {
            tx.note_diagnostic(&id, code, message, &to_json(payload))?;
        }
        if let Some(worktree_id) = &due {
            tx.set_cleanup_due(worktree_id, &reason)?;
        }
        tx.move_operation(&id, to, &OperationChange::default())?;
        Ok(tx.operation(&id)?.diagnostics)
    })?;
    if is_due {
        shared.worktrees.look_for_due();
    }
    Ok(diagnostics)
}
