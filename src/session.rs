//! Floor 4: sessions. Each live one is a thread that owns its agent; this file finds, starts and stops those threads.
//!
//! [`Sessions`] is what the HTTP floor calls: its methods run on the caller's thread, hand a command to the session's
//! thread and wait for its answer. A session without a thread (asleep, or nothing to do) gets one when somebody
//! sends it a command. The table of threads is the only shared state; its lock is never held over a wait.

mod actor;
mod agent;
mod apply;
mod approval;
mod capacity;
mod command;
mod defect;
mod ending;
mod failure;
mod gateway;
pub mod input;
mod launch;
mod load;
mod mail;
mod opening;
mod place;
mod post;
mod recovery;
mod registry;
mod rest;
mod steer;
mod step;
mod terminal;
#[cfg(test)]
mod tests;
mod turn;

pub use actor::{Choice, Decision, TurnRequest, When};
pub use gateway::{AGENT_TOKEN_PREFIX, GATEWAY_SERVER, GatewayAccess, TOKENS_FOLDER};
pub use mail::{Accept, Mail, Way};
pub use place::{PlaceMode, WorktreeWish};
pub use post::{LEFT, Post};
pub use recovery::Recovered;

use crate::config::{Config, Provider};
use crate::error::{Code, Error, Result};
use crate::keeper;
use crate::ledger::agent as agent_rows;
use crate::ledger::event::NewEvent;
use crate::ledger::idempotency::{self, IdempotencyKey};
use crate::ledger::session::{NewSession, SessionChange};
use crate::ledger::{Ledger, session as session_rows};
use crate::limits;
use crate::model::event::EventKind;
use crate::process::Processes;
use crate::provider::readiness::Readiness;
use crate::provider::stage;
use crate::thread;
use crate::watchdog;
use crate::worktree::Worktrees;
use capacity::{Capacity, Reservation};
use command::{Answer, Command};
use crossbeam_channel::{Receiver, TrySendError};
use registry::{Handle, Registry};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The programs that come with the server.
#[derive(Clone, Debug)]
pub struct Sidecars {
    pub keeper: PathBuf,
    pub demo_agent: PathBuf,
    /// The command line of the bridge to Claude; None = it is not installed.
    pub claude_bridge: Option<Vec<String>>,
}

/// What all session threads share.
struct Shared {
    config: Arc<Config>,
    ledger: Ledger,
    processes: Processes,
    sidecars: Sidecars,
    /// None: agents are given no tools of ours.
    gateway: Option<GatewayAccess>,
    readiness: Readiness,
    worktrees: Worktrees,
    capacity: Arc<Capacity>,
    post: Post,
    threads: Mutex<Registry>,
    is_stopping: AtomicBool,
}

/// The sessions of this server; cheap to clone.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

/// A session that a client wants.
pub struct SessionRequest {
    pub session: NewSession,
    /// Answer when the agent is ready, not at once.
    pub wait: bool,
    /// Where the agent is to work, if not in the session's folder.
    pub worktree: Option<WorktreeWish>,
    /// Made in the transaction of the session, with its id. An error of it undoes the session.
    pub accept: Option<Accept>,
    pub idempotency: Option<IdempotencyKey>,
}

/// An answer that takes longer than any deadline of the session's own means a thread that hangs.
const ANSWER_SLACK: Duration = Duration::from_secs(60);
/// How long one agent may take to fall asleep to make room for another.
const MAKE_ROOM: Duration = Duration::from_secs(20);

impl Sessions {
    pub fn new(
        config: Arc<Config>,
        ledger: Ledger,
        processes: Processes,
        readiness: Readiness,
        worktrees: Worktrees,
        sidecars: Sidecars,
        gateway: Option<GatewayAccess>,
    ) -> Sessions {
        Sessions {
            shared: Arc::new(Shared {
                config,
                ledger,
                processes,
                sidecars,
                gateway,
                readiness,
                worktrees,
                capacity: Arc::new(Capacity::default()),
                post: Post::default(),
                threads: Mutex::new(Registry::default()),
                is_stopping: AtomicBool::new(false),
            }),
        }
    }

