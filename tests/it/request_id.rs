//! The name of a request: the answer has it, and so has the log.

use crate::stage::{SOON, Stage, check_error};
use gooselake_harness::server::{Options, Server};
use gooselake_harness::wait;

#[test]
fn an_error_is_found_in_the_log_by_the_name_of_its_request() {
    let env = vec![("RUST_LOG".to_owned(), "gooselake=debug".to_owned())];
    let server = Server::start(Options { env, ..Options::default() });
    let client = crate::contract::client(&server);
    for (path, status, code, name) in [
        ("/v1/sessions/sess_0", 404, "not_found", "trace-1/a"),
        ("/v1/sessions?limit=x", 400, "bad_request", "trace-2:b"),
    ] {
        let reply = client.request("GET", path, &[("X-Request-Id", name)], b"");
        check_error(&reply, status, code);
        assert_eq!(reply.header("x-request-id"), Some(name));
        let line = wait::until(SOON, "the error is in the log", || {
            let log = server.stderr_text();
            log.lines()
                .find(|line| line.contains(&format!("(request {name} of ")))
                .map(str::to_owned)
        });
        assert!(line.contains(&format!("answered {status} {code}: ")), "{line}");
    }
}

#[test]
fn a_stream_is_named_like_any_answer() {
    let stage = Stage::new();
    for headers in [&[("X-Request-Id", "one")][..], &[]] {
        let path = "/v1/system/events/stream?limit=1";
        let reply = stage.client.request("GET", path, headers, b"").expect(200);
        let name = reply.header("x-request-id").unwrap_or_default();
        match headers.first() {
            Some((_, given)) => assert_eq!(name, *given),
            None => assert!(name.starts_with("req_"), "{name}"),
        }
    }
}
