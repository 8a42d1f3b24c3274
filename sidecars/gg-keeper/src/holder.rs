//! The one loop of the keeper.
//!
//! Owns: the child, its three streams, the connection, and the phase that the whole is in. It waits
//! in one `poll` and never anywhere else, so a child that floods, a server that does not read and a
//! disk that is full cannot keep a STOP from being heard. The phases go one way: running; ending
//! (the tree was told to end, or the child ended and left something behind); draining (nothing
//! lives, the pipes are read to their end); telling (the exit file is written, the server gets the
//! rest); done.
//!
//! "Nothing lives" is not guessed from `/proc`: this process is the sub-reaper of everything that
//! the child leaves behind, so the tree is gone exactly when the kernel says that there is no child
//! to wait for. `/proc` is only read to find whom to signal.

mod term;
mod turn;

use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use gg_keeper::exit::{Exit, StoppedBy};
use gg_keeper::protocol::{BYE_REPLACED, Hello, Reply, Request, Spec, VERSION};
use gg_keeper::tree::{self, Process};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use crate::client::{Client, first_frame};
use crate::input::Input;
use crate::note;
use crate::output::Output;
use crate::signals::Signals;

use self::term::Term;

/// How much of a pipe is read at once; the size of a pipe.
const BUFFER_LEN: usize = 64 * 1024;

/// After KILL, the time until it is said again, and the time until the tree is given up. Only a
/// process in an endless system call, or one that became another user, outlives KILL.
const KILL_AGAIN: Duration = Duration::from_secs(1);
const GIVE_UP: Duration = Duration::from_secs(10);

/// How long a pipe may stay open after the tree is dead: somebody outside the tree was given the
/// other end.
const DRAIN_WAIT: Duration = Duration::from_secs(1);

/// How often each pipe is read as soon as the tree is dead: a full pipe of the usual size, and its
/// EOF.
const DRAIN_READS: usize = 3;

/// How long the end of a child waits for a full disk, before the bytes that are held are given up.
const DISK_WAIT: Duration = Duration::from_secs(60);

/// How often a full disk is tried again. This is a wait for something that sends no word.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// How long no connection is taken after one could not be: it stays where it is, so `poll` would
/// find it again at once, while what is missing (a descriptor) sends no word either.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// How long the server may take to read the rest from the socket. What is left it reads from the
/// files.
const TELL_WAIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug)]
enum Phase {
    Running,
    Ending { kill_at: Instant, give_up_at: Option<Instant> },
    Draining { until: Instant, disk_until: Instant },
    Telling { until: Instant },
    Done,
}

/// Everything of one kept child.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Pid,
    status: Option<WaitStatus>,
    /// No process of the tree is left, not even as a zombie.
    is_tree_gone: bool,
    input: Input,
    outputs: [Output; 2],
    signals: Signals,
    listener: UnixListener,
    client: Option<Client>,
    phase: Phase,
    term: Term,
    stopped_by: StoppedBy,
    /// How often a signal told this process to end.
    told_to_end: usize,
    error: Option<String>,
    exit: Option<Exit>,
    grace: Duration,
    lease: Option<Duration>,
    lease_until: Option<Instant>,
    retry_at: Option<Instant>,
    /// Connections are waited for again from then on: one could not be taken.
    accept_at: Option<Instant>,
    buffer: Vec<u8>,
}

impl Holder {
    /// Takes over a child that was just started.
    pub(crate) fn new(
        spec: &Spec,
        child: &Child,
        input: Input,
        outputs: [Output; 2],
        signals: Signals,
        listener: UnixListener,
    ) -> io::Result<Holder> {
        listener.set_nonblocking(true)?;
        Ok(Holder {
            child: Pid::from_child(child),
            status: None,
            is_tree_gone: false,
            input,
            outputs,
            signals,
            listener,
            client: None,
            phase: Phase::Running,
            term: Term::default(),
            stopped_by: StoppedBy::Child,
            told_to_end: 0,
            error: None,
            exit: None,
            grace: Duration::from_millis(spec.grace_ms),
            lease: (spec.lease_ms > 0).then(|| Duration::from_millis(spec.lease_ms)),
            lease_until: None,
            retry_at: None,
            accept_at: None,
            buffer: vec![0; BUFFER_LEN],
        })
    }

