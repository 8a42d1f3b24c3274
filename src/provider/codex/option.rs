//! What a person may answer, and how the answer reads to Codex.
//!
//! Owns: the options of each kind of question and the result that a chosen one becomes. The options are those of
//! the protocol, not of `availableDecisions`, which leaves out `decline` and `acceptForSession` though both are
//! taken. The decisions that Codex writes to its rules, for every later session of the home, are never offered.
//! Pure.

use super::state::{Ask, Question};
use crate::provider::rpc::{list, object, text};
use crate::provider::{Answer, ApprovalOption};
use serde_json::{Map, Value, json};

/// Options that one question offers; further ones are left out.
const OPTIONS_MAX: usize = 32;

fn option(id: &str, label: &str, kind: &str) -> ApprovalOption {
    ApprovalOption { id: id.to_owned(), label: label.to_owned(), kind: kind.to_owned() }
}

/// For a command, a file change, or access to the network; the ids are the protocol's decisions.
pub(super) fn decisions() -> Vec<ApprovalOption> {
    vec![
        option("accept", "Yes", "allow_once"),
        option("acceptForSession", "Yes, and do not ask again in this session", "allow_always"),
        option("decline", "No, go on without it", "reject_once"),
        option("cancel", "No, and end the turn", "reject_once"),
    ]
}

pub(super) fn permissions() -> Vec<ApprovalOption> {
    vec![
        option("accept", "Yes, for this turn", "allow_once"),
        option("acceptForSession", "Yes, for this session", "allow_always"),
        option("decline", "No", "reject_once"),
    ]
}

/// For an MCP server that asks: before a tool runs, or something of its own.
pub(super) fn elicitation(params: &Map<String, Value>) -> Vec<ApprovalOption> {
    let nothing = Map::new();
    let meta = object(params, "_meta").unwrap_or(&nothing);
    let can_persist = list(meta, "persist").iter().any(|word| word == "session");
    let mut options = vec![option("accept", "Yes", "allow_once")];
    if can_persist {
        let label = "Yes, and do not ask again in this session";
        options.push(option("acceptForSession", label, "allow_always"));
    }
    options.push(option("decline", "No, go on without it", "reject_once"));
    options.push(option("cancel", "No, and end the call", "reject_once"));
    options
}

/// For questions of the model. The only one with choices offers them; several, or one without, are answered by the
/// payload: `{"answers": {"<question id>": ["…"]}}`.
pub(super) fn input(questions: &[Value]) -> (Question, Vec<ApprovalOption>) {
    let asked = || questions.iter().filter_map(Value::as_object).take(OPTIONS_MAX);
    let ids = asked().map(|question| text(question, "id").to_owned()).collect();
    let labels: Vec<String> = match questions {
        [Value::Object(only)] => list(only, "options")
            .iter()
            .filter_map(|choice| choice.get("label")?.as_str().map(str::to_owned))
            .take(OPTIONS_MAX)
            .collect(),
        _ => Vec::new(),
    };
    let mut options: Vec<ApprovalOption> = labels
        .iter()
        .enumerate()
        .map(|(at, label)| option(&format!("choice_{}", at + 1), label, "allow_once"))
        .collect();
    if options.is_empty() {
        options.push(option("accept", "Answer with the payload", "allow_once"));
    }
    options.push(option("decline", "No answer", "reject_once"));
    (Question::Input { ids, labels }, options)
}

/// Whether the answer lets it happen.
pub(super) fn is_allowed(ask: &Ask, answer: &Answer) -> bool {
    let Answer::Option { option_id, .. } = answer else { return false };
    let chosen = ask.options.iter().find(|option| option.id == *option_id);
    chosen.is_some_and(|option| option.kind.starts_with("allow"))
}

/// The result of the request.
pub(super) fn result(ask: &Ask, answer: &Answer) -> Value {
    let (option_id, payload) = match answer {
        Answer::Option { option_id, payload, .. } => (option_id.as_str(), payload.as_ref()),
        Answer::Cancelled => ("decline", None),
    };
    let is_allowed = is_allowed(ask, answer);
    let is_session = option_id == "acceptForSession";
    match &ask.question {
        Question::Decision => json!({"decision": option_id}),
        Question::Permissions { wanted } => {
            let granted = if is_allowed { json!(wanted) } else { json!({}) };
            let scope = if is_allowed && is_session { "session" } else { "turn" };
            json!({"permissions": granted, "scope": scope})
        }
        Question::Elicitation => {
            let action = if is_allowed { "accept" } else { option_id };
            let content = payload.filter(|_| is_allowed).cloned();
            let content = content.or_else(|| is_allowed.then(|| json!({})));
            let meta = is_session.then(|| json!({"persist": "session"}));
            json!({"action": action, "content": content, "_meta": meta})
        }
        Question::Input { ids, labels } => {
            let mut answers = Map::new();
            let given = payload.and_then(|payload| payload.get("answers"));
            let chosen = option_id.strip_prefix("choice_").and_then(|n| n.parse::<usize>().ok());
            let label = chosen.and_then(|n| labels.get(n.checked_sub(1)?));
            for id in ids.iter().filter(|_| is_allowed) {
                let given = given.and_then(|given| given.get(id)).map(words);
                let words = given.or_else(|| Some(json!([label?])));
                if let Some(words) = words {
                    answers.insert(id.clone(), json!({"answers": words}));
                }
            }
            json!({"answers": answers})
        }
    }
}

/// A list of texts as it is, one text as a list.
fn words(given: &Value) -> Value {
    if given.is_array() { given.clone() } else { json!([given]) }
}
