//! The agent process of a session: starting it, hearing it, losing it, putting it to sleep.
//!
//! Runs on the session's thread. Order that makes kill -9 harmless: the ledger knows of an agent before its keeper is
//! started (a keeper that no row names is stopped at the next start), and bytes for its stdin are committed with their
//! offset before they are sent (sent twice, the keeper takes them once).

use super::actor::{AGENT_TURN_QUIET, Actor, FromChild, Phase, SLEEP_GRACE, Stop};
use super::capacity::Reservation;
use super::command::Answer;
use super::failure::{agent_error, exit_error};
use super::gateway::{self, Token};
use super::launch;
use super::step::{Step, offset_of};
use crate::error::{Code, Error, Result};
use crate::keeper::{self, Exit, FromKeeper, Hello, Keeper, Stream};
use crate::ledger::agent::Offsets;
use crate::limits;
use crate::model::event::EventKind;
use crate::model::id;
use crate::provider::{self, Adapter, AgentError, Effects, Open};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a session knows of its agent process.
pub(super) struct Agent {
    pub child_id: Arc<str>,
    pub(super) keeper: Option<Keeper>,
    /// Where the journals stand with the step that is being made.
    pub offsets: Offsets,
    /// Where they stand in the ledger.
    pub committed: Offsets,
    /// The snapshot that the ledger has.
    snapshot: String,
    /// Decided bytes that the keeper has not taken yet.
    unsent: VecDeque<(i64, Vec<u8>)>,
    /// Up to where they were handed to the keeper's connection.
    sent: i64,
    /// What the keeper has taken, and up to where the ledger has forgotten it.
    accepted: i64,
    forgotten: i64,
    /// Stdout behind the last whole line, and where the next byte is expected.
    line: Vec<u8>,
    line_dropped: usize,
    read_offset: u64,
    stderr_tail: VecDeque<u8>,
    stderr_offset: u64,
    is_attached: bool,
    /// Its stdin is closed: what goes there is taken by nobody.
    is_deaf: bool,
    /// It was running when this server started.
    pub is_adopted: bool,
    /// The log has its start.
    is_told: bool,
    pub pid: Option<u32>,
    pub idle_since: Instant,
    pub(super) acknowledged: i64,
    pub(super) trim_at: Option<Instant>,
}

/// Output is acknowledged to the keeper in steps of this size at most while a turn runs.
const ACKNOWLEDGE_BYTES: u64 = 256 * 1024;
/// A quiet agent's journal is emptied after this pause.
const TRIM_PAUSE: Duration = Duration::from_secs(1);

impl Agent {
    pub(super) fn new(child_id: Arc<str>, committed: Offsets, snapshot: String) -> Agent {
        Agent {
            child_id,
            keeper: None,
            offsets: committed,
            committed,
            snapshot,
            unsent: VecDeque::new(),
            sent: 0,
            accepted: 0,
            forgotten: 0,
            line: Vec::new(),
            line_dropped: 0,
            read_offset: u64::try_from(committed.stdout).unwrap_or(0),
            stderr_tail: VecDeque::new(),
            stderr_offset: u64::try_from(committed.stderr).unwrap_or(0),
            is_attached: false,
            is_deaf: false,
            is_adopted: false,
            is_told: false,
            pid: None,
            idle_since: Instant::now(),
            acknowledged: committed.stdout,
            trim_at: None,
        }
    }

    pub(super) fn set_told(&mut self, is_told: bool) {
        self.is_told = is_told;
    }

    pub(super) fn set_unsent(&mut self, unsent: Vec<(i64, Vec<u8>)>) {
        self.unsent = unsent.into();
    }

    /// The adapter's snapshot when it differs from the one in the ledger.
    pub(super) fn changed_snapshot(&mut self, adapter: Option<&dyn Adapter>) -> Option<String> {
        let snapshot = adapter?.snapshot();
        if snapshot == self.snapshot {
            return None;
        }
        self.snapshot.clone_from(&snapshot);
        Some(snapshot)
    }

