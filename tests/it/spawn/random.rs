//! Members that come and go at random, with kill -9 at random moments: every operation comes to an end, and what there
//! is then is what the journal says.
//!
//! What is held against the server is the journal itself: each member that it says was made is there, told once and at
//! work, or was taken away; of each that it says was undone nothing is left. No session and no worktree is there that
//! no operation has. `GG_TEST_SEED` repeats a run, `GG_TEST_STEPS` makes it longer.

use super::scene::{Nest, slow_agent};
use crate::stage::{SOON, list, text};
use crate::worktree::scene::is_there;
use gooselake_harness::rng::Rng;
use gooselake_harness::thread;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

const STEPS: u64 = 36;
/// A crash comes within this time of a request: a member takes about as long to come, and to go.
const CRASH_WITHIN_MS: u64 = 160;

struct World {
    nest: Nest,
    rng: Rng,
    number: u64,
    crashes: usize,
}

#[test]
fn members_are_there_or_not_whatever_is_killed_when() {
    // An agent that never opens: what is made with it is undone.
    let nest = Nest::with_config(&slow_agent("exit 1", ""));
    let mut world = World { nest, rng: Rng::from_environment(), number: 0, crashes: 0 };
    let steps = std::env::var("GG_TEST_STEPS").ok().and_then(|steps| steps.parse().ok());
    for step in 0..steps.unwrap_or(STEPS) {
        world.step(step);
    }
    world.await_operations();
    world.prove();
    assert!(world.crashes > 3, "{} crashes", world.crashes);
}

impl World {
    /// Of four steps, two make a member, one makes one that can not be, and one takes one away.
    fn step(&mut self, step: u64) {
        let members = self.nest.members();
        let (method, path, body) = if step % 4 == 3 && members.len() > 1 {
            let gone = self.rng.pick(&members[1..]).clone();
            ("DELETE", self.nest.crew.path(&format!("members/{gone}")), Value::Null)
        } else {
            ("POST", self.nest.crew.path("members/spawn"), self.wish(step % 4 == 1))
        };
        let client = self.nest.stage().client.clone();
        if !self.rng.chance(50) {
            let reply = match body {
                Value::Null => client.delete(&path),
                body => client.post(&path, &body),
            };
            assert!(matches!(reply.status, 200 | 404 | 502), "{reply}");
            return;
        }
        let pause = Duration::from_millis(self.rng.below(CRASH_WITHIN_MS));
        let asking = thread::spawn("asking", move || {
            let headers: &[(&str, &str)] = &[("Content-Type", "application/json")];
            let bytes = if body.is_null() { String::new() } else { body.to_string() };
            client.try_request(method, &path, headers, bytes.as_bytes())
        })
        .unwrap();
        // The moment is what is tried out here: nothing is awaited.
        let _: Option<()> = wait::try_until(pause, || None);
        self.nest.scene.stage.server.kill9();
        // An answer that came before the crash is as good as none.
        drop(asking.join());
        self.nest.scene.stage.restart();
        self.crashes += 1;
    }

    /// A member with a task of its own, with or without a worktree, whose agent opens or not.
    fn wish(&mut self, is_hopeless: bool) -> Value {
        self.number += 1;
        let mut fields = json!({"prompt": format!("say done-{};", self.number)});
        if self.rng.chance(70) {
            fields["worktree"] = json!({"name": format!("w{}", self.number)});
        }
        if is_hopeless {
            fields["provider"] = json!("acp");
        }
        self.nest.body(fields)
    }

    fn await_operations(&self) {
        wait::until(SOON * 2, "every operation is over", || {
            let is_over = |operation: &Value| !operation["finished_at"].is_null();
            self.nest.operations().iter().all(is_over).then_some(())
        });
        wait::until(SOON, "what was cut off is taken back", || {
            let is_settled = |record: &Value| {
                !matches!(text(record, "status").as_str(), "creating" | "removing")
                    && record["cleanup_reason"].is_null()
            };
            self.nest.worktrees().iter().all(is_settled).then_some(())
        });
    }

    fn prove(&self) {
        let operations = self.nest.operations();
        let removed: BTreeSet<String> = operations
            .iter()
            .filter(|operation| operation["kind"] == "remove_spawned_member")
            .map(|operation| text(operation, "session_id"))
            .collect();
        let mut members = vec![self.nest.lead().to_owned()];
        let mut sessions: BTreeSet<String> = members.iter().cloned().collect();
        let mut places = BTreeSet::new();
        let (mut made, mut undone) = (0, 0);
        for operation in &operations {
            sessions.extend(operation["session_id"].as_str().map(str::to_owned));
            if operation["kind"] == "remove_spawned_member" {
                self.prove_closed(operation);
            } else if operation["stage"] == "completed" {
                made += 1;
                let session_id = text(operation, "session_id");
                self.prove_told_once(operation, removed.contains(&session_id));
                if !removed.contains(&session_id) {
                    places.extend(operation["worktree_id"].as_str().map(str::to_owned));
                    members.push(session_id);
                }
            } else {
                assert_eq!(operation["stage"], "rolled_back", "{operation}");
                undone += 1;
                self.prove_closed(operation);
            }
        }
        assert!(made > 2 && undone > 2 && !removed.is_empty(), "{made} {undone} {removed:?}");
        let mut there = self.nest.members();
        there.sort();
        members.sort();
        assert_eq!(there, members);
        let all: BTreeSet<String> =
            self.nest.sessions().iter().map(|session| text(session, "id")).collect();
        assert_eq!(all, sessions, "a session that no operation has");
        let living: BTreeSet<String> = self
            .nest
            .worktrees()
            .iter()
            .filter(|worktree| worktree["status"] != "deleted")
            .map(|worktree| {
                assert!(is_there(worktree), "{worktree}");
                assert_eq!(worktree["active_claim_count"], 1, "{worktree}");
                text(worktree, "id")
            })
            .collect();
        assert_eq!(living, places, "a worktree that no member has");
    }

    /// Its session, if it came to one, is closed, and nothing of its agent is left.
    fn prove_closed(&self, operation: &Value) {
        if let Some(session_id) = operation["session_id"].as_str() {
            let session = self.nest.stage().record(session_id);
            assert_eq!((&session["status"], &session["live"]), (&json!("closed"), &json!(false)));
        }
    }

    /// The member was told once what it is to do, and did it, unless it was taken away before.
    fn prove_told_once(&self, operation: &Value, is_removed: bool) {
        let (session_id, message_id) =
            (text(operation, "session_id"), text(operation, "message_id"));
        let path = self.nest.crew.path(&format!("deliveries?message_id={message_id}"));
        let deliveries = list(self.nest.stage().get(&path));
        assert_eq!(deliveries.len(), 1, "{deliveries:?}");
        let delivery = &deliveries[0];
        if is_removed && delivery["status"] == "failed" {
            return;
        }
        let turn_id = self.nest.crew.injected(self.nest.stage(), delivery);
        let turn = self.nest.stage().ended(&session_id, &turn_id);
        assert!(is_removed || turn["status"] == "completed", "{turn}");
        let turns = list(self.nest.stage().get(&format!("/v1/sessions/{session_id}/turns")));
        assert_eq!(turns.len(), 1, "{turns:?}");
    }
}
