//! Codex as a provider: its folder, its errors at the start, steering, and commands that go on behind their turn.
//!
//! The program is a stand-in (`codex/fake.sh`) that speaks as much of the protocol as these stories need; the real
//! one is driven by `make test-real`, and its dialect is replayed from recordings in the library's own tests.

mod commit;
mod late;

use crate::crew::Crew;
use crate::stage::{SOON, Stage, check_error, check_told, text};
use gooselake_harness::{proof, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A server whose Codex is the stand-in.
struct Scene {
    stage: Stage,
    log: PathBuf,
}

/// Puts the stand-in into a folder: the configuration with it, and the file of what it hears.
fn stand_in(folder: &Path, env: &str) -> (String, PathBuf) {
    let (program, log) = (folder.join("codex"), folder.join("heard"));
    fs::write(&program, include_str!("codex/fake.sh")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let user = folder.join("user");
    fs::create_dir(&user).unwrap();
    let config = format!(
        "[providers.codex]\ncommand = {}\n[providers.codex.env]\nFAKE_LOG = {}\nHOME = {}\n{env}\n",
        json!(program),
        json!(log),
        json!(user),
    );
    (config, log)
}

impl Scene {
    fn new() -> Scene {
        Scene::with("")
    }

    /// `env` is lines of the table `[providers.codex.env]`.
    fn with(env: &str) -> Scene {
        Scene::with_tables("", env)
    }

    fn with_tables(tables: &str, env: &str) -> Scene {
        let mut stage = Stage::with_config("");
        let (config, log) = stand_in(stage.server.folder(), env);
        stage.server.set_config(&[tables, &config].concat());
        stage.restart();
        Scene { stage, log }
    }

    fn session(&self) -> String {
        let fields = json!({"provider": "codex"});
        text(&self.stage.post_session(&fields, &[]).expect(200).json(), "id")
    }

    /// A turn that says a word and waits for a steer.
    fn holding(&self, session_id: &str) -> String {
        let turn_id = self.stage.start(session_id, "hold");
        self.stage.event(session_id, "item.delta", 0);
        turn_id
    }

    fn steer(&self, session_id: &str, words: &str, key: &str) -> String {
        let path = format!("/v1/sessions/{session_id}/turns");
        let body = json!({"input": [words], "when": "steer"});
        let reply = self.stage.post_with(&path, &body, &[("Idempotency-Key", key)]);
        text(&reply.expect(200).json(), "turn_id")
    }

    /// How often the stand-in has heard of the method.
    fn heard(&self, method: &str) -> usize {
        fs::read_to_string(&self.log).unwrap().matches(&format!("\"{method}\"")).count()
    }

    fn user_messages(&self, session_id: &str, turn_id: &str) -> Vec<String> {
        let items = self.stage.items(session_id, turn_id);
        let said = items.iter().filter(|item| item["type"] == "user_message");
        said.map(|item| text(item, "text")).collect()
    }
}

#[test]
fn a_session_has_a_home_of_its_own_that_goes_with_its_purge() {
    let scene = Scene::new();
    let session_id = scene.session();
    let record = scene.stage.record(&session_id);
    assert_eq!((&record["model"], &record["status"]), (&json!("fake-1"), &json!("ready")));
    let seen = fs::read_to_string(scene.log.with_extension("env")).unwrap();
    let folder = scene.stage.server.data_dir().join("providers/codex/sessions").join(&session_id);
    assert!(seen.contains(&format!("CODEX_HOME={}", folder.display())), "{seen}");
    assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    let arguments = fs::read_to_string(scene.log.with_extension("args")).unwrap();
    assert!(arguments.starts_with("app-server -c "), "{arguments}");

    let path = format!("/v1/sessions/{session_id}");
    scene.stage.client.delete(&path).expect(204);
    assert!(folder.is_dir(), "closed is not purged");
    scene.stage.client.delete(&format!("{path}?purge=true")).expect(204);
    assert!(!folder.exists());
}

#[test]
fn what_is_missing_is_told_when_the_session_is_made() {
    let refused = |env: &str, told: &[&str]| {
        let scene = Scene::with(env);
        let reply = scene.stage.post_session(&json!({"provider": "codex"}), &[]);
        let error = check_error(&reply, 502, "agent_failed");
        for words in told {
            assert!(error.contains(words), "{words} in {error}");
        }
    };
    refused("FAKE_LOGIN = \"true\"", &["no login", "codex login"]);
    refused("FAKE_VERSION = \"0.99.0\"", &["too old", "0.99.0", "update it"]);

    let scene = Scene::new();
    let body = json!({"provider": "codex", "permission_mode": "yolo"});
    let error = check_error(&scene.stage.post_session(&body, &[]), 400, "bad_request");
    assert!(error.contains("permission_mode") && error.contains("full_auto"), "{error}");
    let session_id = scene.session();
    let body = json!({"input": ["x"], "permission_mode": "require-approval"});
    check_error(&scene.stage.post_turn(&session_id, &body), 400, "bad_request");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let config = "[providers.codex]\ncommand = \"gg-no-such-codex\"\n";
    let stage = Stage::with_config(config);
    let reply = stage.post_session(&json!({"provider": "codex"}), &[]);
    check_told(&reply, 502, "agent_failed", "gg-no-such-codex");
}

#[test]
fn a_steer_joins_the_running_turn() {
    let scene = Scene::new();
    let session_id = scene.session();
    let turn_id = scene.holding(&session_id);
    assert_eq!(scene.steer(&session_id, "to the left", "k1"), turn_id);
    let turn = scene.stage.ended(&session_id, &turn_id);
    assert_eq!(turn["status"], "completed");
    assert_eq!(turn["assistant_text"], "holding\n\nsteered");
    assert_eq!(scene.user_messages(&session_id, &turn_id), ["hold", "to the left"]);
    let events = scene.stage.events(&session_id);
    let steered: Vec<_> = events.iter().filter(|event| event.kind == "turn.steered").collect();
    assert_eq!(steered.len(), 1);
    assert_eq!(steered[0].json["turn_id"], turn_id.as_str());
    // The message that was being said is over, but not whole.
    let items = scene.stage.items(&session_id, &turn_id);
    let cut = items.iter().find(|item| item["text"] == "holding").unwrap();
    assert_eq!(cut["status"], "interrupted");
}

#[test]
fn a_steer_is_checked_before_anything_is_changed() {
    let scene = Scene::new();
    let session_id = scene.session();
    let turn_id = scene.holding(&session_id);
    let post = |more: Value| {
        let mut body = json!({"input": ["x"], "when": "steer"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scene.stage.post_turn(&session_id, &body)
    };
    check_error(&post(json!({"expected_turn_id": "turn_other"})), 409, "turn_mismatch");
    check_told(&post(json!({"model": "m"})), 400, "bad_request", "model");
    assert_eq!(scene.heard("turn/steer"), 0);
    assert_eq!(scene.user_messages(&session_id, &turn_id), ["hold"]);
    scene.stage.interrupt(&session_id, &turn_id).expect(202);
    scene.stage.ended(&session_id, &turn_id);
    // Without a running turn it is a turn.
    let next = text(&post(json!({})).expect(200).json(), "turn_id");
    assert_ne!(next, turn_id);
    assert_eq!(scene.stage.ended(&session_id, &next)["assistant_text"], "answered");

    let gated = json!({"provider": "codex", "permission_mode": "require_approval"});
    let gated = text(&scene.stage.post_session(&gated, &[]).expect(200).json(), "id");
    let turn = scene.stage.start(&gated, "hold");
    let approval = scene.stage.approval(&gated, 0);
    scene.stage.decide(&approval, &json!({"decision": "accept"})).expect(200);
    scene.stage.event(&gated, "item.delta", 0);
    let body = json!({"input": ["x"], "when": "steer", "expected_turn_id": turn});
    check_error(&scene.stage.post_turn(&gated, &body), 409, "steer_unsupported");
}

#[test]
fn a_steer_is_heard_once_though_the_server_is_killed() {
    let mut scene = Scene::new();
    let session_id = scene.session();
    let turn_id = scene.holding(&session_id);
    let steered = scene.steer(&session_id, "to the left", "k1");
    scene.stage.server.kill9();
    scene.stage.restart();
    assert_eq!(scene.steer(&session_id, "to the left", "k1"), steered, "the key is remembered");
    let turn = scene.stage.ended(&session_id, &turn_id);
    assert_eq!(turn["assistant_text"], "holding\n\nsteered");
    assert_eq!(scene.heard("turn/steer"), 1);
    assert_eq!(scene.user_messages(&session_id, &turn_id), ["hold", "to the left"]);
}

#[test]
fn a_steer_that_comes_too_late_becomes_a_turn_of_its_own() {
    let scene = Scene::new();
    let session_id = scene.session();
    let turn_id = scene.holding(&session_id);
    assert_eq!(scene.steer(&session_id, "this is late", "k1"), turn_id);
    let queued = scene.stage.event(&session_id, "turn.queued", 0);
    assert_eq!(queued.payload["reason"], "steer_refused");
    let own = text(&queued.json, "turn_id");
    let turn = scene.stage.ended(&session_id, &own);
    assert_eq!((&turn["status"], &turn["source"]), (&json!("completed"), &json!("user")));
    assert_eq!(turn["input"], json!([{"type": "text", "text": "this is late"}]));
    assert_eq!(scene.stage.ended(&session_id, &turn_id)["assistant_text"], "holding");
}

/// What was taken is not refused later: the step that says so would never be committed.
#[test]
fn a_steer_that_comes_too_late_for_a_full_database_becomes_a_turn_all_the_same() {
    let scene = Scene::with_tables("[data]\nmax_database_bytes = 1048576\n", "");
    let session_id = scene.session();
    let turn_id = scene.holding(&session_id);
    let large =
        json!({"metadata": {"text": "x".repeat(10_000)}, "wait": false, "provider": "codex"});
    let is_full = (0..100).any(|_| scene.stage.post_session(&large, &[]).status == 503);
    assert!(is_full, "a megabyte does not hold a hundred of them");
    assert_eq!(scene.steer(&session_id, "this is late", "k1"), turn_id);
    let queued = scene.stage.event(&session_id, "turn.queued", 0);
    let turn = scene.stage.ended(&session_id, &text(&queued.json, "turn_id"));
    assert_eq!(turn["status"], "completed", "{turn}");
    assert_eq!(scene.stage.ended(&session_id, &turn_id)["assistant_text"], "holding");
}

/// Between tools is also while a command of an earlier turn goes on.
#[test]
fn mail_joins_the_running_turn_of_an_agent_that_can_be_steered() {
    let scene = Scene::new();
    let (stage, member) = (&scene.stage, scene.session());
    let crew = Crew::of(stage, vec![scene.session(), member]);
    let member = &crew.members[1];
    let first = stage.run(member, "background");
    let after = stage.events(member).last().unwrap().seq;
    let turn_id = stage.start(member, "hold");
    stage.event(member, "item.delta", after);
    let patient = crew.send(stage, 1, "patient", json!({}));
    crew.told(stage, &patient, "deferred", "turn_running");
    let delivery = crew.send_by(stage, 1, "pressing", "interrupt_after_tool_boundary");
    for delivery in [&patient, &delivery] {
        let told = crew.told(stage, delivery, "injected", "");
        assert_eq!(told["injected_turn_id"], turn_id.as_str(), "what is ahead goes along");
        assert_eq!(told["injection_strategy"], "runtime_steer_turn");
    }
    let turn = stage.ended(member, &turn_id);
    assert_eq!(turn["assistant_text"], "holding\n\nsteered");
    let said = scene.user_messages(member, &turn_id);
    assert_eq!(said.len(), 2, "{said:?}");
    let place = |word: &str| said[1].find(&format!("\n\n{word}\n\n</team_msg>"));
    assert!(place("patient") < place("pressing"), "{said:?}");
    assert!(place("patient").is_some(), "{said:?}");
    let steered = stage.event(member, "turn.steered", 0);
    assert_eq!(steered.payload["source"], "team");
    assert_eq!((scene.heard("turn/steer"), scene.heard("turn/interrupt")), (1, 0));
    let items = stage.items(member, &text(&first, "id"));
    assert!(items.iter().any(|item| item["still_running"] == true), "{items:?}");
}

#[test]
fn a_command_goes_on_behind_its_turn_and_its_end_is_recorded_whenever_it_comes() {
    let mut scene = Scene::new();
    let session_id = scene.session();
    let first = scene.stage.run(&session_id, "background");
    let first_id = text(&first, "id");
    let command = |scene: &Scene| {
        let items = scene.stage.items(&session_id, &first_id);
        items.into_iter().find(|item| item["type"] == "command").unwrap()
    };
    let running = command(&scene);
    assert_eq!(first["status"], "completed");
    assert_eq!(
        (&running["status"], &running["still_running"]),
        (&json!("in_progress"), &json!(true))
    );
    scene.stage.server.kill9();
    scene.stage.restart();
    wait::until(SOON, "the agent is attached again", || {
        (scene.stage.record(&session_id)["live"] == true).then_some(())
    });
    assert_eq!(command(&scene)["still_running"], true);

    let second = scene.stage.run(&session_id, "end it");
    assert_eq!(second["status"], "completed");
    let ended = command(&scene);
    assert_eq!((&ended["status"], &ended["output"]), (&json!("completed"), &json!("served\n")));
    assert_eq!((&ended["exit_code"], &ended["still_running"]), (&json!(0), &Value::Null));
    assert_eq!(ended["turn_id"], first["id"], "it belongs to the turn that began it");
    let events = scene.stage.events(&session_id);
    let told = events.iter().filter(|event| {
        event.kind == "item.completed" && event.payload["item"]["type"] == "command"
    });
    assert_eq!(told.count(), 1);
}

#[test]
fn a_command_that_goes_on_ends_with_its_agent() {
    let scene = Scene::new();
    let session_id = scene.session();
    let turn_id = text(&scene.stage.run(&session_id, "background"), "id");
    scene.stage.close(&session_id);
    let items = scene.stage.items(&session_id, &turn_id);
    let command = items.iter().find(|item| item["type"] == "command").unwrap();
    assert_eq!(command["status"], "interrupted");
}

#[test]
fn what_codex_says_twice_or_to_nobody_changes_nothing() {
    let scene = Scene::new();
    let session_id = scene.session();
    for prompt in ["nonsense", "and on"] {
        let turn = scene.stage.run(&session_id, prompt);
        let told = (&turn["status"], &turn["assistant_text"]);
        assert_eq!(told, (&json!("completed"), &json!("answered")), "{turn}");
    }
    proof::log(&scene.stage.events(&session_id));
}

#[test]
fn a_codex_that_exits_with_zero_in_the_middle_of_a_turn_fails_it_with_what_it_said() {
    let scene = Scene::new();
    let session_id = scene.session();
    let turn = scene.stage.run(&session_id, "leave");
    assert_eq!((&turn["status"], &turn["assistant_text"]), (&json!("failed"), &json!("so far")));
    assert_eq!(turn["error"]["code"], "agent_exited", "{turn}");
    assert_eq!(scene.stage.run(&session_id, "and on")["assistant_text"], "answered");
    proof::log(&scene.stage.events(&session_id));
}
