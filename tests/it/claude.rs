//! Claude as a provider: whose login and which variables its program gets, its errors at the start, and a server that
//! is killed while it asks.
//!
//! The program behind the bridge is a stand-in; the real one is driven by `make test-real`, and its dialect is replayed
//! from recordings in the tests of the bridge and of the ACP adapter.

use crate::stage::{SOON, Stage, check_error, list, text};
use gooselake_harness::server::{Options, Server};
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

const FAKE: &str = include_str!("../../sidecars/claude-bridge/tests/bridge/fake.sh");

/// A server whose Claude is the stand-in.
struct Scene {
    stage: Stage,
    log: PathBuf,
}

impl Scene {
    /// `fake` is lines of the table `[providers.claude.env]`, `env` the environment of the server.
    fn new(fake: &str, env: &[(&str, &str)]) -> Scene {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut server = Server::start(Options { env: env.collect(), ..Options::default() });
        let (program, log) = (server.folder().join("claude"), server.folder().join("heard"));
        fs::write(&program, FAKE).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        server.set_config(&format!(
            "[providers.demo]\nenabled = true\n[providers.claude]\ncommand = {}\n\
             [providers.claude.env]\nFAKE_LOG = {}\n{fake}\n",
            json!(program),
            json!(log),
        ));
        server.restart();
        let cwd = server.folder().join("work");
        fs::create_dir(&cwd).unwrap();
        Scene { stage: Stage { client: crate::contract::client(&server), server, cwd }, log }
    }

    fn session(&self) -> String {
        let reply = self.stage.post_session(&json!({"provider": "claude"}), &[]);
        text(&reply.expect(200).json(), "id")
    }

    /// What the program finds in a variable.
    fn variable(&self, session_id: &str, name: &str) -> String {
        let turn = self.stage.run(session_id, &format!("env {name}"));
        let said = text(&turn, "assistant_text");
        said.strip_prefix(&format!("{name}=")).unwrap_or_else(|| panic!("{turn}")).to_owned()
    }

    /// The arguments of each start for a session; a probe for readiness keeps none.
    fn starts(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let is_session = |line: &&str| !line.contains("--no-session-persistence");
        log.lines().filter(is_session).map(str::to_owned).collect()
    }
}

#[test]
fn claude_alone_gets_its_keys_and_no_prompt_is_an_argument() {
    let keys = [("ANTHROPIC_API_KEY", "key-of-the-server"), ("OPENAI_API_KEY", "of-another")];
    let scene = Scene::new("", &keys);
    let session_id = scene.session();
    assert_eq!(scene.variable(&session_id, "ANTHROPIC_API_KEY"), "key-of-the-server");
    assert_eq!(scene.variable(&session_id, "OPENAI_API_KEY"), "unset");
    assert_eq!(scene.variable(&session_id, "DISABLE_AUTOUPDATER"), "1");
    let argv = fs::read_to_string(&scene.log).unwrap();
    assert!(!argv.contains("ANTHROPIC"), "{argv}");
    // Another provider's agent sees nothing of it.
    let demo = scene.stage.session();
    let turn = scene.stage.run(&demo, "env ANTHROPIC_API_KEY");
    assert!(text(&turn, "assistant_text").contains("unset"), "{turn}");
}

#[test]
fn a_login_that_the_server_manages_is_a_folder_and_a_key_of_its_own() {
    let scene = Scene::new("", &[("GG_CLAUDE_AUTH_MODE", "runtime_managed")]);
    let folder = scene.stage.server.data_dir().join("providers/claude");
    fs::create_dir_all(folder.join("config")).unwrap();
    fs::write(folder.join("config/api_key"), "managed-key\n").unwrap();
    let session_id = scene.session();
    let path = |name: &str| folder.join(name).to_string_lossy().into_owned();
    assert_eq!(scene.variable(&session_id, "HOME"), path("home"));
    assert_eq!(scene.variable(&session_id, "CLAUDE_CONFIG_DIR"), path("config"));
    assert_eq!(scene.variable(&session_id, "ANTHROPIC_API_KEY"), "managed-key");
}

