//! Random lives of worktrees, with kill -9 at random moments: not one change is ever lost.
//!
//! What is held against the server is a model that knows nothing of it: every commit that was made and every text that
//! was last written to a file. As long as a worktree's folder is there, both must be in it; when it is gone, every
//! commit must be held by a ref, and every text that was in no commit must be in the tree of its backup ref. At
//! the end everything is forced away, reflogs are expired, git throws away what nothing holds, and all is looked at
//! once more. `GG_TEST_SEED` repeats a run, `GG_TEST_STEPS` makes it longer.

use super::scene::{Repo, Scene, is_there, path};
use crate::stage::{list, text};
use gooselake_harness::client::Reply;
use gooselake_harness::rng::Rng;
use gooselake_harness::thread::{self, Thread};
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

const STEPS: u64 = 120;
const SOON: Duration = Duration::from_secs(60);
/// A crash comes within this time of a request: creation and cleanup take about as long.
const CRASH_WITHIN_MS: u64 = 90;

struct World {
    scene: Scene,
    rng: Rng,
    lives: Vec<Life>,
    /// Sessions that are open.
    sessions: Vec<String>,
    number: u64,
    crashes: usize,
    removals: usize,
    backups: usize,
}

/// One worktree, as the model knows it.
struct Life {
    record: Value,
    /// Commits that were made in it, left and amended ones too.
    commits: Vec<String>,
    /// Texts that are in no commit, by file; None = the file was deleted.
    files: BTreeMap<String, Option<String>>,
    is_gone: bool,
}

#[test]
fn no_change_is_ever_lost() {
    let mut world = World::new();
    let steps = std::env::var("GG_TEST_STEPS").ok().and_then(|steps| steps.parse().ok());
    for _ in 0..steps.unwrap_or(STEPS) {
        world.step();
        world.check();
    }
    world.end();
    let World { crashes, removals, backups, .. } = world;
    assert!(crashes > 3 && removals > 3 && backups > 0, "{crashes} {removals} {backups}");
}

impl World {
    fn new() -> World {
        World {
            scene: Scene::with_config("[worktrees]\nlock_wait_secs = 60\n"),
            rng: Rng::from_environment(),
            lives: Vec::new(),
            sessions: Vec::new(),
            number: 0,
            crashes: 0,
            removals: 0,
            backups: 0,
        }
    }

    fn step(&mut self) {
        let living: Vec<usize> =
            (0..self.lives.len()).filter(|place| !self.lives[*place].is_gone).collect();
        if living.is_empty() || living.len() < 6 && self.rng.chance(15) {
            self.create();
            return;
        }
        let place = *self.rng.pick(&living);
        match self.rng.below(100) {
            0..25 => self.edit(place),
            25..35 => self.delete(place),
            35..40 => self.stage_all(place),
            40..55 => self.commit(place),
            55..60 => self.amend(place),
            60..64 => self.leave_a_commit(place),
            64..70 => self.merge(place),
            70..76 => self.claim(place),
            76..84 => self.ask(place, "release"),
            84..93 => self.ask(place, "cleanup"),
            _ => self.ask(place, "force"),
        }
    }

    fn next(&mut self, what: &str) -> String {
        self.number += 1;
        format!("{what} {}", self.number)
    }

    fn create(&mut self) {
        self.number += 1;
        let body = json!({
            "repo_root": self.scene.repo.path,
            "worktree_name": format!("w{}", self.number),
        });
        self.send("/v1/worktrees", body);
        // Whatever became of it: what is there is there, and what was cut off is not.
        for record in list(self.scene.stage.get("/v1/worktrees?status=ready")) {
            if self.lives.iter().all(|life| life.record["id"] != record["id"]) {
                assert!(is_there(&record), "{record}");
                let (commits, files) = (Vec::new(), BTreeMap::new());
                self.lives.push(Life { record, commits, files, is_gone: false });
            }
        }
    }

