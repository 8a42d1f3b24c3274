//! Letting an agent rest: sleep when it is idle, stop when it is told to, leave when the server goes.
//!
//! Runs on the session's thread. An agent that can be resumed is put to sleep by closing its stdin, so that it writes
//! down what it has; a busy one is left to its keeper when the server stops. When work that the agent began by itself
//! counts as over is decided here too. What an agent's end means for its turn is in [`super::agent`].

use super::actor::{AGENT_TURN_QUIET, Actor, LiveItem, LiveTurn, Phase, SLEEP_GRACE, Stop};
use super::command::Answer;
use super::step::{Afterwards, Step};
use crate::keeper;
use crate::model::ItemType;
use std::time::{Duration, Instant};

/// How long the end of an agent or a terminal may take beyond its grace. Less than a keeper may need for a tree that it
/// gives up ([`keeper::STOP_SLACK`]): the end fits into the time that a stop of the server has.
pub(super) const STOP_SLACK: Duration = Duration::from_secs(5);

/// A tool of such work that tells nothing for so long is taken to be over: an agent that forgets one must not keep its
/// session from sleep, nor mail that waits for the end of the turn.
const AGENT_TOOL_QUIET: Duration = Duration::from_secs(60 * 60);

impl Actor {
    /// When work that the agent began by itself counts as over unless something happens.
    ///
    /// Never while it asks a person, or while the agent is to say so itself: then it is bound as a turn of a person is,
    /// by the turn timeout, an interrupt, the next turn and the end of the agent. While a tool of it runs, quiet means
    /// little: the turn timeout bounds it, and without one [`AGENT_TOOL_QUIET`].
    pub(super) fn quiet_deadline(&self, turn: &LiveTurn) -> Option<Instant> {
        let quiet_at = turn.quiet_at?;
        let tells_end = self.state.adapter.as_ref().is_some_and(|adapter| adapter.tells_end());
        if tells_end || !self.state.approvals.is_empty() {
            return None;
        }
        // What is said has no end of its own in ACP: an open message is no work.
        let is_tool = |item: &&LiveItem| {
            item.turn_id == turn.turn_id
                && !matches!(item.item_type, ItemType::AssistantMessage | ItemType::Reasoning)
        };
        match self.state.items.values().find(is_tool) {
            Some(_) => Some(quiet_at + (AGENT_TOOL_QUIET - AGENT_TURN_QUIET)),
            None => Some(quiet_at),
        }
    }

