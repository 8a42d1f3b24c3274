//! Answers from the writer to its callers.
//!
//! Not a channel: the channels that we use yield the CPU many times before they sleep, which pays for an answer
//! within microseconds. This one comes after a commit, so its caller sleeps at once and leaves the CPU to the writer.
//! To wake a thread costs as much as a small change, so the writer wakes two callers of a batch, and who is woken wakes
//! two more. Promises: the caller is woken by the answer, or by the end of whoever was to give it, who says so in
//! [`Slot::end`]. A caller that finds its answer before it is woken leaves no gap: it is seen to be gone, and the next
//! is woken in its place. It deliberately knows nothing of what was asked.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::sync::{Arc, PoisonError};

/// How many callers the writer wakes, and each of those that are woken.
const WOKEN_AT_ONCE: usize = 2;

/// Where one caller waits for its answer.
pub(super) struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Callers that have their answers and may be asleep.
pub(super) struct Sleepers(Mutex<Vec<Arc<dyn Sleeper>>>);

/// One of them.
pub(super) trait Sleeper: Send + Sync {
    /// Wakes it and leaves the others to it. False: it has taken its answer already.
    fn wake(&self, others: &Arc<Sleepers>) -> bool;
}

struct State<T> {
    outcome: Outcome<T>,
    is_asleep: bool,
    /// Whom the caller is to wake.
    others: Option<Arc<Sleepers>>,
}

enum Outcome<T> {
    Awaited,
    Given(T),
    /// It was taken, or never comes.
    Over,
}

impl<T> Slot<T> {
    pub(super) fn new() -> Slot<T> {
        let state = State { outcome: Outcome::Awaited, is_asleep: false, others: None };
        Slot { state: Mutex::new(state), changed: Condvar::new() }
    }

    /// Gives the answer. The caller sleeps on until it is woken as one of [`Sleepers`].
    pub(super) fn give(&self, answer: T) {
        lock(&self.state).outcome = Outcome::Given(answer);
    }

    /// Tells the caller that no answer comes, unless one was given.
    pub(super) fn end(&self) {
        let mut state = lock(&self.state);
        if matches!(state.outcome, Outcome::Awaited) {
            state.outcome = Outcome::Over;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Waits for the answer; None when none comes. For the one caller, once.
    pub(super) fn wait(&self) -> Option<T> {
        let mut state = lock(&self.state);
        while matches!(state.outcome, Outcome::Awaited) {
            state.is_asleep = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let outcome = std::mem::replace(&mut state.outcome, Outcome::Over);
        let others = state.others.take();
        drop(state);
        if let Some(others) = others {
            others.wake();
        }
        match outcome {
            Outcome::Given(answer) => Some(answer),
            Outcome::Awaited | Outcome::Over => None,
        }
    }
}

impl<T: Send> Sleeper for Slot<T> {
    fn wake(&self, others: &Arc<Sleepers>) -> bool {
        let mut state = lock(&self.state);
        if matches!(state.outcome, Outcome::Over) {
            return false;
        }
        state.others = Some(Arc::clone(others));
        let is_asleep = state.is_asleep;
        drop(state);
        if is_asleep {
            self.changed.notify_one();
        }
        true
    }
}

impl Sleepers {
    pub(super) fn new(mut sleepers: Vec<Arc<dyn Sleeper>>) -> Arc<Sleepers> {
        // The first to ask is the first to be woken.
        sleepers.reverse();
        Arc::new(Sleepers(Mutex::new(sleepers)))
    }

    /// Wakes some of them, who wake the rest.
    pub(super) fn wake(self: &Arc<Self>) {
        let mut woken = 0;
        while woken < WOKEN_AT_ONCE {
            let next = lock(&self.0).pop();
            let Some(next) = next else { return };
            if next.wake(self) {
                woken += 1;
            }
        }
    }
}

/// No code panics while it holds one of these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;

    fn pair<T>() -> (Arc<Slot<T>>, Arc<Slot<T>>) {
        let slot = Arc::new(Slot::new());
        (Arc::clone(&slot), slot)
    }

    fn give<T: Send + 'static>(slot: Arc<Slot<T>>, answer: T) {
        slot.give(answer);
        Sleepers::new(vec![slot]).wake();
    }

    #[test]
    fn an_answer_arrives_before_and_during_the_wait() {
        let (giver, caller) = pair();
        give(giver, 7);
        assert_eq!(caller.wait(), Some(7));
        let (giver, caller) = pair();
        let giver = thread::spawn("giver", move || give(giver, 8)).unwrap();
        assert_eq!(caller.wait(), Some(8));
        assert!(giver.join());
    }

    #[test]
    fn an_end_without_an_answer_ends_the_wait() {
        let (giver, caller) = pair::<()>();
        giver.end();
        assert_eq!(caller.wait(), None);
        let (giver, caller) = pair::<()>();
        let giver = thread::spawn("giver", move || giver.end()).unwrap();
        assert_eq!(caller.wait(), None);
        assert!(giver.join());
    }

    #[test]
    fn an_end_takes_no_answer_back() {
        let (giver, caller) = pair();
        giver.give(7);
        giver.end();
        assert_eq!(caller.wait(), Some(7));
    }

    #[test]
    fn a_caller_that_is_gone_does_not_matter() {
        let (giver, caller) = pair();
        drop(caller);
        give(giver, "nobody hears it");
    }

    #[test]
    fn whoever_is_woken_wakes_the_others_whether_some_are_gone_or_not() {
        for round in 0..200usize {
            let mut threads = Vec::new();
            let (to_writer, answers) = crossbeam_channel::unbounded();
            for number in 0..33usize {
                let (giver, caller) = pair();
                to_writer.send((number, giver)).unwrap();
                let caller = thread::spawn("caller", move || {
                    assert_eq!(caller.wait(), Some(number));
                });
                threads.push(caller.unwrap());
            }
            drop(to_writer);
            // Some find their answer long before anybody is woken, more in later rounds.
            let give = |(number, slot): (usize, Arc<Slot<usize>>)| {
                slot.give(number);
                if number % 7 < round % 7 {
                    std::thread::yield_now();
                }
                slot as Arc<dyn Sleeper>
            };
            let sleepers = Sleepers::new(answers.iter().map(give).collect());
            sleepers.wake();
            assert!(threads.into_iter().all(thread::Thread::join));
            assert!(lock(&sleepers.0).is_empty(), "somebody was not woken");
        }
    }
}
