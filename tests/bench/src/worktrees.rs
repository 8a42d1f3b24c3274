//! `worktrees`: `/health` while an init script hangs and while twenty worktrees are made at once in one
//! repository, and how long those take. The repository is new and small, so what is measured is ours
//! and git's, not the checkout.

use crate::raw::Peer;
use crate::report::{Report, Target};
use crate::rig::Rig;
use crate::sample::Samples;
use gooselake_harness::thread;
use gooselake_harness::wait::pause;
use serde_json::json;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

const CREATES: usize = 20;
const ROUNDS: usize = 10;
const HANG: Duration = Duration::from_secs(2);
/// Between two looks at `/health`.
const PAUSE: Duration = Duration::from_millis(2);
const HEALTH_MS: f64 = 50.0;

pub(crate) fn run(report: &mut Report) {
    let rig = Rig::start();
    hang(report, &rig);
    many(report, &rig);
    one(report, &rig);
}

/// A repository with one commit.
fn repository(rig: &Rig, name: &str, script: Option<&str>) -> PathBuf {
    let path = rig.server.folder().join(name);
    fs::create_dir_all(&path).expect("the temporary folder takes folders");
    if let Some(script) = script {
        let file = path.join(".agents/gg/worktree-init.sh");
        fs::create_dir_all(file.parent().expect("it has one")).expect("a folder");
        fs::write(&file, script).expect("a file");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("our own file");
    }
    git(&path, &["init", "--quiet"]);
    git(&path, &["add", "--all"]);
    git(&path, &["commit", "--quiet", "--allow-empty", "-m", "first"]);
    path
}

fn git(path: &Path, args: &[&str]) {
    let name = ["-c", "user.name=bench", "-c", "user.email=bench@example.org"];
    let status = Command::new("git").args(name).args(args).current_dir(path).status();
    assert!(status.expect("git is installed").success(), "git {args:?}");
}

/// Looks at `/health` again and again until told to end.
fn watch(peer: Peer, is_over: Arc<AtomicBool>) -> thread::Thread<Samples> {
    let body = move || {
        let request = peer.get("/health");
        let mut connection = peer.connect();
        let mut samples = Samples::default();
        while !is_over.load(Ordering::Relaxed) {
            let begun = Instant::now();
            connection.send(&request);
            assert_eq!(connection.answer().0, 200);
            samples.add(begun.elapsed());
            pause(PAUSE);
        }
        samples
    };
    thread::spawn("watch", body).expect("a thread")
}

fn tell_health(report: &mut Report, mut samples: Samples) {
    report.figure("… /health meanwhile, p50", samples.percentile_ms(50), "ms", Target::None);
    let longest = samples.percentile_ms(100);
    report.figure("… the longest", longest, "ms", Target::AtMost(HEALTH_MS));
}

fn hang(report: &mut Report, rig: &Rig) {
    let repository = repository(rig, "hangs", Some("#!/bin/sh\nsleep 2\n"));
    let (peer, is_over) = (rig.peer(), Arc::new(AtomicBool::new(false)));
    let watching = watch(rig.peer(), Arc::clone(&is_over));
    let body = json!({"repo_root": repository, "worktree_name": "one"}).to_string();
    let begun = Instant::now();
    let mut connection = peer.connect();
    connection.send(&peer.post("/v1/worktrees", &body));
    assert_eq!(connection.answer().0, 200);
    let beyond = begun.elapsed().saturating_sub(HANG);
    is_over.store(true, Ordering::Relaxed);
    let beyond = beyond.as_secs_f64() * 1000.0;
    report.figure("an init script of 2 s, beyond those", beyond, "ms", Target::None);
    tell_health(report, watching.join());
}

fn many(report: &mut Report, rig: &Rig) {
    let repository = repository(rig, "many", None);
    let is_over = Arc::new(AtomicBool::new(false));
    let watching = watch(rig.peer(), Arc::clone(&is_over));
    let begun = Instant::now();
    let threads: Vec<_> = (0..CREATES)
        .map(|number| {
            let peer = rig.peer();
            let name = format!("w{number}");
            let body = json!({"repo_root": repository, "worktree_name": name}).to_string();
            let create = move || {
                let mut connection = peer.connect();
                connection.send(&peer.post("/v1/worktrees", &body));
                assert_eq!(connection.answer().0, 200);
            };
            thread::spawn("creator", create).expect("a thread")
        })
        .collect();
    threads.into_iter().for_each(thread::Thread::join);
    let elapsed = begun.elapsed();
    is_over.store(true, Ordering::Relaxed);
    let label = format!("{CREATES} worktrees at once in one repository");
    report.figure(&label, elapsed.as_secs_f64() * 1000.0, "ms", Target::None);
    tell_health(report, watching.join());
}

/// One after the other: made, and taken away again.
fn one(report: &mut Report, rig: &Rig) {
    let repository = repository(rig, "one", None);
    let (mut creates, mut cleanups) = (Samples::default(), Samples::default());
    for number in 0..ROUNDS {
        let body = json!({"repo_root": repository, "worktree_name": format!("w{number}")});
        let begun = Instant::now();
        let made = rig.client.post("/v1/worktrees", &body).expect(200).json();
        creates.add(begun.elapsed());
        let id = made["worktree"]["id"].as_str().expect("a worktree has an id");
        let begun = Instant::now();
        let path = format!("/v1/worktrees/{id}/cleanup");
        let told = rig.client.post(&path, &json!({})).expect(200).json();
        cleanups.add(begun.elapsed());
        assert_eq!(told["status"], "deleted", "{told}");
    }
    report.figure("one worktree made, p50", creates.percentile_ms(50), "ms", Target::None);
    report.figure("… cleaned up, p50", cleanups.percentile_ms(50), "ms", Target::None);
}
