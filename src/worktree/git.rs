//! Asking git.
//!
//! Runs on the caller's thread. Each call is one short-lived git (see [`super::run`]) that can ask nobody anything: no
//! terminal, no editor, no pager, no password helper, no fsmonitor. Hooks of the repository run only where a person
//! would expect them, when a worktree is checked out, and within the same time. What a client named never stands where
//! git reads options.

use super::Shared;
use super::run::{self, Outcome, Program};
use crate::environment;
use crate::error::{Code, Error, Result};
use crate::model::id;
use std::path::{Path, PathBuf};

/// Output of a call that asks for little.
const SHORT_OUTPUT: usize = 64 * 1024;
/// Output of a call that lists things; a list that is longer is not trusted.
pub(super) const LONG_OUTPUT: usize = 64 * 1024 * 1024;

/// Settings that win over the user's and the repository's own.
const SETTINGS: &[&str] = &[
    "core.fsmonitor=false",
    "core.untrackedCache=false",
    // A change that keeps its file's size and time is a change.
    "core.trustctime=true",
    "core.checkStat=default",
    "core.quotePath=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "advice.detachedHead=false",
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=10"),
    ("GIT_PAGER", "cat"),
    ("GIT_EDITOR", "false"),
    ("GIT_SEQUENCE_EDITOR", "false"),
    ("GIT_ASKPASS", "false"),
    ("SSH_ASKPASS", "false"),
    ("SSH_ASKPASS_REQUIRE", "never"),
    // A look must not change the index that an agent works with.
    ("GIT_OPTIONAL_LOCKS", "0"),
    ("LC_ALL", "C"),
    ("GIT_AUTHOR_NAME", "gooselake"),
    ("GIT_AUTHOR_EMAIL", "gooselake@localhost"),
    ("GIT_COMMITTER_NAME", "gooselake"),
    ("GIT_COMMITTER_EMAIL", "gooselake@localhost"),
];

/// One call of git.
pub(super) struct Call<'a> {
    pub cwd: &'a Path,
    pub args: Vec<&'a str>,
    /// Said outright, so that nothing in the working folder decides which repository is asked.
    pub git_dir: Option<&'a Path>,
    pub work_tree: Option<&'a Path>,
    pub index: Option<&'a Path>,
    pub stdin: Vec<u8>,
    pub stdout_max: usize,
    pub with_hooks: bool,
    /// Of the worktree that it works for; empty for a look.
    pub mark: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(cwd: &'a Path, args: &[&'a str]) -> Call<'a> {
        Call {
            cwd,
            args: args.to_vec(),
            git_dir: None,
            work_tree: None,
            index: None,
            stdin: Vec::new(),
            stdout_max: SHORT_OUTPUT,
            with_hooks: false,
            mark: "",
        }
    }
}

/// A repository.
#[derive(Clone, Debug)]
pub(super) struct Repo {
    /// Where people work in it; of a bare one, itself.
    pub root: PathBuf,
    /// What all its worktrees share.
    pub common_dir: PathBuf,
}

/// The mark of every git that is started for a worktree.
pub(super) fn mark(worktree_id: &str) -> String {
    format!("worktree-{worktree_id}")
}

/// The mark of a worktree's init script and of all that it starts.
pub(super) fn script_mark(worktree_id: &str) -> String {
    format!("script-{worktree_id}")
}

