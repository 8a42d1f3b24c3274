//! Processes: commands that the server runs for its clients.
//!
//! Owns: the words that the stories of the modules below share. `run` is about commands that end by themselves, and
//! about their logs; `end` about those that do not want to; `queue` about places; `restart` about servers that die.

mod end;
mod log;
mod queue;
mod restart;
mod run;

use crate::stage::{SOON, Stage, list, text};
use gooselake_harness::proc;
use gooselake_harness::stream::Record;
use serde_json::{Value, json};

impl Stage {
    /// Starts a command and gives the answer.
    pub(crate) fn start_process(&self, body: &Value) -> Value {
        self.client.post("/v1/processes", body).expect(200).json()
    }

    /// Starts a shell command and gives its id.
    fn shell(&self, command: &str) -> String {
        id(&self.start_process(&json!({"command": command, "cwd": self.cwd})))
    }

    pub(crate) fn process(&self, process_id: &str) -> Value {
        self.get(&format!("/v1/processes/{process_id}"))
    }

    /// The record of a process that has ended, after waiting for that.
    pub(crate) fn process_end(&self, process_id: &str) -> Value {
        let record = self.get(&format!("/v1/processes/{process_id}?wait_ms=30000"));
        assert!(!record["process"]["ended_at"].is_null(), "awaited the end of {record}");
        record
    }

    fn kill_process(&self, process_id: &str, body: &Value) -> Value {
        self.client.post(&format!("/v1/processes/{process_id}/kill"), body).expect(200).json()
    }

    fn process_events(&self, process_id: &str) -> Vec<Record> {
        let events = self.get(&format!("/v1/processes/{process_id}/events?limit=10000"));
        list(events).into_iter().map(Record::new).collect()
    }

    /// Waits until the process has written this line.
    pub(crate) fn await_line(&self, process_id: &str, line: &str) {
        gooselake_harness::wait::until(SOON, line, || {
            let log = self.client.get(&format!("/v1/processes/{process_id}/logs?format=text"));
            log.text().lines().any(|other| other == line).then_some(())
        });
    }
}

fn id(answer: &Value) -> String {
    text(&answer["process"], "process_id")
}

fn status(answer: &Value) -> &str {
    answer["process"]["status"].as_str().unwrap()
}

fn kinds(events: &[Record]) -> Vec<&str> {
    events
        .iter()
        .map(|event| event.kind.as_str())
        .filter(|kind| *kind != "process.output")
        .collect()
}

/// The text of all output events of one stream, in their order.
fn told(events: &[Record], stream: &str) -> String {
    events
        .iter()
        .filter(|event| event.kind == "process.output" && event.json["payload"]["stream"] == stream)
        .map(|event| event.json["payload"]["text"].as_str().unwrap())
        .collect()
}

/// Every process that carries the mark of this one; its keeper too.
fn marked(process_id: &str) -> Vec<u32> {
    proc::with_environ(&format!("GOOSELAKE_CHILD={process_id}"))
}

fn nothing_lives(process_id: &str) {
    proc::wait_gone(&marked(process_id), SOON).unwrap();
    assert!(marked(process_id).is_empty());
}
