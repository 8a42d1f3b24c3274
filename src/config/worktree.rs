//! The settings of git worktrees: where they lie, what runs in a new one, and how long anything may take.

use super::Check;
use crate::model::worktree::DeletionPolicy;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What runs in a new worktree when the repository has it.
const INIT_SCRIPT: &str = ".agents/gg/worktree-init.sh";
const INIT_TIMEOUT_SECS: u64 = 300;
const GIT_TIMEOUT_SECS: u64 = 120;
const LOCK_WAIT_SECS: u64 = 30;

/// See the module's text.
#[derive(Clone, Debug)]
pub struct Worktrees {
    pub is_enabled: bool,
    /// Every worktree lies in it, two folders down.
    pub root_dir: PathBuf,
    /// Relative = inside the new worktree.
    pub init_script_path: PathBuf,
    pub deletion_policy_default: DeletionPolicy,
    /// For the init script and all that it starts.
    pub init_timeout: Duration,
    /// For each git command, with its hooks and filters.
    pub git_timeout: Duration,
    /// How long a request waits for another one's work on the same repository or worktree.
    pub lock_wait: Duration,
}

impl Check<'_> {
    pub(super) fn worktrees(&mut self, root_dir: &Path) -> Worktrees {
        let file = &self.file.worktrees;
        let policy = match file.deletion_policy_default.as_deref() {
            None => DeletionPolicy::DeleteOnLastClaim,
            Some(text) => DeletionPolicy::parse(text.trim()).unwrap_or_else(|| {
                let words: Vec<String> =
                    DeletionPolicy::ALL.iter().map(|word| format!("{:?}", word.as_str())).collect();
                self.problem(format!(
                    "worktrees.deletion_policy_default is {text:?}; it can be {}",
                    words.join(" or ")
                ));
                DeletionPolicy::RetainOnLastClaim
            }),
        };
        let script = file.init_script_path.as_deref().unwrap_or(INIT_SCRIPT);
        let mut seconds = |key: &str, value: Option<u64>, default: u64| {
            self.seconds(&format!("worktrees.{key}"), value, default)
        };
        Worktrees {
            is_enabled: file.enabled.unwrap_or(true),
            root_dir: root_dir.join(file.root_dir.as_deref().unwrap_or("worktrees")),
            init_script_path: PathBuf::from(script),
            deletion_policy_default: policy,
            init_timeout: seconds("init_timeout_secs", file.init_timeout_secs, INIT_TIMEOUT_SECS),
            git_timeout: seconds("git_timeout_secs", file.git_timeout_secs, GIT_TIMEOUT_SECS),
            lock_wait: seconds("lock_wait_secs", file.lock_wait_secs, LOCK_WAIT_SECS),
        }
    }
}
