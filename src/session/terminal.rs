//! What an agent may do on the machine through us (ACP `fs/*` and `terminal/*`), where the configuration allows it.
//!
//! Runs on the session's thread. Files are read and written inside the session's folder only, links resolved. A
//! terminal is a kept child of the session: it survives the server, and dies with its agent, its release or its
//! session. It is written down before it is started, so it is started at most once.

use super::actor::{Actor, FromChild};
use super::agent::never_started;
use super::launch;
use super::rest::STOP_SLACK;
use super::step::Step;
use crate::error::Code;
use crate::keeper::{self, Exit, FromKeeper, Keeper};
use crate::limits;
use crate::provider::{Adapter, Command, Effects, HostError, HostRequest};
use rustix::fs::OFlags;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The terminals of one session.
#[derive(Default)]
pub(super) struct Terminals {
    open: HashMap<Arc<str>, Terminal>,
    /// Written down in the step under way; started when it is committed.
    to_start: Vec<Start>,
}

#[derive(Default)]
struct Terminal {
    keeper: Option<Keeper>,
    output: Vec<u8>,
    bytes_max: usize,
    is_truncated: bool,
    exit: Option<Exit>,
    /// Host requests that wait for the end.
    waiting: Vec<String>,
    /// The request that made it, when the last server was killed before its answer was committed.
    unanswered: Option<Start>,
    is_released: bool,
    /// It was told to end; when its keeper counts as one that does not answer.
    stop_by: Option<Instant>,
}

struct Start {
    key: String,
    terminal_id: Arc<str>,
    command: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    cwd: Option<String>,
}

type HostAnswer = Result<Value, HostError>;

/// JSON-RPC codes: invalid parameters, internal error, and ACP's "resource not found".
const INVALID_PARAMS: i64 = -32602;
const INTERNAL: i64 = -32603;
const NOT_FOUND: i64 = -32002;

fn refuse<T>(code: i64, message: impl Into<String>) -> Result<T, HostError> {
    Err(HostError { code, message: message.into() })
}

impl Terminals {
    pub(super) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// When the first of those that are to end counts as one whose keeper does not answer.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.open.values().filter_map(|terminal| terminal.stop_by).min()
    }

    /// Nobody waits for the answer to this request any more.
    pub(super) fn take_back(&mut self, key: &str) {
        for terminal in self.open.values_mut() {
            terminal.waiting.retain(|waiting| waiting != key);
        }
    }

    /// A terminal that the ledger knows of.
    pub(super) fn expect(&mut self, terminal_id: &str, bytes_max: i64) {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(0);
        self.open.insert(terminal_id.into(), Terminal { bytes_max, ..Terminal::default() });
    }
}

impl Actor {
    /// Does what the agent asks for, or takes it on; the answer goes into the same step when it is there at once.
    pub(super) fn serve_host(
        &mut self,
        key: String,
        request: HostRequest,
        adapter: &mut Box<dyn Adapter>,
        step: &mut Step,
    ) {
        let answer = match request {
            HostRequest::ReadTextFile { path, line, limit } => {
                Some(self.root().and_then(|root| read_text(&root, &path, line, limit)))
            }
            HostRequest::WriteTextFile { path, content } => {
                Some(self.root().and_then(|root| write_text(&root, &path, &content)))
            }
            HostRequest::CreateTerminal { command, args, env, cwd, output_byte_limit } => {
                let start =
                    Start { key: key.clone(), terminal_id: "".into(), command, args, env, cwd };
                self.create_terminal(start, output_byte_limit, step).err().map(Err)
            }
            HostRequest::TerminalOutput { terminal_id } => {
                Some(self.terminal(&terminal_id).map(|terminal| terminal.output_answer()))
            }
            HostRequest::WaitForTerminalExit { terminal_id } => match self.terminal(&terminal_id) {
                Ok(terminal) => match &terminal.exit {
                    Some(exit) => Some(Ok(exit_status(exit))),
                    None => {
                        terminal.waiting.push(key.clone());
                        None
                    }
                },
                Err(error) => Some(Err(error)),
            },
            HostRequest::KillTerminal { terminal_id } => Some(self.kill_terminal(&terminal_id)),
            HostRequest::ReleaseTerminal { terminal_id } => {
                Some(self.release_terminal(&terminal_id, step))
            }
        };
        if let Some(answer) = answer {
            let mut effects = Effects::default();
            adapter.command(Command::HostAnswer { key, answer }, &mut effects);
            self.apply_all(&mut effects, adapter, step);
        }
    }

