//! The end of a turn: what is open ends with it, its usage is added up, its terminal event is told.
//!
//! Runs on the session's thread, in the transaction of the step that ends the turn. Whatever ends it (the agent's word,
//! its death, a person's no), it ends here and once.

use super::actor::Actor;
use super::apply::merge_usage;
use super::step::Step;
use crate::ledger::session::SessionChange;
use crate::ledger::to_json;
use crate::ledger::turn::TurnEnd;
use crate::model::event::EventKind;
use crate::model::{ApprovalStatus, ItemStatus, ItemType, TurnStatus};
use crate::provider::{AgentError, Command, Usage};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

impl Actor {
    /// The active turn is over: whatever is open ends with it.
    pub(super) fn turn_ended(
        &mut self,
        status: TurnStatus,
        stop_reason: Option<String>,
        error: Option<AgentError>,
        step: &mut Step,
    ) {
        if self.is_turn_untold() {
            // What the agent does by itself meanwhile ends with it; what comes behind is a turn of its own.
            self.command(Command::EndAgentTurn, step);
        }
        let item_status = match status {
            TurnStatus::Completed => ItemStatus::Completed,
            TurnStatus::Failed => ItemStatus::Failed,
            _ => ItemStatus::Interrupted,
        };
        self.complete_open_items(item_status, false, step);
        self.withdraw_all("turn_ended", step);
        if let Some(entries) = self.state.turn.as_mut().and_then(|turn| turn.plan.take()) {
            let body = Map::from_iter([("entries".to_owned(), Value::from(entries))]);
            self.whole_item(ItemType::Plan, body, step);
        }
        let Some(turn) = self.state.turn.take() else { return };
        if let Some(usage) = &turn.usage {
            self.add_usage(usage, step);
        }
        let assistant_text = (!turn.assistant_text.is_empty()).then_some(turn.assistant_text);
        let payload = end_payload(
            status,
            turn.usage.as_ref(),
            error.as_ref(),
            assistant_text.as_deref(),
            stop_reason.as_deref(),
        );
        let kind = match status {
            TurnStatus::Completed => EventKind::TurnCompleted,
            TurnStatus::Failed => EventKind::TurnFailed,
            _ => EventKind::TurnInterrupted,
        };
        let turn_id = Arc::clone(&turn.turn_id);
        let end = TurnEnd {
            usage: turn.usage.as_ref().map(to_json),
            error: error.as_ref().map(to_json),
            stop_reason,
            assistant_text,
        };
        let (session_key, session_id) = (self.session_key, Arc::clone(&self.session_id));
        let id = Arc::clone(&turn_id);
        step.change(move |tx| {
            tx.end_turn(&id, status, &end)?;
            tx.set_agent_idle(session_key)?;
            if end.error.is_some() {
                let last_error = end.error.clone();
                let change = SessionChange { last_error, ..SessionChange::default() };
                tx.change_session(&session_id, &change)?;
            }
            Ok(())
        });
        step.event(kind, Some(turn_id), payload);
        if let Some(agent) = &mut self.state.agent {
            agent.idle_since = Instant::now();
        }
    }

    /// The agent is gone, and with it what went on behind its turn.
    pub(super) fn end_items_going_on(&mut self, step: &mut Step) {
        self.complete_open_items(ItemStatus::Interrupted, true, step);
    }

    /// Those of the active turn, or those that go on behind theirs.
    fn complete_open_items(&mut self, status: ItemStatus, is_behind_turn: bool, step: &mut Step) {
        let mut open: Vec<(String, Arc<str>)> = self
            .state
            .items
            .iter()
            .filter(|(_, item)| item.goes_on == is_behind_turn)
            .map(|(key, item)| (key.clone(), Arc::clone(&item.item_id)))
            .collect();
        // Ids are ordered by creation.
        open.sort_by(|a, b| a.1.cmp(&b.1));
        for (key, _) in open {
            self.item_completed(&key, status, Map::new(), step);
        }
    }

    /// Adds a turn's usage to the session's totals.
    fn add_usage(&mut self, usage: &Usage, step: &mut Step) {
        let total = &mut self.state.usage;
        let sum = |into: &mut Option<i64>, new: Option<i64>| {
            if let Some(new) = new {
                *into = Some(into.unwrap_or(0).saturating_add(new));
            }
        };
        sum(&mut total.input_tokens, usage.input_tokens);
        sum(&mut total.output_tokens, usage.output_tokens);
        sum(&mut total.cached_input_tokens, usage.cached_input_tokens);
        sum(&mut total.reasoning_tokens, usage.reasoning_tokens);
        sum(&mut total.total_tokens, usage.total_tokens);
        let latest = Usage {
            context_used: usage.context_used,
            context_window: usage.context_window,
            cost_usd: usage.cost_usd,
            ..Usage::default()
        };
        merge_usage(total, &latest);
        let stored = to_json(&*total);
        let session_id = Arc::clone(&self.session_id);
        step.change(move |tx| {
            let change = SessionChange { usage: Some(stored.clone()), ..SessionChange::default() };
            tx.change_session(&session_id, &change)
        });
    }

    /// The agent died: a turn that it was told of ends, with what it has said so far.
    pub(super) fn end_turn_without_agent(&mut self, error: &AgentError, step: &mut Step) {
        let Some(turn) = &self.state.turn else { return };
        if !turn.is_dispatched {
            // The next one is told of the turn.
            return self.end_own_doing(step);
        }
        let status = turn.end_without_agent();
        let turn_id = Arc::clone(&turn.turn_id);
        self.withdraw_all("agent_gone", step);
        if status == TurnStatus::Failed {
            let payload = json!({"error": error.message, "code": error.code});
            step.event(EventKind::ProviderError, Some(turn_id), payload.to_string());
        }
        let error = (status == TurnStatus::Failed).then(|| error.clone());
        self.turn_ended(status, Some("agent_exited".to_owned()), error, step);
    }

    /// What the agent that is gone did by itself, while a turn waits for the next one, is over.
    pub(super) fn end_own_doing(&mut self, step: &mut Step) {
        self.complete_open_items(ItemStatus::Interrupted, false, step);
        self.withdraw_asked("agent_gone", step);
    }

    /// The decision of an expired gate, and of a declined one.
    pub(super) fn end_gated(&mut self, status: ApprovalStatus, step: &mut Step) {
        let source = match status {
            ApprovalStatus::Expired => "approval.expired",
            _ => "approval.declined",
        };
        if let Some(turn) = &mut self.state.turn {
            turn.gate = None;
        }
        self.turn_ended(TurnStatus::Interrupted, Some(source.to_owned()), None, step);
    }
}

/// The payload of a terminal event.
pub(super) fn end_payload(
    status: TurnStatus,
    usage: Option<&Usage>,
    error: Option<&AgentError>,
    assistant_text: Option<&str>,
    stop_reason: Option<&str>,
) -> String {
    json!({
        "status": status.as_str(),
        "usage": usage,
        "error": error,
        "assistant_text": assistant_text,
        "stop_reason": stop_reason,
    })
    .to_string()
}
