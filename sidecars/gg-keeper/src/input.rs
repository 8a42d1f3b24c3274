//! The child's stdin: its pipe, its journal, and how far the child has read.
//!
//! Owns: the offsets that make stdin exactly-once. `end` is what was accepted (it is in the
//! journal), `taken` is what went into the pipe; bytes below `end` that come again are skipped.
//! Bytes that the disk would not take are held and not accepted; they lie inside the window of the
//! protocol, so they are 8 MiB at most. When the child closes its stdin or ends, what was not taken
//! is given up and what comes later is accepted and dropped, as by a pipe without a reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gg_keeper::journal::Journal;
use gg_keeper::protocol::{JournalPolicy, Policy, STDIN_WINDOW};
use rustix::io::Errno;

use crate::note;

#[derive(Debug)]
pub(crate) struct Input {
    journal: Journal,
    pipe: Option<OwnedFd>,
    taken: u64,
    held: Vec<u8>,
    /// Close the pipe when the child has taken everything.
    is_closing: bool,
}

impl Input {
    /// Starts the journal in `dir`.
    pub(crate) fn create(dir: &Path, segment_bytes: u64) -> io::Result<Input> {
        // The bound is kept by the window, not by the journal; the policy only says that nothing is
        // dropped.
        let policy = JournalPolicy { policy: Policy::Block, bytes_max: u64::MAX };
        let journal = Journal::create(dir, "stdin", policy, segment_bytes)?;
        Ok(Input { journal, pipe: None, taken: 0, held: Vec::new(), is_closing: false })
    }

    /// Takes the writing end of the child's pipe; None when its stdin is `/dev/null`.
    pub(crate) fn connect(&mut self, pipe: Option<OwnedFd>) -> io::Result<()> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        self.pipe = pipe;
        Ok(())
    }

    /// The next offset that is not accepted yet.
    pub(crate) fn end(&self) -> u64 {
        self.journal.end()
    }

    /// The next offset that the child has not taken yet.
    pub(crate) fn taken(&self) -> u64 {
        self.taken
    }

    /// Whether the pipe is, or is to be, closed behind what was accepted.
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Whether bytes wait for the disk.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// The pipe, if bytes wait for the child.
    pub(crate) fn wanted(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().filter(|_| self.taken < self.journal.end()).map(AsFd::as_fd)
    }

    /// Accepts bytes at `offset`. Errors: they leave a gap or go beyond the window; nothing was
    /// taken.
    pub(crate) fn accept(&mut self, offset: u64, bytes: &[u8]) -> Result<(), &'static str> {
        let received = self.journal.end() + self.held.len() as u64;
        if offset > received {
            return Err("stdin has a gap");
        }
        let known = usize::try_from(received - offset).unwrap_or(usize::MAX).min(bytes.len());
        let fresh = &bytes[known..];
        if received + fresh.len() as u64 > self.taken + STDIN_WINDOW {
            return Err("stdin goes beyond the window");
        }
        self.held.extend_from_slice(fresh);
        self.store();
        Ok(())
    }

    /// Closes the pipe once everything accepted was taken.
    pub(crate) fn close_when_taken(&mut self) {
        self.is_closing = true;
        self.settle();
    }

    /// Closes the pipe now and gives up what was not taken.
    pub(crate) fn close(&mut self) {
        self.pipe = None;
        self.settle();
    }

    /// Gives the child what its pipe takes; `buffer` is only for passage.
    pub(crate) fn pass(&mut self, buffer: &mut [u8]) {
        while let Some(pipe) = &self.pipe
            && self.taken < self.journal.end()
        {
            let len = match self.journal.read(self.taken, buffer) {
                Ok(len) => len,
                Err(error) => {
                    note::add(&format!("the journal of stdin can not be read: {error}"));
                    self.pipe = None;
                    break;
                }
            };
            match rustix::io::write(pipe, &buffer[..len]) {
                Ok(count) => self.taken += count as u64,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // The child closed its stdin. That is its right, and it may live on.
                Err(_) => self.pipe = None,
            }
        }
        self.settle();
    }

    /// Puts held bytes into the journal, now or when the disk takes them again.
    pub(crate) fn store(&mut self) {
        let held = std::mem::take(&mut self.held);
        let (count, result) = self.journal.append(&held);
        if let Err(error) = result {
            note::add(&format!("the journal of stdin can not be written: {error}"));
            self.held = held;
            self.held.drain(..count);
        }
    }

    /// Gives the files up of what was taken; all of them with `trim`.
    pub(crate) fn trim(&mut self, trim: bool) {
        if let Err(error) = self.journal.acknowledge(self.taken, trim) {
            note::add(&format!("a segment of stdin can not be deleted: {error}"));
        }
    }

    fn settle(&mut self) {
        if self.pipe.is_none() {
            self.taken = self.journal.end();
        }
        if self.is_closing && self.taken == self.journal.end() && self.held.is_empty() {
            self.pipe = None;
        }
        self.trim(false);
    }
}
