//! What the server knows of agents before a session: found, new enough, logged in; and what it does with that.

use crate::lab::{CLAUDE, CODEX, Lab, mode_of};
use crate::stage::{SOON, Stage, check_error, check_told};
use gooselake_harness::{proc, thread, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const CODEX_ON: &str = "[providers.codex]\n";

fn log_in(lab: &Lab) {
    fs::create_dir_all(lab.home().join(".codex")).unwrap();
    let login = r#"{"tokens":{"access_token":"secret-a","refresh_token":"secret-r"}}"#;
    fs::write(lab.home().join(".codex/auth.json"), login).unwrap();
}

#[test]
fn codex_tells_its_version_its_login_and_its_models_and_is_asked_once() {
    let lab = Lab::new(CODEX_ON, &[("codex", CODEX)], &[]);
    log_in(&lab);
    let codex = lab.provider("codex");
    assert_eq!(codex["display_name"], "Codex", "{codex}");
    assert_eq!((&codex["enabled"], &codex["ready"]), (&json!(true), &json!(true)), "{codex}");
    assert_eq!(codex["version"], "0.170.1");
    assert_eq!(codex["program"], lab.bin.path().join("codex").to_str().unwrap());
    assert_eq!((&codex["authenticated"], &codex["problem"]), (&json!(true), &Value::Null));
    let catalog = lab.stage.get("/v1/providers/Codex/models");
    let model = json!({
        "id": "m-one", "display_name": "One", "description": "The first.",
        "reasoning_levels": ["low", "high"], "is_default": true,
    });
    assert_eq!(catalog, json!({"provider": "codex", "models": [model], "source": "agent"}));
    let status = lab.stage.get("/v1/providers/codex/auth/status");
    assert_eq!(status, json!({"authenticated": true, "mode": "auth_json", "detail": "chatgpt"}));
    let health = lab.stage.get("/v1/diagnostics/providers");
    let health = health["providers"].as_array().unwrap()[0].clone();
    assert_eq!((&health["healthy"], &health["health_error"]), (&json!(true), &Value::Null));
    assert_eq!(health["auth_status"], status);
    let calls = lab.calls("codex");
    assert_eq!(calls.len(), 2, "one probe for all that was asked: {calls:?}");
    assert_eq!(calls[0], "--version");
    assert!(calls[1].ends_with("app-server"), "{calls:?}");
}

/// The program is asked with a copy of the login that can not be used up, and nobody else can read it.
#[test]
fn codex_is_asked_in_a_private_home() {
    let lab = Lab::new(CODEX_ON, &[("codex", CODEX)], &[]);
    log_in(&lab);
    fs::write(lab.home().join(".codex/config.toml"), "model = \"m-one\"\n").unwrap();
    assert_eq!(lab.provider("codex")["authenticated"], true);
    let home = lab.stage.server.data_dir().join("providers/codex/probe");
    assert_eq!(mode_of(&home), 0o700);
    assert_eq!(mode_of(&home.join("auth.json")), 0o600);
    assert_eq!(mode_of(&home.join("config.toml")), 0o600);
    let copy = fs::read_to_string(home.join("auth.json")).unwrap();
    assert!(copy.contains("secret-a") && !copy.contains("secret-r"), "{copy}");
    let own = fs::read_to_string(lab.home().join(".codex/auth.json")).unwrap();
    assert!(own.contains("secret-r"), "{own}");
    // A login that is gone leaves no copy.
    fs::remove_file(lab.home().join(".codex/auth.json")).unwrap();
    assert_eq!(lab.provider("codex")["authenticated"], false);
    assert!(!home.join("auth.json").exists());
}

/// Asks for a session that can not be, and looks whether anything is left of it.
fn check_refused(stage: &Stage, provider: &str, code: &str) -> String {
    let reply = stage.post_session(&json!({"provider": provider}), &[]);
    let told = check_error(&reply, 502, "agent_failed");
    let readiness = reply.json()["readiness"].clone();
    assert_eq!((&readiness["provider"], &readiness["problem"]), (&json!(provider), &json!(code)));
    assert!(told.contains(readiness["remedy"].as_str().unwrap()), "{told}");
    assert_eq!(stage.get("/v1/sessions"), json!([]));
    told
}

#[test]
fn a_program_that_is_missing_is_told_at_once_and_found_when_it_comes() {
    let lab = Lab::new(CODEX_ON, &[], &[]);
    let codex = lab.provider("codex");
    assert_eq!((&codex["ready"], &codex["program"]), (&json!(false), &Value::Null), "{codex}");
    assert_eq!(codex["problem"]["code"], "program_missing");
    let told = check_refused(&lab.stage, "codex", "program_missing");
    assert!(told.contains("\"codex\" is not on PATH"), "{told}");
    let catalog = lab.stage.get("/v1/providers/codex/models");
    assert_eq!(catalog["source"], "fixed");
    assert_eq!(catalog["models"].as_array().unwrap().len(), 7);
    assert_eq!(catalog["models"][0]["id"], "gpt-5.6-sol");
    assert_eq!(catalog["models"][0]["reasoning_levels"].as_array().unwrap().len(), 6);
    let health = lab.stage.get("/v1/diagnostics/providers");
    assert_eq!(health["providers"][0]["healthy"], false);
    log_in(&lab);
    lab.replace("codex", CODEX);
    assert_eq!(lab.provider("codex")["ready"], true);
}

#[test]
fn a_program_that_is_too_old_is_told_with_both_versions() {
    let old = "echo codex-cli 0.99.0";
    let lab = Lab::new(CODEX_ON, &[("codex", old)], &[]);
    let codex = lab.provider("codex");
    assert_eq!(codex["problem"]["code"], "program_too_old", "{codex}");
    assert_eq!(codex["version"], "0.99.0");
    let told = check_refused(&lab.stage, "codex", "program_too_old");
    assert!(told.contains("0.99.0") && told.contains("0.160.0"), "{told}");
    assert!(told.contains("npm install"), "{told}");
    check_told(&lab.stage.client.get("/v1/providers/codex/models"), 502, "agent_failed", "0.99.0");
    assert_eq!(lab.calls("codex"), ["--version"], "it is asked nothing more");
}

#[test]
fn a_login_that_is_missing_is_told_and_seen_when_it_comes() {
    let lab = Lab::new(CODEX_ON, &[("codex", CODEX)], &[]);
    let codex = lab.provider("codex");
    assert_eq!((&codex["ready"], &codex["authenticated"]), (&json!(false), &json!(false)));
    let told = check_refused(&lab.stage, "codex", "login_missing");
    assert!(told.contains("codex login"), "{told}");
    let status = lab.stage.get("/v1/providers/codex/auth/status");
    assert_eq!((&status["authenticated"], &status["mode"]), (&json!(false), &Value::Null));
    assert_eq!(lab.stage.get("/v1/providers/codex/models")["models"][0]["id"], "m-one");
    log_in(&lab);
    assert_eq!(lab.provider("codex")["ready"], true);
}

/// Nobody has asked yet: a session is tried as if nothing were known.
#[test]
fn what_is_not_known_refuses_nothing() {
    let lab = Lab::new(CODEX_ON, &[("codex", CODEX)], &[]);
    let body = json!({"provider": "codex", "wait": false});
    lab.stage.post_session(&body, &[]).expect(200);
}

/// A program that never answers, and has a child.
const HUNG: &str = "sleep 1000 & echo $! $$ > \"$HOME/pids\"; wait";

#[test]
fn a_program_that_hangs_is_ended_with_its_child_and_told() {
    let config = "[providers.codex]\nrequest_timeout_secs = 2\n";
    let lab = Lab::new(config, &[("codex", HUNG)], &[]);
    let codex = lab.provider("codex");
    assert_eq!(codex["problem"]["code"], "no_answer", "{codex}");
    assert!(codex["problem"]["message"].as_str().unwrap().contains("in time"), "{codex}");
    let home = format!("HOME={}", lab.home().display());
    let mut left = proc::with_environ(&home);
    left.retain(|pid| *pid != lab.stage.server.pid());
    proc::wait_gone(&left, SOON).unwrap();
    assert_eq!(lab.calls("codex").len(), 1);
}

/// While one waits for a program that hangs, all others are answered, and so is whoever stops the server.
#[test]
fn a_program_that_hangs_holds_up_nobody() {
    let config = "[providers.demo]\nenabled = true\n[providers.codex]\n";
    let mut lab = Lab::new(config, &[("codex", HUNG)], &[]);
    let client = lab.stage.client.clone();
    let asker = thread::spawn("asker", move || client.get("/v1/providers").expect(200).json());
    let pids = pids_in(&lab.home().join("pids"));
    lab.stage.get("/v1/version");
    let session_id = lab.stage.session();
    assert_eq!(lab.stage.run(&session_id, "say hello")["assistant_text"], "hello");
    // Diagnostics do not wait either: nothing known is no fault.
    let health = lab.stage.get("/v1/diagnostics");
    let codex = &health["providers"][0];
    assert_eq!((&codex["healthy"], &codex["checked_at"]), (&json!(true), &Value::Null), "{codex}");
    let list = asker.unwrap().join();
    let codex = &list["providers"].as_array().unwrap()[0];
    assert_eq!((&codex["kind"], &codex["ready"]), (&json!("codex"), &Value::Null), "{list}");
    let reply = lab.stage.client.get("/v1/providers/codex/models");
    check_told(&reply, 504, "agent_timeout", "try again");
    assert!(pids.iter().all(|pid| proc::alive(*pid)), "it still hangs after all of this");
    assert_eq!(lab.calls("codex").len(), 1, "asked once, though several asked");
    assert_eq!(lab.stage.server.terminate(), Some(0));
    proc::wait_gone(&pids, SOON).unwrap();
}

fn pids_in(file: &Path) -> Vec<u32> {
    let text = wait::until(SOON, "the program runs", || {
        fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))
    });
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

