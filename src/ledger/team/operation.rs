//! Operations: the journal of what makes and ends the members that a team has spawned.
//!
//! There is one way to change a stage, [`Tx::move_operation`]: it asks the table in `model::team` and tells the event
//! when the operation is over. While an operation has a session, the worktree of that session is the operation's to
//! clean up (see [`Tx::is_under_operation`]).

use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::key::{self, Keyed};
use crate::ledger::session::json_of;
use crate::ledger::team::TeamRecord;
use crate::ledger::{Listed, Most, Tx, listed, to_json};
use crate::model::event::EventKind;
use crate::model::team::{AssignmentMode, OperationKind, OperationStage};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;

/// An operation as clients see it.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Operation"))]
pub struct OperationRecord {
    #[serde(skip)]
    pub operation_key: i64,
    pub operation_id: String,
    pub team_id: String,
    /// A word of [`OperationKind`].
    #[cfg_attr(test, schemars(with = "OperationKind"))]
    pub kind: String,
    /// A word of [`OperationStage`].
    #[cfg_attr(test, schemars(with = "OperationStage"))]
    pub stage: String,
    pub source_session_id: Option<String>,
    pub session_id: Option<String>,
    pub worktree_id: Option<String>,
    /// A word of [`AssignmentMode`].
    #[cfg_attr(test, schemars(with = "AssignmentMode"))]
    pub worktree_assignment_mode: String,
    pub message_id: Option<String>,
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub request: Box<RawValue>,
    pub reason: Option<String>,
    pub message: Option<String>,
    pub diagnostics: Vec<DiagnosticRecord>,
    pub created_at: i64,
    pub updated_at: i64,
    pub finished_at: Option<i64>,
}

impl OperationRecord {
    /// Whether it has made the worktree, and did not find it.
    pub fn is_worktree_made(&self) -> bool {
        self.worktree_assignment_mode == AssignmentMode::Created.as_str()
    }
}

/// What went wrong in an operation.
#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "OperationDiagnostic"))]
pub struct DiagnosticRecord {
    pub id: i64,
    pub operation_id: String,
    pub team_id: String,
    pub code: String,
    pub message: String,
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub payload: Box<RawValue>,
    pub created_at: i64,
}

pub struct NewOperation<'a> {
    pub operation_id: &'a str,
    pub kind: OperationKind,
    pub stage: OperationStage,
    pub source_session_id: Option<&'a str>,
    pub session_id: Option<&'a str>,
    pub worktree_id: Option<&'a str>,
    pub worktree_assignment_mode: AssignmentMode,
    /// JSON, an object.
    pub request: &'a str,
    pub enrolment: Option<&'a str>,
}

/// Which operations of a team to list, oldest first.
#[derive(Debug, Default)]
pub struct OperationQuery {
    pub kind: Option<String>,
    pub stage: Option<String>,
    /// Strictly behind this operation key.
    pub after: Option<i64>,
    pub most: Most,
}

/// Which diagnostics to list, oldest first.
#[derive(Debug, Default)]
pub struct DiagnosticQuery {
    pub team_id: Option<String>,
    pub operation_id: Option<String>,
    /// Strictly behind this id.
    pub after: Option<i64>,
    pub limit: usize,
}

/// What comes with the change of a stage. None leaves a field as it is.
#[derive(Debug, Default)]
pub struct OperationChange<'a> {
    pub session_id: Option<&'a str>,
    pub worktree_id: Option<&'a str>,
    pub message_id: Option<&'a str>,
    pub reason: Option<&'a str>,
    pub message: Option<&'a str>,
}

const COLUMNS: &str = "operation_key, operation_id, team_id, kind, stage, source_session_id, \
    session_id, worktree_id, worktree_assignment_mode, message_id, request, reason, message, \
    team_operation.created_at, team_operation.updated_at, finished_at";

fn record_of(row: &Row<'_>) -> rusqlite::Result<OperationRecord> {
    Ok(OperationRecord {
        operation_key: row.get(0)?,
        operation_id: row.get(1)?,
        team_id: row.get(2)?,
        kind: row.get(3)?,
        stage: row.get(4)?,
        source_session_id: row.get(5)?,
        session_id: row.get(6)?,
        worktree_id: row.get(7)?,
        worktree_assignment_mode: row.get(8)?,
        message_id: row.get(9)?,
        request: json_of(row.get(10)?),
        reason: row.get(11)?,
        message: row.get(12)?,
        diagnostics: Vec::new(),
        created_at: row.get(13)?,
        updated_at: row.get(14)?,
        finished_at: row.get(15)?,
    })
}

