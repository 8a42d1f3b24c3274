//! Turn records. One active turn a session is a rule of the schema (`turn_active`), not of the code that asks.

use super::session::json_of;
use super::{Listed, Most, Tx, listed};
use crate::error::{Code, Error, Result};
use crate::model::{TurnSource, TurnStatus};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;

/// A turn as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Turn"))]
pub struct TurnRecord {
    #[serde(skip)]
    pub turn_key: i64,
    /// When the agent was told of it; None while it has not been.
    #[serde(skip)]
    pub dispatched_at: Option<i64>,
    #[serde(skip)]
    pub is_interrupt_requested: bool,
    pub id: String,
    pub session_id: String,
    pub provider_turn_ref: Option<String>,
    /// A word of [`TurnStatus`].
    #[cfg_attr(test, schemars(with = "crate::model::TurnStatus"))]
    pub status: String,
    #[cfg_attr(test, schemars(with = "crate::model::TurnSource"))]
    pub source: String,
    #[cfg_attr(test, schemars(with = "Vec<crate::model::shape::Input>"))]
    pub input: Box<RawValue>,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::Usage>"))]
    pub usage: Option<Box<RawValue>>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::AgentError>"))]
    pub error: Option<Box<RawValue>>,
    pub stop_reason: Option<String>,
    pub assistant_text: Option<String>,
    pub created_at: i64,
    pub queued_at: Option<i64>,
    pub started_at: Option<i64>,
    pub completed_at: Option<i64>,
}

impl TurnRecord {
    pub fn is_terminal(&self) -> bool {
        TurnStatus::parse(&self.status).is_some_and(TurnStatus::is_terminal)
    }
}

pub struct NewTurn<'a> {
    pub turn_id: &'a str,
    pub session_key: i64,
    pub status: TurnStatus,
    pub source: TurnSource,
    pub input: &'a str,
    pub model: Option<&'a str>,
    pub mode: Option<&'a str>,
    pub reasoning_level: Option<&'a str>,
    pub permission_mode: Option<&'a str>,
    /// Its input was taken before: it is not refused for want of room.
    pub is_taken: bool,
}

/// How a turn ended.
#[derive(Debug, Default)]
pub struct TurnEnd {
    pub usage: Option<String>,
    pub error: Option<String>,
    pub stop_reason: Option<String>,
    pub assistant_text: Option<String>,
}

const COLUMNS: &str = "turn_key, turn_id, session_id, provider_turn_ref, status, source, input, \
    turn.model, turn.mode, turn.reasoning_level, turn.permission_mode, turn.usage, error, \
    stop_reason, assistant_text, turn.created_at, queued_at, started_at, completed_at, \
    dispatched_at, \
    interrupt_requested_at IS NOT NULL";

fn record_of(row: &Row<'_>) -> rusqlite::Result<TurnRecord> {
    Ok(TurnRecord {
        turn_key: row.get(0)?,
        id: row.get(1)?,
        session_id: row.get(2)?,
        provider_turn_ref: row.get(3)?,
        status: row.get(4)?,
        source: row.get(5)?,
        input: json_of(row.get(6)?),
        model: row.get(7)?,
        mode: row.get(8)?,
        reasoning_level: row.get(9)?,
        permission_mode: row.get(10)?,
        usage: row.get::<_, Option<String>>(11)?.map(json_of),
        error: row.get::<_, Option<String>>(12)?.map(json_of),
        stop_reason: row.get(13)?,
        assistant_text: row.get(14)?,
        created_at: row.get(15)?,
        queued_at: row.get(16)?,
        started_at: row.get(17)?,
        completed_at: row.get(18)?,
        dispatched_at: row.get(19)?,
        is_interrupt_requested: row.get(20)?,
    })
}

/// Errors: there is no such turn in this session.
pub fn get(connection: &Connection, session_id: &str, turn_id: &str) -> Result<TurnRecord> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM turn JOIN session USING (session_key)
             WHERE turn_id = ?1 AND session_id = ?2"
        ))?
        .query_row([turn_id, session_id], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("turn", turn_id))
}

