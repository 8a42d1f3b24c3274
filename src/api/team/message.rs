//! Team mail: messages to one and to all, how far they have come, tried again, taken back; and a whole team at a look.

use super::super::body::{NoFields, check_words};
use super::super::{Api, Call, json, page};
use super::named;
use crate::error::{Error, Result};
use crate::http::Answer;
use crate::ledger::team::delivery::{self, DeliveryQuery, DeliveryRecord};
use crate::ledger::team::message::{self, MessageRecord};
use crate::ledger::team::{self, TeamRecord};
use crate::ledger::{Connection, Listed, Most, to_json};
use crate::limits;
use crate::model::id;
use crate::model::team::{DeliveryStatus, Policy, Priority};
use crate::team::{Outgoing, Recipients};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "MessageSend"))]
pub(in crate::api) struct DirectBody {
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    sender_agent_id: String,
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    recipient_agent_id: String,
    #[cfg_attr(test, schemars(with = "Vec<crate::model::shape::GivenInput>"))]
    #[cfg_attr(test, schemars(length(min = 1)))]
    input: Vec<Value>,
    #[serde(default)]
    #[cfg_attr(test, schemars(inner(regex(pattern = "^/"))))]
    image_paths: Vec<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::team::Priority>"))]
    priority: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::team::Policy>"))]
    policy: Option<String>,
    correlation_id: Option<String>,
    reply_to_message_id: Option<String>,
    #[cfg_attr(test, schemars(length(max = 255)))]
    idempotency_key: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "BroadcastSend"))]
pub(in crate::api) struct BroadcastBody {
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    sender_agent_id: String,
    #[cfg_attr(test, schemars(with = "Vec<crate::model::shape::GivenInput>"))]
    #[cfg_attr(test, schemars(length(min = 1)))]
    input: Vec<Value>,
    #[serde(default)]
    #[cfg_attr(test, schemars(inner(regex(pattern = "^/"))))]
    image_paths: Vec<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::team::Priority>"))]
    priority: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::team::Policy>"))]
    policy: Option<String>,
    correlation_id: Option<String>,
    #[cfg_attr(test, schemars(length(max = 255)))]
    idempotency_key: Option<String>,
    #[serde(default)]
    include_sender: bool,
}

pub(in crate::api) fn direct(api: &Api, call: &Call) -> Result<Answer> {
    let body: DirectBody = call.body()?;
    check_words([
        ("correlation_id", &body.correlation_id),
        ("reply_to_message_id", &body.reply_to_message_id),
    ])?;
    call.check_items(&body.input)?;
    let recipient = named("recipient_agent_id", &body.recipient_agent_id)?;
    let outgoing = Outgoing {
        sender_agent_id: named("sender_agent_id", &body.sender_agent_id)?,
        recipients: Recipients::One(recipient),
        input: body.input,
        image_paths: body.image_paths,
        priority: priority(body.priority.as_deref())?,
        policy: policy(body.policy.as_deref())?,
        correlation_id: body.correlation_id,
        reply_to_message_id: body.reply_to_message_id,
        idempotency_key: idempotency_key(body.idempotency_key)?,
        idempotency: call.idempotency(api)?,
    };
    send(api, call, outgoing)
}

pub(in crate::api) fn broadcast(api: &Api, call: &Call) -> Result<Answer> {
    let body: BroadcastBody = call.body()?;
    check_words([("correlation_id", &body.correlation_id)])?;
    call.check_items(&body.input)?;
    let outgoing = Outgoing {
        sender_agent_id: named("sender_agent_id", &body.sender_agent_id)?,
        recipients: Recipients::All { include_sender: body.include_sender },
        input: body.input,
        image_paths: body.image_paths,
        priority: priority(body.priority.as_deref())?,
        policy: policy(body.policy.as_deref())?,
        correlation_id: body.correlation_id,
        reply_to_message_id: None,
        idempotency_key: idempotency_key(body.idempotency_key)?,
        idempotency: call.idempotency(api)?,
    };
    send(api, call, outgoing)
}

fn send(api: &Api, call: &Call, outgoing: Outgoing) -> Result<Answer> {
    Ok(json(200, to_json(&api.teams.send(call.part(0), outgoing)?)))
}

/// A word as people write it; None for a blank one.
fn word(text: Option<&str>) -> Option<String> {
    text.map(|text| text.trim().to_lowercase()).filter(|text| !text.is_empty())
}

fn priority(text: Option<&str>) -> Result<Priority> {
    let Some(text) = word(text) else { return Ok(Priority::Normal) };
    Priority::parse(&text).ok_or_else(|| {
        Error::bad_request(format!("priority is {text:?}"))
            .hint("it can be \"high\", \"normal\" or \"low\"")
    })
}

