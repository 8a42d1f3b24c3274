//! Answers from the writer to its callers.
//!
//! Not a channel: the channels that we use yield the CPU many times before they sleep, which pays for an answer
//! within microseconds. This one comes after a commit, so its caller sleeps at once and leaves the CPU to the writer.
//! To wake a thread costs as much as a small change, so the writer wakes two callers of a batch, and who is woken wakes
//! two more. Promises: the caller is woken by the answer, or by the end of whoever was to give it. A caller that finds
//! its answer before it is woken leaves no gap: it is seen to be gone, and the next is woken in its place.

use crate::sync::{Condvar, Mutex, MutexGuard};
use std::sync::{Arc, PoisonError};

/// How many callers the writer wakes, and each of those that are woken.
const WOKEN_AT_ONCE: usize = 2;

/// The writer's end. Dropping it without an answer tells the caller that none comes.
pub(super) struct Answer<T>(Arc<Slot<T>>);

/// The caller's end.
pub(super) struct Answered<T>(Arc<Slot<T>>);

/// Callers that have their answers and may be asleep.
pub(super) struct Sleepers(Mutex<Vec<Arc<dyn Sleeper>>>);

/// One of them.
pub(super) trait Sleeper: Send + Sync {
    /// Wakes it and leaves the others to it. False: it has taken its answer already.
    fn wake(&self, others: &Arc<Sleepers>) -> bool;
}

struct Slot<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
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

pub(super) fn pair<T>() -> (Answer<T>, Answered<T>) {
    let state = State { outcome: Outcome::Awaited, is_asleep: false, others: None };
    let slot = Arc::new(Slot { state: Mutex::new(state), changed: Condvar::new() });
    (Answer(Arc::clone(&slot)), Answered(slot))
}

impl<T: Send + 'static> Answer<T> {
    /// Gives the answer. The caller sleeps on until it is woken as one of [`Sleepers`].
    pub(super) fn give(self, answer: T) -> Arc<dyn Sleeper> {
        lock(&self.0.state).outcome = Outcome::Given(answer);
        Arc::clone(&self.0) as Arc<dyn Sleeper>
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        if matches!(state.outcome, Outcome::Awaited) {
            state.outcome = Outcome::Over;
            drop(state);
            self.0.changed.notify_one();
        }
    }
}

impl<T> Answered<T> {
    /// Waits for the answer; None when the other end is gone without one.
    pub(super) fn wait(self) -> Option<T> {
        let mut state = lock(&self.0.state);
        while matches!(state.outcome, Outcome::Awaited) {
            state.is_asleep = true;
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
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

    fn wake(sleeper: Arc<dyn Sleeper>) {
        Sleepers::new(vec![sleeper]).wake();
    }

    #[test]
    fn an_answer_arrives_before_and_during_the_wait() {
        let (answer, answered) = pair();
        wake(answer.give(7));
        assert_eq!(answered.wait(), Some(7));
        let (answer, answered) = pair();
        let giver = thread::spawn("giver", move || wake(answer.give(8))).unwrap();
        assert_eq!(answered.wait(), Some(8));
        assert!(giver.join());
    }

    #[test]
    fn a_giver_that_is_gone_ends_the_wait() {
        let (answer, answered) = pair::<()>();
        drop(answer);
        assert_eq!(answered.wait(), None);
        let (answer, answered) = pair::<()>();
        let giver = thread::spawn("giver", move || drop(answer)).unwrap();
        assert_eq!(answered.wait(), None);
        assert!(giver.join());
    }

    #[test]
    fn a_caller_that_is_gone_does_not_matter() {
        let (answer, answered) = pair();
        drop(answered);
        wake(answer.give("nobody hears it"));
    }

    #[test]
    fn whoever_is_woken_wakes_the_others_whether_some_are_gone_or_not() {
        for round in 0..200usize {
            let mut threads = Vec::new();
            let (to_writer, answers) = crossbeam_channel::unbounded();
            for number in 0..33usize {
                let (answer, answered) = pair();
                to_writer.send((number, answer)).unwrap();
                let caller = thread::spawn("caller", move || {
                    assert_eq!(answered.wait(), Some(number));
                });
                threads.push(caller.unwrap());
            }
            drop(to_writer);
            // Some find their answer long before anybody is woken, more in later rounds.
            let give = |(number, answer): (usize, Answer<usize>)| {
                let sleeper = answer.give(number);
                if number % 7 < round % 7 {
                    std::thread::yield_now();
                }
                sleeper
            };
            let sleepers = Sleepers::new(answers.iter().map(give).collect());
            sleepers.wake();
            assert!(threads.into_iter().all(thread::Thread::join));
            assert!(lock(&sleepers.0).is_empty(), "somebody was not woken");
        }
    }
}
