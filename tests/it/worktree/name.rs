//! Hostile names: none reaches git as an option, none leads out of the folder of worktrees.

use super::scene::Scene;
use crate::stage::{check_error, each, list, text};
use serde_json::json;
use std::fs;
use std::path::PathBuf;

const HOSTILE: &[&str] = &[
    "",
    " ",
    "/",
    "-",
    "--",
    "-b",
    "--force",
    "--detach",
    "-c core.pager=x",
    "--upload-pack=touch x",
    "..",
    "../..",
    "../../outside",
    "a/../../b",
    "./x",
    ".git",
    ".git/hooks/x",
    "/tmp/x",
    "/etc/passwd",
    "a//b",
    "a/",
    "a/-b",
    "a/.b",
    "x.lock",
    "a.lock/b",
    "a..b",
    "a@{0}",
    "@{-1}",
    "HEAD~1",
    "a^",
    "a:b",
    "a?b",
    "a*",
    "[x]",
    "a\\b",
    "a b",
    "a\tb",
    "a\nb",
    "a\rb",
    "\u{7f}",
    "a\u{1b}[31m",
    "a\u{85}b",
    "a\u{2028}b",
    "ends.",
];

/// Odd, but good: git takes them, and so do we.
const ODD: &[&str] =
    &["$(touch${IFS}x)", "`x`", "a;b", "a|b", "a&b", "'", "\"", "ü", "日本", "a=b", "%2e%2e"];

#[test]
fn hostile_names_are_refused_and_touch_nothing() {
    let scene = Scene::new();
    let before = snapshot(&scene);
    let long = "n".repeat(300);
    let deep = "n/".repeat(120) + "n";
    for name in HOSTILE.iter().copied().chain([long.as_str(), deep.as_str()]) {
        check_error(&scene.try_create(name, &json!({})), 400, "bad_request");
        if !name.trim().is_empty() {
            let reply = scene.try_create("fine", &json!({"branch_prefix": name}));
            check_error(&reply, 400, "bad_request");
        }
        let reply = scene
            .stage
            .post_session(&json!({"worktree": {"name": name, "repo_root": scene.repo.path}}), &[]);
        check_error(&reply, 400, "bad_request");
        let wish = json!({"base_ref": format!("{name}\u{0}")});
        check_error(&scene.try_create("fine", &wish), 400, "bad_request");
    }
    assert_eq!(snapshot(&scene), before);
    assert_eq!(list(scene.stage.get("/v1/worktrees")).len(), 0);
    assert_eq!(list(scene.stage.get("/v1/sessions")).len(), 0);
}

#[test]
fn odd_names_work_and_stay_in_their_folder() {
    let scene = Scene::new();
    let root = scene.stage.server.data_dir().join("worktrees");
    for name in ODD {
        let worktree = scene.create(name);
        let cwd = PathBuf::from(text(&worktree, "worktree_cwd"));
        let real = fs::canonicalize(&cwd).unwrap();
        assert_eq!(real.strip_prefix(&root).unwrap().components().count(), 2, "{name}");
        assert_eq!(scene.status(&worktree)["branch"], format!("gg/{name}"));
        assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "deleted", "{name}");
    }
    assert!(!scene.repo.path.join("x").exists());
    let listed = list(scene.stage.get("/v1/worktrees"));
    assert!(each(&listed, "status").iter().all(|status| status == "deleted"));
}

/// Two names that would share a folder: the second is refused.
#[test]
fn a_folder_is_not_shared() {
    let scene = Scene::new();
    scene.create("a/b");
    check_error(&scene.try_create("a--b", &json!({})), 409, "conflict");
    assert!(!scene.repo.is_branch("gg/a--b"));
}

/// All that lies in the repository and beside the data folder, and its refs.
fn snapshot(scene: &Scene) -> (Vec<PathBuf>, String) {
    let mut found = Vec::new();
    let mut folders = vec![scene.repo.path.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    let beside = fs::read_dir(scene.stage.server.folder()).unwrap().flatten();
    found.extend(beside.map(|entry| entry.path()));
    found.sort();
    (found, scene.repo.git(&["for-each-ref"]))
}
