//! What is survived. Each test is a fault that an HTTP server of this shape was seen to have.

use super::{Client, House, PATIENCE};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::net::TcpListener;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

/// Set for the child process of a test that needs a process of its own.
const ALONE: &str = "GOOSELAKE_TEST_ALONE";

#[test]
fn a_huge_length_is_only_a_claim() {
    let house = House::with(|limits| limits.body_ms = 300);
    let post = |path: &str| {
        format!("POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999\r\n\r\nx")
    };
    let mut client = house.client();
    client.send(post("echo"));
    assert_eq!(client.answer().code(), "payload_too_large");
    // Even when the handler would take it: setting that much aside would abort this process.
    let mut client = house.client();
    client.send(post("bottomless"));
    assert_eq!(client.answer().code(), "request_timeout");
    let chunks = "POST /bottomless HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = house.client();
    client.send(format!("{chunks}7fffffffffffffff\r\nx"));
    assert_eq!(client.answer().code(), "request_timeout");
    house.check_alive();
}

#[test]
fn connections_that_come_together_are_all_answered() {
    let house = House::new();
    let mut clients: Vec<Client> = (0..64).map(|_| house.client()).collect();
    for client in &mut clients {
        client.send(HELLO);
    }
    for client in &mut clients {
        assert_eq!(client.answer().status, 200);
    }
    // All are still open, so none was served because another had left.
    assert_eq!(house.server.counters().open, 64);
    drop(clients);
    assert!(house.comes_to(0));
}

