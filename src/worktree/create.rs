//! Making a worktree: a saga of steps, each of which the next start can undo.
//!
//! Runs on the thread of the request. The intent is committed first; git makes branch and record under the lock of the
//! repository; the files come, and the init script runs, under the lock of the worktree alone; the record becomes
//! `ready` in the transaction of whoever wants it ([`Draft`]), so that a session and its worktree appear together or
//! not at all. What fails on the way is taken back; what holds work by then stays, or goes into a backup ref.

use super::cleanup::Telling;
use super::git::{self, Call, Repo};
use super::init::Scene;
use super::lock::Locked;
use super::name::{self, Place};
use super::remove::{Force, Removed};
use super::repair::Unmade;
use super::tree::Tree;
use super::{Shared, WorktreeRequest, Worktrees};
use crate::error::{Code, Error, Result};
use crate::ledger::idempotency::{self, IdempotencyKey};
use crate::ledger::worktree::{self, NewWorktree, WorktreeRecord};
use crate::model::event::EventKind;
use crate::model::id;
use crate::model::worktree::InitScriptStatus;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What a request for a worktree has come to.
pub enum Prepared {
    /// It is on disk and nobody knows of it.
    Made(Draft),
    /// A request with the same key has made it.
    Repeated(Box<WorktreeRecord>),
    /// It was there before.
    Existing(Box<WorktreeRecord>),
}

/// A worktree that is on disk and that nobody has been told of. Whoever has it finishes it in a transaction, or gives
/// it to [`Worktrees::take_back`]; a crash before that takes it back too.
pub struct Draft {
    pub worktree_id: String,
    pub worktree_cwd: PathBuf,
    pub init_script_status: InitScriptStatus,
    /// Nobody else works on it until then.
    _lock: Locked,
}

impl Worktrees {
    /// Makes the worktree on disk, or finds it. `must_be_new`: one that is there already is an error.
    pub fn prepare(&self, request: &WorktreeRequest, must_be_new: bool) -> Result<Prepared> {
        loop {
            if let Some(made) = self.made_before(request.idempotency.as_ref())? {
                return Ok(Prepared::Repeated(Box::new(made)));
            }
            if let Some(prepared) = self.try_prepare(request, must_be_new)? {
                return Ok(prepared);
            }
        }
    }

    /// What a request with this key has made, when that is done. None: nothing, or it was taken back, and the key is
    /// good for another try.
    pub fn made_before(&self, key: Option<&IdempotencyKey>) -> Result<Option<WorktreeRecord>> {
        let shared = &self.shared;
        let Some(key) = key else { return Ok(None) };
        let Some(made) = shared.ledger.read(|db| idempotency::find(db, key))? else {
            return Ok(None);
        };
        shared.settle(&made)?;
        shared.await_made(&made)
    }

    /// None: another request came first, so look again.
    fn try_prepare(
        &self,
        request: &WorktreeRequest,
        must_be_new: bool,
    ) -> Result<Option<Prepared>> {
        self.shared.refuse_when_disabled()?;
        let shared = &self.shared;
        let repo = shared.repo_of(request)?;
        let prefix = request.branch_prefix.as_deref();
        let place = name::place(&self.root_dir()?, &repo.root, prefix, &request.worktree_name)?;
        shared.check_branch(&repo, &place.branch_name)?;
        if let Some(existing) = shared.existing(&repo, &place)? {
            if let Some(key) = &request.idempotency
                && shared.ledger.read(|db| idempotency::find(db, key))?.as_ref()
                    == Some(&existing.id)
            {
                return Ok(None);
            }
            let is_same = existing.worktree_cwd == place.cwd.to_string_lossy()
                && existing.branch_name == place.branch_name
                && existing.repo_root == repo.root.to_string_lossy();
            if is_same && existing.status == "creating" && !must_be_new {
                self.shared.await_made(&existing.id)?;
                return Ok(None);
            }
            if must_be_new || !is_same || existing.status != "ready" {
                return Err(worktree::taken(&existing));
            }
            return Ok(Some(Prepared::Existing(Box::new(existing))));
        }
        Ok(self.make(request, &repo, &place)?.map(Prepared::Made))
    }

