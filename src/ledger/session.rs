//! Session records.

use super::{Listed, Most, Tx, listed, one_line};
use crate::error::{Code, Error, Result};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;

/// A session as clients see it; every key is always there.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Session"))]
pub struct SessionRecord {
    #[serde(skip)]
    pub session_key: i64,
    pub id: String,
    pub provider: String,
    pub agent: String,
    /// A word of [`crate::model::SessionStatus`].
    #[cfg_attr(test, schemars(with = "crate::model::SessionStatus"))]
    pub status: String,
    pub title: Option<String>,
    pub cwd: Option<String>,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    pub system_prompt: Option<String>,
    /// The caller's own, untouched.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    pub metadata: Box<RawValue>,
    pub provider_session_ref: Option<String>,
    pub canonical_provider_session_ref: Option<String>,
    pub active_turn_id: Option<String>,
    pub worktree_id: Option<String>,
    /// Whether an agent process is attached.
    pub live: bool,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::Usage>"))]
    pub usage: Option<Box<RawValue>>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::AgentError>"))]
    pub last_error: Option<Box<RawValue>>,
    pub created_at: i64,
    pub updated_at: i64,
    pub closed_at: Option<i64>,
    pub failure_code: Option<String>,
    pub failure_message: Option<String>,
}

/// What the session's thread needs beside the record.
#[derive(Clone, Debug)]
pub struct SessionPrivate {
    pub session_key: i64,
    pub provider: String,
    pub agent: String,
    /// A word of the column `state`.
    pub state: String,
    pub agent_cwd: String,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    pub system_prompt: Option<String>,
    /// An object of texts.
    pub env: String,
    /// An array in ACP's shape.
    pub mcp_servers: String,
    pub provider_session_ref: Option<String>,
    pub capabilities: Option<String>,
    pub title: Option<String>,
    pub usage: Option<String>,
}

pub struct NewSession {
    pub session_id: String,
    pub provider: String,
    pub agent: String,
    pub title: Option<String>,
    pub cwd: Option<String>,
    pub agent_cwd: String,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    pub system_prompt: Option<String>,
    pub metadata: String,
    pub env: String,
    pub mcp_servers: String,
}

/// Which sessions to list, newest change first.
#[derive(Debug, Default)]
pub struct SessionQuery {
    pub status: Option<String>,
    pub provider: Option<String>,
    /// Members of this team.
    pub team_id: Option<String>,
    /// Strictly behind this place of the list: `(updated_at, session_key)`.
    pub after: Option<(i64, i64)>,
    pub most: Most,
}

const COLUMNS: &str = "session_key, session_id, provider, agent, status, title, cwd, model, mode, \
    reasoning_level, permission_mode, system_prompt, metadata, provider_session_ref, \
    canonical_provider_session_ref, active_turn_id, worktree_id, live, usage, last_error, \
    created_at, updated_at, closed_at, failure_code, failure_message";

fn record_of(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    Ok(SessionRecord {
        session_key: row.get(0)?,
        id: row.get(1)?,
        provider: row.get(2)?,
        agent: row.get(3)?,
        status: row.get(4)?,
        title: row.get(5)?,
        cwd: row.get(6)?,
        model: row.get(7)?,
        mode: row.get(8)?,
        reasoning_level: row.get(9)?,
        permission_mode: row.get(10)?,
        system_prompt: row.get(11)?,
        metadata: json_of(row.get(12)?),
        provider_session_ref: row.get(13)?,
        canonical_provider_session_ref: row.get(14)?,
        active_turn_id: row.get(15)?,
        worktree_id: row.get(16)?,
        live: row.get(17)?,
        usage: row.get::<_, Option<String>>(18)?.map(json_of),
        last_error: row.get::<_, Option<String>>(19)?.map(json_of),
        created_at: row.get(20)?,
        updated_at: row.get(21)?,
        closed_at: row.get(22)?,
        failure_code: row.get(23)?,
        failure_message: row.get(24)?,
    })
}

/// JSON that we wrote ourselves, for a record that is shown.
pub(super) fn json_of(text: String) -> Box<RawValue> {
    RawValue::from_string(text).expect("the ledger holds JSON that was serialised by us")
}

/// Errors: there is no such session.
pub fn get(connection: &Connection, session_id: &str) -> Result<SessionRecord> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM session_record WHERE session_id = ?1"))?
        .query_row([session_id], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("session", session_id))
}

