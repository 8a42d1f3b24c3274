//! Floor 4: the housekeeper, one thread for what is due by age alone.
//!
//! Owns: when the ledger forgets. It forgets idempotency keys, deltas of finished items, closed sessions and deleted
//! teams as far as the configuration says so, ended processes, and the folders of children that nobody knows; and it
//! looks for processes that run and have no thread. It sleeps until the first of these is due, at most an hour. What is
//! due is done in small steps, each a change that takes the writer milliseconds, with pauses four times as long as the
//! steps: whoever writes meanwhile waits behind one step at most. It deliberately decides nothing about what is live:
//! threads of sessions put their agents to sleep themselves.

use crate::error::Result;
use crate::keeper;
use crate::ledger::retention::{self, DueDeltas};
use crate::ledger::team::purge;
use crate::ledger::{Ledger, Tx, agent};
use crate::limits;
use crate::model::id;
use crate::process::Processes;
use crate::provider::stage;
use crate::thread;
use crate::tries::Pauses;
use crate::watchdog;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

/// What is forgotten, and after which time.
pub struct Housekeeper {
    pub ledger: Ledger,
    /// Ended ones have a time of their own. None = there are none.
    pub processes: Option<Processes>,
    /// None = deltas stay.
    pub delta_retention: Option<Duration>,
    /// None = closed sessions stay.
    pub session_retention: Option<Duration>,
    /// None = deleted teams stay.
    pub team_retention: Option<Duration>,
    /// Where children have their folders.
    pub keepers_dir: PathBuf,
    /// Where something is staged for sessions.
    pub providers_dir: PathBuf,
}

/// The longest time between two rounds: what becomes due without being announced waits so long at most.
const ROUND: Duration = Duration::from_secs(3600);
/// The shortest, so that what can not be done is not tried without end.
const ROUND_MIN: Duration = Duration::from_secs(1);
/// With nothing left to drop, the log is looked at again after the retention, and not sooner than this.
const QUIET_MIN: Duration = Duration::from_secs(60);
/// The folder of a child that nobody knows is left alone for so long: its server may just be taking it up.
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
/// A pause between two steps is so many times as long as the step before it.
const PAUSE_SHARE: u32 = 4;

/// Removes one thing in steps; false when the server stops before that is done.
type Purge<'a> = fn(&Round<'a>, &str) -> Result<bool>;

/// The server stops.
struct Stopping;

impl Housekeeper {
    /// Keeps house until the channel closes.
    pub fn keep(&self, end: &Receiver<()>) {
        watchdog::watch();
        let rest = |time| {
            let waited = watchdog::rest(|| end.recv_timeout(time));
            waited == Err(RecvTimeoutError::Timeout)
        };
        let rounds = || {
            let (failed, pauses) = (HashMap::new(), Pauses::default());
            let mut round = Round { house: self, end, failed, pauses };
            while let Ok(next) = round.run() {
                if !rest(next.clamp(ROUND_MIN, ROUND)) {
                    return;
                }
            }
        };
        let mut pauses = Pauses::default();
        thread::run_anew(rounds, || rest(pauses.take()));
    }
}

/// One thing after the other, until nothing is due.
struct Round<'a> {
    house: &'a Housekeeper,
    end: &'a Receiver<()>,
    /// Sessions and teams that could not be purged, and when; each is tried again after a [`ROUND`].
    failed: HashMap<String, Instant>,
    /// Until the next round, where one of the tasks has failed.
    pauses: Pauses,
}

impl<'a> Round<'a> {
    /// Does what is due, and says when the next thing is.
    fn run(&mut self) -> std::result::Result<Duration, Stopping> {
        self.forget_failed(Instant::now());
        let mut next = ROUND;
        type Task<'a> = fn(&mut Round<'a>) -> Result<Option<Duration>>;
        let tasks: [(&str, Task<'a>); 6] = [
            ("idempotency keys", Round::keys),
            ("processes", Round::processes),
            ("deltas", Round::deltas),
            ("closed sessions", Round::sessions),
            ("deleted teams", Round::teams),
            ("folders of keepers", Round::leftovers),
        ];
        let mut is_failed = false;
        for (what, task) in tasks {
            match thread::survive(|| task(self)) {
                Ok(due) => next = next.min(due.unwrap_or(ROUND)),
                Err(error) => {
                    log::warn!("old {what} are still there: {error}");
                    is_failed = true;
                }
            }
            if self.is_ended() {
                return Err(Stopping);
            }
        }
        if is_failed {
            return Ok(next.min(self.pauses.take()));
        }
        self.pauses = Pauses::default();
        Ok(next)
    }

