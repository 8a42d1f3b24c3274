//! The seeds of each target: what was recorded of real programs, and requests and frames as they should be.
//!
//! Owns: the turning of recordings in `testdata/` into the inputs that the checks read. Reads files, writes none. A
//! recording that is longer than [`SEED_BYTES_MAX`] gives its beginning.

use crate::api::TOKEN;
use gg_keeper::exit::{Exit, StoppedBy};
use gg_keeper::protocol::{Hello, JournalPolicy, Policy, Reply, Request, Spec, Stream, VERSION};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

const TESTDATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testdata");
const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples");

/// Longer inputs make a fuzzer slow and find nothing more.
const SEED_BYTES_MAX: usize = 12 * 1024;
/// Lines that are longer are left out: they are lists of commands and models.
const LINE_BYTES_MAX: usize = 3 * 1024;

/// The recordings in a folder of `testdata/`, sorted, each n-th of them.
fn recordings(folder: &str, nth: usize) -> Vec<Vec<Value>> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(Path::new(TESTDATA).join(folder))
        .expect("testdata is there")
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| -> Vec<Value> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    paths.iter().step_by(nth).map(read).collect()
}

fn seeds(folders: &[&str], nth: usize, line: fn(&Value, &Value) -> Option<String>) -> Vec<Vec<u8>> {
    let recordings = folders.iter().flat_map(|folder| recordings(folder, nth));
    recordings.map(|records| conversation(&records, line)).collect()
}

/// The lines of one recording, as far as they fit.
fn conversation(records: &[Value], line: fn(&Value, &Value) -> Option<String>) -> Vec<u8> {
    let mut seed = Vec::new();
    for record in records {
        let Some(line) = line(record, &record["msg"]) else { continue };
        if line.len() > LINE_BYTES_MAX {
            continue;
        }
        if seed.len() + line.len() > SEED_BYTES_MAX {
            break;
        }
        seed.extend_from_slice(line.as_bytes());
        seed.push(b'\n');
    }
    seed
}

/// A line of a JSON-RPC recording as [`crate::adapter`] reads it.
fn rpc_line(record: &Value, message: &Value) -> Option<String> {
    let method = message["method"].as_str();
    match (record["dir"].as_str()?, method) {
        ("out", None) if message["error"].is_object() => Some(format!("~{}", message["error"])),
        ("out", None) if message["id"].is_number() => Some(format!("?{}", message["result"])),
        ("out", _) if message.is_object() => Some(message.to_string()),
        ("in", Some("session/prompt" | "turn/start")) => Some("!t".to_owned()),
        ("in", Some("turn/steer")) => Some("!s".to_owned()),
        ("in", Some("session/cancel" | "turn/interrupt")) => Some("!i".to_owned()),
        // An answer to what the agent asked: an approval, or an errand.
        ("in", None) if message["result"]["content"].is_string() => Some("!h0".to_owned()),
        ("in", None) => Some("!a0".to_owned()),
        _ => None,
    }
}

pub(crate) fn acp() -> Vec<Vec<u8>> {
    let agents = ["gemini", "opencode", "codex-acp", "zed-codex-acp", "claude-agent-acp"];
    let folders: Vec<String> = agents.iter().map(|agent| format!("acp/{agent}")).collect();
    let folders: Vec<&str> = folders.iter().map(String::as_str).collect();
    seeds(&folders, 4, rpc_line)
}

pub(crate) fn bridge_acp() -> Vec<Vec<u8>> {
    seeds(&["acp/claude-bridge"], 2, rpc_line)
}

pub(crate) fn codex() -> Vec<Vec<u8>> {
    seeds(&["codex"], 2, rpc_line)
}

