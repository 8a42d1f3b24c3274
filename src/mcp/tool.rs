//! The table of tools.
//!
//! Each is one row: its name, how it is shown (description and schema of its arguments, from which they are checked),
//! and what it does. A new tool is a new row here; what a family of tools does is in the file of its name.

use super::{Gateway, Invocation, manage, process, team, worktree};
use crate::config::Config;
use crate::error::{Code, Error};
use serde_json::{Value, json};

/// One tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    pub(super) feature: Feature,
    /// As `tools/list` shows it.
    pub(super) shown: fn() -> Value,
    /// Its arguments are as its schema wants them, and its feature is on.
    pub(super) run: fn(&Gateway, &Invocation) -> Result<Value, ToolError>,
}

/// What must be on in the configuration for a tool to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Feature {
    /// Nothing. The tools for processes are always there: those that run are looked after also when no new ones may be
    /// started.
    Always,
    Teams,
    Worktrees,
}

pub(super) static TOOLS: &[Tool] = &[
    Tool {
        name: gg_mcp_server::PING,
        feature: Feature::Always,
        shown: gg_mcp_server::ping_tool,
        run: ping,
    },
    process::RUN,
    process::STATUS,
    process::LOGS,
    process::KILL,
    worktree::STATUS,
    team::STATUS,
    team::MESSAGE,
    team::INTERRUPT,
    team::ACTIVITY,
    manage::MANAGE,
];

impl Feature {
    pub(super) fn is_on(self, config: &Config) -> bool {
        match self {
            Feature::Always => true,
            Feature::Teams => config.teams.is_enabled,
            Feature::Worktrees => config.worktrees.is_enabled,
        }
    }

    /// Why its tools are not there.
    pub(super) fn refusal(self) -> ToolError {
        let message = match self {
            Feature::Always => "",
            Feature::Teams => "teams are off in the configuration (teams.enabled)",
            Feature::Worktrees => "worktrees are off in the configuration (worktrees.enabled)",
        };
        ToolError { code: ToolCode::FeatureDisabled, message: message.to_owned() }
    }
}

/// Why a tool did not do what it was asked for, in words that agents branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolCode {
    /// No such tool, or arguments that it does not take.
    BadRequest,
    /// The caller may not do this, or not to that.
    Unauthorized,
    NotFound,
    /// The configuration has switched the tool's family off.
    FeatureDisabled,
    /// A recipient's agent takes no images.
    UnsupportedProviderImages,
    UnknownModelPreset,
    /// The same call is being carried out.
    DuplicateInvocation,
    /// Anything else.
    ToolFailed,
}

impl ToolCode {
    pub fn as_str(self) -> &'static str {
        match self {
            ToolCode::BadRequest => "bad_request",
            ToolCode::Unauthorized => "unauthorized",
            ToolCode::NotFound => "not_found",
            ToolCode::FeatureDisabled => "feature_disabled",
            ToolCode::UnsupportedProviderImages => "unsupported_provider_images",
            ToolCode::UnknownModelPreset => "unknown_model_preset",
            ToolCode::DuplicateInvocation => "duplicate_tool_invocation_in_progress",
            ToolCode::ToolFailed => "tool_failed",
        }
    }
}

impl Tool {
    /// Whether it changes nothing, as it is shown.
    pub(super) fn is_read_only(&self) -> bool {
        (self.shown)()["annotations"]["readOnlyHint"] == true
    }
}

#[derive(Debug)]
pub struct ToolError {
    pub code: ToolCode,
    pub message: String,
}

impl ToolError {
    pub(super) fn bad_request(message: String) -> ToolError {
        ToolError { code: ToolCode::BadRequest, message }
    }

    pub(super) fn unauthorized(message: String) -> ToolError {
        ToolError { code: ToolCode::Unauthorized, message }
    }

    /// An error of the floors beneath under a code of ours. What only the log may see goes there.
    pub(super) fn of(code: ToolCode, error: &Error) -> ToolError {
        if error.code == Code::Internal || error.source.is_some() {
            log::warn!("a tool was answered {}: {error}", code.as_str());
        }
        ToolError { code, message: error.told() }
    }
}

/// The family of a tool: what stands before the second underline; empty for a tool without one.
pub(super) fn namespace(tool: &str) -> &str {
    tool.match_indices('_').nth(1).map_or("", |(end, _)| &tool[..end])
}

/// How a tool is shown that takes these arguments and no others.
pub(super) fn shown(
    name: &str,
    description: &str,
    is_read_only: bool,
    properties: &Value,
    required: &[&str],
) -> Value {
    json!({
        "name": name,
        "description": description,
        "inputSchema": {
            "type": "object",
            "properties": properties,
            "required": required,
            "additionalProperties": false,
        },
        "annotations": {"readOnlyHint": is_read_only},
    })
}

fn ping(_gateway: &Gateway, invocation: &Invocation) -> Result<Value, ToolError> {
    Ok(json!({
        "name": "gooselake",
        "version": env!("CARGO_PKG_VERSION"),
        "caller_agent_id": invocation.session_id,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_shows_its_own_name_a_description_and_a_schema_that_is_strict() {
        for tool in TOOLS {
            let shown = (tool.shown)();
            assert_eq!(shown["name"], tool.name);
            assert!(shown["description"].as_str().is_some_and(|text| text.len() > 20), "{shown}");
            let schema = &shown["inputSchema"];
            assert_eq!(schema["type"], "object", "{shown}");
            assert_eq!(schema["additionalProperties"], false, "{shown}");
            for name in schema["required"].as_array().into_iter().flatten() {
                assert!(schema["properties"][name.as_str().unwrap()].is_object(), "{shown}");
            }
        }
    }

    #[test]
    fn a_family_is_what_stands_before_the_second_underline() {
        assert_eq!(namespace("gg_process_run"), "gg_process");
        assert_eq!(namespace("gg_ping"), "");
        assert_eq!(namespace(""), "");
    }
}
