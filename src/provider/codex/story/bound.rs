//! Tests of what is kept of texts that have no bound of their own: names stay apart, and the snapshot stays small.

use super::{Codex, THREAD, Talk, command};
use crate::model::ItemStatus;
use crate::provider::{Adapter, AgentEvent, Open};
use serde_json::{Value, json};

/// The least that is more than Codex may have kept of one text.
const LONG: usize = 20_000;

fn long(end: &str) -> String {
    "x".repeat(LONG) + end
}

#[test]
fn items_with_long_ids_are_kept_small_and_apart() {
    let mut talk = Talk::busy();
    for number in 0..256 {
        talk.item("item/started", "n1", command(&long(&number.to_string())));
        assert!(matches!(talk.out.events[..], [AgentEvent::ItemStarted { .. }]), "{number}");
    }
    let params = json!({"threadId": THREAD, "turnId": "n1", "itemId": long("7")});
    let method = "item/commandExecution/requestApproval";
    talk.hear(json!({"id": 7, "method": method, "params": params}));
    let seventh = talk.asked().1.unwrap().to_owned();
    let size = talk.codex.snapshot().len();
    assert!(size < 1_000_000, "{size}");
    talk.answer("ask#1", "accept", None);
    talk.note("item/commandExecution/outputDelta", json!({"itemId": long("8"), "delta": "out"}));
    let [AgentEvent::ItemDelta { item, .. }] = &talk.out.events[..] else { panic!() };
    assert_ne!(*item, seventh);
    let mut over = command(&long("7"));
    over["status"] = json!("completed");
    talk.item("item/completed", "n1", over.clone());
    assert_eq!(talk.completed(), [(seventh.as_str(), ItemStatus::Completed)]);
    assert!(talk.item("item/started", "n1", over).out.is_empty(), "it is over");
    // Those that go on are found in the list, whose ids are as long.
    talk.completes("n1", "completed");
    let listed: Value =
        (0..256).map(|n| json!({"itemId": long(&n.to_string()), "processId": "p"})).collect();
    talk.hear(json!({"id": 6, "result": {"data": listed}}));
    assert!(talk.out.is_empty(), "{:?}", talk.completed());
}

#[test]
fn what_codex_says_of_its_models_is_cut_or_left_out() {
    let mut talk = Talk::open(&Open::default());
    talk.hear(json!({"id": 1, "result": {"userAgent": "gooselake/0.169.0 (x)"}}));
    talk.hear(json!({"id": 2, "result": {"account": null, "requiresOpenaiAuth": false}}));
    let levels: Vec<Value> =
        (0..100).map(|n| json!({"reasoningEffort": format!("l{n}")})).collect();
    let model = |n: usize| {
        json!({"model": format!("m{n}"), "displayName": long(""),
            "supportedReasoningEfforts": levels})
    };
    let models: Vec<Value> = (0..300).map(model).chain([json!({"model": long("")})]).collect();
    talk.hear(json!({"id": 4, "result": {"data": models}}));
    talk.hear(json!({"id": 3, "result": {"thread": {"id": THREAD}, "model": long("")}}));
    assert!(talk.codex.is_open());
    assert_eq!(talk.codex.capabilities().models.len(), 300);
    let size = talk.codex.snapshot().len();
    assert!(size < 2_000_000, "{size}");
    let told = json!({"model": long(""), "effort": long(""),
        "collaborationMode": {"mode": long("")}});
    assert!(talk.note("thread/settings/updated", json!({"threadSettings": told})).out.is_empty());
}

#[test]
fn what_an_older_server_has_kept_whole_is_found() {
    let mut talk = Talk::busy();
    talk.item("item/started", "n1", command(&long("")));
    let mut snapshot: Value = serde_json::from_str(&talk.codex.snapshot()).unwrap();
    assert_ne!(snapshot["items"][0]["id"], long(""));
    snapshot["items"][0]["id"] = json!(long(""));
    talk.codex = Codex::restore(&snapshot).unwrap();
    talk.note("item/commandExecution/outputDelta", json!({"itemId": long(""), "delta": "out"}));
    assert!(matches!(talk.out.events[..], [AgentEvent::ItemDelta { .. }]), "{:?}", talk.out);
}
