//! What an agent must do that is driven in its own protocol, beside what every agent must: each scenario for each
//! program of [`gooselake_mock_model::agents::programs`].
//!
//! A session is opened with the permission mode that the story needs, or as every agent's is.

use super::{PATIENCE, Scenario, Stage, must, said};
use crate::echo;
use gooselake_harness::{proc, wait};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

/// In the order in which they run.
pub(crate) const SCENARIOS: &[(&str, Scenario)] = &[
    ("reasoning", reasoning),
    ("tool, for the session", for_the_session),
    ("two approvals at once", two_at_once),
    ("file change", file_change),
    ("interrupt in a tool", interrupt_tool),
    ("interrupt in an approval", interrupt_approval),
    ("steer", steer),
    ("MCP tool, for the session", mcp_for_the_session),
    ("image", image),
    ("model error kinds", error_kinds),
    ("compaction", compaction),
    ("usage", usage),
    ("no credentials", no_credentials),
    ("two sessions at once", two_sessions),
    ("odd prompts", odd_prompts),
    ("server killed in a command", killed_in_a_command),
    ("server killed in an approval", killed_in_an_approval),
];

/// Where the programs differ by their nature.
struct Nature {
    /// Two models that it knows.
    models: [&'static str; 2],
    /// The model that is given tools for files and pictures.
    rich_model: &'static str,
    /// The permission mode in which a change of a file is asked about.
    file_mode: &'static str,
    /// It asks the next question when the one before is answered.
    is_one_by_one: bool,
    /// Nobody is asked about MCP tools in full_auto.
    is_mcp_silent: bool,
    /// What the mock keeps of a picture: the length of the word that stands for it.
    picture_seen: &'static str,
    /// A prompt whose permission can hold for the session, and what is said after it.
    for_session: (&'static str, &'static str),
    /// A prompt after which the conversation is compacted, and a piece of the notice of it.
    compacts: (&'static str, &'static str),
}

impl Stage {
    fn nature(&self) -> Nature {
        match self.name {
            "claude" => Nature {
                models: ["opus", "sonnet"],
                rich_model: "default",
                file_mode: "default",
                is_one_by_one: true,
                is_mcp_silent: false,
                picture_seen: "(7 chars)",
                for_session: ("BASH mkdir -p for-session", "no output"),
                compacts: ("/compact", "the conversation was compacted"),
            },
            _ => Nature {
                models: ["gpt-6.1-sol", "mock-model"],
                rich_model: "gpt-5.5",
                file_mode: "read_only",
                is_one_by_one: false,
                is_mcp_silent: true,
                picture_seen: "(13 chars)",
                for_session: ("BASHBG expr 6 '*' 7 > for-session.txt; cat for-session.txt", "42"),
                compacts: ("SAY after", "Compaction of the conversation"),
            },
        }
    }
}

/// A picture of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
/// An argument of the command to be interrupted; by it the command is found among all processes.
const SOUGHT: &str = "31731";

impl Stage {
    /// A session of the program as it is configured, with these fields on top.
    pub(super) fn open_as_configured(&self, more: &Value) -> Result<String, String> {
        let mut body = json!({"provider": self.profile.provider, "cwd": self.folder});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let record = self.client.post("/v1/sessions", &body).json();
        let id = record["id"].as_str().map(str::to_owned);
        id.ok_or_else(|| format!("no session: {record}"))
    }

    pub(super) fn ended(&self, session: &str, turn: &str) -> Result<Value, String> {
        let path = format!("/v1/sessions/{session}/turns/{turn}?wait_ms=60000");
        let record = self.client.get(&path).json();
        must(record["completed_at"].is_number(), "the turn ends", &record)?;
        Ok(record)
    }

    pub(super) fn close(&self, session: &str) {
        self.client.post(&format!("/v1/sessions/{session}/close"), &json!({})).expect(200);
    }

    /// The approvals that wait, once there are so many.
    pub(super) fn pending(&self, session: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/sessions/{session}/approvals?status=pending");
        wait::until(PATIENCE, "the questions", || {
            let pending = self.client.get(&path).json();
            let pending = pending.as_array().cloned().unwrap_or_default();
            (pending.len() >= count).then_some(pending)
        })
    }

    pub(super) fn decide(&self, session: &str, approval: &Value, body: &Value) {
        let id = approval["id"].as_str().unwrap_or_default();
        let path = format!("/v1/sessions/{session}/approvals/{id}");
        self.client.post(&path, body).expect(200);
    }

