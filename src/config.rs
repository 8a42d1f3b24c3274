//! The configuration as the program uses it: every value there, checked, with its unit in its name.
//!
//! Owns: the defaults, the checks, and the wording of what is wrong with a file. Made once, before any thread
//! starts, and never changed. Reading it changes nothing on disk.

pub mod file;
#[cfg(test)]
mod page;
mod place;
mod process;
mod provider;
mod team;
mod worktree;

pub use process::Processes;
pub use provider::{Agent, ClaudeAuthMode, NAMES as PROVIDER_NAMES, Provider};
pub use team::{ModelPreset, Teams};
pub use worktree::Worktrees;

use crate::ledger::Synchronous;
use file::File;
use place::Reading;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{SocketAddr, ToSocketAddrs};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Config {
    pub bind: SocketAddr,
    /// As it was written; None = follows the bound address.
    pub public_base_url: Option<String>,
    /// Empty, or `/path` without a slash at its end.
    pub base_path: String,
    /// Lower case, without a port.
    pub allowed_hosts: Vec<String>,
    pub cors_origins: Vec<String>,
    pub connections_max: usize,
    pub streams_max: usize,
    pub shutdown_grace: Duration,
    /// A thread that is at one piece of work for longer is told of.
    pub stuck_after: Duration,
    pub token: Option<String>,
    pub token_file: PathBuf,
    pub root_dir: PathBuf,
    pub sqlite_path: PathBuf,
    pub logs_dir: PathBuf,
    /// What is kept for the agents of vendors, a folder for each provider.
    pub providers_dir: PathBuf,
    pub synchronous: Synchronous,
    /// By provider: `acp`, `claude`, `codex`, `demo`.
    pub providers: BTreeMap<&'static str, Provider>,
    pub processes: Processes,
    pub claude_auth_mode: ClaudeAuthMode,
    /// None = an approval waits for ever.
    pub approval_timeout: Option<Duration>,
    pub heartbeat: Duration,
    /// None = deltas stay; zero = they go as soon as their item is finished.
    pub delta_retention: Option<Duration>,
    /// None = closed sessions stay.
    pub session_retention: Option<Duration>,
    /// New work is refused beyond it; None = the database may fill its disk.
    pub database_bytes_max: Option<u64>,
    pub keeper_lease: Duration,
    pub keeper_grace: Duration,
    pub journal_bytes_max: u64,
    pub image_bytes_max: usize,
    /// Whether agents are given tools of ours, and the gateway behind them answers.
    pub is_mcp_enabled: bool,
    pub teams: Teams,
    pub worktrees: Worktrees,
    /// What the start tells once: keys without a meaning.
    pub notices: Vec<String>,
}

/// All that is wrong with a configuration, each with its key or line and a remedy.
#[derive(Debug)]
pub struct Problems(pub Vec<String>);

/// What the command line and the environment say, stronger than the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub bind: Option<String>,
    pub data_dir: Option<PathBuf>,
    /// `GG_CLAUDE_AUTH_MODE`.
    pub claude_auth_mode: Option<String>,
}

impl Config {
    /// Reads and checks the file that `overrides` names, or takes the defaults. Touches nothing on disk.
    pub fn load(overrides: &Overrides) -> Result<Config, Problems> {
        let (text, folder) = match &overrides.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Problems(vec![format!(
                        "{}: can not be read: {error}; name an existing file with --config",
                        path.display()
                    )])
                })?;
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                (text, path.parent().unwrap_or(Path::new("/")).to_owned())
            }
            None => (String::new(), PathBuf::new()),
        };
        let path = std::env::var("PATH").unwrap_or_default();
        Config::parse(&text, &folder, &path, overrides).map_err(|Problems(problems)| {
            let name = |problem: String| match &overrides.config {
                Some(path) => format!("{}: {problem}", path.display()),
                None => problem,
            };
            Problems(problems.into_iter().map(name).collect())
        })
    }

    /// The configuration that a text makes, or everything that is wrong with it. Relative paths in it start from
    /// `folder`, and programs are looked for in `path`, which is written like PATH.
    pub fn parse(
        text: &str,
        folder: &Path,
        path: &str,
        overrides: &Overrides,
    ) -> Result<Config, Problems> {
        let Reading { file, problems, lines } = place::read(text);
        let (folder, path) = (folder.to_owned(), path.to_owned());
        Check { problems, file: &file, lines: &lines, folder, path, overrides }.run()
    }
}

