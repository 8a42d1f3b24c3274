//! The server dies at each commit of a story in which mail joins turns, once right behind it and once right before it.
//!
//! Some of it comes too late for its turn, or its agent does not live to answer: it comes back and is said to the agent
//! once more, ahead of what was written later. Some of it is taken. What counts is what the stand-in has heard.

use super::stand_in;
use crate::crew::{Crew, prompts};
use crate::deadly::{Deadly, Story, die_at_each};
use crate::stage::{list, text};
use gooselake_harness::proof;
use gooselake_harness::temp::TempDir;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// A turn that waits for a steer, and what becomes of the mail that comes.
#[derive(Clone, Copy)]
enum Part {
    /// The agent does not hear it. The word is what `fake.sh` goes by.
    ComesBack(&'static str),
    Joins,
}

/// A lead, and a member whose agent is the stand-in.
struct Joining<'a> {
    crew: Crew,
    name: String,
    parts: &'static [Part],
    /// What the stand-in hears.
    log: &'a Path,
    /// The id of each message by what it says.
    letters: Vec<(String, String)>,
}

impl Joining<'_> {
    /// Starts a turn that says a word and waits, and waits for that word.
    fn hold(&self, deadly: &mut Deadly, part: usize) {
        let path = format!("/v1/sessions/{}/turns", self.crew.members[1]);
        let key = format!("hold-{}-{part}", self.name);
        let turn = deadly.ask("POST", &path, &json!({"input": ["hold"]}), &key);
        let path = format!("{path}/{}/items", text(&turn, "turn_id"));
        deadly.until("it says a word", &path, |items| {
            list(items.clone()).iter().any(|item| item["text"] == "holding")
        });
    }

    fn write(&mut self, deadly: &mut Deadly, words: &str, policy: &str, priority: &str) {
        let words = format!("{words} {}", self.name);
        let body = json!({
            "sender_agent_id": self.crew.members[0], "recipient_agent_id": self.crew.members[1],
            "input": [words], "policy": policy, "priority": priority,
        });
        let ack = deadly.ask("POST", &self.crew.path("messages"), &body, &words);
        self.letters.push((words, text(&ack["message"], "id")));
    }

    /// How often the agent was told these words in a call of the method.
    fn heard(&self, method: &str, words: &str) -> usize {
        let (method, words) = (format!("\"{method}\""), format!("\"{words}\""));
        let log = fs::read_to_string(self.log).unwrap();
        log.lines().filter(|line| line.contains(&method) && line.contains(&words)).count()
    }

    /// How the message got into turns, and how often it came back.
    fn check_letter(&self, deadly: &Deadly, words: &str, message_id: &str) {
        let told = self.crew.events(&deadly.stage).into_iter().filter(|event| {
            event.payload["delivery"]["message_id"] == message_id
                && matches!(
                    event.kind.as_str(),
                    "team_delivery.injected" | "team_delivery.deferred"
                )
        });
        let mut seen: Vec<String> = told
            .filter_map(|event| {
                let delivery = &event.payload["delivery"];
                match event.kind.as_str() {
                    "team_delivery.injected" => Some(text(delivery, "injection_strategy")),
                    _ if delivery["deferred_reason"] == "steer_refused" => Some("back".to_owned()),
                    _ => None,
                }
            })
            .collect();
        // It may be told more than once why it waits.
        seen.dedup();
        let (ways, steered, started): (&[&str], usize, usize) = match words.split(' ').next() {
            Some("late" | "dying") => (&["runtime_steer_turn", "back", "runtime_send_turn"], 1, 1),
            Some("then") => (&["runtime_send_turn"], 0, 1),
            _ => (&["runtime_steer_turn"], 1, 0),
        };
        assert_eq!(seen, ways, "{words}");
        assert_eq!(self.heard("turn/steer", words), steered, "{words}");
        assert_eq!(self.heard("turn/start", words), started, "{words}");
    }

    /// All that the member was told, in order: what began its turns and what joined them.
    fn said(&self, deadly: &Deadly) -> String {
        let member = &self.crew.members[1];
        let turns = list(deadly.stage.get(&format!("/v1/sessions/{member}/turns")));
        let mut said = String::new();
        for turn in &turns {
            assert_eq!(turn["status"], "completed", "{}: {turn}", self.name);
            match turn["source"] == "team" {
                true => said += &prompts(turn).join("\n"),
                // What came back is in the turn that did not hear it, too.
                false if turn["assistant_text"] == "holding\n\nsteered" => {
                    let items = deadly.stage.items(member, &text(turn, "id"));
                    let is_user = |item: &&Value| item["type"] == "user_message";
                    items.iter().filter(is_user).for_each(|item| said += &text(item, "text"));
                }
                false => {}
            }
        }
        said
    }
}

