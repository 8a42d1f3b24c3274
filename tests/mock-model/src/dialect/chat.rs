//! OpenAI chat completions, as OpenCode speaks it to a compatible provider.
//!
//! Owns: `POST …/chat/completions`, with and without a stream. Pure. Reasoning goes out as
//! `reasoning_content`, which is what compatible providers do. Deliberately leaves out `n`, log
//! probabilities and the old function calls.

use serde_json::{Value, json};

use super::{Question, items, parts, text_of, word};
use crate::conversation::{Conversation, Entry, Tool};
use crate::plan::{Act, Failure, Plan};
use crate::reply::{Ids, Reply, Step, break_off, data, slices, unix_seconds};
use crate::speech::{Beat, beats, pieces, text_of as speech_text, waits_of};

/// The bytes of a call's arguments that one delta carries.
const INPUT_SLICE: usize = 20;

/// Reads a request's body.
pub fn question(body: &Value) -> Question {
    let mut conversation = Conversation {
        tools: items(&body["tools"]).iter().map(tool).collect(),
        ..Conversation::default()
    };
    for message in items(&body["messages"]) {
        match word(message, "role") {
            "system" | "developer" => {
                conversation.system_bytes += text_of(&message["content"]).len();
            }
            "tool" => conversation.entries.push(Entry::Output(text_of(&message["content"]))),
            role => {
                for part in parts(&message["content"]) {
                    conversation.say(role, text_of(part));
                }
                for call in items(&message["tool_calls"]) {
                    let name = word(&call["function"], "name");
                    conversation.entries.push(Entry::Call(name.into()));
                }
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
    Tool::plain(tool["function"]["name"].as_str().unwrap_or_else(|| word(tool, "type")))
}

/// Renders a plan.
pub fn reply(question: &Question, plan: &Plan, ids: &mut Ids) -> Reply {
    let broken = match plan.act {
        Act::Fail(Failure::Status(status)) => return failed(status, None),
        Act::Fail(Failure::Context) => return failed(400, Some("context_length_exceeded")),
        Act::Fail(failure) if question.stream => Some(failure),
        Act::Fail(_) => return failed(500, None),
        _ => None,
    };
    let head = json!({
        "id": ids.next("chatcmpl-mock"), "created": unix_seconds(), "model": question.model,
    });
    let usage = question.usage(plan);
    let usage = json!({
        "prompt_tokens": usage.input, "completion_tokens": usage.output,
        "total_tokens": usage.input + usage.output,
    });
    match question.stream {
        true => Reply::Stream(stream(&head, plan, broken, usage, ids)),
        false => whole(head, plan, usage, ids),
    }
}

fn whole(mut body: Value, plan: &Plan, usage: Value, ids: &mut Ids) -> Reply {
    let speech = beats(&plan.act);
    let mut message = json!({ "role": "assistant", "content": null });
    if let Act::Call(calls) = &plan.act {
        message["tool_calls"] = calls
            .iter()
            .map(|call| {
                let arguments = call.input.object().to_string();
                json!({
                    "id": ids.next("call_mock_"), "type": "function",
                    "function": { "name": call.tool.name, "arguments": arguments },
                })
            })
            .collect();
    } else {
        message["content"] = json!(speech_text(&speech));
    }
    let choice = json!({ "index": 0, "message": message, "finish_reason": finish_reason(plan) });
    body["object"] = json!("chat.completion");
    body["choices"] = json!([choice]);
    body["usage"] = usage;
    Reply::Whole { status: 200, body, waits: waits_of(&speech) }
}

fn stream(
    head: &Value,
    plan: &Plan,
    broken: Option<Failure>,
    usage: Value,
    ids: &mut Ids,
) -> Vec<Step> {
    let delta =
        |delta: Value| chunk(head, json!([{ "index": 0, "delta": delta, "finish_reason": null }]));
    let mut steps = vec![delta(json!({ "role": "assistant", "content": "" }))];
    for piece in plan.think.iter().flat_map(|thought| pieces(thought)) {
        steps.push(delta(json!({ "reasoning_content": piece })));
    }
    if let Some(failure) = broken {
        steps.push(delta(json!({ "content": "half an " })));
        match failure {
            Failure::Drop => steps.extend(break_off()),
            _ => steps.push(data(&error(500, None))),
        }
        return steps;
    }
    if let Act::Call(calls) = &plan.act {
        for (index, call) in calls.iter().enumerate() {
            let function = json!({ "name": call.tool.name, "arguments": "" });
            steps.push(delta(json!({ "tool_calls": [{
                "index": index, "id": ids.next("call_mock_"), "type": "function",
                "function": function,
            }] })));
            for slice in slices(&call.input.object().to_string(), INPUT_SLICE) {
                let function = json!({ "arguments": slice });
                let part = json!([{ "index": index, "function": function }]);
                steps.push(delta(json!({ "tool_calls": part })));
            }
        }
    }
    for beat in beats(&plan.act) {
        steps.push(match beat {
            Beat::Text(text) => delta(json!({ "content": text })),
            Beat::Wait(wait) => Step::Wait(wait),
        });
    }
    let last = json!([{ "index": 0, "delta": {}, "finish_reason": finish_reason(plan) }]);
    steps.push(chunk(head, last));
    let mut figures = chunk_body(head, json!([]));
    figures["usage"] = usage;
    steps.push(data(&figures));
    steps.push(Step::Frame("data: [DONE]\n\n".into()));
    steps
}

fn chunk(head: &Value, choices: Value) -> Step {
    data(&chunk_body(head, choices))
}

fn chunk_body(head: &Value, choices: Value) -> Value {
    let mut body = head.clone();
    body["object"] = json!("chat.completion.chunk");
    body["choices"] = choices;
    body
}

fn finish_reason(plan: &Plan) -> &'static str {
    match plan.act {
        Act::Call(_) => "tool_calls",
        _ => "stop",
    }
}

fn failed(status: u16, code: Option<&str>) -> Reply {
    Reply::json(status, error(status, code))
}

fn error(status: u16, code: Option<&str>) -> Value {
    let kind = if status < 500 { "invalid_request_error" } else { "server_error" };
    let message = format!("mock: failure {}", code.map_or(status.to_string(), str::to_owned));
    json!({ "error": { "type": kind, "code": code, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::plan::Memory;

    fn asked(text: &str, stream: bool) -> Reply {
        let body = json!({
            "model": "m", "stream": stream,
            "tools": [{ "type": "function", "function": { "name": "bash" } }],
            "messages": [
                { "role": "system", "content": "sys" }, { "role": "user", "content": text }],
        });
        let question = Dialect::Chat.question(&body, 400);
        Dialect::Chat.answer(&question, &mut Memory::default(), &mut Ids::fixed()).1
    }

    fn chunks(reply: &Reply) -> Vec<Value> {
        let Reply::Stream(steps) = reply else { panic!("not a stream: {reply:?}") };
        let chunk = |step: &Step| match step {
            Step::Frame(text) => serde_json::from_str(text.strip_prefix("data: ")?).ok(),
            _ => None,
        };
        steps.iter().filter_map(chunk).collect()
    }

    #[test]
    fn a_request_is_read_message_by_message() {
        let body = json!({ "messages": [
            { "role": "system", "content": "four" },
            { "role": "user", "content": [{ "type": "text", "text": "ask" }] },
            { "role": "assistant", "content": null,
              "tool_calls": [{ "id": "c", "function": { "name": "bash", "arguments": "{}" } }] },
            { "role": "tool", "tool_call_id": "c", "content": "out" },
        ] });
        let conversation = question(&body).conversation;
        let expected =
            [Entry::User("ask".into()), Entry::Call("bash".into()), Entry::Output("out".into())];
        assert_eq!(conversation.entries, expected);
        assert_eq!(conversation.system_bytes, 4);
    }

    #[test]
    fn a_stream_ends_with_its_reason_its_figures_and_done() {
        let reply = asked("USAGE 7 3\nSAY hello there", true);
        let chunks = chunks(&reply);
        let text: String =
            chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, "hello there");
        let [.., reason, figures] = chunks.as_slice() else { panic!("too short") };
        assert_eq!(reason["choices"][0]["finish_reason"], "stop");
        assert_eq!(figures["usage"]["total_tokens"], 10);
        let Reply::Stream(steps) = reply else { panic!("not a stream") };
        assert_eq!(steps.last(), Some(&Step::Frame("data: [DONE]\n\n".into())));
    }

    #[test]
    fn the_slices_of_a_call_are_its_arguments() {
        let chunks = chunks(&asked("PAR one one one one ;; two", true));
        let arguments = |index: u64| -> Value {
            let calls = chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]);
            let text: String = calls
                .filter(|call| call["index"] == index)
                .filter_map(|call| call["function"]["arguments"].as_str())
                .collect();
            serde_json::from_str(&text).unwrap()
        };
        assert_eq!(arguments(0)["command"], "one one one one");
        assert_eq!(arguments(1)["command"], "two");
    }

    #[test]
    fn errors_come_as_status_or_in_the_stream() {
        assert_eq!(asked("FAIL 401", true).status(), 401);
        assert_eq!(asked("FAIL context", false).status(), 400);
        assert_eq!(asked("FAIL drop", false).status(), 500);
        let broken = chunks(&asked("FAIL stream", true));
        assert_eq!(broken.last().unwrap()["error"]["type"], "server_error");
    }
}
