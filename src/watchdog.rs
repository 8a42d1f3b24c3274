//! The watchdog: which thread has been at one piece of work for longer than it may.
//!
//! A thread with a loop calls [`watch`] when it begins and waits inside of [`rest`]; all between two waits is one piece
//! of work, and its start is a number that the thread writes down without a lock. One thread, `watchdog`, sleeps until
//! the first piece can be over its bound, and with no work at all for one bound: who begins meanwhile is not over it
//! sooner. What it finds goes to the log once, and to whoever asks by [`threads`] at any time. Promises: it stops
//! nothing and restarts nothing; a thread that ends is forgotten. It deliberately does not watch the threads of
//! connections and of keepers' sockets: these wait for others in the middle of their work, each with a deadline of its
//! own.

use crate::model::id;
use crate::thread::{self, Thread};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::cell::OnceCell;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Every thread that is watched. Locked when one begins or ends, and by whoever looks.
static BEATS: Mutex<Vec<Arc<Beat>>> = Mutex::new(Vec::new());

thread_local! {
    static BEAT: OnceCell<Watched> = const { OnceCell::new() };
}

/// What a thread tells of itself.
struct Beat {
    name: String,
    /// By [`now_ms`]; 0 = it rests.
    busy_since_ms: AtomicU64,
    /// The log has it that this piece of work takes too long.
    is_told: AtomicBool,
}

/// Ends with its thread.
struct Watched(Arc<Beat>);

/// What one thread does now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub name: String,
    /// For how long it has been at its piece of work; None = it rests.
    pub busy: Option<Duration>,
    pub is_stuck: bool,
}

/// The running watchdog. Dropping it ends its thread.
pub struct Watchdog {
    _end: Sender<()>,
    _thread: Thread,
}

/// Has the calling thread watched from now on, until it ends. It is at work.
pub fn watch() {
    let name = std::thread::current().name().unwrap_or("nameless").to_owned();
    let (busy_since_ms, is_told) = (AtomicU64::new(now_ms()), AtomicBool::new(false));
    let beat = Arc::new(Beat { name, busy_since_ms, is_told });
    BEAT.with(|own| {
        if own.set(Watched(Arc::clone(&beat))).is_ok() {
            beats().push(beat);
        }
    });
}

/// Waits: the time in `wait` is no work of the calling thread. Does no more than `wait` where nobody watches.
pub fn rest<T>(wait: impl FnOnce() -> T) -> T {
    let own = BEAT.with(|own| own.get().map(|watched| Arc::clone(&watched.0)));
    let Some(beat) = own else { return wait() };
    let since_ms = beat.busy_since_ms.swap(0, Ordering::Relaxed);
    if beat.is_told.swap(false, Ordering::Relaxed) {
        let seconds = now_ms().saturating_sub(since_ms) / 1000;
        log::warn!("the thread {} goes on after {seconds} s", beat.name);
    }
    let result = wait();
    // Inside of another wait it rests on.
    if since_ms != 0 {
        beat.busy_since_ms.store(now_ms(), Ordering::Relaxed);
    }
    result
}

/// Starts the watchdog. Errors: the system has no thread to give.
pub fn start(bound: Duration) -> io::Result<Watchdog> {
    let (end, ended) = crossbeam_channel::bounded(0);
    let thread = thread::spawn("watchdog", move || keep_watch(bound, &ended))?;
    Ok(Watchdog { _end: end, _thread: thread })
}

/// What every watched thread does now, in the order in which they began.
pub fn threads(bound: Duration) -> Vec<Standing> {
    let now_ms = now_ms();
    let standing = |beat: &Arc<Beat>| {
        let busy = beat.busy(now_ms);
        let is_stuck = busy.is_some_and(|busy| busy >= bound);
        Standing { name: beat.name.clone(), busy, is_stuck }
    };
    beats().iter().map(standing).collect()
}

impl Standing {
    /// When its piece of work began, in milliseconds since the epoch.
    pub fn busy_since(&self) -> Option<i64> {
        let busy_ms = i64::try_from(self.busy?.as_millis()).unwrap_or(i64::MAX);
        Some(id::now_ms().saturating_sub(busy_ms))
    }
}

