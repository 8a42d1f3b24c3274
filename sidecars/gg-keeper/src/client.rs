//! The connection to the server, as the keeper sees it.
//!
//! Owns: the socket, the bytes of a frame that came in part, the rest of a frame that the socket
//! did not take, and one cursor for each stream. There is no queue: output that the socket does not
//! take now is read from the journal later, from the cursor on; HELLO and STDIN_ACCEPTED are flags
//! whose newest value is sent. So a server that does not read costs one frame of memory.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use gg_keeper::protocol::{
    HEAD_LEN, Hello, OUTPUT_HEAD_LEN, PAYLOAD_MAX, Reply, Stream, output_head, split_head,
};
use rustix::io::Errno;

use crate::output::Output;

/// How much of the socket is read, and how much of a journal is sent, in one go.
const CHUNK: usize = 64 * 1024;

/// How many frames one turn of the loop may send, so that a server that catches up does not keep
/// the child waiting.
const FRAMES_PER_TURN: usize = 8;

#[derive(Debug)]
pub(crate) struct Client {
    socket: UnixStream,
    input: Vec<u8>,
    out: Vec<u8>,
    out_at: usize,
    /// Where each stream goes on; None before ATTACH.
    cursors: Option<[u64; 2]>,
    owes_hello: bool,
    owes_accepted: bool,
    was_told_exit: bool,
    /// The server does not read any more. What it sent before is still to be heard (it may be a
    /// STOP), so the connection ends at the end of its input and not here.
    is_mute: bool,
}

impl Client {
    pub(crate) fn new(socket: UnixStream) -> io::Result<Client> {
        socket.set_nonblocking(true)?;
        Ok(Client {
            socket,
            input: Vec::new(),
            out: Vec::new(),
            out_at: 0,
            cursors: None,
            owes_hello: false,
            owes_accepted: false,
            was_told_exit: false,
            is_mute: false,
        })
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Starts both streams at these offsets, with HELLO before the first byte.
    pub(crate) fn attach(&mut self, cursors: [u64; 2]) {
        self.cursors = Some(cursors);
        self.owes_hello = true;
    }

    /// Owes the server the newest offsets of stdin.
    pub(crate) fn tell_accepted(&mut self) {
        self.owes_accepted = true;
    }

    /// Whether EXIT has left; nothing is sent after it.
    pub(crate) fn was_told_exit(&self) -> bool {
        self.is_mute || self.was_told_exit && self.out.is_empty()
    }

    /// Whether EXIT is on its way, perhaps in part.
    pub(crate) fn is_exit_under_way(&self) -> bool {
        self.was_told_exit
    }

    /// Whether there is something to send.
    pub(crate) fn wants_to_write(&self, outputs: &[Output; 2]) -> bool {
        let is_behind = self.cursors.is_some_and(|cursors| {
            outputs.iter().any(|output| cursors[output.stream.index()] < output.journal.end())
        });
        let owes = self.owes_hello || self.owes_accepted || is_behind;
        !self.is_mute && (!self.out.is_empty() || owes && !self.was_told_exit)
    }

    /// Reads the socket once. False when the connection is over.
    pub(crate) fn receive(&mut self) -> bool {
        self.input.reserve(CHUNK);
        match rustix::io::read(&self.socket, rustix::buffer::spare_capacity(&mut self.input)) {
            Ok(count) => count > 0,
            Err(Errno::AGAIN | Errno::INTR) => true,
            Err(_) => false,
        }
    }

    /// Hands out what was received, so that its frames can be read while the holder changes; see
    /// [`first_frame`].
    pub(crate) fn take_received(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.input)
    }

    /// Puts back what was not used up, and gives back the memory of a large frame.
    pub(crate) fn put_back(&mut self, mut input: Vec<u8>, used: usize) {
        input.drain(..used);
        input.shrink_to(CHUNK);
        self.input = input;
    }

    /// Sends bytes that were just read from the child without the way over the journal, if the
    /// server has everything before them and the socket takes at least a part. Otherwise they are
    /// sent from the journal later.
    pub(crate) fn offer(&mut self, stream: Stream, offset: u64, bytes: &[u8]) {
        let is_at_end = self.cursors.is_some_and(|cursors| cursors[stream.index()] == offset);
        let is_free = self.out.is_empty() && !self.owes_hello && !self.is_mute;
        if bytes.is_empty() || !is_at_end || !is_free {
            return;
        }
        let head = output_head(stream, offset, bytes.len());
        let parts = [IoSlice::new(&head), IoSlice::new(bytes)];
        let sent = match rustix::io::writev(&self.socket, &parts) {
            Ok(sent) => sent,
            Err(Errno::AGAIN | Errno::INTR) => return,
            Err(_) => {
                self.is_mute = true;
                return;
            }
        };
        self.out.extend_from_slice(&head[sent.min(head.len())..]);
        self.out.extend_from_slice(&bytes[sent.saturating_sub(head.len()).min(bytes.len())..]);
        self.advance(stream, offset + bytes.len() as u64);
    }

