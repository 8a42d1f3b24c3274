//! One short-lived program: git, or a repository's init script.
//!
//! Runs on the caller's thread, which waits in one `poll` over both outputs, the end of the program, the stop of the
//! server and the deadline. Promises: it has no terminal, no input but what it is given, an environment made anew and
//! an end; its output is bounded; when it has ended, by itself or not, nothing of its process group is left, and after
//! a timeout or a stop nothing that carries its mark either, whatever group or session it moved to. It is never a shell
//! with text of a user in it: programs get arguments. Not here: what git is asked (see [`super::git`]).

use crate::error::{Code, Error, Result};
use crate::keeper;
use crate::watchdog;
use gg_keeper::tree;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// What to run, and what it may cost.
pub(super) struct Program {
    pub program: PathBuf,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    /// What it reads from its stdin; nothing when empty.
    pub stdin: Vec<u8>,
    pub timeout: Duration,
    /// Bytes of stdout that are kept; of stderr a smaller part.
    pub stdout_max: usize,
    /// Keep the end of stdout and not its beginning.
    pub keeps_end: bool,
    /// Finds it and all that it starts again, also after a crash of the server.
    pub mark: String,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Outcome {
    /// None when a signal ended it.
    pub exit_code: Option<i32>,
    pub signal: Option<i32>,
    pub is_timed_out: bool,
    pub stdout: Vec<u8>,
    /// The end of stderr, as text.
    pub stderr: String,
    /// Some of stdout was thrown away.
    pub is_cut: bool,
}

impl Outcome {
    pub(super) fn is_good(&self) -> bool {
        self.exit_code == Some(0) && !self.is_timed_out
    }

    /// How it ended, for a person.
    pub(super) fn ending(&self) -> String {
        match (self.is_timed_out, self.exit_code, self.signal) {
            (true, ..) => "did not end in time".to_owned(),
            (_, Some(code), _) => format!("ended with exit code {code}"),
            (_, _, Some(signal)) => format!("was ended by signal {signal}"),
            _ => "ended".to_owned(),
        }
    }
}

/// The word that ends all programs at once, when the server stops.
#[derive(Debug)]
pub(super) struct Stop {
    /// The writing end; closing it makes `stopped` readable for everybody.
    running: Mutex<Option<OwnedFd>>,
    stopped: OwnedFd,
}

impl Stop {
    pub(super) fn new() -> Result<Stop> {
        let (stopped, running) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
            .map_err(|error| Error::internal("no pipe can be made").source(error))?;
        Ok(Stop { running: Mutex::new(Some(running)), stopped })
    }

