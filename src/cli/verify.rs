//! `verify`: whether what is on disk is whole.
//!
//! Only reads, also beside a server that runs. Looks at the database (pages, references, numbers, JSON), at the
//! journals of the agents that it knows, and at who may read the files. It says what it found and mends nothing.

use super::finding::Findings;
use super::{Options, Outcome, config};
use crate::config::Config;
use crate::error::Result;
use crate::folder;
use crate::keeper::{Stream, leftover};
use crate::ledger::verify::{self, KnownAgent};
use crate::ledger::{self, Connection};
use crate::session::TOKENS_FOLDER;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

pub(super) const HELP: &str = "\
gg-runtime-server verify: check the database, the journals and the modes of the files

usage: gg-runtime-server verify [--json] [--config FILE] [--data-dir DIR]

Only reads, also beside a server that runs. Each line is ok, warn or fail; one fail makes the
exit code 1. Numbers of events may be missing only where retention has dropped them.
";

/// How often a journal that moves is compared anew with the row that names it.
const LOOKS: usize = 3;

const RESTORE: &str = "restore a backup: gg-runtime-server restore FILE --force";

pub(super) fn run(options: &Options) -> Outcome {
    let config = match config(options) {
        Ok(config) => config,
        Err(code) => return Ok(code),
    };
    let mut findings = Findings::default();
    if config.sqlite_path.is_file() {
        database(&config, &mut findings)?;
    } else {
        let remedy = "name the data folder with --data-dir or --config";
        findings.fail("database", format!("there is no {}", config.sqlite_path.display()), remedy);
    }
    modes(&config, &mut findings);
    Ok(findings.report(options.has("json")))
}

fn database(config: &Config, findings: &mut Findings) -> Result<()> {
    let db = ledger::open_reader(&config.sqlite_path)?;
    let version = verify::version(&db)?;
    if version > ledger::SCHEMA_VERSION || version == 0 {
        let message =
            format!("version {version}, this program knows 1 to {}", ledger::SCHEMA_VERSION);
        findings.fail("schema", message, "use the gg-runtime-server that wrote it");
        return Ok(());
    }
    if version < ledger::SCHEMA_VERSION {
        let message =
            format!("version {version}; the next start makes it {}", ledger::SCHEMA_VERSION);
        findings.warn("schema", message, "start the server, then verify again");
        return Ok(());
    }
    findings.ok("schema", format!("version {version}"));
    let counts = verify::row_counts(&db)?;
    let rows: i64 = counts.iter().map(|(_, count)| count).sum();
    let good = format!("{rows} rows in {} tables", counts.len());
    findings.judge("pages", &good, verify::integrity(&db, false)?, RESTORE);
    findings.judge("references", "all are there", verify::references(&db)?, RESTORE);
    let good = "without a hole, but for what was dropped";
    findings.judge("numbers", good, verify::sequence(&db)?, RESTORE);
    findings.judge("json", "all is well formed", verify::json(&db)?, RESTORE);
    findings.ok("log", format!("ends with event {}", verify::newest_row_id(&db)?));
    journals(config, &db, findings)
}

/// Whether each agent's journals hold what the database still needs of them.
fn journals(config: &Config, db: &Connection, findings: &mut Findings) -> Result<()> {
    let agents = verify::known_agents(db)?;
    let keepers = config.root_dir.join("keepers");
    let mut wrong = Vec::new();
    for agent in &agents {
        let dir = keepers.join(&agent.child_id);
        if !dir.is_dir() {
            let message = format!("{} of {} has no folder", agent.child_id, agent.session_id);
            findings.warn(
                "journals",
                message,
                "its turn fails at the next start, the session stays",
            );
            continue;
        }
        wrong.extend(journal_faults(db, agent, &dir)?);
    }
    let processes = verify::running_processes(db)?;
    for (process_id, bytes) in &processes {
        let dir = keepers.join(process_id);
        if !dir.is_dir() {
            let message = format!("{process_id} has no folder");
            findings.warn("journals", message, "it fails at the next start");
            continue;
        }
        wrong.extend(process_faults(process_id, *bytes, &dir)?);
    }
    let (agents, processes) = (agents.len(), processes.len());
    let good =
        format!("{agents} agents, {processes} processes, all bytes that are needed are there");
    findings.judge("journals", &good, wrong, "the session's next turn starts its agent anew");
    Ok(())
}

