//! One prompt, carried out.
//!
//! Owns: the thread of a turn, from the accepted `session/prompt` to its answer: it takes the directives one by one,
//! tells what it does by updates, records what a later load has to replay, and answers with usage. Every wait goes
//! through [`Turn`], so a cancel ends the turn at once, whatever it does. The order at the end is: history, usage, the
//! session is free, the answer, what was asked to come late. Tool calls are in `tool`, misbehaviour is in `fault`.

use crate::agent::Agent;
use crate::clock;
use crate::directive::{self, Directive};
use crate::fault;
use crate::session::{Session, title_of};
use crate::tool;
use crate::turn::{Ears, Stop, Turn};
use crate::wire::{self, RpcError};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

/// How much of one message the history keeps, in bytes.
const RECORD_BYTES_MAX: usize = 256 << 10;

/// How much of a prompt without a directive is echoed, in bytes.
const ECHO_BYTES_MAX: usize = 4096;

/// Bytes of text that count as one token, and what a token costs. Made up, but never changing.
const BYTES_PER_TOKEN: u64 = 4;
const DOLLARS_PER_TOKEN: f64 = 0.000_001;

const HINT: &str = "I am the demo agent: I have no model behind me, but I do what some words say. \
    Try one of these lines: run ls · write note.txt hello · plan look; think; act · slow 10 300";

/// What the client sent.
pub(crate) struct Prompt {
    pub(crate) text: String,
    pub(crate) images: Vec<Image>,
}

pub(crate) struct Image {
    pub(crate) media_type: String,
    pub(crate) bytes: usize,
}

pub(crate) struct Script {
    pub(crate) agent: Arc<Agent>,
    pub(crate) session: Arc<Session>,
    pub(crate) turn: Arc<Turn>,
    prompt: Prompt,
    /// Bytes that the agent said, for the usage.
    said_bytes: u64,
    /// Texts to send after the turn.
    late: Vec<String>,
}

/// Carries out the prompt and answers the request.
pub(crate) fn run(
    agent: Arc<Agent>,
    session: Arc<Session>,
    turn: Arc<Turn>,
    request: &Value,
    prompt: Prompt,
) {
    let mut script = Script { agent, session, turn, prompt, said_bytes: 0, late: Vec::new() };
    let outcome = script.begin().and_then(|()| script.perform());
    let answer = script.close(outcome);
    let Script { agent, session, late, .. } = script;
    session.state().turn = None;
    // Nobody is left to hear of a failure to write.
    drop(agent.output.send(&wire::answer(request, answer)));
    for text in late {
        let update = chunk("agent_message_chunk", &text, &agent.fresh_id("msg"));
        drop(agent.output.send(&wire::update(&session.id, &update)));
    }
}

impl Script {
    /// Records the prompt; the first one gives the session its title.
    fn begin(&mut self) -> Result<(), Stop> {
        let mut text = cut(&self.prompt.text, RECORD_BYTES_MAX).to_owned();
        for image in &self.prompt.images {
            text += &format!("\n[image {} {} bytes]", image.media_type, image.bytes);
        }
        let update = chunk("user_message_chunk", &text, &self.agent.fresh_id("msg"));
        self.record(&json!({"update": update}))
    }

    fn perform(&mut self) -> Result<(), Stop> {
        let directives = directive::parse(&self.prompt.text);
        if directives.is_empty() {
            let text = cut(self.prompt.text.trim(), ECHO_BYTES_MAX).to_owned();
            return self.say(&format!("You said: {text}\n\n{HINT}"));
        }
        for directive in directives {
            // The two that hear no cancel hear none that came just before them either.
            let deaf = matches!(directive, Directive::Hang | Directive::IgnoreCancel { .. });
            if !deaf {
                self.turn.check()?;
            }
            self.act(directive)?;
        }
        Ok(())
    }

