//! `[teams]`: whether there are any, how often mail is tried again, and what members may be spawned with by one word.

use super::provider::NAMES;
use super::{Check, file};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Teams {
    pub is_enabled: bool,
    /// Members that do not lead may add and remove others through their tools.
    pub non_lead_can_add_members: bool,
    pub non_lead_can_remove_members: bool,
    /// After so many attempts that failed a delivery has failed.
    pub attempts_max: i64,
    /// After the first attempt that failed; twice as long after each further one.
    pub retry_pause: Duration,
    /// A team is purged so long after it was deleted. None = never.
    pub retention: Option<Duration>,
    pub model_presets: Vec<ModelPreset>,
}

/// A provider with a model and how hard it thinks, by one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPreset {
    /// Lower case letters and digits, in parts with an underline between them.
    pub name: String,
    pub provider: String,
    /// None = the agent's own choice.
    pub model: Option<String>,
    /// The reasoning level of the session.
    pub thinking_effort: Option<String>,
}

/// What there is without a word in the file: name, model, effort. Which provider has a model, its name tells.
const BUILT_IN: [(&str, &str, &str); 8] = [
    ("planner", "gpt-5.5", "high"),
    ("designer", "claude-opus-4-8", "high"),
    ("frontend", "gpt-5.5", "high"),
    ("fast", "gpt-5.4-mini", "low"),
    ("codex", "gpt-5.5", "high"),
    ("deep", "claude-opus-4-8", "high"),
    ("opus", "claude-opus-4-8", "high"),
    ("sonnet", "claude-sonnet-5", "high"),
];

impl Teams {
    /// The preset of that name, however it is written.
    pub fn preset(&self, name: &str) -> Option<&ModelPreset> {
        let name = normalised(name);
        self.model_presets.iter().find(|preset| preset.name == name)
    }

    pub fn preset_names(&self) -> Vec<&str> {
        self.model_presets.iter().map(|preset| preset.name.as_str()).collect()
    }
}

/// Lower case, and every run of other characters one underline.
fn normalised(name: &str) -> String {
    let lower = name.to_lowercase();
    let parts = lower.split(|letter: char| !letter.is_alphanumeric());
    parts.filter(|part| !part.is_empty()).collect::<Vec<_>>().join("_")
}

fn provider_of(model: &str) -> &'static str {
    if model.starts_with("claude-") { "claude" } else { "codex" }
}

/// A text with something in it.
fn filled(text: Option<&String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl Check<'_> {
    pub(super) fn teams(&mut self) -> Teams {
        let teams = &self.file.teams;
        let model_presets = match &teams.model_presets {
            Some(written) => self.model_presets(written),
            None => BUILT_IN.map(ModelPreset::built_in).to_vec(),
        };
        let attempts_max = self.within("teams.max_attempts", teams.max_attempts, 1..=1_000_000, 5);
        let retry_pause_ms =
            self.within("teams.retry_pause_ms", teams.retry_pause_ms, 1..=3_600_000, 1000);
        let retention = self.days("teams.retention_days", teams.retention_days);
        Teams {
            is_enabled: teams.enabled.unwrap_or(true),
            non_lead_can_add_members: teams.non_lead_can_add_members.unwrap_or(false),
            non_lead_can_remove_members: teams.non_lead_can_remove_members.unwrap_or(false),
            attempts_max: i64::try_from(attempts_max).unwrap_or(i64::MAX),
            retry_pause: Duration::from_millis(retry_pause_ms),
            retention,
            model_presets,
        }
    }

    fn model_presets(&mut self, written: &[file::ModelPreset]) -> Vec<ModelPreset> {
        let mut presets: Vec<ModelPreset> = Vec::new();
        for (place, preset) in written.iter().enumerate() {
            let key = format!("teams.model_presets[{place}]");
            let (name, model) = (normalised(&preset.name), filled(preset.model.as_ref()));
            if name.is_empty() {
                self.problem(format!("{key}.name is {:?}; give it a word", preset.name));
            }
            if presets.iter().any(|other| other.name == name) {
                self.problem(format!("{key}.name is {name:?}, as that of one before it"));
            }
            let given = filled(preset.provider.as_ref());
            let provider = match (&given, &model) {
                (Some(provider), _) if NAMES.contains(&provider.as_str()) => provider.as_str(),
                (Some(provider), _) => {
                    let names = NAMES.join(", ");
                    self.problem(format!("{key}.provider is {provider:?}; it can be {names}"));
                    continue;
                }
                (None, Some(model)) => provider_of(model),
                (None, None) => {
                    self.problem(format!("{key} has no model; name one, or a provider"));
                    continue;
                }
            };
            let provider = provider.to_owned();
            let thinking_effort = filled(preset.thinking_effort.as_ref());
            presets.push(ModelPreset { name, provider, model, thinking_effort });
        }
        presets
    }
}

impl ModelPreset {
    fn built_in((name, model, effort): (&str, &str, &str)) -> ModelPreset {
        ModelPreset {
            name: name.to_owned(),
            provider: provider_of(model).to_owned(),
            model: Some(model.to_owned()),
            thinking_effort: Some(effort.to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_found_however_it_is_written() {
        assert_eq!(normalised("  Deep -- Thinker! "), "deep_thinker");
        assert_eq!(normalised("--"), "");
        let presets = BUILT_IN.map(ModelPreset::built_in);
        let of = |name: &str| presets.iter().find(|preset| preset.name == name).unwrap();
        assert_eq!(of("sonnet").provider, "claude");
        assert_eq!(of("fast").provider, "codex");
    }
}
