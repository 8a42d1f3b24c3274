//! One worktree on disk: where git's record of it lies, and what in it would be lost with it.
//!
//! Runs on the caller's thread and changes nothing. Git is always told outright which record and which folder it is
//! asked about, so a `.git` that somebody has put into the folder decides nothing; flags that hide changes from git
//! (assume-unchanged, skip-worktree) are taken off in a copy of the index. What can not be read counts as work:
//! doubt keeps.

use super::Shared;
use super::file::{copy_index, read_text};
use super::git::{self, Call, LONG_OUTPUT};
use super::lock::Locked;
use crate::error::{Error, Result};
use crate::ledger::worktree::WorktreeRecord;
use crate::limits;
use crate::model::id;
use serde::Serialize;
use std::collections::HashSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// A worktree as it lies on disk.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub worktree_id: String,
    /// Where git knows it to be.
    pub home: PathBuf,
    /// Where its files are now: its home, or the trash on the way out.
    pub folder: PathBuf,
    /// Git's record of it, `<common>/worktrees/<name>`; None = gone.
    pub record: Option<PathBuf>,
    pub common_dir: PathBuf,
    pub branch_name: String,
}

/// One thing that would be lost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Lost {
    /// `modified`, `untracked`, `commit`, `operation`, `locked`, `nested_repository`, `submodule`, `unreadable`.
    pub kind: &'static str,
    /// A path inside the worktree, or a commit.
    pub name: String,
    pub detail: Option<String>,
}

/// What a worktree holds that nothing else does.
#[derive(Debug, Default)]
pub(super) struct Work {
    /// In no commit; the first ones of many.
    pub dirty: Vec<Lost>,
    /// In commits that no other ref holds; the first ones of many.
    pub unmerged: Vec<Lost>,
    /// What a backup ref can not hold; each is among `dirty` too.
    pub blockers: Vec<Lost>,
    /// How many there are, beyond the bound of the lists.
    pub dirty_count: usize,
    pub unmerged_count: usize,
    /// Commits that go when the worktree and its branch do, and that no listed one leads to; those that only a reflog
    /// remembers among them.
    pub tips: Vec<String>,
    pub head: Option<String>,
    pub branch_tip: Option<String>,
}

/// A copy of the index, removed when it is dropped.
pub(super) struct Scratch {
    pub path: PathBuf,
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It may never have been made.
        drop(fs::remove_file(&self.path));
    }
}

/// Files of git's record that name commits of work under way.
const HEADS: &[&str] = &[
    "MERGE_HEAD",
    "CHERRY_PICK_HEAD",
    "REVERT_HEAD",
    "REBASE_HEAD",
    "BISECT_HEAD",
    "rebase-merge/orig-head",
    "rebase-merge/head",
    "rebase-merge/stopped-sha",
    "rebase-merge/autostash",
    "rebase-apply/orig-head",
    "rebase-apply/autostash",
    "MERGE_AUTOSTASH",
];
/// What stands in the record while an operation is not finished, and what a person calls it.
const OPERATIONS: &[(&str, &str)] = &[
    ("rebase-merge", "a rebase"),
    ("rebase-apply", "a rebase or am"),
    ("MERGE_HEAD", "a merge"),
    ("CHERRY_PICK_HEAD", "a cherry-pick"),
    ("REVERT_HEAD", "a revert"),
    ("BISECT_LOG", "a bisect"),
];
/// What git says of a folder that it may not look into.
const CLOSED_FOLDER: &str = "could not open directory";
/// The newest entries of a reflog that are looked at.
const REFLOG_ENTRIES: usize = 2000;

impl Tree {
    pub(super) fn of(record: &WorktreeRecord) -> Tree {
        let folder = PathBuf::from(&record.worktree_cwd);
        let common_dir = PathBuf::from(&record.common_dir);
        Tree {
            worktree_id: record.id.clone(),
            record: find_record(&common_dir, &folder),
            home: folder.clone(),
            folder,
            common_dir,
            branch_name: record.branch_name.clone(),
        }
    }