    /// Waits for the first event of the kind that tells of `turn`.
    fn sees(&self, session: &str, turn: &str, kind: &str, has: &str) {
        let path = format!("/v1/sessions/{session}/events?kinds={kind}&turn_id={turn}");
        wait::until(PATIENCE, kind, || self.client.get(&path).text().contains(has).then_some(()));
    }
}

pub(super) fn count(items: &Value, is_it: impl Fn(&Value) -> bool) -> usize {
    items.as_array().map_or(0, |items| items.iter().filter(|item| is_it(item)).count())
}

fn is_command(item: &Value) -> bool {
    item["type"] == "command"
}

fn reasoning(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let (turn, _) = stage.turn(&session, "THINK first I think\nSAY then I speak", "decline")?;
    must(said(&turn) == "then I speak", "the thought is no speech", &turn)?;
    let items = stage.items(&session, &turn);
    let thoughts = count(&items, |i| i["type"] == "reasoning" && i["text"] == "first I think");
    must(thoughts == 1, "the thought is an item", &items)?;
    Ok("an item of its own".to_owned())
}

fn for_the_session(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let (prompt, word) = stage.nature().for_session;
    let turn = stage.start(&session, prompt)?;
    let asked = stage.pending(&session, 1);
    stage.decide(&session, &asked[0], &json!({"decision": "accept", "scope": "session"}));
    let first = stage.ended(&session, &turn)?;
    must(first["status"] == "completed", "the turn completes", &first)?;
    let (second, again) = stage.turn(&session, prompt, "decline")?;
    must(again == 0, "the same is not asked again", &json!(again))?;
    must(said(&second).contains(word), "it runs again", &second)?;
    stage.close(&session);
    let other = stage.open(&json!({}))?;
    let (_, asked) = stage.turn(&other, prompt, "decline")?;
    must(asked == 1, "another session is asked", &json!(asked))?;
    stage.close(&other);
    Ok("asked once, not again; another session is".to_owned())
}

fn two_at_once(stage: &mut Stage) -> Result<String, String> {
    let nature = stage.nature();
    let session = stage.open(&json!({"model": nature.rich_model}))?;
    let turn = stage.start(&session, "PARBG echo one > one.txt ;; echo two > two.txt")?;
    if nature.is_one_by_one {
        for decision in ["decline", "accept"] {
            let asked = stage.pending(&session, 1);
            stage.decide(&session, &asked[0], &json!({"decision": decision}));
        }
    } else {
        let asked = stage.pending(&session, 2);
        stage.decide(&session, &asked[1], &json!({"decision": "decline"}));
        stage.decide(&session, &asked[0], &json!({"decision": "accept"}));
    }
    let record = stage.ended(&session, &turn)?;
    must(record["status"] == "completed", "the turn completes", &record)?;
    let made = [stage.folder.join("one.txt"), stage.folder.join("two.txt")].map(|f| f.exists());
    must(made[0] != made[1], "one ran and one did not", &json!(made))?;
    stage.close(&session);
    Ok(if nature.is_one_by_one { "one after the other" } else { "answered in the other order" }
        .to_owned())
}

fn file_change(stage: &mut Stage) -> Result<String, String> {
    let nature = stage.nature();
    let mode = json!({"model": nature.rich_model, "permission_mode": nature.file_mode});
    let session = stage.open_as_configured(&mode)?;
    let file = stage.folder.join("native.txt");
    let named = if stage.profile.writes_relative { Path::new("native.txt") } else { &file };
    let turn = stage.start(&session, &format!("WRITE {} hello file", named.display()))?;
    let asked = stage.pending(&session, 1);
    let subject = &asked[0]["subject"];
    must(subject["type"] == "file_change", "it is about a file", subject)?;
    let diff = subject["changes"][0]["diff"].as_str().unwrap_or_default();
    must(diff.contains("+hello file"), "the change is shown", subject)?;
    stage.decide(&session, &asked[0], &json!({"decision": "accept"}));
    let record = stage.ended(&session, &turn)?;
    let items = stage.items(&session, &record);
    let changes = count(&items, |i| i["type"] == "file_change" && i["status"] == "completed");
    must(changes == 1, "the change is an item", &items)?;
    let text = fs::read_to_string(&file).unwrap_or_default();
    must(text.starts_with("hello file"), "the file is there", &json!(text))?;
    stage.close(&session);
    Ok("shown with its diff, asked once, made".to_owned())
}

fn interrupt_tool(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open_as_configured(&json!({"permission_mode": "full_auto"}))?;
    let turn = stage.start(&session, &format!("BASH tail -f -n {SOUGHT} /dev/null"))?;
    stage.sees(&session, &turn, "item.started", SOUGHT);
    let running = || proc::with_argument(SOUGHT);
    let path = format!("/v1/sessions/{session}/approvals?status=pending");
    wait::until(PATIENCE, "the command", || {
        for approval in stage.client.get(&path).json().as_array().into_iter().flatten() {
            stage.decide(&session, approval, &json!({"decision": "accept"}));
        }
        (!running().is_empty()).then_some(())
    });
    let path = format!("/v1/sessions/{session}/turns/{turn}/interrupt");
    stage.client.post(&path, &json!({})).expect(202);
    let record = stage.ended(&session, &turn)?;
    must(record["status"] == "interrupted", "the turn is interrupted", &record)?;
    let items = wait::until(PATIENCE, "the end of the command", || {
        let items = stage.items(&session, &record);
        let open = count(&items, |item| is_command(item) && item["status"] == "in_progress");
        (open == 0).then_some(items)
    });
    let ended = count(&items, |item| is_command(item) && item["status"] == "interrupted");
    must(ended == 1, "the command is interrupted", &items)?;
    let left = wait::try_until(PATIENCE, || running().is_empty().then_some(()));
    must(left.is_some(), "the command is gone", &json!(running()))?;
    stage.close(&session);
    Ok("the command ends too".to_owned())
}

fn interrupt_approval(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let turn = stage.start(&session, &stage.profile.ask("never.txt"))?;
    let asked = stage.pending(&session, 1);
    let path = format!("/v1/sessions/{session}/turns/{turn}/interrupt");
    stage.client.post(&path, &json!({})).expect(202);
    let record = stage.ended(&session, &turn)?;
    must(record["status"] == "interrupted", "the turn is interrupted", &record)?;
    let id = asked[0]["id"].as_str().unwrap_or_default();
    let approvals = stage.client.get(&format!("/v1/sessions/{session}/approvals")).json();
    let withdrawn = count(&approvals, |a| a["id"] == id && a["status"] == "withdrawn");
    must(withdrawn == 1, "the question is withdrawn", &approvals)?;
    let (next, _) = stage.turn(&session, "SAY still here", "decline")?;
    must(said(&next) == "still here", "the next turn works", &next)?;
    must(!stage.folder.join("never.txt").exists(), "it did not run", &next)?;
    stage.close(&session);
    Ok("withdrawn, next works".to_owned())
}

fn steer(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let turn = stage.start(&session, "SLOW 25")?;
    stage.sees(&session, &turn, "item.delta", "w1");
    let path = format!("/v1/sessions/{session}/turns");
    let body = json!({"input": ["SAY steered in"], "when": "steer", "expected_turn_id": turn});
    let joined = stage.client.post(&path, &body).expect(200).json();
    must(joined["turn_id"] == turn.as_str(), "it joins the running turn", &joined)?;
    let record = stage.ended(&session, &turn)?;
    must(said(&record).ends_with("steered in"), "it is heard", &record)?;
    let items = stage.items(&session, &record);
    let told = count(&items, |item| item["type"] == "user_message");
    must(told == 2, "both messages are in the turn", &items)?;
    Ok("joined the turn".to_owned())
}

/// The echo server, with a value that only one session has.
fn echo_server(value: &str) -> Result<Value, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(json!({"mcp_servers": [{"name": "echo", "command": program, "args": [echo::ARGUMENT],
        "env": {echo::VARIABLE: value}}]}))
}

