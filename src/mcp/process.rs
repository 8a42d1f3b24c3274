//! The tools for processes: an agent runs commands that outlive its turns, looks at them, and ends them.
//!
//! The caller owns what it starts and sees nothing else: no processes of other sessions, none of the operator.
//! Every failure is `tool_failed`, but for arguments that can not be as they are. Runs on the caller's thread.

use super::argument::Arguments;
use super::tool::{Feature, Tool, ToolCode, ToolError, shown};
use super::{Gateway, Invocation};
use crate::error::{Code, Error};
use crate::keeper::Stream;
use crate::ledger::Most;
use crate::ledger::process::{self as rows, Kill, ProcessQuery, ProcessRow};
use crate::limits;
use crate::model::KilledBy;
use crate::process::{ExcerptRequest, ProcessRequest, TERM};
use serde_json::{Value, json};

pub(super) const RUN: Tool =
    Tool { name: "gg_process_run", feature: Feature::Always, shown: shown_run, run };
pub(super) const STATUS: Tool =
    Tool { name: "gg_process_status", feature: Feature::Always, shown: shown_status, run: status };
pub(super) const LOGS: Tool =
    Tool { name: "gg_process_logs", feature: Feature::Always, shown: shown_logs, run: logs };
pub(super) const KILL: Tool =
    Tool { name: "gg_process_kill", feature: Feature::Always, shown: shown_kill, run: kill };

/// Processes that a list of those that run has.
const LISTED: usize = 1000;

fn shown_run() -> Value {
    let properties = json!({
        "command": {"type": "string", "minLength": 1,
            "description": "For the shell, for example: npm run dev"},
        "cwd": {"type": "string", "minLength": 1,
            "description": "An existing folder; your session's own unless given"},
        "timeout_ms": {"type": "integer", "minimum": 0,
            "description": "It is ended when it runs longer; 0 for no limit"},
        "queue": {"type": "boolean",
            "description": "Wait for a place when too many processes run, instead of failing"},
    });
    let description = "Starts a command in the background and answers at once with its record. It \
        goes on when your turn ends, until it ends by itself, is killed, or your session is \
        closed.";
    shown(RUN.name, description, false, &properties, &["command"])
}

fn shown_status() -> Value {
    let mut properties = naming();
    lines(&mut properties);
    let description = "Tells how one of your processes is (with head_lines or tail_lines also \
        what it wrote), or lists those that run when none is named.";
    shown(STATUS.name, description, true, &properties, &[])
}

fn shown_logs() -> Value {
    let mut properties = naming();
    lines(&mut properties);
    properties["stream"] = json!({"type": "string", "enum": Stream::ALL.map(Stream::as_str),
        "description": "Both unless given"});
    properties["offset"] = json!({"type": "integer", "minimum": 0,
        "description": "Bytes from here on instead of lines; go on at next_offset"});
    properties["max_bytes"] = json!({"type": "integer", "minimum": 1,
        "description": "At most so many bytes of each stream"});
    let description =
        "Shows what one of your processes wrote: its last 80 lines unless asked otherwise.";
    shown(LOGS.name, description, true, &properties, &[])
}

fn shown_kill() -> Value {
    let description = "Ends one of your processes and everything that it has started; answers \
        when nothing of it lives any more.";
    shown(KILL.name, description, false, &naming(), &[])
}

/// The arguments that name a process.
fn naming() -> Value {
    json!({
        "process_id": {"type": "string", "minLength": 1, "description": "As its record says"},
        "pid": {"type": "integer", "minimum": 1, "description": "Instead of process_id"},
    })
}

fn lines(properties: &mut Value) {
    properties["head_lines"] =
        json!({"type": "integer", "minimum": 0, "description": "So many of the first lines"});
    properties["tail_lines"] =
        json!({"type": "integer", "minimum": 0, "description": "So many of the last lines"});
}

fn run(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let arguments = Arguments(&call.arguments);
    let command = arguments.needed("command")?;
    let cwd = match arguments.text("cwd")? {
        Some(cwd) => gateway.path(call, cwd).map(Some),
        None => gateway.cwd(call),
    };
    let request = ProcessRequest {
        command: Some(command.to_owned()),
        cwd: cwd.map_err(|error| failed(&error))?,
        timeout_ms: arguments.number("timeout_ms"),
        session_id: Some(call.session_id.clone()),
        is_queue: arguments.is_on("queue"),
        idempotency: call.idempotency(),
        ..ProcessRequest::default()
    };
    let row = gateway.processes.start(&request).map_err(|error| failed(&error))?;
    Ok(gateway.processes.details(&row))
}