    /// Makes a session and starts its agent. Answers with its id. Errors: among others, it is known that the agent can
    /// not be used; then nothing is made.
    pub fn create(&self, request: SessionRequest) -> Result<String> {
        let shared = &self.shared;
        let wait = request.wait;
        let key = request.idempotency.clone();
        let key_lock = key.as_ref().map(|key| shared.worktrees.lock_key(key)).transpose()?;
        if let Some(key) = &key
            && let Some(made) = shared.ledger.read(|db| idempotency::find(db, key))?
        {
            drop(key_lock);
            return self.told_again(made, wait);
        }
        shared.refuse_when_stopping()?;
        let provider = request.session.provider.clone();
        let env = serde_json::from_str(&request.session.env).unwrap_or_default();
        shared.readiness.check(&provider, &request.session.agent, &env)?;
        let reservation = self.make_room(&provider)?;
        // A session of a key is opened when its request is made again, one of an operation is its journal's.
        let is_asked_for_once = key.is_none() && request.accept.is_none();
        let (session_id, is_new) = self.insert_placed(request)?;
        if !is_new {
            drop((key_lock, reservation));
            return self.told_again(session_id, wait);
        }
        let answer = self
            .ask(&session_id, |answer| Command::Open { reservation: Some(reservation), answer })
            .inspect_err(|error| {
                if is_asked_for_once {
                    self.close_unopened(&session_id, error);
                }
            })?;
        drop(key_lock);
        if wait {
            let timeout = shared.provider(&provider).request_timeout;
            wait_for(&answer, timeout + ANSWER_SLACK)??;
        }
        Ok(session_id)
    }

    /// What a request with this key has made, told as that one was: when the agent is ready, if it waits for that.
    /// Errors: the agent did not open the session, or a worktree for it is still being made.
    pub fn made_before(&self, key: Option<&IdempotencyKey>, wait: bool) -> Result<Option<String>> {
        let Some(key) = key else { return Ok(None) };
        let key_lock = self.shared.worktrees.lock_key(key)?;
        let made = self.shared.ledger.read(|db| idempotency::find(db, key))?;
        drop(key_lock);
        made.map(|made| self.told_again(made, wait)).transpose()
    }

    fn told_again(&self, session_id: String, wait: bool) -> Result<String> {
        let read = || self.shared.ledger.read(|db| session_rows::get(db, &session_id));
        let status = read()?.status;
        if !wait {
            if status == "starting" {
                // Whoever made it may have had no thread to open it on.
                let reservation = self.room_for(&session_id)?;
                drop(self.ask(&session_id, |answer| Command::Open { reservation, answer })?);
            }
            return Ok(session_id);
        }
        let opened = match status.as_str() {
            "starting" => self.open(&session_id),
            _ => Ok(()),
        };
        match opening::failure(&read()?) {
            Some(failure) => Err(failure),
            None => opened.map(|()| session_id),
        }
    }

    /// Ends a new session that has no thread, and whose id nobody was told: no agent is to be opened for it later.
    fn close_unopened(&self, session_id: &str, why: &Error) {
        let (id, payload) = (session_id.to_owned(), json!({"reason": why.message}).to_string());
        let closed = self.shared.ledger.write(move |tx| {
            let state = Some("closed");
            let change = SessionChange { state, is_closed: true, ..SessionChange::default() };
            tx.change_session(&id, &change)?;
            let event = NewEvent::session(&id, EventKind::SessionClosed, payload.clone());
            tx.append(event).map(|_seq| ())
        });
        match closed {
            Ok(()) => self.shared.worktrees.look_for_due(),
            Err(error) => log::error!("session {session_id} stays, refused as it was: {error}"),
        }
    }

    /// Errors: it is known that this agent can not be used.
    pub fn check_agent(&self, provider: &str, agent: &str) -> Result<()> {
        self.shared.readiness.check(provider, agent, &BTreeMap::new())
    }

    /// Has the agent of a session open, as [`Sessions::create`] does, and waits for it. Errors: it can not be, or the
    /// session is over.
    pub fn open(&self, session_id: &str) -> Result<()> {
        let reservation = self.room_for(session_id)?;
        self.call(session_id, |answer| Command::Open { reservation, answer })
    }

    /// Whether the server stops: what has failed since may be the stop's doing.
    pub fn is_stopping(&self) -> bool {
        self.shared.is_stopping.load(Ordering::SeqCst)
    }

    /// Starts, queues or refuses a turn; answers with its id.
    pub fn start_turn(&self, session_id: &str, request: TurnRequest) -> Result<String> {
        self.shared.refuse_when_stopping()?;
        if let Some(claim) = &request.idempotency
            && let Some(made) = self.shared.ledger.read(|db| idempotency::find(db, claim))?
        {
            // What was made before is told again: no agent is needed for that.
            return Ok(made);
        }
        let reservation = self.room_for(session_id)?;
        let request = Box::new(request);
        self.call(session_id, |answer| Command::StartTurn { request, reservation, answer })
    }

