//! Commands that end by themselves: how they start, what they get, what is known of them.

use super::{id, kinds, status, told};
use crate::stage::{SOON, Stage, check_told, list, text};
use serde_json::json;
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_command_leaves_a_record_two_logs_and_events() {
    let stage = Stage::new();
    let started = stage.start_process(&json!({
        "command": "echo out; echo err >&2; pwd; exit 3", "cwd": stage.cwd, "name": "first",
    }));
    assert!(started["process"]["pid"].is_u64(), "{started}");
    let record = stage.process_end(&id(&started));
    assert_eq!((status(&record), &record["exit_code"]), ("failed", &json!(3)));
    assert_eq!(record["process"]["name"], "first");
    let cwd = stage.cwd.to_str().unwrap();
    let out = std::fs::read_to_string(text(&record, "stdout_path")).unwrap();
    assert_eq!(out, format!("out\n{cwd}\n"));
    assert_eq!(std::fs::read_to_string(text(&record, "stderr_path")).unwrap(), "err\n");
    assert_eq!((&record["stdout_bytes"], &record["stderr_bytes"]), (&json!(out.len()), &json!(4)));
    let mode = std::fs::metadata(text(&record, "stdout_path")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let events = stage.process_events(&id(&started));
    assert_eq!(kinds(&events), ["process.started", "process.failed"]);
    assert_eq!((told(&events, "stdout"), told(&events, "stderr")), (out, "err\n".to_owned()));
    let seqs: Vec<i64> = events.iter().map(|event| event.json["seq"].as_i64().unwrap()).collect();
    assert_eq!(seqs, (1..).take(seqs.len()).collect::<Vec<i64>>());
    // What the keeper kept goes when the end is committed.
    let folder = stage.server.data_dir().join("keepers").join(id(&started));
    gooselake_harness::wait::until(SOON, "the journal is gone", || {
        (!folder.exists()).then_some(())
    });
}

#[test]
fn arguments_reach_the_program_as_they_are() {
    let stage = Stage::new();
    let args = ["printf", "%s|", "a b", "$HOME", "", "*"];
    let record = stage.process_end(&id(&stage.start_process(&json!({"args": args}))));
    assert_eq!(status(&record), "completed");
    assert_eq!(record["process"]["command"], json!({"args": args}));
    let log = std::fs::read_to_string(text(&record, "stdout_path")).unwrap();
    assert_eq!(log, "a b|$HOME||*|");
}

#[test]
fn a_command_sees_what_it_was_given_and_nothing_of_the_servers_own() {
    let stage = Stage::with_config("[processes]\nenv_passthrough = [\"CARGO_MANIFEST_*\"]\n");
    let started =
        stage.start_process(&json!({"args": ["env"], "env": {"SECRET_WORD": "swordfish"}}));
    assert!(!started.to_string().contains("swordfish"), "{started}");
    let record = stage.process_end(&id(&started));
    let log = std::fs::read_to_string(text(&record, "stdout_path")).unwrap();
    assert!(log.contains("SECRET_WORD=swordfish\n") && log.contains("PATH="), "{log}");
    assert!(log.contains("CARGO_MANIFEST_DIR="), "{log}");
    assert!(!log.contains("CARGO_PKG_NAME="), "{log}");
}

#[test]
fn stdin_is_nothing_a_text_or_what_is_written_later() {
    let stage = Stage::new();
    let log_of = |process_id: &str| {
        let record = stage.process_end(process_id);
        assert_eq!(status(&record), "completed", "{record}");
        std::fs::read_to_string(text(&record, "stdout_path")).unwrap()
    };
    assert_eq!(log_of(&stage.shell("cat")), "");
    let given = stage.start_process(&json!({"args": ["cat"], "stdin": "grüße\n"}));
    assert_eq!(log_of(&id(&given)), "grüße\n");
    let open = id(&stage.start_process(&json!({
        "args": ["cat"], "stdin": "one\n", "stdin_open": true,
    })));
    stage.await_line(&open, "one");
    let path = format!("/v1/processes/{open}/stdin");
    stage.client.post(&path, &json!({"text": "two\n"})).expect(200);
    stage.await_line(&open, "two");
    let closed = stage.client.post(&path, &json!({"text": "three", "close": true})).expect(200);
    assert_eq!(closed.json()["stdin"], "closed");
    assert_eq!(log_of(&open), "one\ntwo\nthree");
    assert_eq!(
        stage.client.post(&path, &json!({"text": "x"})).expect(409).json()["code"],
        "conflict"
    );
    let silent = stage.shell("sleep 1000");
    let path = format!("/v1/processes/{silent}/stdin");
    let told = stage.client.post(&path, &json!({"text": "x"})).expect(409).text();
    assert!(told.contains("stdin_open"), "{told}");
    stage.client.post(&path, &json!({})).expect(400);
}

#[test]
fn bad_input_is_named_and_starts_nothing() {
    let stage = Stage::new();
    for (body, named) in [
        (json!({}), "command is missing"),
        (json!({"command": "  "}), "command"),
        (json!({"command": "a", "args": ["a"]}), "exclude"),
        (json!({"args": []}), "args"),
        (json!({"args": ["no-such-program-here"]}), "no-such-program-here"),
        (json!({"command": "a\u{0}b"}), "NUL"),
        (json!({"command": "a", "cwd": "/no/such/folder"}), "cwd"),
        (json!({"command": "a", "env": {"A=B": "c"}}), "env"),
        (json!({"command": "a", "timeout_ms": -1}), "timeout_ms"),
        (json!({"command": "a", "kill_grace_ms": 99_999_999}), "kill_grace_ms"),
        (json!({"command": "a", "timeout": 1}), "timeout"),
        (json!({"command": 7}), "command"),
        (json!({"command": "a", "name": "n".repeat(300)}), "name"),
    ] {
        let told = stage.client.post("/v1/processes", &body).expect(400).text();
        assert!(told.contains(named), "{body}: {told}");
    }
    let long = json!({"args": ["echo", "x".repeat(1_100_000)]});
    stage.client.post("/v1/processes", &long).expect(413);
    let owner = json!({"command": "true", "session_id": "sess_none"});
    stage.client.post("/v1/processes", &owner).expect(404);
    stage.client.get("/v1/processes/proc_none").expect(404);
    stage.client.get("/v1/processes/proc_none/events/stream").expect(404);
    stage.client.get("/v1/processes?status=odd").expect(400);
    assert_eq!(stage.get("/v1/processes"), json!([]));
    assert_eq!(stage.get("/v1/diagnostics/processes")["process_total"], 0);
}

#[test]
fn a_command_that_can_not_be_started_is_a_failed_process_with_a_reason() {
    let stage = Stage::new();
    let record = stage.start_process(&json!({"args": ["/no/such/program"]}));
    assert_eq!(status(&record), "failed");
    assert!(text(&record, "error").contains("/no/such/program"), "{record}");
    assert_eq!(kinds(&stage.process_events(&id(&record))), ["process.failed"]);
}

#[test]
fn turned_off_processes_are_refused_and_the_lists_work() {
    let stage = Stage::with_config("[processes]\nenabled = false\n");
    let refused = stage.client.post("/v1/processes", &json!({"command": "true"}));
    check_told(&refused, 409, "conflict", "processes.enabled");
    assert_eq!(stage.get("/v1/processes"), json!([]));
    assert_eq!(stage.get("/v1/diagnostics")["processes"]["enabled"], false);
}

#[test]
fn a_repeated_request_starts_one_process() {
    let mut stage = Stage::new();
    let body = json!({"command": "echo once >> marks", "cwd": stage.cwd});
    let key = [("Idempotency-Key", "k1")];
    let first = stage.post_with("/v1/processes", &body, &key).expect(200).json();
    stage.process_end(&id(&first));
    stage.restart();
    let again = stage.post_with("/v1/processes", &body, &key).expect(200).json();
    assert_eq!(id(&again), id(&first));
    assert_eq!(std::fs::read_to_string(stage.cwd.join("marks")).unwrap(), "once\n");
    let other = json!({"command": "true"});
    let told = stage.post_with("/v1/processes", &other, &key).expect(409).json();
    assert_eq!(told["code"], "idempotency_mismatch");
}

#[test]
fn a_session_sees_its_own_processes_and_no_others() {
    let stage = Stage::new();
    let (mine, other) = (stage.session(), stage.session());
    let owned = id(&stage.start_process(&json!({"command": "sleep 1000", "session_id": mine})));
    let free = stage.shell("true");
    let of_mine = list(stage.get(&format!("/v1/processes?session_id={mine}")));
    assert_eq!(of_mine.len(), 1);
    assert_eq!(of_mine[0]["process_id"], owned.as_str());
    for path in ["", "/logs", "/events", "/events/stream"] {
        for (process_id, asking, code) in
            [(&owned, &other, 403), (&free, &mine, 403), (&owned, &mine, 200)]
        {
            if code == 200 && path.ends_with("stream") {
                continue;
            }
            let path = format!("/v1/processes/{process_id}{path}?session_id={asking}");
            stage.client.get(&path).expect(code);
        }
    }
    let kill = format!("/v1/processes/{owned}/kill");
    stage.client.post(&kill, &json!({"session_id": other})).expect(403);
    assert_eq!(status(&stage.process(&owned)), "running");
    let killed = stage.client.post(&kill, &json!({"session_id": mine})).expect(200).json();
    assert_eq!(status(&killed), "killed");
}

#[test]
fn lists_come_in_pages_and_by_status() {
    let stage = Stage::new();
    let ids: Vec<String> = (0..5).map(|_| stage.shell("true")).collect();
    ids.iter().for_each(|process_id| drop(stage.process_end(process_id)));
    let runs = stage.shell("sleep 1000");
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let reply = stage.client.get(&format!("/v1/processes?limit=2{cursor}")).expect(200);
        seen.extend(list(reply.json()).iter().map(|record| text(record, "process_id")));
        match reply.header("x-next-cursor") {
            Some(place) => cursor = format!("&cursor={place}"),
            None => break,
        }
    }
    let newest_first: Vec<String> =
        [runs.clone()].into_iter().chain(ids.into_iter().rev()).collect();
    assert_eq!(seen, newest_first);
    for query in ["status=running", "include_completed=false"] {
        let found = list(stage.get(&format!("/v1/processes?{query}")));
        assert_eq!(found.len(), 1, "{query}");
        assert_eq!(found[0]["process_id"], runs.as_str());
    }
    let facts = stage.get("/v1/diagnostics/processes");
    assert_eq!(facts["process_status_counts"], json!({"completed": 5, "running": 1}));
    assert!(facts["running"][0]["memory_bytes"].as_u64().unwrap() > 100_000, "{facts}");
}

