//! The document, put together: paths from the table of routes, components from the types.
//!
//! What every route of a sort has in common is added here: the token, the name in the path, the errors that any request
//! can meet. Bodies and answers are told apart: what a client may leave out of a body is not required there, while an
//! answer always has all of its keys.

use super::answer::Wrong;
use super::event::{StreamCaughtUp, StreamClosing, StreamOpened, union};
use super::told::{Query, Told, Told200};
use super::{DOCUMENT, example, link, yaml};
use crate::api::access::Access;
use crate::api::route::{self, BodyRule, ROUTES, Route};
use crate::config::PROVIDER_NAMES;
use crate::error::Code;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// What the parts of the document are collected in.
struct Making {
    bodies: SchemaGenerator,
    answers: SchemaGenerator,
    /// Responses of errors by their name.
    responses: Map<String, Value>,
}

const INFO: &str = "Agents, turns, approvals, processes, worktrees and mail between agents on one \
machine; every change is an event of a log that can be read in pages and as a stream.\n\n\
HEAD works wherever GET does. Query parameters that a route does not know are ignored; fields of a \
body that it does not know are refused. A request may come with an `X-Request-Id` of its own, \
which its answer and the server's log then have. Every key of a record is always there, null when \
there is nothing to say; new keys may come. Times are milliseconds since the epoch. Paths work \
behind `server.base_path`, too.";

const SSE: &str = "Server-Sent Events: first the backlog behind the cursor, then what comes. The \
`data` of a frame is an `Event`, its `id` the cursor to come back with, its `event` the kind. \
Control frames have no id: `stream.opened` (`StreamOpened`), `stream.caught_up` \
(`StreamCaughtUp`), `stream.closing` (`StreamClosing`). With `Accept: application/x-ndjson` each \
line is an `Event` and nothing else comes.";

/// A route and what is told of it.
pub(super) type Row<'a> = (&'a Route, &'a Told);

fn document(rows: &[Row<'_>]) -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let mut making = Making {
        bodies: settings().into_generator(),
        answers: settings().for_serialize().into_generator(),
        responses: Map::new(),
    };
    let mut paths: Map<String, Value> = Map::new();
    for (route, told) in rows {
        let path = paths.entry(route.pattern).or_insert_with(|| json!({}));
        let mut operation = operation(&mut making, route, told);
        add_links(&mut operation, (route, told), rows);
        path[route.method.to_lowercase()] = operation;
    }
    let mut schemas = union(&mut making.answers);
    // These are told by their names alone, in descriptions and responses.
    making.answers.subschema_for::<Wrong>();
    making.answers.subschema_for::<StreamOpened>();
    making.answers.subschema_for::<StreamCaughtUp>();
    making.answers.subschema_for::<StreamClosing>();
    schemas.extend(making.answers.take_definitions(true));
    for (name, mut schema) in making.bodies.take_definitions(true) {
        refuse_unknown(&mut schema);
        let known = schemas.insert(name.clone(), schema.clone());
        assert!(known.is_none_or(|known| known == schema), "{name} means two things");
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "gooselake runtime server", "version": env!("CARGO_PKG_VERSION"),
            "description": INFO, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/", "description": "the server that shows this document"}],
        "security": [{"bearerAuth": []}],
        "tags": TAGS.map(|(name, description)| json!({"name": name, "description": description})),
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": making.responses,
            "parameters": header_parameters(),
            "headers": answer_headers(),
            "securitySchemes": {"bearerAuth": {
                "type": "http", "scheme": "bearer",
                "description": "The operator's token; under /v1/mcp also an agent's.",
            }},
        },
    })
}

/// A body with a field that is not known is refused, unless the request asks for leniency.
fn refuse_unknown(schema: &mut Value) {
    if let Some(variants) = schema.get_mut("oneOf").and_then(Value::as_array_mut) {
        variants.iter_mut().for_each(refuse_unknown);
    }
    if schema["type"] == "object" && schema.get("additionalProperties").is_none() {
        schema["additionalProperties"] = json!(false);
    }
}

