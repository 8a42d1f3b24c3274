//! From a fresh process to a session that takes turns.
//!
//! Owns: the handshake, the choice between new, resume and load, the end of a replay, and the
//! settings that are set before turns. Promises: one [`AgentEvent::Opened`] or one
//! [`AgentEvent::OpenFailed`] for every open, and nothing of a loaded session's history as events.
//!
//! `session/resume` is preferred to `session/load`, because it brings no replay. After a load one
//! more request is sent that no agent knows (`_gooselake/sync`; any answer will do): gemini answers
//! the load in the middle of its replay, and only the answer to a later request comes behind all of
//! it. Without that, the rest of the history would become speech of the first turn.

use super::setting::{Step, is_demanding, mode_for};
use super::state::{Call, ECHO_BYTES_MAX, Kind, Phase, Turn, Wanted};
use super::wire::{KEPT_BYTES_MAX, agent_error, object, says_gone, text};
use super::{Acp, notice};
use crate::model::TurnStatus;
use crate::provider::{AgentError, AgentEvent, Effects, Open};
use serde_json::{Map, Value, json};

/// The version of the protocol that we speak.
const PROTOCOL_VERSION: u64 = 1;

/// An agent's answer: the fields of the result, or the error.
pub(super) type Answer<'a> = Result<&'a Map<String, Value>, &'a Value>;

impl Acp {
    pub(super) fn initialize(&mut self, open: &Open, out: &mut Effects) {
        let state = &mut self.state;
        state.phase = Phase::Opening;
        state.client_fs = open.client_fs;
        state.client_terminal = open.client_terminal;
        let names = open.mcp_servers.iter().filter_map(|server| server.get("name")?.as_str());
        state.mcp_servers = names.filter(|name| !name.is_empty()).map(str::to_owned).collect();
        state.open = Some(open.clone());
        let params = json!({
            "protocolVersion": PROTOCOL_VERSION,
            "clientCapabilities": {
                "fs": {"readTextFile": open.client_fs, "writeTextFile": open.client_fs},
                "terminal": open.client_terminal,
                "session": {"notices": {}},
            },
            "clientInfo": {
                "name": "gooselake", "title": "gooselake", "version": env!("CARGO_PKG_VERSION"),
            },
        });
        self.call("initialize", params, Call::Initialize, out);
    }

    pub(super) fn initialized(&mut self, answer: Answer, out: &mut Effects) {
        let result = match answer {
            Ok(result) => result,
            Err(error) => return self.open_failed(agent_error(error, "open_failed"), false, out),
        };
        let version = result.get("protocolVersion").unwrap_or(&Value::Null);
        if version.as_u64() != Some(PROTOCOL_VERSION) {
            let message = format!("the agent speaks version {version} of ACP, we speak version 1");
            return self.open_failed(failure(message, "protocol_error"), false, out);
        }
        let Some(open) = self.state.open.clone() else { return };
        let nothing = Map::new();
        let can = object(result, "agentCapabilities").unwrap_or(&nothing);
        let session = object(can, "sessionCapabilities").unwrap_or(&nothing);
        let prompt = object(can, "promptCapabilities").unwrap_or(&nothing);
        let has = |field: &str| session.get(field).is_some_and(|value| !value.is_null());
        let can_load = can.get("loadSession") == Some(&Value::Bool(true));
        let capabilities = &mut self.state.capabilities;
        capabilities.image = prompt.get("image") == Some(&Value::Bool(true));
        // Every ACP agent takes links.
        capabilities.resource_link = true;
        capabilities.resume = can_load || has("resume");
        let own = object(can, "_meta").and_then(|meta| object(meta, "gooselake"));
        capabilities.steer = own.is_some_and(|own| own.get("steer") == Some(&Value::Bool(true)));
        let info = result.get("agentInfo").cloned().unwrap_or_default();
        let is_kept = info.to_string().len() <= KEPT_BYTES_MAX;
        capabilities.agent_info = if is_kept { info } else { Value::Null };
        self.state.can_close = has("close");
        let takes_prompt = has("systemPrompt");
        match &open.resume {
            None => {
                self.ask_session("session/new", Call::New, &open, takes_prompt, out);
                self.state.preamble = open.system_prompt.filter(|_| !takes_prompt);
            }
            Some(_) if has("resume") => {
                self.ask_session("session/resume", Call::Resume, &open, takes_prompt, out);
            }
            Some(_) if can_load => {
                self.state.phase = Phase::Loading;
                self.ask_session("session/load", Call::Load, &open, takes_prompt, out);
            }
            Some(_) => {
                let message = "the agent can not open a session again".to_owned();
                self.open_failed(failure(message, "resume_unsupported"), true, out);
            }
        }
    }

    fn ask_session(
        &mut self,
        method: &str,
        call: Call,
        open: &Open,
        takes_prompt: bool,
        out: &mut Effects,
    ) {
        let mut params = json!({"cwd": open.cwd, "mcpServers": open.mcp_servers});
        if let Some(session) = &open.resume {
            params["sessionId"] = json!(session);
            self.state.native = Some(session.clone());
        }
        if let (true, Some(prompt)) = (takes_prompt, &open.system_prompt) {
            let content = json!([{"type": "text", "text": prompt}]);
            params["systemPrompt"] = json!({"mode": "append", "content": content});
        }
        self.call(method, params, call, out);
    }

