//! Clients that are too many, too slow, gone or deaf: each costs itself, and the server a bounded amount.

use super::{Raw, figure};
use crate::stage::{SOON, Stage, each, records, text};
use gooselake_harness::proc;
use gooselake_harness::wait;
use rustix::net::{RecvFlags, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

const CROWD: usize = 5000;
const CAP: usize = 1500;

/// Memory that one connection may take of the server's, in KiB; with the share of what all need, such as the table.
const CONNECTION_KIB: u64 = 64;
/// What a server may grow by for other reasons: pages of code, the allocator's spare.
const SLACK_KIB: u64 = 32 * 1024;

/// Descriptors of this process, for as many sockets.
fn raise_descriptors(wanted: usize) {
    let limit = getrlimit(Resource::Nofile);
    let wanted = wanted as u64;
    if limit.current.is_none_or(|current| current >= wanted) {
        return;
    }
    let may = limit.maximum.is_none_or(|maximum| maximum >= wanted);
    assert!(may, "this test needs {wanted} descriptors: raise the hard limit (ulimit -Hn)");
    setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), ..limit }).unwrap();
}

fn get(address: SocketAddr, path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{token}\r\n")
}

/// What a new connection is answered, and whether it goes on.
fn ask(address: SocketAddr) -> (Raw, u16) {
    let mut raw = Raw::open(address);
    raw.send(get(address, "/health", ""));
    let answer = raw.answer();
    if answer.status == 503 {
        assert!(answer.head.contains("\r\nRetry-After: 1\r\n"), "{}", answer.head);
        assert!(answer.body.contains("\"code\":\"capacity\""), "{}", answer.body);
        assert_eq!(raw.rest(), "");
    }
    (raw, answer.status)
}

#[test]
fn a_crowd_beyond_the_cap_is_told_so_and_costs_those_inside_nothing() {
    raise_descriptors(CROWD + 1000);
    let stage = Stage::with_config(&format!("[server]\nmax_connections = {CAP}\n"));
    let (address, token) = (stage.server.address(), stage.authorization());
    let before_kib = stage.server.rss_kib();
    let mut inside: Vec<Raw> = Vec::new();
    let mut refused = 0;
    for _ in 0..CROWD {
        match ask(address) {
            (raw, 200) => inside.push(raw),
            (_, 503) => refused += 1,
            (_, status) => panic!("{status}"),
        }
    }
    assert_eq!((inside.len(), refused), (CAP, CROWD - CAP));
    for raw in &mut inside {
        raw.send(get(address, "/health", ""));
        assert_eq!(raw.answer().status, 200);
    }
    inside[0].send(get(address, "/metrics", &token));
    let page = inside[0].answer().body;
    assert_eq!(figure(&page, "connections"), CAP as u64);
    assert_eq!(figure(&page, "connections_refused_total"), refused as u64);
    let grown_kib = stage.server.rss_kib().saturating_sub(before_kib);
    let most = CAP as u64 * CONNECTION_KIB + SLACK_KIB;
    assert!(grown_kib < most, "{CAP} connections took {grown_kib} KiB, at most {most}");
    drop(inside);
    // Its threads see their ends one by one: until then a newcomer may be refused.
    wait::until(SOON, "there is room again", || {
        let (mut raw, status) = ask(address);
        if status == 503 {
            return None;
        }
        raw.send(get(address, "/metrics", &token));
        (figure(&raw.answer().body, "connections") == 1).then_some(())
    });
    // The next crowd finds the memory of the last.
    let inside: Vec<Raw> = (0..CAP).map(|_| ask(address).0).collect();
    let again_kib = stage.server.rss_kib().saturating_sub(before_kib);
    assert!(again_kib < grown_kib + SLACK_KIB, "{grown_kib} KiB, then {again_kib} KiB");
    drop(inside);
}

/// The deadline is that of the whole head: a byte now and then does not move it.
#[test]
fn those_who_send_a_byte_now_and_then_are_sent_away() {
    let stage = Stage::new();
    let address = stage.server.address();
    let mut slow: Vec<Raw> = (0..50).map(|_| Raw::open(address)).collect();
    for raw in &mut slow {
        raw.send("GET /health HTTP/1.1\r\nX-Slow: ");
    }
    // Ten times the deadline of ten seconds, at this pace.
    for _ in 0..400 {
        for raw in &mut slow {
            // An error is one that was answered and closed.
            drop(std::io::Write::write_all(&mut raw.socket, b"y"));
        }
        if slow[0].hears_within(Duration::from_millis(250)) {
            break;
        }
        stage.client.get("/health").expect(200);
    }
    for raw in &mut slow {
        let answer = raw.answer();
        assert_eq!(answer.status, 408, "{}", answer.head);
        assert!(answer.body.contains("\"code\":\"request_timeout\""), "{}", answer.body);
        assert_eq!(raw.rest(), "");
    }
}

/// Closes with a reset instead of an end.
fn reset(socket: TcpStream) {
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
    drop(socket);
}

