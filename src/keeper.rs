//! Floor 2: the server's half of a kept child: spawn one, attach to one again, talk to it, hear of
//! its end.
//!
//! Owns: the socket to one keeper and two threads for it. `keep-r-…` reads frames and calls the
//! sink; it ends when the socket ends. `keep-w-…` writes what the [`Keeper`] was asked for
//! ([`outbox`]); it ends with the reader. It knows nothing of sessions, turns or agents: a child is
//! a command, three streams of bytes with offsets, and an end.
//!
//! Promises: each byte of output comes to the sink once, in order, with its offset, over any number
//! of [`attach`]es that begin where the one before had got to. The last thing that a sink hears is
//! exactly one [`FromKeeper::Exited`], also when the keeper was killed or is long gone; only a
//! [`Keeper`] that was let go (detached or dropped) ends in silence. No method of [`Keeper`]
//! blocks. The sink may: then the keeper's journal holds what comes, and the child waits when that
//! is full.
//!
//! The keeper processes are children of the server that spawned them, so somebody has to reap them:
//! each is put on a list when it is spawned ([`reaper`]), and taken off by whoever hears of its
//! end; those that ended while nobody was attached are reaped by the next spawn, and those that
//! outlive the server by init. No folder is removed here without [`forget`].

pub mod leftover;
mod outbox;
mod reader;
mod reaper;
mod weight;

use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use gg_keeper::protocol::{self, HEAD_LEN, PAYLOAD_MAX, Request};
use gg_keeper::{MARK, SOCKET, exit, tree};

pub use gg_keeper::protocol::{Hello, JournalPolicy, Policy, Stream};
pub use weight::{Held, Weight, journal_bytes, weigh_all, weigh_tree};

use crate::error::{Code, Error, Result};
use crate::keeper::outbox::Outbox;
use crate::keeper::reader::Reader;
use crate::thread::{self, Thread};

/// The size of one journal file. A segment is what an acknowledgement gives back, so it is small
/// beside any bound.
const JOURNAL_SEGMENT_BYTES: u64 = 1024 * 1024;

/// How long a keeper may take to read its spec, and to answer with HELLO; a machine under load
/// needs seconds at worst.
const SPEC_WAIT: Duration = Duration::from_secs(10);
const HELLO_WAIT: Duration = Duration::from_secs(30);

/// How long a sweep waits for the processes that it killed.
const SWEEP_WAIT: Duration = Duration::from_secs(10);

/// How long the end of a child may take beyond its grace: a keeper gives a tree up after ten seconds, and one that has
/// not told the end after this counts as one that does not answer.
pub const STOP_SLACK: Duration = Duration::from_secs(15);

/// The longest path of a socket that its address can hold with room to spare (108 bytes on Linux).
const SOCKET_PATH_LEN_MAX: usize = 100;

/// What to start, where its folder is, and how it is held.
#[derive(Clone, Debug)]
pub struct Spec {
    /// The name of the child and of its folder; every process of it carries it in its environment.
    pub child_id: String,
    /// The folder of the child: `<data>/keepers/<child_id>`. Made here, for this user alone; must
    /// not exist.
    pub dir: PathBuf,
    /// The `gg-keeper` program.
    pub program: PathBuf,
    pub argv: Vec<OsString>,
    /// The whole environment of the child; nothing is inherited.
    pub env: Vec<(String, String)>,
    /// Absolute.
    pub cwd: PathBuf,
    pub stdout: JournalPolicy,
    pub stderr: JournalPolicy,
    /// Between TERM and KILL, when the child ends by itself, by its lease or by a signal to its
    /// keeper.
    pub grace_ms: u64,
    /// How long the child may live without a server; 0 is for ever.
    pub lease_ms: u64,
    /// Whether stdin is a pipe. Otherwise it is `/dev/null`.
    pub stdin_pipe: bool,
}

/// What a sink hears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromKeeper {
    /// The child is up, and how far its streams are. Comes first, but not at all when the child did
    /// not start or its keeper is gone.
    Hello(Box<Hello>),
    /// Bytes that the child wrote. An offset that jumps says that a `drop_oldest` journal gave up
    /// what was between.
    Output { stream: Stream, offset: u64, bytes: Vec<u8> },
    /// Stdin below `end` reaches the child exactly once, whatever happens to the server.
    StdinAccepted { end: u64 },
    /// The child and all its tree are gone. Comes last, exactly once.
    Exited(Box<Exit>),
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    pub code: Option<i32>,
    pub signal: Option<i32>,
    /// `child`, `stop`, `kill`, `lease`, `keeper_signal`, `spawn_failed`, `lost`, or `replaced`
    /// when another connection took this one's place (then the child lives, and that connection
    /// owns it).
    pub stopped_by: String,
    /// Why it did not start, or what could not be done.
    pub error: Option<String>,
    pub ended_at_ms: i64,
    /// Bytes that a full `drop_newest` journal counted and did not keep.
    pub stdout_dropped: u64,
    pub stderr_dropped: u64,
    /// How it ended is not known: the keeper was killed or the machine went down.
    pub lost: bool,
}

