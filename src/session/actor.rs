//! The thread of one live session.
//!
//! It owns the adapter, the connection to the keeper and every transition of its session, and waits in one place: the
//! select in [`Actor::run`], over commands, agent output and the next deadline. What it holds in memory is a copy of
//! the ledger (see [`super::load`]); when a commit fails the copy is thrown away and read again. It ends when the
//! session is closed, failed or asleep and nobody has sent it anything meanwhile.

use super::agent::Agent;
use super::capacity::Reservation;
use super::command::{Answer, Command};
use super::step::{Afterwards, Step};
use super::terminal::Terminals;
use super::{Shared, apply, load};
use crate::error::{Code, Error, Result};
use crate::keeper::FromKeeper;
use crate::ledger::agent::Offsets;
use crate::ledger::idempotency::IdempotencyKey;
use crate::limits;
use crate::model::input::Input;
use crate::model::{ItemType, TurnSource, TurnStatus};
use crate::provider::{Adapter, AgentError, Effects, Usage};
use crate::watchdog;
use crossbeam_channel::{Receiver, Sender};
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A turn that a client wants.
pub struct TurnRequest {
    pub input: Vec<Input>,
    pub source: TurnSource,
    pub when: When,
    pub expected_turn_id: Option<String>,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    pub idempotency: Option<IdempotencyKey>,
    /// Its input was taken before: it is not refused for want of room any more.
    pub is_taken: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Now,
    Queue,
    Steer,
}

/// A client's answer to an approval.
#[derive(Clone, Debug)]
pub struct Decision {
    pub choice: Choice,
    pub message: Option<String>,
    pub payload: Option<Value>,
    /// For a gate: what the turn is to start with instead.
    pub input: Option<Vec<Input>>,
}

/// What is chosen: by its meaning, or exactly one option. Never both, of which one would count and the other not.
#[derive(Clone, Debug)]
pub enum Choice {
    Meant { is_accept: bool, is_session: bool },
    Option(String),
}

/// All that a session's thread waits for.
enum Event {
    Command(Box<Command>),
    Child(FromChild),
    /// A deadline has come.
    Time,
    /// The table of sessions is gone.
    NobodyLeft,
}

/// What comes from kept children.
pub(super) enum FromChild {
    Agent { child_id: Arc<str>, message: FromKeeper },
    Terminal { terminal_id: Arc<str>, message: FromKeeper },
}

pub(super) struct Actor {
    pub shared: Arc<Shared>,
    pub session_id: Arc<str>,
    pub session_key: i64,
    pub provider: Arc<str>,
    pub agent_name: String,
    pub commands: Receiver<Box<Command>>,
    pub children: (Sender<FromChild>, Receiver<FromChild>),
    pub state: State,
    pub reservation: Option<Reservation>,
    /// Set while the ledger refuses to commit: nothing is read from the agent until then.
    pub(super) retry_at: Option<Instant>,
    /// When the time of the record was written last, by this thread.
    touched_at: Option<Instant>,
    is_ending: bool,
    /// The server shuts down: nothing new is started.
    pub is_stopping: bool,
    /// It ends all agents with it.
    pub is_final_stop: bool,
    /// The agent was started with what does not hold any more.
    pub is_agent_stale: bool,
}

/// The copy of the ledger, and the agent.
#[derive(Default)]
pub(super) struct State {
    pub adapter: Option<Box<dyn Adapter>>,
    pub agent: Option<Agent>,
    pub phase: Phase,
    pub turn: Option<LiveTurn>,
    pub items: HashMap<String, LiveItem>,
    pub approvals: HashMap<String, LiveApproval>,
    pub terminals: Terminals,
    pub queued: usize,
    pub usage: Usage,
    pub title: Option<String>,
    /// Whether a person lets each turn through, unless the turn says otherwise.
    pub is_gated: bool,
    /// Why the session could not be opened, until the step that told it is committed; and whether it is gone.
    pub open_failure: Option<(AgentError, bool)>,
    /// What a restored adapter asks for again, until the agent is attached.
    pub again: Effects,
    /// The turn that mail joined last; None when this server has seen none.
    pub steered: Option<Arc<str>>,
    /// When to give up waiting for the agent's word on what was to join a turn.
    pub steer_deadline: Option<Instant>,
    /// Who waits for the agent to be ready.
    pub openers: Vec<Answer<()>>,
    /// Who waits for all that runs to be gone, and for that to be in the ledger.
    pub closers: Vec<Afterwards>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// No agent; one can be started.
    #[default]
    Asleep,
    /// The agent is started and has not opened the session yet; until the deadline.
    Opening {
        deadline: Instant,
        is_resume: bool,
    },
    Open,
    /// The agent was told to end; it is killed at the deadline.
    Stopping {
        deadline: Instant,
        why: Stop,
    },
    /// Closed, or failed: nothing more happens.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    Sleep,
    /// It was to sleep and did not end by itself.
    SleepBySignal,
    Close,
    Shutdown,
    /// It did not do what it was told in time.
    Unresponsive,
}

