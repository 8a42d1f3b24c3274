//! Floor 5: teams. Sessions that know each other, what they write to each other, and how it reaches them.
//!
//! [`Teams`] is what the HTTP floor (and whatever else speaks for people or agents) calls; its methods run on the
//! caller's thread and end with a commit. Delivery is the business of the dispatcher ([`Dispatch`]), which reads from
//! the ledger what waits and for whom: `plan` decides, `attempt` carries out, `letter` is what the agent reads. Members
//! are made by `spawn` and taken away by `takedown`, over a journal that `recovery` takes up after a crash. Who may do
//! what is the caller's question: nothing here knows a token.

mod attempt;
mod dispatcher;
mod letter;
mod plan;
mod recovery;
mod roster;
mod send;
mod shared;
mod spawn;
mod status;
mod supervise;
mod takedown;

pub use dispatcher::Dispatch;
pub use roster::{Joining, NewTeam};
pub use send::{Ack, Outgoing, Recipients};
pub use spawn::{SpawnRequest, SpawnResult, Spawned};
pub use status::TeamStatus;
pub use supervise::{Activity, InterruptAll};
pub use takedown::Departure;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::ledger::Ledger;
use crate::ledger::team::operation;
use crate::session::Sessions;
use crate::thread::{self, Thread};
use crate::worktree::Worktrees;
use recovery::Left;
use serde::Serialize;
use shared::{Counters, Shared};
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// The teams of this server; cheap to clone.
#[derive(Clone)]
pub struct Teams {
    shared: Arc<Shared>,
}

/// What the dispatcher is doing.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DispatchCounts {
    pub recipients_awaited: usize,
    pub attempts_under_way: usize,
    pub attempts: u64,
    /// Attempts that met another state than they were planned for; they are made again.
    pub attempts_not_now: u64,
    /// How often a defect has made it begin anew.
    pub panics: u64,
}

impl Teams {
    pub fn new(
        config: Arc<Config>,
        ledger: Ledger,
        sessions: Sessions,
        worktrees: Worktrees,
    ) -> Teams {
        let (counters, left) = (Counters::default(), Left::default());
        let shared = Shared { config, ledger, sessions, worktrees, counters, left };
        Teams { shared: Arc::new(shared) }
    }

    /// Takes up the operations that the last server left in their middle: those that had made nothing at once, so that
    /// whoever asks again with their key is not told that they go on. Before the first request, and when the sessions
    /// are being taken up. Gives the thread of the others.
    pub fn recover(&self) -> Result<Thread> {
        let shared = Arc::clone(&self.shared);
        let left = shared.ledger.read(operation::unfinished)?;
        recovery::take_back_planned(&shared, left)?;
        thread::spawn("team-recovery", move || recovery::serve(&shared))
            .map_err(|error| Error::internal("no thread can be started").source(error))
    }

    /// Ends the thread of [`Teams::recover`], when the sessions are told to stop. Does not wait.
    pub fn stop(&self) {
        self.shared.left.wake();
    }

    /// Starts to deliver: first what earlier servers have left, also what they were in the middle of.
    pub fn start(&self) -> Result<Dispatch> {
        Dispatch::start(&self.shared)
    }

    pub fn dispatch_counts(&self) -> DispatchCounts {
        let counters = &self.shared.counters;
        DispatchCounts {
            recipients_awaited: counters.awaited.load(Ordering::Relaxed),
            attempts_under_way: counters.under_way.load(Ordering::Relaxed),
            attempts: counters.attempts.load(Ordering::Relaxed),
            attempts_not_now: counters.not_now.load(Ordering::Relaxed),
            panics: counters.panics.load(Ordering::Relaxed),
        }
    }

    fn refuse_when_off(&self) -> Result<()> {
        if self.shared.config.teams.is_enabled {
            return Ok(());
        }
        Err(Error::new(Code::Conflict, "teams are off in the configuration")
            .hint("set teams.enabled = true"))
    }
}
