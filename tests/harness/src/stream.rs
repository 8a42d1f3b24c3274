//! A reader of event streams.
//!
//! Owns: one connection whose answer does not end, and the rules of SSE and NDJSON. It reads only when asked, so a test
//! that does not ask is a slow client. A deadline that passes loses nothing: the next call goes on.

use crate::connection::{Body, Connection, Head};
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

/// One event.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    pub id: Option<String>,
    /// The SSE event name, or the kind of an NDJSON record.
    pub event: String,
    pub data: String,
}

/// An event record of the server, with the fields that tests ask for.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub row_id: i64,
    pub seq: i64,
    pub kind: String,
    pub payload: Value,
    /// The whole record.
    pub json: Value,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    connection: Connection,
    framing: Body,
    path: String,
    ndjson: bool,
    /// Bytes of a line that is not whole yet.
    partial: Vec<u8>,
    building: Building,
    ready: VecDeque<Frame>,
    comments: u64,
    retry_ms: Option<u64>,
    end: Option<String>,
}

/// The SSE event whose lines are coming.
#[derive(Debug, Default)]
struct Building {
    event: String,
    data: Option<String>,
    /// Stays for the events that follow, as SSE wants it; a frame shows only what came with it.
    id: Option<String>,
}

impl Stream {
    pub(crate) fn new(connection: Connection, head: &Head, framing: Body, path: &str) -> Stream {
        let media = head.header("content-type").unwrap_or_default();
        Stream {
            connection,
            framing,
            path: path.to_owned(),
            ndjson: media.starts_with("application/x-ndjson"),
            partial: Vec::new(),
            building: Building::default(),
            ready: VecDeque::new(),
            comments: 0,
            retry_ms: None,
            end: None,
        }
    }

