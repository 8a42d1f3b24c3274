//! Three agents of three makers in one team: Codex leads, Claude is spawned for it, OpenCode joins.
//!
//! One server, one mock model, one story in steps. Agents act by the tools of the gateway, because the model's words
//! tell them to; the scenario only says what a person would say, accepts what is asked, and holds and releases the
//! model and the commands, so that whoever is to be busy is busy for as long as it has to be. A step that fails ends
//! the story. The last step believes nothing of what was seen on the way: it reads the team's view and the log.

use crate::scenario::{Home, Outcome, configuration, must};
use gooselake_harness::client::Client;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::stream::Record;
use gooselake_harness::wait;
use gooselake_mock_model::{Mock, agents};
use serde_json::{Value, json};
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use watch::Watch;

mod mail;
mod story;
mod watch;

/// The word that asks for this story alone.
pub(crate) const NAME: &str = "team";
/// The agents, by the part that each plays: the lead, the one that is spawned, the one that joins.
const AGENTS: [&str; 3] = ["codex", "claude", "opencode"];
/// How long the whole story may take.
const STORY_TIME: Duration = Duration::from_secs(120);
/// How long a command of an agent may take to be where it waits.
const COMMAND_TIME: Duration = Duration::from_secs(20);

type Step = fn(&mut Team) -> Result<String, String>;

/// In the order of the story.
const STEPS: &[(&str, Step)] = &[
    ("formed", Team::meet),
    ("spawned through the gateway", Team::spawn),
    ("mail to the idle", mail::to_the_idle),
    ("mail that waits for the turn", mail::waits_and_shares),
    ("mail with a turn of its own", mail::waits_for_its_own),
    ("mail at a tool boundary", mail::at_a_tool_boundary),
    ("mail that interrupts at once", mail::at_once),
    ("results to the lead", mail::results),
    ("mail among members", mail::among_members),
    ("taken down", Team::take_down),
    ("the story in view and log", story::check),
];

/// A step with how it ended.
pub(crate) type Told = (&'static str, Outcome);

/// The server with all that is on it. Ids are empty until the step that makes them.
struct Team {
    client: Client,
    watch: Watch,
    mock: Mock,
    repo: PathBuf,
    id: String,
    /// Codex, which leads.
    lead: String,
    /// Claude, which is spawned into a worktree.
    builder: String,
    /// OpenCode, which joins.
    reviewer: String,
    /// The builder's.
    worktree: Value,
    /// The team at a look, before it was deleted.
    view: Value,
    _server: Server,
    _homes: Vec<Home>,
}

/// Tells the story and how each step of it ended.
pub(crate) fn run(root: &Path, tell: &dyn Fn(&str)) -> Vec<Told> {
    let mut team = Team::set(root);
    let mut told = Vec::new();
    for (title, step) in STEPS {
        let ran = match &mut team {
            Ok(team) => catch_unwind(AssertUnwindSafe(|| step(team)))
                .unwrap_or_else(|_| Err("panicked, see above".to_owned())),
            Err(error) => Err(error.clone()),
        };
        let outcome = match ran {
            Ok(seen) => {
                tell(&format!("{NAME}: {title} ... ok: {seen}\n"));
                Outcome::Right(seen)
            }
            Err(error) => {
                tell(&format!("{NAME}: {title} ... FAILED: {error}\n"));
                // What has failed is told once; the steps behind it have nothing to stand on.
                team = Err("not reached".to_owned());
                Outcome::Wrong(error)
            }
        };
        told.push((*title, outcome));
    }
    told
}

/// What is asked of the gateway, as a line that the model follows.
fn call(tool: &str, arguments: &Value) -> String {
    format!("MCP {tool} {arguments}")
}

/// A field that is a text.
fn text<'a>(record: &'a Value, field: &str) -> &'a str {
    record[field].as_str().unwrap_or_default()
}

