//! Events: appending them, and reading them in pages.

use super::key::{self, Keyed};
use super::{Ledger, Tx, one_line, writer};
use crate::error::Result;
use crate::limits;
use crate::model::ScopeKind;
use crate::model::event::{EventFilter, EventKind};
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, Statement, params};
use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

/// An event that is to be appended.
pub struct NewEvent<'a> {
    pub scope: ScopeKind,
    pub scope_id: &'a str,
    pub kind: EventKind,
    /// For scopes other than a session's: the session that it concerns.
    pub session_id: Option<&'a str>,
    /// For scopes other than a team's: the team that it concerns.
    pub team_id: Option<&'a str>,
    pub turn_id: Option<&'a str>,
    /// JSON text of an object.
    pub payload: Cow<'a, str>,
    /// Who told it, and the offset in its stdout behind the line that did.
    pub provider: Option<(&'a str, i64)>,
}

impl<'a> NewEvent<'a> {
    /// An event of a session's own log.
    pub fn session(
        session_id: &'a str,
        kind: EventKind,
        payload: impl Into<Cow<'a, str>>,
    ) -> NewEvent<'a> {
        NewEvent {
            scope: ScopeKind::Session,
            scope_id: session_id,
            kind,
            session_id: None,
            team_id: None,
            turn_id: None,
            payload: payload.into(),
            provider: None,
        }
    }

    /// An event of a worktree's own log.
    pub fn worktree(
        worktree_id: &'a str,
        kind: EventKind,
        payload: impl Into<Cow<'a, str>>,
    ) -> NewEvent<'a> {
        NewEvent {
            scope: ScopeKind::Worktree,
            scope_id: worktree_id,
            ..NewEvent::system(kind, payload)
        }
    }

    /// An event of a team's own log.
    pub fn team(
        team_id: &'a str,
        kind: EventKind,
        payload: impl Into<Cow<'a, str>>,
    ) -> NewEvent<'a> {
        NewEvent { scope: ScopeKind::Team, scope_id: team_id, ..NewEvent::system(kind, payload) }
    }

    /// An event of the runtime itself.
    pub fn system(kind: EventKind, payload: impl Into<Cow<'a, str>>) -> NewEvent<'a> {
        NewEvent {
            scope: ScopeKind::System,
            scope_id: SYSTEM_SCOPE,
            kind,
            session_id: None,
            team_id: None,
            turn_id: None,
            payload: payload.into(),
            provider: None,
        }
    }

    pub fn turn(mut self, turn_id: &'a str) -> NewEvent<'a> {
        self.turn_id = Some(turn_id);
        self
    }

    /// The session that an event of another scope concerns.
    pub fn concerning(mut self, session_id: &'a str) -> NewEvent<'a> {
        self.session_id = Some(session_id);
        self
    }

    pub fn provider(mut self, provider: Option<(&'a str, i64)>) -> NewEvent<'a> {
        self.provider = provider;
        self
    }
}

/// The scope id of what the runtime tells about itself.
pub const SYSTEM_SCOPE: &str = "runtime";

/// A committed event, serialised once and shared by all streams.
#[derive(Debug)]
pub struct Frame {
    pub row_id: i64,
    pub scope_key: i64,
    pub seq: i64,
    pub kind: &'static str,
    pub droppable: bool,
    /// The event record of the contract, one line.
    pub json: Box<str>,
    /// Where in the record its turn's id is.
    pub(super) turn_id_at: Option<Range<usize>>,
}

impl Frame {
    pub fn turn_id(&self) -> Option<&str> {
        self.turn_id_at.clone().map(|at| &self.json[at])
    }

    pub fn is_taken_by(&self, filter: &EventFilter) -> bool {
        filter.is_all() || filter.takes(self.kind, self.droppable, self.turn_id())
    }
}

/// Where an event goes.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub row_id: i64,
    pub scope_key: i64,
    pub seq: i64,
}

/// Which part of the log to read.
#[derive(Clone, Debug)]
pub struct Page {
    /// None = the whole log, ordered and cut by row id; else one scope, ordered and cut by seq.
    pub scope_key: Option<i64>,
    /// Strictly after this position.
    pub after: Option<i64>,
    /// Strictly before this position.
    pub before: Option<i64>,
    pub descending: bool,
    pub events_max: usize,
    pub bytes_max: usize,
}

/// The fields of an event record, borrowed, for [`record_json`].
struct Fields<'a> {
    row_id: i64,
    scope: &'a str,
    scope_id: &'a str,
    session_id: Option<&'a str>,
    team_id: Option<&'a str>,
    turn_id: Option<&'a str>,
    seq: i64,
    kind: &'a str,
    droppable: bool,
    payload: &'a str,
    provider: Option<&'a str>,
    provider_seq: Option<i64>,
    created_at: i64,
}

/// What puts events into the log, as a transaction sees it: [`Inserts`], whose statement would give the lifetime of the
/// connection to every function that is handed a transaction.
pub(super) trait Log {
    /// Inserts the event, and makes its frame.
    fn insert(&mut self, event: &NewEvent<'_>, place: Place, now_ms: i64) -> Result<Frame>;
}

/// The statement that nearly every change needs, compiled once. It keeps the values of the last event.
pub(super) struct Inserts<'c> {
    statement: Statement<'c>,
    /// Where a record is made; as long as the longest so far.
    text: String,
}

impl<'c> Inserts<'c> {
    pub(super) fn new(connection: &'c Connection) -> rusqlite::Result<Inserts<'c>> {
        let statement = writer::compile(
            connection,
            "INSERT INTO event (row_id, scope_key, seq, kind, droppable, session_id, team_id,
                 turn_id, payload, provider, provider_seq, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
        )?;
        Ok(Inserts { statement, text: String::new() })
    }
}

impl Log for Inserts<'_> {
    fn insert(&mut self, event: &NewEvent<'_>, place: Place, now_ms: i64) -> Result<Frame> {
        let fields = Fields {
            row_id: place.row_id,
            scope: event.scope.as_str(),
            scope_id: event.scope_id,
            session_id: event.session_id,
            team_id: event.team_id,
            turn_id: event.turn_id,
            seq: place.seq,
            kind: event.kind.as_str(),
            droppable: event.kind.is_droppable(),
            payload: &event.payload,
            provider: event.provider.map(|(name, _)| name),
            provider_seq: event.provider.map(|(_, offset)| offset),
            created_at: now_ms,
        };
        self.statement.execute(params![
            fields.row_id,
            place.scope_key,
            fields.seq,
            fields.kind,
            fields.droppable,
            fields.session_id,
            fields.team_id,
            fields.turn_id,
            fields.payload,
            fields.provider,
            fields.provider_seq,
            fields.created_at,
        ])?;
        Ok(frame(place.scope_key, event.kind.as_str(), &fields, &mut self.text))
    }
}

/// The frame of an event. `text` is where its record is made, whatever was there before: it is used again and the
/// frame gets a copy, which is less than to cut a frame's memory to its length.
fn frame(scope_key: i64, kind: &'static str, fields: &Fields<'_>, text: &mut String) -> Frame {
    let turn_id_at = record_json(fields, text);
    Frame {
        row_id: fields.row_id,
        scope_key,
        seq: fields.seq,
        kind,
        droppable: fields.droppable,
        json: Box::from(text.as_str()),
        turn_id_at,
    }
}

/// Makes `out` the event record of the contract, and says where its turn's id is. The payload is JSON text of ours
/// and goes in as it is, on one line.
fn record_json(fields: &Fields<'_>, out: &mut String) -> Option<Range<usize>> {
    out.clear();
    out.push_str("{\"row_id\":");
    push_number(out, fields.row_id);
    out.push_str(",\"event_id\":\"evt_");
    push_number(out, fields.row_id);
    out.push_str("\",\"scope\":\"");
    out.push_str(fields.scope);
    out.push('"');
    let session_id =
        if fields.scope == "session" { Some(fields.scope_id) } else { fields.session_id };
    let team_id = if fields.scope == "team" { Some(fields.scope_id) } else { fields.team_id };
    push_text(out, ",\"scope_id\":", Some(fields.scope_id));
    push_text(out, ",\"session_id\":", session_id);
    push_text(out, ",\"team_id\":", team_id);
    push_text(out, ",\"turn_id\":", fields.turn_id);
    let turn_id_at = fields.turn_id.map(|turn_id| out.len() - 1 - turn_id.len()..out.len() - 1);
    out.push_str(",\"seq\":");
    push_number(out, fields.seq);
    push_text(out, ",\"kind\":", Some(fields.kind));
    out.push_str(if fields.droppable {
        ",\"criticality\":\"droppable\",\"payload\":"
    } else {
        ",\"criticality\":\"critical\",\"payload\":"
    });
    out.push_str(&one_line(fields.payload));
    push_text(out, ",\"provider\":", fields.provider);
    out.push_str(",\"provider_seq\":");
    match fields.provider_seq {
        Some(offset) => push_number(out, offset),
        None => out.push_str("null"),
    }
    out.push_str(",\"created_at\":");
    push_number(out, fields.created_at);
    out.push('}');
    turn_id_at
}

fn push_number(out: &mut String, number: i64) {
    out.push_str(itoa::Buffer::new().format(number));
}

/// Appends `,"name":` and a text or null. Ids, kinds and provider names of ours hold nothing that JSON escapes.
fn push_text(out: &mut String, name: &str, text: Option<&str>) {
    out.push_str(name);
    match text {
        Some(text) => {
            out.push('"');
            out.push_str(text);
            out.push('"');
        }
        None => out.push_str("null"),
    }
}

impl Page {
    /// The part of the page that one read looks at: [`limits::PAGE_LOOK`] positions from where it begins. `low` and
    /// `high` are what is left of it, both outside.
    pub fn part(&self, low: i64, high: i64) -> Page {
        let (after, before) = match self.descending {
            false => (low, high.min(low + 1 + limits::PAGE_LOOK)),
            true => (low.max(high - 1 - limits::PAGE_LOOK), high),
        };
        Page { after: Some(after), before: Some(before), ..self.clone() }
    }
}

/// Reads one page that a filter may make long to find: in parts, between which others have the connection.
pub fn filtered_page(
    ledger: &Ledger,
    page: &Page,
    filter: &EventFilter,
) -> Result<Vec<Arc<Frame>>> {
    if filter.is_all() {
        return ledger.read(|db| self::page(db, page, filter));
    }
    let head = ledger.read(|db| newest(db, page.scope_key))?;
    let mut low = page.after.unwrap_or(0).clamp(0, head);
    let mut high = page.before.unwrap_or(i64::MAX).min(head + 1);
    let (mut frames, mut bytes) = (Vec::new(), 0);
    while low + 1 < high && frames.len() < page.events_max && bytes < page.bytes_max {
        let mut part = page.part(low, high);
        part.events_max -= frames.len();
        part.bytes_max -= bytes;
        let found = ledger.read(|db| self::page(db, &part, filter))?;
        bytes += found.iter().map(|frame| frame.json.len()).sum::<usize>();
        frames.extend(found);
        match page.descending {
            false => low = part.before.unwrap_or(high) - 1,
            true => high = part.after.unwrap_or(low) + 1,
        }
    }
    Ok(frames)
}

/// The last position of a scope, or of the whole log.
pub fn newest(connection: &Connection, scope_key: Option<i64>) -> Result<i64> {
    match scope_key {
        Some(scope_key) => newest_seq(connection, scope_key),
        None => newest_row_id(connection),
    }
}

/// Reads one page, in its order. Fewer events than `events_max` may come when `bytes_max` is reached first; a page is
/// empty only when nothing is left.
pub fn page(connection: &Connection, page: &Page, filter: &EventFilter) -> Result<Vec<Arc<Frame>>> {
    let mut conditions: Vec<String> = Vec::new();
    let mut values: Vec<Sql> = Vec::new();
    let position = if page.scope_key.is_some() { "seq" } else { "row_id" };
    if let Some(scope_key) = page.scope_key {
        conditions.push("event.scope_key = ?".to_owned());
        values.push(Sql::Integer(scope_key));
    }
    for (bound, sign) in [(page.after, ">"), (page.before, "<")] {
        if let Some(bound) = bound {
            conditions.push(format!("event.{position} {sign} ?"));
            values.push(Sql::Integer(bound));
        }
    }
    if filter.critical_only {
        conditions.push("event.droppable = 0".to_owned());
    }
    if let Some(turn_id) = &filter.turn_id {
        conditions.push("event.turn_id = ?".to_owned());
        values.push(Sql::Text(turn_id.clone()));
    }
    if !filter.kinds.is_empty() {
        let tests = vec!["event.kind GLOB ?"; filter.kinds.len()];
        conditions.push(format!("({})", tests.join(" OR ")));
        values.extend(filter.kinds.iter().cloned().map(Sql::Text));
    }
    let filtered = if conditions.is_empty() {
        String::new()
    } else {
        format!("WHERE {}", conditions.join(" AND "))
    };
    let order = if page.descending { "DESC" } else { "ASC" };
    values.push(Sql::Integer(i64::try_from(page.events_max).unwrap_or(i64::MAX)));
    // One scope's name is asked for once, not joined to each row.
    let mut statement = connection.prepare_cached(&format!(
        "SELECT row_id, scope_key, seq, kind, droppable, session_id, team_id, turn_id, payload,
             provider, provider_seq, created_at
         FROM event {filtered} ORDER BY event.{position} {order} LIMIT ?"
    ))?;
    let mut rows = statement.query(rusqlite::params_from_iter(values))?;
    let mut frames = Vec::new();
    let mut bytes = 0;
    let mut scope = (0, String::new(), String::new());
    let mut text = String::new();
    while let Some(row) = rows.next()? {
        let scope_key: i64 = row.get(1)?;
        if scope.0 != scope_key {
            let (kind, scope_id) = scope_name(connection, scope_key)?;
            scope = (scope_key, kind, scope_id);
        }
        let frame = frame_of(row, &scope.1, &scope.2, &mut text)?;
        bytes += frame.json.len();
        frames.push(Arc::new(frame));
        if bytes >= page.bytes_max {
            break;
        }
    }
    Ok(frames)
}

fn frame_of(
    row: &rusqlite::Row<'_>,
    scope: &str,
    scope_id: &str,
    text: &mut String,
) -> Result<Frame> {
    let optional =
        |column| -> rusqlite::Result<Option<&str>> { Ok(row.get_ref(column)?.as_str_or_null()?) };
    let kind = row.get_ref(3)?.as_str().map_err(rusqlite::Error::from)?;
    let fields = Fields {
        row_id: row.get(0)?,
        scope,
        scope_id,
        session_id: optional(5)?,
        team_id: optional(6)?,
        turn_id: optional(7)?,
        seq: row.get(2)?,
        kind,
        droppable: row.get(4)?,
        payload: row.get_ref(8)?.as_str().map_err(rusqlite::Error::from)?,
        provider: optional(9)?,
        provider_seq: row.get(10)?,
        created_at: row.get(11)?,
    };
    // A kind that this version has no word for can only come from a newer one, whose database is refused.
    let known = EventKind::parse(kind).map_or("unknown", EventKind::as_str);
    Ok(frame(row.get(1)?, known, &fields, text))
}

/// The key of a scope; `QueryReturnedNoRows` when nothing was ever told in it.
pub fn scope_key(
    connection: &Connection,
    scope: ScopeKind,
    scope_id: &str,
) -> rusqlite::Result<i64> {
    connection
        .prepare_cached("SELECT scope_key FROM scope WHERE kind = ?1 AND scope_id = ?2")?
        .query_row(params![scope.as_str(), scope_id], |row| row.get(0))
}

fn scope_name(connection: &Connection, scope_key: i64) -> Result<(String, String)> {
    Ok(connection
        .prepare_cached("SELECT kind, scope_id FROM scope WHERE scope_key = ?1")?
        .query_row([scope_key], |row| Ok((row.get(0)?, row.get(1)?)))?)
}

pub(super) fn insert_scope(
    connection: &Connection,
    scope: ScopeKind,
    scope_id: &str,
) -> Result<i64> {
    let scope_key = key::next(connection, Keyed::Scope)?;
    connection
        .prepare_cached("INSERT INTO scope (scope_key, kind, scope_id) VALUES (?1, ?2, ?3)")?
        .execute(params![scope_key, scope.as_str(), scope_id])?;
    Ok(scope_key)
}

/// The last seq of a scope; 0 for an empty one.
pub fn newest_seq(connection: &Connection, scope_key: i64) -> Result<i64> {
    Ok(connection
        .prepare_cached("SELECT max(seq) FROM event WHERE scope_key = ?1")?
        .query_row([scope_key], |row| row.get::<_, Option<i64>>(0))?
        .unwrap_or(0))
}

/// The first seq of a scope that is still there; None for an empty one.
pub fn oldest_seq(connection: &Connection, scope_key: i64) -> Result<Option<i64>> {
    Ok(connection
        .prepare_cached("SELECT min(seq) FROM event WHERE scope_key = ?1")?
        .query_row([scope_key], |row| row.get(0))?)
}

/// The last row id that was given out; 0 for an empty log.
pub fn newest_row_id(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row(
        "SELECT max(row_id_floor, (SELECT ifnull(max(row_id), 0) FROM event)) FROM ledger",
        [],
        |row| row.get(0),
    )?)
}

/// The last position of a scope, or of the whole log, that was dropped: whoever has seen less has missed something.
pub fn dropped_to(connection: &Connection, scope_key: Option<i64>) -> Result<i64> {
    let (sql, key) = match scope_key {
        Some(scope_key) => ("SELECT dropped_to_seq FROM scope WHERE scope_key = ?1", scope_key),
        None => ("SELECT dropped_to_row_id FROM ledger WHERE ledger_key = ?1", 1),
    };
    let dropped_to = connection.prepare_cached(sql)?.query_row([key], |row| row.get(0));
    Ok(dropped_to.optional()?.unwrap_or(0))
}

/// The first row id that is still there; None for an empty log.
pub fn oldest_row_id(connection: &Connection) -> Result<Option<i64>> {
    Ok(connection.query_row("SELECT min(row_id) FROM event", [], |row| row.get(0))?)
}

impl Tx<'_> {
    /// Removes the whole log of a scope for good. Only for a purge, which makes it short before.
    pub fn purge_scope(&mut self, scope: ScopeKind, scope_id: &str) -> Result<()> {
        let Some(scope_key) = scope_key(self.connection(), scope, scope_id).optional()? else {
            return Ok(());
        };
        let newest = newest_row_id(self.connection())?;
        self.connection().execute(
            "UPDATE ledger SET row_id_floor = ?1, dropped_to_row_id = max(dropped_to_row_id,
                 (SELECT ifnull(max(row_id), 0) FROM event WHERE scope_key = ?2))",
            [newest, scope_key],
        )?;
        self.connection().execute("DELETE FROM event WHERE scope_key = ?1", [scope_key])?;
        key::raise_floor(self.connection(), Keyed::Scope, scope_key)?;
        self.connection().execute("DELETE FROM scope WHERE scope_key = ?1", [scope_key])?;
        self.forget_head(scope_id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::tests::Folder;

    /// What a filter finds in many parts is what it finds in one look at all of it.
    #[test]
    fn a_filtered_page_is_the_same_in_parts() {
        let folder = Folder::new();
        let opened = folder.ledger();
        let ledger = &opened.ledger;
        let rows = limits::PAGE_LOOK * 2 + 5_000;
        ledger
            .write(move |tx| {
                for number in 0..rows {
                    let is_rare = number % 7_001 == 3;
                    let kind =
                        if is_rare { EventKind::TurnCompleted } else { EventKind::ItemDelta };
                    let scope_id = if number % 3 == 0 { "s" } else { "t" };
                    tx.append(NewEvent::session(scope_id, kind, "{}"))?;
                }
                Ok(())
            })
            .unwrap();
        let scope_key = ledger.read(|db| Ok(scope_key(db, ScopeKind::Session, "s")?)).unwrap();
        let kinds = vec!["turn.*".to_owned()];
        let filter = EventFilter { kinds, ..EventFilter::default() };
        let mut found = 0;
        for (scope_key, descending) in
            [(None, false), (None, true), (Some(scope_key), false), (Some(scope_key), true)]
        {
            for (after, before) in [
                (None, None),
                (Some(8_000), None),
                (None, Some(12_000)),
                (Some(i64::MIN), Some(i64::MAX)),
                (Some(i64::MAX), None),
                (None, Some(i64::MIN)),
            ] {
                for events_max in [1, 2, 100] {
                    let bytes_max = usize::MAX;
                    let page = Page { scope_key, after, before, descending, events_max, bytes_max };
                    let whole = ledger.read(|db| super::page(db, &page, &filter)).unwrap();
                    let parts = filtered_page(ledger, &page, &filter).unwrap();
                    let rows =
                        |frames: &[Arc<Frame>]| frames.iter().map(|f| f.row_id).collect::<Vec<_>>();
                    assert_eq!(rows(&parts), rows(&whole), "{page:?}");
                    found += parts.len();
                }
            }
        }
        assert!(found > 100, "{found}");
        assert!(opened.end());
    }
}
