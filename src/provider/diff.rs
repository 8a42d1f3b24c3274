//! A small line diff.
//!
//! Owns: making the text of a unified diff from two texts. Promises: the same texts give the same
//! diff on every machine, in bounded time and space: where the changed middle is too large to
//! compare line by line it is shown as removed and added whole, and a text beyond
//! [`DIFF_BYTES_MAX`] is cut at a line with a last line that says so. Deliberately not minimal in
//! that case, and without any notion of words.

use std::fmt::Write as _;

/// What a diff may have at most; the rest is cut.
pub(super) const DIFF_BYTES_MAX: usize = 64 * 1024;
/// Cells of the comparison table: two middles of 1,000 lines each, 2 MiB for the time of the call.
const CELLS_MAX: usize = 1_000_000;
/// Unchanged lines around a change.
const CONTEXT: usize = 3;
/// The line that says that a diff was cut.
const CUT: &str = "\\ The rest of the diff was cut\n";

/// One line of the diff.
#[derive(Clone, Copy, PartialEq)]
enum Edit<'a> {
    Keep(&'a str),
    Remove(&'a str),
    Add(&'a str),
}

/// The unified diff from `old` to `new`; `old` None is a new file. Empty when nothing differs.
pub(super) fn unified(path: &str, old: Option<&str>, new: &str) -> String {
    let edits = edits(&lines(old.unwrap_or_default()), &lines(new));
    let mut text = String::new();
    for hunk in hunks(&edits) {
        if text.is_empty() {
            let from = if old.is_some() { path } else { "/dev/null" };
            text = format!("--- {from}\n+++ {path}\n");
        }
        if !write_hunk(&mut text, &edits, hunk) {
            text.push_str(CUT);
            break;
        }
    }
    text
}

/// Lines with their newline, so that a missing last newline is a difference.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

fn edits<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Edit<'a>> {
    let head = old.iter().zip(new).take_while(|(a, b)| a == b).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(a, b)| a == b).count();
    let old_middle = &old_rest[..old_rest.len() - tail];
    let new_middle = &new_rest[..new_rest.len() - tail];
    let mut edits: Vec<Edit> = old[..head].iter().map(|line| Edit::Keep(line)).collect();
    if old_middle.len().saturating_mul(new_middle.len()) <= CELLS_MAX {
        compare(old_middle, new_middle, &mut edits);
    } else {
        edits.extend(old_middle.iter().map(|line| Edit::Remove(line)));
        edits.extend(new_middle.iter().map(|line| Edit::Add(line)));
    }
    edits.extend(old_rest[old_rest.len() - tail..].iter().map(|line| Edit::Keep(line)));
    edits
}

/// Longest common subsequence by a table of its lengths for all pairs of rests.
fn compare<'a>(old: &[&'a str], new: &[&'a str], edits: &mut Vec<Edit<'a>>) {
    let width = new.len() + 1;
    let mut common = vec![0u16; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            common[i * width + j] = if old[i] == new[j] {
                common[(i + 1) * width + j + 1].saturating_add(1)
            } else {
                common[(i + 1) * width + j].max(common[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < old.len() || j < new.len() {
        let is_removed = j == new.len()
            || i < old.len() && common[(i + 1) * width + j] >= common[i * width + j + 1];
        if i < old.len() && j < new.len() && old[i] == new[j] {
            edits.push(Edit::Keep(old[i]));
            (i, j) = (i + 1, j + 1);
        } else if is_removed {
            edits.push(Edit::Remove(old[i]));
            i += 1;
        } else {
            edits.push(Edit::Add(new[j]));
            j += 1;
        }
    }
}

/// The ranges of edits that are shown: every change with its context, joined where they touch.
fn hunks(edits: &[Edit]) -> Vec<std::ops::Range<usize>> {
    let mut hunks: Vec<std::ops::Range<usize>> = Vec::new();
    for (at, edit) in edits.iter().enumerate() {
        if matches!(edit, Edit::Keep(_)) {
            continue;
        }
        let (start, end) = (at.saturating_sub(CONTEXT), (at + CONTEXT + 1).min(edits.len()));
        match hunks.last_mut() {
            Some(last) if last.end >= start => last.end = end,
            _ => hunks.push(start..end),
        }
    }
    hunks
}

/// Returns false when the bound was reached.
fn write_hunk(text: &mut String, edits: &[Edit], hunk: std::ops::Range<usize>) -> bool {
    let count = |edits: &[Edit], old: bool| {
        let other = |edit: &&Edit| match edit {
            Edit::Keep(_) => true,
            Edit::Remove(_) => old,
            Edit::Add(_) => !old,
        };
        edits.iter().filter(other).count()
    };
    let (before, shown) = (&edits[..hunk.start], &edits[hunk]);
    let (old_lines, new_lines) = (count(shown, true), count(shown, false));
    // A range without lines names the line before it.
    let old_start = count(before, true) + usize::from(old_lines > 0);
    let new_start = count(before, false) + usize::from(new_lines > 0);
    writeln!(text, "@@ -{old_start},{old_lines} +{new_start},{new_lines} @@")
        .expect("a string takes every text");
    for edit in shown {
        let (sign, line) = match edit {
            Edit::Keep(line) => (' ', line),
            Edit::Remove(line) => ('-', line),
            Edit::Add(line) => ('+', line),
        };
        if text.len() + line.len() + CUT.len() + 40 > DIFF_BYTES_MAX {
            return false;
        }
        text.push(sign);
        text.push_str(line);
        if !line.ends_with('\n') {
            text.push_str("\n\\ No newline at end of file\n");
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_all_added() {
        let expected = "--- /dev/null\n+++ /a\n@@ -0,0 +1,2 @@\n+one\n+two\n\
            \\ No newline at end of file\n";
        assert_eq!(unified("/a", None, "one\ntwo"), expected);
    }

    #[test]
    fn changes_far_apart_are_hunks_of_their_own() {
        let old: String = (1..=20).map(|n| format!("{n}\n")).collect();
        let new = old.replace("2\n3\n", "2\nthree\n").replace("18\n", "");
        let expected = "--- /a\n+++ /a\n\
            @@ -1,6 +1,6 @@\n 1\n 2\n-3\n+three\n 4\n 5\n 6\n\
            @@ -15,6 +15,5 @@\n 15\n 16\n 17\n-18\n 19\n 20\n";
        assert_eq!(unified("/a", Some(&old), &new), expected);
    }

    #[test]
    fn the_same_text_has_no_diff() {
        assert_eq!(unified("/a", Some("x\n"), "x\n"), "");
        assert_eq!(unified("/a", None, ""), "");
    }

    #[test]
    fn a_removed_file_is_all_removed() {
        assert_eq!(unified("/a", Some("x\n"), ""), "--- /a\n+++ /a\n@@ -1,1 +0,0 @@\n-x\n");
    }

    #[test]
    fn large_texts_are_bounded() {
        let old: String = (0..40_000).map(|n| format!("old {n}\n")).collect();
        let new: String = (0..40_000).map(|n| format!("new {n}\n")).collect();
        let diff = unified("/a", Some(&old), &new);
        assert!(diff.len() <= DIFF_BYTES_MAX, "{} bytes", diff.len());
        assert!(diff.ends_with(CUT));
        let long = "x".repeat(2 * DIFF_BYTES_MAX);
        assert!(unified("/a", None, &long).ends_with(CUT));
    }
}
