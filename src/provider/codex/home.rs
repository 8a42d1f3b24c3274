//! The private folder of a session's Codex.
//!
//! Owns `codex/` under `data.providers_dir`: `home/auth.json` is the staged login, `sessions/<session id>/` the
//! CODEX_HOME of one session (0700), `tmp/<session id>/` its temporary folder where it needs one. It runs on the
//! session's thread before the agent is started, and on whatever thread purges a session. It promises:
//!
//! - a session reads a private copy of the user's `~/.codex/config.toml` and `AGENTS.md`, made anew at each start;
//! - the login comes from `~/.gg/codex/auth.json`, else `~/.codex/auth.json`; tokens that Codex renews in a
//!   session's folder flow back to the staged file and from there to sessions that start later, and nowhere else.
//!   The newest of one account wins, by the time of the file, which every copy keeps;
//! - files are written whole and renamed into place, 0600.
//!
//! What it deliberately does not do: it copies no rules of the user (what a session may do is the session's), it
//! tells a running Codex nothing, and it writes nothing in the user's own folders. A CODEX_HOME that the
//! configuration sets is used as it is.

use crate::error::{Code, Error, Result};
use crate::provider::stage::Staging;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A file of the user that is larger is refused.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const LOGIN: &str = "auth.json";
/// What of the user's folder a session reads beside the login.
const COPIED: [&str; 2] = [CONFIG, "AGENTS.md"];
const CONFIG: &str = "config.toml";
/// Variables of Codex and its vendor that reach Codex and no other agent.
const OWN_VARIABLES: [&str; 3] = ["OPENAI_API_KEY", "OPENAI_BASE_URL", "CODEX_API_KEY"];
/// What Codex is told where the user's configuration says nothing. Each session has a folder of its own, so each would
/// fetch the list of plugins; and a model that can not be reached must be an error, not silence for ever.
const DEFAULTS: [(&str, &str); 3] = [
    ("check_for_update_on_startup", "false"),
    ("features.plugins", "false"),
    ("features.unbounded_connection_retries", "false"),
];

/// Prepares the folder, adds the variables, returns the arguments.
pub(in crate::provider) fn stage(
    staging: &Staging<'_>,
    env: &mut BTreeMap<String, String>,
) -> Result<Vec<String>> {
    let given = |name: &str| staging.given.get(name).cloned();
    let set = |name: &str, env: &BTreeMap<String, String>| {
        given(name).or_else(|| env.get(name).cloned()).filter(|value| !value.is_empty())
    };
    let user = PathBuf::from(set("HOME", env).unwrap_or_default());
    let own_home = given("CODEX_HOME").map(PathBuf::from);
    let is_private = own_home.is_none();
    let place = Place { root: staging.providers_dir.join("codex") };
    let home = own_home.unwrap_or_else(|| place.session(staging.session_id));
    let temporary = PathBuf::from(set("TMPDIR", env).unwrap_or_else(|| "/tmp".to_owned()));
    for name in OWN_VARIABLES {
        pass(name, env);
    }
    if is_private {
        make_private(&home)?;
        for name in COPIED {
            copy(&user.join(".codex").join(name), &home.join(name))?;
        }
        let logins = [user.join(".gg/codex").join(LOGIN), user.join(".codex").join(LOGIN)];
        place.settle(&logins)?;
        place.log_in(&home, set("OPENAI_API_KEY", env).as_deref())?;
        env.insert("CODEX_HOME".to_owned(), home.to_string_lossy().into_owned());
        if is_inside(&home, &temporary) {
            // Codex makes no helper links in a home under its temporary folder.
            let temporary = place.temporary(staging.session_id);
            make_private(&temporary)?;
            env.insert("TMPDIR".to_owned(), temporary.to_string_lossy().into_owned());
        }
    }
    let config = read_config(&home.join(CONFIG))?;
    for name in variables(&config) {
        pass(&name, env);
    }
    check_key(&config, |name| set(name, env).is_some())?;
    Ok(arguments(&config))
}

