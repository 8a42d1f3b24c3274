//! A panic in one thread of the server, or a record of an agent that can not be read: what it concerned ends with a
//! reason, and nothing else does.

use super::{Broken, ENOSPC, verify};
use crate::crew::Crew;
use crate::spawn::scene::slow_agent;
use crate::stage::{SOON, Stage, check_error, list, text};
use crate::worktree::scene::Repo;
use gooselake_harness::fault::Number;
use gooselake_harness::temp::TempDir;
use gooselake_harness::{proof, wait};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;

#[test]
fn a_panic_in_a_session_fails_its_turn_with_what_it_had_said_and_nothing_else() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let (session_id, other) = (stage.session(), stage.session());
    let turn_id = stage.start(&session_id, "run echo once >> marks\nsay so far\nslow 100000 20");
    let queued = stage.queue(&session_id, "run echo queued >> marks");
    let mut stream = stage.stream(&session_id, "?control=false&kinds=item.delta");
    stream.until_match("a word of the last item", SOON, |frame| frame.data.contains("3 "));
    let going_on = stage.start(&other, "slow 40 10");
    broken.fault.panic_in(&format!("session-{}", &session_id[session_id.len() - 6..]));
    // Whoever asks it something just then is told.
    let body = json!({"input": ["say never"], "when": "queue"});
    check_error(&stage.post_turn(&session_id, &body), 500, "internal");
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!((&turn["status"], &turn["error"]["code"]), (&json!("failed"), &json!("internal")));
    let said = text(&turn, "assistant_text");
    assert!(said.contains("so far") && said.contains("1 2 3 "), "{turn}");
    // What is queued behind it runs, with another agent.
    assert_eq!(stage.ended(&session_id, &queued)["status"], "completed");
    assert_eq!(stage.ended(&other, &going_on)["status"], "completed");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    let marks = fs::read_to_string(stage.cwd.join("marks")).unwrap();
    assert_eq!(marks, "once\nqueued\n");
    proof::log(&stage.events(&session_id));
    stage.close(&session_id);
    stage.close(&other);
    proof::nothing_runs_in(&stage.cwd);
    broken.verify();
}

/// Starts the server again, with these in the place of what it knew of all its agents.
fn restart_with_snapshot(stage: &mut Stage, snapshot: &str) {
    stage.server.kill9();
    let database = Connection::open(stage.server.data_dir().join("runtime.sqlite3")).unwrap();
    assert!(database.execute("UPDATE agent SET snapshot = ?1", [snapshot]).unwrap() > 0);
    stage.restart();
}

#[test]
fn an_agent_whose_snapshot_can_not_be_read_ends_and_its_session_goes_on_with_another() {
    for snapshot in ["", r#"{"phase": "of another version"}"#] {
        let mut stage = Stage::new();
        let (session_id, idle, closed) = (stage.session(), stage.session(), stage.session());
        let turn_id =
            stage.start(&session_id, "run echo once >> marks\nsay so far\nslow 100000 20");
        let queued = stage.queue(&session_id, "run echo queued >> marks");
        let mut stream = stage.stream(&session_id, "?control=false&kinds=item.delta");
        stream.until_match("a word of the last item", SOON, |frame| frame.data.contains("3 "));
        restart_with_snapshot(&mut stage, snapshot);
        let turn = stage.ended(&session_id, &turn_id);
        let code = &turn["error"]["code"];
        assert_eq!((&turn["status"], code), (&json!("failed"), &json!("agent_exited")), "{turn}");
        assert!(text(&turn["error"], "message").contains("can not be read"), "{turn}");
        let said = text(&turn, "assistant_text");
        assert!(said.contains("so far") && said.contains("1 2 3 "), "{turn}");
        // Another agent runs what is queued behind it, and what comes.
        assert_eq!(stage.ended(&session_id, &queued)["status"], "completed");
        assert_eq!(stage.run(&idle, "say on")["assistant_text"], "on");
        let marks = fs::read_to_string(stage.cwd.join("marks")).unwrap();
        assert_eq!(marks, "once\nqueued\n");
        for session_id in [session_id, idle, closed] {
            stage.close(&session_id);
            proof::log(&stage.events(&session_id));
        }
        proof::nothing_runs_in(&stage.cwd);
        verify(&stage);
    }
}

