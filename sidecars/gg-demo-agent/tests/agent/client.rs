//! The client of the tests.
//!
//! Owns: one agent process with a state folder of its own, and a thread that reads its lines into a channel, so that
//! every wait has a deadline. Requests of the agent are answered by a function that the test gives. When it is dropped,
//! the agent is killed with all below it.

use gooselake_harness::temp::TempDir;
use gooselake_harness::{proc, thread};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// How many lines are read ahead: a test that does not ask for lines is a client that does not read.
const UNREAD_LINES_MAX: usize = 64;

/// What the test answers to a request of the agent; `None` for no answer at all.
pub(crate) type Answerer = Box<dyn FnMut(&str, &Value) -> Option<Result<Value, Value>>>;

pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    next_id: i64,
    pub(crate) answer: Answerer,
    /// All messages that were read, and lines that are no JSON as strings.
    pub(crate) seen: Vec<Value>,
    /// Where the agent works.
    pub(crate) cwd: TempDir,
}

/// What came until a request was answered.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) updates: Vec<Value>,
    pub(crate) answer: Value,
}

impl Client {
    pub(crate) fn start(state: &Path, args: &[&str], env: &[(&str, &str)]) -> Client {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gg-demo-agent"));
        command.args(args).env("GG_DEMO_STATE_DIR", state).envs(env.iter().copied());
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let (send, lines) = sync_channel(UNREAD_LINES_MAX);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let reader = thread::spawn("agent-stdout", move || {
            let mut line = Vec::new();
            while stdout.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
                if send.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        reader.unwrap().detach();
        let stdin = child.stdin.take();
        let answer: Answerer = Box::new(|_, _| None);
        let cwd = TempDir::new("gg-demo-cwd");
        Client { child, stdin, lines, next_id: 1, answer, seen: Vec::new(), cwd }
    }

    /// An agent with a fresh state folder, after the handshake, with an open session.
    pub(crate) fn ready(args: &[&str]) -> (Client, String, TempDir) {
        let state = TempDir::new("gg-demo-state");
        let mut client = Client::start(state.path(), args, &[]);
        client.initialize(json!({}));
        let session = client.new_session();
        (client, session, state)
    }

    pub(crate) fn initialize(&mut self, capabilities: Value) -> Value {
        let params = json!({"protocolVersion": 1, "clientCapabilities": capabilities,
            "clientInfo": {"name": "test", "version": "1"}});
        self.result("initialize", params)
    }

    pub(crate) fn new_session(&mut self) -> String {
        let cwd = self.cwd.path().to_owned();
        let result = self.result("session/new", json!({"cwd": cwd, "mcpServers": []}));
        result["sessionId"].as_str().unwrap().to_owned()
    }

    /// A whole turn.
    pub(crate) fn prompt(&mut self, session: &str, text: &str) -> Turn {
        let id = self.start_prompt(session, text);
        self.until_answer(id)
    }

    pub(crate) fn start_prompt(&mut self, session: &str, text: &str) -> i64 {
        let prompt = json!([{"type": "text", "text": text}]);
        self.send_request("session/prompt", json!({"sessionId": session, "prompt": prompt}))
    }

    pub(crate) fn cancel(&mut self, session: &str) {
        let params = json!({"sessionId": session});
        self.send(&json!({"jsonrpc": "2.0", "method": "session/cancel", "params": params}));
    }

    /// The result of a request. Panics: it is an error.
    pub(crate) fn result(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params);
        let answer = self.until_answer(id).answer;
        assert!(answer.get("error").is_none(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The error of a request. Panics: it is a result.
    pub(crate) fn error(&mut self, method: &str, params: Value) -> Value {
        let id = self.send_request(method, params);
        let answer = self.until_answer(id).answer;
        assert!(answer.get("result").is_none(), "{method}: {answer}");
        answer["error"].clone()
    }

    pub(crate) fn send_request(&mut self, method: &str, params: Value) -> i64 {
        let id = self.next_id;
        self.next_id += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    pub(crate) fn send(&mut self, message: &Value) {
        self.send_line(message.to_string().as_bytes());
    }

    pub(crate) fn send_line(&mut self, line: &[u8]) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(&[line, b"\n"].concat()).unwrap();
    }

    /// Reads until the request is answered, and answers what the agent asks on the way.
    pub(crate) fn until_answer(&mut self, id: i64) -> Turn {
        let mut updates = Vec::new();
        let answer = self.until(&format!("the answer to request {id}"), |message| {
            if message["method"] == "session/update" {
                updates.push(message["params"]["update"].clone());
            }
            message["id"] == id && message.get("method").is_none()
        });
        Turn { updates, answer }
    }

    /// Reads until an update of this kind.
    pub(crate) fn until_update(&mut self, kind: &str) -> Value {
        let found =
            self.until(kind, |message| message["params"]["update"]["sessionUpdate"] == kind);
        found["params"]["update"].clone()
    }

    /// Reads until a message that is wanted, and gives that.
    pub(crate) fn until(&mut self, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
        let end = Instant::now() + DEADLINE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("awaited {what}; the last that came: {:?}", self.seen.last());
            };
            let text = || Value::String(String::from_utf8_lossy(&line).into_owned());
            let message = serde_json::from_slice(&line).unwrap_or_else(|_| text());
            self.seen.push(message.clone());
            if let (Some(method), Some(id)) = (message["method"].as_str(), message.get("id")) {
                self.answer_request(method, id, &message["params"]);
            }
            if wanted(&message) {
                return message;
            }
        }
    }

    fn answer_request(&mut self, method: &str, id: &Value, params: &Value) {
        match (self.answer)(method, params) {
            Some(Ok(result)) => self.send(&json!({"jsonrpc": "2.0", "id": id, "result": result})),
            Some(Err(error)) => self.send(&json!({"jsonrpc": "2.0", "id": id, "error": error})),
            None => {}
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Waits for the end of the process, and gives its exit code and stderr.
    pub(crate) fn wait_end(&mut self) -> (Option<i32>, String) {
        let gone = proc::wait_gone(&[self.child.id()], DEADLINE);
        assert_eq!(gone, Ok(()), "awaited the agent's end");
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (self.child.wait().unwrap().code(), stderr)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // What has ended cannot be killed, which is fine. What is below is looked up while it is.
        let below = proc::descendants(self.child.id());
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in below {
            drop(proc::signal(pid, proc::Signal::KILL));
        }
    }
}

/// A process that the agent left behind: ended with all below it when the test is over, also when the test fails.
pub(crate) struct LeftBehind(pub(crate) u32);

impl LeftBehind {
    /// Ends it now, and waits until nothing of it is left.
    pub(crate) fn end(&self) {
        // A shell may have forked for its command: killing the shell alone would leave that behind.
        let mut all = proc::descendants(self.0);
        all.push(self.0);
        for pid in &all {
            // One that has ended by itself is as good.
            drop(proc::signal(*pid, proc::Signal::KILL));
        }
        drop(proc::wait_gone(&all, DEADLINE));
    }
}

impl Drop for LeftBehind {
    fn drop(&mut self) {
        self.end();
    }
}

impl Turn {
    pub(crate) fn stop_reason(&self) -> &str {
        self.answer["result"]["stopReason"].as_str().unwrap_or_default()
    }

    /// The texts of all chunks of a kind, one after the other.
    pub(crate) fn said(&self) -> String {
        said(&self.updates, "agent_message_chunk")
    }

    pub(crate) fn of(&self, kind: &str) -> Vec<&Value> {
        self.updates.iter().filter(|update| update["sessionUpdate"] == kind).collect()
    }

    /// The only tool call of the turn, with all its updates merged, and the statuses it went through.
    pub(crate) fn call(&self) -> (Value, Vec<String>) {
        let mut whole = json!({});
        let mut statuses = Vec::new();
        for update in &self.updates {
            let kind = update["sessionUpdate"].as_str().unwrap_or_default();
            if !matches!(kind, "tool_call" | "tool_call_update") {
                continue;
            }
            assert_eq!(kind == "tool_call", statuses.is_empty(), "{update}");
            if let Some(status) = update["status"].as_str() {
                statuses.push(status.to_owned());
            }
            for (key, value) in update.as_object().unwrap() {
                whole[key] = value.clone();
            }
        }
        (whole, statuses)
    }
}

pub(crate) fn said(updates: &[Value], kind: &str) -> String {
    let of_kind = updates.iter().filter(|update| update["sessionUpdate"] == kind);
    of_kind.filter_map(|update| update["content"]["text"].as_str()).collect()
}

/// Always chooses the option of this kind.
pub(crate) fn choose(kind: &'static str) -> Answerer {
    Box::new(move |method, params| {
        assert_eq!(method, "session/request_permission");
        let options = params["options"].as_array().unwrap();
        let option = options.iter().find(|option| option["kind"] == kind).unwrap();
        let outcome = json!({"outcome": "selected", "optionId": option["optionId"]});
        Some(Ok(json!({"outcome": outcome})))
    })
}
