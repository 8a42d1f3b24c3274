//! `idle`: what the programs weigh when they do nothing, in memory and on disk.

use crate::report::{Report, Target};
use crate::rig::{Agent, Rig};
use gooselake_harness::proc;
use gooselake_harness::server::program;
use gooselake_harness::wait::pause;
use std::fs;
use std::time::Duration;

const SETTLE: Duration = Duration::from_secs(2);
/// Sessions whose agents live at once.
const LIVE: usize = 200;

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    pause(SETTLE);
    let server = memory(rig.pid());
    report.figure("idle server, RSS", server.rss_mb, "MB", Target::AtMost(6.0));
    report.figure("… of it private", server.private_mb, "MB", Target::None);
    rig.session(Agent::Demo);
    pause(SETTLE);
    let one = memory(rig.pid());
    // The system counts the program's own pages as private while only one process maps them, so a
    // keeper is looked at beside a second one.
    rig.session(Agent::Demo);
    pause(SETTLE);
    let keepers = proc::keepers_of(rig.server.data_dir());
    let keeper = memory(*keepers.first().expect("a session has a keeper"));
    report.figure("a keeper, RSS", keeper.rss_mb, "MB", Target::AtMost(2.5));
    report.figure("… of it private, beside another", keeper.private_mb, "MB", Target::AtMost(0.5));
    report.figure("server with one live session, RSS", one.rss_mb, "MB", Target::None);
    let more: Vec<String> = (2..LIVE).map(|_| rig.session(Agent::Demo)).collect();
    assert_eq!(more.len() + 2, LIVE);
    pause(SETTLE);
    let live = memory(rig.pid());
    let what = format!("server with {LIVE} live sessions, RSS");
    report.figure(&what, live.rss_mb, "MB", Target::AtMost(40.0));
    report.figure("… of it private", live.private_mb, "MB", Target::None);
    let server = Target::AtMost(4.0);
    sized(report, "gg-runtime-server", "GG_TEST_SERVER", server);
    sized(report, "gg-keeper", "", Target::None);
    sized(report, "gg-demo-agent", "", Target::None);
}

fn sized(report: &mut Report, name: &str, variable: &str, target: Target) {
    let size = program(variable, name).ok().and_then(|path| fs::metadata(path).ok());
    let size = size.map_or(0, |metadata| metadata.len());
    report.figure(&format!("{name} on disk"), size as f64 / 1e6, "MB", target);
}

struct Memory {
    rss_mb: f64,
    private_mb: f64,
}

/// A megabyte is 1,000,000 bytes here, as for files.
fn memory(pid: u32) -> Memory {
    let memory = proc::memory(pid);
    let mb = |kib: u64| kib as f64 * 1024.0 / 1e6;
    Memory { rss_mb: mb(memory.rss_kib), private_mb: mb(memory.private_kib) }
}
