//! The routes that give Claude a login, and take it away: files, shapes, forms, secrets, and agents that start anew.

use crate::lab::{CLAUDE, Lab, mode_of};
use crate::stage::{JSON, check_error, check_told, text};
use gooselake_harness::client::Reply;
use gooselake_harness::server::program;
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;

const CLAUDE_ON: &str = "[providers]\nclaude_auth_mode = \"runtime_managed\"\n\
    [providers.claude]\n[providers.demo]\nenabled = true\n";
const ROUTE: &str = "/v1/providers/claude/auth";
const SECRET: &str = "sk-secret-5150";

/// A server whose bridge says what it was given, and is the demo agent when it is asked for an agent.
fn lab() -> Lab {
    lab_with(CLAUDE_ON, &[])
}

fn lab_with(config: &str, env: &[(&str, &str)]) -> Lab {
    let agent = program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let bridge = format!(
        "echo \"${{1:-agent}} key=${{ANTHROPIC_API_KEY:-none}} dir=$CLAUDE_CONFIG_DIR\" >> \"$(dirname \"$0\")/seen\"
         case \"$*\" in probe*) echo '{CLAUDE}'; exit;; esac
         GG_DEMO_STATE_DIR=\"$(dirname \"$0\")/state\" exec '{}'",
        agent.display()
    );
    Lab::new(config, &[("claude", &bridge), ("claude-bridge", &bridge)], env)
}

fn folder(lab: &Lab) -> PathBuf {
    lab.stage.server.data_dir().join("providers/claude")
}

fn post(lab: &Lab, route: &str, body: &Value) -> Reply {
    lab.stage.client.post(&format!("{ROUTE}/{route}"), body)
}

fn log_out(lab: &Lab) -> Value {
    let path = format!("{ROUTE}/logout");
    lab.stage.client.request("POST", &path, &[], b"").expect(200).json()
}

/// Everything that the server shows and keeps, but for the login's own folder.
fn check_untold(lab: &Lab, secret: &str) {
    for path in ["/v1/events", "/v1/providers", "/v1/diagnostics", "/v1/sessions"] {
        let told = lab.stage.client.get(path).expect(200).text();
        assert!(!told.contains(secret), "{path} tells the secret: {told}");
    }
    let status = lab.stage.client.get(&format!("{ROUTE}/status")).expect(200).text();
    assert!(!status.contains(secret), "{status}");
    let log = lab.stage.server.stderr_text();
    assert!(!log.contains(secret), "the log tells the secret: {log}");
    for name in ["claude", "claude-bridge"] {
        assert!(!lab.calls(name).iter().any(|call| call.contains(secret)), "in the arguments");
    }
    for entry in fs::read_dir(lab.stage.server.data_dir()).unwrap() {
        let path = entry.unwrap().path();
        let bytes = if path.is_file() { fs::read(&path).unwrap() } else { Vec::new() };
        let is_in = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!is_in, "{} holds the secret", path.display());
    }
}

#[test]
fn a_key_is_kept_used_and_told_to_nobody() {
    let lab = lab();
    assert_eq!(mode_of(&folder(&lab)), 0o700);
    let status = post(&lab, "api-key", &json!({"api_key": format!(" {SECRET}\n")})).expect(200);
    assert_eq!(status.json()["authenticated"], true);
    assert_eq!(status.json()["mode"], "api_key");
    assert!(!status.text().contains(SECRET), "{status}");
    let file = folder(&lab).join("config/api_key");
    assert_eq!(fs::read_to_string(&file).unwrap(), SECRET);
    assert_eq!((mode_of(&file), mode_of(file.parent().unwrap())), (0o600, 0o700));
    let claude = lab.provider("claude");
    assert_eq!(claude["ready"], true, "{claude}");
    let session = lab.stage.create(&json!({"provider": "claude", "mode": "auto"}));
    let turn = lab.stage.run(&text(&session, "id"), "say used");
    assert_eq!(turn["assistant_text"], "used", "{turn}");
    let seen = fs::read_to_string(lab.bin.path().join("seen")).unwrap();
    let dir = folder(&lab).join("config");
    let expected = format!("key={SECRET} dir={}", dir.display());
    assert_eq!(
        seen.lines().collect::<Vec<_>>(),
        [format!("probe {expected}"), format!("agent {expected}")]
    );
    check_untold(&lab, SECRET);
    let status = log_out(&lab);
    assert_eq!((&status["authenticated"], &status["mode"]), (&json!(false), &Value::Null));
    assert!(!file.exists());
}