#[test]
fn running_out_of_descriptors_stops_nothing() {
    if std::env::var_os(ALONE).is_some() {
        return without_descriptors();
    }
    // The limit belongs to a process, and the other tests need theirs.
    let name = "http::tests::hostile::running_out_of_descriptors_stops_nothing";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(ALONE, "1")
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn without_descriptors() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || {
        let stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Client { stream, read: Vec::new() }
    };
    // They wait in the backlog, before the server starts.
    let mut clients: Vec<Client> = (0..5).map(|_| connect()).collect();
    let before = getrlimit(Resource::Nofile);
    let highest = clients.iter().map(|client| client.stream.as_raw_fd()).max().unwrap();
    let none_left = Rlimit { current: Some(highest as u64 + 1), ..before };
    setrlimit(Resource::Nofile, none_left).unwrap();
    let house = House::on(listener, |_| {});
    let deadline = Instant::now() + PATIENCE;
    while house.server.counters().accept_errors < 3 {
        assert!(Instant::now() < deadline, "accept did not fail");
        house.server.registry().pause(Duration::from_millis(5));
    }
    assert_eq!(house.server.counters().accepted, 0);
    setrlimit(Resource::Nofile, before).unwrap();
    for client in &mut clients {
        client.send(HELLO);
        assert_eq!(client.answer().status, 200);
    }
    let start = Instant::now();
    setrlimit(Resource::Nofile, none_left).unwrap();
    drop(clients.pop());
    assert!(house.comes_to(4));
    // The server can be closed while it waits to try again.
    house.server.close(PATIENCE);
    assert!(start.elapsed() < PATIENCE / 4);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_hold_nobody_else() {
    let house = House::new();
    let mut client = house.client();
    let batch: String =
        (0..200).map(|n| format!("GET /seen?n={n} HTTP/1.1\r\nHost: a\r\n\r\n")).collect();
    client.send(batch);
    for number in 0..200 {
        assert_eq!(client.answer().json()["query"][0][1], number.to_string());
    }
    // A stream in front of more requests takes the connection for itself alone.
    let mut client = house.client();
    client.send(format!("GET /stream/held HTTP/1.1\r\nHost: a\r\n\r\n{}", HELLO.repeat(4)));
    assert_eq!(house.report(), "held");
    house.check_alive();
}

#[test]
fn half_sent_bodies_hold_their_own_threads_until_the_deadline() {
    let house = House::with(|limits| limits.body_ms = 400);
    let mut halves: Vec<Client> = (0..8).map(|_| house.client()).collect();
    for half in &mut halves {
        half.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
    }
    house.check_alive();
    for half in &mut halves {
        let reply = half.answer();
        assert_eq!((reply.status, reply.code().as_str()), (408, "request_timeout"));
    }
    drop(halves);
    assert!(house.comes_to(0));
}

/// Sends the bytes one by one, each well within any timeout of a single read, until it is answered.
fn drip(client: &mut Client, bytes: impl IntoIterator<Item = u8>) -> u16 {
    for byte in bytes {
        if client.try_send([byte]).is_err() || client.hears_within(Duration::from_millis(50)) {
            break;
        }
    }
    client.answer().status
}

#[test]
fn slow_senders_end_at_the_deadline_of_the_whole() {
    let house = House::with(|limits| (limits.head_ms, limits.body_ms) = (1000, 1000));
    let start = Instant::now();
    let endless = || std::iter::repeat_n(b'a', 400);
    assert_eq!(drip(&mut house.client(), HELLO.bytes().take(10).chain(endless())), 408);
    let mut client = house.client();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n");
    assert_eq!(drip(&mut client, endless()), 408);
    let mut client = house.client();
    client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(drip(&mut client, "1\r\na\r\n".bytes().cycle().take(400)), 408);
    // 400 bytes at this pace are 20 s each.
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
fn silent_connections_are_closed() {
    let house = House::with(|limits| (limits.head_ms, limits.idle_ms) = (1000, 1000));
    let (mut never, mut once) = (house.client(), house.client());
    once.send(HELLO);
    once.answer();
    assert!(never.is_closed() && once.is_closed());
    assert!(house.comes_to(0));
}

#[test]
fn a_request_that_ends_early_is_told_so() {
    let house = House::new();
    for raw in ["GET /hel", "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf"] {
        let mut client = house.client();
        client.send(raw);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(client.answer().code(), "bad_request");
        assert!(client.is_closed());
    }
}

#[test]
fn an_error_reaches_a_client_that_is_still_sending() {
    let house = House::new();
    let bytes = 900_000;
    for path in ["echo", "refuse"] {
        let mut client = house.client();
        client.send(format!("POST /{path} HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n"));
        client.send(vec![b'x'; bytes]);
        let reply = client.answer();
        assert_eq!(reply.status, if path == "echo" { 413 } else { 403 });
        assert!(client.is_closed());
    }
    // Who sends on without end is cut off all the same.
    let mut client = house.client();
    client.send("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\n");
    let deadline = Instant::now() + PATIENCE;
    while client.try_send(vec![b'x'; 65536]).is_ok() {
        assert!(Instant::now() < deadline, "the server reads for ever");
    }
    drop(client);
    assert!(house.comes_to(0));
}

#[test]
fn a_client_that_resets_ends_only_its_thread() {
    let house = House::new();
    for _ in 0..8 {
        let mut client = house.client();
        client.send(format!("GET /big/30000000 HTTP/1.1\r\nHost: a\r\n\r\n{HELLO}"));
        client.head();
        // Closing with unread bytes sends a reset.
        drop(client);
    }
    assert!(house.comes_to(0));
    house.check_alive();
}

#[test]
fn a_client_that_does_not_read_is_left_at_the_deadline() {
    let house = House::with(|limits| limits.write_ms = 300);
    let mut client = house.client();
    client.send("GET /big/30000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    client.head();
    house.check_alive();
    assert!(house.comes_to(0));
    assert!(client.rest().len() < 30_000_000);
}

#[test]
fn a_panic_costs_one_connection() {
    let house = House::new();
    for path in ["panic", "panic-early"] {
        let mut client = house.client();
        client.send(format!("GET /{path} HTTP/1.1\r\nHost: a\r\n\r\n{HELLO}"));
        let reply = client.answer();
        assert_eq!((reply.status, reply.code().as_str()), (500, "internal"));
        assert!(reply.has("Connection: close"));
        assert_eq!(client.rest(), b"");
    }
    assert!(house.comes_to(0));
    assert_eq!(house.server.counters().panics, 2);
    house.check_alive();
}

#[test]
fn a_panic_outside_of_the_handler_is_counted_and_gives_the_place_back() {
    let house = House::with(|limits| limits.connections = 1);
    for count in 1..=3 {
        let mut client = house.client();
        client.send("HEAD /mine HTTP/1.1\r\nHost: a\r\n\r\n");
        assert!(client.head().starts_with("HTTP/1.1 200"));
        assert_eq!(client.rest(), b"");
        assert!(house.comes_to(0));
        assert_eq!(house.server.counters().panics, count);
    }
    assert_eq!(house.server.counters().refused, 0);
    house.check_alive();
}

#[test]
fn a_connection_too_many_is_told_to_come_again() {
    let house = House::with(|limits| limits.connections = 3);
    let mut clients: Vec<Client> = (0..3).map(|_| house.client()).collect();
    for client in &mut clients {
        client.send(HELLO);
        assert_eq!(client.answer().status, 200);
    }
    // More than the server keeps half closed; each sends its request like any other.
    for _ in 0..40 {
        let mut refused = house.client();
        refused.send(HELLO);
        let reply = refused.answer();
        assert_eq!((reply.status, reply.code().as_str()), (503, "capacity"));
        assert!(reply.has("Retry-After: 1") && reply.has("Connection: close"));
        assert!(refused.is_closed());
    }
    clients[0].send(HELLO);
    assert_eq!(clients[0].answer().status, 200);
    drop(clients.pop());
    assert!(house.comes_to(2));
    house.check_alive();
    let counters = house.server.counters();
    assert_eq!((counters.accepted, counters.refused), (4, 40));
}

#[test]
fn noise_is_answered_or_closed() {
    let house = House::new();
    let seed = "POST /echo?a=%20 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                5\r\nhello\r\n0\r\n\r\n";
    let mut state: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..300 {
        let mut bytes = seed.as_bytes().to_vec();
        for _ in 0..=random(3) {
            let at = random(bytes.len());
            match random(3) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at + 1),
                _ => bytes.insert(at, b"\r\n \t:;%0"[random(8)]),
            }
        }
        let mut client = house.client();
        client.send(&bytes);
        client.stream.shutdown(std::net::Shutdown::Write).unwrap();
        let heard = client.rest();
        let is_answer = heard.is_empty() || heard.starts_with(b"HTTP/1.1 ");
        assert!(is_answer, "{:?}", String::from_utf8_lossy(&bytes));
    }
    assert!(house.comes_to(0));
    assert_eq!(house.server.counters().panics, 0);
}
