//! The line in which the calls of one caller stand, where each must see what the one before it has done.
//!
//! Used on the threads of callers. A place is taken, waited for and given up; other callers have other lines. The lock
//! is held for the look at a line alone. Nobody waits for ever: a line has a bound, and so has the wait.

use crate::limits;
use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// See the module's text.
#[derive(Default)]
pub(super) struct Line {
    standing: Mutex<Standing>,
    moved: Condvar,
}

#[derive(Default)]
struct Standing {
    /// By caller, those who stand there: their numbers, and what they are to do, if that has a name. The first acts.
    lines: HashMap<String, VecDeque<(u64, Option<String>)>>,
    last_number: u64,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// The line is full, or those in front were not through in time.
    Busy,
    /// The same call stands there already.
    Same,
}

/// The front of a line, until it is dropped.
pub(super) struct Place<'a> {
    line: &'a Line,
    caller: String,
    number: u64,
}

impl Line {
    /// Waits until all who stood in the caller's line before are through. `name`: what tells that two calls are one.
    pub(super) fn take(
        &self,
        caller: &str,
        name: Option<String>,
        patience: Duration,
    ) -> Result<Place<'_>, NoPlace> {
        let place = self.stand(caller, name)?;
        let is_behind = |standing: &mut Standing| {
            let front = standing.lines.get(caller).and_then(VecDeque::front);
            front.is_none_or(|(number, _)| *number != place.number)
        };
        let (standing, waited) = self
            .moved
            .wait_timeout_while(self.lock(), patience, is_behind)
            .unwrap_or_else(PoisonError::into_inner);
        drop(standing);
        if waited.timed_out() { Err(NoPlace::Busy) } else { Ok(place) }
    }

    fn stand(&self, caller: &str, name: Option<String>) -> Result<Place<'_>, NoPlace> {
        let mut standing = self.lock();
        standing.last_number += 1;
        let number = standing.last_number;
        let line = standing.lines.entry(caller.to_owned()).or_default();
        if name.is_some() && line.iter().any(|(_, other)| *other == name) {
            return Err(NoPlace::Same);
        }
        if line.len() >= limits::TOOL_LINE {
            return Err(NoPlace::Busy);
        }
        line.push_back((number, name));
        Ok(Place { line: self, caller: caller.to_owned(), number })
    }

    fn lock(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut standing = self.line.lock();
        if let Some(line) = standing.lines.get_mut(&self.caller) {
            line.retain(|(number, _)| *number != self.number);
            if line.is_empty() {
                standing.lines.remove(&self.caller);
            }
        }
        drop(standing);
        self.line.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::thread;
    use std::sync::Arc;

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn calls_of_one_caller_are_one_after_the_other_in_order() {
        let line = Arc::new(Line::default());
        let (tell, told) = crossbeam_channel::unbounded();
        let first = line.take("a", None, LONG).unwrap();
        let mut threads = Vec::new();
        for number in 0..4 {
            let (behind, tell) = (Arc::clone(&line), tell.clone());
            let body = move || {
                let place = behind.take("a", None, LONG).unwrap();
                tell.send(number).unwrap();
                drop(place);
            };
            threads.push(thread::spawn("in-line", body).unwrap());
            // The next one stands behind it.
            gooselake_harness::wait::until(LONG, "it stands in line", || {
                (line.lock().lines["a"].len() == number + 2).then_some(())
            });
        }
        assert!(line.take("b", None, LONG).is_ok(), "another caller waits for nobody");
        assert!(told.is_empty());
        drop(first);
        drop(tell);
        assert_eq!(told.iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
        drop(threads);
        assert!(line.lock().lines.is_empty(), "nothing is kept");
    }

    #[test]
    fn a_line_has_a_bound_and_so_has_the_wait() {
        let line = Line::default();
        let first = line.take("a", None, LONG);
        let none = |name: Option<&str>| {
            line.take("a", name.map(str::to_owned), Duration::ZERO).err().unwrap()
        };
        assert_eq!(none(None), NoPlace::Busy);
        assert_eq!(line.lock().lines["a"].len(), 1, "who gave up does not stand there");
        let more: Vec<_> = (1..limits::TOOL_LINE).map(|_| line.stand("a", None).unwrap()).collect();
        assert_eq!(none(None), NoPlace::Busy);
        drop((more, first));
        let named = || line.take("a", Some("k".to_owned()), Duration::ZERO);
        let first = named().unwrap();
        assert_eq!(named().err(), Some(NoPlace::Same));
        drop(first);
        assert!(named().is_ok());
    }
}