    /// The session's folder with all links resolved.
    fn root(&self) -> Result<PathBuf, HostError> {
        let session_id = &self.session_id;
        self.shared
            .ledger
            .read(|db| crate::ledger::session::get_private(db, session_id))
            .ok()
            .and_then(|private| fs::canonicalize(private.agent_cwd).ok())
            .map_or_else(|| refuse(INTERNAL, "the session's folder is gone"), Ok)
    }

    fn terminal(&mut self, terminal_id: &str) -> Result<&mut Terminal, HostError> {
        let found = self.state.terminals.open.get_mut(terminal_id);
        found
            .filter(|terminal| !terminal.is_released)
            .map_or_else(|| refuse(NOT_FOUND, format!("no terminal {terminal_id}")), Ok)
    }

    fn create_terminal(
        &mut self,
        start: Start,
        output_byte_limit: Option<u64>,
        step: &mut Step,
    ) -> Result<(), HostError> {
        let bytes_max = output_byte_limit
            .unwrap_or(limits::TERMINAL_OUTPUT_BYTES)
            .clamp(1, limits::TERMINAL_OUTPUT_BYTES);
        let bytes_max = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let Some(terminal_id) = self.terminal_id(&start.key) else {
            return refuse(INTERNAL, "the agent is gone");
        };
        if let Some(terminal) = self.state.terminals.open.get_mut(&terminal_id) {
            // The last server was killed before its answer was committed, and the adapter asks again.
            let start = Start { terminal_id, ..start };
            if terminal.exit.take_if(|exit| exit.lost).is_some() {
                self.state.terminals.to_start.push(start);
            } else {
                terminal.unanswered = Some(start);
            }
            return Ok(());
        }
        if self.state.terminals.open.len() >= limits::TERMINALS {
            return refuse(INTERNAL, format!("{} terminals are open", limits::TERMINALS));
        }
        self.state.terminals.expect(&terminal_id, bytes_max);
        let (session_key, id) = (self.session_key, Arc::clone(&terminal_id));
        step.change(move |tx| tx.insert_terminal(session_key, &id, bytes_max));
        self.state.terminals.to_start.push(Start { terminal_id, ..start });
        Ok(())
    }

    /// The name of the terminal that a request makes: made of the agent's and the request's, so that a request that
    /// is repeated after a restart names the same one and does not start its command twice.
    fn terminal_id(&self, key: &str) -> Option<Arc<str>> {
        let agent = self.state.agent.as_ref()?.child_id.trim_start_matches("agent_");
        let request: String = key.chars().filter(char::is_ascii_alphanumeric).collect();
        Some(format!("term_{agent}_{request}").into())
    }

    /// Starts what the last step wrote down, and tells the agent.
    pub(super) fn start_terminals(&mut self) {
        for start in std::mem::take(&mut self.state.terminals.to_start) {
            let (key, terminal_id) = (start.key.clone(), Arc::clone(&start.terminal_id));
            let answer = match self.start_terminal(start) {
                Ok(keeper) => {
                    if let Some(terminal) = self.state.terminals.open.get_mut(&terminal_id) {
                        terminal.keeper = Some(keeper);
                    }
                    Ok(json!({"terminalId": &*terminal_id}))
                }
                Err(error) => {
                    self.state.terminals.open.remove(&terminal_id);
                    refuse(INTERNAL, error.to_string())
                }
            };
            let is_lost = answer.is_err();
            let mut step = self.step();
            if is_lost {
                step.change(move |tx| tx.delete_terminal(&terminal_id));
            }
            self.command(Command::HostAnswer { key, answer }, &mut step);
            if self.commit(step).is_err() {
                // The others are asked for again when the session is read again.
                return;
            }
        }
    }

    fn start_terminal(&self, start: Start) -> crate::error::Result<Keeper> {
        let root = self.root().map_err(|error| crate::error::Error::internal(error.message))?;
        let cwd = match &start.cwd {
            Some(cwd) => inside(&root, cwd)
                .map_err(|error| crate::error::Error::bad_request(error.message))?,
            None => root,
        };
        let provider = self.shared.provider(&self.provider);
        let mut env = crate::environment::passed_on(&provider.env_passthrough);
        env.extend(start.env);
        // Without arguments the command is a line for the shell; with them it is a program.
        let argv = if start.args.is_empty() {
            vec!["/bin/sh".to_owned(), "-c".to_owned(), start.command]
        } else {
            [vec!["/usr/bin/env".to_owned(), start.command], start.args].concat()
        };
        let output = launch::drop_oldest(limits::TERMINAL_OUTPUT_BYTES);
        let mut spec = launch::spec(&self.shared, &start.terminal_id, argv, env, cwd);
        spec.stdout = output;
        spec.stderr = output;
        keeper::spawn(&spec, self.terminal_sink(&start.terminal_id))
    }

