//! What a kept child weighs: its processes, their memory, its journals. Read from `/proc` and the child's folder when
//! somebody asks, and empty for what is gone.

use gg_keeper::tree::{self, Process};
use std::fs;
use std::path::Path;

/// A child and everything it has started.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weight {
    pub processes: usize,
    /// Resident; pages that several share are counted for each.
    pub memory_bytes: u64,
}

/// Weighs the tree that the child with this pid belongs to: everything below its keeper.
pub fn weigh_tree(child_pid: i32) -> Weight {
    let Some(child) = Process::look(child_pid) else { return Weight::default() };
    let processes = tree::descendants(child.parent);
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