/// What is wrong with an agent's journals. A server that runs moves both sides, so they are compared again before that
/// is believed.
fn journal_faults(db: &Connection, agent: &KnownAgent, dir: &Path) -> Result<Vec<String>> {
    let mut agent = agent.clone();
    for _ in 1..LOOKS {
        if faults_of(&agent, dir)?.is_empty() {
            return Ok(Vec::new());
        }
        let now = verify::known_agents(db)?;
        match now.into_iter().find(|other| other.child_id == agent.child_id) {
            Some(now) => agent = now,
            // It has ended meanwhile.
            None => return Ok(Vec::new()),
        }
    }
    faults_of(&agent, dir)
}

/// Output that is in the log files can not be more than the process has written; both only grow.
fn process_faults(process_id: &str, bytes: [i64; 2], dir: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (stream, told) in Stream::ALL.into_iter().zip(bytes) {
        let (_, end) = leftover::journal_span(dir, stream)?;
        if u64::try_from(told).unwrap_or(0) > end {
            let name = stream.as_str();
            faults.push(format!("{process_id}: {name} is logged up to {told} and ends at {end}"));
        }
    }
    Ok(faults)
}

fn faults_of(agent: &KnownAgent, dir: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let id = &agent.child_id;
    let streams = [(Stream::Stdout, agent.stdout_offset), (Stream::Stderr, agent.stderr_offset)];
    for (stream, offset) in streams {
        let (base, end) = leftover::journal_span(dir, stream)?;
        let offset = u64::try_from(offset).unwrap_or(0);
        let name = stream.as_str();
        if offset > end {
            faults.push(format!("{id}: {name} was read up to {offset} and ends at {end}"));
        }
        // Of stderr only the end is kept, so its beginning may be gone.
        if stream == Stream::Stdout && offset < base {
            faults.push(format!("{id}: {name} was read up to {offset} and begins at {base}"));
        }
    }
    let (_, accepted) = leftover::stdin_span(dir)?;
    let accepted = i64::try_from(accepted).unwrap_or(i64::MAX);
    let from = agent.unsent_from.unwrap_or(agent.stdin_offset);
    if agent.unsent_from.is_some() && from + agent.unsent_bytes != agent.stdin_offset {
        faults.push(format!(
            "{id}: {} bytes for stdin from {from} on do not reach {}",
            agent.unsent_bytes, agent.stdin_offset
        ));
    }
    if accepted < from {
        faults.push(format!("{id}: stdin ends at {accepted}, and the bytes up to {from} are gone"));
    }
    Ok(faults)
}

/// Whether anybody but the owner may look into what is kept.
pub(super) fn modes(config: &Config, findings: &mut Findings) {
    let names = ["", "keepers", "gateway-url", TOKENS_FOLDER];
    let mut places: Vec<_> = names.iter().map(|name| config.root_dir.join(name)).collect();
    places.push(config.providers_dir.clone());
    places.extend(folder::database_files(&config.sqlite_path));
    if config.token.is_none() {
        places.push(config.token_file.clone());
    }
    let (mut open, mut looked) = (Vec::new(), 0);
    for place in places {
        let Ok(metadata) = std::fs::metadata(&place) else { continue };
        looked += 1;
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            open.push(format!("{} has mode {mode:03o}", place.display()));
        }
    }
    let good = format!("{looked} files and folders are their owner's alone");
    findings.judge("modes", &good, open, "take it from others: chmod go-rwx");
}
