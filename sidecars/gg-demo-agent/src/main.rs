//! `gg-demo-agent`: a scripted ACP agent (protocol version 1) without a model and without a network.
//!
//! Owns: the command line, and the main thread, which reads stdin line by line until it ends. It promises exit code 0
//! when the client closes stdin, whatever runs, and 2 for a wrong command line. What the words of a prompt do is in
//! `help.txt` and README.md.

mod agent;
mod clock;
mod command;
mod directive;
mod fault;
mod history;
mod mcp;
mod script;
mod session;
mod thread;
mod tool;
mod turn;
mod wire;

use agent::{Agent, Flags};
use std::io::{self, BufRead, Read, Write};
use std::process::ExitCode;
use std::sync::Arc;

const HELP: &str = include_str!("help.txt");

/// The longest line of a client, in bytes. A longer one is skipped and answered with a parse error.
const LINE_BYTES_MAX: u64 = 256 << 20;

fn main() -> ExitCode {
    match flags(std::env::args().skip(1)) {
        Ok(Start::Serve(flags)) => serve(flags),
        Ok(Start::Tell(text)) => {
            // A closed stdout has no reader to miss it.
            drop(io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(argument) => {
            let text = format!("gg-demo-agent: unknown argument {argument}; see --help\n");
            drop(io::stderr().write_all(text.as_bytes()));
            ExitCode::from(2)
        }
    }
}

enum Start {
    Serve(Flags),
    Tell(String),
}

fn flags(arguments: impl Iterator<Item = String>) -> Result<Start, String> {
    let mut flags = Flags::default();
    for argument in arguments {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Start::Tell(HELP.to_owned())),
            "--version" | "-V" => {
                return Ok(Start::Tell(format!("gg-demo-agent {}\n", env!("CARGO_PKG_VERSION"))));
            }
            "--no-resume" => flags.no_resume = true,
            "--no-permission" => flags.no_permission = true,
            _ => return Err(argument),
        }
    }
    Ok(Start::Serve(flags))
}

fn serve(flags: Flags) -> ExitCode {
    let output = match wire::Output::stdout() {
        Ok(output) => output,
        Err(error) => {
            drop(writeln!(io::stderr(), "gg-demo-agent: there is no stdout: {error}"));
            return ExitCode::FAILURE;
        }
    };
    let agent = Arc::new(Agent::new(flags, output));
    let mut input = io::stdin().lock();
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => break,
            Ok(_) if line.trim_ascii().is_empty() => {}
            Ok(count) if count as u64 == LINE_BYTES_MAX && !line.ends_with(b"\n") => {
                agent.refuse_line();
                line = Vec::new();
                if input.skip_until(b'\n').is_err() {
                    break;
                }
            }
            Ok(_) => agent.line(&line),
        }
    }
    agent.shut_down();
    ExitCode::SUCCESS
}
