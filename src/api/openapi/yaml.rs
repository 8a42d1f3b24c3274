//! JSON values as YAML: block style, two spaces, texts in double quotes where they could be taken for something else.
//!
//! Deterministic: the same value is always the same text. Keys come in the order of [`FIRST`], then by the alphabet. It
//! knows what the document needs and no more of YAML: no anchors, no folded texts.

use serde_json::Value;
use std::fmt::Write;

/// Keys that a reader looks for first.
const FIRST: &[&str] = &[
    "openapi",
    "info",
    "title",
    "version",
    "name",
    "in",
    "operationId",
    "summary",
    "description",
    "servers",
    "tags",
    "paths",
    "security",
    "required",
    "parameters",
    "requestBody",
    "responses",
    "type",
    "headers",
    "content",
];

/// The document, with a line break at its end.
pub(super) fn text(value: &Value) -> String {
    let mut out = String::new();
    block(value, 0, &mut out);
    out
}

fn block(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_by_key(|key| {
                let place = FIRST.iter().position(|first| first == key);
                (place.unwrap_or(FIRST.len()), *key)
            });
            for key in keys {
                write!(out, "{:indent$}{}:", "", scalar_text(key)).expect("a String takes all");
                behind(&fields[key], indent, out);
            }
        }
        Value::Array(values) => {
            for value in values {
                write!(out, "{:indent$}-", "").expect("a String takes all");
                match value {
                    // The first key stands behind the dash.
                    Value::Object(fields) if !fields.is_empty() => {
                        let mut inner = String::new();
                        block(value, indent + 2, &mut inner);
                        out.push(' ');
                        out.push_str(inner.trim_start());
                    }
                    _ => behind(value, indent, out),
                }
            }
        }
        _ => unreachable!("a scalar stands behind its key"),
    }
}

/// What stands behind a key or a dash.
fn behind(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Array(values) if !values.is_empty() => {
            out.push('\n');
            block(value, indent + 2, out);
        }
        Value::Object(_) => out.push_str(" {}\n"),
        Value::Array(_) => out.push_str(" []\n"),
        Value::String(text) => {
            out.push(' ');
            out.push_str(&scalar_text(text));
            out.push('\n');
        }
        scalar => writeln!(out, " {scalar}").expect("a String takes all"),
    }
}

/// Plain where it can be nothing but a text, else as JSON writes it, which YAML reads alike.
fn scalar_text(text: &str) -> String {
    let is_word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
    let is_other = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
        .contains(&text.to_lowercase().as_str());
    if is_word && !is_other { text.to_owned() } else { Value::from(text).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_value_is_written_in_blocks_and_texts_stay_texts() {
        let value = json!({
            "b": [1, "no", {"type": "x", "a": null}, []], "name": "it: is", "200": {}, "c": true,
        });
        let wanted = [
            "name: \"it: is\"",
            "\"200\": {}",
            "b:",
            "  - 1",
            "  - \"no\"",
            "  - type: x",
            "    a: null",
            "  - []",
            "c: true",
            "",
        ];
        assert_eq!(text(&value), wanted.join("\n"));
    }
}
