//! Turns: ours, and Codex's own.
//!
//! Owns: starting, steering, interrupting and ending, and the count of tokens. Promises: after
//! [`AgentEvent::TurnEnded`] nothing of the turn is open but the commands that were told to go on. Codex is asked
//! which of them really run; those of an interrupted turn are ended, one by one, and no others.
//!
//! Codex takes a `turn/start` on a busy thread for a steer, so it is only sent when no turn of ours runs. A steer
//! whose turn has ended meanwhile is given back, to become a turn of its own.
//!
//! Answers and notifications may pass each other: a turn may have ended before the answer to its start comes. So an
//! answer counts for the turn whose start it answers and no other, and the turns that ended last are remembered: an
//! answer that names one of them ends the turn that it was asked for, since nothing more will be told of it.

use super::open::{Answer, failure, is_usable, refusal};
use super::permission::row;
use super::state::{Call, ID_BYTES_MAX, PastTurn, Phase, Tokens, Turn};
use super::{Codex, notice};
use crate::model::input::Input;
use crate::model::{ItemStatus, ItemType, TurnStatus};
use crate::provider::rpc::{cut, list, object, short_id, text};
use crate::provider::sent::hash;
use crate::provider::{AgentError, AgentEvent, Effects, Steer, Usage};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

/// What an error may carry beside its words.
const ERROR_DATA_BYTES_MAX: usize = 4 * 1024;
/// Turns that are over and remembered. One answer may be on its way, and Codex works on one turn at a time.
const PAST_TURNS_MAX: usize = 8;

/// The settings that a turn names.
pub(super) struct Wanted {
    pub(super) model: Option<String>,
    pub(super) mode: Option<String>,
    pub(super) reasoning_level: Option<String>,
    pub(super) permission_mode: Option<String>,
}

impl Codex {
    pub(super) fn start_turn(&mut self, input: &[Input], wanted: Wanted, out: &mut Effects) {
        self.end_agent_turn(out);
        if self.state.phase != Phase::Ready || self.state.turn != Turn::None {
            let error = failure("the session takes no turn now".to_owned(), "protocol_error");
            let (status, error) = (TurnStatus::Failed, Some(error));
            out.events.push(AgentEvent::TurnEnded { status, stop_reason: None, error });
            return;
        }
        self.state.turn = Turn::User;
        // What Codex still does by itself may end before it hears of this turn, and must not end it. Where it takes the
        // turn for a steer of its own work, the answer names that.
        self.state.native_turn = None;
        self.state.is_interrupting = false;
        self.state.tokens_before = self.state.tokens;
        let mut params = json!({"threadId": self.state.thread, "input": blocks(input)});
        self.set_permission(wanted.permission_mode.as_deref(), &mut params, out);
        self.set_rest(wanted, &mut params, out);
        self.call("turn/start", &params, Call::StartTurn, out);
    }

    /// Model, effort and mode stick to the thread: they are told when they are to change.
    fn set_rest(&mut self, wanted: Wanted, params: &mut Value, out: &mut Effects) {
        let is_news = |wanted: &Option<String>, now: &Option<String>| {
            wanted.is_some() && wanted.as_deref() != now.as_deref()
        };
        if is_news(&wanted.model, &self.state.model) {
            params["model"] = json!(wanted.model);
        }
        if is_news(&wanted.reasoning_level, &self.state.effort) {
            params["effort"] = json!(wanted.reasoning_level);
        }
        let mode = wanted.mode.or_else(|| self.state.wanted_mode.take());
        let mode = mode.unwrap_or_else(|| self.state.mode.clone());
        if !self.state.capabilities.modes.iter().any(|choice| choice.id == mode) {
            let text = format!("Codex has no mode {}; it has default and plan", cut(&mode, 100));
            return notice(text, Value::Null, out);
        }
        let is_changed = params.get("model").is_some() || params.get("effort").is_some();
        if mode != self.state.mode || is_changed && mode != "default" {
            let model = wanted.model.or_else(|| self.state.model.clone());
            let effort = wanted.reasoning_level.or_else(|| self.state.effort.clone());
            params["collaborationMode"] = json!({"mode": mode, "settings": {
                "model": model, "reasoning_effort": effort, "developer_instructions": null,
            }});
        }
    }