    fn keys(&mut self) -> Result<Option<Duration>> {
        let kept = Duration::from_secs(limits::IDEMPOTENCY_HOURS.unsigned_abs() * 3600);
        let oldest = self.house.ledger.read(retention::oldest_key_at)?;
        let Some(oldest) = oldest.filter(|at| left_of(*at, kept).is_zero()) else {
            return Ok(oldest.map(|at| left_of(at, kept)));
        };
        log::debug!("idempotency keys since {oldest} are forgotten");
        self.house.ledger.write(|tx| tx.expire_keys())?;
        Ok(None)
    }

    fn processes(&mut self) -> Result<Option<Duration>> {
        let Some(processes) = &self.house.processes else { return Ok(None) };
        processes.start_left()?;
        Ok(processes.purge_old())
    }

    fn deltas(&mut self) -> Result<Option<Duration>> {
        let Some(kept) = self.house.delta_retention else { return Ok(None) };
        let ledger = &self.house.ledger;
        let mut settled_to = ledger.read(retention::settled_to)?;
        let (mut after, mut remembered) = (settled_to, settled_to);
        let mut dropped = 0;
        loop {
            let begun = Instant::now();
            let before = id::now_ms() - millis(kept);
            let due = ledger.read(|db| retention::due_deltas(db, after, settled_to, before))?;
            let is_progress = due.settled_to - remembered >= SETTLE_ROWS;
            let is_over = due.is_end || due.too_young_since.is_some();
            (after, settled_to) = (due.looked_to, due.settled_to);
            if !due.row_ids.is_empty() || is_progress {
                let DueDeltas { row_ids, .. } = due;
                remembered = settled_to;
                dropped += ledger.write(move |tx| tx.drop_deltas(&row_ids, settled_to))?;
            }
            if is_over || !self.pause(begun) {
                if dropped > 0 {
                    log::info!("{dropped} deltas of finished items were dropped");
                }
                let quiet = kept.max(QUIET_MIN);
                return Ok(Some(due.too_young_since.map_or(quiet, |at| left_of(at, kept))));
            }
        }
    }

    fn sessions(&mut self) -> Result<Option<Duration>> {
        let Some(kept) = self.house.session_retention else { return Ok(None) };
        let ledger = &self.house.ledger;
        let before = id::now_ms() - millis(kept);
        let due = ledger.read(|db| retention::due_sessions(db, before, self.look()))?;
        if self.purge_all("closed session", due, Round::purge_session) {
            return Ok(Some(ROUND_MIN));
        }
        // One whose agent has not ended, or that failed, is looked at again with the next round.
        let next = ledger.read(|db| retention::first_closed_at(db, before))?;
        Ok(next.map(|at| left_of(at, kept)))
    }

    fn teams(&mut self) -> Result<Option<Duration>> {
        let Some(kept) = self.house.team_retention else { return Ok(None) };
        let ledger = &self.house.ledger;
        let before = id::now_ms() - millis(kept);
        let due = ledger.read(|db| purge::due_teams(db, before, self.look()))?;
        if self.purge_all("deleted team", due, Round::purge_team) {
            return Ok(Some(ROUND_MIN));
        }
        // One of which something is under way was left out, and is looked at again with the next round.
        let next = ledger.read(|db| purge::first_deleted_at(db, before))?;
        Ok(Some(next.map_or(kept, |at| left_of(at, kept)).max(QUIET_MIN)))
    }

