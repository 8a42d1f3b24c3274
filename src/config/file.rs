//! The configuration as people write it: TOML, every key optional, unknown keys refused.
//!
//! Keys that older servers know are accepted; those without a meaning here are told at the start (see
//! [`File::without_meaning`]).
//!
//! What stands above a key is its meaning in docs/CONFIGURATION.md, which a test makes of these types (see `page`).

use serde::Deserialize;
use std::collections::BTreeMap;

/// A whole file.
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

/// Where it listens, who may call, and how many at once.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Where it listens, `host:port`; port 0 takes a free one. `--bind` is stronger. Whoever has the token can
    /// run commands as you: put a proxy with TLS in front before this is more than loopback.
    pub bind_address: Option<String>,
    /// The URL that clients use, when it is another one than the bound address (behind a proxy). It is what
    /// `GET /health` tells, and its host is allowed in `Host`.
    pub public_base_url: Option<String>,
    /// A prefix that a proxy leaves on the path; requests with and without it are understood. It begins with a
    /// slash.
    pub base_path: Option<String>,
    /// Names that are allowed in `Host`, beside loopback, the bound address and the host of `public_base_url`.
    pub allowed_hosts: Vec<String>,
    /// Origins whose web pages may call, as browsers send them: scheme, host and port, no slash at the end.
    pub cors_origins: Vec<String>,
    /// Connections that may be open, streams among them; one more gets 503.
    pub max_connections: Option<usize>,
    /// Streams that may be open; one more gets 503.
    pub max_streams: Option<usize>,
    /// How long the whole shutdown may take, whatever clients and agents do.
    pub shutdown_grace_secs: Option<u64>,
    /// A thread that is at one piece of work for longer is told of, in the log and in `GET /v1/diagnostics`.
    pub stuck_after_secs: Option<u64>,
}

/// How clients prove who they are.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    /// A bearer token is the only way there is.
    pub mode: Option<String>,
    /// The operator's token. Left out: a random one is made at the first start and kept in `token_file`.
    pub token: Option<String>,
    /// Where that token is kept. From the data folder.
    pub token_file: Option<String>,
}

/// What is kept, and where.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// The data folder. `--data-dir` is stronger. From the folder of the configuration; `~` is not understood
    /// here.
    pub root_dir: Option<String>,
    /// The database. From the data folder. A file beside it (`….lock`) keeps other servers away.
    pub sqlite_path: Option<String>,
    /// What processes have written. From the data folder.
    pub logs_dir: Option<String>,
    /// Logins and states that are kept for agents, a folder for each provider. From the data folder.
    pub providers_dir: Option<String>,
    /// `full`: a commit survives a loss of power. `normal`: it survives every crash of the program, and is
    /// faster alone.
    pub synchronous: Option<String>,
    /// New work is refused (503 `capacity`) while the database holds more than this. Left out: the disk is the
    /// limit.
    pub max_database_bytes: Option<u64>,
}

/// What is true of all providers; each has a table of its own below.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Providers {
    /// Whose login Claude uses. `host_machine`: yours, as the `claude` command has it. `runtime_managed`: files
    /// in the data folder that only the server's own routes write. `GG_CLAUDE_AUTH_MODE` is stronger.
    pub claude_auth_mode: Option<String>,
    pub codex: Option<Cli>,
    pub claude: Option<Cli>,
    pub acp: Option<Acp>,
    pub demo: Option<Vendor>,
}

/// The scripted agent that comes with the server.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Vendor {
    /// Whether it can be used. Left out: yes when no other provider is switched on by this file.
    pub enabled: Option<bool>,
    /// Live agents at once are `max_instances` × `max_sessions_per_instance`; for one more the agent that has
    /// been idle longest is put to sleep, and when none is idle the request gets 503.
    pub max_instances: Option<usize>,
    /// See `max_instances`; only the product counts.
    pub max_sessions_per_instance: Option<usize>,
    /// A turn that takes longer is interrupted. 0: no limit.
    pub turn_timeout_secs: Option<u64>,
    /// How long the start of an agent and each of its settings may take.
    pub request_timeout_secs: Option<u64>,
    /// The process of an agent that has been idle so long ends; the next turn starts it again. 0: never.
    pub idle_sleep_secs: Option<u64>,
    /// Names of variables of the server that its agents may see, beside HOME, PATH, LANG and the like.
    pub env_passthrough: Vec<String>,
}

