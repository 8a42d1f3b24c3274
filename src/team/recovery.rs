//! Operations that came to no end: since the last server was in the middle of them, or since something could not be
//! done, as on a full disk.
//!
//! Those that had made nothing are undone before the first request. The thread `team-recovery` takes the others up, one
//! after the other, in the order in which they were begun. It holds nobody up who waits for the server: agents of
//! sessions that were being opened are being opened by then, all at once (see `session::Sessions::recover`), so that to
//! wait for one after the other takes no longer than for the slowest. Then it waits for what is left to it, and tries
//! each again after a pause that grows. It ends when the server stops; what it did not come to is left to the next
//! start.

use super::shared::Shared;
use super::{spawn, takedown};
use crate::error::{Code, Error, Result};
use crate::ledger::session;
use crate::ledger::team::operation;
use crate::model::team::OperationStage;
use crate::thread;
use crate::tries::{Pauses, Tries};
use crate::watchdog;
use crossbeam_channel::{Receiver, Sender};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Why an operation is undone that had made nothing that stays.
const SERVER_STOPPED: &str = "server_stopped";

/// Operations that nobody is at work on, by id.
pub(super) struct Left {
    /// With why it is to be undone, where the journal does not say so yet.
    operations: Mutex<BTreeMap<String, Option<Undo>>>,
    words: (Sender<()>, Receiver<()>),
}

/// Why a spawn is undone.
#[derive(Clone)]
pub(super) struct Undo {
    pub reason: &'static str,
    pub message: String,
}

impl Default for Left {
    fn default() -> Left {
        Left { operations: Mutex::default(), words: crossbeam_channel::bounded(1) }
    }
}

impl Left {
    /// Leaves an operation to the thread. Does not wait.
    pub(super) fn put(&self, operation_id: &str, undo: Option<Undo>) {
        self.lock().insert(operation_id.to_owned(), undo);
        self.wake();
    }

    /// Has the thread look.
    pub(super) fn wake(&self) {
        // A full channel has told it already.
        let _: std::result::Result<(), _> = self.words.0.try_send(());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<Undo>>> {
        self.operations.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Undoes those that were only written down, and leaves the others to the thread. Worktrees of the first, if there are
/// any, are intents, which the thread of worktrees takes back. Errors: the ledger can not be read.
pub(super) fn take_back_planned(shared: &Shared, operations: Vec<String>) -> Result<()> {
    for operation_id in operations {
        let record = shared.ledger.read(|db| operation::get(db, &operation_id))?;
        if record.stage == OperationStage::Planned.as_str() {
            let message = "the server was stopped before the session was made";
            let error = Error::internal(message).hint("ask for it again");
            takedown::undo(shared, &operation_id, SERVER_STOPPED, error);
        } else {
            shared.left.put(&operation_id, None);
        }
    }
    Ok(())
}

/// The body of the thread.
pub(super) fn serve(shared: &Shared) {
    watchdog::watch();
    let mut pauses = Pauses::default();
    let pause = || pauses.rest(&shared.left.words.1, || shared.sessions.is_stopping());
    thread::run_anew(|| take_up(shared), pause);
}

/// Takes up what is left until the server stops.
fn take_up(shared: &Shared) {
    let mut tries = Tries::default();
    loop {
        let now = Instant::now();
        let left: Vec<(String, Option<Undo>)> =
            shared.left.lock().iter().map(|(id, undo)| (id.clone(), undo.clone())).collect();
        for (operation_id, mut undo) in left {
            if shared.sessions.is_stopping() {
                return;
            }
            if !tries.is_due(&operation_id, now) {
                continue;
            }
            match thread::survive(|| go_on(shared, &operation_id, &mut undo)) {
                Ok(()) => drop(shared.left.lock().remove(&operation_id)),
                Err(error) => {
                    log::error!("operation {operation_id} is taken up again later: {error}");
                    shared.left.lock().insert(operation_id.clone(), undo);
                    tries.failed(&operation_id);
                }
            }
        }
        tries.keep(|id| shared.left.lock().contains_key(id));
        // The sender is in `shared`: it is the stop that ends this.
        if !tries.rest(&shared.left.words.1, now) || shared.sessions.is_stopping() {
            return;
        }
    }
}

/// Errors: it is as it was, or in the middle of being undone, and why is in `undo` if the journal does not have it.
fn go_on(shared: &Shared, operation_id: &str, undo: &mut Option<Undo>) -> Result<()> {
    let record = spawn::found(shared.ledger.read(|db| operation::get(db, operation_id)))?;
    // Else it was purged with its team.
    let Some(record) = record else { return Ok(()) };
    if let Some(undo) = undo {
        return takedown::take_back(shared, operation_id, undo);
    }
    match OperationStage::parse(&record.stage) {
        Some(OperationStage::SessionCreated) => {
            let session_id = record.session_id.unwrap_or_default();
            let mut reason = spawn::SESSION_FAILED;
            let made = open(shared, &session_id)
                .and_then(|()| spawn::enrol(shared, operation_id, &mut reason));
            let Err(error) = made else { return Ok(()) };
            if error.code == Code::ShuttingDown || shared.sessions.is_stopping() {
                return Err(error);
            }
            log::warn!("operation {operation_id} did not come to its member: {error}");
            let why = undo.insert(Undo { reason, message: error.to_string() });
            takedown::take_back(shared, operation_id, why)
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
