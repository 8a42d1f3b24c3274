//! How a child starts and how it ends.

use std::fs;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use gg_keeper::exit::StoppedBy;
use gg_keeper::protocol::{Reply, Request};
use gg_keeper::tree::Process;
use rustix::process::{
    Pid, Resource, Rlimit, Signal, getpgid, getrlimit, getsid, kill_process, prlimit,
};

use crate::kept::{KEEPER, Kept, shell};

fn keeper_pid(kept: &Kept) -> Pid {
    Pid::from_child(&kept.keeper)
}

#[test]
fn a_child_that_ends_is_told_with_all_its_output_and_its_code() {
    let mut kept = Kept::start(shell("echo out; echo err >&2; exit 3"));
    kept.hello();
    let exit = kept.exit();
    assert_eq!((exit.code, exit.signal), (Some(3), None));
    assert_eq!((exit.stopped_by, exit.error), (StoppedBy::Child, None));
    assert_eq!((exit.stdout_end, exit.stderr_end), (4, 4));
    assert_eq!((kept.stdout().as_str(), kept.stderr().as_str()), ("out\n", "err\n"));
    assert!(!kept.file_exists("sock"));
}

#[test]
fn a_child_that_a_signal_ends_is_told_with_the_signal() {
    // HUP also shows that the keeper's own way with signals is not the child's.
    let mut kept = Kept::start(shell("kill -HUP $$; echo no"));
    kept.hello();
    let exit = kept.exit();
    assert_eq!((exit.code, exit.signal), (None, Some(1)));
    assert_eq!(exit.stopped_by, StoppedBy::Child);
    assert_eq!(kept.stdout(), "");
}

#[test]
fn a_program_or_a_folder_that_is_not_there_is_told_as_the_end() {
    for (argv, cwd, expected) in [
        (vec!["/no/such/program"], "/", "/no/such/program: No such file"),
        (vec!["no-such-name"], "/", "no-such-name: No such file"),
        (vec!["/bin/true"], "/no/such/folder", "/no/such/folder is not a folder"),
        (vec!["/bin/true"], "relative", "relative is not a folder"),
        (vec![], "/", "the command is empty"),
    ] {
        let mut spec = shell("");
        spec.argv = argv.iter().map(Into::into).collect();
        spec.cwd = cwd.into();
        let mut kept = Kept::start(spec);
        let exit = kept.exit();
        assert_eq!(exit.stopped_by, StoppedBy::SpawnFailed);
        let error = exit.error.unwrap();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn the_environment_is_the_given_one_and_the_mark() {
    let mut spec = shell("");
    spec.argv = vec!["/usr/bin/env".into()];
    spec.env = vec![("A".into(), "1 2".into()), ("B".into(), "".into())];
    let mark = format!("GOOSELAKE_CHILD={}", spec.child_id);
    let mut kept = Kept::start(spec);
    kept.exit();
    let stdout = kept.stdout();
    let mut lines: Vec<&str> = stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=1 2", "B=", &mark]);
}

#[test]
fn the_child_leads_a_group_in_the_keepers_session_and_works_in_its_folder() {
    let mut spec = shell("pwd; umask; read line");
    spec.cwd = std::env::temp_dir().into();
    let mut kept = Kept::start(spec);
    let hello = kept.hello();
    kept.wait_for("\n0077\n");
    assert_eq!(kept.stdout().lines().next(), std::env::temp_dir().to_str());
    let child = Pid::from_raw(hello.child_pid.cast_signed()).unwrap();
    assert_eq!(getpgid(Some(child)).unwrap(), child);
    // So it is not ours: that keeper is a process of its own. (Ours can not be asked for: in a container its leader
    // may live outside, and has no number here.)
    assert_eq!(getsid(Some(child)).unwrap(), keeper_pid(&kept));
    kept.send(&Request::CloseStdin);
    kept.exit();
}

#[test]
fn a_child_without_a_pipe_reads_an_empty_stdin() {
    let mut spec = shell("cat; readlink /proc/self/fd/0");
    spec.stdin_pipe = false;
    let mut kept = Kept::start(spec);
    assert_eq!(kept.exit().code, Some(0));
    assert_eq!(kept.stdout(), "/dev/null\n");
}

#[test]
fn a_stop_lets_the_child_finish_within_its_grace() {
    let mut kept = Kept::start(shell("trap 'echo bye; exit 7' TERM; echo up; sleep 1000 & wait"));
    kept.wait_for("up\n");
    kept.send(&Request::Stop { grace_ms: 20_000 });
    let exit = kept.exit();
    assert_eq!((exit.code, exit.stopped_by), (Some(7), StoppedBy::Stop));
    assert_eq!(kept.stdout(), "up\nbye\n");
}

#[test]
fn a_stop_closes_stdin_first_so_that_a_polite_child_needs_no_signal() {
    let mut kept = Kept::start(shell("trap '' TERM; echo up; cat; echo eof; exit 5"));
    kept.wait_for("up\n");
    kept.send(&Request::Stop { grace_ms: 20_000 });
    assert_eq!(kept.exit().code, Some(5));
    assert_eq!(kept.stdout(), "up\neof\n");
}

#[test]
fn a_signal_goes_to_the_childs_group() {
    let mut kept = Kept::start(shell("trap 'echo usr1' USR1; echo up; while :; do read l; done"));
    kept.wait_for("up\n");
    kept.send(&Request::Signal { signo: 10 });
    kept.wait_for("usr1\n");
    kept.send(&Request::Signal { signo: 9 });
    let exit = kept.exit();
    assert_eq!((exit.signal, exit.stopped_by), (Some(9), StoppedBy::Child));
}

#[test]
fn a_keeper_that_is_told_to_end_ends_its_child_with_the_grace_of_the_spec() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut kept = Kept::start(shell("trap 'exit 7' TERM; echo up; sleep 1000 & wait"));
        kept.wait_for("up\n");
        kill_process(keeper_pid(&kept), signal).unwrap();
        let exit = kept.exit();
        assert_eq!((exit.code, exit.stopped_by), (Some(7), StoppedBy::KeeperSignal));
    }
}

