//! The writer thread: the only writing connection, and group commit.
//!
//! It takes every job that waits or comes meanwhile (up to a bound), runs them in one transaction, commits once,
//! publishes the new events, and only then answers. A change that fails is undone alone: most fail before they have
//! written anything, and when one has not, all of the transaction is undone and run again with a savepoint for each,
//! which is too dear to have always. Batches come from load alone: no timer. It waits in one place, for a job or the
//! end, and ends when the last [`super::Ledger`] is dropped or one is closed, and what waits is done. A panic in a job
//! is a defect that could leave half a change behind: the process ends, and the next start finds the last commit.

use super::answer::{Sleeper, Sleepers, Slot};
use super::cache::SessionCache;
use super::checkpoint::Checkpoints;
use super::event::{self, Frame, NewEvent};
use super::tail::Tail;
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::model::{ScopeKind, id};
use crate::thread::{self, Thread};
use crate::watchdog;
use crossbeam_channel::{Receiver, select};
use rusqlite::{Connection, OptionalExtension, PrepFlags, Statement};
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The name of its thread.
pub const WRITER: &str = "writer";

/// What the writer did since the start.
#[derive(Debug, Default)]
pub struct WriterCounters {
    pub commits: AtomicU64,
    pub jobs: AtomicU64,
    pub events: AtomicU64,
    /// The largest number of jobs in one transaction.
    pub batch_max: AtomicU64,
    /// Microseconds in COMMIT, in sum and at most.
    pub commit_us: AtomicU64,
    pub commit_us_max: AtomicU64,
    pub failed: AtomicU64,
}

/// One change and its caller, as the writer sees them.
trait Job: Sleeper {
    /// Runs the change, perhaps once more, and keeps what it returns. False when it failed and is to be undone.
    fn run(&self, tx: &mut Tx<'_>) -> bool;
    /// Why the change failed, for the others that are undone with it.
    fn failure(&self) -> Option<Error>;
    /// Answers the caller, who is still to be woken: with what the change returned, or with the failure of the whole
    /// transaction.
    fn finish(&self, failure: Option<Error>);
    /// Tells the caller that no answer comes.
    fn end(&self);
}

/// A change, what it returned, and where its caller waits: one piece of memory. The caller is nearly always the last to
/// let go of it, so what the change holds is freed by a thread that has the time.
pub(super) struct Change<F, T> {
    /// Nobody contends for it: the lock is there since what two threads hold must be fit for both.
    work: Mutex<Work<F, T>>,
    slot: Slot<Result<T>>,
}

/// The writer's alone: the caller waits, and never looks.
struct Work<F, T> {
    change: F,
    result: Option<Result<T>>,
}

impl<F, T> Change<F, T> {
    /// Waits until the change is committed or has failed; None when the writer is gone.
    pub(super) fn wait(&self) -> Option<Result<T>> {
        self.slot.wait()
    }

    /// Says that there is no writer, unless it has answered.
    pub(super) fn end(&self) {
        self.slot.end();
    }

    fn work(&self) -> MutexGuard<'_, Work<F, T>> {
        // A change that panics ends the process.
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<F, T> Job for Change<F, T>
where
    F: Fn(&mut Tx<'_>) -> Result<T> + Send,
    T: Send,
{
    fn run(&self, tx: &mut Tx<'_>) -> bool {
        let mut work = self.work();
        let result = (work.change)(tx);
        let is_good = result.is_ok();
        work.result = Some(result);
        is_good
    }

    fn failure(&self) -> Option<Error> {
        self.work().result.as_ref()?.as_ref().err().map(copy)
    }

    fn finish(&self, failure: Option<Error>) {
        self.slot.give(match failure {
            Some(failure) => Err(failure),
            None => self.work().result.take().expect("finish comes after run"),
        });
    }

    fn end(&self) {
        Change::end(self);
    }
}

impl<F: Send, T: Send> Sleeper for Change<F, T> {
    fn wake(&self, others: &Arc<Sleepers>) -> bool {
        self.slot.wake(others)
    }
}

/// A change on its way to the writer. Lost on the way, it tells its caller. Empty once it is answered.
pub(super) struct Pending(Option<Arc<dyn Job>>);

impl Pending {
    fn job(&self) -> &dyn Job {
        self.0.as_deref().expect("it is taken out only by finish")
    }

    fn finish(mut self, failure: Option<Error>) -> Arc<dyn Sleeper> {
        let job = self.0.take().expect("it is taken out only here, with self");
        job.finish(failure);
        job
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(job) = &self.0 {
            job.end();
        }
    }
}

/// What goes to the writer for `change`, and where its caller waits.
pub(super) fn job<F, T>(change: F) -> (Pending, Arc<Change<F, T>>)
where
    F: Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
    T: Send + 'static,
{
    let work = Mutex::new(Work { change, result: None });
    let change = Arc::new(Change { work, slot: Slot::new() });
    (Pending(Some(Arc::clone(&change) as Arc<dyn Job>)), change)
}

/// The transaction that a change runs in.
pub struct Tx<'a> {
    connection: &'a Connection,
    log: &'a mut dyn event::Log,
    state: &'a mut State,
    now_ms: i64,
    /// How many sessions earlier changes of the same transaction had touched.
    touched_before: usize,
}

/// What the writer knows beside the database. A failed change takes its part back.
struct State {
    /// By scope id, which is of one kind alone: the scopes that were written to lately.
    heads: HashMap<String, Head>,
    newest_row_id: i64,
    frames: Vec<Arc<Frame>>,
    touched: Vec<String>,
    /// How many pages the database may hold; None = as many as fit on the disk.
    pages_max: Option<i64>,
}

struct Head {
    scope: ScopeKind,
    scope_key: i64,
    /// The last one.
    seq: i64,
}

impl Tx<'_> {
    /// The connection, for the statements of `src/ledger`.
    pub(super) fn connection(&self) -> &Connection {
        self.connection
    }

