//! Checkpoints: when the pages of the write-ahead log go into the database, and who moves them.
//!
//! Owns: the thread `checkpointer` with a connection of its own, and the rule of when it works. A log that is long is
//! moved by that thread while the writer goes on: to move 16 MiB takes longer than a hundred commits. But a log begins
//! again at its start only when all of it is moved and nobody writes, which under load is never: so the writer moves
//! the last pages, which have come meanwhile and are few, between two commits. When pages come faster than they can be
//! moved the writer waits for the thread at a bound. Promises: the log is no longer than that bound and the commit that
//! reaches it, but for what a reader of an old snapshot keeps from being moved, or a disk that takes nothing. It
//! deliberately knows no event.

use super::schema;
use crate::error::{Error, Result};
use crate::limits;
use crate::thread::{self, Thread};
use crate::watchdog;
use crossbeam_channel::{Receiver, Sender, TryRecvError};
use rusqlite::hooks::Wal;
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, OpenFlags};
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
    passes: Receiver<Option<Pass>>,
    _thread: Thread,
}

/// What one pass through the log has done.
#[derive(Clone, Copy)]
struct Pass {
    /// Pages in the log when it began.
    in_log: usize,
    /// How many of them are in the database now.
    moved: usize,
}

impl Pass {
    /// Whether no reader of an old snapshot was in the way.
    fn is_whole(self) -> bool {
        self.moved >= self.in_log
    }
}

impl Checkpoints {
    /// Starts the thread, and counts from now on what `writer` adds to the log. Errors: there is no thread to be had.
    pub(super) fn start(writer: &mut Connection, path: &Path) -> Result<Checkpoints> {
        let pages = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&pages);
        writer.wal_hook(Some(move |_: &mut Wal, in_log| {
            counted.store(usize::try_from(in_log).unwrap_or(0), Ordering::Relaxed);
            Ok(())
        }))?;
        let (ask, asked) = crossbeam_channel::bounded(1);
        let (tell, passes) = crossbeam_channel::bounded(1);
        let path = path.to_owned();
        let open = move || {
            // Not made where it is not: this is a second look at a file that the writer has open.
            let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mover = Connection::open_with_flags(&path, flags)?;
            schema::prepare_mover(&mover)?;
            Ok(mover)
        };
        let thread =
            thread::spawn("checkpointer", move || serve(open, &asked, &tell)).map_err(|error| {
                Error::internal("the checkpointer can not be started").source(error)
            })?;
        let due = limits::WAL_PAGES;
        Ok(Checkpoints { pages, due, is_moving: false, ask, passes, _thread: thread })
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
        let is_bounded = pages < limits::WAL_PAGES_MAX;
        let pass = match self.passes.try_recv() {
            Err(TryRecvError::Empty) if is_bounded => return,
            Err(TryRecvError::Empty) => self.passes.recv().ok().flatten(),
            told => told.ok().flatten(),
        };
        self.is_moving = false;
        match pass {
            None if is_bounded => self.due = pages + limits::WAL_PAGES,
            Some(pass) if is_bounded && pages > pass.moved + limits::WAL_PAGES_LAST => {
                if pass.is_whole() {
                    self.begin(writer, pages);
                } else {
                    self.due = pages + limits::WAL_PAGES_LAST;
                }
            }
            _ => self.end(writer, pages),
        }
    }

    /// Has the pages moved by the thread; by the writer if there is no thread any more.
    fn begin(&mut self, writer: &Connection, pages: usize) {
        self.is_moving = self.ask.try_send(()).is_ok();
        if !self.is_moving {
            self.end(writer, pages);
        }
    }

    /// Moves what is left, so that the next transaction finds an empty log. While a reader of an old snapshot needs a
    /// part of it, the log goes on.
    fn end(&mut self, writer: &Connection, pages: usize) {
        self.due = match move_pages(writer) {
            Some(pass) if pass.is_whole() => {
                // The next commit that writes says otherwise if a reader of now keeps the log from beginning again.
                self.pages.store(0, Ordering::Relaxed);
                limits::WAL_PAGES
            }
            Some(_) => pages + limits::WAL_PAGES_LAST,
            None => pages + limits::WAL_PAGES,
        };
    }
}