    fn terminal_sink(&self, terminal_id: &Arc<str>) -> impl FnMut(FromKeeper) + Send + 'static {
        let (inbox, terminal_id) = (self.children.0.clone(), Arc::clone(terminal_id));
        move |message| {
            let terminal_id = Arc::clone(&terminal_id);
            drop(inbox.send(FromChild::Terminal { terminal_id, message }));
        }
    }

    /// Errors: one of them can not be reached for now; see [`Actor::reattach`].
    pub(super) fn reattach_terminals(&mut self) -> crate::error::Result<()> {
        let known: Vec<Arc<str>> = self.state.terminals.open.keys().cloned().collect();
        for terminal_id in known {
            let dir = self.shared.keeper_dir(&terminal_id);
            let sink = self.terminal_sink(&terminal_id);
            let attached = keeper::attach(&dir, 0, 0, sink);
            let Some(terminal) = self.state.terminals.open.get_mut(&terminal_id) else { continue };
            match attached {
                Ok(attached) => terminal.keeper = Some(attached.keeper),
                Err(error) if error.code != Code::NotFound => return Err(error),
                Err(error) => terminal.exit = Some(never_started(&error)),
            }
        }
        Ok(())
    }

    pub(super) fn hear_terminal(
        &mut self,
        terminal_id: &Arc<str>,
        message: FromKeeper,
        step: &mut Step,
    ) -> usize {
        if self.answer_terminal(terminal_id, &message, step) {
            return 1;
        }
        let Some(terminal) = self.state.terminals.open.get_mut(terminal_id) else { return 0 };
        match message {
            FromKeeper::Output { bytes, .. } => {
                terminal.output.extend_from_slice(&bytes);
                let excess = terminal.output.len().saturating_sub(terminal.bytes_max);
                terminal.is_truncated |= excess > 0;
                terminal.output.drain(..excess);
                bytes.len()
            }
            FromKeeper::Exited(exit) => {
                let status = exit_status(&exit);
                terminal.exit = Some(*exit);
                terminal.keeper = None;
                terminal.stop_by = None;
                let waiting = std::mem::take(&mut terminal.waiting);
                let is_released = terminal.is_released;
                for key in waiting {
                    let answer = Ok(status.clone());
                    self.command(Command::HostAnswer { key, answer }, step);
                }
                if is_released || self.state.agent.is_none() {
                    self.forget_terminal(terminal_id, step);
                }
                if self.state.agent.is_none() {
                    self.tell_closers(step);
                }
                1
            }
            FromKeeper::Hello(_) | FromKeeper::StdinAccepted { .. } => 1,
        }
    }

    /// A request that the last server left unanswered is answered as soon as it is known that its command runs or has
    /// run. A keeper that was gone before it started the command is replaced; true then.
    fn answer_terminal(
        &mut self,
        terminal_id: &Arc<str>,
        message: &FromKeeper,
        step: &mut Step,
    ) -> bool {
        let Some(terminal) = self.state.terminals.open.get_mut(terminal_id) else { return false };
        let Some(start) = terminal.unanswered.take() else { return false };
        let dir = self.shared.keeper_dir(terminal_id);
        let is_lost = matches!(message, FromKeeper::Exited(exit) if exit.lost);
        if is_lost && !keeper::has_run(&dir) {
            terminal.keeper = None;
            if let Err(error) = keeper::forget(&dir) {
                // The start fails on the same folder, and that is told to the agent.
                log::warn!("the journal {} can not be removed: {error}", dir.display());
            }
            self.state.terminals.to_start.push(start);
            return true;
        }
        let answer = Ok(json!({"terminalId": &**terminal_id}));
        self.command(Command::HostAnswer { key: start.key, answer }, step);
        false
    }

    fn forget_terminal(&mut self, terminal_id: &Arc<str>, step: &mut Step) {
        self.state.terminals.open.remove(terminal_id);
        let dir = self.shared.keeper_dir(terminal_id);
        step.afterwards(move || drop(keeper::forget(&dir)));
    }

    fn kill_terminal(&mut self, terminal_id: &str) -> HostAnswer {
        let grace = self.shared.config.keeper_grace;
        self.terminal(terminal_id)?.stop(grace);
        Ok(json!({}))
    }

    fn release_terminal(&mut self, terminal_id: &str, step: &mut Step) -> HostAnswer {
        let answer = self.kill_terminal(terminal_id)?;
        let terminal = self.terminal(terminal_id)?;
        terminal.is_released = true;
        let is_over = terminal.exit.is_some();
        let id: Arc<str> = terminal_id.into();
        let row = Arc::clone(&id);
        step.change(move |tx| tx.delete_terminal(&row));
        if is_over {
            self.forget_terminal(&id, step);
        }
        Ok(answer)
    }

    /// The agent is gone, its terminals go with it. Their rows went with the agent's.
    pub(super) fn drop_terminals(&mut self, step: &mut Step) {
        self.stop_terminals();
        let over: Vec<Arc<str>> = self
            .state
            .terminals
            .open
            .iter()
            .filter(|(_, terminal)| terminal.keeper.is_none())
            .map(|(terminal_id, _)| Arc::clone(terminal_id))
            .collect();
        for terminal_id in over {
            self.forget_terminal(&terminal_id, step);
        }
    }

    pub(super) fn stop_terminals(&mut self) {
        let grace = self.shared.config.keeper_grace;
        self.state.terminals.to_start.clear();
        for terminal in self.state.terminals.open.values_mut() {
            terminal.is_released = true;
            terminal.stop(grace);
        }
    }

    pub(super) fn detach_terminals(&mut self) {
        self.state.terminals.open.clear();
    }

    /// Ends what is left of terminals whose keepers do not answer; that is heard as any other end.
    pub(super) fn sweep_terminals(&mut self) {
        let now = Instant::now();
        for (terminal_id, terminal) in &mut self.state.terminals.open {
            if terminal.stop_by.is_none_or(|stop_by| now < stop_by) {
                continue;
            }
            log::error!("the keeper of terminal {terminal_id} does not answer");
            if let Err(error) = keeper::sweep(terminal_id) {
                log::error!("terminal {terminal_id}: {error}");
            }
            terminal.stop_by = Some(Instant::now() + STOP_SLACK);
        }
    }
}