    /// What the keeper has taken since the ledger was last told. It is no reason for a commit of its own.
    pub(super) fn newly_accepted(&self) -> Option<i64> {
        (self.accepted != self.forgotten).then_some(self.accepted)
    }

    /// The step is committed: its bytes may go out, and what it covered may leave the journal.
    pub(super) fn is_committed(&mut self, stdin: Vec<u8>, journal_bytes_max: u64) {
        let at = self.committed.stdin;
        self.committed = self.offsets;
        self.forgotten = self.accepted;
        if !stdin.is_empty() {
            self.unsent.push_back((at, stdin));
            self.send_unsent();
        }
        // Well before the journal is full: an agent that can not write can not end its turn.
        let step = ACKNOWLEDGE_BYTES.min(journal_bytes_max / 4);
        if self.committed.stdout - self.acknowledged >= offset_of(step) {
            self.acknowledge(false);
        }
    }

    /// Where the next byte for stdin goes, behind what the step already has for it.
    pub(super) fn stdin_end(&self, step: &Step) -> i64 {
        self.offsets.stdin + i64::try_from(step.stdin.len()).unwrap_or(0)
    }

    /// Sends what was not sent yet. What the keeper can not hold now is sent when the agent has read some.
    fn send_unsent(&mut self) {
        let (true, Some(keeper)) = (self.is_attached && !self.is_deaf, &self.keeper) else {
            return;
        };
        let from = self.sent;
        for (at, bytes) in self.unsent.iter().filter(|(at, _)| *at >= from) {
            if keeper.stdin(offset_back(*at), bytes.clone()).is_err() {
                return;
            }
            self.sent = at + i64::try_from(bytes.len()).unwrap_or(0);
        }
    }

    pub(super) fn acknowledge(&mut self, trim: bool) {
        self.acknowledged = self.committed.stdout;
        if let Some(keeper) = &self.keeper {
            keeper.ack(offset_back(self.committed.stdout), self.stderr_offset, trim);
        }
    }

    fn stderr_text(&self) -> String {
        let (a, b) = self.stderr_tail.as_slices();
        String::from_utf8_lossy(&[a, b].concat()).into_owned()
    }
}

fn offset_back(offset: i64) -> u64 {
    u64::try_from(offset).unwrap_or(0)
}

impl Actor {
    /// Makes sure that the agent is there; answers when it is ready.
    pub(super) fn open(&mut self, reservation: Option<Reservation>, answer: Answer<()>) {
        if let Err(error) = self.ready_for_commands().and_then(|()| self.refuse_when_closing()) {
            drop(answer.send(Err(error)));
            return;
        }
        self.keep(reservation);
        match self.state.phase {
            Phase::Open => drop(answer.send(Ok(()))),
            Phase::Over | Phase::Opening { .. } | Phase::Stopping { .. } => {
                self.state.openers.push(answer);
            }
            Phase::Asleep => {
                self.state.openers.push(answer);
                if self.launch(self.step()) {
                    self.start_next();
                }
            }
        }
    }

    pub(super) fn keep(&mut self, reservation: Option<Reservation>) {
        if reservation.is_some() {
            self.reservation = reservation;
        }
    }

    /// The room of an agent that is gone is free for another session, unless this one has work for the
    /// next. Called when that is in the ledger and before anybody is told.
    pub(super) fn give_back_room(&mut self) {
        let state = &self.state;
        let is_wanted = state.turn.as_ref().is_some_and(|turn| turn.gate.is_none())
            || state.queued > 0
            || !state.openers.is_empty();
        if state.agent.is_none() && (state.phase == Phase::Over || !is_wanted) {
            self.reservation = None;
        }
    }

