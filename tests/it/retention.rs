//! What is forgotten by age, what a stream makes of it, and a database that may not grow.

mod team;

use crate::command::run_on;
use crate::stage::{SOON, Stage, check_told, records, text};
use gooselake_harness::wait;
use rusqlite::{Connection, params};
use serde_json::json;

/// All that is finished is old.
const AT_ONCE: &str = "[events]\ndelta_retention_hours = 0\n";

#[test]
fn deltas_of_finished_items_go_and_a_stream_passes_over_them() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    stage.run(&session_id, "slow 20 1");
    let transcript = stage.get(&format!("/v1/sessions/{session_id}/transcript"));
    let before = stage.events(&session_id);
    let is_delta = |kind: &str| kind == "item.delta";
    let last_delta = before.iter().filter(|event| is_delta(&event.kind)).map(|event| event.seq);
    let last_delta = last_delta.max().unwrap();
    // An item that is open stays whole: its deltas are all there is of it.
    let busy = stage.session();
    let turn_id = stage.start(&busy, "slow 1000 10");
    stage.event(&busy, "item.delta", 0);

    stage.server.set_config(AT_ONCE);
    stage.restart();
    let after = wait::until(SOON, "the deltas are gone", || {
        let events = stage.events(&session_id);
        (!events.iter().any(|event| is_delta(&event.kind))).then_some(events)
    });
    let kept: Vec<i64> =
        before.iter().filter(|event| !is_delta(&event.kind)).map(|event| event.seq).collect();
    let seqs: Vec<i64> = after.iter().map(|event| event.seq).collect();
    assert!(seqs.starts_with(&kept), "{kept:?} then the restart, but {seqs:?}");
    assert_eq!(stage.get(&format!("/v1/sessions/{session_id}/transcript")), transcript);
    assert!(stage.events(&busy).iter().any(|event| is_delta(&event.kind)));
    run_on(stage.server.data_dir(), &["verify"]).expect(0);

    for (cursor, resume) in [(last_delta - 1, "pruned"), (last_delta, "ok")] {
        let query = format!("?after_seq={cursor}&until=turn.completed");
        let frames = stage.stream(&session_id, &query).rest(SOON);
        let opened = frames.iter().find(|frame| frame.event == "stream.opened").unwrap();
        assert_eq!(opened.json()["resume"], resume, "from {cursor}");
        let seqs: Vec<i64> = records(&frames).iter().map(|record| record.seq).collect();
        assert!(seqs.iter().all(|seq| kept.contains(seq) && *seq > cursor), "{seqs:?}");
    }
    stage.interrupt(&busy, &turn_id).expect(202);
    assert!(text(&stage.ended(&busy, &turn_id), "assistant_text").starts_with("1 2 3 "));
}

#[test]
fn a_session_that_was_closed_long_ago_goes_whole_and_the_others_stay() {
    let mut stage = Stage::with_config("[sessions]\nretention_days = 7\n");
    let old = stage.session();
    // More than one step takes.
    stage.run(&old, "slow 400 1");
    let young = stage.session();
    stage.run(&young, "say young");
    let open = stage.session();
    stage.run(&open, "say open");
    stage.close(&old);
    stage.close(&young);
    // The agent's own memory of a conversation.
    let states = stage.server.data_dir().join("providers/demo");
    assert!(states.join(&old).is_dir());
    stage.server.terminate();
    let days = |days: i64| days * 24 * 3600 * 1000;
    for (session_id, age) in [(&old, days(8)), (&young, days(6)), (&open, days(9))] {
        let database = Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap();
        let sql = "UPDATE session SET closed_at = closed_at - ?2, created_at = created_at - ?2
                   WHERE session_id = ?1";
        assert_eq!(database.execute(sql, params![session_id, age]).unwrap(), 1);
    }
    stage.server.restart();
    stage.client = crate::contract::client(&stage.server);
    wait::until(SOON, "the old session is gone", || {
        let reply = stage.client.get(&format!("/v1/sessions/{old}"));
        (reply.status == 404).then_some(())
    });
    assert_eq!(stage.client.get(&format!("/v1/sessions/{old}/events")).status, 404);
    assert!(!states.join(&old).exists());
    for session_id in [&young, &open] {
        assert!(!stage.events(session_id).is_empty());
        assert!(states.join(session_id).is_dir());
    }
    run_on(stage.server.data_dir(), &["verify"]).expect(0);
}

#[test]
fn a_full_database_refuses_new_work_is_read_and_takes_work_again() {
    let stage = Stage::with_config("[data]\nmax_database_bytes = 1048576\n");
    let session_id = stage.session();
    stage.run(&session_id, "say kept");
    let transcript = stage.get(&format!("/v1/sessions/{session_id}/transcript"));
    let filler = stage.session();
    stage.run(&filler, "say filler");
    // Metadata of sessions fills it: a megabyte is soon full. Their agents start meanwhile, and may go on.
    let metadata = json!({"metadata": {"text": "x".repeat(10_000)}, "wait": false});
    let refused = (0..100)
        .map(|_| stage.post_session(&metadata, &[]))
        .find(|reply| reply.status != 200)
        .expect("a megabyte does not hold a hundred of them");
    check_told(&refused, 503, "capacity", "max_database_bytes");
    assert!(refused.header("retry-after").is_some(), "{refused}");
    // Reading and streaming go on.
    assert_eq!(stage.get(&format!("/v1/sessions/{session_id}/transcript")), transcript);
    let frames = stage.stream(&session_id, "?until=turn.completed").rest(SOON);
    assert_eq!(records(&frames).last().unwrap().kind, "turn.completed");
    // A turn is new work, too.
    let reply = stage.post_turn(&session_id, &json!({"input": ["say more"]}));
    check_told(&reply, 503, "capacity", "max_database_bytes");
    // Space comes back, and with it work.
    let sessions = stage.get("/v1/sessions");
    for session in sessions.as_array().unwrap().iter().filter(|s| !s["metadata"]["text"].is_null())
    {
        let path = format!("/v1/sessions/{}?purge=true", text(session, "id"));
        stage.client.delete(&path).expect(204);
    }
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
}
