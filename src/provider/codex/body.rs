//! What Codex tells of an item, in our words.
//!
//! Owns: the item types and their fields. Pure functions over one `ThreadItem`; deliberately knows nothing of what
//! is open.

use crate::model::{ItemStatus, ItemType};
use crate::provider::diff;
use crate::provider::rpc::{cut, list, object, text};
use serde_json::{Map, Value, json};

/// What is kept of an item of a type that we do not know, and of one value whose size nobody bounds.
const OTHER_BYTES_MAX: usize = 16 * 1024;
/// Fields that an item of an unknown type does not repeat.
const ENVELOPE: [&str; 5] = ["id", "type", "status", "startedAtMs", "completedAtMs"];

pub(super) fn item_type(item: &Map<String, Value>) -> ItemType {
    match text(item, "type") {
        "agentMessage" => ItemType::AssistantMessage,
        "reasoning" => ItemType::Reasoning,
        "commandExecution" => ItemType::Command,
        "fileChange" => ItemType::FileChange,
        "mcpToolCall" | "dynamicToolCall" | "collabAgentToolCall" => ItemType::ToolCall,
        "webSearch" => ItemType::WebSearch,
        "plan" => ItemType::Plan,
        "imageView" | "imageGeneration" => ItemType::Image,
        "contextCompaction" | "enteredReviewMode" | "exitedReviewMode" => ItemType::Notice,
        _ => ItemType::Other,
    }
}

/// The fields of the item but for what comes in pieces (see [`whole`]).
pub(super) fn fields(item: &Map<String, Value>) -> Map<String, Value> {
    let mut body = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() && value != json!("") {
            body.insert(name.to_owned(), value);
        }
    };
    let value = |field: &str| item.get(field).cloned().unwrap_or_default();
    match text(item, "type") {
        "agentMessage" | "reasoning" | "plan" => {}
        "commandExecution" => {
            put("command", json!(command(item)));
            put("cwd", value("cwd"));
            // Codex writes -1 for a command that it has ended.
            let exit_code = item.get("exitCode").and_then(Value::as_i64).filter(|code| *code >= 0);
            put("exit_code", json!(exit_code));
        }
        "fileChange" => put("changes", changes(item)),
        "mcpToolCall" => {
            put("server", value("server"));
            put("tool", value("tool"));
            put("arguments", value("arguments"));
            put("result", value("result"));
            put("error", object(item, "error").map_or(Value::Null, |e| json!(text(e, "message"))));
        }
        "dynamicToolCall" => {
            put("server", value("namespace"));
            put("tool", value("tool"));
            put("arguments", value("arguments"));
            put("result", value("contentItems"));
        }
        "collabAgentToolCall" => {
            put("tool", value("tool"));
            let threads = value("receiverThreadIds");
            put("arguments", json!({"prompt": value("prompt"), "threads": threads}));
        }
        "webSearch" => {
            put("query", value("query"));
            put("action", value("action"));
        }
        "imageView" => put("path", value("path")),
        "imageGeneration" => {
            put("path", value("savedPath"));
            put("prompt", value("revisedPrompt"));
        }
        "contextCompaction" => put("text", json!("Compaction of the conversation")),
        "enteredReviewMode" | "exitedReviewMode" => put("text", value("review")),
        other => {
            put("agent_type", json!(cut(other, 100)));
            let mut rest = item.clone();
            rest.retain(|name, _| !ENVELOPE.contains(&name.as_str()));
            put("data", bounded(Value::Object(rest)));
        }
    }
    body
}

/// The text or output of the item, once it is whole.
pub(super) fn whole(item: &Map<String, Value>) -> Option<String> {
    let told = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned);
    match text(item, "type") {
        "agentMessage" | "plan" => told("text"),
        "commandExecution" => told("aggregatedOutput"),
        "reasoning" => {
            let parts = |field| -> Vec<&str> {
                list(item, field).iter().filter_map(Value::as_str).collect()
            };
            let summary = parts("summary");
            Some(if summary.is_empty() { parts("content") } else { summary }.join("\n\n"))
        }
        _ => None,
    }
}

pub(super) fn status(item: &Map<String, Value>) -> ItemStatus {
    match text(item, "status") {
        "failed" => ItemStatus::Failed,
        "declined" => ItemStatus::Declined,
        "interrupted" => ItemStatus::Interrupted,
        _ => ItemStatus::Completed,
    }
}

