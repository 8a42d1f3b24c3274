//! The API document against what the server really says.
//!
//! Every test of this program talks over a client that is watched by [`hold`]: each request that the server has taken,
//! and each answer that it has given, must be as `docs/openapi` tells it. A key that is missing, a key that is not
//! told, a status, a code, a header or a parameter that the document does not have: each fails the test that met it.

mod schema;
mod seen;
mod yaml;

use gooselake_harness::client::{Client, Exchange, Reply};
use gooselake_harness::server::Server;
use schema::Schemas;
use serde_json::Value;
use std::sync::OnceLock;

/// A client of the server whose exchanges are held to the document.
pub(crate) fn client(server: &Server) -> Client {
    server.client().watched(hold)
}

/// The document, read once.
fn document() -> &'static Value {
    static DOCUMENT: OnceLock<Value> = OnceLock::new();
    DOCUMENT.get_or_init(|| yaml::read(gooselake::api::openapi::DOCUMENT))
}

/// Panics with all that is not as the document tells it.
pub(crate) fn hold(exchange: &Exchange<'_>) {
    let Reply { status, body, .. } = exchange.reply;
    let media_type = media_type(exchange.reply);
    seen::note(operation_id(exchange.method, exchange.path), *status, media_type, body);
    let wrong = violations(document(), exchange);
    assert!(
        wrong.is_empty(),
        "not as docs/openapi tells it:\n  {}\nasked with {}\n{}",
        wrong.join("\n  "),
        String::from_utf8_lossy(&exchange.body[..exchange.body.len().min(2000)]),
        exchange.reply
    );
}

/// Writes down an error that was told to a test which speaks with the server in its own way.
pub(crate) fn note_error(status: u16, body: &[u8]) {
    seen::note("", status, "application/json", body);
}

/// The name of an operation in the document; empty when there is none.
fn operation_id(method: &str, path: &str) -> &'static str {
    let path = path.split('?').next().unwrap_or_default();
    let found = operation(document(), path).and_then(|found| found.get(member(method)));
    found.and_then(|operation| operation["operationId"].as_str()).unwrap_or_default()
}

/// The name of a method in the document, which has them in lower case. HTTP tells cases apart, so one that is not in
/// upper case is none.
fn member(method: &str) -> String {
    match method.chars().all(|letter| letter.is_ascii_uppercase()) {
        true => method.to_lowercase(),
        false => String::new(),
    }
}

fn media_type(reply: &Reply) -> &str {
    let given = reply.header("content-type").unwrap_or_default();
    given.split(';').next().unwrap_or_default()
}

fn violations(document: &Value, exchange: &Exchange<'_>) -> Vec<String> {
    let schemas = Schemas { document };
    let (path, query) = exchange.path.split_once('?').unwrap_or((exchange.path, ""));
    let reply = exchange.reply;
    let is_head = exchange.method == "HEAD";
    let method = if is_head { "get".to_owned() } else { member(exchange.method) };
    let Some(operation) = operation(document, path).and_then(|found| found.get(&method)) else {
        // A path or a method that is not ours, or a preflight: what comes is an error or has no body.
        let error = &document["components"]["schemas"]["Error"];
        return match reply.status {
            400.. if !is_head => schemas.check_text(&reply.body, error),
            _ => Vec::new(),
        };
    };
    let mut wrong = Vec::new();
    if reply.status < 300 {
        wrong.extend(unknown_parameters(&schemas, operation, query));
        wrong.extend(request(&schemas, operation, exchange));
    }
    wrong.extend(answer(&schemas, operation, reply, is_head));
    wrong
}

/// What the servers of tests have as `server.base_path`, where they have one.
const BASE_PATHS: [&str; 2] = ["/lake", "/gooselake"];

/// The operations of the path, with or without a base path, that fits best: of two patterns the one with fewer names in
/// it.
fn operation<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
    let path = BASE_PATHS.iter().find_map(|base| path.strip_prefix(base)).unwrap_or(path);
    let paths = document["paths"].as_object().unwrap();
    let fits = |pattern: &str| {
        let (mut expected, mut given) = (pattern.split('/'), path.split('/'));
        loop {
            match (expected.next(), given.next()) {
                (None, None) => return true,
                (Some(part), Some(given)) if part == given => {}
                (Some(part), Some(given)) if part.starts_with('{') && !given.is_empty() => {}
                _ => return false,
            }
        }
    };
    let fitting = paths.iter().filter(|(pattern, _)| fits(pattern));
    let best = fitting.min_by_key(|(pattern, _)| pattern.matches('{').count());
    best.map(|(_, operations)| operations)
}

