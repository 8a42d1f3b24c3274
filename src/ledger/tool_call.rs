//! Calls of tools that have begun and are not over.
//!
//! Each change here is in the transaction of the event that tells it, which is the caller's business (`src/mcp`).

use super::Tx;
use crate::error::Result;
use rusqlite::params;

/// A call that the last server did not bring to its end.
#[derive(Debug)]
pub struct OpenCall {
    pub session_id: String,
    pub turn_id: Option<String>,
    /// The payload of the event that told its beginning.
    pub told: String,
}

impl Tx<'_> {
    pub fn insert_tool_call(
        &mut self,
        call_id: &str,
        session_id: &str,
        turn_id: Option<&str>,
        told: &str,
    ) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO tool_call (call_id, session_key, turn_id, told, begun_at)
                 VALUES (?1, (SELECT session_key FROM session WHERE session_id = ?2), ?3, ?4, ?5)",
            )?
            .execute(params![call_id, session_id, turn_id, told, now_ms])?;
        Ok(())
    }

    /// False when there is none any more: its session was purged.
    pub fn delete_tool_call(&mut self, call_id: &str) -> Result<bool> {
        let deleted = self
            .connection()
            .prepare_cached("DELETE FROM tool_call WHERE call_id = ?1")?
            .execute([call_id])?;
        Ok(deleted > 0)
    }

    /// All that are open, in the order in which they began, out of the table.
    pub fn take_open_calls(&mut self) -> Result<Vec<OpenCall>> {
        let calls = self
            .connection()
            .prepare_cached(
                "SELECT session_id, turn_id, told FROM tool_call JOIN session USING (session_key)
                 ORDER BY call_key",
            )?
            .query_map([], |row| {
                Ok(OpenCall { session_id: row.get(0)?, turn_id: row.get(1)?, told: row.get(2)? })
            })?
            .collect::<rusqlite::Result<_>>()?;
        self.connection().prepare_cached("DELETE FROM tool_call")?.execute([])?;
        Ok(calls)
    }
}