/// The beginning of a client, then a recording of the program as [`crate::bridge`] reads it.
pub(crate) fn claude() -> Vec<Vec<u8>> {
    let offers = json!({"session": {"notices": {}}});
    let params = json!({"protocolVersion": 1, "clientCapabilities": offers});
    let open = json!({"cwd": "/srv/lab/work", "mcpServers": []});
    let opening = format!(
        ">{}\n>{}\n?{}\n?{}\n",
        json!({"id": 1, "jsonrpc": "2.0", "method": "initialize", "params": params}),
        json!({"id": 2, "jsonrpc": "2.0", "method": "session/new", "params": open}),
        json!({"subtype": "success", "response": {"models": [], "commands": []}}),
        json!({"subtype": "success", "response": {"effective": {}}}),
    );
    let with_opening = |seed: Vec<u8>| [opening.as_bytes(), &seed].concat();
    seeds(&["claude"], 2, claude_line).into_iter().map(with_opening).collect()
}

fn claude_line(record: &Value, message: &Value) -> Option<String> {
    let client = |method: &str, mut params: Value| {
        params["sessionId"] = json!("id-1");
        let id = if method == "session/cancel" { Value::Null } else { json!(9) };
        format!(">{}", json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
    };
    match (record["dir"].as_str()?, message["type"].as_str()?) {
        ("in", "user") => {
            let prompt = json!([{"type": "text", "text": "SAY hello"}]);
            Some(client("session/prompt", json!({"prompt": prompt})))
        }
        ("in", "control_request") => match message["request"]["subtype"].as_str()? {
            "interrupt" => Some(client("session/cancel", json!({}))),
            "set_permission_mode" => {
                Some(client("session/set_mode", json!({"modeId": message["request"]["mode"]})))
            }
            _ => None,
        },
        ("in", "control_response") => {
            let chosen = json!({"outcome": {"outcome": "selected", "optionId": "allow"}});
            Some(format!(">{}", json!({"jsonrpc": "2.0", "id": 1, "result": chosen})))
        }
        ("out", "control_response") => Some(format!("?{}", message["response"])),
        ("out", _) => Some(message.to_string()),
        _ => None,
    }
}

pub(crate) fn heads() -> Vec<Vec<u8>> {
    [
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /v1/sessions?limit=10&status=a%20b+c HTTP/1.1\r\nHost: [::1]:8080\r\nAccept: */*\r\n\r\n",
        "POST /v1/a%2Fb/c HTTP/1.1\r\nHost: a.b:80\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n",
        "POST http://a.b/x?y HTTP/1.1\r\nhost: a.b\r\nTransfer-Encoding: chunked\r\nTE: x\r\n\r\n",
        "OPTIONS * HTTP/1.0\r\nConnection: keep-alive, close\r\nX-Request-Id: abc\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    let chunked = "POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    [
        "\x40GET / HTTP/1.1\r\nHost: localhost\r\n\r\nHEAD /two HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x10POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhelloGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        &format!("\x7f{chunked}5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        &format!("\x20{chunked}0\r\n\r\n"),
        "\x50POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\nabc",
        "\x01REFUSE / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "\x05GET / HTTP/1.0\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Routes with what they take, as operators call them.
const CALLS: &[(&str, &str, &str)] = &[
    ("GET", "/health", ""),
    ("GET", "/ready", ""),
    ("GET", "/metrics", ""),
    ("GET", "/v1/diagnostics", ""),
    ("GET", "/v1/diagnostics/comms", ""),
    ("GET", "/v1/diagnostics/worktrees", ""),
    ("GET", "/v1/providers", ""),
    (
        "GET",
        "/v1/events?after_seq=1&before_seq=9&limit=2&order=desc&kinds=item.*,turn.completed",
        "",
    ),
    ("GET", "/v1/events/stream?after_seq=latest&until=turn.*&limit=1&control=false", ""),
    ("GET", "/v1/system/events/stream?after_seq=2&critical_only=true", ""),
    ("GET", "/v1/sessions?status=idle&limit=5&cursor=abc", ""),
    ("GET", "/v1/sessions/sess_1/transcript", ""),
    ("GET", "/v1/sessions/sess_1/turns/turn_1?wait_ms=1", ""),
    ("GET", "/v1/approvals?status=pending", ""),
    ("GET", "/v1/processes?include_completed=false", ""),
    ("GET", "/v1/processes/proc_1/logs?stream=stdout&tail_lines=3&max_bytes=10&offset=5", ""),
    ("GET", "/v1/teams?limit=3", ""),
    ("GET", "/v1/worktrees?status=ready&repo_root=/x", ""),
    (
        "POST",
        "/v1/sessions",
        r#"{"provider": "demo", "title": "First", "cwd": "/", "metadata": {"a": 1}}"#,
    ),
    (
        "POST",
        "/v1/sessions/sess_1/turns?wait=true&timeout_ms=5",
        r#"{"input": ["hi", {"type": "text", "text": "x"}]}"#,
    ),
    ("POST", "/v1/sessions/sess_1/approvals/appr_1", r#"{"decision": "accept"}"#),
    (
        "POST",
        "/v1/processes",
        r#"{"command": "true", "args": ["a"], "env": {"A": "b"}, "timeout_ms": 5}"#,
    ),
    ("POST", "/v1/processes/proc_1/stdin", r#"{"text": "yes\n", "close": true}"#),
    ("POST", "/v1/worktrees", r#"{"worktree_name": "one", "repo_root": "/x"}"#),
    ("POST", "/v1/teams", r#"{"name": "crew", "lead_agent_id": "sess_1", "members": []}"#),
    (
        "POST",
        "/v1/teams/team_1/messages",
        r#"{"sender_agent_id": "s", "recipient_agent_id": "r", "input": ["x"]}"#,
    ),
    (
        "POST",
        "/v1/mcp",
        r#"{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "gg_ping", "arguments": {}}}"#,
    ),
    (
        "POST",
        "/v1/mcp/invoke",
        r#"{"tool_name": "gg_ping", "args": {}, "caller_agent_id": "sess_1"}"#,
    ),
    ("DELETE", "/v1/sessions/sess_1?purge=true", ""),
];

pub(crate) fn calls() -> Vec<Vec<u8>> {
    let call = |(method, target, body): &(&str, &str, &str)| {
        let media = if body.is_empty() { "" } else { "Content-Type: application/json\r\n" };
        let more = if target.contains("stream") { "Last-Event-ID: 1\r\n" } else { "" };
        let head = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n{media}{more}");
        format!("{head}Authorization: Bearer {TOKEN}\r\n\r\n{body}").into_bytes()
    };
    CALLS.iter().map(call).collect()
}

pub(crate) fn forms() -> Vec<Vec<u8>> {
    let file = "Content-Disposition: form-data; name=\"file\"; filename=\"a.json\"\r\n\
        Content-Type: application/json; charset=utf-8\r\n\r\n{\"a\": 1}";
    let other = "Content-Disposition: form-data; name=other\r\n\r\nnot this";
    vec![
        format!(
            "multipart/form-data; boundary=xyz\n--xyz\r\n{other}\r\n--xyz\r\n{file}\r\n--xyz--\r\n"
        )
        .into_bytes(),
        format!("Multipart/Form-Data; a=b; boundary=\"x z\"\n--x z\r\n{file}\r\n--x z--")
            .into_bytes(),
    ]
}

pub(crate) fn configs() -> Vec<Vec<u8>> {
    let example = std::fs::read(Path::new(EXAMPLES).join("runtime-server.toml"))
        .expect("the example is there");
    let small = "[server]\nbind_adress = \"127.0.0.1:1\"\nmax_streams = 0\n[auth]\ntoken = \" \"\n\
        [providers.acp]\nenabled = true\ncommand = \"x\"\n[providers.acp.agents.one]\nargs = [1]\n\
        [teams]\nmodel_presets = [{name = \"fast\", provider = \"demo\"}]\n[processes]\nlog_retention_hours = 0.5\n";
    vec![example, small.as_bytes().to_vec(), Vec::new()]
}

pub(crate) fn mcp() -> Vec<Vec<u8>> {
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let call = json!({"name": "gg_ping", "arguments": {"a": 1}});
    [
        json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": "2025-06-18"}}),
        json!({"jsonrpc": "2.0", "method": "notifications/initialized"}),
        json!({"jsonrpc": "2.0", "id": "a", "method": "tools/list", "params": {"_meta": meta}}),
        json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}),
        json!({"jsonrpc": "2.0", "id": 3, "method": "server/discover", "params": {}}),
        json!({"jsonrpc": "2.0", "id": 4, "result": {}}),
        json!([{"jsonrpc": "2.0", "id": 5, "method": "ping"}]),
    ]
    .map(|message| message.to_string().into_bytes())
    .to_vec()
}

fn spec() -> Spec {
    let journal = JournalPolicy { policy: Policy::DropOldest, bytes_max: 65536 };
    Spec {
        child_id: "agent_1".to_owned(),
        argv: vec!["cat".into(), "-u".into()],
        env: vec![("PATH".into(), "/bin".into())],
        cwd: "/".into(),
        stdout: JournalPolicy { policy: Policy::Block, ..journal },
        stderr: journal,
        grace_ms: 500,
        lease_ms: 0,
        stdin_pipe: true,
        journal_segment_bytes: 1 << 20,
    }
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let requests = [
        Request::Spec(Box::new(spec())),
        Request::Attach { stdout_from: 1, stderr_from: 2 },
        Request::Stdin { offset: 3, bytes: b"hello" },
        Request::CloseStdin,
        Request::Ack { stdout: 4, stderr: 5, trim: true },
        Request::Signal { signo: 2 },
        Request::Stop { grace_ms: 1 },
        Request::Kill,
    ];
    let encode = |request: &Request<'_>| {
        let mut bytes = Vec::new();
        request.encode(&mut bytes);
        bytes
    };
    let mut seeds: Vec<Vec<u8>> = requests.iter().map(encode).collect();
    seeds.extend(replies());
    seeds.push(Exit::new(StoppedBy::Child).to_text().into_bytes());
    seeds
}

pub(crate) fn replies() -> Vec<Vec<u8>> {
    let hello = Hello {
        version: VERSION,
        keeper_pid: 0,
        child_pid: 1,
        stdin_end: 0,
        stdin_taken: 0,
        stdout_base: 0,
        stdout_end: 5,
        stderr_base: 0,
        stderr_end: 0,
        is_stdin_closed: true,
    };
    let output = |offset: u64, text: &str| Reply::Output {
        stream: Stream::Stdout,
        offset,
        bytes: text.as_bytes().to_vec(),
    };
    let accepted = Reply::StdinAccepted { end: 9, taken: 7 };
    let exit = Reply::Exit(Exit { code: Some(0), ..Exit::new(StoppedBy::Child) });
    let bye = Reply::Bye { reason: "replaced".to_owned() };
    let conversations = [
        vec![Reply::Hello(hello), output(0, "hello"), output(3, "loud\n"), accepted, exit],
        vec![Reply::Hello(hello), output(0, "hello"), bye],
    ];
    let encode = |replies: &Vec<Reply>| {
        let mut bytes = Vec::new();
        replies.iter().for_each(|reply| reply.encode(&mut bytes));
        bytes
    };
    conversations.iter().map(encode).collect()
}

pub(crate) fn journals() -> Vec<Vec<u8>> {
    let file = |base: u64, text: &str| {
        let length = u8::try_from(text.len()).unwrap();
        [&base.to_le_bytes()[..], &[length], text.as_bytes()].concat()
    };
    let left = [vec![0], file(0, "one two "), file(8, "three"), file(20, "four")].concat();
    let steps = |kind: u8| vec![kind, 0, 60, 1, 200, 2, 20, 3, 40, 0, 90, 6, 100, 0, 7, 2, 255];
    vec![left, steps(3), steps(1), steps(2)]
}
