//! What the agent asks us.
//!
//! Owns: permission requests and their answers, and the requests for files and terminals. Promises:
//! every request is answered exactly once: by a person or the session thread, with `cancelled` when
//! the turn is interrupted or ends, or with an error at once when it is not offered, not
//! understood, or too many are open.
//!
//! ACP has no place for the words of a person who declines; they go in `_meta`, where every agent
//! that does not know them leaves them.

use super::item::call_id;
use super::state::{
    Approval, ECHO_BYTES_MAX, Errand, ID_BYTES_MAX, NAME_BYTES_MAX, Phase, TITLE_BYTES_MAX,
};
use super::wire::{self, cut, list, object, text};
use super::{Acp, tool, unparsed};
use crate::model::ItemType;
use crate::provider::{AgentEvent, Answer, ApprovalOption, Effects, HostError, HostRequest};
use serde_json::{Map, Value, json};

/// Requests of one kind that may be open at once; one more is answered with an error.
const OPEN_REQUESTS_MAX: usize = 256;
/// Options that are offered to a person; further ones are left out, as those whose id is too long to be kept.
const OPTIONS_MAX: usize = 64;

impl Acp {
    pub(super) fn request(
        &mut self,
        method: &str,
        id: &Value,
        params: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        let is_offered = match method {
            "session/request_permission" => return self.permission(id, params, line, out),
            "fs/read_text_file" | "fs/write_text_file" => self.state.client_fs,
            "terminal/create"
            | "terminal/output"
            | "terminal/wait_for_exit"
            | "terminal/kill"
            | "terminal/release" => self.state.client_terminal,
            _ => {
                let why = format!("no such method: {}", wire::cut(method, 100));
                wire::refuse(&mut out.stdin, id, wire::METHOD_NOT_FOUND, &why);
                return unparsed(line, out);
            }
        };
        match host_request(method, params) {
            _ if !is_offered => {
                wire::refuse(&mut out.stdin, id, wire::METHOD_NOT_FOUND, "not offered");
            }
            None => {
                let why = "a parameter is missing or of the wrong kind";
                wire::refuse(&mut out.stdin, id, wire::INVALID_PARAMS, why);
                unparsed(line, out);
            }
            Some(_) if self.state.errands.len() >= OPEN_REQUESTS_MAX => {
                wire::refuse(&mut out.stdin, id, wire::INTERNAL, "too many requests are open");
            }
            Some(request) => {
                let key = self.state.next_key("host");
                let errand = Errand { key: key.clone(), id: id.clone(), request: request.clone() };
                self.state.errands.push(errand);
                out.events.push(AgentEvent::Host { key, request });
            }
        }
    }

    fn permission(
        &mut self,
        id: &Value,
        params: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        let call = object(params, "toolCall").filter(|call| !text(call, "toolCallId").is_empty());
        let Some(call) = call else {
            wire::refuse(&mut out.stdin, id, wire::INVALID_PARAMS, "there is no tool call");
            return unparsed(line, out);
        };
        if self.state.approvals.len() >= OPEN_REQUESTS_MAX {
            let why = "too many requests are open";
            return wire::refuse(&mut out.stdin, id, wire::INTERNAL, why);
        }
        if self.state.interrupting() || self.state.phase != Phase::Ready {
            // It was asked before the agent heard of the cancel, or where no turn can be.
            let outcome = json!({"outcome": {"outcome": "cancelled"}});
            return wire::answer(&mut out.stdin, id, outcome);
        }
        self.in_turn(out);
        let at = self.tool_asked(call, out);
        let Some(tool) = self.state.tools.get(at) else { return };
        let (item, subject) = (tool.key.clone(), subject(tool, call));
        let title = [text(call, "title"), &tool.title, text(&subject, "command"), &tool.name]
            .into_iter()
            .find(|title| !title.is_empty())
            .unwrap_or("Permission");
        let title = cut(title, TITLE_BYTES_MAX);
        let options = options(list(params, "options"));
        let key = self.state.next_key("ask");
        self.state.approvals.push(Approval {
            key: key.clone(),
            id: id.clone(),
            tool: call_id(call).into_owned(),
            options: options.clone(),
        });
        let item = Some(item);
        out.events.push(AgentEvent::ApprovalAsked { key, item, title, subject, options });
    }

    pub(super) fn answer(&mut self, key: &str, answer: Answer, out: &mut Effects) {
        let open = self.state.approvals.iter().position(|approval| approval.key == key);
        let Some(at) = open else { return };
        let approval = self.state.approvals.remove(at);
        let (outcome, is_refused) = match answer {
            Answer::Cancelled => (json!({"outcome": "cancelled"}), true),
            Answer::Option { option_id, message, .. } => {
                let chosen = approval.options.iter().find(|option| option.id == option_id);
                let is_refused = chosen.is_some_and(|option| option.kind.starts_with("reject"));
                let mut outcome = json!({"outcome": "selected", "optionId": option_id});
                if let Some(message) = message.filter(|_| is_refused) {
                    outcome["_meta"] = json!({"gooselake": {"message": message}});
                }
                (outcome, is_refused)
            }
        };
        if let Some(tool) = self.state.tools.iter_mut().find(|tool| tool.id == approval.tool) {
            tool.declined = is_refused;
        }
        wire::answer(&mut out.stdin, &approval.id, json!({"outcome": outcome}));
    }

