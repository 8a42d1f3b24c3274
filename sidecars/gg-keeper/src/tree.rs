//! Which processes belong to a child, and how they are ended.
//!
//! Owns: the reading of `/proc` and the signals to what was found there. The keeper looks for its
//! descendants: it is a sub-reaper, so whatever a child leaves behind, also after `setsid` and a
//! double fork, stays below it. The server looks for the mark in the environment, for the case that
//! the keeper itself was killed and its tree fell to init.
//!
//! Promises: a signal goes to the process that was seen or to nobody. A pid may be reused between
//! the look and the signal, so the process is pinned by a pidfd first, its start time is read
//! again, and the signal goes through the pidfd. A look for which there is no descriptor is an
//! error: nothing seen would be taken for nothing there. Deliberately not here: waiting for
//! children (only the keeper may reap), and grace times.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::MARK;

/// A process as it was seen: the pair of pid and start time names one process for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// Its process group.
    pub group: i32,
    /// Clock ticks since the machine started.
    pub started: u64,
    /// Ended, and not yet reaped by its parent.
    pub is_zombie: bool,
}

impl Process {
    /// Looks at one process. None when there is no such process. Errors: as with [`seen`].
    pub fn look(pid: i32) -> io::Result<Option<Process>> {
        let stat = seen(fs::read(format!("/proc/{pid}/stat")))?;
        Ok(stat.and_then(|stat| parse_stat(&stat)))
    }

    /// Waits until the process has ended, or until the deadline. One that is gone has ended.
    pub fn await_end(&self, deadline: Instant) {
        let pid = Pid::from_raw(self.pid);
        if let Some(pidfd) = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) {
            wait_readable(&pidfd, deadline);
        }
    }

    /// Sends the signal to exactly this process. None when it is gone, or is another one by now, or
    /// may not be signalled; otherwise the pidfd, which becomes readable when the process has
    /// ended.
    pub fn signal(&self, signal: Signal) -> Option<OwnedFd> {
        let pidfd = pidfd_open(Pid::from_raw(self.pid)?, PidfdFlags::empty()).ok()?;
        let seen = Process::look(self.pid).ok()??;
        if seen.started != self.started || seen.is_zombie {
            return None;
        }
        pidfd_send_signal(&pidfd, signal).ok()?;
        Some(pidfd)
    }
}

/// What was read of a process, or of a folder of them: None when it is gone, or not for us. Errors:
/// there is no descriptor to look with.
pub fn seen<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    let is_short = |error: &io::Error| {
        let errno = Errno::from_io_error(error);
        errno.is_some_and(|errno| errno == Errno::MFILE || errno == Errno::NFILE)
    };
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if is_short(&error) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Every living process below `root`, without `root` itself. Errors: as with [`seen`].
pub fn descendants(root: i32) -> io::Result<Vec<Process>> {
    Ok(below(&all()?, &[root]))
}

/// The same for several roots, out of one look at the machine.
pub fn families(roots: &[i32]) -> io::Result<Vec<Vec<Process>>> {
    let all = all()?;
    Ok(roots.iter().map(|root| below(&all, &[*root])).collect())
}

/// Every living process that has the mark of this child in its environment, and whatever lives
/// below those. The calling process is never among them. Errors: as with [`seen`].
pub fn marked(child_id: &str) -> io::Result<Vec<Process>> {
    with_variable(MARK, child_id)
}

/// Every living process that was started with this variable, and whatever lives below those. The
/// calling process is never among them. A process in the middle of an `exec` shows neither arguments
/// nor environment: it is waited for, [`EXEC_WAIT`] at most. Errors: as with [`seen`].
pub fn with_variable(name: &str, value: &str) -> io::Result<Vec<Process>> {
    let mark = format!("{name}={value}");
    let deadline = Instant::now() + EXEC_WAIT;
    loop {
        let (found, unclear) = look_for(&mark)?;
        let now = Instant::now();
        let Some(unclear) = unclear.filter(|_| now < deadline) else { return Ok(found) };
        // Nothing tells when an exec is done, only when it has failed.
        unclear.await_end(now + EXEC_PAUSE);
    }
}

/// How long an `exec` may take: the program may have to come from a slow disk.
const EXEC_WAIT: Duration = Duration::from_secs(1);
const EXEC_PAUSE: Duration = Duration::from_millis(1);

