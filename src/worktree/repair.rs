//! The thread `worktrees`: first what the last server left, then the worktrees of sessions that end.
//!
//! It waits in one place, for the word that something may be due and for the next try of what could not be done, and
//! ends when the server stops. At the start it looks at each worktree that is not deleted: creations are taken back,
//! removals finished, and what went wrong on disk meanwhile is mended or told. Creations and removals that come to no
//! end later, since the disk is full or errs, are left to it too. A request waits for it only where it asks for a
//! worktree that is left to it, and for the lock of one that it works on. It never waits for a lock itself: who holds
//! it says so when it is free.

use super::Shared;
use super::cleanup::Telling;
use super::file::read_text;
use super::git::{self, Call};
use super::remove::{self, Force};
use super::run;
use super::tree::{self, Tree};
use crate::error::{Code, Result};
use crate::ledger::worktree::{self, WorktreeRecord};
use crate::thread;
use crate::tries::{Pauses, Tries};
use crate::watchdog;
use crossbeam_channel::Receiver;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// An index lock that is older than this belongs to nobody who is still at work.
const INDEX_LOCK_AGE: Duration = Duration::from_secs(600);

/// Why a creation is taken back, and what of it may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unmade {
    pub reason: &'static str,
    pub force: Force,
}

impl Unmade {
    /// By a crash, or by whatever else: nobody knows any more why.
    pub(super) const CUT_OFF: Unmade =
        Unmade { reason: "startup_create_unfinished", force: Force::WithBackup };
}

/// The body of the thread. `left` is what the last server left, read before the first request.
pub(super) fn serve(shared: &Arc<Shared>, left: &[WorktreeRecord], due: &Receiver<()>) {
    watchdog::watch();
    let (mut is_swept, mut pauses) = (false, Pauses::default());
    let body = || {
        // Once: what is in the trash later may be somebody's who is at work.
        if !std::mem::replace(&mut is_swept, true) {
            shared.sweep_trash(left);
        }
        take_up(shared, due);
    };
    thread::run_anew(body, || pauses.rest(due, || shared.stop.is_stopped()));
}

/// Takes up what is left and what is due until the server stops.
fn take_up(shared: &Arc<Shared>, due: &Receiver<()>) {
    let mut tries = Tries::default();
    while !shared.stop.is_stopped() {
        let now = Instant::now();
        shared.look_at_left(&mut tries, now);
        shared.clean_up_due(&mut tries, now);
        // The sender is in `shared`: it is the stop that ends this.
        if !tries.rest(due, now) {
            return;
        }
    }
}

impl Shared {
    /// These have to be looked at; said before the first request.
    pub(super) fn expect(&self, left: &[WorktreeRecord]) {
        let ids = left.iter().map(|record| record.id.clone());
        self.left().extend(ids.map(|id| (id, Unmade::CUT_OFF)));
    }

    /// Leaves a creation or a removal that came to no end to the thread. Does not wait.
    pub(super) fn leave(&self, worktree_id: &str, unmade: Unmade) {
        self.left().entry(worktree_id.to_owned()).or_insert(unmade);
        // A full channel has told it already.
        let _: std::result::Result<(), _> = self.due.try_send(());
    }

    /// Looks at a worktree now if the thread has not come to it yet, or waits until it has: whoever asks for it again
    /// after a crash need not hear of what the last server did not finish. Returns whether there was anything to do.
    pub(super) fn settle(&self, worktree_id: &str) -> Result<bool> {
        let Some(unmade) = self.left().get(worktree_id).copied() else { return Ok(false) };
        let _lock = self.lock_worktree(worktree_id)?;
        self.repair(worktree_id, &unmade)?;
        Ok(true)
    }

