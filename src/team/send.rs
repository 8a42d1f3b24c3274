//! Messages: written down with their deliveries, asked for again, taken back.

use super::Teams;
use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::idempotency::{self, IdempotencyKey, body_hash};
use crate::ledger::team::delivery::{self, Attempts, DeliveryRecord, Move, NewDelivery};
use crate::ledger::team::message::{self, MessageRecord, NewMessage};
use crate::ledger::team::{self, TeamRecord};
use crate::ledger::{Tx, to_json};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::id;
use crate::model::input::Input;
use crate::model::team::{DeliveryStatus, MessageScope, Policy, Priority};
use crate::session::input;
use serde::Serialize;
use serde_json::{Value, json};

/// A message as its sender wants it.
#[derive(Debug)]
pub struct Outgoing {
    pub sender_agent_id: String,
    pub recipients: Recipients,
    /// Items of a turn.
    pub input: Vec<Value>,
    pub image_paths: Vec<String>,
    pub priority: Priority,
    pub policy: Policy,
    pub correlation_id: Option<String>,
    pub reply_to_message_id: Option<String>,
    /// The sender's own, good for ever; another message under it is refused.
    pub idempotency_key: Option<String>,
    /// Of the request, good for a day.
    pub idempotency: Option<IdempotencyKey>,
}

#[derive(Clone, Debug)]
pub enum Recipients {
    One(String),
    All { include_sender: bool },
}

/// A message, how far it has come, and whether this call has made it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "MessageAck"))]
pub struct Ack {
    pub message: MessageRecord,
    pub deliveries: Vec<DeliveryRecord>,
    /// `created` or `existing`.
    pub disposition: &'static str,
}

impl Teams {
    /// Writes a message down; it is on its way when this returns.
    pub fn send(&self, team_id: &str, outgoing: Outgoing) -> Result<Ack> {
        self.refuse_when_off()?;
        if let Some(claim) = &outgoing.idempotency
            && let Some(made) = self.shared.ledger.read(|db| idempotency::find(db, claim))?
        {
            return self.existing(team_id, &made);
        }
        if outgoing.input.is_empty() {
            return Err(Error::bad_request("input is empty").hint("send at least one item"));
        }
        let image_bytes_max = self.shared.config.image_bytes_max;
        let mut content = input::checked(&outgoing.input, image_bytes_max)?;
        content.extend(input::images(&outgoing.image_paths, image_bytes_max)?);
        let team_id = team_id.to_owned();
        let ack = self.shared.ledger.write(move |tx| tx.send(&team_id, &outgoing, &content))?;
        if ack.disposition == CREATED {
            let recipients = ack.deliveries.iter().map(|made| made.recipient_agent_id.clone());
            self.shared.sessions.post().announce(recipients, "queue");
        }
        Ok(ack)
    }

    fn existing(&self, team_id: &str, message_id: &str) -> Result<Ack> {
        self.shared.ledger.read(|db| {
            let team = team::get(db, team_id)?;
            let message = message::get(db, &team, message_id)?;
            let deliveries = delivery::of_message(db, &team, message.message_key)?;
            Ok(Ack { message, deliveries, disposition: EXISTING })
        })
    }

    /// Tries a delivery again that has failed, or that waits for its next attempt.
    pub fn retry(&self, team_id: &str, delivery_id: &str) -> Result<DeliveryRecord> {
        let (team_id, delivery_id) = (team_id.to_owned(), delivery_id.to_owned());
        let record = self.shared.ledger.write(move |tx| {
            let (team, record) = tx.delivery_of(&team_id, &delivery_id)?;
            tx.must_be_member(&team, "recipient_agent_id", &record.recipient_agent_id)?;
            let again = Move {
                attempts: Attempts::Reset,
                trigger: Some("retry"),
                ..Move::to(DeliveryStatus::Pending)
            };
            if !tx.move_delivery(record.delivery_key, &again)? {
                return Err(Error::new(
                    Code::Conflict,
                    format!("delivery {delivery_id} is {}", record.status),
                )
                .hint("only one that has failed or is deferred can be tried again"));
            }
            tx.delivery_of(&team_id, &delivery_id).map(|(_, record)| record)
        })?;
        self.shared.sessions.post().announce([record.recipient_agent_id.clone()], "retry");
        Ok(record)
    }

