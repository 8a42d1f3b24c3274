//! Taking a worktree away, so that nothing it holds is lost.
//!
//! Runs on the caller's thread, which holds the worktree's lock; the repository's is taken for the last part. The
//! order: look; move the folder into the trash (one rename, so there is no half of it); look again and write the backup
//! ref; drop git's record; delete the branch, if it is still where it was seen; empty the trash. Up to the drop of the
//! record every failure moves the folder back; a crash is taken up by [`super::repair`] from whatever it finds.

use super::Shared;
use super::git::{self, Call};
use super::lock::Locked;
use super::tree::{Lost, Tree, Work, is_repository};
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

/// What the second look has come to.
struct Secured {
    work: Work,
    is_kept: bool,
    backup_ref: Option<String>,
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
            _ => self.work_of(&tree, None)?,
        };
        let is_work = work.is_dirty() || work.is_unmerged();
        if !work.blockers.is_empty() || is_work && force == Force::No {
            return Ok(Removed::Kept(Box::new(work)));
        }
        // A removal that was cut off may have written one.
        let mut gone = Gone { backup_ref: self.find_backup(&tree)?, ..Gone::default() };
        let repository = self.lock_repository(&tree.common_dir)?;
        let is_there = tree.is_there();
        // Submodules know by themselves where they are, and git asks them: they are looked at in their place.
        let moves_late = tree.has_submodules();
        if is_there && !moves_late {
            self.move_to_trash(&mut tree)?;
        }
        let secured = self.secure(&tree, &repository, work, force).and_then(|secured| {
            if !secured.is_kept {
                if is_there && moves_late {
                    self.move_to_trash(&mut tree)?;
                }
                self.drop_record(&tree).or_else(|error| match error.code {
                    Code::ShuttingDown => Err(error),
                    _ if is_dropped(&tree) => Ok(()),
                    _ => Err(error),
                })?;
            }
            Ok(secured)
        });
        let secured = match secured {
            Ok(Secured { is_kept: false, work, backup_ref }) => {
                gone.backup_ref = backup_ref.or(gone.backup_ref);
                work
            }
            other => {
                // Without a record it would be no worktree there: a git that was ended may have done its work before.
                if tree.folder != tree.home && !is_dropped(&tree) {
                    put_back(&tree.folder, &tree.home)?;
                }
                return other.map(|secured| Removed::Kept(Box::new(secured.work)));
            }
        };
        self.delete_branch(&tree, &secured, &mut gone)?;
        // A removal that was cut off may have left it there, or may have done all but to write it down.
        let was_begun = record.status == "removing";
        gone.is_folder_deleted = was_begun || self.trash_of(&record.id).symlink_metadata().is_ok();
        gone.is_branch_deleted |=
            was_begun && self.ref_commit(&tree.common_dir, &tree.branch_ref())?.is_none();
        self.empty_trash(&record.id, &mut gone);
        if let Some(parent) = tree.home.parent() {
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

    /// The second look: what came in between is seen, and kept or put into the backup with the rest.
    fn secure(
        &self,
        tree: &Tree,
        repository: &Locked,
        before: Work,
        force: Force,
    ) -> Result<Secured> {
        let work = match force {
            Force::Unused => before,
            _ => self.work_of(tree, Some(repository))?,
        };
        let is_work = work.is_dirty() || work.is_unmerged();
        if !work.blockers.is_empty() || is_work && force == Force::No {
            return Ok(Secured { work, is_kept: true, backup_ref: None });
        }
        let with_files = work.is_dirty() && tree.is_there() && tree.record.is_some();
        let backup_ref = match with_files || !work.tips.is_empty() {
            true => Some(self.back_up(tree, &work, with_files)?),
            false => None,
        };
        Ok(Secured { work, is_kept: false, backup_ref })
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
    pub(super) fn take_back(&self, tree: &Tree) -> Result<()> {
        let trash = self.trash_of(&tree.worktree_id);
        if tree.record.is_some() && !tree.is_there() && trash.symlink_metadata().is_ok() {
            put_back(&trash, &tree.folder)?;
        }
        Ok(())
    }

    /// Git forgets the worktree. Its folder is not there, so git deletes nothing else.
    fn drop_record(&self, tree: &Tree) -> Result<()> {
        let Some(record) = &tree.record else { return Ok(()) };
        let mark = git::mark(&tree.worktree_id);
        let home = tree.home.to_string_lossy();
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
    /// the removal: it is told. Errors: the server stops, and the next one goes on from here.
    fn delete_branch(&self, tree: &Tree, work: &Work, gone: &mut Gone) -> Result<()> {
        let Some(tip) = &work.branch_tip else { return Ok(()) };
        let mark = git::mark(&tree.worktree_id);
        let common = tree.common_dir.as_path();
        let at_common = |args: &[&str]| -> Result<String> {
            let call = Call { git_dir: Some(common), mark: &mark, ..Call::new(common, args) };
            self.word(call)
        };
        let name = tree.branch_ref();
        let is_used = at_common(&["worktree", "list", "--porcelain"])
            .map(|told| told.lines().any(|line| line.strip_prefix("branch ") == Some(&name)));
        let deleted = is_used.and_then(|is_used| match is_used {
            true => Err(Error::new(Code::Conflict, "another worktree stands on it")),
            // A branch may be another name of one that is not ours: that one stays.
            false => at_common(&["update-ref", "--no-deref", "-d", &name, tip]),
        });
        match deleted {
            Ok(_) => gone.is_branch_deleted = true,
            Err(error) if error.code == Code::ShuttingDown => return Err(error),
            Err(error) => {
                gone.diagnostics.push(format!("{} stays: {}", tree.branch_name, error.message));
                return Ok(());
            }
        }
        let section = format!("branch.{}", tree.branch_name);
        // It may have none.
        drop(at_common(&["config", "--local", "--remove-section", &section]));
        Ok(())
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

/// Whether git has taken its record of the worktree away, or has begun to: what is left is of no use, and goes.
fn is_dropped(tree: &Tree) -> bool {
    let Some(record) = tree.record.as_ref().filter(|_| is_repository(&tree.common_dir)) else {
        return false;
    };
    let is_whole = ["HEAD", "commondir", "gitdir"].iter().all(|name| record.join(name).exists());
    if !is_whole {
        // What stays is an unreadable record, which the next look tells.
        drop(fs::remove_dir_all(record));
    }
    !is_whole
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
