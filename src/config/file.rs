//! The configuration as people write it: TOML, every key optional, unknown keys refused.
//!
//! Keys that older servers know are accepted; those without a meaning here are told at the start (see
//! [`File::without_meaning`]).

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct File {
    pub server: Server,
    pub auth: Auth,
    pub data: Data,
    pub providers: Providers,
    pub approvals: Approvals,
    pub events: Events,
    pub sessions: Sessions,
    pub keeper: Keeper,
    pub limits: Limits,
    pub mcp: Mcp,
    pub processes: Processes,
    pub teams: Teams,
    pub worktrees: Worktrees,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// `host:port` to listen on; port 0 takes any free one. Whoever has the token can run commands as you: keep loopback,
    /// and put a proxy with TLS before it to open it. `--bind` is stronger. Default: `"127.0.0.1:8080"`.
    pub bind_address: Option<String>,
    /// The URL under which clients reach the server when a proxy stands before it; its host is good in the Host header.
    /// Default: that of the bound address.
    pub public_base_url: Option<String>,
    /// A prefix that a proxy leaves on the path; begins with a slash. Default: `""`.
    pub base_path: Option<String>,
    /// Names in the Host header beside loopback, the bound address and the host of public_base_url. Default: `[]`.
    pub allowed_hosts: Vec<String>,
    /// Web pages that may call, as browsers send them in Origin. Default: `[]`.
    pub cors_origins: Vec<String>,
    /// Open connections, streams among them; one more gets 503. At least 1. Default: `4096`.
    pub max_connections: Option<usize>,
    /// Open streams; one more gets 503. At least 1. Default: `1024`.
    pub max_streams: Option<usize>,
    /// Seconds that the whole shutdown may take, whatever clients and agents do. Default: `10`.
    pub shutdown_grace_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// Can only be `static_bearer`. Default: `"static_bearer"`.
    pub mode: Option<String>,
    /// The operator's token; not blank. Default: a random one, made at the first start and kept in token_file.
    pub token: Option<String>,
    /// Where the token is kept when none is set here; relative paths start in data.root_dir. Default: `"auth/api-token"`.
    pub token_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// The folder of all that the server keeps; a relative path starts at the folder of this file. `--data-dir` is stronger.
    /// Default: in the home folder, `.gg-runtime`.
    pub root_dir: Option<String>,
    /// The database; a relative path starts in root_dir. Default: `"runtime.sqlite3"`.
    pub sqlite_path: Option<String>,
    /// Output of processes; a relative path starts in root_dir. Default: `"logs"`.
    pub logs_dir: Option<String>,
    /// What the server keeps for Codex, Claude and the demo agent: logins, settings, sessions. A relative path starts in
    /// root_dir. Default: `"providers"`.
    pub providers_dir: Option<String>,
    /// `full`: what was acknowledged survives a loss of power. `normal`: it survives every crash of the program; a loss of
    /// power may take the last commits. Default: `"full"`.
    pub synchronous: Option<String>,
    /// While the database holds more bytes than this, new work is refused (503 `capacity`). At least 1048576. Default: no
    /// limit but the disk.
    pub max_database_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Providers {
    /// Whose login Claude uses. `host_machine`: yours, as the `claude` command has it. `runtime_managed`: files in the data
    /// folder that only the server's own routes write. The variable `GG_CLAUDE_AUTH_MODE` is stronger. Default:
    /// `"host_machine"`.
    pub claude_auth_mode: Option<String>,
    pub codex: Option<Cli>,
    pub claude: Option<Cli>,
    pub acp: Option<Acp>,
    pub demo: Option<Vendor>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Vendor {
    /// Default: true when no other provider is on.
    pub enabled: Option<bool>,
    /// As `providers.acp.max_instances`. Default: `16`.
    pub max_instances: Option<usize>,
    /// As `providers.acp.max_sessions_per_instance`. Default: `4`.
    pub max_sessions_per_instance: Option<usize>,
    pub turn_timeout_secs: Option<u64>,
    pub request_timeout_secs: Option<u64>,
    pub idle_sleep_secs: Option<u64>,
    pub env_passthrough: Vec<String>,
}

/// A vendor's own program.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Cli {
    /// Default: true when this table is there or the program is on PATH.
    pub enabled: Option<bool>,
    pub max_instances: Option<usize>,
    /// As `providers.acp.max_sessions_per_instance`. Default: 8 for Codex, 4 for Claude.
    pub max_sessions_per_instance: Option<usize>,
    pub turn_timeout_secs: Option<u64>,
    pub request_timeout_secs: Option<u64>,
    pub idle_sleep_secs: Option<u64>,
    pub env_passthrough: Vec<String>,
    /// The program, on PATH or a path. Default: the name of the provider.
    pub command: Option<String>,
    /// Arguments for the program; of Codex those behind `codex app-server`. Default: `[]`.
    pub args: Vec<String>,
    /// Variables for the program. Default: none.
    pub env: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Acp {
    /// Default: true when an agent is named.
    pub enabled: Option<bool>,
    /// With max_sessions_per_instance: their product is how many agents may live at once. Beyond it the one that has been
    /// idle longest is put to sleep; when none is idle, 503. At least 1. Default: `4`.
    pub max_instances: Option<usize>,
    /// See max_instances. At least 1. Default: `4`.
    pub max_sessions_per_instance: Option<usize>,
    /// A turn that takes longer, in seconds, is interrupted. Default: `0`, no limit.
    pub turn_timeout_secs: Option<u64>,
    /// Seconds for the start of an agent, and for each of its settings. At least 1. Default: `30`.
    pub request_timeout_secs: Option<u64>,
    /// Accepted, and does nothing: turn_timeout_secs bounds a turn.
    pub wait_timeout_secs: Option<u64>,
    /// An agent that has been idle for so many seconds is ended; the next turn starts it again. 0: never. Default: `900`.
    pub idle_sleep_secs: Option<u64>,
    /// Variables of the server that its agents may see, beside HOME, PATH, LANG and the like. Default: `[]`.
    pub env_passthrough: Vec<String>,
    /// Whether agents may read and write files through the server. Default: `false`.
    pub client_fs: Option<bool>,
    /// Whether agents may run commands through the server. Default: `false`.
    pub client_terminal: Option<bool>,
    /// The agent's program, on PATH or a path: the agent `default`.
    pub command: Option<String>,
    /// Its arguments. Default: `[]`.
    pub args: Vec<String>,
    /// Variables for it, beside those that it gets anyway. Default: none.
    pub env: BTreeMap<String, String>,
    /// Can only be `stdio`. Default: `"stdio"`.
    pub transport: Option<String>,
    /// Its name for people. Default: none.
    pub title: Option<String>,
    pub agents: BTreeMap<String, Agent>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// The program of the agent of that name, on PATH or a path. Needed.
    pub command: Option<String>,
    /// Its arguments. Default: `[]`.
    pub args: Vec<String>,
    /// Variables for it, beside those that it gets anyway. Default: none.
    pub env: BTreeMap<String, String>,
    /// Can only be `stdio`. Default: `"stdio"`.
    pub transport: Option<String>,
    /// Its name for people. Default: none.
    pub title: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// Seconds after which a question that nobody answered is declined. Default: it waits for ever.
    pub timeout_secs: Option<u64>,
    /// Can only be `decline`. Default: `"decline"`.
    pub on_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Accepted, and does nothing: streams read the log, there is no queue to size.
    pub live_queue_capacity: Option<u64>,
    /// Accepted, and does nothing: streams read the log, there is no queue to size.
    pub critical_queue_capacity: Option<u64>,
    /// Accepted, and does nothing: streams read the log, there is no queue to size.
    pub team_queue_capacity: Option<u64>,
    /// Deltas of finished items are dropped after so many hours; what they tell is told again, whole, by `item.completed`.
    /// Default: never.
    pub delta_retention_hours: Option<u64>,
    /// A stream that has nothing to tell sends a comment every so many seconds. At least 1. Default: `10`.
    pub heartbeat_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// A closed session is purged with its whole log after so many days. More than 0. Default: never.
    pub retention_days: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Keeper {
    /// Seconds that agents and processes go on without any server; then they are ended. Default: `86400`.
    pub lease_secs: Option<u64>,
    /// Milliseconds between SIGTERM and SIGKILL for an agent. Default: `5000`.
    pub grace_ms: Option<u64>,
    /// Bytes of output of one agent that wait on disk while no server reads them; at the bound the agent waits.
    /// Default: `67108864`.
    pub journal_bytes_max: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one image of an input. Default: `8388608`.
    pub max_image_bytes: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    /// Whether agents are given the tools of the server: each is started with the MCP server `gg` and a token of its own.
    /// Default: `true`.
    pub enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    /// Whether commands may be started. Default: `true`.
    pub enabled: Option<bool>,
    /// Processes that run at once; further ones get 503 or wait, as the request says. 1 to 10000. Default: `32`.
    pub max_concurrent: Option<u64>,
    /// Milliseconds after which a process is ended, unless its request says otherwise. 0: no limit. Default: `600000`.
    pub default_timeout_ms: Option<u64>,
    /// Bytes that the log of each stream keeps, from its start; the rest is counted. Default: `20000000`.
    pub max_output_bytes_per_process: Option<u64>,
    /// Whether a `command` goes to `sh -lc`; otherwise it is split at white space. Default: `true`.
    pub allow_shell: Option<bool>,
    /// Variables of the server that commands may see, beside HOME, PATH, LANG and the like. Default: `[]`.
    pub env_passthrough: Vec<String>,
    /// Milliseconds between the first signal and SIGKILL, at most an hour. Default: `5000`.
    pub kill_grace_ms: Option<u64>,
    /// Hours that records, logs and events of ended processes are kept. 0: for ever. Default: `168`.
    pub log_retention_hours: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Teams {
    /// Whether teams can be made, and mail be sent. Default: `true`.
    pub enabled: Option<bool>,
    /// Whether members that do not lead may add others through their tools. Default: `false`.
    pub non_lead_can_add_members: Option<bool>,
    /// Whether members that do not lead may remove others through their tools. Default: `false`.
    pub non_lead_can_remove_members: Option<bool>,
    /// None = those that are built in; a list replaces them.
    pub model_presets: Option<Vec<ModelPreset>>,
    /// Attempts to bring a message to a member before its delivery has failed. At least 1. Default: `5`.
    pub max_attempts: Option<u64>,
    /// Milliseconds after the first attempt that failed; twice as many after each further one, up to a minute. At least 1.
    /// Default: `1000`.
    pub retry_pause_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelPreset {
    /// The word by which members are spawned. A list replaces the eight that are built in: planner, designer, frontend, fast,
    /// codex, deep, opus, sonnet. Needed.
    pub name: String,
    /// Default: Claude's for a model that begins with `claude-`, else Codex'.
    pub provider: Option<String>,
    /// Default: the agent's own choice, when provider is set.
    pub model: Option<String>,
    /// The reasoning level. Default: the agent's own choice.
    pub thinking_effort: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Worktrees {
    /// Whether worktrees can be made. Default: `true`.
    pub enabled: Option<bool>,
    /// Every worktree lies in it, in a folder for its repository; relative paths start in data.root_dir. Default:
    /// `"worktrees"`.
    pub root_dir: Option<String>,
    /// Run in a new worktree when it is there; an absolute path is one script for all repositories. Default:
    /// `".agents/gg/worktree-init.sh"`.
    pub init_script_path: Option<String>,
    /// What becomes of a worktree that no session claims any more: `delete_on_last_claim` (never with work in it) or
    /// `retain_on_last_claim`. Default: `"delete_on_last_claim"`.
    pub deletion_policy_default: Option<String>,
    /// Seconds for the init script with all that it starts. At least 1. Default: `300`.
    pub init_timeout_secs: Option<u64>,
    /// Seconds for each git command, its hooks and filters included. At least 1. Default: `120`.
    pub git_timeout_secs: Option<u64>,
    /// Seconds that a request waits for another one's work on the same repository; then 503. At least 1. Default: `30`.
    pub lock_wait_secs: Option<u64>,
}

impl File {
    /// The keys that are set here and do nothing in this version, each with what stands in its place.
    pub fn without_meaning(&self) -> Vec<String> {
        let mut notices = Vec::new();
        let mut tell = |is_set: bool, key: &str, instead: &str| {
            if is_set {
                notices.push(format!("{key} is accepted and does nothing: {instead}"));
            }
        };
        let events = &self.events;
        let queues = "streams read the log at their own pace, there is no queue to size";
        tell(events.live_queue_capacity.is_some(), "events.live_queue_capacity", queues);
        tell(events.critical_queue_capacity.is_some(), "events.critical_queue_capacity", queues);
        tell(events.team_queue_capacity.is_some(), "events.team_queue_capacity", queues);
        let wait = self.providers.acp.as_ref().is_some_and(|acp| acp.wait_timeout_secs.is_some());
        let turn_limit = "a turn has no time limit unless turn_timeout_secs sets one";
        tell(wait, "providers.acp.wait_timeout_secs", turn_limit);
        notices
    }
}
