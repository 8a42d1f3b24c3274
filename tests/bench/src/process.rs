//! `process`: a flood of output through one command, and many short commands at once, each from the POST to the end of
//! the record.

use crate::report::{Report, Target};
use crate::rig::Rig;
use gooselake_harness::client::Client;
use gooselake_harness::thread;
use serde_json::{Value, json};
use std::sync::{Arc, Barrier};
use std::time::Instant;

const FLOOD_BYTES: u64 = 40_000_000;
/// The cap as it is without a configuration.
const KEPT_BYTES: u64 = 20_000_000;
const SHORT: usize = 50;
const ROUNDS: usize = 5;

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    let mut flood = Vec::new();
    let mut single = Vec::new();
    let mut many = Vec::new();
    let mut bare = Vec::new();
    for _ in 0..ROUNDS {
        flood.push(self::flood(&rig.client));
        single.push(short(&rig.client, &shell()));
        many.push(together(&rig, &shell()));
        bare.push(together(&rig, &json!({"args": ["echo", "done"]})));
    }
    report.figure("40 MB through one command, median", median(flood), "s", Target::AtMost(0.5));
    report.figure("one short command, median", median(single) * 1e3, "ms", Target::None);
    let seconds = median(many);
    report.figure("50 short commands at once, median", seconds, "s", Target::AtMost(0.25));
    let seconds = median(bare);
    report.figure("… without the login shell", seconds, "s", Target::AtMost(0.25));
}

fn flood(client: &Client) -> f64 {
    let begun = Instant::now();
    let record = ended(client, &json!({"command": format!("yes | head -c {FLOOD_BYTES}")}));
    let seconds = begun.elapsed().as_secs_f64();
    let bytes = [&record["stdout_bytes"], &record["stdout_dropped_bytes"]].map(Value::as_u64);
    assert_eq!(bytes, [Some(KEPT_BYTES), Some(FLOOD_BYTES - KEPT_BYTES)], "{record}");
    seconds
}

/// A command that reads the profile of the machine before it says a word.
fn shell() -> Value {
    json!({"command": "echo done"})
}

fn short(client: &Client, body: &Value) -> f64 {
    let begun = Instant::now();
    let record = ended(client, body);
    assert_eq!(record["stdout_bytes"], 5, "{record}");
    begun.elapsed().as_secs_f64()
}

/// From the moment that all clients begin until the last one has its record.
fn together(rig: &Rig, body: &Value) -> f64 {
    let barrier = Arc::new(Barrier::new(SHORT + 1));
    let clients: Vec<_> = (0..SHORT)
        .map(|n| {
            let (client, barrier) = (rig.server.client(), Arc::clone(&barrier));
            let body = body.clone();
            let story = move || {
                // The connection is there before the clock runs.
                client.get("/v1/version").expect(200);
                barrier.wait();
                short(&client, &body);
            };
            thread::spawn(format!("client-{n}"), story).expect("a thread can be had")
        })
        .collect();
    barrier.wait();
    let begun = Instant::now();
    clients.into_iter().for_each(thread::Thread::join);
    begun.elapsed().as_secs_f64()
}

/// The record of a command when it is over.
fn ended(client: &Client, body: &Value) -> Value {
    let started = client.post("/v1/processes", body).expect(200).json();
    let process_id = started["process"]["process_id"].as_str().expect("a process has an id");
    let path = format!("/v1/processes/{process_id}?wait_ms=60000");
    let record = client.get(&path).expect(200).json();
    assert_eq!(record["process"]["status"], "completed", "{record}");
    record
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
