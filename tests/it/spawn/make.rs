//! What a spawn makes, and what it answers.

use super::scene::Nest;
use crate::stage::{check_told, list, text};
use crate::worktree::scene::{Repo, is_there};
use serde_json::{Value, json};

#[test]
fn a_member_is_made_into_a_worktree_and_told_what_to_do() {
    let nest = Nest::new();
    let before = nest.head();
    let answer = nest.spawn(json!({
        "title": " Builder ", "prompt": "say built\nrun pwd > where.ignored",
        "worktree": {"name": "feature"}, "metadata": {"mine": 1},
        "creator_agent_id": nest.lead(), "creator_compaction_subscription": "unsubscribed",
    }));
    let (session, worktree) = (&answer["spawned_session"], &answer["worktree"]);
    let id = text(session, "id");
    // The state after the saga, not that of some step of it.
    assert_eq!(session["worktree_id"], worktree["id"]);
    assert_eq!(session["cwd"], worktree["worktree_cwd"]);
    assert_eq!((&session["mode"], &session["metadata"]), (&json!("auto"), &json!({"mine": 1})));
    for (field, value) in [
        ("worktree_assignment_mode", json!("created")),
        ("worktree_created_by_operation", json!(true)),
        ("journal_stage", json!("completed")),
    ] {
        assert_eq!(answer[field], value, "{field} of {answer}");
    }
    let member = &answer["spawned_member"];
    for (field, value) in [
        ("agent_id", json!(id)),
        ("title", json!("Builder")),
        ("added_by", json!(nest.lead())),
        ("creator_agent_id", json!(nest.lead())),
        ("creator_compaction_subscription", json!("unsubscribed")),
        ("worktree_id", worktree["id"].clone()),
        ("operation_id", answer["operation_id"].clone()),
    ] {
        assert_eq!(member[field], value, "{field} of {member}");
    }
    assert_eq!(answer["team"]["members"].as_array().unwrap().len(), 2);
    for (field, value) in [
        ("branch_name", json!("gg/feature")),
        ("status", json!("ready")),
        ("active_claim_count", json!(1)),
        ("deletion_policy", json!("delete_on_last_claim")),
        ("created_by_session_id", json!(nest.lead())),
        ("created_by_operation_id", answer["operation_id"].clone()),
        ("team_id", json!(nest.crew.id)),
    ] {
        assert_eq!(worktree[field], value, "{field} of {worktree}");
    }
    // The member's first turn is its onboarding, and it works in the worktree.
    let turn = nest.onboarded(&answer);
    assert!(text(&turn, "assistant_text").starts_with("built"), "{turn}");
    let told = turn["input"].to_string();
    for part in [nest.crew.id.as_str(), nest.lead(), &id, "crew", "Builder"] {
        assert!(told.contains(part), "{part} is not in {told}");
    }
    let place = Repo::of(worktree).path;
    let told = std::fs::read_to_string(place.join("where.ignored")).unwrap();
    assert_eq!(told.trim(), text(worktree, "worktree_cwd"));
    check_order(&nest, before, &id);
    let operation = nest.operations().pop().unwrap();
    assert_eq!(operation["operation_id"], answer["operation_id"]);
    for (field, value) in [
        ("kind", json!("spawn_member_with_worktree")),
        ("stage", json!("completed")),
        ("session_id", json!(id)),
        ("source_session_id", json!(nest.lead())),
        ("message_id", answer["onboarding"]["message_id"].clone()),
        ("diagnostics", json!([])),
        ("reason", Value::Null),
    ] {
        assert_eq!(operation[field], value, "{field} of {operation}");
    }
    let path = format!("/v1/team-operations/{}", text(&operation, "operation_id"));
    assert_eq!(nest.stage().get(&path), operation);
}

/// What the whole log tells, in its order.
fn check_order(nest: &Nest, before: i64, member: &str) {
    let events = nest.log(before);
    let wanted = [
        "team_operation.started",
        "worktree.created",
        "session.created",
        "worktree.claimed",
        "team.member_joined",
        "team_message.created",
        "team_delivery.pending",
        "team_operation.completed",
        "team_delivery.injecting",
        "turn.started",
        "team_delivery.injected",
        "team_message.completed",
        "turn.completed",
    ];
    let seen: Vec<&str> = events
        .iter()
        .map(|event| event.kind.as_str())
        .filter(|kind| wanted.contains(kind))
        .collect();
    assert_eq!(seen, wanted);
    let completed = events.iter().find(|event| event.kind == "team_operation.completed").unwrap();
    assert_eq!(completed.payload["operation"]["session_id"], member);
    assert_eq!(completed.json["scope_id"], nest.crew.id.as_str());
}

#[test]
fn a_member_without_a_worktree_works_where_its_source_does() {
    let nest = Nest::new();
    let answer = nest.spawn(json!({}));
    assert_eq!(answer["spawned_session"]["cwd"], json!(nest.repo().path));
    assert_eq!(
        (&answer["worktree"], &answer["worktree_assignment_mode"]),
        (&Value::Null, &json!("none"))
    );
    // It has a first turn without a prompt, too.
    assert_eq!(nest.onboarded(&answer)["status"], "completed");
    assert!(nest.worktrees().is_empty());
}

