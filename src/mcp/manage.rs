//! The tool that changes who is in a team: `gg_team_manage` adds a teammate that is made for it, or removes members.
//!
//! The caller is the member on whose behalf it happens; the lead may, others where the configuration lets them. Runs on
//! the caller's thread for as long as a worktree and an agent take to come or to go; what is made and what ends is the
//! business of `team`.

use super::argument::Arguments;
use super::team::{check_lead, failed, team_of};
use super::tool::{Feature, Tool, ToolCode, ToolError, shown};
use super::{Gateway, Invocation};
use crate::config::Teams;
use crate::error::Error;
use crate::ledger::team::TeamRecord;
use crate::session::{PlaceMode, WorktreeWish};
use crate::team::{Departure, SpawnRequest, Spawned};
use crate::worktree::WorktreeRequest;
use serde_json::{Map, Value, json};

pub(super) const MANAGE: Tool =
    Tool { name: "gg_team_manage", feature: Feature::Teams, shown: shown_manage, run: manage };

/// What only belongs to an addition.
const OF_ADDITION: [&str; 7] = [
    "title",
    "prompt",
    "image_paths",
    "model_preset",
    "creator_compaction_subscription",
    "worktree_name",
    "use_existing_worktree",
];

fn shown_manage() -> Value {
    let text =
        |told: &str| json!({"type": ["string", "null"], "minLength": 1, "description": told});
    let properties = json!({
        "team_id": {"type": "string", "minLength": 1},
        "title": text("What the new teammate is, in a word or two"),
        "prompt": text("What it is to do. It knows nothing of what you know: say all it needs"),
        "image_paths": {"type": ["array", "null"], "items": {"type": "string", "minLength": 1},
            "description": "Image files to go with the prompt"},
        "model_preset": text("Which agent it is, by the name of a preset; as you unless given"),
        "creator_compaction_subscription":
            {"type": ["string", "null"], "enum": ["auto", "unsubscribed", null]},
        "worktree_name": text("A git worktree for it to work in, on a branch of that name, so \
            that it does not stand in anybody's way. Without, it works in your folder"),
        "use_existing_worktree": {"type": ["boolean", "null"],
            "description": "The worktree of that name is there already"},
        "remove_agent_ids": {"type": ["array", "null"], "minItems": 1,
            "items": {"type": "string", "minLength": 1},
            "description": "Members to remove. Those that were added by this tool are ended; work \
                that they have not committed stays. Goes with nothing else but team_id"},
    });
    let description = "Adds a teammate that is started for it and told what to do, or removes \
        members. For the lead of the team, unless the server lets others. What a teammate has to \
        say comes as a message; its answer is not waited for.";
    shown(MANAGE.name, description, false, &properties, &["team_id"])
}

/// Tells the presets of this configuration where the tool is shown. What is not among them is still a call, which is
/// answered with its own code.
pub(super) fn name_presets(shown: &mut Value, teams: &Teams) {
    let mut names: Vec<Option<&str>> = teams.preset_names().into_iter().map(Some).collect();
    names.push(None);
    shown["inputSchema"]["properties"]["model_preset"]["enum"] = json!(names);
}

fn manage(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let team = team_of(gateway, call)?;
    if call.arguments["remove_agent_ids"].is_null() {
        return add(gateway, call, &team);
    }
    if let Some(name) = OF_ADDITION.iter().find(|name| !call.arguments[**name].is_null()) {
        let told = format!("{name}: does not go together with remove_agent_ids");
        return Err(ToolError::bad_request(told));
    }
    if !gateway.config.teams.non_lead_can_remove_members {
        check_lead(&team, call)?;
    }
    let agent_ids = Arguments(&call.arguments).texts("remove_agent_ids");
    let results: Vec<Value> =
        agent_ids.into_iter().map(|agent_id| remove(gateway, &team, agent_id)).collect();
    let removed_count = results.iter().filter(|result| result["ok"] == true).count();
    Ok(json!({
        "operation": "remove",
        "team_id": team.id,
        "removed_count": removed_count,
        "failed_count": results.len() - removed_count,
        "results": results,
    }))
}

