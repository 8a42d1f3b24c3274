//! The power goes: what is promised of the database then, for both values of `data.synchronous`.
//!
//! Owns: the load, and what is checked of each disk. A server runs with the library of `gooselake_harness::fault`; it
//! writes down what it writes and syncs; `disk` says what a disk may hold at a moment in that trace: what was synced,
//! and any part of the rest, in any order, sectors torn. A client notes how long the trace is whenever it is told
//! something. So a disk that lacks what was told before its moment is a promise broken. `CUTS` says how many moments
//! are looked at, `GG_TEST_SEED` repeats their choice.

mod disk;

use crate::stage::{SOON, list, text};
use disk::{Disk, Place, Trace};
use gooselake::limits;
use gooselake_harness::fault::Fault;
use gooselake_harness::rng::Rng;
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::stream::Record;
use gooselake_harness::temp::TempDir;
use gooselake_harness::thread::{self, Thread};
use rusqlite::{Connection, OpenFlags};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

/// Moments that are looked at, and in how many of them a server is started too.
const CUTS: u64 = 40;
const STARTS: u64 = 6;

/// Turns of each client in a life.
const TURNS: usize = 40;

/// Rows at the end of the log that a server which starts on a disk is asked for.
const LAST_ROWS: i64 = 500;

/// What the write-ahead log may hold between two checkpoints, in frames: the bound of the server, and one commit more.
const FRAMES_MAX: usize = limits::WAL_PAGES_MAX + 500;
const FRAME_BYTES: usize = 4096 + 24;

/// Something that a client was told: the row of the event that says so, and the trace at that time.
struct Told {
    row_id: i64,
    place: Place,
}

/// What a run of the server has left.
struct Past {
    fault: Arc<Fault>,
    lives: u64,
    log: Vec<Record>,
    told: Vec<Told>,
}

/// What a loss of power has left of the log.
struct Left {
    newest: i64,
    lost: i64,
    is_promise_broken: bool,
    /// The most bytes of the write-ahead log that were not synced, since the moment before this one.
    log_bytes_at_risk: usize,
}

#[test]
fn with_synchronous_full_what_was_acknowledged_survives_a_loss_of_power() {
    let past = live("full");
    for left in lose_power(&past) {
        assert!(!left.is_promise_broken, "up to {} of what was told is left", left.newest);
    }
}

#[test]
fn with_synchronous_normal_a_loss_of_power_takes_the_last_commits_and_leaves_a_whole_database() {
    let past = live("normal");
    let left: Vec<Left> = lose_power(&past).collect();
    // Were it not so, nothing here could tell a promise that is kept from one that is not.
    assert!(left.iter().any(|left| left.is_promise_broken), "normal lost nothing");
    let most = left.iter().map(|left| left.lost).max().unwrap_or(0);
    assert!(most < i64::try_from(past.log.len()).unwrap(), "all of it was lost");
    let at_risk = left.iter().map(|left| left.log_bytes_at_risk).max().unwrap_or(0);
    assert!(at_risk <= FRAMES_MAX * FRAME_BYTES, "{at_risk} bytes of the log could be lost");
}

/// Three lives of a server: one is killed, one is told to end, one sees the power go.
fn live(synchronous: &str) -> Past {
    let fault = Arc::new(Fault::new());
    let folder = TempDir::new("gg-power");
    let data_dir = folder.path().join("data");
    let options = Options {
        config_toml: format!("[data]\nsynchronous = \"{synchronous}\"\n"),
        env: fault.env_with_trace(&data_dir, &data_dir.join("runtime.sqlite3")),
        data_dir: Some(data_dir),
        ..Options::default()
    };
    let mut server = Server::start(options);
    fault.check_loaded();
    let (mut log, mut told): (Vec<Record>, Vec<Told>) = (Vec::new(), Vec::new());
    for life in 0..3 {
        if life > 0 {
            server.restart();
        }
        let after = log.last().map_or(0, |record| record.row_id);
        let watch = watch(&server, &fault, life, after);
        let clients: Vec<Thread<Vec<(String, Place)>>> =
            (0..3).map(|number| client(&server, &fault, life, number)).collect();
        let replies: Vec<_> = clients.into_iter().flat_map(Thread::join).collect();
        match life {
            1 => assert_eq!(server.terminate(), Some(0), "{}", server.stderr_text()),
            _ => server.kill9(),
        }
        let (records, seen) = watch.join();
        log.extend(records);
        told.extend(seen);
        for (turn_id, place) in replies {
            let first = log.iter().find(|record| record.json["turn_id"] == turn_id.as_str());
            // A stream that was cut by a kill may not have told of it; then it told nobody.
            told.extend(first.map(|record| Told { row_id: record.row_id, place }));
        }
    }
    assert_eq!(fault.get(gooselake_harness::fault::Number::Loaded), 3, "one library for each life");
    drop(server);
    assert!(log.iter().map(|record| record.row_id).eq(1..=row(log.len())), "the log has holes");
    Past { fault, lives: 3, log, told }
}

