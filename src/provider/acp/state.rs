//! What the ACP adapter remembers between two lines.
//!
//! Owns: the shapes of the snapshot. All of it is plain data that serde can write and read, so that
//! a restarted server goes on in the middle of a turn. It is small by design: the text of open
//! items is in the ledger, so an item keeps only what is needed to see whether a field has changed.
//! Deliberately without behaviour beyond small lookups.

pub(super) use crate::provider::sent::{Sent, hash};

use super::setting::Settings;
use crate::provider::rpc;
use crate::provider::{ApprovalOption, Capabilities, HostRequest, Open, Steer};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};

/// Ids of the agent's messages and tool calls are kept up to this length; longer ones as their hash.
pub(super) const ID_BYTES_MAX: usize = 200;
/// Ids that must go back to the agent as they came: its session, its options, modes, models and levels. What has a
/// longer one is left out.
pub(super) const ECHO_BYTES_MAX: usize = 1024;
/// Names and labels are cut to this length.
pub(super) const NAME_BYTES_MAX: usize = 1024;
/// Titles of tool calls are cut to this length. A shell command may be one.
pub(super) const TITLE_BYTES_MAX: usize = 8 * 1024;

/// Where the conversation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing was asked yet.
    #[default]
    Fresh,
    /// `initialize`, `session/new` or `session/resume` is in flight.
    Opening,
    /// The agent replays the history of a loaded session; what it tells is swallowed.
    Loading,
    /// The session is there; the wanted settings are being set before turns may start.
    Applying,
    Ready,
    /// The session could not be opened.
    Failed,
}

/// What a request of ours was for, until it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub(super) enum Call {
    Initialize,
    New,
    Resume,
    Load,
    /// Asked after a load: its answer comes behind the last line of the replay.
    Sync,
    Set {
        setting: Kind,
        value: String,
        /// What waits for it must not go on without it.
        #[serde(default)]
        is_limit: bool,
    },
    Prompt,
    Steer(Steer),
    Close,
}

/// The three settings of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    Model,
    Reasoning,
    Mode,
}

impl Kind {
    /// The setting's name in a sentence.
    pub(super) fn label(self) -> &'static str {
        match self {
            Kind::Model => "model",
            Kind::Reasoning => "reasoning level",
            Kind::Mode => "mode",
        }
    }
}

/// Settings that are still to be set, in the order of the fields: a model may bring other reasoning
/// levels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Wanted {
    pub(super) model: Option<String>,
    pub(super) reasoning: Option<String>,
    pub(super) mode: Option<String>,
    /// The mode stands for a permission mode, of an agent that is not used without it.
    #[serde(default)]
    pub(super) is_limit: bool,
}

impl Wanted {
    /// Takes out the next one.
    pub(super) fn take(&mut self) -> Option<(Kind, String)> {
        if let Some(value) = self.model.take() {
            return Some((Kind::Model, value));
        }
        if let Some(value) = self.reasoning.take() {
            return Some((Kind::Reasoning, value));
        }
        self.mode.take().map(|value| (Kind::Mode, value))
    }
}

/// Whose work the running items are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "by", rename_all = "snake_case")]
pub(super) enum Turn {
    #[default]
    None,
    /// The agent's own.
    Agent,
    User {
        /// The prompt that waits for the answers to its settings; None once it is sent.
        waiting: Option<Vec<Value>>,
        /// An interrupt was asked for.
        interrupted: bool,
    },
}

/// An open message of the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Speech {
    /// Key of the item.
    pub(super) key: String,
    /// The agent's id of the message, where it gives one.
    pub(super) message_id: Option<String>,
}

