//! Sessions: made, listed, closed, deleted, put to sleep and woken.

use crate::stage::{JSON, SOON, Stage, check_error, check_told, each, list, text};
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// The pid of the session's agent, as the log tells it.
fn agent_pid(stage: &Stage, session_id: &str) -> u32 {
    let started = stage.event(session_id, "agent.started", 0);
    u32::try_from(started.payload["pid"].as_u64().unwrap()).unwrap()
}

#[test]
fn a_new_session_is_ready_when_the_answer_comes() {
    let stage = Stage::new();
    let record = stage.create(&json!({
        "title": "A title", "mode": "plan", "model": "demo-large", "reasoning_level": "high",
        "system_prompt": "Be kind.", "permission_mode": null,
    }));
    assert!(text(&record, "id").starts_with("sess_"), "{record}");
    for (field, value) in [
        ("provider", "demo"),
        ("agent", "default"),
        ("status", "ready"),
        ("title", "A title"),
        ("mode", "plan"),
        ("model", "demo-large"),
        ("reasoning_level", "high"),
    ] {
        assert_eq!(record[field], value, "{field} of {record}");
    }
    assert_eq!(record["cwd"], stage.cwd.to_str().unwrap());
    assert_eq!((&record["live"], &record["metadata"]), (&json!(true), &json!({})));
    assert_eq!((&record["active_turn_id"], &record["closed_at"]), (&Value::Null, &Value::Null));
    assert_eq!(stage.record(&text(&record, "id")), record);
    let kinds: Vec<String> =
        stage.events(&text(&record, "id")).into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds[0], "session.created");
    assert!(kinds.contains(&"agent.started".to_owned()), "{kinds:?}");
}

#[test]
fn a_session_that_nobody_waits_for_is_starting_and_becomes_ready() {
    let mut stage = Stage::new();
    let record = stage.create(&json!({"wait": false}));
    let session_id = text(&record, "id");
    assert!(matches!(record["status"].as_str(), Some("starting" | "ready")), "{record}");
    // A turn may be sent at once: it runs when the agent is there.
    assert_eq!(stage.run(&session_id, "say hello")["assistant_text"], "hello");
    assert_eq!(stage.record(&session_id)["status"], "ready");
    stage.restart();
    assert_eq!(stage.record(&session_id)["status"], "ready");
}

#[test]
fn metadata_comes_back_as_it_was_sent() {
    let mut stage = Stage::new();
    let metadata = r#"{"z":1,"a":[1.0,1e2,12345678901234567890123],"ü":"\u00e9 é","n":null}"#;
    let cwd = json!(stage.cwd);
    let body = format!("{{\"provider\":\"demo\",\"cwd\":{cwd},\"metadata\":{metadata}}}");
    let reply = stage.client.request("POST", "/v1/sessions", &[JSON], body.as_bytes()).expect(200);
    assert!(reply.text().contains(metadata), "{reply}");
    let session_id = text(&reply.json(), "id");
    stage.run(&session_id, "say something");
    stage.restart();
    for path in [format!("/v1/sessions/{session_id}"), "/v1/sessions".to_owned()] {
        let reply = stage.client.get(&path).expect(200);
        assert!(reply.text().contains(metadata), "{reply}");
    }
}

/// A line break in it, as pretty printers make them, is no line break of a stream.
#[test]
fn metadata_of_several_lines_is_one_line_in_every_stream() {
    let stage = Stage::new();
    let body = "{\"provider\": \"demo\", \"metadata\": {\n\r\n  \"a\":\t[1.0,\n\"b\\nc\"]\n}}";
    let reply = stage.client.request("POST", "/v1/sessions", &[JSON], body.as_bytes()).expect(200);
    let metadata = json!({"a": [1.0, "b\nc"]});
    assert_eq!(reply.json()["metadata"], metadata);
    let session_id = text(&reply.json(), "id");
    let query = "?control=false&limit=1&kinds=session.created";
    let record = stage.stream(&session_id, query).expect(SOON).record();
    assert_eq!(record.payload["session"]["metadata"], metadata);
    let path = format!("/v1/sessions/{session_id}/events/stream{query}");
    let accept = [("Accept", "application/x-ndjson")];
    let lines = stage.client.request("GET", &path, &accept, b"").expect(200).text();
    let record: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(record["payload"]["session"]["metadata"], metadata);
    assert_eq!(lines.lines().count(), 1, "{lines}");
}