    /// Starts the agent and begins the handshake, in the transaction of `step`. Returns whether that has failed
    /// already, with whatever needed the agent.
    pub(super) fn launch(&mut self, mut step: Step) -> bool {
        if self.reservation.is_none() {
            self.reservation = self.shared.reserve(&self.provider);
        }
        if self.reservation.is_none() {
            drop(self.commit(step));
            return self.opening_failed(&AgentError {
                code: "capacity".to_owned(),
                message: "as many agents live as the configuration allows".to_owned(),
                data: Value::Null,
            });
        }
        let child_id: Arc<str> = id::new("agent").into();
        let (mut open, is_resume) = match self.how_to_open() {
            Ok(how) => how,
            Err(error) => return self.unreadable(&error),
        };
        let token = match self.give_tools(&mut open, &child_id) {
            Ok(token) => token,
            Err(error) => return self.opening_failed(&agent_error(&error)),
        };
        self.is_agent_stale = false;
        let mut adapter = provider::adapter(&self.provider);
        let mut effects = Effects::default();
        adapter.open(&open, &mut effects);
        step.stdin.append(&mut effects.stdin);
        let (session_key, child) = (self.session_key, Arc::clone(&child_id));
        let token_hash = token.as_ref().map(|token| token.hash);
        step.change(move |tx| {
            tx.insert_agent(session_key, &child, "null")?;
            token_hash.map_or(Ok(()), |token_hash| tx.insert_token(session_key, &token_hash))
        });
        step.is_visible = true;
        self.state.agent = Some(Agent::new(child_id, Offsets::default(), String::new()));
        self.state.adapter = Some(adapter);
        let deadline = Instant::now() + self.shared.provider(&self.provider).request_timeout;
        self.state.phase = Phase::Opening { deadline, is_resume };
        if self.commit(step).is_ok()
            && let Err(error) = self.start_keeper(token.as_ref())
        {
            let exit = never_started(&error);
            let mut step = self.step();
            self.agent_exited(&exit, &mut step);
            if self.commit(step).is_ok() {
                self.after_output();
            }
        }
        false
    }

    /// What the agent is to open, and whether the session was open before. A native session in which nothing was said
    /// is not resumed: some agents (Claude is one) keep no such session, and nothing is lost with it.
    fn how_to_open(&self) -> Result<(Open, bool)> {
        let ledger = &self.shared.ledger;
        let (private, is_any_told) = ledger.read(|db| {
            let private = crate::ledger::session::get_private(db, &self.session_id)?;
            Ok((private, crate::ledger::turn::is_any_told(db, self.session_key)?))
        })?;
        let provider = self.shared.provider(&self.provider);
        let is_resume = private.provider_session_ref.is_some();
        let open = Open {
            cwd: private.agent_cwd,
            model: private.model,
            mode: private.mode,
            reasoning_level: private.reasoning_level,
            permission_mode: private.permission_mode,
            system_prompt: private.system_prompt,
            mcp_servers: serde_json::from_str(&private.mcp_servers).unwrap_or_default(),
            resume: private.provider_session_ref.filter(|_| is_any_told),
            client_fs: provider.client_fs,
            client_terminal: provider.client_terminal,
        };
        Ok((open, is_resume))
    }

    fn start_keeper(&mut self, token: Option<&Token>) -> Result<()> {
        let child_id = match &self.state.agent {
            Some(agent) => Arc::clone(&agent.child_id),
            None => return Ok(()),
        };
        if let Some(token) = token {
            gateway::hand_over(&self.shared.config.root_dir, &child_id, token)?;
        }
        let spec = launch::agent_spec(self, &child_id)?;
        let keeper = keeper::spawn(&spec, self.agent_sink(&child_id))?;
        if let Some(agent) = &mut self.state.agent {
            agent.keeper = Some(keeper);
        }
        Ok(())
    }

