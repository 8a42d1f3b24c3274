//! The tools for teams, called by agents: who writes to whom, who sees what, and what only the lead may do.

use super::prompt;
use crate::crew::{Crew, prompts};
use crate::stage::{SOON, Stage, each, list, text};
use serde_json::{Value, json};
use std::fs;

const MESSAGE: &str = "gg_team_message";

fn message(crew: &Crew, to: &str, text: &str) -> Value {
    json!({"team_id": crew.id, "recipient_agent_id": to, "message": text})
}

/// Waits for the turn that carries the newest message to the member, and for its end; gives its record.
fn mail_turn(stage: &Stage, crew: &Crew, agent_id: &str) -> Value {
    let to_it = crew.path(&format!("deliveries?recipient_agent_id={agent_id}"));
    let delivery = list(stage.get(&to_it)).pop().unwrap();
    stage.ended(agent_id, &crew.injected(stage, &delivery))
}

#[test]
fn what_one_agent_writes_is_a_turn_of_the_other_which_answers() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let [lead, member] = [&crew.members[0], &crew.members[1]];
    let answer = prompt(MESSAGE, &message(&crew, lead, "say the tests \"pass\""));
    let sent = stage.called(lead, MESSAGE, &message(&crew, member, &answer));
    let expected = json!({"scope": "direct", "recipient_count": 1, "image_count": 0});
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(sent[field], *value, "{field} of {sent}");
    }
    assert!(sent.get("image_paths").is_none());
    let turn = mail_turn(&stage, &crew, member);
    let told = prompts(&turn);
    assert!(told[0].contains(&format!("sender=\"{lead}\"")), "{told:?}");
    assert!(told[0].contains(&format!("id=\"{}\"", text(&sent, "message_id"))), "{told:?}");
    assert_eq!(told[1], answer);
    // Its answer is mail like any other, and reaches the lead in a turn.
    let answered = mail_turn(&stage, &crew, lead);
    assert_eq!(text(&answered, "assistant_text").trim(), "the tests \"pass\"");
    assert!(prompts(&answered)[0].contains(&format!("sender=\"{member}\"")));
    let messages = list(stage.get(&crew.path("messages"))["messages"].clone());
    assert_eq!(each(&messages, "sender_agent_id"), [lead.clone(), member.clone()]);
    assert_eq!(each(&messages, "policy"), ["non_interrupting"; 2]);
    let deliveries = list(stage.get(&crew.path("deliveries")));
    assert_eq!(json!([deliveries[0]["id"]]), sent["delivery_ids"]);
}

#[test]
fn a_broadcast_reaches_all_others() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 4);
    stage.close(&crew.members[3]);
    let sent = stage.called(&crew.members[1], MESSAGE, &message(&crew, "Broadcast", "say heard"));
    assert_eq!((&sent["scope"], &sent["recipient_count"]), (&json!("broadcast"), &json!(3)));
    let ids = each_text(&sent["delivery_ids"]);
    assert!(ids.is_sorted() && ids.len() == 3, "{ids:?}");
    for place in [0, 2] {
        let turn = mail_turn(&stage, &crew, &crew.members[place]);
        assert!(prompts(&turn)[0].contains("kind=\"broadcast\""), "{turn}");
        assert_eq!(text(&turn, "assistant_text").trim(), "heard");
    }
    let of_closed = format!("deliveries?recipient_agent_id={}", crew.members[3]);
    assert_eq!(list(stage.get(&crew.path(&of_closed)))[0]["status"], "failed");
}

