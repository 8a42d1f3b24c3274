//! Events: reading the log in pages, and opening streams on it.

use super::stream::{Cursor, StreamPlan};
use super::{Api, Call};
use crate::error::{Code, Error, Result};
use crate::http::{Answer, Response};
use crate::ledger::event::{self, Page, SYSTEM_SCOPE};
use crate::ledger::{Connection, session, team, worktree};
use crate::limits;
use crate::model::ScopeKind;
use crate::model::event::EventFilter;

pub(super) fn list_all(api: &Api, call: &Call) -> Result<Answer> {
    list(api, call, None)
}

pub(super) fn stream_all(api: &Api, call: &Call) -> Result<Answer> {
    stream(api, call, None)
}

pub(super) fn list_of_session(api: &Api, call: &Call) -> Result<Answer> {
    list(api, call, Some(session_scope(api, call.part(0))?))
}

pub(super) fn stream_of_session(api: &Api, call: &Call) -> Result<Answer> {
    stream(api, call, Some(session_scope(api, call.part(0))?))
}

pub(super) fn list_of_team(api: &Api, call: &Call) -> Result<Answer> {
    // What a team did can be read when it is gone.
    let id = call.part(0);
    let scope = scope_of(api, ScopeKind::Team, id, |db| team::get_any(db, id).map(drop))?;
    list(api, call, Some(scope))
}

pub(super) fn stream_of_team(api: &Api, call: &Call) -> Result<Answer> {
    let id = call.part(0);
    let scope = scope_of(api, ScopeKind::Team, id, |db| team::get(db, id).map(drop))?;
    stream(api, call, Some(scope))
}

pub(super) fn list_of_system(api: &Api, call: &Call) -> Result<Answer> {
    list(api, call, Some(system_scope(api)?))
}

pub(super) fn stream_of_system(api: &Api, call: &Call) -> Result<Answer> {
    stream(api, call, Some(system_scope(api)?))
}

pub(super) fn list_of_process(api: &Api, call: &Call) -> Result<Answer> {
    list(api, call, Some(process_scope(api, call)?))
}

pub(super) fn stream_of_process(api: &Api, call: &Call) -> Result<Answer> {
    stream(api, call, Some(process_scope(api, call)?))
}

pub(super) fn list_of_worktree(api: &Api, call: &Call) -> Result<Answer> {
    list(api, call, Some(worktree_scope(api, call.part(0))?))
}

pub(super) fn stream_of_worktree(api: &Api, call: &Call) -> Result<Answer> {
    stream(api, call, Some(worktree_scope(api, call.part(0))?))
}

fn session_scope(api: &Api, id: &str) -> Result<i64> {
    scope_of(api, ScopeKind::Session, id, |db| session::key(db, id).map(drop))
}

fn worktree_scope(api: &Api, id: &str) -> Result<i64> {
    scope_of(api, ScopeKind::Worktree, id, |db| worktree::get(db, id).map(drop))
}

fn process_scope(api: &Api, call: &Call) -> Result<i64> {
    let process_id = super::process::owned(api, call)?.process_id;
    scope_of(api, ScopeKind::Process, &process_id, |_db| Ok(()))
}

fn system_scope(api: &Api) -> Result<i64> {
    scope_of(api, ScopeKind::System, SYSTEM_SCOPE, |_db| Ok(()))
}

/// The key of a log, once `check` has found the thing whose log it is.
fn scope_of(
    api: &Api,
    kind: ScopeKind,
    id: &str,
    check: impl FnOnce(&Connection) -> Result<()>,
) -> Result<i64> {
    api.ledger.read(|db| {
        check(db)?;
        Ok(event::scope_key(db, kind, id)?)
    })
}

/// The kinds and families that a parameter names.
fn kinds(call: &Call, name: &str) -> Result<Vec<String>> {
    let kinds = EventFilter::parse_kinds(call.text(name).unwrap_or_default()).map_err(|word| {
        Error::bad_request(format!("{name}: {word:?} can not name an event"))
            .hint("write kinds like turn.completed and families like item.*, with commas between")
    })?;
    if kinds.len() > limits::FILTER_KINDS {
        let message = format!("{name}: {} names, at most {}", kinds.len(), limits::FILTER_KINDS);
        return Err(Error::bad_request(message).hint("name families like item.*, or leave it out"));
    }
    Ok(kinds)
}

fn filter(call: &Call) -> Result<EventFilter> {
    Ok(EventFilter {
        kinds: kinds(call, "kinds")?,
        critical_only: call.is_on("critical_only", false)?,
        turn_id: call.text("turn_id").map(str::to_owned),
    })
}

