//! Floor 1: the ledger, one SQLite file that holds every record and every event.
//!
//! Owns: the writer thread, the pool of readers, the tail, the schema, and every SQL statement of the program (each
//! beside the struct it fills). Promises: a change of state and the events that tell of it are one transaction; nobody
//! is answered before that transaction is committed; what is committed is published to the tail in the order of the
//! log. It deliberately knows no agent, no HTTP, and no rule of when a change is due: only whether one is allowed by
//! the state it finds.

pub mod agent;
mod answer;
pub mod approval;
pub mod backup;
mod cache;
mod checkpoint;
pub mod claim;
pub mod event;
pub mod idempotency;
pub mod item;
mod key;
mod listed;
pub mod process;
pub mod retention;
mod schema;
pub mod session;
pub mod tail;
pub mod team;
#[cfg(test)]
pub(crate) mod tests;
pub mod token;
pub mod tool_call;
pub mod turn;
pub mod verify;
pub mod worktree;
mod writer;

pub use listed::{Listed, Most};
/// What a read is given. Other modules pass it on to the functions here and know nothing of it.
pub use rusqlite::Connection;
pub use schema::VERSION as SCHEMA_VERSION;
pub use tail::{Bell, Tail, Watch};
pub use writer::{Tx, WRITER, WriterCounters};

use crate::error::{Code, Error, Result};
use crate::limits;
use crate::thread::Thread;
use checkpoint::Checkpoints;
use crossbeam_channel::{Receiver, Sender, select};
use rusqlite::{OpenFlags, ffi};
use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// How far a commit must have reached before it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Synchronous {
    /// The operating system has it: a killed process loses nothing, a power loss may lose the last commits.
    Normal,
    /// The disk has it.
    Full,
}

/// A handle on the ledger; cheap to clone. The writer thread ends when the last handle is gone, or with
/// [`Ledger::close`].
#[derive(Clone)]
pub struct Ledger {
    jobs: Sender<writer::Pending>,
    /// Tells the writer to end although there are handles.
    end: Sender<()>,
    /// Whether it looks for jobs no more.
    is_over: Arc<AtomicBool>,
    readers: Readers,
    tail: Arc<Tail>,
    cache: Arc<cache::SessionCache>,
    counters: Arc<WriterCounters>,
    path: Arc<PathBuf>,
}

#[derive(Clone)]
struct Readers {
    /// A word for each connection that may still be opened, of [`limits::READERS`]; the first reads open them. Who
    /// could not open one puts its word back, for another to try.
    put_back: Sender<()>,
    may_open: Receiver<()>,
    /// How many are open. They stay, so one of them comes back.
    opened: Arc<AtomicUsize>,
    give_back: Sender<Connection>,
    take: Receiver<Connection>,
}

impl Ledger {
    /// Opens or makes the database and starts the writer thread. The caller holds the lock of the data folder. Errors:
    /// the file can not be opened, is not ours, or was written by a newer version.
    pub fn open(path: &Path, synchronous: Synchronous) -> Result<(Ledger, Thread)> {
        Ledger::open_bounded(path, synchronous, None)
    }

    /// The same, for a database that takes new work only while it holds less than so many bytes.
    pub fn open_bounded(
        path: &Path,
        synchronous: Synchronous,
        bytes_max: Option<u64>,
    ) -> Result<(Ledger, Thread)> {
        let mut connection = Connection::open(path).map_err(|error| {
            Error::internal(format!("the database {} can not be opened", path.display()))
                .source(error)
        })?;
        schema::prepare_writer(&connection, synchronous)?;
        schema::migrate(&connection)?;
        let pages_max = bytes_max.map(|bytes| schema::pages(&connection, bytes)).transpose()?;
        let checkpoints = Checkpoints::start(&mut connection, path)?;
        let tail = Arc::new(Tail::new(event::newest_row_id(&connection)?));
        let cache = Arc::new(cache::SessionCache::default());
        let counters = Arc::new(WriterCounters::default());
        let (jobs, waiting) = crossbeam_channel::bounded(limits::WRITER_QUEUE);
        let (end, ends) = crossbeam_channel::bounded(1);
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = writer::start(
            connection,
            checkpoints,
            writer::Inbox { jobs: waiting, end: ends, is_over: Arc::clone(&is_over) },
            Arc::clone(&tail),
            Arc::clone(&cache),
            Arc::clone(&counters),
            pages_max,
        )?;
        let (readers, path) = (Readers::new(), Arc::new(path.to_owned()));
        Ok((Ledger { jobs, end, is_over, readers, tail, cache, counters, path }, thread))
    }

