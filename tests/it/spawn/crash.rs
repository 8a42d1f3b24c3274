//! Kill -9 at each step of an operation: the next start completes it or takes it back, and tells which.

use super::scene::{Nest, slow_agent};
use crate::stage::{check_told, list, text};
use crate::worktree::scene::{Repo, is_there};
use gooselake_harness::temp::TempDir;
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(40);

fn pid_in(path: &Path) -> u32 {
    wait::until(SOON, "the program runs", || fs::read_to_string(path).ok()?.trim().parse().ok())
}

/// The pid of the program that was started after that one.
fn pid_unlike(path: &Path, other: u32) -> u32 {
    wait::until(SOON, "another program runs", || Some(pid_in(path)).filter(|pid| *pid != other))
}

#[test]
fn while_the_worktree_is_made_it_is_taken_back() {
    let mut nest = Nest::new();
    let pid_file = nest.stage().server.folder().join("pid");
    nest.init_script(&format!("echo $$ > {}; sleep 1000; :", pid_file.display()));
    let spawning = nest.spawning(json!({"worktree": {"name": "one"}}));
    let pid = pid_in(&pid_file);
    let operation = nest.operation_at("planned");
    nest.crash();
    assert!(spawning.join().is_err());
    // The key is good for another try, at once: without a look at what was cut off.
    let again = nest.spawning(json!({"worktree": {"name": "one"}}));
    let other = pid_unlike(&pid_file, pid);
    let operations = nest.operations();
    assert_eq!(operations.len(), 2, "{operations:?}");
    proc::signal(other, proc::Signal::KILL).unwrap();
    check_told(&again.join().unwrap(), 400, "init_script_failed", "137");
    let operation_id = text(&operation, "operation_id");
    let undone = nest.operations().remove(0);
    assert_eq!(
        (&undone["operation_id"], &undone["reason"]),
        (&json!(operation_id), &json!("server_stopped"))
    );
    let worktree = nest.worktrees().remove(0);
    assert_eq!(worktree["created_by_operation_id"], json!(operation_id));
    let gone = nest.scene.event(&worktree, "worktree.cleaned_up", 0);
    assert_eq!(gone.payload["reason"], "startup_create_unfinished");
    proc::wait_gone(&[pid], SOON).unwrap();
    assert!(!is_there(&worktree) && !nest.repo().is_branch("gg/one"));
    assert_eq!((nest.members().len(), nest.sessions().len()), (1, 1));
    // And for a third, which works.
    nest.init_script("true");
    let answer = nest.spawning(json!({"worktree": {"name": "one"}})).join().unwrap().expect(200);
    assert_eq!(answer.json()["journal_stage"], "completed");
}

/// A nest whose provider `acp` opens when the file `gate` is in a folder, where it also tells that it runs.
fn gated_nest() -> (Nest, TempDir) {
    let folder = TempDir::new("gg-gate");
    let path = folder.path().display();
    let before = format!("touch {path}/runs; until [ -e {path}/gate ]; do sleep 0.02; done");
    (Nest::with_config(&slow_agent(&before, "")), folder)
}

#[test]
fn while_the_agent_opens_the_member_is_made_by_the_next_server() {
    let (mut nest, folder) = gated_nest();
    let fields = json!({
        "provider": "acp", "mode": "auto", "title": "Late", "prompt": "say here",
        "worktree": {"name": "one"},
    });
    let spawning = nest.spawning(fields.clone());
    let operation = nest.operation_at("session_created");
    wait::until(SOON, "the agent runs", || folder.path().join("runs").exists().then_some(()));
    nest.crash();
    assert!(spawning.join().is_err());
    assert_eq!(nest.members().len(), 1);
    // Once more, with the server that has taken it up.
    nest.crash();
    fs::write(folder.path().join("gate"), "").unwrap();
    let done = nest.operation_at("completed");
    for field in ["operation_id", "session_id", "worktree_id"] {
        assert_eq!(done[field], operation[field], "{field}");
    }
    // Who asks again with the key is told what has come of it.
    let answer = nest.spawning(fields).join().unwrap().expect(200).json();
    assert_eq!(answer["operation_id"], operation["operation_id"]);
    assert_eq!(answer["spawned_member"]["title"], "Late");
    assert_eq!(nest.onboarded(&answer)["assistant_text"], "here");
    let session_id = text(&operation, "session_id");
    let turns = list(nest.stage().get(&format!("/v1/sessions/{session_id}/turns")));
    assert_eq!(turns.len(), 1, "it was told once: {turns:?}");
    let events = nest.crew.events(nest.stage());
    for kind in ["team.member_joined", "team_message.created", "team_operation.completed"] {
        assert_eq!(events.iter().filter(|event| event.kind == kind).count(), 1, "{kind}");
    }
    assert_eq!(answer["worktree"]["active_claim_count"], 1);
}

