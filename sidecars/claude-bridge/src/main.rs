//! `claude-bridge`: the command line.
//!
//! Owns: arguments and exit codes. 0 when the client closes stdin or the probe has its answer, 1 when there is no
//! program, 2 for wrong use.

use claude_bridge::child::Program;
use claude_bridge::{probe, shell};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = include_str!("help.txt");

/// Names the program when no argument does.
const VARIABLE: &str = "CLAUDE_BRIDGE_CLAUDE";

enum Start {
    Serve,
    Probe,
    Tell(String),
}

struct Arguments {
    start: Start,
    claude: Option<String>,
    /// For the program.
    more: Vec<String>,
}

fn main() -> ExitCode {
    let arguments = match parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(problem) => return fail(2, &format!("{problem}; see --help")),
    };
    let named = arguments
        .claude
        .or_else(|| std::env::var(VARIABLE).ok().filter(|name| !name.is_empty()))
        .unwrap_or_else(|| "claude".to_owned());
    let program = find(&named).map(|path| Program { path, arguments: arguments.more });
    match arguments.start {
        Start::Tell(text) => {
            // A closed stdout has no reader to miss it.
            drop(io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Start::Probe => {
            let (told, is_good) = probe::run(&named, program.as_ref());
            drop(writeln!(io::stdout(), "{told}"));
            if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Start::Serve => {
            let Some(program) = program else {
                let hint = "install it (npm install -g @anthropic-ai/claude-code)";
                return fail(1, &format!("the program {named:?} is not on PATH: {hint}"));
            };
            match shell::run(program) {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => fail(1, &error.to_string()),
            }
        }
    }
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<Arguments, String> {
    let mut parsed = Arguments { start: Start::Serve, claude: None, more: Vec::new() };
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "probe" => parsed.start = Start::Probe,
            "--claude" => {
                let path = arguments.next().filter(|path| !path.is_empty());
                parsed.claude = Some(path.ok_or("--claude wants a path")?);
            }
            "--help" | "-h" => parsed.start = Start::Tell(HELP.to_owned()),
            "--version" | "-V" => {
                let version = env!("CARGO_PKG_VERSION");
                parsed.start = Start::Tell(format!("claude-bridge {version}\n"));
            }
            "--" => {
                parsed.more = arguments.collect();
                break;
            }
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    Ok(parsed)
}

/// The file behind a name: on PATH, or the path as it is; absolute. None: there is none.
fn find(named: &str) -> Option<PathBuf> {
    let path = if named.contains('/') {
        PathBuf::from(named)
    } else {
        let folders = std::env::var_os("PATH")?;
        std::env::split_paths(&folders).map(|folder| folder.join(named)).find(|p| p.is_file())?
    };
    let path = std::path::absolute(Path::new(&path)).ok()?;
    path.is_file().then_some(path)
}

fn fail(code: u8, text: &str) -> ExitCode {
    drop(writeln!(io::stderr(), "claude-bridge: {text}"));
    ExitCode::from(code)
}
