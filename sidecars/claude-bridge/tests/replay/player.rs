//! Plays one recording against the translator.
//!
//! The recorded program's requests become those of an ACP client: a user message is a prompt, or a steer while one
//! runs; a setting of the mode or the model is one; an interrupt is a cancel; the answer to a question is the option
//! that means the same. The translator makes control requests of its own: a recorded answer is given to the request of
//! the same kind, and what was never recorded is refused, as an older program would.

use claude_bridge::bridge::{Bridge, Effect};
use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};

/// The golden text: one line for each message, in the form of a recording. `claude` lines are those for the program.
pub(crate) fn replay(records: &[Value]) -> String {
    let mut text = String::new();
    for process in records.chunk_by(|_, next| next["dir"] != "start") {
        Player::new(&mut text).play(process);
    }
    text
}

struct Player<'a> {
    bridge: Bridge,
    text: &'a mut String,
    session: String,
    last_id: i64,
    /// Requests of the translator that have no answer yet, by their kind.
    controls: Vec<(String, String)>,
    /// Answers that came before the translator had asked.
    answers: Vec<(String, Value)>,
    /// Recorded requests that go on to the translator: id and kind.
    recorded: BTreeMap<String, String>,
    /// Questions that the client was asked: our id, and the options.
    questions: VecDeque<(Value, Value)>,
    is_open: bool,
    /// The id of the prompt that runs.
    prompt: Option<i64>,
    /// Recorded ids of messages, and the translator's.
    uuids: Vec<(String, String)>,
    last_uuid: String,
}

impl<'a> Player<'a> {
    fn new(text: &'a mut String) -> Player<'a> {
        let mut number = 0;
        let fresh_id = move || {
            number += 1;
            format!("id-{number}")
        };
        Player {
            bridge: Bridge::new(false, Box::new(fresh_id)),
            text,
            session: "id-1".to_owned(),
            last_id: 0,
            controls: Vec::new(),
            answers: Vec::new(),
            recorded: BTreeMap::new(),
            questions: VecDeque::new(),
            is_open: false,
            prompt: None,
            uuids: Vec::new(),
            last_uuid: String::new(),
        }
    }

    fn play(&mut self, process: &[Value]) {
        let is_asked = |record: &Value| record["msg"]["request"]["subtype"] == "initialize";
        if !process.iter().any(is_asked) {
            // The recording program did not ask, the bridge does.
            let answer = json!({"subtype": "success", "response": {}});
            self.answers.push(("initialize".to_owned(), answer));
        }
        self.open(&process[0]);
        for record in &process[1..] {
            let message = &record["msg"];
            match record["dir"].as_str() {
                Some("in") => self.recorded_in(message),
                Some("out") if message.is_object() => self.recorded_out(message),
                Some("end") => {
                    let how = match message["rc"].as_i64() {
                        Some(code) => format!(" (exit code {code})"),
                        None => " (signal 9)".to_owned(),
                    };
                    let mut effects = Vec::new();
                    self.bridge.claude_ended(&self.session.clone(), &how, &mut effects);
                    self.act(effects);
                    self.tell("end", message.clone());
                }
                _ => {}
            }
        }
    }

    fn tell(&mut self, dir: &str, message: Value) {
        // The golden files outlive our version.
        let version = concat!("\"version\":\"", env!("CARGO_PKG_VERSION"), "\"");
        let line = json!({"dir": dir, "msg": message}).to_string();
        self.text.push_str(&line.replace(version, "\"version\":\"…\""));
        self.text.push('\n');
    }

    fn open(&mut self, start: &Value) {
        let arguments = start["msg"]["argv"].as_array().cloned().unwrap_or_default();
        let resumed = arguments.iter().position(|argument| argument == "--resume");
        self.tell("start", json!({"cwd": start["msg"]["cwd"]}));
        let offers = json!({"session": {"notices": {}}});
        self.request("initialize", json!({"protocolVersion": 1, "clientCapabilities": offers}));
        let mut params = json!({"cwd": "/srv/lab/work", "mcpServers": []});
        match resumed.and_then(|at| arguments.get(at + 1)) {
            Some(id) => {
                params["sessionId"] = id.clone();
                self.session = id.as_str().unwrap_or_default().to_owned();
                self.request("session/resume", params);
            }
            None => drop(self.request("session/new", params)),
        }
    }

    fn request(&mut self, method: &str, params: Value) -> i64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send(json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    fn send(&mut self, message: Value) {
        let line = message.to_string();
        self.tell("in", message);
        let mut effects = Vec::new();
        self.bridge.client_line(line.as_bytes(), &mut effects);
        self.act(effects);
    }

    fn act(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Client(line) => {
                    if line["method"] == "session/request_permission" {
                        let options = line["params"]["options"].clone();
                        self.questions.push_back((line["id"].clone(), options));
                    } else if line["method"] == "$/cancel_request" {
                        let id = &line["params"]["requestId"];
                        self.questions.retain(|(asked, _)| asked != id);
                    } else if line["id"].as_i64().is_some_and(|id| Some(id) == self.prompt) {
                        self.prompt = None;
                    } else if line["result"]["configOptions"].is_array() {
                        self.is_open = true;
                    }
                    self.tell("out", line);
                }
                Effect::Claude { line, .. } => {
                    let kind = line["request"]["subtype"].as_str().unwrap_or_default().to_owned();
                    if line["type"] == "control_request" {
                        let id = line["request_id"].as_str().unwrap_or_default().to_owned();
                        self.controls.push((kind, id));
                    }
                    if let Some(uuid) = line["uuid"].as_str() {
                        uuid.clone_into(&mut self.last_uuid);
                    }
                    self.tell("claude", line);
                }
                Effect::Start { arguments, .. } => self.tell("claude", json!({"argv": arguments})),
                Effect::End { .. } => self.tell("claude", json!("end")),
                Effect::Alarm { .. } => {}
            }
        }
        self.settle();
    }

