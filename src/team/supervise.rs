//! What whoever watches over a team can see and do: what each member is at, and its turn ended.

use super::Teams;
use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::item::{self, ItemRecord};
use crate::ledger::session;
use crate::ledger::team::message::MessageRecord;
use crate::ledger::team::{self, delivery, message, recipient};
use crate::ledger::turn::{self, TurnRecord};
use crate::ledger::{Connection, Most};
use crate::model::SessionStatus;
use crate::model::event::EventKind;
use serde::Serialize;
use serde_json::json;

/// What a member is doing.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Activity {
    pub team_id: String,
    pub agent_id: String,
    pub title: Option<String>,
    /// `working`, `waiting_for_approval`, `idle`, `starting`, `errored`, `closed`; `unknown` when its session is gone.
    pub state: &'static str,
    pub active_turn: Option<TurnRecord>,
    /// What the turn is at: the item that was opened last, with what it has said so far.
    pub current_item: Option<ItemRecord>,
    /// What the assistant said last, as far as it has come.
    pub last_text: Option<String>,
    /// The newest message that it wrote or was sent in this team.
    pub last_message: Option<MessageRecord>,
    pub last_activity_at: i64,
    /// Of this team.
    pub deliveries_waiting: i64,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InterruptAll {
    pub team_id: String,
    pub interrupted_session_ids: Vec<String>,
    /// Those with nothing to interrupt.
    pub skipped_session_ids: Vec<String>,
}

impl Teams {
    /// Asks each member's running turn to end, and tells the team's log whose it was.
    pub fn interrupt_all(&self, team_id: &str) -> Result<InterruptAll> {
        let roster = self.roster(team_id)?;
        let mut interrupted_session_ids = Vec::new();
        let mut skipped_session_ids = Vec::new();
        for member in roster.members {
            let is_interrupted = match self.interrupt_turn(&member.agent_id) {
                Ok(turn_id) => turn_id.is_some(),
                Err(error) => {
                    log::warn!("member {} is not interrupted: {error}", member.agent_id);
                    false
                }
            };
            let ids = if is_interrupted {
                &mut interrupted_session_ids
            } else {
                &mut skipped_session_ids
            };
            ids.push(member.agent_id);
        }
        let team_id = team_id.to_owned();
        let result = InterruptAll { team_id, interrupted_session_ids, skipped_session_ids };
        let payload = json!({"result": &result}).to_string();
        let team_id = result.team_id.clone();
        self.shared.ledger.write(move |tx| {
            // It may be gone by now, with its log.
            tx.team(&team_id)?;
            let event = NewEvent::team(&team_id, EventKind::TeamInterruptAll, payload.as_str());
            tx.append(event).map(|_seq| ())
        })?;
        Ok(result)
    }

    /// Asks a member's running turn to end; answers with its id. Errors: none runs.
    pub fn interrupt_member(&self, team_id: &str, agent_id: &str) -> Result<String> {
        self.shared.ledger.read(|db| team::member(db, &team::get(db, team_id)?, agent_id))?;
        self.interrupt_turn(agent_id)?
            .ok_or_else(|| Error::new(Code::Conflict, format!("session {agent_id} runs no turn")))
    }

    /// The turn that was asked to end; None when none runs (any more).
    fn interrupt_turn(&self, agent_id: &str) -> Result<Option<String>> {
        let recipient = self.shared.ledger.read(|db| recipient::get(db, agent_id))?;
        let Some(active) = recipient.and_then(|recipient| recipient.active) else {
            return Ok(None);
        };
        match self.shared.sessions.interrupt(agent_id, &active.turn_id) {
            Ok(()) => Ok(Some(active.turn_id)),
            Err(error) if error.code == Code::Conflict => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn activity(&self, team_id: &str, agent_id: &str) -> Result<Activity> {
        self.shared.ledger.read(|db| activity(db, team_id, agent_id))
    }
}

fn activity(db: &Connection, team_id: &str, agent_id: &str) -> Result<Activity> {
    let team = team::get(db, team_id)?;
    let member = team::member(db, &team, agent_id)?;
    let session = match session::get(db, agent_id) {
        Ok(session) => Some(session),
        Err(error) if error.code == Code::NotFound => None,
        Err(error) => return Err(error),
    };
    let status = session.as_ref().and_then(|session| SessionStatus::parse(&session.status));
    let active_turn = match &session {
        Some(session) => turn::active(db, session.session_key)?,
        None => None,
    };
    let doing = recipient::doing(db, agent_id)?;
    let grown = |item_key: Option<i64>| -> Result<Option<ItemRecord>> {
        let Some(item_key) = item_key else { return Ok(None) };
        Ok(item::list_grown(db, agent_id, None, Some(item_key - 1), Most::rows(1))?.records.pop())
    };
    let said = grown(doing.last_said)?;
    let text_of = |item: &ItemRecord| item.body.get("text")?.as_str().map(str::to_owned);
    let last_message = message::newest_of(db, &team, agent_id)?;
    let last_activity_at = [
        Some(member.joined_at),
        session.as_ref().map(|session| session.updated_at),
        last_message.as_ref().map(|message| message.created_at),
        doing.last_event_at,
    ];
    Ok(Activity {
        team_id: team_id.to_owned(),
        agent_id: agent_id.to_owned(),
        title: member.title,
        state: state_of(status),
        active_turn,
        current_item: grown(doing.open_item)?,
        last_text: said.as_ref().and_then(text_of),
        last_message,
        last_activity_at: last_activity_at.into_iter().flatten().max().unwrap_or(0),
        deliveries_waiting: delivery::waiting_count(db, &team, agent_id)?,
    })
}

pub(super) fn state_of(status: Option<SessionStatus>) -> &'static str {
    match status {
        None => "unknown",
        Some(SessionStatus::Starting) => "starting",
        Some(SessionStatus::Ready) => "idle",
        Some(SessionStatus::TurnRunning) => "working",
        Some(SessionStatus::WaitingForApproval) => "waiting_for_approval",
        Some(SessionStatus::Closed) => "closed",
        Some(SessionStatus::Failed) => "errored",
    }
}
