//! The one place where threads start.
//!
//! Owns: nothing but the rule. Every thread has a name (seen in `top -H`, in panics and in logs), the default stack
//! (JSON from outside nests), and an owner that holds a [`Thread`] and joins it. What a thread waits for, and what ends
//! it, is said in the header of the file that starts it. This file deliberately knows no pool and no shutdown order.

use crossbeam_channel::RecvTimeoutError;
use std::io;
use std::thread::{Builder, JoinHandle};
use std::time::Instant;

/// A started thread. Dropping it waits for the thread to end, so a struct that holds one keeps what ends the thread (a
/// sender, a socket) in a field above it: fields drop in their order.
#[derive(Debug)]
pub struct Thread {
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    /// Waits until the thread has ended. Returns false when it ended by a panic (already reported by the panic hook).
    pub fn join(mut self) -> bool {
        self.handle.take().is_none_or(|handle| handle.join().is_ok())
    }

    /// Waits until the thread has ended, but not beyond the deadline. Returns false when it goes on: then nobody joins
    /// it any more, and only the end of the process ends it.
    pub fn join_by(self, deadline: Instant) -> bool {
        let (done, joined) = crossbeam_channel::bounded::<()>(0);
        let waiter = spawn("join", move || {
            self.join();
            drop(done);
        });
        let is_late = joined.recv_deadline(deadline) == Err(RecvTimeoutError::Timeout);
        if is_late {
            // Dropping it would wait for it.
            std::mem::forget(waiter);
        }
        !is_late
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

/// Starts a named thread. Errors: the system has no thread to give (`EAGAIN`).
pub fn spawn(name: impl Into<String>, body: impl FnOnce() + Send + 'static) -> io::Result<Thread> {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    let handle = Builder::new().name(name.into()).spawn(body)?;
    Ok(Thread { handle: Some(handle) })
}
