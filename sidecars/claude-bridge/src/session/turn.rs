//! Prompts, and how they end.
//!
//! Owns: the prompt that runs, its messages as the program queues them, and the meaning of a `result`. The program says
//! what becomes of each message by its id (`command_lifecycle`): so a result that belongs to work of its own (a
//! background command that ended) does not end the prompt, and a message that was added to a running prompt is waited
//! for, whether it joined the work or got a turn of its own behind it. A program that does not say it is taken at its
//! first result.

use super::{Control, Session, Stage, Waiter};
use crate::account::LOGIN_HINT;
use crate::bridge::Out;
use crate::wire::{self, RpcError, list, text};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// For an interrupt to end the turn; then the program is ended.
const INTERRUPT_TIME: Duration = Duration::from_secs(15);
/// Messages in one prompt: its own, and those that were added while it ran.
const MESSAGES_MAX: usize = 256;
/// What is kept of the words of an error.
const WORDS_BYTES_MAX: usize = 4000;

/// Where a message of ours is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The program has said nothing of it.
    Sent,
    Queued,
    Started,
    Over,
}

#[derive(Debug)]
struct Message {
    uuid: String,
    place: Place,
}

/// The failure of a model's answer, as the program tells it in a message of its own making.
#[derive(Debug, Default)]
struct Failure {
    /// `authentication_failed`, `rate_limit`, …
    kind: String,
    words: String,
}

#[derive(Debug)]
pub(super) struct Prompt {
    id: Value,
    /// What is sent when the program is ready.
    content: Option<Vec<Value>>,
    /// The first is the prompt itself.
    messages: Vec<Message>,
    is_interrupted: bool,
    failure: Failure,
    usage: Usage,
    /// How it ends unless what was added begins after all.
    ending: Option<Ending>,
}

/// The stop reason, or the error.
type Ending = Result<&'static str, RpcError>;

/// Tokens of a prompt, over all its results.
#[derive(Debug, Default)]
struct Usage {
    input: u64,
    output: u64,
    cached_read: u64,
    cached_write: u64,
    thought: u64,
}

/// The context window and the money, as they were last told.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Context {
    used: Option<u64>,
    window: Option<u64>,
    cost: Option<f64>,
}

impl Session {
    pub(crate) fn prompt(
        &mut self,
        id: &Value,
        blocks: &[Value],
        out: &mut Out,
    ) -> Result<(), RpcError> {
        if self.prompt.is_some() {
            let text = "a prompt runs in this session; wait for it, or cancel it";
            return Err(RpcError::new(wire::INVALID_REQUEST, text));
        }
        let content = content(blocks)?;
        let prompt = Prompt {
            id: id.clone(),
            content: Some(content),
            messages: Vec::new(),
            is_interrupted: false,
            failure: Failure::default(),
            usage: Usage::default(),
            ending: None,
        };
        match self.stage {
            Stage::Ready => {
                self.prompt = Some(prompt);
                self.send_prompt(out);
            }
            Stage::Asleep => {
                self.prompt = Some(prompt);
                self.start_again(out);
            }
            // The one that has started the program was interrupted.
            Stage::Opening(Waiter::Prompt) => self.prompt = Some(prompt),
            Stage::Opening(Waiter::Open { .. }) | Stage::Closing(_) => {
                let text = "the session is not open";
                return Err(RpcError::new(wire::INVALID_REQUEST, text));
            }
        }
        Ok(())
    }

    /// Adds a message to the prompt that runs.
    pub(crate) fn steer(
        &mut self,
        id: &Value,
        blocks: &[Value],
        out: &mut Out,
    ) -> Result<(), RpcError> {
        let content = content(blocks)?;
        let refused = |text: &str| Err(RpcError::new(wire::INVALID_REQUEST, text));
        match &self.prompt {
            Some(prompt) if prompt.is_interrupted || prompt.content.is_some() => {
                return refused("the prompt is not in a state to take more");
            }
            Some(prompt) if prompt.messages.len() >= MESSAGES_MAX => {
                return refused("the prompt has taken as many messages as it can");
            }
            Some(_) => {}
            None => return refused("no prompt runs in this session"),
        }
        self.say(content, out);
        out.answer(id, Ok(json!({})));
        Ok(())
    }

