//! Properties of the ledger as a whole: whatever comes in whatever order, and wherever it is cut off.

mod folder;

pub(crate) use folder::Folder;

use super::event::{self, Frame, NewEvent, Page};
use super::session::NewSession;
use super::turn::NewTurn;
use super::{Ledger, Readers, Synchronous, Tx, writer};
use crate::error::{Code, Error, Result};
use crate::limits;
use crate::model::event::{EventFilter, EventKind};
use crate::model::{ScopeKind, TurnSource, TurnStatus};
use crate::thread::{self, Thread};
use crossbeam_channel::{Receiver, Sender};
use rusqlite::Connection;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A wait that is over long before, unless it is over never.
const SOON: Duration = Duration::from_secs(20);

impl Folder {
    pub(super) fn ledger(&self) -> Opened {
        open(&self.database())
    }
}

/// A ledger and its thread, which ends when the ledger above it is dropped.
pub(super) struct Opened {
    pub(super) ledger: Ledger,
    writer: Thread,
}

impl Opened {
    /// Ends it; false when the writer has panicked.
    pub(super) fn end(self) -> bool {
        let Opened { ledger, writer } = self;
        drop(ledger);
        writer.join()
    }
}

fn open(path: &Path) -> Opened {
    let (ledger, writer) = Ledger::open(path, Synchronous::Normal).unwrap();
    Opened { ledger, writer }
}

/// A small generator of numbers: the same seed gives the same test.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }
}

pub(crate) fn new_session(session_id: &str) -> NewSession {
    NewSession {
        session_id: session_id.to_owned(),
        provider: "demo".to_owned(),
        agent: "default".to_owned(),
        title: None,
        cwd: None,
        agent_cwd: "/".to_owned(),
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
        system_prompt: None,
        metadata: "{}".to_owned(),
        env: "{}".to_owned(),
        mcp_servers: "[]".to_owned(),
    }
}

/// A turn that runs.
pub(crate) fn new_turn(turn_id: &str, session_key: i64) -> NewTurn<'_> {
    NewTurn {
        turn_id,
        session_key,
        status: TurnStatus::InProgress,
        source: TurnSource::User,
        input: "[]",
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
        is_taken: false,
    }
}

/// A session of somebody else that was closed at this time.
pub(crate) fn insert_closed(tx: &mut Tx<'_>, session_id: &str, closed_at: i64) -> Result<i64> {
    let session_key = tx.insert_session(&new_session(session_id))?;
    let sql = "UPDATE session SET state = 'closed', closed_at = ?2 WHERE session_key = ?1";
    tx.connection().execute(sql, [session_key, closed_at])?;
    Ok(session_key)
}

/// All that is in the log, as a page reads it.
fn stored_frames(ledger: &Ledger) -> Vec<Arc<Frame>> {
    let page = Page {
        scope_key: None,
        after: None,
        before: None,
        descending: false,
        events_max: limits::TAIL_FRAMES,
        bytes_max: usize::MAX,
    };
    ledger.read(|db| event::page(db, &page, &EventFilter::default())).unwrap()
}

/// A change of a session, whose title counts them, and the event that tells of it.
fn append(ledger: &Ledger, session_id: &str, is_good: bool) -> Result<i64> {
    let session_id = session_id.to_owned();
    ledger.write(move |tx| {
        let sql = "UPDATE session SET title = title + 1 WHERE session_id = ?1";
        if tx.connection().execute(sql, [&session_id])? == 0 {
            let title = Some("1".to_owned());
            tx.insert_session(&NewSession { title, ..new_session(&session_id) })?;
        }
        let event = NewEvent::session(&session_id, EventKind::SessionUpdated, "{\"n\":1}");
        let seq = tx.append(event)?;
        if is_good { Ok(seq) } else { Err(Error::new(Code::Conflict, "on purpose")) }
    })
}