    fn act(&mut self, directive: Directive) -> Result<(), Stop> {
        match directive {
            Directive::Say(text) => self.say(&text),
            Directive::Think(text) => self.stream("agent_thought_chunk", &text),
            Directive::Plan(steps) => self.plan(&steps),
            Directive::Run(command) => tool::run(self, &command),
            Directive::Write { path, text } => tool::write(self, &path, &text),
            Directive::Read(path) => tool::read(self, &path),
            Directive::Save { path, text } => tool::save(self, &path, &text),
            Directive::Terminal(command) => tool::terminal(self, &command),
            Directive::Ask(text) => tool::ask(self, &text),
            Directive::Mcp { server, tool, arguments } => {
                tool::mcp(self, &server, &tool, arguments)
            }
            Directive::Slow { count, pause } => self.slow(count, pause, Ears::Open),
            Directive::IgnoreCancel { count, pause } => {
                let outcome = self.slow(count, pause, Ears::Deaf);
                self.turn.forget_cancel();
                outcome
            }
            Directive::Instant => self.say("ok"),
            Directive::Fail { code, message } => Err(Stop::Failed { code, message }),
            Directive::Refuse => Err(Stop::Refused),
            Directive::MaxTokens => Err(Stop::MaxTokens),
            Directive::History => self.history(),
            Directive::Env(name) => {
                let value = std::env::var_os(name);
                let text = value.map(|value| value.to_string_lossy().into_owned());
                self.say(text.as_deref().unwrap_or("unset"))
            }
            Directive::Image => self.image(),
            Directive::Late(text) => {
                self.late.push(text);
                Ok(())
            }
            fault => fault::act(self, fault),
        }
    }

    /// A message of its own, in word deltas.
    pub(crate) fn say(&mut self, text: &str) -> Result<(), Stop> {
        self.stream("agent_message_chunk", text)
    }

    fn stream(&mut self, kind: &str, text: &str) -> Result<(), Stop> {
        let id = self.agent.fresh_id("msg");
        let mut sent = 0;
        let outcome = text.split_inclusive(' ').try_for_each(|word| {
            self.turn.check()?;
            sent += word.len();
            self.update(&chunk(kind, word, &id))
        });
        self.remember(kind, &text[..sent], sent, &id)?;
        outcome
    }

    fn slow(&mut self, count: u64, pause: Duration, ears: Ears) -> Result<(), Stop> {
        let id = self.agent.fresh_id("msg");
        let mut text = String::new();
        let outcome = (1..=count).try_for_each(|number| {
            self.turn.pause(pause, ears)?;
            let word = format!("{number} ");
            text += &word;
            self.update(&chunk("agent_message_chunk", &word, &id))
        });
        self.remember("agent_message_chunk", &text, text.len(), &id)?;
        outcome
    }

    /// Keeps a whole message for a later load. `bytes` is what was said, when that is more than `text`.
    pub(crate) fn remember(
        &mut self,
        kind: &str,
        text: &str,
        bytes: usize,
        id: &str,
    ) -> Result<(), Stop> {
        self.said_bytes += bytes as u64;
        if text.is_empty() {
            return Ok(());
        }
        self.record(&json!({"update": chunk(kind, cut(text, RECORD_BYTES_MAX), id)}))
    }

    fn plan(&mut self, steps: &[String]) -> Result<(), Stop> {
        // Step by step: nothing begun, the first in progress, …, all completed.
        for done in 0..=steps.len() * 2 {
            self.turn.check()?;
            let entries: Vec<Value> =
                (0..).zip(steps).map(|(at, step)| entry(step, at, done)).collect();
            let update = json!({"sessionUpdate": "plan", "entries": entries});
            self.update(&update)?;
            if done == steps.len() * 2 {
                self.record(&json!({"update": update}))?;
            }
        }
        Ok(())
    }

    fn history(&mut self) -> Result<(), Stop> {
        let texts: Vec<String> = self.session.state().texts.iter().cloned().collect();
        if texts.is_empty() {
            return self.say("nothing was said before");
        }
        let lines = (1..).zip(texts).map(|(number, text): (u64, _)| format!("{number}: {text}"));
        let text = lines.collect::<Vec<_>>().join("\n");
        self.say(&text)
    }

    fn image(&mut self) -> Result<(), Stop> {
        let images = &self.prompt.images;
        let told = images.iter().map(|image| format!("{} {} bytes", image.media_type, image.bytes));
        let told = told.collect::<Vec<_>>().join(", ");
        let text = match images.len() {
            0 => "no images".to_owned(),
            1 => format!("1 image: {told}"),
            count => format!("{count} images: {told}"),
        };
        self.say(&text)
    }

