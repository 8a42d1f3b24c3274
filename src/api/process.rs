//! Processes: start, list, show, write to, end. Their logs are in [`log`], their events in [`super::event`].
//!
//! Whoever gives a `session_id` asks as that session and sees only what it owns; without one the operator asks.

mod log;

pub(super) use log::logs;

use super::body::{check_length, texts};
use super::{Api, Call, json, page, wait};
use crate::error::{Error, Result};
use crate::http::Answer;
use crate::keeper::{self, Weight};
use crate::ledger::process::{self as rows, Kill, ProcessQuery, ProcessRow};
use crate::ledger::{Listed, Most, to_json};
use crate::limits;
use crate::model::{KilledBy, ProcessStatus};
use crate::process::{self, ProcessRequest};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ProcessCreate"))]
pub(super) struct CreateBody {
    #[cfg_attr(test, schemars(regex(pattern = r"\S")))]
    command: Option<String>,
    #[cfg_attr(test, schemars(length(min = 1), inner(length(min = 1))))]
    args: Option<Vec<String>>,
    cwd: Option<String>,
    #[serde(default, deserialize_with = "texts")]
    env: BTreeMap<String, String>,
    stdin: Option<String>,
    #[serde(default)]
    stdin_open: bool,
    name: Option<String>,
    #[cfg_attr(test, schemars(range(max = process::TIMEOUT_MS_MAX)))]
    timeout_ms: Option<u64>,
    #[cfg_attr(test, schemars(range(max = process::GRACE_MS_MAX)))]
    kill_grace_ms: Option<u64>,
    session_id: Option<String>,
    #[serde(default)]
    queue: bool,
}

#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ProcessKill"))]
pub(super) struct KillBody {
    session_id: Option<String>,
    reason: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<crate::model::shape::SignalWord>"))]
    signal: Option<String>,
    #[cfg_attr(test, schemars(range(max = process::GRACE_MS_MAX)))]
    kill_grace_ms: Option<u64>,
    wait: Option<bool>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ProcessStdin"))]
pub(super) struct StdinBody {
    session_id: Option<String>,
    #[serde(default)]
    text: String,
    #[serde(default)]
    close: bool,
}

/// The longest wait for an end.
const WAIT_MS_MAX: i64 = 3_600_000;

/// The signals that a client may begin with.
const SIGNALS: &[(&str, i32)] =
    &[("TERM", process::TERM), ("KILL", process::KILL), ("INT", 2), ("HUP", 1), ("QUIT", 3)];

pub(super) fn create(api: &Api, call: &Call) -> Result<Answer> {
    let body: CreateBody = call.body()?;
    let request = ProcessRequest {
        command: body.command,
        args: body.args,
        cwd: body.cwd,
        env: body.env,
        stdin: body.stdin,
        is_stdin_open: body.stdin_open,
        name: body.name,
        timeout_ms: body.timeout_ms,
        kill_grace_ms: body.kill_grace_ms,
        session_id: body.session_id,
        is_queue: body.queue,
        idempotency: call.idempotency(api)?,
    };
    shown(api, &api.processes.start(&request)?, 200)
}

pub(super) fn list(api: &Api, call: &Call) -> Result<Answer> {
    let statuses: Vec<&str> = ProcessStatus::ALL.iter().map(|status| status.as_str()).collect();
    let query = ProcessQuery {
        session_id: call.text("session_id").map(str::to_owned),
        status: call.one_of("status", &statuses)?.map(str::to_owned),
        pid: None,
        is_active: !call.is_on("include_completed", true)?,
        before: call.number("cursor")?,
        most: call.most(1000)?,
    };
    let found = api.ledger.read(|db| rows::list(db, &query))?;
    let place = found.records.last().map(|last| last.process_key.to_string()).unwrap_or_default();
    let records: Vec<Value> = found.records.iter().map(ProcessRow::summary).collect();
    Ok(Answer::Whole(page(&Listed { records, is_cut: found.is_cut }, |_| place)))
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Answer> {
    let wait_ms = call.count("wait_ms")?.unwrap_or(0).min(WAIT_MS_MAX);
    let wait = Duration::from_millis(u64::try_from(wait_ms).unwrap_or(0));
    owned(api, call)?;
    let _waiting = (wait_ms > 0).then(|| api.waits.take(call)).transpose()?;
    shown(api, &await_end(api, call, call.part(0), wait)?, 200)
}

/// Waits for the end of a process, for as long as its client does; the record as it is then.
pub(super) fn await_end(
    api: &Api,
    call: &Call,
    process_id: &str,
    at_most: Duration,
) -> Result<ProcessRow> {
    wait::in_pieces(call, at_most, |at_most| {
        let row = api.processes.wait(process_id, at_most, |_| false)?;
        let is_over = row.status.is_terminal() || api.ledger.tail().is_closing();
        Ok((row, is_over))
    })
}

pub(super) fn kill(api: &Api, call: &Call) -> Result<Answer> {
    let body: KillBody = call.optional_body()?;
    check_length("reason", body.reason.as_deref(), limits::LINE_BYTES)?;
    let row = owned_by(api, call, body.session_id.as_deref())?;
    let kill = Kill {
        killed_by: KilledBy::Request,
        reason: body.reason.unwrap_or_else(|| "requested".to_owned()),
        signal: signal(body.signal.as_deref())?,
        grace_ms: process::grace(body.kill_grace_ms)?,
    };
    let is_wait = call.is_on("wait", true)? && body.wait.unwrap_or(true);
    api.processes.kill(&row.process_id, &kill)?;
    let row = api.processes.get(&row.process_id)?;
    // It ends whoever waits for that: without a place for it nobody does.
    let place = is_wait.then(|| api.waits.take(call).ok()).flatten();
    let at_most = if place.is_some() { process::end_wait(&row) } else { Duration::ZERO };
    let row = await_end(api, call, &row.process_id, at_most)?;
    shown(api, &row, if row.status.is_terminal() || !is_wait { 200 } else { 202 })
}

fn signal(name: Option<&str>) -> Result<i32> {
    let Some(given) = name else { return Ok(process::TERM) };
    let upper = given.trim().to_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    SIGNALS.iter().find(|(known, _)| *known == name).map(|(_, number)| *number).ok_or_else(|| {
        let known: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
        Error::bad_request(format!("signal is {given:?}; it can be {}", known.join(", ")))
    })
}

pub(super) fn stdin(api: &Api, call: &Call) -> Result<Answer> {
    let body: StdinBody = call.body()?;
    if body.text.is_empty() && !body.close {
        return Err(Error::bad_request("text is missing")
            .hint("send text, or \"close\": true to end stdin"));
    }
    let process_id = call.part(0);
    owned_by(api, call, body.session_id.as_deref())?;
    api.processes.write_stdin(process_id, body.text.into_bytes(), body.close)?;
    shown(api, &api.processes.get(process_id)?, 200)
}

/// The process that the path names, if who asks may see it.
pub(super) fn owned(api: &Api, call: &Call) -> Result<ProcessRow> {
    owned_by(api, call, None)
}

/// The same for a request whose body may say who asks.
fn owned_by(api: &Api, call: &Call, session_id: Option<&str>) -> Result<ProcessRow> {
    let row = api.processes.get(call.part(0))?;
    row.check_owner(session_id.or(call.text("session_id")))
        .map_err(|error| error.hint("leave session_id out to act as the operator"))?;
    Ok(row)
}

fn shown(api: &Api, row: &ProcessRow, status: u16) -> Result<Answer> {
    Ok(json(status, to_json(&api.processes.details(row))))
}

pub(super) fn diagnostics(api: &Api, _call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&facts(api)?)))
}

