//! Looking at a worktree: its status and its diff.
//!
//! Runs on the thread of the request, takes no lock and changes nothing: an agent may work there meanwhile, so what is
//! told is true of one moment.

use super::git::{Call, LONG_OUTPUT};
use super::tree::{Tree, Work};
use super::{Shared, Worktrees};
use crate::error::{Code, Error, Result};
use crate::ledger::worktree::{self, WorktreeRecord};
use crate::limits;
use serde_json::{Value, json};

/// What a diff is held against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Against {
    /// Where the branch began: all that was done in the worktree.
    Base,
    /// The last commit: what is not committed.
    Head,
}

/// A diff of the working tree, new files included.
pub struct Diff {
    pub from: String,
    pub text: String,
    pub is_truncated: bool,
}

impl Worktrees {
    /// Branch, head, distance from the base, changed files, and what a cleanup would do.
    pub fn status(&self, worktree_id: &str) -> Result<Value> {
        let (record, tree) = self.tree_of(worktree_id)?;
        let shared = &self.shared;
        let work = shared.work_of(&tree, None)?;
        let branch = shared.branch_of(&tree)?;
        let base = match &record.base_ref {
            Some(name) => shared.named_commit(&tree, name)?,
            None => None,
        };
        let base = base.unwrap_or_else(|| record.base_commit.clone());
        let (ahead, behind) = match &work.head {
            Some(head) => shared.distance(&tree, &base, head)?,
            None => (0, 0),
        };
        let files = work.dirty.iter().filter(|lost| !matches!(lost.kind, "operation" | "locked"));
        let find = |kind| work.dirty.iter().find(|lost| lost.kind == kind);
        Ok(json!({
            "worktree_id": record.id,
            "branch": branch,
            "head": work.head,
            "base_ref": record.base_ref,
            "base_commit": record.base_commit,
            "ahead": ahead,
            "behind": behind,
            "dirty": work.is_dirty(),
            "dirty_count": work.dirty_count,
            "dirty_files": files.collect::<Vec<_>>(),
            "unmerged_count": work.unmerged_count,
            "unmerged_commits": work.unmerged,
            "operation": find("operation").and_then(|lost| lost.detail.clone()),
            "locked": tree.lock_reason(),
            "problem": record.problem,
            "cleanup": would_be(&record, &work),
        }))
    }

    pub fn diff(&self, worktree_id: &str, against: Against) -> Result<Diff> {
        let (record, tree) = self.tree_of(worktree_id)?;
        let shared = &self.shared;
        let from = match against {
            Against::Base => record.base_commit,
            Against::Head => match tree.record.as_deref() {
                Some(folder) => shared.ref_commit(folder, "HEAD")?.ok_or_else(|| {
                    Error::new(Code::Conflict, "the worktree stands on no commit")
                })?,
                None => record.base_commit,
            },
        };
        let scratch = shared.scratch(&tree)?;
        let with_index = |args: &[&'static str]| Call {
            index: Some(&scratch.path),
            stdout_max: LONG_OUTPUT,
            ..tree.call(args)
        };
        // New files count as soon as the copy of the index knows their names. What git can not add (a repository in
        // a folder) is left out.
        let args = ["add", "--intent-to-add", "--ignore-errors", "--all", "--", "."];
        drop(shared.ask(with_index(&args))?);
        let mut call = with_index(&["diff", "--no-ext-diff", "--no-textconv", "--no-color"]);
        call.args.push(&from);
        call.args.push("--");
        call.stdout_max = limits::DIFF_BYTES;
        let outcome = shared.ask(call)?;
        if !outcome.is_good() && !outcome.is_cut {
            return Err(super::git::failure("diff", &outcome));
        }
        let text = String::from_utf8_lossy(&outcome.stdout).into_owned();
        Ok(Diff { from, text, is_truncated: outcome.is_cut })
    }

    fn tree_of(&self, worktree_id: &str) -> Result<(WorktreeRecord, Tree)> {
        self.shared.refuse_when_disabled()?;
        let record = self.shared.ledger.read(|db| worktree::get(db, worktree_id))?;
        let tree = Tree::of(&record);
        if record.status == "deleted" || !tree.is_there() || tree.record.is_none() {
            return Err(Error::new(
                Code::Conflict,
                format!("there is nothing to look at: worktree {worktree_id} is {}", record.status),
            ));
        }
        Ok((record, tree))
    }
}

impl Shared {
    /// The branch that the worktree stands on; None when it stands on a commit.
    fn branch_of(&self, tree: &Tree) -> Result<Option<String>> {
        let outcome = self.ask(tree.call(&["symbolic-ref", "--quiet", "--short", "HEAD"]))?;
        let name = String::from_utf8_lossy(&outcome.stdout).trim().to_owned();
        Ok(outcome.is_good().then_some(name))
    }

    /// The commit that the base's name means now. The name was checked when the worktree was made.
    fn named_commit(&self, tree: &Tree, name: &str) -> Result<Option<String>> {
        self.ref_commit(&tree.common_dir, &format!("{name}^{{commit}}"))
    }

    /// How many commits `head` has that `base` has not, and the other way round.
    fn distance(&self, tree: &Tree, base: &str, head: &str) -> Result<(u64, u64)> {
        let range = format!("{base}...{head}");
        let args = ["rev-list", "--left-right", "--count", &range, "--"];
        let call = Call { git_dir: Some(&tree.common_dir), ..Call::new(&tree.common_dir, &args) };
        let told = self.word(call)?;
        let mut counts = told.split_whitespace().map(|count| count.parse().unwrap_or(0));
        let behind = counts.next().unwrap_or(0);
        Ok((counts.next().unwrap_or(0), behind))
    }
}

/// How a cleanup without force would end now.
fn would_be(record: &WorktreeRecord, work: &Work) -> &'static str {
    if record.active_claim_count > 0 {
        "skipped_live_claims"
    } else if record.deletion_policy == "retain_on_last_claim" {
        "retained_by_policy"
    } else if work.is_dirty() {
        "kept_dirty"
    } else if work.is_unmerged() {
        "kept_unmerged"
    } else {
        "deleted"
    }
}
