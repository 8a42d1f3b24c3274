//! The place where it is announced that mail waits: by those who send it, and by sessions that give it back.
//!
//! Used from the thread of whoever announces, and read by whoever brings mail. It has names of recipients alone: what
//! waits is in the ledger, so nothing is lost with it.

use super::Sessions;
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where mail that waits is announced. It holds each recipient once, so it is never fuller than there are recipients,
/// and announcing waits for nobody.
pub struct Post {
    awaited: Mutex<HashMap<String, &'static str>>,
    ring: Sender<()>,
    pub rings: Receiver<()>,
}

impl Default for Post {
    fn default() -> Post {
        let (ring, rings) = crossbeam_channel::bounded(1);
        Post { awaited: Mutex::default(), ring, rings }
    }
}

/// What made it so: mail that goes no further waits among the rest.
pub const LEFT: &str = "left";

impl Post {
    /// Says that mail waits for these recipients, and what made it so. Call it after the commit.
    pub fn announce(&self, recipients: impl IntoIterator<Item = String>, trigger: &'static str) {
        let mut awaited = self.lock();
        for recipient in recipients {
            let known = awaited.entry(recipient).or_insert(trigger);
            if *known != LEFT {
                *known = trigger;
            }
        }
        if !awaited.is_empty() {
            // A ring that was not heard yet is enough.
            self.ring.try_send(()).ok();
        }
    }

    /// What was announced since the last time.
    pub fn take(&self) -> HashMap<String, &'static str> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, &'static str>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Where it is announced that mail waits.
    pub fn post(&self) -> &Post {
        &self.shared.post
    }
}