/// The values of one file on their way to a [`Config`]; problems are collected, not thrown one by one.
struct Check<'a> {
    problems: Vec<String>,
    file: &'a File,
    /// The line of each key that the file has.
    lines: &'a BTreeMap<String, usize>,
    /// What relative paths in the file start from.
    folder: PathBuf,
    /// Where programs are looked for.
    path: String,
    overrides: &'a Overrides,
}

impl Check<'_> {
    fn run(mut self) -> Result<Config, Problems> {
        let file = self.file;
        let bind = self.bind();
        let root_dir = self.root_dir();
        let token = file.auth.token.as_ref().map(|token| token.trim().to_owned());
        if token.as_deref() == Some("") {
            self.problem("auth.token is blank; leave it out to have one made, or write one");
        }
        if let Some(other) = file.auth.mode.as_deref().filter(|mode| *mode != "static_bearer") {
            self.problem(format!("auth.mode is {other:?}; it can only be \"static_bearer\""));
        }
        let synchronous = match file.data.synchronous.as_deref() {
            None | Some("full") => Synchronous::Full,
            Some("normal") => Synchronous::Normal,
            Some(other) => {
                self.problem(format!(
                    "data.synchronous is {other:?}; it can be \"full\" or \"normal\""
                ));
                Synchronous::Full
            }
        };
        if let Some(other) = file.approvals.on_timeout.as_deref()
            && other != "decline"
        {
            self.problem(format!("approvals.on_timeout is {other:?}; it can only be \"decline\""));
        }
        let base_path = self.base_path();
        let server = &file.server;
        let connections_max =
            self.within("server.max_connections", server.max_connections, 1..=100_000, 4096);
        let streams_max = self.within("server.max_streams", server.max_streams, 1..=100_000, 1024);
        let shutdown_grace =
            self.within("server.shutdown_grace_secs", server.shutdown_grace_secs, 0..=DAY_SECS, 10);
        let waits = self.waits();
        let keeper = self.keeper();
        let database_bytes_max = file.data.max_database_bytes.map(|bytes| {
            let key = "data.max_database_bytes";
            self.within(key, Some(bytes), DATABASE_BYTES_LEAST..=DATABASE_BYTES_MOST, bytes)
        });
        let image_bytes_max = self.within(
            "limits.max_image_bytes",
            file.limits.max_image_bytes,
            1..=IMAGE_BYTES_MOST,
            8 * 1024 * 1024,
        );
        let providers = self.providers();
        let processes = self.processes();
        let claude_auth_mode = self.claude_auth_mode();
        let worktrees = self.worktrees(&root_dir);
        let teams = self.teams();
        let stuck_after = self.seconds("server.stuck_after_secs", file.server.stuck_after_secs, 30);
        if !self.problems.is_empty() {
            return Err(Problems(self.problems));
        }
        let under_root = |path: Option<&String>, default: &str| {
            root_dir.join(path.map_or(default, String::as_str))
        };
        Ok(Config {
            bind: bind.expect("a bad address is a problem"),
            public_base_url: file.server.public_base_url.clone(),
            base_path,
            allowed_hosts: file.server.allowed_hosts.iter().map(|h| h.to_lowercase()).collect(),
            cors_origins: file.server.cors_origins.clone(),
            connections_max,
            streams_max,
            shutdown_grace: Duration::from_secs(shutdown_grace),
            stuck_after,
            token,
            token_file: under_root(file.auth.token_file.as_ref(), "auth/api-token"),
            sqlite_path: under_root(file.data.sqlite_path.as_ref(), "runtime.sqlite3"),
            logs_dir: under_root(file.data.logs_dir.as_ref(), "logs"),
            providers_dir: under_root(file.data.providers_dir.as_ref(), "providers"),
            root_dir,
            synchronous,
            providers,
            processes,
            claude_auth_mode,
            approval_timeout: waits.approval_timeout,
            heartbeat: waits.heartbeat,
            delta_retention: waits.delta_retention,
            session_retention: waits.session_retention,
            database_bytes_max,
            keeper_lease: keeper.lease,
            keeper_grace: keeper.grace,
            journal_bytes_max: keeper.journal_bytes_max,
            image_bytes_max,
            is_mcp_enabled: file.mcp.enabled.unwrap_or(true),
            teams,
            worktrees,
            notices: file.without_meaning(),
        })
    }

    /// Adds a problem; one that begins with a key of the file gets its line.
    fn problem(&mut self, text: impl Into<String>) {
        let text = text.into();
        let line = text.split(' ').next().and_then(|key| self.lines.get(key));
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        self.problems.push(format!("{place}{text}"));
    }

    /// A number of the file, or the default. One outside of the bounds is a problem.
    fn within<N: PartialOrd + Display + Copy>(
        &mut self,
        key: &str,
        value: Option<N>,
        bounds: RangeInclusive<N>,
        default: N,
    ) -> N {
        let value = value.unwrap_or(default);
        if !bounds.contains(&value) {
            let (least, most) = (bounds.start(), bounds.end());
            self.problem(format!("{key} is {value}; it must be from {least} to {most}"));
        }
        value
    }

    /// The same of seconds, at least one and at most a day.
    fn seconds(&mut self, key: &str, value: Option<u64>, default: u64) -> Duration {
        Duration::from_secs(self.within(key, value, 1..=DAY_SECS, default))
    }

    /// How long something is kept, in a unit of so many hours; parts of one are fine. None: for ever.
    fn span(&mut self, key: &str, value: Option<f64>, unit_hours: f64) -> Option<Duration> {
        let value = value?;
        let most = process::HOURS_MAX / unit_hours;
        let value = self.within(key, Some(value), 0.0..=most, value);
        // One that is none is a problem already.
        Duration::try_from_secs_f64(value * unit_hours * 3600.0).ok()
    }

    /// How long what is over is kept. 0 would leave nobody the time to read it.
    fn days(&mut self, key: &str, days: Option<f64>) -> Option<Duration> {
        if days == Some(0.0) {
            self.problem(format!("{key} is 0; it must be more, or left out to keep them all"));
        }
        self.span(key, days, 24.0)
    }

    fn waits(&mut self) -> Waits {
        let file = self.file;
        let heartbeat = file.events.heartbeat_secs;
        Waits {
            approval_timeout: file.approvals.timeout_secs.map(|secs| {
                let key = "approvals.timeout_secs";
                Duration::from_secs(self.within(key, Some(secs), 1..=CENTURY_SECS, secs))
            }),
            heartbeat: Duration::from_secs(self.within(
                "events.heartbeat_secs",
                heartbeat,
                1..=3600,
                10,
            )),
            delta_retention: self.span(
                "events.delta_retention_hours",
                file.events.delta_retention_hours,
                1.0,
            ),
            session_retention: self.days("sessions.retention_days", file.sessions.retention_days),
        }
    }

    fn keeper(&mut self) -> Keeper {
        let keeper = &self.file.keeper;
        let lease = self.within("keeper.lease_secs", keeper.lease_secs, 1..=CENTURY_SECS, DAY_SECS);
        let grace = self.within("keeper.grace_ms", keeper.grace_ms, 0..=3_600_000, 5000);
        Keeper {
            lease: Duration::from_secs(lease),
            grace: Duration::from_millis(grace),
            journal_bytes_max: self.within(
                "keeper.journal_bytes_max",
                keeper.journal_bytes_max,
                64 * 1024..=1 << 40,
                64 * 1024 * 1024,
            ),
        }
    }

    fn bind(&mut self) -> Option<SocketAddr> {
        let (key, text) = match (&self.overrides.bind, &self.file.server.bind_address) {
            (Some(text), _) => ("--bind", text.clone()),
            (None, Some(text)) => ("server.bind_address", text.clone()),
            (None, None) => ("server.bind_address", "127.0.0.1:8080".to_owned()),
        };
        let address = text.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        if address.is_none() {
            self.problem(format!("{key} is {text:?}; write host:port, for example 127.0.0.1:8080"));
        }
        address
    }

    fn root_dir(&self) -> PathBuf {
        let home = std::env::var_os("HOME").map(PathBuf::from);
        let path = match (&self.overrides.data_dir, &self.file.data.root_dir) {
            (Some(path), _) => path.clone(),
            (None, Some(path)) => self.folder.join(path),
            (None, None) => home.unwrap_or_default().join(".gg-runtime"),
        };
        std::path::absolute(&path).unwrap_or(path)
    }

    fn base_path(&mut self) -> String {
        let path = self.file.server.base_path.clone().unwrap_or_default();
        let path = path.trim_end_matches('/').to_owned();
        if !path.is_empty() && !path.starts_with('/') {
            self.problem(format!("server.base_path is {path:?}; it must begin with a slash"));
        }
        path
    }
}

