//! OpenAI Responses, as Codex speaks it.
//!
//! Owns: `POST …/responses`, with and without a stream, also in the form that Codex uses with its
//! newer models: the tools travel as an input item (`additional_tools`) instead of in the body, and
//! the only one that counts is `exec`, which runs a script; `script` writes that. Pure.
//! Deliberately keeps no state: `store` and `previous_response_id` are not followed, Codex sends
//! the whole conversation each time.

mod script;

use serde_json::{Value, json};

use super::{Question, items, parts, text_of, word};
use crate::conversation::{Conversation, Entry, Tool};
use crate::plan::{Act, Failure, Plan, Usage};
use crate::reply::{Ids, Reply, Step, break_off, event, slices, unix_seconds};
use crate::speech::{Beat, beats, pieces, text_of as speech_text, waits_of};
use crate::tool::{Call, Input};

/// The bytes of a call's input that one delta carries.
const INPUT_SLICE: usize = 40;
/// The namespace that stands for no namespace.
const PLAIN_NAMESPACE: &str = "functions";

/// Reads a request's body.
pub fn question(body: &Value) -> Question {
    let mut conversation =
        Conversation { system_bytes: word(body, "instructions").len(), ..Conversation::default() };
    items(&body["tools"]).iter().for_each(|tool| offer(&mut conversation, tool, None));
    if let Some(text) = body["input"].as_str() {
        conversation.say("user", text);
    }
    for item in items(&body["input"]) {
        read(&mut conversation, item);
    }
    if conversation.script_tool.is_some() {
        conversation.tools.splice(0..0, script::TOOLS.map(Tool::plain));
    }
    Question {
        conversation,
        model: word(body, "model").into(),
        stream: body["stream"].as_bool().unwrap_or(false),
        ..Question::default()
    }
}

fn read(conversation: &mut Conversation, item: &Value) {
    match item["type"].as_str().unwrap_or("message") {
        "message" => match word(item, "role") {
            "system" | "developer" => conversation.system_bytes += text_of(&item["content"]).len(),
            role => {
                for part in parts(&item["content"]) {
                    match word(part, "type") {
                        kind @ ("input_image" | "input_file") => {
                            conversation.say(role, format!("[{kind}]"));
                        }
                        _ => conversation.say(role, text_of(part)),
                    }
                }
            }
        },
        "additional_tools" => {
            items(&item["tools"]).iter().for_each(|tool| offer(conversation, tool, None));
        }
        kind if kind.ends_with("_call") => {
            let name = item["name"].as_str().unwrap_or(kind);
            conversation.entries.push(Entry::Call(name.into()));
        }
        kind if kind.ends_with("_call_output") => {
            conversation.entries.push(Entry::Output(text_of(&item["output"])));
        }
        _ => {}
    }
}

/// Takes a tool into the conversation, or the tools of a namespace.
fn offer(conversation: &mut Conversation, tool: &Value, namespace: Option<&str>) {
    let name = tool["name"].as_str().unwrap_or_else(|| word(tool, "type"));
    if tool["type"] == "namespace" {
        let inner = Some(name).filter(|name| *name != PLAIN_NAMESPACE);
        items(&tool["tools"]).iter().for_each(|tool| offer(conversation, tool, inner));
        return;
    }
    let offered = Tool { name: name.into(), namespace: namespace.map(str::to_owned) };
    if tool["type"] == "custom" && name == script::TOOL {
        conversation.script_tool = Some(offered);
    } else {
        conversation.tools.push(offered);
    }
}

