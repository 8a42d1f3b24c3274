//! The end of a process that never was: its record, and the key under which it was asked for.

use super::ProcessEnd;
use crate::error::Result;
use crate::ledger::Tx;
use crate::model::ProcessStatus;

impl Tx<'_> {
    /// Ends the record of a process that has no child, for this reason. `is_refused`: whoever asked for it is told so
    /// by an error, and the same request under the same key is not answered with what has failed.
    pub fn fail_process(&mut self, process_id: &str, error: &str, is_refused: bool) -> Result<()> {
        let end = ProcessEnd {
            status: ProcessStatus::Failed,
            exit_code: None,
            signal: None,
            error: Some(error.to_owned()),
            killed_by: None,
            dropped_bytes: [0, 0],
            ended_at: self.now_ms(),
        };
        self.end_process(process_id, &end)?;
        if is_refused { self.free_key(process_id) } else { Ok(()) }
    }
}
