//! The schema's versions and the settings of a connection.
//!
//! `user_version` counts the migrations that a database has had. Each runs in one immediate transaction; a database
//! of a newer version is refused, so that an old program never writes what it does not understand.

use super::Synchronous;
use crate::error::{Error, Result};
use rusqlite::Connection;
use rusqlite::config::DbConfig;

/// In order; append only. The number of a migration is its place, counted from 1.
const MIGRATIONS: &[&str] = &[
    include_str!("../../sql/0001_spine.sql"),
    include_str!("../../sql/0002_process.sql"),
    include_str!("../../sql/0003_worktree.sql"),
    include_str!("../../sql/0004_team.sql"),
    include_str!("../../sql/0005_mcp.sql"),
    include_str!("../../sql/0006_retention.sql"),
    include_str!("../../sql/0007_team_newest.sql"),
    include_str!("../../sql/0008_spawn.sql"),
    include_str!("../../sql/0009_tool_call.sql"),
    include_str!("../../sql/0010_team_purge.sql"),
    include_str!("../../sql/0011_process_kill.sql"),
];

/// The version of a database that this program writes.
pub const VERSION: i64 = MIGRATIONS.len() as i64;

/// Settings of the writing connection; docs/ARCHITECTURE.md gives the reasons and the measurements.
pub(super) fn prepare_writer(connection: &Connection, synchronous: Synchronous) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(128);
    keep_plans(connection)?;
    let synchronous = match synchronous {
        Synchronous::Normal => "NORMAL",
        Synchronous::Full => "FULL",
    };
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL;
         PRAGMA synchronous = {synchronous};
         PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -2048;
         PRAGMA mmap_size = 0;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA journal_size_limit = 33554432;"
    ))?;
    Ok(())
}

/// Settings of the connection that moves pages from the log into the database, and does nothing else: for both values
/// of [`Synchronous`] a checkpoint syncs the log before it and the database behind it.
pub(super) fn prepare_mover(connection: &Connection) -> Result<()> {
    connection.execute_batch("PRAGMA synchronous = FULL")?;
    Ok(())
}

/// So many bytes in pages of the database.
pub(super) fn pages(connection: &Connection, bytes: u64) -> Result<i64> {
    let page_bytes: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
    Ok(i64::try_from(bytes).unwrap_or(i64::MAX) / page_bytes.max(1))
}

pub(super) fn prepare_reader(connection: &Connection) -> Result<()> {
    connection.set_prepared_statement_cache_capacity(32);
    keep_plans(connection)?;
    connection.execute_batch(
        "PRAGMA query_only = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA cache_size = -256;
         PRAGMA mmap_size = 0;",
    )?;
    Ok(())
}

/// Plans depend on the statement alone, never on the values bound to it.
///
/// Without this SQLite looks at the values of a join's statement while it plans it, and plans it
/// again when they change. The cache clears the bindings of what it takes back, which counts as a
/// change: each use of such a statement compiled it anew, a fifth of the CPU time of a turn.
fn keep_plans(connection: &Connection) -> Result<()> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    Ok(())
}

/// Brings the database to the newest version. Errors: it is newer than this program.
pub(super) fn migrate(connection: &Connection) -> Result<()> {
    let version: usize = connection
        .query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))
        .map(|version| usize::try_from(version).unwrap_or(usize::MAX))?;
    if version > MIGRATIONS.len() {
        return Err(Error::internal(format!(
            "the database has schema version {version}, this program knows versions up to {}",
            MIGRATIONS.len()
        ))
        .hint("start the newer gg-runtime-server that wrote it"));
    }
    for (done, migration) in MIGRATIONS.iter().enumerate().skip(version) {
        let number = done + 1;
        connection.execute_batch(&format!(
            "BEGIN IMMEDIATE;\n{migration}\nPRAGMA user_version = {number};\nCOMMIT;"
        ))?;
    }
    if version < MIGRATIONS.len() {
        // On the disk before anybody is told anything, with `synchronous = "normal"` too: a loss of power may then
        // take the last commits, not the schema under them.
        connection.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::StatementStatus;

    #[test]
    fn a_newer_database_is_refused() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("PRAGMA user_version = 999").unwrap();
        let error = migrate(&connection).unwrap_err();
        assert!(error.message.contains("999"), "{error}");
    }

    #[test]
    fn migrating_twice_changes_nothing() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        let schema = |connection: &Connection| -> String {
            connection
                .query_row("SELECT group_concat(sql) FROM sqlite_schema", [], |row| row.get(0))
                .unwrap()
        };
        let before = schema(&connection);
        migrate(&connection).unwrap();
        assert_eq!(schema(&connection), before);
    }

    #[test]
    fn a_cached_statement_is_compiled_once() {
        let connection = Connection::open_in_memory().unwrap();
        migrate(&connection).unwrap();
        prepare_reader(&connection).unwrap();
        for sql in [
            "SELECT status FROM session_record WHERE session_id = ?1",
            "SELECT turn_id FROM turn JOIN session USING (session_key)
             WHERE turn_id = ?1 AND session_id = ?1",
        ] {
            for session_id in ["a", "b", "a"] {
                let mut statement = connection.prepare_cached(sql).unwrap();
                assert!(!statement.exists([session_id]).unwrap());
            }
            let statement = connection.prepare_cached(sql).unwrap();
            assert_eq!(statement.get_status(StatementStatus::RePrepare), 0, "{sql}");
        }
    }
}
