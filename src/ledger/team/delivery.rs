//! Deliveries: each message on its way to each recipient, and every change of their state.
//!
//! There is one way to change a state, [`Tx::move_delivery`]: it asks the table in `model::team`, tells the event, and
//! tells when the last delivery of a message has come to its end.

use crate::error::{Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::key::{self, Keyed};
use crate::ledger::team::TeamRecord;
use crate::ledger::{Tx, to_json};
use crate::model::event::EventKind;
use crate::model::team::{DeferredReason, DeliveryStatus, InjectionStrategy, Policy};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// A delivery as clients see it.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Delivery"))]
pub struct DeliveryRecord {
    #[serde(skip)]
    pub delivery_key: i64,
    #[serde(skip)]
    pub message_key: i64,
    pub id: String,
    pub message_id: String,
    pub team_id: String,
    pub recipient_agent_id: String,
    pub provider: Option<String>,
    /// A word of [`DeliveryStatus`].
    #[cfg_attr(test, schemars(with = "crate::model::team::DeliveryStatus"))]
    pub status: String,
    #[cfg_attr(test, schemars(with = "crate::model::team::Policy"))]
    pub effective_policy: String,
    #[cfg_attr(test, schemars(with = "crate::model::team::Priority"))]
    pub priority: String,
    #[cfg_attr(test, schemars(with = "Option<crate::model::team::DeferredReason>"))]
    pub deferred_reason: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::team::InjectionStrategy>"))]
    pub injection_strategy: Option<String>,
    pub injected_turn_id: Option<String>,
    pub last_error_code: Option<String>,
    pub last_error_message: Option<String>,
    pub attempts: i64,
    pub next_attempt_at: Option<i64>,
    pub created_at: i64,
    pub updated_at: i64,
}

/// Which deliveries of a team to list, oldest first.
#[derive(Debug, Default)]
pub struct DeliveryQuery {
    pub message_key: Option<i64>,
    pub recipient_agent_id: Option<String>,
    pub status: Option<String>,
    /// Strictly behind this delivery key.
    pub after: Option<i64>,
    pub limit: usize,
}

/// What the dispatcher has to know of a delivery that waits.
#[derive(Clone, Debug, PartialEq)]
pub struct Waiting {
    pub delivery_key: i64,
    pub status: DeliveryStatus,
    pub rank: i64,
    pub policy: Policy,
    pub deferred_reason: Option<DeferredReason>,
    pub next_attempt_at: Option<i64>,
    /// An agent has refused to take it into a running turn.
    pub is_steer_refused: bool,
    /// Of what a turn would carry.
    pub bytes: usize,
}

pub struct NewDelivery<'a> {
    pub delivery_id: &'a str,
    pub message_key: i64,
    pub recipient_agent_id: &'a str,
    pub provider: Option<&'a str>,
    pub rank: i64,
    pub policy: Policy,
}

/// A change of a delivery's state, and what comes with it.
#[derive(Clone, Debug)]
pub struct Move<'a> {
    pub to: DeliveryStatus,
    pub reason: Option<DeferredReason>,
    /// Code and message.
    pub error: Option<(&'a str, &'a str)>,
    /// The turn that carries it, and how it came there.
    pub turn: Option<(&'a str, InjectionStrategy)>,
    pub next_attempt_at: Option<i64>,
    pub attempts: Attempts,
    /// Only if it was claimed by this attempt and by none since.
    pub claim: Option<i64>,
    /// A session gives it back (`DeliveryStatus::comes_back_from`).
    pub is_given_back: bool,
    /// What made somebody look at it.
    pub trigger: Option<&'a str>,
}

/// What a change does to the count of attempts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Attempts {
    Keep,
    Count,
    Reset,
}

impl<'a> Move<'a> {
    pub fn to(to: DeliveryStatus) -> Move<'a> {
        Move {
            to,
            reason: None,
            error: None,
            turn: None,
            next_attempt_at: None,
            attempts: Attempts::Keep,
            claim: None,
            is_given_back: false,
            trigger: None,
        }
    }
}

