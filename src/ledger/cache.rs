//! The serialised records of the sessions that clients ask for again and again.
//!
//! The writer forgets a session when a commit has changed it, before it answers whoever asked for the change; a reader
//! puts back what it read only when no commit came in between. So a client reads its own writes, and never an old
//! record for longer than the commit that makes it old takes.

use crate::limits;
use crate::sync::Mutex;
use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

#[derive(Default)]
pub(super) struct SessionCache {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    records: HashMap<String, Arc<[u8]>>,
    /// Of all records together.
    bytes: usize,
    /// Counts the commits that changed a session.
    generation: u64,
}

impl SessionCache {
    /// The record, or the generation to give to [`Self::put`].
    pub(super) fn get(&self, session_id: &str) -> Result<Arc<[u8]>, u64> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.records.get(session_id).cloned().ok_or(inner.generation)
    }

    pub(super) fn put(&self, session_id: &str, json: Arc<[u8]>, generation: u64) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if inner.generation == generation && json.len() <= limits::SESSION_CACHE_BYTES {
            let is_full = inner.records.len() >= limits::SESSION_CACHE
                || inner.bytes + json.len() > limits::SESSION_CACHE_BYTES;
            if is_full {
                inner.records.clear();
                inner.bytes = 0;
            }
            inner.bytes += json.len();
            if let Some(before) = inner.records.insert(session_id.to_owned(), json) {
                inner.bytes -= before.len();
            }
        }
    }

    pub(super) fn forget(&self, session_ids: &[String]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.generation += 1;
        for session_id in session_ids {
            if let Some(before) = inner.records.remove(session_id) {
                inner.bytes -= before.len();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_read_before_a_commit_is_not_kept_after_it() {
        let cache = SessionCache::default();
        let generation = cache.get("s").unwrap_err();
        cache.forget(&["s".to_owned()]);
        cache.put("s", Arc::from(&b"old"[..]), generation);
        let generation = cache.get("s").unwrap_err();
        cache.put("s", Arc::from(&b"new"[..]), generation);
        assert_eq!(&*cache.get("s").unwrap(), b"new");
    }

    #[test]
    fn large_records_do_not_pile_up() {
        let cache = SessionCache::default();
        let generation = cache.get("s").unwrap_err();
        let quarter = limits::SESSION_CACHE_BYTES / 4;
        for number in 0..10 {
            cache.put(&number.to_string(), vec![0; quarter].into(), generation);
            cache.put(&number.to_string(), vec![1; quarter].into(), generation);
            assert!(cache.get(&number.to_string()).is_ok());
            let inner = cache.inner.lock().unwrap();
            let held: usize = inner.records.values().map(|record| record.len()).sum();
            assert_eq!(held, inner.bytes);
            assert!(held <= limits::SESSION_CACHE_BYTES);
        }
        cache.put("large", vec![0; limits::SESSION_CACHE_BYTES + 1].into(), generation);
        assert!(cache.get("large").is_err());
    }
}
