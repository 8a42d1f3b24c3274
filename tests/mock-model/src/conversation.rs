//! Conversation: what a request tells of its session, in one shape for every vendor.
//!
//! Owns: the vendor-neutral view that the dialects fill and that `plan` reads. Pure data.
//! Deliberately does not keep system prompts: they are the vendors' texts, and nothing is decided
//! by them, so only their length is kept.

use crate::directive::directives;

/// Everything a request says that can matter for the answer.
#[derive(Clone, Debug, Default)]
pub struct Conversation {
    /// What was said and done, oldest first.
    pub entries: Vec<Entry>,
    /// The tools that the model may call, in the order offered.
    pub tools: Vec<Tool>,
    /// One script tool carries all calls: the model gets `exec` and calls the real tools inside.
    pub script_tool: Option<Tool>,
    /// How long the system prompt was, in bytes.
    pub system_bytes: usize,
}

/// One thing in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The user's side said this. An agent's own notes come as user texts too.
    User(String),
    /// The model said this.
    Assistant(String),
    /// The model called the tool of this name.
    Call(String),
    /// A tool's output. The n-th result answers the n-th call.
    Output(String),
}

/// A tool that a request offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// The name the model calls it by.
    pub name: String,
    /// The namespace it was offered in, where the vendor has such a thing.
    pub namespace: Option<String>,
}

impl Tool {
    /// A tool with a plain name.
    pub fn plain(name: impl Into<String>) -> Tool {
        Tool { name: name.into(), namespace: None }
    }

    /// The name to find it by: `namespace/name`, or the plain name.
    pub fn full_name(&self) -> String {
        match &self.namespace {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }
}

impl Entry {
    /// The role, as the log writes it.
    pub fn role(&self) -> &'static str {
        match self {
            Entry::User(_) => "user",
            Entry::Assistant(_) => "assistant",
            Entry::Call(_) => "call",
            Entry::Output(_) => "result",
        }
    }
}

impl Conversation {
    /// Adds a text of `role`; roles other than the model's count as the user's.
    pub fn say(&mut self, role: &str, text: impl Into<String>) {
        self.entries.push(match role {
            "assistant" | "model" => Entry::Assistant(text.into()),
            _ => Entry::User(text.into()),
        });
    }

    /// The last user text that has a directive, with what came before and after it. An agent's
    /// reminder is never one, even when it quotes the user.
    pub fn last_order(&self) -> Option<(&[Entry], &str, &[Entry])> {
        self.entries.iter().enumerate().rev().find_map(|(place, entry)| match entry {
            Entry::User(text)
                if !text.trim_start().starts_with("<system-reminder>")
                    && !directives(text).is_empty() =>
            {
                Some((&self.entries[..place], text.as_str(), &self.entries[place + 1..]))
            }
            _ => None,
        })
    }
}
