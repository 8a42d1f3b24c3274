//! What a client writes into fields that reach a file, a program, git, an agent or the log.
//!
//! One table: each field with each hostile text is either refused with its name, or kept as text. Nothing outside the
//! data folder is changed, no text becomes a program, an option or a path, and the log stays a text of whole lines.

use crate::stage::{JSON, Stage, list, text};
use gooselake_harness::client::Reply;
use gooselake_harness::proc;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// `MARK` is the path of a file that must not appear.
const HOSTILE: &[&str] = &[
    "../../../../MARK",
    "MARK",
    "-rf",
    "--upload-pack=touch MARK",
    "-c core.pager=touch MARK",
    "--exec=touch MARK",
    "$(touch MARK)",
    "`touch MARK`",
    ";touch MARK;",
    "|touch MARK",
    "& touch MARK &",
    "\ntouch MARK\n",
    "' OR 1=1; DROP TABLE session; --",
    "a\0b",
    "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m",
    "\r\nX-Injected: 1\r\n\r\n",
    "\u{202e}gnp.exe",
    "e\u{301}",
    "\u{e9}",
    "%2e%2e%2f",
    "%n%s%p",
    "LONG255",
    "LONG4096",
];

/// A field, as the request in which a text stands for it.
struct Field {
    name: &'static str,
    path: String,
    body: Box<dyn Fn(&str) -> Value>,
    /// Whether the text may be kept; else it is refused.
    is_kept: bool,
}

fn field(
    name: &'static str,
    path: &str,
    is_kept: bool,
    body: impl Fn(&str) -> Value + 'static,
) -> Field {
    Field { name, path: path.to_owned(), body: Box::new(body), is_kept }
}

/// A repository with one commit.
fn repository(folder: &Path) -> PathBuf {
    let repo = folder.join("repo");
    fs::create_dir(&repo).unwrap();
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        let person = ["-c", "user.name=a", "-c", "user.email=a@b"];
        let run = command.args(person).args(arguments).current_dir(&repo).output().unwrap();
        assert!(run.status.success(), "{run:?}");
    };
    git(&["init", "-q"]);
    git(&["commit", "-q", "--allow-empty", "-m", "first"]);
    repo
}

/// Fields that name something: there is nothing of such a name, or it can not be a name.
fn names(stage: &Stage, repo: &Path) -> Vec<Field> {
    let (cwd, repo) = (stage.cwd.clone(), repo.to_owned());
    let session = move |name: &'static str, of: fn(&str) -> Value| {
        let cwd = cwd.clone();
        field(name, "/v1/sessions", false, move |text| {
            let mut body = json!({"provider": "demo", "cwd": cwd});
            body[name] = of(text);
            body
        })
    };
    let worktree = move |name: &'static str| {
        let repo = repo.clone();
        field(name, "/v1/worktrees", false, move |text| {
            let mut body = json!({"worktree_name": "fine", "repo_root": repo});
            // Odd characters are good in a branch; tests/it/worktree/name.rs is about those.
            body[name] = json!(text);
            body
        })
    };
    let process = |name: &'static str, of: fn(&str) -> Value| {
        field(name, "/v1/processes", false, move |text| {
            let mut body = json!({"args": ["true"]});
            body[name] = of(text);
            body
        })
    };
    let plain = |text: &str| json!(text);
    vec![
        session("provider", plain),
        session("agent", plain),
        session("cwd", |text| json!(format!("/nowhere/{text}"))),
        session("env", |text| json!({format!("{text}="): "x"})),
        session("mcp_servers", |text| json!([{"command": text}])),
        session("worktree", |text| json!({"name": "x", "mode": text})),
        session("repo_root", |text| json!({"name": "x", "repo_root": text})),
        worktree("base_ref"),
        worktree("deletion_policy"),
        worktree("repo_root"),
        worktree("source_session_id"),
        process("cwd", |text| json!(format!("/nowhere/{text}"))),
        process("env", |text| json!({format!("{text}="): "x"})),
        process("session_id", plain),
        process("args", |text| json!([format!("no-program-{}", text.replace('/', "_"))])),
        field(
            "lead_agent_id",
            "/v1/teams",
            false,
            |text| json!({"name": "crew", "lead_agent_id": format!("x{text}")}),
        ),
    ]
}

