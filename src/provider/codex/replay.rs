//! Tests that replay the recorded traffic in `testdata/codex` (see `player`).
//!
//! Beside each recording lies its golden file: the commands, the events and the lines of stdin, in order.
//! `UPDATE=1` writes the golden files anew; read the difference before you commit it.

use super::Codex;
use super::player::Player;
use crate::provider::transcript::{self, Dice, Transcript};
use crate::provider::{Adapter, Open};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/codex");

/// Recordings that are not replayed, and why. They still take part in the tests with broken lines.
const SKIPPED: &[(&str, &str)] = &[
    ("a_errors_rpc", "the program sends what the adapter never sends"),
    ("d_turn_while_turn", "the program starts a turn while one runs; the adapter steers"),
    ("d_two_threads", "the program works in two threads of one process"),
    ("e_fork", "the program goes on in a fork of the thread"),
    ("e_list_read", "the program reads back what the adapter has told"),
    ("e_two_processes", "two processes write to one recording"),
    ("h_login_apikey", "the program logs in; it opens no thread"),
    ("h_login_other", "the program logs in; it opens no thread"),
    ("i_many_threads", "the program works in many threads of one process"),
];

/// All recordings, sorted: scenario, path.
fn recordings() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(Path::new(FOLDER)).expect("testdata is there");
    let mut found: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    assert!(found.len() > 50, "{} recordings", found.len());
    found
}

fn replayed() -> impl Iterator<Item = (String, PathBuf)> {
    let is_skipped = |scenario: &str| SKIPPED.iter().any(|(name, _)| *name == scenario);
    recordings().into_iter().filter(move |(scenario, _)| !is_skipped(scenario))
}

fn replay(path: &Path, is_restoring: bool) -> Transcript {
    transcript::replay(path, |process, transcript| {
        Player::new(process, is_restoring, transcript).play();
    })
}

fn text(scenario: &str) -> String {
    replay(&Path::new(FOLDER).join(format!("{scenario}.jsonl")), false).text
}

#[test]
fn recordings_give_the_golden_events() {
    transcript::check_goldens(replayed().map(|(scenario, path)| {
        let text = replay(&path, false).text;
        (scenario, path, text)
    }));
}

#[test]
fn a_restart_after_every_line_changes_nothing() {
    for (scenario, path) in replayed() {
        transcript::check_restart(&scenario, &replay(&path, false), &replay(&path, true));
    }
}

#[test]
fn what_is_started_is_ended_once_and_in_its_turn() {
    for (scenario, path) in replayed() {
        transcript::check_items(&scenario, &replay(&path, false).events);
    }
}

#[test]
fn a_person_sees_the_command_the_question_and_the_answer() {
    let told = text("b_approve");
    let asked = told.lines().find(|line| line.starts_with("approval.asked")).unwrap();
    assert!(asked.contains(r#""command":"echo out-$((40+2)) > made.txt; cat made.txt""#), "{told}");
    assert!(asked.contains("acceptForSession") && asked.contains("decline"), "{told}");
    assert!(!told.contains("acceptWithExecpolicyAmendment"), "{told}");
    assert!(told.contains(r#"output "out-42\n""#) || told.contains(r#""output":"out-42\n""#));
    assert_eq!(text("c_decline").matches(" declined ").count(), 1);
    let told = text("b_file_change");
    let asked = told.lines().find(|line| line.starts_with("approval.asked")).unwrap();
    assert!(asked.contains("+hello file") && asked.contains(r#""kind":"add""#), "{told}");
    let told = text("f_mcp");
    let asked = told.lines().find(|line| line.starts_with("approval.asked")).unwrap();
    assert!(asked.contains(r#""server":"echo""#) && asked.contains(r#""tool":"echo""#), "{told}");
    let told = text("b_parallel");
    let first = told.find("= answer").unwrap();
    assert_eq!(told[..first].matches("approval.asked").count(), 2, "two at once\n{told}");
}

#[test]
fn a_command_goes_on_behind_an_interrupt_and_is_ended_alone() {
    let told = text("d_interrupt_command");
    let at = |words: &str| told.find(words).unwrap_or_else(|| panic!("{words}\n{told}"));
    let goes_on = at("ItemGoesOn");
    let ended = at("TurnEnded { status: Interrupted");
    let terminate = at("thread/backgroundTerminals/terminate");
    let completed = at("item.completed item:call_539f0663d54e4727 interrupted");
    assert!(goes_on < ended && ended < terminate && terminate < completed, "{told}");
    assert!(!told.contains("backgroundTerminals/clean"), "{told}");
}

#[test]
fn what_streamed_of_a_command_is_replaced_by_the_whole() {
    let told = text("b_output_stream");
    let completed = told.lines().find(|line| line.starts_with("item.completed item:call")).unwrap();
    assert!(completed.contains(r#""output":"line1\nline2"#), "{told}");
}

#[test]
fn a_retry_is_a_notice_and_its_end_an_error_with_a_remedy() {
    let told = text("g_fail401");
    assert!(told.contains("Reconnecting... 1/1"), "{told}");
    let ended = told.lines().find(|line| line.starts_with("TurnEnded")).unwrap();
    assert!(ended.contains("authentication_required") && ended.contains("codex login"), "{ended}");
    assert!(text("g_fail429").contains(r#"code: "rate_limited""#));
    assert!(text("g_context").contains(r#"code: "context_window_exceeded""#));
}

/// Adapters in the phases that matter: fresh, opening, ready, in a turn.
fn adapters() -> Vec<Box<dyn Adapter>> {
    let phases = [("opening", "none"), ("ready", "none"), ("ready", "user")];
    let mut adapters: Vec<Box<dyn Adapter>> = vec![Box::new(Codex::new())];
    for (phase, turn) in phases {
        let state = json!({
            "phase": phase,
            "last_id": 5,
            "open": Open::default(),
            "calls": {"1": {"for": "initialize"}, "2": {"for": "thread"},
                "3": {"for": "start_turn"}, "4": {"for": "steer", "input": []},
                "5": {"for": "terminals", "is_end": true},
                "6": {"for": "models"}, "7": {"for": "account"}},
            "turn": turn,
        });
        adapters.push(Box::new(Codex::restore(&state).expect("a snapshot restores")));
    }
    adapters
}

#[test]
fn no_broken_line_makes_it_panic() {
    let mut dice = Dice(0x2545_f491_4f6c_dd1d);
    let restore = |snapshot: &Value| -> Box<dyn Adapter> {
        Box::new(Codex::restore(snapshot).expect("a snapshot restores"))
    };
    let mut lines = 0;
    for (_, path) in recordings() {
        lines += transcript::feed_broken_lines(&path, &mut dice, &mut adapters(), restore);
    }
    assert!(lines > 20_000, "{lines} lines");
}
