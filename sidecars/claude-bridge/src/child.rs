//! One `claude` process.
//!
//! Owns: the start of the program, its three pipes, and its end with everything that it has started. Four threads serve
//! a process: one writes stdin, so that a program that does not read holds back nobody else; one reads stdout; one
//! keeps the end of stderr; one waits for the end. The program's commands live in sessions of their own, which no
//! signal to a group reaches: every process of a conversation carries [`MARK`] in its environment and is found by it.
//!
//! Promises: one [`Event::Ended`] for each process, behind its last line, and then nothing of it lives. Ending takes a
//! bounded time: stdin closes, then TERM, then KILL.

use crate::line::{self, Line};
use crate::thread::spawn;
use gg_keeper::tree::{self, Process};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, waitpid};
use std::collections::VecDeque;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The variable that every process of a conversation has; its value is the conversation's id.
pub const MARK: &str = "CLAUDE_BRIDGE_SESSION";

/// What may wait for the program to read its stdin; a program that reads less is ended.
const UNREAD_BYTES_MAX: usize = 512 << 20;
/// What is kept of stderr: its end.
const STDERR_BYTES_MAX: usize = 8 << 10;
/// Between closing stdin and TERM: an idle program ends in 0.2 s.
const EOF_TIME: Duration = Duration::from_millis(1000);
/// Between TERM and KILL: the program was seen to take up to 1.6 s.
const TERM_TIME: Duration = Duration::from_millis(2000);
/// For what was killed to be gone.
const KILL_TIME: Duration = Duration::from_millis(1000);
/// For the last lines of a program that has ended.
const DRAIN_TIME: Duration = Duration::from_millis(1000);

/// How to start the program.
#[derive(Clone, Debug)]
pub struct Program {
    pub path: PathBuf,
    /// Arguments that whoever started the bridge gave for it.
    pub arguments: Vec<String>,
}

/// What a process tells the main loop.
#[derive(Debug)]
pub enum Event {
    /// A line of stdout.
    Line(Vec<u8>),
    /// A line of stdout was longer than [`line::LINE_BYTES_MAX`].
    TooLong,
    Ended {
        /// None when even that could not be learned.
        status: Option<ExitStatus>,
        stderr: String,
    },
}

/// A running process. Dropping it ends the process in the background.
#[derive(Debug)]
pub struct Child {
    stdin: Option<Sender<Vec<u8>>>,
    unread: Arc<AtomicUsize>,
    /// Closing it asks the waiting thread to end the process.
    _end: UnixStream,
}

