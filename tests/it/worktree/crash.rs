//! Kill -9, and what happened to the disk while no server looked: the next start finds record and disk in agreement, or
//! makes them agree, and tells it.

use super::scene::{Repo, Scene, is_there};
use crate::command::run_on;
use crate::stage::{each, list, text};
use gooselake_harness::{proc, thread, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);

#[test]
fn a_creation_that_was_cut_off_is_taken_back_with_its_script() {
    let mut scene = Scene::new();
    let pid_file = scene.stage.server.folder().join("pid");
    let script = format!(
        "#!/bin/sh\necho x > made\nsetsid sh -c 'echo $$ > {}; sleep 1000; :'\n",
        pid_file.display()
    );
    scene.repo.write(".agents/gg/worktree-init.sh", &script);
    let path = scene.repo.path.join(".agents/gg/worktree-init.sh");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    scene.repo.commit("script");
    let client = scene.stage.client.clone();
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "one"}).to_string();
    let hanging = thread::spawn("hanging", move || {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
        client.try_request("POST", "/v1/worktrees", &headers, body.as_bytes())
    })
    .unwrap();
    let pid: u32 = wait::until(SOON, "the script runs", || {
        fs::read_to_string(&pid_file).ok()?.trim().parse().ok()
    });
    let worktree = list(scene.stage.get("/v1/worktrees")).remove(0);
    scene.stage.server.kill9();
    // What a git leaves that is killed while it changes the branch.
    let lock = scene.repo.path.join(".git/refs/heads/gg/one.lock");
    fs::write(&lock, "").unwrap();
    scene.stage.restart();
    assert!(hanging.join().is_err());
    let gone = scene.event(&worktree, "worktree.cleaned_up", 0);
    assert!(!lock.exists());
    assert_eq!(gone.payload["reason"], "startup_create_unfinished");
    proc::wait_gone(&[pid], SOON).unwrap();
    assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"));
    let backup = text(&gone.payload, "backup_ref");
    assert_eq!(scene.repo.show(&backup, "made").as_deref(), Some("x\n"));
    // The key is good for another try, which makes another worktree.
    scene.repo.write(".agents/gg/worktree-init.sh", "#!/bin/sh\ntrue\n");
    scene.repo.commit("mended");
    let body = json!({"repo_root": scene.repo.path, "worktree_name": "one"});
    let key = [("Idempotency-Key", "k")];
    let again = scene.stage.post_with("/v1/worktrees", &body, &key).expect(200).json();
    assert_ne!(again["worktree"]["id"], worktree["id"]);
}

/// Whoever asks again for what the last server did not finish waits until it is taken back, and is not told of it.
#[test]
fn a_creation_that_was_cut_off_can_be_asked_for_again_at_once() {
    let made = asked_for_again(|scene| {
        let body = json!({"repo_root": scene.repo.path, "worktree_name": "one"});
        ("/v1/worktrees", body)
    });
    assert_eq!(
        (&made["created"], &made["worktree"]["status"]),
        (&json!(true), &json!("ready")),
        "{made}"
    );
}

#[test]
fn a_session_whose_worktree_was_cut_off_can_be_asked_for_again_at_once() {
    let made = asked_for_again(|scene| {
        let worktree = json!({"mode": "create", "name": "one", "repo_root": scene.repo.path});
        ("/v1/sessions", json!({"provider": "demo", "worktree": worktree}))
    });
    assert_eq!(made["status"], "ready", "{made}");
}

/// The server is killed while the init script runs; the same is asked of the next one before that has taken it back.
/// Gives the answer, which is about a second worktree.
fn asked_for_again(request: impl Fn(&Scene) -> (&'static str, Value)) -> Value {
    // A git that hangs when it is to take the worktree's record away, while there is a file `hold`.
    let mut scene = Scene::with_git(
        "",
        "*'worktree remove'*) touch \"$HERE/holds\"; \
         while [ -e \"$HERE/hold\" ]; do sleep 0.02; done;;",
    );
    let started = scene.stage.server.folder().join("started");
    let script = format!("#!/bin/sh\ntouch {}\nsleep 1000\n", started.display());
    scene.repo.write(".agents/gg/worktree-init.sh", &script);
    let path = scene.repo.path.join(".agents/gg/worktree-init.sh");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    scene.repo.commit("script");
    let (route, body) = request(&scene);
    let (client, first) = (scene.stage.client.clone(), body.to_string());
    let cut = thread::spawn("cut", move || {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
        client.try_request("POST", route, &headers, first.as_bytes())
    })
    .unwrap();
    wait::until(SOON, "the script runs", || started.exists().then_some(()));
    scene.repo.write(".agents/gg/worktree-init.sh", "#!/bin/sh\ntrue\n");
    scene.repo.commit("mended");
    fs::write(scene.git.path().join("hold"), "").unwrap();
    scene.crash();
    assert!(cut.join().is_err());
    let holds = scene.git.path().join("holds");
    wait::until(SOON, "the repair is under way", || holds.exists().then_some(()));
    let client = scene.stage.client.clone();
    let (answered, answer) = mpsc::channel();
    let again = thread::spawn("again", move || {
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
        let body = body.to_string();
        answered.send(client.request("POST", route, &headers, body.as_bytes())).unwrap();
    })
    .unwrap();
    let early = answer.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err(), "the repair is not over, but: {early:?}");
    fs::remove_file(scene.git.path().join("hold")).unwrap();
    let made = answer.recv_timeout(SOON).unwrap().expect(200).json();
    again.join();
    let listed = list(scene.stage.get("/v1/worktrees"));
    assert_eq!(each(&listed, "status"), ["deleted", "ready"], "{listed:?}");
    let told = made.get("worktree_id").unwrap_or(&made["worktree"]["id"]);
    assert_eq!(*told, listed[1]["id"], "{made}");
    made
}

