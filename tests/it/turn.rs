//! Turns: run, waited for, queued, interrupted, refused.

use crate::stage::{SOON, Stage, check_error, check_told, each, list, text};
use gooselake_harness::client::Headers;
use rusqlite::Connection;
use serde_json::{Value, json};

const TEXT: Headers = &[("Accept", "text/plain"), ("Content-Type", "application/json")];

#[test]
fn waiting_gives_the_finished_turn() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "think hm\nsay hello you\nsay and more");
    assert_eq!((&turn["status"], &turn["source"]), (&json!("completed"), &json!("user")));
    assert_eq!(turn["assistant_text"], "hello you\n\nand more");
    assert_eq!((&turn["stop_reason"], &turn["error"]), (&json!("end_turn"), &Value::Null));
    assert_eq!(
        turn["input"],
        json!([{"type": "text", "text": "think hm\nsay hello you\nsay and more"}])
    );
    for field in ["created_at", "started_at", "completed_at"] {
        assert!(turn[field].is_i64(), "{field} of {turn}");
    }
    let path = format!("/v1/sessions/{session_id}/turns");
    assert_eq!(list(stage.get(&path)), std::slice::from_ref(&turn));
    assert_eq!(stage.get(&format!("{path}/{}", text(&turn, "id"))), turn);
}

/// What its keeper has taken is not kept a second time for as long as the agent lives.
#[test]
fn what_an_agent_was_told_does_not_pile_up() {
    let stage = Stage::new();
    let session_id = stage.session();
    for number in 1..=5 {
        stage.run(&session_id, &format!("slow 3 100\nsay {number}"));
    }
    let database = Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap();
    let count = "SELECT count(*) FROM agent_stdin";
    let kept: i64 = database.query_row(count, [], |row| row.get(0)).unwrap();
    assert_eq!(kept, 0, "pieces of stdin that the keeper has are kept");
}

#[test]
fn waiting_for_text_gives_the_assistants_words_alone() {
    let stage = Stage::new();
    let session_id = stage.session();
    let path = format!("/v1/sessions/{session_id}/turns?wait=true");
    let reply = stage.client.request("POST", &path, TEXT, br#"{"input": ["say hello"]}"#);
    let reply = reply.expect(200);
    assert_eq!(
        (reply.text().as_str(), reply.header("content-type")),
        ("hello", Some("text/plain; charset=utf-8"))
    );
    // An error is JSON even for who wants text.
    check_error(&stage.client.request("POST", &path, TEXT, b"{}"), 400, "bad_request");
}

#[test]
fn who_waits_for_text_is_not_given_a_failure_for_an_answer() {
    let stage = Stage::new();
    let session_id = stage.session();
    let path = format!("/v1/sessions/{session_id}/turns?wait=true");
    let fail = br#"{"input": ["say so far\nfail -32001 Out of luck"]}"#;
    let reply = stage.client.request("POST", &path, TEXT, fail);
    check_told(&reply, 502, "agent_failed", "Out of luck");
    let turn = reply.json()["turn"].clone();
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("failed"), &json!("so far")));
    let reply = stage.client.request("POST", &path, TEXT, br#"{"input": ["refuse"]}"#);
    check_told(&reply, 502, "agent_failed", "refusal");

    // An interrupted turn gives what was said, if anything was.
    let waited = |session_id: &str, prompt: &str| {
        let path = format!("/v1/sessions/{session_id}/turns?wait=true");
        let (client, body) = (stage.client.clone(), json!({"input": [prompt]}).to_string());
        let ask = move || client.request("POST", &path, TEXT, body.as_bytes());
        gooselake_harness::thread::spawn("waiter", ask).unwrap()
    };
    let after = stage.events(&session_id).last().unwrap().seq;
    let said = waited(&session_id, "slow 1000 20");
    let delta = stage.event(&session_id, "item.delta", after);
    stage.interrupt(&session_id, &text(&delta.json, "turn_id")).expect(202);
    assert!(said.join().expect(200).text().starts_with("1 "));
    let gated = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let unsaid = waited(&gated, "say never");
    let approval = stage.approval(&gated, 0);
    stage.decide(&approval, &json!({"decision": "decline"})).expect(200);
    check_told(&unsaid.join(), 409, "conflict", "interrupted");
}

