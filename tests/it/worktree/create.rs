//! Making worktrees: where they come to lie, what is refused, what runs in a new one.

use super::scene::{Repo, Scene, is_there, path};
use crate::stage::{JSON, Stage, check_error, check_told, each, list, text};
use gooselake_harness::thread;
use gooselake_harness::wait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_worktree_lies_where_the_contract_says() {
    let scene = Scene::new();
    let head = scene.repo.git(&["rev-parse", "HEAD"]);
    let reply =
        scene.try_create(" feat-1 ", &json!({"branch_prefix": "my/pre"})).expect(200).json();
    assert_eq!(
        (&reply["created"], &reply["init_script_status"]),
        (&json!(true), &json!("skipped_missing"))
    );
    let worktree = &reply["worktree"];
    assert!(text(worktree, "id").starts_with("wt_"), "{worktree}");
    let unified = text(worktree, "unified_workspace_path");
    let root = scene.stage.server.data_dir().join("worktrees").join(&unified);
    assert!(unified.ends_with("__repo") && !unified.contains('/'), "{unified}");
    for (field, value) in [
        ("repo_root", scene.repo.path.to_str().unwrap()),
        ("worktree_root", root.to_str().unwrap()),
        ("worktree_cwd", root.join("my--pre--feat-1").to_str().unwrap()),
        ("branch_name", "my/pre/feat-1"),
        ("worktree_name", "feat-1"),
        ("deletion_policy", "delete_on_last_claim"),
        ("status", "ready"),
        ("base_commit", &head),
        ("base_ref", "main"),
    ] {
        assert_eq!(worktree[field], value, "{field} of {worktree}");
    }
    let made = Repo::of(worktree);
    assert_eq!(made.git(&["rev-parse", "--abbrev-ref", "HEAD"]), "my/pre/feat-1");
    assert_eq!(fs::read_to_string(made.path.join("README")).unwrap(), "hello\n");
    assert_eq!(scene.record(worktree), *worktree);
    let events = scene.events(worktree);
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].kind.as_str(), &events[0].payload["worktree"]),
        ("worktree.created", worktree)
    );
    // The same identity again is the same worktree.
    let again = scene.try_create("feat-1", &json!({"branch_prefix": "my/pre"})).expect(200).json();
    assert_eq!(
        (&again["created"], &again["init_script_status"]),
        (&json!(false), &json!("skipped_existing"))
    );
    assert_eq!(again["worktree"], *worktree);
    assert_eq!(scene.kinds(worktree).len(), 1);
}

#[test]
fn a_session_says_which_repository() {
    let scene = Scene::new();
    let inside = scene.repo.path.join("deep/er");
    fs::create_dir_all(&inside).unwrap();
    let session = text(&scene.stage.create(&json!({"cwd": inside})), "id");
    let body = json!({"source_session_id": session, "worktree_name": "one"});
    let made = scene.stage.client.post("/v1/worktrees", &body).expect(200).json();
    assert_eq!(made["worktree"]["repo_root"], scene.repo.path.to_str().unwrap());
    assert_eq!(made["worktree"]["created_by_session_id"], session.as_str());
    let elsewhere = scene.stage.session();
    let body = json!({"source_session_id": elsewhere, "worktree_name": "two"});
    check_told(
        &scene.stage.client.post("/v1/worktrees", &body),
        400,
        "bad_request",
        "git repository",
    );
    let body = json!({"source_session_id": "sess_none", "worktree_name": "two"});
    check_error(&scene.stage.client.post("/v1/worktrees", &body), 404, "not_found");
    let body = json!({"worktree_name": "two"});
    check_told(&scene.stage.client.post("/v1/worktrees", &body), 400, "bad_request", "repo_root");
}

