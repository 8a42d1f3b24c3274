//! The table of tools.
//!
//! Each is one row: its name, how it is shown (description and schema of its arguments, from which they are checked),
//! and what it does. A new tool is a new row, and nothing else anywhere.

use super::{Gateway, Invocation};
use serde_json::{Value, json};

/// One tool.
pub(super) struct Tool {
    pub(super) name: &'static str,
    /// As `tools/list` shows it.
    pub(super) shown: fn() -> Value,
    /// Its arguments are as its schema wants them.
    pub(super) run: fn(&Gateway, &Invocation) -> Result<Value, ToolError>,
}

pub(super) static TOOLS: &[Tool] =
    &[Tool { name: gg_mcp_server::PING, shown: gg_mcp_server::ping_tool, run: ping }];

/// Why a tool did not do what it was asked for, in words that agents branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ToolCode {
    /// No such tool, or arguments that it does not take.
    BadRequest,
}

impl ToolCode {
    pub fn as_str(self) -> &'static str {
        match self {
            ToolCode::BadRequest => "bad_request",
        }
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
}

/// The family of a tool: what stands before the second underline; empty for a tool without one.
pub(super) fn namespace(tool: &str) -> &str {
    tool.match_indices('_').nth(1).map_or("", |(end, _)| &tool[..end])
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
            assert_eq!(shown["inputSchema"]["type"], "object", "{shown}");
            assert_eq!(shown["inputSchema"]["additionalProperties"], false, "{shown}");
        }
    }

    #[test]
    fn a_family_is_what_stands_before_the_second_underline() {
        assert_eq!(namespace("gg_process_run"), "gg_process");
        assert_eq!(namespace("gg_ping"), "");
        assert_eq!(namespace(""), "");
    }
}
