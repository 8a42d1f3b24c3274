//! Requests that wait for an end: how many of one caller's do so at once.
//!
//! Owns: the count for each address that somebody waits at. A wait holds a connection and its thread, so a caller that
//! forgets what it waits for would in time take all of them. A place is taken on the connection's thread before
//! anything is started, and given back when the wait is over, in whatever way. How long a wait is, is not bounded here.

use super::Call;
use crate::error::{Code, Error, Result};
use crate::limits;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

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
        Ok(Waiting { waits: self, caller })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
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