#[test]
fn a_session_that_never_opened_and_whose_snapshot_can_not_be_read_has_failed_and_closes() {
    let folder = TempDir::new("gg-gate");
    let runs = folder.path().join("runs");
    let never = format!("touch {}; exec sleep 100000", runs.display());
    let mut stage = Stage::with_config(&slow_agent(&never, ""));
    let session_id = text(&stage.create(&json!({"provider": "acp", "wait": false})), "id");
    wait::until(SOON, "its agent runs", || runs.exists().then_some(()));
    restart_with_snapshot(&mut stage, "");
    stage.event(&session_id, "session.failed", 0);
    assert_eq!(stage.record(&session_id)["status"], "failed");
    assert_eq!(stage.close(&session_id)["status"], "closed");
    proof::nothing_runs_in(&stage.cwd);
    verify(&stage);
}

#[test]
fn a_panic_of_the_thread_of_a_process_ends_that_process_and_its_record() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let body = json!({"command": "while :; do echo line; sleep 0.05; done", "cwd": stage.cwd});
    let start = || text(&stage.start_process(&body)["process"], "process_id");
    let other = start();
    let path = format!("/v1/processes/{other}/events/stream?control=false&until=process.started");
    stage.client.stream(&path, &[]).rest(SOON);
    // It asks for the time when its start is committed.
    broken.fault.panic_in("process-");
    let id = start();
    let record = stage.process_end(&id);
    assert_eq!(record["process"]["status"], "failed", "{record}");
    assert!(text(&record, "error").contains("a defect of the server"), "{record}");
    assert_eq!(stage.process(&other)["process"]["status"], "running");
    stage.client.post(&format!("/v1/processes/{other}/kill"), &json!({})).expect(200);
    stage.process_end(&other);
    proof::nothing_runs_in(&stage.cwd);
    broken.verify();
}

/// Nor is it left alone when the disk is full in that moment.
#[test]
fn a_panic_of_the_thread_of_a_process_on_a_full_disk_ends_that_process_when_there_is_room() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let body = json!({"command": "while :; do echo line; sleep 0.05; done", "cwd": stage.cwd});
    let id = text(&stage.start_process(&body)["process"], "process_id");
    broken.fault.set(Number::WriteErrno, ENOSPC);
    broken.fault.panic_in("process-");
    wait_told(stage, "its end is recorded later");
    assert_eq!(stage.process(&id)["process"]["status"], "running");
    proof::nothing_runs_in(&stage.cwd);
    broken.fault.set(Number::WriteErrno, 0);
    let record = stage.process_end(&id);
    assert!(text(&record, "error").contains("a defect of the server"), "{record}");
    broken.verify();
}

#[test]
fn a_panic_in_a_session_on_a_full_disk_fails_its_turn_when_there_is_room() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "say so far\nslow 100000 20");
    stage.event(&session_id, "item.delta", 0);
    broken.fault.set(Number::WriteErrno, ENOSPC);
    broken.fault.panic_in(&format!("session-{}", &session_id[session_id.len() - 6..]));
    wait_told(stage, "can not be ended, and is tried again");
    broken.fault.set(Number::WriteErrno, 0);
    let turn = stage.ended(&session_id, &turn_id);
    assert_eq!((&turn["status"], &turn["error"]["code"]), (&json!("failed"), &json!("internal")));
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    proof::log(&stage.events(&session_id));
    broken.verify();
}

/// Waits until the server has said this in its log.
fn wait_told(stage: &Stage, words: &str) {
    wait::until(SOON, words, || stage.server.stderr_text().contains(words).then_some(()));
}

#[test]
fn a_panic_of_a_connection_ends_that_connection_alone() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let session_id = stage.session();
    broken.fault.panic_in("conn-");
    // It panics between two requests or in one: the client has a 500 or no answer.
    let lost = stage.client.try_request("GET", "/v1/sessions", &[], b"");
    assert!(lost.as_ref().is_ok_and(|reply| reply.status == 500) || lost.is_err(), "{lost:?}");
    assert_eq!(stage.run(&session_id, "say on")["assistant_text"], "on");
    let told = stage.server.stderr_text();
    assert_eq!(told.matches("thread 'conn-").count(), 1, "{told}");
    assert_eq!(stage.get("/v1/diagnostics")["connections"]["panics"], 1);
    let metrics = stage.client.get("/metrics").expect(200).text();
    assert!(metrics.contains("\ngooselake_panics_total 1\n"), "{metrics}");
    broken.verify();
}

