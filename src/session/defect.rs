//! The body of a session's thread, and what comes after a panic in it.
//!
//! A panic ends this session's turn with what it had said and a reason, and its agent; nothing else. What the thread
//! held is not trusted any more: the session is read again from the ledger, on the same thread, and ended from there.
//! Should that panic as well, the records alone are ended, which runs no other code of the session.
//!
//! What the ledger can not read or write now (a disk that errs or is full) is tried again, until it can or the server
//! stops: the agent of a session is looked after by nobody else.
//!
//! An agent whose snapshot can not be read, because of a defect or since another version wrote it, can neither be
//! understood nor told anything: it ends with its terminals, and the session goes on without it.

use super::Shared;
use super::actor::Actor;
use super::agent::never_started;
use super::capacity::Reservation;
use super::command::Command;
use super::load;
use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::turn::TurnEnd;
use crate::ledger::{agent, session};
use crate::limits;
use crate::model::TurnStatus;
use crate::model::event::EventKind;
use crate::provider::AgentError;
use crate::tries::Pauses;
use crate::watchdog;
use crossbeam_channel::{Receiver, Select, TryRecvError};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

const REASON: &str = "a defect of the server ended the turn";
const UNREADABLE: &str = "what the server had written down of the agent can not be read";

/// The body of the thread. The reservation is for the agent that the session has or wants.
pub(super) fn run(
    shared: &Arc<Shared>,
    session_id: &Arc<str>,
    inbox: Receiver<Box<Command>>,
    reservation: Option<Reservation>,
) {
    watchdog::watch();
    // What is queued behind a turn that a defect has ended goes on, and so does whoever has asked for something since.
    // Each round has ended a turn, so this comes to an end.
    let mut room = reservation;
    let mut unserved = Vec::new();
    while live(shared, session_id, &inbox, room.take(), &mut unserved) && !shared.is_stopping() {}
    // Whoever still waits sees its channel close.
    while !shared.retire(session_id, &inbox) {
        drop(inbox.try_recv());
    }
    // If it is over, so is its claim on a worktree, and its agent is gone.
    shared.worktrees.look_for_due();
}

/// One life of the session on this thread; true when a panic has ended it, and its turn with it.
fn live(
    shared: &Arc<Shared>,
    session_id: &Arc<str>,
    inbox: &Receiver<Box<Command>>,
    reservation: Option<Reservation>,
    unserved: &mut Vec<Command>,
) -> bool {
    let body = AssertUnwindSafe(|| {
        let (shared, id) = (Arc::clone(shared), Arc::clone(session_id));
        let mut actor = Actor::new(shared, id, inbox.clone(), reservation);
        let what = format!("session {session_id} can not be read");
        if until_done(inbox, &what, unserved, || load::load(&mut actor)).is_some() {
            actor.run(std::mem::take(unserved));
        }
    });
    if catch_unwind(body).is_ok() {
        return false;
    }
    log::error!("the thread of session {session_id} panicked; its turn fails");
    let what = format!("the turn of session {session_id} can not be ended");
    until_done(inbox, &what, unserved, || after_panic(shared, session_id, inbox)).unwrap_or(false)
}

/// What comes of the attempt: tried again after a pause that grows, and at each word, until it succeeds. Whoever asks
/// for something meanwhile is refused; what nobody would ask for again goes to `unserved`. None: there is nothing to
/// attempt it on, or the server stops.
fn until_done<T>(
    inbox: &Receiver<Box<Command>>,
    what: &str,
    unserved: &mut Vec<Command>,
    mut attempt: impl FnMut() -> Result<T>,
) -> Option<T> {
    let mut pauses = Pauses::default();
    loop {
        match attempt() {
            Ok(done) => return Some(done),
            Err(error) if error.code == Code::NotFound => {
                log::error!("{what}: {error}");
                return None;
            }
            Err(error) => log::error!("{what}, and is tried again: {error}"),
        }
        match inbox.try_recv().map(|command| *command) {
            Ok(Command::Shutdown { .. }) | Err(TryRecvError::Disconnected) => return None,
            Ok(command @ (Command::Open { .. } | Command::Renew))
                if unserved.len() < limits::SESSION_INBOX =>
            {
                unserved.push(command);
            }
            Ok(command) => command.refuse(),
            Err(TryRecvError::Empty) => {
                // The word stays where it is: it may be heard after the next attempt.
                let mut word = Select::new();
                word.recv(inbox);
                let _: std::result::Result<usize, _> =
                    watchdog::rest(|| word.ready_timeout(pauses.take()));
            }
        }
    }
}

