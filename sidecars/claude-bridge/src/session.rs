//! One session: a conversation with one `claude` process at a time.
//!
//! Owns: where the session stands, the control requests in flight, and the sorting of the program's lines. The program
//! may end by itself; the session stays, and its next prompt starts the program again with the conversation that it has
//! kept. The parts: `open` gets a session ready, `turn` runs prompts, `speech` and `tool` show what the model does,
//! `asking` is what the program asks, `setting` is mode, model and effort, `system` is what it says beside all that.

mod asking;
mod open;
mod setting;
mod speech;
mod system;
mod tool;
mod turn;

use crate::ask::Ask;
use crate::bridge::Out;
use crate::wire::{self, RpcError, text};
use serde_json::{Map, Value, json};
use setting::Settings;
use speech::Speech;
use std::collections::BTreeMap;
use std::time::Duration;
use tool::Calls;
use turn::{Context, Prompt};

/// For a control request to be answered.
const CONTROL_TIME: Duration = Duration::from_secs(30);

/// Who waits for the program to be ready.
#[derive(Debug)]
enum Waiter {
    /// `session/new` or `session/resume`.
    Open { id: Value, is_resume: bool },
    /// A prompt that found no program.
    Prompt,
}

#[derive(Debug)]
enum Stage {
    Opening(Waiter),
    Ready,
    /// There is no program; the next prompt starts one.
    Asleep,
    /// The session is over when the program has ended; then this request is answered.
    Closing(Option<Value>),
}

/// What a control request was for, until it is answered.
#[derive(Debug)]
enum Control {
    Initialize,
    /// The mode of the program before, asked of one that has begun in another.
    Restore,
    Settings,
    Servers,
    Interrupt,
    Withdraw,
    Mode {
        id: Value,
        mode: String,
    },
    Model {
        id: Value,
        model: String,
    },
    Effort {
        id: Value,
        effort: String,
    },
}

/// What becomes of a session whose program has ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Parting {
    Keep,
    Forget,
}

#[derive(Debug)]
pub(crate) struct Session {
    id: String,
    cwd: String,
    servers: Map<String, Value>,
    system_prompt: Option<String>,
    stage: Stage,
    /// The program has kept a conversation under our id.
    is_kept: bool,
    controls: BTreeMap<String, Control>,
    last_control: u64,
    settings: Settings,
    /// Settings that were asked for while the program starts.
    changes: Vec<Control>,
    prompt: Option<Prompt>,
    /// Why the program that a prompt has started can not be used; it is ending.
    open_error: Option<RpcError>,
    /// The program says what becomes of each message.
    tells_places: bool,
    /// The program works, for a prompt or by itself.
    is_busy: bool,
    speech: Speech,
    calls: Calls,
    asks: Vec<Ask>,
    context: Context,
    /// What the program said when it could not go on.
    last_words: String,
}

