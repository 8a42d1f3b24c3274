//! Who is in a team: made, joined, left, led, ended, purged. Each is one transaction with its event, but for
//! the purge, which tells nothing and is many.

use super::{Departure, Teams, takedown};
use crate::error::{Code, Error, Result};
use crate::ledger::event::NewEvent;
use crate::ledger::idempotency::{self, IdempotencyKey};
use crate::ledger::team::left_behind::{self, LeftBehind};
use crate::ledger::team::{self, NewMember, Roster, TeamRecord, purge};
use crate::ledger::{Connection, Tx, to_json};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::id;
use crate::session::LEFT;

/// A team that somebody wants.
#[derive(Debug)]
pub struct NewTeam {
    pub name: String,
    pub lead_agent_id: String,
    /// The lead among them or not; twice is once.
    pub member_agent_ids: Vec<String>,
    pub created_by: String,
    pub idempotency: Option<IdempotencyKey>,
}

/// A session that is to become a member.
#[derive(Debug)]
pub struct Joining {
    pub agent_id: String,
    pub title: Option<String>,
    /// None = the lead.
    pub added_by: Option<String>,
    pub creator_agent_id: Option<String>,
    pub creator_compaction_subscription: Option<String>,
    pub worktree_id: Option<String>,
    /// The operation that has made the session for this team.
    pub operation_id: Option<String>,
}

/// Whether a member is told when the context of those it created is compacted.
const SUBSCRIPTIONS: [&str; 2] = ["auto", "unsubscribed"];

impl Teams {
    /// Makes a team; answers with its id. Errors: no name, a member that is no open session.
    pub fn create(&self, new: NewTeam) -> Result<String> {
        self.refuse_when_off()?;
        let name = new.name.trim().to_owned();
        if name.is_empty() {
            return Err(Error::bad_request("name is blank").hint("give the team a name"));
        }
        if let Some(claim) = &new.idempotency
            && let Some(made) = self.shared.ledger.read(|db| idempotency::find(db, claim))?
        {
            return Ok(made);
        }
        self.shared.ledger.write(move |tx| {
            let team_id = id::new("team");
            if let Some(claim) = &new.idempotency
                && let Some(made) = tx.claim_key(claim, &team_id)?
            {
                return Ok(made);
            }
            let mut members: Vec<&str> = vec![&new.lead_agent_id];
            for agent_id in &new.member_agent_ids {
                if !members.contains(&agent_id.as_str()) {
                    members.push(agent_id);
                }
            }
            check_size(members.len())?;
            let team = tx.insert_team(&team_id, &name, &new.lead_agent_id, &new.created_by)?;
            for agent_id in members {
                tx.open_session_key(agent_id)?;
                let member = Joining::of(agent_id);
                tx.insert_member(&team, &member.row(&new.created_by))?;
            }
            let payload = to_json(&tx.roster(&team_id)?);
            let event = NewEvent::team(&team_id, EventKind::TeamCreated, payload);
            tx.append(event.concerning(&new.lead_agent_id))?;
            Ok(team_id)
        })
    }

    /// Makes a session a member. Errors: it is one, or it is no open session.
    pub fn join(&self, team_id: &str, joining: Joining) -> Result<()> {
        self.refuse_when_off()?;
        check_subscription(joining.creator_compaction_subscription.as_deref())?;
        let team_id = team_id.to_owned();
        self.shared.ledger.write(move |tx| tx.join_team(&team_id, &joining))
    }

