//! What the model says and thinks.
//!
//! Owns: the text of the message that is being streamed, block by block. The pieces come from `stream_event`; the
//! `assistant` message that follows has the whole block, and what the pieces lacked is told then: all of it when there
//! was no stream (the program falls back to that when a stream breaks). What a sub-agent says is its tool's result, not
//! speech of the conversation. Messages of the program's own making are errors, or the output of a slash command.

use super::Session;
use crate::bridge::Out;
use crate::wire::{list, text};
use serde_json::{Value, json};

/// The program's name where a message has its model.
const SYNTHETIC: &str = "<synthetic>";
/// What the program writes into the history where an answer is missing; nobody said it.
const NO_ANSWER: &str = "No response requested.";

/// Blocks in a message; what comes beyond is shown, and not compared with the whole.
const BLOCKS_MAX: usize = 4096;
/// What is kept of a block for that comparison; a longer one is not compared.
const STREAMED_BYTES_MAX: usize = 16 << 20;

/// The message that is being said.
#[derive(Debug, Default)]
pub(super) struct Speech {
    message: String,
    /// What was streamed of each block, by its index; None for a block that is not compared.
    streamed: Vec<Option<String>>,
    /// Blocks of which the whole has come.
    whole: usize,
}

impl Session {
    /// A piece of the model's stream.
    pub(super) fn stream_event(&mut self, event: &Value, out: &mut Out) {
        self.is_busy = true;
        match text(event, "type") {
            "message_start" => {
                let message = text(&event["message"], "id").to_owned();
                self.speech = Speech { message, ..Speech::default() };
            }
            "content_block_start" => {
                let kind = text(&event["content_block"], "type");
                let is_text = matches!(kind, "text" | "thinking");
                if self.speech.streamed.len() < BLOCKS_MAX {
                    self.speech.streamed.push(is_text.then(String::new));
                }
            }
            "content_block_delta" => {
                let delta = &event["delta"];
                match text(delta, "type") {
                    "text_delta" => self.piece(text(delta, "text"), false, out),
                    "thinking_delta" => self.piece(text(delta, "thinking"), true, out),
                    _ => {}
                }
            }
            "message_delta" => self.context_used(&event["usage"], out),
            _ => {}
        }
    }

    fn piece(&mut self, piece: &str, is_thought: bool, out: &mut Out) {
        let index = self.speech.streamed.len().saturating_sub(1);
        if let Some(last) = self.speech.streamed.last_mut() {
            let kept = last.take().filter(|kept| kept.len() + piece.len() <= STREAMED_BYTES_MAX);
            *last = kept.map(|kept| kept + piece);
        }
        let message = self.speech.message.clone();
        chunk(&message, index, piece, is_thought, out);
    }

    /// A whole block of a message; each block comes in a message of its own, all with one id.
    pub(super) fn assistant(&mut self, line: &Value, is_main: bool, out: &mut Out) {
        let message = &line["message"];
        let parent = text(line, "parent_tool_use_id");
        if text(message, "model") == SYNTHETIC {
            return self.synthetic(line, is_main, out);
        }
        for block in list(message, "content") {
            let kind = text(block, "type");
            if kind.ends_with("tool_use") {
                self.call(block, parent, out);
            } else if kind.ends_with("_tool_result") {
                self.call_over(block, &Value::Null, out);
            } else if is_main && matches!(kind, "text" | "thinking") {
                self.whole_block(text(message, "id"), block, out);
                continue;
            }
            if is_main {
                self.begin(text(message, "id"));
                self.speech.whole += 1;
            }
        }
    }

    fn begin(&mut self, message: &str) {
        if self.speech.message != message {
            self.speech = Speech { message: message.to_owned(), ..Speech::default() };
        }
    }

    fn whole_block(&mut self, message: &str, block: &Value, out: &mut Out) {
        self.begin(message);
        let index = self.speech.whole;
        self.speech.whole += 1;
        let is_thought = text(block, "type") == "thinking";
        let whole = text(block, if is_thought { "thinking" } else { "text" });
        // A whole that does not begin with what was streamed can not be told: a chunk only adds.
        let rest = match self.speech.streamed.get(index) {
            None => whole,
            Some(None) => "",
            Some(Some(streamed)) => whole.strip_prefix(streamed.as_str()).unwrap_or_default(),
        };
        chunk(message, index, rest, is_thought, out);
    }

    fn synthetic(&mut self, line: &Value, is_main: bool, out: &mut Out) {
        let message = &line["message"];
        let words: Vec<&str> =
            list(message, "content").iter().map(|block| text(block, "text")).collect();
        let words = words.join("\n");
        let kind = text(line, "error");
        if !kind.is_empty() || line["is_api_error_message"] == true {
            if is_main {
                self.failed(kind, &words);
            }
        } else if is_main && words != NO_ANSWER {
            chunk(text(message, "id"), 0, &words, false, out);
        }
    }
}

fn chunk(message: &str, index: usize, piece: &str, is_thought: bool, out: &mut Out) {
    if piece.is_empty() {
        return;
    }
    let kind = if is_thought { "agent_thought_chunk" } else { "agent_message_chunk" };
    let content = json!({"type": "text", "text": piece});
    let mut update = json!({"sessionUpdate": kind, "content": content});
    if !message.is_empty() {
        update["messageId"] = json!(format!("{message}:{index}"));
    }
    out.update(update);
}
