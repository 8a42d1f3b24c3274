//! The tool calls: what the agent does to the machine, told as ACP tells it.
//!
//! Owns: the life of a call: announced as pending, permitted or declined, in progress, completed or failed. A call that
//! was announced is always finished, also when the turn is cancelled in the middle of it. Content in an update replaces
//! what was there, so output is sent as all of it so far. In mode `plan` no command runs and no file changes; in mode
//! `auto` nothing is asked. This file deliberately does not know processes (`command`) and MCP (`mcp`).

use crate::command::{Ended, Running};
use crate::mcp::McpServer;
use crate::script::{Script, cut};
use crate::turn::Stop;
use crate::wire::RpcError;
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much of a file `read` tells, and how much of an old one a diff shows, in bytes.
const FILE_BYTES_MAX: usize = 64 << 10;

/// The bound of a client's terminal, in bytes.
const TERMINAL_BYTES_MAX: u64 = 64 << 10;

struct Call {
    id: String,
    title: String,
    kind: &'static str,
    raw_input: Value,
    content: Value,
    locations: Value,
    /// Whether it waits for permission, and whether the mode `plan` forbids it.
    changes: bool,
}

/// How a call ended when it was not cancelled.
struct Finish {
    good: bool,
    /// The content; `None` leaves what was announced.
    text: Option<String>,
    raw_output: Value,
    /// Further fields of the last update.
    fields: Value,
    /// What the agent says about it afterwards.
    say: String,
}

impl Finish {
    fn new(good: bool, text: impl Into<String>, say: impl Into<String>) -> Finish {
        let text = Some(text.into());
        Finish { good, text, raw_output: Value::Null, fields: json!({}), say: say.into() }
    }

    fn failed(text: String) -> Finish {
        Finish::new(false, text.clone(), text)
    }
}

/// `run CMD`
pub(crate) fn run(script: &mut Script, command: &str) -> Result<(), Stop> {
    let raw_input = json!({"command": command, "cwd": script.session.cwd});
    let call = Call::new(script, command, "execute", raw_input);
    call.carry_out(script, |script, call| {
        let cwd = script.session.cwd.clone();
        let running = match Running::start(command, &cwd, &script.turn) {
            Ok(running) => running,
            Err(error) => {
                return Ok(Finish::failed(format!("the command does not start: {error}")));
            }
        };
        let shown = show_output(script, call, &running);
        if shown.is_err() {
            running.end();
        }
        shown?;
        Ok(command_ended(&call.id, running.ended()))
    })
}

fn show_output(script: &Script, call: &Call, running: &Running) -> Result<(), Stop> {
    let mut shown = 0;
    while let Some(text) = running.more(&mut shown)? {
        call.update(script, json!({"content": text_content(&text)}))?;
    }
    Ok(())
}

fn command_ended(id: &str, ended: Ended) -> Finish {
    let Ended { output, exit_code, signal } = ended;
    let say = match (exit_code, signal) {
        (Some(code), _) => format!("The command ended with exit code {code}."),
        (None, Some(signal)) => format!("The command was ended by signal {signal}."),
        (None, None) => "The command ended.".to_owned(),
    };
    let exit = json!({"terminal_id": id, "exit_code": exit_code, "signal": signal});
    let mut finish = Finish::new(exit_code == Some(0), output.clone(), say);
    finish.raw_output = json!({"output": output, "exit_code": exit_code, "signal": signal});
    finish.fields = json!({"_meta": {"terminal_exit": exit}});
    finish
}

/// `write PATH TEXT`
pub(crate) fn write(script: &mut Script, path: &str, text: &str) -> Result<(), Stop> {
    let full = script.session.path(path);
    let call = edit_call(script, "Write", path, &full, text);
    let cwd = script.session.cwd.clone();
    call.carry_out(script, |_, _| {
        Ok(match write_inside(&cwd, &full, text) {
            Ok(()) => written(path, text),
            Err(error) => Finish::failed(format!("{path} was not written: {error}")),
        })
    })
}