    /// What can be known of a request before anything is made. Errors: [`Worktrees::prepare`] for a new one would fail.
    pub fn check(&self, request: &WorktreeRequest) -> Result<()> {
        self.shared.refuse_when_disabled()?;
        let shared = &self.shared;
        let repo = shared.repo_of(request)?;
        let prefix = request.branch_prefix.as_deref();
        let place = name::place(&self.root_dir()?, &repo.root, prefix, &request.worktree_name)?;
        shared.check_branch(&repo, &place.branch_name)?;
        match shared.living(&repo, &place)? {
            Some(existing) if !makes_room(&existing) => return Err(worktree::taken(&existing)),
            Some(_) => {}
            None => shared.check_free(&repo, &place)?,
        }
        shared.base_commit(&repo, request.base_ref.as_deref()).map(|_commit| ())
    }

    /// The worktree of that name. Errors: there is none.
    pub fn find(&self, request: &WorktreeRequest) -> Result<WorktreeRecord> {
        self.find_shown(request, |_| Ok(true))
    }

    /// The same for who is not shown all of them: one that is not is as good as none.
    pub fn find_shown(
        &self,
        request: &WorktreeRequest,
        is_shown: impl FnOnce(&WorktreeRecord) -> Result<bool>,
    ) -> Result<WorktreeRecord> {
        self.shared.refuse_when_disabled()?;
        let repo = self.shared.repo_of(request)?;
        let prefix = request.branch_prefix.as_deref();
        let place = name::place(&self.root_dir()?, &repo.root, prefix, &request.worktree_name)?;
        let cwd = place.cwd.to_string_lossy().into_owned();
        let found = self.shared.existing(&repo, &place)?;
        let found = found.filter(|record| record.worktree_cwd == cwd && record.status == "ready");
        match found {
            Some(record) if is_shown(&record)? => Ok(record),
            _ => Err(Error::not_found("worktree", &place.branch_name)
                .hint("mode \"create\" makes it; GET /v1/worktrees lists those that are there")),
        }
    }

    /// None: another request came first.
    fn make(&self, request: &WorktreeRequest, repo: &Repo, place: &Place) -> Result<Option<Draft>> {
        let shared = &self.shared;
        let base_commit = shared.base_commit(repo, request.base_ref.as_deref())?;
        let base_ref = shared.base_name(repo, request.base_ref.as_deref())?;
        let worktree_id = id::new("wt");
        let lock = shared.lock_worktree(&worktree_id)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let default_policy = shared.config.worktrees.deletion_policy_default;
        let new = NewWorktree {
            worktree_id: worktree_id.clone(),
            repo_root: text(&repo.root),
            common_dir: text(&repo.common_dir),
            unified_workspace_path: place.unified.clone(),
            worktree_root: text(&place.root),
            worktree_cwd: text(&place.cwd),
            worktree_name: place.worktree_name.clone(),
            branch_name: place.branch_name.clone(),
            base_commit,
            base_ref,
            deletion_policy: request.deletion_policy.unwrap_or(default_policy),
            created_by_session_id: request.created_by_session_id.clone(),
            created_by_operation_id: request.operation_id.clone(),
            team_id: request.team_id.clone(),
        };
        if !self.add(&new, repo, place, request.idempotency.clone())? {
            return Ok(None);
        }
        let scene = Scene {
            worktree_id: &worktree_id,
            cwd: &place.cwd,
            repo_root: &new.repo_root,
            branch_name: &place.branch_name,
        };
        let status = match request.run_init_script {
            true => shared.run_init_script(&scene),
            false => Ok(InitScriptStatus::SkippedDisabled),
        };
        let worktree_cwd = place.cwd.clone();
        match status {
            Ok(init_script_status) => {
                Ok(Some(Draft { worktree_id, worktree_cwd, init_script_status, _lock: lock }))
            }
            Err(error) => {
                // Whatever stands in it was made by the script just now.
                shared.undo(&worktree_id, "init_script_failed", Force::WithBackup);
                Err(error)
            }
        }
    }

