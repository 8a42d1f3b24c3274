//! Sessions that are taken up by a server whose ledger fails them, or takes its time. No agent of theirs has a keeper.

use super::actor::{Actor, LiveItem, LiveTurn, Phase, TurnRequest};
use super::*;
use crate::config::Overrides;
use crate::ledger::Synchronous;
use crate::ledger::tests::{Folder, new_session, new_turn};
use crate::model::{ItemType, TurnSource, id};
use crate::provider::codex::Codex;
use crate::thread::Thread;
use crossbeam_channel::{RecvTimeoutError, Sender};
use serde_json::json;

/// A wait that is over long before, unless it is over never.
const SOON: Duration = Duration::from_secs(20);

/// Sessions in a folder that goes away with the test. The parts drop in this order.
struct Scene {
    sessions: Sessions,
    _writer: Thread,
    folder: Folder,
}

/// A session's thread that was begun by hand. The words drop first: the thread ends with them.
struct Begun {
    words: Sender<Box<Command>>,
    ended: Receiver<()>,
    _thread: Thread,
}

impl Scene {
    fn new() -> Scene {
        let folder = Folder::new();
        let path = folder.path();
        let data_dir = Some(path.to_owned());
        let overrides = Overrides { data_dir, ..Overrides::default() };
        let config_toml = "[providers.demo]\nenabled = true\n";
        let config = Config::parse(config_toml, path, "/usr/bin:/bin", &overrides).unwrap();
        let config = Arc::new(config);
        let (ledger, writer) = Ledger::open(&folder.database(), Synchronous::Normal).unwrap();
        let (worktrees, _) = Worktrees::new(&config, ledger.clone()).unwrap();
        let keeper = path.join("no-keeper");
        let sessions = Sessions::new(
            Arc::clone(&config),
            ledger.clone(),
            Processes::new(Arc::clone(&config), ledger, keeper.clone(), worktrees.due()),
            Readiness::new(config, Vec::new()).unwrap(),
            worktrees,
            Sidecars { keeper: keeper.clone(), demo_agent: keeper, claude_bridge: None },
            None,
        );
        Scene { sessions, _writer: writer, folder }
    }

    /// Begins the thread of a session, which is sent a word only when it waits for one.
    fn begin(&self, session_id: &str, room: Option<Reservation>) -> Begun {
        let (words, heard) = crossbeam_channel::bounded(0);
        let (running, ended) = crossbeam_channel::bounded(0);
        let (shared, id) = (Arc::clone(&self.sessions.shared), Arc::from(session_id));
        let thread = thread::spawn("session", move || {
            defect::run(&shared, &id, heard, room);
            drop::<Sender<()>>(running);
        });
        Begun { words, ended, _thread: thread.unwrap() }
    }

    /// A session that nobody has opened.
    fn made(&self) -> String {
        let session_id = id::new("sess");
        let id = session_id.clone();
        let write = self.sessions.shared.ledger.write(move |tx| {
            tx.insert_session(&new_session(&id))?;
            place::tell_created(tx, &id)
        });
        write.unwrap();
        session_id
    }

    /// A session in the middle of a turn, as a server that was killed has left it.
    fn left(&self) -> String {
        let session_id = id::new("sess");
        let id = session_id.clone();
        let write = self.sessions.shared.ledger.write(move |tx| {
            let session_key = tx.insert_session(&new_session(&id))?;
            place::tell_created(tx, &id)?;
            tx.insert_agent(session_key, &id::new("agent"), "null")?;
            tx.insert_turn(&new_turn(&id::new("turn"), session_key))
        });
        write.unwrap();
        session_id
    }
}

#[test]
fn the_room_of_agents_is_theirs_before_their_threads_have_read_of_them() {
    let scene = Scene::new();
    for _ in 0..50 {
        scene.left();
    }
    // None of them can be told to be gone meanwhile.
    let (held, holds) = crossbeam_channel::bounded(1);
    let (go, goes) = crossbeam_channel::bounded::<()>(0);
    let ledger = scene.sessions.shared.ledger.clone();
    let holder = thread::spawn("holder", move || {
        let write = ledger.write(move |_tx| {
            held.send(()).unwrap();
            let _end = goes.recv();
            Ok(())
        });
        write.unwrap();
    });
    // Dropped before the thread, which ends with it.
    let go = go;
    holds.recv().unwrap();
    scene.sessions.recover().unwrap();
    assert_eq!(scene.sessions.live_agents("demo"), 50);
    drop(go);
    assert!(holder.unwrap().join());
    scene.sessions.shut_down(false, Instant::now() + SOON);
    assert_eq!(scene.sessions.live_agents("demo"), 0);
}

