//! The init script of a new worktree: what a repository wants done before anybody works there.
//!
//! Runs on the thread of the request that makes the worktree, which holds that worktree's lock and no other: a script
//! that hangs delays nobody else. It is run by `sh -l` as a file (`./…`), never as text; it gets an environment made
//! anew, no input, and `worktrees.init_timeout_secs`. When it has ended nothing that it started is left.

use super::Shared;
use super::git;
use super::run::{self, Program};
use crate::environment;
use crate::error::{Code, Error, Result};
use crate::ledger::to_json;
use crate::limits;
use crate::model::worktree::InitScriptStatus;
use serde_json::json;
use std::path::{Path, PathBuf};

/// What the script is told of where it runs.
pub(super) struct Scene<'a> {
    pub worktree_id: &'a str,
    pub cwd: &'a Path,
    pub repo_root: &'a str,
    pub branch_name: &'a str,
}

impl Shared {
    /// Runs the script if there is one. Errors: `init_script_failed`, with its output.
    pub(super) fn run_init_script(&self, scene: &Scene<'_>) -> Result<InitScriptStatus> {
        let path = &self.config.worktrees.init_script_path;
        let script = scene.cwd.join(path);
        if !script.is_file() {
            return Ok(InitScriptStatus::SkippedMissing);
        }
        let mut env = environment::passed_on(&[]);
        let told = [
            ("GG_WORKTREE_ID", scene.worktree_id.to_owned()),
            ("GG_WORKTREE_PATH", scene.cwd.to_string_lossy().into_owned()),
            ("GG_REPO_ROOT", scene.repo_root.to_owned()),
            ("GG_BRANCH", scene.branch_name.to_owned()),
            ("GIT_TERMINAL_PROMPT", "0".to_owned()),
        ];
        env.extend(told.map(|(name, value)| (name.to_owned(), value)));
        let (program, args) = if path.is_absolute() {
            (script, Vec::new())
        } else {
            let file = format!("./{}", path.display());
            // The words of the shell are fixed; the file's name is an argument of them.
            let words = ["-lc", "exec 2>&1; \"$0\"", &file].map(str::to_owned);
            (PathBuf::from("/bin/sh"), words.to_vec())
        };
        let mark = git::script_mark(scene.worktree_id);
        let program = Program {
            program,
            args,
            env,
            cwd: scene.cwd.to_owned(),
            stdin: Vec::new(),
            timeout: self.config.worktrees.init_timeout,
            stdout_max: limits::INIT_OUTPUT_BYTES,
            keeps_end: true,
            mark: mark.clone(),
        };
        let outcome = run::run(&program, &self.stop);
        // A script may leave something in another session; that has no owner, so it does not stay.
        run::sweep(&mark);
        let outcome = outcome?;
        if outcome.is_good() {
            return Ok(InitScriptStatus::Succeeded);
        }
        let output = match outcome.stdout.as_slice() {
            [] => outcome.stderr.clone(),
            bytes => String::from_utf8_lossy(bytes).into_owned(),
        };
        let detail = json!({
            "path": path,
            "exit_code": outcome.exit_code,
            "signal": outcome.signal,
            "timed_out": outcome.is_timed_out,
            "output": output,
            "truncated": outcome.is_cut,
        });
        let message = format!("the init script {} {}", path.display(), outcome.ending());
        Err(Error::new(Code::InitScriptFailed, message)
            .hint("see its output in init_script; run_init_script: false leaves it out")
            .detail("init_script", to_json(&detail)))
    }
}
