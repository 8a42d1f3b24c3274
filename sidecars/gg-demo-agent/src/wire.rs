//! JSON-RPC lines: what goes out on stdout, and the shapes of messages.
//!
//! Owns: the one handle of stdout. Any thread may write; a write is whole lines under one lock, so lines never mix. The
//! lock is held across the write on purpose: stdout is the only thing it guards, and a client that does not read must
//! hold back everybody who has something to say. Nothing is buffered between calls, so that each answer leaves at once;
//! a flood brings its own batches. This file deliberately knows no method of the protocol.

use crate::thread::lock;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::Mutex;

pub(crate) const PARSE_ERROR: i64 = -32700;
pub(crate) const INVALID_REQUEST: i64 = -32600;
pub(crate) const METHOD_NOT_FOUND: i64 = -32601;
pub(crate) const INVALID_PARAMS: i64 = -32602;
pub(crate) const INTERNAL_ERROR: i64 = -32603;
/// ACP's code for a session or file that is not there.
pub(crate) const NOT_FOUND: i64 = -32002;

/// A JSON-RPC error on its way to, or from, the other side.
#[derive(Debug)]
pub(crate) struct RpcError {
    pub(crate) code: i64,
    pub(crate) message: String,
    pub(crate) data: Value,
}

impl RpcError {
    pub(crate) fn new(code: i64, message: impl Into<String>) -> RpcError {
        RpcError { code, message: message.into(), data: Value::Null }
    }

    pub(crate) fn data(mut self, data: Value) -> RpcError {
        self.data = data;
        self
    }
}

/// The agent's stdout.
pub(crate) struct Output {
    // A duplicate of the descriptor, because the standard handle looks for the last newline of every write.
    pipe: Mutex<File>,
}

impl Output {
    /// Errors: the process has no stdout.
    pub(crate) fn stdout() -> io::Result<Output> {
        let descriptor = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Output { pipe: Mutex::new(File::from(descriptor)) })
    }

    /// Writes whole lines. Blocks as long as the client does not read.
    pub(crate) fn write(&self, lines: &[u8]) -> io::Result<()> {
        lock(&self.pipe).write_all(lines)
    }

    /// Writes one message as a line.
    pub(crate) fn send(&self, message: &Value) -> io::Result<()> {
        self.write(&line(message))
    }

    /// Writes the first half of the bytes, calls `pause`, and writes the rest, with nothing else in between.
    pub(crate) fn write_in_halves(&self, bytes: &[u8], pause: impl FnOnce()) -> io::Result<()> {
        let (first, second) = bytes.split_at(bytes.len() / 2);
        let mut pipe = lock(&self.pipe);
        pipe.write_all(first)?;
        pause();
        pipe.write_all(second)
    }
}

/// The message as bytes, with its newline.
pub(crate) fn line(message: &Value) -> Vec<u8> {
    let mut bytes = message.to_string().into_bytes();
    bytes.push(b'\n');
    bytes
}

pub(crate) fn request(id: i64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

pub(crate) fn notification(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "method": method, "params": params})
}

/// A `session/update` notification.
pub(crate) fn update(session_id: &str, update: &Value) -> Value {
    notification("session/update", json!({"sessionId": session_id, "update": update}))
}

/// The answer to a request of the other side.
pub(crate) fn answer(id: &Value, result: Result<Value, RpcError>) -> Value {
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

/// What the other side answered: its result, or its error.
pub(crate) fn outcome(mut answer: Value) -> Result<Value, RpcError> {
    if let Some(error) = answer.get_mut("error").map(Value::take) {
        let code = error["code"].as_i64().unwrap_or(INTERNAL_ERROR);
        let message = error["message"].as_str().unwrap_or("no message").to_owned();
        return Err(RpcError::new(code, message).data(error["data"].clone()));
    }
    Ok(answer.get_mut("result").map(Value::take).unwrap_or_default())
}
