//! Plays of worktrees: what an agent has done there is never lost, and what holds nothing goes.

use crate::line::Answered;
use crate::play::{Play, text};
use gooselake_harness::demo::OUTCOME;
use serde_json::{Value, json};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A file is written, perhaps committed. The end of the session keeps the worktree; force takes it, after a backup.
pub(crate) fn work_is_kept(play: &mut Play) {
    let Some((session, worktree)) = placed(play) else { return };
    let is_commit = play.rng.chance(50);
    // Of its own: the same commit on another branch would hold it too, and the worktree would go.
    let write = format!("write notes {}", play.name);
    let commit = "run git add -A && git -c user.name=a -c user.email=a@b commit -qm work";
    let wrote = format!("Wrote {} bytes to notes.", play.name.len());
    let (prompt, said) = match is_commit {
        true => (format!("{write}\n{commit}"), format!("{wrote}\n\n{OUTCOME}")),
        false => (write, wrote),
    };
    if let Some(turn) = play.turn(&session, &prompt) {
        play.check_end(&session, &turn, "completed", &said);
    }
    let before = play.get(&format!("/v1/worktrees/{worktree}"));
    let cwd = text(&before, "worktree_cwd");
    let notes = Path::new(&cwd).join("notes");
    let work = fs::read_to_string(&notes).ok();
    assert!(work.is_some() || play.is_rough, "{}: nothing was written: {before}", play.name);
    play.close(&session, Path::new(&cwd));
    let Some(work) = work else { return };
    // The cleanup that the close makes due finds the work.
    let event = play.first(&format!(
        "/v1/worktrees/{worktree}/events/stream?control=false\
         &kinds=worktree.kept,worktree.cleaned_up,worktree.cleanup_failed"
    ));
    assert_eq!(event.kind, "worktree.kept", "{}: {}", play.name, event.json);
    assert_eq!(fs::read_to_string(&notes).ok(), Some(work.clone()), "{}: lost", play.name);
    let path = format!("/v1/worktrees/{worktree}");
    let cleanup = || play.act(&format!("{path}/cleanup"), &json!({"force": true}));
    let record = play.until("the forced cleanup", || {
        // The first that is neither cut off nor met by what a death has left behind has done it.
        let Answered { reply, was_cut } = cleanup();
        let is_met = was_cut || reply.json()["code"] == "conflict";
        let is_done = reply.status == 200 && reply.json()["status"] == "deleted";
        assert!(is_done || is_met, "{}: {reply}", play.name);
        let record = play.get(&path);
        (record["status"] == "deleted").then_some(record)
    });
    let backup = text(&record, "backup_ref");
    let kept = git(&play.repo, &["show", &format!("{backup}:notes")]);
    assert_eq!(kept, work, "{}: the backup has something else", play.name);
}

/// Nothing is done: the end of the session takes folder and branch away.
pub(crate) fn nothing_is_cleaned_up(play: &mut Play) {
    let Some((session, worktree)) = placed(play) else { return };
    let record = play.get(&format!("/v1/worktrees/{worktree}"));
    let cwd = text(&record, "worktree_cwd");
    play.close(&session, Path::new(&cwd));
    let event = play.first(&format!(
        "/v1/worktrees/{worktree}/events/stream?control=false\
         &kinds=worktree.kept,worktree.cleaned_up"
    ));
    assert_eq!(event.kind, "worktree.cleaned_up", "{}: {}", play.name, event.json);
    assert!(!Path::new(&cwd).exists(), "{}: {cwd} is left", play.name);
    let branch = format!("refs/heads/{}", text(&record, "branch_name"));
    let left = git(&play.repo, &["for-each-ref", &branch]);
    assert_eq!(left, "", "{}: the branch is left: {}", play.name, event.json);
}

/// A session in a worktree of the play's name, and the worktree's id.
fn placed(play: &mut Play) -> Option<(String, String)> {
    let wish = json!({"mode": "create", "name": play.name, "repo_root": play.repo});
    let body = json!({"provider": "demo", "mode": "auto", "worktree": wish});
    let made: Value = play.make("/v1/sessions", &body).ok()?;
    Some((text(&made, "id"), text(&made, "worktree_id")))
}

/// What git says in a folder. Panics: it fails.
pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("git runs");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?} in {}: {told}", folder.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
