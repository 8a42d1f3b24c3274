//! Floor 3: the translators between an agent's protocol and ours.
//!
//! An [`Adapter`] is a value without I/O, threads, clocks or randomness: lines and commands go in, [`Effects`] come
//! out. The session thread owns it, feeds it, commits what comes out together with the journal offset and
//! [`Adapter::snapshot`], and only then sends the bytes. So an adapter is tested by replaying recorded traffic, and
//! a server that was killed goes on from the last snapshot.
//!
//! Rules for every adapter: request ids come from a counter in the snapshot; a line of any content and length must
//! not panic; what is not understood becomes [`AgentEvent::Unparsed`]; after [`AgentEvent::TurnEnded`] no item of
//! that turn is left open: the adapter completes them itself, but for those that it has told to go on
//! ([`AgentEvent::ItemGoesOn`]). Such an item still belongs to its turn, and is completed whenever that comes.

pub mod acp;
pub mod claude;
pub mod codex;
mod diff;
pub mod readiness;
mod rpc;
mod sent;
pub mod stage;
#[cfg(test)]
mod transcript;

use crate::error::{Error, Result};
use crate::model::input::Input;
use crate::model::{ItemStatus, ItemType, OptionKind, TurnStatus};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A fresh adapter for a provider's dialect.
pub fn adapter(provider: &str) -> Box<dyn Adapter> {
    match provider {
        "claude" => Box::new(acp::Acp::strict()),
        "codex" => Box::new(codex::Codex::new()),
        _ => Box::new(acp::Acp::new()),
    }
}

/// The adapter as its snapshot left it, and what it asks for again. Errors: the snapshot is not one of this version.
pub fn restore(provider: &str, snapshot: &Value) -> Result<(Box<dyn Adapter>, Effects)> {
    if provider == "codex" {
        return Ok((Box::new(codex::Codex::restore(snapshot)?), Effects::default()));
    }
    let (adapter, effects) = acp::Acp::restore(snapshot)?;
    Ok((Box::new(adapter), effects))
}

/// The arguments that make a provider's program speak with us, before those of the configuration.
pub fn arguments(provider: &str) -> &'static [&'static str] {
    match provider {
        "codex" => codex::ARGUMENTS,
        _ => &[],
    }
}

/// The permission modes that have a meaning with every provider. The first is the session's own gate.
const PERMISSION_MODES: &[&str] =
    &["require_approval", "default", "read_only", "full_auto", "danger_full_access"];

/// The word of ours that a permission mode is; None for a word that only an agent may know.
pub fn common_permission_mode(permission_mode: &str) -> Option<&'static str> {
    let hyphened = permission_mode.replace('-', "_");
    PERMISSION_MODES.iter().find(|word| **word == hyphened).copied()
}

/// Whether one who has the first permission mode may do something that one who has the second may not: the one order of
/// their widths. A gate and a sandbox that can only be read hold back different things, so each is wider than the
/// other. None, and a word that is none of ours, limit nothing of themselves: they are as wide as `default`, which
/// leaves the asking to the agent.
pub fn is_wider(permission_mode: &str, than: Option<&str>) -> bool {
    let width = |word: &str| match common_permission_mode(word).unwrap_or("default") {
        "read_only" | "require_approval" => 0,
        "default" => 1,
        "full_auto" => 2,
        _ => 3,
    };
    let than = than.and_then(common_permission_mode).unwrap_or("default");
    let word = common_permission_mode(permission_mode).unwrap_or("default");
    width(word) > width(than) || (width(word) == width(than) && word != than)
}

/// Errors: the provider knows no such permission mode. An ACP agent may be given a word that is none of ours, which
/// then limits nothing; but what looks like one of ours must be it: it would look like a limit and be none. All but the
/// gate may be written with hyphens, as Codex's own words are.
pub fn check_permission_mode(provider: &str, permission_mode: &str) -> Result<()> {
    match provider {
        "claude" => claude::check_permission_mode(permission_mode),
        "codex" => codex::check_permission_mode(permission_mode),
        _ => check_spelling(permission_mode),
    }
}