    fn left(&self) -> MutexGuard<'_, BTreeMap<String, Unmade>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at each that is left. What could not be finished stays, and is tried again; what is locked is passed by.
    fn look_at_left(&self, tries: &mut Tries, now: Instant) {
        let left: Vec<(String, Unmade)> =
            self.left().iter().map(|(id, unmade)| (id.clone(), *unmade)).collect();
        for (worktree_id, unmade) in left {
            if self.stop.is_stopped() {
                return;
            }
            if !tries.is_due(&worktree_id, now) {
                continue;
            }
            let Some(_lock) = self.try_lock_worktree(&worktree_id) else { continue };
            match thread::survive(|| self.repair(&worktree_id, &unmade)) {
                Err(error) if self.is_unfinished(&worktree_id) => {
                    log::error!("worktree {worktree_id} is taken up again: {error}");
                    tries.failed(&worktree_id);
                    continue;
                }
                Err(error) => log::error!("worktree {worktree_id} can not be looked at: {error}"),
                Ok(()) => {}
            }
            self.left().remove(&worktree_id);
        }
    }

    /// Whether its creation or its removal has not come to an end; so it is, too, while that can not be read.
    fn is_unfinished(&self, worktree_id: &str) -> bool {
        let record = self.ledger.read(|db| worktree::get(db, worktree_id));
        record.map_or(true, |record| matches!(record.status.as_str(), "creating" | "removing"))
    }

    fn repair(&self, worktree_id: &str, unmade: &Unmade) -> Result<()> {
        let record = self.ledger.read(|db| worktree::get(db, worktree_id))?;
        match record.status.as_str() {
            "creating" => {
                // What the last server started may still be at work.
                run::sweep(&git::script_mark(worktree_id));
                run::let_end(&git::mark(worktree_id));
                remove_lock_left(&Tree::of(&record), record.created_at);
                self.try_undo(worktree_id, unmade)
            }
            "removing" => {
                run::let_end(&git::mark(worktree_id));
                let reason = record.cleanup_reason.clone().unwrap_or_default();
                let is_forced = record.is_cleanup_forced;
                let force = if is_forced { Force::WithBackup } else { Force::No };
                self.clean_up(worktree_id, &reason, force, Telling::EachTime).map(|_| ())
            }
            "deleted" => Ok(()),
            _ => self.look_after(&record),
        }
    }

    /// Compares record and disk; mends what can be mended without a guess, and tells the rest.
    fn look_after(&self, record: &WorktreeRecord) -> Result<()> {
        let mut tree = Tree::of(record);
        self.take_back(&tree)?;
        let mut repair = "none";
        let mut problem = None;
        if !tree::is_repository(&tree.common_dir) {
            problem = Some("repository_gone");
        } else if !tree.is_there() {
            problem = Some("folder_gone");
        } else if tree.record.is_none() {
            let folder = record.worktree_cwd.as_str();
            let call = Call {
                git_dir: Some(&tree.common_dir),
                ..Call::new(&tree.common_dir, &["worktree", "repair", "--", folder])
            };
            // What it says is of no use when the record stays away.
            drop(self.ask(call)?);
            tree = Tree::of(record);
            match tree.record {
                Some(_) => repair = "git_record_restored",
                None => problem = Some("git_record_gone"),
            }
        }
        if problem.is_none() && self.ref_commit(&tree.common_dir, &tree.branch_ref())?.is_none() {
            match self.restore_branch(&tree)? {
                true => repair = "branch_restored",
                false => problem = Some("branch_gone"),
            }
        }
        if problem.is_none() && tree.lock_reason().is_some() {
            problem = Some("locked");
        }
        if problem.is_none() && is_index_locked(&tree) {
            problem = Some("index_locked");
        }
        let status = if problem == Some("folder_gone") { "missing" } else { "ready" };
        if record.status == status && record.problem.as_deref() == problem && repair == "none" {
            return Ok(());
        }
        let id = record.id.clone();
        self.ledger.write(move |tx| tx.set_worktree_problem(&id, status, problem, repair))
    }

    /// The worktree stands on its branch and the branch is not there: it is made anew where the worktree last stood.
    fn restore_branch(&self, tree: &Tree) -> Result<bool> {
        let Some(record) = &tree.record else { return Ok(false) };
        let head = read_text(&record.join("HEAD")).unwrap_or_default();
        if head.trim() != format!("ref: {}", tree.branch_ref()) {
            return Ok(false);
        }
        for commit in tree.stood_at() {
            let name = format!("{commit}^{{commit}}");
            if self.ref_commit(&tree.common_dir, &name)?.is_none() {
                continue;
            }
            let (branch_ref, nothing) = (tree.branch_ref(), "0".repeat(commit.len()));
            let reason = "gooselake: restored";
            let args = ["update-ref", "--no-deref", "-m", reason, &branch_ref, &commit, &nothing];
            let call =
                Call { git_dir: Some(&tree.common_dir), ..Call::new(&tree.common_dir, &args) };
            return Ok(self.ask(call)?.is_good());
        }
        Ok(false)
    }

