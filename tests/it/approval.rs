//! Approvals: asked by the agent or at the gate, answered once, withdrawn, run out.

use crate::stage::{Stage, check_error, check_told, each, list, text};
use serde_json::{Value, json};

#[test]
fn a_command_waits_for_its_permission() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "run echo done > made");
    let approval = stage.approval(&session_id, 0);
    assert_eq!((&approval["origin"], &approval["status"]), (&json!("tool"), &json!("pending")));
    assert_eq!(approval["turn_id"], turn_id.as_str());
    assert_eq!(approval["subject"]["type"], "command", "{approval}");
    assert_eq!(approval["subject"]["command"], "echo done > made", "{approval}");
    let kinds = each(approval["options"].as_array().unwrap(), "kind");
    assert_eq!(kinds, ["allow_once", "allow_always", "reject_once", "reject_always"]);
    assert_eq!(stage.record(&session_id)["status"], "waiting_for_approval");
    let path = format!("/v1/sessions/{session_id}/turns/{turn_id}");
    assert_eq!(stage.get(&path)["status"], "waiting_for_approval");
    assert!(!stage.cwd.join("made").exists());
    let pending = format!("/v1/approvals?status=pending&session_id={session_id}");
    assert_eq!(each(&list(stage.get(&pending)), "id"), [text(&approval, "id")]);
    let of_session = format!("/v1/sessions/{session_id}/approvals");
    assert_eq!(list(stage.get(&of_session)), std::slice::from_ref(&approval));

    let body = json!({"decision": "accept", "payload": {"by": "a person"}});
    let answered = stage.decide(&approval, &body).expect(200).json();
    assert_eq!((&answered["status"], &answered["scope"]), (&json!("accept"), &json!("once")));
    assert_eq!(answered["response"], json!({"by": "a person"}));
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "completed");
    assert_eq!(std::fs::read_to_string(stage.cwd.join("made")).unwrap(), "done\n");
    assert_eq!(stage.get(&pending), json!([]));
    let resolved = stage.event(&session_id, "approval.resolved", 0);
    assert_eq!(resolved.payload["approval"], answered);

    // The second answer changes nothing and shows the first.
    let reply = stage.decide(&approval, &json!({"decision": "decline"}));
    check_error(&reply, 409, "already_resolved");
    assert_eq!(reply.json()["approval"], answered);
}

#[test]
fn what_is_declined_does_not_happen() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "write note.txt secret\nsay and on");
    let approval = stage.approval(&session_id, 0);
    assert_eq!(approval["subject"]["type"], "file_change", "{approval}");
    let body = json!({"decision": "declined", "message": "not now"});
    let answered = stage.decide(&approval, &body).expect(200).json();
    assert_eq!(
        (&answered["status"], &answered["decision"]),
        (&json!("decline"), &json!("reject-once"))
    );
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(turn["assistant_text"], "Declined: Write note.txt\n\nand on");
    assert!(!stage.cwd.join("note.txt").exists());
    let items = stage.items(&session_id, &turn_id);
    let change = items.iter().find(|item| item["type"] == "file_change").unwrap();
    assert_eq!(change["status"], "declined", "{change}");
}

#[test]
fn a_permission_for_the_session_is_asked_for_once() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "run echo 1\nrun echo 2");
    let approval = stage.approval(&session_id, 0);
    let body = json!({"decision": "accept", "scope": "session"});
    let answered = stage.decide(&approval, &body).expect(200).json();
    assert_eq!(
        (&answered["decision"], &answered["scope"]),
        (&json!("allow-always"), &json!("session"))
    );
    stage.ended(&session_id, &turn_id);
    // An option of the agent may be named instead of a word of ours.
    let turn_id = stage.start(&session_id, "run echo 3\nwrite a b");
    let path = format!("/v1/approvals?status=pending&session_id={session_id}");
    let seq = stage.event(&session_id, "approval.resolved", 0).seq;
    let approval = stage.approval(&session_id, seq);
    assert_eq!(approval["subject"]["type"], "file_change");
    let answered = stage.decide(&approval, &json!({"option_id": "reject-always"})).expect(200);
    let answered = answered.json();
    assert_eq!((&answered["status"], &answered["scope"]), (&json!("decline"), &json!("session")));
    stage.ended(&session_id, &turn_id);
    assert_eq!(stage.get(&path), json!([]));
    assert_eq!(stage.run(&session_id, "write a b")["assistant_text"], "Declined: Write a");
}

