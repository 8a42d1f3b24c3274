//! The providers of a configuration: which are on, how many agents of each may live, and what is started.
//!
//! A provider that the file names is on unless it says otherwise. Without a word in the file, Codex and Claude are on
//! when their program is on PATH, and the demo agent is on when the file switches nothing else on: so a first run needs
//! no file and no account, and an agent that is installed can be driven at once.

use super::{CENTURY_SECS, Check, Config, file};
use crate::environment::find_program;
use crate::error::{Code, Error, Result};
use std::collections::BTreeMap;
use std::time::Duration;

/// Names that the contract knows, whether or not they are switched on.
pub const NAMES: &[&str] = &["acp", "claude", "codex", "demo"];

/// Live agents of a provider are instances × sessions of each; the contract's defaults.
const CODEX_SESSIONS_EACH: usize = 8;
const CLAUDE_SESSIONS_EACH: usize = 4;
const ACP_EACH: [usize; 2] = [4, 4];
const DEMO_EACH: [usize; 2] = [16, 4];
/// Far more agents than a machine carries.
const LIVE_MOST: usize = 10_000;
/// An agent that nobody has asked for so long is put to sleep.
const IDLE_SLEEP_SECS: u64 = 900;

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

    /// Errors: the provider, which is called `name`, has no agent of that name.
    pub fn check_agent(&self, name: &str, agent: &str) -> Result<()> {
        if self.agents.contains_key(agent) {
            return Ok(());
        }
        let names: Vec<&str> = self.agents.keys().map(String::as_str).collect();
        Err(Error::bad_request(format!("agent: {name} has no agent {agent:?}"))
            .hint(format!("it has {}", names.join(", "))))
    }
}

impl Config {
    /// A provider by its exact name. Errors: 404 for one that is not switched on.
    pub fn enabled_provider(&self, name: &str) -> Result<(&'static str, &Provider)> {
        if !NAMES.contains(&name) {
            return Err(Error::bad_request(format!("provider: there is no provider {name:?}"))
                .hint(format!("the names are {}", NAMES.join(", "))));
        }
        self.providers.get_key_value(name).map(|(name, provider)| (*name, provider)).ok_or_else(
            || {
                let on: Vec<&str> = self.providers.keys().copied().collect();
                Error::new(Code::NotFound, format!("provider {name} is not enabled"))
                    .hint(format!("enabled: {}", on.join(", ")))
            },
        )
    }
}

/// Whose login the Claude agent uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaudeAuthMode {
    /// That of the user that runs the server.
    HostMachine,
    /// Files of the server's own, written by its routes.
    RuntimeManaged,
}

impl ClaudeAuthMode {
    pub fn as_str(self) -> &'static str {
        match self {
            ClaudeAuthMode::HostMachine => "host_machine",
            ClaudeAuthMode::RuntimeManaged => "runtime_managed",
        }
    }

    fn parse(text: &str) -> Option<ClaudeAuthMode> {
        match text.trim().replace('-', "_").as_str() {
            "host_machine" => Some(ClaudeAuthMode::HostMachine),
            "runtime_managed" | "runtime" => Some(ClaudeAuthMode::RuntimeManaged),
            _ => None,
        }
    }
}

#[derive(Clone, Debug)]
pub struct Agent {
    /// A program on PATH or a path; None = the one that comes with the server.
    pub command: Option<String>,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub title: Option<String>,
}