fn unknown_parameters(schemas: &Schemas<'_>, operation: &Value, query: &str) -> Vec<String> {
    let told = operation["parameters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_told = |name: &str| told.iter().any(|one| schemas.resolved(one)["name"] == name);
    let names = query.split('&').filter_map(|pair| pair.split('=').next());
    let unknown = names.filter(|name| !name.is_empty() && !is_told(name));
    unknown.map(|name| format!("the parameter {name} is not told")).collect()
}

/// A body that was taken must be one that the document allows.
fn request(schemas: &Schemas<'_>, operation: &Value, exchange: &Exchange<'_>) -> Vec<String> {
    let body = &operation["requestBody"]["content"]["application/json"]["schema"];
    let is_lenient =
        exchange.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("x-gooselake-lenient"));
    if body.is_null() || exchange.body.is_empty() || is_lenient {
        return Vec::new();
    }
    let wrong = schemas.check_text(exchange.body, body);
    wrong.into_iter().map(|wrong| format!("of the request: {wrong}")).collect()
}

fn answer(schemas: &Schemas<'_>, operation: &Value, reply: &Reply, is_head: bool) -> Vec<String> {
    let responses = &operation["responses"];
    let told = match &responses[reply.status.to_string()] {
        Value::Null => &responses["default"],
        told => told,
    };
    let told = schemas.resolved(told);
    let mut wrong = Vec::new();
    for name in ["X-Next-Cursor", "X-As-Of-Seq", "Retry-After", "WWW-Authenticate", "X-Request-Id"]
    {
        if reply.header(name).is_some() && told["headers"][name].is_null() {
            wrong.push(format!("the header {name} is not told"));
        }
    }
    if is_head {
        return wrong;
    }
    if told["content"].is_null() {
        if !reply.body.is_empty() {
            wrong.push(format!("a body with {} is not told", reply.status));
        }
        return wrong;
    }
    let media_type = media_type(reply);
    let schema = &told["content"][media_type]["schema"];
    if schema.is_null() {
        wrong.push(format!("{media_type:?} with {} is not told", reply.status));
    } else if media_type == "application/json" {
        wrong.extend(schemas.check_text(&reply.body, schema));
    } else if media_type == "application/x-ndjson" {
        let lines = reply.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        wrong.extend(lines.flat_map(|line| schemas.check_text(line, schema)));
    }
    wrong
}

/// Each example of a body and of an answer is what its schema allows.
#[test]
fn examples_are_as_the_document_tells() {
    let document = document();
    let schemas = Schemas { document };
    let mut wrong = Vec::new();
    let mut count = 0;
    let mut check = |place: &str, content: &Value| {
        for (media_type, told) in content.as_object().into_iter().flatten() {
            if let Some(example) = told.get("example") {
                count += 1;
                let found = schemas.check_text(example.to_string().as_bytes(), &told["schema"]);
                wrong.extend(found.iter().map(|wrong| format!("{place} {media_type}: {wrong}")));
            }
        }
    };
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            check(&format!("{method} {path}"), &operation["requestBody"]["content"]);
            for (status, told) in operation["responses"].as_object().unwrap() {
                let told = schemas.resolved(told);
                check(&format!("{method} {path} {status}"), &told["content"]);
            }
        }
    }
    assert!(count > 200, "{count} examples");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What is public is there under `/v1` with a token, for clients that know one base path alone.
#[test]
fn the_document_and_the_health_are_there_with_a_token_too() {
    let stage = crate::stage::Stage::new();
    for (public, own) in [("/openapi.yaml", "/v1/openapi.yaml"), ("/health", "/v1/health")] {
        let shown = stage.anonymous().get(public).expect(200);
        assert_eq!(stage.client.get(own).expect(200).body, shown.body);
        stage.anonymous().get(own).expect(401);
    }
    let shown = stage.client.get("/openapi.yaml").text();
    assert_eq!(shown, gooselake::api::openapi::DOCUMENT);
}