impl Shared {
    /// Calls git, and gives whatever came of it. Errors: it can not be started, or the server stops.
    pub(super) fn ask(&self, call: Call<'_>) -> Result<Outcome> {
        let mut env = environment::passed_on(&[]);
        env.extend(ENVIRONMENT.iter().map(|(name, value)| (name.to_string(), value.to_string())));
        let mut place = |name: &str, path: Option<&Path>| {
            if let Some(path) = path {
                env.insert(name.to_owned(), path.to_string_lossy().into_owned());
            }
        };
        place("GIT_DIR", call.git_dir);
        place("GIT_WORK_TREE", call.work_tree);
        place("GIT_INDEX_FILE", call.index);
        let mut args: Vec<String> = Vec::new();
        for setting in SETTINGS {
            args.extend(["-c".to_owned(), (*setting).to_owned()]);
        }
        if !call.with_hooks {
            args.extend(["-c".to_owned(), "core.hooksPath=/dev/null".to_owned()]);
        }
        args.extend(call.args.iter().map(|arg| (*arg).to_owned()));
        let path = env.get("PATH").map(String::as_str).unwrap_or_default();
        let program = environment::find_program("git", path).ok_or_else(|| {
            Error::new(Code::Conflict, "git is not on the server's PATH").hint("install git")
        })?;
        let program = Program {
            program,
            args,
            env,
            cwd: call.cwd.to_owned(),
            stdin: call.stdin,
            timeout: self.config.worktrees.git_timeout,
            stdout_max: call.stdout_max,
            keeps_end: false,
            // A look has one of its own: when its time is up, everything with its mark is ended.
            mark: if call.mark.is_empty() { id::new("look") } else { call.mark.to_owned() },
        };
        run::run(&program, &self.stop)
    }

    /// What git says. Errors: it fails, takes too long, or says more than is read.
    pub(super) fn tell(&self, call: Call<'_>) -> Result<Vec<u8>> {
        let name = call.args.first().copied().unwrap_or_default().to_owned();
        let outcome = self.ask(call)?;
        if outcome.is_good() && !outcome.is_cut {
            return Ok(outcome.stdout);
        }
        Err(failure(&name, &outcome))
    }

    /// The same as text, without the line end.
    pub(super) fn word(&self, call: Call<'_>) -> Result<String> {
        let told = self.tell(call)?;
        Ok(String::from_utf8_lossy(&told).trim_end_matches('\n').to_owned())
    }

    /// The repository that a folder belongs to. Errors: it is not a folder, or in no repository.
    pub(super) fn repo_at(&self, field: &str, folder: &Path) -> Result<Repo> {
        if !folder.is_absolute() || !folder.is_dir() {
            return Err(Error::bad_request(format!(
                "{field}: {} is not an existing folder with an absolute path",
                folder.display()
            )));
        }
        let question = [
            "rev-parse",
            "--path-format=absolute",
            "--git-common-dir",
            "--is-bare-repository",
            "--is-inside-work-tree",
        ];
        let outcome = self.ask(Call::new(folder, &question))?;
        let told = String::from_utf8_lossy(&outcome.stdout).into_owned();
        let lines: Vec<&str> = told.lines().collect();
        let [common_dir, is_bare, is_inside] = lines[..] else {
            return Err(Error::bad_request(format!(
                "{field}: {} is in no git repository ({})",
                folder.display(),
                first_line(&outcome.stderr)
            ))
            .hint("name a folder of a repository in repo_root, or run git init there"));
        };
        let common_dir = real(Path::new(common_dir))?;
        let root = match (is_inside, is_bare) {
            ("true", _) => self.word(Call::new(folder, &["rev-parse", "--show-toplevel"]))?.into(),
            (_, "true") => common_dir.clone(),
            _ => {
                return Err(Error::bad_request(format!(
                    "{field}: {} lies inside git's own folder",
                    folder.display()
                ))
                .hint("name the folder that people work in"));
            }
        };
        Ok(Repo { root: real(&root)?, common_dir })
    }

    /// The commit that a new branch begins at. Errors: nothing of that name, or no commit at all.
    pub(super) fn base_commit(&self, repo: &Repo, base_ref: Option<&str>) -> Result<String> {
        let base_ref = base_ref.map(str::trim).filter(|text| !text.is_empty());
        if let Some(text) = base_ref
            && (text.starts_with('-') || text.chars().any(char::is_control))
        {
            return Err(Error::bad_request(format!("base_ref: {text:?} can not name a commit")));
        }
        let commit_of = |text: &str| -> Result<Option<String>> {
            let name = format!("{text}^{{commit}}");
            let call = Call::new(&repo.root, &["rev-parse", "--verify", "--quiet", &name]);
            let outcome = self.ask(call)?;
            let commit = String::from_utf8_lossy(&outcome.stdout).trim().to_owned();
            Ok(outcome.is_good().then_some(commit))
        };
        if let Some(commit) = commit_of(base_ref.unwrap_or("HEAD"))? {
            return Ok(commit);
        }
        match base_ref {
            Some(text) if commit_of("HEAD")?.is_some() => {
                Err(Error::bad_request(format!("base_ref: {text:?} names no commit here"))
                    .hint("name a branch, a tag or a commit of the repository"))
            }
            _ => Err(Error::new(
                Code::Conflict,
                format!("the repository {} has no commit yet", repo.root.display()),
            )
            .hint("make a first commit: a worktree needs one to begin at")),
        }
    }

