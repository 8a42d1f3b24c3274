//! The rules of the bridge to Claude, for any lines of its client and of the program.
//!
//! An input is a conversation: a line is one of the program's, but for those that begin with a mark. `>` is a line of
//! the client; `?` is an answer to the oldest control request that has none; `!l` lets the oldest alarm ring, `!e` ends
//! the program. The rules: no panic; each request of the client is answered once, and at the end none is without an
//! answer; the program is not started twice; what comes out grows no faster than what went in.

use claude_bridge::bridge::{Bridge, Effect};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const FREE_BYTES: usize = 512 * 1024;
const BYTES_PER_BYTE: usize = 64;

pub(crate) fn check(input: &[u8]) {
    let mut number = 0;
    let fresh_id = move || {
        number += 1;
        format!("id-{number}")
    };
    let mut client = Client {
        bridge: Bridge::new(input.len().is_multiple_of(2), Box::new(fresh_id)),
        controls: VecDeque::new(),
        alarms: VecDeque::new(),
        running: BTreeSet::new(),
        asked: BTreeMap::new(),
        taken: 0,
        given: 0,
    };
    for line in input.split(|byte| *byte == b'\n') {
        client.line(line);
    }
    client.act(Bridge::shut_down);
    for session in client.running.clone() {
        client.act(|bridge, effects| bridge.claude_ended(&session, " (signal 9)", effects));
        client.running.remove(&session);
    }
    client.asked.retain(|_, count| *count > 0);
    assert!(client.asked.is_empty(), "requests without an answer: {:?}", client.asked);
}

struct Client {
    bridge: Bridge,
    /// Control requests of the bridge that have no answer: session, id.
    controls: VecDeque<(String, String)>,
    alarms: VecDeque<(String, String)>,
    running: BTreeSet<String>,
    /// How many requests of this id have no answer.
    asked: BTreeMap<String, usize>,
    taken: usize,
    given: usize,
}

impl Client {
    fn line(&mut self, line: &[u8]) {
        self.taken += line.len() + 1;
        let Some((mark, rest)) = line.split_first() else { return };
        match (mark, rest) {
            (b'>', line) => self.client_line(line),
            (b'?', line) => {
                let Ok(mut response) = serde_json::from_slice::<Value>(line) else { return };
                let Some((session, id)) = self.controls.pop_front() else { return };
                if let Some(fields) = response.as_object_mut() {
                    fields.insert("request_id".to_owned(), json!(id));
                }
                let line = json!({"type": "control_response", "response": response}).to_string();
                self.act(|bridge, out| bridge.claude_line(&session, line.as_bytes(), out));
            }
            (b'!', b"l") => {
                let Some((session, key)) = self.alarms.pop_front() else { return };
                self.act(|bridge, effects| bridge.alarm(&session, &key, effects));
            }
            (b'!', b"e") => {
                let Some(session) = self.running.pop_first() else { return };
                self.controls.retain(|(other, _)| *other != session);
                self.act(|bridge, effects| {
                    bridge.claude_ended(&session, " (exit code 1)", effects)
                });
            }
            _ => {
                let Some(session) = self.running.first().cloned() else { return };
                self.act(|bridge, effects| bridge.claude_line(&session, line, effects));
            }
        }
    }

    fn client_line(&mut self, line: &[u8]) {
        if let Ok(Value::Object(message)) = serde_json::from_slice::<Value>(line)
            && message.get("method").is_some_and(Value::is_string)
            && let Some(id) = message.get("id").filter(|id| !id.is_null())
        {
            *self.asked.entry(id.to_string()).or_default() += 1;
        }
        self.act(|bridge, effects| bridge.client_line(line, effects));
    }

    fn act(&mut self, act: impl FnOnce(&mut Bridge, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.bridge, &mut effects);
        for effect in effects {
            self.take(effect);
        }
        let most = FREE_BYTES + BYTES_PER_BYTE * self.taken;
        assert!(self.given <= most, "{} bytes came out of {}", self.given, self.taken);
    }

    fn take(&mut self, effect: Effect) {
        match effect {
            Effect::Client(line) => {
                self.given += line.to_string().len();
                let is_answer = line["method"].is_null() && !line["id"].is_null();
                if is_answer {
                    let id = line["id"].to_string();
                    let count = self.asked.get_mut(&id).filter(|count| **count > 0);
                    *count.unwrap_or_else(|| panic!("{id} is answered and was not asked")) -= 1;
                }
            }
            Effect::Claude { session, line } => {
                self.given += line.to_string().len();
                if line["type"] == "control_request" {
                    let id = line["request_id"].as_str().expect("a control has an id");
                    self.controls.push_back((session, id.to_owned()));
                }
            }
            Effect::Start { session, .. } => {
                assert!(self.running.insert(session), "a program is started twice");
            }
            Effect::End { .. } => {}
            Effect::Alarm { session, key, .. } => self.alarms.push_back((session, key)),
        }
    }
}
