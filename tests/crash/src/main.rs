//! The crash driver: mixed load against the built server, and deaths at random moments.
//!
//! Owns: the rounds. Each begins some clients with plays (see `play`), kills the server one to three times while they
//! run and while the teams of earlier rounds are purged, lets them come to their ends and checks what was promised,
//! from outside and with `verify`. In a quarter of the rounds keepers, agents and commands are killed too. `SEED` and
//! `ROUNDS` come from the environment; round n of a run has the seed SEED + n, so a failure is repeated alone with the
//! line that is printed (but for the purge, which needs the rounds before it). What is random is the plan; how the
//! machine schedules it is not in the seed.

mod command;
mod line;
mod play;
mod post;
mod talk;
mod tree;
mod watch;
mod world;

use crossbeam_channel::{Receiver, Sender};
use gooselake_harness::driver::{self, tell};
use gooselake_harness::rng::Rng;
use gooselake_harness::thread::{self, Thread};
use play::{Play, STORIES, Story};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};
use world::{Deaths, World};

const ROUNDS: u64 = 500;

/// Rounds that share a server's data folder.
const WORLD_ROUNDS: u64 = 10;

/// A death comes within this time of the last one, or when all plays are over.
const LIFE_MS: u64 = 500;

/// How long the plays of a round may go on after the last death.
const ROUND_TIME: Duration = Duration::from_secs(240);

fn main() -> ExitCode {
    let settings = match driver::settings("ROUNDS") {
        Ok(settings) => settings,
        Err(wrong) => return wrong,
    };
    let (rounds, seed) = (settings.length.unwrap_or(ROUNDS), settings.seed);
    tell(&format!("SEED={seed} ROUNDS={rounds}"));
    let (begin, mut total) = (Instant::now(), Deaths::default());
    let mut number = 0;
    while number < rounds {
        let last = (number + WORLD_ROUNDS).min(rounds);
        let run = catch_unwind(AssertUnwindSafe(|| run_world(seed, number..last)));
        match run {
            Ok(Ok(deaths)) => total.add(&deaths),
            Ok(Err(round)) => {
                tell(&format!("FAILED; again with SEED={} ROUNDS=1", seed + round));
                return ExitCode::FAILURE;
            }
            Err(panic) => {
                let (text, count) = (message(&*panic), last - number);
                tell(&format!("FAILED: {text}\nagain with SEED={} ROUNDS={count}", seed + number));
                return ExitCode::FAILURE;
            }
        }
        number = last;
    }
    tell(&format!(
        "{rounds} rounds in {} s: {} kills of the server, {} in its start, {} SIGTERM, {} kills of \
         keepers, agents and commands, {} events checked, nothing lost",
        begin.elapsed().as_secs(),
        total.killed,
        total.in_start,
        total.terminated,
        total.children,
        total.events,
    ));
    ExitCode::SUCCESS
}

/// Some rounds on one data folder. Err: the round that failed.
fn run_world(seed: u64, rounds: std::ops::Range<u64>) -> Result<Deaths, u64> {
    let mut world = World::new(&mut Rng::new(seed + rounds.start).fork());
    for round in rounds {
        let mut rng = Rng::new(seed + round).fork();
        let failed = match catch_unwind(AssertUnwindSafe(|| run_round(&mut world, &mut rng, round)))
        {
            Ok(failed) => failed,
            Err(panic) => vec![message(&*panic)],
        };
        if !failed.is_empty() {
            tell(&format!("round {round} (SEED={}):", seed + round));
            failed.iter().for_each(|text| tell(text));
            tell(&format!("stderr of the server:\n{}", world.server.stderr_text()));
            world.line.down();
            world.line.over();
            return Err(round);
        }
    }
    Ok(world.end())
}

/// One round; gives what has failed.
fn run_round(world: &mut World, rng: &mut Rng, round: u64) -> Vec<String> {
    let begin = Instant::now();
    let is_rough = rng.chance(25);
    let (over, ends) = crossbeam_channel::unbounded();
    let mut names = Vec::new();
    let mut threads = Vec::new();
    for place in 0..3 + rng.below(3) {
        let mut plays = Vec::new();
        for act in 0..1 + rng.below(4) {
            let (name, story) = *rng.pick(STORIES);
            names.push(name);
            let folders = (world.server.folder(), world.repo.clone());
            let name = format!("{name}-{round}-{place}-{act}");
            let play = Play::new(Arc::clone(&world.line), rng.fork(), name, folders, is_rough);
            plays.push((play, story));
        }
        threads.push(start(format!("client-{place}"), plays, over.clone()));
    }
    threads.push(start_purge(world, over));
    let mut failed = Vec::new();
    let count = 1 + rng.below(3);
    for _ in 0..count {
        let life = Duration::from_millis(rng.below(LIFE_MS));
        take_ends(&ends, Instant::now() + life, &mut failed);
        if is_rough && rng.chance(70) {
            world.kill_child(rng);
        }
        world.die(rng);
    }
    if !take_ends(&ends, Instant::now() + ROUND_TIME, &mut failed) {
        failed.push(format!("the plays do not end within {ROUND_TIME:?}: {names:?}"));
        threads.into_iter().for_each(Thread::detach);
        return failed;
    }
    threads.into_iter().for_each(Thread::join);
    if failed.is_empty() {
        world.check();
    }
    let kind = if is_rough { "rough" } else { "" };
    let took = begin.elapsed().as_millis();
    tell(&format!("round {round}: {} deaths, {took} ms, {} {kind}", count, names.join(" ")));
    failed
}

/// A client: its plays one after the other, up to the first that fails.
fn start(name: String, plays: Vec<(Play, Story)>, over: Sender<Result<(), String>>) -> Thread<()> {
    let body = move || {
        for (mut play, story) in plays {
            let told = catch_unwind(AssertUnwindSafe(|| story(&mut play)));
            let told = told.map_err(|panic| format!("{}: {}", play.name, message(&*panic)));
            let has_failed = told.is_err();
            // The round may have given up.
            if over.send(told).is_err() || has_failed {
                return;
            }
        }
    };
    thread::spawn(name, body).expect("a thread")
}

/// A client that purges the teams that earlier rounds have deleted.
fn start_purge(world: &mut World, over: Sender<Result<(), String>>) -> Thread<()> {
    let (line, teams) = (Arc::clone(&world.line), std::mem::take(&mut world.gone_teams));
    let body = move || {
        for team in teams {
            let told = catch_unwind(AssertUnwindSafe(|| post::purge(&line, &team)));
            // The round may have given up.
            drop(over.send(told.map_err(|panic| format!("purge: {}", message(&*panic)))));
        }
    };
    thread::spawn("purge", body).expect("a thread")
}

/// Takes the ends of plays until the time, or until the last one (then true).
fn take_ends(
    ends: &Receiver<Result<(), String>>,
    until: Instant,
    failed: &mut Vec<String>,
) -> bool {
    loop {
        match ends.recv_deadline(until) {
            Ok(end) => failed.extend(end.err()),
            Err(error) => return error.is_disconnected(),
        }
    }
}

impl Deaths {
    fn add(&mut self, other: &Deaths) {
        self.killed += other.killed;
        self.terminated += other.terminated;
        self.in_start += other.in_start;
        self.children += other.children;
        self.events += other.events;
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}