fn list(api: &Api, call: &Call, scope_key: Option<i64>) -> Result<Answer> {
    let filter = filter(call)?;
    let descending = call.one_of("order", &["asc", "desc"])? == Some("desc");
    let limit = match (call.limit(500)?, scope_key) {
        (0, Some(_)) => 1,
        (limit, _) => limit,
    };
    let (after, before) = bounds(call, descending)?;
    let wanted = Page {
        scope_key,
        after,
        before,
        descending,
        events_max: limit,
        bytes_max: limits::LIST_BYTES,
    };
    let frames = event::filtered_page(&api.ledger, &wanted, &filter)?;
    let mut body = String::from("[");
    for (place, frame) in frames.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        body.push_str(&frame.json);
    }
    body.push(']');
    let mut response = Response::json(200, body).header("Cache-Control", "no-store");
    let bytes: usize = frames.iter().map(|frame| frame.json.len()).sum();
    let is_cut = frames.len() == limit || bytes >= limits::LIST_BYTES;
    if let Some(last) = frames.last().filter(|_| is_cut) {
        let place = if scope_key.is_some() { last.seq } else { last.row_id };
        response = response.header("X-Next-Cursor", place.to_string());
    }
    Ok(Answer::Whole(response))
}

/// Between which positions. A cursor, as every list takes it, is where the page before ended: whoever pages may leave
/// the bound that he began with beside it.
fn bounds(call: &Call, descending: bool) -> Result<(Option<i64>, Option<i64>)> {
    let (after, before) = (call.number("after_seq")?, call.number("before_seq")?);
    let cursor = call.number("cursor")?;
    Ok(match descending {
        true => (after, cursor.into_iter().chain(before).min()),
        false => (after.max(cursor), before),
    })
}

fn stream(api: &Api, call: &Call, scope_key: Option<i64>) -> Result<Answer> {
    // Asked before the head: what was published up to here is in it.
    let published = api.ledger.tail().newest_row_id();
    let head = api.ledger.read(|db| event::newest(db, scope_key))?;
    let oldest = api.ledger.read(|db| match scope_key {
        Some(scope_key) => event::oldest_seq(db, scope_key),
        None => event::oldest_row_id(db),
    })?;
    let dropped_to = api.ledger.read(|db| event::dropped_to(db, scope_key))?;
    let cursor = cursor(call, head)?;
    if let Cursor::After(after) = cursor
        && after > head
    {
        return Err(Error::new(
            Code::CursorAhead,
            format!("the cursor is {after}, the log ends at {head}"),
        )
        .hint("drop the cursor and read the state anew")
        .detail("head", head.to_string()));
    }
    let until = kinds(call, "until")?;
    let until = (!until.is_empty()).then(|| EventFilter { kinds: until, ..EventFilter::default() });
    let limit = match call.number("limit")? {
        Some(limit) => Some(usize::try_from(limit).map_err(|_| {
            Error::bad_request(format!("limit is {limit}; it can not be negative"))
        })?),
        None => None,
    };
    let plan = StreamPlan {
        scope_key,
        cursor,
        head,
        published,
        oldest: oldest.unwrap_or(head + 1),
        dropped_to,
        filter: filter(call)?,
        until,
        limit,
        has_control: call.is_on("control", true)?,
        is_ndjson: call.accepts("application/x-ndjson"),
        heartbeat: api.config.heartbeat,
    };
    plan.answer(api, call)
}

/// `Last-Event-ID` wins over `after_seq`: a browser repeats its first URL with a newer header.
fn cursor(call: &Call, head: i64) -> Result<Cursor> {
    let header = call.head().header("last-event-id").map(str::trim).filter(|id| !id.is_empty());
    if let Some(id) = header {
        return match id.parse::<i64>() {
            Ok(after) if after >= 0 => Ok(Cursor::After(after)),
            _ => Err(Error::bad_request(format!("Last-Event-ID is {id:?}"))
                .hint("send the id of the last event, or leave the header out")),
        };
    }
    if call.text("cursor").is_some() {
        return Err(Error::bad_request("cursor is a word of lists")
            .hint("a stream goes on behind after_seq, or the header Last-Event-ID"));
    }
    match call.text("after_seq") {
        None => Ok(Cursor::Start),
        Some("latest") => Ok(Cursor::After(head)),
        Some(_) => Ok(Cursor::After(call.number("after_seq")?.unwrap_or(0).max(0))),
    }
}