/// One look: who has the mark, and somebody who does not show yet whether it has.
fn look_for(mark: &str) -> io::Result<(Vec<Process>, Option<Process>)> {
    let own = std::process::id().cast_signed();
    let all = all()?;
    let (mut found, mut unclear) = (Vec::new(), None);
    for process in all.iter().filter(|process| process.pid != own && !process.is_zombie) {
        match environment_of(process.pid)? {
            Some(environ) if environ.split(|byte| *byte == 0).any(|it| it == mark.as_bytes()) => {
                found.push(*process);
            }
            Some(_) => {}
            None => unclear = Some(*process),
        }
    }
    let roots: Vec<i32> = found.iter().map(|process| process.pid).collect();
    for process in below(&all, &roots) {
        if process.pid != own && !found.contains(&process) {
            found.push(process);
        }
    }
    Ok((found, unclear))
}

/// Kills every process with the mark of this child, its keeper too, until none is left; then says
/// how many it killed. Blocks until they have ended, at most for `limit`. Errors: something still
/// lives then (its pids are in the message), or as with [`seen`].
pub fn sweep(child_id: &str, limit: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + limit;
    let mut killed = 0;
    loop {
        let found = marked(child_id)?;
        if found.is_empty() {
            return Ok(killed);
        }
        let pidfds: Vec<OwnedFd> =
            found.iter().filter_map(|process| process.signal(Signal::KILL)).collect();
        killed += pidfds.len();
        let all_ended = pidfds.iter().all(|pidfd| wait_readable(pidfd, deadline));
        let is_stuck = pidfds.is_empty() && !marked(child_id)?.is_empty();
        if !all_ended || is_stuck || Instant::now() >= deadline {
            let pids: Vec<i32> = marked(child_id)?.iter().map(|process| process.pid).collect();
            if pids.is_empty() {
                return Ok(killed);
            }
            return Err(io::Error::other(format!("these processes can not be ended: {pids:?}")));
        }
    }
}

/// Waits until the descriptor is readable (a pidfd: until the process has ended). False when the
/// deadline came first.
pub fn wait_readable(fd: &OwnedFd, deadline: Instant) -> bool {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = timespec(left);
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) if left.is_zero() => return false,
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return true,
            Err(_) => return false,
        }
    }
}

/// A duration as `poll` takes it, rounded up to a microsecond so that a wait never ends just before
/// its time.
pub fn timespec(duration: Duration) -> Timespec {
    let duration = duration + Duration::from_micros(1);
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

fn all() -> io::Result<Vec<Process>> {
    let Some(entries) = seen(fs::read_dir("/proc"))? else { return Ok(Vec::new()) };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Process::look(pid).transpose()).collect()
}

fn below(all: &[Process], roots: &[i32]) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<&Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found = Vec::new();
    let mut open = roots.to_vec();
    while let Some(parent) = open.pop() {
        // A family is removed when it is visited: a snapshot that is not of one instant may hold a
        // circle.
        for process in children.remove(&parent).unwrap_or_default() {
            open.push(process.pid);
            if !process.is_zombie {
                found.push(*process);
            }
        }
    }
    found
}

/// What the process was started with; None while it is in the middle of an `exec`: it has its new
/// program already (a thread of the kernel has none, and a dead process no more), and nothing else.
fn environment_of(pid: i32) -> io::Result<Option<Vec<u8>>> {
    let of = |name: &str| format!("/proc/{pid}/{name}");
    let environ = || Ok(seen(fs::read(of("environ")))?.unwrap_or_default());
    let shown: Vec<u8> = environ()?;
    if !shown.is_empty() {
        return Ok(Some(shown));
    }
    let is_bare = seen(fs::read(of("cmdline")))?.is_some_and(|arguments| arguments.is_empty())
        && seen(fs::read_link(of("exe")))?.is_some();
    // The exec may have been done between the two.
    if is_bare { Ok(None) } else { environ().map(Some) }
}

/// Reads `/proc/<pid>/stat`. The name of the program is in parentheses and may itself hold spaces
/// and parentheses, so the fields are counted from the last closing one.
fn parse_stat(stat: &[u8]) -> Option<Process> {
    let stat = String::from_utf8_lossy(stat);
    let (pid, _) = stat.split_once(' ')?;
    let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
    Some(Process {
        pid: pid.parse().ok()?,
        parent: fields.get(1)?.parse().ok()?,
        group: fields.get(2)?.parse().ok()?,
        started: fields.get(19)?.parse().ok()?,
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
    })
}

#[cfg(test)]
mod tests;
