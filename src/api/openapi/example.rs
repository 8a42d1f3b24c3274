//! Examples of successful answers: what a server has really said to the tests, kept in `testdata/api/examples.json`.
//!
//! `make api-docs-examples` keeps them anew. That each of them is as the document tells is checked by
//! `tests/it/contract.rs`; that each answer has one, here.

use serde_json::{Map, Value, json};
use std::sync::OnceLock;

/// By operation, status and media type.
fn kept() -> &'static Map<String, Value> {
    static KEPT: OnceLock<Map<String, Value>> = OnceLock::new();
    KEPT.get_or_init(|| {
        serde_json::from_str(include_str!("../../../testdata/api/examples.json"))
            .expect("the file of examples is an object")
    })
}

/// The example of an answer, if there is one.
pub(super) fn of(operation: &str, status: u16, media_type: &str) -> Option<Value> {
    // Of an operation that gives the same records one by one, the log in pages has what a stream sends.
    let event = || kept().get("list_session_events 200 application/json")?.get(0).cloned();
    match media_type {
        "text/event-stream" => event().map(|event| {
            let id = event["seq"].to_string();
            json!({"event": event["kind"], "id": id, "data": event.to_string()})
        }),
        "application/x-ndjson" if operation.starts_with("stream_") => event(),
        _ => {
            let kept = kept().get(&format!("{operation} {status} {media_type}")).cloned();
            kept.or_else(|| alike(operation, media_type))
        }
    }
}

/// What no test sees whole, since it takes a moment or goes on: made from an answer that has the same shape.
fn alike(operation: &str, media_type: &str) -> Option<Value> {
    let of = |operation: &str| kept().get(&format!("{operation} 200 {media_type}")).cloned();
    match (operation, media_type) {
        ("create_turn", "text/plain") => of("create_turn"),
        ("kill_process", "application/json") => of("kill_process"),
        ("get_process_logs", "application/x-ndjson") => {
            let chunk = kept().get("get_process_logs 200 application/json")?.get(0)?;
            let (process_id, stream, content) =
                (&chunk["process_id"], &chunk["stream"], &chunk["content"]);
            Some(json!({
                "process_id": process_id, "stream": stream, "offset": 0, "content": content,
            }))
        }
        _ => None,
    }
}

#[test]
fn each_answer_with_a_body_has_an_example() {
    let told = crate::api::route::told();
    let answers =
        told.iter().flat_map(|told| told.answers.iter().map(move |answer| (told, answer)));
    let bare: Vec<String> = answers
        .filter(|(_, answer)| answer.status < 300 && answer.shape.is_some())
        .filter(|(_, answer)| answer.media_type != "application/yaml")
        .filter(|(told, answer)| of(told.name, answer.status, answer.media_type).is_none())
        .map(|(told, answer)| format!("{} {} {}", told.name, answer.status, answer.media_type))
        .collect();
    assert!(bare.is_empty(), "no example of {bare:?}");
}
