//! The configuration as people write it: TOML, every key optional, unknown keys refused.
//!
//! Keys that older servers know are accepted; those without a meaning here are told at the start (see
//! [`File::without_meaning`]).

use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Default, Deserialize)]
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
#[serde(deny_unknown_fields, default)]
pub struct Server {
    pub bind_address: Option<String>,
    pub public_base_url: Option<String>,
    pub base_path: Option<String>,
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
    pub max_connections: Option<usize>,
    pub max_streams: Option<usize>,
    pub shutdown_grace_secs: Option<u64>,
    pub stuck_after_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Auth {
    pub mode: Option<String>,
    pub token: Option<String>,
    pub token_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    pub root_dir: Option<String>,
    pub sqlite_path: Option<String>,
    pub logs_dir: Option<String>,
    pub providers_dir: Option<String>,
    pub synchronous: Option<String>,
    pub max_database_bytes: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Providers {
    pub claude_auth_mode: Option<String>,
    pub codex: Option<Cli>,
    pub claude: Option<Cli>,
    pub acp: Option<Acp>,
    pub demo: Option<Vendor>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Vendor {
    pub enabled: Option<bool>,
    pub max_instances: Option<usize>,
    pub max_sessions_per_instance: Option<usize>,
    pub turn_timeout_secs: Option<u64>,
    pub request_timeout_secs: Option<u64>,
    pub idle_sleep_secs: Option<u64>,
    pub env_passthrough: Vec<String>,
}

/// A vendor's own program.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cli {
    pub enabled: Option<bool>,
    pub max_instances: Option<usize>,
    pub max_sessions_per_instance: Option<usize>,
    pub turn_timeout_secs: Option<u64>,
    pub request_timeout_secs: Option<u64>,
    pub idle_sleep_secs: Option<u64>,
    pub env_passthrough: Vec<String>,
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Acp {
    pub enabled: Option<bool>,
    pub max_instances: Option<usize>,
    pub max_sessions_per_instance: Option<usize>,
    pub turn_timeout_secs: Option<u64>,
    pub request_timeout_secs: Option<u64>,
    pub wait_timeout_secs: Option<u64>,
    pub idle_sleep_secs: Option<u64>,
    pub env_passthrough: Vec<String>,
    pub client_fs: Option<bool>,
    pub client_terminal: Option<bool>,
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub transport: Option<String>,
    pub title: Option<String>,
    pub agents: BTreeMap<String, Agent>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Agent {
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub transport: Option<String>,
    pub title: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    pub timeout_secs: Option<u64>,
    pub on_timeout: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Events {
    pub live_queue_capacity: Option<u64>,
    pub critical_queue_capacity: Option<u64>,
    pub team_queue_capacity: Option<u64>,
    pub delta_retention_hours: Option<f64>,
    pub heartbeat_secs: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sessions {
    pub retention_days: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keeper {
    pub lease_secs: Option<u64>,
    pub grace_ms: Option<u64>,
    pub journal_bytes_max: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    pub max_image_bytes: Option<usize>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Mcp {
    pub enabled: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Processes {
    pub enabled: Option<bool>,
    pub max_concurrent: Option<u64>,
    pub default_timeout_ms: Option<u64>,
    pub max_output_bytes_per_process: Option<u64>,
    pub allow_shell: Option<bool>,
    pub env_passthrough: Vec<String>,
    pub kill_grace_ms: Option<u64>,
    pub log_retention_hours: Option<f64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Teams {
    pub enabled: Option<bool>,
    pub non_lead_can_add_members: Option<bool>,
    pub non_lead_can_remove_members: Option<bool>,
    /// None = those that are built in; a list replaces them.
    pub model_presets: Option<Vec<ModelPreset>>,
    pub max_attempts: Option<u64>,
    pub retry_pause_ms: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPreset {
    pub name: String,
    pub provider: Option<String>,
    pub model: Option<String>,
    pub thinking_effort: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Worktrees {
    pub enabled: Option<bool>,
    pub root_dir: Option<String>,
    pub init_script_path: Option<String>,
    pub deletion_policy_default: Option<String>,
    pub init_timeout_secs: Option<u64>,
    pub git_timeout_secs: Option<u64>,
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
