//! Plays one process of a recording against an adapter, for the tests in `replay`.
//!
//! A recording is the stdio of one app-server, driven by a program of its own: its `in` lines are that program's
//! requests, with its ids. The adapter makes requests of its own, so a [`Player`] walks the recording, turns each
//! `in` line into the command that has the same meaning, and gives the recorded answers the adapter's ids. What it
//! does beyond pairing:
//!
//! - the account and the list of models, which most recordings do not ask for, are answered by [`made_up`];
//! - where the recording ends all commands in the background, the adapter ends them one by one;
//! - a decision that the adapter never offers is answered with `accept`;
//! - requests that the adapter never makes (`thread/list`, `account/login/start`, …) are left out with their
//!   answers.

use super::Codex;
use crate::model::input::Input;
use crate::provider::transcript::Transcript;
use crate::provider::{Adapter, AgentEvent, Answer, Command, Effects, Open, Steer};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Walks one process of a recording with one adapter.
pub(super) struct Player<'a> {
    codex: Codex,
    /// Puts a fresh adapter, restored from the snapshot, in the place of the old one after each step.
    is_restoring: bool,
    transcript: &'a mut Transcript,
    lines: Vec<Value>,
    /// Requests of the adapter that have no recorded answer yet: method and id.
    asked: VecDeque<(String, Value)>,
    /// Recorded id -> the adapter's, or None for a request that the adapter does not make.
    ids: BTreeMap<String, Option<Value>>,
    /// Codex's request id -> the adapter's key of the approval.
    keys: BTreeMap<String, String>,
    is_failed: bool,
}

