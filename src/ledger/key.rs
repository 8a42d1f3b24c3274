//! Keys of rows that are not given twice, also when the newest row was purged.
//!
//! SQLite gives a new row the highest key plus one, so a key that was purged at the end of a table comes again. Where
//! somebody may hold a key for longer than its row lives, the table has a floor, which a purge raises. Deliberately not
//! here: row ids of events, whose floor is the writer's own.

use crate::error::Result;
use rusqlite::{Connection, params};

/// A table whose keys have a floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keyed {
    Scope,
    Team,
    Message,
    Delivery,
    Operation,
    Diagnostic,
}

impl Keyed {
    pub(super) fn table(self) -> &'static str {
        match self {
            Keyed::Scope => "scope",
            Keyed::Team => "team",
            Keyed::Message => "team_message",
            Keyed::Delivery => "team_delivery",
            Keyed::Operation => "team_operation",
            Keyed::Diagnostic => "team_operation_diagnostic",
        }
    }

    pub(super) fn column(self) -> &'static str {
        match self {
            Keyed::Scope => "scope_key",
            Keyed::Team => "team_key",
            Keyed::Message => "message_key",
            Keyed::Delivery => "delivery_key",
            Keyed::Operation => "operation_key",
            Keyed::Diagnostic => "diagnostic_key",
        }
    }
}

/// The key of the next row.
pub(super) fn next(connection: &Connection, keyed: Keyed) -> Result<i64> {
    let (table, column) = (keyed.table(), keyed.column());
    let sql = format!(
        "SELECT 1 + max(floor, ifnull((SELECT max({column}) FROM {table}), 0))
         FROM key_floor WHERE table_name = '{table}'"
    );
    Ok(connection.prepare_cached(&sql)?.query_row([], |row| row.get(0))?)
}

/// Rows up to this key are being removed.
pub(super) fn raise_floor(connection: &Connection, keyed: Keyed, key: i64) -> Result<()> {
    connection
        .prepare_cached("UPDATE key_floor SET floor = max(floor, ?2) WHERE table_name = ?1")?
        .execute(params![keyed.table(), key])?;
    Ok(())
}
