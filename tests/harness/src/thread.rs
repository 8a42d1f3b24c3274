//! The one place where threads of tests start.
//!
//! Owns: nothing but the rule that a thread has a name and is joined. Tests that need clients at work at the same time
//! start them here too.

use std::io;
use std::thread::{Builder, JoinHandle};

/// A started thread, joined when it is dropped.
#[derive(Debug)]
pub struct Thread<T = ()> {
    handle: Option<JoinHandle<T>>,
}

impl<T> Thread<T> {
    /// Waits for the thread and gives its value. Panics: when the thread did.
    pub fn join(mut self) -> T {
        let handle = self.handle.take().expect("it is taken only here and in drop");
        match handle.join() {
            Ok(value) => value,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Lets the thread go: nobody waits for it. Only for one whose end is not in our hands.
    pub fn detach(mut self) {
        drop(self.handle.take());
    }
}

impl<T> Drop for Thread<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            // Its panic was told by the panic hook, and a second one here would abort.
            drop(handle.join());
        }
    }
}

/// Starts a named thread. Errors: the system has no thread to give.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    body: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    let handle = Builder::new().name(name.into()).spawn(body)?;
    Ok(Thread { handle: Some(handle) })
}
