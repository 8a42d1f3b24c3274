//! Streams: a thread that writes until it is done or nobody reads.

use super::House;
#[cfg(target_os = "linux")]
use rustix::net::sockopt;
use std::net::Shutdown;

fn get(path: &str) -> String {
    format!("GET /stream/{path} HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-1\r\n\r\n")
}

#[test]
fn a_stream_ends_with_its_connection() {
    let house = House::new();
    let mut client = house.client();
    client.send(get("three"));
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nX-Request-Id: r-1\r\n\
                Connection: close\r\n\r\n";
    assert_eq!(client.head(), head);
    assert_eq!(client.rest(), b"id: 1\n\nid: 2\n\nid: 3\n\n");
    assert_eq!(house.report(), "21");
    assert!(house.comes_to(0));
    // HEAD gets the same head and starts nothing.
    let mut client = house.client();
    client.send(get("three").replace("GET", "HEAD"));
    assert_eq!(client.head(), head);
    assert!(client.is_closed());
    assert!(house.comes_to(0) && house.reports.try_recv().is_err());
}

#[test]
#[cfg(target_os = "linux")]
fn a_quiet_stream_asks_whether_its_peer_is_there() {
    let house = House::new();
    let mut client = house.client();
    client.send(get("held"));
    client.head();
    assert_eq!(house.report(), "held");
    let links = house.server.registry().links();
    let [link] = &links[..] else { panic!("{} connections", links.len()) };
    assert!(sockopt::socket_keepalive(&link.stream).unwrap());
    let idle = sockopt::tcp_keepidle(&link.stream).unwrap();
    let silence_ms = sockopt::tcp_user_timeout(&link.stream).unwrap();
    assert!(idle.as_millis() * 2 < silence_ms.into(), "{idle:?} {silence_ms}");
}

#[test]
fn an_event_is_on_its_way_when_it_is_written() {
    let house = House::new();
    let mut client = house.client();
    client.send(get("held"));
    client.head();
    house.release.send(()).unwrap();
    // The stream is open and goes on: what comes is the first event alone.
    assert_eq!(client.more(), 7);
    assert_eq!(house.server.counters().streams, 1);
}

#[test]
fn a_client_that_left_is_noticed_without_a_write() {
    let house = House::new();
    for says_more in [false, true] {
        let mut client = house.client();
        client.send(get("held"));
        client.head();
        assert_eq!(house.report(), "held");
        // What a client sends into a stream is dropped, and must not hide that it left.
        if says_more {
            client.send(vec![b'x'; 3000]);
        }
        client.stream.shutdown(Shutdown::Write).unwrap();
        house.release.send(()).unwrap();
        assert_eq!(house.report(), "gone: true");
        assert!(client.is_closed(), "nothing was written after the close");
        assert!(house.comes_to(0));
    }
    assert_eq!(house.server.counters().streams, 0);
}

#[test]
fn a_client_that_does_not_read_ends_its_stream_and_no_other() {
    let house = House::with(|limits| limits.write_ms = 300);
    let mut stuck = house.client();
    stuck.send(get("flood"));
    house.check_alive();
    assert_eq!(house.report(), "TimedOut BrokenPipe");
    let bytes: u64 = house.report().parse().unwrap();
    // Our send buffer (the kernel doubles what it is told) and the client's receive buffer, which
    // on loopback grows to 6 MB at most.
    assert!(bytes < 8_000_000, "{bytes} bytes went to a client that reads nothing");
    assert!(house.comes_to(0));
    drop(stuck);
}

#[test]
fn a_stream_that_panics_ends_alone() {
    let house = House::new();
    let mut client = house.client();
    client.send(get("panic"));
    client.head();
    assert!(client.is_closed());
    assert!(house.comes_to(0));
    let counters = house.server.counters();
    assert_eq!((counters.panics, counters.streams), (1, 0));
    house.check_alive();
}
