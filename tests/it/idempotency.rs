//! `Idempotency-Key`: however often a client asks, the thing is made once.

use crate::stage::{JSON, SOON, Stage, check_error, check_told, each, list, text};
use crate::worktree::scene::Repo;
use gooselake_harness::client::Reply;
use gooselake_harness::server::program;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Duration;

const KEY: (&str, &str) = ("Idempotency-Key", "key-1");

fn post(stage: &Stage, path: &str, body: &Value) -> gooselake_harness::client::Reply {
    stage.post_with(path, body, &[KEY])
}

#[test]
fn a_session_is_made_once_for_a_key() {
    let mut stage = Stage::new();
    let first = stage.post_session(&json!({"title": "one"}), &[KEY]).expect(200).json();
    let again = stage.post_session(&json!({"title": "one"}), &[KEY]).expect(200).json();
    assert_eq!(again["id"], first["id"]);
    let reply = stage.post_session(&json!({"title": "two"}), &[KEY]);
    check_told(&reply, 409, "idempotency_mismatch", "key-1");
    stage.restart();
    let again = stage.post_session(&json!({"title": "one"}), &[KEY]).expect(200).json();
    assert_eq!(again["id"], first["id"]);
    let reply = stage.post_session(&json!({"title": "two"}), &[KEY]);
    check_told(&reply, 409, "idempotency_mismatch", "key-1");
    let other = [("Idempotency-Key", "key-2")];
    let second = stage.post_session(&json!({"title": "one"}), &other).expect(200).json();
    assert_ne!(second["id"], first["id"]);
    assert_eq!(list(stage.get("/v1/sessions")).len(), 2);
}

#[test]
fn a_turn_is_run_once_for_a_key() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    let path = format!("/v1/sessions/{session_id}/turns");
    let body = json!({"input": ["run echo x >> count"]});
    let wait = format!("{path}?wait=true");
    let first = post(&stage, &wait, &body).expect(200).json();
    assert_eq!(first["status"], "completed");
    // With and without waiting it is the same request.
    assert_eq!(text(&post(&stage, &path, &body).expect(200).json(), "turn_id"), first["id"]);
    assert_eq!(post(&stage, &wait, &body).expect(200).json(), first);
    let other = json!({"input": ["run echo y >> count"]});
    check_told(&post(&stage, &path, &other), 409, "idempotency_mismatch", "key-1");
    stage.restart();
    assert_eq!(text(&post(&stage, &path, &body).expect(200).json(), "turn_id"), first["id"]);
    check_told(&post(&stage, &path, &other), 409, "idempotency_mismatch", "key-1");
    assert_eq!(std::fs::read_to_string(stage.cwd.join("count")).unwrap(), "x\n");
    assert_eq!(each(&list(stage.get(&path)), "id"), [text(&first, "id")]);
    // A key is good for its own route: another session takes it anew.
    let second = stage.session();
    let path = format!("/v1/sessions/{second}/turns");
    let turn = post(&stage, &path, &json!({"input": ["instant"]})).expect(200).json();
    assert_eq!(turn["session_id"], second.as_str());
}

/// A repeated request is answered from what is stored, whatever the session does by then.
#[test]
fn a_repeated_turn_is_answered_while_another_one_runs() {
    let stage = Stage::new();
    let session_id = stage.session();
    let path = format!("/v1/sessions/{session_id}/turns");
    let body = json!({"input": ["instant"]});
    let first = text(&post(&stage, &path, &body).expect(200).json(), "turn_id");
    stage.ended(&session_id, &first);
    let running = stage.start(&session_id, "slow 1000 50");
    assert_eq!(post(&stage, &path, &body).expect(200).json()["turn_id"], first.as_str());
    assert_eq!(stage.record(&session_id)["active_turn_id"], running.as_str());
    stage.close(&session_id);
    assert_eq!(post(&stage, &path, &body).expect(200).json()["turn_id"], first.as_str());
}

