//! What may be forgotten by age: deltas of finished items, and closed sessions when the configuration says so.
//!
//! Reads look for what is due, on the caller's thread; writes take a bounded piece of it each, so that no other change
//! waits long behind one. What is dropped is counted in its scope in the same transaction: a number that is missing is
//! known to be missing for a reason ([`super::verify`]). Deliberately not here: when to do it.

use super::{Connection, Tx};
use crate::error::Result;
use crate::limits;
use crate::model::ScopeKind;
use rusqlite::{OptionalExtension, params};

/// What a look at the log found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct DueDeltas {
    /// Rows to drop, oldest first; few enough for one change.
    pub row_ids: Vec<i64>,
    /// Where the next look begins.
    pub looked_to: i64,
    /// Rows up to here need never be looked at again, once `row_ids` are gone.
    pub settled_to: i64,
    /// When the first row behind `looked_to` was written, if that is why the look ended: it is too young.
    pub too_young_since: Option<i64>,
    /// Whether there was nothing behind `looked_to`.
    pub is_end: bool,
}

/// What one change of a purge may still remove, so that no other change waits long behind it.
#[derive(Debug)]
pub(super) struct Step {
    rows: usize,
    bytes: usize,
    is_begun: bool,
}

impl Step {
    pub(super) fn new(rows: usize) -> Step {
        Step { rows, bytes: limits::RETENTION_BYTES, is_begun: false }
    }

    /// Whether a row of this size goes with the step; the first of it does, however large it is.
    pub(super) fn takes(&mut self, bytes: i64) -> bool {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        if self.rows == 0 || self.is_begun && bytes > self.bytes {
            return false;
        }
        self.is_begun = true;
        self.rows -= 1;
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }

    /// So many rows have to be looked at to know whether one is left over.
    pub(super) fn look(&self) -> i64 {
        i64::try_from(self.rows).unwrap_or(i64::MAX - 1) + 1
    }
}

/// What a step has removed of one table.
pub(super) struct DroppedRows {
    /// The highest key.
    pub(super) newest: Option<i64>,
    /// Whether something is left that the step does not take.
    pub(super) is_full: bool,
}

/// What hangs on a session, in the order in which it goes: what refers to a turn before that. Rows, and what a row
/// weighs.
const PARTS: [(&str, &str); 3] = [
    ("item", "octet_length(body)"),
    (
        "approval",
        "octet_length(subject) + octet_length(options) + octet_length(ifnull(response, ''))",
    ),
    ("turn", "octet_length(input) + octet_length(ifnull(assistant_text, ''))"),
];

/// Where the look of an earlier server ended.
pub fn settled_to(connection: &Connection) -> Result<i64> {
    Ok(connection.query_row("SELECT retention_row_id FROM ledger", [], |row| row.get(0))?)
}

/// Looks at the rows behind `after`, a bounded number of them: deltas older than `before` whose item is finished are
/// due. A delta of an open item stays, and its row is not settled: a restarted server adds the deltas up again.
pub fn due_deltas(
    connection: &Connection,
    after: i64,
    settled_to: i64,
    before: i64,
) -> Result<DueDeltas> {
    let mut statement = connection.prepare_cached(
        "SELECT row_id, created_at, kind = 'item.delta', octet_length(payload), (
             SELECT status = 'in_progress' FROM item
             WHERE kind = 'item.delta' AND item_id = payload ->> 'item_id')
         FROM event WHERE row_id > ?1 ORDER BY row_id LIMIT ?2",
    )?;
    let look_max = i64::try_from(limits::RETENTION_LOOK).unwrap_or(i64::MAX);
    let mut rows = statement.query(params![after, look_max])?;
    let is_all_settled = settled_to >= after;
    let mut due = DueDeltas { looked_to: after, settled_to, ..DueDeltas::default() };
    let (mut is_settled, mut bytes, mut seen) = (is_all_settled, 0, 0);
    while let Some(row) = rows.next()? {
        let (row_id, created_at): (i64, i64) = (row.get(0)?, row.get(1)?);
        if created_at >= before {
            due.too_young_since = Some(created_at);
            return Ok(due);
        }
        if row.get::<_, bool>(2)? {
            if row.get::<_, Option<bool>>(4)?.unwrap_or(false) {
                is_settled = false;
            } else {
                let size = usize::try_from(row.get::<_, i64>(3)?).unwrap_or(usize::MAX);
                if due.row_ids.len() >= limits::RETENTION_ROWS
                    || !due.row_ids.is_empty() && bytes + size > limits::RETENTION_BYTES
                {
                    return Ok(due);
                }
                bytes += size;
                due.row_ids.push(row_id);
            }
        }
        due.looked_to = row_id;
        if is_settled {
            due.settled_to = row_id;
        }
        seen += 1;
    }
    due.is_end = seen < limits::RETENTION_LOOK;
    Ok(due)
}

/// Sessions that were closed before `before` and have no agent, longest ago first; at most so many.
pub fn due_sessions(connection: &Connection, before: i64, most: usize) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT session_id FROM session WHERE state = 'closed' AND closed_at < ?1
             AND NOT EXISTS (SELECT 1 FROM agent WHERE agent.session_key = session.session_key)
         ORDER BY closed_at LIMIT ?2",
    )?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let sessions = statement.query_map([before, most], |row| row.get(0))?;
    Ok(sessions.collect::<rusqlite::Result<_>>()?)
}

/// When the first session was closed that was closed at `from` or later.
pub fn first_closed_at(connection: &Connection, from: i64) -> Result<Option<i64>> {
    let sql = "SELECT min(closed_at) FROM session WHERE state = 'closed' AND closed_at >= ?1";
    Ok(connection.query_row(sql, [from], |row| row.get(0))?)
}

