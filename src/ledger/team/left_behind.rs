//! Mail that goes no further: its team was deleted, or its recipient has left the team.
//!
//! Owns: which that is, and how it ends. Whoever deletes a team or takes a member out ends the first of it in the same
//! transaction; what is more, and what comes meanwhile, is ended by the dispatcher, or by whoever claims it or has it
//! wait again.

use super::TeamRecord;
use super::delivery::Move;
use crate::error::Result;
use crate::ledger::Tx;
use crate::model::team::DeliveryStatus;
use rusqlite::{Connection, OptionalExtension, Row, params};

/// Why mail that waits goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftBehind {
    /// Its team was deleted.
    TeamGone,
    /// Its recipient has left the team.
    NotMember,
}

impl LeftBehind {
    /// The end of a delivery for this reason.
    pub fn end(self) -> Move<'static> {
        match self {
            LeftBehind::TeamGone => Move::to(DeliveryStatus::Cancelled),
            LeftBehind::NotMember => {
                Move { error: Some(NOT_MEMBER), ..Move::to(DeliveryStatus::Failed) }
            }
        }
    }

    /// From two columns of [`LEFT_BEHIND`], the first at `index`.
    fn of_row(row: &Row<'_>, index: usize) -> rusqlite::Result<Option<LeftBehind>> {
        Ok(match (row.get(index)?, row.get(index + 1)?) {
            (true, _) => Some(LeftBehind::TeamGone),
            (false, false) => Some(LeftBehind::NotMember),
            (false, true) => None,
        })
    }
}

/// Whether the team of a delivery is gone, and whether its recipient is a member.
const LEFT_BEHIND: &str = "team.deleted_at IS NOT NULL, EXISTS (SELECT 1 FROM team_member
         WHERE team_member.team_key = team_delivery.team_key
             AND team_member.agent_id = recipient_agent_id)";

/// Why mail for somebody who has left fails: code and message.
pub const NOT_MEMBER: (&str, &str) = ("recipient_not_member", "the recipient has left the team");

/// The first of what waits for a member of a team. As [`AHEAD`], so that it is found without all the mail that the
/// member ever had; the plus keeps SQLite from the index that has it.
pub(super) const WAITING: &str = "SELECT delivery_key FROM team_delivery
     WHERE recipient_agent_id = ?2 AND +team_key = ?1
         AND status IN ('pending', 'deferred', 'injecting') AND status <> 'injecting'
     LIMIT ?3";

/// The keys of a team's deliveries that still wait for one member, at most so many, in the order of its queue; an
/// attempt that is under way is not among them.
pub fn waiting(
    connection: &Connection,
    team: &TeamRecord,
    agent_id: &str,
    most: usize,
) -> Result<Vec<i64>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(WAITING)?;
    let keys = statement.query_map(params![team.team_key, agent_id, most], |row| row.get(0))?;
    Ok(keys.collect::<rusqlite::Result<_>>()?)
}

/// What waits for a recipient and goes no further, at most so much, in the order of its queue. Reads all that waits for
/// it.
pub fn of_recipient(
    connection: &Connection,
    recipient_agent_id: &str,
    most: usize,
) -> Result<Vec<(i64, LeftBehind)>> {
    let most = i64::try_from(most).unwrap_or(i64::MAX);
    let mut statement = connection.prepare_cached(&of_recipient_sql())?;
    let left = statement.query_map(params![recipient_agent_id, most], |row| {
        Ok((row.get(0)?, LeftBehind::of_row(row, 1)?.unwrap_or(LeftBehind::NotMember)))
    })?;
    Ok(left.collect::<rusqlite::Result<_>>()?)
}

pub(super) fn of_recipient_sql() -> String {
    format!(
        "SELECT delivery_key, {LEFT_BEHIND}
         FROM team_delivery JOIN team ON team.team_key = team_delivery.team_key
         WHERE recipient_agent_id = ?1
             AND status IN ('pending', 'deferred', 'injecting') AND status <> 'injecting'
             AND (team.deleted_at IS NOT NULL OR NOT EXISTS (SELECT 1 FROM team_member
                 WHERE team_member.team_key = team_delivery.team_key
                     AND team_member.agent_id = recipient_agent_id))
         ORDER BY rank, delivery_key LIMIT ?2"
    )
}

impl Tx<'_> {
    /// As [`waiting`].
    pub fn waiting_deliveries(
        &mut self,
        team: &TeamRecord,
        agent_id: &str,
        most: usize,
    ) -> Result<Vec<i64>> {
        waiting(self.connection(), team, agent_id, most)
    }

    /// Ends deliveries that go no further, oldest first, as far as they still wait.
    pub fn leave_behind(&mut self, mut deliveries: Vec<i64>, why: LeftBehind) -> Result<()> {
        deliveries.sort_unstable();
        deliveries.into_iter().try_for_each(|key| self.move_delivery(key, &why.end()).map(drop))
    }

    /// Ends a delivery that waits and goes no further; whether it was one.
    pub(super) fn end_when_left_behind(&mut self, delivery_key: i64) -> Result<bool> {
        let left_behind = self
            .connection()
            .prepare_cached(&format!(
                "SELECT {LEFT_BEHIND} FROM team_delivery JOIN team USING (team_key)
                 WHERE delivery_key = ?1"
            ))?
            .query_row([delivery_key], |row| LeftBehind::of_row(row, 0))
            .optional()?
            .flatten();
        left_behind.map_or(Ok(false), |why| self.move_delivery(delivery_key, &why.end()))
    }
}
