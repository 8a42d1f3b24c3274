//! The two eras of MCP, message by message.

use super::*;

const IDENTITY: Identity =
    Identity { name: "test", version: "1", instructions: "Be kind.", is_list_changing: false };

/// The answer to a message; None when there is none. Panics: it needs tools.
fn answer_to(message: &Value) -> Option<Value> {
    match read(message.to_string().as_bytes(), &IDENTITY, None) {
        Read::Answer { body, .. } => Some(body),
        Read::Request(request) => panic!("it needs tools: {request:?}"),
        Read::Nothing => None,
    }
}

fn request(method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params})
}

fn modern(mut params: Value) -> Value {
    params["_meta"] = json!({VERSION_KEY: MODERN, CAPABILITIES_KEY: {}});
    params
}

fn asked(message: &Value) -> Request {
    match read(message.to_string().as_bytes(), &IDENTITY, None) {
        Read::Request(request) => request,
        other => panic!("it needs no tools: {other:?}"),
    }
}

#[test]
fn a_handshake_settles_on_a_version_that_both_know() {
    for (wanted, settled) in [
        ("2024-11-05", "2024-11-05"),
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let result = answer_to(&request("initialize", json!({"protocolVersion": wanted})));
        let result = &result.unwrap()["result"];
        assert_eq!(result["protocolVersion"], settled);
        assert_eq!(result["capabilities"], json!({"tools": {"listChanged": false}}));
        assert_eq!(result["serverInfo"], json!({"name": "test", "version": "1"}));
        assert_eq!(result["instructions"], "Be kind.");
        assert!(result.get("resultType").is_none());
    }
    let error = answer_to(&request("initialize", json!({}))).unwrap();
    assert_eq!(error["error"]["code"], INVALID_PARAMS);
    let pong = answer_to(&request("ping", json!({}))).unwrap();
    assert_eq!(pong, json!({"jsonrpc": "2.0", "id": 7, "result": {}}));
}

#[test]
fn without_a_handshake_each_request_names_its_version_and_each_result_is_complete() {
    let found = answer_to(&request("server/discover", modern(json!({})))).unwrap();
    let result = &found["result"];
    assert_eq!(result["supportedVersions"], json!(VERSIONS));
    assert_eq!(result["resultType"], "complete");
    assert_eq!(result["cacheScope"], "private");
    assert!(result["ttlMs"].is_u64(), "{result}");
    assert_eq!(result["_meta"][SERVER_KEY]["name"], "test");
    let list = asked(&request("tools/list", modern(json!({}))));
    let result = list.listed(&[json!({"name": "a"})])["result"].clone();
    assert_eq!(result["tools"], json!([{"name": "a"}]));
    assert_eq!(result["resultType"], "complete");
    assert!(result["ttlMs"].is_u64() && result["cacheScope"] == "private", "{result}");
    let call = asked(&request("tools/call", modern(json!({"name": "a", "arguments": {"b": 1}}))));
    let arguments = Map::from_iter([("b".to_owned(), json!(1))]);
    assert_eq!(call.ask, Ask::CallTool { name: "a".to_owned(), arguments });
    let result = call.called("text".to_owned(), false)["result"].clone();
    assert_eq!(result["content"], json!([{"type": "text", "text": "text"}]));
    assert_eq!((&result["isError"], &result["resultType"]), (&json!(false), &json!("complete")));
    // What the new era has dropped is not there.
    for method in ["ping", "initialize", "nonsense"] {
        let read = read(request(method, modern(json!({}))).to_string().as_bytes(), &IDENTITY, None);
        let Read::Answer { status, body } = read else { panic!("{read:?}") };
        assert_eq!((status, &body["error"]["code"]), (404, &json!(METHOD_NOT_FOUND)));
    }
}

#[test]
fn an_old_answer_has_nothing_of_the_new_era() {
    let list = asked(&request("tools/list", json!({})));
    let expected = json!({"jsonrpc": "2.0", "id": 7, "result": {"tools": []}});
    assert_eq!(list.listed(&[]), expected);
    let call = asked(&request("tools/call", json!({"name": "a"})));
    assert_eq!(call.ask, Ask::CallTool { name: "a".to_owned(), arguments: Map::new() });
    let text = json!([{"type": "text", "text": "no"}]);
    assert_eq!(
        call.called("no".to_owned(), true)["result"],
        json!({"content": text, "isError": true})
    );
}

