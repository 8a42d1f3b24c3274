//! The tokens of agents, by their hash.
//!
//! A token goes with the row of its agent process (see `sql/0005_mcp.sql`), so nothing here revokes one.

use super::Tx;
use crate::error::Result;
use crate::secret::Hash;
use rusqlite::{Connection, OptionalExtension, params};

/// The session whose agent has this token. None: nobody has it any more, or the session is over.
pub fn session_of(connection: &Connection, token_hash: &Hash) -> Result<Option<String>> {
    Ok(connection
        .prepare_cached(
            "SELECT session_id FROM agent_token JOIN session USING (session_key)
             WHERE token_hash = ?1 AND state IN ('starting', 'open')",
        )?
        .query_row(params![token_hash], |row| row.get(0))
        .optional()?)
}

impl Tx<'_> {
    /// Lets the agent process of the session in. It has a row already.
    pub fn insert_token(&mut self, session_key: i64, token_hash: &Hash) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO agent_token (session_key, token_hash, created_at) VALUES (?1, ?2, ?3)",
            )?
            .execute(params![session_key, token_hash, now_ms])?;
        Ok(())
    }
}
