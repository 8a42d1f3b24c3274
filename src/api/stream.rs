//! A stream: a cursor that moves over the log, on its connection's own thread.
//!
//! It takes frames from the tail while it keeps up and from the database in pages while it does not; at the head it
//! waits for its scope's next commit or for the next heartbeat. There is no queue: a slow reader costs itself time and
//! nobody memory. What it sends after a reconnect with the last id is what it would have sent without the break.

use super::reader::{Place, Reads};
use super::{Api, Call};
use crate::error::Result;
use crate::http::{Answer, StreamHead, StreamWriter};
use crate::ledger::event::{self, Frame, Page};
use crate::ledger::tail::{Look, Woken};
use crate::ledger::{Ledger, Watch};
use crate::limits;
use crate::model::event::EventFilter;
use serde_json::json;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where a client wants to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cursor {
    Start,
    After(i64),
}

impl Cursor {
    /// The last position that the client has.
    fn position(self) -> i64 {
        match self {
            Cursor::Start => 0,
            Cursor::After(after) => after,
        }
    }
}

/// What a client asked for, checked.
pub(super) struct StreamPlan {
    /// None = the whole log.
    pub scope_key: Option<i64>,
    pub cursor: Cursor,
    pub head: i64,
    /// A row that was published before the head was read: no event up to it is behind the head.
    pub published: i64,
    pub oldest: i64,
    /// The last position that was dropped.
    pub dropped_to: i64,
    pub filter: EventFilter,
    /// The stream ends behind the first event that this takes; None = by nothing of that sort.
    pub until: Option<EventFilter>,
    pub limit: Option<usize>,
    pub has_control: bool,
    pub is_ndjson: bool,
    pub heartbeat: Duration,
}

/// Bytes that are collected for one write.
const WRITE_BYTES: usize = 128 * 1024;

impl StreamPlan {
    pub(super) fn answer(self, api: &Api, call: &Call) -> Result<Answer> {
        let reads = self.scope_key.map_or(Reads::WholeLog, Reads::Scope);
        let place = Place::take(api, call, reads, self.cursor.position())?;
        let media_type = if self.is_ndjson { "application/x-ndjson" } else { "text/event-stream" };
        let head = StreamHead {
            status: 200,
            headers: vec![
                ("Content-Type", media_type.to_owned()),
                ("Cache-Control", "no-store".to_owned()),
                ("X-Accel-Buffering", "no".to_owned()),
            ],
        };
        let ledger = api.ledger.clone();
        let run = move |writer: &mut StreamWriter| {
            // An error is a client that is gone; it will come back with its cursor.
            if let Err(error) = (Stream::new(self, &ledger, place)).run(writer) {
                log::debug!("a stream ended: {error}");
            }
        };
        Ok(Answer::Stream(head, Box::new(run)))
    }
}

struct Stream<'a> {
    plan: StreamPlan,
    ledger: &'a Ledger,
    place: Place,
    watch: Watch,
    /// The position of the last event that was passed, in the stream's own numbers.
    cursor: i64,
    /// The row up to which the log was looked at; None while the database is read.
    row_id: Option<i64>,
    out: Vec<u8>,
    sent: usize,
    is_over: bool,
}

