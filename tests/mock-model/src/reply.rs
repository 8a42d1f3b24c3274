//! Replies: an answer as a vendor's API gives it, ready to be played.
//!
//! Owns: the shapes between a dialect and the server, and the ids inside answers. Pure: a reply is
//! known to its end before its first byte goes out; the server only writes and waits. Deliberately
//! knows neither sockets nor vendors.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::speech::Wait;

/// How long a stream that breaks off stays silent before, so that what it sent has arrived.
const BREAK_PAUSE: Duration = Duration::from_millis(200);

/// An HTTP answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// A JSON body, after the waits.
    Whole {
        /// The HTTP status.
        status: u16,
        /// The body.
        body: Value,
        /// What to wait for first.
        waits: Vec<Wait>,
    },
    /// Server-sent events.
    Stream(Vec<Step>),
}

/// One step of a stream.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write this event.
    Frame(String),
    /// Write nothing for a while.
    Wait(Wait),
    /// Shut the connection down in the middle of the stream.
    HangUp,
}

impl Reply {
    /// A JSON body at once.
    pub fn json(status: u16, body: Value) -> Reply {
        Reply::Whole { status, body, waits: Vec::new() }
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        match self {
            Reply::Whole { status, .. } => *status,
            Reply::Stream(_) => 200,
        }
    }
}

/// A server-sent event with a name.
pub fn event(name: &str, data: &Value) -> Step {
    Step::Frame(format!("event: {name}\ndata: {data}\n\n"))
}

/// A server-sent event without a name.
pub fn data(data: &Value) -> Step {
    Step::Frame(format!("data: {data}\n\n"))
}

/// A wait long enough for what was sent to have been read by itself.
pub fn silence() -> Step {
    Step::Wait(Wait::Time(BREAK_PAUSE))
}

/// The steps by which a stream breaks off with its connection.
pub fn break_off() -> [Step; 2] {
    [silence(), Step::HangUp]
}

/// A text cut into parts of at most `bytes` bytes, never inside a character.
pub fn slices(text: &str, bytes: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let fits = |(at, c): (usize, char)| Some(at + c.len_utf8()).filter(|end| *end <= bytes);
        let end = rest.char_indices().map_while(fits).last();
        // A character that is longer than a part is a part of its own.
        let first = rest.chars().next().map_or(rest.len(), char::len_utf8);
        let (part, tail) = rest.split_at(end.unwrap_or(first));
        parts.push(part);
        rest = tail;
    }
    parts
}

/// Makes ids that no other request of this mock has, nor, but for clock tricks, any other mock:
/// agents keep call ids in their histories.
#[derive(Clone, Debug)]
pub struct Ids {
    start: u64,
    next: u64,
}

impl Ids {
    /// Ids that begin with this moment.
    pub fn now() -> Ids {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ids { start: u64::try_from(since.as_micros()).unwrap_or(u64::MAX), next: 0 }
    }

    /// Ids that are the same in every run, for tests.
    pub fn fixed() -> Ids {
        Ids { start: 0, next: 0 }
    }

    /// The next id, with `prefix` before it.
    pub fn next(&mut self, prefix: &str) -> String {
        self.next += 1;
        format!("{prefix}{:013x}{:05x}", self.start, self.next)
    }
}

/// Seconds since 1970, for the dates in answers.
pub fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The tokens that so many bytes are guessed to be.
pub fn guess_tokens(bytes: usize) -> u64 {
    (bytes as u64 / 4).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_put_together_are_the_text() {
        for text in ["", "abcdefgh", "日本語だ", "a日b本"] {
            for bytes in 1..8 {
                let slices = slices(text, bytes);
                assert_eq!(slices.concat(), text);
                assert!(slices.iter().all(|part| part.len() <= bytes.max(3)), "{slices:?}");
            }
        }
    }

    #[test]
    fn ids_differ() {
        let mut ids = Ids::now();
        assert_ne!(ids.next("call_"), ids.next("call_"));
        assert_eq!(Ids::fixed().next("x"), Ids::fixed().next("x"));
    }
}