#[test]
fn a_keeper_that_is_told_twice_does_not_wait_for_the_grace() {
    let mut spec = shell("trap 'echo term' TERM; echo up; while :; do sleep 1000 & wait; done");
    spec.grace_ms = 600_000;
    let mut kept = Kept::start(spec);
    kept.wait_for("up\n");
    kill_process(keeper_pid(&kept), Signal::TERM).unwrap();
    kept.wait_for("term\n");
    kill_process(keeper_pid(&kept), Signal::TERM).unwrap();
    let exit = kept.exit();
    assert_eq!((exit.signal, exit.stopped_by), (Some(9), StoppedBy::KeeperSignal));
}

#[test]
fn a_keeper_lives_through_a_hangup() {
    let mut kept = Kept::start(shell("echo up; cat"));
    kept.wait_for("up\n");
    kill_process(keeper_pid(&kept), Signal::HUP).unwrap();
    kept.send(&Request::Stdin { offset: 0, bytes: b"still here\n" });
    kept.wait_for("still here\n");
    kept.send(&Request::CloseStdin);
    assert_eq!(kept.exit().code, Some(0));
}

#[test]
fn a_child_whose_server_is_gone_longer_than_the_lease_is_stopped() {
    let mut spec = shell("trap 'echo stopped; exit 0' TERM; echo up; sleep 1000 & wait");
    spec.lease_ms = 200;
    let mut kept = Kept::start(spec);
    kept.wait_for("up\n");
    // A server that comes back in time stops the clock.
    kept.hang_up();
    kept.connect([3, 0]);
    let started = Instant::now();
    kept.hang_up();
    kept.wait_keeper();
    assert!(started.elapsed() >= Duration::from_millis(200));
    let exit = gg_keeper::exit::Exit::read(&kept.dir).unwrap().unwrap();
    assert_eq!((exit.code, exit.stopped_by), (Some(0), StoppedBy::Lease));
    assert_eq!(exit.stdout_end, 11);
    assert_eq!(kept.living(), []);
}

#[test]
fn a_child_whose_folder_was_removed_ends_with_its_server() {
    // No server can come back to it: there is no socket any more that one could find.
    let mut kept = Kept::start(shell("trap 'exit 0' TERM; echo up; sleep 1000 & wait"));
    kept.wait_for("up\n");
    std::fs::remove_dir_all(&kept.dir).unwrap();
    assert!(kept.keeper.try_wait().unwrap().is_none(), "while its server is there, it lives");
    kept.hang_up();
    kept.wait_keeper();
    assert_eq!(kept.living(), []);
}

