//! What an agent did, worked into a step: items, deltas, plan, usage, settings.
//!
//! Runs on the session's thread. Keys of the adapter become ids here. Nothing is told twice: an item's deltas add up to
//! what its completion holds.

use super::actor::{Actor, LiveItem, Phase};
use super::step::Step;
use crate::error::Result;
use crate::ledger::item::{ItemRecord, NewItem, OUTPUT_TRUNCATED, cut_output};
use crate::ledger::session::SessionChange;
use crate::ledger::{Tx, to_json};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::{ItemStatus, ItemType, TurnSource, id};
use crate::provider::{Adapter, AgentEvent, DeltaField, Effects, Usage};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The field of an item that goes on behind its turn.
const STILL_RUNNING: &str = "still_running";
/// Lines not understood that one step tells whole; the rest of them is told as a number.
const UNPARSED_PER_STEP: usize = 16;

impl Actor {
    /// Works all effects into the step and empties them, and sees whether the agent owes an answer.
    pub(super) fn apply_all(
        &mut self,
        effects: &mut Effects,
        adapter: &mut Box<dyn Adapter>,
        step: &mut Step,
    ) {
        step.stdin.append(&mut effects.stdin);
        let mut events = std::mem::take(&mut effects.events);
        for event in events.drain(..) {
            self.apply(event, adapter, step);
        }
        self.await_steers(&**adapter);
        // The buffer is used again for the next line.
        if effects.events.is_empty() {
            effects.events = events;
        }
    }

    fn apply(&mut self, event: AgentEvent, adapter: &mut Box<dyn Adapter>, step: &mut Step) {
        match event {
            AgentEvent::ItemDelta { item, field, text } => {
                self.item_delta(&item, field, &text, step);
            }
            AgentEvent::ItemStarted { item, item_type, body } => {
                self.item_started(item, item_type, body, step);
            }
            AgentEvent::ItemSet { item, item_type, body } => {
                self.item_set(&item, item_type, body, step);
            }
            AgentEvent::ItemCompleted { item, status, body } => {
                self.item_completed(&item, status, body, step);
            }
            AgentEvent::ItemGoesOn { item } => self.item_goes_on(&item, step),
            AgentEvent::SteerRefused(steer) => self.steer_refused(steer, step),
            AgentEvent::Opened { native_ref, model, mode, reasoning_level } => {
                self.opened(native_ref, (model, mode, reasoning_level), &**adapter, step);
            }
            AgentEvent::OpenFailed { error, gone } => {
                self.state.open_failure = Some((error, gone));
            }
            AgentEvent::AgentTurnStarted => self.begin_turn(TurnSource::Agent, step),
            AgentEvent::ApprovalAsked { key, item, title, subject, options } => {
                self.approval_asked(key, item, title, subject, options, adapter, step);
            }
            AgentEvent::ApprovalWithdrawn { key, reason } => {
                self.approval_withdrawn(&key, &reason, step);
            }
            AgentEvent::Plan { entries } => self.plan(entries, step),
            AgentEvent::Usage(usage) => self.usage(&usage, step),
            AgentEvent::SettingsChanged { model, mode, reasoning_level } => {
                self.settings_changed(model, mode, reasoning_level, step);
            }
            AgentEvent::TitleChanged { title } => self.title_changed(title, step),
            // Of what the agent did by itself while this one waited: it does not know of this one yet.
            AgentEvent::TurnEnded { .. } if self.is_turn_untold() => {}
            AgentEvent::TurnEnded { status, stop_reason, error } => {
                self.turn_ended(status, stop_reason, error, step);
            }
            AgentEvent::Notice { text, data } => self.notice(&text, data, step),
            AgentEvent::Unparsed { text } => {
                let bytes = text.len();
                self.unparsed(step, &text, bytes);
            }
            AgentEvent::Host { key, request } => self.serve_host(key, request, adapter, step),
            AgentEvent::HostTakenBack { key } => self.state.terminals.take_back(&key),
        }
    }

