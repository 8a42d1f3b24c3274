//! What failures mean: the end of an agent for its turn, an error of ours for a turn, an agent's for a client.
//!
//! Pure functions, on the caller's thread. They deliberately change nothing.

use super::actor::Stop;
use crate::error::{Code, Error};
use crate::keeper::Exit;
use crate::provider::AgentError;
use serde_json::{Value, json};

/// What an exit means for the turn that it ended.
pub(super) fn exit_error(exit: &Exit, stderr: &str, why: Option<Stop>) -> AgentError {
    let how = match (&exit.error, exit.code, exit.signal) {
        (Some(error), ..) => error.clone(),
        (None, Some(code), _) => format!("the agent ended with exit code {code}"),
        (None, None, Some(signal)) => format!("the agent was ended by signal {signal}"),
        (None, None, None) => "the agent is gone".to_owned(),
    };
    let message = match why {
        Some(Stop::Unresponsive) => {
            format!("the agent did not answer in time and was ended ({how})")
        }
        _ => how,
    };
    // What a program says of its own backtraces is no reason.
    let mut lines = stderr.trim_end().lines().rev();
    let last_line = lines.find(|line| !line.starts_with("note: ")).unwrap_or_default();
    AgentError {
        message: if last_line.is_empty() { message } else { format!("{message}: {last_line}") },
        code: "agent_exited".to_owned(),
        data: json!({"exit_code": exit.code, "signal": exit.signal, "stopped_by": exit.stopped_by}),
    }
}

/// What an error of ours means for a turn.
pub(super) fn agent_error(error: &Error) -> AgentError {
    AgentError {
        // With what is behind it: "too many open files" is what there is to know.
        message: error.to_string(),
        code: error.code.as_str().to_owned(),
        data: Value::Null,
    }
}

/// What a client is told when its agent could not be had.
pub(super) fn client_error(error: &AgentError) -> Error {
    let code = match error.code.as_str() {
        "agent_timeout" => Code::AgentTimeout,
        "capacity" => Code::Capacity,
        _ => Code::AgentFailed,
    };
    let told = Error::new(code, format!("the agent could not be opened: {}", error.message));
    match error.code.as_str() {
        "authentication_required" => {
            told.hint("log in with the agent's own program, or give it its key")
        }
        "permission_mode_unavailable" => told.hint(
            "take another permission_mode; Claude never runs without questions as root, but where \
             IS_SANDBOX=1 says that the machine is a sandbox",
        ),
        _ => told,
    }
}
