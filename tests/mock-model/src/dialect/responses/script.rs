//! The scripts of Codex's code mode.
//!
//! Owns: the JavaScript by which planned calls become one call of the tool `exec`. Pure. Inside a
//! script the agent offers `tools` (its own by name), `ALL_TOOLS` (what else there is, by name) and
//! `text(…)` (the output that the model sees). Deliberately runs nothing.

use serde_json::json;

use crate::tool::{Call, Input};

/// The custom tool that takes a script.
pub(super) const TOOL: &str = "exec";

/// The agent's own tools inside a script that directives call; they are not told in the request.
pub(super) const TOOLS: [&str; 2] = ["exec_command", "apply_patch"];

/// A script that makes all calls at once and tells their outputs in order, " | " between. A name
/// that is not the agent's own is looked up among all tools, by part of it.
pub(super) fn script(calls: &[Call]) -> String {
    let call = |call: &Call| {
        let input = match &call.input {
            Input::Json(value) => value.clone(),
            Input::Text(text) => json!(text),
        };
        format!("run({}, {input})", json!(call.tool.name))
    };
    let calls: Vec<String> = calls.iter().map(call).collect();
    format!(
        r#"const own = {own};
const all = () => ALL_TOOLS.map((tool) => tool.name);
const find = (name) => own.includes(name) ? name : all().find((full) => full.includes(name));
const show = (r) => typeof r === "string" ? r
  : Array.isArray(r?.content) ? r.content.map((c) => c.text ?? "").join("")
  : r?.output ?? JSON.stringify(r);
const run = async (name, input) => {{
  const found = find(name);
  return found ? show(await tools[found](input)) : "mock: no tool whose name contains " + name;
}};
text((await Promise.all([{calls}])).join(" | "));
"#,
        own = json!(TOOLS),
        calls = calls.join(", "),
    )
}