/// Removes one; what went wrong is a result like any other, so that the rest of the list is not left out.
fn remove(gateway: &Gateway, team: &TeamRecord, agent_id: &str) -> Value {
    let left = gateway.teams.leave(&team.id, agent_id.trim());
    let left = left.and_then(|departure| Ok((departure, gateway.teams.roster(&team.id)?)));
    match left {
        Ok((departure, roster)) => {
            json!({"agent_id": agent_id, "ok": true, "team": roster, "cleanup": told(&departure)})
        }
        Err(error) => {
            let error = failed(&error);
            let error = json!({"code": error.code.as_str(), "message": error.message});
            json!({"agent_id": agent_id, "ok": false, "error": error})
        }
    }
}

fn told(departure: &Departure) -> Value {
    json!({
        "ok": departure.diagnostics.is_empty(),
        "released_claim_count": departure.released_claims.len(),
        "cleanup_result_count": departure.cleanups.len(),
        "diagnostic_count": departure.diagnostics.len(),
        "released_claims": departure.released_claims,
        "cleanup_results": departure.cleanups,
        "diagnostics": departure.diagnostics,
    })
}

fn add(gateway: &Gateway, call: &Invocation, team: &TeamRecord) -> Result<Value, ToolError> {
    if !gateway.config.teams.non_lead_can_add_members {
        check_lead(team, call)?;
    }
    let request = request(gateway, call)?;
    let image_count = request.image_paths.len();
    let preset = request.model_preset.clone();
    let spawned = gateway.teams.spawn(&team.id, request).map_err(|error| failed(&error))?;
    let result = match spawned {
        Spawned::Done(result) => result,
        Spawned::UnderWay(operation) => {
            return Err(ToolError {
                code: ToolCode::DuplicateInvocation,
                message: format!(
                    "this call goes on already, as operation {}, which is {}",
                    operation.operation_id, operation.stage
                ),
            });
        }
    };
    let mut told = json!(result);
    told["operation"] = json!("add");
    told["team_id"] = json!(team.id);
    told["spawned_agent_id"] = told["spawned_session"]["id"].take();
    told["spawned_session"]["id"] = told["spawned_agent_id"].clone();
    told["model_preset"] = json!(preset);
    told["image_count"] = json!(image_count);
    Ok(told)
}

/// What the arguments ask for.
fn request(gateway: &Gateway, call: &Invocation) -> Result<SpawnRequest, ToolError> {
    let arguments = Arguments(&call.arguments);
    let text = |name: &str| Ok(arguments.text(name)?.map(str::to_owned));
    let preset = arguments.text("model_preset")?;
    let preset = match preset {
        Some(name) => Some(gateway.config.teams.preset(name).ok_or_else(|| {
            let known = gateway.config.teams.preset_names().join(", ");
            let message = format!("model_preset: there is no preset {name:?}; there are {known}");
            ToolError { code: ToolCode::UnknownModelPreset, message }
        })?),
        None => None,
    };
    let paths = arguments.texts("image_paths").into_iter().map(|path| gateway.path(call, path));
    let image_paths = paths.collect::<Result<Vec<String>, Error>>();
    let image_paths = image_paths.map_err(|error| failed(&error))?;
    let worktree =
        match (arguments.text("worktree_name")?, arguments.is_on("use_existing_worktree")) {
            (None, true) => {
                let told = "use_existing_worktree: needs a worktree_name";
                return Err(ToolError::bad_request(told.to_owned()));
            }
            (None, false) => None,
            (Some(name), is_there) => Some(WorktreeWish {
                mode: if is_there { PlaceMode::Reuse } else { PlaceMode::Create },
                request: WorktreeRequest {
                    worktree_name: name.to_owned(),
                    run_init_script: true,
                    ..WorktreeRequest::default()
                },
            }),
        };
    let mut metadata = Map::new();
    if let Some(preset) = preset {
        metadata.insert("model_preset".to_owned(), json!(preset.name));
        metadata.extend(
            preset.thinking_effort.iter().map(|it| ("thinking_effort".to_owned(), json!(it))),
        );
    }
    if !image_paths.is_empty() {
        metadata.insert("gg_team_manage_add_image_paths".to_owned(), json!(image_paths));
    }
    Ok(SpawnRequest {
        source_session_id: call.session_id.clone(),
        is_by_agent: true,
        model_preset: preset.map(|preset| preset.name.clone()),
        title: text("title")?,
        prompt: text("prompt")?,
        image_paths,
        metadata: Some(Value::Object(metadata).to_string()),
        worktree,
        creator_agent_id: Some(call.session_id.clone()),
        creator_compaction_subscription: text("creator_compaction_subscription")?,
        idempotency: call.idempotency(),
        ..SpawnRequest::default()
    })
}
