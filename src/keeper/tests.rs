//! The two halves together: the built keeper, real children, and what a sink hears.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use gg_keeper::tree::{self, Process};
use rustix::process::{Pid, Signal, kill_process};

use super::{
    Attached, Exit, FromKeeper, Hello, JournalPolicy, Keeper, Policy, Spec, Stream, attach, forget,
    list, spawn, sweep,
};
use crate::error::Code;
use crate::model::id;

/// Nothing here takes this long unless it is broken.
const DEADLINE: Duration = Duration::from_secs(30);

/// A child under test: its folder, what was heard so far, and the handle.
struct Kept {
    spec: Spec,
    heard: Receiver<FromKeeper>,
    stdout: Vec<u8>,
    accepted: u64,
    keeper: Option<Keeper>,
}

fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().unwrap().parent().unwrap().join("gg-keeper");
    assert!(program.exists(), "run `cargo build -p gg-keeper` first: no {}", program.display());
    program
}

/// A shell with this script, held as an agent would be.
fn shell(script: &str) -> Spec {
    let child_id = id::new("chld");
    let block = JournalPolicy { policy: Policy::Block, bytes_max: 4 << 20 };
    Spec {
        dir: std::env::temp_dir().join("gg-keepers-test").join(&child_id),
        child_id,
        program: program(),
        argv: ["/bin/sh", "-c", script].map(Into::into).to_vec(),
        env: vec![("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())],
        cwd: "/".into(),
        stdout: block,
        stderr: block,
        grace_ms: 5_000,
        lease_ms: 0,
        stdin_pipe: true,
    }
}

fn sink(sender: Sender<FromKeeper>) -> impl FnMut(FromKeeper) + Send + 'static {
    // A test that has gone hears no more.
    move |heard| drop(sender.send(heard))
}

/// A keeper program that waits before its first instruction, as on a machine under load, until
/// somebody writes to the fifo that is told.
fn late_program(dir: &Path) -> (PathBuf, PathBuf) {
    fs::create_dir_all(dir).unwrap();
    let (late, fifo) = (dir.join("late-keeper"), dir.join("go"));
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, 0o600.into()).unwrap();
    let script = format!(
        "#!/bin/sh\nread go <'{}'\nexec '{}' \"$@\"\n",
        fifo.display(),
        program().display()
    );
    fs::write(&late, script).unwrap();
    fs::set_permissions(&late, fs::Permissions::from_mode(0o700)).unwrap();
    (late, fifo)
}

impl Kept {
    fn start(spec: Spec) -> Kept {
        let (sender, heard) = unbounded();
        let keeper = Some(spawn(&spec, sink(sender)).unwrap());
        Kept { spec, heard, stdout: Vec::new(), accepted: 0, keeper }
    }

    fn attach(&mut self, from: u64) -> bool {
        let (sender, heard) = unbounded();
        let Attached { keeper, is_live } = attach(&self.spec.dir, from, 0, sink(sender)).unwrap();
        self.heard = heard;
        self.keeper = Some(keeper);
        is_live
    }

    fn keeper(&self) -> &Keeper {
        self.keeper.as_ref().unwrap()
    }

    fn detach(&mut self) {
        self.keeper.take().unwrap().detach();
        let rest: Vec<FromKeeper> = self.heard.iter().collect();
        for heard in rest {
            assert!(!matches!(heard, FromKeeper::Exited(_)), "a detach is silent");
            self.note(&heard);
        }
    }

    fn hear(&mut self) -> FromKeeper {
        let heard = self.heard.recv_timeout(DEADLINE).unwrap();
        self.note(&heard);
        heard
    }

    fn note(&mut self, heard: &FromKeeper) {
        match heard {
            FromKeeper::Output { stream: Stream::Stdout, offset, bytes } => {
                assert_eq!(*offset, self.stdout.len() as u64, "no gap, and nothing twice");
                self.stdout.extend_from_slice(bytes);
            }
            FromKeeper::StdinAccepted { end } => self.accepted = *end,
            _ => {}
        }
    }

    fn hello(&mut self) -> Hello {
        match self.hear() {
            FromKeeper::Hello(hello) => *hello,
            other => panic!("Hello comes first, not {other:?}"),
        }
    }

    fn wait_for(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.stdout).ends_with(text) {
            let heard = self.hear();
            assert!(!matches!(heard, FromKeeper::Exited(_)), "ended before {text:?}: {heard:?}");
        }
    }

    /// Hears everything to the end, which is really the last thing.
    fn exit(&mut self) -> Exit {
        let exit = loop {
            if let FromKeeper::Exited(exit) = self.hear() {
                break exit;
            }
        };
        assert!(self.heard.recv_timeout(DEADLINE).is_err(), "nothing follows");
        self.keeper = None;
        assert_eq!(tree::marked(&self.spec.child_id).unwrap(), [], "nothing is left of the tree");
        *exit
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.keeper = None;
        drop(sweep(&self.spec.child_id));
        drop(fs::remove_dir_all(&self.spec.dir));
    }
}

