//! The record of each call of a tool, in the log of the session in whose name it is called.
//!
//! Runs on the thread of whoever calls, and on the main thread at the start. What changes nothing is told when it is
//! over. What changes something is told before it does, and kept as open until its end is told: so whatever a server
//! is killed in, the log has the call, and the next one ends it there with an outcome that is not known.

use super::tool::ToolError;
use super::{Gateway, Invocation};
use crate::error::Result;
use crate::ledger::Tx;
use crate::ledger::event::NewEvent;
use crate::ledger::to_json;
use crate::limits;
use crate::model::event::EventKind;
use crate::model::id;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// The error of a call in whose middle the server ended.
const UNKNOWN: &str = "outcome_unknown";

/// A call that goes on.
pub(super) struct Call {
    call_id: String,
    session_id: String,
    since: Instant,
    /// The fields of both events.
    told: Map<String, Value>,
    /// The turn in which it was told to have begun; None = that was not told.
    begun_in: Option<Option<String>>,
}

impl Call {
    pub(super) fn of(invocation: &Invocation) -> Call {
        let call_id = id::new("call");
        let told = json!({
            "call_id": call_id,
            "tool": bounded_text(&invocation.tool),
            "invocation_id": invocation.invocation_id.as_deref().map(bounded_text),
            "called_by": invocation.called_by.as_str(),
            "arguments": bounded(&invocation.arguments),
        });
        let Value::Object(told) = told else { unreachable!("it is written as an object") };
        let session_id = invocation.session_id.clone();
        Call { call_id, session_id, since: Instant::now(), told, begun_in: None }
    }
}

impl Gateway {
    /// Writes down that a call begins that may change something. Errors: among others, its session is over.
    pub(super) fn begin(&self, call: &mut Call) -> Result<()> {
        let (call_id, session_id) = (call.call_id.clone(), call.session_id.clone());
        let told = to_json(&call.told);
        let turn_id = self.ledger.write(move |tx| {
            // It may have waited in its line while the session was closed.
            tx.open_session_key(&session_id)?;
            let turn_id = tx.session(&session_id)?.active_turn_id;
            tx.insert_tool_call(&call_id, &session_id, turn_id.as_deref(), &told)?;
            tell(tx, EventKind::McpToolBegun, &session_id, turn_id.as_deref(), &told)?;
            Ok(turn_id)
        })?;
        call.begun_in = Some(turn_id);
        Ok(())
    }

    /// Writes the end of a call down and gives its envelope.
    pub(super) fn end(
        &self,
        call: Call,
        outcome: &std::result::Result<Value, ToolError>,
    ) -> Result<Value> {
        let envelope = match outcome {
            Ok(result) => json!({"ok": true, "result": result}),
            Err(error) => gg_mcp_server::failure(error.code.as_str(), &error.message),
        };
        let duration_ms = u64::try_from(call.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let ended = outcome.as_ref().map(bounded).map_err(|_| envelope["error"].clone());
        let told = ended_call(call.told, ended, Some(duration_ms));
        let (call_id, session_id, begun_in) = (call.call_id, call.session_id, call.begun_in);
        self.ledger.write(move |tx| {
            let turn_id = match &begun_in {
                Some(_) if !tx.delete_tool_call(&call_id)? => return Ok(()),
                Some(turn_id) => turn_id.clone(),
                None => tx.session(&session_id)?.active_turn_id,
            };
            let kind = EventKind::McpToolCalled;
            tell(tx, kind, &session_id, turn_id.as_deref(), &told)
        })?;
        Ok(envelope)
    }

    /// Ends in the log what the last server was killed in. Before anybody can call.
    pub fn recover(&self) -> Result<()> {
        self.ledger.write(|tx| {
            for call in tx.take_open_calls()? {
                let told = serde_json::from_str(&call.told).unwrap_or_default();
                let message = "the server ended while the tool was at work; what it has done is \
                    told where it was done";
                let error = gg_mcp_server::failure(UNKNOWN, message)["error"].take();
                let told = ended_call(told, Err(error), None);
                let (kind, turn_id) = (EventKind::McpToolCalled, call.turn_id.as_deref());
                tell(tx, kind, &call.session_id, turn_id, &told)?;
            }
            Ok(())
        })
    }
}

/// The payload of the end of a call whose beginning is `told`.
fn ended_call(
    mut told: Map<String, Value>,
    ended: std::result::Result<Value, Value>,
    duration_ms: Option<u64>,
) -> String {
    told.insert("is_error".to_owned(), json!(ended.is_err()));
    told.insert("result".to_owned(), json!(ended.as_ref().ok()));
    told.insert("error".to_owned(), json!(ended.err()));
    told.insert("duration_ms".to_owned(), json!(duration_ms));
    to_json(&told)
}

fn tell(
    tx: &mut Tx<'_>,
    kind: EventKind,
    session_id: &str,
    turn_id: Option<&str>,
    payload: &str,
) -> Result<()> {
    let mut event = NewEvent::session(session_id, kind, payload);
    event.turn_id = turn_id;
    tx.append(event)?;
    tx.touch_session(session_id)
}

/// A value as the log keeps it: whole, or the beginning of its JSON with its size.
fn bounded(value: &Value) -> Value {
    let text = value.to_string();
    if text.len() <= limits::TOOL_CALL_BYTES {
        return value.clone();
    }
    let kept = &text[..text.floor_char_boundary(limits::TOOL_CALL_BYTES)];
    json!({"cut": kept, "bytes": text.len()})
}

/// A name that a caller made up, as the log keeps it.
fn bounded_text(text: &str) -> &str {
    const TEXT_BYTES: usize = 256;
    &text[..text.floor_char_boundary(TEXT_BYTES)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_large_is_cut_for_the_log_and_says_how_large_it_was() {
        assert_eq!(bounded(&json!({"a": 1})), json!({"a": 1}));
        let large = json!("ü".repeat(limits::TOOL_CALL_BYTES));
        let kept = bounded(&large);
        assert_eq!(kept["bytes"], 2 * limits::TOOL_CALL_BYTES + 2);
        // A quote, then letters of two bytes.
        assert_eq!(kept["cut"].as_str().unwrap().len(), limits::TOOL_CALL_BYTES - 1);
        assert_eq!(bounded_text(&"x".repeat(1000)).len(), 256);
    }
}
