//! Who is connected.
//!
//! Owns: the table of connections with their threads, the stop flag, and the counts; shared by the
//! accept thread, the connection threads and the server's handle. Promises: a connection is in the
//! table from before its thread starts until its thread has nothing left to do, whichever way that
//! thread ends; an ended thread is joined by the next one that ends (or by the close), so at most
//! one waits to be joined, and none is forgotten. The lock is never held over I/O or a join. It
//! deliberately knows no HTTP.

use crate::thread::{self, Thread};
use std::collections::HashMap;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One connection's socket, one descriptor, shared by its thread and the table.
pub(super) struct Link {
    pub(super) stream: TcpStream,
    /// The thread waits for the first byte of a request.
    pub(super) is_idle: AtomicBool,
}

#[derive(Default)]
pub(super) struct Registry {
    table: Mutex<Table>,
    /// Told when a connection begins or ends, and when the server stops.
    changed: Condvar,
    is_stopping: AtomicBool,
    pub(super) totals: Totals,
}

/// Counts since the start, and the streams of now.
#[derive(Default)]
pub(super) struct Totals {
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) streams_open: AtomicU64,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, Occupant>,
    last_number: u64,
    /// The thread that ended last; its handle is all that is left of it.
    ended: Option<Thread>,
}

struct Occupant {
    link: Arc<Link>,
    thread: Thread,
}

impl Registry {
    /// Starts a thread for the connection. Errors: the system has no thread to give.
    pub(super) fn enter(
        self: &Arc<Self>,
        link: &Arc<Link>,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let mut table = self.lock();
        table.last_number += 1;
        let number = table.last_number;
        let registry = Arc::clone(self);
        // Started under the lock: the thread can not leave before it is in the table.
        let thread = thread::spawn(format!("conn-{number}"), move || {
            // Made inside the thread: a start that fails drops this closure under the lock.
            let _seat = Seat { registry, number };
            body();
        })?;
        table.open.insert(number, Occupant { link: Arc::clone(link), thread });
        drop(table);
        self.changed.notify_all();
        Ok(())
    }

    pub(super) fn open_count(&self) -> usize {
        self.lock().open.len()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::SeqCst)
    }

    /// Sets the stop flag and wakes whoever pauses.
    pub(super) fn stop(&self) {
        let table = self.lock();
        self.is_stopping.store(true, Ordering::SeqCst);
        drop(table);
        self.changed.notify_all();
    }

    /// Waits for so long, or until the server stops.
    pub(super) fn pause(&self, time: Duration) {
        drop(self.wait(Instant::now() + time, |_| self.is_stopping()));
    }

    /// Waits until so many connections are open. False: it was not so until the deadline.
    pub(super) fn await_open_count(&self, count: usize, deadline: Instant) -> bool {
        self.wait(deadline, |table| table.open.len() == count).open.len() == count
    }

    #[cfg(test)]
    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.lock().open.values().map(|occupant| Arc::clone(&occupant.link)).collect()
    }

    /// Ends the connections that wait for a request. What they wait for can only be lost as it can
    /// always be when a kept connection closes; clients know that and ask again.
    pub(super) fn shut_idle(&self) {
        self.shut(Shutdown::Read, |link| link.is_idle.load(Ordering::SeqCst));
    }

    /// Ends the sockets of all connections; their threads see it at their next read or write.
    pub(super) fn shut_all(&self) {
        self.shut(Shutdown::Both, |_| true);
    }

    /// Joins the thread that ended last, and gives up those that did not end. Returns their number.
    pub(super) fn clear(&self) -> usize {
        let (ended, stuck) = {
            let mut table = self.lock();
            (table.ended.take(), std::mem::take(&mut table.open))
        };
        drop(ended);
        let count = stuck.len();
        for occupant in stuck.into_values() {
            // Joining would wait for ever; the end of the process takes the thread with it.
            std::mem::forget(occupant.thread);
        }
        count
    }

    fn shut(&self, how: Shutdown, is_meant: impl Fn(&Link) -> bool) {
        let links: Vec<_> = self.lock().open.values().map(|o| Arc::clone(&o.link)).collect();
        for link in links.iter().filter(|link| is_meant(link)) {
            // An error means that the peer was faster.
            drop(link.stream.shutdown(how));
        }
    }

    fn wait(&self, deadline: Instant, is_over: impl Fn(&Table) -> bool) -> MutexGuard<'_, Table> {
        let mut table = self.lock();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if is_over(&table) || left.is_zero() {
                return table;
            }
            table =
                self.changed.wait_timeout(table, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The table is consistent between any two statements, so a panic elsewhere does not poison it.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A thread's place in the table, left when the thread is done or unwinds.
struct Seat {
    registry: Arc<Registry>,
    number: u64,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut table = self.registry.lock();
        let Some(Occupant { link, thread }) = table.open.remove(&self.number) else {
            // Given up by `clear`, which has let go of the handle.
            return;
        };
        let before = table.ended.replace(thread);
        if std::thread::panicking() {
            // Those of handlers and streams are caught, and counted there.
            self.registry.totals.panics.fetch_add(1, Ordering::Relaxed);
        }
        drop(table);
        self.registry.changed.notify_all();
        // Outside the lock: the first may close the socket, the second waits for the last
        // instructions of a thread that has left the table before.
        drop(link);
        drop(before);
    }
}