#[test]
fn a_wait_that_is_too_short_tells_how_far_the_turn_is() {
    let stage = Stage::new();
    let session_id = stage.session();
    let path = format!("/v1/sessions/{session_id}/turns");
    let body = json!({"input": ["slow 1000 20"]});
    let turn = stage.client.post(&format!("{path}?wait=true&timeout_ms=50"), &body).expect(202);
    let turn = turn.json();
    assert_eq!((&turn["status"], &turn["completed_at"]), (&json!("in_progress"), &Value::Null));
    let turn_id = text(&turn, "id");
    let again = stage.get(&format!("{path}/{turn_id}?wait_ms=20"));
    assert_eq!(again["status"], "in_progress");
    // Two who wait for the same end both get it.
    let client = stage.client.clone();
    let waited = format!("{path}/{turn_id}?wait_ms=30000");
    let other = gooselake_harness::thread::spawn("waiter", move || client.get(&waited).json());
    stage.interrupt(&session_id, &turn_id).expect(202);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!(other.unwrap().join(), turn);
    assert_eq!(
        (&turn["status"], &turn["stop_reason"]),
        (&json!("interrupted"), &json!("cancelled"))
    );
    assert!(text(&turn, "assistant_text").starts_with("1 2 "), "{turn}");
    assert_eq!(stage.record(&session_id)["status"], "ready");
}

#[test]
fn one_turn_runs_at_a_time() {
    let stage = Stage::new();
    let session_id = stage.session();
    let running = stage.start(&session_id, "slow 1000 20");
    let now = json!({"input": ["instant"]});
    check_told(&stage.post_turn(&session_id, &now), 409, "turn_active", &running);
    let steer = json!({"input": ["instant"], "when": "steer"});
    check_error(&stage.post_turn(&session_id, &steer), 409, "steer_unsupported");
    for when in ["now", "queue", "steer"] {
        let body = json!({"input": ["instant"], "when": when, "expected_turn_id": "turn_0"});
        check_told(&stage.post_turn(&session_id, &body), 409, "turn_mismatch", &running);
    }
    let record = stage.record(&session_id);
    assert_eq!(
        (&record["status"], &record["active_turn_id"]),
        (&json!("turn_running"), &json!(running))
    );
    stage.interrupt(&session_id, &running).expect(202);
    stage.ended(&session_id, &running);
    let body = json!({"input": ["instant"], "expected_turn_id": running});
    check_told(&stage.post_turn(&session_id, &body), 409, "turn_mismatch", "none");
    check_told(&stage.interrupt(&session_id, &running), 409, "conflict", "interrupted");
    assert_eq!(list(stage.get(&format!("/v1/sessions/{session_id}/turns"))).len(), 1);
}

#[test]
fn queued_turns_run_in_their_order_and_can_be_taken_out() {
    let stage = Stage::new();
    let session_id = stage.session();
    let first = stage.start(&session_id, "slow 1000 20");
    let queued: Vec<String> =
        (1..=3).map(|number| stage.queue(&session_id, &format!("say {number}"))).collect();
    let path = format!("/v1/sessions/{session_id}/turns");
    let waiting = list(stage.get(&format!("{path}?status=queued")));
    assert_eq!(each(&waiting, "id"), queued);
    assert!(waiting.iter().all(|turn| turn["queued_at"].is_i64() && turn["started_at"].is_null()));
    stage.interrupt(&session_id, &queued[1]).expect(202);
    let taken = stage.ended(&session_id, &queued[1]);
    assert_eq!((&taken["status"], &taken["started_at"]), (&json!("interrupted"), &Value::Null));
    stage.interrupt(&session_id, &first).expect(202);
    assert_eq!(stage.ended(&session_id, &queued[2])["assistant_text"], "3");
    assert_eq!(stage.ended(&session_id, &queued[0])["assistant_text"], "1");
    let events = stage.events(&session_id);
    let of_kind = |kind: &str| -> Vec<String> {
        let events = events.iter().filter(|event| event.kind == kind);
        events.map(|event| text(&event.json, "turn_id")).collect()
    };
    assert_eq!(of_kind("turn.queued"), queued);
    let ran = [&first, &queued[0], &queued[2]];
    assert_eq!(of_kind("turn.started").iter().collect::<Vec<_>>(), ran);
    assert_eq!(of_kind("turn.interrupted").len(), 2);
    assert_eq!(
        stage.run(&session_id, "history")["assistant_text"],
        "1: slow 1000 20\n2: say 1\n3: say 3"
    );
}