fn serve(open: impl Fn() -> Result<Connection>, asked: &Receiver<()>, tell: &Sender<Option<Pass>>) {
    watchdog::watch();
    // With the first pages: a server that writes little has no need of it, and it knows the whole schema.
    let mut mover = None;
    while watchdog::rest(|| asked.recv()).is_ok() {
        if mover.is_none() {
            let told =
                |error| log::warn!("the database can not be opened for a checkpoint: {error}");
            mover = open().map_err(told).ok();
        }
        let pass = mover.as_ref().and_then(move_pages);
        // There is room: the writer has taken the last word before it asked again. Or it is gone.
        if tell.try_send(pass).is_err() {
            return;
        }
    }
}

/// Moves what no reader needs in the log. None: it failed, as the log of the program tells.
fn move_pages(connection: &Connection) -> Option<Pass> {
    match connection.wal_checkpoint_v2(None::<&str>, CheckpointMode::PASSIVE) {
        Ok((in_log, moved)) => {
            let pages = |number| usize::try_from(number).unwrap_or(0);
            Some(Pass { in_log: pages(in_log), moved: pages(moved) })
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
    use crate::ledger::tests::Folder;
    use crate::ledger::{Ledger, Tx, open_reader};
    use crate::limits;
    use crate::model::event::EventKind;

    const PAGE_BYTES: usize = 4096;
    /// A page in the log has a head of its own.
    const LOGGED_BYTES: u64 = 4096 + 24;
    const PAGES_OF_EVENT: usize = 100;
    /// The commit that reaches the bound is in the log.
    const LOG_MAX: usize = limits::WAL_PAGES_MAX + 2 * PAGES_OF_EVENT;

    fn write_pages(ledger: &Ledger, pages: usize) {
        let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(PAGES_OF_EVENT * PAGE_BYTES));
        for _ in 0..pages.div_ceil(PAGES_OF_EVENT) {
            let payload = payload.clone();
            let event = move |tx: &mut Tx<'_>| {
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
        let folder = Folder::new();
        let opened = folder.ledger();
        let ledger = &opened.ledger;
        let mut longest = 0;
        for _ in 0..4 {
            write_pages(ledger, limits::WAL_PAGES_MAX / 2);
            longest = longest.max(log_pages(ledger));
        }
        assert!((limits::WAL_PAGES..=LOG_MAX).contains(&longest), "{longest} pages");
        let log = ledger.path().with_file_name("db-wal");
        assert!(log.exists());
        assert!(opened.end());
        assert!(!log.exists(), "the end leaves a log");
    }

    #[test]
    fn a_reader_of_an_old_snapshot_stops_nobody_and_what_it_kept_goes_after_it() {
        let folder = Folder::new();
        let opened = folder.ledger();
        let ledger = &opened.ledger;
        write_pages(ledger, PAGES_OF_EVENT);
        let reader = open_reader(ledger.path()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM event").unwrap();
        write_pages(ledger, limits::WAL_PAGES_MAX + 2 * limits::WAL_PAGES);
        let kept = log_pages(ledger);
        assert!(kept > LOG_MAX, "{kept} pages: the snapshot kept nothing");
        reader.execute_batch("COMMIT").unwrap();
        // As many as it takes until the next try, and until that one is over.
        write_pages(ledger, limits::WAL_PAGES_MAX);
        write_pages(ledger, 2 * PAGES_OF_EVENT);
        let left = log_pages(ledger);
        assert!(left <= LOG_MAX, "{left} pages of {kept}");
        assert!(opened.end());
    }
}
