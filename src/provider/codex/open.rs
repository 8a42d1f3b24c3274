//! From a fresh process to a thread that takes turns.
//!
//! Owns: the handshake, the least version, the check of the account, the start or resume of the thread, and the
//! list of models. Promises: one [`AgentEvent::Opened`] or one [`AgentEvent::OpenFailed`] for every open. A thread
//! is resumed with the model, the permissions and the servers that the session has.
//!
//! The list of models is Codex's own catalogue; with a provider of the user's it says nothing about what that one
//! has, so a model that is not listed is not refused here.

use super::permission::{Permission, row};
use super::state::{Call, ECHO_BYTES_MAX, Phase};
use super::{Codex, mcp, notice, wire};
use crate::provider::rpc::{agent_error, cut, error_message, list, object, says_gone, text};
use crate::provider::{AgentError, AgentEvent, Choice, Effects, Open};
use serde_json::{Map, Value, json};

/// The oldest app server whose protocol we speak: older ones do not have all that is used here.
pub(in crate::provider) const VERSION_MIN: [u64; 3] = [0, 160, 0];
/// Pages of the list of models that are read, and models of a page.
const MODEL_PAGES_MAX: u32 = 20;
/// Models that are kept, and levels of each.
const MODELS_MAX: usize = 500;
const LEVELS_MAX: usize = 32;
/// Names of models are cut to this length.
const NAME_BYTES_MAX: usize = 1024;

/// An answer of Codex: the fields of the result, or the error.
pub(super) type Answer<'a> = Result<&'a Map<String, Value>, &'a Value>;

impl Codex {
    pub(super) fn initialize(&mut self, open: &Open, out: &mut Effects) {
        self.state.phase = Phase::Opening;
        self.state.open = Some(open.clone());
        let params = json!({
            "clientInfo": {
                "name": "gooselake", "title": "gooselake", "version": env!("CARGO_PKG_VERSION"),
            },
            // For the commands that go on behind their turn.
            "capabilities": {"experimentalApi": true},
        });
        self.call("initialize", &params, Call::Initialize, out);
    }

    pub(super) fn initialized(&mut self, answer: Answer, out: &mut Effects) {
        let result = match answer {
            Ok(result) => result,
            Err(error) => return self.open_failed(agent_error(error, "open_failed"), false, out),
        };
        let agent = text(result, "userAgent");
        let version = version(agent);
        if version.is_none_or(|version| version < VERSION_MIN) {
            let [major, minor, patch] = VERSION_MIN;
            let told = if agent.is_empty() { "no version" } else { agent };
            let message = format!(
                "this Codex is too old: it says {told}, {major}.{minor}.{patch} is the least; \
                 update it, for example with npm install -g @openai/codex"
            );
            return self.open_failed(failure(message, "agent_too_old"), false, out);
        }
        let version = version.map(|parts| parts.map(|part| part.to_string()).join("."));
        let capabilities = &mut self.state.capabilities;
        capabilities.agent_info = json!({"name": "codex", "title": "Codex", "version": version});
        capabilities.image = true;
        capabilities.resource_link = true;
        capabilities.steer = true;
        capabilities.resume = true;
        capabilities.modes = [("default", "Default"), ("plan", "Plan")]
            .map(|(id, name)| Choice { id: id.to_owned(), name: name.to_owned() })
            .to_vec();
        wire::notify(&mut out.stdin, "initialized");
        self.call("account/read", &json!({"refreshToken": false}), Call::Account, out);
    }

