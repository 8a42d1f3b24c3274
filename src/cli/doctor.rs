//! `doctor`: whether a server can work here, and what does.
//!
//! Looks, and changes nothing: at the configuration, the programs, the data folder, the disk, the port or the server
//! that has it, the database, the keepers and the clock. Programs are asked for their version, each with a deadline.

mod probe;
mod program;

use super::finding::Findings;
use super::{Options, Outcome, verify};
use crate::config::{Config, Problems};
use crate::environment::find_program;
use crate::error::Result;
use crate::folder::{self, Owner};
use crate::keeper::{self, leftover};
use crate::ledger::{self, agent, verify as ledger_verify};
use crate::model::id;
use crate::provider::readiness::{Login, Readiness, Report};
use crate::server;
use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) const HELP: &str = "\
gg-runtime-server doctor: check this machine, the configuration and what runs

usage: gg-runtime-server doctor [--json] [--config FILE] [--bind HOST:PORT] [--data-dir DIR]

Changes nothing itself; Codex and Claude, which are asked whether they are ready, keep files of
their own. Each line is ok, warn or fail, with a remedy; one fail makes the exit code 1.
";

/// Free space below this is doubtful, and below that too little to begin with.
const DISK_DOUBTFUL: u64 = 1 << 30;
const DISK_TOO_LITTLE: u64 = 100 << 20;
/// Open files that a server with some agents and clients needs.
const OPEN_FILES: u64 = 4096;
/// How long Codex or Claude may take to say whether it is ready.
const VENDOR_WAIT: Duration = Duration::from_secs(30);
/// A clock that is so far behind the newest event has been set back.
const CLOCK_SLACK: Duration = Duration::from_secs(60);

pub(super) fn run(options: &Options) -> Outcome {
    let mut findings = Findings::default();
    match Config::load(&options.overrides) {
        Ok(config) => {
            configuration(&config, &mut findings);
            examine(&config, &mut findings);
        }
        Err(Problems(problems)) => {
            for problem in problems {
                findings.fail("config", problem, "mend it; --check-config tells the same");
            }
        }
    }
    let code: ExitCode = findings.report(options.has("json"));
    Ok(code)
}

fn configuration(config: &Config, findings: &mut Findings) {
    let providers: Vec<&str> = config.providers.keys().copied().collect();
    findings.ok("config", format!("providers {}", providers.join(" ")));
    for notice in &config.notices {
        findings.warn("config", notice.as_str(), "remove the key");
    }
}

fn examine(config: &Config, findings: &mut Findings) {
    kernel(findings);
    programs(config, findings);
    open_files(findings);
    if config.root_dir.is_dir() {
        verify::modes(config, findings);
        writable(&config.root_dir, findings);
    } else {
        let message = format!("{} is made at the first start", config.root_dir.display());
        findings.ok("folder", message);
    }
    disk(&config.root_dir, findings);
    let owner = match folder::owner(&config.root_dir) {
        Ok(owner) => owner,
        Err(error) => {
            findings.fail("folder", error.to_string(), "");
            return;
        }
    };
    match &owner {
        Some(owner) => served(config, owner, findings),
        None => port(config, findings),
    }
    if config.sqlite_path.is_file() {
        let checked = database(config, owner.is_some(), findings);
        if let Err(error) = checked {
            findings.fail("database", error.to_string(), "gg-runtime-server verify tells more");
        }
    } else {
        findings.ok("database", "there is none yet; the first start makes it");
    }
}

/// The keeper pins processes by descriptors before it signals them.
fn kernel(findings: &mut Findings) {
    use rustix::process::{PidfdFlags, getpid, pidfd_open};
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    match pidfd_open(getpid(), PidfdFlags::empty()) {
        Ok(_) => findings.ok("kernel", release),
        Err(error) => {
            let message = format!("{release} has no pidfd ({error})");
            findings.fail("kernel", message, "agents can not be kept: use Linux 5.3 or newer");
        }
    }
}