    /// The next event; `None` when none came in time, or the stream has ended ([`Stream::end`] tells which).
    pub fn next(&mut self, deadline: Duration) -> Option<Frame> {
        let deadline = Instant::now() + deadline;
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Some(frame);
            }
            if self.end.is_some() || !self.read(deadline) {
                return None;
            }
        }
    }

    /// The next event. Panics: none came in time, or the stream has ended.
    pub fn expect(&mut self, deadline: Duration) -> Frame {
        match self.next(deadline) {
            Some(frame) => frame,
            None => panic!("{}", self.in_vain("an event", deadline, &[])),
        }
    }

    /// All events up to the first of this kind, that one included. Panics: it did not come in time.
    pub fn until(&mut self, kind: &str, deadline: Duration) -> Vec<Frame> {
        self.until_match(kind, deadline, |frame| frame.event == kind)
    }

    /// The same for any condition; `what` is for the message.
    pub fn until_match(
        &mut self,
        what: &str,
        deadline: Duration,
        mut wanted: impl FnMut(&Frame) -> bool,
    ) -> Vec<Frame> {
        let end = Instant::now() + deadline;
        let mut seen = Vec::new();
        while let Some(frame) = self.next(end.saturating_duration_since(Instant::now())) {
            let found = wanted(&frame);
            seen.push(frame);
            if found {
                return seen;
            }
        }
        panic!("{}", self.in_vain(what, deadline, &seen))
    }

    /// All events up to the end of the stream. Panics: it does not end in time.
    pub fn rest(&mut self, deadline: Duration) -> Vec<Frame> {
        let end = Instant::now() + deadline;
        let mut seen = Vec::new();
        while let Some(frame) = self.next(end.saturating_duration_since(Instant::now())) {
            seen.push(frame);
        }
        assert!(self.end.is_some(), "{}", self.in_vain("the end", deadline, &seen));
        seen
    }

    /// How the stream ended, if it has.
    pub fn end(&self) -> Option<&str> {
        self.end.as_deref()
    }

    /// How many comments (heartbeats) came so far.
    pub fn comments(&self) -> u64 {
        self.comments
    }

    /// What the server said of the pause before a reconnect.
    pub fn retry_ms(&self) -> Option<u64> {
        self.retry_ms
    }

    /// Reads once. False when the deadline has passed.
    fn read(&mut self, deadline: Instant) -> bool {
        match self.connection.piece(&self.framing, deadline) {
            Ok(Some(piece)) => self.take_bytes(&piece),
            Ok(None) => self.end = Some("the server ended it".to_owned()),
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return false,
            Err(error) => self.end = Some(format!("the connection broke: {error}")),
        }
        true
    }

    fn take_bytes(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&rest[..at]);
            rest = &rest[at + 1..];
            let bytes = std::mem::take(&mut self.partial);
            let line = String::from_utf8_lossy(&bytes);
            let line = line.strip_suffix('\r').unwrap_or(&line);
            if self.ndjson { self.ndjson_line(line) } else { self.sse_line(line) }
        }
        self.partial.extend_from_slice(rest);
    }

    fn sse_line(&mut self, line: &str) {
        if line.is_empty() {
            return self.finish_event();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" => self.comments += 1,
            "event" => self.building.event = value.to_owned(),
            "id" => self.building.id = Some(value.to_owned()),
            "retry" => self.retry_ms = value.parse().ok(),
            "data" => match &mut self.building.data {
                Some(data) => *data = format!("{data}\n{value}"),
                none => *none = Some(value.to_owned()),
            },
            // The standard wants other fields ignored.
            _ => {}
        }
    }

    /// An empty line: the event is whole. One without data is none.
    fn finish_event(&mut self) {
        let Building { event, data, id } = std::mem::take(&mut self.building);
        if let Some(data) = data {
            let event = if event.is_empty() { "message".to_owned() } else { event };
            self.ready.push_back(Frame { id, event, data });
        }
    }

    fn ndjson_line(&mut self, line: &str) {
        if line.is_empty() {
            // The heartbeat of a format that has no comments.
            self.comments += 1;
            return;
        }
        let record: Value = serde_json::from_str(line)
            .unwrap_or_else(|error| panic!("{}: no JSON ({error}): {line}", self.path));
        let event = record["kind"].as_str().unwrap_or_default().to_owned();
        let id = record["row_id"].as_i64().map(|id| id.to_string());
        self.ready.push_back(Frame { id, event, data: line.to_owned() });
    }

    fn in_vain(&self, what: &str, deadline: Duration, seen: &[Frame]) -> String {
        let kinds: Vec<&str> = seen.iter().map(|frame| frame.event.as_str()).collect();
        let state = self.end.as_deref().unwrap_or("it is still open");
        let path = &self.path;
        format!("{path}: awaited {what} for at most {deadline:?}; {state}; seen: {kinds:?}")
    }
}

impl Frame {
    /// The data as JSON. Panics: it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.data)
            .unwrap_or_else(|error| panic!("no JSON ({error}) in {self:?}"))
    }

    /// The data as an event record. Panics: it is none (a control frame, for one).
    pub fn record(&self) -> Record {
        Record::new(self.json())
    }
}

