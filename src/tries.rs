//! Floor 0: what could not be done, and when it is tried again.
//!
//! A disk that is full or errs, a machine without threads: it may be over in a second or in a day. So the pauses grow,
//! and end at a minute. [`Tries`] is a value of the one thread that does the work, and that waits in [`Tries::rest`]
//! for a word or the next try.

use crate::watchdog;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// Pauses between attempts: each twice as long as the one before.
pub(crate) struct Pauses {
    next: Duration,
}

/// Things of which an attempt has failed, by id.
#[derive(Default)]
pub(crate) struct Tries {
    failed: HashMap<String, (Pauses, Instant)>,
}

impl Default for Pauses {
    fn default() -> Pauses {
        Pauses { next: FIRST }
    }
}

impl Pauses {
    pub(crate) fn take(&mut self) -> Duration {
        let pause = self.next;
        self.next = LONGEST.min(2 * pause);
        pause
    }

    /// Waits for the next pause; words that come meanwhile are no reason to begin sooner, unless they are that of the
    /// stop. False when it is.
    pub(crate) fn rest(&mut self, words: &Receiver<()>, is_stopped: impl Fn() -> bool) -> bool {
        let until = Instant::now() + self.take();
        while !is_stopped() {
            if watchdog::rest(|| words.recv_deadline(until)).is_err() {
                return true;
            }
        }
        false
    }
}

impl Tries {
    /// Whether it may be tried: it has not failed, or its pause is over.
    pub(crate) fn is_due(&self, id: &str, now: Instant) -> bool {
        self.failed.get(id).is_none_or(|(_, at)| *at <= now)
    }

    pub(crate) fn failed(&mut self, id: &str) {
        let (pauses, at) =
            self.failed.entry(id.to_owned()).or_insert_with(|| (Pauses::default(), Instant::now()));
        *at = Instant::now() + pauses.take();
    }

    /// Forgets all but these: they are done, or nobody wants them any more.
    pub(crate) fn keep(&mut self, is_wanted: impl Fn(&str) -> bool) {
        self.failed.retain(|id, _| is_wanted(id));
    }

    /// Waits for a word, or until the next one may be tried. False when nobody is left to say one.
    pub(crate) fn rest(&self, words: &Receiver<()>, now: Instant) -> bool {
        let woken = watchdog::rest(|| match self.next_at(now) {
            Some(at) => words.recv_deadline(at),
            None => words.recv().map_err(|_| RecvTimeoutError::Disconnected),
        });
        woken != Err(RecvTimeoutError::Disconnected)
    }

    /// When the next one may be tried that was not due at `now`. None: there is none; one that was due and was passed
    /// by waits for whatever was in the way.
    fn next_at(&self, now: Instant) -> Option<Instant> {
        self.failed.values().map(|(_, at)| *at).filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_minute() {
        let mut pauses = Pauses::default();
        let seconds: Vec<u64> = (0..8).map(|_| pauses.take().as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 32, 60, 60]);
    }

    #[test]
    fn what_has_failed_waits_and_everything_else_does_not() {
        let mut tries = Tries::default();
        let now = Instant::now();
        assert!(tries.is_due("a", now) && tries.next_at(now).is_none());
        tries.failed("a");
        assert!(!tries.is_due("a", now) && tries.is_due("b", now));
        let next = tries.next_at(now).expect("it is tried again");
        assert!(next > now && tries.is_due("a", next) && tries.next_at(next).is_none());
        tries.keep(|id| id != "a");
        assert!(tries.is_due("a", now) && tries.next_at(now).is_none());
    }
}
