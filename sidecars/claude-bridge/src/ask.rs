//! What the program asks, as permission requests of ACP.
//!
//! Owns: the options that a person gets and what each of them means to the program. Promises: each question is answered
//! once: by the client, by the program's taking it back, or by its end.
//!
//! - A suggestion of the program ("always allow this") becomes one `allow_always` option. It holds for this session
//!   alone: whatever place the program suggests (it suggests the project's settings file), `session` is sent.
//! - A plan is accepted into the mode that edits without asking, or into the one that asks, or sent back.
//! - Questions to the user (`AskUserQuestion`) are asked one after the other, each with its labels as options. Where
//!   several labels may be chosen, the same question comes again with what is left, until the person is done.
//! - Words that a client sends with a refusal (`_meta.gooselake.message`) reach the model.

use crate::bridge::Out;
use crate::wire::{self, list, text};
use serde_json::{Map, Value, json};

/// What the model hears of a refusal without words.
const REFUSED: &str = "The user does not want this. Go on without it, or ask what to do instead.";
/// What the model hears when nobody has answered.
const UNANSWERED: &str = "Nobody has answered the request for permission.";
/// The longest label of an option.
const LABEL_BYTES_MAX: usize = 200;

/// What an option means.
#[derive(Clone, Debug)]
enum Decision {
    Allow {
        permissions: Value,
    },
    Deny,
    /// A label of the current question.
    Label(String),
    /// No more labels for the current question.
    Done,
}

#[derive(Debug)]
struct Choice {
    id: String,
    label: String,
    kind: &'static str,
    decision: Decision,
}

/// A question of the program that is open.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Of our request to the client.
    number: i64,
    /// Of the program's request to us.
    request: String,
    call: Value,
    input: Value,
    choices: Vec<Choice>,
    questions: Questions,
}

/// The questions of one `AskUserQuestion`, and the answers so far.
#[derive(Debug, Default)]
struct Questions {
    at: usize,
    chosen: Vec<String>,
    answers: Map<String, Value>,
}

/// What the client has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    option: Option<String>,
    message: Option<String>,
}

impl Answer {
    /// Reads the answer to `session/request_permission`; an error is no choice.
    pub(crate) fn read(message: &Map<String, Value>) -> Answer {
        let outcome = message.get("result").map_or(&Value::Null, |result| &result["outcome"]);
        let chosen = |field: &Value| field.as_str().map(str::to_owned);
        Answer {
            option: chosen(&outcome["optionId"]).filter(|_| outcome["outcome"] == "selected"),
            message: chosen(&outcome["_meta"]["gooselake"]["message"]),
        }
    }
}

impl Ask {
    /// Asks the client whether the tool may run. `call` shows the tool call.
    pub(crate) fn new(request: &str, asked: &Value, call: Value, out: &mut Out) -> Ask {
        let mut ask = Ask {
            number: out.next_request(),
            request: request.to_owned(),
            call,
            input: asked["input"].clone(),
            choices: Vec::new(),
            questions: Questions::default(),
        };
        ask.choices = match text(asked, "tool_name") {
            "AskUserQuestion" if !list(&ask.input, "questions").is_empty() => ask.labels(),
            "ExitPlanMode" => plan_choices(),
            _ => tool_choices(list(asked, "permission_suggestions")),
        };
        ask.send(out);
        ask
    }

    pub(crate) fn number(&self) -> i64 {
        self.number
    }

    pub(crate) fn request(&self) -> &str {
        &self.request
    }

    fn send(&self, out: &mut Out) {
        let options: Vec<Value> = self
            .choices
            .iter()
            .map(|choice| json!({"optionId": choice.id, "name": choice.label, "kind": choice.kind}))
            .collect();
        let params = json!({"sessionId": out.session, "toolCall": self.call, "options": options});
        out.client(wire::request(self.number, "session/request_permission", params));
    }

    /// Takes the answer. Gives the question back when there is more to ask.
    pub(crate) fn answered(mut self, answer: &Answer, out: &mut Out) -> Option<Ask> {
        let id = answer.option.as_deref();
        let choice = id.and_then(|id| self.choices.iter().find(|choice| choice.id == id));
        let decision = choice.map(|choice| choice.decision.clone());
        let is_done = matches!(decision, Some(Decision::Done));
        match decision {
            Some(Decision::Allow { permissions }) => {
                let mut response = json!({"behavior": "allow", "updatedInput": self.input});
                if !permissions.is_null() {
                    response["updatedPermissions"] = permissions;
                }
                out.claude(wire::control_answer(&self.request, response));
                return None;
            }
            Some(Decision::Deny) => {
                self.deny(answer.message.as_deref().unwrap_or(REFUSED), out);
                return None;
            }
            None => {
                self.deny(UNANSWERED, out);
                return None;
            }
            Some(Decision::Label(label)) => self.questions.chosen.push(label),
            Some(Decision::Done) => {}
        }
        self.next_question(is_done, out)
    }

