//! Messages between the members of a team.

use crate::error::{Code, Error, Result};
use crate::ledger::key::{self, Keyed};
use crate::ledger::session::json_of;
use crate::ledger::team::TeamRecord;
use crate::ledger::{Listed, Most, Tx, listed};
use crate::model::team::{MessageScope, Policy, Priority};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;
use serde_json::value::RawValue;

/// A message as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Message"))]
pub struct MessageRecord {
    #[serde(skip)]
    pub message_key: i64,
    pub id: String,
    pub team_id: String,
    /// A word of [`MessageScope`].
    #[cfg_attr(test, schemars(with = "crate::model::team::MessageScope"))]
    pub scope: String,
    pub sender_agent_id: String,
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub recipient_agent_ids: Box<RawValue>,
    /// As the sender gave it.
    #[cfg_attr(test, schemars(with = "Vec<serde_json::Value>"))]
    pub input: Box<RawValue>,
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub image_paths: Box<RawValue>,
    #[cfg_attr(test, schemars(with = "crate::model::team::Priority"))]
    pub priority: String,
    #[cfg_attr(test, schemars(with = "crate::model::team::Policy"))]
    pub policy: String,
    pub correlation_id: Option<String>,
    pub reply_to_message_id: Option<String>,
    pub idempotency_key: Option<String>,
    pub created_at: i64,
}

pub struct NewMessage<'a> {
    pub message_id: &'a str,
    pub scope: MessageScope,
    pub sender_agent_id: &'a str,
    /// JSON arrays.
    pub recipient_agent_ids: &'a str,
    pub input: &'a str,
    pub image_paths: &'a str,
    /// The checked input.
    pub content: &'a str,
    pub priority: Priority,
    pub policy: Policy,
    pub correlation_id: Option<&'a str>,
    pub reply_to_message_id: Option<&'a str>,
    pub idempotency_key: Option<&'a str>,
    pub body_hash: i64,
}

/// What a turn needs to carry a message.
#[derive(Debug)]
pub struct Letter {
    pub message_id: String,
    pub team_id: String,
    pub scope: String,
    pub sender_agent_id: String,
    /// The sender's title in the team, else that of its session.
    pub sender_title: Option<String>,
    pub reply_to_message_id: Option<String>,
    /// The checked input.
    pub content: String,
    pub created_at: i64,
}

const COLUMNS: &str = "message_key, message_id, team_id, scope, sender_agent_id, \
    recipient_agent_ids, input, image_paths, priority, policy, correlation_id, \
    reply_to_message_id, idempotency_key, team_message.created_at";

fn record_of(row: &Row<'_>) -> rusqlite::Result<MessageRecord> {
    Ok(MessageRecord {
        message_key: row.get(0)?,
        id: row.get(1)?,
        team_id: row.get(2)?,
        scope: row.get(3)?,
        sender_agent_id: row.get(4)?,
        recipient_agent_ids: json_of(row.get(5)?),
        input: json_of(row.get(6)?),
        image_paths: json_of(row.get(7)?),
        priority: row.get(8)?,
        policy: row.get(9)?,
        correlation_id: row.get(10)?,
        reply_to_message_id: row.get(11)?,
        idempotency_key: row.get(12)?,
        created_at: row.get(13)?,
    })
}

/// Errors: there is no such message in the team.
pub fn get(connection: &Connection, team: &TeamRecord, message_id: &str) -> Result<MessageRecord> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM team_message JOIN team USING (team_key)
             WHERE message_id = ?1 AND team_key = ?2"
        ))?
        .query_row(params![message_id, team.team_key], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("message", message_id))
}

/// The messages of a team, oldest first, behind `after` (a message key).
pub fn list(
    connection: &Connection,
    team: &TeamRecord,
    after: i64,
    most: Most,
) -> Result<Listed<MessageRecord>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM team_message JOIN team USING (team_key)
         WHERE team_key = ?1 AND message_key > ?2 ORDER BY message_key LIMIT ?3"
    ))?;
    listed::read(statement.query(params![team.team_key, after, most.limit()])?, most, record_of)
}

