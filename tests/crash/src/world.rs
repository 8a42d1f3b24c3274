//! One server and its data folder over some rounds: how it dies, and what is checked between the rounds.
//!
//! Owns: the server, the repository of its worktrees, the watch, and where in each scope the checked log ends.

use crate::line::Line;
use crate::play::{SOON, pages, text};
use crate::tree::git;
use crate::watch::Watch;
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::server::{Options, Server, program};
use gooselake_harness::stream::Record;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

/// Agents get little time to end; there is room for all plays of a round.
const CONFIG: &str = "[providers.demo]\nenabled = true\nmax_instances = 16\n\
    [keeper]\ngrace_ms = 2000\n[processes]\nkill_grace_ms = 500\n";

const PAGE: usize = 2000;

/// How long a start runs before it is cut off.
const START_MS: u64 = 400;

pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) line: Arc<Line>,
    pub(crate) repo: PathBuf,
    watch: Watch,
    /// The last row that was checked, and the last seq of each scope.
    checked: i64,
    scopes: HashMap<String, i64>,
    /// Teams whose whole log was checked, and which are deleted.
    pub(crate) gone_teams: Vec<String>,
    pub(crate) deaths: Deaths,
}

/// How often what died.
#[derive(Default)]
pub(crate) struct Deaths {
    pub(crate) killed: u32,
    pub(crate) terminated: u32,
    pub(crate) in_start: u32,
    pub(crate) children: u32,
    pub(crate) events: usize,
}

impl World {
    pub(crate) fn new(rng: &mut Rng) -> World {
        let options = Options { config_toml: CONFIG.to_owned(), ..Options::default() };
        let server = Server::start(options);
        let repo = server.folder().join("repo");
        fs::create_dir(&repo).expect("a folder");
        git(&repo, &["init", "--quiet", "--initial-branch=main"]);
        fs::write(repo.join("README"), "hello\n").expect("a file");
        git(&repo, &["add", "--all"]);
        let commit = [
            "-c",
            "user.name=a",
            "-c",
            "user.email=a@example.org",
            "commit",
            "--quiet",
            "-m",
            "first",
        ];
        git(&repo, &commit);
        let line = Arc::new(Line::default());
        line.up(server.client());
        let watch = Watch::start(Arc::clone(&line), rng.fork());
        let (scopes, deaths) = (HashMap::new(), Deaths::default());
        World { server, line, repo, watch, checked: 0, scopes, gone_teams: Vec::new(), deaths }
    }

    /// The server dies, most often without a word, perhaps once more in its next start, and comes back.
    pub(crate) fn die(&mut self, rng: &mut Rng) {
        self.line.down();
        if rng.chance(10) {
            assert_eq!(self.server.terminate(), Some(0), "{}", self.server.stderr_text());
            self.deaths.terminated += 1;
        } else {
            self.server.kill9();
            self.deaths.killed += 1;
        }
        self.server.check_no_panic();
        if rng.chance(30) {
            verify(&self.server, "beside no server");
        }
        while rng.chance(25) {
            self.server.die_in_start(Duration::from_millis(rng.below(START_MS)));
            self.deaths.in_start += 1;
        }
        self.server.restart();
        self.line.up(self.server.client());
    }

    /// A keeper, or something that a keeper holds, dies.
    pub(crate) fn kill_child(&mut self, rng: &mut Rng) {
        let keepers = proc::keepers_of(self.server.data_dir());
        if keepers.is_empty() {
            return;
        }
        let keeper = *rng.pick(&keepers);
        let below = proc::descendants(keeper);
        let victim = if below.is_empty() || rng.chance(40) { keeper } else { *rng.pick(&below) };
        // It may have just ended.
        drop(proc::signal(victim, Signal::KILL));
        self.deaths.children += 1;
    }

    /// What must be true between rounds: the stream is the log, each scope counts without a hole, and `verify` agrees.
    pub(crate) fn check(&mut self) {
        let log = pages(&self.line, "/v1/events", self.checked, PAGE);
        let Some(last) = log.last().map(|record| record.row_id) else { return };
        let seen = self.watch.take_up_to(last);
        assert_eq!(seen.len(), log.len(), "the stream told {} of {}", seen.len(), log.len());
        for (seen, logged) in seen.iter().zip(&log) {
            assert_eq!(seen.json, logged.json, "a stream is the log");
        }
        for record in &log {
            self.count(record);
        }
        self.deaths.events += log.len();
        verify(&self.server, "beside the server");
    }

    fn count(&mut self, record: &Record) {
        assert!(record.row_id > self.checked, "rows out of order at {}", record.json);
        self.checked = record.row_id;
        let scope = format!("{} {}", record.json["scope"], record.json["scope_id"]);
        let last = self.scopes.entry(scope).or_default();
        assert_eq!(record.seq, *last + 1, "a hole or a double before {}", record.json);
        *last = record.seq;
        if record.kind == "team.deleted" {
            self.gone_teams.push(text(&record.json, "scope_id"));
        }
    }

    /// Ctrl-C beside an agent and a command at work: the server ends well, and nothing of it is left.
    pub(crate) fn end(self) -> Deaths {
        self.begin_what_does_not_end();
        let World { mut server, line, watch, deaths, .. } = self;
        line.down();
        line.over();
        assert_eq!(server.interrupt(), Some(0), "{}", server.stderr_text());
        server.check_no_panic();
        watch.join();
        proof::nothing_runs_in(server.folder());
        assert_eq!(proc::keepers_of(server.data_dir()), Vec::<u32>::new());
        verify(&server, "after the end");
        deaths
    }

    /// A turn with a child in the background, and a command with two.
    fn begin_what_does_not_end(&self) {
        let headers = [("Content-Type", "application/json")];
        let post = |path: &str, body: &Value| -> Value {
            let body = body.to_string();
            self.line.call("POST", path, &headers, body.as_bytes()).reply.expect(200).json()
        };
        let folder = self.server.folder().join("endless");
        fs::create_dir(&folder).expect("a folder");
        let body = json!({"provider": "demo", "mode": "auto", "cwd": folder});
        let session = text(&post("/v1/sessions", &body), "id");
        let prompt = "spawn sleep 1000\nslow 100000 5";
        let body = json!({"input": [prompt]});
        post(&format!("/v1/sessions/{session}/turns"), &body);
        let command = "(sleep 1000 & exec sleep 1000) & sleep 1000";
        post("/v1/processes", &json!({"command": command, "cwd": folder}));
        let path = format!("/v1/sessions/{session}/events/stream?control=false&kinds=item.delta");
        let (mut stream, _) = self.line.stream(&path, "0").expect("the server lives");
        assert!(stream.next(SOON).is_some(), "the agent does not begin: {:?}", stream.end());
        let is_child = |words: &[String]| words.first().is_some_and(|word| word == "sleep");
        wait::until(SOON, "the children of both", || {
            let running = proof::running_in(&folder);
            (running.iter().filter(|(_, words)| is_child(words)).count() == 4).then_some(())
        });
    }
}

/// The built server's own judgement of what is on disk.
fn verify(server: &Server, when: &str) {
    let program = program("GG_TEST_SERVER", "gg-runtime-server");
    let mut command = Command::new(program.unwrap_or_else(|error| panic!("{error}")));
    command.args(["verify", "--data-dir"]).arg(server.data_dir()).env("HOME", server.folder());
    let output = command.output().expect("it runs");
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "verify {when}:\n{told}");
}
