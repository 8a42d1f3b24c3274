//! What the Codex adapter remembers between two lines.
//!
//! Owns: the shapes of the snapshot. All of it is plain data that serde can write and read, so that a restarted
//! server goes on in the middle of a turn. It is small by design: the text of open items is in the ledger.
//! Deliberately without behaviour beyond small lookups.

use super::permission::Permission;
use crate::model::input::Input;
use crate::model::{ItemType, TurnStatus};
use crate::provider::{AgentError, ApprovalOption, Capabilities, Choice, Open, Steer};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, VecDeque};

/// Ids of items are kept up to this length; longer ones as their hash.
pub(super) const ID_BYTES_MAX: usize = 200;
/// Words that must go back to Codex as they came: its thread, its turn, its models, modes and levels. A longer one is
/// as none.
pub(super) const ECHO_BYTES_MAX: usize = 1024;

/// Where the conversation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// Nothing was asked yet.
    #[default]
    Fresh,
    /// The handshake, the account, the thread or the list of models is asked for.
    Opening,
    Ready,
    /// The thread could not be opened.
    Failed,
}

/// What a request of ours was for, until it is answered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "for", rename_all = "snake_case")]
pub(super) enum Call {
    Initialize,
    Account,
    Thread,
    Models,
    StartTurn,
    /// The start of a turn that is over: its answer says nothing of the next one.
    PastStart,
    /// Given back when the turn had ended before it.
    Steer(Steer),
    Interrupt,
    /// Which commands go on behind their turn; the listed ones are ended when `is_end`.
    Terminals {
        is_end: bool,
    },
    EndTerminal,
}

/// Whose work the running items are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Turn {
    #[default]
    None,
    /// Codex's own.
    Agent,
    User,
}

/// A turn of Codex that is over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct PastTurn {
    /// Hash of its id.
    pub(super) id: u64,
    /// A word of the contract's turn statuses.
    pub(super) status: String,
    pub(super) error: Option<AgentError>,
}

/// An open item.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Item {
    /// Key of the item towards the session.
    pub(super) key: String,
    /// Codex's id of it.
    pub(super) id: String,
    /// A word of the contract's item types.
    pub(super) item_type: String,
    /// Pieces of its text or output were told.
    pub(super) has_pieces: bool,
    /// The fields that an approval repeats, as far as they are small.
    pub(super) subject: Map<String, Value>,
    /// A person is asked about it: it does not run yet.
    pub(super) is_asked: bool,
    /// A person said no.
    pub(super) is_declined: bool,
    /// A summary of the thoughts has come: the raw ones are left out.
    pub(super) has_summary: bool,
    /// Its turn is over and it is not.
    pub(super) goes_on: bool,
    /// Its turn was interrupted while it ran.
    pub(super) interrupted: bool,
}

impl PastTurn {
    pub(super) fn status(&self) -> TurnStatus {
        TurnStatus::parse(&self.status).unwrap_or(TurnStatus::Failed)
    }
}

impl Item {
    pub(super) fn item_type(&self) -> ItemType {
        ItemType::parse(&self.item_type).unwrap_or(ItemType::Other)
    }
}

/// A request of Codex that waits for a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Ask {
    pub(super) key: String,
    /// Codex's JSON-RPC id, in a space of its own.
    pub(super) id: Value,
    /// Codex's id of the item that it is about.
    pub(super) item: String,
    /// A sub-agent's thread asks: it waits for an answer whatever becomes of our turn.
    #[serde(default)]
    pub(super) is_anothers: bool,
    pub(super) question: Question,
    pub(super) options: Vec<ApprovalOption>,
}

/// What was asked, as far as the answer needs it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "about", rename_all = "snake_case")]
pub(super) enum Question {
    /// A command, a file change, or access to the network: the option ids are the protocol's decisions.
    Decision,
    Permissions {
        wanted: Map<String, Value>,
    },
    Elicitation,
    /// Questions to the user: their ids, and the labels offered for the only one.
    Input {
        ids: Vec<String>,
        labels: Vec<String>,
    },
}

