//! The tools for teams: members see each other and write to each other; the lead watches and interrupts.
//!
//! The caller acts as itself: it is the sender, and what it is in a team (a member, the lead) says what it may do.
//! Runs on the caller's thread; a message is on its way when the tool answers.

use super::argument::Arguments;
use super::tool::{Feature, Tool, ToolCode, ToolError, shown};
use super::{Gateway, Invocation};
use crate::error::{Code, Error};
use crate::ledger::team::{self, TeamRecord};
use crate::limits;
use crate::model::team::{Policy, Priority};
use crate::team::{Outgoing, Recipients};
use serde_json::{Value, json};

pub(super) const STATUS: Tool =
    Tool { name: "gg_team_status", feature: Feature::Teams, shown: shown_status, run: status };
pub(super) const MESSAGE: Tool =
    Tool { name: "gg_team_message", feature: Feature::Teams, shown: shown_message, run: message };
pub(super) const INTERRUPT: Tool = Tool {
    name: "gg_team_interrupt",
    feature: Feature::Teams,
    shown: shown_interrupt,
    run: interrupt,
};
pub(super) const ACTIVITY: Tool = Tool {
    name: "gg_team_activity",
    feature: Feature::Teams,
    shown: shown_activity,
    run: activity,
};

/// Names all members but the sender.
const BROADCAST: &str = "broadcast";

fn shown_status() -> Value {
    let description = "Shows a team that you are in: its lead, and of each member the state, the \
        newest message and how much of its context is left.";
    shown(STATUS.name, description, true, &json!({"team_id": team_id()}), &["team_id"])
}

fn shown_message() -> Value {
    let policies = Policy::ALL.iter().map(|policy| policy.as_str()).collect::<Vec<_>>();
    let priorities = Priority::ALL.iter().map(|priority| priority.as_str()).collect::<Vec<_>>();
    let properties = json!({
        "team_id": team_id(),
        "recipient_agent_id": {"type": "string", "minLength": 1,
            "description": "The agent_id of a member, or \"broadcast\" for all others"},
        "message": {"type": "string", "minLength": 1},
        "image_paths": {"type": "array", "items": {"type": "string", "minLength": 1},
            "description": "Image files to go with it"},
        "priority": {"type": "string", "enum": priorities, "description": "normal unless given"},
        "policy": {"type": "string", "enum": policies,
            "description": "For a recipient that is busy: wait for the end of its turn \
                (non_interrupting, unless given), the same and have a turn of its own, or (lead \
                only) interrupt"},
        "reply_to_message_id": {"type": "string", "minLength": 1,
            "description": "The id of the message that this one answers"},
    });
    let description = "Writes to a member of a team that you are in, or to all others. It reaches \
        them as a turn; answers come to you in the same way, so do not wait for them.";
    let required = ["team_id", "recipient_agent_id", "message"];
    shown(MESSAGE.name, description, false, &properties, &required)
}

fn shown_interrupt() -> Value {
    let description = "Ends the running turn of a member of a team that you lead.";
    let properties = json!({"team_id": team_id(), "member_agent_id": member_agent_id()});
    shown(INTERRUPT.name, description, false, &properties, &["team_id", "member_agent_id"])
}

fn shown_activity() -> Value {
    let description = "Shows what a member of a team that you lead is doing: its running turn, \
        what the turn is at, and what it said last.";
    let properties = json!({"team_id": team_id(), "member_agent_id": member_agent_id()});
    shown(ACTIVITY.name, description, true, &properties, &["team_id", "member_agent_id"])
}

fn team_id() -> Value {
    json!({"type": "string", "minLength": 1})
}

fn member_agent_id() -> Value {
    json!({"type": "string", "minLength": 1,
        "description": "An agent_id that gg_team_status shows"})
}

fn status(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let team = team_of(gateway, call)?;
    gateway.teams.status(&team.id).map(|status| json!(status)).map_err(|error| failed(&error))
}

