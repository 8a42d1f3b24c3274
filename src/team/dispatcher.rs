//! The dispatcher: one thread that looks at a recipient's queue whenever something may have changed for it.
//!
//! It waits in one place, for new mail, for news of the sessions that mail waits for, for the end of an attempt, and
//! for the next time that something is due. It decides by [`super::plan`] alone and blocks on nothing but the ledger:
//! what has to ask a session is done by the lanes ([`super::attempt`]), one attempt a recipient at a time. It holds no
//! mail and no state that matters: a look reads everything from the ledger, so a lost thought costs a further look, and
//! the first thing it does is to look at everybody for whom mail waits.

use super::attempt::{Job, Outcome, attempt, longest_pause};
use super::plan::{Plan, plan, reason};
use super::shared::Shared;
use crate::error::{Error, Result};
use crate::ledger::team::delivery::{self, Move, Waiting};
use crate::ledger::team::left_behind::{self, LeftBehind};
use crate::ledger::team::recipient::{self, Recipient};
use crate::ledger::{Bell, Tx};
use crate::limits;
use crate::model::id;
use crate::model::team::{DeferredReason, DeliveryStatus};
use crate::provider::Capabilities;
use crate::session::{LEFT, Way};
use crate::thread::{self, Thread};
use crate::watchdog;
use crossbeam_channel::{Receiver, Sender};
use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The running dispatcher. Dropping it ends the thread and its lanes, and waits for them.
pub struct Dispatch {
    /// Closing it ends the dispatcher, and that ends the lanes.
    end: Sender<()>,
    threads: Vec<Thread>,
}

/// A recipient for whom mail waits.
struct Mailbox {
    /// Of its session's log; None until the first look, and when there is no such session.
    scope_key: Option<i64>,
    /// An attempt is under way: its end is awaited before the next look.
    is_busy: bool,
    /// It is to be looked at, because of this.
    look: Option<&'static str>,
    look_at: Option<Instant>,
    /// How often in a row its session was not as the plan thought.
    refusals: u32,
    /// All that waited for it and goes no further is ended.
    is_swept: bool,
}

type Done = (String, Outcome);

struct Dispatcher {
    shared: Arc<Shared>,
    bell: Arc<Bell>,
    rings: Receiver<()>,
    /// For recipients whose agent lives, and for those whose agent is to be woken. Never more than one job a mailbox.
    fast: Sender<Job>,
    slow: Sender<Job>,
    done: Receiver<Done>,
    end: Receiver<()>,
    mailboxes: HashMap<String, Mailbox>,
    scopes: HashMap<i64, String>,
    /// The recipient that is being looked at, for the case of a panic.
    looked_at: Option<String>,
}

/// After the ledger could not be read or written.
const LEDGER_PAUSE: Duration = Duration::from_secs(1);
/// The first pause after a session was not as the plan thought; each further one is twice as long, up to the last.
const REFUSED_PAUSE: Duration = Duration::from_millis(20);
const REFUSED_PAUSE_MAX: Duration = Duration::from_secs(2);

impl Dispatch {
    /// Starts the dispatcher and its lanes; whatever waits is looked at first.
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Dispatch> {
        // Above what ends the threads: where one can not be started, those that were are waited for last.
        let mut threads = Vec::new();
        let (fast, fast_jobs) = crossbeam_channel::unbounded();
        let (slow, slow_jobs) = crossbeam_channel::unbounded();
        let (tell_done, done) = crossbeam_channel::unbounded();
        let (end, ended) = crossbeam_channel::bounded(0);
        let (bell, rings) = shared.ledger.tail().bell();
        let no_thread = |error| Error::internal("no thread can be started").source(error);
        let lanes = [
            ("mail-fast", fast_jobs, limits::MAIL_LANE_FAST),
            ("mail-slow", slow_jobs, limits::MAIL_LANE_SLOW),
        ];
        for (name, jobs, width) in lanes {
            for _ in 0..width {
                let (shared, jobs, done) = (Arc::clone(shared), jobs.clone(), tell_done.clone());
                let lane = move || serve(&shared, &jobs, &done);
                threads.push(thread::spawn(name, lane).map_err(no_thread)?);
            }
        }
        let mut dispatcher = Dispatcher {
            shared: Arc::clone(shared),
            bell,
            rings,
            fast,
            slow,
            done,
            end: ended,
            mailboxes: HashMap::new(),
            scopes: HashMap::new(),
            looked_at: None,
        };
        let body = move || {
            watchdog::watch();
            while dispatcher.run_until_panic() {}
        };
        threads.push(thread::spawn("dispatcher", body).map_err(no_thread)?);
        Ok(Dispatch { end, threads })
    }

