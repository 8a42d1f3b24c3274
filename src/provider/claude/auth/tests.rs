//! The login's files, in folders of the test's own.

use super::*;
use gooselake_harness::temp::TempDir;

/// A data folder and a user's home, with these variables on top.
fn auth(folder: &TempDir, mode: ClaudeAuthMode, variables: &[(&str, &str)]) -> Auth {
    let home = folder.path().join("user").to_string_lossy().into_owned();
    Auth::new(&folder.path().join("data/providers"), mode, |name| {
        let set = variables.iter().find(|(other, _)| *other == name);
        set.map(|(_, value)| (*value).to_owned()).or((name == "HOME").then(|| home.clone()))
    })
}

fn import(auth: &Auth, json: &str) {
    auth.import(&Import::of_json(serde_json::from_str(json).unwrap()).unwrap()).unwrap();
}

fn read(folder: &TempDir, path: &str) -> String {
    fs::read_to_string(folder.path().join("data/providers/claude").join(path)).unwrap()
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

const CREDENTIALS: &str = r#"{"claudeAiOauth":{"accessToken":"secret-a"}}"#;

#[test]
fn an_import_is_taken_in_every_shape() {
    for (json, credentials, config) in [
        (
            r#"{"credentials_json":{"claudeAiOauth":{"accessToken":"a"}},"config_json":{"x":1}}"#,
            true,
            true,
        ),
        (r#"{"credentials":{"claudeAiOauth":{"accessToken":"a"}},"config":null}"#, true, false),
        (r#"{"config":{"x":1}}"#, false, true),
        (r#"{"token":" t "}"#, true, false),
        (CREDENTIALS, true, false),
        (r#"{"numStartups":3}"#, false, true),
    ] {
        let import = Import::of_json(serde_json::from_str(json).unwrap()).unwrap();
        let has = (import.credentials.is_some(), import.config.is_some());
        assert_eq!(has, (credentials, config), "{json}");
    }
    let token = Import::of_json(json!({"token": " t "})).unwrap().credentials.unwrap();
    assert_eq!(token["claudeAiOauth"]["accessToken"], "t");
    assert_eq!(token["claudeAiOauth"]["refreshToken"], "t");
}

#[test]
fn an_import_of_another_shape_names_the_field_and_no_value() {
    for (json, field) in [
        (r#"["secret"]"#, "auth_json"),
        (r#""secret""#, "auth_json"),
        ("{}", "auth_json"),
        (r#"{"credentials_json":"secret"}"#, "credentials_json"),
        (r#"{"config":["secret"]}"#, "config"),
        (r#"{"token":["secret"]}"#, "token"),
        (r#"{"token":"  "}"#, "token"),
        (r#"{"claudeAiOauth":"secret"}"#, "claudeAiOauth.accessToken"),
        (r#"{"credentials":{"accessToken":"secret"}}"#, "claudeAiOauth.accessToken"),
        (r#"{"claudeAiOauth":{"accessToken":7}}"#, "claudeAiOauth.accessToken"),
    ] {
        let error = Import::of_json(serde_json::from_str(json).unwrap()).unwrap_err();
        assert!(error.message.contains(field), "{json}: {error}");
        assert!(!error.to_string().contains("secret"), "{json}: {error}");
    }
}

#[test]
fn what_is_imported_lies_where_claude_looks_and_nobody_else_can_read_it() {
    let folder = TempDir::new("gg-claude-auth");
    let auth = auth(&folder, ClaudeAuthMode::RuntimeManaged, &[]);
    assert_eq!(auth.status().mode, None);
    import(
        &auth,
        r#"{"credentials":{"claudeAiOauth":{"accessToken":"secret-a"}},"config":{"x":1}}"#,
    );
    auth.set_api_key(" secret-k \n").unwrap();
    assert_eq!(read(&folder, "home/.claude/.credentials.json"), CREDENTIALS);
    assert_eq!(read(&folder, "config/.credentials.json"), CREDENTIALS);
    assert_eq!(read(&folder, "config/.claude.json"), r#"{"x":1}"#);
    assert_eq!(read(&folder, "config/api_key"), "secret-k");
    let root = folder.path().join("data/providers/claude");
    for (path, mode) in [
        ("", 0o700),
        ("config", 0o700),
        ("home", 0o700),
        ("config/api_key", 0o600),
        ("config/.claude.json", 0o600),
        ("home/.claude/.credentials.json", 0o600),
    ] {
        assert_eq!(mode_of(&root.join(path)), mode, "{path}");
    }
    let variables = auth.variables().unwrap();
    assert_eq!(variables["HOME"], root.join("home").to_string_lossy());
    assert_eq!(variables["CLAUDE_CONFIG_DIR"], root.join("config").to_string_lossy());
    assert_eq!(variables["ANTHROPIC_API_KEY"], "secret-k");
    let status = auth.status();
    assert_eq!((status.authenticated, status.mode), (true, Some("api_key")));
    assert!(!status.detail.contains("secret"), "{}", status.detail);
    auth.log_out().unwrap();
    auth.log_out().unwrap();
    assert_eq!(auth.status().mode, None);
    let left: Vec<_> = fs::read_dir(root.join("config")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn the_users_own_login_is_used_and_an_imported_one_where_there_is_none() {
    let folder = TempDir::new("gg-claude-auth");
    let auth = auth(&folder, ClaudeAuthMode::HostMachine, &[]);
    let user = folder.path().join("user");
    let config = folder.path().join("data/providers/claude/config");
    assert_eq!(auth.variables().unwrap(), one("HOME", &user));
    import(&auth, CREDENTIALS);
    assert_eq!(auth.status().mode, Some("claude_code_oauth"));
    assert_eq!(auth.variables().unwrap()["HOME"], user.to_string_lossy());
    assert_eq!(auth.variables().unwrap()["CLAUDE_CONFIG_DIR"], config.to_string_lossy());
    fs::create_dir_all(user.join(".claude")).unwrap();
    fs::write(user.join(".claude/.credentials.json"), CREDENTIALS).unwrap();
    assert_eq!(auth.variables().unwrap(), one("HOME", &user));
    auth.log_out().unwrap();
    assert_eq!(auth.status().mode, Some("claude_code_oauth"));
}

fn one(name: &str, path: &Path) -> BTreeMap<String, String> {
    BTreeMap::from([(name.to_owned(), path.to_string_lossy().into_owned())])
}

#[test]
fn variables_lead_claude_elsewhere_or_are_a_login_themselves() {
    let folder = TempDir::new("gg-claude-auth");
    let managed = ClaudeAuthMode::RuntimeManaged;
    let elsewhere = auth(&folder, managed, &[("GG_CLAUDE_BRIDGE_HOME", "/elsewhere")]);
    assert_eq!(elsewhere.variables().unwrap(), one("HOME", Path::new("/elsewhere")));
    assert!(elsewhere.status().detail.contains("bridge_override_active=true"));
    let named = [("GG_CLAUDE_BRIDGE_CLAUDE_CONFIG_DIR", "/dir")];
    let elsewhere = auth(&folder, managed, &named);
    assert_eq!(elsewhere.variables().unwrap()["CLAUDE_CONFIG_DIR"], "/dir");
    for (name, mode) in [
        ("ANTHROPIC_API_KEY", "api_key"),
        ("ANTHROPIC_AUTH_TOKEN", "claude_code_oauth"),
        ("CLAUDE_CODE_OAUTH_TOKEN", "claude_code_oauth"),
    ] {
        let status = auth(&folder, managed, &[(name, "secret")]).status();
        assert_eq!(status.mode, Some(mode));
        assert!(!status.detail.contains("secret"));
    }
    assert_eq!(auth(&folder, managed, &[("ANTHROPIC_API_KEY", "")]).status().mode, None);
}

#[test]
fn a_key_that_is_none_changes_nothing() {
    let folder = TempDir::new("gg-claude-auth");
    let auth = auth(&folder, ClaudeAuthMode::HostMachine, &[]);
    for key in ["", "  ", "two words", "line\nbreak", "naïve", "nul\0"] {
        let error = auth.set_api_key(key).unwrap_err();
        assert!(error.message.starts_with("api_key"), "{error}");
    }
    assert!(!folder.path().join("data/providers").exists());
}

#[test]
fn what_another_server_left_is_taken_over() {
    let folder = TempDir::new("gg-claude-auth");
    let auth = auth(&folder, ClaudeAuthMode::RuntimeManaged, &[]);
    let root = folder.path().join("data/providers/claude");
    fs::create_dir_all(root.join("home/.claude")).unwrap();
    fs::create_dir_all(root.join("config")).unwrap();
    fs::write(root.join("home/.claude/.credentials.json"), CREDENTIALS).unwrap();
    fs::write(root.join("config/.gg-new-7"), "secret").unwrap();
    auth.prepare().unwrap();
    auth.prepare().unwrap();
    assert_eq!(read(&folder, "config/.credentials.json"), CREDENTIALS);
    assert!(!root.join("config/.gg-new-7").exists());
    assert_eq!(mode_of(&root.join("config")), 0o700);
    assert_eq!(auth.status().mode, Some("claude_code_oauth"));
}

#[test]
fn what_fails_for_one_file_is_done_for_the_others() {
    let folder = TempDir::new("gg-auth");
    let auth = auth(&folder, ClaudeAuthMode::RuntimeManaged, &[]);
    import(&auth, CREDENTIALS);
    let (key, runtime) = (auth.key_path(), auth.runtime());
    let (credentials, (config, _)) = (runtime.credentials(), runtime.config());
    // A folder can not be removed as a file, nor replaced by one.
    fs::create_dir(&key).unwrap();
    let told = auth.log_out().unwrap_err().message;
    assert!(told.contains("api_key") && !credentials.exists(), "{told}");
    fs::create_dir(&config).unwrap();
    let both = r#"{"credentials_json":{"claudeAiOauth":{"accessToken":"a"}},"config_json":{}}"#;
    let both = Import::of_json(serde_json::from_str(both).unwrap()).unwrap();
    let told = auth.import(&both).unwrap_err().message;
    assert!(told.contains(".claude.json") && credentials.exists(), "{told}");
    let names = fs::read_dir(auth.config_dir()).unwrap().flatten();
    let is_new = |name: std::ffi::OsString| name.to_string_lossy().starts_with(NEW);
    assert!(!names.map(|entry| entry.file_name()).any(is_new), "nothing else is left");
}