    /// Deletes what removals have moved away and could not delete, and copies of indexes.
    fn sweep_trash(&self, left: &[WorktreeRecord]) {
        let names = |folder| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            entries.map(|entry| entry.path()).collect::<Vec<_>>()
        };
        for path in names(self.trash_dir()) {
            let is_living = left.iter().any(|record| path.ends_with(&record.id));
            if !is_living && is_undecided(&path) {
                let name = path.display();
                log::warn!("{name} is no worktree of ours, but one of git's: it stays");
            } else if !is_living && let Err(error) = remove::delete_all(&path) {
                log::warn!("{} can not be emptied: {error}", path.display());
            }
        }
    }

    /// Cleans up after sessions that have ended. What can not be done is tried again; what is locked is passed by.
    fn clean_up_due(&self, tries: &mut Tries, now: Instant) {
        const LOOK: &str = "the look for what is due";
        let due = match self.ledger.read(worktree::due) {
            Ok(due) => due,
            Err(error) => {
                log::error!("it can not be read which worktrees are due: {error}");
                return tries.failed(LOOK);
            }
        };
        tries.keep(|id| self.left().contains_key(id) || due.iter().any(|due| due == id));
        for worktree_id in due {
            if self.stop.is_stopped() {
                return;
            }
            if !tries.is_due(&worktree_id, now) {
                continue;
            }
            let Some(_lock) = self.try_lock_worktree(&worktree_id) else { continue };
            match thread::survive(|| self.clean_up_after_session(&worktree_id)) {
                Ok(()) => {}
                Err(error) if error.code == Code::ShuttingDown => return,
                Err(error) => {
                    log::error!("worktree {worktree_id} is cleaned up later: {error}");
                    tries.failed(&worktree_id);
                }
            }
        }
    }

    fn clean_up_after_session(&self, worktree_id: &str) -> Result<()> {
        let record = self.ledger.read(|db| worktree::get(db, worktree_id))?;
        // Somebody may have claimed it, or done the work, meanwhile.
        let Some(reason) = record.cleanup_reason else { return Ok(()) };
        self.clean_up(worktree_id, &reason, Force::No, Telling::EachTime).map(|_| ())
    }
}

/// Whether git knows the worktree in the trash still, and in no other place: its removal was cut off before it was
/// clear that nothing is lost, and this database does not know of it.
fn is_undecided(folder: &Path) -> bool {
    let text = read_text(&folder.join(".git")).unwrap_or_default();
    let Some(record) = text.strip_prefix("gitdir: ") else { return false };
    let home = tree::home_of(&folder.join(record.trim_end_matches('\n')));
    home.is_some_and(|home| home.symlink_metadata().is_err())
}

/// Takes away the lock of the branch, when git made it for this creation and was killed with it: nothing else would,
/// and nobody could make the branch again. All of git that the creation has started has ended by now.
fn remove_lock_left(tree: &Tree, created_at: i64) {
    let path = tree.common_dir.join(format!("{}.lock", tree.branch_ref()));
    let made = path.symlink_metadata().and_then(|metadata| metadata.modified());
    let made_at = made.ok().and_then(|made| made.duration_since(SystemTime::UNIX_EPOCH).ok());
    let is_ours = made_at.is_some_and(|at| at.as_millis() >= created_at.unsigned_abs().into());
    if !is_ours {
        return;
    }
    match fs::remove_file(&path) {
        Ok(()) => log::warn!("{} was left by a git that was killed; it is removed", path.display()),
        Err(error) => log::warn!("{} can not be removed: {error}", path.display()),
    }
}

fn is_index_locked(tree: &Tree) -> bool {
    let path = tree.record.as_ref().map(|record| record.join("index.lock"));
    let made = path.and_then(|path| path.metadata().ok()?.modified().ok());
    let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
    age.is_some_and(|age| age > INDEX_LOCK_AGE)
}
