//! The rules of the keeper's protocol, for any frames, in both directions.
//!
//! `frame` is the reading of frames on both sides. `reply` is the server's half of a connection, with its two threads,
//! in front of a keeper that writes the input and goes away: it hears of the end exactly once, offsets only grow, and
//! no thread is lost.

use crossbeam_channel::bounded;
use gg_keeper::exit::Exit;
use gg_keeper::protocol::{HEAD_LEN, PAYLOAD_MAX, Reply, Request, split_head};
use gooselake::keeper::{self, FromKeeper};
use gooselake_harness::temp::TempDir;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// Only a thread that is lost takes so long; a keeper that lives on is waited for five seconds.
const PATIENCE: Duration = Duration::from_secs(60);
/// Processes up to here may be alive: a keeper that is one of them is waited for.
const PIDS: std::ops::Range<u32> = 1..(1 << 22) + 1;

pub(crate) fn frame(input: &[u8]) {
    // What the keeper reads.
    if let Some((head, payload)) = input.split_first_chunk::<HEAD_LEN>() {
        let (kind, _) = split_head(head);
        if let Some(request) = Request::decode(kind, payload) {
            let mut again = Vec::new();
            request.encode(&mut again);
            assert_eq!(again[0], kind);
            assert_eq!(&again[HEAD_LEN..], payload, "{request:?}");
        }
    }
    // What the server reads.
    let mut rest = input;
    while let Ok(Some(reply)) = Reply::read(&mut rest) {
        let mut again = Vec::new();
        reply.encode(&mut again);
        assert!(again.len() <= HEAD_LEN + PAYLOAD_MAX * 3, "{} bytes", again.len());
        assert_eq!(Reply::read(&mut again.as_slice()).unwrap(), Some(reply));
    }
    // The record of an end, which is a frame and a file.
    if let Ok(text) = std::str::from_utf8(input)
        && let Some(exit) = Exit::parse(text)
    {
        assert_eq!(Exit::parse(&exit.to_text()).as_ref(), Some(&exit));
    }
}

pub(crate) fn reply(input: &[u8]) {
    if names_a_process(input) {
        return;
    }
    let folder = TempDir::new("gg-fuzz-keeper");
    let child = folder.path().join("child_fuzz");
    std::fs::create_dir(&child).unwrap();
    let listener = UnixListener::bind(child.join(gg_keeper::SOCKET)).unwrap();
    let (tell, told) = bounded(1024);
    let sink = move |word: FromKeeper| drop(tell.send_timeout(word, PATIENCE));
    let attached = keeper::attach(&child, 0, 0, sink).unwrap();
    let (mut socket, _) = listener.accept().unwrap();
    // The server may have closed it over an early mistake.
    drop(socket.write_all(&input[..input.len().min(64 * 1024)]));
    drop(socket);
    let mut seen = [0, 0];
    let mut is_over = false;
    while let Ok(word) = told.recv_timeout(PATIENCE) {
        assert!(!is_over, "{word:?} behind the end");
        match word {
            FromKeeper::Output { stream, offset, bytes } => {
                assert!(offset >= seen[stream.index()], "an offset goes back");
                assert!(!bytes.is_empty());
                seen[stream.index()] = offset.checked_add(bytes.len() as u64).unwrap();
            }
            FromKeeper::Exited(_) => is_over = true,
            FromKeeper::Hello(_) | FromKeeper::StdinAccepted { .. } => {}
        }
    }
    assert!(is_over, "the end is not told");
    drop(attached);
    check_record(&child);
}

/// What the server has written down reads the same again.
fn check_record(child: &Path) {
    if child.join(gg_keeper::exit::FILE).exists() {
        Exit::read(child).unwrap().expect("a record is there");
    }
}

fn names_a_process(mut input: &[u8]) -> bool {
    while let Ok(Some(reply)) = Reply::read(&mut input) {
        if let Reply::Hello(hello) = reply
            && PIDS.contains(&hello.keeper_pid)
        {
            return true;
        }
    }
    false
}
