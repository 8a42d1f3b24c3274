//! A clock that is set back by an hour while the server runs, and before its next start: order is that of the log, and
//! no timeout becomes longer. One that goes on by an hour stands for a time in which there was no server.

use super::Broken;
use crate::stage::{SOON, each, list, text};
use gooselake_harness::fault::Number;
use gooselake_harness::proof;
use serde_json::json;

const HOUR_MS: i64 = 3_600_000;

#[test]
fn a_clock_that_is_set_back_changes_no_order() {
    let mut broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    let first = text(&stage.run(&session_id, "say one\nrun echo a"), "id");
    broken.fault.set(Number::ClockMs, -HOUR_MS);
    let second = text(&stage.run(&session_id, "say two\nrun echo b\nsay three"), "id");
    let other = stage.session();
    let made_at = |id: &str| stage.record(id)["created_at"].as_i64();
    assert!(made_at(&other) < made_at(&session_id), "the clock was not set back");
    let key = [("Idempotency-Key", "k")];
    let made = stage.post_session(&json!({}), &key).expect(200).json();
    assert_eq!(stage.post_session(&json!({}), &key).expect(200).json()["id"], made["id"]);
    broken.stage.restart();
    let stage = &broken.stage;
    let third = text(&stage.run(&session_id, "say four"), "id");
    let turns = list(stage.get(&format!("/v1/sessions/{session_id}/turns")));
    assert_eq!(each(&turns, "id"), [first, second.clone(), third]);
    // Sessions are listed by their last change, which is a time: each is there once.
    let mut sessions = each(&list(stage.get("/v1/sessions")), "id");
    let mut all = [session_id.clone(), other, text(&made, "id")];
    sessions.sort();
    all.sort();
    assert_eq!(sessions, all);
    let said: Vec<String> = stage
        .items(&session_id, &second)
        .iter()
        .filter(|item| item["type"] == "assistant_message")
        .map(|item| text(item, "text"))
        .collect();
    assert_eq!(said, ["two", "The command ended with exit code 0.", "three"]);
    proof::log(&stage.events(&session_id));
    broken.verify();
}

#[test]
fn a_clock_that_is_set_back_makes_no_timeout_longer() {
    let config = "[approvals]\ntimeout_secs = 2\n[providers.demo]\nturn_timeout_secs = 3\n";
    let mut broken = Broken::with_config(config);
    let stage = &broken.stage;
    let (asking, slow) = (stage.asking_session(), stage.session());
    let limited = json!({"command": "sleep 1000", "cwd": stage.cwd, "timeout_ms": 2500});
    let process = stage.start_process(&limited);
    let asked = stage.start(&asking, "ask may I?");
    stage.approval(&asking, 0);
    let timed = stage.start(&slow, "slow 100000 20");
    stage.event(&slow, "item.delta", 0);
    broken.fault.set(Number::ClockMs, -HOUR_MS);
    // A live one, and one that a restarted server takes up.
    broken.stage.server.kill9();
    broken.stage.restart();
    let stage = &broken.stage;
    stage.event(&asking, "approval.expired", 0);
    assert_eq!(stage.ended(&asking, &asked)["status"], "completed");
    assert_ne!(stage.ended(&slow, &timed)["status"], "completed");
    let id = text(&process["process"], "process_id");
    assert_eq!(stage.process_end(&id)["process"]["status"], "timed_out");
    let again = stage.start(&asking, "ask and now?");
    let seq = stage.approval_seq(&asking, 2);
    let (timed, process) = (stage.start(&slow, "slow 100000 20"), stage.start_process(&limited));
    broken.fault.set(Number::ClockMs, -2 * HOUR_MS);
    stage.event(&asking, "approval.expired", seq);
    assert_eq!(stage.ended(&asking, &again)["status"], "completed");
    assert_ne!(stage.ended(&slow, &timed)["status"], "completed");
    let id = text(&process["process"], "process_id");
    assert_eq!(stage.process_end(&id)["process"]["status"], "timed_out");
    broken.verify();
}

#[test]
fn a_signal_is_sent_once_and_its_grace_goes_on_while_there_is_no_server() {
    let mut broken = Broken::new();
    let stage = &broken.stage;
    let command = "trap 'echo caught' INT; echo up; while :; do sleep 0.05; done";
    let process = stage.start_process(&json!({"command": command, "cwd": stage.cwd}));
    let id = text(&process["process"], "process_id");
    stage.await_line(&id, "up");
    let kill = json!({"signal": "INT", "kill_grace_ms": HOUR_MS, "wait": false});
    stage.client.post(&format!("/v1/processes/{id}/kill"), &kill).expect(200);
    stage.await_line(&id, "caught");
    // Of the hour there is something left, then nothing.
    for clock_ms in [HOUR_MS / 2, 2 * HOUR_MS] {
        assert_eq!(broken.stage.process(&id)["process"]["status"], "running");
        broken.stage.server.kill9();
        broken.fault.set(Number::ClockMs, clock_ms);
        broken.stage.restart();
    }
    let record = broken.stage.process_end(&id);
    assert_eq!((&record["process"]["status"], &record["signal"]), (&json!("killed"), &json!(9)));
    let log = std::fs::read_to_string(text(&record, "stdout_path")).unwrap();
    assert_eq!(log, "up\ncaught\n");
    broken.verify();
}

impl crate::stage::Stage {
    /// The seq of the event that asks for so many-th approval.
    fn approval_seq(&self, session_id: &str, count: usize) -> i64 {
        let query = format!("?control=false&kinds=approval.requested&limit={count}");
        let frames = self.stream(session_id, &query).rest(SOON);
        frames.last().expect("it was asked").record().seq
    }
}