/// Whether the turn has ended, by its status alone: the whole record may hold megabytes. Errors: there is no such turn
/// in this session.
pub fn is_over(connection: &Connection, session_id: &str, turn_id: &str) -> Result<bool> {
    let status: Option<String> = connection
        .prepare_cached(
            "SELECT turn.status FROM turn JOIN session USING (session_key)
             WHERE turn_id = ?1 AND session_id = ?2",
        )?
        .query_row([turn_id, session_id], |row| row.get(0))
        .optional()?;
    let status = status.ok_or_else(|| Error::not_found("turn", turn_id))?;
    Ok(TurnStatus::parse(&status).is_some_and(TurnStatus::is_terminal))
}

/// The turns of a session, oldest first, behind `after` (a turn key).
pub fn list(
    connection: &Connection,
    session_key: i64,
    status: Option<&str>,
    after: Option<i64>,
    most: Most,
) -> Result<Listed<TurnRecord>> {
    let mut conditions = vec!["session_key = ?"];
    let mut values = vec![Sql::Integer(session_key)];
    if let Some(after) = after {
        conditions.push("turn_key > ?");
        values.push(Sql::Integer(after));
    }
    if let Some(status) = status {
        conditions.push("turn.status = ?");
        values.push(Sql::Text(status.to_owned()));
    }
    values.push(Sql::Integer(most.limit()));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM turn JOIN session USING (session_key)
         WHERE {} ORDER BY turn_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    listed::read(statement.query(rusqlite::params_from_iter(values))?, most, record_of)
}

/// Whether the agent was ever told anything in this session, or has begun something by itself.
pub fn is_any_told(connection: &Connection, session_key: i64) -> Result<bool> {
    let sql = "SELECT EXISTS (SELECT 1 FROM turn WHERE session_key = ?1
               AND (dispatched_at IS NOT NULL OR source = 'agent'))";
    Ok(connection.prepare_cached(sql)?.query_row([session_key], |row| row.get(0))?)
}

/// The running or waiting turn of a session.
pub fn active(connection: &Connection, session_key: i64) -> Result<Option<TurnRecord>> {
    one(connection, session_key, "status IN ('in_progress', 'waiting_for_approval')")
}

/// How many turns wait, those of mail among them.
pub fn queued_count(connection: &Connection, session_key: i64) -> Result<usize> {
    let count: i64 = connection
        .prepare_cached("SELECT count(*) FROM turn WHERE session_key = ?1 AND status = 'queued'")?
        .query_row([session_key], |row| row.get(0))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// The next turn of the queue. One that carries mail goes ahead of the others.
pub fn next_queued(connection: &Connection, session_key: i64) -> Result<Option<TurnRecord>> {
    one(connection, session_key, "status = 'queued'")
}

fn one(connection: &Connection, session_key: i64, which: &str) -> Result<Option<TurnRecord>> {
    Ok(connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM turn JOIN session USING (session_key)
             WHERE session_key = ?1 AND turn.{which}
             ORDER BY source = 'team' DESC, turn_key LIMIT 1"
        ))?
        .query_row([session_key], record_of)
        .optional()?)
}

