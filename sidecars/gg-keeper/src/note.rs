//! The keeper's own notes.
//!
//! Owns: what goes to stderr, which is `keeper.log` in the folder of the child. Bounded by a count
//! of lines and a length of each, because a disk that stays full for a week would otherwise add a
//! line a second. Nobody but a person reads it.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};

const LINES_MAX: usize = 200;
const LINE_LEN_MAX: usize = 500;

/// Adds one line. Above the bound it does nothing.
pub(crate) fn add(text: &str) {
    static LINES: AtomicUsize = AtomicUsize::new(0);
    if LINES.fetch_add(1, Ordering::Relaxed) < LINES_MAX {
        let line: String = text.chars().take(LINE_LEN_MAX).collect();
        // There is nobody to tell that a note could not be written.
        drop(writeln!(std::io::stderr(), "{line}"));
    }
}
