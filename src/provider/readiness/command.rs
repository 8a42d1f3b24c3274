//! A short-lived program that is asked something and ends.
//!
//! Owns: one child in a process group of its own, from its start until it is reaped, on the thread of whoever asks. It
//! waits in one place, for the child's output, room in its stdin, its end, the deadline and the stop of the server.
//! Promises: whatever the program does, the call returns at its deadline (a moment later when it has to be killed), the
//! whole group is killed then, and no more than a bound of its output is kept. It deliberately knows no provider.

use crate::limits;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is started, and how long it may take.
pub(super) struct Ask<'a> {
    pub program: &'a Path,
    pub args: &'a [String],
    /// The whole environment.
    pub env: &'a BTreeMap<String, String>,
    pub cwd: &'a Path,
    pub deadline: Instant,
    /// Readable, or closed at its other end, when the server stops.
    pub cancelled: BorrowedFd<'a>,
}

/// What follows a line.
pub(super) enum Next {
    Listen,
    /// Bytes for the program's stdin.
    Say(Vec<u8>),
    /// That was all we wanted.
    Done,
}

/// Why a program has not told what it was asked.
#[derive(Debug)]
pub(super) enum Failure {
    NotStarted(io::Error),
    Cancelled,
    TimedOut,
    TooMuch,
    Ended { status: Option<ExitStatus>, stderr: String },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::NotStarted(error) => write!(f, "can not be started: {error}"),
            Failure::Cancelled => f.write_str("was ended, since the server stops"),
            Failure::TimedOut => f.write_str("did not answer in time"),
            Failure::TooMuch => f.write_str("wrote more than any answer has"),
            Failure::Ended { status, stderr } => {
                match status {
                    Some(status) => write!(f, "ended without an answer ({status})")?,
                    None => f.write_str("ended without an answer")?,
                }
                let last = stderr.trim_end().lines().last().unwrap_or_default();
                if last.is_empty() { Ok(()) } else { write!(f, ": {last}") }
            }
        }
    }
}

/// How long a program that has told everything may take to end by itself.
const LEAVE: Duration = Duration::from_secs(2);
/// How long a program that was killed may take to be gone: one that hangs in the kernel is left to its end there.
const GONE: Duration = Duration::from_secs(2);
/// What is kept of its stderr: the end.
const STDERR_BYTES: usize = 512;

/// Starts the program, tells it `first`, and hears its stdout line by line until `hear` is content. A last line without
/// its line end is heard too.
pub(super) fn talk(
    ask: &Ask<'_>,
    first: &[u8],
    hear: &mut dyn FnMut(&[u8]) -> Next,
) -> Result<(), Failure> {
    let mut talk = Talk::start(ask, first).map_err(Failure::NotStarted)?;
    let outcome = talk.run(ask, hear);
    let status = talk.end();
    match outcome {
        Err(Failure::Ended { stderr, .. }) => Err(Failure::Ended { status, stderr }),
        other => other,
    }
}

struct Talk {
    child: Child,
    group: Pid,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    /// What stdin had no room for yet.
    unsaid: Vec<u8>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    /// Stdout behind the last whole line.
    line: Vec<u8>,
    heard: usize,
    stderr_tail: Vec<u8>,
}

/// What one look at the program found.
enum Seen {
    Output,
    /// It has ended, and all that it wrote was read.
    End,
}

