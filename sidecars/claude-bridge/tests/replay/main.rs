//! Recorded conversations with `claude`, through the translator, compared with golden files.
//!
//! A recording in `testdata/claude` is the stdio of one program, driven without the bridge. The [`player`] plays the
//! part of an ACP client that wants the same, and gives the translator the recorded lines. What comes out is a
//! recording too: the ACP traffic in `testdata/acp/claude-bridge`, which the tests of the server's ACP adapter replay
//! in their turn; so one chain leads from the program's own lines to the events of the server. `UPDATE=1` writes the
//! golden files anew; read the difference before you commit it.

#![allow(clippy::unwrap_used, reason = "the whole program is a test")]

mod player;

use claude_bridge::bridge::Bridge;
use serde_json::Value;
use std::path::{Path, PathBuf};

const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/claude");
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata/acp/claude-bridge");

/// Recordings that have no golden file, and why. They still take part in the test with broken lines.
const SKIPPED: &[(&str, &str)] = &[
    ("a_bad_lines", "the recording program sends what the bridge never sends"),
    ("b_no_prompt_tool", "the bridge always takes the questions of the program"),
    ("b_none", "the bridge always takes the questions of the program"),
    ("b_root_bypass", "the program refuses its command line; the bridge does not try that"),
    ("b_rules", "the recording program looks at lists that the bridge does not ask for"),
    ("e_continue", "the bridge resumes by id"),
    ("e_fork", "the bridge does not fork"),
    ("e_two_processes", "two processes in one conversation; the bridge never starts them"),
    ("f_mcp_sdk", "a server inside the client; the bridge has none"),
    ("h_auth_status", "no conversation, the outcome of another command"),
    ("i_hooks", "the bridge has no hooks"),
];

fn recordings() -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(RECORDINGS).expect("testdata is there");
    let mut found: Vec<(String, PathBuf)> = entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    assert!(found.len() > 60, "{} recordings", found.len());
    found
}

fn records(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn recordings_give_the_golden_traffic() {
    let is_updating = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    for (name, path) in recordings() {
        if SKIPPED.iter().any(|(skipped, _)| *skipped == name) {
            continue;
        }
        let found = player::replay(&records(&path));
        let golden = Path::new(GOLDEN).join(format!("{name}.jsonl"));
        if is_updating {
            std::fs::write(&golden, &found).unwrap();
        }
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        let pairs = found.lines().zip(expected.lines()).enumerate();
        let first = pairs.map(|(at, (a, b))| (at + 1, a, b)).find(|(_, a, b)| a != b);
        if let Some((at, found, expected)) = first {
            wrong.push(format!("{name} line {at}:\n  got  {found}\n  want {expected}"));
        } else if found.lines().count() != expected.lines().count() {
            wrong.push(format!("{name}: one is longer than the other"));
        }
    }
    assert!(wrong.is_empty(), "{} differ (UPDATE=1 rewrites)\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_golden_file_has_a_recording() {
    let names: Vec<String> = recordings().into_iter().map(|(name, _)| name).collect();
    for entry in std::fs::read_dir(GOLDEN).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            assert!(names.contains(&name), "{}", path.display());
        }
    }
}

/// Every line of every recording, cut in several places, from either side: nothing panics.
#[test]
fn broken_lines_from_either_side_are_survived() {
    let mut number = 0;
    let mut bridge = Bridge::new(
        true,
        Box::new(move || {
            number += 1;
            format!("id-{number}")
        }),
    );
    let mut effects = Vec::new();
    let hello = [
        r#"{"id":1,"method":"initialize","params":{}}"#,
        r#"{"id":2,"method":"session/new","params":{"cwd":"/","mcpServers":[]}}"#,
        r#"{"id":3,"method":"session/prompt","params":{"sessionId":"id-1","prompt":[]}}"#,
    ];
    for line in hello {
        bridge.client_line(line.as_bytes(), &mut effects);
    }
    let mut lines = 0;
    for (_, path) in recordings() {
        for record in records(&path) {
            let line = record["msg"].to_string().into_bytes();
            for part in [1, 2, 3, 5] {
                let cut = &line[..line.len() * part / 5];
                bridge.claude_line("id-1", cut, &mut effects);
                bridge.client_line(cut, &mut effects);
                lines += 1;
            }
            effects.clear();
        }
    }
    assert!(lines > 5_000, "{lines}");
}