    /// A permission mode holds for its turn; the next one without goes back to the session's.
    fn set_permission(&mut self, word: Option<&str>, params: &mut Value, out: &mut Effects) {
        let row = word.and_then(row);
        let base = &self.state.permission;
        let wanted = row.map_or_else(|| base.clone(), |row| row.permission(base));
        if row.is_some_and(|row| row.is_silent()) && self.state.asks_for_mcp {
            let text = "the MCP servers of this session were opened to be asked about; in this \
                        turn nobody is asked, so Codex may refuse their tools";
            notice(text.to_owned(), json!({"permission_mode": word}), out);
        }
        if wanted == self.state.permission_now || wanted.approval.is_null() {
            return;
        }
        params["approvalPolicy"] = wanted.approval.clone();
        params["sandboxPolicy"] = wanted.sandbox.clone();
        self.state.permission_now = wanted;
    }

    pub(super) fn start_answered(&mut self, answer: Answer, out: &mut Effects) {
        match answer {
            Ok(result) => {
                let id = object(result, "turn").map(|turn| text(turn, "id")).unwrap_or_default();
                match self.past_turn(id).cloned() {
                    // It was taken for a steer of Codex's own work, or was quick.
                    Some(past) if self.state.turn == Turn::User => {
                        self.end(past.status(), past.error, out);
                    }
                    _ => self.turn_known(id, out),
                }
            }
            Err(_) if self.state.turn != Turn::User => {}
            Err(error) => {
                // What was to change may not have changed: the next turn tells it again.
                self.state.permission_now = Default::default();
                if self.state.is_interrupting {
                    self.end(TurnStatus::Interrupted, None, out);
                } else {
                    self.end(TurnStatus::Failed, Some(refusal(error)), out);
                }
            }
        }
    }

    /// The turn is over by Codex's word already. One that was refused after all may have changed no setting.
    pub(super) fn past_start_answered(&mut self, answer: Answer) {
        if answer.is_err() {
            self.state.permission_now = Default::default();
        }
    }

    /// Codex has said what its turn is called: what waited for that is sent. It works on one turn at a time, so another
    /// name than the one before means that the one before is over.
    fn turn_known(&mut self, id: &str, out: &mut Effects) {
        let is_known = self.state.native_turn.as_deref() == Some(id);
        if !is_usable(id) || is_known || self.past_turn(id).is_some() {
            return;
        }
        self.state.native_turn = Some(id.to_owned());
        if self.state.turn == Turn::User {
            if self.state.is_interrupting {
                self.send_interrupt(out);
            }
            for steer in std::mem::take(&mut self.state.steers) {
                self.steer(steer, out);
            }
        }
    }

    fn past_turn(&self, id: &str) -> Option<&PastTurn> {
        let id = hash(id);
        self.state.past_turns.iter().find(|past| past.id == id)
    }

    pub(super) fn turn_started(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let id = object(params, "turn").map(|turn| text(turn, "id")).unwrap_or_default();
        self.turn_known(id, out);
    }

    pub(super) fn steer(&mut self, steer: Steer, out: &mut Effects) {
        match (self.state.turn, &self.state.native_turn) {
            (Turn::None, _) => out.events.push(AgentEvent::SteerRefused(steer)),
            (_, None) => self.state.steers.push(steer),
            (_, Some(turn)) => {
                let input = blocks(&steer.input);
                let params = json!({
                    "threadId": self.state.thread, "expectedTurnId": turn, "input": input,
                });
                self.call("turn/steer", &params, Call::Steer(steer), out);
            }
        }
    }

    pub(super) fn steer_answered(&mut self, answer: Answer, steer: Steer, out: &mut Effects) {
        if answer.is_err() {
            out.events.push(AgentEvent::SteerRefused(steer));
        }
    }

    pub(super) fn interrupt(&mut self, out: &mut Effects) {
        if self.state.turn == Turn::None {
            return;
        }
        self.state.is_interrupting = true;
        if self.state.native_turn.is_some() {
            self.send_interrupt(out);
        }
        // Codex lets go of what it has asked by itself.
        self.withdraw_all("interrupted", out);
    }

