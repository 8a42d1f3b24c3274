//! What the end of a child means for the record of its process. Runs on the process's thread; commits nothing.

use super::{Worker, whole};
use crate::keeper::Exit;
use crate::ledger::process::ProcessEnd;
use crate::model::{KilledBy, ProcessStatus, id};
use crate::process::TERM;
use crate::process::output::Output;

impl Worker<'_> {
    /// What the exit means for the record.
    pub(super) fn end_of(&self, exit: &Exit) -> ProcessEnd {
        let killed_by = self.killed_by(exit);
        let status = match killed_by {
            Some(KilledBy::Timeout) => ProcessStatus::TimedOut,
            Some(_) => ProcessStatus::Killed,
            None if exit.code == Some(0) && !exit.lost => ProcessStatus::Completed,
            None => ProcessStatus::Failed,
        };
        let dropped = [exit.stdout_dropped, exit.stderr_dropped];
        let dropped_bytes =
            [0, 1].map(|index| whole(dropped[index] + self.outputs[index].given_up()));
        let late = "its keeper did not answer, and was ended with it";
        let errors = self.ending.is_swept.then(|| late.to_owned()).into_iter();
        let errors: Vec<String> = errors
            .chain(exit.error.clone())
            .chain(self.outputs.iter().filter_map(Output::error))
            .collect();
        ProcessEnd {
            status,
            exit_code: exit.code,
            signal: exit.signal,
            error: (!errors.is_empty()).then(|| errors.join("; ")),
            killed_by,
            dropped_bytes,
            ended_at: exit.ended_at_ms,
        }
    }

    /// Who ended it; None when it ended by itself, also if somebody wanted it ended just then.
    fn killed_by(&self, exit: &Exit) -> Option<KilledBy> {
        match exit.stopped_by.as_str() {
            "stop" | "kill" => Some(self.row.killed_by.unwrap_or(KilledBy::Request)),
            "lost" if self.ending.is_swept => Some(self.row.killed_by.unwrap_or(KilledBy::Request)),
            "lease" => Some(KilledBy::Lease),
            "keeper_signal" => Some(KilledBy::KeeperSignal),
            // A signal of the client's choice reaches the child without the keeper's knowing what it is for.
            "child" => self
                .row
                .killed_by
                .filter(|_| self.ending.sent.is_some_and(|signal| signal != i64::from(TERM))),
            _ => None,
        }
    }
}

/// An end that no keeper told.
pub(super) fn ended(stopped_by: &str, error: Option<String>) -> Exit {
    Exit {
        code: None,
        signal: None,
        stopped_by: stopped_by.to_owned(),
        error,
        ended_at_ms: id::now_ms(),
        stdout_dropped: 0,
        stderr_dropped: 0,
        lost: stopped_by == "lost",
    }
}
