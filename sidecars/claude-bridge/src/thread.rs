//! The one place where threads of the bridge start.
//!
//! Owns: the rule that every thread has a name. Threads here are not joined: each serves one pipe, one process or the
//! signals, ends when that ends, and tells the main loop so by an event; the end of the program ends what is left.

use std::io;

/// Starts a named thread that nobody joins. Errors: the system has no thread to give.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> io::Result<()> {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    let handle = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
    drop(handle);
    Ok(())
}
