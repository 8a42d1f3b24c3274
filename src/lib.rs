//! gooselake: air traffic control for coding agents on one machine.
//!
//! This is the map: one paragraph for each module, from the ground up. A module uses only what lies
//! on a floor beneath its own (`tests/it/tidy.rs` checks it; the one exception is that [`config`]
//! borrows the ledger's word for durability). docs/ARCHITECTURE.md tells why it is so.
//!
//! Floor 0, words without behaviour:
//!
//! - [`error`]: the one error type, and the closed list of codes that clients branch on. It knows
//!   no JSON and no HTTP beyond a status number.
//! - [`limits`]: every bound that is not a setting, with what happens at it.
//! - [`mod@thread`]: the one place where threads start. It knows no pool and no order of shutdown.
//!   `sync` beside it: the locks that can be model-checked.
//! - `tries`: what could not be done, and when its thread tries it again.
//! - [`watchdog`]: which thread has been at one piece of work for too long. It stops nothing.
//! - [`model`]: ids, times, states, kinds of events, the input of a turn. Each word is the same in
//!   SQL, JSON and Rust.
//! - [`config`]: the configuration as it is used, made once and never changed, and what is wrong
//!   with one. Reading it changes nothing on disk.
//! - [`environment`]: what a child process may see of the server's own environment.
//! - [`folder`]: the data folder: its modes, the lock that makes one server its owner, and the token
//!   file. It knows nothing of the database but its name.
//! - [`secret`]: tokens: made, compared, hashed.
//! - [`signals`]: SIGTERM and SIGINT as one blocking wait of the main thread.
//!
//! Floor 1:
//!
//! - [`ledger`]: one SQLite file that holds every record and every event, the thread that writes
//!   it, the connections that read it, and the tail that wakes streams. It knows no agent, no HTTP,
//!   and no rule of when a change is due.
//!
//! Floor 2, the two ways to the outside; neither knows the other:
//!
//! - [`keeper`]: the server's half of a kept child. A child is a command, three streams of bytes
//!   with offsets, and an end; it knows no session and no protocol of an agent.
//! - [`http`]: HTTP/1.1 on `std::net`: connections, framing, limits, deadlines, streams. It knows no
//!   route and no token.
//!
//! Floor 3:
//!
//! - [`provider`]: translators between an agent's protocol and ours, values without I/O, threads,
//!   clocks or randomness: lines and commands in, bytes and events out. They know no ledger. Beside
//!   them, what an agent needs on disk, and whether its program can be used.
//! - [`worktree`]: git worktrees, who works in them, and the rule that none goes with work in it. It
//!   knows no HTTP and no agent.
//!
//! - [`process`]: runtime-managed commands: one thread for each that runs, which owns its child, its
//!   log files and its record. It knows no session but as the name of an owner, and no HTTP.
//!
//! Floor 4:
//!
//! - [`session`]: one thread for each live session, which owns its agent and every transition of
//!   its turns and approvals, and commits each of them before it acts on it. It knows no HTTP.
//!
//! - [`housekeeper`]: one thread for what is due by age alone: what the ledger forgets, and when. It
//!   decides nothing about live sessions.
//!
//! Floor 5:
//!
//! - [`team`]: teams of sessions, the mail between them and the dispatcher that brings it, and how
//!   members are made. It knows no token: who may do what is the caller's question.
//!
//! Floor 6:
//!
//! - [`mcp`]: the tools that agents call, who may call them, and the record of each call in the log.
//!   It knows no HTTP and no protocol of messages.
//!
//! Floor 7:
//!
//! - [`api`]: the routes. A handler parses, calls the floors beneath, answers. It knows no agent
//!   and holds no state but counters.
//!
//! On top:
//!
//! - [`server`]: the composition root: builds everything, owns every handle, and knows the order of
//!   start and shutdown. Nothing uses it but the command line.
//! - [`cli`]: the command line: serve, and the commands that look after a data folder. Nothing uses it
//!   but the program (`main.rs`).

pub mod api;
pub mod cli;
pub mod config;
pub mod environment;
pub mod error;
pub mod folder;
pub mod housekeeper;
pub mod http;
pub mod keeper;
pub mod ledger;
pub mod limits;
pub mod mcp;
pub mod model;
pub mod process;
pub mod provider;
pub mod secret;
pub mod server;
pub mod session;
pub mod signals;
mod sync;
pub mod team;
pub mod thread;
mod tries;
pub mod watchdog;
pub mod worktree;
