//! Items: messages, thoughts, tool calls.
//!
//! Owns: when an item begins, what of it changes, and when it ends. Promises: a key that is started
//! is completed exactly once; a field is told only when it is new or different; output is told as
//! growth where it grows. An agent may tell anything in any order: an update for a call that was
//! never announced begins the item, one for a call that is over changes nothing.
//!
//! A message goes on while its `messageId` is the same, also around a tool call. Without ids it
//! goes on until something else is shown. A thought ends when anything else is shown. A tool call
//! that a person declined ends as declined, whatever the agent says of it (agents say failed,
//! completed, or nothing). One that ends while the turn is being interrupted ends as interrupted,
//! if the agent calls it failed, or a command completed without an exit code.

use super::state::{ID_BYTES_MAX, NAME_BYTES_MAX, Sent, Speech, TITLE_BYTES_MAX, Tool, hash};
use super::wire::{Chunk, cut, short_id, text};
use super::{Acp, tool, unparsed};
use crate::model::{ItemStatus, ItemType};
use crate::provider::{AgentEvent, DeltaField, Effects};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// More tool calls than this are not open at once; the oldest ends as interrupted.
const OPEN_TOOLS_MAX: usize = 256;
/// How many calls that are over are remembered, so that late updates do not begin them again.
const FINISHED_MAX: usize = 64;
/// What of one field an approval can repeat from an earlier message.
const SUBJECT_FIELD_BYTES_MAX: usize = 16 * 1024;

impl Acp {
    pub(super) fn speak(&mut self, chunk: &Chunk, out: &mut Effects) {
        self.in_turn(out);
        let open = if chunk.thought { &self.state.thought } else { &self.state.speech };
        let id = chunk.message_id.map(|id| short_id(id, ID_BYTES_MAX));
        let goes_on = open.as_ref().filter(|open| open.message_id.as_deref() == id.as_deref());
        if goes_on.is_none() {
            self.begin_speech(chunk, out);
        } else if !chunk.thought && self.state.thought.is_some() {
            self.end_thought(ItemStatus::Completed, out);
        }
        let open = if chunk.thought { &self.state.thought } else { &self.state.speech };
        if let Some(open) = open.as_ref().filter(|_| !chunk.text.is_empty()) {
            out.events.push(AgentEvent::ItemDelta {
                item: open.key.clone(),
                field: DeltaField::Text,
                text: chunk.text.clone().into_owned(),
            });
        }
    }

    fn begin_speech(&mut self, chunk: &Chunk, out: &mut Effects) {
        self.pause_speech(out);
        let (prefix, item_type) = match chunk.thought {
            true => ("thought", ItemType::Reasoning),
            false => ("message", ItemType::AssistantMessage),
        };
        if !chunk.thought {
            // Another message: the one before is over, with or without an id.
            self.end_message(ItemStatus::Completed, out);
        }
        let id = chunk.message_id.map(|id| short_id(id, ID_BYTES_MAX));
        let key = match &id {
            Some(id) => format!("{prefix}:{id}"),
            None => self.state.next_key(prefix),
        };
        let body = Map::new();
        out.events.push(AgentEvent::ItemStarted { item: key.clone(), item_type, body });
        let speech = Speech { key, message_id: id.map(Cow::into_owned) };
        *(if chunk.thought { &mut self.state.thought } else { &mut self.state.speech }) =
            Some(speech);
    }

    /// Something else is shown: thoughts end, and a message that could not be told from the next
    /// one.
    pub(super) fn pause_speech(&mut self, out: &mut Effects) {
        self.end_thought(ItemStatus::Completed, out);
        if self.state.speech.as_ref().is_some_and(|speech| speech.message_id.is_none()) {
            self.end_message(ItemStatus::Completed, out);
        }
    }

    fn end_thought(&mut self, status: ItemStatus, out: &mut Effects) {
        if let Some(thought) = self.state.thought.take() {
            complete(thought.key, status, Map::new(), out);
        }
    }