fn each_text(value: &Value) -> Vec<String> {
    list(value.clone()).iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

#[test]
fn who_is_not_in_a_team_neither_sees_it_nor_writes_to_it() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let [lead, member] = [&crew.members[0], &crew.members[1]];
    let stranger = stage.session();
    let not_member = ("unauthorized", "not a member");
    stage.refused(&stranger, "gg_team_status", &json!({"team_id": crew.id}), not_member);
    stage.refused(&stranger, MESSAGE, &message(&crew, member, "say no"), not_member);
    stage.refused(&stranger, MESSAGE, &message(&crew, "broadcast", "say no"), not_member);
    stage.refused(lead, MESSAGE, &message(&crew, &stranger, "say no"), not_member);
    let nowhere = json!({"team_id": "team_x"});
    stage.refused(lead, "gg_team_status", &nowhere, ("not_found", "no team team_x"));
    // Nobody speaks for another, and what is said is not nothing.
    for (field, value, part) in [
        ("sender_agent_id", json!(member), "sender_agent_id: there is no such argument"),
        ("sender", json!(member), "sender: there is no such argument"),
        ("caller_agent_id", json!(member), "caller_agent_id: there is no such argument"),
        ("message", json!(" \n "), "message: is blank"),
        ("recipient_agent_id", json!(""), "recipient_agent_id: must not be shorter"),
        ("policy", json!("now"), "policy: must be one of"),
        ("image_paths", json!(["nothing.png"]), "nothing.png"),
    ] {
        let mut arguments = message(&crew, member, "say no");
        arguments[field] = value;
        stage.refused(lead, MESSAGE, &arguments, ("bad_request", part));
    }
    for field in ["caller_agent_id", "sender", "sender_agent_id", "agent_id"] {
        let arguments = json!({"team_id": crew.id, field: lead});
        stage.refused(lead, "gg_team_status", &arguments, ("bad_request", field));
    }
    let closed = stage.session();
    let body = json!({"agent_id": closed});
    stage.client.post(&crew.path("members"), &body).expect(200);
    stage.close(&closed);
    stage.refused(lead, MESSAGE, &message(&crew, &closed, "say no"), ("unauthorized", "closed"));
    assert_eq!(stage.get(&crew.path("messages"))["messages"], json!([]));
}

#[test]
fn the_status_of_a_team_is_of_now_however_much_was_said() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 4);
    let [lead, member, busy, closed] = [0, 1, 2, 3].map(|place| &crew.members[place]);
    let running = stage.start(busy, "slow 100000 20");
    stage.close(closed);
    // More than a page of messages, to one that does not read them yet.
    let mut newest = Value::Null;
    for number in 0..120 {
        newest = crew.send(&stage, 2, &format!("say {number}"), json!({}));
    }
    let long = format!("{} end", "x".repeat(5000));
    stage.called(member, MESSAGE, &message(&crew, lead, &long));
    mail_turn(&stage, &crew, lead);
    let status = stage.called(member, "gg_team_status", &json!({"team_id": crew.id}));
    assert_eq!((&status["team_id"], &status["lead_agent_id"]), (&json!(crew.id), &json!(lead)));
    let members = list(status["members"].clone());
    assert_eq!(each(&members, "agent_id"), each(&roster(&stage, &crew), "agent_id"));
    let of = |id: &str| members.iter().find(|member| member["agent_id"] == id).unwrap();
    let states = [lead, member, busy, closed].map(|id| text(of(id), "state"));
    assert_eq!(states, ["idle", "working", "working", "closed"]);
    let last = &of(busy)["last_message"];
    assert_eq!((&last["message_id"], &last["text"]), (&newest["message_id"], &json!("say 119")));
    assert_eq!((&last["scope"], &last["sender_agent_id"]), (&json!("direct"), &json!(lead)));
    let last = &of(member)["last_message"];
    assert_eq!((last["text"].as_str().unwrap().len(), &last["truncated"]), (2048, &json!(true)));
    assert_eq!(of(closed)["last_message"], Value::Null);
    // The demo agent counts its tokens.
    let remaining = of(lead)["context_window_remaining_percentage"].as_i64().unwrap();
    assert!((0..=100).contains(&remaining), "{remaining}");
    assert_eq!(of(closed)["context_window_remaining_percentage"], Value::Null);
    assert!(of(busy)["last_activity_at_ms"].as_i64() <= status["generated_at_ms"].as_i64());
    for field in ["session_id", "added_by"] {
        assert!(of(lead)[field].is_string(), "{field} of {}", of(lead));
    }
    // People are told the same; these two have done nothing since.
    let over_http = list(stage.get(&crew.path("status"))["members"].clone());
    for id in [lead, closed] {
        assert!(over_http.contains(of(id)), "{} in {over_http:?}", of(id));
    }
    stage.interrupt(busy, &running).expect(202);
}

fn roster(stage: &Stage, crew: &Crew) -> Vec<Value> {
    list(stage.get(crew.path("").trim_end_matches('/'))["members"].clone())
}

