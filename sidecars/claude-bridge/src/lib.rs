//! An ACP agent (protocol version 1) in front of the `claude` command.
//!
//! An editor or a runtime speaks JSON-RPC lines to the bridge; the bridge speaks `claude`'s own lines (stream-json in
//! both directions, with its control protocol) to one process for each session. The translator is a pure value, so it
//! is tested by replaying recorded traffic; a thin shell around it does all the input and output.
//!
//! - [`wire`]: the shapes of lines on both sides.
//! - [`account`]: version, login and models, as the program tells them.
//! - [`line`], [`child`], [`thread`], [`probe`]: the shell.

pub mod account;
pub mod child;
pub mod line;
pub mod probe;
pub mod thread;
pub mod wire;
