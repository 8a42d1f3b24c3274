//! The sidecar as an agent sees it: lines on stdio, in front of a gateway that these tests play.
//!
//! `stand_in` is the gateway and `client` the agent; what the real gateway does is tested with the server.

#![allow(clippy::unwrap_used, reason = "a test that meets what it does not await fails")]

mod call;
mod client;
mod stand_in;
mod trouble;
