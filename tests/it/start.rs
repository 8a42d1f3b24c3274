//! The start: what ends it, what can not be done, and what surrounds it.

use gooselake_harness::server::{Options, Server};
use gooselake_harness::temp::TempDir;
use std::fs;

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