impl Check<'_> {
    /// The variable of the environment is stronger than the file.
    pub(super) fn claude_auth_mode(&mut self) -> ClaudeAuthMode {
        let of_environment = self.overrides.claude_auth_mode.as_deref();
        let of_file = self.file.providers.claude_auth_mode.as_deref();
        let (key, text) = match (of_environment, of_file) {
            (Some(text), _) => ("GG_CLAUDE_AUTH_MODE", text),
            (None, Some(text)) => ("providers.claude_auth_mode", text),
            (None, None) => return ClaudeAuthMode::HostMachine,
        };
        let mode = ClaudeAuthMode::parse(text);
        if mode.is_none() {
            self.problem(format!(
                "{key} is {text:?}; it can be \"host_machine\" or \"runtime_managed\""
            ));
        }
        mode.unwrap_or(ClaudeAuthMode::HostMachine)
    }

    pub(super) fn providers(&mut self) -> BTreeMap<&'static str, Provider> {
        let mut providers = BTreeMap::new();
        let file = self.file;
        let default = file::Acp::default();
        let acp = file.providers.acp.as_ref().unwrap_or(&default);
        let is_acp_named = acp.command.is_some() || !acp.agents.is_empty();
        if acp.enabled.unwrap_or(is_acp_named) {
            let provider = self.acp(acp);
            providers.insert("acp", provider);
        }
        let clis = [
            ("codex", "Codex", &file.providers.codex, CODEX_SESSIONS_EACH),
            ("claude", "Claude", &file.providers.claude, CLAUDE_SESSIONS_EACH),
        ];
        for (name, display_name, cli, each) in clis {
            let default = file::Cli::default();
            let is_there = || find_program(name, &self.path).is_some();
            let is_on = cli.as_ref().map_or_else(is_there, |cli| cli.enabled.unwrap_or(true));
            if is_on {
                let cli = cli.as_ref().unwrap_or(&default);
                let provider = self.cli(name, display_name, cli, each);
                providers.insert(name, provider);
            }
        }
        let is_named =
            |cli: &Option<file::Cli>| cli.as_ref().is_some_and(|cli| cli.enabled.unwrap_or(true));
        let is_other_named = providers.contains_key("acp")
            || is_named(&file.providers.codex)
            || is_named(&file.providers.claude);
        let is_demo = file.providers.demo.as_ref().and_then(|demo| demo.enabled);
        if is_demo.unwrap_or(!is_other_named) {
            let default = file::Vendor::default();
            let demo = file.providers.demo.as_ref().unwrap_or(&default);
            let agent =
                Agent { command: None, args: Vec::new(), env: BTreeMap::new(), title: None };
            let provider = Provider {
                client_fs: true,
                client_terminal: true,
                ..self.vendor("demo", "Demo", demo, only(agent), DEMO_EACH)
            };
            providers.insert("demo", provider);
        }
        if providers.is_empty() {
            self.problem(
                "no provider is enabled; name an agent under [providers.acp], or enable the demo",
            );
        }
        providers
    }

    /// A provider whose program is on PATH under its own name unless the file names another.
    fn cli(
        &mut self,
        name: &'static str,
        display_name: &'static str,
        cli: &file::Cli,
        each: usize,
    ) -> Provider {
        let command = cli.command.as_deref().map_or(name, str::trim);
        if command.is_empty() {
            self.problem(format!("providers.{name}.command is blank; name the program"));
        }
        let agent = Agent {
            command: Some(command.to_owned()),
            args: cli.args.clone(),
            env: cli.env.clone(),
            title: None,
        };
        let vendor = file::Vendor {
            enabled: cli.enabled,
            max_instances: cli.max_instances,
            max_sessions_per_instance: cli.max_sessions_per_instance,
            turn_timeout_secs: cli.turn_timeout_secs,
            request_timeout_secs: cli.request_timeout_secs,
            idle_sleep_secs: cli.idle_sleep_secs,
            env_passthrough: cli.env_passthrough.clone(),
        };
        self.vendor(name, display_name, &vendor, only(agent), [4, each])
    }

    /// `most` = instances, and sessions of each, where the file does not say.
    fn vendor(
        &mut self,
        name: &str,
        display_name: &'static str,
        vendor: &file::Vendor,
        agents: BTreeMap<String, Agent>,
        most: [usize; 2],
    ) -> Provider {
        let key = |field: &str| format!("providers.{name}.{field}");
        let instances =
            self.within(&key("max_instances"), vendor.max_instances, 1..=LIVE_MOST, most[0]);
        let each = self.within(
            &key("max_sessions_per_instance"),
            vendor.max_sessions_per_instance,
            1..=LIVE_MOST,
            most[1],
        );
        let request = key("request_timeout_secs");
        Provider {
            display_name,
            live_max: instances.saturating_mul(each),
            request_timeout: self.seconds(&request, vendor.request_timeout_secs, 30),
            turn_timeout: self.unless_zero(&key("turn_timeout_secs"), vendor.turn_timeout_secs, 0),
            idle_sleep: self.unless_zero(
                &key("idle_sleep_secs"),
                vendor.idle_sleep_secs,
                IDLE_SLEEP_SECS,
            ),
            env_passthrough: vendor.env_passthrough.clone(),
            client_fs: false,
            client_terminal: false,
            agents,
        }
    }

    /// A span of seconds; 0 = None.
    fn unless_zero(&mut self, key: &str, value: Option<u64>, default: u64) -> Option<Duration> {
        let secs = self.within(key, value, 0..=CENTURY_SECS, default);
        Some(Duration::from_secs(secs)).filter(|span| !span.is_zero())
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
        let vendor = file::Vendor {
            enabled: acp.enabled,
            max_instances: acp.max_instances,
            max_sessions_per_instance: acp.max_sessions_per_instance,
            turn_timeout_secs: acp.turn_timeout_secs,
            request_timeout_secs: acp.request_timeout_secs,
            idle_sleep_secs: acp.idle_sleep_secs,
            env_passthrough: acp.env_passthrough.clone(),
        };
        Provider {
            client_fs: acp.client_fs.unwrap_or(false),
            client_terminal: acp.client_terminal.unwrap_or(false),
            ..self.vendor("acp", "ACP", &vendor, agents, ACP_EACH)
        }
    }

    fn agent(
        &mut self,
        key: &str,
        command: Option<&String>,
        transport: Option<&String>,
    ) -> Option<String> {
        if transport.is_some_and(|transport| transport != "stdio") {
            let key = format!("{key}.transport");
            let text = transport.map_or("", String::as_str);
            self.problem(format!("{key} is {text:?}; it can only be \"stdio\""));
        }
        let command = command.map(|command| command.trim()).filter(|command| !command.is_empty());
        if command.is_none() {
            self.problem(format!("{key}.command is missing; name the agent's program"));
        }
        command.map(str::to_owned)
    }
}

/// A provider with one agent.
fn only(agent: Agent) -> BTreeMap<String, Agent> {
    BTreeMap::from([("default".to_owned(), agent)])
}
