//! The server dies at each commit of a member's life in turn, once right behind it and once right before it: while it
//! is made, told what to do, and taken away; while one is undone whose agent does not open; and while one leaves that
//! is at work and has work in its worktree.
//!
//! After any death each operation comes to its end, and what there is is what the journal says. Who asks again with the
//! key is told of the member that was made, or has one made.

use super::scene::slow_agent;
use crate::crew::Crew;
use crate::deadly::{Deadly, Story, die_at_each};
use crate::stage::{check_error, list, text};
use crate::worktree::scene::{Repo, is_there};
use gooselake_harness::client::Reply;
use gooselake_harness::temp::TempDir;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A team whose lead works in the repository, and the name of this telling, which its worktrees have too.
struct Nest {
    crew: Crew,
    repo: Repo,
    name: String,
}

impl Nest {
    fn begin(deadly: &Deadly, repo: &Repo, name: &str) -> Nest {
        let lead = deadly.stage.create(&json!({"mode": "auto", "cwd": repo.path}));
        let crew = Crew::of(&deadly.stage, vec![text(&lead, "id")]);
        Nest { crew, repo: repo.clone(), name: name.to_owned() }
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
    fn ask(&self, deadly: &mut Deadly, method: &str, path: &str, body: &Value) -> Reply {
        deadly.try_ask((method, path), body, &self.name, |deadly| drop(self.rests(deadly)))
    }

    fn ask_for_member(&self, deadly: &mut Deadly, fields: Value) -> Reply {
        let mut body = json!({
            "source_session_id": self.crew.members[0], "worktree": {"name": self.name},
        });
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.ask(deadly, "POST", &self.crew.path("members/spawn"), &body)
    }

    /// The member of an answer, when it has read its onboarding.
    fn member(&self, deadly: &mut Deadly, answer: &Value) -> String {
        let member = text(&answer["spawned_session"], "id");
        let turns = format!("/v1/sessions/{member}/turns");
        let turns = list(deadly.until("it has read its onboarding", &turns, |turns| {
            let turns = list(turns.clone());
            !turns.is_empty() && turns.iter().all(|turn| !turn["completed_at"].is_null())
        }));
        assert_eq!(turns.len(), 1, "{}: it is told once: {turns:?}", self.name);
        member
    }

    fn take_away(&self, deadly: &mut Deadly, member: &str) {
        let path = self.crew.path(&format!("members/{member}"));
        let reply = self.ask(deadly, "DELETE", &path, &Value::Null);
        // One that has left before the answer came is no member any more.
        assert!(matches!(reply.status, 200 | 404), "{}: {reply}", self.name);
        self.rests(deadly);
        let path = format!("/v1/sessions/{member}");
        deadly.until("its agent is gone", &path, |session| session["live"] == false);
    }

    /// What there is when all members have gone, and the operations that have come to that. `kept` is the worktree that
    /// holds work.
    fn check_empty(&self, deadly: &mut Deadly, kept: Option<&Value>) -> Vec<Value> {
        let operations = self.rests(deadly);
        let stage = &deadly.stage;
        let told = format!("{}: {operations:?}", self.name);
        let team = stage.get(&self.crew.path("view"))["team"].clone();
        assert_eq!(list(team["members"].clone()).len(), 1, "{told}");
        for session in list(stage.get("/v1/sessions")) {
            let is_lead = session["id"] == self.crew.members[0].as_str();
            assert!(is_lead || session["status"] == "closed", "{told}: {session}");
            assert!(is_lead || session["live"] == false, "{told}: {session}");
        }
        let named = |worktree: &Value| text(worktree, "worktree_name") == self.name;
        for worktree in list(stage.get("/v1/worktrees")).into_iter().filter(named) {
            let is_kept = kept.is_some_and(|kept| kept["id"] == worktree["id"]);
            let (status, kind) =
                if is_kept { ("ready", "kept") } else { ("deleted", "cleaned_up") };
            assert_eq!(worktree["status"], status, "{told}: {worktree}");
            // A first try and a second one have the same place.
            let is_place_kept =
                kept.is_some_and(|kept| kept["worktree_cwd"] == worktree["worktree_cwd"]);
            assert_eq!(is_there(&worktree), is_place_kept, "{told}: {worktree}");
            let path = format!("/v1/worktrees/{}/events", text(&worktree, "id"));
            let events = list(stage.get(&path));
            let ends = ["worktree.kept", "worktree.cleaned_up"];
            let ends = events.iter().filter(|event| ends.contains(&text(event, "kind").as_str()));
            let ends: Vec<String> = ends.map(|event| text(event, "kind")).collect();
            assert_eq!(ends, [format!("worktree.{kind}")], "{told}: one cleanup, told once");
        }
        assert_eq!(self.repo.is_branch(&format!("gg/{}", self.name)), kept.is_some(), "{told}");
        let worktrees = stage.get("/v1/diagnostics/worktrees");
        assert_eq!(worktrees["active_claim_total"], 0, "{told}");
        operations
    }

    /// A session is closed, once, for this.
    fn check_closed(&self, deadly: &Deadly, session_id: &str, reason: &str) {
        let events = deadly.stage.events(session_id);
        let closed = events.iter().filter(|event| event.kind == "session.closed");
        let reasons: Vec<String> = closed.map(|event| text(&event.payload, "reason")).collect();
        assert_eq!(reasons, [reason], "{}: {session_id}", self.name);
    }

    /// The lead goes too: nothing of this telling is left, and what is on disk is whole.
    fn end(&self, deadly: &Deadly) {
        deadly.stage.close(&self.crew.members[0]);
        deadly.no_keeper_is_left();
        crate::fault::verify(&deadly.stage);
    }
}

/// A member comes, works, and goes.
struct Life {
    nest: Nest,
    answer: Value,
}

impl Story for Life {
    fn tell(&mut self, deadly: &mut Deadly) {
        let fields = json!({"title": "Short", "prompt": "say here"});
        self.answer = self.nest.ask_for_member(deadly, fields).expect(200).json();
        let member = self.nest.member(deadly, &self.answer);
        self.nest.take_away(deadly, &member);
    }

