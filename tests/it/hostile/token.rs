//! Whoever guesses a token, and agents that try theirs on what is not for them.

use super::figure;
use crate::mcp::wiretap::Wiretap;
use crate::stage::{Stage, check_error};
use crate::tidy::routes;
use gooselake_harness::client::Client;

#[test]
fn no_form_of_a_token_but_the_token_opens() {
    let stage = Stage::new();
    let (before, address) = (stage.last_row(), stage.server.address());
    let token = stage.server.token();
    let get = |fields: &str| {
        let mut raw = stage.raw();
        raw.send(format!("GET /v1/sessions HTTP/1.1\r\nHost: {address}\r\n{fields}\r\n"));
        raw.answer().status
    };
    let half = &token[..token.len() / 2];
    let upper = token.to_uppercase();
    assert_ne!(token, upper);
    let long = "a".repeat(15_000);
    let values = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer null",
        "Bearer undefined",
        "Bearer 0",
        &token,
        &format!("bearer {token}"),
        &format!("BEARER {token}"),
        &format!("Bearer  {token}"),
        &format!("Bearer\t{token}"),
        &format!("Bearer: {token}"),
        &format!("Bearer {token} x"),
        &format!("Bearer {token},{token}"),
        &format!("Bearer {token}0"),
        &format!("Bearer {}", &token[1..]),
        &format!("Bearer {}", &token[..token.len() - 1]),
        &format!("Bearer {half}"),
        &format!("Bearer {upper}"),
        &format!("Bearer \"{token}\""),
        &format!("Bearer {token}%00"),
        &format!("Bearer ggt_{token}"),
        "Bearer ggt_",
        &format!("Basic {token}"),
        &format!("Token {token}"),
        &format!("Digest {token}"),
        "Basic Og==",
        &format!("Bearer {long}"),
    ];
    for value in values {
        assert_eq!(get(&format!("Authorization: {value}\r\n")), 401, "{value}");
    }
    // A value that is no printable text never gets as far.
    for value in ["\u{e4}", "\u{0}", "\u{7f}"] {
        assert_eq!(get(&format!("Authorization: Bearer {token}{value}\r\n")), 400, "{value:?}");
    }
    // Nor does it open from anywhere else than its field.
    for fields in [
        format!("Proxy-Authorization: Bearer {token}\r\n"),
        format!("X-Authorization: Bearer {token}\r\n"),
        format!("X-Api-Key: {token}\r\n"),
        format!("Cookie: token={token}; Authorization=Bearer {token}\r\n"),
        format!("Sec-WebSocket-Protocol: bearer, {token}\r\n"),
    ] {
        assert_eq!(get(&fields), 401, "{fields}");
    }
    for query in ["token", "access_token", "authorization", "api_key"] {
        let reply = stage.anonymous().get(&format!("/v1/sessions?{query}={token}"));
        check_error(&reply, 401, "unauthorized");
    }
    // Space around a value is no part of it.
    assert_eq!(get(&format!("Authorization:   Bearer {token}  \r\n")), 200);
    assert_eq!(stage.last_row(), before);
}

#[test]
fn many_guesses_are_counted_told_in_few_lines_and_lock_nobody_out() {
    let stage = Stage::new();
    let unauthorized = "requests_refused_total{code=\"unauthorized\"}";
    assert_eq!(stage.figure(unauthorized), 0);
    let guess = Client::new(stage.server.address(), "guessed-by-somebody");
    for _ in 0..1000 {
        check_error(&guess.get("/v1/sessions"), 401, "unauthorized");
    }
    assert_eq!(stage.figure(unauthorized), 1000);
    // The same caller, from the same address, with the right one.
    stage.client.get("/v1/sessions").expect(200);
    let log = stage.server.stderr_text();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("refused ")).collect();
    assert!(lines[0].ends_with("refused 1 requests; the last: unauthorized of 127.0.0.1"), "{log}");
    // One for each ten seconds that this took, however slow the machine is.
    assert!(lines.len() <= 10, "{log}");
    assert!(!log.contains("guessed-by-somebody") && !log.contains(&stage.server.token()), "{log}");
}

/// Every route, by every method, with and without the base path: an agent's token opens the gateway alone.
#[test]
fn an_agent_gets_nowhere_but_to_the_gateway() {
    let base = "/lake";
    let wiretap = Wiretap::start(&format!("[server]\nbase_path = \"{base}\"\n"));
    let session_id = wiretap.session("one");
    let client = wiretap.client("one");
    let before = wiretap.stage.last_row();
    let json = [("Content-Type", "application/json")];
    let public = ["/health", "/ready", "/openapi.yaml"];
    let mut refused = 0;
    let mut paths: Vec<String> =
        routes().iter().filter_map(|route| Some(route.split_once(' ')?.1.to_owned())).collect();
    paths.sort();
    paths.dedup();
    for pattern in &paths {
        let part = |part: &str| match part {
            "{session_id}" => session_id.clone(),
            part if part.starts_with('{') => "x".to_owned(),
            part => part.to_owned(),
        };
        let path = pattern.split('/').map(part).collect::<Vec<_>>().join("/");
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "get"] {
            for path in [path.clone(), format!("{base}{path}")] {
                let reply = client.request(method, &path, &json, b"");
                let is_open =
                    public.contains(&pattern.as_str()) && matches!(method, "GET" | "HEAD");
                if is_open {
                    reply.expect(200);
                } else if pattern.starts_with("/v1/mcp") {
                    let is_told = matches!(reply.status, 200 | 400 | 405);
                    assert!(is_told, "{method} {path}: {reply}");
                } else {
                    assert_eq!(reply.status, 403, "{method} {path}: {reply}");
                    refused += 1;
                }
            }
        }
    }
    assert!(refused > 1000, "{refused} were tried");
    assert_eq!(wiretap.stage.last_row(), before);
    let page = wiretap.stage.client.get("/metrics").expect(200).text();
    assert_eq!(figure(&page, "requests_refused_total{code=\"forbidden\"}"), refused);
}