impl Child {
    /// Starts the program; `tell` gets its events, on the threads of the process. Errors: it can not be started.
    pub fn start(
        program: &Program,
        arguments: &[String],
        cwd: &str,
        session: &str,
        tell: impl Fn(Event) -> bool + Clone + Send + 'static,
    ) -> io::Result<Child> {
        let mut process = Command::new(&program.path)
            .args(arguments)
            .args(&program.arguments)
            .current_dir(cwd)
            .env(MARK, session)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pipes = (process.stdin.take(), process.stdout.take(), process.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = pipes else {
            return Err(io::Error::other("the program has no pipes"));
        };
        let (end, asked) = UnixStream::pair()?;
        let (lines, queue) = mpsc::channel();
        let unread = Arc::new(AtomicUsize::new(0));
        let (told, drained) = mpsc::sync_channel(1);
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let counter = Arc::clone(&unread);
        spawn("claude-stdin", move || write(stdin, &queue, &counter))?;
        let (tell_line, tell_end) = (tell.clone(), tell);
        spawn("claude-stdout", move || read(stdout, &tell_line, &told))?;
        let kept = Arc::clone(&tail);
        spawn("claude-stderr", move || keep(stderr, &kept))?;
        let session = session.to_owned();
        spawn("claude-wait", move || {
            let status = wait(process, &asked, &session);
            let _is_drained = drained.recv_timeout(DRAIN_TIME).is_ok();
            let kept = tail.lock().unwrap_or_else(PoisonError::into_inner);
            let stderr = String::from_utf8_lossy(&Vec::from(kept.clone())).trim().to_owned();
            drop(kept);
            tell_end(Event::Ended { status, stderr });
        })?;
        Ok(Child { stdin: Some(lines), unread, _end: end })
    }

    /// Queues bytes for stdin. False: the program reads too little, and should be ended.
    pub fn send(&self, line: Vec<u8>) -> bool {
        let waiting = self.unread.fetch_add(line.len(), Ordering::Relaxed) + line.len();
        if let Some(stdin) = &self.stdin {
            // Without a reader the process is on its way out, and its end will be told.
            drop(stdin.send(line));
        }
        waiting <= UNREAD_BYTES_MAX
    }
}

fn write(mut stdin: ChildStdin, lines: &Receiver<Vec<u8>>, unread: &AtomicUsize) {
    while let Ok(line) = lines.recv() {
        if stdin.write_all(&line).and_then(|()| stdin.flush()).is_err() {
            return;
        }
        unread.fetch_sub(line.len(), Ordering::Relaxed);
    }
}

fn read(stdout: ChildStdout, tell: &impl Fn(Event) -> bool, told: &SyncSender<()>) {
    let mut stdout = BufReader::new(stdout);
    loop {
        let is_heard = match line::next(&mut stdout) {
            Line::Whole(line) => tell(Event::Line(line)),
            Line::TooLong => tell(Event::TooLong),
            Line::End => false,
        };
        if !is_heard {
            let _is_heard = told.try_send(()).is_ok();
            return;
        }
    }
}

fn keep(mut stderr: ChildStderr, tail: &Mutex<VecDeque<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(count) = stderr.read(&mut buffer) {
        if count == 0 {
            return;
        }
        let mut tail = tail.lock().unwrap_or_else(PoisonError::into_inner);
        tail.extend(&buffer[..count]);
        let extra = tail.len().saturating_sub(STDERR_BYTES_MAX);
        tail.drain(..extra);
    }
}

/// Waits for the end, or for the wish for it, and clears away what is left of the conversation's processes.
fn wait(mut process: std::process::Child, asked: &UnixStream, session: &str) -> Option<ExitStatus> {
    let program = process.id().cast_signed();
    let pidfd = Pid::from_raw(program).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    if let Some(pidfd) = &pidfd {
        let mut fds = [PollFd::new(pidfd, PollFlags::IN), PollFd::new(asked, PollFlags::IN)];
        while poll(&mut fds, None).is_err_and(|error| error == rustix::io::Errno::INTR) {}
        // Stdin closes with the value that the main loop drops when it asks for the end.
        if tree::wait_readable(pidfd, Instant::now() + EOF_TIME) {
            let status = process.wait().ok();
            end(session, program);
            return status;
        }
    }
    end(session, program);
    process.wait().ok()
}

/// TERM, then KILL, to every process of the conversation; then reaps those that fell to us.
fn end(session: &str, program: i32) {
    let mut ended = signal(session, Signal::TERM, Instant::now() + TERM_TIME);
    let deadline = Instant::now() + KILL_TIME;
    loop {
        let killed = signal(session, Signal::KILL, deadline);
        if killed.is_empty() || Instant::now() >= deadline {
            break;
        }
        ended.extend(killed);
    }
    // What the program left behind has fallen to us; the program itself is reaped by whoever waits for it.
    let own = std::process::id().cast_signed();
    for process in ended.iter().filter(|process| process.pid != program) {
        let is_ours = |now: Process| now.parent == own && now.is_zombie;
        if Process::look(process.pid).is_ok_and(|now| now.is_some_and(is_ours)) {
            // An error would say that it is reaped already.
            let _reaped = waitpid(Pid::from_raw(process.pid), WaitOptions::NOHANG);
        }
    }
}

/// Signals all of them and waits until they have ended, at most until the deadline. Without a descriptor to look with
/// none is found; the keeper's end of the tree is behind this one.
fn signal(session: &str, signal: Signal, deadline: Instant) -> Vec<Process> {
    let found = tree::with_variable(MARK, session).unwrap_or_default();
    let pidfds: Vec<OwnedFd> = found.iter().filter_map(|process| process.signal(signal)).collect();
    for pidfd in &pidfds {
        tree::wait_readable(pidfd, deadline);
    }
    found
}

/// Makes this process the parent of whatever a conversation leaves behind, so that it can be reaped. Errors are not
/// fatal: then init is that parent.
pub fn become_reaper() {
    let _done = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
}