/// Totals, the queue, and what each running process weighs: null where there is no descriptor to look with.
pub(super) fn facts(api: &Api) -> Result<Value> {
    let counts = api.ledger.read(rows::status_counts)?;
    let total: i64 = counts.iter().map(|(_, count)| count).sum();
    let queued = counts.iter().find(|(status, _)| status == "queued").map_or(0, |(_, n)| *n);
    let query = ProcessQuery {
        status: Some("running".to_owned()),
        most: Most::rows(usize::try_from(api.config.processes.running_max).unwrap_or(usize::MAX)),
        ..ProcessQuery::default()
    };
    let running = api.ledger.read(|db| rows::list(db, &query))?;
    let running: Vec<Value> = running.records.iter().map(|row| weighed(api, row)).collect();
    let counts: Map<String, Value> =
        counts.into_iter().map(|(status, count)| (status, Value::from(count))).collect();
    Ok(json!({
        "enabled": api.config.processes.enabled,
        "process_total": total,
        "process_status_counts": counts,
        "max_concurrent": api.config.processes.running_max,
        "queued": queued,
        "threads": api.processes.threads(),
        "running": running,
    }))
}

fn weighed(api: &Api, row: &ProcessRow) -> Value {
    let pid = row.pid.and_then(|pid| i32::try_from(pid).ok());
    let tree = pid.map_or(Ok(Weight::default()), keeper::weigh_tree).ok();
    let journal_bytes = keeper::journal_bytes(&api.processes.child_dir(&row.process_id)).ok();
    json!({
        "process_id": row.process_id,
        "session_id": row.session_id,
        "name": row.name,
        "pid": row.pid,
        "started_at": row.started_at,
        "processes": tree.map(|tree| tree.processes),
        "memory_bytes": tree.map(|tree| tree.memory_bytes),
        "journal_bytes": journal_bytes,
        "stdout_bytes": row.bytes[0],
        "stderr_bytes": row.bytes[1],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_named_with_or_without_their_prefix() {
        assert_eq!(signal(None).unwrap(), 15);
        assert_eq!(signal(Some("SIGINT")).unwrap(), 2);
        assert_eq!(signal(Some("kill")).unwrap(), 9);
        let told = signal(Some("STOP")).unwrap_err().message;
        assert!(told.contains("TERM, KILL, INT, HUP, QUIT"), "{told}");
    }
}