fn message(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let arguments = Arguments(&call.arguments);
    let team = team_of(gateway, call)?;
    let recipient = arguments.needed("recipient_agent_id")?;
    let policy = arguments.text("policy")?.and_then(Policy::parse);
    let policy = policy.unwrap_or(Policy::NonInterrupting);
    if policy.is_interrupting() {
        check_lead(&team, call)?;
    }
    let paths = arguments.texts("image_paths").into_iter().map(|path| gateway.path(call, path));
    let image_paths = paths.collect::<Result<Vec<String>, Error>>();
    let image_paths = image_paths.map_err(|error| failed(&error))?;
    let recipients = if recipient.eq_ignore_ascii_case(BROADCAST) {
        Recipients::All { include_sender: false }
    } else {
        Recipients::One(recipient.to_owned())
    };
    let priority = arguments.text("priority")?.and_then(Priority::parse);
    let outgoing = Outgoing {
        sender_agent_id: call.session_id.clone(),
        recipients,
        input: vec![json!({"type": "text", "text": arguments.needed("message")?})],
        image_paths: image_paths.clone(),
        priority: priority.unwrap_or(Priority::Normal),
        policy,
        correlation_id: None,
        reply_to_message_id: arguments.text("reply_to_message_id")?.map(str::to_owned),
        idempotency_key: call.invocation_id.clone(),
        idempotency: None,
    };
    let ack = gateway.teams.send(&team.id, outgoing).map_err(|error| failed(&error))?;
    let mut delivery_ids: Vec<String> = ack.deliveries.into_iter().map(|made| made.id).collect();
    delivery_ids.sort();
    let mut result = json!({
        "message_id": ack.message.id,
        "recipient_count": delivery_ids.len(),
        "delivery_ids": delivery_ids,
        "scope": ack.message.scope,
        "image_count": image_paths.len(),
    });
    if !image_paths.is_empty() {
        result["image_paths"] = json!(image_paths);
    }
    Ok(result)
}

fn interrupt(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let (team, member) = led(gateway, call)?;
    if member == call.session_id {
        let told = "member_agent_id: that is you; your own turn ends by itself";
        return Err(ToolError::bad_request(told.to_owned()));
    }
    let turn_id = gateway.teams.interrupt_member(&team.id, member).map_err(|error| {
        match error.code {
            // It runs no turn, which has nothing to do with what the caller may.
            Code::Conflict => ToolError::of(ToolCode::ToolFailed, &error),
            _ => failed(&error),
        }
    })?;
    Ok(json!({"session_id": member, "turn_id": turn_id}))
}

fn activity(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let (team, member) = led(gateway, call)?;
    let activity = gateway.teams.activity(&team.id, member).map_err(|error| failed(&error))?;
    let mut activity = json!(activity);
    shorten(&mut activity);
    Ok(activity)
}

/// The team that a call names. Errors: there is none, or the caller is not in it.
pub(super) fn team_of(gateway: &Gateway, call: &Invocation) -> Result<TeamRecord, ToolError> {
    let team_id = Arguments(&call.arguments).needed("team_id")?;
    let team = gateway.ledger.read(|db| team::get(db, team_id)).map_err(|error| failed(&error))?;
    match gateway.ledger.read(|db| team::member(db, &team, &call.session_id)) {
        Ok(_) => Ok(team),
        Err(error) if error.code == Code::NotFound => {
            Err(ToolError::unauthorized(format!("you are not a member of team {team_id}")))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// Errors: somebody else leads.
pub(super) fn check_lead(team: &TeamRecord, call: &Invocation) -> Result<(), ToolError> {
    if team.lead_agent_id == call.session_id {
        return Ok(());
    }
    let lead = &team.lead_agent_id;
    let told = format!("only the lead of team {} may do that, which is {lead}", team.id);
    Err(ToolError::unauthorized(told))
}

/// The team that the caller leads, and the member that it is about.
fn led<'a>(gateway: &Gateway, call: &'a Invocation) -> Result<(TeamRecord, &'a str), ToolError> {
    let team = team_of(gateway, call)?;
    check_lead(&team, call)?;
    Ok((team, Arguments(&call.arguments).needed("member_agent_id")?))
}

/// What a team said no to, in the words of the contract: a state that forbids it is `unauthorized`.
pub(super) fn failed(error: &Error) -> ToolError {
    let code = match error.code {
        Code::BadRequest | Code::IdempotencyMismatch => ToolCode::BadRequest,
        Code::NotFound => ToolCode::NotFound,
        Code::Forbidden | Code::Conflict | Code::SessionClosed => ToolCode::Unauthorized,
        Code::UnsupportedInput => ToolCode::UnsupportedProviderImages,
        _ => ToolCode::ToolFailed,
    };
    ToolError::of(code, error)
}

/// Leaves the middle of long texts out: a model reads what is told, and the beginning and the end say most.
fn shorten(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > limits::TOOL_TEXT_BYTES => {
            let half = limits::TOOL_TEXT_BYTES / 2;
            let (head, tail) =
                (text.floor_char_boundary(half), text.ceil_char_boundary(text.len() - half));
            let left_out = tail - head;
            *text = format!("{}\n[{left_out} bytes left out]\n{}", &text[..head], &text[tail..]);
        }
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Object(fields) => fields.values_mut().for_each(shorten),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_the_beginning_and_the_end_are_told() {
        let long = format!("begin {} end", "ü".repeat(10_000));
        let mut value = json!({"short": "x", "list": [{"long": long}]});
        shorten(&mut value);
        assert_eq!(value["short"], "x");
        let told = value["list"][0]["long"].as_str().unwrap();
        assert!(told.starts_with("begin ü") && told.ends_with("ü end"), "{told}");
        assert!(told.contains(" bytes left out]") && told.len() < limits::TOOL_TEXT_BYTES + 50);
    }
}
