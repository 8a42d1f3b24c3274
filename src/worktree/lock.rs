//! Who works on what: one request at a time for a repository, one for a worktree, and one for an idempotency key.
//!
//! A lock is held by the thread of a request while git works for it, and by nobody while it waits for a client. Waiting
//! for one has a bound, ends when the server stops, and delays nobody else. A thread takes the lock of an idempotency
//! key before that of a worktree, that of a worktree before that of its repository, and never two of a kind, so no two
//! wait for each other. The table's own mutex is held for look-ups alone.

use super::run::Stop;
use crate::error::{Code, Error, Result};
use crate::watchdog;
use crossbeam_channel::Sender;
use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub(super) struct Locks {
    held: Mutex<HashSet<String>>,
    changed: Condvar,
    stop: Arc<Stop>,
    /// Told of each lock that comes free: somebody may have passed it by.
    freed: Sender<()>,
}

/// A lock that is held; dropping it lets the next one in.
pub struct Locked {
    locks: Arc<Locks>,
    key: String,
}

impl Locks {
    pub(super) fn new(stop: Arc<Stop>, freed: Sender<()>) -> Locks {
        Locks { held: Mutex::default(), changed: Condvar::new(), stop, freed }
    }

    /// Waits for the lock, at most for `at_most`. `what` names the thing for the error.
    pub(super) fn lock(
        self: &Arc<Self>,
        key: &str,
        what: &str,
        at_most: Duration,
    ) -> Result<Locked> {
        let deadline = Instant::now() + at_most;
        let mut held = self.held();
        loop {
            if self.stop.is_stopped() {
                return Err(Error::new(Code::ShuttingDown, "the server is shutting down"));
            }
            if held.insert(key.to_owned()) {
                return Ok(Locked { locks: Arc::clone(self), key: key.to_owned() });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message = format!("another request has been at work on {what} for a while");
                return Err(Error::new(Code::Capacity, message)
                    .hint("try again; worktrees.lock_wait_secs bounds the wait"));
            }
            let waited = watchdog::rest(|| self.changed.wait_timeout(held, left));
            held = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets everybody who waits look again: the server stops.
    pub(super) fn wake_all(&self) {
        drop(self.held());
        self.changed.notify_all();
    }

    /// No code panics while it holds this mutex.
    fn held(&self) -> MutexGuard<'_, HashSet<String>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        self.locks.held().remove(&self.key);
        self.locks.changed.notify_all();
        // A full channel has told it already.
        let _: std::result::Result<(), _> = self.locks.freed.try_send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;

    fn locks() -> Arc<Locks> {
        let (freed, _) = crossbeam_channel::bounded(1);
        Arc::new(Locks::new(Arc::new(Stop::new().unwrap()), freed))
    }

    #[test]
    fn a_lock_is_waited_for_and_another_is_not() {
        let locks = locks();
        let first = locks.lock("a", "a", Duration::ZERO).unwrap();
        let other = locks.lock("b", "b", Duration::ZERO).unwrap();
        let error = locks.lock("a", "thing a", Duration::from_millis(5)).err().unwrap();
        assert_eq!(error.code, Code::Capacity);
        assert!(error.message.contains("thing a"), "{error}");
        let waiting = Arc::clone(&locks);
        let waiter = thread::spawn("waiter", move || {
            drop(waiting.lock("a", "a", Duration::from_secs(30)).unwrap());
        });
        drop(first);
        assert!(waiter.unwrap().join());
        drop(other);
    }

    #[test]
    fn a_stop_ends_every_wait() {
        let locks = locks();
        let held = locks.lock("a", "a", Duration::ZERO).unwrap();
        let waiting = Arc::clone(&locks);
        let waiter = thread::spawn("waiter", move || {
            let error = waiting.lock("a", "a", Duration::from_secs(60)).err().unwrap();
            assert_eq!(error.code, Code::ShuttingDown);
        });
        locks.stop.stop();
        locks.wake_all();
        assert!(waiter.unwrap().join());
        drop(held);
    }
}
