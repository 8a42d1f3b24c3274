//! Sessions that are made straight into a worktree: all of it or nothing, and the end of the session ends its claim.

use super::scene::{Repo, Scene, is_there, path};
use crate::stage::{SOON, check_error, check_told, each, list, text};
use gooselake_harness::client::Reply;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use std::time::Duration;

impl Scene {
    fn try_place(&self, name: &str, wish: &Value, fields: &Value) -> Reply {
        let mut worktree = json!({"name": name, "repo_root": self.repo.path});
        worktree.as_object_mut().unwrap().extend(wish.as_object().unwrap().clone());
        let mut body = json!({"mode": "auto", "worktree": worktree});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.stage.post_session(&body, &[])
    }

    fn place(&self, name: &str) -> Value {
        self.try_place(name, &json!({}), &json!({})).expect(200).json()
    }

    fn worktrees(&self) -> Vec<Value> {
        list(self.stage.get("/v1/worktrees"))
    }
}

#[test]
fn a_session_is_made_into_a_worktree_and_its_end_cleans_up() {
    let scene = Scene::new();
    let session = scene.place("one");
    let id = text(&session, "id");
    let worktree = scene.worktrees().remove(0);
    assert_eq!(session["worktree_id"], worktree["id"]);
    assert_eq!(session["cwd"], worktree["worktree_cwd"]);
    assert_eq!(
        (&worktree["status"], &worktree["active_claim_count"]),
        (&json!("ready"), &json!(1))
    );
    assert_eq!(worktree["created_by_session_id"], id.as_str());
    let claims = list(scene.stage.get(&path(&worktree, "/claims")));
    assert_eq!(
        (each(&claims, "session_id"), each(&claims, "claim_role")),
        (vec![id.clone()], vec!["owner".into()])
    );
    // In the whole log they stand together.
    let log = list(scene.stage.get("/v1/events?kinds=worktree.*,session.created"));
    assert_eq!(each(&log, "kind"), ["worktree.created", "session.created", "worktree.claimed"]);
    assert_eq!(log[2]["session_id"], id.as_str());
    assert_eq!(log[1]["payload"]["session"]["worktree_id"], worktree["id"]);
    // The agent works there.
    scene.stage.run(&id, "run pwd > where.ignored");
    let told = fs::read_to_string(Repo::of(&worktree).path.join("where.ignored")).unwrap();
    assert_eq!(told.trim(), text(&worktree, "worktree_cwd"));
    scene.stage.close(&id);
    let gone = scene.event(&worktree, "worktree.cleaned_up", 0);
    assert_eq!(gone.payload["reason"], "session_closed");
    assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"));
    assert_eq!(scene.stage.record(&id)["worktree_id"], worktree["id"]);
    let kinds =
        ["created", "claimed", "released", "cleaned_up"].map(|kind| format!("worktree.{kind}"));
    assert_eq!(scene.kinds(&worktree), kinds);
}

#[test]
fn work_of_a_session_that_is_closed_or_purged_stays() {
    let scene = Scene::new();
    for (name, is_purged) in [("closed", false), ("purged", true)] {
        let session = scene.place(name);
        let (id, worktree) = (text(&session, "id"), scene.worktrees().pop().unwrap());
        scene.stage.run(&id, "run echo precious > result");
        if is_purged {
            scene.stage.client.delete(&format!("/v1/sessions/{id}?purge=true")).expect(204);
        } else {
            scene.stage.close(&id);
        }
        let kept = scene.event(&worktree, "worktree.kept", 0);
        assert_eq!(
            (&kept.payload["status"], &kept.payload["lost"][0]["name"]),
            (&json!("kept_dirty"), &json!("result"))
        );
        assert_eq!(scene.record(&worktree)["active_claim_count"], 0);
        assert_eq!(
            fs::read_to_string(Repo::of(&worktree).path.join("result")).unwrap(),
            "precious\n"
        );
    }
}