    fn edit(&mut self, place: usize) {
        let content = self.next("text");
        let name = match self.rng.below(3) {
            0 => "README".to_owned(),
            1 => format!("folder {}/file", self.rng.below(3)),
            _ => format!("file{}", self.rng.below(5)),
        };
        let life = &mut self.lives[place];
        Repo::of(&life.record).write(&name, &content);
        life.files.insert(name, Some(content));
    }

    fn delete(&mut self, place: usize) {
        let life = &mut self.lives[place];
        let work = Repo::of(&life.record);
        if fs::remove_file(work.path.join("README")).is_err() {
            return;
        }
        // Without a commit that has it, a file that is deleted again has never been.
        if work.show("HEAD", "README").is_some() {
            life.files.insert("README".to_owned(), None);
        } else {
            life.files.remove("README");
        }
    }

    fn stage_all(&mut self, place: usize) {
        Repo::of(&self.lives[place].record).git(&["add", "--all"]);
    }

    fn commit(&mut self, place: usize) {
        let message = self.next("commit");
        let life = &mut self.lives[place];
        let commit = Repo::of(&life.record).commit(&message);
        life.commits.push(commit);
        life.files.clear();
    }

    fn amend(&mut self, place: usize) {
        let message = self.next("amended");
        let life = &mut self.lives[place];
        let work = Repo::of(&life.record);
        work.git(&["add", "--all"]);
        work.git(&["commit", "--quiet", "--amend", "--allow-empty", "-m", &message]);
        life.commits.push(work.git(&["rev-parse", "HEAD"]));
        life.files.clear();
    }

    /// A commit on no branch, and back to the branch: only the reflog remembers it.
    fn leave_a_commit(&mut self, place: usize) {
        if !self.lives[place].files.is_empty() {
            return;
        }
        let message = self.next("left");
        let life = &mut self.lives[place];
        let work = Repo::of(&life.record);
        work.git(&["checkout", "--quiet", "--detach"]);
        work.write("left", &message);
        life.commits.push(work.commit(&message));
        work.git(&["checkout", "--quiet", &text(&life.record, "branch_name")]);
    }

    /// The branch goes into main, as far as that works without a conflict.
    fn merge(&mut self, place: usize) {
        let branch = text(&self.lives[place].record, "branch_name");
        let repo = &self.scene.repo;
        if !repo.try_git(&["merge", "--quiet", "-m", "merged", &branch]).status.success() {
            drop(repo.try_git(&["merge", "--abort"]));
        }
    }

    fn claim(&mut self, place: usize) {
        if self.sessions.len() < 3 {
            self.sessions.push(self.scene.stage.session());
        }
        let session = self.rng.pick(&self.sessions).clone();
        let reply = self.scene.claim(&self.lives[place].record, &session);
        assert!(matches!(reply.status, 200 | 409), "{reply}");
    }

    fn ask(&mut self, place: usize, what: &str) {
        let record = self.lives[place].record.clone();
        let (rest, body) = match what {
            "release" => match self.sessions.is_empty() {
                true => return,
                false => ("/release", json!({"session_id": self.rng.pick(&self.sessions).clone()})),
            },
            "force" => {
                // A claim holds against force too.
                let claims = list(self.scene.stage.get(&path(&record, "/claims?active=true")));
                for claim in claims {
                    let body = json!({
                        "session_id": claim["session_id"], "cleanup_if_last_claim": false,
                    });
                    self.scene.stage.client.post(&path(&record, "/release"), &body).expect(200);
                }
                ("/cleanup", json!({"force": true}))
            }
            _ => ("/cleanup", json!({})),
        };
        self.send(&path(&record, rest), body);
    }

