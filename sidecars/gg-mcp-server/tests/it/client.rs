//! The agent of the tests.
//!
//! Owns: one sidecar process with an environment of its own, and a thread that reads its lines into a channel, so that
//! every wait has a deadline. When it is dropped the sidecar is killed.

use crate::stand_in::DEADLINE;
use gooselake_harness::thread;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<Value>,
}

impl Client {
    pub(crate) fn start(env: &[(&str, &str)]) -> Client {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gg-mcp-server"));
        command.env_clear().envs(env.iter().copied());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        let reader = thread::spawn("sidecar-stdout", move || {
            for line in stdout.lines() {
                let Ok(line) = line else { return };
                drop(send.send(serde_json::from_str(&line).unwrap()));
            }
        });
        reader.unwrap().detach();
        let stdin = child.stdin.take();
        Client { child, stdin, lines }
    }

    /// A sidecar in front of a gateway, as the runtime server starts it.
    pub(crate) fn of(url: &str) -> Client {
        Client::start(&[
            ("GG_MCP_GATEWAY_URL", url),
            ("GG_MCP_GATEWAY_TOKEN", "secret"),
            ("GG_MCP_CALLER_AGENT_ID", "sess_me"),
        ])
    }

    pub(crate) fn send(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(format!("{text}\n").as_bytes()).unwrap();
    }

    /// Sends a request and does not wait.
    pub(crate) fn ask(&mut self, id: i64, method: &str, params: Value) {
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        self.send(&message.to_string());
    }

    /// The next line.
    pub(crate) fn line(&self) -> Value {
        self.lines.recv_timeout(DEADLINE).expect("a line comes")
    }

    /// Sends a request and takes the next line, which must be its answer.
    pub(crate) fn result(&mut self, method: &str, params: Value) -> Value {
        self.ask(1, method, params);
        let answer = self.line();
        assert_eq!(answer["id"], 1, "{answer}");
        assert!(answer.get("error").is_none(), "{answer}");
        answer["result"].clone()
    }

    /// The envelope that a tool answers.
    pub(crate) fn call(&mut self, tool: &str, arguments: Value) -> Value {
        let result = self.result("tools/call", json!({"name": tool, "arguments": arguments}));
        let envelope = envelope(&result);
        assert_eq!(result["isError"], json!(envelope["ok"] != true), "{result}");
        envelope
    }

    /// Closes stdin and takes all lines that still come; gives them and the exit code.
    pub(crate) fn end(mut self) -> (Vec<Value>, Option<i32>) {
        drop(self.stdin.take());
        let mut rest = Vec::new();
        // The channel closes when stdout does.
        while let Ok(line) = self.lines.recv_timeout(DEADLINE) {
            rest.push(line);
        }
        (rest, self.child.wait().unwrap().code())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // One that has ended cannot be killed, which is fine.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The envelope in a tool's result.
pub(crate) fn envelope(result: &Value) -> Value {
    assert_eq!(result["content"][0]["type"], "text", "{result}");
    serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap()
}

/// The names of the tools that the sidecar shows.
pub(crate) fn names(result: &Value) -> Vec<String> {
    let tools = result["tools"].as_array().unwrap();
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}