#[test]
fn a_worktree_is_reused_and_stays_while_somebody_works_there() {
    let scene = Scene::new();
    let first = scene.place("one");
    check_told(&scene.try_place("one", &json!({}), &json!({})), 409, "conflict", "gg/one");
    let second = scene.try_place("one", &json!({"mode": "reuse"}), &json!({})).expect(200).json();
    assert_eq!(second["worktree_id"], first["worktree_id"]);
    let reply = scene.try_place("two", &json!({"mode": "reuse"}), &json!({}));
    check_error(&reply, 404, "not_found");
    let reply = scene.try_place("one", &json!({"mode": "borrow"}), &json!({}));
    check_told(&reply, 400, "bad_request", "worktree.mode");
    let worktree = scene.worktrees().remove(0);
    let claims = list(scene.stage.get(&path(&worktree, "/claims")));
    assert_eq!(each(&claims, "claim_role"), ["owner", "consumer"]);
    scene.stage.close(&text(&first, "id"));
    assert_eq!(scene.record(&worktree)["active_claim_count"], 1);
    assert!(is_there(&worktree));
    scene.stage.close(&text(&second, "id"));
    scene.event(&worktree, "worktree.cleaned_up", 0);
    assert_eq!(scene.worktrees().len(), 1);
    assert_eq!(list(scene.stage.get("/v1/sessions")).len(), 2);
}

/// What a command of the session writes when it is told to end is work like any other.
#[test]
fn a_worktree_waits_for_the_processes_of_its_session_however_that_ends() {
    let scene = Scene::with_config("[providers.demo]\nidle_sleep_secs = 1\n");
    for (name, is_failed) in [("closed", false), ("failed", true)] {
        let session = scene.place(name);
        let (id, worktree) = (text(&session, "id"), scene.worktrees().pop().unwrap());
        let work = Repo::of(&worktree).path;
        let command = "trap 'sleep 1; echo precious > result; exit' TERM; touch up.ignored; \
                       while :; do sleep 0.1; done";
        let body = json!({"command": command, "session_id": id, "cwd": session["cwd"]});
        let process_id = text(&scene.stage.start_process(&body)["process"], "process_id");
        wait::until(SOON, "it runs", || work.join("up.ignored").exists().then_some(()));
        if is_failed {
            scene.stage.run(&id, "say something");
            scene.stage.event(&id, "agent.slept", 0);
            forget(&scene, &text(&scene.stage.record(&id), "provider_session_ref"));
            scene.stage.start(&id, "say more");
            scene.stage.event(&id, "session.failed", 0);
        } else {
            scene.stage.close(&id);
        }
        let kept = scene.event(&worktree, "worktree.kept", 0);
        assert_eq!(kept.payload["lost"][0]["name"], "result", "{name}");
        assert_eq!(fs::read_to_string(work.join("result")).unwrap(), "precious\n");
        let process = scene.stage.process(&process_id)["process"].clone();
        assert_eq!(process["status"], "killed", "{process}");
    }
}

/// Takes the agent's memory of a native session away.
fn forget(scene: &Scene, native_ref: &str) {
    let mut find = Command::new("find");
    find.arg(scene.stage.server.data_dir()).args(["-name", &format!("*{native_ref}*")]);
    let found = find.args(["-print", "-delete"]).output().unwrap();
    assert!(found.status.success() && !found.stdout.is_empty(), "{found:?}");
}

#[test]
fn the_cwd_of_the_session_says_which_repository() {
    let scene = Scene::new();
    let body = json!({"cwd": scene.repo.path, "worktree": {"name": "one"}});
    let session = scene.stage.create(&body);
    let worktree = scene.worktrees().remove(0);
    assert_eq!(session["cwd"], worktree["worktree_cwd"]);
    let outside = json!({"worktree": {"name": "two"}});
    check_told(&scene.stage.post_session(&outside, &[]), 400, "bad_request", "git repository");
    assert_eq!(scene.worktrees().len(), 1);
}

