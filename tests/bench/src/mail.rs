//! `mail`: messages between the members of a team, whose agents answer at once: how many are accepted,
//! and how long one takes from the POST to the event that says which turn carries it.

use crate::raw::{self, Events, Peer};
use crate::report::{Report, Target};
use crate::rig::{Agent, Rig};
use crate::sample::Samples;
use gooselake_harness::thread;
use serde_json::json;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const MEMBERS: usize = 20;
const SENDERS: usize = 8;
const TIME: Duration = Duration::from_secs(3);
const DIRECT: usize = 500;
const BROADCASTS: usize = 50;
const MESSAGES: usize = 1000;

const INJECTED: &str = "team_delivery.injected";
const ENDED: &str = "turn.completed";

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    let team = Team::new(&rig);
    direct(report, &rig, &team);
    broadcast(report, &rig, &team);
    thousand(report, &rig, &team);
    accepted(report, &rig, &team);
}

struct Team {
    id: String,
    members: Vec<String>,
}

impl Team {
    fn new(rig: &Rig) -> Team {
        let members: Vec<String> = (0..MEMBERS).map(|_| rig.session(Agent::Demo)).collect();
        let body = json!({
            "name": "bench", "lead_agent_id": members[0], "member_agent_ids": members[1..],
        });
        let made = rig.client.post("/v1/teams", &body).expect(200).json();
        let id = made["team"]["id"].as_str().expect("a team has an id").to_owned();
        Team { id, members }
    }

    /// The bytes of a message from the lead to a member.
    fn direct(&self, peer: &Peer, to: usize) -> Vec<u8> {
        let body = json!({
            "sender_agent_id": self.members[0], "recipient_agent_id": self.members[to],
            "input": ["instant"],
        });
        peer.post(&format!("/v1/teams/{}/messages", self.id), &body.to_string())
    }
}

/// What happens to mail and to the turns that carry it, from now on.
fn events(peer: &Peer) -> Events {
    peer.events(&format!("/v1/events/stream?after_seq=latest&kinds={INJECTED},{ENDED}"))
}

/// Reads until so many were injected, and as many turns have ended if that is asked for; gives the time of the last
/// injection.
fn until_injected(events: &mut Events, count: usize, turns: usize) -> Instant {
    let (mut injected, mut ended, mut last) = (0, 0, Instant::now());
    while injected < count || ended < turns {
        let kind = raw::kind(events.next());
        if kind == INJECTED.as_bytes() {
            (injected, last) = (injected + 1, Instant::now());
        }
        ended += usize::from(kind == ENDED.as_bytes());
    }
    last
}

fn direct(report: &mut Report, rig: &Rig, team: &Team) {
    let peer = rig.peer();
    let (mut events, mut connection) = (events(&peer), peer.connect());
    let mut samples = Samples::default();
    for number in 0..DIRECT {
        let request = team.direct(&peer, number % MEMBERS);
        let begun = Instant::now();
        connection.send(&request);
        assert_eq!(connection.answer().0, 200);
        samples.add(until_injected(&mut events, 1, 1) - begun);
    }
    let p50 = samples.percentile_ms(50);
    report.figure("a message, POST to injected, p50", p50, "ms", Target::AtMost(5.0));
    report.figure("… p99", samples.percentile_ms(99), "ms", Target::None);
}

fn broadcast(report: &mut Report, rig: &Rig, team: &Team) {
    let peer = rig.peer();
    let (mut events, mut connection) = (events(&peer), peer.connect());
    let body = json!({
        "sender_agent_id": team.members[0], "input": ["instant"], "include_sender": true,
    });
    let path = format!("/v1/teams/{}/broadcasts", team.id);
    let request = peer.post(&path, &body.to_string());
    let mut samples = Samples::default();
    for _ in 0..BROADCASTS {
        let begun = Instant::now();
        connection.send(&request);
        assert_eq!(connection.answer().0, 200);
        samples.add(until_injected(&mut events, MEMBERS, MEMBERS) - begun);
    }
    let what = format!("a broadcast to {MEMBERS} idle members, all injected, p50");
    report.figure(&what, samples.percentile_ms(50), "ms", Target::AtMost(50.0));
    report.figure("… worst", samples.percentile_ms(100), "ms", Target::AtMost(50.0));
}

fn thousand(report: &mut Report, rig: &Rig, team: &Team) {
    let peer = rig.peer();
    let (mut events, mut connection) = (events(&peer), peer.connect());
    let begun = Instant::now();
    for number in 0..MESSAGES {
        connection.send(&team.direct(&peer, number % MEMBERS));
        assert_eq!(connection.answer().0, 200);
    }
    let accepted = begun.elapsed();
    let last = until_injected(&mut events, MESSAGES, 0) - begun;
    let per_s = MESSAGES as f64 / accepted.as_secs_f64();
    report.figure("messages accepted, one sender", per_s, "/s", Target::AtLeast(1000.0));
    let what = format!("{MESSAGES} messages to {MEMBERS} members, all injected after");
    report.figure(&what, last.as_secs_f64() * 1e3, "ms", Target::None);
}

/// Each sender writes to a member of its own, which reads meanwhile.
fn accepted(report: &mut Report, rig: &Rig, team: &Team) {
    let gate = Arc::new(Barrier::new(SENDERS + 1));
    let threads: Vec<_> = (0..SENDERS)
        .map(|number| {
            let (peer, gate) = (rig.peer(), Arc::clone(&gate));
            let request = team.direct(&peer, number);
            let body = move || {
                let mut connection = peer.connect();
                gate.wait();
                let end = Instant::now() + TIME;
                let mut count = 0_usize;
                while Instant::now() < end {
                    connection.send(&request);
                    let (status, body) = connection.answer();
                    assert_eq!(status, 200, "{}", String::from_utf8_lossy(body));
                    count += 1;
                }
                count
            };
            thread::spawn("sender", body).expect("a thread")
        })
        .collect();
    gate.wait();
    let begun = Instant::now();
    let count: usize = threads.into_iter().map(thread::Thread::join).sum();
    let per_s = count as f64 / begun.elapsed().as_secs_f64();
    let what = format!("messages accepted, {SENDERS} senders");
    report.figure(&what, per_s, "/s", Target::AtLeast(1000.0));
}
