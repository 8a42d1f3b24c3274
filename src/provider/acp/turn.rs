//! Turns: ours, and the agent's own.
//!
//! Owns: sending a prompt once its settings are answered, interrupting, and ending: the usage, the
//! open items, the open approvals, then [`AgentEvent::TurnEnded`]. Promises: after that event
//! nothing of the turn is open. An agent that tells things outside a turn of ours gets a turn of
//! its own, which ends when the session thread calls it over, when a turn of ours starts, or when
//! it is interrupted.

use super::Acp;
use super::open::{Answer, failure};
use super::state::{Call, Phase, Turn};
use super::wire::{agent_error, notify, object, text};
use crate::model::input::Input;
use crate::model::{ItemStatus, TurnStatus};
use crate::provider::{AgentError, AgentEvent, Effects, Steer, Usage};
use serde_json::{Map, Value, json};

impl Acp {
    /// What the turn wants of the settings is remembered already (see `want`).
    pub(super) fn start_turn(&mut self, input: Vec<Input>, out: &mut Effects) {
        if self.state.phase != Phase::Ready || self.state.turn != Turn::None {
            let error = failure("the session takes no turn now".to_owned(), "protocol_error");
            return self.refuse_turn(error, out);
        }
        let blocks: Vec<Value> = input.into_iter().map(block).collect();
        self.state.turn = Turn::User { waiting: Some(blocks), interrupted: false };
        self.settle(out);
    }

    /// A turn that never began.
    pub(super) fn refuse_turn(&mut self, error: AgentError, out: &mut Effects) {
        out.events.push(AgentEvent::TurnEnded {
            status: TurnStatus::Failed,
            stop_reason: None,
            error: Some(error),
        });
    }

    /// Sends the prompt that waited for its settings.
    pub(super) fn send_prompt(&mut self, out: &mut Effects) {
        let Turn::User { waiting, .. } = &mut self.state.turn else { return };
        let Some(mut blocks) = waiting.take() else { return };
        // Only now: a turn that ends before it is sent must not take them along.
        if let Some(text) = self.state.preamble.take() {
            blocks.insert(0, json!({"type": "text", "text": text}));
        }
        let params = json!({"sessionId": self.state.native, "prompt": blocks});
        self.call("session/prompt", params, Call::Prompt, out);
    }

    /// Adds to the prompt that runs; one that has not been sent yet becomes longer.
    pub(super) fn steer(&mut self, steer: Steer, out: &mut Effects) {
        let blocks: Vec<Value> = steer.input.iter().cloned().map(block).collect();
        match &mut self.state.turn {
            Turn::User { waiting: Some(waiting), .. } => waiting.extend(blocks),
            Turn::User { .. } => {
                let params = json!({"sessionId": self.state.native, "prompt": blocks});
                self.call("_gooselake/steer", params, Call::Steer(steer), out);
            }
            Turn::None | Turn::Agent => out.events.push(AgentEvent::SteerRefused(steer)),
        }
    }

    pub(super) fn steer_answered(&mut self, answer: Answer, steer: Steer, out: &mut Effects) {
        if answer.is_err() {
            out.events.push(AgentEvent::SteerRefused(steer));
        }
    }

    pub(super) fn interrupt(&mut self, out: &mut Effects) {
        let was_waiting = match &mut self.state.turn {
            Turn::None => return,
            Turn::Agent => {
                self.cancel(out);
                return self.end(TurnStatus::Interrupted, None, None, out);
            }
            Turn::User { waiting, interrupted } => {
                *interrupted = true;
                waiting.take().is_some()
            }
        };
        if was_waiting {
            // The agent has not heard of the prompt.
            self.end(TurnStatus::Interrupted, None, None, out);
        } else {
            self.cancel(out);
        }
    }

    /// First the cancel, then the answers: an agent that hears `cancelled` first may go on with
    /// something else.
    fn cancel(&mut self, out: &mut Effects) {
        notify(&mut out.stdin, "session/cancel", json!({"sessionId": self.state.native}));
        self.withdraw_all("interrupted", out);
    }

    pub(super) fn prompt_answered(&mut self, answer: Answer, out: &mut Effects) {
        if !matches!(self.state.turn, Turn::User { .. }) {
            return;
        }
        let was_interrupted = self.state.interrupting();
        match answer {
            Ok(result) => {
                if let Some(usage) = self.final_usage(result) {
                    out.events.push(AgentEvent::Usage(usage));
                }
                let reason = text(result, "stopReason");
                let (status, error) = match reason {
                    "end_turn" => (TurnStatus::Completed, None),
                    "cancelled" => (TurnStatus::Interrupted, None),
                    "" => {
                        let message = "the agent ended the turn without a reason".to_owned();
                        (TurnStatus::Failed, Some(failure(message, "protocol_error")))
                    }
                    other => {
                        let message = format!("the agent stopped: {}", other.replace('_', " "));
                        (TurnStatus::Failed, Some(failure(message, "model_error")))
                    }
                };
                let reason = (!reason.is_empty()).then(|| reason.to_owned());
                self.end(status, reason, error, out);
            }
            Err(_) if was_interrupted => self.end(TurnStatus::Interrupted, None, None, out),
            Err(error) => {
                let error = agent_error(error, "model_error");
                self.end(TurnStatus::Failed, None, Some(error), out);
            }
        }
    }

