//! The thread of one running process: starts or adopts its child, copies its output, commits what happens to it.
//!
//! It waits in one place, for a word from [`super::Processes`], for the keeper, or for the next of its deadlines (time
//! limit, grace, a keeper that is late, pause between two tellings of output, another try); before it has its record,
//! for a word or the next try to read that. It ends when the end of the process is committed, or when the channel of
//! words closes: then the child goes on with its keeper.
//!
//! Output is written to the log file at its own offset first; then the offset up to which it is there is committed
//! together with the event that tells it; then the keeper is told that it need not keep it. After a kill at any
//! instruction the next server attaches at the committed offset, and what it writes again lies where it lay before.
//! Output is told with the pause of [`limits::PROCESS_OUTPUT_PAUSE_MS`]: a command that writes a line each millisecond
//! makes twenty events a second, not a thousand commits.

mod exit;
mod kill;

use self::exit::ended;
use self::kill::Ending;
use super::Shared;
use super::launch;
use super::output::Output;
use crate::error::{Code, Error, Result};
use crate::keeper::{self, Exit, FromKeeper, Hello, Keeper, Stream};
use crate::ledger::event::NewEvent;
use crate::ledger::process::{self as rows, ProcessRow};
use crate::limits;
use crate::model::event::EventKind;
use crate::model::id;
use crate::tries::Pauses;
use crate::watchdog;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, at, never, select};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long to wait after something failed that may work later: the database, a descriptor, a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// Between two tellings of output.
const OUTPUT_PAUSE: Duration = Duration::from_millis(limits::PROCESS_OUTPUT_PAUSE_MS);

struct Worker<'a> {
    shared: &'a Arc<Shared>,
    words: &'a Receiver<()>,
    dir: PathBuf,
    row: ProcessRow,
    // Above the keeper: a reader that is blocked on it must be free before it is joined.
    heard: Receiver<FromKeeper>,
    keeper: Option<Keeper>,
    /// The child was there already.
    is_adopted: bool,
    /// Its start or its adoption is told, or about to be.
    is_greeted: bool,
    outputs: [Output; 2],
    /// Told with the next commit: the child is up, as a new one or an adopted one.
    news: Option<(EventKind, Value)>,
    time_limit: Option<Instant>,
    ending: Ending,
    stdin: Stdin,
    told_at: Option<Instant>,
    retry_at: Option<Instant>,
    exit: Option<Exit>,
    is_over: bool,
}

/// How far stdin has come.
#[derive(Default)]
struct Stdin {
    sent: i64,
    /// In the keeper's journal.
    accepted: i64,
    /// Deleted from the ledger.
    forgotten: i64,
    is_closed: bool,
}

/// What has ended the worker's wait.
enum Woken {
    /// Look at the record again.
    Word,
    Heard(FromKeeper),
    /// The connection to the keeper is gone.
    Lost,
    Time,
    End,
}

/// The body of the thread.
pub(super) fn run(shared: &Arc<Shared>, process_id: &Arc<str>, words: &Receiver<()>) {
    watchdog::watch();
    let body = std::panic::AssertUnwindSafe(|| {
        if let Some(mut worker) = Worker::begin(shared, process_id, words) {
            worker.run();
        }
    });
    if std::panic::catch_unwind(body).is_err() {
        log::error!("the thread of process {process_id} panicked; the process is ended");
        let mut pauses = Pauses::default();
        while let Err(error) = after_panic(shared, process_id) {
            log::error!("process {process_id}: its end is recorded later: {error}");
            let waited = watchdog::rest(|| words.recv_timeout(pauses.take()));
            if waited == Err(RecvTimeoutError::Disconnected)
                || shared.is_stopping.load(Ordering::SeqCst)
            {
                break;
            }
        }
    }
    shared.retire(process_id);
}

/// Ends a process whose thread is gone, with its record. Errors: the record still says that it runs.
fn after_panic(shared: &Arc<Shared>, process_id: &str) -> Result<()> {
    keeper::sweep(process_id)?;
    let error = Error::internal("a defect of the server ended the process");
    let admitted = never_started(shared, process_id, &error, false)?;
    shared.start_all(admitted);
    let dir = shared.child_dir(process_id);
    if let Err(error) = std::fs::remove_dir_all(&dir) {
        log::warn!("{} can not be removed: {error}", dir.display());
    }
    Ok(())
}

