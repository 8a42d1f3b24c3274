//! Floor 3: runtime-managed processes. Commands that the server runs for its clients, as kept children with a record,
//! two log files and events.
//!
//! [`Processes`] is what the floors above call: its methods run on the caller's thread. Each running process has a
//! thread of its own ([`worker`]), which starts or adopts the child, copies its output, keeps its time limit and
//! commits everything that happens to it. One thread each, and not one for all: a log on a slow disk, a keeper that
//! hangs and a panic then concern one process, and the writer's group commit already joins what many threads commit at
//! once. What is common to all, the number that may run and the queue, is decided in the ledger's transactions and
//! needs no owner. The table of threads is the only shared state; its lock is never held over I/O or a wait.
//!
//! A wish to end a process is written down before it is acted on ([`Processes::kill`]), so it holds whether the
//! process waits, is being started, runs, or the server is killed in between. Deliberately not here: who may do what
//! (the floors above), and sessions (they call `kill_owned`).

mod excerpt;
mod launch;
pub mod log;
mod output;
mod request;
mod retention;
#[cfg(test)]
mod tests;
mod worker;

pub use excerpt::{Excerpt, ExcerptRequest, end};
pub use request::{GRACE_MS_MAX, ProcessRequest, TIMEOUT_MS_MAX, grace};

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::keeper::{self, Stream};
use crate::ledger::idempotency;
use crate::ledger::process::{self as rows, Kill, ProcessRow};
use crate::ledger::{Ledger, event};
use crate::limits;
use crate::model::{KilledBy, ProcessStatus, ScopeKind};
use crate::thread::{self, Thread};
use crate::watchdog;
use crossbeam_channel::Sender;
use serde_json::Value;
use std::collections::{HashMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The processes of this server; cheap to clone.
#[derive(Clone)]
pub struct Processes {
    shared: Arc<Shared>,
}

/// What all processes' threads share.
struct Shared {
    config: Arc<Config>,
    ledger: Ledger,
    /// The `gg-keeper` program.
    keeper: PathBuf,
    /// A word here says that a process of a session has ended.
    ended: Sender<()>,
    threads: Mutex<Threads>,
    is_stopping: AtomicBool,
    /// All end with the server, and that can not be written down: their threads end them all the same.
    is_ending_all: AtomicBool,
}

#[derive(Default)]
struct Threads {
    live: HashMap<String, Handle>,
    /// Threads that have taken themselves out and are about to end; joined by whoever comes next.
    retired: Vec<Thread>,
}

struct Handle {
    /// A word says that the record has changed (a wish to end it, bytes for stdin), so one that waits is enough. When
    /// the channel closes, the thread lets the child go on alone and ends.
    words: Sender<()>,
    thread: Option<Thread>,
}

/// How long the end of a process is waited for beyond its grace: longer than for a keeper that does not answer.
const END_SLACK: Duration = Duration::from_secs(keeper::STOP_SLACK.as_secs() + 5);
/// How long a start may take until the request is answered all the same.
const START_WAIT: Duration = Duration::from_secs(15);

impl Processes {
    /// `ended` gets a word when a process of a session has ended, unless one waits in it: for whoever waits for the
    /// last of them.
    pub fn new(
        config: Arc<Config>,
        ledger: Ledger,
        keeper: PathBuf,
        ended: Sender<()>,
    ) -> Processes {
        let shared = Shared {
            config,
            ledger,
            keeper,
            ended,
            threads: Mutex::default(),
            is_stopping: AtomicBool::new(false),
            is_ending_all: AtomicBool::new(false),
        };
        Processes { shared: Arc::new(shared) }
    }

    /// Takes up what the last server left, without waiting for any of it: each process that runs gets its thread,
    /// those of sessions that are over are ended, free places are given to the queue. Returns how many were taken up.
    /// Errors: there is no thread for one that runs; its record and its child are as they were, for the next start.
    pub fn recover(&self) -> Result<usize> {
        let shared = &self.shared;
        let running = shared.ledger.read(rows::running)?;
        for process_id in &running {
            shared.start_thread(process_id)?;
        }
        self.kill_all(&shared.ledger.read(|db| rows::active_of(db, None))?, &session_over())?;
        shared.admit()?;
        Ok(running.len())
    }

    /// Starts the threads of those that run and have none: there was none to be had, and no room to write that down.
    /// Errors: the ledger can not be read.
    pub fn start_left(&self) -> Result<()> {
        let mut left = self.shared.ledger.read(rows::running)?;
        let threads = self.shared.lock();
        left.retain(|process_id| !threads.live.contains_key(process_id));
        drop(threads);
        self.shared.start_all(left);
        Ok(())
    }

    /// Starts a process, or queues it; its record when it runs, has failed to start, or waits. Errors: a field that can
    /// not be as it is; no room; the session that is to own it is over.
    pub fn start(&self, request: &ProcessRequest) -> Result<ProcessRow> {
        let shared = &self.shared;
        if let Some(claim) = &request.idempotency
            && let Some(made) = shared.ledger.read(|db| idempotency::find(db, claim))?
        {
            return self.await_start(&made);
        }
        if !shared.config.processes.enabled {
            return Err(Error::new(Code::Conflict, "processes are turned off")
                .hint("set processes.enabled = true in the configuration"));
        }
        shared.refuse_when_stopping()?;
        let process = request.checked(&shared.config.processes)?;
        let running_max = shared.config.processes.running_max;
        let (is_queue, idempotency) = (request.is_queue, request.idempotency.clone());
        let (process_id, status) = shared.ledger.write(move |tx| {
            let process_id = process.process_id.clone();
            if let Some(claim) = &idempotency
                && let Some(made) = tx.claim_key(claim, &process_id)?
            {
                return Ok((made, ProcessStatus::Queued));
            }
            let status = tx.insert_process(&process, running_max, is_queue)?;
            Ok((process_id, status))
        })?;
        if status == ProcessStatus::Running {
            shared.start(&process_id)?;
        }
        self.await_start(&process_id)
    }

    /// The record of a process once it runs, has failed to start, or waits: also for who asks again meanwhile.
    fn await_start(&self, process_id: &str) -> Result<ProcessRow> {
        let is_begun = |row: &ProcessRow| row.status != ProcessStatus::Running || row.pid.is_some();
        self.wait(process_id, START_WAIT, is_begun)
    }

    pub fn get(&self, process_id: &str) -> Result<ProcessRow> {
        self.shared.ledger.read(|db| rows::get(db, process_id))
    }

    /// Where the log of a stream is.
    pub fn log_path(&self, process_id: &str, stream: Stream) -> PathBuf {
        log::path(&self.shared.config.logs_dir, process_id, stream)
    }

    /// The whole record as JSON.
    pub fn details(&self, row: &ProcessRow) -> Value {
        let paths = Stream::ALL
            .map(|stream| self.log_path(&row.process_id, stream).to_string_lossy().into_owned());
        rows::details(row, paths)
    }

    /// Ends a process and waits for that; the record as it is then, or when the time is over.
    pub fn end(&self, process_id: &str, kill: &Kill) -> Result<ProcessRow> {
        self.kill(process_id, kill)?;
        self.wait_killed(process_id)
    }

    /// Asks for the end of a process and does not wait for it. Nothing happens to one that is over.
    pub fn kill(&self, process_id: &str, kill: &Kill) -> Result<()> {
        self.kill_all(&[process_id.to_owned()], kill)
    }

    /// The same for many, a bounded number of them in a change.
    fn kill_all(&self, process_ids: &[String], kill: &Kill) -> Result<()> {
        for process_ids in process_ids.chunks(limits::PROCESSES_ENDED) {
            let (process_ids, kill) = (process_ids.to_vec(), kill.clone());
            let ending = self.shared.ledger.write(move |tx| {
                let mut ending = Vec::new();
                for process_id in &process_ids {
                    if tx.kill_process(process_id, &kill)? {
                        ending.push(process_id.clone());
                    }
                }
                Ok(ending)
            })?;
            ending.iter().for_each(|process_id| self.shared.tell(process_id));
        }
        Ok(())
    }

    /// Waits for the end of a process that was asked to end; the record as it is then, or when the time is over.
    pub fn wait_killed(&self, process_id: &str) -> Result<ProcessRow> {
        self.wait(process_id, end_wait(&self.get(process_id)?), |_| false)
    }

    /// Takes bytes for the process's stdin; they reach it once, also when the server is killed. Errors: its stdin is
    /// not open (`conflict`), too much waits (`capacity`).
    pub fn write_stdin(&self, process_id: &str, bytes: Vec<u8>, is_last: bool) -> Result<()> {
        let id = process_id.to_owned();
        self.shared.ledger.write(move |tx| tx.write_process_stdin(&id, &bytes, is_last))?;
        self.shared.tell(process_id);
        Ok(())
    }

    /// Asks for the ends of the processes of a session that is over, and does not wait for them. Returns their ids.
    pub fn kill_owned(&self, session_id: &str) -> Result<Vec<String>> {
        let owned = self.shared.ledger.read(|db| rows::active_of(db, Some(session_id)))?;
        self.kill_all(&owned, &session_over())?;
        // Those that waited for a place have ended with that.
        self.shared.tell_ended();
        Ok(owned)
    }

    /// Waits until the process is over, `is_enough` for the caller, or the time has passed; the record as it is then.
    pub fn wait(
        &self,
        process_id: &str,
        at_most: Duration,
        is_enough: impl Fn(&ProcessRow) -> bool,
    ) -> Result<ProcessRow> {
        let deadline = Instant::now() + at_most;
        let ledger = &self.shared.ledger;
        let mut row = self.get(process_id)?;
        if row.status.is_terminal() || is_enough(&row) || at_most.is_zero() {
            return Ok(row);
        }
        let scope_key =
            ledger.read(|db| Ok(event::scope_key(db, ScopeKind::Process, process_id)?))?;
        let watch = ledger.tail().watch(Some(scope_key));
        loop {
            let row_id = ledger.tail().newest_row_id();
            row = self.get(process_id)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = row.status.is_terminal() || is_enough(&row);
            if is_over || left.is_zero() || ledger.tail().is_closing() {
                return Ok(row);
            }
            // Its thread is watched; who waits for it hangs by no fault of his.
            watchdog::rest(|| watch.wait(row_id, left));
        }
    }

    /// Threads of processes now.
    pub fn threads(&self) -> usize {
        self.shared.lock().live.len()
    }

    /// Where the children's folders are.
    pub fn child_dir(&self, process_id: &str) -> PathBuf {
        self.shared.child_dir(process_id)
    }

    /// Stops all threads by the deadline. The children stay with their keepers, or are ended when `is_final`, those
    /// that wait among them.
    pub fn shut_down(&self, is_final: bool, deadline: Instant) {
        let shared = &self.shared;
        shared.is_stopping.store(true, Ordering::SeqCst);
        if is_final && let Err(error) = self.end_all() {
            ::log::warn!("why the processes end can not be written down: {error}");
            shared.is_ending_all.store(true, Ordering::SeqCst);
            shared.tell_all();
        }
        let (mut words, mut threads) = (Vec::new(), Vec::new());
        {
            let mut table = shared.lock();
            threads.append(&mut table.retired);
            for (_, handle) in table.live.drain() {
                words.push(handle.words);
                threads.extend(handle.thread);
            }
        }
        if !is_final {
            words.clear();
        }
        // Time for the keepers to be told, also when others have used the deadline up.
        let deadline = deadline.max(Instant::now() + DETACH_WAIT);
        if is_final && !threads.iter().all(|thread| thread.is_over_by(deadline)) {
            // The keepers go on ending them; the next start learns how it went.
            words.clear();
        }
        let deadline = deadline.max(Instant::now() + DETACH_WAIT);
        let ended = threads.into_iter().map(|thread| thread.join_by(deadline));
        let late = ended.filter(|ended| !ended).count();
        if late > 0 {
            ::log::warn!("{late} threads of processes did not stop in time; their keepers go on");
        }
    }

    fn end_all(&self) -> Result<()> {
        let reason = "the server was stopped".to_owned();
        let kill = Kill { killed_by: KilledBy::Shutdown, reason, signal: TERM, grace_ms: None };
        self.kill_all(&self.shared.ledger.read(rows::active)?, &kill)
    }
}

/// How long the end of a process that was asked to end is waited for.
pub fn end_wait(row: &ProcessRow) -> Duration {
    Duration::from_millis(u64::try_from(row.kill_grace_ms).unwrap_or(0)) + END_SLACK
}

/// How long telling the keepers, and letting go of them, may take beyond the deadline of the shutdown.
const DETACH_WAIT: Duration = Duration::from_millis(500);

/// SIGTERM and SIGKILL, which the keeper has words for.
pub const TERM: i32 = 15;
pub const KILL: i32 = 9;

fn session_over() -> Kill {
    let reason = "its session is over".to_owned();
    Kill { killed_by: KilledBy::Session, reason, signal: TERM, grace_ms: None }
}

impl Shared {
    fn child_dir(&self, process_id: &str) -> PathBuf {
        self.config.root_dir.join("keepers").join(process_id)
    }

    fn refuse_when_stopping(&self) -> Result<()> {
        if self.is_stopping.load(Ordering::SeqCst) {
            return Err(Error::new(Code::ShuttingDown, "the server is shutting down"));
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells the process's thread to look, if there is one. One that is not there yet looks by itself; a word that does
    /// not fit is there already.
    fn tell(&self, process_id: &str) {
        if let Some(handle) = self.lock().live.get(process_id) {
            // A word that does not fit says what is said already.
            let _: std::result::Result<(), _> = handle.words.try_send(());
        }
    }

    fn tell_all(&self) {
        for handle in self.lock().live.values() {
            let _: std::result::Result<(), _> = handle.words.try_send(());
        }
    }

    fn tell_ended(&self) {
        // A word that does not fit says what is said already; without a reader the server ends.
        let _: std::result::Result<(), _> = self.ended.try_send(());
    }

    /// Starts the thread of a process that the ledger has as running. Errors: there is no thread to be had; the record
    /// has ended with that, its place is given to the next, and its key is good for another try.
    fn start(self: &Arc<Self>, process_id: &str) -> Result<()> {
        let Err(error) = self.start_thread(process_id) else { return Ok(()) };
        self.start_all(worker::never_started(self, process_id, &error, true)?);
        Err(error)
    }

    /// The handle is in the table before the thread reads the record, so no word can fall between the two.
    fn start_thread(self: &Arc<Self>, process_id: &str) -> Result<()> {
        let (words, heard) = crossbeam_channel::bounded(1);
        let shared = Arc::clone(self);
        let id: Arc<str> = process_id.into();
        let short = &id[id.len().saturating_sub(6)..];
        let name = format!("process-{short}");
        let mut threads = self.lock();
        threads.retired.retain(|thread| !thread.is_finished());
        // A shutdown has emptied the table: what is admitted now is started by the next server.
        if self.is_stopping.load(Ordering::SeqCst) || threads.live.contains_key(process_id) {
            return Ok(());
        }
        let body = {
            let id = Arc::clone(&id);
            move || worker::run(&shared, &id, &heard)
        };
        let thread = thread::spawn(name, body).map_err(|error| {
            Error::new(Code::Capacity, "no thread can be started").source(error)
        })?;
        threads.live.insert(process_id.to_owned(), Handle { words, thread: Some(thread) });
        Ok(())
    }

    /// Gives free places to those that wait.
    fn admit(self: &Arc<Self>) -> Result<()> {
        let running_max = self.config.processes.running_max;
        let admitted = self.ledger.write(move |tx| tx.admit_processes(running_max))?;
        self.start_all(admitted);
        Ok(())
    }

    /// Starts those that were given a place. What can not be started ends, and the next has its place: one after the
    /// other, and not one inside of the other, since a thousand may wait.
    fn start_all(self: &Arc<Self>, admitted: Vec<String>) {
        let mut admitted = VecDeque::from(admitted);
        while let Some(process_id) = admitted.pop_front() {
            let Err(error) = self.start_thread(&process_id) else { continue };
            ::log::warn!("process {process_id} can not be started: {error}");
            match worker::never_started(self, &process_id, &error, false) {
                Ok(next) => admitted.extend(next),
                Err(error) => {
                    ::log::error!("process {process_id}: its end is not recorded: {error}");
                }
            }
        }
    }

    /// A thread that is about to end takes itself out of the table.
    fn retire(&self, process_id: &str) {
        let mut threads = self.lock();
        if let Some(mut handle) = threads.live.remove(process_id)
            && let Some(thread) = handle.thread.take()
        {
            threads.retired.push(thread);
        }
    }
}
