//! The removal of what is left of a process.
//!
//! In steps, each a transaction of its own, so that a process with a long log of events does not keep the writer.

use super::Tx;
use crate::error::Result;
use crate::ledger::event;
use crate::ledger::retention::Step;
use crate::limits;
use crate::model::ScopeKind;
use rusqlite::OptionalExtension;

impl Tx<'_> {
    /// One step of the removal of an ended process: some of its events, oldest first; the record with the last of them.
    /// True when nothing of it is left.
    pub fn purge_process_step(&mut self, process_id: &str) -> Result<bool> {
        let scope = ScopeKind::Process;
        let key = event::scope_key(self.connection(), scope, process_id).optional()?;
        if let Some(scope_key) = key
            && self.drop_oldest(scope_key, &mut Step::new(limits::PURGE_STEP_EVENTS))?
        {
            return Ok(false);
        }
        self.purge_scope(scope, process_id)?;
        self.connection()
            .prepare_cached("DELETE FROM process WHERE process_id = ?1 AND ended_at IS NOT NULL")?
            .execute([process_id])?;
        Ok(true)
    }
}