    fn end_message(&mut self, status: ItemStatus, out: &mut Effects) {
        if let Some(speech) = self.state.speech.take() {
            complete(speech.key, status, Map::new(), out);
        }
    }

    /// Ends all that is open, because the turn ends. `tools` is the status of tool calls that
    /// nobody declined.
    pub(super) fn close_items(&mut self, tools: ItemStatus, out: &mut Effects) {
        self.end_thought(ItemStatus::Completed, out);
        self.end_message(ItemStatus::Completed, out);
        for tool in std::mem::take(&mut self.state.tools) {
            let status = if tool.declined { ItemStatus::Declined } else { tools };
            self.remember_finished(&tool.id);
            let body = last_fields(&tool);
            complete(tool.key, status, body, out);
        }
    }

    /// A `tool_call` (`is_new`) or a `tool_call_update`.
    pub(super) fn tool_told(
        &mut self,
        call: &Map<String, Value>,
        is_new: bool,
        line: &[u8],
        out: &mut Effects,
    ) {
        let id = call_id(call);
        if id.is_empty() {
            return unparsed(line, out);
        }
        let is_known = self.tool_at(&id).is_some();
        if !is_known && !is_new && self.state.finished.contains(&hash(&id)) {
            return;
        }
        let at = self.tool_for(call, out);
        if is_known {
            self.retype(at, call, false, out);
        }
        self.run(at, call, out);
    }

    /// The call of a permission request: the item begins with it, if the agent has not announced
    /// it. Of a known call only what was not told yet is taken from it. Returns its place.
    pub(super) fn tool_asked(&mut self, call: &Map<String, Value>, out: &mut Effects) -> usize {
        let known = self.tool_at(&call_id(call));
        let at = self.tool_for(call, out);
        if known.is_some() {
            self.retype(at, call, true, out);
        }
        at
    }

    fn tool_at(&self, id: &str) -> Option<usize> {
        self.state.tools.iter().position(|tool| tool.id == id)
    }

    /// The place of the call; begins its item if there is none.
    fn tool_for(&mut self, call: &Map<String, Value>, out: &mut Effects) -> usize {
        let id = call_id(call);
        if let Some(at) = self.tool_at(&id) {
            return at;
        }
        self.in_turn(out);
        self.pause_speech(out);
        if self.state.tools.len() >= OPEN_TOOLS_MAX {
            let oldest = self.state.tools.remove(0);
            self.remember_finished(&oldest.id);
            complete(oldest.key, ItemStatus::Interrupted, Map::new(), out);
        }
        let identity = tool::identity(call, &self.state.mcp_servers);
        let kind = cut(text(call, "kind"), NAME_BYTES_MAX);
        let item_type = tool::item_type(&kind, &identity, call);
        let mut new = Tool {
            key: format!("tool:{id}"),
            id: id.into_owned(),
            item_type: item_type.as_str().to_owned(),
            kind,
            name: identity.name,
            server: identity.server,
            title: cut(text(call, "title"), TITLE_BYTES_MAX),
            ..Tool::default()
        };
        let fields = told(call, item_type, &new);
        let body = new.news(fields, false);
        let item = new.key.clone();
        out.events.push(AgentEvent::ItemStarted { item, item_type, body });
        self.state.tools.push(new);
        self.state.tools.len() - 1
    }

    /// Takes in what a further message says of the call. With `is_ask`, only what was not known.
    fn retype(&mut self, at: usize, call: &Map<String, Value>, is_ask: bool, out: &mut Effects) {
        let identity = tool::identity(call, &self.state.mcp_servers);
        let Some(tool) = self.state.tools.get_mut(at) else { return };
        let before = tool.item_type();
        if tool.kind.is_empty() {
            tool.kind = cut(text(call, "kind"), NAME_BYTES_MAX);
        }
        if tool.name.is_empty() {
            tool.name = identity.name;
        }
        if tool.server.is_none() && !is_ask {
            tool.server = identity.server;
        }
        if !text(call, "title").is_empty() && (tool.title.is_empty() || !is_ask) {
            tool.title = cut(text(call, "title"), TITLE_BYTES_MAX);
        }
        let known = tool::Identity { name: tool.name.clone(), server: tool.server.clone() };
        let mut item_type = tool::item_type(&tool.kind, &known, call);
        if item_type == ItemType::ToolCall && before != ItemType::ToolCall && known.server.is_none()
        {
            // A diff that is not repeated makes it no less of a file change.
            item_type = before;
        }
        tool.item_type = item_type.as_str().to_owned();
        let fields = told(call, item_type, tool);
        let body = tool.news(fields, is_ask);
        let changed = (item_type != before).then_some(item_type);
        if changed.is_some() || !body.is_empty() {
            let item = tool.key.clone();
            out.events.push(AgentEvent::ItemSet { item, item_type: changed, body });
            self.pause_speech(out);
        }
    }

