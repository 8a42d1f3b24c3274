//! From a fresh process to a session that takes prompts.
//!
//! Owns: the command line of the program, and the steps until it is ready: initialize, what it runs with, MCP servers.
//! Secrets and prompts never stand in the command line: instructions and servers (with their variables) go through the
//! control protocol. A version that is too old and a login that is missing are told here, before any prompt.

use super::{CONTROL_TIME, Control, Session, Stage, Waiter};
use crate::account::{self, Model};
use crate::bridge::{Effect, Out};
use crate::wire::{self, RpcError};
use serde_json::{Value, json};
use std::time::Duration;

/// For the program to start and answer: 0.5 s alone, much longer on a busy machine.
const START_TIME: Duration = Duration::from_secs(60);
/// For MCP servers to be connected.
const SERVERS_TIME: Duration = Duration::from_secs(60);

impl Session {
    /// Starts the program for a request of the client.
    pub(crate) fn start(&mut self, id: Value, is_resume: bool, out: &mut Out) {
        self.is_kept = is_resume;
        self.stage = Stage::Opening(Waiter::Open { id, is_resume });
        self.launch(out);
    }

    /// Starts the program again, for the prompt that is there.
    pub(super) fn start_again(&mut self, out: &mut Out) {
        self.stage = Stage::Opening(Waiter::Prompt);
        self.launch(out);
    }

    fn launch(&mut self, out: &mut Out) {
        let name = if self.is_kept { "--resume" } else { "--session-id" };
        let mut arguments = wire::arguments(&[name, &self.id]);
        arguments.extend(self.settings.arguments());
        let (session, cwd) = (self.id.clone(), self.cwd.clone());
        out.effects.push(Effect::Start { session, cwd, arguments });
        let mut request = json!({"subtype": "initialize", "hooks": null});
        if let Some(text) = &self.system_prompt {
            request["appendSystemPrompt"] = json!(text);
        }
        self.control(request, Control::Initialize, START_TIME, out);
    }

    pub(super) fn initialized(&mut self, answer: Result<&Value, &str>, out: &mut Out) {
        let told = match answer {
            Ok(told) => told,
            Err(why) => {
                let text = format!("claude did not initialize: {}", wire::cut(why, 1000));
                return self.open_failed(RpcError::new(wire::INTERNAL_ERROR, text), out);
            }
        };
        let version = account::version(told).unwrap_or_default();
        if account::is_too_old(version) {
            let minimum = account::MINIMUM_VERSION;
            let hint = account::UPDATE_HINT;
            let text = format!("claude {version} is too old, {minimum} or newer is needed: {hint}");
            let error = RpcError::new(wire::INTERNAL_ERROR, text);
            return self.open_failed(error.with(json!({"kind": "program_too_old"})), out);
        }
        if account::is_logged_out(told) {
            let text = format!("nobody is logged in to claude: {}", account::LOGIN_HINT);
            return self.open_failed(RpcError::new(wire::AUTH_REQUIRED, text), out);
        }
        self.settings.models = Model::list(told);
        if let Some(mode) = told["current_permission_mode"].as_str() {
            let is_again = matches!(self.stage, Stage::Opening(Waiter::Prompt));
            if is_again && self.settings.is_chosen && mode != self.settings.mode {
                // The user's own settings may name another one than the client has chosen.
                let mode = self.settings.mode.clone();
                let request = json!({"subtype": "set_permission_mode", "mode": mode});
                return self.control(request, Control::Restore, CONTROL_TIME, out);
            }
            mode.clone_into(&mut self.settings.mode);
        }
        self.ask_settings(out);
    }

    /// A prompt does not run in another mode than the one that its client has been told of.
    pub(super) fn mode_restored(&mut self, answer: Result<&Value, &str>, out: &mut Out) {
        match answer {
            Ok(_) => self.ask_settings(out),
            Err(why) => {
                let (mode, why) = (&self.settings.mode, wire::cut(why, 1000));
                let text = format!("claude does not run in the mode {mode} any more: {why}");
                self.open_failed(RpcError::new(wire::INTERNAL_ERROR, text), out);
            }
        }
    }

    fn ask_settings(&mut self, out: &mut Out) {
        self.control(json!({"subtype": "get_settings"}), Control::Settings, CONTROL_TIME, out);
    }

    /// What the program runs with; a program that does not tell runs with its defaults.
    pub(super) fn settings_told(&mut self, answer: Result<&Value, &str>, out: &mut Out) {
        if let Ok(told) = answer {
            self.settings.read_applied(&told["applied"]);
        }
        if self.servers.is_empty() {
            return self.opened(out);
        }
        let request = json!({"subtype": "mcp_set_servers", "servers": self.servers});
        self.control(request, Control::Servers, SERVERS_TIME, out);
    }

    /// A server that does not start fails its tools, not the session.
    pub(super) fn servers_set(&mut self, answer: Result<&Value, &str>, out: &mut Out) {
        self.opened(out);
        match answer {
            Ok(told) => {
                for (name, why) in told["errors"].as_object().into_iter().flatten() {
                    let why = why.as_str().map_or_else(|| why.to_string(), str::to_owned);
                    out.notice("warning", &format!("the MCP server {name} did not start: {why}"));
                }
            }
            Err(why) => out.notice("warning", &format!("no MCP server was started: {why}")),
        }
    }

    fn opened(&mut self, out: &mut Out) {
        match std::mem::replace(&mut self.stage, Stage::Ready) {
            Stage::Opening(Waiter::Open { id, is_resume }) => {
                let mut result = json!({
                    "modes": self.settings.modes(),
                    "configOptions": self.settings.options(),
                });
                if !is_resume {
                    result["sessionId"] = json!(self.id);
                }
                out.answer(&id, Ok(result));
            }
            Stage::Opening(Waiter::Prompt) => {
                self.send_changes(out);
                self.send_prompt(out);
            }
            other => self.stage = other,
        }
    }

    /// The session can not be opened: says so, and ends the program.
    pub(super) fn open_failed(&mut self, error: RpcError, out: &mut Out) {
        match std::mem::replace(&mut self.stage, Stage::Closing(None)) {
            Stage::Opening(Waiter::Open { id, .. }) => out.answer(&id, Err(error)),
            Stage::Opening(Waiter::Prompt) => {
                // Told when the program is gone: its end takes all processes of the conversation with it, so no other
                // program may begin before.
                self.stage = Stage::Opening(Waiter::Prompt);
                self.open_error = Some(error);
            }
            other => self.stage = other,
        }
        out.end();
    }
}
