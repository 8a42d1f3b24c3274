//! What can not be spawned: told with the field, before anything is made.

use super::scene::Nest;
use crate::stage::{check_told, list};
use serde_json::{Value, json};

#[test]
fn what_is_wrong_is_found_before_anything_is_made() {
    let nest = Nest::new();
    let taken = nest.spawn(json!({"worktree": {"name": "taken"}}));
    // Nothing is told any more when its first turn is over.
    nest.onboarded(&taken);
    nest.repo().git(&["branch", "gg/foreign"]);
    let stranger = nest.stage().session();
    let (before, operations) = (nest.head(), nest.operations().len());
    for (fields, status, code, told) in [
        (json!({"source_session_id": " "}), 400, "bad_request", "source_session_id"),
        (json!({"source_session_id": "sess_none"}), 404, "not_found", "sess_none"),
        (json!({"source_session_id": stranger}), 409, "conflict", "not a member"),
        (json!({"provider": "abacus"}), 400, "bad_request", "provider"),
        (json!({"provider": "codex"}), 404, "not_found", "not enabled"),
        (json!({"agent": "other"}), 400, "bad_request", "agent: demo has no agent \"other\""),
        (json!({"model_preset": "none"}), 400, "bad_request", "planner, designer"),
        (json!({"model_preset": "opus"}), 404, "not_found", "claude is not enabled"),
        (json!({"creator_compaction_subscription": "x"}), 400, "bad_request", "creator_comp"),
        (json!({"image_paths": ["dot.png"]}), 400, "bad_request", "image_paths[0]"),
        (json!({"title": 7}), 400, "bad_request", "title"),
        (json!({"colour": "red"}), 400, "bad_request", "colour"),
        (json!({"worktree": {}}), 400, "bad_request", "worktree.name"),
        (json!({"worktree": {"name": "a b"}}), 400, "bad_request", "worktree_name"),
        (json!({"worktree": {"name": "a", "mode": "borrow"}}), 400, "bad_request", "create, reuse"),
        (json!({"worktree": {"name": "taken", "mode": "create"}}), 409, "conflict", "gg/taken"),
        (json!({"worktree": {"name": "foreign"}}), 409, "conflict", "gg/foreign"),
        (json!({"worktree": {"name": "none", "mode": "reuse"}}), 404, "not_found", "gg/none"),
        (json!({"worktree": {"name": "a", "base_ref": "none"}}), 400, "bad_request", "base_ref"),
    ] {
        let reply = nest.try_spawn(fields.clone());
        assert_eq!(reply.status, status, "{fields}: {reply}");
        check_told(&reply, status, code, told);
    }
    let path = "/v1/teams/team_none/members/spawn";
    let reply = nest.stage().client.post(path, &nest.body(json!({})));
    check_told(&reply, 404, "not_found", "team_none");
    assert_eq!(nest.head(), before, "something was told: {:?}", nest.log(before));
    assert_eq!(nest.operations().len(), operations);
    assert_eq!(nest.worktrees(), [nest.scene.record(&taken["worktree"])]);
}

#[test]
fn a_folder_that_is_no_repository_has_no_worktrees() {
    let nest = Nest::new();
    let outside = nest.stage().session();
    let join = json!({"agent_id": outside});
    nest.stage().client.post(&nest.crew.path("members"), &join).expect(200);
    let reply = nest.try_spawn(json!({"source_session_id": outside, "worktree": {"name": "a"}}));
    check_told(&reply, 400, "bad_request", "git repository");
    let answer = nest.spawn(json!({"source_session_id": outside}));
    assert_eq!(answer["spawned_session"]["cwd"], json!(nest.stage().cwd));
}

#[test]
fn teams_that_are_off_spawn_nobody() {
    let nest = Nest::new();
    let mut stage = nest.scene.stage;
    stage.server.set_config("[teams]\nenabled = false\n");
    stage.restart();
    let body = json!({"source_session_id": nest.crew.members[0]});
    let reply = stage.client.post(&nest.crew.path("members/spawn"), &body);
    check_told(&reply, 409, "conflict", "teams.enabled");
}

#[test]
fn the_journal_is_read_in_pages_and_by_what_is_asked_for() {
    let nest = Nest::new();
    let first = nest.spawn(json!({}));
    let second = nest.spawn(json!({}));
    nest.remove(first["spawned_session"]["id"].as_str().unwrap());
    let get = |query: &str| {
        let path = nest.crew.path(&format!("operations{query}"));
        list(nest.stage().get(&path)).iter().map(|one| one["operation_id"].clone()).collect()
    };
    let all: Vec<Value> = get("");
    assert_eq!(all[..2], [first["operation_id"].clone(), second["operation_id"].clone()]);
    let removals: Vec<Value> = get("?kind=remove_spawned_member&stage=completed");
    assert_eq!((all.len(), removals), (3, vec![all[2].clone()]));
    let page = nest.stage().client.get(&nest.crew.path("operations?limit=2")).expect(200);
    let cursor = page.header("x-next-cursor").unwrap().to_owned();
    assert_eq!(get(&format!("?cursor={cursor}")), vec![all[2].clone()]);
    for wrong in ["?stage=gone", "?kind=x", "?cursor=x"] {
        let reply = nest.stage().client.get(&nest.crew.path(&format!("operations{wrong}")));
        check_told(&reply, 400, "bad_request", &wrong[1..4]);
    }
    nest.stage().client.get("/v1/teams/team_none/operations").expect(404);
    nest.stage().client.get("/v1/team-operations/op_none").expect(404);
    assert_eq!(nest.stage().get("/v1/diagnostics/team-operations"), json!([]));
}
