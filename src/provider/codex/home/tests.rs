//! Tests of the private folder, on real files.

use super::*;
use crate::config::ClaudeAuthMode;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// A user with a home, and a data folder beside it.
struct Scene {
    root: PathBuf,
}

impl Drop for Scene {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.root));
    }
}

impl Scene {
    fn new() -> Scene {
        let root = std::env::temp_dir().join(crate::model::id::new("gg-codex-home"));
        fs::create_dir_all(root.join("user/.codex")).unwrap();
        fs::create_dir_all(root.join("user/.gg/codex")).unwrap();
        Scene { root }
    }

    fn write(&self, path: &str, text: &str, age_secs: u64) -> PathBuf {
        let path = self.root.join(path);
        fs::write(&path, text).unwrap();
        let time = SystemTime::now() - Duration::from_secs(age_secs);
        File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
        path
    }

    fn stage(&self, session_id: &str, more: &[(&str, &str)]) -> Result<Staged> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let home = self.root.join("user").to_string_lossy().into_owned();
        let mut given = BTreeMap::from([("HOME".to_owned(), home)]);
        given.extend(more.iter().map(pair));
        let data = self.root.join("data/providers");
        let claude_auth_mode = ClaudeAuthMode::HostMachine;
        let staging = Staging { providers_dir: &data, session_id, given: &given, claude_auth_mode };
        let mut env = BTreeMap::new();
        let arguments = stage(&staging, &mut env)?;
        Ok(Staged { env, arguments })
    }

    fn login(&self, session_id: &str) -> Option<String> {
        let path = format!("data/providers/codex/sessions/{session_id}/auth.json");
        fs::read_to_string(self.root.join(path)).ok()
    }

    fn staged(&self) -> Option<String> {
        let folder = self.root.join("data/providers/codex");
        fs::read_to_string(folder.join("home").join(LOGIN)).ok()
    }
}

struct Staged {
    env: BTreeMap<String, String>,
    arguments: Vec<String>,
}

