//! The one place where threads start.
//!
//! Owns: nothing but the rule. Every thread has a name (seen in `top -H`, in panics and in logs), the default stack
//! (JSON from outside nests), and an owner that holds a [`Thread`] and joins it. What a thread waits for, and what ends
//! it, is said in the header of the file that starts it. What goes on behind a panic is a choice of that file's, made
//! with [`run_anew`] and [`survive`]. This file deliberately knows no pool and no shutdown order.

use crate::error::{Error, Result};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// A started thread. Dropping it waits for the thread to end, so a struct that holds one keeps what ends the thread (a
/// sender, a socket) in a field above it: fields drop in their order.
#[derive(Debug)]
pub struct Thread {
    handle: Option<JoinHandle<()>>,
    /// Closed when the body is over, also by a panic. A wait for it has a deadline, which a join has not.
    over: Receiver<()>,
}

impl Thread {
    /// Waits until the thread has ended. Returns false when it ended by a panic (already reported by the panic hook).
    pub fn join(mut self) -> bool {
        self.handle.take().is_none_or(|handle| handle.join().is_ok())
    }

    /// Waits until the thread has ended, but not beyond the deadline. Returns false when it goes on: then nobody joins
    /// it any more, and only the end of the process ends it.
    pub fn join_by(mut self, deadline: Instant) -> bool {
        let is_over = self.is_over_by(deadline);
        if !is_over {
            // Dropping the whole would wait for it.
            drop(self.handle.take());
        }
        is_over
    }

    /// Waits until the body of the thread is over, but not beyond the deadline. Whether it is. Starts nothing, so it
    /// works where the system has no thread to give.
    pub fn is_over_by(&self, deadline: Instant) -> bool {
        self.over.recv_deadline(deadline) != Err(RecvTimeoutError::Timeout)
    }

    /// Whether it is the calling thread.
    pub fn is_current(&self) -> bool {
        let own = std::thread::current().id();
        self.handle.as_ref().is_some_and(|handle| handle.thread().id() == own)
    }

    /// Whether the thread has ended, without waiting.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // A thread may be the last owner of its own handle (a connection that removes itself from the table of
        // connections); joining itself would wait for ever.
        let is_current = self.is_current();
        if let Some(handle) = self.handle.take()
            && !is_current
        {
            drop(handle.join());
        }
    }
}

/// Runs the body of the calling thread until it returns, and after each panic anew. In between it pauses by `pause`,
/// which says whether to go on.
pub fn run_anew(mut body: impl FnMut(), mut pause: impl FnMut() -> bool) {
    while catch_unwind(AssertUnwindSafe(&mut body)).is_err() {
        let thread = std::thread::current();
        log::error!("the thread {} panicked; it begins anew", thread.name().unwrap_or("nameless"));
        if !pause() {
            return;
        }
    }
}

/// Does one piece of work of many: a panic in it is its error, so that the others are done all the same.
pub fn survive<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    let defect = |_| Err(Error::internal("a defect of the server ended it; its log says where"));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(defect)
}

/// Starts a named thread. Errors: the system has no thread to give (`EAGAIN`).
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    let (running, over) = crossbeam_channel::bounded::<()>(0);
    let whole = move || {
        // Goes after all that the body has, since that goes with the call.
        let _running = running;
        body();
    };
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    let handle = Builder::new().name(name.into()).spawn(whole)?;
    Ok(Thread { handle: Some(handle), over })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const SOON: Duration = Duration::from_secs(20);

    #[test]
    fn a_thread_that_goes_on_is_left_behind_at_the_deadline() {
        let (end, ended) = crossbeam_channel::bounded::<()>(0);
        let (tell, told) = crossbeam_channel::bounded(1);
        let thread = spawn("goes-on", move || {
            let _end = ended.recv();
            let _told = tell.send(());
        });
        let thread = thread.unwrap();
        let now = Instant::now();
        assert!(!thread.is_over_by(now));
        assert!(!thread.join_by(now + Duration::from_millis(1)));
        assert!(told.is_empty());
        drop(end);
        assert_eq!(told.recv_timeout(SOON), Ok(()), "it was not ended, only left");
    }

    #[test]
    fn the_end_of_a_thread_is_seen_also_when_it_panics() {
        let quiet = spawn("quiet", || {}).unwrap();
        assert!(quiet.is_over_by(Instant::now() + SOON));
        // Without the hook, which would tell of it.
        let panics = spawn("panics", || std::panic::resume_unwind(Box::new(()))).unwrap();
        assert!(panics.is_over_by(Instant::now() + SOON));
        assert!(panics.join_by(Instant::now()), "what has ended is not late");
        assert!(!spawn("panics", || std::panic::resume_unwind(Box::new(()))).unwrap().join());
    }

    #[test]
    fn a_body_is_run_anew_after_a_panic_unless_the_pause_says_that_all_is_over() {
        let run = |panics: u32, pauses: u32| {
            let (mut runs, mut left) = (0, pauses);
            let body = || {
                runs += 1;
                if runs <= panics {
                    std::panic::resume_unwind(Box::new(()));
                }
            };
            run_anew(body, || {
                left -= 1;
                left > 0
            });
            runs
        };
        assert_eq!(run(0, 5), 1);
        assert_eq!(run(2, 5), 3);
        assert_eq!(run(9, 5), 5);
        assert!(survive::<()>(|| std::panic::resume_unwind(Box::new(()))).is_err());
        assert_eq!(survive(|| Ok(7)).unwrap(), 7);
    }
}
