//! The records of runtime-managed processes, and the bytes that they are still to be sent.
//!
//! Whether a process may run is decided here, in the transaction that makes it or ends another one: the count of those
//! that run and the head of the queue can not change in between.

mod failure;
mod purge;
mod stdin;

pub use stdin::stdin_from;

use super::event::NewEvent;
use super::{Listed, Most, Tx, listed};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::{KilledBy, ProcessStatus, ScopeKind};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde_json::{Value, json};
use std::borrow::Cow;

/// A process that is to be made.
#[derive(Clone, Debug)]
pub struct NewProcess {
    pub process_id: String,
    pub session_id: Option<String>,
    pub name: Option<String>,
    /// JSON: `{"command": text}` or `{"args": [text, …]}`.
    pub command: String,
    pub cwd: String,
    /// JSON: an object of texts.
    pub env: String,
    pub timeout_ms: Option<i64>,
    pub kill_grace_ms: i64,
    pub output_bytes_max: i64,
    /// Bytes to begin with; None = `/dev/null`.
    pub stdin: Option<Vec<u8>>,
    /// Whether stdin stays open behind those bytes.
    pub is_stdin_open: bool,
}

/// A process as the ledger knows it.
#[derive(Clone, Debug)]
pub struct ProcessRow {
    pub process_key: i64,
    pub process_id: String,
    pub session_id: Option<String>,
    pub name: Option<String>,
    pub command: Value,
    pub cwd: String,
    pub status: ProcessStatus,
    pub pid: Option<i64>,
    pub timeout_ms: Option<i64>,
    pub kill_grace_ms: i64,
    pub output_bytes_max: i64,
    /// Of stdout and stderr: in the log file and told.
    pub bytes: [i64; 2],
    pub dropped_bytes: [i64; 2],
    pub stdin: String,
    pub stdin_bytes: i64,
    pub exit_code: Option<i64>,
    pub signal: Option<i64>,
    pub error: Option<String>,
    pub killed_by: Option<KilledBy>,
    pub kill_reason: Option<String>,
    pub kill_signal: Option<i64>,
    /// When that was sent, if it is neither TERM nor KILL.
    pub kill_sent_at: Option<i64>,
    pub created_at: i64,
    pub started_at: Option<i64>,
    pub ended_at: Option<i64>,
}

/// The signal behind which there is none.
const SIGKILL: i32 = 9;

const COLUMNS: &str = "process_key, process_id, session_id, name, command, cwd, status, pid,
     timeout_ms, kill_grace_ms, output_bytes_max, stdout_bytes, stderr_bytes,
     stdout_dropped_bytes, stderr_dropped_bytes, stdin, stdin_bytes, exit_code, signal, error,
     killed_by, kill_reason, kill_signal, created_at, started_at, ended_at, kill_sent_at";

impl ProcessRow {
    /// What a list shows of it.
    pub fn summary(&self) -> Value {
        json!({
            "process_id": self.process_id,
            "session_id": self.session_id,
            "name": self.name,
            "pid": self.pid,
            "status": self.status,
            "command": self.command,
            "cwd": self.cwd,
            "created_at": self.created_at,
            "started_at": self.started_at,
            "ended_at": self.ended_at,
        })
    }

    /// Whether output was cut off. While it runs only the cap itself can be seen; the end tells exactly.
    pub fn is_truncated(&self, stream: usize) -> bool {
        self.dropped_bytes[stream] > 0
            || self.ended_at.is_none() && self.bytes[stream] >= self.output_bytes_max
    }

    /// Errors: another session's (`forbidden`). None asks as the operator.
    pub fn check_owner(&self, session_id: Option<&str>) -> Result<()> {
        match session_id {
            Some(asking) if self.session_id.as_deref() != Some(asking) => Err(Error::new(
                Code::Forbidden,
                format!("process {} does not belong to session {asking}", self.process_id),
            )),
            _ => Ok(()),
        }
    }
}

