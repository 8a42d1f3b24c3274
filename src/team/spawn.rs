//! Spawning: a session is made for a team and becomes a member of it, or nothing of it stays.
//!
//! Runs on the caller's thread, for as long as git, an init script and an agent take. It is a saga over a journal in
//! the ledger (`ledger::team::operation`): all that can be checked is checked first (`check`); the operation is written
//! down; then come the worktree on disk, the session with its worktree and its claim in one transaction, and the agent.
//! Membership, onboarding and the end of the operation are one transaction, so nobody sees a member that has not been
//! told who it is. What fails is taken away (`takedown`); what a crash cuts off, or a full disk, is completed or
//! taken away by `recovery`, which knows from the stage what there is.

mod check;

use super::shared::Shared;
use super::{Joining, Outgoing, Recipients, Teams, takedown};
use crate::error::{Code, Error, Result};
use crate::ledger::idempotency::{self, IdempotencyKey};
use crate::ledger::session::{self, NewSession, SessionRecord};
use crate::ledger::team::operation::{self, NewOperation, OperationChange, OperationRecord};
use crate::ledger::team::{self, MemberRecord, Roster, delivery, message};
use crate::ledger::worktree::{self, WorktreeRecord};
use crate::ledger::{Connection, Tx, to_json};
use crate::limits;
use crate::model::id;
use crate::model::input::Input;
use crate::model::team::{AssignmentMode, OperationKind, OperationStage, Policy, Priority};
use crate::session::{Accept, SessionRequest, WorktreeWish};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A member that somebody wants. What is left out is as it is with the source session, where that makes sense.
#[derive(Default)]
pub struct SpawnRequest {
    /// A member: on whose behalf, and who sends the onboarding.
    pub source_session_id: String,
    /// The source's agent asks for it, by a tool: it gives nothing that it does not have itself.
    pub is_by_agent: bool,
    pub provider: Option<String>,
    pub agent: Option<String>,
    pub model: Option<String>,
    pub mode: Option<String>,
    pub reasoning_level: Option<String>,
    pub permission_mode: Option<String>,
    /// Stands for a provider, a model and a reasoning level; what is named beside it wins.
    pub model_preset: Option<String>,
    pub title: Option<String>,
    /// What it is to do.
    pub prompt: Option<String>,
    /// Files that become images behind the prompt.
    pub image_paths: Vec<String>,
    /// JSON text.
    pub metadata: Option<String>,
    pub worktree: Option<WorktreeWish>,
    pub creator_agent_id: Option<String>,
    pub creator_compaction_subscription: Option<String>,
    pub idempotency: Option<IdempotencyKey>,
}

/// What came of a request.
pub enum Spawned {
    Done(Box<SpawnResult>),
    /// A request with the same key has begun it, and it goes on.
    UnderWay(Box<OperationRecord>),
}

/// A member that was spawned, as everything is now.
#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SpawnResult {
    pub operation_id: String,
    pub team: Roster,
    /// None: it was purged since.
    pub spawned_session: Option<SessionRecord>,
    /// None: it has left since.
    pub spawned_member: Option<MemberRecord>,
    pub worktree: Option<WorktreeRecord>,
    #[cfg_attr(test, schemars(with = "AssignmentMode"))]
    pub worktree_assignment_mode: String,
    pub worktree_created_by_operation: bool,
    pub onboarding: Onboarding,
    #[cfg_attr(test, schemars(with = "OperationStage"))]
    pub journal_stage: String,
}

#[derive(Debug, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Onboarding {
    pub status: &'static str,
    pub message_id: Option<String>,
    pub delivery_ids: Vec<String>,
}

/// All that a spawn was found to be, before anything is made.
struct Plan {
    source_session_id: String,
    session: NewSession,
    worktree: Option<WorktreeWish>,
    mode: AssignmentMode,
    enrolment: Enrolment,
    /// As clients see it.
    request: String,
}

/// What the member is made of once its agent is open. Kept in the journal until then.
#[derive(Debug, Serialize, Deserialize)]
struct Enrolment {
    title: Option<String>,
    prompt: Option<String>,
    creator_agent_id: Option<String>,
    creator_compaction_subscription: Option<String>,
    image_paths: Vec<String>,
    images: Vec<Input>,
}

/// Why a spawn was undone.
pub(super) const SESSION_FAILED: &str = "session_create_failed";
const JOIN_FAILED: &str = "team_join_failed";
const ONBOARDING_FAILED: &str = "spawn_onboarding_failed";