#[test]
fn the_environment_of_a_session_reaches_its_agent_and_no_answer() {
    let stage = Stage::new();
    let record = stage.create(&json!({"env": {"STORY": "once upon a time", "HIDDEN": "hush"}}));
    let session_id = text(&record, "id");
    assert_eq!(stage.run(&session_id, "env STORY")["assistant_text"], "once upon a time");
    assert_eq!(stage.run(&session_id, "env GG_TEST_SECRET")["assistant_text"], "unset");
    for path in ["", "/events", "/transcript"] {
        let reply = stage.client.get(&format!("/v1/sessions/{session_id}{path}"));
        assert!(!reply.expect(200).text().contains("hush"), "{path}");
    }
}

#[test]
fn what_agents_keep_lies_where_the_configuration_says() {
    let stage = Stage::with_config("[data]\nproviders_dir = \"elsewhere\"\n");
    stage.run(&stage.session(), "say Hello");
    let data = stage.server.data_dir();
    assert!(data.join("elsewhere/demo").is_dir() && !data.join("providers").exists());
}

#[test]
fn the_list_is_read_in_pages_and_filtered() {
    let stage = Stage::new();
    let made: Vec<String> = (0..5).map(|_| stage.session()).collect();
    stage.close(&made[1]);
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = stage.client.get(&format!("/v1/sessions?limit=2{cursor}")).expect(200);
        seen.extend(each(&list(reply.json()), "id"));
        match reply.header("x-next-cursor") {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    // Newest change first: the closed one has changed last.
    assert_eq!(seen[0], made[1]);
    let (sorted, all): (BTreeSet<&String>, BTreeSet<&String>) =
        (seen.iter().collect(), made.iter().collect());
    assert_eq!((sorted, seen.len()), (all, 5));
    let count = |query: &str| list(stage.get(&format!("/v1/sessions?{query}"))).len();
    assert_eq!(count("status=closed"), 1);
    assert_eq!(count("status=ready"), 4);
    assert_eq!(count("provider=demo"), 5);
    assert_eq!(count("provider=acp"), 0);
    assert_eq!(count("limit=0"), 0);
    assert_eq!(count("status=ready&limit=3"), 3);
}

#[test]
fn closing_ends_the_agent_with_all_that_it_started() {
    let stage = Stage::with_config("[keeper]\ngrace_ms = 500\n");
    let session_id = stage.session();
    let agent = agent_pid(&stage, &session_id);
    // One child that left the agent's group and session, and does not care for SIGTERM.
    let told = stage.run(&session_id, "spawn trap '' TERM; sleep 1000 & wait; wait");
    let told = text(&told, "assistant_text");
    let child: u32 = told.strip_prefix("spawned ").unwrap().parse().unwrap();
    let turn_id = stage.start(&session_id, "slow 1000 50");
    let keepers = proc::keepers_of(stage.server.data_dir());
    let below = keepers.iter().flat_map(|keeper| proc::descendants(*keeper));
    let tree: Vec<u32> = below.chain(keepers.clone()).collect();
    assert!(tree.contains(&agent) && tree.contains(&child), "{tree:?}");
    let record = stage.close(&session_id);
    assert_eq!((&record["status"], &record["live"]), (&json!("closed"), &json!(false)));
    assert!(record["closed_at"].is_i64(), "{record}");
    let left: Vec<u32> = tree.into_iter().filter(|pid| !keepers.contains(pid)).collect();
    assert!(left.iter().all(|pid| !proc::alive(*pid)), "the answer came while some of it lived");
    proc::wait_gone(&keepers, SOON).unwrap();
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "interrupted");
    let kinds: Vec<String> = stage.events(&session_id).into_iter().map(|e| e.kind).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "session.closed").count(), 1);
    assert_eq!(kinds.iter().filter(|kind| *kind == "turn.interrupted").count(), 1);
    // Closing again is no error and no second event.
    assert_eq!(stage.close(&session_id)["closed_at"], record["closed_at"]);
    assert_eq!(stage.events(&session_id).len(), kinds.len());
}

#[test]
fn a_closed_session_takes_nothing_new() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "instant");
    stage.ended(&session_id, &turn_id);
    stage.close(&session_id);
    for when in ["now", "queue", "steer"] {
        let reply = stage.post_turn(&session_id, &json!({"input": ["instant"], "when": when}));
        check_error(&reply, 409, "session_closed");
    }
    let path = format!("/v1/sessions/{session_id}");
    let resume = stage.client.post(&format!("{path}/resume"), &json!({}));
    check_error(&resume, 409, "session_closed");
    check_error(&stage.interrupt(&session_id, &turn_id), 409, "conflict");
    assert_eq!(list(stage.get(&format!("{path}/turns"))).len(), 1);
    assert_eq!(list(stage.get(&format!("{path}/transcript"))).len(), 2);
}

