//! From the ledger to the copy that a session's thread holds, and on from there.
//!
//! Used when the thread starts (also in the middle of a turn, after the server was killed) and when a commit failed.

use super::actor::{Actor, LiveApproval, LiveItem, LiveTurn, Phase, State};
use super::agent::Agent;
use super::turn::GATED;
use crate::error::Result;
use crate::ledger::agent::{self, Offsets};
use crate::ledger::approval::{self, ApprovalQuery};
use crate::ledger::event::{self, Page};
use crate::ledger::turn::TurnRecord;
use crate::ledger::{Connection, Most, item, session, turn};
use crate::limits;
use crate::model::event::{EventFilter, EventKind};
use crate::model::{ApprovalStatus, ScopeKind, id};
use crate::provider::{self, Effects};
use serde_json::Value;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the adapter asked for again when it was restored.
type Again = Effects;

/// Reads the session into `actor`, without touching its agent.
pub(super) fn load(actor: &mut Actor) -> Result<()> {
    let ledger = actor.shared.ledger.clone();
    let session_id = Arc::clone(&actor.session_id);
    let (state, private, again) = ledger.read(|db| {
        let private = session::get_private(db, &session_id)?;
        let key = private.session_key;
        let mut state = State {
            title: private.title.clone(),
            is_gated: private.permission_mode.as_deref() == Some(GATED),
            usage: private
                .usage
                .as_deref()
                .and_then(|usage| serde_json::from_str(usage).ok())
                .unwrap_or_default(),
            queued: turn::queued_count(db, key)?,
            ..State::default()
        };
        let scope_key = event::scope_key(db, ScopeKind::Session, &session_id)?;
        if let Some(record) = turn::active(db, key)? {
            load_turn(db, &mut state, &record, key, scope_key)?;
            let turn_timeout = actor.shared.provider(&private.provider).turn_timeout;
            if let (Some(turn), Some(timeout)) = (&mut state.turn, turn_timeout) {
                turn.timeout_at = record.dispatched_at.map(|at| instant_of(at) + timeout);
            }
        }
        load_items(db, &mut state, key, scope_key)?;
        if matches!(private.state.as_str(), "closed" | "failed") {
            state.phase = Phase::Over;
        }
        let again = load_agent(db, &mut state, &private, scope_key)?;
        Ok((state, private, again))
    })?;
    let closers = std::mem::take(&mut actor.state.closers);
    actor.state = State { closers, ..state };
    actor.session_key = private.session_key;
    actor.provider = private.provider.into();
    actor.agent_name = private.agent;
    actor.state.again = again;
    if actor.state.agent.is_some() && actor.reservation.is_none() {
        actor.reservation = Some(actor.shared.capacity.reserve_anyway(&actor.provider));
    }
    if let Phase::Opening { deadline, .. } = &mut actor.state.phase {
        *deadline += actor.shared.provider(&actor.provider).request_timeout;
    }
    Ok(())
}

/// The instant of a time in milliseconds since the epoch; now for one in the future or before the machine started.
fn instant_of(at_ms: i64) -> Instant {
    let ago_ms = u64::try_from(id::now_ms() - at_ms).unwrap_or(0);
    let now = Instant::now();
    now.checked_sub(Duration::from_millis(ago_ms)).unwrap_or(now)
}

/// The instant at which an approval's time is over: at most all of it from now, also when the clock was set back.
fn expiry_of(created_at: i64, expires_at: i64) -> Option<Instant> {
    let left_ms = expires_at - id::now_ms().max(created_at);
    Instant::now().checked_add(Duration::from_millis(u64::try_from(left_ms).unwrap_or(0)))
}

fn load_turn(
    db: &Connection,
    state: &mut State,
    record: &TurnRecord,
    session_key: i64,
    scope_key: i64,
) -> Result<()> {
    let mut turn = LiveTurn::of_record(record);
    for said in item::said(db, record.turn_key, limits::ASSISTANT_TEXT_BYTES)? {
        turn.add_assistant_text(&said);
    }
    let last = |kind: EventKind| -> Result<Option<Value>> {
        let event = last_event(db, scope_key, &[kind], Some(&record.id))?;
        Ok(event.map(|event| event["payload"].clone()))
    };
    turn.usage = last(EventKind::UsageUpdated)?
        .and_then(|payload| serde_json::from_value(payload["usage"].clone()).ok());
    turn.plan =
        last(EventKind::PlanUpdated)?.and_then(|payload| payload["entries"].as_array().cloned());
    let query = ApprovalQuery {
        session_key: Some(session_key),
        status: Some(ApprovalStatus::Pending.as_str().to_owned()),
        after: None,
        most: Most::rows(limits::PENDING_APPROVALS),
    };
    for pending in approval::list(db, &query)?.records {
        let adapter_key = pending.adapter_key.clone();
        if adapter_key.is_none() {
            turn.gate = Some(pending.id.clone());
        }
        let live = LiveApproval {
            adapter_key: adapter_key.unwrap_or_default(),
            expires_at: pending.expires_at.and_then(|at| expiry_of(pending.created_at, at)),
        };
        state.approvals.insert(pending.id, live);
    }
    state.turn = Some(turn);
    Ok(())
}