/// A handle to a kept child. Dropping it lets the child go on without us, as [`Keeper::detach`]
/// does, and waits for the two threads; a sink that blocks must be unblocked first (drop the
/// receiving end of its channel before this handle).
#[derive(Debug)]
pub struct Keeper {
    outbox: Arc<Outbox>,
    /// None when the keeper was gone already; then only what it left behind is read.
    socket: Option<UnixStream>,
    // Both are joined after `drop` has shut the socket down.
    _writer: Option<Thread>,
    _reader: Thread,
}

/// What [`attach`] found.
#[derive(Debug)]
pub struct Attached {
    pub keeper: Keeper,
    /// Whether the keeper answered. If not, the sink gets what is left in the journal and then the
    /// end.
    pub is_live: bool,
}

/// Starts a keeper and its child. Blocks only until the keeper has read the spec. Errors: the
/// folder exists already (`conflict`), the spec can not be right (`bad_request`), the program or a
/// thread can not be started. A command that can not be started is no error here: it is an `Exited`
/// with `spawn_failed`.
pub fn spawn<S>(spec: &Spec, sink: S) -> Result<Keeper>
where
    S: FnMut(FromKeeper) + Send + 'static,
{
    let frame = spec_frame(spec)?;
    reaper::reap_ended();
    make_dir(&spec.dir)?;
    let keeper = start_keeper(spec, &frame).and_then(|socket| {
        let mut socket = Some(socket);
        let held = hold(&spec.dir, &spec.child_id, &mut socket, [0, 0], sink);
        if let (Err(_), Some(mut socket)) = (&held, socket) {
            // Nobody would ever hear of this child. The word needs no descriptor, which may be what there is none of;
            // what is left when the keeper did not take it is looked for.
            let mut frame = Vec::new();
            Request::Kill.encode(&mut frame);
            if socket.write_all(&frame).is_err() {
                sweep(&spec.child_id)?;
            }
        }
        held
    });
    if keeper.is_err() {
        // The error that is already on its way is the one that matters.
        drop(fs::remove_dir_all(&spec.dir));
    }
    keeper
}

/// Takes up a child again, from these offsets on, after a restart or a detach; works in the same
/// way when the keeper or the child has ended meanwhile. Errors: there is no such folder
/// (`not_found`), or no descriptor or thread can be had; the child is not touched then.
pub fn attach<S>(dir: &Path, stdout_from: u64, stderr_from: u64, sink: S) -> Result<Attached>
where
    S: FnMut(FromKeeper) + Send + 'static,
{
    let child_id = child_id_of(dir)?;
    if !dir.is_dir() {
        return Err(Error::not_found("kept child", &child_id));
    }
    let failed = |error| internal(format!("kept child {child_id} can not be reached"), error);
    let socket = connect(dir).and_then(|socket| {
        let Some(mut socket) = socket else { return Ok(None) };
        let mut frame = Vec::new();
        Request::Attach { stdout_from, stderr_from }.encode(&mut frame);
        // A keeper that ends just now is one that has left an exit file: the reader finds it.
        match socket.write_all(&frame) {
            Ok(()) => Ok(Some(socket)),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(None),
            Err(error) => Err(error),
        }
    });
    let mut socket = socket.map_err(failed)?;
    let is_live = socket.is_some();
    let keeper = hold(dir, &child_id, &mut socket, [stdout_from, stderr_from], sink)?;
    Ok(Attached { keeper, is_live })
}

/// The ids of the children that have a folder in `root`, in order. A root that does not exist has
/// none.
pub fn list(root: &Path) -> Result<Vec<String>> {
    let failed = |error| internal(format!("{} can not be read", root.display()), error);
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut child_ids = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if entry.file_type().map_err(failed)?.is_dir() {
            child_ids.extend(entry.file_name().into_string());
        }
    }
    child_ids.sort();
    Ok(child_ids)
}

