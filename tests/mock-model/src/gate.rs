//! The gate: the one place where the mock waits for anything but a socket.
//!
//! Owns: the pauses inside answers, the waiting of HOLD, and the word that the mock ends. Any
//! thread may call. Promises: no wait is longer than it was told, and all end when the mock does.
//! Deliberately a condition variable and not a sleep, so that a dropped mock is gone at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest that HOLD waits for the gate.
pub const HOLD_MAX: Duration = Duration::from_secs(30);

/// How often the gate was opened, and whether the mock has ended.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    openings: u64,
    ended: bool,
}

impl Gate {
    /// How often it was opened so far. Taken before an answer begins, so that an opening between
    /// its first delta and its wait is not missed.
    pub fn openings(&self) -> u64 {
        self.state().openings
    }

    /// Lets everything go on that waits.
    pub fn open(&self) {
        self.state().openings += 1;
        self.changed.notify_all();
    }

    /// Ends all waits, now and later.
    pub fn end(&self) {
        self.state().ended = true;
        self.changed.notify_all();
    }

    /// Whether the mock has ended.
    pub fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Waits until the gate has been opened more often than `openings`. At most [`HOLD_MAX`].
    pub fn hold(&self, openings: u64) {
        self.wait(HOLD_MAX, |state| state.openings > openings);
    }

    /// Waits for a time.
    pub fn pause(&self, time: Duration) {
        self.wait(time, |_| false);
    }

    fn wait(&self, time: Duration, is_over: impl Fn(&State) -> bool) {
        let deadline = Instant::now() + time;
        let mut state = self.state();
        while !state.ended && !is_over(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
