//! What a kept child weighs: its processes, their memory, its journals. Read from `/proc` and the child's folder when
//! somebody asks, and empty for what is gone.

use crate::error::Result;
use gg_keeper::tree::{self, Process};
use std::collections::HashMap;
use std::fs;
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

/// Weighs all that is held under the folder of the keepers, by child. Errors: the folder can not be read.
pub fn weigh_all(root: &Path) -> Result<Vec<Held>> {
    let mut pids = keeper_pids();
    let child_ids = super::list(root)?.into_iter();
    let held: Vec<(String, i32)> = child_ids
        .filter_map(|child_id| pids.remove(&child_id).map(|pid| (child_id, pid)))
        .collect();
    let roots: Vec<i32> = held.iter().map(|(_, pid)| *pid).collect();
    let families = tree::families(&roots);
    let weighed = held.into_iter().zip(families).map(|((child_id, keeper_pid), family)| Held {
        weight: weigh(&family),
        journal_bytes: journal_bytes(&root.join(&child_id)),
        child_id,
        keeper_pid,
    });
    Ok(weighed.collect())
}

/// The keepers of this machine by the name of the folder that they were given, which is the id of their child.
fn keeper_pids() -> HashMap<String, i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let keepers = pids.filter_map(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word));
        let program = words.next()?;
        let is_keeper = Path::new(&*program).file_name().is_some_and(|name| name == "gg-keeper");
        let dir = words.next().filter(|_| is_keeper)?;
        Some((Path::new(&*dir).file_name()?.to_str()?.to_owned(), pid))
    });
    keepers.collect()
}

/// Weighs the tree that the child with this pid belongs to: everything below its keeper.
pub fn weigh_tree(child_pid: i32) -> Weight {
    let Some(child) = Process::look(child_pid) else { return Weight::default() };
    weigh(&tree::descendants(child.parent))
}

fn weigh(processes: &[Process]) -> Weight {
    let memory_bytes = processes.iter().map(|process| resident_bytes(process.pid)).sum();
    Weight { processes: processes.len(), memory_bytes }
}

/// The bytes of all journals in the folder of a child.
pub fn journal_bytes(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let is_segment =
        |name: &str| ["stdin.", "stdout.", "stderr."].iter().any(|prefix| name.starts_with(prefix));
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_segment))
        .filter_map(|entry| entry.metadata().ok())
        .map(|metadata| metadata.len())
        .sum()
}

fn resident_bytes(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}
