//! A copy of the database, made while others write, and held against what it was made from.
//!
//! Runs on the caller's thread, with a connection of its own. The copy is of one instant: pages and counts are read in
//! one read transaction, which lasts as long as the copying does (about a quarter of a second for 100 MB); the log of a
//! server that writes meanwhile grows by what it writes. It deliberately knows nothing of the files' places and modes.

use super::{open_reader, verify};
use crate::error::{Code, Error, Result};
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::Path;
use std::time::{Duration, Instant};

/// How many rows each table of the copy has.
pub type Counts = Vec<(String, i64)>;

/// How long a source or a copy that somebody else holds is waited for.
const BUSY_WAIT: Duration = Duration::from_secs(30);

/// Copies the database to `to`, an empty file or none, and checks the copy. Errors: it can not be read or written, or
/// the copy is not what the source was; then `to` is worth nothing.
pub fn copy(from: &Path, to: &Path) -> Result<Counts> {
    let source = open_reader(from)?;
    source.execute_batch("BEGIN")?;
    // The first read takes the instant; the copy is of the same one.
    let counts = verify::row_counts(&source)?;
    {
        let mut target = Connection::open(to)?;
        copy_pages(&source, &mut target)?;
        // The copy is one file: nothing beside it is part of it.
        target.execute_batch("PRAGMA journal_mode = DELETE; PRAGMA synchronous = FULL;")?;
    }
    drop(source);
    check(to, Some(&counts))?;
    Ok(counts)
}

/// Whether a file is a whole database of a version that this program knows; gives its rows. `expected` is what it must
/// have.
pub fn check(path: &Path, expected: Option<&Counts>) -> Result<Counts> {
    let told = |what: String| Err(Error::internal(format!("{}: {what}", path.display())));
    let copy = open_reader(path)?;
    let version = verify::version(&copy)?;
    if version == 0 || version > super::SCHEMA_VERSION {
        return told(format!(
            "schema version {version}; this program knows 1 to {}",
            super::SCHEMA_VERSION
        ));
    }
    let mut wrong = verify::integrity(&copy, false)?;
    wrong.extend(verify::references(&copy)?);
    if let Some(first) = wrong.first() {
        return told(format!("{first} ({} faults)", wrong.len()));
    }
    let counts = verify::row_counts(&copy)?;
    if expected.is_some_and(|expected| *expected != counts) {
        return told("the copy does not have the rows of its source".to_owned());
    }
    Ok(counts)
}

/// Moves all of its log into a database that nobody has open: it is one file then. One that is damaged stays as it is.
/// Errors: somebody reads it, or there is no room.
pub fn settle(path: &Path) -> Result<()> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.busy_timeout(BUSY_WAIT)?;
    let settled = database
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, bool>(0))
        .and_then(|is_busy| database.close().map_err(|(_open, error)| error).map(|()| is_busy));
    match settled {
        Ok(false) => Ok(()),
        Ok(true) => Err(Error::new(Code::Conflict, format!("somebody reads {}", path.display()))
            .hint("end the programs that have it open")),
        Err(error) if is_damage(&error) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    let code = error.sqlite_error_code();
    matches!(code, Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt))
}

fn copy_pages(source: &Connection, target: &mut Connection) -> Result<()> {
    let backup = Backup::new(source, target)?;
    let deadline = Instant::now() + BUSY_WAIT;
    loop {
        // All pages in one step: the source holds its instant, so nothing is gained by pauses.
        match backup.step(-1)? {
            StepResult::Done => return Ok(()),
            _ if Instant::now() < deadline => {}
            _ => return Err(Error::internal("the database is held by another program")),
        }
    }
}