    pub(super) fn account_told(&mut self, answer: Answer, out: &mut Effects) {
        let result = match answer {
            Ok(result) => result,
            Err(error) => return self.open_failed(agent_error(error, "open_failed"), false, out),
        };
        let is_needed = result.get("requiresOpenaiAuth") == Some(&Value::Bool(true));
        if is_needed && object(result, "account").is_none() {
            let message = "Codex has no login; run codex login as the user of this server, or give \
                           it a key (OPENAI_API_KEY in the server's environment), or configure \
                           another model provider in ~/.codex/config.toml";
            let error = failure(message.to_owned(), "authentication_required");
            return self.open_failed(error, false, out);
        }
        let Some(open) = self.state.open.clone() else { return };
        let (method, params) = self.thread_params(&open, out);
        self.call(method, &params, Call::Thread, out);
        self.call("model/list", &json!({}), Call::Models, out);
    }

    fn thread_params(&mut self, open: &Open, out: &mut Effects) -> (&'static str, Value) {
        let row = open.permission_mode.as_deref().and_then(row);
        self.state.asks_for_mcp = !row.is_some_and(|row| row.is_silent());
        let (servers, left_out) = mcp::config(&open.mcp_servers, self.state.asks_for_mcp);
        for (name, why) in left_out {
            notice(format!("the MCP server {name} was left out: {why}"), Value::Null, out);
        }
        let mut config = Map::from_iter([("mcp_servers".to_owned(), servers)]);
        if let Some(level) = &open.reasoning_level {
            config.insert("model_reasoning_effort".to_owned(), json!(level));
        }
        let mut params = json!({"cwd": open.cwd, "config": config});
        if let Some(row) = row {
            params["approvalPolicy"] = json!(row.approval);
            params["sandbox"] = json!(row.sandbox);
        }
        if let Some(model) = &open.model {
            params["model"] = json!(model);
        }
        if let Some(prompt) = &open.system_prompt {
            params["developerInstructions"] = json!(prompt);
        }
        match &open.resume {
            None => ("thread/start", params),
            Some(thread) => {
                params["threadId"] = json!(thread);
                params["excludeTurns"] = json!(true);
                self.state.thread = Some(thread.clone());
                ("thread/resume", params)
            }
        }
    }

    pub(super) fn thread_answered(&mut self, answer: Answer, out: &mut Effects) {
        let result = match answer {
            Ok(result) => result,
            Err(error) => {
                let is_gone = self.state.thread.is_some() && says_gone(error);
                let code = if is_gone { "session_gone" } else { "open_failed" };
                return self.open_failed(agent_error(error, code), is_gone, out);
            }
        };
        let thread = object(result, "thread").map(|thread| text(thread, "id")).unwrap_or_default();
        if !is_usable(thread) {
            let message = "Codex opened a thread without a usable id".to_owned();
            return self.open_failed(failure(message, "protocol_error"), false, out);
        }
        self.state.thread = Some(thread.to_owned());
        let word = |field: &str| told_word(result, field);
        let wanted = self.state.open.as_ref().and_then(|open| open.reasoning_level.clone());
        self.state.model = word("model");
        self.state.effort = word("reasoningEffort").or(wanted);
        let permission = Permission {
            approval: result.get("approvalPolicy").cloned().unwrap_or_default(),
            sandbox: result.get("sandbox").cloned().unwrap_or_default(),
        };
        self.state.permission_now = permission.clone();
        self.state.permission = permission;
        self.opened(out);
    }

    pub(super) fn models_told(&mut self, answer: Answer, out: &mut Effects) {
        let Ok(result) = answer else {
            // A session without a list of models is one all the same.
            return self.opened(out);
        };
        for model in list(result, "data").iter().filter_map(Value::as_object) {
            let id = text(model, "model");
            if !is_usable(id) || self.state.capabilities.models.len() >= MODELS_MAX {
                continue;
            }
            let name = text(model, "displayName");
            let name = if name.is_empty() { id } else { name };
            let choice = Choice { id: id.to_owned(), name: cut(name, NAME_BYTES_MAX) };
            self.state.capabilities.models.push(choice);
            let levels = list(model, "supportedReasoningEfforts").iter().take(LEVELS_MAX);
            let levels = levels.filter_map(|level| level.get("reasoningEffort")?.as_str());
            let levels = levels.filter(|id| is_usable(id));
            let levels = levels.map(|id| Choice { id: id.to_owned(), name: id.to_owned() });
            self.state.levels.insert(id.to_owned(), levels.collect());
        }
        self.state.model_pages += 1;
        let next = text(result, "nextCursor");
        if !next.is_empty() && self.state.model_pages < MODEL_PAGES_MAX {
            return self.call("model/list", &json!({"cursor": next}), Call::Models, out);
        }
        self.opened(out);
    }

