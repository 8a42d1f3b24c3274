//! The removal of teams that are gone: which are due, and the steps of it.
//!
//! Reads look for what is due, on the caller's thread; a purge is a number of changes, each of which removes a bounded
//! piece, so that no other change waits long behind one. What is done stays done: a purge that was cut off, by a kill
//! too, goes on with what is left. A team is only touched when nothing of it is under way, which stays so once it is:
//! no mail is written in a team that is gone, and nobody is spawned. Keys of requests that made it
//! ([`crate::ledger::idempotency`]) stay for their day, so that a late repetition does not make it anew. Deliberately
//! not here: when to do it.

use super::get_any;
use crate::error::{Code, Error, Result};
use crate::ledger::key::{self, Keyed};
use crate::ledger::retention::Step;
use crate::ledger::{Connection, Tx, event};
use crate::limits;
use crate::model::ScopeKind;
use rusqlite::{OptionalExtension, params};

/// Nothing of the team is under way: no spawn or removal, no mail that waits or is being brought, no turn that carries
/// some.
const IS_SETTLED: &str = "NOT EXISTS (SELECT 1 FROM team_operation
        WHERE team_operation.team_key = team.team_key AND finished_at IS NULL)
    AND NOT EXISTS (SELECT 1 FROM team_delivery
        WHERE team_delivery.team_key = team.team_key
            AND (status IN ('pending', 'deferred', 'injecting')
                OR EXISTS (SELECT 1 FROM turn WHERE turn_id = injected_turn_id
                    AND turn.status IN ('queued', 'in_progress', 'waiting_for_approval'))))";

/// What hangs on a team, in the order in which it goes: rows, and what a row weighs.
const PARTS: [(Keyed, &str); 4] = [
    (Keyed::Delivery, "octet_length(ifnull(last_error_message, ''))"),
    (Keyed::Message, "octet_length(input) + octet_length(content)"),
    (Keyed::Diagnostic, "octet_length(message) + octet_length(payload)"),
    (Keyed::Operation, "octet_length(request) + octet_length(ifnull(enrolment, ''))"),
];

/// Teams that were deleted before `before` and of which nothing is under way, longest ago first; at most so many.
pub fn due_teams(connection: &Connection, before: i64, most: usize) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT team_id FROM team WHERE deleted_at < ?1 AND {IS_SETTLED}
         ORDER BY deleted_at LIMIT ?2"
    ))?;
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let teams = statement.query_map([before, most], |row| row.get(0))?;
    Ok(teams.collect::<rusqlite::Result<_>>()?)
}

/// When the first team was deleted that was deleted at `from` or later.
pub fn first_deleted_at(connection: &Connection, from: i64) -> Result<Option<i64>> {
    let sql = "SELECT min(deleted_at) FROM team WHERE deleted_at >= ?1";
    Ok(connection.query_row(sql, [from], |row| row.get(0))?)
}

/// Errors: the team is there, or something of it is under way; or there is no such team.
pub fn check_settled(connection: &Connection, team_id: &str) -> Result<()> {
    check_deleted(connection, team_id)?;
    let is_settled = connection
        .prepare_cached(&format!("SELECT 1 FROM team WHERE team_id = ?1 AND {IS_SETTLED}"))?
        .exists([team_id])?;
    if is_settled {
        return Ok(());
    }
    Err(Error::new(
        Code::Conflict,
        format!("team {team_id} is deleted, and something of it is still under way"),
    )
    .hint(
        "purge it when its operations are over, its mail has come to its end and no turn \
           carries any of it",
    ))
}

fn check_deleted(connection: &Connection, team_id: &str) -> Result<()> {
    if get_any(connection, team_id)?.deleted_at.is_some() {
        return Ok(());
    }
    Err(Error::new(Code::Conflict, format!("team {team_id} is not deleted")))
}

impl Tx<'_> {
    /// Removes a piece of a deleted team's mail, operations, members or log; true when nothing of it is left. Between
    /// two steps it is there with what is left of it.
    pub fn purge_team_step(&mut self, team_id: &str) -> Result<bool> {
        let team_key: i64 = match get_any(self.connection(), team_id) {
            Ok(team) => team.team_key,
            // Two may be at it.
            Err(error) if error.code == Code::NotFound => return Ok(true),
            Err(error) => return Err(error),
        };
        check_deleted(self.connection(), team_id)?;
        let mut step = Step::new(limits::RETENTION_ROWS);
        for (part, weight) in PARTS {
            let of_team = match part {
                Keyed::Diagnostic => {
                    "operation_key IN (SELECT operation_key FROM team_operation
                    WHERE team_key = ?1)"
                }
                _ => "team_key = ?1",
            };
            let (table, column) = (part.table(), part.column());
            let sql = format!(
                "SELECT {column}, {weight} FROM {table} WHERE {of_team} ORDER BY {column} LIMIT ?2"
            );
            let dropped = self.drop_rows((table, column), &sql, team_key, &mut step)?;
            if let Some(newest) = dropped.newest {
                key::raise_floor(self.connection(), part, newest)?;
            }
            if dropped.is_full {
                return Ok(false);
            }
        }
        if self.drop_members(team_key, &mut step)? {
            return Ok(false);
        }
        let scope = event::scope_key(self.connection(), ScopeKind::Team, team_id).optional()?;
        if let Some(scope_key) = scope
            && self.drop_oldest(scope_key, &mut step)?
        {
            return Ok(false);
        }
        self.purge_scope(ScopeKind::Team, team_id)?;
        key::raise_floor(self.connection(), Keyed::Team, team_key)?;
        self.connection()
            .prepare_cached("DELETE FROM team WHERE team_key = ?1")?
            .execute([team_key])?;
        Ok(true)
    }

    fn drop_members(&mut self, team_key: i64, step: &mut Step) -> Result<bool> {
        let look = step.look();
        let mut agents: Vec<String> = {
            let mut statement = self.connection().prepare_cached(
                "SELECT agent_id FROM team_member WHERE team_key = ?1 ORDER BY agent_id LIMIT ?2",
            )?;
            let agents = statement.query_map([team_key, look], |row| row.get(0))?;
            agents.collect::<rusqlite::Result<_>>()?
        };
        let found = agents.len();
        agents.truncate(agents.iter().take_while(|_| step.takes(0)).count());
        let mut delete = self
            .connection()
            .prepare_cached("DELETE FROM team_member WHERE team_key = ?1 AND agent_id = ?2")?;
        for agent_id in &agents {
            delete.execute(params![team_key, agent_id])?;
        }
        Ok(agents.len() < found)
    }
}

#[cfg(test)]
mod tests;