/// The message that a delivery carries, for the turn that takes it.
pub fn letter(connection: &Connection, delivery_key: i64) -> Result<Letter> {
    Ok(connection
        .prepare_cached(
            "SELECT message_id, team_id, scope, sender_agent_id,
                 ifnull((SELECT title FROM team_member
                     WHERE team_member.team_key = team_message.team_key
                         AND agent_id = sender_agent_id),
                     (SELECT title FROM session WHERE session_id = sender_agent_id)),
                 reply_to_message_id, content, team_message.created_at
             FROM team_delivery
             JOIN team_message USING (message_key)
             JOIN team ON team.team_key = team_message.team_key
             WHERE delivery_key = ?1",
        )?
        .query_row([delivery_key], |row| {
            Ok(Letter {
                message_id: row.get(0)?,
                team_id: row.get(1)?,
                scope: row.get(2)?,
                sender_agent_id: row.get(3)?,
                sender_title: row.get(4)?,
                reply_to_message_id: row.get(5)?,
                content: row.get(6)?,
                created_at: row.get(7)?,
            })
        })?)
}

/// The newest message that a member wrote in a team, and the one that it was sent last. Both are one step in an index,
/// however much was written.
pub(super) const NEWEST: [&str; 2] = [
    "SELECT message_key FROM team_message
     WHERE team_key = ?1 AND sender_agent_id = ?2 ORDER BY message_key DESC LIMIT 1",
    "SELECT message_key FROM team_delivery
     WHERE team_key = ?1 AND recipient_agent_id = ?2 ORDER BY delivery_key DESC LIMIT 1",
];

/// The newest message that a member wrote or got in a team.
pub fn newest_of(
    connection: &Connection,
    team: &TeamRecord,
    agent_id: &str,
) -> Result<Option<MessageRecord>> {
    let mut message_key = 0;
    for newest in NEWEST {
        let found: Option<i64> = connection
            .prepare_cached(newest)?
            .query_row(params![team.team_key, agent_id], |row| row.get(0))
            .optional()?;
        message_key = message_key.max(found.unwrap_or(0));
    }
    Ok(list(connection, team, message_key - 1, Most::rows(1))?
        .records
        .into_iter()
        .find(|record| record.message_key == message_key))
}

impl Tx<'_> {
    pub fn message(&mut self, team: &TeamRecord, message_id: &str) -> Result<MessageRecord> {
        get(self.connection(), team, message_id)
    }

    /// The message that the sender has written under this key before. Errors: `idempotency_mismatch` for another body.
    pub fn message_of_key(
        &mut self,
        team: &TeamRecord,
        scope: MessageScope,
        sender_agent_id: &str,
        key: &str,
        body_hash: i64,
    ) -> Result<Option<MessageRecord>> {
        let found: Option<(String, i64)> = self
            .connection()
            .prepare_cached(
                "SELECT message_id, body_hash FROM team_message
                 WHERE team_key = ?1 AND sender_agent_id = ?2 AND scope = ?3
                     AND idempotency_key = ?4",
            )?
            .query_row(params![team.team_key, sender_agent_id, scope.as_str(), key], |row| {
                Ok((row.get(0)?, row.get(1)?))
            })
            .optional()?;
        match found {
            Some((_, hash)) if hash != body_hash => Err(Error::new(
                Code::IdempotencyMismatch,
                format!("idempotency_key {key:?} was used for another message"),
            )
            .hint("use a new key for a new message")),
            Some((message_id, _)) => self.message(team, &message_id).map(Some),
            None => Ok(None),
        }
    }

    pub fn insert_message(
        &mut self,
        team: &TeamRecord,
        new: &NewMessage<'_>,
    ) -> Result<MessageRecord> {
        let now_ms = self.now_ms();
        let message_key = key::next(self.connection(), Keyed::Message)?;
        self.connection()
            .prepare_cached(
                "INSERT INTO team_message (message_id, team_key, scope, sender_agent_id,
                     recipient_agent_ids, input, image_paths, content, priority, policy,
                     correlation_id, reply_to_message_id, idempotency_key, body_hash, created_at,
                     message_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
            )?
            .execute(params![
                new.message_id,
                team.team_key,
                new.scope.as_str(),
                new.sender_agent_id,
                new.recipient_agent_ids,
                new.input,
                new.image_paths,
                new.content,
                new.priority.as_str(),
                new.policy.as_str(),
                new.correlation_id,
                new.reply_to_message_id,
                new.idempotency_key,
                new.body_hash,
                now_ms,
                message_key,
            ])?;
        self.message(team, new.message_id)
    }
}