/// How long some things may take or stay, on the way to a [`Config`].
struct Waits {
    approval_timeout: Option<Duration>,
    heartbeat: Duration,
    delta_retention: Option<Duration>,
    session_retention: Option<Duration>,
}

struct Keeper {
    lease: Duration,
    grace: Duration,
    journal_bytes_max: u64,
}

/// An empty database has its tables and the first events of a session in less.
const DATABASE_BYTES_LEAST: u64 = 1024 * 1024;
/// What SQLite can hold in one file.
const DATABASE_BYTES_MOST: u64 = 1 << 48;
/// A body that holds it is a third larger and lies in memory whole, more than once.
const IMAGE_BYTES_MOST: usize = 64 * 1024 * 1024;

const DAY_SECS: u64 = 24 * 3600;
/// No wait and no retention needs more, and no clock overflows by it.
const CENTURY_SECS: u64 = 36_500 * DAY_SECS;

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of a text when `path` is PATH.
    fn checked(text: &str, path: &str) -> Result<Config, Problems> {
        Config::parse(text, Path::new(""), path, &Overrides::default())
    }

    fn problems(text: &str) -> String {
        match checked(text, "") {
            Ok(_) => String::new(),
            Err(problems) => problems.0.join("\n"),
        }
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_the_nearest() {
        let told = problems("[server]\n\nbind_adress = \"127.0.0.1:1\"\n");
        assert!(told.contains("line 3"), "{told}");
        assert!(told.contains("did you mean bind_address?"), "{told}");
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let told = problems(
            "[server]\nbind_address = \"nowhere\"\nmax_streams = 0\n\
             [auth]\ntoken = \" \"\n[providers.acp]\nenabled = true\n[keeper]\nleese = 3\n",
        );
        for key in [
            "line 2: server.bind_address",
            "line 3: server.max_streams",
            "line 5: auth.token",
            "line 7: providers.acp",
            "line 9: unknown field `leese`",
        ] {
            assert!(told.contains(key), "{key} in {told}");
        }
    }

    #[test]
    fn the_login_that_claude_uses_has_two_words() {
        for good in ["host_machine", "runtime_managed", "runtime-managed", "runtime"] {
            assert_eq!(problems(&format!("[providers]\nclaude_auth_mode = {good:?}\n")), "");
        }
        let told = problems("[providers]\nclaude_auth_mode = \"managed\"\n");
        assert!(told.contains("providers.claude_auth_mode is \"managed\""), "{told}");
        assert!(told.contains("runtime_managed"), "{told}");
    }

    #[test]
    fn the_demo_agent_is_on_when_nothing_else_is() {
        assert_eq!(problems(""), "");
        let told = problems("[providers.demo]\nenabled = false\n");
        assert!(told.contains("no provider is enabled"), "{told}");
    }

    #[test]
    fn a_vendors_program_is_on_when_it_is_named_or_found() {
        let on = |text: &str, path: &str| {
            let config = checked(text, path).unwrap();
            let names: Vec<&str> = config.providers.keys().copied().collect();
            names.join(" ")
        };
        assert_eq!(on("", ""), "demo");
        let folder = std::env::temp_dir().join(format!("gg-path-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("codex"), "").unwrap();
        let path = folder.to_string_lossy();
        assert_eq!(on("", &path), "codex demo");
        assert_eq!(on("[providers.codex]\nenabled = false\n", &path), "demo");
        assert_eq!(on("[providers.claude]\n", ""), "claude");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
