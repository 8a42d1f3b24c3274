//! The built program, run as a command to its end.
//!
//! Owns: one process with a deadline; its output goes into files, so nobody waits for what it leaves behind.

use gooselake_harness::fault::{Fault, Number};
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::server::program;
use gooselake_harness::temp::TempDir;
use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long a command may take.
const TIME: Duration = Duration::from_secs(60);

/// How a command ended, and what it said.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// The same, if it ended with this code. Panics: it did not.
    #[track_caller]
    pub(crate) fn expect(self, code: i32) -> Said {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// Runs the server's program with these arguments and a home of its own.
pub(crate) fn run(arguments: &[&str]) -> Said {
    let mut command = Command::new(program("GG_TEST_SERVER", "gg-runtime-server").unwrap());
    run_to_its_end(command.args(arguments))
}

/// The same, killed before that change of a file or folder which is the so many'th; `code` is None then.
pub(crate) fn run_and_kill_at(change: i64, data_dir: &Path, arguments: &[&str]) -> Said {
    let fault = Fault::new();
    fault.set(Number::ChangesLeft, change);
    let mut command = Command::new(program("GG_TEST_SERVER", "gg-runtime-server").unwrap());
    let said = run_to_its_end(command.args(arguments).envs(fault.env(data_dir)));
    fault.check_loaded();
    said
}

/// The same on a disk that has no room for a file of more than 64 KiB: a limit that fails the same calls.
pub(crate) fn run_on_a_full_disk(arguments: &[&str]) -> Said {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 128; exec \"$0\" \"$@\""]);
    command.arg(program("GG_TEST_SERVER", "gg-runtime-server").unwrap());
    run_to_its_end(command.args(arguments))
}

fn run_to_its_end(command: &mut Command) -> Said {
    let folder = TempDir::new("gg-command-test");
    let path = |name: &str| folder.path().join(name);
    let (out, err) = (path("out"), path("err"));
    let mut child = command
        .env("HOME", folder.path())
        .stdin(Stdio::null())
        .stdout(File::create(&out).unwrap())
        .stderr(File::create(&err).unwrap())
        .spawn()
        .unwrap();
    if proc::wait_gone(&[child.id()], TIME).is_err() {
        drop(proc::signal(child.id(), Signal::KILL));
    }
    let code = child.wait().unwrap().code();
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    Said { code, stdout: read(&out), stderr: read(&err) }
}

/// The same for a command that looks after a data folder.
pub(crate) fn run_on(data_dir: &Path, arguments: &[&str]) -> Said {
    let data_dir = data_dir.to_str().unwrap();
    run(&[arguments, &["--data-dir", data_dir]].concat())
}
