//! One conversation: its settings, what it remembers, and the prompt that runs in it.
//!
//! Owns: the state that several threads look at (the reader thread changes settings while a turn runs), behind one lock
//! that is never held while anything is written. The shapes of `modes` and `configOptions` are here too. This file
//! deliberately does not run prompts.

use crate::history::History;
use crate::mcp::McpServer;
use crate::thread::lock;
use crate::turn::Turn;
use serde_json::{Value, json};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

/// How many earlier texts of the user the word `history` tells; older ones are forgotten.
const TEXTS_MAX: usize = 1000;

/// How much of each earlier text is kept, in bytes.
const TEXT_BYTES_MAX: usize = 4096;

/// The longest title, in characters.
const TITLE_CHARS_MAX: usize = 60;

/// The context windows of the two models, in tokens.
const CONTEXT_SMALL: u64 = 100_000;
const CONTEXT_LARGE: u64 = 200_000;

const MODES: [(&str, &str, &str); 3] = [
    ("default", "Default", "Asks before commands and edits"),
    ("plan", "Plan", "Carries out no commands and no edits"),
    ("auto", "Auto", "Never asks"),
];
const MODELS: [(&str, &str); 2] = [("demo-small", "Demo small"), ("demo-large", "Demo large")];
const EFFORTS: [(&str, &str); 3] = [("low", "Low"), ("medium", "Medium"), ("high", "High")];

pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) cwd: PathBuf,
    /// As `session/new` named them, in ACP's shape.
    pub(crate) mcp_servers: Vec<Value>,
    pub(crate) history: History,
    state: Mutex<State>,
}

pub(crate) struct State {
    mode: String,
    model: String,
    effort: String,
    pub(crate) title: Option<String>,
    /// Tokens in the context so far.
    pub(crate) used_tokens: u64,
    /// Answers that hold for all calls of a kind: allowed, or not.
    pub(crate) remembered: HashMap<&'static str, bool>,
    /// Earlier texts of the user.
    pub(crate) texts: VecDeque<String>,
    /// The prompt that runs.
    pub(crate) turn: Option<Arc<Turn>>,
    /// The MCP servers that were started for this session.
    pub(crate) started: HashMap<String, Arc<McpServer>>,
}

impl Session {
    /// A session with the settings and memories that the records tell; none for a new one.
    pub(crate) fn new(
        id: String,
        cwd: PathBuf,
        mcp_servers: Vec<Value>,
        history: History,
        records: &[Value],
    ) -> Session {
        let mut state = State {
            mode: "default".to_owned(),
            model: "demo-small".to_owned(),
            effort: "medium".to_owned(),
            title: None,
            used_tokens: 0,
            remembered: HashMap::new(),
            texts: VecDeque::new(),
            turn: None,
            started: HashMap::new(),
        };
        for record in records {
            state.recall(record);
        }
        Session { id, cwd, mcp_servers, history, state: Mutex::new(state) }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Sets the mode. False when there is no such mode.
    pub(crate) fn set_mode(&self, mode: &str) -> io::Result<bool> {
        if !self.state().put_mode(mode) {
            return Ok(false);
        }
        self.history.append(&json!({"mode": mode})).map(|()| true)
    }

    /// Sets a config option. False when there is no such option, or it has no such value.
    pub(crate) fn set_config(&self, option: &str, value: &str) -> io::Result<bool> {
        if !self.state().put_config(option, value) {
            return Ok(false);
        }
        self.history.append(&json!({"config": [option, value]})).map(|()| true)
    }

    /// The path as the session sees it: relative ones start at its folder.
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.cwd.join(path)
    }
}

impl State {
    pub(crate) fn mode(&self) -> &str {
        &self.mode
    }

    /// The `modes` of `session/new`, `load` and `resume`.
    pub(crate) fn modes(&self) -> Value {
        let modes: Vec<Value> = MODES
            .iter()
            .map(|(id, name, description)| {
                json!({"id": id, "name": name, "description": description})
            })
            .collect();
        json!({"currentModeId": self.mode, "availableModes": modes})
    }

    /// The `configOptions` of the same, and of their updates.
    pub(crate) fn config_options(&self) -> Value {
        let select = |id, name, category, value: &str, choices: &[(&str, &str)]| {
            let options: Vec<Value> =
                choices.iter().map(|(value, name)| json!({"value": value, "name": name})).collect();
            json!({"id": id, "name": name, "category": category, "type": "select",
                "currentValue": value, "options": options})
        };
        json!([
            select("model", "Model", "model", &self.model, &MODELS),
            select("effort", "Effort", "thought_level", &self.effort, &EFFORTS),
        ])
    }

    /// The context window of the model, in tokens.
    pub(crate) fn context_window(&self) -> u64 {
        if self.model == "demo-large" { CONTEXT_LARGE } else { CONTEXT_SMALL }
    }

    /// Remembers a text of the user.
    pub(crate) fn remember_text(&mut self, text: &str) {
        if self.texts.len() == TEXTS_MAX {
            self.texts.pop_front();
        }
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        self.texts.push_back(text[..end].to_owned());
    }

    fn put_mode(&mut self, mode: &str) -> bool {
        let known = MODES.iter().any(|(id, _, _)| *id == mode);
        if known {
            self.mode = mode.to_owned();
        }
        known
    }

    fn put_config(&mut self, option: &str, value: &str) -> bool {
        let (choices, place): (&[_], _) = match option {
            "model" => (&MODELS, &mut self.model),
            "effort" => (&EFFORTS, &mut self.effort),
            _ => return false,
        };
        let known = choices.iter().any(|(id, _)| *id == value);
        if known {
            *place = value.to_owned();
        }
        known
    }

    /// Takes over one record of the session's file.
    fn recall(&mut self, record: &Value) {
        if let Some(mode) = record["mode"].as_str() {
            self.put_mode(mode);
        } else if let Some(title) = record["title"].as_str() {
            self.title = Some(title.to_owned());
        } else if let Some(used) = record["used"].as_u64() {
            self.used_tokens = used;
        } else if let (Some(option), Some(value)) =
            (record["config"][0].as_str(), record["config"][1].as_str())
        {
            self.put_config(option, value);
        } else if record["update"]["sessionUpdate"] == "user_message_chunk" {
            self.remember_text(record["update"]["content"]["text"].as_str().unwrap_or_default());
        }
    }
}

/// The title that a first prompt gives: the start of its first line that is not empty.
pub(crate) fn title_of(text: &str) -> String {
    let first = text.lines().map(str::trim).find(|line| !line.is_empty());
    first.unwrap_or("Untitled").chars().take(TITLE_CHARS_MAX).collect()
}