impl Teams {
    /// Makes a member. Errors: what is wrong with the request, before anything is made; or what went wrong later, and
    /// then all of it is undone, with the operation as the error's detail.
    pub fn spawn(&self, team_id: &str, request: SpawnRequest) -> Result<Spawned> {
        self.refuse_when_off()?;
        let key = request.idempotency.clone();
        if let Some(key) = &key
            && let Some(made) = self.shared.ledger.read(|db| idempotency::find(db, key))?
        {
            return self.spawned_before(&made);
        }
        let operation_id = id::new("op");
        let plan = self.check_spawn(team_id, &operation_id, request)?;
        if let Some(made) = self.begin(team_id, &operation_id, &plan, key)? {
            return self.spawned_before(&made);
        }
        let shared = &self.shared;
        let mut reason = SESSION_FAILED;
        make(shared, &operation_id, plan)
            .and_then(|()| enrol(shared, &operation_id, &mut reason))
            .map_err(|error| takedown::undo(shared, &operation_id, reason, error))?;
        self.result(&operation_id)
    }

    fn spawned_before(&self, operation_id: &str) -> Result<Spawned> {
        let record = self.shared.ledger.read(|db| operation::get(db, operation_id))?;
        match record.stage == OperationStage::Completed.as_str() {
            true => self.result(operation_id),
            false => Ok(Spawned::UnderWay(Box::new(record))),
        }
    }

    fn result(&self, operation_id: &str) -> Result<Spawned> {
        let result = self.shared.ledger.read(|db| result(db, operation_id))?;
        Ok(Spawned::Done(Box::new(result)))
    }

    /// Writes the operation down. Gives the one that the key has begun before.
    fn begin(
        &self,
        team_id: &str,
        operation_id: &str,
        plan: &Plan,
        key: Option<IdempotencyKey>,
    ) -> Result<Option<String>> {
        let (team_id, operation_id) = (team_id.to_owned(), operation_id.to_owned());
        let (request, enrolment) = (plan.request.clone(), to_json(&plan.enrolment));
        let (mode, source) = (plan.mode, plan.source_session_id.clone());
        self.shared.ledger.write(move |tx| {
            if let Some(key) = &key
                && let Some(made) = tx.claim_key(key, &operation_id)?
            {
                return Ok(Some(made));
            }
            let team = tx.team(&team_id)?;
            if tx.spawns_under_way()? >= limits::SPAWNS {
                let message = format!("{} members are being spawned", limits::SPAWNS);
                return Err(Error::new(Code::Capacity, message).hint("wait for one of them"));
            }
            let new = NewOperation {
                operation_id: &operation_id,
                kind: OperationKind::Spawn,
                stage: OperationStage::Planned,
                source_session_id: Some(&source),
                session_id: None,
                worktree_id: None,
                worktree_assignment_mode: mode,
                request: &request,
                enrolment: Some(&enrolment),
            };
            tx.begin_operation(&team, &new)?;
            Ok(None)
        })
    }
}

/// Makes the session, with its worktree and its claim, and has its agent open.
fn make(shared: &Shared, operation_id: &str, plan: Plan) -> Result<()> {
    let operation_id = operation_id.to_owned();
    let accept: Accept = Box::new(move |tx, session_id| {
        let worktree_id = tx.session(session_id)?.worktree_id;
        let change = OperationChange {
            session_id: Some(session_id),
            worktree_id: worktree_id.as_deref(),
            ..OperationChange::default()
        };
        tx.move_operation(&operation_id, OperationStage::SessionCreated, &change)
    });
    let Plan { session, worktree, .. } = plan;
    let accept = Some(accept);
    let request = SessionRequest { session, wait: true, worktree, accept, idempotency: None };
    shared.sessions.create(request).map(|_session_id| ())
}

/// Makes the session a member, writes the onboarding and completes the operation, all at once. Errors: nothing of it is
/// done, and the operation is to be undone for this `reason`.
pub(super) fn enrol(shared: &Shared, operation_id: &str, reason: &mut &'static str) -> Result<()> {
    let has_joined = Arc::new(AtomicBool::new(false));
    let (id, joined) = (operation_id.to_owned(), Arc::clone(&has_joined));
    let has_tools = shared.config.is_mcp_enabled;
    let enrolled = shared.ledger.write(move |tx| {
        let record = tx.operation(&id)?;
        let enrolment: Enrolment = serde_json::from_str(&tx.enrolment(&id)?)
            .map_err(|error| Error::internal("an operation can not be read").source(error))?;
        let session_id = record.session_id.clone().unwrap_or_default();
        tx.join_team(&record.team_id, &enrolment.joining(&record, &session_id))?;
        joined.store(true, Ordering::SeqCst);
        let (outgoing, content) = enrolment.onboarding(tx, &record, has_tools)?;
        let ack = tx.send(&record.team_id, &outgoing, &content)?;
        let message_id = Some(ack.message.id.as_str());
        let change = OperationChange { message_id, ..OperationChange::default() };
        tx.move_operation(&id, OperationStage::Completed, &change)?;
        Ok(session_id)
    });
    *reason = if has_joined.load(Ordering::SeqCst) { ONBOARDING_FAILED } else { JOIN_FAILED };
    let session_id = enrolled?;
    shared.sessions.post().announce([session_id], "queue");
    Ok(())
}

