//! A server with a data folder of its own, and the calls that the stories make.
//!
//! Runs on the test's thread. Every call checks its answer, so a story is only what happens.
//! Sessions are the demo agent's, in mode `auto` unless the story says otherwise, each in a folder
//! of its own below the server's temporary one: what a session leaves running is found by that.

use gooselake_harness::client::{Client, Reply};
use gooselake_harness::proof;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::stream::Record;
use gooselake_harness::wait;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// For whatever has to happen within a test.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// Agents get little time to end, so that a test of their end is short.
const CONFIG: &str = "[providers.demo]\nenabled = true\n[keeper]\ngrace_ms = 2000\n";

/// Small pages, so that every log is read in several.
const PAGE: usize = 97;

pub(super) struct Scene {
    pub(super) server: Server,
}

impl Scene {
    pub(super) fn new() -> Scene {
        let options = Options { config_toml: CONFIG.to_owned(), ..Options::default() };
        Scene { server: Server::start(options) }
    }

    pub(super) fn client(&self) -> Client {
        crate::contract::client(&self.server)
    }

    /// Kill -9 and a new start.
    pub(super) fn crash(&mut self) {
        self.server.kill9();
        self.server.restart();
    }

    /// The folder of a session, made when it is not there.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        let folder = self.server.folder().join(name);
        fs::create_dir_all(&folder).expect("the temporary folder takes folders");
        folder
    }

    /// A session in the folder of that name, once its agent is ready.
    pub(super) fn session(&self, name: &str) -> String {
        self.session_with(name, json!({}))
    }

    /// The same with further fields, which win.
    pub(super) fn session_with(&self, name: &str, fields: Value) -> String {
        let mut body = json!({"provider": "demo", "mode": "auto", "cwd": self.folder(name)});
        merge(&mut body, fields);
        let reply = self.client().post("/v1/sessions", &body).expect(200);
        text(&reply.json(), "id")
    }

    pub(super) fn record(&self, session: &str) -> Value {
        self.get(&format!("/v1/sessions/{session}"))
    }

    pub(super) fn get(&self, path: &str) -> Value {
        self.client().get(path).expect(200).json()
    }

    pub(super) fn try_turn(&self, session: &str, body: &Value) -> Reply {
        self.client().post(&format!("/v1/sessions/{session}/turns"), body)
    }

    /// A turn that is accepted at once; gives its id.
    pub(super) fn turn(&self, session: &str, prompt: &str) -> String {
        self.turn_with(session, prompt, json!({}))
    }

    pub(super) fn queued(&self, session: &str, prompt: &str) -> String {
        self.turn_with(session, prompt, json!({"when": "queue"}))
    }

    pub(super) fn turn_with(&self, session: &str, prompt: &str, fields: Value) -> String {
        let mut body = json!({"input": [{"type": "text", "text": prompt}]});
        merge(&mut body, fields);
        text(&self.try_turn(session, &body).expect(200).json(), "turn_id")
    }

    pub(super) fn turn_record(&self, session: &str, turn: &str) -> Value {
        self.get(&format!("/v1/sessions/{session}/turns/{turn}"))
    }

    pub(super) fn turns(&self, session: &str) -> Vec<Value> {
        list(self.get(&format!("/v1/sessions/{session}/turns")))
    }

    /// The turn's record once it is over. Panics: it does not end, or not like this.
    pub(super) fn ended(&self, session: &str, turn: &str, status: &str) -> Value {
        let record = self.get(&format!("/v1/sessions/{session}/turns/{turn}?wait_ms=25000"));
        assert_eq!(record["status"], status, "{record}\n{}", self.server.stderr_text());
        record
    }

    pub(super) fn interrupt(&self, session: &str, turn: &str) {
        let path = format!("/v1/sessions/{session}/turns/{turn}/interrupt");
        self.client().post(&path, &json!({})).expect(202);
    }

    pub(super) fn pending(&self, session: &str) -> Vec<String> {
        let path = format!("/v1/sessions/{session}/approvals?status=pending");
        list(self.get(&path)).iter().map(|record| text(record, "id")).collect()
    }

    pub(super) fn decide(&self, session: &str, approval: &str, decision: &str) -> Reply {
        let path = format!("/v1/sessions/{session}/approvals/{approval}");
        self.client().post(&path, &json!({"decision": decision}))
    }

    pub(super) fn close(&self, session: &str) {
        let reply = self.client().post(&format!("/v1/sessions/{session}/close"), &json!({}));
        assert!(reply.status < 300, "{reply}");
    }

    /// The whole log of a session, read in pages.
    pub(super) fn events(&self, session: &str) -> Vec<Record> {
        self.pages(&format!("/v1/sessions/{session}/events"))
    }

    pub(super) fn pages(&self, path: &str) -> Vec<Record> {
        let mut events: Vec<Record> = Vec::new();
        let mut after = 0.to_string();
        loop {
            let url = format!("{path}?limit={PAGE}&after_seq={after}");
            let reply = self.client().get(&url).expect(200);
            let next = reply.header("x-next-cursor").map(str::to_owned);
            events.extend(list(reply.json()).into_iter().map(Record::new));
            match next {
                Some(next) => after = next,
                None => return events,
            }
        }
    }

    /// What the session's commands have written to its file `marks`.
    pub(super) fn marks(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.server.folder().join(name).join("marks"));
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Waits for a file that an agent makes; also while no server runs.
    pub(super) fn await_file(&self, name: &str, file: &str) {
        let path = self.server.folder().join(name).join(file);
        wait::until(SOON, &format!("{} is there", path.display()), || path.exists().then_some(()));
    }

    /// Waits until the keepers' folders are as many; their removal follows the end of a child.
    pub(super) fn await_keepers(&self, count: usize) {
        let folder = self.server.data_dir().join("keepers");
        wait::until(SOON, &format!("{count} keepers have a folder"), || {
            (names_in(&folder).len() == count).then_some(())
        });
    }

    /// The log of the session is whole and tells of one life of each thing.
    pub(super) fn prove(&self, session: &str) -> Vec<Record> {
        let events = self.events(session);
        proof::log(&events);
        events
    }

    /// Ctrl-C: the server ends well, and nothing of it is left.
    pub(super) fn finish(mut self) {
        assert_eq!(self.server.interrupt(), Some(0), "{}", self.server.stderr_text());
        proof::nothing_runs_in(self.server.folder());
    }
}

/// The pid of the agent that was started last.
pub(super) fn agent_pid(events: &[Record]) -> u32 {
    let started = events.iter().rev().find(|event| event.kind == "agent.started");
    let started = started.expect("an agent was started");
    let pid = started.payload["pid"].as_u64().expect("it has a pid");
    u32::try_from(pid).expect("a pid")
}

pub(super) fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub(super) fn text(record: &Value, field: &str) -> String {
    match record[field].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no text {field} in {record}"),
    }
}

pub(super) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        other => panic!("no list: {other}"),
    }
}

fn merge(into: &mut Value, fields: Value) {
    let fields: Map<String, Value> = serde_json::from_value(fields).expect("fields are an object");
    into.as_object_mut().expect("a body is an object").extend(fields);
}