fn token(account: &str, token: &str) -> String {
    let tokens = json!({"account_id": account, "access_token": token});
    json!({"auth_mode": "chatgpt", "tokens": tokens}).to_string()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_session_has_a_folder_of_its_own_with_a_copy_of_the_users_files() {
    let scene = Scene::new();
    scene.write("user/.codex/auth.json", &token("a", "1"), 100);
    scene.write("user/.codex/config.toml", "model = \"m\"\n", 100);
    let staged = scene.stage("sess_1", &[]).unwrap();
    let home = PathBuf::from(&staged.env["CODEX_HOME"]);
    assert!(home.ends_with("data/providers/codex/sessions/sess_1"), "{home:?}");
    assert_eq!(mode(&home), 0o700);
    for file in ["auth.json", "config.toml"] {
        assert_eq!(mode(&home.join(file)), 0o600, "{file}");
    }
    assert_eq!(fs::read_to_string(home.join("config.toml")).unwrap(), "model = \"m\"\n");
    assert_eq!(scene.login("sess_1"), Some(token("a", "1")));
    // The data folder of this test lies under the temporary folder, which Codex would refuse.
    let temporary = PathBuf::from(&staged.env["TMPDIR"]);
    assert!(!home.starts_with(&temporary) && temporary.is_dir(), "{temporary:?}");

    fs::remove_file(scene.root.join("user/.codex/config.toml")).unwrap();
    scene.stage("sess_1", &[]).unwrap();
    assert!(!home.join("config.toml").exists(), "the copy follows the user's file");
}

#[test]
fn the_servers_own_login_goes_before_the_users() {
    let scene = Scene::new();
    scene.write("user/.codex/auth.json", &token("a", "users"), 10);
    scene.write("user/.gg/codex/auth.json", &token("a", "servers"), 100);
    scene.stage("sess_1", &[]).unwrap();
    assert_eq!(scene.login("sess_1"), Some(token("a", "servers")));
}

#[test]
fn renewed_tokens_flow_to_the_staged_file_and_to_later_sessions_and_nowhere_else() {
    let scene = Scene::new();
    let users = scene.write("user/.codex/auth.json", &token("a", "1"), 100);
    scene.stage("sess_1", &[]).unwrap();
    scene.stage("sess_2", &[]).unwrap();
    scene.write("data/providers/codex/sessions/sess_1/auth.json", &token("a", "2"), 50);
    scene.stage("sess_3", &[]).unwrap();
    assert_eq!(scene.staged(), Some(token("a", "2")));
    assert_eq!(scene.login("sess_3"), Some(token("a", "2")));
    assert_eq!(scene.login("sess_2"), Some(token("a", "1")), "a running Codex is left alone");
    assert_eq!(fs::read_to_string(&users).unwrap(), token("a", "1"));
    scene.stage("sess_2", &[]).unwrap();
    assert_eq!(scene.login("sess_2"), Some(token("a", "2")));
}

#[test]
fn the_newest_login_of_the_user_wins_over_another_accounts_renewal() {
    let scene = Scene::new();
    scene.write("user/.codex/auth.json", &token("a", "1"), 100);
    scene.stage("sess_1", &[]).unwrap();
    scene.write("user/.codex/auth.json", &token("b", "1"), 50);
    scene.stage("sess_2", &[]).unwrap();
    assert_eq!(scene.staged(), Some(token("b", "1")));
    scene.write("data/providers/codex/sessions/sess_1/auth.json", &token("a", "9"), 10);
    scene.stage("sess_3", &[]).unwrap();
    assert_eq!(scene.login("sess_3"), Some(token("b", "1")));
}

#[test]
fn a_purge_takes_the_folder_and_keeps_what_was_renewed() {
    let scene = Scene::new();
    scene.write("user/.codex/auth.json", &token("a", "1"), 100);
    scene.stage("sess_1", &[]).unwrap();
    scene.write("data/providers/codex/sessions/sess_1/auth.json", &token("a", "2"), 50);
    unstage(&scene.root.join("data/providers"), "sess_1").unwrap();
    assert_eq!(scene.staged(), Some(token("a", "2")));
    assert_eq!(scene.login("sess_1"), None);
    assert!(!scene.root.join("data/providers/codex/tmp/sess_1").exists());
    unstage(&scene.root.join("data/providers"), "sess_1").unwrap();
}

#[test]
fn a_key_becomes_a_login_where_there_is_none() {
    let scene = Scene::new();
    scene.stage("sess_1", &[("OPENAI_API_KEY", "k-1")]).unwrap();
    assert!(scene.login("sess_1").unwrap().contains("k-1"));
    assert_eq!(scene.staged(), None, "it is the variable's, not a login of the user");
    scene.write("user/.codex/auth.json", &token("a", "1"), 100);
    scene.stage("sess_1", &[("OPENAI_API_KEY", "k-1")]).unwrap();
    assert_eq!(scene.login("sess_1"), Some(token("a", "1")));
}

#[test]
fn what_the_user_has_set_is_left_and_the_rest_is_told() {
    let scene = Scene::new();
    let all = scene.stage("sess_1", &[]).unwrap().arguments;
    assert!(all.contains(&"features.plugins=false".to_owned()), "{all:?}");
    scene.write("user/.codex/config.toml", "[features]\nplugins = true\n", 1);
    let some = scene.stage("sess_1", &[]).unwrap().arguments;
    assert!(!some.iter().any(|word| word.starts_with("features.plugins")), "{some:?}");
    assert!(some.contains(&"features.unbounded_connection_retries=false".to_owned()));
}

#[test]
fn a_model_provider_without_its_key_and_a_broken_file_are_errors_with_a_remedy() {
    let scene = Scene::new();
    let config = "model_provider = \"x\"\n[model_providers.x]\nenv_key = \"GG_TEST_NO_KEY\"\n";
    scene.write("user/.codex/config.toml", config, 1);
    let error = scene.stage("sess_1", &[]).err().unwrap().to_string();
    assert!(error.contains("GG_TEST_NO_KEY") && error.contains("[providers.codex.env]"), "{error}");
    scene.stage("sess_1", &[("GG_TEST_NO_KEY", "k")]).unwrap();
    scene.write("user/.codex/config.toml", "model = [", 1);
    let error = scene.stage("sess_1", &[]).err().unwrap().to_string();
    assert!(error.contains("config.toml"), "{error}");
}

#[test]
fn a_home_that_the_configuration_names_is_used_as_it_is() {
    let scene = Scene::new();
    scene.write("user/.codex/auth.json", &token("a", "1"), 100);
    let own = scene.root.join("own");
    fs::create_dir(&own).unwrap();
    let staged = scene.stage("sess_1", &[("CODEX_HOME", own.to_str().unwrap())]).unwrap();
    assert!(!staged.env.contains_key("CODEX_HOME"), "what is given stands");
    assert_eq!(fs::read_dir(&own).unwrap().count(), 0);
    assert_eq!(scene.login("sess_1"), None);
}