    pub(super) fn is_there(&self) -> bool {
        self.folder.symlink_metadata().is_ok()
    }

    /// Why it is locked, if somebody has locked it.
    pub(super) fn lock_reason(&self) -> Option<String> {
        let text = read_text(&self.record.as_ref()?.join("locked")).ok()?;
        Some(text.trim().to_owned())
    }

    /// Whether submodules were initialised in it.
    pub(super) fn has_submodules(&self) -> bool {
        self.record.as_ref().is_some_and(|record| record.join("modules").exists())
    }

    /// The commit that a file of git's record names.
    pub(super) fn commit_in(&self, name: &str) -> Option<String> {
        commit_of(&read_text(&self.record.as_ref()?.join(name)).ok()?)
    }

    pub(super) fn branch_ref(&self) -> String {
        format!("refs/heads/{}", self.branch_name)
    }

    /// Where it stood, newest first, as its reflog remembers.
    pub(super) fn stood_at(&self) -> Vec<String> {
        self.record.as_ref().map(|record| reflog(&record.join("logs/HEAD"))).unwrap_or_default()
    }

    /// A call that is about this worktree and nothing else.
    pub(super) fn call<'a>(&'a self, args: &[&'a str]) -> Call<'a> {
        Call {
            git_dir: self.record.as_deref(),
            work_tree: Some(&self.folder),
            ..Call::new(&self.folder, args)
        }
    }
}

impl Shared {
    /// A copy of the worktree's index in which nothing is hidden.
    pub(super) fn scratch(&self, tree: &Tree) -> Result<Scratch> {
        let record = tree.record.as_ref().ok_or_else(record_gone)?;
        let folder = self.scratch_dir();
        let failed = |error: std::io::Error| {
            Error::internal(format!("the index can not be copied to {}", folder.display()))
                .source(error)
        };
        fs::create_dir_all(&folder).map_err(failed)?;
        let scratch = Scratch { path: folder.join(id::new("index")) };
        match copy_index(&record.join("index"), &scratch.path) {
            Ok(()) => {}
            // A worktree without files has no index.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(scratch),
            Err(error) => return Err(failed(error)),
        }
        let call = Call {
            index: Some(&scratch.path),
            stdout_max: LONG_OUTPUT,
            ..tree.call(&["ls-files", "-v", "-z"])
        };
        let listed = self.tell(call)?;
        let mut hidden = Vec::new();
        for entry in listed.split(|byte| *byte == 0).filter(|entry| entry.len() > 2) {
            let (tag, path) = (entry[0], &entry[2..]);
            let is_absent = || {
                let path = tree.folder.join(String::from_utf8_lossy(path).as_ref());
                path.symlink_metadata().is_err()
            };
            // A file that sparse checkout has left out is not there, and is no change.
            if tag.is_ascii_lowercase() || tag == b'S' && !is_absent() {
                hidden.extend_from_slice(path);
                hidden.push(0);
            }
        }
        for flag in ["--no-assume-unchanged", "--no-skip-worktree"] {
            if hidden.is_empty() {
                break;
            }
            let call = Call {
                index: Some(&scratch.path),
                stdin: hidden.clone(),
                ..tree.call(&["update-index", flag, "-z", "--stdin"])
            };
            self.tell(call)?;
        }
        Ok(scratch)
    }

    /// What would be lost if the worktree and its branch went away now. `repository` is its lock, of a caller who has
    /// it; without, it is taken for one short look.
    pub(super) fn work_of(&self, tree: &Tree, repository: Option<&Locked>) -> Result<Work> {
        let mut work = Work::default();
        if tree.is_there() {
            if tree.record.is_some() {
                self.look_at_files(tree, &mut work)?;
            } else if !is_empty_folder(&tree.folder) {
                let lost = unreadable(".git", "git has no record of this worktree any more");
                work.block(lost);
            }
        }
        if let Some(reason) = tree.lock_reason() {
            let detail = Some(reason).filter(|reason| !reason.is_empty());
            work.add_dirty(Lost { kind: "locked", name: ".".to_owned(), detail });
        }
        self.look_at_operations(tree, &mut work);
        self.look_at_commits(tree, repository, &mut work)?;
        Ok(work)
    }