#[test]
fn what_is_wrong_is_said_and_changes_nothing() {
    let scene = Scene::new();
    let first = scene.repo.commit("second");
    for branch in ["gg/taken", "gg/q/a/b", "leaf"] {
        scene.repo.git(&["branch", branch]);
    }
    scene.repo.git(&["pack-refs", "--all"]);
    let refs = scene.repo.git(&["for-each-ref"]);
    let cases: &[(&str, Value, u16, &str, &str)] = &[
        ("x", json!({"base_ref": "nowhere"}), 400, "bad_request", "base_ref"),
        ("x", json!({"base_ref": "--all"}), 400, "bad_request", "base_ref"),
        ("x", json!({"base_ref": "main:README"}), 400, "bad_request", "base_ref"),
        ("x", json!({"deletion_policy": "maybe"}), 400, "bad_request", "deletion_policy"),
        ("x", json!({"repo_root": "/nowhere"}), 400, "bad_request", "repo_root"),
        ("x", json!({"repo_root": "."}), 400, "bad_request", "repo_root"),
        ("x", json!({"repo_root": "/"}), 400, "bad_request", "repo_root"),
        ("x", json!({"repo_root": scene.repo.path.join(".git")}), 400, "bad_request", "git's own"),
        ("taken", json!({}), 409, "conflict", "worktree_name: the branch gg/taken is"),
        ("q", json!({}), 409, "conflict", "worktree_name: with the branch gg/q/a/b there"),
        ("q/a/b/c", json!({}), 409, "conflict", "worktree_name: with the branch gg/q/a/b there"),
        ("x", json!({"branch_prefix": "leaf"}), 409, "conflict", "with the branch leaf there"),
        ("@", json!({"branch_prefix": "a..b"}), 400, "bad_request", "branch_prefix"),
    ];
    for (name, fields, status, code, told) in cases {
        check_told(&scene.try_create(name, fields), *status, code, told);
    }
    assert_eq!(list(scene.stage.get("/v1/worktrees")).len(), 0);
    assert_eq!(scene.repo.git(&["for-each-ref"]), refs);
    assert_eq!(scene.repo.git(&["worktree", "list"]).lines().count(), 1);
    // A folder in the way is somebody's.
    let worktree = scene.create_with("y", &json!({"base_ref": first}));
    let folder = text(&worktree, "worktree_root") + "/gg--z";
    fs::create_dir(&folder).unwrap();
    fs::write(folder.clone() + "/theirs", "x").unwrap();
    check_told(&scene.try_create("z", &json!({})), 409, "conflict", "gg--z");
    assert_eq!(fs::read_to_string(folder + "/theirs").unwrap(), "x");
    assert!(!scene.repo.is_branch("gg/z"));
}

#[test]
fn an_init_script_runs_in_the_new_worktree() {
    let scene = Scene::new();
    scene.repo.write(
        ".agents/gg/worktree-init.sh",
        "#!/bin/sh\necho \"$GG_BRANCH $GG_WORKTREE_ID $PWD\" > made.ignored\n",
    );
    make_executable(&scene.repo, ".agents/gg/worktree-init.sh");
    scene.repo.commit("script");
    let reply = scene.try_create("one", &json!({})).expect(200).json();
    assert_eq!(reply["init_script_status"], "succeeded");
    let worktree = &reply["worktree"];
    let told = fs::read_to_string(Repo::of(worktree).path.join("made.ignored")).unwrap();
    let (id, cwd) = (text(worktree, "id"), text(worktree, "worktree_cwd"));
    assert_eq!(told, format!("gg/one {id} {cwd}\n"));
    let reply = scene.try_create("two", &json!({"run_init_script": false})).expect(200).json();
    assert_eq!(reply["init_script_status"], "skipped_disabled");
    assert!(!Repo::of(&reply["worktree"]).path.join("made.ignored").exists());
}

