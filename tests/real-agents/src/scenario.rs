//! The scenarios: what a person does with an agent, and what must be true afterwards.
//!
//! Each agent has a server, a mock model and a home of its own. A scenario that goes wrong is a cell of the matrix, not
//! the end of the run.

use crate::echo;
use gooselake_harness::client::Client;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::{proc, wait};
use gooselake_mock_model::Mock;
use gooselake_mock_model::agents::{self, Profile};
use serde_json::{Value, json};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

mod claude;
mod native;

/// How a scenario ended: as expected, with what was seen, or not; or it is not for this agent.
pub(crate) enum Outcome {
    Right(String),
    Wrong(String),
    NotFor,
}

type Scenario = fn(&mut Stage) -> Result<String, String>;

/// For every agent, in the order in which they run.
const COMMON: &[(&str, Scenario)] = &[
    ("text turn", text),
    ("tool, accepted", accepted),
    ("tool, declined", declined),
    ("interrupt", interrupt),
    ("MCP server", mcp),
    ("tools of the server", tools),
    ("model error", model_error),
];
/// For every agent, at the end.
const LAST: &[(&str, Scenario)] = &[("kill -9 and resume", resume)];

/// The columns of the matrix: each scenario, and whether it is only for programs with a protocol of their own.
pub(crate) fn scenarios() -> impl Iterator<Item = (&'static str, Scenario, bool)> {
    let all = |scenario: &'static (&'static str, Scenario)| (scenario.0, scenario.1, false);
    let native = native::SCENARIOS.iter().chain(claude::SCENARIOS);
    let native = native.map(|(title, scenario)| (*title, *scenario, true));
    COMMON.iter().map(all).chain(native).chain(LAST.iter().map(all))
}

/// Some agents retry a failing model in silence for more than a minute.
const PATIENCE: Duration = Duration::from_secs(150);

/// The demo agent that comes with the server: the same stories, in its own words and without a model.
pub(crate) const DEMO: &str = "demo";