/// Renders a plan.
pub fn reply(question: &Question, plan: &Plan, ids: &mut Ids) -> Reply {
    let broken = match plan.act {
        Act::Fail(Failure::Status(status)) => return failed(status, code_of_status(status)),
        Act::Fail(failure) if question.stream => Some(failure),
        Act::Fail(failure) => return failed(400, code_of(failure)),
        _ => None,
    };
    let head = json!({
        "id": ids.next("resp_mock_"), "object": "response", "created_at": unix_seconds(),
        "model": question.model, "error": null, "incomplete_details": null, "metadata": {},
        "parallel_tool_calls": true, "tool_choice": "auto", "tools": [],
    });
    let mut answer = Answer {
        head,
        steps: Vec::new(),
        events: 0,
        items: Vec::new(),
        usage: question.usage(plan),
    };
    answer.event("response.created", json!({ "response": answer.response("in_progress") }));
    if let Some(failure @ (Failure::Context | Failure::Failed)) = broken {
        let mut response = answer.response("failed");
        let code = code_of(failure);
        response["error"] = json!({ "code": code, "message": format!("mock: {code}") });
        answer.event("response.failed", json!({ "response": response }));
        return Reply::Stream(answer.steps);
    }
    if let Some(thought) = &plan.think {
        answer.think(thought, ids);
    }
    let speech = beats(&plan.act);
    match (&plan.act, broken) {
        (Act::Call(calls), _) => match script_of(question, calls) {
            Some(call) => answer.call(&call, ids),
            None => calls.iter().for_each(|call| answer.call(call, ids)),
        },
        (_, Some(failure)) => {
            answer.broken(failure, ids);
            return Reply::Stream(answer.steps);
        }
        _ => answer.speak(&speech, ids),
    }
    let response = answer.response("completed");
    if !question.stream {
        return Reply::Whole { status: 200, body: response, waits: waits_of(&speech) };
    }
    answer.event("response.completed", json!({ "response": response }));
    Reply::Stream(answer.steps)
}

/// The one call that carries `calls`, when these are for a script to make.
fn script_of(question: &Question, calls: &[Call]) -> Option<Call> {
    let tool = question.conversation.script_tool.clone()?;
    // The tools of scripts come first in the conversation, see `question`.
    let outside = &question.conversation.tools[script::TOOLS.len()..];
    if calls.iter().any(|call| outside.contains(&call.tool)) {
        return None;
    }
    Some(Call { tool, input: Input::Text(script::script(calls)) })
}

/// An answer while it is written: the events so far, and the items that are done.
struct Answer {
    head: Value,
    steps: Vec<Step>,
    events: u64,
    items: Vec<Value>,
    usage: Usage,
}

impl Answer {
    fn event(&mut self, kind: &str, mut data: Value) {
        data["type"] = json!(kind);
        data["sequence_number"] = json!(self.events);
        self.events += 1;
        self.steps.push(event(kind, &data));
    }

    /// An event of the item that is being written.
    fn item_event(&mut self, kind: &str, item: &Value, mut data: Value) {
        data["item_id"] = item["id"].clone();
        data["output_index"] = json!(self.items.len());
        self.event(kind, data);
    }

    fn begin(&mut self, item: &Value) {
        let data = json!({ "output_index": self.items.len(), "item": item });
        self.event("response.output_item.added", data);
    }

    fn end(&mut self, item: Value) {
        let data = json!({ "output_index": self.items.len(), "item": item });
        self.event("response.output_item.done", data);
        self.items.push(item);
    }

    fn response(&self, status: &str) -> Value {
        let mut response = self.head.clone();
        let is_done = status == "completed";
        let Usage { input, output } = self.usage;
        response["status"] = json!(status);
        response["output"] = if is_done { json!(self.items) } else { json!([]) };
        response["usage"] = match is_done {
            true => json!({
                "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
                "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 },
                "total_tokens": input + output,
            }),
            false => Value::Null,
        };
        response
    }

    fn think(&mut self, thought: &str, ids: &mut Ids) {
        let mut item = json!({
            "id": ids.next("rs_mock_"), "type": "reasoning", "summary": [],
            "encrypted_content": "bW9jaw==",
        });
        let part = |text: &str| json!({ "type": "summary_text", "text": text });
        let about = |member: &str, value: Value| {
            let mut data = json!({ "summary_index": 0 });
            data[member] = value;
            data
        };
        self.begin(&item);
        let kind = "response.reasoning_summary_part.added";
        self.item_event(kind, &item, about("part", part("")));
        for piece in pieces(thought) {
            let kind = "response.reasoning_summary_text.delta";
            self.item_event(kind, &item, about("delta", json!(piece)));
        }
        let kind = "response.reasoning_summary_text.done";
        self.item_event(kind, &item, about("text", json!(thought)));
        let kind = "response.reasoning_summary_part.done";
        self.item_event(kind, &item, about("part", part(thought)));
        item["summary"] = json!([part(thought)]);
        self.end(item);
    }

