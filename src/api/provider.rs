//! Providers: which are on, whether their agents can be used, what these offer.

use super::{Api, Call, json};
use crate::config::{PROVIDER_NAMES, Provider};
use crate::error::{Code, Error, Result};
use crate::http::Answer;
use crate::ledger::to_json;
use crate::provider::readiness::{
    FIRST_ANSWER, Login, Model, Problem, ProblemKind, Report, catalog,
};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

pub(super) fn list(api: &Api, _call: &Call) -> Result<Answer> {
    let deadline = Instant::now() + FIRST_ANSWER;
    let mut providers: Vec<Value> = api
        .reports(deadline)
        .iter()
        .map(|(kind, provider, report)| record(api, kind, provider, report.as_deref()))
        .collect();
    providers.sort_by(|a, b| a["display_name"].as_str().cmp(&b["display_name"].as_str()));
    Ok(json(200, to_json(&json!({"providers": providers}))))
}

/// `ready` and what follows are null while nothing is known yet.
fn record(api: &Api, kind: &str, provider: &Provider, report: Option<&Report>) -> Value {
    let agents: Vec<Value> = provider
        .agents
        .iter()
        .map(|(name, agent)| {
            let own = match (report, provider.agents.len()) {
                (Some(report), 1) => Some(Arc::new(report.clone())),
                _ => api.readiness.look(kind, name, Instant::now()),
            };
            json!({
                "name": name,
                "title": agent.title,
                "program": own.as_ref().and_then(|own| own.program.clone()),
                "ready": own.as_ref().map(|own| own.is_ready()),
                "problem": own.as_ref().and_then(|own| own.problem.as_ref()).map(problem),
            })
        })
        .collect();
    let is_authenticated = report.and_then(|report| match report.login {
        Login::Unknown => None,
        Login::Missing => Some(false),
        Login::There | Login::NotNeeded => Some(true),
    });
    json!({
        "kind": kind,
        "display_name": provider.display_name,
        "enabled": true,
        "ready": report.map(Report::is_ready),
        "program": report.and_then(|report| report.program.clone()),
        "version": report.and_then(|report| report.version.clone()),
        "minimum_version": report.and_then(|report| report.minimum_version.clone()),
        "authenticated": is_authenticated,
        "problem": report.and_then(|report| report.problem.as_ref()).map(problem),
        "checked_at": report.map(|report| report.checked_at),
        "agents": agents,
    })
}

fn problem(problem: &Problem) -> Value {
    json!({
        "code": problem.kind.as_str(), "message": problem.message, "remedy": problem.remedy,
    })
}

/// The agent's own list; a fixed one while its program is not installed. ACP agents tell theirs when a session opens.
pub(super) fn models(api: &Api, call: &Call) -> Result<Answer> {
    let (name, provider) = api.provider_named(call.part(0))?;
    let (source, models) = if provider.agents.len() == 1 && matches!(name, "claude" | "codex") {
        let deadline = Instant::now() + FIRST_ANSWER;
        let report = api.readiness.look(name, "default", deadline).ok_or_else(|| {
            let text = format!("{} has not told its models yet", provider.display_name);
            Error::new(Code::AgentTimeout, text).hint("try again in a moment")
        })?;
        match &report.problem {
            Some(problem) if problem.kind == ProblemKind::ProgramMissing => {
                ("fixed", catalog::fixed(name))
            }
            Some(problem) if report.models.is_empty() => return Err(problem.error(name)),
            _ => ("agent", report.models.clone()),
        }
    } else {
        ("agent", Vec::new())
    };
    let models: Vec<Value> = models.iter().map(model).collect();
    Ok(json(200, to_json(&json!({"provider": name, "models": models, "source": source}))))
}

fn model(model: &Model) -> Value {
    json!({
        "id": model.id,
        "display_name": model.display_name,
        "description": model.description,
        "reasoning_levels": model.reasoning_levels,
        "is_default": model.is_default,
    })
}

impl Api {
    /// What is known of each provider's first agent. What is not known yet is waited for until the deadline, for all of
    /// them together.
    pub(super) fn reports(
        &self,
        deadline: Instant,
    ) -> Vec<(&'static str, &Provider, Option<Arc<Report>>)> {
        let first = |provider: &Provider| {
            let name = if provider.agents.contains_key("default") {
                Some("default")
            } else {
                provider.agents.keys().next().map(String::as_str)
            };
            name.unwrap_or_default().to_owned()
        };
        let providers = &self.config.providers;
        let mut reports: Vec<_> = providers
            .iter()
            .map(|(kind, provider)| {
                let report = self.readiness.look(kind, &first(provider), Instant::now());
                (*kind, provider, report)
            })
            .collect();
        for (kind, provider, report) in &mut reports {
            if report.is_none() && deadline > Instant::now() {
                *report = self.readiness.look(kind, &first(provider), deadline);
            }
        }
        reports
    }

    /// A provider by its name in a path: spaces and case do not matter. Errors: 400 for a name that is none, 404 for
    /// one that is not switched on.
    pub(super) fn provider_named(&self, name: &str) -> Result<(&'static str, &Provider)> {
        let name = name.trim().to_lowercase();
        let Some(known) = PROVIDER_NAMES.iter().find(|known| **known == name) else {
            return Err(Error::bad_request(format!("there is no provider {name:?}"))
                .hint(format!("the names are {}", PROVIDER_NAMES.join(", "))));
        };
        self.config.enabled_provider(known)
    }
}