const CALL_ECHO: &str = "MCP echo {\"text\": \"ping\"}";

fn mcp_for_the_session(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&echo_server("one")?)?;
    let turn = stage.start(&session, CALL_ECHO)?;
    let asked = stage.pending(&session, 1);
    must(asked[0]["subject"]["type"] == "mcp_tool", "it is about a tool", &asked[0])?;
    stage.decide(&session, &asked[0], &json!({"decision": "accept", "scope": "session"}));
    stage.ended(&session, &turn)?;
    let (second, again) = stage.turn(&session, CALL_ECHO, "decline")?;
    must(again == 0, "the same is not asked again", &json!(again))?;
    must(said(&second).contains("echo:ping"), "it runs again", &second)?;
    stage.close(&session);
    let mut silent = echo_server("two")?;
    silent["permission_mode"] = json!("full_auto");
    let session = stage.open_as_configured(&silent)?;
    let is_silent = stage.nature().is_mcp_silent;
    let decision = if is_silent { "decline" } else { "accept" };
    let (turn, asked) = stage.turn(&session, CALL_ECHO, decision)?;
    must((asked == 0) == is_silent, "asked in full_auto, or not", &json!(asked))?;
    must(said(&turn).contains("echo:ping env:two"), "it runs all the same", &turn)?;
    stage.close(&session);
    Ok(format!("asked once; in full_auto {asked} times"))
}

