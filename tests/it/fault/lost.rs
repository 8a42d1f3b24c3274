//! What a loss of power leaves beside the database: journals that are shorter than what was committed, logs that end
//! early, an empty file for a token. The server tells it, runs nothing twice, and goes on.

use super::verify;
use crate::stage::{Stage, text};
use gooselake_harness::proc::{self, Signal};
use gooselake_harness::proof;
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// Everything that runs goes, the server first.
fn power_off(stage: &mut Stage) {
    stage.server.kill9();
    let keepers = proc::keepers_of(stage.server.data_dir());
    let mut all: Vec<u32> = keepers.iter().flat_map(|keeper| proc::descendants(*keeper)).collect();
    all.extend(&keepers);
    for pid in &all {
        // It may have ended.
        drop(proc::signal(*pid, Signal::KILL));
    }
    proc::wait_gone(&all, SOON).unwrap();
}

fn files_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn cut(file: &Path, part: u64) {
    let length = fs::metadata(file).unwrap().len();
    let file = fs::OpenOptions::new().write(true).open(file).unwrap();
    file.set_len(length * part / 100).unwrap();
}

/// What is lost of each keeper's folder.
fn lose(keepers: &Path, what: &str) {
    for folder in files_in(keepers) {
        match what {
            "folders" => fs::remove_dir_all(&folder).unwrap(),
            "files" => files_in(&folder).iter().for_each(|file| fs::remove_file(file).unwrap()),
            _ => {
                let part = if what == "contents" { 0 } else { 50 };
                let files = files_in(&folder);
                let journals = files.iter().filter(|file| {
                    let name = file.file_name().unwrap().to_string_lossy().into_owned();
                    name.starts_with("std")
                });
                journals.for_each(|file| cut(file, part));
            }
        }
    }
}

#[test]
fn after_a_loss_of_power_short_journals_fail_the_turn_and_the_session_goes_on() {
    for what in ["folders", "files", "contents", "ends"] {
        let mut stage = Stage::new();
        let session_id = stage.session();
        stage.run(&session_id, "run echo once >> marks");
        let turn_id = stage.start(&session_id, "say so far\nflood 2000 100\nhang");
        let queued = stage.queue(&session_id, "run echo queued >> marks");
        let idle = stage.session();
        let mut stream = stage.stream(&session_id, "?control=false&kinds=item.delta");
        stream.until_match("2000", SOON, |frame| frame.data.contains("2000 ."));
        power_off(&mut stage);
        lose(&stage.server.data_dir().join("keepers"), what);
        stage.restart();
        let turn = stage.ended(&session_id, &turn_id);
        assert_eq!(turn["status"], "failed", "{what}: {turn}");
        assert_eq!(turn["error"]["code"], "agent_exited", "{what}: {turn}");
        let said = text(&turn, "assistant_text");
        assert!(said.contains("so far") && said.contains("2000 ."), "{what}: {}", said.len());
        assert_eq!(stage.ended(&session_id, &queued)["status"], "completed", "{what}");
        let marks = fs::read_to_string(stage.cwd.join("marks")).unwrap();
        assert_eq!(marks, "once\nqueued\n", "{what}");
        assert_eq!(stage.run(&idle, "say on")["assistant_text"], "on", "{what}");
        proof::log(&stage.events(&session_id));
        proof::log(&stage.events(&idle));
        verify(&stage);
    }
}

#[test]
fn after_a_loss_of_power_a_command_has_failed_and_its_record_says_what_its_log_lacks() {
    for what in ["folders", "files", "contents", "ends"] {
        let mut stage = Stage::new();
        let command = "echo run >> marks; seq 20000; touch done; sleep 1000";
        let record = stage.start_process(&json!({"command": command, "cwd": stage.cwd}));
        let id = text(&record["process"], "process_id");
        let all = (1..=20_000).map(|number| format!("{number}\n")).collect::<String>();
        let path = format!("/v1/processes/{id}/events/stream?control=false&kinds=process.output");
        let mut stream = stage.client.stream(&path, &[]);
        stream.until_match("the last line", SOON, |frame| frame.data.contains("\\n20000\\n"));
        power_off(&mut stage);
        lose(&stage.server.data_dir().join("keepers"), what);
        let log = PathBuf::from(text(&stage_log(&stage, &id), "stdout"));
        cut(&log, 40);
        let end = fs::metadata(&log).unwrap().len();
        stage.restart();
        let record = stage.process_end(&id);
        assert_eq!(record["process"]["status"], "failed", "{what}: {record}");
        let told = text(&record, "error");
        let lacks = format!("the log of stdout was lost from byte {end} on");
        assert!(told.contains(&lacks), "{what}: {told}");
        assert_eq!(fs::read_to_string(stage.cwd.join("marks")).unwrap(), "run\n", "{what}");
        // What is there can be read; what is not is no error.
        let path = format!("/v1/processes/{id}/logs?stream=stdout&offset=0");
        let told = text(&stage.get(&path)[0], "content");
        assert!(all.starts_with(&told), "{what}: {} bytes", told.len());
        stage.get(&format!("/v1/processes/{id}/logs?stream=stdout&offset={}", all.len()));
        verify(&stage);
    }
}

/// Where the log of the process is, while no server says so.
fn stage_log(stage: &Stage, id: &str) -> serde_json::Value {
    let folder = stage.server.data_dir().join("logs/processes");
    json!({"stdout": folder.join(format!("{id}.stdout.log"))})
}

#[test]
fn an_empty_token_file_is_made_anew_and_other_small_files_do_not_matter() {
    let mut stage = Stage::new();
    let session_id = stage.session();
    let data = stage.server.data_dir().to_owned();
    power_off(&mut stage);
    for name in ["auth/api-token", "gateway-url", "lock"] {
        fs::write(data.join(name), "").unwrap();
    }
    for file in files_in(&data.join("agent-tokens")) {
        fs::write(file, "").unwrap();
    }
    stage.restart();
    assert_eq!(stage.server.token().len(), 64);
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    verify(&stage);
}
