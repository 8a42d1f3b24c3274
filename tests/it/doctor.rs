//! Doctor and reap: what they see of a machine, and what they end.

use crate::command::run_on;
use crate::stage::{Stage, text};
use gooselake_harness::proc;
use gooselake_harness::temp::TempDir;
use serde_json::Value;
use std::fs;
use std::net::TcpListener;
use std::path::Path;

/// The findings of a doctor's report: `level check message`.
fn findings(data_dir: &Path, more: &[&str], code: i32) -> Vec<String> {
    let said = run_on(data_dir, &[&["doctor", "--json"], more].concat()).expect(code);
    let report = said.json();
    let told =
        |finding: &Value| ["level", "check", "message"].map(|name| text(finding, name)).join(" ");
    report["findings"].as_array().unwrap().iter().map(told).collect()
}

#[track_caller]
fn check(findings: &[String], start: &str, part: &str) {
    let is_there = |told: &String| told.starts_with(start) && told.contains(part);
    assert!(findings.iter().any(is_there), "{start:?} with {part:?} in {findings:#?}");
}

#[test]
fn a_machine_is_good_before_the_first_start_and_beside_a_server() {
    let folder = TempDir::new("gg-doctor-test");
    let data_dir = folder.path().join("data");
    let found = findings(&data_dir, &["--bind", "127.0.0.1:0"], 0);
    check(&found, "ok folder", "first start");
    check(&found, "ok programs", "");
    assert!(!data_dir.exists(), "the doctor has made a folder");

    let stage = Stage::new();
    let session_id = stage.session();
    let found = findings(stage.server.data_dir(), &[], 0);
    check(&found, "ok server", &stage.server.address().to_string());
    check(&found, "ok server", &stage.server.pid().to_string());
    check(&found, "ok keepers", "1 agents and processes live");
    check(&found, "ok database", "schema version");
    check(&found, "ok clock", "");
    stage.close(&session_id);
}

#[test]
fn what_is_in_the_way_is_a_failure_with_a_remedy() {
    let folder = TempDir::new("gg-doctor-test");
    let data_dir = folder.path().join("data");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = folder.path().join("config.toml");
    fs::write(&config, "[providers.acp]\ncommand = \"no-such-agent\"\n").unwrap();
    let more = ["--bind", &address, "--config", config.to_str().unwrap()];
    let found = findings(&data_dir, &more, 1);
    check(&found, "fail port", &address);
    check(&found, "warn acp", "no-such-agent");
    fs::write(&config, "[servre]\nx = 1\n").unwrap();
    check(&findings(&data_dir, &more, 1), "fail config", "did you mean server?");
}

#[test]
fn agents_without_a_server_are_seen_and_reaped_and_their_end_is_known() {
    let mut stage = Stage::new();
    let data_dir = stage.server.data_dir().to_owned();
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "slow 1000 100");
    stage.event(&session_id, "item.delta", 0);
    // It belongs to the server that runs.
    let said = run_on(&data_dir, &["reap"]).expect(0);
    assert!(said.stdout.contains("1 are those of the server"), "{}", said.stdout);
    assert_eq!(stage.record(&session_id)["status"], "turn_running");
    stage.server.kill9();
    check(&findings(&data_dir, &["--bind", "127.0.0.1:0"], 0), "warn keepers", "no server runs");
    let keepers = proc::keepers_of(&data_dir);
    assert_eq!(keepers.len(), 1);
    let said = run_on(&data_dir, &["reap"]).expect(0);
    assert!(said.stdout.contains("1 agents and processes ended"), "{}", said.stdout);
    assert!(proc::keepers_of(&data_dir).is_empty());
    stage.server.restart();
    stage.client = crate::contract::client(&stage.server);
    let turn = stage.ended(&session_id, &turn_id);
    // The agent may have had the time to say that it was interrupted.
    assert!(["failed", "interrupted"].contains(&turn["status"].as_str().unwrap()), "{turn}");
    let exited = stage.event(&session_id, "agent.exited", 0);
    assert_eq!(exited.payload["stopped_by"], "keeper_signal", "{:?}", exited.payload);
    assert_eq!(stage.run(&session_id, "say again")["assistant_text"], "again");
}
