//! Items: messages, thoughts, commands, file changes, tool calls.
//!
//! Owns: when an item begins, what of it changes, and when it ends. Promises: a key that is started is completed
//! exactly once. A message that is cut (by a steer, an interrupt, an error) is never ended by Codex: it is ended
//! here. A command that still runs when its turn ends goes on, and ends when Codex says so, or when Codex says that
//! it does not run.

use super::state::{ID_BYTES_MAX, Item};
use super::turn::may_go_on;
use super::wire::Piece;
use super::{Codex, body, unparsed};
use crate::limits;
use crate::model::{ItemStatus, ItemType};
use crate::provider::rpc::{object, short_id, text};
use crate::provider::sent::hash;
use crate::provider::{AgentEvent, DeltaField, Effects};
use serde_json::{Map, Value, json};

/// More items than this are not open at once; the oldest ends as interrupted.
const OPEN_ITEMS_MAX: usize = 256;
/// How many items that are over are remembered, so that late pieces do not begin them again.
const FINISHED_MAX: usize = 64;
/// What of one field an approval can repeat.
const SUBJECT_FIELD_BYTES_MAX: usize = 16 * 1024;

impl Codex {
    /// `item/started`, or `item/completed` when `is_over`.
    pub(super) fn item_told(
        &mut self,
        params: &Map<String, Value>,
        is_over: bool,
        line: &[u8],
        out: &mut Effects,
    ) {
        let Some(item) = object(params, "item") else { return unparsed(line, out) };
        if self.is_anothers(text(params, "threadId")) {
            return;
        }
        if text(item, "type") == "userMessage" {
            // Ours, which the session has told already; one in the middle of a turn has cut what was being said.
            self.cut_speech(out);
            return;
        }
        let id = &*short_id(text(item, "id"), ID_BYTES_MAX);
        if id.is_empty() {
            return unparsed(line, out);
        }
        let at = match self.item_at(id) {
            Some(at) => at,
            None if self.state.finished.contains(&hash(id)) => return,
            None if self.state.native_turn.as_deref() != Some(text(params, "turnId")) => {
                return unparsed(line, out);
            }
            None => self.begin(id, item, out),
        };
        if is_over {
            self.finish(at, item, out);
        }
    }

    /// Whether a thread is not ours: a sub-agent's.
    pub(super) fn is_anothers(&self, thread: &str) -> bool {
        self.state.thread.as_deref().is_some_and(|ours| ours != thread)
    }

    /// The call of an MCP server's tool that began last; a question about it names no item.
    pub(super) fn mcp_call(&self, server: &str, tool: &str) -> Option<&str> {
        let is_it = |item: &&Item| {
            text(&item.subject, "server") == server && text(&item.subject, "tool") == tool
        };
        self.state.items.iter().rev().find(is_it).map(|item| item.id.as_str())
    }

    /// The place of the item with this id, as Codex tells it or as it is kept.
    pub(super) fn item_at(&self, id: &str) -> Option<usize> {
        let id = short_id(id, ID_BYTES_MAX);
        self.state.items.iter().position(|item| item.id == id)
    }

    fn begin(&mut self, id: &str, told: &Map<String, Value>, out: &mut Effects) -> usize {
        self.in_turn(out);
        if self.state.items.len() >= OPEN_ITEMS_MAX {
            let oldest = self.state.items.remove(0);
            self.complete(oldest, ItemStatus::Interrupted, Map::new(), out);
        }
        let item_type = body::item_type(told);
        let fields = body::fields(told);
        let key = format!("item:{id}");
        let mut subject = fields.clone();
        subject.retain(|_, value| value.to_string().len() <= SUBJECT_FIELD_BYTES_MAX);
        let item = key.clone();
        out.events.push(AgentEvent::ItemStarted { item, item_type, body: fields });
        self.state.items.push(Item {
            key,
            id: id.to_owned(),
            item_type: item_type.as_str().to_owned(),
            has_pieces: false,
            subject,
            is_asked: false,
            is_declined: false,
            has_summary: false,
            goes_on: false,
            interrupted: false,
        });
        self.state.items.len() - 1
    }

    fn finish(&mut self, at: usize, told: &Map<String, Value>, out: &mut Effects) {
        let item = self.state.items.remove(at);
        let mut fields = body::fields(told);
        // What was told already and is the same is not told again.
        fields.retain(|name, value| item.subject.get(name) != Some(value));
        let field = delta_field(item.item_type());
        let whole = body::whole(told).unwrap_or_default();
        if item.has_pieces && !whole.is_empty() && whole.len() <= limits::ITEM_TEXT_BYTES {
            // The first of what a command wrote may have come as no piece. A longer text went on in further items.
            fields.insert(field.as_str().to_owned(), json!(whole));
        } else if !item.has_pieces && !whole.is_empty() {
            let (item, text) = (item.key.clone(), whole);
            out.events.push(AgentEvent::ItemDelta { item, field, text });
        }
        let is_stopped = item.interrupted || self.state.is_interrupting;
        let status = match body::status(told) {
            // Codex calls a tool that nobody allowed failed.
            ItemStatus::Failed if item.is_declined => ItemStatus::Declined,
            ItemStatus::Failed if is_stopped => ItemStatus::Interrupted,
            status => status,
        };
        self.complete(item, status, fields, out);
    }

