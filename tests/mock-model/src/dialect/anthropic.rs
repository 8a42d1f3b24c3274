//! Anthropic Messages, as Claude Code speaks it.
//!
//! Owns: `POST /v1/messages`, with and without a stream. Pure. Beside the directives it answers the
//! safety check of Claude Code's auto mode. Deliberately leaves out caching, images and citations:
//! an image counts as the word "[image]".

use serde_json::{Value, json};

use super::{Question, items, parts, text_of, word};
use crate::conversation::{Conversation, Entry, Tool};
use crate::plan::{Act, Failure, Plan, Usage};
use crate::reply::{Ids, Reply, Step, break_off, event, slices};
use crate::speech::{Beat, beats, pieces, text_of as speech_text, waits_of};

/// The bytes of a tool's input that one delta carries.
const INPUT_SLICE: usize = 20;
/// What a thinking block is signed with: base64 of "mock". Nobody but the vendor can check it.
const SIGNATURE: &str = "bW9jaw==";

/// Reads a request's body.
pub fn question(body: &Value) -> Question {
    let mut conversation = Conversation {
        tools: items(&body["tools"]).iter().map(tool).collect(),
        system_bytes: text_of(&body["system"]).len(),
        ..Conversation::default()
    };
    for message in items(&body["messages"]) {
        let role = word(message, "role");
        for part in parts(&message["content"]) {
            match (part, word(part, "type")) {
                (Value::String(text), _) => conversation.say(role, text),
                (_, "text") => conversation.say(role, word(part, "text")),
                (_, "tool_use") => {
                    conversation.entries.push(Entry::Call(word(part, "name").into()));
                }
                (_, "tool_result") => {
                    conversation.entries.push(Entry::Output(text_of(&part["content"])));
                }
                (_, kind @ ("image" | "document")) => conversation.say(role, format!("[{kind}]")),
                _ => {}
            }
        }
    }
    Question {
        conversation,
        model: word(body, "model").into(),
        stream: body["stream"].as_bool().unwrap_or(false),
        ..Question::default()
    }
}

fn tool(tool: &Value) -> Tool {
    Tool::plain(tool["name"].as_str().unwrap_or_else(|| word(tool, "type")))
}

/// Claude Code's auto mode asks a second model whether an action may run. The mock lets it, unless
/// the action has the word RISKY in it.
pub fn own_answer(question: &Question) -> Option<Plan> {
    let entries = &question.conversation.entries;
    let is_check = !question.stream
        && question.conversation.tools.is_empty()
        && matches!(entries.last(), Some(Entry::User(text)) if text.contains("<block>"));
    let is_risky = |entry: &Entry| matches!(entry, Entry::User(text) if text.contains("RISKY"));
    match is_check {
        false => None,
        true if entries.iter().any(is_risky) => Some(Plan::say(
            "<block>yes</block><category>Mock</category><reason>the word RISKY</reason>",
        )),
        true => Some(Plan::say("<block>no</block>")),
    }
}

/// Renders a plan.
pub fn reply(question: &Question, plan: &Plan, ids: &mut Ids) -> Reply {
    let broken = match plan.act {
        Act::Fail(Failure::Status(status)) => return failed(status, &format!("failure {status}")),
        Act::Fail(Failure::Context) => {
            return failed(400, "prompt is too long: 250000 tokens > 200000 maximum");
        }
        Act::Fail(failure) if question.stream => Some(failure),
        // There is no half of an answer that comes whole.
        Act::Fail(_) => return failed(529, "overloaded"),
        _ => None,
    };
    let usage = question.usage(plan);
    let message = json!({
        "id": ids.next("msg_mock_"), "type": "message", "role": "assistant",
        "model": question.model, "content": [], "stop_reason": null, "stop_sequence": null,
        "usage": figures(usage, 1),
    });
    match question.stream {
        true => Reply::Stream(stream(message, plan, broken, usage, ids)),
        false => whole(message, plan, usage, ids),
    }
}