/// Fields that are words for people or for the agent: they are kept as they came.
fn words(stage: &Stage, session_id: &str) -> Vec<Field> {
    let cwd = stage.cwd.clone();
    let turns = format!("/v1/sessions/{session_id}/turns?wait=true");
    let other = |name: &'static str, path: &str, of: fn(&str) -> Value| field(name, path, true, of);
    vec![
        field("title", "/v1/sessions", true, move |text| {
            let (name, value) = (text.replace('\0', ""), text.replace('\0', ""));
            json!({
                "provider": "demo", "cwd": cwd, "mode": "auto", "title": text, "model": text,
                "reasoning_level": text, "permission_mode": text, "system_prompt": text,
                "metadata": {text: text}, "env": {"LD_LIBRARY_PATH": value, "GIT_DIR": name},
                "mcp_servers": [{"name": text, "command": text, "args": [text], "env": {text: text}}],
                "wait": false,
            })
        }),
        other(
            "name",
            "/v1/processes",
            |text| json!({"args": ["true", "--", text.replace('\0', "")], "name": text}),
        ),
        other("stdin", "/v1/processes", |text| json!({"args": ["cat"], "stdin": text})),
        other(
            "input",
            &turns,
            |text| json!({"input": [format!("say {text}"), {"type": "text", "text": text}]}),
        ),
        other(
            "uri",
            &turns,
            |text| json!({"input": [{"type": "resource_link", "uri": text, "name": text}]}),
        ),
    ]
}

fn spelled(hostile: &str, mark: &Path) -> String {
    match hostile {
        "LONG255" => "n".repeat(256),
        "LONG4096" => "n/".repeat(2500),
        text => text.replace("MARK", &mark.to_string_lossy()),
    }
}

fn check(field: &Field, text: &str, reply: &Reply) {
    let what = format!("{} = {text:?}: {reply}", field.name);
    assert!(reply.status < 500, "{what}");
    assert_eq!(reply.header("x-injected"), None, "{what}");
    if reply.status < 300 {
        assert!(field.is_kept, "{what}");
        return;
    }
    let told = reply.json()["error"].as_str().unwrap_or_default().to_owned();
    let is_named = told.contains(field.name) || [404, 409].contains(&reply.status);
    assert!(is_named || told.contains("no-program"), "the field is not named: {what}");
}

/// All that lies in these folders, with its links not followed.
fn found(folders: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next: Vec<PathBuf> = folders.iter().map(|folder| folder.to_path_buf()).collect();
    while let Some(folder) = next.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                next.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found.sort();
    found
}