impl<'a> Stream<'a> {
    fn new(plan: StreamPlan, ledger: &'a Ledger, place: Place) -> Stream<'a> {
        let watch = ledger.tail().watch(plan.scope_key);
        let cursor = plan.cursor.position();
        // In the whole log the cursor is a row id, so the ring may be looked at from the first. A
        // client that has all there is needs nothing of the database either.
        let row_id = match plan.scope_key {
            None => Some(cursor),
            Some(_) => (cursor == plan.head).then_some(plan.published),
        };
        let is_over = plan.limit == Some(0);
        Stream { plan, ledger, place, watch, cursor, row_id, out: Vec::new(), sent: 0, is_over }
    }

    fn run(&mut self, writer: &mut StreamWriter) -> io::Result<()> {
        let resume = match self.plan.cursor {
            Cursor::Start => "start",
            Cursor::After(after)
                if after + 1 < self.plan.oldest || after < self.plan.dropped_to =>
            {
                "pruned"
            }
            Cursor::After(_) => "ok",
        };
        if !self.plan.is_ndjson {
            self.out.extend_from_slice(b"retry: 1000\n\n");
        }
        let opened = json!({
            "head": self.plan.head, "oldest": self.plan.oldest, "resume": resume,
        });
        self.control("stream.opened", &opened.to_string());
        let mut is_caught_up = false;
        let mut frames = Vec::new();
        while !self.is_over {
            let looked_to = self.next_frames(&mut frames).map_err(io::Error::other)?;
            let is_at_head = frames.is_empty() && self.row_id.is_some();
            for frame in frames.drain(..) {
                self.pass(&frame, writer)?;
            }
            // What the filter left out need not be read again.
            self.cursor = self.cursor.max(looked_to.unwrap_or(0));
            // While the database is read nothing else asks this.
            if self.row_id.is_none() && !(self.goes_on() && self.beat(writer)?) {
                break;
            }
            if !is_at_head || self.is_over {
                continue;
            }
            if !is_caught_up {
                is_caught_up = true;
                let head = self.cursor.max(self.plan.head);
                self.control("stream.caught_up", &json!({"head": head}).to_string());
            }
            self.flush(writer)?;
            if !self.wait(writer)? {
                break;
            }
        }
        self.flush(writer)
    }

    /// The next frames behind the cursor. None of them and a row means the head is reached. Returns up to which
    /// position the database was looked at for what a filter takes, if it was.
    fn next_frames(&mut self, frames: &mut Vec<Arc<Frame>>) -> Result<Option<i64>> {
        if let Some(row_id) = self.row_id {
            match self.watch.look(row_id, limits::PAGE_EVENTS, frames) {
                Look::UpTo(row_id) => {
                    self.row_id = Some(row_id);
                    return Ok(None);
                }
                Look::Behind => self.row_id = None,
            }
        }
        // Whatever is committed up to here is seen by a read that begins now.
        let head_row_id = self.ledger.tail().newest_row_id();
        let filter = &self.plan.filter;
        let mut page = Page {
            scope_key: self.plan.scope_key,
            after: Some(self.cursor),
            before: None,
            descending: false,
            events_max: limits::PAGE_EVENTS,
            bytes_max: limits::PAGE_BYTES,
        };
        let (read, head) = self.ledger.read(|db| {
            if filter.is_all() {
                return Ok((event::page(db, &page, filter)?, None));
            }
            // The head is read before the page, which sees at least as much.
            let head = event::newest(db, page.scope_key)?;
            page = page.part(self.cursor, head + 1);
            Ok((event::page(db, &page, filter)?, Some(head)))
        })?;
        *frames = read;
        let bytes: usize = frames.iter().map(|frame| frame.json.len()).sum();
        if frames.len() >= limits::PAGE_EVENTS || bytes >= limits::PAGE_BYTES {
            return Ok(None);
        }
        let looked_to = page.before.map(|before| before - 1);
        if looked_to >= head {
            let last_row_id = frames.last().map_or(0, |frame| frame.row_id);
            self.row_id = Some(head_row_id.max(last_row_id));
        }
        Ok(looked_to)
    }

    fn pass(&mut self, frame: &Frame, writer: &mut StreamWriter) -> io::Result<()> {
        let position = if self.plan.scope_key.is_some() { frame.seq } else { frame.row_id };
        // A page and the ring may overlap by the events that were committed in between.
        if self.is_over || position <= self.cursor {
            return Ok(());
        }
        self.cursor = position;
        if !frame.is_taken_by(&self.plan.filter) {
            return Ok(());
        }
        if !self.plan.is_ndjson {
            write!(self.out, "id: {position}\nevent: {}\ndata: ", frame.kind)?;
        }
        if frame.json.len() > WRITE_BYTES {
            // It is large enough for a write of its own, and many streams may have it at once.
            self.write_out(writer)?;
            writer.write_all(frame.json.as_bytes())?;
        } else {
            self.out.extend_from_slice(frame.json.as_bytes());
        }
        self.out.extend_from_slice(if self.plan.is_ndjson { b"\n" } else { b"\n\n" });
        self.sent += 1;
        let is_last = self.plan.until.as_ref().is_some_and(|until| frame.is_taken_by(until));
        self.is_over = is_last || self.plan.limit == Some(self.sent);
        if self.out.len() >= WRITE_BYTES { self.flush(writer) } else { Ok(()) }
    }

    fn control(&mut self, event: &str, data: &str) {
        // Lines of NDJSON are event records and nothing else.
        if self.plan.has_control && !self.plan.is_ndjson {
            self.out.extend_from_slice(format!("event: {event}\ndata: {data}\n\n").as_bytes());
        }
    }

    fn tell_closing(&mut self) {
        self.control("stream.closing", r#"{"reason":"shutdown"}"#);
    }

    fn flush(&mut self, writer: &mut StreamWriter) -> io::Result<()> {
        self.write_out(writer)?;
        self.place.pass(self.cursor);
        Ok(())
    }

    fn write_out(&mut self, writer: &mut StreamWriter) -> io::Result<()> {
        if !self.out.is_empty() {
            writer.write_all(&self.out)?;
            self.out.clear();
        }
        Ok(())
    }

    /// Waits for news at the head. False when the stream is to end.
    fn wait(&mut self, writer: &mut StreamWriter) -> io::Result<bool> {
        let row_id = self.row_id.unwrap_or(0);
        let beat_at = writer.active_at() + self.plan.heartbeat;
        let left = || beat_at.saturating_duration_since(Instant::now());
        // First a short wait with the buffer in hand; a stream that is quiet for longer gives it back.
        let mut woken = self.watch.wait(row_id, left().min(KEEP_BUFFER));
        if woken == Woken::TimedOut {
            self.out = Vec::new();
            woken = self.watch.wait(row_id, left());
        }
        if woken == Woken::Closing {
            self.tell_closing();
            return Ok(false);
        }
        // Also when there is news all the time: it may be nothing that this client wants.
        self.beat(writer)
    }

    /// Whether the server goes on; if not, that is told.
    fn goes_on(&mut self) -> bool {
        let is_closing = self.ledger.tail().is_closing();
        if is_closing {
            self.tell_closing();
        }
        !is_closing
    }

    /// Lets the client hear something when it is time. False when it is gone.
    fn beat(&mut self, writer: &mut StreamWriter) -> io::Result<bool> {
        if Instant::now() < writer.active_at() + self.plan.heartbeat {
            return Ok(true);
        }
        if !self.plan.is_ndjson {
            self.out.extend_from_slice(b":\n\n");
        }
        self.write_out(writer)?;
        Ok(!writer.is_client_gone())
    }
}

/// How long a quiet stream holds its write buffer.
const KEEP_BUFFER: Duration = Duration::from_secs(1);
