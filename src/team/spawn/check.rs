//! What can be known of a spawn before anything is made: whether it may be, and what it will be.
//!
//! Reads the ledger, the configuration, what is known of the agent, the images and the repository; changes nothing.

use super::{Enrolment, Plan, SpawnRequest};
use crate::error::{Code, Error, Result};
use crate::ledger::session::{self, NewSession, SessionPrivate, SessionRecord};
use crate::ledger::worktree::{self, WorktreeRecord};
use crate::ledger::{Connection, claim, team, to_json, turn};
use crate::limits;
use crate::model::id;
use crate::model::team::AssignmentMode;
use crate::provider::{check_permission_mode, common_permission_mode, is_wider};
use crate::session::{PlaceMode, WorktreeWish, input};
use crate::team::Teams;
use crate::team::roster::check_subscription;
use crate::worktree::WorktreeRequest;
use serde_json::{Value, json};

/// On whose behalf a member is made.
struct Source {
    record: SessionRecord,
    private: SessionPrivate,
    /// The worktree of ours in which it works.
    worktree: Option<WorktreeRecord>,
}

/// The agent that the member is to have, and how it is set.
struct Choice {
    provider: &'static str,
    agent: String,
    model: Option<String>,
    mode: Option<String>,
    reasoning_level: Option<String>,
    permission_mode: Option<String>,
}

impl Teams {
    pub(super) fn check_spawn(
        &self,
        team_id: &str,
        operation_id: &str,
        mut request: SpawnRequest,
    ) -> Result<Plan> {
        let shared = &self.shared;
        let mut source =
            shared.ledger.read(|db| source(db, team_id, &request.source_session_id))?;
        source.worktree = source.worktree.filter(|_| shared.config.worktrees.is_enabled);
        if request.is_by_agent {
            // It asks in its turn, which may be held to less than its session.
            let key = source.private.session_key;
            let turn = shared.ledger.read(|db| turn::active(db, key))?;
            let of_session = &mut source.private.permission_mode;
            let of_turn = turn.and_then(|turn| turn.permission_mode);
            if let Some(word) = of_turn.filter(|word| !is_wider(word, of_session.as_deref())) {
                *of_session = Some(word);
            }
        }
        check_subscription(request.creator_compaction_subscription.as_deref())?;
        if let Some(text) = &request.metadata {
            serde_json::from_str::<Value>(text)
                .map_err(|error| Error::bad_request(format!("metadata: {error}")))?;
        }
        request.title = filled(request.title);
        request.prompt = filled(request.prompt);
        let images = input::images(&request.image_paths, shared.config.image_bytes_max)?;
        let (worktree, mode) = self.check_place(team_id, operation_id, &source, &mut request)?;
        let choice = self.check_choice(&source, &request, mode)?;
        shared.sessions.check_agent(choice.provider, &choice.agent)?;
        Ok(Plan {
            source_session_id: source.record.id.clone(),
            request: told(&request, &choice, worktree.as_ref()),
            session: new_session(&source, &request, choice)?,
            worktree,
            mode,
            enrolment: Enrolment {
                title: request.title,
                prompt: request.prompt,
                creator_agent_id: request.creator_agent_id,
                creator_compaction_subscription: request.creator_compaction_subscription,
                image_paths: request.image_paths,
                images,
            },
        })
    }

    /// Where the member is to work. Without a wish, where its source works: if that is a worktree, it stays as long as
    /// either of them does.
    fn check_place(
        &self,
        team_id: &str,
        operation_id: &str,
        source: &Source,
        request: &mut SpawnRequest,
    ) -> Result<(Option<WorktreeWish>, AssignmentMode)> {
        let shared = &self.shared;
        let of_source = source.worktree.as_ref();
        let mut wish = match (request.worktree.take(), of_source) {
            (Some(wish), _) => wish,
            (None, Some(place)) => same_place(place),
            (None, None) => return Ok((None, AssignmentMode::None)),
        };
        if let Some(place) = of_source
            && wish.request.repo_root.is_none()
        {
            // A worktree is not the repository that it belongs to; what the member builds on is what its source has.
            wish.request.repo_root = Some(place.repo_root.clone());
            wish.request.base_ref.get_or_insert_with(|| place.branch_name.clone());
        }
        let wanted = WorktreeRequest {
            source_cwd: source.record.cwd.clone(),
            created_by_session_id: Some(source.record.id.clone()),
            operation_id: Some(operation_id.to_owned()),
            team_id: Some(team_id.to_owned()),
            ..wish.request
        };
        let mode = match wish.mode {
            PlaceMode::Create => {
                shared.worktrees.check(&wanted)?;
                AssignmentMode::Created
            }
            PlaceMode::Reuse => {
                shared.worktrees.find_shown(&wanted, |found| {
                    let is_shown =
                        |db: &Connection| claim::is_shown_to(db, found, &source.record.id);
                    Ok(!request.is_by_agent || shared.ledger.read(is_shown)?)
                })?;
                AssignmentMode::Reused
            }
        };
        Ok((Some(WorktreeWish { mode: wish.mode, request: wanted }), mode))
    }

