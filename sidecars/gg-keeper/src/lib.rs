//! What the keeper program and the server's half of it share.
//!
//! Owns: the words that cross the socket, the files in a child's folder, and the way to find and
//! end a tree of processes. The server uses the same code as the keeper, so that both read one
//! journal in one way. No thread is started here and nothing is global. This library deliberately
//! knows no session, no agent and no ledger.
//!
//! - [`protocol`]: the frames between server and keeper.
//! - [`journal`]: the segment files of stdin, stdout and stderr.
//! - [`exit`]: the record of how a child ended.
//! - [`tree`]: which processes belong to a child, and how they are ended.

#[cfg(not(target_os = "linux"))]
compile_error!(
    "the keeper needs Linux: it finds a child's tree through /proc, pidfd and sub-reaping"
);

pub mod exit;
pub mod journal;
pub mod protocol;
pub mod tree;

/// The name of the keeper's socket in the folder of its child.
pub const SOCKET: &str = "sock";

/// The name of the keeper's own notes in the folder of its child; bounded by the keeper.
pub const LOG: &str = "keeper.log";

/// The variable that marks every process of a child, and its keeper. The value is the child's id.
pub const MARK: &str = "GOOSELAKE_CHILD";
