//! How much of a growing text was told, without keeping the text.
//!
//! Owns: a count and a hash, small enough for a snapshot, and the hash itself. An adapter whose agent
//! repeats a text whole, longer each time or once more at the end, tells by it what is new.
//! Deliberately without any notion of items.

use serde::{Deserialize, Serialize};

/// How much of a growing text was sent, and its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    pub(super) bytes: usize,
    pub(super) hash: u64,
}

impl Sent {
    /// Remembers that `text` was sent after the rest.
    pub(super) fn push(&mut self, text: &str) {
        self.hash = hash_from(if self.bytes == 0 { HASH_START } else { self.hash }, text);
        self.bytes += text.len();
    }

    /// What `whole` has beyond the text that was sent; None when it does not begin with that text.
    pub(super) fn rest<'a>(&self, whole: &'a str) -> Option<&'a str> {
        let (head, rest) = whole.split_at_checked(self.bytes)?;
        (self.bytes == 0 || hash(head) == self.hash).then_some(rest)
    }
}

/// The offset basis of FNV-1a, 64 bits.
const HASH_START: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a: the same in every build, which the hashes of the standard library do not promise.
pub(super) fn hash(text: &str) -> u64 {
    hash_from(HASH_START, text)
}

fn hash_from(start: u64, text: &str) -> u64 {
    text.bytes()
        .fold(start, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}