impl Record {
    /// Panics: the JSON is no event record.
    pub fn new(json: Value) -> Record {
        let number = |name: &str| match json[name].as_i64() {
            Some(number) => number,
            None => panic!("no event record, it has no {name}: {json}"),
        };
        let (row_id, seq) = (number("row_id"), number("seq"));
        let Some(kind) = json["kind"].as_str() else { panic!("no event record: {json}") };
        let (kind, payload) = (kind.to_owned(), json["payload"].clone());
        Record { row_id, seq, kind, payload, json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::Client;
    use crate::fake::{Connection as Peer, Fake};

    const SOON: Duration = Duration::from_secs(10);

    const SSE: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";

    fn frame(id: Option<&str>, event: &str, data: &str) -> Frame {
        Frame { id: id.map(str::to_owned), event: event.to_owned(), data: data.to_owned() }
    }

    fn stream(body: impl Fn(&mut Peer) + Send + 'static) -> (Fake, Stream) {
        let fake = Fake::start(1, move |mut connection| {
            let request = connection.request();
            body(&mut connection);
            vec![request]
        });
        let stream = Client::new(fake.address(), "").stream("/v1/stream", &[]);
        (fake, stream)
    }

    #[test]
    fn frames_are_whole_however_they_arrive() {
        let text = "retry: 1000\n\n: beat\n\nid: 7\nevent: turn.completed\ndata: {\"a\":\ndata: 1}\n\n\
            data: plain\r\n\r\n:\n\nid: 8\nevent: x\n\nid: 9\nevent: ü\ndata:\n\n";
        for bytes in [1, 2, 3, 7, text.len()] {
            for chunked in [false, true] {
                let (fake, mut stream) = stream(move |connection| {
                    if !chunked {
                        connection.send(SSE);
                        connection.send_in_pieces(text.as_bytes(), bytes);
                        return;
                    }
                    let head = SSE.trim_end();
                    connection.send(&format!("{head}\r\nTransfer-Encoding: chunked\r\n\r\n"));
                    for piece in text.as_bytes().chunks(bytes) {
                        let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
                        chunk.extend_from_slice(piece);
                        chunk.extend_from_slice(b"\r\n");
                        connection.send_in_pieces(&chunk, 2);
                    }
                    connection.send("0\r\n\r\n");
                });
                let frames = stream.rest(SOON);
                let expected = [
                    frame(Some("7"), "turn.completed", "{\"a\":\n1}"),
                    frame(None, "message", "plain"),
                    frame(Some("9"), "ü", ""),
                ];
                assert_eq!(frames, expected, "{bytes} {chunked}");
                assert_eq!((stream.comments(), stream.retry_ms()), (2, Some(1000)));
                assert_eq!(stream.end(), Some("the server ended it"));
                assert!(fake.requests()[0].contains("Accept: text/event-stream\r\n"));
            }
        }
    }

    #[test]
    fn a_deadline_that_passes_loses_nothing() {
        let (_fake, mut stream) = stream(|connection| {
            connection.send(SSE);
            connection.send("data: in two ");
            connection.wait_told();
            connection.send("parts\n\n");
        });
        assert_eq!(stream.next(Duration::from_millis(30)), None);
        assert_eq!(stream.end(), None);
        _fake.tell();
        assert_eq!(stream.next(SOON), Some(frame(None, "message", "in two parts")));
        assert_eq!(stream.next(SOON), None);
        assert!(stream.end().is_some());
    }

    #[test]
    fn ndjson_gives_a_record_a_line() {
        let fake = Fake::start(1, |mut connection| {
            let request = connection.request();
            connection.send("HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n");
            let record = r#"{"row_id":5,"seq":2,"kind":"turn.started","payload":{"a":1}}"#;
            connection.send(&format!("{record}\n\n"));
            vec![request]
        });
        let client = Client::new(fake.address(), "");
        let mut stream = client.stream("/", &[("Accept", "application/x-ndjson")]);
        let frames = stream.rest(SOON);
        assert_eq!((frames.len(), stream.comments()), (1, 1));
        let record = frames[0].record();
        assert_eq!((record.row_id, record.seq, record.kind.as_str()), (5, 2, "turn.started"));
        assert_eq!(record.payload["a"], 1);
    }

    #[test]
    fn a_kind_that_does_not_come_is_named_with_what_came() {
        let (_fake, mut stream) = stream(|connection| {
            connection.send(SSE);
            connection.send("event: a\ndata: 1\n\nevent: b\ndata: 2\n\nevent: c\ndata: 3\n\n");
        });
        assert_eq!(stream.until("b", SOON).len(), 2);
        let missing = std::panic::AssertUnwindSafe(|| stream.until("d", SOON));
        let panic = std::panic::catch_unwind(missing).unwrap_err();
        let text = *panic.downcast::<String>().unwrap();
        assert!(text.contains("/v1/stream: awaited d"), "{text}");
        assert!(text.contains("the server ended it; seen: [\"c\"]"), "{text}");
    }

    #[test]
    fn an_answer_that_is_no_stream_is_given_whole() {
        let fake = Fake::start(1, |mut connection| {
            let request = connection.request();
            connection.send("HTTP/1.1 409 Conflict\r\nContent-Length: 5\r\n\r\nahead");
            vec![request]
        });
        let reply = Client::new(fake.address(), "").try_stream("/", &[]).unwrap().unwrap_err();
        assert_eq!((reply.status, reply.text().as_str()), (409, "ahead"));
    }
}
