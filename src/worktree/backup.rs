//! The backup ref: one commit that holds all that a worktree had and nothing else has.
//!
//! Its tree is the working tree as it was (changed and new files, without what git ignores); its parents are the commit
//! that was checked out, the index when that differed from both, and the tips of all commits that no other ref
//! leads to. An older backup of the same worktree is a parent too, so writing one never takes another away. Promises:
//! when it returns, the ref is there and on the disk with all that it leads to (git does not sync single objects that
//! it writes); every error means that nothing of the worktree was touched.

use super::Shared;
use super::git::{self, Call, LONG_OUTPUT};
use super::tree::{Tree, Work};
use crate::error::{Code, Error, Result};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

/// Where backups are.
pub(super) fn backup_ref(worktree_id: &str) -> String {
    format!("refs/gooselake/backup/{worktree_id}")
}

impl Shared {
    /// The backup ref of the worktree, if it has one.
    pub(super) fn find_backup(&self, tree: &Tree) -> Result<Option<String>> {
        let name = backup_ref(&tree.worktree_id);
        Ok(self.ref_commit(&tree.common_dir, &name)?.map(|_| name))
    }

    /// Writes the backup ref of what `work` says would be lost. `with_files`: the working tree and the index too.
    pub(super) fn back_up(&self, tree: &Tree, work: &Work, with_files: bool) -> Result<String> {
        let name = backup_ref(&tree.worktree_id);
        let mark = git::mark(&tree.worktree_id);
        let common = tree.common_dir.as_path();
        let at_common = |args: &[&str]| -> Result<String> {
            let call = Call { git_dir: Some(common), mark: &mark, ..Call::new(common, args) };
            self.word(call)
        };
        let older = self.ref_commit(common, &name)?;
        let mut parents: Vec<String> = work.head.iter().cloned().collect();
        let mut held = None;
        if with_files && tree.is_there() && tree.record.is_some() {
            let (files, index) = self.trees_of(tree, &mark)?;
            if let Some(index) = index.filter(|index| *index != files) {
                let message = format!("gooselake: the index of worktree {}", tree.worktree_id);
                let mut args = vec!["commit-tree", "-m", &message];
                args.extend(work.head.iter().flat_map(|head| ["-p", head.as_str()]));
                args.push(&index);
                parents.push(at_common(&args)?);
            }
            held = Some(files);
        }
        for tip in work.tips.iter().chain(&older) {
            if !parents.contains(tip) {
                parents.push(tip.clone());
            }
        }
        let held = match held {
            Some(held) => held,
            None => {
                let Some(first) = parents.first() else {
                    return Err(Error::internal("there is nothing to back up"));
                };
                at_common(&["rev-parse", "--verify", &format!("{first}^{{tree}}")])?
            }
        };
        let message =
            format!("gooselake: what worktree {} held\n\n{}", tree.worktree_id, EXPLAINED);
        let mut args = vec!["commit-tree", "-m", message.as_str()];
        args.extend(parents.iter().flat_map(|parent| ["-p", parent.as_str()]));
        args.push(&held);
        let commit = at_common(&args)?;
        let before = older.unwrap_or_else(|| "0".repeat(commit.len()));
        let args = ["update-ref", "--no-deref", "-m", "gooselake: backup", &name, &commit, &before];
        at_common(&args)?;
        if self.ref_commit(common, &name)?.as_deref() != Some(commit.as_str()) {
            return Err(Error::internal(format!("the backup ref {name} is not there")));
        }
        sync_disk_of(common)?;
        Ok(name)
    }

    /// The working tree as a tree, and the index as another one; a merge with conflicts has no index that could be one.
    fn trees_of(&self, tree: &Tree, mark: &str) -> Result<(String, Option<String>)> {
        let scratch = self.scratch(tree)?;
        let with_index = |args: &[&'static str]| Call {
            index: Some(&scratch.path),
            stdout_max: LONG_OUTPUT,
            mark,
            ..tree.call(args)
        };
        let outcome = self.ask(with_index(&["write-tree"]))?;
        let index = String::from_utf8_lossy(&outcome.stdout).trim().to_owned();
        let index = outcome.is_good().then_some(index);
        let gitlinks = || -> Result<BTreeSet<Vec<u8>>> {
            let listed = self.tell(with_index(&["ls-files", "--stage", "-z"]))?;
            let entries = listed.split(|byte| *byte == 0);
            Ok(entries.filter(|entry| entry.starts_with(b"160000 ")).map(<[u8]>::to_vec).collect())
        };
        let before = gitlinks()?;
        self.tell(with_index(&["add", "--all", "--", "."]))?;
        if gitlinks()? != before {
            return Err(Error::new(
                Code::Conflict,
                "a repository inside the worktree appeared or changed; a backup can not hold it",
            ));
        }
        Ok((self.word(with_index(&["write-tree"]))?, index))
    }
}

/// Brings all that was written to the file system of this folder to its disk.
fn sync_disk_of(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?)).map_err(|error| {
        Error::internal(format!("the disk of {} can not be synced", folder.display())).source(error)
    })
}

/// For whoever finds the commit later.
const EXPLAINED: &str = "\
The tree is the working tree with its uncommitted and untracked files. The first
parent is the commit that was checked out; the others are the index, when it
differed, and commits that nothing else led to. To look: git log --graph. To take
the files back: git restore --source=<this commit> -- . When it is not needed any
more: git update-ref -d refs/gooselake/backup/<worktree>.";