impl Tx<'_> {
    /// Errors: `turn_active` when the turn is to be active and the session has one; `capacity` when a bounded database
    /// is full, unless the agent has begun the turn by itself or its input was taken before.
    pub fn insert_turn(&mut self, new: &NewTurn<'_>) -> Result<()> {
        if new.source != TurnSource::Agent && !new.is_taken {
            self.refuse_when_full()?;
        }
        let now_ms = self.now_ms();
        let queued_at = (new.status == TurnStatus::Queued).then_some(now_ms);
        let started_at = (new.status == TurnStatus::InProgress).then_some(now_ms);
        let inserted = self
            .connection()
            .prepare_cached(
                "INSERT INTO turn (turn_id, session_key, status, source, input, model, mode,
                     reasoning_level, permission_mode, created_at, queued_at, started_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                new.turn_id,
                new.session_key,
                new.status.as_str(),
                new.source.as_str(),
                new.input,
                new.model,
                new.mode,
                new.reasoning_level,
                new.permission_mode,
                now_ms,
                queued_at,
                started_at,
            ]);
        self.active_or(inserted, new.session_key)
    }

    /// A queued or gated turn goes on. Errors: `turn_active` when another one is active.
    pub fn set_turn_status(&mut self, turn_id: &str, status: TurnStatus) -> Result<()> {
        let now_ms = self.now_ms();
        let session_key: i64 = self
            .connection()
            .prepare_cached("SELECT session_key FROM turn WHERE turn_id = ?1")?
            .query_row([turn_id], |row| row.get(0))?;
        let started_at = (status == TurnStatus::InProgress).then_some(now_ms);
        let updated = self
            .connection()
            .prepare_cached(
                "UPDATE turn SET status = ?2, started_at = ifnull(started_at, ?3)
                 WHERE turn_id = ?1",
            )?
            .execute(params![turn_id, status.as_str(), started_at]);
        self.active_or(updated, session_key)
    }

    pub fn set_turn_input(&mut self, turn_id: &str, input: &str) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE turn SET input = ?2 WHERE turn_id = ?1")?
            .execute(params![turn_id, input])?;
        Ok(())
    }

    /// The agent is told of the turn in this transaction; or it turned out that it never was.
    pub fn set_turn_dispatched(&mut self, turn_id: &str, is_dispatched: bool) -> Result<()> {
        let now_ms = is_dispatched.then_some(self.now_ms());
        self.connection()
            .prepare_cached("UPDATE turn SET dispatched_at = ?2 WHERE turn_id = ?1")?
            .execute(params![turn_id, now_ms])?;
        Ok(())
    }

    pub fn set_interrupt_requested(&mut self, turn_id: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "UPDATE turn SET interrupt_requested_at = ifnull(interrupt_requested_at, ?2)
                 WHERE turn_id = ?1",
            )?
            .execute(params![turn_id, now_ms])?;
        Ok(())
    }

    /// Ends a turn. A turn that is over stays as it is; returns whether this ended it.
    pub fn end_turn(&mut self, turn_id: &str, status: TurnStatus, end: &TurnEnd) -> Result<bool> {
        let now_ms = self.now_ms();
        let changed = self
            .connection()
            .prepare_cached(
                "UPDATE turn SET status = ?2, usage = ?3, error = ?4, stop_reason = ?5,
                     assistant_text = ?6, completed_at = ?7
                 WHERE turn_id = ?1
                     AND status IN ('queued', 'in_progress', 'waiting_for_approval')",
            )?
            .execute(params![
                turn_id,
                status.as_str(),
                end.usage,
                end.error,
                end.stop_reason,
                end.assistant_text,
                now_ms,
            ])?;
        Ok(changed == 1)
    }

    pub fn turn(&mut self, session_id: &str, turn_id: &str) -> Result<TurnRecord> {
        get(self.connection(), session_id, turn_id)
    }

    pub fn active_turn(&mut self, session_key: i64) -> Result<Option<TurnRecord>> {
        active(self.connection(), session_key)
    }

    pub fn next_queued_turn(&mut self, session_key: i64) -> Result<Option<TurnRecord>> {
        next_queued(self.connection(), session_key)
    }

    pub fn queued_turn_count(&mut self, session_key: i64) -> Result<usize> {
        queued_count(self.connection(), session_key)
    }

    fn active_or(&self, changed: rusqlite::Result<usize>, session_key: i64) -> Result<()> {
        let Err(error) = changed else { return Ok(()) };
        let is_constraint =
            error.sqlite_error_code() == Some(rusqlite::ErrorCode::ConstraintViolation);
        match active(self.connection(), session_key) {
            Ok(Some(turn)) if is_constraint => Err(Error::new(
                Code::TurnActive,
                format!("the session already runs turn {}", turn.id),
            )
            .hint("send it with \"when\": \"queue\" or \"steer\", or interrupt the running one")),
            _ => Err(error.into()),
        }
    }
}