/// What is asked of every agent, whatever words it wants to hear.
enum Ask<'a> {
    Say(&'a str),
    /// To talk for long.
    Slow,
    /// A command that makes this file, is asked about, and prints 42.
    Command(&'a str),
    /// The tool of the session's own MCP server, and one of the server's tools.
    Echo,
    Ping,
    /// To fail as it does when its model does.
    Fail,
    /// What was said before.
    History,
}

/// One agent on its server.
pub(crate) struct Stage {
    name: &'static str,
    profile: Profile,
    server: Server,
    client: Client,
    folder: PathBuf,
    /// The session that most scenarios share.
    session: Option<String>,
    mock: Mock,
    _home: Home,
}

/// A home that goes away; under the install root, because Codex refuses one under the temporary folder.
pub(crate) struct Home(pub(crate) PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

impl Home {
    /// The path of one for this run.
    pub(crate) fn of(root: &Path, name: &str) -> Home {
        Home(root.join(format!("h-{}-{name}", std::process::id())))
    }
}

/// What a server's configuration says of the agent.
pub(crate) fn configuration(profile: &Profile) -> Result<String, String> {
    let (program, arguments) = profile.argv.split_first().ok_or("no program")?;
    let provider = profile.provider;
    let mut config = format!(
        "[providers.{provider}]\nrequest_timeout_secs = 90\ncommand = {}\nargs = {}\n\
         [providers.{provider}.env]\n",
        json!(program),
        json!(arguments)
    );
    for (variable, value) in &profile.env {
        config.push_str(&format!("{variable} = {}\n", json!(value)));
    }
    Ok(config)
}

/// Runs every scenario with the agent and tells each as it ends.
pub(crate) fn run_all(name: &'static str, root: &Path, tell: &dyn Fn(&str)) -> Vec<Outcome> {
    let mut stage = match Stage::set(name, root) {
        Ok(stage) => stage,
        Err(error) => {
            tell(&format!("{name}: {error}\n"));
            return scenarios().map(|_| Outcome::Wrong(error.clone())).collect();
        }
    };
    scenarios()
        .map(|(title, scenario, is_native)| {
            let is_claudes = claude::SCENARIOS.iter().any(|(own, _)| *own == title);
            let has_protocol = !matches!(stage.profile.provider, "acp" | DEMO);
            if is_native && !has_protocol || is_claudes && name != "claude" {
                return Outcome::NotFor;
            }
            let ran = catch_unwind(AssertUnwindSafe(|| scenario(&mut stage)));
            let outcome = ran.unwrap_or_else(|_| Err("panicked, see above".to_owned()));
            let (mark, told) = match &outcome {
                Ok(told) => ("ok", told),
                Err(told) => ("FAILED", told),
            };
            tell(&format!("{name}: {title} ... {mark}: {told}\n"));
            outcome.map_or_else(Outcome::Wrong, Outcome::Right)
        })
        .collect()
}

impl Stage {
    fn set(name: &'static str, root: &Path) -> Result<Stage, String> {
        let mock = Mock::start().map_err(|error| format!("the mock model: {error}"))?;
        let home = Home::of(root, name);
        if name == DEMO {
            return Stage::set_demo(mock, home);
        }
        let profile = agents::profile(name, root, &home.0, mock.address)
            .map_err(|error| format!("the agent's home: {error}"))?;
        let config = configuration(&profile)?;
        Stage::start_server(name, profile, config, mock, home)
    }

    fn set_demo(mock: Mock, home: Home) -> Result<Stage, String> {
        let config = "[providers.demo]\nenabled = true\n".to_owned();
        let profile = Profile { provider: DEMO, ..Profile::default() };
        Stage::start_server(DEMO, profile, config, mock, home)
    }

    fn start_server(
        name: &'static str,
        profile: Profile,
        config: String,
        mock: Mock,
        home: Home,
    ) -> Result<Stage, String> {
        let server = Server::try_start(Options { config_toml: config, ..Options::default() })?;
        let folder = server.folder().join("work");
        std::fs::create_dir(&folder).map_err(|error| error.to_string())?;
        let client = server.client().with_deadline(PATIENCE);
        let (session, _home) = (None, home);
        Ok(Stage { name, profile, server, client, folder, session, mock, _home })
    }

    /// The prompt that asks this agent for it.
    fn prompt(&self, ask: &Ask<'_>) -> String {
        let is_demo = self.name == DEMO;
        match ask {
            Ask::Say(text) if is_demo => format!("say {text}"),
            Ask::Say(text) => format!("SAY {text}"),
            Ask::Slow if is_demo => "slow 200 50".to_owned(),
            Ask::Slow => "SLOW 200".to_owned(),
            Ask::Command(file) if is_demo => format!("run expr 6 '*' 7 > {file}; cat {file}"),
            Ask::Command(file) => self.profile.ask(file),
            Ask::Echo if is_demo => "mcp echo echo {\"text\": \"ping\"}".to_owned(),
            Ask::Echo => "MCP echo {\"text\": \"ping\"}".to_owned(),
            Ask::Ping if is_demo => "mcp gg gg_ping {}".to_owned(),
            Ask::Ping => "MCP gg_ping {}".to_owned(),
            Ask::Fail if is_demo => "fail the model failed".to_owned(),
            Ask::Fail => "FAIL 500".to_owned(),
            Ask::History if is_demo => "history".to_owned(),
            Ask::History => "HISTORY".to_owned(),
        }
    }

    /// What the model has seen: it says so itself, but for the agent that has none, whose items show it.
    fn seen(&self, session: &str, turn: &Value) -> String {
        match self.name {
            DEMO => self.items(session, turn).to_string(),
            _ => said(turn).to_owned(),
        }
    }

    fn open(&self, more: &Value) -> Result<String, String> {
        let mut body = json!({"provider": self.profile.provider, "cwd": self.folder});
        if !matches!(self.profile.provider, "acp" | DEMO) {
            body["permission_mode"] = json!("default");
        }
        if let Some(mode) = self.profile.ask_mode {
            body["mode"] = json!(mode);
        }
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let reply = self.client.post("/v1/sessions", &body);
        let record = reply.json();
        match record["id"].as_str() {
            Some(id) => Ok(id.to_owned()),
            None => Err(format!("no session: {record}")),
        }
    }

    fn session(&mut self) -> Result<String, String> {
        if self.session.is_none() {
            self.session = Some(self.open(&json!({}))?);
        }
        Ok(self.session.clone().unwrap_or_default())
    }

    /// A whole turn; every question of the agent is answered with `decision`. Returns the turn and how often it asked.
    fn turn(&self, session: &str, text: &str, decision: &str) -> Result<(Value, usize), String> {
        let turn = self.start(session, text)?;
        let mut asked = 0;
        loop {
            let seen = wait::until(PATIENCE, "the end of the turn, or a question", || {
                let path = format!("/v1/sessions/{session}/turns/{turn}?wait_ms=100");
                let record = self.client.get(&path).json();
                let is_over = record["completed_at"].is_number();
                let waits = record["status"] == "waiting_for_approval";
                (is_over || waits).then_some(record)
            });
            if seen["completed_at"].is_number() {
                return Ok((seen, asked));
            }
            let path = format!("/v1/sessions/{session}/approvals?status=pending");
            for approval in self.client.get(&path).json().as_array().into_iter().flatten() {
                let id = approval["id"].as_str().unwrap_or_default();
                let path = format!("/v1/sessions/{session}/approvals/{id}");
                self.client.post(&path, &json!({"decision": decision})).expect(200);
                asked += 1;
            }
        }
    }

    fn start(&self, session: &str, text: &str) -> Result<String, String> {
        let path = format!("/v1/sessions/{session}/turns");
        let started = self.client.post(&path, &json!({"input": [text]})).json();
        let turn = started["turn_id"].as_str().map(str::to_owned);
        turn.ok_or_else(|| format!("no turn: {started}"))
    }

    fn items(&self, session: &str, turn: &Value) -> Value {
        let turn = turn["id"].as_str().unwrap_or_default();
        self.client.get(&format!("/v1/sessions/{session}/turns/{turn}/items")).json()
    }
}

fn said(turn: &Value) -> &str {
    turn["assistant_text"].as_str().unwrap_or_default()
}

pub(crate) fn must(is_true: bool, what: &str, seen: &Value) -> Result<(), String> {
    if is_true { Ok(()) } else { Err(format!("{what}; seen: {seen}")) }
}

fn text(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let prompt = stage.prompt(&Ask::Say("hello from the mock model"));
    let (turn, _) = stage.turn(&session, &prompt, "decline")?;
    must(turn["status"] == "completed", "the turn completes", &turn)?;
    must(said(&turn) == "hello from the mock model", "the text is whole", &turn)?;
    must(turn["usage"].is_object(), "the usage is told", &turn)?;
    Ok("completed".to_owned())
}

fn accepted(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let prompt = stage.prompt(&Ask::Command("accepted.txt"));
    let (turn, asked) = stage.turn(&session, &prompt, "accept")?;
    must(asked == 1, "the agent asks once", &json!(asked))?;
    must(turn["status"] == "completed", "the turn completes", &turn)?;
    let seen = stage.seen(&session, &turn);
    must(seen.contains("42"), "the model sees the output", &turn)?;
    must(stage.folder.join("accepted.txt").is_file(), "the command ran", &turn)?;
    Ok("asked once, ran".to_owned())
}

fn declined(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let prompt = stage.prompt(&Ask::Command("declined.txt"));
    let (turn, asked) = stage.turn(&session, &prompt, "decline")?;
    must(asked == 1, "the agent asks once", &json!(asked))?;
    must(!stage.folder.join("declined.txt").exists(), "the command did not run", &turn)?;
    let items = stage.items(&session, &turn);
    let is_declined = |item: &Value| item["status"] == "declined";
    let has = items.as_array().is_some_and(|items| items.iter().any(is_declined));
    must(has, "an item is declined", &items)?;
    Ok(format!("did not run, turn {}", turn["status"].as_str().unwrap_or_default()))
}

fn interrupt(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let path = format!("/v1/sessions/{session}/events/stream?after_seq=latest&kinds=item.delta");
    let mut deltas = stage.client.stream(&path, &[]);
    let turn = stage.start(&session, &stage.prompt(&Ask::Slow))?;
    deltas.until("item.delta", PATIENCE);
    let path = format!("/v1/sessions/{session}/turns/{turn}");
    stage.client.post(&format!("{path}/interrupt"), &json!({})).expect(202);
    let record = stage.client.get(&format!("{path}?wait_ms=60000")).json();
    must(record["status"] == "interrupted", "the turn is interrupted", &record)?;
    let first = if stage.name == DEMO { "1 " } else { "w1" };
    must(said(&record).starts_with(first), "what was said is kept", &record)?;
    Ok("interrupted, text kept".to_owned())
}

fn mcp(stage: &mut Stage) -> Result<String, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let session = stage.open(&json!({"mcp_servers": [{
        "name": "echo", "command": program, "args": [echo::ARGUMENT],
        "env": {echo::VARIABLE: "of-the-session"},
    }]}))?;
    let (turn, asked) = stage.turn(&session, &stage.prompt(&Ask::Echo), "accept")?;
    must(turn["status"] == "completed", "the turn completes", &turn)?;
    let is_there = stage.seen(&session, &turn).contains("echo:ping env:of-the-session");
    must(is_there, "the tool answered, with the session's environment", &turn)?;
    stage.client.post(&format!("/v1/sessions/{session}/close"), &json!({})).expect(200);
    Ok(format!("called, asked {asked}"))
}

fn tools(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let (turn, asked) = stage.turn(&session, &stage.prompt(&Ask::Ping), "accept")?;
    must(turn["status"] == "completed", "the turn completes", &turn)?;
    must(stage.seen(&session, &turn).contains(&session), "the tool knows its caller", &turn)?;
    let path = format!("/v1/sessions/{session}/events?kinds=mcp.tool_called");
    let calls = stage.client.get(&path).expect(200).json();
    must(calls[0]["payload"]["called_by"] == "agent", "the log has the call", &calls)?;
    // Arguments of a process can be read by every user of the machine.
    let keepers = proc::keepers_of(stage.server.data_dir());
    let tree = keepers.iter().flat_map(|keeper| proc::descendants(*keeper));
    let arguments: Vec<String> = tree.flat_map(proc::arguments).collect();
    let tells = |argument: &String| argument.contains("ggt_");
    must(!arguments.iter().any(tells), "no process shows the token", &json!(arguments))?;
    Ok(format!("called, asked {asked}"))
}

fn model_error(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let (turn, _) = stage.turn(&session, &stage.prompt(&Ask::Fail), "decline")?;
    // codex-acp tells a model's error as an answer; nothing in its messages says otherwise.
    let expected = if stage.name == "codex-acp" { "completed" } else { "failed" };
    must(turn["status"] == expected, "the turn tells the error", &turn)?;
    let prompt = stage.prompt(&Ask::Say("still here"));
    let (next, _) = stage.turn(&session, &prompt, "decline")?;
    must(said(&next).contains("still here"), "the next turn works", &next)?;
    Ok(format!("turn {expected}, next works"))
}

fn resume(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let minute = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        now.as_secs() / 60
    };
    let made_in = minute();
    let keepers = proc::keepers_of(stage.server.data_dir());
    let agents: Vec<u32> = keepers.iter().flat_map(|keeper| proc::descendants(*keeper)).collect();
    must(!agents.is_empty(), "the agent runs", &json!(keepers))?;
    stage.server.kill9();
    for pid in keepers.iter().chain(&agents) {
        drop(proc::signal(*pid, proc::Signal::KILL));
    }
    if stage.name == "gemini" {
        // It names its transcript by the minute, and a load in the same minute wipes it (its own fault).
        wait::until(Duration::from_secs(70), "the next minute", || {
            (minute() > made_in).then_some(())
        });
    }
    stage.server.restart();
    stage.client = stage.server.client().with_deadline(PATIENCE);
    let (turn, _) = stage.turn(&session, &stage.prompt(&Ask::History), "decline")?;
    must(turn["status"] == "completed", "the turn completes", &turn)?;
    let earlier = stage.prompt(&Ask::Say("hello"));
    must(said(&turn).contains(&earlier), "the model sees the earlier turns", &turn)?;
    Ok("history there".to_owned())
}
