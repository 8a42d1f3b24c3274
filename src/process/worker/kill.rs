//! The end of a process that somebody wants: the first signal, KILL after the grace, and a keeper that does not answer.
//!
//! Runs on the process's thread. The wish is in the record before it is acted on. A keeper that is told to end a tree
//! does that by itself; one that does not is killed with the tree, and the reader of its socket tells that end as any
//! other.

use super::{RETRY, Worker};
use crate::keeper::{self, STOP_SLACK, leftover};
use crate::ledger::process::Kill;
use crate::model::{KilledBy, id};
use crate::process::{KILL, TERM};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long a keeper may take that has nothing but itself to end: it waits a minute for a full disk to take the last
/// output.
const ALONE_SLACK: Duration = Duration::from_secs(75);

/// How far the end has come.
#[derive(Default)]
pub(super) struct Ending {
    /// The signal that was sent last.
    pub(super) sent: Option<i64>,
    /// When KILL follows one that the keeper has no word for.
    force_at: Option<Instant>,
    /// When the keeper counts as one that does not answer.
    late_at: Option<Instant>,
    /// It was found alone, and was given time for that.
    was_alone: bool,
    /// It did not answer, and was killed with what it held.
    pub(super) is_swept: bool,
}

impl Ending {
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.force_at, self.late_at].into_iter().flatten().min()
    }

    /// The keeper has told the end.
    pub(super) fn is_told(&mut self) {
        (self.force_at, self.late_at) = (None, None);
    }
}

impl Worker<'_> {
    pub(super) fn act_on_kill(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        let wished = self.row.kill_signal.filter(|_| self.row.killed_by.is_some());
        let is_ending = self.shared.is_ending_all.load(Ordering::SeqCst);
        let Some(signal) = wished.or(is_ending.then_some(i64::from(TERM))) else { return };
        if self.ending.sent == Some(signal) || self.ending.sent == Some(i64::from(KILL)) {
            return;
        }
        self.ending.sent = Some(signal);
        let grace_ms = u64::try_from(self.row.kill_grace_ms).unwrap_or(0);
        let now = Instant::now();
        let kill_at = match i32::try_from(signal) {
            Ok(KILL) => {
                keeper.kill();
                now
            }
            // Told again it changes nothing: the keeper counts from the first time.
            Ok(TERM) | Err(_) => {
                keeper.stop(grace_ms);
                now + Duration::from_millis(grace_ms)
            }
            Ok(other) => {
                let kill_at = now + Duration::from_millis(self.left_of_grace_ms(grace_ms));
                if self.row.kill_sent_at.is_none() {
                    self.write_sent();
                    keeper.signal(other);
                }
                self.ending.force_at = Some(kill_at);
                kill_at
            }
        };
        self.ending.late_at = Some(kill_at + STOP_SLACK);
    }

    /// The grace counts from the first sending, whichever server that was.
    fn left_of_grace_ms(&self, grace_ms: u64) -> u64 {
        let sent_ms = self.row.kill_sent_at.map_or(0, |sent_at| id::now_ms() - sent_at);
        // Never more than the whole: the clock may have been set back.
        grace_ms.saturating_sub(u64::try_from(sent_ms).unwrap_or(0))
    }

    /// Written down before it is sent: a server that comes after a kill of this one does not send it twice. One that
    /// can not be written down is sent all the same.
    fn write_sent(&self) {
        let process_id = self.row.process_id.clone();
        let written = self.shared.ledger.write(move |tx| tx.set_process_kill_sent(&process_id));
        if let Err(error) = written {
            log::warn!("process {}: that it is signalled: {error}", self.row.process_id);
        }
    }

    /// What time alone brings about.
    pub(super) fn go_on_ending(&mut self, now: Instant) {
        if self.ending.force_at.is_some_and(|due| due <= now) {
            self.ending.force_at = None;
            self.ending.sent = Some(i64::from(KILL));
            if let Some(keeper) = &self.keeper {
                keeper.kill();
            }
        }
        if self.ending.late_at.is_some_and(|due| due <= now) {
            self.keeper_is_late(now);
        }
    }

    fn keeper_is_late(&mut self, now: Instant) {
        let process_id = &self.row.process_id;
        let is_alone = leftover::processes(process_id).is_ok_and(|processes| processes <= 1);
        if is_alone && !self.ending.was_alone {
            self.ending.was_alone = true;
            self.ending.late_at = Some(now + ALONE_SLACK);
            return;
        }
        log::error!("process {process_id}: its keeper does not answer");
        match keeper::sweep(process_id) {
            Ok(killed) => self.ending.is_swept |= killed > 0,
            Err(error) => log::error!("process {process_id}: {error}"),
        }
        self.ending.late_at = Some(Instant::now() + STOP_SLACK);
    }

    pub(super) fn time_is_up(&mut self) {
        let process_id = self.row.process_id.clone();
        let timeout_ms = self.row.timeout_ms.unwrap_or(0);
        let kill = Kill {
            killed_by: KilledBy::Timeout,
            reason: format!("it ran longer than {timeout_ms} ms"),
            signal: TERM,
            grace_ms: None,
        };
        match self.shared.ledger.write(move |tx| tx.kill_process(&process_id, &kill)) {
            Ok(_) => self.look(),
            Err(error) => {
                log::warn!("process {}: its time is up: {error}", self.row.process_id);
                self.time_limit = Some(Instant::now() + RETRY);
            }
        }
    }
}
