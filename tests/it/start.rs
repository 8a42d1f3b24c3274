//! The start: what ends it, what can not be done, and what surrounds it.

use crate::stage::{Stage, text};
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::temp::TempDir;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;

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
