//! Teams: who is in one, what can not be, and what is left of one that is gone.

use crate::crew::{Crew, kinds};
use crate::stage::{SOON, Stage, check_told, each, list, text};
use serde_json::{Value, json};

#[test]
fn a_team_is_made_joined_led_and_left() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let third = stage.session();
    let body = json!({"agent_id": third, "title": "  Reviewer ", "creator_agent_id": "x"});
    let team = stage.client.post(&crew.path("members"), &body).expect(200).json();
    let members = list(team["members"].clone());
    assert_eq!(members.len(), 3);
    let joined = members.iter().find(|member| member["agent_id"] == third.as_str()).unwrap();
    assert_eq!(
        (&joined["title"], &joined["added_by"]),
        (&json!("Reviewer"), &json!(crew.members[0]))
    );
    assert_eq!(joined["creator_compaction_subscription"], "auto");
    let again = stage.client.post(&crew.path("members"), &body);
    check_told(&again, 409, "conflict", "already");
    let lead = json!({"lead_agent_id": third});
    stage.client.post(&crew.path("lead"), &lead).expect(200);
    // Once more changes nothing and tells nothing.
    stage.client.post(&crew.path("lead"), &lead).expect(200);
    let team = stage.client.delete(&crew.path(&format!("members/{third}"))).expect(200).json();
    let first = &team["members"][0]["agent_id"];
    assert_eq!(&team["team"]["lead_agent_id"], first, "the one that has been there longest leads");
    let of_team = list(stage.get(&format!("/v1/sessions?team_id={}", crew.id)));
    assert_eq!(of_team.len(), 2, "the sessions of its members: {of_team:?}");
    let told = kinds(&crew.events(&stage)).join(" ");
    let expected = "team.created team.member_joined team.lead_changed team.member_left";
    assert_eq!(told, expected);
    stage.client.delete(&crew.path(&format!("members/{third}"))).expect(404);
    let second = text(&team["members"][1], "agent_id");
    stage.client.delete(&crew.path(&format!("members/{second}"))).expect(200);
    let last = stage
        .client
        .delete(&crew.path(&format!("members/{}", text(&team["members"][0], "agent_id"))));
    check_told(&last, 409, "conflict", "last member");
}

#[test]
fn what_can_not_be_a_team_changes_nothing() {
    let stage = Stage::new();
    let session = stage.session();
    let closed = stage.session();
    stage.close(&closed);
    let team = |fields: Value| stage.client.post("/v1/teams", &fields);
    let reply = team(json!({"name": "  ", "lead_agent_id": session}));
    check_told(&reply, 400, "bad_request", "name");
    let reply = team(json!({"name": "a", "lead_agent_id": " "}));
    check_told(&reply, 400, "bad_request", "lead_agent_id");
    let reply = team(json!({"name": "a", "lead_agent_id": "sess_none"}));
    check_told(&reply, 404, "not_found", "sess_none");
    let reply = team(json!({"name": "a", "lead_agent_id": session, "member_agent_ids": [closed]}));
    check_told(&reply, 409, "session_closed", &closed);
    assert_eq!(stage.get("/v1/teams"), json!([]));
    stage.client.get("/v1/teams/team_none").expect(404);
    let crew = Crew::of(&stage, vec![session]);
    let member = json!({"agent_id": stage.session(), "creator_compaction_subscription": "never"});
    let reply = stage.client.post(&crew.path("members"), &member);
    check_told(&reply, 400, "bad_request", "creator_compaction_subscription");
    let reply = stage.client.post(&crew.path("lead"), &json!({"lead_agent_id": closed}));
    check_told(&reply, 409, "conflict", "not a member");
}

#[test]
fn teams_are_listed_in_pages_and_made_once_for_a_key() {
    let stage = Stage::new();
    let session = stage.session();
    let body =
        json!({"name": "a", "lead_agent_id": session, "member_agent_ids": [session, session]});
    let key = [("Idempotency-Key", "team-1")];
    let first = stage.post_with("/v1/teams", &body, &key).expect(200).json();
    assert_eq!(list(first["members"].clone()).len(), 1);
    let again = stage.post_with("/v1/teams", &body, &key).expect(200).json();
    assert_eq!(first, again);
    let other = json!({"name": "b", "lead_agent_id": session});
    check_told(&stage.post_with("/v1/teams", &other, &key), 409, "idempotency_mismatch", "team-1");
    stage.client.post("/v1/teams", &other).expect(200);
    let page = stage.client.get("/v1/teams?limit=1").expect(200);
    assert_eq!(page.json()[0]["team"]["name"], "a");
    let cursor = page.header("x-next-cursor").unwrap().to_owned();
    let rest = stage.get(&format!("/v1/teams?cursor={cursor}"));
    assert_eq!((rest.as_array().unwrap().len(), &rest[0]["team"]["name"]), (1, &json!("b")));
}

