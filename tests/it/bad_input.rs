//! What the server says to requests that are wrong: paths, methods, tokens, bodies, queries.
//!
//! Each error is JSON with `error` and `code`, names what was wrong, and changes nothing.

use crate::stage::{JSON, Stage, check_error, check_told};
use gooselake_harness::client::{Headers, Reply};
use serde_json::json;
use std::collections::BTreeSet;

#[test]
fn a_path_that_is_none_is_404_with_and_without_a_token() {
    let stage = Stage::new();
    for client in [&stage.anonymous(), &stage.client] {
        for path in ["/", "/v1", "/v1/nothing", "/v1/sessions/", "/v1//sessions", "/v2/sessions"] {
            for method in ["GET", "POST", "DELETE"] {
                let reply = client.request(method, path, &[], b"");
                check_told(&reply, 404, "not_found", path);
            }
        }
    }
}

#[test]
fn a_method_that_is_none_is_405_for_those_who_may_know() {
    let stage = Stage::new();
    let allow = |reply: &Reply| -> BTreeSet<String> {
        let allow = reply.header("allow").unwrap_or_default();
        allow.split(", ").map(str::to_owned).collect()
    };
    let set = |methods: &[&str]| methods.iter().map(|method| (*method).to_owned()).collect();
    for (method, path, allowed) in [
        ("PUT", "/v1/sessions", &["GET", "HEAD", "POST"][..]),
        ("OPTIONS", "/v1/sessions", &["GET", "HEAD", "POST"]),
        ("PATCH", "/v1/sessions/sess_1", &["GET", "HEAD", "DELETE"]),
        ("POST", "/health", &["GET", "HEAD"]),
        ("DELETE", "/v1/events/stream", &["GET", "HEAD"]),
        ("GET", "/v1/sessions/sess_1/close", &["POST"]),
    ] {
        check_error(&stage.anonymous().request(method, path, &[], b""), 401, "unauthorized");
        let reply = stage.client.request(method, path, &[], b"");
        check_told(&reply, 405, "method_not_allowed", method);
        assert_eq!(allow(&reply), set(allowed), "{reply}");
    }
}

#[test]
fn a_head_request_is_answered_without_a_body() {
    let stage = Stage::new();
    for path in ["/health", "/v1/sessions", "/v1/version"] {
        let whole = stage.client.get(path).expect(200);
        let head = stage.client.request("HEAD", path, &[], b"").expect(200);
        assert!(head.body.is_empty());
        assert_eq!(head.header("content-length"), whole.header("content-length"));
    }
    assert_eq!(stage.anonymous().request("HEAD", "/v1/sessions", &[], b"").status, 401);
    assert_eq!(stage.client.request("HEAD", "/v1/events/stream", &[], b"").status, 200);
}

#[test]
fn only_the_exact_bearer_token_opens_the_door() {
    let stage = Stage::new();
    let token = stage.server.token();
    let anonymous = stage.anonymous();
    for value in [
        String::new(),
        "Bearer".to_owned(),
        "Bearer ".to_owned(),
        format!("bearer {token}"),
        format!("Bearer  {token}"),
        format!("Basic {token}"),
        token.clone(),
        format!("Bearer {token}x"),
        format!("Bearer {}", &token[1..]),
    ] {
        let reply = anonymous.request("GET", "/v1/sessions", &[("Authorization", &value)], b"");
        check_error(&reply, 401, "unauthorized");
    }
    let reply = anonymous.get(&format!("/v1/sessions?token={token}"));
    assert_eq!(
        reply.text(),
        r#"{"error":"missing or invalid bearer token","code":"unauthorized"}"#
    );
    check_error(&reply, 401, "unauthorized");
    assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
    anonymous.get("/health").expect(200);
    anonymous.get("/ready").expect(200);
}