impl Story for Joining<'_> {
    fn tell(&mut self, deadly: &mut Deadly) {
        for (number, part) in self.parts.iter().enumerate() {
            self.hold(deadly, number);
            match *part {
                Part::ComesBack(word) => {
                    self.write(deadly, word, "immediate_interrupt", "high");
                    self.write(deadly, "then", "non_interrupting", "high");
                }
                Part::Joins => {
                    self.write(deadly, "patient", "non_interrupting", "normal");
                    self.write(deadly, "pressing", "interrupt_after_tool_boundary", "normal");
                }
            }
            deadly.until_mail_rests(&self.crew);
        }
    }

    fn check(&mut self, deadly: &mut Deadly) {
        deadly.until_mail_rests(&self.crew);
        let events = self.crew.events(&deadly.stage);
        let written = events.iter().filter(|event| event.kind == "team_message.created").count();
        assert_eq!(written, self.letters.len(), "{}: written down once", self.name);
        let said = self.said(deadly);
        let mut last = 0;
        for (words, message_id) in &self.letters {
            self.check_letter(deadly, words, message_id);
            let place = said.find(words.as_str());
            assert!(place.is_some_and(|place| place >= last), "{words} out of order in {said}");
            assert_eq!(said.matches(words.as_str()).count(), 1, "{words} in {said}");
            last = place.unwrap_or_default();
        }
        let member = &self.crew.members[1];
        proof::log(&deadly.stage.events(member));
        self.crew.members.iter().for_each(|member| drop(deadly.stage.close(member)));
        deadly.no_keeper_is_left();
        crate::fault::verify(&deadly.stage);
    }
}

fn joins_over_deaths(when: char, parts: &'static [Part]) {
    let folder = TempDir::new("gg-stand-in");
    let (config, log) = stand_in(folder.path(), "");
    let mut deadly = Deadly::new(&format!("[providers.demo]\nenabled = true\n{config}"));
    let commits = die_at_each(&mut deadly, when, |deadly, name| {
        let member = deadly.stage.create(&json!({"provider": "codex"}));
        let members = vec![deadly.stage.session(), text(&member, "id")];
        let crew = Crew::of(&deadly.stage, members);
        // One name is not the beginning of another.
        let name = format!("{name}.");
        Joining { crew, name, parts, log: &log, letters: Vec::new() }
    });
    assert!(commits > 12, "{commits} commits");
}

const LATE_OR_IN_TIME: &[Part] = &[Part::ComesBack("late"), Part::Joins];
const DYING: &[Part] = &[Part::ComesBack("dying")];

#[test]
fn mail_that_joins_turns_is_heard_once_whatever_commit_the_server_dies_behind() {
    joins_over_deaths('a', LATE_OR_IN_TIME);
}

#[test]
fn mail_that_joins_turns_is_heard_once_whatever_commit_the_server_dies_before() {
    joins_over_deaths('b', LATE_OR_IN_TIME);
}

#[test]
fn mail_whose_agent_dies_comes_back_whatever_commit_the_server_dies_behind() {
    joins_over_deaths('a', DYING);
}

#[test]
fn mail_whose_agent_dies_comes_back_whatever_commit_the_server_dies_before() {
    joins_over_deaths('b', DYING);
}
