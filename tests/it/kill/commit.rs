//! The server dies at each commit of a story in turn, once right behind it and once right before it.
//!
//! A story is told once to count its commits, then once for each of them: the library `commit.c` is put between SQLite
//! and the C library and ends the process there, so the server itself has no part in it. What the client is not
//! answered it asks again under the same key, and in the end the story must have gone as if nobody had died.

use crate::crew::{Crew, prompts};
use crate::stage::{Stage, list, text};
use gooselake_harness::preload;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::collections::HashMap;
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
        let library = preload::library("commit", include_str!("commit.c"));
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
    pub(crate) fn arm(&self, when: char, number: usize) {
        fs::write(&self.order, format!("{when}{number}")).unwrap();
    }

    /// Nobody dies any more; how many commits there were since [`Deadly::arm`], and whether the server died at one.
    pub(crate) fn disarm(&mut self) -> (usize, bool) {
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

    fn revive(&mut self) {
        self.stage.server.wait_end();
        self.deaths += 1;
        drop(fs::remove_file(&self.order));
        self.stage.restart();
    }

    /// Asks until it is answered, by one server or the next.
    pub(crate) fn ask(&mut self, method: &str, path: &str, body: &Value, key: &str) -> Value {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key)];
        let bytes = body.to_string();
        loop {
            match self.stage.client.try_request(method, path, &headers, bytes.as_bytes()) {
                Ok(reply) => return reply.expect(200).json(),
                // There is one death, so this ends.
                Err(_) => self.revive(),
            }
        }
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
}

/// What was written in one telling: the recipient's place, rank, mark, and the delivery.
struct Letter {
    to: usize,
    rank: usize,
    mark: String,
    message_id: String,
}

const PRIORITIES: [&str; 3] = ["high", "normal", "low"];

/// Mail under each policy for a member that works, and for one that does not.
fn tell(deadly: &mut Deadly, crew: &Crew) -> Vec<Letter> {
    let member = &crew.members[1];
    let path = format!("/v1/sessions/{member}/turns");
    deadly.ask("POST", &path, &json!({"input": ["slow 100000 20"]}), "work");
    let mail = [
        (1, "non_interrupting", 1),
        (1, "start_new_turn_only", 1),
        (1, "non_interrupting", 2),
        (2, "interrupt_after_tool_boundary", 1),
        (1, "immediate_interrupt", 0),
        (1, "non_interrupting", 1),
    ];
    let mut letters = Vec::new();
    for (number, (to, policy, rank)) in mail.into_iter().enumerate() {
        let mark = format!("say mark-{number}");
        let body = json!({
            "sender_agent_id": crew.members[0], "recipient_agent_id": crew.members[to],
            "input": [mark], "policy": policy, "priority": PRIORITIES[rank],
        });
        let ack = deadly.ask("POST", &crew.path("messages"), &body, &mark);
        letters.push(Letter { to, rank, mark, message_id: text(&ack["message"], "id") });
    }
    letters
}

/// All is delivered, and every turn is over.
fn comes_to_rest(deadly: &mut Deadly, crew: &Crew) {
    deadly.until("all is delivered", &crew.path("deliveries"), |deliveries| {
        list(deliveries.clone()).iter().all(|delivery| delivery["status"] == "injected")
    });
    for member in &crew.members[1..] {
        let path = format!("/v1/sessions/{member}/turns");
        deadly.until("every turn is over", &path, |turns| {
            list(turns.clone()).iter().all(|turn| !turn["completed_at"].is_null())
        });
    }
}

fn check(deadly: &Deadly, crew: &Crew, letters: &[Letter], told: &str) {
    let stage = &deadly.stage;
    let events = crew.events(stage);
    for letter in letters {
        let injected = events.iter().filter(|event| {
            let message_id = &event.payload["delivery"]["message_id"];
            event.kind == "team_delivery.injected" && *message_id == letter.message_id.as_str()
        });
        assert_eq!(injected.count(), 1, "{told}: {}", letter.mark);
    }
    let written = events.iter().filter(|event| event.kind == "team_message.created").count();
    assert_eq!(written, letters.len(), "{told}: written down once");
    for to in 1..crew.members.len() {
        let turns = list(stage.get(&format!("/v1/sessions/{}/turns", crew.members[to])));
        let (mail, own): (Vec<&Value>, Vec<&Value>) =
            turns.iter().partition(|turn| turn["source"] == "team");
        for turn in &mail {
            assert_eq!(turn["status"], "completed", "{told}: mail is not cut: {turn}");
        }
        for turn in own {
            assert_eq!(turn["status"], "interrupted", "{told}: {turn}");
        }
        let said: Vec<String> = mail.iter().flat_map(|turn| prompts(turn)).collect();
        let place = |letter: &Letter| {
            let mut places =
                said.iter().enumerate().filter(|(_, words)| **words == letter.mark).map(|it| it.0);
            let place = places.next();
            assert!(place.is_some() && places.next().is_none(), "{told}: {} {said:?}", letter.mark);
            place
        };
        let mut last: HashMap<usize, Option<usize>> = HashMap::new();
        for letter in letters.iter().filter(|letter| letter.to == to) {
            let place = place(letter);
            let before = last.insert(letter.rank, place);
            assert!(before.is_none_or(|before| before < place), "{told}: order of {said:?}");
        }
    }
}

/// Tells the story once without a death, then once for each of its commits.
fn die_at_each(when: char) {
    let mut deadly = Deadly::new("");
    let mut commits = 1000;
    let mut died = 0;
    let mut number = 0;
    while number <= commits {
        let crew = Crew::new(&deadly.stage, 3);
        deadly.arm(when, if number == 0 { 1000 } else { number });
        let letters = tell(&mut deadly, &crew);
        comes_to_rest(&mut deadly, &crew);
        let (seen, has_died) = deadly.disarm();
        if number == 0 {
            assert!(!has_died);
            commits = seen;
        }
        comes_to_rest(&mut deadly, &crew);
        check(&deadly, &crew, &letters, &format!("{when}{number} of {commits}"));
        for member in &crew.members {
            deadly.stage.close(member);
        }
        died += usize::from(has_died);
        number += 1;
    }
    // What threads commit at once is one commit, so a story may have a few less than when it was counted.
    assert!(commits > 15 && died * 10 > commits * 7, "{died} deaths in {commits} commits");
}

#[test]
fn mail_arrives_once_and_in_order_whatever_commit_the_server_dies_behind() {
    die_at_each('a');
}

#[test]
fn mail_arrives_once_and_in_order_whatever_commit_the_server_dies_before() {
    die_at_each('b');
}
