//! What stands in records as JSON text, in the shapes that the API document tells.
//!
//! Only tests are built with this: the server carries such text from the agent's adapter to the client without looking
//! into it. `tests/it/openapi` holds these shapes to what a server really sends.

#![allow(dead_code, reason = "types of the document, never made")]

use super::OptionKind;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Any JSON object.
pub type Object = BTreeMap<String, Value>;

/// Tokens and money of a turn, or of all turns of a session; null where the agent does not tell.
#[derive(JsonSchema, Serialize)]
pub struct Usage {
    input_tokens: Option<i64>,
    output_tokens: Option<i64>,
    cached_input_tokens: Option<i64>,
    reasoning_tokens: Option<i64>,
    total_tokens: Option<i64>,
    /// Tokens in the context window now.
    context_used: Option<i64>,
    /// Tokens that the context window holds.
    context_window: Option<i64>,
    /// US dollars, as the agent tells it.
    cost_usd: Option<f64>,
    /// As the agent sent it.
    raw: Value,
}

/// An agent's failure, as it told it.
#[derive(JsonSchema, Serialize)]
pub struct AgentError {
    message: String,
    /// `authentication_required`, `model_error`, `protocol_error`, `agent_exited`, …
    code: String,
    /// What the agent sent with it.
    data: Value,
}

/// One piece of a turn's input, as it was checked.
#[derive(JsonSchema, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Input {
    Text {
        text: String,
    },
    Image {
        /// Base64.
        data: String,
        media_type: String,
    },
    ResourceLink {
        uri: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
}

/// What an approval is about: `type` tells which of the fields are there.
#[derive(JsonSchema, Serialize)]
pub struct ApprovalSubject {
    r#type: SubjectType,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Option<Vec<FileChange>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Value>,
    /// The first characters of the prompt that a gate holds back.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    /// More that the agent told.
    #[serde(flatten)]
    more: Object,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum SubjectType {
    Command,
    FileChange,
    McpTool,
    Other,
}

#[derive(JsonSchema, Serialize)]
pub struct ApprovalOption {
    id: String,
    label: String,
    kind: OptionKind,
}

#[derive(JsonSchema, Serialize)]
pub struct FileChange {
    path: String,
    kind: ChangeKind,
    /// A unified diff; null where the agent does not tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    diff: Option<Option<String>>,
    /// Where it moved to.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum ChangeKind {
    Add,
    Modify,
    Delete,
    Move,
}

/// One step of an agent's plan, as it told it.
#[derive(JsonSchema, Serialize)]
pub struct PlanEntry {
    content: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Option<String>>,
    #[serde(flatten)]
    more: Object,
}

/// The fields of an item that belong to its type. What the agent does not tell is left out.
#[derive(JsonSchema, Serialize)]
pub struct ItemBody {
    /// Of messages, reasoning, images, notices and others.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    /// Of a `user_message` that was more than text.
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<Vec<ShownInput>>,
    /// Of a `command`.
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cwd: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_code: Option<Option<i64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<Option<String>>,
    /// The command goes on behind the end of its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    still_running: Option<bool>,
    /// Of a `file_change`.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Option<Vec<FileChange>>>,
    /// Of a `tool_call` or a `web_search`.
    #[serde(skip_serializing_if = "Option::is_none")]
    server: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tool: Option<Option<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    arguments: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    /// Of a `plan`: its last state.
    #[serde(skip_serializing_if = "Option::is_none")]
    entries: Option<Vec<PlanEntry>>,
    /// More of an `image`, a `notice` or another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Value>,
    /// What else the agent told.
    #[serde(flatten)]
    more: Object,
}

/// Input as an item shows it: images by their size.
#[derive(JsonSchema, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ShownInput {
    Text { text: String },
    Image { media_type: String, base64_bytes: u64 },
    ResourceLink { uri: String, name: Option<String> },
}

macro_rules! words {
    ($(#[doc = $doc:literal] $name:ident = $($word:literal)|+;)+) => {$(
        #[doc = $doc]
        pub struct $name;

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "enum": [$($word),+]})
            }
        }
    )+};
}

// Words that bodies take as texts.
words! {
    /// How a worktree is wished for; `use_existing` is `reuse`.
    PlaceWord = "create" | "reuse" | "use_existing";
    /// An answer to an approval; two words and what clients say for them.
    DecisionWord = "accept" | "accepted" | "decline" | "declined" | "reject" | "rejected";
    /// How far an answer to an approval reaches.
    ScopeWord = "once" | "session";
    /// When a turn begins.
    WhenWord = "now" | "queue" | "steer";
    /// What a process is ended with first.
    SignalWord = "TERM" | "KILL" | "INT" | "HUP" | "QUIT" | "SIGTERM" | "SIGKILL" | "SIGINT"
        | "SIGHUP" | "SIGQUIT";
    /// Whether a creator hears of its member.
    SubscriptionWord = "auto" | "unsubscribed";
}

/// What a client may put into a turn or a message: a text is short for an object of the type `text`.
#[derive(JsonSchema, serde::Deserialize)]
#[serde(untagged)]
pub enum GivenInput {
    Short(String),
    Typed(Box<TypedInput>),
}

/// What is said with `mimeType` and further down is taken, since blocks of ACP and of MCP have it, and not kept.
#[derive(JsonSchema, serde::Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum TypedInput {
    Text {
        text: String,
        annotations: Option<Value>,
        #[serde(rename = "_meta")]
        meta: Option<Value>,
    },
    /// `path` of a file that the server can read, or `data` in base64.
    Image {
        #[schemars(regex(pattern = "^/"))]
        path: Option<String>,
        data: Option<String>,
        media_type: Option<String>,
        #[serde(rename = "mediaType")]
        media: Option<Value>,
        #[serde(rename = "mimeType")]
        mime: Option<Value>,
        uri: Option<String>,
        annotations: Option<Value>,
        #[serde(rename = "_meta")]
        meta: Option<Value>,
    },
    ResourceLink {
        uri: String,
        name: Option<String>,
        #[serde(rename = "mimeType")]
        mime: Option<Value>,
        title: Option<Value>,
        description: Option<Value>,
        size: Option<Value>,
        annotations: Option<Value>,
        #[serde(rename = "_meta")]
        meta: Option<Value>,
    },
}

/// An MCP server beside ours: over stdio with `command`, else with `url`.
#[derive(JsonSchema, serde::Deserialize)]
pub struct McpServer {
    name: String,
    command: Option<String>,
    args: Option<Vec<String>>,
    /// `http` or `sse`.
    r#type: Option<String>,
    url: Option<String>,
    env: Option<Pairs>,
    headers: Option<Pairs>,
    #[serde(flatten)]
    more: Object,
}

#[derive(JsonSchema, serde::Deserialize)]
#[serde(untagged)]
enum Pairs {
    Object(BTreeMap<String, String>),
    List(Vec<Pair>),
}

#[derive(JsonSchema, serde::Deserialize)]
struct Pair {
    name: String,
    value: String,
}