fn check_spelling(permission_mode: &str) -> Result<()> {
    let letters = |word: &str| -> String {
        word.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect()
    };
    let meant = PERMISSION_MODES.iter().find(|word| letters(word) == letters(permission_mode));
    let hyphened = permission_mode.replace('-', "_");
    match meant {
        Some(word) if *word == hyphened && *word != PERMISSION_MODES[0] => Ok(()),
        Some(word) if *word != permission_mode => {
            Err(Error::bad_request(format!("permission_mode is {permission_mode:?}"))
                .hint(format!("write it {word:?}")))
        }
        _ => Ok(()),
    }
}

/// A pure translator. See the module's text for the rules.
pub trait Adapter: Send {
    /// Starts the conversation with a fresh agent process: handshake, then a new native session, or `open.resume`.
    fn open(&mut self, open: &Open, out: &mut Effects);
    fn command(&mut self, command: Command, out: &mut Effects);
    /// One line of the agent's stdout, without its newline. Any bytes.
    fn line(&mut self, line: &[u8], out: &mut Effects);
    /// All that a restarted server needs to go on from here with the same agent process. Text of JSON at once: it is
    /// asked for at each step, and a tree of values costs more than all else in it.
    fn snapshot(&self) -> String;
    /// Whether the native session is open: turns may start.
    fn is_open(&self) -> bool;
    /// What the agent said it can do; the default until it has said so.
    fn capabilities(&self) -> &Capabilities;
    /// Whether the agent will say when the work that it began by itself is over, so that quiet means nothing.
    fn tells_end(&self) -> bool;
    /// What was to join a turn and has no answer yet, in order.
    fn open_steers(&self) -> Vec<&Steer>;
}

/// How to open the native session.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Open {
    /// Absolute.
    pub cwd: String,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    pub system_prompt: Option<String>,
    /// MCP servers in ACP's `McpServer` shape (`env` a list of name/value pairs).
    pub mcp_servers: Vec<Value>,
    /// The native session to resume; None for a new one.
    pub resume: Option<String>,
    /// Offer to serve `fs/*` for the agent.
    pub client_fs: bool,
    /// Offer to serve `terminal/*` for the agent.
    pub client_terminal: bool,
}

/// What the session thread tells the agent.
#[derive(Clone, Debug)]
pub enum Command {
    /// Only when no turn runs and the session is open. The first three settings hold from this turn on, None = as
    /// before; the permission mode holds for this turn, None = the session's.
    StartTurn {
        turn_id: String,
        input: Vec<Input>,
        model: Option<String>,
        mode: Option<String>,
        reasoning_level: Option<String>,
        permission_mode: Option<String>,
    },
    /// Only where [`Capabilities::steer`] is true and a turn runs.
    Steer(Steer),
    /// Asks the agent to end the running turn. The turn ends by its own [`AgentEvent::TurnEnded`]; open approvals are
    /// withdrawn by the adapter at once. Without a running turn it does nothing.
    Interrupt,
    /// Answers an approval that is open. `key` is that of [`AgentEvent::ApprovalAsked`].
    Answer { key: String, answer: Answer },
    /// The answer to a [`HostRequest`], by its key.
    HostAnswer { key: String, answer: std::result::Result<Value, HostError> },
    /// Work that the agent began by itself has been quiet for long enough to call it over: complete the open items
    /// and emit [`AgentEvent::TurnEnded`].
    EndAgentTurn,
    /// Tells the agent that the session is over, where its protocol has a word for it.
    Close,
}

/// Input that joins a running turn.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steer {
    pub input: Vec<Input>,
    /// The mail that it brings, in numbers that mean something to the session alone; none for a person's words.
    #[serde(default)]
    pub mail: Vec<i64>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The id of one of the offered options; `payload` is what a question wants beyond a choice.
    Option { option_id: String, message: Option<String>, payload: Option<Value> },
    /// Nobody will answer.
    Cancelled,
}

#[derive(Clone, Debug, PartialEq)]
pub struct HostError {
    /// A JSON-RPC error code.
    pub code: i64,
    pub message: String,
}