    fn call(&mut self, call: &Call, ids: &mut Ids) {
        let (id, kind, member, deltas, text) = match &call.input {
            Input::Text(text) => {
                ("ctc_mock_", "custom_tool_call", "input", "custom_tool_call_input", text.clone())
            }
            Input::Json(value) => {
                let deltas = "function_call_arguments";
                ("fc_mock_", "function_call", "arguments", deltas, value.to_string())
            }
        };
        let mut item = json!({
            "id": ids.next(id), "type": kind, "call_id": ids.next("call_mock_"),
            "name": call.tool.name, "status": "in_progress",
        });
        item[member] = json!("");
        if let Some(namespace) = &call.tool.namespace {
            item["namespace"] = json!(namespace);
        }
        self.begin(&item);
        for slice in slices(&text, INPUT_SLICE) {
            let data = json!({ "delta": slice });
            self.item_event(&format!("response.{deltas}.delta"), &item, data);
        }
        item[member] = json!(text);
        let mut data = json!({});
        data[member] = json!(text);
        self.item_event(&format!("response.{deltas}.done"), &item, data);
        item["status"] = json!("completed");
        self.end(item);
    }

    fn begin_message(&mut self, ids: &mut Ids) -> Value {
        let item = json!({
            "id": ids.next("msg_mock_"), "type": "message", "role": "assistant",
            "status": "in_progress", "content": [],
        });
        self.begin(&item);
        let data = json!({ "content_index": 0, "part": text_part("") });
        self.item_event("response.content_part.added", &item, data);
        item
    }

    fn text(&mut self, item: &Value, text: &str) {
        let data = json!({ "content_index": 0, "delta": text });
        self.item_event("response.output_text.delta", item, data);
    }

    fn speak(&mut self, speech: &[Beat], ids: &mut Ids) {
        let mut item = self.begin_message(ids);
        for beat in speech {
            match beat {
                Beat::Text(text) => self.text(&item, text),
                Beat::Wait(wait) => self.steps.push(Step::Wait(*wait)),
            }
        }
        let text = speech_text(speech);
        let data = json!({ "content_index": 0, "text": text });
        self.item_event("response.output_text.done", &item, data);
        let data = json!({ "content_index": 0, "part": text_part(&text) });
        self.item_event("response.content_part.done", &item, data);
        item["content"] = json!([text_part(&text)]);
        item["status"] = json!("completed");
        self.end(item);
    }

    fn broken(&mut self, failure: Failure, ids: &mut Ids) {
        let item = self.begin_message(ids);
        self.text(&item, "half an ");
        if failure == Failure::Drop {
            self.steps.extend(break_off());
        } else {
            let message = "mock: an error in the stream";
            let data = json!({ "code": "server_error", "message": message, "param": null });
            self.event("error", data);
        }
    }
}

fn text_part(text: &str) -> Value {
    json!({ "type": "output_text", "text": text, "annotations": [] })
}

fn code_of(failure: Failure) -> &'static str {
    match failure {
        Failure::Context => "context_length_exceeded",
        _ => "server_error",
    }
}

fn code_of_status(status: u16) -> &'static str {
    match status {
        401 => "invalid_api_key",
        429 => "rate_limit_exceeded",
        500.. => "server_error",
        _ => "invalid_request",
    }
}

fn failed(status: u16, code: &str) -> Reply {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let message = format!("mock: failure {status} ({code})");
    Reply::json(status, json!({ "error": { "type": kind, "code": code, "message": message } }))
}

#[cfg(test)]
mod tests;