fn operation(making: &mut Making, route: &Route, told: &Told) -> Value {
    let mut operation = json!({
        "operationId": told.name,
        "summary": told.summary,
        "tags": [tag(route.pattern)],
        "responses": responses(making, route, told),
    });
    let parameters = parameters(route, told);
    if !parameters.is_empty() {
        operation["parameters"] = Value::from(parameters);
    }
    if told.is_stream {
        operation["description"] = json!(SSE);
    }
    if let Some((shape, example)) = &told.body {
        let media_type = match route.body {
            BodyRule::Form => "multipart/form-data",
            _ => "application/json",
        };
        operation["requestBody"] = json!({
            "required": route.body != BodyRule::OptionalJson,
            "content": {media_type: {"schema": shape(&mut making.bodies), "example": example}},
        });
    }
    match route.access {
        Access::Public => operation["security"] = json!([]),
        Access::Gateway => operation["description"] = json!("An agent's own token opens it, too."),
        Access::Operator => {}
    }
    operation
}

/// Each JSON answer tells what it leads to.
fn add_links(operation: &mut Value, row: Row<'_>, rows: &[Row<'_>]) {
    let links = link::links(row, rows);
    for answer in &row.1.answers {
        if answer.status < 300 && answer.media_type == "application/json" && !links.is_empty() {
            operation["responses"][answer.status.to_string()]["links"] = json!(links);
        }
    }
}

/// The families of routes, as a reader looks for them.
const TAGS: [(&str, &str); 12] = [
    ("server", "The server itself: alive, ready, in figures, and this document."),
    ("diagnostics", "What the server says about itself."),
    ("providers", "Which agents there are, whether they can be used, and their logins."),
    ("sessions", "Conversations with agents, their turns and their logs."),
    ("approvals", "What only a person may answer."),
    ("processes", "Commands that the server runs."),
    ("worktrees", "Git worktrees, and who works in them."),
    ("events", "The whole log."),
    ("system", "Starts and stops of the server."),
    ("teams", "Sessions that work together, and the mail between them."),
    ("team-operations", "How members were made and taken away."),
    ("mcp", "The tools of agents."),
];

/// The family of a route: the first part of its path behind the version.
fn tag(pattern: &str) -> &str {
    let parts: Vec<&str> = pattern.split('/').collect();
    match parts[..] {
        [_, "v1", family, _, ..] => family,
        [_, "v1", family] if !matches!(family, "health" | "version" | "openapi.yaml") => family,
        _ => "server",
    }
}

fn parameters(route: &Route, told: &Told) -> Vec<Value> {
    let mut parameters = Vec::new();
    for part in route.pattern.split('/') {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            let schema = match name {
                "provider" => json!({"type": "string", "enum": PROVIDER_NAMES}),
                _ => json!({"type": "string", "minLength": 1}),
            };
            let told = json!({"name": name, "in": "path", "required": true, "schema": schema});
            parameters.push(told);
        }
    }
    for Query { name, description, schema } in &told.query {
        parameters.push(json!({
            "name": name, "in": "query", "description": description, "schema": schema,
        }));
    }
    let is_json = !matches!(route.body, BodyRule::Ignored | BodyRule::Form);
    let mut headers = Vec::new();
    if told.is_idempotent {
        headers.push("IdempotencyKey");
    }
    if is_json && told.name != "mcp" {
        headers.push("Lenient");
    }
    if told.is_stream {
        headers.push("LastEventId");
    }
    let refer = |name| json!({"$ref": format!("#/components/parameters/{name}")});
    parameters.extend(headers.into_iter().map(refer));
    parameters
}

