//! Git worktrees, against real git in repositories of their own.
//!
//! `scene` is what the stories begin with. The rest is one file a matter: making, names, cleaning up, odd repositories,
//! sessions, what hangs, and what a crash leaves.

mod cleanup;
mod crash;
mod create;
mod hang;
mod name;
mod odd;
mod scene;
mod session;
