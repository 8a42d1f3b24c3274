//! Pages of lists: what is large comes in several, and whoever follows the cursor misses nothing.

use crate::crew::Crew;
use crate::stage::{Stage, list, text};
use serde_json::{Value, json};

/// Where a page ends, and the largest record of these stories.
const PAGE_BYTES: usize = 8 * 1024 * 1024;
const RECORD_BYTES: usize = 4 * 1024 * 1024;

/// Follows the cursors; gives the records of each page.
fn pages(stage: &Stage, path: &str) -> Vec<Vec<Value>> {
    let (mut pages, mut cursor) = (Vec::new(), String::new());
    loop {
        let reply = stage.client.get(&format!("{path}?{cursor}")).expect(200);
        let bytes = reply.body.len();
        assert!(bytes < PAGE_BYTES + RECORD_BYTES + 4096, "a page of {bytes} bytes");
        let next = match reply.json() {
            Value::Array(records) => {
                pages.push(records);
                reply.header("x-next-cursor").map(str::to_owned)
            }
            page => {
                pages.push(list(page["messages"].clone()));
                page["next_cursor"].as_str().map(str::to_owned)
            }
        };
        match next {
            Some(next) => cursor = format!("cursor={next}"),
            None => return pages,
        }
    }
}

/// What the records of all pages are, in order, in this field.
fn ids(pages: &[Vec<Value>], field: &str) -> Vec<String> {
    pages.iter().flatten().map(|record| text(record, field)).collect()
}

#[test]
fn a_page_of_large_items_ends_by_its_bytes_and_the_next_goes_on_there() {
    let stage = Stage::new();
    let session_id = stage.session();
    let lines = "longline 3000000\n".repeat(4);
    let turn = stage.run(&session_id, &format!("say first\n{lines}say last"));
    let items = format!("/v1/sessions/{session_id}/turns/{}/items", text(&turn, "id"));
    let transcript = format!("/v1/sessions/{session_id}/transcript");
    for path in [items, transcript] {
        let pages = pages(&stage, &path);
        assert!(pages.len() > 1 && pages[0].len() > 1, "{} pages", pages.len());
        let all = pages.concat();
        let said: usize = all.iter().filter_map(|item| item["text"].as_str()).map(str::len).sum();
        assert!(said >= 12_000_000, "{said}");
        assert_eq!(all.last().unwrap()["text"], "last");
        let mut seen = ids(&pages, "item_id");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), all.len(), "no item comes twice");
    }
    let made = ["longline 3500000", "longline 3500000", "say little"]
        .map(|prompt| text(&stage.run(&session_id, prompt), "id"));
    let pages = pages(&stage, &format!("/v1/sessions/{session_id}/turns"));
    assert!(pages.len() > 1, "{} pages", pages.len());
    assert_eq!(ids(&pages, "id")[1..], made);
}

#[test]
fn a_page_of_large_messages_and_a_view_of_them_end_by_their_bytes() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let _busy = stage.start(&crew.members[1], "slow 100000 20");
    let content = "x".repeat(1_900_000);
    let sent: Vec<String> =
        (0..7).map(|_| text(&crew.send(&stage, 1, &content, json!({})), "message_id")).collect();
    let pages = pages(&stage, &crew.path("messages"));
    assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [5, 2]);
    assert_eq!(ids(&pages, "id"), sent);
    let view = stage.get(&crew.path("view"));
    assert_eq!(list(view["messages"].clone()).len(), 5);
    let rest = stage.get(&crew.path(&format!("view?message_cursor={}", sent[4])));
    assert_eq!(ids(&[list(rest["messages"].clone())], "id"), sent[5..]);
    assert_eq!(rest["next_message_cursor"], Value::Null);
}
