//! Cleanup: when a worktree may go, and what is told of it.
//!
//! Runs on the thread of a request, or on the cleaning thread for sessions that ended; either holds the worktree's
//! lock. The intent is committed before anything is touched: from then on nobody can claim the worktree, and a start
//! after a crash takes the cleanup up where it was.

use super::Shared;
use super::remove::{Force, Gone, Removed};
use super::repair::Unmade;
use super::tree::{Lost, Tree, Work};
use crate::error::{Code, Error, Result};
use crate::ledger::worktree;
use crate::model::event::EventKind;
use crate::model::worktree::CleanupStatus;
use serde::Serialize;
use serde_json::{Value, json};

/// How a cleanup ended, as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct CleanupResult {
    pub worktree_id: String,
    pub status: CleanupStatus,
    #[cfg_attr(test, schemars(with = "crate::model::worktree::DeletionPolicy"))]
    pub deletion_policy: String,
    pub active_claim_count: i64,
    pub worktree_path_deleted: bool,
    pub branch_deleted: bool,
    pub backup_ref: Option<String>,
    pub diagnostics: Vec<String>,
    /// What would be lost, at most [`crate::limits::LOST_LISTED`] of each kind.
    lost: Vec<Lost>,
    pub dirty_count: usize,
    pub unmerged_count: usize,
}

/// Whether it is told each time that a worktree stays, or only when that is news: who takes a cleanup up again after a
/// crash does not know how far it had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Telling {
    EachTime,
    Once,
}

impl Shared {
    /// Cleans the worktree up if it may go. The caller holds its lock. Errors: there is none, or it is being made.
    pub(super) fn clean_up(
        &self,
        worktree_id: &str,
        reason: &str,
        force: Force,
        telling: Telling,
    ) -> Result<CleanupResult> {
        let record = self.ledger.read(|db| worktree::get(db, worktree_id))?;
        let mut result = CleanupResult {
            worktree_id: record.id.clone(),
            status: CleanupStatus::Deleted,
            deletion_policy: record.deletion_policy.clone(),
            active_claim_count: record.active_claim_count,
            worktree_path_deleted: record.status == "deleted",
            branch_deleted: record.status == "deleted",
            backup_ref: record.backup_ref.clone(),
            diagnostics: Vec::new(),
            lost: Vec::new(),
            dirty_count: 0,
            unmerged_count: 0,
        };
        match record.status.as_str() {
            "deleted" => return Ok(result),
            "creating" => {
                return Err(Error::new(
                    Code::Conflict,
                    format!("worktree {worktree_id} is still being made"),
                ));
            }
            _ => {}
        }
        if record.active_claim_count > 0 {
            result.status = CleanupStatus::SkippedLiveClaims;
            return Ok(result);
        }
        if record.deletion_policy == "retain_on_last_claim" && force == Force::No {
            result.status = CleanupStatus::RetainedByPolicy;
            return Ok(result);
        }
        let (id, because) = (worktree_id.to_owned(), reason.to_owned());
        let is_forced = force == Force::WithBackup;
        self.ledger.write(move |tx| tx.begin_cleanup(&id, &because, is_forced))?;
        let removed = self.remove(&record, force);
        let back_to = if Tree::of(&record).is_there() { "ready" } else { "missing" };
        let told = match removed {
            Ok(Removed::Gone(gone)) => self.tell_gone(reason, gone, &mut result),
            Ok(Removed::Kept(work)) => {
                self.tell_kept((reason, telling), back_to, *work, &mut result)
            }
            // The next server does it.
            Err(error) if error.code == Code::ShuttingDown => return Err(error),
            Err(error) => self.tell_failed(reason, back_to, error, &mut result),
        };
        if let Err(error) = told {
            // Whatever became of it, the record says that it is being removed.
            self.leave(worktree_id, Unmade::CUT_OFF);
            return Err(error);
        }
        Ok(result)
    }

    fn tell_gone(&self, reason: &str, gone: Gone, result: &mut CleanupResult) -> Result<()> {
        result.worktree_path_deleted = gone.is_folder_deleted;
        result.branch_deleted = gone.is_branch_deleted;
        result.diagnostics.clone_from(&gone.diagnostics);
        if gone.backup_ref.is_some() {
            result.backup_ref.clone_from(&gone.backup_ref);
        }
        let (id, reason) = (result.worktree_id.clone(), reason.to_owned());
        self.ledger.write(move |tx| {
            if let Some(backup_ref) = &gone.backup_ref {
                tx.set_worktree_backup(&id, backup_ref)?;
            }
            tx.delete_worktree(&id, &told(&id, &reason, &gone))
        })
    }

    fn tell_kept(
        &self,
        (reason, telling): (&str, Telling),
        back_to: &'static str,
        work: Work,
        result: &mut CleanupResult,
    ) -> Result<()> {
        result.status = match work.is_dirty() {
            true => CleanupStatus::KeptDirty,
            false => CleanupStatus::KeptUnmerged,
        };
        result.lost = work.listed();
        (result.dirty_count, result.unmerged_count) = (work.dirty_count, work.unmerged_count);
        let payload = json!({
            "worktree_id": result.worktree_id,
            "reason": reason,
            "status": result.status,
            "lost": result.lost,
            "dirty_count": result.dirty_count,
            "unmerged_count": result.unmerged_count,
        });
        let (id, reason) = (result.worktree_id.clone(), reason.to_owned());
        self.ledger.write(move |tx| {
            if telling == Telling::Once && tx.is_worktree_kept_for(&id, &reason)? {
                return tx.settle_worktree(&id, back_to, None);
            }
            tx.keep_worktree(&id, back_to, EventKind::WorktreeKept, &payload)
        })
    }

    fn tell_failed(
        &self,
        reason: &str,
        back_to: &'static str,
        error: Error,
        result: &mut CleanupResult,
    ) -> Result<()> {
        result.status = CleanupStatus::CleanupFailed;
        result.diagnostics.push(error.to_string());
        let payload = json!({
            "worktree_id": result.worktree_id,
            "reason": reason,
            "diagnostics": result.diagnostics,
        });
        let id = result.worktree_id.clone();
        self.ledger.write(move |tx| {
            tx.keep_worktree(&id, back_to, EventKind::WorktreeCleanupFailed, &payload)
        })
    }
}

/// The payload of `worktree.cleaned_up`.
pub(super) fn told(worktree_id: &str, reason: &str, gone: &Gone) -> Value {
    json!({
        "worktree_id": worktree_id,
        "reason": reason,
        "worktree_path_deleted": gone.is_folder_deleted,
        "branch_deleted": gone.is_branch_deleted,
        "backup_ref": gone.backup_ref,
        "diagnostics": gone.diagnostics,
    })
}