#[test]
fn a_panic_while_a_connection_is_refused_costs_that_connection_alone() {
    let broken = Broken::with_config("[server]\nmax_connections = 4\n");
    let stage = &broken.stage;
    let connect = || TcpStream::connect(stage.server.address()).unwrap();
    let open = || stage.get("/v1/diagnostics")["connections"]["open"].as_u64();
    wait::until(SOON, "nobody else is connected", || (open() == Some(1)).then_some(()));
    let mut crowd: Vec<TcpStream> = (0..4).map(|_| connect()).collect();
    for connection in &mut crowd {
        // Answered, or refused: either way it was taken before the next one.
        connection.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        assert!(connection.read(&mut [0; 1024]).unwrap() > 0);
    }
    // The answer of a refusal has an id, which has a time in it.
    broken.fault.panic_in("accept");
    let mut lost = connect();
    assert!(matches!(lost.read(&mut [0; 16]), Ok(0) | Err(_)), "it is closed without an answer");
    drop(crowd);
    wait::until(SOON, "the crowd is gone and the panic is counted", || {
        let reply = stage.client.try_request("GET", "/v1/diagnostics", &[], b"").ok()?;
        let is_counted = || reply.json()["connections"]["panics"] == 1;
        (reply.status == 200 && is_counted()).then_some(())
    });
    assert_eq!(stage.run(&stage.session(), "say on")["assistant_text"], "on");
    broken.verify();
}

/// The dispatcher has panicked once, and says so.
fn check_dispatcher(broken: &Broken) {
    let told = broken.stage.server.stderr_text();
    assert_eq!(told.matches("thread 'dispatcher'").count(), 1, "{told}");
    assert_eq!(told.matches("the dispatcher of team mail panicked").count(), 1, "{told}");
    let counts = broken.stage.get("/v1/diagnostics/comms");
    assert_eq!(counts["dispatcher"]["panics"], 1, "{counts}");
    let metrics = broken.stage.client.get("/metrics").expect(200).text().to_owned();
    assert!(metrics.contains("\ngooselake_dispatcher_panics_total 1\n"), "{metrics}");
    broken.verify();
}

/// The states of a delivery, as its team's log tells them.
fn states(crew: &Crew, stage: &Stage, delivery: &Value) -> Vec<String> {
    let of_it = crew.events(stage).into_iter();
    let of_it = of_it.filter(|event| event.payload["delivery"]["id"] == delivery["id"]);
    of_it.map(|event| event.kind.replace("team_delivery.", "")).collect()
}

#[test]
fn a_panic_of_the_dispatcher_delays_mail_and_loses_none() {
    let broken = Broken::new();
    let stage = &broken.stage;
    let crew = Crew::new(stage, 3);
    // Waits for the end of a turn when the panic comes, and has its place in the dispatcher's memory alone.
    let turn_id = stage.start(&crew.members[1], "slow 100000 20");
    let waiting = crew.send(stage, 1, "say waited", json!({}));
    crew.told(stage, &waiting, "deferred", "turn_running");
    broken.fault.panic_in("dispatcher");
    let first = crew.send(stage, 2, "say first", json!({}));
    let turn = stage.ended(&crew.members[2], &crew.injected(stage, &first));
    assert_eq!(turn["assistant_text"], "first");
    stage.interrupt(&crew.members[1], &turn_id).expect(202);
    let turn = stage.ended(&crew.members[1], &crew.injected(stage, &waiting));
    assert_eq!(turn["assistant_text"], "waited");
    assert_eq!(states(&crew, stage, &first), ["pending", "injecting", "injected"]);
    check_dispatcher(&broken);
}

