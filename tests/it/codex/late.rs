//! Mail that was to join a turn and whose agent says, or does not live to say, that it has not heard it.

use super::Scene;
use crate::crew::{Crew, kinds, prompts};
use crate::stage::{Stage, text};
use gooselake_harness::stream::Record;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::process::Command;

/// A lead and a member whose turn waits for a steer; the turn.
fn crew(scene: &Scene) -> (Crew, String) {
    let pipe = Command::new("mkfifo").arg(scene.log.with_extension("go")).status();
    assert!(pipe.unwrap().success());
    let crew = Crew::of(&scene.stage, vec![scene.session(), scene.session()]);
    let turn_id = scene.holding(&crew.members[1]);
    (crew, turn_id)
}

/// What the team's log has of one delivery.
fn told(crew: &Crew, stage: &Stage, delivery: &Value) -> Vec<Record> {
    let events = crew.events(stage).into_iter();
    events.filter(|event| event.payload["delivery"]["id"] == delivery["id"]).collect()
}

/// Lets the agents answer that wait for that; holds for as long as the answer lives.
fn let_answer(scene: &Scene) -> File {
    let path = scene.log.with_extension("go");
    let mut pipe = OpenOptions::new().read(true).write(true).open(path).unwrap();
    pipe.write_all(b"go\n").unwrap();
    pipe
}

fn comes_back(crew: &Crew, scene: &Scene, delivery: &Value) -> Value {
    let back = crew.told(&scene.stage, delivery, "deferred", "steer_refused");
    assert_eq!(back["injected_turn_id"], Value::Null);
    assert_eq!(back["last_error_code"], "steer_refused");
    back
}

/// Waits until the delivery is in a turn of its own, and gives that turn when it has ended.
fn carried(crew: &Crew, scene: &Scene, delivery: &Value) -> Value {
    let mut stream = crew.stream(&scene.stage);
    let seen = stream.until_match("a turn of its own", crate::stage::SOON, |frame| {
        let told = &frame.record().payload["delivery"];
        told["id"] == delivery["id"] && told["injection_strategy"] == "runtime_send_turn"
    });
    let turn_id = text(&seen.last().unwrap().record().payload["delivery"], "injected_turn_id");
    scene.stage.ended(&crew.members[1], &turn_id)
}

#[test]
fn mail_that_comes_too_late_for_its_turn_goes_on_as_mail() {
    let scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let policy = json!({"policy": "immediate_interrupt", "priority": "high"});
    let delivery = crew.send(&scene.stage, 1, "this is late", policy);
    let joined = crew.told(&scene.stage, &delivery, "injected", "");
    assert_eq!(joined["injected_turn_id"], turn_id.as_str());
    comes_back(&crew, &scene, &delivery);
    let turn = carried(&crew, &scene, &delivery);
    assert_eq!((&turn["source"], &turn["status"]), (&json!("team"), &json!("completed")));
    assert_eq!(prompts(&turn)[1], "this is late");
    let log = told(&crew, &scene.stage, &delivery);
    let states = ["pending", "injecting", "injected", "deferred", "injecting", "injected"];
    assert_eq!(kinds(&log), states.map(|state| format!("team_delivery.{state}")));
    let last = crew.delivery(&scene.stage, &delivery);
    assert_eq!((&last["priority"], &last["attempts"]), (&json!("high"), &json!(2)));
    assert_eq!((scene.heard("turn/steer"), scene.heard("turn/start")), (1, 2));
    let events = scene.stage.events(&crew.members[1]);
    assert!(!kinds(&events).contains(&"turn.queued"), "it is nobody's turn but the mail's");
}

#[test]
fn what_comes_back_is_ahead_of_later_mail_though_the_server_is_killed() {
    let mut scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let member = &crew.members[1];
    let late = crew.send_by(&scene.stage, 1, "very late", "immediate_interrupt");
    assert_eq!(crew.injected(&scene.stage, &late), turn_id);
    scene.stage.ended(member, &turn_id);
    scene.stage.server.kill9();
    scene.stage.restart();
    let next = crew.send(&scene.stage, 1, "then this", json!({}));
    // The session does not take it while the agent has yet to say what became of the first.
    crew.told(&scene.stage, &next, "deferred", "");
    let pipe = let_answer(&scene);
    comes_back(&crew, &scene, &late);
    let turn = carried(&crew, &scene, &late);
    let second = carried(&crew, &scene, &next);
    let turns = if second["id"] == turn["id"] { vec![&turn] } else { vec![&turn, &second] };
    let said: Vec<String> = turns.into_iter().flat_map(prompts).collect();
    let place = |words: &str| said.iter().position(|said| said == words).unwrap();
    assert!(place("very late") < place("then this"), "{said:?}");
    let times = said.iter().filter(|said| *said == "very late").count();
    assert_eq!((times, scene.heard("turn/steer")), (1, 1));
    drop(pipe);
}

