//! Team mail over the death of the server: whatever was accepted arrives once, in order, and nothing is cut that must
//! not be.

use super::follower::Follower;
use super::scene::{Scene, list, text};
use gooselake_harness::rng::Rng;
use gooselake_harness::stream::Record;
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashSet;
use std::time::Duration;

const ROUNDS: usize = 10;
const QUIET: Duration = Duration::from_millis(100);
const PRIORITIES: [&str; 3] = ["high", "normal", "low"];
const POLICIES: [&str; 4] = [
    "non_interrupting",
    "start_new_turn_only",
    "interrupt_after_tool_boundary",
    "immediate_interrupt",
];

/// A team of sessions, and all that was written in it.
struct Post {
    team: String,
    members: Vec<String>,
    sent: Vec<Sent>,
}

struct Sent {
    message: String,
    recipient: String,
    rank: usize,
    /// What no other message says.
    mark: String,
}

impl Post {
    fn new(scene: &Scene, size: usize) -> Post {
        let members: Vec<String> =
            (0..size).map(|number| scene.session(&format!("member-{number}"))).collect();
        let body = json!({
            "name": "post", "lead_agent_id": members[0], "member_agent_ids": members[1..],
        });
        let made = scene.client().post("/v1/teams", &body).expect(200).json();
        Post { team: text(&made["team"], "id"), members, sent: Vec::new() }
    }

    fn send(&mut self, scene: &Scene, to: usize, prompt: &str, policy: &str, rank: usize) {
        let mark = format!("mark-{};", self.sent.len());
        let body = json!({
            "sender_agent_id": self.members[0], "recipient_agent_id": self.members[to],
            "input": [format!("{prompt}\nsay {mark}")],
            "policy": policy, "priority": PRIORITIES[rank],
        });
        let path = format!("/v1/teams/{}/messages", self.team);
        let ack = scene.client().post(&path, &body).expect(200).json();
        let message = text(&ack["message"], "id");
        self.sent.push(Sent { message, recipient: self.members[to].clone(), rank, mark });
    }

    /// Reads on until no message waits for anybody.
    fn until_all_arrived(&self, follower: &mut Follower) {
        let completed = RefCell::new(HashSet::new());
        follower.until("the last message", |event| {
            if event.kind == "team_message.completed" {
                completed.borrow_mut().insert(text(&event.payload, "message_id"));
            }
            completed.borrow().len() == self.sent.len()
        });
    }

    /// Everything that was accepted is in one turn, the agent has read it once, and the order was kept.
    fn prove(&self, scene: &Scene) {
        let path = format!("/v1/teams/{}/deliveries?limit=10000", self.team);
        let deliveries = list(scene.get(&path));
        assert_eq!(deliveries.len(), self.sent.len());
        for member in &self.members {
            let last = scene.queued(member, "history");
            let known = text(&scene.ended(member, &last, "completed"), "assistant_text");
            let turns = scene.turns(member);
            let mut arrived: Vec<(usize, usize)> = Vec::new();
            for (number, sent) in self.sent.iter().enumerate() {
                if sent.recipient != *member {
                    continue;
                }
                let delivery =
                    deliveries.iter().find(|it| it["message_id"] == sent.message.as_str());
                let delivery = delivery.expect("it has a delivery");
                assert_eq!(delivery["status"], "injected", "{delivery}");
                // Its own mark, not a title that an agent has made of an earlier one.
                let opening = format!("<team_msg kind=\\\"dm\\\" id=\\\"{}", sent.message);
                let carries = |turn: &&Value| turn["input"].to_string().contains(&opening);
                let carrying: Vec<&Value> = turns.iter().filter(carries).collect();
                assert_eq!(carrying.len(), 1, "{delivery} is carried by {carrying:?}");
                assert_eq!(carrying[0]["id"], delivery["injected_turn_id"]);
                let place = turns.iter().position(|turn| turn["id"] == carrying[0]["id"]);
                let mark = format!("say {}", sent.mark);
                assert_eq!(known.matches(&mark).count(), 1, "{} in {known}", sent.mark);
                let within = carrying[0]["input"].to_string().find(&opening);
                let order = place.expect("it is one of them") << 32 | within.expect("it is there");
                arrived.push((sent.rank << 20 | number, order));
            }
            prove_order(&arrived, member);
            self.prove_cuts(&turns, &deliveries);
            scene.prove(member);
        }
    }

