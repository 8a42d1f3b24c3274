//! Reading a tool call.
//!
//! Owns: what a `tool_call`, a `tool_call_update` or the `toolCall` of a permission request says in
//! the words of the contract: which item type it is, its fields, its output, its exit code. Every
//! agent fills ACP's fields in its own way, so each fact is looked for in the places where one of
//! them was seen to put it. Promises: no field of any shape makes it fail; what is missing is
//! simply not told. Deliberately without state: it sees one message and the little that is known of
//! the call.

use super::state::{NAME_BYTES_MAX, Tool};
use super::wire::{cut, list, object, text};
use crate::model::ItemType;
use crate::provider::diff;
use serde_json::{Map, Value, json};

/// How many changes one item shows; a call that touches more files keeps the first ones.
const CHANGES_MAX: usize = 500;

/// Who the call is for, as far as this message tells.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) server: Option<String>,
}

/// The name of the tool and of its MCP server. `servers` are the names of the session's MCP
/// servers.
pub(super) fn identity(call: &Map<String, Value>, servers: &[String]) -> Identity {
    let title = text(call, "title");
    if let Some((server, name)) = mcp(call, title, servers) {
        let server = Some(cut(&server, NAME_BYTES_MAX));
        return Identity { name: cut(&name, NAME_BYTES_MAX), server };
    }
    let told = [text(call, "name"), claude_meta(call).map_or("", |meta| text(meta, "toolName"))];
    let name = told
        .into_iter()
        .find(|name| !name.is_empty())
        .or_else(|| name_in_id(text(call, "toolCallId")))
        .or_else(|| is_word(title).then_some(title))
        .unwrap_or_default();
    Identity { name: cut(name, NAME_BYTES_MAX), server: None }
}

/// The MCP server and tool, in the five ways in which agents were seen to say so.
fn mcp(call: &Map<String, Value>, title: &str, servers: &[String]) -> Option<(String, String)> {
    let owned = |server: &str, tool: &str| Some((server.to_owned(), tool.to_owned()));
    if let Some(input) = object(call, "rawInput") {
        let (server, tool) = (text(input, "server"), text(input, "tool"));
        if !server.is_empty() && !tool.is_empty() {
            return owned(server, tool);
        }
    }
    let claude = claude_meta(call).map_or("", |meta| text(meta, "toolName"));
    for name in [text(call, "name"), claude, title] {
        if let Some((server, tool)) = name.strip_prefix("mcp__").and_then(|n| n.split_once("__")) {
            return owned(server, tool);
        }
    }
    if let Some((server, tool)) = title.strip_prefix("Tool: ").and_then(|n| n.split_once('/')) {
        return owned(server, tool);
    }
    if let Some((tool, server)) =
        title.strip_suffix(" MCP Server)").and_then(|name| name.rsplit_once(" ("))
    {
        return owned(server, tool);
    }
    servers.iter().find_map(|server| {
        let tool = title.strip_prefix(server.as_str())?.strip_prefix('_')?;
        is_word(tool).then(|| (server.clone(), tool.to_owned()))
    })
}

/// gemini puts the tool's name before two underscores of the call's id.
fn name_in_id(id: &str) -> Option<&str> {
    let (name, rest) = id.split_once("__")?;
    (is_word(name) && !rest.is_empty()).then_some(name)
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn claude_meta(call: &Map<String, Value>) -> Option<&Map<String, Value>> {
    object(object(call, "_meta")?, "claudeCode")
}

/// The item type of a call with this kind, name and content.
pub(super) fn item_type(kind: &str, identity: &Identity, call: &Map<String, Value>) -> ItemType {
    let plain = |name: &str| name.replace(['_', '-', ' '], "").to_lowercase();
    if identity.server.is_some() {
        return ItemType::ToolCall;
    }
    if plain(&identity.name).contains("websearch") {
        return ItemType::WebSearch;
    }
    match kind {
        "execute" => ItemType::Command,
        "edit" | "delete" | "move" => ItemType::FileChange,
        "" if blocks(call, "diff").next().is_some() => ItemType::FileChange,
        _ => ItemType::ToolCall,
    }
}

/// The content entries of this type.
fn blocks<'a>(
    call: &'a Map<String, Value>,
    wanted: &'a str,
) -> impl Iterator<Item = &'a Map<String, Value>> {
    list(call, "content")
        .iter()
        .filter_map(Value::as_object)
        .filter(move |b| text(b, "type") == wanted)
}

