//! `turns`: a whole turn, from the POST to the terminal event on an open stream, with an agent that
//! answers at once.

use crate::raw::{Events, Peer, Raw};
use crate::report::{Report, Target};
use crate::rig::{self, Agent, Rig};
use crate::sample::Samples;
use gooselake_harness::proc;
use gooselake_harness::thread;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const WARM_UP: usize = 50;
const ROUNDS: usize = 1000;
const SESSIONS: usize = 8;
const TIME: Duration = Duration::from_secs(4);

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    one(report, &rig);
    many(report, &rig);
}

/// One session's caller: a connection for the POSTs, and a stream.
pub(crate) struct Caller {
    connection: Raw,
    events: Events,
    request: Vec<u8>,
}

impl Caller {
    pub(crate) fn new(peer: &Peer, session_id: &str) -> Caller {
        let body = rig::input("instant").to_string();
        let request = peer.post(&rig::turns_path(session_id), &body);
        let events = peer.events(&rig::stream_path(session_id));
        let mut caller = Caller { connection: peer.connect(), events, request };
        for _ in 0..WARM_UP {
            caller.turn();
        }
        caller
    }

    pub(crate) fn turn(&mut self) -> Duration {
        let begun = Instant::now();
        self.connection.send(&self.request);
        let (status, body) = self.connection.answer();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
        self.events.skip_to(rig::TERMINAL);
        begun.elapsed()
    }
}

fn one(report: &mut Report, rig: &Rig) {
    let mut caller = Caller::new(&rig.peer(), &rig.session(Agent::Demo));
    let before = rig.writer("commits");
    let mut samples = Samples::default();
    for _ in 0..ROUNDS {
        samples.add(caller.turn());
    }
    let commits = (rig.writer("commits") - before) / ROUNDS as f64;
    let p50 = samples.percentile_ms(50);
    report.figure("one session, POST to the end, p50", p50, "ms", Target::AtMost(1.6));
    report.figure("… p99", samples.percentile_ms(99), "ms", Target::None);
    report.figure("… commits (one sync each) in a turn", commits, "", Target::None);
}

fn many(report: &mut Report, rig: &Rig) {
    let sessions: Vec<String> = (0..SESSIONS).map(|_| rig.session(Agent::Demo)).collect();
    let gate = Arc::new(Barrier::new(SESSIONS + 1));
    let threads: Vec<_> = sessions
        .into_iter()
        .map(|session| {
            let (peer, gate) = (rig.peer(), Arc::clone(&gate));
            let body = move || {
                let mut caller = Caller::new(&peer, &session);
                gate.wait();
                let end = Instant::now() + TIME;
                let mut samples = Samples::default();
                while Instant::now() < end {
                    samples.add(caller.turn());
                }
                samples
            };
            thread::spawn("caller", body).expect("a thread")
        })
        .collect();
    gate.wait();
    let begun = Instant::now();
    let (cpu, commits) = (proc::cpu_ms(rig.pid()), rig.writer("commits"));
    let mut samples = Samples::default();
    for thread in threads {
        samples.take(thread.join());
    }
    let elapsed = begun.elapsed();
    let turns = samples.count() as f64;
    let cpu = (proc::cpu_ms(rig.pid()) - cpu) as f64;
    let commits = (rig.writer("commits") - commits) / turns;
    let of = format!("{SESSIONS} sessions");
    let per_s = turns / elapsed.as_secs_f64();
    report.figure(&format!("{of}, turns"), per_s, "/s", Target::AtLeast(2000.0));
    report.figure("… p50", samples.percentile_ms(50), "ms", Target::None);
    report.figure("… p99", samples.percentile_ms(99), "ms", Target::None);
    report.figure("… commits (one sync each) in a turn", commits, "", Target::None);
    report.figure("… CPU of the server in a turn", cpu / turns, "ms", Target::None);
}
