//! Claude's login: the files that the server keeps for it, and which login its agents use.
//!
//! Owns: `claude/` under `data.providers_dir`, in the layout that other tools know: `config/api_key`,
//! `config/.claude.json` and `home/.claude/.credentials.json`. The `claude` program looks for its credentials in
//! CLAUDE_CONFIG_DIR when that is set, so `home/.claude` is a link to `config` and both paths are one file. Runs on
//! whatever thread asks; no lock: a file is replaced whole, by rename, so a reader sees the old one or the new.
//!
//! Promises: folders are 0700 and files 0600 from their first byte; what is in them is in no log, no error and no
//! answer. It deliberately starts nothing and asks no server whether a login still holds.

use crate::config::{ClaudeAuthMode, Config};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of a file that is being written; what a killed server leaves of it is removed at the next start.
const NEW: &str = ".gg-new-";

/// Claude's login on this machine.
pub struct Auth {
    /// `claude` under `data.providers_dir`.
    folder: PathBuf,
    mode: ClaudeAuthMode,
    /// Variables of the server, as far as they matter here.
    variables: BTreeMap<&'static str, String>,
}

/// The variables that decide where Claude looks, and those that are a login themselves.
const VARIABLES: &[&str] = &[
    "HOME",
    "CLAUDE_CONFIG_DIR",
    "GG_CLAUDE_BRIDGE_HOME",
    "GG_CLAUDE_BRIDGE_CLAUDE_CONFIG_DIR",
    "ANTHROPIC_API_KEY",
    "ANTHROPIC_AUTH_TOKEN",
    "CLAUDE_CODE_OAUTH_TOKEN",
];

/// Where one set of Claude's files is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    home: PathBuf,
    config_dir: Option<PathBuf>,
}

/// What is known of the login from files and variables alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub authenticated: bool,
    /// `api_key`, `claude_code_oauth`; None = there is none.
    pub mode: Option<&'static str>,
    /// One line of `key=value` pairs; no secret in it.
    pub detail: String,
}

/// A login that a client brings, checked and taken apart.
#[derive(Debug)]
pub struct Import {
    credentials: Option<Value>,
    config: Option<Value>,
}

impl Import {
    /// Takes `{credentials_json, config_json}` (or without `_json`), `{token}`, a bare credentials file (it has
    /// `claudeAiOauth`), or any other object, which is a bare configuration file. Errors name the field, never a value.
    pub fn of_json(value: Value) -> Result<Import> {
        let Value::Object(mut object) = value else {
            return Err(Error::bad_request("auth_json must be an object"));
        };
        if object.is_empty() {
            return Err(Error::bad_request("auth_json is empty").hint(
                "send credentials_json, config_json or token, or one of Claude's own files",
            ));
        }
        let credentials = take(&mut object, ["credentials_json", "credentials"])?;
        let config = take(&mut object, ["config_json", "config"])?;
        let import = if credentials.is_some() || config.is_some() {
            Import { credentials, config }
        } else if let Some(token) = object.get("token") {
            Import { credentials: Some(credentials_of(token)?), config: None }
        } else if object.contains_key("claudeAiOauth") {
            Import { credentials: Some(Value::Object(object)), config: None }
        } else {
            Import { credentials: None, config: Some(Value::Object(object)) }
        };
        if import.credentials.as_ref().is_some_and(|credentials| !has_access_token(credentials)) {
            return Err(Error::bad_request("claudeAiOauth.accessToken is missing or no text")
                .hint("send the whole .credentials.json of a machine where Claude is logged in"));
        }
        Ok(import)
    }
}

/// The object under the first of the names that is there.
fn take(object: &mut Map<String, Value>, names: [&str; 2]) -> Result<Option<Value>> {
    for name in names {
        match object.remove(name) {
            None | Some(Value::Null) => {}
            Some(value @ Value::Object(_)) => return Ok(Some(value)),
            Some(_) => return Err(Error::bad_request(format!("{name} must be an object"))),
        }
    }
    Ok(None)
}