/// What the agent can do. `Default` is an agent that can do nothing but take text.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    pub image: bool,
    pub resource_link: bool,
    pub steer: bool,
    /// The native session can be opened again in another process.
    pub resume: bool,
    /// `{name, title, version}` as the agent gave it.
    pub agent_info: Value,
    pub modes: Vec<Choice>,
    pub models: Vec<Choice>,
    pub reasoning_levels: Vec<Choice>,
}

/// One value that a setting can take.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    pub id: String,
    pub name: String,
}

/// What an adapter wants done, in order.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes for the agent's stdin, whole lines.
    pub stdin: Vec<u8>,
    pub events: Vec<AgentEvent>,
}

impl Effects {
    pub fn is_empty(&self) -> bool {
        self.stdin.is_empty() && self.events.is_empty()
    }
}

/// What an agent did, in our words. Keys (`item`, approval, host request) are the adapter's own, unique among the
/// open ones; the session thread maps them to ids.
#[derive(Clone, Debug, PartialEq)]
pub enum AgentEvent {
    /// The native session is open; turns may start.
    Opened {
        native_ref: String,
        model: Option<String>,
        mode: Option<String>,
        reasoning_level: Option<String>,
    },
    /// The native session can not be opened. `gone` = the agent says that it does not know the session to resume.
    OpenFailed {
        error: AgentError,
        gone: bool,
    },
    /// The agent works on something that nobody asked for. Items that follow belong to it, until [`Self::TurnEnded`].
    AgentTurnStarted,
    /// `body` has the fields of the item type in the contract (`text`; `command`, `cwd`; `changes`; `server`, `tool`,
    /// `arguments`, …).
    ItemStarted {
        item: String,
        item_type: ItemType,
        body: Map<String, Value>,
    },
    /// Appends to the item's field `text` or `output`.
    ItemDelta {
        item: String,
        field: DeltaField,
        text: String,
    },
    /// Replaces these fields of the open item; `item_type` when the agent has only now said what it is.
    ItemSet {
        item: String,
        item_type: Option<ItemType>,
        body: Map<String, Value>,
    },
    /// Ends the item; `body` replaces fields, all others stay as they are. A null value removes the field.
    ItemCompleted {
        item: String,
        status: ItemStatus,
        body: Map<String, Value>,
    },
    /// The open item goes on behind the end of its turn, which is about to be told. It is completed as any other, while
    /// another turn runs or none.
    ItemGoesOn {
        item: String,
    },
    /// The running turn had ended before the agent heard of a [`Command::Steer`]: the input was not taken.
    SteerRefused(Steer),
    ApprovalAsked {
        key: String,
        /// The item that it is about, if there is one.
        item: Option<String>,
        title: String,
        /// `{type: command|file_change|mcp_tool|other, command, cwd, changes, tool, arguments}`
        subject: Map<String, Value>,
        options: Vec<ApprovalOption>,
    },
    /// The agent does not wait for this answer any more.
    ApprovalWithdrawn {
        key: String,
        reason: String,
    },
    /// The agent's plan, whole: `[{content, priority, status}]`.
    Plan {
        entries: Vec<Value>,
    },
    Usage(Usage),
    /// What the agent now runs with; None = not told.
    SettingsChanged {
        model: Option<String>,
        mode: Option<String>,
        reasoning_level: Option<String>,
    },
    TitleChanged {
        title: String,
    },
    TurnEnded {
        /// A terminal one.
        status: TurnStatus,
        stop_reason: Option<String>,
        error: Option<AgentError>,
    },
    /// Something worth telling a person, not an answer of the model.
    Notice {
        text: String,
        data: Value,
    },
    /// What we did not understand, kept as it came (cut to a bound).
    Unparsed {
        text: String,
    },
    /// The agent asks us to do something on the machine; answered by [`Command::HostAnswer`]. Until then it is in the
    /// snapshot, and an adapter that is restored from it asks again.
    Host {
        key: String,
        request: HostRequest,
    },
    /// The agent wants no answer to this request any more; it has got an error.
    HostTakenBack {
        key: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaField {
    Text,
    Output,
}

impl DeltaField {
    pub fn as_str(self) -> &'static str {
        match self {
            DeltaField::Text => "text",
            DeltaField::Output => "output",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ApprovalOption {
    pub id: String,
    pub label: String,
    /// A word of [`OptionKind`].
    pub kind: String,
}

impl ApprovalOption {
    pub fn option_kind(&self) -> Option<OptionKind> {
        OptionKind::parse(&self.kind)
    }
}

/// An agent's failure, as it told it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentError {
    pub message: String,
    /// `authentication_required`, `model_error`, `protocol_error`, `agent_exited`, …
    pub code: String,
    /// What the agent sent with it; null when nothing.
    #[serde(default)]
    pub data: Value,
}

/// Tokens and money, normalised; None where the agent does not tell. Counts are of the running turn, unless the agent
/// only tells totals of the session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    pub input_tokens: Option<i64>,
    pub output_tokens: Option<i64>,
    pub cached_input_tokens: Option<i64>,
    pub reasoning_tokens: Option<i64>,
    pub total_tokens: Option<i64>,
    /// Tokens in the context window now.
    pub context_used: Option<i64>,
    /// Tokens that the context window holds.
    pub context_window: Option<i64>,
    /// US dollars, as the agent tells it.
    pub cost_usd: Option<f64>,
    /// As the agent sent it.
    pub raw: Value,
}

/// What an agent may ask of the machine (ACP v1 `fs/*` and `terminal/*`). Paths are as the agent sent them; the
/// session thread decides whether they are inside the session's folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum HostRequest {
    /// `line` counts from 1; `limit` is a number of lines. Answer: `{"content": text}`.
    ReadTextFile { path: String, line: Option<u64>, limit: Option<u64> },
    /// Answer: `{}`.
    WriteTextFile { path: String, content: String },
    /// Answer: `{"terminalId": id}`.
    CreateTerminal {
        command: String,
        args: Vec<String>,
        env: Vec<(String, String)>,
        cwd: Option<String>,
        output_byte_limit: Option<u64>,
    },
    /// Answer: `{"output", "truncated", "exitStatus"}`.
    TerminalOutput { terminal_id: String },
    /// Answered when the command has ended: `{"exitCode", "signal"}`.
    WaitForTerminalExit { terminal_id: String },
    /// Ends the command, keeps the output. Answer: `{}`.
    KillTerminal { terminal_id: String },
    /// Ends the command and forgets it. Answer: `{}`.
    ReleaseTerminal { terminal_id: String },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permission_modes_have_an_order_of_width() {
        for (than, wider) in [
            (Some("read_only"), "require_approval default full_auto danger_full_access plan"),
            (Some("require_approval"), "read_only default full_auto danger_full_access plan"),
            (Some("default"), "full_auto danger_full_access"),
            (Some("plan"), "full_auto danger_full_access"),
            (None, "full_auto danger_full_access"),
            (Some("full-auto"), "danger_full_access"),
            (Some("danger_full_access"), ""),
        ] {
            let words = PERMISSION_MODES.iter().chain(&["plan"]);
            let found = words.filter(|word| is_wider(word, than)).copied();
            let mut expected: Vec<&str> = wider.split_whitespace().collect();
            let mut found: Vec<&str> = found.collect();
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected, "than {than:?}");
        }
        assert_eq!(common_permission_mode("read-only"), Some("read_only"));
    }

    #[test]
    fn a_word_that_looks_like_a_permission_mode_of_ours_must_be_it() {
        for word in PERMISSION_MODES.iter().chain(&["acceptEdits", "read-only", "", "ask"]) {
            check_permission_mode("acp", word).unwrap();
        }
        for (word, meant) in [
            ("require-approval", "require_approval"),
            ("Require_Approval", "require_approval"),
            (" require_approval", "require_approval"),
            ("requireApproval", "require_approval"),
            ("readonly", "read_only"),
            ("dangerFullAccess", "danger_full_access"),
            ("Default", "default"),
        ] {
            for provider in ["acp", "demo"] {
                let error = check_permission_mode(provider, word).unwrap_err();
                let told = format!("permission_mode is {word:?}; write it {meant:?}");
                assert_eq!(error.told(), told);
            }
        }
    }
}
