//! The protocol: what each method of the client does.
//!
//! Owns: the table of sessions and what the client said it can do. The reader thread calls [`Agent::line`] with each
//! line and never waits for a turn: a prompt gets a thread of its own, a cancel is a word into a mailbox. At the end of
//! stdin [`Agent::shut_down`] ends the turns and waits for them, for a bounded time. This file deliberately does not
//! know what a prompt does (`script`).

use crate::clock;
use crate::history::Store;
use crate::script::{self, Image, Prompt};
use crate::session::Session;
use crate::thread::{lock, spawn};
use crate::turn::{Turn, Waiting};
use crate::wire::{self, Output, RpcError};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// How many sessions are open at a time; one more is an error.
const SESSIONS_MAX: usize = 4096;

/// How long turns have to end after stdin was closed.
const SHUTDOWN_TIME: Duration = Duration::from_secs(3);

/// The longest delay of `initialize` that the environment can ask for.
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// What the command line says.
#[derive(Clone, Copy, Default)]
pub(crate) struct Flags {
    pub(crate) no_resume: bool,
    pub(crate) no_permission: bool,
}

/// What the client offers.
#[derive(Clone, Copy, Default)]
pub(crate) struct Client {
    pub(crate) read_text_file: bool,
    pub(crate) write_text_file: bool,
    pub(crate) terminal: bool,
}

pub(crate) struct Agent {
    pub(crate) flags: Flags,
    pub(crate) output: Output,
    /// Our requests to the client.
    pub(crate) waiting: Waiting,
    store: Store,
    /// Ids are this, which no earlier process had, and a counter.
    stamp: String,
    next_id: AtomicU64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// `None` before `initialize`.
    client: Option<Client>,
    sessions: HashMap<String, Arc<Session>>,
    turns_running: usize,
    closing: bool,
}

type Answer = Result<Value, RpcError>;