    /// Sends a `session/update`, cancelled or not.
    pub(crate) fn update(&self, update: &Value) -> Result<(), Stop> {
        Ok(self.agent.output.send(&wire::update(&self.session.id, update))?)
    }

    pub(crate) fn record(&self, record: &Value) -> Result<(), Stop> {
        self.session.history.append(record).map_err(|error| Stop::Failed {
            code: wire::INTERNAL_ERROR,
            message: format!("the session's history cannot be written: {error}"),
        })
    }

    /// Asks the client, and waits for its answer as long as it takes: a person may be asked. Errors: a cancel.
    pub(crate) fn ask_client(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Result<Value, RpcError>, Stop> {
        let id = self.ask_client_later(method, params)?;
        let reply = self.turn.wait(None, Ears::Open, |inbox| inbox.take_reply(id));
        self.agent.waiting.take(id);
        Ok(wire::outcome(reply?.unwrap_or_default()))
    }

    /// Sends a request to the client; the answer comes to the turn under the id.
    pub(crate) fn ask_client_later(&self, method: &str, params: Value) -> Result<i64, Stop> {
        let id = self.agent.waiting.expect(&self.turn);
        self.agent.output.send(&wire::request(id, method, params))?;
        Ok(id)
    }

    /// Counts, tells the usage and the title, and makes the answer.
    fn close(&mut self, outcome: Result<(), Stop>) -> Result<Value, RpcError> {
        let stop_reason = match outcome {
            Ok(()) => "end_turn",
            Err(Stop::Refused) => "refusal",
            Err(Stop::MaxTokens) => "max_tokens",
            Err(Stop::Cancelled | Stop::ClientGone) => "cancelled",
            Err(Stop::Failed { code, message }) => {
                self.session.state().remember_text(&self.prompt.text);
                return Err(RpcError::new(code, message));
            }
        };
        let input = tokens(self.prompt.text.len() as u64);
        let output = tokens(self.said_bytes);
        let mut state = self.session.state();
        state.remember_text(&self.prompt.text);
        state.used_tokens += input + output;
        let (used, size) = (state.used_tokens, state.context_window());
        let first_title = state.title.is_none().then(|| title_of(&self.prompt.text));
        state.title = state.title.take().or_else(|| first_title.clone());
        drop(state);
        // A history or a client that is gone does not change how the turn ended.
        drop(self.tell_end(used, size, first_title));
        let usage = json!({"inputTokens": input, "outputTokens": output, "cachedReadTokens": 0,
            "cachedWriteTokens": 0, "totalTokens": input + output});
        Ok(json!({"stopReason": stop_reason, "usage": usage}))
    }

    fn tell_end(&self, used: u64, size: u64, first_title: Option<String>) -> Result<(), Stop> {
        let cost = json!({"amount": used as f64 * DOLLARS_PER_TOKEN, "currency": "USD"});
        self.update(
            &json!({"sessionUpdate": "usage_update", "used": used, "size": size, "cost": cost}),
        )?;
        self.record(&json!({"used": used}))?;
        if let Some(title) = first_title {
            let updated = clock::iso(clock::now_ms());
            self.update(&json!({"sessionUpdate": "session_info_update", "title": title,
                "updatedAt": updated}))?;
            self.record(&json!({"title": title}))?;
        }
        Ok(())
    }
}

pub(crate) fn chunk(kind: &str, text: &str, id: &str) -> Value {
    json!({"sessionUpdate": kind, "content": {"type": "text", "text": text}, "messageId": id})
}

/// The text up to a bound, never in the middle of a character.
pub(crate) fn cut(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

fn entry(step: &str, at: usize, done: usize) -> Value {
    let status = match done.saturating_sub(at * 2) {
        0 => "pending",
        1 => "in_progress",
        _ => "completed",
    };
    json!({"content": step, "priority": "medium", "status": status})
}

fn tokens(bytes: u64) -> u64 {
    bytes.div_ceil(BYTES_PER_TOKEN)
}
