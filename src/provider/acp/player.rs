//! Plays one process of a recording against an adapter, for the tests in `replay`.
//!
//! A recording is the stdio of one agent, driven by a program of its own: its `in` lines are that
//! program's requests, with its ids. The adapter makes requests of its own, so a [`Player`] walks
//! the recording, turns each `in` line into the command that has the same meaning, and gives the
//! recorded answers the adapter's ids. What it does beyond pairing:
//!
//! - a setting that the recorded program set before its first prompt becomes part of the open,
//!   later ones of the next turn; the recorded answer to the same request is given when the adapter
//!   asks for it;
//! - where the recording loads a session, the agent is made to offer no resume, since the adapter
//!   would prefer it;
//! - `_gooselake/sync` is answered with "no such method", as all five agents answer it, behind the
//!   replay;
//! - requests that the adapter never makes (`session/list`, `providers/set`, …) are left out with
//!   their answers.

use super::Acp;
use crate::model::input::Input;
use crate::provider::transcript::Transcript;
use crate::provider::{Adapter, AgentEvent, Answer, Command, Effects, HostError, Open};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Walks one process of a recording with one adapter.
pub(super) struct Player<'a> {
    acp: Acp,
    /// Puts a fresh adapter, restored from the snapshot, in the place of the old one after each
    /// step.
    is_restoring: bool,
    transcript: &'a mut Transcript,
    lines: Vec<Value>,
    /// Requests of the adapter that have no recorded answer yet: method, value of a setting, id.
    asked: VecDeque<(String, String, Value)>,
    /// Recorded id -> the adapter's, or None for a request that the adapter does not make.
    ids: BTreeMap<String, Option<Value>>,
    /// Recorded requests for a setting: their id -> method and value.
    settings: BTreeMap<String, (String, String)>,
    /// Recorded answers to settings that the adapter has not asked for yet.
    answers: Vec<(String, String, Value)>,
    /// The agent's request id -> the adapter's key of the approval or the errand.
    keys: BTreeMap<String, String>,
    /// The mode and model that the next turn wants.
    wanted: (Option<String>, Option<String>),
    is_failed: bool,
}

