//! Steering: input that joins the running turn.
//!
//! Runs on the session's thread. What the person says, the event that tells of it and the bytes that tell the agent
//! are one transaction, so a steer is heard once whatever dies. An agent whose turn had ended before it heard gives
//! the input back: a person's becomes a turn of its own, behind those that wait; mail waits again, as what it was. One
//! that says nothing is ended: what it was told stands between two turns for ever otherwise.

use super::actor::{Actor, Phase, STEER_GRACE, TurnRequest};
use super::step::Step;
use crate::error::{Code, Error, Result};
use crate::model::event::EventKind;
use crate::model::{TurnSource, TurnStatus, id};
use crate::provider::{Adapter, Command, Steer};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// What to do instead.
const QUEUE_IT: &str = "send it with \"when\": \"queue\"";

impl Actor {
    /// Whether the running turn can take the request in.
    pub(super) fn check_steer(&self, request: &TurnRequest) -> Result<()> {
        let Some(turn) = &self.state.turn else { return Ok(()) };
        let can_steer =
            self.state.adapter.as_ref().is_some_and(|adapter| adapter.capabilities().steer);
        let refused = if !turn.is_dispatched || turn.is_interrupted {
            "the running turn takes no input now: it has not reached the agent, or is to stop"
        } else if !can_steer {
            "this agent can not take input in the middle of a turn"
        } else if self.is_gated(None) {
            "a person lets each message of this session through, so none can join a turn"
        } else {
            let settings = [
                ("model", request.model.is_some()),
                ("mode", request.mode.is_some()),
                ("reasoning_level", request.reasoning_level.is_some()),
                ("permission_mode", request.permission_mode.is_some()),
            ];
            return match settings.iter().find(|(_, is_named)| *is_named) {
                None => Ok(()),
                Some((name, _)) => Err(Error::bad_request(format!(
                    "{name}: a message that joins a running turn can not change it"
                ))
                .hint(format!("leave it out, or {QUEUE_IT}"))),
            };
        };
        Err(Error::new(Code::SteerUnsupported, refused).hint(QUEUE_IT))
    }

    /// Answers with the id of the turn that it joined.
    pub(super) fn steer(&mut self, request: TurnRequest) -> Result<String> {
        let Some(turn) = &self.state.turn else {
            return Err(Error::internal("there is no turn to steer"));
        };
        let turn_id = Arc::clone(&turn.turn_id);
        let mut step = self.step();
        if let Some(claim) = request.idempotency {
            let resource = turn_id.to_string();
            step.change(move |tx| tx.claim_key(&claim, &resource).map(|_none| ()));
        }
        let payload = json!({"source": request.source.as_str()});
        step.event(EventKind::TurnSteered, Some(Arc::clone(&turn_id)), payload.to_string());
        self.user_message(&request.input, &mut step);
        self.command(Command::Steer(Steer { input: request.input, mail: Vec::new() }), &mut step);
        self.commit(step)?;
        Ok(turn_id.to_string())
    }

    /// Gives the agent its time to answer what was to join a turn, from when the first such message waits; no more is
    /// waited for when it has answered all. One that is ended already gets no other end.
    pub(super) fn await_steers(&mut self, adapter: &dyn Adapter) {
        let is_waiting = self.state.phase == Phase::Open && !adapter.open_steers().is_empty();
        let deadline = self.state.steer_deadline.take();
        self.state.steer_deadline =
            is_waiting.then(|| deadline.unwrap_or_else(|| Instant::now() + STEER_GRACE));
    }

    /// The agent is gone: what it has not answered came too late, unless it joined the turn that fails with it.
    pub(super) fn give_up_steers(
        &mut self,
        adapter: &dyn Adapter,
        failing: Option<Arc<str>>,
        step: &mut Step,
    ) {
        self.state.steer_deadline = None;
        for steer in adapter.open_steers().into_iter().cloned() {
            if !steer.mail.is_empty() {
                self.give_back(steer.mail, failing.clone(), step);
            } else if failing.is_none() {
                self.steer_refused(steer, step);
            }
        }
    }

    /// The turn was over before the agent heard.
    pub(super) fn steer_refused(&mut self, steer: Steer, step: &mut Step) {
        if !steer.mail.is_empty() {
            return self.give_back(steer.mail, None, step);
        }
        // Where only the process is about to end, the next one takes the turn up.
        if self.is_closing() {
            let text = "a message came too late for its turn and was not heard";
            let payload = json!({"notice": text, "data": Value::Null});
            return step.event(EventKind::SessionUpdated, None, payload.to_string());
        }
        let turn_id = id::new("turn");
        let request = TurnRequest {
            input: steer.input,
            is_taken: true,
            ..TurnRequest::of_agent(TurnSource::User)
        };
        self.insert_turn(&turn_id, TurnStatus::Queued, &request, step);
        self.state.queued += 1;
        let payload = json!({"position": self.state.queued, "reason": "steer_refused"});
        step.event(EventKind::TurnQueued, Some(turn_id.into()), payload.to_string());
    }
}