    /// The time of this change: one value for all its rows.
    pub fn now_ms(&self) -> i64 {
        self.now_ms
    }

    /// Adds an event to its scope and returns its seq.
    pub fn append(&mut self, event: NewEvent<'_>) -> Result<i64> {
        let State { heads, newest_row_id, frames, .. } = self.state;
        let (scope_key, seq) = match heads.get_mut(event.scope_id) {
            Some(head) if head.scope == event.scope => {
                head.seq += 1;
                (head.scope_key, head.seq)
            }
            _ => {
                let head = read_head(self.connection, event.scope, event.scope_id)?;
                let (scope_key, seq) = (head.scope_key, head.seq + 1);
                remember(heads, event.scope_id, Head { seq, ..head });
                (scope_key, seq)
            }
        };
        let row_id = *newest_row_id + 1;
        match self.log.insert(&event, event::Place { row_id, scope_key, seq }, self.now_ms) {
            Ok(frame) => frames.push(Arc::new(frame)),
            Err(error) => {
                // It counts what is not there; the database knows.
                heads.remove(event.scope_id);
                return Err(error);
            }
        }
        *newest_row_id = row_id;
        Ok(seq)
    }

    /// Whether this change has already written the record of this session, its time with it.
    pub(super) fn has_touched(&self, session_id: &str) -> bool {
        self.state.touched[self.touched_before..].iter().any(|touched| touched == session_id)
    }

    /// Refuses new work when a bounded database is full. What runs goes on and what is to be closed can be closed: they
    /// may take it beyond the bound, but a bound that stands in the way of a purge would be one for ever.
    pub(super) fn refuse_when_full(&self) -> Result<()> {
        let Some(pages_max) = self.state.pages_max else { return Ok(()) };
        let number = |sql: &str| -> Result<i64> {
            Ok(self.connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        };
        let used = number("PRAGMA page_count")? - number("PRAGMA freelist_count")?;
        if used < pages_max {
            return Ok(());
        }
        Err(Error::new(
            Code::Capacity,
            "the database holds as much as data.max_database_bytes allows",
        )
        .hint("purge sessions and teams (DELETE …?purge=true), or raise the bound"))
    }

    /// Says that the record of this session has changed.
    pub(super) fn touch(&mut self, session_id: &str) {
        if !self.state.touched.iter().any(|touched| touched == session_id) {
            self.state.touched.push(session_id.to_owned());
        }
    }

    /// The scope is gone; should its id come back, the database is asked.
    pub(super) fn forget_head(&mut self, scope_id: &str) {
        self.state.heads.remove(scope_id);
    }

    /// Makes the log of a scope before there is anything in it.
    pub(super) fn open_scope(&mut self, scope: ScopeKind, scope_id: &str) -> Result<()> {
        let heads = &mut self.state.heads;
        if heads.get(scope_id).is_none_or(|head| head.scope != scope) {
            let head = read_head(self.connection, scope, scope_id)?;
            remember(heads, scope_id, head);
        }
        Ok(())
    }
}

/// The head of a scope as the database has it, which makes the scope if it is new.
fn read_head(connection: &Connection, scope: ScopeKind, scope_id: &str) -> Result<Head> {
    let known = event::scope_key(connection, scope, scope_id).optional()?;
    let scope_key = match known {
        Some(scope_key) => scope_key,
        None => event::insert_scope(connection, scope, scope_id)?,
    };
    Ok(Head { scope, scope_key, seq: event::newest_seq(connection, scope_key)? })
}

fn remember(heads: &mut HashMap<String, Head>, scope_id: &str, head: Head) {
    if heads.len() >= limits::SCOPE_HEADS {
        heads.clear();
    }
    heads.insert(scope_id.to_owned(), head);
}

struct Writer<'c> {
    connection: &'c Connection,
    statements: Statements<'c>,
    log: event::Inserts<'c>,
    state: State,
    checkpoints: Checkpoints,
    tail: Arc<Tail>,
    cache: Arc<SessionCache>,
    counters: Arc<WriterCounters>,
}

/// What makes transactions, compiled once: each change uses two of them.
struct Statements<'c> {
    begin: Statement<'c>,
    commit: Statement<'c>,
    rollback: Statement<'c>,
    savepoint: Statement<'c>,
    release: Statement<'c>,
    rollback_to: Statement<'c>,
}