    /// Begins nothing new; what is under way comes to its end, for which the sessions must still be there.
    pub fn stop(self) -> Stopping {
        drop(self.end);
        Stopping { threads: self.threads }
    }
}

/// A dispatcher that ends.
pub struct Stopping {
    threads: Vec<Thread>,
}

impl Stopping {
    /// Waits for the threads until the deadline. What hangs is left behind: the next start finds its claim.
    pub fn join(self, deadline: Instant) {
        let ended = self.threads.into_iter().map(|thread| thread.join_by(deadline));
        let late = ended.filter(|ended| !ended).count();
        if late > 0 {
            log::warn!("{late} threads that bring mail did not end in time");
        }
    }
}

/// A lane: attempts, one after the other, until the dispatcher is gone.
fn serve(shared: &Shared, jobs: &Receiver<Job>, done: &Sender<Done>) {
    watchdog::watch();
    while let Ok(job) = watchdog::rest(|| jobs.recv()) {
        shared.counters.under_way.fetch_add(1, Ordering::Relaxed);
        let outcome = attempt(shared, &job);
        shared.counters.under_way.fetch_sub(1, Ordering::Relaxed);
        shared.counters.attempts.fetch_add(1, Ordering::Relaxed);
        // At shutdown nobody asks any more.
        drop(done.send((job.recipient, outcome)));
    }
}

/// What has ended the dispatcher's wait.
enum Woken {
    /// Something may be due.
    Look,
    Done(Done),
    End,
}

impl Dispatcher {
    /// False when it is over; true when a defect ended a look, and everything is to be looked at anew.
    fn run_until_panic(&mut self) -> bool {
        let run = AssertUnwindSafe(|| self.run());
        if std::panic::catch_unwind(run).is_ok() {
            return false;
        }
        log::error!("the dispatcher of team mail panicked; it begins anew");
        self.shared.counters.panics.fetch_add(1, Ordering::Relaxed);
        self.forget();
        let waited = watchdog::rest(|| self.end.recv_timeout(LEDGER_PAUSE));
        waited == Err(crossbeam_channel::RecvTimeoutError::Timeout)
    }

    /// Makes ready for a new beginning after a panic. Attempts that are under way are awaited as before: they come to
    /// their end whatever happens here. Whoever was being looked at comes behind the others, should that look be at
    /// fault.
    fn forget(&mut self) {
        let is_idle = |(_, mailbox): &(&String, &Mailbox)| !mailbox.is_busy;
        let idle: Vec<String> =
            self.mailboxes.iter().filter(is_idle).map(|(name, _)| name.clone()).collect();
        idle.iter().for_each(|name| self.close(name));
        if let Some(name) = self.looked_at.take() {
            self.open(name.clone(), "retry");
            if let Some(mailbox) = self.mailboxes.get_mut(&name) {
                mailbox.refusals = 1;
                mailbox.look_at = Some(Instant::now() + 2 * LEDGER_PAUSE);
            }
        }
    }

    fn run(&mut self) {
        while let Err(error) = self.open_all() {
            log::error!("waiting mail can not be read: {error}");
            let waited = watchdog::rest(|| self.end.recv_timeout(LEDGER_PAUSE));
            if waited != Err(crossbeam_channel::RecvTimeoutError::Timeout) {
                return;
            }
        }
        loop {
            self.round();
            let now = Instant::now();
            let due = self.mailboxes.values().filter_map(|mailbox| mailbox.due(now));
            let deadline = match due.min() {
                Some(deadline) => crossbeam_channel::at(deadline),
                None => crossbeam_channel::never(),
            };
            let woken = watchdog::rest(|| {
                crossbeam_channel::select! {
                    recv(self.shared.sessions.post().rings) -> _ => Woken::Look,
                    recv(self.rings) -> _ => Woken::Look,
                    recv(self.done) -> done => done.map_or(Woken::Look, Woken::Done),
                    recv(deadline) -> _ => Woken::Look,
                    recv(self.end) -> _ => Woken::End,
                }
            });
            match woken {
                Woken::Look => {}
                Woken::Done(done) => self.attempt_ended(done),
                Woken::End => return,
            }
        }
    }

