//! What is understood, and what is refused because it could be understood in two ways.

use super::{Client, House};
use serde_json::json;
use std::net::Shutdown;

/// One request on a connection of its own: refused with this status, and then closed.
fn check_refused(house: &House, raw: &str, status: u16) {
    let mut client = house.client();
    client.send(raw);
    let reply = client.answer();
    assert_eq!(reply.status, status, "{raw:?}: {}", reply.json());
    assert!(reply.json()["error"].is_string() && !reply.code().is_empty(), "{raw:?}");
    assert!(reply.has("Connection: close"), "{raw:?}");
    assert!(client.is_closed(), "{raw:?}");
}

fn check_echo(client: &mut Client, raw: &str, body: &str) {
    client.send(raw);
    let reply = client.answer();
    assert_eq!((reply.status, String::from_utf8(reply.body).unwrap().as_str()), (200, body));
}

#[test]
fn a_head_reaches_the_handler_whole() {
    let house = House::new();
    let mut client = house.client();
    client.send(
        "\r\nGET /seen?a=%C3%A4&b HTTP/1.1\r\nhOsT: x.test:80\r\n\
         X-Two:  1 \r\nX-Two:\t2\r\nX-No:\r\n\r\n",
    );
    let expected = json!({
        "method": "GET", "target": "/seen?a=%C3%A4&b", "path": ["seen"],
        "query": [["a", "ä"], ["b", ""]], "http11": true, "peer_ip": "127.0.0.1",
        "headers": ["hOsT=x.test:80", "X-Two=1", "X-Two=2", "X-No="],
    });
    assert_eq!(client.answer().json(), expected);
}

