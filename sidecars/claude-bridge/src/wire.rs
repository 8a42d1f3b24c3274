//! The shapes of lines, on both sides.
//!
//! Owns: JSON-RPC as ACP uses it, the control messages and the command line of `claude`, and the codes of errors.
//! Pure, without state; knows no method.

use serde_json::{Value, json};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

pub const PARSE_ERROR: i64 = -32700;
pub const INVALID_REQUEST: i64 = -32600;
pub const METHOD_NOT_FOUND: i64 = -32601;
pub const INVALID_PARAMS: i64 = -32602;
pub const INTERNAL_ERROR: i64 = -32603;
/// ACP: a login is needed.
pub const AUTH_REQUIRED: i64 = -32000;
/// ACP: there is no such session.
pub const NOT_FOUND: i64 = -32002;

/// What is shown of another program's words.
const WORDS_BYTES_MAX: usize = 2000;

/// A JSON-RPC error on its way to the client.
#[derive(Clone, Debug, PartialEq)]
pub struct RpcError {
    pub code: i64,
    pub message: String,
    /// Null when there is nothing to add.
    pub data: Value,
}

impl RpcError {
    pub fn new(code: i64, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), data: Value::Null }
    }

    pub fn with(mut self, data: Value) -> RpcError {
        self.data = data;
        self
    }
}

/// The command line that makes `claude` speak lines, and `more`.
pub fn arguments(more: &[&str]) -> Vec<String> {
    let base = [
        "-p",
        "--input-format",
        "stream-json",
        "--output-format",
        "stream-json",
        "--verbose",
        "--include-partial-messages",
        "--permission-prompt-tool",
        "stdio",
    ];
    base.iter().chain(more).map(|word| (*word).to_owned()).collect()
}

/// A message as bytes, with its newline.
pub fn line(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

/// A control request for `claude`.
pub fn control(id: &str, request: Value) -> Value {
    json!({"type": "control_request", "request_id": id, "request": request})
}

/// The answer to a control request of `claude`.
pub fn control_answer(id: &str, response: Value) -> Value {
    let response = json!({"subtype": "success", "request_id": id, "response": response});
    json!({"type": "control_response", "response": response})
}

/// The refusal of a control request of `claude`.
pub fn control_refusal(id: &str, why: &str) -> Value {
    let response = json!({"subtype": "error", "request_id": id, "error": why});
    json!({"type": "control_response", "response": response})
}

pub fn request(id: i64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// The answer to a request of the client.
pub fn answer(id: &Value, result: Result<Value, RpcError>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => {
            let mut body = json!({"code": error.code, "message": error.message});
            if !error.data.is_null() {
                body["data"] = error.data;
            }
            json!({"jsonrpc": "2.0", "id": id, "error": body})
        }
    }
}

/// How a process ended, as the end of a sentence; empty when there is nothing to tell.
pub fn ending(status: Option<ExitStatus>, stderr: &str) -> String {
    let how = match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!(" (exit code {code})"),
        Some((None, Some(signal))) => format!(" (signal {signal})"),
        _ => String::new(),
    };
    let words = cut(stderr, WORDS_BYTES_MAX);
    if words.is_empty() { how } else { format!("{how}: {words}") }
}

/// The text, cut to `max` bytes at a character, with a mark that it was cut.
pub fn cut(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(max)])
}

/// The string in this field, or the empty one.
pub fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// The list in this field; an empty one when there is none.
pub fn list<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    value[field].as_array().map(Vec::as_slice).unwrap_or_default()
}
