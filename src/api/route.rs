//! The table of routes: method, path, who may call, what is done with a body, the handler, and what the API document
//! tells of it.
//!
//! One row for each route, with both halves in it: a route of which nothing is told does not compile. The second half
//! is made only in tests, where the document is (see [`super::openapi`]).

use super::access::Access;
use super::{Api, Call, approval, event, login, mcp, meta, metrics, openapi, process, provider};
use super::{session, team, turn, worktree};
use crate::error::Result;
use crate::http::Answer;

type Handle = fn(&Api, &Call) -> Result<Answer>;

/// What a route does with a body.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum BodyRule {
    /// It is not read for meaning.
    Ignored,
    Json,
    /// JSON with an image or a process's stdin in it, perhaps.
    LargeJson,
    /// JSON of a call of a tool.
    SmallJson,
    /// JSON, or nothing at all.
    OptionalJson,
    /// `multipart/form-data`.
    Form,
}
use BodyRule::{Form, Ignored, Json, LargeJson, OptionalJson, SmallJson};

pub(super) struct Route {
    pub method: &'static str,
    /// A part in braces takes any one path segment.
    pub pattern: &'static str,
    pub access: Access,
    pub body: BodyRule,
    pub handle: Handle,
}

const fn get(pattern: &'static str, handle: Handle) -> Route {
    let (access, body) = (Access::Operator, Ignored);
    Route { method: "GET", pattern, access, body, handle }
}

const fn public(pattern: &'static str, handle: Handle) -> Route {
    Route { access: Access::Public, ..get(pattern, handle) }
}

const fn post(pattern: &'static str, body: BodyRule, handle: Handle) -> Route {
    Route { method: "POST", body, ..get(pattern, handle) }
}

const fn delete(pattern: &'static str, handle: Handle) -> Route {
    Route { method: "DELETE", ..get(pattern, handle) }
}

/// A route that agents may call too.
const fn gateway(route: Route) -> Route {
    Route { access: Access::Gateway, ..route }
}

/// Rows of `route => what is told of it;`.
macro_rules! routes {
    ($($route:expr => $told:expr;)+) => {
        /// The whole surface.
        pub(super) static ROUTES: &[Route] = &[$($route),+];

        /// What the document tells of each, in the order of the table.
        #[cfg(test)]
        pub(super) fn told() -> Vec<openapi::Told> {
            use crate::error::Code::*;
            use crate::ledger::{approval::ApprovalRecord, claim::ClaimRecord, item::ItemRecord};
            use crate::ledger::team::operation::{DiagnosticRecord, OperationRecord};
            use crate::ledger::team::{Roster, delivery::DeliveryRecord};
            use crate::ledger::session::SessionRecord;
            use crate::ledger::{turn::TurnRecord, worktree::WorktreeRecord};
            use crate::model::team::{DeliveryStatus, OperationKind, OperationStage};
            use crate::model::worktree::WorktreeStatus;
            use crate::model::{ApprovalStatus, ProcessStatus, SessionStatus, TurnStatus};
            use crate::team::{SpawnResult, TeamStatus};
            use crate::{team::Activity, team::InterruptAll, team::Ack, worktree::CleanupResult};
            use openapi::answer::*;
            use openapi::*;
            use serde_json::json;
            vec![$($told),+]
        }
    };
}

