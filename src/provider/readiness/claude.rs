//! Asking Claude: `claude-bridge probe` talks to the program and prints one line of JSON.
//!
//! Runs on the thread of the probe. The bridge has its own bound on time; ours ends it when that does not hold.

use super::Scene;
use super::command::{self, Next};
use super::report::{Login, Model, Problem, ProblemKind, Report};
use serde::Deserialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The line of the bridge.
#[derive(Deserialize)]
struct Told {
    program: Option<PathBuf>,
    version: Option<String>,
    minimum_version: Option<String>,
    #[serde(default)]
    models: Vec<ToldModel>,
    logged_in: Option<bool>,
    auth_method: Option<String>,
    error: Option<ToldError>,
}

#[derive(Deserialize)]
struct ToldModel {
    id: String,
    name: Option<String>,
    description: Option<String>,
    #[serde(default)]
    reasoning_levels: Vec<String>,
    #[serde(default)]
    is_default: bool,
}

#[derive(Deserialize)]
struct ToldError {
    code: String,
    message: String,
    hint: Option<String>,
}

/// Asks the bridge about the program. `bridge` is its command with arguments.
pub(super) fn probe(scene: &Scene<'_>, bridge: &[String], program: &Path) -> Report {
    let unanswered = |what: String| Report {
        program: Some(program.to_owned()),
        problem: Some(no_answer(&what)),
        ..Report::default()
    };
    let Some((command, before)) = bridge.split_first() else {
        return unanswered("claude-bridge is not beside the server".to_owned());
    };
    let mut args = before.to_vec();
    let path = program.to_string_lossy().into_owned();
    args.extend(["probe".to_owned(), "--claude".to_owned(), path]);
    let mut told = None;
    let ask = scene.ask(Path::new(command), &args, &scene.env);
    let spoken = command::talk(&ask, b"", &mut |line| {
        // What is no object is noise of a wrapper.
        match serde_json::from_slice::<Value>(line) {
            Ok(value) if value.is_object() => {
                told = Some(value);
                Next::Done
            }
            _ => Next::Listen,
        }
    });
    let told = match (spoken, told) {
        (Err(failure), None) => return unanswered(format!("{command} {failure}")),
        (_, told) => serde_json::from_value::<Told>(told.unwrap_or_default()),
    };
    match told {
        Ok(told) => told.report(program),
        Err(error) => unanswered(format!("{command} answers in another form: {error}")),
    }
}

fn no_answer(what: &str) -> Problem {
    Problem::new(
        ProblemKind::NoAnswer,
        what,
        "run `claude-bridge probe` and `claude auth status` by hand and see what they say",
    )
}

impl Told {
    fn report(self, program: &Path) -> Report {
        let login = match self.logged_in {
            None => Login::Unknown,
            Some(true) => Login::There,
            Some(false) => Login::Missing,
        };
        let problem = match (self.error, login) {
            (Some(error), _) => Some(error.problem()),
            (None, Login::Missing) => Some(Problem::new(
                ProblemKind::LoginMissing,
                "Claude is not logged in",
                "run `claude` and `/login` as the user that runs the server, or POST a key to \
                 /v1/providers/claude/auth/api-key",
            )),
            (None, _) => None,
        };
        Report {
            program: Some(self.program.unwrap_or_else(|| program.to_owned())),
            version: self.version,
            minimum_version: self.minimum_version,
            login,
            auth_method: self.auth_method,
            models: self.models.into_iter().map(ToldModel::model).collect(),
            problem,
            checked_at: 0,
        }
    }
}

impl ToldModel {
    fn model(self) -> Model {
        Model {
            display_name: self.name.unwrap_or_else(|| self.id.clone()),
            id: self.id,
            description: self.description,
            reasoning_levels: self.reasoning_levels,
            is_default: self.is_default,
        }
    }
}

impl ToldError {
    fn problem(self) -> Problem {
        let kind = match self.code.as_str() {
            "program_missing" => ProblemKind::ProgramMissing,
            "program_too_old" => ProblemKind::ProgramTooOld,
            _ => ProblemKind::NoAnswer,
        };
        let remedy = self.hint.filter(|hint| !hint.is_empty()).unwrap_or_else(|| match kind {
            ProblemKind::NoAnswer => no_answer("").remedy,
            _ => "install it: npm install -g @anthropic-ai/claude-code@latest".to_owned(),
        });
        Problem::new(kind, self.message, remedy)
    }
}
