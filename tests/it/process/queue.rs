//! Places: how many may run, who waits, and in which order they run.

use super::{id, kinds, nothing_lives, status};
use crate::stage::{Stage, text};
use serde_json::json;
use std::fs;
use std::os::unix::fs::DirBuilderExt;

const ONE: &str = "[processes]\nmax_concurrent = 1\n";

#[test]
fn without_a_place_a_process_is_refused_or_waits_for_its_turn() {
    let stage = Stage::with_config(ONE);
    let first = stage.shell("sleep 1000");
    let refused = stage.client.post("/v1/processes", &json!({"command": "true"})).expect(503);
    assert_eq!(refused.json()["code"], "capacity");
    let queue = |word: &str| {
        let command = format!("echo {word} >> order");
        stage.start_process(&json!({"command": command, "cwd": stage.cwd, "queue": true}))
    };
    let queued: Vec<_> = ["a", "b", "c", "d"].iter().map(|word| queue(word)).collect();
    assert!(queued.iter().all(|record| status(record) == "queued"));
    // One that waits can be taken back.
    let taken_back = stage.kill_process(&id(&queued[1]), &json!({}));
    assert_eq!((status(&taken_back), &taken_back["killed_by"]), ("killed", &json!("request")));
    let wanted = ["process.queued", "process.kill_requested", "process.killed"];
    assert_eq!(kinds(&stage.process_events(&id(&queued[1]))), wanted);
    assert_eq!(stage.get("/v1/diagnostics/processes")["queued"], 3);
    stage.kill_process(&first, &json!({}));
    for record in [&queued[0], &queued[2], &queued[3]] {
        let end = stage.process_end(&id(record));
        assert_eq!(status(&end), "completed", "{end}");
        let wanted = ["process.queued", "process.started", "process.completed"];
        assert_eq!(kinds(&stage.process_events(&id(record))), wanted);
    }
    assert_eq!(std::fs::read_to_string(stage.cwd.join("order")).unwrap(), "a\nc\nd\n");
}

#[test]
fn those_that_wait_survive_the_server_and_keep_their_order() {
    let mut stage = Stage::with_config(ONE);
    let first = stage.shell("sleep 1000");
    let queued: Vec<String> = (0..3)
        .map(|n| {
            let body = json!({
                "command": "read -r line; echo \"$WORD $line\" >> order", "cwd": stage.cwd, "queue": true,
                "env": {"WORD": format!("word{n}")}, "stdin": "input\n",
            });
            id(&stage.start_process(&body))
        })
        .collect();
    stage.server.kill9();
    stage.restart();
    assert_eq!(status(&stage.process(&first)), "running");
    assert_eq!(status(&stage.process(&queued[0])), "queued");
    stage.kill_process(&first, &json!({}));
    queued.iter().for_each(|process_id| drop(stage.process_end(process_id)));
    let order = std::fs::read_to_string(stage.cwd.join("order")).unwrap();
    assert_eq!(order, "word0 input\nword1 input\nword2 input\n");
}

#[test]
fn a_server_that_is_stopped_with_everything_ends_all_and_starts_none() {
    let mut stage = Stage::with_config(ONE);
    let first = stage.shell("sleep 1000");
    let body = json!({"command": "touch started", "cwd": stage.cwd, "queue": true});
    let second = id(&stage.start_process(&body));
    assert_eq!(stage.server.interrupt(), Some(0));
    nothing_lives(&first);
    stage.restart();
    for process_id in [&first, &second] {
        let record = stage.process(process_id);
        assert_eq!((status(&record), &record["killed_by"]), ("killed", &json!("shutdown")));
    }
    assert!(!stage.cwd.join("started").exists());
}

/// As after the death of a server that had made the folder of the keeper and not started it: a new one is started, and
/// what was sent to the one that never was is sent again.
#[test]
fn what_is_sent_to_a_keeper_that_never_was_reaches_the_process_all_the_same() {
    let stage = Stage::with_config(ONE);
    let gate = json!({"command": "until [ -e gate ]; do sleep 0.01; done", "cwd": stage.cwd});
    stage.start_process(&gate);
    let cat = json!({"args": ["cat"], "cwd": stage.cwd, "queue": true, "stdin_open": true});
    let cat = id(&stage.start_process(&cat));
    let folder = stage.server.data_dir().join("keepers").join(&cat);
    fs::DirBuilder::new().mode(0o700).create(folder).unwrap();
    let path = format!("/v1/processes/{cat}/stdin");
    fs::write(stage.cwd.join("gate"), "").unwrap();
    // Some of it comes while the missing keeper is looked for.
    let mut sent = String::new();
    for number in 0..400 {
        let line = format!("line {number}\n");
        stage.client.post(&path, &json!({"text": line})).expect(200);
        sent.push_str(&line);
    }
    stage.client.post(&path, &json!({"text": "end\n", "close": true})).expect(200);
    let end = stage.process_end(&cat);
    assert_eq!(end["process"]["status"], "completed", "{end}");
    let log = fs::read_to_string(text(&end, "stdout_path")).unwrap();
    assert_eq!(log, sent + "end\n");
}
