//! Providers: which are on, what their agents offer.

use super::{Api, Call, json};
use crate::config::Provider;
use crate::error::{Code, Error, Result};
use crate::http::Answer;
use crate::ledger::to_json;
use serde_json::{Value, json};

/// Names that the contract knows, whether or not they are switched on.
const KNOWN: &[&str] = &["acp", "claude", "codex", "demo"];

pub(super) fn list(api: &Api, _call: &Call) -> Result<Answer> {
    let mut providers: Vec<Value> = api
        .config
        .providers
        .iter()
        .map(|(kind, provider)| {
            let agents: Vec<Value> = provider
                .agents
                .iter()
                .map(|(name, agent)| json!({"name": name, "title": agent.title}))
                .collect();
            json!({
                "kind": kind, "display_name": provider.display_name, "enabled": true,
                "agents": agents,
            })
        })
        .collect();
    providers.sort_by(|a, b| a["display_name"].as_str().cmp(&b["display_name"].as_str()));
    Ok(json(200, to_json(&json!({"providers": providers}))))
}

/// ACP agents tell their models when a session opens, not before.
pub(super) fn models(api: &Api, call: &Call) -> Result<Answer> {
    let (name, _) = api.provider_named(call.part(0))?;
    Ok(json(200, to_json(&json!({"provider": name, "models": []}))))
}

/// ACP agents keep their own logins.
pub(super) fn auth_status(api: &Api, call: &Call) -> Result<Answer> {
    api.provider_named(call.part(0))?;
    let detail = "the agent keeps its own login; it says so when a turn needs one";
    let body = json!({"authenticated": false, "mode": "agent_managed", "detail": detail});
    Ok(json(200, to_json(&body)))
}

impl Api {
    /// A provider by its name in a path: spaces and case do not matter. Errors: 400 for a name that is none, 404 for
    /// one that is not switched on.
    fn provider_named(&self, name: &str) -> Result<(&'static str, &Provider)> {
        let name = name.trim().to_lowercase();
        let Some(known) = KNOWN.iter().find(|known| **known == name) else {
            return Err(Error::bad_request(format!("there is no provider {name:?}"))
                .hint(format!("the names are {}", KNOWN.join(", "))));
        };
        self.enabled_provider(known)
    }

    /// A provider by its exact name. Errors: 404 for one that is not switched on.
    pub(super) fn enabled_provider(&self, name: &str) -> Result<(&'static str, &Provider)> {
        if !KNOWN.contains(&name) {
            return Err(Error::bad_request(format!("provider: there is no provider {name:?}"))
                .hint(format!("the names are {}", KNOWN.join(", "))));
        }
        self.config
            .providers
            .get_key_value(name)
            .map(|(name, provider)| (*name, provider))
            .ok_or_else(|| {
                let on: Vec<&str> = self.config.providers.keys().copied().collect();
                Error::new(Code::NotFound, format!("provider {name} is not enabled"))
                    .hint(format!("enabled: {}", on.join(", ")))
            })
    }
}
