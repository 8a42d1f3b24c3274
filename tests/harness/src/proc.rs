//! Processes, seen from outside.
//!
//! Owns: the reading of `/proc` (Linux), and waiting for processes to be gone by their pidfd. A process may end between
//! any two looks, so everything here gives an empty answer for one that is gone. A zombie counts as gone: it does
//! nothing any more, and who has to reap it is not the matter of a test.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
pub use rustix::process::Signal;
use rustix::process::{Pid, PidfdFlags, kill_process, pidfd_open};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// All processes below `pid`: its children, their children, and so on, in no order.
pub fn descendants(pid: u32) -> Vec<u32> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for (child, stat) in pids().into_iter().filter_map(|pid| Some((pid, Stat::of(pid)?))) {
        children.entry(stat.parent).or_default().push(child);
    }
    let mut found = Vec::new();
    let mut next = vec![pid];
    while let Some(parent) = next.pop() {
        let below = children.remove(&parent).unwrap_or_default();
        found.extend(&below);
        next.extend(below);
    }
    found
}

/// Whether the process is there and not a zombie.
pub fn alive(pid: u32) -> bool {
    Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// The live processes whose environment at their start has exactly this `KEY=VALUE`.
pub fn with_environ(pair: &str) -> Vec<u32> {
    let has = |pid: &u32| {
        let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environ.split(|byte| *byte == 0).any(|entry| entry == pair.as_bytes())
    };
    pids().into_iter().filter(has).filter(|pid| alive(*pid)).collect()
}

/// The live processes whose command line has this argument, the program's name included.
pub fn with_argument(argument: &str) -> Vec<u32> {
    let has = |pid: &u32| arguments(*pid).iter().any(|other| other == argument);
    pids().into_iter().filter(has).filter(|pid| alive(*pid)).collect()
}

/// The live keepers of a server: `gg-keeper` with a first argument under the data folder.
pub fn keepers_of(data_dir: &Path) -> Vec<u32> {
    let is_keeper = |pid: &u32| {
        let arguments = arguments(*pid);
        let name = arguments.first().map(PathBuf::from);
        name.is_some_and(|name| name.file_name().is_some_and(|name| name == "gg-keeper"))
            && arguments.get(1).is_some_and(|first| Path::new(first).starts_with(data_dir))
    };
    pids().into_iter().filter(is_keeper).filter(|pid| alive(*pid)).collect()
}

/// Waits until all are gone. Any process may be waited for, not only a child. Errors: those that are left at the end.
pub fn wait_gone(pids: &[u32], deadline: Duration) -> Result<(), Vec<u32>> {
    let end = Instant::now() + deadline;
    let mut left = Vec::new();
    for pid in pids.iter().copied().filter(|pid| alive(*pid)) {
        let Some(fd) = raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()) else {
            continue;
        };
        let wait = end.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(wait).expect("a test's deadline fits");
        let mut ready = [PollFd::new(&fd, PollFlags::IN)];
        // A signal may interrupt the poll; the process is then looked at once, which errs on the side of failing.
        let gone = poll(&mut ready, Some(&wait)).is_ok_and(|count| count > 0);
        if !gone && alive(pid) {
            left.push(pid);
        }
    }
    if left.is_empty() { Ok(()) } else { Err(left) }
}

/// Sends a signal. Errors: there is no such process, or it is not ours.
pub fn signal(pid: u32, signal: Signal) -> io::Result<()> {
    let pid = raw(pid).ok_or_else(|| io::Error::other("0 is no process"))?;
    Ok(kill_process(pid, signal)?)
}

/// Resident memory in KiB; 0 for a process that is gone.
pub fn rss_kib(pid: u32) -> u64 {
    status_number(pid, "VmRSS:")
}

/// Memory of a process in KiB; all 0 for one that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Memory {
    pub rss_kib: u64,
    /// Of pages that several map, its share.
    pub pss_kib: u64,
    pub private_kib: u64,
}

/// What the system says of a process's pages.
pub fn memory(pid: u32) -> Memory {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or_default()
    };
    Memory {
        rss_kib: kib("Rss:"),
        pss_kib: kib("Pss:"),
        private_kib: kib("Private_Clean:") + kib("Private_Dirty:"),
    }
}

