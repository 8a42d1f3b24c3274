//! `get`: `GET /v1/sessions/{id}` over connections that are kept, each with its own thread and closed
//! loop.

use crate::report::{Report, Target};
use crate::rig::{Agent, Rig};
use gooselake_harness::thread;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const CONNECTIONS: &[usize] = &[1, 8, 32];
const TARGET_CONNECTIONS: usize = 8;
const TIME: Duration = Duration::from_secs(2);

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    let path = format!("/v1/sessions/{}", rig.session(Agent::Demo));
    for connections in CONNECTIONS.iter().copied() {
        let per_s = measure(&rig, &path, connections);
        let target = match connections {
            TARGET_CONNECTIONS => Target::AtLeast(65_000.0),
            _ => Target::None,
        };
        report.figure(&format!("{connections} connections"), per_s, "/s", target);
    }
}

fn measure(rig: &Rig, path: &str, connections: usize) -> f64 {
    let gate = Arc::new(Barrier::new(connections + 1));
    let threads: Vec<_> = (0..connections)
        .map(|_| {
            let (peer, gate) = (rig.peer(), Arc::clone(&gate));
            let request = peer.get(path);
            let body = move || {
                let mut connection = peer.connect();
                gate.wait();
                let end = Instant::now() + TIME;
                let mut answers = 0u64;
                while Instant::now() < end {
                    connection.send(&request);
                    let (status, body) = connection.answer();
                    assert!(status == 200 && body.len() > 100, "{status}");
                    answers += 1;
                }
                answers
            };
            thread::spawn("getter", body).expect("a thread")
        })
        .collect();
    gate.wait();
    let begun = Instant::now();
    let answers: u64 = threads.into_iter().map(thread::Thread::join).sum();
    answers as f64 / begun.elapsed().as_secs_f64()
}