    pub fn interrupt(&self, session_id: &str, turn_id: &str) -> Result<()> {
        // A session that is not there must not get a thread.
        self.shared.ledger.read(|db| session_rows::key(db, session_id))?;
        let turn_id = turn_id.to_owned();
        self.call(session_id, |answer| Command::Interrupt { turn_id, answer })
    }

    pub fn decide(&self, session_id: &str, approval_id: &str, decision: Decision) -> Result<()> {
        // A refusal starts no agent.
        let is_decline = matches!(decision.choice, Choice::Meant { is_accept: false, .. });
        let reservation = if is_decline { None } else { self.room_for(session_id)? };
        let approval_id = approval_id.to_owned();
        self.call(session_id, |answer| Command::Decide {
            approval_id,
            decision,
            reservation,
            answer,
        })
    }

    /// Wakes the agent of a session, or tries again to open one that has failed; with `native_ref` on another native
    /// session, which takes the place of the old one only if the agent knows it.
    pub fn resume(&self, session_id: &str, native_ref: Option<String>) -> Result<()> {
        self.shared.refuse_when_stopping()?;
        let (id, given) = (session_id.to_owned(), native_ref.clone());
        let stored = self.shared.ledger.write(move |tx| {
            let record = tx.session(&id)?;
            if record.status == "closed" {
                return Err(over(&id));
            }
            let stored = record.provider_session_ref;
            if record.live && given.is_some() && given != stored {
                let message =
                    format!("the agent of session {id} lives, for another native session");
                return Err(Error::new(Code::Conflict, message).hint(
                    "resume with another provider_session_ref when it sleeps: `live` is false",
                ));
            }
            if given.is_none() && stored.is_none() && record.status != "starting" {
                return Err(Error::new(
                    Code::Conflict,
                    "the agent never opened this session, so there is nothing to resume",
                )
                .hint("create a new session"));
            }
            let change = SessionChange {
                state: (record.status == "failed").then_some("open"),
                provider_session_ref: given.clone(),
                is_failure_over: true,
                ..SessionChange::default()
            };
            tx.change_session(&id, &change)?;
            Ok(stored)
        })?;
        let opened = self.open(session_id);
        let (id, has_opened) = (session_id.to_owned(), opened.is_ok());
        self.shared.ledger.write(move |tx| {
            if has_opened {
                let event = NewEvent::session(&id, EventKind::SessionResumed, "{}".to_owned());
                return tx.append(event).map(|_seq| ());
            }
            // What the agent does not know is not kept in the place of what it knew.
            let provider_session_ref = stored.clone().filter(|_| native_ref.is_some());
            tx.change_session(
                &id,
                &SessionChange { provider_session_ref, ..SessionChange::default() },
            )
        })?;
        opened
    }

    /// Ends the session, its agent's process tree and the processes that it owns; waits also if that goes on already.
    pub fn close(&self, session_id: &str, reason: &str) -> Result<()> {
        for process_id in &self.begin_close(session_id, reason)? {
            self.shared.processes.wait_killed(process_id)?;
        }
        Ok(())
    }

    /// The same without waiting for the processes: their ids, which are told to end.
    pub fn begin_close(&self, session_id: &str, reason: &str) -> Result<Vec<String>> {
        let record = self.shared.ledger.read(|db| session_rows::get(db, session_id))?;
        if record.status == "closed" {
            // Whoever closed it may not have come so far.
            if record.live {
                self.call(session_id, |answer| Command::AwaitEnd { answer })?;
            }
            return self.shared.processes.kill_owned(session_id);
        }
        let reason = reason.to_owned();
        let closed = self.call(session_id, |answer| Command::Close { reason, answer });
        // Also when the answer did not come in time: the session may be closed all the same.
        let is_closed = closed.is_ok()
            || self.shared.ledger.read(|db| session_rows::get(db, session_id))?.status == "closed";
        let ending = match is_closed {
            true => self.shared.processes.kill_owned(session_id)?,
            false => Vec::new(),
        };
        closed.map(|()| ending)
    }

    /// Removes a session that was closed before, and its whole log, for good; in steps: others write between them.
    pub fn purge(&self, session_id: &str) -> Result<()> {
        // First the files: a purge that is cut off is done again.
        stage::unstage(&self.shared.config.providers_dir, session_id)?;
        loop {
            let session_id = session_id.to_owned();
            if self.shared.ledger.write(move |tx| tx.purge_step(&session_id))? {
                return Ok(());
            }
        }
    }

