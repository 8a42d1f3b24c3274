//! Team mail: what each policy does to a recipient that is idle, works, or waits.

use crate::crew::{Crew, kinds, prompts};
use crate::stage::{SOON, Stage, list, text};
use gooselake_harness::wait;
use serde_json::{Value, json};

/// Starts a turn that goes on until it is interrupted, and waits until its agent has begun.
fn busy(stage: &Stage, session_id: &str) -> String {
    let turn_id = stage.start(session_id, "slow 100000 20");
    let query = format!("?control=false&kinds=item.delta&turn_id={turn_id}");
    stage.stream(session_id, &query).expect(SOON);
    turn_id
}

#[test]
fn an_idle_member_gets_a_message_in_a_turn_of_its_own() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let delivery = crew.send(&stage, 1, "say hello", json!({"correlation_id": "c1"}));
    assert_eq!(delivery["status"], "pending");
    let turn_id = crew.injected(&stage, &delivery);
    let turn = stage.ended(&crew.members[1], &turn_id);
    assert_eq!((&turn["source"], &turn["assistant_text"]), (&json!("team"), &json!("hello")));
    let prompts = prompts(&turn);
    let opening = format!(
        "<team_msg kind=\"dm\" id=\"{}\" team=\"{}\" sender=\"{}\" sent_at=\"",
        text(&delivery, "message_id"),
        crew.id,
        crew.members[0]
    );
    assert!(prompts[0].starts_with(&opening), "{prompts:?}");
    assert_eq!(&prompts[1..], ["say hello", "</team_msg>"]);
    let done = crew.delivery(&stage, &delivery);
    assert_eq!((&done["status"], &done["attempts"]), (&json!("injected"), &json!(1)));
    assert_eq!(done["injection_strategy"], "runtime_send_turn");
    let log = crew.until(&stage, "team_message.completed");
    assert_eq!(
        kinds(&log),
        [
            "team.created",
            "team_message.created",
            "team_delivery.pending",
            "team_delivery.injecting",
            "team_delivery.injected",
            "team_message.completed"
        ]
    );
    assert_eq!(log[4].json["turn_id"], turn_id.as_str());
    assert_eq!(log[4].json["session_id"], crew.members[1].as_str());
    let started = stage.event(&crew.members[1], "turn.started", 0);
    assert_eq!(started.payload["source"], "team");
}

#[test]
fn what_waits_for_the_end_of_a_turn_shares_the_next_one_in_order() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let member = &crew.members[1];
    let running = busy(&stage, member);
    let first = crew.send(&stage, 1, "say one", json!({}));
    crew.told(&stage, &first, "deferred", "turn_running");
    let second = crew.send(&stage, 1, "say two", json!({}));
    crew.told(&stage, &second, "deferred", "mail_ahead");
    let urgent = crew.send(&stage, 1, "say zero", json!({"priority": "high"}));
    crew.told(&stage, &urgent, "deferred", "");
    stage.interrupt(member, &running).expect(202);
    let turn_id = crew.injected(&stage, &first);
    for delivery in [&second, &urgent] {
        assert_eq!(crew.injected(&stage, delivery), turn_id);
    }
    let turn = stage.ended(member, &turn_id);
    assert_eq!(turn["assistant_text"], "zero\n\none\n\ntwo");
}

#[test]
fn a_message_that_wants_its_own_turn_shares_none() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let member = &crew.members[1];
    let running = busy(&stage, member);
    let policies = ["start_new_turn_only", "non_interrupting", "start_new_turn_only"];
    let sent: Vec<Value> = policies
        .iter()
        .enumerate()
        .map(|(number, policy)| crew.send_by(&stage, 1, &format!("say {number}"), policy))
        .collect();
    crew.told(&stage, &sent[2], "deferred", "");
    stage.interrupt(member, &running).expect(202);
    for (number, delivery) in sent.iter().enumerate() {
        let turn = stage.ended(member, &crew.injected(&stage, delivery));
        assert_eq!(turn["assistant_text"], number.to_string());
    }
}