fn header_parameters() -> Value {
    let header = |name: &str, description: &str, schema: Value| {
        let place = "header";
        json!({"name": name, "in": place, "description": description, "schema": schema})
    };
    json!({
        "IdempotencyKey": header(
            "Idempotency-Key",
            "The same key and body answer with what the first request made, for 24 hours.",
            json!({"type": "string", "minLength": 1, "maxLength": 255}),
        ),
        "Lenient": header(
            "X-Gooselake-Lenient",
            "`1`: fields of the body that are not known are ignored instead of refused.",
            json!({"type": "string"}),
        ),
        "LastEventId": header(
            "Last-Event-ID",
            "The id of the last event that was seen; it wins over `after_seq`.",
            json!({"type": "string", "pattern": "^\\s*[0-9]{0,18}\\s*$"}),
        ),
    })
}

fn answer_headers() -> Value {
    json!({
        "X-Request-Id": {
            "description": "The one that the request came with, or one of the server's own.",
            "schema": {"type": "string"},
        },
        "X-Next-Cursor": {
            "description": "There may be more: the `cursor` of the next page.",
            "schema": {"type": "string"},
        },
        "X-As-Of-Seq": {
            "description": "The `seq` behind which a stream goes on without a gap.",
            "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
        "WWW-Authenticate": {
            "description": "How to say who calls.", "schema": {"const": "Bearer"},
        },
        "Allow": {
            "description": "With `method_not_allowed`: the methods that the path takes.",
            "schema": {"type": "string"},
        },
        "Retry-After": {
            "description": "Seconds to wait.", "schema": {"type": "string", "pattern": "^[0-9]+$"},
        },
    })
}

fn responses(making: &mut Making, route: &Route, told: &Told) -> Value {
    let mut responses: Map<String, Value> = Map::new();
    for Told200 { status, media_type, shape, headers } in &told.answers {
        let response = responses
            .entry(status.to_string())
            .or_insert_with(|| json!({"description": reason(*status)}));
        for name in headers.iter().chain(&["X-Request-Id"]) {
            let header = json!({"$ref": format!("#/components/headers/{name}")});
            response["headers"][name] = header;
        }
        let Some(shape) = shape else { continue };
        let schema = shape(&mut making.answers);
        if let Some(example) = example::of(told.name, *status, media_type) {
            response["content"][media_type]["example"] = example;
        }
        let content = &mut response["content"][media_type]["schema"];
        *content = match content.take() {
            Value::Null => schema,
            // Another one of the same sort: which it is depends on the request.
            first => json!({"anyOf": [first, schema]}),
        };
    }
    for (status, codes) in errors(route, told) {
        let refer = error_response(making, status, &codes);
        // A protocol of its own tells its errors in its own way, or in ours.
        if let Some(own) = responses.get_mut(&status.to_string()) {
            let schema = &mut own["content"]["application/json"]["schema"];
            *schema = json!({"anyOf": [schema.take(), {"$ref": "#/components/schemas/Error"}]});
        } else {
            responses.insert(status.to_string(), refer);
        }
    }
    let any = [Code::MethodNotAllowed, Code::RequestTimeout, Code::HeadTooLarge, Code::Internal];
    responses.insert("default".to_owned(), error_response(making, 0, &any));
    Value::from(responses)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "Done.",
        202 => "Under way.",
        204 => "Done; there is nothing to say.",
        _ => "Refused.",
    }
}

/// The codes that a route may answer with, by status; those that any request can meet come as `default`.
fn errors(route: &Route, told: &Told) -> BTreeMap<u16, Vec<Code>> {
    let mut codes = vec![Code::BadRequest, Code::HostNotAllowed, Code::OriginNotAllowed];
    codes.extend([Code::PayloadTooLarge, Code::Capacity, Code::ShuttingDown]);
    if route.access != Access::Public {
        codes.extend([Code::Unauthorized, Code::Forbidden]);
    }
    if route.pattern.contains('{') {
        codes.push(Code::NotFound);
    }
    if route.body != BodyRule::Ignored {
        codes.push(Code::UnsupportedMediaType);
    }
    codes.extend(&told.errors);
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| codes.contains(code)) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    by_status
}

