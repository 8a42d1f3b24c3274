//! The promises, one function each.
//!
//! A check gets a session whose turns are over and what was seen of them live, and asks the server for the same again
//! in another way. Frames are compared as they came, byte for byte, and never by what they mean alone.

use crate::target::{Session, Target, events, is_end_of};
use gooselake_harness::client::Headers;
use gooselake_harness::stream::{Frame, Record};
use serde_json::{Value, json};
use std::time::Duration;

type Check = fn(&Target, &Session);

/// All checks with what they prove, in their order.
pub(crate) const ALL: &[(&str, Check)] = &[
    ("a replay of the session is what was live, byte for byte", session_replay),
    ("a replay of the whole log is what was live, byte for byte", whole_replay),
    ("the list has the same records", list),
    ("every record is whole, and numbers have no hole", records),
    ("from every cursor the rest is the same", cursors),
    ("a reader that breaks off again and again misses nothing and sees nothing twice", reconnects),
    ("a reader that does not read for a while loses nothing", slow_reader),
    ("control frames are right", control),
    ("Last-Event-ID is stronger than after_seq", last_event_id),
    ("a cursor ahead of the log is told where it ends", cursor_ahead),
    ("NDJSON has the same records and nothing else", ndjson),
    ("until and limit end a stream where they say", ends),
    ("filters take what they say and nothing else", filters),
];

const NDJSON: Headers = &[("Accept", "application/x-ndjson")];

/// Cursors and breaks that are tried, at most.
const CURSORS_MAX: usize = 60;

/// Panics unless the stream of the session begins with exactly these frames.
pub(crate) fn is_replayed(target: &Target, session_id: &str, live: &[Frame]) {
    assert!(!live.is_empty(), "nothing was seen live");
    let path = format!("{}?control=false&limit={}", events(session_id), live.len());
    same(&target.stream(&path, &[]).rest(target.patience), live);
}

/// Panics at the first difference.
fn same(seen: &[Frame], expected: &[Frame]) {
    for (place, (seen, expected)) in seen.iter().zip(expected).enumerate() {
        assert!(seen == expected, "frame {place} is {seen:?}, awaited was {expected:?}");
    }
    assert_eq!(seen.len(), expected.len(), "one of them has more frames");
}

fn session_replay(target: &Target, session: &Session) {
    for _ in 0..2 {
        is_replayed(target, &session.id, &session.live);
    }
}

fn whole_replay(target: &Target, session: &Session) {
    let live = &session.live_in_whole_log;
    let first: i64 = id(&live[0]);
    let path =
        format!("/v1/events/stream?control=false&after_seq={}&limit={}", first - 1, live.len());
    same(&target.stream(&path, &[]).rest(target.patience), live);
    // And what it has of the session is what the session's own stream had.
    let own: Vec<&str> = live
        .iter()
        .filter(|frame| frame.json()["session_id"] == session.id.as_str())
        .map(|frame| frame.data.as_str())
        .collect();
    let all: Vec<&str> = session.live.iter().map(|frame| frame.data.as_str()).collect();
    assert!(all.ends_with(&own), "the whole log has other events of the session");
}

fn id(frame: &Frame) -> i64 {
    let id = frame.id.as_deref().unwrap_or_else(|| panic!("{frame:?} has no id"));
    id.parse().unwrap_or_else(|error| panic!("{error}: {frame:?}"))
}

fn live_records(session: &Session) -> Vec<Record> {
    session.live.iter().map(Frame::record).collect()
}

fn list(target: &Target, session: &Session) {
    let listed = target.listed(&session.id, "");
    let live = live_records(session);
    assert!(listed.len() >= live.len(), "{} are listed, {} were live", listed.len(), live.len());
    for (listed, live) in listed.iter().zip(&live) {
        assert_eq!(listed, live);
    }
}

fn records(_target: &Target, session: &Session) {
    let mut last_row_id = 0;
    for (place, frame) in session.live.iter().enumerate() {
        let record = frame.record();
        assert_eq!(id(frame), record.seq, "the id is the seq: {frame:?}");
        assert_eq!(record.seq, place as i64 + 1, "a hole, or a number twice: {frame:?}");
        assert_eq!(frame.event, record.kind);
        assert_eq!(record.json["event_id"], format!("evt_{}", record.row_id));
        assert_eq!(record.json["session_id"], session.id.as_str());
        assert_eq!(
            (&record.json["scope"], &record.json["scope_id"]),
            (&json!("session"), &json!(session.id))
        );
        assert!(record.row_id > last_row_id, "row ids go back: {frame:?}");
        last_row_id = record.row_id;
        for name in ["team_id", "turn_id", "provider", "provider_seq", "payload", "created_at"] {
            assert!(record.json.get(name).is_some(), "{name} is missing in {frame:?}");
        }
        let criticality = &record.json["criticality"];
        let is_known = ["critical", "droppable"].iter().any(|word| criticality == word);
        assert!(is_known, "criticality is {criticality}: {frame:?}");
    }
    let kinds: Vec<&str> = session.live.iter().map(|frame| frame.event.as_str()).collect();
    assert_eq!(kinds.first(), Some(&"session.created"));
    let begun = kinds.iter().filter(|kind| **kind == "turn.started").count();
    assert_eq!(begun, 2, "two turns were started: {kinds:?}");
}

