//! A client of stdio MCP servers, just large enough to call a tool.
//!
//! Owns: one child process per server and session, from its first call to the session's end. One thread reads its
//! stdout, hands answers to the turn that waits for them, answers its requests, and reaps it; the turn's thread writes.
//! It speaks the revision with `initialize`; other transports, resources and prompts are deliberately not here.

use crate::command::signal_group;
use crate::thread::{lock, spawn};
use crate::turn::{Ears, Stop, Turn, Waiting};
use crate::wire::{self, RpcError};
use serde_json::{Value, json};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

const PROTOCOL_VERSION: &str = "2025-06-18";

/// The longest line of a server, in bytes; a longer one ends the conversation.
const LINE_BYTES_MAX: u64 = 16 << 20;

/// How long a server may take for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// How long a server has to end after its stdin was closed, before it is killed.
const END_GRACE: Duration = Duration::from_secs(1);

pub(crate) struct McpServer {
    group: u32,
    /// Taken, and so closed, at the end.
    stdin: Mutex<Option<ChildStdin>>,
    waiting: Waiting,
    ended: Mutex<bool>,
    end: Condvar,
}

impl McpServer {
    /// Starts the server that `spec` (ACP's `McpServer`) describes and shakes hands. Errors: what went wrong, as text
    /// for the user, inside; [`Stop`] when the turn was cancelled.
    pub(crate) fn start(
        spec: &Value,
        turn: &Arc<Turn>,
    ) -> Result<Result<Arc<McpServer>, String>, Stop> {
        let server = match launch(spec) {
            Ok(server) => server,
            Err(error) => return Ok(Err(format!("the server does not start: {error}"))),
        };
        let params = json!({"protocolVersion": PROTOCOL_VERSION, "capabilities": {},
            "clientInfo": {"name": "gg-demo-agent", "version": env!("CARGO_PKG_VERSION")}});
        let hello = server.call("initialize", params, turn);
        if !matches!(hello, Ok(Ok(_))) {
            server.end();
        }
        match hello? {
            Ok(_) => {
                let ready = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
                Ok(server.send(&ready).map(|()| server).map_err(|error| error.to_string()))
            }
            Err(error) => Ok(Err(format!("initialize: {}", error.message))),
        }
    }

    /// One request and its answer.
    pub(crate) fn call(
        &self,
        method: &str,
        params: Value,
        turn: &Arc<Turn>,
    ) -> Result<Result<Value, RpcError>, Stop> {
        let id = self.waiting.expect(turn);
        let failed = |text: String| Ok(Err(RpcError::new(wire::INTERNAL_ERROR, text)));
        if let Err(error) = self.send(&wire::request(id, method, params)) {
            self.waiting.take(id);
            return failed(error.to_string());
        }
        // The reader sees the end first and may have missed this request: it is in nobody's hands then.
        if *lock(&self.ended) {
            self.waiting.take(id);
            return failed("the server has ended".to_owned());
        }
        let reply = turn.wait(Some(ANSWER_TIME), Ears::Open, |inbox| inbox.take_reply(id));
        self.waiting.take(id);
        match reply? {
            Some(reply) => Ok(wire::outcome(reply)),
            None => failed(format!("no answer within {} s", ANSWER_TIME.as_secs())),
        }
    }

    /// Closes the server's stdin, gives it a moment, and kills what is left. Waits until it is reaped or killed.
    pub(crate) fn end(&self) {
        drop(lock(&self.stdin).take());
        let ended = lock(&self.ended);
        let waited = self.end.wait_timeout_while(ended, END_GRACE, |ended| !*ended);
        let over = *waited.unwrap_or_else(PoisonError::into_inner).0;
        if !over {
            signal_group(self.group, "KILL");
        }
    }

    fn send(&self, message: &Value) -> io::Result<()> {
        match lock(&self.stdin).as_mut() {
            Some(stdin) => stdin.write_all(&wire::line(message)),
            None => Err(io::Error::other("the server has ended")),
        }
    }

    /// What the server sends: an answer goes to its turn, a request gets one.
    fn line(&self, line: &[u8]) {
        let Ok(message) = serde_json::from_slice::<Value>(line) else { return };
        let id = message["id"].clone();
        if message.get("method").is_none() {
            let Some(id) = id.as_i64() else { return };
            if let Some(turn) = self.waiting.take(id) {
                turn.deliver(id, message);
            }
        } else if !id.is_null() {
            let result = match message["method"].as_str() {
                Some("ping") => Ok(json!({})),
                _ => Err(RpcError::new(wire::METHOD_NOT_FOUND, "Method not found")),
            };
            // A server that does not read any more is told so by the end of its stdin.
            drop(self.send(&wire::answer(&id, result)));
        }
    }
}

fn launch(spec: &Value) -> io::Result<Arc<McpServer>> {
    let program = spec["command"].as_str().ok_or_else(|| io::Error::other("it has no command"))?;
    let mut command = Command::new(program);
    let texts = |value: &Value| value.as_array().cloned().unwrap_or_default();
    for argument in texts(&spec["args"]) {
        command.arg(argument.as_str().unwrap_or_default());
    }
    for pair in texts(&spec["env"]) {
        command.env(
            pair["name"].as_str().unwrap_or_default(),
            pair["value"].as_str().unwrap_or_default(),
        );
    }
    let pipes = command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = pipes.spawn()?;
    let stdout = child.stdout.take().expect("its stdout is piped");
    let server = Arc::new(McpServer {
        group: child.id(),
        stdin: Mutex::new(child.stdin.take()),
        waiting: Waiting::default(),
        ended: Mutex::new(false),
        end: Condvar::new(),
    });
    let reader = Arc::clone(&server);
    spawn("mcp-server", move || read(stdout, child, &reader))?;
    Ok(server)
}

fn read(stdout: ChildStdout, mut child: Child, server: &McpServer) {
    let mut input = BufReader::new(stdout);
    let mut line = Vec::new();
    loop {
        line.clear();
        match input.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(count) if count > 0 && line.ends_with(b"\n") => server.line(&line),
            _ => break,
        }
    }
    drop(lock(&server.stdin).take());
    drop(child.wait());
    *lock(&server.ended) = true;
    server.end.notify_all();
    for (id, turn) in server.waiting.take_all() {
        turn.deliver(id, json!({"error": {"code": -32000, "message": "the server has ended"}}));
    }
}