#[test]
fn deleting_closes_and_purging_forgets() {
    let stage = Stage::new();
    let (kept, purged) = (stage.session(), stage.session());
    for session_id in [&kept, &purged] {
        stage.run(session_id, "say remember me");
    }
    stage.client.delete(&format!("/v1/sessions/{kept}")).expect(204);
    assert_eq!(stage.record(&kept)["status"], "closed");
    let path = format!("/v1/sessions/{purged}");
    stage.client.delete(&format!("{path}?purge=true")).expect(204);
    for path in ["", "/turns", "/events", "/transcript", "/events/stream"] {
        let reply = stage.client.get(&format!("/v1/sessions/{purged}{path}"));
        check_error(&reply, 404, "not_found");
    }
    check_error(&stage.client.delete(&format!("{path}?purge=true")), 404, "not_found");
    assert_eq!(each(&list(stage.get("/v1/sessions")), "id"), [kept.as_str()]);
    let all = stage.client.get("/v1/events?limit=10000").expect(200).text();
    assert!(!all.contains(&purged), "the log still tells of it: {all}");
    assert!(all.contains(&kept));
}

#[test]
fn an_idle_agent_sleeps_and_wakes_with_its_memory() {
    let stage = Stage::with_config("[providers.demo]\nidle_sleep_secs = 1\n");
    let session_id = stage.session();
    stage.run(&session_id, "say first");
    let agent = agent_pid(&stage, &session_id);
    let slept = stage.event(&session_id, "agent.slept", 0);
    assert!(!proc::alive(agent));
    let record = stage.record(&session_id);
    assert_eq!((&record["status"], &record["live"]), (&json!("ready"), &json!(false)));
    let turn = stage.run(&session_id, "history");
    assert_eq!(turn["assistant_text"], "1: say first");
    stage.event(&session_id, "agent.woken", slept.seq);
    // The history is not told twice: one user message and one answer a turn.
    let path = format!("/v1/sessions/{session_id}/transcript");
    assert_eq!(list(stage.get(&path)).len(), 4);
}

#[test]
fn resume_wakes_a_sleeping_agent() {
    let stage = Stage::with_config("[providers.demo]\nidle_sleep_secs = 1\n");
    let session_id = stage.session();
    stage.run(&session_id, "say first");
    let slept = stage.event(&session_id, "agent.slept", 0);
    let path = format!("/v1/sessions/{session_id}/resume");
    let record = stage.client.request("POST", &path, &[], b"").expect(200).json();
    assert_eq!((&record["status"], &record["live"]), (&json!("ready"), &json!(true)));
    stage.event(&session_id, "session.resumed", slept.seq);
    assert_eq!(stage.run(&session_id, "history")["assistant_text"], "1: say first");
}

/// Another native session than the agent works for, an empty one, one that no agent knows: the stored one stays.
#[test]
fn a_resume_that_is_refused_keeps_the_native_session() {
    let stage = Stage::with_config("[providers.demo]\nidle_sleep_secs = 1\n");
    let session_id = stage.session();
    stage.run(&session_id, "say first");
    let known = text(&stage.record(&session_id), "provider_session_ref");
    let path = format!("/v1/sessions/{session_id}/resume");
    let resume =
        |native_ref: &str| stage.client.post(&path, &json!({"provider_session_ref": native_ref}));
    check_told(&resume("other"), 409, "conflict", "lives");
    check_told(&resume(""), 400, "bad_request", "provider_session_ref");
    stage.event(&session_id, "agent.slept", 0);
    check_error(&resume("other"), 502, "agent_failed");
    assert_eq!(stage.record(&session_id)["provider_session_ref"], known.as_str());
    let has_ended = || (stage.record(&session_id)["live"] == false).then_some(());
    wait::until(SOON, "the agent that did not know it has ended", has_ended);
    stage.client.request("POST", &path, &[], b"").expect(200);
    assert_eq!(stage.run(&session_id, "history")["assistant_text"], "1: say first");
}

/// It waits for the agent as the request does that made the session.
#[test]
fn a_resume_of_a_session_that_starts_waits_for_it() {
    let stage = Stage::new();
    let body = json!({
        "provider": "demo", "cwd": stage.cwd, "wait": false, "env": {"GG_DEMO_DELAY_MS": "200"},
    });
    let session_id = text(&stage.client.post("/v1/sessions", &body).expect(200).json(), "id");
    let path = format!("/v1/sessions/{session_id}/resume");
    let record = stage.client.request("POST", &path, &[], b"").expect(200).json();
    assert_eq!(record["status"], "ready");
}
