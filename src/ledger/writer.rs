//! The writer thread: the only writing connection, and group commit.
//!
//! It takes every job that waits or comes meanwhile (up to a bound), runs them in one transaction, commits once,
//! publishes the new events, and only then answers. A change that fails is undone alone: most fail before they have
//! written anything, and when one has not, all of the transaction is undone and run again with a savepoint for each,
//! which is too dear to have always. Batches come from load alone: no timer. It waits in one place, for a job or the
//! end, and ends when the last [`super::Ledger`] is dropped or one is closed, and what waits is done. A panic in a job
//! is a defect that could leave half a change behind: the process ends, and the next start finds the last commit.

use super::answer::{self, Answer, Answered, Sleeper, Sleepers};
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
use rusqlite::{Connection, OptionalExtension, Statement};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
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

/// One change, waiting for the writer.
pub(super) trait Job: Send {
    /// Runs the change, perhaps once more, and keeps what it returns. False when it failed and is to be undone.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// Why the change failed, for the others that are undone with it.
    fn failure(&self) -> Option<Error>;
    /// Answers the caller, who is still to be woken: with what the change returned, or with the failure of the whole
    /// transaction.
    fn finish(self: Box<Self>, failure: Option<Error>) -> Arc<dyn Sleeper>;
}

struct Change<F, T> {
    change: F,
    result: Option<Result<T>>,
    answer: Answer<Result<T>>,
}

impl<F, T> Job for Change<F, T>
where
    F: Fn(&mut Tx<'_>) -> Result<T> + Send,
    T: Send + 'static,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        let result = (self.change)(tx);
        let is_good = result.is_ok();
        self.result = Some(result);
        is_good
    }

    fn failure(&self) -> Option<Error> {
        self.result.as_ref()?.as_ref().err().map(copy)
    }

    fn finish(self: Box<Self>, failure: Option<Error>) -> Arc<dyn Sleeper> {
        let result = match failure {
            Some(failure) => Err(failure),
            None => self.result.expect("finish comes after run"),
        };
        self.answer.give(result)
    }
}

/// A job for `change`, and where its answer will come.
pub(super) fn job<T: Send + 'static>(
    change: impl Fn(&mut Tx<'_>) -> Result<T> + Send + 'static,
) -> (Box<dyn Job>, Answered<Result<T>>) {
    let (answer, answered) = answer::pair();
    (Box::new(Change { change, result: None, answer }), answered)
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
        let head = head(heads, self.connection, event.scope, event.scope_id)?;
        let (row_id, seq) = (*newest_row_id + 1, head.seq + 1);
        let place = event::Place { row_id, scope_key: head.scope_key, seq };
        let frame = self.log.insert(&event, place, self.now_ms)?;
        frames.push(Arc::new(frame));
        (*newest_row_id, head.seq) = (row_id, seq);
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
        head(&mut self.state.heads, self.connection, scope, scope_id)?;
        Ok(())
    }
}

/// The head of a scope that may be new.
fn head<'h>(
    heads: &'h mut HashMap<String, Head>,
    connection: &Connection,
    scope: ScopeKind,
    scope_id: &str,
) -> Result<&'h mut Head> {
    // Looked up twice: the borrow checker does not see that a head which is not there is not borrowed.
    if heads.get(scope_id).is_none_or(|head| head.scope != scope) {
        if heads.len() >= limits::SCOPE_HEADS {
            heads.clear();
        }
        let known = event::scope_key(connection, scope, scope_id).optional()?;
        let scope_key = match known {
            Some(scope_key) => scope_key,
            None => event::insert_scope(connection, scope, scope_id)?,
        };
        let seq = event::newest_seq(connection, scope_key)?;
        heads.insert(scope_id.to_owned(), Head { scope, scope_key, seq });
    }
    Ok(heads.get_mut(scope_id).expect("it was there, or was put there"))
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
            begin: connection.prepare("BEGIN IMMEDIATE")?,
            commit: connection.prepare("COMMIT")?,
            rollback: connection.prepare("ROLLBACK")?,
            savepoint: connection.prepare("SAVEPOINT change")?,
            release: connection.prepare("RELEASE change")?,
            rollback_to: connection.prepare("ROLLBACK TO change")?,
        })
    }
}

/// Where the writer hears what to do.
pub(super) struct Inbox {
    pub(super) jobs: Receiver<Box<dyn Job>>,
    /// A word here, or the last handle gone: do what waits, then end.
    pub(super) end: Receiver<()>,
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
    fn serve(mut self, Inbox { jobs, end }: &Inbox) {
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
        // Its thread moves no page any more.
        drop(self.checkpoints);
        let closing = "PRAGMA optimize; PRAGMA wal_checkpoint(TRUNCATE);";
        if let Err(error) = self.connection.execute_batch(closing) {
            log::warn!("the last checkpoint failed, the next start makes it: {error}");
        }
    }

    fn serve_batch(&mut self, batch: &mut Vec<Box<dyn Job>>, jobs: &Receiver<Box<dyn Job>>) {
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
        let callers = batch.drain(..).map(|job| job.finish(failure.as_ref().map(copy)));
        Sleepers::new(callers.collect()).wake();
        self.checkpoints.step(self.connection);
    }

    fn commit(
        &mut self,
        batch: &mut Vec<Box<dyn Job>>,
        jobs: &Receiver<Box<dyn Job>>,
    ) -> Result<()> {
        self.statements.begin.execute([])?;
        let (mut done, mut is_careful) = (0, false);
        while done < batch.len() {
            if self.run_change(&mut *batch[done], is_careful)? {
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
    fn run_change(&mut self, job: &mut dyn Job, is_careful: bool) -> Result<bool> {
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
