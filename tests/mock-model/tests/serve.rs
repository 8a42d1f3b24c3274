//! Stories of the served mock: a client on a real socket, and what it must see.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the whole file is a test")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use gooselake_mock_model::Mock;
use serde_json::{Value, json};

/// How long a client waits for anything before the test fails.
const DEADLINE: Duration = Duration::from_secs(10);

struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    fn of(mock: &Mock) -> Client {
        let stream = TcpStream::connect(mock.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        Client { reader: BufReader::new(stream) }
    }

    fn send(&mut self, bytes: &str) {
        self.reader.get_mut().write_all(bytes.as_bytes()).unwrap();
    }

    fn post(&mut self, path: &str, body: &Value) {
        let body = body.to_string();
        let length = body.len();
        self.send(&format!("POST {path} HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}"));
    }

    fn get(&mut self, path: &str) -> Value {
        self.send(&format!("GET {path} HTTP/1.1\r\n\r\n"));
        self.answer().1
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The status and the headers of the next answer.
    fn head(&mut self) -> (u16, Vec<String>) {
        let status = self.line().split(' ').nth(1).expect("a status line").parse().unwrap();
        let mut headers = Vec::new();
        loop {
            match self.line() {
                line if line.is_empty() => return (status, headers),
                line => headers.push(line.to_ascii_lowercase()),
            }
        }
    }

    /// The next answer that comes whole.
    fn answer(&mut self) -> (u16, Value) {
        let (status, headers) = self.head();
        let length = headers.iter().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.expect("a length").parse().unwrap()];
        self.reader.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// The next chunk of a stream; none at its end, an error when it breaks off.
    fn chunk(&mut self) -> Result<Option<String>, &'static str> {
        let Ok(size) = usize::from_str_radix(&self.line(), 16) else { return Err("broke off") };
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk).unwrap();
        chunk.truncate(size);
        Ok(Some(String::from_utf8(chunk).unwrap()).filter(|chunk| !chunk.is_empty()))
    }

    /// Reads chunks up to the one with that text.
    fn until(&mut self, text: &str) {
        while let Some(chunk) = self.chunk().unwrap() {
            if chunk.contains(text) {
                return;
            }
        }
        panic!("the stream ended without {text:?}");
    }

    fn rest(&mut self) -> String {
        let mut rest = String::new();
        while let Some(chunk) = self.chunk().unwrap() {
            rest.push_str(&chunk);
        }
        rest
    }

    /// Whether the server has closed the connection, and nothing more comes.
    fn is_closed(&mut self) -> bool {
        self.reader.read(&mut [0; 1]).is_ok_and(|bytes| bytes == 0)
    }
}

fn message(text: &str) -> Value {
    json!({ "model": "m", "stream": true, "system": "the vendor's own words",
            "messages": [{ "role": "user", "content": text }] })
}

#[test]
fn one_connection_carries_streams_and_whole_answers_in_turn() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    client.post("/v1/messages", &message("SAY hello there"));
    let (status, headers) = client.head();
    assert_eq!(status, 200);
    assert!(headers.contains(&"content-type: text/event-stream".into()), "{headers:?}");
    assert!(client.rest().contains("message_stop"));
    client.post("/v1/messages", &message("FAIL 429"));
    let (status, body) = client.answer();
    assert_eq!((status, &body["error"]["type"]), (429, &json!("rate_limit_error")));
    assert_eq!(client.get("/__health"), json!({ "ok": true }));
}

#[test]
fn a_chunked_body_is_put_together() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    let body = message("SAY in parts").to_string();
    let (first, second) = body.split_at(7);
    client.send("POST /v1/messages HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.send(&format!("{:x}\r\n{first}\r\n{:X};x=y\r\n{second}\r\n", first.len(), second.len()));
    client.send("0\r\nTrailer: yes\r\n\r\n");
    assert_eq!(client.head().0, 200);
    client.until("parts");
}

#[test]
fn a_held_answer_goes_on_when_the_gate_opens_and_not_before() {
    let mock = Mock::start().unwrap();
    let (mut client, mut other) = (Client::of(&mock), Client::of(&mock));
    mock.open_gate();
    client.post("/v1/messages", &message("HOLD"));
    client.head();
    client.until("holding");
    client.reader.get_ref().set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    assert!(client.reader.fill_buf().is_err(), "an earlier opening must not count");
    client.reader.get_ref().set_read_timeout(Some(DEADLINE)).unwrap();
    other.post("/__gate/open", &json!({}));
    assert_eq!(other.answer().0, 200);
    client.until("released");
}

