//! A panic in one thread of the server: what it concerned ends with a reason, and nothing else does.

use super::Broken;
use crate::stage::{SOON, check_error, text};
use gooselake_harness::{proof, wait};
use serde_json::json;
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
    let marks = std::fs::read_to_string(stage.cwd.join("marks")).unwrap();
    assert_eq!(marks, "once\nqueued\n");
    proof::log(&stage.events(&session_id));
    stage.close(&session_id);
    stage.close(&other);
    proof::nothing_runs_in(&stage.cwd);
    broken.verify();
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
