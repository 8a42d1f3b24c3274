//! The translator: ACP on one side, `claude`'s lines on the other.
//!
//! Owns: the table of sessions, what the client offers, and the sorting of lines. A [`Bridge`] is a value without I/O,
//! threads, clocks or randomness: lines go in, [`Effect`]s come out, in order. Promises: every request of either side
//! is answered once; no line of any content makes it panic; what a session keeps is bounded. It deliberately does not
//! know how a process is started or ended, only that it is.

use crate::ask;
use crate::session::{Parting, Session};
use crate::wire::{self, RpcError, list, text};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Sessions that one bridge serves at a time; each is a process of 200 MB.
const SESSIONS_MAX: usize = 64;
/// The version of ACP that is spoken.
const PROTOCOL_VERSION: u64 = 1;

/// What the shell is to do, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A line for the client.
    Client(Value),
    /// A line for the program of this session.
    Claude { session: String, line: Value },
    /// Starts the program for this session. What it tells comes back by [`Bridge::claude_line`] and
    /// [`Bridge::claude_ended`].
    Start { session: String, cwd: String, arguments: Vec<String> },
    /// Closes the program's stdin and ends it, with all that it has started.
    End { session: String },
    /// Calls [`Bridge::alarm`] with the same key after this time.
    Alarm { session: String, key: String, after: Duration },
}

/// What a session writes to while it handles a line.
pub(crate) struct Out<'a> {
    pub(crate) effects: &'a mut Vec<Effect>,
    /// Whom the line is about.
    pub(crate) session: &'a str,
    pub(crate) client: Client,
    /// Of our last request to the client.
    pub(crate) last_request: &'a mut i64,
    pub(crate) fresh_id: &'a mut dyn FnMut() -> String,
}

impl Out<'_> {
    pub(crate) fn client(&mut self, line: Value) {
        self.effects.push(Effect::Client(line));
    }

    pub(crate) fn answer(&mut self, id: &Value, result: Result<Value, RpcError>) {
        self.client(wire::answer(id, result));
    }

    pub(crate) fn update(&mut self, update: Value) {
        let params = json!({"sessionId": self.session, "update": update});
        self.client(wire::notification("session/update", params));
    }

    /// Something worth telling a person that is no answer of the model, for clients that can show it.
    pub(crate) fn notice(&mut self, severity: &str, title: &str) {
        if self.client.notices {
            let title = wire::cut(title, NOTICE_BYTES_MAX);
            self.update(json!({"sessionUpdate": "notice", "severity": severity, "title": title}));
        }
    }

    pub(crate) fn claude(&mut self, line: Value) {
        self.effects.push(Effect::Claude { session: self.session.to_owned(), line });
    }

    pub(crate) fn alarm(&mut self, key: &str, after: Duration) {
        let session = self.session.to_owned();
        self.effects.push(Effect::Alarm { session, key: key.to_owned(), after });
    }

    pub(crate) fn end(&mut self) {
        self.effects.push(Effect::End { session: self.session.to_owned() });
    }

    /// The id of a new request to the client.
    pub(crate) fn next_request(&mut self) -> i64 {
        *self.last_request += 1;
        *self.last_request
    }
}

/// What a notice shows of a text.
const NOTICE_BYTES_MAX: usize = 2000;

/// What the client offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Client {
    pub(crate) notices: bool,
}

/// The translator. See the module's text.
pub struct Bridge {
    /// Whether the program may be started with a way into its mode without questions: it refuses that as root.
    can_bypass: bool,
    fresh_id: Box<dyn FnMut() -> String>,
    /// None before `initialize`.
    client: Option<Client>,
    last_request: i64,
    sessions: BTreeMap<String, Session>,
}

impl Bridge {
    /// A translator for one client. `fresh_id` gives a UUID that was never given before.
    pub fn new(can_bypass: bool, fresh_id: Box<dyn FnMut() -> String>) -> Bridge {
        let (client, last_request, sessions) = (None, 0, BTreeMap::new());
        Bridge { can_bypass, fresh_id, client, last_request, sessions }
    }