    /// Answers what the translator asked, where the recording has the answer or will have none.
    fn settle(&mut self) {
        let known = |(kind, _): &&(String, String)| {
            kind == "get_settings" || self.answers.iter().any(|(answered, _)| answered == kind)
        };
        let Some((kind, id)) = self.controls.iter().find(known).cloned() else { return };
        self.controls.retain(|(_, waiting)| *waiting != id);
        let given = self.answers.iter().position(|(answered, _)| *answered == kind);
        let mut response = match given {
            Some(at) => self.answers.remove(at).1,
            None => json!({"subtype": "error", "error": "Unsupported control request subtype"}),
        };
        response["request_id"] = json!(id);
        self.feed(&json!({"type": "control_response", "response": response}));
    }

    fn feed(&mut self, message: &Value) {
        let mut effects = Vec::new();
        let session = self.session.clone();
        self.bridge.claude_line(&session, message.to_string().as_bytes(), &mut effects);
        self.act(effects);
    }

    /// A line of the program.
    fn recorded_out(&mut self, message: &Value) {
        if message["type"] != "control_response" {
            let mut text = message.to_string();
            for (recorded, own) in &self.uuids {
                text = text.replace(recorded.as_str(), own);
            }
            return self.feed(&serde_json::from_str(&text).unwrap());
        }
        let id = message["response"]["request_id"].as_str().unwrap_or_default();
        if let Some(kind) = self.recorded.remove(id) {
            self.answers.push((kind, message["response"].clone()));
            self.settle();
        }
    }

    /// What the recording program sent.
    fn recorded_in(&mut self, message: &Value) {
        match message["type"].as_str() {
            Some("user") => self.say(message),
            Some("control_request") => self.control(message),
            Some("control_response") => self.answer(&message["response"]),
            _ => {}
        }
    }

    fn say(&mut self, message: &Value) {
        if !self.is_open {
            return;
        }
        let content = message["message"]["content"].as_array().cloned().unwrap_or_default();
        let blocks: Vec<Value> = content
            .iter()
            .map(|block| match block["type"].as_str() {
                Some("image") => json!({"type": "image", "data": block["source"]["data"],
                    "mimeType": block["source"]["media_type"]}),
                _ => block.clone(),
            })
            .collect();
        let params = json!({"sessionId": self.session, "prompt": blocks});
        if self.prompt.is_some() {
            self.request("_gooselake/steer", params);
        } else {
            // Set before it is sent: the answer may come at once.
            self.prompt = Some(self.last_id + 1);
            self.request("session/prompt", params);
        }
        if let Some(uuid) = message["uuid"].as_str() {
            self.uuids.push((uuid.to_owned(), self.last_uuid.clone()));
        }
    }

    fn control(&mut self, message: &Value) {
        let request = &message["request"];
        let kind = request["subtype"].as_str().unwrap_or_default();
        let id = message["request_id"].as_str().unwrap_or_default().to_owned();
        let session = self.session.clone();
        match kind {
            "initialize" => {}
            "interrupt" if self.prompt.is_some() => {
                let params = json!({"sessionId": session});
                self.send(json!({"jsonrpc": "2.0", "method": "session/cancel", "params": params}));
            }
            "set_permission_mode" if self.is_open => {
                let mode = request["mode"].clone();
                let mode = if mode == "manual" { json!("default") } else { mode };
                let params = json!({"sessionId": session, "modeId": mode});
                self.request("session/set_mode", params);
            }
            "set_model" if self.is_open => {
                let params = json!({"sessionId": session, "configId": "model",
                    "value": request["model"]});
                self.request("session/set_config_option", params);
            }
            _ => return,
        }
        self.recorded.insert(id, kind.to_owned());
    }

    /// Takes the option that means what was answered.
    fn answer(&mut self, response: &Value) {
        let decision = &response["response"];
        let Some((id, options)) = self.questions.pop_front() else { return };
        let options = options.as_array().cloned().unwrap_or_default();
        let label = decision["updatedInput"]["answers"].as_object();
        let label = label.and_then(|answers| answers.values().next()?.as_str());
        let wanted = match (decision["behavior"].as_str(), &decision["updatedPermissions"]) {
            (Some("allow"), Value::Array(_)) => "allow_always",
            (Some("allow"), _) => "allow_once",
            _ => "reject_once",
        };
        let fits = |option: &&Value| {
            let is_label = label.is_none_or(|label| {
                option["name"].as_str().is_some_and(|name| name.starts_with(label))
            });
            option["kind"] == wanted && is_label
        };
        let option = options.iter().find(fits).or(options.first());
        let option = option.map(|option| option["optionId"].clone()).unwrap_or_default();
        let mut outcome = json!({"outcome": "selected", "optionId": option});
        if let (Some(words), "reject_once") = (decision["message"].as_str(), wanted) {
            outcome["_meta"] = json!({"gooselake": {"message": words}});
        }
        self.send(json!({"jsonrpc": "2.0", "id": id, "result": {"outcome": outcome}}));
    }
}
