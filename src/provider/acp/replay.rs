//! Tests that replay the recorded traffic in `testdata/acp` (see `player`).
//!
//! Beside each recording lies its golden file: the commands, the events and the lines of stdin, in
//! order. `UPDATE=1` writes the golden files anew; read the difference before you commit it.

use super::Acp;
use super::player::Player;
use crate::provider::transcript::{self, Dice, Transcript};
use crate::provider::{Adapter, Open};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/acp");

/// Recordings that are not replayed, and why. They still take part in the tests with broken lines.
const SKIPPED: &[(&str, &str)] = &[
    ("a_bad", "the program sends what the adapter never sends"),
    ("d_prompt_twice", "the program sends a prompt while one runs; the runtime queues it"),
    ("d_two_sessions", "the program works in two sessions of one process"),
    ("e_list_fork_close", "the program goes on in a fork of the session"),
    ("h_authenticate", "the program logs in with a request that the adapter does not make"),
    ("i_elicitation", "the program offers elicitation, the adapter does not"),
];

/// All recordings, sorted: agent, scenario, path.
fn recordings() -> Vec<(String, String, PathBuf)> {
    let read = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).expect("testdata is there");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        paths
    };
    let name = |path: &Path| path.file_stem().unwrap().to_string_lossy().into_owned();
    let mut found = Vec::new();
    for agent in read(Path::new(FOLDER)) {
        for path in read(&agent).into_iter().filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
        {
            found.push((name(&agent), name(&path), path));
        }
    }
    assert!(found.len() > 150, "{} recordings", found.len());
    found
}

fn replay(path: &Path, is_restoring: bool) -> Transcript {
    transcript::replay(path, |process, transcript| {
        Player::new(process, is_restoring, transcript).play();
    })
}

fn is_skipped(scenario: &str) -> bool {
    SKIPPED.iter().any(|(name, _)| *name == scenario)
}

#[test]
fn recordings_give_the_golden_events() {
    let told = recordings().into_iter().filter(|(_, scenario, _)| !is_skipped(scenario));
    transcript::check_goldens(told.map(|(agent, scenario, path)| {
        let text = replay(&path, false).text;
        (format!("{agent}/{scenario}"), path, text)
    }));
}

#[test]
fn a_restart_after_every_line_changes_nothing() {
    for (agent, scenario, path) in recordings() {
        if is_skipped(&scenario) {
            continue;
        }
        let name = format!("{agent}/{scenario}");
        transcript::check_restart(&name, &replay(&path, false), &replay(&path, true));
    }
}

#[test]
fn what_is_started_is_ended_once_and_in_its_turn() {
    for (agent, scenario, path) in recordings() {
        if is_skipped(&scenario) {
            continue;
        }
        let name = format!("{agent}/{scenario}");
        transcript::check_items(&name, &replay(&path, false).events);
    }
}

/// The recordings of all agents where one assertion per line says what a person would expect.
#[test]
fn a_person_sees_the_command_the_question_and_the_answer() {
    for (agent, scenario, path) in recordings() {
        let told = |scenario| replay(&path.with_file_name(scenario), false).text;
        if scenario == "b_approve" {
            let text = told("b_approve.jsonl");
            // What came through our own bridge was recorded with a command of its own.
            let (command, output) = match agent.as_str() {
                "claude-bridge" => ("echo out-$((40+2))", "out-42"),
                _ => ("python3 -c 'print(6*7)'", "42"),
            };
            let command = format!(r#""command":"{command} > made.txt; cat made.txt""#);
            assert!(text.contains(&command), "{agent}: the command\n{text}");
            assert!(text.contains(r#""type":"command"}"#), "{agent}: the subject\n{text}");
            assert_eq!(text.matches("approval.asked").count(), 1, "{agent}\n{text}");
            assert_eq!(text.matches("TurnEnded { status: Completed").count(), 1, "{agent}\n{text}");
            // gemini tells no output.
            let is_told = text.contains(&format!(r#""output":"{output}"#))
                || text.contains(&format!(r#"output "{output}\n""#));
            assert_eq!(is_told, agent != "gemini", "{agent}\n{text}");
        }
        if scenario == "c_decline" {
            let text = told("c_decline.jsonl");
            assert_eq!(text.matches(" declined ").count(), 1, "{agent}\n{text}");
        }
        if scenario == "b_write" {
            let text = told("b_write.jsonl");
            let subject = text.lines().find(|line| line.starts_with("approval.asked")).unwrap();
            assert!(subject.contains("+hello file"), "{agent}: the diff\n{text}");
            assert!(subject.contains(r#""kind":"add""#), "{agent}: a new file\n{text}");
        }
        if scenario == "f_mcp" {
            let text = told("f_mcp.jsonl");
            let subject = text.lines().find(|line| line.starts_with("approval.asked")).unwrap();
            assert!(subject.contains(r#""server":"echo""#), "{agent}: the server\n{text}");
            assert!(subject.contains(r#""tool":"echo""#), "{agent}: the tool\n{text}");
        }
        if scenario == "e_load" {
            let text = told("e_load.jsonl");
            let second = text.split("= next process").nth(1).unwrap();
            assert_eq!(second.matches("item.started").count(), 1, "{agent}\n{second}");
            assert!(!second.contains("AgentTurnStarted"), "{agent}\n{second}");
        }
    }
}

/// Adapters in the phases that matter: fresh, opening, loading, ready, in a turn.
fn adapters() -> Vec<Box<dyn Adapter>> {
    let phases = [("opening", "none"), ("loading", "none"), ("ready", "none"), ("ready", "user")];
    let mut adapters: Vec<Box<dyn Adapter>> = vec![Box::new(Acp::new())];
    for (phase, turn) in phases {
        let open = Open { client_fs: true, client_terminal: true, ..Open::default() };
        let state = json!({
            "phase": phase,
            "last_id": 5,
            "client_fs": true,
            "client_terminal": true,
            "open": open,
            "calls": {"1": {"for": "initialize"}, "2": {"for": "new"}, "3": {"for": "prompt"},
                "4": {"for": "set", "setting": "mode", "value": "plan"}, "5": {"for": "load"}},
            "turn": {"by": turn, "waiting": null, "interrupted": false},
        });
        adapters.push(Box::new(Acp::restore(&state).expect("a snapshot restores").0));
    }
    adapters
}

#[test]
fn no_broken_line_makes_it_panic() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let restore = |snapshot: &Value| -> Box<dyn Adapter> {
        Box::new(Acp::restore(snapshot).expect("a snapshot restores").0)
    };
    let mut lines = 0;
    for (_, _, path) in recordings() {
        lines += transcript::feed_broken_lines(&path, &mut dice, &mut adapters(), restore);
    }
    assert!(lines > 40_000, "{lines} lines");
}
