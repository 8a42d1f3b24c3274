//! Signals as bytes in two pipes.
//!
//! Owns: the handlers of SIGCHLD, SIGTERM, SIGINT and SIGHUP for the life of the process. The
//! handlers write one byte; the holder's `poll` reads it. SIGHUP gets a handler that does nothing
//! rather than being ignored, because an ignored signal stays ignored in the child and a handled
//! one does not.

use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};

/// The two pipes: children that ended, and requests to end.
#[derive(Debug)]
pub(crate) struct Signals {
    child: UnixStream,
    end: UnixStream,
}

impl Signals {
    /// Installs the handlers; before the child is started, so that its end can not be missed.
    pub(crate) fn install() -> io::Result<Signals> {
        signal_hook::flag::register(SIGHUP, Arc::new(AtomicBool::new(false)))?;
        Ok(Signals { child: pipe(&[SIGCHLD])?, end: pipe(&[SIGTERM, SIGINT])? })
    }

    /// Readable when children ended.
    pub(crate) fn child(&self) -> BorrowedFd<'_> {
        self.child.as_fd()
    }

    /// Readable when this process was told to end.
    pub(crate) fn end(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }

    /// Forgets the bytes of SIGCHLD. The kernel merges signals, so their number says nothing.
    pub(crate) fn clear_child(&self) {
        count(&self.child);
    }

    /// How often this process was told to end since the last look.
    pub(crate) fn take_end(&self) -> usize {
        count(&self.end)
    }
}

fn pipe(signals: &[i32]) -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for signal in signals {
        signal_hook::low_level::pipe::register(*signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

/// Empties a pipe and says how many bytes there were.
fn count(mut pipe: &UnixStream) -> usize {
    let mut total = 0;
    let mut buffer = [0; 64];
    loop {
        match pipe.read(&mut buffer) {
            Ok(len) if len > 0 => total += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            _ => return total,
        }
    }
}
