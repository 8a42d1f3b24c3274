//! `ledger`: appends through [`Ledger`] against a bare loop of SQLite inserts.
//!
//! The bare loop has the same file system, schema, columns and values, pragmas but for its checkpoints,
//! which it makes itself, and as many rows in a transaction as the ledger had on average. What is left
//! between the two is what group commit, the waiting callers and the frame for the streams cost, and
//! what a thread for checkpoints saves.

use crate::report::{Report, Target};
use gooselake::ledger::event::NewEvent;
use gooselake::ledger::{Ledger, Synchronous};
use gooselake::model::ScopeKind;
use gooselake::model::event::EventKind;
use gooselake_harness::proc;
use gooselake_harness::temp::TempDir;
use gooselake_harness::thread;
use rusqlite::{Connection, params};
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const PRODUCERS: &[usize] = &[1, 8, 32, 128];
/// The number of producers that the target is about.
const TARGET_PRODUCERS: usize = 32;
const PAYLOAD_BYTES: usize = 300;
/// The two take turns in slices of this length, so that a disk or a CPU that others use for a while is
/// not the one's misfortune alone.
const SLICE: Duration = Duration::from_millis(500);
const SLICES: usize = 3;
/// For what is judged: from one slice to the next the ratio moves by several points.
const TARGET_SLICES: usize = 10;
const TURN_ID: &str = "turn_0190b5d0a1b27c3d8e4f5a6b7c8d9e0f";

/// Work done, in sum over slices.
#[derive(Default)]
struct Work {
    rows: f64,
    commits: f64,
    secs: f64,
    /// CPU time of this process, in which both run.
    cpu_ms: f64,
}

impl Work {
    fn add(&mut self, other: &Work) {
        self.rows += other.rows;
        self.commits += other.commits;
        self.secs += other.secs;
        self.cpu_ms += other.cpu_ms;
    }

    fn rows_per_s(&self) -> f64 {
        self.rows / self.secs
    }

    fn cpu_us_per_row(&self) -> f64 {
        self.cpu_ms * 1000.0 / self.rows
    }

    /// How many rows a transaction had on average.
    fn batch(&self) -> usize {
        ((self.rows / self.commits).round() as usize).max(1)
    }
}

pub(crate) fn run(report: &mut Report) {
    for (synchronous, name) in [(Synchronous::Full, "full"), (Synchronous::Normal, "normal")] {
        for producers in PRODUCERS.iter().copied() {
            let (mut ledger, mut bare) = (Work::default(), Work::default());
            let (slices, target) = match producers {
                TARGET_PRODUCERS => (TARGET_SLICES, Target::AtLeast(80.0)),
                _ => (SLICES, Target::None),
            };
            for _ in 0..slices {
                ledger.add(&through_ledger(synchronous, producers));
                bare.add(&without_ledger(synchronous, producers, ledger.batch()));
            }
            let what = format!("{name}, {producers} producers, {} rows a commit", ledger.batch());
            report.figure(&format!("{what}: ledger"), ledger.rows_per_s(), "/s", Target::None);
            report.figure("… bare loop", bare.rows_per_s(), "/s", Target::None);
            let ratio = ledger.rows_per_s() / bare.rows_per_s() * 100.0;
            report.figure("… ledger of bare", ratio, "%", target);
            let (ledger, bare) = (ledger.cpu_us_per_row(), bare.cpu_us_per_row());
            report.line(&format!("    CPU for one row: ledger {ledger:.1} us, bare {bare:.1} us"));
        }
    }
}

/// An object of the wanted size.
pub(crate) fn payload() -> String {
    let frame = "{\"text\":\"\"}".len();
    format!("{{\"text\":\"{}\"}}", "x".repeat(PAYLOAD_BYTES - frame))
}

fn scope_id(producer: usize) -> String {
    format!("sess_0190b5d0a1b27c3d8e4f5a6b7c8d{producer:04x}")
}