    /// What the branch begins at, by name: as it was asked for, else the branch that the repository stands on.
    pub(super) fn base_name(&self, repo: &Repo, base_ref: Option<&str>) -> Result<Option<String>> {
        let given = base_ref.map(str::trim).filter(|text| !text.is_empty() && *text != "HEAD");
        if let Some(given) = given {
            return Ok(Some(given.to_owned()));
        }
        let call = Call::new(&repo.root, &["symbolic-ref", "--quiet", "--short", "HEAD"]);
        let outcome = self.ask(call)?;
        let name = String::from_utf8_lossy(&outcome.stdout).trim().to_owned();
        Ok(outcome.is_good().then_some(name))
    }

    /// Errors: git would not take this as a branch.
    pub(super) fn check_branch(&self, repo: &Repo, branch_name: &str) -> Result<()> {
        let name = format!("refs/heads/{branch_name}");
        let outcome = self.ask(Call::new(&repo.root, &["check-ref-format", &name]))?;
        if outcome.is_good() {
            return Ok(());
        }
        Err(Error::bad_request(format!("worktree_name: git takes no branch {branch_name:?}")))
    }

    /// The commit of a ref, if there is one. The name is ours, from a record or a constant. Errors: git can not say.
    pub(super) fn ref_commit(&self, common_dir: &Path, name: &str) -> Result<Option<String>> {
        let call = Call {
            git_dir: Some(common_dir),
            ..Call::new(common_dir, &["rev-parse", "--verify", "--quiet", name])
        };
        let outcome = self.ask(call)?;
        match outcome.exit_code {
            Some(0 | 1) if !outcome.is_timed_out => {
                let commit = String::from_utf8_lossy(&outcome.stdout).trim().to_owned();
                Ok(outcome.is_good().then_some(commit))
            }
            // It has not said that there is none.
            _ => Err(failure("rev-parse", &outcome)),
        }
    }

    /// The branch of that name, or one whose name goes on behind it with a slash.
    pub(super) fn branch_at_or_below(
        &self,
        common_dir: &Path,
        branch: &str,
    ) -> Result<Option<String>> {
        let pattern = format!("refs/heads/{branch}");
        let args = ["for-each-ref", "--count=1", "--format=%(refname)", &pattern];
        let call = Call { git_dir: Some(common_dir), ..Call::new(common_dir, &args) };
        let told = self.word(call)?;
        Ok(told.strip_prefix("refs/heads/").map(str::to_owned))
    }
}

/// What git failed with, for a person.
pub(super) fn failure(name: &str, outcome: &Outcome) -> Error {
    let told = match outcome.is_cut {
        true => "it said more than is read".to_owned(),
        false => first_line(&outcome.stderr),
    };
    let code = if outcome.is_timed_out { Code::Capacity } else { Code::Conflict };
    let hint = match outcome.is_timed_out {
        true => "worktrees.git_timeout_secs bounds each call, hooks and filters included",
        false => "",
    };
    Error::new(code, format!("git {name} {}: {told}", outcome.ending())).hint(hint)
}

/// The line of git's complaint that says what is wrong.
fn first_line(stderr: &str) -> String {
    let lines = || stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    lines()
        .find(|line| line.starts_with("fatal:") || line.starts_with("error:"))
        .or_else(|| lines().next())
        .unwrap_or("it said nothing")
        .to_owned()
}

/// A path with all links resolved.
pub(super) fn real(path: &Path) -> Result<PathBuf> {
    let real = std::fs::canonicalize(path).map_err(|error| {
        Error::new(Code::Conflict, format!("{} can not be looked at", path.display())).source(error)
    })?;
    match real.to_str() {
        Some(_) => Ok(real),
        None => Err(Error::bad_request(format!("{} is not UTF-8", path.display()))),
    }
}
