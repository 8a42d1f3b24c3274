//! The cores of `src/ledger`: the answer of the writer, the cache of sessions, the tail.

#![allow(dead_code, reason = "the models need a part of what the server needs")]

#[path = "../../../src/ledger/answer.rs"]
mod answer;
#[path = "../../../src/ledger/cache.rs"]
mod cache;
pub(crate) mod model;
#[path = "../../../src/ledger/tail.rs"]
pub mod tail;

/// The part of the server's module that the tail uses.
mod event {
    pub struct Frame {
        pub row_id: i64,
        pub scope_key: i64,
        pub droppable: bool,
        pub json: String,
    }
}