fn image(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open_as_configured(&json!({"model": stage.nature().rich_model}))?;
    let path = format!("/v1/sessions/{session}/turns?wait=true&timeout_ms=60000");
    let picture = json!({"type": "image", "data": PIXEL, "media_type": "image/png"});
    let body = json!({"input": [picture, "SAY a picture"]});
    let turn = stage.client.post(&path, &body).json();
    must(said(&turn) == "a picture", "the turn completes", &turn)?;
    let log = stage.mock.log();
    let seen = log.last().map(|record| record["user_texts"].to_string()).unwrap_or_default();
    must(seen.contains(stage.nature().picture_seen), "the model is shown it", &json!(seen))?;
    stage.close(&session);
    Ok("reached the model".to_owned())
}

fn error_kinds(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let kinds = [
        ("FAIL 401", "authentication_required"),
        ("FAIL 429", "rate_limited"),
        ("FAIL 400", "model_error"),
        ("FAIL stream", "model_error"),
    ];
    for (prompt, code) in kinds {
        let (turn, _) = stage.turn(&session, prompt, "decline")?;
        must(turn["status"] == "failed", prompt, &turn)?;
        must(turn["error"]["code"] == code, prompt, &turn["error"])?;
        let message = turn["error"]["message"].as_str().unwrap_or_default();
        must(!message.is_empty(), "it says why", &turn["error"])?;
    }
    let (turn, _) = stage.turn(&session, "FAILONCE 500", "decline")?;
    must(said(&turn) == "recovered", "what is tried again by the agent is no failure", &turn)?;
    stage.close(&session);
    Ok("401, 429, 400, cut stream told; 500 once recovered".to_owned())
}

fn compaction(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let (turn, _) = stage.turn(&session, "FAIL context", "decline")?;
    must(turn["error"]["code"] == "context_window_exceeded", "it says why", &turn)?;
    for text in ["SAY one", "SAY two"] {
        stage.turn(&session, text, "decline")?;
    }
    let (prompt, words) = stage.nature().compacts;
    let (next, _) = stage.turn(&session, prompt, "decline")?;
    must(next["status"] == "completed", "the next turn works", &next)?;
    let items = stage.client.get(&format!("/v1/sessions/{session}/transcript")).json();
    let is_told = |item: &Value| item["text"].as_str().is_some_and(|text| text.contains(words));
    must(count(&items, is_told) == 1, "the compaction is told", &items)?;
    let (after, _) = stage.turn(&session, "SAY after", "decline")?;
    must(said(&after).contains("after"), "and work goes on", &after)?;
    stage.close(&session);
    Ok("told, next works".to_owned())
}

fn usage(stage: &mut Stage) -> Result<String, String> {
    let session = stage.session()?;
    let (turn, _) = stage.turn(&session, "USAGE 1234 56\nSAY counted", "decline")?;
    let usage = &turn["usage"];
    must(usage["output_tokens"] == 56, "the output is counted", usage)?;
    must(usage["input_tokens"].as_i64() >= Some(1234), "the input is counted", usage)?;
    must(usage["context_window"].is_number(), "the window is told", usage)?;
    Ok("tokens of the turn, context window".to_owned())
}

fn no_credentials(stage: &mut Stage) -> Result<String, String> {
    let variable = stage.profile.key_variable.ok_or("the profile names no key")?;
    let body = json!({"provider": stage.profile.provider, "cwd": stage.folder,
        "env": {variable: ""}});
    let reply = stage.client.post("/v1/sessions", &body);
    let told = reply.json();
    must(reply.status == 502, "the session is refused", &told)?;
    let error = told["error"].as_str().unwrap_or_default();
    must(error.contains(variable), "it names what is missing", &told)?;
    Ok("refused when the session is made".to_owned())
}