/// A reference to the component for these codes.
fn error_response(making: &mut Making, status: u16, codes: &[Code]) -> Value {
    let words: Vec<&str> = codes.iter().map(|code| code.as_str()).collect();
    let name = match status {
        0 => "default".to_owned(),
        _ => format!("{status}.{}", words.join(".")),
    };
    let refer = json!({"$ref": format!("#/components/responses/{name}")});
    if making.responses.contains_key(&name) {
        return refer;
    }
    let told: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
    let mut response = json!({
        "description": told.join(", "),
        "content": {"application/json": {"schema": {"allOf": [
            {"$ref": "#/components/schemas/Error"},
            {"type": "object", "properties": {"code": {"enum": words}}},
        ]}, "example": {"error": "what failed, on which thing; what to do", "code": words[0]}}},
    });
    let is_later = matches!(status, 429 | 503);
    let headers = [
        ("X-Request-Id", true),
        ("Retry-After", is_later),
        ("Allow", status == 0),
        ("WWW-Authenticate", status == 401),
    ];
    for (name, _) in headers.iter().filter(|(_, is_there)| *is_there) {
        response["headers"][name] = json!({"$ref": format!("#/components/headers/{name}")});
    }
    making.responses.insert(name, response);
    refer
}

/// Where the document is kept.
const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi/runtime-server-openapi.yaml");

/// Where a document that was made differs first from the one that is kept. None: it does not.
fn difference(made: &str, kept: &str) -> Option<String> {
    if made == kept {
        return None;
    }
    let differs = made.lines().zip(kept.lines()).position(|(made, kept)| made != kept);
    let line = differs.unwrap_or(made.lines().count().min(kept.lines().count()));
    let at = |text: &str| text.lines().nth(line).unwrap_or_default().to_owned();
    let (kept, made) = (at(kept), at(made));
    Some(format!("line {} is\n  {kept}\nbut should be\n  {made}", line + 1))
}

#[test]
fn the_document_is_what_the_routes_and_the_types_tell() {
    let told = route::told();
    let made = yaml::text(&document(&ROUTES.iter().zip(&told).collect::<Vec<_>>()));
    if std::env::var_os("UPDATE").is_some_and(|word| !word.is_empty()) {
        std::fs::write(PATH, made).expect("the document can be written");
        return;
    }
    if let Some(difference) = difference(&made, DOCUMENT) {
        panic!(
            "docs/openapi/runtime-server-openapi.yaml: {difference}\n\
             make api-docs-refresh writes it anew"
        );
    }
}

#[test]
fn a_route_that_goes_and_a_type_that_changes_are_noticed() {
    let told = route::told();
    let mut rows: Vec<Row<'_>> = ROUTES.iter().zip(&told).collect();
    let at = |name: &str| told.iter().position(|told| told.name == name).expect("an operation");
    let kept = yaml::text(&document(&rows));
    let gone = rows.remove(at("get_turn"));
    assert!(difference(&yaml::text(&document(&rows)), &kept).is_some(), "a route that went");
    rows.insert(at("get_turn"), gone);
    assert_eq!(difference(&yaml::text(&document(&rows)), &kept), None);
    let place = at("version");
    let other = super::op("version", told[place].summary).answers::<super::answer::Health>();
    rows[place] = (&ROUTES[place], &other);
    let text = difference(&yaml::text(&document(&rows)), &kept).expect("another type");
    assert!(text.contains("schemas/Health"), "{text}");
}

#[test]
fn operations_have_names_of_their_own() {
    let mut names: Vec<&str> = route::told().iter().map(|told| told.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    assert_eq!(count, ROUTES.len());
}

#[test]
fn each_route_tells_how_it_succeeds_and_each_one_that_takes_json_what() {
    for (route, told) in ROUTES.iter().zip(route::told()) {
        let name = told.name;
        assert!(told.answers.iter().any(|answer| answer.status < 300), "{name} never succeeds");
        assert_eq!(told.body.is_some(), route.body != BodyRule::Ignored, "the body of {name}");
    }
}
