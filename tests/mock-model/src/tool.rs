//! Tools: which of an agent's tools does what, and how each wants its input.
//!
//! Owns: the tool names and input shapes of the real agents, as recorded from them. Pure.
//! Deliberately small: the shell tool and the writing tool only; every other tool is called with
//! the JSON that the directive gives.

use serde_json::{Value, json};

use crate::conversation::Tool;

/// What a tool is called with.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A JSON object.
    Json(Value),
    /// Free text, for tools that take a grammar of their own (`apply_patch`, the script tool).
    Text(String),
}

impl Input {
    /// The input as a JSON object, for vendors that know no free text.
    pub fn object(&self) -> Value {
        match self {
            Input::Json(value) => value.clone(),
            Input::Text(text) => json!({ "input": text }),
        }
    }
}

/// One call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which tool.
    pub tool: Tool,
    /// With what.
    pub input: Input,
}

/// The shell tools by preference. A name stands for one agent's input shape.
const SHELLS: [&str; 6] =
    ["Bash", "exec_command", "shell_command", "shell", "run_shell_command", "bash"];

/// The file-writing tools by preference.
const WRITERS: [&str; 4] = ["Write", "write_file", "write", "apply_patch"];

/// The call that runs a command. `escalate` asks to run outside the sandbox, where the tool can.
pub fn shell_call(tools: &[Tool], command: &str, escalate: bool) -> Option<Call> {
    let tool = first_of(tools, &SHELLS)?;
    let mut input = match tool.name.as_str() {
        "exec_command" => json!({ "cmd": command, "yield_time_ms": 10_000 }),
        "shell" => json!({ "command": ["bash", "-lc", command] }),
        "shell_command" => json!({ "command": command }),
        _ => json!({ "command": command, "description": "a command from the mock model" }),
    };
    if escalate && matches!(tool.name.as_str(), "exec_command" | "shell_command") {
        input["sandbox_permissions"] = json!("require_escalated");
        input["justification"] = json!("the mock model wants to leave the sandbox");
    }
    Some(Call { tool, input: Input::Json(input) })
}

/// The call that writes a file.
pub fn write_call(tools: &[Tool], path: &str, content: &str) -> Option<Call> {
    let tool = first_of(tools, &WRITERS)?;
    let input = match tool.name.as_str() {
        "apply_patch" => Input::Text(patch_adding(path, content)),
        "write" => Input::Json(json!({ "filePath": path, "content": content })),
        _ => Input::Json(json!({ "file_path": path, "content": content })),
    };
    Some(Call { tool, input })
}

fn patch_adding(path: &str, content: &str) -> String {
    let lines: String = content.lines().map(|line| format!("+{line}\n")).collect();
    format!("*** Begin Patch\n*** Add File: {path}\n{lines}*** End Patch\n")
}

fn first_of(tools: &[Tool], wanted: &[&str]) -> Option<Tool> {
    wanted.iter().find_map(|name| {
        tools.iter().find(|tool| tool.namespace.is_none() && tool.name == *name).cloned()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(names: &[&str]) -> Vec<Tool> {
        names.iter().map(|name| Tool::plain(*name)).collect()
    }

    #[test]
    fn each_agent_gets_its_own_shape_of_a_command() {
        let input = |name: &str| match shell_call(&offered(&["other", name]), "ls", true) {
            Some(Call { input: Input::Json(value), .. }) => value,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(input("Bash")["command"], "ls");
        assert_eq!(input("exec_command")["cmd"], "ls");
        assert_eq!(input("exec_command")["sandbox_permissions"], "require_escalated");
        assert_eq!(input("shell")["command"][2], "ls");
        assert_eq!(input("run_shell_command").get("sandbox_permissions"), None);
    }

    #[test]
    fn a_plain_command_does_not_ask_to_leave_the_sandbox() {
        let call = shell_call(&offered(&["exec_command"]), "ls", false).unwrap();
        assert_eq!(call.input.object().get("sandbox_permissions"), None);
    }

    #[test]
    fn a_patch_adds_every_line() {
        let call = write_call(&offered(&["apply_patch"]), "a.txt", "one\ntwo").unwrap();
        let patch = "*** Begin Patch\n*** Add File: a.txt\n+one\n+two\n*** End Patch\n";
        assert_eq!(call.input, Input::Text(patch.into()));
    }

    #[test]
    fn a_tool_in_a_namespace_is_not_the_agents_own() {
        let tool = Tool { name: "bash".into(), namespace: Some("elsewhere".into()) };
        assert_eq!(shell_call(&[tool], "ls", false), None);
        assert_eq!(write_call(&[], "a", "b"), None);
    }
}
