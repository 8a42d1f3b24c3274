//! One stream of a process on its way from the keeper to the log file and the log of events.
//!
//! Owns: how far the stream is in the file, how far it was told, and the end of what was not told yet, for the text of
//! the next event. Memory is bounded by [`limits::PROCESS_TEXT_BYTES`], whatever comes. A character is told whole: the
//! offset that is committed never lies inside one, so the next server tells it right too.
//!
//! When the file can not be written, the chunk is kept and nothing more is taken: the keeper's journal holds the rest.
//! After a time the stream is given up, what is not in the file counts as dropped, and the record says why. It says so
//! too when the file is shorter than what was committed: the power was lost, since the files are not synced.

use super::log::{Log, open_character};
use crate::keeper::Stream;
use crate::limits;
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long a log that can not be written is tried.
const GIVE_UP: Duration = Duration::from_secs(60);

pub(super) struct Output {
    stream: Stream,
    path: PathBuf,
    /// The cap of the log: nothing comes behind it.
    bytes_max: u64,
    log: Option<Log>,
    /// Up to here it is in the file.
    written: u64,
    /// Up to here it is committed.
    told: u64,
    /// The end of what lies between the two.
    text: Vec<u8>,
    stuck: Option<Stuck>,
    /// Why the stream was given up, and what was not written since.
    failure: Option<(String, u64)>,
    /// Where the file ended when it was opened, if that is less than what was committed.
    ends_early: Option<u64>,
}

struct Stuck {
    offset: u64,
    bytes: Vec<u8>,
    since: Instant,
}

/// What the next commit says of a stream.
pub(super) struct Told {
    stream: Stream,
    start: u64,
    pub(super) end: u64,
    text: String,
    text_bytes: u64,
    is_truncated: bool,
}

impl Output {
    pub(super) fn new(stream: Stream, path: PathBuf, told: i64, bytes_max: i64) -> Output {
        let [told, bytes_max] = [told, bytes_max].map(|number| u64::try_from(number).unwrap_or(0));
        // A log is there from the start, also for who only looks at its path.
        let log = Log::open(&path).ok();
        let length = log.as_ref().and_then(|log| log.length().ok());
        Output {
            stream,
            path,
            bytes_max,
            log,
            written: told,
            told,
            text: Vec::new(),
            stuck: None,
            failure: None,
            ends_early: length.filter(|length| *length < told),
        }
    }

    /// Up to where it is committed.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// Bytes that are in the file and not told.
    pub(super) fn untold(&self) -> u64 {
        let held = open_character(&self.text) as u64;
        (self.written - self.told).saturating_sub(held)
    }

    /// Whether it waits for the file to become writable.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.is_some()
    }

    /// Bytes that are not in the file and never will be.
    pub(super) fn given_up(&self) -> u64 {
        self.failure.as_ref().map_or(0, |(_, bytes)| *bytes)
    }

    /// Why the log has less than was written.
    pub(super) fn error(&self) -> Option<String> {
        let name = self.stream.as_str();
        let early = |end| format!("the log of {name} was lost from byte {end} on");
        let given_up = self.failure.as_ref().map(|(error, _)| error.clone());
        given_up.or_else(|| self.ends_early.map(early))
    }

    /// Takes a chunk into the file.
    pub(super) fn take(&mut self, offset: u64, bytes: Vec<u8>, now: Instant) {
        if let Some((_, given_up)) = &mut self.failure {
            *given_up += bytes.len() as u64;
            return;
        }
        match self.write(offset, &bytes) {
            Ok(()) => self.wrote(offset, &bytes),
            Err(error) => {
                log::warn!("{} can not be written: {error}", self.path.display());
                self.stuck = Some(Stuck { offset, bytes, since: now });
            }
        }
    }

    /// Tries again what the file did not take.
    pub(super) fn retry(&mut self, now: Instant) {
        let Some(stuck) = self.stuck.take() else { return };
        match self.write(stuck.offset, &stuck.bytes) {
            Ok(()) => self.wrote(stuck.offset, &stuck.bytes),
            Err(error) if now.duration_since(stuck.since) >= GIVE_UP => {
                let name = self.stream.as_str();
                let error = format!("the log of {name} can not be written: {error}");
                self.failure = Some((error, stuck.bytes.len() as u64));
            }
            Err(_) => self.stuck = Some(stuck),
        }
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.log.is_none() {
            self.log = Some(Log::open(&self.path)?);
        }
        match &self.log {
            Some(log) => log.write(offset, bytes),
            None => Ok(()),
        }
    }

    fn wrote(&mut self, offset: u64, bytes: &[u8]) {
        self.written = offset + bytes.len() as u64;
        self.text.extend_from_slice(bytes);
        let excess = self.text.len().saturating_sub(limits::PROCESS_TEXT_BYTES);
        self.text.drain(..excess);
    }

    /// What a commit of now would say. Nothing is changed by it.
    pub(super) fn tell(&self, is_last: bool) -> Told {
        let held = if is_last { 0 } else { open_character(&self.text) };
        let end = self.written.saturating_sub(held as u64).max(self.told);
        let mut text = &self.text[..self.text.len() - held];
        // It may begin in the middle of a character where the start was cut off.
        if (text.len() as u64) < end - self.told {
            let inside = text.iter().take(3).take_while(|byte| **byte & 0xc0 == 0x80).count();
            text = &text[inside..];
        }
        Told {
            stream: self.stream,
            start: self.told,
            end,
            text: String::from_utf8_lossy(text).into_owned(),
            text_bytes: text.len() as u64,
            is_truncated: self.failure.is_some() || end >= self.bytes_max,
        }
    }

    /// It is committed up to here.
    pub(super) fn was_told(&mut self, end: i64) {
        self.told = u64::try_from(end).unwrap_or(0);
        let held = usize::try_from(self.written - self.told).unwrap_or(0).min(self.text.len());
        self.text.drain(..self.text.len() - held);
        if self.text.is_empty() {
            // A quiet process holds no buffer.
            self.text = Vec::new();
        }
    }
}