    /// Which agent, and how it is set. Settings of the source hold for an agent of its kind alone: others know other
    /// words. Only what it may do without asking holds for every agent, as far as the word for it is known to all.
    fn check_choice(
        &self,
        source: &Source,
        request: &SpawnRequest,
        place: AssignmentMode,
    ) -> Result<Choice> {
        let config = &self.shared.config;
        let preset = match &request.model_preset {
            Some(name) => Some(config.teams.preset(name).ok_or_else(|| {
                let known = config.teams.preset_names().join(", ");
                Error::bad_request(format!("model_preset: there is no preset {name:?}"))
                    .hint(format!("there are: {known}"))
            })?),
            None => None,
        };
        let named = request.provider.as_deref().or(preset.map(|preset| preset.provider.as_str()));
        let (provider, settings) =
            config.enabled_provider(named.unwrap_or(&source.record.provider))?;
        let is_same_provider = provider == source.record.provider;
        let agent = match &request.agent {
            Some(agent) => agent.clone(),
            None if is_same_provider => source.record.agent.clone(),
            None => "default".to_owned(),
        };
        settings.check_agent(provider, &agent)?;
        // A preset of another provider than the one that was named says nothing of it.
        let preset = preset.filter(|preset| preset.provider == provider);
        let alike = (is_same_provider && agent == source.record.agent).then_some(&source.private);
        let inherited = |field: fn(&SessionPrivate) -> &Option<String>| {
            alike.and_then(|private| field(private).clone())
        };
        let of_preset = |field: Option<&Option<String>>| field.cloned().flatten();
        let model = request
            .model
            .clone()
            .or_else(|| of_preset(preset.map(|preset| &preset.model)))
            .or_else(|| inherited(|private| &private.model).filter(|_| preset.is_none()));
        let reasoning_level = request
            .reasoning_level
            .clone()
            .or_else(|| of_preset(preset.map(|preset| &preset.thinking_effort)));
        let of_source = source.private.permission_mode.as_deref();
        let is_apart = provider == "codex" && place != AssignmentMode::None;
        let permission_mode = permission_mode(request, of_source, alike.is_some(), is_apart)?;
        if let Some(permission_mode) = &permission_mode {
            check_permission_mode(provider, permission_mode)?;
        }
        let mode = request.mode.clone().or_else(|| inherited(|private| &private.mode));
        Ok(Choice { provider, agent, model, mode, reasoning_level, permission_mode })
    }
}

/// What the member may do without asking: what was named, else what its source may, as far as its agent knows the word
/// for it; one that works apart from others may do what it wants there. Errors: an agent would give another more than
/// it has itself.
fn permission_mode(
    request: &SpawnRequest,
    of_source: Option<&str>,
    is_alike: bool,
    is_apart: bool,
) -> Result<Option<String>> {
    if let Some(named) = &request.permission_mode {
        if request.is_by_agent && is_wider(named, of_source) {
            let has = of_source.unwrap_or("none");
            let told = format!("permission_mode: {named} is wider than that of the source: {has}");
            return Err(Error::new(Code::Forbidden, told)
                .hint("leave permission_mode out: the member has that of its source"));
        }
        return Ok(Some(named.clone()));
    }
    Ok(match of_source {
        Some(word) if is_alike => Some(word.to_owned()),
        Some(word) => common_permission_mode(word).map(str::to_owned),
        None => is_apart.then(|| "full_auto".to_owned()),
    })
}

/// Errors: no such team or session, the one is not in the other, or there is no room.
fn source(db: &Connection, team_id: &str, session_id: &str) -> Result<Source> {
    let team = team::get(db, team_id)?;
    let record = session::get(db, session_id)?;
    let members = team::members(db, &team)?;
    if !members.iter().any(|member| member.agent_id == session_id) {
        return Err(Error::new(
            Code::Conflict,
            format!("source_session_id: session {session_id} is not a member of team {team_id}"),
        )
        .hint("name a member: it is the one that writes to the new one"));
    }
    if members.len() >= limits::TEAM_MEMBERS {
        return Err(Error::new(
            Code::Conflict,
            format!("a team has {} members at most", limits::TEAM_MEMBERS),
        )
        .hint("make a second team"));
    }
    let worktree = match &record.worktree_id {
        Some(worktree_id) => Some(worktree::get(db, worktree_id)?),
        None => None,
    };
    let works_in = |place: &WorktreeRecord| {
        let cwd = std::path::Path::new(record.cwd.as_deref().unwrap_or_default());
        place.status == "ready" && cwd.starts_with(&place.worktree_cwd)
    };
    Ok(Source {
        worktree: worktree.filter(works_in),
        private: session::get_private(db, session_id)?,
        record,
    })
}

