//! Dialects: how each vendor's API asks and is answered.
//!
//! Owns: the one shape of a question, and the choice of the dialect. Pure: from a parsed body to a
//! reply, without sockets. Promises: any JSON is a question (what is missing counts as empty).
//! Deliberately does not check requests the way a vendor would; the mock answers what it gets.

pub mod anthropic;
pub mod chat;
pub mod gemini;
pub mod responses;

use serde_json::Value;

use crate::conversation::Conversation;
use crate::plan::{Memory, Plan, Usage, plan};
use crate::reply::{Ids, Reply, guess_tokens};

/// The output tokens of an answer when no USAGE says otherwise.
const OUTPUT_TOKENS: u64 = 12;

/// A vendor's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// Anthropic Messages.
    Anthropic,
    /// OpenAI Responses.
    Responses,
    /// OpenAI chat completions, and what calls itself compatible.
    Chat,
    /// Gemini generateContent and streamGenerateContent.
    Gemini,
}

/// What a request asks.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// The session so far.
    pub conversation: Conversation,
    /// The model asked for.
    pub model: String,
    /// Whether the answer is to come as a stream.
    pub stream: bool,
    /// Whether the answer is to be one JSON object, as for an agent's questions to itself.
    pub wants_json: bool,
    /// How long the request's body was.
    pub body_bytes: usize,
}

impl Question {
    /// The token figures of an answer.
    pub fn usage(&self, plan: &Plan) -> Usage {
        let guess = Usage { input: guess_tokens(self.body_bytes), output: OUTPUT_TOKENS };
        plan.usage.unwrap_or(guess)
    }
}

impl Dialect {
    /// The word for the log.
    pub fn word(self) -> &'static str {
        match self {
            Dialect::Anthropic => "anthropic",
            Dialect::Responses => "responses",
            Dialect::Chat => "chat",
            Dialect::Gemini => "gemini",
        }
    }

    /// Reads a request's body.
    pub fn question(self, body: &Value, body_bytes: usize) -> Question {
        let mut question = match self {
            Dialect::Anthropic => anthropic::question(body),
            Dialect::Responses => responses::question(body),
            Dialect::Chat => chat::question(body),
            Dialect::Gemini => gemini::question(body),
        };
        question.body_bytes = body_bytes;
        question
    }

    /// Decides on an answer and renders it.
    pub fn answer(self, question: &Question, memory: &mut Memory, ids: &mut Ids) -> (Plan, Reply) {
        let own = match self {
            Dialect::Anthropic => anthropic::own_answer(question),
            Dialect::Gemini => gemini::own_answer(question),
            Dialect::Responses | Dialect::Chat => None,
        };
        let plan = own.unwrap_or_else(|| plan(&question.conversation, memory));
        let reply = match self {
            Dialect::Anthropic => anthropic::reply(question, &plan, ids),
            Dialect::Responses => responses::reply(question, &plan, ids),
            Dialect::Chat => chat::reply(question, &plan, ids),
            Dialect::Gemini => gemini::reply(question, &plan, ids),
        };
        (plan, reply)
    }
}

/// The text of a vendor's content: a string, a block with a text, or a list of these.
pub(crate) fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<String> = parts.iter().map(text_of).collect();
            texts.join("\n")
        }
        Value::Object(block) => match block.get("text").or_else(|| block.get("content")) {
            Some(inner) => text_of(inner),
            None => String::new(),
        },
        _ => String::new(),
    }
}

/// The items of a list; nothing when it is none.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

/// A content as its parts: a plain string is one part.
pub(crate) fn parts(content: &Value) -> Vec<&Value> {
    match content {
        Value::Null => Vec::new(),
        Value::Array(parts) => parts.iter().collect(),
        part => vec![part],
    }
}

/// A member that should be a string; empty when it is none.
pub(crate) fn word<'a>(object: &'a Value, member: &str) -> &'a str {
    object[member].as_str().unwrap_or("")
}