impl Session {
    pub(crate) fn new(
        id: &str,
        cwd: &str,
        servers: Map<String, Value>,
        system_prompt: Option<String>,
        can_bypass: bool,
    ) -> Session {
        Session {
            id: id.to_owned(),
            cwd: cwd.to_owned(),
            servers,
            system_prompt,
            stage: Stage::Asleep,
            is_kept: false,
            controls: BTreeMap::new(),
            last_control: 0,
            settings: Settings::new(can_bypass),
            changes: Vec::new(),
            prompt: None,
            open_error: None,
            tells_places: false,
            is_busy: false,
            speech: Speech::default(),
            calls: Calls::default(),
            asks: Vec::new(),
            context: Context::default(),
            last_words: String::new(),
        }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Asks the program for something, and remembers what for.
    fn control(&mut self, request: Value, control: Control, after: Duration, out: &mut Out) {
        self.last_control += 1;
        let key = format!("bridge-{}", self.last_control);
        out.claude(wire::control(&key, request));
        out.alarm(&key, after);
        self.controls.insert(key, control);
    }

    /// A line of the program.
    pub(crate) fn hear(&mut self, message: &Value, out: &mut Out) {
        let is_main = message["parent_tool_use_id"].is_null();
        match text(message, "type") {
            "stream_event" if is_main => self.stream_event(&message["event"], out),
            "stream_event" => {}
            "assistant" => self.assistant(message, is_main, out),
            "user" => self.user(message, out),
            "result" => self.result(message, out),
            "system" => self.system(message, out),
            "command_lifecycle" => self.lifecycle(message, out),
            "control_request" => self.asked(message, out),
            "control_response" => self.control_answered(&message["response"], out),
            "control_cancel_request" => self.withdraw(text(message, "request_id"), out),
            "rate_limit_event" => self.rate_limit(&message["rate_limit_info"], out),
            // The program's own types grow with every version; what is not known is noise.
            _ => {}
        }
    }

    fn control_answered(&mut self, response: &Value, out: &mut Out) {
        let Some(control) = self.controls.remove(text(response, "request_id")) else { return };
        let answer = match text(response, "subtype") {
            "success" => Ok(&response["response"]),
            _ => Err(text(response, "error")),
        };
        self.control_over(control, answer, out);
    }

    fn control_over(&mut self, control: Control, answer: Result<&Value, &str>, out: &mut Out) {
        match (control, answer) {
            (Control::Initialize, answer) => self.initialized(answer, out),
            (Control::Restore, answer) => self.mode_restored(answer, out),
            (Control::Settings, answer) => self.settings_told(answer, out),
            (Control::Servers, answer) => self.servers_set(answer, out),
            (Control::Interrupt | Control::Withdraw, _) => {}
            (control, Ok(_)) => self.changed(control, out),
            (control, Err(why)) => {
                let (id, what) = match &control {
                    Control::Mode { id, mode } => (id, format!("the mode {mode}")),
                    Control::Model { id, model } => (id, format!("the model {model}")),
                    Control::Effort { id, effort } => (id, format!("the effort {effort}")),
                    _ => return,
                };
                let text = format!("claude did not take {what}: {}", wire::cut(why, 1000));
                out.answer(id, Err(RpcError::new(wire::INVALID_PARAMS, text)));
            }
        }
    }

    /// The time for a control request is over. A program that can not be initialized or interrupted is ended.
    pub(crate) fn alarm(&mut self, key: &str, out: &mut Out) {
        let Some(control) = self.controls.remove(key) else { return };
        match control {
            Control::Initialize => {
                let text = "claude did not start in time; without a way to its vendor it waits";
                self.open_failed(RpcError::new(wire::INTERNAL_ERROR, text), out);
            }
            Control::Interrupt if self.prompt.is_some() => out.end(),
            Control::Interrupt | Control::Withdraw => {}
            other => self.control_over(other, Err("it gave no answer in time"), out),
        }
    }

    /// Ends the session; the request is answered when the program is gone.
    pub(crate) fn close(&mut self, id: Option<Value>, out: &mut Out) {
        self.cancel(out);
        match std::mem::replace(&mut self.stage, Stage::Closing(id)) {
            Stage::Asleep => {
                // There is no program whose end would be told; the shell tells of it at once.
                out.end();
            }
            Stage::Opening(Waiter::Open { id, .. }) => {
                let error = RpcError::new(wire::INVALID_REQUEST, "the session was closed");
                out.answer(&id, Err(error));
                out.end();
            }
            Stage::Closing(Some(earlier)) => out.answer(&earlier, Ok(json!({}))),
            _ => out.end(),
        }
    }

    /// The program has ended. Everything that waited for it is answered.
    pub(crate) fn ended(&mut self, how: &str, out: &mut Out) -> Parting {
        for ask in std::mem::take(&mut self.asks) {
            ask.take_back(out);
        }
        self.is_busy = false;
        self.speech = Speech::default();
        // The next program is started with what this one was asked for, the last word on each setting as the last.
        let mut asked: Vec<_> = std::mem::take(&mut self.controls).into_iter().collect();
        asked.sort_by_key(|(key, _)| (key.len(), key.clone()));
        let asked = asked.into_iter().map(|(_, control)| control);
        for control in asked.chain(std::mem::take(&mut self.changes)) {
            self.changed(control, out);
        }
        self.calls.fail_all(out);
        let words = std::mem::take(&mut self.last_words);
        let how = if words.is_empty() { how.to_owned() } else { format!(": {words}") };
        match std::mem::replace(&mut self.stage, Stage::Asleep) {
            Stage::Closing(id) => {
                self.prompt_cancelled(out);
                if let Some(id) = id {
                    out.answer(&id, Ok(json!({})));
                }
                return Parting::Forget;
            }
            Stage::Opening(waiter) => {
                let text = format!("claude ended before the session was open{how}");
                let code = if says_gone(&how) { wire::NOT_FOUND } else { wire::INTERNAL_ERROR };
                let error = self.open_error.take().unwrap_or_else(|| RpcError::new(code, text));
                match waiter {
                    Waiter::Open { id, .. } => {
                        out.answer(&id, Err(error));
                        return Parting::Forget;
                    }
                    Waiter::Prompt => {
                        // What the program has not kept can not be gone on with; the next prompt begins anew.
                        self.is_kept &= code != wire::NOT_FOUND;
                        self.prompt_failed(error, out);
                    }
                }
            }
            Stage::Ready | Stage::Asleep => {
                let text = format!("claude ended in the middle of a turn{how}");
                self.prompt_failed(RpcError::new(wire::INTERNAL_ERROR, text), out);
            }
        }
        Parting::Keep
    }
}

/// Whether the program's last words are that it does not know the conversation.
fn says_gone(how: &str) -> bool {
    how.contains("No conversation found")
}
