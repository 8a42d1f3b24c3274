//! No byte of output is lost or comes twice, and what is kept has a bound.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gg_keeper::exit::{Exit, StoppedBy};
use gg_keeper::journal::Remains;
use gg_keeper::protocol::{JournalPolicy, Policy, Request, Spec};
use gg_keeper::tree;
use rustix::process::{Pid, PidfdFlags, Resource, Rlimit, pidfd_open, prlimit};

use crate::kept::{KEEPER, Kept, shell, wait_process};

const MIB: u64 = 1 << 20;

/// A child that writes `bytes` bytes of 16-byte lines that count up from 0, and then a file as a
/// sign that it is done.
fn flood(bytes: u64) -> Spec {
    let mut spec = shell(&format!("seq -f %015.0f 0 {} ; echo done >&2; cat", bytes / 16 - 1));
    spec.stdout.bytes_max = 8 * MIB;
    spec
}

/// Checks that `bytes` is what `flood` writes from `offset` on.
fn assert_flood(bytes: &[u8], offset: u64) {
    let first = offset / 16;
    let skip = usize::try_from(offset % 16).unwrap();
    let mut expected = Vec::with_capacity(bytes.len() + 32);
    for line in first.. {
        if expected.len() >= bytes.len() + skip {
            break;
        }
        expected.extend_from_slice(format!("{line:015}\n").as_bytes());
    }
    assert!(expected[skip..skip + bytes.len()] == *bytes, "the bytes at {offset} are others");
}

/// Reads on, checking and acknowledging as a server does, until `until` bytes came.
fn follow(kept: &mut Kept, until: u64) {
    let mut acknowledged = kept.next[0];
    while kept.next[0] < until {
        kept.read().expect("more output");
        if kept.next[0] - acknowledged >= MIB || kept.next[0] >= until {
            let bytes = std::mem::take(&mut kept.seen[0]);
            assert_flood(&bytes, kept.next[0] - bytes.len() as u64);
            acknowledged = kept.next[0];
            kept.send(&Request::Ack { stdout: acknowledged, stderr: 0, trim: false });
        }
    }
}

fn memory_kib(kept: &Kept) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", kept.keeper.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_child_that_floods_with_nobody_attached_waits_at_the_bound_and_loses_nothing() {
    let total = 200 * MIB;
    let mut kept = Kept::start(flood(total));
    kept.hello();
    kept.hang_up();
    // The server is away until the journal is full.
    while kept.connect([0, 0]).stdout_end < 8 * MIB {
        kept.hang_up();
    }
    let held = kept.journal_bytes("stdout");
    assert!((8 * MIB..9 * MIB).contains(&held), "{held} bytes");
    assert_eq!(kept.living().len(), 2, "the child waits");
    follow(&mut kept, 100 * MIB);
    // It is killed in the middle, and the next one begins where the last one had committed.
    let committed = kept.next[0];
    kept.hang_up();
    kept.connect([committed, 0]);
    follow(&mut kept, total);
    assert!(kept.journal_bytes("stdout") <= 2 * MIB);
    assert!(memory_kib(&kept) < 8 * 1024, "{} KiB", memory_kib(&kept));
    kept.send(&Request::CloseStdin);
    let exit = kept.exit();
    assert_eq!((exit.code, exit.stdout_end), (Some(0), total));
    assert_eq!(kept.stderr(), "done\n");
}

#[test]
fn a_child_at_the_bound_is_stopped_all_the_same_and_its_last_bytes_are_on_disk() {
    let mut kept = Kept::start(flood(200 * MIB));
    kept.hello();
    kept.hang_up();
    while kept.connect([0, 0]).stdout_end < 8 * MIB {
        kept.hang_up();
    }
    kept.send(&Request::Stop { grace_ms: 10_000 });
    let exit = kept.exit();
    assert_eq!(exit.stopped_by, StoppedBy::Stop);
    assert!(exit.stdout_end > 8 * MIB, "the pipe was read to its end: {}", exit.stdout_end);
    assert_flood(&kept.seen[0], 0);
    assert_eq!(kept.next[0], exit.stdout_end);
}

#[test]
fn a_drop_oldest_journal_never_holds_the_child_up_and_keeps_the_end() {
    let mut spec = flood(200 * MIB);
    spec.argv[2] = "seq -f %015.0f 0 13107199".into();
    spec.stdout.policy = Policy::DropOldest;
    spec.stdout.bytes_max = 4 * MIB;
    let mut kept = Kept::start(spec);
    kept.hello();
    kept.hang_up();
    kept.wait_keeper();
    let exit = Exit::read(&kept.dir).unwrap().unwrap();
    assert_eq!((exit.code, exit.stopped_by), (Some(0), StoppedBy::Child), "nobody stopped it");
    let mut remains = Remains::open(&kept.dir, "stdout").unwrap();
    assert_eq!(remains.end(), 200 * MIB);
    assert!(kept.journal_bytes("stdout") <= 4 * MIB);
    assert!(remains.base() >= 196 * MIB && remains.base() <= 198 * MIB);
    let mut buffer = vec![0; 1 << 20];
    let (offset, count) = remains.read(0, &mut buffer).unwrap();
    assert_eq!(offset, remains.base());
    assert_flood(&buffer[..count], offset);
}

