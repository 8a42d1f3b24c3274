//! Spawning members, and the journal of it: operations and what went wrong in them.

use super::super::body::{check_length, check_words};
use super::super::worktree::WishBody;
use super::super::{Api, Call, json, page};
use super::named;
use crate::error::{Code, Error, Result};
use crate::http::Answer;
use crate::ledger::team::operation::{self, DiagnosticQuery, OperationQuery};
use crate::ledger::{Listed, team, to_json};
use crate::limits;
use crate::model::team::{OperationKind, OperationStage};
use crate::team::{SpawnRequest, Spawned};
use serde::Deserialize;
use serde_json::value::RawValue;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SpawnRequest"))]
pub(in crate::api) struct SpawnBody {
    #[cfg_attr(test, schemars(regex(pattern = r"[!-~]")))]
    source_session_id: String,
    provider: Option<String>,
    agent: Option<String>,
    model: Option<String>,
    model_preset: Option<String>,
    mode: Option<String>,
    reasoning_level: Option<String>,
    permission_mode: Option<String>,
    title: Option<String>,
    prompt: Option<String>,
    #[serde(default)]
    #[cfg_attr(test, schemars(inner(regex(pattern = "^/"))))]
    image_paths: Vec<String>,
    #[cfg_attr(test, schemars(with = "Option<serde_json::Value>"))]
    metadata: Option<Box<RawValue>>,
    worktree: Option<WishBody>,
    creator_agent_id: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::SubscriptionWord>"))]
    creator_compaction_subscription: Option<String>,
}

impl SpawnBody {
    fn check_lengths(&self) -> Result<()> {
        let metadata = self.metadata.as_deref().map(RawValue::get);
        check_length("title", self.title.as_deref(), limits::LINE_BYTES)?;
        check_length("metadata", metadata, limits::METADATA_BYTES)?;
        check_words([
            ("model", &self.model),
            ("model_preset", &self.model_preset),
            ("mode", &self.mode),
            ("reasoning_level", &self.reasoning_level),
            ("permission_mode", &self.permission_mode),
            ("creator_agent_id", &self.creator_agent_id),
        ])
    }
}

pub(in crate::api) fn spawn(api: &Api, call: &Call) -> Result<Answer> {
    let body: SpawnBody = call.body()?;
    body.check_lengths()?;
    let metadata = body.metadata.as_deref().map(RawValue::get).filter(|text| *text != "null");
    let request = SpawnRequest {
        source_session_id: named("source_session_id", &body.source_session_id)?,
        is_by_agent: false,
        provider: body.provider,
        agent: body.agent,
        model: body.model,
        mode: body.mode,
        reasoning_level: body.reasoning_level,
        permission_mode: body.permission_mode,
        model_preset: body.model_preset,
        title: body.title,
        prompt: body.prompt,
        image_paths: body.image_paths,
        metadata: metadata.map(str::to_owned),
        worktree: body.worktree.map(WishBody::into_wish).transpose()?,
        creator_agent_id: body.creator_agent_id,
        creator_compaction_subscription: body.creator_compaction_subscription,
        idempotency: call.idempotency(api)?,
    };
    match api.teams.spawn(call.part(0), request)? {
        Spawned::Done(result) => Ok(json(200, to_json(&result))),
        Spawned::UnderWay(operation) => Err(Error::new(
            Code::Conflict,
            format!(
                "operation {} of this key goes on: {}",
                operation.operation_id, operation.stage
            ),
        )
        .hint("ask again when it is over; GET /v1/team-operations/… tells")
        .detail("operation", to_json(&operation))),
    }
}

pub(in crate::api) fn operations(api: &Api, call: &Call) -> Result<Answer> {
    let kinds: Vec<&str> = OperationKind::ALL.iter().map(|kind| kind.as_str()).collect();
    let stages: Vec<&str> = OperationStage::ALL.iter().map(|stage| stage.as_str()).collect();
    let query = OperationQuery {
        kind: call.one_of("kind", &kinds)?.map(str::to_owned),
        stage: call.one_of("stage", &stages)?.map(str::to_owned),
        after: call.number("cursor")?,
        most: call.most(1000)?,
    };
    let team_id = call.part(0);
    let records =
        api.ledger.read(|db| operation::list(db, &team::get_any(db, team_id)?, &query))?;
    Ok(Answer::Whole(page(&records, |last| last.operation_key.to_string())))
}

pub(in crate::api) fn operation(api: &Api, call: &Call) -> Result<Answer> {
    let record = api.ledger.read(|db| operation::get(db, call.part(0)))?;
    Ok(json(200, to_json(&record)))
}

pub(in crate::api) fn diagnostics(api: &Api, call: &Call) -> Result<Answer> {
    let limit = call.limit(1000)?;
    let query = DiagnosticQuery {
        team_id: call.text("team_id").map(str::to_owned),
        operation_id: call.text("operation_id").map(str::to_owned),
        after: call.number("cursor")?,
        limit,
    };
    let records = api.ledger.read(|db| operation::diagnostics(db, &query))?;
    let listed = Listed::of_rows(records, limit);
    Ok(Answer::Whole(page(&listed, |last| last.id.to_string())))
}