fn two_sessions(stage: &mut Stage) -> Result<String, String> {
    let mut sessions = Vec::new();
    for (value, model) in ["one", "two"].into_iter().zip(stage.nature().models) {
        let mut more = echo_server(value)?;
        more["model"] = json!(model);
        more["permission_mode"] = json!("full_auto");
        let session = stage.open_as_configured(&more)?;
        let record = stage.client.get(&format!("/v1/sessions/{session}")).json();
        must(record["model"] == model, "each has its model", &record)?;
        sessions.push((session, value));
    }
    let mut turns = Vec::new();
    for (session, value) in &sessions {
        turns.push((session, value, stage.start(session, CALL_ECHO)?));
    }
    for (session, value, turn) in turns {
        if !stage.nature().is_mcp_silent {
            let asked = stage.pending(session, 1);
            stage.decide(session, &asked[0], &json!({"decision": "accept"}));
        }
        let record = stage.ended(session, &turn)?;
        let own = format!("echo:ping env:{value}");
        must(said(&record).contains(&own), "each has its own server", &record)?;
        stage.close(session);
    }
    Ok("own model, own MCP environment".to_owned())
}

fn odd_prompts(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let flag = "--dangerously-bypass-approvals-and-sandbox";
    let (turn, _) = stage.turn(&session, &format!("{flag}\nSAY just a prompt"), "decline")?;
    must(said(&turn) == "just a prompt", "it is a prompt", &turn)?;
    let keepers = proc::keepers_of(stage.server.data_dir());
    let pids = keepers.iter().flat_map(|keeper| proc::descendants(*keeper));
    let words: Vec<String> = pids.flat_map(proc::arguments).collect();
    must(!words.iter().any(|word| word.contains(flag)), "it is in no argv", &json!(words))?;
    let long = format!("SAY a long prompt\n{}", "x ".repeat(500_000));
    let (turn, _) = stage.turn(&session, &long, "decline")?;
    must(said(&turn) == "a long prompt", "1 MB is a prompt", &turn["status"])?;
    stage.close(&session);
    Ok("begins with --, 1 MB long; in no argv".to_owned())
}

fn killed_in_a_command(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open_as_configured(&json!({"permission_mode": "full_auto"}))?;
    let turn = stage.start(&session, "BASH sleep 3; echo sum-42")?;
    stage.sees(&session, &turn, "item.started", "sleep 3");
    stage.server.kill9();
    stage.server.restart();
    stage.client = stage.server.client().with_deadline(PATIENCE);
    let record = stage.ended(&session, &turn)?;
    must(record["status"] == "completed", "the turn completes", &record)?;
    must(said(&record) == "tool said: sum-42", "once, and whole", &record)?;
    let items = stage.items(&session, &record);
    let whole = count(&items, |item| {
        let output = item["output"].as_str().unwrap_or_default();
        is_command(item) && output.trim_end() == "sum-42"
    });
    must(whole == 1 && count(&items, is_command) == 1, "one command", &items)?;
    let path = format!("/v1/sessions/{session}/events?kinds=item.completed&turn_id={turn}");
    let told = stage.client.get(&path).json();
    let told = count(&told, |event| is_command(&event["payload"]["item"]));
    must(told == 1, "its end is told once", &json!(told))?;
    stage.close(&session);
    Ok("the turn completes, nothing doubled".to_owned())
}

fn killed_in_an_approval(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let turn = stage.start(&session, &stage.profile.ask("after-kill.txt"))?;
    let asked = stage.pending(&session, 1);
    stage.server.kill9();
    stage.server.restart();
    stage.client = stage.server.client().with_deadline(PATIENCE);
    let still = stage.pending(&session, 1);
    must(still[0]["id"] == asked[0]["id"] && still.len() == 1, "it is asked once", &json!(still))?;
    stage.decide(&session, &still[0], &json!({"decision": "accept"}));
    let record = stage.ended(&session, &turn)?;
    must(said(&record).contains("42"), "the answer is heard", &record)?;
    stage.close(&session);
    Ok("answerable after the restart".to_owned())
}
