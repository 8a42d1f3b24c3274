//! What the callers of teams, the dispatcher and its lanes have in common.

use super::recovery::Left;
use crate::config::Config;
use crate::ledger::Ledger;
use crate::session::Sessions;
use crate::worktree::Worktrees;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize};

pub(super) struct Shared {
    pub config: Arc<Config>,
    pub ledger: Ledger,
    pub sessions: Sessions,
    pub worktrees: Worktrees,
    pub counters: Counters,
    pub left: Left,
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
    /// Of the dispatcher: defects.
    pub panics: AtomicU64,
}