/// Removes the folder of a child whose end was told. Errors: it has not ended (`conflict`). A
/// folder that is gone already is forgotten.
pub fn forget(dir: &Path) -> Result<()> {
    if !dir.exists() {
        return Ok(());
    }
    let child_id = child_id_of(dir)?;
    let failed = |error| internal(format!("{} can not be removed", dir.display()), error);
    if exit::Exit::read(dir).map_err(failed)?.is_none() {
        return Err(Error::new(Code::Conflict, format!("kept child {child_id} has not ended"))
            .hint("stop it and wait for its end, or attach to it to learn that it is lost"));
    }
    fs::remove_dir_all(dir).map_err(failed)
}

/// Whether a keeper that is gone may have started its command: it makes the journals first, that of stderr last.
pub fn has_run(dir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(dir) else { return false };
    entries.flatten().any(|entry| entry.file_name().as_encoded_bytes().starts_with(b"stderr."))
}

/// Kills every process that carries this child's mark, its keeper too, and says how many. For a
/// child whose keeper is gone or does not answer; blocks until they are dead, at most for ten
/// seconds. Errors: some of them can not be ended.
pub fn sweep(child_id: &str) -> Result<usize> {
    tree::sweep(child_id, SWEEP_WAIT)
        .map_err(|error| internal(format!("kept child {child_id} can not be swept"), error))
}

impl Keeper {
    /// Sends bytes that belong at `offset` of the child's stdin. Bytes that it has already are
    /// skipped, so what was not told as accepted can be sent again. Errors: too much waits already,
    /// because the child does not read (`capacity`); nothing was taken. After the end of the child
    /// the bytes are dropped.
    pub fn stdin(&self, offset: u64, bytes: Vec<u8>) -> Result<()> {
        if self.outbox.put_stdin(offset, bytes) {
            return Ok(());
        }
        let message = "the child does not read its input, and no more of it can be held";
        Err(Error::new(Code::Capacity, message))
    }

    /// Closes stdin after everything that was sent before.
    pub fn close_stdin(&self) {
        self.outbox.put_close_stdin();
    }

    /// What lies below these offsets is committed and need not be kept. `trim` also gives up the
    /// files that are only partly full: for a child that goes idle.
    pub fn ack(&self, stdout: u64, stderr: u64, trim: bool) {
        self.outbox.put_ack(stdout, stderr, trim);
    }

    /// Sends a signal to the child's process group. Signals that wait to be sent merge, as they do
    /// in the kernel.
    pub fn signal(&self, signo: i32) {
        self.outbox.put_signal(signo);
    }

    /// Closes stdin, TERMs the tree, and KILLs what is left of it after the grace.
    pub fn stop(&self, grace_ms: u64) {
        self.outbox.put_stop(grace_ms);
    }

    /// KILLs the tree.
    pub fn kill(&self) {
        self.outbox.put_kill();
    }

    /// Lets the child go on without us. The sink hears nothing more. Waits for the two threads.
    pub fn detach(self) {
        drop(self);
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.outbox.let_go();
        if let Some(socket) = &self.socket {
            // It may be closed already.
            drop(socket.shutdown(Shutdown::Both));
        }
    }
}

/// The SPEC frame, checked so far as it can be without starting anything.
fn spec_frame(spec: &Spec) -> Result<Vec<u8>> {
    if child_id_of(&spec.dir)? != spec.child_id {
        let dir = spec.dir.display();
        let child_id = &spec.child_id;
        return Err(Error::bad_request(format!("{dir} is not the folder of child {child_id}")));
    }
    if !spec.cwd.is_absolute() {
        let cwd = spec.cwd.display();
        return Err(Error::bad_request(format!("the working directory {cwd} is not absolute")));
    }
    let mut frame = Vec::new();
    Request::Spec(Box::new(protocol::Spec {
        child_id: spec.child_id.clone(),
        argv: spec.argv.clone(),
        env: spec.env.iter().map(|(name, value)| (name.into(), value.into())).collect(),
        cwd: spec.cwd.clone().into_os_string(),
        stdout: spec.stdout,
        stderr: spec.stderr,
        grace_ms: spec.grace_ms,
        lease_ms: spec.lease_ms,
        stdin_pipe: spec.stdin_pipe,
        journal_segment_bytes: JOURNAL_SEGMENT_BYTES,
    }))
    .encode(&mut frame);
    if frame.len() - HEAD_LEN > PAYLOAD_MAX {
        return Err(Error::bad_request("the command and its environment are longer than 1 MiB"));
    }
    Ok(frame)
}