/// The command that the model wrote, without the shell that Codex runs it with.
pub(super) fn command(item: &Map<String, Value>) -> String {
    let actions = list(item, "commandActions");
    let inner = match actions {
        [action] => action.get("command").and_then(Value::as_str),
        // A pipe or a list is told in parts, and not how they are joined.
        _ => None,
    };
    let whole = text(item, "command");
    inner.map_or_else(|| unwrapped(whole), str::to_owned)
}

/// `/bin/bash -lc '…'` is what stands between the quotes.
fn unwrapped(command: &str) -> String {
    let inner = command
        .split_once(" -lc '")
        .filter(|(shell, _)| shell.starts_with('/') && !shell.contains(' '))
        .and_then(|(_, rest)| rest.strip_suffix('\''));
    match inner {
        // Another quote would have to be put together again.
        Some(inner) if !inner.contains('\'') => inner.to_owned(),
        _ => command.to_owned(),
    }
}

/// `[{path, kind, diff}]`.
pub(super) fn changes(item: &Map<String, Value>) -> Value {
    let changes = list(item, "changes").iter().filter_map(Value::as_object);
    changes.map(change).collect()
}

fn change(change: &Map<String, Value>) -> Value {
    let (path, told) = (text(change, "path"), text(change, "diff"));
    let nothing = Map::new();
    let kind = object(change, "kind").unwrap_or(&nothing);
    let moved_to = text(kind, "move_path");
    let (word, diff) = match text(kind, "type") {
        // The text is the file, not a diff.
        "add" => ("add", diff::unified(path, None, told)),
        "delete" => ("delete", diff::unified(path, Some(told), "")),
        _ => {
            let word = if moved_to.is_empty() { "modify" } else { "move" };
            let to = if moved_to.is_empty() { path } else { moved_to };
            let is_headed = told.starts_with("---") || told.is_empty();
            let head = if is_headed { String::new() } else { format!("--- {path}\n+++ {to}\n") };
            (word, cut(&format!("{head}{told}"), diff::DIFF_BYTES_MAX))
        }
    };
    let mut change = json!({"path": path, "kind": word, "diff": diff});
    if !moved_to.is_empty() {
        change["to"] = json!(moved_to);
    }
    change
}

/// The value, or how long it is.
pub(super) fn bounded(value: Value) -> Value {
    let bytes = value.to_string().len();
    if bytes <= OTHER_BYTES_MAX { value } else { json!({"bytes": bytes}) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> Map<String, Value> {
        fields(value.as_object().unwrap())
    }

    #[test]
    fn a_command_is_what_the_model_wrote() {
        let command = |whole: &str, actions: Value| {
            let item = json!({"type": "commandExecution", "command": whole,
                "commandActions": actions});
            of(item)["command"].as_str().unwrap().to_owned()
        };
        let one = json!([{"type": "unknown", "command": "echo 'a'"}]);
        assert_eq!(command(r#"/bin/bash -lc "echo 'a'""#, one), "echo 'a'");
        let two = json!([{"command": "cat a"}, {"command": "wc"}]);
        assert_eq!(command("/bin/bash -lc 'cat a | wc'", two.clone()), "cat a | wc");
        assert_eq!(command("bash -lc 'it'\\''s'", two), "bash -lc 'it'\\''s'");
    }

    #[test]
    fn file_changes_have_a_diff_each() {
        let item = json!({"type": "fileChange", "changes": [
            {"path": "/a", "kind": {"type": "add"}, "diff": "one\n"},
            {"path": "/b", "kind": {"type": "delete"}, "diff": "two\n"},
            {"path": "/c", "kind": {"type": "update", "move_path": null},
                "diff": "@@ -1 +1 @@\n-x\n+y\n"},
            {"path": "/d", "kind": {"type": "update", "move_path": "/e"}, "diff": ""},
        ]});
        let changes = &of(item)["changes"];
        assert_eq!(changes[0]["diff"], "--- /dev/null\n+++ /a\n@@ -0,0 +1,1 @@\n+one\n");
        assert_eq!(changes[1]["kind"], "delete");
        assert_eq!(changes[2]["diff"], "--- /c\n+++ /c\n@@ -1 +1 @@\n-x\n+y\n");
        assert_eq!((&changes[3]["kind"], &changes[3]["to"]), (&json!("move"), &json!("/e")));
    }

    #[test]
    fn an_item_that_we_do_not_know_is_shown_and_bounded() {
        let body = of(json!({"type": "dream", "id": "1", "of": "sheep"}));
        assert_eq!(body["agent_type"], "dream");
        assert_eq!(body["data"], json!({"of": "sheep"}));
        let body = of(json!({"type": "dream", "of": "x".repeat(100_000)}));
        assert!(body["data"]["bytes"].as_u64().unwrap() > 100_000);
    }
}
