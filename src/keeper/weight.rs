//! What a kept child weighs: its processes, their memory, its journals. Read from `/proc` and the child's folder when
//! somebody asks, and empty for what is gone. Without a descriptor to read with it is not known, and not nothing.

use crate::error::{Error, Result};
use gg_keeper::tree::{self, Process};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;

/// A child and everything it has started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weight {
    pub processes: usize,
    /// Resident; pages that several share are counted for each.
    pub memory_bytes: u64,
}

/// A keeper that lives, and what it holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub child_id: String,
    pub keeper_pid: i32,
    pub weight: Weight,
    pub journal_bytes: u64,
}

/// Weighs all that is held under the folder of the keepers, by child. Errors: the folder can not be read, or there is
/// no descriptor to look with.
pub fn weigh_all(root: &Path) -> Result<Vec<Held>> {
    let mut pids = keeper_pids().map_err(unweighed)?;
    let child_ids = super::list(root)?.into_iter();
    let held: Vec<(String, i32)> = child_ids
        .filter_map(|child_id| pids.remove(&child_id).map(|pid| (child_id, pid)))
        .collect();
    let roots: Vec<i32> = held.iter().map(|(_, pid)| *pid).collect();
    let families = tree::families(&roots).map_err(unweighed)?;
    let weighed = held.into_iter().zip(families).map(|((child_id, keeper_pid), family)| {
        Ok(Held {
            weight: weigh(&family).map_err(unweighed)?,
            journal_bytes: journal_bytes(&root.join(&child_id))?,
            child_id,
            keeper_pid,
        })
    });
    weighed.collect()
}

/// The keepers of this machine by the name of the folder that they were given, which is the id of their child.
fn keeper_pids() -> io::Result<HashMap<String, i32>> {
    let Some(entries) = tree::seen(fs::read_dir("/proc"))? else { return Ok(HashMap::new()) };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let mut keepers = HashMap::new();
    for pid in pids {
        let line = tree::seen(fs::read(format!("/proc/{pid}/cmdline")))?.unwrap_or_default();
        keepers.extend(kept_child(&line).map(|child_id| (child_id, pid)));
    }
    Ok(keepers)
}

/// The child that a command line holds, if it is that of a keeper.
fn kept_child(line: &[u8]) -> Option<String> {
    let mut words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
    let program = words.next()?;
    let is_keeper = Path::new(&*program).file_name().is_some_and(|name| name == "gg-keeper");
    let dir = words.next().filter(|_| is_keeper)?;
    Some(Path::new(&*dir).file_name()?.to_str()?.to_owned())
}

/// Weighs the tree that the child with this pid belongs to: everything below its keeper. Errors: there is no descriptor
/// to look with.
pub fn weigh_tree(child_pid: i32) -> Result<Weight> {
    let weigh_tree = || match Process::look(child_pid)? {
        Some(child) => weigh(&tree::descendants(child.parent)?),
        None => Ok(Weight::default()),
    };
    weigh_tree().map_err(unweighed)
}

fn weigh(processes: &[Process]) -> io::Result<Weight> {
    let mut memory_bytes = 0;
    for process in processes {
        memory_bytes += resident_bytes(process.pid)?;
    }
    Ok(Weight { processes: processes.len(), memory_bytes })
}

/// The bytes of all journals in the folder of a child. Errors: there is no descriptor to look with.
pub fn journal_bytes(dir: &Path) -> Result<u64> {
    let Some(entries) = tree::seen(fs::read_dir(dir)).map_err(unweighed)? else { return Ok(0) };
    let is_segment =
        |name: &str| ["stdin.", "stdout.", "stderr."].iter().any(|prefix| name.starts_with(prefix));
    let bytes = entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_segment))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum();
    Ok(bytes)
}

fn unweighed(error: io::Error) -> Error {
    Error::internal(format!("what is kept can not be weighed: {error}"))
}

fn resident_bytes(pid: i32) -> io::Result<u64> {
    let status = tree::seen(fs::read_to_string(format!("/proc/{pid}/status")))?.unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    Ok(kib.unwrap_or(0) * 1024)
}
