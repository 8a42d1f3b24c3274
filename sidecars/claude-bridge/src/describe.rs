//! How a tool of `claude` looks in ACP.
//!
//! Owns: the kind, title, content and places of a call, from the tool's name and input, and the content of its outcome.
//! Pure functions; a tool that is not known is shown by its name and its input.

use crate::wire::{self, list, text};
use serde_json::{Map, Value, json};

/// A title is a line.
const TITLE_BYTES_MAX: usize = 200;
/// A file beyond this is not compared as a whole; the change is shown as it was asked for.
const FILE_BYTES_MAX: usize = 512 << 10;

/// What is shown of a call.
#[derive(Debug, PartialEq)]
pub(crate) struct Shape {
    pub(crate) kind: &'static str,
    pub(crate) title: String,
    pub(crate) content: Vec<Value>,
    pub(crate) locations: Vec<Value>,
}

/// A call before it runs.
pub(crate) fn call(name: &str, input: &Value) -> Shape {
    let file = ["file_path", "notebook_path", "path"].map(|field| text(input, field));
    let file = file.into_iter().find(|path| !path.is_empty()).unwrap_or_default();
    let named = |verb: &str, what: &str| {
        if what.is_empty() { verb.to_owned() } else { format!("{verb} {what}") }
    };
    let (kind, title) = match name {
        "Bash" | "BashOutput" | "KillShell" => ("execute", text(input, "command").to_owned()),
        "Read" => ("read", named("Read", file)),
        "Write" => ("edit", named("Write", file)),
        "Edit" | "MultiEdit" | "NotebookEdit" => ("edit", named("Edit", file)),
        "Glob" | "Grep" => ("search", named(name, text(input, "pattern"))),
        "LS" => ("search", named("List", file)),
        "WebFetch" => ("fetch", named("Fetch", text(input, "url"))),
        "WebSearch" | "web_search" => ("fetch", named("Search", text(input, "query"))),
        "Agent" | "Task" => ("think", named("Agent:", text(input, "description"))),
        "ExitPlanMode" => ("switch_mode", "Carry out this plan?".to_owned()),
        "EnterPlanMode" => ("switch_mode", "Make a plan first?".to_owned()),
        "AskUserQuestion" => ("other", question_title(input)),
        _ => ("other", name.to_owned()),
    };
    let first = title.lines().next().unwrap_or_default().trim();
    let title = if first.is_empty() { name } else { first };
    let locations = match (kind, file) {
        ("read" | "edit", path) if !path.is_empty() => {
            let mut place = json!({"path": path});
            if let Some(line) = input["offset"].as_u64() {
                place["line"] = json!(line);
            }
            vec![place]
        }
        _ => Vec::new(),
    };
    let title = wire::cut(title, TITLE_BYTES_MAX);
    Shape { kind, title, content: content(name, input, file), locations }
}

fn question_title(input: &Value) -> String {
    text(&input["questions"][0], "question").to_owned()
}

fn content(name: &str, input: &Value, file: &str) -> Vec<Value> {
    match name {
        "Write" => vec![diff(file, None, text(input, "content"))],
        "Edit" => {
            vec![diff(file, Some(text(input, "old_string")), text(input, "new_string"))]
        }
        "MultiEdit" => {
            let edits = list(input, "edits").iter();
            edits.map(|e| diff(file, Some(text(e, "old_string")), text(e, "new_string"))).collect()
        }
        "NotebookEdit" => vec![diff(file, None, text(input, "new_source"))],
        "ExitPlanMode" => written(text(input, "plan")),
        "Agent" | "Task" => written(text(input, "prompt")),
        _ => Vec::new(),
    }
}

fn diff(path: &str, old: Option<&str>, new: &str) -> Value {
    json!({"type": "diff", "path": path, "oldText": old, "newText": new})
}

/// Text as content; none for the empty one.
fn written(text: &str) -> Vec<Value> {
    if text.is_empty() {
        return Vec::new();
    }
    vec![json!({"type": "content", "content": {"type": "text", "text": text}})]
}

/// What a call has given. `block` is the `tool_result`, `told` what the program says of it beside that.
pub(crate) fn outcome(name: &str, block: &Value, told: &Value) -> Map<String, Value> {
    let is_error = block["is_error"] == true;
    let mut fields = Map::new();
    let mut put = |field: &str, value: Value| fields.insert(field.to_owned(), value);
    put("status", json!(if is_error { "failed" } else { "completed" }));
    let mut output = output(&block["content"]);
    let is_over = !is_error && told["backgroundTaskId"].is_null();
    if let (true, Some(stdout)) = (is_over, told["stdout"].as_str()) {
        // The model is told in words that there was no output; a person is shown none.
        output = format!("{stdout}{}", text(told, "stderr"));
    }
    match name {
        "Bash" => {
            put("content", json!(fenced(&output)));
            put("rawOutput", command_output(&output, is_error, told));
        }
        "Edit" | "MultiEdit" | "Write" if !is_error => {
            // Known now: the whole file before and after.
            if let Some(diff) = whole_diff(told) {
                put("content", json!([diff]));
            }
        }
        _ => {
            put("content", json!(shown(&block["content"])));
        }
    }
    fields
}