#[test]
fn an_init_script_that_fails_takes_the_worktree_back() {
    let scene = Scene::new();
    let script = "#!/bin/sh\necho made > half-done\necho first words\necho why >&2\nexit 7\n";
    scene.repo.write(".agents/gg/worktree-init.sh", script);
    make_executable(&scene.repo, ".agents/gg/worktree-init.sh");
    scene.repo.commit("script");
    let reply = scene.try_create("one", &json!({}));
    check_told(&reply, 400, "init_script_failed", "exit code 7");
    let told = &reply.json()["init_script"];
    assert_eq!((&told["exit_code"], &told["timed_out"]), (&json!(7), &json!(false)));
    assert_eq!(told["output"], "first words\nwhy\n");
    let left = list(scene.stage.get("/v1/worktrees"));
    assert_eq!(each(&left, "status"), ["deleted"]);
    assert!(!is_there(&left[0]) && !scene.repo.is_branch("gg/one"));
    // What the script had made is not thrown away either.
    let backup = text(&left[0], "backup_ref");
    assert_eq!(scene.repo.show(&backup, "half-done").as_deref(), Some("made\n"));
    let kinds = scene.kinds(&left[0]);
    assert_eq!(kinds, ["worktree.cleaned_up"]);
    // The name is free again, and works once the script does.
    scene.repo.write(".agents/gg/worktree-init.sh", "#!/bin/sh\ntrue\n");
    scene.repo.commit("mended");
    assert_ne!(scene.create("one")["id"], left[0]["id"]);
}

#[test]
fn twenty_creates_at_once_in_one_repository_all_succeed() {
    let scene = Scene::new();
    let threads: Vec<_> = (0..20)
        .map(|number| {
            let client = scene.stage.client.clone();
            let body = json!({"repo_root": scene.repo.path, "worktree_name": format!("w{number}")});
            thread::spawn("creator", move || {
                text(&client.post("/v1/worktrees", &body).expect(200).json()["worktree"], "id")
            })
            .unwrap()
        })
        .collect();
    let made: BTreeSet<String> = threads.into_iter().map(thread::Thread::join).collect();
    assert_eq!(made.len(), 20);
    let listed = list(scene.stage.get("/v1/worktrees?status=ready"));
    assert_eq!(listed.len(), 20);
    assert!(listed.iter().all(is_there));
    assert_eq!(scene.repo.git(&["worktree", "list"]).lines().count(), 21);
}

/// Git ends with an error when it lists worktrees and meets a record that is half written.
#[test]
fn the_status_of_one_waits_for_the_record_of_another_that_is_being_made() {
    let half = "mkdir .git/worktrees/half; echo /a/.git > .git/worktrees/half/gitdir; \
                : > .git/worktrees/half/commondir; : > $HERE/half; \
                read line < $HERE/go; rm -r .git/worktrees/half";
    let cases = format!(
        "*worktree*add*gg/late*) {half};;
         *for-each-ref*) : > $HERE/asked;;"
    );
    let scene = Scene::with_git("", &cases);
    let one = scene.create("one");
    let here = scene.git.path();
    assert!(Command::new("mkfifo").arg(here.join("go")).status().unwrap().success());
    let client = scene.stage.client.clone();
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "late"});
    let making = thread::spawn("making", move || client.post("/v1/worktrees", &body)).unwrap();
    let is_there = |name: &str| here.join(name).exists().then_some(());
    wait::until(SOON, "the record is half written", || is_there("half"));
    fs::remove_file(here.join("asked")).unwrap_or_default();
    let client = scene.stage.client.clone();
    let path = path(&one, "/status");
    let asking = thread::spawn("asking", move || client.get(&path)).unwrap();
    wait::until(SOON, "git is asked for the state of the other", || is_there("asked"));
    fs::write(here.join("go"), "go\n").unwrap();
    let told = asking.join().expect(200).json();
    assert_eq!(told["dirty"], false, "{told}");
    making.join().expect(200);
}

#[test]
fn the_same_worktree_asked_for_at_once_is_made_once() {
    let scene = Scene::new();
    let made = eight_at_once(&scene, &[JSON]);
    assert_eq!(made.iter().filter(|made| made["created"] == true).count(), 1, "{made:?}");
    for told in &made {
        assert_eq!(told["worktree"], made[0]["worktree"]);
    }
    assert_eq!(list(scene.stage.get("/v1/worktrees")).len(), 1);
}