#[test]
fn a_dropped_stream_breaks_off_without_its_end() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    client.post("/v1/responses", &json!({ "stream": true, "input": "FAIL drop" }));
    client.head();
    client.until("half an");
    assert_eq!(client.chunk(), Err("broke off"));
    assert!(client.is_closed());
}

#[test]
fn the_end_of_the_mock_ends_what_is_under_way() {
    let mock = Mock::start().unwrap();
    let mut slow = Client::of(&mock);
    let mut idle = Client::of(&mock);
    slow.post("/v1/messages", &message("SLOW 100 60000"));
    slow.head();
    slow.until("w1");
    let begin = Instant::now();
    drop(mock);
    assert!(begin.elapsed() < DEADLINE, "it waited for the pause");
    assert!(idle.is_closed());
    assert_eq!(slow.chunk(), Err("broke off"));
}

#[test]
fn the_journal_tells_directives_and_no_other_words() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    let text = "something private\nSAY hello";
    client.post("/v1/messages", &message(text));
    client.head();
    client.rest();
    let records = client.get("/__log");
    assert_eq!(records, json!(mock.log()));
    assert_eq!(records[0]["user_texts"], json!(["SAY hello"]));
    assert_eq!((&records[0]["model"], &records[0]["plan"]), (&json!("m"), &json!("text")));
    let told = records.to_string();
    assert!(!told.contains("private") && !told.contains("vendor's own words"), "{told}");
}

#[test]
fn what_nobody_knows_is_refused_and_seen() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    client.post("/v1/elsewhere", &json!({}));
    assert_eq!(client.answer().0, 404);
    client.send("POST /v1/messages HTTP/1.1\r\nContent-Length: 3\r\n\r\n{no");
    assert_eq!(client.answer().0, 400);
    client.send("POST /v1/messages HTTP/1.1\r\nContent-Encoding: zstd\r\n\r\n");
    assert_eq!(client.answer().0, 415);
    client.send("GET /v1/responses HTTP/1.1\r\n\r\n");
    assert_eq!(client.answer().0, 426);
    let statuses: Vec<Value> = mock.log().iter().map(|record| record["status"].clone()).collect();
    assert_eq!(json!(statuses), json!([404, 400, 415, 426]));
}

#[test]
fn what_is_no_request_ends_the_connection_with_a_word() {
    let mock = Mock::start().unwrap();
    for wrong in [
        "no http at all\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffff\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabcd",
    ] {
        let mut client = Client::of(&mock);
        client.send(wrong);
        assert_eq!(client.answer().0, 400, "{wrong:?}");
        assert!(client.is_closed(), "{wrong:?}");
    }
}

#[test]
fn a_head_without_end_is_not_kept() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    client.send("GET / HTTP/1.1\r\n");
    let header = format!("X: {}\r\n", "x".repeat(1000));
    // The refusal may come before the last lines are sent, so a failed write is no fault.
    for _ in 0..70 {
        drop(client.reader.get_mut().write_all(header.as_bytes()));
    }
    assert_eq!(client.answer().0, 400);
}

#[test]
fn one_connection_too_many_is_closed() {
    let mock = Mock::start().unwrap();
    let mut clients: Vec<Client> = (0..256).map(|_| Client::of(&mock)).collect();
    let mut last = Client::of(&mock);
    assert!(last.is_closed());
    assert_eq!(clients[255].get("/__health")["ok"], true, "the others are served");
}

#[test]
fn every_vendor_lists_models() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    assert_eq!(client.get("/v1/models")["data"][0]["id"], "mock-model");
    assert_eq!(client.get("/v1beta/models")["models"][0]["name"], "models/mock-model");
    client.send("GET /v1/models HTTP/1.1\r\nanthropic-version: x\r\n\r\n");
    assert_eq!(client.answer().1["data"][0]["type"], "model");
}

#[test]
fn gemini_is_asked_by_its_path() {
    let mock = Mock::start().unwrap();
    let mut client = Client::of(&mock);
    let body = json!({ "contents": [{ "role": "user", "parts": [{ "text": "SAY hello" }] }] });
    client.post("/v1beta/models/gemini-x:generateContent", &body);
    let answer = client.answer().1;
    assert_eq!(answer["candidates"][0]["content"]["parts"][0]["text"], "hello");
    client.post("/v1beta/models/gemini-x:streamGenerateContent?alt=sse", &body);
    client.head();
    assert!(client.rest().contains("STOP"));
    client.post("/v1beta/models/gemini-x:countTokens", &body);
    assert!(client.answer().1["totalTokens"].is_u64());
    assert_eq!(mock.log()[0]["model"], "gemini-x");
}