    /// A turn of mail is only cut for mail of a higher priority.
    fn prove_cuts(&self, turns: &[Value], deliveries: &[Value]) {
        let rank = |turn: &Value| {
            let carried = deliveries.iter().filter(|it| it["injected_turn_id"] == turn["id"]);
            let ranks = carried.map(|it| {
                let priority = text(it, "priority");
                PRIORITIES.iter().position(|word| *word == priority).expect("one of three")
            });
            ranks.min()
        };
        let mail: Vec<&Value> = turns.iter().filter(|turn| turn["source"] == "team").collect();
        for (place, turn) in mail.iter().enumerate() {
            if turn["status"] == "interrupted" {
                let next = mail.get(place + 1).expect("something has cut it");
                assert!(rank(next) < rank(turn), "{turn} was cut for {next}");
            }
        }
    }
}

/// Within a rank, what was written first came first.
fn prove_order(arrived: &[(usize, usize)], member: &str) {
    for (one, first) in arrived.iter().enumerate() {
        for second in &arrived[one + 1..] {
            if first.0 >> 20 == second.0 >> 20 {
                assert!(first.1 < second.1, "{member}: out of order: {arrived:?}");
            }
        }
    }
}

fn injected(events: &[Record]) -> Vec<String> {
    let injected = events.iter().filter(|event| event.kind == "team_delivery.injected");
    injected.map(|event| text(&event.payload["delivery"], "id")).collect()
}

#[test]
fn mail_arrives_once_and_in_order_over_many_deaths() {
    let mut rng = Rng::from_environment();
    let mut scene = Scene::new();
    let mut post = Post::new(&scene, 4);
    let mut follower = Follower::of_team(&post.team);
    for _ in 0..ROUNDS {
        follower.attach(&scene);
        for member in &post.members {
            if rng.chance(40) {
                scene.queued(member, "slow 10 5\nrun sleep 0.05\nslow 10 5");
            }
        }
        for _ in 0..2 + rng.below(6) {
            let to = rng.below(4) as usize;
            let prompt = *rng.pick(&["", "slow 20 5", "run sleep 0.05\nslow 5 5"]);
            let (policy, rank) = (*rng.pick(&POLICIES), rng.below(3) as usize);
            post.send(&scene, to, prompt, policy, rank);
        }
        follower.read(rng.below(30) as usize, QUIET);
        scene.server.kill9();
        follower.drain();
        scene.server.restart();
    }
    follower.attach(&scene);
    post.until_all_arrived(&mut follower);
    post.prove(&scene);
    follower.prove(&scene);
    let mut once = injected(&follower.seen);
    assert_eq!(once.len(), post.sent.len());
    once.sort();
    once.dedup();
    assert_eq!(once.len(), post.sent.len(), "something arrived twice");
    scene.finish();
}

#[test]
fn mail_that_was_accepted_and_looked_at_by_nobody_arrives_after_a_death() {
    let mut scene = Scene::new();
    let mut post = Post::new(&scene, 2);
    for _ in 0..5 {
        // The kill comes right behind the answer: before, in or after the attempt.
        post.send(&scene, 1, "", "start_new_turn_only", 1);
        scene.crash();
    }
    let mut follower = Follower::of_team(&post.team);
    follower.attach(&scene);
    post.until_all_arrived(&mut follower);
    post.prove(&scene);
    scene.finish();
}

#[test]
fn an_interrupt_for_mail_is_carried_out_over_a_death() {
    let mut scene = Scene::new();
    let mut post = Post::new(&scene, 2);
    let member = post.members[1].clone();
    let running = scene.turn(&member, "slow 100000 5");
    let mut words = Follower::of_session(&member);
    words.attach(&scene);
    words.until("its first word", |event| event.kind == "item.delta");
    post.send(&scene, 1, "", "immediate_interrupt", 1);
    words.until("the interrupt", |event| event.kind == "turn.interrupt_requested");
    scene.server.kill9();
    words.drain();
    scene.server.restart();
    scene.ended(&member, &running, "interrupted");
    let mut follower = Follower::of_team(&post.team);
    follower.attach(&scene);
    post.until_all_arrived(&mut follower);
    post.prove(&scene);
    scene.finish();
}

#[test]
fn mail_that_waits_for_a_turn_goes_when_it_ended_while_the_server_was_away() {
    let mut scene = Scene::new();
    let mut post = Post::new(&scene, 2);
    let member = post.members[1].clone();
    let running = scene.turn(&member, "slow 20 10\nrun touch done");
    post.send(&scene, 1, "", "non_interrupting", 1);
    let mut follower = Follower::of_team(&post.team);
    follower.attach(&scene);
    follower.until("it waits", |event| event.kind == "team_delivery.deferred");
    scene.server.kill9();
    follower.drain();
    scene.await_file("member-1", "done");
    scene.server.restart();
    scene.ended(&member, &running, "completed");
    follower.attach(&scene);
    post.until_all_arrived(&mut follower);
    post.prove(&scene);
    follower.prove(&scene);
    scene.finish();
}