/// The text of a result: a text, or text blocks.
fn output(content: &Value) -> String {
    match content.as_str() {
        // The program marks its own refusals for the model.
        Some(text) => {
            let inner = text.strip_prefix("<tool_use_error>").unwrap_or(text);
            inner.strip_suffix("</tool_use_error>").unwrap_or(inner).to_owned()
        }
        None => {
            let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
            let texts: Vec<&str> =
                blocks.iter().filter_map(|block| block["text"].as_str()).collect();
            texts.join("\n")
        }
    }
}

/// Blocks of a result as content.
fn shown(content: &Value) -> Vec<Value> {
    if let Some(text) = content.as_str() {
        return written(text);
    }
    let blocks = content.as_array().map(Vec::as_slice).unwrap_or_default();
    let shown = blocks.iter().map(|block| match text(block, "type") {
        "text" => written(text(block, "text")),
        "image" => {
            let source = &block["source"];
            let image = json!({"type": "image", "mimeType": source["media_type"],
                "data": source["data"]});
            vec![json!({"type": "content", "content": image})]
        }
        "tool_reference" => written(text(block, "tool_name")),
        _ => Vec::new(),
    });
    shown.flatten().collect()
}

/// The output of a command in a fence that it does not contain.
fn fenced(output: &str) -> Vec<Value> {
    let mut fence = "```".to_owned();
    while output.contains(&fence) {
        fence.push('`');
    }
    let output = output.trim_end_matches('\n');
    written(&format!("{fence}console\n{output}\n{fence}"))
}

/// Output and exit code of a command. The program tells a code only in words, for a command that failed; a command that
/// it does not call failed has ended with 0, unless it says that another code is no failure either.
fn command_output(output: &str, is_error: bool, told: &Value) -> Value {
    if is_error {
        let (first, rest) = output.split_once('\n').unwrap_or((output, ""));
        let code =
            first.strip_prefix("Exit code ").and_then(|code| code.trim().parse::<i64>().ok());
        return match code {
            Some(code) => json!({"output": rest, "exitCode": code}),
            None => json!({"output": output}),
        };
    }
    let is_clear = told["interrupted"] == false
        && told["returnCodeInterpretation"].is_null()
        && told["backgroundTaskId"].is_null();
    if is_clear { json!({"output": output, "exitCode": 0}) } else { json!({"output": output}) }
}

/// The change of a file as the program carried it out.
fn whole_diff(told: &Value) -> Option<Value> {
    let path = told["filePath"].as_str()?;
    let before = told["originalFile"].as_str();
    if before.is_some_and(|before| before.len() > FILE_BYTES_MAX) {
        return None;
    }
    let after = match told["content"].as_str() {
        Some(whole) => whole.to_owned(),
        None => {
            let one = [told.clone()];
            let edits = told["edits"].as_array().map_or(&one[..], Vec::as_slice);
            edits.iter().try_fold(before?.to_owned(), |file, edit| edited(&file, edit))?
        }
    };
    Some(diff(path, before, &after))
}

fn edited(file: &str, edit: &Value) -> Option<String> {
    let word = |names: [&str; 2]| names.iter().find_map(|name| edit[*name].as_str());
    let (old, new) = (word(["oldString", "old_string"])?, word(["newString", "new_string"])?);
    let is_everywhere = edit["replaceAll"] == true || edit["replace_all"] == true;
    if !file.contains(old) || old.is_empty() {
        return None;
    }
    Some(if is_everywhere { file.replace(old, new) } else { file.replacen(old, new, 1) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_longer_than_any_inside() {
        let check = |output: &str, expected: &str| {
            assert_eq!(fenced(output)[0]["content"]["text"], expected);
        };
        check("42\n", "```console\n42\n```");
        check("a\n```\nb", "````console\na\n```\nb\n````");
    }

    #[test]
    fn an_exit_code_is_told_where_it_is_known() {
        let fine = json!({"stdout": "x", "interrupted": false});
        assert_eq!(command_output("x", false, &fine)["exitCode"], 0);
        let failed = command_output("Exit code 3\noh no", true, &json!("Error"));
        assert_eq!(failed, json!({"output": "oh no", "exitCode": 3}));
        let odd = json!({"interrupted": false, "returnCodeInterpretation": "No matches found"});
        assert!(command_output("", false, &odd)["exitCode"].is_null());
        let refused = command_output("The user doesn't want to proceed", true, &json!("x"));
        assert!(refused["exitCode"].is_null());
    }

    #[test]
    fn an_edit_is_shown_with_the_whole_file_once_it_is_known() {
        let told = json!({"filePath": "/a", "oldString": "x", "newString": "y",
            "originalFile": "x x\n", "replaceAll": false});
        assert_eq!(whole_diff(&told).unwrap()["newText"], "y x\n");
        let every = json!({"filePath": "/a", "oldString": "x", "newString": "y",
            "originalFile": "x x\n", "replaceAll": true});
        assert_eq!(whole_diff(&every).unwrap()["newText"], "y y\n");
        let new = json!({"filePath": "/b", "content": "new\n", "originalFile": null});
        assert!(whole_diff(&new).unwrap()["oldText"].is_null());
        let unknown = json!({"filePath": "/a", "oldString": "z", "newString": "y",
            "originalFile": "x\n"});
        assert_eq!(whole_diff(&unknown), None);
    }
}
