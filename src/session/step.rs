//! One step of a session: all that one transaction changes, and what is done when it is committed.
//!
//! A session's thread collects a step from what came in (a command, a chunk of agent output), commits it whole, and
//! only then sends bytes to the agent and answers. Nothing here touches the outside: a step that can not be
//! committed is dropped, and the session is loaded from the ledger again.

use crate::error::Result;
use crate::ledger::Tx;
use crate::ledger::event::NewEvent;
use crate::limits;
use crate::model::event::EventKind;
use crate::provider::DeltaField;
use serde_json::json;
use std::sync::Arc;

type Change = Box<dyn Fn(&mut Tx<'_>) -> Result<()> + Send>;
/// What is done once a step is committed.
pub(super) type Afterwards = Box<dyn FnOnce() + Send>;

/// See the module's text.
pub(super) struct Step {
    pub session_id: Arc<str>,
    /// The provider's name, for events that came from the agent.
    provider: Arc<str>,
    changes: Vec<Change>,
    afterwards: Vec<Afterwards>,
    /// Bytes for the agent's stdin.
    pub stdin: Vec<u8>,
    /// The journal offset behind the line that is being worked on; None while a command is.
    pub agent_offset: Option<u64>,
    delta: Option<Delta>,
    /// Lines that were not understood, in this step: beyond the bound they are only counted.
    pub unparsed: usize,
    /// The record of the session has changed, beyond its time.
    pub is_session_changed: bool,
    /// Anything that a client can see has changed, beyond the text of items.
    pub is_visible: bool,
    /// An item has got more text.
    pub is_text_longer: bool,
}

/// Deltas of one field of one item that came one behind the other.
struct Delta {
    item_id: Arc<str>,
    turn_id: Arc<str>,
    field: DeltaField,
    text: String,
    agent_offset: Option<u64>,
}

impl Step {
    pub(super) fn new(session_id: Arc<str>, provider: Arc<str>) -> Step {
        Step {
            session_id,
            provider,
            changes: Vec::new(),
            afterwards: Vec::new(),
            stdin: Vec::new(),
            agent_offset: None,
            delta: None,
            unparsed: 0,
            is_session_changed: false,
            is_visible: false,
            is_text_longer: false,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.delta.is_none() && self.stdin.is_empty()
    }

    /// Adds a change of the ledger, in order.
    pub(super) fn change(&mut self, change: impl Fn(&mut Tx<'_>) -> Result<()> + Send + 'static) {
        self.flush_delta();
        self.changes.push(Box::new(change));
    }

    /// Something to do once the step is committed (an answer to whoever waits); dropped when it is not.
    pub(super) fn afterwards(&mut self, action: impl FnOnce() + Send + 'static) {
        self.afterwards.push(Box::new(action));
    }

    /// Adds an event of this session. `payload` is JSON text of an object.
    pub(super) fn event(&mut self, kind: EventKind, turn_id: Option<Arc<str>>, payload: String) {
        self.is_visible = true;
        let append = self.append(kind, turn_id, payload);
        self.change(move |tx| append(tx).map(|_seq| ()));
    }

    /// A change that appends the event and returns its seq.
    pub(super) fn append(
        &self,
        kind: EventKind,
        turn_id: Option<Arc<str>>,
        payload: String,
    ) -> impl Fn(&mut Tx<'_>) -> Result<i64> + Send + use<> {
        let session_id = Arc::clone(&self.session_id);
        let provider = self.agent_offset.map(|offset| (Arc::clone(&self.provider), offset));
        move |tx| {
            let from = provider.as_ref().map(|(name, offset)| (&**name, offset_of(*offset)));
            let mut event = NewEvent::session(&session_id, kind, payload.as_str()).provider(from);
            event.turn_id = turn_id.as_deref();
            tx.append(event)
        }
    }

    /// Adds text to an item. Runs of deltas become one event; a long run becomes several of bounded size.
    pub(super) fn delta(
        &mut self,
        item_id: &Arc<str>,
        turn_id: &Arc<str>,
        field: DeltaField,
        text: &str,
    ) {
        self.is_text_longer = true;
        let is_same = self
            .delta
            .as_ref()
            .is_some_and(|delta| delta.item_id == *item_id && delta.field == field);
        if !is_same {
            self.flush_delta();
        }
        let mut rest = text;
        while !rest.is_empty() {
            let delta = self.delta.get_or_insert_with(|| Delta {
                item_id: Arc::clone(item_id),
                turn_id: Arc::clone(turn_id),
                field,
                text: String::new(),
                agent_offset: None,
            });
            let room = limits::DELTA_BYTES.saturating_sub(delta.text.len());
            let (now, later) = rest.split_at(rest.floor_char_boundary(room));
            delta.text.push_str(now);
            delta.agent_offset = self.agent_offset;
            rest = later;
            if !rest.is_empty() {
                self.flush_delta();
            }
        }
    }

    fn flush_delta(&mut self) {
        let Some(delta) = self.delta.take() else { return };
        let payload = json!({
            "item_id": &*delta.item_id,
            "field": delta.field.as_str(),
            "delta": delta.text,
        });
        let now = std::mem::replace(&mut self.agent_offset, delta.agent_offset);
        let append = self.append(EventKind::ItemDelta, Some(delta.turn_id), payload.to_string());
        self.agent_offset = now;
        self.changes.push(Box::new(move |tx| append(tx).map(|_seq| ())));
    }

    /// The parts, for the commit: changes, and what comes after it.
    pub(super) fn into_parts(mut self) -> (Vec<Change>, Vec<Afterwards>) {
        self.flush_delta();
        (self.changes, self.afterwards)
    }
}

/// Journal offsets are far below 2^63.
pub(super) fn offset_of(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}
