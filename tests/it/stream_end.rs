//! How streams end, how quiet ones live, and what slow readers miss: nothing.

use crate::stage::{SOON, Stage, check_error, check_told, records, text};
use gooselake_harness::stream::Record;
use gooselake_harness::wait;
use serde_json::json;
use std::time::{Duration, Instant};

#[test]
fn a_stream_ends_behind_the_first_event_of_a_wanted_kind() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    let query = "?control=false&until=item.completed,turn.completed";
    let events = records(&stage.stream(&session_id, query).rest(SOON));
    assert_eq!(events.last().unwrap().kind, "item.completed");
    assert_eq!(events.iter().filter(|event| event.kind == "item.completed").count(), 1);
    // Also one that is live by then.
    let mut stream = stage.stream(&session_id, "?after_seq=latest&until=turn.*");
    stream.until("stream.caught_up", SOON);
    stage.start(&session_id, "instant");
    let rest = stream.rest(SOON);
    assert_eq!(rest.last().unwrap().event, "turn.started");
}

#[test]
fn a_stream_ends_after_as_many_events_as_were_wanted() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    for limit in [0, 1, 3] {
        let query = format!("?control=false&limit={limit}");
        assert_eq!(stage.stream(&session_id, &query).rest(SOON).len(), limit);
    }
    let query = "?control=false&limit=2&kinds=item.*";
    assert_eq!(stage.stream(&session_id, query).rest(SOON).len(), 2);
}

#[test]
fn a_quiet_stream_beats() {
    let stage = Stage::with_config("[events]\nheartbeat_secs = 1\n");
    let session_id = stage.session();
    let mut stream = stage.stream(&session_id, "?after_seq=latest&kinds=turn.completed");
    stream.until("stream.caught_up", SOON);
    // Nothing that it takes comes, but the comments do.
    while stream.comments() < 2 {
        assert_eq!(stream.next(Duration::from_millis(500)), None);
        assert_eq!(stream.end(), None);
    }
    stage.start(&session_id, "instant");
    assert_eq!(stream.expect(SOON).event, "turn.completed");
}

/// News that a client does not want must not be taken for a sign that it is there.
#[test]
fn a_stream_that_wants_nothing_of_a_busy_log_beats_and_a_client_that_is_gone_is_missed() {
    let stage = Stage::with_config("[events]\nheartbeat_secs = 1\n");
    let session_id = stage.session();
    stage.start(&session_id, "slow 100000 5");
    let mut stream = stage.stream(&session_id, "?after_seq=0&kinds=turn.completed");
    stream.until("stream.caught_up", SOON);
    // An event comes every few milliseconds, none of them for it.
    let deadline = Instant::now() + SOON;
    while stream.comments() < 2 {
        assert_eq!(stream.next(Duration::from_millis(500)), None);
        assert!(stream.end().is_none() && Instant::now() < deadline, "it does not beat");
    }
    let body = json!({"command": "while :; do echo line; sleep 0.01; done", "cwd": stage.cwd});
    let process_id = text(&stage.start_process(&body)["process"], "process_id");
    let path = format!("/v1/processes/{process_id}/logs?follow=true&stream=stderr");
    let follower = stage.client.stream(&path, &[]);
    let open = || stage.get("/v1/diagnostics")["streams"]["open"].clone();
    assert_eq!(open(), 2);
    drop((stream, follower));
    wait::until(SOON, "both places are free", || (open() == 0).then_some(()));
}

/// The position of a stream moves with what it has looked at, wanted or not.
#[test]
fn what_a_filter_left_out_is_behind_the_stream() {
    let mut stage = Stage::with_config("[events]\nheartbeat_secs = 1\n");
    let session_id = stage.session();
    stage.run(&session_id, "slow 50 1");
    // So that the newest events are not at hand any more.
    stage.restart();
    for path in [format!("/v1/sessions/{session_id}/events/stream"), "/v1/events/stream".to_owned()]
    {
        let path = format!("{path}?after_seq=0&kinds=approval.*");
        let mut stream = stage.client.stream(&path, &[]);
        stream.until("stream.caught_up", SOON);
        let streams = || stage.get("/v1/diagnostics")["streams"].clone();
        let reader = wait::until(SOON, "it is at the head", || {
            let reader = streams()["readers"][0].clone();
            (reader["lag"] == 0).then_some(reader)
        });
        assert!(reader["cursor"].as_i64().unwrap() > 20, "{reader}");
        drop(stream);
        wait::until(SOON, "its place is free", || (streams()["open"] == 0).then_some(()));
    }
}

