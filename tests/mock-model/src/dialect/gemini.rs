//! Gemini, as Gemini CLI speaks it.
//!
//! Owns: `…/models/M:generateContent` and `:streamGenerateContent`. Pure. The model and the choice
//! of a stream stand in the path, so the server puts them into the question. Promises that the
//! CLI's questions to itself (they want JSON: which model, who speaks next) get the answer with
//! which it goes on as if unasked. Deliberately leaves out safety ratings and grounding.

use serde_json::{Value, json};

use super::{Question, items, text_of, word};
use crate::conversation::{Conversation, Entry, Tool};
use crate::plan::{Act, Failure, Plan};
use crate::reply::{Ids, Reply, Step, break_off, data, silence};
use crate::speech::{Beat, beats, text_of as speech_text, waits_of};

/// Reads a request's body.
pub fn question(body: &Value) -> Question {
    let declared = |tool: &'_ Value| -> Vec<Tool> {
        let list = tool.get("functionDeclarations").or_else(|| tool.get("function_declarations"));
        let name = |function: &Value| Tool::plain(word(function, "name"));
        items(list.unwrap_or(&Value::Null)).iter().map(name).collect()
    };
    let mut conversation = Conversation {
        tools: items(&body["tools"]).iter().flat_map(declared).collect(),
        system_bytes: text_of(&body["systemInstruction"]["parts"]).len(),
        ..Conversation::default()
    };
    for content in items(&body["contents"]) {
        for part in items(&content["parts"]) {
            if let Some(call) = part.get("functionCall") {
                conversation.entries.push(Entry::Call(word(call, "name").into()));
            } else if let Some(response) = part.get("functionResponse") {
                conversation.entries.push(Entry::Output(output(&response["response"])));
            } else if let (Some(text), None) = (part["text"].as_str(), part.get("thought")) {
                conversation.say(word(content, "role"), text);
            }
        }
    }
    let wants_json = body["generationConfig"]["responseMimeType"] == "application/json";
    Question { conversation, wants_json, ..Question::default() }
}

fn output(response: &Value) -> String {
    let told = response.get("output").or_else(|| response.get("error"));
    match told.and_then(Value::as_str) {
        Some(text) => text.to_owned(),
        None => response.to_string(),
    }
}

/// The answer to a question of the CLI to itself. One object holds what each of them looks for.
pub fn own_answer(question: &Question) -> Option<Plan> {
    let answer = json!({
        "reasoning": "mock", "next_speaker": "user", "model_choice": "flash",
        "complexity_reasoning": "mock", "complexity_score": 1,
    });
    question.wants_json.then(|| Plan::say(answer.to_string()))
}

/// Renders a plan.
pub fn reply(question: &Question, plan: &Plan, ids: &mut Ids) -> Reply {
    let broken = match plan.act {
        Act::Fail(Failure::Status(status)) => return Reply::json(status, error(status)),
        Act::Fail(Failure::Context) => return Reply::json(400, error(400)),
        Act::Fail(failure) if question.stream => Some(failure),
        Act::Fail(_) => return Reply::json(500, error(500)),
        _ => None,
    };
    let usage = question.usage(plan);
    let frame = json!({
        "modelVersion": question.model, "responseId": ids.next("mock-"),
        "usageMetadata": {
            "promptTokenCount": usage.input, "candidatesTokenCount": usage.output,
            "totalTokenCount": usage.input + usage.output,
        },
    });
    let speech = beats(&plan.act);
    if !question.stream {
        let parts = match &plan.act {
            Act::Call(_) => calls(plan, ids),
            _ => json!([{ "text": speech_text(&speech) }]),
        };
        let body = with(&frame, parts, Some("STOP"));
        return Reply::Whole { status: 200, body, waits: waits_of(&speech) };
    }
    let mut steps = Vec::new();
    if let Some(thought) = &plan.think {
        let part = json!([{ "text": thought, "thought": true }]);
        steps.push(data(&with(&frame, part, None)));
    }
    if let Some(failure) = broken {
        steps.push(data(&with(&frame, json!([{ "text": "half an " }]), None)));
        match failure {
            Failure::Drop => steps.extend(break_off()),
            // The CLI knows an error in the middle of a stream by its coming bare, not as an
            // event, and in a read of its own.
            _ => steps.extend([silence(), Step::Frame(error(500).to_string())]),
        }
        return Reply::Stream(steps);
    }
    for beat in speech {
        steps.push(match beat {
            Beat::Text(text) => data(&with(&frame, json!([{ "text": text }]), None)),
            Beat::Wait(wait) => Step::Wait(wait),
        });
    }
    let last = match &plan.act {
        Act::Call(_) => calls(plan, ids),
        _ => json!([{ "text": "" }]),
    };
    steps.push(data(&with(&frame, last, Some("STOP"))));
    Reply::Stream(steps)
}

