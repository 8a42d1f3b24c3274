//! What the agent tells: `session/update`.
//!
//! Owns: one match over the kinds of update. Promises: an unknown kind is kept as unparsed; what
//! belongs to a session that is not ours is kept as unparsed too; the history of a load is
//! swallowed, its settings are not. Slash commands and the agent's echo of what a person said
//! (`user_message_chunk`, seen only in replays) are left out.

use super::state::{Phase, State, hash};
use super::wire::{Chunk, KEPT_BYTES_MAX, cut, object, text};
use super::{Acp, notice, unparsed};
use crate::model::{ItemStatus, ItemType};
use crate::provider::{AgentEvent, Effects};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// What gemini says, as speech, when its mode changes.
const MODE_WORDS: &str = "[MODE_UPDATE] ";
/// A title is a line; a longer one is cut.
const TITLE_BYTES_MAX: usize = 1024;

impl Acp {
    pub(super) fn update(&mut self, params: &Map<String, Value>, line: &[u8], out: &mut Effects) {
        let Some(update) = object(params, "update") else { return unparsed(line, out) };
        let session = text(params, "sessionId");
        let kind = text(update, "sessionUpdate");
        if matches!(kind, "current_mode_update" | "config_option_update") {
            if !self.is_other(session) {
                self.told_settings(out, |state| {
                    state.settings.read(update, &mut state.capabilities);
                    state.settings.mode_is(text(update, "modeId"));
                });
            }
            return;
        }
        if self.is_loading() {
            return;
        }
        if self.swallows(session) {
            return unparsed(line, out);
        }
        let is_item = matches!(kind, "tool_call" | "tool_call_update" | "plan");
        match kind {
            _ if is_item && self.state.phase != Phase::Ready => unparsed(line, out),
            "agent_message_chunk" | "agent_thought_chunk" => {
                self.value_chunk(session, update, line, out);
            }
            "tool_call" => self.tool_told(update, true, line, out),
            "tool_call_update" => self.tool_told(update, false, line, out),
            "plan" => match update.get("entries").and_then(Value::as_array) {
                Some(entries) => {
                    let entries = entries.clone();
                    self.in_turn(out);
                    self.pause_speech(out);
                    out.events.push(AgentEvent::Plan { entries });
                }
                None => unparsed(line, out),
            },
            "usage_update" => self.usage_update(update, out),
            "session_info_update" => self.title(text(update, "title"), out),
            "available_commands_update" | "user_message_chunk" => {}
            "notice" | "compaction_update" | "compaction_summary_chunk" => {
                notice(notice_text(kind, update), kept(update), out);
            }
            _ => unparsed(line, out),
        }
    }

    fn is_other(&self, session: &str) -> bool {
        let native = self.state.native.as_deref();
        !session.is_empty() && native.is_some_and(|native| native != session)
    }

    /// Changes the settings and tells which of them are new. Before the session is open nothing is
    /// told: [`AgentEvent::Opened`] has them all.
    pub(super) fn told_settings(&mut self, out: &mut Effects, change: impl FnOnce(&mut State)) {
        let before = self.state.settings.in_force();
        change(&mut self.state);
        let now = self.state.settings.in_force();
        if self.state.phase != Phase::Ready || now == before {
            return;
        }
        let news = |now: Option<String>, before| if now == before { None } else { now };
        out.events.push(AgentEvent::SettingsChanged {
            model: news(now.model, before.model),
            mode: news(now.mode, before.mode),
            reasoning_level: news(now.reasoning, before.reasoning),
        });
    }

    fn title(&mut self, title: &str, out: &mut Effects) {
        let hash = hash(title);
        if !title.is_empty() && hash != self.state.title {
            self.state.title = hash;
            out.events.push(AgentEvent::TitleChanged { title: cut(title, TITLE_BYTES_MAX) });
        }
    }

    /// A piece of the agent's text.
    pub(super) fn chunk(&mut self, chunk: &Chunk, out: &mut Effects) {
        if !chunk.thought
            && let Some(mode) = chunk.text.strip_prefix(MODE_WORDS)
        {
            let mode = mode.trim();
            return self.told_settings(out, |state| state.settings.mode_is(mode));
        }
        if self.state.phase != Phase::Ready {
            // A warning at the start (the codex agents give theirs as speech); no turn can have it.
            return notice(cut(&chunk.text, KEPT_BYTES_MAX), Value::Null, out);
        }
        self.speak(chunk, out);
    }

    /// A chunk with something uncommon about it.
    fn value_chunk(
        &mut self,
        session: &str,
        update: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        let Some(content) = object(update, "content") else { return unparsed(line, out) };
        let said = text(content, "text");
        let claude = object(update, "_meta").and_then(|meta| object(meta, "claudeCode"));
        if text(content, "type") != "text" {
            return match self.state.phase {
                Phase::Ready => self.show(content, out),
                _ => unparsed(line, out),
            };
        }
        // claude-agent-acp says as speech that an MCP server did not start, and marks it so.
        if claude.is_some_and(|meta| !text(meta, "kind").is_empty()) {
            return notice(cut(said, KEPT_BYTES_MAX), kept(update), out);
        }
        let chunk = Chunk {
            session: Cow::Borrowed(session),
            thought: text(update, "sessionUpdate") == "agent_thought_chunk",
            message_id: update.get("messageId").and_then(Value::as_str),
            text: Cow::Borrowed(said),
        };
        self.chunk(&chunk, out);
    }

    /// Content that is no text is an item of its own.
    fn show(&mut self, content: &Map<String, Value>, out: &mut Effects) {
        self.in_turn(out);
        self.pause_speech(out);
        let item = self.state.next_key("content");
        let mut body = Map::new();
        let item_type = if text(content, "type") == "image" {
            for (name, field) in [("media_type", "mimeType"), ("data", "data"), ("uri", "uri")] {
                if let Some(value) = content.get(field).filter(|value| !value.is_null()) {
                    body.insert(name.to_owned(), value.clone());
                }
            }
            ItemType::Image
        } else {
            body.insert("content".to_owned(), json!(content));
            ItemType::Other
        };
        out.events.push(AgentEvent::ItemStarted { item: item.clone(), item_type, body });
        let (status, body) = (ItemStatus::Completed, Map::new());
        out.events.push(AgentEvent::ItemCompleted { item, status, body });
    }
}

fn notice_text(kind: &str, update: &Map<String, Value>) -> String {
    let content = object(update, "content").map_or("", |content| text(content, "text"));
    let summary = update.get("summary").and_then(|summary| summary.pointer("/0/text")?.as_str());
    let said = ["message", "text", "title"].map(|field| text(update, field));
    let said =
        said.into_iter().chain([content, summary.unwrap_or_default(), text(update, "error")]);
    match (said.into_iter().find(|said| !said.is_empty()), text(update, "status")) {
        (Some(said), _) => cut(said, KEPT_BYTES_MAX),
        (None, "") => kind.replace('_', " "),
        (None, status) => {
            let what = kind.strip_suffix("_update").unwrap_or(kind);
            format!("{what}: {}", cut(&status.replace('_', " "), 100))
        }
    }
}

/// The update as data of a notice, unless it is large.
fn kept(update: &Map<String, Value>) -> Value {
    let value = json!(update);
    if value.to_string().len() <= KEPT_BYTES_MAX { value } else { Value::Null }
}
