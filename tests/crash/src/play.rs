//! What a play is: one client's story, told to its end over any number of deaths.
//!
//! Owns: the words that all plays share. A play asks for something, remembers what it was promised, and checks at its
//! end that this is what there is. In a *rough* round agents and keepers are killed too: then a turn or a command may
//! fail, but what it has said is still a beginning of what it had to say, nothing happens twice, and order is kept.

use crate::line::{Answered, Line};
use crate::{command, post, talk, tree};
use gooselake_harness::client::Reply;
use gooselake_harness::demo::OUTCOME;
use gooselake_harness::proof;
use gooselake_harness::rng::Rng;
use gooselake_harness::stream::Record;
use serde_json::{Map, Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a play may wait for one thing, deaths included.
pub(crate) const SOON: Duration = Duration::from_secs(120);

/// Small pages, so that every log is read in several.
const PAGE: usize = 331;

/// The ends of a turn.
pub(crate) const ENDS: [&str; 3] = ["turn.completed", "turn.failed", "turn.interrupted"];

/// A story, with a name.
pub(crate) type Story = fn(&mut Play);

pub(crate) const STORIES: &[(&str, Story)] = &[
    ("flood", talk::flood),
    ("queue", talk::queue),
    ("ask", talk::ask),
    ("gate", talk::gate),
    ("refused", talk::refused),
    ("terminal", talk::terminal),
    ("opening", talk::opening),
    ("crash", talk::crash),
    ("output", command::output),
    ("input", command::input),
    ("kill", command::kill),
    ("worktree", tree::work_is_kept),
    ("worktree-empty", tree::nothing_is_cleaned_up),
    ("mail", post::mail),
];

pub(crate) struct Play {
    pub(crate) line: Arc<Line>,
    pub(crate) rng: Rng,
    /// No other play has it.
    pub(crate) name: String,
    /// Where its agents and commands work; they are found by that.
    pub(crate) folder: PathBuf,
    /// A git repository that all plays share.
    pub(crate) repo: PathBuf,
    /// Agents and keepers are killed too.
    pub(crate) is_rough: bool,
    keys: u64,
}

impl Play {
    pub(crate) fn new(
        line: Arc<Line>,
        rng: Rng,
        name: String,
        (root, repo): (&Path, PathBuf),
        is_rough: bool,
    ) -> Play {
        let folder = root.join(&name);
        fs::create_dir(&folder).expect("the folder of the play is new");
        Play { line, rng, name, folder, repo, is_rough, keys: 0 }
    }

    /// Makes something, once however often it is asked for. Err: it was refused, which only a rough round explains.
    pub(crate) fn make(&mut self, path: &str, body: &Value) -> Result<Value, Reply> {
        self.keys += 1;
        let key = format!("{}-{}", self.name, self.keys);
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", key.as_str())];
        let body = body.to_string();
        let Answered { reply, .. } = self.line.call("POST", path, &headers, body.as_bytes());
        if reply.status == 200 {
            return Ok(reply.json());
        }
        let code = reply.json()["code"].as_str().unwrap_or_default().to_owned();
        let is_explained = ["agent_failed", "agent_timeout", "conflict", "session_closed"];
        assert!(self.is_rough && is_explained.contains(&code.as_str()), "{}: {reply}", self.name);
        Err(reply)
    }

    /// Does something that has no key; asks again when the answer was lost.
    pub(crate) fn act(&self, path: &str, body: &Value) -> Answered {
        let headers = [("Content-Type", "application/json")];
        self.line.call("POST", path, &headers, body.to_string().as_bytes())
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        let Answered { reply, .. } = self.line.call("GET", path, &[], b"");
        reply.expect(200).json()
    }

    /// A whole list, read in pages from the beginning.
    pub(crate) fn pages(&self, path: &str) -> Vec<Record> {
        pages(&self.line, path, 0, PAGE)
    }

    /// A session that works in this folder below the play's. None: it did not open, in a rough round.
    pub(crate) fn session_in(&mut self, folder: &Path, fields: Value) -> Option<String> {
        fs::create_dir_all(folder).expect("the play's folder takes folders");
        let mut body = json!({"provider": "demo", "mode": "auto", "cwd": folder});
        merge(&mut body, fields);
        Some(text(&self.make("/v1/sessions", &body).ok()?, "id"))
    }

    pub(crate) fn session(&mut self, fields: Value) -> Option<String> {
        let folder = self.folder.clone();
        self.session_in(&folder, fields)
    }

    pub(crate) fn turn(&mut self, session: &str, prompt: &str) -> Option<String> {
        self.turn_when(session, prompt, "now")
    }

    pub(crate) fn turn_when(&mut self, session: &str, prompt: &str, when: &str) -> Option<String> {
        let path = format!("/v1/sessions/{session}/turns");
        let made = self.make(&path, &json!({"input": [prompt], "when": when})).ok()?;
        Some(text(&made, "turn_id"))
    }

    /// The record of a turn once it is over.
    pub(crate) fn ended(&self, session: &str, turn: &str) -> Value {
        let path = format!("/v1/sessions/{session}/turns/{turn}?wait_ms=20000");
        self.until("the end of the turn", || {
            let record = self.get(&path);
            (!record["completed_at"].is_null()).then_some(record)
        })
    }

    /// Waits for the end, and checks how it ended and what was said: all of `said`, or a beginning of it when it was
    /// interrupted.
    pub(crate) fn check_end(&self, session: &str, turn: &str, status: &str, said: &str) -> Value {
        let record = self.ended(session, turn);
        let told = record["assistant_text"].as_str().unwrap_or_default();
        let ended = text(&record, "status");
        // In a rough round somebody may have ended the agent, or a command of its, before it came to its own end.
        let is_cut_off = ["failed", "interrupted"].contains(&ended.as_str());
        assert!(ended == status || self.is_rough && is_cut_off, "{}: {record}", self.name);
        let before_outcome = said.split(OUTCOME).next().unwrap_or_default();
        let is_right = match self.is_rough {
            true => said.starts_with(told) || told.starts_with(before_outcome) && !is_cut_off,
            false if ended == "interrupted" => said.starts_with(told),
            false => told == said,
        };
        assert!(is_right, "{}: {told:?} is not {said:?}", self.name);
        record
    }

    /// The first event of one of these kinds in a session, waited for over deaths.
    pub(crate) fn event(&self, session: &str, kinds: &str) -> Record {
        let path = format!("/v1/sessions/{session}/events/stream?control=false&kinds={kinds}");
        self.first(&path)
    }

    /// The first event that a stream gives.
    pub(crate) fn first(&self, path: &str) -> Record {
        self.until(path, || {
            let (mut stream, deaths) = self.line.stream(path, "0").expect("plays end first");
            let frame = stream.next(SOON);
            let is_lost = frame.is_none() && self.line.has_died(deaths);
            assert!(frame.is_some() || is_lost, "{}: {path}: {:?}", self.name, stream.end());
            frame.map(|frame| frame.record())
        })
    }

    /// Asks again and again; each look waits by itself, at the server.
    pub(crate) fn until<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let end = Instant::now() + SOON;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < end, "{}: awaited {what} for {SOON:?}", self.name);
        }
    }

    /// The agents have left these marks, and no others: all of them, or in a rough round some, in this order.
    pub(crate) fn check_marks(&self, folder: &Path, expected: &[String]) {
        let marks = fs::read_to_string(folder.join("marks")).unwrap_or_default();
        let marks: Vec<&str> = marks.lines().collect();
        if !self.is_rough {
            assert_eq!(marks, expected, "{}", self.name);
            return;
        }
        let mut rest = expected.iter();
        for mark in &marks {
            let is_next = rest.any(|other| other == mark);
            assert!(is_next, "{}: {mark} in {marks:?}, expected {expected:?}", self.name);
        }
    }

    /// Closes the session; then its log is whole and nothing of it runs.
    pub(crate) fn close(&self, session: &str, folder: &Path) -> Vec<Record> {
        let path = format!("/v1/sessions/{session}");
        self.act(&format!("{path}/close"), &json!({})).reply.expect(200);
        assert_eq!(self.get(&path)["status"], "closed", "{}", self.name);
        proof::nothing_runs_in(folder);
        let events = self.pages(&format!("{path}/events"));
        proof::closed_log(&events);
        let turns = list(self.get(&format!("{path}/turns")));
        for turn in &turns {
            let ends: Vec<&str> = events
                .iter()
                .filter(|event| event.json["turn_id"] == turn["id"])
                .map(|event| event.kind.as_str())
                .filter(|kind| ENDS.contains(kind))
                .collect();
            let end = format!("turn.{}", text(turn, "status"));
            assert_eq!(ends, [end.as_str()], "{}: {turn}", self.name);
        }
        let pending = self.get(&format!("{path}/approvals?status=pending"));
        assert_eq!(list(pending).len(), 0, "{}: asked for ever", self.name);
        events
    }
}

/// Events behind `after`, in pages.
pub(crate) fn pages(line: &Line, path: &str, after: i64, page: usize) -> Vec<Record> {
    let mut events: Vec<Record> = Vec::new();
    let mut after = after.to_string();
    loop {
        let url = format!("{path}?limit={page}&after_seq={after}");
        let reply = line.call("GET", &url, &[], b"").reply.expect(200);
        let next = reply.header("x-next-cursor").map(str::to_owned);
        events.extend(list(reply.json()).into_iter().map(Record::new));
        match next {
            Some(next) => after = next,
            None => return events,
        }
    }
}

pub(crate) fn text(record: &Value, field: &str) -> String {
    match record[field].as_str() {
        Some(text) => text.to_owned(),
        None => panic!("no text {field} in {record}"),
    }
}

pub(crate) fn list(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        other => panic!("no list: {other}"),
    }
}

fn merge(into: &mut Value, fields: Value) {
    let fields: Map<String, Value> = serde_json::from_value(fields).expect("fields are an object");
    into.as_object_mut().expect("a body is an object").extend(fields);
}
