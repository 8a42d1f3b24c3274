//! Worktree records. Who works in them is in [`super::claim`].
//!
//! A worktree goes `creating` → `ready` → `removing` → `deleted`; the two in the middle of a word are intents,
//! committed before git is asked, so that the next start knows what the last one was about. The transitions here refuse
//! what the state forbids; when one is due is decided by `src/worktree`.

use super::event::{self, NewEvent};
use super::{Tx, to_json};
use crate::error::{Code, Error, Result};
use crate::model::ScopeKind;
use crate::model::event::EventKind;
use crate::model::worktree::{DeletionPolicy, InitScriptStatus};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::{Value, json};

/// A worktree as clients see it; every key is always there.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Worktree"))]
pub struct WorktreeRecord {
    #[serde(skip)]
    pub worktree_key: i64,
    pub id: String,
    /// A word of [`crate::model::worktree::WorktreeStatus`].
    #[cfg_attr(test, schemars(with = "crate::model::worktree::WorktreeStatus"))]
    pub status: String,
    pub problem: Option<String>,
    pub repo_root: String,
    #[serde(skip)]
    pub common_dir: String,
    pub worktree_root: String,
    pub worktree_cwd: String,
    pub branch_name: String,
    pub worktree_name: String,
    pub unified_workspace_path: String,
    pub base_commit: String,
    pub base_ref: Option<String>,
    /// A word of [`DeletionPolicy`].
    #[cfg_attr(test, schemars(with = "crate::model::worktree::DeletionPolicy"))]
    pub deletion_policy: String,
    #[cfg_attr(test, schemars(with = "Option<crate::model::worktree::InitScriptStatus>"))]
    pub init_script_status: Option<String>,
    pub active_claim_count: i64,
    /// Why a cleanup is due or under way.
    pub cleanup_reason: Option<String>,
    pub backup_ref: Option<String>,
    pub created_by_session_id: Option<String>,
    pub created_by_operation_id: Option<String>,
    pub team_id: Option<String>,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
    #[serde(skip)]
    pub is_cleanup_forced: bool,
}

/// A worktree that is about to be made.
#[derive(Clone, Debug)]
pub struct NewWorktree {
    pub worktree_id: String,
    pub repo_root: String,
    pub common_dir: String,
    pub unified_workspace_path: String,
    pub worktree_root: String,
    pub worktree_cwd: String,
    pub worktree_name: String,
    pub branch_name: String,
    pub base_commit: String,
    pub base_ref: Option<String>,
    pub deletion_policy: DeletionPolicy,
    pub created_by_session_id: Option<String>,
    pub created_by_operation_id: Option<String>,
    pub team_id: Option<String>,
}

/// Which worktrees to list, oldest first.
#[derive(Debug, Default)]
pub struct WorktreeQuery {
    pub status: Option<String>,
    pub team_id: Option<String>,
    pub repo_root: Option<String>,
    /// Strictly behind this key.
    pub after: Option<i64>,
    pub limit: usize,
}

const COLUMNS: &str = "worktree_key, worktree_id, status, problem, repo_root, common_dir, \
    worktree_root, worktree_cwd, branch_name, worktree_name, unified_workspace_path, base_commit, \
    deletion_policy, init_script_status, backup_ref, created_by_session_id, \
    created_by_operation_id, team_id, created_at, updated_at, deleted_at, cleanup_reason, \
    cleanup_force, (SELECT count(*) FROM worktree_claim \
        WHERE worktree_claim.worktree_key = worktree.worktree_key AND released_at IS NULL), \
    base_ref";

