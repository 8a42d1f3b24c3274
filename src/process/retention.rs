//! What is kept of processes that have ended, and for how long.
//!
//! Owns: the removal of log files, events and records that are older than `processes.log_retention_hours`. Called by
//! the housekeeper; the files of a process go first, its record last, so that a kill in between leaves a record whose
//! removal goes on. A record whose files can not be removed stays, and is tried again with the next round; no round is
//! made for it. Each step is small, so that the writer serves others in between.

use super::Processes;
use crate::error::{Error, Result};
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
        let before = id::now_ms().saturating_sub(kept_ms);
        match self.purge_before(before) {
            Ok(0) => {}
            Ok(stuck) => {
                log::warn!("{stuck} old processes are kept with what is left of their logs")
            }
            Err(error) => {
                log::warn!("old processes are still there: {error}");
                return Some(kept);
            }
        }
        let next = self.shared.ledger.read(|db| rows::first_end(db, before)).ok().flatten();
        // What ends from now on is kept for the whole time.
        let due_ms = next.map_or(kept_ms, |ended_at| ended_at + kept_ms - id::now_ms());
        let due = Duration::from_millis(u64::try_from(due_ms).unwrap_or(0));
        // In this order, since `kept` may be less than `AT_LEAST`.
        Some(due.min(kept).max(AT_LEAST))
    }

    /// Removes those that ended before this time; how many are still there, since their logs can not be removed.
    fn purge_before(&self, time: i64) -> Result<u64> {
        let ledger = &self.shared.ledger;
        let (mut looked_to, mut stuck) = ((i64::MIN, 0), 0);
        while let Some((process_id, at)) =
            ledger.read(|db| rows::ended_before(db, time, looked_to))?
        {
            if self.shared.is_stopping.load(std::sync::atomic::Ordering::SeqCst) {
                break;
            }
            looked_to = at;
            if let Err(error) = self.remove_logs(&process_id) {
                if stuck == 0 {
                    log::warn!("process {process_id}: {error}");
                }
                stuck += 1;
                continue;
            }
            loop {
                let id = process_id.clone();
                if ledger.write(move |tx| tx.purge_process_step(&id))? {
                    break;
                }
            }
        }
        Ok(stuck)
    }

    fn remove_logs(&self, process_id: &str) -> Result<()> {
        for stream in Stream::ALL {
            let path = self.log_path(process_id, stream);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    let told = format!("the log {} can not be removed", path.display());
                    return Err(Error::internal(told).source(error));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Several that end together are removed together.
const AT_LEAST: Duration = Duration::from_millis(100);