impl Terminal {
    /// Has its command ended with all that it started.
    fn stop(&mut self, grace: Duration) {
        if let Some(keeper) = &self.keeper {
            keeper.stop(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
            // The keeper kills after its grace.
            self.stop_by.get_or_insert_with(|| Instant::now() + grace + STOP_SLACK);
        }
    }

    fn output_answer(&self) -> Value {
        let mut answer = json!({
            "output": String::from_utf8_lossy(&self.output),
            "truncated": self.is_truncated,
        });
        if let Some(exit) = &self.exit {
            answer["exitStatus"] = exit_status(exit);
        }
        answer
    }
}

fn exit_status(exit: &Exit) -> Value {
    let signal = exit.signal.map(|signal| signal.to_string());
    json!({"exitCode": exit.code, "signal": signal})
}

/// The path with its links resolved, if it lies in `root`; the last part need not exist.
fn inside(root: &Path, path: &str) -> Result<PathBuf, HostError> {
    let path = Path::new(path);
    let outside =
        || refuse(INVALID_PARAMS, format!("{} is not inside the session's folder", path.display()));
    if !path.is_absolute() {
        return refuse(INVALID_PARAMS, format!("{} is not an absolute path", path.display()));
    }
    let resolved = match fs::canonicalize(path) {
        Ok(resolved) => resolved,
        Err(_) => {
            // A link that leads nowhere would be followed by the write: it is refused.
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
                return outside();
            };
            if fs::symlink_metadata(path).is_ok() {
                return outside();
            }
            match fs::canonicalize(folder) {
                Ok(folder) => folder.join(name),
                Err(_) => return refuse(NOT_FOUND, format!("no folder {}", folder.display())),
            }
        }
    };
    if resolved.starts_with(root) { Ok(resolved) } else { outside() }
}

/// Opening a pipe would wait for its other end, and with it the session: an agent can make one.
fn unwaiting() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.custom_flags(OFlags::NONBLOCK.bits().cast_signed());
    options
}