fn record_of(row: &Row<'_>) -> rusqlite::Result<WorktreeRecord> {
    Ok(WorktreeRecord {
        worktree_key: row.get(0)?,
        id: row.get(1)?,
        status: row.get(2)?,
        problem: row.get(3)?,
        repo_root: row.get(4)?,
        common_dir: row.get(5)?,
        worktree_root: row.get(6)?,
        worktree_cwd: row.get(7)?,
        branch_name: row.get(8)?,
        worktree_name: row.get(9)?,
        unified_workspace_path: row.get(10)?,
        base_commit: row.get(11)?,
        deletion_policy: row.get(12)?,
        init_script_status: row.get(13)?,
        backup_ref: row.get(14)?,
        created_by_session_id: row.get(15)?,
        created_by_operation_id: row.get(16)?,
        team_id: row.get(17)?,
        created_at: row.get(18)?,
        updated_at: row.get(19)?,
        deleted_at: row.get(20)?,
        cleanup_reason: row.get(21)?,
        is_cleanup_forced: row.get(22)?,
        active_claim_count: row.get(23)?,
        base_ref: row.get(24)?,
    })
}

/// Errors: there is no such worktree.
pub fn get(connection: &Connection, worktree_id: &str) -> Result<WorktreeRecord> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM worktree WHERE worktree_id = ?1"))?
        .query_row([worktree_id], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("worktree", worktree_id))
}

/// The living worktree in this folder, or on this branch.
pub fn find_living(
    connection: &Connection,
    worktree_cwd: &str,
    common_dir: &str,
    branch_name: &str,
) -> Result<Option<WorktreeRecord>> {
    Ok(connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM worktree WHERE status <> 'deleted'
                 AND (worktree_cwd = ?1 OR common_dir = ?2 AND branch_name = ?3)"
        ))?
        .query_row([worktree_cwd, common_dir, branch_name], record_of)
        .optional()?)
}

pub fn list(connection: &Connection, query: &WorktreeQuery) -> Result<Vec<WorktreeRecord>> {
    let mut conditions = vec!["1"];
    let mut values: Vec<Sql> = Vec::new();
    if let Some(after) = query.after {
        conditions.push("worktree_key > ?");
        values.push(Sql::Integer(after));
    }
    let filters = [
        (&query.status, "status = ?"),
        (&query.team_id, "team_id = ?"),
        (&query.repo_root, "repo_root = ?"),
    ];
    for (value, condition) in filters {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Sql::Text(value.clone()));
        }
    }
    values.push(Sql::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM worktree WHERE {} ORDER BY worktree_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let records = statement.query_map(rusqlite::params_from_iter(values), record_of)?;
    Ok(records.collect::<rusqlite::Result<_>>()?)
}

/// All that are not deleted: what the start looks at.
pub fn living(connection: &Connection) -> Result<Vec<WorktreeRecord>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM worktree WHERE status <> 'deleted' ORDER BY worktree_key"
    ))?;
    let records = statement.query_map([], record_of)?;
    Ok(records.collect::<rusqlite::Result<_>>()?)
}

/// Worktrees whose cleanup is due and in which no agent lives and no process of a session runs any more.
pub fn due(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT worktree_id FROM worktree
         WHERE cleanup_reason IS NOT NULL AND status IN ('ready', 'missing')
             AND NOT EXISTS (
                 SELECT 1 FROM worktree_claim JOIN session USING (session_id)
                 JOIN agent USING (session_key)
                 WHERE worktree_claim.worktree_key = worktree.worktree_key
                     AND session.worktree_id = worktree.worktree_id)
             AND NOT EXISTS (
                 SELECT 1 FROM worktree_claim JOIN process USING (session_id)
                 WHERE worktree_claim.worktree_key = worktree.worktree_key
                     AND process.status IN ('queued', 'running'))
         ORDER BY worktree_key",
    )?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

/// Counts for diagnostics.
#[derive(Debug)]
pub struct WorktreeCounts {
    pub worktree_total: i64,
    pub active_claim_total: i64,
    /// Active claims of sessions that are over or gone; the start releases those.
    pub orphaned_claim_total: i64,
    pub status_counts: Vec<(String, i64)>,
    pub deletion_policy_counts: Vec<(String, i64)>,
}

