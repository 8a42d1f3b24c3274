//! A gateway of the tests.
//!
//! Owns: a listener on the loopback, a thread that takes a known number of connections, and one for each of them, so
//! that a request that is held holds up no other. When the last connection was taken the port is closed, which is
//! what a server that ends looks like.

use gooselake_harness::thread;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct StandIn {
    pub(crate) url: String,
    asked: Receiver<Asked>,
}

/// A request as it came.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) head: String,
    /// Null when there was none.
    pub(crate) body: Value,
}

impl StandIn {
    /// Serves so many requests; `answer` gives the body of a 200 for the body of a call, and may wait.
    pub(crate) fn start(
        requests: usize,
        answer: impl Fn(&Value) -> Value + Send + Sync + 'static,
    ) -> StandIn {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/v1/mcp", listener.local_addr().unwrap());
        let (tell, asked) = channel();
        let answer = Arc::new(answer);
        let accepting = thread::spawn("stand-in", move || {
            for _ in 0..requests {
                let (mut socket, _) = listener.accept().unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                let (tell, answer) = (tell.clone(), Arc::clone(&answer));
                let serving = thread::spawn("stand-in-call", move || {
                    let asked = read(&mut socket);
                    let body = if asked.head.starts_with("GET /v1/mcp/capabilities ") {
                        capabilities()
                    } else {
                        answer(&asked.body)
                    };
                    drop(tell.send(asked));
                    let body = body.to_string();
                    let length = body.len();
                    let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
                    // A sidecar that was killed does not read it.
                    drop(socket.write_all(text.as_bytes()));
                });
                serving.unwrap().detach();
            }
        });
        accepting.unwrap().detach();
        StandIn { url, asked }
    }

    /// The next request that was answered.
    pub(crate) fn asked(&self) -> Asked {
        self.asked.recv_timeout(DEADLINE).expect("a request comes")
    }
}

pub(crate) const TOOLS: [&str; 3] = ["gg_ping", "gg_process_run", "gg_team_status"];

fn capabilities() -> Value {
    let schemas: Vec<Value> = TOOLS.iter().map(|name| json!({"name": name})).collect();
    json!({"ok": true, "result": {"tools": TOOLS, "toolSchemas": schemas}})
}

fn read(socket: &mut impl Read) -> Asked {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        socket.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
    }
    let head = String::from_utf8(bytes).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
    let mut body = vec![0; length.unwrap().parse().unwrap()];
    socket.read_exact(&mut body).unwrap();
    Asked { head, body: serde_json::from_slice(&body).unwrap_or_default() }
}
