//! What of the document the tests of this run have seen: which operation was answered with which status and code, and
//! of each successful answer the best example.
//!
//! It is written to a file while the tests run, since no test of this program can know that it is the last one. The
//! program `tests/seen`, which cargo runs behind this one, reads it.

use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, OnceLock, PoisonError};

struct Seen {
    file: File,
    answers: HashSet<(String, u16, String)>,
    /// How long the best example of an answer in a media type is.
    examples: HashMap<String, usize>,
}

fn seen() -> &'static Mutex<Seen> {
    static SEEN: OnceLock<Mutex<Seen>> = OnceLock::new();
    SEEN.get_or_init(|| {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join("seen.jsonl");
        let file = File::create(path).expect("cargo has made the folder");
        Mutex::new(Seen { file, answers: HashSet::new(), examples: HashMap::new() })
    })
}

impl Seen {
    fn write(&mut self, line: &Value) {
        writeln!(self.file, "{line}").expect("the file can be written");
    }
}

/// An operation, by its name in the document (empty: none), was answered so, in this media type.
pub(super) fn note(operation: &str, status: u16, media_type: &str, body: &[u8]) {
    let body = value(media_type, body);
    let code = body["code"].as_str().filter(|_| status >= 400).unwrap_or_default();
    let mut seen = seen().lock().unwrap_or_else(PoisonError::into_inner);
    if seen.answers.insert((operation.to_owned(), status, code.to_owned())) {
        seen.write(&json!({"operation": operation, "status": status, "code": code}));
    }
    if status < 300 && !operation.is_empty() && !is_empty(&body) {
        example(&mut seen, &format!("{operation} {status} {media_type}"), &body);
    }
}

/// What the document would show: JSON, the first line of many, or the beginning of a text.
fn value(media_type: &str, body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body);
    match media_type {
        "application/json" => serde_json::from_str(&text).unwrap_or_default(),
        "application/x-ndjson" => {
            serde_json::from_str(text.lines().next().unwrap_or_default()).unwrap_or_default()
        }
        "text/plain" => text.lines().take(6).collect::<Vec<_>>().join("\n").into(),
        _ => Value::Null,
    }
}

/// The shortest answer that is not empty is kept: it says the most in the fewest lines.
fn example(seen: &mut Seen, answer: &str, body: &Value) {
    let bytes = body.to_string().len();
    let best = seen.examples.entry(answer.to_owned()).or_insert(usize::MAX);
    if bytes < *best {
        *best = bytes;
        seen.write(&json!({"answer": answer, "example": body}));
    }
}

fn is_empty(body: &Value) -> bool {
    match body {
        Value::Array(values) => values.is_empty(),
        // A page in an object, as messages have it.
        Value::Object(fields) => {
            fields.contains_key("next_cursor")
                && fields["messages"].as_array().is_some_and(Vec::is_empty)
        }
        Value::String(text) => text.trim().is_empty(),
        _ => true,
    }
}
