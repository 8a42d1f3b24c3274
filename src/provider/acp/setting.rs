//! Model, mode and reasoning level.
//!
//! Owns: where an agent keeps each of the three settings (three dialects: `modes` and `models` of
//! the session's answer, and `configOptions`), what they are now, which request sets one, and how a
//! permission mode of ours maps onto an agent's modes. Promises: a setting that the agent does not
//! have is never asked for. Deliberately does not decide when a request is sent; that is the turn's
//! matter.
//!
//! Where both dialects are offered, `session/set_mode` is used for the mode (every agent with
//! `modes` answers it) and the config option for the model (`session/set_model` has left the
//! protocol).
//!
//! Permission modes (first mode of the agent in the row that it has; letter case, `-` and `_` do
//! not count):
//!
//! | ours                 | the agent's mode                                                  |
//! |----------------------|-------------------------------------------------------------------|
//! | `read_only`          | `plan`, `read-only`                                               |
//! | `full_auto`          | `acceptEdits`, `autoEdit`, `auto`, `workspace-write`, `agent`     |
//! | `danger_full_access` | `bypassPermissions`, `yolo`, `full-access`, `agent-full-access`   |
//! | `default`            | `default`; an agent without it stays as it is                     |
//! | `require_approval`   | stays as it is: the runtime asks before the prompt                |

use super::state::{ECHO_BYTES_MAX, Kind, NAME_BYTES_MAX};
use super::wire::{cut, list, object, text};
use crate::provider::{Capabilities, Choice};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// Modes, models and levels that are kept, of each.
const CHOICES_MAX: usize = 500;

/// How a setting is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Via {
    /// The agent does not have it.
    #[default]
    Nothing,
    /// The method of its own: `session/set_mode`, `session/set_model`.
    Method,
    /// The config option of this id.
    Option(String),
}

/// One setting: what it is now, and how to change it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Setting {
    current: Option<String>,
    via: Via,
}

/// The settings of the session, as the agent told them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Settings {
    model: Setting,
    reasoning: Setting,
    mode: Setting,
    /// The ids that `session/set_model` takes.
    model_ids: Vec<String>,
    /// All of these ids are `model[level]`, and no option sets the level.
    paired: bool,
}

/// What is in force; None = not told.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct InForce {
    pub(super) model: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) reasoning: Option<String>,
}

/// What to do to set something.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It is so already.
    Done,
    /// The agent has no such setting.
    Impossible,
    Ask {
        method: &'static str,
        params: Value,
    },
}

impl Settings {
    /// Reads all that an answer or an update tells of the settings. Fields that are not there
    /// change nothing.
    pub(super) fn read(&mut self, told: &Map<String, Value>, capabilities: &mut Capabilities) {
        if let Some(modes) = object(told, "modes") {
            let known = choices(list(modes, "availableModes"), "id");
            if !known.is_empty() {
                capabilities.modes = known;
            }
            self.mode.via = Via::Method;
            tell(&mut self.mode.current, text(modes, "currentModeId"));
        }
        if let Some(models) = object(told, "models") {
            self.read_models(models, capabilities);
        }
        if let Some(mode) = told.get("currentModeId").and_then(Value::as_str) {
            tell(&mut self.mode.current, mode);
        }
        for option in list(told, "configOptions").iter().filter_map(Value::as_object) {
            self.read_option(option, capabilities);
        }
    }