    fn send_interrupt(&mut self, out: &mut Effects) {
        let params = json!({"threadId": self.state.thread, "turnId": self.state.native_turn});
        self.call("turn/interrupt", &params, Call::Interrupt, out);
    }

    pub(super) fn turn_completed(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let Some(turn) = object(params, "turn") else { return };
        let id = text(turn, "id");
        let (status, error) = match text(turn, "status") {
            "completed" => (TurnStatus::Completed, None),
            "interrupted" => (TurnStatus::Interrupted, None),
            _ => {
                let nothing = Map::new();
                let error = turn_error(object(turn, "error").unwrap_or(&nothing));
                (TurnStatus::Failed, Some(error))
            }
        };
        if !id.is_empty() && self.past_turn(id).is_none() {
            if self.state.past_turns.len() >= PAST_TURNS_MAX {
                self.state.past_turns.pop_front();
            }
            let past =
                PastTurn { id: hash(id), status: status.as_str().to_owned(), error: error.clone() };
            self.state.past_turns.push_back(past);
        }
        if self.state.native_turn.as_deref() != Some(id) {
            return;
        }
        self.state.native_turn = None;
        if self.state.turn != Turn::None {
            self.end(status, error, out);
        }
    }

    /// Codex goes on with what it began; what it tells from now on is another turn of its own, or the person's.
    pub(super) fn end_agent_turn(&mut self, out: &mut Effects) {
        if self.state.turn == Turn::Agent {
            self.end(TurnStatus::Completed, None, out);
        }
    }

    /// Items that come now belong to a turn; without one it is Codex's own.
    pub(super) fn in_turn(&mut self, out: &mut Effects) {
        if self.state.turn == Turn::None {
            self.state.turn = Turn::Agent;
            self.state.is_interrupting = false;
            self.state.tokens_before = self.state.tokens;
            out.events.push(AgentEvent::AgentTurnStarted);
        }
    }

    fn end(&mut self, status: TurnStatus, error: Option<AgentError>, out: &mut Effects) {
        let (item_status, stop_reason) = match status {
            TurnStatus::Completed => (ItemStatus::Completed, Some("end_turn")),
            TurnStatus::Interrupted => (ItemStatus::Interrupted, Some("cancelled")),
            _ => (ItemStatus::Failed, None),
        };
        let is_going_on = self.close_items(item_status, out);
        self.withdraw_all("turn ended", out);
        self.state.turn = Turn::None;
        self.state.is_interrupting = false;
        for call in self.state.calls.values_mut().filter(|call| **call == Call::StartTurn) {
            *call = Call::PastStart;
        }
        let stop_reason = stop_reason.map(str::to_owned);
        out.events.push(AgentEvent::TurnEnded { status, stop_reason, error });
        for steer in std::mem::take(&mut self.state.steers) {
            out.events.push(AgentEvent::SteerRefused(steer));
        }
        if is_going_on {
            let params = json!({"threadId": self.state.thread});
            let is_end = status == TurnStatus::Interrupted;
            let call = Call::Terminals { is_end };
            self.call("thread/backgroundTerminals/list", &params, call, out);
        }
    }

    /// What is not listed has ended without a word; what is listed and was interrupted is ended.
    pub(super) fn terminals_told(&mut self, is_end: bool, answer: Answer, out: &mut Effects) {
        let Ok(result) = answer else { return };
        let listed: Vec<(Cow<str>, &str)> = list(result, "data")
            .iter()
            .filter_map(Value::as_object)
            .map(|terminal| {
                let item = short_id(text(terminal, "itemId"), ID_BYTES_MAX);
                (item, text(terminal, "processId"))
            })
            .collect();
        let is_whole = text(result, "nextCursor").is_empty();
        let going_on = self.state.items.iter().filter(|item| item.goes_on);
        let going_on: Vec<(String, bool)> =
            going_on.map(|item| (item.id.clone(), item.interrupted)).collect();
        for (id, is_interrupted) in going_on {
            match listed.iter().find(|(item, _)| **item == id) {
                Some((_, process)) if is_end && is_interrupted => {
                    let params = json!({"threadId": self.state.thread, "processId": process});
                    let method = "thread/backgroundTerminals/terminate";
                    self.call(method, &params, Call::EndTerminal, out);
                }
                Some(_) => {}
                None if is_whole => self.lost(&id, out),
                None => {}
            }
        }
    }