#[test]
fn an_import_is_taken_in_every_shape_and_written_where_it_belongs() {
    let lab = lab();
    let credentials =
        json!({"claudeAiOauth": {"accessToken": SECRET, "scopes": ["user:inference"]}});
    let whole = json!({"credentials_json": credentials, "config_json": {"a": 1}});
    let token = json!({"token": SECRET}).to_string();
    for (body, has_credentials, has_config) in [
        (json!({"auth_json": whole}), true, true),
        (json!({"auth_json": credentials}), true, false),
        (json!({"auth_json": {"credentials": credentials}}), true, false),
        (json!({"auth_json": {"config": {"a": 1}}}), false, true),
        (json!({"auth_json": {"numStartups": 1}}), false, true),
        (json!({"auth_json_text": token}), true, false),
        (json!({"auth_json": {"a": 1}, "auth_json_text": token}), false, true),
    ] {
        let status = post(&lab, "import-json", &body).expect(200).json();
        assert_eq!(status["authenticated"], has_credentials, "{body}: {status}");
        let mode = if has_credentials { json!("claude_code_oauth") } else { Value::Null };
        assert_eq!(status["mode"], mode, "{body}: {status}");
        let credentials = folder(&lab).join("home/.claude/.credentials.json");
        let config = folder(&lab).join("config/.claude.json");
        let has = (credentials.exists(), config.exists());
        assert_eq!(has, (has_credentials, has_config), "{body}");
        if has_credentials {
            assert_eq!(mode_of(&credentials), 0o600);
            assert!(fs::read_to_string(&credentials).unwrap().contains(SECRET));
        }
        check_untold(&lab, SECRET);
        log_out(&lab);
    }
}