impl<'a> Player<'a> {
    pub(super) fn new(
        lines: &[Value],
        is_restoring: bool,
        transcript: &'a mut Transcript,
    ) -> Player<'a> {
        Player {
            codex: Codex::new(),
            is_restoring,
            transcript,
            lines: lines.to_vec(),
            asked: VecDeque::new(),
            ids: BTreeMap::new(),
            keys: BTreeMap::new(),
            is_failed: false,
        }
    }

    fn step(&mut self, act: impl FnOnce(&mut Codex, &mut Effects)) -> Vec<AgentEvent> {
        let mut out = Effects::default();
        act(&mut self.codex, &mut out);
        if self.is_restoring {
            let text = self.codex.snapshot();
            let snapshot = serde_json::from_str(&text).expect("a snapshot is JSON");
            self.codex = Codex::restore(&snapshot).expect("a snapshot restores");
        }
        for sent in self.transcript.took(&out) {
            if let (Some(method), Some(id)) = (sent["method"].as_str(), sent.get("id")) {
                self.asked.push_back((method.to_owned(), id.clone()));
            }
        }
        self.is_failed |= out.events.iter().any(|e| matches!(e, AgentEvent::OpenFailed { .. }));
        out.events
    }

    fn feed(&mut self, line: &str) -> Vec<AgentEvent> {
        self.step(|codex, out| codex.line(line.as_bytes(), out))
    }

    fn tell(&mut self, told: &str, command: Command) {
        writeln!(self.transcript.text, "= {told}").unwrap();
        self.step(|codex, out| codex.command(command, out));
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
            self.make_up();
        }
    }

    /// Answers what the recorded program did not ask.
    fn make_up(&mut self) {
        let known = |(method, _): &(String, Value)| made_up(method).is_some();
        while let Some(at) = self.asked.iter().position(known) {
            let Some((method, id)) = self.asked.remove(at) else { return };
            let result = made_up(&method).unwrap_or_default();
            self.feed(&json!({"id": id, "result": result}).to_string());
        }
    }

    /// A request or notification of the recorded program.
    fn request(&mut self, at: usize, message: &Value) {
        let method = message["method"].as_str().unwrap_or_default();
        let params = &message["params"];
        let word = |value: &Value| value.as_str().map(str::to_owned);
        match method {
            "initialize" => {
                let Some(open) = self.open(at) else {
                    self.is_failed = true;
                    return;
                };
                writeln!(self.transcript.text, "= open {}", json!(open)).unwrap();
                self.step(|codex, out| codex.open(&open, out));
            }
            "turn/start" => {
                let input = input(params);
                let told = format!("start turn {}", json!(input));
                let command = Command::StartTurn {
                    turn_id: "turn_1".to_owned(),
                    input,
                    model: word(&params["model"]),
                    mode: word(&params["collaborationMode"]["mode"]),
                    reasoning_level: word(&params["effort"]),
                    permission_mode: None,
                };
                self.tell(&told, command);
            }
            "turn/steer" => {
                let input = input(params);
                self.tell(
                    &format!("steer {}", json!(input)),
                    Command::Steer(Steer { input, mail: Vec::new() }),
                );
            }
            "turn/interrupt" => self.tell("interrupt", Command::Interrupt),
            _ => {}
        }
        let own = method.replace("backgroundTerminals/clean", "backgroundTerminals/terminate");
        let paired = self.asked.iter().position(|(asked, _)| *asked == own);
        let own = paired.and_then(|at| self.asked.remove(at)).map(|(_, id)| id);
        self.ids.insert(message["id"].to_string(), own);
    }

    /// What the recorded program opens with this `initialize`; None when it opens nothing.
    fn open(&self, at: usize) -> Option<Open> {
        let sent = |record: &&Value| record["dir"] == "in";
        let mut requests = self.lines[at..].iter().filter(sent).map(|record| &record["msg"]);
        let thread = requests.find(|message| {
            message["method"] == "thread/start" || message["method"] == "thread/resume"
        })?;
        let params = &thread["params"];
        let word = |field: &str| params[field].as_str().map(str::to_owned);
        Some(Open {
            cwd: word("cwd").unwrap_or_default(),
            model: word("model"),
            resume: word("threadId"),
            ..Open::default()
        })
    }

    /// The recorded program answers a request of Codex.
    fn answer(&mut self, message: &Value) {
        let Some(key) = self.keys.remove(&message["id"].to_string()) else { return };
        let result = &message["result"];
        let option_id = match (&result["decision"], &result["action"], &result["answers"]) {
            (Value::String(decision), ..) => decision.clone(),
            (_, Value::String(action), _) => action.clone(),
            (.., Value::Object(_)) => "choice_1".to_owned(),
            _ => "accept".to_owned(),
        };
        let answer = Answer::Option { option_id, message: None, payload: None };
        self.tell(&format!("answer {key} {answer:?}"), Command::Answer { key, answer });
    }

    /// A line of Codex.
    fn told(&mut self, message: &Value, raw: &str) {
        let mut line = raw.to_owned();
        let id = message["id"].to_string();
        if message["method"].is_null() {
            let Some(own) = self.ids.remove(&id).flatten() else { return };
            let mut message = message.clone();
            message["id"] = own;
            line = message.to_string();
        }
        for event in self.feed(&line) {
            if let AgentEvent::ApprovalAsked { key, .. } = event {
                self.keys.insert(id.clone(), key);
            }
        }
    }
}

fn made_up(method: &str) -> Option<Value> {
    match method {
        "account/read" => Some(json!({"account": null, "requiresOpenaiAuth": false})),
        "model/list" => Some(json!({"data": [{
            "model": "gpt-5.5", "displayName": "GPT-5.5",
            "supportedReasoningEfforts": [{"reasoningEffort": "low"}, {"reasoningEffort": "high"}],
        }], "nextCursor": null})),
        _ => None,
    }
}

fn input(params: &Value) -> Vec<Input> {
    let one = |block: &Value| {
        let url = block["url"].as_str().unwrap_or_default();
        match url.strip_prefix("data:").and_then(|rest| rest.split_once(";base64,")) {
            Some((media_type, data)) => {
                Input::Image { data: data.to_owned(), media_type: media_type.to_owned() }
            }
            None => Input::Text { text: block["text"].as_str().unwrap_or_default().to_owned() },
        }
    };
    params["input"].as_array().into_iter().flatten().map(one).collect()
}