/// When the oldest idempotency key was claimed.
pub fn oldest_key_at(connection: &Connection) -> Result<Option<i64>> {
    Ok(connection.query_row("SELECT min(created_at) FROM idempotency", [], |row| row.get(0))?)
}

impl Tx<'_> {
    /// Drops these rows of the log, if they are deltas, and remembers how far the look has come.
    pub fn drop_deltas(&mut self, row_ids: &[i64], settled_to: i64) -> Result<usize> {
        let mut dropped = 0;
        for row_id in row_ids {
            let place: Option<(i64, i64)> = self
                .connection()
                .prepare_cached(
                    "DELETE FROM event WHERE row_id = ?1 AND kind = 'item.delta'
                     RETURNING scope_key, seq",
                )?
                .query_row([row_id], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()?;
            if let Some((scope_key, seq)) = place {
                self.count_dropped(scope_key, 1, seq)?;
                dropped += 1;
            }
        }
        let newest_dropped = row_ids.last().copied().unwrap_or(0);
        self.connection()
            .prepare_cached(
                "UPDATE ledger SET dropped_to_row_id = max(dropped_to_row_id, ?1),
                     retention_row_id = max(retention_row_id, ?2)",
            )?
            .execute([newest_dropped, settled_to])?;
        Ok(dropped)
    }

    /// Removes a piece of a closed session's records or log, oldest first; true when nothing of it is left. A purge in
    /// steps, for a session that may have a long log: between two steps it is there with what is left of it.
    pub fn purge_step(&mut self, session_id: &str) -> Result<bool> {
        let mut step = Step::new(limits::RETENTION_ROWS);
        let session_key: Option<i64> = self
            .connection()
            .prepare_cached("SELECT session_key FROM session WHERE session_id = ?1")?
            .query_row([session_id], |row| row.get(0))
            .optional()?;
        for (table, weight) in PARTS {
            let Some(session_key) = session_key else { break };
            let column = format!("{table}_key");
            let sql = format!(
                "SELECT {column}, {weight} FROM {table} WHERE session_key = ?1
                 ORDER BY {column} LIMIT ?2"
            );
            if self.drop_rows((table, &column), &sql, session_key, &mut step)?.is_full {
                return Ok(false);
            }
        }
        let scope = super::event::scope_key(self.connection(), ScopeKind::Session, session_id);
        if let Some(scope_key) = scope.optional()?
            && self.drop_oldest(scope_key, &mut step)?
        {
            return Ok(false);
        }
        self.purge_session(session_id)?;
        Ok(true)
    }

    /// Removes the rows of a table (its name, and that of its key) that `sql` gives (key and weight, of what ?1 names,
    /// at most ?2), as far as the step takes them.
    pub(super) fn drop_rows(
        &mut self,
        (table, column): (&str, &str),
        sql: &str,
        of: i64,
        step: &mut Step,
    ) -> Result<DroppedRows> {
        let mut keys: Vec<i64> = Vec::new();
        let mut is_full = false;
        {
            let mut statement = self.connection().prepare_cached(sql)?;
            let mut rows = statement.query([of, step.look()])?;
            while let Some(row) = rows.next()? {
                if !step.takes(row.get(1)?) {
                    is_full = true;
                    break;
                }
                keys.push(row.get(0)?);
            }
        }
        let mut delete = self
            .connection()
            .prepare_cached(&format!("DELETE FROM {table} WHERE {column} = ?1"))?;
        for key in &keys {
            delete.execute([key])?;
        }
        Ok(DroppedRows { newest: keys.into_iter().max(), is_full })
    }

    /// Drops the oldest events of a scope, as many as fit the step, and says whether that was all that fitted. When the
    /// whole rest fits, nothing is dropped: the last event of a log goes with its scope, since the numbers that were
    /// given must not be given again while it is there.
    pub(super) fn drop_oldest(&mut self, scope_key: i64, step: &mut Step) -> Result<bool> {
        let (mut to_seq, mut to_row_id, mut count) = (0, 0, 0);
        let mut is_cut = false;
        {
            let mut statement = self.connection().prepare_cached(
                "SELECT seq, row_id, octet_length(payload) FROM event
                 WHERE scope_key = ?1 ORDER BY seq LIMIT ?2",
            )?;
            let mut rows = statement.query([scope_key, step.look()])?;
            while let Some(row) = rows.next()? {
                if !step.takes(row.get(2)?) {
                    is_cut = true;
                    break;
                }
                (to_seq, to_row_id) = (row.get(0)?, row.get::<_, i64>(1)?.max(to_row_id));
                count += 1;
            }
        }
        if !is_cut || count == 0 {
            return Ok(is_cut);
        }
        self.connection()
            .prepare_cached("DELETE FROM event WHERE scope_key = ?1 AND seq <= ?2")?
            .execute([scope_key, to_seq])?;
        self.count_dropped(scope_key, count, to_seq)?;
        self.connection()
            .prepare_cached("UPDATE ledger SET dropped_to_row_id = max(dropped_to_row_id, ?1)")?
            .execute([to_row_id])?;
        Ok(true)
    }

    fn count_dropped(&mut self, scope_key: i64, count: i64, to_seq: i64) -> Result<()> {
        self.connection()
            .prepare_cached(
                "UPDATE scope SET dropped_count = dropped_count + ?2,
                     dropped_to_seq = max(dropped_to_seq, ?3)
                 WHERE scope_key = ?1",
            )?
            .execute([scope_key, count, to_seq])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
