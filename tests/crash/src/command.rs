//! Plays of runtime-managed processes: output is kept byte for byte, input arrives once, a kill takes the whole tree.

use crate::play::{Play, text};
use gooselake_harness::proof;
use gooselake_harness::stream::Record;
use serde_json::{Value, json};
use std::fs;

/// A command that writes for a while and ends with a code of its own.
pub(crate) fn output(play: &mut Play) {
    let (lines, code) = (1 + play.rng.below(3000), play.rng.below(3));
    let pause = 20 + play.rng.below(200);
    let script = format!(
        "i=0; while [ $i -lt {lines} ]; do echo \"line $i of it\"; i=$((i + 1)); \
         [ $((i % {pause})) = 0 ] && sleep 0.02; done; echo oops >&2; exit {code}"
    );
    let body = json!({"args": ["sh", "-c", script], "cwd": play.folder});
    let Ok(made) = play.make("/v1/processes", &body) else { return };
    let id = text(&made["process"], "process_id");
    let record = ended(play, &id);
    let expected: String = (0..lines).map(|line| format!("line {line} of it\n")).collect();
    check_log(play, &record, "stdout", &expected);
    check_log(play, &record, "stderr", "oops\n");
    let status = if code == 0 { "completed" } else { "failed" };
    if !play.is_rough {
        assert_eq!(record["process"]["status"], status, "{}: {record}", play.name);
        assert_eq!(record["exit_code"], code, "{}: {record}", play.name);
    }
    check_events(play, &id, &record);
    proof::nothing_runs_in(&play.folder);
}

/// A command that reads what is sent piece by piece. A piece whose answer was lost may be there or not.
pub(crate) fn input(play: &mut Play) {
    let body = json!({"args": ["cat"], "cwd": play.folder, "stdin_open": true});
    let Ok(made) = play.make("/v1/processes", &body) else { return };
    let id = text(&made["process"], "process_id");
    let path = format!("/v1/processes/{id}/stdin");
    let headers = [("Content-Type", "application/json")];
    let (mut acknowledged, mut sent) = (Vec::new(), 0);
    for number in 0..10 + play.rng.below(60) {
        let piece = json!({"text": format!("{number}\n")}).to_string();
        sent = number + 1;
        match play.line.call_once("POST", &path, &headers, piece.as_bytes()) {
            Some(reply) if reply.status == 200 => acknowledged.push(number),
            Some(reply) => {
                let record = play.get(&format!("/v1/processes/{id}"));
                let is_fine = play.is_rough && reply.status == 409;
                assert!(is_fine, "{}: {reply}: {record}", play.name);
                break;
            }
            None => {}
        }
    }
    let closed = play.act(&path, &json!({"text": "", "close": true}));
    let is_fine = closed.reply.status == 200
        || closed.reply.status == 409 && (closed.was_cut || play.is_rough);
    assert!(is_fine, "{}: {}", play.name, closed.reply);
    let record = ended(play, &id);
    let log = fs::read_to_string(text(&record, "stdout_path")).expect("it has a log");
    let there: Vec<u64> = log.lines().filter_map(|line| line.parse().ok()).collect();
    let is_in_order = there.windows(2).all(|pair| pair[0] < pair[1]);
    assert!(is_in_order && there.iter().all(|number| *number < sent), "{}: {log:?}", play.name);
    if !play.is_rough {
        assert_eq!(there.len(), log.lines().count(), "{}: {log:?}", play.name);
        let lost = acknowledged.iter().find(|number| !there.contains(number));
        assert_eq!(lost, None, "{}: acknowledged and lost: {log:?}", play.name);
        assert_eq!(record["process"]["status"], "completed", "{}: {record}", play.name);
    }
    check_events(play, &id, &record);
}

/// A tree that would run for ever is killed.
pub(crate) fn kill(play: &mut Play) {
    let script = "sleep 1000 & (sleep 1000 & exec sleep 1000) & echo up; wait";
    let body = json!({"command": script, "cwd": play.folder, "kill_grace_ms": 500});
    let Ok(made) = play.make("/v1/processes", &body) else { return };
    let id = text(&made["process"], "process_id");
    let reply = play.act(&format!("/v1/processes/{id}/kill"), &json!({"reason": "test"})).reply;
    assert!([200, 202].contains(&reply.status), "{}: {reply}", play.name);
    let record = ended(play, &id);
    let status = text(&record["process"], "status");
    assert!(status == "killed" || play.is_rough && status == "failed", "{}: {record}", play.name);
    proof::nothing_runs_in(&play.folder);
    check_events(play, &id, &record);
}

fn ended(play: &Play, id: &str) -> Value {
    play.until("the end of the process", || {
        let record = play.get(&format!("/v1/processes/{id}?wait_ms=20000"));
        (!record["process"]["ended_at"].is_null()).then_some(record)
    })
}

/// The file, the record and the route say the same; in a rough round it may be a beginning only.
fn check_log(play: &Play, record: &Value, stream: &str, expected: &str) {
    let path = text(record, &format!("{stream}_path"));
    let log = fs::read_to_string(&path).unwrap_or_default();
    let id = text(&record["process"], "process_id");
    // A shell whose command was killed says so in a word of its own.
    let said = log.replace("Killed\n", "");
    let is_cut = play.is_rough && expected.starts_with(&said);
    let (has, wants) = (log.len(), expected.len());
    let end = &log[log.floor_char_boundary(has.saturating_sub(80))..];
    let told = format!("{}: {id}: {stream}: {has} of {wants} bytes, … {end:?}", play.name);
    assert!(log == expected || is_cut, "{told}");
    assert_eq!(record[format!("{stream}_bytes")], has, "{}: {record}", play.name);
    let chunk = play.get(&format!("/v1/processes/{id}/logs?stream={stream}&offset=0"));
    assert_eq!(chunk[0]["content"], log, "{}: {id}: the route tells another {stream}", play.name);
}

/// One start, one end, and each byte of the log told once, in order.
fn check_events(play: &Play, id: &str, record: &Value) {
    let events = play.pages(&format!("/v1/processes/{id}/events"));
    let count = |wanted: &[&str]| {
        let is_wanted = |event: &&Record| wanted.contains(&event.kind.as_str());
        events.iter().filter(is_wanted).count()
    };
    let ends = ["process.completed", "process.failed", "process.timed_out", "process.killed"];
    assert_eq!(count(&ends), 1, "{}: {id}: {events:?}", play.name);
    assert!(count(&["process.started"]) <= 1, "{}: {id}: {events:?}", play.name);
    for stream in ["stdout", "stderr"] {
        let mut at = 0;
        for event in events.iter().filter(|event| event.payload["stream"] == stream) {
            assert_eq!(event.payload["offset"].as_u64(), Some(at), "{}: {id}", play.name);
            at += event.payload["bytes_seen"].as_u64().expect("it counts");
        }
        assert_eq!(Some(at), record[format!("{stream}_bytes")].as_u64(), "{}: {id}", play.name);
    }
}