impl<'a> Player<'a> {
    pub(super) fn new(
        lines: &[Value],
        is_restoring: bool,
        transcript: &'a mut Transcript,
    ) -> Player<'a> {
        Player {
            acp: Acp::new(),
            is_restoring,
            transcript,
            lines: lines.to_vec(),
            asked: VecDeque::new(),
            ids: BTreeMap::new(),
            settings: BTreeMap::new(),
            answers: Vec::new(),
            keys: BTreeMap::new(),
            wanted: (None, None),
            is_failed: false,
        }
    }

    fn step(&mut self, act: impl FnOnce(&mut Acp, &mut Effects)) -> Vec<AgentEvent> {
        let mut out = Effects::default();
        act(&mut self.acp, &mut out);
        if self.is_restoring {
            let text = self.acp.snapshot();
            let snapshot = serde_json::from_str(&text).expect("a snapshot is JSON");
            self.acp = Acp::restore(&snapshot).expect("a snapshot restores").0;
        }
        for sent in self.transcript.took(&out) {
            if let (Some(method), Some(id)) = (sent["method"].as_str(), sent.get("id")) {
                let value = setting_value(&sent).unwrap_or_default();
                self.asked.push_back((method.to_owned(), value, id.clone()));
            }
        }
        self.is_failed |= out.events.iter().any(|e| matches!(e, AgentEvent::OpenFailed { .. }));
        out.events
    }

    fn feed(&mut self, line: &str) -> Vec<AgentEvent> {
        self.step(|acp, out| acp.line(line.as_bytes(), out))
    }

    pub(super) fn play(&mut self) {
        for at in 0..self.lines.len() {
            if self.is_failed {
                return;
            }
            let record = self.lines[at].clone();
            let message = &record["msg"];
            match record["dir"].as_str() {
                Some("in") if message["method"].is_string() => self.request(at, message),
                Some("in") => self.answer(message),
                Some("out") => self.told(message, record["raw"].as_str().unwrap_or_default()),
                _ => {}
            }
            self.settle();
        }
    }

    /// Answers the requests for settings whose answer came earlier in the recording.
    fn settle(&mut self) {
        while let Some((method, value, id)) = self.asked.front().cloned() {
            let known = self.answers.iter().position(|(m, v, _)| *m == method && *v == value);
            let Some(known) = known else { return };
            let mut answer = self.answers.remove(known).2;
            answer["id"] = id;
            self.asked.pop_front();
            self.feed(&answer.to_string());
        }
    }

    /// A request or notification of the recorded program.
    fn request(&mut self, at: usize, message: &Value) {
        let method = message["method"].as_str().unwrap_or_default();
        let id = message["id"].to_string();
        if let Some(front) = self.asked.front().filter(|(asked, ..)| asked == "_gooselake/sync") {
            let error = json!({"code": -32601, "message": "Method not found"});
            let answer = json!({"jsonrpc": "2.0", "id": front.2, "error": error});
            self.asked.pop_front();
            self.feed(&answer.to_string());
        }
        match method {
            "initialize" => {
                let Some(open) = self.open(at, message) else {
                    self.is_failed = true;
                    return;
                };
                writeln!(self.transcript.text, "= open {}", json!(open)).unwrap();
                self.step(|acp, out| acp.open(&open, out));
            }
            "session/prompt" => self.start_turn(message),
            "session/cancel" => {
                self.transcript.text.push_str("= interrupt\n");
                self.step(|acp, out| acp.command(Command::Interrupt, out));
            }
            _ => {}
        }
        let paired = self.asked.iter().position(|(asked, ..)| asked == method);
        if let Some(value) = setting_value(message) {
            self.want(at, method, &value);
            self.settings.insert(id, (method.to_owned(), value));
        } else {
            let own = paired.and_then(|at| self.asked.remove(at)).map(|(.., id)| id);
            self.ids.insert(id, own);
        }
    }

    /// What the recorded program opens with this `initialize`; None when it opens nothing.
    fn open(&self, at: usize, initialize: &Value) -> Option<Open> {
        let rest = &self.lines[at..];
        let sent = |record: &&Value| record["dir"] == "in";
        let mut requests = rest.iter().filter(sent).map(|record| &record["msg"]);
        let session = requests.find(|message| {
            ["session/new", "session/load", "session/resume"]
                .iter()
                .any(|m| message["method"] == *m)
        })?;
        let params = &session["params"];
        let can = &initialize["params"]["clientCapabilities"];
        let mode = requests
            .take_while(|message| message["method"] != "session/prompt")
            .find(|message| message["method"] == "session/set_mode")
            .and_then(setting_value);
        Some(Open {
            cwd: params["cwd"].as_str().unwrap_or_default().to_owned(),
            mode,
            mcp_servers: params["mcpServers"].as_array().cloned().unwrap_or_default(),
            resume: params["sessionId"].as_str().map(str::to_owned),
            client_fs: can["fs"]["readTextFile"] == true,
            client_terminal: can["terminal"] == true,
            ..Open::default()
        })
    }

    /// A setting: the first mode went into the open, the rest is for the next turn.
    fn want(&mut self, at: usize, method: &str, value: &str) {
        let is_first = self.lines[..at].iter().all(|r| r["msg"]["method"] != "session/set_mode");
        // The adapter would ask for nonsense too; the recorded answers would then not fit any more.
        if value == "nonsense" || method == "session/set_mode" && is_first {
            return;
        }
        if method == "session/set_mode" {
            self.wanted.0 = Some(value.to_owned());
        } else {
            self.wanted.1 = Some(value.to_owned());
        }
    }

    fn start_turn(&mut self, message: &Value) {
        let input: Vec<Input> = message["params"]["prompt"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|block| {
                let string = |field: &str| block[field].as_str().unwrap_or_default().to_owned();
                if block["type"] == "image" {
                    Input::Image { data: string("data"), media_type: string("mimeType") }
                } else {
                    Input::Text { text: string("text") }
                }
            })
            .collect();
        let (mode, model) = std::mem::take(&mut self.wanted);
        writeln!(self.transcript.text, "= start turn {}", json!(input)).unwrap();
        let turn_id = "turn_1".to_owned();
        let (reasoning_level, permission_mode) = (None, None);
        let start =
            Command::StartTurn { turn_id, input, model, mode, reasoning_level, permission_mode };
        self.step(|acp, out| acp.command(start, out));
        self.settle();
    }

    /// The recorded program answers a request of the agent.
    fn answer(&mut self, message: &Value) {
        let Some(key) = self.keys.remove(&message["id"].to_string()) else { return };
        let outcome = &message["result"]["outcome"];
        let command = if key.starts_with("ask") {
            let answer = match outcome["optionId"].as_str() {
                Some(id) => {
                    Answer::Option { option_id: id.to_owned(), message: None, payload: None }
                }
                None => Answer::Cancelled,
            };
            Command::Answer { key, answer }
        } else {
            let error = &message["error"];
            let answer = match message.get("result") {
                Some(result) => Ok(result.clone()),
                None => Err(HostError {
                    code: error["code"].as_i64().unwrap_or_default(),
                    message: error["message"].as_str().unwrap_or_default().to_owned(),
                }),
            };
            Command::HostAnswer { key, answer }
        };
        writeln!(self.transcript.text, "= {command:?}").unwrap();
        self.step(|acp, out| acp.command(command, out));
    }

    /// A line of the agent.
    fn told(&mut self, message: &Value, raw: &str) {
        let mut message = message.clone();
        let mut line = raw.to_owned();
        let id = message["id"].to_string();
        if message["method"].is_null() {
            if let Some((method, value)) = self.settings.remove(&id) {
                // Given to the adapter when it asks for the same; `settle` does that at once if it
                // has.
                self.answers.push((method, value, message));
                return;
            }
            let Some(own) = self.ids.remove(&id).flatten() else { return };
            message["id"] = own;
            let loads = self.lines.iter().any(|r| r["msg"]["method"] == "session/load");
            let can = &mut message["result"]["agentCapabilities"]["sessionCapabilities"];
            if let Some(can) = can.as_object_mut().filter(|_| loads) {
                can.remove("resume");
            }
            line = message.to_string();
        }
        for event in self.feed(&line) {
            if let AgentEvent::ApprovalAsked { key, .. } | AgentEvent::Host { key, .. } = event {
                self.keys.insert(id.clone(), key);
            }
        }
    }
}

/// The value in a request for a setting of ours.
fn setting_value(message: &Value) -> Option<String> {
    let params = &message["params"];
    let value = match message["method"].as_str()? {
        "session/set_mode" => &params["modeId"],
        "session/set_model" => &params["modelId"],
        "session/set_config_option" if params["configId"] == "model" => &params["value"],
        _ => return None,
    };
    value.as_str().map(str::to_owned)
}