#[test]
fn a_text_is_refused_by_its_field_or_kept_as_text() {
    let stage = Stage::new();
    let folder = stage.server.folder().to_owned();
    let repo = repository(&folder);
    let session_id = stage.session();
    let mark = folder.join("mark");
    let home = folder.join("home");
    let before = found(&[&repo, &stage.cwd, &home]);
    let beside = || {
        let entries = fs::read_dir(&folder).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    let before_beside = beside();
    let fields = [names(&stage, &repo), words(&stage, &session_id)].concat_all();
    for field in &fields {
        for hostile in HOSTILE {
            let text = spelled(hostile, &mark);
            let body = (field.body)(&text).to_string();
            let reply = stage.client.request("POST", &field.path, &[JSON], body.as_bytes());
            check(field, &text, &reply);
        }
    }
    assert!(!mark.exists(), "a text became a program or a path");
    assert_eq!(found(&[&repo, &stage.cwd, &home]), before);
    assert_eq!(beside(), before_beside);
    assert_eq!(list(stage.get("/v1/worktrees")), [] as [Value; 0]);
    // What was kept is what was sent.
    let title = spelled("\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m", &mark);
    let sessions = list(stage.get("/v1/sessions?limit=10000"));
    assert!(sessions.iter().any(|session| session["title"] == title));
    let log = stage.server.stderr_text();
    let is_odd = |letter: char| letter != '\n' && letter.is_control();
    assert!(!log.contains(is_odd), "{log:?}");
    for line in log.lines() {
        assert!(line.starts_with("20") && line.contains("Z "), "a line of somebody else: {line:?}");
    }
}

trait Concat {
    fn concat_all(self) -> Vec<Field>;
}

impl Concat for [Vec<Field>; 2] {
    fn concat_all(self) -> Vec<Field> {
        self.into_iter().flatten().collect()
    }
}

/// The parts of paths, the headers and the queries that name something.
#[test]
fn a_name_in_a_path_is_looked_up_and_nothing_else() {
    let stage = Stage::new();
    stage.session();
    let before = stage.last_row();
    let mark = stage.server.folder().join("mark");
    let encoded = |text: &str| -> String {
        text.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>()
    };
    for hostile in HOSTILE {
        let text = encoded(&spelled(hostile, &mark));
        for (method, path) in [
            ("GET", format!("/v1/sessions/{text}")),
            ("GET", format!("/v1/sessions/{text}/events/stream")),
            ("POST", format!("/v1/sessions/{text}/close")),
            ("DELETE", format!("/v1/sessions/{text}?purge=true")),
            ("GET", format!("/v1/processes/{text}/logs")),
            ("POST", format!("/v1/processes/{text}/kill")),
            ("GET", format!("/v1/worktrees/{text}/diff")),
            ("POST", format!("/v1/worktrees/{text}/cleanup?force=true")),
            ("DELETE", format!("/v1/teams/{text}?close_spawned=true")),
            ("GET", format!("/v1/providers/{text}/models")),
            ("GET", format!("/v1/team-operations/{text}")),
        ] {
            let reply = stage.client.request(method, &path, &[], b"");
            assert!([400, 404, 431].contains(&reply.status), "{method} {path}: {reply}");
        }
        for query in ["status", "cursor", "limit"] {
            let reply = stage.client.get(&format!("/v1/sessions?{query}={text}"));
            assert!([400, 431].contains(&reply.status), "{query}: {reply}");
        }
    }
    assert!(!mark.exists());
    assert_eq!(stage.last_row(), before);
}

/// A key is a text under which a request is found again, and no name of a file.
#[test]
fn a_key_is_a_text() {
    let stage = Stage::new();
    let body = json!({"args": ["true"]});
    let mut made = Vec::new();
    for key in ["../../x", "'; DROP TABLE idempotency; --", "-rf", "%00", "a", "A", " b "] {
        let headers = [("Idempotency-Key", key)];
        for _ in 0..2 {
            let reply = stage.post_with("/v1/processes", &body, &headers).expect(200).json();
            made.push(text(&reply["process"], "process_id"));
        }
    }
    made.dedup();
    assert_eq!(made.len(), 7, "{made:?}");
    let long = "k".repeat(256);
    for key in ["", long.as_str()] {
        let reply = stage.post_with("/v1/processes", &body, &[("Idempotency-Key", key)]);
        assert_eq!(reply.status, 400, "{reply}");
    }
}

/// Folders that a link leads out of are those that it leads to; the server makes nothing in them but what was asked.
#[test]
fn a_link_is_looked_through_before_anything_is_made() {
    let stage = Stage::new();
    let elsewhere = stage.server.folder().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    symlink(&elsewhere, stage.cwd.join("link")).unwrap();
    symlink("/dev/zero", stage.cwd.join("endless")).unwrap();
    symlink("loop", stage.cwd.join("loop")).unwrap();
    for (path, part) in [("endless", "not a file"), ("loop", "path"), ("link", "not a file")] {
        let session_id = stage.session();
        let image = json!({"type": "image", "path": stage.cwd.join(path)});
        let reply = stage.post_turn(&session_id, &json!({"input": [image]}));
        crate::stage::check_told(&reply, 400, "bad_request", part);
        let read = stage.run(&session_id, &format!("read {path}"));
        assert!(text(&read, "assistant_text").contains("failed"), "{read}");
    }
    let save = stage.run(&stage.session(), "save link/new text");
    assert!(text(&save, "assistant_text").contains("failed"), "{save}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
    let keepers = proc::keepers_of(stage.server.data_dir());
    assert_eq!(keepers.len(), 4, "one for each session's agent: {keepers:?}");
}
