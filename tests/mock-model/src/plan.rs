//! Plan: what one request is answered with.
//!
//! Owns: the way from a [`Conversation`] to a [`Plan`]. Pure but for [`Memory`], which the caller
//! keeps. Promises: every conversation has a plan; a directive that cannot be followed is answered
//! with a text that begins with "mock:" and says why. Deliberately knows no vendor and no wire.
//!
//! The last user text with a directive decides. Its directives run in order. Since every request
//! carries the whole conversation, the calls that come after that text tell how far the mock has
//! got: each tool directive counts off its own calls, and the first one not yet called is next.
//! A later user text with no directive changes nothing: agents add notes of their own.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::conversation::{Conversation, Entry, Tool};
use crate::directive::{Directive, Verb, directives};
use crate::tool::{Call, Input, shell_call, write_call};

/// The most deltas that SLOW gives, and the longest pause between two.
const SLOW_DELTAS_MAX: u32 = 10_000;
const SLOW_PAUSE_MS_MAX: u64 = 60_000;
/// How much of the tools' output and of the history an answer quotes, in characters.
const QUOTE_CHARS_MAX: usize = 1_500;
/// How many outputs "tool said:" quotes.
const QUOTED_OUTPUTS: usize = 4;
/// How many texts FAILONCE remembers. At the bound it forgets all and fails each once more.
const FAILED_TEXTS_MAX: usize = 10_000;
/// The tool by which Claude Code finds tools that it did not offer at once, and how often one
/// directive may use it.
const SEARCH_TOOL: &str = "ToolSearch";
const SEARCHES_MAX: usize = 2;

/// What one request is answered with.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// A reasoning block before the answer.
    pub think: Option<String>,
    /// The token figures; without them they are guessed from the request's size.
    pub usage: Option<Usage>,
    /// The answer itself.
    pub act: Act,
}

/// Token figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// What the request counted.
    pub input: u64,
    /// What the answer counted.
    pub output: u64,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// A text in a few deltas.
    Say(String),
    /// Many deltas with a pause after each.
    Slow {
        /// How many.
        deltas: u32,
        /// How long each pause is.
        pause_ms: u64,
    },
    /// One delta, and the rest when the gate opens.
    Hold,
    /// Tool calls, all in one answer.
    Call(Vec<Call>),
    /// An error.
    Fail(Failure),
}

/// An error, as a vendor would make it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// An HTTP status with the vendor's error body.
    Status(u16),
    /// The request is too long for the model.
    Context,
    /// The stream begins and then says that the answer failed.
    Failed,
    /// The stream breaks off with an error event.
    Stream,
    /// The stream breaks off with the connection.
    Drop,
}

/// What has to be remembered between requests.
#[derive(Debug, Default)]
pub struct Memory {
    failed: HashSet<(String, bool)>,
}

impl Memory {
    /// Whether this is the first time that this text is to fail. A side question of the agent (it
    /// has no tools: a title, a summary) counts apart, so that it cannot use the failure up.
    fn first_failure(&mut self, text: &str, has_tools: bool) -> bool {
        if self.failed.len() >= FAILED_TEXTS_MAX {
            self.failed.clear();
        }
        self.failed.insert((text.into(), has_tools))
    }
}

impl Plan {
    /// A plan that only says something.
    pub fn say(text: impl Into<String>) -> Plan {
        Plan { think: None, usage: None, act: Act::Say(text.into()) }
    }

    /// The word for the log.
    pub fn word(&self) -> &'static str {
        match &self.act {
            Act::Say(_) => "text",
            Act::Slow { .. } => "slow",
            Act::Hold => "hold",
            Act::Call(_) => "calls",
            Act::Fail(_) => "fail",
        }
    }
}

/// Decides what a request is answered with.
pub fn plan(conversation: &Conversation, memory: &mut Memory) -> Plan {
    let Some((before, text, after)) = conversation.last_order() else {
        return Plan::say("mock: no directive");
    };
    let progress = Progress::of(after);
    let mut plan = Plan::say(String::new());
    let mut done = 0;
    for directive in directives(text) {
        if let Some(calls) = calls_of(&directive, conversation)
            && done + calls <= progress.calls
        {
            done += calls;
            plan.think = None;
            continue;
        }
        plan.act = match directive.verb {
            Verb::Think => {
                plan.think = Some(directive.argument);
                continue;
            }
            Verb::Usage => {
                plan.usage = Some(usage(&directive.argument));
                continue;
            }
            Verb::FailOnce if !memory.first_failure(text, has_tools(conversation)) => {
                Act::Say("recovered".into())
            }
            Verb::History => Act::Say(history(before)),
            _ => act(&directive, conversation, &progress),
        };
        return plan;
    }
    plan.act = Act::Say(format!("tool said: {}", progress.said()));
    plan
}

/// How far the calls of the deciding text have come.
struct Progress<'a> {
    calls: usize,
    searches: usize,
    outputs: Vec<&'a str>,
}

impl Progress<'_> {
    /// Counts what came after the deciding text. Searches for a tool are not the directives' own.
    fn of(after: &[Entry]) -> Progress<'_> {
        let calls: Vec<bool> = after
            .iter()
            .filter_map(|entry| match entry {
                Entry::Call(name) => Some(name == SEARCH_TOOL),
                _ => None,
            })
            .collect();
        let outputs = after.iter().filter_map(|entry| match entry {
            Entry::Output(text) => Some(text.as_str()),
            _ => None,
        });
        let searches = calls.iter().filter(|is_search| **is_search).count();
        let outputs = outputs
            .enumerate()
            .filter(|(place, _)| calls.get(*place) != Some(&true))
            .map(|(_, text)| text)
            .collect();
        Progress { calls: calls.len() - searches, searches, outputs }
    }

    /// The last outputs. Codex puts lines of its own before a command's, up to "Output:".
    fn said(&self) -> String {
        let first = self.outputs.len().saturating_sub(QUOTED_OUTPUTS);
        let plain = |text: &&str| match text.split_once("Output:\n") {
            Some((_, output)) => output.trim().to_owned(),
            None => text.trim().to_owned(),
        };
        let said: Vec<String> = self.outputs[first..].iter().map(plain).collect();
        quote(&said.join(" | "))
    }
}