fn row_of(row: &Row<'_>) -> rusqlite::Result<ProcessRow> {
    let command: String = row.get(4)?;
    let status: String = row.get(6)?;
    let killed_by: Option<String> = row.get(20)?;
    Ok(ProcessRow {
        process_key: row.get(0)?,
        process_id: row.get(1)?,
        session_id: row.get(2)?,
        name: row.get(3)?,
        command: serde_json::from_str(&command).unwrap_or(Value::Null),
        cwd: row.get(5)?,
        // The CHECK of the table lets no other word in.
        status: ProcessStatus::parse(&status).unwrap_or(ProcessStatus::Failed),
        pid: row.get(7)?,
        timeout_ms: row.get(8)?,
        kill_grace_ms: row.get(9)?,
        output_bytes_max: row.get(10)?,
        bytes: [row.get(11)?, row.get(12)?],
        dropped_bytes: [row.get(13)?, row.get(14)?],
        stdin: row.get(15)?,
        stdin_bytes: row.get(16)?,
        exit_code: row.get(17)?,
        signal: row.get(18)?,
        error: row.get(19)?,
        killed_by: killed_by.as_deref().and_then(KilledBy::parse),
        kill_reason: row.get(21)?,
        kill_signal: row.get(22)?,
        created_at: row.get(23)?,
        started_at: row.get(24)?,
        ended_at: row.get(25)?,
        kill_sent_at: row.get(26)?,
    })
}

/// Errors: there is no such process.
pub fn get(connection: &Connection, process_id: &str) -> Result<ProcessRow> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM process WHERE process_id = ?1"))?
        .query_row([process_id], row_of)
        .optional()?
        .ok_or_else(|| Error::not_found("process", process_id))
}

/// What its request adds to the environment, a JSON object. Apart from the record: it may be long, and it is secret.
pub fn env(connection: &Connection, process_id: &str) -> Result<String> {
    Ok(connection
        .prepare_cached("SELECT env FROM process WHERE process_id = ?1")?
        .query_row([process_id], |row| row.get(0))?)
}

/// Which processes to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct ProcessQuery {
    pub session_id: Option<String>,
    pub status: Option<String>,
    pub pid: Option<i64>,
    /// Without those that have ended.
    pub is_active: bool,
    /// Made before this one.
    pub before: Option<i64>,
    pub most: Most,
}

pub fn list(connection: &Connection, query: &ProcessQuery) -> Result<Listed<ProcessRow>> {
    let mut conditions = vec!["1"];
    let mut values: Vec<Sql> = Vec::new();
    if let Some(before) = query.before {
        conditions.push("process_key < ?");
        values.push(Sql::Integer(before));
    }
    if let Some(pid) = query.pid {
        conditions.push("pid = ?");
        values.push(Sql::Integer(pid));
    }
    for (column, value) in [("session_id = ?", &query.session_id), ("status = ?", &query.status)] {
        if let Some(value) = value {
            conditions.push(column);
            values.push(Sql::Text(value.clone()));
        }
    }
    if query.is_active {
        conditions.push("status IN ('queued', 'running')");
    }
    values.push(Sql::Integer(query.most.limit()));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM process WHERE {} ORDER BY process_key DESC LIMIT ?",
        conditions.join(" AND ")
    ))?;
    listed::read(statement.query(rusqlite::params_from_iter(values))?, query.most, row_of)
}

/// The ids of those that run, oldest first.
pub fn running(connection: &Connection) -> Result<Vec<String>> {
    ids(
        connection,
        // As in admit_processes: the index is taken for its own condition alone.
        "status IN ('queued', 'running') AND status = 'running' ORDER BY process_key",
        [],
    )
}

/// The ids of those of a session that wait or run; of all sessions that are over, for None.
pub fn active_of(connection: &Connection, session_id: Option<&str>) -> Result<Vec<String>> {
    let active = "status IN ('queued', 'running')";
    match session_id {
        Some(id) => {
            ids(connection, &format!("{active} AND session_id = ?1 ORDER BY process_key"), [id])
        }
        None => ids(
            connection,
            &format!(
                "{active} AND session_id IS NOT NULL AND session_id NOT IN
                     (SELECT session_id FROM session WHERE state NOT IN ('closed', 'failed'))
                 ORDER BY process_key"
            ),
            [],
        ),
    }
}

