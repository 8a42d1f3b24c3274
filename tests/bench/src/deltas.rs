//! `deltas`: text from an agent to one client of its stream.
//!
//! First as much as goes through (the demo agent's `flood`; the client checks that every chunk number
//! arrives once and in order), then at a steady rate of one session, and of twenty with a client each,
//! with the time from the agent's write to the client's read in each chunk.

use crate::agent::STAMP_BYTES;
use crate::raw::{self, Events, Peer};
use crate::report::{Report, Target};
use crate::rig::{self, Agent, Rig};
use crate::sample::{Samples, now_ns};
use gooselake_harness::proc;
use gooselake_harness::thread;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const CHUNKS: usize = 300_000;
const CHUNK_BYTES: usize = 40;
const RATE_HZ: usize = 1000;
const RATE_CHUNKS: usize = 5000;
/// Sessions that work at once, and what each of them writes.
const SESSIONS: usize = 20;
const SESSION_HZ: usize = 250;
const SESSION_CHUNKS: usize = 1250;

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    flood(report, &rig);
    steady(report, &rig);
    together(report, &rig);
}

fn flood(report: &mut Report, rig: &Rig) {
    let session = rig.session(Agent::Demo);
    let mut events = rig.peer().events(&rig::stream_path(&session));
    let (cpu, commits) = (proc::cpu_ms(rig.pid()), rig.writer("commits"));
    rig.turn(&session, &format!("flood {CHUNKS} {CHUNK_BYTES}"));
    let (seen, elapsed) = count(&mut events);
    let cpu = (proc::cpu_ms(rig.pid()) - cpu) as f64;
    let commits = rig.writer("commits") - commits;
    let lost = if seen == CHUNKS { "none lost" } else { "SOME LOST" };
    report.line(&format!("  {seen} of {CHUNKS} chunks of {CHUNK_BYTES} bytes arrived, {lost}"));
    let per_s = seen as f64 / elapsed.as_secs_f64();
    report.figure("deltas through to one client", per_s, "/s", Target::AtLeast(100_000.0));
    report.figure("deltas in one commit", seen as f64 / commits, "", Target::None);
    report.figure(
        "CPU of the server for 1,000 deltas",
        cpu * 1000.0 / seen as f64,
        "ms",
        Target::None,
    );
}

/// Counts chunks in order until the turn is over, and the time from the first to the last of them.
fn count(events: &mut Events) -> (usize, Duration) {
    let mut text = Vec::new();
    let mut seen = 0;
    let mut first = None;
    let mut last = Instant::now();
    loop {
        let event = events.next();
        let kind = raw::kind(event);
        if kind == b"turn.completed" {
            return (seen, first.map_or(Duration::ZERO, |first| last - first));
        }
        assert!(kind != b"turn.failed", "{}", String::from_utf8_lossy(event));
        let Some(delta) = delta(kind, event) else { continue };
        first.get_or_insert_with(Instant::now);
        text.extend_from_slice(delta);
        let whole = text.len() / CHUNK_BYTES * CHUNK_BYTES;
        for chunk in text[..whole].chunks(CHUNK_BYTES) {
            let number = chunk.iter().take_while(|byte| byte.is_ascii_digit());
            let number = number.fold(0, |sum, digit| sum * 10 + usize::from(digit - b'0'));
            assert_eq!(number, seen + 1, "a chunk is lost, doubled, or out of order");
            seen = number;
        }
        text.drain(..whole);
        last = Instant::now();
    }
}

/// The text that an `item.delta` adds; the texts of this part hold nothing that JSON escapes.
fn delta<'a>(kind: &[u8], event: &'a [u8]) -> Option<&'a [u8]> {
    if kind != b"item.delta" {
        return None;
    }
    raw::value(event, b"\"delta\":\"", b'"')
}

/// The write times in an event of the stamping agent.
pub(crate) fn stamps(event: &[u8]) -> impl Iterator<Item = u64> {
    let text = delta(raw::kind(event), event).unwrap_or_default();
    text.chunks(STAMP_BYTES).filter_map(|chunk| {
        std::str::from_utf8(chunk).ok().and_then(|chunk| chunk.trim_end().parse().ok())
    })
}

fn steady(report: &mut Report, rig: &Rig) {
    let session = rig.session(Agent::Stamping);
    let samples = travel(&rig.peer(), &session, RATE_HZ, RATE_CHUNKS);
    let at = format!("at {RATE_HZ} deltas/s, agent to client");
    tell(report, &at, samples, Target::AtMost(5.0));
}

fn together(report: &mut Report, rig: &Rig) {
    let gate = Arc::new(Barrier::new(SESSIONS + 1));
    let threads: Vec<_> = (0..SESSIONS)
        .map(|_| {
            let (peer, gate) = (rig.peer(), Arc::clone(&gate));
            let session = rig.session(Agent::Stamping);
            let body = move || {
                gate.wait();
                travel(&peer, &session, SESSION_HZ, SESSION_CHUNKS)
            };
            thread::spawn("client", body).expect("a thread")
        })
        .collect();
    gate.wait();
    let (cpu, commits) = (proc::cpu_ms(rig.pid()), rig.writer("commits"));
    let mut samples = Samples::default();
    threads.into_iter().for_each(|thread| samples.take(thread.join()));
    let count = samples.count() as f64;
    let cpu = (proc::cpu_ms(rig.pid()) - cpu) as f64;
    let commits = rig.writer("commits") - commits;
    let at = format!("at {} deltas/s of {SESSIONS} sessions", SESSIONS * SESSION_HZ);
    tell(report, &at, samples, Target::AtMost(3.0));
    report.figure("… deltas in one commit", count / commits, "", Target::None);
    report.figure("… CPU of the server for 1,000", cpu * 1000.0 / count, "ms", Target::None);
}

/// How long the chunks of a turn take from the agent's write to this client's read.
pub(crate) fn travel(peer: &Peer, session: &str, hz: usize, chunks: usize) -> Samples {
    let mut events = peer.events(&rig::stream_path(session));
    let body = rig::input(&format!("rate {hz} {chunks}")).to_string();
    let mut connection = peer.connect();
    connection.send(&peer.post(&rig::turns_path(session), &body));
    assert_eq!(connection.answer().0, 200, "the turn begins");
    let mut samples = Samples::default();
    loop {
        let event = events.next();
        let now = now_ns();
        for stamp in stamps(event) {
            samples.add_us(now.saturating_sub(stamp) as f64 / 1000.0);
        }
        if rig::TERMINAL.iter().any(|kind| kind.as_bytes() == raw::kind(event)) {
            break;
        }
    }
    assert_eq!(samples.count(), chunks, "every chunk arrives");
    samples
}

fn tell(report: &mut Report, at: &str, mut samples: Samples, p99: Target) {
    report.figure(&format!("{at}, p50"), samples.percentile_ms(50), "ms", Target::None);
    report.figure(&format!("{at}, p99"), samples.percentile_ms(99), "ms", p99);
    report.figure(&format!("{at}, worst"), samples.percentile_ms(100), "ms", Target::None);
}
