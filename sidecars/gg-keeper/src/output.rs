//! One stream that the child writes: its pipe and its journal.
//!
//! Owns: the reading end, and the bytes of one read that a full disk would not take. While such
//! bytes are held the pipe is not read, so they are one buffer at most, and the child waits as it
//! would for any slow reader.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use gg_keeper::journal::Journal;
use gg_keeper::protocol::{Spec, Stream};
use rustix::io::Errno;

use crate::note;

#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) stream: Stream,
    pub(crate) journal: Journal,
    pipe: Option<OwnedFd>,
    held: Vec<u8>,
}

impl Output {
    /// Starts the journals of both streams in `dir`.
    pub(crate) fn create_both(dir: &Path, spec: &Spec) -> io::Result<[Output; 2]> {
        let create = |stream: Stream, policy| {
            let segment_bytes = spec.journal_segment_bytes;
            let journal = Journal::create(dir, stream.as_str(), policy, segment_bytes)?;
            io::Result::Ok(Output { stream, journal, pipe: None, held: Vec::new() })
        };
        Ok([create(Stream::Stdout, spec.stdout)?, create(Stream::Stderr, spec.stderr)?])
    }

    /// Takes the reading end of the child's pipe.
    pub(crate) fn connect(&mut self, pipe: Option<OwnedFd>) -> io::Result<()> {
        if let Some(pipe) = &pipe {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        self.pipe = pipe;
        Ok(())
    }

    /// The pipe, if it is to be read now. A full `block` journal is no reason to wait once the tree
    /// is dead (`is_draining`): what is left in the pipe is little, and the end of the child must
    /// not depend on a server.
    pub(crate) fn wanted(&self, is_draining: bool) -> Option<BorrowedFd<'_>> {
        let can_take = self.held.is_empty() && (is_draining || !self.journal.is_full());
        self.pipe.as_ref().filter(|_| can_take).map(AsFd::as_fd)
    }

    /// Whether the last byte of the stream is in the journal.
    pub(crate) fn is_complete(&self) -> bool {
        self.pipe.is_none() && self.held.is_empty()
    }

    /// Whether bytes wait for the disk.
    pub(crate) fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// How many bytes wait for the disk.
    pub(crate) fn held_len(&self) -> usize {
        self.held.len()
    }

    /// Reads the pipe once, through `buffer`, into the journal. Returns where the new bytes of the
    /// journal start and how many of `buffer` they are.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> (u64, usize) {
        let start = self.journal.end();
        let Some(pipe) = &self.pipe else { return (start, 0) };
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => self.pipe = None,
            Ok(count) => {
                let (taken, result) = self.journal.append(&buffer[..count]);
                if let Err(error) = result {
                    let name = self.stream.as_str();
                    note::add(&format!("the journal of {name} can not be written: {error}"));
                    self.held.extend_from_slice(&buffer[taken..count]);
                }
            }
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => {
                note::add(&format!("{} can not be read: {error}", self.stream.as_str()));
                self.pipe = None;
            }
        }
        (start, usize::try_from(self.journal.end() - start).unwrap_or(0))
    }

    /// Tries again to put the held bytes into the journal.
    pub(crate) fn retry(&mut self) {
        let held = std::mem::take(&mut self.held);
        let (taken, _) = self.journal.append(&held);
        self.held.extend_from_slice(&held[taken..]);
    }
}
