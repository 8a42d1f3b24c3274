//! Lines in and lines out.
//!
//! Owns: the typed reading of the kinds of line that come by the thousands (pieces of text and output), and the
//! writing of requests, notifications and answers, which carry no `jsonrpc` member. Everything that comes seldom is
//! read as a `serde_json::Value` by the modules that know it. Deliberately without state.

use crate::provider::rpc::write;
use serde::Deserialize;
use serde_json::{Value, json};
use std::borrow::Cow;

/// How far into a line the method is looked for: Codex writes it first.
const METHOD_WITHIN: usize = 80;

/// A piece of an item's text or output.
#[derive(Debug, PartialEq)]
pub(super) struct Piece<'a> {
    pub(super) method: Cow<'a, str>,
    pub(super) thread: Cow<'a, str>,
    pub(super) item: Cow<'a, str>,
    pub(super) text: Cow<'a, str>,
}

#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Params<'a>,
}

#[derive(Deserialize)]
struct Params<'a> {
    #[serde(borrow, rename = "threadId")]
    thread: Cow<'a, str>,
    #[serde(borrow, rename = "itemId")]
    item: Cow<'a, str>,
    #[serde(borrow)]
    delta: Cow<'a, str>,
}

/// Reads a piece without building a tree. None for every other line.
pub(super) fn piece(line: &[u8]) -> Option<Piece<'_>> {
    let head = line.get(..METHOD_WITHIN).unwrap_or(line);
    head.windows(5).find(|word| word == b"elta\"")?;
    let line: Line = serde_json::from_slice(line).ok()?;
    let Params { thread, item, delta } = line.params;
    Some(Piece { method: line.method, thread, item, text: delta })
}

pub(super) fn request(stdin: &mut Vec<u8>, id: u64, method: &str, params: &Value) {
    write(stdin, &json!({"id": id, "method": method, "params": params}));
}

pub(super) fn notify(stdin: &mut Vec<u8>, method: &str) {
    write(stdin, &json!({"method": method}));
}

pub(super) fn answer(stdin: &mut Vec<u8>, id: &Value, result: &Value) {
    write(stdin, &json!({"id": id, "result": result}));
}

pub(super) fn refuse(stdin: &mut Vec<u8>, id: &Value, code: i64, message: &str) {
    write(stdin, &json!({"id": id, "error": {"code": code, "message": message}}));
}