fn calls(plan: &Plan, ids: &mut Ids) -> Value {
    let Act::Call(calls) = &plan.act else { return json!([]) };
    let part = |call: &crate::tool::Call| {
        let id = ids.next("call_mock_");
        let args = call.input.object();
        json!({ "functionCall": { "id": id, "name": call.tool.name, "args": args } })
    };
    calls.iter().map(part).collect()
}

fn with(frame: &Value, parts: Value, finish_reason: Option<&str>) -> Value {
    let mut candidate = json!({ "index": 0, "content": { "role": "model", "parts": parts } });
    if let Some(reason) = finish_reason {
        candidate["finishReason"] = json!(reason);
    }
    let mut body = frame.clone();
    body["candidates"] = json!([candidate]);
    body
}

fn error(status: u16) -> Value {
    let word = match status {
        400 => "INVALID_ARGUMENT",
        401 => "UNAUTHENTICATED",
        403 => "PERMISSION_DENIED",
        404 => "NOT_FOUND",
        429 => "RESOURCE_EXHAUSTED",
        503 => "UNAVAILABLE",
        _ => "INTERNAL",
    };
    let message = format!("mock: failure {status}");
    json!({ "error": { "code": status, "status": word, "message": message } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Dialect;
    use crate::plan::Memory;

    fn asked(text: &str, stream: bool) -> Reply {
        let body = json!({
            "tools": [{ "functionDeclarations": [{ "name": "run_shell_command" }] }],
            "contents": [{ "role": "user", "parts": [{ "text": text }] }],
        });
        let mut question = Dialect::Gemini.question(&body, 400);
        question.stream = stream;
        Dialect::Gemini.answer(&question, &mut Memory::default(), &mut Ids::fixed()).1
    }

    #[test]
    fn a_request_is_read_part_by_part() {
        let body = json!({ "contents": [
            { "role": "user", "parts": [{ "text": "ask" }] },
            { "role": "model", "parts": [
                { "text": "thinking", "thought": true }, { "text": "said" },
                { "functionCall": { "name": "read_file", "args": {} } }] },
            { "role": "user", "parts": [
                { "functionResponse": { "response": { "output": "out" } } },
                { "functionResponse": { "response": { "other": 1 } } }] },
        ] });
        let expected = [
            Entry::User("ask".into()),
            Entry::Assistant("said".into()),
            Entry::Call("read_file".into()),
            Entry::Output("out".into()),
            Entry::Output("{\"other\":1}".into()),
        ];
        assert_eq!(question(&body).conversation.entries, expected);
    }

    #[test]
    fn a_stream_ends_with_stop_and_carries_thought_and_figures() {
        let Reply::Stream(steps) = asked("USAGE 7 3\nTHINK hm\nSAY hello there", true) else {
            panic!("not a stream")
        };
        let frames: Vec<Value> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Frame(text) => serde_json::from_str(text.strip_prefix("data: ")?).ok(),
                _ => None,
            })
            .collect();
        assert_eq!(frames[0]["candidates"][0]["content"]["parts"][0]["thought"], true);
        assert_eq!(frames[1]["candidates"][0]["content"]["parts"][0]["text"], "hello ");
        let last = frames.last().unwrap();
        assert_eq!(last["candidates"][0]["finishReason"], "STOP");
        assert_eq!(last["usageMetadata"]["totalTokenCount"], 10);
    }

    #[test]
    fn a_call_is_a_part() {
        let Reply::Whole { body, .. } = asked("BASH ls", false) else { panic!("no body") };
        let call = &body["candidates"][0]["content"]["parts"][0]["functionCall"];
        assert_eq!(call["name"], "run_shell_command");
        assert_eq!(call["args"]["command"], "ls");
    }

    #[test]
    fn a_question_of_the_cli_to_itself_is_not_the_users() {
        let body = json!({
            "generationConfig": { "responseMimeType": "application/json" },
            "contents": [{ "role": "user", "parts": [{ "text": "FAIL 500" }] }],
        });
        let question = Dialect::Gemini.question(&body, 1);
        let (_, reply) =
            Dialect::Gemini.answer(&question, &mut Memory::default(), &mut Ids::fixed());
        let Reply::Whole { status: 200, body, .. } = reply else { panic!("failed") };
        let text = body["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap();
        assert!(text.contains("\"next_speaker\":\"user\""), "{text}");
    }

    #[test]
    fn errors_have_the_vendors_words() {
        let Reply::Whole { status: 429, body, .. } = asked("FAIL 429", true) else {
            panic!("no 429")
        };
        assert_eq!(body["error"]["status"], "RESOURCE_EXHAUSTED");
        assert_eq!(asked("FAIL context", true).status(), 400);
        let Reply::Stream(steps) = asked("FAIL stream", true) else { panic!("no stream") };
        let Some(Step::Frame(bare)) = steps.last() else { panic!("no frame: {steps:?}") };
        assert!(bare.starts_with("{\"error\""), "{bare}");
        let Reply::Stream(steps) = asked("FAIL drop", true) else { panic!("no stream") };
        assert_eq!(steps.last(), Some(&Step::HangUp));
    }
}
