//! What happens when a session can not be opened, and when it is closed for good.
//!
//! Runs on the session's thread. A session that had opened before stays usable when its agent could not be started (its
//! turn fails); one that never opened, or that its agent does not know any more, has failed.

use super::actor::{Actor, Phase, Stop};
use super::command::Answer;
use super::ending::end_payload;
use super::failure::{agent_error, client_error};
use super::load;
use super::step::Step;
use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::session::{SessionChange, SessionRecord};
use crate::ledger::to_json;
use crate::ledger::turn::TurnEnd;
use crate::model::TurnStatus;
use crate::model::event::EventKind;
use crate::provider::{AgentError, Command};
use serde_json::{Value, json};
use std::sync::Arc;

/// What whoever asked for this session was told when it could not be opened. None: it was opened once, or may be yet.
pub(super) fn failure(record: &SessionRecord) -> Option<Error> {
    let is_failed = record.status == "failed" && record.provider_session_ref.is_none();
    let told = record.last_error.as_ref().filter(|_| is_failed)?;
    let error: AgentError = serde_json::from_str(told.get()).ok()?;
    Some(client_error(&error))
}

impl Actor {
    pub(super) fn opening_timed_out(&mut self) {
        let timeout = self.shared.provider(&self.provider).request_timeout.as_secs();
        let error = AgentError {
            code: "agent_timeout".to_owned(),
            message: format!("the agent did not open the session within {timeout} s"),
            data: Value::Null,
        };
        self.open_refused(&error, false);
    }

    /// The agent is there but will not open the session: end it, and say so to whoever waits.
    pub(super) fn open_refused(&mut self, error: &AgentError, is_gone: bool) {
        let is_resume = matches!(self.state.phase, Phase::Opening { is_resume: true, .. });
        let mut step = self.step();
        self.fail_opening(error, is_resume && !is_gone, &mut step);
        if self.commit(step).is_ok() {
            self.end_agent(Stop::Close);
            if is_resume && !is_gone {
                self.end_agent(Stop::Unresponsive);
            }
        }
    }

    /// The agent could not even be started. Returns whether that is committed: then it is the next one's turn.
    pub(super) fn opening_failed(&mut self, error: &AgentError) -> bool {
        let is_opened_before = match self.was_opened() {
            Ok(is_opened_before) => is_opened_before,
            Err(error) => return self.unreadable(&error),
        };
        let mut step = self.step();
        self.fail_opening(error, is_opened_before, &mut step);
        self.commit(step).is_ok()
    }

    /// The agent died before it had opened the session.
    pub(super) fn opening_died(
        &mut self,
        phase: Phase,
        error: &AgentError,
        was_starting: bool,
        step: &mut Step,
    ) {
        let is_resume = matches!(phase, Phase::Opening { is_resume: true, .. });
        let is_told = self.state.turn.as_ref().is_some_and(|turn| turn.gate.is_none());
        if was_starting && (is_told || !is_resume || !self.state.openers.is_empty()) {
            // The server was killed between writing down that it starts an agent and starting it: it is started again,
            // by the turn that waits for it or, in a new session, by the command that recovery sends.
            return;
        }
        self.fail_opening(error, is_resume, step);
    }

    /// A session that had opened before stays usable, its turn fails; one that never opened, or is gone at the agent,
    /// has failed.
    fn fail_opening(&mut self, error: &AgentError, is_usable: bool, step: &mut Step) {
        for opener in self.state.openers.drain(..) {
            let told = client_error(error);
            step.afterwards(move || drop(opener.send(Err(told))));
        }
        if let Some(turn) = &self.state.turn
            && (turn.gate.is_none() || !is_usable)
        {
            let turn_id = Arc::clone(&turn.turn_id);
            let payload = json!({"error": error.message, "code": error.code});
            step.event(EventKind::ProviderError, Some(turn_id), payload.to_string());
            let status = turn.end_without_agent();
            self.turn_ended(status, None, Some(error.clone()), step);
        }
        if is_usable {
            return;
        }
        self.fail_queued(error, step);
        let code = if error.code == "session_gone" { "resume_failed" } else { &error.code };
        let payload = json!({"code": code, "message": error.message});
        let failure = Some((code.to_owned(), error.message.clone()));
        let session_id = Arc::clone(&self.session_id);
        let last_error = Some(to_json(error));
        let state = Some("failed");
        let change = SessionChange { state, failure, last_error, ..SessionChange::default() };
        step.change(move |tx| tx.change_session(&session_id, &change));
        step.event(EventKind::SessionFailed, None, payload.to_string());
        let (shared, session_id) = (Arc::clone(&self.shared), Arc::clone(&self.session_id));
        step.afterwards(move || {
            if let Err(error) = shared.processes.kill_owned(&session_id) {
                log::error!("the processes of session {session_id} are not ended: {error}");
            }
        });
        if self.state.agent.is_none() {
            self.state.phase = Phase::Over;
        }
    }

