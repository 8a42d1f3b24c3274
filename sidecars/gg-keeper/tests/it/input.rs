//! Every byte of stdin reaches the child once.

use gg_keeper::exit::StoppedBy;
use gg_keeper::protocol::{Reply, Request, STDIN_WINDOW};

use crate::kept::{Kept, shell};

#[test]
fn bytes_that_come_again_are_skipped() {
    let mut kept = Kept::start(shell("cat"));
    kept.hello();
    for (offset, bytes) in [(0, "hello "), (0, "hello "), (3, "lo world"), (11, ""), (4, "o")] {
        kept.send(&Request::Stdin { offset, bytes: bytes.as_bytes() });
    }
    kept.send(&Request::CloseStdin);
    let exit = kept.exit();
    assert_eq!(kept.stdout(), "hello world");
    assert_eq!((exit.code, exit.stdin_end), (Some(0), 11));
    assert_eq!(kept.accepted, (11, 11));
}

#[test]
fn a_gap_ends_the_connection_and_gives_the_child_nothing() {
    let mut kept = Kept::start(shell("cat"));
    kept.hello();
    kept.send(&Request::Stdin { offset: 1, bytes: b"x" });
    assert_eq!(kept.read(), Some(Reply::Bye { reason: "stdin has a gap".into() }));
    assert_eq!(kept.connect([0, 0]).stdin_end, 0);
    kept.send(&Request::CloseStdin);
    assert_eq!(kept.exit().stdout_end, 0);
}

#[test]
fn a_server_that_comes_back_learns_what_was_accepted_and_sends_the_rest() {
    let mut kept = Kept::start(shell("cat"));
    kept.hello();
    kept.send(&Request::Stdin { offset: 0, bytes: b"prompt 1\nprom" });
    kept.wait_for("prom");
    kept.wait_for("prompt 1\nprom");
    kept.hang_up();
    let hello = kept.connect([13, 0]);
    assert_eq!((hello.stdin_end, hello.stdin_taken), (13, 13));
    kept.send(&Request::Stdin { offset: 9, bytes: b"prompt 2\n" });
    kept.send(&Request::CloseStdin);
    kept.exit();
    assert_eq!(kept.stdout(), "pt 2\n");
}

#[test]
fn a_child_that_never_reads_fills_the_window_and_can_still_be_stopped() {
    let mut kept = Kept::start(shell("echo up; exec sleep 1000"));
    kept.wait_for("up\n");
    let piece = vec![7; 1 << 20];
    for offset in (0..STDIN_WINDOW).step_by(piece.len()) {
        kept.send(&Request::Stdin { offset, bytes: &piece });
    }
    while kept.accepted.0 < STDIN_WINDOW {
        kept.read().unwrap();
    }
    let (end, taken) = kept.accepted;
    assert_eq!(end, STDIN_WINDOW);
    assert!(taken <= 1 << 20, "only the pipe took some: {taken}");
    kept.send(&Request::Stop { grace_ms: 10_000 });
    let exit = kept.exit();
    assert_eq!((exit.signal, exit.stopped_by), (Some(15), StoppedBy::Stop));
}

#[test]
fn a_frame_beyond_the_window_ends_the_connection() {
    let mut kept = Kept::start(shell("echo up; exec sleep 1000"));
    kept.wait_for("up\n");
    let piece = vec![7; 1 << 20];
    for offset in (0..=STDIN_WINDOW).step_by(piece.len()) {
        kept.send(&Request::Stdin { offset, bytes: &piece });
    }
    let bye = loop {
        match kept.read() {
            Some(Reply::Bye { reason }) => break Some(reason),
            Some(_) => {}
            None => break None,
        }
    };
    // The pipe took 64 KiB of the window, so the last frame is the one that is too much.
    assert_eq!(bye.as_deref(), Some("stdin goes beyond the window"));
    assert_eq!(kept.connect([3, 0]).stdin_end, STDIN_WINDOW);
    kept.send(&Request::Kill);
    kept.exit();
}

#[test]
fn a_child_that_closes_its_stdin_lives_on_and_what_comes_later_is_dropped() {
    let mut kept = Kept::start(shell("exec <&-; trap 'exit 6' USR1; echo up; sleep 1000 & wait"));
    kept.wait_for("up\n");
    kept.send(&Request::Stdin { offset: 0, bytes: b"nobody reads this" });
    while kept.accepted != (17, 17) {
        kept.read().unwrap();
    }
    kept.send(&Request::Signal { signo: 10 });
    assert_eq!(kept.exit().code, Some(6));
}

#[test]
fn the_journal_of_stdin_keeps_only_what_the_child_has_not_read() {
    let mut kept = Kept::start(shell("cat >/dev/null; echo done"));
    kept.hello();
    let piece = vec![7; 1 << 20];
    for offset in (0..20 << 20).step_by(piece.len()) {
        kept.send(&Request::Stdin { offset, bytes: &piece });
        while kept.accepted.1 < offset + piece.len() as u64 {
            kept.read().unwrap();
        }
    }
    assert!(kept.journal_bytes("stdin") <= 2 << 20, "{}", kept.journal_bytes("stdin"));
    kept.send(&Request::CloseStdin);
    assert_eq!(kept.exit().stdin_end, 20 << 20);
}