    /// Writes the intent down and has git make branch and folder. False: somebody else has begun the same meanwhile.
    fn add(
        &self,
        new: &NewWorktree,
        repo: &Repo,
        place: &Place,
        key: Option<IdempotencyKey>,
    ) -> Result<bool> {
        let shared = &self.shared;
        let repository = shared.lock_repository(&repo.common_dir)?;
        if shared.is_begun(repo, place, key.as_ref())? {
            return Ok(false);
        }
        shared.check_free(repo, place)?;
        shared.make_root(&place.root)?;
        let (intent, worktree_id) = (new.clone(), new.worktree_id.clone());
        let is_first = shared.ledger.write(move |tx| {
            if let Some(key) = &key
                && tx.claim_key(key, &worktree_id)?.is_some()
            {
                return Ok(false);
            }
            tx.insert_worktree(&intent)?;
            Ok(true)
        })?;
        if !is_first {
            return Ok(false);
        }
        let added = self.add_empty(new, repo);
        drop(repository);
        let added = added.and_then(|()| self.fill(new, repo));
        if let Err(error) = added {
            shared.undo(&new.worktree_id, "create_failed", Force::WithBackup);
            return Err(error);
        }
        Ok(true)
    }

    /// Branch and record, without a file: short, whatever the size of the repository. The lock on the record says until
    /// [`Self::fill`] is done that nobody has worked there.
    fn add_empty(&self, new: &NewWorktree, repo: &Repo) -> Result<()> {
        let mark = git::mark(&new.worktree_id);
        let args = [
            "worktree",
            "add",
            "--no-checkout",
            "--lock",
            "--no-track",
            "-b",
            &new.branch_name,
            "--",
            &new.worktree_cwd,
            &new.base_commit,
        ];
        self.shared.tell(Call { mark: &mark, ..Call::new(&repo.root, &args) }).map(|_| ())
    }

    /// The files. May take long (a large repository, filters, the user's own hook), so the repository is not locked for
    /// that. It is for the last word: git reads the records of all worktrees for it, and one that is half written, of
    /// another creation, would end it with an error.
    fn fill(&self, new: &NewWorktree, repo: &Repo) -> Result<()> {
        let mark = git::mark(&new.worktree_id);
        let cwd = Path::new(&new.worktree_cwd);
        let checkout = ["checkout", "--quiet", "--force", "HEAD", "--"];
        self.shared.tell(Call { with_hooks: true, mark: &mark, ..Call::new(cwd, &checkout) })?;
        let _repository = self.shared.lock_repository(&repo.common_dir)?;
        let unlock = ["worktree", "unlock", "--", &new.worktree_cwd];
        self.shared.tell(Call { mark: &mark, ..Call::new(&repo.root, &unlock) }).map(|_| ())
    }

    /// Takes back what was prepared for somebody who does not want it after all. What holds work stays, and is told.
    pub fn take_back(&self, draft: Draft, reason: &'static str) {
        self.shared.undo(&draft.worktree_id, reason, Force::No);
        drop(draft);
    }
}

impl Shared {
    /// The repository that a request is about.
    fn repo_of(&self, request: &WorktreeRequest) -> Result<Repo> {
        let given = request.repo_root.as_deref().map(str::trim).filter(|text| !text.is_empty());
        match (given, &request.source_cwd) {
            (Some(given), _) => self.repo_at("repo_root", Path::new(given)),
            (None, Some(cwd)) => self.repo_at("the session's cwd", Path::new(cwd)),
            (None, None) => Err(Error::bad_request(
                "repo_root: it is missing, and no session with a cwd says where the repository is",
            )),
        }
    }

    /// Errors: somebody else has the branch or the folder, or a branch that leaves no room for this one: to git a
    /// branch is a file, and one that others are below is a folder.
    fn check_free(&self, repo: &Repo, place: &Place) -> Result<()> {
        let branch = place.branch_name.as_str();
        let taken = |what: String| {
            Err(Error::new(Code::Conflict, format!("worktree_name: {what}")).hint(
                "choose another worktree_name or branch_prefix: only what this server makes is \
                 its to take away",
            ))
        };
        if let Some(other) = self.branch_at_or_below(&repo.common_dir, branch)? {
            return match other == branch {
                true => taken(format!("the branch {branch} is there already")),
                false => taken(format!("with the branch {other} there can be no branch {branch}")),
            };
        }
        for (end, _) in branch.match_indices('/') {
            let above = &branch[..end];
            if self.ref_commit(&repo.common_dir, &format!("refs/heads/{above}"))?.is_some() {
                return taken(format!("with the branch {above} there can be no branch {branch}"));
            }
        }
        match place.cwd.symlink_metadata() {
            Ok(_) => taken(format!("{} is there already", place.cwd.display())),
            Err(_) => Ok(()),
        }
    }