/// The active turn.
pub(super) struct LiveTurn {
    pub turn_id: Arc<str>,
    pub source: TurnSource,
    pub is_dispatched: bool,
    /// Where in the agent's stdin the bytes that tell it of the turn begin; None when another server sent them.
    pub told_at: Option<i64>,
    /// The gate's approval while nobody has let the turn through.
    pub gate: Option<String>,
    pub input: Vec<Input>,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    pub assistant_text: String,
    pub usage: Option<Usage>,
    pub plan: Option<Vec<Value>>,
    /// When to give up waiting for the agent to obey an interrupt.
    pub interrupt_deadline: Option<Instant>,
    pub is_interrupted: bool,
    pub timeout_at: Option<Instant>,
    /// For a turn that the agent began: when it counts as over unless something happens.
    pub quiet_at: Option<Instant>,
}

pub(super) struct LiveItem {
    pub item_id: Arc<str>,
    /// The turn that it belongs to; over already when `goes_on`.
    pub turn_id: Arc<str>,
    pub goes_on: bool,
    pub item_type: ItemType,
    pub body: Map<String, Value>,
    /// What the deltas have added up to, by field.
    pub text: String,
    pub output: String,
    pub created_at: i64,
}

pub(super) struct LiveApproval {
    pub adapter_key: String,
    /// When its time is over, whatever is done to the clock meanwhile.
    pub expires_at: Option<Instant>,
}

/// Work that the agent began by itself counts as over after this much quiet where nothing of it runs; ACP has no word
/// for its end.
pub(super) const AGENT_TURN_QUIET: Duration = Duration::from_secs(2);
/// How long an agent may take to obey an interrupt before it is ended.
pub(super) const INTERRUPT_GRACE: Duration = Duration::from_secs(15);
/// How long an agent may take to say whether it has heard what was to join a turn, before it is ended.
pub(super) const STEER_GRACE: Duration = Duration::from_secs(15);
/// How long an agent may take to end after its stdin was closed, before it gets SIGTERM.
pub(super) const SLEEP_GRACE: Duration = Duration::from_secs(8);
/// The pause after a commit that failed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

impl Actor {
    /// One that knows nothing yet: it is to be read from the ledger.
    pub(super) fn new(
        shared: Arc<Shared>,
        session_id: Arc<str>,
        commands: Receiver<Box<Command>>,
        reservation: Option<Reservation>,
    ) -> Actor {
        let children = crossbeam_channel::bounded(limits::AGENT_INBOX);
        Actor {
            shared,
            session_id,
            session_key: 0,
            provider: Arc::from(""),
            agent_name: String::new(),
            commands,
            children,
            state: State::default(),
            reservation,
            retry_at: None,
            touched_at: None,
            is_ending: false,
            is_stopping: false,
            is_final_stop: false,
            is_agent_stale: false,
        }
    }

    /// The loop, behind commands that came before it. Returns when the thread has nothing left to own.
    pub(super) fn run(&mut self, unserved: Vec<Command>) {
        load::go_on(self);
        unserved.into_iter().for_each(|command| self.serve(command));
        while !(self.is_ending || self.is_done() && self.retire()) {
            match self.next_event() {
                Event::Command(command) => self.serve(*command),
                Event::Child(message) => self.hear(message),
                Event::Time => self.on_time(),
                Event::NobodyLeft => self.is_ending = true,
            }
        }
        self.leave();
    }

    fn next_event(&self) -> Event {
        let deadline = match self.deadline() {
            Some(deadline) => crossbeam_channel::at(deadline),
            None => crossbeam_channel::never(),
        };
        let never = crossbeam_channel::never();
        // While a commit is to be tried again the agent's output stays in its journal.
        let output = if self.retry_at.is_some() { &never } else { &self.children.1 };
        watchdog::rest(|| {
            crossbeam_channel::select! {
                recv(self.commands) -> command => command.map_or(Event::NobodyLeft, Event::Command),
                // This actor holds a sender too, so the channel does not close.
                recv(output) -> message => message.map_or(Event::Time, Event::Child),
                recv(deadline) -> _ => Event::Time,
            }
        })
    }

    fn retire(&self) -> bool {
        self.shared.retire(&self.session_id, &self.commands)
    }

