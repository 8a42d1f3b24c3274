//! The payload of each kind of event, and the records of events as a union by their kind.
//!
//! The one `match` below has every kind, so a new kind without a payload does not compile. `tests/it/openapi` holds the
//! payloads to what a server really sends.

#![allow(dead_code, reason = "types of the document, never made")]

use super::answer::{LostThing, OutputStream, Recovered, ToolFault};
use crate::ledger::approval::ApprovalRecord;
use crate::ledger::claim::ClaimRecord;
use crate::ledger::item::ItemRecord;
use crate::ledger::session::SessionRecord;
use crate::ledger::team::delivery::DeliveryRecord;
use crate::ledger::team::message::MessageRecord;
use crate::ledger::team::operation::OperationRecord;
use crate::ledger::team::{MemberRecord, TeamRecord};
use crate::ledger::worktree::WorktreeRecord;
use crate::model::event::EventKind;
use crate::model::shape::{AgentError, Object, PlanEntry, Usage};
use crate::model::worktree::{CleanupStatus, InitScriptStatus};
use crate::model::{ItemType, KilledBy, ProcessStatus, ScopeKind, TurnSource, TurnStatus};
use crate::team::InterruptAll;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Map, Value, json};

/// What every event has beside its `payload`, which `kind` tells.
//
// An open payload here would stay open in the types that clients generate, whatever a kind says of its own.
#[derive(JsonSchema, Serialize)]
pub(super) struct EventBase {
    /// Grows over the whole log.
    row_id: i64,
    event_id: String,
    scope: ScopeKind,
    /// The session, team, process or worktree; `runtime` for the system.
    scope_id: String,
    session_id: Option<String>,
    team_id: Option<String>,
    turn_id: Option<String>,
    /// Counts from 1 in its scope.
    seq: i64,
    kind: EventKind,
    /// `droppable`: told again, whole, by a later event or in a log file.
    criticality: Criticality,
    /// Set on what came from an agent.
    provider: Option<String>,
    /// The offset in the agent's output behind the line that told it.
    provider_seq: Option<i64>,
    created_at: i64,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum Criticality {
    Critical,
    Droppable,
}

/// The first control frame of a stream, `stream.opened`.
#[derive(JsonSchema, Serialize)]
pub(super) struct StreamOpened {
    head: i64,
    oldest: i64,
    resume: Resume,
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum Resume {
    Start,
    Ok,
    Pruned,
}

/// The control frame `stream.caught_up`: the backlog is through.
#[derive(JsonSchema, Serialize)]
pub(super) struct StreamCaughtUp {
    head: i64,
}

/// The control frame `stream.closing`: the server stops.
#[derive(JsonSchema, Serialize)]
pub(super) struct StreamClosing {
    reason: String,
}

/// The schema of the payload of one kind.
fn payload(kind: EventKind, to: &mut SchemaGenerator) -> Schema {
    use EventKind as K;
    match kind {
        K::SessionCreated => to.subschema_for::<SessionCreated>(),
        K::SessionUpdated => to.subschema_for::<SessionUpdated>(),
        K::SessionResumed => to.subschema_for::<Nothing>(),
        K::SessionFailed => to.subschema_for::<SessionFailed>(),
        K::SessionClosed => to.subschema_for::<Reason>(),
        K::AgentStarted => to.subschema_for::<AgentStarted>(),
        K::AgentExited | K::AgentSlept => to.subschema_for::<AgentExit>(),
        K::AgentWoken => to.subschema_for::<AgentWoken>(),
        K::AgentUnparsed => to.subschema_for::<AgentUnparsed>(),
        K::TurnQueued => to.subschema_for::<TurnQueued>(),
        K::TurnStarted => to.subschema_for::<TurnStarted>(),
        K::TurnSteered => to.subschema_for::<TurnSteered>(),
        K::TurnInterruptRequested => to.subschema_for::<TurnInterruptRequested>(),
        K::TurnCompleted | K::TurnInterrupted | K::TurnFailed => to.subschema_for::<TurnEnd>(),
        K::ProviderError => to.subschema_for::<ProviderError>(),
        K::ItemStarted | K::ItemCompleted => to.subschema_for::<ItemTold>(),
        K::ItemDelta => to.subschema_for::<ItemDelta>(),
        K::PlanUpdated => to.subschema_for::<PlanUpdated>(),
        K::UsageUpdated => to.subschema_for::<UsageUpdated>(),
        K::ApprovalRequested | K::ApprovalResolved | K::ApprovalWithdrawn | K::ApprovalExpired => {
            to.subschema_for::<ApprovalTold>()
        }
        K::ProcessQueued => to.subschema_for::<ProcessQueued>(),
        K::ProcessStarted => to.subschema_for::<ProcessStarted>(),
        K::ProcessAdopted => to.subschema_for::<ProcessAdopted>(),
        K::ProcessOutput => to.subschema_for::<ProcessOutput>(),
        K::ProcessKillRequested => to.subschema_for::<ProcessKillRequested>(),
        K::ProcessCompleted | K::ProcessFailed | K::ProcessTimedOut | K::ProcessKilled => {
            to.subschema_for::<ProcessEnd>()
        }
        K::McpToolBegun => to.subschema_for::<ToolBegun>(),
        K::McpToolCalled => to.subschema_for::<ToolCalled>(),
        K::WorktreeCreated => to.subschema_for::<WorktreeCreated>(),
        K::WorktreeClaimed | K::WorktreeReleased => to.subschema_for::<ClaimTold>(),
        K::WorktreeCleanedUp => to.subschema_for::<WorktreeCleanedUp>(),
        K::WorktreeCleanupFailed => to.subschema_for::<WorktreeCleanupFailed>(),
        K::WorktreeKept => to.subschema_for::<WorktreeKept>(),
        K::WorktreeRepaired => to.subschema_for::<WorktreeRepaired>(),
        K::TeamCreated => to.subschema_for::<TeamCreated>(),
        K::TeamMemberJoined => to.subschema_for::<TeamMemberJoined>(),
        K::TeamMemberLeft => to.subschema_for::<TeamMemberLeft>(),
        K::TeamLeadChanged => to.subschema_for::<TeamLeadChanged>(),
        K::TeamInterruptAll => to.subschema_for::<TeamInterruptAll>(),
        K::TeamDeleted => to.subschema_for::<TeamDeleted>(),
        K::TeamOperationStarted | K::TeamOperationCompleted | K::TeamOperationRolledBack => {
            to.subschema_for::<OperationTold>()
        }
        K::TeamMessageCreated => to.subschema_for::<MessageCreated>(),
        K::TeamMessageCompleted => to.subschema_for::<MessageCompleted>(),
        K::TeamDeliveryPending
        | K::TeamDeliveryDeferred
        | K::TeamDeliveryInjecting
        | K::TeamDeliveryInjected
        | K::TeamDeliveryFailed
        | K::TeamDeliveryCancelled => to.subschema_for::<DeliveryTold>(),
        K::RuntimeStarted => to.subschema_for::<RuntimeStarted>(),
        K::RuntimeStartupRecovered => to.subschema_for::<RuntimeRecovered>(),
        K::RuntimeStopped => to.subschema_for::<Reason>(),
    }
}

/// The union `Event` and a component for each kind.
pub(super) fn union(to: &mut SchemaGenerator) -> Map<String, Value> {
    let base = to.subschema_for::<EventBase>();
    let mut components = Map::new();
    let mut mapping = Map::new();
    for kind in EventKind::ALL {
        let name = format!("{kind:?}Event");
        let criticality = if kind.is_droppable() { "droppable" } else { "critical" };
        let of_kind = json!({
            "type": "object",
            "required": ["kind", "criticality", "payload"],
            "properties": {
                "kind": {"const": kind},
                "criticality": {"const": criticality},
                "payload": payload(*kind, to),
            },
        });
        components.insert(name.clone(), json!({"allOf": [base, of_kind]}));
        mapping.insert(kind.as_str().to_owned(), format!("#/components/schemas/{name}").into());
    }
    let of_union: Vec<Value> = mapping.values().map(|name| json!({"$ref": name})).collect();
    let event = json!({
        "description": "A record of the log. `kind` tells what happened, `payload` the details.",
        "oneOf": of_union,
        "discriminator": {"propertyName": "kind", "mapping": mapping},
    });
    components.insert("Event".to_owned(), event);
    components
}

/// An empty object.
#[derive(JsonSchema, Serialize)]
struct Nothing {}

#[derive(JsonSchema, Serialize)]
struct Reason {
    reason: String,
}

#[derive(JsonSchema, Serialize)]
struct SessionCreated {
    provider: String,
    session: SessionRecord,
}

/// A change of the record, or what an agent tells outside of a turn.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum SessionUpdated {
    Changed { session: Box<SessionRecord> },
    Notice { notice: String, data: Value },
}

#[derive(JsonSchema, Serialize)]
struct SessionFailed {
    code: String,
    message: String,
}

#[derive(JsonSchema, Serialize)]
struct AgentStarted {
    agent: String,
    pid: i64,
}

#[derive(JsonSchema, Serialize)]
struct AgentExit {
    exit_code: Option<i64>,
    signal: Option<i64>,
    /// `child` (by itself), `stop`, `kill`, `lease`, `keeper_signal`, `spawn_failed`, `lost`.
    stopped_by: String,
    error: Option<String>,
    /// Its last 8 KiB.
    stderr: String,
    /// Its keeper is gone, so how it ended is not known.
    lost: bool,
}

#[derive(JsonSchema, Serialize)]
struct AgentWoken {
    provider_session_ref: String,
}

#[derive(JsonSchema, Serialize)]
struct AgentUnparsed {
    text: String,
    bytes: u64,
    more_left_out: bool,
}

#[derive(JsonSchema, Serialize)]
struct TurnQueued {
    position: u64,
    /// `steer_refused`: it came too late for its turn.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(JsonSchema, Serialize)]
struct TurnStarted {
    /// `user`, `team`, `agent`; `approval.accepted` for a gated turn.
    source: String,
}

#[derive(JsonSchema, Serialize)]
struct TurnSteered {
    source: TurnSource,
}

#[derive(JsonSchema, Serialize)]
struct TurnInterruptRequested {
    /// `turn_timeout`; left out when a client asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(JsonSchema, Serialize)]
struct TurnEnd {
    status: TurnStatus,
    usage: Option<Usage>,
    error: Option<AgentError>,
    assistant_text: Option<String>,
    stop_reason: Option<String>,
}

#[derive(JsonSchema, Serialize)]
struct ProviderError {
    error: String,
    code: String,
}

#[derive(JsonSchema, Serialize)]
struct ItemTold {
    item: ItemRecord,
}

/// More text of an open item, or fields that are replaced.
#[derive(JsonSchema, Serialize)]
#[serde(untagged)]
enum ItemDelta {
    More { item_id: String, field: DeltaField, delta: String },
    Set { item_id: String, r#type: ItemType, set: Object },
}

#[derive(JsonSchema, Serialize)]
#[serde(rename_all = "snake_case")]
enum DeltaField {
    Text,
    Output,
}

#[derive(JsonSchema, Serialize)]
struct PlanUpdated {
    entries: Vec<PlanEntry>,
}

#[derive(JsonSchema, Serialize)]
struct UsageUpdated {
    usage: Usage,
}

#[derive(JsonSchema, Serialize)]
struct ApprovalTold {
    approval_id: String,
    approval: ApprovalRecord,
}

#[derive(JsonSchema, Serialize)]
struct ProcessQueued {
    process_id: String,
    position: u64,
}

#[derive(JsonSchema, Serialize)]
struct ProcessStarted {
    process_id: String,
    pid: i64,
    cwd: String,
}

#[derive(JsonSchema, Serialize)]
struct ProcessAdopted {
    process_id: String,
    pid: Option<i64>,
    is_live: bool,
}

#[derive(JsonSchema, Serialize)]
struct ProcessOutput {
    process_id: String,
    stream: OutputStream,
    offset: u64,
    bytes_seen: u64,
    bytes_written: u64,
    /// The log has reached its cap.
    truncated: bool,
    /// The end of the bytes that it covers.
    text: String,
    text_left_out_bytes: u64,
}

#[derive(JsonSchema, Serialize)]
struct ProcessKillRequested {
    process_id: String,
    reason: String,
    killed_by: KilledBy,
    signal: i64,
}

#[derive(JsonSchema, Serialize)]
struct ProcessEnd {
    process_id: String,
    status: ProcessStatus,
    exit_code: Option<i64>,
    signal: Option<i64>,
    error: Option<String>,
    killed_by: Option<KilledBy>,
    kill_reason: Option<String>,
    stdout_bytes: i64,
    stderr_bytes: i64,
    stdout_dropped_bytes: i64,
    stderr_dropped_bytes: i64,
}

#[derive(JsonSchema, Serialize)]
struct ToolBegun {
    call_id: String,
    tool: String,
    invocation_id: Option<String>,
    /// `agent` or `operator`.
    called_by: String,
    arguments: Value,
}

#[derive(JsonSchema, Serialize)]
struct ToolCalled {
    call_id: String,
    tool: String,
    invocation_id: Option<String>,
    /// `agent` or `operator`.
    called_by: String,
    arguments: Value,
    result: Value,
    is_error: bool,
    error: Option<ToolFault>,
    /// Null where the server ended in the middle of it.
    duration_ms: Option<u64>,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeCreated {
    worktree: WorktreeRecord,
    init_script_status: InitScriptStatus,
}

#[derive(JsonSchema, Serialize)]
struct ClaimTold {
    claim: ClaimRecord,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeCleanedUp {
    worktree_id: String,
    reason: String,
    worktree_path_deleted: bool,
    branch_deleted: bool,
    backup_ref: Option<String>,
    diagnostics: Vec<String>,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeCleanupFailed {
    worktree_id: String,
    reason: String,
    diagnostics: Vec<String>,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeKept {
    worktree_id: String,
    reason: String,
    /// Left out when a creation was taken back.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<CleanupStatus>,
    lost: Vec<LostThing>,
    dirty_count: u64,
    unmerged_count: u64,
}

#[derive(JsonSchema, Serialize)]
struct WorktreeRepaired {
    worktree: WorktreeRecord,
    problem: Option<String>,
    /// `none`, `branch_restored` or `git_record_restored`.
    repair: String,
}

#[derive(JsonSchema, Serialize)]
struct TeamCreated {
    team: TeamRecord,
    members: Vec<MemberRecord>,
}

#[derive(JsonSchema, Serialize)]
struct TeamMemberJoined {
    team: TeamRecord,
    member: MemberRecord,
}

#[derive(JsonSchema, Serialize)]
struct TeamMemberLeft {
    team: TeamRecord,
    agent_id: String,
}

#[derive(JsonSchema, Serialize)]
struct TeamLeadChanged {
    team: TeamRecord,
    lead_agent_id: String,
}

#[derive(JsonSchema, Serialize)]
struct TeamInterruptAll {
    result: InterruptAll,
}

#[derive(JsonSchema, Serialize)]
struct TeamDeleted {
    team: TeamRecord,
}

#[derive(JsonSchema, Serialize)]
struct OperationTold {
    operation: OperationRecord,
}

#[derive(JsonSchema, Serialize)]
struct MessageCreated {
    message: MessageRecord,
    deliveries: Vec<DeliveryRecord>,
}

#[derive(JsonSchema, Serialize)]
struct MessageCompleted {
    message_id: String,
    team_id: String,
}

#[derive(JsonSchema, Serialize)]
struct DeliveryTold {
    delivery: DeliveryRecord,
    /// Why it was looked at: `queue`, `turncompletedboundary`, `retry`, `startuprecovery`; left out at the creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    trigger: Option<String>,
}

#[derive(JsonSchema, Serialize)]
struct RuntimeStarted {
    version: String,
    pid: u32,
}

#[derive(JsonSchema, Serialize)]
struct RuntimeRecovered {
    summary: Recovered,
}