#[test]
fn a_body_that_is_not_what_it_must_be_names_the_field() {
    let stage = Stage::new();
    let post = |body: &str| stage.client.request("POST", "/v1/sessions", &[JSON], body.as_bytes());
    for body in ["", "{", "nonsense", "[]", "\"text\"", "null", "{} {}", "{\"provider\": }"] {
        check_error(&post(body), 400, "bad_request");
    }
    check_told(&post("{"), 400, "bad_request", "the body is not JSON");
    check_told(&post("{}"), 400, "bad_request", "provider: this field is needed");
    // Values in the order in which the server happens to declare its fields are no session.
    let values = "[\"demo\",null,null,null,null,null,null,null,null,null,null,null,true]";
    check_told(&post(values), 400, "bad_request", "send a JSON object");
    for (body, field) in [
        ("{}", "provider"),
        (r#"{"provider": 7}"#, "provider"),
        (r#"{"provider": "demo", "env": {"A": 1}}"#, "env.A"),
        (r#"{"provider": "demo", "env": []}"#, "env"),
        (r#"{"provider": "demo", "wait": "yes"}"#, "wait"),
        (r#"{"provider": "demo", "provider": "demo"}"#, "provider"),
        (r#"{"provider": "demo", "colour": "red"}"#, "colour"),
    ] {
        check_told(&post(body), 400, "bad_request", field);
    }
    let deep = format!("{{\"provider\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    check_error(&post(&deep), 400, "bad_request");
    assert_eq!(stage.get("/v1/sessions"), json!([]));
}

/// Such metadata would make every list of sessions unreadable for a client whose parser has a bound, as most have.
#[test]
fn metadata_that_nests_without_measure_is_refused() {
    let stage = Stage::new();
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    let body = format!("{{\"provider\": \"demo\", \"metadata\": {nested}}}");
    let reply = stage.client.request("POST", "/v1/sessions", &[JSON], body.as_bytes());
    check_told(&reply, 400, "bad_request", "metadata");
    assert_eq!(stage.get("/v1/sessions"), json!([]));
}

#[test]
fn an_unknown_field_is_ignored_for_a_client_that_asks_for_that() {
    let stage = Stage::new();
    let fields = json!({"colour": "red"});
    check_told(&stage.post_session(&fields, &[]), 400, "bad_request", "colour");
    let strict: Headers = &[("X-Gooselake-Lenient", "0")];
    check_told(&stage.post_session(&fields, strict), 400, "bad_request", "colour");
    let session = stage.post_session(&fields, &[("X-Gooselake-Lenient", "1")]).expect(200).json();
    assert_eq!((&session["status"], &session["colour"]), (&json!("ready"), &json!(null)));
}

#[test]
fn a_body_must_say_that_it_is_json() {
    let stage = Stage::new();
    let body = json!({"provider": "demo", "cwd": stage.cwd}).to_string();
    let post =
        |headers: Headers| stage.client.request("POST", "/v1/sessions", headers, body.as_bytes());
    for media in ["text/plain", "application/jsonp", "application/x-www-form-urlencoded", "json"] {
        check_error(&post(&[("Content-Type", media)]), 415, "unsupported_media_type");
    }
    check_error(&post(&[]), 415, "unsupported_media_type");
    let session = post(&[("Content-Type", "Application/JSON; charset=utf-8")]).expect(200).json();
    // Where a body may be left out, it may; what comes has to be JSON all the same.
    let close = format!("/v1/sessions/{}/close", session["id"].as_str().unwrap());
    let reply = stage.client.request("POST", &close, &[("Content-Type", "text/plain")], b"now");
    check_error(&reply, 415, "unsupported_media_type");
    check_error(&stage.client.request("POST", &close, &[JSON], b""), 400, "bad_request");
    let reply = stage.client.request("POST", &close, &[JSON], b"{\"why\": 1}");
    check_told(&reply, 400, "bad_request", "why");
    stage.client.request("POST", &close, &[JSON], b"{\"reason\": \"done\"}").expect(200);
}

#[test]
fn a_body_that_is_too_large_is_refused_before_it_comes() {
    let stage = Stage::with_config("[limits]\nmax_image_bytes = 1000\n");
    for length in ["3000000", "99999999999999"] {
        let headers = [JSON, ("Content-Length", length)];
        let reply = stage.client.request("POST", "/v1/sessions", &headers, b"{");
        check_error(&reply, 413, "payload_too_large");
    }
    let reply = stage.client.request("GET", "/v1/sessions", &[("Content-Length", "100000")], b"");
    check_error(&reply, 413, "payload_too_large");
    stage.client.get("/health").expect(200);
}

#[test]
fn a_query_value_that_is_none_is_named() {
    let stage = Stage::new();
    let session_id = stage.session();
    let of_session = |path: &str| format!("/v1/sessions/{session_id}{path}");
    for (path, name) in [
        ("/v1/sessions?limit=x".to_owned(), "limit"),
        ("/v1/sessions?limit=-1".to_owned(), "limit"),
        ("/v1/sessions?status=asleep".to_owned(), "status"),
        ("/v1/sessions?cursor=x".to_owned(), "cursor"),
        ("/v1/approvals?status=x".to_owned(), "status"),
        ("/v1/approvals?cursor=x".to_owned(), "cursor"),
        ("/v1/events?kinds=Turn".to_owned(), "kinds"),
        (format!("/v1/events?kinds={}", many_kinds()), "kinds"),
        (format!("/v1/events/stream?until={}", many_kinds()), "until"),
        ("/v1/events?order=up".to_owned(), "order"),
        ("/v1/events?after_seq=x".to_owned(), "after_seq"),
        ("/v1/events?critical_only=1".to_owned(), "critical_only"),
        ("/v1/events/stream?until=;".to_owned(), "until"),
        ("/v1/events/stream?control=x".to_owned(), "control"),
        ("/v1/events/stream?limit=-5".to_owned(), "limit"),
        ("/v1/events/stream?cursor=5".to_owned(), "after_seq"),
        ("/v1/events/stream?after_seq=soon".to_owned(), "after_seq"),
        (of_session("/turns?status=x"), "status"),
        (of_session("/turns?limit=1.5"), "limit"),
        (of_session("/transcript?cursor=x"), "cursor"),
        (of_session("/events?before_seq=x"), "before_seq"),
        (of_session("/turns/turn_0?wait_ms=-1"), "wait_ms"),
        ("/v1/processes/proc_0?wait_ms=-1".to_owned(), "wait_ms"),
    ] {
        check_told(&stage.client.get(&path), 400, "bad_request", name);
    }
    let turn = json!({"input": ["instant"]});
    for query in ["wait=yes", "wait=true&timeout_ms=x", "wait=true&timeout_ms=-1"] {
        let reply = stage.client.post(&of_session(&format!("/turns?{query}")), &turn);
        check_error(&reply, 400, "bad_request");
    }
    let reply = stage.client.delete(&of_session("?purge=yes"));
    check_told(&reply, 400, "bad_request", "purge");
    assert_eq!(stage.record(&session_id)["status"], "ready");
    assert_eq!(stage.get(&of_session("/turns")), json!([]));
}

#[test]
fn a_session_that_is_not_there_is_404_everywhere() {
    let stage = Stage::new();
    let session_id = stage.session();
    let none = "/v1/sessions/sess_0";
    for path in [
        "",
        "/turns",
        "/turns/turn_1",
        "/turns/turn_1/items",
        "/transcript",
        "/approvals",
        "/approvals/apr_1",
        "/events",
        "/events/stream",
    ] {
        check_error(&stage.client.get(&format!("{none}{path}")), 404, "not_found");
    }
    check_error(&stage.client.get("/v1/approvals?session_id=sess_0"), 404, "not_found");
    check_error(&stage.client.delete(none), 404, "not_found");
    check_error(&stage.client.delete("/v1/sessions/sess_0?purge=true"), 404, "not_found");
    for (path, body) in [
        ("/turns", json!({"input": ["instant"]})),
        ("/approvals/apr_1", json!({"decision": "accept"})),
        ("/close", json!({})),
        ("/resume", json!({})),
        ("/turns/turn_1/interrupt", json!({})),
    ] {
        check_error(&stage.client.post(&format!("{none}{path}"), &body), 404, "not_found");
    }
    // The session is there, the turn and the approval are not.
    let there = format!("/v1/sessions/{session_id}");
    for path in ["/turns/turn_1", "/turns/turn_1/items", "/approvals/apr_1"] {
        check_error(&stage.client.get(&format!("{there}{path}")), 404, "not_found");
    }
    check_error(&stage.interrupt(&session_id, "turn_1"), 404, "not_found");
    let accept = json!({"decision": "accept"});
    let reply = stage.client.post(&format!("{there}/approvals/apr_1"), &accept);
    check_error(&reply, 404, "not_found");
}

#[test]
fn a_session_that_can_not_be_is_not_made() {
    let stage = Stage::new();
    let file = stage.cwd.join("file");
    std::fs::write(&file, "x").unwrap();
    for (fields, part) in [
        (json!({"cwd": stage.cwd.join("nowhere")}), "nowhere"),
        (json!({"cwd": file}), "cwd"),
        (json!({"provider": "oracle"}), "oracle"),
        (json!({"agent": "other"}), "other"),
        (json!({"worktree": {"name": "x", "bogus": 1}}), "worktree.bogus:"),
        (json!({"env": {"A=B": "x"}}), "env"),
        (json!({"env": {"": "x"}}), "env"),
        (json!({"env": {"A": "x\u{0}"}}), "env"),
        (json!({"mcp_servers": {}}), "mcp_servers"),
        (json!({"mcp_servers": ["echo"]}), "mcp_servers[0]"),
        (json!({"mcp_servers": [{"command": "x"}]}), "mcp_servers[0]"),
        (json!({"mcp_servers": [{"name": "x"}]}), "mcp_servers[0]"),
        (json!({"mcp_servers": [{"name": "", "command": "x"}]}), "mcp_servers[0]"),
        (json!({"mcp_servers": [{"name": "x", "command": "x", "args": "-v"}]}), "mcp_servers[0]"),
        (json!({"mcp_servers": [{"name": "x", "command": "x", "env": 7}]}), "mcp_servers[0]"),
    ] {
        check_told(&stage.post_session(&fields, &[]), 400, "bad_request", part);
    }
    let fields = json!({"provider": "acp"});
    check_told(&stage.post_session(&fields, &[]), 404, "not_found", "acp");
    assert_eq!(stage.get("/v1/sessions"), json!([]));
}

/// More names than a filter takes, each of them another.
fn many_kinds() -> String {
    let letter = |number: u8| char::from(b'a' + number);
    let names = (0..26).flat_map(|one| (0..26).map(move |two| [letter(one), letter(two)]));
    names.map(|name| name.iter().collect()).collect::<Vec<String>>().join(",")
}