#[test]
fn resets_by_the_hundred_leave_nothing_behind() {
    let stage = Stage::with_config("[events]\nheartbeat_secs = 1\n");
    let (address, token) = (stage.server.address(), stage.authorization());
    let session_id = stage.session();
    let of = |pid| (proc::thread_count(pid), proc::descriptor_count(pid));
    stage.client.get("/health").expect(200);
    // A turn that goes on, so that the streams are in the middle of something.
    let turn_id = stage.start(&session_id, "slow 2000 5");
    let (threads, descriptors) = of(stage.server.pid());
    // Connections to the database that it opens when many read at once, and keeps: three files each.
    let descriptors = descriptors + 3 * gooselake::limits::READERS;
    for _ in 0..3 {
        let streams: Vec<Raw> = (0..100)
            .map(|number| {
                let mut raw = Raw::open(address);
                let path = match number % 4 {
                    0 => "/v1/events/stream".to_owned(),
                    1 => "/v1/system/events/stream".to_owned(),
                    2 => format!("/v1/sessions/{session_id}/events/stream?after_seq=0"),
                    _ => format!("/v1/sessions/{session_id}/turns/{turn_id}?wait_ms=3600000"),
                };
                raw.send(get(address, &path, &token));
                if number % 4 < 3 {
                    assert!(raw.head().starts_with("HTTP/1.1 200 "));
                }
                raw
            })
            .collect();
        for raw in streams {
            reset(raw.socket);
        }
        // In the middle of a head, and of a body.
        for part in ["GET /hea".to_owned(), get(address, "/v1/version", "Content-Length: 9\r\n")] {
            let mut raw = Raw::open(address);
            raw.send(part);
            reset(raw.socket);
        }
    }
    stage.client.get("/health").expect(200);
    stage.interrupt(&session_id, &turn_id).expect(202);
    stage.ended(&session_id, &turn_id);
    let left = || {
        let (threads_now, descriptors_now) = of(stage.server.pid());
        (stage.figure("streams"), threads_now, descriptors_now)
    };
    let gone = wait::try_until(SOON, || {
        let (streams, threads_now, descriptors_now) = left();
        (streams == 0 && threads_now <= threads && descriptors_now <= descriptors).then_some(())
    });
    assert!(gone.is_some(), "{:?} are left of 0, {threads}, {descriptors}", left());
}

#[test]
fn those_who_do_not_read_cost_no_memory_and_delay_nobody() {
    let stage = Stage::new();
    let (address, token) = (stage.server.address(), stage.authorization());
    let session_id = stage.session();
    stage.run(&session_id, "flood 2000 100");
    let before_kib = stage.server.rss_kib();
    let path = format!("/v1/sessions/{session_id}/events/stream?after_seq=0");
    let deaf: Vec<Raw> = (0..50)
        .map(|_| {
            let mut raw = Raw::open(address);
            sockopt::set_socket_recv_buffer_size(&raw.socket, 4096).unwrap();
            raw.send(get(address, &path, &token));
            raw
        })
        .collect();
    let mut reader = stage.stream(&session_id, "?after_seq=0");
    reader.until("turn.completed", SOON);
    // Some 12 MB, which 50 queues would make 600.
    let turn_id = stage.start(&session_id, "flood 12000 1000");
    let seen = records(&reader.until("turn.completed", SOON));
    assert_eq!(seen.last().unwrap().json["turn_id"], turn_id);
    let grown_kib = stage.server.rss_kib().saturating_sub(before_kib);
    assert!(grown_kib < 128 * 1024, "50 deaf streams took {grown_kib} KiB");
    // None of them was served more than its socket takes, and all is there for whoever asks.
    for raw in &deaf {
        let waiting = rustix::io::ioctl_fionread(&raw.socket).unwrap();
        assert!(waiting < 1 << 20, "{waiting}");
        let (_, peeked) = rustix::net::recv(&raw.socket, &mut [0; 8], RecvFlags::PEEK).unwrap();
        assert!(peeked > 0);
    }
}

#[test]
fn who_has_said_all_is_still_answered() {
    let stage = Stage::new();
    let (address, token) = (stage.server.address(), stage.authorization());
    let session_id = stage.session();
    let turn_id = stage.start(&session_id, "slow 20 20");
    let mut raw = Raw::open(address);
    let path = format!("/v1/sessions/{session_id}/turns/{turn_id}?wait_ms=30000");
    raw.send(get(address, "/health", "") + &get(address, &path, &token));
    raw.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.answer().status, 200);
    let turn = raw.answer();
    assert!(turn.body.contains("\"status\":\"completed\""), "{}", turn.body);
    assert_eq!(raw.rest(), "");
    // Half a request is none.
    let mut raw = Raw::open(address);
    raw.send("GET /health HTTP/1.1\r\nHost: localh");
    raw.socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(raw.answer().status, 400);
    assert_eq!(raw.rest(), "");
    assert_eq!(each(&[stage.record(&session_id)], "status"), ["ready"]);
    assert_eq!(text(&stage.get("/health"), "status"), "ok");
}