impl<'c> Statements<'c> {
    fn new(connection: &'c Connection) -> rusqlite::Result<Statements<'c>> {
        Ok(Statements {
            begin: compile(connection, "BEGIN IMMEDIATE")?,
            commit: compile(connection, "COMMIT")?,
            rollback: compile(connection, "ROLLBACK")?,
            savepoint: compile(connection, "SAVEPOINT change")?,
            release: compile(connection, "RELEASE change")?,
            rollback_to: compile(connection, "ROLLBACK TO change")?,
        })
    }
}

/// A statement that is kept for as long as its connection.
pub(super) fn compile<'c>(
    connection: &'c Connection,
    sql: &str,
) -> rusqlite::Result<Statement<'c>> {
    connection.prepare_with_flags(sql, PrepFlags::SQLITE_PREPARE_PERSISTENT)
}

/// Where the writer hears what to do.
pub(super) struct Inbox {
    pub(super) jobs: Receiver<Pending>,
    /// A word here, or the last handle gone: do what waits, then end.
    pub(super) end: Receiver<()>,
    /// Says that nobody looks for jobs any more.
    pub(super) is_over: Arc<AtomicBool>,
}

pub(super) fn start(
    connection: Connection,
    checkpoints: Checkpoints,
    inbox: Inbox,
    tail: Arc<Tail>,
    cache: Arc<SessionCache>,
    counters: Arc<WriterCounters>,
    pages_max: Option<i64>,
) -> Result<Thread> {
    let state = State {
        heads: HashMap::new(),
        newest_row_id: event::newest_row_id(&connection)?,
        frames: Vec::new(),
        touched: Vec::new(),
        pages_max,
    };
    thread::spawn(WRITER, move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            watchdog::watch();
            let statements = Statements::new(&connection).expect("these statements need no table");
            let log = event::Inserts::new(&connection).expect("the schema has been made");
            let connection = &connection;
            Writer { connection, statements, log, state, checkpoints, tail, cache, counters }
                .serve(&inbox);
        }));
        if outcome.is_err() {
            log::error!("the writer thread panicked; the process ends, the last commit stands");
            std::process::abort();
        }
    })
    .map_err(|error| Error::internal("the writer thread can not be started").source(error))
}

