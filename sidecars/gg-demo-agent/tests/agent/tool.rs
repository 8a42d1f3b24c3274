//! Tool calls: permissions, commands, files, terminals, MCP servers.

use crate::client::{Answerer, Client, DEADLINE, LeftBehind, choose};
use gooselake_harness::temp::TempDir;
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;

fn mode(client: &mut Client, session: &str, mode: &str) {
    client.result("session/set_mode", json!({"sessionId": session, "modeId": mode}));
}

/// How often permission was asked so far.
fn asked(client: &Client) -> usize {
    client.seen.iter().filter(|it| it["method"] == "session/request_permission").count()
}

#[test]
fn an_allowed_command_runs_and_tells_its_output_and_exit_code() {
    let (mut client, session, _state) = Client::ready(&[]);
    client.answer = choose("allow_once");
    let turn = client.prompt(&session, "run echo out; echo err >&2; pwd; exit 3");
    let (call, statuses) = turn.call();
    assert_eq!(statuses, ["pending", "in_progress", "failed"]);
    assert_eq!(call["kind"], "execute");
    assert_eq!(call["rawInput"]["command"], "echo out; echo err >&2; pwd; exit 3");
    assert_eq!(call["rawOutput"]["exit_code"], 3);
    let output = format!("out\nerr\n{}\n", client.cwd.path().canonicalize().unwrap().display());
    assert_eq!(call["rawOutput"]["output"], *output);
    assert_eq!(call["content"][0]["content"]["text"], *output);
    assert_eq!(turn.said(), "The command ended with exit code 3.");
    assert_eq!(turn.stop_reason(), "end_turn");
    let request = client.seen.iter().find(|it| it["method"] == "session/request_permission");
    let params = &request.unwrap()["params"];
    assert_eq!(params["toolCall"]["toolCallId"], call["toolCallId"]);
    let kinds: Vec<&Value> =
        params["options"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["allow_once", "allow_always", "reject_once", "reject_always"]);
}

#[test]
fn output_is_shown_while_the_command_runs() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    let fifo = client.cwd.path().join("go");
    let id = client.start_prompt(&session, "run mkfifo go; echo first; cat go; echo last");
    client.until("the first output", |message| {
        message["params"]["update"]["content"][0]["content"]["text"] == "first\n"
    });
    // Only now the command can go on.
    fs::write(fifo, "middle\n").unwrap();
    let turn = client.until_answer(id);
    let last = turn.of("tool_call_update").pop().unwrap();
    assert_eq!(last["rawOutput"]["output"], "first\nmiddle\nlast\n");
}

#[test]
fn endless_output_is_cut_and_told_so() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    let turn = client.prompt(&session, "run head -c 1000000 /dev/zero | tr '\\0' x");
    let output = turn.call().0["rawOutput"]["output"].as_str().unwrap().to_owned();
    let end = format!("[{} more bytes were dropped]\n", 1_000_000 - 65_536);
    assert!(output.ends_with(&end), "{}", &output[output.len() - 100..]);
}

#[test]
fn a_command_that_leaves_a_child_with_its_output_is_over_all_the_same() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    let turn = client.prompt(&session, "run sleep 1000 & echo $!");
    let output = turn.call().0["rawOutput"]["output"].as_str().unwrap().to_owned();
    let left = LeftBehind(output.trim().parse().unwrap());
    assert_eq!(turn.stop_reason(), "end_turn");
    assert!(proc::alive(left.0));
}

#[test]
fn a_declined_command_does_not_run_and_the_turn_goes_on() {
    let (mut client, session, _state) = Client::ready(&[]);
    client.answer = choose("reject_once");
    let turn = client.prompt(&session, "run touch made\nsay on");
    assert_eq!(turn.call().1, ["pending", "failed"]);
    assert_eq!(turn.said(), "Declined: touch madeon");
    assert!(!client.cwd.path().join("made").exists());
    client.answer = Box::new(|_, _| Some(Ok(json!({"outcome": {"outcome": "cancelled"}}))));
    let turn = client.prompt(&session, "run touch made\nsay on");
    assert_eq!(
        (turn.stop_reason(), turn.call().1.last().unwrap().as_str()),
        ("cancelled", "failed")
    );
}

