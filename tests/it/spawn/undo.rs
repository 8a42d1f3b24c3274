//! A spawn that fails on its way: nothing of it is left but work, and the journal tells what happened.

use super::scene::{Nest, slow_agent};
use crate::stage::{check_error, check_told, list, text};
use crate::worktree::scene::{Repo, is_there};
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

/// What must be true of a team for which a spawn was undone. Gives the operation.
fn check_undone(nest: &Nest, reason: &str, close_reason: Option<&str>) -> Value {
    let operation = nest.operation_at("rolled_back");
    assert_eq!(operation["reason"], reason, "{operation}");
    assert_eq!(operation["diagnostics"][0]["code"], reason, "{operation}");
    assert_eq!(nest.members(), [nest.lead()]);
    let kinds: Vec<String> =
        nest.crew.events(nest.stage()).into_iter().map(|event| event.kind).collect();
    assert_eq!(kinds, ["team.created", "team_operation.started", "team_operation.rolled_back"]);
    match close_reason {
        Some(told) => {
            let session_id = text(&operation, "session_id");
            assert_eq!(nest.stage().record(&session_id)["status"], "closed");
            let closed = nest.stage().event(&session_id, "session.closed", 0);
            assert_eq!(closed.payload["reason"], told);
        }
        None => assert_eq!(nest.sessions().len(), 1),
    }
    assert_eq!(nest.stage().get("/v1/diagnostics/worktrees")["active_claim_total"], 0);
    operation
}

#[test]
fn an_agent_that_does_not_open_leaves_nothing() {
    let nest = Nest::with_config(
        "[providers.demo]\nenabled = true\n[providers.acp]\nenabled = true\ncommand = \"false\"\n",
    );
    let body = nest.body(json!({"provider": "acp", "worktree": {"name": "one"}}));
    let (path, key) = (nest.crew.path("members/spawn"), [("Idempotency-Key", "k")]);
    let reply = nest.stage().post_with(&path, &body, &key);
    check_error(&reply, 502, "agent_failed");
    let told = reply.json()["operation"].clone();
    assert_eq!(
        (&told["stage"], &told["worktree_assignment_mode"]),
        (&json!("rolled_back"), &json!("created"))
    );
    let operation =
        check_undone(&nest, "session_create_failed", Some("spawn_rollback_session_create_failed"));
    assert_eq!(operation, told);
    let worktree = nest.worktrees().remove(0);
    assert_eq!(
        (&worktree["status"], &worktree["id"]),
        (&json!("deleted"), &operation["worktree_id"])
    );
    assert!(!is_there(&worktree) && !nest.repo().is_branch("gg/one"));
    let kinds = ["created", "claimed", "released", "cleaned_up"].map(|it| format!("worktree.{it}"));
    assert_eq!(nest.scene.kinds(&worktree), kinds);
    let gone = nest.scene.event(&worktree, "worktree.cleaned_up", 0);
    assert_eq!(gone.payload["reason"], "spawn_rollback_session_create_failed");
    let noted = list(nest.stage().get(&format!(
        "/v1/diagnostics/team-operations?team_id={}&operation_id={}",
        nest.crew.id,
        text(&operation, "operation_id")
    )));
    assert_eq!(json!(noted), operation["diagnostics"]);
    assert_eq!(nest.stage().get("/v1/diagnostics/team-operations?team_id=x"), json!([]));
    // The key has made nothing, so it is good for another try.
    let reply = nest.stage().post_with(&path, &body, &key);
    check_error(&reply, 502, "agent_failed");
    assert_eq!(nest.operations().len(), 2);
}

#[test]
fn an_init_script_that_fails_makes_no_session() {
    let nest = Nest::new();
    nest.init_script("echo no; exit 1");
    let reply = nest.try_spawn(json!({"worktree": {"name": "one"}}));
    check_error(&reply, 400, "init_script_failed");
    assert!(reply.text().contains("no\\n"), "{reply}");
    let operation = check_undone(&nest, "session_create_failed", None);
    assert_eq!(operation["session_id"], Value::Null);
    assert!(!nest.repo().is_branch("gg/one"));
    nest.spawn(json!({"worktree": {"name": "one", "run_init_script": false}}));
}

#[test]
fn work_that_an_init_script_has_left_stays() {
    let nest = Nest::with_config(&slow_agent("exit 1", ""));
    nest.init_script("echo precious > result");
    let reply = nest.try_spawn(json!({"provider": "acp", "worktree": {"name": "one"}}));
    check_error(&reply, 502, "agent_failed");
    let operation =
        check_undone(&nest, "session_create_failed", Some("spawn_rollback_session_create_failed"));
    let note = &operation["diagnostics"][1];
    assert_eq!(
        (&note["code"], &note["payload"]["cleanup"]["status"]),
        (&json!("worktree_kept"), &json!("kept_dirty"))
    );
    let worktree = nest.worktrees().remove(0);
    assert_eq!(worktree["status"], "ready");
    let result = Repo::of(&worktree).path.join("result");
    assert_eq!(std::fs::read_to_string(result).unwrap(), "precious\n");
}