    fn check(&mut self, deadly: &mut Deadly) {
        let operations = self.nest.check_empty(deadly, None);
        let of = |kind: &str, stage: &str| {
            let is_it = |it: &&Value| it["kind"] == kind && it["stage"] == stage;
            operations.iter().filter(is_it).count()
        };
        let told = format!("{}: {operations:?}", self.nest.name);
        assert_eq!(of("spawn_member_with_worktree", "completed"), 1, "{told}");
        assert_eq!(of("remove_spawned_member", "completed"), 1, "{told}");
        assert!(operations.len() <= 3, "one death takes back one operation: {told}");
        let events = self.nest.crew.events(&deadly.stage);
        for kind in ["team.member_joined", "team.member_left", "team_message.created"] {
            let times = events.iter().filter(|event| event.kind == kind).count();
            assert_eq!(times, 1, "{told}: {kind}");
        }
        assert_eq!(self.answer["journal_stage"], "completed", "{told}");
        let member = text(&self.answer["spawned_session"], "id");
        let turns = list(deadly.stage.get(&format!("/v1/sessions/{member}/turns")));
        assert_eq!(turns[0]["assistant_text"], "here", "{told}");
        self.nest.end(deadly);
    }
}

fn a_life_over_deaths(when: char) {
    let mut deadly = Deadly::new("");
    let repo = Repo::new(&deadly.stage.server.folder().join("repo"));
    let commits = die_at_each(&mut deadly, when, |deadly, name| Life {
        nest: Nest::begin(deadly, &repo, name),
        answer: Value::Null,
    });
    assert!(commits > 15, "{commits} commits");
}

#[test]
fn a_member_comes_and_goes_whole_whatever_commit_the_server_dies_behind() {
    a_life_over_deaths('a');
}

#[test]
fn a_member_comes_and_goes_whole_whatever_commit_the_server_dies_before() {
    a_life_over_deaths('b');
}

/// An agent that opens when `gate` is there; before that it ends at once, and may leave work behind.
fn gated(gate: &Path, leaves_work: bool) -> String {
    let before = if leaves_work { "echo precious > result; exit 1" } else { "exit 1" };
    slow_agent(&format!("[ -e {} ] || {{ {before}; }}", gate.display()), "")
}

/// A member whose agent does not open.
struct Undone<'a> {
    nest: Nest,
    gate: &'a Path,
    leaves_work: bool,
}