    /// Takes a line of the client.
    pub fn client_line(&mut self, line: &[u8], effects: &mut Vec<Effect>) {
        let Ok(Value::Object(mut message)) = serde_json::from_slice::<Value>(line) else {
            let error = RpcError::new(wire::PARSE_ERROR, "the line is no JSON object");
            return effects.push(Effect::Client(wire::answer(&Value::Null, Err(error))));
        };
        let id = message.remove("id").filter(|id| !id.is_null());
        let params = message.remove("params").unwrap_or_default();
        match (message.get("method").and_then(Value::as_str), id) {
            (Some(method), Some(id)) => {
                if let Err(error) = self.request(method, &id, &params, effects) {
                    effects.push(Effect::Client(wire::answer(&id, Err(error))));
                }
            }
            // All other notifications are harmless, as the protocol wants it.
            (Some("session/cancel"), None) => {
                self.with(text(&params, "sessionId"), effects, |session, out| session.cancel(out));
            }
            (Some(_), None) => {}
            (None, Some(id)) => self.answered(&id, &message, effects),
            (None, None) => {
                let error = RpcError::new(wire::INVALID_REQUEST, "there is neither method nor id");
                effects.push(Effect::Client(wire::answer(&Value::Null, Err(error))));
            }
        }
    }

    /// Takes a line of the program.
    pub fn claude_line(&mut self, session: &str, line: &[u8], effects: &mut Vec<Effect>) {
        let message = serde_json::from_slice::<Value>(line).unwrap_or_default();
        self.with(session, effects, |session, out| {
            if message.is_object() {
                session.hear(&message, out);
            } else {
                let words = wire::cut(&String::from_utf8_lossy(line), NOTICE_BYTES_MAX);
                out.notice("warning", &format!("claude wrote a line that is no JSON: {words}"));
            }
        });
    }

    /// The program has ended; `how` is the end of a sentence.
    pub fn claude_ended(&mut self, session: &str, how: &str, effects: &mut Vec<Effect>) {
        let parting = self.with(session, effects, |session, out| session.ended(how, out));
        if parting == Some(Parting::Forget) {
            self.sessions.remove(session);
        }
    }

    /// The time of an [`Effect::Alarm`] has come.
    pub fn alarm(&mut self, session: &str, key: &str, effects: &mut Vec<Effect>) {
        self.with(session, effects, |session, out| session.alarm(key, out));
    }

    /// The client is gone: interrupts what runs and ends every program.
    pub fn shut_down(&mut self, effects: &mut Vec<Effect>) {
        let ids: Vec<String> = self.sessions.keys().cloned().collect();
        for id in ids {
            self.with(&id, effects, |session, out| session.close(None, out));
        }
    }

    fn request(
        &mut self,
        method: &str,
        id: &Value,
        params: &Value,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RpcError> {
        if method == "initialize" {
            let notices = params["clientCapabilities"]["session"]["notices"].is_object();
            self.client = Some(Client { notices });
            effects.push(Effect::Client(wire::answer(id, Ok(capabilities()))));
            return Ok(());
        }
        if self.client.is_none() {
            let error = RpcError::new(wire::INVALID_REQUEST, "the first request is initialize");
            return Err(error);
        }
        match method {
            "session/new" => self.open(id, None, params, effects),
            "session/resume" => {
                let session = text(params, "sessionId").to_owned();
                self.open(id, Some(session), params, effects)
            }
            "session/close" => {
                self.known(params)?;
                self.with(text(params, "sessionId"), effects, |session, out| {
                    session.close(Some(id.clone()), out);
                });
                Ok(())
            }
            "session/prompt" => self.ask_session(params, effects, |session, out| {
                session.prompt(id, list(params, "prompt"), out)
            }),
            "_gooselake/steer" => self.ask_session(params, effects, |session, out| {
                session.steer(id, list(params, "prompt"), out)
            }),
            "session/set_mode" => self.ask_session(params, effects, |session, out| {
                session.set_mode(id, text(params, "modeId"), out)
            }),
            "session/set_config_option" => self.ask_session(params, effects, |session, out| {
                session.set_option(id, text(params, "configId"), text(params, "value"), out)
            }),
            _ => {
                let text = format!("there is no method {}", wire::cut(method, 100));
                Err(RpcError::new(wire::METHOD_NOT_FOUND, text))
            }
        }
    }

    /// A new session, or one that the program has kept.
    fn open(
        &mut self,
        id: &Value,
        resume: Option<String>,
        params: &Value,
        effects: &mut Vec<Effect>,
    ) -> Result<(), RpcError> {
        let invalid = |text: String| RpcError::new(wire::INVALID_PARAMS, text);
        let cwd = text(params, "cwd");
        if !cwd.starts_with('/') {
            return Err(invalid(format!("cwd must be an absolute path, not {cwd:?}")));
        }
        let is_resume = resume.is_some();
        let session_id = resume.unwrap_or_else(|| (self.fresh_id)());
        // It becomes an argument of the program, so it must not look like an option.
        let is_id = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let is_good = session_id.starts_with(|c: char| c.is_ascii_alphanumeric())
            && session_id.len() <= 128
            && session_id.chars().all(is_id);
        if !is_good {
            return Err(invalid("sessionId is not an id of this agent".to_owned()));
        }
        if self.sessions.contains_key(&session_id) {
            let text = "the session is open already; close it first";
            return Err(RpcError::new(wire::INVALID_REQUEST, text));
        }
        if self.sessions.len() >= SESSIONS_MAX {
            let text = format!("{SESSIONS_MAX} sessions are open; close one first");
            return Err(RpcError::new(wire::INVALID_REQUEST, text));
        }
        let servers = servers(list(params, "mcpServers")).map_err(invalid)?;
        let system_prompt = system_prompt(&params["systemPrompt"]);
        let session = Session::new(&session_id, cwd, servers, system_prompt, self.can_bypass);
        self.sessions.insert(session_id.clone(), session);
        let id = id.clone();
        self.with(&session_id, effects, |session, out| session.start(id, is_resume, out));
        Ok(())
    }

    /// An answer of the client to a request of ours.
    fn answered(&mut self, id: &Value, message: &Map<String, Value>, effects: &mut Vec<Effect>) {
        let Some(number) = id.as_i64() else { return };
        let asked = |session: &&Session| session.asks(number);
        let Some(session) = self.sessions.values().find(asked).map(|s| s.id().to_owned()) else {
            return;
        };
        let answer = ask::Answer::read(message);
        self.with(&session, effects, |session, out| session.answered(number, &answer, out));
    }

    fn known(&self, params: &Value) -> Result<(), RpcError> {
        let id = text(params, "sessionId");
        if self.sessions.contains_key(id) {
            return Ok(());
        }
        let data = json!({"sessionId": wire::cut(id, 200)});
        Err(RpcError::new(wire::NOT_FOUND, "there is no open session of this id").with(data))
    }

    fn ask_session(
        &mut self,
        params: &Value,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Session, &mut Out) -> Result<(), RpcError>,
    ) -> Result<(), RpcError> {
        self.known(params)?;
        self.with(text(params, "sessionId"), effects, act).unwrap_or(Ok(()))
    }