/// The agent can not be started: nothing is left of worktree and claim.
#[test]
fn an_agent_that_does_not_open_leaves_no_worktree() {
    let config =
        "[providers.demo]\nenabled = true\n[providers.acp]\nenabled = true\ncommand = \"false\"\n";
    let scene = Scene::with_config(config);
    let reply = scene.try_place("one", &json!({}), &json!({"provider": "acp"}));
    assert_eq!(reply.status, 502, "{reply}");
    let worktree = scene.worktrees().remove(0);
    let gone = scene.event(&worktree, "worktree.cleaned_up", 0);
    assert_eq!(gone.payload["reason"], "session_failed");
    assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"));
    assert_eq!(scene.record(&worktree)["active_claim_count"], 0);
    assert_eq!(scene.stage.get("/v1/diagnostics/worktrees")["active_claim_total"], 0);
}

#[test]
fn an_init_script_that_fails_makes_no_session() {
    let scene = Scene::new();
    scene.repo.write(".agents/gg/worktree-init.sh", "#!/bin/sh\necho no; exit 1\n");
    scene.repo.git(&["add", "."]);
    scene.repo.git(&["update-index", "--chmod=+x", ".agents/gg/worktree-init.sh"]);
    scene.repo.git(&["commit", "--quiet", "-m", "script"]);
    let reply = scene.try_place("one", &json!({}), &json!({}));
    check_error(&reply, 400, "init_script_failed");
    assert_eq!(list(scene.stage.get("/v1/sessions")).len(), 0);
    assert!(!scene.repo.is_branch("gg/one"));
    scene.try_place("one", &json!({"run_init_script": false}), &json!({})).expect(200);
}

/// A wish that can not be had any more when it is to be written down.
#[test]
fn the_same_key_makes_session_and_worktree_once() {
    let scene = Scene::new();
    let body = json!({"worktree": {"name": "one", "repo_root": scene.repo.path}});
    let key = [("Idempotency-Key", "k1")];
    let first = scene.stage.post_session(&body, &key).expect(200).json();
    let again = scene.stage.post_session(&body, &key).expect(200).json();
    assert_eq!(again["id"], first["id"]);
    assert_eq!((scene.worktrees().len(), list(scene.stage.get("/v1/sessions")).len()), (1, 1));
}

/// The second request comes while the init script of the first runs.
#[test]
fn the_same_key_waits_for_the_session_that_is_being_made() {
    let scene = Scene::new();
    let here = scene.stage.server.folder().to_owned();
    assert!(Command::new("mkfifo").arg(here.join("go")).status().unwrap().success());
    let script = format!("#!/bin/sh\ncd {}\n: > started\nread line < go\n", here.display());
    scene.repo.write(".agents/gg/worktree-init.sh", &script);
    scene.repo.git(&["add", "."]);
    scene.repo.git(&["update-index", "--chmod=+x", ".agents/gg/worktree-init.sh"]);
    scene.repo.git(&["commit", "--quiet", "-m", "script"]);
    let worktree = json!({"name": "slow", "repo_root": scene.repo.path});
    let body = json!({"provider": "demo", "worktree": worktree});
    let first = scene.stage.meanwhile("/v1/sessions", &body, "k1");
    wait::until(SOON, "the script runs", || here.join("started").exists().then_some(()));
    let second = scene.stage.meanwhile("/v1/sessions", &body, "k1");
    let early = second.answer.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err(), "the first is not made, but: {early:?}");
    // With another key it is another request, and the name is taken.
    let other = [("Idempotency-Key", "k2")];
    let reply = scene.stage.post_with("/v1/sessions", &body, &other);
    check_told(&reply, 409, "conflict", "gg/slow");
    fs::write(here.join("go"), "go\n").unwrap();
    let made = [first, second].map(|asked| text(&asked.reply().expect(200).json(), "id"));
    assert_eq!(made[0], made[1]);
    assert_eq!((scene.worktrees().len(), list(scene.stage.get("/v1/sessions")).len()), (1, 1));
}