    pub(super) fn session_answered(&mut self, call: &Call, answer: Answer, out: &mut Effects) {
        let result = match answer {
            Ok(result) => result,
            Err(error) => {
                let is_gone = *call != Call::New && says_gone(error);
                let code = if is_gone { "session_gone" } else { "open_failed" };
                return self.open_failed(agent_error(error, code), is_gone, out);
            }
        };
        if *call == Call::New {
            let session = text(result, "sessionId");
            if !(1..=ECHO_BYTES_MAX).contains(&session.len()) {
                let message = "the agent opened a session without a usable id".to_owned();
                return self.open_failed(failure(message, "protocol_error"), false, out);
            }
            self.state.native = Some(session.to_owned());
        }
        self.state.settings.read(result, &mut self.state.capabilities);
        if *call == Call::Load {
            self.call("_gooselake/sync", json!({}), Call::Sync, out);
        } else {
            self.apply(out);
        }
    }

    pub(super) fn replay_over(&mut self, out: &mut Effects) {
        self.apply(out);
    }

    /// Sets what the open asked for; the last answer emits [`AgentEvent::Opened`].
    fn apply(&mut self, out: &mut Effects) {
        self.state.phase = Phase::Applying;
        if let Some(open) = self.state.open.take() {
            let permission_mode = open.permission_mode.as_deref();
            let wanted =
                self.want(open.model, open.reasoning_level, open.mode, permission_mode, out);
            if let Err(error) = wanted {
                return self.open_failed(error, false, out);
            }
        }
        self.settle(out);
    }

    /// Remembers what is to be set. An explicit mode wins over the permission mode. Errors: a strict
    /// agent has no mode for the permission mode.
    pub(super) fn want(
        &mut self,
        model: Option<String>,
        reasoning: Option<String>,
        mode: Option<String>,
        permission_mode: Option<&str>,
        out: &mut Effects,
    ) -> Result<(), AgentError> {
        let mut found = mode;
        let mut is_limit = false;
        if let (None, Some(wanted)) = (&found, permission_mode) {
            found = mode_for(wanted, &self.state.capabilities.modes);
            if found.is_none() && is_demanding(wanted) {
                let text = format!("the agent has no mode for the permission mode {wanted}");
                if self.state.is_strict {
                    return Err(failure(text, "permission_mode_unavailable"));
                }
                notice(text, json!({"permission_mode": wanted}), out);
            }
            is_limit = self.state.is_strict && found.is_some();
        }
        self.state.wanted = Wanted { model, reasoning, mode: found, is_limit };
        Ok(())
    }

    /// Sends the next setting that is wanted; when none is left, what waited for the settings goes
    /// on.
    pub(super) fn settle(&mut self, out: &mut Effects) {
        // The answer to a setting of a turn that was interrupted may still be on its way.
        if self.state.calls.values().any(|call| matches!(call, Call::Set { .. })) {
            return;
        }
        let session = self.state.native.clone().unwrap_or_default();
        while let Some((setting, value)) = self.state.wanted.take() {
            let is_limit = setting == Kind::Mode && self.state.wanted.is_limit;
            match self.state.settings.step(setting, &value, &session) {
                Step::Done => {}
                Step::Impossible => {
                    let text = format!("the agent has no setting for the {}", setting.label());
                    notice(text, json!({"value": value}), out);
                }
                Step::Ask { method, params } => {
                    return self.call(method, params, Call::Set { setting, value, is_limit }, out);
                }
            }
        }
        if self.state.phase == Phase::Applying {
            self.state.phase = Phase::Ready;
            let now = self.state.settings.in_force();
            out.events.push(AgentEvent::Opened {
                native_ref: session,
                model: now.model,
                mode: now.mode,
                reasoning_level: now.reasoning,
            });
        } else {
            self.send_prompt(out);
        }
    }

    /// An agent that refuses a setting goes on with the old one, and a person hears of it; but what
    /// was to run under a limit does not run without it.
    pub(super) fn setting_answered(
        &mut self,
        setting: Kind,
        value: &str,
        is_limit: bool,
        answer: Answer,
        out: &mut Effects,
    ) {
        match answer {
            Ok(result) => self.told_settings(out, |state| {
                state.settings.set(setting, value);
                state.settings.read(result, &mut state.capabilities);
            }),
            Err(error) => {
                let error = agent_error(error, "open_failed");
                let label = setting.label();
                let text = format!("the agent did not take the {label} {value}: {}", error.message);
                if is_limit {
                    let code = "permission_mode_unavailable".to_owned();
                    let error = AgentError { message: text, code, data: error.data };
                    return self.limit_refused(error, out);
                }
                notice(text, error.data, out);
            }
        }
        let is_waiting = matches!(self.state.turn, Turn::User { waiting: Some(_), .. });
        if self.state.phase == Phase::Applying || is_waiting {
            self.settle(out);
        }
    }

    fn limit_refused(&mut self, error: AgentError, out: &mut Effects) {
        if self.state.phase == Phase::Applying {
            self.open_failed(error, false, out);
        } else {
            self.end(TurnStatus::Failed, None, Some(error), out);
        }
    }

    fn open_failed(&mut self, error: AgentError, gone: bool, out: &mut Effects) {
        self.state.phase = Phase::Failed;
        self.state.open = None;
        out.events.push(AgentEvent::OpenFailed { error, gone });
    }

    pub(super) fn close(&mut self, out: &mut Effects) {
        self.withdraw_all("closed", out);
        if let (true, Some(session)) = (self.state.can_close, self.state.native.clone()) {
            self.call("session/close", json!({"sessionId": session}), Call::Close, out);
        }
    }

    /// Whether an update for this session is none of ours: history, or another session's.
    pub(super) fn swallows(&self, session: &str) -> bool {
        let is_other = |native: &String| !session.is_empty() && native != session;
        self.is_loading() || self.state.native.as_ref().is_some_and(is_other)
    }

    pub(super) fn is_loading(&self) -> bool {
        self.state.phase == Phase::Loading
    }
}

/// An error of our own making.
pub(super) fn failure(message: String, code: &str) -> AgentError {
    AgentError { message, code: code.to_owned(), data: Value::Null }
}