    fn is_done(&self) -> bool {
        let state = &self.state;
        let is_at_rest = state.phase == Phase::Over
            || self.is_stopping
            || (state.phase == Phase::Asleep && state.turn.is_none() && state.queued == 0);
        is_at_rest && state.agent.is_none() && state.terminals.is_empty() && self.retry_at.is_none()
    }

    fn serve(&mut self, command: Command) {
        match command {
            Command::Open { reservation, answer } => self.open(reservation, answer),
            Command::StartTurn { request, reservation, answer } => {
                self.start_turn(*request, reservation, &answer);
            }
            Command::Carry { mail, reservation, answer } => self.carry(*mail, reservation, &answer),
            Command::Interrupt { turn_id, answer } => self.interrupt(&turn_id, &answer),
            Command::Decide { approval_id, decision, reservation, answer } => {
                self.keep(reservation);
                self.decide(&approval_id, decision, &answer);
            }
            Command::Close { reason, answer } => self.close(reason, answer),
            Command::AwaitEnd { answer } => self.await_end(answer),
            Command::Sleep { answer } => self.sleep(Some(answer)),
            Command::Renew => self.renew(),
            Command::Shutdown { is_final } => self.shut_down(is_final),
        }
    }

    /// Takes one message and whatever else waits, up to a bound, into one step.
    fn hear(&mut self, first: FromChild) {
        let mut step = self.step();
        let mut bytes = self.take(first, &mut step);
        while bytes < limits::SESSION_BATCH_BYTES {
            let Ok(message) = self.children.1.try_recv() else { break };
            bytes += self.take(message, &mut step);
        }
        if self.commit(step).is_ok() {
            self.after_output();
        }
    }

    /// Works one message into the step; returns its size.
    fn take(&mut self, message: FromChild, step: &mut Step) -> usize {
        match message {
            FromChild::Agent { child_id, message } => {
                let is_current =
                    self.state.agent.as_ref().is_some_and(|agent| agent.child_id == child_id);
                if is_current { self.hear_agent(message, step) } else { 0 }
            }
            FromChild::Terminal { terminal_id, message } => {
                self.hear_terminal(&terminal_id, message, step)
            }
        }
    }

    pub(super) fn step(&self) -> Step {
        Step::new(Arc::clone(&self.session_id), Arc::clone(&self.provider))
    }

    /// Commits a step together with the journal offsets and the adapter's snapshot, sends what it has for the agent,
    /// and does what comes afterwards. An error leaves the session as the ledger has it: until it is read again no step
    /// is taken, since what is in memory has the one that failed in it, and no agent that could be told.
    pub(super) fn commit(&mut self, mut step: Step) -> Result<()> {
        if self.retry_at.is_some() {
            return Err(unwritten());
        }
        let stdin = std::mem::take(&mut step.stdin);
        let is_session_changed = step.is_session_changed;
        // Each delta with a time of its own would make a third of what a steady delta writes.
        let is_due = |at: Instant| at.elapsed() >= limits::SESSION_TIME_STEP;
        let is_touched =
            step.is_visible || (step.is_text_longer && self.touched_at.is_none_or(is_due));
        let session_id = Arc::clone(&self.session_id);
        let session_key = self.session_key;
        let agent = self.state.agent.as_mut().map(|agent| {
            let snapshot = agent.changed_snapshot(self.state.adapter.as_deref());
            let (stdin_at, accepted) = (agent.offsets.stdin, agent.newly_accepted());
            agent.offsets.stdin += i64::try_from(stdin.len()).unwrap_or(0);
            (agent.offsets, snapshot, stdin_at, accepted)
        });
        let is_agent_changed = agent.as_ref().is_some_and(|(offsets, snapshot, ..)| {
            snapshot.is_some() || Some(*offsets) != self.state.committed_offsets()
        });
        if step.is_empty() && stdin.is_empty() && !is_agent_changed {
            let (_, afterwards) = step.into_parts();
            afterwards.into_iter().for_each(|action| action());
            return Ok(());
        }
        let (changes, afterwards) = step.into_parts();
        let bytes = stdin.clone();
        let committed = self.shared.ledger.write(move |tx| {
            for change in &changes {
                change(tx)?;
            }
            if let Some((offsets, snapshot, stdin_at, accepted)) = &agent {
                tx.update_agent(session_key, *offsets, snapshot.as_deref())?;
                if !bytes.is_empty() {
                    tx.insert_stdin(session_key, *stdin_at, &bytes)?;
                }
                if let Some(accepted) = accepted {
                    tx.trim_stdin(session_key, *accepted)?;
                }
            }
            if is_session_changed {
                apply::session_updated(tx, &session_id)?;
            }
            if is_touched {
                tx.touch_session(&session_id)?;
            }
            Ok(())
        });
        if let Err(error) = committed {
            self.give_up_copy(&error);
            return Err(error);
        }
        if is_touched {
            self.touched_at = Some(Instant::now());
        }
        if let Some(agent) = &mut self.state.agent {
            agent.is_committed(stdin, self.shared.config.journal_bytes_max);
        }
        self.give_back_room();
        afterwards.into_iter().for_each(|action| action());
        Ok(())
    }