#[test]
fn the_same_key_at_once_gets_one_answer() {
    let scene = Scene::new();
    let made = eight_at_once(&scene, &[JSON, ("Idempotency-Key", "k")]);
    assert_eq!(made[0]["created"], true);
    for told in &made {
        assert_eq!(*told, made[0]);
    }
    assert_eq!(list(scene.stage.get("/v1/worktrees")).len(), 1);
}

/// What eight requests for one worktree are answered.
fn eight_at_once(scene: &Scene, headers: &'static [(&str, &str)]) -> Vec<Value> {
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "same"}).to_string();
    let ask = |_| {
        let (client, body) = (scene.stage.client.clone(), body.clone());
        let ask = move || client.request("POST", "/v1/worktrees", headers, body.as_bytes());
        thread::spawn("creator", ask).unwrap()
    };
    let threads: Vec<_> = (0..8).map(ask).collect();
    threads.into_iter().map(|thread| thread.join().expect(200).json()).collect()
}

#[test]
fn a_key_makes_a_worktree_once() {
    let mut scene = Scene::new();
    let key = [("Idempotency-Key", "k1")];
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "one"});
    let first = scene.stage.post_with("/v1/worktrees", &body, &key).expect(200).json();
    scene.crash();
    let again = scene.stage.post_with("/v1/worktrees", &body, &key).expect(200).json();
    assert_eq!(again, first);
    let other = json!({"repo_root": scene.repo.path, "worktree_name": "two"});
    check_error(&scene.stage.post_with("/v1/worktrees", &other, &key), 409, "idempotency_mismatch");
    assert_eq!(list(scene.stage.get("/v1/worktrees")).len(), 1);
}

/// What the key has made is taken back while the second request waits for it.
#[test]
fn a_key_that_waits_for_a_creation_that_fails_makes_the_worktree_itself() {
    let scene = Scene::new();
    let here = scene.stage.server.folder().to_owned();
    assert!(Command::new("mkfifo").arg(here.join("go")).status().unwrap().success());
    let script = format!(
        "#!/bin/sh\ncd {}\n[ -e mended ] && exit 0\n: > started\nread line < go\nexit 1\n",
        here.display()
    );
    scene.repo.write(".agents/gg/worktree-init.sh", &script);
    make_executable(&scene.repo, ".agents/gg/worktree-init.sh");
    scene.repo.commit("script");
    let (answered, answer) = mpsc::channel();
    let ask = || {
        let (client, answered) = (scene.stage.client.clone(), answered.clone());
        let body = json!({"repo_root": scene.repo.path, "worktree_name": "one"}).to_string();
        thread::spawn("asking", move || {
            let headers = [JSON, ("Idempotency-Key", "k")];
            let reply = client.request("POST", "/v1/worktrees", &headers, body.as_bytes());
            answered.send(reply).unwrap();
        })
        .unwrap()
    };
    let first = ask();
    wait::until(SOON, "the script runs", || here.join("started").exists().then_some(()));
    let second = ask();
    let early = answer.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err(), "the first has not come to an end, but: {early:?}");
    fs::write(here.join("mended"), "").unwrap();
    fs::write(here.join("go"), "go\n").unwrap();
    let mut replies = [(); 2].map(|()| answer.recv_timeout(SOON).unwrap());
    first.join();
    second.join();
    replies.sort_by_key(|reply| reply.status);
    let made = replies[0].json();
    assert_eq!(
        (&made["created"], &made["worktree"]["status"]),
        (&json!(true), &json!("ready")),
        "{made}"
    );
    check_error(&replies[1], 400, "init_script_failed");
    let listed = list(scene.stage.get("/v1/worktrees"));
    assert_eq!(each(&listed, "status"), ["deleted", "ready"]);
}