/// Reads all events of a life, and how long the trace was at each.
fn watch(
    server: &Server,
    fault: &Arc<Fault>,
    life: u64,
    after: i64,
) -> Thread<(Vec<Record>, Vec<Told>)> {
    let fault = Arc::clone(fault);
    let path = format!("/v1/events/stream?control=false&after_seq={after}");
    let mut stream = server.client().stream(&path, &[]);
    let body = move || {
        let (mut records, mut told) = (Vec::new(), Vec::new());
        while let Some(frame) = stream.next(SOON) {
            let record = frame.record();
            told.push(Told { row_id: record.row_id, place: here(&fault, life) });
            records.push(record);
        }
        (records, told)
    };
    thread::spawn("watch", body).expect("a thread")
}

/// A session that talks and runs commands; gives the turns that were acknowledged, and when.
fn client(
    server: &Server,
    fault: &Arc<Fault>,
    life: u64,
    number: usize,
) -> Thread<Vec<(String, Place)>> {
    let (client, fault) = (server.client(), Arc::clone(fault));
    let cwd = server.folder().to_owned();
    let body = move || {
        let mut told = Vec::new();
        let made = json!({"provider": "demo", "cwd": cwd, "mode": "auto"});
        let session = text(&client.post("/v1/sessions", &made).expect(200).json(), "id");
        for turn in 0..TURNS {
            let prompt = match (turn + number) % 4 {
                0 => "flood 200 400".to_owned(),
                1 => "slow 15 1".to_owned(),
                2 => "run echo hello".to_owned(),
                _ => format!("say {turn}"),
            };
            let path = format!("/v1/sessions/{session}/turns");
            let reply = client.post(&path, &json!({"input": [prompt]})).expect(200).json();
            let turn_id = text(&reply, "turn_id");
            told.push((turn_id.clone(), here(&fault, life)));
            let ended = client.get(&format!("{path}/{turn_id}?wait_ms=30000")).expect(200).json();
            assert_eq!(ended["status"], "completed", "{ended}");
        }
        told
    };
    thread::spawn(format!("client-{number}"), body).expect("a thread")
}

fn here(fault: &Fault, life: u64) -> Place {
    let bytes = fs::metadata(fault.trace_of(life)).map_or(0, |metadata| metadata.len());
    Place { life, bytes }
}

/// Takes the power away at many moments; each disk that is left is whole, and a beginning of the log.
fn lose_power(past: &Past) -> impl Iterator<Item = Left> {
    let mut rng = Rng::from_environment();
    let cuts = std::env::var("CUTS").ok().and_then(|text| text.parse().ok()).unwrap_or(CUTS);
    let trace = Trace::read(past.lives, |life| past.fault.trace_of(life));
    // Before the schema is there, there is nothing that anybody was told.
    let first = past.told.iter().map(|told| told.place).min().expect("something was told");
    let mut moments: Vec<usize> = (0..cuts).map(|_| trace.moment(&mut rng, first)).collect();
    moments.sort_unstable();
    let (mut disk, mut at) = (Disk::default(), 0);
    moments.into_iter().enumerate().map(move |(number, moment)| {
        let mut log_bytes_at_risk = 0;
        while at < moment {
            disk.take(&trace.records[at]);
            log_bytes_at_risk = log_bytes_at_risk.max(disk.log_bytes_at_risk());
            at += 1;
        }
        let place = trace.records[moment - 1].place;
        let folder = TempDir::new("gg-power-left");
        let data_dir = folder.path().join("data");
        disk.write_what_is_left(&data_dir, "runtime.sqlite3", &mut rng);
        let newest = verify(&data_dir, place);
        check_rows(&data_dir.join("runtime.sqlite3"), newest, &past.log);
        let step = (cuts / STARTS).max(1);
        if (number as u64).is_multiple_of(step) {
            start_on(&data_dir, newest, &past.log);
        }
        let before: Vec<&Told> = past.told.iter().filter(|told| told.place <= place).collect();
        let promised = before.iter().map(|told| told.row_id).max().unwrap_or(0);
        let lost = (promised - newest).max(0);
        Left { newest, lost, is_promise_broken: lost > 0, log_bytes_at_risk }
    })
}

