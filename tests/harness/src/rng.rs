//! A small deterministic source of numbers.
//!
//! Owns: one 64-bit state (splitmix64). The same seed gives the same numbers on every machine, and a test that fails
//! prints its seed, so that it can be run again with `GG_TEST_SEED`. It is deliberately no source of secrets.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of numbers that remembers its seed.
#[derive(Debug)]
pub struct Rng {
    seed: u64,
    state: u64,
    /// Its seed repeats nothing by itself, so it is not told.
    is_fork: bool,
}

impl Rng {
    /// A source that starts at `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng { seed, state: seed, is_fork: false }
    }

    /// A source that starts at `GG_TEST_SEED`, or at the time. Panics: the variable is no number.
    pub fn from_environment() -> Rng {
        if let Ok(text) = std::env::var("GG_TEST_SEED") {
            return Rng::new(text.parse().expect("GG_TEST_SEED is a number"));
        }
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Rng::new(since.as_nanos() as u64)
    }

    /// Another source, for a thread of its own: what it gives follows from this one's place alone.
    pub fn fork(&mut self) -> Rng {
        let seed = self.next_u64();
        Rng { seed, state: seed, is_fork: true }
    }

    /// Where it started.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number below `bound`. Panics: `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "no number is below 0");
        // The high half of the product is even enough for tests: the error is below bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// One of the items. Panics: there is none.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    /// Whether something happens that happens `percent` times of 100.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

impl Drop for Rng {
    fn drop(&mut self) {
        if std::thread::panicking() && !self.is_fork {
            // Past the capture of the test runner: the seed must be seen.
            drop(writeln!(std::io::stderr(), "run again with GG_TEST_SEED={}", self.seed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_published_numbers() {
        let mut rng = Rng::new(1_234_567);
        let numbers = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(
            numbers,
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]
        );
    }

    #[test]
    fn numbers_stay_below_their_bound_and_reach_all_of_it() {
        let mut rng = Rng::new(7);
        let mut seen = [false; 5];
        for _ in 0..1000 {
            seen[rng.below(5) as usize] = true;
        }
        assert_eq!(seen, [true; 5]);
    }
}
