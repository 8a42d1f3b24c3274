//! Finding processes by family and by mark, and ending exactly those.

use std::io;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::Signal;

use super::{Process, below, descendants, marked, parse_stat, seen, sweep};

fn process(pid: i32, parent: i32) -> Process {
    Process { pid, parent, group: pid, started: 1, is_zombie: false }
}

/// A shell with the mark whose child cleared its own environment, so that it can only be found as a
/// descendant.
fn marked_family(child_id: &str) -> Child {
    Command::new("/bin/sh")
        .args(["-c", "env -i sleep 1000 & echo up; wait"])
        .env("GOOSELAKE_CHILD", child_id)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn wait_for_line(child: &mut Child) {
    let mut line = String::new();
    let stdout = child.stdout.as_mut().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
    assert_eq!(line, "up\n");
}

#[test]
fn a_stat_line_is_read_whatever_the_program_calls_itself() {
    let tail = "S 7 5 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4242 9 9";
    for name in ["sh", "a b", "x) S 1 (y", ") 3"] {
        let stat = format!("12 ({name}) {tail}");
        let expected = Process { pid: 12, parent: 7, group: 5, started: 4242, is_zombie: false };
        assert_eq!(parse_stat(stat.as_bytes()), Some(expected), "{name}");
    }
    assert_eq!(parse_stat(b""), None);
    assert_eq!(parse_stat(b"12 (sh) S"), None);
}

#[test]
fn a_tree_is_walked_to_its_leaves_and_a_circle_ends() {
    let all = [process(2, 1), process(3, 2), process(4, 3), process(9, 1), process(7, 8)];
    let mut pids: Vec<i32> = below(&all, &[2]).iter().map(|process| process.pid).collect();
    pids.sort_unstable();
    assert_eq!(pids, [3, 4]);
    let circle = [process(2, 3), process(3, 2)];
    assert_eq!(below(&circle, &[2]).len(), 2);
}

#[test]
fn a_process_that_took_the_place_of_the_one_seen_gets_no_signal() {
    let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
    let seen = Process::look(child.id().cast_signed()).unwrap().unwrap();
    let before = Process { started: seen.started - 1, ..seen };
    assert!(before.signal(Signal::KILL).is_none());
    assert!(child.try_wait().unwrap().is_none(), "the process lives on");
    assert!(descendants(std::process::id().cast_signed()).unwrap().contains(&seen));
    assert!(seen.signal(Signal::KILL).is_some());
    assert!(!child.wait().unwrap().success());
}

#[test]
fn a_sweep_ends_everything_with_the_mark_and_below_it_and_nothing_else() {
    let id = format!("chld_sweep_{}", std::process::id());
    let mut family = marked_family(&id);
    let mut other = marked_family(&format!("{id}x"));
    wait_for_line(&mut family);
    wait_for_line(&mut other);
    assert_eq!(marked(&id).unwrap().len(), 2, "{:?}", marked(&id));
    assert_eq!(sweep(&id, Duration::from_secs(10)).unwrap(), 2);
    assert!(marked(&id).unwrap().is_empty());
    assert_eq!(marked(&format!("{id}x")).unwrap().len(), 2);
    sweep(&format!("{id}x"), Duration::from_secs(10)).unwrap();
    family.wait().unwrap();
    other.wait().unwrap();
}

#[test]
fn a_look_without_a_descriptor_is_no_look_at_nothing() {
    let read = |errno: Errno| seen::<()>(Err(io::Error::from(errno)));
    assert_eq!(read(Errno::MFILE).unwrap_err().raw_os_error(), Some(Errno::MFILE.raw_os_error()));
    assert!(read(Errno::NFILE).is_err());
    for gone in [Errno::NOENT, Errno::SRCH, Errno::ACCESS] {
        assert!(read(gone).unwrap().is_none(), "{gone}");
    }
}
