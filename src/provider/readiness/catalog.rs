//! The models that clients know by heart: what is told of a vendor whose program is not installed.
//!
//! A fixed list is always a little old. As soon as the program is there its own list is told, and this one never.

use super::report::Model;

/// Model, its name for people, and how many of the levels it has.
type Row = (&'static str, &'static str, usize);

const LEVELS: [&str; 6] = ["low", "medium", "high", "xhigh", "max", "ultra"];

const CODEX: &[Row] = &[
    ("gpt-5.6-sol", "GPT 5.6 Sol", 6),
    ("gpt-5.6-terra", "GPT 5.6 Terra", 6),
    ("gpt-5.6-luna", "GPT 5.6 Luna", 5),
    ("gpt-5.5", "GPT 5.5", 4),
    ("gpt-5.4", "GPT 5.4", 4),
    ("gpt-5.4-mini", "GPT 5.4 Mini", 4),
    ("gpt-5.3-codex-spark", "GPT 5.3 Codex Spark", 4),
];

const CLAUDE: &[Row] = &[
    ("claude-sonnet-5", "Claude Sonnet 5", 0),
    ("claude-opus-4-8", "Claude Opus 4.8", 0),
    ("claude-fable-5", "Claude Fable 5", 0),
    ("claude-haiku-4-5", "Claude Haiku 4.5", 0),
];

/// The fixed list of a provider; empty for one that has none.
pub fn fixed(provider: &str) -> Vec<Model> {
    let rows = match provider {
        "codex" => CODEX,
        "claude" => CLAUDE,
        _ => &[],
    };
    let model = |(id, display_name, levels): &Row| Model {
        id: (*id).to_owned(),
        display_name: (*display_name).to_owned(),
        description: None,
        reasoning_levels: LEVELS[..*levels].iter().map(|level| (*level).to_owned()).collect(),
        is_default: false,
    };
    rows.iter().map(model).collect()
}
