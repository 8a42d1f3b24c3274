//! The benchmark: what the built programs do on this machine, in figures of one run.
//!
//! Owns: the command line and the order of the parts. It promises to print what it saw, each figure
//! beside its target where there is one, together with the machine and its load, so that a figure is
//! never quoted without them. It deliberately asserts no speed: a miss is printed, and the exit code
//! tells only whether the parts ran. It drives the programs beside it as any client does; some parts
//! (`ledger`, `retention`, and the preparation of `replay` and `growth`) use the library, and say so.
//!
//! The binary is also the agent of two parts: `bench agent` (see `agent.rs`).

mod agent;
mod deltas;
mod get;
mod growth;
mod idle;
mod ledger;
mod limits;
mod machine;
mod mail;
mod process;
mod raw;
mod replay;
mod report;
mod retention;
mod rig;
mod sample;
mod streams;
mod turns;
mod worktrees;

use report::Report;
use std::io::{self, Write};
use std::process::ExitCode;

/// As the server has it: parts of it run in this process.
#[cfg(all(target_os = "linux", not(tsan)))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// A part measures one thing and reports it.
type Part = fn(&mut Report);

const PARTS: &[(&str, Part)] = &[
    ("limits", limits::run),
    ("ledger", ledger::run),
    ("deltas", deltas::run),
    ("turns", turns::run),
    ("get", get::run),
    ("streams", streams::run),
    ("mail", mail::run),
    ("replay", replay::run),
    ("process", process::run),
    ("worktrees", worktrees::run),
    ("retention", retention::run),
    ("idle", idle::run),
];

/// Parts that run only when they are named: they take minutes.
const LONG: &[(&str, Part)] = &[("growth", growth::run)];

fn main() -> ExitCode {
    let names: Vec<String> = std::env::args().skip(1).collect();
    if names.first().is_some_and(|name| name == "agent") {
        return agent::serve();
    }
    let all = || PARTS.iter().chain(LONG);
    let unknown = names.iter().find(|name| all().all(|(part, _)| part != name));
    if let Some(name) = unknown {
        let known: Vec<&str> = all().map(|(part, _)| *part).collect();
        let text = format!("bench: no part {name:?}; the parts are {}\n", known.join(", "));
        // A closed stderr has no reader to miss it.
        drop(io::stderr().write_all(text.as_bytes()));
        return ExitCode::from(2);
    }
    gooselake::server::raise_file_limit();
    let mut report = Report::new();
    machine::tell(&mut report);
    for (name, part) in all() {
        let is_usual = names.is_empty() && PARTS.iter().any(|(usual, _)| usual == name);
        if is_usual || names.iter().any(|wanted| wanted == name) {
            report.part(name);
            part(&mut report);
        }
    }
    report.end();
    ExitCode::SUCCESS
}
