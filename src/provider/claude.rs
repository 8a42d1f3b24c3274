//! Claude, beside its dialect: what the server keeps for it on disk, and what its program finds there.
//!
//! The dialect itself is ACP: the bridge that comes with the server (`sidecars/claude-bridge`) stands between.

pub mod auth;
pub mod stage;