fn policy(text: Option<&str>) -> Result<Policy> {
    let Some(text) = word(text) else { return Ok(Policy::NonInterrupting) };
    Policy::parse(&text).ok_or_else(|| {
        let words: Vec<&str> = Policy::ALL.iter().map(|policy| policy.as_str()).collect();
        Error::bad_request(format!("policy is {text:?}"))
            .hint(format!("it can be {}", words.join(", ")))
    })
}

fn idempotency_key(text: Option<String>) -> Result<Option<String>> {
    let key = text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
    if key.as_ref().is_some_and(|key| key.len() > 255) {
        return Err(Error::bad_request("idempotency_key must have 255 characters at most"));
    }
    Ok(key)
}

fn messages(
    api: &Api,
    call: &Call,
    team: &TeamRecord,
    (cursor, limit): (&str, &str),
) -> Result<Listed<MessageRecord>> {
    let rows = call.count(limit)?.unwrap_or(100).clamp(1, 500);
    let rows = usize::try_from(rows).unwrap_or(1);
    api.ledger.read(|db| {
        let after = match call.text(cursor) {
            Some(message_id) => place(db, team, cursor, message_id)?,
            None => 0,
        };
        // One more than asked for, which tells whether there is a next page.
        let most = Most { rows: rows + 1, bytes: limits::LIST_BYTES };
        let mut listed = message::list(db, team, after, most)?;
        listed.records.truncate(rows);
        Ok(listed)
    })
}

/// Where the next page of messages begins, if there may be one.
fn next_cursor(listed: &Listed<MessageRecord>) -> Option<&str> {
    listed.records.last().filter(|_| listed.is_cut).map(|last| last.id.as_str())
}

/// The key of the message that a cursor names.
fn place(db: &Connection, team: &TeamRecord, cursor: &str, message_id: &str) -> Result<i64> {
    message::get(db, team, message_id).map(|message| message.message_key).map_err(|_| {
        Error::bad_request(format!("{cursor}: {message_id:?} is no message of this team"))
            .hint("send the next_cursor of the page before")
    })
}

pub(in crate::api) fn list(api: &Api, call: &Call) -> Result<Answer> {
    let team = api.ledger.read(|db| team::get_any(db, call.part(0)))?;
    let page = messages(api, call, &team, ("cursor", "limit"))?;
    let body = json!({"messages": page.records, "next_cursor": next_cursor(&page)});
    Ok(json(200, body.to_string()))
}

pub(in crate::api) fn deliveries(api: &Api, call: &Call) -> Result<Answer> {
    let statuses: Vec<&str> = DeliveryStatus::ALL.iter().map(|status| status.as_str()).collect();
    let limit = call.limit(1000)?;
    let mut query = DeliveryQuery {
        message_key: None,
        recipient_agent_id: call.text("recipient_agent_id").map(str::to_owned),
        status: call.one_of("status", &statuses)?.map(str::to_owned),
        after: call.number("cursor")?,
        limit,
    };
    let records = api.ledger.read(|db| {
        let team = team::get_any(db, call.part(0))?;
        if let Some(message_id) = call.text("message_id") {
            query.message_key = Some(message::get(db, &team, message_id)?.message_key);
        }
        delivery::list(db, &team, &query)
    })?;
    let listed = Listed::of_rows(records, limit);
    Ok(Answer::Whole(page(&listed, |last| last.delivery_key.to_string())))
}

pub(in crate::api) fn retry(api: &Api, call: &Call) -> Result<Answer> {
    let NoFields {} = call.optional_body()?;
    Ok(json(200, to_json(&api.teams.retry(call.part(0), call.part(1))?)))
}

pub(in crate::api) fn cancel(api: &Api, call: &Call) -> Result<Answer> {
    let NoFields {} = call.optional_body()?;
    Ok(json(200, to_json(&api.teams.cancel(call.part(0), call.part(1))?)))
}

pub(in crate::api) fn view(api: &Api, call: &Call) -> Result<Answer> {
    let roster = api.teams.roster(call.part(0))?;
    let mut page = messages(api, call, &roster.team, ("message_cursor", "message_limit"))?;
    let recipient = call.text("delivery_recipient_filter");
    let mut by_message = Map::new();
    if call.is_on("include_delivery_map", true)? {
        // A message to a large team has many deliveries.
        page.cut_at(limits::LIST_BYTES, |record| {
            let message_key = record.message_key;
            let mut of_message =
                api.ledger.read(|db| delivery::of_message(db, &roster.team, message_key))?;
            let is_wanted = |record: &DeliveryRecord| {
                recipient.is_none_or(|wanted| wanted == record.recipient_agent_id)
            };
            of_message.retain(is_wanted);
            by_message.insert(record.id.clone(), json!(of_message));
            Ok(to_json(&of_message).len())
        })?;
    }
    let body = json!({
        "team": roster,
        "messages": page.records,
        "deliveries_by_message_id": by_message,
        "next_message_cursor": next_cursor(&page),
        "snapshot_at": id::now_ms(),
    });
    Ok(json(200, body.to_string()))
}