/// Every session has changed as often as its log tells. Gives how often that is.
fn check_records(db: &Connection) -> Vec<(String, i64)> {
    let read = |sql: &str| -> Vec<(String, i64)> {
        let mut statement = db.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let changes =
        read("SELECT session_id, CAST(title AS INTEGER) FROM session ORDER BY session_id");
    let told = read(
        "SELECT scope_id, max(seq) FROM event JOIN scope USING (scope_key)
         GROUP BY scope_id ORDER BY scope_id",
    );
    assert_eq!(changes, told);
    told
}

/// Every scope counts 1, 2, 3, …, and row ids go up by one.
fn check_log(db: &Connection) -> HashMap<i64, i64> {
    let mut heads: HashMap<i64, i64> = HashMap::new();
    let mut statement =
        db.prepare("SELECT row_id, scope_key, seq FROM event ORDER BY row_id").unwrap();
    let mut rows = statement.query([]).unwrap();
    let mut expected_row_id = 1;
    while let Some(row) = rows.next().unwrap() {
        assert_eq!(row.get::<_, i64>(0).unwrap(), expected_row_id);
        expected_row_id += 1;
        let head = heads.entry(row.get(1).unwrap()).or_insert(0);
        *head += 1;
        assert_eq!(row.get::<_, i64>(2).unwrap(), *head);
    }
    heads
}

#[test]
fn many_writers_and_failing_changes_leave_no_hole_and_no_double() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let watch = ledger.tail().watch(None);
    let (threads, writes) = (8, 200);
    let writers: Vec<Thread> = (0..threads)
        .map(|number| {
            let ledger = ledger.clone();
            let body = move || {
                let mut numbers = Numbers(number);
                for _ in 0..writes {
                    let scope = format!("s{}", numbers.below(5));
                    let is_good = numbers.below(4) > 0;
                    assert_eq!(append(&ledger, &scope, is_good).is_ok(), is_good);
                }
            };
            thread::spawn("test-writer", body).unwrap()
        })
        .collect();
    for writer in writers {
        assert!(writer.join());
    }
    let heads = ledger.read(|db| Ok(check_log(db))).unwrap();
    let committed: i64 = heads.values().sum();
    let told = ledger.read(|db| Ok(check_records(db))).unwrap();
    assert_eq!(told.len(), 5);
    assert_eq!(ledger.tail().newest_row_id(), committed);
    // What the tail published is what the database has.
    let mut frames = Vec::new();
    watch.look(0, usize::MAX, &mut frames);
    let stored = stored_frames(ledger);
    assert_eq!(frames.len(), stored.len());
    for (live, replayed) in frames.iter().zip(&stored) {
        assert_eq!(live.json, replayed.json);
    }
}

#[test]
fn a_frame_knows_its_turn_whether_it_is_live_or_read_again() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let watch = ledger.tail().watch(None);
    let turns = [Some("turn_a"), None, Some("turn_with_a_longer_name"), Some(""), Some("turn_ä")];
    ledger
        .write(move |tx| {
            for turn_id in turns {
                let payload = "{\"turn_id\":\"turn_of_somebody_else\"}";
                let event = NewEvent::session("s", EventKind::ItemDelta, payload);
                tx.append(NewEvent { turn_id, ..event })?;
            }
            Ok(())
        })
        .unwrap();
    let mut live = Vec::new();
    watch.look(0, usize::MAX, &mut live);
    let stored = stored_frames(ledger);
    for frames in [&live, &stored] {
        assert!(frames.iter().map(|frame| frame.turn_id()).eq(turns), "{frames:?}");
    }
}

#[test]
fn an_append_that_fails_takes_no_number() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let refuse = "CREATE TEMP TRIGGER refuse BEFORE INSERT ON event WHEN NEW.payload = 'bad'
                  BEGIN SELECT RAISE(ABORT, 'on purpose'); END";
    ledger.write(move |tx| Ok(tx.connection().execute_batch(refuse)?)).unwrap();
    let append =
        |tx: &mut Tx<'_>, payload| tx.append(NewEvent::session("s", EventKind::ItemDelta, payload));
    // The first of its scope and a later one, in a change that goes on without it.
    for seq in [1, 2] {
        let appended = ledger.write(move |tx| {
            assert!(append(tx, "bad").is_err());
            append(tx, "{}")
        });
        assert_eq!(appended.unwrap(), seq);
    }
    ledger.read(|db| Ok(check_log(db))).unwrap();
    assert!(stored_frames(ledger).iter().map(|frame| frame.row_id).eq([1, 2]));
}

#[test]
fn one_name_in_two_kinds_of_scope_has_two_logs() {
    let folder = Folder::new();
    let opened = folder.ledger();
    for seq in [1, 2, 3] {
        for scope in [ScopeKind::Session, ScopeKind::Team] {
            let appended = opened.ledger.write(move |tx| {
                let event = NewEvent::session("same", EventKind::SessionUpdated, "{}");
                tx.append(NewEvent { scope, ..event })
            });
            assert_eq!(appended.unwrap(), seq, "{scope:?}");
        }
    }
}