    /// A mailbox for everybody for whom mail waits, whatever was under way when the last server ended.
    fn open_all(&mut self) -> Result<()> {
        for recipient in self.shared.ledger.read(delivery::awaited)? {
            self.open(recipient, "startuprecovery");
        }
        Ok(())
    }

    fn open(&mut self, recipient: String, trigger: &'static str) {
        // What is left behind is looked at as all that waits.
        let is_left = trigger == LEFT;
        let trigger = if is_left { "queue" } else { trigger };
        if let Some(mailbox) = self.mailboxes.get_mut(&recipient) {
            mailbox.is_swept &= !is_left;
            mailbox.look.get_or_insert(trigger);
            return;
        }
        let mailbox = Mailbox {
            scope_key: None,
            is_busy: false,
            look: Some(trigger),
            look_at: None,
            refusals: 0,
            is_swept: false,
        };
        self.mailboxes.insert(recipient, mailbox);
    }

    /// Listens to a recipient's session from now on, so before the look. Errors: it is tried again with the look.
    fn listen(&mut self, name: &str) -> Result<()> {
        let Some(mailbox) = self.mailboxes.get_mut(name) else { return Ok(()) };
        if mailbox.scope_key.is_some() {
            return Ok(());
        }
        mailbox.scope_key = self.shared.ledger.read(|db| recipient::scope_key(db, name))?;
        if let Some(scope_key) = mailbox.scope_key {
            self.bell.name(scope_key);
            self.scopes.insert(scope_key, name.to_owned());
        }
        Ok(())
    }

    fn close(&mut self, recipient: &str) {
        let closed = self.mailboxes.remove(recipient);
        if let Some(scope_key) = closed.and_then(|mailbox| mailbox.scope_key) {
            self.bell.forget(scope_key);
            self.scopes.remove(&scope_key);
        }
    }

    fn attempt_ended(&mut self, (recipient, outcome): Done) {
        let Some(mailbox) = self.mailboxes.get_mut(&recipient) else { return };
        mailbox.is_busy = false;
        let pause = match outcome {
            Outcome::Settled => {
                mailbox.refusals = 0;
                mailbox.look.get_or_insert("queue");
                return;
            }
            Outcome::NotNow => {
                self.shared.counters.not_now.fetch_add(1, Ordering::Relaxed);
                mailbox.refusals += 1;
                let doublings = (mailbox.refusals - 1).min(16);
                REFUSED_PAUSE.saturating_mul(1 << doublings).min(REFUSED_PAUSE_MAX)
            }
            Outcome::Unwritten => LEDGER_PAUSE,
        };
        mailbox.look_at = Some(Instant::now() + pause);
    }