#[test]
fn a_version_that_is_not_spoken_is_refused_with_those_that_are() {
    let mut params = modern(json!({}));
    params["_meta"][VERSION_KEY] = json!("2099-01-01");
    let error = answer_to(&request("tools/list", params)).unwrap()["error"].clone();
    assert_eq!(error["code"], UNSUPPORTED_VERSION);
    assert_eq!(error["data"], json!({"supported": VERSIONS, "requested": "2099-01-01"}));
    let mut params = modern(json!({}));
    params["_meta"].as_object_mut().unwrap().remove(CAPABILITIES_KEY);
    let error = answer_to(&request("tools/list", params)).unwrap()["error"].clone();
    assert_eq!(error["code"], INVALID_PARAMS);
    assert!(error["message"].as_str().unwrap().contains(CAPABILITIES_KEY), "{error}");
}

#[test]
fn what_is_no_request_gets_an_error_or_silence() {
    let code = |text: &str| match read(text.as_bytes(), &IDENTITY, None) {
        Read::Answer { body, .. } => body["error"]["code"].as_i64().unwrap(),
        Read::Request(request) => panic!("{request:?}"),
        Read::Nothing => 0,
    };
    for (text, expected) in [
        ("{", PARSE_ERROR),
        ("\u{0}", PARSE_ERROR),
        ("[]", INVALID_REQUEST),
        (r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, INVALID_REQUEST),
        ("7", INVALID_REQUEST),
        ("{}", INVALID_REQUEST),
        (r#"{"id":1,"method":"ping"}"#, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, INVALID_REQUEST),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":{"_meta":1}}"#, INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call"}"#, INVALID_PARAMS),
        (r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}"#, INVALID_PARAMS),
        (
            r#"{"jsonrpc":"2.0","id":"x","method":"tools/call",
                "params":{"name":"a","arguments":7}}"#,
            INVALID_PARAMS,
        ),
        (
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"cursor":"x"}}"#,
            INVALID_PARAMS,
        ),
        (r#"{"jsonrpc":"2.0","id":1,"method":"resources/list"}"#, METHOD_NOT_FOUND),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, 0),
        (r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#, 0),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, 0),
        (&"[".repeat(100_000), PARSE_ERROR),
    ] {
        assert_eq!(code(text), expected, "{}", &text[..text.len().min(80)]);
    }
}

#[test]
fn headers_and_body_must_agree() {
    let headers = |version, method, name| Headers { version, method, name };
    let code = |message: &Value, headers: &Headers<'_>| match read(
        message.to_string().as_bytes(),
        &IDENTITY,
        Some(headers),
    ) {
        Read::Answer { status, body } => (status, body["error"]["code"].as_i64().unwrap_or(0)),
        _ => (200, 0),
    };
    let call = request("tools/call", modern(json!({"name": "a"})));
    let good = headers(Some(MODERN), Some("tools/call"), Some("a"));
    assert_eq!(code(&call, &good), (200, 0));
    for bad in [
        headers(None, Some("tools/call"), Some("a")),
        headers(Some("2025-11-25"), Some("tools/call"), Some("a")),
        headers(Some(MODERN), Some("tools/list"), Some("a")),
        headers(Some(MODERN), None, Some("a")),
        headers(Some(MODERN), Some("tools/call"), Some("b")),
    ] {
        assert_eq!(code(&call, &bad), (400, HEADER_MISMATCH));
    }
    let old = request("tools/call", json!({"name": "a"}));
    assert_eq!(code(&old, &headers(None, None, None)), (200, 0));
    assert_eq!(code(&old, &headers(Some("2025-06-18"), None, None)), (200, 0));
    assert_eq!(code(&old, &headers(Some("1.0"), None, None)), (400, UNSUPPORTED_VERSION));
    assert_eq!(code(&old, &headers(Some(MODERN), None, None)), (400, HEADER_MISMATCH));
}