/// Errors: there is no such operation.
pub fn get(connection: &Connection, operation_id: &str) -> Result<OperationRecord> {
    let record = connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM team_operation JOIN team USING (team_key)
             WHERE operation_id = ?1"
        ))?
        .query_row([operation_id], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("operation", operation_id))?;
    with_diagnostics(connection, record)
}

fn with_diagnostics(
    connection: &Connection,
    mut record: OperationRecord,
) -> Result<OperationRecord> {
    let query = DiagnosticQuery {
        operation_id: Some(record.operation_id.clone()),
        limit: usize::MAX,
        ..DiagnosticQuery::default()
    };
    record.diagnostics = diagnostics(connection, &query)?;
    Ok(record)
}

pub fn list(
    connection: &Connection,
    team: &TeamRecord,
    query: &OperationQuery,
) -> Result<Listed<OperationRecord>> {
    let mut conditions = vec!["team_key = ?", "operation_key > ?"];
    let mut values = vec![Sql::Integer(team.team_key), Sql::Integer(query.after.unwrap_or(0))];
    for (value, condition) in [(&query.kind, "kind = ?"), (&query.stage, "stage = ?")] {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Sql::Text(value.clone()));
        }
    }
    values.push(Sql::Integer(query.most.limit()));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM team_operation JOIN team USING (team_key)
         WHERE {} ORDER BY operation_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let rows = statement.query(rusqlite::params_from_iter(values))?;
    let Listed { records, is_cut } = listed::read(rows, query.most, record_of)?;
    let records = records.into_iter().map(|record| with_diagnostics(connection, record));
    Ok(Listed { records: records.collect::<Result<_>>()?, is_cut })
}

/// The ids of the operations that are not over, oldest first.
pub fn unfinished(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT operation_id FROM team_operation WHERE finished_at IS NULL ORDER BY operation_key",
    )?;
    let ids = statement.query_map([], |row| row.get(0))?;
    Ok(ids.collect::<rusqlite::Result<_>>()?)
}

