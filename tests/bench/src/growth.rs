//! `growth`: what one more session, stream or event costs, and a picture of it.
//!
//! Three rows of servers: with more and more sessions whose agents live, with more and more quiet streams, on a
//! longer and longer log. Each is asked the same: its memory, the time of a turn in one session, the way of a delta,
//! the start.
//! The picture is `growth.svg` in the folder `OUT` (docs/plots). A line that rises is a cost that grows; the log's
//! must be level.

use crate::deltas::travel;
use crate::raw::Events;
use crate::replay;
use crate::report::{Report, Target};
use crate::rig::{self, Agent, Rig};
use crate::sample::Samples;
use crate::turns::Caller;
use gooselake_harness::plot::{self, Line, Panel};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait::pause;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

const SESSIONS: &[usize] = &[1, 10, 50, 100, 200];
const STREAMS: &[usize] = &[0, 100, 250, 500, 1000];
const EVENTS: &[usize] = &[1000, 10_000, 100_000, 1_000_000];
const SETTLE: Duration = Duration::from_secs(2);
const TURNS: usize = 200;
const HZ: usize = 200;
const CHUNKS: usize = 600;
const STARTS: usize = 3;
/// The buffer of a client that gets nothing.
const CLIENT_BYTES: usize = 4096;

/// Figures over one axis, in the order of [`Panel`]s.
struct Row {
    across: &'static str,
    is_log: bool,
    figures: Vec<(&'static str, Vec<(f64, f64)>)>,
}

pub(crate) fn run(report: &mut Report) {
    let rows = [sessions(), streams(), log()];
    let mut panels = Vec::new();
    for row in rows {
        for (title, points) in &row.figures {
            for (at, value) in points {
                report.figure(
                    &format!("{at:>7} {}: {title}", row.across),
                    *value,
                    "",
                    Target::None,
                );
            }
            let line = Line { name: String::new(), points: points.clone(), has_marks: true };
            panels.push(Panel {
                title: (*title).to_owned(),
                across: row.across.to_owned(),
                lines: vec![line],
                is_log: row.is_log,
            });
        }
    }
    let out = std::env::var_os("OUT").map_or_else(|| PathBuf::from("docs/plots"), PathBuf::from);
    let path = out.join("growth.svg");
    let picture = plot::svg("What one more session, stream or event costs", &panels, 3);
    let written = fs::create_dir_all(&out).and_then(|()| fs::write(&path, picture));
    match written {
        Ok(()) => report.line(&format!("  the picture is {}", path.display())),
        Err(error) => report.line(&format!("  {} can not be written: {error}", path.display())),
    }
}

/// A server with so many agents at rest.
fn sessions() -> Row {
    let rig = Rig::start();
    let (mut rss, mut turn, mut delta) = (Vec::new(), Vec::new(), Vec::new());
    let mut live = 0;
    for count in SESSIONS {
        while live < *count {
            rig.session(Agent::Demo);
            live += 1;
        }
        pause(SETTLE);
        let at = *count as f64;
        rss.push((at, rig.server.rss_kib() as f64 / 1024.0));
        let (turn_ms, delta_ms) = work(&rig);
        turn.push((at, turn_ms));
        delta.push((at, delta_ms));
    }
    row("live sessions", false, rss, turn, ("way of a delta at 200/s, p50, ms", delta))
}

/// A server with so many streams of a session at rest.
fn streams() -> Row {
    let rig = Rig::start();
    let quiet = rig.session(Agent::Demo);
    let (mut rss, mut turn, mut delta) = (Vec::new(), Vec::new(), Vec::new());
    let mut open: Vec<Events> = Vec::new();
    for count in STREAMS {
        while open.len() < *count {
            let mut stream = rig.peer().events_with(&rig::stream_path(&quiet), CLIENT_BYTES);
            stream.skip_to(&["stream.caught_up"]);
            open.push(stream);
        }
        pause(SETTLE);
        let at = *count as f64;
        rss.push((at, rig.server.rss_kib() as f64 / 1024.0));
        let (turn_ms, delta_ms) = work(&rig);
        turn.push((at, turn_ms));
        delta.push((at, delta_ms));
    }
    row("quiet streams", false, rss, turn, ("way of a delta at 200/s, p50, ms", delta))
}

/// A server on a log of so many events.
fn log() -> Row {
    let (mut rss, mut turn, mut start) = (Vec::new(), Vec::new(), Vec::new());
    for count in EVENTS {
        let folder = TempDir::new("gooselake-bench");
        let data = folder.path().join("data");
        replay::prepare(&data, *count);
        let mut rig = Rig::start_on(Some(data));
        let at = *count as f64;
        let mut best_ms = f64::MAX;
        for _ in 0..STARTS {
            rig.server.terminate();
            let begun = Instant::now();
            rig.server.restart();
            rig.client = rig.server.client();
            rig.client.get("/ready").expect(200);
            best_ms = best_ms.min(begun.elapsed().as_secs_f64() * 1000.0);
        }
        start.push((at, best_ms));
        let (turn_ms, _) = work(&rig);
        turn.push((at, turn_ms));
        replay::read_all(&rig.peer(), count / 5);
        rss.push((at, rig.server.rss_kib() as f64 / 1024.0));
    }
    row("events in the log", true, rss, turn, ("start to GET /ready, ms", start))
}

fn row(
    across: &'static str,
    is_log: bool,
    rss: Vec<(f64, f64)>,
    turn: Vec<(f64, f64)>,
    third: (&'static str, Vec<(f64, f64)>),
) -> Row {
    let figures = vec![("memory of the server, MiB", rss), ("a turn, p50, ms", turn), third];
    Row { across, is_log, figures }
}

/// A turn and the way of a delta, each the middle of many, in sessions of their own.
fn work(rig: &Rig) -> (f64, f64) {
    let (quick, steady) = (rig.session(Agent::Demo), rig.session(Agent::Stamping));
    let mut caller = Caller::new(&rig.peer(), &quick);
    let mut turns = Samples::default();
    for _ in 0..TURNS {
        turns.add(caller.turn());
    }
    let mut deltas = travel(&rig.peer(), &steady, HZ, CHUNKS);
    for session in [quick, steady] {
        let path = format!("/v1/sessions/{session}");
        rig.client.delete(&format!("{path}?purge=true")).expect(204);
    }
    (turns.percentile_ms(50), deltas.percentile_ms(50))
}