    fn next_question(mut self, is_done: bool, out: &mut Out) -> Option<Ask> {
        let question = &list(&self.input, "questions")[self.questions.at];
        let offered = list(question, "options").len();
        let is_open = question["multiSelect"] == true && self.questions.chosen.len() < offered;
        if !is_open || is_done {
            let chosen = std::mem::take(&mut self.questions.chosen).join(", ");
            self.questions.answers.insert(text(question, "question").to_owned(), json!(chosen));
            self.questions.at += 1;
        }
        if self.questions.at >= list(&self.input, "questions").len() {
            let mut input = self.input;
            input["answers"] = Value::Object(self.questions.answers);
            let response = json!({"behavior": "allow", "updatedInput": input});
            out.claude(wire::control_answer(&self.request, response));
            return None;
        }
        self.choices = self.labels();
        self.number = out.next_request();
        self.send(out);
        Some(self)
    }

    /// The options of the question that is next; the question becomes the title.
    fn labels(&mut self) -> Vec<Choice> {
        let question = &list(&self.input, "questions")[self.questions.at];
        self.call["title"] = json!(wire::cut(text(question, "question"), LABEL_BYTES_MAX));
        let mut choices = Vec::new();
        for (number, option) in list(question, "options").iter().enumerate() {
            let label = text(option, "label").to_owned();
            if self.questions.chosen.contains(&label) {
                continue;
            }
            let about = text(option, "description");
            let shown = if about.is_empty() { label.clone() } else { format!("{label}: {about}") };
            let decision = Decision::Label(label);
            choices.push(choice(&format!("answer_{number}"), &shown, "allow_once", decision));
        }
        if !self.questions.chosen.is_empty() {
            choices.push(choice("done", "That is all", "allow_once", Decision::Done));
        }
        choices.push(choice("reject", "Do not answer", "reject_once", Decision::Deny));
        choices
    }

    fn deny(&self, why: &str, out: &mut Out) {
        let response = json!({"behavior": "deny", "message": why});
        out.claude(wire::control_answer(&self.request, response));
    }

    /// The program does not wait any more.
    pub(crate) fn take_back(self, out: &mut Out) {
        out.client(wire::notification("$/cancel_request", json!({"requestId": self.number})));
    }
}

fn choice(id: &str, label: &str, kind: &'static str, decision: Decision) -> Choice {
    let label = wire::cut(label, LABEL_BYTES_MAX);
    Choice { id: id.to_owned(), label, kind, decision }
}

fn allow(permissions: Value) -> Decision {
    Decision::Allow { permissions }
}

fn tool_choices(suggestions: &[Value]) -> Vec<Choice> {
    let mut choices = vec![choice("allow", "Yes", "allow_once", allow(Value::Null))];
    let permissions = for_session(suggestions);
    if !permissions.is_empty() {
        let label = format!("Yes, and in this session {}", named(&permissions));
        choices.push(choice("allow_session", &label, "allow_always", allow(json!(permissions))));
    }
    choices.push(choice("reject", "No", "reject_once", Decision::Deny));
    choices
}

fn plan_choices() -> Vec<Choice> {
    let mode = json!([{"type": "setMode", "mode": "acceptEdits", "destination": "session"}]);
    vec![
        choice("allow", "Yes, and ask before edits", "allow_once", allow(Value::Null)),
        choice("accept_edits", "Yes, and edit without asking", "allow_always", allow(mode)),
        choice("reject", "No, go on planning", "reject_once", Decision::Deny),
    ]
}

/// The suggestions, for this session alone. A change of the mode is taken only where nothing narrower is suggested.
fn for_session(suggestions: &[Value]) -> Vec<Value> {
    let is_mode = |suggestion: &&Value| text(suggestion, "type") == "setMode";
    let is_narrow = suggestions.iter().any(|suggestion| text(suggestion, "type") == "addRules");
    let taken = suggestions.iter().filter(|suggestion| !(is_narrow && is_mode(suggestion)));
    taken
        .filter(|suggestion| suggestion.is_object())
        .map(|suggestion| {
            let mut suggestion = suggestion.clone();
            suggestion["destination"] = json!("session");
            suggestion
        })
        .collect()
}

/// What the permissions allow, as the end of a sentence.
fn named(permissions: &[Value]) -> String {
    let mut parts = Vec::new();
    for permission in permissions {
        match text(permission, "type") {
            "addRules" => {
                for rule in list(permission, "rules") {
                    let (tool, content) = (text(rule, "toolName"), text(rule, "ruleContent"));
                    parts.push(match content {
                        "" => format!("every use of {tool}"),
                        _ => format!("{tool} {content}"),
                    });
                }
            }
            "setMode" => parts.push(format!("the mode {}", text(permission, "mode"))),
            "addDirectories" => {
                let folders = list(permission, "directories").iter().filter_map(Value::as_str);
                parts.extend(folders.map(|folder| format!("the folder {folder}")));
            }
            other => parts.push(other.to_owned()),
        }
    }
    parts.join(", ")
}