#[test]
fn an_immediate_message_ends_the_turn_and_goes_ahead_of_those_that_wait() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let member = &crew.members[1];
    let running = busy(&stage, member);
    let queued = stage.queue(member, "say queued");
    let delivery = crew.send_by(&stage, 1, "say now", "immediate_interrupt");
    let turn_id = crew.injected(&stage, &delivery);
    assert_eq!(stage.ended(member, &running)["status"], "interrupted");
    assert_eq!(stage.ended(member, &turn_id)["assistant_text"], "now");
    assert_eq!(stage.ended(member, &queued)["assistant_text"], "queued");
    let turns = list(stage.get(&format!("/v1/sessions/{member}/turns")));
    let started =
        |id: &str| turns.iter().find(|turn| turn["id"] == id).unwrap()["started_at"].as_i64();
    assert!(started(&turn_id) <= started(&queued), "{turns:?}");
}

#[test]
fn mail_does_not_cut_mail_of_the_same_rank_and_yields_to_a_higher_one() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let member = &crew.members[1];
    busy(&stage, member);
    let first = crew.send_by(&stage, 1, "slow 100000 20", "immediate_interrupt");
    let turn_id = crew.injected(&stage, &first);
    let same = crew.send_by(&stage, 1, "say same", "immediate_interrupt");
    crew.told(&stage, &same, "deferred", "mail_turn");
    assert!(stage.get(&format!("/v1/sessions/{member}/turns/{turn_id}"))["completed_at"].is_null());
    let body = json!({"policy": "immediate_interrupt", "priority": "high"});
    let high = crew.send(&stage, 1, "say high", body);
    let high_turn = crew.injected(&stage, &high);
    assert_eq!(stage.ended(member, &turn_id)["status"], "interrupted");
    assert_eq!(stage.ended(member, &high_turn)["assistant_text"], "high");
    assert_eq!(stage.ended(member, &crew.injected(&stage, &same))["assistant_text"], "same");
}

#[test]
fn a_boundary_message_waits_until_the_tool_is_done() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let member = &crew.members[1];
    let prompt = "run until test -e go; do sleep 0.02; done; echo done\nslow 100000 20";
    let running = stage.start(member, prompt);
    stage.event(member, "item.started", 0);
    let delivery = crew.send_by(&stage, 1, "say between", "interrupt_after_tool_boundary");
    crew.told(&stage, &delivery, "deferred", "tool_running");
    std::fs::write(stage.cwd.join("go"), "").unwrap();
    let turn_id = crew.injected(&stage, &delivery);
    let cut = stage.ended(member, &running);
    assert_eq!(cut["status"], "interrupted");
    let items = stage.items(member, &running);
    let command = items.iter().find(|item| item["type"] == "command").unwrap();
    assert_eq!((&command["status"], &command["output"]), (&json!("completed"), &json!("done\n")));
    assert_eq!(stage.ended(member, &turn_id)["assistant_text"], "between");
}

#[test]
fn a_turn_that_waits_for_a_person_is_busy_and_an_interrupt_withdraws_the_question() {
    let stage = Stage::new();
    let crew = Crew::of(&stage, vec![stage.session(), stage.asking_session()]);
    let member = &crew.members[1];
    let running = stage.start(member, "run echo no > asked");
    let approval = stage.approval(member, 0);
    let patient = crew.send(&stage, 1, "say patient", json!({}));
    crew.told(&stage, &patient, "deferred", "waiting_for_approval");
    // The tool that is asked for has not begun, so this is between tools.
    let delivery = crew.send_by(&stage, 1, "say now", "interrupt_after_tool_boundary");
    let turn_id = crew.injected(&stage, &delivery);
    assert_eq!(crew.injected(&stage, &patient), turn_id, "what was ahead goes with it");
    assert_eq!(stage.ended(member, &running)["status"], "interrupted");
    let path = format!("/v1/sessions/{member}/approvals/{}", text(&approval, "id"));
    assert_eq!(stage.get(&path)["status"], "withdrawn");
    assert_eq!(stage.ended(member, &turn_id)["assistant_text"], "patient\n\nnow");
    assert!(!stage.cwd.join("asked").exists());
}

