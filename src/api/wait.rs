//! Requests that wait for an end: how many of one caller's do so at once.
//!
//! Owns: the count for each address that somebody waits at, and the look whether it still does. A wait holds a
//! connection and its thread, so a caller that forgets what it waits for would in time take all of them. A place is
//! taken on the connection's thread before anything is started, and given back when the wait is over, in whatever way:
//! also when the client has gone, which is found out within [`limits::CLIENT_LOOK`]. How long a wait is, is not bounded
//! here.

use super::Call;
use crate::error::{Code, Error, Result};
use crate::limits;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The waits that go on, by address.
#[derive(Default)]
pub(super) struct Waits {
    table: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one wait.
pub(super) struct Waiting<'a> {
    waits: &'a Waits,
    caller: IpAddr,
}

impl Waits {
    /// Errors: as many of the caller's requests wait as may.
    pub(super) fn take(&self, call: &Call) -> Result<Waiting<'_>> {
        let caller = call.head().peer.ip();
        let mut table = self.lock();
        let count = table.entry(caller).or_default();
        if *count >= limits::WAITS {
            return Err(Error::new(
                Code::TooManyRequests,
                format!("{count} requests from {caller} wait, as many as may"),
            )
            .hint("let some end, or follow the log as a stream instead"));
        }
        *count += 1;
        call.client().keep_waiting();
        Ok(Waiting { waits: self, caller })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Waits until `piece`, which waits for as long as it is told, says that it is over; at most so long, and not for a
/// client that is gone. Gives what `piece` has found last.
pub(super) fn in_pieces<T>(
    call: &Call,
    at_most: Duration,
    mut piece: impl FnMut(Duration) -> Result<(T, bool)>,
) -> Result<T> {
    let deadline = Instant::now() + at_most;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let (found, is_over) = piece(left.min(limits::CLIENT_LOOK))?;
        if is_over || left <= limits::CLIENT_LOOK || call.client().is_gone() {
            return Ok(found);
        }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut table = self.waits.lock();
        if let Some(count) = table.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                table.remove(&self.caller);
            }
        }
    }
}
