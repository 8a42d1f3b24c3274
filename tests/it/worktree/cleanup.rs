//! Claims, releases, cleanups: nothing goes that holds work, and what is forced away is in the backup ref.

use super::scene::{Repo, Scene, is_there, path};
use crate::stage::{check_error, check_told, each, list, text};
use serde_json::{Value, json};
use std::fs;

#[test]
fn claims_are_held_one_at_a_time_and_the_last_release_cleans_up() {
    let scene = Scene::new();
    let (one, two) = (scene.create("one"), scene.create("two"));
    let (a, b) = (scene.stage.session(), scene.stage.session());
    let claimed = scene.claim(&one, &a).expect(200).json();
    assert_eq!(claimed["claim"]["claim_role"], "owner");
    assert_eq!(claimed["worktree"]["active_claim_count"], 1);
    assert_eq!(scene.stage.record(&a)["worktree_id"], one["id"]);
    check_told(&scene.claim(&two, &a), 409, "conflict", &text(&one, "id"));
    check_error(&scene.claim(&one, "sess_none"), 404, "not_found");
    let role = json!({"session_id": b, "claim_role": " "});
    check_told(
        &scene.stage.client.post(&path(&one, "/claims"), &role),
        400,
        "bad_request",
        "claim_role",
    );
    let role = json!({"session_id": b, "claim_role": " Consumer "});
    scene.stage.client.post(&path(&one, "/claims"), &role).expect(200);
    assert_eq!(scene.cleanup(&one, &json!({}))["status"], "skipped_live_claims");
    assert_eq!(scene.force(&one)["status"], "skipped_live_claims");
    let released = scene.release(&one, &a).expect(200).json();
    assert_eq!((&released["active_claim_count"], &released["cleanup"]), (&json!(1), &Value::Null));
    assert_eq!(scene.stage.record(&a)["worktree_id"], Value::Null);
    let roles = list(scene.stage.get(&path(&one, "/claims?active=true")));
    assert_eq!(each(&roles, "claim_role"), ["consumer"]);
    let released = scene.release(&one, &b).expect(200).json();
    assert_eq!(released["cleanup"]["status"], "deleted");
    assert_eq!(released["cleanup"]["worktree_path_deleted"], true);
    assert_eq!(released["cleanup"]["branch_deleted"], true);
    assert!(!is_there(&one) && !scene.repo.is_branch("gg/one"));
    let record = scene.record(&one);
    assert_eq!((&record["status"], &record["backup_ref"]), (&json!("deleted"), &Value::Null));
    check_error(&scene.claim(&one, &a), 409, "conflict");
    // A second release and a second cleanup are no errors and tell nothing new.
    let told = scene.kinds(&one);
    scene.release(&one, &b).expect(200);
    assert_eq!(scene.cleanup(&one, &json!({}))["status"], "deleted");
    assert_eq!(scene.kinds(&one), told);
    let kinds = ["created", "claimed", "claimed", "released", "released", "cleaned_up"];
    assert_eq!(told, kinds.map(|kind| format!("worktree.{kind}")));
    check_error(&scene.release(&two, &a), 404, "not_found");
    // The name is free again; the new worktree is another one.
    assert_ne!(scene.create("one")["id"], one["id"]);
}

#[test]
fn a_retained_worktree_goes_by_force_alone() {
    let scene = Scene::new();
    let worktree = scene.create_with("one", &json!({"deletion_policy": "retain_on_last_claim"}));
    let session = scene.stage.session();
    scene.claim(&worktree, &session).expect(200);
    let released = scene.release(&worktree, &session).expect(200).json();
    assert_eq!(released["cleanup"]["status"], "retained_by_policy");
    assert!(is_there(&worktree));
    assert_eq!(scene.force(&worktree)["status"], "deleted");
}

