//! Repositories that are not plain: each works, or is refused with a reason.

use super::scene::{Repo, Scene, is_there};
use crate::stage::{check_told, text};
use serde_json::json;
use std::fs;

#[test]
fn a_repository_without_a_commit_is_refused() {
    let scene = Scene::new();
    let empty = Repo::empty(&scene.stage.server.folder().join("empty"));
    for fields in [json!({}), json!({"base_ref": "main"})] {
        let reply = scene.try_create_in(&empty, "one", &fields);
        check_told(&reply, 409, "conflict", "no commit yet");
    }
    empty.commit("first");
    scene.try_create_in(&empty, "one", &json!({})).expect(200);
}

#[test]
fn a_bare_repository_has_worktrees() {
    let scene = Scene::new();
    let bare = scene.stage.server.folder().join("bare.git");
    scene.repo.git(&["clone", "--quiet", "--bare", ".", bare.to_str().unwrap()]);
    let bare = Repo { path: bare };
    let reply = scene.try_create_in(&bare, "one", &json!({})).expect(200).json();
    let worktree = &reply["worktree"];
    assert_eq!(worktree["repo_root"], bare.path.to_str().unwrap());
    let work = Repo::of(worktree);
    work.write("new", "x\n");
    work.commit("work");
    assert_eq!(scene.cleanup(worktree, &json!({}))["status"], "kept_unmerged");
    assert_eq!(scene.force(worktree)["status"], "deleted");
}

#[test]
fn a_worktree_has_worktrees() {
    let scene = Scene::new();
    let outer = scene.create("outer");
    let outer_repo = Repo::of(&outer);
    outer_repo.write("outer", "x\n");
    let commit = outer_repo.commit("outer work");
    let reply = scene.try_create_in(&outer_repo, "inner", &json!({})).expect(200).json();
    let inner = &reply["worktree"];
    assert_eq!((&inner["base_commit"], &inner["base_ref"]), (&json!(commit), &json!("gg/outer")));
    // The outer one's commit is held by the inner one's branch, and the other way round: the last to go holds it.
    assert_eq!(scene.cleanup(&outer, &json!({}))["status"], "deleted");
    assert_eq!(scene.cleanup(inner, &json!({}))["status"], "kept_unmerged");
    assert!(scene.repo.holds(&commit));
}

#[test]
fn a_linked_folder_leads_to_the_same_repository() {
    let scene = Scene::new();
    let link = scene.stage.server.folder().join("link");
    std::os::unix::fs::symlink(&scene.repo.path, &link).unwrap();
    let first = scene.create("one");
    let again = scene.try_create_in(&Repo { path: link }, "one", &json!({})).expect(200).json();
    assert_eq!((&again["created"], &again["worktree"]["id"]), (&json!(false), &first["id"]));
}

/// The folder of a repository's worktrees was made a link to somewhere else.
#[test]
fn a_link_in_the_folder_of_worktrees_is_refused() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "deleted");
    let root = text(&worktree, "worktree_root");
    let outside = scene.stage.server.folder().join("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, root).unwrap();
    check_told(&scene.try_create("two", &json!({})), 409, "conflict", "link");
    assert_eq!(fs::read_dir(outside).unwrap().count(), 0);
}

#[test]
fn submodules_that_hold_nothing_go_and_their_own_work_stays() {
    let scene = Scene::new();
    let library = Repo::new(&scene.stage.server.folder().join("library"));
    scene.repo.git(&["submodule", "add", "--quiet", library.path.to_str().unwrap(), "lib"]);
    scene.repo.commit("with a library");
    // Not initialised: nothing of it is there.
    let plain = scene.create("plain");
    assert_eq!(scene.cleanup(&plain, &json!({}))["status"], "deleted");
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["submodule", "--quiet", "update", "--init"]);
    let lib = Repo { path: work.path.join("lib") };
    assert_eq!(scene.status(&worktree)["cleanup"], "deleted");
    lib.write("README", "changed\n");
    for force in [false, true] {
        let told = scene.cleanup(&worktree, &json!({"force": force}));
        assert_eq!(
            (&told["status"], &told["lost"][0]["kind"]),
            (&json!("kept_dirty"), &json!("submodule"))
        );
    }
    // A commit that only the submodule's own branch holds, while the worktree looks clean.
    lib.git(&["checkout", "--quiet", "-b", "mine"]);
    lib.commit("mine");
    work.git(&["submodule", "--quiet", "update"]);
    assert_eq!(work.git(&["status", "--porcelain"]), "");
    let told = scene.force(&worktree);
    assert_eq!(
        (&told["status"], &told["lost"][0]["kind"]),
        (&json!("kept_dirty"), &json!("submodule"))
    );
    assert!(lib.is_branch("mine"));
    lib.git(&["push", "--quiet", "origin", "mine"]);
    assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "deleted");
    assert!(!is_there(&worktree) && library.is_branch("mine"));
}

/// A submodule without work of its own hinders no backup of what is beside it.
#[test]
fn a_forced_cleanup_backs_up_beside_a_submodule() {
    let scene = Scene::new();
    let library = Repo::new(&scene.stage.server.folder().join("library"));
    scene.repo.git(&["submodule", "add", "--quiet", library.path.to_str().unwrap(), "lib"]);
    scene.repo.commit("with a library");
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["submodule", "--quiet", "update", "--init"]);
    work.write("new", "x\n");
    let told = scene.force(&worktree);
    assert_eq!(told["status"], "deleted", "{told}");
    let backup = text(&told, "backup_ref");
    assert_eq!(scene.repo.show(&backup, "new").unwrap(), "x\n");
    let link = |at: &str| scene.repo.git(&["rev-parse", &format!("{at}:lib")]);
    assert_eq!(link(&backup), link("main"));
}

#[test]
fn a_sparse_checkout_is_no_change() {
    let scene = Scene::new();
    scene.repo.write("left/a", "a\n");
    scene.repo.write("right/b", "b\n");
    scene.repo.commit("two sides");
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["sparse-checkout", "set", "left"]);
    assert!(!work.path.join("right").exists());
    work.write("left/a", "changed\n");
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!((&told["status"], &told["dirty_count"]), (&json!("kept_dirty"), &json!(1)));
    let backup = text(&scene.force(&worktree), "backup_ref");
    assert_eq!(scene.repo.show(&backup, "left/a").unwrap(), "changed\n");
    assert_eq!(scene.repo.show(&backup, "right/b").unwrap(), "b\n");
}

/// A hook of the repository is the user's own: it runs where he would expect it, and has its time.
#[test]
fn the_checkout_hook_runs_and_no_other() {
    let scene = Scene::new();
    let hooks = scene.repo.path.join(".git/hooks");
    fs::create_dir_all(&hooks).unwrap();
    for name in ["post-checkout", "reference-transaction", "post-index-change", "pre-commit"] {
        let path = hooks.join(name);
        let log = scene.stage.server.folder().join(format!("hook-{name}"));
        fs::write(&path, format!("#!/bin/sh\necho x >> '{}'\n", log.display())).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&path, mode).unwrap();
    }
    let ran = |name: &str| scene.stage.server.folder().join(format!("hook-{name}")).exists();
    let worktree = scene.create("one");
    assert!(ran("post-checkout"));
    let log = scene.stage.server.folder().join("hook-reference-transaction");
    drop(fs::remove_file(&log));
    Repo::of(&worktree).write("x", "x\n");
    assert_eq!(scene.force(&worktree)["status"], "deleted");
    assert!(!ran("reference-transaction") && !ran("pre-commit"));
}
