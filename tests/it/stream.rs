//! Streams: frames, cursors, filters, and that what is replayed is what was live.

use crate::stage::{SOON, Stage, check_error, check_told, list, records, text};
use gooselake_harness::client::Headers;
use gooselake_harness::stream::{Frame, Record};
use serde_json::json;

const NDJSON: Headers = &[("Accept", "application/x-ndjson")];

fn names(frames: &[Frame]) -> Vec<&str> {
    frames.iter().map(|frame| frame.event.as_str()).collect()
}

/// The numbers count from one behind `after` without a hole.
fn check_seqs(events: &[Record], after: i64) {
    let seqs: Vec<i64> = events.iter().map(|event| event.seq).collect();
    let count = i64::try_from(seqs.len()).unwrap();
    assert_eq!(seqs, (after + 1..=after + count).collect::<Vec<i64>>());
}

#[test]
fn a_stream_tells_where_it_is() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    let head = stage.events(&session_id).last().unwrap().seq;
    let mut stream = stage.stream(&session_id, "");
    let frames = stream.until("stream.caught_up", SOON);
    assert_eq!(stream.retry_ms(), Some(1000));
    let (first, last) = (&frames[0], frames.last().unwrap());
    assert_eq!((first.event.as_str(), &first.id), ("stream.opened", &None));
    assert_eq!(first.json(), json!({"head": head, "oldest": 1, "resume": "start"}));
    assert_eq!((last.json(), &last.id), (json!({"head": head}), &None));
    let events = records(&frames);
    check_seqs(&events, 0);
    assert_eq!(events, stage.events(&session_id));
    let ids: Vec<String> = frames.iter().filter_map(|frame| frame.id.clone()).collect();
    assert_eq!(ids.len(), frames.len() - 2, "all but the control frames have ids");
    // From a cursor it says that it goes on.
    let mut stream = stage.stream(&session_id, "?after_seq=2");
    assert_eq!(stream.expect(SOON).json()["resume"], "ok");
    let mut stream = stage.stream(&session_id, &format!("?control=false&limit={head}"));
    let frames = stream.rest(SOON);
    assert_eq!(records(&frames).len(), frames.len());
    assert_eq!(records(&frames), events);
}

#[test]
fn the_headers_of_a_stream_keep_proxies_from_holding_it() {
    let stage = Stage::new();
    let reply = stage.client.request("GET", "/v1/events/stream?limit=1&control=false", &[], b"");
    let reply = reply.expect(200);
    assert_eq!(reply.header("content-type"), Some("text/event-stream"));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    assert_eq!(reply.header("x-accel-buffering"), Some("no"));
}

#[test]
fn what_is_replayed_is_what_was_live_byte_for_byte() {
    let stage = Stage::new();
    let session_id = stage.session();
    let query = "?control=false&after_seq=0";
    let mut live = stage.stream(&session_id, query);
    let mut live_all = stage.client.stream("/v1/events/stream?control=false", &[]);
    let first = stage.start(&session_id, "slow 50 5\nflood 3000 60\nrun seq 50\nsay ü€😀");
    stage.ended(&session_id, &first);
    stage.start(&session_id, "plan a; b\nthink hm\nsay end");
    let is_end = |frame: &Frame| frame.event == "turn.completed" && !frame.data.contains(&first);
    let live = live.until_match("the end of the second turn", SOON, is_end);
    let live_all = live_all.until_match("the end of the second turn", SOON, is_end);
    check_seqs(&records(&live), 0);
    let replayed = stage.stream(&session_id, query).until_match("its replay", SOON, is_end);
    assert!(replayed == live, "the replay differs");
    let again = stage.client.stream("/v1/events/stream?control=false", &[]);
    let replayed = { again }.until_match("its replay", SOON, is_end);
    assert!(replayed == live_all, "the replay of the whole log differs");
    // And the list has the same records.
    let listed = stage.client.get(&format!("/v1/sessions/{session_id}/events?limit=10000"));
    let data: Vec<&str> = live.iter().map(|frame| frame.data.as_str()).collect();
    assert!(listed.expect(200).text().starts_with(&format!("[{}", data.join(","))));
    // From any place in the middle the rest is the same.
    for cut in [1, live.len() / 2, live.len() - 1] {
        let after = live[cut - 1].id.clone().unwrap();
        let query = format!("?control=false&after_seq={after}");
        let rest = stage.stream(&session_id, &query).until_match("the rest", SOON, is_end);
        assert!(rest[..] == live[cut..], "behind {after} the replay differs");
    }
}

