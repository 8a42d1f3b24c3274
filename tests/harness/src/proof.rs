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
    open_in(events);
}

/// The same of one that is closed: whatever has begun has ended.
pub fn closed_log(events: &[Record]) {
    let open = open_in(events);
    assert!(open.is_empty(), "the session is closed, and {open:?} have no end");
}

/// Holds the log against every rule; gives what has no end in it.
fn open_in(events: &[Record]) -> Vec<String> {
    numbers(events);
    agents(events);
    [items(events), turns(events), approvals(events)].concat()
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

/// What an item is by its deltas, field by field.
type Told = HashMap<String, String>;

/// Each item starts once and completes once; its text is what its deltas add up to, its output begins with that. Gives
/// those that have not completed.
fn items(events: &[Record]) -> Vec<String> {
    let mut open: HashMap<String, Told> = HashMap::new();
    let mut turns: HashMap<String, String> = HashMap::new();
    let mut done: Vec<String> = Vec::new();
    for event in events {
        let json = &event.json;
        match event.kind.as_str() {
            "item.started" => {
                let id = string(&event.payload["item"]["item_id"]);
                assert!(!done.contains(&id), "an item starts again: {json}");
                let told = fields(&event.payload["item"]);
                turns.insert(id.clone(), string(&json["turn_id"]));
                assert_eq!(open.insert(id, told), None, "an item starts twice: {json}");
            }
            "item.delta" => {
                let told = open.get_mut(&string(&event.payload["item_id"]));
                let told = told.unwrap_or_else(|| panic!("a delta of no open item: {json}"));
                told.extend(fields(&event.payload["set"]));
                let field = told.entry(string(&event.payload["field"])).or_default();
                field.push_str(&string(&event.payload["delta"]));
            }
            "item.completed" => {
                let item = &event.payload["item"];
                let id = string(&item["item_id"]);
                assert!(!done.contains(&id), "an item completes twice: {json}");
                if let Some(told) = open.remove(&id) {
                    check_whole(item, &told);
                }
                done.push(id);
            }
            "turn.completed" | "turn.failed" | "turn.interrupted" => {
                // One that waited may be taken out beside the one that runs.
                let turn = string(&json["turn_id"]);
                let left: Vec<&String> = open.keys().filter(|id| turns[*id] == turn).collect();
                assert!(left.is_empty(), "items {left:?} are open after {json}");
            }
            _ => {}
        }
    }
    open.into_keys().collect()
}

/// The fields of an item that deltas add to.
fn fields(item: &Value) -> Told {
    let field = |name: &str| Some((name.to_owned(), item[name].as_str()?.to_owned()));
    ["text", "output"].into_iter().filter_map(field).collect()
}

fn check_whole(item: &Value, told: &Told) {
    let is_cut = item["output_truncated"] == true;
    for (name, whole) in fields(item) {
        let told = told.get(&name).map_or("", String::as_str);
        // What a command has said may be told whole at its end alone.
        let is_right = match name.as_str() {
            "output" => whole.starts_with(told) || is_cut,
            _ => told == whole,
        };
        assert!(is_right, "{name}: the deltas are {told:?}: {item}");
    }
}

/// Turns start once and end once, one after the other. Gives those that were asked for and have not ended.
fn turns(events: &[Record]) -> Vec<String> {
    let mut running: Option<String> = None;
    let mut over: Vec<String> = Vec::new();
    let mut asked: Vec<String> = Vec::new();
    for event in events {
        let json = &event.json;
        let turn = json["turn_id"].as_str().unwrap_or_default().to_owned();
        match event.kind.as_str() {
            "turn.queued" => asked.push(turn),
            "turn.started" => {
                assert_eq!(running, None, "two turns run: {json}");
                assert!(!over.contains(&turn), "a turn starts again: {json}");
                asked.push(turn.clone());
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
    asked.retain(|turn| !over.contains(turn));
    asked
}

/// An approval is asked once and settled at most once. Gives those that are not settled.
fn approvals(events: &[Record]) -> Vec<String> {
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
    open
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