    /// Has the agents of a provider started anew before their next turn: what they were started with does not hold any
    /// more. Idle ones go to sleep now, busy ones when their turn has ended. Nobody waits for it: a turn that comes
    /// later finds the new agent. A server that is killed before a busy agent's turn has ended leaves it as it is.
    pub fn renew_agents(&self, provider: &str) -> Result<()> {
        let live = self.shared.ledger.read(|db| agent_rows::live_sessions_of(db, provider))?;
        for session_id in live {
            if let Err(error) = self.shared.send(&session_id, Command::Renew) {
                log::warn!("the agent of session {session_id} goes on as it is: {error}");
            }
        }
        Ok(())
    }

    fn has_thread(&self, session_id: &str) -> bool {
        self.shared.lock().live.contains_key(session_id)
    }

    /// Threads of sessions now.
    pub fn threads(&self) -> usize {
        self.shared.lock().live.len()
    }

    /// Stops all threads by the deadline. Busy agents stay with their keepers, idle ones go to sleep; all are ended
    /// when `is_final`. Threads that hang are left behind and named in the log.
    pub fn shut_down(&self, is_final: bool, deadline: Instant) {
        self.shared.is_stopping.store(true, Ordering::SeqCst);
        let handles: Vec<(String, Handle)> = self.shared.lock().live.drain().collect();
        let end = || Box::new(Command::Shutdown { is_final });
        // First those that hear it at once: one whose inbox is full must not keep the others from ending.
        let is_full = |(_, handle): &&(String, Handle)| handle.commands.try_send(end()).is_err();
        let full: Vec<&(String, Handle)> = handles.iter().filter(is_full).collect();
        for (_, handle) in full {
            drop(handle.commands.send_deadline(end(), deadline));
        }
        let retired = std::mem::take(&mut self.shared.lock().retired);
        let ended = retired.into_iter().map(|thread| thread.join_by(deadline));
        let mut late = ended.filter(|ended| !ended).count();
        for (_, Handle { commands, thread }) in handles {
            if thread.is_none_or(|thread| thread.join_by(deadline)) {
                continue;
            }
            late += 1;
            // The inbox stays open until its thread has ended by itself.
            std::mem::forget(commands);
        }
        if late > 0 {
            log::warn!("{late} sessions did not stop in time; agents stay with their keepers");
        }
    }

    /// A reservation for a session whose agent is not running; None for one that is.
    fn room_for(&self, session_id: &str) -> Result<Option<Reservation>> {
        let (provider, is_served) = self.shared.ledger.read(|db| {
            let record = session_rows::get(db, session_id)?;
            let is_over = matches!(record.status.as_str(), "closed" | "failed");
            // One that is starting has its room from its creation, and its thread has that.
            let is_starting = record.status == "starting";
            let has_room = record.live || is_starting && self.has_thread(session_id);
            Ok((record.provider, has_room || is_over))
        })?;
        if is_served { Ok(None) } else { self.make_room(&provider).map(Some) }
    }

    /// A reservation, after the longest idle agent was put to sleep if there was no room. Errors: `capacity`.
    fn make_room(&self, provider: &str) -> Result<Reservation> {
        let live_max = self.shared.provider(provider).live_max;
        let ledger = &self.shared.ledger;
        if let Some(reservation) = self.shared.capacity.reserve(provider, live_max) {
            return Ok(reservation);
        }
        let idle = ledger.read(|db| agent_rows::idle_sessions(db, provider, i64::MAX))?;
        for session_id in idle.iter().take(3) {
            let asleep = self.ask(session_id, |answer| Command::Sleep { answer })?;
            let is_asleep = wait_for(&asleep, MAKE_ROOM).is_ok_and(|slept| slept.unwrap_or(false));
            if is_asleep && let Some(reservation) = self.shared.capacity.reserve(provider, live_max)
            {
                return Ok(reservation);
            }
        }
        Err(Error::new(
            Code::Capacity,
            format!("{live_max} agents of {provider} live, as many as the configuration allows"),
        )
        .hint("close a session, wait for a turn to end, or raise max_instances"))
    }

    fn call<T>(&self, session_id: &str, command: impl FnOnce(Answer<T>) -> Command) -> Result<T> {
        let answer = self.ask(session_id, command)?;
        let provider = self.shared.config.providers.values();
        let longest = provider.map(|provider| provider.request_timeout).max().unwrap_or_default();
        wait_for(&answer, longest + ANSWER_SLACK)?
    }

    fn ask<T>(
        &self,
        session_id: &str,
        command: impl FnOnce(Answer<T>) -> Command,
    ) -> Result<Receiver<Result<T>>> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        self.shared.send(session_id, command(answer))?;
        Ok(answered)
    }
}

