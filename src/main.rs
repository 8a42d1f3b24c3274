//! The server program: arguments, configuration, server, exit code (0 done, 1 failed, 2 wrong use).

use gooselake::config::{Config, Overrides, Problems};
use gooselake::server::{self, Server};
use gooselake::signals::Signals;
use lexopt::prelude::*;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const HELP: &str = "\
gg-runtime-server: owns the sessions of coding agents on this machine

usage: gg-runtime-server [serve] [--config FILE] [--bind HOST:PORT] [--data-dir DIR]
       gg-runtime-server --check-config [--config FILE] …

  --config FILE     the configuration (TOML); without it everything has its default
  --bind HOST:PORT  where to listen (127.0.0.1:8080; port 0 takes a free one)
  --data-dir DIR    where everything is kept (~/.gg-runtime)
  --check-config    tell what is wrong with the configuration, change nothing, end
  --hints           print curl lines for a first session, ready to be pasted
  --version, --help

The first line on stdout says where it listens. SIGTERM stops the server and leaves agents at
work; SIGINT (Ctrl-C) ends them too. RUST_LOG=debug tells more on stderr.
";

enum Task {
    Serve { with_hints: bool },
    CheckConfig,
    Tell(String),
}

fn main() -> ExitCode {
    let (task, overrides) = match arguments() {
        Ok(parsed) => parsed,
        Err(error) => {
            tell_error(&format!("{error}; see gg-runtime-server --help"));
            return ExitCode::from(2);
        }
    };
    if let Task::Tell(text) = &task {
        tell(text);
        return ExitCode::SUCCESS;
    }
    let config = match Config::load(&overrides) {
        Ok(config) => config,
        Err(Problems(problems)) => {
            for problem in problems {
                tell_error(&problem);
            }
            return ExitCode::FAILURE;
        }
    };
    if matches!(task, Task::CheckConfig) {
        for notice in &config.notices {
            tell(&format!("note: {notice}"));
        }
        tell(&format!("the configuration is good; data folder {}", config.root_dir.display()));
        return ExitCode::SUCCESS;
    }
    serve(config, matches!(task, Task::Serve { with_hints: true }))
}

fn serve(config: Config, with_hints: bool) -> ExitCode {
    let filter = env_logger::Env::default().default_filter_or("info");
    env_logger::Builder::from_env(filter).init();
    for notice in &config.notices {
        log::info!("{notice}");
    }
    server::raise_file_limit();
    // Before the first thread and the first child, so that no signal is lost.
    let signals = Signals::new();
    let token_file = config.token.is_none().then(|| config.token_file.clone());
    let provider = config.providers.keys().next().copied().unwrap_or("demo");
    let base_path = config.base_path.clone();
    let (mut signals, server) = match (signals, Server::start(config)) {
        (Ok(signals), Ok(server)) => (signals, server),
        (Err(error), _) => {
            tell_error(&format!("signals can not be taken: {error}"));
            return ExitCode::FAILURE;
        }
        (_, Err(error)) => {
            tell_error(&error.to_string());
            return ExitCode::FAILURE;
        }
    };
    let address = server.address();
    tell(&format!("listening on http://{address}"));
    if let Some(path) = &token_file {
        tell(&format!("token in {}", path.display()));
    }
    if with_hints {
        let token = match &token_file {
            Some(path) => format!("$(cat '{}')", path.display()),
            None => "(auth.token of the configuration)".to_owned(),
        };
        tell(&hints(&format!("http://{address}{base_path}"), &token, provider));
    }
    let stop = signals.wait();
    log::info!("stopping");
    // A second signal ends the process at once: agents have their keepers, the ledger its last commit.
    let watch = gooselake::thread::spawn("second-signal", move || {
        signals.wait();
        std::process::abort();
    });
    server.stop(stop);
    // That thread waits for a signal that need not come; the process ends without it.
    std::mem::forget(watch);
    ExitCode::SUCCESS
}

fn arguments() -> Result<(Task, Overrides), lexopt::Error> {
    let mut task = Task::Serve { with_hints: false };
    let claude_auth_mode =
        std::env::var("GG_CLAUDE_AUTH_MODE").ok().filter(|mode| !mode.is_empty());
    let mut overrides = Overrides { claude_auth_mode, ..Overrides::default() };
    let mut parser = lexopt::Parser::from_env();
    let mut is_first = true;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("config") => overrides.config = Some(PathBuf::from(parser.value()?)),
            Long("bind") => overrides.bind = Some(parser.value()?.string()?),
            Long("data-dir") => overrides.data_dir = Some(PathBuf::from(parser.value()?)),
            Long("check-config") => task = Task::CheckConfig,
            Long("hints") => task = Task::Serve { with_hints: true },
            Long("help") | Short('h') => task = Task::Tell(HELP.trim_end().to_owned()),
            Long("version") => {
                task = Task::Tell(format!("gg-runtime-server {}", env!("CARGO_PKG_VERSION")));
            }
            Value(word) if is_first && word == "serve" => {}
            other => return Err(other.unexpected()),
        }
        is_first = false;
    }
    Ok((task, overrides))
}

/// A first session by curl alone: a line that names things, then three that can be pasted one by one. An empty line
/// ends it. `make demo` runs exactly these lines, so what is printed here works.
fn hints(base: &str, token: &str, provider: &str) -> String {
    // The demo agent obeys words like these; any other agent is asked for the same thing.
    let slowly = match provider {
        "demo" => "slow 8 250",
        _ => "Count slowly from one to eight.",
    };
    include_str!("hints.txt")
        .replace("{base}", base)
        .replace("{token}", token)
        .replace("{provider}", provider)
        .replace("{slowly}", slowly)
}

/// A line on stdout. A reader that is gone is no reason to stop.
fn tell(text: &str) {
    drop(writeln!(std::io::stdout(), "{text}"));
}

fn tell_error(text: &str) {
    drop(writeln!(std::io::stderr(), "gg-runtime-server: {text}"));
}