/// The programs that come with the server, git, and those of the agents.
fn programs(config: &Config, findings: &mut Findings) {
    let missing: Vec<_> =
        server::SIDECARS.iter().filter_map(|name| server::sidecar(name).err()).collect();
    if missing.is_empty() {
        findings.ok("programs", "all that come with the server are there");
    }
    for error in missing {
        findings.fail("programs", error.message, &error.hint);
    }
    let path = std::env::var("PATH").unwrap_or_default();
    match find_program("git", &path) {
        Some(git) => told_version("git", &git, findings),
        None => findings.warn("git", "there is no git on PATH", "worktrees need it: install git"),
    }
    let vendors = vendors(config, findings);
    for (provider, setting) in &config.providers {
        if vendors.contains(provider) {
            continue;
        }
        for (name, agent) in &setting.agents {
            // What comes with the server was looked at above.
            let Some(command) = &agent.command else { continue };
            let check = match name.as_str() {
                "default" => (*provider).to_owned(),
                name => format!("{provider}/{name}"),
            };
            match find_program(command, &path).filter(|program| program.is_file()) {
                Some(program) => told_version(&check, &program, findings),
                None => {
                    let message = format!("the agent's program {command:?} is not there");
                    let remedy = "install it, put its folder on PATH, or name the whole path";
                    // The server works without it: only its own sessions can not be made.
                    findings.warn(&check, message, remedy);
                }
            }
        }
    }
}

/// Codex and Claude, asked as the server asks them: version, login, models. Gives those that were asked; before the
/// first start there is no folder to ask them in.
fn vendors(config: &Config, findings: &mut Findings) -> Vec<&'static str> {
    let asked: Vec<&'static str> = ["codex", "claude"]
        .into_iter()
        .filter(|name| config.providers.contains_key(name) && config.providers_dir.is_dir())
        .collect();
    if asked.is_empty() {
        return asked;
    }
    let bridge = server::sidecars().ok().and_then(|sidecars| sidecars.claude_bridge);
    let readiness = match Readiness::new(Arc::new(config.clone()), bridge.unwrap_or_default()) {
        Ok(readiness) => readiness,
        Err(error) => {
            findings.warn("agents", error.to_string(), "");
            return Vec::new();
        }
    };
    for name in &asked {
        // The server works without it: only its own sessions can not be made.
        match readiness.look(name, "default", Instant::now() + VENDOR_WAIT) {
            None => findings.warn(name, "it did not answer in time", "run it yourself"),
            Some(report) => match &report.problem {
                Some(problem) => findings.warn(name, problem.message.as_str(), &problem.remedy),
                None => findings.ok(name, ready(&report)),
            },
        }
    }
    readiness.shut_down(Instant::now() + VENDOR_WAIT);
    asked
}

fn ready(report: &Report) -> String {
    let version = report.version.as_deref().unwrap_or("no version told");
    let login = match report.login {
        Login::There => "logged in",
        Login::NotNeeded => "needs no login",
        Login::Unknown => "does not tell of a login",
        Login::Missing => "not logged in",
    };
    format!("{version}, {login}, {} models", report.models.len())
}

fn told_version(check: &str, program: &Path, findings: &mut Findings) {
    let place = program.display();
    match program::version(program) {
        Ok(version) => findings.ok(check, format!("{version} ({place})")),
        Err(why) => {
            let remedy = "run it with --version yourself; its sessions may fail to start";
            findings.warn(check, format!("{place} tells no version: {why}"), remedy);
        }
    }
}

fn open_files(findings: &mut Findings) {
    use rustix::process::{Resource, getrlimit};
    match getrlimit(Resource::Nofile).maximum {
        Some(most) if most < OPEN_FILES => findings.warn(
            "files",
            format!("at most {most} open files"),
            "raise the hard limit (ulimit -Hn, LimitNOFILE=): each client and agent needs some",
        ),
        most => {
            let most = most.map_or("unlimited".to_owned(), |most| most.to_string());
            findings.ok("files", format!("open files: {most}"));
        }
    }
}

fn writable(root: &Path, findings: &mut Findings) {
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    match rustix::fs::access(root, access) {
        Ok(()) => findings.ok("folder", format!("{} can be written", root.display())),
        Err(error) => {
            let message = format!("{} can not be written: {error}", root.display());
            findings.fail("folder", message, "run this as the user that runs the server");
        }
    }
}

