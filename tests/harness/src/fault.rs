//! A machine that goes wrong under one server: a full or slow disk, a clock that is set back, no threads, no power.
//!
//! Owns: the library `fault/fault.c`, which is loaded into the server (see `preload`); and the page of numbers by which
//! a test says what fails from now on. The children of the server get an environment of their own, so nothing fails for
//! them. It needs a server that is linked dynamically; [`Fault::check_loaded`] fails where the library had no effect.

use crate::preload::library;
use crate::temp::TempDir;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const SOURCE: &str = include_str!("fault/fault.c");

/// What can fail, in the order of the numbers in `fault.c`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// How many servers have loaded the library.
    Loaded,
    /// How far the wall clock is off, in milliseconds.
    ClockMs,
    /// How long a sync takes; below 0: as long as that.
    SyncDelayMs,
    /// What a sync fails with; 0 = nothing. The negative number is for the next one alone.
    SyncErrno,
    /// What every change of a file or folder fails with.
    WriteErrno,
    /// What the start of a program fails with.
    SpawnErrno,
    /// What the start of a thread fails with.
    ThreadErrno,
    /// How often something has failed, or waited for a slow sync.
    Fired,
    /// With which change of a file or folder the process is killed, before it is made; 0 = none.
    ChangesLeft,
    /// With which start of a thread the system has none any more, this one not either; 0 = it goes on to have some.
    ThreadsLeft,
    /// How many panics are still to come; see [`Fault::panic_in`].
    Panics,
}

/// The faults of one server. Keep it as long as the server runs.
#[derive(Debug)]
pub struct Fault {
    page: File,
    folder: TempDir,
}

impl Fault {
    pub fn new() -> Fault {
        let folder = TempDir::new("gg-fault");
        let path = folder.path().join("page");
        let page = OpenOptions::new().create_new(true).read(true).write(true).open(&path);
        let page = page.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        page.set_len(4096).expect("a file of one page");
        Fault { page, folder }
    }

    /// What the server's environment needs, for faults in this folder (its data folder, or one above it).
    pub fn env(&self, data_dir: &Path) -> Vec<(String, String)> {
        let text = |path: &Path| path.to_str().expect("temporary paths are text").to_owned();
        [
            ("LD_PRELOAD", library("fault", SOURCE).as_path()),
            ("GG_FAULT_PAGE", &self.folder.path().join("page")),
            ("GG_FAULT_FOLDER", data_dir),
        ]
        .map(|(name, path)| (name.to_owned(), text(path)))
        .to_vec()
    }

    /// The same, and what is written to this database and synced goes into a trace, one file for each life.
    pub fn env_with_trace(&self, data_dir: &Path, database: &Path) -> Vec<(String, String)> {
        let mut env = self.env(data_dir);
        for (name, path) in
            [("GG_FAULT_DATABASE", database.to_owned()), ("GG_FAULT_TRACE", self.trace())]
        {
            env.push((name.to_owned(), path.to_str().expect("it is text").to_owned()));
        }
        env
    }

    fn trace(&self) -> PathBuf {
        self.folder.path().join("trace")
    }

    /// The trace of a life, counted from 0.
    pub fn trace_of(&self, life: u64) -> PathBuf {
        self.folder.path().join(format!("trace.{life}"))
    }

    /// From now on.
    pub fn set(&self, number: Number, value: i64) {
        self.page.write_all_at(&value.to_ne_bytes(), number as u64 * 8).expect("the page is ours");
    }

    /// The next thread of the server whose name begins like this panics when it asks for the time of day.
    pub fn panic_in(&self, thread: &str) {
        let name = [thread.as_bytes(), &[0]].concat();
        let behind = (Number::Panics as u64 + 1) * 8;
        self.page.write_all_at(&name, behind).expect("the page is ours");
        self.set(Number::Panics, 1);
    }

    pub fn get(&self, number: Number) -> i64 {
        let mut bytes = [0; 8];
        self.page.read_exact_at(&mut bytes, number as u64 * 8).expect("the page is ours");
        i64::from_ne_bytes(bytes)
    }

    /// Panics: the server has not loaded the library, so nothing fails for it.
    pub fn check_loaded(&self) {
        let hint = "the server takes no library: is it linked statically?";
        assert!(self.get(Number::Loaded) > 0, "{hint}");
    }
}

impl Default for Fault {
    fn default() -> Fault {
        Fault::new()
    }
}
