//! Names that lead somewhere else: hosts of other places that resolve to this one, and paths that a reader who
//! normalises them would take for others.

use super::Raw;
use crate::stage::Stage;

/// The status of a request with these lines behind the request line.
fn status(raw: &mut Raw, request: &str) -> u16 {
    raw.send(request);
    raw.answer().status
}

#[test]
fn a_name_that_was_bent_to_this_address_is_not_this_server() {
    let stage = Stage::with_config("[server]\nallowed_hosts = [\"goose.example\"]\n");
    let (port, token) = (stage.server.address().port(), stage.authorization());
    for (host, expected) in [
        (format!("127.0.0.1:{port}"), 200),
        (format!("localhost:{port}"), 200),
        (format!("LOCALHOST:{port}"), 200),
        ("localhost".to_owned(), 200),
        ("localhost:".to_owned(), 200),
        // Another port is a forwarded one; it gives a page nothing, since its origin is another.
        ("127.0.0.1:1".to_owned(), 200),
        ("127.8.9.10".to_owned(), 200),
        (format!("[::1]:{port}"), 200),
        ("[0:0:0:0:0:0:0:1]".to_owned(), 200),
        ("Goose.Example:443".to_owned(), 200),
        ("evil.example".to_owned(), 403),
        (format!("evil.example:{port}"), 403),
        ("127.0.0.1.evil.example".to_owned(), 403),
        ("localhost.evil.example".to_owned(), 403),
        ("evil.example.localhost.evil".to_owned(), 403),
        ("goose.example.evil".to_owned(), 403),
        ("evilgoose.example".to_owned(), 403),
        ("localhost.".to_owned(), 403),
        ("goose.example.".to_owned(), 403),
        ("127.0.0.1.".to_owned(), 403),
        ("127.1".to_owned(), 403),
        ("2130706433".to_owned(), 403),
        ("0x7f000001".to_owned(), 403),
        ("0177.0.0.1".to_owned(), 403),
        ("0.0.0.0".to_owned(), 403),
        ("[::]".to_owned(), 403),
        ("::1".to_owned(), 403),
        ("[::ffff:127.0.0.1]".to_owned(), 403),
        ("[127.0.0.1]".to_owned(), 403),
        ("[::1%25lo]".to_owned(), 403),
        ("[::1].evil.example".to_owned(), 403),
        ("[::1]evil.example:80".to_owned(), 403),
        ("[::1".to_owned(), 403),
        (format!("localhost:{port}:80"), 403),
        ("localhost:evil.example".to_owned(), 403),
        ("localhost:80.evil.example".to_owned(), 403),
        ("localhost%2eevil.example".to_owned(), 403),
        ("user@localhost".to_owned(), 400),
        ("localhost/evil".to_owned(), 400),
        ("localhost evil.example".to_owned(), 400),
        ("localhost,evil.example".to_owned(), 400),
        ("localhost\\evil".to_owned(), 400),
        (String::new(), 400),
    ] {
        let request =
            |path: &str, token: &str| format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{token}\r\n");
        // With the token as without, and for what is public as well: the name is looked at first.
        assert_eq!(status(&mut stage.raw(), &request("/v1/version", &token)), expected, "{host}");
        assert_eq!(status(&mut stage.raw(), &request("/health", "")), expected, "{host}");
    }
    for (request, expected) in [
        ("GET /health HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET /health HTTP/1.1\r\nHost: localhost\r\nhost: evil.example\r\n\r\n".to_owned(), 400),
        ("GET http://localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 200),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        ("GET http://localhost/health HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 400),
        ("GET http://evil.example/health HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 403),
        ("GET http://u:p@localhost/health HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned(), 400),
        // Not the host, so it decides nothing.
        (
            "GET /health HTTP/1.1\r\nHost: evil.example\r\nX-Forwarded-Host: localhost\r\n\r\n"
                .to_owned(),
            403,
        ),
        // Before HTTP/1.1 there was no such field; no browser speaks that.
        ("GET /health HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET /health HTTP/1.0\r\nHost: evil.example\r\n\r\n".to_owned(), 403),
    ] {
        assert_eq!(status(&mut stage.raw(), &request), expected, "{request}");
    }
    let page = stage.client.get("/metrics").expect(200).text();
    assert!(super::figure(&page, "requests_refused_total{code=\"host_not_allowed\"}") > 50);
}

#[test]
fn a_path_is_read_once_and_as_it_is_written() {
    let stage = Stage::new();
    let before = stage.last_row();
    for (path, with_token, without) in [
        ("/health", 200, 200),
        ("/%68ealth", 200, 200),
        ("/%76%31/sessions", 200, 401),
        ("/v1/sessions?x=%2e%2e%2f", 200, 401),
        ("/v1%2fsessions", 404, 404),
        ("/health/../v1/sessions", 404, 404),
        ("/health/..%2fv1/sessions", 404, 404),
        ("/%2e%2e/v1/sessions", 404, 404),
        ("/v1/%2e/sessions", 404, 404),
        ("/./health", 404, 404),
        ("//health", 404, 404),
        ("//evil.example/health", 404, 404),
        ("/v1//sessions", 404, 404),
        ("/v1/sessions/", 404, 404),
        ("/health;x=1", 404, 404),
        ("/health;/v1/sessions", 404, 404),
        ("/health%3f", 404, 404),
        ("/health%23", 404, 404),
        ("/health%20", 404, 404),
        ("/HEALTH", 404, 404),
        ("/\\health", 404, 404),
        ("/v1/sessions/..", 404, 401),
        ("/v1/sessions/%2e%2e%2f%2e%2e%2fetc%2fpasswd", 404, 401),
        ("/v1/processes/..%2f..%2fdata%2fauth%2fapi-token/logs", 404, 401),
        ("/v1/sessions/%27%20OR%201=1--", 404, 401),
        ("/v1/sessions%00", 400, 400),
        ("/health?x=%00", 400, 400),
        ("/v1/sessions/%c0%ae%c0%ae", 400, 400),
        ("/%ff", 400, 400),
        ("/%u002e", 400, 400),
        ("/%", 400, 400),
        ("/health#x", 400, 400),
    ] {
        for (token, expected) in [(stage.authorization(), with_token), (String::new(), without)] {
            let address = stage.server.address();
            let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{token}\r\n");
            assert_eq!(status(&mut stage.raw(), &request), expected, "{path} {token}");
        }
    }
    assert_eq!(stage.last_row(), before);
}
