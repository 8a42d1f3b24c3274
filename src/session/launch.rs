//! How an agent is started: its program, its environment, its folder.
//!
//! An agent's environment is made anew (see [`crate::environment`]): what every program needs, what its provider stages
//! for it ([`crate::provider::stage`]), what the configuration and the session add.

use super::Shared;
use super::actor::Actor;
use crate::config::Provider;
use crate::environment;
use crate::error::{Code, Error, Result};
use crate::keeper::{JournalPolicy, Policy, Spec};
use crate::ledger::session;
use crate::provider::{
    self, claude,
    stage::{self, Staging},
};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The journal of stderr keeps this much of its end.
const STDERR_JOURNAL_BYTES: u64 = 256 * 1024;

/// What the keeper needs to start this session's agent.
pub(super) fn agent_spec(actor: &Actor, child_id: &str) -> Result<Spec> {
    let shared = &actor.shared;
    let session_id = &actor.session_id;
    let private = shared.ledger.read(|db| session::get_private(db, session_id))?;
    let settings = shared.provider(&actor.provider);
    let agent = settings.agents.get(&actor.agent_name).ok_or_else(|| {
        Error::new(
            Code::Conflict,
            format!("the agent {:?} is not in the configuration any more", actor.agent_name),
        )
    })?;
    let mut env = environment::passed_on(&settings.env_passthrough);
    let of_session: BTreeMap<String, String> =
        serde_json::from_str(&private.env).unwrap_or_default();
    let mut given = agent.env.clone();
    given.extend(of_session);
    let (providers_dir, claude_auth_mode) =
        (&shared.config.providers_dir, shared.config.claude_auth_mode);
    let staging = Staging { providers_dir, session_id, given: &given, claude_auth_mode };
    let staged = stage::stage(&actor.provider, &staging, &mut env)?;
    env.extend(given);
    let program = program(shared, settings, &actor.agent_name, &env)?;
    let mut argv = vec![program.to_string_lossy().into_owned()];
    if &*actor.provider == "claude" {
        env.insert(claude::stage::PROGRAM.to_owned(), argv.remove(0));
        argv = claude_bridge(shared)?;
    }
    argv.extend(provider::arguments(&actor.provider).iter().map(|&word| word.to_owned()));
    argv.extend(staged.into_iter().chain(agent.args.iter().cloned()));
    let cwd = PathBuf::from(&private.agent_cwd);
    if !cwd.is_dir() {
        return Err(Error::new(
            Code::Conflict,
            format!("the session's folder {} is gone", cwd.display()),
        ));
    }
    Ok(Spec {
        stdout: JournalPolicy { policy: Policy::Block, bytes_max: shared.config.journal_bytes_max },
        stderr: drop_oldest(STDERR_JOURNAL_BYTES),
        stdin_pipe: true,
        ..spec(shared, child_id, argv, env, cwd)
    })
}

/// The common part of every kept child.
pub(super) fn spec(
    shared: &Shared,
    child_id: &str,
    argv: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: PathBuf,
) -> Spec {
    let millis =
        |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    Spec {
        child_id: child_id.to_owned(),
        dir: shared.keeper_dir(child_id),
        program: shared.sidecars.keeper.clone(),
        argv: argv.into_iter().map(Into::into).collect(),
        env: env.into_iter().collect(),
        cwd,
        stdout: drop_oldest(STDERR_JOURNAL_BYTES),
        stderr: drop_oldest(STDERR_JOURNAL_BYTES),
        grace_ms: millis(shared.config.keeper_grace),
        lease_ms: millis(shared.config.keeper_lease),
        stdin_pipe: false,
    }
}

/// A journal that keeps the end of what was written.
pub(super) fn drop_oldest(bytes_max: u64) -> JournalPolicy {
    JournalPolicy { policy: Policy::DropOldest, bytes_max }
}

fn program(
    shared: &Shared,
    provider: &Provider,
    agent_name: &str,
    env: &BTreeMap<String, String>,
) -> Result<PathBuf> {
    let command = provider.agents.get(agent_name).and_then(|agent| agent.command.as_deref());
    let Some(command) = command else { return Ok(shared.sidecars.demo_agent.clone()) };
    let path = env.get("PATH").map(String::as_str).unwrap_or_default();
    environment::find_program(command, path).ok_or_else(|| {
        Error::new(Code::AgentFailed, format!("the program {command:?} is not on PATH"))
            .hint("install it, or give its whole path in the configuration")
    })
}

/// The command line of the bridge to Claude; arguments for the program behind it may follow.
fn claude_bridge(shared: &Shared) -> Result<Vec<String>> {
    let bridge = shared.sidecars.claude_bridge.clone();
    bridge.ok_or_else(|| {
        Error::new(Code::AgentFailed, "claude-bridge is not beside the server's program").hint(
            "build the whole workspace (make build), install the whole bundle, or name it with \
             GG_CLAUDE_BRIDGE_COMMAND",
        )
    })
}
