//! What the callers of teams, the dispatcher and its lanes have in common.

use crate::config::Config;
use crate::ledger::Ledger;
use crate::session::Sessions;
use crate::worktree::Worktrees;
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(super) struct Shared {
    pub config: Arc<Config>,
    pub ledger: Ledger,
    pub sessions: Sessions,
    pub worktrees: Worktrees,
    pub post: Post,
    pub counters: Counters,
}

/// What the dispatcher does and has done, for diagnostics.
#[derive(Default)]
pub(super) struct Counters {
    /// Recipients for whom mail waits now.
    pub awaited: AtomicUsize,
    /// Attempts under way.
    pub under_way: AtomicUsize,
    pub attempts: AtomicU64,
    pub not_now: AtomicU64,
}

/// Where new mail is announced. It holds each recipient once, so it is never fuller than there are recipients, and
/// announcing waits for nobody.
pub(super) struct Post {
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

impl Post {
    /// Says that there is mail for these recipients, and what made it so. Call it after the commit.
    pub(super) fn announce(
        &self,
        recipients: impl IntoIterator<Item = String>,
        trigger: &'static str,
    ) {
        let mut awaited = self.lock();
        awaited.extend(recipients.into_iter().map(|recipient| (recipient, trigger)));
        if !awaited.is_empty() {
            // A ring that was not heard yet is enough.
            self.ring.try_send(()).ok();
        }
    }

    /// What was announced since the last time.
    pub(super) fn take(&self) -> HashMap<String, &'static str> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, &'static str>> {
        self.awaited.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