    pub(super) fn token_usage(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let Some(usage) = object(params, "tokenUsage") else { return };
        let read = |field: &str| {
            let tokens = usage.get(field).cloned().unwrap_or_default();
            Tokens::deserialize(tokens).ok()
        };
        let (Some(total), last) = (read("total"), read("last").unwrap_or_default()) else {
            return;
        };
        let is_ours = self.state.native_turn.as_deref() == Some(text(params, "turnId"));
        if !is_ours || self.state.turn == Turn::None {
            // Of an earlier turn, as a resumed thread tells it: what our turn starts from.
            self.state.tokens = total;
            self.state.tokens_before = total;
            return;
        }
        if (total, last.total_tokens) == (self.state.tokens, self.state.context_used) {
            return;
        }
        self.state.tokens = total;
        self.state.context_used = last.total_tokens;
        let before = self.state.tokens_before;
        let since = |now: i64, before: i64| Some(now.saturating_sub(before).max(0));
        let mut raw = usage.clone();
        if !self.state.rate_limits.is_null() {
            raw.insert("rateLimits".to_owned(), self.state.rate_limits.clone());
        }
        out.events.push(AgentEvent::Usage(Usage {
            input_tokens: since(total.input_tokens, before.input_tokens),
            output_tokens: since(total.output_tokens, before.output_tokens),
            cached_input_tokens: since(total.cached_input_tokens, before.cached_input_tokens),
            reasoning_tokens: since(total.reasoning_output_tokens, before.reasoning_output_tokens),
            total_tokens: since(total.total_tokens, before.total_tokens),
            context_used: Some(last.total_tokens),
            context_window: usage.get("modelContextWindow").and_then(Value::as_i64),
            cost_usd: None,
            raw: Value::Object(raw),
        }));
    }
}

/// A turn's error in our words, with what to do where there is something to do.
pub(super) fn turn_error(error: &Map<String, Value>) -> AgentError {
    let info = error.get("codexErrorInfo").unwrap_or(&Value::Null);
    let word = info.as_str().map(str::to_owned).or_else(|| {
        let fields = info.as_object()?;
        fields.keys().next().cloned()
    });
    let status = info.as_object().and_then(|fields| {
        fields.values().next().and_then(|inner| inner.get("httpStatusCode")?.as_i64())
    });
    let said = match text(error, "message") {
        "" => "Codex gave no reason",
        said => said,
    };
    let (code, remedy) = match (word.as_deref().unwrap_or_default(), status) {
        _ if said.starts_with("Missing environment variable") => (
            "authentication_required",
            " Set it in the server's environment, or under [providers.codex.env]",
        ),
        ("unauthorized", _) | (_, Some(401 | 403)) => (
            "authentication_required",
            "; run codex login again as the user of this server, or renew the provider's key",
        ),
        ("contextWindowExceeded", _) => ("context_window_exceeded", ""),
        ("modelNotFound", _) => ("model_not_found", "; name another model"),
        ("usageLimitExceeded" | "rateLimitExceeded" | "sessionBudgetExceeded", _)
        | (_, Some(429)) => ("rate_limited", ""),
        _ => ("model_error", ""),
    };
    let mut data = json!({"codexErrorInfo": info, "details": error.get("additionalDetails")});
    if data.to_string().len() > ERROR_DATA_BYTES_MAX {
        data = Value::Null;
    }
    let message = format!("{}{remedy}", cut(said, crate::provider::rpc::KEPT_BYTES_MAX));
    AgentError { message, code: code.to_owned(), data }
}

fn blocks(input: &[Input]) -> Vec<Value> {
    let block = |input: &Input| match input {
        Input::Text { text } => json!({"type": "text", "text": text}),
        Input::Image { data, media_type } => {
            json!({"type": "image", "url": format!("data:{media_type};base64,{data}")})
        }
        Input::ResourceLink { uri, name } => {
            let name = name.as_deref().unwrap_or(uri);
            json!({"type": "text", "text": format!("[{name}]({uri})")})
        }
    };
    input.iter().map(block).collect()
}

/// Whether an item of this type may go on behind its turn.
pub(super) fn may_go_on(item_type: ItemType) -> bool {
    item_type == ItemType::Command
}