/// The disk that the data folder is on, or will be.
fn disk(root: &Path, findings: &mut Findings) {
    let place = root.ancestors().find(|place| place.is_dir()).unwrap_or(Path::new("/"));
    let remedy = "free some: at the end of the disk new work is refused";
    match rustix::fs::statvfs(place) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let message = format!("{} MiB free for {}", free >> 20, root.display());
            match free {
                free if free < DISK_TOO_LITTLE => findings.fail("disk", message, remedy),
                free if free < DISK_DOUBTFUL => findings.warn("disk", message, remedy),
                _ => findings.ok("disk", message),
            }
        }
        Err(error) => findings.warn("disk", format!("{}: {error}", place.display()), ""),
    }
}

/// No server has the folder: one could have the port.
fn port(config: &Config, findings: &mut Findings) {
    match TcpListener::bind(config.bind) {
        Ok(_) => findings.ok("port", format!("{} is free", config.bind)),
        Err(error) => {
            let message = format!("{} can not be bound: {error}", config.bind);
            findings.fail("port", message, server::bind_remedy(&error));
        }
    }
}

/// A server has the folder: it should answer.
fn served(config: &Config, owner: &Owner, findings: &mut Findings) {
    let pid = owner.pid.map_or("?".to_owned(), |pid| pid.to_string());
    let address = owner.address.unwrap_or(config.bind);
    match probe::ready(address, &config.base_path) {
        Ok(()) => findings.ok("server", format!("pid {pid} is ready on http://{address}")),
        Err(why) => {
            let message = format!("pid {pid} has the folder and is not ready on {address}: {why}");
            findings.fail("server", message, "see its log");
        }
    }
}

fn database(config: &Config, is_served: bool, findings: &mut Findings) -> Result<()> {
    let db = ledger::open_reader(&config.sqlite_path)?;
    let version = ledger_verify::version(&db)?;
    let known = ledger::SCHEMA_VERSION;
    if version > known {
        let message = format!("schema version {version}, this program knows up to {known}");
        findings.fail("database", message, "use the gg-runtime-server that wrote it");
        return Ok(());
    }
    let good = format!("{}, schema version {version} of {known}", config.sqlite_path.display());
    let remedy = "gg-runtime-server verify tells more; restore a backup";
    findings.judge("database", &good, ledger_verify::integrity(&db, true)?, remedy);
    if let Some(newest) = ledger_verify::newest_event_at(&db)? {
        clock(newest, findings);
    }
    let keepers = config.root_dir.join("keepers");
    let children = keeper::list(&keepers)?;
    let known = agent::known_children(&db)?;
    agents(&children, &known, is_served, findings)
}

fn clock(newest_event_at: i64, findings: &mut Findings) {
    let ahead_ms = newest_event_at.saturating_sub(id::now_ms());
    let ahead = Duration::from_millis(u64::try_from(ahead_ms).unwrap_or(0));
    if ahead > CLOCK_SLACK {
        let message = format!("the newest event is {} s in the future", ahead.as_secs());
        findings.warn("clock", message, "the clock was set back: check its synchronisation");
    } else {
        findings.ok("clock", "not behind the newest event");
    }
}

/// The children that have a folder: who lives, and whether anybody owns them.
fn agents(
    children: &[String],
    known: &[String],
    is_served: bool,
    findings: &mut Findings,
) -> Result<()> {
    let mut live = 0;
    for child_id in children {
        let processes = leftover::processes(child_id)?;
        live += usize::from(processes > 0);
        if !known.contains(child_id) && processes > 0 {
            let message = format!("{child_id} belongs to no session, {processes} processes");
            findings.warn("keepers", message, "gg-runtime-server reap ends it");
        }
    }
    if live > 0 && !is_served {
        let message = format!("{live} agents and processes live and no server runs");
        let remedy = "start the server to go on with them, or end them: gg-runtime-server reap";
        findings.warn("keepers", message, remedy);
    } else {
        findings.ok("keepers", format!("{live} agents and processes live"));
    }
    Ok(())
}
