//! Where a test has its ledger.

use crate::model::id;
use std::path::{Path, PathBuf};

/// A folder that goes away with the test.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        let path = std::env::temp_dir().join(id::new("gooselake"));
        std::fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.0.join("db")
    }

    /// Nobody can open a connection for reading; the writer has its own.
    pub(crate) fn hide_database(&self, is_hidden: bool) {
        let (shown, hidden) = (self.database(), self.0.join("hidden"));
        let (from, to) = if is_hidden { (shown, hidden) } else { (hidden, shown) };
        std::fs::rename(from, to).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
