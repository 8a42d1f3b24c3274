//! `replay`: a long log, read back from its start, and a start on top of it.
//!
//! The log is made through [`Ledger`] before the server starts: 1,000,000 events of 300 bytes, 200,000
//! of them in the session that is replayed. Beside it stands a log of 1,000: memory must be the same.

use crate::ledger::payload;
use crate::raw::Peer;
use crate::report::{Report, Target};
use crate::rig::{Rig, STARTS};
use gooselake::ledger::event::NewEvent;
use gooselake::ledger::session::NewSession;
use gooselake::ledger::{Ledger, Synchronous};
use gooselake::model::event::EventKind;
use gooselake_harness::temp::TempDir;
use gooselake_harness::thread;
use std::fs;
use std::path::Path;
use std::sync::{Arc, Barrier};
use std::time::Instant;

const SESSION: &str = "sess_0190b5d0a1b27c3d8e4f5a6b7c8d9e0f";
const OTHER: &str = "sess_0190b5d0a1b27c3d8e4f5a6b7c8d9e10";
const TURN: &str = "turn_0190b5d0a1b27c3d8e4f5a6b7c8d9e0f";
const REPLAYED: usize = 200_000;
const ALL: usize = 1_000_000;
const SHORT: usize = 1000;
/// Memory that moves by less than this from run to run is the same.
const SAME_KIB: f64 = 1024.0;
/// Events in one write of the preparation.
const BATCH: usize = 1000;
const CLIENTS: &[usize] = &[1, 4];
/// What the peak of memory may be above the start: streams hold a page and a buffer, not history.
const GROWTH_KIB: f64 = 8192.0;

pub(crate) fn run(report: &mut Report) {
    let short = memory(SHORT);
    let folder = TempDir::new("gooselake-bench");
    let data = folder.path().join("data");
    prepare(&data, ALL);
    let mut rig = Rig::start_on(Some(data));
    let fresh = rig.server.rss_kib() as f64;
    for clients in CLIENTS.iter().copied() {
        replay(report, &rig, clients);
    }
    read_all(&rig.peer(), REPLAYED);
    let long = Memory { fresh, used: rig.server.rss_kib() as f64 };
    let what = format!("RSS with {ALL} events beside {SHORT}, fresh");
    let same = Target::AtMost(SAME_KIB);
    report.figure(&what, long.fresh - short.fresh, "KiB more", same);
    report.figure("… after a replay", long.used - short.used, "KiB more", Target::None);
    let what = format!("process start to GET /ready, {ALL} events, best of {STARTS}");
    report.figure(&what, rig.best_start_ms(), "ms", Target::AtMost(100.0));
}

/// Of the server, in KiB.
struct Memory {
    fresh: f64,
    /// After a replay.
    used: f64,
}

/// What a server with so many events has.
fn memory(events: usize) -> Memory {
    let folder = TempDir::new("gooselake-bench");
    let data = folder.path().join("data");
    prepare(&data, events);
    let rig = Rig::start_on(Some(data));
    let fresh = rig.server.rss_kib() as f64;
    read_all(&rig.peer(), events / 5);
    Memory { fresh, used: rig.server.rss_kib() as f64 }
}

/// A log of so many events, a fifth of them in [`SESSION`].
pub(crate) fn prepare(data: &Path, events: usize) {
    fs::create_dir_all(data).expect("a folder in the temporary one");
    let (ledger, writer) = Ledger::open(&data.join("runtime.sqlite3"), Synchronous::Normal)
        .expect("a fresh database opens");
    for (session_id, events) in [(SESSION, events / 5), (OTHER, events - events / 5)] {
        let made = ledger.write(move |tx| tx.insert_session(&session(session_id)));
        made.expect("the session is new");
        for begin in (0..events).step_by(BATCH) {
            let appended = ledger.write(move |tx| {
                for offset in begin..events.min(begin + BATCH) {
                    let event = NewEvent::session(session_id, EventKind::ItemDelta, payload());
                    let offset = i64::try_from(offset).unwrap_or(0);
                    tx.append(event.turn(TURN).provider(Some(("demo", offset))))?;
                }
                Ok(())
            });
            appended.expect("the events are taken");
        }
    }
    drop(ledger);
    assert!(writer.join(), "the writer has panicked");
}

/// A session that nobody has opened yet; its agent is never started.
fn session(session_id: &str) -> NewSession {
    NewSession {
        session_id: session_id.to_owned(),
        provider: "demo".to_owned(),
        agent: "default".to_owned(),
        title: None,
        cwd: None,
        agent_cwd: "/".to_owned(),
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
        system_prompt: None,
        metadata: "{}".to_owned(),
        env: "{}".to_owned(),
        mcp_servers: "[]".to_owned(),
    }
}

fn replay(report: &mut Report, rig: &Rig, clients: usize) {
    let before = rig.server.rss_kib() as f64;
    let gate = Arc::new(Barrier::new(clients + 1));
    let threads: Vec<_> = (0..clients)
        .map(|_| {
            let (peer, gate) = (rig.peer(), Arc::clone(&gate));
            let body = move || {
                gate.wait();
                read_all(&peer, REPLAYED);
            };
            thread::spawn("reader", body).expect("a thread")
        })
        .collect();
    gate.wait();
    let begun = Instant::now();
    threads.into_iter().for_each(thread::Thread::join);
    let events = (clients * REPLAYED) as f64;
    let per_s = events / begun.elapsed().as_secs_f64();
    let what = format!("{clients} clients, {REPLAYED} events each");
    let target = if clients == 1 { Target::AtLeast(300_000.0) } else { Target::None };
    report.figure(&format!("{what}, all together"), per_s, "/s", target);
    let growth = peak_kib(rig.pid()) - before;
    report.figure("… peak RSS above the start", growth, "KiB", Target::AtMost(GROWTH_KIB));
}

/// Reads the log from its start; an event has four lines, and the last id must be the last event's.
pub(crate) fn read_all(peer: &Peer, events: usize) {
    let path = format!("/v1/sessions/{SESSION}/events/stream?control=false&limit={events}");
    // Two lines (`retry`) stand before the first event.
    let wanted = events * 4 + 2;
    let mut lines = 0;
    let mut last = Vec::new();
    peer.events(&path).drain(|bytes| {
        lines += bytes.iter().filter(|byte| **byte == b'\n').count();
        last.extend_from_slice(bytes);
        last.drain(..last.len().saturating_sub(4096));
        lines < wanted
    });
    assert_eq!(lines, wanted, "every event comes once");
    let text = String::from_utf8_lossy(&last);
    assert!(text.contains(&format!("id: {events}\n")), "the last event is the last one");
}

fn peak_kib(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|text| text.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