#[test]
fn what_comes_back_for_one_who_has_left_goes_no_further() {
    let scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let late = crew.send_by(&scene.stage, 1, "very late", "immediate_interrupt");
    assert_eq!(crew.injected(&scene.stage, &late), turn_id);
    scene.stage.client.delete(&crew.path(&format!("members/{}", crew.members[1]))).expect(200);
    let pipe = let_answer(&scene);
    assert_eq!(crew.failed(&scene.stage, &late), "recipient_not_member");
    assert_eq!(scene.heard("turn/start"), 1);
    drop(pipe);
}

#[test]
fn mail_that_a_turn_does_not_take_is_not_said_to_it_again() {
    let scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let delivery = crew.send_by(&scene.stage, 1, "to the deaf", "immediate_interrupt");
    comes_back(&crew, &scene, &delivery);
    let turn = carried(&crew, &scene, &delivery);
    assert_eq!(turn["assistant_text"], "answered");
    assert_eq!(scene.stage.ended(&crew.members[1], &turn_id)["status"], "interrupted");
    assert_eq!((scene.heard("turn/steer"), scene.heard("turn/interrupt")), (1, 1));
}

#[test]
fn what_an_agent_did_not_live_to_answer_is_said_to_the_next_one() {
    let scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let member = &crew.members[1];
    let delivery = crew.send_by(&scene.stage, 1, "to the dying", "immediate_interrupt");
    comes_back(&crew, &scene, &delivery);
    assert_eq!(carried(&crew, &scene, &delivery)["assistant_text"], "answered");
    assert_eq!(scene.stage.ended(member, &turn_id)["status"], "completed");

    let turn_id = scene.holding(&crew.members[0]);
    assert_eq!(scene.steer(&crew.members[0], "dying words", "k1"), turn_id);
    let queued = scene.stage.event(&crew.members[0], "turn.queued", 0);
    assert_eq!(queued.payload["reason"], "steer_refused");
    let own = scene.stage.ended(&crew.members[0], &text(&queued.json, "turn_id"));
    assert_eq!(own["assistant_text"], "answered");
}

#[test]
fn an_agent_that_never_answers_is_ended_and_what_it_was_told_is_ahead_of_later_mail() {
    let scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let member = &crew.members[1];
    let first = crew.send_by(&scene.stage, 1, "over and mute", "immediate_interrupt");
    assert_eq!(crew.injected(&scene.stage, &first), turn_id);
    assert_eq!(scene.stage.ended(member, &turn_id)["status"], "completed");
    let next = crew.send(&scene.stage, 1, "then this", json!({}));
    comes_back(&crew, &scene, &first);
    let exited = scene.stage.event(member, "agent.exited", 0);
    assert_eq!(exited.payload["stopped_by"], "stop", "{}", exited.json);
    let turn = carried(&crew, &scene, &first);
    let second = carried(&crew, &scene, &next);
    let turns = if second["id"] == turn["id"] { vec![&turn] } else { vec![&turn, &second] };
    let said: Vec<String> = turns.into_iter().flat_map(prompts).collect();
    let place = |words: &str| said.iter().position(|said| said == words).unwrap();
    assert!(place("over and mute") < place("then this"), "{said:?}");
}

#[test]
fn an_agent_that_never_answers_in_a_turn_fails_it_with_the_mail_in_it() {
    let scene = Scene::new();
    let (crew, turn_id) = crew(&scene);
    let member = &crew.members[1];
    let first = crew.send_by(&scene.stage, 1, "mute", "immediate_interrupt");
    assert_eq!(crew.injected(&scene.stage, &first), turn_id);
    let next = crew.send(&scene.stage, 1, "then this", json!({}));
    let failed = scene.stage.ended(member, &turn_id);
    assert_eq!(
        (&failed["status"], &failed["error"]["code"]),
        (&json!("failed"), &json!("agent_exited"))
    );
    let message = text(&failed["error"], "message");
    assert!(message.starts_with("the agent did not answer in time"), "{message}");
    // The turn tells what became of what was in it; the session goes on with what waits.
    assert_eq!(carried(&crew, &scene, &next)["status"], "completed");
    assert_eq!(crew.delivery(&scene.stage, &first)["injected_turn_id"], turn_id.as_str());
    assert_eq!(scene.heard("turn/steer"), 1);
}