#[test]
fn old_processes_are_removed_with_all_they_left() {
    // Nine tenths of a second.
    let stage = Stage::with_config("[processes]\nlog_retention_hours = 0.00025\n");
    let record = stage.process_end(&stage.shell("echo gone"));
    let path = text(&record, "stdout_path");
    let path = std::path::Path::new(&path);
    gooselake_harness::wait::until(SOON, "the record is gone", || {
        (stage.client.get(&format!("/v1/processes/{}", id(&record))).status == 404).then_some(())
    });
    assert!(!path.exists());
    let events = list(stage.get("/v1/events?kinds=process.*"));
    assert!(events.is_empty(), "{events:?}");
    // The numbers of events that are gone are not given again.
    let next = stage.shell("true");
    stage.process_end(&next);
    let last = list(stage.get("/v1/events?order=desc&limit=1"));
    assert!(last[0]["row_id"].as_i64().unwrap() > 5, "{last:?}");
}

/// Kept for so short a time that no round comes so soon.
#[test]
fn processes_that_are_kept_for_no_time_go_with_the_next_round() {
    let stage = Stage::with_config("[processes]\nlog_retention_hours = 0.00001\n");
    let record = stage.process_end(&stage.shell("true"));
    gooselake_harness::wait::until(SOON, "the record is gone", || {
        (stage.client.get(&format!("/v1/processes/{}", id(&record))).status == 404).then_some(())
    });
    stage.server.check_no_panic();
}
