//! Worktrees: make, list, show, look into, claim, release, clean up.

use super::body::{check_length, check_words};
use super::{Api, Call, json, page};
use crate::error::{Error, Result};
use crate::http::{Answer, Response};
use crate::ledger::worktree::{self, WorktreeQuery};
use crate::ledger::{Listed, claim, session, to_json};
use crate::limits;
use crate::model::worktree::{DeletionPolicy, WorktreeStatus};
use crate::session::{PlaceMode, WorktreeWish};
use crate::worktree::{Against, Created, DiskUse, WorktreeRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorktreeCreate"))]
pub(super) struct CreateBody {
    source_session_id: Option<String>,
    worktree_name: String,
    repo_root: Option<String>,
    branch_prefix: Option<String>,
    base_ref: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::worktree::DeletionPolicy>"))]
    deletion_policy: Option<String>,
    #[serde(default = "yes")]
    run_init_script: bool,
    created_by_session_id: Option<String>,
    operation_id: Option<String>,
    team_id: Option<String>,
}

/// The field `worktree` of `POST /v1/sessions`.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorktreeWish"))]
pub(super) struct WishBody {
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::PlaceWord>"))]
    mode: Option<String>,
    name: String,
    branch_prefix: Option<String>,
    base_ref: Option<String>,
    repo_root: Option<String>,
    #[serde(default = "yes")]
    run_init_script: bool,
    #[cfg_attr(test, schemars(with = "Option<crate::model::worktree::DeletionPolicy>"))]
    deletion_policy: Option<String>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorktreeClaim"))]
pub(super) struct ClaimBody {
    session_id: String,
    #[cfg_attr(test, schemars(length(max = 64), regex(pattern = r"\S")))]
    claim_role: String,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorktreeRelease"))]
pub(super) struct ReleaseBody {
    session_id: String,
    #[serde(default = "yes")]
    cleanup_if_last_claim: bool,
}

#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "WorktreeCleanup"))]
pub(super) struct CleanupBody {
    reason: Option<String>,
    #[serde(default)]
    force: bool,
}

/// How long a request for diagnostics walks through folders.
const DISK_WALK: Duration = Duration::from_secs(2);

fn yes() -> bool {
    true
}

fn policy(text: Option<&str>) -> Result<Option<DeletionPolicy>> {
    let wrong = |text: &str| {
        let words: Vec<&str> = DeletionPolicy::ALL.iter().map(|word| word.as_str()).collect();
        Error::bad_request(format!("deletion_policy: {text:?}; it can be {}", words.join(", ")))
    };
    text.map(|text| DeletionPolicy::parse(text.trim()).ok_or_else(|| wrong(text))).transpose()
}

impl WishBody {
    pub(super) fn into_wish(self) -> Result<WorktreeWish> {
        check_length("worktree.base_ref", self.base_ref.as_deref(), limits::LINE_BYTES)?;
        let mode = match self.mode.as_deref() {
            None | Some("create") => PlaceMode::Create,
            Some("reuse" | "use_existing") => PlaceMode::Reuse,
            Some(other) => {
                return Err(Error::bad_request(format!(
                    "worktree.mode: {other:?}; it can be create, reuse"
                )));
            }
        };
        let request = WorktreeRequest {
            repo_root: self.repo_root,
            worktree_name: self.name,
            branch_prefix: self.branch_prefix,
            base_ref: self.base_ref,
            deletion_policy: policy(self.deletion_policy.as_deref())?,
            run_init_script: self.run_init_script,
            ..WorktreeRequest::default()
        };
        Ok(WorktreeWish { mode, request })
    }
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Answer> {
    let body: CreateBody = call.body()?;
    check_length("base_ref", body.base_ref.as_deref(), limits::LINE_BYTES)?;
    check_words([
        ("created_by_session_id", &body.created_by_session_id),
        ("operation_id", &body.operation_id),
        ("team_id", &body.team_id),
    ])?;
    let idempotency = call.idempotency(api)?;
    // Before the session and the repository are looked at: they may be gone since.
    if let Some(made) = api.worktrees.made_before(idempotency.as_ref())? {
        return Ok(json(200, Created::before(made).json()));
    }
    let source_cwd = match &body.source_session_id {
        Some(id) => {
            let record = api.ledger.read(|db| session::get(db, id))?;
            if record.cwd.is_none() && body.repo_root.is_none() {
                return Err(Error::bad_request(format!(
                    "source_session_id: session {id} has no cwd that a repository could be found by"
                ))
                .hint("say which one in repo_root"));
            }
            record.cwd
        }
        None => None,
    };
    let request = WorktreeRequest {
        repo_root: body.repo_root,
        source_cwd,
        worktree_name: body.worktree_name,
        branch_prefix: body.branch_prefix,
        base_ref: body.base_ref,
        deletion_policy: policy(body.deletion_policy.as_deref())?,
        run_init_script: body.run_init_script,
        created_by_session_id: body.created_by_session_id.or(body.source_session_id),
        operation_id: body.operation_id,
        team_id: body.team_id,
        idempotency,
    };
    Ok(json(200, api.worktrees.create(&request)?.json()))
}

pub(super) fn list(api: &Api, call: &Call) -> Result<Answer> {
    let statuses: Vec<&str> = WorktreeStatus::ALL.iter().map(|status| status.as_str()).collect();
    let limit = call.limit(1000)?;
    let query = WorktreeQuery {
        status: call.one_of("status", &statuses)?.map(str::to_owned),
        team_id: call.text("team_id").map(str::to_owned),
        repo_root: call.text("repo_root").map(str::to_owned),
        after: call.number("cursor")?,
        limit,
    };
    let records = api.ledger.read(|db| worktree::list(db, &query))?;
    let listed = Listed::of_rows(records, limit);
    Ok(Answer::Whole(page(&listed, |last| last.worktree_key.to_string())))
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Answer> {
    let record = api.ledger.read(|db| worktree::get(db, call.part(0)))?;
    Ok(json(200, to_json(&record)))
}

pub(super) fn status(api: &Api, call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&api.worktrees.status(call.part(0))?)))
}

pub(super) fn diff(api: &Api, call: &Call) -> Result<Answer> {
    let against = match call.one_of("against", &["base", "head"])? {
        Some("head") => Against::Head,
        _ => Against::Base,
    };
    let diff = api.worktrees.diff(call.part(0), against)?;
    if call.accepts("text/plain") || call.accepts("text/x-diff") {
        let response = Response::text(200, diff.text).header("Cache-Control", "no-store");
        return Ok(Answer::Whole(response));
    }
    let body = json!({
        "worktree_id": call.part(0),
        "from": diff.from,
        "diff": diff.text,
        "truncated": diff.is_truncated,
    });
    Ok(json(200, to_json(&body)))
}

pub(super) fn claims(api: &Api, call: &Call) -> Result<Answer> {
    let is_active = call.is_on("active", false)?;
    let mut records = api.ledger.read(|db| {
        worktree::get(db, call.part(0))?;
        claim::list(db, call.part(0))
    })?;
    records.retain(|record| !is_active || record.released_at.is_none());
    Ok(json(200, to_json(&records)))
}

pub(super) fn claim(api: &Api, call: &Call) -> Result<Answer> {
    let body: ClaimBody = call.body()?;
    check_length("claim_role", Some(&body.claim_role), limits::WORD_BYTES)?;
    let (worktree, claim) =
        api.worktrees.claim(call.part(0), &body.session_id, &body.claim_role)?;
    Ok(json(200, to_json(&json!({"worktree": worktree, "claim": claim}))))
}

pub(super) fn release(api: &Api, call: &Call) -> Result<Answer> {
    let body: ReleaseBody = call.body()?;
    let released =
        api.worktrees.release(call.part(0), &body.session_id, body.cleanup_if_last_claim)?;
    let body = json!({
        "active_claim_count": released.worktree.active_claim_count,
        "worktree": released.worktree,
        "released_claim": released.claim,
        "cleanup": released.cleanup,
    });
    Ok(json(200, to_json(&body)))
}

pub(super) fn cleanup(api: &Api, call: &Call) -> Result<Answer> {
    let body: CleanupBody = call.optional_body()?;
    check_length("reason", body.reason.as_deref(), limits::LINE_BYTES)?;
    let is_forced = call.is_on("force", false)? || body.force;
    let reason = body.reason.unwrap_or_else(|| "requested".to_owned());
    let result = api.worktrees.cleanup(call.part(0), &reason, is_forced)?;
    Ok(json(200, to_json(&result)))
}

pub(super) fn diagnostics(api: &Api, _call: &Call) -> Result<Answer> {
    let mut body = counts(api)?;
    let worktrees = api.worktrees.disk_use(DISK_WALK)?.into_iter().map(|(record, seen)| {
        let of = |value: fn(DiskUse) -> Value| seen.map(value);
        json!({
            "worktree_id": record.id,
            "status": record.status,
            "problem": record.problem,
            "worktree_cwd": record.worktree_cwd,
            "active_claim_count": record.active_claim_count,
            "disk_bytes": of(|seen| seen.bytes.into()),
            "disk_files": of(|seen| seen.files.into()),
            "disk_is_partial": of(|seen| seen.is_partial.into()),
        })
    });
    body["worktrees"] = worktrees.collect();
    Ok(json(200, to_json(&body)))
}

/// How many there are, without a look at any disk.
pub(super) fn counts(api: &Api) -> Result<Value> {
    let counts = api.ledger.read(worktree::counts)?;
    let object = |counts: Vec<(String, i64)>| -> Map<String, Value> {
        counts.into_iter().map(|(word, count)| (word, count.into())).collect()
    };
    Ok(json!({
        "worktree_total": counts.worktree_total,
        "active_claim_total": counts.active_claim_total,
        "orphaned_claim_total": counts.orphaned_claim_total,
        "status_counts": object(counts.status_counts),
        "deletion_policy_counts": object(counts.deletion_policy_counts),
    }))
}