    /// Whether the key has made something, or there is a living record in that place, by now.
    fn is_begun(&self, repo: &Repo, place: &Place, key: Option<&IdempotencyKey>) -> Result<bool> {
        let made = self.ledger.read(|db| key.map(|key| idempotency::find(db, key)).transpose())?;
        Ok(made.flatten().is_some() || self.find_living(repo, place)?.is_some())
    }

    fn find_living(&self, repo: &Repo, place: &Place) -> Result<Option<WorktreeRecord>> {
        let (cwd, common_dir) = (place.cwd.to_string_lossy(), repo.common_dir.to_string_lossy());
        self.ledger.read(|db| worktree::find_living(db, &cwd, &common_dir, &place.branch_name))
    }

    /// The living record in that place, once what the last server left there is settled.
    fn living(&self, repo: &Repo, place: &Place) -> Result<Option<WorktreeRecord>> {
        match self.find_living(repo, place)? {
            Some(found) if self.settle(&found.id)? => self.find_living(repo, place),
            found => Ok(found),
        }
    }

    /// The worktree, when whoever makes it is done. None: it was taken back. Errors: it could not be taken back, which
    /// is tried again; or it takes too long.
    fn await_made(&self, worktree_id: &str) -> Result<Option<WorktreeRecord>> {
        let _lock = self.lock_worktree(worktree_id)?;
        let record = self.ledger.read(|db| worktree::get(db, worktree_id))?;
        match record.status.as_str() {
            "creating" => Err(worktree::taken(&record)),
            "deleted" if record.init_script_status.is_none() => Ok(None),
            _ => Ok(Some(record)),
        }
    }

    /// The living one in that place. One that lost its folder and holds no work makes room.
    fn existing(&self, repo: &Repo, place: &Place) -> Result<Option<WorktreeRecord>> {
        let found = self.living(repo, place)?;
        if let Some(record) = found.as_ref().filter(|record| makes_room(record)) {
            let _lock = self.lock_worktree(&record.id)?;
            self.clean_up(&record.id, "made_anew", Force::No, Telling::EachTime)?;
            return self.living(repo, place);
        }
        Ok(found)
    }

    /// Undoes a creation; what can not be undone now is left to the thread of worktrees.
    fn undo(&self, worktree_id: &str, reason: &'static str, force: Force) {
        let unmade = Unmade { reason, force };
        if let Err(error) = self.try_undo(worktree_id, &unmade) {
            log::error!("worktree {worktree_id} is still there ({reason}): {error}");
            self.leave(worktree_id, unmade);
        }
    }

    pub(super) fn try_undo(&self, worktree_id: &str, unmade: &Unmade) -> Result<()> {
        let Unmade { reason, force } = *unmade;
        let record = self.ledger.read(|db| worktree::get(db, worktree_id))?;
        let tree = Tree::of(&record);
        // Git had not come to its end (it locks a new record itself, and we do), so no script has run.
        let lock = tree.lock_reason();
        let is_unused = tree.record.is_none()
            || lock.is_some_and(|why| matches!(why.as_str(), "initializing" | "added with --lock"));
        let removed = self.remove(&record, if is_unused { Force::Unused } else { force })?;
        let id = worktree_id.to_owned();
        self.ledger.write(move |tx| match &removed {
            Removed::Gone(gone) => {
                if let Some(backup_ref) = &gone.backup_ref {
                    tx.set_worktree_backup(&id, backup_ref)?;
                }
                tx.delete_worktree(&id, &super::cleanup::told(&id, reason, gone))
            }
            Removed::Kept(work) => {
                tx.finish_worktree(&id, InitScriptStatus::SkippedDisabled)?;
                let payload = json!({
                    "worktree_id": id, "reason": reason, "lost": work.listed(),
                    "dirty_count": work.dirty_count, "unmerged_count": work.unmerged_count,
                });
                tx.keep_worktree(&id, "ready", EventKind::WorktreeKept, &payload)
            }
        })
    }
}

/// Whether a living record may give its place up: its folder is gone, and nobody works there.
fn makes_room(record: &WorktreeRecord) -> bool {
    record.status == "missing" && record.active_claim_count == 0
}