    /// Takes a member out; what waits for it in this team has failed. The session of one that was spawned is closed and
    /// its worktree goes, unless it holds work. Errors: it is no member, or the last one.
    pub fn leave(&self, team_id: &str, agent_id: &str) -> Result<Departure> {
        let (team_id, leaving) = (team_id.to_owned(), agent_id.to_owned());
        let operation_id = self.shared.ledger.write(move |tx| {
            let agent_id = leaving.as_str();
            let team = tx.team(&team_id)?;
            tx.team_member(&team, agent_id)?;
            let members = tx.team_members(&team)?;
            let Some(next) = members.iter().find(|member| member.agent_id != agent_id) else {
                return Err(Error::new(
                    Code::Conflict,
                    format!("session {agent_id} is the last member of team {team_id}"),
                )
                .hint("delete the team instead"));
            };
            let departure = tx.begin_departure(&team, agent_id)?;
            tx.delete_member(&team, agent_id)?;
            if team.lead_agent_id == agent_id {
                // The one that has been there longest.
                tx.set_lead(&team, &next.agent_id)?;
            }
            let waiting = tx.waiting_deliveries(&team, agent_id, limits::MAIL_CHANGES)?;
            tx.leave_behind(waiting, LeftBehind::NotMember)?;
            let field = Some(("agent_id", to_json(&agent_id)));
            tx.tell_team(&team_id, EventKind::TeamMemberLeft, Some(agent_id), field)?;
            Ok(departure)
        })?;
        // Of more that waits, the dispatcher sees to the end.
        self.shared.sessions.post().announce([agent_id.to_owned()], LEFT);
        match operation_id {
            Some(operation_id) => takedown::depart(&self.shared, &operation_id),
            None => Ok(Departure::default()),
        }
    }

    /// Makes a member the lead; nothing is told when it is the lead already.
    pub fn set_lead(&self, team_id: &str, agent_id: &str) -> Result<()> {
        let (team_id, agent_id) = (team_id.to_owned(), agent_id.to_owned());
        self.shared.ledger.write(move |tx| {
            let team = tx.team(&team_id)?;
            tx.must_be_member(&team, "lead_agent_id", &agent_id)?;
            if team.lead_agent_id == agent_id {
                return Ok(());
            }
            tx.set_lead(&team, &agent_id)?;
            let field = Some(("lead_agent_id", to_json(&agent_id)));
            tx.tell_team(&team_id, EventKind::TeamLeadChanged, Some(&agent_id), field)
        })
    }

    /// Ends a team: mail that waits is cancelled, its log stays, its sessions go on. `closes_spawned`: but for those
    /// that were spawned, which end as if they were removed.
    pub fn delete(&self, team_id: &str, closes_spawned: bool) -> Result<()> {
        let id = team_id.to_owned();
        // Looked for before, so that nobody waits for that: each member may have much mail of other teams.
        let waiting = self.shared.ledger.read(|db| waiting_in(db, &id))?;
        let team_id = team_id.to_owned();
        let (departures, members) = self.shared.ledger.write(move |tx| {
            let team = tx.team(&team_id)?;
            let members = tx.team_members(&team)?;
            let mut departures = Vec::new();
            for member in members.iter().filter(|_| closes_spawned) {
                departures.extend(tx.begin_departure(&team, &member.agent_id)?);
            }
            tx.leave_behind(waiting.clone(), LeftBehind::TeamGone)?;
            tx.mark_team_deleted(&team)?;
            tx.tell_team(&team_id, EventKind::TeamDeleted, None, None)?;
            Ok((departures, members))
        })?;
        // Of more, or of what has come since, the dispatcher sees to the end.
        let members = members.into_iter().map(|member| member.agent_id);
        self.shared.sessions.post().announce(members, LEFT);
        let end = |operation_id: &String| takedown::depart(&self.shared, operation_id).map(drop);
        departures.iter().map(end).fold(Ok(()), Result::and)
    }

    /// Removes a deleted team for good: its members, its mail, its operations and its log. In steps, so that others
    /// write meanwhile; what a stop leaves can be purged again. Errors: it is not deleted, or something of it is still
    /// under way.
    pub fn purge(&self, team_id: &str) -> Result<()> {
        let ledger = &self.shared.ledger;
        ledger.read(|db| purge::check_settled(db, team_id))?;
        loop {
            let id = team_id.to_owned();
            if ledger.write(move |tx| tx.purge_team_step(&id))? {
                return Ok(());
            }
        }
    }
}

