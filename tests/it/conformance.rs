//! The replay conformance kit, against the server and the demo agent, also over a kill.

use crate::stage::Stage;
use gooselake_harness::server::program;
use gooselake_harness::wait;
use std::process::{Command, Stdio};
use std::time::Duration;

/// For a whole run on a busy machine.
const RUN: Duration = Duration::from_secs(300);

/// Runs the kit to its end: its exit code and what it said.
fn run(stage: &Stage, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let out = stage.server.folder().join("conformance.out");
    let file = std::fs::File::create(&out).unwrap();
    let mut child = Command::new(program("GG_CONFORMANCE", "conformance").unwrap())
        .arg(format!("http://{}", stage.server.address()))
        .args(arguments)
        .env("GG_RUNTIME_TOKEN", token)
        .stdin(Stdio::null())
        .stderr(file.try_clone().unwrap())
        .stdout(file)
        .spawn()
        .unwrap();
    let status = wait::try_until(RUN, || child.try_wait().unwrap());
    if status.is_none() {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let said = std::fs::read_to_string(&out).unwrap();
    let status = status.unwrap_or_else(|| panic!("it did not end in {RUN:?}: {said}"));
    (status.code(), said)
}

#[test]
fn the_server_keeps_its_promises_and_the_kit_leaves_nothing() {
    let stage = Stage::with_config("[server]\nbase_path = \"/lake\"\n");
    let (code, said) = run(&stage, &stage.server.token(), &[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.matches("ok    ").count() >= 15 && !said.contains("FAIL"), "{said}");
    assert!(said.ends_with("all promises are kept\n"), "{said}");
    assert_eq!(stage.get("/v1/sessions"), serde_json::json!([]));
}

#[test]
fn what_was_seen_before_a_kill_is_seen_behind_it() {
    let mut stage = Stage::new();
    let file = stage.server.folder().join("seen").to_string_lossy().into_owned();
    let token = stage.server.token();
    let (code, said) = run(&stage, &token, &["--remember", &file]);
    assert_eq!(code, Some(0), "{said}");
    stage.server.kill9();
    stage.restart();
    let (code, said) = run(&stage, &token, &["--recall", &file]);
    assert_eq!(code, Some(0), "{said}");
    // The kit can fail: one letter of what it remembers is another one.
    let seen = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, seen.replacen("turn.started", "turn.startet", 1)).unwrap();
    let (code, said) = run(&stage, &token, &["--recall", &file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL") && said.contains("turn.startet"), "{said}");
}

#[test]
fn wrong_use_and_a_server_that_refuses_are_told() {
    let stage = Stage::new();
    let (code, said) = run(&stage, "not-the-token", &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("401"), "{said}");
    let (code, said) = run(&stage, "", &["--nonsense"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("there is no option --nonsense"), "{said}");
}
