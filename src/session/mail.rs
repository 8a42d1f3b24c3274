//! Mail for a session: it becomes a turn, or joins the one that runs, together with whatever keeps count of it.
//!
//! Runs on the session's thread, but for [`Sessions::carry`]. What is accepted is one transaction with the turn that
//! carries it (and, where an agent is open, with the bytes that tell it): so a letter is in a turn or it is not,
//! whatever is killed when. A session that is not as the caller thought changes nothing and says so; the caller looks
//! again. What joined a turn and was not heard is given back, in the transaction of the step in which the agent said
//! so. Whose mail it is, and what goes first, is not known here.

use super::actor::{Actor, LiveTurn, Phase};
use super::capacity::Reservation;
use super::command::{self, Answer};
use super::step::Step;
use super::{Sessions, TurnRequest};
use crate::error::{Code, Error, Result};
use crate::ledger::Tx;
use crate::ledger::team::{delivery, recipient};
use crate::model::event::EventKind;
use crate::model::input::Input;
use crate::model::{TurnSource, TurnStatus, id};
use crate::provider::{Command, Steer};
use serde_json::json;
use std::sync::Arc;

/// What one turn is to carry.
pub struct Mail {
    pub input: Vec<Input>,
    pub way: Way,
    /// The keys of the deliveries that are in it: what is given back where the agent does not hear it.
    pub deliveries: Vec<i64>,
    /// Have the agent open before the turn is made, so that what can not be opened is no turn.
    pub is_agent_needed: bool,
    /// Made first in the transaction of the turn. An error of it undoes the turn; with [`Code::Conflict`] it says that
    /// the mail was taken back.
    pub claim: Claim,
    /// Made in that transaction behind the turn, with its id. An error of it undoes the turn.
    pub accept: Accept,
}