fn make_dir(dir: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700);
    let made = match dir.parent() {
        Some(parent) => builder.recursive(true).create(parent),
        None => Ok(()),
    };
    made.and_then(|()| builder.recursive(false).create(dir)).map_err(|error| {
        let code = match error.kind() {
            io::ErrorKind::AlreadyExists => Code::Conflict,
            _ => Code::Internal,
        };
        Error::new(code, format!("the folder {} can not be made", dir.display())).source(error)
    })
}

/// Starts the keeper process and gives it the spec over the socket that becomes its fd 0: nothing
/// secret is in argv. It leaves our session and group by itself; its own environment is only the
/// mark, so that a sweep finds it too.
///
/// Its listening socket is made here and becomes its fd 1: a server that comes after a kill of this
/// one connects to a keeper that has not got far yet, and waits, instead of taking it for dead.
fn start_keeper(spec: &Spec, frame: &[u8]) -> Result<UnixStream> {
    let failed = |error| internal(format!("{} can not be started", spec.program.display()), error);
    let (mut ours, theirs) = UnixStream::pair().map_err(failed)?;
    let listener = listen(&spec.dir).map_err(failed)?;
    let child = Command::new(&spec.program)
        .arg(&spec.dir)
        .env_clear()
        .env(MARK, &spec.child_id)
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::from(OwnedFd::from(listener)))
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(error).hint("gg-keeper belongs beside gg-runtime-server"))?;
    reaper::add(&spec.child_id, child);
    let written = ours
        .set_write_timeout(Some(SPEC_WAIT))
        .and_then(|()| ours.write_all(frame))
        .and_then(|()| ours.set_write_timeout(None));
    if let Err(error) = written {
        drop(sweep(&spec.child_id));
        reaper::reap(&spec.child_id);
        return Err(failed(error));
    }
    Ok(ours)
}

/// Starts the threads of one connection. The socket stays with the caller when they can not be.
fn hold<S>(
    dir: &Path,
    child_id: &str,
    socket: &mut Option<UnixStream>,
    from: [u64; 2],
    sink: S,
) -> Result<Keeper>
where
    S: FnMut(FromKeeper) + Send + 'static,
{
    let failed = |error| {
        Error::new(Code::Capacity, format!("kept child {child_id} can not be held")).source(error)
    };
    let outbox = Arc::new(Outbox::default());
    let clone = |socket: &UnixStream| socket.try_clone();
    let theirs = socket.as_ref().map(clone).transpose().map_err(failed)?;
    let writing = socket.as_ref().map(clone).transpose().map_err(failed)?;
    let short: String = child_id.chars().skip(child_id.chars().count().saturating_sub(8)).collect();
    // The writer first: if the reader can not be started, nothing was read yet, and closing the
    // outbox ends the writer.
    let writer = writing.map(|writing| {
        let outbox = Arc::clone(&outbox);
        thread::spawn(format!("keep-w-{short}"), move || outbox::write(&outbox, writing))
    });
    let writer = writer.transpose().map_err(failed)?;
    let reader = Reader::new(dir, child_id, theirs, Arc::clone(&outbox), from, sink);
    match thread::spawn(format!("keep-r-{short}"), move || reader.run()) {
        Ok(reader) => {
            Ok(Keeper { outbox, socket: socket.take(), _writer: writer, _reader: reader })
        }
        Err(error) => {
            outbox.let_go();
            Err(failed(error))
        }
    }
}

/// Connects to the keeper of the child in `dir`. None when there is none any more.
fn connect(dir: &Path) -> io::Result<Option<UnixStream>> {
    match at_socket(dir, |path| UnixStream::connect(path)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => Ok(None),
            _ => Err(error),
        },
    }
}

/// The socket of the child in `dir`, before there is a keeper: for this user alone.
fn listen(dir: &Path) -> io::Result<UnixListener> {
    at_socket(dir, |path| {
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, Permissions::from_mode(0o600))?;
        Ok(listener)
    })
}

/// Does something with the path of the socket in `dir`. The address of a socket is short; a
/// descriptor of the folder stands in for a long path.
fn at_socket<T>(dir: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = dir.join(SOCKET);
    if path.as_os_str().len() <= SOCKET_PATH_LEN_MAX {
        return act(&path);
    }
    let folder = fs::File::open(dir)?;
    act(Path::new(&format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd())))
}

fn child_id_of(dir: &Path) -> Result<String> {
    let name = dir.file_name().and_then(|name| name.to_str());
    let message = || format!("{} does not name a kept child", dir.display());
    name.map(str::to_string).ok_or_else(|| Error::bad_request(message()))
}

fn internal(message: String, error: io::Error) -> Error {
    Error::internal(message).source(error)
}

#[cfg(test)]
mod tests;
