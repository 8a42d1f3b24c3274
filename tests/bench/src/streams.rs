//! `streams`: what quiet streams cost, and how far one event is behind at the last of many clients.

use crate::deltas::stamps;
use crate::raw::{self, Events};
use crate::report::{Report, Target};
use crate::rig::{self, Agent, Rig};
use crate::sample::{Samples, now_ns};
use gooselake_harness::proc;
use gooselake_harness::wait::pause;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};

const QUIET: usize = 1000;
/// A stream gives its buffer back after a second of quiet.
const SETTLE: Duration = Duration::from_secs(2);
const CLIENTS: usize = 500;
const EVENTS: usize = 30;
/// What the busy session writes while CPU time is taken.
const BUSY: &str = "rate 1000 5000";
/// The buffer of one of many clients: they get small events.
const CLIENT_BYTES: usize = 4096;

pub(crate) fn run(report: &mut Report) {
    quiet(report);
    fan_out(report);
}

fn quiet(report: &mut Report) {
    let rig = Rig::start();
    let (quiet, busy) = (rig.session(Agent::Demo), rig.session(Agent::Stamping));
    let alone = cpu_while_busy(&rig, &busy);
    pause(SETTLE);
    let before = rig.server.rss_kib();
    let streams: Vec<Events> = (0..QUIET)
        .map(|_| {
            let mut stream = rig.peer().events_with(&rig::stream_path(&quiet), CLIENT_BYTES);
            stream.skip_to(&["stream.caught_up"]);
            stream
        })
        .collect();
    pause(SETTLE);
    let each = rig.server.rss_kib().saturating_sub(before) as f64 / QUIET as f64;
    let beside = cpu_while_busy(&rig, &busy);
    drop(streams);
    let of = format!("{QUIET} quiet streams");
    report.figure(&format!("{of}: RSS of the server each"), each, "KiB", Target::AtMost(25.0));
    report.figure("CPU of the server, 5 s at 1,000 deltas/s, alone", alone, "ms", Target::None);
    report.figure(&format!("… with {of} (heartbeats in it)"), beside, "ms", Target::None);
}

/// CPU of the server while another session works and has one client.
fn cpu_while_busy(rig: &Rig, session: &str) -> f64 {
    let mut events = rig.peer().events(&rig::stream_path(session));
    let before = proc::cpu_ms(rig.pid());
    rig.turn(session, BUSY);
    events.skip_to(rig::TERMINAL);
    (proc::cpu_ms(rig.pid()) - before) as f64
}

/// One event at a time to many clients that one thread reads as they become readable.
fn fan_out(report: &mut Report) {
    let rig = Rig::start();
    let session = rig.session(Agent::Stamping);
    let mut clients: Vec<Events> = (0..CLIENTS)
        .map(|_| {
            let mut stream = rig.peer().events_with(&rig::stream_path(&session), CLIENT_BYTES);
            stream.skip_to(&["stream.caught_up"]);
            stream
        })
        .collect();
    rig.turn(&session, &format!("rate 10 {EVENTS}"));
    let mut last = Samples::default();
    let mut seen: Vec<Arrival> = Vec::new();
    let mut counts = vec![0usize; CLIENTS];
    let end = Instant::now() + Duration::from_secs(60);
    while seen.len() < EVENTS || seen.iter().any(|arrival| arrival.clients < CLIENTS) {
        assert!(Instant::now() < end, "every client gets every event");
        for at in readable(&clients) {
            let client = &mut clients[at];
            client.read_once();
            while let Some(event) = client.next_read() {
                assert!(raw::kind(event) != b"turn.failed", "the turn goes well");
                for stamp in stamps(event) {
                    arrive(&mut seen, counts[at], stamp);
                    counts[at] += 1;
                }
            }
        }
    }
    for arrival in &seen {
        last.add_us(arrival.last_ns.saturating_sub(arrival.stamp_ns) as f64 / 1000.0);
    }
    let of = format!("{CLIENTS} clients, agent to the last of them");
    report.figure(&format!("{of}, p50"), last.percentile_ms(50), "ms", Target::None);
    report.figure("… worst", last.percentile_ms(100), "ms", Target::None);
}

/// One chunk on its way to all clients.
struct Arrival {
    stamp_ns: u64,
    last_ns: u64,
    clients: usize,
}

fn arrive(seen: &mut Vec<Arrival>, chunk: usize, stamp_ns: u64) {
    if chunk == seen.len() {
        seen.push(Arrival { stamp_ns, last_ns: 0, clients: 0 });
    }
    let arrival = &mut seen[chunk];
    assert_eq!(arrival.stamp_ns, stamp_ns, "all clients see the same events");
    arrival.last_ns = now_ns();
    arrival.clients += 1;
}

/// Which clients have something to read; waits for the first.
fn readable(clients: &[Events]) -> Vec<usize> {
    let mut ready: Vec<PollFd> =
        clients.iter().map(|client| PollFd::new(client.socket(), PollFlags::IN)).collect();
    let wait = Timespec { tv_sec: 10, tv_nsec: 0 };
    // An interruption is an early look: nothing is ready then.
    let _: Result<usize, _> = poll(&mut ready, Some(&wait));
    let is_ready = |fd: &PollFd| !fd.revents().is_empty();
    ready.iter().enumerate().filter(|(_, fd)| is_ready(fd)).map(|(at, _)| at).collect()
}