/// The answer, or `agent_timeout` when none comes.
fn wait_for<T>(answer: &Receiver<T>, at_most: Duration) -> Result<T> {
    // The session's own thread is watched; who waits for it hangs by no fault of his.
    watchdog::rest(|| answer.recv_timeout(at_most)).map_err(|error| match error {
        crossbeam_channel::RecvTimeoutError::Timeout => {
            Error::new(Code::AgentTimeout, "the session did not answer in time")
        }
        crossbeam_channel::RecvTimeoutError::Disconnected => {
            Error::internal("the session's thread ended before it answered")
                .hint("the log of the server says why; try again")
        }
    })
}

fn over(session_id: &str) -> Error {
    Error::new(Code::SessionClosed, format!("session {session_id} is closed"))
        .hint("create a new session")
}

impl Shared {
    fn provider(&self, name: &str) -> &Provider {
        // A provider may have left the configuration while sessions of it are in the ledger.
        static GONE: LazyLock<Provider> = LazyLock::new(Provider::gone);
        self.config.providers.get(name).unwrap_or(&GONE)
    }

    fn keepers_dir(&self) -> PathBuf {
        self.config.root_dir.join("keepers")
    }

    fn keeper_dir(&self, child_id: &str) -> PathBuf {
        self.keepers_dir().join(child_id)
    }

    /// Ends a child that no session knows, and removes what it left.
    fn end_orphan(&self, child_id: &str) {
        if let Err(error) = keeper::sweep(child_id) {
            log::error!("the orphan {child_id} can not be ended: {error}");
            return;
        }
        gateway::take_back(&self.config.root_dir, child_id);
        if let Err(error) = std::fs::remove_dir_all(self.keeper_dir(child_id)) {
            log::warn!("the journal of {child_id} can not be removed: {error}");
        }
    }

    fn reserve(self: &Arc<Self>, provider: &str) -> Option<Reservation> {
        self.capacity.reserve(provider, self.provider(provider).live_max)
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    fn refuse_when_stopping(&self) -> Result<()> {
        if self.is_stopping() {
            return Err(Error::new(Code::ShuttingDown, "the server is shutting down"));
        }
        Ok(())
    }

    /// Hands a command to the session's thread, which is started if there is none.
    fn send(self: &Arc<Self>, session_id: &str, command: Command) -> Result<()> {
        let mut threads = self.lock();
        // Under the lock, as the end takes all threads under it: none starts behind that.
        self.refuse_when_stopping()?;
        threads.retired.retain(|thread| !thread.is_finished());
        let handle = match threads.live.get(session_id) {
            Some(handle) => handle,
            None => {
                let handle = self.start(session_id, None)?;
                threads.live.entry(session_id.to_owned()).or_insert(handle)
            }
        };
        handle.commands.try_send(Box::new(command)).map_err(|error| match error {
            TrySendError::Full(_) => Error::new(
                Code::Capacity,
                format!("{} requests wait for session {session_id}", limits::SESSION_INBOX),
            ),
            TrySendError::Disconnected(_) => Error::internal("the session's thread has ended"),
        })
    }

    /// Starts the session's thread if there is none.
    fn wake(self: &Arc<Self>, session_id: &str, reservation: Option<Reservation>) -> Result<()> {
        let mut threads = self.lock();
        self.refuse_when_stopping()?;
        if !threads.live.contains_key(session_id) {
            let handle = self.start(session_id, reservation)?;
            threads.live.insert(session_id.to_owned(), handle);
        }
        Ok(())
    }

    fn start(
        self: &Arc<Self>,
        session_id: &str,
        reservation: Option<Reservation>,
    ) -> Result<Handle> {
        let (commands, inbox) = crossbeam_channel::bounded(limits::SESSION_INBOX);
        let shared = Arc::clone(self);
        let session_id: Arc<str> = Arc::from(session_id);
        let short = &session_id[session_id.len().saturating_sub(6)..];
        let name = format!("session-{short}");
        let body = move || defect::run(&shared, &session_id, inbox, reservation);
        let thread = thread::spawn(name, body).map_err(|error| {
            Error::new(Code::Capacity, "no thread can be started").source(error)
        })?;
        Ok(Handle { commands, thread: Some(thread) })
    }

    /// A thread with nothing left to do takes itself out of the table, unless somebody has sent it something.
    fn retire(&self, session_id: &str, inbox: &Receiver<Box<Command>>) -> bool {
        self.lock().retire(session_id, inbox)
    }
}