/// Ends the turn and the agent of a session whose thread is gone; says whether there was a turn.
fn after_panic(
    shared: &Arc<Shared>,
    session_id: &Arc<str>,
    waiting: &Receiver<Box<Command>>,
) -> Result<bool> {
    // First, and not when that is written down, which may take a while: nobody looks after them any more.
    children(shared, session_id)?.iter().for_each(|child_id| shared.end_orphan(child_id));
    let ended = catch_unwind(AssertUnwindSafe(|| {
        let (shared, session_id) = (Arc::clone(shared), Arc::clone(session_id));
        let mut actor = Actor::new(shared, session_id, waiting.clone(), None);
        load::load(&mut actor)?;
        actor.end_by_defect()
    }));
    ended.unwrap_or_else(|_panic| end_records(shared, session_id))
}

/// The agent of a session and its terminals.
fn children(shared: &Shared, session_id: &str) -> Result<Vec<String>> {
    shared.ledger.read(|db| {
        let key = session::get_private(db, session_id)?.session_key;
        let terminals = agent::terminals(db, key)?.into_iter().map(|(child_id, _)| child_id);
        let agent = agent::get(db, key)?.map(|row| row.child_id);
        Ok(terminals.chain(agent).collect())
    })
}

impl Actor {
    /// Ends an agent that there is no adapter for; a turn that it was told of fails.
    pub(super) fn end_unreadable(&mut self) {
        let children = match children(&self.shared, &self.session_id) {
            Ok(children) => children,
            Err(error) => return self.give_up_copy(&error),
        };
        let mut step = self.step();
        self.agent_exited(&never_started(&Error::internal(UNREADABLE)), &mut step);
        if self.commit(step).is_ok() {
            // Before another agent is started in the same folder.
            children.iter().for_each(|child_id| self.shared.end_orphan(child_id));
            self.after_output();
        }
    }

    /// The turn fails with what the ledger has of it, and the agent is told to be gone.
    fn end_by_defect(&mut self) -> Result<bool> {
        let has_turn = self.state.turn.is_some();
        let error = AgentError {
            code: "internal".to_owned(),
            message: REASON.to_owned(),
            data: Value::Null,
        };
        let mut step = self.step();
        self.turn_ended(TurnStatus::Failed, None, Some(error), &mut step);
        self.agent_exited(&never_started(&Error::internal(REASON)), &mut step);
        self.commit(step)?;
        Ok(has_turn)
    }
}

/// The same, without the code of the session: what it had said stays in its items alone.
fn end_records(shared: &Arc<Shared>, session_id: &Arc<str>) -> Result<bool> {
    let id = Arc::clone(session_id);
    // Also of one that is closed: its agent may be about to end.
    let session_key = shared.ledger.read(|db| Ok(session::get_private(db, &id)?.session_key))?;
    shared.ledger.write(move |tx| {
        tx.delete_agent(session_key)?;
        let Some(turn) = tx.active_turn(session_key)? else { return Ok(false) };
        let error = json!({"code": "internal", "message": REASON});
        let end = TurnEnd { error: Some(error.to_string()), ..TurnEnd::default() };
        tx.end_open_items(session_key)?;
        tx.withdraw_pending(session_key, "internal")?;
        tx.end_turn(&turn.id, TurnStatus::Failed, &end)?;
        let payload = json!({
            "status": "failed", "usage": null, "error": error, "assistant_text": null,
            "stop_reason": null,
        });
        let event = NewEvent::session(&id, EventKind::TurnFailed, payload.to_string());
        tx.append(event.turn(&turn.id))?;
        tx.touch_session(&id)?;
        Ok(true)
    })
}
