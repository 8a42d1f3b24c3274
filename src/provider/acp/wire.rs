//! Lines in and lines out.
//!
//! Owns: the typed reading of the one kind of line that comes by the thousands (a piece of the
//! agent's text), and the writing of requests, notifications and answers. Everything that comes
//! seldom is read as a `serde_json::Value` by the modules that know it; what all dialects share is
//! in [`crate::provider::rpc`]. Deliberately without state.

pub(super) use crate::provider::rpc::{
    CANCELLED, INTERNAL, INVALID_PARAMS, KEPT_BYTES_MAX, METHOD_NOT_FOUND, agent_error, cut,
    cut_bytes, list, object, says_gone, short_id, text,
};

use crate::provider::rpc::write;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use std::borrow::Cow;

/// How far into a line the word `_chunk"` is looked for. Session id, message id and the envelope
/// come before it in no order that the protocol promises; all agents seen send them within 300
/// bytes.
const CHUNK_WORD_WITHIN: usize = 600;

/// A piece of text of the agent.
#[derive(Debug, PartialEq)]
pub(super) struct Chunk<'a> {
    pub(super) session: Cow<'a, str>,
    /// A thought, not speech.
    pub(super) thought: bool,
    pub(super) message_id: Option<&'a str>,
    pub(super) text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    id: Option<IgnoredAny>,
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, rename = "sessionId")]
    session: Cow<'a, str>,
    #[serde(borrow)]
    update: Update<'a>,
}

#[derive(Deserialize)]
struct Update<'a> {
    #[serde(borrow, rename = "sessionUpdate")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    content: Content<'a>,
    #[serde(borrow, rename = "messageId")]
    message_id: Option<&'a str>,
    #[serde(rename = "_meta")]
    meta: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Content<'a> {
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    text: Cow<'a, str>,
}

/// Reads a plain piece of text without building a tree. None for every other line, also for a piece
/// with anything uncommon about it; those are read as values.
pub(super) fn chunk(line: &[u8]) -> Option<Chunk<'_>> {
    let head = line.get(..CHUNK_WORD_WITHIN).unwrap_or(line);
    head.windows(7).find(|word| word == b"_chunk\"")?;
    let line: Line = serde_json::from_slice(line).ok()?;
    let update = line.params.update;
    let thought = match &*update.kind {
        "agent_message_chunk" => false,
        "agent_thought_chunk" => true,
        _ => return None,
    };
    let plain = line.method == "session/update"
        && line.id.is_none()
        && update.meta.is_none()
        && update.content.kind == "text";
    plain.then_some(Chunk {
        session: line.params.session,
        thought,
        message_id: update.message_id,
        text: update.content.text,
    })
}

pub(super) fn request(stdin: &mut Vec<u8>, id: u64, method: &str, params: Value) {
    write(stdin, &json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
}

pub(super) fn notify(stdin: &mut Vec<u8>, method: &str, params: Value) {
    write(stdin, &json!({"jsonrpc": "2.0", "method": method, "params": params}));
}

pub(super) fn answer(stdin: &mut Vec<u8>, id: &Value, result: Value) {
    write(stdin, &json!({"jsonrpc": "2.0", "id": id, "result": result}));
}

pub(super) fn refuse(stdin: &mut Vec<u8>, id: &Value, code: i64, message: &str) {
    let error = json!({"code": code, "message": message});
    write(stdin, &json!({"jsonrpc": "2.0", "id": id, "error": error}));
}