    /// Sends a request; one of three is cut off by a crash of the server.
    fn send(&mut self, path: &str, body: Value) {
        if !self.rng.chance(33) {
            let reply = self.scene.stage.client.post(path, &body);
            assert!(matches!(reply.status, 200 | 404 | 409), "{reply}");
            return;
        }
        let pause = Duration::from_millis(self.rng.below(CRASH_WITHIN_MS));
        let (client, path) = (self.scene.stage.client.clone(), path.to_owned());
        let asking: Thread<io::Result<Reply>> = thread::spawn("asking", move || {
            let headers = [("Content-Type", "application/json")];
            client.try_request("POST", &path, &headers, body.to_string().as_bytes())
        })
        .unwrap();
        // The moment is what is tried out here: nothing is awaited.
        let _: Option<()> = wait::try_until(pause, || None);
        self.scene.stage.server.kill9();
        // An answer that came before the crash is as good as none.
        drop(asking.join());
        self.scene.stage.restart();
        self.crashes += 1;
        self.await_repair();
    }

    /// What was under way is finished or taken back.
    fn await_repair(&self) {
        wait::until(SOON, "nothing is under way any more", || {
            let is_settled = |record: &Value| {
                record["status"] != "creating" && record["cleanup_reason"].is_null()
            };
            list(self.scene.stage.get("/v1/worktrees")).iter().all(is_settled).then_some(())
        });
    }

    fn check(&mut self) {
        for place in 0..self.lives.len() {
            if !self.lives[place].is_gone {
                self.check_life(place);
            }
        }
    }

    fn check_life(&mut self, place: usize) {
        let record = self.scene.record(&self.lives[place].record);
        let told = || format!("{record}\n{:#?}", self.scene.kinds(&record));
        if record["status"] != "deleted" {
            assert_eq!(record["status"], "ready", "{}", told());
            let life = &self.lives[place];
            let work = Repo::of(&life.record);
            for (name, content) in &life.files {
                let seen = fs::read_to_string(work.path.join(name)).ok();
                assert_eq!(seen, *content, "{name} of {}", told());
            }
            let reached = work.git(&["rev-list", "--all", "--reflog", "HEAD"]);
            for commit in &life.commits {
                assert!(reached.contains(commit.as_str()), "{commit} of {}", told());
            }
            return;
        }
        assert!(!is_there(&record), "{}", told());
        self.removals += 1;
        self.backups += usize::from(record["backup_ref"].is_string());
        self.lives[place].is_gone = true;
        self.check_gone(place, &record);
    }

    /// The folder is gone: refs hold every commit, and the backup ref every text that was in none.
    fn check_gone(&self, place: usize, record: &Value) {
        let (life, repo) = (&self.lives[place], &self.scene.repo);
        let told =
            || format!("{record}\n{:#?}\n{:?}", self.scene.kinds(record), self.lives[place].files);
        assert!(!is_there(record) && !repo.is_branch(&text(record, "branch_name")), "{}", told());
        for commit in &life.commits {
            assert!(repo.holds(commit), "{commit} of {}", told());
        }
        if life.files.is_empty() {
            return;
        }
        let Some(backup) = record["backup_ref"].as_str() else { panic!("no backup: {}", told()) };
        for (name, content) in &life.files {
            assert_eq!(repo.show(backup, name), *content, "{name} of {}", told());
        }
    }

    /// Everything is forced away, and git throws away what no ref holds.
    fn end(&mut self) {
        for session in std::mem::take(&mut self.sessions) {
            self.scene.stage.close(&session);
        }
        for place in 0..self.lives.len() {
            let record = self.lives[place].record.clone();
            wait::until(SOON, "the worktree is gone", || {
                (self.scene.force(&record)["status"] == "deleted").then_some(())
            });
        }
        self.check();
        let repo = &self.scene.repo;
        repo.git(&["reflog", "expire", "--expire=now", "--all"]);
        repo.git(&["gc", "--quiet", "--prune=now"]);
        for place in 0..self.lives.len() {
            let record = self.scene.record(&self.lives[place].record);
            self.check_gone(place, &record);
        }
        assert_eq!(repo.git(&["worktree", "list"]).lines().count(), 1);
        let trash = self.scene.stage.server.data_dir().join("worktrees/.trash");
        assert_eq!(fs::read_dir(trash).into_iter().flatten().count(), 0);
        assert_eq!(repo.git(&["fsck", "--connectivity-only"]), "");
    }
}