#[test]
fn the_lead_watches_and_interrupts_and_nobody_else_does() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    let [lead, member, other] = [0, 1, 2].map(|place| &crew.members[place]);
    let running = stage.start(member, "say begun\nrun sleep 1000");
    let mut items = stage.stream(member, "?control=false&kinds=item.started");
    items.until_match("the command", SOON, |frame| {
        frame.record().payload["item"]["type"] == "command"
    });
    let about = |id: &str| json!({"team_id": crew.id, "member_agent_id": id});
    let only_lead = ("unauthorized", "only the lead");
    for tool in ["gg_team_activity", "gg_team_interrupt"] {
        stage.refused(other, tool, &about(member), only_lead);
        stage.refused(lead, tool, &about("sess_x"), ("not_found", "sess_x"));
    }
    for policy in ["immediate_interrupt", "interrupt_after_tool_boundary"] {
        let mut arguments = message(&crew, member, "say stop");
        arguments["policy"] = json!(policy);
        stage.refused(other, MESSAGE, &arguments, only_lead);
    }
    assert_eq!(stage.record(member)["active_turn_id"], running.as_str());
    let activity = stage.called(lead, "gg_team_activity", &about(member));
    assert_eq!((&activity["state"], &activity["last_text"]), (&json!("working"), &json!("begun")));
    assert_eq!(activity["active_turn"]["id"], running.as_str());
    let ended = stage.called(lead, "gg_team_interrupt", &about(member));
    assert_eq!((&ended["session_id"], &ended["turn_id"]), (&json!(member), &json!(running)));
    assert_eq!(stage.ended(member, &running)["status"], "interrupted");
    stage.refused(lead, "gg_team_interrupt", &about(member), ("tool_failed", "runs no turn"));
    stage.refused(lead, "gg_team_interrupt", &about(lead), ("bad_request", "that is you"));
    // An interrupting message of the lead is in the place of what it cut.
    let running = stage.start(member, "slow 100000 20");
    let mut arguments = message(&crew, member, "say on it");
    arguments["policy"] = json!("immediate_interrupt");
    stage.called(lead, MESSAGE, &arguments);
    assert_eq!(stage.ended(member, &running)["status"], "interrupted");
    assert_eq!(text(&mail_turn(&stage, &crew, member), "assistant_text").trim(), "on it");
    // Who leads is a matter of now.
    let body = json!({"lead_agent_id": other});
    stage.client.post(&crew.path("lead"), &body).expect(200);
    stage.refused(lead, "gg_team_activity", &about(member), only_lead);
    stage.called(other, "gg_team_activity", &about(member));
}

#[test]
fn a_message_is_written_once_for_its_call_and_takes_images_along() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let [lead, member] = [&crew.members[0], &crew.members[1]];
    fs::write(stage.cwd.join("seen.png"), b"\x89PNG\r\n\x1a\n0123").unwrap();
    let mut arguments = message(&crew, member, "image");
    arguments["image_paths"] = json!(["seen.png"]);
    arguments["priority"] = json!("high");
    let first = stage.invoke(lead, MESSAGE, "one", &arguments)["result"].clone();
    assert_eq!(first["image_count"], 1);
    assert_eq!(first["image_paths"], json!([stage.cwd.join("seen.png")]));
    let turn = mail_turn(&stage, &crew, member);
    assert_eq!(text(&turn, "assistant_text").trim(), "1 image: image/png 12 bytes");
    let again = stage.invoke(lead, MESSAGE, "one", &arguments)["result"].clone();
    assert_eq!(again, first);
    let other = stage.invoke(lead, MESSAGE, "one", &message(&crew, member, "say two"));
    assert_eq!(other["error"]["code"], "bad_request", "{other}");
    // What is answered names what it answers.
    let mut reply = message(&crew, lead, "say thanks");
    reply["reply_to_message_id"] = first["message_id"].clone();
    stage.called(member, MESSAGE, &reply);
    let turn = mail_turn(&stage, &crew, lead);
    let mark = format!("reply_to=\"{}\"", text(&first, "message_id"));
    assert!(prompts(&turn)[0].contains(&mark), "{turn}");
    let messages = list(stage.get(&crew.path("messages"))["messages"].clone());
    assert_eq!(each(&messages, "priority"), ["high", "normal"]);
}