    /// Runs `change` on the writer thread in a transaction, and returns when that is committed and published. An
    /// error of `change` undoes that change alone. Blocks while more than [`limits::WRITER_QUEUE`] jobs wait. `change`
    /// must do no I/O of its own: it may run twice, when another in its transaction fails half-way, and the first time
    /// then leaves nothing behind.
    pub fn write<T: Send + 'static>(
        &self,
        change: impl Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (pending, change) = writer::job(change);
        let gone = || Error::new(Code::ShuttingDown, "the ledger is closed");
        self.jobs.send(pending).map_err(|_| gone())?;
        if self.is_over.load(Ordering::SeqCst) {
            // Perhaps it came behind the last look into the channel.
            change.end();
        }
        change.wait().ok_or_else(gone)?
    }

    /// Ends the writer once it has done what waits for it now, whoever has a handle still: a thread that hangs must not
    /// hold up the last checkpoint. Changes that come later are refused with `shutting_down`. Does not wait.
    pub fn close(&self) {
        // A word that does not fit says what is said already; without a reader the writer has ended.
        let _: std::result::Result<(), _> = self.end.try_send(());
    }

    /// Runs `query` on a read-only connection. Each statement sees its own snapshot; no transaction outlives one.
    pub fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let connection = self.readers.take(&self.path)?;
        let lent = Lent { connection: Some(connection), give_back: &self.readers.give_back };
        query(lent.connection.as_ref().expect("it is taken out only in drop"))
    }

    /// The serialised record of a session, as the last commit left it.
    pub fn session_json(&self, session_id: &str) -> Result<Arc<[u8]>> {
        let generation = match self.cache.get(session_id) {
            Ok(json) => return Ok(json),
            Err(generation) => generation,
        };
        let record = self.read(|connection| session::get(connection, session_id))?;
        let json: Arc<[u8]> = to_json(&record).into_bytes().into();
        self.cache.put(session_id, Arc::clone(&json), generation);
        Ok(json)
    }

    pub fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    pub fn counters(&self) -> &WriterCounters {
        &self.counters
    }

    /// Jobs that wait for the writer now.
    pub fn queue_depth(&self) -> usize {
        self.jobs.len()
    }

    /// Bytes on disk: of the database, and of its write-ahead log, which has what no checkpoint has moved yet.
    pub fn file_bytes(&self) -> (u64, u64) {
        let bytes = |path: &Path| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let mut wal = self.path.as_os_str().to_owned();
        wal.push("-wal");
        (bytes(&self.path), bytes(Path::new(&wal)))
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Readers {
    fn new() -> Readers {
        let (put_back, may_open) = crossbeam_channel::bounded(limits::READERS);
        let (give_back, take) = crossbeam_channel::bounded(limits::READERS);
        for _ in 0..limits::READERS {
            put_back.try_send(()).expect("there is room for each of them");
        }
        Readers { put_back, may_open, opened: Arc::default(), give_back, take }
    }

    /// A free connection, or a new one while there are few, or the next that comes back.
    fn take(&self, path: &Path) -> Result<Connection> {
        if let Ok(connection) = self.take.try_recv() {
            return Ok(connection);
        }
        let busy = || {
            Error::new(Code::Capacity, "all connections to the database are busy")
                .hint("try again in a moment")
        };
        select! {
            recv(self.take) -> connection => return connection.map_err(|_| busy()),
            recv(self.may_open) -> _ => {}
            default(READ_WAIT) => return Err(busy()),
        }
        let opened = open_reader(path);
        if opened.is_ok() {
            self.opened.fetch_add(1, Ordering::SeqCst);
            return opened;
        }
        // There is room: it is where the word came from.
        let _: std::result::Result<(), _> = self.put_back.try_send(());
        // Without a descriptor for a further one, those that are there do: slower, but no error.
        match self.opened.load(Ordering::SeqCst) {
            0 => opened,
            _ => self.take.recv_timeout(READ_WAIT).map_err(|_| busy()),
        }
    }
}

/// A read takes milliseconds; a wait this long means that something is wrong with the machine.
const READ_WAIT: Duration = Duration::from_secs(30);

/// A connection that can only read, also beside the server that writes. Errors: there is no such database.
pub fn open_reader(path: &Path) -> Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reader = Connection::open_with_flags(path, flags)?;
    schema::prepare_reader(&reader)?;
    Ok(reader)
}

/// A connection that goes back to the pool, also when the query panics.
struct Lent<'a> {
    connection: Option<Connection>,
    give_back: &'a Sender<Connection>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            // There is room: the pool made no more connections than the channel holds.
            drop(self.give_back.try_send(connection));
        }
    }
}

/// JSON of a record of ours. Such a record holds no map with keys that are not text, so this cannot fail.
pub fn to_json(record: &impl serde::Serialize) -> String {
    serde_json::to_string(record).expect("records serialise")
}

/// JSON text on one line, as streams have it. A line break can only be where it means nothing: in a text it is escaped.
pub fn one_line(json: &str) -> Cow<'_, str> {
    // Byte by byte: each event is looked at.
    match [b'\n', b'\r'].iter().any(|end| json.as_bytes().contains(end)) {
        true => json.replace(['\n', '\r'], " ").into(),
        false => json.into(),
    }
}

/// A journal that is to be brought back into its database before that can be read (SQLite's extended result codes).
const CUT_OFF: [i32; 2] = [ffi::SQLITE_READONLY_ROLLBACK, ffi::SQLITE_READONLY_RECOVERY];

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Error {
        let extended = error.sqlite_error().map(|error| error.extended_code);
        let told = match error.sqlite_error_code() {
            Some(rusqlite::ErrorCode::DiskFull) => {
                Error::new(Code::Capacity, "there is no room for the database")
                    .hint("free space on its disk; what was asked for has changed nothing")
            }
            // What a death has left, as in the first start of a server, met by who may not write.
            Some(rusqlite::ErrorCode::ReadOnly)
                if extended.is_some_and(|code| CUT_OFF.contains(&code)) =>
            {
                Error::new(Code::Conflict, "a change of the database was cut off").hint(
                    "start the server where it may write: it brings that in order first; \
                     a copy is to be made anew, with `backup`",
                )
            }
            Some(rusqlite::ErrorCode::ReadOnly) => {
                Error::new(Code::Capacity, "the database can not be written")
                    .hint("make the data folder writable for the user that runs the server")
            }
            Some(rusqlite::ErrorCode::SystemIoFailure) => {
                Error::internal("the disk of the database gave an error")
                    .hint("look at the disk; what was asked for has changed nothing")
            }
            _ => Error::internal("the database failed"),
        };
        told.source(error)
    }
}