/// Errors: there is no such session.
pub fn get_private(connection: &Connection, session_id: &str) -> Result<SessionPrivate> {
    connection
        .prepare_cached(
            "SELECT session_key, provider, agent, state, agent_cwd, model, mode, reasoning_level,
                 permission_mode, system_prompt, env, mcp_servers, provider_session_ref,
                 capabilities, title, usage
             FROM session WHERE session_id = ?1",
        )?
        .query_row([session_id], |row| {
            Ok(SessionPrivate {
                session_key: row.get(0)?,
                provider: row.get(1)?,
                agent: row.get(2)?,
                state: row.get(3)?,
                agent_cwd: row.get(4)?,
                model: row.get(5)?,
                mode: row.get(6)?,
                reasoning_level: row.get(7)?,
                permission_mode: row.get(8)?,
                system_prompt: row.get(9)?,
                env: row.get(10)?,
                mcp_servers: row.get(11)?,
                provider_session_ref: row.get(12)?,
                capabilities: row.get(13)?,
                title: row.get(14)?,
                usage: row.get(15)?,
            })
        })
        .optional()?
        .ok_or_else(|| Error::not_found("session", session_id))
}

/// The key of a session. Errors: there is no such session.
pub fn key(connection: &Connection, session_id: &str) -> Result<i64> {
    connection
        .prepare_cached("SELECT session_key FROM session WHERE session_id = ?1")?
        .query_row([session_id], |row| row.get(0))
        .optional()?
        .ok_or_else(|| Error::not_found("session", session_id))
}

pub fn list(connection: &Connection, query: &SessionQuery) -> Result<Listed<SessionRecord>> {
    let mut conditions = vec!["1"];
    let mut values: Vec<Sql> = Vec::new();
    if let Some((updated_at, session_key)) = query.after {
        conditions.push("(updated_at, session_key) < (?, ?)");
        values.extend([Sql::Integer(updated_at), Sql::Integer(session_key)]);
    }
    if let Some(status) = &query.status {
        conditions.push("status = ?");
        values.push(Sql::Text(status.clone()));
    }
    if let Some(provider) = &query.provider {
        conditions.push("provider = ?");
        values.push(Sql::Text(provider.clone()));
    }
    if let Some(team_id) = &query.team_id {
        conditions.push(
            "session_id IN (SELECT agent_id FROM team_member JOIN team USING (team_key)
                 WHERE team_id = ? AND deleted_at IS NULL)",
        );
        values.push(Sql::Text(team_id.clone()));
    }
    values.push(Sql::Integer(query.most.limit()));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM session_record WHERE {}
         ORDER BY updated_at DESC, session_key DESC LIMIT ?",
        conditions.join(" AND ")
    ))?;
    listed::read(statement.query(rusqlite::params_from_iter(values))?, query.most, record_of)
}

/// A session without an agent that has a turn to run.
#[derive(Debug)]
pub struct Waiting {
    pub session_id: String,
    pub provider: String,
    /// False: its turn waits for somebody to let it through.
    pub wants_agent: bool,
}

/// Open sessions without an agent that have a turn which runs, waits or is queued.
pub fn asleep_with_work(connection: &Connection) -> Result<Vec<Waiting>> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id, provider, max(turn.status <> 'waiting_for_approval')
         FROM turn JOIN session USING (session_key)
         WHERE turn.status IN ('queued', 'in_progress', 'waiting_for_approval')
             AND state IN ('starting', 'open')
             AND NOT EXISTS (SELECT 1 FROM agent WHERE agent.session_key = session.session_key)
         GROUP BY session.session_key",
    )?;
    let sessions = statement.query_map([], |row| {
        Ok(Waiting { session_id: row.get(0)?, provider: row.get(1)?, wants_agent: row.get(2)? })
    })?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

/// Sessions whose agent has never opened them, with its provider.
pub fn starting(connection: &Connection) -> Result<Vec<(String, String)>> {
    let mut statement = connection
        .prepare_cached("SELECT session_id, provider FROM session WHERE state = 'starting'")?;
    let sessions = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

/// Counts by status, for diagnostics.
pub fn status_counts(connection: &Connection) -> Result<Vec<(String, i64)>> {
    let mut statement =
        connection.prepare_cached("SELECT status, count(*) FROM session_record GROUP BY status")?;
    let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counts.collect::<rusqlite::Result<_>>()?)
}

/// What a session's record may change to. None leaves a field as it is.
#[derive(Debug, Default)]
pub struct SessionChange {
    pub state: Option<&'static str>,
    pub title: Option<String>,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub provider_session_ref: Option<String>,
    pub capabilities: Option<String>,
    pub usage: Option<String>,
    pub last_error: Option<String>,
    pub failure: Option<(String, String)>,
    pub is_failure_over: bool,
    pub is_closed: bool,
}