/// The first deliveries that wait in a team.
fn waiting_in(db: &Connection, team_id: &str) -> Result<Vec<i64>> {
    let team = team::get(db, team_id)?;
    let mut waiting = Vec::new();
    for member in team::members(db, &team)? {
        let most = limits::MAIL_CHANGES - waiting.len();
        // Nothing waits for who has left.
        waiting.extend(left_behind::waiting(db, &team, &member.agent_id, most)?);
    }
    Ok(waiting)
}

pub(super) fn check_subscription(word: Option<&str>) -> Result<()> {
    match word {
        Some(word) if !SUBSCRIPTIONS.contains(&word) => {
            Err(Error::bad_request(format!("creator_compaction_subscription is {word:?}"))
                .hint("it can be \"auto\" or \"unsubscribed\""))
        }
        _ => Ok(()),
    }
}

fn check_size(members: usize) -> Result<()> {
    if members <= limits::TEAM_MEMBERS {
        return Ok(());
    }
    Err(Error::new(Code::Conflict, format!("a team has {} members at most", limits::TEAM_MEMBERS))
        .hint("make a second team"))
}

impl Joining {
    /// A member of whom nothing more is said.
    pub fn of(agent_id: &str) -> Joining {
        Joining {
            agent_id: agent_id.to_owned(),
            title: None,
            added_by: None,
            creator_agent_id: None,
            creator_compaction_subscription: None,
            worktree_id: None,
            operation_id: None,
        }
    }

    fn row<'a>(&'a self, added_by: &'a str) -> NewMember<'a> {
        let title = self.title.as_deref().map(str::trim).filter(|title| !title.is_empty());
        NewMember {
            agent_id: &self.agent_id,
            title,
            added_by: self.added_by.as_deref().unwrap_or(added_by),
            creator_agent_id: self.creator_agent_id.as_deref(),
            creator_compaction_subscription: self
                .creator_compaction_subscription
                .as_deref()
                .unwrap_or(SUBSCRIPTIONS[0]),
            worktree_id: self.worktree_id.as_deref(),
            operation_id: self.operation_id.as_deref(),
        }
    }
}

impl Tx<'_> {
    /// The change of [`Teams::join`], for whoever makes more in the same transaction.
    pub fn join_team(&mut self, team_id: &str, joining: &Joining) -> Result<()> {
        let team = self.team(team_id)?;
        self.open_session_key(&joining.agent_id)?;
        if joining.operation_id.is_none() && self.is_under_operation(&joining.agent_id)? {
            let message = format!("session {} is being ended by an operation", joining.agent_id);
            return Err(Error::new(Code::Conflict, message)
                .hint("GET /v1/teams/{team_id}/operations tells of it; add another session"));
        }
        // What waits from when it was a member before is not for who joins now.
        let before = self.waiting_deliveries(&team, &joining.agent_id, usize::MAX)?;
        self.leave_behind(before, LeftBehind::NotMember)?;
        check_size(self.team_members(&team)?.len() + 1)?;
        let lead = team.lead_agent_id.clone();
        self.insert_member(&team, &joining.row(&lead))?;
        let member = self.team_member(&team, &joining.agent_id)?;
        let field = Some(("member", to_json(&member)));
        self.tell_team(team_id, EventKind::TeamMemberJoined, Some(&joining.agent_id), field)
    }

    /// Errors: the session that the field names is not in the team.
    pub(super) fn must_be_member(
        &mut self,
        team: &TeamRecord,
        field: &str,
        agent_id: &str,
    ) -> Result<()> {
        match self.team_member(team, agent_id) {
            Ok(_) => Ok(()),
            Err(error) if error.code == Code::NotFound => Err(Error::new(
                Code::Conflict,
                format!("{field}: session {agent_id} is not a member of team {}", team.id),
            )
            .hint("add it to the team first")),
            Err(error) => Err(error),
        }
    }
}

/// The team with its members, as the answer to most changes.
impl Teams {
    pub fn roster(&self, team_id: &str) -> Result<Roster> {
        self.shared.ledger.read(|db| crate::ledger::team::roster(db, team_id))
    }
}
