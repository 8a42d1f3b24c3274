//! The client of the tests, and the program behind the bridge: a script that stands for `claude`.
//!
//! Owns: one bridge process and a thread that reads its lines into a channel, so that every wait has a deadline. When
//! it is dropped, the bridge is killed with all below it.

use gooselake_harness::temp::TempDir;
use gooselake_harness::{proc, thread};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

const FAKE: &str = include_str!("fake.sh");

/// A folder with the script, and what it logs.
pub(crate) struct Place {
    pub(crate) folder: TempDir,
}

impl Place {
    pub(crate) fn new() -> Place {
        let folder = TempDir::new("claude-bridge");
        let script = folder.path().join("claude");
        std::fs::write(&script, FAKE).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        Place { folder }
    }

    fn command(&self, env: &[(&str, &str)]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_claude-bridge"));
        command.env("CLAUDE_BRIDGE_CLAUDE", self.folder.path().join("claude"));
        command.env("FAKE_LOG", self.log()).envs(env.iter().copied());
        command
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// The command lines with which the program was started.
    pub(crate) fn starts(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }

    /// Runs `claude-bridge probe`.
    pub(crate) fn probe(&self, env: &[(&str, &str)]) -> (Value, Output) {
        let output = self.command(env).arg("probe").output().unwrap();
        (serde_json::from_slice(&output.stdout).unwrap(), output)
    }

    pub(crate) fn start(&self, env: &[(&str, &str)]) -> Client {
        let mut command = self.command(env);
        let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = pipes.spawn().unwrap();
        let (send, lines) = sync_channel(64);
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let reader = thread::spawn("bridge-stdout", move || {
            let mut line = String::new();
            while stdout.read_line(&mut line).is_ok_and(|count| count > 0) {
                let message = serde_json::from_str(&line).expect("the bridge writes JSON lines");
                line.clear();
                if send.send(message).is_err() {
                    return;
                }
            }
        });
        reader.unwrap().detach();
        let stdin = child.stdin.take();
        let mut client = Client { child, stdin, lines, last_id: 0, seen: Vec::new() };
        let offers = json!({"session": {"notices": {}}});
        client.result("initialize", json!({"protocolVersion": 1, "clientCapabilities": offers}));
        client
    }
}

pub(crate) struct Client {
    pub(crate) child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
    last_id: i64,
    /// All messages that came while an answer was awaited.
    pub(crate) seen: Vec<Value>,
}

impl Client {
    pub(crate) fn send(&mut self, message: &Value) {
        writeln!(self.stdin.as_mut().unwrap(), "{message}").unwrap();
    }

    pub(crate) fn request(&mut self, method: &str, params: Value) -> i64 {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        id
    }

    /// The next message that fits; all others are kept as seen.
    pub(crate) fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let message = self.lines.recv_timeout(left);
            let message =
                message.unwrap_or_else(|error| panic!("{what}: {error}, {:?}", self.seen));
            if fits(&message) {
                return message;
            }
            self.seen.push(message);
        }
    }

    pub(crate) fn answer(&mut self, id: i64) -> Value {
        self.until("an answer", |message| message["id"] == id && message["method"].is_null())
    }

    /// The result of a request. Panics: it is an error.
    pub(crate) fn result(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        let answer = self.answer(id);
        assert!(answer["error"].is_null(), "{method}: {answer}");
        answer["result"].clone()
    }

    /// The error of a request. Panics: it is a result.
    pub(crate) fn error(&mut self, method: &str, params: Value) -> Value {
        let id = self.request(method, params);
        let answer = self.answer(id);
        assert!(answer["result"].is_null(), "{method}: {answer}");
        answer["error"].clone()
    }

    pub(crate) fn session(&mut self) -> String {
        let result = self.result("session/new", json!({"cwd": "/", "mcpServers": []}));
        result["sessionId"].as_str().unwrap().to_owned()
    }

    pub(crate) fn start_prompt(&mut self, session: &str, text: &str) -> i64 {
        let prompt = json!([{"type": "text", "text": text}]);
        self.request("session/prompt", json!({"sessionId": session, "prompt": prompt}))
    }

    /// A whole prompt: what was said, and the answer.
    pub(crate) fn prompt(&mut self, session: &str, text: &str) -> (String, Value) {
        self.seen.clear();
        let id = self.start_prompt(session, text);
        let answer = self.answer(id);
        (self.said(session), answer)
    }

    fn said(&self, session: &str) -> String {
        let updates = self.seen.iter().filter(|m| m["params"]["sessionId"] == session);
        let chunks = updates.map(|message| &message["params"]["update"]);
        let chunks = chunks.filter(|update| update["sessionUpdate"] == "agent_message_chunk");
        chunks.filter_map(|chunk| chunk["content"]["text"].as_str()).collect()
    }

    /// Closes stdin and waits for the end. The exit code.
    pub(crate) fn leave(&mut self) -> Option<i32> {
        drop(self.stdin.take());
        let deadline = Instant::now() + DEADLINE;
        while let Ok(message) =
            self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            self.seen.push(message);
        }
        self.child.wait().unwrap().code()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let below = proc::descendants(self.child.id());
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in below {
            drop(proc::signal(pid, proc::Signal::KILL));
        }
    }
}