#[test]
fn ndjson_gives_the_same_records_and_nothing_else() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    let path = format!("/v1/sessions/{session_id}/events/stream?until=turn.completed");
    let reply = stage.client.request("GET", &path, NDJSON, b"").expect(200);
    assert_eq!(reply.header("content-type"), Some("application/x-ndjson"));
    let frames = stage.client.stream(&path, NDJSON).rest(SOON);
    let sse = stage.client.stream(&path, &[]).rest(SOON);
    let data = |frames: &[Frame]| -> Vec<String> {
        let records = frames.iter().filter(|frame| frame.id.is_some());
        records.map(|frame| frame.data.clone()).collect()
    };
    assert_eq!(frames.len(), data(&frames).len());
    assert_eq!(data(&frames), data(&sse));
}

#[test]
fn the_last_event_id_is_stronger_than_the_first_url() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello");
    let path = format!("/v1/sessions/{session_id}/events/stream?control=false&limit=1");
    let first = |query: &str, headers: Headers| {
        stage.client.stream(&format!("{path}{query}"), headers).expect(SOON).record().seq
    };
    assert_eq!(first("", &[]), 1);
    assert_eq!(first("&after_seq=3", &[]), 4);
    assert_eq!(first("&after_seq=1", &[("Last-Event-ID", "4")]), 5);
    assert_eq!(first("&after_seq=latest", &[("last-event-id", "0")]), 1);
    for id in ["evt_4", "-1", "1.5", "99999999999999999999"] {
        let reply = stage.client.try_stream(&path, &[("Last-Event-ID", id)]).unwrap().unwrap_err();
        check_told(&reply, 400, "bad_request", id);
    }
}

#[test]
fn a_cursor_ahead_of_the_log_is_told_where_it_ends() {
    let stage = Stage::new();
    let session_id = stage.session();
    let head = stage.events(&session_id).last().unwrap().seq;
    let path = format!("/v1/sessions/{session_id}/events/stream");
    let ahead = (head + 1).to_string();
    for reply in [
        stage.client.get(&format!("{path}?after_seq={ahead}")),
        stage.client.request("GET", &path, &[("Last-Event-ID", &ahead)], b""),
    ] {
        check_error(&reply, 409, "cursor_ahead");
        assert_eq!(reply.json()["head"], head);
    }
    let reply = stage.client.get("/v1/events/stream?after_seq=1000000");
    check_error(&reply, 409, "cursor_ahead");
    // At the head there is nothing yet, and then the next event.
    let mut stream = stage.stream(&session_id, &format!("?after_seq={head}"));
    assert_eq!(
        names(&stream.until("stream.caught_up", SOON)),
        ["stream.opened", "stream.caught_up"]
    );
    stage.start(&session_id, "instant");
    assert_eq!(stream.expect(SOON).record().seq, head + 1);
}

#[test]
fn from_the_latest_only_news_come() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say old");
    let head = stage.events(&session_id).last().unwrap().seq;
    let mut stream = stage.stream(&session_id, "?after_seq=latest");
    stream.until("stream.caught_up", SOON);
    stage.run(&session_id, "say new");
    let events = records(&stream.until("turn.completed", SOON));
    check_seqs(&events, head);
    assert_eq!(events.last().unwrap().payload["assistant_text"], "new");
}