pub fn counts(connection: &Connection) -> Result<WorktreeCounts> {
    let number =
        |sql: &str| -> Result<i64> { Ok(connection.query_row(sql, [], |row| row.get(0))?) };
    let grouped = |column: &str| -> Result<Vec<(String, i64)>> {
        let mut statement = connection
            .prepare_cached(&format!("SELECT {column}, count(*) FROM worktree GROUP BY 1"))?;
        let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(counts.collect::<rusqlite::Result<_>>()?)
    };
    Ok(WorktreeCounts {
        worktree_total: number("SELECT count(*) FROM worktree")?,
        active_claim_total: number(
            "SELECT count(*) FROM worktree_claim WHERE released_at IS NULL",
        )?,
        orphaned_claim_total: number(
            "SELECT count(*) FROM worktree_claim LEFT JOIN session USING (session_id)
             WHERE released_at IS NULL AND ifnull(state, 'closed') IN ('closed', 'failed')",
        )?,
        status_counts: grouped("status")?,
        deletion_policy_counts: grouped("deletion_policy")?,
    })
}

impl Tx<'_> {
    pub fn worktree(&mut self, worktree_id: &str) -> Result<WorktreeRecord> {
        get(self.connection(), worktree_id)
    }

    /// Writes down that a worktree is about to be made. Errors: its folder or branch belongs to another one.
    pub fn insert_worktree(&mut self, new: &NewWorktree) -> Result<()> {
        let now_ms = self.now_ms();
        let living =
            find_living(self.connection(), &new.worktree_cwd, &new.common_dir, &new.branch_name)?;
        if let Some(other) = living {
            return Err(taken(&other));
        }
        self.connection()
            .prepare_cached(
                "INSERT INTO worktree (worktree_id, status, repo_root, common_dir,
                     unified_workspace_path, worktree_root, worktree_cwd, worktree_name,
                     branch_name, base_commit, deletion_policy, created_by_session_id,
                     created_by_operation_id, team_id, base_ref, created_at, updated_at)
                 VALUES (?1, 'creating', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                     ?15, ?15)",
            )?
            .execute(params![
                new.worktree_id,
                new.repo_root,
                new.common_dir,
                new.unified_workspace_path,
                new.worktree_root,
                new.worktree_cwd,
                new.worktree_name,
                new.branch_name,
                new.base_commit,
                new.deletion_policy.as_str(),
                new.created_by_session_id,
                new.created_by_operation_id,
                new.team_id,
                new.base_ref,
                now_ms,
            ])?;
        // So that its log can be followed before it has told anything.
        event::insert_scope(self.connection(), ScopeKind::Worktree, &new.worktree_id)?;
        Ok(())
    }

    /// The worktree is made: `worktree.created`.
    pub fn finish_worktree(
        &mut self,
        worktree_id: &str,
        init_script_status: InitScriptStatus,
    ) -> Result<WorktreeRecord> {
        let now_ms = self.now_ms();
        let changed = self
            .connection()
            .prepare_cached(
                "UPDATE worktree SET status = 'ready', init_script_status = ?2, updated_at = ?3
                 WHERE worktree_id = ?1 AND status = 'creating'",
            )?
            .execute(params![worktree_id, init_script_status.as_str(), now_ms])?;
        if changed == 0 {
            return Err(Error::internal(format!("worktree {worktree_id} is not being made")));
        }
        let record = self.worktree(worktree_id)?;
        let payload = json!({"worktree": record, "init_script_status": init_script_status});
        self.tell_worktree(worktree_id, EventKind::WorktreeCreated, &payload)?;
        Ok(record)
    }

    /// A cleanup begins: nobody can claim the worktree from here on. Errors: somebody has, or it is not there.
    pub fn begin_cleanup(
        &mut self,
        worktree_id: &str,
        reason: &str,
        is_forced: bool,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        let changed = self
            .connection()
            .prepare_cached(
                "UPDATE worktree SET status = 'removing', cleanup_reason = ?2, cleanup_force = ?3,
                     updated_at = ?4
                 WHERE worktree_id = ?1 AND status IN ('ready', 'missing', 'removing')
                     AND NOT EXISTS (SELECT 1 FROM worktree_claim AS claim
                         WHERE claim.worktree_key = worktree.worktree_key
                             AND released_at IS NULL)",
            )?
            .execute(params![worktree_id, reason, is_forced, now_ms])?;
        if changed == 0 {
            return Err(Error::new(
                Code::Conflict,
                format!("worktree {worktree_id} was claimed or removed meanwhile"),
            ));
        }
        Ok(())
    }

    /// The cleanup is over and the worktree is still there; `payload` tells why.
    pub fn keep_worktree(
        &mut self,
        worktree_id: &str,
        status: &str,
        kind: EventKind,
        payload: &Value,
    ) -> Result<()> {
        self.settle_worktree(worktree_id, status, None)?;
        self.tell_worktree(worktree_id, kind, payload)
    }

    /// Whether the last that was told of it is that a cleanup for this reason has left it where it is.
    pub fn is_worktree_kept_for(&mut self, worktree_id: &str, reason: &str) -> Result<bool> {
        // What a start has found out about it is no change of who works in it.
        let told: Option<bool> = self
            .connection()
            .prepare_cached(
                "SELECT event.kind = 'worktree.kept' AND payload ->> 'reason' = ?2
                 FROM event JOIN scope USING (scope_key)
                 WHERE scope.kind = 'worktree' AND scope_id = ?1
                     AND event.kind <> 'worktree.repaired'
                 ORDER BY seq DESC LIMIT 1",
            )?
            .query_row([worktree_id, reason], |row| row.get(0))
            .optional()?;
        Ok(told == Some(true))
    }

    /// The folder is gone for good. A creation that was undone is told as a cleanup too.
    pub fn delete_worktree(&mut self, worktree_id: &str, payload: &Value) -> Result<()> {
        let now_ms = self.now_ms();
        self.settle_worktree(worktree_id, "deleted", Some(now_ms))?;
        // A creation that did not come to an end has made nothing.
        let is_undone: bool = self
            .connection()
            .prepare_cached(
                "SELECT init_script_status IS NULL FROM worktree WHERE worktree_id = ?1",
            )?
            .query_row([worktree_id], |row| row.get(0))?;
        if is_undone {
            self.free_key(worktree_id)?;
        }
        self.tell_worktree(worktree_id, EventKind::WorktreeCleanedUp, payload)
    }

    pub fn set_worktree_backup(&mut self, worktree_id: &str, backup_ref: &str) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE worktree SET backup_ref = ?2 WHERE worktree_id = ?1")?
            .execute([worktree_id, backup_ref])?;
        Ok(())
    }

    /// What the start found; told when it is news.
    pub fn set_worktree_problem(
        &mut self,
        worktree_id: &str,
        status: &str,
        problem: Option<&str>,
        repair: &str,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "UPDATE worktree SET status = ?2, problem = ?3, updated_at = ?4
                 WHERE worktree_id = ?1",
            )?
            .execute(params![worktree_id, status, problem, now_ms])?;
        let record = self.worktree(worktree_id)?;
        let payload = json!({"worktree": record, "problem": problem, "repair": repair});
        self.tell_worktree(worktree_id, EventKind::WorktreeRepaired, &payload)
    }

    /// A cleanup is over, and this is how it is now; nothing is told.
    pub fn settle_worktree(
        &mut self,
        worktree_id: &str,
        status: &str,
        deleted_at: Option<i64>,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "UPDATE worktree SET status = ?2, deleted_at = ?3, cleanup_reason = NULL,
                     cleanup_force = 0, updated_at = ?4
                 WHERE worktree_id = ?1",
            )?
            .execute(params![worktree_id, status, deleted_at, now_ms])?;
        Ok(())
    }

    /// Appends an event of the worktree's own log.
    pub(super) fn tell_worktree(
        &mut self,
        worktree_id: &str,
        kind: EventKind,
        payload: &Value,
    ) -> Result<()> {
        self.append(NewEvent::worktree(worktree_id, kind, to_json(payload))).map(|_seq| ())
    }
}

/// The folder or the branch belongs to another worktree.
pub fn taken(other: &WorktreeRecord) -> Error {
    let message = format!(
        "the branch {} or its folder belongs to worktree {}, which is {}",
        other.branch_name, other.id, other.status
    );
    Error::new(Code::Conflict, message)
        .hint("claim that one, clean it up first, or choose another name")
        .detail("worktree", to_json(other))
}