fn read_text(root: &Path, path: &str, line: Option<u64>, limit: Option<u64>) -> HostAnswer {
    let path = inside(root, path)?;
    let Ok(file) = unwaiting().read(true).open(&path) else {
        return refuse(NOT_FOUND, format!("no file {}", path.display()));
    };
    let is_file = file.metadata().is_ok_and(|metadata| metadata.is_file());
    let mut bytes = Vec::new();
    let read = file.take(limits::CLIENT_FILE_BYTES + 1).read_to_end(&mut bytes);
    if !is_file || read.is_err() {
        return refuse(INVALID_PARAMS, format!("{} can not be read as a file", path.display()));
    }
    if bytes.len() as u64 > limits::CLIENT_FILE_BYTES {
        let most = limits::CLIENT_FILE_BYTES;
        return refuse(INVALID_PARAMS, format!("{} is larger than {most} bytes", path.display()));
    }
    let text = String::from_utf8_lossy(&bytes);
    if line.is_none() && limit.is_none() {
        return Ok(json!({"content": text}));
    }
    let skip = usize::try_from(line.unwrap_or(1).saturating_sub(1)).unwrap_or(usize::MAX);
    let take = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
    let part: String = text.split_inclusive('\n').skip(skip).take(take).collect();
    Ok(json!({"content": part}))
}

fn write_text(root: &Path, path: &str, content: &str) -> HostAnswer {
    let path = inside(root, path)?;
    if content.len() as u64 > limits::CLIENT_FILE_BYTES {
        let most = limits::CLIENT_FILE_BYTES;
        return refuse(INVALID_PARAMS, format!("the content is larger than {most} bytes"));
    }
    let written =
        unwaiting().write(true).create(true).truncate(true).open(&path).and_then(|mut file| {
            if !file.metadata()?.is_file() {
                return Err(io::Error::other("it is no file"));
            }
            file.write_all(content.as_bytes())
        });
    match written {
        Ok(()) => Ok(json!({})),
        Err(error) => refuse(INTERNAL, format!("{}: {error}", path.display())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::id;

    #[test]
    fn who_has_taken_a_request_back_is_not_kept() {
        let mut terminals = Terminals::default();
        terminals.expect("term_1", 1);
        let waiting = &mut terminals.open.get_mut("term_1").unwrap().waiting;
        waiting.extend(["host#1".to_owned(), "host#2".to_owned()]);
        terminals.take_back("host#1");
        terminals.take_back("host#3");
        assert_eq!(terminals.open["term_1"].waiting, ["host#2"]);
    }

    #[test]
    fn files_are_served_inside_the_folder_only() {
        let root = std::env::temp_dir().join(id::new("gooselake"));
        fs::create_dir_all(root.join("in")).unwrap();
        let root = fs::canonicalize(&root).unwrap();
        let inside_root = root.join("in");
        fs::write(inside_root.join("a.txt"), "one\ntwo\nthree\n").unwrap();
        fs::write(root.join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(root.join("secret"), inside_root.join("link")).unwrap();
        std::os::unix::fs::symlink(root.join("nothing"), inside_root.join("dangling")).unwrap();
        let at = |name: &str| inside_root.join(name).to_string_lossy().into_owned();

        let part = read_text(&inside_root, &at("a.txt"), Some(2), Some(1)).unwrap();
        assert_eq!(part, json!({"content": "two\n"}));
        for outside in ["link", "../secret", "dangling"] {
            assert!(read_text(&inside_root, &at(outside), None, None).is_err(), "{outside}");
            assert!(write_text(&inside_root, &at(outside), "x").is_err(), "{outside}");
        }
        assert!(read_text(&inside_root, "a.txt", None, None).is_err());
        assert_eq!(write_text(&inside_root, &at("new"), "x"), Ok(json!({})));
        assert_eq!(fs::read_to_string(root.join("secret")).unwrap(), "s");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_pipe_is_neither_read_nor_written() {
        let root = fs::canonicalize(std::env::temp_dir()).unwrap().join(id::new("pipe"));
        fs::create_dir(&root).unwrap();
        let pipe = root.join("pipe");
        rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
        let path = pipe.to_str().unwrap();
        assert!(read_text(&root, path, None, None).is_err());
        assert!(write_text(&root, path, "x").is_err());
        // With somebody at the other end, too.
        let reader = unwaiting().read(true).open(&pipe).unwrap();
        assert!(write_text(&root, path, "x").is_err());
        drop(reader);
        fs::remove_dir_all(&root).unwrap();
    }
}
