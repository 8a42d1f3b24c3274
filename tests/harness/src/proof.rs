//! What must be true of any session's log, and of the machine after the end, whatever happened.
//!
//! Owns: the rules, each a panic that shows the event which breaks it. It asks nobody: the log is given, the processes
//! are read from `/proc`.

use crate::proc;
use crate::stream::Record;
use crate::wait;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long the last processes may take to be gone after the server has ended.
const GONE: Duration = Duration::from_secs(15);

/// Every rule of a session's log.
pub fn log(events: &[Record]) {
    numbers(events);
    items(events);
    turns(events);
    approvals(events);
    agents(events);
}

/// `seq` counts from 1 without a hole, and rows only grow.
fn numbers(events: &[Record]) {
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, seq, "a hole or a double before {}", event.json);
    }
    for pair in events.windows(2) {
        assert!(pair[0].row_id < pair[1].row_id, "rows out of order at {}", pair[1].json);
    }
}

/// Each item starts once and completes once, and its text is what its deltas add up to.
fn items(events: &[Record]) {
    let mut open: HashMap<String, String> = HashMap::new();
    let mut done: Vec<String> = Vec::new();
    for event in events {
        let json = &event.json;
        match event.kind.as_str() {
            "item.started" => {
                let id = string(&event.payload["item"]["item_id"]);
                assert!(!done.contains(&id), "an item starts again: {json}");
                let text = event.payload["item"]["text"].as_str().unwrap_or_default();
                let before = open.insert(id, text.to_owned());
                assert_eq!(before, None, "an item starts twice: {json}");
            }
            "item.delta" => {
                let text = open.get_mut(&string(&event.payload["item_id"]));
                let text = text.unwrap_or_else(|| panic!("a delta of no open item: {json}"));
                if event.payload["field"] == "text" {
                    text.push_str(&string(&event.payload["delta"]));
                }
            }
            "item.completed" => {
                let item = &event.payload["item"];
                let id = string(&item["item_id"]);
                assert!(!done.contains(&id), "an item completes twice: {json}");
                let told = open.remove(&id);
                if let (Some(told), "assistant_message") = (told, string(&item["type"]).as_str()) {
                    assert_eq!(item["text"], told, "the deltas are not the text");
                }
                done.push(id);
            }
            "turn.completed" | "turn.failed" | "turn.interrupted" => {
                assert!(open.is_empty(), "items {open:?} are open after {json}");
            }
            _ => {}
        }
    }
}

/// Turns start once and end once, one after the other.
fn turns(events: &[Record]) {
    let mut running: Option<String> = None;
    let mut over: Vec<String> = Vec::new();
    for event in events {
        let json = &event.json;
        let turn = json["turn_id"].as_str().unwrap_or_default().to_owned();
        match event.kind.as_str() {
            "turn.started" => {
                assert_eq!(running, None, "two turns run: {json}");
                assert!(!over.contains(&turn), "a turn starts again: {json}");
                running = Some(turn);
            }
            "turn.completed" | "turn.failed" | "turn.interrupted" => {
                assert!(!over.contains(&turn), "a turn ends twice: {json}");
                if running.as_ref() == Some(&turn) {
                    running = None;
                }
                over.push(turn);
            }
            kind if kind.starts_with("item.") => {
                assert_eq!(running, Some(turn), "an item outside its turn: {json}");
            }
            _ => {}
        }
    }
}

/// An approval is asked once and settled at most once.
fn approvals(events: &[Record]) {
    let mut open: Vec<String> = Vec::new();
    for event in events.iter().filter(|event| event.kind.starts_with("approval.")) {
        let id = string(&event.payload["approval_id"]);
        if event.kind == "approval.requested" {
            assert!(!open.contains(&id), "asked twice: {}", event.json);
            open.push(id);
        } else {
            let at = open.iter().position(|other| *other == id);
            let at = at.unwrap_or_else(|| panic!("settled, but not open: {}", event.json));
            open.remove(at);
        }
    }
}

/// One agent at a time; each start is told, and each end.
fn agents(events: &[Record]) {
    let mut lives = false;
    for event in events {
        match event.kind.as_str() {
            "agent.started" => {
                assert!(!lives, "a second agent: {}", event.json);
                lives = true;
            }
            // An agent that could not be started has only an end.
            "agent.exited" | "agent.slept" => lives = false,
            "item.delta" => assert!(lives, "an agent speaks that was not told of: {}", event.json),
            _ => {}
        }
    }
}

/// Waits until no process works in this folder or below. Panics: some are left; they are named.
pub fn nothing_runs_in(folder: &Path) {
    if wait::try_until(GONE, || running_in(folder).is_empty().then_some(())).is_none() {
        panic!("these are left in {}: {:?}", folder.display(), running_in(folder));
    }
}

/// The live processes whose working directory is in this folder: keepers, agents, commands.
pub fn running_in(folder: &Path) -> Vec<(u32, Vec<String>)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let works_there = |pid: &u32| {
        fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd.starts_with(folder))
    };
    let found = pids.filter(works_there).filter(|pid| proc::alive(*pid));
    found.map(|pid| (pid, proc::arguments(pid))).collect()
}

fn string(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
