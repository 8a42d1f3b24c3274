//! The server that is looked at, and the session that the kit has on it.

use gooselake_harness::client::{Client, Headers, Reply};
use gooselake_harness::stream::{Frame, Record, Stream};
use serde_json::{Value, json};
use std::net::ToSocketAddrs;
use std::time::Duration;

pub(crate) struct Target {
    client: Client,
    /// How long what must come is awaited; only a failure waits for it.
    pub(crate) patience: Duration,
    /// What the server is called in `Host`.
    authority: String,
    base_path: String,
}

/// A session with two turns that are over, and what was seen of it while they ran.
pub(crate) struct Session {
    pub(crate) id: String,
    /// What its turns are told.
    pub(crate) prompt: String,
    pub(crate) turns: [String; 2],
    /// Up to the end of the second turn.
    pub(crate) live: Vec<Frame>,
    /// The same in the stream of the whole log, which may hold more.
    pub(crate) live_in_whole_log: Vec<Frame>,
}

impl Target {
    /// Errors: the URL is none that can be reached.
    pub(crate) fn new(base_url: &str, token: &str, patience: Duration) -> Result<Target, String> {
        let rest = base_url.strip_prefix("http://").ok_or_else(|| {
            format!("{base_url:?} does not begin with http:// (TLS is not spoken here)")
        })?;
        let (authority, base_path) =
            rest.split_once('/').map_or((rest, String::new()), |(authority, path)| {
                (authority, format!("/{}", path.trim_end_matches('/')))
            });
        let with_port = match authority.rsplit_once(':') {
            Some((_, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => {
                authority.to_owned()
            }
            _ => format!("{authority}:80"),
        };
        let address = with_port
            .to_socket_addrs()
            .map_err(|error| format!("{authority}: {error}"))?
            .next()
            .ok_or_else(|| format!("{authority} has no address"))?;
        let base_path = if base_path == "/" { String::new() } else { base_path };
        let client = Client::new(address, token).with_deadline(patience);
        Ok(Target { client, patience, authority: authority.to_owned(), base_path })
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], b"")
    }

    pub(crate) fn stream(&self, path: &str, headers: Headers) -> Stream {
        let headers = [headers, &[("Host", self.authority.as_str())]].concat();
        self.client.stream(&format!("{}{path}", self.base_path), &headers)
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: Headers, body: &[u8]) -> Reply {
        let headers = [headers, &[("Host", self.authority.as_str())]].concat();
        self.client.request(method, &format!("{}{path}", self.base_path), &headers, body)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Value {
        let headers = &[("Content-Type", "application/json")];
        self.send("POST", path, headers, body.to_string().as_bytes()).expect(200).json()
    }

    /// Makes a session and runs two turns in it, with streams on its log and on the whole one that are open before.
    pub(crate) fn session(&self, provider: &str, prompt: &str) -> Session {
        let body =
            json!({"provider": provider, "title": "conformance", "permission_mode": "full_auto"});
        let session = self.post("/v1/sessions", &body);
        let id = text(&session, "id");
        let mut stream = self.stream(&format!("{}?control=false", events(&id)), &[]);
        let mut whole = self.stream("/v1/events/stream?control=false&after_seq=latest", &[]);
        let mut live = Vec::new();
        let mut live_in_whole_log = Vec::new();
        let turns = [0, 1].map(|_| {
            let turn_id = self.start_turn(&id, prompt);
            let is_end = |frame: &Frame| is_end_of(frame, &turn_id);
            live.extend(stream.until_match("the end of the turn", self.patience, is_end));
            live_in_whole_log.extend(whole.until_match(
                "the end of the turn",
                self.patience,
                is_end,
            ));
            turn_id
        });
        Session { id, prompt: prompt.to_owned(), turns, live, live_in_whole_log }
    }

    /// Starts a turn and gives its id.
    pub(crate) fn start_turn(&self, session_id: &str, prompt: &str) -> String {
        let path = format!("/v1/sessions/{session_id}/turns");
        text(&self.post(&path, &json!({"input": [prompt]})), "turn_id")
    }

    /// The events of the session so far, as the list has them.
    pub(crate) fn listed(&self, session_id: &str, query: &str) -> Vec<Record> {
        let mut records: Vec<Record> = Vec::new();
        loop {
            let after = records.last().map_or(0, |record| record.seq);
            let path =
                format!("/v1/sessions/{session_id}/events?limit=500&after_seq={after}&{query}");
            let reply = self.get(&path).expect(200);
            let Value::Array(page) = reply.json() else { panic!("no array: {reply}") };
            records.extend(page.into_iter().map(Record::new));
            if reply.header("x-next-cursor").is_none() {
                return records;
            }
        }
    }

    /// Ends the session and takes its log away.
    pub(crate) fn purge(&self, session: &Session) {
        let path = format!("/v1/sessions/{}", session.id);
        self.send("DELETE", &format!("{path}?purge=true"), &[], b"").expect(204);
        self.get(&path).expect(404);
        self.get(&format!("{path}/events")).expect(404);
    }
}

impl Session {
    /// The path of its stream.
    pub(crate) fn stream(&self) -> String {
        events(&self.id)
    }

    /// Whether this is the last event that was seen live.
    pub(crate) fn is_last(&self, frame: &Frame) -> bool {
        is_end_of(frame, &self.turns[1])
    }
}

/// The path of a session's stream.
pub(crate) fn events(session_id: &str) -> String {
    format!("/v1/sessions/{session_id}/events/stream")
}

/// Whether this is the end of the turn.
pub(crate) fn is_end_of(frame: &Frame, turn_id: &str) -> bool {
    let is_end = ["turn.completed", "turn.failed", "turn.interrupted"];
    is_end.contains(&frame.event.as_str()) && frame.json()["turn_id"] == turn_id
}

fn text(record: &Value, name: &str) -> String {
    record[name].as_str().unwrap_or_else(|| panic!("{name} is no text in {record}")).to_owned()
}