impl Undone<'_> {
    fn ask(&self, deadly: &mut Deadly) -> Reply {
        self.nest.ask_for_member(deadly, json!({"provider": "acp", "prompt": "say here"}))
    }

    fn kept(&self, deadly: &Deadly) -> Option<Value> {
        let mut worktrees = list(deadly.stage.get("/v1/worktrees"));
        worktrees.retain(|it| it["status"] == "ready" && it["worktree_name"] == *self.nest.name);
        assert_eq!(worktrees.len(), usize::from(self.leaves_work), "{worktrees:?}");
        let kept = worktrees.pop()?;
        let result = Repo::of(&kept).path.join("result");
        assert_eq!(fs::read_to_string(result).unwrap(), "precious\n", "{}", self.nest.name);
        Some(kept)
    }

    /// What was undone, and how often.
    fn check_undone(&self, deadly: &mut Deadly) {
        let kept = self.kept(deadly);
        let operations = self.nest.check_empty(deadly, kept.as_ref());
        let told = format!("{}: {operations:?}", self.nest.name);
        assert!(matches!(operations.len(), 1 | 2), "one death takes back one operation: {told}");
        for operation in &operations {
            assert_eq!(operation["stage"], "rolled_back", "{told}");
            let reason = text(operation, "reason");
            assert_eq!(operation["diagnostics"][0]["code"], reason.as_str(), "{told}");
            match operation["session_id"].as_str() {
                Some(id) => {
                    assert_eq!(reason, "session_create_failed", "{told}");
                    self.nest.check_closed(deadly, id, &format!("spawn_rollback_{reason}"));
                }
                None => assert_eq!(reason, "server_stopped", "{told}"),
            }
        }
        let events = self.nest.crew.events(&deadly.stage);
        for (kind, times) in [
            ("team_operation.started", operations.len()),
            ("team_operation.rolled_back", operations.len()),
            ("team.member_joined", 0),
            ("team_message.created", 0),
        ] {
            let seen = events.iter().filter(|event| event.kind == kind).count();
            assert_eq!(seen, times, "{told}: {kind}");
        }
    }
}

impl Story for Undone<'_> {
    fn tell(&mut self, deadly: &mut Deadly) {
        let reply = self.ask(deadly);
        // A name that is taken by what the first try has left is told before anything is made.
        if !(self.leaves_work && reply.status == 409) {
            check_error(&reply, 502, "agent_failed");
        }
    }

    fn check(&mut self, deadly: &mut Deadly) {
        self.check_undone(deadly);
        if !self.leaves_work {
            // The key has made nothing, so it is good for a member, under the same name.
            fs::write(self.gate, "").unwrap();
            let answer = self.ask(deadly).expect(200).json();
            let member = self.nest.member(deadly, &answer);
            self.nest.take_away(deadly, &member);
            self.nest.check_empty(deadly, None);
            fs::remove_file(self.gate).unwrap();
        }
        self.nest.end(deadly);
    }
}

fn undone_over_deaths(when: char, leaves_work: bool) {
    let folder = TempDir::new("gg-gate");
    let gate = folder.path().join("gate");
    let mut deadly = Deadly::new(&gated(&gate, leaves_work));
    let repo = Repo::new(&deadly.stage.server.folder().join("repo"));
    let commits = die_at_each(&mut deadly, when, |deadly, name| Undone {
        nest: Nest::begin(deadly, &repo, name),
        gate: &gate,
        leaves_work,
    });
    assert!(commits > 6, "{commits} commits");
}

#[test]
fn a_member_is_undone_whole_whatever_commit_the_server_dies_behind() {
    undone_over_deaths('a', false);
}

#[test]
fn a_member_is_undone_whole_whatever_commit_the_server_dies_before() {
    undone_over_deaths('b', false);
}