/// A vendor's own program.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Cli {
    /// Whether it can be used. Left out: yes when the program is on PATH or this table is there.
    pub enabled: Option<bool>,
    /// Live agents at once are `max_instances` × `max_sessions_per_instance`; for one more the agent that has
    /// been idle longest is put to sleep, and when none is idle the request gets 503.
    pub max_instances: Option<usize>,
    /// See `max_instances`; only the product counts.
    pub max_sessions_per_instance: Option<usize>,
    /// A turn that takes longer is interrupted. 0: no limit.
    pub turn_timeout_secs: Option<u64>,
    /// How long the start of an agent and each of its settings may take.
    pub request_timeout_secs: Option<u64>,
    /// The process of an agent that has been idle so long ends; the next turn starts it again. 0: never.
    pub idle_sleep_secs: Option<u64>,
    /// Names of variables of the server that its agents may see, beside HOME, PATH, LANG and the like.
    pub env_passthrough: Vec<String>,
    /// The program: a name on PATH, or a path.
    pub command: Option<String>,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Variables that its agents get.
    pub env: BTreeMap<String, String>,
}

/// Agents that speak the Agent Client Protocol. Its own `command` is the agent `default`; `agents` has more.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Acp {
    /// Whether they can be used. Left out: yes when an agent is named.
    pub enabled: Option<bool>,
    /// Live agents at once are `max_instances` × `max_sessions_per_instance`; for one more the agent that has
    /// been idle longest is put to sleep, and when none is idle the request gets 503.
    pub max_instances: Option<usize>,
    /// See `max_instances`; only the product counts.
    pub max_sessions_per_instance: Option<usize>,
    /// A turn that takes longer is interrupted. 0: no limit.
    pub turn_timeout_secs: Option<u64>,
    /// How long the start of an agent and each of its settings may take.
    pub request_timeout_secs: Option<u64>,
    /// Accepted, does nothing: a turn has no time limit unless `turn_timeout_secs` sets one.
    pub wait_timeout_secs: Option<u64>,
    /// The process of an agent that has been idle so long ends; the next turn starts it again. 0: never.
    pub idle_sleep_secs: Option<u64>,
    /// Names of variables of the server that its agents may see, beside HOME, PATH, LANG and the like.
    pub env_passthrough: Vec<String>,
    /// Whether agents may read and write files through the server.
    pub client_fs: Option<bool>,
    /// Whether agents may run commands through the server.
    pub client_terminal: Option<bool>,
    /// The program of the agent `default`: a name on PATH, or a path.
    pub command: Option<String>,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Variables that its agents get.
    pub env: BTreeMap<String, String>,
    /// How it is talked to: `stdio` is the only way there is.
    pub transport: Option<String>,
    /// Its name for people.
    pub title: Option<String>,
    pub agents: BTreeMap<String, Agent>,
}

/// One more agent, by the name that a session gives as `agent`.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    /// The program: a name on PATH, or a path. Needed.
    pub command: Option<String>,
    /// Arguments of the program.
    pub args: Vec<String>,
    /// Variables that its agents get.
    pub env: BTreeMap<String, String>,
    /// How it is talked to: `stdio` is the only way there is.
    pub transport: Option<String>,
    /// Its name for people.
    pub title: Option<String>,
}

/// How long a question of an agent waits.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// An approval that nobody has answered for so long expires. Left out: it waits for ever.
    pub timeout_secs: Option<u64>,
    /// What an approval that expires means for the agent: `decline` is the only answer there is.
    pub on_timeout: Option<String>,
}

/// The log of events and its streams.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    /// Accepted, does nothing: a stream reads the log, there is no queue to size.
    pub live_queue_capacity: Option<u64>,
    /// Accepted, does nothing, as `live_queue_capacity`.
    pub critical_queue_capacity: Option<u64>,
    /// Accepted, does nothing, as `live_queue_capacity`.
    pub team_queue_capacity: Option<u64>,
    /// Deltas of finished items go after so long; what they tell is told again, whole, by `item.completed`. 0:
    /// as soon as the item is finished. Left out: never.
    pub delta_retention_hours: Option<f64>,
    /// A stream on which nothing happened for so long gets a comment, so that nobody takes it for dead.
    pub heartbeat_secs: Option<u64>,
}