impl Talk {
    fn start(ask: &Ask<'_>, first: &[u8]) -> io::Result<Talk> {
        let mut child = Command::new(ask.program)
            .args(ask.args)
            .env_clear()
            .envs(ask.env)
            .current_dir(ask.cwd)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let group = Pid::from_child(&child);
        let pidfd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(error) => {
                kill(group);
                // Its end can be waited for by no deadline without that descriptor. It has seen nothing yet.
                child.wait()?;
                return Err(error.into());
            }
        };
        let (stdin, stdout, stderr) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let mut talk = Talk {
            child,
            group,
            pidfd,
            stdin,
            unsaid: Vec::new(),
            stdout,
            stderr,
            line: Vec::new(),
            heard: 0,
            stderr_tail: Vec::new(),
        };
        if let Some(stdin) = &talk.stdin
            && let Err(error) = rustix::io::ioctl_fionbio(stdin, true)
        {
            talk.end();
            return Err(error.into());
        }
        talk.say(first);
        Ok(talk)
    }

    fn run(&mut self, ask: &Ask<'_>, hear: &mut dyn FnMut(&[u8]) -> Next) -> Result<(), Failure> {
        let mut deadline = ask.deadline;
        let mut is_done = false;
        loop {
            match self.look(ask.cancelled, deadline) {
                Ok(Seen::Output) => {}
                Ok(Seen::End) => {
                    let rest = std::mem::take(&mut self.line);
                    if !is_done && !rest.is_empty() && matches!(hear(&rest), Next::Done) {
                        is_done = true;
                    }
                    let stderr = String::from_utf8_lossy(&self.stderr_tail).into_owned();
                    return if is_done {
                        Ok(())
                    } else {
                        Err(Failure::Ended { status: None, stderr })
                    };
                }
                // It has told everything; that it does not end by itself is no failure.
                Err(_) if is_done => return Ok(()),
                Err(failure) => return Err(failure),
            }
            if !is_done && self.hear_lines(hear) {
                is_done = true;
                self.stdin = None;
                deadline = deadline.min(Instant::now() + LEAVE);
            }
            if is_done {
                self.line.clear();
            }
        }
    }

    /// Hands out whole lines; true when `hear` is content.
    fn hear_lines(&mut self, hear: &mut dyn FnMut(&[u8]) -> Next) -> bool {
        let mut waiting = std::mem::take(&mut self.line);
        let mut start = 0;
        while let Some(length) = waiting[start..].iter().position(|byte| *byte == b'\n') {
            let next = hear(&waiting[start..start + length]);
            start += length + 1;
            match next {
                Next::Listen => {}
                Next::Say(bytes) => self.say(&bytes),
                Next::Done => return true,
            }
        }
        waiting.drain(..start);
        self.line = waiting;
        false
    }

    fn say(&mut self, bytes: &[u8]) {
        self.unsaid.extend_from_slice(bytes);
        self.say_on();
    }

    /// Says as much as there is room for. A program that does not listen any more says so by its end.
    fn say_on(&mut self) {
        while let Some(stdin) = self.stdin.as_mut().filter(|_| !self.unsaid.is_empty()) {
            match stdin.write(&self.unsaid) {
                Ok(count) => drop(self.unsaid.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.unsaid.clear(),
            }
        }
    }

    /// Waits until something happens, and reads what there is.
    fn look(&mut self, cancelled: BorrowedFd<'_>, deadline: Instant) -> Result<Seen, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Failure::TimedOut);
        }
        let wait = Timespec::try_from(left).expect("a probe's time is short");
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        fds.push(PollFd::from_borrowed_fd(cancelled, PollFlags::IN));
        let stdout = self.stdout.as_ref().map(|pipe| {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
            fds.len() - 1
        });
        let stderr = self.stderr.as_ref().map(|pipe| {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN));
            fds.len() - 1
        });
        let stdin = self.stdin.as_ref().filter(|_| !self.unsaid.is_empty()).map(|pipe| {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::OUT));
            fds.len() - 1
        });
        match poll(&mut fds, Some(&wait)) {
            Ok(0) => return Err(Failure::TimedOut),
            Err(rustix::io::Errno::INTR) => return Ok(Seen::Output),
            Err(error) => return Err(Failure::NotStarted(error.into())),
            Ok(_) => {}
        }
        let is_ready = |at: usize| !fds[at].revents().is_empty();
        let (is_over, is_cancelled) = (is_ready(0), is_ready(1));
        let (has_stdout, has_stderr) = (stdout.is_some_and(is_ready), stderr.is_some_and(is_ready));
        let has_room = stdin.is_some_and(is_ready);
        drop(fds);
        if is_cancelled {
            return Err(Failure::Cancelled);
        }
        if has_room {
            self.say_on();
        }
        if has_stdout {
            self.read_stdout()?;
        }
        if has_stderr {
            self.read_stderr();
        }
        let is_read = !has_stdout && !has_stderr;
        Ok(if is_over && is_read { Seen::End } else { Seen::Output })
    }

    fn read_stdout(&mut self) -> Result<(), Failure> {
        let count = read_some(&mut self.stdout, &mut self.line);
        self.heard += count;
        if self.heard > limits::PROBE_BYTES { Err(Failure::TooMuch) } else { Ok(()) }
    }

    fn read_stderr(&mut self) {
        read_some(&mut self.stderr, &mut self.stderr_tail);
        let excess = self.stderr_tail.len().saturating_sub(STDERR_BYTES);
        self.stderr_tail.drain(..excess);
    }

    /// Kills what is left of the group and reaps the program. None: it can not be reaped, or was not gone in time.
    fn end(mut self) -> Option<ExitStatus> {
        // Before it is reaped, so that the group's number is nobody else's.
        kill(self.group);
        gg_keeper::tree::wait_readable(&self.pidfd, Instant::now() + GONE);
        self.child.try_wait().ok().flatten()
    }
}

fn kill(group: Pid) {
    if let Err(error) = kill_process_group(group, Signal::KILL) {
        // The group is gone; the one that is not reaped yet is its leader.
        log::debug!("the group {} can not be killed: {error}", group.as_raw_nonzero());
    }
}