routes! {
    public("/health", meta::health)
        => op("health", "The process answers.").answers::<Health>();
    public("/ready", meta::ready)
        => op("ready", "The ledger can be written and read.").answers::<Ready>();
    public("/openapi.yaml", openapi::show)
        => op("openapi", "This document.").also::<Document>("application/yaml");
    get("/v1/openapi.yaml", openapi::show)
        => op("openapi_v1", "This document, with token.").also::<Document>("application/yaml");
    get("/metrics", metrics::metrics)
        => op("metrics", "The server in figures, for Prometheus.").also::<String>("text/plain");
    get("/v1/health", meta::health)
        => op("health_v1", "The process answers, with token.").answers::<Health>();
    get("/v1/version", meta::version)
        => op("version", "The version of the server.").answers::<Version>();
    get("/v1/diagnostics", meta::diagnostics)
        => op("diagnostics", "What the server says about itself.").answers::<Diagnostics>();
    get("/v1/diagnostics/providers", meta::diagnostics_providers)
        => op("diagnostics_providers", "Health and login of the providers that are on.")
            .answers::<ProvidersDiagnostics>();
    get("/v1/diagnostics/processes", process::diagnostics)
        => op("diagnostics_processes", "Processes by status, and what each that runs weighs.")
            .answers::<ProcessDiagnostics>();
    get("/v1/diagnostics/recovery", meta::diagnostics_recovery)
        => op("diagnostics_recovery", "What the start took up.").answers::<RecoveryDiagnostics>();
    get("/v1/diagnostics/comms", meta::diagnostics_comms)
        => op("diagnostics_comms", "Teams, messages, deliveries, and what the dispatcher does.")
            .answers::<CommsDiagnostics>();
    get("/v1/diagnostics/worktrees", worktree::diagnostics)
        => op("diagnostics_worktrees", "Counts of worktrees and claims, and their disk use.")
            .answers::<WorktreeDiagnostics>();

    get("/v1/providers", provider::list)
        => op("list_providers", "The providers that are on, and whether they are ready.")
            .answers::<Providers>().makes("provider", "/providers/0/kind");
    get("/v1/providers/{provider}/models", provider::models)
        => op("list_models", "What a provider's agent offers.").answers::<Models>()
            .fails(&[BadRequest, AgentFailed, AgentTimeout]);
    get("/v1/providers/{provider}/auth/status", login::status)
        => op("auth_status", "Whether there is a login.").answers::<AuthStatus>()
            .fails(&[BadRequest]);
    post("/v1/providers/claude/auth/api-key", Json, login::set_api_key)
        => op("set_claude_api_key", "Keep an API key for Claude.").answers::<AuthStatus>()
            .takes::<login::KeyBody>(json!({"api_key": "sk-ant-example"}))
            .fails(&[NotFound, Conflict]);
    post("/v1/providers/claude/auth/import-json", Json, login::import_json)
        => op("import_claude_login", "Keep a login of Claude that is sent as JSON.")
            .takes::<login::ImportBody>(json!({"auth_json": {"token": "example"}}))
            .answers::<AuthStatus>().fails(&[NotFound, Conflict]);
    post("/v1/providers/claude/auth/import-file", Form, login::import_file)
        => op("import_claude_login_file", "The same as a file in a form.")
            .takes::<FileForm>(json!({"file": "{\"token\": \"example\"}"}))
            .answers::<AuthStatus>().fails(&[NotFound, Conflict]);
    post("/v1/providers/claude/auth/logout", Ignored, login::log_out)
        => op("claude_log_out", "Remove what was kept.").answers::<AuthStatus>()
            .fails(&[NotFound, Conflict]);

    post("/v1/sessions", Json, session::create)
        => op("create_session", "Make a session.").answers::<SessionRecord>().idempotent()
            .takes::<session::CreateBody>(json!({"provider": "demo", "title": "First steps"}))
            .fails(&[NotFound, Conflict, SessionClosed, InitScriptFailed])
            .fails(&[AgentFailed, AgentTimeout, Capacity])
            .makes("session_id", "/id")
            .leads("create_team", json!({"name": "crew", "lead_agent_id": "$response.body#/id"}))
            .leads("create_process", json!({
                "command": "echo hello", "session_id": "$response.body#/id",
            }));
    get("/v1/sessions", session::list)
        => op("list_sessions", "All sessions, newest change first.")
            .pages_by::<SessionRecord>(r"^[0-9]{1,18}\.[0-9]{1,18}$")
            .query(word::<SessionStatus>("status", "Only with this status."))
            .query(text("provider", "Only of this provider."))
            .query(text("team_id", "Only members of this team."));
    get("/v1/sessions/{session_id}", session::get)
        => op("get_session", "One session.").answers::<SessionRecord>();
    delete("/v1/sessions/{session_id}", session::delete)
        => op("delete_session", "Close it.").empty(204).fails(&[AgentFailed, AgentTimeout])
            .query(flag("purge", "Also remove its records and its log.", false));
    post("/v1/sessions/{session_id}/resume", OptionalJson, session::resume)
        => op("resume_session", "Wake its agent now.").answers::<SessionRecord>()
            .takes::<session::ResumeBody>(json!({}))
            .fails(&[Conflict, TurnActive, SessionClosed, AgentFailed, AgentTimeout, Capacity]);
    post("/v1/sessions/{session_id}/close", OptionalJson, session::close)
        => op("close_session", "End it for good, with its agent's process tree.")
            .takes::<session::CloseBody>(json!({"reason": "done"}))
            .answers::<SessionRecord>().fails(&[AgentFailed, AgentTimeout]);
    get("/v1/sessions/{session_id}/transcript", session::transcript)
        => op("get_transcript", "The whole conversation, and where a stream goes on from it.")
            .pages::<ItemRecord>().header("X-As-Of-Seq");

    post("/v1/sessions/{session_id}/turns", LargeJson, turn::create)
        => op("create_turn", "Start a turn, queue it, or join the running one.")
            .takes::<turn::CreateBody>(json!({"input": ["say Good morning!"]}))
            .answers::<TurnAccepted>().answers::<TurnRecord>().also::<String>("text/plain")
            .with_status::<TurnRecord>(202).also::<String>("text/plain")
            .query(flag("wait", "Answer with the turn when it has ended.", false))
            .query(count("timeout_ms", "How long to wait; then 202 with the turn as it is."))
            .idempotent()
            .fails(&[UnsupportedInput, Conflict, TurnActive, TurnMismatch, SteerUnsupported])
            .fails(&[SessionClosed, TooManyRequests, AgentFailed, AgentTimeout, Capacity])
            .makes("turn_id", "/turn_id");
    get("/v1/sessions/{session_id}/turns", turn::list)
        => op("list_turns", "The turns of a session, oldest first.").pages::<TurnRecord>()
            .query(word::<TurnStatus>("status", "Only with this status."));
    get("/v1/sessions/{session_id}/turns/{turn_id}", turn::get)
        => op("get_turn", "One turn.").answers::<TurnRecord>()
            .query(count("wait_ms", "Wait up to so long for its end."))
            .fails(&[TooManyRequests]);
    get("/v1/sessions/{session_id}/turns/{turn_id}/items", turn::items)
        => op("list_items", "What was said and done in a turn.").pages::<ItemRecord>();
    post("/v1/sessions/{session_id}/turns/{turn_id}/interrupt", OptionalJson, turn::interrupt)
        => op("interrupt_turn", "End it; the turn's own event tells when it is over.").empty(202)
            .takes::<super::body::NoFields>(json!({}))
            .fails(&[Conflict, SessionClosed, AgentFailed, AgentTimeout]);

    get("/v1/approvals", approval::list_all)
        => op("list_all_approvals", "Approvals of all sessions.").pages::<ApprovalRecord>()
            .query(word::<ApprovalStatus>("status", "Only with this status."))
            .query(text("session_id", "Only of this session.")).fails(&[NotFound]);
    get("/v1/sessions/{session_id}/approvals", approval::list_of_session)
        => op("list_approvals", "Approvals of one session.").pages::<ApprovalRecord>()
            .query(word::<ApprovalStatus>("status", "Only with this status."))
            .makes("approval_id", "/0/id");
    get("/v1/sessions/{session_id}/approvals/{approval_id}", approval::get)
        => op("get_approval", "One approval.").answers::<ApprovalRecord>().fails(&[BadRequest]);
    post("/v1/sessions/{session_id}/approvals/{approval_id}", LargeJson, approval::decide)
        => op("decide_approval", "Answer it; only the first answer counts.")
            .takes::<approval::DecideBody>(json!({"decision": "accept"}))
            .answers::<ApprovalRecord>()
            .fails(&[UnsupportedInput, AlreadyResolved, Conflict, SessionClosed])
            .fails(&[AgentFailed, AgentTimeout, Capacity]);

    post("/v1/processes", LargeJson, process::create)
        => op("create_process", "Start a command.").answers::<Process>().idempotent()
            .takes::<process::CreateBody>(json!({"command": "echo hello"}))
            .fails(&[NotFound, Conflict, SessionClosed, Forbidden, Capacity])
            .makes("process_id", "/process/process_id");
    get("/v1/processes", process::list)
        => op("list_processes", "Processes, newest first.").pages::<ProcessSummary>()
            .query(word::<ProcessStatus>("status", "Only with this status."))
            .query(text("session_id", "Only of this owner."))
            .query(flag("include_completed", "Also those that are over.", true));
    get("/v1/processes/{process_id}", process::get)
        => op("get_process", "One process.").answers::<Process>()
            .query(count("wait_ms", "Wait up to so long for its end."))
            .fails(&[TooManyRequests])
            .query(text("session_id", "Ask as this session."));
    post("/v1/processes/{process_id}/kill", OptionalJson, process::kill)
        => op("kill_process", "End it and everything it has started.")
            .takes::<process::KillBody>(json!({"signal": "TERM"}))
            .answers::<Process>().with_status::<Process>(202)
            .query(flag("wait", "Answer when nothing of it lives any more.", true))
            .query(text("session_id", "Ask as this session."));
    post("/v1/processes/{process_id}/stdin", LargeJson, process::stdin)
        => op("write_process_stdin", "Write to it.").answers::<Process>()
            .takes::<process::StdinBody>(json!({"text": "yes\n", "close": true}))
            .query(text("session_id", "Ask as this session.")).fails(&[Conflict, Capacity]);
    get("/v1/processes/{process_id}/logs", process::logs)
        => op("get_process_logs", "What it has written.").answers::<Vec<LogChunk>>()
            .also::<LogLine>("application/x-ndjson").also::<String>("text/plain")
            .query(one_of("stream", "Only this one.", &["stdout", "stderr"]))
            .query(count("head_lines", "So many of the first lines (0)."))
            .query(count("tail_lines", "So many of the last lines (80)."))
            .query(count("max_bytes", "At most so many of the last bytes."))
            .query(count("offset", "Bytes from here on instead of lines."))
            .query(flag("follow", "A stream until the process ends.", false))
            .query(one_of("format", "The text alone, or JSON.", &["json", "text"]))
            .query(text("session_id", "Ask as this session.")).fails(&[Capacity]);
    get("/v1/processes/{process_id}/events", event::list_of_process)
        => op("list_process_events", "One process's log in pages.").log()
            .query(text("session_id", "Ask as this session."));
    get("/v1/processes/{process_id}/events/stream", event::stream_of_process)
        => op("stream_process_events", "One process's log as a stream.").stream()
            .query(text("session_id", "Ask as this session."));

    post("/v1/worktrees", Json, worktree::create)
        => op("create_worktree", "Make a worktree, or find the one of that name.")
            .takes::<worktree::CreateBody>(json!({
                "worktree_name": "one", "repo_root": "/srv/repository",
            }))
            .answers::<WorktreeMade>().idempotent()
            .fails(&[NotFound, Conflict, InitScriptFailed, SessionClosed, Capacity])
            .makes("worktree_id", "/worktree/id");
    get("/v1/worktrees", worktree::list)
        => op("list_worktrees", "Worktrees, oldest first; deleted ones stay.")
            .pages::<WorktreeRecord>()
            .query(word::<WorktreeStatus>("status", "Only with this status."))
            .query(text("team_id", "Only of this team."))
            .query(text("repo_root", "Only of this repository."));
    get("/v1/worktrees/{worktree_id}", worktree::get)
        => op("get_worktree", "One worktree.").answers::<WorktreeRecord>();
    get("/v1/worktrees/{worktree_id}/status", worktree::status)
        => op("get_worktree_status", "Branch, head, changed files, what a cleanup would do now.")
            .answers::<WorktreeLook>().fails(&[Conflict, Capacity]);
    get("/v1/worktrees/{worktree_id}/diff", worktree::diff)
        => op("get_worktree_diff", "All that was done since the branch began.")
            .answers::<WorktreeDiff>().also::<String>("text/plain").fails(&[Conflict, Capacity])
            .query(one_of("against", "The branch's base, or the last commit.", &["base", "head"]));
    get("/v1/worktrees/{worktree_id}/claims", worktree::claims)
        => op("list_claims", "Which sessions work or worked there.").answers::<Vec<ClaimRecord>>()
            .query(flag("active", "Only those that go on.", false));
    post("/v1/worktrees/{worktree_id}/claims", Json, worktree::claim)
        => op("claim_worktree", "A session works there from now on.").answers::<Claimed>()
            .takes::<worktree::ClaimBody>(json!({"session_id": "sess_…", "claim_role": "worker"}))
            .fails(&[Conflict, SessionClosed, Capacity]);
    post("/v1/worktrees/{worktree_id}/release", Json, worktree::release)
        => op("release_worktree", "It does not any more.").answers::<Released>()
            .takes::<worktree::ReleaseBody>(json!({"session_id": "sess_…"}))
            .fails(&[Conflict, SessionClosed, Capacity]);
    post("/v1/worktrees/{worktree_id}/cleanup", OptionalJson, worktree::cleanup)
        => op("clean_up_worktree", "Take it away, unless it holds work.").answers::<CleanupResult>()
            .takes::<worktree::CleanupBody>(json!({"reason": "done", "force": false}))
            .query(flag("force", "Also with work in it, behind a backup.", false))
            .fails(&[Conflict, Capacity]);
    get("/v1/worktrees/{worktree_id}/events", event::list_of_worktree)
        => op("list_worktree_events", "One worktree's log in pages.").log();
    get("/v1/worktrees/{worktree_id}/events/stream", event::stream_of_worktree)
        => op("stream_worktree_events", "One worktree's log as a stream.").stream();

    get("/v1/events", event::list_all)
        => op("list_events", "The whole log in pages.").log();
    get("/v1/events/stream", event::stream_all)
        => op("stream_events", "The whole log as a stream.").stream();
    get("/v1/system/events", event::list_of_system)
        => op("list_system_events", "Starts and stops of the server, in pages.").log();
    get("/v1/system/events/stream", event::stream_of_system)
        => op("stream_system_events", "Starts and stops of the server, as a stream.").stream();
    get("/v1/sessions/{session_id}/events", event::list_of_session)
        => op("list_session_events", "One session's log in pages.").log();
    get("/v1/sessions/{session_id}/events/stream", event::stream_of_session)
        => op("stream_session_events", "One session's log as a stream.").stream();

    gateway(post("/v1/mcp", SmallJson, mcp::message))
        => op("mcp", "MCP: one message in, one JSON answer out.").answers::<McpMessage>().empty(202)
            .takes::<McpCall>(json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))
            .with_status::<McpMessage>(400).with_status::<McpMessage>(404)
            .query(text("caller_agent_id", "The operator's: in whose name a tool is called."))
            .fails(&[NotFound, SessionClosed]);
    gateway(post("/v1/mcp/invoke", SmallJson, mcp::invoke))
        => op("invoke_tool", "One call of a tool.").answers::<ToolEnvelope>()
            .takes::<ToolInvoke>(json!({
                "tool_name": "gg_ping", "args": {}, "caller_agent_id": "sess_…",
            }))
            .fails(&[NotFound, SessionClosed]);
    gateway(get("/v1/mcp/capabilities", mcp::capabilities))
        => op("mcp_capabilities", "The tools with their schemas.").answers::<Capabilities>()
            .fails(&[NotFound]);

    post("/v1/teams", Json, team::create)
        => op("create_team", "Make a team.").answers::<Roster>().idempotent()
            .takes::<team::CreateBody>(json!({"name": "crew", "lead_agent_id": "sess_…"}))
            .fails(&[NotFound, Conflict, SessionClosed, Capacity])
            .makes("team_id", "/team/id").makes("agent_id", "/members/0/agent_id")
            .leads("spawn_member", json!({
                "source_session_id": "$response.body#/team/lead_agent_id", "prompt": "Hello",
            }));
    get("/v1/teams", team::list)
        => op("list_teams", "Teams with their members, oldest first.").pages::<Roster>();
    get("/v1/teams/{team_id}", team::get)
        => op("get_team", "One team.").answers::<Roster>();
    delete("/v1/teams/{team_id}", team::delete)
        => op("delete_team", "End it; its sessions go on.").empty(204).fails(&[Conflict])
            .query(flag("close_spawned", "Close the sessions that it has spawned.", false))
            .query(flag("purge", "Also remove its records, its mail and its log.", false));
    post("/v1/teams/{team_id}/members", Json, team::join)
        => op("join_team", "A session joins.").answers::<Roster>()
            .takes::<team::JoinBody>(json!({"agent_id": "sess_…", "title": "Reviewer"}))
            .fails(&[Conflict, SessionClosed]);
    post("/v1/teams/{team_id}/members/spawn", Json, team::spawn::spawn)
        => op("spawn_member", "A new session joins, in a worktree of its own if that is wanted.")
            .answers::<SpawnResult>().idempotent()
            .takes::<team::spawn::SpawnBody>(json!({
                "source_session_id": "sess_…", "prompt": "Review the change.",
            }))
            .fails(&[Conflict, SessionClosed, InitScriptFailed, UnsupportedInput])
            .fails(&[AgentFailed, AgentTimeout, Capacity])
            .makes("agent_id", "/spawned_member/agent_id")
            .makes("operation_id", "/operation_id");
    get("/v1/teams/{team_id}/operations", team::spawn::operations)
        => op("list_operations", "What was done to spawn and remove its members, oldest first.")
            .pages::<OperationRecord>()
            .query(word::<OperationKind>("kind", "Only of this kind."))
            .query(word::<OperationStage>("stage", "Only at this stage."))
            .makes("operation_id", "/0/operation_id");
    get("/v1/team-operations/{operation_id}", team::spawn::operation)
        => op("get_operation", "One operation.").answers::<OperationRecord>();
    get("/v1/diagnostics/team-operations", team::spawn::diagnostics)
        => op("diagnostics_operations", "What went wrong in operations.")
            .pages::<DiagnosticRecord>()
            .query(text("team_id", "Only of this team."))
            .query(text("operation_id", "Only of this operation."));
    delete("/v1/teams/{team_id}/members/{agent_id}", team::leave)
        => op("leave_team", "A member leaves.").answers::<Roster>().fails(&[BadRequest, Conflict]);
    get("/v1/teams/{team_id}/members/{agent_id}/activity", team::activity)
        => op("member_activity", "What a member is doing.").answers::<Activity>();
    post("/v1/teams/{team_id}/members/{agent_id}/interrupt", OptionalJson, team::interrupt_member)
        => op("interrupt_member", "End its running turn.").with_status::<MemberInterrupted>(202)
            .takes::<super::body::NoFields>(json!({}))
            .fails(&[Conflict, SessionClosed, AgentFailed, AgentTimeout]);
    post("/v1/teams/{team_id}/lead", Json, team::set_lead)
        => op("set_lead", "Another member leads.").answers::<Roster>()
            .takes::<team::LeadBody>(json!({"lead_agent_id": "sess_…"})).fails(&[Conflict]);
    post("/v1/teams/{team_id}/messages", LargeJson, team::message::direct)
        => op("send_message", "Write to one member.").answers::<Ack>().idempotent()
            .takes::<team::message::DirectBody>(json!({
                "sender_agent_id": "sess_…", "recipient_agent_id": "sess_…", "input": ["Hello"]
            }))
            .fails(&[UnsupportedInput, Conflict, SessionClosed, Capacity]);
    get("/v1/teams/{team_id}/messages", team::message::list)
        => op("list_messages", "What was written, oldest first.").answers::<Messages>()
            .query(text("cursor", "The `next_cursor` of the page before."))
            .query(count("limit", "At most so many (100, at most 500)."))
            .makes("message_id", "/messages/0/id");
    post("/v1/teams/{team_id}/messages/{message_id}/cancel", OptionalJson, team::message::cancel)
        => op("cancel_message", "Take it back while all its deliveries wait.")
            .takes::<super::body::NoFields>(json!({}))
            .answers::<Vec<DeliveryRecord>>().fails(&[Conflict]);
    post("/v1/teams/{team_id}/broadcasts", LargeJson, team::message::broadcast)
        => op("send_broadcast", "Write to all.").answers::<Ack>().idempotent()
            .takes::<team::message::BroadcastBody>(json!({
                "sender_agent_id": "sess_…", "input": ["Hello, all"]
            }))
            .fails(&[UnsupportedInput, Conflict, SessionClosed, Capacity]);
    get("/v1/teams/{team_id}/deliveries", team::message::deliveries)
        => op("list_deliveries", "How far messages have come.").pages::<DeliveryRecord>()
            .query(text("message_id", "Only of this message."))
            .query(text("recipient_agent_id", "Only to this member."))
            .query(word::<DeliveryStatus>("status", "Only with this status."))
            .makes("delivery_id", "/0/id");
    post("/v1/teams/{team_id}/deliveries/{delivery_id}/retry", OptionalJson, team::message::retry)
        => op("retry_delivery", "Try it again.").answers::<DeliveryRecord>()
            .takes::<super::body::NoFields>(json!({})).fails(&[Conflict]);
    get("/v1/teams/{team_id}/status", team::status)
        => op("team_status", "The lead, and how each member is.").answers::<TeamStatus>();
    get("/v1/teams/{team_id}/view", team::message::view)
        => op("view_team", "Members, messages and deliveries at a look.").answers::<TeamView>()
            .query(text("message_cursor", "The `next_message_cursor` of the page before."))
            .query(count("message_limit", "At most so many (100, at most 500)."))
            .query(flag("include_delivery_map", "With the deliveries.", true))
            .query(text("delivery_recipient_filter", "Only deliveries to this member."));
    post("/v1/teams/{team_id}/interrupt-all", OptionalJson, team::interrupt_all)
        => op("interrupt_team", "End all running turns of its members.").answers::<InterruptAll>()
            .takes::<super::body::NoFields>(json!({})).fails(&[Conflict]);
    get("/v1/teams/{team_id}/events", event::list_of_team)
        => op("list_team_events", "The team's log in pages.").log();
    get("/v1/teams/{team_id}/events/stream", event::stream_of_team)
        => op("stream_team_events", "The team's log as a stream.").stream();
}