    /// Sends the prompt that waited for the program.
    pub(super) fn send_prompt(&mut self, out: &mut Out) {
        let content = self.prompt.as_mut().and_then(|prompt| prompt.content.take());
        if let Some(content) = content {
            self.say(content, out);
        }
    }

    fn say(&mut self, content: Vec<Value>, out: &mut Out) {
        let uuid = (out.fresh_id)();
        out.claude(json!({"type": "user", "session_id": "", "parent_tool_use_id": null,
            "message": {"role": "user", "content": content}, "uuid": uuid}));
        if let Some(prompt) = &mut self.prompt {
            prompt.messages.push(Message { uuid, place: Place::Sent });
        }
    }

    /// Interrupts whatever runs; the prompt ends by its result.
    pub(crate) fn cancel(&mut self, out: &mut Out) {
        if let Some(prompt) = &mut self.prompt {
            prompt.is_interrupted = true;
            if prompt.content.is_some() {
                // The program has not heard of it.
                return self.prompt_cancelled(out);
            }
        } else if !self.is_busy {
            return;
        }
        let waiting = self.prompt.iter().flat_map(|prompt| &prompt.messages);
        let waiting: Vec<String> = waiting
            .filter(|message| message.place == Place::Queued)
            .map(|message| message.uuid.clone())
            .collect();
        for uuid in waiting {
            let request = json!({"subtype": "cancel_async_message", "message_uuid": uuid});
            self.control(request, Control::Withdraw, INTERRUPT_TIME, out);
        }
        let request = json!({"subtype": "interrupt"});
        self.control(request, Control::Interrupt, INTERRUPT_TIME, out);
    }

    /// The program says what becomes of a message.
    pub(super) fn lifecycle(&mut self, message: &Value, out: &mut Out) {
        self.tells_places = true;
        let state = text(message, "state");
        let Some(prompt) = &mut self.prompt else { return };
        let uuid = text(message, "command_uuid");
        let Some(at) = prompt.messages.iter().position(|message| message.uuid == uuid) else {
            return;
        };
        let before = prompt.messages[at].place;
        prompt.messages[at].place = match state {
            "queued" => Place::Queued,
            "started" => Place::Started,
            _ => Place::Over,
        };
        if at == 0 && state == "started" {
            self.is_kept = true;
        }
        if state == "started" {
            // Its own result will come.
            prompt.ending = None;
        }
        if prompt.messages[at].place != Place::Over {
            return;
        }
        let is_withdrawn = matches!(state, "cancelled" | "discarded") && before != Place::Started;
        if at == 0 && is_withdrawn {
            // It was taken back before it had begun; no result will tell of it.
            return self.prompt_cancelled(out);
        }
        // What was added is over, whether it had begun or not: it may be the last that was waited for.
        if !prompt.waits_for_more()
            && let Some(ending) = prompt.ending.take()
        {
            let ending = if prompt.is_interrupted { Ok("cancelled") } else { ending };
            self.end_prompt(ending, out);
        }
    }

    /// Remembers why the model's answer failed.
    pub(super) fn failed(&mut self, kind: &str, words: &str) {
        if let Some(prompt) = &mut self.prompt {
            let words = wire::cut(words, WORDS_BYTES_MAX);
            prompt.failure = Failure { kind: kind.to_owned(), words };
        }
    }

    pub(super) fn result(&mut self, message: &Value, out: &mut Out) {
        self.is_busy = false;
        self.context_of(message, out);
        let is_error = message["is_error"] == true;
        let words = words(message);
        if is_error && !matches!(self.stage, Stage::Ready) {
            // A program that can not begin says why, and ends.
            self.last_words = wire::cut(&words, WORDS_BYTES_MAX);
            return;
        }
        let Some(prompt) = &mut self.prompt else { return };
        let Some(own) = prompt.messages.first() else { return };
        if self.tells_places && matches!(own.place, Place::Sent | Place::Queued) {
            // It belongs to work of the program's own.
            return;
        }
        prompt.usage.add(&message["usage"]);
        let is_more = self.tells_places && prompt.waits_for_more() && !prompt.is_interrupted;
        let ending = self.ending_of(message, is_error, &words);
        match &mut self.prompt {
            Some(prompt) if is_more => prompt.ending = Some(ending),
            _ => self.end_prompt(ending, out),
        }
    }

