//! The tail: the newest committed frames, and the way to wake the streams of one scope.
//!
//! The writer thread publishes here after each commit; each stream's thread takes from here. One bounded ring holds the
//! frames of all scopes, each serialised once and shared; a stream remembers up to which row it has looked, so it looks
//! at a frame once. A stream that has fallen out of the ring reads the database instead: it costs itself time and
//! nobody memory. The writer never waits for a stream, and a commit wakes only the streams of the scopes it wrote to.

use super::event::Frame;
use crate::limits;
use crate::sync::{AtomicBool, Condvar, Mutex, MutexGuard};
use crossbeam_channel::{Receiver, Sender};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// See the module's text.
pub struct Tail {
    ring: Mutex<Ring>,
    /// The watched scopes; the whole log is under [`WHOLE_LOG`].
    wakers: Mutex<HashMap<i64, Arc<Waker>>>,
    bell: Mutex<Option<Arc<Bell>>>,
    is_closing: AtomicBool,
}

/// Scope keys count from 1.
const WHOLE_LOG: i64 = 0;

struct Ring {
    frames: VecDeque<Arc<Frame>>,
    bytes: usize,
    /// All frames after this row are in the ring.
    complete_after: i64,
    newest_row_id: i64,
}

/// What the streams of one scope wait on.
struct Waker {
    watched: Mutex<Watched>,
    news: Condvar,
}

struct Watched {
    /// The last row that was published in the scope while somebody watched.
    newest_row_id: i64,
    watches: usize,
}

/// For the one reader that follows many scopes and asks only which of them have changed. It rings once for any
/// number of changes; what has changed is kept until it is asked for, and is never more than the scopes named.
pub struct Bell {
    scopes: Mutex<Scopes>,
    ring: Sender<()>,
}

#[derive(Default)]
struct Scopes {
    named: HashSet<i64>,
    changed: HashSet<i64>,
}

/// What the tail holds now.
#[derive(Clone, Copy, Debug)]
pub struct TailFacts {
    pub frames: usize,
    pub bytes: usize,
    pub newest_row_id: i64,
    /// All frames behind this row are held.
    pub complete_after: i64,
    /// Scopes that somebody watches, the whole log among them.
    pub watched_scopes: usize,
}

/// What a look into the ring found.
#[derive(Debug, PartialEq, Eq)]
pub enum Look {
    /// All frames of the scope up to this row were taken or are not in the scope.
    UpTo(i64),
    /// The cursor is older than the ring: read the database.
    Behind,
}

/// Why a wait ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Woken {
    News,
    TimedOut,
    /// The server is shutting down.
    Closing,
}

/// One stream's registration with a scope; ends when it is dropped.
pub struct Watch {
    tail: Arc<Tail>,
    waker: Arc<Waker>,
    scope_key: Option<i64>,
}

impl Tail {
    pub(super) fn new(newest_row_id: i64) -> Tail {
        Tail {
            ring: Mutex::new(Ring {
                frames: VecDeque::new(),
                bytes: 0,
                complete_after: newest_row_id,
                newest_row_id,
            }),
            wakers: Mutex::new(HashMap::new()),
            bell: Mutex::new(None),
            is_closing: AtomicBool::new(false),
        }
    }

    /// Takes the frames of one commit, in their order, and wakes the streams of their scopes.
    pub(super) fn publish(&self, frames: &mut Vec<Arc<Frame>>) {
        let Some(last) = frames.last() else { return };
        let last_row_id = last.row_id;
        // (scope, its last row), small: one commit seldom touches more than a few scopes.
        let mut heads: Vec<(i64, i64)> = vec![(WHOLE_LOG, last_row_id)];
        for frame in frames.iter() {
            match heads.iter_mut().skip(1).find(|head| head.0 == frame.scope_key) {
                Some(head) => head.1 = frame.row_id,
                None => heads.push((frame.scope_key, frame.row_id)),
            }
        }
        if let Some(bell) = lock(&self.bell).as_deref() {
            bell.note(frames);
        }
        {
            let mut ring = lock(&self.ring);
            ring.newest_row_id = last_row_id;
            for frame in frames.drain(..) {
                ring.bytes += frame.json.len();
                ring.frames.push_back(frame);
            }
            ring.trim();
        }
        let wakers: Vec<(Arc<Waker>, i64)> = {
            let wakers = lock(&self.wakers);
            heads
                .iter()
                .filter_map(|(scope_key, row_id)| {
                    Some((Arc::clone(wakers.get(scope_key)?), *row_id))
                })
                .collect()
        };
        for (waker, row_id) in wakers {
            lock(&waker.watched).newest_row_id = row_id;
            waker.news.notify_all();
        }
    }

    /// The last committed row.
    pub fn newest_row_id(&self) -> i64 {
        lock(&self.ring).newest_row_id
    }

