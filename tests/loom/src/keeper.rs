//! The core of `src/keeper`: the mailbox between the owner of a child and the thread that writes to its keeper.

#![allow(dead_code, reason = "the models need a part of what the server needs")]

pub(crate) mod model;
#[path = "../../../src/keeper/outbox.rs"]
mod outbox;