/// The fields that this message tells, for an item of this type. `tool` is what was known before.
pub(super) fn fields(
    call: &Map<String, Value>,
    item_type: ItemType,
    tool: &Tool,
) -> Map<String, Value> {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| {
        if !value.is_null() && value != "" {
            fields.insert(name.to_owned(), value);
        }
    };
    let input = call.get("rawInput").filter(|input| !input.is_null());
    let title = text(call, "title");
    match item_type {
        ItemType::Command => {
            let told = input.and_then(command);
            // gemini tells the command as the title, and no input at all.
            let from_title = input.is_none() && !tool.subject.contains_key("command");
            put(
                "command",
                told.map_or_else(|| json!(if from_title { title } else { "" }), Value::String),
            );
            put("cwd", json!(cwd(call)));
        }
        ItemType::FileChange => put("title", json!(title)),
        ItemType::WebSearch => {
            put("title", json!(title));
            put("tool", json!(tool.name));
            put("query", input.map_or(Value::Null, |input| input["query"].clone()));
        }
        _ => {
            put("title", json!(title));
            put("server", json!(tool.server));
            put("tool", json!(if tool.name.is_empty() { &tool.kind } else { &tool.name }));
            put("arguments", arguments(call, tool));
        }
    }
    if let Some(terminal) = blocks(call, "terminal").next() {
        put("terminal_id", json!(text(terminal, "terminalId")));
    }
    let other: Vec<&Value> = blocks(call, "content")
        .filter_map(|block| block.get("content"))
        .filter(|content| content.get("type").is_some_and(|kind| kind != "text"))
        .collect();
    if !other.is_empty() {
        put("content", json!(other));
    }
    fields
}

/// What was asked of the tool. codex wraps the arguments of an MCP call; gemini tells them as text
/// before it asks.
fn arguments(call: &Map<String, Value>, tool: &Tool) -> Value {
    match call.get("rawInput") {
        Some(Value::Object(input)) if input.is_empty() => Value::Null,
        Some(Value::Object(input)) if tool.server.is_some() && input.contains_key("tool") => {
            input.get("arguments").cloned().unwrap_or_default()
        }
        Some(input) if !input.is_null() => input.clone(),
        _ if tool.server.is_some() && !tool.running => {
            let parsed: Option<Map<String, Value>> =
                content_text(call).and_then(|text| serde_json::from_str(&text).ok());
            parsed.map_or(Value::Null, Value::Object)
        }
        _ => Value::Null,
    }
}

/// The command line in the input: a text, or the words of which a shell's `-c` is unwrapped.
fn command(input: &Value) -> Option<String> {
    let told = input.get("command").or_else(|| input.get("cmd"))?;
    if let Some(text) = told.as_str() {
        return (!text.is_empty()).then(|| text.to_owned());
    }
    let words: Vec<&str> = told.as_array()?.iter().filter_map(Value::as_str).collect();
    match words[..] {
        [] => None,
        [shell, "-c" | "-lc", script] if shell.ends_with("sh") => Some(script.to_owned()),
        _ => Some(words.join(" ")),
    }
}

fn cwd(call: &Map<String, Value>) -> &str {
    let input = object(call, "rawInput").map_or("", |input| text(input, "cwd"));
    if !input.is_empty() {
        return input;
    }
    let info = object(call, "_meta").and_then(|meta| object(meta, "terminal_info"));
    info.map_or("", |info| text(info, "cwd"))
}

/// The changes that this message tells, and how much that is: 2 with diffs, 1 paths alone, 0
/// nothing.
pub(super) fn changes(call: &Map<String, Value>, kind: &str) -> (Value, u8) {
    let diffs: Vec<Value> =
        blocks(call, "diff").take(CHANGES_MAX).map(|block| change(call, block, kind)).collect();
    if !diffs.is_empty() {
        return (json!(diffs), 2);
    }
    let word = match kind {
        "delete" | "move" => kind,
        _ => "modify",
    };
    let mut paths: Vec<&str> = list(call, "locations")
        .iter()
        .filter_map(|location| location.get("path")?.as_str())
        .take(CHANGES_MAX)
        .collect();
    if let (true, Some(input)) = (paths.is_empty(), object(call, "rawInput")) {
        let fields = ["file_path", "filePath", "path"];
        paths.extend(fields.iter().filter_map(|field| input.get(*field)?.as_str()).take(1));
    }
    paths.dedup();
    if paths.is_empty() {
        return (Value::Null, 0);
    }
    let changes: Vec<Value> =
        paths.iter().map(|path| json!({"path": path, "kind": word, "diff": null})).collect();
    (json!(changes), 1)
}

