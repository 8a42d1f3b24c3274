//! Ids and times.
//!
//! An id is a prefix that says what it names and a UUIDv7 in simple hex: never reused, ordered by creation inside one
//! server, also while the clock stands still or is set back. Times are milliseconds since the Unix epoch. Called on any
//! thread. The bits of chance come from the system call alone: no file of `/dev` has to be there.

use crate::secret;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What the last id was made of.
static LAST: Mutex<Sequence> = Mutex::new(Sequence { ms: 0, tail: 0 });

/// Bits behind the time, without those that tell the version.
const TAIL_BITS: u32 = 74;
/// The part of them that stands behind the second of those marks.
const LOW_BITS: u32 = 62;

/// A new id, e.g. `sess_0198f3c2…`. `prefix` is one of the prefixes of the contract, without the underscore.
pub fn new(prefix: &str) -> String {
    let mut bytes = [0; 16];
    secret::fill(&mut bytes).expect("the start has seen that the system gives random bits");
    let chance = u128::from_ne_bytes(bytes);
    let now = u64::try_from(now_ms()).unwrap_or(0);
    let uuid = LAST.lock().unwrap_or_else(PoisonError::into_inner).next(now, chance);
    format!("{prefix}_{uuid:032x}")
}

/// Ids in order.
struct Sequence {
    ms: u64,
    tail: u128,
}

impl Sequence {
    /// The next id. A new millisecond begins at a random place in the lower half, so that more of them than can be made
    /// fit behind it; in the same one, or an earlier one, it is the last id and a random step.
    fn next(&mut self, now_ms: u64, chance: u128) -> u128 {
        if now_ms > self.ms {
            self.ms = now_ms;
            self.tail = chance >> (u128::BITS - TAIL_BITS + 1);
        } else {
            self.tail += 1 + (chance & u128::from(u32::MAX));
        }
        let (high, low) = (self.tail >> LOW_BITS, self.tail & ((1 << LOW_BITS) - 1));
        u128::from(self.ms) << 80 | 7 << 76 | (high & 0xfff) << 64 | 0b10 << LOW_BITS | low
    }
}

/// Milliseconds since the Unix epoch; 0 on a clock before it.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_the_shape_of_a_uuid_of_version_7() {
        let mut sequence = Sequence { ms: 0, tail: 0 };
        // The example of RFC 9562, but for the bits of chance.
        let uuid = sequence.next(0x017f_22e2_79b0, u128::MAX);
        assert_eq!(format!("{uuid:032x}"), "017f22e279b077ffbfffffffffffffff");
        let uuid = sequence.next(0x017f_22e2_79b1, 0);
        assert_eq!(format!("{uuid:032x}"), "017f22e279b170008000000000000000");
        let made = new("sess");
        assert!(made.starts_with("sess_0") && made.len() == 37, "{made}");
    }

    #[test]
    fn ids_are_in_order_also_when_the_clock_is_not() {
        let mut sequence = Sequence { ms: 0, tail: 0 };
        let clock = [5, 5, 5, 3, 4, 5, 6, 6, 1, 7];
        let chance = [u128::MAX, 0, u128::MAX, 0, 0, u128::MAX, 0, 0, u128::MAX, 0];
        let uuids: Vec<u128> =
            clock.into_iter().zip(chance).map(|(ms, chance)| sequence.next(ms, chance)).collect();
        assert!(uuids.is_sorted_by(|one, next| one < next), "{uuids:x?}");
        let mut made: Vec<String> = (0..1000).map(|_| new("a")).collect();
        let in_order = made.clone();
        made.sort();
        made.dedup();
        assert_eq!(made, in_order);
    }
}
