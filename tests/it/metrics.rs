//! The server in figures: `/metrics` for machines, `/v1/diagnostics` for people.

use crate::stage::{SOON, Stage, check_error, list, text};
use gooselake_harness::{proc, wait};
use serde_json::json;
use std::collections::HashMap;

/// The figures of a page, by name and labels as they stand there. Panics: it is not the text format of Prometheus.
fn parse(page: &str) -> HashMap<String, f64> {
    let mut figures = HashMap::new();
    let mut helped: Vec<&str> = Vec::new();
    let mut family: Option<(&str, &str)> = None;
    assert!(page.ends_with('\n'), "the last line has no end");
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && !helped.contains(&name), "{line}");
            helped.push(name);
            family = None;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, sort) = rest.split_once(' ').unwrap();
            assert_eq!(helped.last(), Some(&name), "TYPE follows its HELP: {line}");
            assert!(["counter", "gauge"].contains(&sort), "{line}");
            assert_eq!(sort == "counter", name.ends_with("_total"), "{line}");
            family = Some((name, sort));
        } else {
            let (key, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = key.split_once('{').map_or((key, ""), |(name, rest)| {
                (name, rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}")))
            });
            assert_eq!(
                family.map(|(name, _)| name),
                Some(name),
                "a sample stands in its family: {line}"
            );
            let is_plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(name.starts_with("gooselake_") && name.chars().all(is_plain), "{line}");
            for label in labels.split(',').filter(|label| !label.is_empty()) {
                let (label, value) = label.split_once('=').unwrap_or_else(|| panic!("{line}"));
                assert!(label.chars().all(is_plain), "{line}");
                assert!(
                    value.len() > 2 && value.starts_with('"') && value.ends_with('"'),
                    "{line}"
                );
            }
            let value: f64 = value.parse().unwrap_or_else(|error| panic!("{line}: {error}"));
            assert!(value.is_finite() && value >= 0.0, "{line}");
            assert_eq!(figures.insert(key.to_owned(), value), None, "twice: {line}");
        }
    }
    figures
}

fn figures(stage: &Stage) -> HashMap<String, f64> {
    let reply = stage.client.get("/metrics").expect(200);
    assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    parse(&reply.text())
}

#[test]
fn the_page_is_what_prometheus_reads_and_tells_what_there_is() {
    let stage = Stage::new();
    let before = figures(&stage);
    let names = [
        "gooselake_sessions{status=\"ready\"}",
        "gooselake_sessions{status=\"closed\"}",
        "gooselake_live_agents{provider=\"demo\"}",
        "gooselake_keepers",
        "gooselake_processes{status=\"completed\"}",
        "gooselake_deliveries{status=\"pending\"}",
        "gooselake_worktrees{status=\"ready\"}",
    ];
    for name in names {
        assert_eq!(before.get(name), Some(&0.0), "{name}");
    }
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    let body = json!({"args": ["true"]});
    let process = stage.client.post("/v1/processes", &body).expect(200).json();
    let process_id = text(&process["process"], "process_id");
    stage.get(&format!("/v1/processes/{process_id}?wait_ms=30000"));
    let mut stream = stage.client.stream("/v1/events/stream", &[]);
    stream.until("stream.caught_up", SOON);
    let after = figures(&stage);
    for name in [
        "gooselake_sessions{status=\"ready\"}",
        "gooselake_live_agents{provider=\"demo\"}",
        "gooselake_session_threads",
        "gooselake_processes{status=\"completed\"}",
        "gooselake_streams",
        "gooselake_build_info{version=\"0.1.0\"}",
    ] {
        assert_eq!(after.get(name), Some(&1.0), "{name}");
    }
    assert!(after["gooselake_keepers"] >= 1.0 && after["gooselake_kept_memory_bytes"] > 1e5);
    assert!(after["gooselake_connections"] >= 2.0);
    for name in [
        "gooselake_requests_total",
        "gooselake_writer_commits_total",
        "gooselake_writer_events_total",
        "gooselake_log_head",
        "gooselake_uptime_seconds",
    ] {
        assert!(after[name] > before[name], "{name} is {} and was {}", after[name], before[name]);
    }
    // It is the server's own memory that is told, to within what it uses meanwhile.
    let told = after["gooselake_memory_bytes"] / 1024.0;
    let seen = stage.server.rss_kib() as f64;
    assert!((told / seen - 1.0).abs() < 0.5, "{told} KiB are told, {seen} seen");
    assert!(after["gooselake_database_bytes"] + after["gooselake_database_wal_bytes"] > 1e4);
    // No figure comes and goes.
    let mut names: [Vec<&String>; 2] = [before.keys().collect(), after.keys().collect()];
    names.iter_mut().for_each(|names| names.sort());
    assert_eq!(names[0], names[1]);
}

#[test]
fn figures_are_for_the_operator() {
    let stage = Stage::new();
    check_error(&stage.anonymous().get("/metrics"), 401, "unauthorized");
    stage.client.request("HEAD", "/metrics", &[], b"").expect(200);
}

