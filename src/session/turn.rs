//! Turns: starting, queueing, interrupting and ending them.
//!
//! Runs on the session's thread. A turn is started in the ledger and in the agent's stdin by one transaction, so it is
//! either both or neither. When the agent is not there yet the turn is started first and told to the agent once it has
//! opened.

use super::actor::{AGENT_TURN_QUIET, Actor, INTERRUPT_GRACE, LiveTurn, Phase};
use super::actor::{TurnRequest, When};
use super::capacity::Reservation;
use super::command::Answer;
use super::ending::end_payload;
use super::step::Step;
use crate::error::{Code, Error, Result};
use crate::ledger::idempotency;
use crate::ledger::to_json;
use crate::ledger::turn::{NewTurn, TurnEnd, TurnRecord};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::input::{Input, joined_text};
use crate::model::{ItemType, TurnSource, TurnStatus, id};
use crate::provider::{Command, Effects};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

impl Actor {
    /// A client's turn. The answer is the turn's id, once it is committed.
    pub(super) fn start_turn(
        &mut self,
        request: TurnRequest,
        reservation: Option<Reservation>,
        answer: &Answer<String>,
    ) {
        let outcome = self.try_start_turn(request, reservation);
        drop(answer.send(outcome));
        // The answer is out; an agent that sleeps is woken only now.
        self.start_next();
    }

    fn try_start_turn(
        &mut self,
        request: TurnRequest,
        reservation: Option<Reservation>,
    ) -> Result<String> {
        self.ready_for_commands()?;
        // What was made before is told again, whatever the session does by now.
        if let Some(claim) = &request.idempotency
            && let Some(made) = self.shared.ledger.read(|db| idempotency::find(db, claim))?
        {
            return Ok(made);
        }
        if self.is_stopping {
            return Err(Error::new(Code::ShuttingDown, "the server is shutting down"));
        }
        self.refuse_when_closing()?;
        let is_agents = |turn: &LiveTurn| turn.source == TurnSource::Agent;
        if self.state.turn.as_ref().is_some_and(is_agents) {
            // What the agent does by itself gives way to people.
            let mut step = self.step();
            self.command(Command::EndAgentTurn, &mut step);
            self.commit(step)?;
        }
        self.check_against_active(&request)?;
        if request.when == When::Steer && self.is_turn_active() {
            return self.steer(request);
        }
        self.keep(reservation);
        let turn_id = id::new("turn");
        let status = self.status_at_start(&request);
        let mut step = self.step();
        if let Some(claim) = request.idempotency.clone() {
            let resource = turn_id.clone();
            step.change(move |tx| tx.claim_key(&claim, &resource).map(|_none| ()));
        }
        self.insert_turn(&turn_id, status, &request, &mut step);
        if status == TurnStatus::Queued {
            self.state.queued += 1;
            let payload = json!({"position": self.state.queued});
            let id = Some(Arc::from(turn_id.as_str()));
            step.event(EventKind::TurnQueued, id, payload.to_string());
            self.commit(step)?;
            return Ok(turn_id);
        }
        self.state.turn = Some(LiveTurn::of_request(&turn_id, request));
        if status == TurnStatus::WaitingForApproval {
            self.ask_gate(&mut step);
        } else {
            self.tell_start(None, &mut step);
            self.dispatch(&mut step);
        }
        self.commit(step)?;
        Ok(turn_id)
    }

    fn check_against_active(&self, request: &TurnRequest) -> Result<()> {
        let active = self.state.turn.as_ref().map(|turn| Arc::clone(&turn.turn_id));
        if let Some(expected) = &request.expected_turn_id
            && active.as_deref() != Some(expected.as_str())
        {
            let runs = active.as_deref().unwrap_or("none");
            return Err(Error::new(
                Code::TurnMismatch,
                format!("expected_turn_id is {expected}, the running turn is {runs}"),
            ));
        }
        match (request.when, active) {
            (When::Now, Some(turn_id)) => Err(Error::new(
                Code::TurnActive,
                format!("the session already runs turn {turn_id}"),
            )
            .hint("send it with \"when\": \"queue\", or interrupt the running turn")),
            (When::Steer, Some(_)) => self.check_steer(request),
            (When::Queue, _) if self.state.queued >= limits::QUEUED_TURNS => Err(Error::new(
                Code::Conflict,
                format!("{} turns wait in this session already", limits::QUEUED_TURNS),
            )
            .hint("wait for one of them to end, or interrupt one")),
            _ => Ok(()),
        }
    }

