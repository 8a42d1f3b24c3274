//! A server that dies at a commit of its database, and how a story is told for each of its commits.
//!
//! Owns: the server with the library `commit.c` between SQLite and the C library, which ends the process there, so that
//! the server itself has no part in it. Whoever meets a dead server starts the next one. A story is told once to count
//! its commits, then once for each of them ([`die_at_each`]); what must be true in the end is the story's to say.

use crate::crew::Crew;
use crate::stage::{JSON, Stage, list};
use gooselake_harness::client::Reply;
use gooselake_harness::preload;
use gooselake_harness::proc;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that dies when it is told to.
pub(crate) struct Deadly {
    pub(crate) stage: Stage,
    /// See `commit.c`.
    order: PathBuf,
    deaths: usize,
    _folder: TempDir,
}

impl Deadly {
    pub(crate) fn new(config_toml: &str) -> Deadly {
        let folder = TempDir::new("gg-deadly");
        let library = preload::library("commit", include_str!("deadly/commit.c"));
        let order = folder.path().join("order");
        let variable = |name: &str, path: &PathBuf| (name.to_owned(), path.display().to_string());
        let env = vec![variable("LD_PRELOAD", &library), variable("GG_DIE", &order)];
        let config_toml = config_toml.to_owned();
        let server = Server::start(Options { config_toml, env, ..Options::default() });
        let cwd = server.folder().join("work");
        fs::create_dir(&cwd).unwrap();
        let stage = Stage { client: crate::contract::client(&server), server, cwd };
        Deadly { stage, order, deaths: 0, _folder: folder }
    }

    /// From now on commits are counted, and the server dies at this one.
    fn arm(&self, when: char, number: usize) {
        fs::write(&self.order, format!("{when}{number}")).unwrap();
    }

    /// Nobody dies any more; how many commits there were since [`Deadly::arm`], and whether the server died at one.
    fn disarm(&mut self) -> (usize, bool) {
        if self.order.exists() {
            fs::remove_file(&self.order).unwrap();
        }
        if !self.stage.server.is_alive() {
            self.revive();
        }
        let seen = self.order.with_extension("seen");
        let count = fs::metadata(&seen).map_or(0, |seen| seen.len());
        drop(fs::remove_file(seen));
        (usize::try_from(count).unwrap(), std::mem::take(&mut self.deaths) > 0)
    }

    /// The next server, after a death.
    fn revive(&mut self) {
        self.stage.server.wait_end();
        self.deaths += 1;
        drop(fs::remove_file(&self.order));
        self.stage.restart();
    }

    /// Asks under a key until one server or the next answers; after a death something else comes first.
    pub(crate) fn try_ask(
        &mut self,
        (method, path): (&str, &str),
        body: &Value,
        key: &str,
        mut after_death: impl FnMut(&mut Deadly),
    ) -> Reply {
        let headers = [JSON, ("Idempotency-Key", key)];
        let bytes = if body.is_null() { String::new() } else { body.to_string() };
        loop {
            match self.stage.client.try_request(method, path, &headers, bytes.as_bytes()) {
                Ok(reply) => return reply,
                // There is one death, so this ends.
                Err(_) => {
                    self.revive();
                    after_death(self);
                }
            }
        }
    }

    /// Asks at once for what is to be done, until it is answered.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value, key: &str) -> Value {
        self.try_ask((method, path), body, key, |_| ()).expect(200).json()
    }

    /// Waits until it is so, whoever dies meanwhile.
    pub(crate) fn until(
        &mut self,
        what: &str,
        path: &str,
        is_so: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = path.to_owned();
        wait::until(PATIENCE, what, || {
            match self.stage.client.try_request("GET", &path, &[], b"") {
                Ok(reply) => Some(reply.expect(200).json()).filter(&is_so),
                Err(_) => {
                    self.revive();
                    None
                }
            }
        })
    }

    /// All mail of a team is delivered, and every turn of those who got some is over.
    pub(crate) fn until_mail_rests(&mut self, crew: &Crew) {
        self.until("all is delivered", &crew.path("deliveries"), |deliveries| {
            list(deliveries.clone()).iter().all(|delivery| delivery["status"] == "injected")
        });
        for member in &crew.members[1..] {
            let path = format!("/v1/sessions/{member}/turns");
            self.until("every turn is over", &path, |turns| {
                list(turns.clone()).iter().all(|turn| !turn["completed_at"].is_null())
            });
        }
    }

    /// Nothing that the server has started is left: no keeper, and so nothing that one holds.
    pub(crate) fn no_keeper_is_left(&self) {
        let data_dir = self.stage.server.data_dir();
        wait::until(PATIENCE, "every keeper is gone", || {
            proc::keepers_of(data_dir).is_empty().then_some(())
        });
    }
}

/// One telling of a story.
pub(crate) trait Story {
    /// What happens while the server may die.
    fn tell(&mut self, deadly: &mut Deadly);
    /// What must be true behind it, whatever died; and its end, so that the next telling finds nothing of this one.
    fn check(&mut self, deadly: &mut Deadly);
}

/// Has a story told without a death, and then with one at each of its commits: right behind it (`when` is `a`) or right
/// before it (`b`). `begin` is given a name that no other telling has. Gives the number of commits.
pub(crate) fn die_at_each<S: Story>(
    deadly: &mut Deadly,
    when: char,
    mut begin: impl FnMut(&mut Deadly, &str) -> S,
) -> usize {
    let (mut commits, mut died, mut number) = (1000, 0, 0);
    while number <= commits {
        let mut story = begin(deadly, &format!("{when}{number}"));
        deadly.arm(when, if number == 0 { 1000 } else { number });
        story.tell(deadly);
        let (seen, has_died) = deadly.disarm();
        if number == 0 {
            assert!(!has_died);
            commits = seen;
        }
        assert!(number == 0 || has_died || seen < number, "no death at {number} of {seen} commits");
        story.check(deadly);
        died += usize::from(has_died);
        number += 1;
    }
    // What threads commit at once is one commit, so a telling may have a few less than the one that was counted.
    assert!(died * 10 > commits * 7, "{died} deaths in {commits} commits");
    commits
}
