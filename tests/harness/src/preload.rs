//! Libraries in C that stand between a server and the C library, by `LD_PRELOAD`.
//!
//! Owns: how one is built, with the system's `cc`, once for all test processes that have the same source. What it does
//! is the caller's business. A server that is linked statically takes none, which the caller has to find out.

use crate::temp::TempDir;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::process::Command;

/// The library that `source` makes: it lies where the test programs do, under a name that its source gives it. Panics:
/// there is no `cc`, or the source does not compile.
pub fn library(name: &str, source: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let mut hash = DefaultHasher::new();
    source.hash(&mut hash);
    let built = test.with_file_name(format!("gg-{name}-{:016x}.so", hash.finish()));
    if built.exists() {
        return built;
    }
    // Beside it first, under a name of this building: somebody else may build it too.
    let folder = TempDir::new("gg-preload");
    let (file, own) = (folder.path().join("library.c"), folder.path().file_name());
    let fresh = built.with_extension(own.expect("a temporary folder has a name"));
    fs::write(&file, source).expect("a temporary file");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&fresh).arg(&file).arg("-ldl");
    let output = command.output().unwrap_or_else(|error| panic!("cc: {error}"));
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {told}");
    fs::rename(&fresh, &built).expect("the folder of the tests is ours");
    built
}
