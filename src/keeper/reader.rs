//! The reading half of a connection, and the settling of its end.
//!
//! Owns: how far each stream has come, and the sink. It runs on the thread `keep-r-…` and ends when
//! the socket ends; what ends the socket is the child's end, the keeper's death, or the owner who
//! lets go. After the socket the files decide: a keeper writes the exit file before it closes the
//! socket, so a connection that ended without one has lost its keeper. Then everything with the
//! child's mark is killed, and the record of the loss is put where the exit file would be, so that
//! the next look gives the same answer.

use std::fs;
use std::io::{BufReader, ErrorKind};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use gg_keeper::exit::{self, StoppedBy};
use gg_keeper::journal::Remains;
use gg_keeper::protocol::{BYE_REPLACED, Hello, Reply, Stream, VERSION};
use gg_keeper::{LOG, tree};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::keeper::outbox::Outbox;
use crate::keeper::{Exit, FromKeeper, HELLO_WAIT, reaper, sweep};

/// How much is read from the socket or from a file at once.
const CHUNK: usize = 64 * 1024;

/// After the socket has ended without a word: how long the keeper may take to be dead.
const DEATH_WAIT: Duration = Duration::from_secs(5);

/// How much of the keeper's notes goes into the record of a loss.
const NOTE_LEN_MAX: usize = 300;

pub(super) struct Reader<S> {
    dir: PathBuf,
    child_id: String,
    socket: Option<UnixStream>,
    outbox: Arc<Outbox>,
    seen: [u64; 2],
    stdin_end: u64,
    /// The keeper's process, known from HELLO on.
    keeper: Option<OwnedFd>,
    sink: S,
}

/// How a conversation ended.
enum End {
    /// The keeper told the end of the child.
    Told(Box<exit::Exit>),
    /// The socket closed, or there was none.
    Silent,
    /// Another connection took over.
    Replaced,
    /// One of the two did not keep to the protocol.
    Fault(String),
}

impl<S: FnMut(FromKeeper)> Reader<S> {
    pub(super) fn new(
        dir: &Path,
        child_id: &str,
        socket: Option<UnixStream>,
        outbox: Arc<Outbox>,
        seen: [u64; 2],
        sink: S,
    ) -> Reader<S> {
        let (dir, child_id) = (dir.to_path_buf(), child_id.to_string());
        Reader { dir, child_id, socket, outbox, seen, stdin_end: 0, keeper: None, sink }
    }

    /// The thread's body.
    pub(super) fn run(mut self) {
        let end = match self.socket.take() {
            Some(socket) => self.converse(socket),
            None => End::Silent,
        };
        self.outbox.close();
        if self.outbox.is_let_go() {
            return;
        }
        let exit = match self.settle(end) {
            Some(exit) => self.finish(exit),
            None => replaced(),
        };
        if !self.outbox.is_let_go() {
            (self.sink)(FromKeeper::Exited(Box::new(exit)));
        }
    }