    /// Attaches to the agent that the ledger knows of, running or ended. Errors: it can not be reached for now (no
    /// descriptor, no thread); it may live, so nothing is said about it.
    pub(super) fn reattach(&mut self) -> Result<()> {
        let Some(agent) = &mut self.state.agent else { return Ok(()) };
        agent.is_adopted = true;
        let child_id = Arc::clone(&agent.child_id);
        let (stdout_from, stderr_from) = (agent.read_offset, agent.stderr_offset);
        let dir = self.shared.keeper_dir(&child_id);
        let sink = self.agent_sink(&child_id);
        let attached = keeper::attach(&dir, stdout_from, stderr_from, sink);
        match (attached, &mut self.state.agent) {
            (Ok(attached), Some(agent)) => agent.keeper = Some(attached.keeper),
            (Err(error), _) if error.code != Code::NotFound => return Err(error),
            (Err(error), _) => {
                let mut step = self.step();
                self.agent_exited(&never_started(&error), &mut step);
                if self.commit(step).is_ok() {
                    self.after_output();
                }
            }
            (Ok(_), None) => {}
        }
        Ok(())
    }

    fn agent_sink(&self, child_id: &Arc<str>) -> impl FnMut(FromKeeper) + Send + 'static {
        let (inbox, child_id) = (self.children.0.clone(), Arc::clone(child_id));
        // Blocks while the session is busy: the keeper holds the rest in its journal.
        move |message| {
            drop(inbox.send(FromChild::Agent { child_id: Arc::clone(&child_id), message }))
        }
    }

    /// Works what the keeper says into the step; returns its size in bytes.
    pub(super) fn hear_agent(&mut self, message: FromKeeper, step: &mut Step) -> usize {
        match message {
            FromKeeper::Hello(hello) => {
                self.attached(&hello, step);
                1
            }
            FromKeeper::Output { stream: Stream::Stdout, offset, bytes } => {
                self.hear_stdout(offset, &bytes, step);
                bytes.len()
            }
            FromKeeper::Output { stream: Stream::Stderr, offset, bytes } => {
                if let Some(agent) = &mut self.state.agent {
                    let seen = agent.stderr_offset.saturating_sub(offset);
                    let fresh = bytes.get(usize::try_from(seen).unwrap_or(0)..).unwrap_or_default();
                    agent.stderr_tail.extend(fresh);
                    let excess = agent.stderr_tail.len().saturating_sub(limits::STDERR_TAIL_BYTES);
                    agent.stderr_tail.drain(..excess);
                    agent.stderr_offset = agent.stderr_offset.max(offset + bytes.len() as u64);
                    agent.offsets.stderr = offset_of(agent.stderr_offset);
                }
                bytes.len()
            }
            FromKeeper::StdinAccepted { end } => {
                if let Some(agent) = &mut self.state.agent {
                    agent.accept(offset_of(end));
                    agent.send_unsent();
                }
                1
            }
            FromKeeper::Exited(exit) => {
                self.agent_exited(&exit, step);
                1
            }
        }
    }

    fn attached(&mut self, hello: &Hello, step: &mut Step) {
        let agent_name = self.agent_name.clone();
        let Some(agent) = &mut self.state.agent else { return };
        let pid = hello.child_pid;
        agent.is_attached = true;
        agent.pid = Some(pid);
        agent.is_deaf = hello.is_stdin_closed;
        agent.accept(offset_of(hello.stdin_end));
        // The last server may have died between the commit and this word.
        agent.acknowledge(false);
        agent.send_unsent();
        if agent.is_deaf && self.state.phase == Phase::Open {
            // The last server had told it to sleep. A turn that is for it already is told to the next one.
            let deadline = Instant::now() + SLEEP_GRACE;
            self.state.phase = Phase::Stopping { deadline, why: Stop::Sleep };
        }
        if !agent.is_told {
            agent.is_told = true;
            let payload = json!({"agent": agent_name, "pid": pid});
            step.event(EventKind::AgentStarted, None, payload.to_string());
        }
    }

    fn hear_stdout(&mut self, offset: u64, bytes: &[u8], step: &mut Step) {
        let Some(agent) = &mut self.state.agent else { return };
        let seen = usize::try_from(agent.read_offset.saturating_sub(offset)).unwrap_or(usize::MAX);
        let Some(fresh) = bytes.get(seen..) else { return };
        let mut at = offset + seen as u64;
        agent.read_offset = offset + bytes.len() as u64;
        let Some(mut adapter) = self.state.adapter.take() else { return };
        let mut effects = Effects::default();
        for piece in fresh.split_inclusive(|byte| *byte == b'\n') {
            at += piece.len() as u64;
            let Some(agent) = &mut self.state.agent else { break };
            let Some(end) = piece.strip_suffix(b"\n") else {
                agent.keep_partial(piece);
                agent.make_room(self.shared.config.journal_bytes_max);
                break;
            };
            let line = if agent.line.is_empty() {
                std::borrow::Cow::Borrowed(end)
            } else {
                agent.keep_partial(end);
                std::borrow::Cow::Owned(std::mem::take(&mut agent.line))
            };
            let dropped = std::mem::take(&mut agent.line_dropped);
            agent.offsets.stdout = offset_of(at);
            step.agent_offset = Some(at);
            if dropped > 0 {
                self.unparsed(step, &String::from_utf8_lossy(&line), line.len() + dropped);
            } else if !line.trim_ascii().is_empty() {
                adapter.line(&line, &mut effects);
                self.apply_all(&mut effects, &mut adapter, step);
            }
        }
        step.agent_offset = None;
        self.state.adapter = Some(adapter);
        if let Some(turn) = &mut self.state.turn
            && turn.quiet_at.is_some()
        {
            turn.quiet_at = Some(Instant::now() + AGENT_TURN_QUIET);
        }
    }

    /// What comes after a step of agent output: a session that could not be opened, a turn that can start now.
    pub(super) fn after_output(&mut self) {
        self.start_terminals();
        if let Some((error, is_gone)) = self.state.open_failure.take() {
            self.open_refused(&error, is_gone);
        }
        self.start_next();
        if let Some(agent) = &mut self.state.agent
            && self.state.turn.is_none()
            && agent.trim_at.is_none()
            && agent.acknowledged != agent.committed.stdout
        {
            agent.trim_at = Some(Instant::now() + TRIM_PAUSE);
        }
    }

    /// The agent is gone: what hung on it ends, in the transaction of `step`.
    pub(super) fn agent_exited(&mut self, exit: &Exit, step: &mut Step) {
        let Some(mut agent) = self.state.agent.take() else { return };
        let adapter = self.state.adapter.take();
        // What it asked for again dies with it.
        self.state.again = Effects::default();
        if !agent.line.is_empty() {
            let rest = String::from_utf8_lossy(&agent.line).into_owned();
            self.unparsed(step, &rest, agent.line.len() + agent.line_dropped);
        }
        let phase = std::mem::replace(&mut self.state.phase, Phase::Asleep);
        let why = match phase {
            Phase::Stopping { why, .. } => Some(why),
            Phase::Over => Some(Stop::Close),
            _ => None,
        };
        let stderr_tail = agent.stderr_text();
        let kind = match why {
            Some(Stop::Sleep | Stop::SleepBySignal) => EventKind::AgentSlept,
            _ => EventKind::AgentExited,
        };
        let payload = json!({
            "exit_code": exit.code, "signal": exit.signal, "stopped_by": exit.stopped_by,
            "error": exit.error, "stderr": stderr_tail, "lost": exit.lost,
        });
        step.event(kind, None, payload.to_string());
        let error = exit_error(exit, &stderr_tail, why);
        let is_untold = |at: i64| agent.sent <= at && agent.accepted <= at;
        // What joined a turn that fails now is told with it.
        let mut failing = None;
        match &mut self.state.turn {
            // The agent was gone before a byte of the turn had left this server: a new one is told, if there is time.
            Some(turn)
                if turn.told_at.is_some_and(is_untold)
                    && !turn.is_interrupted
                    && turn.interrupt_deadline.is_none() =>
            {
                turn.is_dispatched = false;
                turn.told_at = None;
                // Its time begins when the new one hears of it.
                turn.timeout_at = None;
                let turn_id = Arc::clone(&turn.turn_id);
                step.change(move |tx| tx.set_turn_dispatched(&turn_id, false));
                self.end_own_doing(step);
            }
            turn => {
                let told = turn.as_ref().filter(|turn| turn.is_dispatched);
                failing = told.map(|turn| Arc::clone(&turn.turn_id));
                self.end_turn_without_agent(&error, step);
            }
        }
        if let Some(adapter) = adapter {
            self.give_up_steers(&*adapter, failing, step);
        }
        self.end_items_going_on(step);
        let session_key = self.session_key;
        step.change(move |tx| tx.delete_agent(session_key));
        let dir = self.shared.keeper_dir(&agent.child_id);
        agent.keeper = None;
        let (shared, child_id) = (Arc::clone(&self.shared), Arc::clone(&agent.child_id));
        step.afterwards(move || {
            gateway::take_back(&shared.config.root_dir, &child_id);
            if let Err(error) = keeper::forget(&dir) {
                log::warn!("the journal {} can not be removed: {error}", dir.display());
            }
        });
        self.drop_terminals(step);
        if phase == Phase::Over || why == Some(Stop::Close) {
            self.state.phase = Phase::Over;
        } else if matches!(phase, Phase::Opening { .. }) {
            let was_starting = agent.is_adopted && exit.lost;
            self.opening_died(phase, &error, was_starting, step);
        }
        self.tell_closers(step);
    }

    /// Lets go of the agent without telling it anything: its keeper holds it, the ledger knows where to go on.
    pub(super) fn drop_agent(&mut self) {
        // A reader that is blocked on the inbox must be free before it is joined: the inbox goes first.
        self.children = crossbeam_channel::bounded(limits::AGENT_INBOX);
        self.state.agent = None;
        self.detach_terminals();
    }
}