impl Enrolment {
    fn joining(&self, record: &OperationRecord, session_id: &str) -> Joining {
        Joining {
            title: self.title.clone(),
            added_by: record.source_session_id.clone(),
            creator_agent_id: self.creator_agent_id.clone(),
            creator_compaction_subscription: self.creator_compaction_subscription.clone(),
            worktree_id: record.worktree_id.clone(),
            operation_id: Some(record.operation_id.clone()),
            ..Joining::of(session_id)
        }
    }

    /// The first message of a member: who it is, and what it is to do. With its checked input.
    fn onboarding(
        &self,
        tx: &mut Tx<'_>,
        record: &OperationRecord,
        has_tools: bool,
    ) -> Result<(Outgoing, Vec<Input>)> {
        let team = tx.team(&record.team_id)?;
        let session_id = record.session_id.as_deref().unwrap_or_default();
        let sender = record.source_session_id.clone().unwrap_or_default();
        let mut text = format!(
            "This session is a member of the team \"{}\" from now on.\n\n\
             - team_id: {}\n- lead: {}\n- added by: {sender}\n- this member: {session_id}\n",
            team.name, team.id, team.lead_agent_id
        );
        if let Some(title) = &self.title {
            text += &format!("- its title: {title}\n");
        }
        if has_tools {
            text += "\nThe tools gg_team_status and gg_team_message show the other members and \
                reach them; what they answer comes as a message.\n";
        }
        if let Some(prompt) = &self.prompt {
            text += &format!("\n# The task\n\n{prompt}\n");
        }
        let key = format!("spawn-onboarding:{}", record.operation_id);
        let outgoing = Outgoing {
            sender_agent_id: sender,
            recipients: Recipients::One(session_id.to_owned()),
            input: vec![json!({"type": "text", "text": text})],
            image_paths: self.image_paths.clone(),
            priority: Priority::Normal,
            policy: Policy::StartNewTurnOnly,
            correlation_id: Some(key.clone()),
            reply_to_message_id: None,
            idempotency_key: Some(key),
            idempotency: None,
        };
        let mut content = vec![Input::Text { text }];
        content.extend(self.images.iter().cloned());
        Ok((outgoing, content))
    }
}

/// What an operation that was completed has come to.
fn result(db: &Connection, operation_id: &str) -> Result<SpawnResult> {
    // One snapshot for all of it.
    let db = db.unchecked_transaction()?;
    let record = operation::get(&db, operation_id)?;
    let team = team::get_any(&db, &record.team_id)?;
    let members = team::members(&db, &team)?;
    let session_id = record.session_id.as_deref().unwrap_or_default();
    let delivery_ids = match &record.message_id {
        Some(message_id) => {
            let key = message::get(&db, &team, message_id)?.message_key;
            delivery::of_message(&db, &team, key)?.into_iter().map(|made| made.id).collect()
        }
        None => Vec::new(),
    };
    let worktree_id = record.worktree_id.as_deref();
    Ok(SpawnResult {
        spawned_session: found(session::get(&db, session_id))?,
        spawned_member: members.iter().find(|member| member.agent_id == session_id).cloned(),
        worktree: worktree_id.map(|id| worktree::get(&db, id)).transpose()?,
        worktree_created_by_operation: record.is_worktree_made(),
        operation_id: record.operation_id,
        team: Roster { team, members },
        worktree_assignment_mode: record.worktree_assignment_mode,
        onboarding: Onboarding { status: "sent", message_id: record.message_id, delivery_ids },
        journal_stage: record.stage,
    })
}

/// None for a thing that is not there.
pub(super) fn found<T>(read: Result<T>) -> Result<Option<T>> {
    match read {
        Ok(record) => Ok(Some(record)),
        Err(error) if error.code == Code::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
