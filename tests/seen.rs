//! Whether the tests of `tests/it` have seen the whole document: every operation answered as it should be, every code
//! of the closed list provoked.
//!
//! Cargo runs this program behind that one, in the order of their names. It reads what the last run of `it` has written
//! down, so a run of some tests alone makes it fail: `cargo test --test it` first. With `UPDATE=1` it keeps an example
//! of each answer for the document.

use gooselake::error::Code;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What stands in the document under `operationId:`.
fn operations() -> BTreeSet<String> {
    let document = gooselake::api::openapi::DOCUMENT;
    // In a path; links name operations, too, but deeper.
    let names = document.lines().filter_map(|line| line.strip_prefix("      operationId: "));
    names.map(str::to_owned).collect()
}

/// What the last run has written down. None: there was none.
fn seen() -> Option<Vec<Value>> {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seen.jsonl");
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect())
}

#[test]
fn every_operation_has_succeeded_and_every_code_was_told() {
    let seen = seen().expect("cargo test --test it writes down what it sees");
    let succeeded: BTreeSet<String> = seen
        .iter()
        .filter(|line| line["status"].as_u64().is_some_and(|status| status < 300))
        .map(|line| line["operation"].as_str().expect("a name").to_owned())
        .collect();
    let codes: BTreeSet<&str> = seen.iter().filter_map(|line| line["code"].as_str()).collect();
    let operations = operations();
    assert!(operations.len() > 80, "{operations:?}");
    let unused: Vec<&String> = operations.difference(&succeeded).collect();
    let untold: Vec<&str> =
        Code::ALL.iter().map(|code| code.as_str()).filter(|code| !codes.contains(code)).collect();
    assert!(
        unused.is_empty() && untold.is_empty(),
        "no test of the last run of `cargo test --test it` had a success of {unused:?}, none \
         provoked {untold:?}"
    );
}

/// Where the examples are kept that the document shows.
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/api/examples.json");

/// Writes the examples anew; what they must be is checked where the document is made, and by `tests/it`.
#[test]
fn examples_are_kept_when_that_is_wanted() {
    if std::env::var_os("UPDATE").is_none() {
        return;
    }
    let seen = seen().expect("cargo test --test it writes down what it sees");
    let mut best: BTreeMap<&str, Value> = BTreeMap::new();
    // Of each answer the last line has the best one.
    for line in seen.iter().filter(|line| line.get("example").is_some()) {
        best.insert(line["answer"].as_str().expect("a name"), anywhere(&line["example"]));
    }
    let text = serde_json::to_string_pretty(&best).expect("JSON values can be written");
    std::fs::write(EXAMPLES, format!("{text}\n")).expect("the examples can be written");
}

/// The value with folders of no machine in particular.
fn anywhere(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let folder = format!("{}/gooselake-test-", std::env::temp_dir().display());
            // As the name of a folder, a path has other slashes.
            let name = folder.trim_start_matches('/').replace('/', "__");
            let text = without(&without(text, &folder, "/srv"), &name, "srv");
            // The runtime's own home reads like one of a person, which must not be here.
            let home = ["/ho", "me/"].concat();
            text.replace(env!("CARGO_MANIFEST_DIR"), "/srv").replace(&home, "/").into()
        }
        Value::Array(values) => values.iter().map(anywhere).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, value)| (name.clone(), anywhere(value))).collect()
        }
        other => other.clone(),
    }
}

/// The text with another word for the names that begin so and go on with a number.
fn without(text: &str, start: &str, other: &str) -> String {
    let mut parts = text.split(start);
    let first = parts.next().unwrap_or_default().to_owned();
    let is_number = |letter: char| letter.is_ascii_digit() || letter == '-';
    parts.fold(first, |made, part| format!("{made}{other}{}", part.trim_start_matches(is_number)))
}
