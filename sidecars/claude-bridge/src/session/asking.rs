//! The program's requests to us.
//!
//! Owns: the list of open questions. A request of an unknown kind is refused at once, so that the program never waits
//! for what nobody understands.

use super::{Session, tool};
use crate::ask::{Answer, Ask};
use crate::bridge::Out;
use crate::wire::{self, text};
use serde_json::{Value, json};

/// Questions that may be open at once; the program asks one by one.
const ASKS_MAX: usize = 64;

impl Session {
    pub(super) fn asked(&mut self, message: &Value, out: &mut Out) {
        let (id, request) = (text(message, "request_id"), &message["request"]);
        let kind = text(request, "subtype");
        if kind != "can_use_tool" {
            let why = format!("this client does not know {}", wire::cut(kind, 100));
            return out.claude(wire::control_refusal(id, &why));
        }
        if self.asks.len() >= ASKS_MAX {
            return out.claude(wire::control_refusal(id, "too many questions are open"));
        }
        if self.is_cancelling() {
            // It was asked before the program heard of the interrupt.
            let response = json!({"behavior": "deny", "message": "The user has interrupted."});
            return out.claude(wire::control_answer(id, response));
        }
        let (call, name) = (text(request, "tool_use_id"), text(request, "tool_name"));
        let input = &request["input"];
        if !self.shows(call) {
            let block = json!({"id": call, "name": name, "input": input});
            self.call(&block, "", out);
        }
        let mut shown = tool::tool_call(call, name, input);
        shown["status"] = json!("pending");
        let ask = Ask::new(id, request, shown, out);
        self.asks.push(ask);
    }

    /// Whether this number is that of a question of ours.
    pub(crate) fn asks(&self, number: i64) -> bool {
        self.asks.iter().any(|ask| ask.number() == number)
    }

    /// The client has answered.
    pub(crate) fn answered(&mut self, number: i64, answer: &Answer, out: &mut Out) {
        let Some(at) = self.asks.iter().position(|ask| ask.number() == number) else { return };
        let ask = self.asks.remove(at);
        self.asks.extend(ask.answered(answer, out));
    }

    /// The program does not wait for the answer any more.
    pub(super) fn withdraw(&mut self, request: &str, out: &mut Out) {
        if let Some(at) = self.asks.iter().position(|ask| ask.request() == request) {
            self.asks.remove(at).take_back(out);
        }
    }
}