/// Ends the record of a process that has no child, for this reason. `is_refused`: its key is good for another try.
/// Returns whom its place is given to: they are to be started.
pub(super) fn never_started(
    shared: &Shared,
    process_id: &str,
    error: &Error,
    is_refused: bool,
) -> Result<Vec<String>> {
    let (id, error) = (process_id.to_owned(), error.to_string());
    let running_max = shared.config.processes.running_max;
    let admitted = shared.ledger.write(move |tx| {
        tx.fail_process(&id, &error, is_refused)?;
        tx.admit_processes(running_max)
    })?;
    shared.tell_ended();
    Ok(admitted)
}

impl<'a> Worker<'a> {
    /// Begins with the record. One that can not be read is tried again for as long as the server runs, since nobody
    /// else looks after the process. None = there is no such record, or the server goes.
    fn begin(
        shared: &'a Arc<Shared>,
        process_id: &str,
        words: &'a Receiver<()>,
    ) -> Option<Worker<'a>> {
        loop {
            match Worker::new(shared, process_id, words) {
                Ok(worker) => return Some(worker),
                Err(error) if error.code == Code::NotFound => {
                    log::error!("process {process_id} can not be looked after: {error}");
                    return None;
                }
                Err(error) => log::warn!("process {process_id} can not be read: {error}"),
            }
            let waited = watchdog::rest(|| words.recv_timeout(RETRY));
            if waited == Err(RecvTimeoutError::Disconnected) {
                return None;
            }
        }
    }

    fn new(
        shared: &'a Arc<Shared>,
        process_id: &str,
        words: &'a Receiver<()>,
    ) -> Result<Worker<'a>> {
        let row = shared.ledger.read(|db| rows::get(db, process_id))?;
        let outputs = Stream::ALL.map(|stream| {
            let path = super::log::path(&shared.config.logs_dir, process_id, stream);
            Output::new(stream, path, row.bytes[stream.index()], row.output_bytes_max)
        });
        let is_over = row.status.is_terminal();
        Ok(Worker {
            shared,
            words,
            dir: shared.child_dir(process_id),
            row,
            heard: never(),
            keeper: None,
            is_adopted: false,
            is_greeted: false,
            outputs,
            news: None,
            time_limit: None,
            ending: Ending::default(),
            stdin: Stdin::default(),
            told_at: None,
            retry_at: None,
            exit: None,
            is_over,
        })
    }

    fn run(&mut self) {
        self.open();
        while !self.is_over {
            let now = Instant::now();
            self.keep_time(now);
            if self.commit_at(now).is_some_and(|due| due <= now) {
                self.commit();
                continue;
            }
            let heard = if self.is_stuck() { &never() } else { &self.heard };
            let timer = self.next_deadline(now).map_or_else(never, at);
            let woken = watchdog::rest(|| {
                select! {
                    recv(self.words) -> word => word.map_or(Woken::End, |()| Woken::Word),
                    recv(heard) -> message => message.map_or(Woken::Lost, Woken::Heard),
                    recv(timer) -> _ => Woken::Time,
                }
            });
            match woken {
                Woken::Word => self.look(),
                Woken::Heard(message) => self.hear(message),
                Woken::Lost => self.lost("the connection to the keeper has ended without a word"),
                Woken::Time => {}
                // The server goes, the child stays.
                Woken::End => break,
            }
        }
        self.heard = never();
        self.keeper = None;
    }

    /// What time alone brings about.
    fn keep_time(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|due| due <= now) {
            self.retry_at = None;
            for output in &mut self.outputs {
                output.retry(now);
            }
            if self.keeper.is_none() && self.exit.is_none() {
                self.open();
            }
            self.look();
        }
        if self.is_stuck() {
            self.retry_at.get_or_insert(now + RETRY);
        }
        if self.time_limit.is_some_and(|limit| limit <= now) {
            self.time_limit = None;
            self.time_is_up();
        }
        self.go_on_ending(now);
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        [self.commit_at(now), self.time_limit, self.ending.deadline(), self.retry_at]
            .into_iter()
            .flatten()
            .min()
    }

    /// A log can not be written for now.
    fn is_stuck(&self) -> bool {
        self.outputs.iter().any(Output::is_stuck)
    }

    /// When what has happened is to be committed; None = nothing has.
    fn commit_at(&self, now: Instant) -> Option<Instant> {
        let untold: u64 = self.outputs.iter().map(Output::untold).sum();
        let is_at_once =
            self.exit.is_some() || self.news.is_some() || untold >= limits::PROCESS_BATCH_BYTES;
        let due = if is_at_once {
            now
        } else if untold > 0 || self.stdin.accepted > self.stdin.forgotten {
            self.told_at.map_or(now, |told_at| told_at + OUTPUT_PAUSE)
        } else {
            return None;
        };
        Some(self.retry_at.map_or(due, |retry_at| due.max(retry_at)))
    }

    /// Starts the child, or adopts the one that is there.
    fn open(&mut self) {
        if self.is_over {
            return;
        }
        let opened = if self.dir.exists() {
            self.is_adopted = true;
            let [stdout_from, stderr_from] = [0, 1].map(|index| self.outputs[index].told());
            let sink = self.sink();
            keeper::attach(&self.dir, stdout_from, stderr_from, sink)
                .map(|attached| attached.keeper)
        } else if self.row.pid.is_some() {
            // The folder went with the power of the machine. It has run: it is not run twice.
            self.exit = Some(ended("lost", Some("its keeper's folder is gone".to_owned())));
            return;
        } else if self.row.killed_by.is_some() {
            // Nobody wants it any more, and it never ran.
            self.exit = Some(ended("kill", None));
            return;
        } else {
            self.is_adopted = false;
            let spec = launch::spec(self.shared, &self.row);
            let sink = self.sink();
            spec.and_then(|spec| keeper::spawn(&spec, sink))
        };
        match opened {
            Ok(keeper) => {
                self.keeper = Some(keeper);
                self.act_on_kill();
            }
            // It may live, and can not be reached for now.
            Err(error) if self.is_adopted && error.code != Code::NotFound => {
                log::warn!("process {}: {error}", self.row.process_id);
                self.retry_at = Some(Instant::now() + RETRY);
            }
            Err(error) => self.exit = Some(ended("spawn_failed", Some(error.to_string()))),
        }
    }

    fn sink(&mut self) -> impl FnMut(FromKeeper) + Send + 'static {
        let (inbox, heard): (Sender<FromKeeper>, _) =
            crossbeam_channel::bounded(limits::PROCESS_INBOX);
        self.heard = heard;
        // Blocks while the log is written: the keeper holds the rest in its journal.
        move |message| drop(inbox.send(message))
    }

    fn hear(&mut self, message: FromKeeper) {
        match message {
            FromKeeper::Hello(hello) => self.welcome(&hello),
            FromKeeper::Output { stream, offset, bytes } => {
                self.greet_remains();
                self.outputs[stream.index()].take(offset, bytes, Instant::now());
            }
            FromKeeper::StdinAccepted { end } => {
                self.stdin.accepted = self.stdin.accepted.max(whole(end));
                self.send_stdin();
            }
            FromKeeper::Exited(exit) => self.exited(*exit),
        }
    }

    fn welcome(&mut self, hello: &Hello) {
        let process_id = &self.row.process_id;
        let limit = self.row.timeout_ms.map(|timeout_ms| {
            // Never less than nothing: the clock may have been set back.
            let ran_ms = |started_at: i64| (id::now_ms() - started_at).max(0);
            let ran_ms = self.row.started_at.map_or(0, ran_ms);
            let left_ms = u64::try_from(timeout_ms.saturating_sub(ran_ms)).unwrap_or(0);
            Instant::now().checked_add(Duration::from_millis(left_ms))
        });
        self.time_limit = limit.flatten();
        self.is_greeted = true;
        self.news = Some(if self.row.pid.is_none() {
            self.row.pid = Some(i64::from(hello.child_pid));
            let payload =
                json!({"process_id": process_id, "pid": hello.child_pid, "cwd": self.row.cwd});
            (EventKind::ProcessStarted, payload)
        } else {
            (EventKind::ProcessAdopted, adopted(&self.row, true))
        });
        self.stdin.accepted = whole(hello.stdin_end);
        self.send_stdin();
    }

    fn exited(&mut self, exit: Exit) {
        self.heard = never();
        self.ending.is_told();
        if exit.stopped_by == "replaced" {
            // Only a second server could do that, and the lock of the data folder is in its way.
            log::error!("process {}: somebody else holds its keeper", self.row.process_id);
            self.is_over = true;
            return;
        }
        let is_new = self.row.pid.is_none() && self.is_adopted;
        if exit.lost && is_new && !keeper::has_run(&self.dir) {
            // The last server was killed before the keeper had its orders: the child never was, and what was sent to it
            // meanwhile is still to be sent.
            self.keeper = None;
            self.stdin = Stdin::default();
            match keeper::forget(&self.dir) {
                Ok(()) => return self.open(),
                Err(error) => log::warn!("process {}: {error}", self.row.process_id),
            }
        }
        self.greet_remains();
        self.exit = Some(exit);
    }

    /// An adopted child that is gone already says no hello: what it left is taken over.
    fn greet_remains(&mut self) {
        if self.is_adopted && !self.is_greeted {
            self.is_greeted = true;
            self.news = Some((EventKind::ProcessAdopted, adopted(&self.row, false)));
        }
    }

    fn lost(&mut self, error: &str) {
        self.heard = never();
        self.ending.is_told();
        if let Err(error) = keeper::sweep(&self.row.process_id) {
            log::error!("process {}: {error}", self.row.process_id);
        }
        self.exit = Some(ended("lost", Some(error.to_owned())));
    }

    /// The record may say something new: a wish to end it, bytes for stdin.
    fn look(&mut self) {
        let process_id = self.row.process_id.clone();
        match self.shared.ledger.read(|db| rows::get(db, &process_id)) {
            Ok(row) => {
                let pid = self.row.pid;
                self.row = ProcessRow { pid, ..row };
                self.act_on_kill();
                self.send_stdin();
            }
            Err(error) => {
                log::warn!("process {process_id} can not be read: {error}");
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn send_stdin(&mut self) {
        let Some(keeper) = &self.keeper else { return };
        if self.row.stdin == "none" || self.stdin.is_closed {
            return;
        }
        let (key, from) = (self.row.process_key, self.stdin.sent);
        let unsent = match self.shared.ledger.read(|db| rows::stdin_from(db, key, from)) {
            Ok(unsent) => unsent,
            Err(error) => {
                log::warn!("process {}: its stdin: {error}", self.row.process_id);
                self.retry_at = Some(Instant::now() + RETRY);
                return;
            }
        };
        for (offset, bytes) in unsent {
            let end = offset + whole(bytes.len() as u64);
            if keeper.stdin(u64::try_from(offset).unwrap_or(0), bytes).is_err() {
                // Too much waits already; the next word of the keeper makes room.
                return;
            }
            self.stdin.sent = end;
        }
        if self.row.stdin == "closed" {
            self.stdin.is_closed = true;
            keeper.close_stdin();
        }
    }

    /// Commits what has happened, and does what hangs on that.
    fn commit(&mut self) {
        let is_last = self.exit.is_some();
        let told = [0, 1].map(|index| self.outputs[index].tell(is_last));
        let bytes = [0, 1].map(|index| whole(told[index].end));
        let end = self.exit.as_ref().map(|exit| self.end_of(exit));
        let (row, news) = (self.row.clone(), self.news.clone());
        let stdin_accepted = self.stdin.accepted;
        let payloads: Vec<String> =
            told.iter().filter_map(|told| told.payload(&row.process_id)).collect();
        let running_max = self.shared.config.processes.running_max;
        let committed = self.shared.ledger.write(move |tx| {
            if let Some((kind, payload)) = &news {
                if let (EventKind::ProcessStarted, Some(pid)) = (*kind, row.pid) {
                    tx.set_process_started(&row.process_id, pid)?;
                }
                tx.append(NewEvent::process(&row, *kind, payload.to_string()))?;
            }
            if bytes != row.bytes {
                tx.set_process_bytes(&row.process_id, bytes)?;
            }
            for payload in &payloads {
                tx.append(NewEvent::process(&row, EventKind::ProcessOutput, payload.as_str()))?;
            }
            tx.drop_process_stdin(row.process_key, stdin_accepted)?;
            match &end {
                None => Ok(Vec::new()),
                Some(end) => {
                    tx.end_process(&row.process_id, end)?;
                    tx.admit_processes(running_max)
                }
            }
        });
        match committed {
            Ok(admitted) => self.committed(bytes, stdin_accepted, admitted),
            Err(error) => {
                log::warn!("process {}: {error}; tried again", self.row.process_id);
                self.retry_at = Some(Instant::now() + RETRY);
            }
        }
    }

    fn committed(&mut self, bytes: [i64; 2], stdin_accepted: i64, admitted: Vec<String>) {
        if self.news.take().is_some_and(|(kind, _)| kind == EventKind::ProcessStarted) {
            self.row.started_at = Some(id::now_ms());
        }
        self.row.bytes = bytes;
        self.stdin.forgotten = stdin_accepted;
        self.told_at = Some(Instant::now());
        for (output, bytes) in self.outputs.iter_mut().zip(bytes) {
            output.was_told(bytes);
        }
        if self.exit.is_none() {
            if let Some(keeper) = &self.keeper {
                let [stdout, stderr] = [0, 1].map(|index| self.outputs[index].told());
                keeper.ack(stdout, stderr, false);
            }
            return;
        }
        self.is_over = true;
        self.keeper = None;
        if self.row.session_id.is_some() {
            self.shared.tell_ended();
        }
        self.shared.start_all(admitted);
        if let Err(error) = keeper::forget(&self.dir) {
            log::warn!("the journal {} can not be removed: {error}", self.dir.display());
        }
    }
}

fn adopted(row: &ProcessRow, is_live: bool) -> Value {
    json!({"process_id": row.process_id, "pid": row.pid, "is_live": is_live})
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