    fn complete(
        &mut self,
        item: Item,
        status: ItemStatus,
        body: Map<String, Value>,
        out: &mut Effects,
    ) {
        if self.state.finished.len() >= FINISHED_MAX {
            self.state.finished.pop_front();
        }
        self.state.finished.push_back(hash(&item.id));
        out.events.push(AgentEvent::ItemCompleted { item: item.key, status, body });
    }

    /// Codex does not know the command any more.
    pub(super) fn lost(&mut self, id: &str, out: &mut Effects) {
        if let Some(at) = self.item_at(id) {
            let item = self.state.items.remove(at);
            self.complete(item, ItemStatus::Interrupted, Map::new(), out);
        }
    }

    /// Ends what was being said or thought; Codex will say no more of it.
    fn cut_speech(&mut self, out: &mut Effects) {
        let is_speech = |item: &Item| {
            matches!(item.item_type(), ItemType::AssistantMessage | ItemType::Reasoning)
        };
        while let Some(at) = self.state.items.iter().position(is_speech) {
            let item = self.state.items.remove(at);
            self.complete(item, ItemStatus::Interrupted, Map::new(), out);
        }
    }

    /// Ends what is open, because the turn ends; returns whether commands of it go on.
    pub(super) fn close_items(&mut self, status: ItemStatus, out: &mut Effects) -> bool {
        let mut is_going_on = false;
        for mut item in std::mem::take(&mut self.state.items) {
            if item.goes_on {
                self.state.items.push(item);
            } else if may_go_on(item.item_type()) && !item.is_asked {
                is_going_on = true;
                item.goes_on = true;
                item.interrupted = status == ItemStatus::Interrupted;
                out.events.push(AgentEvent::ItemGoesOn { item: item.key.clone() });
                self.state.items.push(item);
            } else {
                let status = if item.is_asked { ItemStatus::Interrupted } else { status };
                self.complete(item, status, Map::new(), out);
            }
        }
        is_going_on
    }

    pub(super) fn piece(&mut self, piece: &Piece, line: &[u8], out: &mut Effects) {
        if self.is_anothers(&piece.thread) {
            return;
        }
        let field = match &*piece.method {
            "item/agentMessage/delta"
            | "item/plan/delta"
            | "item/reasoning/summaryTextDelta"
            | "item/reasoning/textDelta" => DeltaField::Text,
            "item/commandExecution/outputDelta" => DeltaField::Output,
            // What the patch tool says; the changes are in the item.
            "item/fileChange/outputDelta" => return,
            _ => return unparsed(line, out),
        };
        let at = self.item_at(&piece.item);
        let Some(item) = at.and_then(|at| self.state.items.get_mut(at)) else {
            if !self.state.finished.contains(&hash(&short_id(&piece.item, ID_BYTES_MAX))) {
                unparsed(line, out);
            }
            return;
        };
        item.has_summary |= piece.method == "item/reasoning/summaryTextDelta";
        let is_left_out = item.has_summary && piece.method == "item/reasoning/textDelta";
        if piece.text.is_empty() || is_left_out {
            return;
        }
        item.has_pieces = true;
        let (item, text) = (item.key.clone(), piece.text.clone().into_owned());
        out.events.push(AgentEvent::ItemDelta { item, field, text });
    }

    /// A further part of the summary of the thoughts: a blank line parts it from the one before.
    pub(super) fn summary_part(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let at = self.item_at(text(params, "itemId"));
        let Some(item) = at.and_then(|at| self.state.items.get_mut(at)) else { return };
        if item.has_pieces {
            let (item, text) = (item.key.clone(), "\n\n".to_owned());
            out.events.push(AgentEvent::ItemDelta { item, field: DeltaField::Text, text });
        }
    }

    /// A better version of a file change, or the progress of a tool call.
    pub(super) fn set(&mut self, id: &str, name: &str, value: Value, out: &mut Effects) {
        let at = self.item_at(id);
        let Some(item) = at.and_then(|at| self.state.items.get_mut(at)) else { return };
        item.subject.remove(name);
        if value.to_string().len() <= SUBJECT_FIELD_BYTES_MAX {
            item.subject.insert(name.to_owned(), value.clone());
        }
        let body = Map::from_iter([(name.to_owned(), value)]);
        out.events.push(AgentEvent::ItemSet { item: item.key.clone(), item_type: None, body });
    }
}

fn delta_field(item_type: ItemType) -> DeltaField {
    if item_type == ItemType::Command { DeltaField::Output } else { DeltaField::Text }
}