#[test]
fn a_target_may_name_the_host_if_it_is_the_same() {
    let house = House::new();
    let mut client = house.client();
    client.send("GET http://A.test:1?q=1 HTTP/1.1\r\nHost: a.test:1\r\n\r\n");
    let seen = client.answer().json();
    assert_eq!((&seen["path"], &seen["query"]), (&json!([]), &json!([["q", "1"]])));
    client.send("OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().json()["target"], "*");
    for target in ["http://b.test/seen", "http:///seen", "https://a/seen", "a:80", "seen", "*"] {
        check_refused(&house, &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
    }
    check_refused(&house, "GET http://a/ HTTP/1.0\r\n\r\n", 400);
}

#[test]
fn a_method_is_the_handlers_business() {
    let house = House::new();
    let mut client = house.client();
    client.send("BREW /method HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.answer();
    assert_eq!((reply.status, reply.code().as_str()), (405, "method_not_allowed"));
    assert!(reply.has("Allow: GET"));
    client.send("GET /method HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_head_that_two_readers_could_read_in_two_ways_is_refused() {
    let house = House::new();
    let heads = [
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        "GET / HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\0: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\0c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{7f}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nNoColon\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n",
        "GET /ä HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: ä\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /\r\nHost: a\r\n\r\n",
        "GET\r\n\r\n",
        "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?a=%ff HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer a\r\nauthorization: Bearer b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nOrigin: null\r\nOrigin: null\r\n\r\n",
        "\x16\x03\x01\x02",
    ];
    for head in heads {
        check_refused(&house, head, 400);
    }
    house.check_alive();
}

#[test]
fn there_is_one_host() {
    let house = House::new();
    for fields in [
        "",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host:\r\n",
        "Host: a, b\r\n",
        "Host: a/b\r\n",
        "Host: u@a\r\n",
    ] {
        check_refused(&house, &format!("GET / HTTP/1.1\r\n{fields}\r\n"), 400);
    }
    let mut client = house.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(client.answer().status, 200);
}

#[test]
fn a_body_has_one_length() {
    let house = House::new();
    for fields in [
        "Content-Length: bad\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding:\r\n",
    ] {
        let raw = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{fields}\r\nhello");
        check_refused(&house, &raw, 400);
    }
    check_refused(
        &house,
        "POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    );
}

#[test]
fn a_counted_body_is_read_and_the_next_request_is_found() {
    let house = House::new();
    let mut client = house.client();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    check_echo(&mut client, &format!("{post}hello"), "hello");
    // In two pieces, with the next request behind it.
    client.send(format!("{post}wo"));
    check_echo(&mut client, &format!("rld{post}again"), "world");
    check_echo(&mut client, "", "again");
    let exact = format!("{}{}", post.replace(": 5", ": 1000"), "y".repeat(1000));
    check_echo(&mut client, &exact, &"y".repeat(1000));
    assert_eq!(house.server.counters().accepted, 1);
    check_refused(&house, &post.replace(": 5", ": 1001"), 413);
}

#[test]
fn chunks_are_put_together() {
    let house = House::new();
    let mut client = house.client();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n";
    let two = "3\r\nhel\r\n002;ext=\"1\"\r\nlo\r\n0\r\n\r\n";
    check_echo(&mut client, &format!("{post}{two}"), "hello");
    check_echo(&mut client, &format!("{post}0\r\nX-Trailer: dropped\r\n\r\n"), "");
    // Byte by byte, and twice, to see that the end is found.
    for byte in format!("{post}{two}{post}a\r\n0123456789\r\n0\r\n\r\n").bytes() {
        client.send([byte]);
    }
    check_echo(&mut client, "", "hello");
    check_echo(&mut client, "", "0123456789");
    assert_eq!(house.server.counters().accepted, 1);
}

#[test]
fn chunks_are_read_strictly() {
    let house = House::new();
    let post = "POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let long_line = format!("1;{}\r\nx\r\n", "e".repeat(128));
    let no_line_end = "1".repeat(5000);
    let trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(17));
    for (chunks, status) in [
        ("5\nhello\r\n0\r\n\r\n", 400),
        ("5 \r\nhello\r\n0\r\n\r\n", 400),
        ("+5\r\nhello\r\n0\r\n\r\n", 400),
        ("0x5\r\nhello\r\n0\r\n\r\n", 400),
        ("\r\nhello\r\n0\r\n\r\n", 400),
        ("g\r\n", 400),
        ("00000000000000005\r\nhello\r\n", 400),
        ("5\r\nhelloX\r\n0\r\n\r\n", 400),
        ("5\r\nhello\n0\r\n\r\n", 400),
        ("1;\0\r\nx\r\n", 400),
        (&long_line, 400),
        (&no_line_end, 400),
        (&trailers, 400),
        ("3e9\r\n", 413),
        ("ffffffffffffffff\r\n", 413),
        ("3e8\r\n", 400),
    ] {
        let mut client = house.client();
        client.send(format!("{post}{chunks}"));
        client.stream.shutdown(Shutdown::Write).unwrap();
        let reply = client.answer();
        assert_eq!(reply.status, status, "{chunks:?}: {}", reply.json());
        assert!(client.is_closed(), "{chunks:?}");
    }
}

#[test]
fn a_client_that_asks_first_is_told_to_go_on_only_when_the_body_is_wanted() {
    let house = House::new();
    let mut client = house.client();
    let ask = |path: &str, length: u32| {
        format!(
            "POST /{path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    };
    client.send(ask("echo", 5));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    check_echo(&mut client, "hello", "hello");
    // Nothing to wait for: no body, or the body is there already.
    check_echo(&mut client, &ask("echo", 0), "");
    check_echo(&mut client, &format!("{}early", ask("echo", 5)), "early");
    check_refused(&house, &ask("refuse", 5), 403);
    check_refused(&house, &ask("echo", 1001), 413);
}

#[test]
fn a_connection_goes_on_as_its_version_and_its_words_say() {
    let house = House::new();
    for (version, fields, goes_on) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, Close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
    ] {
        let mut client = house.client();
        let raw = format!("GET /hello HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        client.send(&raw);
        let reply = client.answer();
        assert_eq!(reply.has("Connection: close"), !goes_on, "{raw:?}");
        assert_eq!(reply.has("Connection: keep-alive"), goes_on && version == "1.0", "{raw:?}");
        if goes_on {
            client.send(&raw);
            assert_eq!(client.answer().status, 200, "{raw:?}");
        } else {
            assert!(client.is_closed(), "{raw:?}");
        }
    }
}

#[test]
fn an_early_refusal_keeps_the_connection_only_without_a_body() {
    let house = House::new();
    let mut client = house.client();
    client.send("GET /refuse HTTP/1.1\r\nHost: a\r\n\r\nGET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().code(), "forbidden");
    assert_eq!(client.answer().status, 200);
    // The body reads like a request and must not be taken for one.
    let body = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
    let post =
        format!("POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    check_refused(&house, &post, 403);
}

#[test]
fn an_answer_has_the_length_of_its_body() {
    let house = House::new();
    let mut client = house.client();
    let named = "/hello HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-1\r\n\r\n";
    client.send(format!("HEAD {named}GET {named}"));
    let (head, get) = (client.answer_to("HEAD"), client.answer());
    assert_eq!(head.head, get.head);
    assert!(get.has("Content-Length: 14") && get.has("Content-Type: application/json"));
    assert_eq!(get.body, br#"{"hello":true}"#);
    client.send("GET /empty HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-2\r\n\r\n");
    client.send("GET /shared HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().head, "HTTP/1.1 204 No Content\r\nX-Request-Id: r-2\r\n\r\n");
    assert_eq!(client.answer().body, b"kept");
    client.send("GET /big/5000000 HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(client.answer().body, vec![b'x'; 5_000_000]);
    client.send("GET /evil HTTP/1.1\r\nHost: a\r\n\r\n");
    let reply = client.answer();
    assert_eq!((reply.status, reply.code().as_str()), (500, "internal"));
    assert!(!reply.head.contains("evil") && client.is_closed());
}

#[test]
fn every_answer_names_its_request() {
    let house = House::new();
    let named = |head: &str| -> String {
        let line = head.lines().find_map(|line| line.strip_prefix("X-Request-Id: "));
        line.unwrap_or_else(|| panic!("no name in {head}")).to_owned()
    };
    let mut seen = Vec::new();
    // What has no name of its own, or none that can be taken, gets one; also what is no request.
    for head in [
        "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(),
        "GET /refuse HTTP/1.1\r\nHost: a\r\nX-Request-Id: a b\r\n\r\n".to_owned(),
        format!("GET /hello HTTP/1.1\r\nHost: a\r\nX-Request-Id: {}\r\n\r\n", "x".repeat(129)),
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let mut client = house.client();
        client.send(&head);
        let name = named(&client.answer().head);
        assert!(name.starts_with("req_") && name.len() == 36, "{name} for {head}");
        assert!(!seen.contains(&name), "{name} comes twice");
        seen.push(name);
    }
    // A good one is kept, for its own request only.
    let mut client = house.client();
    client.send("GET /refuse HTTP/1.1\r\nHost: a\r\nx-request-id: trace-7/1\r\n\r\n");
    assert_eq!(named(&client.answer().head), "trace-7/1");
    client.send("GET /hello HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(named(&client.answer().head).starts_with("req_"));
}

#[test]
fn a_head_has_a_size() {
    let house = House::with(|limits| {
        limits.head_bytes = 2000;
        limits.headers = 3;
    });
    let fill = |bytes: usize| {
        let frame = "GET /hello HTTP/1.1\r\nHost: a\r\nX: \r\n\r\n".len();
        format!("GET /hello HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(bytes - frame))
    };
    let mut client = house.client();
    for raw in [&fill(2000), "GET /hello HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n", &fill(1999)]
    {
        client.send(raw);
        assert_eq!(client.answer().status, 200);
    }
    for raw in [
        &fill(2001),
        &format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "y".repeat(3000)),
        &"z".repeat(2000),
        "GET /hello HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n",
    ] {
        let mut client = house.client();
        client.send(raw);
        let reply = client.answer();
        assert_eq!((reply.status, reply.code().as_str()), (431, "head_too_large"), "{raw:?}");
        assert!(client.is_closed());
    }
}