    /// Output and status: what only an announcement or an update tells.
    fn run(&mut self, at: usize, call: &Map<String, Value>, out: &mut Effects) {
        let Some(tool) = self.state.tools.get_mut(at) else { return };
        let status = text(call, "status");
        tool.running |= matches!(status, "in_progress" | "completed" | "failed" | "cancelled");
        if let Some(piece) = tool::output_piece(call) {
            tool.streamed = true;
            tool.output.push(piece);
            let (item, text) = (tool.key.clone(), piece.to_owned());
            out.events.push(AgentEvent::ItemDelta { item, field: DeltaField::Output, text });
        }
        match status {
            "completed" | "failed" | "cancelled" => self.finish(at, status, call, out),
            _ if tool.running => tool.grow(call, out),
            _ => {}
        }
    }

    fn finish(&mut self, at: usize, says: &str, call: &Map<String, Value>, out: &mut Effects) {
        let is_interrupting = self.state.interrupting();
        let mut tool = self.state.tools.remove(at);
        let item_type = tool.item_type();
        let exit_code = tool::exit_code(call);
        let is_silent = item_type == ItemType::Command && exit_code.is_none();
        let status = match says {
            _ if tool.declined => ItemStatus::Declined,
            "cancelled" => ItemStatus::Interrupted,
            "failed" if is_interrupting => ItemStatus::Interrupted,
            "failed" => ItemStatus::Failed,
            _ if is_interrupting && is_silent => ItemStatus::Interrupted,
            _ => ItemStatus::Completed,
        };
        let mut body = last_fields(&tool);
        match item_type {
            _ if status == ItemStatus::Declined => {
                // The agent's words for the refusal are not the tool's output.
                body.extend(tool::output(call).map(|words| ("error".to_owned(), json!(words))));
            }
            // What is said of a call that was stopped is about the stop, it is not output.
            ItemType::Command if says == "failed" && status == ItemStatus::Interrupted => {
                body.extend(tool::output(call).map(|words| ("error".to_owned(), json!(words))));
            }
            ItemType::Command => {
                body.extend(exit_code.map(|code| ("exit_code".to_owned(), json!(code))));
                body.extend(tool::signal(call).map(|name| ("signal".to_owned(), name.clone())));
                tool.last_output(call, &mut body, out);
            }
            ItemType::FileChange if status == ItemStatus::Completed => {}
            ItemType::FileChange => {
                body.extend(tool::output(call).map(|words| ("error".to_owned(), json!(words))));
            }
            _ => {
                let error = tool::error(call);
                let field = if status == ItemStatus::Completed { "result" } else { "error" };
                let value =
                    error.filter(|_| field == "error").unwrap_or_else(|| tool::result(call));
                if !value.is_null() {
                    body.insert(field.to_owned(), value);
                }
            }
        }
        self.pause_speech(out);
        self.remember_finished(&tool.id);
        complete(tool.key, status, body, out);
    }

    fn remember_finished(&mut self, id: &str) {
        if self.state.finished.len() >= FINISHED_MAX {
            self.state.finished.pop_front();
        }
        self.state.finished.push_back(hash(id));
    }
}

impl Tool {
    pub(super) fn item_type(&self) -> ItemType {
        ItemType::parse(&self.item_type).unwrap_or(ItemType::Other)
    }