    fn ending_of(&self, message: &Value, is_error: bool, words: &str) -> Ending {
        let reason = text(message, "terminal_reason");
        match (text(message, "subtype"), text(message, "stop_reason")) {
            _ if is_error && self.is_interrupted(reason) => Ok("cancelled"),
            _ if is_error => Err(self.error_of(message, reason, words)),
            ("error_max_turns", _) => Ok("max_turn_requests"),
            (_, "max_tokens") => Ok("max_tokens"),
            (_, "refusal") => Ok("refusal"),
            _ => Ok("end_turn"),
        }
    }

    fn end_prompt(&mut self, ending: Ending, out: &mut Out) {
        self.calls.fail_all(out);
        let Some(prompt) = self.prompt.take() else { return };
        let usage = prompt.usage.to_json();
        let result = ending.map(|reason| json!({"stopReason": reason, "usage": usage}));
        out.answer(&prompt.id, result);
    }

    /// Whether the prompt that runs was interrupted.
    pub(super) fn is_cancelling(&self) -> bool {
        self.prompt.as_ref().is_some_and(|prompt| prompt.is_interrupted)
    }

    fn is_interrupted(&self, reason: &str) -> bool {
        reason.starts_with("aborted") || self.is_cancelling()
    }

    /// The error of a prompt. `is_error` alone says that there is one: the subtype may well be `success`.
    fn error_of(&self, message: &Value, reason: &str, words: &str) -> RpcError {
        let failure = self.prompt.as_ref().map(|prompt| &prompt.failure);
        let kind = failure.map(|failure| failure.kind.as_str()).unwrap_or_default();
        let told = failure.map(|failure| failure.words.as_str()).unwrap_or_default();
        let status = message["api_error_status"].as_i64();
        let words = [told, words, "the program gave no reason"];
        let words = words.into_iter().find(|words| !words.is_empty()).unwrap_or_default();
        let is_login = kind == "authentication_failed" || status == Some(401);
        let code = match (kind, status, reason) {
            _ if is_login => "authentication_required",
            ("rate_limit", ..) | (_, Some(429), _) => "rate_limited",
            (.., "prompt_too_long") => "context_window_exceeded",
            (_, Some(404), _) => "model_not_found",
            _ => "model_error",
        };
        let data = json!({"code": code, "kind": kind, "status": status, "terminalReason": reason});
        if is_login {
            let text = format!("{words}: {LOGIN_HINT}");
            return RpcError::new(wire::AUTH_REQUIRED, text).with(data);
        }
        let text = if status == Some(404) {
            format!("{words} ({})", self.settings.models_hint())
        } else {
            words.to_owned()
        };
        RpcError::new(wire::INTERNAL_ERROR, wire::cut(&text, WORDS_BYTES_MAX)).with(data)
    }

    pub(super) fn prompt_cancelled(&mut self, out: &mut Out) {
        if let Some(prompt) = self.prompt.take() {
            let result = json!({"stopReason": "cancelled", "usage": prompt.usage.to_json()});
            out.answer(&prompt.id, Ok(result));
        }
    }

    pub(super) fn prompt_failed(&mut self, error: RpcError, out: &mut Out) {
        match &self.prompt {
            Some(prompt) if prompt.is_interrupted => self.prompt_cancelled(out),
            Some(_) => {
                if let Some(prompt) = self.prompt.take() {
                    out.answer(&prompt.id, Err(error));
                }
            }
            None => {}
        }
    }

    /// The context window, from the usage of a model's answer.
    pub(super) fn context_used(&mut self, usage: &Value, out: &mut Out) {
        let count = |field: &str| usage[field].as_u64().unwrap_or_default();
        let used = sum([
            count("input_tokens"),
            count("cache_read_input_tokens"),
            count("cache_creation_input_tokens"),
            count("output_tokens"),
        ]);
        if used > 0 {
            self.tell_context(Context { used: Some(used), ..self.context }, out);
        }
    }