    pub(super) fn stop(&self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

/// The environment variable that carries the mark.
const MARK: &str = gg_keeper::MARK;
/// Between SIGTERM and SIGKILL.
const TERM_GRACE: Duration = Duration::from_secs(2);
/// How long a git of an earlier server is let to its own end.
const LEFT_OVER: Duration = Duration::from_secs(5);
const STDERR_MAX: usize = 16 * 1024;
/// Reads of one output at a time.
const PIECES: usize = 64;
/// How long the outputs of a program that has ended are read on, when something that left its group holds them open.
const LAST_OUTPUT: Duration = Duration::from_secs(1);

/// Why the wait for a program is over.
#[derive(PartialEq, Eq)]
enum Why {
    Ended,
    TimedOut,
    Stopped,
}

/// Runs the program to its end. Errors: it can not be started, or the server stops.
pub(super) fn run(program: &Program, stop: &Stop) -> Result<Outcome> {
    if stop.is_stopped() {
        return Err(stopping());
    }
    let name = program.program.display().to_string();
    let failed = |error: std::io::Error| {
        Error::new(Code::Conflict, format!("{name} can not be run in {}", program.cwd.display()))
            .hint("it must be installed and on the server's PATH, and the folder must be there")
            .source(error)
    };
    let stdin = match program.stdin.as_slice() {
        [] => Stdio::null(),
        bytes => Stdio::from(file_of(bytes).map_err(failed)?),
    };
    let mut child = Command::new(&program.program)
        .args(&program.args)
        .env_clear()
        .envs(&program.env)
        .env(MARK, &program.mark)
        .current_dir(&program.cwd)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let mut outputs = Outputs::new(&mut child, program);
    // The program has a limit of its own.
    let limit = Instant::now() + program.timeout;
    let why = watchdog::rest(|| attend(&child, &mut outputs, Some(stop), limit));
    if why != Why::Ended {
        // Git takes its lock files away when it is asked to end, and leaves them when it is killed; so do the programs
        // that it has started, which may come to their end after it.
        let deadline = Instant::now() + TERM_GRACE;
        signal_group(&child, Signal::TERM);
        attend(&child, &mut outputs, None, deadline);
        await_end(&program.mark, deadline);
    }
    // The child is not reaped yet, so the group's number is still its own.
    signal_group(&child, Signal::KILL);
    if why != Why::Ended {
        sweep(&program.mark);
    }
    let status = child.wait().map_err(failed)?;
    outputs.read_last();
    outputs.stdout.cut();
    outputs.stderr.cut();
    if why == Why::Stopped {
        return Err(stopping());
    }
    Ok(Outcome {
        exit_code: status.code(),
        signal: status.signal(),
        is_timed_out: why == Why::TimedOut,
        stdout: outputs.stdout.bytes,
        stderr: String::from_utf8_lossy(&outputs.stderr.bytes).trim().to_owned(),
        is_cut: outputs.stdout.is_cut,
    })
}

/// Waits until everything that carries the mark has ended by itself, for a while; then ends it. For a git that an
/// earlier server has started: killed in the middle it would leave lock files in the repository.
pub(super) fn let_end(mark: &str) {
    await_end(mark, Instant::now() + LEFT_OVER);
    for process in marked(mark) {
        // An error is one that has just ended.
        drop(process.signal(Signal::TERM));
    }
    await_end(mark, Instant::now() + TERM_GRACE);
    sweep(mark);
}

/// Waits until everything that carries the mark now has ended, or until the deadline.
fn await_end(mark: &str, deadline: Instant) {
    for process in marked(mark) {
        process.await_end(deadline);
    }
}

/// An error is no descriptor to look with; then there is none to wait with either.
fn marked(mark: &str) -> Vec<tree::Process> {
    tree::marked(mark).unwrap_or_default()
}

/// Kills everything that carries the mark.
pub(super) fn sweep(mark: &str) {
    if let Err(error) = keeper::sweep(mark) {
        log::error!("{error}");
    }
}

fn stopping() -> Error {
    Error::new(Code::ShuttingDown, "the server is shutting down")
}

/// A file without a name, to be read from its start.
fn file_of(bytes: &[u8]) -> std::io::Result<File> {
    let fd = rustix::fs::memfd_create("input", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

fn signal_group(child: &Child, signal: Signal) {
    // An error is a group that has nobody left but the child itself.
    if let Some(pid) = Pid::from_raw(child.id().cast_signed()) {
        let _: std::result::Result<(), _> = kill_process_group(pid, signal);
    }
}

/// Reads what the program writes until it has ended, its time is up, or the server stops.
fn attend(child: &Child, outputs: &mut Outputs, stop: Option<&Stop>, deadline: Instant) -> Why {
    let pid = Pid::from_raw(child.id().cast_signed());
    let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
        // Without one its end can not be waited for: it does not get to work.
        return Why::TimedOut;
    };
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Why::TimedOut;
        }
        let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
        fds.extend(stop.map(|stop| PollFd::new(&stop.stopped, PollFlags::IN)));
        fds.extend(outputs.open().map(|file| PollFd::from_borrowed_fd(file, PollFlags::IN)));
        match poll(&mut fds, Some(&tree::timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return Why::TimedOut,
        }
        let has_ended = !fds[0].revents().is_empty();
        let is_stopped = stop.is_some() && !fds[1].revents().is_empty();
        outputs.read();
        if has_ended {
            return Why::Ended;
        }
        if is_stopped {
            return Why::Stopped;
        }
    }
}

/// One output: a pipe that does not block, and what is kept of it.
struct Output {
    file: Option<File>,
    bytes: Vec<u8>,
    bytes_max: usize,
    keeps_end: bool,
    is_cut: bool,
}

struct Outputs {
    stdout: Output,
    stderr: Output,
}

impl Outputs {
    fn new(child: &mut Child, program: &Program) -> Outputs {
        let stdout = child.stdout.take().map(OwnedFd::from);
        let stderr = child.stderr.take().map(OwnedFd::from);
        Outputs {
            stdout: Output::new(stdout, program.stdout_max, program.keeps_end),
            stderr: Output::new(stderr, STDERR_MAX, true),
        }
    }

    fn open(&self) -> impl Iterator<Item = std::os::fd::BorrowedFd<'_>> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|output| Some(output.file.as_ref()?.as_fd()))
    }

    fn read(&mut self) {
        self.stdout.read();
        self.stderr.read();
    }

    /// What is still in the pipes; they end when nobody holds their other ends.
    fn read_last(&mut self) {
        let deadline = Instant::now() + LAST_OUTPUT;
        loop {
            self.read();
            let left = deadline.saturating_duration_since(Instant::now());
            let mut fds: Vec<PollFd<'_>> =
                self.open().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
            if fds.is_empty() || left.is_zero() {
                return;
            }
            if poll(&mut fds, Some(&tree::timespec(left))).is_err() {
                return;
            }
        }
    }
}

impl Output {
    fn new(fd: Option<OwnedFd>, bytes_max: usize, keeps_end: bool) -> Output {
        let file = fd.and_then(|fd| {
            let flags = rustix::fs::fcntl_getfl(&fd).ok()?;
            rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK).ok()?;
            Some(File::from(fd))
        });
        Output { file, bytes: Vec::new(), bytes_max, keeps_end, is_cut: false }
    }

