//! Whatever a child leaves behind dies with it.

use std::time::{Duration, Instant};

use gg_keeper::exit::StoppedBy;
use gg_keeper::protocol::Request;

use crate::kept::{Kept, shell};

#[test]
fn a_tree_that_ignores_term_is_killed_after_its_grace() {
    let script = "trap '' TERM; (trap '' TERM; while :; do sleep 1000; done) & \
                  echo up; while :; do sleep 1000; done";
    let mut kept = Kept::start(shell(script));
    kept.wait_for("up\n");
    let started = Instant::now();
    kept.send(&Request::Stop { grace_ms: 300 });
    let exit = kept.exit();
    assert_eq!((exit.signal, exit.stopped_by), (Some(9), StoppedBy::Stop));
    assert!(started.elapsed() >= Duration::from_millis(300), "the grace is given");
}

#[test]
fn a_kill_in_the_grace_of_a_stop_does_not_wait() {
    let mut kept = Kept::start(shell("trap 'echo term' TERM; echo up; while :; do sleep 9; done"));
    kept.wait_for("up\n");
    kept.send(&Request::Stop { grace_ms: 600_000 });
    kept.send(&Request::Kill);
    assert_eq!(kept.exit().stopped_by, StoppedBy::Kill);
}

/// Says that it is up as a program of its own. The copy of a shell that is forked for a command has
/// the shell's handler of TERM until it begins that command, and one that comes meanwhile is lost.
const UP_AND_SLEEP: &str = "sh -c 'echo up; exec sleep 1000'";

/// Longer than any test waits: whatever does not hear of TERM fails it.
const ENDLESS_MS: u64 = 600_000;

#[test]
fn what_a_child_starts_when_it_is_told_to_end_is_told_too() {
    // By a shell of its own: the copy of one that has a handler would hear TERM with that handler.
    for started in ["sleep 1000 &", "setsid sleep 1000 &", "(sleep 1000 & sleep 1000; wait) &"] {
        let script = format!("trap \"sh -c '{started}'; exit 7\" TERM; {UP_AND_SLEEP} & wait");
        let mut kept = Kept::start(shell(&script));
        kept.wait_for("up\n");
        kept.send(&Request::Stop { grace_ms: ENDLESS_MS });
        let exit = kept.exit();
        assert_eq!((exit.code, exit.stopped_by), (Some(7), StoppedBy::Stop));
    }
}

#[test]
fn what_a_child_cleans_up_with_is_not_told_when_others_end() {
    let script = "(setsid sleep 1000 &); trap \"sh -c 'sleep 0.3; echo clean'; exit 7\" TERM; \
                  while :; do UP_AND_SLEEP & wait; done";
    let mut kept = Kept::start(shell(&script.replace("UP_AND_SLEEP", UP_AND_SLEEP)));
    kept.wait_for("up\n");
    kept.send(&Request::Stop { grace_ms: ENDLESS_MS });
    assert_eq!(kept.exit().code, Some(7));
    assert_eq!(kept.stdout(), "up\nclean\n");
}

#[test]
fn what_is_forked_while_all_are_told_to_end_does_not_live_through_the_grace() {
    let fork = "echo up; for i in 1 2 3 4 5 6 7 8 9; do for j in 1 2 3 4 5 6 7 8 9; do \
                sleep 1000 & done; done; wait";
    for script in [fork.to_owned(), format!("setsid sh -c '{fork}' & wait")] {
        for _ in 0..5 {
            let mut kept = Kept::start(shell(&script));
            kept.wait_for("up\n");
            kept.send(&Request::Stop { grace_ms: ENDLESS_MS });
            assert_eq!(kept.exit().signal, Some(15));
        }
    }
}

#[test]
fn a_daemon_that_forked_twice_into_a_session_of_its_own_dies_too() {
    let script = "setsid sh -c 'setsid sleep 1000 & echo daemon $!' & wait; echo up; cat";
    let mut kept = Kept::start(shell(script));
    let hello = kept.hello();
    kept.wait_for("up\n");
    let child = hello.child_pid.cast_signed();
    let keeper = hello.keeper_pid.cast_signed();
    let daemon = kept.living().into_iter().find(|process| process.parent == keeper);
    let daemons: Vec<_> =
        kept.living().into_iter().filter(|process| process.pid != child).collect();
    assert!(daemon.is_some() && !daemons.is_empty(), "the daemon lives: {daemons:?}");
    kept.send(&Request::Stop { grace_ms: 10_000 });
    kept.exit();
}

#[test]
fn what_a_child_left_in_the_background_dies_when_the_child_ends() {
    let script = "sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 & \
                  (trap '' TERM; exec sleep 1000) & exit 4";
    let mut spec = shell(script);
    spec.grace_ms = 200;
    let mut kept = Kept::start(spec);
    let exit = kept.exit();
    assert_eq!((exit.code, exit.stopped_by), (Some(4), StoppedBy::Child));
}

#[test]
fn a_tree_that_forks_while_it_is_killed_is_killed_to_the_last() {
    // Each process of the family replaces itself by a new one as fast as it can, and none hears
    // TERM.
    let script = "trap '' TERM; f() { while :; do (sleep 0.001 & exec sleep 0.002) & \
                  wait; done; }; f & f & f & setsid sh -c 'trap \"\" TERM; while :; do \
                  sleep 0.001 & wait; done' & echo up; f";
    for _ in 0..5 {
        let mut kept = Kept::start(shell(script));
        kept.wait_for("up\n");
        kept.send(&Request::Kill);
        assert_eq!(kept.exit().signal, Some(9));
    }
}

#[test]
fn orphans_that_end_while_the_child_lives_leave_no_zombies() {
    let script = "for i in 1 2 3 4 5 6 7 8; do (sh -c 'exit 0' &) ; done; echo up; read l; \
                  echo; echo asked; cat";
    let mut kept = Kept::start(shell(script));
    let hello = kept.hello();
    kept.wait_for("up\n");
    kept.send(&Request::Stdin { offset: 0, bytes: b"\n" });
    kept.wait_for("asked\n");
    // The keeper reaps before it reads, so an orphan that ended before the last line is gone by
    // now; one that is slower is waited for.
    let keeper = hello.keeper_pid.cast_signed();
    for pid in children(keeper) {
        if pid != hello.child_pid.cast_signed() {
            crate::kept::wait_process(pid);
        }
    }
    kept.send(&Request::Stdin { offset: 1, bytes: b"round\n" });
    kept.wait_for("round\n");
    kept.send(&Request::Stdin { offset: 7, bytes: b"again\n" });
    kept.wait_for("again\n");
    assert_eq!(children(keeper), [hello.child_pid.cast_signed()]);
    kept.send(&Request::CloseStdin);
    kept.exit();
}

/// The direct children of a process, zombies too.
fn children(pid: i32) -> Vec<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = std::fs::read_to_string(path).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}
