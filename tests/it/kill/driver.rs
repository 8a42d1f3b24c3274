//! Everything at once, at random: rounds of plays, with deaths between.
//!
//! Owns: the plays (a session, its turns, and what must come of them) and the rounds. Each round
//! begins some plays, lets the server die one to three times at points chosen by events seen, and
//! then asks for what was promised. `GG_KILL_ROUNDS` makes more rounds, `GG_TEST_SEED` repeats one
//! run; how the processes are scheduled is left to the machine.

use super::follower::Follower;
use super::scene::{Scene, text};
use gooselake_harness::demo::{OUTCOME, flood_text, slow_text};
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::stream::Record;
use serde_json::{Value, json};
use std::time::Duration;

/// Rounds when nothing else is said: some ten seconds.
const ROUNDS: u64 = 15;

/// A log in which nothing comes for so long has nothing more to say before the next kill.
const QUIET: Duration = Duration::from_millis(250);

const KINDS: [Kind; 9] = [
    Kind::Flood,
    Kind::Run,
    Kind::Terminal,
    Kind::Ask,
    Kind::Gate,
    Kind::Queue,
    Kind::Opening,
    Kind::Crash,
    Kind::Interrupt,
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    /// Many chunks; none may be lost or doubled.
    Flood,
    /// Commands of the agent's own, with words between.
    Run,
    /// A command in a terminal of ours.
    Terminal,
    /// The agent asks in the middle.
    Ask,
    /// A person is asked before the prompt is sent.
    Gate,
    /// Several turns, one behind the other.
    Queue,
    /// The agent takes its time to start.
    Opening,
    /// The agent dies by itself.
    Crash,
    /// An endless turn that is interrupted.
    Interrupt,
}

struct Play {
    kind: Kind,
    name: String,
    session: String,
    /// What each turn must end as, and the text that it must have said, or begun to say when it is interrupted.
    turns: Vec<(String, &'static str, String)>,
    marks: Vec<String>,
    follower: Follower,
    is_interrupted: bool,
}

#[test]
fn whatever_was_promised_is_kept_over_deaths_at_random_points() {
    let mut rng = Rng::from_environment();
    let rounds = std::env::var("GG_KILL_ROUNDS").ok();
    let rounds = rounds.map_or(ROUNDS, |text| text.parse().expect("GG_KILL_ROUNDS is a number"));
    let mut scene = Scene::new();
    let mut everything = Follower::of_everything();
    let mut closed: Vec<String> = Vec::new();
    for round in 0..rounds {
        let mut plays: Vec<Play> = (0..=rng.below(3))
            .map(|place| {
                let kind = *rng.pick(&KINDS);
                begin(&scene, &mut rng, kind, &format!("{kind:?}-{round}-{place}"))
            })
            .collect();
        let mut was_terminated = false;
        for _ in 0..=rng.below(3) {
            everything.attach(&scene);
            plays.iter_mut().for_each(|play| play.follower.attach(&scene));
            everything.read(rng.below(50) as usize, QUIET);
            for play in &mut plays {
                let seen = rng.below(6) as usize;
                play.follower.read(seen, Duration::from_millis(20));
                if rng.chance(30) {
                    play.push(&scene);
                }
            }
            if rng.chance(20) {
                was_terminated = true;
                assert_eq!(scene.server.terminate(), Some(0));
            } else {
                scene.server.kill9();
            }
            everything.drain();
            plays.iter_mut().for_each(|play| play.follower.drain());
            scene.server.restart();
        }
        for mut play in plays {
            play.finish(&scene, was_terminated);
            closed.push(play.session);
        }
    }
    for session in &closed {
        assert_eq!(scene.record(session)["status"], "closed");
        scene.prove(session);
    }
    everything.prove(&scene);
    scene.await_keepers(0);
    scene.finish();
}

fn begin(scene: &Scene, rng: &mut Rng, kind: Kind, name: &str) -> Play {
    let mark = "run echo once >> marks";
    let (count, bytes) = (100 + rng.below(3000), 20 + rng.below(80) as usize);
    let fields = match kind {
        Kind::Ask => json!({"mode": "default"}),
        Kind::Gate => json!({"permission_mode": "require_approval"}),
        Kind::Opening => json!({"wait": false, "env": {"GG_DEMO_DELAY_MS": "100"}}),
        _ => json!({}),
    };
    let (prompt, status, said) = match kind {
        Kind::Flood => (format!("flood {count} {bytes}"), "completed", flood_text(count, bytes)),
        Kind::Run => {
            let said = format!("{0}\n\n{OUTCOME}\n\n{0}", slow_text(10));
            (format!("slow 10 5\n{mark}\nslow 10 5"), "completed", said)
        }
        Kind::Terminal => {
            let prompt = "terminal echo once >> marks; sleep 0.05".to_owned();
            (prompt, "completed", OUTCOME.to_owned())
        }
        Kind::Ask | Kind::Gate => (mark.to_owned(), "completed", OUTCOME.to_owned()),
        Kind::Opening => (format!("say up\n{mark}"), "completed", format!("up\n\n{OUTCOME}")),
        Kind::Queue => {
            let said = format!("{}\n\n{OUTCOME}", slow_text(5));
            (format!("slow 5 5\n{mark}"), "completed", said)
        }
        Kind::Crash => ("slow 8 5\ncrash".to_owned(), "failed", slow_text(8)),
        Kind::Interrupt => ("slow 100000 5".to_owned(), "interrupted", slow_text(100_000)),
    };
    let session = scene.session_with(name, fields);
    let follower = Follower::of_session(&session);
    let turn = scene.turn(&session, &prompt);
    let mut turns = vec![(turn, status, said)];
    if matches!(kind, Kind::Queue | Kind::Crash) {
        for _ in 0..3 {
            turns.push((scene.queued(&session, mark), "completed", OUTCOME.to_owned()));
        }
    }
    let marks = match kind {
        Kind::Flood | Kind::Interrupt => 0,
        Kind::Crash => 3,
        Kind::Queue => 4,
        _ => 1,
    };
    let (name, marks) = (name.to_owned(), vec!["once".to_owned(); marks]);
    Play { kind, name, session, turns, marks, follower, is_interrupted: false }
}

impl Play {
    /// What a person does to it: an approval is given, the interrupt is asked for. Each answer is
    /// checked: an acknowledged one is not asked for again.
    fn push(&mut self, scene: &Scene) {
        for approval in scene.pending(&self.session) {
            scene.decide(&self.session, &approval, "accept").expect(200);
        }
        if self.kind == Kind::Interrupt && !self.is_interrupted {
            scene.interrupt(&self.session, &self.turns[0].0);
            self.is_interrupted = true;
        }
    }