    /// Ends the agent's whole tree.
    pub(super) fn end_agent(&mut self, why: Stop) {
        let grace = self.shared.config.keeper_grace;
        if let Some(turn) = &mut self.state.turn {
            turn.interrupt_deadline = None;
        }
        self.state.steer_deadline = None;
        let Some(agent) = &self.state.agent else { return };
        if let Some(keeper) = &agent.keeper {
            keeper.stop(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
        }
        // The keeper kills after its grace; this is for a keeper that does not answer.
        let deadline = Instant::now() + grace + STOP_SLACK;
        self.state.phase = Phase::Stopping { deadline, why };
    }

    pub(super) fn idle_deadline(&self) -> Option<Instant> {
        let agent = self.state.agent.as_ref()?;
        if self.state.phase != Phase::Open || self.is_busy() {
            return None;
        }
        let idle_sleep = self.shared.provider(&self.provider).idle_sleep;
        let sleep_at =
            idle_sleep.filter(|_| self.can_sleep()).map(|pause| agent.idle_since + pause);
        [sleep_at, agent.trim_at].into_iter().flatten().min()
    }

    /// A turn runs or waits, or a command goes on behind its turn: it would end with the agent.
    fn is_busy(&self) -> bool {
        self.is_turn_active() || self.state.queued > 0 || !self.state.items.is_empty()
    }

    fn can_sleep(&self) -> bool {
        self.state.adapter.as_ref().is_some_and(|adapter| adapter.capabilities().resume)
    }

    /// Puts an idle agent to sleep, or empties its journal when only that is due. One that is about to end makes room
    /// too.
    pub(super) fn sleep(&mut self, answer: Option<Answer<bool>>) {
        let now = Instant::now();
        let pause = self.shared.provider(&self.provider).idle_sleep;
        let is_idle = self.state.phase == Phase::Open && !self.is_busy();
        let can_sleep = is_idle && self.can_sleep();
        let Some(agent) = &mut self.state.agent else {
            answer.map(|answer| answer.send(Ok(true)));
            return;
        };
        if let (Phase::Stopping { .. }, Some(answer)) = (&self.state.phase, &answer) {
            return self.state.closers.push(tell_asleep(answer.clone()));
        }
        if agent.trim_at.is_some_and(|trim_at| now >= trim_at) {
            agent.trim_at = None;
            agent.acknowledge(true);
        }
        let is_due = pause.is_some_and(|pause| now >= agent.idle_since + pause);
        if !can_sleep || (answer.is_none() && !is_due) {
            answer.map(|answer| answer.send(Ok(false)));
            return;
        }
        if let Some(keeper) = &agent.keeper {
            keeper.close_stdin();
        }
        self.state.phase = Phase::Stopping { deadline: now + SLEEP_GRACE, why: Stop::Sleep };
        if let Some(answer) = answer {
            self.state.closers.push(tell_asleep(answer));
        }
    }

    /// Marks the agent as one that is to be started anew, and does so now if it does nothing.
    pub(super) fn renew(&mut self) {
        self.is_agent_stale = true;
        self.start_next();
    }

    /// Puts an agent that is to be started anew to sleep, if it was not told of a turn; whether it did. The turn that
    /// waits wakes the next one.
    pub(super) fn rest_if_stale(&mut self) -> bool {
        let is_busy = self.state.turn.as_ref().is_some_and(|turn| turn.is_dispatched);
        let is_idle = self.state.phase == Phase::Open && !is_busy;
        if !self.is_agent_stale || !is_idle || !self.can_sleep() {
            return false;
        }
        if let Some(keeper) = self.state.agent.as_ref().and_then(|agent| agent.keeper.as_ref()) {
            keeper.close_stdin();
        }
        let deadline = Instant::now() + SLEEP_GRACE;
        self.state.phase = Phase::Stopping { deadline, why: Stop::Sleep };
        true
    }

    pub(super) fn stopping_timed_out(&mut self, why: Stop) {
        let Some(agent) = &self.state.agent else { return };
        if why == Stop::Sleep {
            // It did not end when its stdin closed: now by signal, and it still counts as sleep.
            return self.end_agent(Stop::SleepBySignal);
        }
        log::error!("session {}: the keeper of its agent does not answer", self.session_id);
        // The keeper dies with what it holds; its end is heard as any other.
        if let Err(error) = keeper::sweep(&agent.child_id) {
            log::error!("session {}: {error}", self.session_id);
        }
        self.state.phase = Phase::Stopping { deadline: Instant::now() + SLEEP_GRACE, why };
    }

    /// Answers those who wait for the end of what runs. A session that only sleeps has no more than its agent to end.
    pub(super) fn tell_closers(&mut self, step: &mut Step) {
        if self.is_alone() || self.state.phase != Phase::Over {
            for closer in std::mem::take(&mut self.state.closers) {
                step.afterwards(closer);
            }
        }
    }

    pub(super) fn shut_down(&mut self, is_final: bool) {
        self.is_stopping = true;
        self.is_final_stop = is_final;
        if self.retry_at.is_some() {
            // What can not be written down does not keep an agent alive; one that is to go on is let go of already.
            return if is_final { self.read_again() } else { self.end_thread() };
        }
        let is_busy = self.is_busy();
        if is_final && matches!(self.state.phase, Phase::Stopping { why: Stop::Sleep, .. }) {
            // It may not heed the end of its stdin.
            self.end_agent(Stop::SleepBySignal);
        } else if matches!(self.state.phase, Phase::Stopping { .. }) {
            // It ends by itself soon.
        } else if is_final && self.state.agent.is_some() {
            if let Some(turn) = &mut self.state.turn {
                turn.is_interrupted = true;
            }
            self.end_agent(Stop::Shutdown);
        } else if !is_busy && self.can_sleep() && self.state.phase == Phase::Open {
            self.sleep(Some(crossbeam_channel::bounded(1).0));
        } else {
            self.drop_agent();
            self.end_thread();
        }
    }
}

fn tell_asleep(answer: Answer<bool>) -> Afterwards {
    Box::new(move || drop(answer.send(Ok(true))))
}