    /// Lets a session act. None: there is no such session.
    fn with<T>(
        &mut self,
        session: &str,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Session, &mut Out) -> T,
    ) -> Option<T> {
        let entry = self.sessions.get_mut(session)?;
        let mut out = Out {
            effects,
            session,
            client: self.client.unwrap_or_default(),
            last_request: &mut self.last_request,
            fresh_id: &mut *self.fresh_id,
        };
        Some(act(entry, &mut out))
    }
}

fn capabilities() -> Value {
    json!({
        "protocolVersion": PROTOCOL_VERSION,
        "agentCapabilities": {
            "loadSession": false,
            "promptCapabilities": {"image": true, "audio": false, "embeddedContext": true},
            "mcpCapabilities": {"http": true, "sse": true},
            "sessionCapabilities": {"resume": {}, "close": {}, "systemPrompt": {}},
            "_meta": {"gooselake": {"steer": true}},
        },
        "agentInfo": {"name": "claude-bridge", "title": "Claude Code",
            "version": env!("CARGO_PKG_VERSION")},
        "authMethods": [],
    })
}

/// ACP's list of MCP servers in the shape of `claude`. Errors: the field that is wrong.
fn servers(told: &[Value]) -> Result<Map<String, Value>, String> {
    let mut servers = Map::new();
    for (place, server) in told.iter().enumerate() {
        let name = text(server, "name");
        if name.is_empty() {
            return Err(format!("mcpServers[{place}].name is missing"));
        }
        let pairs = |field: &str| -> Map<String, Value> {
            let pairs = list(server, field).iter();
            pairs.map(|pair| (text(pair, "name").to_owned(), pair["value"].clone())).collect()
        };
        let is_remote = matches!(text(server, "type"), "http" | "sse");
        let wanted = if is_remote { "url" } else { "command" };
        if text(server, wanted).is_empty() {
            return Err(format!("mcpServers[{place}].{wanted} is missing"));
        }
        let shape = if is_remote {
            json!({"type": server["type"], "url": server["url"], "headers": pairs("headers")})
        } else {
            json!({"type": "stdio", "command": server["command"], "args": list(server, "args"),
                "env": pairs("env")})
        };
        if servers.insert(name.to_owned(), shape).is_some() {
            return Err(format!("mcpServers[{place}].name {name:?} is there twice"));
        }
    }
    Ok(servers)
}

/// Instructions for the whole session: a text, or the text blocks in `content`.
fn system_prompt(told: &Value) -> Option<String> {
    let texts: Vec<&str> = match told.as_str() {
        Some(text) => vec![text],
        None => list(told, "content").iter().map(|block| text(block, "text")).collect(),
    };
    Some(texts.join("\n")).filter(|text| !text.is_empty())
}
