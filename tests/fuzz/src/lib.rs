//! What must hold for any bytes.
//!
//! Owns: one check for each place where bytes of others come in, as a function that panics when its rules do not hold,
//! and the seeds of each. Two kinds of programs call them: the ordinary tests of this package, with seeds that a small
//! generator mutates, and libFuzzer, whose targets in `fuzz/` are a line each. Checks use what other packages may use
//! as well; nothing in a shipped program knows that there is this one. No thread is started but those of what is
//! checked.

#![allow(clippy::unwrap_used, reason = "the whole package is a test")]

mod adapter;
mod api;
mod bridge;
mod config;
mod form;
mod http;
mod journal;
mod keeper;
mod mcp;
pub mod mutation;
mod seed;

/// A place where bytes of others come in.
pub struct Target {
    /// Of the libFuzzer program, its corpus, and its folder of kept findings.
    pub name: &'static str,
    /// Panics: a rule does not hold for these bytes.
    pub check: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Mutated inputs that the ordinary tests try; those that touch sockets or disks get few.
    pub rounds: u64,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "acp", check: adapter::acp, seeds: seed::acp, rounds: 600 },
    Target { name: "acp_strict", check: adapter::acp_strict, seeds: seed::bridge_acp, rounds: 600 },
    Target { name: "codex", check: adapter::codex, seeds: seed::codex, rounds: 600 },
    Target { name: "claude_bridge", check: bridge::check, seeds: seed::claude, rounds: 600 },
    Target { name: "http_head", check: http::head, seeds: seed::heads, rounds: 20_000 },
    Target { name: "http", check: http::connection, seeds: seed::requests, rounds: 300 },
    Target { name: "api", check: api::check, seeds: seed::calls, rounds: 3_000 },
    Target { name: "form", check: form::check, seeds: seed::forms, rounds: 20_000 },
    Target { name: "config", check: config::check, seeds: seed::configs, rounds: 200 },
    Target { name: "mcp", check: mcp::check, seeds: seed::mcp, rounds: 20_000 },
    Target { name: "keeper_frame", check: keeper::frame, seeds: seed::frames, rounds: 20_000 },
    Target { name: "keeper_reply", check: keeper::reply, seeds: seed::replies, rounds: 40 },
    Target { name: "journal", check: journal::check, seeds: seed::journals, rounds: 600 },
];

/// The target of this name.
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
