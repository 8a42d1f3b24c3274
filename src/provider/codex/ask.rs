//! What Codex asks us.
//!
//! Owns: its requests and their answers. Promises: every request is answered exactly once: by a person, or with an
//! error at once when it is not offered, not understood, or too many are open. What the end of a turn takes back
//! Codex has let go of by itself; an answer would come too late and is not sent. Not so what a sub-agent asks: its
//! thread does not end with our turn and would wait for ever, so it is declined.

use super::state::{Ask, ID_BYTES_MAX, Question};
use super::{Codex, body, option, unparsed, wire};
use crate::provider::rpc::{self, KEPT_BYTES_MAX, cut, list, object, short_id, text};
use crate::provider::{AgentEvent, Answer, ApprovalOption, Effects};
use serde_json::{Map, Value, json};

/// Requests that may be open at once; one more is answered with an error.
const OPEN_ASKS_MAX: usize = 256;
/// What a question wants is kept until it is answered.
const WANTED_BYTES_MAX: usize = 64 * 1024;

/// A question on its way to a person.
struct Asked {
    question: Question,
    title: String,
    subject: Map<String, Value>,
    options: Vec<ApprovalOption>,
}

impl Codex {
    pub(super) fn request(
        &mut self,
        method: &str,
        id: &Value,
        params: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        let asked = match method {
            "item/commandExecution/requestApproval" => self.command_asked(params),
            "item/fileChange/requestApproval" => self.change_asked(params),
            "item/permissions/requestApproval" => permissions_asked(params),
            "mcpServer/elicitation/request" => elicitation_asked(params),
            "item/tool/requestUserInput" => input_asked(params),
            _ => {
                let why = format!("no such method: {}", cut(method, 100));
                wire::refuse(&mut out.stdin, id, rpc::METHOD_NOT_FOUND, &why);
                return unparsed(line, out);
            }
        };
        if self.state.asks.len() >= OPEN_ASKS_MAX
            || serde_json::to_string(&asked.question).map_or(0, |q| q.len()) > WANTED_BYTES_MAX
        {
            let why = "too much is asked";
            return wire::refuse(&mut out.stdin, id, rpc::INTERNAL, why);
        }
        let tool = text(&asked.subject, "tool");
        let call = self.mcp_call(text(params, "serverName"), tool).map(str::to_owned);
        let item = call.filter(|_| asked.question == Question::Elicitation && !tool.is_empty());
        let item =
            item.unwrap_or_else(|| short_id(text(params, "itemId"), ID_BYTES_MAX).into_owned());
        let thread = params.get("threadId").and_then(Value::as_str);
        let is_anothers = thread.is_some_and(|thread| self.is_anothers(thread));
        self.ask(id, &item, is_anothers, asked, out);
    }

    fn ask(&mut self, id: &Value, item: &str, is_anothers: bool, asked: Asked, out: &mut Effects) {
        let Asked { question, title, subject, options } = asked;
        let key = self.state.next_key("ask");
        let ask = Ask {
            key: key.clone(),
            id: id.clone(),
            item: item.to_owned(),
            is_anothers,
            question,
            options,
        };
        if self.state.is_interrupting {
            // It was asked before Codex heard of the interrupt.
            let nobody = option::result(&ask, &Answer::Cancelled);
            return wire::answer(&mut out.stdin, id, &nobody);
        }
        self.in_turn(out);
        let at = self.item_at(item);
        let item = at.and_then(|at| self.state.items.get_mut(at)).map(|item| {
            item.is_asked = true;
            item.key.clone()
        });
        let options = ask.options.clone();
        self.state.asks.push(ask);
        out.events.push(AgentEvent::ApprovalAsked { key, item, title, subject, options });
    }

    /// A command, or the network for one.
    fn command_asked(&self, params: &Map<String, Value>) -> Asked {
        let mut subject = self.known_subject(text(params, "itemId"));
        let reason = text(params, "reason");
        let network = object(params, "networkApprovalContext");
        let command = body::command(params);
        let title = match network {
            Some(network) => {
                let host = format!("{}://{}", text(network, "protocol"), text(network, "host"));
                subject = Map::from_iter([("host".to_owned(), json!(host))]);
                format!("Network access to {host}")
            }
            None if command.is_empty() => "Run a command".to_owned(),
            None => command.clone(),
        };
        if !command.is_empty() {
            subject.insert("command".to_owned(), json!(command));
        }
        if let Some(cwd) = params.get("cwd").filter(|cwd| cwd.is_string()) {
            subject.insert("cwd".to_owned(), cwd.clone());
        }
        if let Some(more) = object(params, "additionalPermissions") {
            let more = body::bounded(Value::Object(more.clone()));
            subject.insert("permissions".to_owned(), more);
        }
        describe(&mut subject, reason);
        let kind = if network.is_some() { "other" } else { "command" };
        subject.insert("type".to_owned(), json!(kind));
        let (question, options) = (Question::Decision, option::decisions());
        Asked { question, title: cut(&title, KEPT_BYTES_MAX), subject, options }
    }