/// One sort of work, and what a cleanup says of it.
type Case = (&'static str, fn(&Repo), &'static str, &'static str);

/// Whatever a worktree holds keeps it; force takes it away and the backup ref has all of it.
#[test]
fn work_keeps_a_worktree_and_force_backs_it_up() {
    let cases: &[Case] = &[
        ("changed", |work| work.write("README", "changed\n"), "kept_dirty", "README"),
        (
            "deleted",
            |work| fs::remove_file(work.path.join("README")).unwrap(),
            "kept_dirty",
            "README",
        ),
        (
            "fresh",
            |work| work.write("a/fresh \"file\"", "fresh\n"),
            "kept_dirty",
            "a/fresh \"file\"",
        ),
        (
            "staged",
            |work| {
                work.write("s", "staged\n");
                work.git(&["add", "s"]);
            },
            "kept_dirty",
            "s",
        ),
        (
            "commit",
            |work| {
                work.write("c", "c\n");
                work.commit("mine");
            },
            "kept_unmerged",
            "",
        ),
        (
            "detached",
            |work| {
                work.git(&["checkout", "--quiet", "--detach"]);
                work.write("d", "d\n");
                work.commit("on no branch");
            },
            "kept_unmerged",
            "",
        ),
        (
            "assumed",
            |work| {
                work.git(&["update-index", "--assume-unchanged", "README"]);
                work.write("README", "hidden change\n");
            },
            "kept_dirty",
            "README",
        ),
        (
            "skipped",
            |work| {
                work.git(&["update-index", "--skip-worktree", "README"]);
                work.write("README", "hidden change\n");
            },
            "kept_dirty",
            "README",
        ),
        (
            "merge",
            |work| {
                work.git(&["checkout", "--quiet", "-b", "side"]);
                work.write("README", "side\n");
                work.commit("side");
                work.git(&["checkout", "--quiet", "gg/merge"]);
                work.write("README", "ours\n");
                work.commit("ours");
                assert!(!work.try_git(&["merge", "side"]).status.success());
            },
            "kept_dirty",
            "README",
        ),
        (
            "rebase",
            |work| {
                work.write("README", "ours\n");
                work.commit("ours");
                work.git(&["checkout", "--quiet", "-b", "other", "main"]);
                work.write("README", "other\n");
                work.commit("other");
                work.git(&["checkout", "--quiet", "gg/rebase"]);
                assert!(!work.try_git(&["rebase", "other"]).status.success());
            },
            "kept_dirty",
            "rebase-merge",
        ),
        (
            "locked",
            |work| {
                work.git(&["worktree", "lock", "--reason", "mine", "."]);
            },
            "kept_dirty",
            ".",
        ),
    ];
    let scene = Scene::new();
    for (name, work_of, status, lost) in cases {
        let worktree = scene.create(name);
        let work = Repo::of(&worktree);
        work_of(&work);
        let before = files_of(&work);
        let head = work.git(&["rev-parse", "HEAD"]);
        let tip = scene.repo.git(&["rev-parse", &format!("gg/{name}")]);
        let told = scene.cleanup(&worktree, &json!({"reason": "try"}));
        assert_eq!(told["status"], *status, "{name}: {told}");
        let names = each(&list(told["lost"].clone()), "name");
        assert!(names.iter().any(|name| name == lost || lost.is_empty()), "{name}: {told}");
        assert_eq!(files_of(&work), before, "{name}");
        assert_eq!(work.git(&["rev-parse", "HEAD"]), head, "{name}");
        let kept = scene.events(&worktree).pop().unwrap();
        assert_eq!((kept.kind.as_str(), &kept.payload["lost"]), ("worktree.kept", &told["lost"]));
        assert_eq!(scene.record(&worktree)["status"], "ready", "{name}");
        let told = scene.force(&worktree);
        assert_eq!(told["status"], "deleted", "{name}: {told}");
        assert!(!is_there(&worktree) && !scene.repo.is_branch(&format!("gg/{name}")), "{name}");
        if *name == "locked" {
            continue;
        }
        let backup = format!("refs/gooselake/backup/{}", text(&worktree, "id"));
        assert_eq!(told["backup_ref"], backup.as_str(), "{name}: {told}");
        for (file, content) in before {
            assert_eq!(scene.repo.show(&backup, &file).as_ref(), Some(&content), "{name}: {file}");
        }
        assert!(scene.repo.holds(&head) && scene.repo.holds(&tip), "{name}");
        let listed = scene.repo.git(&["ls-tree", "-r", "--name-only", &backup]);
        assert_eq!(listed.contains("README"), *name != "deleted", "{name}: {listed}");
    }
}

/// Git goes by size and second before it looks into a file; a change that keeps both is seen all the same.
#[test]
fn a_change_in_the_second_of_the_checkout_is_seen() {
    let scene = Scene::new();
    let worktrees: Vec<_> = (0..20).map(|number| scene.create(&format!("w{number}"))).collect();
    for worktree in worktrees {
        let work = Repo::of(&worktree);
        work.write("README", "first\n");
        work.git(&["add", "README"]);
        work.write("README", "later\n");
        let told = scene.status(&worktree);
        assert_eq!(told["dirty_files"][0]["detail"], "MM", "{told}");
        let backup = text(&scene.force(&worktree), "backup_ref");
        assert_eq!(scene.repo.show(&backup, "README").unwrap(), "later\n");
    }
}

#[test]
fn the_index_is_in_the_backup_when_it_differs() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.write("README", "staged\n");
    work.git(&["add", "README"]);
    work.write("README", "later\n");
    let backup = text(&scene.force(&worktree), "backup_ref");
    assert_eq!(scene.repo.show(&backup, "README").unwrap(), "later\n");
    assert_eq!(scene.repo.show(&format!("{backup}^2"), "README").unwrap(), "staged\n");
}

