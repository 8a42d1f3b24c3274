//! What an agent does on the machine through the server: files and terminals, inside the session's folder only.

use crate::stage::{SOON, Stage, text};
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

/// The tool's item of a turn with that prompt, and what the agent said.
fn tool(stage: &Stage, session_id: &str, prompt: &str) -> (Value, String) {
    let turn = stage.run(session_id, prompt);
    assert_eq!(turn["status"], "completed", "{turn}");
    let items = stage.items(session_id, &text(&turn, "id"));
    let messages = ["user_message", "assistant_message"];
    let item = items.iter().find(|item| !messages.iter().any(|kind| item["type"] == *kind));
    (item.cloned().unwrap(), text(&turn, "assistant_text"))
}

#[test]
fn files_are_read_and_written_inside_the_folder() {
    let stage = Stage::new();
    let session_id = stage.session();
    fs::write(stage.cwd.join("in.txt"), "what it says").unwrap();
    let (item, said) = tool(&stage, &session_id, "read in.txt");
    assert_eq!((&item["status"], said.as_str()), (&json!("completed"), "what it says"));
    let (item, _) = tool(&stage, &session_id, "save out.txt written down");
    assert_eq!((&item["type"], &item["status"]), (&json!("file_change"), &json!("completed")));
    assert_eq!(fs::read_to_string(stage.cwd.join("out.txt")).unwrap(), "written down");
}

#[test]
fn files_outside_the_folder_are_not_touched() {
    let stage = Stage::new();
    let session_id = stage.session();
    let secret = stage.server.folder().join("secret");
    fs::write(&secret, "do not tell").unwrap();
    symlink(&secret, stage.cwd.join("link")).unwrap();
    symlink(stage.server.folder(), stage.cwd.join("up")).unwrap();
    symlink(stage.server.folder().join("new"), stage.cwd.join("dangling")).unwrap();
    for path in ["../secret", "link", "up/secret", secret.to_str().unwrap(), "none.txt", "."] {
        let (item, said) = tool(&stage, &session_id, &format!("read {path}"));
        assert_eq!(item["status"], "failed", "{path}: {item}");
        assert!(said.starts_with("fs/read_text_file failed"), "{path}: {said}");
        assert!(!item.to_string().contains("do not tell"), "{path}: {item}");
    }
    for path in ["../secret", "link", "up/secret", "up/new", "dangling", "../new", "none/new"] {
        let (item, said) = tool(&stage, &session_id, &format!("save {path} overwritten"));
        assert_eq!(item["status"], "failed", "{path}: {item}");
        assert!(said.starts_with("fs/write_text_file failed"), "{path}: {said}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "do not tell");
    assert!(!stage.server.folder().join("new").exists());
}

#[test]
fn a_terminal_runs_in_the_folder_and_tells_output_and_exit_code() {
    let stage = Stage::new();
    let session_id = stage.session();
    let (item, said) = tool(&stage, &session_id, "terminal pwd; echo on stderr >&2; exit 3");
    assert_eq!(said, "The command ended with exit code 3.");
    assert_eq!((&item["type"], &item["exit_code"]), (&json!("command"), &json!(3)), "{item}");
    let output = text(&item, "output");
    assert!(output.contains(stage.cwd.to_str().unwrap()), "{output}");
    assert!(output.contains("on stderr"), "{output}");
}

#[test]
fn a_terminal_ends_with_its_interrupted_turn() {
    let stage = Stage::with_config("[keeper]\ngrace_ms = 500\n");
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "terminal echo $$ > pid; exec sleep 1000");
    let pid = wait::until(SOON, "the command runs", || {
        fs::read_to_string(stage.cwd.join("pid")).ok()?.trim().parse::<u32>().ok()
    });
    stage.interrupt(&session_id, &turn_id).expect(202);
    assert_eq!(stage.ended(&session_id, &turn_id)["status"], "interrupted");
    proc::wait_gone(&[pid], SOON).unwrap();
    assert_eq!(stage.run(&session_id, "terminal echo next")["status"], "completed");
}

/// A session with a terminal that does not hear TERM, and the pid of its command.
fn stubborn(stage: &Stage) -> (String, u32) {
    let session_id = stage.session();
    stage.start(&session_id, "terminal trap '' TERM; echo $$ > pid; while :; do sleep 1; done");
    let pid = wait::until(SOON, "the command runs", || {
        fs::read_to_string(stage.cwd.join("pid")).ok()?.trim().parse().ok()
    });
    (session_id, pid)
}

/// Its command takes its time to end: the session's end is told when that is over.
#[test]
fn a_terminal_is_gone_when_its_session_is_closed() {
    let stage = Stage::with_config("[keeper]\ngrace_ms = 2000\n");
    let (session_id, pid) = stubborn(&stage);
    stage.close(&session_id);
    assert!(!proc::alive(pid), "the command of a closed session runs");
}

#[test]
fn a_terminal_whose_keeper_does_not_answer_is_gone_when_its_session_is_closed() {
    let stage = Stage::with_config("[keeper]\ngrace_ms = 300\n");
    let (session_id, pid) = stubborn(&stage);
    let keepers = proc::keepers_of(stage.server.data_dir());
    let is_terminals = |keeper: &&u32| proc::arguments(**keeper)[1].contains("/term_");
    let keeper = keepers.iter().find(is_terminals).unwrap();
    proc::signal(*keeper, Signal::STOP).unwrap();
    stage.close(&session_id);
    assert!(!proc::alive(pid), "the command of a closed session runs");
}