    /// The ledger did not take a step, so what is in memory may be ahead of it: forget it and read it again; at once
    /// where the step itself has found that it came too late.
    pub(super) fn give_up_copy(&mut self, error: &Error) {
        let (level, pause) = match error.code {
            Code::Conflict => (log::Level::Info, Duration::ZERO),
            _ => (log::Level::Error, RETRY_PAUSE),
        };
        log::log!(level, "session {}: it is read again: {error}", self.session_id);
        self.retry_at = Some(Instant::now() + pause);
        for opener in self.state.openers.drain(..) {
            drop(opener.send(Err(Error::new(error.code, error.message.clone()))));
        }
        self.drop_agent();
    }

    fn deadline(&self) -> Option<Instant> {
        if self.retry_at.is_some() {
            return self.retry_at;
        }
        let phase = match self.state.phase {
            Phase::Opening { deadline, .. } | Phase::Stopping { deadline, .. } => Some(deadline),
            Phase::Asleep | Phase::Open | Phase::Over => None,
        };
        let turn = self.state.turn.as_ref();
        let idle = self.idle_deadline();
        let expiry = self.next_expiry();
        [
            phase,
            turn.and_then(|turn| turn.interrupt_deadline),
            turn.and_then(|turn| turn.timeout_at),
            turn.and_then(|turn| self.quiet_deadline(turn)),
            self.state.steer_deadline,
            self.state.terminals.deadline(),
            idle,
            expiry,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does whatever is due now.
    fn on_time(&mut self) {
        let now = Instant::now();
        if let Some(retry_at) = self.retry_at {
            if now >= retry_at {
                self.read_again();
            }
            return;
        }
        let is_due = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        match self.state.phase {
            Phase::Opening { deadline, .. } if now >= deadline => self.opening_timed_out(),
            Phase::Stopping { deadline, why } if now >= deadline => self.stopping_timed_out(why),
            _ => {}
        }
        let turn = self.state.turn.as_ref();
        let interrupt_deadline = turn.and_then(|turn| turn.interrupt_deadline);
        if is_due(interrupt_deadline) || is_due(self.state.steer_deadline) {
            self.end_agent(Stop::Unresponsive);
        } else if is_due(turn.and_then(|turn| turn.timeout_at)) {
            self.turn_timed_out();
        } else if is_due(turn.and_then(|turn| self.quiet_deadline(turn))) {
            self.agent_turn_quiet();
        }
        if is_due(self.state.terminals.deadline()) {
            self.sweep_terminals();
        }
        if self.is_expiry_due() {
            self.expire_approvals();
        }
        if is_due(self.idle_deadline()) {
            self.sleep(None);
        }
    }

    pub(super) fn read_again(&mut self) {
        self.retry_at = None;
        match load::load(self) {
            Ok(()) => load::go_on(self),
            Err(error) => self.give_up_copy(&error),
        }
        if self.is_stopping && self.retry_at.is_none() {
            self.shut_down(self.is_final_stop);
        }
    }

    /// The ledger must be readable and the copy good before a command is worked on.
    pub(super) fn ready_for_commands(&mut self) -> Result<()> {
        if self.retry_at.is_some() {
            self.read_again();
        }
        if self.retry_at.is_some() { Err(unwritten()) } else { Ok(()) }
    }

    /// The thread ends: whoever still waits is told.
    fn leave(&mut self) {
        for opener in self.state.openers.drain(..) {
            drop(opener.send(Err(Error::new(Code::ShuttingDown, "the server is shutting down"))));
        }
    }

    pub(super) fn end_thread(&mut self) {
        self.is_ending = true;
    }

    pub(super) fn is_turn_active(&self) -> bool {
        self.state.turn.is_some()
    }
}

fn unwritten() -> Error {
    Error::new(Code::Capacity, "the session can not be written to at the moment")
        .hint("the log of the server says why; try again")
}

impl State {
    pub(super) fn committed_offsets(&self) -> Option<Offsets> {
        self.agent.as_ref().map(|agent| agent.committed)
    }
}

impl LiveTurn {
    /// How the turn ends when its agent is gone.
    pub(super) fn end_without_agent(&self) -> TurnStatus {
        if self.is_interrupted { TurnStatus::Interrupted } else { TurnStatus::Failed }
    }
}
