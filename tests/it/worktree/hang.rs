//! What hangs costs itself time and nobody else; when its time is up, nothing of it is left.

use super::scene::{Repo, Scene, is_there};
use crate::stage::{check_error, check_told, each, list, text};
use gooselake_harness::proc;
use gooselake_harness::thread;
use gooselake_harness::wait;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(30);

/// Far more than an answer takes, far less than what hangs.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A script that says its pid and hangs, and has a child of its own session that hangs too.
fn hanging_script(scene: &Scene, repo: &Repo) -> PathBuf {
    let pids = scene.stage.server.folder().join("pids");
    let script = format!(
        "#!/bin/sh\necho started\ntrap '' TERM\nsetsid sh -c 'trap \"\" TERM; echo $$ >> {0}; sleep 1000; :' &\n\
         echo $$ >> {0}\nsleep 1000\n",
        pids.display()
    );
    repo.write(".agents/gg/worktree-init.sh", &script);
    let path = repo.path.join(".agents/gg/worktree-init.sh");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    repo.commit("script");
    pids
}

/// The pids, once both are written.
fn pids_in(path: &Path) -> Vec<u32> {
    wait::until(SOON, "the script and its child say their pids", || {
        let text = fs::read_to_string(path).ok()?;
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (pids.len() == 2).then_some(pids)
    })
}

#[test]
fn a_script_that_hangs_ends_with_its_whole_tree_at_its_time() {
    let scene = Scene::with_config("[worktrees]\ninit_timeout_secs = 2\n");
    let pids = hanging_script(&scene, &scene.repo);
    let reply = scene.try_create("one", &json!({}));
    check_told(&reply, 400, "init_script_failed", "did not end in time");
    let told = &reply.json()["init_script"];
    assert_eq!((&told["timed_out"], &told["output"]), (&json!(true), &json!("started\n")));
    proc::wait_gone(&pids_in(&pids), SOON).unwrap();
    let left = list(scene.stage.get("/v1/worktrees"));
    assert!(!is_there(&left[0]) && !scene.repo.is_branch("gg/one"));
}

#[test]
fn a_script_that_hangs_delays_nobody_and_ends_with_the_server() {
    let mut scene = Scene::with_config("[worktrees]\nlock_wait_secs = 1\n");
    let pids = hanging_script(&scene, &scene.repo);
    let client = scene.stage.client.clone().with_deadline(Duration::from_secs(120));
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "hangs"});
    let hanging = thread::spawn("hanging", move || {
        client.try_request(
            "POST",
            "/v1/worktrees",
            &[("Content-Type", "application/json")],
            body.to_string().as_bytes(),
        )
    })
    .unwrap();
    let pids = pids_in(&pids);
    let begun = Instant::now();
    for _ in 0..20 {
        scene.stage.client.get("/health").expect(200);
    }
    // The same repository, another one, and the rest of the server go on.
    let fields = json!({"run_init_script": false});
    let same = scene.create_with("same", &fields);
    assert_eq!(scene.cleanup(&same, &json!({}))["status"], "deleted");
    let other = Repo::new(&scene.stage.server.folder().join("other"));
    scene.try_create_in(&other, "one", &fields).expect(200);
    scene.stage.session();
    assert!(begun.elapsed() < AT_ONCE, "{:?}", begun.elapsed());
    // What is being made can not be claimed or cleaned up; who wants it too waits for it, within a bound.
    let making = list(scene.stage.get("/v1/worktrees?status=creating")).remove(0);
    check_error(&scene.claim_at_once(&making), 409, "conflict");
    check_told(&scene.try_create("hangs", &json!({})), 503, "capacity", &text(&making, "id"));
    let begun = Instant::now();
    assert_eq!(scene.stage.server.terminate(), Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(hanging.join());
    proc::wait_gone(&pids, SOON).unwrap();
    scene.stage.restart();
    let gone = scene.event(&making, "worktree.cleaned_up", 0);
    assert_eq!(gone.payload["worktree_path_deleted"], true);
    assert!(!is_there(&making) && !scene.repo.is_branch("gg/hangs"));
    assert_eq!(
        each(&list(scene.stage.get("/v1/worktrees?status=creating")), "id"),
        Vec::<String>::new()
    );
}

