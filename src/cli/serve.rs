//! `serve`: starts the server, says where it listens, and waits for a signal.
//!
//! Owns: the main thread while the server runs, and what is said around it: the lines on stdout, the hints of a first
//! session, and the word to the service manager. `--check-config` ends before anything on disk is touched.

use super::{Options, Outcome, check, config, notify, tell};
use crate::config::Config;
use crate::error::Error;
use crate::server::{self, Server};
use crate::signals::Signals;
use std::process::ExitCode;

pub(super) const HELP: &str = "\
gg-runtime-server serve: run the server

usage: gg-runtime-server [serve] [--config FILE] [--bind HOST:PORT] [--data-dir DIR]
       gg-runtime-server --check-config [--config FILE] …

  --config FILE      the configuration (TOML); without it everything has its default
  --bind HOST:PORT   where to listen (127.0.0.1:8080; port 0 takes a free one)
  --data-dir DIR     where everything is kept (~/.gg-runtime)
  --check-config     tell all that is wrong with the configuration, change nothing, end
  --hints            print curl lines for a first session, ready to be pasted
  --log-format FORM  plain (one line each) or json (one object a line), on stderr

The first line on stdout says where it listens. SIGTERM stops the server and leaves agents at
work; SIGINT (Ctrl-C) ends them too. RUST_LOG=debug tells more on stderr.
";

pub(super) fn run(options: &Options) -> Outcome {
    if options.has("check-config") {
        return Ok(check::run(options));
    }
    match config(options) {
        Ok(config) => serve(config, options.has("hints")),
        Err(code) => Ok(code),
    }
}

fn serve(config: Config, with_hints: bool) -> Outcome {
    for notice in &config.notices {
        log::info!("{notice}");
    }
    server::raise_file_limit();
    // Before the first thread and the first child, so that no signal is lost.
    let mut signals = Signals::new()
        .map_err(|error| Error::internal("signals can not be taken").source(error))?;
    let token_file = config.token.is_none().then(|| config.token_file.clone());
    let provider = config.providers.keys().next().copied().unwrap_or("demo");
    let base_path = config.base_path.clone();
    let server = Server::start(config)?;
    signals.started();
    let address = server.address();
    tell(&format!("listening on http://{address}"));
    if let Some(path) = &token_file {
        tell(&format!("token in {}", path.display()));
    }
    notify::ready(&format!("listening on http://{address}"));
    if with_hints {
        let token = match &token_file {
            Some(path) => format!("$(cat '{}')", path.display()),
            None => "(auth.token of the configuration)".to_owned(),
        };
        tell(&hints(&format!("http://{address}{base_path}"), &token, provider));
    }
    let stop = signals.wait();
    log::info!("stopping");
    notify::stopping();
    // A second signal ends the process at once: agents have their keepers, the ledger its last commit.
    let watch = crate::thread::spawn("second-signal", move || {
        signals.wait();
        std::process::abort();
    });
    server.stop(stop);
    // That thread waits for a signal that need not come; the process ends without it.
    std::mem::forget(watch);
    Ok(ExitCode::SUCCESS)
}

/// A first session by curl alone: a line that names things, then three that can be pasted one by one. An empty line
/// ends it. `make demo` runs exactly these lines, so what is printed here works.
fn hints(base: &str, token: &str, provider: &str) -> String {
    // The demo agent obeys words like these; any other agent is asked for the same thing.
    let slowly = match provider {
        "demo" => "slow 8 250",
        _ => "Count slowly from one to eight.",
    };
    include_str!("../hints.txt")
        .replace("{base}", base)
        .replace("{token}", token)
        .replace("{provider}", provider)
        .replace("{slowly}", slowly)
}
