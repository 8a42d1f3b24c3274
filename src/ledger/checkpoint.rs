//! Checkpoints: when the pages of the write-ahead log go into the database, and who moves them.
//!
//! Owns: the thread `checkpointer` with a connection of its own, and the rule of when it works. A log that is long is
//! moved by that thread while the writer goes on: to move 16 MiB takes longer than a hundred commits. But a log begins
//! again at its start only when all of it is moved and nobody writes, which under load is never: so the writer moves
//! the last pages, which have come meanwhile and are few, between two commits. When pages come faster than they can be
//! moved the writer waits for the thread at a bound. Promises: the log is no longer than that bound, but for what a
//! reader of an old snapshot keeps from being moved, or a disk that takes nothing. It deliberately knows no event.

use super::Synchronous;
use super::schema;
use crate::error::{Error, Result};
use crate::limits;
use crate::thread::{self, Thread};
use crate::watchdog;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rusqlite::Connection;
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What the writer knows of the log. Dropping it ends the thread, once what it moves now is moved.
pub(super) struct Checkpoints {
    /// Pages in the log, as the last commit of the writer left it.
    pages: Arc<AtomicUsize>,
    /// How many there are to be before anything is moved.
    due: usize,
    is_moving: bool,
    ask: Sender<()>,
    moved: Receiver<Option<usize>>,
    _thread: Thread,
}

