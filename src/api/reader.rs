//! Who reads streams: the places that are taken, and how far each reader has come.
//!
//! Owns: the table of open streams and its bound. A place is taken on the connection's thread before the stream begins
//! and given back when it ends, in whatever way. A stream writes its position down when it has handed bytes to the
//! kernel; nobody waits for a reader here, and the lock is held for a look or a change of the table alone.

use super::{Api, Call};
use crate::error::{Code, Error, Result};
use crate::ledger::event;
use crate::model::id;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The open streams.
#[derive(Default)]
pub(super) struct Readers {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    last_number: u64,
    open: BTreeMap<u64, Arc<Reader>>,
}

/// What a stream reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Reads {
    WholeLog,
    /// The scope with this key.
    Scope(i64),
    /// The output of a process, which has no cursor.
    Output,
}

struct Reader {
    path: String,
    remote: SocketAddr,
    since: i64,
    reads: Reads,
    /// The last position that was passed: a row id in the whole log, else a seq.
    cursor: AtomicI64,
}

/// The place of one open stream.
pub(super) struct Place {
    readers: Arc<Readers>,
    number: u64,
    reader: Arc<Reader>,
}

impl Place {
    /// Errors: as many streams are open as the configuration allows.
    pub(super) fn take(api: &Api, call: &Call, reads: Reads, cursor: i64) -> Result<Place> {
        let readers = Arc::clone(&api.streams);
        let mut table = readers.lock();
        let open = table.open.len();
        if open >= api.config.streams_max {
            return Err(Error::new(
                Code::Capacity,
                format!("{open} streams are open, as many as the configuration allows"),
            )
            .hint("close one, or raise server.max_streams"));
        }
        let head = call.head();
        let reader = Arc::new(Reader {
            path: format!("/{}", api.path_parts(head).join("/")),
            remote: head.peer,
            since: id::now_ms(),
            reads,
            cursor: AtomicI64::new(cursor),
        });
        table.last_number += 1;
        let number = table.last_number;
        table.open.insert(number, Arc::clone(&reader));
        drop(table);
        Ok(Place { readers, number, reader })
    }

    /// Everything up to this position is on its way.
    pub(super) fn pass(&self, cursor: i64) {
        self.reader.cursor.store(cursor, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.readers.lock().open.remove(&self.number);
    }
}

impl Readers {
    /// How many streams are open.
    pub(super) fn count(&self) -> usize {
        self.lock().open.len()
    }

    fn all(&self) -> Vec<Arc<Reader>> {
        self.lock().open.values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far one reader has come.
struct Progress {
    reader: Arc<Reader>,
    /// None for what has no cursor.
    head: Option<i64>,
}

impl Progress {
    fn lag(&self) -> Option<i64> {
        Some((self.head? - self.reader.cursor.load(Ordering::Relaxed)).max(0))
    }
}

fn progress(api: &Api) -> Result<Vec<Progress>> {
    let readers = api.streams.all();
    let mut heads: HashMap<Reads, i64> = HashMap::new();
    api.ledger.read(|db| {
        for reader in &readers {
            let head = match reader.reads {
                Reads::Output => continue,
                Reads::WholeLog => api.ledger.tail().newest_row_id(),
                Reads::Scope(_) if heads.contains_key(&reader.reads) => continue,
                Reads::Scope(scope_key) => event::newest_seq(db, scope_key)?,
            };
            heads.insert(reader.reads, head);
        }
        Ok(())
    })?;
    let with_head = |reader: Arc<Reader>| {
        let head = heads.get(&reader.reads).copied();
        Progress { reader, head }
    };
    Ok(readers.into_iter().map(with_head).collect())
}

/// The readers for diagnostics, the longest open first.
pub(super) fn facts(api: &Api) -> Result<Value> {
    let progress = progress(api)?;
    let readers: Vec<Value> = progress
        .iter()
        .map(|progress| {
            let reader = &progress.reader;
            let cursor = progress.head.map(|_| reader.cursor.load(Ordering::Relaxed));
            json!({
                "path": reader.path,
                "remote": reader.remote.to_string(),
                "since": reader.since,
                "cursor": cursor,
                "head": progress.head,
                "lag": progress.lag(),
            })
        })
        .collect();
    Ok(json!({
        "open": readers.len(),
        "max": api.config.streams_max,
        "readers": readers,
    }))
}

/// How far the slowest reader is behind.
pub(super) fn lag_max(api: &Api) -> Result<i64> {
    Ok(progress(api)?.iter().filter_map(Progress::lag).max().unwrap_or(0))
}
