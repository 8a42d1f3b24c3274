//! Children that were left: seen and ended from outside, without their keeper's socket.
//!
//! For the commands beside the server, and for a server that finds a child that nobody knows. Runs on the caller's
//! thread; processes are found by the mark in their environment.

use super::{Stream, sweep};
use crate::error::{Error, Result};
use gg_keeper::journal::Remains;
use gg_keeper::tree;
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// How many processes of this child live, its keeper among them. Errors: there is no descriptor to look with.
pub fn processes(child_id: &str) -> Result<usize> {
    Ok(marked(child_id)?.len())
}

/// Tells the child's keeper to end it (without one, the first of its processes), waits for the grace, and kills what is
/// left. The keeper writes how its child ended, so a server that takes the folder up later knows. Returns how many
/// processes there were. Errors: some of them can not be ended.
pub fn end(child_id: &str, grace: Duration) -> Result<usize> {
    let found = marked(child_id)?;
    // The keeper is nobody's child here, and ends what is below it in its own order.
    let is_root = |process: &&tree::Process| !found.iter().any(|other| other.pid == process.parent);
    let roots = found.iter().filter(is_root);
    let pidfds: Vec<_> = roots.filter_map(|process| process.signal(Signal::TERM)).collect();
    // A keeper gives its tree the grace and then needs a moment of its own.
    let deadline = Instant::now() + grace + KEEPER_MOMENT;
    for pidfd in &pidfds {
        tree::wait_readable(pidfd, deadline);
    }
    sweep(child_id)?;
    Ok(found.len())
}

fn marked(child_id: &str) -> Result<Vec<tree::Process>> {
    tree::marked(child_id).map_err(|error| {
        Error::internal(format!("the processes of {child_id} can not be looked for")).source(error)
    })
}

/// How long a keeper may take from the end of its tree to its own.
const KEEPER_MOMENT: Duration = Duration::from_secs(2);

/// The first offset that a stream's journal still has, and where it ends.
pub fn journal_span(dir: &Path, stream: Stream) -> Result<(u64, u64)> {
    span(dir, stream.as_str())
}

/// The same for what was sent to the child.
pub fn stdin_span(dir: &Path) -> Result<(u64, u64)> {
    span(dir, "stdin")
}

fn span(dir: &Path, name: &'static str) -> Result<(u64, u64)> {
    let remains = Remains::open(dir, name).map_err(|error| {
        Error::internal(format!("the journals in {} can not be read", dir.display())).source(error)
    })?;
    Ok((remains.base(), remains.end()))
}