impl Checkpoints {
    /// Starts the thread, and counts from now on what `writer` adds to the log, which moves nothing by itself any more.
    /// Errors: the database can not be opened once more, the system has no thread to give.
    pub(super) fn start(
        writer: &mut Connection,
        path: &Path,
        synchronous: Synchronous,
    ) -> Result<Checkpoints> {
        let mover = Connection::open(path)?;
        schema::prepare_mover(&mover, synchronous)?;
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut Wal, in_log| {
            counted.store(usize::try_from(in_log).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (ask, asked) = crossbeam_channel::bounded(1);
        let (tell, moved) = crossbeam_channel::bounded(1);
        let thread = thread::spawn("checkpointer", move || serve(&mover, &asked, &tell)).map_err(
            |error| Error::internal("the checkpointer can not be started").source(error),
        )?;
        let due = limits::WAL_PAGES;
        Ok(Checkpoints { pages, due, is_moving: false, ask, moved, _thread: thread })
    }

    /// Does what is to be done now. For the writer, between two transactions, when nobody waits for the last one.
    pub(super) fn step(&mut self, writer: &Connection) {
        let pages = self.pages.load(Ordering::Relaxed);
        if !self.is_moving {
            if pages >= self.due {
                self.begin(writer, pages);
            }
            return;
        }
        let told = match self.moved.try_recv() {
            Err(TryRecvError::Empty) if pages < limits::WAL_PAGES_MAX => return,
            Err(TryRecvError::Empty) => self.moved.recv().ok().flatten(),
            told => told.ok().flatten(),
        };
        self.is_moving = false;
        match told {
            // What is left may be moved once more comes to it: until then the next try would end as this one did.
            None => self.due = pages + limits::WAL_PAGES,
            Some(moved) if pages <= moved + limits::WAL_PAGES_LAST => self.end(writer, pages),
            Some(_) if pages >= limits::WAL_PAGES_MAX => self.end(writer, pages),
            Some(_) => self.begin(writer, pages),
        }
    }

    /// Has the pages moved by the thread; by the writer if there is no thread any more.
    fn begin(&mut self, writer: &Connection, pages: usize) {
        self.is_moving = self.ask.try_send(()).is_ok();
        if !self.is_moving {
            self.end(writer, pages);
        }
    }

    /// Moves what is left, so that the next transaction finds an empty log. A reader of an old snapshot may need a part
    /// of it: then the log goes on.
    fn end(&mut self, writer: &Connection, pages: usize) {
        let is_empty = move_pages(writer).is_some_and(|(pages, moved)| moved >= pages);
        self.due = if is_empty { limits::WAL_PAGES } else { pages + limits::WAL_PAGES };
    }
}

fn serve(mover: &Connection, asked: &Receiver<()>, tell: &Sender<Option<usize>>) {
    watchdog::watch();
    while watchdog::rest(|| asked.recv()).is_ok() {
        let moved = move_pages(mover).map(|(_, moved)| moved);
        // There is room: the writer has taken the last word before it asked again. Or it is gone.
        if tell.try_send(moved).is_err() {
            return;
        }
    }
}

/// Moves what no reader needs in the log, and tells how many pages the log has and how many of them are moved; None
/// when it failed, which the log of the program tells.
fn move_pages(connection: &Connection) -> Option<(usize, usize)> {
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
        Ok((pages, moved)) => {
            Some((usize::try_from(pages).unwrap_or(0), usize::try_from(moved).unwrap_or(0)))
        }
        Err(error) => {
            log::warn!("a checkpoint failed, it is tried again with the next pages: {error}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::ledger::event::NewEvent;
    use crate::ledger::{Ledger, Synchronous, open_reader};
    use crate::limits;
    use crate::model::event::EventKind;
    use gooselake_harness::temp::TempDir;

    const PAGE_BYTES: usize = 4096;
    /// A page in the log has a head of its own.
    const LOGGED_BYTES: u64 = 4096 + 24;
    const PAGES_OF_EVENT: usize = 100;

    fn write_pages(ledger: &Ledger, pages: usize) {
        let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(PAGES_OF_EVENT * PAGE_BYTES));
        for _ in 0..pages.div_ceil(PAGES_OF_EVENT) {
            let payload = payload.clone();
            let event = move |tx: &mut crate::ledger::Tx<'_>| {
                tx.append(NewEvent::system(EventKind::RuntimeStarted, payload.as_str()))
            };
            ledger.write(event).unwrap();
        }
    }

    fn log_pages(ledger: &Ledger) -> usize {
        usize::try_from(ledger.file_bytes().1 / LOGGED_BYTES).unwrap()
    }

    #[test]
    fn the_log_begins_again_although_the_writer_never_rests() {
        let dir = TempDir::new("checkpoint");
        let path = dir.path().join("log.sqlite3");
        let (ledger, writer) = Ledger::open(&path, Synchronous::Normal).unwrap();
        let mut longest = 0;
        for _ in 0..4 {
            write_pages(&ledger, limits::WAL_PAGES_MAX / 2);
            longest = longest.max(log_pages(&ledger));
        }
        let bound = limits::WAL_PAGES_MAX + 2 * PAGES_OF_EVENT;
        assert!(longest >= limits::WAL_PAGES && longest <= bound, "{longest} pages");
        drop(ledger);
        assert!(writer.join());
        assert!(!path.with_extension("sqlite3-wal").exists(), "the end leaves a log");
    }

    #[test]
    fn a_reader_of_an_old_snapshot_stops_nobody_and_what_it_kept_goes_after_it() {
        let dir = TempDir::new("checkpoint");
        let path = dir.path().join("log.sqlite3");
        let (ledger, writer) = Ledger::open(&path, Synchronous::Normal).unwrap();
        write_pages(&ledger, PAGES_OF_EVENT);
        let reader = open_reader(&path).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM event").unwrap();
        write_pages(&ledger, limits::WAL_PAGES_MAX + 2 * limits::WAL_PAGES);
        let kept = log_pages(&ledger);
        assert!(kept > limits::WAL_PAGES_MAX, "{kept} pages: the snapshot kept nothing");
        reader.execute_batch("COMMIT").unwrap();
        // As many as it takes until the next try, and until that one is over.
        write_pages(&ledger, limits::WAL_PAGES_MAX);
        write_pages(&ledger, 2 * PAGES_OF_EVENT);
        let left = log_pages(&ledger);
        assert!(left <= limits::WAL_PAGES_MAX, "{left} pages of {kept}");
        drop(ledger);
        assert!(writer.join());
    }
}