fn is_gone(pid: u32) -> bool {
    Process::look(pid.cast_signed()).unwrap().is_none()
}

#[test]
fn a_child_is_started_heard_to_its_end_and_forgotten() {
    let mut kept = Kept::start(shell("echo hello; exit 3"));
    let hello = kept.hello();
    let exit = kept.exit();
    assert_eq!(kept.stdout, b"hello\n");
    assert_eq!((exit.code, exit.signal, exit.lost), (Some(3), None, false));
    assert_eq!((exit.stopped_by.as_str(), exit.error), ("child", None));
    assert!(is_gone(hello.keeper_pid) && is_gone(hello.child_pid), "not even a zombie is left");
    let root = kept.spec.dir.parent().unwrap();
    assert!(list(root).unwrap().contains(&kept.spec.child_id));
    forget(&kept.spec.dir).unwrap();
    forget(&kept.spec.dir).unwrap();
    assert!(!list(root).unwrap().contains(&kept.spec.child_id));
    assert_eq!(list(Path::new("/no/such/folder")).unwrap(), Vec::<String>::new());
}

#[test]
fn a_command_that_is_not_there_is_an_end_and_leaves_no_zombie() {
    let mut spec = shell("");
    spec.argv = vec!["/no/such/program".into()];
    let mut kept = Kept::start(spec);
    let exit = kept.exit();
    assert_eq!(exit.stopped_by, "spawn_failed");
    assert!(exit.error.unwrap().contains("/no/such/program"));
    assert!(!exit.lost);
}

#[test]
fn what_can_not_be_right_is_refused_and_leaves_no_folder() {
    let refused = |change: &dyn Fn(&mut Spec)| {
        let mut spec = shell("true");
        change(&mut spec);
        let code = spawn(&spec, |_| panic!("nothing is heard")).unwrap_err().code;
        assert!(!spec.dir.exists());
        code
    };
    assert_eq!(refused(&|spec| spec.cwd = "relative".into()), Code::BadRequest);
    assert_eq!(refused(&|spec| spec.child_id.push('x')), Code::BadRequest);
    let long = "x".repeat(2 << 20);
    assert_eq!(refused(&|spec| spec.argv.push(long.clone().into())), Code::BadRequest);
    assert_eq!(refused(&|spec| spec.program = "/no/such/keeper".into()), Code::Internal);
    assert_eq!(attach(Path::new("/no/such/child"), 0, 0, |_| {}).unwrap_err().code, Code::NotFound);
}

#[test]
fn a_folder_that_exists_is_not_touched() {
    let spec = shell("true");
    fs::create_dir_all(&spec.dir).unwrap();
    fs::write(spec.dir.join("exit"), "kept").unwrap();
    assert_eq!(spawn(&spec, |_| {}).unwrap_err().code, Code::Conflict);
    assert_eq!(fs::read_to_string(spec.dir.join("exit")).unwrap(), "kept");
    fs::remove_dir_all(&spec.dir).unwrap();
}

#[test]
fn stdin_goes_through_in_order_and_is_closed_after_it() {
    let mut kept = Kept::start(shell("cat; echo end"));
    kept.keeper().stdin(0, b"one ".to_vec()).unwrap();
    kept.keeper().stdin(0, b"one two ".to_vec()).unwrap();
    kept.keeper().stdin(8, b"three ".to_vec()).unwrap();
    kept.keeper().close_stdin();
    assert_eq!(kept.exit().code, Some(0));
    assert_eq!(kept.stdout, b"one two three end\n");
    assert_eq!(kept.accepted, 14);
}

#[test]
fn much_more_stdin_than_the_window_flows_while_the_output_is_acknowledged() {
    let mut kept = Kept::start(shell("cat"));
    let total: u64 = 48 << 20;
    let piece: Vec<u8> = (0..1 << 20).map(|index: u32| index.to_le_bytes()[1]).collect();
    let mut sent = 0;
    while (kept.stdout.len() as u64) < total {
        // As much as is taken without waiting; a refusal says that the child is behind.
        while sent < total && kept.keeper().stdin(sent, piece.clone()).is_ok() {
            sent += piece.len() as u64;
        }
        kept.hear();
        kept.keeper().ack(kept.stdout.len() as u64, 0, false);
    }
    kept.keeper().close_stdin();
    assert_eq!(kept.exit().code, Some(0));
    assert!(kept.stdout.chunks(piece.len()).all(|chunk| chunk == piece));
    assert_eq!((kept.accepted, kept.stdout.len() as u64), (total, total));
}