/// The newest event of these kinds in the session's log, or in one of its turns.
fn last_event(
    db: &Connection,
    scope_key: i64,
    kinds: &[EventKind],
    turn_id: Option<&str>,
) -> Result<Option<Value>> {
    let filter = EventFilter {
        kinds: kinds.iter().map(|kind| kind.as_str().to_owned()).collect(),
        turn_id: turn_id.map(str::to_owned),
        ..EventFilter::default()
    };
    let page = Page {
        scope_key: Some(scope_key),
        after: None,
        before: None,
        descending: true,
        events_max: 1,
        bytes_max: usize::MAX,
    };
    let frames = event::page(db, &page, &filter)?;
    Ok(frames.first().and_then(|frame| serde_json::from_str(&frame.json).ok()))
}

/// Open items, with what their deltas in the log add up to.
fn load_items(db: &Connection, state: &mut State, session_key: i64, scope_key: i64) -> Result<()> {
    let mut items = item::open_items(db, session_key)?;
    item::grow(db, scope_key, &mut items, usize::MAX)?;
    for open in items {
        let mut live =
            LiveItem::new(open.item_type, open.body, open.created_at, open.turn_id.into());
        live.item_id = open.item_id.into();
        state.items.insert(open.adapter_key, live);
    }
    Ok(())
}

/// The agent that the ledger knows of: its adapter as the last commit left it, or none when that can not be read.
fn load_agent(
    db: &Connection,
    state: &mut State,
    private: &session::SessionPrivate,
    scope_key: i64,
) -> Result<Again> {
    let session_key = private.session_key;
    let is_resume = private.provider_session_ref.is_some();
    let Some(row) = agent::get(db, session_key)? else { return Ok(Effects::default()) };
    let snapshot: Value = serde_json::from_str(&row.snapshot).unwrap_or(Value::Null);
    let (adapter, again) = match provider::restore(&private.provider, &snapshot) {
        Ok((adapter, again)) => (Some(adapter), again),
        Err(error) => {
            log::error!("the agent {} can not go on: {error}", row.child_id);
            (None, Effects::default())
        }
    };
    let offsets =
        Offsets { stdout: row.stdout_offset, stderr: row.stderr_offset, stdin: row.stdin_offset };
    let mut live = Agent::new(row.child_id.as_str().into(), offsets, row.snapshot);
    live.set_unsent(agent::unsent_stdin(db, session_key, 0)?);
    // The start is told when the keeper says hello, which comes before all output; a server that was killed before
    // that has left it to this one.
    let kinds = [EventKind::AgentStarted, EventKind::AgentExited, EventKind::AgentSlept];
    let last = |kinds: &[EventKind]| last_event(db, scope_key, kinds, None);
    let is_started = |event: Value| event["kind"] == EventKind::AgentStarted.as_str();
    live.set_told(row.stdout_offset > 0 || last(&kinds)?.is_some_and(is_started));
    state.agent = Some(live);
    for (terminal_id, bytes_max) in agent::terminals(db, session_key)? {
        state.terminals.expect(&terminal_id, bytes_max);
    }
    if state.phase != Phase::Over {
        // An agent without an adapter only ends: what that means for the session hangs on whether it ever opened.
        let is_open = adapter.as_ref().map_or(is_resume, |adapter| adapter.is_open());
        state.phase = if is_open {
            Phase::Open
        } else {
            Phase::Opening { deadline: Instant::now(), is_resume }
        };
    }
    state.adapter = adapter;
    Ok(again)
}

/// Takes up what was going on: attaches to the agent, runs what can run.
pub(super) fn go_on(actor: &mut Actor) {
    if actor.state.agent.is_some() && actor.state.adapter.is_none() {
        return actor.end_unreadable();
    }
    if actor.state.agent.is_some() {
        let attached = actor.reattach().and_then(|()| actor.reattach_terminals());
        if let Err(error) = attached {
            return actor.give_up_copy(&error);
        }
        if let Some(adapter) = actor.state.adapter.take() {
            actor.await_steers(&*adapter);
            actor.state.adapter = Some(adapter);
        }
        let mut again = std::mem::take(&mut actor.state.again);
        if !again.is_empty() {
            let mut step = actor.step();
            if let Some(mut adapter) = actor.state.adapter.take() {
                actor.apply_all(&mut again, &mut adapter, &mut step);
                actor.state.adapter = Some(adapter);
            }
            if actor.commit(step).is_ok() {
                actor.after_output();
            }
        }
        if actor.state.phase == Phase::Over {
            // It was being closed when the server stopped.
            actor.end_agent(super::actor::Stop::Close);
        }
    } else if actor.state.phase != Phase::Over {
        actor.start_next();
    }
    // One that is to be read again may have an agent.
    if actor.retry_at.is_none() && actor.is_alone() {
        // What they waited for is in the ledger, though its commit was told to have failed.
        std::mem::take(&mut actor.state.closers).into_iter().for_each(|closer| closer());
    }
}
