//! The log of the server as it grows, read by whoever waits for something to be in it.
//!
//! It is read only while something is awaited, on the caller's thread. What an agent asks meanwhile is accepted, so
//! that agents that ask before every command and tool can be in a story that is about something else.

use gooselake_harness::client::Client;
use gooselake_harness::stream::{Record, Stream};
use serde_json::json;
use std::time::{Duration, Instant};

/// All that a story is made of; the pieces of what agents say come again, whole, with their items.
const KINDS: &str = "session.*,turn.*,item.started,item.completed,approval.*,mcp.*,team.*,\
    team_message.*,team_delivery.*,team_operation.*,worktree.*";
/// How long one event may take.
const PATIENCE: Duration = Duration::from_secs(45);
/// How many of the newest events a wait in vain names.
const TOLD: usize = 12;

pub(super) struct Watch {
    client: Client,
    stream: Stream,
    seen: Vec<Record>,
    /// No wait goes on beyond it.
    end: Instant,
}

/// The path that asks for the log, in pages or as a stream.
pub(super) fn path(of: &str) -> String {
    format!("/v1/events{of}?kinds={KINDS}")
}

impl Watch {
    pub(super) fn new(client: &Client, end: Instant) -> Watch {
        let stream = client.stream(&format!("{}&control=false", path("/stream")), &[]);
        Watch { client: client.clone(), stream, seen: Vec::new(), end }
    }

    /// The events so far.
    pub(super) fn seen(&self) -> &[Record] {
        &self.seen
    }

    /// The first event that is `wanted`, whether it has come or is to come. Errors: it did not come in time.
    pub(super) fn find(
        &mut self,
        what: &str,
        wanted: impl Fn(&Record) -> bool,
    ) -> Result<Record, String> {
        if let Some(record) = self.seen.iter().find(|record| wanted(record)) {
            return Ok(record.clone());
        }
        let end = self.end.min(Instant::now() + PATIENCE);
        while let Some(frame) = self.stream.next(end.saturating_duration_since(Instant::now())) {
            let record = frame.record();
            self.seen.push(record.clone());
            if record.kind == "approval.requested" {
                self.accept(&record)?;
            }
            if wanted(&record) {
                return Ok(record);
            }
        }
        let newest = self.seen.iter().rev().take(TOLD).rev();
        let newest: Vec<String> = newest
            .map(|record| {
                let session = record.json["session_id"].as_str().unwrap_or_default();
                format!("{} {} {}", record.kind, session, short(&record.payload.to_string()))
            })
            .collect();
        Err(format!("awaited {what} in vain; the newest events: {newest:#?}"))
    }

    fn accept(&self, asked: &Record) -> Result<(), String> {
        let session = asked.json["session_id"].as_str().unwrap_or_default();
        let approval = asked.payload["approval_id"].as_str().unwrap_or_default();
        let path = format!("/v1/sessions/{session}/approvals/{approval}");
        let reply = self.client.post(&path, &json!({"decision": "accept"}));
        if reply.status == 200 { Ok(()) } else { Err(format!("not accepted: {reply}")) }
    }
}

fn short(text: &str) -> &str {
    &text[..text.floor_char_boundary(240)]
}