#[test]
fn work_of_a_member_that_is_undone_stays_whatever_commit_the_server_dies_behind() {
    undone_over_deaths('a', true);
}

#[test]
fn work_of_a_member_that_is_undone_stays_whatever_commit_the_server_dies_before() {
    undone_over_deaths('b', true);
}

/// A member leaves that is in the middle of a turn, with work in its worktree and mail that waits for it.
struct Leaving {
    nest: Nest,
    worktree: Value,
    member: String,
}

impl Leaving {
    fn begin(deadly: &mut Deadly, repo: &Repo, name: &str) -> Leaving {
        let nest = Nest::begin(deadly, repo, name);
        let fields = json!({"mode": "auto", "prompt": "run echo precious > result"});
        let answer = nest.ask_for_member(deadly, fields).expect(200).json();
        let member = nest.member(deadly, &answer);
        let stage = &deadly.stage;
        let after = stage.events(&member).last().unwrap().seq;
        // Quiet, so that the commits are those of the end.
        stage.start(&member, "run sleep 1000");
        stage.event(&member, "item.started", after);
        let body = json!({
            "sender_agent_id": nest.crew.members[0], "recipient_agent_id": member,
            "input": ["say late"],
        });
        let ack = stage.client.post(&nest.crew.path("messages"), &body).expect(200).json();
        nest.crew.told(stage, &ack["deliveries"][0], "deferred", "turn_running");
        Leaving { nest, worktree: answer["worktree"].clone(), member }
    }
}

impl Story for Leaving {
    fn tell(&mut self, deadly: &mut Deadly) {
        self.nest.take_away(deadly, &self.member);
    }

    fn check(&mut self, deadly: &mut Deadly) {
        let operations = self.nest.check_empty(deadly, Some(&self.worktree));
        let told = format!("{}: {operations:?}", self.nest.name);
        let removal = &operations[1..];
        assert_eq!(removal.len(), 1, "{told}");
        let shape = ["kind", "stage"].map(|field| text(&removal[0], field));
        assert_eq!(shape, ["remove_spawned_member", "completed"], "{told}");
        let notes = list(removal[0]["diagnostics"].clone());
        let codes: Vec<String> = notes.iter().map(|note| text(note, "code")).collect();
        assert_eq!(codes, ["worktree_kept"], "{told}");
        self.nest.check_closed(deadly, &self.member, "team_member_removed");
        let stage = &deadly.stage;
        let turns = list(stage.get(&format!("/v1/sessions/{}/turns", self.member)));
        let ends: Vec<String> = turns.iter().map(|turn| text(turn, "status")).collect();
        assert_eq!(ends, ["completed", "interrupted"], "{told}");
        let events = self.nest.crew.events(stage);
        for kind in ["team.member_left", "team_delivery.failed", "team_operation.completed"] {
            let times = events.iter().filter(|event| event.kind == kind).count();
            let times = times - usize::from(kind == "team_operation.completed");
            assert_eq!(times, 1, "{told}: {kind}");
        }
        let failed = events.iter().find(|event| event.kind == "team_delivery.failed").unwrap();
        assert_eq!(failed.payload["delivery"]["last_error_code"], "recipient_not_member");
        let result = Repo::of(&self.worktree).path.join("result");
        assert_eq!(fs::read_to_string(result).unwrap(), "precious\n", "{told}");
        self.nest.end(deadly);
    }
}

fn leaving_over_deaths(when: char) {
    let mut deadly = Deadly::new("");
    let repo = Repo::new(&deadly.stage.server.folder().join("repo"));
    let begin = |deadly: &mut Deadly, name: &str| Leaving::begin(deadly, &repo, name);
    let commits = die_at_each(&mut deadly, when, begin);
    assert!(commits > 5, "{commits} commits");
}

#[test]
fn a_member_at_work_leaves_whole_whatever_commit_the_server_dies_behind() {
    leaving_over_deaths('a');
}

#[test]
fn a_member_at_work_leaves_whole_whatever_commit_the_server_dies_before() {
    leaving_over_deaths('b');
}
