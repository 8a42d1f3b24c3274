//! The built agent, driven over its pipes as a client drives it.
//!
//! One file per matter: `conversation` (handshake, prompts, history on disk), `tool` (calls, permissions, the client's
//! files and terminals, MCP), `trouble` (cancel in the middle of everything, misbehaviour, the flood). `client` is the
//! other end of the pipes.

#![allow(clippy::unwrap_used, reason = "all of this is test code")]

mod client;
mod conversation;
mod tool;
mod trouble;