fn keep_watch(bound: Duration, ended: &Receiver<()>) {
    while ended.recv_timeout(look(bound)) == Err(RecvTimeoutError::Timeout) {}
}

/// Tells of who is over the bound now, and returns when the next one can be.
fn look(bound: Duration) -> Duration {
    let now_ms = now_ms();
    let mut next = bound;
    // Written to the log without the lock.
    let mut late = Vec::new();
    for beat in beats().iter() {
        match beat.busy(now_ms) {
            Some(busy) if busy < bound => next = next.min(bound - busy),
            Some(busy) if !beat.is_told.swap(true, Ordering::Relaxed) => {
                late.push((beat.name.clone(), busy));
            }
            _ => {}
        }
    }
    for (name, busy) in late {
        let seconds = busy.as_secs();
        log::error!("the thread {name} has been at one piece of work for {seconds} s: it hangs");
    }
    next.max(Duration::from_millis(1))
}

impl Beat {
    fn busy(&self, now_ms: u64) -> Option<Duration> {
        let since_ms = self.busy_since_ms.load(Ordering::Relaxed);
        (since_ms != 0).then(|| Duration::from_millis(now_ms.saturating_sub(since_ms)))
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        beats().retain(|beat| !Arc::ptr_eq(beat, &self.0));
    }
}

/// Milliseconds since the first call, and one: 0 has a meaning of its own. No clock of the machine that people set.
fn now_ms() -> u64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    let elapsed = FIRST.get_or_init(Instant::now).elapsed().as_millis();
    u64::try_from(elapsed).unwrap_or(u64::MAX - 1) + 1
}

/// No code panics while it holds this lock.
fn beats() -> MutexGuard<'static, Vec<Arc<Beat>>> {
    BEATS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    fn standing(name: &str) -> Option<Standing> {
        threads(Duration::ZERO).into_iter().find(|standing| standing.name == name)
    }

    #[test]
    fn work_is_what_lies_between_two_waits() {
        let (tell, told) = bounded::<()>(0);
        let (go_on, goes_on) = bounded::<()>(0);
        let body = move || {
            watch();
            // At work.
            tell.send(()).unwrap();
            goes_on.recv().unwrap();
            rest(|| {
                rest(|| tell.send(()).unwrap());
                // A wait inside of a wait ends no wait.
                goes_on.recv().unwrap();
            });
            tell.send(()).unwrap();
            goes_on.recv().unwrap();
        };
        let thread = thread::spawn("watched-1", body).unwrap();
        for is_busy in [true, false, true] {
            told.recv().unwrap();
            let standing = standing("watched-1").unwrap();
            assert_eq!((standing.busy.is_some(), standing.is_stuck), (is_busy, is_busy));
            assert_eq!(standing.busy_since().is_some(), is_busy);
            go_on.send(()).unwrap();
        }
        assert!(thread.join());
        assert_eq!(standing("watched-1"), None, "an ended thread is forgotten");
    }

    #[test]
    fn a_look_says_when_the_next_one_is_due() {
        let bound = Duration::from_secs(3600);
        let (tell, told) = bounded::<()>(0);
        let (go_on, goes_on) = bounded::<()>(0);
        let body = move || {
            watch();
            tell.send(()).unwrap();
            goes_on.recv().unwrap();
        };
        let thread = thread::spawn("watched-2", body).unwrap();
        told.recv().unwrap();
        assert!(look(bound) <= bound, "no later than the bound of who works");
        assert!(standing("watched-2").is_some_and(|standing| standing.busy.is_some()));
        // It is over a bound of nothing, and is told of once.
        let is_told =
            || beats().iter().any(|b| b.name == "watched-2" && b.is_told.load(Ordering::Relaxed));
        assert!(!is_told());
        look(Duration::ZERO);
        assert!(is_told());
        go_on.send(()).unwrap();
        assert!(thread.join());
    }

    #[test]
    fn nobody_watches_a_thread_that_does_not_ask_for_it() {
        let thread = thread::spawn("unwatched", || rest(|| ())).unwrap();
        assert!(thread.join());
        assert_eq!(standing("unwatched"), None);
    }
}
