//! `retention`: how long one step of retention holds the writer, and what another writer feels of it.
//!
//! Uses the library: a log of old deltas is made through [`Ledger`], then dropped step by step, as the housekeeper
//! does. A step is timed at its caller, so its time is the longest that a change can wait behind it. Small deltas make
//! steps of many rows, large ones of many bytes.

use crate::report::{Report, Target};
use crate::sample::Samples;
use gooselake::housekeeper::Housekeeper;
use gooselake::ledger::event::NewEvent;
use gooselake::ledger::item::NewItem;
use gooselake::ledger::session::NewSession;
use gooselake::ledger::turn::NewTurn;
use gooselake::ledger::{Ledger, Synchronous, retention};
use gooselake::model::event::EventKind;
use gooselake::model::{ItemStatus, ItemType, TurnSource, TurnStatus, id};
use gooselake_harness::temp::TempDir;
use gooselake_harness::thread;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SESSION_ID: &str = "sess_0190b5d0a1b27c3d8e4f5a6b7c8d9e0f";
const TURN_ID: &str = "turn_0190b5d0a1b27c3d8e4f5a6b7c8d9e0f";
const ITEM_ID: &str = "item_0190b5d0a1b27c3d8e4f5a6b7c8d9e0f";

/// Text of a delta, and how many of them.
const LOGS: &[(&str, usize, usize)] = &[("40 bytes", 40, 200_000), ("16 KiB", 16 * 1024, 6_000)];

/// No change waits longer behind a step.
const STEP_MS_MAX: f64 = 20.0;

pub(crate) fn run(report: &mut Report) {
    for (name, text_bytes, deltas) in LOGS {
        let folder = TempDir::new("gooselake-bench");
        let path = folder.path().join("log.sqlite3");
        let (ledger, writer) =
            Ledger::open(&path, Synchronous::Full).expect("a fresh database opens");
        fill(&ledger, *text_bytes, *deltas);
        // A third of it step by step, the rest by the housekeeper beside another writer.
        let (mut looks, mut steps) = (Samples::default(), Samples::default());
        let (mut dropped, mut after) = (0, 0);
        while dropped < deltas / 3 {
            let begun = Instant::now();
            let due = ledger
                .read(|db| retention::due_deltas(db, after, after, id::now_ms() + 1))
                .expect("the log is read");
            looks.add(begun.elapsed());
            after = due.looked_to;
            let begun = Instant::now();
            dropped += ledger
                .write(move |tx| tx.drop_deltas(&due.row_ids, due.settled_to))
                .expect("the step is committed");
            steps.add(begun.elapsed());
        }
        report.figure(
            &format!("{name}: one look, worst"),
            looks.percentile_ms(100),
            "ms",
            Target::None,
        );
        report.figure("… one step, p50", steps.percentile_ms(50), "ms", Target::None);
        report.figure(
            "… one step, worst",
            steps.percentile_ms(100),
            "ms",
            Target::AtMost(STEP_MS_MAX),
        );
        let mut alone = write_for(&ledger, Duration::from_secs(1));
        report.figure(
            "… another's change, alone, p99",
            alone.percentile_ms(99),
            "ms",
            Target::None,
        );
        report.figure("… alone, worst", alone.percentile_ms(100), "ms", Target::None);
        let house = Housekeeper {
            ledger: ledger.clone(),
            processes: None,
            delta_retention: Some(Duration::ZERO),
            session_retention: None,
            team_retention: None,
            keepers_dir: PathBuf::from("/nowhere"),
            providers_dir: PathBuf::from("/nowhere"),
        };
        let (end, ended) = crossbeam_channel::bounded(0);
        let body = move || house.keep(&ended);
        let housekeeper = thread::spawn("housekeeper", body).expect("a thread");
        let mut beside = write_for(&ledger, Duration::from_secs(1));
        drop(end);
        housekeeper.join();
        report.figure(
            "… beside the housekeeper, p99",
            beside.percentile_ms(99),
            "ms",
            Target::None,
        );
        let worst = beside.percentile_ms(100);
        report.figure("… beside it, worst", worst, "ms", Target::AtMost(STEP_MS_MAX));
        drop(ledger);
        assert!(writer.join(), "the writer has panicked");
    }
}

/// A session with one finished item, and its deltas.
fn fill(ledger: &Ledger, text_bytes: usize, deltas: usize) {
    ledger.write(|tx| insert_item(tx).map(|_key| ())).expect("the item is made");
    let text = "x".repeat(text_bytes);
    let payload = format!(r#"{{"item_id":"{ITEM_ID}","field":"text","delta":"{text}"}}"#);
    let mut left = deltas;
    while left > 0 {
        let count = left.min(500);
        let payload = payload.clone();
        let appended = ledger.write(move |tx| {
            for _ in 0..count {
                let delta = NewEvent::session(SESSION_ID, EventKind::ItemDelta, payload.clone());
                tx.append(delta.turn(TURN_ID))?;
            }
            Ok(())
        });
        appended.expect("the deltas are committed");
        left -= count;
    }
}

fn insert_item(tx: &mut gooselake::ledger::Tx<'_>) -> gooselake::error::Result<i64> {
    let text = |text: &str| text.to_owned();
    let session_key = tx.insert_session(&NewSession {
        session_id: text(SESSION_ID),
        provider: text("demo"),
        agent: text("default"),
        title: None,
        cwd: None,
        agent_cwd: text("/"),
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
        system_prompt: None,
        metadata: text("{}"),
        env: text("{}"),
        mcp_servers: text("[]"),
    })?;
    tx.insert_turn(&NewTurn {
        turn_id: TURN_ID,
        session_key,
        status: TurnStatus::InProgress,
        source: TurnSource::User,
        input: "[]",
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
        is_taken: false,
    })?;
    tx.insert_item(&NewItem {
        item_id: ITEM_ID,
        session_key,
        turn_id: TURN_ID,
        item_type: ItemType::AssistantMessage,
        status: ItemStatus::Completed,
        body: "{}",
        started_seq: 0,
        adapter_key: None,
        created_at: 0,
    })?;
    Ok(session_key)
}

/// What another writer waits for each of its changes.
fn write_for(ledger: &Ledger, time: Duration) -> Samples {
    let end = Instant::now() + time;
    let mut waits = Samples::default();
    while Instant::now() < end {
        let begun = Instant::now();
        let appended = ledger.write(|tx| {
            let event = NewEvent::session(SESSION_ID, EventKind::UsageUpdated, "{}".to_owned());
            tx.append(event)
        });
        appended.expect("the event is committed");
        waits.add(begun.elapsed());
    }
    waits
}
