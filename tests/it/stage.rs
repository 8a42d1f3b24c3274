//! What every story begins with: a server of its own with the demo agent, and the words to talk to it.
//!
//! Owns: one server, a client with the operator's token, and a folder for agents to work in. Everything goes over the
//! socket; nothing here knows how the server does it. What is awaited has a deadline, and a failure shows the answer.

use gooselake_harness::client::{Client, Headers, Reply};
use gooselake_harness::server::{Options, Server};
use gooselake_harness::stream::{Frame, Record, Stream};
use gooselake_harness::thread::{self, Thread};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

/// Long enough for a busy machine: only a failure waits for it.
pub(crate) const SOON: Duration = Duration::from_secs(30);

pub(crate) const JSON: (&str, &str) = ("Content-Type", "application/json");

/// A request that somebody else has sent.
pub(crate) struct Asked {
    pub(crate) answer: Receiver<Reply>,
    _thread: Thread,
}

pub(crate) struct Stage {
    pub(crate) server: Server,
    pub(crate) client: Client,
    /// Where the agents of [`Stage::session`] work.
    pub(crate) cwd: PathBuf,
}

impl Stage {
    /// A server as it is without a config.
    pub(crate) fn new() -> Stage {
        Stage::with_config("")
    }

    pub(crate) fn with_config(config_toml: &str) -> Stage {
        let config_toml = config_toml.to_owned();
        let server = Server::start(Options { config_toml, ..Options::default() });
        let cwd = server.folder().join("work");
        fs::create_dir(&cwd).unwrap();
        Stage { client: crate::contract::client(&server), server, cwd }
    }

    /// Terminates the server, starts it again, and talks to the new one.
    pub(crate) fn restart(&mut self) {
        self.server.restart();
        self.client = crate::contract::client(&self.server);
    }

    /// A client without a token.
    pub(crate) fn anonymous(&self) -> Client {
        Client::new(self.server.address(), "").watched(crate::contract::hold)
    }

    /// Asks for a session of the demo agent in the folder, with these fields on top.
    pub(crate) fn post_session(&self, fields: &Value, headers: Headers) -> Reply {
        let mut body = json!({"provider": "demo", "cwd": self.cwd});
        let into = body.as_object_mut().unwrap();
        into.extend(fields.as_object().unwrap().clone());
        self.post_with("/v1/sessions", &body, headers)
    }

    /// The record of a new session.
    pub(crate) fn create(&self, fields: &Value) -> Value {
        self.post_session(fields, &[]).expect(200).json()
    }

    /// The id of a new session whose agent asks nobody.
    pub(crate) fn session(&self) -> String {
        text(&self.create(&json!({"mode": "auto"})), "id")
    }

    /// The id of a new session whose agent asks before it changes anything.
    pub(crate) fn asking_session(&self) -> String {
        text(&self.create(&json!({})), "id")
    }

    pub(crate) fn post_with(&self, path: &str, body: &Value, headers: Headers) -> Reply {
        let headers = [&[JSON], headers].concat();
        self.client.request("POST", path, &headers, body.to_string().as_bytes())
    }

    /// Posts with this key and goes on.
    pub(crate) fn meanwhile(&self, path: &'static str, body: &Value, key: &'static str) -> Asked {
        let (client, body) = (self.client.clone(), body.to_string());
        let (answered, answer) = mpsc::channel();
        let ask = move || {
            let headers = [JSON, ("Idempotency-Key", key)];
            let reply = client.request("POST", path, &headers, body.as_bytes());
            // Whoever has gone meanwhile has failed for another reason.
            drop(answered.send(reply));
        };
        Asked { answer, _thread: thread::spawn("asking", ask).unwrap() }
    }

    pub(crate) fn post_turn(&self, session_id: &str, body: &Value) -> Reply {
        self.client.post(&format!("/v1/sessions/{session_id}/turns"), body)
    }

    /// Starts a turn and does not wait for it.
    pub(crate) fn start(&self, session_id: &str, prompt: &str) -> String {
        let reply = self.post_turn(session_id, &json!({"input": [prompt]})).expect(200);
        text(&reply.json(), "turn_id")
    }

    /// Queues a turn behind the running one.
    pub(crate) fn queue(&self, session_id: &str, prompt: &str) -> String {
        let body = json!({"input": [prompt], "when": "queue"});
        text(&self.post_turn(session_id, &body).expect(200).json(), "turn_id")
    }

    /// Runs a turn to its end, whatever that is, and gives its record.
    pub(crate) fn run(&self, session_id: &str, prompt: &str) -> Value {
        let path = format!("/v1/sessions/{session_id}/turns?wait=true&timeout_ms=30000");
        self.client.post(&path, &json!({"input": [prompt]})).expect(200).json()
    }

