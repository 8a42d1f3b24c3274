//! Claude, beside its dialect: what the server keeps for it on disk.

pub mod auth;
