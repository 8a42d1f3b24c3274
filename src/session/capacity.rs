//! How many agents may live at once, by provider.
//!
//! A reservation is taken before an agent is started and held while it lives. Whoever needs one and finds none asks
//! [`super::Sessions`] to put the longest idle agent to sleep first.

use super::Sessions;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Default)]
pub(super) struct Capacity {
    live: Mutex<HashMap<String, usize>>,
}

/// The right to run one agent; given back when it is dropped.
pub(super) struct Reservation {
    capacity: Arc<Capacity>,
    provider: String,
}

impl Capacity {
    /// None when `live_max` agents of the provider live.
    pub(super) fn reserve(
        self: &Arc<Self>,
        provider: &str,
        live_max: usize,
    ) -> Option<Reservation> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let count = live.entry(provider.to_owned()).or_default();
        if *count >= live_max {
            return None;
        }
        *count += 1;
        Some(Reservation { capacity: Arc::clone(self), provider: provider.to_owned() })
    }

    /// For an agent that lives already, whatever the bound says now.
    pub(super) fn reserve_anyway(self: &Arc<Self>, provider: &str) -> Reservation {
        self.reserve(provider, usize::MAX).expect("there is no bound")
    }

    pub(super) fn live(&self, provider: &str) -> usize {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        live.get(provider).copied().unwrap_or(0)
    }
}

impl Sessions {
    /// Live agents of a provider.
    pub fn live_agents(&self, provider: &str) -> usize {
        self.shared.capacity.live(provider)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut live = self.capacity.live.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = live.get_mut(&self.provider) {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_comes_back_when_it_is_dropped() {
        let capacity = Arc::new(Capacity::default());
        let first = capacity.reserve("acp", 1).unwrap();
        assert!(capacity.reserve("acp", 1).is_none());
        assert!(capacity.reserve("demo", 1).is_some());
        drop(first);
        assert_eq!(capacity.live("acp"), 0);
        assert!(capacity.reserve("acp", 1).is_some());
    }
}