    /// What has failed long enough ago is tried again.
    fn forget_failed(&mut self, now: Instant) {
        self.failed.retain(|_, failed_at| now.duration_since(*failed_at) < ROUND);
    }

    /// How many due ones to look for: those that failed are among them, and hide none of the others.
    fn look(&self) -> usize {
        limits::RETENTION_ROWS + self.failed.len()
    }

    /// Purges each of these but those that failed lately; whether there may be more of them.
    fn purge_all(&mut self, what: &str, mut due: Vec<String>, purge: Purge<'a>) -> bool {
        due.retain(|id| !self.failed.contains_key(id));
        let is_more = due.len() >= limits::RETENTION_ROWS;
        for id in due {
            match thread::survive(|| purge(self, &id)) {
                Ok(true) => log::info!("{what} {id} was kept long enough and is purged"),
                Ok(false) => return false,
                Err(error) => {
                    log::warn!("{what} {id} can not be purged: {error}");
                    self.failed.insert(id, Instant::now());
                }
            }
        }
        is_more
    }

    fn purge_session(&self, session_id: &str) -> Result<bool> {
        // First the files: a purge that is cut off here is done again.
        stage::unstage(&self.house.providers_dir, session_id)?;
        self.in_steps(session_id, |tx, id| tx.purge_step(id))
    }

    fn purge_team(&self, team_id: &str) -> Result<bool> {
        self.in_steps(team_id, |tx, id| tx.purge_team_step(id))
    }

    /// Takes one step after the other until the last; false when the server stops before.
    fn in_steps(&self, id: &str, step: fn(&mut Tx<'_>, &str) -> Result<bool>) -> Result<bool> {
        loop {
            let begun = Instant::now();
            let id = id.to_owned();
            if self.house.ledger.write(move |tx| step(tx, &id))? {
                return Ok(true);
            }
            if !self.pause(begun) {
                return Ok(false);
            }
        }
    }

    /// Children that the ledger does not know and whose folder is old: what lives of them is ended.
    fn leftovers(&mut self) -> Result<Option<Duration>> {
        // Listed first: a row is committed before its folder is made.
        let found = keeper::list(&self.house.keepers_dir)?;
        if found.is_empty() {
            return Ok(None);
        }
        let known = self.house.ledger.read(agent::known_children)?;
        for child_id in found.into_iter().filter(|child_id| !known.contains(child_id)) {
            let dir = self.house.keepers_dir.join(&child_id);
            let changed = std::fs::metadata(&dir).and_then(|metadata| metadata.modified());
            let age = changed.ok().and_then(|at| SystemTime::now().duration_since(at).ok());
            if age.is_some_and(|age| age >= LEFTOVER_AGE) {
                // One that can not be ended is looked at again with the next round, and keeps no other from its end.
                if let Err(error) = keeper::sweep(&child_id) {
                    log::warn!("the child {child_id}, which nobody knows, is not ended: {error}");
                    continue;
                }
                if let Err(error) = std::fs::remove_dir_all(&dir) {
                    log::warn!("the folder {} can not be removed: {error}", dir.display());
                }
            }
        }
        Ok(None)
    }

    /// Leaves the writer to others for a while; false when the server stops.
    fn pause(&self, step_begun: Instant) -> bool {
        let pause = step_begun.elapsed() * PAUSE_SHARE;
        let waited = watchdog::rest(|| self.end.recv_timeout(pause));
        matches!(waited, Err(RecvTimeoutError::Timeout))
    }

    fn is_ended(&self) -> bool {
        matches!(self.end.try_recv(), Err(crossbeam_channel::TryRecvError::Disconnected))
    }
}

/// Rows without a due delta are remembered as looked at in pieces of this size, not one by one.
const SETTLE_ROWS: i64 = 10_000;

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX / 2)
}

/// How long something that was made at `at_ms` has until it is as old as `kept`.
fn left_of(at_ms: i64, kept: Duration) -> Duration {
    let left_ms = at_ms.saturating_add(millis(kept)).saturating_sub(id::now_ms());
    Duration::from_millis(u64::try_from(left_ms).unwrap_or(0))
}

#[cfg(test)]
mod tests;
