//! A disk that is full in the moment in which something is to be taken back: it is taken back when there is room, by
//! the same server, and nobody has to ask for it.

use super::{ENOSPC, options};
use crate::spawn::scene::Nest;
use crate::stage::{SOON, check_error, check_told, each, text};
use crate::worktree::scene::{Scene, is_there};
use gooselake_harness::fault::{Fault, Number};
use gooselake_harness::temp::TempDir;
use gooselake_harness::{thread, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// Git holds on before it forgets a worktree, as long as there is a file `hold`.
const HOLD: &str = "*'worktree remove'*) touch \"$HERE/holds\"; \
                    while [ -e \"$HERE/hold\" ]; do sleep 0.02; done;;";

/// A team whose lead works in a repository, on a disk that may be full. The parts drop in this order.
struct Full {
    nest: Nest,
    fault: Fault,
    _folder: TempDir,
}

impl Full {
    fn new(cases: &str) -> Full {
        let (fault, folder) = (Fault::new(), TempDir::new("gg-broken"));
        let scene = Scene::with_options(options("", &fault, &folder), cases);
        fault.check_loaded();
        Full { nest: Nest::of(scene), fault, _folder: folder }
    }

    /// Where `HOLD` looks.
    fn here(&self) -> &Path {
        self.nest.scene.git.path()
    }

    /// New worktrees run a script that fails when it is told to.
    fn fail_in_the_middle(&self) {
        let here = self.here().display();
        self.nest.init_script(&format!(
            "touch '{here}/holds'; while [ ! -e '{here}/fail' ]; do sleep 0.02; done; exit 7"
        ));
    }

    /// The disk is full from the moment in which whatever holds on does so.
    fn fill_in_the_middle(&self) {
        let holds = self.here().join("holds");
        wait::until(SOON, "it holds on", || holds.exists().then_some(()));
        self.fault.set(Number::WriteErrno, ENOSPC);
    }

    fn make_room(&self) {
        self.fault.set(Number::WriteErrno, 0);
    }

    fn worktree(&self, name: &str) -> Value {
        let worktrees = self.nest.worktrees().into_iter();
        worktrees.rev().find(|worktree| worktree["worktree_name"] == name).unwrap()
    }
}

#[test]
fn a_worktree_that_could_not_be_taken_back_is_when_there_is_room() {
    let full = Full::new("");
    let scene = &full.nest.scene;
    full.fail_in_the_middle();
    for name in ["asked-for", "left"] {
        let (client, body) = (
            scene.stage.client.clone(),
            json!({"repo_root": scene.repo.path, "worktree_name": name}),
        );
        let making = thread::spawn("making", move || client.post("/v1/worktrees", &body)).unwrap();
        full.fill_in_the_middle();
        fs::write(full.here().join("fail"), "").unwrap();
        check_error(&making.join(), 400, "init_script_failed");
        let worktree = full.worktree(name);
        assert_eq!(worktree["status"], "creating");
        // The next one is in the middle again.
        fs::remove_file(full.here().join("fail")).unwrap();
        fs::remove_file(full.here().join("holds")).unwrap();
        full.make_room();
        if name == "asked-for" {
            // Whoever asks for it again need not wait for the next try.
            scene.create_with(name, &json!({"run_init_script": false}));
        }
        let gone = scene.event(&worktree, "worktree.cleaned_up", 0);
        assert_eq!(gone.payload["reason"], "init_script_failed");
        assert_eq!(scene.record(&worktree)["status"], "deleted");
    }
    assert!(!scene.repo.is_branch("gg/left"));
}

#[test]
fn a_removal_that_could_not_be_written_down_is_finished_when_there_is_room() {
    let full = Full::new(HOLD);
    let scene = &full.nest.scene;
    let worktree = scene.create("one");
    fs::write(full.here().join("hold"), "").unwrap();
    let path = format!("/v1/worktrees/{}/cleanup", text(&worktree, "id"));
    let client = scene.stage.client.clone();
    let removing = thread::spawn("removing", move || client.post(&path, &json!({}))).unwrap();
    full.fill_in_the_middle();
    fs::remove_file(full.here().join("hold")).unwrap();
    check_told(&removing.join(), 503, "capacity", "no room");
    assert_eq!(scene.record(&worktree)["status"], "removing");
    full.make_room();
    let gone = scene.event(&worktree, "worktree.cleaned_up", 0).payload;
    let is_gone = ["worktree_path_deleted", "branch_deleted"].map(|it| gone[it] == true);
    assert_eq!(is_gone, [true, true], "{gone}");
    assert_eq!(scene.record(&worktree)["status"], "deleted");
    assert!(!is_there(&worktree) && !scene.repo.is_branch("gg/one"));
}

#[test]
fn a_spawn_that_could_not_be_undone_is_when_there_is_room() {
    let full = Full::new("");
    full.fail_in_the_middle();
    let spawning = full.nest.spawning(json!({"worktree": {"name": "one"}}));
    full.fill_in_the_middle();
    fs::write(full.here().join("fail"), "").unwrap();
    check_error(&spawning.join().unwrap(), 400, "init_script_failed");
    assert_eq!(each(&full.nest.operations(), "stage"), ["planned"]);
    full.make_room();
    let operation = full.nest.operation_at("rolled_back");
    assert_eq!(operation["reason"], "session_create_failed");
    full.nest.scene.event(&full.worktree("one"), "worktree.cleaned_up", 0);
    assert_eq!(full.nest.members(), [full.nest.lead()]);
}

#[test]
fn a_member_whose_end_could_not_be_written_down_is_taken_away_when_there_is_room() {
    let full = Full::new(HOLD);
    let nest = &full.nest;
    let spawned = nest.spawn(json!({"worktree": {"name": "one"}}));
    nest.onboarded(&spawned);
    fs::write(full.here().join("hold"), "").unwrap();
    let member = text(&spawned["spawned_session"], "id");
    let (client, path) =
        (nest.stage().client.clone(), nest.crew.path(&format!("members/{member}")));
    let removing = thread::spawn("removing", move || client.delete(&path)).unwrap();
    full.fill_in_the_middle();
    fs::remove_file(full.here().join("hold")).unwrap();
    check_told(&removing.join(), 503, "capacity", "no room");
    assert_eq!(each(&nest.operations(), "stage"), ["completed", "member_left"]);
    full.make_room();
    wait::until(SOON, "the operation is over", || {
        (each(&nest.operations(), "stage") == ["completed", "completed"]).then_some(())
    });
    nest.scene.event(&full.worktree("one"), "worktree.cleaned_up", 0);
    assert_eq!(nest.stage().record(&member)["status"], "closed");
}