    /// Looks at every mailbox that something has happened to, and writes down together what has to wait.
    fn round(&mut self) {
        for (recipient, trigger) in self.shared.sessions.post().take() {
            self.open(recipient, trigger);
        }
        for scope_key in self.bell.changed() {
            if let Some(mailbox) =
                self.scopes.get(&scope_key).and_then(|name| self.mailboxes.get_mut(name))
            {
                mailbox.look.get_or_insert("turncompletedboundary");
            }
        }
        let now = Instant::now();
        let is_due = |mailbox: &Mailbox| mailbox.due(now).is_some_and(|at| at <= now);
        let due: Vec<String> = self
            .mailboxes
            .iter()
            .filter(|(_, mailbox)| is_due(mailbox))
            .map(|(recipient, _)| recipient.clone())
            .collect();
        let mut changes = Vec::new();
        for recipient in &due {
            self.looked_at = Some(recipient.clone());
            if let Err(error) = self.look(recipient, &mut changes) {
                log::error!("mail for session {recipient} can not be read: {error}");
                self.look_again(recipient, Some(Instant::now() + LEDGER_PAUSE));
            }
        }
        self.looked_at = None;
        self.shared.counters.awaited.store(self.mailboxes.len(), Ordering::Relaxed);
        // One after the other, so that others write between them.
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let some: Vec<Change> = changes.by_ref().take(limits::MAIL_CHANGES).collect();
            if let Err(error) = self.shared.ledger.write(move |tx| write(tx, &some)) {
                log::error!("why mail waits can not be written down: {error}");
                due.iter().for_each(|name| self.look_again(name, Some(now + LEDGER_PAUSE)));
                return;
            }
        }
    }

    /// Adds the ends of mail that goes no further, which may lie anywhere in the queue; whether there was any. Not
    /// asked for again before somebody says that there may be more.
    fn end_left_behind(
        &mut self,
        name: &str,
        trigger: &'static str,
        changes: &mut Vec<Change>,
    ) -> Result<bool> {
        let Some(mailbox) = self.mailboxes.get_mut(name) else { return Ok(false) };
        if mailbox.is_swept {
            return Ok(false);
        }
        let ledger = &self.shared.ledger;
        let left = ledger.read(|db| left_behind::of_recipient(db, name, limits::MAIL_CHANGES))?;
        mailbox.is_swept = left.is_empty();
        changes.extend(left.iter().map(|(key, why)| Change::left_behind(*key, *why, trigger)));
        Ok(!left.is_empty())
    }

    fn look_again(&mut self, recipient: &str, at: Option<Instant>) {
        if let Some(mailbox) = self.mailboxes.get_mut(recipient) {
            mailbox.look_at = at;
        }
    }

    /// Hands an attempt to its lane.
    fn begin(&mut self, job: Job) {
        if let Some(mailbox) = self.mailboxes.get_mut(&job.recipient) {
            mailbox.is_busy = true;
        }
        let lane = if job.is_live { &self.fast } else { &self.slow };
        // A lane is there as long as the dispatcher is.
        drop(lane.send(job));
    }

    /// Looks at one recipient: starts an attempt, or adds to `changes` why its mail waits or will never go.
    fn look(&mut self, name: &str, changes: &mut Vec<Change>) -> Result<()> {
        let Some(mailbox) = self.mailboxes.get_mut(name) else { return Ok(()) };
        mailbox.look_at = None;
        let trigger = mailbox.look.take().unwrap_or("retry");
        self.listen(name)?;
        if self.end_left_behind(name, trigger, changes)? {
            self.look_again(name, Some(Instant::now()));
            return Ok(());
        }
        // The session first: what it does changes the queue's fate, not the other way round.
        let (recipient, mut queue) = self.shared.ledger.read(|db| {
            let recipient = recipient::get(db, name)?;
            Ok((recipient, delivery::queue(db, name, limits::MAIL_LOOK)?))
        })?;
        if queue.is_empty() {
            self.close(name);
            return Ok(());
        }
        let cut_off: Vec<&Waiting> = queue.iter().filter(|waiting| waiting.is_cut_off()).collect();
        if !cut_off.is_empty() {
            changes.extend(cut_off.into_iter().map(|waiting| Change::cut_off(waiting, trigger)));
            self.look_again(name, Some(Instant::now()));
            return Ok(());
        }
        let recipient = recipient.as_ref();
        let now_ms = id::now_ms();
        let pause = longest_pause(self.shared.config.teams.retry_pause);
        queue.iter_mut().for_each(|waiting| forget_far(waiting, now_ms, pause));
        match plan(recipient, can_steer(recipient), &queue, now_ms) {
            Plan::Fail { code, message } => {
                let fail = |waiting: &Waiting| Change::fail(waiting, code, message, trigger);
                changes.extend(queue.iter().map(fail));
                self.look_again(name, Some(Instant::now()));
            }
            Plan::Inject { count, way } => {
                let (now, behind) = queue.split_at(count);
                let behind = behind.iter();
                let ahead = DeferredReason::MailAhead;
                changes.extend(behind.filter_map(|waiting| Change::defer(waiting, ahead, trigger)));
                if let Some(recipient) = recipient {
                    let is_agent_needed = way == Way::NewTurn && !recipient.is_gated;
                    let deliveries = now.iter().map(|waiting| waiting.delivery_key).collect();
                    self.begin(Job {
                        recipient: name.to_owned(),
                        deliveries,
                        way,
                        is_agent_needed,
                        is_live: recipient.is_live,
                        trigger,
                    });
                }
            }
            Plan::Wait { until } => {
                if let Some(recipient) = recipient {
                    changes.extend(waits(recipient, &queue, now_ms, trigger));
                }
                if let Some(mailbox) = self.mailboxes.get_mut(name) {
                    // As it is now, it is as the plan thinks.
                    mailbox.refusals = 0;
                    mailbox.look_at = until.map(|at_ms| instant_of(at_ms, now_ms));
                }
            }
        }
        Ok(())
    }
}