#[test]
fn a_session_that_can_not_be_read_when_its_thread_begins_is_taken_up_when_it_can() {
    let scene = Scene::new();
    let session_id = scene.left();
    scene.folder.hide_database(true);
    // A word is taken by who waits for one, so it shows that the first look has failed.
    let room = scene.sessions.shared.capacity.reserve_anyway("demo");
    let Begun { words, ended, .. } = &scene.begin(&session_id, Some(room));
    let word = Box::new(Command::Renew);
    words.send_timeout(word, SOON).expect("the thread still looks after its session");
    assert_eq!(scene.sessions.live_agents("demo"), 1);
    scene.folder.hide_database(false);
    assert_eq!(ended.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    let record = scene.sessions.shared.ledger.read(|db| session_rows::get(db, &session_id));
    let record = record.unwrap();
    assert!(!record.live && record.active_turn_id.is_none(), "{record:?}");
    assert_eq!(scene.sessions.live_agents("demo"), 0);
}

/// A session that was to be opened when it could not be read is: nobody asks for that again.
#[test]
fn a_session_that_was_to_be_opened_is_when_it_can_be_read() {
    let scene = Scene::new();
    let session_id = scene.made();
    scene.folder.hide_database(true);
    let Begun { words, ended, .. } = &scene.begin(&session_id, None);
    let (answer, opened) = crossbeam_channel::bounded(1);
    words.send_timeout(Box::new(Command::Open { reservation: None, answer }), SOON).unwrap();
    let (answer, refused) = crossbeam_channel::bounded(1);
    words.send_timeout(Box::new(Command::Sleep { answer }), SOON).unwrap();
    assert_eq!(refused.recv_timeout(SOON).unwrap().unwrap_err().code, Code::Capacity);
    scene.folder.hide_database(false);
    // There is no keeper to start its agent.
    opened.recv_timeout(SOON).unwrap().unwrap_err();
    assert_eq!(ended.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    let record = scene.sessions.shared.ledger.read(|db| session_rows::get(db, &session_id));
    assert_eq!(record.unwrap().status, "failed");
}

/// Who resumes a session as soon as its agent is told to be gone may meet the thread that has just ended it.
#[test]
fn a_session_that_is_resumed_when_all_of_it_has_ended_takes_requests() {
    let scene = Scene::new();
    let session_id = scene.made();
    let (_words, heard) = crossbeam_channel::bounded(1);
    let shared = Arc::clone(&scene.sessions.shared);
    let mut actor = Actor::new(shared, Arc::from(session_id), heard, None);
    load::load(&mut actor).unwrap();
    actor.state.phase = Phase::Over;
    actor.refuse_when_closing().unwrap();
    assert_eq!(actor.state.phase, Phase::Asleep);
}

/// A server that stops does not wait for a disk.
#[test]
fn a_session_that_can_not_be_read_ends_with_the_server() {
    let scene = Scene::new();
    let session_id = scene.left();
    scene.folder.hide_database(true);
    scene.sessions.shared.wake(&session_id, None).unwrap();
    let deadline = Instant::now() + SOON;
    scene.sessions.shut_down(false, deadline);
    assert!(Instant::now() < deadline, "its thread has not ended");
}

/// Only what is quiet and runs nothing is called over; an agent that says when it is over is waited for.
#[test]
fn work_that_an_agent_began_is_not_over_while_a_tool_of_it_runs() {
    let scene = Scene::new();
    let shared = Arc::clone(&scene.sessions.shared);
    let (_words, heard) = crossbeam_channel::bounded(1);
    let mut actor = Actor::new(shared, Arc::from("sess_1"), heard, None);
    let now = Instant::now();
    let request = TurnRequest::of_agent(TurnSource::Agent);
    let mut turn = LiveTurn::of_request("turn_1", request);
    turn.quiet_at = Some(now);
    let item = |turn_id: &str, item_type| LiveItem {
        item_id: Arc::from("item_1"),
        turn_id: Arc::from(turn_id),
        goes_on: false,
        item_type,
        body: serde_json::Map::new(),
        text: String::new(),
        output: String::new(),
        created_at: 0,
    };
    for (turn_id, item_type, is_over) in [
        ("turn_1", ItemType::AssistantMessage, true),
        ("turn_1", ItemType::Reasoning, true),
        ("turn_1", ItemType::Command, false),
        ("turn_1", ItemType::ToolCall, false),
        // It goes on behind a turn of before.
        ("turn_0", ItemType::Command, true),
    ] {
        actor.state.items.insert("key".to_owned(), item(turn_id, item_type));
        let deadline = actor.quiet_deadline(&turn).expect("an agent may forget a tool");
        assert_eq!(deadline == now, is_over, "{turn_id} {item_type:?}");
        assert!(is_over || deadline > now + Duration::from_secs(60));
    }
    actor.state.items.clear();
    for (snapshot, has_deadline) in [
        (json!({"turn": "agent", "native_turn": "n1"}), false),
        (json!({"turn": "agent", "native_turn": null}), true),
    ] {
        actor.state.adapter = Some(Box::new(Codex::restore(&snapshot).unwrap()));
        assert_eq!(actor.quiet_deadline(&turn).is_some(), has_deadline, "{snapshot}");
    }
}