#[test]
fn a_drop_newest_journal_keeps_the_start_and_counts_the_rest() {
    let mut spec = shell("seq -f %015.0f 0 65535; exit 2");
    spec.stdout = JournalPolicy { policy: Policy::DropNewest, bytes_max: 100_000 };
    let mut kept = Kept::start(spec);
    let exit = kept.exit();
    assert_eq!((exit.code, exit.stdout_end, exit.stdout_dropped), (Some(2), 100_000, 948_576));
    assert_flood(&kept.seen[0], 0);
    assert_eq!(kept.seen[0].len(), 100_000);
}

#[test]
fn an_idle_child_whose_output_is_acknowledged_holds_no_bytes_on_disk() {
    let mut kept = Kept::start(shell("cat; echo more >&2; read l"));
    kept.hello();
    kept.send(&Request::Stdin { offset: 0, bytes: b"some\n" });
    kept.wait_for("some\n");
    kept.send(&Request::Ack { stdout: 5, stderr: 0, trim: true });
    // The answer to this comes after the ACK was served.
    let hello = kept.connect([5, 0]);
    assert_eq!((hello.stdout_base, hello.stdout_end), (5, 5));
    for stream in ["stdin", "stdout", "stderr"] {
        assert_eq!(kept.journal_bytes(stream), 0, "{stream}");
    }
    kept.send(&Request::CloseStdin);
    kept.exit();
    assert_eq!(kept.stderr(), "more\n");
}

#[test]
fn a_child_that_closes_its_stdout_lives_on() {
    let mut kept = Kept::start(shell("echo last; exec >&-; echo up >&2; read l; exit 9"));
    kept.wait_for("last\n");
    while kept.stderr() != "up\n" {
        kept.read().unwrap();
    }
    assert_eq!(kept.living().len(), 1);
    kept.send(&Request::Stdin { offset: 0, bytes: b"go\n" });
    let exit = kept.exit();
    assert_eq!((exit.code, exit.stopped_by), (Some(9), StoppedBy::Child));
}

#[test]
fn a_server_that_does_not_read_holds_nobody_up() {
    let mut kept = Kept::start(flood(4 * MIB));
    kept.hello();
    // Nothing is read from here on, and the STOP is heard.
    kept.send(&Request::Stop { grace_ms: 10_000 });
    kept.wait_keeper();
    assert_eq!(kept.living(), []);
    assert!(Exit::read(&kept.dir).unwrap().is_some());
}

/// The command of a keeper whose disk is full after 512 KiB of a journal: a limit on the size of a
/// file stands in for it, the same error at the same call.
fn on_a_full_disk(dir: &Path) -> Command {
    let mut command = Command::new("/bin/sh");
    let script = "trap '' XFSZ; ulimit -S -f 1024; exec \"$0\" \"$1\"";
    command.arg("-c").arg(script).arg(KEEPER).arg(dir);
    command
}

#[test]
fn a_full_disk_holds_the_child_up_and_loses_nothing() {
    let mut spec = flood(4 * MIB);
    spec.journal_segment_bytes = 2 * MIB;
    let mut kept = Kept::start_with(spec, on_a_full_disk);
    kept.hello();
    let limit = fs::read_to_string(format!("/proc/{}/limits", kept.keeper.id())).unwrap();
    let line = limit.lines().find(|line| line.starts_with("Max file size")).unwrap();
    let full: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
    assert!(full < MIB, "the limit is on: {line}");
    follow(&mut kept, full);
    assert_eq!(kept.journal_bytes("stdout"), full, "the disk is full in the middle of a read");
    assert_eq!(kept.living().len(), 2, "the child waits");
    // Now there is room again.
    let keeper = Pid::from_child(&kept.keeper);
    prlimit(Some(keeper), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    follow(&mut kept, 4 * MIB);
    kept.send(&Request::CloseStdin);
    assert_eq!(kept.exit().stdout_end, 4 * MIB);
}

#[test]
fn what_the_pipe_holds_when_a_full_disk_has_room_again_is_kept() {
    let (full, held, rest) = (512 * 1024, 1024, 50_000);
    let first = full + held;
    let script =
        format!("head -c {first} /dev/zero; echo ready >&2; read -r go; head -c {rest} /dev/zero");
    let mut spec = shell(&script);
    spec.journal_segment_bytes = 2 * MIB;
    let mut kept = Kept::start_with(spec, on_a_full_disk);
    let child = kept.hello().child_pid;
    // The keeper has read all that came before that word, and holds what the disk did not take.
    while kept.stderr() != "ready\n" {
        kept.read().unwrap();
    }
    kept.send(&Request::Stdin { offset: 0, bytes: b"go\n" });
    wait_process(child.cast_signed());
    // The child is gone for longer than an open pipe is read on.
    let keeper = Pid::from_child(&kept.keeper);
    let pidfd = pidfd_open(keeper, PidfdFlags::empty()).unwrap();
    let ends = tree::wait_readable(&pidfd, Instant::now() + Duration::from_secs(3));
    assert!(!ends, "the keeper waits for the disk");
    prlimit(Some(keeper), Resource::Fsize, Rlimit { current: None, maximum: None }).unwrap();
    let exit = kept.exit();
    assert_eq!((exit.stdout_end, exit.error), (first + rest, None));
}