    fn status_at_start(&self, request: &TurnRequest) -> TurnStatus {
        if self.is_turn_active() || self.state.queued > 0 {
            TurnStatus::Queued
        } else if self.is_gated(request.permission_mode.as_deref()) {
            TurnStatus::WaitingForApproval
        } else {
            TurnStatus::InProgress
        }
    }

    /// Whether a person must let a turn with this permission mode through.
    pub(super) fn is_gated(&self, permission_mode: Option<&str>) -> bool {
        permission_mode.map_or(self.state.is_gated, |mode| mode == GATED)
    }

    pub(super) fn insert_turn(
        &mut self,
        turn_id: &str,
        status: TurnStatus,
        request: &TurnRequest,
        step: &mut Step,
    ) {
        let (turn_id, session_key) = (turn_id.to_owned(), self.session_key);
        let (input, source) = (to_json(&request.input), request.source);
        let is_taken = request.is_taken;
        let settings = (
            request.model.clone(),
            request.mode.clone(),
            request.reasoning_level.clone(),
            request.permission_mode.clone(),
        );
        step.is_visible = true;
        step.change(move |tx| {
            tx.insert_turn(&NewTurn {
                turn_id: &turn_id,
                session_key,
                status,
                source,
                input: &input,
                model: settings.0.as_deref(),
                mode: settings.1.as_deref(),
                reasoning_level: settings.2.as_deref(),
                permission_mode: settings.3.as_deref(),
                is_taken,
            })
        });
    }

    /// Tells that the turn has started, and what it starts with.
    pub(super) fn tell_start(&mut self, source: Option<&str>, step: &mut Step) {
        let Some(turn) = &self.state.turn else { return };
        let turn_id = Arc::clone(&turn.turn_id);
        let payload = match source {
            Some(source) => json!({"source": source}),
            None => json!({"source": turn.source.as_str()}),
        };
        let input = turn.input.clone();
        step.event(EventKind::TurnStarted, Some(turn_id), payload.to_string());
        if !input.is_empty() {
            self.user_message(&input, step);
        }
    }

    pub(super) fn user_message(&mut self, input: &[Input], step: &mut Step) {
        let mut body = Map::new();
        body.insert("text".to_owned(), Value::from(joined_text(input)));
        let is_more = input.iter().any(|item| !matches!(item, Input::Text { .. }));
        if is_more {
            // Without the bytes of images: they are in the turn's input.
            let parts: Vec<Value> = input
                .iter()
                .map(|item| match item {
                    Input::Text { text } => json!({"type": "text", "text": text}),
                    Input::Image { media_type, data } => {
                        let bytes = data.len();
                        json!({"type": "image", "media_type": media_type, "base64_bytes": bytes})
                    }
                    Input::ResourceLink { uri, name } => {
                        json!({"type": "resource_link", "uri": uri, "name": name})
                    }
                })
                .collect();
            body.insert("input".to_owned(), Value::from(parts));
        }
        self.whole_item(ItemType::UserMessage, body, step);
    }