/// The number of the last of so many rows.
fn row(count: usize) -> i64 {
    i64::try_from(count).expect("it is a count")
}

/// The built server's own judgement; gives where the log ends.
fn verify(data_dir: &Path, place: Place) -> i64 {
    let program = program("GG_TEST_SERVER", "gg-runtime-server").expect("it is built");
    let mut command = Command::new(program);
    command.args(["verify", "--json", "--data-dir"]).arg(data_dir).env("HOME", data_dir);
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&told).unwrap_or_else(|error| {
        panic!("{place:?}: {error}: {told}{}", String::from_utf8_lossy(&output.stderr))
    });
    let findings = list(report["findings"].clone());
    for finding in &findings {
        // The files are ours, with the modes of a test.
        assert!(finding["level"] != "fail" || finding["check"] == "modes", "{place:?}: {told}");
    }
    let log = findings.iter().find(|finding| finding["check"] == "log").expect("it tells the log");
    let message = text(log, "message");
    message.rsplit(' ').next().and_then(|number| number.parse().ok()).expect("a number")
}

/// The log on a disk is a beginning of the one that was told, row by row, and the turns are as it tells of them.
fn check_rows(database: &Path, newest: i64, log: &[Record]) {
    let database = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY);
    let database = database.expect("it is whole");
    let sql = "SELECT json_object('row_id', row_id, 'scope', scope.kind, 'scope_id', scope_id,
             'seq', seq, 'kind', event.kind, 'turn_id', turn_id, 'created_at', created_at,
             'payload', json(payload))
         FROM event JOIN scope USING (scope_key) ORDER BY row_id";
    let mut count = 0;
    for kept in texts(&database, sql) {
        let kept: Value = serde_json::from_str(&kept).expect("it is an object");
        // What came last before a death may have been told to nobody.
        if let Some(told) = log.get(count) {
            for (name, value) in kept.as_object().expect("it is an object") {
                assert_eq!(*value, told.json[name], "{name} is another: {kept}");
            }
        }
        count += 1;
        assert_eq!(kept["row_id"], count, "a hole or a double");
    }
    assert_eq!(row(count), newest);
    let turns = |condition: &str| {
        texts(&database, &format!("SELECT turn_id FROM turn WHERE {condition} ORDER BY turn_id"))
    };
    let told = |kinds: &str| {
        let sql = format!("SELECT turn_id FROM event WHERE kind IN ({kinds}) ORDER BY turn_id");
        texts(&database, &sql)
    };
    assert_eq!(turns("true"), told("'turn.started'"));
    let ends = "'turn.completed', 'turn.failed', 'turn.interrupted'";
    assert_eq!(turns("completed_at IS NOT NULL"), told(ends));
}

fn texts(database: &Connection, sql: &str) -> Vec<String> {
    let mut statement = database.prepare(sql).expect("our own statement");
    let rows = statement.query_map([], |row| row.get(0)).expect("it is whole");
    rows.collect::<Result<_, _>>().expect("texts")
}

/// A server starts on what is left, tells the same log as before up to its end, and works.
fn start_on(data_dir: &Path, newest: i64, log: &[Record]) {
    let options = Options { data_dir: Some(data_dir.to_owned()), ..Options::default() };
    let server = Server::start(options);
    let client = server.client();
    let after = (newest - LAST_ROWS).max(0);
    let events = client.get(&format!("/v1/events?limit={LAST_ROWS}&after_seq={after}"));
    let kept = list(events.expect(200).json()).into_iter().map(Record::new);
    // The new server tells of its start.
    let kept: Vec<Record> = kept.filter(|record| record.row_id <= newest).collect();
    assert!(kept.iter().map(|record| record.row_id).eq(after + 1..=newest), "it lacks some");
    let told = log.iter().skip_while(|record| record.row_id <= after);
    for (kept, told) in kept.iter().zip(told) {
        assert_eq!(kept.json, told.json, "the log is another");
    }
    let body = json!({"provider": "demo", "cwd": server.folder()});
    let session = text(&client.post("/v1/sessions", &body).expect(200).json(), "id");
    let path = format!("/v1/sessions/{session}/turns?wait=true&timeout_ms=30000");
    let turn = client.post(&path, &json!({"input": ["say on"]})).expect(200).json();
    assert_eq!(turn["assistant_text"], "on", "{turn}");
}
