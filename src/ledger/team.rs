//! Teams and their members. What they write to each other is in `message`, how far it has come in `delivery`, what
//! makes and ends members in `operation`, and the end of what is over in `purge`.

pub mod delivery;
pub mod left_behind;
pub mod message;
pub mod operation;
pub mod purge;
pub mod recipient;
#[cfg(test)]
mod tests;

use super::key::{self, Keyed};
use super::{Listed, Most, Tx, listed, to_json};
use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::model::event::EventKind;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

/// A team as clients see it, without its members.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Team"))]
pub struct TeamRecord {
    #[serde(skip)]
    pub team_key: i64,
    pub id: String,
    pub name: String,
    pub lead_agent_id: String,
    pub created_by: String,
    pub created_at: i64,
    pub updated_at: i64,
    pub deleted_at: Option<i64>,
}

#[derive(Clone, Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "Member"))]
pub struct MemberRecord {
    pub team_id: String,
    pub agent_id: String,
    pub title: Option<String>,
    pub joined_at: i64,
    pub added_by: String,
    pub creator_agent_id: Option<String>,
    pub creator_compaction_subscription: String,
    pub worktree_id: Option<String>,
    /// What has made it for this team.
    pub operation_id: Option<String>,
}

/// A team with its members, ordered by when they joined.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "TeamWithMembers"))]
pub struct Roster {
    pub team: TeamRecord,
    pub members: Vec<MemberRecord>,
}

pub struct NewMember<'a> {
    pub agent_id: &'a str,
    pub title: Option<&'a str>,
    pub added_by: &'a str,
    pub creator_agent_id: Option<&'a str>,
    pub creator_compaction_subscription: &'a str,
    pub worktree_id: Option<&'a str>,
    pub operation_id: Option<&'a str>,
}

const COLUMNS: &str =
    "team_key, team_id, name, lead_agent_id, created_by, created_at, updated_at, deleted_at";

fn record_of(row: &Row<'_>) -> rusqlite::Result<TeamRecord> {
    Ok(TeamRecord {
        team_key: row.get(0)?,
        id: row.get(1)?,
        name: row.get(2)?,
        lead_agent_id: row.get(3)?,
        created_by: row.get(4)?,
        created_at: row.get(5)?,
        updated_at: row.get(6)?,
        deleted_at: row.get(7)?,
    })
}

/// A team that is there. Errors: it is not, or not any more.
pub fn get(connection: &Connection, team_id: &str) -> Result<TeamRecord> {
    let record = get_any(connection, team_id)?;
    if record.deleted_at.is_some() {
        return Err(Error::not_found("team", team_id));
    }
    Ok(record)
}

/// The same, also when the team was deleted: its log and its mail can still be read.
pub fn get_any(connection: &Connection, team_id: &str) -> Result<TeamRecord> {
    connection
        .prepare_cached(&format!("SELECT {COLUMNS} FROM team WHERE team_id = ?1"))?
        .query_row([team_id], record_of)
        .optional()?
        .ok_or_else(|| Error::not_found("team", team_id))
}

pub fn roster(connection: &Connection, team_id: &str) -> Result<Roster> {
    let team = get(connection, team_id)?;
    let members = members(connection, &team)?;
    Ok(Roster { team, members })
}

/// The teams that are there, oldest first, behind `after` (a team key).
pub fn list(connection: &Connection, after: Option<i64>, most: Most) -> Result<Listed<Roster>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM team WHERE deleted_at IS NULL AND team_key > ?1
         ORDER BY team_key LIMIT ?2"
    ))?;
    let rows = statement.query(params![after.unwrap_or(0), most.limit()])?;
    let mut teams =
        listed::read(rows, most, |row| Ok(Roster { team: record_of(row)?, members: Vec::new() }))?;
    teams.cut_at(most.bytes, |roster| {
        roster.members = members(connection, &roster.team)?;
        Ok(to_json(&roster.members).len())
    })?;
    Ok(teams)
}

const MEMBER_COLUMNS: &str = "agent_id, title, joined_at, added_by, creator_agent_id, \
    creator_compaction_subscription, worktree_id, operation_id";

fn member_of(team_id: &str, row: &Row<'_>) -> rusqlite::Result<MemberRecord> {
    Ok(MemberRecord {
        team_id: team_id.to_owned(),
        agent_id: row.get(0)?,
        title: row.get(1)?,
        joined_at: row.get(2)?,
        added_by: row.get(3)?,
        creator_agent_id: row.get(4)?,
        creator_compaction_subscription: row.get(5)?,
        worktree_id: row.get(6)?,
        operation_id: row.get(7)?,
    })
}

pub fn members(connection: &Connection, team: &TeamRecord) -> Result<Vec<MemberRecord>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT {MEMBER_COLUMNS} FROM team_member WHERE team_key = ?1 ORDER BY joined_at, agent_id"
    ))?;
    let members = statement.query_map([team.team_key], |row| member_of(&team.id, row))?;
    Ok(members.collect::<rusqlite::Result<_>>()?)
}

/// A member. Errors: the agent is not in the team.
pub fn member(connection: &Connection, team: &TeamRecord, agent_id: &str) -> Result<MemberRecord> {
    connection
        .prepare_cached(&format!(
            "SELECT {MEMBER_COLUMNS} FROM team_member WHERE team_key = ?1 AND agent_id = ?2"
        ))?
        .query_row(params![team.team_key, agent_id], |row| member_of(&team.id, row))
        .optional()?
        .ok_or_else(|| {
            Error::new(
                Code::NotFound,
                format!("session {agent_id} is not a member of team {}", team.id),
            )
        })
}