    /// Those of the fields that are new or different; they are known from now on.
    fn news(&mut self, fields: Told, is_ask: bool) -> Map<String, Value> {
        let mut fields = fields;
        let rank = fields.rank;
        if rank == 0 || rank < self.change_rank {
            fields.body.remove("changes");
        } else {
            self.change_rank = rank;
        }
        let mut news = Map::new();
        for (name, value) in fields.body {
            let text = value.to_string();
            let hash = hash(&text);
            let is_known = match self.sent.get(&name) {
                Some(sent) => *sent == hash || is_ask && name != "changes",
                None => false,
            };
            if is_known {
                continue;
            }
            self.sent.insert(name.clone(), hash);
            self.subject.remove(&name);
            if text.len() <= SUBJECT_FIELD_BYTES_MAX {
                self.subject.insert(name.clone(), value.clone());
            }
            news.insert(name, value);
        }
        news
    }

    /// Output of a call that still runs.
    fn grow(&mut self, call: &Map<String, Value>, out: &mut Effects) {
        if self.item_type() != ItemType::Command || self.streamed {
            return;
        }
        let Some(whole) = tool::output(call).filter(|whole| !whole.is_empty()) else { return };
        let item = self.key.clone();
        match self.output.rest(&whole) {
            Some("") => return,
            Some(rest) => {
                let (field, text) = (DeltaField::Output, rest.to_owned());
                out.events.push(AgentEvent::ItemDelta { item, field, text });
            }
            // It was rewritten, as a terminal does with a progress bar.
            None => {
                let body = Map::from_iter([("output".to_owned(), json!(whole))]);
                out.events.push(AgentEvent::ItemSet { item, item_type: None, body });
            }
        }
        self.output = Sent::default();
        self.output.push(&whole);
    }

    /// The output at the end: the rest of it, or all of it where it differs from what was told.
    fn last_output(
        &mut self,
        call: &Map<String, Value>,
        body: &mut Map<String, Value>,
        out: &mut Effects,
    ) {
        let Some(whole) = tool::output(call).filter(|whole| !whole.is_empty()) else { return };
        // Claude tells the text twice, once without its last newline.
        let is_same = self.output.bytes > 0
            && self.output.rest(&format!("{whole}\n")).is_some_and(|rest| rest.is_empty());
        match self.output.rest(&whole) {
            Some("") => {}
            _ if is_same => {}
            Some(rest) if self.output.bytes > 0 => {
                let (item, field, text) = (self.key.clone(), DeltaField::Output, rest.to_owned());
                out.events.push(AgentEvent::ItemDelta { item, field, text });
            }
            _ => {
                body.insert("output".to_owned(), json!(whole));
            }
        }
    }
}

/// The fields that a message tells, and how much it knows of the changes.
struct Told {
    body: Map<String, Value>,
    rank: u8,
}

fn told(call: &Map<String, Value>, item_type: ItemType, tool: &Tool) -> Told {
    let mut body = tool::fields(call, item_type, tool);
    let (changes, rank) = tool::changes(call, &tool.kind);
    if rank == 2 || rank == 1 && item_type == ItemType::FileChange {
        body.insert("changes".to_owned(), changes);
    }
    Told { body, rank }
}

/// A command that was never told is at least called what the agent called it.
fn last_fields(tool: &Tool) -> Map<String, Value> {
    let mut body = Map::new();
    let is_nameless = tool.item_type() == ItemType::Command && !tool.sent.contains_key("command");
    if is_nameless && !tool.title.is_empty() {
        body.insert("command".to_owned(), json!(tool.title));
    }
    body
}

fn complete(item: String, status: ItemStatus, body: Map<String, Value>, out: &mut Effects) {
    out.events.push(AgentEvent::ItemCompleted { item, status, body });
}

/// The agent's id of the call, as it is kept.
pub(super) fn call_id(call: &Map<String, Value>) -> Cow<'_, str> {
    short_id(text(call, "toolCallId"), ID_BYTES_MAX)
}