    pub fn facts(&self) -> TailFacts {
        let watched_scopes = lock(&self.wakers).len();
        let ring = lock(&self.ring);
        TailFacts {
            frames: ring.frames.len(),
            bytes: ring.bytes,
            newest_row_id: ring.newest_row_id,
            complete_after: ring.complete_after,
            watched_scopes,
        }
    }

    /// Registers a stream with one scope, or with the whole log. Register first, look second: so nothing is missed.
    pub fn watch(self: &Arc<Self>, scope_key: Option<i64>) -> Watch {
        let key = scope_key.unwrap_or(WHOLE_LOG);
        let newest_row_id = self.newest_row_id();
        let mut wakers = lock(&self.wakers);
        let waker = wakers.entry(key).or_insert_with(|| {
            let watched = Mutex::new(Watched { newest_row_id, watches: 0 });
            Arc::new(Waker { watched, news: Condvar::new() })
        });
        lock(&waker.watched).watches += 1;
        Watch { tail: Arc::clone(self), waker: Arc::clone(waker), scope_key }
    }

    /// Hangs up the bell, and gives what it rings on. There is one bell; a second takes the place of the first.
    pub fn bell(&self) -> (Arc<Bell>, Receiver<()>) {
        let (ring, rings) = crossbeam_channel::bounded(1);
        let bell = Arc::new(Bell { scopes: Mutex::default(), ring });
        *lock(&self.bell) = Some(Arc::clone(&bell));
        (bell, rings)
    }

    /// Ends every wait, now and later.
    pub fn close(&self) {
        self.is_closing.store(true, Ordering::SeqCst);
        let wakers: Vec<Arc<Waker>> = lock(&self.wakers).values().cloned().collect();
        for waker in wakers {
            drop(lock(&waker.watched));
            waker.news.notify_all();
        }
    }

    pub fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }
}

impl Ring {
    fn trim(&mut self) {
        while self.frames.len() > limits::TAIL_FRAMES
            || (self.bytes > limits::TAIL_BYTES && self.frames.len() > 1)
        {
            if let Some(oldest) = self.frames.pop_front() {
                self.bytes -= oldest.json.len();
                self.complete_after = oldest.row_id;
            }
        }
    }
}

impl Bell {
    /// Follows a scope from now on. Name first, read second: so nothing is missed.
    pub fn name(&self, scope_key: i64) {
        lock(&self.scopes).named.insert(scope_key);
    }

    pub fn forget(&self, scope_key: i64) {
        let mut scopes = lock(&self.scopes);
        scopes.named.remove(&scope_key);
        scopes.changed.remove(&scope_key);
    }

    /// The scopes that have changed since they were asked for last.
    pub fn changed(&self) -> HashSet<i64> {
        std::mem::take(&mut lock(&self.scopes).changed)
    }

    /// Notes whose frames these are. What tells nothing that is not told again later rings no bell.
    fn note(&self, frames: &[Arc<Frame>]) {
        let mut scopes = lock(&self.scopes);
        let scopes = &mut *scopes;
        if scopes.named.is_empty() {
            return;
        }
        let told = frames.iter().filter(|frame| !frame.droppable);
        let mut is_news = false;
        for frame in told.filter(|frame| scopes.named.contains(&frame.scope_key)) {
            is_news |= scopes.changed.insert(frame.scope_key);
        }
        if is_news {
            // A ring that was not heard yet is enough.
            self.ring.try_send(()).ok();
        }
    }
}

impl Watch {
    /// Takes the frames of the scope after `row_id` from the ring into `out`, until `out` holds `frames_max`, or those
    /// taken have [`limits::PAGE_BYTES`]: what a slow stream holds is nobody's any more once it has left the ring.
    pub fn look(&self, row_id: i64, frames_max: usize, out: &mut Vec<Arc<Frame>>) -> Look {
        let ring = lock(&self.tail.ring);
        if row_id < ring.complete_after {
            return Look::Behind;
        }
        let start = ring.frames.partition_point(|frame| frame.row_id <= row_id);
        let mut bytes = 0;
        for frame in ring.frames.range(start..) {
            if self.scope_key.is_none_or(|scope_key| scope_key == frame.scope_key) {
                out.push(Arc::clone(frame));
                bytes += frame.json.len();
                if out.len() >= frames_max || bytes >= limits::PAGE_BYTES {
                    return Look::UpTo(frame.row_id);
                }
            }
        }
        Look::UpTo(ring.newest_row_id)
    }