#[test]
fn a_change_that_is_lost_on_the_way_tells_its_caller() {
    let (pending, change) = writer::job(|_| Ok(7));
    drop(pending);
    assert!(change.wait().is_none(), "there was nobody to answer");
}

#[test]
fn changes_that_come_while_the_ledger_closes_are_made_or_refused() {
    for _ in 0..10 {
        let folder = Folder::new();
        let opened = folder.ledger();
        let (tell, told) = crossbeam_channel::bounded(8);
        let callers = ["s1", "s2", "s3", "s4"].map(|scope| {
            let (ledger, tell) = (opened.ledger.clone(), tell.clone());
            let body = move || {
                let mut made = append(&ledger, scope, true).unwrap();
                tell.send(Ok(made)).unwrap();
                let refused = loop {
                    match append(&ledger, scope, true) {
                        Ok(seq) => made = seq,
                        Err(error) => break error.code,
                    }
                };
                tell.send(Err((made, refused))).unwrap();
            };
            thread::spawn("test-caller", body).unwrap()
        });
        callers.iter().for_each(|_| assert_eq!(told.recv_timeout(SOON), Ok(Ok(1)), "they work"));
        // They keep their handles, and one is about to send whenever the writer looks for the last time.
        opened.ledger.close();
        let mut made = 0;
        for _ in &callers {
            let Ok(Err((last, refused))) = told.recv_timeout(SOON) else {
                // To drop them is to wait for them.
                std::mem::forget(callers);
                panic!("somebody waits for ever");
            };
            assert_eq!(refused, Code::ShuttingDown);
            made += last;
        }
        assert!(callers.into_iter().all(Thread::join));
        let heads = opened.ledger.read(|db| Ok(check_log(db))).unwrap();
        assert_eq!(heads.values().sum::<i64>(), made, "what was answered, and nothing else");
        assert!(opened.end());
    }
}

#[test]
fn a_change_that_fails_half_way_takes_no_other_of_its_transaction_along() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let (open, gate) = crossbeam_channel::bounded::<()>(0);
    // Holds the transaction until the others wait for it; run again, it finds the gate open.
    let (holding, held) = writer::job(move |tx| {
        gate.recv().ok();
        tx.append(NewEvent::session("held", EventKind::SessionUpdated, "{}"))
    });
    ledger.jobs.send(holding).unwrap();
    let mut changes = Vec::new();
    for is_good in [true, false, true, true, false] {
        let (pending, change) = writer::job(move |tx| {
            let seq = tx.append(NewEvent::session("s", EventKind::SessionUpdated, "{}"))?;
            if is_good { Ok(seq) } else { Err(Error::new(Code::Conflict, "on purpose")) }
        });
        ledger.jobs.send(pending).unwrap();
        changes.push(change);
    }
    drop(open);
    assert_eq!(held.wait().unwrap().unwrap(), 1);
    let seqs: Vec<Option<i64>> =
        changes.into_iter().map(|change| change.wait().unwrap().ok()).collect();
    assert_eq!(seqs, [Some(1), None, Some(2), Some(3), None]);
    assert_eq!(ledger.counters().commits.load(Ordering::Relaxed), 1);
    assert_eq!(ledger.counters().events.load(Ordering::Relaxed), 4);
    ledger.read(|db| Ok(check_log(db))).unwrap();
}

#[test]
fn cut_off_between_any_two_writes_everything_answered_is_there() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let mut numbers = Numbers(7);
    let mut answered: HashMap<String, i64> = HashMap::new();
    for round in 0..60 {
        let scope = format!("s{}", numbers.below(3));
        let is_good = numbers.below(5) > 0;
        if let Ok(seq) = append(ledger, &scope, is_good) {
            answered.insert(scope, seq);
        }
        // What a killed process leaves: the files as they are now, nothing closed, nothing checkpointed.
        let copy = folder.path().join(format!("copy{round}"));
        std::fs::create_dir(&copy).unwrap();
        for file in ["db", "db-wal"] {
            std::fs::copy(folder.path().join(file), copy.join(file)).unwrap();
        }
        let again = open(&copy.join("db"));
        again
            .ledger
            .read(|db| {
                check_log(db);
                let told: HashMap<String, i64> = check_records(db).into_iter().collect();
                assert_eq!(told, answered, "in round {round}");
                Ok(())
            })
            .unwrap();
        let next = append(&again.ledger, "s0", true).unwrap();
        assert_eq!(next, answered.get("s0").copied().unwrap_or(0) + 1);
    }
}

