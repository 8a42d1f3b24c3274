//! The tools for processes, called by agents: each sees and ends its own, and nobody else's.

use crate::stage::{SOON, Stage, list, text};
use gooselake_harness::proc;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::fs;

/// Waits until the log of the process's stream ends with this. The two streams are read each by itself, so what came
/// first of both is not what was written first.
fn written(stage: &Stage, process_id: &str, stream: &str, end: &str) {
    let path = format!("/v1/processes/{process_id}/logs?stream={stream}&format=text");
    wait::until(SOON, "the log has all that was written", || {
        stage.client.get(&path).expect(200).text().ends_with(end).then_some(())
    });
}

fn process_id(details: &Value) -> String {
    text(&details["process"], "process_id")
}

#[test]
fn an_agent_runs_a_command_reads_what_it_wrote_and_ends_it() {
    let stage = Stage::new();
    let session_id = stage.session();
    let command = "echo here; pwd; echo wrong >&2; sleep 1000";
    let started = stage.called(&session_id, "gg_process_run", &json!({"command": command}));
    let (id, process) = (process_id(&started), &started["process"]);
    assert_eq!(
        (&process["session_id"], &process["status"]),
        (&json!(session_id), &json!("running"))
    );
    assert_eq!(process["command"], json!({"command": command}));
    // It is the record that people see, but for the caller's name that the sidecar adds.
    let mut shown = started.clone();
    shown.as_object_mut().unwrap().remove("caller_agent_id");
    let record = stage.get(&format!("/v1/processes/{id}"));
    for field in ["process", "timeout_ms", "stdout_path", "kill_grace_ms"] {
        assert_eq!(shown[field], record[field]);
    }
    assert_eq!(each_key(&shown), each_key(&record));
    let cwd = fs::canonicalize(&stage.cwd).unwrap();
    written(&stage, &id, "stdout", &format!("here\n{}\n", cwd.display()));
    written(&stage, &id, "stderr", "wrong\n");
    let wanted = json!({"process_id": id, "stream": "stdout"});
    let logs = stage.called(&session_id, "gg_process_logs", &wanted)["logs"].clone();
    assert_eq!(logs[0]["content"], format!("here\n{}\n", cwd.display()));
    let both = stage.called(&session_id, "gg_process_logs", &json!({"process_id": id}));
    assert_eq!(list(both["logs"].clone()).len(), 2);
    // A number of the system is as good as the id, and the log can come along.
    let by_pid = json!({"pid": process["pid"], "tail_lines": 1});
    let status = stage.called(&session_id, "gg_process_status", &by_pid);
    assert_eq!(process_id(&status), id);
    assert_eq!(status["logs"][1]["content"], "wrong\n");
    let running = stage.called(&session_id, "gg_process_status", &json!({}))["running"].clone();
    assert_eq!(
        (running[0]["process_id"].as_str(), running.as_array().unwrap().len()),
        (Some(&*id), 1)
    );
    let tree = proc::with_environ(&format!("GOOSELAKE_CHILD={id}"));
    assert!(!tree.is_empty());
    let killed = stage.called(&session_id, "gg_process_kill", &json!({"pid": process["pid"]}));
    assert_eq!(killed["process"]["status"], "killed", "{killed}");
    proc::wait_gone(&tree, SOON).unwrap();
    let running = stage.called(&session_id, "gg_process_status", &json!({}));
    assert_eq!(running["running"], json!([]));
    // What it did stands in its log, each with how it came out.
    let calls = list(stage.get(&format!("/v1/sessions/{session_id}/events?kinds=mcp.tool_called")));
    assert_eq!(calls.len(), 7);
    assert!(calls.iter().all(|call| call["payload"]["is_error"] == false));
}

fn each_key(value: &Value) -> Vec<&String> {
    value.as_object().unwrap().keys().collect()
}

#[test]
fn what_others_run_is_neither_seen_nor_ended() {
    let stage = Stage::new();
    let (one, other) = (stage.session(), stage.session());
    let of_one = stage.called(&one, "gg_process_run", &json!({"command": "sleep 1000"}));
    let of_nobody =
        stage.client.post("/v1/processes", &json!({"command": "sleep 1000"})).expect(200);
    for foreign in [&of_one, &of_nobody.json()] {
        let id = process_id(foreign);
        for tool in ["gg_process_status", "gg_process_logs", "gg_process_kill"] {
            let told = ("tool_failed", "does not belong to");
            stage.refused(&other, tool, &json!({"process_id": id}), told);
            let by_pid = json!({"pid": foreign["process"]["pid"]});
            stage.refused(&other, tool, &by_pid, ("tool_failed", "no process of yours"));
        }
        let record = stage.get(&format!("/v1/processes/{id}"));
        assert_eq!(
            (&record["process"]["status"], &record["killed_by"]),
            (&json!("running"), &json!(null))
        );
    }
    let seen = stage.called(&other, "gg_process_status", &json!({}));
    assert_eq!(seen["running"], json!([]));
    let unknown = json!({"process_id": "proc_x"});
    stage.refused(&other, "gg_process_status", &unknown, ("tool_failed", "no process proc_x"));
    // What a session runs ends with it.
    stage.close(&one);
    let ended = stage.get(&format!("/v1/processes/{}", process_id(&of_one)));
    assert_eq!(ended["killed_by"], "session");
}

