//! docs/CONFIGURATION.md, made of the types of the file: their fields, what is said of each, and the defaults.
//!
//! Owns: the page, and two rules that keep it true: it is what the types tell, and a default that it names changes
//! nothing when it is written into a file. Tests only.

use super::{Config, Problems, tests};
use crate::config::file::File;
use schemars::schema_for;
use serde_json::Value;
use std::fmt::Write as _;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
const EXAMPLE: &str = include_str!("../../docs/examples/runtime-server.toml");

const HEAD: &str = "# Configuration

Every key, by section. All are optional; [the example file](examples/runtime-server.toml) has them in an order to read, and is
the place to start from. Unknown keys, bad values and impossible combinations are errors that name the key, the line and the
nearest good key; `gg-runtime-server --check-config --config F` finds them without starting anything.

This page is made of `src/config/file.rs` by a test (`UPDATE=1 cargo test --lib config::page`), which also tries each default.
";

/// One key, as the page has it.
struct Key {
    /// `section.key`, with `<name>` and `[]` for what there may be many of.
    path: String,
    sort: String,
    /// None where the file's own vendor table says nothing of it: the same key of `providers.acp` does.
    told: Option<String>,
}

impl Key {
    /// The default, when it is a value that a file can hold.
    fn default(&self) -> Option<&str> {
        let (_, default) = self.told.as_deref()?.split_once("Default: `")?;
        default.split_once('`').map(|(value, _)| value)
    }
}

fn keys() -> Vec<Key> {
    let schema = serde_json::to_value(schema_for!(File)).unwrap();
    let mut keys = Vec::new();
    collect(&schema, &schema, "", &mut keys);
    keys
}

/// The schema that a field's own leads to, without what says that it may be missing.
fn resolved<'a>(root: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return &root["$defs"][name];
    }
    match schema["anyOf"].as_array() {
        Some(choices) => resolved(root, &choices[0]),
        None => schema,
    }
}

fn collect(root: &Value, schema: &Value, before: &str, keys: &mut Vec<Key>) {
    let fields = schema["properties"].as_object().expect("a table has keys");
    for (name, field) in fields {
        let (inner, path) = (resolved(root, field), format!("{before}{name}"));
        let (items, each) = (resolved(root, &inner["items"]), &inner["additionalProperties"]);
        if inner["properties"].is_object() {
            collect(root, inner, &format!("{path}."), keys);
        } else if items["properties"].is_object() {
            collect(root, items, &format!("{path}[]."), keys);
        } else if resolved(root, each)["properties"].is_object() {
            collect(root, resolved(root, each), &format!("{path}.<name>."), keys);
        } else {
            let told = field["description"].as_str().map(|text| text.replace('\n', " "));
            keys.push(Key { path, sort: sort(inner), told });
        }
    }
}

fn sort(schema: &Value) -> String {
    let first = schema["type"].as_array().map_or(&schema["type"], |types| &types[0]);
    let word = match first.as_str() {
        Some("string") => "text",
        Some("integer" | "number") => "number",
        Some("boolean") => "true or false",
        Some("array") => "list of texts",
        Some("object") => "table of texts",
        other => panic!("a sort of value that the page has no word for: {other:?}"),
    };
    word.to_owned()
}

fn page() -> String {
    let mut page = HEAD.to_owned();
    let mut section = String::new();
    for key in keys() {
        let parts: Vec<&str> = key.path.split('.').collect();
        let of = match parts[0] {
            "providers" if parts.len() > 2 => parts[..2].join("."),
            first => first.to_owned(),
        };
        if of != section {
            let head = "| Key | Takes | Meaning |\n|---|---|---|";
            write!(page, "\n## `[{of}]`\n\n{head}\n").unwrap();
            section = of;
        }
        let same = format!("As `providers.acp.{}`.", parts[parts.len() - 1]);
        let told = key.told.as_deref().unwrap_or(&same);
        writeln!(page, "| `{}` | {} | {told} |", key.path, key.sort).unwrap();
    }
    page
}

/// The file that sets one key, with what its table needs beside it; the other is without the key.
fn with_and_without(key: &str, value: &str) -> (String, String) {
    let (table, name) = key.rsplit_once('.').unwrap();
    let needed = match table {
        "providers.acp" if name != "command" => "command = \"agent\"\n",
        "providers.acp.agents.<name>" => "command = \"agent\"\n",
        _ => "",
    };
    let head = format!("[{}]\n{needed}", table.replace("<name>", "one"));
    (format!("{head}{name} = {value}\n"), head)
}

fn shown(text: &str) -> String {
    let config: Result<Config, Problems> = tests::checked(text, "");
    format!("{:?}", config.unwrap_or_else(|problems| panic!("{text}: {problems:?}")))
}

#[test]
fn the_page_is_what_the_types_tell() {
    let page = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PAGE, &page).unwrap();
    }
    let there = std::fs::read_to_string(PAGE).unwrap();
    let wrong = there.lines().zip(page.lines()).find(|(there, made)| there != made);
    assert!(there == page, "UPDATE=1 writes the page anew; the first line that differs: {wrong:?}");
}

#[test]
fn every_key_is_told() {
    let of_vendors = ["providers.codex.", "providers.claude.", "providers.demo."];
    for key in keys() {
        let is_told = key.told.is_some() || of_vendors.iter().any(|v| key.path.starts_with(v));
        assert!(is_told, "{}: a comment in file.rs says what it is", key.path);
    }
}

#[test]
fn a_default_that_the_page_names_changes_nothing() {
    let mut tried = 0;
    for key in keys() {
        if let Some(default) = key.default() {
            let (with, without) = with_and_without(&key.path, default);
            assert_eq!(shown(&with), shown(&without), "{} = {default}", key.path);
            tried += 1;
        }
    }
    assert!(tried > 50, "{tried} defaults were tried");
}

/// The example with every setting taken out of its comment is good, and has every key but those that do nothing and
/// those that are told once for all vendors.
#[test]
fn the_example_has_every_key() {
    let mut missing = Vec::new();
    for key in keys() {
        let name = key.path.rsplit('.').next().unwrap();
        let is_silent = key.told.as_deref().is_some_and(|told| told.starts_with("Accepted, and"));
        let is_there = EXAMPLE.lines().any(|line| {
            let line = line.trim_start_matches(['#', ' ']);
            line.starts_with(&format!("{name} = "))
                || line.contains(&format!(".{name}]"))
                || line.split([',', ':']).any(|word| word.trim() == name)
        });
        if !is_silent && !is_there {
            missing.push(key.path);
        }
    }
    assert!(missing.is_empty(), "docs/examples/runtime-server.toml has not {missing:?}");
    tests::checked(EXAMPLE, "").unwrap();
}
