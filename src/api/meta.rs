//! What the server says about itself: health, readiness, version, diagnostics.

use super::{Api, Call, json, login};
use crate::config::Provider;
use crate::error::{Code, Error, Result};
use crate::http::{Answer, Meter};
use crate::keeper;
use crate::ledger::team::{self, delivery};
use crate::ledger::{WRITER, agent, session, to_json};
use crate::limits;
use crate::model::id;
use crate::provider::readiness::{FIRST_ANSWER, ProblemKind, Report};
use crate::watchdog::{self, Standing};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

/// `GET /health`: the process answers. No store is asked.
pub(super) fn health(api: &Api, _call: &Call) -> Result<Answer> {
    let body = json!({
        "status": "ok",
        "providers": api.config.providers.len(),
        "public_base_url": api.public_base_url(),
    });
    Ok(json(200, to_json(&body)))
}

/// `GET /ready`: the writer commits and the store answers. Where the writer hangs nobody waits for it as well: probes
/// come again and again, and would take one connection after the other.
pub(super) fn ready(api: &Api, _call: &Call) -> Result<Answer> {
    let is_stuck = |thread: &Standing| thread.is_stuck && thread.name == WRITER;
    if watchdog::threads(api.config.stuck_after).iter().any(is_stuck) {
        return Err(Error::new(Code::Capacity, "the writer of the database hangs")
            .hint("look at its disk; GET /v1/diagnostics tells since when"));
    }
    api.ledger.write(|_tx| Ok(()))?;
    api.ledger.read(|db| Ok(db.query_row("SELECT 1", [], |row| row.get::<_, i64>(0))?))?;
    Ok(json(200, to_json(&json!({"status": "ready"}))))
}

pub(super) fn version(_api: &Api, _call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&json!({"version": env!("CARGO_PKG_VERSION")}))))
}

/// Whoever looks here may do so because something has run out. So a part that can not be read is null, and `unread`
/// says why; the others are told all the same.
pub(super) fn diagnostics(api: &Api, _call: &Call) -> Result<Answer> {
    let mut unread = Vec::new();
    let mut part = |name: &str, read: Result<Value>| {
        read.unwrap_or_else(|error| {
            log::warn!("diagnostics are told without {name}: {error}");
            unread.push(json!({"part": name, "error": error.told()}));
            Value::Null
        })
    };
    let mut body = json!({
        "providers": providers(api, Instant::now()),
        "processes": part("processes", super::process::facts(api)),
        "comms": part("comms", comms(api)),
        "recovery": recovery(api),
        "worktrees": part("worktrees", super::worktree::counts(api)),
        "writer": writer(api),
        "tail": tail(api),
        "streams": part("streams", super::reader::facts(api)),
        "connections": connections(api),
        "keepers": part("keepers", keepers(api)),
        "database": database(api),
        "threads": threads(api),
        "session_threads": api.sessions.threads(),
        "session_status_counts": part("session_status_counts", session_status_counts(api)),
        "uptime_ms": u64::try_from(api.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "now": id::now_ms(),
    });
    body["unread"] = unread.into();
    Ok(json(200, to_json(&body)))
}

fn session_status_counts(api: &Api) -> Result<Value> {
    let counts = api.ledger.read(session::status_counts)?;
    let counts: serde_json::Map<_, _> =
        counts.into_iter().map(|(status, count)| (status, Value::from(count))).collect();
    Ok(counts.into())
}

pub(super) fn diagnostics_providers(api: &Api, _call: &Call) -> Result<Answer> {
    let providers = providers(api, Instant::now() + FIRST_ANSWER);
    Ok(json(200, to_json(&json!({"providers": providers}))))
}

pub(super) fn diagnostics_recovery(api: &Api, _call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&recovery(api))))
}

pub(super) fn diagnostics_comms(api: &Api, _call: &Call) -> Result<Answer> {
    Ok(json(200, to_json(&comms(api)?)))
}

fn comms(api: &Api) -> Result<Value> {
    let (counts, statuses) =
        api.ledger.read(|db| Ok((team::counts(db)?, delivery::status_counts(db)?)))?;
    let total: i64 = statuses.iter().map(|(_, count)| count).sum();
    let by_status: serde_json::Map<_, _> =
        statuses.into_iter().map(|(status, count)| (status, Value::from(count))).collect();
    Ok(json!({
        "team_count": counts.teams,
        "member_count": counts.members,
        "message_count": counts.messages,
        "delivery_total": total,
        "delivery_status_counts": by_status,
        "dispatcher": api.teams.dispatch_counts(),
    }))
}

