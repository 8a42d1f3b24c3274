//! Waiting for what cannot tell of itself.
//!
//! Owns: the one loop of the tests that looks again and again. It is for conditions without a notification (a file that
//! another program writes, a count in `/proc`); whatever has one is waited for there: a process by its pidfd, an event
//! by its stream, an answer by its connection.

use std::thread;
use std::time::{Duration, Instant};

/// The first pause between two looks, and the longest: each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Looks until `check` gives a value, and gives that. Panics: it gave none in time; the message names `what`.
pub fn until<T>(deadline: Duration, what: &str, check: impl FnMut() -> Option<T>) -> T {
    match try_until(deadline, check) {
        Some(value) => value,
        None => panic!("waited {deadline:?} in vain until {what}"),
    }
}

/// The same, with `None` when the time has passed. The condition is looked at once more at the very end.
pub fn try_until<T>(deadline: Duration, mut check: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + deadline;
    let mut pause = PAUSE_FIRST;
    loop {
        if let Some(value) = check() {
            return Some(value);
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        // Nobody unparks this thread; a park that ends early only looks early.
        thread::park_timeout(pause.min(left));
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Lets time pass. For a measurement; a test waits for what it wants to see.
pub fn pause(duration: Duration) {
    pause_until(Instant::now() + duration);
}

/// The same up to a moment. Nobody unparks this thread, an early end is gone on from.
pub fn pause_until(end: Instant) {
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_value_ends_the_wait() {
        let mut looks = 0;
        let value = until(Duration::from_secs(10), "three looks are made", || {
            looks += 1;
            (looks == 3).then_some("seen")
        });
        assert_eq!((value, looks), ("seen", 3));
    }

    #[test]
    fn a_wait_in_vain_ends_at_its_deadline() {
        let start = Instant::now();
        assert_eq!(try_until(Duration::from_millis(30), || None::<()>), None);
        assert!(start.elapsed() >= Duration::from_millis(30));
    }
}
