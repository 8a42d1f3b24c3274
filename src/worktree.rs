//! Floor 3: git worktrees that never lose work.
//!
//! Owns: the folder of all worktrees, every git that the server starts, the locks of repositories and worktrees, and
//! the thread `worktrees`. [`Worktrees`] is what the floors above call, on their own threads: a call blocks while git
//! works, within the bounds of the configuration, and delays nobody who wants another repository.
//!
//! Promises: what a worktree holds and nothing else does (changed files, new files, commits) is never deleted, unless
//! somebody forces it, and then a backup ref holds it; record and disk agree after a crash at any moment; each
//! change is an event of the worktree's own log. It deliberately knows no HTTP and no agent: which session works where
//! is told to it, and when a session is over it reads that in the ledger.
//!
//! The parts: `name` (branch and folder of a name), `lock` (who works on what), `run` (one short-lived program), `git`
//! (what is asked of git), `file` (its small files), `tree` (what would be lost), `backup` (the ref that holds it),
//! `create`, `init` (the init script), `cleanup` and `remove` (when and how one goes), `repair` (the thread), `show`
//! (status and diff), `disk`.

mod backup;
mod cleanup;
mod create;
mod disk;
mod file;
mod git;
mod init;
mod lock;
mod name;
mod remove;
mod repair;
mod run;
mod show;
mod submodule;
mod tree;

pub use cleanup::CleanupResult;
pub use create::{Draft, Prepared};
pub use disk::DiskUse;
pub use lock::Locked;
pub use show::{Against, Diff};

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::ledger::claim::{self, ClaimRecord};
use crate::ledger::idempotency::IdempotencyKey;
use crate::ledger::worktree::{self as rows, WorktreeRecord};
use crate::ledger::{Ledger, to_json};
use crate::model::worktree::{DeletionPolicy, InitScriptStatus};
use crate::thread::{self, Thread};
use cleanup::Telling;
use crossbeam_channel::{Receiver, Sender};
use lock::Locks;
use remove::Force;
use repair::Unmade;
use run::Stop;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The worktrees of this server; cheap to clone.
#[derive(Clone)]
pub struct Worktrees {
    shared: Arc<Shared>,
}

struct Shared {
    config: Arc<Config>,
    ledger: Ledger,
    stop: Arc<Stop>,
    locks: Arc<Locks>,
    disk: disk::DiskCache,
    due: Sender<()>,
    /// What is to be looked at, by id: what the last server left, and what could not be finished since.
    left: Mutex<BTreeMap<String, Unmade>>,
}

/// A worktree that somebody wants.
#[derive(Clone, Debug, Default)]
pub struct WorktreeRequest {
    pub repo_root: Option<String>,
    /// Where the session works that asks: says which repository when `repo_root` does not.
    pub source_cwd: Option<String>,
    pub worktree_name: String,
    pub branch_prefix: Option<String>,
    pub base_ref: Option<String>,
    pub deletion_policy: Option<DeletionPolicy>,
    pub run_init_script: bool,
    pub created_by_session_id: Option<String>,
    pub operation_id: Option<String>,
    pub team_id: Option<String>,
    pub idempotency: Option<IdempotencyKey>,
}

/// What came of a request.
pub struct Created {
    pub worktree: WorktreeRecord,
    pub is_new: bool,
    pub init_script_status: InitScriptStatus,
}

/// What came of a release.
pub struct Released {
    pub worktree: WorktreeRecord,
    pub claim: ClaimRecord,
    pub cleanup: Option<CleanupResult>,
}

impl Worktrees {
    /// Makes the folder of all worktrees. Errors: it can not be made.
    pub fn new(config: &Config, ledger: Ledger) -> Result<(Worktrees, Receiver<()>)> {
        let mut config = config.clone();
        let root = &config.worktrees.root_dir;
        if config.worktrees.is_enabled {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(
                |error| {
                    Error::internal(format!("the folder {} can not be made", root.display()))
                        .hint(
                            "set worktrees.root_dir to one that can, or worktrees.enabled = false",
                        )
                        .source(error)
                },
            )?;
            // Git names worktrees by their real paths.
            config.worktrees.root_dir = git::real(root)?;
        }
        let stop = Arc::new(Stop::new()?);
        let (due, waiting) = crossbeam_channel::bounded(1);
        let locks = Arc::new(Locks::new(Arc::clone(&stop), due.clone()));
        let config = Arc::new(config);
        let disk = disk::DiskCache::default();
        let shared = Shared { config, ledger, stop, locks, disk, due, left: Mutex::default() };
        Ok((Worktrees { shared: Arc::new(shared) }, waiting))
    }