#[test]
fn what_is_missing_is_told_when_the_session_is_made() {
    let refused = |fake: &str, fields: Value, told: &[&str]| {
        let scene = Scene::new(fake, &[("IS_SANDBOX", "")]);
        let reply = scene.stage.post_session(&fields, &[]);
        let error = check_error(&reply, 502, "agent_failed");
        for words in told {
            assert!(error.contains(words), "{words} in {error}");
        }
    };
    let plain = || json!({"provider": "claude"});
    let logged_out = "FAKE_ACCOUNT = '{\"tokenSource\":\"none\"}'";
    refused(logged_out, plain(), &["nobody is logged in", "/login", "ANTHROPIC_API_KEY"]);
    refused("FAKE_VERSION = \"2.0.9\"", plain(), &["too old", "2.0.9", "claude update"]);
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        let fields = json!({"provider": "claude", "permission_mode": "danger_full_access"});
        refused("", fields, &["danger_full_access", "IS_SANDBOX"]);
    }
    let scene = Scene::new("", &[]);
    let misspelt = json!({"provider": "claude", "permission_mode": "readonly"});
    let error = check_error(&scene.stage.post_session(&misspelt, &[]), 400, "bad_request");
    assert!(error.contains("readonly") && error.contains("read_only"), "{error}");
    let stage = Stage::with_config("[providers.claude]\ncommand = \"gg-no-such-claude\"\n");
    let error = check_error(&stage.post_session(&plain(), &[]), 502, "agent_failed");
    assert!(error.contains("gg-no-such-claude") && error.contains("install"), "{error}");
}

#[test]
fn a_question_is_answerable_after_the_server_was_killed() {
    let mut scene = Scene::new("", &[]);
    let session_id = scene.session();
    let turn_id = scene.stage.start(&session_id, "ask");
    let path = format!("/v1/sessions/{session_id}/approvals?status=pending");
    let pending = |scene: &Scene| {
        wait::until(SOON, "the question", || {
            let pending = list(scene.stage.get(&path));
            (!pending.is_empty()).then_some(pending)
        })
    };
    let asked = pending(&scene);
    assert_eq!(asked[0]["subject"]["command"], "ls");
    scene.stage.server.kill9();
    scene.stage.restart();
    let still = pending(&scene);
    assert_eq!((still.len(), &still[0]["id"]), (1, &asked[0]["id"]));
    let path = format!("/v1/sessions/{session_id}/approvals/{}", text(&still[0], "id"));
    scene.stage.client.post(&path, &json!({"decision": "accept"})).expect(200);
    let turn = scene.stage.ended(&session_id, &turn_id);
    assert_eq!(
        (&turn["status"], &turn["assistant_text"]),
        (&json!("completed"), &json!("allowed"))
    );
    assert_eq!(scene.starts().len(), 1, "the program has lived through it");
}

#[test]
fn a_session_without_a_turn_comes_back_and_one_with_a_turn_is_resumed() {
    let mut scene = Scene::new("", &[]);
    let session_id = scene.session();
    let end = |scene: &mut Scene| {
        let keepers = proc::keepers_of(scene.stage.server.data_dir());
        let below: Vec<u32> = keepers.iter().flat_map(|pid| proc::descendants(*pid)).collect();
        scene.stage.server.kill9();
        for pid in keepers.into_iter().chain(below) {
            drop(proc::signal(pid, proc::Signal::KILL));
        }
        scene.stage.restart();
    };
    end(&mut scene);
    let turn = scene.stage.run(&session_id, "hello");
    assert_eq!(turn["status"], "completed", "{turn}");
    end(&mut scene);
    scene.stage.run(&session_id, "hello again");
    let lines = scene.starts();
    assert!(lines[1].contains("--session-id"), "nothing was said, so there is nothing to resume");
    let native = text(&scene.stage.record(&session_id), "provider_session_ref");
    assert!(lines[2].contains(&format!("--resume {native}")), "{lines:?}");
}