#[test]
fn a_keeper_whose_folder_was_removed_does_not_wait_for_a_disk() {
    let mut kept = Kept::start(shell("echo up; read line; yes | head -c 3000000; exit 3"));
    kept.wait_for("up\n");
    std::fs::remove_dir_all(&kept.dir).unwrap();
    // A full disk would be waited for, longer than any read of this test waits.
    kept.send(&Request::Stdin { offset: 0, bytes: b"go\n" });
    let exit = loop {
        match kept.read() {
            Some(Reply::Exit(exit)) => break exit,
            Some(_) => {}
            None => panic!("the connection ended before EXIT"),
        }
    };
    kept.wait_keeper();
    // Nothing that it writes can be kept, and nobody could ever read it.
    assert_eq!(exit.stopped_by, StoppedBy::Lease);
    assert_eq!(exit.error.as_deref(), Some("the folder of this child was removed"));
    assert_eq!(kept.living(), []);
}

#[test]
fn a_child_without_a_lease_outlives_its_server() {
    let mut kept = Kept::start(shell("read line; echo got $line; cat >/dev/null"));
    let hello = kept.hello();
    kept.hang_up();
    assert!(
        Process::look(hello.child_pid.cast_signed()).unwrap().is_some_and(|child| !child.is_zombie)
    );
    let again = kept.connect([0, 0]);
    assert_eq!(again.child_pid, hello.child_pid);
    kept.send(&Request::Stdin { offset: 0, bytes: b"you\n" });
    kept.wait_for("got you\n");
    kept.send(&Request::Kill);
    let exit = kept.exit();
    assert_eq!((exit.signal, exit.stopped_by), (Some(9), StoppedBy::Kill));
}

#[test]
fn a_connection_that_is_replaced_is_told_so() {
    let mut kept = Kept::start(shell("cat"));
    kept.hello();
    let mut old = kept.socket.try_clone().unwrap();
    kept.connect([0, 0]);
    assert_eq!(Reply::read(&mut old).unwrap(), Some(Reply::Bye { reason: "replaced".into() }));
    assert_eq!(Reply::read(&mut old).unwrap(), None);
    kept.send(&Request::CloseStdin);
    kept.exit();
}

#[test]
fn a_frame_that_is_not_ours_ends_the_connection_and_not_the_child() {
    use std::io::Write;
    let mut long = vec![3];
    long.extend_from_slice(&u32::MAX.to_le_bytes());
    for (frame, reason) in [
        (vec![99, 0, 0, 0, 0], "a frame is not ours"),
        (vec![7, 1, 0, 0, 0, 0], "a frame is not ours"),
        (long, "a frame is longer than the bound"),
    ] {
        let mut kept = Kept::start(shell("cat"));
        kept.hello();
        kept.socket.write_all(&frame).unwrap();
        assert_eq!(kept.read(), Some(Reply::Bye { reason: reason.into() }));
        assert_eq!(kept.read(), None);
        kept.connect([0, 0]);
        kept.send(&Request::CloseStdin);
        assert_eq!(kept.exit().code, Some(0));
    }
}

#[test]
fn wrong_use_is_exit_code_2_and_a_missing_spec_is_1() {
    let status = |arguments: &[&str]| {
        let mut command = Command::new(KEEPER);
        command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(status(&[]), Some(2));
    assert_eq!(status(&["a", "b"]), Some(2));
    assert_eq!(status(&["/no/such/folder"]), Some(1));
}

/// Each try writes a line, so the lines tell how often it was tried.
#[test]
fn a_connection_that_can_not_be_taken_is_tried_again_after_a_pause() {
    let mut spec =
        shell("echo up; until [ -e go ]; do sleep 0.05; done; sleep 2; echo late; exec sleep 1000");
    spec.cwd = std::env::temp_dir().join(&spec.child_id).into();
    let mut kept = Kept::start(spec);
    kept.hello();
    kept.wait_for("up");
    let keeper = keeper_pid(&kept);
    let limit = getrlimit(Resource::Nofile);
    let folder = format!("/proc/{}/fd", kept.keeper.id());
    let open = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    let open: Vec<u64> = open.map(|name| name.to_str().unwrap().parse().unwrap()).collect();
    let free = (0..).find(|number| !open.contains(number));
    prlimit(Some(keeper), Resource::Nofile, Rlimit { current: free, ..limit }).unwrap();
    let waiting = UnixStream::connect(kept.dir.join("sock")).unwrap();
    fs::write(kept.dir.join("go"), "").unwrap();
    kept.wait_for("late");
    let notes = fs::read_to_string(kept.dir.join("keeper.log")).unwrap();
    let tries = notes.lines().filter(|line| line.contains("was not taken")).count();
    assert!((1..=5).contains(&tries), "{tries} tries in two seconds: {notes}");
    prlimit(Some(keeper), Resource::Nofile, limit).unwrap();
    kept.connect([0, 0]);
    drop(waiting);
    kept.send(&Request::Kill);
    kept.exit();
}
