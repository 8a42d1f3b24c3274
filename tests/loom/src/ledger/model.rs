//! Models of the hand-over from the writer: to the callers that wait for their answer, and to the streams.

use super::answer::{Sleeper, Sleepers, Slot};
use super::cache::SessionCache;
use super::event::Frame;
use super::tail::{Look, Tail, Watch, Woken};
use loom::sync::atomic::{AtomicU8, Ordering};
use loom::thread;
use std::sync::Arc;
use std::time::Duration;

/// Never over: loom's clock stands still.
const HOUR: Duration = Duration::from_secs(3600);

fn frame(row_id: i64, scope_key: i64) -> Arc<Frame> {
    Arc::new(Frame { row_id, scope_key, droppable: false, json: String::new() })
}

fn publish(tail: &Tail, row_id: i64, scope_key: i64) {
    tail.publish(&mut vec![frame(row_id, scope_key)]);
}

/// What a stream does: look, wait while there is nothing, look again, until this row has come. Returns all that came.
fn follow(watch: &Watch, mut row_id: i64, until: i64) -> Vec<i64> {
    let mut seen = Vec::new();
    loop {
        let mut frames = Vec::new();
        match watch.look(row_id, usize::MAX, &mut frames) {
            Look::UpTo(looked) => row_id = looked,
            Look::Behind => panic!("nothing has left the ring"),
        }
        seen.extend(frames.iter().map(|frame| frame.row_id));
        if row_id >= until {
            return seen;
        }
        assert_eq!(watch.wait(row_id, HOUR), Woken::News);
    }
}

/// The place of one answer, for the writer and for the caller.
fn pair<T>() -> (Arc<Slot<T>>, Arc<Slot<T>>) {
    let slot = Arc::new(Slot::new());
    (Arc::clone(&slot), slot)
}

fn given(slot: Arc<Slot<u8>>, answer: u8) -> Arc<dyn Sleeper> {
    slot.give(answer);
    slot
}

pub(crate) fn an_answer_wakes_its_caller() {
    loom::model(|| {
        let (giver, caller) = pair();
        let writer = thread::spawn(move || Sleepers::new(vec![given(giver, 7)]).wake());
        assert_eq!(caller.wait(), Some(7));
        writer.join().unwrap();
    });
}

/// Three callers, one more than the writer wakes: the third is woken by another, or was never asleep.
pub(crate) fn who_is_woken_wakes_the_others() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(|| {
        let (slots, callers): (Vec<_>, Vec<_>) = (0..3)
            .map(|number| {
                let (giver, caller) = pair();
                let caller = thread::spawn(move || assert_eq!(caller.wait(), Some(number)));
                (giver, caller)
            })
            .unzip();
        Sleepers::new(
            slots.into_iter().zip(0..).map(|(slot, number)| given(slot, number)).collect(),
        )
        .wake();
        for caller in callers {
            caller.join().unwrap();
        }
    });
}

pub(crate) fn an_end_without_an_answer_wakes_the_caller() {
    loom::model(|| {
        let (giver, caller) = pair::<u8>();
        let writer = thread::spawn(move || giver.end());
        assert_eq!(caller.wait(), None);
        writer.join().unwrap();
    });
}

pub(crate) fn a_commit_wakes_its_streams() {
    for scope in [Some(7), None] {
        loom::model(move || {
            let tail = Arc::new(Tail::new(0));
            let writer = {
                let tail = Arc::clone(&tail);
                thread::spawn(move || {
                    publish(&tail, 1, 7);
                    publish(&tail, 2, 8);
                    publish(&tail, 3, 7);
                })
            };
            let watch = tail.watch(scope);
            let expected = if scope.is_some() { vec![1, 3] } else { vec![1, 2, 3] };
            assert_eq!(follow(&watch, 0, 3), expected);
            writer.join().unwrap();
        });
    }
}

pub(crate) fn leaving_takes_no_wake_up_along() {
    loom::model(|| {
        let tail = Arc::new(Tail::new(0));
        let leaving = tail.watch(Some(7));
        let writer = {
            let tail = Arc::clone(&tail);
            thread::spawn(move || publish(&tail, 1, 7))
        };
        let leaver = thread::spawn(move || drop(leaving));
        let watch = tail.watch(Some(7));
        assert_eq!(follow(&watch, 0, 1), [1]);
        leaver.join().unwrap();
        writer.join().unwrap();
        drop(watch);
        assert_eq!(tail.facts().watched_scopes, 0, "something is left behind");
    });
}

pub(crate) fn a_close_ends_every_wait() {
    loom::model(|| {
        let tail = Arc::new(Tail::new(0));
        let closer = {
            let tail = Arc::clone(&tail);
            thread::spawn(move || tail.close())
        };
        let watch = tail.watch(Some(7));
        assert_eq!(watch.wait(0, HOUR), Woken::Closing);
        closer.join().unwrap();
    });
}

pub(crate) fn a_bell_rings_for_what_changed() {
    loom::model(|| {
        let tail = Arc::new(Tail::new(0));
        let database = Arc::new(AtomicU8::new(0));
        let (bell, rings) = tail.bell();
        let writer = {
            let (tail, database) = (Arc::clone(&tail), Arc::clone(&database));
            thread::spawn(move || {
                // Commit first, then publish.
                database.store(1, Ordering::SeqCst);
                publish(&tail, 1, 7);
            })
        };
        // Name first, read second: what the read does not show rings.
        bell.name(7);
        let has_read = database.load(Ordering::SeqCst) == 1;
        writer.join().unwrap();
        assert!(has_read || (rings.try_recv().is_ok() && bell.changed().contains(&7)));
    });
}

pub(crate) fn an_old_record_is_not_kept() {
    loom::model(|| {
        let cache = Arc::new(SessionCache::default());
        let database = Arc::new(AtomicU8::new(1));
        let reader = {
            let (cache, database) = (Arc::clone(&cache), Arc::clone(&database));
            thread::spawn(move || {
                if let Err(generation) = cache.get("s") {
                    let record = database.load(Ordering::SeqCst);
                    cache.put("s", Arc::from([record].as_slice()), generation);
                }
            })
        };
        // The writer: commit first, then forget, then answer.
        database.store(2, Ordering::SeqCst);
        cache.forget(&["s".to_owned()]);
        assert!(cache.get("s").is_err() || *cache.get("s").unwrap() == [2], "an old record");
        reader.join().unwrap();
        assert!(cache.get("s").is_err() || *cache.get("s").unwrap() == [2], "an old record");
    });
}