impl Tx<'_> {
    /// Errors: a bounded database is full (`capacity`).
    pub fn insert_session(&mut self, new: &NewSession) -> Result<i64> {
        self.refuse_when_full()?;
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO session (session_id, provider, agent, state, title, cwd, agent_cwd,
                     model, mode, reasoning_level, permission_mode, system_prompt, metadata, env,
                     mcp_servers, created_at, updated_at)
                 VALUES (?1, ?2, ?3, 'starting', ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14,
                     ?15, ?15)",
            )?
            .execute(params![
                new.session_id,
                new.provider,
                new.agent,
                new.title,
                new.cwd,
                new.agent_cwd,
                new.model,
                new.mode,
                new.reasoning_level,
                new.permission_mode,
                new.system_prompt,
                one_line(&new.metadata),
                new.env,
                new.mcp_servers,
                now_ms,
            ])?;
        Ok(self.connection().last_insert_rowid())
    }

    pub fn session(&mut self, session_id: &str) -> Result<SessionRecord> {
        get(self.connection(), session_id)
    }

    /// Says that something of this session's record has changed: its time, and the cached copy.
    pub fn touch_session(&mut self, session_id: &str) -> Result<()> {
        if self.has_touched(session_id) {
            return Ok(());
        }
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached("UPDATE session SET updated_at = ?2 WHERE session_id = ?1")?
            .execute(params![session_id, now_ms])?;
        self.touch(session_id);
        Ok(())
    }

    pub fn change_session(&mut self, session_id: &str, change: &SessionChange) -> Result<()> {
        let now_ms = self.now_ms();
        let (failure_code, failure_message) = match &change.failure {
            Some((code, message)) => (Some(code), Some(message)),
            None => (None, None),
        };
        self.connection()
            .prepare_cached(
                "UPDATE session SET
                     state = iif(state = 'closed', state, ifnull(?2, state)),
                     title = ifnull(?3, title),
                     model = ifnull(?4, model),
                     mode = ifnull(?5, mode),
                     reasoning_level = ifnull(?6, reasoning_level),
                     provider_session_ref = ifnull(?7, provider_session_ref),
                     canonical_provider_session_ref =
                         ifnull(?7, canonical_provider_session_ref),
                     capabilities = ifnull(?8, capabilities),
                     usage = ifnull(?9, usage),
                     last_error = ifnull(?10, last_error),
                     failure_code = iif(?13, NULL, ifnull(?11, failure_code)),
                     failure_message = iif(?13, NULL, ifnull(?12, failure_message)),
                     closed_at = iif(?14, ?15, closed_at),
                     updated_at = ?15
                 WHERE session_id = ?1",
            )?
            .execute(params![
                session_id,
                change.state,
                change.title,
                change.model,
                change.mode,
                change.reasoning_level,
                change.provider_session_ref,
                change.capabilities,
                change.usage,
                change.last_error,
                failure_code,
                failure_message,
                change.is_failure_over,
                change.is_closed,
                now_ms,
            ])?;
        self.touch(session_id);
        match change.state {
            // A session that is over works nowhere: also when nobody is there to say so.
            Some("closed") => self.release_claims_of(session_id, "session_closed"),
            Some("failed") => self.release_claims_of(session_id, "session_failed"),
            _ => Ok(()),
        }
    }

    /// Refuses when the session is closed or failed; returns its key. The check of every change that a client asks for.
    pub fn open_session_key(&mut self, session_id: &str) -> Result<i64> {
        let (session_key, state): (i64, String) = self
            .connection()
            .prepare_cached("SELECT session_key, state FROM session WHERE session_id = ?1")?
            .query_row([session_id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?
            .ok_or_else(|| Error::not_found("session", session_id))?;
        match state.as_str() {
            "closed" => {
                Err(Error::new(Code::SessionClosed, format!("session {session_id} is closed"))
                    .hint("create a new session"))
            }
            "failed" => Err(Error::new(
                Code::Conflict,
                format!("session {session_id} has failed: its agent can not go on with it"),
            )
            .hint("see failure_message; POST …/resume tries again")),
            _ => Ok(session_key),
        }
    }

    /// Removes the session and all that it has told. Only for an explicit purge of a closed one.
    pub fn purge_session(&mut self, session_id: &str) -> Result<()> {
        self.purge_scope(crate::model::ScopeKind::Session, session_id)?;
        self.connection().execute("DELETE FROM session WHERE session_id = ?1", [session_id])?;
        self.touch(session_id);
        Ok(())
    }
}
