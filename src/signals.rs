//! Signals, as one blocking wait of the main thread.
//!
//! Handlers, not a blocked mask: children inherit a blocked mask, and an agent would then ignore our SIGTERM.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals as Inner;
use std::io;

/// What the person or the service manager wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: the server goes, agents stay.
    Leave,
    /// SIGINT: everything ends.
    EndAll,
}

/// Signals that were sent since [`Signals::new`].
pub struct Signals {
    inner: Inner,
}

impl Signals {
    pub fn new() -> io::Result<Signals> {
        Ok(Signals { inner: Inner::new([SIGTERM, SIGINT])? })
    }

    /// Blocks until one comes.
    pub fn wait(&mut self) -> Stop {
        match self.inner.forever().next() {
            Some(SIGINT) => Stop::EndAll,
            _ => Stop::Leave,
        }
    }
}
