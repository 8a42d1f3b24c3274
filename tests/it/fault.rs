//! A machine that goes wrong: what the server does, as docs/RELIABILITY.md says it in its table of faults.
//!
//! Owns: a server whose disk, clock, threads and programs fail when a test says so ([`Broken`]), by the library of
//! `gooselake_harness::fault`. `disk` is about a disk that is full, read only, slow or errs; `clock` about one that is
//! set back; `room` about a lack of descriptors, threads, memory and programs; `defect` about panics; `undo` about what
//! can not be taken back at once; `lost` about what a loss of power leaves beside the database.

mod clock;
mod defect;
mod disk;
mod lost;
mod room;
mod undo;

use crate::stage::Stage;
use gooselake_harness::fault::Fault;
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::temp::TempDir;
use std::fs;
use std::process::Command;

/// There is no room on the disk.
const ENOSPC: i64 = 28;

/// A server that a test can break. The parts drop in this order.
struct Broken {
    stage: Stage,
    fault: Fault,
    _folder: TempDir,
}

impl Broken {
    fn new() -> Broken {
        Broken::with_config("")
    }

    fn with_config(config_toml: &str) -> Broken {
        Broken::with_env(config_toml, None)
    }

    fn with_env(config_toml: &str, env: Option<(&str, String)>) -> Broken {
        let (fault, folder) = (Fault::new(), TempDir::new("gg-broken"));
        let mut options = options(config_toml, &fault, &folder);
        options.env.extend(env.map(|(name, value)| (name.to_owned(), value)));
        let server = Server::start(options);
        fault.check_loaded();
        let cwd = server.folder().join("work");
        fs::create_dir(&cwd).unwrap();
        let stage = Stage { client: crate::contract::client(&server), server, cwd };
        Broken { stage, fault, _folder: folder }
    }

    /// What is on disk is whole.
    fn verify(&self) {
        verify(&self.stage);
    }
}

fn options(config_toml: &str, fault: &Fault, folder: &TempDir) -> Options {
    let data_dir = folder.path().join("data");
    Options {
        config_toml: config_toml.to_owned(),
        env: fault.env(&data_dir),
        data_dir: Some(data_dir),
        ..Options::default()
    }
}

/// The built server's own judgement.
pub(crate) fn verify(stage: &Stage) {
    let program = program("GG_TEST_SERVER", "gg-runtime-server").unwrap();
    let mut command = Command::new(program);
    command.args(["verify", "--data-dir"]).arg(stage.server.data_dir());
    let output = command.env("HOME", stage.server.folder()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{told}");
}