#[test]
fn answers_that_are_none_are_told_with_the_programs_last_words() {
    // These tell their version and then no more.
    let after_version =
        |then: &str| format!("case \"$*\" in *--version*) echo codex 1.0.0; exit;; esac\n{then}");
    let garbage =
        after_version("echo garbage; echo '{\"id\":\"x\"}'; echo my last words >&2; exit 7");
    let flood = after_version("exec yes");
    for (script, part) in [
        ("echo what is this", "tells no version"),
        ("exit 3", "exit status: 3"),
        (&garbage, "my last words"),
        (&flood, "more than any answer has"),
    ] {
        let lab = Lab::new(CODEX_ON, &[("codex", script)], &[]);
        let problem = lab.provider("codex")["problem"].clone();
        assert_eq!(problem["code"], "no_answer", "{script}: {problem}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(part), "{part:?} is awaited in {message:?}");
        check_told(&lab.stage.client.get("/v1/providers/codex/models"), 502, "agent_failed", part);
        let health = lab.stage.get("/v1/diagnostics/providers");
        let health = &health["providers"][0];
        assert_eq!(health["healthy"], false, "{health}");
        assert!(health["auth_error"].as_str().unwrap().contains(part), "{health}");
    }
}

#[test]
fn claude_is_asked_through_its_bridge() {
    let bridge = format!("echo a wrapper says something\necho '{CLAUDE}'");
    let scripts = [("claude", "exit 1"), ("claude-bridge", bridge.as_str())];
    let lab = Lab::new("[providers.claude]\n", &scripts, &[]);
    let claude = lab.provider("claude");
    assert_eq!((&claude["ready"], &claude["version"]), (&json!(true), &json!("2.1.330")));
    assert_eq!(
        (&claude["program"], &claude["minimum_version"]),
        (&json!("/opt/claude"), &json!("2.1.0"))
    );
    let catalog = lab.stage.get("/v1/providers/claude/models");
    assert_eq!(catalog["models"][0]["id"], "opus");
    assert_eq!(catalog["models"][0]["display_name"], "Opus");
    assert_eq!(catalog["models"][0]["reasoning_levels"], json!(["low", "max"]));
    let status = lab.stage.get("/v1/providers/claude/auth/status");
    assert_eq!(status["authenticated"], true, "the program knows a login that no file shows");
    assert_eq!(status["mode"], "claude_code_oauth");
    let program = lab.bin.path().join("claude");
    let called = format!("probe --claude {}", program.display());
    assert_eq!(lab.calls("claude-bridge"), [called]);
    assert_eq!(lab.calls("claude"), Vec::<String>::new());
}

#[test]
fn what_the_bridge_finds_wrong_is_told() {
    let with_error = |code: &str| {
        format!(
            "echo '{{\"program\":null,\"version\":null,\"minimum_version\":\"2.1.0\",\"models\":[],\
             \"account\":null,\"logged_in\":null,\"auth_method\":null,\"error\":{{\"code\":\"{code}\",\
             \"message\":\"it is {code}\",\"hint\":\"do this\"}}}}'; exit 1"
        )
    };
    let logged_out =
        format!("echo '{}'", CLAUDE.replace("\"logged_in\":true", "\"logged_in\":false"));
    for (bridge, code, part) in [
        (with_error("program_too_old"), "program_too_old", "it is program_too_old"),
        (with_error("no_answer"), "no_answer", "it is no_answer"),
        (logged_out, "login_missing", "not logged in"),
        ("echo '{\"models\":5}'".to_owned(), "no_answer", "another form"),
        ("echo nothing; exit 4".to_owned(), "no_answer", "exit status: 4"),
    ] {
        let scripts = [("claude", ""), ("claude-bridge", bridge.as_str())];
        let lab = Lab::new("[providers.claude]\n", &scripts, &[]);
        let problem = lab.provider("claude")["problem"].clone();
        assert_eq!(problem["code"], code, "{problem}");
        let message = problem["message"].as_str().unwrap();
        assert!(message.contains(part), "{part:?} is awaited in {message:?}");
        if code != "no_answer" {
            check_refused(&lab.stage, "claude", code);
        }
    }
    let lab = Lab::new("[providers.claude]\n", &[], &[]);
    check_refused(&lab.stage, "claude", "program_missing");
    assert_eq!(lab.stage.get("/v1/providers/claude/models")["source"], "fixed");
}

#[test]
fn agents_that_are_asked_nothing_are_looked_up() {
    let config = "[providers.demo]\nenabled = true\n\
        [providers.acp]\ncommand = \"sh\"\n\
        [providers.acp.agents.gone]\ntitle = \"Gone\"\ncommand = \"/nowhere/agent\"\n";
    let stage = Stage::with_config(config);
    let list = stage.get("/v1/providers");
    let providers = list["providers"].as_array().unwrap();
    let names: Vec<&str> =
        providers.iter().map(|provider| provider["display_name"].as_str().unwrap()).collect();
    assert_eq!(names, ["ACP", "Demo"]);
    assert_eq!((&providers[0]["ready"], &providers[1]["ready"]), (&json!(true), &json!(true)));
    let gone = providers[0]["agents"].as_array().unwrap().iter().find(|a| a["name"] == "gone");
    assert_eq!(gone.unwrap()["problem"]["code"], "program_missing", "{list}");
    let reply = stage.post_session(&json!({"provider": "acp", "agent": "gone"}), &[]);
    check_told(&reply, 502, "agent_failed", "/nowhere/agent");
    assert_eq!(stage.get("/v1/sessions"), json!([]));
    for (path, status) in [("demo", 200), ("acp", 200), (" ACP ", 200), ("codex", 404), ("x", 400)]
    {
        let path = path.replace(' ', "%20");
        let reply = stage.client.get(&format!("/v1/providers/{path}/auth/status"));
        assert_eq!(reply.status, status, "{reply}");
    }
    let status = stage.get("/v1/providers/acp/auth/status");
    assert_eq!(
        (&status["authenticated"], &status["mode"]),
        (&json!(false), &json!("agent_managed"))
    );
    assert_eq!(stage.get("/v1/providers/acp/models")["models"], json!([]));
}