impl Writer<'_> {
    fn serve(mut self, Inbox { jobs, end, is_over }: &Inbox) {
        let mut batch = Vec::new();
        let next = || {
            watchdog::rest(|| {
                select! {
                    recv(jobs) -> first => first.ok(),
                    recv(end) -> _ => None,
                }
            })
        };
        while let Some(first) = next() {
            batch.push(first);
            self.serve_batch(&mut batch, jobs);
        }
        // What was asked for before is done; who hangs and asks on does not keep the writer.
        for _ in 0..jobs.len() {
            let Ok(first) = jobs.try_recv() else { break };
            batch.push(first);
            self.serve_batch(&mut batch, jobs);
        }
        // A channel that nobody reads keeps what is in it while somebody could write to it, so it is emptied. Who sends
        // behind this last look finds that it is over.
        is_over.store(true, Ordering::SeqCst);
        while let Ok(late) = jobs.try_recv() {
            drop(late);
        }
        // Its thread moves no page any more.
        drop(self.checkpoints);
        let closing = "PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);";
        if let Err(error) = self.connection.execute_batch(closing) {
            log::warn!("the last checkpoint failed, the next start makes it: {error}");
        }
    }

    fn serve_batch(&mut self, batch: &mut Vec<Pending>, jobs: &Receiver<Pending>) {
        let failure = self.commit(batch, jobs).err();
        if let Some(error) = &failure {
            log::error!("a transaction of {} changes failed: {error}", batch.len());
            self.counters.failed.fetch_add(1, Ordering::Relaxed);
            self.recover();
        } else {
            if !self.state.touched.is_empty() {
                self.cache.forget(&self.state.touched);
            }
            self.tail.publish(&mut self.state.frames);
        }
        self.state.frames.clear();
        self.state.touched.clear();
        let callers = batch.drain(..).map(|pending| pending.finish(failure.as_ref().map(copy)));
        Sleepers::new(callers.collect()).wake();
        self.checkpoints.step(self.connection);
    }

    fn commit(&mut self, batch: &mut Vec<Pending>, jobs: &Receiver<Pending>) -> Result<()> {
        self.statements.begin.execute([])?;
        let (mut done, mut is_careful) = (0, false);
        while done < batch.len() {
            if self.run_change(batch[done].job(), is_careful)? {
                done += 1;
            } else {
                self.begin_anew()?;
                (done, is_careful) = (0, true);
            }
            if done == batch.len() {
                // What came meanwhile goes into the same commit: it costs a change, not a sync.
                batch.extend(jobs.try_iter().take(limits::WRITER_BATCH - done));
            }
        }
        let begun = Instant::now();
        self.statements.commit.execute([])?;
        let took_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        let counters = &self.counters;
        let jobs = batch.len() as u64;
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.jobs.fetch_add(jobs, Ordering::Relaxed);
        counters.events.fetch_add(self.state.frames.len() as u64, Ordering::Relaxed);
        counters.batch_max.fetch_max(jobs, Ordering::Relaxed);
        counters.commit_us.fetch_add(took_us, Ordering::Relaxed);
        counters.commit_us_max.fetch_max(took_us, Ordering::Relaxed);
        Ok(())
    }

    /// Runs one change. One that fails without having written anything leaves nothing to be undone; one that has
    /// written is undone alone when that was asked for. False: it was not, so the transaction is to begin anew. Errors:
    /// the transaction as a whole is lost.
    fn run_change(&mut self, job: &dyn Job, is_careful: bool) -> Result<bool> {
        if is_careful {
            self.statements.savepoint.execute([])?;
        }
        let (frames, touched) = (self.state.frames.len(), self.state.touched.len());
        let newest_row_id = self.state.newest_row_id;
        let rows_changed = self.connection.total_changes();
        let mut tx = Tx {
            connection: self.connection,
            log: &mut self.log,
            state: &mut self.state,
            now_ms: id::now_ms(),
            touched_before: touched,
        };
        if !job.run(&mut tx) {
            if self.connection.is_autocommit() {
                // A full disk and its like end the whole transaction, not the savepoint alone.
                let undone = || Error::internal("the database undid the transaction");
                return Err(job.failure().unwrap_or_else(undone));
            }
            self.state.touched.truncate(touched);
            if self.connection.total_changes() != rows_changed {
                if !is_careful {
                    return Ok(false);
                }
                self.statements.rollback_to.execute([])?;
                self.state.frames.truncate(frames);
                self.state.newest_row_id = newest_row_id;
                // Their seq may have been counted up, or their row undone; the database knows.
                self.state.heads.clear();
            }
        }
        if is_careful {
            self.statements.release.execute([])?;
        }
        Ok(true)
    }

    /// Takes back all that was done since the last commit, and begins again.
    fn begin_anew(&mut self) -> Result<()> {
        self.statements.rollback.execute([])?;
        self.state.newest_row_id -= self.state.frames.len() as i64;
        self.state.frames.clear();
        self.state.touched.clear();
        self.state.heads.clear();
        self.statements.begin.execute([])?;
        Ok(())
    }

    /// After a transaction that failed: what is known beside the database is read from it again.
    fn recover(&mut self) {
        if !self.connection.is_autocommit()
            && let Err(error) = self.statements.rollback.execute([])
        {
            log::error!("the failed transaction can not be undone: {error}");
        }
        self.state.heads.clear();
        match event::newest_row_id(self.connection) {
            // Never below what was published: an id is not given twice.
            Ok(newest) => self.state.newest_row_id = newest.max(self.tail.newest_row_id()),
            Err(error) => log::error!("the head of the log can not be read: {error}"),
        }
    }
}

/// The same failure for one more caller; the source stays with the log.
fn copy(error: &Error) -> Error {
    Error { hint: error.hint.clone(), ..Error::new(error.code, error.message.clone()) }
}