/// What is not known yet is waited for until the deadline. Nothing known is no fault: `checked_at` is null then.
fn providers(api: &Api, deadline: Instant) -> Value {
    let reports = api.reports(deadline);
    let of = |(name, provider, report): &(&str, &Provider, Option<Arc<Report>>)| {
        let report = report.as_deref();
        let problem = report.and_then(|report| report.problem.as_ref());
        // A login that is missing is no fault of the program: `auth_status` tells it.
        let fault = problem.filter(|problem| problem.kind != ProblemKind::LoginMissing);
        let told = fault.map(|fault| format!("{}; {}", fault.message, fault.remedy));
        let is_unasked = fault.is_some_and(|fault| fault.kind == ProblemKind::NoAnswer);
        json!({
            "provider": name,
            "healthy": fault.is_none(),
            "health_error": told,
            "auth_status": login::record(api, name, report),
            "auth_error": told.as_ref().filter(|_| is_unasked),
            "program": report.and_then(|report| report.program.clone()),
            "version": report.and_then(|report| report.version.clone()),
            "checked_at": report.map(|report| report.checked_at),
            "live_agents": api.sessions.live_agents(name),
            "live_agents_max": provider.live_max,
            "agents": provider.agents.keys().collect::<Vec<_>>(),
        })
    };
    reports.iter().map(of).collect()
}

fn recovery(api: &Api) -> Value {
    let startup = api.recovered.get().map(|recovered| {
        json!({
            "sessions_attached": recovered.sessions_attached,
            "sessions_resumed": recovered.sessions_resumed,
            "processes_adopted": recovered.processes_adopted,
            "orphans_stopped": recovered.orphans_stopped,
        })
    });
    json!({"startup": startup, "active_anomalies": []})
}

/// The threads that are watched, and how long each may be at one piece of work.
fn threads(api: &Api) -> Vec<Value> {
    let bound = api.config.stuck_after;
    let told = |thread: Standing| {
        json!({
            "name": thread.name,
            "busy_since": thread.busy_since(),
            "bound_ms": u64::try_from(bound.as_millis()).unwrap_or(u64::MAX),
            "stuck": thread.is_stuck,
        })
    };
    watchdog::threads(bound).into_iter().map(told).collect()
}

fn writer(api: &Api) -> Value {
    let counters = api.ledger.counters();
    let get = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    json!({
        "queue_depth": api.ledger.queue_depth(),
        "commits": get(&counters.commits),
        "jobs": get(&counters.jobs),
        "events": get(&counters.events),
        "batch_max": get(&counters.batch_max),
        "commit_us": get(&counters.commit_us),
        "commit_us_max": get(&counters.commit_us_max),
        "failed": get(&counters.failed),
    })
}

fn tail(api: &Api) -> Value {
    let facts = api.ledger.tail().facts();
    json!({
        "frames": facts.frames,
        "frames_max": limits::TAIL_FRAMES,
        "bytes": facts.bytes,
        "bytes_max": limits::TAIL_BYTES,
        "head": facts.newest_row_id,
        "complete_after": facts.complete_after,
        "watched_scopes": facts.watched_scopes,
    })
}

fn connections(api: &Api) -> Value {
    let counters = api.http.get().map(Meter::counters).unwrap_or_default();
    json!({
        "open": counters.open,
        "max": api.config.connections_max,
        "accepted": counters.accepted,
        "refused": counters.refused,
        "accept_errors": counters.accept_errors,
        "requests": counters.requests,
        "panics": counters.panics,
    })
}

/// The keepers that live, with what they hold: agents, their terminals, processes.
fn keepers(api: &Api) -> Result<Value> {
    let held = keeper::weigh_all(&api.config.root_dir.join("keepers"))?;
    let agents: HashMap<String, String> = api
        .ledger
        .read(agent::live_sessions)?
        .into_iter()
        .map(|agent| (agent.child_id, agent.session_id))
        .collect();
    let keepers: Vec<Value> = held
        .iter()
        .map(|held| {
            json!({
                "child_id": held.child_id,
                "agent_of_session_id": agents.get(&held.child_id),
                "keeper_pid": held.keeper_pid,
                "processes": held.weight.processes,
                "memory_bytes": held.weight.memory_bytes,
                "journal_bytes": held.journal_bytes,
            })
        })
        .collect();
    Ok(keepers.into())
}

fn database(api: &Api) -> Value {
    let (bytes, wal_bytes) = api.ledger.file_bytes();
    json!({
        "bytes": bytes,
        "bytes_max": api.config.database_bytes_max,
        "wal_bytes": wal_bytes,
    })
}

impl Api {
    /// As configured, else the address that clients on this machine reach.
    pub fn public_base_url(&self) -> String {
        self.config
            .public_base_url
            .clone()
            .unwrap_or_else(|| format!("http://{}{}", self.address, self.config.base_path))
    }
}
