//! A command that the agent runs by itself, in a process group of its own.
//!
//! Owns: the child between start and end. Two threads belong to it: one reads what it says (stdout and stderr through
//! one pipe, so in the order of writing), one waits for its end; both only change the shared [`State`] and wake the
//! turn. Ending a command means TERM to the whole group, a grace time, and KILL to the whole group. The signals go
//! through the shell's `kill`, because the standard library can only kill one process and this program has no other
//! dependency. A descendant that left the group is deliberately not chased: whoever runs the agent owns its tree.

use crate::thread::{lock, spawn};
use crate::turn::{Ears, Turn};
use std::io::{self, PipeReader, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How much output is kept and shown; what comes after is read and dropped.
const OUTPUT_BYTES_MAX: usize = 64 << 10;

/// How long a command has to end after TERM, before KILL.
const TERM_GRACE: Duration = Duration::from_millis(500);

/// How long output is awaited after the command has ended: a process that it left behind may hold the pipe for ever.
const OUTPUT_GRACE: Duration = Duration::from_millis(200);

/// A command that was started.
pub(crate) struct Running {
    group: u32,
    turn: Arc<Turn>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    output: Vec<u8>,
    dropped: u64,
    output_ended: bool,
    status: Option<ExitStatus>,
}

/// How a command ended, and all that it said.
pub(crate) struct Ended {
    pub(crate) output: String,
    pub(crate) exit_code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Running {
    /// Starts `sh -c command`. Errors: the folder is not there, or the system has no process or thread to give.
    pub(crate) fn start(command: &str, cwd: &Path, turn: &Arc<Turn>) -> io::Result<Running> {
        let (reader, writer) = io::pipe()?;
        let child = Command::new("sh")
            .args(["-c", command])
            .current_dir(cwd)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .spawn()?;
        let state = Arc::new(Mutex::new(State::default()));
        let running = Running { group: child.id(), turn: Arc::clone(turn), state };
        let (turn, state) = (Arc::clone(turn), Arc::clone(&running.state));
        spawn("command-output", move || read_output(reader, &state, &turn))?;
        let (turn, state) = (Arc::clone(&running.turn), Arc::clone(&running.state));
        spawn("command-end", move || await_end(child, &state, &turn))?;
        Ok(running)
    }

    /// Waits for more output than `shown` bytes and gives all there is; `None` when the command has ended. An error is
    /// a cancel; the command is then still running.
    pub(crate) fn more(&self, shown: &mut usize) -> Result<Option<String>, crate::turn::Stop> {
        let ready = |_: &mut _| {
            let state = lock(&self.state);
            if state.output.len() > *shown {
                *shown = state.output.len();
                return Some(Some(whole_text(&state.output)));
            }
            state.status.is_some().then_some(None)
        };
        Ok(self.turn.wait(None, Ears::Open, ready)?.flatten())
    }

    /// How it ended. Only after [`Self::more`] gave `None`, or [`Self::end`].
    pub(crate) fn ended(&self) -> Ended {
        let over = |_: &mut _| lock(&self.state).output_ended.then_some(());
        // A cancel in this short moment changes nothing: the command is over.
        drop(self.turn.wait(Some(OUTPUT_GRACE), Ears::Deaf, over));
        let state = lock(&self.state);
        let mut output = String::from_utf8_lossy(&state.output).into_owned();
        if state.dropped > 0 {
            output += &format!("\n[{} more bytes were dropped]\n", state.dropped);
        }
        let status = state.status;
        Ended {
            output,
            exit_code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
        }
    }

    /// Ends the command and everything in its group.
    pub(crate) fn end(&self) {
        signal_group(self.group, "TERM");
        let over = |_: &mut _| lock(&self.state).status.is_some().then_some(());
        drop(self.turn.wait(Some(TERM_GRACE), Ears::Deaf, over));
        signal_group(self.group, "KILL");
    }
}

/// Sends a signal to a process group. A group that is gone is no error: that is what the caller wants.
pub(crate) fn signal_group(group: u32, signal: &str) {
    let script = r#"kill -s "$0" -- "-$1""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, signal, &group.to_string()]);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(quiet.status());
}

fn read_output(mut pipe: PipeReader, state: &Mutex<State>, turn: &Turn) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = match pipe.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        let mut state = lock(state);
        let kept = count.min(OUTPUT_BYTES_MAX - state.output.len());
        state.output.extend_from_slice(&buffer[..kept]);
        state.dropped += (count - kept) as u64;
        drop(state);
        if kept > 0 {
            turn.wake();
        }
    }
    lock(state).output_ended = true;
    turn.wake();
}

fn await_end(mut child: Child, state: &Mutex<State>, turn: &Turn) {
    // It fails only for a child that was reaped, and nobody else reaps.
    let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(0));
    lock(state).status = Some(status);
    turn.wake();
}

/// The bytes as text, without the start of a character whose end has not come yet.
fn whole_text(bytes: &[u8]) -> String {
    let end = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}
