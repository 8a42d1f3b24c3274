//! What a start does with operations that the last server was in the middle of.
//!
//! Those that had made nothing are undone before the first request. One thread takes the others up, one after the
//! other, in the order in which they were begun. It holds nobody up who waits for the server: agents of sessions that
//! were being opened are being opened by then, all at once (see `session::Sessions::recover`), so that to wait for one
//! after the other takes no longer than for the slowest. It ends when it is through, or when the server stops; what it
//! did not come to is left to the next start.

use super::shared::Shared;
use super::{spawn, takedown};
use crate::error::{Code, Error, Result};
use crate::ledger::session;
use crate::ledger::team::operation;
use crate::model::team::OperationStage;

/// Why an operation is undone that had made nothing that stays.
const SERVER_STOPPED: &str = "server_stopped";

/// Undoes those that were only written down, and leaves the others in the list. Their worktrees, if there are any, are
/// intents, which the thread of worktrees takes back. Errors: the ledger can not be read.
pub(super) fn take_back_planned(shared: &Shared, left: &mut Vec<String>) -> Result<()> {
    let mut others = Vec::new();
    for operation_id in left.drain(..) {
        let record = shared.ledger.read(|db| operation::get(db, &operation_id))?;
        if record.stage == OperationStage::Planned.as_str() {
            let message = "the server was stopped before the session was made";
            let error = Error::internal(message).hint("ask for it again");
            takedown::undo(shared, &operation_id, SERVER_STOPPED, error);
        } else {
            others.push(operation_id);
        }
    }
    *left = others;
    Ok(())
}

/// The body of the thread. `left` are the operations that were not over before the first request.
pub(super) fn take_up(shared: &Shared, left: &[String]) {
    for operation_id in left {
        if shared.sessions.is_stopping() {
            return;
        }
        if let Err(error) = go_on(shared, operation_id) {
            log::error!("operation {operation_id} is left to the next start: {error}");
        }
    }
}

fn go_on(shared: &Shared, operation_id: &str) -> Result<()> {
    let record = shared.ledger.read(|db| operation::get(db, operation_id))?;
    match OperationStage::parse(&record.stage) {
        Some(OperationStage::SessionCreated) => {
            let session_id = record.session_id.unwrap_or_default();
            let outcome = open(shared, &session_id)
                .map_err(|error| takedown::undo(shared, operation_id, spawn::SESSION_FAILED, error))
                .and_then(|()| spawn::enrol(shared, operation_id));
            if let Err(error) = outcome {
                log::warn!("operation {operation_id} did not come to its member: {error}");
            }
            Ok(())
        }
        Some(OperationStage::RollingBack | OperationStage::MemberLeft) => {
            takedown::finish(shared, operation_id).map(drop)
        }
        _ => Ok(()),
    }
}

/// Waits until the agent is open. Errors: it is not to be, with what its session says of it.
fn open(shared: &Shared, session_id: &str) -> Result<()> {
    let opened = shared.sessions.open(session_id);
    if opened.is_ok() || shared.sessions.is_stopping() {
        return opened;
    }
    let record = shared.ledger.read(|db| session::get(db, session_id))?;
    match record.failure_message {
        Some(message) => Err(Error::new(Code::AgentFailed, message)),
        None => opened,
    }
}
