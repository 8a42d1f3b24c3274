//! The end of the server: what is under way is finished, and nothing is waited for without a bound.

use super::{House, PATIENCE};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

const HELLO: &str = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn a_quiet_server_closes_at_once() {
    let house = House::new();
    let mut idle = house.client();
    idle.send(HELLO);
    idle.answer();
    let mut silent = house.client();
    assert!(house.comes_to(2));
    let (address, start) = (house.server.address(), Instant::now());
    house.server.close(PATIENCE);
    assert!(start.elapsed() < PATIENCE / 4, "the idle connections were waited for");
    assert!(idle.is_closed() && silent.is_closed());
    assert!(TcpStream::connect(address).is_err());
    // The port is free for the next server.
    drop(TcpListener::bind(address).unwrap());
}

#[test]
fn a_request_under_way_is_answered() {
    let house = House::new();
    let mut client = house.client();
    client.send(format!("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n{HELLO}"));
    assert_eq!(house.report(), "waits");
    let mut second = house.client();
    second.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(house.report(), "waits");
    house.server.stop_accepting();
    house.server.stop_accepting();
    assert!(TcpStream::connect(house.server.address()).is_err());
    house.release.send(()).unwrap();
    house.release.send(()).unwrap();
    let start = Instant::now();
    house.server.close(PATIENCE);
    assert!(start.elapsed() < PATIENCE / 4);
    for client in [&mut client, &mut second] {
        let reply = client.answer();
        assert!(reply.body == b"true" && reply.has("Connection: close"), "{}", reply.head);
    }
    assert!(second.is_closed());
    // The pipelined one is not answered any more; the connection just ends.
    assert_eq!(client.rest(), b"");
}

#[test]
fn a_stream_that_does_not_end_is_cut_at_the_grace() {
    let house = House::with(|limits| limits.write_ms = 60_000);
    let mut flooded = house.client();
    flooded.send("GET /stream/flood HTTP/1.1\r\nHost: a\r\n\r\n");
    flooded.head();
    let mut half = house.client();
    half.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe");
    assert!(house.comes_to(2));
    let start = Instant::now();
    house.server.close(Duration::from_millis(100));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    let report = house.reports.recv_timeout(PATIENCE).unwrap();
    assert!(report.ends_with("BrokenPipe"), "{report}");
    assert!(half.is_closed());
}

#[test]
fn a_handler_that_does_not_return_is_left_behind() {
    let house = House::new();
    let mut client = house.client();
    client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(house.report(), "waits");
    let start = Instant::now();
    house.server.close(Duration::from_millis(50));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert!(client.is_closed());
    // It may still end later, and finds that nobody minds.
    house.release.send(()).unwrap();
}

#[test]
fn a_dropped_server_is_closed() {
    let house = House::new();
    let address = house.server.address();
    let mut client = house.client();
    client.send(HELLO);
    client.answer();
    drop(house);
    assert!(client.is_closed());
    assert!(TcpStream::connect(address).is_err());
}