impl Agent {
    pub(crate) fn new(flags: Flags, output: Output) -> Agent {
        // Two processes can start within a millisecond, but not with the same pid.
        let stamp = format!("{:x}{:x}", clock::now_ms(), std::process::id());
        Agent {
            flags,
            output,
            waiting: Waiting::default(),
            store: Store::from_environment(),
            stamp,
            next_id: AtomicU64::new(1),
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    pub(crate) fn fresh_id(&self, kind: &str) -> String {
        format!("{kind}_{}_{}", self.stamp, self.next_id.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn client(&self) -> Client {
        lock(&self.state).client.unwrap_or_default()
    }

    /// Takes one line of the client.
    pub(crate) fn line(self: &Arc<Self>, line: &[u8]) {
        let Ok(mut message) = serde_json::from_slice::<Value>(line) else {
            return self.send_answer(&Value::Null, parse_error());
        };
        let id = message.get("id").cloned();
        let params = message.get_mut("params").map(Value::take).unwrap_or_default();
        match (message["method"].as_str(), id) {
            (Some(method), Some(id)) => self.request(method, &id, &params),
            (Some(method), None) => self.notification(method, &params),
            (None, Some(id)) => self.answered(&id, message),
            (None, None) => {
                let error = RpcError::new(wire::INVALID_REQUEST, "Invalid request");
                self.send_answer(&Value::Null, Err(error));
            }
        }
    }

    /// Answers a line that is too long to be read.
    pub(crate) fn refuse_line(&self) {
        self.send_answer(&Value::Null, parse_error());
    }

    /// Ends all turns and MCP servers, and waits for the turns as long as [`SHUTDOWN_TIME`].
    pub(crate) fn shut_down(&self) {
        let mut state = lock(&self.state);
        state.closing = true;
        let sessions: Vec<_> = state.sessions.drain().map(|(_, session)| session).collect();
        drop(state);
        self.changed.notify_all();
        for session in &sessions {
            if let Some(turn) = &session.state().turn {
                turn.close();
            }
        }
        let state = lock(&self.state);
        let running = |state: &mut State| state.turns_running > 0;
        drop(self.changed.wait_timeout_while(state, SHUTDOWN_TIME, running));
        for session in &sessions {
            end_mcp(session);
        }
    }

    fn request(self: &Arc<Self>, method: &str, id: &Value, params: &Value) {
        if method == "initialize" {
            return self.initialize(id, params);
        }
        let answer = if lock(&self.state).client.is_none() {
            let error = RpcError::new(wire::INVALID_REQUEST, "Invalid request");
            Err(error.data(json!("first ACP request must be initialize")))
        } else {
            match method {
                "session/new" => self.new_session(params),
                "session/load" if !self.flags.no_resume => self.restore(params, true),
                "session/resume" if !self.flags.no_resume => self.restore(params, false),
                "session/list" => self.list(params),
                "session/close" => match self.close_session(id, params) {
                    // The thread that ends its servers answers.
                    Ok(()) => return,
                    Err(error) => Err(error),
                },
                "session/set_mode" => self.set_mode(params),
                "session/set_config_option" => self.set_config_option(params),
                "session/prompt" => match self.prompt(id, params) {
                    // The turn answers.
                    Ok(()) => return,
                    Err(error) => Err(error),
                },
                _ => {
                    let text = format!("\"Method not found\": {method}");
                    let error = RpcError::new(wire::METHOD_NOT_FOUND, text);
                    Err(error.data(json!({"method": method})))
                }
            }
        };
        self.send_answer(id, answer);
    }

    fn notification(&self, method: &str, params: &Value) {
        // All others are harmless, as the protocol wants it.
        if method == "session/cancel"
            && let Ok(session) = self.session(params)
            && let Some(turn) = &session.state().turn
        {
            turn.cancel();
        }
    }

    fn answered(&self, id: &Value, message: Value) {
        let Some(id) = id.as_i64() else { return };
        if let Some(turn) = self.waiting.take(id) {
            turn.deliver(id, message);
        }
    }

    fn initialize(self: &Arc<Self>, request: &Value, params: &Value) {
        let offered = &params["clientCapabilities"];
        lock(&self.state).client = Some(Client {
            read_text_file: offered["fs"]["readTextFile"] == true,
            write_text_file: offered["fs"]["writeTextFile"] == true,
            terminal: offered["terminal"] == true,
        });
        let delay = std::env::var("GG_DEMO_DELAY_MS").ok().and_then(|text| text.parse().ok());
        let Some(delay) = delay.map(Duration::from_millis).filter(|delay| !delay.is_zero()) else {
            return self.send_answer(request, Ok(self.capabilities()));
        };
        let (agent, id) = (Arc::clone(self), request.clone());
        let slow = move || {
            let state = lock(&agent.state);
            let limit = delay.min(DELAY_MAX);
            let waited = agent.changed.wait_timeout_while(state, limit, |state| !state.closing);
            let closing = waited.unwrap_or_else(PoisonError::into_inner).0.closing;
            if !closing {
                agent.send_answer(&id, Ok(agent.capabilities()));
            }
        };
        if let Err(error) = spawn("initialize", slow) {
            self.send_answer(request, Err(internal(&error)));
        }
    }

    fn capabilities(&self) -> Value {
        let mut sessions = json!({"list": {}, "close": {}});
        if !self.flags.no_resume {
            sessions["resume"] = json!({});
        }
        json!({
            "protocolVersion": 1,
            "agentCapabilities": {
                "loadSession": !self.flags.no_resume,
                "promptCapabilities": {"image": true, "audio": false, "embeddedContext": true},
                "mcpCapabilities": {"http": false, "sse": false},
                "sessionCapabilities": sessions,
            },
            "agentInfo": {"name": "gg-demo-agent", "title": "Demo agent",
                "version": env!("CARGO_PKG_VERSION")},
            "authMethods": [],
        })
    }

    fn new_session(&self, params: &Value) -> Answer {
        let (cwd, servers) = folder_and_servers(params)?;
        self.check_room()?;
        let id = self.fresh_id("demo");
        let history = self.store.create(&id, cwd).map_err(|error| internal(&error))?;
        let session = Session::new(id.clone(), cwd.into(), servers, history, &[]);
        let mut result = settings(&session);
        result["sessionId"] = json!(id);
        lock(&self.state).sessions.insert(id, Arc::new(session));
        Ok(result)
    }

    /// `session/load` replays the history, `session/resume` does not.
    fn restore(&self, params: &Value, replay: bool) -> Answer {
        let (cwd, servers) = folder_and_servers(params)?;
        let id = params["sessionId"].as_str().unwrap_or_default();
        let old = lock(&self.state).sessions.get(id).cloned();
        if old.as_ref().is_some_and(|old| old.state().turn.is_some()) {
            return Err(busy());
        }
        self.check_room()?;
        let found = self.store.open(id).map_err(|error| internal(&error))?;
        let (history, records) = found.ok_or_else(|| no_session(id))?;
        if let Some(old) = old {
            end_mcp(&old);
        }
        let session = Session::new(id.to_owned(), cwd.into(), servers, history, &records);
        let result = settings(&session);
        lock(&self.state).sessions.insert(id.to_owned(), Arc::new(session));
        if replay {
            for record in records.iter().filter(|record| record["update"].is_object()) {
                let line = wire::update(id, &record["update"]);
                self.output.send(&line).map_err(|error| internal(&error))?;
            }
        }
        Ok(result)
    }

    fn list(&self, params: &Value) -> Answer {
        let wanted = params["cwd"].as_str();
        let listed = self.store.list().into_iter();
        let sessions: Vec<Value> = listed
            .filter(|session| wanted.is_none_or(|cwd| cwd == session.cwd))
            .map(|session| {
                json!({"sessionId": session.id, "cwd": session.cwd, "title": session.title,
                    "updatedAt": clock::iso(session.updated_ms)})
            })
            .collect();
        Ok(json!({"sessions": sessions}))
    }

    /// Ending MCP servers takes time, and the reader thread has none: a thread does it and answers.
    fn close_session(self: &Arc<Self>, id: &Value, params: &Value) -> Result<(), RpcError> {
        let session = self.session(params)?;
        lock(&self.state).sessions.remove(&session.id);
        if let Some(turn) = &session.state().turn {
            turn.cancel();
        }
        let (agent, id) = (Arc::clone(self), id.clone());
        let started = spawn("close", move || {
            end_mcp(&session);
            agent.send_answer(&id, Ok(json!({})));
        });
        started.map_err(|error| internal(&error))
    }

    fn set_mode(&self, params: &Value) -> Answer {
        let session = self.session(params)?;
        let mode = params["modeId"].as_str().unwrap_or_default();
        if !session.set_mode(mode).map_err(|error| internal(&error))? {
            return Err(RpcError::new(wire::INVALID_PARAMS, format!("there is no mode {mode:?}")));
        }
        let update = json!({"sessionUpdate": "current_mode_update", "currentModeId": mode});
        self.tell(&session, &update)?;
        Ok(json!({}))
    }

    fn set_config_option(&self, params: &Value) -> Answer {
        let session = self.session(params)?;
        let option = params["configId"].as_str().unwrap_or_default();
        let value = params["value"].as_str().unwrap_or_default();
        if !session.set_config(option, value).map_err(|error| internal(&error))? {
            let text = format!("there is no option {option:?} with the value {value:?}");
            return Err(RpcError::new(wire::INVALID_PARAMS, text));
        }
        let options = session.state().config_options();
        let update = json!({"sessionUpdate": "config_option_update", "configOptions": options});
        self.tell(&session, &update)?;
        Ok(json!({"configOptions": options}))
    }

    fn prompt(self: &Arc<Self>, id: &Value, params: &Value) -> Result<(), RpcError> {
        let session = self.session(params)?;
        let prompt = prompt(&params["prompt"])?;
        let turn = Arc::new(Turn::default());
        let mut state = session.state();
        if state.turn.is_some() {
            return Err(busy());
        }
        state.turn = Some(Arc::clone(&turn));
        drop(state);
        lock(&self.state).turns_running += 1;
        let (agent, id) = (Arc::clone(self), id.clone());
        let running = Arc::clone(&session);
        let started = spawn("turn", move || {
            let over = TurnOver(Arc::clone(&agent));
            script::run(agent, running, turn, &id, prompt);
            drop(over);
        });
        started.map_err(|error| {
            session.state().turn = None;
            lock(&self.state).turns_running -= 1;
            internal(&error)
        })
    }

    fn session(&self, params: &Value) -> Result<Arc<Session>, RpcError> {
        let id = params["sessionId"].as_str().unwrap_or_default();
        lock(&self.state).sessions.get(id).cloned().ok_or_else(|| no_session(id))
    }

    fn check_room(&self) -> Result<(), RpcError> {
        if lock(&self.state).sessions.len() < SESSIONS_MAX {
            return Ok(());
        }
        let text = format!("there are {SESSIONS_MAX} open sessions; close some");
        Err(RpcError::new(wire::INTERNAL_ERROR, text))
    }

    fn tell(&self, session: &Session, update: &Value) -> Result<(), RpcError> {
        let sent = self.output.send(&wire::update(&session.id, update));
        sent.map_err(|error| internal(&error))
    }

    fn send_answer(&self, id: &Value, answer: Answer) {
        // A client that does not read any more closes our stdin next; that ends the process.
        drop(self.output.send(&wire::answer(id, answer)));
    }
}

/// Counts a turn out, also when its thread panicked.
struct TurnOver(Arc<Agent>);

impl Drop for TurnOver {
    fn drop(&mut self) {
        lock(&self.0.state).turns_running -= 1;
        self.0.changed.notify_all();
    }
}

fn end_mcp(session: &Session) {
    let servers: Vec<_> = session.state().started.drain().map(|(_, server)| server).collect();
    for server in servers {
        server.end();
    }
}

/// What `session/new`, `load` and `resume` answer alike.
fn settings(session: &Session) -> Value {
    let state = session.state();
    json!({"modes": state.modes(), "configOptions": state.config_options()})
}

fn folder_and_servers(params: &Value) -> Result<(&str, Vec<Value>), RpcError> {
    let invalid = |text: String| RpcError::new(wire::INVALID_PARAMS, text);
    let cwd = params["cwd"].as_str().unwrap_or_default();
    if !Path::new(cwd).is_absolute() {
        let text = format!("Invalid params: `cwd` must be an absolute path, not {cwd:?}");
        return Err(invalid(text));
    }
    let servers = params["mcpServers"].as_array();
    let servers = servers.ok_or_else(|| invalid("Invalid params: no mcpServers".to_owned()))?;
    Ok((cwd, servers.clone()))
}

/// The text blocks in lines, and the images.
fn prompt(blocks: &Value) -> Result<Prompt, RpcError> {
    let blocks = blocks.as_array().ok_or_else(|| {
        RpcError::new(wire::INVALID_PARAMS, "Invalid params: the prompt is no list of blocks")
    })?;
    let texts: Vec<&str> = blocks.iter().filter_map(|block| block["text"].as_str()).collect();
    let images = blocks.iter().filter(|block| block["type"] == "image").map(|block| {
        let data = block["data"].as_str().unwrap_or_default();
        let padding = data.bytes().rev().take_while(|byte| *byte == b'=').count();
        Image {
            media_type: block["mimeType"].as_str().unwrap_or("unknown").to_owned(),
            bytes: (data.len() / 4 * 3).saturating_sub(padding),
        }
    });
    Ok(Prompt { text: texts.join("\n"), images: images.collect() })
}

fn no_session(id: &str) -> RpcError {
    RpcError::new(wire::NOT_FOUND, "Resource not found").data(json!({"sessionId": id}))
}

fn busy() -> RpcError {
    RpcError::new(wire::INVALID_REQUEST, "a prompt is running in this session")
}

fn internal(error: &std::io::Error) -> RpcError {
    RpcError::new(wire::INTERNAL_ERROR, error.to_string())
}

fn parse_error() -> Answer {
    Err(RpcError::new(wire::PARSE_ERROR, "Parse error"))
}