/// A server that is told to stop between git's record and the branch leaves the branch to the next one.
#[test]
fn a_removal_that_a_stop_cuts_off_is_finished_by_the_next_start() {
    // Each call of git of the last part hangs in its turn, once, before its work or behind it.
    let (at_once, behind) = ("", "PATH=\"${PATH#*:}\" git \"$@\"; ");
    for (call, work) in [
        ("'worktree remove'", at_once),
        ("'worktree remove'", behind),
        ("'worktree list'", at_once),
        ("'update-ref --no-deref -d'", at_once),
    ] {
        let hang = format!(
            "*{call}*) [ -e \"$HERE/done\" ] || \
             {{ {work}touch \"$HERE/done\"; exec sleep 1000; }};;"
        );
        let mut scene = Scene::with_git("", &hang);
        let worktree = scene.create_with("one", &json!({"run_init_script": false}));
        let done = scene.git.path().join("done");
        let client = scene.stage.client.clone();
        let path = format!("/v1/worktrees/{}/cleanup", text(&worktree, "id"));
        let cut = thread::spawn("cut", move || {
            drop(client.try_request("POST", &path, &[], b""));
        })
        .unwrap();
        wait::until(SOON, "git hangs", || done.exists().then_some(()));
        assert_eq!(scene.stage.server.terminate(), Some(0));
        cut.join();
        scene.stage.restart();
        let gone = scene.event(&worktree, "worktree.cleaned_up", 0);
        assert_eq!(gone.payload["branch_deleted"], true, "{work}{call}: {}", gone.json);
        assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"), "{work}{call}");
    }
}

/// What changed on disk, and what the next start tells of it.
type Case = (&'static str, fn(&Scene, &Value), &'static str, Option<&'static str>, &'static str);

#[test]
fn the_start_tells_what_changed_outside() {
    let cases: &[Case] = &[
        (
            "folder",
            |_, worktree| fs::remove_dir_all(text(worktree, "worktree_cwd")).unwrap(),
            "missing",
            Some("folder_gone"),
            "none",
        ),
        (
            "branch",
            |scene, _| {
                scene.repo.git(&["update-ref", "-d", "refs/heads/gg/branch"]);
            },
            "ready",
            None,
            "branch_restored",
        ),
        (
            "elsewhere",
            |scene, worktree| {
                Repo::of(worktree).git(&["checkout", "--quiet", "--detach"]);
                scene.repo.git(&["branch", "-D", "gg/elsewhere"]);
            },
            "ready",
            Some("branch_gone"),
            "none",
        ),
        (
            "lock",
            |_, worktree| {
                Repo::of(worktree).git(&["worktree", "lock", "."]);
            },
            "ready",
            Some("locked"),
            "none",
        ),
        (
            "record",
            |scene, worktree| {
                let folder = text(worktree, "worktree_cwd");
                fs::rename(&folder, folder.clone() + ".away").unwrap();
                scene.repo.git(&["worktree", "prune"]);
                fs::rename(folder.clone() + ".away", folder).unwrap();
            },
            "ready",
            Some("git_record_gone"),
            "none",
        ),
        (
            "moved",
            |scene, worktree| {
                let record = scene.repo.path.join(".git/worktrees/gg--moved/gitdir");
                assert!(record.exists(), "{worktree}");
                fs::write(record, "/nowhere/.git\n").unwrap();
            },
            "ready",
            None,
            "git_record_restored",
        ),
    ];
    let mut scene = Scene::new();
    let mut made = Vec::new();
    for (name, change, ..) in cases {
        let worktree = scene.create(name);
        let head = Repo::of(&worktree).commit(name);
        change(&scene, &worktree);
        made.push((worktree, head));
    }
    scene.crash();
    for ((worktree, head), (name, _, status, problem, repair)) in made.iter().zip(cases) {
        let told = scene.event(worktree, "worktree.repaired", 0).payload;
        assert_eq!(
            (&told["problem"], &told["repair"]),
            (&json!(problem), &json!(repair)),
            "{name}"
        );
        let record = scene.record(worktree);
        assert_eq!(
            (&record["status"], &record["problem"]),
            (&json!(status), &json!(problem)),
            "{name}"
        );
        if *name != "elsewhere" {
            assert_eq!(scene.repo.git(&["rev-parse", &format!("gg/{name}")]), *head, "{name}");
        }
    }
    // What was told once is not told again.
    scene.crash();
    let told = |worktree: &Value| {
        scene.kinds(worktree).iter().filter(|kind| *kind == "worktree.repaired").count()
    };
    wait_for_repair(&scene);
    assert!(made.iter().all(|(worktree, _)| told(worktree) == 1));
    // A worktree without its folder still has its branch: kept until somebody forces it, and then backed up.
    let (missing, head) = &made[0];
    assert_eq!(scene.cleanup(missing, &json!({}))["status"], "kept_unmerged");
    assert_eq!(scene.record(missing)["status"], "missing");
    let told = scene.force(missing);
    assert_eq!(
        (&told["status"], &told["branch_deleted"]),
        (&json!("deleted"), &json!(true)),
        "{told}"
    );
    assert!(scene.repo.holds(head));
    // One that git has no record of can not be looked into, so it is never taken away.
    let (unknown, _) = &made[4];
    assert_eq!(scene.force(unknown)["status"], "kept_dirty");
    assert!(is_there(unknown));
}

