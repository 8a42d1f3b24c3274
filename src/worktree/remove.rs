//! Taking a worktree away, so that nothing it holds is lost.
//!
//! Runs on the caller's thread, which holds the worktree's lock; the repository's is taken for the last part. The
//! order: look; move the folder into the trash (one rename, so there is no half of it); look again, or write the backup
//! ref; drop git's record; delete the branch, if it is still where it was seen; empty the trash. Up to the drop of the
//! record every failure moves the folder back; a crash is taken up by [`super::repair`] from whatever it finds.

use super::Shared;
use super::git::{self, Call};
use super::tree::{Lost, Tree, Work};
use crate::error::{Code, Error, Result};
use crate::ledger::worktree::WorktreeRecord;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// How it ended.
pub(super) enum Removed {
    Gone(Gone),
    /// It is where it was, and why.
    Kept(Box<Work>),
}

/// What is gone, and what is not although it should be.
#[derive(Debug, Default)]
pub(super) struct Gone {
    pub is_folder_deleted: bool,
    pub is_branch_deleted: bool,
    pub backup_ref: Option<String>,
    pub diagnostics: Vec<String>,
}

/// How much may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// Only what holds no work.
    No,
    /// Whatever a backup ref can hold.
    WithBackup,
    /// All of it: nobody has ever worked in it, all that is there was git's own doing.
    Unused,
}

impl Shared {
    /// Takes the worktree away, or says why not. Errors: something failed, and the worktree is still there.
    pub(super) fn remove(&self, record: &WorktreeRecord, force: Force) -> Result<Removed> {
        let mut tree = Tree::of(record);
        self.take_back(&tree)?;
        let work = match force {
            Force::Unused => self.work_of_nobody(&tree, &record.base_commit)?,
            _ => self.work_of(&tree)?,
        };
        let is_work = work.is_dirty() || work.is_unmerged();
        if !work.blockers.is_empty() || is_work && force == Force::No {
            return Ok(Removed::Kept(Box::new(work)));
        }
        let mut gone = Gone::default();
        let _repository = self.lock_repository(&tree.common_dir)?;
        let home = tree.folder.clone();
        let is_there = tree.is_there();
        if is_there {
            self.move_to_trash(&mut tree)?;
        }
        let secured = self.secure(&tree, &work, force);
        let secured = secured.and_then(|secured| match secured {
            Ok(backup_ref) => {
                gone.backup_ref = backup_ref;
                self.drop_record(&tree, &home).map(|()| None)
            }
            Err(late) => Ok(Some(late)),
        });
        match secured {
            Ok(None) => {}
            other => {
                if is_there {
                    put_back(&tree.folder, &home)?;
                }
                return other.map(|late| Removed::Kept(late.unwrap_or_default()));
            }
        }
        self.delete_branch(&tree, &work, &mut gone);
        // A removal that was cut off may have left it there.
        gone.is_folder_deleted = self.trash_of(&record.id).symlink_metadata().is_ok();
        self.empty_trash(&record.id, &mut gone);
        if let Some(parent) = home.parent() {
            // The repository's own folder goes with its last worktree; an error says that there are others.
            drop(fs::remove_dir(parent));
        }
        Ok(Removed::Gone(gone))
    }

    /// Of a worktree that nobody has been told of: the branch, as long as it is where it began.
    fn work_of_nobody(&self, tree: &Tree, base_commit: &str) -> Result<Work> {
        let tip = self.ref_commit(&tree.common_dir, &tree.branch_ref())?;
        Ok(Work { branch_tip: tip.filter(|tip| tip == base_commit), ..Work::default() })
    }

    /// After the move: nothing came in between, or all of it is in the backup. The inner error is work that came late.
    fn secure(
        &self,
        tree: &Tree,
        work: &Work,
        force: Force,
    ) -> Result<std::result::Result<Option<String>, Box<Work>>> {
        let is_looked_at = tree.is_there() && tree.record.is_some();
        if force == Force::No {
            let mut late = Work::default();
            // Its submodules think that they are elsewhere now; they were clean a moment ago.
            let has_submodules =
                tree.record.as_ref().is_some_and(|record| record.join("modules").exists());
            if is_looked_at && !has_submodules {
                self.look_at_files(tree, &mut late)?;
            }
            if late.is_dirty() {
                return Ok(Err(Box::new(late)));
            }
        }
        let with_files = force == Force::WithBackup && work.is_dirty() && is_looked_at;
        if !with_files && work.tips.is_empty() {
            return Ok(Ok(None));
        }
        self.back_up(tree, work, with_files).map(|name| Ok(Some(name)))
    }

