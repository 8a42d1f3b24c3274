//! Where a new session works: a worktree that is made for it, or one that is there.
//!
//! Runs on the caller's thread, before the session has one of its own. Session, worktree and claim appear in one
//! transaction: before it the worktree is an intent that a crash takes back, after it the session's end releases the
//! claim and has the worktree cleaned up. So a step that fails leaves nothing behind, but work.

use super::{SessionRequest, Sessions};
use crate::error::Result;
use crate::ledger::Tx;
use crate::ledger::event::NewEvent;
use crate::ledger::to_json;
use crate::model::event::EventKind;
use crate::model::worktree::InitScriptStatus;
use crate::worktree::{Draft, Prepared, WorktreeRequest};

/// The worktree that a new session is to work in.
pub struct WorktreeWish {
    pub mode: PlaceMode,
    pub request: WorktreeRequest,
}

/// Whether it is made or found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlaceMode {
    Create,
    Reuse,
}

/// The worktree, as far as the transaction of the session must know it.
struct Place {
    worktree_id: String,
    claim_role: &'static str,
    /// Set when the transaction makes it `ready`.
    made: Option<InitScriptStatus>,
}

impl Sessions {
    /// Inserts the session, with its worktree if it wants one. Gives its id and whether it is new.
    pub(super) fn insert_placed(&self, mut request: SessionRequest) -> Result<(String, bool)> {
        let Some(wish) = request.worktree.take() else { return self.insert(request, None) };
        let worktrees = &self.shared.worktrees;
        let wanted = WorktreeRequest {
            source_cwd: request.session.cwd.clone(),
            created_by_session_id: wish
                .request
                .created_by_session_id
                .or_else(|| Some(request.session.session_id.clone())),
            ..wish.request
        };
        if wish.mode == PlaceMode::Reuse {
            let found = worktrees.find(&wanted)?;
            work_in(&mut request, &found.worktree_cwd);
            let claim_role = "consumer";
            let place = Place { worktree_id: found.id, claim_role, made: None };
            return self.insert(request, Some(place));
        }
        let draft = match worktrees.prepare(&wanted, true)? {
            Prepared::Made(draft) => draft,
            Prepared::Existing(found) | Prepared::Repeated(found) => {
                return Err(crate::ledger::worktree::taken(&found));
            }
        };
        work_in(&mut request, &draft.worktree_cwd.to_string_lossy());
        let place = Place {
            worktree_id: draft.worktree_id.clone(),
            claim_role: "owner",
            made: Some(draft.init_script_status),
        };
        let inserted = self.insert(request, Some(place));
        // A session that was made before, by the same key, has its own.
        if !matches!(inserted, Ok((_, true))) {
            self.give_back(draft);
        }
        inserted
    }

    fn give_back(&self, draft: Draft) {
        self.shared.worktrees.take_back(draft, "session_create_failed");
    }

    fn insert(&self, request: SessionRequest, place: Option<Place>) -> Result<(String, bool)> {
        let SessionRequest { session, idempotency, accept, .. } = request;
        self.shared.ledger.write(move |tx| {
            let session_id = session.session_id.clone();
            if let Some(claim) = &idempotency
                && let Some(made) = tx.claim_key(claim, &session_id)?
            {
                return Ok((made, false));
            }
            if let Some(Place { worktree_id, made: Some(status), .. }) = &place {
                tx.finish_worktree(worktree_id, *status)?;
            }
            tx.insert_session(&session)?;
            if let Some(place) = &place {
                tx.set_session_worktree(&session_id, Some(&place.worktree_id))?;
            }
            tell_created(tx, &session_id)?;
            if let Some(place) = &place {
                tx.claim_worktree(&place.worktree_id, &session_id, place.claim_role)?;
            }
            if let Some(accept) = &accept {
                accept(tx, &session_id)?;
            }
            Ok((session_id, true))
        })
    }
}

fn work_in(request: &mut SessionRequest, worktree_cwd: &str) {
    request.session.cwd = Some(worktree_cwd.to_owned());
    request.session.agent_cwd = worktree_cwd.to_owned();
}

pub(super) fn tell_created(tx: &mut Tx<'_>, session_id: &str) -> Result<()> {
    let record = tx.session(session_id)?;
    let payload =
        format!("{{\"provider\":{},\"session\":{}}}", to_json(&record.provider), to_json(&record));
    let event = NewEvent::session(session_id, EventKind::SessionCreated, payload);
    tx.append(event).map(|_seq| ())
}
