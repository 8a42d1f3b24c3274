//! Black-box tests of the built server, over its socket and with the demo agent.
//!
//! One module per part of the contract; `stage` is what their stories begin with. Each test has a server, a data folder
//! and a home of its own, so they run side by side.

#![allow(clippy::unwrap_used, reason = "a test that meets what it does not await fails")]

mod approval;
mod bad_input;
mod bad_turn;
mod capacity;
mod host;
mod idempotency;
mod origin;
mod session;
mod stage;
mod stream;
mod stream_end;
mod turn;
mod turn_end;
mod turn_item;
