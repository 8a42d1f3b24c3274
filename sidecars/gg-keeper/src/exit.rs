//! How a child ended, and the `exit` file that says so.
//!
//! Owns: the record and its text, which is both the file and the payload of the last frame. The
//! keeper writes it before its socket closes; the server writes it for a child whose keeper was
//! killed, so that every later look gives the same answer. The file is complete or absent
//! (temporary file and rename). It is not synced: a machine that lost its power lost the child too,
//! and the server then says that the end is unknown.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The name of the file in the child's folder.
pub const FILE: &str = "exit";
const TEMPORARY: &str = "exit.new";

/// Who ended the child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoppedBy {
    /// It ended by itself.
    Child,
    /// A STOP from the server.
    Stop,
    /// A KILL from the server.
    Kill,
    /// No server came for longer than the lease.
    Lease,
    /// The keeper itself was told to end (SIGTERM, SIGINT).
    KeeperSignal,
    /// It never started.
    SpawnFailed,
    /// The keeper was killed or the machine went down; how the child ended is not known.
    Lost,
}

impl StoppedBy {
    const ALL: [StoppedBy; 7] = [
        StoppedBy::Child,
        StoppedBy::Stop,
        StoppedBy::Kill,
        StoppedBy::Lease,
        StoppedBy::KeeperSignal,
        StoppedBy::SpawnFailed,
        StoppedBy::Lost,
    ];

    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            StoppedBy::Child => "child",
            StoppedBy::Stop => "stop",
            StoppedBy::Kill => "kill",
            StoppedBy::Lease => "lease",
            StoppedBy::KeeperSignal => "keeper_signal",
            StoppedBy::SpawnFailed => "spawn_failed",
            StoppedBy::Lost => "lost",
        }
    }

    /// The value for this word, or None for a word that is not one of ours.
    pub fn parse(word: &str) -> Option<StoppedBy> {
        StoppedBy::ALL.into_iter().find(|stopped_by| stopped_by.as_str() == word)
    }
}

/// The record of an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code, when the child ended by itself or by a signal that it handled.
    pub code: Option<i32>,
    /// The signal that ended the child.
    pub signal: Option<i32>,
    pub stopped_by: StoppedBy,
    /// Why it did not start, or what the keeper could not do. One line.
    pub error: Option<String>,
    /// Milliseconds since the Unix epoch.
    pub ended_at_ms: i64,
    /// Where the journals end.
    pub stdin_end: u64,
    pub stdout_end: u64,
    pub stderr_end: u64,
    /// Bytes that a full `drop_newest` journal counted and did not keep.
    pub stdout_dropped: u64,
    pub stderr_dropped: u64,
}

impl Exit {
    /// A record with nothing known but who ended the child, dated now.
    pub fn new(stopped_by: StoppedBy) -> Exit {
        Exit {
            code: None,
            signal: None,
            stopped_by,
            error: None,
            ended_at_ms: now_ms(),
            stdin_end: 0,
            stdout_end: 0,
            stderr_end: 0,
            stdout_dropped: 0,
            stderr_dropped: 0,
        }
    }

    /// The text of the record: one `key=value` a line; an absent value is empty.
    pub fn to_text(&self) -> String {
        let number = |value: Option<i32>| value.map(|value| value.to_string()).unwrap_or_default();
        let error = self.error.as_deref().unwrap_or_default().replace(['\n', '\r'], " ");
        format!(
            "code={}\nsignal={}\nstopped_by={}\nerror={error}\nended_at_ms={}\nstdin_end={}\n\
             stdout_end={}\nstderr_end={}\nstdout_dropped={}\nstderr_dropped={}\n",
            number(self.code),
            number(self.signal),
            self.stopped_by.as_str(),
            self.ended_at_ms,
            self.stdin_end,
            self.stdout_end,
            self.stderr_end,
            self.stdout_dropped,
            self.stderr_dropped,
        )
    }

    /// Reads the text back. None when it is not such a record. Unknown keys are skipped, so that an
    /// older server can read what a newer keeper wrote.
    pub fn parse(text: &str) -> Option<Exit> {
        let mut exit = Exit::new(StoppedBy::Lost);
        let mut is_record = false;
        for line in text.lines() {
            let (key, value) = line.split_once('=')?;
            match key {
                "code" => exit.code = value.parse().ok(),
                "signal" => exit.signal = value.parse().ok(),
                // As it is written: one line, whatever a reader takes for the end of one.
                "error" => exit.error = (!value.is_empty()).then(|| value.replace('\r', " ")),
                "ended_at_ms" => exit.ended_at_ms = value.parse().ok()?,
                "stdin_end" => exit.stdin_end = value.parse().ok()?,
                "stdout_end" => exit.stdout_end = value.parse().ok()?,
                "stderr_end" => exit.stderr_end = value.parse().ok()?,
                "stdout_dropped" => exit.stdout_dropped = value.parse().ok()?,
                "stderr_dropped" => exit.stderr_dropped = value.parse().ok()?,
                "stopped_by" => {
                    exit.stopped_by = StoppedBy::parse(value)?;
                    is_record = true;
                }
                _ => {}
            }
        }
        is_record.then_some(exit)
    }

    /// Puts the record into `dir`, whole or not at all.
    pub fn write(&self, dir: &Path) -> io::Result<()> {
        let temporary = dir.join(TEMPORARY);
        fs::write(&temporary, self.to_text())?;
        fs::rename(temporary, dir.join(FILE))
    }

    /// The record in `dir`, or None when there is none yet.
    pub fn read(dir: &Path) -> io::Result<Option<Exit>> {
        match fs::read_to_string(dir.join(FILE)) {
            Ok(text) => Exit::parse(&text).map(Some).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, "the exit file is not a record")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::{Exit, StoppedBy};

    #[test]
    fn the_text_of_a_record_reads_back_as_the_same_record() {
        for stopped_by in StoppedBy::ALL {
            let mut exit = Exit::new(stopped_by);
            exit.code = Some(3);
            exit.error = Some("no such file: a=b".into());
            exit.stdout_end = u64::MAX;
            exit.stderr_dropped = 7;
            assert_eq!(Exit::parse(&exit.to_text()), Some(exit));
        }
    }

    #[test]
    fn an_error_of_several_lines_can_not_forge_a_field() {
        let mut exit = Exit::new(StoppedBy::SpawnFailed);
        exit.error = Some("bad\ncode=0\nstopped_by=child".into());
        let read = Exit::parse(&exit.to_text()).unwrap();
        assert_eq!(read.stopped_by, StoppedBy::SpawnFailed);
        assert_eq!(read.code, None);
    }

    #[test]
    fn text_that_is_no_record_is_refused() {
        assert_eq!(Exit::parse(""), None);
        assert_eq!(Exit::parse("code=1\n"), None);
        assert_eq!(Exit::parse("stopped_by=weather\n"), None);
        assert_eq!(Exit::parse("garbage"), None);
    }
}