    fn read_models(&mut self, models: &Map<String, Value>, capabilities: &mut Capabilities) {
        let known = choices(list(models, "availableModels"), "modelId");
        if !known.is_empty() {
            self.model_ids = known.iter().map(|choice| choice.id.clone()).collect();
        }
        if matches!(self.model.via, Via::Option(_)) {
            return;
        }
        self.model.via = Via::Method;
        let pairs: Option<Vec<(&str, &str)>> = known.iter().map(|model| split(&model.id)).collect();
        self.paired = !known.is_empty() && pairs.is_some();
        let current = text(models, "currentModelId");
        if let (true, Some(pairs)) = (self.paired, pairs) {
            self.reasoning.via = Via::Method;
            capabilities.models.clear();
            capabilities.reasoning_levels.clear();
            for (choice, (model, level)) in known.iter().zip(pairs) {
                let name = choice.name.split(" (").next().unwrap_or(model);
                add(&mut capabilities.models, model, name);
                add(&mut capabilities.reasoning_levels, level, level);
            }
            let (model, level) = split(current).unwrap_or((current, ""));
            tell(&mut self.model.current, model);
            tell(&mut self.reasoning.current, level);
        } else {
            if !known.is_empty() {
                capabilities.models = known;
            }
            tell(&mut self.model.current, current);
        }
    }

    fn read_option(&mut self, option: &Map<String, Value>, capabilities: &mut Capabilities) {
        let id = text(option, "id");
        let kind = match (text(option, "category"), id) {
            ("mode", _) => Kind::Mode,
            ("model", _) => Kind::Model,
            ("thought_level", _) => Kind::Reasoning,
            (_, "mode") => Kind::Mode,
            (_, "model") => Kind::Model,
            (_, "effort" | "thought_level" | "reasoning_effort" | "reasoning_level") => {
                Kind::Reasoning
            }
            _ => return,
        };
        if id.len() > ECHO_BYTES_MAX {
            return;
        }
        let (setting, offered) = match kind {
            Kind::Mode => (&mut self.mode, &mut capabilities.modes),
            Kind::Model => (&mut self.model, &mut capabilities.models),
            Kind::Reasoning => (&mut self.reasoning, &mut capabilities.reasoning_levels),
        };
        if kind != Kind::Mode || setting.via != Via::Method {
            setting.via = Via::Option(id.to_owned());
        }
        let known = choices(list(option, "options"), "value");
        if !known.is_empty() {
            *offered = known;
        }
        tell(&mut setting.current, text(option, "currentValue"));
        self.paired &= matches!(self.model.via, Via::Method);
    }

    /// The mode that the agent told in an update.
    pub(super) fn mode_is(&mut self, mode: &str) {
        tell(&mut self.mode.current, mode);
    }

    pub(super) fn in_force(&self) -> InForce {
        InForce {
            model: self.model.current.clone(),
            mode: self.mode.current.clone(),
            reasoning: self.reasoning.current.clone(),
        }
    }

    /// How to set `kind` to `value` in the native session.
    pub(super) fn step(&self, kind: Kind, value: &str, session: &str) -> Step {
        let setting = self.setting(kind);
        if setting.current.as_deref() == Some(value) {
            return Step::Done;
        }
        let option = |id: &str| Step::Ask {
            method: "session/set_config_option",
            params: json!({"sessionId": session, "configId": id, "value": value}),
        };
        let model = |id: String| Step::Ask {
            method: "session/set_model",
            params: json!({"sessionId": session, "modelId": id}),
        };
        // A `model[level]` is not among the values of the option, but the method takes it.
        if kind == Kind::Model && split(value).is_some() && self.takes_model(value) {
            return model(value.to_owned());
        }
        match (&setting.via, kind) {
            (Via::Nothing, _) => Step::Impossible,
            (Via::Option(id), _) => option(id),
            (Via::Method, Kind::Mode) => Step::Ask {
                method: "session/set_mode",
                params: json!({"sessionId": session, "modeId": value}),
            },
            (Via::Method, Kind::Model) => model(self.paired_model(value)),
            (Via::Method, Kind::Reasoning) => {
                let current = self.model.current.as_deref().unwrap_or_default();
                model(format!("{current}[{value}]"))
            }
        }
    }