/// The number of threads; 0 for a process that is gone.
pub fn thread_count(pid: u32) -> u64 {
    status_number(pid, "Threads:")
}

/// The number of open descriptors; 0 for a process that is gone.
pub fn descriptor_count(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map(Iterator::count).unwrap_or_default()
}

/// CPU time used by the process so far, user and system, in milliseconds; 0 for a process that is gone.
pub fn cpu_ms(pid: u32) -> u64 {
    let ticks = Stat::of(pid).map(|stat| stat.cpu_ticks).unwrap_or_default();
    ticks * 1000 / rustix::param::clock_ticks_per_second()
}

/// The command line; empty for a process that is gone, and for a zombie.
pub fn arguments(pid: u32) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

/// What `/proc/<pid>/stat` says, as far as it is wanted.
struct Stat {
    state: char,
    parent: u32,
    cpu_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Stat> {
        let text = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let text = String::from_utf8_lossy(&text);
        // The name is in brackets and may hold anything, brackets too: the fields start after the last one.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Stat {
            state: fields.first()?.chars().next()?,
            parent: fields.get(1)?.parse().ok()?,
            cpu_ticks: number(11)? + number(12)?,
        })
    }
}

fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn raw(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn status_number(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    number.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command, Stdio};

    const DEADLINE: Duration = Duration::from_secs(10);

    /// A shell and its one child, which run until they are told to end; both are gone after the test, also when it
    /// fails.
    struct Family {
        shell: Child,
        child: u32,
    }

    impl Family {
        /// Starts them with a mark in their environment.
        fn start(mark: &str) -> Family {
            let mut command = Command::new("sh");
            command.args(["-c", "sleep 1000 & echo $!; wait"]).env("GG_PROC_TEST", mark);
            let mut shell = command.stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            let stdout = shell.stdout.take().unwrap();
            std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
            Family { shell, child: line.trim().parse().unwrap() }
        }
    }

    impl Drop for Family {
        fn drop(&mut self) {
            // What has ended cannot be killed, which is fine.
            drop(signal(self.child, Signal::KILL));
            drop(self.shell.kill());
            drop(self.shell.wait());
        }
    }

    #[test]
    fn a_family_is_found_by_descent_and_by_its_environment() {
        let mark = format!("mark-{}", std::process::id());
        let family = Family::start(&mark);
        let (shell, child) = (family.shell.id(), family.child);
        assert_eq!(descendants(shell), [child]);
        let mut marked = with_environ(&format!("GG_PROC_TEST={mark}"));
        marked.sort_unstable();
        let mut both = [shell, child];
        both.sort_unstable();
        assert_eq!(marked, both);
        // Between its fork and its exec the child still has the shell's command line.
        crate::wait::until(DEADLINE, "the child is another program", || {
            (arguments(child) == ["sleep", "1000"]).then_some(())
        });
        assert!(rss_kib(shell) > 0);
        let memory = memory(shell);
        let Memory { rss_kib, pss_kib, private_kib } = memory;
        assert!(rss_kib >= pss_kib && pss_kib >= private_kib && private_kib > 0, "{memory:?}");
        assert_eq!(thread_count(shell), 1);
    }

    #[test]
    fn the_end_of_a_process_that_is_not_ours_is_seen() {
        let mut family = Family::start("gone");
        let (shell, child) = (family.shell.id(), family.child);
        assert_eq!(wait_gone(&[child], Duration::from_millis(20)), Err(vec![child]));
        signal(child, Signal::KILL).unwrap();
        wait_gone(&[child], DEADLINE).unwrap();
        // The shell's `wait` has returned by itself now.
        wait_gone(&[shell], DEADLINE).unwrap();
        assert!(!alive(child) && !alive(shell));
        family.shell.wait().unwrap();
        assert_eq!((rss_kib(shell), cpu_ms(shell)), (0, 0));
    }

    #[test]
    fn work_shows_in_the_cpu_time() {
        let before = cpu_ms(std::process::id());
        crate::wait::until(Duration::from_secs(20), "this process has worked 20 ms", || {
            let sum = (0..1_000_000u64).fold(0u64, |sum, number| sum.wrapping_mul(31) ^ number);
            (std::hint::black_box(sum) != 1 && cpu_ms(std::process::id()) >= before + 20)
                .then_some(())
        });
    }
}