/// Tokens of the whole thread, as Codex counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Tokens {
    pub(super) total_tokens: i64,
    pub(super) input_tokens: i64,
    pub(super) cached_input_tokens: i64,
    pub(super) output_tokens: i64,
    pub(super) reasoning_output_tokens: i64,
}

/// The whole snapshot.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct State {
    pub(super) phase: Phase,
    /// Id of the last request that we made.
    pub(super) last_id: u64,
    /// Number in the last key that we gave out.
    pub(super) last_key: u64,
    /// What to open, until the thread is there.
    pub(super) open: Option<Open>,
    pub(super) thread: Option<String>,
    pub(super) calls: BTreeMap<u64, Call>,
    pub(super) capabilities: Capabilities,
    /// The reasoning levels of each model that Codex lists.
    pub(super) levels: BTreeMap<String, Vec<Choice>>,
    pub(super) model_pages: u32,
    pub(super) model: Option<String>,
    pub(super) effort: Option<String>,
    /// The collaboration mode in force, and one that the next turn is to bring.
    pub(super) mode: String,
    pub(super) wanted_mode: Option<String>,
    /// What the session asked for, or Codex's own configuration.
    pub(super) permission: Permission,
    /// What the thread works under now.
    pub(super) permission_now: Permission,
    /// MCP servers of the session are asked about.
    pub(super) asks_for_mcp: bool,
    pub(super) turn: Turn,
    /// Codex's turn that runs, once its id is known.
    pub(super) native_turn: Option<String>,
    /// Those that ended last: what is told of them late begins nothing.
    pub(super) past_turns: VecDeque<PastTurn>,
    /// Input for the running turn, until its id is known.
    #[serde(deserialize_with = "steers")]
    pub(super) steers: Vec<Steer>,
    /// An interrupt was asked for.
    pub(super) is_interrupting: bool,
    /// In the order in which they began.
    pub(super) items: Vec<Item>,
    /// Hashes of the ids of items that are over.
    pub(super) finished: VecDeque<u64>,
    pub(super) asks: Vec<Ask>,
    /// The thread's count, and where it stood when the turn began.
    pub(super) tokens: Tokens,
    pub(super) tokens_before: Tokens,
    /// Tokens in the context window, as they were told last.
    pub(super) context_used: i64,
    /// The account's limits, as they were told last.
    pub(super) rate_limits: Value,
    /// Hashes of the notices that were told and are not told again.
    pub(super) told: VecDeque<u64>,
}

impl State {
    /// A key that was never given out before.
    pub(super) fn next_key(&mut self, prefix: &str) -> String {
        self.last_key += 1;
        format!("{prefix}#{}", self.last_key)
    }
}

/// What waits for its turn's id, also as it was written before it told of mail: the input alone.
fn steers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Steer>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Now(Steer),
        Before(Vec<Input>),
    }
    let read = |written| match written {
        Written::Now(steer) => steer,
        Written::Before(input) => Steer { input, mail: Vec::new() },
    };
    Ok(Vec::<Written>::deserialize(deserializer)?.into_iter().map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_was_to_join_a_turn_is_read_as_the_version_before_wrote_it() {
        let said = |text: &str| json!([{"type": "text", "text": text}]);
        let snapshot = json!({
            "calls": {"7": {"for": "steer", "input": said("sent")}},
            "steers": [said("first"), [], {"input": said("now"), "mail": [3]}],
        });
        let state = State::deserialize(&snapshot).unwrap();
        let steer = |text: &str, mail: &[i64]| Steer {
            input: vec![Input::Text { text: text.to_owned() }],
            mail: mail.to_vec(),
        };
        let empty = Steer { input: Vec::new(), mail: Vec::new() };
        assert_eq!(state.steers, [steer("first", &[]), empty, steer("now", &[3])]);
        assert!(matches!(&state.calls[&7], Call::Steer(sent) if *sent == steer("sent", &[])));
        let written = serde_json::to_value(&state).unwrap();
        assert_eq!(written["steers"][0], json!({"input": said("first"), "mail": []}));
    }
}
