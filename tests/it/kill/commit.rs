//! The server dies at each commit of a story of mail in turn, once right behind it and once right before it.
//!
//! What the client is not answered it asks again under the same key, and in the end the story must have gone as if
//! nobody had died.

use crate::crew::{Crew, prompts};
use crate::deadly::{Deadly, Story, die_at_each};
use crate::stage::{list, text};
use serde_json::{Value, json};
use std::collections::HashMap;

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

/// Mail for a team of three.
struct Post {
    crew: Crew,
    name: String,
    letters: Vec<Letter>,
}

impl Story for Post {
    fn tell(&mut self, deadly: &mut Deadly) {
        self.letters = tell(deadly, &self.crew);
        deadly.until_mail_rests(&self.crew);
    }

    fn check(&mut self, deadly: &mut Deadly) {
        deadly.until_mail_rests(&self.crew);
        check(deadly, &self.crew, &self.letters, &self.name);
        for member in &self.crew.members {
            deadly.stage.close(member);
        }
    }
}

fn mail_over_deaths(when: char) {
    let mut deadly = Deadly::new("");
    let commits = die_at_each(&mut deadly, when, |deadly, name| Post {
        crew: Crew::new(&deadly.stage, 3),
        name: name.to_owned(),
        letters: Vec::new(),
    });
    assert!(commits > 15, "{commits} commits");
}

#[test]
fn mail_arrives_once_and_in_order_whatever_commit_the_server_dies_behind() {
    mail_over_deaths('a');
}

#[test]
fn mail_arrives_once_and_in_order_whatever_commit_the_server_dies_before() {
    mail_over_deaths('b');
}