/// How many calls a directive makes; none unless it is for a tool.
fn calls_of(directive: &Directive, conversation: &Conversation) -> Option<usize> {
    match directive.verb {
        Verb::Bash | Verb::BashBg | Verb::Write | Verb::Mcp | Verb::Tool => Some(1),
        Verb::Par | Verb::ParBg if conversation.script_tool.is_some() => Some(1),
        Verb::Par | Verb::ParBg => Some(directive.argument.split(";;").count()),
        _ => None,
    }
}

fn act(directive: &Directive, conversation: &Conversation, progress: &Progress<'_>) -> Act {
    let argument = directive.argument.as_str();
    let tools = &conversation.tools;
    match directive.verb {
        Verb::Slow => slow(argument),
        Verb::Hold => Act::Hold,
        Verb::Fail | Verb::FailOnce => Act::Fail(failure(argument)),
        Verb::Bash | Verb::BashBg | Verb::Par | Verb::ParBg => {
            let commands = match directive.verb {
                Verb::Par | Verb::ParBg => argument.split(";;").map(str::trim).collect(),
                _ => vec![argument],
            };
            let escalate = matches!(directive.verb, Verb::BashBg | Verb::ParBg);
            let call = |command| shell_call(tools, command, escalate);
            match commands.into_iter().map(call).collect::<Option<Vec<Call>>>() {
                Some(calls) => Act::Call(calls),
                None => Act::Say("mock: no shell tool offered".into()),
            }
        }
        Verb::Write => {
            let (path, content) = argument.split_once(' ').unwrap_or((argument, ""));
            match write_call(tools, path, content) {
                Some(call) => Act::Call(vec![call]),
                None => Act::Say("mock: no write tool offered".into()),
            }
        }
        Verb::Mcp | Verb::Tool => named_call(directive, conversation, progress),
        // THINK, USAGE and HISTORY are done by `plan` itself.
        Verb::Say | Verb::Think | Verb::Usage | Verb::History => Act::Say(argument.into()),
    }
}

fn named_call(directive: &Directive, conversation: &Conversation, progress: &Progress<'_>) -> Act {
    let argument = directive.argument.as_str();
    let (name, input) = argument.split_once(char::is_whitespace).unwrap_or((argument, ""));
    let input = match input.trim() {
        "" => json!({}),
        text => match serde_json::from_str::<Value>(text) {
            Ok(input) => input,
            Err(error) => return Act::Say(format!("mock: the input is not JSON: {error}")),
        },
    };
    let tools = &conversation.tools;
    let exactly = tools.iter().find(|tool| tool.full_name() == name);
    let containing = || tools.iter().find(|tool| tool.full_name().contains(name));
    let tool = match directive.verb {
        // What a script can call is not told; it looks the name up itself.
        Verb::Mcp if conversation.script_tool.is_some() => Some(Tool::plain(name)),
        Verb::Mcp => containing().cloned(),
        _ => exactly.or_else(containing).cloned(),
    };
    if let Some(tool) = tool {
        return Act::Call(vec![Call { tool, input: Input::Json(input) }]);
    }
    match tools.iter().find(|tool| tool.name == SEARCH_TOOL) {
        Some(search) if progress.searches < SEARCHES_MAX => {
            let query = match directive.verb {
                Verb::Tool => format!("select:{name}"),
                _ => name.to_owned(),
            };
            let input = Input::Json(json!({ "query": query, "max_results": 5 }));
            Act::Call(vec![Call { tool: search.clone(), input }])
        }
        _ => Act::Say(format!("mock: no tool whose name contains {name}")),
    }
}

fn slow(argument: &str) -> Act {
    let mut words = argument.split_whitespace();
    let deltas = words.next().and_then(|word| word.parse().ok()).unwrap_or(5);
    let pause_ms = words.next().and_then(|word| word.parse().ok()).unwrap_or(200);
    Act::Slow { deltas: deltas.min(SLOW_DELTAS_MAX), pause_ms: pause_ms.min(SLOW_PAUSE_MS_MAX) }
}

fn failure(argument: &str) -> Failure {
    match argument.split_whitespace().next().unwrap_or("500") {
        "context" => Failure::Context,
        "failed" => Failure::Failed,
        "stream" => Failure::Stream,
        "drop" => Failure::Drop,
        word => match word.parse() {
            Ok(status @ 400..=599) => Failure::Status(status),
            _ => Failure::Status(500),
        },
    }
}

fn usage(argument: &str) -> Usage {
    let mut words = argument.split_whitespace().map(|word| word.parse().unwrap_or(0));
    Usage { input: words.next().unwrap_or(0), output: words.next().unwrap_or(0) }
}

fn history(before: &[Entry]) -> String {
    let mut users = Vec::new();
    let mut assistants = Vec::new();
    for entry in before {
        match entry {
            Entry::User(text) => users.extend(directives(text).into_iter().map(|d| d.line)),
            Entry::Assistant(text) => assistants.push(text.as_str()),
            Entry::Call(_) | Entry::Output(_) => {}
        }
    }
    quote(&format!("history: users={} assistants={}", json!(users), json!(assistants)))
}

fn has_tools(conversation: &Conversation) -> bool {
    !conversation.tools.is_empty() || conversation.script_tool.is_some()
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests;