/// The credentials file of a token that stands for itself: it does not run out, and there is nothing to renew it with.
fn credentials_of(token: &Value) -> Result<Value> {
    let token = token.as_str().map(str::trim).filter(|token| !token.is_empty());
    let token =
        token.ok_or_else(|| Error::bad_request("token must be a text that is not blank"))?;
    Ok(json!({"claudeAiOauth": {
        "accessToken": token,
        "refreshToken": token,
        "expiresAt": null,
        "scopes": ["user:inference"],
    }}))
}

fn has_access_token(credentials: &Value) -> bool {
    let token = credentials["claudeAiOauth"]["accessToken"].as_str();
    token.is_some_and(|token| !token.trim().is_empty())
}

impl Auth {
    /// The login as the server is configured and started. What the configuration sets for Claude is stronger than what
    /// the server was started with.
    pub fn of_config(config: &Config) -> Auth {
        let claude = config.providers.get("claude");
        let agent = claude.and_then(|provider| provider.agents.get("default"));
        Auth::new(&config.providers_dir, config.claude_auth_mode, |name| {
            let set = agent.and_then(|agent| agent.env.get(name)).cloned();
            set.or_else(|| std::env::var(name).ok())
        })
    }

    /// The login under a data folder; `variable` is the environment of the server.
    pub fn new(
        providers_dir: &Path,
        mode: ClaudeAuthMode,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Auth {
        let set = |name: &&'static str| {
            let value = variable(name).filter(|value| !value.is_empty())?;
            Some((*name, value))
        };
        let variables = VARIABLES.iter().filter_map(set).collect();
        Auth { folder: providers_dir.join("claude"), mode, variables }
    }

