//! Real agents through the real server: agent × scenario, as a matrix.
//!
//! For each installed agent a server of its own is started, with the agent's own program, against a mock model on
//! loopback. Two agents run at a time, each on a thread of its own; `main` joins them. Then three of them form a team
//! on one server, on the main thread. Exit code 0 when every cell and every step is as expected, 1 when one is not,
//! 2 for wrong use. `--write FILE` keeps the matrix. It installs nothing: `scripts/real-agents.sh` does.

mod echo;
mod scenario;
mod team;

use gooselake_harness::thread;
use gooselake_mock_model::agents;
use scenario::{Outcome, scenarios};
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

/// Agents that are driven side by side: one for each core of a small machine.
const SIDE_BY_SIDE: usize = 2;

/// One agent's row: its name and a cell for each scenario.
type Row = (&'static str, Vec<Outcome>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut write_to = None;
    let mut wanted = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            echo::ARGUMENT => return echo::serve(),
            "--write" => write_to = rest.next().map(PathBuf::from),
            name => wanted.push(name.to_owned()),
        }
    }
    let Some(root) = agents::root() else { return fail("there is no HOME to look for agents in") };
    let installed =
        [vec![scenario::DEMO], agents::installed(&root), agents::programs(&root)].concat();
    let is_known = |name: &str| installed.contains(&name) || name == team::NAME;
    let unknown = wanted.iter().find(|name| !is_known(name));
    if let Some(name) = unknown {
        return fail(&format!("the agent {name} is not installed; run scripts/real-agents.sh"));
    }
    let names: Vec<&'static str> = installed
        .iter()
        .copied()
        .filter(|name| {
            // The older codex line is driven only when it is asked for: it is the same agent twice.
            if wanted.is_empty() {
                *name != "zed-codex-acp"
            } else {
                wanted.iter().any(|wanted| wanted == name)
            }
        })
        .collect();
    if names.iter().all(|name| *name == scenario::DEMO) && wanted.is_empty() {
        return fail("no real agent is installed; run scripts/real-agents.sh");
    }
    let rows = drive(&names, &root);
    let is_team_wanted = wanted.is_empty() || wanted.iter().any(|wanted| wanted == team::NAME);
    let told = if is_team_wanted { team::run(&root, &|line| say(line)) } else { Vec::new() };
    let mut matrix = if rows.is_empty() { String::new() } else { matrix(&rows) };
    matrix.push_str(&story(&told));
    say(&matrix);
    if let Some(path) = write_to
        && let Err(error) = std::fs::write(&path, &matrix)
    {
        return fail(&format!("{}: {error}", path.display()));
    }
    let cells = || {
        let steps = told.iter().map(|(_, outcome)| outcome);
        rows.iter().flat_map(|(_, cells)| cells).chain(steps)
    };
    let failed = cells().filter(|outcome| matches!(outcome, Outcome::Wrong(_))).count();
    let passed = cells().filter(|outcome| matches!(outcome, Outcome::Right(_))).count();
    say(&format!("{passed} passed, {failed} failed\n"));
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn drive(names: &[&'static str], root: &std::path::Path) -> Vec<Row> {
    let queue = Arc::new(Mutex::new(names.to_vec()));
    let rows = Arc::new(Mutex::new(Vec::new()));
    let workers: Vec<_> = (0..SIDE_BY_SIDE)
        .map(|number| {
            let (queue, rows, root) = (Arc::clone(&queue), Arc::clone(&rows), root.to_owned());
            thread::spawn(format!("agents-{number}"), move || {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).pop();
                    let Some(name) = next else { return };
                    let cells = scenario::run_all(name, &root, &|line| say(line));
                    rows.lock().unwrap_or_else(PoisonError::into_inner).push((name, cells));
                }
            })
            .expect("a thread for each core can be had")
        })
        .collect();
    for worker in workers {
        worker.join();
    }
    let mut rows = std::mem::take(&mut *rows.lock().unwrap_or_else(PoisonError::into_inner));
    rows.sort_by_key(|(name, _): &Row| *name);
    rows
}

/// The matrix as Markdown.
fn matrix(rows: &[Row]) -> String {
    let mut text = String::from(
        "# Real agents through the server\n\n\
         Made by `make test-real`: each cell is one run of the named agent, through the built server\n\
         against the mock model (the demo agent, which has none, in its own words). Agents without a\n\
         cell are driven over ACP, which has no word for it or is not asked.\n\n| agent | version |",
    );
    for (name, ..) in scenarios() {
        write!(text, " {name} |").expect("a String takes all");
    }
    text.push_str("\n|---|---|");
    text.push_str(&"---|".repeat(scenarios().count()));
    text.push('\n');
    for (name, cells) in rows {
        let version = agents::version(name).unwrap_or(env!("CARGO_PKG_VERSION"));
        write!(text, "| {name} | {version} |").expect("a String takes all");
        for cell in cells {
            let (mark, told) = match cell {
                Outcome::Right(told) => ("yes", told),
                Outcome::Wrong(told) => ("NO", told),
                Outcome::NotFor => {
                    text.push_str(" - |");
                    continue;
                }
            };
            write!(text, " {mark}: {} |", told.replace('|', "/")).expect("a String takes all");
        }
        text.push('\n');
    }
    text
}

/// The story of the team as Markdown, step by step; nothing when it was not told.
fn story(told: &[team::Told]) -> String {
    if told.is_empty() {
        return String::new();
    }
    let mut text = String::from(
        "\n## A team of three\n\n\
         Codex leads, Claude is spawned for it into a worktree, OpenCode joins: one server, one mock\n\
         model, and mail between them by the tools of the gateway.\n\n| step | seen |\n|---|---|\n",
    );
    for (title, outcome) in told {
        let (mark, seen) = match outcome {
            Outcome::Right(seen) => ("yes", seen.as_str()),
            Outcome::Wrong(seen) => ("NO", seen.as_str()),
            Outcome::NotFor => ("-", ""),
        };
        let seen = seen.replace('|', "/").replace('\n', " ");
        writeln!(text, "| {title} | {mark}: {seen} |").expect("a String takes all");
    }
    text
}

fn say(text: &str) {
    let mut out = std::io::stdout();
    drop(out.write_all(text.as_bytes()));
    drop(out.flush());
}

fn fail(text: &str) -> ExitCode {
    drop(writeln!(std::io::stderr(), "real-agents: {text}"));
    ExitCode::from(2)
}