/// Longer than what one look at the database takes.
#[test]
fn what_a_filter_takes_is_found_behind_much_that_it_leaves_out() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    for _ in 0..2 {
        stage.run(&session_id, "flood 25000 10");
    }
    stage.restart();
    let head = stage.record(&session_id)["head_seq"].clone();
    for path in [format!("/v1/sessions/{session_id}/events"), "/v1/events".to_owned()] {
        let listed = stage.get(&format!("{path}?kinds=turn.completed"));
        assert_eq!(listed.as_array().unwrap().len(), 2, "{path} {head}");
        let query = "?after_seq=0&kinds=turn.completed&limit=2&control=false";
        let frames = stage.client.stream(&format!("{path}/stream{query}"), &[]).rest(SOON);
        let seen: Vec<String> = records(&frames).into_iter().map(|record| record.kind).collect();
        assert_eq!(seen, ["turn.completed", "turn.completed"], "{path}");
    }
}

#[test]
fn there_is_room_for_so_many_streams() {
    let stage = Stage::with_config("[server]\nmax_streams = 2\n");
    let open = || stage.client.try_stream("/v1/events/stream", &[]).unwrap();
    let (mut first, second) = (open().unwrap(), open().unwrap());
    first.expect(SOON);
    let refused = open().unwrap_err();
    check_told(&refused, 503, "capacity", "max_streams");
    assert!(refused.header("retry-after").is_some());
    // A HEAD request takes no place, and one that goes makes room.
    check_error(&open().unwrap_err(), 503, "capacity");
    drop((first, second));
    let session_id = stage.session();
    let again = wait::until(SOON, "there is room again", || {
        // An event makes the server write to those who are gone.
        stage.run(&session_id, "instant");
        open().ok()
    });
    drop(again);
}

#[test]
fn a_head_request_holds_no_place_of_a_stream() {
    let stage = Stage::with_config("[server]\nmax_streams = 1\n");
    stage.client.request("HEAD", "/v1/events/stream", &[], b"").expect(200);
    // The answer is there a moment before the place is free.
    let open = || stage.client.try_stream("/v1/events/stream", &[]).unwrap().ok();
    wait::until(SOON, "the place is free", open).expect(SOON);
}

#[test]
fn a_reader_that_pauses_gets_everything_later() {
    let stage = Stage::new();
    let session_id = stage.session();
    let mut slow = stage.stream(&session_id, "?control=false");
    slow.expect(SOON);
    // More than the sockets and the ring hold: 12 MB in deltas.
    let turn = stage.run(&session_id, "flood 30000 400");
    assert_eq!(turn["status"], "completed");
    let mut events = records(&slow.until("turn.completed", SOON));
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    let count = i64::try_from(seqs.len()).unwrap();
    assert_eq!(seqs, (2..=count + 1).collect::<Vec<i64>>());
    events.retain(|event| event.kind == "item.delta");
    let told: String =
        events.iter().map(|event| event.payload["delta"].as_str().unwrap()).collect();
    let expected: String =
        (1..=30_000).map(|number| format!("{:.<400}", format!("{number} "))).collect();
    assert!(told == expected, "some of the flood is missing or out of order");
    assert!(turn["assistant_text"].as_str().unwrap().ends_with('.'));
}

#[test]
fn a_stop_ends_streams_with_a_word_and_the_server_with_zero() {
    let mut stage = Stage::with_config("[server]\nshutdown_grace_secs = 10\n");
    let session_id = stage.session();
    let mut of_session = stage.stream(&session_id, "?after_seq=latest");
    let mut all = stage.client.stream("/v1/events/stream", &[]);
    let lines = [("Accept", "application/x-ndjson")];
    let mut ndjson = stage.client.stream("/v1/events/stream", &lines);
    // One that never reads must not hold the stop up.
    let _deaf = stage.client.stream("/v1/events/stream", &[]);
    of_session.until("stream.caught_up", SOON);
    all.until("stream.caught_up", SOON);
    ndjson.expect(SOON);
    let turn_id = stage.start(&session_id, "slow 1000 20");
    of_session.until("item.started", SOON);
    let start = std::time::Instant::now();
    assert_eq!(stage.server.terminate(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(12), "{:?}", start.elapsed());
    for stream in [&mut of_session, &mut all] {
        let rest = stream.rest(SOON);
        let last = rest.last().unwrap();
        assert_eq!((last.event.as_str(), &last.id), ("stream.closing", &None));
        assert!(last.json()["reason"].is_string(), "{last:?}");
    }
    assert!(ndjson.rest(SOON).iter().all(|frame| frame.id.is_some()));
    // The busy agent went on with its keeper, and the log knows nothing of a break.
    stage.restart();
    let record = stage.record(&session_id);
    assert_eq!(
        (&record["status"], &record["active_turn_id"]),
        (&json!("turn_running"), &json!(turn_id))
    );
    stage.interrupt(&session_id, &turn_id).expect(202);
    let turn = stage.ended(&session_id, &turn_id);
    let events: Vec<Record> = stage.events(&session_id);
    let deltas: String =
        events.iter().filter_map(|event| event.payload["delta"].as_str()).collect();
    assert_eq!(turn["assistant_text"], deltas.as_str());
}