/// How long closed sessions are kept.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    /// A closed session is purged, with its whole log, after so long. Left out: never.
    pub retention_days: Option<f64>,
}

/// The small programs that hold agents and processes, each of them one.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Keeper {
    /// How long agents and processes go on without any server; then they are ended.
    pub lease_secs: Option<u64>,
    /// Between SIGTERM and SIGKILL, when an agent is ended.
    pub grace_ms: Option<u64>,
    /// Output of one agent that waits on disk while no server reads it; at the bound the agent waits.
    pub journal_bytes_max: Option<u64>,
}

/// Bounds of what clients send.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest image in a prompt; the largest body follows from it.
    pub max_image_bytes: Option<usize>,
}

/// Tools of the server for its agents.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    /// Whether each session's agent is started with the MCP server `gg` and a token of its own.
    pub enabled: Option<bool>,
}

/// Commands that clients and agents have the server run.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    /// Whether new ones may be started. Those that are there can be looked at and ended in any case.
    pub enabled: Option<bool>,
    /// How many run at once; one more gets 503, or waits when the request says `queue`.
    pub max_concurrent: Option<u64>,
    /// One that runs longer is ended, unless its request says otherwise. 0: no limit.
    pub default_timeout_ms: Option<u64>,
    /// The log of each stream keeps so much of its beginning; the rest is counted.
    pub max_output_bytes_per_process: Option<u64>,
    /// Whether a `command` goes to the shell; if not, it is split at white space.
    pub allow_shell: Option<bool>,
    /// Names of variables of the server that commands may see, beside HOME, PATH, LANG and the like.
    pub env_passthrough: Vec<String>,
    /// Between SIGTERM and SIGKILL, unless the request says otherwise.
    pub kill_grace_ms: Option<u64>,
    /// Records, logs and events of a process go so long after its end. 0: never. Parts of an hour are allowed.
    pub log_retention_hours: Option<f64>,
}

/// Sessions that write to each other.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Teams {
    /// Whether teams can be made and mail can be sent.
    pub enabled: Option<bool>,
    /// Whether members that do not lead may add others by their tools.
    pub non_lead_can_add_members: Option<bool>,
    /// Whether members that do not lead may remove others by their tools.
    pub non_lead_can_remove_members: Option<bool>,
    // None = those that are built in; a list replaces them.
    pub model_presets: Option<Vec<ModelPreset>>,
    /// After so many attempts that failed a delivery has failed.
    pub max_attempts: Option<u64>,
    /// The pause after the first attempt that failed; it doubles, up to a minute.
    pub retry_pause_ms: Option<u64>,
    /// A deleted team is purged, with its mail and its whole log, after so long. Left out: never.
    pub retention_days: Option<f64>,
}

/// What a member can be spawned with by one word. A list replaces those that are built in.
#[derive(Debug, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct ModelPreset {
    /// The word; letter case and signs between letters do not count. Needed.
    pub name: String,
    /// Left out: the name of the model tells it, `claude-…` is Claude's and all else Codex'.
    pub provider: Option<String>,
    /// Left out: the agent's own choice; then `provider` is needed.
    pub model: Option<String>,
    /// The reasoning level of the session.
    pub thinking_effort: Option<String>,
}

/// Git worktrees that the server makes.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Worktrees {
    /// Whether they can be made, claimed and cleaned up by requests.
    pub enabled: Option<bool>,
    /// Where they lie, each in a folder for its repository. From the data folder.
    pub root_dir: Option<String>,
    /// Run in each new worktree that has it. From the worktree; an absolute path is one script for all
    /// repositories.
    pub init_script_path: Option<String>,
    /// What happens when no session claims a worktree any more, unless its request says otherwise. One with
    /// work in it is kept in any case.
    pub deletion_policy_default: Option<String>,
    /// How long the init script may take, with all that it starts.
    pub init_timeout_secs: Option<u64>,
    /// How long each git command may take, its hooks and filters included.
    pub git_timeout_secs: Option<u64>,
    /// How long a request waits for another one's work on the same repository; then 503.
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
