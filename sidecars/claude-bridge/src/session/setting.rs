//! Mode, model and effort.
//!
//! Owns: what the three are, what is on offer, and how the client and the program hear of a change. The mode without
//! questions (`bypassPermissions`) is offered only where the program can be started with a way into it: it refuses that
//! as root, unless `IS_SANDBOX=1` says that the machine is a sandbox. A model that is not on the list is passed on: a
//! gateway has models of its own, and the program checks none of them.
//!
//! A change is never lost: without a program it is kept for the command line of the next one, and a program that starts
//! hears of it before the prompt. A prompt must not run with more than its client has just allowed.

use super::{CONTROL_TIME, Control, Session, Stage, Waiter};
use crate::account::Model;
use crate::bridge::Out;
use crate::wire::{self, RpcError, text};
use serde_json::{Value, json};

const BYPASS: &str = "bypassPermissions";
/// The effort when nobody has chosen one.
const DEFAULT: &str = "default";
/// Changes that wait for a program that starts; one more is refused.
const CHANGES_MAX: usize = 32;
/// The longest name of a model.
const NAME_BYTES_MAX: usize = 200;

const MODES: [(&str, &str, &str); 6] = [
    ("default", "Default", "Asks before commands and edits"),
    ("acceptEdits", "Accept edits", "Edits files without asking, asks before commands"),
    ("plan", "Plan", "Reads and plans, changes nothing"),
    ("auto", "Auto", "A second model decides what is safe"),
    ("dontAsk", "Don't ask", "Denies what it would have to ask about"),
    (BYPASS, "Bypass permissions", "Never asks"),
];

#[derive(Debug)]
pub(super) struct Settings {
    can_bypass: bool,
    pub(super) mode: String,
    pub(super) model: String,
    pub(super) effort: String,
    pub(super) models: Vec<Model>,
    /// Somebody has chosen, so that a program that is started again gets the same.
    pub(super) is_chosen: bool,
}

impl Settings {
    pub(super) fn new(can_bypass: bool) -> Settings {
        Settings {
            can_bypass,
            mode: DEFAULT.to_owned(),
            model: DEFAULT.to_owned(),
            effort: DEFAULT.to_owned(),
            models: Vec::new(),
            is_chosen: false,
        }
    }

    /// Arguments of the program.
    pub(super) fn arguments(&self) -> Vec<String> {
        let mut arguments = Vec::new();
        if self.can_bypass {
            arguments.push("--allow-dangerously-skip-permissions");
        }
        if self.is_chosen {
            for (name, value) in [
                ("--permission-mode", &self.mode),
                ("--model", &self.model),
                ("--effort", &self.effort),
            ] {
                if value != DEFAULT {
                    arguments.extend([name, value]);
                }
            }
        }
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// What the program says it runs with.
    pub(super) fn read_applied(&mut self, applied: &Value) {
        if let Some(effort) = applied["effort"].as_str() {
            effort.clone_into(&mut self.effort);
        }
        self.check_effort();
    }

    /// ACP's `modes`.
    pub(super) fn modes(&self) -> Value {
        let offered = MODES.iter().filter(|(id, ..)| self.can_bypass || *id != BYPASS);
        let modes: Vec<Value> = offered
            .map(|(id, name, description)| {
                json!({"id": id, "name": name, "description": description})
            })
            .collect();
        json!({"currentModeId": self.mode, "availableModes": modes})
    }

    /// ACP's `configOptions`.
    pub(super) fn options(&self) -> Value {
        let mut models: Vec<Value> = self
            .models
            .iter()
            .map(|model| {
                json!({"value": model.id, "name": model.name, "description": model.description})
            })
            .collect();
        if self.models.iter().all(|model| model.id != self.model) {
            models.push(json!({"value": self.model, "name": self.model}));
        }
        let mut options = vec![json!({"id": "model", "name": "Model", "category": "model",
            "type": "select", "currentValue": self.model, "options": models})];
        let levels = self.levels();
        if !levels.is_empty() {
            let named = std::iter::once(DEFAULT).chain(levels.iter().map(String::as_str));
            let levels: Vec<Value> =
                named.map(|level| json!({"value": level, "name": capitalised(level)})).collect();
            options.push(json!({"id": "effort", "name": "Effort", "category": "thought_level",
                "type": "select", "currentValue": self.effort, "options": levels}));
        }
        json!(options)
    }

    /// The levels of the model; a model that is not on the list is taken to have those of the default one.
    fn levels(&self) -> &[String] {
        let known = self.models.iter().find(|model| model.id == self.model);
        let model = known.or_else(|| self.models.first());
        model.map(|model| model.levels.as_slice()).unwrap_or_default()
    }

    /// A level that the model does not have is none.
    pub(super) fn check_effort(&mut self) {
        if !self.levels().contains(&self.effort) {
            DEFAULT.clone_into(&mut self.effort);
        }
    }

    /// The list entry for the full name of a model, or the name itself.
    fn model_for(&self, full: &str) -> String {
        let current = self.models.iter().find(|model| model.id == self.model);
        if current.is_some_and(|model| model.resolved == full) || full == self.model {
            return self.model.clone();
        }
        let known = self.models.iter().find(|model| model.resolved == full);
        known.map_or_else(|| full.to_owned(), |model| model.id.clone())
    }

    /// A sentence with the models that are on offer, for a person whose model was refused.
    pub(super) fn models_hint(&self) -> String {
        let known: Vec<&str> = self.models.iter().map(|model| model.id.as_str()).collect();
        format!("the models on offer are {}", known.join(", "))
    }
}

impl Session {
    pub(crate) fn set_mode(
        &mut self,
        id: &Value,
        mode: &str,
        out: &mut Out,
    ) -> Result<(), RpcError> {
        if MODES.iter().all(|(known, ..)| *known != mode) {
            let text = format!("there is no mode {:?}", wire::cut(mode, 100));
            return Err(RpcError::new(wire::INVALID_PARAMS, text));
        }
        if mode == BYPASS && !self.settings.can_bypass {
            let text = "claude does not run without questions as root; run it as another user, \
                        or set IS_SANDBOX=1 where the machine is a sandbox";
            return Err(RpcError::new(wire::INVALID_PARAMS, text));
        }
        self.change(Control::Mode { id: id.clone(), mode: mode.to_owned() }, out)
    }