impl Team {
    fn set(root: &Path) -> Result<Team, String> {
        let mock = Mock::start().map_err(|error| format!("the mock model: {error}"))?;
        let mut config = String::new();
        let mut homes = Vec::new();
        for name in AGENTS {
            let home = Home::of(root, &format!("team-{name}"));
            let profile = agents::profile(name, root, &home.0, mock.address);
            homes.push(home);
            let profile = profile.map_err(|error| format!("the home of {name}: {error}"))?;
            config += &configuration(&profile)?;
        }
        let server = Server::try_start(Options { config_toml: config, ..Options::default() })?;
        let repo = server.folder().join("repo");
        make_repository(&repo)?;
        let client = server.client().with_deadline(STORY_TIME);
        let watch = Watch::new(&client, Instant::now() + STORY_TIME);
        Ok(Team {
            client,
            watch,
            mock,
            repo,
            id: String::new(),
            lead: String::new(),
            builder: String::new(),
            reviewer: String::new(),
            worktree: Value::Null,
            view: Value::Null,
            _server: server,
            _homes: homes,
        })
    }

    fn path(&self, rest: &str) -> String {
        format!("/v1/teams/{}{rest}", self.id)
    }

    /// The answer to a request that is to succeed.
    fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let reply = self.client.post(path, body);
        if reply.status < 300 { Ok(reply.json()) } else { Err(reply.to_string()) }
    }

    fn open(&self, provider: &str, more: Value) -> Result<String, String> {
        let mut body = more;
        body["provider"] = json!(provider);
        body["cwd"] = json!(self.repo);
        Ok(text(&self.post("/v1/sessions", &body)?, "id").to_owned())
    }

    /// Says something to an agent; gives the turn.
    fn say(&self, session: &str, prompt: &str) -> Result<String, String> {
        let body = json!({"input": [prompt]});
        let turn = self.post(&format!("/v1/sessions/{session}/turns"), &body)?;
        Ok(text(&turn, "turn_id").to_owned())
    }

    /// The event that ends a turn.
    fn ended(&mut self, turn: &str) -> Result<Record, String> {
        self.watch.find(&format!("the end of {turn}"), |event| {
            let kinds = ["turn.completed", "turn.interrupted", "turn.failed"];
            event.json["turn_id"] == turn && kinds.contains(&event.kind.as_str())
        })
    }

    /// The same of a turn that is to complete.
    fn completed(&mut self, turn: &str) -> Result<Record, String> {
        let end = self.ended(turn)?;
        must(end.kind == "turn.completed", "the turn completes", &end.json)?;
        Ok(end)
    }

    /// Says something to an agent and waits until it has done it; gives its calls of the gateway.
    fn told(&mut self, session: &str, prompt: &str) -> Result<Vec<Value>, String> {
        let turn = self.say(session, prompt)?;
        let end = self.completed(&turn)?;
        let calls = self.watch.seen().iter().filter(|event| {
            event.kind == "mcp.tool_called" && event.json["turn_id"] == turn.as_str()
        });
        let calls: Vec<Value> = calls.map(|event| event.payload.clone()).collect();
        let asked = prompt.lines().filter(|line| line.starts_with("MCP ")).count();
        let seen = json!({"calls": calls, "end": end.payload});
        must(calls.len() == asked, "the agent makes each call once", &seen)?;
        Ok(calls)
    }

    fn meet(&mut self) -> Result<String, String> {
        self.lead = self.open("codex", json!({"permission_mode": "full_auto", "title": "Lead"}))?;
        let body = json!({"name": "three makers", "lead_agent_id": self.lead});
        self.id = text(&self.post("/v1/teams", &body)?["team"], "id").to_owned();
        self.reviewer = self.open("acp", json!({"title": "Reviewer"}))?;
        let body = json!({"agent_id": self.reviewer, "title": "Reviewer"});
        let team = self.post(&self.path("/members"), &body)?;
        let count = team["members"].as_array().map_or(0, Vec::len);
        must(count == 2, "the lead and one more", &team)?;
        // Its first turn has a second question for the model, a title, which must not be held up.
        for session in [self.lead.clone(), self.reviewer.clone()] {
            self.told(&session, "SAY here")?;
        }
        Ok("Codex leads, OpenCode joined".to_owned())
    }

    fn spawn(&mut self) -> Result<String, String> {
        let arguments = json!({
            "team_id": self.id, "title": "Builder", "model_preset": "sonnet",
            "worktree_name": "builder", "prompt": "SAY the builder is here",
        });
        let lead = self.lead.clone();
        let calls = self.told(&lead, &call("gg_team_manage", &arguments))?;
        must(calls[0]["is_error"] == false, "the gateway spawns", &calls[0])?;
        let result = &calls[0]["result"];
        self.builder = text(result, "spawned_agent_id").to_owned();
        self.worktree = result["worktree"].clone();
        let session = &result["spawned_session"];
        must(session["provider"] == "claude", "the preset names Claude", session)?;
        let is_there = Path::new(text(session, "cwd")) == self.worktree_path();
        must(is_there, "it works in its worktree", session)?;
        let builder = self.builder.clone();
        let letter = self.injected(text(&result["onboarding"], "message_id"), &builder)?;
        let end = self.completed(text(&letter, "injected_turn_id"))?;
        let said = text(&end.payload, "assistant_text");
        must(said == "the builder is here", "it reads what it is to do", &end.payload)?;
        Ok("Claude, in a worktree, read its task".to_owned())
    }

    fn worktree_path(&self) -> PathBuf {
        PathBuf::from(text(&self.worktree, "worktree_cwd"))
    }

    fn take_down(&mut self) -> Result<String, String> {
        let builder = self.builder.clone();
        self.told(&builder, "BASH echo a day of work > work.txt")?;
        let arguments = json!({"team_id": self.id, "remove_agent_ids": [builder]});
        let lead = self.lead.clone();
        let calls = self.told(&lead, &call("gg_team_manage", &arguments))?;
        must(calls[0]["result"]["removed_count"] == 1, "the member is removed", &calls[0])?;
        let session = self.client.get(&format!("/v1/sessions/{builder}")).json();
        must(session["status"] == "closed", "its session is closed", &session)?;
        let kept = self.worktree_path().join("work.txt");
        must(kept.is_file(), "work that is not committed stays", &json!(kept))?;
        self.view = self.client.get(&self.path("/view?message_limit=500")).expect(200).json();
        let id = self.id.clone();
        self.client.delete(&self.path("")).expect(204);
        self.watch.find("the end of the team", |event| {
            event.kind == "team.deleted" && event.json["team_id"] == id.as_str()
        })?;
        self.client.get(&self.path("/view")).expect(404);
        for session in [&self.lead, &self.reviewer] {
            let record = self.client.get(&format!("/v1/sessions/{session}")).json();
            must(record["status"] == "ready", "who was not spawned goes on", &record)?;
            self.post(&format!("/v1/sessions/{session}/close"), &json!({}))?;
        }
        Ok("spawned session closed, its work kept, the others went on".to_owned())
    }

    /// The delivery of a message to a member, as the first event of this kind tells of it.
    fn delivery(&mut self, message: &str, to: &str, status: &str) -> Result<Value, String> {
        let what = format!("{message} to {to} is {status}");
        let kind = format!("team_delivery.{status}");
        let event = self.watch.find(&what, |event| {
            let delivery = &event.payload["delivery"];
            let is_it = delivery["message_id"] == message && delivery["recipient_agent_id"] == to;
            event.kind == kind && is_it
        })?;
        Ok(event.payload["delivery"].clone())
    }

    /// The delivery once it is in a turn.
    fn injected(&mut self, message: &str, to: &str) -> Result<Value, String> {
        self.delivery(message, to, "injected")
    }
}

/// A repository with one commit.
fn make_repository(path: &Path) -> Result<(), String> {
    fs::create_dir(path).map_err(|error| error.to_string())?;
    let commit =
        ["-c", "user.name=Someone", "-c", "user.email=someone@example.org", "commit", "-q"];
    let commit = [&commit[..], &["--allow-empty", "-m", "first"]].concat();
    for arguments in [vec!["init", "-q", "-b", "main"], commit] {
        let mut git = Command::new("git");
        git.args(&arguments).current_dir(path).env("GIT_CONFIG_GLOBAL", "/dev/null");
        let output = git.output().map_err(|error| format!("git: {error}"))?;
        if !output.status.success() {
            return Err(format!("git: {}", String::from_utf8_lossy(&output.stderr)));
        }
    }
    Ok(())
}
