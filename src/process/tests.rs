//! Processes whose ledger or folder fails them, with a keeper that can not be started.

use super::*;
use crate::config::Overrides;
use crate::ledger::Synchronous;
use crate::ledger::idempotency::IdempotencyKey;
use crate::ledger::process::{NewProcess, ProcessEnd};
use crate::ledger::tests::Folder;
use crate::model::id;
use crossbeam_channel::RecvTimeoutError;

/// A wait that is over long before, unless it is over never.
const SOON: Duration = Duration::from_secs(20);

/// Processes in a folder that goes away with the test. The parts drop in this order.
struct Scene {
    processes: Processes,
    _writer: Thread,
    folder: Folder,
}

impl Scene {
    fn new(config_toml: &str) -> Scene {
        let folder = Folder::new();
        let path = folder.path();
        let data_dir = Some(path.to_owned());
        let overrides = Overrides { data_dir, ..Overrides::default() };
        let config = Config::parse(config_toml, path, "/usr/bin:/bin", &overrides).unwrap();
        let (ledger, writer) = Ledger::open(&folder.database(), Synchronous::Normal).unwrap();
        let processes = Processes::new(
            Arc::new(config),
            ledger,
            path.join("no-keeper"),
            crossbeam_channel::bounded(1).0,
        );
        Scene { processes, _writer: writer, folder }
    }

    /// The record of a process that may run, which nobody has started.
    fn admitted(&self) -> String {
        let process_id = id::new("proc");
        let process = NewProcess {
            process_id: process_id.clone(),
            session_id: None,
            name: None,
            command: r#"{"args": ["true"]}"#.to_owned(),
            cwd: "/".to_owned(),
            env: "{}".to_owned(),
            timeout_ms: None,
            kill_grace_ms: 1000,
            output_bytes_max: 1000,
            stdin: None,
            is_stdin_open: false,
        };
        let ledger = &self.processes.shared.ledger;
        ledger.write(move |tx| tx.insert_process(&process, 10, false)).unwrap();
        process_id
    }

    /// The record of a process that ended long ago.
    fn ended(&self) -> String {
        let process_id = self.admitted();
        let id = process_id.clone();
        let end = ProcessEnd {
            status: ProcessStatus::Completed,
            exit_code: Some(0),
            signal: None,
            error: None,
            killed_by: None,
            dropped_bytes: [0, 0],
            ended_at: 1000,
        };
        self.processes.shared.ledger.write(move |tx| tx.end_process(&id, &end)).unwrap();
        process_id
    }
}

#[test]
fn a_process_whose_record_can_not_be_read_when_its_thread_begins_comes_to_its_end() {
    let scene = Scene::new("");
    let process_id = scene.admitted();
    scene.folder.hide_database(true);
    // A word is taken by who waits for one, so it shows that the first look has failed.
    let (words, heard) = crossbeam_channel::bounded(0);
    let (running, ended) = crossbeam_channel::bounded::<()>(0);
    let (shared, id) = (Arc::clone(&scene.processes.shared), Arc::from(process_id.as_str()));
    let _thread = thread::spawn("process", move || {
        worker::run(&shared, &id, &heard);
        drop((heard, running));
    })
    .unwrap();
    words.send_timeout((), SOON).expect("the thread still looks after its process");
    scene.folder.hide_database(false);
    assert_eq!(ended.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected));
    let row = scene.processes.get(&process_id).unwrap();
    assert_eq!(row.status, ProcessStatus::Failed);
    assert!(row.error.as_deref().is_some_and(|error| error.contains("no-keeper")), "{row:?}");
}

#[test]
fn the_record_of_a_log_that_can_not_be_removed_stays_until_it_can() {
    let scene = Scene::new("[processes]\nlog_retention_hours = 1\n");
    let processes = &scene.processes;
    let [stuck, other] = [scene.ended(), scene.ended()];
    let path = processes.log_path(&stuck, Stream::Stdout);
    std::fs::create_dir_all(&path).unwrap();
    let hour = Some(Duration::from_secs(3600));
    for _round in 0..2 {
        assert_eq!(processes.purge_old(), hour, "it is not tried again at once");
        assert!(processes.get(&stuck).is_ok());
        assert_eq!(processes.get(&other).unwrap_err().code, Code::NotFound);
    }
    std::fs::remove_dir(&path).unwrap();
    std::fs::write(&path, "a line\n").unwrap();
    assert_eq!(processes.purge_old(), hour);
    assert_eq!(processes.get(&stuck).unwrap_err().code, Code::NotFound);
    assert!(!path.exists());
}

#[test]
fn a_process_that_was_left_without_a_thread_comes_to_its_end() {
    let scene = Scene::new("");
    let process_id = scene.admitted();
    scene.processes.start_left().unwrap();
    let row = scene.processes.wait(&process_id, SOON, |row| row.status.is_terminal()).unwrap();
    assert_eq!(row.status, ProcessStatus::Failed, "{row:?}");
    // What has ended is not begun again, and does not end again.
    scene.processes.start_left().unwrap();
    let (shared, late) = (&scene.processes.shared, Error::internal("late"));
    worker::never_started(shared, &process_id, &late, false).unwrap();
    assert_eq!(scene.processes.get(&process_id).unwrap().error, row.error);
}

#[test]
fn who_asks_again_under_a_key_waits_for_the_start_as_the_first_does() {
    let scene = Scene::new("");
    let process_id = scene.admitted();
    let route = "POST /v1/processes".to_owned();
    let key = IdempotencyKey { route, key: "once".to_owned(), body_hash: 1 };
    let (id, claim) = (process_id.clone(), key.clone());
    let ledger = &scene.processes.shared.ledger;
    ledger.write(move |tx| tx.claim_key(&claim, &id)).unwrap();
    let (told, heard) = crossbeam_channel::bounded(1);
    let processes = scene.processes.clone();
    let request = ProcessRequest { idempotency: Some(key), ..ProcessRequest::default() };
    let _thread = thread::spawn("again", move || {
        told.send(processes.start(&request).map_err(|error| error.to_string())).unwrap();
    })
    .unwrap();
    let early = heard.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err(), "it has not started, but: {early:?}");
    scene.processes.start_left().unwrap();
    let row = heard.recv_timeout(SOON).unwrap().unwrap();
    assert_eq!((row.process_id, row.status), (process_id, ProcessStatus::Failed));
}
