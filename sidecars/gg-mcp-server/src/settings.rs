//! What the environment tells the sidecar.
//!
//! Read once, before the first thread. A variable that is missing is not an error here: the tools that need it say so
//! when they are called, so that an agent can tell its user.

use std::path::PathBuf;

pub(crate) struct Settings {
    pub(crate) url: Option<String>,
    /// Holds the URL that is good now; wins over `url`.
    pub(crate) url_file: Option<PathBuf>,
    pub(crate) token: Option<String>,
    /// Holds the token; wins over `token`.
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) caller_agent_id: Option<String>,
    /// Each call must name its caller in its arguments.
    pub(crate) is_caller_in_call: bool,
    pub(crate) has_process_tools: bool,
}

pub(crate) const URL: &str = "GG_MCP_GATEWAY_URL";
const URL_FILE: &str = "GG_MCP_GATEWAY_URL_FILE";
pub(crate) const TOKEN: &str = "GG_MCP_GATEWAY_TOKEN";
pub(crate) const CALLER: &str = "GG_MCP_CALLER_AGENT_ID";
const TOKEN_FILE: &str = "GG_MCP_GATEWAY_TOKEN_FILE";
const CALLER_IN_CALL: &str = "GG_MCP_REQUIRE_TOOL_CALLER_AGENT_ID";
const PROCESS_TOOLS: &str = "GG_MCP_ENABLE_PROCESS_TOOLS";

impl Settings {
    pub(crate) fn from_env() -> Settings {
        let text = |name: &str| std::env::var(name).ok().filter(|text| !text.trim().is_empty());
        Settings {
            url: text(URL),
            url_file: text(URL_FILE).map(PathBuf::from),
            token: text(TOKEN),
            token_file: text(TOKEN_FILE).map(PathBuf::from),
            caller_agent_id: text(CALLER),
            is_caller_in_call: std::env::var(CALLER_IN_CALL).is_ok_and(|text| is_on(&text)),
            has_process_tools: std::env::var(PROCESS_TOOLS).map_or(true, |text| is_on(&text)),
        }
    }
}

fn is_on(text: &str) -> bool {
    !matches!(text.trim().to_lowercase().as_str(), "" | "0" | "false" | "off")
}