/// An open tool call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Tool {
    /// Key of the item.
    pub(super) key: String,
    /// The agent's id of the call.
    pub(super) id: String,
    /// A word of the contract's item types.
    pub(super) item_type: String,
    /// ACP's tool kind, as far as it was told.
    pub(super) kind: String,
    /// The tool's own name.
    pub(super) name: String,
    /// The MCP server that it belongs to.
    pub(super) server: Option<String>,
    pub(super) title: String,
    /// The call is past `pending`: from now on its content is output, before it was a description.
    pub(super) running: bool,
    /// A person said no.
    pub(super) declined: bool,
    /// How much is known of the changes: 0 nothing, 1 paths, 2 diffs.
    pub(super) change_rank: u8,
    /// Output came as pieces.
    pub(super) streamed: bool,
    pub(super) output: Sent,
    /// Field name -> hash of the value that was sent last.
    pub(super) sent: BTreeMap<String, u64>,
    /// The fields that an approval repeats, as far as they are small.
    pub(super) subject: Map<String, Value>,
}

/// An approval that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Approval {
    pub(super) key: String,
    /// The agent's JSON-RPC id.
    pub(super) id: Value,
    /// The agent's id of the tool call.
    pub(super) tool: String,
    pub(super) options: Vec<ApprovalOption>,
}

/// Something that the agent asked of the machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Errand {
    pub(super) key: String,
    /// The agent's JSON-RPC id.
    pub(super) id: Value,
    pub(super) request: HostRequest,
}

/// What was last told of the context window, so that the same figures are not told twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Context {
    pub(super) used: Option<i64>,
    pub(super) window: Option<i64>,
    /// The bits of the number: text does not bring every one of them back.
    cost_bits: Option<u64>,
}

impl Context {
    pub(super) fn cost_usd(self) -> Option<f64> {
        self.cost_bits.map(f64::from_bits)
    }

    pub(super) fn set_cost_usd(&mut self, cost: f64) {
        self.cost_bits = Some(cost.to_bits());
    }
}

/// The whole snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// A permission mode that the agent has no mode for is an error, not a notice.
    pub(super) is_strict: bool,
    /// Id of the last request that we made.
    pub(super) last_id: u64,
    /// Number in the last key that we gave out.
    pub(super) last_key: u64,
    /// What to open, until the session is there.
    pub(super) open: Option<Open>,
    /// The native session.
    pub(super) native: Option<String>,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) capabilities: Capabilities,
    /// The agent answers `session/close`.
    pub(super) can_close: bool,
    /// We serve `fs/*`.
    pub(super) client_fs: bool,
    /// We serve `terminal/*`.
    pub(super) client_terminal: bool,
    /// Names of the MCP servers that the session was given.
    pub(super) mcp_servers: Vec<String>,
    /// Instructions that go before the first prompt, for agents that take none at the start of a
    /// session.
    pub(super) preamble: Option<String>,
    pub(super) settings: Settings,
    pub(super) wanted: Wanted,
    pub(super) turn: Turn,
    pub(super) speech: Option<Speech>,
    pub(super) thought: Option<Speech>,
    /// In the order in which they began.
    pub(super) tools: Vec<Tool>,
    /// Hashes of the ids of tool calls that are over.
    pub(super) finished: VecDeque<u64>,
    pub(super) approvals: Vec<Approval>,
    pub(super) errands: Vec<Errand>,
    pub(super) context: Context,
    /// Hash of the title that was told last.
    pub(super) title: u64,
}

impl State {
    /// Ids as they are compared now: an older server has kept long ones whole.
    pub(super) fn shorten_ids(&mut self) {
        let speeches = [&mut self.speech, &mut self.thought].into_iter().flatten();
        let of_messages = speeches.filter_map(|speech| speech.message_id.as_mut());
        let of_tools = self.tools.iter_mut().map(|tool| &mut tool.id);
        let of_approvals = self.approvals.iter_mut().map(|approval| &mut approval.tool);
        of_messages
            .chain(of_tools)
            .chain(of_approvals)
            .for_each(|id| rpc::shorten(id, ID_BYTES_MAX));
    }

    /// A key that was never given out before.
    pub(super) fn next_key(&mut self, prefix: &str) -> String {
        self.last_key += 1;
        format!("{prefix}#{}", self.last_key)
    }

    /// Whether a turn of ours runs whose interrupt was asked for.
    pub(super) fn interrupting(&self) -> bool {
        matches!(self.turn, Turn::User { interrupted: true, .. })
    }
}