    /// The variables that make Claude use this login: HOME, CLAUDE_CONFIG_DIR where it is needed, ANTHROPIC_API_KEY
    /// when the server keeps a key. Errors: the key's file is there and can not be read.
    pub fn variables(&self) -> Result<BTreeMap<String, String>> {
        let place = self.place();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut variables = BTreeMap::new();
        if !place.home.as_os_str().is_empty() {
            variables.insert("HOME".to_owned(), path(&place.home));
        }
        if let Some(dir) = &place.config_dir {
            variables.insert("CLAUDE_CONFIG_DIR".to_owned(), path(dir));
        }
        match fs::read_to_string(self.key_path()) {
            Ok(key) => {
                drop(variables.insert("ANTHROPIC_API_KEY".to_owned(), key.trim().to_owned()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(failed(&self.key_path(), error)),
        }
        Ok(variables)
    }

    /// The files whose change may change the login. Claude's own configuration is not among them: every run of it
    /// writes there.
    pub fn watched(&self) -> Vec<PathBuf> {
        let host = self.host();
        vec![
            self.key_path(),
            self.runtime().credentials(),
            host.credentials(),
            host.credentials().with_file_name("settings.json"),
        ]
    }

    /// What files and variables say.
    pub fn status(&self) -> Status {
        let (runtime, bridge) = (self.runtime(), self.place());
        let is_key_kept = self.key_path().is_file();
        let has_key = is_key_kept || self.variables.contains_key("ANTHROPIC_API_KEY");
        let has_token = ["ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"]
            .iter()
            .any(|name| self.variables.contains_key(name));
        let mode = if has_key {
            Some("api_key")
        } else if has_token || bridge.is_logged_in() {
            Some("claude_code_oauth")
        } else {
            None
        };
        let detail = [
            format!("auth_mode={}", self.mode.as_str()),
            // By the path that other tools know; it is the same file.
            runtime.detail("runtime", &runtime.home.join(".claude/.credentials.json")),
            bridge.detail("bridge", &bridge.credentials()),
            format!("bridge_override_active={}", self.is_overridden()),
            format!("api_key_present={has_key}"),
        ];
        Status { authenticated: mode.is_some(), mode, detail: detail.join(" ") }
    }

    /// Makes the folders, and removes what a killed server was writing. For the start, when nobody writes.
    pub fn prepare(&self) -> Result<()> {
        self.make_folders()?;
        let config = self.config_dir();
        let entries = fs::read_dir(&config).map_err(|error| failed(&config, error))?;
        for entry in entries.flatten() {
            if entry.file_name().to_string_lossy().starts_with(NEW) {
                fs::remove_file(entry.path()).map_err(|error| failed(&entry.path(), error))?;
            }
        }
        Ok(())
    }

    /// Keeps an API key in place of the one before. Errors: it is blank, or no key can look like this.
    pub fn set_api_key(&self, key: &str) -> Result<()> {
        let key = key.trim();
        if key.is_empty() {
            return Err(Error::bad_request("api_key is blank"));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(Error::bad_request(
                "api_key has a space or another character in it that no key has",
            )
            .hint("send the key alone"));
        }
        self.make_folders()?;
        write(&self.key_path(), key)
    }

    /// Keeps what was imported, whatever the mode; what it does not have stays as it is. Both files are on the disk
    /// before the first takes its place, and the login comes first: a configuration without it would be of no use.
    pub fn import(&self, import: &Import) -> Result<()> {
        self.make_folders()?;
        let runtime = self.runtime();
        let files =
            [(runtime.credentials(), &import.credentials), (runtime.config().0, &import.config)];
        let mut fresh = Vec::new();
        for (path, value) in files {
            let Some(value) = value else { continue };
            fresh.push(Fresh::write(path, &value.to_string())?);
        }
        fresh.into_iter().try_for_each(Fresh::place)
    }

    /// Removes the three files that the server keeps, each whatever becomes of the others. Errors: the first that there
    /// was.
    pub fn log_out(&self) -> Result<()> {
        let runtime = self.runtime();
        let paths = [self.key_path(), runtime.credentials(), runtime.config().0];
        let removed = paths.map(|path| match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(&path, error)),
            _ => Ok(()),
        });
        removed.into_iter().collect()
    }

    fn config_dir(&self) -> PathBuf {
        self.folder.join("config")
    }

    fn key_path(&self) -> PathBuf {
        self.config_dir().join("api_key")
    }

    /// The files that the server keeps.
    fn runtime(&self) -> Place {
        Place { home: self.folder.join("home"), config_dir: Some(self.config_dir()) }
    }

    /// The files of the user that runs the server.
    fn host(&self) -> Place {
        let path = |name| self.variables.get(name).map(PathBuf::from);
        Place { home: path("HOME").unwrap_or_default(), config_dir: path("CLAUDE_CONFIG_DIR") }
    }

    fn is_overridden(&self) -> bool {
        ["GG_CLAUDE_BRIDGE_HOME", "GG_CLAUDE_BRIDGE_CLAUDE_CONFIG_DIR"]
            .iter()
            .any(|name| self.variables.contains_key(name))
    }

    /// The files that agents use. A user without a login uses the one that was imported.
    fn place(&self) -> Place {
        let path = |name| self.variables.get(name).map(PathBuf::from);
        let (home, config_dir) =
            (path("GG_CLAUDE_BRIDGE_HOME"), path("GG_CLAUDE_BRIDGE_CLAUDE_CONFIG_DIR"));
        let (runtime, host) = (self.runtime(), self.host());
        let is_imported_used = !host.is_logged_in() && runtime.is_logged_in();
        let usual = match self.mode {
            ClaudeAuthMode::RuntimeManaged => runtime,
            ClaudeAuthMode::HostMachine if is_imported_used => {
                Place { home: host.home, config_dir: runtime.config_dir }
            }
            ClaudeAuthMode::HostMachine => host,
        };
        // A home of its own is a whole place: what the usual one says of the configuration does not hold there.
        let usual_dir = if home.is_some() { None } else { usual.config_dir };
        Place { home: home.unwrap_or(usual.home), config_dir: config_dir.or(usual_dir) }
    }

    fn make_folders(&self) -> Result<()> {
        let runtime = self.runtime();
        let config = self.config_dir();
        for folder in [&self.folder, &config, &runtime.home] {
            make_folder(folder).map_err(|error| failed(folder, error))?;
        }
        let link = runtime.home.join(".claude");
        link_to_config(&link, &config).map_err(|error| failed(&link, error))
    }
}

impl Place {
    /// Where the `claude` program has its credentials.
    fn credentials(&self) -> PathBuf {
        let folder = self.config_dir.clone().unwrap_or_else(|| self.home.join(".claude"));
        folder.join(".credentials.json")
    }

