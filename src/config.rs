//! The configuration as the program uses it: every value there, checked, with its unit in its name.
//!
//! Owns: the defaults, the checks, and the wording of what is wrong with a file. Made once, before any thread
//! starts, and never changed. Reading it changes nothing on disk.

pub mod file;

use crate::ledger::Synchronous;
use file::File;
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
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
    pub token: Option<String>,
    pub token_file: PathBuf,
    pub root_dir: PathBuf,
    pub sqlite_path: PathBuf,
    pub synchronous: Synchronous,
    /// By provider: `acp`, `demo`.
    pub providers: BTreeMap<&'static str, Provider>,
    /// None = an approval waits for ever.
    pub approval_timeout: Option<Duration>,
    pub heartbeat: Duration,
    pub delta_retention_hours: Option<u64>,
    pub keeper_lease: Duration,
    pub keeper_grace: Duration,
    pub journal_bytes_max: u64,
    pub image_bytes_max: usize,
    /// What the start tells once: keys without a meaning.
    pub notices: Vec<String>,
}

/// One provider that is switched on.
#[derive(Clone, Debug)]
pub struct Provider {
    pub display_name: &'static str,
    /// Live agents at once.
    pub live_max: usize,
    /// For the start of an agent and for each setting; longer is `agent_timeout`.
    pub request_timeout: Duration,
    /// None = a turn may take for ever.
    pub turn_timeout: Option<Duration>,
    /// None = an idle agent is never put to sleep.
    pub idle_sleep: Option<Duration>,
    pub env_passthrough: Vec<String>,
    pub client_fs: bool,
    pub client_terminal: bool,
    /// By name; `default` is the one that is taken when the client names none.
    pub agents: BTreeMap<String, Agent>,
}

impl Provider {
    /// For sessions of a provider that is not in the configuration any more: nothing can be started.
    pub fn gone() -> Provider {
        Provider {
            display_name: "gone",
            live_max: 0,
            request_timeout: Duration::from_secs(30),
            turn_timeout: None,
            idle_sleep: None,
            env_passthrough: Vec::new(),
            client_fs: false,
            client_terminal: false,
            agents: BTreeMap::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Agent {
    /// A program on PATH or a path; None = the bundled demo agent.
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub title: Option<String>,
}

/// All that is wrong with a configuration, each with its key or line and a remedy.
#[derive(Debug)]
pub struct Problems(pub Vec<String>);

/// What the command line says, stronger than the file.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    pub config: Option<PathBuf>,
    pub bind: Option<String>,
    pub data_dir: Option<PathBuf>,
}

impl Config {
    /// Reads and checks the file that `overrides` names, or takes the defaults. Touches nothing on disk.
    pub fn load(overrides: &Overrides) -> Result<Config, Problems> {
        let (file, folder) = match &overrides.config {
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| {
                    Problems(vec![format!(
                        "{}: can not be read: {error}; name an existing file with --config",
                        path.display()
                    )])
                })?;
                let file = parse(&text)
                    .map_err(|problem| Problems(vec![format!("{}: {problem}", path.display())]))?;
                let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
                (file, path.parent().unwrap_or(Path::new("/")).to_owned())
            }
            None => (File::default(), PathBuf::new()),
        };
        Check { problems: Vec::new(), file: &file, folder, overrides }.run()
    }
}

/// The file as its types, or one sentence with the line, and the nearest key for a misspelt one.
fn parse(text: &str) -> Result<File, String> {
    toml::from_str(text).map_err(|error| {
        let line =
            error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map_or(String::new(), |line| format!("line {line}: "));
        let message = error.message().trim();
        let near =
            nearest_key(message).map_or(String::new(), |key| format!("; did you mean {key}?"));
        format!("{place}{message}{near}")
    })
}

/// Of "unknown field `a`, expected one of `b`, `c`": the expected one that is nearest, if it is near at all.
fn nearest_key(message: &str) -> Option<String> {
    let mut words = message.strip_prefix("unknown field ")?.split('`').skip(1).step_by(2);
    let wrong = words.next()?;
    words
        .map(|word| (distance(wrong, word), word))
        .min()
        .filter(|(distance, word)| *distance <= word.len().div_ceil(2))
        .map(|(_, word)| word.to_owned())
}