    /// Reads frames until the connection is over.
    fn converse(&mut self, socket: UnixStream) -> End {
        if let Err(error) = socket.set_read_timeout(Some(HELLO_WAIT)) {
            return End::Fault(format!("the socket takes no deadline: {error}"));
        }
        let mut socket = BufReader::with_capacity(CHUNK, socket);
        loop {
            match Reply::read(&mut socket) {
                Ok(Some(Reply::Hello(hello))) => {
                    if let Err(error) = socket.get_ref().set_read_timeout(None) {
                        return End::Fault(format!("the socket keeps its deadline: {error}"));
                    }
                    if hello.version != VERSION {
                        let version = hello.version;
                        return End::Fault(format!("the keeper speaks version {version}"));
                    }
                    self.welcome(hello);
                }
                Ok(Some(Reply::Output { stream, offset, bytes })) => {
                    if offset.checked_add(bytes.len() as u64).is_none() {
                        return End::Fault("the keeper tells of an offset that none can be".into());
                    }
                    self.deliver(stream, offset, bytes);
                }
                Ok(Some(Reply::StdinAccepted { end, taken })) => {
                    self.outbox.set_taken(taken);
                    if end > self.stdin_end {
                        self.stdin_end = end;
                        (self.sink)(FromKeeper::StdinAccepted { end });
                    }
                }
                Ok(Some(Reply::Exit(exit))) => return End::Told(Box::new(exit)),
                Ok(Some(Reply::Bye { reason })) if reason == BYE_REPLACED => return End::Replaced,
                Ok(Some(Reply::Bye { reason })) => return End::Fault(reason),
                Ok(None) => return End::Silent,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return End::Fault("the keeper does not answer".into());
                }
                Err(error) => return End::Fault(error.to_string()),
            }
        }
    }

    fn welcome(&mut self, hello: Hello) {
        // A number that no process has is none.
        let pid = i32::try_from(hello.keeper_pid).ok().and_then(Pid::from_raw);
        self.keeper = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.stdin_end = hello.stdin_end;
        self.outbox.set_taken(hello.stdin_taken);
        (self.sink)(FromKeeper::Hello(Box::new(hello)));
    }

    /// Hands bytes on; bytes that were handed on before are cut off.
    fn deliver(&mut self, stream: Stream, offset: u64, mut bytes: Vec<u8>) {
        let seen = &mut self.seen[stream.index()];
        let known = usize::try_from(seen.saturating_sub(offset)).unwrap_or(usize::MAX);
        if known >= bytes.len() {
            return;
        }
        bytes.drain(..known);
        let offset = offset + known as u64;
        *seen = offset + bytes.len() as u64;
        (self.sink)(FromKeeper::Output { stream, offset, bytes });
    }

    /// Finds out how the child ended, and makes sure that it did. None when it did not, and belongs
    /// to another connection now.
    fn settle(&mut self, end: End) -> Option<exit::Exit> {
        let reason = match end {
            End::Told(exit) => return Some(*exit),
            End::Replaced => return None,
            End::Fault(reason) => reason,
            End::Silent => {
                let deadline = Instant::now() + DEATH_WAIT;
                if self.keeper.as_ref().is_some_and(|pidfd| !tree::wait_readable(pidfd, deadline)) {
                    // It lives and has closed this connection without a word: it takes long to end, or a new one came
                    // while the socket was full.
                    return exit::Exit::read(&self.dir).ok().flatten();
                }
                "the keeper is gone and left no record".into()
            }
        };
        match exit::Exit::read(&self.dir) {
            Ok(Some(exit)) => return Some(exit),
            Ok(None) => {}
            Err(error) => log::error!("kept child {}: its exit file: {error}", self.child_id),
        }
        Some(self.record_loss(reason))
    }

    fn record_loss(&self, mut reason: String) -> exit::Exit {
        if let Err(error) = sweep(&self.child_id) {
            reason = format!("{reason}; {error}");
        }
        let notes = fs::read_to_string(self.dir.join(LOG)).unwrap_or_default();
        if let Some(note) = notes.lines().last() {
            let note: String = note.chars().take(NOTE_LEN_MAX).collect();
            reason = format!("{reason}; its last note: {note}");
        }
        let mut exit = exit::Exit::new(StoppedBy::Lost);
        exit.error = Some(reason);
        if let Err(error) = exit.write(&self.dir) {
            log::error!("kept child {}: its end can not be recorded: {error}", self.child_id);
        }
        exit
    }

    /// Hands on what is left in the files, and reaps the keeper.
    fn finish(&mut self, exit: exit::Exit) -> Exit {
        for stream in Stream::ALL {
            if let Err(error) = self.deliver_remains(stream) {
                let name = stream.as_str();
                log::error!("kept child {}: the rest of {name}: {error}", self.child_id);
            }
        }
        reaper::reap(&self.child_id);
        Exit {
            code: exit.code,
            signal: exit.signal,
            stopped_by: exit.stopped_by.as_str().into(),
            error: exit.error,
            ended_at_ms: exit.ended_at_ms,
            stdout_dropped: exit.stdout_dropped,
            stderr_dropped: exit.stderr_dropped,
            lost: exit.stopped_by == StoppedBy::Lost,
        }
    }

    fn deliver_remains(&mut self, stream: Stream) -> std::io::Result<()> {
        let mut remains = Remains::open(&self.dir, stream.as_str())?;
        while !self.outbox.is_let_go() {
            let mut bytes = vec![0; CHUNK];
            let (offset, count) = remains.read(self.seen[stream.index()], &mut bytes)?;
            if count == 0 {
                break;
            }
            bytes.truncate(count);
            self.deliver(stream, offset, bytes);
        }
        Ok(())
    }
}

/// The end of a connection whose child lives and belongs to another one.
fn replaced() -> Exit {
    let exit = exit::Exit::new(StoppedBy::Lost);
    Exit {
        code: None,
        signal: None,
        stopped_by: BYE_REPLACED.into(),
        error: Some("another connection to this keeper took over".into()),
        ended_at_ms: exit.ended_at_ms,
        stdout_dropped: 0,
        stderr_dropped: 0,
        lost: true,
    }
}