#[test]
fn while_an_agent_opens_that_never_does_it_is_undone() {
    let config = slow_agent("exec sleep 1000", "request_timeout_secs = 3");
    let mut nest = Nest::with_config(&config);
    let spawning = nest.spawning(json!({"provider": "acp", "worktree": {"name": "one"}}));
    nest.operation_at("session_created");
    nest.crash();
    assert!(spawning.join().is_err());
    let undone = nest.operation_at("rolled_back");
    assert_eq!(undone["reason"], "session_create_failed");
    assert!(text(&undone, "message").contains("3 s"), "{undone}");
    let worktree = nest.worktrees().remove(0);
    assert_eq!((&worktree["status"], is_there(&worktree)), (&json!("deleted"), false));
    assert_eq!(nest.stage().record(&text(&undone, "session_id"))["status"], "closed");
    assert_eq!(nest.members().len(), 1);
    assert!(nest.repo().try_git(&["rev-parse", "--verify", "gg/one"]).status.code() != Some(0));
}

/// What holds the end of an agent up: it ignores the end of its stdin and SIGTERM, until it is killed.
const STUBBORN: &str = "trap '' TERM";

#[test]
fn while_it_is_undone_the_next_server_goes_on_with_that() {
    let script = format!("{STUBBORN}; sleep 1000; exit 1");
    let more = "request_timeout_secs = 1\n[keeper]\ngrace_ms = 3000\n";
    let mut nest = Nest::with_config(&slow_agent(&script, more));
    let spawning = nest.spawning(json!({"provider": "acp", "worktree": {"name": "one"}}));
    let undoing = nest.operation_at("rolling_back");
    let worktree = nest.worktrees().remove(0);
    assert!(is_there(&worktree), "its agent is still there");
    nest.crash();
    assert!(spawning.join().is_err());
    let undone = nest.operation_at("rolled_back");
    for field in ["operation_id", "reason", "message"] {
        assert_eq!(undone[field], undoing[field], "{field}");
    }
    assert!(!is_there(&worktree) && !nest.repo().is_branch("gg/one"));
    let gone = nest.scene.event(&worktree, "worktree.cleaned_up", 0);
    assert_eq!(gone.payload["reason"], "spawn_rollback_session_create_failed");
    check_closed(&nest, &text(&undone, "session_id"));
}

fn check_closed(nest: &Nest, session_id: &str) {
    let session = nest.stage().record(session_id);
    assert_eq!((&session["status"], &session["live"]), (&json!("closed"), &json!(false)));
}

#[test]
fn while_a_member_is_taken_away_the_next_server_goes_on_with_that() {
    let demo = gooselake_harness::server::program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let script = format!("{STUBBORN}; {}; sleep 1000; exit", demo.display());
    let mut nest = Nest::with_config(&slow_agent(&script, "[keeper]\ngrace_ms = 3000\n"));
    let fields = json!({
        "provider": "acp", "mode": "auto", "prompt": "run echo x > result",
        "worktree": {"name": "one"},
    });
    let answer = nest.spawn(fields);
    nest.onboarded(&answer);
    let member = text(&answer["spawned_session"], "id");
    let (client, path) =
        (nest.stage().client.clone(), nest.crew.path(&format!("members/{member}")));
    let removing = gooselake_harness::thread::spawn("removing", move || {
        client.try_request("DELETE", &path, &[], b"").map(|reply| reply.status)
    })
    .unwrap();
    nest.operation_at("member_left");
    assert_eq!(nest.members(), [nest.lead()]);
    nest.crash();
    assert!(removing.join().is_err());
    let done = nest.operation_at("completed");
    assert_eq!(done["kind"], "remove_spawned_member");
    check_closed(&nest, &member);
    // Its work is still there.
    let worktree = &answer["worktree"];
    assert_eq!(done["diagnostics"][0]["code"], "worktree_kept");
    assert_eq!(fs::read_to_string(Repo::of(worktree).path.join("result")).unwrap(), "x\n");
    assert_eq!(nest.scene.record(worktree)["active_claim_count"], 0);
}

#[test]
fn a_stop_in_the_middle_is_taken_up_as_a_crash_is() {
    let (mut nest, folder) = gated_nest();
    let spawning = nest.spawning(json!({"provider": "acp", "worktree": {"name": "one"}}));
    nest.operation_at("session_created");
    assert_eq!(nest.scene.stage.server.terminate(), Some(0));
    if let Ok(reply) = spawning.join() {
        assert_eq!(
            (reply.status, &reply.json()["code"]),
            (503, &json!("shutting_down")),
            "{reply}"
        );
    }
    fs::write(folder.path().join("gate"), "").unwrap();
    nest.scene.stage.restart();
    let done = nest.operation_at("completed");
    assert_eq!(done["reason"], Value::Null);
    assert_eq!(nest.members().len(), 2);
}