    pub(super) fn end_agent_turn(&mut self, out: &mut Effects) {
        if self.state.turn == Turn::Agent {
            self.end(TurnStatus::Completed, None, None, out);
        }
    }

    /// Items that come now belong to a turn; without one it is the agent's own.
    pub(super) fn in_turn(&mut self, out: &mut Effects) {
        if self.state.turn == Turn::None {
            self.state.turn = Turn::Agent;
            out.events.push(AgentEvent::AgentTurnStarted);
        }
    }

    pub(super) fn end(
        &mut self,
        status: TurnStatus,
        stop_reason: Option<String>,
        error: Option<AgentError>,
        out: &mut Effects,
    ) {
        let tools = match status {
            TurnStatus::Interrupted => ItemStatus::Interrupted,
            TurnStatus::Failed => ItemStatus::Failed,
            _ => ItemStatus::Completed,
        };
        self.close_items(tools, out);
        self.withdraw_all("turn ended", out);
        self.state.turn = Turn::None;
        self.state.wanted = Default::default();
        for call in self.state.calls.values_mut() {
            // The answer may come into the next turn, whose limit it does not concern.
            if let Call::Set { is_limit, .. } = call {
                *is_limit = false;
            }
        }
        out.events.push(AgentEvent::TurnEnded { status, stop_reason, error });
    }

    /// The usage in a prompt's answer: `usage`, and `_meta.quota.token_count` for what that does
    /// not tell.
    fn final_usage(&self, result: &Map<String, Value>) -> Option<Usage> {
        let usage = object(result, "usage");
        let meta = object(result, "_meta");
        let quota = meta.and_then(|meta| object(object(meta, "quota")?, "token_count"));
        if usage.is_none() && quota.is_none() {
            return None;
        }
        let find = |names: &[&str]| {
            let sources = [usage, quota];
            let mut told = sources.iter().flatten().flat_map(|source| {
                names.iter().filter_map(|name| source.get(*name).and_then(number))
            });
            told.next()
        };
        let mut raw = result.clone();
        raw.remove("stopReason");
        Some(Usage {
            input_tokens: find(&["inputTokens", "input_tokens"]),
            output_tokens: find(&["outputTokens", "output_tokens"]),
            cached_input_tokens: find(&[
                "cachedReadTokens",
                "cachedInputTokens",
                "cached_input_tokens",
            ]),
            reasoning_tokens: find(&["thoughtTokens", "reasoningOutputTokens", "thought_tokens"]),
            total_tokens: find(&["totalTokens", "total_tokens"]),
            context_used: self.state.context.used,
            context_window: self.state.context.window,
            cost_usd: self.state.context.cost_usd(),
            raw: Value::Object(raw),
        })
    }

    /// A `usage_update`: the context window, and the money.
    pub(super) fn usage_update(&mut self, update: &Map<String, Value>, out: &mut Effects) {
        let mut context = self.state.context;
        let told = |field: &str| update.get(field).and_then(number);
        context.used = told("used").or(context.used);
        context.window = told("size").or(context.window);
        let cost = object(update, "cost").filter(|cost| text(cost, "currency") == "USD");
        if let Some(amount) = cost.and_then(|cost| cost.get("amount")?.as_f64()) {
            context.set_cost_usd(amount);
        }
        if context == self.state.context {
            return;
        }
        self.state.context = context;
        let mut raw = update.clone();
        raw.remove("sessionUpdate");
        out.events.push(AgentEvent::Usage(Usage {
            context_used: context.used,
            context_window: context.window,
            cost_usd: context.cost_usd(),
            raw: Value::Object(raw),
            ..Usage::default()
        }));
    }
}

fn block(input: Input) -> Value {
    match input {
        Input::Text { text } => json!({"type": "text", "text": text}),
        Input::Image { data, media_type } => {
            json!({"type": "image", "mimeType": media_type, "data": data})
        }
        Input::ResourceLink { uri, name } => {
            // The protocol wants a name.
            let name = name.unwrap_or_else(|| {
                let last = uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
                if last.is_empty() { uri.clone() } else { last.to_owned() }
            });
            json!({"type": "resource_link", "uri": uri, "name": name})
        }
    }
}

/// A count; some agents write whole numbers with a point.
fn number(value: &Value) -> Option<i64> {
    #[allow(clippy::cast_possible_truncation, reason = "a cast from float saturates")]
    value.as_i64().or_else(|| value.as_f64().map(|float| float as i64))
}