    fn move_to_trash(&self, tree: &mut Tree) -> Result<()> {
        let trash = self.trash_of(&tree.worktree_id);
        let failed = |error: std::io::Error| {
            Error::new(
                Code::Conflict,
                format!("{} can not be moved to {}", tree.folder.display(), trash.display()),
            )
            .source(error)
        };
        fs::create_dir_all(self.trash_dir()).map_err(failed)?;
        fs::rename(&tree.folder, &trash).map_err(failed)?;
        tree.folder = trash;
        Ok(())
    }

    /// A removal that was cut off before git's record was dropped: the folder goes back to its place.
    fn take_back(&self, tree: &Tree) -> Result<()> {
        let trash = self.trash_of(&tree.worktree_id);
        if tree.record.is_some() && !tree.is_there() && trash.symlink_metadata().is_ok() {
            put_back(&trash, &tree.folder)?;
        }
        Ok(())
    }

    /// Git forgets the worktree. Its folder is not there, so git deletes nothing else.
    fn drop_record(&self, tree: &Tree, home: &Path) -> Result<()> {
        let Some(record) = &tree.record else { return Ok(()) };
        let mark = git::mark(&tree.worktree_id);
        let home = home.to_string_lossy();
        let common = tree.common_dir.as_path();
        let at_common = |args: &[&str]| -> Result<()> {
            let call = Call { git_dir: Some(common), mark: &mark, ..Call::new(common, args) };
            self.tell(call).map(|_| ())
        };
        if record.join("locked").exists() {
            at_common(&["worktree", "unlock", "--", &home])?;
        }
        at_common(&["worktree", "remove", "--", &home])
    }

    /// Deletes the branch if it is where it was seen and nobody else stands on it. A branch that stays is no failure of
    /// the removal: it is told.
    fn delete_branch(&self, tree: &Tree, work: &Work, gone: &mut Gone) {
        let Some(tip) = &work.branch_tip else { return };
        let mark = git::mark(&tree.worktree_id);
        let common = tree.common_dir.as_path();
        let at_common = |args: &[&str]| -> Result<String> {
            let call = Call { git_dir: Some(common), mark: &mark, ..Call::new(common, args) };
            self.word(call)
        };
        let name = tree.branch_ref();
        let is_used = at_common(&["worktree", "list", "--porcelain"])
            .map(|told| told.lines().any(|line| line.strip_prefix("branch ") == Some(&name)));
        match is_used {
            Ok(false) => {}
            Ok(true) => {
                let branch = &tree.branch_name;
                gone.diagnostics.push(format!("{branch} stays: another worktree stands on it"));
                return;
            }
            Err(error) => {
                gone.diagnostics.push(format!("{} stays: {}", tree.branch_name, error.message));
                return;
            }
        }
        match at_common(&["update-ref", "-d", &name, tip]) {
            Ok(_) => gone.is_branch_deleted = true,
            Err(error) => {
                gone.diagnostics.push(format!("{} stays: {}", tree.branch_name, error.message));
                return;
            }
        }
        let section = format!("branch.{}", tree.branch_name);
        // It may have none.
        drop(at_common(&["config", "--local", "--remove-section", &section]));
    }

    /// Deletes what a removal has moved away. What can not be deleted now is tried again by the next start.
    pub(super) fn empty_trash(&self, worktree_id: &str, gone: &mut Gone) {
        let trash = self.trash_of(worktree_id);
        if let Err(error) = delete_all(&trash) {
            let message = format!("{} can not be emptied: {error}", trash.display());
            log::warn!("{message}");
            gone.diagnostics.push(message);
        }
    }

    pub(super) fn trash_dir(&self) -> PathBuf {
        self.config.worktrees.root_dir.join(".trash")
    }

    /// As deep as a worktree's own folder, so that relative links in it lead where they led.
    fn trash_of(&self, worktree_id: &str) -> PathBuf {
        self.trash_dir().join(worktree_id)
    }
}

fn put_back(trash: &Path, home: &Path) -> Result<()> {
    let failed = |error: std::io::Error| {
        Error::new(
            Code::Conflict,
            format!("{} can not be moved back to {}", trash.display(), home.display()),
        )
        .hint("nothing of it is lost: move it back by hand")
        .source(error)
    };
    if home.symlink_metadata().is_ok() {
        return Err(failed(std::io::Error::other("something else is there")));
    }
    if let Some(parent) = home.parent() {
        fs::create_dir_all(parent).map_err(failed)?;
    }
    fs::rename(trash, home).map_err(failed)
}

/// Deletes a folder with all it holds; links are deleted and not followed. Folders that are write-protected (caches of
/// some tools are) are made writable first.
pub(super) fn delete_all(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => {
            make_writable(folder);
            fs::remove_dir_all(folder)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn make_writable(folder: &Path) {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What can not be changed is told by the deletion.
        drop(fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)));
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(entry.path());
            }
        }
    }
}

impl Work {
    /// What would be lost, for a person and a program.
    pub(super) fn listed(&self) -> Vec<Lost> {
        self.dirty.iter().chain(&self.unmerged).cloned().collect()
    }
}