impl Told {
    /// The payload of the event; None when there is nothing to tell.
    pub(super) fn payload(&self, process_id: &str) -> Option<String> {
        let bytes = self.end - self.start;
        if bytes == 0 {
            return None;
        }
        let payload = json!({
            "process_id": process_id,
            "stream": self.stream.as_str(),
            "offset": self.start,
            "bytes_seen": bytes,
            "bytes_written": bytes,
            "truncated": self.is_truncated,
            "text": self.text,
            "text_left_out_bytes": bytes - self.text_bytes,
        });
        Some(payload.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id;

    #[test]
    fn a_character_is_told_whole_and_the_text_keeps_the_end() {
        let path = std::env::temp_dir().join(id::new("gooselake-output"));
        let mut output = Output::new(Stream::Stdout, path.clone(), 0, 100_000);
        let now = Instant::now();
        let word = "né".as_bytes();
        output.take(0, word[..2].to_vec(), now);
        assert_eq!(output.untold(), 1);
        let told = output.tell(false);
        assert_eq!((told.end, told.text.as_str()), (1, "n"));
        output.was_told(1);
        output.take(2, word[2..].to_vec(), now);
        let told = output.tell(false);
        assert_eq!((told.start, told.end, told.text.as_str()), (1, 3, "é"));
        output.was_told(3);
        let flood = vec![b'x'; limits::PROCESS_TEXT_BYTES + 10];
        output.take(3, flood.clone(), now);
        let told = output.tell(true);
        assert_eq!(told.text.len(), limits::PROCESS_TEXT_BYTES);
        assert_eq!(told.end, 3 + flood.len() as u64);
        let payload: serde_json::Value =
            serde_json::from_str(&told.payload("proc_1").unwrap()).unwrap();
        assert_eq!(payload["text_left_out_bytes"], 10);
        assert_eq!(payload["truncated"], false);
        assert_eq!(std::fs::read(&path).unwrap(), [word, &flood].concat());
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_log_that_can_not_be_written_is_tried_again_and_given_up_in_the_end() {
        let in_the_way = std::env::temp_dir().join(id::new("gooselake-output"));
        std::fs::write(&in_the_way, "").unwrap();
        let path = in_the_way.join("log");
        let begun = Instant::now();
        let mut output = Output::new(Stream::Stdout, path.clone(), 0, 100);
        output.take(0, b"one".to_vec(), begun);
        output.retry(begun + Duration::from_secs(1));
        assert!(output.is_stuck());
        // The disk can be written again: nothing is lost.
        std::fs::remove_file(&in_the_way).unwrap();
        output.retry(begun + Duration::from_secs(2));
        assert!(!output.is_stuck());
        assert_eq!((output.untold(), std::fs::read(&path).unwrap()), (3, b"one".to_vec()));
        std::fs::remove_dir_all(&in_the_way).unwrap();

        std::fs::write(&in_the_way, "").unwrap();
        let mut output = Output::new(Stream::Stdout, path, 0, 100);
        output.take(0, b"two".to_vec(), begun);
        output.retry(begun + GIVE_UP);
        assert!(!output.is_stuck());
        output.take(3, b"more".to_vec(), begun + GIVE_UP);
        assert_eq!((output.given_up(), output.untold()), (7, 0));
        assert!(output.error().unwrap().contains("stdout"));
        std::fs::remove_file(&in_the_way).unwrap();
    }

    #[test]
    fn bytes_that_are_no_text_are_told_as_they_come() {
        let path = std::env::temp_dir().join(id::new("gooselake-output"));
        let mut output = Output::new(Stream::Stderr, path.clone(), 0, 100_000);
        output.take(0, vec![0xff, b'a', 0xe2, 0x82], Instant::now());
        assert_eq!(output.tell(false).text, "\u{fffd}a");
        // At the end nothing is held back.
        let told = output.tell(true);
        assert_eq!((told.end, told.text.as_str()), (4, "\u{fffd}a\u{fffd}"));
        std::fs::remove_file(path).unwrap();
    }
}