    /// Sends what is owed, as far as the socket takes it. `hello` is the state of now. Errors: a
    /// journal can not be read.
    pub(crate) fn pump(&mut self, hello: &Hello, outputs: &mut [Output; 2]) -> io::Result<()> {
        for _ in 0..FRAMES_PER_TURN {
            if !self.flush() || !self.next_frame(hello, outputs)? {
                return Ok(());
            }
        }
        self.flush();
        Ok(())
    }

    /// Sends the last frame of the conversation, as far as the socket takes it.
    pub(crate) fn tell_exit(&mut self, reply: &Reply) {
        if !self.was_told_exit {
            reply.encode(&mut self.out);
            self.was_told_exit = true;
        }
        self.flush();
    }

    /// Says why the connection ends, if the socket takes it at once and is not in the middle of a
    /// frame.
    pub(crate) fn say_bye(&mut self, reason: &str) {
        if self.out.is_empty() {
            Reply::Bye { reason: reason.into() }.encode(&mut self.out);
            // The connection ends in any case; a server that did not hear why finds out by the
            // keeper's being alive.
            self.flush();
        }
    }

    /// Sends the rest of a frame. Whether another one may follow.
    fn flush(&mut self) -> bool {
        while self.out_at < self.out.len() {
            match rustix::io::write(&self.socket, &self.out[self.out_at..]) {
                Ok(count) => self.out_at += count,
                Err(Errno::AGAIN) => return false,
                Err(Errno::INTR) => {}
                Err(_) => {
                    self.is_mute = true;
                    break;
                }
            }
        }
        self.out_at = 0;
        // Memory of a rare large frame is not kept: most keepers are idle most of the time.
        self.out = Vec::new();
        !self.is_mute && !self.was_told_exit
    }

    /// Puts the next frame into `out`; false when nothing is owed.
    fn next_frame(&mut self, hello: &Hello, outputs: &mut [Output; 2]) -> io::Result<bool> {
        if self.owes_hello {
            self.owes_hello = false;
            self.owes_accepted = false;
            Reply::Hello(*hello).encode(&mut self.out);
            return Ok(true);
        }
        if self.owes_accepted {
            self.owes_accepted = false;
            let Hello { stdin_end: end, stdin_taken: taken, .. } = *hello;
            Reply::StdinAccepted { end, taken }.encode(&mut self.out);
            return Ok(true);
        }
        let Some(cursors) = self.cursors else { return Ok(false) };
        for output in outputs {
            let journal = &mut output.journal;
            // Below the base there is nothing any more: the server sees the gap by the offset.
            let offset = cursors[output.stream.index()].max(journal.base());
            if offset >= journal.end() {
                continue;
            }
            self.out.resize(OUTPUT_HEAD_LEN + CHUNK, 0);
            let count = match journal.read(offset, &mut self.out[OUTPUT_HEAD_LEN..]) {
                Ok(0) => Err(io::Error::other("a segment of the journal is shorter than it was")),
                read => read,
            };
            // What is begun here would stand in the way of the word that says why the connection ends.
            let count = count.inspect_err(|_| self.out.clear())?;
            self.out.truncate(OUTPUT_HEAD_LEN + count);
            let head = output_head(output.stream, offset, count);
            self.out[..OUTPUT_HEAD_LEN].copy_from_slice(&head);
            self.advance(output.stream, offset + count as u64);
            return Ok(true);
        }
        Ok(false)
    }

    fn advance(&mut self, stream: Stream, to: u64) {
        if let Some(cursors) = &mut self.cursors {
            cursors[stream.index()] = to;
        }
    }
}

/// The first frame of `input`: its kind and its payload. None when it is not whole yet. Errors: it
/// is longer than the bound.
pub(crate) fn first_frame(input: &[u8]) -> Result<Option<(u8, &[u8])>, &'static str> {
    let Some((head, rest)) = input.split_first_chunk::<HEAD_LEN>() else { return Ok(None) };
    let (kind, len) = split_head(head);
    if len > PAYLOAD_MAX {
        return Err("a frame is longer than the bound");
    }
    Ok(rest.get(..len).map(|payload| (kind, payload)))
}