    /// Brings it to its end, and checks all that was promised.
    fn finish(&mut self, scene: &Scene, was_terminated: bool) {
        self.follower.attach(scene);
        if matches!(self.kind, Kind::Ask | Kind::Gate) {
            self.follower.until("the question", |event| event.kind == "approval.requested");
        }
        self.push(scene);
        let mut records: Vec<Value> = Vec::new();
        for (turn, status, said) in &self.turns {
            let record = scene.ended(&self.session, turn, status);
            let told = record["assistant_text"].as_str().unwrap_or_default();
            let is_right = match *status {
                "interrupted" => said.starts_with(told),
                _ => told == said,
            };
            assert!(is_right, "{}: {told:?}", self.name);
            records.push(record);
        }
        assert_eq!(scene.marks(&self.name), self.marks, "{}", self.name);
        let all = scene.turns(&self.session);
        let (ids, known): (Vec<String>, Vec<&String>) = (
            all.iter().map(|record| text(record, "id")).collect(),
            self.turns.iter().map(|(turn, ..)| turn).collect(),
        );
        assert!(ids.iter().eq(known), "{}: other turns than were asked for: {all:?}", self.name);
        let last = text(&records[records.len() - 1], "id");
        self.follower.until("the last end", |event| {
            let is_end = ["turn.completed", "turn.failed", "turn.interrupted"];
            is_end.contains(&event.kind.as_str()) && event.json["turn_id"] == last.as_str()
        });
        self.follower.prove(scene);
        let events = scene.prove(&self.session);
        if self.kind != Kind::Crash && !was_terminated {
            assert_eq!(count(&events, "agent.started"), 1, "{}: a new agent", self.name);
            assert_eq!(count(&events, "agent.exited"), 0, "{}: an agent ended", self.name);
        }
        scene.close(&self.session);
        proof::nothing_runs_in(&scene.folder(&self.name));
    }
}

fn count(events: &[Record], kind: &str) -> usize {
    events.iter().filter(|event| event.kind == kind).count()
}
