//! The mailbox of a running prompt.
//!
//! Owns: what other threads tell a turn's thread: cancel, the end of the process, answers to its requests, and that
//! something it looks at has changed. The turn's thread waits here and nowhere else, on one condition variable, so a
//! cancel ends any wait at once. This file deliberately knows nothing of what the turn does.

use crate::thread::lock;
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Why a turn ends before its last directive.
#[derive(Debug)]
pub(crate) enum Stop {
    Cancelled,
    Refused,
    MaxTokens,
    Failed {
        code: i64,
        message: String,
    },
    /// Nobody reads stdout any more; there is nobody to tell.
    ClientGone,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Stop {
        Stop::ClientGone
    }
}

/// What a wait listens to besides its own condition.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Ears {
    /// A cancel ends the wait.
    Open,
    /// Only the end of the process ends the wait.
    Deaf,
}

#[derive(Default)]
pub(crate) struct Turn {
    inbox: Mutex<Inbox>,
    changed: Condvar,
    // A copy of the inbox's word, for the loop of a flood, which has no time for locks.
    cancelled: AtomicBool,
}

#[derive(Default)]
pub(crate) struct Inbox {
    cancelled: bool,
    closing: bool,
    /// Answers to our requests, by their id, taken out by the waiting thread.
    replies: HashMap<i64, Value>,
}

impl Inbox {
    pub(crate) fn take_reply(&mut self, id: i64) -> Option<Value> {
        self.replies.remove(&id)
    }
}

impl Turn {
    /// Asks the turn to end. Never blocks.
    pub(crate) fn cancel(&self) {
        self.cancelled.store(true, Ordering::Release);
        lock(&self.inbox).cancelled = true;
        self.changed.notify_all();
    }

    /// Tells the turn that the process ends. Ends every wait, also a deaf one.
    pub(crate) fn close(&self) {
        self.cancelled.store(true, Ordering::Release);
        let mut inbox = lock(&self.inbox);
        inbox.cancelled = true;
        inbox.closing = true;
        drop(inbox);
        self.changed.notify_all();
    }

    /// Takes a cancel back: it was heard, and ignored.
    pub(crate) fn forget_cancel(&self) {
        let mut inbox = lock(&self.inbox);
        if !inbox.closing {
            inbox.cancelled = false;
            self.cancelled.store(false, Ordering::Release);
        }
    }

    pub(crate) fn deliver(&self, id: i64, reply: Value) {
        lock(&self.inbox).replies.insert(id, reply);
        self.changed.notify_all();
    }

    /// Says that something which a wait's condition looks at has changed. The change comes first, then this call.
    pub(crate) fn wake(&self) {
        // The lock makes sure that the waiting thread is either before its check or already waiting.
        drop(lock(&self.inbox));
        self.changed.notify_all();
    }

    /// An error when the turn was cancelled; cheap enough for every step.
    pub(crate) fn check(&self) -> Result<(), Stop> {
        if self.cancelled.load(Ordering::Acquire) { Err(Stop::Cancelled) } else { Ok(()) }
    }

    /// Waits until `ready` gives a value, or the limit has passed (`None`). Errors: [`Stop::Cancelled`].
    pub(crate) fn wait<T>(
        &self,
        limit: Option<Duration>,
        ears: Ears,
        mut ready: impl FnMut(&mut Inbox) -> Option<T>,
    ) -> Result<Option<T>, Stop> {
        let end = limit.map(|limit| Instant::now() + limit);
        let mut inbox = lock(&self.inbox);
        loop {
            if inbox.closing || (inbox.cancelled && ears == Ears::Open) {
                return Err(Stop::Cancelled);
            }
            if let Some(value) = ready(&mut inbox) {
                return Ok(Some(value));
            }
            inbox = match end {
                None => self.changed.wait(inbox).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let waited = self.changed.wait_timeout(inbox, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lets time pass. Errors: [`Stop::Cancelled`], at once.
    pub(crate) fn pause(&self, length: Duration, ears: Ears) -> Result<(), Stop> {
        self.wait(Some(length), ears, |_| None::<()>).map(|_| ())
    }
}

/// Which turn waits for which answer of one other side (the client, or an MCP server).
#[derive(Default)]
pub(crate) struct Waiting {
    turns: Mutex<HashMap<i64, Arc<Turn>>>,
}

/// One counter for all requests of the process, so that an answer's id is unique in a turn's mailbox.
static NEXT_ID: AtomicI64 = AtomicI64::new(0);

impl Waiting {
    /// A fresh request id, whose answer goes to this turn.
    pub(crate) fn expect(&self, turn: &Arc<Turn>) -> i64 {
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        lock(&self.turns).insert(id, Arc::clone(turn));
        id
    }

    /// The turn that waits for this answer, once.
    pub(crate) fn take(&self, id: i64) -> Option<Arc<Turn>> {
        lock(&self.turns).remove(&id)
    }

    /// All that still wait: their other side has gone.
    pub(crate) fn take_all(&self) -> Vec<(i64, Arc<Turn>)> {
        lock(&self.turns).drain().collect()
    }
}