#[test]
fn members_of_a_member_share_its_worktree_or_build_on_what_it_has() {
    let nest = Nest::new();
    let first = nest.spawn(json!({"worktree": {"name": "one"}}));
    let commit = Repo::of(&first["worktree"]).commit("a step further");
    let from_first = |fields: Value| {
        let mut body = json!({"source_session_id": first["spawned_session"]["id"]});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        nest.stage().client.post(&nest.crew.path("members/spawn"), &body).expect(200).json()
    };
    let shared = from_first(json!({}));
    assert_eq!(shared["worktree"]["id"], first["worktree"]["id"]);
    assert_eq!(
        (&shared["worktree_assignment_mode"], &shared["worktree_created_by_operation"]),
        (&json!("reused"), &json!(false))
    );
    assert_eq!(shared["worktree"]["active_claim_count"], 2);
    let apart = from_first(json!({"worktree": {"name": "two"}}));
    assert_eq!(apart["worktree"]["base_ref"], "gg/one");
    assert_eq!(Repo::of(&apart["worktree"]).git(&["rev-parse", "HEAD"]), commit);
    assert_eq!(apart["worktree"]["repo_root"], first["worktree"]["repo_root"]);
    let again = nest.spawn(json!({"worktree": {"name": "two", "mode": "use_existing"}}));
    assert_eq!(again["worktree"]["id"], apart["worktree"]["id"]);
    let claims =
        list(nest.stage().get(&format!("/v1/worktrees/{}/claims", text(&again["worktree"], "id"))));
    let roles: Vec<&Value> = claims.iter().map(|claim| &claim["claim_role"]).collect();
    assert_eq!(roles, ["owner", "consumer"]);
}

#[test]
fn a_preset_chooses_the_agent_and_its_level_reaches_it() {
    let config = "[providers.demo]\nenabled = true\n[[teams.model_presets]]\nname = \"Deep Thinker\"\n\
        provider = \"demo\"\nmodel = \"demo-large\"\nthinking_effort = \"high\"\n";
    let nest = Nest::with_config(config);
    let answer = nest.spawn(json!({"model_preset": "deep-thinker"}));
    let session = &answer["spawned_session"];
    // What the agent has said that it is set to.
    assert_eq!(
        (&session["model"], &session["reasoning_level"]),
        (&json!("demo-large"), &json!("high"))
    );
    let plain = nest.spawn(json!({}));
    assert_eq!(plain["spawned_session"]["reasoning_level"], "medium");
    let named = nest.spawn(json!({"model_preset": "deep_thinker", "reasoning_level": "low"}));
    assert_eq!(named["spawned_session"]["reasoning_level"], "low");
    let reply = nest.try_spawn(json!({"model_preset": "shallow"}));
    check_told(&reply, 400, "bad_request", "deep_thinker");
}

#[test]
fn images_come_with_the_onboarding() {
    let nest = Nest::new();
    let path = nest.stage().cwd.join("dot.png");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n").unwrap();
    let answer = nest.spawn(json!({"prompt": "image", "image_paths": [path]}));
    let said = text(&nest.onboarded(&answer), "assistant_text");
    assert!(said.contains("image/png"), "{said}");
    let reply = nest.try_spawn(json!({"image_paths": ["/nowhere.png"]}));
    check_told(&reply, 400, "bad_request", "image_paths[0]");
}

#[test]
fn the_same_key_makes_one_member() {
    let nest = Nest::new();
    let body = nest.body(json!({"worktree": {"name": "one"}}));
    let (path, key) = (nest.crew.path("members/spawn"), [("Idempotency-Key", "spawn-1")]);
    let post = |body: &Value| nest.stage().post_with(&path, body, &key);
    let first = post(&body).expect(200).json();
    let again = post(&body).expect(200).json();
    for field in ["operation_id", "onboarding"] {
        assert_eq!(first[field], again[field]);
    }
    assert_eq!(first["spawned_session"]["id"], again["spawned_session"]["id"]);
    let other = nest.body(json!({"worktree": {"name": "two"}}));
    check_told(&post(&other), 409, "idempotency_mismatch", "spawn-1");
    assert_eq!((nest.members().len(), nest.worktrees().len()), (2, 1));
    // The same answer when the member has left.
    nest.remove(&text(&first["spawned_session"], "id"));
    let late = post(&body).expect(200).json();
    assert_eq!(
        (&late["spawned_member"], &late["spawned_session"]["status"]),
        (&Value::Null, &json!("closed"))
    );
    assert!(!is_there(&first["worktree"]));
}

#[test]
fn a_team_without_worktrees_spawns_where_none_is_wanted() {
    let nest = Nest { ..Nest::with_config("[worktrees]\nenabled = false\n") };
    nest.spawn(json!({}));
    let reply = nest.try_spawn(json!({"worktree": {"name": "one"}}));
    check_told(&reply, 409, "conflict", "worktrees are switched off");
    assert_eq!(nest.members().len(), 2);
}