const COLUMNS: &str = "delivery_key, message_key, delivery_id, message_id, team_id, \
    recipient_agent_id, provider, status, team_delivery.policy, priority, deferred_reason, \
    injection_strategy, injected_turn_id, last_error_code, last_error_message, attempts, \
    next_attempt_at, team_delivery.created_at, team_delivery.updated_at";

const JOINED: &str = "team_delivery JOIN team_message USING (message_key) \
    JOIN team ON team.team_key = team_delivery.team_key";

fn record_of(row: &Row<'_>) -> rusqlite::Result<DeliveryRecord> {
    Ok(DeliveryRecord {
        delivery_key: row.get(0)?,
        message_key: row.get(1)?,
        id: row.get(2)?,
        message_id: row.get(3)?,
        team_id: row.get(4)?,
        recipient_agent_id: row.get(5)?,
        provider: row.get(6)?,
        status: row.get(7)?,
        effective_policy: row.get(8)?,
        priority: row.get(9)?,
        deferred_reason: row.get(10)?,
        injection_strategy: row.get(11)?,
        injected_turn_id: row.get(12)?,
        last_error_code: row.get(13)?,
        last_error_message: row.get(14)?,
        attempts: row.get(15)?,
        next_attempt_at: row.get(16)?,
        created_at: row.get(17)?,
        updated_at: row.get(18)?,
    })
}

/// Errors: there is no such delivery in the team.
pub fn get(
    connection: &Connection,
    team: &TeamRecord,
    delivery_id: &str,
) -> Result<DeliveryRecord> {
    connection
        .prepare_cached(&format!(
            "SELECT {COLUMNS} FROM {JOINED}
             WHERE delivery_id = ?1 AND team_delivery.team_key = ?2"
        ))?
        .query_row(params![delivery_id, team.team_key], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("delivery", delivery_id))
}

fn by_key(connection: &Connection, delivery_key: i64) -> Result<DeliveryRecord> {
    Ok(connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM {JOINED} WHERE delivery_key = ?1"))?
        .query_row([delivery_key], record_of)?)
}

pub fn list(
    connection: &Connection,
    team: &TeamRecord,
    query: &DeliveryQuery,
) -> Result<Vec<DeliveryRecord>> {
    let mut conditions = vec!["team_delivery.team_key = ?"];
    let mut values = vec![Sql::Integer(team.team_key)];
    if let Some(message_key) = query.message_key {
        conditions.push("message_key = ?");
        values.push(Sql::Integer(message_key));
    }
    if let Some(agent_id) = &query.recipient_agent_id {
        conditions.push("recipient_agent_id = ?");
        values.push(Sql::Text(agent_id.clone()));
    }
    if let Some(status) = &query.status {
        conditions.push("status = ?");
        values.push(Sql::Text(status.clone()));
    }
    if let Some(after) = query.after {
        conditions.push("delivery_key > ?");
        values.push(Sql::Integer(after));
    }
    values.push(Sql::Integer(i64::try_from(query.limit).unwrap_or(i64::MAX)));
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM {JOINED} WHERE {} ORDER BY delivery_key LIMIT ?",
        conditions.join(" AND ")
    ))?;
    let records = statement.query_map(rusqlite::params_from_iter(values), record_of)?;
    Ok(records.collect::<rusqlite::Result<_>>()?)
}

/// All deliveries of a message, oldest first.
pub fn of_message(
    connection: &Connection,
    team: &TeamRecord,
    message_key: i64,
) -> Result<Vec<DeliveryRecord>> {
    let query = DeliveryQuery {
        message_key: Some(message_key),
        limit: usize::MAX,
        ..DeliveryQuery::default()
    };
    list(connection, team, &query)
}

/// Everybody for whom mail waits, whatever was under way when the last server ended.
pub fn awaited(connection: &Connection) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT DISTINCT recipient_agent_id FROM team_delivery
         WHERE status IN ('pending', 'deferred', 'injecting')",
    )?;
    let recipients = statement.query_map([], |row| row.get(0))?;
    Ok(recipients.collect::<rusqlite::Result<_>>()?)
}

