//! A client that reads the whole log as a stream, over deaths of the server and over breaks of its own.
//!
//! Owns: one thread, and what it has seen since the last look. The thread hangs up by itself after a random number of
//! events, so that streams are resumed at any place also while no server dies. It ends when there will be no server.

use crate::line::Line;
use gooselake_harness::rng::Rng;
use gooselake_harness::stream::Record;
use gooselake_harness::thread::{self, Thread};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// One wait for the next event.
const QUIET: Duration = Duration::from_secs(5);

/// How long the stream may need to arrive where the log is.
const CATCH_UP: Duration = Duration::from_secs(60);

/// A stream is left after at most so many events.
const EVENTS_MAX: u64 = 4000;

pub(crate) struct Watch {
    seen: Arc<Seen>,
    thread: Thread<()>,
}

#[derive(Default)]
struct Seen {
    records: Mutex<Vec<Record>>,
    more: Condvar,
}

impl Watch {
    pub(crate) fn start(line: Arc<Line>, mut rng: Rng) -> Watch {
        let seen = Arc::new(Seen::default());
        let filled = Arc::clone(&seen);
        let body = move || follow(&line, &mut rng, &filled);
        let thread = thread::spawn("watch", body).expect("a thread");
        Watch { seen, thread }
    }

    /// All that was seen since the last look, once the event of this row is among it.
    pub(crate) fn take_up_to(&self, row_id: i64) -> Vec<Record> {
        let records = self.seen.records.lock().unwrap_or_else(PoisonError::into_inner);
        let is_behind =
            |records: &mut Vec<Record>| records.last().is_none_or(|record| record.row_id < row_id);
        let waited = self.seen.more.wait_timeout_while(records, CATCH_UP, is_behind);
        let (mut records, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(!timeout.timed_out(), "awaited row {row_id} in the stream for {CATCH_UP:?}");
        let end = records.partition_point(|record| record.row_id <= row_id);
        records.drain(..end).collect()
    }

    /// Waits for the thread; the line must be over.
    pub(crate) fn join(self) {
        self.thread.join();
    }
}

fn follow(line: &Line, rng: &mut Rng, seen: &Seen) {
    let mut last = 0;
    while let Some((mut stream, deaths)) = line.stream("/v1/events/stream", &last.to_string()) {
        let count = 1 + rng.below(EVENTS_MAX);
        for _ in 0..count {
            let Some(frame) = stream.next(QUIET) else {
                // Nothing has happened for a while.
                let Some(end) = stream.end() else { continue };
                assert!(line.has_died(deaths), "the server lives, but of its stream: {end}");
                break;
            };
            // Control frames have no id.
            if frame.id.is_some() {
                let record = frame.record();
                assert!(record.row_id > last, "row {} came behind {last}", record.row_id);
                last = record.row_id;
                seen.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
                seen.more.notify_all();
            }
        }
    }
}
