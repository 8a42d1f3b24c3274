//! Approvals: list, show, answer.

use super::{Api, Call, json, page};
use crate::error::{Error, Result};
use crate::http::Answer;
use crate::ledger::approval::{self, ApprovalQuery, ApprovalRecord};
use crate::ledger::{session, to_json};
use crate::model::input::Input;
use crate::model::{ApprovalOrigin, ApprovalStatus};
use crate::session::input::check_supported;
use crate::session::{Choice, Decision};
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ApprovalDecide"))]
pub(super) struct DecideBody {
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::DecisionWord>"))]
    decision: Option<String>,
    option_id: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::ScopeWord>"))]
    scope: Option<String>,
    message: Option<String>,
    payload: Option<Value>,
}

pub(super) fn list_all(api: &Api, call: &Call) -> Result<Answer> {
    let session_key = match call.text("session_id") {
        Some(session_id) => Some(api.ledger.read(|db| session::key(db, session_id))?),
        None => None,
    };
    list(api, call, session_key)
}

pub(super) fn list_of_session(api: &Api, call: &Call) -> Result<Answer> {
    let session_key = api.ledger.read(|db| session::key(db, call.part(0)))?;
    list(api, call, Some(session_key))
}

fn list(api: &Api, call: &Call, session_key: Option<i64>) -> Result<Answer> {
    let statuses: Vec<&str> = ApprovalStatus::ALL.iter().map(|status| status.as_str()).collect();
    let query = ApprovalQuery {
        session_key,
        status: call.one_of("status", &statuses)?.map(str::to_owned),
        after: call.number("cursor")?,
        most: call.most(1000)?,
    };
    let approvals = api.ledger.read(|db| approval::list(db, &query))?;
    Ok(Answer::Whole(page(&approvals, |last| last.approval_key.to_string())))
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Answer> {
    let record = of_session(api, call.part(0), call.part(1))?;
    Ok(json(200, to_json(&record)))
}

fn of_session(api: &Api, session_id: &str, approval_id: &str) -> Result<ApprovalRecord> {
    api.ledger.read(|db| {
        session::key(db, session_id)?;
        let record = approval::get(db, approval_id)?;
        if record.session_id != session_id {
            return Err(Error::bad_request(format!(
                "approval {approval_id} belongs to another session: {}",
                record.session_id
            )));
        }
        Ok(record)
    })
}

pub(super) fn decide(api: &Api, call: &Call) -> Result<Answer> {
    let (session_id, approval_id) = (call.part(0), call.part(1));
    let body: DecideBody = call.body()?;
    let choice = body.choice()?;
    let record = of_session(api, session_id, approval_id)?;
    record.check_pending()?;
    let input = match &body.payload {
        Some(payload) if record.origin == ApprovalOrigin::Gate.as_str() => {
            api.gate_input(call, payload)?
        }
        // What else is in a payload is for the agent, or for the record alone.
        _ => None,
    };
    let decision = Decision { choice, message: body.message, payload: body.payload, input };
    api.sessions.decide(session_id, approval_id, decision)?;
    let record = api.ledger.read(|db| approval::get(db, approval_id))?;
    Ok(json(200, to_json(&record)))
}

impl Api {
    /// What the turn is to start with instead, if that is said. It is checked as a turn's input is: what is not
    /// understood must not let the old prompt through.
    fn gate_input(&self, call: &Call, payload: &Value) -> Result<Option<Vec<Input>>> {
        let wrong = |what: &str| {
            Error::bad_request(format!("payload.input: {what}"))
                .hint("send {\"input\": […]}, a list as for a turn, or no input")
        };
        let items = match (payload, payload.get("input")) {
            (Value::Array(_), _) => return Err(wrong("the payload is a list")),
            (_, None | Some(Value::Null)) => return Ok(None),
            (_, Some(Value::Array(items))) => items,
            (_, Some(_)) => return Err(wrong("it is no list")),
        };
        let checked = || {
            call.check_items(items)?;
            let record = self.ledger.read(|db| session::get_private(db, call.part(0)))?;
            let input = self.input(items)?;
            check_supported(&input, record.capabilities.as_deref())?;
            Ok(input)
        };
        checked().map(Some).map_err(|error: Error| {
            let message = format!("payload.{}", error.message);
            Error { message, ..error }
        })
    }
}

impl DecideBody {
    /// An option says all by itself: what else is said could only say the same, or something else.
    fn choice(&self) -> Result<Choice> {
        if let Some(option_id) = &self.option_id {
            for (field, word) in [("decision", &self.decision), ("scope", &self.scope)] {
                if word.is_some() {
                    return Err(Error::bad_request(format!("{field}: there is an option_id too"))
                        .hint(format!("leave out {field}, or leave out option_id")));
                }
            }
            return Ok(Choice::Option(option_id.clone()));
        }
        let Some(word) = &self.decision else {
            return Err(Error::bad_request("decision is missing")
                .hint("send \"accept\" or \"decline\", or an option_id"));
        };
        let is_accept = match word.trim().to_lowercase().as_str() {
            "accept" | "accepted" => true,
            "decline" | "declined" | "reject" | "rejected" => false,
            other => {
                return Err(Error::bad_request(format!("decision is {other:?}"))
                    .hint("it can be \"accept\" or \"decline\""));
            }
        };
        let is_session = match self.scope.as_deref() {
            None | Some("once") => false,
            Some("session") => true,
            Some(scope) => {
                return Err(Error::bad_request(format!("scope is {scope:?}"))
                    .hint("it can be \"once\" or \"session\""));
            }
        };
        Ok(Choice::Meant { is_accept, is_session })
    }
}