/// The database's own log is cut behind each of its frames, as by a death in the middle of a commit.
#[test]
fn cut_off_within_any_write_a_change_and_what_tells_of_it_are_there_or_neither_is() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let mut numbers = Numbers(3);
    let mut changes = 0;
    for _ in 0..20 {
        let is_good = numbers.below(4) > 0;
        let answer = append(&opened.ledger, &format!("s{}", numbers.below(3)), is_good);
        changes += i64::from(answer.is_ok());
    }
    let wal = std::fs::read(folder.path().join("db-wal")).unwrap();
    let page_bytes = u32::from_be_bytes(wal[8..12].try_into().unwrap()) as usize;
    let (head_bytes, frame_bytes) = (32, 24 + page_bytes);
    let mut seen = Vec::new();
    for end in (head_bytes..=wal.len()).step_by(frame_bytes) {
        let copy = folder.path().join(format!("copy{end}"));
        std::fs::create_dir(&copy).unwrap();
        std::fs::copy(folder.database(), copy.join("db")).unwrap();
        std::fs::write(copy.join("db-wal"), &wal[..end]).unwrap();
        let again = open(&copy.join("db"));
        let heads = again.ledger.read(|db| Ok((check_log(db), check_records(db)).0)).unwrap();
        seen.push(heads.values().sum::<i64>());
    }
    // More frames than commits, or nothing was cut in its middle.
    assert!(seen.len() as i64 > 2 * changes, "{seen:?}");
    seen.dedup();
    assert_eq!(seen, (0..=changes).collect::<Vec<i64>>());
}

#[test]
fn a_session_has_one_active_turn_whatever_asks() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let key = ledger.write(|tx| tx.insert_session(&new_session("sess_1"))).unwrap();
    let start = move |ledger: &Ledger, turn_id: String| {
        ledger.write(move |tx| tx.insert_turn(&new_turn(&turn_id, key)))
    };
    let (told, outcomes) = crossbeam_channel::unbounded();
    let racers: Vec<Thread> = (0..8)
        .map(|number| {
            let (ledger, told) = (ledger.clone(), told.clone());
            let body = move || {
                told.send(start(&ledger, format!("turn_{number}")).map_err(|e| e.code)).unwrap();
            };
            thread::spawn("racer", body).unwrap()
        })
        .collect();
    drop(racers);
    drop(told);
    let outcomes: Vec<_> = outcomes.iter().collect();
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let refused = outcomes.iter().filter(|outcome| **outcome == Err(Code::TurnActive)).count();
    assert_eq!(refused, 7);
}

#[test]
fn a_purge_gives_no_number_out_again() {
    let folder = Folder::new();
    let Opened { ledger, writer } = folder.ledger();
    append(&ledger, "keep", true).unwrap();
    for _ in 0..3 {
        append(&ledger, "purged", true).unwrap();
    }
    ledger.write(|tx| tx.purge_scope(ScopeKind::Session, "purged")).unwrap();
    drop(ledger);
    writer.join();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    append(ledger, "keep", true).unwrap();
    assert_eq!(ledger.tail().newest_row_id(), 5);
    // The purged name begins a new log of its own.
    assert_eq!(append(ledger, "purged", true).unwrap(), 1);
}

