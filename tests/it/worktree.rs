//! Git worktrees, against real git in repositories of their own.
//!
//! `scene` is what the stories begin with. The rest is one file a matter: making, names, cleaning up, odd repositories,
//! sessions, the tool of agents, what hangs, what stands in the way, what a crash leaves, and (`property`) random lives
//! with crashes in them.

mod cleanup;
mod crash;
mod create;
mod hang;
mod hostile;
mod name;
mod odd;
mod property;
pub(crate) mod scene;
mod session;
mod tool;