    /// Takes a message back. Errors: it has gone out to somebody already.
    pub fn cancel(&self, team_id: &str, message_id: &str) -> Result<Vec<DeliveryRecord>> {
        let (team_id, message_id) = (team_id.to_owned(), message_id.to_owned());
        self.shared.ledger.write(move |tx| {
            let team = tx.team(&team_id)?;
            let message = tx.message(&team, &message_id)?;
            for record in tx.deliveries_of(&team, message.message_key)? {
                let cancelling = Move::to(DeliveryStatus::Cancelled);
                if !tx.move_delivery(record.delivery_key, &cancelling)? {
                    return Err(Error::new(
                        Code::Conflict,
                        format!("delivery {} of the message is {}", record.id, record.status),
                    )
                    .hint("a message is taken back only while all its deliveries wait"));
                }
            }
            tx.deliveries_of(&team, message.message_key)
        })
    }
}

const CREATED: &str = "created";
const EXISTING: &str = "existing";

impl Tx<'_> {
    fn delivery_of(
        &mut self,
        team_id: &str,
        delivery_id: &str,
    ) -> Result<(TeamRecord, DeliveryRecord)> {
        let team = self.team(team_id)?;
        let record = self.delivery(&team, delivery_id)?;
        Ok((team, record))
    }

    /// The change of [`Teams::send`]. `content` is the checked input.
    pub(super) fn send(
        &mut self,
        team_id: &str,
        outgoing: &Outgoing,
        content: &[Input],
    ) -> Result<Ack> {
        let team = self.team(team_id)?;
        let (scope, body_hash) = (outgoing.recipients.scope(), outgoing.hash());
        let (sender, key) = (&outgoing.sender_agent_id, outgoing.idempotency_key.as_deref());
        if let Some(key) = key
            && let Some(message) = self.message_of_key(&team, scope, sender, key, body_hash)?
        {
            let deliveries = self.deliveries_of(&team, message.message_key)?;
            return Ok(Ack { message, deliveries, disposition: EXISTING });
        }
        self.must_be_member(&team, "sender_agent_id", sender)?;
        let message_id = id::new("msg");
        if let Some(claim) = &outgoing.idempotency {
            // Two requests with one key may be on their way at once.
            if let Some(made) = self.claim_key(claim, &message_id)? {
                let message = self.message(&team, &made)?;
                let deliveries = self.deliveries_of(&team, message.message_key)?;
                return Ok(Ack { message, deliveries, disposition: EXISTING });
            }
        }
        let recipients = self.recipients(&team, outgoing, content)?;
        let ids: Vec<&str> = recipients.iter().map(|(agent_id, _)| agent_id.as_str()).collect();
        let message = self.insert_message(
            &team,
            &NewMessage {
                message_id: &message_id,
                scope,
                sender_agent_id: sender,
                recipient_agent_ids: &to_json(&ids),
                input: &to_json(&outgoing.input),
                image_paths: &to_json(&outgoing.image_paths),
                content: &to_json(&content),
                priority: outgoing.priority,
                policy: outgoing.policy,
                correlation_id: outgoing.correlation_id.as_deref(),
                reply_to_message_id: outgoing.reply_to_message_id.as_deref(),
                idempotency_key: key,
                body_hash,
            },
        )?;
        let deliveries = self.insert_deliveries(&team, &message, outgoing, &recipients)?;
        Ok(Ack { message, deliveries, disposition: CREATED })
    }

    /// Who gets it, ordered by id, each with the reason for which it never will. Errors: the one that was named can
    /// not get it, or there is nobody.
    fn recipients(
        &mut self,
        team: &TeamRecord,
        outgoing: &Outgoing,
        content: &[Input],
    ) -> Result<Vec<(String, Option<Error>)>> {
        match &outgoing.recipients {
            Recipients::One(agent_id) => {
                self.must_be_member(team, "recipient_agent_id", agent_id)?;
                self.check_recipient(agent_id, content)?;
                Ok(vec![(agent_id.clone(), None)])
            }
            Recipients::All { include_sender } => {
                let mut ids: Vec<String> =
                    self.team_members(team)?.into_iter().map(|member| member.agent_id).collect();
                ids.retain(|agent_id| *include_sender || *agent_id != outgoing.sender_agent_id);
                ids.sort();
                if ids.is_empty() {
                    return Err(Error::new(
                        Code::Conflict,
                        format!("team {} has no other member", team.id),
                    )
                    .hint("add one, or send \"include_sender\": true"));
                }
                let check = |agent_id: String| {
                    let refusal = self.check_recipient(&agent_id, content).err();
                    (agent_id, refusal)
                };
                Ok(ids.into_iter().map(check).collect())
            }
        }
    }

    /// Errors: this session will not get this message, whatever it waits for.
    fn check_recipient(&mut self, agent_id: &str, content: &[Input]) -> Result<()> {
        self.open_session_key(agent_id)?;
        if self.is_mailbox_full(agent_id, limits::MAIL_WAITING)? {
            return Err(Error::new(
                Code::Capacity,
                format!("{} messages wait for session {agent_id}", limits::MAIL_WAITING),
            )
            .hint("wait until it has read some, or cancel what it need not read"));
        }
        let has_more = content.iter().any(|item| !matches!(item, Input::Text { .. }));
        if has_more {
            let recipient = self.recipient(agent_id)?;
            let capabilities = recipient.and_then(|recipient| recipient.capabilities);
            input::check_supported(content, capabilities.as_deref())?;
        }
        Ok(())
    }

    fn insert_deliveries(
        &mut self,
        team: &TeamRecord,
        message: &MessageRecord,
        outgoing: &Outgoing,
        recipients: &[(String, Option<Error>)],
    ) -> Result<Vec<DeliveryRecord>> {
        let mut keys = Vec::new();
        for (agent_id, _) in recipients {
            let provider = self.provider_of(agent_id)?;
            keys.push(self.insert_delivery(
                team,
                &NewDelivery {
                    delivery_id: &id::new("dlv"),
                    message_key: message.message_key,
                    recipient_agent_id: agent_id,
                    provider: provider.as_deref(),
                    rank: outgoing.priority.rank(),
                    policy: outgoing.policy,
                },
            )?);
        }
        let deliveries = self.deliveries_of(team, message.message_key)?;
        let payload =
            format!("{{\"message\":{},\"deliveries\":{}}}", to_json(message), to_json(&deliveries));
        let event = NewEvent::team(&team.id, EventKind::TeamMessageCreated, payload);
        self.append(event.concerning(&message.sender_agent_id))?;
        for record in &deliveries {
            self.tell_delivery(record, DeliveryStatus::Pending, None)?;
        }
        let mut is_changed = false;
        for (delivery_key, (_, refusal)) in keys.into_iter().zip(recipients) {
            let Some(refusal) = refusal else { continue };
            let code = match refusal.code {
                Code::SessionClosed => "recipient_session_closed",
                Code::Conflict => "recipient_session_failed",
                Code::NotFound => "recipient_session_not_found",
                other => other.as_str(),
            };
            let error = Some((code, refusal.message.as_str()));
            let failing = Move { error, ..Move::to(DeliveryStatus::Failed) };
            is_changed |= self.move_delivery(delivery_key, &failing)?;
        }
        if is_changed { self.deliveries_of(team, message.message_key) } else { Ok(deliveries) }
    }
}

impl Outgoing {
    /// Of all that was asked for: keys of an object are in order, so it does not matter how it was written.
    fn hash(&self) -> i64 {
        let recipients = match &self.recipients {
            Recipients::One(agent_id) => json!(agent_id),
            Recipients::All { include_sender } => json!(include_sender),
        };
        let asked = json!({
            "recipients": recipients,
            "input": self.input,
            "image_paths": self.image_paths,
            "priority": self.priority,
            "policy": self.policy,
            "correlation_id": self.correlation_id,
            "reply_to_message_id": self.reply_to_message_id,
        });
        body_hash(asked.to_string().as_bytes())
    }
}

impl Recipients {
    fn scope(&self) -> MessageScope {
        match self {
            Recipients::One(_) => MessageScope::Direct,
            Recipients::All { .. } => MessageScope::Broadcast,
        }
    }
}
