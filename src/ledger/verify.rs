//! What can be checked of a database without knowing what it means: its pages, its references, its numbers.
//!
//! Every function only reads, on the caller's thread, and returns what is wrong as sentences; an empty list is good.
//! Each finds at most [`TOLD_MAX`] faults: a database that has more needs a backup, not a longer list.

use crate::error::Result;
use rusqlite::{Connection, Row};

/// Faults that one check tells.
const TOLD_MAX: usize = 20;

/// The agent process that a session has, with what is known of its journals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownAgent {
    pub session_id: String,
    pub child_id: String,
    pub stdout_offset: i64,
    pub stderr_offset: i64,
    pub stdin_offset: i64,
    /// Where the bytes begin that the keeper may not have yet; None when it has all.
    pub unsent_from: Option<i64>,
    /// The bytes in the table, which must reach from there to `stdin_offset`.
    pub unsent_bytes: i64,
}

/// How many rows each table has, in the order of names.
pub fn row_counts(connection: &Connection) -> Result<Vec<(String, i64)>> {
    let mut tables = connection.prepare(
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT GLOB 'sqlite_*'
         ORDER BY name",
    )?;
    let names = tables.query_map([], |row| row.get::<_, String>(0))?;
    let mut counts = Vec::new();
    for name in names {
        let name = name?;
        let sql = format!("SELECT count(*) FROM \"{name}\"");
        let count = connection.query_row(&sql, [], |row| row.get(0))?;
        counts.push((name, count));
    }
    Ok(counts)
}

/// The schema version that the database has.
pub fn version(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("PRAGMA user_version", [], |row| row.get(0))?)
}

/// Pages, indexes, and constraints of columns. `is_quick` leaves out whether indexes agree with their tables.
pub fn integrity(connection: &Connection, is_quick: bool) -> Result<Vec<String>> {
    let check = if is_quick { "quick_check" } else { "integrity_check" };
    let sql = format!("PRAGMA {check}({TOLD_MAX})");
    let told = texts(connection, &sql, |row| row.get(0))?;
    Ok(told.into_iter().filter(|line| line != "ok").collect())
}

/// Rows that refer to a row that is not there.
pub fn references(connection: &Connection) -> Result<Vec<String>> {
    texts(connection, "PRAGMA foreign_key_check", |row| {
        let (table, key): (String, Option<i64>) = (row.get(0)?, row.get(1)?);
        let parent: String = row.get(2)?;
        let key = key.map_or(String::new(), |key| format!(" {key}"));
        Ok(format!("{table}{key} refers to a {parent} that is not there"))
    })
}

/// Numbers that are missing in a scope without having been dropped, or given out of order.
pub fn sequence(connection: &Connection) -> Result<Vec<String>> {
    let mut wrong = texts(
        connection,
        "SELECT kind, scope_id, rows, newest, dropped_count, dropped_to_seq, rows_above
         FROM (
             SELECT scope_key, count(*) AS rows, max(seq) AS newest, (
                 SELECT count(*) FROM event AS above
                 WHERE above.scope_key = event.scope_key AND above.seq > scope.dropped_to_seq
             ) AS rows_above
             FROM event JOIN scope USING (scope_key) GROUP BY scope_key
         ) JOIN scope USING (scope_key)
         WHERE rows + dropped_count <> newest OR rows_above <> max(newest - dropped_to_seq, 0)",
        |row| {
            let (kind, scope_id): (String, String) = (row.get(0)?, row.get(1)?);
            let [rows, newest, dropped, dropped_to, above] = numbers(row, 2)?;
            Ok(format!(
                "{kind} {scope_id} ends at seq {newest} and has {rows} events, {dropped} dropped \
                 up to seq {dropped_to}, {above} above"
            ))
        },
    )?;
    let order = texts(
        connection,
        "SELECT scope.kind, scope_id, event.seq
         FROM event JOIN scope USING (scope_key)
         JOIN event AS next ON next.scope_key = event.scope_key AND next.seq = event.seq + 1
         WHERE next.row_id < event.row_id",
        |row| {
            let (kind, scope_id): (String, String) = (row.get(0)?, row.get(1)?);
            let seq: i64 = row.get(2)?;
            Ok(format!("{kind} {scope_id}: the event behind seq {seq} has a lower row id"))
        },
    )?;
    wrong.extend(order);
    Ok(wrong)
}