    /// Tells the agent of the turn, if it is ready for it; else that happens when it has opened.
    pub(super) fn dispatch(&mut self, step: &mut Step) {
        let is_ready = self.state.phase == Phase::Open;
        let timeout_at = self.timeout_from_now();
        let (Some(turn), Some(mut adapter)) = (&self.state.turn, self.state.adapter.take()) else {
            return;
        };
        if !is_ready || turn.is_dispatched || turn.gate.is_some() {
            self.state.adapter = Some(adapter);
            return;
        }
        // What the agent does by itself while the turn waits is over first, and is not taken for the turn's end.
        let mut effects = Effects::default();
        adapter.command(Command::EndAgentTurn, &mut effects);
        self.apply_all(&mut effects, &mut adapter, step);
        let Some(turn) = &mut self.state.turn else { return };
        turn.is_dispatched = true;
        turn.told_at = self.state.agent.as_ref().map(|agent| agent.stdin_end(step));
        turn.timeout_at = timeout_at;
        let command = Command::StartTurn {
            turn_id: turn.turn_id.to_string(),
            input: turn.input.clone(),
            model: turn.model.clone(),
            mode: turn.mode.clone(),
            reasoning_level: turn.reasoning_level.clone(),
            permission_mode: turn.permission_mode.clone(),
        };
        let turn_id = Arc::clone(&turn.turn_id);
        adapter.command(command, &mut effects);
        step.change(move |tx| tx.set_turn_dispatched(&turn_id, true));
        self.apply_all(&mut effects, &mut adapter, step);
        self.state.adapter = Some(adapter);
    }

    /// Whether the agent does not know of the active turn yet.
    pub(super) fn is_turn_untold(&self) -> bool {
        self.state.turn.as_ref().is_some_and(|turn| !turn.is_dispatched)
    }

    /// What is to go on could not be read from the ledger: the session is read again, after a pause. Nothing has
    /// failed: false.
    pub(super) fn unreadable(&mut self, error: &Error) -> bool {
        if self.retry_at.is_none() {
            self.give_up_copy(error);
        }
        false
    }

    /// When the time of a turn is over that the agent hears of now.
    fn timeout_from_now(&self) -> Option<Instant> {
        let timeout = self.shared.provider(&self.provider).turn_timeout;
        timeout.map(|timeout| Instant::now() + timeout)
    }

    /// What can go on now goes on: an active turn that the agent has not been told of, or the next of the queue. One
    /// that fails at once leaves its place to the one behind it.
    pub(super) fn start_next(&mut self) {
        while self.start_one() {}
    }

    /// Returns whether what was to go on has failed.
    fn start_one(&mut self) -> bool {
        let is_blocked = self.is_stopping
            || self.retry_at.is_some()
            || matches!(self.state.phase, Phase::Over | Phase::Stopping { .. })
            || self.state.agent.is_some() && self.state.phase == Phase::Asleep;
        if is_blocked || self.rest_if_stale() {
            return false;
        }
        if self.state.turn.is_none()
            && self.state.queued > 0
            && let Err(error) = self.pop_queue()
        {
            return self.unreadable(&error);
        }
        let is_waiting_for_agent =
            self.state.turn.as_ref().is_some_and(|turn| !turn.is_dispatched && turn.gate.is_none());
        let is_wanted = is_waiting_for_agent || !self.state.openers.is_empty();
        if self.state.phase == Phase::Asleep && is_wanted {
            return self.launch(self.step());
        }
        if self.state.phase == Phase::Open && is_waiting_for_agent {
            let mut step = self.step();
            self.dispatch(&mut step);
            drop(self.commit(step));
        }
        false
    }

    /// Makes the first queued turn the active one.
    fn pop_queue(&mut self) -> Result<()> {
        let session_key = self.session_key;
        let next =
            self.shared.ledger.read(|db| crate::ledger::turn::next_queued(db, session_key))?;
        let Some(record) = next else {
            self.state.queued = 0;
            return Ok(());
        };
        self.state.queued -= 1;
        let turn = LiveTurn::of_record(&record);
        let is_gated = self.is_gated(turn.permission_mode.as_deref());
        let turn_id = Arc::clone(&turn.turn_id);
        self.state.turn = Some(turn);
        let mut step = self.step();
        let status = if is_gated { TurnStatus::WaitingForApproval } else { TurnStatus::InProgress };
        step.change(move |tx| tx.set_turn_status(&turn_id, status));
        if is_gated {
            self.ask_gate(&mut step);
        } else {
            self.tell_start(None, &mut step);
            self.dispatch(&mut step);
        }
        self.commit(step)
    }

