//! The one place where threads of the sidecar start.
//!
//! Owns: the rule that every thread has a name, and that a lock survives a panic of another thread. Threads here are
//! calls: the server counts them, waits for that count when its client has gone, and the end of the process ends what
//! is left. This file deliberately knows no pool.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Starts a named thread that nobody joins. Errors: the system has no thread to give.
pub(crate) fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
    drop(handle);
    Ok(())
}

/// Locks, also when a thread panicked while it held the lock: the values behind our locks are whole at every step.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