/// See [`Mail::claim`].
pub(super) type Claim = Box<dyn Fn(&mut Tx<'_>) -> Result<()> + Send>;

/// See [`Mail::accept`].
pub type Accept = Box<dyn Fn(&mut Tx<'_>, &str) -> Result<()> + Send>;

/// How mail gets to the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Way {
    /// A new turn; no other may run or wait.
    NewTurn,
    /// This turn ends, and a new one goes ahead of those that wait.
    Interrupt { turn_id: String, at_tool_boundary: bool },
    /// It joins this turn.
    Steer { turn_id: String, at_tool_boundary: bool },
}

impl Sessions {
    /// Brings mail to a session; answers with the turn that carries it, or None when the session is not as the mail
    /// wants it (any more), and nothing has changed. Blocks while the agent is woken, for as long as that may take.
    pub fn carry(&self, session_id: &str, mail: Mail) -> Result<Option<String>> {
        self.shared.refuse_when_stopping()?;
        let mut reservation = self.room_for(session_id)?;
        if mail.is_agent_needed {
            let reservation = reservation.take();
            self.call(session_id, |answer| command::Command::Open { reservation, answer })?;
        }
        let mail = Box::new(mail);
        self.call(session_id, |answer| command::Command::Carry { mail, reservation, answer })
    }
}

impl Actor {
    pub(super) fn carry(
        &mut self,
        mail: Mail,
        reservation: Option<Reservation>,
        answer: &Answer<Option<String>>,
    ) {
        let outcome = self.try_carry(mail, reservation);
        drop(answer.send(outcome));
        self.start_next();
    }

    fn try_carry(
        &mut self,
        mail: Mail,
        reservation: Option<Reservation>,
    ) -> Result<Option<String>> {
        self.ready_for_commands()?;
        if self.is_stopping {
            return Err(Error::new(Code::ShuttingDown, "the server is shutting down"));
        }
        self.refuse_when_closing()?;
        self.keep(reservation);
        if self.is_mail_unanswered(&mail.way) || self.is_overtaking(&mail)? {
            return Ok(None);
        }
        match mail.way.clone() {
            Way::NewTurn => self.in_new_turn(mail),
            Way::Interrupt { turn_id, at_tool_boundary } => {
                if !self.runs(&turn_id) || at_tool_boundary && self.has_tool()? {
                    return Ok(None);
                }
                self.in_place_of(&turn_id, mail)
            }
            Way::Steer { turn_id, at_tool_boundary } => {
                if !self.can_join(&turn_id) || at_tool_boundary && self.has_tool()? {
                    return Ok(None);
                }
                if self.is_agents_own() {
                    // Nobody has asked for it, and not every agent takes input into it.
                    return self.in_place_of(&turn_id, mail);
                }
                self.in_running_turn(turn_id, mail)
            }
        }
    }

    fn runs(&self, turn_id: &str) -> bool {
        self.state.turn.as_ref().is_some_and(|turn| &*turn.turn_id == turn_id)
    }

    /// Whether the active turn is what the agent does by itself.
    fn is_agents_own(&self) -> bool {
        self.state.turn.as_ref().is_some_and(|turn| turn.source == TurnSource::Agent)
    }

    fn can_join(&self, turn_id: &str) -> bool {
        let is_told = |turn: &LiveTurn| turn.is_dispatched && !turn.is_interrupted;
        self.runs(turn_id)
            && self.state.phase == Phase::Open
            && !self.is_gated(None)
            && self.state.turn.as_ref().is_some_and(is_told)
            && self.state.adapter.as_ref().is_some_and(|adapter| adapter.capabilities().steer)
    }

    /// As the ledger has it, which is as it is: all that the agent has said so far is committed.
    fn has_tool(&self) -> Result<bool> {
        let session_key = self.session_key;
        self.shared.ledger.read(|db| recipient::has_tool(db, session_key))
    }

    fn in_new_turn(&mut self, mail: Mail) -> Result<Option<String>> {
        let is_gated = self.is_gated(None);
        let is_ready = is_gated || self.state.phase == Phase::Open;
        if self.is_turn_active() || self.state.queued > 0 || !is_ready {
            return Ok(None);
        }
        let turn_id = id::new("turn");
        let status = if is_gated { TurnStatus::WaitingForApproval } else { TurnStatus::InProgress };
        let request = of_mail(mail.input);
        let mut step = self.step_of_mail(mail.claim);
        self.insert_turn(&turn_id, status, &request, &mut step);
        self.state.turn = Some(LiveTurn::of_request(&turn_id, request));
        if is_gated {
            self.ask_gate(&mut step);
        } else {
            self.tell_start(None, &mut step);
            self.dispatch(&mut step);
        }
        accept(mail.accept, &turn_id, &mut step);
        self.commit(step)?;
        Ok(Some(turn_id))
    }

    fn in_place_of(&mut self, running: &str, mail: Mail) -> Result<Option<String>> {
        let is_unread_mail =
            |turn: &LiveTurn| turn.source == TurnSource::Team && !turn.is_dispatched;
        if self.state.turn.as_ref().is_some_and(is_unread_mail) {
            return Ok(None);
        }
        if self.is_agents_own() {
            // What the agent does by itself has no end to wait for: it is called over.
            let mut step = self.step();
            self.command(Command::EndAgentTurn, &mut step);
            self.commit(step)?;
            return self.in_new_turn(mail);
        }
        let turn_id = id::new("turn");
        let request = of_mail(mail.input);
        let mut step = self.step_of_mail(mail.claim);
        self.insert_turn(&turn_id, TurnStatus::Queued, &request, &mut step);
        self.state.queued += 1;
        let id: Arc<str> = Arc::from(turn_id.as_str());
        step.event(EventKind::TurnQueued, Some(id), json!({"position": 1}).to_string());
        if self.state.turn.as_ref().is_some_and(|turn| !turn.is_interrupted) {
            self.interrupt_active(running, &mut step);
        }
        accept(mail.accept, &turn_id, &mut step);
        self.commit(step)?;
        Ok(Some(turn_id))
    }

    fn in_running_turn(&mut self, turn_id: String, mail: Mail) -> Result<Option<String>> {
        let mut step = self.step_of_mail(mail.claim);
        let id: Arc<str> = Arc::from(turn_id.as_str());
        step.event(EventKind::TurnSteered, Some(id), json!({"source": "team"}).to_string());
        self.user_message(&mail.input, &mut step);
        let steer = Steer { input: mail.input, mail: mail.deliveries };
        // First: an adapter that refuses it at once gives back what was accepted.
        accept(mail.accept, &turn_id, &mut step);
        self.command(Command::Steer(steer), &mut step);
        self.commit(step)?;
        self.state.steered = Some(turn_id.as_str().into());
        Ok(Some(turn_id))
    }

    /// Whether the agent has yet to say that it has heard mail which joined a turn. Until then no other mail goes but
    /// into the same turn: what comes back is to be ahead of it. The agent has its time for that, and is ended then.
    fn is_mail_unanswered(&self, way: &Way) -> bool {
        let is_same = |turn_id: &str| self.state.steered.as_deref() == Some(turn_id);
        if matches!(way, Way::Steer { turn_id, .. } if is_same(turn_id)) {
            return false;
        }
        let adapter = self.state.adapter.as_ref();
        adapter.is_some_and(|adapter| adapter.open_steers().iter().any(|it| !it.mail.is_empty()))
    }

    /// Whether mail that came back, or came, since this was put together is to go first.
    fn is_overtaking(&self, mail: &Mail) -> Result<bool> {
        let deliveries = &mail.deliveries;
        self.shared.ledger.read(|db| delivery::is_overtaking(db, &self.session_id, deliveries))
    }

    fn step_of_mail(&self, claim: Claim) -> Step {
        let mut step = self.step();
        step.change(claim);
        step
    }

    /// The agent has not heard these: they wait again, for whoever brings mail to look; but for those that joined the
    /// turn that fails with its agent.
    pub(super) fn give_back(
        &mut self,
        deliveries: Vec<i64>,
        failing: Option<Arc<str>>,
        step: &mut Step,
    ) {
        step.change(move |tx| {
            for delivery_key in &deliveries {
                tx.give_back_delivery(*delivery_key, failing.as_deref())?;
            }
            Ok(())
        });
        let (shared, recipient) = (Arc::clone(&self.shared), self.session_id.to_string());
        step.afterwards(move || shared.post.announce([recipient], "steer_refused"));
    }
}

fn accept(accept: Accept, turn_id: &str, step: &mut Step) {
    let turn_id = turn_id.to_owned();
    step.change(move |tx| accept(tx, &turn_id));
}

fn of_mail(input: Vec<Input>) -> TurnRequest {
    TurnRequest { input, ..TurnRequest::of_agent(TurnSource::Team) }
}
