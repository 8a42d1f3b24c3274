//! The replay conformance kit, against the server and the demo agent, also over a kill.

use crate::liar::{Liar, Lie};
use crate::stage::Stage;
use gooselake_harness::server::program;
use gooselake_harness::wait;
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

/// For a whole run on a busy machine.
const RUN: Duration = Duration::from_secs(300);

/// Runs the kit to its end: its exit code and what it said.
fn run(stage: &Stage, token: &str, arguments: &[&str]) -> (Option<i32>, String) {
    run_at(stage.server.address(), stage, token, arguments)
}

/// The same against whatever listens there.
fn run_at(
    address: SocketAddr,
    stage: &Stage,
    token: &str,
    arguments: &[&str],
) -> (Option<i32>, String) {
    let out = stage.server.folder().join("conformance.out");
    let file = std::fs::File::create(&out).unwrap();
    let mut child = Command::new(program("GG_CONFORMANCE", "conformance").unwrap())
        .arg(format!("http://{address}"))
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
    assert!(said.contains("ok    from every cursor"), "{said}");
    // The kit can fail: one letter of what it remembers is another one.
    let seen = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, seen.replacen("turn.started", "turn.startet", 1)).unwrap();
    let (code, said) = run(&stage, &token, &["--recall", &file]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL") && said.contains("turn.startet"), "{said}");
}

/// What the kit must not let pass, each with the promise that is broken by it.
const LIES: [(Lie, &str); 9] = [
    (Lie::Hole, "every record is whole, and numbers have no hole"),
    (Lie::ForgottenInReplay, "a replay of the session is what was live, byte for byte"),
    (Lie::TwiceInReplay, "a replay of the session is what was live, byte for byte"),
    (Lie::WrongOrder, "every record is whole, and numbers have no hole"),
    (Lie::LostBehindCursor, "from every cursor the rest is the same"),
    (Lie::LostForSlowReaders, "a reader that does not read for a while loses nothing"),
    (Lie::NoOpened, "control frames are right"),
    (Lie::NoCaughtUp, "control frames are right"),
    (Lie::CaughtUpWithId, "control frames are right"),
];

#[test]
fn a_server_that_breaks_a_promise_is_found_out() {
    // Connections that the kit leaves are noticed at the next heartbeat.
    let stage = Stage::with_config("[events]\nheartbeat_secs = 1\n");
    let prompt = "slow 20 2\nrun seq 20\nsay Done.";
    let arguments = ["--prompt", prompt, "--patience", "20"];
    let told = |lie: Lie| {
        let liar = Liar::start(stage.server.address(), lie);
        run_at(liar.address(), &stage, &stage.server.token(), &arguments)
    };
    let (code, said) = told(Lie::Nothing);
    assert_eq!(code, Some(0), "the proxy alone: {said}");
    for (lie, promise) in LIES {
        let (code, said) = told(lie);
        assert_eq!(code, Some(1), "{lie:?} was let pass: {said}");
        assert!(said.contains(&format!("FAIL  {promise}\n")), "{lie:?}: {said}");
    }
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