/// `save PATH TEXT`
pub(crate) fn save(script: &mut Script, path: &str, text: &str) -> Result<(), Stop> {
    let full = script.session.path(path);
    let call = edit_call(script, "Save", path, &full, text);
    call.carry_out(script, |script, _| {
        if !script.agent.client().write_text_file {
            return Ok(Finish::failed("the client does not offer fs/write_text_file".to_owned()));
        }
        let params = json!({"sessionId": script.session.id, "path": full, "content": text});
        Ok(match script.ask_client("fs/write_text_file", params)? {
            Ok(_) => written(path, text),
            Err(error) => client_failed("fs/write_text_file", &error),
        })
    })
}

/// `read PATH`
pub(crate) fn read(script: &mut Script, path: &str) -> Result<(), Stop> {
    let full = script.session.path(path);
    let mut call = Call::new(script, &format!("Read {path}"), "read", json!({"path": full}));
    call.locations = json!([{"path": full}]);
    call.changes = false;
    call.carry_out(script, |script, _| {
        let text = if script.agent.client().read_text_file {
            let params = json!({"sessionId": script.session.id, "path": full});
            match script.ask_client("fs/read_text_file", params)? {
                Ok(result) => result["content"].as_str().unwrap_or_default().to_owned(),
                Err(error) => return Ok(client_failed("fs/read_text_file", &error)),
            }
        } else {
            match read_file(&full) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(error) => return Ok(Finish::failed(format!("{path} was not read: {error}"))),
            }
        };
        let text = cut(&text, FILE_BYTES_MAX);
        Ok(Finish::new(true, text, text))
    })
}

/// `terminal CMD`
pub(crate) fn terminal(script: &mut Script, command: &str) -> Result<(), Stop> {
    let raw_input = json!({"command": command, "cwd": script.session.cwd});
    let call = Call::new(script, command, "execute", raw_input);
    call.carry_out(script, |script, call| {
        if !script.agent.client().terminal {
            return Ok(Finish::failed("the client does not offer terminal".to_owned()));
        }
        let params = json!({"sessionId": script.session.id, "command": "sh",
            "args": ["-c", command], "env": [], "cwd": script.session.cwd,
            "outputByteLimit": TERMINAL_BYTES_MAX});
        let id = match script.ask_client("terminal/create", params)? {
            Ok(result) => result["terminalId"].clone(),
            Err(error) => return Ok(client_failed("terminal/create", &error)),
        };
        call.update(script, json!({"content": [{"type": "terminal", "terminalId": id}]}))?;
        let params = json!({"sessionId": script.session.id, "terminalId": id});
        let finish = use_terminal(script, call, &params);
        if finish.is_err() {
            // The turn is over for us, but the command is the client's: it is told, and not waited for.
            script.ask_client_later("terminal/kill", params.clone())?;
        }
        script.ask_client_later("terminal/release", params)?;
        finish
    })
}

fn use_terminal(script: &Script, call: &Call, params: &Value) -> Result<Finish, Stop> {
    let exit = match script.ask_client("terminal/wait_for_exit", params.clone())? {
        Ok(exit) => exit,
        Err(error) => return Ok(client_failed("terminal/wait_for_exit", &error)),
    };
    let output = match script.ask_client("terminal/output", params.clone())? {
        Ok(output) => output["output"].as_str().unwrap_or_default().to_owned(),
        Err(error) => return Ok(client_failed("terminal/output", &error)),
    };
    let code = exit["exitCode"].as_i64().and_then(|code| i32::try_from(code).ok());
    let mut finish = command_ended(&call.id, Ended { output, exit_code: code, signal: None });
    // The content stays the terminal, as the protocol wants it; the text is in the raw output.
    finish.text = None;
    Ok(finish)
}

/// `ask TEXT`
pub(crate) fn ask(script: &mut Script, text: &str) -> Result<(), Stop> {
    let call = Call::new(script, text, "other", json!({"text": text}));
    call.carry_out(script, |_, _| Ok(Finish::new(true, text, format!("Allowed: {text}"))))
}

