//! Samples of time: percentiles, and the clock that two processes share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Durations in microseconds.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    us: Vec<f64>,
    is_sorted: bool,
}

impl Samples {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.add_us(duration.as_secs_f64() * 1e6);
    }

    pub(crate) fn add_us(&mut self, us: f64) {
        self.us.push(us);
        self.is_sorted = false;
    }

    pub(crate) fn take(&mut self, other: Samples) {
        self.us.extend(other.us);
        self.is_sorted = false;
    }

    pub(crate) fn count(&self) -> usize {
        self.us.len()
    }

    /// The value that `percent` of the samples do not exceed, in milliseconds; 0 without samples.
    pub(crate) fn percentile_ms(&mut self, percent: usize) -> f64 {
        if !self.is_sorted {
            self.us.sort_by(f64::total_cmp);
            self.is_sorted = true;
        }
        let last = self.us.len().saturating_sub(1);
        let place = (self.us.len() * percent).div_ceil(100).saturating_sub(1).min(last);
        self.us.get(place).copied().unwrap_or_default() / 1000.0
    }
}

/// Nanoseconds since the epoch: the clock that agent and client have in common on one machine.
pub(crate) fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).expect("the year is before 2554")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_were_seen() {
        let mut samples = Samples::default();
        assert_eq!(samples.percentile_ms(50), 0.0);
        for ms in [5, 1, 4, 2, 3] {
            samples.add(Duration::from_millis(ms));
        }
        assert_eq!(samples.percentile_ms(50), 3.0);
        assert_eq!(samples.percentile_ms(99), 5.0);
        assert_eq!(samples.percentile_ms(0), 1.0);
    }
}