impl Mailbox {
    /// When it is to be looked at; None = when something happens.
    fn due(&self, now: Instant) -> Option<Instant> {
        match self.look {
            _ if self.is_busy => None,
            // A session that is not as it should be is not asked again at once, whatever its log tells.
            Some(_) if self.refusals > 0 && self.look_at.is_some() => self.look_at,
            Some(_) => Some(now),
            None => self.look_at,
        }
    }
}

/// No pause is longer than the longest: what is further off was set before the clock was set back, and is due.
fn forget_far(waiting: &mut Waiting, now_ms: i64, longest: Duration) {
    let longest_ms = i64::try_from(longest.as_millis()).unwrap_or(i64::MAX);
    waiting.next_attempt_at =
        waiting.next_attempt_at.filter(|at| at.saturating_sub(now_ms) <= longest_ms);
}

/// Why each of the queue waits, as far as that is not written down yet. Only the first one's reason is kept up to date:
/// the others wait for it.
fn waits<'a>(
    recipient: &'a Recipient,
    queue: &'a [Waiting],
    now_ms: i64,
    trigger: &'static str,
) -> impl Iterator<Item = Change> + 'a {
    let of_place = move |(place, waiting): (usize, &Waiting)| {
        let reason = match place {
            0 => reason(recipient, waiting, now_ms),
            _ => DeferredReason::MailAhead,
        };
        Change::defer(waiting, reason, trigger)
    };
    queue.iter().enumerate().filter_map(of_place)
}

/// A change that a look has found due, for the round's one transaction.
struct Change {
    delivery_key: i64,
    to: DeliveryStatus,
    reason: Option<DeferredReason>,
    error: Option<(&'static str, &'static str)>,
    next_attempt_at: Option<i64>,
    trigger: &'static str,
}

impl Change {
    fn defer(waiting: &Waiting, reason: DeferredReason, trigger: &'static str) -> Option<Change> {
        let is_written = waiting.status == DeliveryStatus::Deferred
            && (waiting.deferred_reason == Some(reason)
                || reason == DeferredReason::MailAhead && waiting.deferred_reason.is_some());
        (!is_written).then_some(Change {
            delivery_key: waiting.delivery_key,
            to: DeliveryStatus::Deferred,
            reason: Some(reason),
            error: None,
            next_attempt_at: waiting.next_attempt_at,
            trigger,
        })
    }

    fn cut_off(waiting: &Waiting, trigger: &'static str) -> Change {
        Change {
            delivery_key: waiting.delivery_key,
            to: DeliveryStatus::Deferred,
            reason: Some(DeferredReason::CutOff),
            error: None,
            next_attempt_at: None,
            trigger,
        }
    }

    fn left_behind(delivery_key: i64, why: LeftBehind, trigger: &'static str) -> Change {
        let Move { to, error, .. } = why.end();
        Change { delivery_key, to, reason: None, error, next_attempt_at: None, trigger }
    }

    fn fail(
        waiting: &Waiting,
        code: &'static str,
        message: &'static str,
        trigger: &'static str,
    ) -> Change {
        Change {
            delivery_key: waiting.delivery_key,
            to: DeliveryStatus::Failed,
            reason: None,
            error: Some((code, message)),
            next_attempt_at: None,
            trigger,
        }
    }
}

fn write(tx: &mut Tx<'_>, changes: &[Change]) -> Result<()> {
    for change in changes {
        let moving = Move {
            reason: change.reason,
            error: change.error,
            next_attempt_at: change.next_attempt_at,
            trigger: Some(change.trigger),
            ..Move::to(change.to)
        };
        tx.move_delivery(change.delivery_key, &moving)?;
    }
    Ok(())
}

fn can_steer(recipient: Option<&Recipient>) -> bool {
    recipient
        .and_then(|recipient| recipient.capabilities.as_deref())
        .and_then(|capabilities| serde_json::from_str::<Capabilities>(capabilities).ok())
        .is_some_and(|capabilities| capabilities.steer)
}

/// The instant of a time that is to come.
fn instant_of(at_ms: i64, now_ms: i64) -> Instant {
    Instant::now() + Duration::from_millis(u64::try_from(at_ms - now_ms).unwrap_or(0))
}