fn whole(mut message: Value, plan: &Plan, usage: Usage, ids: &mut Ids) -> Reply {
    let speech = beats(&plan.act);
    message["content"] = match &plan.act {
        Act::Call(calls) => calls
            .iter()
            .map(|call| {
                json!({
                    "type": "tool_use", "id": ids.next("toolu_mock_"), "name": call.tool.name,
                    "input": call.input.object(),
                })
            })
            .collect(),
        _ => json!([{ "type": "text", "text": speech_text(&speech) }]),
    };
    message["stop_reason"] = json!(stop_reason(plan));
    message["usage"] = figures(usage, usage.output);
    Reply::Whole { status: 200, body: message, waits: waits_of(&speech) }
}

fn stream(
    message: Value,
    plan: &Plan,
    broken: Option<Failure>,
    usage: Usage,
    ids: &mut Ids,
) -> Vec<Step> {
    let mut blocks = Blocks { steps: Vec::new(), index: 0 };
    blocks
        .steps
        .push(event("message_start", &json!({ "type": "message_start", "message": message })));
    blocks.steps.push(event("ping", &json!({ "type": "ping" })));
    if let Some(thought) = &plan.think {
        blocks.start(json!({ "type": "thinking", "thinking": "", "signature": "" }));
        for piece in pieces(thought) {
            blocks.delta(json!({ "type": "thinking_delta", "thinking": piece }));
        }
        blocks.delta(json!({ "type": "signature_delta", "signature": SIGNATURE }));
        blocks.stop();
    }
    if let Act::Call(calls) = &plan.act {
        for call in calls {
            let id = ids.next("toolu_mock_");
            let name = &call.tool.name;
            blocks.start(json!({ "type": "tool_use", "id": id, "name": name, "input": {} }));
            for slice in slices(&call.input.object().to_string(), INPUT_SLICE) {
                blocks.delta(json!({ "type": "input_json_delta", "partial_json": slice }));
            }
            blocks.stop();
        }
    } else {
        blocks.start(json!({ "type": "text", "text": "" }));
        if let Some(failure) = broken {
            return blocks.broken(failure);
        }
        for beat in beats(&plan.act) {
            match beat {
                Beat::Text(text) => blocks.delta(json!({ "type": "text_delta", "text": text })),
                Beat::Wait(wait) => blocks.steps.push(Step::Wait(wait)),
            }
        }
        blocks.stop();
    }
    let delta = json!({ "stop_reason": stop_reason(plan), "stop_sequence": null });
    let usage = figures(usage, usage.output);
    let end = json!({ "type": "message_delta", "delta": delta, "usage": usage });
    blocks.steps.push(event("message_delta", &end));
    blocks.steps.push(event("message_stop", &json!({ "type": "message_stop" })));
    blocks.steps
}

/// The content blocks of a stream, one open at a time.
struct Blocks {
    steps: Vec<Step>,
    index: usize,
}

impl Blocks {
    fn start(&mut self, block: Value) {
        let index = self.index;
        let data = json!({ "type": "content_block_start", "index": index, "content_block": block });
        self.steps.push(event("content_block_start", &data));
    }

    fn delta(&mut self, delta: Value) {
        let data = json!({ "type": "content_block_delta", "index": self.index, "delta": delta });
        self.steps.push(event("content_block_delta", &data));
    }

    fn stop(&mut self) {
        let data = json!({ "type": "content_block_stop", "index": self.index });
        self.steps.push(event("content_block_stop", &data));
        self.index += 1;
    }

    fn broken(mut self, failure: Failure) -> Vec<Step> {
        self.delta(json!({ "type": "text_delta", "text": "half an " }));
        if failure == Failure::Drop {
            self.steps.extend(break_off());
        } else {
            self.steps.push(event("error", &error(529, "overloaded in the stream")));
        }
        self.steps
    }
}

fn figures(usage: Usage, output: u64) -> Value {
    json!({
        "input_tokens": usage.input, "output_tokens": output,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
    })
}

fn stop_reason(plan: &Plan) -> &'static str {
    match plan.act {
        Act::Call(_) => "tool_use",
        _ => "end_turn",
    }
}

fn failed(status: u16, message: &str) -> Reply {
    Reply::json(status, error(status, message))
}