/// The first answer is told again, though by now the same request would be refused.
#[test]
fn a_key_is_looked_up_before_the_machine() {
    let stage = Stage::new();
    let gone = stage.server.folder().join("gone");
    fs::create_dir(&gone).unwrap();
    let session = json!({"provider": "demo", "cwd": gone, "mode": "auto"});
    let made = post(&stage, "/v1/sessions", &session).expect(200).json();
    let session_id = text(&made, "id");
    let image = stage.cwd.join("a.png");
    fs::write(&image, b"\x89PNG\r\n\x1a\n").unwrap();
    let turns = format!("/v1/sessions/{session_id}/turns");
    let turn = json!({"input": ["instant", {"type": "image", "path": image}]});
    let turn_id = text(&post(&stage, &turns, &turn).expect(200).json(), "turn_id");
    stage.ended(&session_id, &turn_id);
    let repo = Repo::new(&stage.server.folder().join("repo"));
    let source = text(&stage.create(&json!({"cwd": repo.path})), "id");
    let worktree = json!({"source_session_id": source, "worktree_name": "one"});
    let one = post(&stage, "/v1/worktrees", &worktree).expect(200).json();
    fs::remove_dir(&gone).unwrap();
    fs::remove_file(&image).unwrap();
    fs::remove_dir_all(&repo.path).unwrap();
    stage.client.delete(&format!("/v1/sessions/{source}?purge=true")).expect(204);
    assert_eq!(post(&stage, "/v1/sessions", &session).expect(200).json()["id"], made["id"]);
    let again = post(&stage, &turns, &turn).expect(200).json();
    assert_eq!(
        (&again["turn_id"], &again["status"]),
        (&json!(turn_id), &json!("completed")),
        "{again}"
    );
    assert_eq!(post(&stage, "/v1/worktrees", &worktree).expect(200).json(), one);
    // Another request under these keys is one still.
    let other = json!({"provider": "demo", "cwd": gone, "mode": "plan"});
    check_told(&post(&stage, "/v1/sessions", &other), 409, "idempotency_mismatch", "key-1");
}

/// Who asks again while the agent opens waits as the first one does, and is told of a failure as that one was.
#[test]
fn a_session_that_is_being_opened_is_waited_for() {
    let demo = program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let opens = format!(": > started; read l < go; exec {}", demo.display());
    for (script, status) in [(opens.as_str(), 200), (": > started; read l < go; exit 3", 502)] {
        let arguments = json!(["-c", script]);
        let config = format!("[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n");
        let mut stage = Stage::with_config(&config);
        let go = stage.cwd.join("go");
        assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
        let body = json!({"provider": "acp", "cwd": stage.cwd});
        let first = stage.meanwhile("/v1/sessions", &body, "key-1");
        let started = stage.cwd.join("started");
        wait::until(SOON, "the agent starts", || started.exists().then_some(()));
        let second = stage.meanwhile("/v1/sessions", &body, "key-1");
        let early = second.answer.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "the agent is not ready, but: {early:?}");
        fs::write(&go, "go\n").unwrap();
        let (first, second) = (first.reply(), second.reply());
        stage.restart();
        let third = post(&stage, "/v1/sessions", &body);
        let told = |reply: &Reply| match status {
            200 if reply.status == 200 => text(&reply.json(), "id"),
            _ => check_error(reply, status, "agent_failed"),
        };
        assert_eq!([told(&second), told(&third)], [told(&first), told(&first)]);
        assert!(status == 502 || second.json()["status"] == "ready", "{second}");
        assert_eq!(list(stage.get("/v1/sessions")).len(), 1);
    }
}

/// Through a proxy's base path it is the same resource.
#[test]
fn a_key_is_the_same_under_the_base_path() {
    let stage = Stage::with_config("[server]\nbase_path = \"/lake\"\n");
    let body = json!({"provider": "demo", "cwd": stage.cwd});
    let first = post(&stage, "/v1/sessions", &body).expect(200).json();
    let again = post(&stage, "/lake/v1/sessions", &body).expect(200).json();
    assert_eq!(again["id"], first["id"]);
}

#[test]
fn a_key_without_letters_or_without_end_is_refused() {
    let stage = Stage::new();
    let body = json!({"provider": "demo", "cwd": stage.cwd}).to_string();
    for key in ["", &"k".repeat(256)] {
        let headers = [JSON, ("Idempotency-Key", key)];
        let reply = stage.client.request("POST", "/v1/sessions", &headers, body.as_bytes());
        check_told(&reply, 400, "bad_request", "Idempotency-Key");
    }
    assert_eq!(stage.get("/v1/sessions"), json!([]));
}
