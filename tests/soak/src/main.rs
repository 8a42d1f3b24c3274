//! The soak: mixed load on the built server for an hour, and whether anything grows.
//!
//! Owns: the command line and the order. `MINUTES` (60), `SEED` and `OUT` (a folder for the picture and the table)
//! come from the environment. The load (`load`) is paced, so that the machine is at work but not full: what is
//! looked for is what grows, not what is slow. Each ten seconds the server is looked at from outside (`sample`); at
//! the end the second half of each figure has to be flat (`verdict`), the load has to be right (each client checks
//! what it sees), and when the load is gone the server must be back at the threads and descriptors of its start.

mod command;
mod load;
mod post;
mod reader;
mod sample;
mod talk;
mod verdict;

use gooselake_harness::driver::{self, tell};
use gooselake_harness::proc;
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::wait;
use load::Load;
use sample::Sampler;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Agents sleep after seconds, and what is over is kept for minutes: an hour then sees everything come and go.
const CONFIG: &str = "[server]\nmax_connections = 1024\n\
    [providers.demo]\nenabled = true\nmax_instances = 64\nidle_sleep_secs = 4\n\
    [events]\ndelta_retention_hours = 0.05\n[sessions]\nretention_days = 0.0035\n\
    [teams]\nretention_days = 0.0035\n\
    [processes]\nlog_retention_hours = 0.05\nkill_grace_ms = 1000\n[keeper]\ngrace_ms = 2000\n";

/// How long the last session may take to end after the load, and the server to be quiet after that.
const END_TIME: Duration = Duration::from_secs(180);
/// The server opens its reading connections when they are first needed at once: four, of two files each.
const READER_DESCRIPTORS: usize = 8;
/// How long the server rests before what is its own is counted.
const WARM_UP: Duration = Duration::from_secs(3);

fn main() -> ExitCode {
    let settings = match driver::settings("MINUTES") {
        Ok(settings) => settings,
        Err(wrong) => return wrong,
    };
    let (minutes, seed) = (settings.length.unwrap_or(60), settings.seed);
    let out = std::env::var_os("OUT").map_or_else(|| PathBuf::from("docs/plots"), PathBuf::from);
    tell(&format!("SEED={seed} MINUTES={minutes}"));
    let options = Options { config_toml: CONFIG.to_owned(), ..Options::default() };
    let mut server = Server::start(options);
    wait::pause(WARM_UP);
    let rest = Rest::of(&server);
    let begun = Instant::now();
    let load = Load::start(&server, &mut Rng::new(seed));
    let mut sampler = Sampler::new(&server, begun);
    let end = begun + Duration::from_secs(minutes * 60);
    while sampler.wait_next(end) {
        let line = sampler.take(&server, &load.board);
        tell(&line);
        if !server.is_alive() {
            break;
        }
    }
    let mut failed = load.end(END_TIME);
    failed.extend(back_to_rest(&server, rest));
    let totals = sampler.totals();
    let judged = verdict::judge(sampler.samples());
    failed.extend(judged.failed);
    tell(&format!("\n{}\n{totals}", judged.table));
    if let Err(error) = sampler.write(&out, minutes) {
        failed.push(format!("{}: {error}", out.display()));
    }
    failed.extend(end_of(&mut server));
    for text in &failed {
        tell(&format!("FAILED: {text}"));
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a server has that nobody uses.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Rest {
    threads: u64,
    descriptors: usize,
}

impl Rest {
    fn of(server: &Server) -> Rest {
        let pid = server.pid();
        Rest { threads: proc::thread_count(pid), descriptors: proc::descriptor_count(pid) }
    }
}

/// Without load the server holds what it held at its start, its reading connections and no keeper.
fn back_to_rest(server: &Server, before: Rest) -> Option<String> {
    let is_back = || {
        let now = Rest::of(server);
        let keepers = proc::keepers_of(server.data_dir()).len();
        let has_closed = now.descriptors <= before.descriptors + READER_DESCRIPTORS;
        (now.threads <= before.threads && has_closed && keepers == 0).then_some(())
    };
    if wait::try_until(END_TIME, is_back).is_some() {
        tell(&format!("without load the server is back at {:?}", Rest::of(server)));
        return None;
    }
    let keepers = proc::keepers_of(server.data_dir()).len();
    Some(format!("at rest {before:?}, after the load {:?}, {keepers} keepers", Rest::of(server)))
}

/// The server ends, leaves nothing behind, and its ledger is right.
fn end_of(server: &mut Server) -> Vec<String> {
    let mut failed = Vec::new();
    let code = server.interrupt();
    if code != Some(0) {
        failed.push(format!("the server ended with {code:?}:\n{}", server.stderr_text()));
    }
    server.check_no_panic();
    let left = proof::running_in(server.folder());
    if !left.is_empty() {
        failed.push(format!("these are left: {left:?}"));
    }
    let program = program("GG_TEST_SERVER", "gg-runtime-server").expect("it was started");
    let mut verify = Command::new(program);
    verify.args(["verify", "--data-dir"]).arg(server.data_dir()).env("HOME", server.folder());
    match verify.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => failed.push(String::from_utf8_lossy(&output.stdout).into_owned()),
        Err(error) => failed.push(format!("verify: {error}")),
    }
    failed
}