#[test]
fn turns_are_listed_in_pages() {
    let stage = Stage::new();
    let session_id = stage.session();
    let made: Vec<String> =
        (0..5).map(|_| text(&stage.run(&session_id, "instant"), "id")).collect();
    let path = format!("/v1/sessions/{session_id}/turns?limit=2");
    let mut seen = Vec::new();
    let mut next = String::new();
    loop {
        let reply = stage.client.get(&format!("{path}{next}")).expect(200);
        seen.extend(each(&list(reply.json()), "id"));
        let Some(cursor) = reply.header("x-next-cursor") else { break };
        next = format!("&cursor={cursor}");
    }
    assert_eq!(seen, made);
}

#[test]
fn the_settings_of_a_turn_stay_for_those_behind_it() {
    let stage = Stage::new();
    let session_id = stage.asking_session();
    let path = format!("/v1/sessions/{session_id}/turns?wait=true");
    let body = json!({"input": ["run echo x"], "mode": "auto", "model": "demo-large",
        "reasoning_level": "high"});
    let turn = stage.client.post(&path, &body).expect(200).json();
    assert_eq!(turn["assistant_text"], "The command ended with exit code 0.");
    let record = stage.record(&session_id);
    for (field, value) in [("mode", "auto"), ("model", "demo-large"), ("reasoning_level", "high")] {
        assert_eq!(record[field], value, "{record}");
    }
    assert_eq!(stage.run(&session_id, "run echo y")["status"], "completed");
}

#[test]
fn usage_is_told_by_turn_and_added_up_by_session() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turns = [stage.run(&session_id, "say one two three"), stage.run(&session_id, "say four")];
    let number = |record: &Value, name: &str| record["usage"][name].as_i64().unwrap();
    for turn in &turns {
        let sum = number(turn, "input_tokens") + number(turn, "output_tokens");
        assert_eq!(number(turn, "total_tokens"), sum, "{turn}");
        assert!(number(turn, "context_window") > number(turn, "context_used"), "{turn}");
        assert!(turn["usage"]["cost_usd"].is_f64() && turn["usage"]["raw"].is_object(), "{turn}");
    }
    let record = stage.record(&session_id);
    for name in ["input_tokens", "output_tokens", "total_tokens"] {
        let sum: i64 = turns.iter().map(|turn| number(turn, name)).sum();
        assert_eq!(number(&record, name), sum, "{name} of {record}");
    }
    assert_eq!(number(&record, "context_used"), number(&turns[1], "context_used"));
    let updated = stage.event(&session_id, "usage.updated", 0);
    assert!(updated.payload["usage"].is_object());
}

#[test]
fn work_that_the_agent_begins_is_a_turn_of_its_own() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "say now\nlate and later");
    assert_eq!(turn["assistant_text"], "now");
    // The late chunk is the agent's own turn, which ends when it is quiet or somebody wants a turn.
    let mut stream = stage.stream(&session_id, "?control=false&kinds=turn.started");
    let started = stream.until_match("a turn of the agent", SOON, |frame| {
        frame.record().payload["source"] == "agent"
    });
    let own = text(&started.last().unwrap().json(), "turn_id");
    assert_eq!(stage.run(&session_id, "say next")["assistant_text"], "next");
    let own = stage.ended(&session_id, &own);
    assert_eq!(
        (&own["status"], &own["source"], &own["assistant_text"]),
        (&json!("completed"), &json!("agent"), &json!("and later"))
    );
}
