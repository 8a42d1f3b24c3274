//! What a server has started goes on without one for `keeper.lease_secs`, and no longer.

use crate::fault::verify;
use crate::stage::{SOON, Stage, text};
use gooselake_harness::{proof, wait};
use serde_json::json;

#[test]
fn what_no_server_comes_for_in_its_lease_is_ended_and_the_next_start_tells_of_it() {
    let mut stage = Stage::with_config("[keeper]\nlease_secs = 1\n");
    let session_id = stage.session();
    // Longer than the lease, which does not run beside a server.
    assert_eq!(stage.run(&session_id, "slow 60 25")["status"], "completed");
    let turn_id = stage.start(&session_id, "say so far\nspawn sleep 1000\nslow 100000 20");
    let command = "(sleep 1000 & exec sleep 1000) & sleep 1000";
    let started = stage.start_process(&json!({"command": command, "cwd": stage.cwd}));
    let is_child = |words: &[String]| words.first().is_some_and(|word| word == "sleep");
    wait::until(SOON, "the children of both", || {
        let running = proof::running_in(&stage.cwd);
        (running.iter().filter(|(_, words)| is_child(words)).count() == 4).then_some(())
    });
    stage.server.kill9();
    proof::nothing_runs_in(&stage.cwd);
    stage.restart();
    let turn = stage.ended(&session_id, &turn_id);
    // It may have answered that it was cancelled, or have gone without a word.
    assert_ne!(turn["status"], "completed", "{turn}");
    assert!(text(&turn, "assistant_text").contains("so far"), "{turn}");
    let exited = stage.event(&session_id, "agent.exited", 0);
    assert_eq!(exited.payload["stopped_by"], "lease", "{}", exited.json);
    let record = stage.process_end(&text(&started["process"], "process_id"));
    let status = &record["process"]["status"];
    assert_eq!((status, &record["killed_by"]), (&json!("killed"), &json!("lease")), "{record}");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    proof::log(&stage.events(&session_id));
    verify(&stage);
}
