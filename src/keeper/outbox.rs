//! What waits to be written to a keeper, and the thread that writes it.
//!
//! Owns: one slot for each kind of control (the newest ACK, the shortest STOP, a set of signals)
//! and a queue of stdin, bounded in bytes. It is a locked struct and not a channel, because control
//! merges: slots are bounded without ever blocking or refusing, and a STOP is written before any
//! stdin that waits. The lock is held to put and to take, never over a write.
//!
//! Stdin is only written inside the keeper's window ([`gg_keeper::protocol`]), so the keeper can
//! always take what is written, and the writer is not stuck behind a child that does not read.

use std::collections::VecDeque;
use std::io::Write;
use std::os::unix::net::UnixStream;

use gg_keeper::protocol::{Request, STDIN_WINDOW};

use crate::sync::{Condvar, Mutex, MutexGuard};

/// How much stdin may wait here; beyond it [`Outbox::put_stdin`] refuses, but for what comes to an
/// empty queue: that is taken whatever its size, or it would be refused for ever.
const STDIN_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Stdin is cut into pieces of this size, so that control gets in between.
const PIECE: usize = 64 * 1024;

/// The mailbox between a [`super::Keeper`] and its writer.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Waiting {
    ack: Option<(u64, u64, bool)>,
    signals: u64,
    stop: Option<u64>,
    kill: bool,
    stdin: VecDeque<Stdin>,
    stdin_bytes: usize,
    /// How far the child has read its stdin. None before HELLO.
    taken: Option<u64>,
    is_closed: bool,
    is_let_go: bool,
}

#[derive(Debug)]
enum Stdin {
    Bytes { offset: u64, bytes: Vec<u8> },
    Close,
}

impl Outbox {
    /// Puts bytes at the end of the queue; false when they do not fit.
    pub(super) fn put_stdin(&self, mut offset: u64, bytes: Vec<u8>) -> bool {
        let mut waiting = self.lock();
        if waiting.is_closed {
            return true;
        }
        if waiting.stdin_bytes > 0 && waiting.stdin_bytes + bytes.len() > STDIN_BYTES_MAX {
            return false;
        }
        waiting.stdin_bytes += bytes.len();
        if bytes.len() <= PIECE {
            waiting.stdin.push_back(Stdin::Bytes { offset, bytes });
        } else {
            for piece in bytes.chunks(PIECE) {
                waiting.stdin.push_back(Stdin::Bytes { offset, bytes: piece.to_vec() });
                offset += piece.len() as u64;
            }
        }
        drop(waiting);
        self.changed.notify_one();
        true
    }

    pub(super) fn put_close_stdin(&self) {
        self.put(|waiting| {
            // Closing twice is closing once, so the queue cannot grow by it.
            if !matches!(waiting.stdin.back(), Some(Stdin::Close)) {
                waiting.stdin.push_back(Stdin::Close);
            }
        });
    }

    pub(super) fn put_ack(&self, stdout: u64, stderr: u64, trim: bool) {
        self.put(|waiting| {
            let (old_stdout, old_stderr, old_trim) = waiting.ack.unwrap_or_default();
            waiting.ack = Some((stdout.max(old_stdout), stderr.max(old_stderr), trim || old_trim));
        });
    }

    pub(super) fn put_signal(&self, signo: i32) {
        if (1..=64).contains(&signo) {
            self.put(|waiting| waiting.signals |= 1 << (signo - 1));
        }
    }

    pub(super) fn put_stop(&self, grace_ms: u64) {
        self.put(|waiting| {
            waiting.stop = Some(waiting.stop.map_or(grace_ms, |before| before.min(grace_ms)));
        });
    }

    pub(super) fn put_kill(&self) {
        self.put(|waiting| waiting.kill = true);
    }

    /// The reader learned how far the child has read.
    pub(super) fn set_taken(&self, taken: u64) {
        self.put(|waiting| waiting.taken = Some(taken));
    }

    /// Ends the writer: the connection is over.
    pub(super) fn close(&self) {
        self.put(|waiting| waiting.is_closed = true);
    }

    /// Ends the writer, because the owner wants no more of this child.
    pub(super) fn let_go(&self) {
        self.put(|waiting| {
            waiting.is_closed = true;
            waiting.is_let_go = true;
        });
    }

    /// Whether the owner wants no more of this child.
    pub(super) fn is_let_go(&self) -> bool {
        self.lock().is_let_go
    }

    /// Waits until something may be written, and puts it into `frames`. False when the connection
    /// is over.
    fn take(&self, frames: &mut Vec<u8>) -> bool {
        let mut waiting = self.lock();
        loop {
            if waiting.is_closed {
                return false;
            }
            waiting.take_control(frames);
            let stdin = waiting.take_stdin();
            if stdin.is_some() || !frames.is_empty() {
                drop(waiting);
                match &stdin {
                    Some(Stdin::Bytes { offset, bytes }) => {
                        Request::Stdin { offset: *offset, bytes }.encode(frames);
                    }
                    Some(Stdin::Close) => Request::CloseStdin.encode(frames),
                    None => {}
                }
                return true;
            }
            waiting = self.changed.wait(waiting).expect("nothing panics under this lock");
        }
    }