/// Removes what a session had, once what it has renewed is staged.
pub(in crate::provider) fn unstage(providers_dir: &Path, session_id: &str) -> Result<()> {
    let place = Place { root: providers_dir.join("codex") };
    if place.session(session_id).is_dir() {
        place.settle(&[])?;
    }
    for folder in [place.session(session_id), place.temporary(session_id)] {
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed("removed", &folder, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// `codex` under `data.providers_dir`.
struct Place {
    root: PathBuf,
}

impl Place {
    fn session(&self, session_id: &str) -> PathBuf {
        self.root.join("sessions").join(session_id)
    }

    fn temporary(&self, session_id: &str) -> PathBuf {
        self.root.join("tmp").join(session_id)
    }

    fn staged(&self) -> PathBuf {
        self.root.join("home").join(LOGIN)
    }

    /// Makes the staged login the newest there is: the first of `logins` that exists, or what a session of the same
    /// account has renewed.
    fn settle(&self, logins: &[PathBuf]) -> Result<()> {
        let staged = self.staged();
        let now = Login::read(&staged)?;
        let mut newest = now.clone();
        let mut given = None;
        for path in logins {
            if given.is_none() {
                given = Login::read(path)?;
            }
        }
        if let Some(given) = given
            && newest.as_ref().is_none_or(|newest| newest.time < given.time)
        {
            newest = Some(given);
        }
        let sessions = fs::read_dir(self.root.join("sessions")).into_iter().flatten().flatten();
        for session in sessions {
            let path = session.path().join(LOGIN);
            let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).ok();
            if time.is_none_or(|time| newest.as_ref().is_none_or(|newest| newest.time >= time)) {
                continue;
            }
            // One that is being written or that can not be read is looked at the next time.
            let Ok(Some(renewed)) = Login::read(&path) else { continue };
            let is_newer = newest
                .as_ref()
                .is_some_and(|newest| newest.time < renewed.time && newest.is_same(&renewed));
            if is_newer {
                newest = Some(renewed);
            }
        }
        match newest {
            Some(newest) if now.as_ref() != Some(&newest) => {
                make_private(&self.root.join("home"))?;
                newest.write(&staged)
            }
            _ => Ok(()),
        }
    }

    /// Gives the session the staged login; else the vendor's key, which Codex takes from no variable.
    fn log_in(&self, home: &Path, key: Option<&str>) -> Result<()> {
        let path = home.join(LOGIN);
        let staged = Login::read(&self.staged())?;
        let login = match (staged, key.filter(|key| !key.is_empty())) {
            (Some(staged), _) => staged,
            (None, Some(key)) => {
                let login = json!({"auth_mode": "apikey", "OPENAI_API_KEY": key});
                Login { bytes: login.to_string().into_bytes(), time: SystemTime::now() }
            }
            (None, None) => return Ok(()),
        };
        let has = Login::read(&path)?;
        if has.is_some_and(|has| has.bytes == login.bytes) { Ok(()) } else { login.write(&path) }
    }
}

/// A login file, and when it was written.
#[derive(Clone, PartialEq)]
struct Login {
    bytes: Vec<u8>,
    time: SystemTime,
}

impl Login {
    fn read(path: &Path) -> Result<Option<Login>> {
        let Some(bytes) = read(path)? else { return Ok(None) };
        let time = fs::metadata(path).and_then(|metadata| metadata.modified());
        let time = time.map_err(|error| failed("read", path, error))?;
        Ok(Some(Login { bytes, time }))
    }

    fn write(&self, path: &Path) -> Result<()> {
        write_private(path, &self.bytes, Some(self.time))
    }

    /// Whether both are of one account. A session must not bring back the login that its user has left.
    fn is_same(&self, other: &Login) -> bool {
        let account = |login: &Login| {
            let login: Value = serde_json::from_slice(&login.bytes).ok()?;
            Some((login["auth_mode"].clone(), login["tokens"]["account_id"].clone()))
        };
        account(self).is_some_and(|account_id| account(other) == Some(account_id))
    }
}

/// Adds a variable of the server's own environment, if it is set.
fn pass(name: &str, env: &mut BTreeMap<String, String>) {
    if let Ok(value) = std::env::var(name) {
        env.entry(name.to_owned()).or_insert(value);
    }
}

fn read_config(path: &Path) -> Result<toml::Table> {
    let text = read(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    toml::from_str(&text).map_err(|error| {
        let why = error.message().to_owned();
        Error::new(Code::AgentFailed, format!("Codex's config.toml can not be read: {why}"))
            .hint("mend ~/.codex/config.toml; codex itself says where it is wrong")
    })
}

/// The variables in which the user's model providers and MCP servers look for their keys.
fn variables(config: &toml::Table) -> Vec<String> {
    let tables = |name: &str| {
        let table = config.get(name).and_then(toml::Value::as_table);
        table.into_iter().flat_map(|table| table.values()).filter_map(toml::Value::as_table)
    };
    let text = |value: &toml::Value| value.as_str().map(str::to_owned);
    let mut names: Vec<String> = Vec::new();
    for provider in tables("model_providers") {
        names.extend(provider.get("env_key").and_then(text));
        let headers = provider.get("env_http_headers").and_then(toml::Value::as_table);
        names.extend(headers.into_iter().flat_map(|headers| headers.values()).filter_map(text));
    }
    for server in tables("mcp_servers") {
        names.extend(server.get("bearer_token_env_var").and_then(text));
        let listed = server.get("env_vars").and_then(toml::Value::as_array);
        names.extend(listed.into_iter().flatten().filter_map(text));
    }
    names
}

/// Errors: the key of the user's model provider is in no variable, so no turn would work.
fn check_key(config: &toml::Table, is_set: impl Fn(&str) -> bool) -> Result<()> {
    let text = |value: Option<&toml::Value>| value.and_then(toml::Value::as_str).map(str::to_owned);
    let Some(name) = text(config.get("model_provider")) else { return Ok(()) };
    let provider = config.get("model_providers").and_then(|providers| providers.get(&name));
    let variable = text(provider.and_then(|provider| provider.get("env_key")));
    match variable.filter(|variable| !config.contains_key("profile") && !is_set(variable)) {
        None => Ok(()),
        Some(variable) => Err(Error::new(
            Code::AgentFailed,
            format!("Codex's model provider {name} wants its key in {variable}, which is not set"),
        )
        .hint(format!("set {variable} in the server's environment or in [providers.codex.env]"))),
    }
}

/// `-c key=value` for what the user's configuration leaves open. The login is always a file: a keyring would be shared.
fn arguments(config: &toml::Table) -> Vec<String> {
    let is_set = |key: &str| {
        let mut parts = key.split('.');
        let first = parts.next().and_then(|part| config.get(part));
        parts.try_fold(first, |value, part| Some(value?.get(part))).flatten().is_some()
    };
    let open = DEFAULTS.iter().filter(|(key, _)| !is_set(key));
    let mut arguments = vec!["-c".to_owned(), "cli_auth_credentials_store=\"file\"".to_owned()];
    for (key, value) in open {
        arguments.extend(["-c".to_owned(), format!("{key}={value}")]);
    }
    arguments
}

/// Whether `inner` lies under `outer`, links resolved.
fn is_inside(inner: &Path, outer: &Path) -> bool {
    let resolve = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    resolve(inner).starts_with(resolve(outer))
}

/// The copy is as the user's file is now; gone when that is.
fn copy(from: &Path, to: &Path) -> Result<()> {
    match read(from)? {
        Some(bytes) if read(to)?.as_ref() == Some(&bytes) => Ok(()),
        Some(bytes) => write_private(to, &bytes, None),
        None => match fs::remove_file(to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed("removed", to, error))
            }
            _ => Ok(()),
        },
    }
}

/// None: there is no such file.
fn read(path: &Path) -> Result<Option<Vec<u8>>> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() && metadata.len() <= FILE_BYTES_MAX => {
            fs::read(path).map(Some).map_err(|error| failed("read", path, error))
        }
        Ok(_) => Err(Error::new(
            Code::AgentFailed,
            format!("{} is no file of at most {FILE_BYTES_MAX} bytes", path.display()),
        )),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(failed("read", path, error)),
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn make_private(folder: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| failed("made", folder, error))
}

/// Written beside its place and renamed: a reader sees the old file or the new one.
fn write_private(path: &Path, bytes: &[u8], time: Option<SystemTime>) -> Result<()> {
    let fresh = path.with_extension(format!("{}.new", crate::model::id::new("tmp")));
    let write = || {
        let mut file: File =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(bytes)?;
        if let Some(time) = time {
            file.set_modified(time)?;
        }
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().map_err(|error| {
        drop(fs::remove_file(&fresh));
        failed("written", path, error)
    })
}

fn failed(what: &str, path: &Path, error: std::io::Error) -> Error {
    Error::new(Code::AgentFailed, format!("{} can not be {what}: {error}", path.display()))
        .hint("look at the owner and the permissions of the file and its folder")
}

#[cfg(test)]
mod tests;
