//! A client that reads one stream over any number of deaths of the server.
//!
//! Owns: what it has seen, and the open stream. It goes on with `Last-Event-ID`, as a browser does,
//! and reads what was on its way when the server died, because what a client has read must be in
//! the log afterwards.

use super::scene::{SOON, Scene};
use gooselake_harness::stream::{Frame, Record, Stream};
use std::time::Duration;

pub(super) struct Follower {
    path: String,
    /// The whole log counts by row, a session's by seq.
    is_whole_log: bool,
    stream: Option<Stream>,
    pub(super) seen: Vec<Record>,
}

impl Follower {
    pub(super) fn of_session(session: &str) -> Follower {
        Follower::new(format!("/v1/sessions/{session}/events"), false)
    }

    pub(super) fn of_team(team: &str) -> Follower {
        Follower::new(format!("/v1/teams/{team}/events"), false)
    }

    pub(super) fn of_everything() -> Follower {
        Follower::new("/v1/events".to_owned(), true)
    }

    fn new(path: String, is_whole_log: bool) -> Follower {
        Follower { path, is_whole_log, stream: None, seen: Vec::new() }
    }

    /// Opens the stream behind the last event that was seen.
    pub(super) fn attach(&mut self, scene: &Scene) {
        let last = self.seen.last().map_or(0, |record| self.place(record)).to_string();
        let path = format!("{}/stream", self.path);
        self.stream = Some(scene.client().stream(&path, &[("Last-Event-ID", &last)]));
    }

    /// Reads up to `count` events, fewer when none comes for `quiet`.
    pub(super) fn read(&mut self, count: usize, quiet: Duration) {
        for _ in 0..count {
            let Some(record) = self.next(quiet) else { return };
            self.seen.push(record);
        }
    }

    /// Reads up to the first event that is wanted, that one included; what was seen before counts.
    pub(super) fn until(&mut self, what: &str, wanted: impl Fn(&Record) -> bool) {
        if self.seen.iter().any(&wanted) {
            return;
        }
        loop {
            let Some(record) = self.next(SOON) else {
                let kinds: Vec<&str> = self.seen.iter().map(|seen| seen.kind.as_str()).collect();
                panic!("{}: awaited {what} in vain; seen {kinds:?}", self.path);
            };
            let is_wanted = wanted(&record);
            self.seen.push(record);
            if is_wanted {
                return;
            }
        }
    }

    /// Reads what the server that has died sent before, and lets the stream go.
    pub(super) fn drain(&mut self) {
        if let Some(mut stream) = self.stream.take() {
            self.seen.extend(stream.rest(SOON).iter().filter_map(event));
        }
    }

    /// What it saw over all deaths is the log from its first event on: no gap, no double, no change.
    pub(super) fn prove(&self, scene: &Scene) {
        let log = scene.pages(&self.path);
        assert!(self.seen.len() <= log.len(), "{}: more was seen than is there", self.path);
        for (seen, logged) in self.seen.iter().zip(&log) {
            assert_eq!(seen.json, logged.json, "{}: a stream is the log", self.path);
        }
    }

    fn next(&mut self, deadline: Duration) -> Option<Record> {
        let stream = self.stream.as_mut().expect("it is attached");
        loop {
            let frame = stream.next(deadline)?;
            if let Some(record) = event(&frame) {
                return Some(record);
            }
        }
    }

    fn place(&self, record: &Record) -> i64 {
        if self.is_whole_log { record.row_id } else { record.seq }
    }
}

/// Control frames have no id.
fn event(frame: &Frame) -> Option<Record> {
    frame.id.as_ref().map(|_| frame.record())
}
