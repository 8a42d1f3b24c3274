//! Floor 6: the MCP gateway, through which agents act on the runtime.
//!
//! Owns: the one table of tools ([`tool`]), the check of arguments against a tool's own schema, who may call what, and
//! the record of each call in the caller's session, committed before the caller is answered. Tools call the
//! same functions as the HTTP routes. Runs on the thread of whoever calls.
//!
//! The parts: `record` (what the log has of a call), `line` (whose calls wait for each other), `tool` (the table),
//! `schema` and `argument` (what a call says), and one file for each family of tools: `process`, `worktree`, `team`;
//! `manage` is the tool that changes who is in a team.
//!
//! Promises: a call that is refused changes nothing but the log; what is written of arguments and results is bounded.
//! It deliberately knows no HTTP and no JSON-RPC: `api::mcp` reads requests, `gg_mcp_server::rpc` knows the protocol.

mod argument;
mod line;
mod manage;
mod process;
mod record;
mod schema;
mod team;
mod tool;
mod worktree;

use crate::config::Config;
use crate::error::{Code, Error, Result};
use crate::ledger::idempotency::{IdempotencyKey, body_hash};
use crate::ledger::{Ledger, session, token};
use crate::process::Processes;
use crate::secret;
use crate::team::Teams;
use crate::worktree::Worktrees;
use line::{Line, NoPlace};
use record::Call;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tool::{Tool, ToolCode};

pub use tool::ToolError;

/// The gateway of this server.
pub struct Gateway {
    config: Arc<Config>,
    ledger: Ledger,
    processes: Processes,
    worktrees: Worktrees,
    teams: Teams,
    line: Line,
}

/// A call of a tool.
#[derive(Debug)]
pub struct Invocation {
    /// In whose name.
    pub session_id: String,
    pub called_by: CalledBy,
    pub tool: String,
    /// The caller's own id of the call. The same call under the same id is carried out once, where that matters.
    pub invocation_id: Option<String>,
    pub arguments: Value,
}

/// Whose token a call came with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CalledBy {
    Agent,
    Operator,
}

impl CalledBy {
    fn as_str(self) -> &'static str {
        match self {
            CalledBy::Agent => "agent",
            CalledBy::Operator => "operator",
        }
    }
}

impl Gateway {
    pub fn new(
        config: Arc<Config>,
        ledger: Ledger,
        processes: Processes,
        worktrees: Worktrees,
        teams: Teams,
    ) -> Gateway {
        Gateway { config, ledger, processes, worktrees, teams, line: Line::default() }
    }

    /// Errors: the configuration has switched the gateway off.
    pub fn check_enabled(&self) -> Result<()> {
        if self.config.is_mcp_enabled {
            return Ok(());
        }
        Err(Error::new(Code::NotFound, "the MCP gateway is switched off")
            .hint("set mcp.enabled = true in the configuration"))
    }

    /// The session whose agent has this token, if any has.
    pub fn session_of_token(&self, token: &str) -> Result<Option<String>> {
        let token_hash = secret::hash(token);
        self.ledger.read(|db| token::session_of(db, &token_hash))
    }

    /// The tools as `tools/list` shows them.
    pub fn tools(&self) -> Vec<Value> {
        let shown = |tool: &Tool| {
            let mut shown = (tool.shown)();
            if tool.name == manage::MANAGE.name {
                manage::name_presets(&mut shown, &self.config.teams);
            }
            shown
        };
        self.those_on().map(shown).collect()
    }