#[test]
fn a_stream_that_looks_late_still_sees_each_event_once() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    append(ledger, "s", true).unwrap();
    let scope_key = ledger.read(|db| Ok(event::scope_key(db, ScopeKind::Session, "s")?)).unwrap();
    let watch = ledger.tail().watch(Some(scope_key));
    let writer = {
        let ledger = ledger.clone();
        thread::spawn("test-writer", move || {
            for _ in 0..500 {
                append(&ledger, "s", true).unwrap();
            }
        })
        .unwrap()
    };
    let (mut row_id, mut seen) = (0, Vec::new());
    while seen.len() < 501 {
        let mut frames = Vec::new();
        match watch.look(row_id, 7, &mut frames) {
            super::tail::Look::UpTo(up_to) => row_id = up_to,
            super::tail::Look::Behind => {
                let page = Page {
                    scope_key: Some(scope_key),
                    after: Some(seen.len() as i64),
                    before: None,
                    descending: false,
                    events_max: 7,
                    bytes_max: usize::MAX,
                };
                frames = ledger.read(|db| event::page(db, &page, &EventFilter::default())).unwrap();
                row_id = frames.last().map_or(row_id, |frame| frame.row_id);
            }
        }
        seen.extend(frames.iter().map(|frame| frame.seq));
        if seen.len() < 501 {
            watch.wait(row_id, Duration::from_secs(10));
        }
    }
    writer.join();
    assert_eq!(seen, (1..=501).collect::<Vec<i64>>());
}

/// The database of a full disk, by the means that SQLite has for it.
#[test]
fn without_room_a_change_is_refused_whole_and_with_room_the_numbers_go_on() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let ledger = &opened.ledger;
    let bound_pages = |pages: i64| {
        let bound = ledger.write(move |tx| {
            let sql = format!("PRAGMA max_page_count = {pages}");
            Ok(tx.connection().query_row(&sql, [], |row| row.get::<_, i64>(0))?)
        });
        bound.unwrap();
    };
    let append_large = || {
        ledger.write(|tx| {
            let payload = format!("{{\"text\":\"{}\"}}", "x".repeat(20_000));
            tx.append(NewEvent::session("s", EventKind::ItemDelta, payload))
        })
    };
    append(ledger, "s", true).unwrap();
    bound_pages(80);
    let refused = (0..100).find_map(|_| append_large().err()).expect("80 pages are soon full");
    assert_eq!(refused.code, Code::Capacity, "{refused}");
    let read = |ledger: &Ledger| ledger.read(|db| Ok(check_log(db))).unwrap();
    let kept = read(ledger);
    assert_eq!(append_large().unwrap_err().code, Code::Capacity);
    assert_eq!(read(ledger), kept);
    bound_pages(1_000_000);
    let newest = *kept.values().max().unwrap();
    assert_eq!(append_large().unwrap(), newest + 1);
}

/// A caller that can not open a connection, once `words` says that it may; what it was told, and its word put back.
struct Unlucky {
    words: Sender<()>,
    put_back: Receiver<()>,
    answer: Receiver<Result<()>>,
    _thread: Thread,
}

impl Unlucky {
    fn new(readers: &Readers) -> Unlucky {
        let (words, may_open) = crossbeam_channel::bounded(1);
        let (put_words_back, put_back) = crossbeam_channel::bounded(1);
        let (told, answer) = crossbeam_channel::bounded(1);
        let readers = Readers { may_open, put_back: put_words_back, ..readers.clone() };
        let body = move || told.send(readers.take(Path::new("/no/database")).map(drop)).unwrap();
        Unlucky { words, put_back, answer, _thread: thread::spawn("reader", body).unwrap() }
    }

    /// Has it try, and waits until it has.
    fn fail(&self) {
        self.words.send(()).unwrap();
        self.put_back.recv_timeout(SOON).expect("who could not open one lets another try");
    }

    fn told(&self) -> Result<()> {
        self.answer.recv_timeout(SOON).expect("it waits for what nobody has")
    }
}

#[test]
fn who_can_not_open_a_connection_is_told_when_nobody_has_one() {
    let readers = Readers::new();
    // Another is being opened, which may fail as well.
    readers.may_open.recv().unwrap();
    let error = readers.take(Path::new("/no/database")).unwrap_err();
    assert_eq!(error.code, Code::Internal, "{error}");
    assert_eq!(readers.may_open.len(), limits::READERS - 1, "another may try");
    // All are being opened, and one fails.
    let unlucky = Unlucky::new(&readers);
    unlucky.fail();
    assert_eq!(unlucky.told().unwrap_err().code, Code::Internal);
}

#[test]
fn who_can_not_open_a_connection_takes_one_that_comes_back() {
    let folder = Folder::new();
    let opened = folder.ledger();
    let readers = &opened.ledger.readers;
    let lent = readers.take(&folder.database()).unwrap();
    let unlucky = Unlucky::new(readers);
    unlucky.fail();
    readers.give_back.send(lent).unwrap();
    unlucky.told().unwrap();
}
