//! Every frame reads back as what was written, and bytes that are not ours are refused.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::{
    HEAD_LEN, Hello, JournalPolicy, PAYLOAD_MAX, Policy, Reply, Request, Spec, Stream, VERSION,
    split_head,
};
use crate::exit::{Exit, StoppedBy};

fn spec() -> Spec {
    Spec {
        child_id: "chld_1".into(),
        argv: vec!["/bin/echo".into(), OsString::from_vec(vec![0xff, b'\n'])],
        env: vec![("A".into(), "b=c".into()), ("EMPTY".into(), OsString::new())],
        cwd: "/".into(),
        stdout: JournalPolicy { policy: Policy::Block, bytes_max: 1 },
        stderr: JournalPolicy { policy: Policy::DropOldest, bytes_max: u64::MAX },
        grace_ms: 5,
        lease_ms: 0,
        stdin_pipe: true,
        journal_segment_bytes: 1 << 20,
    }
}

fn requests() -> Vec<Request<'static>> {
    vec![
        Request::Spec(Box::new(spec())),
        Request::Attach { stdout_from: 3, stderr_from: u64::MAX },
        Request::Stdin { offset: 9, bytes: b"hello" },
        Request::Stdin { offset: 9, bytes: b"" },
        Request::CloseStdin,
        Request::Ack { stdout: 1, stderr: 2, trim: true },
        Request::Signal { signo: 10 },
        Request::Stop { grace_ms: 5_000 },
        Request::Kill,
    ]
}

#[test]
fn every_request_reads_back_as_it_was_written() {
    for request in requests() {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let head: &[u8; HEAD_LEN] = bytes[..HEAD_LEN].try_into().unwrap();
        let (kind, len) = split_head(head);
        assert_eq!(len, bytes.len() - HEAD_LEN);
        assert_eq!(Request::decode(kind, &bytes[HEAD_LEN..]), Some(request));
    }
}

const HELLO: Hello = Hello {
    version: VERSION,
    keeper_pid: 1,
    child_pid: 2,
    stdin_end: 4,
    stdin_taken: 3,
    stdout_base: 5,
    stdout_end: 6,
    stderr_base: 7,
    stderr_end: 8,
    is_stdin_closed: false,
};

#[test]
fn every_reply_reads_back_as_it_was_written_and_a_cut_one_is_the_end_of_the_connection() {
    let replies = [
        Reply::Hello(HELLO),
        Reply::Hello(Hello { is_stdin_closed: true, ..HELLO }),
        Reply::Output { stream: Stream::Stderr, offset: 77, bytes: b"\0\xff".to_vec() },
        Reply::StdinAccepted { end: 2, taken: 1 },
        Reply::Exit(Exit::new(StoppedBy::Lease)),
        Reply::Bye { reason: "replaced".into() },
    ];
    let mut bytes = Vec::new();
    for reply in &replies {
        reply.encode(&mut bytes);
    }
    let mut socket = bytes.as_slice();
    for reply in replies {
        assert_eq!(Reply::read(&mut socket).unwrap(), Some(reply));
    }
    assert_eq!(Reply::read(&mut socket).unwrap(), None);
    assert_eq!(Reply::read(&mut &bytes[..HEAD_LEN + 1]).unwrap(), None);
}

#[test]
fn a_request_with_a_byte_too_few_or_too_many_is_refused() {
    for request in requests() {
        if matches!(request, Request::Stdin { .. }) {
            continue;
        }
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        let kind = bytes[0];
        bytes.push(0);
        assert_eq!(Request::decode(kind, &bytes[HEAD_LEN..]), None, "{request:?} and one more");
        bytes.truncate(bytes.len() - 2);
        if bytes.len() >= HEAD_LEN {
            assert_eq!(Request::decode(kind, &bytes[HEAD_LEN..]), None, "{request:?} cut");
        }
    }
    assert_eq!(Request::decode(0, b""), None);
    assert_eq!(Request::decode(200, b""), None);
}

#[test]
fn a_count_that_the_payload_can_not_hold_allocates_nothing() {
    let mut payload = Vec::new();
    payload.extend_from_slice(&0_u32.to_le_bytes());
    payload.extend_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(Request::decode(1, &payload), None);
}

#[test]
fn a_reply_longer_than_the_bound_is_an_error_before_it_is_read() {
    let mut bytes = vec![66];
    bytes.extend_from_slice(&u32::try_from(PAYLOAD_MAX + 1).unwrap().to_le_bytes());
    assert!(Reply::read(&mut bytes.as_slice()).is_err());
}
