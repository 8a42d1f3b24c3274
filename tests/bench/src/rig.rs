//! The server under measurement: started as any client's server is, with the benchmark's own agent.

use crate::raw::Peer;
use gooselake_harness::client::Client;
use gooselake_harness::server::{Options, Server};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// A running server with a client.
pub(crate) struct Rig {
    pub(crate) server: Server,
    pub(crate) client: Client,
}

/// The agents of the configuration below.
#[derive(Clone, Copy)]
pub(crate) enum Agent {
    /// The demo agent.
    Demo,
    /// This binary, as `agent.rs` describes.
    Stamping,
}

/// How often a start is measured; the best one counts.
pub(crate) const STARTS: usize = 3;

impl Rig {
    pub(crate) fn start() -> Rig {
        Rig::start_on(None)
    }

    /// From the start of the process to the answer of `GET /ready`, in milliseconds: the best of [`STARTS`].
    pub(crate) fn best_start_ms(&mut self) -> f64 {
        let start_ms = |_| {
            self.server.terminate();
            let begun = Instant::now();
            self.server.restart();
            self.client = self.server.client();
            self.client.get("/ready").expect(200);
            begun.elapsed().as_secs_f64() * 1000.0
        };
        (0..STARTS).map(start_ms).fold(f64::MAX, f64::min)
    }

    /// Starts on a data folder that was prepared.
    pub(crate) fn start_on(data_dir: Option<PathBuf>) -> Rig {
        let own = std::env::current_exe().expect("the program knows its path");
        let config_toml = format!(
            "[server]\nmax_connections = 4096\nmax_streams = 2048\n\
             [providers.demo]\nenabled = true\nmax_instances = 64\n\
             [processes]\nmax_concurrent = 64\n\
             [providers.acp]\nenabled = true\nmax_instances = 64\n\
             command = {}\nargs = [\"agent\"]\n",
            Value::from(own.to_string_lossy())
        );
        let server = Server::start(Options { config_toml, data_dir, ..Options::default() });
        let client = server.client().with_deadline(Duration::from_secs(60));
        Rig { server, client }
    }

    pub(crate) fn peer(&self) -> Peer {
        Peer { address: self.server.address(), token: self.server.token() }
    }

    /// A session whose agent is ready.
    pub(crate) fn session(&self, agent: Agent) -> String {
        let provider = match agent {
            Agent::Demo => "demo",
            Agent::Stamping => "acp",
        };
        let body = json!({"provider": provider, "cwd": self.server.folder()});
        let record = self.client.post("/v1/sessions", &body).expect(200).json();
        record["id"].as_str().expect("a session has an id").to_owned()
    }

    /// Starts a turn.
    pub(crate) fn turn(&self, session_id: &str, text: &str) {
        self.client.post(&turns_path(session_id), &input(text)).expect(200);
    }

    /// A number of `GET /v1/diagnostics` about the writer.
    pub(crate) fn writer(&self, name: &str) -> f64 {
        let diagnostics = self.client.get("/v1/diagnostics").expect(200).json();
        diagnostics["writer"][name].as_f64().unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.server.pid()
    }
}

pub(crate) fn turns_path(session_id: &str) -> String {
    format!("/v1/sessions/{session_id}/turns")
}

/// The stream of a session from now on.
pub(crate) fn stream_path(session_id: &str) -> String {
    format!("/v1/sessions/{session_id}/events/stream?after_seq=latest")
}

pub(crate) fn input(text: &str) -> Value {
    json!({"input": [{"type": "text", "text": text}]})
}

/// The kinds that end a turn.
pub(crate) const TERMINAL: &[&str] = &["turn.completed", "turn.failed", "turn.interrupted"];