    fn item_started(
        &mut self,
        key: String,
        item_type: ItemType,
        body: Map<String, Value>,
        step: &mut Step,
    ) {
        if self.state.items.len() >= limits::OPEN_ITEMS
            && let Some(oldest) = self.oldest_item()
        {
            self.item_completed(&oldest, ItemStatus::Completed, Map::new(), step);
        }
        let Some(turn) = &self.state.turn else { return };
        let turn_id = Arc::clone(&turn.turn_id);
        let item = LiveItem::new(item_type, body, id::now_ms(), Arc::clone(&turn_id));
        let record = item.record(&self.session_id, ItemStatus::InProgress);
        let payload = format!("{{\"item\":{}}}", to_json(&record));
        step.is_visible = true;
        let append = step.append(EventKind::ItemStarted, Some(Arc::clone(&turn_id)), payload);
        let (session_key, item_id) = (self.session_key, Arc::clone(&item.item_id));
        let (body, adapter_key) = (to_json(&record.body), key.clone());
        let created_at = item.created_at;
        step.change(move |tx| {
            let started_seq = append(tx)?;
            tx.insert_item(&NewItem {
                item_id: &item_id,
                session_key,
                turn_id: &turn_id,
                item_type,
                status: ItemStatus::InProgress,
                body: &body,
                started_seq,
                adapter_key: Some(&adapter_key),
                created_at,
            })
        });
        self.state.items.insert(key, item);
    }

    /// The key of the open item that was made first; ids are ordered by creation.
    fn oldest_item(&self) -> Option<String> {
        let open = self.state.items.iter();
        open.min_by(|a, b| a.1.item_id.cmp(&b.1.item_id)).map(|(key, _)| key.clone())
    }

    fn item_delta(&mut self, key: &str, field: DeltaField, text: &str, step: &mut Step) {
        let mut rest = text;
        while field == DeltaField::Text && rest.len() > limits::ITEM_TEXT_BYTES {
            let (piece, behind) = rest.split_at(rest.floor_char_boundary(limits::ITEM_TEXT_BYTES));
            self.item_piece(key, field, piece, step);
            rest = behind;
        }
        self.item_piece(key, field, rest, step);
    }

    fn item_piece(&mut self, key: &str, field: DeltaField, text: &str, step: &mut Step) {
        let Some(item) = self.state.items.get_mut(key) else { return };
        if field == DeltaField::Text && item.text.len() + text.len() > limits::ITEM_TEXT_BYTES {
            // One message never grows without bound: it goes on in a new item.
            let item_type = item.item_type;
            self.item_completed(key, ItemStatus::Completed, Map::new(), step);
            self.item_started(key.to_owned(), item_type, Map::new(), step);
        }
        let Some(item) = self.state.items.get_mut(key) else { return };
        item.add(field, text);
        step.delta(&item.item_id, &item.turn_id, field, text);
    }

    fn item_set(
        &mut self,
        key: &str,
        item_type: Option<ItemType>,
        body: Map<String, Value>,
        step: &mut Step,
    ) {
        let Some(item) = self.state.items.get_mut(key) else { return };
        let turn_id = Arc::clone(&item.turn_id);
        item.item_type = item_type.unwrap_or(item.item_type);
        let payload = json!({
            "item_id": &*item.item_id, "type": item.item_type.as_str(), "set": &body,
        });
        item.merge(body);
        let (item_id, item_type) = (Arc::clone(&item.item_id), item.item_type);
        let stored = to_json(&item.body);
        step.event(EventKind::ItemDelta, Some(turn_id), payload.to_string());
        step.change(move |tx| tx.set_item_body(&item_id, item_type, &stored));
    }

    /// The item is not over when its turn is: it says so, and is completed whenever the agent tells that.
    fn item_goes_on(&mut self, key: &str, step: &mut Step) {
        if let Some(item) = self.state.items.get_mut(key) {
            item.goes_on = true;
            let body = Map::from_iter([(STILL_RUNNING.to_owned(), Value::from(true))]);
            self.item_set(key, None, body, step);
        }
    }

    pub(super) fn item_completed(
        &mut self,
        key: &str,
        status: ItemStatus,
        body: Map<String, Value>,
        step: &mut Step,
    ) {
        let Some(mut item) = self.state.items.remove(key) else { return };
        item.merge(body);
        item.body.remove(STILL_RUNNING);
        let turn_id = Arc::clone(&item.turn_id);
        if let Some(turn) = &mut self.state.turn
            && item.item_type == ItemType::AssistantMessage
            && turn.turn_id == turn_id
        {
            turn.add_assistant_text(&item.text);
        }
        let mut record = item.record(&self.session_id, status);
        let completed_at = id::now_ms();
        record.completed_at = Some(completed_at);
        let (item_id, item_type) = (Arc::clone(&item.item_id), item.item_type);
        let stored = to_json(&record.body);
        let payload = format!("{{\"item\":{}}}", to_json(&record));
        step.event(EventKind::ItemCompleted, Some(turn_id), payload);
        step.change(move |tx| tx.complete_item(&item_id, item_type, status, &stored, completed_at));
    }