#[test]
fn an_answer_for_always_holds_for_its_kind_in_its_session() {
    let (mut client, session, _state) = Client::ready(&[]);
    client.answer = choose("allow_always");
    client.prompt(&session, "ask one\nask two\nask three");
    assert_eq!(asked(&client), 1);
    client.answer = choose("reject_always");
    let turn = client.prompt(&session, "run true\nrun true\nask four");
    assert_eq!(asked(&client), 2);
    assert_eq!(turn.said(), "Declined: trueDeclined: trueAllowed: four");
    let other = client.new_session();
    client.answer = choose("allow_once");
    client.prompt(&other, "ask five\nask six");
    assert_eq!(asked(&client), 4);
}

#[test]
fn the_mode_decides_what_is_asked_and_done() {
    let (mut client, session, _state) = Client::ready(&[]);
    mode(&mut client, &session, "auto");
    client.prompt(&session, "run touch made\nask x\nwrite note.txt hi");
    assert!(client.cwd.path().join("made").exists() && client.cwd.path().join("note.txt").exists());
    mode(&mut client, &session, "plan");
    let turn = client.prompt(&session, "run touch planned");
    assert_eq!(turn.said(), "not carried out: the mode is plan");
    assert!(!client.cwd.path().join("planned").exists());
    assert_eq!(asked(&client), 0);
}

#[test]
fn a_file_is_written_inside_the_folder_and_nowhere_else() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    let cwd = client.cwd.path().to_owned();
    let turn = client.prompt(&session, "write note.txt hello file");
    let (call, statuses) = turn.call();
    assert_eq!(statuses, ["pending", "in_progress", "completed"]);
    let diff = &call["content"][0];
    assert_eq!((&call["kind"], &diff["type"]), (&json!("edit"), &json!("diff")));
    assert_eq!((&diff["oldText"], &diff["newText"]), (&Value::Null, &json!("hello file")));
    assert_eq!(diff["path"], *cwd.join("note.txt").to_str().unwrap());
    assert_eq!(fs::read_to_string(cwd.join("note.txt")).unwrap(), "hello file");
    let again = client.prompt(&session, "write note.txt new");
    assert_eq!(again.call().0["content"][0]["oldText"], "hello file");

    let outside = TempDir::new("gg-demo-outside");
    symlink(outside.path(), cwd.join("link")).unwrap();
    symlink(outside.path().join("x"), cwd.join("file-link")).unwrap();
    let absolute = outside.path().join("x");
    for path in ["../x", "link/x", "file-link", "no/such", absolute.to_str().unwrap()] {
        let turn = client.prompt(&session, &format!("write {path} bad"));
        assert_eq!(turn.call().1, ["pending", "in_progress", "failed"], "{path}");
        assert!(turn.said().contains("was not written"), "{}", turn.said());
    }
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

/// A client that serves files from memory and has one terminal.
fn files_and_terminal() -> Answerer {
    let mut saved = json!({});
    Box::new(move |method, params| {
        let path = params["path"].as_str().unwrap_or_default().rsplit('/').next().unwrap();
        Some(match method {
            "fs/write_text_file" => {
                saved[path] = params["content"].clone();
                Ok(json!({}))
            }
            "fs/read_text_file" => match saved.get(path) {
                Some(text) => Ok(json!({"content": text})),
                None => Err(json!({"code": -32002, "message": "Resource not found"})),
            },
            "terminal/create" => {
                assert_eq!(params["args"], json!(["-c", "make it"]));
                Ok(json!({"terminalId": "t1"}))
            }
            "terminal/wait_for_exit" => Ok(json!({"exitCode": 2, "signal": null})),
            "terminal/output" => Ok(json!({"output": "made", "truncated": false})),
            "terminal/release" => Ok(json!({})),
            other => panic!("asked for {other}"),
        })
    })
}

#[test]
fn the_clients_files_and_terminals_are_used_when_offered() {
    let state = TempDir::new("gg-demo-state");
    let mut client = Client::start(state.path(), &["--no-permission"], &[]);
    let fs = json!({"readTextFile": true, "writeTextFile": true});
    client.initialize(json!({"fs": fs, "terminal": true}));
    let session = client.new_session();
    client.answer = files_and_terminal();
    let turn = client.prompt(&session, "save note.txt kept by you\nread note.txt");
    assert_eq!(turn.said(), "Wrote 11 bytes to note.txt.kept by you");
    assert!(!client.cwd.path().join("note.txt").exists());
    let turn = client.prompt(&session, "read other.txt");
    assert_eq!(turn.said(), "fs/read_text_file failed with -32002: Resource not found");
    let turn = client.prompt(&session, "terminal make it");
    let (call, _) = turn.call();
    assert_eq!(call["content"], json!([{"type": "terminal", "terminalId": "t1"}]));
    assert_eq!(call["rawOutput"], json!({"output": "made", "exit_code": 2, "signal": null}));
    let methods: Vec<&str> = client.seen.iter().filter_map(|it| it["method"].as_str()).collect();
    let used: Vec<&&str> = methods.iter().filter(|it| it.starts_with("terminal/")).collect();
    assert_eq!(
        used,
        [&"terminal/create", &"terminal/wait_for_exit", &"terminal/output", &"terminal/release"]
    );
}