    /// The agent has set it.
    pub(super) fn set(&mut self, kind: Kind, value: &str) {
        match (kind, split(value)) {
            (Kind::Model, Some((model, level))) if self.takes_model(value) => {
                tell(&mut self.model.current, model);
                tell(&mut self.reasoning.current, level);
            }
            (Kind::Model, _) => tell(&mut self.model.current, value),
            (Kind::Reasoning, _) => tell(&mut self.reasoning.current, value),
            (Kind::Mode, _) => tell(&mut self.mode.current, value),
        }
    }

    fn setting(&self, kind: Kind) -> &Setting {
        match kind {
            Kind::Model => &self.model,
            Kind::Reasoning => &self.reasoning,
            Kind::Mode => &self.mode,
        }
    }

    fn takes_model(&self, id: &str) -> bool {
        self.model_ids.iter().any(|known| known == id)
    }

    /// The id for a model where the ids carry the level: with the level as it is, if the model has
    /// it.
    fn paired_model(&self, model: &str) -> String {
        if !self.paired {
            return model.to_owned();
        }
        let level = self.reasoning.current.as_deref().unwrap_or_default();
        let same = format!("{model}[{level}]");
        let mut ids = self.model_ids.iter();
        if self.takes_model(&same) {
            same
        } else {
            ids.find(|id| split(id).is_some_and(|(base, _)| base == model))
                .map_or_else(|| model.to_owned(), Clone::clone)
        }
    }
}

/// The agent's mode for a permission mode of ours, if it clearly has one.
pub(super) fn mode_for(permission_mode: &str, modes: &[Choice]) -> Option<String> {
    let names: &[&str] = match permission_mode.replace('-', "_").as_str() {
        "read_only" => &["plan", "readonly"],
        "full_auto" => &["acceptedits", "autoedit", "auto", "workspacewrite", "agent"],
        "danger_full_access" => &["bypasspermissions", "yolo", "fullaccess", "agentfullaccess"],
        "default" => &["default"],
        _ => &[],
    };
    names.iter().find_map(|name| {
        let found = modes.iter().find(|mode| plain(&mode.id) == *name)?;
        Some(found.id.clone())
    })
}

/// Whether a person who asked for this permission mode must hear that the agent has nothing like
/// it.
pub(super) fn is_demanding(permission_mode: &str) -> bool {
    !matches!(permission_mode, "default" | "require_approval")
}

/// `gpt[high]` as (`gpt`, `high`).
fn split(id: &str) -> Option<(&str, &str)> {
    let (model, level) = id.strip_suffix(']')?.rsplit_once('[')?;
    (!model.is_empty() && !level.is_empty()).then_some((model, level))
}

fn plain(id: &str) -> String {
    id.chars().filter(|c| *c != '-' && *c != '_').flat_map(char::to_lowercase).collect()
}

/// An empty text tells nothing, nor does one that is too long to be kept.
fn tell(current: &mut Option<String>, told: &str) {
    if (1..=ECHO_BYTES_MAX).contains(&told.len()) {
        *current = Some(told.to_owned());
    }
}

fn add(choices: &mut Vec<Choice>, id: &str, name: &str) {
    if choices.len() < CHOICES_MAX && choices.iter().all(|choice| choice.id != id) {
        choices.push(Choice { id: id.to_owned(), name: cut(name, NAME_BYTES_MAX) });
    }
}

/// The values on offer; a value may stand in a named group.
fn choices(offered: &[Value], id_field: &str) -> Vec<Choice> {
    let mut found = Vec::new();
    for value in offered.iter().filter_map(Value::as_object) {
        for inner in list(value, "options").iter().filter_map(Value::as_object) {
            add_choice(&mut found, inner, id_field);
        }
        add_choice(&mut found, value, id_field);
    }
    found
}