    /// An item that is whole at once: what the user said, a notice, the last state of a plan.
    pub(super) fn whole_item(
        &mut self,
        item_type: ItemType,
        body: Map<String, Value>,
        step: &mut Step,
    ) {
        let Some(turn) = &self.state.turn else { return };
        let turn_id = Arc::clone(&turn.turn_id);
        let item = LiveItem::new(item_type, body, id::now_ms(), Arc::clone(&turn_id));
        let mut record = item.record(&self.session_id, ItemStatus::Completed);
        record.completed_at = Some(record.created_at);
        let payload = format!("{{\"item\":{}}}", to_json(&record));
        step.is_visible = true;
        let append = step.append(EventKind::ItemCompleted, Some(Arc::clone(&turn_id)), payload);
        let session_key = self.session_key;
        let body = to_json(&record.body);
        step.change(move |tx| {
            let started_seq = append(tx)?;
            tx.insert_item(&NewItem {
                item_id: &item.item_id,
                session_key,
                turn_id: &turn_id,
                item_type,
                status: ItemStatus::Completed,
                body: &body,
                started_seq,
                adapter_key: None,
                created_at: item.created_at,
            })
        });
    }

    fn plan(&mut self, entries: Vec<Value>, step: &mut Step) {
        let turn_id = self.state.turn.as_ref().map(|turn| Arc::clone(&turn.turn_id));
        step.event(EventKind::PlanUpdated, turn_id, json!({"entries": &entries}).to_string());
        if let Some(turn) = &mut self.state.turn {
            turn.plan = Some(entries);
        }
    }

    fn usage(&mut self, usage: &Usage, step: &mut Step) {
        let turn_id = self.state.turn.as_ref().map(|turn| Arc::clone(&turn.turn_id));
        if let Some(turn) = &mut self.state.turn {
            merge_usage(turn.usage.get_or_insert_default(), usage);
        }
        let payload = match self.state.turn.as_ref().and_then(|turn| turn.usage.as_ref()) {
            Some(merged) => json!({"usage": merged}),
            None => json!({"usage": usage}),
        };
        step.event(EventKind::UsageUpdated, turn_id, payload.to_string());
    }

    fn settings_changed(
        &mut self,
        model: Option<String>,
        mode: Option<String>,
        reasoning_level: Option<String>,
        step: &mut Step,
    ) {
        let session_id = Arc::clone(&self.session_id);
        let change = SessionChange { model, mode, reasoning_level, ..SessionChange::default() };
        step.change(move |tx| tx.change_session(&session_id, &change));
        step.is_session_changed = true;
    }

    fn title_changed(&mut self, title: String, step: &mut Step) {
        if self.state.title.is_some() {
            // The client's own title is not overwritten by the agent's.
            return;
        }
        let session_id = Arc::clone(&self.session_id);
        let title = Some(title.chars().take(200).collect());
        let change = SessionChange { title, ..SessionChange::default() };
        step.change(move |tx| tx.change_session(&session_id, &change));
        step.is_session_changed = true;
    }

    fn notice(&mut self, text: &str, data: Value, step: &mut Step) {
        let body = Map::from_iter([
            ("text".to_owned(), Value::from(text)),
            ("data".to_owned(), data.clone()),
        ]);
        if self.state.turn.is_some() {
            self.whole_item(ItemType::Notice, body, step);
        } else {
            let payload = json!({"notice": text, "data": data});
            step.event(EventKind::SessionUpdated, None, payload.to_string());
        }
    }

    /// Keeps what was not understood: its beginning, and how long it was.
    pub(super) fn unparsed(&mut self, step: &mut Step, text: &str, bytes: usize) {
        step.unparsed += 1;
        if step.unparsed > UNPARSED_PER_STEP {
            return;
        }
        let kept = &text[..text.floor_char_boundary(limits::UNPARSED_BYTES)];
        let turn_id = self.state.turn.as_ref().map(|turn| Arc::clone(&turn.turn_id));
        let is_last = step.unparsed == UNPARSED_PER_STEP;
        let payload = json!({"text": kept, "bytes": bytes, "more_left_out": is_last});
        step.event(EventKind::AgentUnparsed, turn_id, payload.to_string());
    }

