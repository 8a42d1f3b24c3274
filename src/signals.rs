//! Signals, as one blocking wait of the main thread.
//!
//! Handlers, not a blocked mask: children inherit a blocked mask, and an agent would then ignore our SIGTERM.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals as Inner;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the person or the service manager wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// SIGTERM: the server goes, agents stay.
    Leave,
    /// SIGINT: everything ends.
    EndAll,
}

/// Signals that were sent since [`Signals::started`]. One that came before has ended the process.
pub struct Signals {
    inner: Inner,
    is_starting: Arc<AtomicBool>,
}

impl Signals {
    /// Until the start is over a signal ends the process at once, as though nobody took it: nobody would act on it, and
    /// a start can be killed at any instruction.
    pub fn new() -> io::Result<Signals> {
        let is_starting = Arc::new(AtomicBool::new(true));
        for signal in [SIGTERM, SIGINT] {
            flag::register_conditional_default(signal, Arc::clone(&is_starting))?;
        }
        Ok(Signals { inner: Inner::new([SIGTERM, SIGINT])?, is_starting })
    }

    /// The start is over: what comes from now on is for [`Signals::wait`].
    pub fn started(&self) {
        self.is_starting.store(false, Ordering::SeqCst);
    }

    /// Blocks until one comes.
    pub fn wait(&mut self) -> Stop {
        match self.inner.forever().next() {
            Some(SIGINT) => Stop::EndAll,
            _ => Stop::Leave,
        }
    }
}