fn error(status: u16, message: &str) -> Value {
    let kind = match status {
        400 => "invalid_request_error",
        401 => "authentication_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        529 => "overloaded_error",
        _ => "api_error",
    };
    json!({ "type": "error", "error": { "type": kind, "message": format!("mock: {message}") } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::plan::Memory;

    fn asked(text: &str, stream: bool) -> (Plan, Reply) {
        let body = json!({
            "model": "m", "stream": stream, "system": [{ "type": "text", "text": "sys" }],
            "tools": [{ "name": "Bash" }],
            "messages": [{ "role": "user", "content": [{ "type": "text", "text": text }] }],
        });
        let question = Dialect::Anthropic.question(&body, 400);
        Dialect::Anthropic.answer(&question, &mut Memory::default(), &mut Ids::fixed())
    }

    fn frames(reply: &Reply) -> String {
        let Reply::Stream(steps) = reply else { panic!("not a stream: {reply:?}") };
        let frame = |step: &Step| match step {
            Step::Frame(text) => text.clone(),
            other => format!("{other:?}\n"),
        };
        steps.iter().map(frame).collect()
    }

    #[test]
    fn a_request_is_read_block_by_block() {
        let body = json!({
            "messages": [
                { "role": "user", "content": "plain" },
                { "role": "assistant", "content": [
                    { "type": "text", "text": "said" },
                    { "type": "tool_use", "id": "t", "name": "Bash", "input": {} }] },
                { "role": "user", "content": [
                    { "type": "tool_result", "tool_use_id": "t",
                      "content": [{ "type": "text", "text": "out" }] },
                    { "type": "image", "source": {} }] },
            ],
        });
        let expected = [
            Entry::User("plain".into()),
            Entry::Assistant("said".into()),
            Entry::Call("Bash".into()),
            Entry::Output("out".into()),
            Entry::User("[image]".into()),
        ];
        assert_eq!(question(&body).conversation.entries, expected);
    }

    #[test]
    fn a_streamed_text_is_one_block_with_deltas() {
        let frames = frames(&asked("USAGE 7 3\nTHINK hm hm\nSAY hello there", true).1);
        let order = [
            "event: message_start",
            "\"thinking_delta\"",
            "\"signature_delta\"",
            "\"text\":\"hello \"",
            "\"text\":\"there\"",
            "\"stop_reason\":\"end_turn\"",
            "\"output_tokens\":3",
            "event: message_stop",
        ];
        let mut from = 0;
        for part in order {
            let at = frames[from..].find(part).unwrap_or_else(|| panic!("{part} in {frames}"));
            from += at;
        }
    }

    #[test]
    fn a_call_ends_with_tool_use_and_its_whole_input() {
        let Reply::Whole { body, .. } = asked("BASH ls -l", false).1 else { panic!("no body") };
        assert_eq!(body["stop_reason"], "tool_use");
        assert_eq!(body["content"][0]["input"]["command"], "ls -l");
        let streamed = frames(&asked("BASH ls -l", true).1);
        assert!(streamed.contains("input_json_delta") && streamed.contains("\"tool_use\""));
    }

    #[test]
    fn errors_have_the_vendors_kinds() {
        let status = |text: &str, stream| asked(text, stream).1.status();
        assert_eq!(status("FAIL 429", true), 429);
        assert_eq!(status("FAIL context", true), 400);
        assert_eq!(status("FAIL drop", false), 529);
        assert!(frames(&asked("FAIL stream", true).1).contains("overloaded_error"));
        assert!(frames(&asked("FAIL drop", true).1).ends_with("HangUp\n"));
    }

    #[test]
    fn the_safety_check_is_answered_by_itself() {
        let check = |text: &str| {
            let body = json!({ "messages": [{ "role": "user", "content": text }] });
            own_answer(&question(&body)).map(|plan| plan.act)
        };
        let say = |text: &str| Some(Act::Say(text.into()));
        assert_eq!(check("BASH rm x\nanswer <block>"), say("<block>no</block>"));
        assert!(matches!(check("RISKY <block>"), Some(Act::Say(t)) if t.contains("yes")));
        assert_eq!(check("SAY hello"), None);
    }
}
