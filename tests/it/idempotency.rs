//! `Idempotency-Key`: however often a client asks, the thing is made once.

use crate::stage::{JSON, Stage, check_told, each, list, text};
use serde_json::{Value, json};

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