    /// Turns that wait in a session that is over will never run.
    pub(super) fn fail_queued(&mut self, error: &AgentError, step: &mut Step) {
        self.state.queued = 0;
        let (session_key, session_id) = (self.session_key, Arc::clone(&step.session_id));
        let end = TurnEnd { error: Some(to_json(error)), ..TurnEnd::default() };
        let payload = end_payload(TurnStatus::Failed, None, Some(error), None, None);
        step.is_visible = true;
        // Read where they end: what this step queues is among them.
        step.change(move |tx| {
            while let Some(turn) = tx.next_queued_turn(session_key)? {
                tx.end_turn(&turn.id, TurnStatus::Failed, &end)?;
                let event = NewEvent::session(&session_id, EventKind::TurnFailed, payload.as_str());
                tx.append(event.turn(&turn.id))?;
            }
            Ok(())
        });
    }

    /// The session is over, or will be when its agent is gone: nothing begins in it any more.
    pub(super) fn is_closing(&self) -> bool {
        matches!(self.state.phase, Phase::Over | Phase::Stopping { why: Stop::Close, .. })
    }

    /// Errors: the session is over, though its agent may still be ending; or it was resumed before that had ended.
    pub(super) fn refuse_when_closing(&mut self) -> Result<()> {
        if !self.is_closing() {
            return Ok(());
        }
        let (ledger, session_id) = (&self.shared.ledger, self.session_id.to_string());
        ledger.write(move |tx| tx.open_session_key(&session_id).map(|_key| ()))?;
        if self.state.agent.is_none() && self.state.terminals.is_empty() {
            // It was resumed when all had ended, and before this thread was out of the way.
            return load::load(self);
        }
        Err(Error::new(
            Code::Conflict,
            "the agent that failed to open this session is still ending",
        )
        .hint("try again in a moment"))
    }

    fn was_opened(&self) -> Result<bool> {
        let session_id = &self.session_id;
        let private =
            self.shared.ledger.read(|db| crate::ledger::session::get_private(db, session_id))?;
        Ok(private.provider_session_ref.is_some())
    }

    /// Ends the session for good. Answers when the agent and its terminals are gone.
    pub(super) fn close(&mut self, reason: String, answer: Answer<()>) {
        if let Err(error) = self.ready_for_commands() {
            drop(answer.send(Err(error)));
            return;
        }
        let is_closed = |error: Error| error.code == Code::SessionClosed;
        if self.refuse_when_closing().is_err_and(is_closed) {
            // Another one came first.
            return self.await_end(answer);
        }
        let mut step = self.step();
        self.command(Command::Close, &mut step);
        for opener in self.state.openers.drain(..) {
            let session_id = Arc::clone(&self.session_id);
            step.afterwards(move || drop(opener.send(Err(super::over(&session_id)))));
        }
        self.withdraw_all("session_closed", &mut step);
        self.turn_ended(
            TurnStatus::Interrupted,
            Some("session_closed".to_owned()),
            None,
            &mut step,
        );
        let closed = Error::new(Code::SessionClosed, "the session was closed");
        self.fail_queued(&agent_error(&closed), &mut step);
        let session_id = Arc::clone(&self.session_id);
        step.change(move |tx| {
            let state = Some("closed");
            tx.change_session(
                &session_id,
                &SessionChange { state, is_closed: true, ..SessionChange::default() },
            )
        });
        let payload = json!({"reason": reason});
        step.event(EventKind::SessionClosed, None, payload.to_string());
        if let Err(error) = self.commit(step) {
            drop(answer.send(Err(error)));
            return;
        }
        self.stop_terminals();
        if self.state.agent.is_none() {
            self.state.phase = Phase::Over;
        } else {
            self.end_agent(Stop::Close);
        }
        self.await_end(answer);
    }

    /// Answers when the agent and its terminals are gone. Something else has told them to end.
    pub(super) fn await_end(&mut self, answer: Answer<()>) {
        let tell = move || drop(answer.send(Ok(())));
        if self.is_alone() { tell() } else { self.state.closers.push(Box::new(tell)) }
    }

    /// Nothing of the session runs.
    pub(super) fn is_alone(&self) -> bool {
        self.state.agent.is_none() && self.state.terminals.is_empty()
    }
}