    /// Nobody will answer what is open.
    pub(super) fn withdraw_all(&mut self, reason: &str, out: &mut Effects) {
        for approval in std::mem::take(&mut self.state.approvals) {
            let outcome = json!({"outcome": {"outcome": "cancelled"}});
            wire::answer(&mut out.stdin, &approval.id, outcome);
            let (key, reason) = (approval.key, reason.to_owned());
            out.events.push(AgentEvent::ApprovalWithdrawn { key, reason });
        }
    }

    pub(super) fn host_answer(
        &mut self,
        key: &str,
        answer: Result<Value, HostError>,
        out: &mut Effects,
    ) {
        let open = self.state.errands.iter().position(|errand| errand.key == key);
        let Some(at) = open else { return };
        let errand = self.state.errands.remove(at);
        match answer {
            Ok(result) => wire::answer(&mut out.stdin, &errand.id, result),
            Err(error) => wire::refuse(&mut out.stdin, &errand.id, error.code, &error.message),
        }
    }

    /// `$/cancel_request`: the agent takes a request back. It still gets an answer.
    pub(super) fn take_back(&mut self, id: Option<&Value>, out: &mut Effects) {
        let Some(id) = id else { return };
        if let Some(at) = self.state.approvals.iter().position(|approval| approval.id == *id) {
            let approval = self.state.approvals.remove(at);
            wire::refuse(&mut out.stdin, id, wire::CANCELLED, "taken back");
            let reason = "taken back by the agent".to_owned();
            out.events.push(AgentEvent::ApprovalWithdrawn { key: approval.key, reason });
        } else if let Some(at) = self.state.errands.iter().position(|errand| errand.id == *id) {
            let errand = self.state.errands.remove(at);
            out.events.push(AgentEvent::HostTakenBack { key: errand.key });
            wire::refuse(&mut out.stdin, id, wire::CANCELLED, "taken back");
        }
    }
}

/// What the approval is about: what is known of the call, and what the request adds.
fn subject(tool: &super::state::Tool, call: &Map<String, Value>) -> Map<String, Value> {
    let item_type = tool.item_type();
    let kind = match item_type {
        ItemType::Command => "command",
        ItemType::FileChange => "file_change",
        _ if tool.server.is_some() => "mcp_tool",
        _ => "other",
    };
    let mut subject = tool.subject.clone();
    for (name, value) in tool::fields(call, item_type, tool) {
        subject.entry(name).or_insert(value);
    }
    let (changes, rank) = tool::changes(call, &tool.kind);
    if rank > 0 && (rank == 2 || !subject.contains_key("changes")) && kind == "file_change" {
        subject.insert("changes".to_owned(), changes);
    }
    for name in ["title", "terminal_id", "content"] {
        subject.remove(name);
    }
    // Before a call runs, the text of its content says what it is for.
    if let Some(text) = tool::content_text(call).filter(|text| !text.is_empty()) {
        let text = wire::cut(&text, wire::KEPT_BYTES_MAX);
        subject.insert("description".to_owned(), json!(text));
    }
    subject.insert("type".to_owned(), json!(kind));
    subject
}

fn options(offered: &[Value]) -> Vec<ApprovalOption> {
    let offered = offered.iter().filter_map(Value::as_object);
    offered
        .filter(|option| (1..=ECHO_BYTES_MAX).contains(&text(option, "optionId").len()))
        .take(OPTIONS_MAX)
        .map(|option| {
            let id = text(option, "optionId");
            let name = text(option, "name");
            ApprovalOption {
                id: id.to_owned(),
                label: cut(if name.is_empty() { id } else { name }, NAME_BYTES_MAX),
                kind: cut(text(option, "kind"), ID_BYTES_MAX),
            }
        })
        .collect()
}

/// The request in our words. None when a parameter is missing.
fn host_request(method: &str, params: &Map<String, Value>) -> Option<HostRequest> {
    let string = |field: &str| params.get(field)?.as_str().map(str::to_owned);
    let number = |field: &str| params.get(field).and_then(Value::as_u64);
    let terminal_id = string("terminalId");
    Some(match method {
        "fs/read_text_file" => HostRequest::ReadTextFile {
            path: string("path")?,
            line: number("line"),
            limit: number("limit"),
        },
        "fs/write_text_file" => {
            HostRequest::WriteTextFile { path: string("path")?, content: string("content")? }
        }
        "terminal/create" => HostRequest::CreateTerminal {
            command: string("command")?,
            args: list(params, "args")
                .iter()
                .filter_map(|a| a.as_str().map(str::to_owned))
                .collect(),
            env: list(params, "env").iter().filter_map(variable).collect(),
            cwd: string("cwd"),
            output_byte_limit: number("outputByteLimit"),
        },
        "terminal/output" => HostRequest::TerminalOutput { terminal_id: terminal_id? },
        "terminal/wait_for_exit" => HostRequest::WaitForTerminalExit { terminal_id: terminal_id? },
        "terminal/kill" => HostRequest::KillTerminal { terminal_id: terminal_id? },
        "terminal/release" => HostRequest::ReleaseTerminal { terminal_id: terminal_id? },
        _ => return None,
    })
}

fn variable(pair: &Value) -> Option<(String, String)> {
    Some((pair.get("name")?.as_str()?.to_owned(), pair.get("value")?.as_str()?.to_owned()))
}
