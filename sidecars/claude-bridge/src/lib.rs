//! An ACP agent (protocol version 1) in front of the `claude` command.
//!
//! An editor or a runtime speaks JSON-RPC lines to the bridge; the bridge speaks `claude`'s own lines (stream-json in
//! both directions, with its control protocol) to one process for each session. The translator is a pure value, so it
//! is tested by replaying recorded traffic; a thin shell around it does all the input and output.
//!
//! - [`wire`]: the shapes of lines on both sides.
//! - [`account`]: version, login and models, as the program tells them.
//! - [`bridge`]: the translator: the client's methods, and a session for each conversation (`session`, with `ask` for
//!   what the program asks and `describe` for what its tools look like).
//! - [`shell`]: pipes, processes, time, with [`line`], [`child`] and [`thread`]; [`probe`] is a small one of its own.

pub mod account;
mod ask;
pub mod bridge;
pub mod child;
mod describe;
pub mod line;
pub mod probe;
mod session;
pub mod shell;
pub mod thread;
pub mod wire;