#[test]
fn a_mistake_is_named_without_the_secret_and_changes_nothing() {
    let lab = lab();
    let key = |value: Value| json!({"api_key": value});
    for (route, body, part) in [
        ("api-key", json!({}), "api_key"),
        ("api-key", key(json!("  ")), "api_key"),
        ("api-key", key(json!([SECRET])), "api_key"),
        ("api-key", key(json!(format!("{SECRET} x"))), "api_key"),
        ("api-key", json!(SECRET), "object"),
        ("api-key", json!([SECRET]), "object"),
        ("api-key", json!({"api_kee": SECRET}), "api_kee"),
        ("import-json", json!({}), "auth_json"),
        ("import-json", json!({"auth_json": null}), "auth_json"),
        ("import-json", json!({"auth_json": [SECRET]}), "auth_json"),
        ("import-json", json!({"auth_json": SECRET}), "auth_json"),
        ("import-json", json!({"auth_json": {}}), "auth_json"),
        ("import-json", json!({"auth_json_text": 5}), "auth_json_text"),
        ("import-json", json!({"auth_json_text": format!("{{{SECRET}")}), "auth_json_text"),
        ("import-json", json!({"auth_json": {"claudeAiOauth": SECRET}}), "accessToken"),
        ("import-json", json!({"auth_json": {"credentials_json": SECRET}}), "credentials_json"),
    ] {
        let reply = post(&lab, route, &body);
        let told = check_error(&reply, 400, "bad_request");
        assert!(told.contains(part), "{part:?} is awaited in {told:?}");
        assert!(!reply.text().contains(SECRET), "{reply}");
    }
    let left: Vec<_> = fs::read_dir(folder(&lab).join("config")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    check_untold(&lab, SECRET);
    let anonymous = lab.stage.anonymous();
    for route in ["api-key", "import-json", "logout"] {
        let reply = anonymous.post(&format!("{ROUTE}/{route}"), &json!({}));
        check_error(&reply, 401, "unauthorized");
    }
    let without = Lab::new("[providers.demo]\nenabled = true\n", &[], &[]);
    check_told(&post(&without, "api-key", &key(json!("x"))), 404, "not_found", "claude");
}

fn post_form(lab: &Lab, content_type: &str, body: &[u8]) -> Reply {
    let headers = [("Content-Type", content_type)];
    lab.stage.client.request("POST", &format!("{ROUTE}/import-file"), &headers, body)
}

const FORM: &str = "multipart/form-data; boundary=edge";

fn form(head: &str, content: &str) -> String {
    format!(
        "--edge\r\nContent-Disposition: form-data; name=note\r\n\r\nskipped\r\n\
         --edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.json\"\r\n{head}\r\n\
         {content}\r\n--edge--\r\n"
    )
}

#[test]
fn a_file_is_imported_from_a_form() {
    let lab = lab();
    let content = json!({"token": SECRET}).to_string();
    let body = form("Content-Type: application/json\r\n", &content);
    let status = post_form(&lab, FORM, body.as_bytes()).expect(200).json();
    assert_eq!(status["mode"], "claude_code_oauth", "{status}");
    let file = folder(&lab).join("config/.credentials.json");
    assert!(fs::read_to_string(file).unwrap().contains(SECRET));
    check_untold(&lab, SECRET);
}

#[test]
fn a_hostile_form_is_refused_and_changes_nothing() {
    let lab = lab();
    let content = json!({"token": SECRET}).to_string();
    let good = form("", &content);
    let cut = good.trim_end().trim_end_matches("--edge--");
    let nested = form("Content-Type: multipart/mixed; boundary=inner\r\n", "--inner--");
    let utf16 = form("Content-Type: application/json; charset=utf-16\r\n", &content);
    let base64 = form("Content-Transfer-Encoding: base64\r\n", "e30=");
    let other = good.replace("name=\"file\"", "name=\"path\"");
    let twice = good.replace("name=note", "name=file");
    let long_head = form(&format!("X: {}\r\n", "x".repeat(5000)), &content);
    for (content_type, body, part) in [
        ("multipart/form-data", good.as_str(), "boundary"),
        ("multipart/form-data; boundary=", &good, "boundary"),
        ("multipart/form-data; boundary=other", &good, "boundary"),
        (FORM, "", "boundary"),
        (FORM, cut, "closing boundary"),
        (FORM, &nested, "multipart/mixed"),
        (FORM, &utf16, "utf-16"),
        (FORM, &base64, "base64"),
        (FORM, &other, "no field \"file\""),
        (FORM, &twice, "two fields"),
        (FORM, &long_head, "head"),
        (FORM, &form("", "no json"), "file is no JSON"),
        (FORM, &form("", "[]"), "object"),
        (FORM, &form("", ""), "file is no JSON"),
    ] {
        let reply = post_form(&lab, content_type, body.as_bytes());
        let told = check_error(&reply, 400, "bad_request");
        assert!(told.contains(part), "{part:?} is awaited in {told:?}");
        assert!(!told.contains(SECRET), "{told}");
    }
    let latin: Vec<u8> = form("", "?").bytes().map(|b| if b == b'?' { 0xff } else { b }).collect();
    check_told(&post_form(&lab, FORM, &latin), 400, "bad_request", "UTF-8");
    let huge = form("", &"x".repeat(1024 * 1024));
    check_error(&post_form(&lab, FORM, huge.as_bytes()), 413, "payload_too_large");
    let fields = "--edge\r\nContent-Disposition: form-data; name=a\r\n\r\n\r\n".repeat(17);
    let many = format!("{fields}--edge--");
    check_error(&post_form(&lab, FORM, many.as_bytes()), 413, "payload_too_large");
    check_error(&post_form(&lab, JSON.1, b"{}"), 415, "unsupported_media_type");
    check_error(
        &post_form(&lab, "multipart/mixed; boundary=edge", b""),
        415,
        "unsupported_media_type",
    );
    let left: Vec<_> = fs::read_dir(folder(&lab).join("config")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    check_untold(&lab, SECRET);
}

#[test]
fn the_status_says_which_login_is_looked_at() {
    let lab = lab_with("[providers.claude]\n", &[("GG_CLAUDE_AUTH_MODE", "runtime-managed")]);
    let status = post(&lab, "import-json", &json!({"auth_json": {"token": SECRET}})).expect(200);
    let detail = text(&status.json(), "detail");
    let pairs: Vec<(&str, &str)> =
        detail.split(' ').map(|pair| pair.split_once('=').unwrap()).collect();
    let names: Vec<&str> = pairs.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "auth_mode",
            "runtime_credentials_path",
            "runtime_config_path",
            "runtime_config_source",
            "runtime_credentials_present",
            "runtime_config_present",
            "runtime_oauth_ready",
            "bridge_credentials_path",
            "bridge_config_path",
            "bridge_config_source",
            "bridge_credentials_present",
            "bridge_config_present",
            "bridge_oauth_ready",
            "bridge_override_active",
            "api_key_present",
        ]
    );
    let value = |name: &str| pairs.iter().find(|(other, _)| *other == name).unwrap().1;
    assert_eq!(value("auth_mode"), "runtime_managed", "the variable is stronger than the file");
    let credentials = folder(&lab).join("home").join(".claude/.credentials.json");
    assert_eq!(value("runtime_credentials_path"), credentials.to_str().unwrap());
    assert_eq!((value("runtime_oauth_ready"), value("bridge_oauth_ready")), ("true", "true"));
    assert_eq!((value("api_key_present"), value("bridge_config_present")), ("false", "false"));
}

