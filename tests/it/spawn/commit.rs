//! The server dies at each commit of a member's life in turn, once right behind it and once right before it: while it
//! is made, told what to do, and taken away.
//!
//! After any death each operation comes to its end, and what there is is what the journal says. Who asks again with the
//! key is told of the member that was made, or has one made.

use crate::crew::Crew;
use crate::kill::commit::Deadly;
use crate::stage::{JSON, list, text};
use crate::worktree::scene::{Repo, is_there};
use serde_json::{Value, json};

/// A team whose lead works in the repository, and the name of this telling.
struct Life {
    crew: Crew,
    name: String,
}

impl Life {
    fn begin(deadly: &Deadly, repo: &Repo, name: &str) -> Life {
        let lead = deadly.stage.create(&json!({"mode": "auto", "cwd": repo.path}));
        let crew = Crew::of(&deadly.stage, vec![text(&lead, "id")]);
        Life { crew, name: name.to_owned() }
    }

    /// Waits until no operation is under way.
    fn rests(&self, deadly: &mut Deadly) -> Vec<Value> {
        let is_over = |operation: &Value| !operation["finished_at"].is_null();
        let path = self.crew.path("operations");
        list(deadly.until("each operation is over", &path, |operations| {
            list(operations.clone()).iter().all(is_over)
        }))
    }

    /// Asks, and asks again after a death when what was begun has come to its end.
    fn ask(&self, deadly: &mut Deadly, method: &str, path: &str, body: &Value) -> Option<Value> {
        let headers = [JSON, ("Idempotency-Key", self.name.as_str())];
        let body = if body.is_null() { String::new() } else { body.to_string() };
        for is_again in [false, true] {
            let reply = deadly.stage.client.try_request(method, path, &headers, body.as_bytes());
            match reply {
                Ok(reply) if is_again && reply.status == 404 => return None,
                Ok(reply) => return Some(reply.expect(200).json()),
                Err(_) => drop(self.rests(deadly)),
            }
        }
        panic!("{}: there is one death", self.name)
    }

    fn member(&self, deadly: &mut Deadly) -> Value {
        let body = json!({
            "source_session_id": self.crew.members[0], "title": "Short", "prompt": "say here",
            "worktree": {"name": self.name},
        });
        let path = self.crew.path("members/spawn");
        let answer = self.ask(deadly, "POST", &path, &body).expect("it is made");
        let member = text(&answer["spawned_session"], "id");
        let turns = format!("/v1/sessions/{member}/turns");
        let turns = list(deadly.until("it has read its onboarding", &turns, |turns| {
            let turns = list(turns.clone());
            !turns.is_empty() && turns.iter().all(|turn| !turn["completed_at"].is_null())
        }));
        assert_eq!(turns.len(), 1, "{}: it is told once: {turns:?}", self.name);
        assert_eq!(turns[0]["assistant_text"], "here", "{}", self.name);
        answer
    }

    fn take_away(&self, deadly: &mut Deadly, answer: &Value) {
        let member = text(&answer["spawned_session"], "id");
        let path = self.crew.path(&format!("members/{member}"));
        // One that has left already is no member any more.
        self.ask(deadly, "DELETE", &path, &Value::Null);
        self.rests(deadly);
        let path = format!("/v1/sessions/{member}");
        deadly.until("its agent is gone", &path, |session| session["live"] == false);
    }

    /// All of the team's operations, and all that they have made.
    fn check(&self, deadly: &mut Deadly, answer: &Value) {
        let operations = self.rests(deadly);
        let stage = &deadly.stage;
        let of = |kind: &str, stage: &str| {
            let is_it = |it: &&Value| it["kind"] == kind && it["stage"] == stage;
            operations.iter().filter(is_it).count()
        };
        let told = format!("{}: {operations:?}", self.name);
        assert_eq!(of("spawn_member_with_worktree", "completed"), 1, "{told}");
        assert_eq!(of("remove_spawned_member", "completed"), 1, "{told}");
        assert!(operations.len() <= 3, "one death takes back one operation: {told}");
        let members = stage.get(&self.crew.path("view"))["team"].clone();
        let members = list(members["members"].clone());
        assert_eq!(members.len(), 1, "{told}");
        let made = list(stage.get("/v1/sessions")).into_iter().filter(|session| {
            session["id"] != self.crew.members[0].as_str() && session["status"] != "closed"
        });
        assert_eq!(made.count(), 0, "{told}");
        for worktree in list(stage.get("/v1/worktrees")) {
            assert!(!is_there(&worktree) && worktree["status"] == "deleted", "{told}: {worktree}");
        }
        let kinds = self.crew.events(stage);
        for kind in ["team.member_joined", "team.member_left", "team_message.created"] {
            let times = kinds.iter().filter(|event| event.kind == kind).count();
            assert_eq!(times, 1, "{told}: {kind}");
        }
        assert_eq!(answer["journal_stage"], "completed", "{told}");
    }
}

fn die_at_each(when: char) {
    let mut deadly = Deadly::new("");
    let repo = Repo::new(&deadly.stage.server.folder().join("repo"));
    let (mut commits, mut died, mut number) = (1000, 0, 0);
    while number <= commits {
        let life = Life::begin(&deadly, &repo, &format!("{when}{number}"));
        deadly.arm(when, if number == 0 { 1000 } else { number });
        let answer = life.member(&mut deadly);
        life.take_away(&mut deadly, &answer);
        let (seen, has_died) = deadly.disarm();
        if number == 0 {
            assert!(!has_died);
            commits = seen;
        }
        life.check(&mut deadly, &answer);
        assert!(!repo.is_branch(&format!("gg/{}", life.name)), "{}", life.name);
        deadly.stage.close(&life.crew.members[0]);
        died += usize::from(has_died);
        number += 1;
    }
    assert!(commits > 15 && died * 10 > commits * 7, "{died} deaths in {commits} commits");
}

#[test]
fn a_member_comes_and_goes_whole_whatever_commit_the_server_dies_behind() {
    die_at_each('a');
}

#[test]
fn a_member_comes_and_goes_whole_whatever_commit_the_server_dies_before() {
    die_at_each('b');
}