#[test]
fn a_child_that_does_not_read_makes_stdin_refuse_and_can_be_stopped() {
    let mut kept = Kept::start(shell("echo up; exec sleep 1000"));
    kept.wait_for("up\n");
    let mut sent = 0;
    let refusal = loop {
        assert!(sent < 64 << 20, "a bound is somewhere");
        match kept.keeper().stdin(sent, vec![0; 1 << 20]) {
            Ok(()) => sent += 1 << 20,
            Err(error) => break error.code,
        }
    };
    assert_eq!(refusal, Code::Capacity);
    kept.keeper().stop(10_000);
    let exit = kept.exit();
    assert_eq!((exit.signal, exit.stopped_by.as_str()), (Some(15), "stop"));
}

#[test]
fn a_child_goes_on_over_many_detaches_and_nothing_is_lost_or_doubled() {
    let mut kept = Kept::start(shell("i=0; while read l; do echo $i $l; i=$((i+1)); done"));
    let child_pid = kept.hello().child_pid;
    let mut sent = 0;
    let mut expected = String::new();
    for round in 0..20 {
        // The answer comes while nobody listens, or to the old connection, or to the new one.
        let line = format!("line {round}\n");
        kept.keeper().stdin(sent, line.clone().into_bytes()).unwrap();
        if round % 2 == 0 {
            expected.push_str(&format!("{round} {line}"));
            kept.wait_for(&expected.clone());
            sent += line.len() as u64;
            kept.detach();
            assert!(kept.attach(kept.stdout.len() as u64));
            assert_eq!(kept.hello().child_pid, child_pid);
        } else {
            kept.detach();
            assert!(kept.attach(kept.stdout.len() as u64));
            // Whether the line was accepted before, HELLO tells; sending it again does no harm in
            // either case.
            let end = kept.hello().stdin_end;
            assert!(end == sent || end == sent + line.len() as u64);
            kept.keeper().stdin(sent, line.clone().into_bytes()).unwrap();
            sent += line.len() as u64;
            expected.push_str(&format!("{round} {line}"));
            kept.wait_for(&expected.clone());
        }
    }
    kept.keeper().close_stdin();
    assert_eq!(kept.exit().code, Some(0));
    assert_eq!(String::from_utf8(kept.stdout.clone()).unwrap(), expected);
}

#[test]
fn an_end_that_nobody_heard_is_told_to_whoever_attaches_later() {
    // The child goes on only when we have let go: it reads from a pipe that nobody writes until then.
    let spec = shell("true");
    let gate = spec.dir.with_extension("gate");
    fs::create_dir_all(gate.parent().unwrap()).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&gate).status().unwrap();
    assert!(made.success());
    let script = format!("echo first; read l; read m < {}; seq 1 100000; exit 4", gate.display());
    let mut kept = Kept::start(Spec { argv: shell(&script).argv, ..spec });
    let keeper_pid = kept.hello().keeper_pid;
    kept.wait_for("first\n");
    kept.keeper().stdin(0, b"go\n".to_vec()).unwrap();
    while kept.accepted < 3 {
        kept.hear();
    }
    kept.detach();
    fs::write(&gate, "go\n").unwrap();
    wait_gone_or_zombie(keeper_pid);
    fs::remove_file(&gate).unwrap();
    let from = kept.stdout.len() as u64;
    assert!(!kept.attach(from));
    let exit = kept.exit();
    assert_eq!((exit.code, exit.stopped_by.as_str()), (Some(4), "child"));
    assert!(kept.stdout.ends_with(b"\n99999\n100000\n"));
    assert!(is_gone(keeper_pid), "the one who hears of the end reaps");
    // And again, the same.
    kept.stdout.truncate(6);
    assert!(!kept.attach(6));
    assert_eq!(kept.exit(), exit);
    assert!(kept.stdout.ends_with(b"\n99999\n100000\n"));
}

#[test]
fn a_keeper_that_was_killed_takes_its_tree_along_and_its_loss_is_told() {
    let script = "(setsid sleep 1000 &); trap '' TERM HUP; sleep 1000 & echo up; cat; wait";
    let mut kept = Kept::start(shell(script));
    let hello = kept.hello();
    kept.wait_for("up\n");
    kill(hello.keeper_pid, Signal::KILL);
    let exit = kept.exit();
    assert!(exit.lost);
    assert_eq!((exit.code, exit.signal, exit.stopped_by.as_str()), (None, None, "lost"));
    assert!(exit.error.unwrap().contains("the keeper is gone"));
    assert!(is_gone(hello.keeper_pid), "our own child is reaped; the others are init's to reap");
    assert_eq!(kept.stdout, b"up\n");
    forget(&kept.spec.dir).unwrap();
}

