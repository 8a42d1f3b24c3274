//! Teams: make, list, show, end; members; what they are doing. Mail is in `message`, what makes members in `spawn`.

pub(super) mod message;
pub(super) mod spawn;

use super::body::{NoFields, check_length, check_words};
use super::{Api, Call, json, page};
use crate::error::{Code, Error, Result};
use crate::http::{Answer, Response};
use crate::ledger::{team, to_json};
use crate::limits;
use crate::team::{Joining, NewTeam};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TeamCreate"))]
pub(super) struct CreateBody {
    #[cfg_attr(test, schemars(regex(pattern = r"\S")))]
    name: String,
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    lead_agent_id: String,
    #[serde(default)]
    #[cfg_attr(test, schemars(inner(regex(pattern = r"[!-~]"))))]
    member_agent_ids: Vec<String>,
    created_by: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TeamJoin"))]
pub(super) struct JoinBody {
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    agent_id: String,
    title: Option<String>,
    added_by: Option<String>,
    creator_agent_id: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::SubscriptionWord>"))]
    creator_compaction_subscription: Option<String>,
    worktree_id: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TeamLead"))]
pub(super) struct LeadBody {
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    lead_agent_id: String,
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Answer> {
    let body: CreateBody = call.body()?;
    check_length("name", Some(&body.name), limits::LINE_BYTES)?;
    check_words([("created_by", &body.created_by)])?;
    let team_id = api.teams.create(NewTeam {
        name: body.name,
        lead_agent_id: named("lead_agent_id", &body.lead_agent_id)?,
        member_agent_ids: body
            .member_agent_ids
            .iter()
            .map(|agent_id| named("member_agent_ids", agent_id))
            .collect::<Result<_>>()?,
        created_by: body.created_by.unwrap_or_else(|| "user".to_owned()),
        idempotency: call.idempotency(api)?,
    })?;
    roster(api, &team_id)
}

/// A session id as people write it. Errors: it is blank.
fn named(field: &str, agent_id: &str) -> Result<String> {
    let agent_id = agent_id.trim();
    if agent_id.is_empty() {
        return Err(Error::bad_request(format!("{field} is blank")).hint("name a session"));
    }
    Ok(agent_id.to_owned())
}

fn roster(api: &Api, team_id: &str) -> Result<Answer> {
    Ok(json(200, to_json(&api.teams.roster(team_id)?)))
}

pub(super) fn list(api: &Api, call: &Call) -> Result<Answer> {
    let most = call.most(1000)?;
    let after = call.number("cursor")?;
    let teams = api.ledger.read(|db| team::list(db, after, most))?;
    Ok(Answer::Whole(page(&teams, |last| last.team.team_key.to_string())))
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Answer> {
    roster(api, call.part(0))
}

pub(super) fn delete(api: &Api, call: &Call) -> Result<Answer> {
    let team_id = call.part(0);
    let (closes_spawned, is_purge) =
        (call.is_on("close_spawned", false)?, call.is_on("purge", false)?);
    match api.teams.delete(team_id, closes_spawned) {
        // It may have been deleted before.
        Err(error) if is_purge && error.code == Code::NotFound => {}
        deleted => deleted?,
    }
    if is_purge {
        api.teams.purge(team_id)?;
    }
    Ok(Answer::Whole(Response::new(204)))
}

pub(super) fn join(api: &Api, call: &Call) -> Result<Answer> {
    let body: JoinBody = call.body()?;
    check_length("title", body.title.as_deref(), limits::LINE_BYTES)?;
    check_words([
        ("added_by", &body.added_by),
        ("creator_agent_id", &body.creator_agent_id),
        ("worktree_id", &body.worktree_id),
    ])?;
    let joining = Joining {
        agent_id: named("agent_id", &body.agent_id)?,
        title: body.title,
        added_by: body.added_by,
        creator_agent_id: body.creator_agent_id,
        creator_compaction_subscription: body.creator_compaction_subscription,
        worktree_id: body.worktree_id,
        operation_id: None,
    };
    api.teams.join(call.part(0), joining)?;
    roster(api, call.part(0))
}

pub(super) fn leave(api: &Api, call: &Call) -> Result<Answer> {
    api.teams.leave(call.part(0), call.part(1))?;
    roster(api, call.part(0))
}

pub(super) fn set_lead(api: &Api, call: &Call) -> Result<Answer> {
    let body: LeadBody = call.body()?;
    api.teams.set_lead(call.part(0), &named("lead_agent_id", &body.lead_agent_id)?)?;
    roster(api, call.part(0))
}

pub(super) fn interrupt_all(api: &Api, call: &Call) -> Result<Answer> {
    let NoFields {} = call.optional_body()?;
    Ok(json(200, to_json(&api.teams.interrupt_all(call.part(0))?)))
}

pub(super) fn interrupt_member(api: &Api, call: &Call) -> Result<Answer> {
    let NoFields {} = call.optional_body()?;
    let turn_id = api.teams.interrupt_member(call.part(0), call.part(1))?;
    Ok(json(202, to_json(&json!({"session_id": call.part(1), "turn_id": turn_id}))))
}

pub(super) fn status(api: &Api, call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&api.teams.status(call.part(0))?)))
}

pub(super) fn activity(api: &Api, call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&api.teams.activity(call.part(0), call.part(1))?)))
}
