//! Answers that handlers put together by hand, in the shapes that the document tells.
//!
//! `tests/it/openapi` holds them to what a server really answers, in both directions: a field that is missing and one
//! that is not told here both fail.

#![allow(dead_code, reason = "types of the document, never made")]

use super::figure::{Connections, Database, KeeperFacts, Streams, TailFacts};
use super::remedy;
use crate::error::Code;
use crate::ledger::approval::ApprovalRecord;
use crate::ledger::claim::ClaimRecord;
use crate::ledger::team::Roster;
use crate::ledger::team::delivery::DeliveryRecord;
use crate::ledger::team::message::MessageRecord;
use crate::ledger::team::operation::OperationRecord;
use crate::ledger::turn::TurnRecord;
use crate::ledger::worktree::WorktreeRecord;
use crate::model::shape::Object;
use crate::model::worktree::{CleanupStatus, InitScriptStatus, WorktreeStatus};
use crate::model::{KilledBy, ProcessStatus, TurnStatus};
use crate::team::DispatchCounts;
use crate::worktree::CleanupResult;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

type Counts = BTreeMap<String, u64>;

/// What is wrong: `error` is for a person and may change, `code` is for programs and never does. The other fields are
/// there where they help.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Error")]
pub(super) struct Wrong {
    error: String,
    #[schemars(with = "ErrorCode")]
    code: String,
    /// With `cursor_ahead`: where the log ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    head: Option<i64>,
    /// With `already_resolved`: the approval as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalRecord>,
    /// With a `conflict` of a worktree: the worktree as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    worktree: Option<WorktreeRecord>,
    /// With `init_script_failed`.
    #[serde(skip_serializing_if = "Option::is_none")]
    init_script: Option<InitScript>,
    /// With `agent_failed`: what keeps the agent from being used.
    #[serde(skip_serializing_if = "Option::is_none")]
    readiness: Option<ReadinessFault>,
    /// Of a wait for the text of a turn that has none to give: the turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    turn: Option<TurnRecord>,
    /// Of a spawn: the operation as it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<OperationRecord>,
}

/// Every code that an error may have.
struct ErrorCode;

impl JsonSchema for ErrorCode {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ErrorCode".into()
    }

    fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        let words: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        let table = remedy::rows().join("\n");
        let head = "| Code | Status | Meaning | What to do |\n|---|---|---|---|";
        schemars::json_schema!({
            "description": format!("{head}\n{table}"),
            "type": "string",
            "enum": words,
        })
    }
}

#[derive(JsonSchema, Serialize)]
struct InitScript {
    path: String,
    exit_code: Option<i64>,
    signal: Option<i64>,
    timed_out: bool,
    /// The last 64 KiB of what it wrote.
    output: String,
    truncated: bool,
}

