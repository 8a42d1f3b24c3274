//! The writing side of a connection.
//!
//! Owns: the writing of bytes with a deadline, and [`StreamWriter`], which a stream is given. Used
//! by the connection's thread alone. Promises: an answer goes out in one system call if the kernel
//! takes it in one; a peer that does not read ends the write at its deadline, and after a failed
//! write nothing more is written, since the peer may have got half of a frame. It deliberately
//! buffers nothing: what a stream writes is on its way when the call returns.

use super::registry::Link;
use rustix::net::RecvFlags;
use std::io::{self, ErrorKind, IoSlice, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The slowest reader that gets a large answer to its end: this many bytes in a millisecond, on top
/// of the write timeout.
const BYTES_PER_MS: usize = 16;

/// Reads of [`StreamWriter::is_client_gone`], at most: what a client sends into a stream is
/// dropped, but not without end.
const DROPPED_READS_MAX: usize = 16;

/// Writes both parts, one after the other. The socket's own write timeout ends a single wait; the
/// deadline ends a peer that takes a few bytes at each.
pub(super) fn write_parts(
    link: &Link,
    first: &[u8],
    second: &[u8],
    write_timeout: Duration,
) -> io::Result<()> {
    let mut parts = [IoSlice::new(first), IoSlice::new(second)];
    let mut rest: &mut [IoSlice] = &mut parts;
    let mut left = first.len() + second.len();
    let allowance = Duration::from_millis((left / BYTES_PER_MS) as u64);
    let deadline = Instant::now() + write_timeout + allowance;
    while left > 0 {
        match (&link.stream).write_vectored(rest) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                left -= count;
                IoSlice::advance_slices(&mut rest, count);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                return Err(ErrorKind::TimedOut.into());
            }
            Err(error) => return Err(error),
        }
        if left > 0 && Instant::now() > deadline {
            return Err(ErrorKind::TimedOut.into());
        }
    }
    Ok(())
}

/// The client's end of a stream.
pub struct StreamWriter {
    link: Arc<Link>,
    write_timeout: Duration,
    bytes: u64,
    active_at: Instant,
    is_broken: bool,
}

impl StreamWriter {
    pub(super) fn new(link: Arc<Link>, write_timeout: Duration) -> StreamWriter {
        StreamWriter { link, write_timeout, bytes: 0, active_at: Instant::now(), is_broken: false }
    }

    /// Writes all the bytes, in one system call if the kernel has room. Blocks for the write
    /// timeout at most (and the bytes' share at 16 KB/s). After an error the stream is over: each
    /// further call fails at once.
    pub fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.is_broken {
            return Err(ErrorKind::BrokenPipe.into());
        }
        let written = write_parts(&self.link, bytes, &[], self.write_timeout);
        self.is_broken = written.is_err();
        self.active_at = Instant::now();
        self.bytes += if self.is_broken { 0 } else { bytes.len() as u64 };
        written
    }

    /// Whether the client has closed its side, asked without waiting. A write learns that only at
    /// the second frame after the close. What the client sent into the stream is read away, or it
    /// would hide the close behind it.
    pub fn is_client_gone(&mut self) -> bool {
        self.active_at = Instant::now();
        let mut dropped = [0; 256];
        for _ in 0..DROPPED_READS_MAX {
            match rustix::net::recv(&self.link.stream, &mut dropped, RecvFlags::DONTWAIT) {
                Ok((0, _)) => self.is_broken = true,
                Ok(_) | Err(rustix::io::Errno::INTR) => continue,
                Err(rustix::io::Errno::AGAIN) => {}
                Err(_) => self.is_broken = true,
            }
            break;
        }
        self.is_broken
    }

    /// When the client was last written to, or asked whether it is there.
    pub fn active_at(&self) -> Instant {
        self.active_at
    }

    /// Bytes written, without the head.
    pub fn bytes_written(&self) -> u64 {
        self.bytes
    }
}