    fn opened(
        &mut self,
        native_ref: String,
        (model, mode, reasoning_level): (Option<String>, Option<String>, Option<String>),
        adapter: &dyn Adapter,
        step: &mut Step,
    ) {
        // It was told to end meanwhile: a session that is closed, or has failed, does not come back by that.
        if matches!(self.state.phase, Phase::Stopping { .. } | Phase::Over) {
            return;
        }
        let is_resume = matches!(self.state.phase, Phase::Opening { is_resume: true, .. });
        self.state.phase = Phase::Open;
        let session_id = Arc::clone(&self.session_id);
        let change = SessionChange {
            state: Some("open"),
            model,
            mode,
            reasoning_level,
            provider_session_ref: Some(native_ref.clone()),
            capabilities: Some(to_json(adapter.capabilities())),
            is_failure_over: true,
            ..SessionChange::default()
        };
        step.change(move |tx| tx.change_session(&session_id, &change));
        step.is_session_changed = true;
        if is_resume {
            let payload = json!({"provider_session_ref": native_ref});
            step.event(EventKind::AgentWoken, None, payload.to_string());
        }
        for opener in self.state.openers.drain(..) {
            step.afterwards(move || drop(opener.send(Ok(()))));
        }
        if let Some(agent) = &mut self.state.agent {
            agent.idle_since = std::time::Instant::now();
        }
    }
}

/// Tells the whole record of a session that has changed.
pub(super) fn session_updated(tx: &mut Tx<'_>, session_id: &str) -> Result<()> {
    let record = tx.session(session_id)?;
    let payload = format!("{{\"session\":{}}}", to_json(&record));
    tx.append(crate::ledger::event::NewEvent::session(
        session_id,
        EventKind::SessionUpdated,
        payload,
    ))?;
    Ok(())
}

/// What is told now replaces what was told before; what is not told now stays.
pub(super) fn merge_usage(into: &mut Usage, new: &Usage) {
    fn take<T: Copy>(into: &mut Option<T>, new: Option<T>) {
        *into = new.or(*into);
    }
    take(&mut into.input_tokens, new.input_tokens);
    take(&mut into.output_tokens, new.output_tokens);
    take(&mut into.cached_input_tokens, new.cached_input_tokens);
    take(&mut into.reasoning_tokens, new.reasoning_tokens);
    take(&mut into.total_tokens, new.total_tokens);
    take(&mut into.context_used, new.context_used);
    take(&mut into.context_window, new.context_window);
    take(&mut into.cost_usd, new.cost_usd);
    if !new.raw.is_null() {
        into.raw = new.raw.clone();
    }
}

impl LiveItem {
    pub(super) fn new(
        item_type: ItemType,
        body: Map<String, Value>,
        created_at: i64,
        turn_id: Arc<str>,
    ) -> LiveItem {
        let mut item = LiveItem {
            item_id: id::new("item").into(),
            turn_id,
            goes_on: body.get(STILL_RUNNING).is_some_and(|value| *value == true),
            item_type,
            body: Map::new(),
            text: String::new(),
            output: String::new(),
            created_at,
        };
        item.merge(body);
        item
    }

    pub(super) fn add(&mut self, field: DeltaField, text: &str) {
        match field {
            DeltaField::Text => self.text.push_str(text),
            DeltaField::Output => {
                self.output.push_str(text);
                if cut_output(&mut self.output) {
                    self.body.insert(OUTPUT_TRUNCATED.to_owned(), Value::from(true));
                }
            }
        }
    }

    /// Takes new fields; `text` and `output` replace what deltas have added up to, null removes.
    pub(super) fn merge(&mut self, body: Map<String, Value>) {
        for (name, value) in body {
            match (name.as_str(), value) {
                ("text", Value::String(text)) => self.text = text,
                ("output", Value::String(output)) => self.output = output,
                (_, Value::Null) => {
                    self.body.remove(&name);
                }
                (_, value) => {
                    self.body.insert(name, value);
                }
            }
        }
    }

    /// The item with everything that has been added up so far.
    fn record(&self, session_id: &str, status: ItemStatus) -> ItemRecord {
        let mut body = self.body.clone();
        let is_text = matches!(
            self.item_type,
            ItemType::AssistantMessage | ItemType::Reasoning | ItemType::UserMessage
        );
        if is_text || !self.text.is_empty() {
            body.insert("text".to_owned(), Value::from(self.text.as_str()));
        }
        if self.item_type == ItemType::Command || !self.output.is_empty() {
            body.insert("output".to_owned(), Value::from(self.output.as_str()));
        }
        ItemRecord {
            item_key: 0,
            item_id: self.item_id.to_string(),
            session_id: session_id.to_owned(),
            turn_id: self.turn_id.to_string(),
            item_type: self.item_type.as_str().to_owned(),
            status: status.as_str().to_owned(),
            created_at: self.created_at,
            completed_at: None,
            body,
        }
    }
}
