//! The start: what ends it, what can not be done, and what surrounds it.

use crate::stage::{SOON, Stage, text};
use gooselake_harness::fault::{Fault, Number};
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_start_that_fails_with_its_database_open_ends_with_the_reason() {
    let folder = TempDir::new("gg-start");
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let config_toml = format!("[worktrees]\nroot_dir = \"{}/trees\"\n", file.display());
    let told = Server::try_start(Options { config_toml, ..Options::default() }).unwrap_err();
    assert!(told.contains("(exit status: 1)"), "{told}");
    assert!(told.contains("Not a directory"), "{told}");
}

/// Its disk may hang: who stops it then need not wait for that.
#[test]
fn a_signal_ends_a_start_that_is_not_over() {
    for signal in [Signal::TERM, Signal::INT] {
        let (fault, folder) = (Fault::new(), TempDir::new("gg-start"));
        let data_dir = folder.path().join("data");
        fault.set(Number::SyncDelayMs, -1);
        let mut command = Command::new(program("GG_TEST_SERVER", "gg-runtime-server").unwrap());
        command.arg("--data-dir").arg(&data_dir).args(["--bind", "127.0.0.1:0"]);
        command.env("HOME", folder.path()).envs(fault.env(&data_dir));
        let mut server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait::until(SOON, "the start hangs", || (fault.get(Number::Fired) > 0).then_some(()));
        proc::signal(server.id(), signal).unwrap();
        let ended = proc::wait_gone(&[server.id()], SOON);
        drop(server.kill());
        let status = server.wait().unwrap();
        assert!(ended.is_ok(), "{signal:?} does not end it");
        assert!(matches!(status.signal(), Some(2 | 15)), "{status}");
        // The next start has nothing to wait for.
        let options = Options { data_dir: Some(data_dir), ..Options::default() };
        assert_eq!(Server::start(options).terminate(), Some(0));
    }
}

/// Variables may be any bytes.
#[test]
fn a_variable_that_is_no_text_is_told_and_keeps_nothing_from_working() {
    let folder = TempDir::new("gg-start");
    let odd = folder.path().join("gg-odd");
    let server = program("GG_TEST_SERVER", "gg-runtime-server").unwrap();
    let script = format!(
        "#!/bin/sh\nLC_ODD=$(printf 'a\\377')\nOTHER=$LC_ODD\nexport LC_ODD OTHER\n\
         exec '{}' \"$@\"\n",
        server.display()
    );
    fs::write(&odd, script).unwrap();
    fs::set_permissions(&odd, fs::Permissions::from_mode(0o755)).unwrap();
    let server = Server::start(Options { program: Some(odd), ..Options::default() });
    let cwd = server.folder().join("work");
    fs::create_dir(&cwd).unwrap();
    let stage = Stage { client: crate::contract::client(&server), server, cwd };
    assert_eq!(stage.run(&stage.session(), "say on")["assistant_text"], "on");
    let body = json!({"command": "echo \"${LC_ODD-none} ${OTHER-none}\"", "cwd": stage.cwd});
    let record = stage.process_end(&text(&stage.start_process(&body)["process"], "process_id"));
    assert_eq!(record["process"]["status"], "completed", "{record}");
    assert_eq!(fs::read_to_string(text(&record, "stdout_path")).unwrap(), "none none\n");
    let told = stage.server.stderr_text();
    assert_eq!(told.matches("LC_ODD is not UTF-8").count(), 1, "{told}");
    assert!(!told.contains("OTHER"), "{told}");
}

/// It may lie outside of both their data folders.
#[test]
fn one_server_has_a_database() {
    let folder = TempDir::new("gg-start");
    let of_database = |database: &Path| {
        let config_toml = format!("[data]\nsqlite_path = \"{}\"\n", database.display());
        Options { config_toml, ..Options::default() }
    };
    let options = of_database(&folder.path().join("shared.sqlite3"));
    let mut first = Server::start(options.clone());
    // The database of another one's data folder is as good as one in neither's.
    let mut usual = Server::start(Options::default());
    let others = of_database(&usual.data_dir().join("runtime.sqlite3"));
    for options in [&options, &others] {
        let told = Server::try_start(options.clone()).unwrap_err();
        assert!(told.contains("(exit status: 1)"), "{told}");
        assert!(told.contains("another server runs on the database"), "{told}");
    }
    assert_eq!((first.terminate(), usual.terminate()), (Some(0), Some(0)));
    assert_eq!(Server::start(options).terminate(), Some(0));
}