/// The ids of all that wait or run, the queue first: what it would start is then over already.
pub fn active(connection: &Connection) -> Result<Vec<String>> {
    ids(connection, "status IN ('queued', 'running') ORDER BY status, process_key DESC", [])
}

fn ids<const N: usize>(
    connection: &Connection,
    condition: &str,
    values: [&str; N],
) -> Result<Vec<String>> {
    let sql = format!("SELECT process_id FROM process WHERE {condition}");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map(rusqlite::params_from_iter(values), |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// How many processes have each status.
pub fn status_counts(connection: &Connection) -> Result<Vec<(String, i64)>> {
    let mut statement =
        connection.prepare_cached("SELECT status, count(*) FROM process GROUP BY status")?;
    let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counts.collect::<rusqlite::Result<_>>()?)
}

/// When the first of those ended that ended at `from` or later.
pub fn first_end(connection: &Connection, from: i64) -> Result<Option<i64>> {
    Ok(connection
        .prepare_cached("SELECT min(ended_at) FROM process WHERE ended_at >= ?1")?
        .query_row([from], |row| row.get(0))?)
}

/// Where a look at those that have ended has come to: the time of an end, and the key of the process.
pub type EndedTo = (i64, i64);

/// The next process behind `after` that ended before this time.
pub fn ended_before(
    connection: &Connection,
    time: i64,
    after: EndedTo,
) -> Result<Option<(String, EndedTo)>> {
    Ok(connection
        .prepare_cached(
            "SELECT process_id, ended_at, process_key FROM process
             WHERE ended_at < ?1 AND (ended_at, process_key) > (?2, ?3)
             ORDER BY ended_at, process_key LIMIT 1",
        )?
        .query_row([time, after.0, after.1], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?))))
        .optional()?)
}

/// The end of a process, for its record.
#[derive(Clone, Debug)]
pub struct ProcessEnd {
    pub status: ProcessStatus,
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub error: Option<String>,
    pub killed_by: Option<KilledBy>,
    pub dropped_bytes: [i64; 2],
    pub ended_at: i64,
}

/// Who wants a process ended, and how.
#[derive(Clone, Debug)]
pub struct Kill {
    pub killed_by: KilledBy,
    pub reason: String,
    /// The signal that comes first.
    pub signal: i32,
    /// None = as the process was made.
    pub grace_ms: Option<i64>,
}

impl<'a> NewEvent<'a> {
    /// An event of a process's own log.
    pub fn process(
        row: &'a ProcessRow,
        kind: EventKind,
        payload: impl Into<Cow<'a, str>>,
    ) -> NewEvent<'a> {
        NewEvent {
            scope: ScopeKind::Process,
            scope_id: &row.process_id,
            kind,
            session_id: row.session_id.as_deref(),
            team_id: None,
            turn_id: None,
            payload: payload.into(),
            provider: None,
        }
    }
}

