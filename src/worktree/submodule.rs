//! Submodules: work of theirs that goes with a worktree.
//!
//! Runs where [`super::tree`] looks for work. Their changed files are git's to tell; here are their commits.

use super::Shared;
use super::git::Call;
use super::tree::{Lost, Tree, Work};
use crate::error::Result;
use std::fs;

/// Submodules' own folders are looked for so deep.
const MODULE_DEPTH: usize = 8;

impl Shared {
    /// Submodules keep their commits inside git's record of the worktree: what no remote of theirs has goes with it.
    pub(super) fn look_at_submodules(&self, tree: &Tree, work: &mut Work) -> Result<()> {
        let Some(record) = &tree.record else { return Ok(()) };
        let mut folders = vec![(record.join("modules"), 0)];
        while let Some((folder, depth)) = folders.pop() {
            if folder.join("HEAD").is_file() && folder.join("objects").is_dir() {
                let args = [
                    "rev-list",
                    "--max-count=1",
                    "HEAD",
                    "--branches",
                    "--glob=refs/stash",
                    "--not",
                    "--remotes",
                    "--tags",
                ];
                let call = Call { git_dir: Some(&folder), ..Call::new(&folder, &args) };
                let outcome = self.ask(call)?;
                if !outcome.is_good() || !outcome.stdout.is_empty() {
                    let name = folder.strip_prefix(record).unwrap_or(&folder);
                    work.block(Lost {
                        kind: "submodule",
                        name: name.to_string_lossy().into_owned(),
                        detail: Some("it has commits that no remote of its has".to_owned()),
                    });
                }
            } else if depth < MODULE_DEPTH {
                let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
                folders.extend(entries.map(|entry| (entry.path(), depth + 1)));
            }
        }
        Ok(())
    }
}