    /// Changed and new files, one for each line of git's status.
    pub(super) fn look_at_files(&self, tree: &Tree, work: &mut Work) -> Result<()> {
        let dot_git = read_text(&tree.folder.join(".git")).unwrap_or_default();
        if !dot_git.starts_with("gitdir: ") {
            work.block(unreadable(".git", "it is not the file that git put there"));
        }
        let scratch = self.scratch(tree)?;
        let args = [
            "status",
            "--porcelain=v2",
            "-z",
            "--untracked-files=all",
            "--ignore-submodules=none",
            "--no-renames",
        ];
        let call = Call { index: Some(&scratch.path), stdout_max: LONG_OUTPUT, ..tree.call(&args) };
        let outcome = self.ask(call)?;
        if !outcome.is_good() || outcome.is_cut {
            return Err(git::failure("status", &outcome));
        }
        // Git passes such a folder by, and ends well.
        let closed = outcome.stderr.lines().find(|line| line.contains(CLOSED_FOLDER));
        if let Some(line) = closed {
            work.block(unreadable(".", line));
        }
        let told = outcome.stdout;
        for entry in told.split(|byte| *byte == 0).filter(|entry| !entry.is_empty()) {
            let entry = String::from_utf8_lossy(entry);
            match entry.split_at_checked(2) {
                Some(("? ", path)) if path.ends_with('/') => work.block(Lost {
                    kind: "nested_repository",
                    name: path.trim_end_matches('/').to_owned(),
                    detail: Some("its commits and files can not be put into a backup ref".into()),
                }),
                Some(("? ", path)) => {
                    work.add_dirty(Lost { kind: "untracked", name: path.to_owned(), detail: None });
                }
                Some(("1 " | "u ", rest)) => {
                    let fields = if entry.starts_with('1') { 8 } else { 10 };
                    let mut parts = rest.splitn(fields, ' ');
                    let change = parts.next().unwrap_or_default().to_owned();
                    let is_submodule = parts.next().is_some_and(|sub| sub.starts_with('S'));
                    let name = parts.last().unwrap_or_default().to_owned();
                    if is_submodule {
                        work.block(Lost { kind: "submodule", name, detail: Some(change) });
                    } else {
                        work.add_dirty(Lost { kind: "modified", name, detail: Some(change) });
                    }
                }
                _ => {}
            }
        }
        self.look_at_submodules(tree, work)
    }

    fn look_at_operations(&self, tree: &Tree, work: &mut Work) {
        let Some(record) = &tree.record else { return };
        for (name, what) in OPERATIONS {
            if record.join(name).exists() {
                let detail = Some(format!("{what} is not finished"));
                work.add_dirty(Lost { kind: "operation", name: (*name).to_owned(), detail });
                return;
            }
        }
    }

    /// Commits that only this worktree or its branch leads to.
    fn look_at_commits(
        &self,
        tree: &Tree,
        repository: Option<&Locked>,
        work: &mut Work,
    ) -> Result<()> {
        work.branch_tip = self.ref_commit(&tree.common_dir, &tree.branch_ref())?;
        work.head = match &tree.record {
            Some(record) => self.ref_commit(record, "HEAD")?,
            None => None,
        };
        let mut held: Vec<String> =
            [&work.head, &work.branch_tip].into_iter().flatten().cloned().collect();
        held.extend(HEADS.iter().filter_map(|name| tree.commit_in(name)));
        if let Some(record) = &tree.record {
            held.extend(own_refs(&record.join("refs")));
        }
        let mut discarded: Vec<String> = tree.commit_in("ORIG_HEAD").into_iter().collect();
        let logs = [
            tree.record.as_ref().map(|record| record.join("logs/HEAD")),
            Some(tree.common_dir.join("logs").join(tree.branch_ref())),
        ];
        for log in logs.into_iter().flatten() {
            discarded.extend(reflog(&log));
        }
        let others = self.other_tips(tree, repository, work)?;
        if !held.is_empty() {
            self.list_unmerged(tree, &held, &others, work)?;
        }
        held.extend(discarded);
        work.tips = self.tips_of(tree, &held, &others)?;
        Ok(())
    }