/// The front of a recipient's queue, over all its teams, in the order in which it is to be delivered.
pub fn queue(
    connection: &Connection,
    recipient_agent_id: &str,
    limit: usize,
) -> Result<Vec<Waiting>> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(
        "SELECT delivery_key, status, rank, team_delivery.policy, deferred_reason, next_attempt_at,
             octet_length(content), last_error_code
         FROM team_delivery JOIN team_message USING (message_key)
         WHERE recipient_agent_id = ?1 AND status IN ('pending', 'deferred', 'injecting')
         ORDER BY rank, delivery_key LIMIT ?2",
    )?;
    let waiting = statement.query_map(params![recipient_agent_id, limit], |row| {
        let bytes: i64 = row.get(6)?;
        let reason: Option<String> = row.get(4)?;
        let error_code: Option<String> = row.get(7)?;
        Ok(Waiting {
            delivery_key: row.get(0)?,
            status: DeliveryStatus::parse(&row.get::<_, String>(1)?)
                .unwrap_or(DeliveryStatus::Deferred),
            rank: row.get(2)?,
            policy: Policy::parse(&row.get::<_, String>(3)?).unwrap_or(Policy::NonInterrupting),
            deferred_reason: reason.as_deref().and_then(DeferredReason::parse),
            next_attempt_at: row.get(5)?,
            is_steer_refused: error_code.as_deref() == Some(DeferredReason::SteerRefused.as_str()),
            bytes: usize::try_from(bytes).unwrap_or(0),
        })
    })?;
    Ok(waiting.collect::<rusqlite::Result<_>>()?)
}

/// Whether as many deliveries as this wait for a recipient, or more.
fn is_full(connection: &Connection, recipient_agent_id: &str, most: usize) -> Result<bool> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    Ok(connection
        .prepare_cached(
            "SELECT 1 FROM team_delivery
             WHERE recipient_agent_id = ?1 AND status IN ('pending', 'deferred', 'injecting')
             LIMIT 1 OFFSET ?2",
        )?
        .exists(params![recipient_agent_id, most - 1])?)
}

/// Mail that waits for a recipient and goes before a delivery. The condition on the status holds that of the index word
/// for word, without which SQLite does not take the index and reads all mail that ever was.
pub(super) const AHEAD: &str = "SELECT ahead.delivery_key FROM team_delivery AS ahead
     JOIN team_delivery AS carried ON carried.delivery_key = ?2
     WHERE ahead.recipient_agent_id = ?1
         AND ahead.status IN ('pending', 'deferred', 'injecting') AND ahead.status <> 'injecting'
         AND (ahead.rank, ahead.delivery_key) < (carried.rank, carried.delivery_key)
     ORDER BY ahead.rank, ahead.delivery_key LIMIT ?3";