    /// The record of a turn that has ended, after waiting for that.
    pub(crate) fn ended(&self, session_id: &str, turn_id: &str) -> Value {
        let path = format!("/v1/sessions/{session_id}/turns/{turn_id}?wait_ms=30000");
        let turn = self.client.get(&path).expect(200).json();
        assert!(!turn["completed_at"].is_null(), "awaited the end of {turn}");
        turn
    }

    pub(crate) fn interrupt(&self, session_id: &str, turn_id: &str) -> Reply {
        let path = format!("/v1/sessions/{session_id}/turns/{turn_id}/interrupt");
        self.client.request("POST", &path, &[], b"")
    }

    pub(crate) fn close(&self, session_id: &str) -> Value {
        let path = format!("/v1/sessions/{session_id}/close");
        self.client.request("POST", &path, &[], b"").expect(200).json()
    }

    /// What a GET answers.
    pub(crate) fn get(&self, path: &str) -> Value {
        self.client.get(path).expect(200).json()
    }

    pub(crate) fn record(&self, session_id: &str) -> Value {
        self.get(&format!("/v1/sessions/{session_id}"))
    }

    pub(crate) fn items(&self, session_id: &str, turn_id: &str) -> Vec<Value> {
        list(self.get(&format!("/v1/sessions/{session_id}/turns/{turn_id}/items")))
    }

    /// All events of a session so far.
    pub(crate) fn events(&self, session_id: &str) -> Vec<Record> {
        let events = self.get(&format!("/v1/sessions/{session_id}/events?limit=10000"));
        list(events).into_iter().map(Record::new).collect()
    }

    /// A stream of the session's events; `query` begins with a question mark or is empty.
    pub(crate) fn stream(&self, session_id: &str, query: &str) -> Stream {
        self.client.stream(&format!("/v1/sessions/{session_id}/events/stream{query}"), &[])
    }

    /// The first event of the kind behind `after_seq`, after waiting for it.
    pub(crate) fn event(&self, session_id: &str, kind: &str, after_seq: i64) -> Record {
        let query = format!("?control=false&after_seq={after_seq}&until={kind}&kinds={kind}");
        let mut stream = self.stream(session_id, &query);
        stream.expect(SOON).record()
    }

    /// The record of the first approval that is asked for behind `after_seq`.
    pub(crate) fn approval(&self, session_id: &str, after_seq: i64) -> Value {
        self.event(session_id, "approval.requested", after_seq).payload["approval"].clone()
    }

    pub(crate) fn decide(&self, approval: &Value, body: &Value) -> Reply {
        let (session_id, id) = (text(approval, "session_id"), text(approval, "id"));
        self.client.post(&format!("/v1/sessions/{session_id}/approvals/{id}"), body)
    }
}

impl Asked {
    /// The answer, after waiting for it.
    pub(crate) fn reply(&self) -> Reply {
        self.answer.recv_timeout(SOON).unwrap()
    }
}

/// A text field of a record. Panics: it is none.
#[track_caller]
pub(crate) fn text(record: &Value, name: &str) -> String {
    match record[name].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("{name} is no text in {record}"),
    }
}

/// The elements of an array. Panics: it is none.
#[track_caller]
pub(crate) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(values) => values,
        other => panic!("no array: {other}"),
    }
}

/// The field of each record, as text.
pub(crate) fn each(records: &[Value], name: &str) -> Vec<String> {
    records.iter().map(|record| text(record, name)).collect()
}

/// The event records among the frames: what has an id.
pub(crate) fn records(frames: &[Frame]) -> Vec<Record> {
    frames.iter().filter(|frame| frame.id.is_some()).map(Frame::record).collect()
}

/// An error is JSON with a text for a person, and the code. Gives the text.
#[track_caller]
pub(crate) fn check_error(reply: &Reply, status: u16, code: &str) -> String {
    assert_eq!(reply.status, status, "{reply}");
    assert_eq!(reply.header("content-type"), Some("application/json"), "{reply}");
    let body = reply.json();
    assert_eq!(body["code"], code, "{reply}");
    let told = text(&body, "error");
    assert!(!told.is_empty(), "{reply}");
    told
}

/// The same, and the text has this in it.
#[track_caller]
pub(crate) fn check_told(reply: &Reply, status: u16, code: &str, part: &str) {
    let told = check_error(reply, status, code);
    assert!(told.contains(part), "{part:?} is awaited in {told:?}");
}