    /// What stays: every ref but the branch itself, and where other worktrees stand. One that somebody has made inside
    /// of this one, perhaps where git ignores it, would go with it. Git ends with an error when it meets the record of
    /// a worktree that is being made, so nobody may be making one meanwhile.
    fn other_tips(
        &self,
        tree: &Tree,
        repository: Option<&Locked>,
        work: &mut Work,
    ) -> Result<Vec<String>> {
        let common = &tree.common_dir;
        let at_common = |args: &[&'static str]| Call {
            git_dir: Some(common),
            stdout_max: LONG_OUTPUT,
            ..Call::new(common, args)
        };
        let refs =
            self.word(at_common(&["for-each-ref", "--format=%(objectname) %(symref) %(refname)"]))?;
        let own = tree.branch_ref();
        // A ref that only names another holds nothing: what it names is among them, or is the branch itself.
        let mut others: Vec<String> = refs
            .lines()
            .filter_map(|line| line.split_once("  "))
            .filter(|(_, name)| *name != own)
            .map(|(commit, _)| commit.to_owned())
            .collect();
        let taken = match repository {
            Some(_) => None,
            None => Some(self.lock_repository(common)?),
        };
        let worktrees = self.word(at_common(&["worktree", "list", "--porcelain"]))?;
        drop(taken);
        for block in worktrees.split("\n\n") {
            let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name));
            let folder = field("worktree ").map(Path::new);
            let is_own = folder.is_some_and(|folder| folder == tree.home);
            let inside = folder.and_then(|folder| folder.strip_prefix(&tree.home).ok());
            if let Some(name) = inside.filter(|_| !is_own && folder.is_some_and(Path::exists)) {
                work.block(Lost {
                    kind: "nested_repository",
                    name: name.to_string_lossy().into_owned(),
                    detail: Some("it is a worktree; `git worktree remove` takes it away".into()),
                });
                continue;
            }
            // A worktree that stands on the branch itself goes with it.
            let is_detached = block.lines().any(|line| line == "detached");
            if let Some(head) = field("HEAD ").filter(|_| !is_own && is_detached) {
                others.extend(commit_of(head));
            }
        }
        Ok(others)
    }

    fn list_unmerged(
        &self,
        tree: &Tree,
        held: &[String],
        others: &[String],
        work: &mut Work,
    ) -> Result<()> {
        let args =
            ["rev-list", "--ignore-missing", "--pretty=format:%H%x09%s", "--stdin", "--topo-order"];
        let call = Call {
            git_dir: Some(&tree.common_dir),
            stdin: range(held, others),
            stdout_max: LONG_OUTPUT,
            ..Call::new(&tree.common_dir, &args)
        };
        let told = self.word(call)?;
        let commits = told.lines().filter_map(|line| line.split_once('\t'));
        for (commit, subject) in commits {
            work.unmerged_count += 1;
            if work.unmerged.len() < limits::LOST_LISTED {
                let detail = Some(subject.chars().take(200).collect());
                work.unmerged.push(Lost { kind: "commit", name: commit.to_owned(), detail });
            }
        }
        Ok(())
    }

    /// Of all that these lead to and the others do not: the commits that no other of them leads to.
    fn tips_of(&self, tree: &Tree, held: &[String], others: &[String]) -> Result<Vec<String>> {
        if held.is_empty() {
            return Ok(Vec::new());
        }
        let call = Call {
            git_dir: Some(&tree.common_dir),
            stdin: range(held, others),
            stdout_max: LONG_OUTPUT,
            ..Call::new(&tree.common_dir, &["rev-list", "--ignore-missing", "--parents", "--stdin"])
        };
        let told = self.word(call)?;
        let mut commits = Vec::new();
        let mut parents = HashSet::new();
        for line in told.lines() {
            let mut words = line.split(' ');
            commits.extend(words.next());
            parents.extend(words);
        }
        let tips = commits.into_iter().filter(|commit| !parents.contains(commit));
        Ok(tips.map(str::to_owned).collect())
    }
}