    /// The paths and the diff are in the item alone.
    fn change_asked(&self, params: &Map<String, Value>) -> Asked {
        let mut subject = self.known_subject(text(params, "itemId"));
        describe(&mut subject, text(params, "reason"));
        if let Some(root) = params.get("grantRoot").filter(|root| root.is_string()) {
            subject.insert("grant_root".to_owned(), root.clone());
        }
        subject.insert("type".to_owned(), json!("file_change"));
        let nothing = Vec::new();
        let changes = subject.get("changes").and_then(Value::as_array).unwrap_or(&nothing);
        let paths: Vec<&str> =
            changes.iter().filter_map(|change| change.get("path")?.as_str()).take(5).collect();
        let title = format!("Change {}", paths.join(", "));
        let title = if paths.is_empty() { "Change files".to_owned() } else { title };
        let (question, options) = (Question::Decision, option::decisions());
        Asked { question, title: cut(&title, KEPT_BYTES_MAX), subject, options }
    }

    fn known_subject(&self, item: &str) -> Map<String, Value> {
        let at = self.item_at(item);
        at.and_then(|at| self.state.items.get(at)).map(|i| i.subject.clone()).unwrap_or_default()
    }

    pub(super) fn answer(&mut self, key: &str, answer: Answer, out: &mut Effects) {
        let Some(at) = self.state.asks.iter().position(|ask| ask.key == key) else { return };
        let ask = self.state.asks.remove(at);
        let is_allowed = option::is_allowed(&ask, &answer);
        let item = self.state.items.iter_mut().find(|item| item.id == ask.item);
        if let Some(item) = item {
            item.is_asked = !is_allowed;
            item.is_declined = !is_allowed;
        }
        wire::answer(&mut out.stdin, &ask.id, &option::result(&ask, &answer));
    }

    /// Nobody will answer what is open.
    pub(super) fn withdraw_all(&mut self, reason: &str, out: &mut Effects) {
        for ask in std::mem::take(&mut self.state.asks) {
            if ask.is_anothers {
                let nobody = option::result(&ask, &Answer::Cancelled);
                wire::answer(&mut out.stdin, &ask.id, &nobody);
            }
            let (key, reason) = (ask.key, reason.to_owned());
            out.events.push(AgentEvent::ApprovalWithdrawn { key, reason });
        }
    }

    /// Codex does not wait for this answer any more; of one that was given it says the same.
    pub(super) fn resolved(&mut self, id: Option<&Value>, out: &mut Effects) {
        let at = self.state.asks.iter().position(|ask| Some(&ask.id) == id);
        let Some(at) = at else { return };
        let ask = self.state.asks.remove(at);
        let reason = "taken back by the agent".to_owned();
        out.events.push(AgentEvent::ApprovalWithdrawn { key: ask.key, reason });
    }
}

fn describe(subject: &mut Map<String, Value>, words: &str) {
    if !words.is_empty() {
        subject.insert("description".to_owned(), json!(cut(words, KEPT_BYTES_MAX)));
    }
}

fn permissions_asked(params: &Map<String, Value>) -> Asked {
    let mut wanted = object(params, "permissions").cloned().unwrap_or_default();
    wanted.retain(|_, value| !value.is_null());
    let permissions = body::bounded(Value::Object(wanted.clone()));
    let mut subject = Map::from_iter([
        ("type".to_owned(), json!("other")),
        ("cwd".to_owned(), params.get("cwd").cloned().unwrap_or_default()),
        ("permissions".to_owned(), permissions),
    ]);
    describe(&mut subject, text(params, "reason"));
    let title = "More permissions for this turn".to_owned();
    let (question, options) = (Question::Permissions { wanted }, option::permissions());
    Asked { question, title, subject, options }
}

fn elicitation_asked(params: &Map<String, Value>) -> Asked {
    let nothing = Map::new();
    let meta = object(params, "_meta").unwrap_or(&nothing);
    let mut subject = Map::from_iter([("server".to_owned(), json!(text(params, "serverName")))]);
    let words = [text(params, "message"), text(params, "title"), "A question of an MCP server"];
    let title = words.into_iter().find(|words| !words.is_empty()).unwrap_or_default();
    if text(meta, "codex_approval_kind") == "mcp_tool_call" {
        subject.insert("type".to_owned(), json!("mcp_tool"));
        subject.insert("tool".to_owned(), json!(text(meta, "tool_name")));
        let arguments = meta.get("tool_params").cloned().unwrap_or_default();
        subject.insert("arguments".to_owned(), body::bounded(arguments));
    } else {
        subject.insert("type".to_owned(), json!("other"));
        for (name, field) in [("url", "url"), ("schema", "requestedSchema")] {
            if let Some(value) = params.get(field) {
                subject.insert(name.to_owned(), body::bounded(value.clone()));
            }
        }
    }
    let (question, options) = (Question::Elicitation, option::elicitation(params));
    Asked { question, title: cut(title, KEPT_BYTES_MAX), subject, options }
}

fn input_asked(params: &Map<String, Value>) -> Asked {
    let questions = list(params, "questions");
    let first = questions.first().and_then(Value::as_object);
    let title = first.map(|question| text(question, "question")).unwrap_or_default();
    let title = if title.is_empty() { "A question" } else { title };
    let subject = Map::from_iter([
        ("type".to_owned(), json!("other")),
        ("questions".to_owned(), body::bounded(json!(questions))),
    ]);
    let (question, options) = option::input(questions);
    Asked { question, title: cut(title, KEPT_BYTES_MAX), subject, options }
}
