//! What ends with a member: that of one that was spawned, and nothing of one that has joined.

use super::scene::Nest;
use crate::stage::{SOON, check_error, list, text};
use crate::worktree::scene::{Repo, is_there};
use serde_json::{Value, json};

#[test]
fn a_spawned_member_leaves_with_its_session_and_its_worktree() {
    let nest = Nest::new();
    let answer = nest.spawn(json!({"prompt": "slow 100000 20", "worktree": {"name": "one"}}));
    let (member, worktree) = (text(&answer["spawned_session"], "id"), &answer["worktree"]);
    let query = "?control=false&kinds=item.delta";
    nest.stage().stream(&member, query).expect(SOON);
    let waiting = json!({
        "sender_agent_id": nest.lead(), "recipient_agent_id": member, "input": ["say late"],
    });
    nest.stage().client.post(&nest.crew.path("messages"), &waiting).expect(200);
    let before = nest.head();
    let roster = nest.remove(&member);
    assert_eq!(list(roster["members"].clone()).len(), 1);
    // All of it is over when the answer comes.
    let session = nest.stage().record(&member);
    assert_eq!((&session["status"], &session["live"]), (&json!("closed"), &json!(false)));
    assert!(!is_there(worktree) && !nest.repo().is_branch("gg/one"));
    let wanted = [
        "team_operation.started",
        "team_delivery.failed",
        "team.member_left",
        "turn.interrupted",
        "worktree.released",
        "session.closed",
        "worktree.cleaned_up",
        "team_operation.completed",
    ];
    let log = nest.log(before);
    let mut seen: Vec<&str> = log.iter().map(|event| event.kind.as_str()).collect();
    seen.retain(|kind| wanted.contains(kind));
    assert_eq!(seen, wanted);
    let payload_of = |kind: &str| &log.iter().find(|event| event.kind == kind).unwrap().payload;
    assert_eq!(payload_of("session.closed")["reason"], "team_member_removed");
    assert_eq!(payload_of("worktree.cleaned_up")["reason"], "team_member_removed");
    let failed = &payload_of("team_delivery.failed")["delivery"];
    assert_eq!(failed["last_error_code"], "recipient_not_member");
    let operation = nest.operations().pop().unwrap();
    for (field, value) in [
        ("kind", json!("remove_spawned_member")),
        ("stage", json!("completed")),
        ("session_id", json!(member)),
        ("worktree_id", worktree["id"].clone()),
    ] {
        assert_eq!(operation[field], value, "{field} of {operation}");
    }
    let waiting = list(nest.stage().get(&nest.crew.path("deliveries?status=deferred")));
    assert_eq!(waiting, Vec::<Value>::new());
    nest.stage().client.delete(&nest.crew.path(&format!("members/{member}"))).expect(404);
}

#[test]
fn unsaved_work_of_a_member_stays() {
    let nest = Nest::new();
    let answer =
        nest.spawn(json!({"prompt": "run echo precious > result", "worktree": {"name": "one"}}));
    nest.onboarded(&answer);
    let worktree = &answer["worktree"];
    nest.remove(&text(&answer["spawned_session"], "id"));
    let result = Repo::of(worktree).path.join("result");
    assert_eq!(std::fs::read_to_string(result).unwrap(), "precious\n");
    let kept = nest.scene.event(worktree, "worktree.kept", 0);
    assert_eq!(
        (&kept.payload["status"], &kept.payload["reason"]),
        (&json!("kept_dirty"), &json!("team_member_removed"))
    );
    let operation = nest.operations().pop().unwrap();
    let note = &operation["diagnostics"][0];
    assert_eq!(
        (&note["code"], &operation["stage"]),
        (&json!("worktree_kept"), &json!("completed"))
    );
    assert_eq!(note["payload"]["cleanup"]["lost"][0]["name"], "result");
    let kinds = ["created", "claimed", "released", "kept"].map(|it| format!("worktree.{it}"));
    assert_eq!(nest.scene.kinds(worktree), kinds, "one cleanup, told once");
}

#[test]
fn a_worktree_goes_with_the_last_member_in_it() {
    let nest = Nest::new();
    let first = nest.spawn(json!({"worktree": {"name": "one"}}));
    let wish = json!({"name": "one", "mode": "reuse"});
    let second = nest.spawn(json!({"worktree": wish}));
    nest.remove(&text(&first["spawned_session"], "id"));
    assert!(is_there(&first["worktree"]));
    nest.remove(&text(&second["spawned_session"], "id"));
    assert!(!is_there(&first["worktree"]));
    // One that is to stay stays.
    let wish = json!({"name": "two", "deletion_policy": "retain_on_last_claim"});
    let third = nest.spawn(json!({"worktree": wish}));
    nest.remove(&text(&third["spawned_session"], "id"));
    assert!(is_there(&third["worktree"]));
}

#[test]
fn a_session_that_has_joined_goes_on_when_it_leaves() {
    let nest = Nest::new();
    let wish = json!({"name": "own", "repo_root": nest.repo().path});
    let joined = text(&nest.stage().create(&json!({"mode": "auto", "worktree": wish})), "id");
    let body = json!({"agent_id": joined});
    nest.stage().client.post(&nest.crew.path("members"), &body).expect(200);
    nest.remove(&joined);
    assert_eq!(nest.stage().run(&joined, "say still here")["assistant_text"], "still here");
    assert_eq!(nest.worktrees()[0]["active_claim_count"], 1);
    assert!(nest.operations().is_empty());
}

#[test]
fn a_spawned_member_that_is_closed_already_just_leaves() {
    let nest = Nest::new();
    let answer = nest.spawn(json!({"worktree": {"name": "one"}}));
    let member = text(&answer["spawned_session"], "id");
    nest.stage().close(&member);
    // Without an operation on it the end of the session takes the worktree away.
    nest.scene.event(&answer["worktree"], "worktree.cleaned_up", 0);
    nest.remove(&member);
    assert_eq!(nest.operations().len(), 1);
}

#[test]
fn a_deleted_team_lets_its_members_go_on_unless_it_is_told_otherwise() {
    let nest = Nest::new();
    let kept = nest.spawn(json!({"worktree": {"name": "kept"}}));
    nest.onboarded(&kept);
    let path = nest.crew.path("");
    let path = path.trim_end_matches('/');
    check_error(
        &nest.stage().client.delete(&format!("{path}?close_spawned=yes")),
        400,
        "bad_request",
    );
    nest.stage().client.delete(path).expect(204);
    let kept = text(&kept["spawned_session"], "id");
    assert_eq!(nest.stage().run(&kept, "say on")["assistant_text"], "on");
    let crew = crate::crew::Crew::of(nest.stage(), vec![nest.lead().to_owned(), kept.clone()]);
    let nest = Nest { crew, scene: nest.scene };
    let answer = nest.spawn(json!({"worktree": {"name": "gone"}}));
    let path = nest.crew.path("");
    let path = format!("{}?close_spawned=true", path.trim_end_matches('/'));
    nest.stage().client.delete(&path).expect(204);
    assert!(!is_there(&answer["worktree"]));
    let spawned = nest.stage().record(&text(&answer["spawned_session"], "id"));
    assert_eq!(spawned["status"], "closed");
    // It had joined this team, whoever had spawned it.
    assert_eq!(nest.stage().record(&kept)["status"], "ready");
    assert_eq!(nest.operations().pop().unwrap()["stage"], "completed");
}