    /// Waits until something was published in the scope after `row_id`, or the time is over.
    pub fn wait(&self, row_id: i64, at_most: Duration) -> Woken {
        let deadline = Instant::now() + at_most;
        let mut watched = lock(&self.waker.watched);
        loop {
            if self.tail.is_closing() {
                return Woken::Closing;
            }
            if watched.newest_row_id > row_id {
                return Woken::News;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::TimedOut;
            }
            watched = self
                .waker
                .news
                .wait_timeout(watched, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut wakers = lock(&self.tail.wakers);
        let mut watched = lock(&self.waker.watched);
        watched.watches -= 1;
        if watched.watches == 0 {
            wakers.remove(&self.scope_key.unwrap_or(WHOLE_LOG));
        }
    }
}

/// No code panics while it holds one of these locks; were it so, the data would still be whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(row_id: i64, scope_key: i64) -> Arc<Frame> {
        Arc::new(Frame {
            row_id,
            scope_key,
            seq: row_id,
            kind: "item.delta",
            droppable: true,
            json: "{}".into(),
            turn_id_at: None,
        })
    }

    #[test]
    fn a_stream_sees_its_own_scope_only_and_each_frame_once() {
        let tail = Arc::new(Tail::new(0));
        let watch = tail.watch(Some(7));
        tail.publish(&mut vec![frame(1, 7), frame(2, 8), frame(3, 7)]);
        let mut seen = Vec::new();
        let look = watch.look(0, 100, &mut seen);
        assert_eq!(look, Look::UpTo(3));
        assert_eq!(seen.iter().map(|frame| frame.row_id).collect::<Vec<_>>(), [1, 3]);
        seen.clear();
        assert_eq!(watch.look(3, 100, &mut seen), Look::UpTo(3));
        assert!(seen.is_empty());
    }

    #[test]
    fn a_commit_elsewhere_does_not_wake() {
        let tail = Arc::new(Tail::new(0));
        let watch = tail.watch(Some(7));
        tail.publish(&mut vec![frame(1, 8)]);
        assert_eq!(watch.wait(0, Duration::ZERO), Woken::TimedOut);
        tail.publish(&mut vec![frame(2, 7)]);
        assert_eq!(watch.wait(0, Duration::ZERO), Woken::News);
    }

    #[test]
    fn a_cursor_older_than_the_ring_is_sent_to_the_database() {
        let tail = Arc::new(Tail::new(0));
        let watch = tail.watch(None);
        let frames = i64::try_from(limits::TAIL_FRAMES).unwrap() + 10;
        for row_id in 1..=frames {
            tail.publish(&mut vec![frame(row_id, 1)]);
        }
        let mut seen = Vec::new();
        assert_eq!(watch.look(9, 1, &mut seen), Look::Behind);
        assert_eq!(watch.look(10, 1, &mut seen), Look::UpTo(11));
    }

    #[test]
    fn closing_ends_a_wait() {
        let tail = Arc::new(Tail::new(0));
        let watch = tail.watch(None);
        tail.close();
        assert_eq!(watch.wait(0, Duration::from_secs(60)), Woken::Closing);
    }

    #[test]
    fn a_look_takes_so_many_bytes_and_goes_on_behind_them() {
        let tail = Arc::new(Tail::new(0));
        let watch = tail.watch(None);
        let half: Box<str> = "x".repeat(limits::PAGE_BYTES / 2 + 1).into();
        let large = |row_id| {
            let frame = Arc::into_inner(frame(row_id, 7)).unwrap();
            Arc::new(Frame { json: half.clone(), ..frame })
        };
        tail.publish(&mut (1..=5).map(large).collect());
        let mut looked = 0;
        for rows in [vec![1, 2], vec![3, 4], vec![5], vec![]] {
            let mut seen = Vec::new();
            let Look::UpTo(row_id) = watch.look(looked, 100, &mut seen) else { panic!("behind") };
            assert_eq!(seen.iter().map(|frame| frame.row_id).collect::<Vec<_>>(), rows);
            looked = row_id;
        }
        assert_eq!(looked, 5);
    }

    #[test]
    fn the_bell_rings_once_for_what_was_named() {
        let tail = Arc::new(Tail::new(0));
        let (bell, rings) = tail.bell();
        let word = |row_id, scope_key| {
            Arc::new(Frame {
                droppable: false,
                ..Arc::into_inner(frame(row_id, scope_key)).unwrap()
            })
        };
        tail.publish(&mut vec![word(1, 7)]);
        assert!(rings.try_recv().is_err(), "nothing was named");
        bell.name(7);
        tail.publish(&mut vec![frame(2, 7), word(3, 8)]);
        assert!(rings.try_recv().is_err(), "a delta and another scope");
        tail.publish(&mut vec![word(4, 7)]);
        tail.publish(&mut vec![word(5, 7)]);
        assert!(rings.try_recv().is_ok());
        assert!(rings.try_recv().is_err(), "one ring for both");
        assert_eq!(bell.changed(), HashSet::from([7]));
        assert!(bell.changed().is_empty());
    }

    #[test]
    fn nobody_watching_leaves_nothing_behind() {
        let tail = Arc::new(Tail::new(0));
        let watches = [tail.watch(Some(1)), tail.watch(Some(1))];
        assert_eq!(lock(&tail.wakers).len(), 1);
        drop(watches);
        assert_eq!(lock(&tail.wakers).len(), 0);
    }
}