#[test]
fn the_list_is_read_in_pages_and_filtered() {
    let scene = Scene::new();
    for name in ["a", "b", "c"] {
        scene.create(name);
    }
    let reply = scene.stage.client.get("/v1/worktrees?limit=2").expect(200);
    let cursor = reply.header("x-next-cursor").unwrap().to_owned();
    assert_eq!(each(&list(reply.json()), "worktree_name"), ["a", "b"]);
    let rest = list(scene.stage.get(&format!("/v1/worktrees?limit=2&cursor={cursor}")));
    assert_eq!(each(&rest, "worktree_name"), ["c"]);
    assert_eq!(list(scene.stage.get("/v1/worktrees?status=deleted")).len(), 0);
    check_error(&scene.stage.client.get("/v1/worktrees?status=odd"), 400, "bad_request");
    for rest in ["", "/status", "/diff", "/claims", "/events", "/events/stream"] {
        let path = format!("/v1/worktrees/wt_none{rest}");
        check_error(&scene.stage.client.get(&path), 404, "not_found");
    }
}

#[test]
fn status_and_diff_tell_what_was_done() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    let told = scene.status(&worktree);
    assert_eq!(
        (&told["dirty"], &told["ahead"], &told["cleanup"]),
        (&json!(false), &json!(0), &json!("deleted"))
    );
    work.write("new.txt", "committed\n");
    let head = work.commit("work");
    scene.repo.commit("main goes on");
    work.write("README", "changed\n");
    work.write("untracked file", "fresh\n");
    work.write("x.ignored", "nobody's\n");
    let told = scene.status(&worktree);
    assert_eq!((&told["branch"], &told["head"]), (&json!("gg/one"), &json!(head)));
    assert_eq!((&told["ahead"], &told["behind"]), (&json!(1), &json!(1)));
    assert_eq!((&told["dirty_count"], &told["cleanup"]), (&json!(2), &json!("kept_dirty")));
    assert_eq!(each(&list(told["dirty_files"].clone()), "name"), ["README", "untracked file"]);
    assert_eq!(each(&list(told["unmerged_commits"].clone()), "name"), [head]);
    let diff = scene.stage.get(&path(&worktree, "/diff"));
    let text_of = text(&diff, "diff");
    for line in ["+committed", "+changed", "-hello", "+fresh"] {
        assert!(text_of.contains(line), "{line} in {text_of}");
    }
    assert!(!text_of.contains("nobody's") && diff["truncated"] == false);
    let headers = [("Accept", "text/plain")];
    let diff =
        scene.stage.client.request("GET", &path(&worktree, "/diff?against=head"), &headers, b"");
    let text_of = diff.expect(200).text();
    assert!(text_of.contains("+fresh") && !text_of.contains("+committed"), "{text_of}");
    // Looking has changed nothing: the new file is still new.
    assert_eq!(work.git(&["status", "--porcelain"]), " M README\n?? \"untracked file\"");
}

#[test]
fn diagnostics_count_and_weigh() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    Repo::of(&worktree).write("big.ignored", &"x".repeat(300_000));
    let session = scene.stage.session();
    scene.claim(&worktree, &session).expect(200);
    let told = scene.stage.get("/v1/diagnostics/worktrees");
    assert_eq!((&told["worktree_total"], &told["active_claim_total"]), (&json!(1), &json!(1)));
    assert_eq!(told["orphaned_claim_total"], 0);
    assert_eq!(told["deletion_policy_counts"], json!({"delete_on_last_claim": 1}));
    let seen = &told["worktrees"][0];
    assert!(seen["disk_bytes"].as_u64().unwrap() >= 300_000, "{told}");
    assert_eq!(scene.stage.get("/v1/diagnostics")["worktrees"]["worktree_total"], 1);
}

#[test]
fn switched_off_they_are_refused() {
    let scene = Scene::with_config("[worktrees]\nenabled = false\n");
    check_told(&scene.try_create("x", &json!({})), 409, "conflict", "worktrees.enabled");
    assert!(!scene.stage.server.data_dir().join("worktrees").exists());
    let told = Stage::with_config("").get("/v1/worktrees");
    assert_eq!(told, json!([]));
}

fn make_executable(repo: &Repo, name: &str) {
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(repo.path.join(name), mode).unwrap();
}