#[test]
fn merged_and_pushed_commits_and_ignored_files_keep_nothing() {
    let scene = Scene::new();
    let merged = scene.create("merged");
    let work = Repo::of(&merged);
    work.write("new", "x\n");
    work.commit("work");
    work.write("ignored/cache.bin", "x");
    work.write("note.ignored", "x");
    // Caches of some tools are write-protected.
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o555);
    fs::set_permissions(work.path.join("ignored"), mode).unwrap();
    scene.repo.git(&["merge", "--quiet", "gg/merged"]);
    assert_eq!(scene.cleanup(&merged, &json!({}))["status"], "deleted");
    assert!(!is_there(&merged));
    let pushed = scene.create("pushed");
    let work = Repo::of(&pushed);
    let commit = work.commit("work");
    let elsewhere = scene.stage.server.folder().join("elsewhere.git");
    scene.repo.git(&["init", "--quiet", "--bare", elsewhere.to_str().unwrap()]);
    work.git(&["remote", "add", "origin", elsewhere.to_str().unwrap()]);
    assert_eq!(scene.cleanup(&pushed, &json!({}))["status"], "kept_unmerged");
    work.git(&["push", "--quiet", "origin", "gg/pushed"]);
    assert_eq!(scene.cleanup(&pushed, &json!({}))["status"], "deleted");
    assert!(scene.repo.holds(&commit));
    let trash = scene.stage.server.data_dir().join("worktrees/.trash");
    assert_eq!(fs::read_dir(trash).unwrap().count(), 0);
}

/// What was committed and then left is nobody's reason to stay, but it is not lost either.
#[test]
fn commits_that_only_a_reflog_remembers_go_into_a_backup() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["checkout", "--quiet", "--detach"]);
    work.write("lost", "found\n");
    let left = work.commit("on no branch");
    work.git(&["checkout", "--quiet", "gg/one"]);
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!(told["status"], "deleted");
    scene.repo.git(&["reflog", "expire", "--expire=now", "--all"]);
    scene.repo.git(&["gc", "--quiet", "--prune=now"]);
    assert!(scene.repo.has(&left) && scene.repo.holds(&left), "{told}");
}

/// Somebody whom the server does not know writes a file, and makes a commit, just after the look.
#[test]
fn what_comes_during_the_cleanup_is_not_lost() {
    // The first look at refs comes behind the look at files, and before the folder is moved.
    let cases =
        "*for-each-ref*) if mv \"$HERE/late\" \"$HERE/done\"; then sh \"$HERE/done\" >&2; fi;;";
    let scene = Scene::with_git("", cases);
    for (number, (late, force, status)) in [
        ("echo precious > late", false, "kept_dirty"),
        ("echo precious > late", true, "deleted"),
        ("git init --quiet late; echo x > late/precious", true, "kept_dirty"),
    ]
    .into_iter()
    .enumerate()
    {
        let worktree = scene.create(&format!("w{number}"));
        let work = Repo::of(&worktree);
        let script = format!("unset GIT_DIR GIT_WORK_TREE\ncd '{}'\n{late}\n", work.path.display());
        fs::write(scene.git.path().join("late"), script).unwrap();
        let told = scene.cleanup(&worktree, &json!({"force": force}));
        assert!(!scene.git.path().join("late").exists());
        assert_eq!(told["status"], status, "{late}: {told}");
        if status == "deleted" {
            let backup = text(&told, "backup_ref");
            assert_eq!(scene.repo.show(&backup, "late").unwrap(), "precious\n");
        } else {
            assert!(work.path.join("late").exists(), "{late}");
            assert_eq!(scene.record(&worktree)["status"], "ready");
            assert_eq!(work.git(&["status", "--porcelain"]).lines().count(), 1);
        }
    }
}

