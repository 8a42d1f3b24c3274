//! A stage whose agent is overheard: the demo agent behind a `tee` that writes down what it is sent.
//!
//! Owns: the folder of what was overheard, and the stage. So a test holds the token of an agent as the agent does.

use crate::contract;
use crate::stage::{Stage, text};
use gooselake_harness::client::Client;
use gooselake_harness::server::program;
use gooselake_harness::temp::TempDir;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

pub(crate) struct Wiretap {
    pub(crate) stage: Stage,
    folder: TempDir,
}

impl Wiretap {
    /// `config_toml` is added to the section of the agent's provider.
    pub(crate) fn start(config_toml: &str) -> Wiretap {
        let folder = TempDir::new("gg-wiretap");
        let demo = program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
        // One file a process of the agent; the folder it works in names the session.
        let script = format!(
            "tee \"{}/$(basename \"$PWD\")\" | exec {}",
            folder.path().display(),
            demo.display()
        );
        let (arguments, state) = (json!(["-c", script]), json!(folder.path().join("state")));
        let stage = Stage::with_config(&format!(
            "[providers.acp]\ncommand = \"/bin/sh\"\nargs = {arguments}\n\
             env = {{ GG_DEMO_STATE_DIR = {state} }}\n{config_toml}"
        ));
        Wiretap { stage, folder }
    }

    /// The id of a new session whose agent works in a folder of this name.
    pub(crate) fn session(&self, name: &str) -> String {
        let cwd = self.stage.cwd.join(name);
        fs::create_dir(&cwd).unwrap();
        let fields = json!({"provider": "acp", "mode": "auto", "cwd": cwd});
        text(&self.stage.create(&fields), "id")
    }

    /// Our server among those that the agent was told to open last.
    pub(crate) fn server(&self, name: &str) -> Value {
        let path: PathBuf = self.folder.path().join(name);
        let lines = fs::read_to_string(&path).unwrap();
        let opened = lines.lines().rev().find_map(|line| {
            let message: Value = serde_json::from_str(line).unwrap();
            message["params"]["mcpServers"].as_array().cloned()
        });
        let servers = opened.expect("the session was opened");
        let ours = servers.into_iter().find(|server| server["name"] == "gg");
        ours.expect("our server is among them")
    }

    /// The value of a variable of our server.
    pub(crate) fn variable(&self, name: &str, variable: &str) -> String {
        let server = self.server(name);
        let mut pairs = server["env"].as_array().unwrap().iter();
        text(pairs.find(|pair| pair["name"] == variable).unwrap(), "value")
    }

    /// The file with the token.
    pub(crate) fn token_file(&self, name: &str) -> PathBuf {
        self.variable(name, "GG_MCP_GATEWAY_TOKEN_FILE").into()
    }

    pub(crate) fn token(&self, name: &str) -> String {
        let path = self.token_file(name);
        let told = fs::read_to_string(&path);
        told.unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// A client with the token of the agent.
    pub(crate) fn client(&self, name: &str) -> Client {
        Client::new(self.stage.server.address(), &self.token(name)).watched(contract::hold)
    }
}
