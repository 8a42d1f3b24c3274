//! What the program says of itself when it is asked to initialize: version, login, models.
//!
//! Owns: the reading of that one answer, for a session and for the probe alike, and the oldest version that the bridge
//! drives. Pure.

use serde_json::{Value, json};

/// The oldest version that is driven. All that the bridge needs was recorded from 2.1.316 and 2.1.330; the control
/// protocol of the whole 2.1 line is the same, older lines do not tell their models.
pub const MINIMUM_VERSION: &str = "2.1.0";

/// How a person logs in.
pub const LOGIN_HINT: &str =
    "run `claude` in a terminal and enter /login, or set ANTHROPIC_API_KEY";

/// How a person gets a newer program.
pub const UPDATE_HINT: &str = "run `claude update`, or install @anthropic-ai/claude-code anew";

/// A model on offer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    pub name: String,
    pub description: String,
    /// The full name behind an alias; empty when it is not told.
    pub resolved: String,
    pub levels: Vec<String>,
}

impl Model {
    /// All models of the answer.
    pub fn list(answer: &Value) -> Vec<Model> {
        let models = answer["models"].as_array().map(Vec::as_slice).unwrap_or_default();
        models.iter().filter_map(Model::read).collect()
    }

    fn read(told: &Value) -> Option<Model> {
        let text = |field: &str| told[field].as_str().unwrap_or_default().to_owned();
        let id = text("value");
        let levels = told["supportedEffortLevels"].as_array().map(Vec::as_slice);
        let levels = levels.unwrap_or_default().iter();
        let name = told["displayName"].as_str().unwrap_or(&id).to_owned();
        (!id.is_empty()).then(|| Model {
            name,
            description: text("description"),
            resolved: text("resolvedModel"),
            levels: levels.filter_map(|level| level.as_str().map(str::to_owned)).collect(),
            id,
        })
    }

    /// As the probe tells it.
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "name": self.name, "description": self.description,
            "reasoning_levels": self.levels, "is_default": self.id == "default",
        })
    }
}

/// How the program is logged in, as its answer tells; None when it is not. A vendor other than Anthropic has logins of
/// its own, which the answer does not show.
pub fn auth_method(answer: &Value) -> Option<String> {
    let account = &answer["account"];
    let told =
        |field: &str| account[field].as_str().filter(|text| !text.is_empty() && *text != "none");
    if let Some(source) = told("tokenSource").or_else(|| told("apiKeySource")) {
        return Some(source.to_owned());
    }
    if told("subscriptionType").is_some() || told("email").is_some() {
        return Some("claude.ai".to_owned());
    }
    told("apiProvider").filter(|provider| *provider != "firstParty").map(str::to_owned)
}

/// Whether the answer says clearly that nobody is logged in. An answer without an account says nothing.
pub fn is_logged_out(answer: &Value) -> bool {
    answer["account"].is_object() && auth_method(answer).is_none()
}

/// The version in the answer.
pub fn version(answer: &Value) -> Option<&str> {
    answer["claude_code_version"].as_str()
}

/// Whether the version is below [`MINIMUM_VERSION`]. What is no version is not too old.
pub fn is_too_old(version: &str) -> bool {
    let numbers = |text: &str| -> Option<Vec<u64>> {
        text.split('.').take(3).map(|part| part.parse().ok()).collect()
    };
    match (numbers(version), numbers(MINIMUM_VERSION)) {
        (Some(version), Some(minimum)) => version < minimum,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_is_read_from_what_was_recorded() {
        let check = |account: Value, expected: Option<&str>| {
            let answer = json!({"account": account});
            assert_eq!(auth_method(&answer).as_deref(), expected, "{answer}");
            assert_eq!(is_logged_out(&answer), expected.is_none(), "{answer}");
        };
        check(json!({"tokenSource": "none", "apiProvider": "firstParty"}), None);
        check(
            json!({"tokenSource": "none", "apiKeySource": "ANTHROPIC_API_KEY",
                "apiProvider": "firstParty"}),
            Some("ANTHROPIC_API_KEY"),
        );
        check(
            json!({"tokenSource": "CLAUDE_CODE_OAUTH_TOKEN", "apiProvider": "firstParty"}),
            Some("CLAUDE_CODE_OAUTH_TOKEN"),
        );
        check(
            json!({"subscriptionType": "Claude Max", "apiProvider": "firstParty"}),
            Some("claude.ai"),
        );
        check(json!({"tokenSource": "none", "apiProvider": "bedrock"}), Some("bedrock"));
        assert!(!is_logged_out(&json!({})), "an answer without an account says nothing");
    }

    #[test]
    fn versions_are_compared_by_number() {
        for old in ["2.0.99", "1.9.0", "0.2.1"] {
            assert!(is_too_old(old), "{old}");
        }
        for new in ["2.1.0", "2.1.330", "2.10.1", "3.0.0", "nightly", ""] {
            assert!(!is_too_old(new), "{new}");
        }
    }
}
