//! Links: what an answer leads to, so that a client (and a test that walks the document) finds the way by itself.
//!
//! A row of the table of routes tells which names of paths an answer holds ([`Told::makes`]), and which bodies can be
//! put together from it ([`Told::leads`]). From that come the links: to every operation whose path needs such a name,
//! and to the next page of a list.

use super::document::Row;
use super::told::Told;
use crate::api::route::Route;
use serde_json::{Map, Value, json};

/// The links of the successful answers of a route; none when it has nothing to lead to.
pub(super) fn links((route, told): Row<'_>, all: &[Row<'_>]) -> Map<String, Value> {
    let mut links = Map::new();
    for (next, next_told) in all {
        let name = next_told.name;
        let body = told.leads.iter().find(|(led, _)| *led == name).map(|(_, body)| body);
        let parameters = parameters(route, told, next);
        if parameters.is_some() || body.is_some() {
            links.insert(name.to_owned(), link(name, parameters.unwrap_or_default(), body));
        }
    }
    let is_page = told.answers.iter().any(|answer| answer.headers.contains(&"X-Next-Cursor"));
    if is_page && told.query.iter().any(|query| query.name == "cursor") {
        let mut parameters: Map<String, Value> = names(route.pattern).map(of_request).collect();
        parameters.insert("cursor".to_owned(), json!("$response.header.X-Next-Cursor"));
        links.insert("next_page".to_owned(), link(told.name, parameters, None));
    }
    links
}

/// The names in a path.
fn names(pattern: &str) -> impl Iterator<Item = &str> {
    pattern.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

fn of_request(name: &str) -> (String, Value) {
    (name.to_owned(), json!(format!("$request.path.{name}")))
}

/// Where the names in the path of `next` come from. None: not all of them are known, or none of them is new.
fn parameters(route: &Route, told: &Told, next: &Route) -> Option<Map<String, Value>> {
    let mut parameters = Map::new();
    let mut is_led = false;
    for name in names(next.pattern) {
        if let Some((_, place)) = told.makes.iter().find(|(made, _)| *made == name) {
            is_led = true;
            parameters.insert(name.to_owned(), json!(format!("$response.body#{place}")));
        } else if names(route.pattern).any(|known| known == name) {
            parameters.extend([of_request(name)]);
        } else {
            return None;
        }
    }
    is_led.then_some(parameters)
}

fn link(name: &str, parameters: Map<String, Value>, body: Option<&Value>) -> Value {
    let mut link = json!({"operationId": name});
    if !parameters.is_empty() {
        link["parameters"] = Value::from(parameters);
    }
    if let Some(body) = body {
        link["requestBody"] = body.clone();
    }
    link
}

#[test]
fn a_link_names_an_operation_and_takes_its_names_from_the_answer_and_the_request() {
    let told = crate::api::route::told();
    let rows: Vec<Row<'_>> = crate::api::route::ROUTES.iter().zip(&told).collect();
    let of = |name: &str| {
        let row = rows.iter().find(|(_, told)| told.name == name).expect("an operation");
        links(*row, &rows)
    };
    assert_eq!(
        of("create_turn")["get_turn"],
        json!({"operationId": "get_turn", "parameters": {
            "session_id": "$request.path.session_id", "turn_id": "$response.body#/turn_id",
        }})
    );
    assert!(!of("create_turn").contains_key("get_session"), "that is known already");
    assert_eq!(
        of("list_turns")["next_page"]["parameters"]["cursor"],
        "$response.header.X-Next-Cursor"
    );
    for (name, link) in told.iter().flat_map(|told| of(told.name)) {
        let known = told.iter().any(|told| link["operationId"] == told.name);
        assert!(known, "{name} leads nowhere");
    }
}