/// How many letters must be put in, taken out or changed.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// The values of one file on their way to a [`Config`]; problems are collected, not thrown one by one.
struct Check<'a> {
    problems: Vec<String>,
    file: &'a File,
    /// What relative paths in the file start from.
    folder: PathBuf,
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
        if file.auth.mode.as_deref().is_some_and(|mode| mode != "static_bearer") {
            self.problem("auth.mode can only be \"static_bearer\"");
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
        let connections_max =
            self.at_least("server.max_connections", file.server.max_connections, 1, 4096);
        let streams_max = self.at_least("server.max_streams", file.server.max_streams, 1, 1024);
        let providers = self.providers();
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
            shutdown_grace: Duration::from_secs(file.server.shutdown_grace_secs.unwrap_or(10)),
            token,
            token_file: under_root(file.auth.token_file.as_ref(), "auth/api-token"),
            sqlite_path: under_root(file.data.sqlite_path.as_ref(), "runtime.sqlite3"),
            root_dir,
            synchronous,
            providers,
            approval_timeout: file.approvals.timeout_secs.map(Duration::from_secs),
            heartbeat: Duration::from_secs(file.events.heartbeat_secs.unwrap_or(10).max(1)),
            delta_retention_hours: file.events.delta_retention_hours,
            keeper_lease: Duration::from_secs(file.keeper.lease_secs.unwrap_or(24 * 3600)),
            keeper_grace: Duration::from_millis(file.keeper.grace_ms.unwrap_or(5000)),
            journal_bytes_max: file.keeper.journal_bytes_max.unwrap_or(64 * 1024 * 1024),
            image_bytes_max: file.limits.max_image_bytes.unwrap_or(8 * 1024 * 1024),
            notices: file.without_meaning(),
        })
    }

    fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    fn at_least(&mut self, key: &str, value: Option<usize>, least: usize, default: usize) -> usize {
        let value = value.unwrap_or(default);
        if value < least {
            self.problem(format!("{key} is {value}; it must be at least {least}"));
        }
        value
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

    fn providers(&mut self) -> BTreeMap<&'static str, Provider> {
        let mut providers = BTreeMap::new();
        let file = self.file;
        let default = file::Acp::default();
        let acp = file.providers.acp.as_ref().unwrap_or(&default);
        let is_acp_named = acp.command.is_some() || !acp.agents.is_empty();
        if acp.enabled.unwrap_or(is_acp_named) {
            let provider = self.acp(acp);
            providers.insert("acp", provider);
        }
        let is_demo = file.providers.demo.as_ref().and_then(|demo| demo.enabled);
        if is_demo.unwrap_or(providers.is_empty()) {
            let default = file::Vendor::default();
            let demo = file.providers.demo.as_ref().unwrap_or(&default);
            let provider = self.demo(demo);
            providers.insert("demo", provider);
        }
        if providers.is_empty() {
            self.problem(
                "no provider is enabled; name an agent under [providers.acp], or enable the demo",
            );
        }
        providers
    }

    fn acp(&mut self, acp: &file::Acp) -> Provider {
        let mut agents = BTreeMap::new();
        if acp.command.is_some() {
            let agent = self.agent("providers.acp", acp.command.as_ref(), acp.transport.as_ref());
            let env = acp.env.clone();
            let title = acp.title.clone();
            agents.insert(
                "default".to_owned(),
                Agent { command: agent, args: acp.args.clone(), env, title },
            );
        }
        for (name, agent) in &acp.agents {
            let key = format!("providers.acp.agents.{name}");
            let command = self.agent(&key, agent.command.as_ref(), agent.transport.as_ref());
            let named = Agent {
                command,
                args: agent.args.clone(),
                env: agent.env.clone(),
                title: agent.title.clone(),
            };
            if agents.insert(name.clone(), named).is_some() {
                self.problem(format!(
                    "{key} and providers.acp.command both are the agent {name:?}; keep one"
                ));
            }
        }
        if agents.is_empty() {
            self.problem(
                "providers.acp.enabled is true but no agent is named; set providers.acp.command",
            );
        }
        let instances = self.at_least("providers.acp.max_instances", acp.max_instances, 1, 4);
        let each = self.at_least(
            "providers.acp.max_sessions_per_instance",
            acp.max_sessions_per_instance,
            1,
            4,
        );
        Provider {
            display_name: "ACP",
            live_max: instances.saturating_mul(each),
            request_timeout: self.seconds(
                "providers.acp.request_timeout_secs",
                acp.request_timeout_secs,
                30,
            ),
            turn_timeout: acp.turn_timeout_secs.filter(|s| *s > 0).map(Duration::from_secs),
            idle_sleep: idle_sleep(acp.idle_sleep_secs),
            env_passthrough: acp.env_passthrough.clone(),
            client_fs: acp.client_fs.unwrap_or(false),
            client_terminal: acp.client_terminal.unwrap_or(false),
            agents,
        }
    }

    fn demo(&mut self, demo: &file::Vendor) -> Provider {
        let instances = self.at_least("providers.demo.max_instances", demo.max_instances, 1, 16);
        let each = self.at_least(
            "providers.demo.max_sessions_per_instance",
            demo.max_sessions_per_instance,
            1,
            4,
        );
        let agent = Agent { command: None, args: Vec::new(), env: BTreeMap::new(), title: None };
        Provider {
            display_name: "Demo",
            live_max: instances.saturating_mul(each),
            request_timeout: self.seconds(
                "providers.demo.request_timeout_secs",
                demo.request_timeout_secs,
                30,
            ),
            turn_timeout: demo.turn_timeout_secs.filter(|s| *s > 0).map(Duration::from_secs),
            idle_sleep: idle_sleep(demo.idle_sleep_secs),
            env_passthrough: demo.env_passthrough.clone(),
            client_fs: true,
            client_terminal: true,
            agents: BTreeMap::from([("default".to_owned(), agent)]),
        }
    }

    fn agent(
        &mut self,
        key: &str,
        command: Option<&String>,
        transport: Option<&String>,
    ) -> Option<String> {
        if transport.is_some_and(|transport| transport != "stdio") {
            self.problem(format!("{key}.transport can only be \"stdio\""));
        }
        let command = command.map(|command| command.trim()).filter(|command| !command.is_empty());
        if command.is_none() {
            self.problem(format!("{key}.command is missing; name the agent's program"));
        }
        command.map(str::to_owned)
    }

    fn seconds(&mut self, key: &str, value: Option<u64>, default: u64) -> Duration {
        if value == Some(0) {
            self.problem(format!("{key} is 0; it must be at least 1"));
        }
        Duration::from_secs(value.unwrap_or(default))
    }
}

/// 15 minutes unless the file says otherwise; 0 = never.
fn idle_sleep(secs: Option<u64>) -> Option<Duration> {
    Some(Duration::from_secs(secs.unwrap_or(900))).filter(|duration| !duration.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> String {
        match parse(text) {
            Err(problem) => problem,
            Ok(file) => {
                let overrides = Overrides::default();
                let check = Check {
                    problems: Vec::new(),
                    file: &file,
                    folder: PathBuf::new(),
                    overrides: &overrides,
                };
                match check.run() {
                    Ok(_) => String::new(),
                    Err(problems) => problems.0.join("\n"),
                }
            }
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
             [auth]\ntoken = \" \"\n[providers.acp]\nenabled = true\n",
        );
        for key in ["server.bind_address", "server.max_streams", "auth.token", "providers.acp"] {
            assert!(told.contains(key), "{key} in {told}");
        }
    }

    #[test]
    fn the_demo_agent_is_on_when_nothing_else_is() {
        assert_eq!(problems(""), "");
        let told = problems("[providers.demo]\nenabled = false\n");
        assert!(told.contains("no provider is enabled"), "{told}");
    }
}