fn through_ledger(synchronous: Synchronous, producers: usize) -> Work {
    let folder = TempDir::new("gooselake-bench");
    let (ledger, writer) = open(folder.path(), synchronous);
    let gate = Arc::new(Barrier::new(producers + 1));
    let threads: Vec<_> = (0..producers)
        .map(|producer| {
            let (ledger, gate) = (ledger.clone(), Arc::clone(&gate));
            let body = move || produce(&ledger, producer, &gate);
            thread::spawn(format!("producer-{producer}"), body).expect("a thread")
        })
        .collect();
    gate.wait();
    let (begun, cpu_ms) = (Instant::now(), own_cpu_ms());
    let rows: u64 = threads.into_iter().map(thread::Thread::join).sum();
    let (secs, cpu_ms) = (begun.elapsed().as_secs_f64(), own_cpu_ms() - cpu_ms);
    let commits = ledger.counters().commits.load(Ordering::Relaxed) as f64;
    drop(ledger);
    assert!(writer.join(), "the writer has panicked");
    Work { rows: rows as f64, commits, secs, cpu_ms }
}

fn own_cpu_ms() -> f64 {
    proc::cpu_ms(std::process::id()) as f64
}

fn open(folder: &Path, synchronous: Synchronous) -> (Ledger, gooselake::thread::Thread) {
    Ledger::open(&folder.join("log.sqlite3"), synchronous).expect("a fresh database opens")
}

/// Appends one event after the other until the time is over.
fn produce(ledger: &Ledger, producer: usize, gate: &Barrier) -> u64 {
    let scope_id: Arc<str> = scope_id(producer).into();
    let payload = payload();
    gate.wait();
    let end = Instant::now() + SLICE;
    let mut appends = 0;
    while Instant::now() < end {
        let (scope_id, payload) = (Arc::clone(&scope_id), payload.clone());
        let offset = i64::try_from(appends).expect("a few seconds' work");
        let appended = ledger.write(move |tx| {
            let event = NewEvent::session(&scope_id, EventKind::ItemDelta, payload.as_str());
            tx.append(event.turn(TURN_ID).provider(Some(("demo", offset))))
        });
        appended.expect("the event is committed");
        appends += 1;
    }
    appends
}

/// The same rows by the shortest way.
fn without_ledger(synchronous: Synchronous, scopes: usize, rows: usize) -> Work {
    let folder = TempDir::new("gooselake-bench");
    // The ledger makes the schema, so that it cannot differ.
    let (ledger, writer) = open(folder.path(), synchronous);
    drop(ledger);
    assert!(writer.join(), "the writer has panicked");
    let connection = Connection::open(folder.path().join("log.sqlite3")).expect("it was made");
    insert_until(&connection, synchronous, scopes, rows).expect("the rows are taken")
}

fn insert_until(
    connection: &Connection,
    synchronous: Synchronous,
    scopes: usize,
    rows: usize,
) -> rusqlite::Result<Work> {
    let synchronous = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    // As src/ledger/schema.rs sets them, but that it moves its pages itself, as SQLite does.
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA foreign_keys = ON;
         PRAGMA temp_store = MEMORY; PRAGMA cache_size = -2048; PRAGMA mmap_size = 0;
         PRAGMA wal_autocheckpoint = 4000; PRAGMA journal_size_limit = 33554432;"
    ))?;
    for scope in 0..scopes {
        connection.execute(
            "INSERT INTO scope (kind, scope_id) VALUES (?1, ?2)",
            params![ScopeKind::Session.as_str(), scope_id(scope)],
        )?;
    }
    let mut insert = connection.prepare(
        "INSERT INTO event (row_id, scope_key, seq, kind, droppable, session_id, team_id,
             turn_id, payload, provider, provider_seq, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?;
    let (mut begin, mut commit) =
        (connection.prepare("BEGIN IMMEDIATE")?, connection.prepare("COMMIT")?);
    let payload = payload();
    let none: Option<&str> = None;
    let scopes = i64::try_from(scopes).expect("a small number");
    let (begun, cpu_ms) = (Instant::now(), own_cpu_ms());
    let mut row_id = 0i64;
    while begun.elapsed() < SLICE {
        begin.execute([])?;
        for _ in 0..rows {
            row_id += 1;
            let (scope_key, seq) = (row_id % scopes + 1, row_id / scopes + 1);
            insert.execute(params![
                row_id,
                scope_key,
                seq,
                EventKind::ItemDelta.as_str(),
                true,
                none,
                none,
                TURN_ID,
                payload,
                "demo",
                row_id,
                1_780_000_000_000i64,
            ])?;
        }
        commit.execute([])?;
    }
    let (secs, cpu_ms) = (begun.elapsed().as_secs_f64(), own_cpu_ms() - cpu_ms);
    let written = row_id as f64;
    Ok(Work { rows: written, commits: written / rows as f64, secs, cpu_ms })
}
