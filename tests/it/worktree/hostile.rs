//! What somebody has put in git's way, in the worktree or in the repository: it costs nobody else anything, and no work.

use super::scene::{Repo, Scene, is_there};
use crate::stage::text;
use serde_json::json;

/// A branch that is only another name for `main`: what goes is that name.
#[test]
fn a_branch_that_leads_to_another_goes_alone() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    scene.repo.git(&["symbolic-ref", "refs/heads/gg/one", "refs/heads/main"]);
    let main = scene.repo.git(&["rev-parse", "main"]);
    assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "deleted");
    assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"));
    assert!(scene.repo.is_branch("main"), "it was another's branch");
    assert_eq!(scene.repo.git(&["rev-parse", "HEAD"]), main);
}

/// The name of the backup leads to `main`: the backup is there, and `main` is where it was.
#[test]
fn a_backup_ref_that_leads_to_a_branch_does_not_move_it() {
    let scene = Scene::new();
    let worktree = scene.create("one");
    Repo::of(&worktree).write("fresh", "fresh\n");
    let main = scene.repo.git(&["rev-parse", "main"]);
    let name = format!("refs/gooselake/backup/{}", text(&worktree, "id"));
    scene.repo.git(&["symbolic-ref", &name, "refs/heads/main"]);
    let told = scene.force(&worktree);
    assert_eq!((&told["status"], &told["backup_ref"]), (&json!("deleted"), &json!(name)));
    assert_eq!(scene.repo.show(&name, "fresh").as_deref(), Some("fresh\n"));
    assert_eq!(scene.repo.git(&["rev-parse", "main"]), main);
}