/// So many places of the log, spread over it.
fn places(live: &[Frame]) -> impl Iterator<Item = usize> {
    let count = live.len();
    (1..count).step_by((count / CURSORS_MAX).max(1))
}

fn cursors(target: &Target, session: &Session) {
    goes_on_from_cursors(target, &session.id, &session.live);
}

/// Panics unless the stream of the session gives the rest of these frames from cursors all over them.
pub(crate) fn goes_on_from_cursors(target: &Target, session_id: &str, live: &[Frame]) {
    for place in places(live) {
        let (after, rest) = (id(&live[place - 1]), &live[place..]);
        let path =
            format!("{}?control=false&after_seq={after}&limit={}", events(session_id), rest.len());
        same(&target.stream(&path, &[]).rest(target.patience), rest);
    }
}

fn reconnects(target: &Target, session: &Session) {
    // A turn runs meanwhile, so that breaks fall between what is stored and what comes.
    let turn_id = target.start_turn(&session.id, &session.prompt);
    let path = format!("{}?control=false", session.stream());
    let step = (session.live.len() / CURSORS_MAX).max(3);
    let mut seen: Vec<Frame> = Vec::new();
    let is_over = |seen: &[Frame]| seen.last().is_some_and(|frame| is_end_of(frame, &turn_id));
    while !is_over(&seen) {
        let last = seen.last().and_then(|frame| frame.id.clone());
        let header = last.as_deref().map(|id| ("Last-Event-ID", id));
        let mut stream = target.stream(&path, header.as_slice());
        for _ in 0..step {
            seen.push(stream.expect(target.patience));
            if is_over(&seen) {
                break;
            }
        }
        // Dropped in the middle of what the server sends.
    }
    same(&seen[..session.live.len()], &session.live);
    is_replayed(target, &session.id, &seen);
}

fn slow_reader(target: &Target, session: &Session) {
    let path = format!("{}?control=false", session.stream());
    // Many readers that take one event and then nothing, while another one reads all.
    let mut slow: Vec<_> = (0..8).map(|_| target.stream(&path, &[])).collect();
    let firsts: Vec<Frame> = slow.iter_mut().map(|stream| stream.expect(target.patience)).collect();
    is_replayed(target, &session.id, &session.live);
    for (mut stream, first) in slow.into_iter().zip(firsts) {
        let mut seen = vec![first];
        while !session.is_last(&seen[seen.len() - 1]) {
            match stream.next(target.patience) {
                Some(frame) => seen.push(frame),
                // Cut off for its slowness: it comes back with its cursor.
                None => {
                    assert!(stream.end().is_some(), "nothing came for {:?}", target.patience);
                    let last = seen[seen.len() - 1].id.clone().unwrap_or_default();
                    stream = target.stream(&path, &[("Last-Event-ID", &last)]);
                }
            }
        }
        same(&seen, &session.live);
    }
}

fn control(target: &Target, session: &Session) {
    let head_of =
        |frame: &Frame| frame.json()["head"].as_i64().unwrap_or_else(|| panic!("{frame:?}"));
    let last = id(&session.live[session.live.len() - 1]);
    for (query, resume, count) in [
        ("".to_owned(), "start", None),
        (format!("?after_seq={}", last - 1), "ok", None),
        ("?after_seq=latest".to_owned(), "ok", Some(0)),
    ] {
        let mut stream = target.stream(&format!("{}{query}", session.stream()), &[]);
        let frames = stream.until("stream.caught_up", target.patience);
        assert_eq!(stream.retry_ms(), Some(1000), "retry is said first");
        let (opened, caught_up) = (&frames[0], &frames[frames.len() - 1]);
        assert_eq!(opened.event, "stream.opened");
        assert_eq!(opened.json()["resume"], resume, "{opened:?}");
        assert_eq!(opened.json()["oldest"], 1, "{opened:?}");
        assert!(head_of(opened) >= last, "{opened:?}, but {last} was seen");
        assert!(head_of(caught_up) >= head_of(opened), "{caught_up:?} after {opened:?}");
        assert!(opened.id.is_none() && caught_up.id.is_none(), "control frames have no id");
        let between = &frames[1..frames.len() - 1];
        assert!(between.iter().all(|frame| frame.id.is_some()), "{between:?}");
        assert!(count.is_none_or(|count| between.len() == count), "{between:?}");
        // Said once.
        let next = stream.next(Duration::from_millis(100));
        assert!(next.as_ref().is_none_or(|frame| frame.id.is_some()), "{next:?}");
    }
}