#[test]
fn a_gated_member_is_asked_for_before_it_reads() {
    let stage = Stage::new();
    let gated = text(&stage.create(&json!({"permission_mode": "require_approval"})), "id");
    let crew = Crew::of(&stage, vec![stage.session(), gated]);
    let member = &crew.members[1];
    let delivery = crew.send(&stage, 1, "say through", json!({}));
    let turn_id = crew.injected(&stage, &delivery);
    let approval = stage.approval(member, 0);
    assert_eq!(approval["turn_id"], turn_id.as_str());
    // What nobody has read yet is not pushed aside, whatever comes.
    let higher = json!({"policy": "immediate_interrupt", "priority": "high"});
    let second = crew.send(&stage, 1, "say second", higher);
    crew.told(&stage, &second, "deferred", "mail_turn");
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    assert_eq!(stage.ended(member, &turn_id)["assistant_text"], "through");
    let second_turn = crew.injected(&stage, &second);
    let mut asked = stage.stream(member, "?control=false&kinds=approval.requested");
    let again = asked.until_match("the second question", SOON, |frame| {
        frame.record().payload["approval"]["turn_id"] == second_turn.as_str()
    });
    let approval = again.last().unwrap().record().payload["approval"].clone();
    stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    assert_eq!(stage.ended(member, &second_turn)["assistant_text"], "second");
}

#[test]
fn images_reach_an_agent_that_takes_them_whatever_becomes_of_the_file() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let running = busy(&stage, &crew.members[1]);
    let path = stage.cwd.join("dot.png");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n").unwrap();
    let delivery = crew.send(&stage, 1, "image", json!({"image_paths": [path]}));
    std::fs::remove_file(&path).unwrap();
    stage.interrupt(&crew.members[1], &running).expect(202);
    let turn = stage.ended(&crew.members[1], &crew.injected(&stage, &delivery));
    let said = text(&turn, "assistant_text");
    assert!(said.contains("image/png"), "{said}");
    let reply = crew.post(&stage, 1, "image", json!({"image_paths": [path]}));
    crate::stage::check_told(&reply, 400, "bad_request", "image_paths[0]");
}

#[test]
fn a_member_that_sleeps_is_woken() {
    let stage =
        Stage::with_config("[providers.demo]\nmax_instances = 1\nmax_sessions_per_instance = 2\n");
    let crew = Crew::new(&stage, 2);
    stage.session();
    let sleeper = if stage.record(&crew.members[0])["live"] == false { 0 } else { 1 };
    stage.event(&crew.members[sleeper], "agent.slept", 0);
    let delivery = crew.send(&stage, sleeper, "say awake", json!({}));
    let turn = stage.ended(&crew.members[sleeper], &crew.injected(&stage, &delivery));
    assert_eq!(turn["assistant_text"], "awake");
}

#[test]
fn a_thousand_messages_reach_twenty_members_once_and_in_order() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 20);
    for number in 0..1000 {
        crew.send(&stage, number % 20, &format!("say {number}"), json!({}));
    }
    let mut stream = crew.stream(&stage);
    let mut completed = 0;
    stream.until_match("the last message is delivered", SOON * 4, |frame| {
        completed += usize::from(frame.event == "team_message.completed");
        completed == 1000
    });
    for (place, member) in crew.members.iter().enumerate() {
        let turns = list(stage.get(&format!("/v1/sessions/{member}/turns?limit=10000")));
        let mut said: Vec<String> = Vec::new();
        for turn in &turns {
            let turn = stage.ended(member, &text(turn, "id"));
            said.extend(text(&turn, "assistant_text").split("\n\n").map(str::to_owned));
        }
        let expected: Vec<String> = (0..50).map(|round| (round * 20 + place).to_string()).collect();
        assert_eq!(said, expected, "member {place}");
    }
    let comms = stage.get("/v1/diagnostics/comms");
    assert_eq!(comms["delivery_status_counts"], json!({"injected": 1000}), "{comms}");
    // The dispatcher learns of the last attempt's end behind everybody else.
    wait::until(SOON, "nobody is awaited any more", || {
        let comms = stage.get("/v1/diagnostics/comms");
        (comms["dispatcher"]["recipients_awaited"] == 0).then_some(())
    });
}