    /// A turn that the agent began by itself.
    pub(super) fn begin_turn(&mut self, source: TurnSource, step: &mut Step) {
        if self.is_turn_active() || self.is_closing() {
            return;
        }
        let request = TurnRequest::of_agent(source);
        let turn_id = id::new("turn");
        self.insert_turn(&turn_id, TurnStatus::InProgress, &request, step);
        let mut turn = LiveTurn::of_request(&turn_id, request);
        turn.is_dispatched = true;
        turn.quiet_at = Some(Instant::now() + AGENT_TURN_QUIET);
        // It may never be quiet.
        turn.timeout_at = self.timeout_from_now();
        let id: Arc<str> = Arc::clone(&turn.turn_id);
        self.state.turn = Some(turn);
        step.change(move |tx| tx.set_turn_dispatched(&id, true));
        self.tell_start(None, step);
    }

    pub(super) fn agent_turn_quiet(&mut self) {
        self.command_in_step(Command::EndAgentTurn);
    }

    /// Gives the adapter a command in a step of its own.
    pub(super) fn command_in_step(&mut self, command: Command) {
        let mut step = self.step();
        self.command(command, &mut step);
        if self.commit(step).is_ok() {
            self.after_output();
        }
    }

    pub(super) fn command(&mut self, command: Command, step: &mut Step) {
        let Some(mut adapter) = self.state.adapter.take() else { return };
        let mut effects = Effects::default();
        adapter.command(command, &mut effects);
        self.apply_all(&mut effects, &mut adapter, step);
        self.state.adapter = Some(adapter);
    }

    pub(super) fn turn_timed_out(&mut self) {
        let Some(turn) = &mut self.state.turn else { return };
        log::warn!("session {}: turn {} is over its time", self.session_id, turn.turn_id);
        turn.timeout_at = None;
        turn.interrupt_deadline = Some(Instant::now() + INTERRUPT_GRACE);
        let turn_id = Arc::clone(&turn.turn_id);
        let mut step = self.step();
        let payload = json!({"reason": "turn_timeout"});
        step.event(EventKind::TurnInterruptRequested, Some(turn_id), payload.to_string());
        self.command(Command::Interrupt, &mut step);
        drop(self.commit(step));
    }

    /// Asks the agent to end the turn; a queued or gated turn ends at once.
    pub(super) fn interrupt(&mut self, turn_id: &str, answer: &Answer<()>) {
        let outcome = self.try_interrupt(turn_id);
        drop(answer.send(outcome));
        self.start_next();
    }

    fn try_interrupt(&mut self, turn_id: &str) -> Result<()> {
        self.ready_for_commands()?;
        let session_id = Arc::clone(&self.session_id);
        let record =
            self.shared.ledger.read(|db| crate::ledger::turn::get(db, &session_id, turn_id))?;
        let is_active = self.state.turn.as_ref().is_some_and(|turn| &*turn.turn_id == turn_id);
        if record.status == TurnStatus::Queued.as_str() {
            self.state.queued = self.state.queued.saturating_sub(1);
            return self.end_waiting(&record);
        }
        if !is_active {
            return Err(Error::new(
                Code::Conflict,
                format!("turn {turn_id} is not running: it is {}", record.status),
            ));
        }
        let mut step = self.step();
        self.interrupt_active(turn_id, &mut step);
        self.commit(step)
    }

    /// Asks the agent to end the active turn; one that it was not told of ends in this step.
    pub(super) fn interrupt_active(&mut self, turn_id: &str, step: &mut Step) {
        let id: Arc<str> = Arc::from(turn_id);
        step.event(EventKind::TurnInterruptRequested, Some(Arc::clone(&id)), "{}".to_owned());
        step.change(move |tx| tx.set_interrupt_requested(&id));
        let is_dispatched = match &mut self.state.turn {
            Some(turn) => {
                turn.is_interrupted = true;
                // Whoever asks again and again must not keep a deaf agent alive.
                turn.interrupt_deadline.get_or_insert_with(|| Instant::now() + INTERRUPT_GRACE);
                turn.is_dispatched
            }
            None => false,
        };
        if is_dispatched {
            self.command(Command::Interrupt, step);
        } else {
            let stop_reason = Some("interrupted".to_owned());
            self.turn_ended(TurnStatus::Interrupted, stop_reason, None, step);
        }
    }