fn change(call: &Map<String, Value>, block: &Map<String, Value>, kind: &str) -> Value {
    let path = text(block, "path");
    let old = block.get("oldText").and_then(Value::as_str);
    let new = text(block, "newText");
    let told = object(block, "_meta").map_or("", |meta| text(meta, "kind"));
    // zed's agent tells the kind beside the path, in the input.
    let listed =
        call.get("rawInput").and_then(|input| input.get("changes")?.get(path)?.get("type"));
    let told = if told.is_empty() { listed.and_then(Value::as_str).unwrap_or("") } else { told };
    let word = match (told, kind) {
        ("add" | "create", _) => "add",
        ("delete" | "remove", _) => "delete",
        ("move" | "rename", _) => "move",
        ("update" | "modify" | "edit", _) => "modify",
        (_, "delete" | "move") => kind,
        _ if old.unwrap_or_default().is_empty() => "add",
        _ => "modify",
    };
    let old = if word == "add" && old == Some("") { None } else { old };
    json!({"path": path, "kind": word, "diff": diff::unified(path, old, new)})
}

/// The text of the content, without a code fence around it. None when there is none.
pub(super) fn content_text(call: &Map<String, Value>) -> Option<String> {
    let texts: Vec<&str> = blocks(call, "content")
        .filter_map(|block| object(block, "content"))
        .filter(|content| text(content, "type") == "text")
        .map(|content| unfenced(text(content, "text")))
        .collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// What stands between the fences, if the whole text is one fenced block.
fn unfenced(text: &str) -> &str {
    let ticks = text.bytes().take_while(|b| *b == b'`').count();
    let inner = (ticks >= 3)
        .then(|| {
            let (fence, rest) = text.split_at(ticks);
            let (language, body) = rest.split_once('\n')?;
            let body = body.trim_end().strip_suffix(fence)?;
            let is_one = !language.contains('`') && !body.ends_with('`');
            is_one.then(|| body.strip_suffix('\n').unwrap_or(body))
        })
        .flatten();
    inner.unwrap_or(text)
}

/// A piece of output to append.
pub(super) fn output_piece(call: &Map<String, Value>) -> Option<&str> {
    let meta = object(call, "_meta")?;
    ["terminal_output_delta", "terminal_output"]
        .iter()
        .find_map(|field| meta.get(*field)?.get("data")?.as_str())
        .filter(|piece| !piece.is_empty())
}

/// The output as a whole, from the content or from `rawOutput`.
pub(super) fn output(call: &Map<String, Value>) -> Option<String> {
    content_text(call).or_else(|| call.get("rawOutput").and_then(raw_text))
}

/// The text in a `rawOutput`: a text, a list of text blocks, or an object with one of the fields
/// that agents use.
fn raw_text(raw: &Value) -> Option<String> {
    match raw {
        Value::String(text) => Some(text.clone()),
        Value::Array(blocks) => {
            let texts: Vec<&str> =
                blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect();
            (!texts.is_empty()).then(|| texts.join("\n"))
        }
        Value::Object(object) => {
            let one = ["aggregated_output", "formatted_output", "output", "error", "text"]
                .iter()
                .find_map(|field| object.get(*field)?.as_str());
            if let Some(text) = one {
                return Some(text.to_owned());
            }
            if let Some(content) = object.get("content").or_else(|| raw.pointer("/result/content"))
            {
                return raw_text(content);
            }
            let (stdout, stderr) = (text(object, "stdout"), text(object, "stderr"));
            (object.contains_key("stdout") || object.contains_key("stderr"))
                .then(|| format!("{stdout}{stderr}"))
        }
        _ => None,
    }
}

/// What a tool gave back: its text, or else its raw output.
pub(super) fn result(call: &Map<String, Value>) -> Value {
    let raw = call.get("rawOutput").unwrap_or(&Value::Null);
    output(call).map_or_else(|| raw.clone(), Value::String)
}

/// Why a tool failed, where `rawOutput` has a word for it.
pub(super) fn error(call: &Map<String, Value>) -> Option<Value> {
    let error = call.get("rawOutput")?.get("error")?;
    (!error.is_null()).then(|| error.clone())
}

/// The exit code, where it is told.
pub(super) fn exit_code(call: &Map<String, Value>) -> Option<i64> {
    let told = call.get("_meta").and_then(|meta| meta.pointer("/terminal_exit/exit_code"));
    let raw = call.get("rawOutput");
    let places = ["/exit_code", "/exitCode", "/metadata/exit", "/metadata/exitCode"];
    told.and_then(Value::as_i64)
        .or_else(|| places.iter().find_map(|place| raw?.pointer(place)?.as_i64()))
}

/// The signal that ended the command, where it is told.
pub(super) fn signal(call: &Map<String, Value>) -> Option<&Value> {
    let told = call.get("_meta")?.pointer("/terminal_exit/signal")?;
    (!told.is_null()).then_some(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(value: Value) -> Map<String, Value> {
        value.as_object().cloned().expect("an object")
    }

    #[test]
    fn every_agent_names_its_mcp_tools_in_its_own_way() {
        let check = |value: Value| {
            let found = identity(&call(value), &["my_files".to_owned()]);
            (found.server.unwrap_or_default(), found.name)
        };
        let pair = |server: &str, tool: &str| (server.to_owned(), tool.to_owned());
        assert_eq!(check(json!({"name": "mcp__echo__say__it"})), pair("echo", "say__it"));
        assert_eq!(check(json!({"title": "mcp__bad__startup"})), pair("bad", "startup"));
        assert_eq!(
            check(json!({"title": "x", "rawInput": {"server": "echo", "tool": "say"}})),
            pair("echo", "say")
        );
        assert_eq!(check(json!({"title": "Tool: echo/say"})), pair("echo", "say"));
        assert_eq!(check(json!({"title": "say (echo MCP Server)"})), pair("echo", "say"));
        assert_eq!(check(json!({"title": "my_files_read"})), pair("my_files", "read"));
        assert_eq!(check(json!({"title": "your_files_read"})), pair("", "your_files_read"));
        assert_eq!(
            check(json!({"toolCallId": "read_file__c1", "title": "a b"})),
            pair("", "read_file")
        );
        assert_eq!(check(json!({"toolCallId": "toolu_1", "title": "a b"})), pair("", ""));
    }

    #[test]
    fn a_fence_around_the_whole_text_is_taken_off() {
        assert_eq!(unfenced("```console\n42\n```"), "42");
        assert_eq!(unfenced("```\n\n```"), "");
        assert_eq!(unfenced("````\n```\nx\n```\n````"), "```\nx\n```");
        for kept in ["", "``", "```", "```x", "```\nopen", "a\n```\nb\n```", "```a`b\nc\n```"] {
            assert_eq!(unfenced(kept), kept);
        }
    }

    #[test]
    fn commands_come_as_text_and_as_words() {
        assert_eq!(command(&json!({"command": "ls -l"})).as_deref(), Some("ls -l"));
        assert_eq!(command(&json!({"cmd": "ls"})).as_deref(), Some("ls"));
        let words = json!({"command": ["/bin/bash", "-lc", "a; b"]});
        assert_eq!(command(&words).as_deref(), Some("a; b"));
        assert_eq!(command(&json!({"command": ["git", "log"]})).as_deref(), Some("git log"));
        for none in
            [json!({}), json!(null), json!("x"), json!({"command": 1}), json!({"command": []})]
        {
            assert_eq!(command(&none), None);
        }
    }

    #[test]
    fn changes_are_told_by_diffs_or_else_by_paths() {
        let told = call(json!({
            "locations": [{"path": "/a"}],
            "content": [
                {"type": "diff", "path": "/a", "oldText": "x\n", "newText": "y\n"},
                {"type": "diff", "path": "/b", "oldText": null, "newText": "new\n"},
                {"type": "diff", "path": "/c", "oldText": "old\n", "newText": "",
                    "_meta": {"kind": "delete"}},
            ],
        }));
        let (changes_told, rank) = changes(&told, "edit");
        assert_eq!(rank, 2);
        let kinds: Vec<&str> =
            changes_told.as_array().unwrap().iter().map(|c| c["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["modify", "add", "delete"]);
        let paths = call(json!({"locations": [{"path": "/a"}]}));
        let only = json!([{"path": "/a", "kind": "delete", "diff": null}]);
        assert_eq!(changes(&paths, "delete"), (only, 1));
        assert_eq!(changes(&call(json!({})), "edit"), (Value::Null, 0));
    }
}
