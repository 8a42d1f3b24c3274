//! The server: lines in, answers out, each call on a thread of its own.
//!
//! The main thread reads and answers what needs no tools; what needs the gateway gets a thread, at most
//! [`CALLS_MAX`] at once, so a slow call holds up no other and answers leave as they are ready. Any thread writes
//! whole lines under one lock. The list of tools is the gateway's: asked for at each `tools/list`, and the last one
//! that was heard is kept for the time when the gateway is away. A client that was shown an old list is told as soon
//! as the gateway is heard again.

use crate::gateway::{Gateway, UNAVAILABLE};
use crate::settings::{CALLER, Settings};
use crate::thread::{lock, spawn};
use gg_mcp_server::rpc::{self, Ask, Identity, Read, Request};
use gg_mcp_server::{PING, envelope_text, failure, ping_tool};
use serde_json::{Map, Value, json};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Calls under way at once; one more is refused.
const CALLS_MAX: usize = 32;

/// How long calls may go on when the client has closed stdin.
const END_GRACE: Duration = Duration::from_secs(5);

/// Arguments that are for the sidecar, not for the tool.
const CALLER_ARGUMENT: &str = "__gg_caller_agent_id";
const INVOCATION_ARGUMENT: &str = "__gg_tool_invocation_id";

const IDENTITY: Identity = Identity {
    name: "gg-mcp-server",
    version: env!("CARGO_PKG_VERSION"),
    instructions: "Tools of the runtime server that this session runs on. Every call is recorded \
        in the session's event log.",
    is_list_changing: true,
};

pub(crate) struct Server {
    settings: Settings,
    /// The last list that the gateway gave.
    tools: Mutex<Vec<Value>>,
    /// The client was shown a list without asking the gateway.
    is_list_old: AtomicBool,
    calls: Mutex<Calls>,
    call_ended: Condvar,
    /// Makes the ids of this process's calls its own.
    prefix: String,
    next_call: AtomicU64,
    /// Held across the write: stdout is all that it guards, and whoever has something to say must wait for a client
    /// that does not read.
    output: Mutex<io::Stdout>,
}

#[derive(Default)]
struct Calls {
    /// Of [`CALLS_MAX`]; free as soon as the answer is known, so a client that has read it finds room.
    places_taken: usize,
    /// The answer is not written yet.
    unanswered: usize,
}

impl Server {
    pub(crate) fn new(settings: Settings) -> Server {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Server {
            settings,
            tools: Mutex::new(vec![ping_tool()]),
            is_list_old: AtomicBool::new(false),
            calls: Mutex::default(),
            call_ended: Condvar::new(),
            prefix: format!("{}-{}", std::process::id(), now.as_millis()),
            next_call: AtomicU64::new(1),
            output: Mutex::new(io::stdout()),
        }
    }

    /// One line of the client.
    pub(crate) fn line(self: &Arc<Self>, line: &[u8]) {
        match rpc::read(line, &IDENTITY, None) {
            Read::Answer { body, .. } => self.write(&body),
            Read::Request(request) => self.start(request),
            Read::Nothing => {}
        }
    }

    /// A line beyond the bound.
    pub(crate) fn refuse_line(&self, bytes_max: u64) {
        self.write(&rpc::unreadable(&format!("a line may have {bytes_max} bytes")));
    }