    pub(crate) fn set_option(
        &mut self,
        id: &Value,
        option: &str,
        value: &str,
        out: &mut Out,
    ) -> Result<(), RpcError> {
        let invalid = |text: String| Err(RpcError::new(wire::INVALID_PARAMS, text));
        let control = match option {
            "model" => {
                if value.is_empty() || value.len() > NAME_BYTES_MAX || value.starts_with('-') {
                    let hint = self.settings.models_hint();
                    return invalid(format!("that is no name of a model; {hint}"));
                }
                Control::Model { id: id.clone(), model: value.to_owned() }
            }
            "effort" => {
                let levels = self.settings.levels();
                if value != DEFAULT && levels.iter().all(|level| level != value) {
                    let known = levels.join(", ");
                    return invalid(format!("the model has no such effort; it has {known}"));
                }
                Control::Effort { id: id.clone(), effort: value.to_owned() }
            }
            other => return invalid(format!("there is no option {:?}", wire::cut(other, 100))),
        };
        self.change(control, out)
    }

    /// Asks the program for the change, now or when it can hear of it; without one the next is started with it.
    fn change(&mut self, control: Control, out: &mut Out) -> Result<(), RpcError> {
        match self.stage {
            Stage::Ready => self.send_change(control, out),
            Stage::Asleep => self.changed(control, out),
            Stage::Opening(Waiter::Prompt) if self.changes.len() < CHANGES_MAX => {
                self.changes.push(control);
            }
            Stage::Opening(_) | Stage::Closing(_) => {
                let text = "the session is not open";
                return Err(RpcError::new(wire::INVALID_REQUEST, text));
            }
        }
        self.settings.is_chosen = true;
        Ok(())
    }

    /// The program can hear of what was asked for while it started.
    pub(super) fn send_changes(&mut self, out: &mut Out) {
        for control in std::mem::take(&mut self.changes) {
            self.send_change(control, out);
        }
    }

    fn send_change(&mut self, control: Control, out: &mut Out) {
        let request = match &control {
            Control::Mode { mode, .. } => json!({"subtype": "set_permission_mode", "mode": mode}),
            Control::Model { model, .. } => json!({"subtype": "set_model", "model": model}),
            Control::Effort { effort, .. } => {
                let level = if effort == DEFAULT { Value::Null } else { json!(effort) };
                json!({"subtype": "apply_flag_settings", "settings": {"effortLevel": level}})
            }
            _ => return,
        };
        self.control(request, control, CONTROL_TIME, out);
    }

    /// The change is made: by the program that runs, or for the next one.
    pub(super) fn changed(&mut self, control: Control, out: &mut Out) {
        let id = match control {
            Control::Mode { id, mode } => {
                self.settings.mode = mode;
                return out.answer(&id, Ok(json!({})));
            }
            Control::Model { id, model } => {
                self.settings.model = model;
                self.settings.check_effort();
                id
            }
            Control::Effort { id, effort } => {
                self.settings.effort = effort;
                id
            }
            _ => return,
        };
        out.answer(&id, Ok(json!({"configOptions": self.settings.options()})));
    }

    /// The program says what it runs with; the client hears what is new to it.
    pub(super) fn told_settings(&mut self, told: &Value, out: &mut Out) {
        let mode = text(told, "permissionMode");
        if !mode.is_empty() && mode != self.settings.mode {
            mode.clone_into(&mut self.settings.mode);
            out.update(json!({"sessionUpdate": "current_mode_update", "currentModeId": mode}));
        }
        let model = text(told, "model");
        if model.is_empty() {
            return;
        }
        let model = self.settings.model_for(model);
        if model != self.settings.model {
            self.settings.model = model;
            let options = self.settings.options();
            out.update(json!({"sessionUpdate": "config_option_update", "configOptions": options}));
        }
    }
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}
