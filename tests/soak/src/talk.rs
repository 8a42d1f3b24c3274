//! A session's life: some turns with rests in between, and a witness that sees all of it.
//!
//! Owns: the talker's round. The witness follows the session's stream by cursor from its first event to its last, over
//! breaks of its own making; what it has then seen is the whole log, and must obey every rule of `proof`. A rest is
//! often longer than an agent stays awake, so agents sleep and are woken all the time.

use crate::load::Board;
use crate::load::{Counts, Player, text};
use gooselake_harness::client::Client;
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::stream::Record;
use gooselake_harness::thread::{self, Thread};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const TURNS_MAX: u64 = 25;
/// A witness leaves its stream after at most so many events.
const EVENTS_MAX: u64 = 200;
/// The longest silence of a stream: a rest, and a busy machine.
const SILENCE: Duration = Duration::from_secs(120);

const ENDS: [&str; 3] = ["turn.completed", "turn.failed", "turn.interrupted"];

pub(crate) fn round(player: &mut Player) {
    let is_asked = player.rng.chance(20);
    let folder = player.folder("talk");
    let session = player.open(&folder, if is_asked { "default" } else { "auto" });
    let witness = Witness::start(player, &session);
    let mut turns = 0;
    if is_asked {
        ask(player, &session);
        turns += 1;
    }
    for _ in 0..1 + player.rng.below(TURNS_MAX) {
        if !player.goes_on() {
            break;
        }
        turns += turn(player, &session, is_asked);
        let is_long = player.rng.chance(30);
        let (least, most) = if is_long { (4000, 12_000) } else { (100, 4000) };
        player.rest(least, most);
    }
    player.close(&session);
    let log = witness.thread.join();
    proof::log(&log);
    let ended = log.iter().filter(|record| ENDS.contains(&record.kind.as_str())).count();
    assert_eq!(ended, turns, "turns of {session}");
    let sleeps = log.iter().filter(|record| record.kind == "agent.slept").count();
    Counts::add(&player.board.counts.turns, turns as u64);
    Counts::add(&player.board.counts.sleeps, sleeps as u64);
    player.rest(0, 3000);
}

/// A turn of some kind, up to its end; gives how many turns it was. A session that asks only talks.
fn turn(player: &mut Player, session: &str, is_asked: bool) -> usize {
    let path = format!("/v1/sessions/{session}/turns");
    let prompt = match player.rng.below(if is_asked { 8 } else { 10 }) {
        0..4 => "say a few words that come one after the other, as an agent's do".to_owned(),
        4 => "think of something\nplan one; two; three\nsay done".to_owned(),
        5 => format!("slow {} 20", 10 + player.rng.below(60)),
        6 => format!("flood {} 200", 50 + player.rng.below(500)),
        7 => "instant".to_owned(),
        8 => "run echo hello; seq 1 500".to_owned(),
        _ => "stderr 20\nterminal seq 1 200".to_owned(),
    };
    let made = player.post(&path, &json!({"input": [prompt], "when": "now"}));
    let mut turns = vec![text(&made, "turn_id")];
    if player.rng.chance(10) {
        let queued = json!({"input": ["say behind the other"], "when": "queue"});
        turns.push(text(&player.post(&path, &queued), "turn_id"));
    }
    if player.rng.chance(10) {
        let reply = player.client.post(&format!("{path}/{}/interrupt", turns[0]), &json!({}));
        assert!([202, 409].contains(&reply.status), "{reply}");
    }
    for turn in &turns {
        let record = player.until(&format!("{path}/{turn}?wait_ms=20000"), "/completed_at");
        let status = text(&record, "status");
        assert!(["completed", "interrupted"].contains(&status.as_str()), "{record}");
    }
    turns.len()
}

/// The first turn of a session that asks; the answer is yes or no.
fn ask(player: &mut Player, session: &str) {
    let path = format!("/v1/sessions/{session}");
    let prompt = json!({"input": ["ask whether it may\nsay so"]});
    let turn = text(&player.post(&format!("{path}/turns"), &prompt), "turn_id");
    let wanted = format!("{path}/events/stream?control=false&kinds=approval.requested");
    let mut stream = player.client.stream(&wanted, &[]);
    let approval = text(&stream.expect(SILENCE).record().payload, "approval_id");
    let decision = if player.rng.chance(70) { "accept" } else { "decline" };
    player.post(&format!("{path}/approvals/{approval}"), &json!({"decision": decision}));
    player.until(&format!("{path}/turns/{turn}?wait_ms=20000"), "/completed_at");
}

struct Witness {
    thread: Thread<Vec<Record>>,
}

impl Witness {
    fn start(player: &mut Player, session: &str) -> Witness {
        let path = format!("/v1/sessions/{session}/events/stream");
        let (client, mut rng) = (player.client.clone(), player.rng.fork());
        let board = Arc::clone(&player.board);
        let body = move || follow(&client, &mut rng, &board, &path);
        Witness { thread: thread::spawn("witness", body).expect("a thread") }
    }
}

/// Sees a session's log to its end.
fn follow(client: &Client, rng: &mut Rng, board: &Board, path: &str) -> Vec<Record> {
    let mut seen: Vec<Record> = Vec::new();
    loop {
        let last = seen.last().map_or(0, |record| record.seq).to_string();
        let mut stream = client.stream(path, &[("Last-Event-ID", &last)]);
        Counts::add(&board.counts.streams, 1);
        for _ in 0..1 + rng.below(EVENTS_MAX) {
            let frame = stream.expect(SILENCE);
            // Control frames have no id.
            if frame.id.is_none() {
                continue;
            }
            seen.push(frame.record());
            Counts::add(&board.counts.events, 1);
            if frame.event == "session.closed" {
                return seen;
            }
        }
    }
}