fn add_choice(found: &mut Vec<Choice>, value: &Map<String, Value>, id_field: &str) {
    let id = text(value, id_field);
    if (1..=ECHO_BYTES_MAX).contains(&id.len()) {
        let name = text(value, "name");
        add(found, id, if name.is_empty() { id } else { name });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(value: Value) -> (Settings, Capabilities) {
        let mut settings = Settings::default();
        let mut capabilities = Capabilities::default();
        settings.read(value.as_object().expect("an object"), &mut capabilities);
        (settings, capabilities)
    }

    fn ids(choices: &[Choice]) -> Vec<&str> {
        choices.iter().map(|choice| choice.id.as_str()).collect()
    }

    #[test]
    fn models_that_carry_their_level_become_two_settings() {
        let (settings, capabilities) = told(json!({"models": {
            "currentModelId": "sol[low]",
            "availableModels": [
                {"modelId": "sol[low]", "name": "Sol (low)"},
                {"modelId": "sol[high]", "name": "Sol (high)"},
                {"modelId": "luna[high]", "name": "Luna (high)"},
            ],
        }}));
        assert_eq!(ids(&capabilities.models), ["sol", "luna"]);
        assert_eq!(capabilities.models[0].name, "Sol");
        assert_eq!(ids(&capabilities.reasoning_levels), ["low", "high"]);
        let ask = |kind, value| match settings.step(kind, value, "s") {
            Step::Ask { params, .. } => params["modelId"].as_str().unwrap().to_owned(),
            step => format!("{step:?}"),
        };
        assert_eq!(ask(Kind::Reasoning, "high"), "sol[high]");
        assert_eq!(ask(Kind::Reasoning, "low"), "Done");
        // Luna has no low: the first that it has is taken.
        assert_eq!(ask(Kind::Model, "luna"), "luna[high]");
        assert_eq!(ask(Kind::Mode, "plan"), "Impossible");
    }

    #[test]
    fn a_model_with_its_level_goes_past_the_option() {
        let (mut settings, _) = told(json!({
            "models": {"currentModelId": "sol[low]", "availableModels": [
                {"modelId": "sol[low]"}, {"modelId": "sol[high]"}]},
            "configOptions": [
                {"id": "model", "category": "model", "currentValue": "sol",
                    "options": [{"value": "sol"}, {"group": "old", "options": [{"value": "a"}]}]},
                {"id": "reasoning_effort", "category": "thought_level", "currentValue": "low"}],
        }));
        let method = |step| match step {
            Step::Ask { method, .. } => method,
            _ => "none",
        };
        assert_eq!(method(settings.step(Kind::Model, "a", "s")), "session/set_config_option");
        assert_eq!(method(settings.step(Kind::Model, "sol[high]", "s")), "session/set_model");
        assert_eq!(
            method(settings.step(Kind::Reasoning, "high", "s")),
            "session/set_config_option"
        );
        settings.set(Kind::Model, "sol[high]");
        assert_eq!(settings.in_force().model.as_deref(), Some("sol"));
        assert_eq!(settings.in_force().reasoning.as_deref(), Some("high"));
    }

    #[test]
    fn permission_modes_find_the_modes_of_every_agent() {
        let check = |modes: &[&str], expected: [Option<&str>; 4]| {
            let modes: Vec<Choice> =
                modes.iter().map(|id| Choice { id: (*id).into(), name: (*id).into() }).collect();
            let words = ["read_only", "full_auto", "danger_full_access", "default"];
            let found = words.map(|word| mode_for(word, &modes));
            assert_eq!(found.each_ref().map(Option::as_deref), expected);
            assert_eq!(mode_for("require_approval", &modes), None);
        };
        check(
            &["default", "acceptEdits", "plan", "auto"],
            [Some("plan"), Some("acceptEdits"), None, Some("default")],
        );
        check(
            &["read-only", "workspace-write", "agent", "agent-full-access"],
            [Some("read-only"), Some("workspace-write"), Some("agent-full-access"), None],
        );
        check(
            &["read-only", "auto", "full-access"],
            [Some("read-only"), Some("auto"), Some("full-access"), None],
        );
        check(
            &["default", "autoEdit", "yolo", "plan"],
            [Some("plan"), Some("autoEdit"), Some("yolo"), Some("default")],
        );
        check(&["build", "plan"], [Some("plan"), None, None, None]);
    }
}