    /// Releases the claims of sessions that are over, and starts the thread that takes up what the last server left.
    /// Before the first request.
    pub fn start(&self, due: Receiver<()>) -> Result<Thread> {
        let shared = Arc::clone(&self.shared);
        let orphaned = shared.ledger.read(claim::orphaned_sessions)?;
        if !orphaned.is_empty() {
            shared.ledger.write(move |tx| {
                orphaned.iter().try_for_each(|id| tx.release_claims_of(id, "session_gone"))
            })?;
        }
        // Copies of indexes that a crash has left: nobody has one yet.
        drop(std::fs::remove_dir_all(shared.scratch_dir()));
        let left = match shared.config.worktrees.is_enabled {
            true => shared.ledger.read(rows::living)?,
            false => Vec::new(),
        };
        shared.expect(&left);
        thread::spawn("worktrees", move || repair::serve(&shared, &left, &due))
            .map_err(|error| Error::internal("no thread can be started").source(error))
    }

    /// Ends every git and every init script, and the thread. Does not wait.
    pub fn stop(&self) {
        self.shared.stop.stop();
        self.shared.locks.wake_all();
        self.look_for_due();
    }

    /// For whoever ends what a worktree may wait for: a word in it does what [`Worktrees::look_for_due`] does.
    pub fn due(&self) -> Sender<()> {
        self.shared.due.clone()
    }

    /// A session has come to rest: its worktree may be due. Does not wait.
    pub fn look_for_due(&self) {
        // A full channel has told it already.
        let _: std::result::Result<(), _> = self.shared.due.try_send(());
    }

    /// Makes a worktree, or finds it.
    pub fn create(&self, request: &WorktreeRequest) -> Result<Created> {
        match self.prepare(request, false)? {
            Prepared::Repeated(worktree) => Ok(Created::before(*worktree)),
            Prepared::Existing(worktree) => Ok(Created {
                worktree: *worktree,
                is_new: false,
                init_script_status: InitScriptStatus::SkippedExisting,
            }),
            Prepared::Made(draft) => {
                let (id, status) = (draft.worktree_id.clone(), draft.init_script_status);
                let finished = self.shared.ledger.write(move |tx| tx.finish_worktree(&id, status));
                match finished {
                    Ok(worktree) => {
                        Ok(Created { worktree, is_new: true, init_script_status: status })
                    }
                    Err(error) => {
                        self.take_back(draft, "create_failed");
                        Err(error)
                    }
                }
            }
        }
    }

    /// One request at a time makes a session with a key: a worktree for it takes long, and who asks for the same again
    /// waits here, within a bound, for what comes of it. To be taken before every other lock.
    pub fn lock_key(&self, key: &IdempotencyKey) -> Result<Locked> {
        let what = format!("the session of the Idempotency-Key {:?}", key.key);
        let at_most = self.shared.config.worktrees.lock_wait;
        self.shared.locks.lock(&format!("key {} of {}", key.key, key.route), &what, at_most)
    }

    /// The session works in the worktree from now on.
    pub fn claim(
        &self,
        worktree_id: &str,
        session_id: &str,
        claim_role: &str,
    ) -> Result<(WorktreeRecord, ClaimRecord)> {
        self.shared.refuse_when_disabled()?;
        let claim_role = claim_role.trim().to_lowercase();
        if claim_role.is_empty() || claim_role.chars().count() > 64 {
            return Err(Error::bad_request("claim_role: it must have 1 to 64 characters")
                .hint("\"owner\" and \"consumer\" are usual"));
        }
        let _lock = self.shared.lock_made(worktree_id)?;
        let (worktree_id, session_id) = (worktree_id.to_owned(), session_id.to_owned());
        self.shared.ledger.write(move |tx| {
            let claim = tx.claim_worktree(&worktree_id, &session_id, &claim_role)?;
            tx.tell_session_updated(&session_id)?;
            Ok((tx.worktree(&worktree_id)?, claim))
        })
    }

    /// The session does not work there any more. `cleans_up`: when nobody does, the worktree goes if it may.
    pub fn release(
        &self,
        worktree_id: &str,
        session_id: &str,
        cleans_up: bool,
    ) -> Result<Released> {
        const REASON: &str = "release_last_claim";
        let shared = &self.shared;
        shared.refuse_when_disabled()?;
        let _lock = shared.lock_made(worktree_id)?;
        let (id, session) = (worktree_id.to_owned(), session_id.to_owned());
        let claim = shared.ledger.write(move |tx| {
            let claim = tx.release_claim(&id, &session)?;
            if cleans_up {
                // So that a crash before the next line leaves it to the next start.
                tx.set_cleanup_due(&id, REASON)?;
            }
            if tx.session(&session).is_ok_and(|record| record.worktree_id.as_ref() == Some(&id)) {
                tx.set_session_worktree(&session, None)?;
                tx.tell_session_updated(&session)?;
            }
            Ok(claim)
        })?;
        let cleanup = match cleans_up {
            true => {
                let result = shared.clean_up(worktree_id, REASON, Force::No, Telling::EachTime)?;
                (result.active_claim_count == 0).then_some(result)
            }
            false => None,
        };
        let worktree = shared.ledger.read(|db| rows::get(db, worktree_id))?;
        Ok(Released { worktree, claim, cleanup })
    }