/// Columns that must hold JSON and do not.
pub fn json(connection: &Connection) -> Result<Vec<String>> {
    let mut wrong = Vec::new();
    for (table, key, column) in [
        ("event", "row_id", "payload"),
        ("session", "session_id", "metadata"),
        ("turn", "turn_id", "input"),
        ("item", "item_id", "body"),
        ("approval", "approval_id", "subject"),
        ("agent", "child_id", "snapshot"),
    ] {
        let sql = format!("SELECT {key} FROM {table} WHERE NOT json_valid({column})");
        let told = texts(connection, &sql, |row| {
            let key: rusqlite::types::Value = row.get(0)?;
            let key = match key {
                rusqlite::types::Value::Integer(number) => number.to_string(),
                rusqlite::types::Value::Text(text) => text,
                other => format!("{other:?}"),
            };
            Ok(format!("{column} of {table} {key} is not JSON"))
        })?;
        wrong.extend(told);
    }
    Ok(wrong)
}

/// Agents that sessions have, for a comparison with what their keepers have written.
pub fn known_agents(connection: &Connection) -> Result<Vec<KnownAgent>> {
    let mut statement = connection.prepare(
        "SELECT session_id, child_id, stdout_offset, stderr_offset, stdin_offset,
             (SELECT min(at_offset) FROM agent_stdin
              WHERE agent_stdin.session_key = agent.session_key),
             (SELECT ifnull(sum(length(bytes)), 0) FROM agent_stdin
              WHERE agent_stdin.session_key = agent.session_key)
         FROM agent JOIN session USING (session_key) ORDER BY session_id",
    )?;
    let agents = statement.query_map([], |row| {
        Ok(KnownAgent {
            session_id: row.get(0)?,
            child_id: row.get(1)?,
            stdout_offset: row.get(2)?,
            stderr_offset: row.get(3)?,
            stdin_offset: row.get(4)?,
            unsent_from: row.get(5)?,
            unsent_bytes: row.get(6)?,
        })
    })?;
    Ok(agents.collect::<rusqlite::Result<_>>()?)
}

/// Processes that run, and how far stdout and stderr of each are in its log files.
pub fn running_processes(connection: &Connection) -> Result<Vec<(String, [i64; 2])>> {
    let mut statement = connection.prepare(
        "SELECT process_id, stdout_bytes, stderr_bytes FROM process WHERE status = 'running'
         ORDER BY process_key",
    )?;
    let processes = statement.query_map([], |row| Ok((row.get(0)?, [row.get(1)?, row.get(2)?])))?;
    Ok(processes.collect::<rusqlite::Result<_>>()?)
}

/// The row of the newest event; 0 for an empty log.
pub fn newest_row_id(connection: &Connection) -> Result<i64> {
    super::event::newest_row_id(connection)
}

/// When the newest event was written; None for an empty log.
pub fn newest_event_at(connection: &Connection) -> Result<Option<i64>> {
    let sql = "SELECT (SELECT created_at FROM event ORDER BY row_id DESC LIMIT 1)";
    Ok(connection.query_row(sql, [], |row| row.get(0))?)
}

fn numbers<const N: usize>(row: &Row<'_>, from: usize) -> rusqlite::Result<[i64; N]> {
    let mut numbers = [0; N];
    for (place, number) in numbers.iter_mut().enumerate() {
        *number = row.get(from + place)?;
    }
    Ok(numbers)
}

/// The first rows of a query as sentences.
fn texts(
    connection: &Connection,
    sql: &str,
    tell: impl FnMut(&Row<'_>) -> rusqlite::Result<String>,
) -> Result<Vec<String>> {
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], tell)?;
    Ok(rows.take(TOLD_MAX).collect::<rusqlite::Result<_>>()?)
}