/// An idle agent rests at once, a busy one when its turn has ended, and each next turn has an agent that was started
/// with the new login.
#[test]
fn a_change_of_the_login_starts_agents_anew_before_their_next_turn() {
    let lab = lab();
    let stage = &lab.stage;
    let claude = |title: &str| {
        let fields = json!({"provider": "claude", "mode": "auto", "title": title});
        text(&stage.create(&fields), "id")
    };
    let (idle, busy) = (claude("idle"), claude("busy"));
    let other = stage.session();
    stage.run(&idle, "say before");
    let turn_id = stage.start(&busy, "slow 1000 20");
    let queued = stage.queue(&busy, "say after");
    post(&lab, "api-key", &json!({"api_key": SECRET})).expect(200);
    stage.event(&idle, "agent.slept", 0);
    assert_eq!(stage.run(&idle, "history")["assistant_text"], "1: say before");
    assert_eq!(stage.record(&busy)["active_turn_id"], turn_id, "a busy agent is left alone");
    stage.interrupt(&busy, &turn_id).expect(202);
    assert_eq!(stage.ended(&busy, &turn_id)["status"], "interrupted");
    assert_eq!(stage.ended(&busy, &queued)["assistant_text"], "after");
    let kinds: Vec<String> = stage
        .events(&busy)
        .into_iter()
        .map(|event| event.kind)
        .filter(|kind| kind.starts_with("agent.") || kind == "turn.completed")
        .collect();
    assert_eq!(
        kinds,
        ["agent.started", "agent.slept", "agent.started", "agent.woken", "turn.completed"]
    );
    let seen = fs::read_to_string(lab.bin.path().join("seen")).unwrap();
    let agents: Vec<bool> = seen
        .lines()
        .filter(|line| line.starts_with("agent "))
        .map(|line| line.contains(SECRET))
        .collect();
    assert_eq!(agents, [false, false, true, true], "{seen}");
    assert_eq!(stage.record(&other)["live"], true, "agents of others go on");
    // A session that sleeps is not woken for it.
    let seq = stage.events(&busy).last().unwrap().seq;
    log_out(&lab);
    stage.event(&busy, "agent.slept", seq);
    assert_eq!(stage.record(&busy)["live"], false);
    post(&lab, "api-key", &json!({"api_key": SECRET})).expect(200);
    let started = stage.events(&busy).into_iter().filter(|event| event.kind == "agent.started");
    assert_eq!(started.count(), 2);
}

/// It may have changed the login before it failed.
#[test]
fn a_change_of_the_login_that_fails_starts_agents_anew_all_the_same() {
    let lab = lab();
    let stage = &lab.stage;
    let session_id = text(&stage.create(&json!({"provider": "claude", "mode": "auto"})), "id");
    stage.run(&session_id, "say before");
    // What is refused changes nothing, so it starts nothing anew.
    let seq = stage.events(&session_id).last().unwrap().seq;
    check_error(&post(&lab, "api-key", &json!({"api_key": " "})), 400, "bad_request");
    assert_eq!(stage.record(&session_id)["live"], true);
    // A folder can not be removed as a file.
    fs::create_dir(folder(&lab).join("config/api_key")).unwrap();
    let path = format!("{ROUTE}/logout");
    let reply = stage.client.request("POST", &path, &[], b"");
    check_told(&reply, 500, "internal", "api_key");
    stage.event(&session_id, "agent.slept", seq);
}
