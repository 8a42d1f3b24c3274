//! One answer from the writer to one caller.
//!
//! Not a channel: the channels that we use yield the CPU many times before they sleep, which pays for an answer
//! within microseconds. This one comes after a commit, so its caller sleeps at once and leaves the CPU to the writer.
//! Promises: the caller is woken by the answer, or by the end of whoever was to give it.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::sync::{Arc, PoisonError};

/// The writer's end. Dropping it without an answer tells the caller that none comes.
pub(super) struct Answer<T>(Arc<Slot<T>>);

/// The caller's end.
pub(super) struct Answered<T>(Arc<Slot<T>>);

struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

enum State<T> {
    Awaited,
    Given(T),
    /// It was taken, or never comes.
    Over,
}

pub(super) fn pair<T>() -> (Answer<T>, Answered<T>) {
    let slot = Arc::new(Slot { state: Mutex::new(State::Awaited), changed: Condvar::new() });
    (Answer(Arc::clone(&slot)), Answered(slot))
}

impl<T> Answer<T> {
    pub(super) fn give(self, answer: T) {
        *self.0.lock() = State::Given(answer);
        // Dropping this end wakes the caller.
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        if matches!(*state, State::Awaited) {
            *state = State::Over;
        }
        drop(state);
        self.0.changed.notify_one();
    }
}

impl<T> Answered<T> {
    /// Waits for the answer; None when the other end is gone without one.
    pub(super) fn wait(self) -> Option<T> {
        let mut state = self.0.lock();
        loop {
            match std::mem::replace(&mut *state, State::Over) {
                State::Given(answer) => return Some(answer),
                State::Over => return None,
                State::Awaited => *state = State::Awaited,
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Slot<T> {
    /// No code panics while it holds this lock.
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;

    #[test]
    fn an_answer_arrives_before_and_during_the_wait() {
        let (answer, answered) = pair();
        answer.give(7);
        assert_eq!(answered.wait(), Some(7));
        let (answer, answered) = pair();
        let giver = thread::spawn("giver", move || answer.give(8)).unwrap();
        assert_eq!(answered.wait(), Some(8));
        assert!(giver.join());
    }

    #[test]
    fn a_giver_that_is_gone_ends_the_wait() {
        let (answer, answered) = pair::<()>();
        drop(answer);
        assert_eq!(answered.wait(), None);
    }

    #[test]
    fn a_caller_that_is_gone_does_not_matter() {
        let (answer, answered) = pair();
        drop(answered);
        answer.give("nobody hears it");
    }
}