    /// Takes the worktree away if it may go; `is_forced`: whatever a backup ref can hold, whatever its policy is.
    pub fn cleanup(
        &self,
        worktree_id: &str,
        reason: &str,
        is_forced: bool,
    ) -> Result<CleanupResult> {
        self.shared.refuse_when_disabled()?;
        let _lock = self.shared.lock_made(worktree_id)?;
        let force = if is_forced { Force::WithBackup } else { Force::No };
        self.shared.clean_up(worktree_id, reason, force, Telling::EachTime)
    }

    /// The same for whoever may have begun it before a crash: a worktree that stays is told of once.
    pub fn take_up_cleanup(&self, worktree_id: &str, reason: &str) -> Result<CleanupResult> {
        self.shared.refuse_when_disabled()?;
        let _lock = self.shared.lock_made(worktree_id)?;
        self.shared.clean_up(worktree_id, reason, Force::No, Telling::Once)
    }

    /// Disk use of each living worktree, as far as there is time for it.
    pub fn disk_use(&self, at_most: Duration) -> Result<Vec<(WorktreeRecord, Option<DiskUse>)>> {
        let living = self.shared.ledger.read(rows::living)?;
        let named: Vec<(String, String)> =
            living.iter().map(|record| (record.id.clone(), record.worktree_cwd.clone())).collect();
        let seen = self.shared.disk.of(&named, at_most);
        Ok(living.into_iter().zip(seen).collect())
    }

    fn root_dir(&self) -> Result<PathBuf> {
        Ok(self.shared.config.worktrees.root_dir.clone())
    }
}

impl Shared {
    fn refuse_when_disabled(&self) -> Result<()> {
        if self.config.worktrees.is_enabled {
            return Ok(());
        }
        Err(Error::new(Code::Conflict, "worktrees are switched off")
            .hint("set worktrees.enabled = true in the configuration"))
    }

    fn lock_worktree(&self, worktree_id: &str) -> Result<Locked> {
        let (key, what) = (format!("worktree {worktree_id}"), format!("worktree {worktree_id}"));
        self.locks.lock(&key, &what, self.config.worktrees.lock_wait)
    }

    /// The lock of a worktree that is there. Errors: there is none, or it is still being made, which may take long.
    fn lock_made(&self, worktree_id: &str) -> Result<Locked> {
        let record = self.ledger.read(|db| rows::get(db, worktree_id))?;
        if record.status == "creating" {
            let message = format!("worktree {worktree_id} is still being made");
            return Err(Error::new(Code::Conflict, message)
                .hint("its log tells when it is: worktree.created")
                .detail("worktree", to_json(&record)));
        }
        self.lock_worktree(worktree_id)
    }

    fn try_lock_worktree(&self, worktree_id: &str) -> Option<Locked> {
        self.locks.lock(&format!("worktree {worktree_id}"), "", Duration::ZERO).ok()
    }

    fn lock_repository(&self, common_dir: &Path) -> Result<Locked> {
        let what = format!("the repository {}", common_dir.display());
        self.locks.lock(&what, &what, self.config.worktrees.lock_wait)
    }

    /// Copies of indexes, while they are looked at.
    fn scratch_dir(&self) -> PathBuf {
        self.config.worktrees.root_dir.join(".scratch")
    }

    /// The folder of one repository's worktrees. Errors: what is there leads elsewhere.
    fn make_root(&self, root: &Path) -> Result<()> {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root);
        let failed = |error: std::io::Error| {
            Error::internal(format!("the folder {} can not be made", root.display())).source(error)
        };
        made.map_err(failed)?;
        if git::real(root)? != root {
            return Err(Error::new(
                Code::Conflict,
                format!("{} is a link and leads out of the folder of worktrees", root.display()),
            )
            .hint("remove the link"));
        }
        Ok(())
    }
}

impl Created {
    /// What was made by a request before, told again.
    pub fn before(worktree: WorktreeRecord) -> Created {
        let told = worktree.init_script_status.as_deref().and_then(InitScriptStatus::parse);
        let init_script_status = told.unwrap_or(InitScriptStatus::SkippedExisting);
        Created { worktree, is_new: true, init_script_status }
    }

    /// As the contract has it.
    pub fn json(&self) -> String {
        format!(
            "{{\"worktree\":{},\"created\":{},\"init_script_status\":{}}}",
            to_json(&self.worktree),
            self.is_new,
            to_json(&self.init_script_status)
        )
    }
}