    /// Takes what is there now, up to a bound: a program that writes without end must not keep the deadline waiting.
    fn read(&mut self) {
        let mut piece = [0; 16 * 1024];
        for _ in 0..PIECES {
            let Some(file) = &mut self.file else { return };
            match file.read(&mut piece) {
                Ok(0) => self.file = None,
                Ok(count) => self.keep(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => self.file = None,
            }
        }
    }

    fn keep(&mut self, piece: &[u8]) {
        if self.keeps_end {
            self.bytes.extend_from_slice(piece);
            if self.bytes.len() > 2 * self.bytes_max {
                self.cut();
            }
            return;
        }
        let room = self.bytes_max.saturating_sub(self.bytes.len()).min(piece.len());
        self.bytes.extend_from_slice(&piece[..room]);
        self.is_cut |= room < piece.len();
    }

    fn cut(&mut self) {
        if self.bytes.len() > self.bytes_max {
            self.bytes.drain(..self.bytes.len() - self.bytes_max);
            self.is_cut = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment;
    use crate::model::id;
    use gooselake_harness::temp::TempDir;
    use gooselake_harness::{thread, wait};
    use std::sync::Arc;

    /// What git does when its own program is told to end and the one that it has started is not done yet.
    #[test]
    fn what_a_program_has_started_can_clean_up_before_it_is_killed() {
        let folder = TempDir::new("gg-run");
        let started =
            "trap 'read _ < hold; rm lock; exit' TERM; touch lock; while :; do sleep 1; done";
        let script = format!("mkfifo hold; ({started}) & trap exit TERM; wait");
        let stop = Arc::new(Stop::new().unwrap());
        let program = Program {
            program: environment::find_program("sh", "/bin:/usr/bin").unwrap(),
            args: vec!["-c".to_owned(), script],
            env: environment::passed_on(&[]),
            cwd: folder.path().to_owned(),
            stdin: Vec::new(),
            timeout: Duration::from_secs(60),
            stdout_max: 100,
            keeps_end: false,
            mark: id::new("run"),
        };
        let stopping = Arc::clone(&stop);
        let running = thread::spawn("run", move || run(&program, &stopping).is_err()).unwrap();
        let lock = folder.path().join("lock");
        wait::until(Duration::from_secs(30), "the lock", || lock.exists().then_some(()));
        stop.stop();
        // Its clean-up goes on when it can read this, which is when its parent has long ended.
        let hold = File::options().read(true).write(true).open(folder.path().join("hold"));
        hold.as_ref().unwrap().write_all(b"go\n").unwrap();
        assert!(running.join(), "the server stops");
        assert!(!lock.exists(), "it was killed in its clean-up");
    }
}