    /// Takes the connection that brought the spec; it is attached at once.
    pub(crate) fn welcome(&mut self, server: UnixStream) -> io::Result<()> {
        let mut client = Client::new(server)?;
        client.attach([0, 0]);
        self.client = Some(client);
        Ok(())
    }

    /// Holds the child until its end is told.
    pub(crate) fn run(&mut self) {
        while !matches!(self.phase, Phase::Done) {
            let ready = self.wait();
            self.take_turn(ready);
        }
    }

    fn accept(&mut self) {
        loop {
            let client = match self.listener.accept() {
                Ok((socket, _)) => Client::new(socket),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    self.accept_at = Some(Instant::now() + ACCEPT_PAUSE);
                    Err(error)
                }
            };
            match client {
                Ok(client) => {
                    if let Some(mut replaced) = self.client.replace(client) {
                        replaced.say_bye(BYE_REPLACED);
                    }
                    self.lease_until = None;
                }
                Err(error) => return note::add(&format!("a connection was not taken: {error}")),
            }
        }
    }

    fn drop_client(&mut self, reason: Option<&str>) {
        if let (Some(mut client), Some(reason)) = (self.client.take(), reason) {
            note::add(&format!("the connection was closed: {reason}"));
            client.say_bye(reason);
        }
        let lease = if is_folder_gone() { Some(Duration::ZERO) } else { self.lease };
        self.lease_until = lease.map(|lease| Instant::now() + lease);
    }

    /// Reads the socket once and does what the whole frames ask for.
    fn receive(&mut self) {
        let Some(client) = &mut self.client else { return };
        let is_open = client.receive();
        let received = client.take_received();
        let mut used = 0;
        let fault = loop {
            match first_frame(&received[used..]) {
                Ok(None) => break None,
                Err(reason) => break Some(reason),
                Ok(Some((kind, payload))) => {
                    let Some(request) = Request::decode(kind, payload) else {
                        break Some("a frame is not ours");
                    };
                    if let Err(reason) = self.serve(request) {
                        break Some(reason);
                    }
                    used += gg_keeper::protocol::HEAD_LEN + payload.len();
                }
            }
        };
        match (&mut self.client, fault) {
            (Some(client), None) if is_open => client.put_back(received, used),
            _ => self.drop_client(fault),
        }
    }

    fn serve(&mut self, request: Request<'_>) -> Result<(), &'static str> {
        match request {
            Request::Spec(_) => return Err("a second spec"),
            Request::Attach { stdout_from, stderr_from } => {
                let ends = [0, 1].map(|index| self.outputs[index].journal.end());
                if let Some(client) = &mut self.client {
                    client.attach([stdout_from.min(ends[0]), stderr_from.min(ends[1])]);
                }
            }
            Request::Stdin { offset, bytes } => {
                self.input.accept(offset, bytes)?;
                self.pass_input();
            }
            Request::CloseStdin => self.input.close_when_taken(),
            Request::Ack { stdout, stderr, trim } => self.acknowledge([stdout, stderr], trim),
            Request::Signal { signo } => self.signal_group(signo),
            Request::Stop { grace_ms } => {
                self.stop(StoppedBy::Stop, Duration::from_millis(grace_ms));
            }
            Request::Kill => self.stop(StoppedBy::Kill, Duration::ZERO),
        }
        Ok(())
    }

    fn pass_input(&mut self) {
        self.input.pass(&mut self.buffer);
        if let Some(client) = &mut self.client {
            client.tell_accepted();
        }
    }

    fn acknowledge(&mut self, offsets: [u64; 2], trim: bool) {
        for (output, offset) in self.outputs.iter_mut().zip(offsets) {
            if let Err(error) = output.journal.acknowledge(offset, trim) {
                let name = output.stream.as_str();
                note::add(&format!("a segment of {name} can not be deleted: {error}"));
            }
        }
        if trim {
            self.input.trim(true);
        }
    }

    /// Signals the child's group while the child is not reaped: its id is not given to anybody else
    /// before that.
    fn signal_group(&self, signo: i32) {
        let Some(signal) = Signal::from_named_raw(signo).filter(|_| self.status.is_none()) else {
            return;
        };
        if let Err(error) = rustix::process::kill_process_group(self.child, signal) {
            note::add(&format!("signal {signo} did not reach the child: {error}"));
        }
    }

    fn read_output(&mut self, index: usize) {
        let output = &mut self.outputs[index];
        let (offset, count) = output.read(&mut self.buffer);
        if let Some(client) = &mut self.client {
            client.offer(output.stream, offset, &self.buffer[..count]);
        }
    }

    fn pump(&mut self) {
        let hello = self.hello();
        let Some(client) = &mut self.client else { return };
        if let Err(error) = client.pump(&hello, &mut self.outputs) {
            self.drop_client(Some(&format!("a journal can not be read: {error}")));
        }
    }

    fn hello(&self) -> Hello {
        let [stdout, stderr] = &self.outputs;
        Hello {
            version: VERSION,
            keeper_pid: std::process::id(),
            child_pid: self.child.as_raw_nonzero().get().cast_unsigned(),
            stdin_end: self.input.end(),
            stdin_taken: self.input.taken(),
            stdout_base: stdout.journal.base(),
            stdout_end: stdout.journal.end(),
            stderr_base: stderr.journal.base(),
            stderr_end: stderr.journal.end(),
            is_stdin_closed: self.input.is_closing(),
        }
    }

    /// Ends the child and its tree, or shortens the time that an end under way still has.
    fn stop(&mut self, stopped_by: StoppedBy, grace: Duration) {
        match &mut self.phase {
            Phase::Running => {
                self.stopped_by = stopped_by;
                self.begin_end(grace);
            }
            Phase::Ending { kill_at, give_up_at: None } => {
                *kill_at = (*kill_at).min(Instant::now() + grace);
                if stopped_by == StoppedBy::Kill && self.stopped_by != StoppedBy::Child {
                    self.stopped_by = stopped_by;
                }
            }
            _ => {}
        }
    }

    fn begin_end(&mut self, grace: Duration) {
        self.phase = Phase::Ending { kill_at: Instant::now() + grace, give_up_at: None };
        if grace.is_zero() {
            // Before stdin is closed: a child that ends at once by EOF would not have been killed.
            kill_tree();
            self.input.close();
        } else {
            self.input.close();
            self.term.tell(Some(self.child).filter(|_| self.status.is_none()));
        }
    }

    /// Told to end by a signal: the first time with the grace of the spec, then at once.
    fn told_to_end(&mut self, times: usize) {
        self.told_to_end += times;
        let grace = if self.told_to_end > 1 { Duration::ZERO } else { self.grace };
        self.stop(StoppedBy::KeeperSignal, grace);
    }

    /// Takes the status of everything that ended. True when there was something.
    fn reap(&mut self) -> bool {
        let mut has_reaped = false;
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    has_reaped = true;
                    if pid == self.child {
                        self.status = Some(status);
                    }
                }
                Ok(None) => return has_reaped,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.is_tree_gone = true;
                    return has_reaped;
                }
            }
        }
    }

    /// Goes on to the next phase as far as the facts allow.
    fn advance(&mut self, now: Instant, has_reaped: bool) {
        if matches!(self.phase, Phase::Running) {
            if self.status.is_some() || self.is_tree_gone {
                self.begin_end_of_rest();
            } else if self.lease_until.is_some_and(|until| now >= until) {
                self.stop(StoppedBy::Lease, self.grace);
            } else if self.outputs.iter().any(Output::is_holding) && is_folder_gone() {
                // What it writes can be kept nowhere, so it would wait for ever.
                self.error = Some("the folder of this child was removed".into());
                self.stop(StoppedBy::Lease, self.grace);
            }
        }
        if let Phase::Ending { kill_at, give_up_at } = self.phase {
            self.advance_ending(now, kill_at, give_up_at, has_reaped);
        }
        if let Phase::Draining { until, disk_until } = self.phase {
            let is_complete = self.outputs.iter().all(Output::is_complete);
            let is_holding = self.outputs.iter().any(Output::is_holding);
            // A disk may get room again; a folder that was removed does not come back.
            let is_hopeless = is_holding && is_folder_gone();
            let is_late = now >= until && !is_holding || now >= disk_until || is_hopeless;
            if is_complete || is_late {
                self.record_exit(now, disk_until);
            }
        }
        if let Phase::Telling { until } = self.phase {
            self.tell_exit();
            let is_told = self.client.as_ref().is_none_or(Client::was_told_exit);
            if is_told || now >= until {
                self.phase = Phase::Done;
            }
        }
    }

    /// The child ended by itself; what it left behind is told to end too.
    fn begin_end_of_rest(&mut self) {
        if self.is_tree_gone {
            self.input.close();
            self.phase = Phase::Ending { kill_at: Instant::now(), give_up_at: None };
        } else {
            self.begin_end(self.grace);
        }
    }

    fn advance_ending(
        &mut self,
        now: Instant,
        kill_at: Instant,
        give_up_at: Option<Instant>,
        has_reaped: bool,
    ) {
        if self.is_tree_gone {
            return self.begin_drain(now);
        }
        if give_up_at.is_some_and(|give_up_at| now >= give_up_at) {
            let pids: Vec<i32> = own_tree().iter().map(|process| process.pid).collect();
            self.error = Some(format!("these processes can not be ended: {pids:?}"));
            return self.begin_drain(now);
        }
        // After KILL each death may have handed over an orphan that was born after the last look,
        // so each is followed by another round. The rounds end: whoever is found is killed, and
        // every death in the tree comes here.
        if now >= kill_at || give_up_at.is_some() && has_reaped {
            kill_tree();
            self.phase = Phase::Ending {
                kill_at: now + KILL_AGAIN,
                give_up_at: Some(give_up_at.unwrap_or(now + GIVE_UP)),
            };
        } else if has_reaped {
            self.term.tell_orphans();
        }
    }

    fn begin_drain(&mut self, now: Instant) {
        self.phase = Phase::Draining { until: now + DRAIN_WAIT, disk_until: now + DISK_WAIT };
        // What the tree wrote before it died is in the pipes now. Reading here, and not only in the
        // next turn, makes the common end (both pipes at EOF) one turn of the loop.
        for index in 0..self.outputs.len() {
            for _ in 0..DRAIN_READS {
                if self.outputs[index].wanted(true).is_some() {
                    self.read_output(index);
                }
            }
        }
    }

    fn record_exit(&mut self, now: Instant, disk_until: Instant) {
        let exit = self.make_exit();
        if let Err(error) = exit.write(Path::new(".")) {
            note::add(&format!("the exit file can not be written: {error}"));
            if now < disk_until && !is_folder_gone() {
                self.retry_at.get_or_insert(now + DISK_RETRY);
                return;
            }
        }
        self.exit = Some(exit);
        self.phase = Phase::Telling { until: now + TELL_WAIT };
    }

    fn make_exit(&self) -> Exit {
        let [stdout, stderr] = &self.outputs;
        let held: usize = self.outputs.iter().map(Output::held_len).sum();
        let lost = (held > 0).then(|| format!("the disk is full: {held} bytes of output are lost"));
        Exit {
            code: self.status.and_then(WaitStatus::exit_status),
            signal: self.status.and_then(WaitStatus::terminating_signal),
            error: self.error.clone().or(lost),
            stdin_end: self.input.end(),
            stdout_end: stdout.journal.end(),
            stderr_end: stderr.journal.end(),
            stdout_dropped: stdout.journal.dropped(),
            stderr_dropped: stderr.journal.dropped(),
            ..Exit::new(self.stopped_by)
        }
    }

    /// Sends EXIT once the server has all the output.
    fn tell_exit(&mut self) {
        self.pump();
        let (Some(client), Some(exit)) = (&mut self.client, &self.exit) else { return };
        let is_ready = !client.wants_to_write(&self.outputs) || client.is_exit_under_way();
        if is_ready {
            client.tell_exit(&Reply::Exit(exit.clone()));
        }
    }

    /// Tries the disk again. What a pipe held back meanwhile has its time from now on.
    fn retry(&mut self, now: Instant) {
        for output in &mut self.outputs {
            if output.is_holding() {
                output.retry();
                if let Phase::Draining { until, .. } = &mut self.phase {
                    *until = now + DRAIN_WAIT;
                }
            }
        }
        if self.input.is_holding() {
            self.input.store();
            self.pass_input();
        }
    }
}

/// Whether somebody has removed the folder of this child, which is the working directory here: no server can come to it
/// any more, and nothing can be left in it.
fn is_folder_gone() -> bool {
    std::fs::metadata(".").is_ok_and(|folder| folder.nlink() == 0)
}

fn kill_tree() {
    for process in own_tree() {
        drop(process.signal(Signal::KILL));
    }
}

/// What lives below this keeper. Without a descriptor to look with nothing is found, and the next round looks again:
/// that the tree is gone is known by its reaping alone.
fn own_tree() -> Vec<Process> {
    tree::descendants(rustix::process::getpid().as_raw_nonzero().get()).unwrap_or_default()
}
