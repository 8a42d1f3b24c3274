//! What the last server left of sessions, taken up at the start of this one.
//!
//! Runs on the main thread, before a client can ask for anything: it starts the threads of the sessions that have an
//! agent or work, and waits for none of them.

use super::command::Command;
use super::{Sessions, gateway};
use crate::error::Result;
use crate::keeper;
use crate::ledger::agent::{self as agent_rows, LiveAgent};
use crate::ledger::session::{self as session_rows, Waiting};
use std::collections::HashSet;

/// What the start found and took up.
#[derive(Debug, Default)]
pub struct Recovered {
    pub sessions_attached: usize,
    pub sessions_resumed: usize,
    /// Processes that the last server left running.
    pub processes_adopted: usize,
    pub orphans_stopped: usize,
}

impl Sessions {
    /// Takes up what the last server left: each session with an agent or with work gets its thread, in parallel and
    /// without waiting for it; one that was still starting is started; children that no session knows are stopped.
    pub fn recover(&self) -> Result<Recovered> {
        let ledger = &self.shared.ledger;
        let live = ledger.read(agent_rows::live_sessions)?;
        let waiting = ledger.read(session_rows::asleep_with_work)?;
        let starting = ledger.read(session_rows::starting)?;
        let known = ledger.read(agent_rows::known_children)?;
        // Looked for before the first thread runs: threads start children that `known` does not have.
        let mut orphans = keeper::list(&self.shared.keepers_dir())?;
        orphans.retain(|child_id| !known.contains(child_id));
        gateway::take_back_others(&self.shared.config.root_dir, &known);
        let recovered = Recovered {
            sessions_attached: live.len(),
            sessions_resumed: waiting.len(),
            orphans_stopped: orphans.len(),
            ..Recovered::default()
        };
        // Room is taken here, and not by their threads, so that nobody who comes now finds more than there is. First
        // for the agents that live, whatever the bound says now.
        let mut served = HashSet::new();
        for LiveAgent { session_id, provider, .. } in live {
            let reservation = self.shared.capacity.reserve_anyway(&provider);
            self.shared.wake(&session_id, Some(reservation))?;
            served.insert(session_id);
        }
        for Waiting { session_id, provider, wants_agent } in waiting {
            let reservation = if wants_agent { self.shared.reserve(&provider) } else { None };
            self.shared.wake(&session_id, reservation)?;
            if wants_agent {
                served.insert(session_id);
            }
        }
        for (session_id, provider) in starting {
            let reservation = match served.contains(&session_id) {
                true => None,
                false => self.shared.reserve(&provider),
            };
            // Whoever asked for it is gone with the last server; it is told by the log.
            drop(self.ask(&session_id, |answer| Command::Open { reservation, answer })?);
        }
        orphans.iter().for_each(|child_id| self.shared.end_orphan(child_id));
        Ok(recovered)
    }
}
