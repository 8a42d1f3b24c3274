//! Names: what a client calls a worktree, and which branch and folder that makes.
//!
//! Pure. Promises: whatever a client writes, the branch reaches git as a branch and not as an option, and the folder
//! lies exactly two levels below the folder of all worktrees. The last word on what may name a branch is git's own.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// The prefix of branches that the client gives none for.
const PREFIX: &str = "gg";
/// A file name may have 255 bytes on every file system; a slash of the branch takes two in the folder's name.
const BRANCH_BYTES_MAX: usize = 200;
const UNIFIED_BYTES_MAX: usize = 200;

/// Branch and folder of a worktree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub worktree_name: String,
    pub branch_name: String,
    /// The repository's path as one folder name.
    pub unified: String,
    /// `<folder of all worktrees>/<unified>`.
    pub root: PathBuf,
    /// `<root>/<branch with every slash as two dashes>`.
    pub cwd: PathBuf,
}

/// Where the worktree of that name goes. Errors: a name that can not be a branch.
pub(super) fn place(
    root_dir: &Path,
    repo_root: &Path,
    branch_prefix: Option<&str>,
    worktree_name: &str,
) -> Result<Place> {
    let name = worktree_name.trim();
    let prefix = branch_prefix.map(str::trim).filter(|prefix| !prefix.is_empty());
    check("worktree_name", name)?;
    check("branch_prefix", prefix.unwrap_or(PREFIX))?;
    let branch = format!("{}/{name}", prefix.unwrap_or(PREFIX));
    if branch.len() > BRANCH_BYTES_MAX {
        return Err(Error::bad_request(format!(
            "worktree_name: the branch {branch:?} has {} bytes, at most {BRANCH_BYTES_MAX}",
            branch.len()
        )));
    }
    let unified = unify(&repo_root.to_string_lossy());
    let root = root_dir.join(&unified);
    let cwd = root.join(branch.replace('/', "--"));
    Ok(Place { worktree_name: name.to_owned(), branch_name: branch, unified, root, cwd })
}

/// What could be anything but the name of a branch: said with the field, before git is asked.
fn check(field: &str, text: &str) -> Result<()> {
    let wrong = |what: &str| {
        Err(Error::bad_request(format!("{field}: {text:?} {what}"))
            .hint("use letters, digits, dots, dashes and slashes, as for a git branch"))
    };
    if text.is_empty() {
        return wrong("is empty");
    }
    if text.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        return wrong("has white space or control characters in it");
    }
    for part in text.split('/') {
        if part.is_empty() {
            return wrong("has a slash at its start or end, or two in a row");
        }
        if part.starts_with('-') {
            return wrong("has a part that begins with a dash");
        }
        let is_dotted = part.starts_with('.') || part.ends_with('.') || part.contains("..");
        if is_dotted || part.ends_with(".lock") {
            return wrong("has a part with a dot at its start or end or two in a row, or a lock");
        }
    }
    if text.contains(['\\', ':', '~', '^', '?', '*', '[']) || text.contains("@{") {
        return wrong("has characters that git reads as something else");
    }
    Ok(())
}

/// A path as one folder name: runs of separators become two underscores, whatever is unusual one.
fn unify(path: &str) -> String {
    let mut unified = String::new();
    let mut was_separator = false;
    for letter in path.chars() {
        let is_separator = matches!(letter, '/' | '\\');
        match letter {
            _ if is_separator && was_separator => {}
            _ if is_separator => unified.push_str("__"),
            _ if letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-') => {
                unified.push(letter);
            }
            _ => unified.push('_'),
        }
        was_separator = is_separator;
    }
    // A long path keeps its end, which tells repositories apart. All of it is ASCII.
    let unified = &unified[unified.len().saturating_sub(UNIFIED_BYTES_MAX)..];
    // Folders that begin with a dot are the server's own; one that begins with a dash reads as an option.
    let unified = unified.trim_start_matches(['_', '.', '-']).trim_end_matches('_');
    if unified.is_empty() { "workspace".to_owned() } else { unified.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(prefix: Option<&str>, name: &str) -> Result<Place> {
        place(Path::new("/data/worktrees"), Path::new("/srv/demo/repo"), prefix, name)
    }

    #[test]
    fn a_name_makes_a_branch_and_a_folder() {
        let made = at(Some(" my/pre "), " feat-1 ").unwrap();
        assert_eq!(made.branch_name, "my/pre/feat-1");
        assert_eq!(made.worktree_name, "feat-1");
        let cwd = Path::new("/data/worktrees/srv__demo__repo/my--pre--feat-1");
        assert_eq!(made.cwd, cwd);
        assert_eq!(at(None, "f2").unwrap().branch_name, "gg/f2");
    }

    #[test]
    fn a_hostile_name_is_refused_with_its_field() {
        let long = "x".repeat(300);
        for name in [
            "",
            " ",
            "-x",
            "a/-x",
            "--force",
            "..",
            "a/../b",
            "../../etc",
            "/etc",
            "a/",
            "a//b",
            ".git",
            "a\0b",
            "a\nb",
            "a b",
            "a:b",
            "a~1",
            "a^",
            "a?",
            "a*",
            "[a",
            "a\\b",
            "a@{1}",
            "a.lock",
            "HEAD.lock/x",
            &long,
        ] {
            let error = at(None, name).unwrap_err();
            assert!(error.message.contains("worktree_name"), "{name:?}: {error}");
        }
        assert!(at(Some("-d"), "x").unwrap_err().message.contains("branch_prefix"));
    }

    #[test]
    fn a_path_becomes_one_folder_name() {
        for (path, unified) in [
            ("/srv/demo/repo", "srv__demo__repo"),
            ("/srv//a\\b", "srv__a__b"),
            ("/a b/ü", "a_b"),
            ("/", "workspace"),
            ("/..", "workspace"),
            ("/.trash", "trash"),
            ("/-rf", "rf"),
        ] {
            assert_eq!(unify(path), unified, "{path}");
        }
        assert!(unify(&format!("/{}", "x/".repeat(3000))).len() <= UNIFIED_BYTES_MAX);
    }
}