    /// The session is open when the thread is there and the models are known.
    fn opened(&mut self, out: &mut Effects) {
        let is_waiting =
            self.state.calls.values().any(|call| matches!(call, Call::Thread | Call::Models));
        if is_waiting || self.state.phase != Phase::Opening {
            return;
        }
        self.state.phase = Phase::Ready;
        let wanted = self.state.open.take().and_then(|open| open.mode);
        self.state.mode = "default".to_owned();
        self.state.capabilities.reasoning_levels = self.levels();
        out.events.push(AgentEvent::Opened {
            native_ref: self.state.thread.clone().unwrap_or_default(),
            model: self.state.model.clone(),
            // It is told to Codex with the first turn.
            mode: Some(wanted.clone().unwrap_or_else(|| self.state.mode.clone())),
            reasoning_level: self.state.effort.clone(),
        });
        self.state.wanted_mode = wanted;
    }

    /// The levels of the model in force; of all, where Codex does not list it.
    fn levels(&self) -> Vec<Choice> {
        let model = self.state.model.as_deref().unwrap_or_default();
        if let Some(levels) = self.state.levels.get(model) {
            return levels.clone();
        }
        let mut all: Vec<Choice> = Vec::new();
        for level in self.state.levels.values().flatten() {
            if !all.contains(level) {
                all.push(level.clone());
            }
        }
        all
    }

    fn open_failed(&mut self, error: AgentError, gone: bool, out: &mut Effects) {
        if self.state.phase == Phase::Failed {
            return;
        }
        self.state.phase = Phase::Failed;
        self.state.open = None;
        out.events.push(AgentEvent::OpenFailed { error, gone });
    }
}

/// The word in this field, if there is one that can be kept.
pub(super) fn told_word(object: &Map<String, Value>, field: &str) -> Option<String> {
    Some(text(object, field)).filter(|word| is_usable(word)).map(str::to_owned)
}

/// Whether a word of Codex can be kept and sent back.
pub(super) fn is_usable(word: &str) -> bool {
    (1..=ECHO_BYTES_MAX).contains(&word.len())
}

/// The version in `name/1.2.3 (system) …`, or `name/1.2.3-alpha.1 …`.
fn version(user_agent: &str) -> Option<[u64; 3]> {
    let rest = user_agent.split_once('/')?.1;
    let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
    let mut parts = rest[..end].split('.').map(str::parse);
    let mut next = || parts.next()?.ok();
    Some([next()?, next()?, next().unwrap_or(0)])
}

/// An error of our own making.
pub(super) fn failure(message: String, code: &str) -> AgentError {
    AgentError { message, code: code.to_owned(), data: Value::Null }
}

/// The refusal of a request, as a sentence.
pub(super) fn refusal(error: &Value) -> AgentError {
    AgentError {
        message: error_message(error),
        code: "protocol_error".to_owned(),
        data: json!({"code": error.get("code")}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_read_and_an_old_one_is_known() {
        assert_eq!(version("gooselake/0.169.0 (Debian 12.0.0; x86_64) dumb"), Some([0, 169, 0]));
        assert_eq!(version("x/0.170.0-alpha.2 (m)"), Some([0, 170, 0]));
        assert!(version("x/0.99.9").unwrap() < VERSION_MIN);
        assert_eq!(version("codex"), None);
        assert_eq!(version("x/99999999999999999999.1.1"), None);
    }
}
