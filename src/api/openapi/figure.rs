//! What `GET /v1/diagnostics` tells of the machine behind the API: the shapes, for the document. Only in tests; the
//! handler is in `meta`, and a test holds its answers to these.

use schemars::JsonSchema;
use serde::Serialize;

/// The newest frames, in memory.
#[derive(JsonSchema, Serialize)]
pub(super) struct TailFacts {
    frames: u64,
    frames_max: u64,
    bytes: u64,
    bytes_max: u64,
    head: i64,
    complete_after: i64,
    watched_scopes: u64,
}

/// The streams that are open, and how far each reader has come.
#[derive(JsonSchema, Serialize)]
pub(super) struct Streams {
    open: u64,
    max: u64,
    readers: Vec<ReaderFacts>,
}

#[derive(JsonSchema, Serialize)]
struct ReaderFacts {
    path: String,
    remote: String,
    since: i64,
    cursor: Option<i64>,
    /// Null for what has no cursor.
    head: Option<i64>,
    lag: Option<i64>,
}

/// Connections of clients, since the server started.
#[derive(JsonSchema, Serialize)]
pub(super) struct Connections {
    open: u64,
    max: u64,
    accepted: u64,
    refused: u64,
    accept_errors: u64,
    requests: u64,
    panics: u64,
}

/// A keeper that lives, with what it holds.
#[derive(JsonSchema, Serialize)]
pub(super) struct KeeperFacts {
    child_id: String,
    agent_of_session_id: Option<String>,
    keeper_pid: Option<u32>,
    processes: u64,
    memory_bytes: u64,
    journal_bytes: u64,
}

#[derive(JsonSchema, Serialize)]
pub(super) struct Database {
    bytes: u64,
    bytes_max: Option<u64>,
    wal_bytes: u64,
}
