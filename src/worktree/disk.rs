//! How much disk each worktree takes.
//!
//! Runs on the thread of the request for diagnostics: a walk that follows no link, with a bound on entries and on time,
//! whose results are kept for a while. A walk that was cut says so; the next request goes on with the worktrees that
//! this one did not get to.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Disk use of one worktree, as it was seen.
#[derive(Clone, Copy, Debug)]
pub struct DiskUse {
    pub bytes: u64,
    pub files: u64,
    /// There is more.
    pub is_partial: bool,
}

#[derive(Default)]
pub(super) struct DiskCache {
    seen: Mutex<HashMap<String, (Instant, DiskUse)>>,
}

/// How long a result is good.
const KEPT: Duration = Duration::from_secs(60);
/// Files and folders of one worktree.
const ENTRIES_MAX: u64 = 500_000;

impl DiskCache {
    /// Disk use of these worktrees, by id; None for those that there was no time for.
    pub(super) fn of(
        &self,
        worktrees: &[(String, String)],
        at_most: Duration,
    ) -> Vec<Option<DiskUse>> {
        let deadline = Instant::now() + at_most;
        let is_wanted = |id: &String| worktrees.iter().any(|(wanted, _)| wanted == id);
        self.lock().retain(|id, (at, _)| at.elapsed() < KEPT && is_wanted(id));
        let mut found = Vec::new();
        for (id, folder) in worktrees {
            let kept = self.lock().get(id).map(|(_, seen)| *seen);
            if kept.is_some() || Instant::now() >= deadline {
                found.push(kept);
                continue;
            }
            let seen = walk(Path::new(folder), deadline);
            self.lock().insert(id.clone(), (Instant::now(), seen));
            found.push(Some(seen));
        }
        found
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, (Instant, DiskUse)>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn walk(folder: &Path, deadline: Instant) -> DiskUse {
    let mut seen = DiskUse { bytes: 0, files: 0, is_partial: false };
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if seen.files >= ENTRIES_MAX || Instant::now() >= deadline {
                seen.is_partial = true;
                return seen;
            }
            // Of a link this is the link.
            let Ok(metadata) = entry.metadata() else { continue };
            seen.files += 1;
            seen.bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_ends_in_time_and_says_so() {
        let folder = std::env::temp_dir().join(format!("gg-disk-{}", std::process::id()));
        fs::create_dir_all(folder.join("a/b")).unwrap();
        fs::write(folder.join("a/b/file"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("/", folder.join("everything")).unwrap();
        let cache = DiskCache::default();
        let named = [("w".to_owned(), folder.to_string_lossy().into_owned())];
        let none = cache.of(&named, Duration::ZERO);
        assert!(none[0].is_none());
        let seen = cache.of(&named, Duration::from_secs(30))[0].unwrap();
        assert!(!seen.is_partial && seen.bytes >= 100_000 && seen.files == 4, "{seen:?}");
        assert!(walk(&folder, Instant::now()).is_partial);
        fs::remove_dir_all(&folder).unwrap();
    }
}
