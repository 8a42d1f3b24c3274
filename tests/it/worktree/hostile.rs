//! What somebody has put in git's way, in the worktree or in the repository: it costs nobody else anything, and no
//! work.

use super::scene::{Repo, Scene, is_there, path};
use crate::stage::{SOON, check_told, list, text};
use gooselake_harness::{thread, wait};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::time::{Duration, SystemTime};

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

/// A pipe that nobody writes to, where git has its files.
#[test]
fn a_pipe_in_place_of_gits_files_makes_nobody_wait() {
    // Git itself waits for some of them; it has its time.
    let scene = Scene::with_config("[worktrees]\ngit_timeout_secs = 2\n");
    for name in ["dot-git", "locked", "index"] {
        let worktree = scene.create(name);
        let place = match name {
            "dot-git" => Repo::of(&worktree).path.join(".git"),
            _ => scene.repo.path.join(".git/worktrees").join(format!("gg--{name}")).join(name),
        };
        drop(fs::remove_file(&place));
        assert!(Command::new("mkfifo").arg(&place).status().unwrap().success());
        let told = scene.cleanup(&worktree, &json!({}));
        let status = text(&told, "status");
        assert!(matches!(status.as_str(), "kept_dirty" | "cleanup_failed"), "{name}: {told}");
        assert!(is_there(&worktree));
        fs::remove_file(&place).unwrap();
    }
}

/// Git passes a folder by that it may not look into, and says so aside: what is in there is work all the same.
#[test]
fn a_folder_that_can_not_be_read_is_work() {
    // Root reads everything, so its git is started without that privilege.
    let (path, privilege) = (std::env::var("PATH").unwrap(), "-dac_override,-dac_read_search");
    let without = format!("PATH='{path}' exec setpriv --bounding-set={privilege} git \"$@\"");
    let scene = Scene::with_git("", &format!("*) [ \"$(id -u)\" != 0 ] || {without} ;;"));
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.write("a/closed/file", "work\n");
    let closed = work.path.join("a/closed");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!(told["status"], "kept_dirty", "{told}");
    let lost = list(told["lost"].clone());
    assert_eq!(lost[0]["kind"], "unreadable", "{told}");
    assert!(text(&lost[0], "detail").contains("a/closed"), "{told}");
    // A backup can not hold it either.
    assert_eq!(scene.force(&worktree)["status"], "kept_dirty");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(fs::read_to_string(closed.join("file")).unwrap(), "work\n");
}

/// Settings of the repository by which git trusts size and time: it looks all the same.
#[test]
fn a_change_that_keeps_size_and_time_is_seen() {
    let scene = Scene::new();
    for (setting, value) in [("core.trustctime", "false"), ("core.checkStat", "minimal")] {
        scene.repo.git(&["config", setting, value]);
    }
    let worktree = scene.create("one");
    let file = Repo::of(&worktree).path.join("README");
    let metadata = fs::metadata(&file).unwrap();
    let modified = metadata.modified().unwrap();
    // The second of the checkout is over, and the index was written again since.
    wait::until(SOON, "the next second", || {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        (now.as_secs().cast_signed() > metadata.ctime() + 1).then_some(())
    });
    let index = scene.repo.path.join(".git/worktrees/gg--one/index");
    let open = |path| fs::File::options().append(true).open(path).unwrap();
    open(&index).set_modified(modified + Duration::from_secs(2)).unwrap();
    fs::write(&file, "HELLO\n").unwrap();
    open(&file).set_modified(modified).unwrap();
    assert_eq!(scene.cleanup(&worktree, &json!({}))["status"], "kept_dirty");
}

/// A git that was killed has not said that there is no commit.
#[test]
fn a_git_that_is_killed_says_nothing() {
    let script = "*'--quiet HEAD' | *'--quiet refs/heads/gg/one') \
        if [ -e \"$HERE/kill\" ]; then kill -9 $$; fi ;;";
    let scene = Scene::with_git("", script);
    let worktree = scene.create("one");
    let work = Repo::of(&worktree);
    work.git(&["checkout", "--quiet", "--detach"]);
    work.write("d", "d\n");
    let commit = work.commit("on no branch");
    fs::write(scene.git.path().join("kill"), "").unwrap();
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!(told["status"], "cleanup_failed", "{told}");
    assert!(is_there(&worktree));
    fs::remove_file(scene.git.path().join("kill")).unwrap();
    let told = scene.cleanup(&worktree, &json!({}));
    assert_eq!(told["status"], "kept_unmerged", "{told}");
    assert_eq!(work.git(&["rev-parse", "HEAD"]), commit);
}

/// Two looks at once: the time of one is up, and the other goes on.
#[test]
fn a_look_that_takes_too_long_ends_no_other() {
    let script = "*--porcelain=v2*) case \"$GIT_WORK_TREE\" in \
        *gg--hangs) sleep 3; echo >\"$HERE/begun\"; sleep 1000 ;; \
        *gg--waits) echo >\"$HERE/waits\"; read -r _ <\"$HERE/go\" ;; esac ;;";
    let scene = Scene::with_git("[worktrees]\ngit_timeout_secs = 6\n", script);
    let (hangs, waits) = (scene.create("hangs"), scene.create("waits"));
    let go = scene.git.path().join("go");
    assert!(Command::new("mkfifo").arg(&go).status().unwrap().success());
    let look = |worktree: &serde_json::Value| {
        let (client, path) = (scene.stage.client.clone(), path(worktree, "/status"));
        thread::spawn("look", move || client.get(&path)).unwrap()
    };
    let is_there = |name: &str| scene.git.path().join(name).exists().then_some(());
    let hanging = look(&hangs);
    // The second one begins in the middle of the first one's time.
    wait::until(SOON, "the first look hangs", || is_there("begun"));
    let waiting = look(&waits);
    wait::until(SOON, "the second look waits", || is_there("waits"));
    check_told(&hanging.join(), 503, "capacity", "did not end in time");
    // Open for both, so that it waits for no reader: there is none if that look was ended.
    let mut go = fs::File::options().read(true).write(true).open(go).unwrap();
    go.write_all(b"go\n").unwrap();
    waiting.join().expect(200);
}