/// The wish to work in a worktree that is there.
fn same_place(place: &WorktreeRecord) -> WorktreeWish {
    let prefix = place.branch_name.strip_suffix(&place.worktree_name);
    let request = WorktreeRequest {
        worktree_name: place.worktree_name.clone(),
        branch_prefix: prefix.map(|prefix| prefix.trim_end_matches('/').to_owned()),
        ..WorktreeRequest::default()
    };
    WorktreeWish { mode: PlaceMode::Reuse, request }
}

fn new_session(source: &Source, request: &SpawnRequest, choice: Choice) -> Result<NewSession> {
    let agent_cwd = source.private.agent_cwd.clone();
    if !std::path::Path::new(&agent_cwd).is_dir() {
        return Err(Error::new(
            Code::Conflict,
            format!("the folder of session {} is gone: {agent_cwd}", source.record.id),
        )
        .hint("name another member as source_session_id"));
    }
    Ok(NewSession {
        session_id: id::new("sess"),
        provider: choice.provider.to_owned(),
        agent: choice.agent,
        title: request.title.clone(),
        cwd: source.record.cwd.clone(),
        agent_cwd,
        model: choice.model,
        mode: choice.mode,
        reasoning_level: choice.reasoning_level,
        permission_mode: choice.permission_mode,
        system_prompt: None,
        metadata: request.metadata.clone().unwrap_or_else(|| "{}".to_owned()),
        env: "{}".to_owned(),
        mcp_servers: "[]".to_owned(),
    })
}

/// The request as the journal shows it; the prompt is in the message.
fn told(request: &SpawnRequest, choice: &Choice, worktree: Option<&WorktreeWish>) -> String {
    let worktree = worktree.map(|wish| {
        json!({
            "mode": if wish.mode == PlaceMode::Create { "create" } else { "reuse" },
            "name": wish.request.worktree_name,
            "branch_prefix": wish.request.branch_prefix,
            "base_ref": wish.request.base_ref,
            "run_init_script": wish.request.run_init_script,
        })
    });
    to_json(&json!({
        "provider": choice.provider,
        "agent": choice.agent,
        "model": choice.model,
        "mode": choice.mode,
        "reasoning_level": choice.reasoning_level,
        "permission_mode": choice.permission_mode,
        "model_preset": request.model_preset,
        "title": request.title,
        "image_paths": request.image_paths,
        "worktree": worktree,
    }))
}

fn filled(text: Option<String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_may_do_what_its_source_may_whatever_its_agent_is() {
        let request = SpawnRequest::default();
        let inherited = |of_source, is_alike, is_apart| {
            permission_mode(&request, of_source, is_alike, is_apart).unwrap()
        };
        for is_apart in [false, true] {
            assert_eq!(inherited(Some("read-only"), true, is_apart).unwrap(), "read-only");
            assert_eq!(inherited(Some("read-only"), false, is_apart).unwrap(), "read_only");
            let gate = inherited(Some("require_approval"), false, is_apart);
            assert_eq!(gate.unwrap(), "require_approval");
            assert_eq!(inherited(Some("acceptEdits"), false, is_apart), None);
        }
        assert_eq!(inherited(None, false, false), None);
        assert_eq!(inherited(None, true, true).unwrap(), "full_auto");
    }

    #[test]
    fn an_agent_gives_no_wider_permission_mode_than_it_has() {
        let named = |is_by_agent, word: &str, of_source| {
            let permission_mode = Some(word.to_owned());
            let request = SpawnRequest { permission_mode, is_by_agent, ..SpawnRequest::default() };
            super::permission_mode(&request, of_source, false, false)
        };
        let told = named(true, "full_auto", Some("read_only")).unwrap_err();
        assert_eq!(told.code, Code::Forbidden);
        assert!(told.message.contains("full_auto is wider"), "{}", told.message);
        let narrower = named(true, "read_only", Some("default")).unwrap();
        assert_eq!(narrower.unwrap(), "read_only");
        let operator = named(false, "full_auto", Some("read_only")).unwrap();
        assert_eq!(operator.unwrap(), "full_auto");
    }
}