/// Cleans up without force and with it; what keeps the worktree, the first thing of each time.
fn kept_even_by_force(scene: &Scene, worktree: &Value) -> [Value; 2] {
    [false, true].map(|force| {
        let told = scene.cleanup(worktree, &json!({"force": force}));
        assert_eq!(told["status"], "kept_dirty", "force {force}: {told}");
        told["lost"][0].clone()
    })
}

#[test]
fn a_repository_inside_is_kept_even_by_force() {
    let scene = Scene::new();
    for (name, is_committed) in [("empty", false), ("full", true)] {
        let worktree = scene.create(name);
        let work = Repo::of(&worktree);
        let inner = Repo::empty(&work.path.join("deep/inner"));
        inner.write("precious", "x\n");
        if is_committed {
            inner.commit("only here");
        }
        for lost in kept_even_by_force(&scene, &worktree) {
            assert_eq!(lost["kind"], "nested_repository", "{name}: {lost}");
        }
        assert!(inner.path.join("precious").exists() && inner.path.join(".git").exists());
        fs::rename(&inner.path, scene.stage.server.folder().join(format!("saved-{name}"))).unwrap();
        assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "deleted");
    }
}

/// Another worktree of the repository, made where git does not look.
#[test]
fn a_worktree_inside_is_kept_even_by_force() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["worktree", "add", "--quiet", "--detach", "ignored/inner"]);
    let inner = work.path.join("ignored/inner");
    fs::write(inner.join("precious"), "x\n").unwrap();
    for lost in kept_even_by_force(&scene, &worktree) {
        assert_eq!(lost["kind"], "nested_repository", "{lost}");
        assert_eq!(lost["name"], "ignored/inner", "{lost}");
    }
    assert!(inner.join("precious").exists());
    work.git(&["worktree", "remove", "--force", "ignored/inner"]);
    assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "deleted");
}

/// A ref that names the branch holds no commit of its own.
#[test]
fn a_second_name_of_the_branch_does_not_hold_its_commits() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["symbolic-ref", "refs/heads/current", "refs/heads/gg/one"]);
    work.write("precious", "x\n");
    work.commit("only here");
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!(told["status"], "kept_unmerged", "{told}");
    assert!(is_there(&worktree));
}

/// Somebody has replaced the file by which git knows the worktree: what is behind the new one is not ours.
#[test]
fn a_repository_in_place_of_the_worktree_is_kept() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    fs::remove_file(work.path.join(".git")).unwrap();
    work.git(&["init", "--quiet"]);
    work.write("precious", "x\n");
    work.commit("in another repository");
    kept_even_by_force(&scene, &worktree);
    assert!(work.path.join(".git/HEAD").exists() && work.path.join("precious").exists());
}

#[test]
fn a_branch_that_another_worktree_stands_on_stays() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["checkout", "--quiet", "--detach"]);
    let elsewhere = scene.stage.server.folder().join("by-hand");
    scene.repo.git(&["worktree", "add", "--quiet", elsewhere.to_str().unwrap(), "gg/one"]);
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!((&told["status"], &told["branch_deleted"]), (&json!("deleted"), &json!(false)));
    assert_eq!(list(told["diagnostics"].clone()).len(), 1, "{told}");
    assert!(scene.repo.is_branch("gg/one") && elsewhere.join("README").exists());
}

/// Files of the working tree that git knows or would know, with their text.
fn files_of(work: &Repo) -> Vec<(String, String)> {
    let listed = work.git(&["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let mut names: Vec<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    names.sort_unstable();
    names.dedup();
    let read = |name: &str| fs::read_to_string(work.path.join(name)).ok();
    names.into_iter().filter_map(|name| Some((name.to_owned(), read(name)?))).collect()
}