#[test]
fn a_deleted_team_cancels_what_waits_and_can_only_be_read() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let member = &crew.members[1];
    let running = stage.start(member, "slow 100000 20");
    let delivery = crew.send(&stage, 1, "say late", json!({}));
    crew.told(&stage, &delivery, "deferred", "");
    let mut stream = crew.stream(&stage);
    assert_eq!(stage.client.delete(crew.path("").trim_end_matches('/')).status, 204);
    let seen = stream.until("team.deleted", SOON);
    let cancelled = &seen[seen.len() - 3..];
    assert_eq!(cancelled[0].event, "team_delivery.cancelled");
    assert_eq!(cancelled[1].event, "team_message.completed");
    assert!(seen.last().unwrap().record().json["session_id"].is_null());
    for path in ["view", "members/x/activity", "events/stream"] {
        stage.client.get(&crew.path(path)).expect(404);
    }
    stage.client.delete(crew.path("").trim_end_matches('/')).expect(404);
    assert_eq!(crew.post(&stage, 1, "say no", json!({})).status, 404);
    assert_eq!(list(stage.get(&crew.path("deliveries")))[0]["status"], "cancelled");
    assert_eq!(list(stage.get(&crew.path("messages"))["messages"].clone()).len(), 1);
    assert!(crew.events(&stage).len() > 4);
    assert_eq!(stage.get("/v1/teams"), json!([]));
    stage.interrupt(member, &running).expect(202);
    let turns = list(stage.get(&format!("/v1/sessions/{member}/turns")));
    assert_eq!(each(&turns, "id"), [running], "cancelled mail came through");
}

#[test]
fn who_watches_sees_what_members_do_and_can_end_it() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 3);
    let delivery = crew.send(&stage, 1, "say before\nrun sleep 1000", json!({}));
    let turn_id = crew.injected(&stage, &delivery);
    let path = crew.path(&format!("members/{}/activity", crew.members[1]));
    stage.event(&crew.members[1], "item.started", 0);
    let mut items = stage.stream(&crew.members[1], "?control=false&kinds=item.started");
    items.until_match("the command", SOON, |frame| {
        frame.record().payload["item"]["type"] == "command"
    });
    let activity = stage.get(&path);
    assert_eq!((&activity["state"], &activity["last_text"]), (&json!("working"), &json!("before")));
    assert_eq!(activity["active_turn"]["id"], turn_id.as_str());
    assert_eq!(activity["current_item"]["command"], "sleep 1000");
    assert_eq!(activity["last_message"]["id"], delivery["message_id"]);
    let interrupt = crew.path(&format!("members/{}/interrupt", crew.members[1]));
    let why = json!({"why": "x"});
    check_told(&stage.client.post(&interrupt, &why), 400, "bad_request", "why");
    let reply = stage.client.post(&interrupt, &json!({})).expect(202).json();
    assert_eq!(reply["turn_id"], turn_id.as_str());
    assert_eq!(stage.ended(&crew.members[1], &turn_id)["status"], "interrupted");
    check_told(&stage.client.post(&interrupt, &json!({})), 409, "conflict", "no turn");
    assert_eq!(stage.get(&path)["state"], "idle");
    let running = stage.start(&crew.members[2], "slow 100000 20");
    let all = crew.path("interrupt-all");
    check_told(&stage.client.post(&all, &why), 400, "bad_request", "why");
    let result = stage.client.post(&all, &json!({})).expect(200).json();
    assert_eq!(result["interrupted_session_ids"], json!([crew.members[2]]));
    assert_eq!(list(result["skipped_session_ids"].clone()).len(), 2);
    assert_eq!(stage.ended(&crew.members[2], &running)["status"], "interrupted");
    let told = crew.until(&stage, "team.interrupt_all");
    assert_eq!(told.last().unwrap().payload["result"], result);
    stage.client.get(&crew.path("members/sess_none/activity")).expect(404);
}

#[test]
fn words_and_numbers_of_a_team_have_a_size() {
    let stage = Stage::new();
    let crew = Crew::new(&stage, 2);
    let long = "x".repeat(257);
    let body = json!({"agent_id": stage.session(), "worktree_id": long});
    let reply = stage.client.post(&crew.path("members"), &body);
    check_told(&reply, 400, "bad_request", "worktree_id");
    let reply = crew.post(&stage, 1, "say hello", json!({"reply_to_message_id": long}));
    check_told(&reply, 400, "bad_request", "reply_to_message_id");
    for (path, name) in [("messages?limit=-1", "limit"), ("view?message_limit=-1", "message_limit")]
    {
        check_told(&stage.client.get(&crew.path(path)), 400, "bad_request", name);
    }
    assert_eq!(stage.get(&crew.path("messages"))["messages"], json!([]));
    let team = stage.get(&format!("/v1/teams/{}", crew.id));
    assert_eq!(list(team["members"].clone()).len(), 2);
}
