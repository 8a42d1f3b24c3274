//! Reads the YAML that the server carries: blocks of two spaces, plain words, texts as JSON writes them.
//!
//! It was written against YAML, not against the writer in `src/api/openapi`, and knows the part of it that the document
//! uses.

use serde_json::{Map, Value};

/// The lines that are not read yet: how far each is indented, and what stands there.
struct Lines {
    lines: Vec<(usize, String)>,
    at: usize,
}

/// Panics: the text is not of that part of YAML.
pub(super) fn read(text: &str) -> Value {
    let split = |line: &str| {
        let rest = line.trim_start_matches(' ');
        (line.len() - rest.len(), rest.to_owned())
    };
    let lines = text.lines().filter(|line| !line.trim().is_empty()).map(split).collect();
    let mut lines = Lines { lines, at: 0 };
    let value = lines.block(0);
    assert_eq!(lines.at, lines.lines.len(), "line {} belongs to nothing", lines.at);
    value
}

impl Lines {
    fn is_at(&self, indent: usize, is_list: bool) -> bool {
        self.lines.get(self.at).is_some_and(|(found, text)| {
            *found == indent && (text == "-" || text.starts_with("- ")) == is_list
        })
    }

    fn block(&mut self, indent: usize) -> Value {
        if self.is_at(indent, true) { self.list(indent) } else { self.map(indent) }
    }

    fn list(&mut self, indent: usize) -> Value {
        let mut values = Vec::new();
        while self.is_at(indent, true) {
            let rest = self.lines[self.at].1[1..].trim_start().to_owned();
            if rest.is_empty() {
                self.at += 1;
                values.push(self.block(indent + 2));
            } else if key(&rest).is_some() {
                self.lines[self.at] = (indent + 2, rest);
                values.push(self.map(indent + 2));
            } else {
                self.at += 1;
                values.push(scalar(&rest));
            }
        }
        Value::Array(values)
    }

    fn map(&mut self, indent: usize) -> Value {
        let mut fields = Map::new();
        while self.is_at(indent, false) {
            let line = self.lines[self.at].1.clone();
            let (name, rest) = key(&line).unwrap_or_else(|| panic!("no key in {line:?}"));
            self.at += 1;
            let value = if rest.is_empty() { self.block(indent + 2) } else { scalar(rest) };
            assert!(fields.insert(name.clone(), value).is_none(), "{name} is there twice");
        }
        Value::Object(fields)
    }
}

/// The key that a line begins with, and what stands behind it.
fn key(line: &str) -> Option<(String, &str)> {
    let (name, rest) = if line.starts_with('"') {
        let mut texts = serde_json::Deserializer::from_str(line).into_iter::<String>();
        let name = texts.next()?.ok()?;
        (name, &line[texts.byte_offset()..])
    } else {
        let end = line.find(':')?;
        (line[..end].to_owned(), &line[end..])
    };
    let rest = rest.strip_prefix(':')?;
    (rest.is_empty() || rest.starts_with(' ')).then(|| (name, rest.trim_start()))
}

fn scalar(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::from(text))
}

#[test]
fn a_document_is_read_as_it_was_meant() {
    let text =
        "a: \"x: y\"\n\"200\":\n  - 1\n  - b: no_word\n    c:\n      - {}\n  - \"q\"\nd: []\n";
    let wanted = serde_json::json!({
        "a": "x: y", "200": [1, {"b": "no_word", "c": [{}]}, "q"], "d": [],
    });
    assert_eq!(read(text), wanted);
}