#[test]
fn a_stream_is_filtered_by_kind_and_by_need() {
    let stage = Stage::new();
    let session_id = stage.session();
    let turn = stage.run(&session_id, "slow 5 20\nrun echo x");
    let other = stage.run(&session_id, "instant");
    let all = stage.events(&session_id);
    let streamed = |query: &str| {
        let query = format!("?control=false&{query}");
        let mut stream = stage.stream(&session_id, &query);
        records(&stream.until_match("the last end", SOON, |frame| {
            frame.event == "turn.completed" && frame.json()["turn_id"] == other["id"]
        }))
    };
    type Wanted = fn(&Record) -> bool;
    let cases: [(&str, Wanted); 3] = [
        ("kinds=turn.*", |event| event.kind.starts_with("turn.")),
        ("kinds=item.completed,turn.completed", |event| {
            event.kind == "item.completed" || event.kind == "turn.completed"
        }),
        ("critical_only=true", |event| event.kind != "item.delta"),
    ];
    for (query, wanted) in cases {
        let expected: Vec<Record> = all.iter().filter(|event| wanted(event)).cloned().collect();
        // What comes behind the last end (titles, usage) may be in the list only.
        let seen = streamed(query);
        assert_eq!(seen, expected[..seen.len()], "{query}");
        assert!(seen.len() > 1);
        let path = format!("/v1/sessions/{session_id}/events?limit=10000&{query}");
        let listed: Vec<Record> = list(stage.get(&path)).into_iter().map(Record::new).collect();
        assert_eq!(listed, expected, "{query}");
    }
    assert!(all.iter().any(|event| event.kind == "item.delta"));
    let turn_id = text(&turn, "id");
    let path = format!("/v1/sessions/{session_id}/events?turn_id={turn_id}");
    let of_turn = list(stage.get(&path));
    assert!(
        !of_turn.is_empty() && of_turn.iter().all(|event| event["turn_id"] == turn_id.as_str())
    );
}

#[test]
fn events_are_listed_in_both_orders_and_in_pages() {
    let stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "say hello\nrun echo x");
    let all = stage.events(&session_id);
    let path = format!("/v1/sessions/{session_id}/events");
    let listed = |query: &str| -> Vec<i64> {
        list(stage.get(&format!("{path}?{query}")))
            .iter()
            .map(|e| e["seq"].as_i64().unwrap())
            .collect()
    };
    let count = i64::try_from(all.len()).unwrap();
    assert_eq!(listed("order=desc&limit=3"), [count, count - 1, count - 2]);
    assert_eq!(listed("after_seq=2&before_seq=5"), [3, 4]);
    let pages = |path: &str, cursor: &str| -> Vec<Record> {
        let (mut seen, mut next) = (Vec::new(), String::new());
        loop {
            let reply = stage.client.get(&format!("{path}{next}")).expect(200);
            seen.extend(list(reply.json()).into_iter().map(Record::new));
            assert!(seen.len() <= all.len(), "{path} does not end");
            let Some(place) = reply.header("x-next-cursor") else { return seen };
            next = format!("&{cursor}={place}");
        }
    };
    let backwards: Vec<Record> = all.iter().rev().cloned().collect();
    for name in ["after_seq", "cursor"] {
        assert_eq!(pages(&format!("{path}?limit=4"), name), all);
    }
    for name in ["before_seq", "cursor"] {
        assert_eq!(pages(&format!("{path}?limit=4&order=desc"), name), backwards);
    }
    assert_eq!(pages(&format!("{path}?limit=2&before_seq=6"), "cursor"), all[..5]);
    // The bound that somebody began with may stay beside the cursor.
    assert_eq!(pages(&format!("{path}?limit=4&after_seq=2"), "cursor"), all[2..]);
    check_told(&stage.client.get(&format!("{path}?cursor=x")), 400, "bad_request", "cursor");
}

#[test]
fn the_whole_log_holds_all_scopes_in_one_order() {
    let stage = Stage::new();
    let sessions = [stage.session(), stage.session()];
    for session_id in &sessions {
        stage.run(session_id, "say hello");
    }
    let mut stream = stage.client.stream("/v1/events/stream", &[]);
    let events = records(&stream.until("stream.caught_up", SOON));
    assert!(events.windows(2).all(|pair| pair[0].row_id < pair[1].row_id));
    for session_id in &sessions {
        let of_session: Vec<Record> = events
            .iter()
            .filter(|event| event.json["session_id"] == session_id.as_str())
            .cloned()
            .collect();
        assert_eq!(of_session, stage.events(session_id)[..of_session.len()]);
        check_seqs(&of_session, 0);
    }
    let mut system = stage.client.stream("/v1/system/events/stream", &[]);
    let system = records(&system.until("stream.caught_up", SOON));
    assert_eq!(system[0].kind, "runtime.started");
    check_seqs(&system, 0);
    assert!(system.iter().all(|event| events.contains(event)));
    let listed = list(stage.get("/v1/system/events"));
    assert_eq!(listed.len(), system.len());
}