impl Tx<'_> {
    pub fn process(&mut self, process_id: &str) -> Result<ProcessRow> {
        get(self.connection(), process_id)
    }

    /// Makes a process: it runs when there is room among `running_max`, waits when it may (`is_queue`). Errors: no room
    /// (`capacity`); its session is not there or is over.
    pub fn insert_process(
        &mut self,
        process: &NewProcess,
        running_max: i64,
        is_queue: bool,
    ) -> Result<ProcessStatus> {
        if let Some(session_id) = &process.session_id {
            self.open_session_key(session_id)?;
        }
        let (running, queued) = self.active_processes()?;
        let has_room = running < running_max && queued == 0;
        let status = if has_room { ProcessStatus::Running } else { ProcessStatus::Queued };
        if !has_room && !is_queue {
            return Err(Error::new(
                Code::Capacity,
                format!("{running} processes run and {queued} wait, of {running_max} that may run"),
            )
            .hint("send \"queue\": true to wait, end one, or raise processes.max_concurrent"));
        }
        if !has_room && queued >= limits::QUEUED_PROCESSES {
            return Err(Error::new(Code::Capacity, format!("{queued} processes wait already"))
                .hint("wait until some of them have run"));
        }
        let stdin = match (&process.stdin, process.is_stdin_open) {
            (None, false) => "none",
            (_, true) => "open",
            (Some(_), false) => "closed",
        };
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO process (process_id, session_id, name, command, cwd, env, status,
                     timeout_ms, kill_grace_ms, output_bytes_max, stdin, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
            )?
            .execute(params![
                process.process_id,
                process.session_id,
                process.name,
                process.command,
                process.cwd,
                process.env,
                status.as_str(),
                process.timeout_ms,
                process.kill_grace_ms,
                process.output_bytes_max,
                stdin,
                now_ms,
            ])?;
        // Its log is there from the first, empty, so that it can be watched.
        self.open_scope(ScopeKind::Process, &process.process_id)?;
        if let Some(bytes) = process.stdin.as_deref().filter(|bytes| !bytes.is_empty()) {
            let row = self.process(&process.process_id)?;
            self.add_process_stdin(&row, bytes)?;
        }
        if status == ProcessStatus::Queued {
            let row = self.process(&process.process_id)?;
            let payload = json!({"process_id": row.process_id, "position": queued + 1});
            self.append(NewEvent::process(&row, EventKind::ProcessQueued, payload.to_string()))?;
        }
        Ok(status)
    }

    /// Lets waiting processes run, in their order, while there is room; the ids of those that are to be started now.
    pub fn admit_processes(&mut self, running_max: i64) -> Result<Vec<String>> {
        let (running, queued) = self.active_processes()?;
        let room = (running_max - running).min(queued);
        if room <= 0 {
            return Ok(Vec::new());
        }
        let mut statement = self.connection().prepare_cached(
            // The index is taken for its own condition alone, word for word.
            "SELECT process_id FROM process
             WHERE status IN ('queued', 'running') AND status = 'queued'
             ORDER BY process_key LIMIT ?1",
        )?;
        let rows = statement.query_map([room], |row| row.get(0))?;
        let admitted: Vec<String> = rows.collect::<rusqlite::Result<_>>()?;
        for process_id in &admitted {
            self.connection()
                .prepare_cached("UPDATE process SET status = 'running' WHERE process_id = ?1")?
                .execute([process_id])?;
        }
        Ok(admitted)
    }

    /// `(running, queued)`.
    fn active_processes(&mut self) -> Result<(i64, i64)> {
        Ok(self
            .connection()
            .prepare_cached(
                "SELECT count(*) FILTER (WHERE status = 'running'),
                     count(*) FILTER (WHERE status = 'queued')
                 FROM process WHERE status IN ('queued', 'running')",
            )?
            .query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?)
    }

    /// The child is up.
    pub fn set_process_started(&mut self, process_id: &str, pid: i64) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached("UPDATE process SET pid = ?2, started_at = ?3 WHERE process_id = ?1")?
            .execute(params![process_id, pid, now_ms])?;
        Ok(())
    }

    /// The signal that an end begins with is about to be sent.
    pub fn set_process_kill_sent(&mut self, process_id: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached("UPDATE process SET kill_sent_at = ?2 WHERE process_id = ?1")?
            .execute(params![process_id, now_ms])?;
        Ok(())
    }

    /// How far the output is in the log files and told.
    pub fn set_process_bytes(&mut self, process_id: &str, bytes: [i64; 2]) -> Result<()> {
        self.connection()
            .prepare_cached(
                "UPDATE process SET stdout_bytes = ?2, stderr_bytes = ?3 WHERE process_id = ?1",
            )?
            .execute(params![process_id, bytes[0], bytes[1]])?;
        Ok(())
    }

    /// Ends the record, and tells it; one that has ended stays as it is. What was secret in it is forgotten.
    pub fn end_process(&mut self, process_id: &str, end: &ProcessEnd) -> Result<()> {
        let ended = self
            .connection()
            .prepare_cached(
                "UPDATE process SET status = ?2, exit_code = ?3, signal = ?4, error = ?5,
                     killed_by = ?6, stdout_dropped_bytes = ?7, stderr_dropped_bytes = ?8,
                     ended_at = ?9, env = '{}',
                     stdin = CASE stdin WHEN 'none' THEN 'none' ELSE 'closed' END
                 WHERE process_id = ?1 AND status IN ('queued', 'running')",
            )?
            .execute(params![
                process_id,
                end.status.as_str(),
                end.exit_code,
                end.signal,
                end.error,
                end.killed_by.map(KilledBy::as_str),
                end.dropped_bytes[0],
                end.dropped_bytes[1],
                end.ended_at,
            ])?;
        let row = self.process(process_id)?;
        if ended == 0 {
            return Ok(());
        }
        self.drop_process_stdin(row.process_key, i64::MAX)?;
        let kind = match end.status {
            ProcessStatus::Completed => EventKind::ProcessCompleted,
            ProcessStatus::TimedOut => EventKind::ProcessTimedOut,
            ProcessStatus::Killed => EventKind::ProcessKilled,
            _ => EventKind::ProcessFailed,
        };
        let payload = json!({
            "process_id": row.process_id,
            "status": row.status,
            "exit_code": row.exit_code,
            "signal": row.signal,
            "error": row.error,
            "killed_by": row.killed_by,
            "kill_reason": row.kill_reason,
            "stdout_bytes": row.bytes[0],
            "stderr_bytes": row.bytes[1],
            "stdout_dropped_bytes": row.dropped_bytes[0],
            "stderr_dropped_bytes": row.dropped_bytes[1],
        });
        self.append(NewEvent::process(&row, kind, payload.to_string())).map(|_seq| ())
    }

    /// Writes down who wants the process ended, and tells it; the first one counts, but a KILL is harder than what came
    /// before. One that waits is over with that.
    /// True when it runs and its thread has to act.
    pub fn kill_process(&mut self, process_id: &str, kill: &Kill) -> Result<bool> {
        let row = self.process(process_id)?;
        if row.status.is_terminal() {
            return Ok(false);
        }
        let is_harder = kill.signal == SIGKILL && row.kill_signal != Some(i64::from(SIGKILL));
        if row.killed_by.is_none() || is_harder {
            let grace_ms = kill.grace_ms.unwrap_or(row.kill_grace_ms);
            self.connection()
                .prepare_cached(
                    "UPDATE process SET killed_by = ifnull(killed_by, ?2),
                         kill_reason = ifnull(kill_reason, ?3),
                         kill_signal = ?4, kill_grace_ms = ?5
                     WHERE process_id = ?1",
                )?
                .execute(params![
                    process_id,
                    kill.killed_by.as_str(),
                    kill.reason,
                    kill.signal,
                    grace_ms
                ])?;
            let payload = json!({
                "process_id": process_id, "reason": kill.reason, "killed_by": kill.killed_by,
                "signal": kill.signal,
            });
            let kind = EventKind::ProcessKillRequested;
            self.append(NewEvent::process(&row, kind, payload.to_string()))?;
        }
        if row.status == ProcessStatus::Running {
            return Ok(true);
        }
        let end = ProcessEnd {
            status: ProcessStatus::Killed,
            exit_code: None,
            signal: None,
            error: None,
            killed_by: Some(kill.killed_by),
            dropped_bytes: [0, 0],
            ended_at: self.now_ms(),
        };
        self.end_process(process_id, &end)?;
        Ok(false)
    }
}

/// The whole record, as the routes of one process show it.
pub fn details(row: &ProcessRow, paths: [String; 2]) -> Value {
    let [stdout_path, stderr_path] = paths;
    json!({
        "process": row.summary(),
        "exit_code": row.exit_code,
        "signal": row.signal,
        "error": row.error,
        "killed_by": row.killed_by,
        "kill_reason": row.kill_reason,
        "kill_grace_ms": row.kill_grace_ms,
        "timeout_ms": row.timeout_ms,
        "stdin": row.stdin,
        "stdin_bytes": row.stdin_bytes,
        "stdout_path": stdout_path,
        "stderr_path": stderr_path,
        "stdout_bytes": row.bytes[0],
        "stderr_bytes": row.bytes[1],
        "stdout_truncated": row.is_truncated(0),
        "stderr_truncated": row.is_truncated(1),
        "stdout_dropped_bytes": row.dropped_bytes[0],
        "stderr_dropped_bytes": row.dropped_bytes[1],
    })
}