#[test]
fn what_can_not_be_run_is_told_and_starts_nothing() {
    let stage = Stage::new();
    let session_id = stage.session();
    for (tool, arguments, part) in [
        ("gg_process_run", json!({}), "command: is missing"),
        ("gg_process_run", json!({"command": "  "}), "command: is blank"),
        ("gg_process_run", json!({"command": ["ls"]}), "command: must be a text"),
        (
            "gg_process_run",
            json!({"command": "ls", "cwd": "nowhere"}),
            "nowhere is not an existing",
        ),
        (
            "gg_process_run",
            json!({"command": "ls", "timeout_ms": -1}),
            "timeout_ms: must be at least 0",
        ),
        ("gg_process_run", json!({"command": "ls", "timeout_ms": u64::MAX}), "timeout_ms is"),
        (
            "gg_process_run",
            json!({"command": "ls", "session_id": "x"}),
            "session_id: there is no such",
        ),
        ("gg_process_logs", json!({}), "process_id: is missing"),
        ("gg_process_kill", json!({"process_id": null}), "process_id: is missing"),
        ("gg_process_kill", json!({"process_id": "x", "pid": 1}), "exclude each other"),
        ("gg_process_status", json!({"pid": 0}), "pid: must be at least 1"),
    ] {
        stage.refused(&session_id, tool, &arguments, ("bad_request", part));
    }
    assert_eq!(stage.get("/v1/processes"), json!([]));
}

#[test]
fn a_call_that_is_made_again_under_its_id_starts_nothing_more() {
    let stage = Stage::new();
    let session_id = stage.session();
    fs::create_dir(stage.cwd.join("deep")).unwrap();
    let arguments = json!({"command": "pwd", "cwd": "deep", "timeout_ms": 30_000});
    let call =
        |id: &str, arguments: &Value| stage.invoke(&session_id, "gg_process_run", id, arguments);
    let first = call("a", &arguments)["result"].clone();
    assert_eq!(first["process"]["cwd"], json!(stage.cwd.join("deep")));
    assert_eq!(first["timeout_ms"], 30_000);
    let again = call("a", &arguments)["result"].clone();
    assert_eq!(process_id(&again), process_id(&first));
    let other = call("a", &json!({"command": "ls"}));
    assert_eq!(other["error"]["code"], "bad_request", "{other}");
    let long = call(&"x".repeat(256), &arguments);
    assert_eq!(long["error"]["message"], "invocation_id: must have 255 bytes at most");
    // The id is the caller's own: another's is another call.
    let of_other =
        stage.invoke(&stage.session(), "gg_process_run", "a", &arguments)["result"].clone();
    assert_ne!(process_id(&of_other), process_id(&first));
    assert_eq!(list(stage.get("/v1/processes")).len(), 2);
}

#[test]
fn a_long_log_is_read_part_by_part() {
    let stage = Stage::new();
    let session_id = stage.session();
    let command = "head -c 100000 /dev/zero | tr '\\0' x";
    let started = stage.called(&session_id, "gg_process_run", &json!({"command": command}));
    let id = process_id(&started);
    stage.get(&format!("/v1/processes/{id}?wait_ms=30000"));
    let logs = |fields: Value| {
        let mut arguments = json!({"process_id": id, "stream": "stdout"});
        arguments.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let result = stage.invoke(&session_id, "gg_process_logs", "", &arguments);
        result["result"]["logs"][0].clone()
    };
    let unless_asked = logs(json!({}));
    assert_eq!(
        (&unless_asked["bytes"], &unless_asked["truncated"]),
        (&json!(32 * 1024), &json!(true))
    );
    let (mut at, mut read) = (0, String::new());
    while at < 100_000 {
        let part = logs(json!({"offset": at, "max_bytes": 60_000}));
        read += part["content"].as_str().unwrap();
        at = part["next_offset"].as_u64().unwrap();
    }
    assert_eq!(read, "x".repeat(100_000));
    let told = ("bad_request", "offset counts bytes");
    let wrong = json!({"process_id": id, "offset": 0, "tail_lines": 1});
    stage.refused(&session_id, "gg_process_logs", &wrong, told);
}