#[test]
fn an_attempt_that_is_under_way_outlives_a_panic_of_the_dispatcher() {
    let folder = TempDir::new("gg-gate");
    let (gate, runs) = (folder.path().join("gate"), folder.path().join("runs"));
    let before =
        format!("touch {}; until [ -e {} ]; do sleep 0.02; done", runs.display(), gate.display());
    let mut broken = Broken::with_config(&slow_agent(&before, ""));
    fs::write(&gate, "").unwrap();
    let sleeper = text(&broken.stage.create(&json!({"provider": "acp", "mode": "auto"})), "id");
    let (lead, other) = (broken.stage.session(), broken.stage.session());
    let crew = Crew::of(&broken.stage, vec![lead, sleeper, other]);
    // Idle agents sleep when the server stops; this one takes its time to wake.
    broken.stage.restart();
    fs::remove_file(&gate).unwrap();
    fs::remove_file(&runs).unwrap();
    let stage = &broken.stage;
    let first = crew.send(stage, 1, "say first", json!({}));
    wait::until(SOON, "its agent is being started", || runs.exists().then_some(()));
    broken.fault.panic_in("dispatcher");
    let aside = crew.send(stage, 2, "say aside", json!({}));
    stage.ended(&crew.members[2], &crew.injected(stage, &aside));
    let second = crew.send(stage, 1, "say second", json!({}));
    fs::write(&gate, "").unwrap();
    let turns = [&first, &second].map(|delivery| {
        let turn_id = crew.injected(stage, delivery);
        assert_eq!(stage.ended(&crew.members[1], &turn_id)["status"], "completed");
        turn_id
    });
    assert_ne!(turns[0], turns[1], "the second was written when the first was on its way");
    assert_eq!(states(&crew, stage, &first), ["pending", "injecting", "injected"]);
    check_dispatcher(&broken);
}

/// What it was at is told and done with the next round; what is due besides is done in this one.
#[test]
fn a_panic_of_the_housekeeper_delays_what_is_due() {
    let broken = Broken::with_config("[processes]\nlog_retention_hours = 0.0001\n");
    let stage = &broken.stage;
    broken.fault.panic_in("housekeeper");
    wait_told(stage, "thread 'housekeeper'");
    let body = json!({"command": "true", "cwd": stage.cwd});
    let id = text(&stage.start_process(&body)["process"], "process_id");
    wait::until(SOON, "the process is forgotten", || {
        (stage.client.get(&format!("/v1/processes/{id}")).status == 404).then_some(())
    });
    let told = stage.server.stderr_text();
    assert_eq!(told.matches("thread 'housekeeper'").count(), 1, "{told}");
    broken.verify();
}

/// Nor does it keep it from the next ones.
#[test]
fn a_panic_over_one_worktree_leaves_the_others_to_be_looked_after() {
    let mut broken = Broken::new();
    let repo = Repo::new(&broken.stage.server.folder().join("repo"));
    let worktrees = ["one", "two", "three"].map(|name| {
        let body = json!({"repo_root": repo.path, "worktree_name": name});
        let reply = broken.stage.client.post("/v1/worktrees", &body).expect(200).json();
        reply["worktree"].clone()
    });
    broken.stage.server.kill9();
    // How old it is is asked by the time of day.
    let record = Repo::of(&worktrees[0]).git(&["rev-parse", "--absolute-git-dir"]);
    fs::write(format!("{}/index.lock", record.trim()), "").unwrap();
    fs::remove_dir_all(text(&worktrees[1], "worktree_cwd")).unwrap();
    broken.fault.panic_in("worktrees");
    broken.stage.restart();
    let stage = &broken.stage;
    let path = |worktree: &Value| format!("/v1/worktrees/{}", text(worktree, "id"));
    wait::until(SOON, "the second is looked at", || {
        (stage.get(&path(&worktrees[1]))["status"] == "missing").then_some(())
    });
    assert!(stage.server.stderr_text().contains("thread 'worktrees'"));
    // The thread lives: it cleans up after a session.
    let body = json!({"worktree": {"name": "four", "repo_root": repo.path}});
    let session_id = text(&stage.create(&body), "id");
    stage.close(&session_id);
    wait::until(SOON, "the fourth is gone", || {
        let is_gone = |worktree: &Value| worktree["status"] == "deleted";
        list(stage.get("/v1/worktrees")).iter().any(is_gone).then_some(())
    });
    broken.verify();
}