/// A checkout that hangs in the user's own hook: the repository is not held meanwhile, and nothing of it is left.
#[test]
fn a_hook_that_hangs_delays_nobody_and_ends_at_its_time() {
    let scene = Scene::with_config("[worktrees]\ngit_timeout_secs = 2\n");
    let started = scene.stage.server.folder().join("started");
    let hook = scene.repo.path.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    fs::write(&hook, format!("#!/bin/sh\necho $$ > {}\nsleep 1000\n", started.display())).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let client = scene.stage.client.clone();
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "one"});
    let hanging = thread::spawn("hanging", move || client.post("/v1/worktrees", &body)).unwrap();
    let pid: u32 = wait::until(SOON, "the hook runs", || {
        fs::read_to_string(&started).ok()?.trim().parse().ok()
    });
    fs::remove_file(&hook).unwrap();
    let fine = scene.create("fine");
    assert_eq!(scene.cleanup(&fine, &json!({}))["status"], "deleted");
    check_told(&hanging.join(), 503, "capacity", "did not end in time");
    proc::wait_gone(&[pid], SOON).unwrap();
    assert!(!scene.repo.is_branch("gg/one"));
    let left = list(scene.stage.get("/v1/worktrees"));
    assert!(each(&left, "status").iter().all(|status| status == "deleted"), "{left:?}");
    assert!(left.iter().all(|record| record["backup_ref"].is_null()), "{left:?}");
    scene.create("one");
}

/// A git that hangs while the repository is locked: who wants that repository waits within a bound, and nobody else.
#[test]
fn a_repository_that_is_held_delays_only_itself() {
    // A git that says its pid and hangs when it is to add `gg/hang`.
    let scene = Scene::with_git(
        "[worktrees]\ngit_timeout_secs = 4\nlock_wait_secs = 1\n",
        "*'worktree add'*gg/hang*) echo $$ > \"$HERE/started\"; sleep 1000;;",
    );
    let started = scene.git.path().join("started");
    let slow = Repo::new(&scene.stage.server.folder().join("slow"));
    let client = scene.stage.client.clone();
    let body = json!({"repo_root": slow.path, "worktree_name": "hang"});
    let hanging = thread::spawn("hanging", move || client.post("/v1/worktrees", &body)).unwrap();
    let pid: u32 =
        wait::until(SOON, "git hangs", || fs::read_to_string(&started).ok()?.trim().parse().ok());
    let begun = Instant::now();
    let fine = scene.create("fine");
    scene.stage.client.get("/health").expect(200);
    assert_eq!(scene.cleanup(&fine, &json!({}))["status"], "deleted");
    assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
    let busy = scene.try_create_in(&slow, "two", &json!({}));
    check_told(&busy, 503, "capacity", "slow");
    assert_eq!(busy.header("retry-after"), Some("1"));
    check_told(&hanging.join(), 503, "capacity", "did not end in time");
    proc::wait_gone(&[pid], SOON).unwrap();
    fs::remove_file(scene.git.path().join("git")).unwrap();
    // What was half made is gone, and the repository works again.
    scene.try_create_in(&slow, "hang", &json!({})).expect(200);
}

/// A script without an end to its words: they are read and bounded.
#[test]
fn a_script_that_floods_is_bounded() {
    let scene = Scene::with_config("[worktrees]\ninit_timeout_secs = 2\n");
    scene.repo.write(".agents/gg/worktree-init.sh", "#!/bin/sh\nyes flood\n");
    let path = scene.repo.path.join(".agents/gg/worktree-init.sh");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    scene.repo.commit("script");
    let reply = scene.try_create("one", &json!({}));
    check_error(&reply, 400, "init_script_failed");
    let told = &reply.json()["init_script"];
    assert_eq!((&told["timed_out"], &told["truncated"]), (&json!(true), &json!(true)));
    assert_eq!(told["output"].as_str().unwrap().len(), 64 * 1024);
}
