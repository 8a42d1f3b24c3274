//! `claude-bridge probe`: what is installed here, in one line of JSON.
//!
//! Owns: one short-lived `claude` process, asked to initialize and ended. No prompt is sent and no model is called.
//! Promises an answer within [`PROBE_TIME`] and the few seconds that ending a process may take, whatever the program
//! does. Runs on the main thread.

use crate::account::{self, Model};
use crate::child::{Child, Event, Program};
use crate::wire;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

/// For the program to answer. Without a way to its vendor it was seen to wait for the network first.
const PROBE_TIME: Duration = Duration::from_secs(10);
/// For the program to tell its version, when it has told nothing else.
const VERSION_TIME: Duration = Duration::from_secs(3);
/// For the program to be gone, after it was asked to end.
const END_TIME: Duration = Duration::from_secs(3);
/// Lines that may wait to be looked at.
const UNREAD_LINES_MAX: usize = 64;
/// The session of the probe: it marks the processes, the program keeps nothing of it.
const SESSION: &str = "probe";

/// Why a probe has no good answer.
struct Failure {
    code: &'static str,
    message: String,
    hint: String,
}

/// Asks the program. The line to print, and whether the program is there, new enough, and answered.
pub fn run(named: &str, program: Option<&Program>) -> (Value, bool) {
    let mut told = json!({
        "program": program.map(|program| program.path.to_string_lossy()),
        "version": null, "minimum_version": account::MINIMUM_VERSION, "models": [],
        "account": null, "logged_in": null, "auth_method": null, "error": null,
    });
    let asked = match program {
        Some(program) => ask(program),
        None => Err(Failure {
            code: "program_missing",
            message: format!("the program {named:?} is not on PATH"),
            hint: "install it (npm install -g @anthropic-ai/claude-code), or name it with --claude"
                .to_owned(),
        }),
    };
    let failure = match asked {
        Ok(answer) => {
            let models = Model::list(&answer);
            told["version"] = json!(account::version(&answer));
            told["models"] = models.iter().map(Model::to_json).collect();
            told["account"] = answer["account"].clone();
            if answer["account"].is_object() {
                told["logged_in"] = json!(!account::is_logged_out(&answer));
                told["auth_method"] = json!(account::auth_method(&answer));
            }
            too_old(account::version(&answer).unwrap_or_default())
        }
        Err(failure) => {
            let version = program.and_then(version_alone);
            told["version"] = json!(version);
            too_old(version.as_deref().unwrap_or_default()).or(Some(failure))
        }
    };
    if let Some(Failure { code, message, hint }) = &failure {
        told["error"] = json!({"code": code, "message": message, "hint": hint});
    }
    (told, failure.is_none())
}

fn too_old(version: &str) -> Option<Failure> {
    account::is_too_old(version).then(|| Failure {
        code: "program_too_old",
        message: format!(
            "claude {version} is too old; {} or newer is needed",
            account::MINIMUM_VERSION
        ),
        hint: account::UPDATE_HINT.to_owned(),
    })
}

/// The answer to `initialize`.
fn ask(program: &Program) -> Result<Value, Failure> {
    let no_answer = |message: String| Failure {
        code: "no_answer",
        message,
        hint: "run `claude doctor` in a terminal; without a way to its vendor it does not start"
            .to_owned(),
    };
    let request = wire::line(&wire::control("probe", json!({"subtype": "initialize"})));
    let arguments = wire::arguments(&["--no-session-persistence"]);
    let asked = talk(program, &arguments, Some(request), |events| {
        listen(events, Instant::now() + PROBE_TIME)
    });
    asked.and_then(|answer| answer).map_err(no_answer)
}

/// The version of a program that does not answer otherwise.
fn version_alone(program: &Program) -> Option<String> {
    let told = talk(program, &["--version".to_owned()], None, |events| {
        match events.recv_timeout(VERSION_TIME) {
            Ok(Event::Line(line)) => Some(String::from_utf8_lossy(&line).into_owned()),
            _ => None,
        }
    });
    let line = told.ok().flatten()?;
    let version = line.split_whitespace().next()?;
    version.starts_with(|c: char| c.is_ascii_digit()).then(|| version.to_owned())
}

/// Starts the program, listens as long as `listen` wants, and ends it; its end is awaited, so that a probe leaves
/// nothing behind. Errors: it can not be started.
fn talk<T>(
    program: &Program,
    arguments: &[String],
    request: Option<Vec<u8>>,
    listen: impl FnOnce(&Receiver<Event>) -> T,
) -> Result<T, String> {
    let (tell, events) = mpsc::sync_channel(UNREAD_LINES_MAX);
    let folder = std::env::current_dir().unwrap_or_else(|_| Path::new("/").to_owned());
    let tell = move |event| tell.send(event).is_ok();
    let child = Child::start(program, arguments, &folder.to_string_lossy(), SESSION, tell)
        .map_err(|error| format!("{}: {error}", program.path.display()))?;
    if let Some(request) = request {
        child.send(request);
    }
    let heard = listen(&events);
    drop(child);
    let deadline = Instant::now() + END_TIME;
    while let Ok(event) = events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        if matches!(event, Event::Ended { .. }) {
            break;
        }
    }
    Ok(heard)
}

fn listen(events: &Receiver<Event>, deadline: Instant) -> Result<Value, String> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let line = match events.recv_timeout(left) {
            Ok(Event::Line(line)) => line,
            Ok(Event::TooLong) => continue,
            Ok(Event::Ended { status, stderr }) => {
                return Err(format!("it ended without an answer{}", wire::ending(status, &stderr)));
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                return Err(format!("it gave no answer within {} s", PROBE_TIME.as_secs()));
            }
        };
        let Ok(message) = serde_json::from_slice::<Value>(&line) else { continue };
        let response = &message["response"];
        if message["type"] != "control_response" || response["request_id"] != "probe" {
            continue;
        }
        if response["subtype"] == "success" {
            return Ok(response["response"].clone());
        }
        let why = response["error"].as_str().unwrap_or("no reason");
        return Err(format!("it refused to initialize: {why}"));
    }
}