    /// Where it has its configuration, and by which rule.
    fn config(&self) -> (PathBuf, &'static str) {
        if let Some(dir) = &self.config_dir {
            return (dir.join(".claude.json"), "env_override");
        }
        let fallback = self.home.join(".gg/claude");
        if fallback.is_dir() {
            return (fallback.join(".claude.json"), "gg_fallback");
        }
        (self.home.join(".claude.json"), "upstream_default")
    }

    /// Whether there are credentials of the right shape. Claude needs no configuration file beside them.
    fn is_logged_in(&self) -> bool {
        fs::read(self.credentials())
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
            .is_some_and(|credentials| has_access_token(&credentials))
    }

    fn detail(&self, name: &str, credentials: &Path) -> String {
        let (config, source) = self.config();
        format!(
            "{name}_credentials_path={} {name}_config_path={} {name}_config_source={source} \
             {name}_credentials_present={} {name}_config_present={} {name}_oauth_ready={}",
            credentials.display(),
            config.display(),
            credentials.is_file(),
            config.is_file(),
            self.is_logged_in(),
        )
    }
}

/// A folder that nobody else can look into, also when it was there before.
fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Makes `link` lead to the folder of the configuration. Another server may have left a folder there: what is in it
/// moves, and nothing is overwritten.
fn link_to_config(link: &Path, config: &Path) -> io::Result<()> {
    match fs::symlink_metadata(link) {
        Ok(metadata) if metadata.is_symlink() => return Ok(()),
        Ok(_) => {
            for entry in fs::read_dir(link)? {
                let entry = entry?;
                let target = config.join(entry.file_name());
                if !target.exists() {
                    fs::rename(entry.path(), target)?;
                }
            }
            fs::remove_dir(link)?;
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    match std::os::unix::fs::symlink("../config", link) {
        // Somebody else made it just now.
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        made => made,
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    Fresh::write(path.to_owned(), text).and_then(Fresh::place)
}

/// A whole file beside the place that it is for. Dropping it removes it; what can not be removed is removed at the next
/// start.
struct Fresh {
    new: PathBuf,
    path: PathBuf,
}

impl Fresh {
    fn write(path: PathBuf, text: &str) -> Result<Fresh> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let folder = path.parent().expect("every file here is in a folder");
        let new = folder.join(format!("{NEW}{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        let opened = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&new);
        let mut file = opened.map_err(|error| failed(&path, error))?;
        let fresh = Fresh { new, path };
        let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
        written.map_err(|error| failed(&fresh.path, error))?;
        Ok(fresh)
    }

    /// Takes the place of the file that is there, or leaves that as it is.
    fn place(self) -> Result<()> {
        let folder = self.path.parent().expect("every file here is in a folder");
        fs::rename(&self.new, &self.path)
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|error| failed(&self.path, error))
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // It is not there any more when it has its place.
        drop(fs::remove_file(&self.new));
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::internal(format!("{}: {error}", path.display()))
        .hint("the folders under providers/claude belong to the server; make them writable for it")
}

#[cfg(test)]
mod tests;