    fn end_waiting(&mut self, record: &TurnRecord) -> Result<()> {
        let mut step = self.step();
        let id: Arc<str> = Arc::from(record.id.as_str());
        step.event(EventKind::TurnInterruptRequested, Some(Arc::clone(&id)), "{}".to_owned());
        step.event(
            EventKind::TurnInterrupted,
            Some(Arc::clone(&id)),
            end_payload(TurnStatus::Interrupted, None, None, None, Some("interrupted")),
        );
        step.change(move |tx| {
            let stop_reason = Some("interrupted".to_owned());
            let end = TurnEnd { stop_reason, ..TurnEnd::default() };
            tx.end_turn(&id, TurnStatus::Interrupted, &end).map(|_ended| ())
        });
        self.commit(step)
    }
}

/// The permission mode in which a person lets each turn through.
pub(super) const GATED: &str = "require_approval";

impl LiveTurn {
    pub(super) fn of_request(turn_id: &str, request: TurnRequest) -> LiveTurn {
        LiveTurn {
            turn_id: Arc::from(turn_id),
            source: request.source,
            is_dispatched: false,
            told_at: None,
            gate: None,
            input: request.input,
            model: request.model,
            mode: request.mode,
            reasoning_level: request.reasoning_level,
            permission_mode: request.permission_mode,
            assistant_text: String::new(),
            usage: None,
            plan: None,
            interrupt_deadline: None,
            is_interrupted: false,
            timeout_at: None,
            quiet_at: None,
        }
    }

    /// The turn as the ledger has it. Deadlines that are not kept there begin anew: an agent that was told to stop
    /// gets its grace again, and what it began by itself counts as over after as much quiet.
    pub(super) fn of_record(record: &TurnRecord) -> LiveTurn {
        let source = TurnSource::parse(&record.source).unwrap_or(TurnSource::User);
        let request = TurnRequest {
            input: serde_json::from_str(record.input.get()).unwrap_or_default(),
            model: record.model.clone(),
            mode: record.mode.clone(),
            reasoning_level: record.reasoning_level.clone(),
            permission_mode: record.permission_mode.clone(),
            ..TurnRequest::of_agent(source)
        };
        let mut turn = LiveTurn::of_request(&record.id, request);
        turn.is_dispatched = record.dispatched_at.is_some();
        if record.is_interrupt_requested {
            turn.is_interrupted = true;
            turn.interrupt_deadline = Some(Instant::now() + INTERRUPT_GRACE);
        }
        if turn.source == TurnSource::Agent {
            turn.quiet_at = Some(Instant::now() + AGENT_TURN_QUIET);
        }
        turn
    }

    /// One more message of the assistant; messages are parted by a blank line. Keeps the end, where the answer is.
    pub(super) fn add_assistant_text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if !self.assistant_text.is_empty() {
            self.assistant_text.push_str("\n\n");
        }
        self.assistant_text.push_str(text);
        let excess = self.assistant_text.len().saturating_sub(limits::ASSISTANT_TEXT_BYTES);
        let cut = self.assistant_text.ceil_char_boundary(excess);
        self.assistant_text.drain(..cut);
    }
}

impl TurnRequest {
    /// One that no client asked for: it has no settings of its own.
    pub(super) fn of_agent(source: TurnSource) -> TurnRequest {
        TurnRequest {
            input: Vec::new(),
            source,
            when: When::Now,
            expected_turn_id: None,
            model: None,
            mode: None,
            reasoning_level: None,
            permission_mode: None,
            idempotency: None,
            is_taken: false,
        }
    }
}
