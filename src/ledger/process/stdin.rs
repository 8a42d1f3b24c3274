//! The bytes that a process is still to be sent.
//!
//! Each lies at its offset in the stream of stdin, so sending it twice is harmless; it is here from the moment that a
//! client is told that it was taken until the keeper has it in its journal.

use super::{ProcessRow, Tx};
use crate::error::{Code, Error, Result};
use crate::limits;
use rusqlite::{Connection, params};

/// The bytes for stdin from this offset on, in order.
pub fn stdin_from(
    connection: &Connection,
    process_key: i64,
    offset: i64,
) -> Result<Vec<(i64, Vec<u8>)>> {
    let mut statement = connection.prepare_cached(
        "SELECT at_offset, bytes FROM process_stdin
         WHERE process_key = ?1 AND at_offset >= ?2 ORDER BY at_offset",
    )?;
    let rows = statement.query_map([process_key, offset], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

impl Tx<'_> {
    /// Takes bytes for stdin. Errors: it is not open, or too much waits already; nothing was taken.
    pub fn write_process_stdin(
        &mut self,
        process_id: &str,
        bytes: &[u8],
        is_last: bool,
    ) -> Result<()> {
        let row = self.process(process_id)?;
        if row.status.is_terminal() {
            let status = row.status.as_str();
            return Err(Error::new(
                Code::Conflict,
                format!("process {process_id} is over: it is {status}"),
            ));
        }
        if row.stdin != "open" {
            return Err(Error::new(
                Code::Conflict,
                format!("stdin of process {process_id} is {}", row.stdin),
            )
            .hint("start it with \"stdin_open\": true"));
        }
        let waiting: i64 = self
            .connection()
            .prepare_cached(
                "SELECT ifnull(sum(length(bytes)), 0) FROM process_stdin WHERE process_key = ?1",
            )?
            .query_row([row.process_key], |row| row.get(0))?;
        let fresh = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        if waiting.saturating_add(fresh) > limits::PROCESS_STDIN_BYTES {
            return Err(Error::new(
                Code::Capacity,
                format!("{waiting} bytes wait for process {process_id}, which does not read them"),
            )
            .hint("send less, or wait until it reads"));
        }
        if !bytes.is_empty() {
            self.add_process_stdin(&row, bytes)?;
        }
        if is_last {
            self.connection()
                .prepare_cached("UPDATE process SET stdin = 'closed' WHERE process_key = ?1")?
                .execute([row.process_key])?;
        }
        Ok(())
    }

    pub(super) fn add_process_stdin(&mut self, row: &ProcessRow, bytes: &[u8]) -> Result<()> {
        let fresh = i64::try_from(bytes.len()).unwrap_or(i64::MAX);
        self.connection()
            .prepare_cached(
                "INSERT INTO process_stdin (process_key, at_offset, bytes) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![row.process_key, row.stdin_bytes, bytes])?;
        self.connection()
            .prepare_cached(
                "UPDATE process SET stdin_bytes = stdin_bytes + ?2 WHERE process_key = ?1",
            )?
            .execute(params![row.process_key, fresh])?;
        Ok(())
    }

    /// Forgets bytes for stdin that lie wholly below the offset: the keeper has them.
    pub fn drop_process_stdin(&mut self, process_key: i64, below: i64) -> Result<()> {
        self.connection()
            .prepare_cached(
                "DELETE FROM process_stdin
                 WHERE process_key = ?1 AND at_offset + length(bytes) <= ?2",
            )?
            .execute([process_key, below])?;
        Ok(())
    }
}