/// Whether mail waits for this recipient that goes before the last of these deliveries and is none of them.
pub fn is_overtaking(
    connection: &Connection,
    recipient_agent_id: &str,
    deliveries: &[i64],
) -> Result<bool> {
    let Some(last) = deliveries.last() else { return Ok(false) };
    let limit = i64::try_from(deliveries.len()).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(AHEAD)?;
    let mut ahead = statement.query(params![recipient_agent_id, last, limit])?;
    while let Some(row) = ahead.next()? {
        if !deliveries.contains(&row.get(0)?) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How many deliveries wait for a member in a team.
pub fn waiting_count(connection: &Connection, team: &TeamRecord, agent_id: &str) -> Result<i64> {
    Ok(connection
        .prepare_cached(
            "SELECT count(*) FROM team_delivery
             WHERE recipient_agent_id = ?1 AND status IN ('pending', 'deferred', 'injecting')
                 AND team_key = ?2",
        )?
        .query_row(params![agent_id, team.team_key], |row| row.get(0))?)
}

/// Counts by status, for diagnostics.
pub fn status_counts(connection: &Connection) -> Result<Vec<(String, i64)>> {
    let mut statement =
        connection.prepare_cached("SELECT status, count(*) FROM team_delivery GROUP BY status")?;
    let counts = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(counts.collect::<rusqlite::Result<_>>()?)
}

impl Tx<'_> {
    /// A delivery in state `pending`; the caller tells it behind its message.
    pub fn insert_delivery(&mut self, team: &TeamRecord, new: &NewDelivery<'_>) -> Result<i64> {
        let now_ms = self.now_ms();
        let delivery_key = key::next(self.connection(), Keyed::Delivery)?;
        self.connection()
            .prepare_cached(
                "INSERT INTO team_delivery (delivery_id, message_key, team_key,
                     recipient_agent_id, provider, status, rank, policy, created_at, updated_at,
                     delivery_key)
                 VALUES (?1, ?2, ?3, ?4, ?5, 'pending', ?6, ?7, ?8, ?8, ?9)",
            )?
            .execute(params![
                new.delivery_id,
                new.message_key,
                team.team_key,
                new.recipient_agent_id,
                new.provider,
                new.rank,
                new.policy.as_str(),
                now_ms,
                delivery_key,
            ])?;
        Ok(delivery_key)
    }

    pub fn deliveries_of(
        &mut self,
        team: &TeamRecord,
        message_key: i64,
    ) -> Result<Vec<DeliveryRecord>> {
        of_message(self.connection(), team, message_key)
    }

    pub fn delivery(&mut self, team: &TeamRecord, delivery_id: &str) -> Result<DeliveryRecord> {
        get(self.connection(), team, delivery_id)
    }

    pub fn is_mailbox_full(&mut self, recipient_agent_id: &str, most: usize) -> Result<bool> {
        is_full(self.connection(), recipient_agent_id, most)
    }

    /// Changes the state of a delivery and tells it, if its state allows the change; returns whether it did. What is to
    /// wait again in a team that is gone, or that the recipient has left meanwhile, goes no further.
    pub fn move_delivery(&mut self, delivery_key: i64, change: &Move<'_>) -> Result<bool> {
        let from =
            if change.is_given_back { change.to.comes_back_from() } else { change.to.comes_from() };
        let from: Vec<String> = from.iter().map(|from| format!("'{}'", from.as_str())).collect();
        let (error_code, error_message) = change.error.unzip();
        let (turn_id, strategy) = change.turn.unzip();
        let changed = self
            .connection()
            .prepare_cached(&format!(
                "UPDATE team_delivery SET
                     status = ?2,
                     deferred_reason = ifnull(?3, deferred_reason),
                     last_error_code = ifnull(?4, last_error_code),
                     last_error_message = ifnull(?5, last_error_message),
                     injected_turn_id = ?6,
                     injection_strategy = ?7,
                     next_attempt_at = ?8,
                     attempts = CASE ?9 WHEN 'count' THEN attempts + 1 WHEN 'reset' THEN 0
                         ELSE attempts END,
                     claim = claim + (?2 = 'injecting'),
                     updated_at = ?10
                 WHERE delivery_key = ?1 AND (?11 IS NULL OR claim = ?11) AND status IN ({})",
                from.join(", ")
            ))?
            .execute(params![
                delivery_key,
                change.to.as_str(),
                change.reason.map(DeferredReason::as_str),
                error_code,
                error_message,
                turn_id,
                strategy.map(InjectionStrategy::as_str),
                change.next_attempt_at,
                match change.attempts {
                    Attempts::Keep => "keep",
                    Attempts::Count => "count",
                    Attempts::Reset => "reset",
                },
                self.now_ms(),
                change.claim,
            ])?;
        if changed == 0 {
            return Ok(false);
        }
        let record = by_key(self.connection(), delivery_key)?;
        self.tell_delivery(&record, change.to, change.trigger)?;
        if change.to.is_terminal() {
            self.tell_if_completed(&record)?;
        }
        if change.to == DeliveryStatus::Deferred {
            self.end_when_left_behind(delivery_key)?;
        }
        Ok(true)
    }

    /// Claims a delivery for an attempt; returns the number of the claim, or None when it does not wait any more.
    pub fn claim_delivery(&mut self, delivery_key: i64, trigger: &str) -> Result<Option<i64>> {
        if self.end_when_left_behind(delivery_key)? {
            return Ok(None);
        }
        let claiming = Move { trigger: Some(trigger), ..Move::to(DeliveryStatus::Injecting) };
        if !self.move_delivery(delivery_key, &claiming)? {
            return Ok(None);
        }
        Ok(self
            .connection()
            .prepare_cached("SELECT claim FROM team_delivery WHERE delivery_key = ?1")?
            .query_row([delivery_key], |row| row.get(0))
            .optional()?)
    }

    /// Has mail wait again that was to join a turn and that its agent has not heard; what joined `failing` is left as
    /// it is.
    pub fn give_back_delivery(&mut self, delivery_key: i64, failing: Option<&str>) -> Result<()> {
        let is_there = self
            .connection()
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM team_delivery
                     WHERE delivery_key = ?1 AND (?2 IS NULL OR injected_turn_id <> ?2))",
            )?
            .query_row(params![delivery_key, failing], |row| row.get(0))?;
        if is_there {
            let reason = DeferredReason::SteerRefused;
            let waiting = Move {
                reason: Some(reason),
                error: Some((reason.as_str(), "its turn was over before the agent had heard it")),
                is_given_back: true,
                trigger: Some(reason.as_str()),
                ..Move::to(DeliveryStatus::Deferred)
            };
            self.move_delivery(delivery_key, &waiting)?;
        }
        Ok(())
    }

    pub fn delivery_attempts(&mut self, delivery_key: i64) -> Result<i64> {
        Ok(self
            .connection()
            .prepare_cached("SELECT attempts FROM team_delivery WHERE delivery_key = ?1")?
            .query_row([delivery_key], |row| row.get(0))?)
    }

    /// Tells the state of a delivery as it is now.
    pub fn tell_delivery(
        &mut self,
        record: &DeliveryRecord,
        status: DeliveryStatus,
        trigger: Option<&str>,
    ) -> Result<()> {
        let trigger = trigger.map_or(String::new(), |word| format!(",\"trigger\":\"{word}\""));
        let payload = format!("{{\"delivery\":{}{trigger}}}", to_json(record));
        let event = NewEvent {
            turn_id: record.injected_turn_id.as_deref(),
            ..NewEvent::team(&record.team_id, kind_of(status), payload)
        };
        self.append(event.concerning(&record.recipient_agent_id)).map(|_seq| ())
    }

    /// Those of a broadcast mostly end from the first on, so an open one is looked for from the last.
    fn tell_if_completed(&mut self, record: &DeliveryRecord) -> Result<()> {
        let is_open = self
            .connection()
            .prepare_cached(
                "SELECT 1 FROM team_delivery
                 WHERE message_key = ?1 AND status IN ('pending', 'deferred', 'injecting')
                 ORDER BY delivery_key DESC LIMIT 1",
            )?
            .exists([record.message_key])?;
        if is_open {
            return Ok(());
        }
        let payload = format!(
            "{{\"message_id\":{},\"team_id\":{}}}",
            to_json(&record.message_id),
            to_json(&record.team_id)
        );
        let kind = EventKind::TeamMessageCompleted;
        self.append(NewEvent::team(&record.team_id, kind, payload)).map(|_seq| ())
    }
}

fn kind_of(status: DeliveryStatus) -> EventKind {
    match status {
        DeliveryStatus::Pending => EventKind::TeamDeliveryPending,
        DeliveryStatus::Deferred => EventKind::TeamDeliveryDeferred,
        DeliveryStatus::Injecting => EventKind::TeamDeliveryInjecting,
        DeliveryStatus::Injected => EventKind::TeamDeliveryInjected,
        DeliveryStatus::Failed => EventKind::TeamDeliveryFailed,
        DeliveryStatus::Cancelled => EventKind::TeamDeliveryCancelled,
    }
}
