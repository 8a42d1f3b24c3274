//! One turn of the loop: what is waited for, and in which order it is served.
//!
//! Owns: nothing; it is the part of [`Holder`] that knows descriptors and time. Each descriptor is
//! served once a turn, so none starves another. A descriptor that could not be served now (a pipe
//! whose journal is full, connections while there is no descriptor for one) is not waited for
//! either, or the loop would spin on it.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use gg_keeper::tree::timespec;
use rustix::event::{PollFd, PollFlags, poll};

use super::{DISK_RETRY, Holder, Phase};

/// What `poll` found. A descriptor that was not asked about is not ready.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ready {
    child_ended: bool,
    told_to_end: bool,
    connection: bool,
    request: bool,
    stdin: bool,
    output: [bool; 2],
}

impl Holder {
    /// Blocks until something is ready or a deadline has come.
    pub(super) fn wait(&self) -> Ready {
        let is_draining = matches!(self.phase, Phase::Draining { .. });
        let read = |fd| (fd, PollFlags::IN);
        let client = self.client.as_ref().map(|client| {
            let is_behind = client.wants_to_write(&self.outputs);
            let write = if is_behind { PollFlags::OUT } else { PollFlags::empty() };
            (client.fd(), PollFlags::IN | write)
        });
        // Asked about in the order of the answers below.
        let asked: [Option<(BorrowedFd<'_>, PollFlags)>; 7] = [
            Some(read(self.signals.child())),
            Some(read(self.signals.end())),
            self.accept_at.is_none().then(|| read(self.listener.as_fd())),
            client,
            self.input.wanted().map(|fd| (fd, PollFlags::OUT)),
            self.outputs[0].wanted(is_draining).map(read),
            self.outputs[1].wanted(is_draining).map(read),
        ];
        let mut fds: Vec<PollFd<'_>> = asked
            .iter()
            .flatten()
            .map(|(fd, flags)| PollFd::from_borrowed_fd(*fd, *flags))
            .collect();
        let timeout = self
            .deadline()
            .map(|deadline| timespec(deadline.saturating_duration_since(Instant::now())));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // A signal: its byte is in the pipe, and the next turn sees it.
            return Ready::default();
        }
        let mut answers = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut ready =
            asked.map(|asked| asked.is_some() && answers.next().unwrap_or(false)).into_iter();
        let mut next = || ready.next().unwrap_or(false);
        Ready {
            child_ended: next(),
            told_to_end: next(),
            connection: next(),
            request: next(),
            stdin: next(),
            output: [next(), next()],
        }
    }

    /// Serves what is ready, then goes on to the next phase if it is time, then sends what is owed.
    pub(super) fn take_turn(&mut self, ready: Ready) {
        let mut has_reaped = false;
        if ready.child_ended {
            self.signals.clear_child();
            has_reaped = self.reap();
        }
        if ready.told_to_end {
            let times = self.signals.take_end();
            if times > 0 {
                self.told_to_end(times);
            }
        }
        // What the old connection brought comes before the new one that replaces it: it may be a
        // STOP.
        if ready.request {
            self.receive();
        }
        if ready.connection {
            self.accept();
        }
        if ready.stdin {
            self.pass_input();
        }
        for (index, is_ready) in ready.output.into_iter().enumerate() {
            if is_ready {
                self.read_output(index);
            }
        }
        let now = Instant::now();
        if self.retry_at.is_some_and(|retry_at| now >= retry_at) {
            self.retry_at = None;
            self.retry(now);
        }
        self.accept_at = self.accept_at.filter(|accept_at| now < *accept_at);
        self.advance(now, has_reaped);
        if self.outputs.iter().any(super::Output::is_holding) || self.input.is_holding() {
            self.retry_at.get_or_insert(now + DISK_RETRY);
        }
        self.pump();
    }

    /// The next moment at which something is due without anybody's word.
    fn deadline(&self) -> Option<Instant> {
        let (first, second) = match self.phase {
            Phase::Running => (self.lease_until, None),
            Phase::Ending { kill_at, give_up_at } => (Some(kill_at), give_up_at),
            Phase::Draining { until, disk_until } if self.retry_at.is_none() => {
                (Some(until), Some(disk_until))
            }
            // The disk is full: the retry is what comes next, and `until` may be long past.
            Phase::Draining { disk_until, .. } => (Some(disk_until), None),
            Phase::Telling { until } => (Some(until), None),
            Phase::Done => (Some(Instant::now()), None),
        };
        [first, second, self.retry_at, self.accept_at].into_iter().flatten().min()
    }
}