fn status(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let Some(row) = named(gateway, call)? else {
        let query = ProcessQuery {
            session_id: Some(call.session_id.clone()),
            is_active: true,
            most: Most::rows(LISTED),
            ..ProcessQuery::default()
        };
        let rows = gateway.ledger.read(|db| rows::list(db, &query));
        let rows = rows.map_err(|error| failed(&error))?;
        return Ok(
            json!({"running": rows.records.iter().map(ProcessRow::summary).collect::<Vec<_>>()}),
        );
    };
    let mut details = gateway.processes.details(&row);
    let arguments = Arguments(&call.arguments);
    if arguments.number("head_lines").or(arguments.number("tail_lines")).is_some() {
        details["logs"] = excerpts(gateway, &row, &arguments)?;
    }
    Ok(details)
}

fn logs(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let row = named(gateway, call)?.ok_or_else(nothing_named)?;
    Ok(json!({"logs": excerpts(gateway, &row, &Arguments(&call.arguments))?}))
}

fn kill(gateway: &Gateway, call: &Invocation) -> Result<Value, ToolError> {
    let row = named(gateway, call)?.ok_or_else(nothing_named)?;
    let reason = "requested by its session's agent".to_owned();
    let kill = Kill { killed_by: KilledBy::Request, reason, signal: TERM, grace_ms: None };
    let row = gateway.processes.end(&row.process_id, &kill);
    Ok(gateway.processes.details(&row.map_err(|error| failed(&error))?))
}

fn nothing_named() -> ToolError {
    ToolError::bad_request("process_id: is missing".to_owned())
}

/// The process that a call names, if it names one. Errors: there is none, or it is not the caller's.
fn named(gateway: &Gateway, call: &Invocation) -> Result<Option<ProcessRow>, ToolError> {
    let arguments = Arguments(&call.arguments);
    let row = match (arguments.text("process_id")?, arguments.number("pid")) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => {
            let told = "process_id and pid exclude each other; send one of them";
            return Err(ToolError::bad_request(told.to_owned()));
        }
        (Some(process_id), None) => gateway.processes.get(process_id),
        (None, Some(pid)) => of_pid(gateway, call, pid),
    };
    let is_own = |row: ProcessRow| row.check_owner(Some(&call.session_id)).map(|()| row);
    row.and_then(is_own).map(Some).map_err(|error| failed(&error))
}

/// The newest process of the caller with this pid: the system gives numbers again.
fn of_pid(gateway: &Gateway, call: &Invocation, pid: u64) -> Result<ProcessRow, Error> {
    let query = ProcessQuery {
        session_id: Some(call.session_id.clone()),
        pid: Some(i64::try_from(pid).unwrap_or(i64::MAX)),
        most: Most::rows(1),
        ..ProcessQuery::default()
    };
    let mut found = gateway.ledger.read(|db| rows::list(db, &query))?;
    let none = || Error::new(Code::NotFound, format!("no process of yours has the pid {pid}"));
    found.records.pop().ok_or_else(none)
}

fn excerpts(
    gateway: &Gateway,
    row: &ProcessRow,
    arguments: &Arguments<'_>,
) -> Result<Value, ToolError> {
    let stream = arguments.text("stream")?;
    // Both streams, escaped twice, must fit into what the sidecar reads.
    let bytes_max = arguments.number("max_bytes").unwrap_or(limits::TOOL_LOG_BYTES);
    let wanted = ExcerptRequest {
        stream: Stream::ALL.into_iter().find(|known| Some(known.as_str()) == stream),
        head_lines: arguments.number("head_lines"),
        tail_lines: arguments.number("tail_lines"),
        offset: arguments.number("offset"),
        bytes_max: Some(bytes_max.min(limits::PROCESS_LOG_BYTES)),
    };
    let chunks = wanted.checked().and_then(|wanted| gateway.processes.excerpts(row, &wanted));
    chunks.map(Value::Array).map_err(|error| failed(&error))
}

fn failed(error: &Error) -> ToolError {
    let code = match error.code {
        Code::BadRequest | Code::PayloadTooLarge | Code::IdempotencyMismatch => {
            ToolCode::BadRequest
        }
        _ => ToolCode::ToolFailed,
    };
    ToolError::of(code, error)
}
