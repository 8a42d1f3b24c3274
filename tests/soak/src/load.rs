//! The load: who is at work, and what they share.
//!
//! Owns: the threads of all clients, the board on which they see each other's sessions, and what has failed. A client
//! runs its round again and again until the load ends; one whose round panics says so and stops. A pause between two
//! rounds is a wait for the end, so nobody outlasts it by more than a round.

use crate::{command, post, reader, talk};
use crossbeam_channel::{Receiver, Sender};
use gooselake_harness::client::Client;
use gooselake_harness::rng::Rng;
use gooselake_harness::server::Server;
use gooselake_harness::thread::{self, Thread};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sessions of talkers, each with a witness at its stream, and of teams: 50 sessions in all.
const TALKERS: usize = 44;
const TEAMS: usize = 2;
/// Streams beside the witnesses: 200 in all.
const READERS: usize = 150;
const COMMANDERS: usize = 3;

/// How long one call may take on a busy machine.
const CALL: Duration = Duration::from_secs(60);

pub(crate) struct Load {
    pub(crate) board: Arc<Board>,
    /// Dropping it ends the load.
    end: Sender<()>,
    threads: Vec<Thread<()>>,
}

/// What all clients share.
#[derive(Default)]
pub(crate) struct Board {
    /// Sessions that are open.
    sessions: Mutex<Vec<String>>,
    failed: Mutex<Vec<String>>,
    pub(crate) counts: Counts,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) sessions: AtomicU64,
    pub(crate) turns: AtomicU64,
    pub(crate) streams: AtomicU64,
    pub(crate) open_streams: AtomicU64,
    pub(crate) events: AtomicU64,
    pub(crate) processes: AtomicU64,
    pub(crate) messages: AtomicU64,
    pub(crate) sleeps: AtomicU64,
}

/// One client.
pub(crate) struct Player {
    pub(crate) client: Client,
    pub(crate) rng: Rng,
    pub(crate) board: Arc<Board>,
    pub(crate) folder: PathBuf,
    end: Receiver<()>,
}

impl Load {
    pub(crate) fn start(server: &Server, rng: &mut Rng) -> Load {
        let (end, ended) = crossbeam_channel::bounded(0);
        let board = Arc::new(Board::default());
        let mut load = Load { board, end, threads: Vec::new() };
        type Round = fn(&mut Player);
        let all: [(&str, usize, Round); 4] = [
            ("talker", TALKERS, talk::round),
            ("team", TEAMS, post::round),
            ("command", COMMANDERS, command::round),
            ("reader", READERS, reader::round),
        ];
        for (name, count, round) in all {
            for number in 0..count {
                let player = Player {
                    client: server.client().with_deadline(CALL),
                    rng: rng.fork(),
                    board: Arc::clone(&load.board),
                    folder: server.folder().to_owned(),
                    end: ended.clone(),
                };
                let name = format!("{name}-{number}");
                load.threads.push(play(&name, player, round));
            }
        }
        load
    }

    /// Ends the load, and gives what has failed.
    pub(crate) fn end(self, within: Duration) -> Vec<String> {
        let Load { board, end, threads } = self;
        drop(end);
        let until = Instant::now() + within;
        // Each thread has a clone of the board for as long as it runs.
        let waited = gooselake_harness::wait::try_until(
            until.saturating_duration_since(Instant::now()),
            || (Arc::strong_count(&board) == 1).then_some(()),
        );
        if waited.is_none() {
            let count = Arc::strong_count(&board) - 1;
            lock(&board.failed).push(format!("{count} clients did not end within {within:?}"));
            threads.into_iter().for_each(Thread::detach);
        } else {
            threads.into_iter().for_each(Thread::join);
        }
        lock(&board.failed).clone()
    }
}

fn play(name: &str, mut player: Player, round: fn(&mut Player)) -> Thread<()> {
    let told = name.to_owned();
    let body = move || {
        while player.goes_on() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| round(&mut player))) {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|t| (*t).to_owned()));
                let text = text.unwrap_or_default();
                player.board.fail(format!("{told}: {text}"));
                return;
            }
        }
    };
    thread::spawn(name, body).expect("a thread")
}

impl Board {
    /// A session that is open, if there is one.
    pub(crate) fn any_session(&self, rng: &mut Rng) -> Option<String> {
        let sessions = lock(&self.sessions);
        (!sessions.is_empty()).then(|| rng.pick(&sessions).clone())
    }

    pub(crate) fn failed_count(&self) -> usize {
        lock(&self.failed).len()
    }

    pub(crate) fn session_count(&self) -> usize {
        lock(&self.sessions).len()
    }

    fn fail(&self, text: String) {
        lock(&self.failed).push(text);
    }
}

impl Counts {
    pub(crate) fn add(count: &AtomicU64, number: u64) {
        count.fetch_add(number, Ordering::Relaxed);
    }

    pub(crate) fn get(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

impl Player {
    pub(crate) fn goes_on(&self) -> bool {
        self.end.try_recv() != Err(crossbeam_channel::TryRecvError::Disconnected)
    }

    /// Rests between `least` and `most` milliseconds, or until the load ends.
    pub(crate) fn rest(&mut self, least_ms: u64, most_ms: u64) {
        let rest = Duration::from_millis(least_ms + self.rng.below(most_ms - least_ms + 1));
        // Nothing is ever sent: it times out, or the load has ended.
        let _ = self.end.recv_timeout(rest);
    }

    /// A folder of this player's choice.
    pub(crate) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.folder.join("work").join(name);
        std::fs::create_dir_all(&folder).expect("the server's folder takes folders");
        folder
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.client.get(path).expect(200).json()
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        self.client.post(path, body).expect(200).json()
    }

    /// A session, on the board from now on.
    pub(crate) fn open(&self, cwd: &Path, mode: &str) -> String {
        let body = json!({"provider": "demo", "mode": mode, "cwd": cwd});
        let id = text(&self.post("/v1/sessions", &body), "id");
        lock(&self.board.sessions).push(id.clone());
        Counts::add(&self.board.counts.sessions, 1);
        id
    }

    pub(crate) fn close(&self, session: &str) {
        lock(&self.board.sessions).retain(|other| other != session);
        self.post(&format!("/v1/sessions/{session}/close"), &json!({}));
    }

    /// Asks again until the answer has what is wanted; each look waits by itself, at the server.
    pub(crate) fn until(&self, path: &str, field: &str) -> Value {
        let end = Instant::now() + CALL * 4;
        loop {
            let record = self.get(path);
            if !record.pointer(field).is_none_or(Value::is_null) {
                return record;
            }
            assert!(Instant::now() < end, "awaited {field} of {path}: {record}");
        }
    }
}

pub(crate) fn text(record: &Value, field: &str) -> String {
    match record[field].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no text {field} in {record}"),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