#[test]
fn a_worktree_that_was_there_before_stays() {
    let nest = Nest::with_config(&slow_agent("exit 1", ""));
    let worktree = nest.scene.create("one");
    let wish = json!({"name": "one", "mode": "reuse"});
    let reply = nest.try_spawn(json!({"provider": "acp", "worktree": wish}));
    check_error(&reply, 502, "agent_failed");
    check_undone(&nest, "session_create_failed", Some("spawn_rollback_session_create_failed"));
    let record = nest.scene.record(&worktree);
    assert_eq!((&record["status"], &record["cleanup_reason"]), (&json!("ready"), &Value::Null));
    let kinds = ["created", "claimed", "released"].map(|it| format!("worktree.{it}"));
    assert_eq!(nest.scene.kinds(&worktree), kinds);
}

#[test]
fn an_agent_that_takes_no_images_does_not_become_a_member_to_whom_some_are_sent() {
    let demo = gooselake_harness::server::program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let blind = format!("{} | sed -u 's/\"image\":true/\"image\":false/'; exit", demo.display());
    let nest = Nest::with_config(&slow_agent(&blind, ""));
    let path = nest.stage().cwd.join("dot.png");
    std::fs::write(&path, b"\x89PNG\r\n\x1a\n").unwrap();
    let fields = json!({"provider": "acp", "image_paths": [path], "worktree": {"name": "one"}});
    check_told(&nest.try_spawn(fields), 400, "unsupported_input", "images");
    check_undone(&nest, "spawn_onboarding_failed", Some("spawn_rollback_spawn_onboarding_failed"));
    assert!(!nest.repo().is_branch("gg/one"));
    // Without one it does.
    nest.spawn(json!({"provider": "acp"}));
}

#[test]
fn a_team_that_goes_away_meanwhile_takes_the_member_with_it() {
    let nest = Nest::new();
    let gate = nest.stage().server.folder().join("gate");
    nest.init_script(&format!(
        "touch begun.ignored; until [ -e {} ]; do sleep 0.02; done",
        gate.display()
    ));
    let spawning = nest.spawning(json!({"worktree": {"name": "one"}}));
    let worktree = wait::until(SOON, "the init script runs", || {
        let worktree = nest.worktrees().pop()?;
        Repo::of(&worktree).path.join("begun.ignored").exists().then_some(worktree)
    });
    assert_eq!(nest.operation_at("planned")["session_id"], Value::Null);
    // The same key says that it goes on.
    let body = nest.body(json!({"worktree": {"name": "one"}}));
    let (path, key) = (nest.crew.path("members/spawn"), [("Idempotency-Key", "spawning")]);
    check_told(&nest.stage().post_with(&path, &body, &key), 409, "conflict", "planned");
    nest.stage().client.delete(nest.crew.path("").trim_end_matches('/')).expect(204);
    std::fs::write(&gate, "").unwrap();
    check_told(&spawning.join().unwrap(), 404, "not_found", &nest.crew.id);
    let operation = nest.operation_at("rolled_back");
    assert_eq!(operation["reason"], "team_join_failed");
    let session_id = text(&operation, "session_id");
    assert_eq!(nest.stage().record(&session_id)["status"], "closed");
    nest.scene.event(&worktree, "worktree.cleaned_up", 0);
}

#[test]
fn so_many_members_are_spawned_at_once_and_no_more() {
    let nest = Nest::new();
    let gate = nest.stage().server.folder().join("gate");
    nest.init_script(&format!("until [ -e {} ]; do sleep 0.05; done", gate.display()));
    let client = nest.stage().client.clone();
    let spawning: Vec<_> = (0..gooselake::limits::SPAWNS)
        .map(|number| {
            let (client, path) = (client.clone(), nest.crew.path("members/spawn"));
            let body = nest.body(json!({"worktree": {"name": format!("w{number}")}}));
            gooselake_harness::thread::spawn("spawning", move || client.post(&path, &body)).unwrap()
        })
        .collect();
    wait::until(SOON, "all of them are under way", || {
        (nest.operations().len() == gooselake::limits::SPAWNS).then_some(())
    });
    // Others are served meanwhile, also with mail.
    let started = std::time::Instant::now();
    let crew = crate::crew::Crew::new(nest.stage(), 2);
    let delivery = crew.send(nest.stage(), 1, "say hello", json!({}));
    crew.injected(nest.stage(), &delivery);
    let took = started.elapsed();
    let reply = nest.try_spawn(json!({}));
    check_told(&reply, 503, "capacity", "16 members");
    assert!(reply.header("retry-after").is_some());
    std::fs::write(&gate, "").unwrap();
    for spawning in spawning {
        spawning.join().expect(200);
    }
    assert!(took < SOON, "{took:?}");
    assert_eq!(nest.members().len(), gooselake::limits::SPAWNS + 1);
}