#[test]
fn a_keeper_that_was_killed_while_nobody_listened_is_found_at_the_attach() {
    let mut kept = Kept::start(shell("echo up; cat"));
    let hello = kept.hello();
    kept.wait_for("up\n");
    kept.detach();
    kill(hello.keeper_pid, Signal::KILL);
    wait_gone_or_zombie(hello.keeper_pid);
    kept.stdout.clear();
    assert!(!kept.attach(0));
    let exit = kept.exit();
    assert!(exit.lost);
    assert_eq!(kept.stdout, b"up\n", "what was journalled is still told");
    assert!(!kept.attach(3));
    assert_eq!(kept.exit(), exit, "the answer stays the same");
}

#[test]
fn a_keeper_that_has_not_got_far_yet_is_waited_for_and_not_taken_for_dead() {
    let folder = std::env::temp_dir().join("gg-keepers-test").join(id::new("late"));
    let (late, fifo) = late_program(&folder);
    let mut kept = Kept::start(Spec { program: late, ..shell("echo once; exit 3") });
    kept.detach();
    assert!(kept.attach(0), "it is there, though it has done nothing yet");
    fs::write(&fifo, "go\n").unwrap();
    let exit = kept.exit();
    assert_eq!((exit.code, exit.lost), (Some(3), false), "{exit:?}");
    assert_eq!(kept.stdout, b"once\n");
    fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_second_connection_takes_over_and_the_first_is_told() {
    let mut kept = Kept::start(shell("cat"));
    kept.hello();
    let (sender, heard) = unbounded();
    let second = attach(&kept.spec.dir, 0, 0, sink(sender)).unwrap();
    assert!(matches!(heard.recv_timeout(DEADLINE).unwrap(), FromKeeper::Hello(_)));
    let FromKeeper::Exited(exit) = kept.hear() else { panic!("the first one ends") };
    assert_eq!((exit.stopped_by.as_str(), exit.lost), ("replaced", true));
    assert_eq!(forget(&kept.spec.dir).unwrap_err().code, Code::Conflict);
    second.keeper.kill();
    let last = heard.iter().last().unwrap();
    assert!(matches!(last, FromKeeper::Exited(exit) if exit.stopped_by == "kill"));
}

#[test]
fn a_gap_in_stdin_ends_the_child_rather_than_to_go_on_with_less() {
    let mut kept = Kept::start(shell("cat"));
    kept.hello();
    kept.keeper().stdin(5, b"x".to_vec()).unwrap();
    let exit = kept.exit();
    assert!(exit.lost);
    assert!(exit.error.unwrap().contains("stdin has a gap"));
}

#[test]
fn a_sink_that_blocks_holds_the_child_back_and_nothing_is_lost() {
    let spec = shell("seq 1 2000000");
    let (sender, heard) = bounded(0);
    let keeper = spawn(&spec, sink(sender)).unwrap();
    let mut bytes = Vec::new();
    let deadline = Instant::now() + DEADLINE;
    let exit = loop {
        assert!(Instant::now() < deadline);
        match heard.recv_timeout(DEADLINE).unwrap() {
            FromKeeper::Output { offset, bytes: new, .. } => {
                assert_eq!(offset, bytes.len() as u64);
                bytes.extend_from_slice(&new);
                keeper.ack(bytes.len() as u64, 0, false);
            }
            FromKeeper::Exited(exit) => break exit,
            _ => {}
        }
    };
    assert_eq!(exit.code, Some(0));
    assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 2_000_000);
    drop(keeper);
    forget(&spec.dir).unwrap();
}

#[test]
fn a_folder_whose_path_is_too_long_for_a_socket_is_reached_all_the_same() {
    let mut spec = shell("echo up; cat");
    let long = spec.dir.parent().unwrap().join("d".repeat(120));
    spec.dir = long.join(&spec.child_id);
    let mut kept = Kept::start(spec);
    kept.hello();
    kept.wait_for("up\n");
    kept.detach();
    assert!(kept.attach(3));
    kept.hello();
    kept.keeper().stdin(0, b"there\n".to_vec()).unwrap();
    kept.wait_for("there\n");
    kept.keeper().signal(9);
    assert_eq!(kept.exit().signal, Some(9));
}

#[test]
fn a_handle_that_is_let_go_ends_its_threads_at_once() {
    let mut kept = Kept::start(shell("echo up; exec sleep 1000"));
    let hello = kept.hello();
    kept.wait_for("up\n");
    let started = Instant::now();
    kept.detach();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(!is_gone(hello.child_pid), "the child lives on");
    assert_eq!(sweep(&kept.spec.child_id).unwrap(), 2, "the keeper and the child");
}

fn kill(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid.cast_signed()).unwrap(), signal).unwrap();
}

/// Waits until a keeper has ended, whether or not it is reaped.
fn wait_gone_or_zombie(pid: u32) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    if let Ok(pidfd) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        assert!(tree::wait_readable(&pidfd, Instant::now() + DEADLINE));
    }
}
