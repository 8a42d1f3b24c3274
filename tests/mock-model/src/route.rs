//! Routes: what a request is for.
//!
//! Owns: the paths, and the answers that need no conversation (model lists, token counts, probes).
//! Pure. Promises that every request has a route; what nobody knows is a 404, which the journal
//! shows, so that an agent's probes are seen. Paths are matched by their end, since agents put
//! different things before it.

use serde_json::{Value, json};

use crate::dialect::{Dialect, Question};
use crate::http::Request;
use crate::reply::{Reply, guess_tokens};

/// The models that the lists name. Any other name is answered just as well.
const MODELS: [&str; 2] = ["mock-model", "mock-model-large"];

/// Where a request goes.
#[derive(Debug)]
pub enum Route {
    /// The mock's own: tell the journal.
    Log,
    /// The mock's own: open the gate.
    OpenGate,
    /// The answer is known. Without an `api` it does not belong into the journal.
    Ready {
        /// The word for the journal.
        api: Option<&'static str>,
        /// The answer.
        reply: Reply,
    },
    /// A model is asked.
    Ask {
        /// In which dialect.
        dialect: Dialect,
        /// What.
        question: Box<Question>,
    },
}

/// Finds a request's route.
pub fn route(request: &Request) -> Route {
    let path = request.path.as_str();
    match request.method.as_str() {
        "HEAD" => ready("probe", 200, json!({})),
        "GET" => match path {
            "/__health" => own(json!({ "ok": true })),
            "/__log" => Route::Log,
            _ if path.ends_with("/models") => ready("models", 200, models(request)),
            // Codex tries a WebSocket first; this sends it to plain HTTP at once.
            _ if path.ends_with("/responses") => {
                ready("responses-websocket", 426, error("no WebSocket here"))
            }
            _ => unknown(),
        },
        _ if path == "/__gate/open" => Route::OpenGate,
        _ => asked(request),
    }
}

fn asked(request: &Request) -> Route {
    if let Some(encoding) = request.header("content-encoding")
        && encoding != "identity"
    {
        return ready("unknown", 415, error("no compressed bodies here"));
    }
    let body = match request.body.is_empty() {
        true => Ok(Value::Null),
        false => serde_json::from_slice(&request.body),
    };
    let Ok(body) = body else { return ready("unknown", 400, error("the body is not JSON")) };
    let tokens = guess_tokens(request.body.len());
    let ask = |dialect: Dialect| Route::Ask {
        dialect,
        question: Box::new(dialect.question(&body, request.body.len())),
    };
    let path = request.path.as_str();
    if path.ends_with("/messages/count_tokens") {
        return ready("count_tokens", 200, json!({ "input_tokens": tokens }));
    }
    if path.ends_with("/messages") {
        return ask(Dialect::Anthropic);
    }
    if path.ends_with("/chat/completions") {
        return ask(Dialect::Chat);
    }
    if path.ends_with("/responses") {
        return ask(Dialect::Responses);
    }
    let Some((_, (model, verb))) =
        path.rsplit_once("/models/").and_then(|(head, tail)| Some((head, tail.split_once(':')?)))
    else {
        return unknown();
    };
    let stream = match verb {
        "streamGenerateContent" => true,
        "generateContent" => false,
        "countTokens" => return ready("count_tokens", 200, json!({ "totalTokens": tokens })),
        _ => return unknown(),
    };
    let mut question = Dialect::Gemini.question(&body, request.body.len());
    (question.model, question.stream) = (model.to_owned(), stream);
    Route::Ask { dialect: Dialect::Gemini, question: Box::new(question) }
}

/// The list of models, in the shape of the vendor that is asked.
fn models(request: &Request) -> Value {
    let list = |model: fn(&str) -> Value| MODELS.map(model).to_vec();
    if request.path.contains("/v1beta/") {
        return json!({ "models": list(|id| json!({
            "name": format!("models/{id}"), "inputTokenLimit": 100_000,
            "supportedGenerationMethods": ["generateContent"],
        })) });
    }
    if request.header("anthropic-version").is_some() {
        let data = list(|id| {
            json!({
                "type": "model", "id": id, "display_name": id, "created_at": "2026-01-01T00:00:00Z",
            })
        });
        return json!({ "data": data, "has_more": false, "first_id": MODELS[0],
            "last_id": MODELS[MODELS.len() - 1] });
    }
    let data = list(|id| json!({ "id": id, "object": "model", "created": 0, "owned_by": "mock" }));
    json!({ "object": "list", "data": data })
}

fn own(body: Value) -> Route {
    Route::Ready { api: None, reply: Reply::json(200, body) }
}

fn ready(api: &'static str, status: u16, body: Value) -> Route {
    Route::Ready { api: Some(api), reply: Reply::json(status, body) }
}

fn unknown() -> Route {
    ready("unknown", 404, error("no such path"))
}

fn error(message: &str) -> Value {
    let message = format!("mock: {message}");
    json!({ "error": { "type": "invalid_request_error", "message": message } })
}