/// `mcp SERVER TOOL JSON`
pub(crate) fn mcp(
    script: &mut Script,
    server: &str,
    tool: &str,
    arguments: Value,
) -> Result<(), Stop> {
    let title = format!("mcp__{server}__{tool}");
    let mut call = Call::new(script, &title, "other", arguments.clone());
    call.changes = false;
    call.carry_out(script, |script, _| {
        let started = match mcp_server(script, server)? {
            Ok(started) => started,
            Err(text) => return Ok(Finish::failed(format!("MCP server {server}: {text}"))),
        };
        let params = json!({"name": tool, "arguments": arguments});
        let result = match started.call("tools/call", params, &script.turn)? {
            Ok(result) => result,
            Err(error) => return Ok(Finish::failed(format!("{title}: {}", error.message))),
        };
        let parts = result["content"].as_array().cloned().unwrap_or_default();
        let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
        let text = texts.join("\n");
        let good = result["isError"] != true;
        let mut finish = Finish::new(good, text.clone(), text);
        finish.raw_output = result;
        Ok(finish)
    })
}

/// The running server of that name, started when it is not.
fn mcp_server(script: &Script, name: &str) -> Result<Result<Arc<McpServer>, String>, Stop> {
    if let Some(server) = script.session.state().started.get(name) {
        return Ok(Ok(Arc::clone(server)));
    }
    let spec = script.session.mcp_servers.iter().find(|spec| spec["name"] == name);
    let Some(spec) = spec else { return Ok(Err("the session has none of that name".to_owned())) };
    let server = match McpServer::start(spec, &script.turn)? {
        Ok(server) => server,
        Err(text) => return Ok(Err(text)),
    };
    script.session.state().started.insert(name.to_owned(), Arc::clone(&server));
    Ok(Ok(server))
}

impl Call {
    fn new(script: &Script, title: &str, kind: &'static str, raw_input: Value) -> Call {
        Call {
            id: script.agent.fresh_id("call"),
            title: title.to_owned(),
            kind,
            raw_input,
            content: json!([]),
            locations: json!([]),
            changes: true,
        }
    }

    /// The whole way of a call around what it does.
    fn carry_out(
        self,
        script: &mut Script,
        body: impl FnOnce(&mut Script, &Call) -> Result<Finish, Stop>,
    ) -> Result<(), Stop> {
        let mut announced = self.fields("pending");
        announced["sessionUpdate"] = json!("tool_call");
        script.update(&announced)?;
        let finish = match self.permitted(script) {
            Ok(None) => {
                self.update(script, json!({"status": "in_progress"}))?;
                body(script, &self)
            }
            Ok(Some(reason)) => Ok(Finish::failed(reason)),
            Err(stop) => Err(stop),
        };
        match finish {
            Ok(finish) => {
                self.finish(script, &finish)?;
                script.say(&finish.say)
            }
            Err(stop) => {
                self.finish(script, &Finish::failed("cancelled".to_owned()))?;
                Err(stop)
            }
        }
    }

    /// `None` when the call may go on, else why not.
    fn permitted(&self, script: &Script) -> Result<Option<String>, Stop> {
        if !self.changes || script.agent.flags.no_permission {
            return Ok(None);
        }
        let state = script.session.state();
        let (mode, remembered) =
            (state.mode().to_owned(), state.remembered.get(self.kind).copied());
        drop(state);
        match (mode.as_str(), remembered) {
            ("plan", _) if self.kind != "other" => {
                Ok(Some("not carried out: the mode is plan".to_owned()))
            }
            ("auto", _) | (_, Some(true)) => Ok(None),
            (_, Some(false)) => Ok(Some(format!("Declined: {}", self.title))),
            (_, None) => self.ask(script),
        }
    }

