//! The logs of processes: caps, windows, bytes that are no text, and logs that are followed.

use super::{id, status, told};
use crate::stage::{SOON, Stage, list, text};
use serde_json::{Value, json};

fn chunk(stage: &Stage, process_id: &str, query: &str) -> Value {
    let chunks = list(stage.get(&format!("/v1/processes/{process_id}/logs?stream=stdout&{query}")));
    assert_eq!(chunks.len(), 1);
    chunks[0].clone()
}

#[test]
fn the_cap_holds_and_the_rest_is_counted() {
    let stage = Stage::with_config("[processes]\nmax_output_bytes_per_process = 1000\n");
    let exact = stage.process_end(&stage.shell("head -c 1000 /dev/zero"));
    assert_eq!((&exact["stdout_bytes"], &exact["stdout_truncated"]), (&json!(1000), &json!(false)));
    let record = stage.process_end(&stage.shell("yes | head -c 300000; seq 3 >&2"));
    assert_eq!(status(&record), "completed");
    assert_eq!(record["stdout_bytes"], 1000);
    assert_eq!(record["stdout_dropped_bytes"], 299_000);
    assert_eq!(
        (&record["stdout_truncated"], &record["stderr_truncated"]),
        (&json!(true), &json!(false))
    );
    assert_eq!(std::fs::read(text(&record, "stdout_path")).unwrap(), b"y\n".repeat(500));
    assert_eq!(chunk(&stage, &id(&record), "")["truncated"], true);
}

#[test]
fn lines_and_bytes_can_be_asked_for() {
    let stage = Stage::new();
    let process_id = stage.shell("seq 200");
    stage.process_end(&process_id);
    let content = |query: &str| text(&chunk(&stage, &process_id, query), "content");
    let last = |count: usize| (201 - count..=200).map(|n| format!("{n}\n")).collect::<String>();
    assert_eq!(content(""), last(80));
    assert_eq!(content("head_lines=2&tail_lines=1"), "1\n2\n...\n200\n");
    assert_eq!(content("head_lines=150&tail_lines=150"), last(200));
    assert_eq!(content("tail_lines=0"), "");
    assert_eq!(content("tail_lines=5&max_bytes=6"), "9\n200\n");
    let cut = chunk(&stage, &process_id, "tail_lines=1");
    assert_eq!((&cut["truncated"], &cut["bytes"]), (&json!(true), &json!(4)));
    let part = chunk(&stage, &process_id, "offset=2&max_bytes=4");
    assert_eq!(
        (&part["content"], &part["next_offset"], &part["truncated"]),
        (&json!("2\n3\n"), &json!(6), &json!(true))
    );
    let rest = chunk(&stage, &process_id, "offset=688");
    assert_eq!((&rest["content"], &rest["truncated"]), (&json!("200\n"), &json!(false)));
    assert_eq!(chunk(&stage, &process_id, "offset=9999")["content"], "");
    for query in
        ["stream=stdin", "head_lines=-1", "offset=0&tail_lines=1", "format=xml", "follow=1"]
    {
        stage.client.get(&format!("/v1/processes/{process_id}/logs?{query}")).expect(400);
    }
    let both = list(stage.get(&format!("/v1/processes/{process_id}/logs")));
    assert_eq!(both.len(), 2);
}

#[test]
fn bytes_that_are_no_text_are_replaced_and_none_is_left_out() {
    let stage = Stage::new();
    let process_id = stage.shell(r"printf 'a\377b\n\303\251\n\342\202'");
    stage.process_end(&process_id);
    let content = text(&chunk(&stage, &process_id, ""), "content");
    assert_eq!(content, "a\u{fffd}b\né\n\u{fffd}\n");
    // Pages cut no character in two.
    let (mut at, mut pages) = (0, String::new());
    loop {
        let page = chunk(&stage, &process_id, &format!("offset={at}&max_bytes=4"));
        pages.push_str(page["content"].as_str().unwrap());
        at = page["next_offset"].as_u64().unwrap();
        if at >= page["log_bytes"].as_u64().unwrap() {
            break;
        }
    }
    assert_eq!(pages, "a\u{fffd}b\né\n\u{fffd}");
    assert_eq!(told(&stage.process_events(&process_id), "stdout"), "a\u{fffd}b\né\n\u{fffd}");
}

#[test]
fn a_followed_log_tells_what_comes_until_the_end() {
    let stage = Stage::new();
    let process_id = id(&stage.start_process(&json!({
        "command": "echo before; while read -r line; do echo \"got $line\"; done; echo bye >&2",
        "stdin_open": true,
    })));
    stage.await_line(&process_id, "before");
    let path = format!("/v1/processes/{process_id}/logs?follow=true");
    let mut follow = stage.client.stream(&path, &[("Accept", "application/x-ndjson")]);
    let mut text_of = String::new();
    let mut next = |expected: &str| {
        while !text_of.ends_with(expected) {
            let frame = follow.expect(SOON).json();
            text_of.push_str(frame["content"].as_str().unwrap());
        }
    };
    next("before\n");
    let stdin = format!("/v1/processes/{process_id}/stdin");
    stage.client.post(&stdin, &json!({"text": "one\n"})).expect(200);
    next("got one\n");
    stage.client.post(&stdin, &json!({"text": "two\n", "close": true})).expect(200);
    next("bye\n");
    let rest = follow.rest(SOON);
    let last = rest.last().unwrap().json();
    assert_eq!((&last["status"], &last["exit_code"]), (&json!("completed"), &json!(0)));
    let plain = stage.client.get(&format!("{path}&format=text&offset=0&stream=stdout"));
    assert_eq!(plain.text(), "before\ngot one\ngot two\n");
}

#[test]
fn a_flood_is_told_in_few_events_and_kept_byte_for_byte() {
    let stage = Stage::new();
    let process_id = stage.shell("seq 1000000");
    let record = stage.process_end(&process_id);
    let wanted: String = (1..=1_000_000).map(|n| format!("{n}\n")).collect();
    assert!(std::fs::read_to_string(text(&record, "stdout_path")).unwrap() == wanted);
    let events = stage.process_events(&process_id);
    assert!(events.len() < 100, "{} events", events.len());
    let mut at = 0;
    for event in events.iter().filter(|event| event.kind == "process.output") {
        let payload = &event.json["payload"];
        assert_eq!(payload["offset"].as_u64(), Some(at));
        at += payload["bytes_seen"].as_u64().unwrap();
        let left_out = payload["text_left_out_bytes"].as_u64().unwrap();
        let from = usize::try_from(at).unwrap() - payload["text"].as_str().unwrap().len();
        assert_eq!(payload["text"].as_str().unwrap(), &wanted[from..usize::try_from(at).unwrap()]);
        assert_eq!(left_out, from as u64 - payload["offset"].as_u64().unwrap());
        assert_eq!(event.json["criticality"], "droppable");
    }
    assert_eq!(at, wanted.len() as u64);
}
