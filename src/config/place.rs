//! From the text of a file to its values, with the line of each problem and of each key.
//!
//! All problems are told at once: what can not be read is taken out of the parsed text, and the rest is read again,
//! until nothing is left to complain about.

use super::file::File;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, Error};

/// Problems of syntax and shape that are told at once; a file with more is not a configuration.
const PROBLEMS_MAX: usize = 50;

/// What a text says, as far as it can be read.
pub(super) struct Reading {
    pub file: File,
    /// Of syntax and shape, each with its line and the nearest good key.
    pub problems: Vec<String>,
    /// The line of each key, by its whole path.
    pub lines: BTreeMap<String, usize>,
}

/// Reads a file as far as it can be read.
pub(super) fn read(text: &str) -> Reading {
    let (mut table, errors) = DeTable::parse_recoverable(text);
    let mut problems: Vec<String> =
        errors.iter().take(PROBLEMS_MAX).map(|error| told(text, error)).collect();
    let mut lines = BTreeMap::new();
    name_lines(text, table.get_ref(), "", &mut lines);
    // A text that is no TOML has no keys to complain about.
    while problems.len() < PROBLEMS_MAX && errors.is_empty() {
        match File::deserialize(toml::de::Deserializer::from(table.clone())) {
            Ok(file) => return Reading { file, problems, lines },
            Err(error) => {
                problems.push(told(text, &error));
                let span = error.span();
                if !span.is_some_and(|span| take_out(table.get_mut(), &span)) {
                    break;
                }
            }
        }
    }
    Reading { file: File::default(), problems, lines }
}

/// One sentence with the line, and the nearest key for a misspelt one.
fn told(text: &str, error: &Error) -> String {
    let place =
        error.span().map_or(String::new(), |span| format!("line {}: ", line(text, span.start)));
    let message = error.message().trim().replace('\n', " ");
    let near = nearest_key(&message).map_or(String::new(), |key| format!("; did you mean {key}?"));
    format!("{place}{message}{near}")
}

fn line(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

fn name_lines(text: &str, table: &DeTable<'_>, prefix: &str, lines: &mut BTreeMap<String, usize>) {
    for (key, value) in table {
        let path = format!("{prefix}{}", key.get_ref());
        if let DeValue::Table(inner) = value.get_ref() {
            name_lines(text, inner, &format!("{path}."), lines);
        }
        lines.insert(path, line(text, key.span().start));
    }
}

/// Takes the smallest entry out whose key or value the span lies in; false when there is none.
fn take_out(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    let holds = |outer: Range<usize>| outer.start <= span.start && span.end <= outer.end;
    let mut found = None;
    for (key, value) in table.iter_mut() {
        if holds(key.span()) {
            found = Some(key.clone());
            break;
        }
        // A table that is written in pieces has the span of its first one, so its entries are asked whatever it is.
        if let DeValue::Table(inner) = value.get_mut()
            && take_out(inner, span)
        {
            return true;
        }
        if holds(Spanned::span(value)) {
            found = Some(key.clone());
        }
    }
    found.is_some_and(|key| table.remove(&key).is_some())
}

/// Of "unknown field `a`, expected one of `b`, `c`": the expected one that is nearest, if it is near at all.
fn nearest_key(message: &str) -> Option<String> {
    let mut words = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let wrong = words.next()?;
    words
        .map(|word| (distance(wrong, word), word))
        .min()
        .filter(|(distance, word)| *distance <= word.len().div_ceil(2))
        .map(|(_, word)| word.to_owned())
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_problem_of_shape_is_told_with_its_line() {
        let reading = read(
            "[server]\nbind_adress = \"a\"\nmax_streams = \"many\"\n[evnts]\nheartbeat_secs = 3\n\
             [keeper]\ngrace_ms = 7\nlease = 1\n[data]\nroot_dir = 4\n",
        );
        let told = reading.problems.join("\n");
        for part in ["line 2: ", "bind_address?", "line 3: ", "line 4: ", "line 8: ", "line 10: "] {
            assert!(told.contains(part), "{part:?} in\n{told}");
        }
        assert_eq!(reading.problems.len(), 5, "{told}");
        assert_eq!(reading.file.keeper.grace_ms, Some(7));
    }

    #[test]
    fn a_text_that_is_no_toml_is_told_by_its_line() {
        let reading = read("[server]\n= 3\n");
        assert!(reading.problems[0].starts_with("line 2: "), "{:?}", reading.problems);
    }

    #[test]
    fn keys_have_lines() {
        let reading =
            read("[providers.acp]\n\nenabled = true\n[providers.demo]\nenabled = false\n");
        assert_eq!(reading.lines["providers.acp.enabled"], 3);
        assert_eq!(reading.lines["providers.demo.enabled"], 5);
        assert!(reading.problems.is_empty());
    }
}
