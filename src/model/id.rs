//! Ids and times.
//!
//! An id is a prefix that says what it names and a UUIDv7 in simple hex: never reused, ordered by creation inside one
//! server. Times are milliseconds since the Unix epoch.

use std::time::{SystemTime, UNIX_EPOCH};

/// A new id, e.g. `sess_0198f3c2…`. `prefix` is one of the prefixes of the contract, without the underscore.
pub fn new(prefix: &str) -> String {
    let uuid = uuid::Uuid::now_v7();
    let mut text = String::with_capacity(prefix.len() + 33);
    text.push_str(prefix);
    text.push('_');
    text.push_str(uuid.simple().encode_lower(&mut uuid::Uuid::encode_buffer()));
    text
}

/// Milliseconds since the Unix epoch; 0 on a clock before it.
pub fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}
