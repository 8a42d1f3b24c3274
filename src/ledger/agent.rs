//! The agent process of a session, and the bytes that it is still to be sent.

use super::Tx;
use crate::error::Result;
use rusqlite::{Connection, OptionalExtension, params};

/// What a restarted server needs to go on with a running agent.
#[derive(Clone, Debug)]
pub struct AgentRow {
    pub child_id: String,
    pub stdout_offset: i64,
    pub stderr_offset: i64,
    pub stdin_offset: i64,
    pub snapshot: String,
}

/// Where the journals stand after a commit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Offsets {
    pub stdout: i64,
    pub stderr: i64,
    pub stdin: i64,
}

pub fn get(connection: &Connection, session_key: i64) -> Result<Option<AgentRow>> {
    Ok(connection
        .prepare_cached(
            "SELECT child_id, stdout_offset, stderr_offset, stdin_offset, snapshot
             FROM agent WHERE session_key = ?1",
        )?
        .query_row([session_key], |row| {
            Ok(AgentRow {
                child_id: row.get(0)?,
                stdout_offset: row.get(1)?,
                stderr_offset: row.get(2)?,
                stdin_offset: row.get(3)?,
                snapshot: row.get(4)?,
            })
        })
        .optional()?)
}

/// The agent of a session: running, or ended and not told to be yet.
#[derive(Debug)]
pub struct LiveAgent {
    pub session_id: String,
    pub child_id: String,
    pub provider: String,
}

/// All agents.
pub fn live_sessions(connection: &Connection) -> Result<Vec<LiveAgent>> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id, child_id, provider FROM agent JOIN session USING (session_key)",
    )?;
    let sessions = statement.query_map([], |row| {
        Ok(LiveAgent { session_id: row.get(0)?, child_id: row.get(1)?, provider: row.get(2)? })
    })?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

/// Sessions of a provider that have an agent.
pub fn live_sessions_of(connection: &Connection, provider: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id FROM agent JOIN session USING (session_key) WHERE provider = ?1",
    )?;
    let sessions = statement.query_map(params![provider], |row| row.get(0))?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

/// Live sessions of a provider without an active or queued turn and without an item that goes on, longest idle first,
/// that have been idle since before `idle_before`.
pub fn idle_sessions(
    connection: &Connection,
    provider: &str,
    idle_before: i64,
) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id FROM agent JOIN session USING (session_key)
         WHERE provider = ?1 AND idle_since <= ?2 AND NOT EXISTS (
             SELECT 1 FROM turn WHERE turn.session_key = session.session_key
                 AND turn.status IN ('queued', 'in_progress', 'waiting_for_approval'))
             AND NOT EXISTS (
             SELECT 1 FROM item WHERE item.session_key = session.session_key
                 AND item.status = 'in_progress')
         ORDER BY idle_since",
    )?;
    let sessions = statement.query_map(params![provider, idle_before], |row| row.get(0))?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

/// The decided bytes for stdin that start at or reach beyond `from`, in order: `(offset, bytes)`.
pub fn unsent_stdin(
    connection: &Connection,
    session_key: i64,
    from: i64,
) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut statement = connection.prepare_cached(
        "SELECT at_offset, bytes FROM agent_stdin
         WHERE session_key = ?1 AND at_offset + length(bytes) > ?2 ORDER BY at_offset",
    )?;
    let rows =
        statement.query_map(params![session_key, from], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Terminals of a session: `(terminal id, output bound)`.
pub fn terminals(connection: &Connection, session_key: i64) -> Result<Vec<(String, i64)>> {
    let mut statement = connection.prepare_cached(
        "SELECT terminal_id, output_bytes_max FROM terminal WHERE session_key = ?1",
    )?;
    let rows = statement.query_map([session_key], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Every child that the ledger knows to be wanted.
pub fn known_children(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare(
        "SELECT child_id FROM agent UNION ALL SELECT terminal_id FROM terminal
             UNION ALL SELECT process_id FROM process WHERE status = 'running'",
    )?;
    let rows = statement.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Tx<'_> {
    pub fn agent(&mut self, session_key: i64) -> Result<Option<AgentRow>> {
        get(self.connection(), session_key)
    }

    /// The session has an agent process from now on; one that it had before is forgotten with all that belonged to it.
    pub fn insert_agent(&mut self, session_key: i64, child_id: &str, snapshot: &str) -> Result<()> {
        let now_ms = self.now_ms();
        self.delete_agent(session_key)?;
        self.connection()
            .prepare_cached(
                "INSERT INTO agent (session_key, child_id, stdout_offset, stderr_offset,
                     stdin_offset, snapshot, idle_since, started_at)
                 VALUES (?1, ?2, 0, 0, 0, ?3, ?4, ?4)",
            )?
            .execute(params![session_key, child_id, snapshot, now_ms])?;
        Ok(())
    }

    /// Moves the offsets; `snapshot` only when it has changed.
    pub fn update_agent(
        &mut self,
        session_key: i64,
        offsets: Offsets,
        snapshot: Option<&str>,
    ) -> Result<()> {
        self.connection()
            .prepare_cached(
                "UPDATE agent SET stdout_offset = ?2, stderr_offset = ?3, stdin_offset = ?4,
                     snapshot = ifnull(?5, snapshot)
                 WHERE session_key = ?1",
            )?
            .execute(params![
                session_key,
                offsets.stdout,
                offsets.stderr,
                offsets.stdin,
                snapshot
            ])?;
        Ok(())
    }

    pub fn set_agent_idle(&mut self, session_key: i64) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached("UPDATE agent SET idle_since = ?2 WHERE session_key = ?1")?
            .execute(params![session_key, now_ms])?;
        Ok(())
    }

    pub fn insert_stdin(&mut self, session_key: i64, at: i64, bytes: &[u8]) -> Result<()> {
        self.connection()
            .prepare_cached(
                "INSERT INTO agent_stdin (session_key, at_offset, bytes) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![session_key, at, bytes])?;
        Ok(())
    }

    /// Forgets what the keeper's journal has: all that ends at or before `accepted`.
    pub fn trim_stdin(&mut self, session_key: i64, accepted: i64) -> Result<()> {
        self.connection()
            .prepare_cached(
                "DELETE FROM agent_stdin
                 WHERE session_key = ?1 AND at_offset + length(bytes) <= ?2",
            )?
            .execute(params![session_key, accepted])?;
        Ok(())
    }

    pub fn delete_agent(&mut self, session_key: i64) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM agent WHERE session_key = ?1")?
            .execute([session_key])?;
        Ok(())
    }

    pub fn insert_terminal(
        &mut self,
        session_key: i64,
        terminal_id: &str,
        output_bytes_max: i64,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO terminal (terminal_id, session_key, output_bytes_max, created_at)
                 VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![terminal_id, session_key, output_bytes_max, now_ms])?;
        Ok(())
    }

    pub fn delete_terminal(&mut self, terminal_id: &str) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM terminal WHERE terminal_id = ?1")?
            .execute([terminal_id])?;
        Ok(())
    }
}