    /// The size of the window and the money, from a result.
    fn context_of(&mut self, message: &Value, out: &mut Out) {
        let models = message["modelUsage"].as_object();
        let windows = models.into_iter().flatten().filter_map(|(_, m)| m["contextWindow"].as_u64());
        let context = Context {
            window: windows.max().or(self.context.window),
            cost: message["total_cost_usd"].as_f64().or(self.context.cost),
            ..self.context
        };
        self.tell_context(context, out);
    }

    fn tell_context(&mut self, context: Context, out: &mut Out) {
        if context == self.context {
            return;
        }
        self.context = context;
        let (Some(used), Some(size)) = (context.used, context.window) else { return };
        let mut update = json!({"sessionUpdate": "usage_update", "used": used, "size": size});
        if let Some(amount) = context.cost {
            update["cost"] = json!({"amount": amount, "currency": "USD"});
        }
        out.update(update);
    }
}

impl Prompt {
    /// Whether a message that was added has yet to begin.
    fn waits_for_more(&self) -> bool {
        let waits = |message: &Message| matches!(message.place, Place::Sent | Place::Queued);
        self.messages.iter().skip(1).any(waits)
    }
}

impl Usage {
    fn add(&mut self, told: &Value) {
        let count = |field: &str| told[field].as_u64().unwrap_or_default();
        let thought = told["output_tokens_details"]["thinking_tokens"].as_u64();
        for (tokens, more) in [
            (&mut self.input, count("input_tokens")),
            (&mut self.output, count("output_tokens")),
            (&mut self.cached_read, count("cache_read_input_tokens")),
            (&mut self.cached_write, count("cache_creation_input_tokens")),
            (&mut self.thought, thought.unwrap_or_default()),
        ] {
            *tokens = tokens.saturating_add(more);
        }
    }

    fn to_json(&self) -> Value {
        let total = sum([self.input, self.output, self.cached_read, self.cached_write]);
        json!({
            "inputTokens": self.input, "outputTokens": self.output,
            "cachedReadTokens": self.cached_read, "cachedWriteTokens": self.cached_write,
            "thoughtTokens": self.thought, "totalTokens": total,
        })
    }
}

/// All of these tokens. The program is taken at its word, so the figures may be any.
fn sum(tokens: [u64; 4]) -> u64 {
    tokens.into_iter().fold(0, u64::saturating_add)
}

/// What a failed result says.
fn words(message: &Value) -> String {
    let errors = list(message, "errors").iter().filter_map(Value::as_str);
    let errors = errors.collect::<Vec<_>>().join("; ");
    if errors.is_empty() { text(message, "result").to_owned() } else { errors }
}

/// A prompt's blocks as content of a message. Errors: there are none, or one is of an unknown kind.
fn content(blocks: &[Value]) -> Result<Vec<Value>, RpcError> {
    let invalid = |text: String| RpcError::new(wire::INVALID_PARAMS, text);
    if blocks.is_empty() {
        return Err(invalid("the prompt is empty".to_owned()));
    }
    let written = |text: String| json!({"type": "text", "text": text});
    let one = |(place, block): (usize, &Value)| {
        Ok(match text(block, "type") {
            "text" => written(text(block, "text").to_owned()),
            "image" => {
                let source = Map::from_iter([
                    ("type".to_owned(), json!("base64")),
                    ("media_type".to_owned(), block["mimeType"].clone()),
                    ("data".to_owned(), block["data"].clone()),
                ]);
                json!({"type": "image", "source": source})
            }
            "resource_link" => {
                let (name, uri) = (text(block, "name"), text(block, "uri"));
                let name = if name.is_empty() { uri } else { name };
                written(format!("[@{name}]({uri})"))
            }
            "resource" => {
                let resource = &block["resource"];
                let (uri, inside) = (text(resource, "uri"), text(resource, "text"));
                written(format!("<context ref=\"{uri}\">\n{inside}\n</context>"))
            }
            other => {
                let other = wire::cut(other, 100);
                return Err(invalid(format!("prompt[{place}].type: {other:?} is not taken")));
            }
        })
    };
    blocks.iter().enumerate().map(one).collect()
}