#[test]
fn an_interrupt_withdraws_what_was_asked() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "ask may I?");
    let approval = stage.approval(&session_id, 0);
    stage.interrupt(&session_id, &turn_id).expect(202);
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "interrupted");
    check_withdrawn(&stage, &approval);
    assert_eq!(stage.record(&session_id)["status"], "ready");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}

#[test]
fn a_close_withdraws_what_was_asked() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    stage.start(&session_id, "ask may I?");
    let approval = stage.approval(&session_id, 0);
    stage.close(&session_id);
    check_withdrawn(&stage, &approval);
}

fn check_withdrawn(stage: &Stage, approval: &Value) {
    let (session_id, id) = (text(approval, "session_id"), text(approval, "id"));
    let now = stage.get(&format!("/v1/sessions/{session_id}/approvals/{id}"));
    assert_eq!(now["status"], "withdrawn", "{now}");
    assert!(now["withdrawn_reason"].is_string(), "{now}");
    let told = stage.event(&session_id, "approval.withdrawn", 0);
    assert_eq!(told.payload["approval"], now);
    let reply = stage.decide(approval, &json!({"decision": "accept"}));
    check_error(&reply, 409, "already_resolved");
    assert_eq!(reply.json()["approval"], now);
}

#[test]
fn an_approval_that_nobody_answers_runs_out() {
    let stage = Stage::with_config("[approvals]\ntimeout_secs = 1\n");
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "ask may I?");
    let approval = stage.approval(&session_id, 0);
    let time = approval["expires_at"].as_i64().unwrap() - approval["created_at"].as_i64().unwrap();
    assert!((900..=1100).contains(&time), "{approval}");
    let expired = stage.event(&session_id, "approval.expired", 0);
    assert_eq!(expired.payload["approval"]["status"], "expired");
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(
        (&turn["status"], &turn["assistant_text"]),
        (&json!("completed"), &json!("Declined: may I?"))
    );
    check_error(&stage.decide(&approval, &json!({"decision": "accept"})), 409, "already_resolved");
    // The same at the gate: the turn is never sent.
    let gated = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let turn_id = stage.start(&gated, "say never");
    let turn = stage.ended(&gated, &turn_id);
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("interrupted"), &Value::Null));
    assert_eq!(stage.record(&gated)["status"], "ready");
}

#[test]
fn a_turn_waits_at_the_gate() {
    let stage = Stage::new();
    let session_id = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let reply = stage.post_turn(&session_id, &json!({"input": ["say in"]})).expect(200).json();
    assert_eq!(reply["status"], "waiting_for_approval");
    let turn_id = text(&reply, "turn_id");
    let approval = stage.approval(&session_id, 0);
    assert_eq!((&approval["origin"], &approval["turn_id"]), (&json!("gate"), &json!(turn_id)));
    assert_eq!(stage.items(&session_id, &turn_id), Vec::<Value>::new());
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    assert_eq!(stage.ended(&session_id, &turn_id)["assistant_text"], "in");
    let started = stage.event(&session_id, "turn.started", 0);
    assert_eq!(started.payload["source"], "approval.accepted");
    let seq = stage.event(&session_id, "approval.resolved", 0).seq;

    let declined = stage.start(&session_id, "say out");
    let approval = stage.approval(&session_id, seq);
    stage.decide(&approval, &json!({"decision": "decline"})).expect(200);
    let turn = stage.ended(&session_id, &declined);
    assert_eq!((&turn["status"], &turn["started_at"]), (&json!("interrupted"), &Value::Null));
    assert_eq!(stage.record(&session_id)["status"], "ready");
    assert_eq!(told_agent(&stage, &session_id), "1: say in");
}

#[test]
fn a_gate_that_is_misspelt_lets_nothing_through() {
    let stage = Stage::new();
    let session_id = stage.session();
    for word in ["require-approval", "Require_Approval", " require_approval", "requireApproval"] {
        let body = json!({"provider": "demo", "permission_mode": word});
        let part = "\"require_approval\"";
        check_told(&stage.post_session(&body, &[]), 400, "bad_request", part);
        let body = json!({"input": ["say out"], "permission_mode": word});
        let reply = stage.post_turn(&session_id, &body);
        check_told(&reply, 400, "bad_request", "permission_mode");
    }
    assert_eq!(list(stage.get("/v1/sessions")).len(), 1);
    assert_eq!(stage.get(&format!("/v1/sessions/{session_id}/turns")), json!([]));
    // A word that is none of ours may be the agent's own.
    let turn_id = stage.start(&session_id, "say in");
    stage.ended(&session_id, &turn_id);
    stage.create(&json!({"permission_mode": "acceptEdits"}));
}