/// One read of a pipe that has something, or has ended: then it is closed.
fn read_some(pipe: &mut Option<impl Read>, into: &mut Vec<u8>) -> usize {
    let mut piece = [0; 16 * 1024];
    let count = pipe.as_mut().map_or(0, |pipe| pipe.read(&mut piece).unwrap_or(0));
    if count == 0 {
        *pipe = None;
    }
    into.extend_from_slice(&piece[..count]);
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use gooselake_harness::{proc, temp::TempDir, wait};

    /// Runs a shell script as the program; gives the lines up to one that says `done`.
    fn talk_to(script: &str, time: Duration) -> Result<Vec<String>, Failure> {
        talk_of(b"first\n", script, time)
    }

    fn talk_of(first: &[u8], script: &str, time: Duration) -> Result<Vec<String>, Failure> {
        let (cancelled, _cancel) = io::pipe().unwrap();
        talk_until(first, script, time, cancelled.as_fd())
    }

    fn talk_until(
        first: &[u8],
        script: &str,
        time: Duration,
        cancelled: BorrowedFd<'_>,
    ) -> Result<Vec<String>, Failure> {
        let env = BTreeMap::from([("PATH".to_owned(), std::env::var("PATH").unwrap())]);
        let args = ["-c".to_owned(), script.to_owned()];
        let ask = Ask {
            program: Path::new("/bin/sh"),
            args: &args,
            env: &env,
            cwd: Path::new("/"),
            deadline: Instant::now() + time,
            cancelled,
        };
        let mut lines = Vec::new();
        talk(&ask, first, &mut |line| {
            lines.push(String::from_utf8_lossy(line).into_owned());
            match lines.last().map(String::as_str) {
                Some("done") => Next::Done,
                Some("ask") => Next::Say(b"said\n".to_vec()),
                _ => Next::Listen,
            }
        })?;
        Ok(lines)
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn lines_go_both_ways_until_all_is_told() {
        let lines = talk_to("read a; echo $a; echo ask; read b; echo $b; echo done", LONG).unwrap();
        assert_eq!(lines, ["first", "ask", "said", "done"]);
        let lines = talk_to("printf 'one\\ndone'", LONG).unwrap();
        assert_eq!(lines, ["one", "done"], "the last line has no end");
    }

    #[test]
    fn an_end_without_an_answer_tells_how() {
        let told = talk_to("echo no; echo why not >&2; exit 3", LONG).unwrap_err().to_string();
        assert_eq!(told, "ended without an answer (exit status: 3): why not");
    }

    #[test]
    fn a_program_that_hangs_is_given_up_at_the_deadline() {
        let started = Instant::now();
        let failure = talk_to("exec sleep 1000", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(failure, Failure::TimedOut), "{failure}");
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn a_program_that_does_not_listen_is_given_up_at_the_deadline() {
        let started = Instant::now();
        // More than a pipe holds.
        let much = [b'x'; 1 << 20];
        let failure = talk_of(&much, "exec sleep 1000", Duration::from_millis(200)).unwrap_err();
        assert!(matches!(failure, Failure::TimedOut), "{failure}");
        assert!(started.elapsed() < LONG);
        // One that listens hears all of it, piece by piece.
        let lines = talk_of(&much, "head -c 1048576 | wc -c; echo done", LONG).unwrap();
        assert_eq!(lines, ["1048576", "done"]);
    }

    #[test]
    fn a_program_that_has_told_everything_does_not_keep_us() {
        let started = Instant::now();
        assert_eq!(talk_to("echo done; exec sleep 1000", LONG).unwrap(), ["done"]);
        assert!(started.elapsed() < LONG);
    }

    #[test]
    fn a_flood_has_a_bound() {
        let failure = talk_to("exec yes a line that is repeated for ever", LONG).unwrap_err();
        assert!(matches!(failure, Failure::TooMuch), "{failure}");
    }

    #[test]
    fn the_stop_of_the_server_ends_the_program_with_its_children() {
        let (cancelled, cancel) = io::pipe().unwrap();
        let folder = TempDir::new("gg-command");
        let file = folder.path().join("pids");
        let script = format!("sleep 1000 & echo $! $$ > {}; wait", file.display());
        let asker = crate::thread::spawn("asker", move || {
            let failure = talk_until(b"", &script, LONG, cancelled.as_fd()).unwrap_err();
            assert!(matches!(failure, Failure::Cancelled), "{failure}");
        });
        let text = wait::until(LONG, "the program runs", || {
            std::fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n'))
        });
        drop(cancel);
        assert!(asker.unwrap().join());
        let pids: Vec<u32> = text.split_whitespace().map(|pid| pid.parse().unwrap()).collect();
        assert_eq!(pids.len(), 2);
        proc::wait_gone(&pids, LONG).unwrap();
    }

    #[test]
    fn what_is_no_program_is_told() {
        let (cancelled, _cancel) = io::pipe().unwrap();
        let ask = Ask {
            program: Path::new("/nowhere/program"),
            args: &[],
            env: &BTreeMap::new(),
            cwd: Path::new("/"),
            deadline: Instant::now() + LONG,
            cancelled: cancelled.as_fd(),
        };
        let failure = talk(&ask, b"", &mut |_| Next::Listen).unwrap_err();
        assert!(matches!(failure, Failure::NotStarted(_)), "{failure}");
    }
}