fn last_event_id(target: &Target, session: &Session) {
    let path = format!("{}?control=false&limit=1&after_seq=0", session.stream());
    let frame = target.stream(&path, &[("Last-Event-ID", "2")]).expect(target.patience);
    assert_eq!(id(&frame), 3);
    for bad in ["x", "-1", "1.5", "evt_1"] {
        let reply = target.send("GET", &path, &[("Last-Event-ID", bad)], b"").expect(400);
        assert_eq!(reply.json()["code"], "bad_request", "{reply}");
    }
}

fn cursor_ahead(target: &Target, session: &Session) {
    let path = format!("{}?after_seq=999999999999", session.stream());
    let reply = target.get(&path).expect(409);
    let body = reply.json();
    assert_eq!(body["code"], "cursor_ahead", "{reply}");
    let head = body["head"].as_i64().unwrap_or_else(|| panic!("no head: {reply}"));
    assert!(head >= id(&session.live[session.live.len() - 1]), "{reply}");
}

fn ndjson(target: &Target, session: &Session) {
    let path = format!("{}?limit={}", session.stream(), session.live.len());
    let text = target.send("GET", &path, NDJSON, b"").expect(200);
    assert_eq!(text.header("content-type"), Some("application/x-ndjson"));
    let text = text.text();
    let lines: Vec<&str> = text.lines().filter(|line| !line.is_empty()).collect();
    let data: Vec<&str> = session.live.iter().map(|frame| frame.data.as_str()).collect();
    assert_eq!(lines.len(), data.len());
    assert!(lines == data, "the records differ");
}

fn ends(target: &Target, session: &Session) {
    let path = format!("{}?control=false", session.stream());
    for limit in [0, 1, 2, session.live.len()] {
        let frames = target.stream(&format!("{path}&limit={limit}"), &[]).rest(target.patience);
        same(&frames, &session.live[..limit]);
    }
    for until in ["turn.started", "item.*", "turn.completed,turn.failed,turn.interrupted"] {
        let is_last = |frame: &Frame| {
            until.split(',').any(|word| match word.strip_suffix('*') {
                Some(family) => frame.event.starts_with(family),
                None => frame.event == word,
            })
        };
        let place = session.live.iter().position(is_last);
        let place = place.unwrap_or_else(|| panic!("the log has nothing of {until}"));
        let frames = target.stream(&format!("{path}&until={until}"), &[]).rest(target.patience);
        same(&frames, &session.live[..=place]);
    }
}

fn filters(target: &Target, session: &Session) {
    type Wanted<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
    let second = &session.turns[1];
    let cases: [(String, Wanted); 4] = [
        ("kinds=turn.*".to_owned(), Box::new(|event| word(event, "kind").starts_with("turn."))),
        (
            "kinds=item.completed,turn.started".to_owned(),
            Box::new(|event| ["item.completed", "turn.started"].contains(&word(event, "kind"))),
        ),
        ("critical_only=true".to_owned(), Box::new(|event| event["criticality"] == "critical")),
        (format!("turn_id={second}"), Box::new(|event| event["turn_id"] == second.as_str())),
    ];
    for (query, is_wanted) in cases {
        let expected: Vec<Frame> =
            session.live.iter().filter(|frame| is_wanted(&frame.json())).cloned().collect();
        assert!(!expected.is_empty(), "the log has nothing for {query}");
        let path = format!("{}?control=false&{query}&limit={}", session.stream(), expected.len());
        same(&target.stream(&path, &[]).rest(target.patience), &expected);
        let listed = target.listed(&session.id, &query);
        let wanted: Vec<Record> = expected.iter().map(Frame::record).collect();
        assert!(listed.starts_with(&wanted), "the list differs for {query}");
        let others: Vec<&Record> =
            listed.iter().filter(|record| !is_wanted(&record.json)).collect();
        assert!(others.is_empty(), "the list for {query} has {others:?}");
    }
}

fn word<'a>(event: &'a Value, name: &str) -> &'a str {
    event[name].as_str().unwrap_or_default()
}