/// What the agent was told so far, asked in a turn that passes the gate.
fn told_agent(stage: &Stage, session_id: &str) -> String {
    let body = json!({"input": ["history"], "permission_mode": "default"});
    let path = format!("/v1/sessions/{session_id}/turns?wait=true");
    text(&stage.client.post(&path, &body).expect(200).json(), "assistant_text")
}

#[test]
fn who_opens_the_gate_may_change_what_goes_through() {
    let stage = Stage::new();
    let session_id = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let turn_id = stage.start(&session_id, "say the wrong thing");
    let approval = stage.approval(&session_id, 0);
    for payload in [
        json!({"input": [7]}),
        json!({"input": "say the right thing"}),
        json!({"input": {"type": "text", "text": "say the right thing"}}),
        json!([{"type": "text", "text": "say the right thing"}]),
    ] {
        let body = json!({"decision": "accept", "payload": payload});
        check_told(&stage.decide(&approval, &body), 400, "bad_request", "payload.input");
    }
    assert_eq!(stage.record(&session_id)["status"], "waiting_for_approval");
    let body = json!({"decision": "accept", "payload": {"input": [{"type": "text", "text": "say the right thing"}]}});
    stage.decide(&approval, &body).expect(200);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(turn["assistant_text"], "the right thing");
    assert_eq!(turn["input"][0]["text"], "say the right thing");
    let items = stage.items(&session_id, &turn_id);
    assert_eq!(
        (&items[0]["type"], &items[0]["text"]),
        (&json!("user_message"), &json!("say the right thing"))
    );
}

#[test]
fn an_interrupt_at_the_gate_ends_the_turn() {
    let stage = Stage::new();
    let session_id = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let turn_id = stage.start(&session_id, "say never");
    let approval = stage.approval(&session_id, 0);
    stage.interrupt(&session_id, &turn_id).expect(202);
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "interrupted");
    check_withdrawn(&stage, &approval);
}

#[test]
fn an_approval_is_answered_after_a_restart() {
    let mut stage = Stage::new();
    let session_id = stage.asking_session();
    let turn_id = stage.start(&session_id, "ask may I?");
    let approval = stage.approval(&session_id, 0);
    stage.restart();
    assert_eq!(list(stage.get("/v1/approvals?status=pending")), std::slice::from_ref(&approval));
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    assert_eq!(stage.ended(&session_id, &turn_id)["assistant_text"], "Allowed: may I?");
}

#[test]
fn of_two_answers_at_once_one_counts() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    for round in 0..5 {
        let after = stage.events(&session_id).last().unwrap().seq;
        let turn_id = stage.start(&session_id, &format!("ask {round}?"));
        let approval = stage.approval(&session_id, after);
        let path = format!("/v1/sessions/{session_id}/approvals/{}", text(&approval, "id"));
        let answer = |word: &'static str| {
            let (client, path) = (stage.client.clone(), path.clone());
            let body = json!({"decision": word});
            gooselake_harness::thread::spawn("answer", move || client.post(&path, &body)).unwrap()
        };
        let (yes, no) = (answer("accept"), answer("decline"));
        let mut replies = [yes.join(), no.join()];
        replies.sort_by_key(|reply| reply.status);
        assert_eq!(replies[0].status, 200, "{}", replies[0]);
        check_error(&replies[1], 409, "already_resolved");
        let said = stage.ended(&session_id, &turn_id)["assistant_text"].clone();
        let is_accept = replies[0].json()["status"] == "accept";
        let word = if is_accept { "Allowed" } else { "Declined" };
        assert_eq!(said, format!("{word}: {round}?"));
    }
    // Nothing went wrong on the way: the agent was never let go.
    let kinds: Vec<String> = stage.events(&session_id).into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| kind.starts_with("agent.")).count(), 1);
    assert!(!stage.server.stderr_text().contains("was not committed"));
}
