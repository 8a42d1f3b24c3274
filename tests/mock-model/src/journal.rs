//! The journal: what was asked, so that a test can see what an agent sent.
//!
//! Owns: one record per request. Any thread may add. Promises: no system prompt, no key and no text
//! of the user's is kept, only directive lines and lengths. At [`RECORDS_MAX`] new records are
//! dropped, so that the place of the earlier ones, which a test remembers, stays true.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use serde_json::{Value, json};

use crate::conversation::Entry;
use crate::dialect::Question;
use crate::directive::directives;
use crate::http::Request;

/// How many records are kept.
pub const RECORDS_MAX: usize = 20_000;
/// How many roles and texts of a conversation a record has; the last ones.
const ROLES_MAX: usize = 60;
const TEXTS_MAX: usize = 30;
/// How much of the directive lines of one text a record has, in characters.
const TEXT_CHARS_MAX: usize = 200;
/// What a key of a test contains; only whether it is one is told.
const DUMMY_KEY: &str = "dummy-key";
const KEY_HEADERS: [&str; 3] = ["x-api-key", "authorization", "x-goog-api-key"];

/// The records so far.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    records: Mutex<Vec<Value>>,
}

impl Default for Journal {
    /// An empty journal; its clock starts now.
    fn default() -> Journal {
        Journal { start: Instant::now(), records: Mutex::new(Vec::new()) }
    }
}

impl Journal {
    /// All records, oldest first.
    pub fn records(&self) -> Vec<Value> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a record of a request: which API it was for, what it was answered with, and what it
    /// told, where it told anything.
    pub fn add(&self, request: &Request, api: &str, status: u16, told: Value) {
        let key = |name: &&str| {
            let value = request.header(name)?;
            let kind = if value.contains(DUMMY_KEY) { "dummy" } else { "other" };
            Some(format!("{name}:{kind}"))
        };
        let auth: Vec<String> = KEY_HEADERS.iter().filter_map(key).collect();
        let mut record = json!({
            "t": u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX),
            "method": request.method, "path": request.path, "auth": auth, "api": api,
            "status": status,
        });
        if let (Some(record), Value::Object(told)) = (record.as_object_mut(), told) {
            record.extend(told);
        }
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        if records.len() < RECORDS_MAX {
            records.push(record);
        }
    }
}

/// What a record tells of a question.
pub fn told(question: &Question, plan: &str) -> Value {
    let conversation = &question.conversation;
    let entries = &conversation.entries;
    let roles: Vec<&str> = entries.iter().map(Entry::role).collect();
    let texts: Vec<String> = entries
        .iter()
        .filter_map(|entry| match entry {
            Entry::User(text) => Some(summary(text)),
            _ => None,
        })
        .collect();
    let offered = conversation.tools.iter().chain(&conversation.script_tool);
    let tools: Vec<String> = offered.map(|tool| tool.full_name()).collect();
    json!({
        "model": question.model, "stream": question.stream, "plan": plan, "tools": tools,
        "n_messages": entries.len(), "roles": last(&roles, ROLES_MAX),
        "user_texts": last(&texts, TEXTS_MAX), "sys_chars": conversation.system_bytes,
        "body_bytes": question.body_bytes,
    })
}

/// The directive lines of a text, or its length.
fn summary(text: &str) -> String {
    let lines: Vec<String> = directives(text).into_iter().map(|d| d.line).collect();
    match lines.is_empty() {
        true => format!("({} chars)", text.chars().count()),
        false => lines.join("; ").chars().take(TEXT_CHARS_MAX).collect(),
    }
}

fn last<T>(list: &[T], most: usize) -> &[T] {
    &list[list.len().saturating_sub(most)..]
}
