//! A program asked for its version: a short-lived helper with a deadline.
//!
//! It writes into memory that belongs to a descriptor, not into a pipe, so nothing waits for what it leaves behind. Its
//! process group is killed at the deadline, and at its end.

use crate::environment;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Programs on a runtime that starts slowly need seconds.
const WAIT: Duration = Duration::from_secs(10);
/// A version is told in the first of these bytes.
const READ_BYTES: u64 = 4096;
/// What of it is shown.
const SHOWN_CHARS: usize = 80;

/// The first line that the program prints for `--version`. Errors: why there is none, as a phrase.
pub(super) fn version(program: &Path) -> Result<String, String> {
    first_line(program, &["--version"], WAIT)
}

fn first_line(program: &Path, arguments: &[&str], at_most: Duration) -> Result<String, String> {
    let (status, text) = run(program, arguments, at_most).map_err(|error| error.to_string())?;
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().take(SHOWN_CHARS).collect();
    match status {
        None => Err(format!("no end after {} s", at_most.as_secs())),
        Some(status) if !status.success() => Err(format!("{status} {line}").trim().to_owned()),
        Some(_) if line.is_empty() => Err("it printed nothing".to_owned()),
        Some(_) => Ok(line),
    }
}

/// The status, None when it was killed at the deadline, and the beginning of what it wrote.
fn run(
    program: &Path,
    arguments: &[&str],
    at_most: Duration,
) -> io::Result<(Option<ExitStatus>, String)> {
    let mut output = File::from(rustix::fs::memfd_create("version", MemfdFlags::CLOEXEC)?);
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .envs(environment::passed_on(&[]))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    let status = wait(&mut child, at_most)?;
    output.rewind()?;
    let mut bytes = Vec::new();
    output.take(READ_BYTES).read_to_end(&mut bytes)?;
    Ok((status, String::from_utf8_lossy(&bytes).into_owned()))
}

fn wait(child: &mut Child, at_most: Duration) -> io::Result<Option<ExitStatus>> {
    let pid = Pid::from_child(child);
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let is_over = gg_keeper::tree::wait_readable(&pidfd, Instant::now() + at_most);
    // Before it is reaped, so that the group is its own; also after its end, for what it started.
    if let Err(error) = kill_process_group(pid, Signal::KILL) {
        log::debug!("the group of {} is gone: {error}", child.id());
    }
    let status = child.wait()?;
    Ok(is_over.then_some(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(script: &str, at_most: Duration) -> Result<String, String> {
        first_line(Path::new("/bin/sh"), &["-c", script, "tool", "--version"], at_most)
    }

    #[test]
    fn the_first_line_is_the_version() {
        let told = told("echo; echo \"$0 $1 1.2\"; echo more", WAIT);
        assert_eq!(told, Ok("tool --version 1.2".to_owned()));
    }

    #[test]
    fn a_program_that_fails_or_says_nothing_has_no_version() {
        assert!(told("echo oh no >&2; exit 3", WAIT).unwrap_err().contains("oh no"));
        assert_eq!(told("exit 0", WAIT), Err("it printed nothing".to_owned()));
    }

    #[test]
    fn a_program_that_does_not_end_is_ended_with_what_it_started() {
        let begun = Instant::now();
        let told = told("sleep 60 & sleep 60", Duration::from_millis(200));
        assert_eq!(told, Err("no end after 0 s".to_owned()));
        assert!(begun.elapsed() < Duration::from_secs(30));
    }
}