/// The ids of the teams that an agent is in.
pub fn teams_of(connection: &Connection, agent_id: &str) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT team_id FROM team_member JOIN team USING (team_key)
         WHERE agent_id = ?1 AND deleted_at IS NULL ORDER BY team_key",
    )?;
    let teams = statement.query_map([agent_id], |row| row.get(0))?;
    Ok(teams.collect::<rusqlite::Result<_>>()?)
}

/// What `GET /v1/diagnostics/comms` counts: teams that are there, their members, and all messages.
#[derive(Debug)]
pub struct Counts {
    pub teams: i64,
    pub members: i64,
    pub messages: i64,
}

pub fn counts(connection: &Connection) -> Result<Counts> {
    Ok(connection.query_row(
        "SELECT (SELECT count(*) FROM team WHERE deleted_at IS NULL),
             (SELECT count(*) FROM team_member JOIN team USING (team_key)
              WHERE deleted_at IS NULL),
             (SELECT count(*) FROM team_message)",
        [],
        |row| Ok(Counts { teams: row.get(0)?, members: row.get(1)?, messages: row.get(2)? }),
    )?)
}

impl Tx<'_> {
    pub fn team(&mut self, team_id: &str) -> Result<TeamRecord> {
        get(self.connection(), team_id)
    }

    pub fn roster(&mut self, team_id: &str) -> Result<Roster> {
        roster(self.connection(), team_id)
    }

    pub fn team_member(&mut self, team: &TeamRecord, agent_id: &str) -> Result<MemberRecord> {
        member(self.connection(), team, agent_id)
    }

    pub fn team_members(&mut self, team: &TeamRecord) -> Result<Vec<MemberRecord>> {
        members(self.connection(), team)
    }

    /// A team without members; returns its record.
    pub fn insert_team(
        &mut self,
        team_id: &str,
        name: &str,
        lead_agent_id: &str,
        created_by: &str,
    ) -> Result<TeamRecord> {
        let now_ms = self.now_ms();
        let team_key = key::next(self.connection(), Keyed::Team)?;
        self.connection()
            .prepare_cached(
                "INSERT INTO team (team_key, team_id, name, lead_agent_id, created_by, created_at,
                     updated_at)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)",
            )?
            .execute(params![team_key, team_id, name, lead_agent_id, created_by, now_ms])?;
        self.team(team_id)
    }

    /// Errors: the agent is a member already.
    pub fn insert_member(&mut self, team: &TeamRecord, new: &NewMember<'_>) -> Result<()> {
        let now_ms = self.now_ms();
        let inserted = self
            .connection()
            .prepare_cached(
                "INSERT OR IGNORE INTO team_member (team_key, agent_id, title, joined_at, added_by,
                     creator_agent_id, creator_compaction_subscription, worktree_id, operation_id)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            )?
            .execute(params![
                team.team_key,
                new.agent_id,
                new.title,
                now_ms,
                new.added_by,
                new.creator_agent_id,
                new.creator_compaction_subscription,
                new.worktree_id,
                new.operation_id,
            ])?;
        if inserted == 0 {
            return Err(Error::new(
                Code::Conflict,
                format!("session {} is a member of team {} already", new.agent_id, team.id),
            ));
        }
        self.touch_team(team)
    }

    pub fn delete_member(&mut self, team: &TeamRecord, agent_id: &str) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM team_member WHERE team_key = ?1 AND agent_id = ?2")?
            .execute(params![team.team_key, agent_id])?;
        self.touch_team(team)
    }

    pub fn set_lead(&mut self, team: &TeamRecord, agent_id: &str) -> Result<()> {
        self.connection()
            .prepare_cached("UPDATE team SET lead_agent_id = ?2 WHERE team_key = ?1")?
            .execute(params![team.team_key, agent_id])?;
        self.touch_team(team)
    }

    /// Marks a team as deleted; what belongs to it stays to be read.
    pub fn mark_team_deleted(&mut self, team: &TeamRecord) -> Result<TeamRecord> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached("UPDATE team SET deleted_at = ?2, updated_at = ?2 WHERE team_key = ?1")?
            .execute(params![team.team_key, now_ms])?;
        get_any(self.connection(), &team.id)
    }

    fn touch_team(&mut self, team: &TeamRecord) -> Result<()> {
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached("UPDATE team SET updated_at = ?2 WHERE team_key = ?1")?
            .execute(params![team.team_key, now_ms])?;
        Ok(())
    }

    /// Tells a change of a team, with its record and one more field of JSON.
    pub fn tell_team(
        &mut self,
        team_id: &str,
        kind: EventKind,
        concerning: Option<&str>,
        field: Option<(&str, String)>,
    ) -> Result<()> {
        let team = get_any(self.connection(), team_id)?;
        let more = field.map_or(String::new(), |(name, json)| format!(",\"{name}\":{json}"));
        let payload = format!("{{\"team\":{}{more}}}", to_json(&team));
        let event = NewEvent { session_id: concerning, ..NewEvent::team(team_id, kind, payload) };
        self.append(event).map(|_seq| ())
    }
}