/// A removal is cut off before it has looked for the last time, and the database that knows of it is lost: the folder
/// in the trash is nobody's, and what it holds is nowhere else.
#[test]
fn what_a_removal_has_not_decided_on_outlives_the_database() {
    let mut scene = Scene::new();
    let data_dir = scene.stage.server.data_dir().to_owned();
    let older = scene.create("older");
    let file = scene.stage.server.folder().join("kept.sqlite3");
    run_on(&data_dir, &["backup", file.to_str().unwrap()]).expect(0);
    let (worktree, gone) = (scene.create("one"), scene.create("gone"));
    Repo::of(&worktree).write("fresh", "work\n");
    scene.stage.server.kill9();
    let trash = data_dir.join("worktrees/.trash");
    fs::create_dir_all(&trash).unwrap();
    let [undecided, decided] = [&worktree, &gone].map(|worktree| {
        let to = trash.join(text(worktree, "id"));
        fs::rename(text(worktree, "worktree_cwd"), &to).unwrap();
        to
    });
    // Of this one git's record is dropped already, and another worktree has its name.
    scene.repo.git(&["worktree", "remove", &text(&gone, "worktree_cwd")]);
    scene.repo.git(&["worktree", "add", "--quiet", &text(&gone, "worktree_cwd"), "gg/gone"]);
    fs::remove_dir_all(text(&older, "worktree_cwd")).unwrap();
    run_on(&data_dir, &["restore", file.to_str().unwrap(), "--force"]).expect(0);
    scene.stage.restart();
    // The trash is swept before worktrees are looked at.
    wait::until(SOON, "the older one is looked at", || {
        (scene.record(&older)["status"] == "missing").then_some(())
    });
    assert_eq!(fs::read_to_string(undecided.join("fresh")).unwrap(), "work\n");
    assert!(!decided.exists());
}

/// The thread that repairs works in order, so a later worktree's repair says that all before it are done.
fn wait_for_repair(scene: &Scene) {
    wait::until(SOON, "the last worktree is looked at", || {
        let last = list(scene.stage.get("/v1/worktrees?status=ready")).pop()?;
        // Its lock is free when it has been looked at; the status of the record is then what it was.
        (last["status"] == "ready").then_some(())
    });
    let marker = scene.create("marker");
    assert_eq!(scene.cleanup(&marker, &json!({}))["status"], "deleted");
}

#[test]
fn a_session_that_closed_before_the_crash_is_cleaned_up_after() {
    let mut scene = Scene::new();
    let body = json!({"worktree": {"name": "one", "repo_root": scene.repo.path}});
    let session = text(&scene.stage.create(&body), "id");
    let worktree = list(scene.stage.get("/v1/worktrees")).remove(0);
    // The close is committed, and the server is killed before anything else.
    let stream_path =
        format!("/v1/sessions/{session}/events/stream?until=session.closed&kinds=session.closed");
    let mut stream = scene.stage.client.stream(&stream_path, &[]);
    let client = scene.stage.client.clone();
    let closing = thread::spawn("closing", move || {
        drop(client.try_request("POST", &format!("/v1/sessions/{session}/close"), &[], b""));
    })
    .unwrap();
    while stream.expect(SOON).event != "session.closed" {}
    scene.stage.server.kill9();
    closing.join();
    scene.stage.restart();
    scene.event(&worktree, "worktree.cleaned_up", 0);
    assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"));
    assert_eq!(each(&list(scene.stage.get("/v1/worktrees")), "status"), ["deleted"]);
}
