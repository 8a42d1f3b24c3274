//! A scripted stand-in for the model vendors' HTTP APIs.
//!
//! The real agents run against it without an account and without a network: what they are told is
//! decided by directives in the user's text (`SAY hello`, `BASH ls`, `FAIL 500`; see `README.md`).
//!
//! From a socket to an answer, each step pure but the first and the last:
//!
//! - [`server`] accepts on loopback, reads with [`http`], plays replies, waits at the [`gate`];
//! - [`route`] tells what a request is for; [`journal`] keeps what was asked;
//! - [`dialect`] turns a vendor's body into a [`conversation`] and a plan into that vendor's reply;
//! - [`plan`] decides, from the [`directive`]s of a conversation, with the tools of [`tool`];
//! - [`speech`] cuts texts into deltas, [`reply`] is what an answer looks like.
//!
//! [`agents`] tells how the real agents are started against it.
//!
//! It runs as the program `mock-model`, or inside a test by [`Mock::start`].

pub mod agents;
pub mod conversation;
pub mod dialect;
pub mod directive;
pub mod gate;
pub mod http;
pub mod journal;
pub mod plan;
pub mod reply;
pub mod route;
pub mod server;
pub mod speech;
pub mod tool;

pub use server::Mock;