    fn ask(&self, script: &Script) -> Result<Option<String>, Stop> {
        let options = json!([
            {"optionId": "allow-once", "name": "Allow once", "kind": "allow_once"},
            {"optionId": "allow-always", "name": "Allow for this session", "kind": "allow_always"},
            {"optionId": "reject-once", "name": "Reject once", "kind": "reject_once"},
            {"optionId": "reject-always", "name": "Reject for this session",
                "kind": "reject_always"},
        ]);
        let params = json!({"sessionId": script.session.id, "toolCall": self.fields("pending"),
            "options": options});
        let result = match script.ask_client("session/request_permission", params)? {
            Ok(result) => result,
            Err(error) => return Ok(Some(format!("Nobody could be asked: {}", error.message))),
        };
        let outcome = &result["outcome"];
        if outcome["outcome"] != "selected" {
            return Err(Stop::Cancelled);
        }
        let option = outcome["optionId"].as_str().unwrap_or_default();
        let allowed = option.starts_with("allow-");
        if option.ends_with("-always") {
            script.session.state().remembered.insert(self.kind, allowed);
        }
        Ok((!allowed).then(|| format!("Declined: {}", self.title)))
    }

    fn finish(&self, script: &Script, finish: &Finish) -> Result<(), Stop> {
        let status = if finish.good { "completed" } else { "failed" };
        let mut fields = finish.fields.clone();
        fields["status"] = json!(status);
        if let Some(text) = &finish.text {
            fields["content"] = text_content(text);
        }
        if !finish.raw_output.is_null() {
            fields["rawOutput"] = finish.raw_output.clone();
        }
        let mut whole = self.fields(status);
        whole["sessionUpdate"] = json!("tool_call");
        merge(&mut whole, &fields);
        self.update(script, fields)?;
        script.record(&json!({"update": whole}))
    }

    fn update(&self, script: &Script, fields: Value) -> Result<(), Stop> {
        let mut update = json!({"sessionUpdate": "tool_call_update", "toolCallId": self.id});
        merge(&mut update, &fields);
        script.update(&update)
    }

    fn fields(&self, status: &str) -> Value {
        json!({"toolCallId": self.id, "title": self.title, "kind": self.kind, "status": status,
            "rawInput": self.raw_input, "content": self.content, "locations": self.locations})
    }
}

fn edit_call(script: &Script, verb: &str, path: &str, full: &Path, text: &str) -> Call {
    let raw_input = json!({"path": full, "content": text});
    let mut call = Call::new(script, &format!("{verb} {path}"), "edit", raw_input);
    let old = read_file(full)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .filter(|old| old.len() <= FILE_BYTES_MAX);
    call.content = json!([{"type": "diff", "path": full, "oldText": old, "newText": text}]);
    call.locations = json!([{"path": full}]);
    call
}

fn written(path: &str, text: &str) -> Finish {
    let mut finish = Finish::new(true, "", format!("Wrote {} bytes to {path}.", text.len()));
    // The diff that was announced stays.
    finish.text = None;
    finish
}

fn client_failed(method: &str, error: &RpcError) -> Finish {
    Finish::failed(format!("{method} failed with {}: {}", error.code, error.message))
}

/// What is in a file; a pipe, which would make the agent wait for whoever writes, is none.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    if path.exists() && !path.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    fs::read(path)
}

/// Writes the file when its folder is, after all links, the session's folder or inside it, and it is no link itself.
fn write_inside(cwd: &Path, path: &Path, text: &str) -> io::Result<()> {
    let outside = || io::Error::other("it is outside the session's folder");
    let folder = path.parent().ok_or_else(outside)?.canonicalize()?;
    let name = path.file_name().ok_or_else(outside)?;
    let real: PathBuf = folder.join(name);
    let linked = real.symlink_metadata().is_ok_and(|data| data.is_symlink());
    if linked || !folder.starts_with(cwd.canonicalize()?) {
        return Err(outside());
    }
    if real.exists() && !real.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    fs::write(real, text)
}

fn text_content(text: &str) -> Value {
    json!([{"type": "content", "content": {"type": "text", "text": text}}])
}

fn merge(into: &mut Value, fields: &Value) {
    let empty = Map::new();
    for (key, value) in fields.as_object().unwrap_or(&empty) {
        into[key] = value.clone();
    }
}
