//! The ACP adapter: Agent Client Protocol, version 1, over JSON lines.
//!
//! Owns: the translation between an ACP agent's stdio and the words of [`crate::provider`]. It runs
//! on the session's thread. It promises what every adapter promises (no I/O, no clock, no panic for
//! any line), and:
//!
//! - every request of the agent is answered, at once or when the session thread has the answer;
//! - one prompt at a time; settings that a turn wants are set one after the other before its
//!   prompt;
//! - what one agent tells in its own way comes out in the one way of the contract;
//! - a snapshot taken after any line goes on with exactly the events and bytes of the unbroken run.
//!
//! What it deliberately does not do: it offers no elicitation (answered with an error), it does not
//! tell a model's error that comes as plain text and `end_turn` from speech (codex-acp does that;
//! nothing in the message says so), and it passes on no list of slash commands.
//!
//! Two extensions, for agents that know them (our bridge to Claude does): `_gooselake/steer` adds
//! to a running prompt, where the agent says so in `agentCapabilities._meta.gooselake.steer`; and
//! the words of a person who declines go with the answer, in `_meta.gooselake.message`.
//!
//! The parts: `state` is the snapshot; `wire` reads and writes lines; `open` and `setting` get a
//! session ready; `turn` starts and ends turns; `update` sorts what the agent tells; `item` and
//! `tool` make items of it; `ask` is what the agent asks us.

mod ask;
mod item;
mod open;
#[cfg(test)]
mod player;
#[cfg(test)]
mod replay;
mod setting;
mod state;
#[cfg(test)]
mod story;
#[cfg(test)]
mod talk;
mod tool;
mod turn;
mod update;
mod wire;

use crate::error::{Code, Error, Result};
use crate::provider::rpc::{self, Kind};
use crate::provider::{Adapter, AgentEvent, Capabilities, Command, Effects, Open, Steer};
use serde::Deserialize;
use serde_json::{Map, Value};
use state::{Call, Phase, State};

/// The adapter for one native session. See the module's text.
#[derive(Debug, Default)]
pub struct Acp {
    state: State,
}

impl Acp {
    /// An adapter for a fresh agent process.
    pub fn new() -> Acp {
        Acp::default()
    }

    /// The same for an agent whose modes we know: a permission mode that it does not offer is refused
    /// here and now, and one that it does not take when it is asked fails what was to run under it.
    pub fn strict() -> Acp {
        let mut acp = Acp::default();
        acp.state.is_strict = true;
        acp
    }

    /// Goes on from a snapshot. The effects ask again for what the agent still waits for from the
    /// machine.
    ///
    /// Errors: the value is no snapshot of this adapter.
    pub fn restore(snapshot: &Value) -> Result<(Acp, Effects)> {
        let mut state = State::deserialize(snapshot).map_err(|error| {
            Error::new(Code::Internal, "the adapter's snapshot cannot be read").source(error)
        })?;
        state.shorten_ids();
        let mut out = Effects::default();
        for errand in &state.errands {
            let (key, request) = (errand.key.clone(), errand.request.clone());
            out.events.push(AgentEvent::Host { key, request });
        }
        Ok((Acp { state }, out))
    }

    /// Sends a request of ours and remembers what it was for.
    fn call(&mut self, method: &str, params: Value, call: Call, out: &mut Effects) {
        self.state.last_id += 1;
        wire::request(&mut out.stdin, self.state.last_id, method, params);
        self.state.calls.insert(self.state.last_id, call);
    }

    fn message(&mut self, message: &Map<String, Value>, line: &[u8], out: &mut Effects) {
        let nothing = Map::new();
        let params = wire::object(message, "params").unwrap_or(&nothing);
        match rpc::kind(message) {
            Kind::Request { method, id } => self.request(method, id, params, line, out),
            Kind::Notification { method } => self.notification(method, params, line, out),
            Kind::Response { id } => self.response(id, message, line, out),
            Kind::BadRequest { id, why } => {
                wire::refuse(&mut out.stdin, id, rpc::INVALID_REQUEST, why);
                unparsed(line, out);
            }
            Kind::Unknown => unparsed(line, out),
        }
    }

    fn notification(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        match method {
            "session/update" => self.update(params, line, out),
            "$/cancel_request" => self.take_back(params.get("requestId"), out),
            // Vendors' own; harmless by the protocol.
            _ if method.starts_with('_') => {}
            _ => unparsed(line, out),
        }
    }

    fn response(
        &mut self,
        id: &Value,
        message: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        let Some(call) = id.as_u64().and_then(|id| self.state.calls.remove(&id)) else {
            return unparsed(line, out);
        };
        let nothing = Map::new();
        let answer = rpc::answer(message, &nothing);
        match call {
            Call::Initialize => self.initialized(answer, out),
            Call::New | Call::Resume | Call::Load => self.session_answered(&call, answer, out),
            Call::Sync => self.replay_over(out),
            Call::Set { setting, value, is_limit } => {
                self.setting_answered(setting, &value, is_limit, answer, out);
            }
            Call::Prompt => self.prompt_answered(answer, out),
            Call::Steer(steer) => self.steer_answered(answer, steer, out),
            Call::Close => {}
        }
    }
}

impl Adapter for Acp {
    fn open(&mut self, open: &Open, out: &mut Effects) {
        self.initialize(open, out);
    }

    fn command(&mut self, command: Command, out: &mut Effects) {
        match command {
            Command::StartTurn { input, model, mode, reasoning_level, permission_mode, .. } => {
                self.end_agent_turn(out);
                match self.want(model, reasoning_level, mode, permission_mode.as_deref(), out) {
                    Ok(()) => self.start_turn(input, out),
                    Err(error) => self.refuse_turn(error, out),
                }
            }
            Command::Steer(steer) => self.steer(steer, out),
            Command::Interrupt => self.interrupt(out),
            Command::Answer { key, answer } => self.answer(&key, answer, out),
            Command::HostAnswer { key, answer } => self.host_answer(&key, answer, out),
            Command::EndAgentTurn => self.end_agent_turn(out),
            Command::Close => self.close(out),
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Effects) {
        if let Some(chunk) = wire::chunk(line) {
            if !self.swallows(&chunk.session) {
                self.chunk(&chunk, out);
            } else if !self.is_loading() {
                unparsed(line, out);
            }
            return;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match serde_json::from_slice(line) {
            Ok(Value::Object(message)) => self.message(&message, line, out),
            _ => unparsed(line, out),
        }
    }

    fn is_open(&self) -> bool {
        self.state.phase == Phase::Ready
    }

    fn snapshot(&self) -> String {
        serde_json::to_string(&self.state).expect("the state is plain data with text keys")
    }

    fn capabilities(&self) -> &Capabilities {
        &self.state.capabilities
    }

    fn tells_end(&self) -> bool {
        // The protocol has no word for it.
        false
    }

    fn open_steers(&self) -> Vec<&Steer> {
        let sent = self.state.calls.values().filter_map(|call| match call {
            Call::Steer(steer) => Some(steer),
            _ => None,
        });
        sent.collect()
    }
}

/// Keeps what was not understood.
fn unparsed(line: &[u8], out: &mut Effects) {
    out.events.push(AgentEvent::Unparsed { text: wire::cut_bytes(line) });
}

/// Tells a person something that is no answer of the model.
fn notice(text: String, data: Value, out: &mut Effects) {
    out.events.push(AgentEvent::Notice { text, data });
}