pub fn diagnostics(
    connection: &Connection,
    query: &DiagnosticQuery,
) -> Result<Vec<DiagnosticRecord>> {
    let mut conditions = vec!["diagnostic_key > ?"];
    let mut values = vec![Sql::Integer(query.after.unwrap_or(0))];
    let filters = [(&query.team_id, "team_id = ?"), (&query.operation_id, "operation_id = ?")];
    for (value, condition) in filters {
        if let Some(value) = value {
            conditions.push(condition);
            values.push(Sql::Text(value.clone()));
        }
    }
    values.push(Sql::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT diagnostic_key, operation_id, team_id, code, diagnostic.message, payload,
             diagnostic.created_at
         FROM team_operation_diagnostic AS diagnostic
         JOIN team_operation USING (operation_key) JOIN team USING (team_key)
         WHERE {} ORDER BY diagnostic_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let records = statement.query_map(rusqlite::params_from_iter(values), |row| {
        Ok(DiagnosticRecord {
            id: row.get(0)?,
            operation_id: row.get(1)?,
            team_id: row.get(2)?,
            code: row.get(3)?,
            message: row.get(4)?,
            payload: json_of(row.get(5)?),
            created_at: row.get(6)?,
        })
    })?;
    Ok(records.collect::<rusqlite::Result<_>>()?)
}

impl Tx<'_> {
    pub fn operation(&mut self, operation_id: &str) -> Result<OperationRecord> {
        get(self.connection(), operation_id)
    }

    /// Writes an operation down: `team_operation.started`.
    pub fn begin_operation(&mut self, team: &TeamRecord, new: &NewOperation<'_>) -> Result<()> {
        let now_ms = self.now_ms();
        let operation_key = key::next(self.connection(), Keyed::Operation)?;
        self.connection()
            .prepare_cached(
                "INSERT INTO team_operation (operation_id, team_key, kind, stage,
                     source_session_id, session_id, worktree_id, worktree_assignment_mode, request,
                     enrolment, created_at, updated_at, operation_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12)",
            )?
            .execute(params![
                new.operation_id,
                team.team_key,
                new.kind.as_str(),
                new.stage.as_str(),
                new.source_session_id,
                new.session_id,
                new.worktree_id,
                new.worktree_assignment_mode.as_str(),
                new.request,
                new.enrolment,
                now_ms,
                operation_key,
            ])?;
        self.tell_operation(new.operation_id, EventKind::TeamOperationStarted)
    }

    /// How many members are being made.
    pub fn spawns_under_way(&mut self) -> Result<usize> {
        let count: i64 = self
            .connection()
            .prepare_cached(
                "SELECT count(*) FROM team_operation WHERE finished_at IS NULL
                     AND stage IN ('planned', 'session_created')",
            )?
            .query_row([], |row| row.get(0))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// See [`NewOperation::enrolment`]. Errors: it is not needed any more.
    pub fn enrolment(&mut self, operation_id: &str) -> Result<String> {
        let text: Option<String> = self
            .connection()
            .prepare_cached("SELECT enrolment FROM team_operation WHERE operation_id = ?1")?
            .query_row([operation_id], |row| row.get(0))?;
        text.ok_or_else(|| Error::internal(format!("operation {operation_id} makes no member")))
    }

    /// Takes an operation to its next stage; tells when that is its end, and then forgets what only the way there
    /// needed. Errors: the table does not allow it.
    pub fn move_operation(
        &mut self,
        operation_id: &str,
        to: OperationStage,
        change: &OperationChange<'_>,
    ) -> Result<()> {
        let record = self.operation(operation_id)?;
        let from = OperationStage::parse(&record.stage);
        if !from.is_some_and(|from| to.comes_from().contains(&from)) {
            return Err(Error::new(
                Code::Conflict,
                format!("operation {operation_id} is {}", record.stage),
            ));
        }
        let now_ms = self.now_ms();
        let finished_at = to.is_terminal().then_some(now_ms);
        self.connection()
            .prepare_cached(
                "UPDATE team_operation SET stage = ?2,
                     session_id = ifnull(?3, session_id),
                     worktree_id = ifnull(?4, worktree_id),
                     message_id = ifnull(?5, message_id),
                     reason = ifnull(?6, reason),
                     message = ifnull(?7, message),
                     enrolment = iif(?8 IS NULL, enrolment, NULL),
                     finished_at = ?8,
                     updated_at = ?9
                 WHERE operation_id = ?1",
            )?
            .execute(params![
                operation_id,
                to.as_str(),
                change.session_id,
                change.worktree_id,
                change.message_id,
                change.reason,
                change.message,
                finished_at,
                now_ms,
            ])?;
        match to {
            OperationStage::Completed => {
                self.tell_operation(operation_id, EventKind::TeamOperationCompleted)
            }
            OperationStage::RolledBack => {
                // It has made nothing.
                self.free_key(operation_id)?;
                self.tell_operation(operation_id, EventKind::TeamOperationRolledBack)
            }
            _ => Ok(()),
        }
    }

    /// Notes what went wrong. `payload` is JSON, an object.
    pub fn note_diagnostic(
        &mut self,
        operation_id: &str,
        code: &str,
        message: &str,
        payload: &str,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        let diagnostic_key = key::next(self.connection(), Keyed::Diagnostic)?;
        self.connection()
            .prepare_cached(
                "INSERT INTO team_operation_diagnostic (operation_key, code, message, payload,
                     created_at, diagnostic_key)
                 SELECT operation_key, ?2, ?3, ?4, ?5, ?6 FROM team_operation
                 WHERE operation_id = ?1",
            )?
            .execute(params![operation_id, code, message, payload, now_ms, diagnostic_key])?;
        Ok(())
    }

    /// Whether an operation that is under way has this session: it looks after the worktree itself.
    pub fn is_under_operation(&mut self, session_id: &str) -> Result<bool> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT 1 FROM team_operation WHERE session_id = ?1 AND finished_at IS NULL",
            )?
            .exists([session_id])?)
    }

    fn tell_operation(&mut self, operation_id: &str, kind: EventKind) -> Result<()> {
        let record = self.operation(operation_id)?;
        let payload = format!("{{\"operation\":{}}}", to_json(&record));
        let session_id = record.session_id.as_deref().or(record.source_session_id.as_deref());
        let event = NewEvent::team(&record.team_id, kind, payload);
        self.append(NewEvent { session_id, ..event }).map(|_seq| ())
    }
}