    fn put(&self, change: impl FnOnce(&mut Waiting)) {
        change(&mut self.lock());
        self.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().expect("nothing panics under this lock")
    }
}

impl Waiting {
    fn take_control(&mut self, frames: &mut Vec<u8>) {
        if std::mem::take(&mut self.kill) {
            Request::Kill.encode(frames);
        }
        if let Some(grace_ms) = self.stop.take() {
            Request::Stop { grace_ms }.encode(frames);
        }
        let mut signals = std::mem::take(&mut self.signals);
        while signals != 0 {
            let bit = signals.trailing_zeros();
            signals &= signals - 1;
            Request::Signal { signo: bit.cast_signed() + 1 }.encode(frames);
        }
        if let Some((stdout, stderr, trim)) = self.ack.take() {
            Request::Ack { stdout, stderr, trim }.encode(frames);
        }
    }

    fn take_stdin(&mut self) -> Option<Stdin> {
        let window_end = self.taken?.saturating_add(STDIN_WINDOW);
        if let Stdin::Bytes { offset, bytes } = self.stdin.front()?
            && offset + bytes.len() as u64 > window_end
        {
            return None;
        }
        let stdin = self.stdin.pop_front();
        if let Some(Stdin::Bytes { bytes, .. }) = &stdin {
            self.stdin_bytes -= bytes.len();
        }
        stdin
    }
}

/// The writer's thread: writes until the connection is over.
pub(super) fn write(outbox: &Outbox, mut socket: UnixStream) {
    let mut frames = Vec::new();
    while outbox.take(&mut frames) {
        if socket.write_all(&frames).is_err() {
            // The reader sees the end of the same socket, and tells.
            outbox.close();
        }
        frames.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::{Outbox, STDIN_BYTES_MAX, STDIN_WINDOW};
    use gg_keeper::protocol::Request;

    /// What the writer would write next.
    fn taken(outbox: &Outbox) -> Vec<u8> {
        let mut frames = Vec::new();
        assert!(outbox.take(&mut frames));
        frames
    }

    fn encoded(requests: &[Request<'_>]) -> Vec<u8> {
        let mut frames = Vec::new();
        requests.iter().for_each(|request| request.encode(&mut frames));
        frames
    }

    #[test]
    fn control_merges_and_goes_before_the_stdin_that_waits() {
        let outbox = Outbox::default();
        outbox.set_taken(0);
        assert!(outbox.put_stdin(0, b"hello".to_vec()));
        outbox.put_ack(5, 9, true);
        outbox.put_ack(7, 8, false);
        outbox.put_signal(10);
        outbox.put_signal(2);
        outbox.put_signal(10);
        outbox.put_signal(0);
        outbox.put_signal(65);
        outbox.put_stop(500);
        outbox.put_stop(900);
        outbox.put_kill();
        let expected = encoded(&[
            Request::Kill,
            Request::Stop { grace_ms: 500 },
            Request::Signal { signo: 2 },
            Request::Signal { signo: 10 },
            Request::Ack { stdout: 7, stderr: 9, trim: true },
            Request::Stdin { offset: 0, bytes: b"hello" },
        ]);
        assert_eq!(taken(&outbox), expected);
    }

    #[test]
    fn stdin_beyond_the_window_waits_for_the_child_and_control_does_not() {
        let outbox = Outbox::default();
        outbox.set_taken(100);
        let edge = 100 + STDIN_WINDOW;
        assert!(outbox.put_stdin(edge - 1, b"a".to_vec()));
        assert!(outbox.put_stdin(edge, b"b".to_vec()));
        outbox.put_close_stdin();
        let first = encoded(&[Request::Stdin { offset: edge - 1, bytes: b"a" }]);
        assert_eq!(taken(&outbox), first);
        outbox.put_stop(1);
        assert_eq!(taken(&outbox), encoded(&[Request::Stop { grace_ms: 1 }]));
        outbox.set_taken(101);
        let rest = [taken(&outbox), taken(&outbox)].concat();
        assert_eq!(
            rest,
            encoded(&[Request::Stdin { offset: edge, bytes: b"b" }, Request::CloseStdin])
        );
    }

    #[test]
    fn stdin_beyond_the_bound_is_refused_and_a_closed_outbox_takes_and_drops() {
        let outbox = Outbox::default();
        // What comes to an empty queue would never come to an emptier one.
        assert!(outbox.put_stdin(0, vec![0; STDIN_BYTES_MAX + 1]));
        assert!(!outbox.put_stdin(STDIN_BYTES_MAX as u64 + 1, vec![0; 1]));
        outbox.close();
        assert!(outbox.put_stdin(STDIN_BYTES_MAX as u64 + 1, vec![0; 1]));
        assert!(!outbox.take(&mut Vec::new()));
    }
}
