//! Tool calls.
//!
//! Owns: the calls that run, from the block that announces one to its result. A list of tasks (`TodoWrite`) is a plan,
//! not a call. Calls of a sub-agent are shown like others, with the call that they belong to beside them.

use super::Session;
use crate::bridge::Out;
use crate::describe;
use crate::wire::{list, text};
use serde_json::{Value, json};

/// Calls that may run at once; the oldest is given up for one more.
const CALLS_MAX: usize = 512;

#[derive(Debug)]
struct Call {
    id: String,
    name: String,
}

#[derive(Debug, Default)]
pub(super) struct Calls {
    open: Vec<Call>,
}

impl Calls {
    /// Ends what is open, because nothing will be told of it any more.
    pub(super) fn fail_all(&mut self, out: &mut Out) {
        for call in std::mem::take(&mut self.open) {
            if call.name != TASKS {
                out.update(json!({"sessionUpdate": "tool_call_update", "toolCallId": call.id,
                    "status": "failed"}));
            }
        }
    }
}

/// The tool whose input is the whole plan.
const TASKS: &str = "TodoWrite";

impl Session {
    /// The model calls a tool.
    pub(super) fn call(&mut self, block: &Value, parent: &str, out: &mut Out) {
        let (id, name) = (text(block, "id"), text(block, "name"));
        if id.is_empty() || self.calls.open.iter().any(|call| call.id == id) {
            return;
        }
        self.is_busy = true;
        if self.calls.open.len() >= CALLS_MAX {
            self.calls.open.remove(0);
        }
        self.calls.open.push(Call { id: id.to_owned(), name: name.to_owned() });
        if name == TASKS {
            if parent.is_empty() {
                out.update(plan(&block["input"]));
            }
            return;
        }
        let mut update = tool_call(id, name, &block["input"]);
        update["sessionUpdate"] = json!("tool_call");
        update["status"] = json!("pending");
        if !parent.is_empty() {
            update["_meta"]["claudeCode"]["parentToolUseId"] = json!(parent);
        }
        out.update(update);
    }

    /// Whether the call was shown already.
    pub(super) fn shows(&self, id: &str) -> bool {
        self.calls.open.iter().any(|call| call.id == id)
    }

    /// A call has its result.
    pub(super) fn call_over(&mut self, block: &Value, told: &Value, out: &mut Out) {
        let id = text(block, "tool_use_id");
        let Some(at) = self.calls.open.iter().position(|call| call.id == id) else { return };
        let call = self.calls.open.remove(at);
        if call.name == TASKS {
            return;
        }
        let mut update = describe::outcome(&call.name, block, told);
        update.insert("sessionUpdate".to_owned(), json!("tool_call_update"));
        update.insert("toolCallId".to_owned(), json!(id));
        out.update(Value::Object(update));
    }

    /// A message that the program writes on the user's side: results of tools, and words of its own.
    pub(super) fn user(&mut self, message: &Value, out: &mut Out) {
        let told = &message["tool_use_result"];
        for block in list(&message["message"], "content") {
            if text(block, "type") == "tool_result" {
                self.call_over(block, told, out);
            }
        }
    }
}

/// The fields of a call that do not change.
pub(super) fn tool_call(id: &str, name: &str, input: &Value) -> Value {
    let shape = describe::call(name, input);
    json!({
        "toolCallId": id, "title": shape.title, "kind": shape.kind, "rawInput": input,
        "content": shape.content, "locations": shape.locations,
        "_meta": {"claudeCode": {"toolName": name}},
    })
}

fn plan(input: &Value) -> Value {
    let entries: Vec<Value> = list(input, "todos")
        .iter()
        .map(|todo| {
            let status = match text(todo, "status") {
                status @ ("in_progress" | "completed") => status,
                _ => "pending",
            };
            json!({"content": text(todo, "content"), "priority": "medium", "status": status})
        })
        .collect();
    json!({"sessionUpdate": "plan", "entries": entries})
}