    /// Waits for the calls under way, for a while: the client is gone.
    pub(crate) fn finish(&self) {
        let calls = lock(&self.calls);
        let is_waiting = |calls: &mut Calls| calls.unanswered > 0;
        let waited = self.call_ended.wait_timeout_while(calls, END_GRACE, is_waiting);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn start(self: &Arc<Self>, request: Request) {
        let Some(place) = Place::take(self) else {
            let told = format!("{CALLS_MAX} calls are under way; wait for one to end");
            return self.write(&request.refused(rpc::BUSY, &told));
        };
        let refused = request.refused(rpc::BUSY, "the system has no thread to give; try again");
        let spawned = spawn("call", move || {
            let mut place = place;
            let answer = place.server.answer(&request);
            place.free();
            place.server.write(&answer);
        });
        if spawned.is_err() {
            self.write(&refused);
        }
    }

    fn answer(&self, request: &Request) -> Value {
        match &request.ask {
            Ask::ListTools => request.listed(&self.list(request.takes_notifications())),
            Ask::CallTool { name, arguments } => {
                let (text, is_error) = self.call(name, arguments.clone());
                request.called(text, is_error)
            }
        }
    }

    /// The list as far as it is known; a client that takes notifications is told of a better one.
    fn list(&self, takes_notifications: bool) -> Vec<Value> {
        let heard = Gateway::of(&self.settings).map(|gateway| gateway.get("/capabilities"));
        let tools = heard.unwrap_or_else(|missing| missing)["result"]["toolSchemas"].take();
        let mut known = lock(&self.tools);
        match tools {
            Value::Array(tools) => {
                *known = tools;
                self.is_list_old.store(false, Ordering::SeqCst);
            }
            _ => self.is_list_old.store(takes_notifications, Ordering::SeqCst),
        }
        let is_shown = |tool: &&Value| self.is_shown(tool["name"].as_str().unwrap_or_default());
        known.iter().filter(is_shown).cloned().collect()
    }

    fn is_shown(&self, tool: &str) -> bool {
        self.settings.has_process_tools || !tool.starts_with("gg_process_")
    }

    /// The text of a tool's answer, and whether it is an error.
    fn call(&self, tool: &str, mut arguments: Map<String, Value>) -> (String, bool) {
        let named = arguments.remove(CALLER_ARGUMENT);
        let invocation = arguments.remove(INVOCATION_ARGUMENT);
        let caller = match self.caller(named.as_ref().and_then(Value::as_str)) {
            Ok(caller) => caller,
            Err(refused) if tool != PING => return envelope_text(refused, None),
            Err(_) => None,
        };
        if !self.is_shown(tool) {
            let told = format!("{tool} is switched off for this agent");
            return envelope_text(failure("feature_disabled", &told), caller.as_deref());
        }
        let invocation = match invocation {
            Some(Value::String(id)) if !id.is_empty() => id,
            _ => format!("{}-{}", self.prefix, self.next_call.fetch_add(1, Ordering::SeqCst)),
        };
        let mut body = json!({"tool_name": tool, "invocation_id": invocation, "args": arguments});
        if let Some(caller) = &caller {
            body["caller_agent_id"] = json!(caller);
        }
        let envelope = match Gateway::of(&self.settings) {
            Ok(gateway) => gateway.post("/invoke", &body),
            Err(missing) => missing,
        };
        if envelope["error"]["code"] != UNAVAILABLE {
            self.gateway_is_heard();
        }
        // A ping that was asked wrongly is refused; any other trouble of the gateway is what it tells.
        let is_told = tool == PING && envelope["error"]["code"] != "bad_request";
        let envelope = if is_told { ping(envelope) } else { envelope };
        envelope_text(envelope, caller.as_deref())
    }

    /// In whose name a call is made; None leaves it to the token. What a model writes names nobody but whom the
    /// environment left open.
    fn caller(&self, named: Option<&str>) -> Result<Option<String>, Value> {
        let own = self.settings.caller_agent_id.as_deref();
        match (named.filter(|named| !named.is_empty()), own) {
            (None, _) if self.settings.is_caller_in_call => {
                let mut refused = failure("unauthorized", "the call does not name its caller");
                refused["error"]["details"] =
                    json!({"required_tool_argument": CALLER_ARGUMENT, "fallback_env": CALLER});
                Err(refused)
            }
            (Some(named), Some(own)) if named != own => {
                let told = format!("{CALLER_ARGUMENT} is {named}, but this is the agent {own}");
                Err(failure("unauthorized", &told))
            }
            (named, own) => Ok(named.or(own).map(str::to_owned)),
        }
    }

    fn gateway_is_heard(&self) {
        if self.is_list_old.swap(false, Ordering::SeqCst) {
            self.write(&rpc::list_changed());
        }
    }

    /// Writes one line. A client that is gone has closed stdin too, which ends the process.
    fn write(&self, message: &Value) {
        let line = format!("{message}\n");
        let mut output = lock(&self.output);
        drop(output.write_all(line.as_bytes()).and_then(|()| output.flush()));
    }
}

/// What `gg_ping` answers: this process, and what the gateway said.
fn ping(gateway: Value) -> Value {
    json!({"ok": true, "result": {
        "name": IDENTITY.name,
        "version": IDENTITY.version,
        "pid": std::process::id(),
        "build_mode": if cfg!(debug_assertions) { "debug" } else { "release" },
        "rust_log": std::env::var("RUST_LOG").ok(),
        "gateway": gateway,
    }})
}

/// The place of a call under way; given back when it is over, also by a panic.
struct Place {
    server: Arc<Server>,
    is_free: bool,
}

impl Place {
    fn take(server: &Arc<Server>) -> Option<Place> {
        let mut calls = lock(&server.calls);
        if calls.places_taken >= CALLS_MAX {
            return None;
        }
        calls.places_taken += 1;
        calls.unanswered += 1;
        Some(Place { server: Arc::clone(server), is_free: false })
    }

    fn free(&mut self) {
        if !std::mem::replace(&mut self.is_free, true) {
            lock(&self.server.calls).places_taken -= 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.free();
        lock(&self.server.calls).unanswered -= 1;
        self.server.call_ended.notify_all();
    }
}