    /// The rows of the table whose features are on.
    fn those_on(&self) -> impl Iterator<Item = &'static Tool> {
        tool::TOOLS.iter().filter(|tool| tool.feature.is_on(&self.config))
    }

    /// What the gateway has, for clients that ask before they call.
    pub fn capabilities(&self) -> Value {
        let names: Vec<&str> = self.those_on().map(|tool| tool.name).collect();
        let teams = &self.config.teams;
        let has = |namespace: &str| names.iter().any(|name| tool::namespace(name) == namespace);
        let namespaces = ["gg_process", "gg_team", "gg_worktree"].map(|name| (name, has(name)));
        json!({
            "ggProcessEnabled": self.config.processes.enabled,
            "ggTeamEnabled": teams.is_enabled,
            "ggTeamManagePermissions": {
                "nonLeadCanAddMembers": teams.non_lead_can_add_members,
                "nonLeadCanRemoveMembers": teams.non_lead_can_remove_members,
            },
            "ggTeamModelPresets": teams.preset_names(),
            "supportedNamespaces":
                namespaces.iter().filter(|(_, has)| *has).map(|(name, _)| name).collect::<Vec<_>>(),
            "tools": names,
            "toolSchemas": self.tools(),
        })
    }

    /// Calls a tool and gives its envelope, when the call is in the log of the caller's session. Errors: the session is
    /// gone, or the log can not be written.
    pub fn invoke(&self, invocation: Invocation) -> Result<Value> {
        let mut call = Call::of(&invocation);
        // What one session does in teams is done in the order in which it asks: a message to a teammate that is being
        // made waits until it is there.
        let place = if tool::namespace(&invocation.tool) == IN_LINE {
            match self.line.take(&invocation.session_id, invocation.name(), LINE_PATIENCE) {
                Ok(place) => Some(place),
                Err(why) => return self.end(call, &Err(no_place(why))),
            }
        } else {
            None
        };
        let outcome = match self.checked(&invocation) {
            Ok(tool) => {
                if !tool.is_read_only() {
                    self.begin(&mut call)?;
                }
                (tool.run)(self, &invocation)
            }
            Err(error) => Err(error),
        };
        let envelope = self.end(call, &outcome)?;
        drop(place);
        Ok(envelope)
    }

    /// The tool that is called. Errors: there is none, or it does not take such a call.
    fn checked(&self, invocation: &Invocation) -> std::result::Result<&'static Tool, ToolError> {
        let name = &invocation.tool;
        let Some(tool) = tool::TOOLS.iter().find(|tool| tool.name == name) else {
            let names: Vec<&str> = self.those_on().map(|tool| tool.name).collect();
            let told = format!("there is no tool {name:?}; there are {}", names.join(", "));
            return Err(ToolError::bad_request(told));
        };
        if !tool.feature.is_on(&self.config) {
            return Err(tool.feature.refusal());
        }
        if invocation.invocation_id.as_ref().is_some_and(|id| id.len() > INVOCATION_ID_BYTES) {
            let told = format!("invocation_id: must have {INVOCATION_ID_BYTES} bytes at most");
            return Err(ToolError::bad_request(told));
        }
        schema::check(&(tool.shown)()["inputSchema"], &invocation.arguments)
            .map_err(ToolError::bad_request)?;
        Ok(tool)
    }

    /// The folder that the caller works in.
    fn cwd(&self, invocation: &Invocation) -> Result<Option<String>> {
        self.ledger.read(|db| Ok(session::get(db, &invocation.session_id)?.cwd))
    }

    /// A path as the caller means it: from the folder that it works in.
    fn path(&self, invocation: &Invocation, path: &str) -> Result<String> {
        let cwd = self.cwd(invocation)?.unwrap_or_default();
        let path = Path::new(&cwd).join(path.trim()).into_os_string().into_string();
        Ok(path.expect("both parts are texts"))
    }
}

impl Invocation {
    /// The same for the same call that is made again; None for a call without an id.
    fn name(&self) -> Option<String> {
        let IdempotencyKey { route, key, body_hash } = self.idempotency()?;
        Some(format!("{route} {key} {body_hash}"))
    }

    /// What makes a call that is made again the same call.
    fn idempotency(&self) -> Option<IdempotencyKey> {
        let key = self.invocation_id.clone()?;
        let route = format!("{} of {}", self.tool, self.session_id);
        Some(IdempotencyKey {
            route,
            key,
            body_hash: body_hash(self.arguments.to_string().as_bytes()),
        })
    }
}

fn no_place(why: NoPlace) -> ToolError {
    let (code, message) = match why {
        NoPlace::Busy => {
            (ToolCode::ToolFailed, "earlier calls of yours go on; wait until they are answered")
        }
        NoPlace::Same => (ToolCode::DuplicateInvocation, "this call goes on already"),
    };
    ToolError { code, message: message.to_owned() }
}

/// The longest id of a call, as that of any request.
const INVOCATION_ID_BYTES: usize = 255;

/// The family whose calls are one after the other, of one caller each.
const IN_LINE: &str = "gg_team";
/// How long a call waits for those before it: as long as a teammate may take to come.
const LINE_PATIENCE: Duration = Duration::from_secs(180);
