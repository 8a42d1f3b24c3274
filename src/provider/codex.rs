//! The Codex adapter: `codex app-server`, JSON-RPC over lines without the `jsonrpc` member.
//!
//! Owns: the translation between the app-server's stdio and the words of [`crate::provider`], one thread of Codex
//! for each session. It runs on the session's thread. It promises what every adapter promises (no I/O, no clock, no
//! panic for any line), and:
//!
//! - every request of Codex is answered: by a person, or at once where it is not offered or not understood;
//! - no answer of ours is for ever: nothing is written to Codex's rules, a session's permission ends with its
//!   process;
//! - a command that goes on behind its turn stays an open item of that turn until Codex tells its end; an interrupt
//!   ends the commands of its turn, and no others;
//! - what streamed is replaced by what Codex says at the end where the two differ: its pieces are not the whole.
//!
//! What it deliberately does not do: it shows nothing of sub-agents' own threads but their questions, and offers no
//! tools of its own, no attestation and no tokens (answered with an error).
//!
//! The parts: `state` is the snapshot; `wire` reads and writes lines; `open` gets a thread ready, `mcp` writes its
//! servers and `permission` its permissions; `turn` starts, steers and ends turns; `tell` sorts what Codex tells;
//! `item` and `body` make items of it; `ask` is what it asks us, `option` what it offers; `home` is its private
//! folder.

mod ask;
mod body;
pub(super) mod home;
mod item;
mod mcp;
mod open;
mod option;
mod permission;
#[cfg(test)]
mod player;
#[cfg(test)]
mod replay;
mod state;
#[cfg(test)]
mod story;
mod tell;
mod turn;
mod wire;

pub(super) use open::VERSION_MIN;
pub(super) use permission::check_permission_mode;

use super::rpc::{self, Kind, object};
use super::{Adapter, AgentEvent, Capabilities, Command, Effects, Open, Steer};
use crate::error::{Code, Error, Result};
use serde::Deserialize;
use serde_json::{Map, Value};
use state::{Call, ID_BYTES_MAX, Phase, State};

/// What makes the program `codex` an app-server on stdio.
pub(super) const ARGUMENTS: &[&str] = &["app-server"];

/// The adapter for one thread of Codex. See the module's text.
#[derive(Debug, Default)]
pub struct Codex {
    state: State,
}

impl Codex {
    /// An adapter for a fresh process.
    pub fn new() -> Codex {
        Codex::default()
    }

    /// Goes on from a snapshot. Errors: the value is no snapshot of this adapter.
    pub fn restore(snapshot: &Value) -> Result<Codex> {
        let mut state = State::deserialize(snapshot).map_err(|error| {
            Error::new(Code::Internal, "the adapter's snapshot cannot be read").source(error)
        })?;
        state.items.iter_mut().for_each(|item| rpc::shorten(&mut item.id, ID_BYTES_MAX));
        Ok(Codex { state })
    }

    /// Sends a request of ours and remembers what it was for.
    fn call(&mut self, method: &str, params: &Value, call: Call, out: &mut Effects) {
        self.state.last_id += 1;
        wire::request(&mut out.stdin, self.state.last_id, method, params);
        self.state.calls.insert(self.state.last_id, call);
    }

    fn message(&mut self, message: &Map<String, Value>, line: &[u8], out: &mut Effects) {
        let nothing = Map::new();
        let params = object(message, "params").unwrap_or(&nothing);
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
            Call::Account => self.account_told(answer, out),
            Call::Thread => self.thread_answered(answer, out),
            Call::Models => self.models_told(answer, out),
            Call::StartTurn => self.start_answered(answer, out),
            Call::PastStart => self.past_start_answered(answer),
            Call::Steer(steer) => self.steer_answered(answer, steer, out),
            Call::Terminals { is_end } => self.terminals_told(is_end, answer, out),
            // A late interrupt finds no turn, and a terminal may have ended by itself: what there is to tell comes by
            // notifications.
            Call::Interrupt | Call::EndTerminal => {}
        }
    }
}

impl Adapter for Codex {
    fn open(&mut self, open: &Open, out: &mut Effects) {
        self.initialize(open, out);
    }

    fn command(&mut self, command: Command, out: &mut Effects) {
        match command {
            Command::StartTurn { input, model, mode, reasoning_level, permission_mode, .. } => {
                let wanted = turn::Wanted { model, mode, reasoning_level, permission_mode };
                self.start_turn(&input, wanted, out);
            }
            Command::Steer(steer) => self.steer(steer, out),
            Command::Interrupt => self.interrupt(out),
            Command::Answer { key, answer } => self.answer(&key, answer, out),
            // Codex asks nothing of the machine.
            Command::HostAnswer { .. } => {}
            Command::EndAgentTurn => self.end_agent_turn(out),
            Command::Close => self.withdraw_all("closed", out),
        }
    }

    fn line(&mut self, line: &[u8], out: &mut Effects) {
        if let Some(piece) = wire::piece(line) {
            return self.piece(&piece, line, out);
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        match serde_json::from_slice(line) {
            Ok(Value::Object(message)) => self.message(&message, line, out),
            _ => unparsed(line, out),
        }
    }

    fn snapshot(&self) -> String {
        serde_json::to_string(&self.state).expect("the state is plain data with text keys")
    }

    fn is_open(&self) -> bool {
        self.state.phase == Phase::Ready
    }

    fn capabilities(&self) -> &Capabilities {
        &self.state.capabilities
    }

    fn tells_end(&self) -> bool {
        self.state.native_turn.is_some()
    }

    fn open_steers(&self) -> Vec<&Steer> {
        let sent = self.state.calls.values().filter_map(|call| match call {
            Call::Steer(steer) => Some(steer),
            _ => None,
        });
        sent.chain(&self.state.steers).collect()
    }
}

/// Keeps what was not understood.
fn unparsed(line: &[u8], out: &mut Effects) {
    out.events.push(AgentEvent::Unparsed { text: rpc::cut_bytes(line) });
}

/// Tells a person something that is no answer of the model.
fn notice(text: String, data: Value, out: &mut Effects) {
    out.events.push(AgentEvent::Notice { text, data });
}