impl Work {
    pub(super) fn is_dirty(&self) -> bool {
        self.dirty_count > 0
    }

    pub(super) fn is_unmerged(&self) -> bool {
        self.unmerged_count > 0
    }

    fn add_dirty(&mut self, lost: Lost) {
        self.dirty_count += 1;
        if self.dirty.len() < limits::LOST_LISTED {
            self.dirty.push(lost);
        }
    }

    pub(super) fn block(&mut self, lost: Lost) {
        if self.blockers.len() < limits::LOST_LISTED {
            self.blockers.push(lost.clone());
        }
        self.add_dirty(lost);
    }
}

fn unreadable(name: &str, detail: &str) -> Lost {
    Lost { kind: "unreadable", name: name.to_owned(), detail: Some(detail.to_owned()) }
}

fn record_gone() -> Error {
    Error::new(crate::error::Code::Conflict, "git has no record of this worktree any more")
        .hint("git worktree repair in its repository may find it again")
}

/// Lines for `rev-list --stdin`.
fn range(held: &[String], others: &[String]) -> Vec<u8> {
    let mut lines = String::new();
    for commit in held {
        lines.push_str(commit);
        lines.push('\n');
    }
    for commit in others {
        lines.push('^');
        lines.push_str(commit);
        lines.push('\n');
    }
    lines.into_bytes()
}

/// The first word of a text when it is the name of an object.
fn commit_of(text: &str) -> Option<String> {
    let word = text.split_whitespace().next()?;
    let is_name = matches!(word.len(), 40 | 64)
        && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        && word.bytes().any(|byte| byte != b'0');
    is_name.then(|| word.to_owned())
}

/// The commits that a reflog remembers, its newest entries.
fn reflog(path: &Path) -> Vec<String> {
    let text = read_text(path).unwrap_or_default();
    let entries = text.lines().rev().take(REFLOG_ENTRIES);
    entries.filter_map(|line| commit_of(line.split(' ').nth(1)?)).collect()
}

/// Refs that belong to one worktree alone (`refs/worktree`, `refs/bisect`, `refs/rewritten`).
fn own_refs(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                Ok(kind) if kind.is_file() => {
                    let text = read_text(&entry.path()).unwrap_or_default();
                    found.extend(commit_of(&text));
                }
                _ => {}
            }
        }
    }
    found
}

/// Git's record of the worktree in `folder`: the one whose `gitdir` points there.
fn find_record(common_dir: &Path, folder: &Path) -> Option<PathBuf> {
    let wanted = folder.join(".git");
    let entries = fs::read_dir(common_dir.join("worktrees")).ok()?.flatten();
    let mut records = entries.map(|entry| entry.path());
    records.find(|record| home_of(record).as_ref() == Some(&wanted))
}

/// The file `.git` of the worktree that a record of git's is of. None: there is no such record.
pub(super) fn home_of(record: &Path) -> Option<PathBuf> {
    let text = read_text(&record.join("gitdir")).ok()?;
    // It may be written from the record's own folder.
    Some(plain(&record.join(text.trim_end_matches('\n'))))
}

/// The path without `.` and `..`, by its words alone: what it names may be gone.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}

fn is_empty_folder(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

/// Whether the repository is still where the worktree's record says.
pub(super) fn is_repository(common_dir: &Path) -> bool {
    common_dir.join("HEAD").is_file() && git::real(common_dir).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_objects_are_commits() {
        let name = "e7a6ddfbc235acf88689634bd7cecadf928863ec";
        assert_eq!(commit_of(&format!("{name} x\n")), Some(name.to_owned()));
        for other in ["", "ref: refs/heads/x", &"0".repeat(40), "e7a6"] {
            assert_eq!(commit_of(other), None, "{other}");
        }
    }

    #[test]
    fn a_relative_record_is_read_from_its_own_folder() {
        let path = Path::new("/r/.git/worktrees/w/../../../../t/w/.git");
        assert_eq!(plain(path), Path::new("/t/w/.git"));
    }
}
