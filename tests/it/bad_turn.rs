//! What the server says to turns and answers that are wrong: nothing of them is kept.

use crate::stage::{Stage, check_error, check_told};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use serde_json::{Value, json};

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n0123456789";

#[test]
fn a_turn_whose_input_is_wrong_does_not_start() {
    let stage = Stage::new();
    let session_id = stage.session();
    for (body, part) in [
        (json!({}), "input"),
        (json!({"input": "text"}), "input"),
        (json!({"input": [7]}), "input[0]"),
        (json!({"input": ["a", {"type": "text"}]}), "input[1]"),
        (json!({"input": [{"type": "sound"}]}), "sound"),
        (json!({"input": [{"type": "resource_link"}]}), "uri"),
        (json!({"input": [{"type": "image"}]}), "input[0]"),
        (json!({"input": [{"type": "image", "pathh": "/a"}]}), "input[0].pathh"),
        (json!({"input": [{"type": "image", "data": "", "path": "/a"}]}), "input[0].path"),
        (json!({"input": [{"type": "image", "path": 1}]}), "input[0].path"),
        (json!({"input": ["a", {"type": 7, "text": "a"}]}), "input[1].type"),
        (json!({"input": [{"text": "a", "texts": "b"}]}), "input[0].texts"),
        (json!({"input": [{"type": "resource_link", "uri": "a", "name": 1}]}), "input[0].name"),
        (json!({"input": ["a"], "when": "later"}), "later"),
        (json!({"input": ["a"], "when": 1}), "when"),
        (json!({"input": ["a"], "colour": "red"}), "colour"),
    ] {
        check_told(&stage.post_turn(&session_id, &body), 400, "bad_request", part);
    }
    let path = format!("/v1/sessions/{session_id}/turns");
    assert_eq!(stage.get(&path), json!([]));
    let running = stage.start(&session_id, "slow 1000 20");
    let reply = stage.client.post(&format!("{path}/{running}/interrupt"), &json!({"why": "x"}));
    check_told(&reply, 400, "bad_request", "why");
    assert_eq!(stage.get(&format!("{path}/{running}"))["status"], "in_progress");
    stage.interrupt(&session_id, &running).expect(202);
    stage.ended(&session_id, &running);
    // Who asks for it has what is not known ignored inside of an item, too; what blocks of ACP carry is no mistake.
    let lenient = [("X-Gooselake-Lenient", "1"), ("Content-Type", "application/json")];
    let body = br#"{"input": [{"text": "instant", "colour": "red"}]}"#;
    stage.client.request("POST", &format!("{path}?wait=true"), &lenient, body).expect(200);
    let block = json!({"type": "text", "text": "instant", "annotations": {}, "_meta": {"a": 1}});
    stage.client.post(&format!("{path}?wait=true"), &json!({"input": [block]})).expect(200);
}

#[test]
fn an_image_that_is_none_is_refused() {
    let stage = Stage::with_config("[limits]\nmax_image_bytes = 1000\n");
    let session_id = stage.session();
    let text = stage.cwd.join("text.png");
    std::fs::write(&text, "no image").unwrap();
    let pipe = stage.cwd.join("pipe.png");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let post = |image: Value| stage.post_turn(&session_id, &json!({"input": [image]}));
    for (image, part) in [
        (json!({"type": "image", "data": "?!", "media_type": "image/png"}), "base64"),
        (json!({"type": "image", "data": "aGVsbG8=", "media_type": "image/png"}), "image"),
        (json!({"type": "image", "path": text}), "image"),
        (json!({"type": "image", "path": "text.png"}), "absolute"),
        (json!({"type": "image", "path": stage.cwd.join("none.png")}), "none.png"),
        (json!({"type": "image", "path": stage.cwd}), "not a file"),
        (json!({"type": "image", "path": pipe}), "not a file"),
        (json!({"type": "image", "path": "/dev/zero"}), "not a file"),
    ] {
        check_told(&post(image), 400, "bad_request", part);
    }
    let large = [PNG, &[0; 1000]].concat();
    let file = stage.cwd.join("large.png");
    std::fs::write(&file, &large).unwrap();
    let data = STANDARD.encode(&large);
    check_error(&post(json!({"type": "image", "data": data})), 413, "payload_too_large");
    check_error(&post(json!({"type": "image", "path": file})), 413, "payload_too_large");
    assert_eq!(stage.get(&format!("/v1/sessions/{session_id}/turns")), json!([]));
}

#[test]
fn an_image_reaches_the_agent_by_value_and_by_path() {
    let stage = Stage::new();
    let session_id = stage.session();
    let file = stage.cwd.join("a.png");
    std::fs::write(&file, PNG).unwrap();
    let by_value =
        json!({"type": "image", "data": STANDARD.encode(PNG), "media_type": "image/png"});
    let body = json!({"input": ["image", by_value, {"type": "image", "path": file}]});
    let turn = stage.client.post(&format!("/v1/sessions/{session_id}/turns?wait=true"), &body);
    let told = turn.expect(200).json()["assistant_text"].clone();
    assert_eq!(told, "2 images: image/png 18 bytes, image/png 18 bytes");
}

#[test]
fn an_answer_that_is_none_leaves_the_approval_pending() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "ask may I?");
    let approval = stage.approval(&session_id, 0);
    for (body, part) in [
        (json!({}), "decision"),
        (json!({"decision": "perhaps"}), "perhaps"),
        (json!({"decision": 1}), "decision"),
        (json!({"decision": "accept", "scope": "always"}), "scope"),
        (json!({"option_id": "none-such"}), "none-such"),
        (json!({"decision": "decline", "option_id": "allow-always"}), "decision"),
        (json!({"scope": "once", "option_id": "allow-always"}), "scope"),
        (json!({"decision": "accept", "colour": 1}), "colour"),
    ] {
        check_told(&stage.decide(&approval, &body), 400, "bad_request", part);
    }
    let other = stage.session();
    let path = format!("/v1/sessions/{other}/approvals/{}", approval["id"].as_str().unwrap());
    let reply = stage.client.post(&path, &json!({"decision": "accept"}));
    check_told(&reply, 400, "bad_request", "another session");
    assert_eq!(stage.record(&session_id)["status"], "waiting_for_approval");
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    assert_eq!(stage.ended(&session_id, &turn_id)["assistant_text"], "Allowed: may I?");
}

/// Together they are more than may wait for an agent that does not read.
#[test]
fn images_that_are_large_together_reach_the_agent() {
    let stage = Stage::new();
    let session_id = stage.session();
    let file = stage.cwd.join("large.png");
    std::fs::write(&file, [PNG, &[0; 6_500_000]].concat()).unwrap();
    let image = json!({"type": "image", "path": file});
    let body = json!({"input": [image, image, "say seen"]});
    let turn = stage.post_turn(&session_id, &body).expect(200).json();
    let turn = stage.ended(&session_id, turn["turn_id"].as_str().unwrap());
    assert_eq!(turn["assistant_text"], "seen");
}
