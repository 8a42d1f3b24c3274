//! Tests of turns and their names: what waits for the name, and what comes before it or too late.

use super::{Talk, steer, turn};
use crate::model::TurnStatus;
use crate::provider::{Adapter, AgentEvent, Command};
use serde_json::{Value, json};

fn started(id: u64, turn: &str) -> Value {
    json!({"id": id, "result": {"turn": {"id": turn}}})
}

fn refused(id: u64) -> Value {
    json!({"id": id, "error": {"code": -32600, "message": "not now"}})
}

#[test]
fn a_steer_waits_for_the_name_of_its_turn_and_comes_back_when_it_is_late() {
    let mut talk = Talk::ready();
    talk.tell(turn("go"));
    assert!(talk.tell(Command::Steer(steer("more"))).out.is_empty());
    talk.hear(json!({"id": 5, "result": {"turn": {"id": "n1"}}}));
    let sent = talk.sent();
    assert_eq!(sent[0]["method"], "turn/steer");
    assert_eq!(sent[0]["params"]["expectedTurnId"], "n1");
    talk.completes("n1", "completed");
    talk.hear(json!({"id": 6, "error": {"code": -32600, "message": "no active turn to steer"}}));
    assert_eq!(talk.out.events, [AgentEvent::SteerRefused(steer("more"))]);
}

#[test]
fn an_interrupt_waits_for_the_name_of_its_turn() {
    let mut talk = Talk::ready();
    talk.tell(turn("go"));
    assert!(talk.tell(Command::Interrupt).sent().is_empty());
    talk.hear(json!({"id": 5, "result": {"turn": {"id": "n1"}}}));
    assert_eq!(talk.sent()[0]["params"]["turnId"], "n1");
    talk.completes("n1", "interrupted");
    assert_eq!(talk.has_ended(), Some(TurnStatus::Interrupted));
}

#[test]
fn what_codex_does_by_itself_is_a_turn_of_its_own() {
    let mut talk = Talk::ready();
    talk.note("turn/started", json!({"turn": {"id": "n9"}}));
    assert!(talk.out.is_empty(), "nothing has come of it yet");
    let message = json!({"type": "agentMessage", "id": "m", "text": ""});
    talk.item("item/started", "n9", message);
    assert!(matches!(talk.out.events[0], AgentEvent::AgentTurnStarted));
    talk.completes("n9", "completed");
    assert_eq!(talk.has_ended(), Some(TurnStatus::Completed));
}

#[test]
fn what_codex_ends_by_itself_does_not_end_the_turn_of_a_person() {
    let mut talk = Talk::ready();
    talk.note("turn/started", json!({"turn": {"id": "own"}}));
    talk.item("item/started", "own", json!({"type": "agentMessage", "id": "m", "text": ""}));
    talk.tell(turn("go"));
    assert_eq!(talk.has_ended(), Some(TurnStatus::Completed), "its own work gives way");
    assert_eq!(talk.completes("own", "completed").has_ended(), None);
    talk.hear(json!({"id": 5, "result": {"turn": {"id": "n1"}}}));
    assert_eq!(talk.completes("n1", "completed").has_ended(), Some(TurnStatus::Completed));
}

#[test]
fn an_answer_behind_the_end_of_its_turn_is_not_the_next_ones() {
    for late in [started(5, "n1"), refused(5)] {
        let mut talk = Talk::ready();
        talk.tell(turn("one"));
        talk.note("turn/started", json!({"turn": {"id": "n1"}}));
        assert_eq!(talk.completes("n1", "completed").has_ended(), Some(TurnStatus::Completed));
        talk.tell(turn("two"));
        assert!(talk.hear(late).out.is_empty());
        // What comes again of the first begins nothing either.
        assert!(talk.note("turn/started", json!({"turn": {"id": "n1"}})).out.is_empty());
        assert_eq!(talk.completes("n1", "completed").has_ended(), None);
        talk.hear(started(6, "n2"));
        talk.item("item/started", "n2", json!({"type": "agentMessage", "id": "m", "text": ""}));
        assert!(matches!(talk.out.events[..], [AgentEvent::ItemStarted { .. }]));
        assert_eq!(talk.completes("n2", "completed").has_ended(), Some(TurnStatus::Completed));
    }
}

#[test]
fn a_turn_that_was_taken_for_a_steer_of_one_that_is_over_ends_with_it() {
    for (told, status) in [("completed", TurnStatus::Completed), ("failed", TurnStatus::Failed)] {
        let mut talk = Talk::ready();
        talk.note("turn/started", json!({"turn": {"id": "own"}}));
        talk.tell(turn("go"));
        assert_eq!(talk.completes("own", told).has_ended(), None, "it may be no part of it");
        assert_eq!(talk.hear(started(5, "own")).has_ended(), Some(status));
        talk.tell(turn("next"));
        talk.hear(started(6, "n2"));
        assert_eq!(talk.completes("n2", "completed").has_ended(), Some(TurnStatus::Completed));
    }
}

#[test]
fn another_name_takes_the_place_of_one_that_was_never_ended() {
    let mut talk = Talk::ready();
    talk.note("turn/started", json!({"turn": {"id": "lost"}}));
    talk.note("turn/started", json!({"turn": {"id": "n9"}}));
    talk.item("item/started", "n9", json!({"type": "agentMessage", "id": "m", "text": ""}));
    assert!(matches!(talk.out.events[0], AgentEvent::AgentTurnStarted));
    assert_eq!(talk.completes("n9", "completed").has_ended(), Some(TurnStatus::Completed));
}

#[test]
fn only_the_turns_that_ended_last_are_remembered() {
    let mut talk = Talk::ready();
    let mut end = |from: usize, to: usize| {
        for number in from..to {
            talk.completes(&format!("n{number}"), "failed");
        }
        talk.codex.snapshot().len()
    };
    let first = end(100, 200);
    assert!(end(200, 900) < first + 100);
    talk.note("turn/started", json!({"turn": {"id": "n899"}}));
    talk.item("item/started", "n899", json!({"type": "agentMessage", "id": "m", "text": ""}));
    assert!(matches!(talk.out.events[..], [AgentEvent::Unparsed { .. }]));
}
