//! Black-box tests of the built programs, over their sockets and with the demo agent; and the rules of this repository.
//!
//! One module per part of the contract; `stage` is what their stories begin with, `kill` is about programs that die,
//! `tidy` about the tree. Each test has a server, a data folder and a home of its own, so they run side by side.

#![allow(clippy::unwrap_used, reason = "a test that meets what it does not await fails")]

mod agent_turn;
mod approval;
mod backup;
mod bad_input;
mod bad_turn;
mod bound;
mod capacity;
mod claude;
mod cli;
mod codex;
mod command;
mod conformance;
mod contract;
mod crew;
mod deadly;
mod delivery;
mod doctor;
mod fault;
mod host;
mod hostile;
mod hostile_agent;
mod idempotency;
mod kill;
mod lab;
mod liar;
mod login;
mod mail;
mod mcp;
mod metrics;
mod origin;
mod page;
mod power;
mod process;
mod quotation;
mod readiness;
mod refusal;
mod request_id;
mod retention;
mod session;
mod shutdown;
mod spawn;
mod stage;
mod start;
mod stream;
mod stream_end;
mod team;
mod tidy;
mod turn;
mod turn_end;
mod turn_item;
mod worktree;
