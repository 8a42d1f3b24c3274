//! What is kept of processes that have ended, and for how long.
//!
//! Owns: the removal of log files, events and records that are older than `processes.log_retention_hours`. Called by
//! the housekeeper; the files of a process go first, its record last, so that a kill in between leaves a record whose
//! removal goes on. Each step is small, so that the writer serves others in between.

use super::Processes;
use crate::error::Result;
use crate::keeper::Stream;
use crate::ledger::process as rows;
use crate::model::id;
use std::io;
use std::time::Duration;

impl Processes {
    /// Removes what is old enough; says when there will be something to remove again. None = never.
    pub fn purge_old(&self) -> Option<Duration> {
        let kept = self.shared.config.processes.log_retention?;
        let kept_ms = i64::try_from(kept.as_millis()).unwrap_or(i64::MAX);
        if let Err(error) = self.purge_before(id::now_ms().saturating_sub(kept_ms)) {
            log::warn!("old processes are still there: {error}");
            return Some(kept);
        }
        let oldest = self.shared.ledger.read(rows::oldest_end).ok().flatten();
        // What ends from now on is kept for the whole time.
        let due_ms = oldest.map_or(kept_ms, |ended_at| ended_at + kept_ms - id::now_ms());
        Some(Duration::from_millis(u64::try_from(due_ms).unwrap_or(0)).clamp(AT_LEAST, kept))
    }

    fn purge_before(&self, time: i64) -> Result<()> {
        let ledger = &self.shared.ledger;
        while let Some(process_id) = ledger.read(|db| rows::ended_before(db, time))? {
            if self.shared.is_stopping.load(std::sync::atomic::Ordering::SeqCst) {
                break;
            }
            for stream in Stream::ALL {
                let path = self.log_path(&process_id, stream);
                match std::fs::remove_file(&path) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        log::warn!("{} can not be removed: {error}", path.display());
                    }
                    _ => {}
                }
            }
            loop {
                let id = process_id.clone();
                if ledger.write(move |tx| tx.purge_process_step(&id))? {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Several that end together are removed together.
const AT_LEAST: Duration = Duration::from_millis(100);