#[derive(JsonSchema, Serialize)]
struct ReadinessFault {
    provider: String,
    problem: String,
    remedy: String,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Health {
    status: String,
    /// How many providers are on.
    providers: u64,
    public_base_url: String,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Ready {
    status: String,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Version {
    version: String,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Diagnostics {
    providers: Vec<ProviderHealth>,
    processes: Option<ProcessDiagnostics>,
    comms: Option<CommsDiagnostics>,
    recovery: RecoveryDiagnostics,
    worktrees: Option<WorktreeCounts>,
    writer: Writer,
    tail: TailFacts,
    streams: Option<Streams>,
    connections: Connections,
    keepers: Option<Vec<KeeperFacts>>,
    database: Database,
    threads: Vec<WatchedThread>,
    session_threads: u64,
    session_status_counts: Option<Counts>,
    uptime_ms: u64,
    now: i64,
    unread: Vec<Unread>,
}

/// A part of the diagnostics that is null, because it could not be read just now.
#[derive(JsonSchema, Serialize)]
struct Unread {
    part: String,
    error: String,
}

/// A thread that is watched.
#[derive(JsonSchema, Serialize)]
struct WatchedThread {
    name: String,
    /// When its piece of work began; null while it waits.
    busy_since: Option<i64>,
    bound_ms: u64,
    /// It has been at this piece of work for longer than the bound.
    stuck: bool,
}

/// Counters of the one thread that writes, since the server started.
#[derive(JsonSchema, Serialize)]
struct Writer {
    queue_depth: u64,
    commits: u64,
    jobs: u64,
    events: u64,
    batch_max: u64,
    commit_us: u64,
    commit_us_max: u64,
    failed: u64,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct ProvidersDiagnostics {
    providers: Vec<ProviderHealth>,
}

#[derive(JsonSchema, Serialize)]
struct ProviderHealth {
    provider: String,
    healthy: bool,
    health_error: Option<String>,
    auth_status: AuthStatus,
    auth_error: Option<String>,
    program: Option<String>,
    version: Option<String>,
    /// Null while nothing is known yet.
    checked_at: Option<i64>,
    live_agents: u64,
    live_agents_max: u64,
    agents: Vec<String>,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct AuthStatus {
    authenticated: bool,
    /// `auth_json`, `api_key`, `claude_code_oauth`, `agent_managed`, or null.
    mode: Option<String>,
    detail: Option<String>,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct RecoveryDiagnostics {
    /// Null until the start is through.
    startup: Option<Recovered>,
    active_anomalies: Vec<Value>,
}

/// What a start took up.
#[derive(JsonSchema, Serialize)]
pub(super) struct Recovered {
    sessions_attached: u64,
    sessions_resumed: u64,
    processes_adopted: u64,
    orphans_stopped: u64,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct CommsDiagnostics {
    team_count: u64,
    member_count: u64,
    message_count: u64,
    delivery_total: u64,
    delivery_status_counts: Counts,
    dispatcher: DispatchCounts,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct ProcessDiagnostics {
    enabled: bool,
    process_total: u64,
    process_status_counts: Counts,
    max_concurrent: u64,
    queued: u64,
    threads: u64,
    running: Vec<RunningProcess>,
}

#[derive(JsonSchema, Serialize)]
struct RunningProcess {
    process_id: String,
    session_id: Option<String>,
    name: Option<String>,
    pid: Option<i64>,
    started_at: Option<i64>,
    /// How many processes its tree has; null, as the next two, while the server has no descriptor to look with.
    processes: Option<u64>,
    memory_bytes: Option<u64>,
    journal_bytes: Option<u64>,
    stdout_bytes: i64,
    stderr_bytes: i64,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeCounts {
    worktree_total: u64,
    active_claim_total: u64,
    orphaned_claim_total: u64,
    status_counts: Counts,
    deletion_policy_counts: Counts,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct WorktreeDiagnostics {
    #[serde(flatten)]
    counts: WorktreeCounts,
    worktrees: Vec<WorktreeDisk>,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeDisk {
    worktree_id: String,
    status: WorktreeStatus,
    problem: Option<String>,
    worktree_cwd: String,
    active_claim_count: i64,
    disk_bytes: Option<u64>,
    disk_files: Option<u64>,
    /// The walk took too long.
    disk_is_partial: Option<bool>,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Providers {
    providers: Vec<Provider>,
}

#[derive(JsonSchema, Serialize)]
struct Provider {
    kind: String,
    display_name: String,
    enabled: bool,
    /// A session can be made; null while nothing is known yet.
    ready: Option<bool>,
    program: Option<String>,
    version: Option<String>,
    minimum_version: Option<String>,
    authenticated: Option<bool>,
    problem: Option<Problem>,
    checked_at: Option<i64>,
    agents: Vec<ProviderAgent>,
}

#[derive(JsonSchema, Serialize)]
struct ProviderAgent {
    name: String,
    title: Option<String>,
    program: Option<String>,
    ready: Option<bool>,
    problem: Option<Problem>,
}

#[derive(JsonSchema, Serialize)]
struct Problem {
    /// `program_missing`, `program_too_old`, `login_missing` or `no_answer`.
    code: String,
    message: String,
    remedy: String,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Models {
    provider: String,
    models: Vec<Model>,
    /// `agent`: the program's own list; `fixed`: one that clients know.
    source: String,
}

#[derive(JsonSchema, Serialize)]
struct Model {
    id: String,
    display_name: String,
    description: Option<String>,
    reasoning_levels: Vec<String>,
    is_default: bool,
}

/// A turn that was accepted.
#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct TurnAccepted {
    session_id: String,
    turn_id: String,
    status: TurnStatus,
}

/// What a list shows of a process.
#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct ProcessSummary {
    process_id: String,
    session_id: Option<String>,
    name: Option<String>,
    pid: Option<i64>,
    status: ProcessStatus,
    command: ProcessCommand,
    cwd: String,
    created_at: i64,
    started_at: Option<i64>,
    ended_at: Option<i64>,
}

/// As the request gave it.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum ProcessCommand {
    Shell { command: String },
    Program { args: Vec<String> },
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Process {
    process: ProcessSummary,
    exit_code: Option<i64>,
    signal: Option<i64>,
    error: Option<String>,
    killed_by: Option<KilledBy>,
    kill_reason: Option<String>,
    kill_grace_ms: i64,
    timeout_ms: Option<i64>,
    /// `none`, `open` or `closed`.
    stdin: String,
    stdin_bytes: i64,
    stdout_path: String,
    stderr_path: String,
    stdout_bytes: i64,
    stderr_bytes: i64,
    stdout_truncated: bool,
    stderr_truncated: bool,
    stdout_dropped_bytes: i64,
    stderr_dropped_bytes: i64,
}

/// Of one of the two streams.
#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct LogChunk {
    process_id: String,
    stream: OutputStream,
    content: String,
    head_lines: u64,
    tail_lines: u64,
    truncated: bool,
    bytes: u64,
    /// As the request gave it.
    offset: Option<u64>,
    /// Where the next request goes on.
    next_offset: u64,
    log_bytes: u64,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::api) enum OutputStream {
    Stdout,
    Stderr,
}

/// A line of a log that is followed: a piece of it, and last how the process ended.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub(in crate::api) enum LogLine {
    Piece { process_id: String, stream: OutputStream, offset: u64, content: String },
    End { process_id: String, status: ProcessStatus, exit_code: Option<i64>, signal: Option<i64> },
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct WorktreeMade {
    worktree: WorktreeRecord,
    /// False: it was there.
    created: bool,
    init_script_status: InitScriptStatus,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct WorktreeLook {
    worktree_id: String,
    /// Null: it stands on a commit.
    branch: Option<String>,
    head: Option<String>,
    base_ref: Option<String>,
    base_commit: String,
    ahead: u64,
    behind: u64,
    dirty: bool,
    dirty_count: u64,
    dirty_files: Vec<LostThing>,
    unmerged_count: u64,
    unmerged_commits: Vec<LostThing>,
    /// A merge or rebase that is under way.
    operation: Option<String>,
    /// Why git has it locked.
    locked: Option<String>,
    problem: Option<String>,
    /// How a cleanup without force would end now.
    cleanup: CleanupStatus,
}

/// One thing that a cleanup would lose.
#[derive(JsonSchema, Serialize)]
#[schemars(rename = "Lost")]
pub(super) struct LostThing {
    /// `modified`, `untracked`, `commit`, `operation`, `locked`, `nested_repository`, `submodule`, `unreadable`.
    kind: String,
    /// A path inside the worktree, or a commit.
    name: String,
    detail: Option<String>,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct WorktreeDiff {
    worktree_id: String,
    /// The commit that it is held against.
    from: String,
    diff: String,
    truncated: bool,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Claimed {
    worktree: WorktreeRecord,
    claim: ClaimRecord,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Released {
    active_claim_count: i64,
    worktree: WorktreeRecord,
    released_claim: ClaimRecord,
    cleanup: Option<CleanupResult>,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Messages {
    messages: Vec<MessageRecord>,
    next_cursor: Option<String>,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct TeamView {
    team: Roster,
    messages: Vec<MessageRecord>,
    deliveries_by_message_id: BTreeMap<String, Vec<DeliveryRecord>>,
    next_message_cursor: Option<String>,
    snapshot_at: i64,
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct MemberInterrupted {
    session_id: String,
    turn_id: String,
}

/// What a tool says; also its errors are status 200.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
pub(in crate::api) enum ToolEnvelope {
    Said { ok: True, result: Value },
    Refused { ok: False, error: ToolFault },
}

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct ToolFault {
    code: String,
    message: String,
}

/// The one value `true`.
pub(in crate::api) struct True;

/// The one value `false`.
pub(in crate::api) struct False;

macro_rules! one_value {
    ($name:ident, $value:literal) => {
        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_bool($value)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"const": $value})
            }
        }
    };
}
one_value!(True, true);
one_value!(False, false);

#[derive(JsonSchema, Serialize)]
pub(in crate::api) struct Capabilities {
    ok: True,
    result: CapabilitiesResult,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct CapabilitiesResult {
    gg_process_enabled: bool,
    gg_team_enabled: bool,
    gg_team_manage_permissions: ManagePermissions,
    gg_team_model_presets: Vec<String>,
    supported_namespaces: Vec<String>,
    tools: Vec<String>,
    tool_schemas: Vec<ToolSchema>,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct ManagePermissions {
    non_lead_can_add_members: bool,
    non_lead_can_remove_members: bool,
}

/// A tool as MCP's `tools/list` shows it.
#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "camelCase")]
struct ToolSchema {
    name: String,
    description: String,
    input_schema: Object,
    annotations: Object,
}
