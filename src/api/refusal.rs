//! Requests that were not let in: counted, and told in the log.
//!
//! Owns: one count for each reason, and when the log was told last. Runs on the threads of connections. Whoever guesses
//! a token, or a page that tries to call from a browser, shows in the figures at once, and in the log by one line in
//! [`limits::REFUSAL_PAUSE_SECS`] however many there are. It deliberately locks nobody out: behind a proxy, and on
//! loopback, all callers have one address, and a token of 256 bits is not found by trying.

use crate::error::Code;
use crate::limits;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The reasons that are counted.
const REASONS: [Code; 4] =
    [Code::Unauthorized, Code::Forbidden, Code::HostNotAllowed, Code::OriginNotAllowed];

const PAUSE: Duration = Duration::from_secs(limits::REFUSAL_PAUSE_SECS);

#[derive(Default)]
pub(super) struct Refusals {
    counts: [AtomicU64; REASONS.len()],
    told: Mutex<Told>,
}

#[derive(Default)]
struct Told {
    /// When the last line was written.
    at: Option<Instant>,
    /// Refused since.
    count: u64,
}

impl Refusals {
    /// Counts a request that was answered with this code, if it is one of the reasons.
    pub(super) fn note(&self, code: Code, peer: IpAddr) {
        let Some(place) = REASONS.iter().position(|reason| *reason == code) else { return };
        self.counts[place].fetch_add(1, Ordering::Relaxed);
        let due = self.told.lock().unwrap_or_else(PoisonError::into_inner).due(Instant::now());
        if let Some(count) = due {
            log::warn!("refused {count} requests; the last: {} of {peer}", code.as_str());
        }
    }

    /// How many there were, by the name of their code.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        REASONS.iter().map(|reason| reason.as_str()).zip(self.counts.iter().map(read))
    }
}

impl Told {
    /// Takes one more; how many the log is to be told of now.
    fn due(&mut self, now: Instant) -> Option<u64> {
        self.count += 1;
        if self.at.is_some_and(|at| now.saturating_duration_since(at) < PAUSE) {
            return None;
        }
        self.at = Some(now);
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_now_and_one_with_the_number_later() {
        let (mut told, start) = (Told::default(), Instant::now());
        assert_eq!(told.due(start), Some(1));
        for _ in 0..1000 {
            assert_eq!(told.due(start + PAUSE / 2), None);
        }
        assert_eq!(told.due(start + PAUSE), Some(1001));
        assert_eq!(told.due(start + PAUSE), None);
    }

    #[test]
    fn only_refusals_are_counted() {
        let refusals = Refusals::default();
        let peer = IpAddr::from([127, 0, 0, 1]);
        for code in [Code::Unauthorized, Code::Unauthorized, Code::NotFound, Code::HostNotAllowed] {
            refusals.note(code, peer);
        }
        let counts: Vec<u64> = refusals.counts().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 0, 1, 0]);
    }
}
