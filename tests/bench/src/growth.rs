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
use std::time::Duration;

const SESSIONS: &[usize] = &[1, 10, 50, 100, 200];
const STREAMS: &[usize] = &[0, 100, 250, 500, 1000];
const EVENTS: &[usize] = &[1000, 10_000, 100_000, 1_000_000];
const SETTLE: Duration = Duration::from_secs(2);
const TURNS: usize = 200;
const HZ: usize = 200;
const CHUNKS: usize = 600;
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
    let mut seen = Seen::default();
    let mut live = 0;
    for count in SESSIONS {
        while live < *count {
            rig.session(Agent::Demo);
            live += 1;
        }
        seen.look(&rig, *count);
    }
    seen.row("live sessions")
}

/// A server with so many streams of a session at rest.
fn streams() -> Row {
    let rig = Rig::start();
    let quiet = rig.session(Agent::Demo);
    let mut seen = Seen::default();
    let mut open: Vec<Events> = Vec::new();
    for count in STREAMS {
        while open.len() < *count {
            let mut stream = rig.peer().events_with(&rig::stream_path(&quiet), CLIENT_BYTES);
            stream.skip_to(&["stream.caught_up"]);
            open.push(stream);
        }
        seen.look(&rig, *count);
    }
    seen.row("quiet streams")
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
        start.push((at, rig.best_start_ms()));
        let (turn_ms, _) = work(&rig);
        turn.push((at, turn_ms));
        replay::read_all(&rig.peer(), count / 5);
        rss.push((at, rig.server.rss_kib() as f64 / 1024.0));
    }
    row("events in the log", true, rss, turn, ("start to GET /ready, ms", start))
}

/// What is seen of one server with more and more on it.
#[derive(Default)]
struct Seen {
    rss: Vec<(f64, f64)>,
    turn: Vec<(f64, f64)>,
    delta: Vec<(f64, f64)>,
}

impl Seen {
    /// Looks when it has come to rest with so many.
    fn look(&mut self, rig: &Rig, count: usize) {
        pause(SETTLE);
        let at = count as f64;
        self.rss.push((at, rig.server.rss_kib() as f64 / 1024.0));
        let (turn_ms, delta_ms) = work(rig);
        self.turn.push((at, turn_ms));
        self.delta.push((at, delta_ms));
    }

    fn row(self, across: &'static str) -> Row {
        let delta = ("way of a delta at 200/s, p50, ms", self.delta);
        row(across, false, self.rss, self.turn, delta)
    }
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