#[test]
fn diagnostics_tell_who_reads_and_how_far_behind_they_are() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    let head = stage.events(&session_id).last().unwrap().seq;
    let mut stream = stage.stream(&session_id, "?after_seq=1");
    stream.until("stream.caught_up", SOON);
    // It is caught up when it has said so; its place is written down behind that.
    let reader = wait::until(SOON, "the reader is at the head", || {
        let streams = stage.get("/v1/diagnostics")["streams"].clone();
        assert_eq!((&streams["open"], &streams["max"]), (&json!(1), &json!(1024)));
        let reader = streams["readers"][0].clone();
        (reader["lag"] == 0).then_some(reader)
    });
    assert_eq!(reader["path"], format!("/v1/sessions/{session_id}/events/stream"));
    assert_eq!((&reader["cursor"], &reader["head"]), (&json!(head), &json!(head)));
    assert!(text(&reader, "remote").starts_with("127.0.0.1:"));
    assert!(reader["since"].as_i64().unwrap() > 1_600_000_000_000);
    // Another event, and it is at the new head; then it goes, and so does its row.
    stage.run(&session_id, "say more");
    let moved = wait::until(SOON, "the reader is at the new head", || {
        let reader = stage.get("/v1/diagnostics")["streams"]["readers"][0].clone();
        (reader["lag"] == 0).then_some(reader)
    });
    assert!(moved["cursor"].as_i64().unwrap() > head, "{moved}");
    drop(stream);
    stage.run(&session_id, "say it is noticed at a write");
    wait::until(SOON, "the place is given back", || {
        (stage.get("/v1/diagnostics")["streams"]["open"] == 0).then_some(())
    });
}

#[test]
fn a_reader_that_does_not_read_is_seen_to_lag() {
    let stage = Stage::new();
    let session_id = stage.session();
    // Never read from: the kernel takes some, the rest waits in the log.
    let _stalled = stage.stream(&session_id, "");
    let turn_id = stage.start(&session_id, "flood 12000 1000");
    let reader = wait::until(SOON, "the reader lags", || {
        let reader = stage.get("/v1/diagnostics")["streams"]["readers"][0].clone();
        let lags = reader["lag"].as_i64()? > 5 && figures(&stage)["gooselake_stream_lag_max"] > 5.0;
        lags.then_some(reader)
    });
    let (head, cursor) = (reader["head"].as_i64().unwrap(), reader["cursor"].as_i64().unwrap());
    assert_eq!(reader["lag"], head - cursor, "{reader}");
    stage.ended(&session_id, &turn_id);
}

#[test]
fn diagnostics_tell_what_keepers_hold() {
    let stage = Stage::new();
    let session_id = stage.session();
    let body = json!({"command": "sleep 1000 & sleep 1000"});
    let process = stage.client.post("/v1/processes", &body).expect(200).json();
    let process_id = text(&process["process"], "process_id");
    let keepers = wait::until(SOON, "both are held, with their children", || {
        let keepers = list(stage.get("/v1/diagnostics")["keepers"].clone());
        let of_process = keepers.iter().find(|keeper| keeper["child_id"] == process_id.as_str())?;
        (keepers.len() == 2 && of_process["processes"].as_u64()? >= 2).then_some(keepers)
    });
    let mut told: Vec<u32> =
        keepers.iter().map(|keeper| keeper["keeper_pid"].as_u64().unwrap() as u32).collect();
    let mut seen = proc::keepers_of(stage.server.data_dir());
    told.sort_unstable();
    seen.sort_unstable();
    assert_eq!(told, seen);
    let agent = keepers.iter().find(|keeper| keeper["agent_of_session_id"] == session_id.as_str());
    let agent = agent.unwrap_or_else(|| panic!("the agent is not in {keepers:?}"));
    assert!(agent["memory_bytes"].as_u64().unwrap() > 100_000, "{agent}");
    assert!(agent["journal_bytes"].as_u64().unwrap() > 0, "{agent}");
    let count = || list(stage.get("/v1/events?limit=10000")).len() as u64;
    let (before, all, after) = (count(), stage.get("/v1/diagnostics"), count());
    assert!(all["tail"]["frames"].as_u64().unwrap() > 3, "{all}");
    assert!((before..=after).contains(&all["tail"]["head"].as_u64().unwrap()), "{all}");
    assert!(all["database"]["bytes"].as_u64().unwrap() > 0, "{all}");
    assert!(all["connections"]["requests"].as_u64().unwrap() > 3, "{all}");
    stage
        .client
        .post(&format!("/v1/processes/{process_id}/kill"), &json!({"signal": "KILL"}))
        .expect(200);
    let left = list(stage.get("/v1/diagnostics")["keepers"].clone());
    assert!(left.iter().all(|keeper| keeper["child_id"] != process_id.as_str()), "{left:?}");
}
