//! Approvals: list, show, answer.

use super::{Api, Call, json, page};
use crate::error::{Error, Result};
use crate::http::Answer;
use crate::ledger::approval::{self, ApprovalQuery, ApprovalRecord};
use crate::ledger::{session, to_json};
use crate::model::ApprovalStatus;
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
    let decision = api.decision(body)?;
    let record = of_session(api, session_id, approval_id)?;
    record.check_pending()?;
    api.sessions.decide(session_id, approval_id, decision)?;
    let record = api.ledger.read(|db| approval::get(db, approval_id))?;
    Ok(json(200, to_json(&record)))
}

impl Api {
    fn decision(&self, body: DecideBody) -> Result<Decision> {
        let input = match body.payload.as_ref().and_then(|payload| payload.get("input")) {
            Some(Value::Array(items)) => Some(self.input(items)?),
            _ => None,
        };
        let choice = body.choice()?;
        Ok(Decision { choice, message: body.message, payload: body.payload, input })
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