impl Agent {
    fn accept(&mut self, end: i64) {
        self.accepted = self.accepted.max(end);
        while let Some((at, bytes)) = self.unsent.front()
            && at + i64::try_from(bytes.len()).unwrap_or(0) <= self.accepted
        {
            self.unsent.pop_front();
        }
    }

    /// Gives the journal of a line up that does not end, once nothing more of it is kept or it has half of the journal:
    /// the agent would wait for ever for room to end it. A server that starts meanwhile has only its rest.
    fn make_room(&mut self, journal_bytes_max: u64) {
        let held = offset_of(self.read_offset) - self.acknowledged;
        let bound = match self.line_dropped {
            0 => offset_of(journal_bytes_max / 2),
            _ => offset_of(ACKNOWLEDGE_BYTES),
        };
        if held >= bound
            && let Some(keeper) = &self.keeper
        {
            self.acknowledged = offset_of(self.read_offset);
            keeper.ack(self.read_offset, self.stderr_offset, false);
        }
    }

    /// Keeps a part of a line, up to the bound on lines; the rest is counted.
    fn keep_partial(&mut self, piece: &[u8]) {
        let room = limits::AGENT_LINE_BYTES.saturating_sub(self.line.len());
        let kept = piece.len().min(room);
        self.line.extend_from_slice(&piece[..kept]);
        self.line_dropped += piece.len() - kept;
    }
}

/// The end of a child whose keeper could not be started, or has left nothing behind.
pub(super) fn never_started(error: &Error) -> Exit {
    Exit {
        code: None,
        signal: None,
        stopped_by: "lost".to_owned(),
        error: Some(error.to_string()),
        ended_at_ms: id::now_ms(),
        stdout_dropped: 0,
        stderr_dropped: 0,
        lost: error.code == Code::NotFound,
    }
}
