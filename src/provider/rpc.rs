//! JSON-RPC over lines: what the dialects share.
//!
//! Owns: the writing of a line, small readers of JSON objects, the bound on texts that are only kept,
//! and the meaning of a JSON-RPC error. Pure functions; deliberately knows no method of any dialect.

use crate::provider::AgentError;
use crate::provider::sent::hash;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// JSON-RPC: the agent asked for a method that we do not have.
pub(super) const METHOD_NOT_FOUND: i64 = -32601;
/// JSON-RPC: the parameters are not those of the method.
pub(super) const INVALID_PARAMS: i64 = -32602;
/// JSON-RPC: the request is none.
pub(super) const INVALID_REQUEST: i64 = -32600;
/// JSON-RPC: we could not.
pub(super) const INTERNAL: i64 = -32603;
/// The request was taken back.
pub(super) const CANCELLED: i64 = -32800;
/// ACP: a login is needed.
const AUTH_REQUIRED: i64 = -32000;
/// ACP: there is no such thing.
const NOT_FOUND: i64 = -32002;

/// A JSON-RPC id is a number or a short text. It is kept in the snapshot, so its size has a bound.
const ID_BYTES_MAX: usize = 1024;

/// What is kept of a text that we tell about, but do not understand or that only informs.
pub(super) const KEPT_BYTES_MAX: usize = 8 * 1024;

/// Whether this can be the id of a request.
fn is_id(id: &Value) -> bool {
    id.as_str().map_or(0, str::len) <= ID_BYTES_MAX && !id.is_object() && !id.is_array()
}

/// What kind of message an agent has sent.
pub(super) enum Kind<'a> {
    Request {
        method: &'a str,
        id: &'a Value,
    },
    Notification {
        method: &'a str,
    },
    Response {
        id: &'a Value,
    },
    /// Answered with [`INVALID_REQUEST`] and the reason.
    BadRequest {
        id: &'a Value,
        why: &'static str,
    },
    /// Nothing that can be answered.
    Unknown,
}

/// Tells the kinds apart by what every message has.
pub(super) fn kind(message: &Map<String, Value>) -> Kind<'_> {
    match (message.get("method").map(Value::as_str), message.get("id")) {
        (Some(Some(_)), Some(id)) if !is_id(id) => {
            Kind::BadRequest { id, why: "an id is a number or a short text" }
        }
        (Some(Some(method)), Some(id)) => Kind::Request { method, id },
        (Some(Some(method)), None) => Kind::Notification { method },
        (Some(None), Some(id)) => Kind::BadRequest { id, why: "the method is no text" },
        (None, Some(id)) => Kind::Response { id },
        (Some(None) | None, None) => Kind::Unknown,
    }
}

/// What a response says: its result (`nothing` where that is no object), or its error.
pub(super) fn answer<'a>(
    message: &'a Map<String, Value>,
    nothing: &'a Map<String, Value>,
) -> Result<&'a Map<String, Value>, &'a Value> {
    match message.get("error").filter(|error| !error.is_null()) {
        Some(error) => Err(error),
        None => Ok(object(message, "result").unwrap_or(nothing)),
    }
}

/// Writes one line.
pub(super) fn write(stdin: &mut Vec<u8>, line: &Value) {
    serde_json::to_writer(&mut *stdin, line).expect("a vector takes every byte");
    stdin.push(b'\n');
}

/// The string in this field, or the empty one.
pub(super) fn text<'a>(object: &'a Map<String, Value>, field: &str) -> &'a str {
    object.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The object in this field.
pub(super) fn object<'a>(
    object: &'a Map<String, Value>,
    field: &str,
) -> Option<&'a Map<String, Value>> {
    object.get(field).and_then(Value::as_object)
}

/// The list in this field; an empty one when there is none.
pub(super) fn list<'a>(object: &'a Map<String, Value>, field: &str) -> &'a [Value] {
    object.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The text, cut to `max` bytes at a character, with a mark that it was cut.
pub(super) fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

/// A name that an agent gives to something of its own, fit to be kept: one beyond `max` bytes as its hash. Two names
/// stay two.
pub(super) fn short_id(id: &str, max: usize) -> Cow<'_, str> {
    if id.len() <= max { Cow::Borrowed(id) } else { Cow::Owned(format!("#{:016x}", hash(id))) }
}

/// The same for a name that a snapshot of an older server has as it came.
pub(super) fn shorten(id: &mut String, max: usize) {
    *id = short_id(id, max).into_owned();
}

/// The line as text, for [`crate::provider::AgentEvent::Unparsed`]; only the part that is kept is
/// converted.
pub(super) fn cut_bytes(line: &[u8]) -> String {
    let head = line.get(..KEPT_BYTES_MAX + 4).unwrap_or(line);
    cut(&String::from_utf8_lossy(head), KEPT_BYTES_MAX)
}

/// A JSON-RPC error as a sentence: the message, and what the data adds to it.
pub(super) fn error_message(error: &Value) -> String {
    let raw = error.get("message").and_then(Value::as_str).unwrap_or("the agent gave no reason");
    // Some agents put a whole JSON error of their model's API into the message.
    let inner = serde_json::from_str::<Value>(raw).ok();
    let inner = inner.as_ref().and_then(|value| {
        value.pointer("/error/message").or_else(|| value.get("message")).and_then(Value::as_str)
    });
    let message = inner.unwrap_or(raw);
    let data = error.get("data").unwrap_or(&Value::Null);
    let more = ["message", "details", "error"]
        .iter()
        .find_map(|field| data.get(field).and_then(Value::as_str))
        .or_else(|| data.as_str())
        .unwrap_or_default();
    if more.is_empty() || message.contains(more) {
        cut(message, KEPT_BYTES_MAX)
    } else {
        cut(&format!("{message}: {more}"), KEPT_BYTES_MAX)
    }
}

/// Kinds of a model's failure that a client may want to tell from others.
const KINDS: &[&str] = &["rate_limited", "context_window_exceeded", "model_not_found"];

/// An error in our words. `otherwise` is the code for one that is not about a login.
pub(super) fn agent_error(error: &Value, otherwise: &str) -> AgentError {
    let number = error.get("code").and_then(Value::as_i64).unwrap_or_default();
    // Our bridge names the kind in a word of ours.
    let told = error.pointer("/data/code").and_then(Value::as_str);
    let kind = KINDS.iter().find(|kind| Some(**kind) == told);
    let code = if number == AUTH_REQUIRED || number == 401 {
        "authentication_required"
    } else {
        kind.copied().unwrap_or(otherwise)
    };
    let mut data = json!({"code": error.get("code")});
    if let Some(more) = error.get("data").filter(|more| more.to_string().len() <= KEPT_BYTES_MAX) {
        data["data"] = more.clone();
    }
    AgentError { message: error_message(error), code: code.to_owned(), data }
}

/// Whether an answer to `session/load` or `session/resume` says that the session is not known.
/// There is no one code for it: -32002 is the protocol's; the rest is what the agents were seen to
/// say. An agent that only says that something failed (opencode) is not taken at its word.
pub(super) fn says_gone(error: &Value) -> bool {
    if error.get("code").and_then(Value::as_i64) == Some(NOT_FOUND) {
        return true;
    }
    let message = error_message(error).to_lowercase();
    let subject = ["session", "conversation", "thread", "rollout"];
    let gone = ["not found", "no previous", "unknown", "does not exist", "no conversation"];
    gone.iter().any(|words| message.contains(words))
        && subject.iter().any(|word| message.contains(word))
        || ["valid session id", "no rollout"].iter().any(|words| message.contains(words))
}