#[test]
fn without_an_offer_the_agent_reads_by_itself_and_says_what_is_missing() {
    let (mut client, session, _state) = Client::ready(&["--no-permission"]);
    fs::write(client.cwd.path().join("a.txt"), "by itself").unwrap();
    assert_eq!(client.prompt(&session, "read a.txt").said(), "by itself");
    assert!(client.prompt(&session, "read b.txt").said().starts_with("b.txt was not read"));
    let turn = client.prompt(&session, "save a.txt x");
    assert_eq!(turn.said(), "the client does not offer fs/write_text_file");
    assert_eq!(client.prompt(&session, "terminal ls").said(), "the client does not offer terminal");
}

/// An MCP server in the shell: it answers each request by its method, and tells its environment.
const MCP: &str = r#"
echo $$ > "$PID_FILE"
while read -r line; do
    id=$(printf %s "$line" | sed 's/.*"id":\([0-9]*\).*/\1/')
    case $line in
        *'"method":"initialize"'*)
            echo '{"jsonrpc":"2.0","id":"q","method":"ping"}'
            echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"protocolVersion\":\"2025-06-18\"}}" ;;
        *'"id":"q"'*) pinged=yes ;;
        *'"method":"tools/call"'*'"name":"die"'*) exit ;;
        *'"method":"tools/call"'*)
            text="word $WORD, pinged $pinged, asked $(printf %s "$line" | tr -dc 'a-z')"
            echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":{\"content\":[{\"type\":\"text\",\"text\":\"$text\"}]}}" ;;
    esac
done"#;

#[test]
fn an_mcp_server_is_started_once_called_and_ended_with_the_session() {
    let (mut client, _session, _state) = Client::ready(&[]);
    let cwd = client.cwd.path().to_owned();
    let pid_file = cwd.join("pid");
    let env = json!([{"name": "WORD", "value": "plum"}, {"name": "PID_FILE", "value": pid_file}]);
    let servers = json!([{"name": "echo", "command": "sh", "args": ["-c", MCP], "env": env},
        {"name": "broken", "command": "/no/such", "args": [], "env": []}]);
    let params = json!({"cwd": cwd, "mcpServers": servers});
    let session = client.result("session/new", params)["sessionId"].as_str().unwrap().to_owned();
    let turn = client.prompt(&session, "mcp echo tell {\"text\": \"pear\"}");
    let (call, statuses) = turn.call();
    assert_eq!(statuses, ["pending", "in_progress", "completed"]);
    assert_eq!(call["title"], "mcp__echo__tell");
    assert!(turn.said().starts_with("word plum, pinged yes, asked"), "{}", turn.said());
    assert!(turn.said().contains("textpear"), "{}", turn.said());
    let pid = || fs::read_to_string(&pid_file).unwrap().trim().parse::<u32>().unwrap();
    let first = pid();
    client.prompt(&session, "mcp echo tell");
    assert_eq!(pid(), first);
    for (text, says) in [
        ("mcp broken tell", "the server does not start"),
        ("mcp other tell", "the session has none of that name"),
        ("mcp echo die", "the server has ended"),
    ] {
        let turn = client.prompt(&session, text);
        assert!(turn.said().contains(says), "{}", turn.said());
    }
    assert!(!proc::alive(first));

    // A server that died is not started again; a new session has its own.
    let params = json!({"cwd": cwd, "mcpServers": servers});
    let other = client.result("session/new", params)["sessionId"].as_str().unwrap().to_owned();
    client.prompt(&other, "mcp echo tell");
    let second = pid();
    assert!(proc::alive(second));
    client.result("session/close", json!({"sessionId": other}));
    wait::until(DEADLINE, "the server is gone", || (!proc::alive(second)).then_some(()));
}
