//! Asking Codex: its version, then one conversation with its app server about the account and the models.
//!
//! Runs on the thread of the probe. The app server gets a home of its own (`codex/probe` under the providers'
//! folder, 0700, files 0600) with a copy of the configuration and of the login, without what renews a login: a token
//! that is used up by a question would log the user out everywhere else. Nothing flows back from there.

use super::Scene;
use super::command::{self, Failure, Next};
use super::report::{Login, Model, Problem, ProblemKind, Report, version_numbers};
use crate::provider::codex::VERSION_MIN;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Pages of models that are asked for.
const PAGES_MAX: usize = 10;

const INITIALIZE: i64 = 1;
const ACCOUNT: i64 = 2;
/// The first page of models; each further one has the next number.
const MODELS: i64 = 3;

/// What a login and a configuration are read from.
pub(super) fn watched(providers_dir: &Path, env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let mut files = login_files(providers_dir, env);
    files.extend(config_file(env));
    files
}

/// Where a login may be, first the one that counts most when it is there.
fn login_files(providers_dir: &Path, env: &BTreeMap<String, String>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    if let Some(home) = env.get("CODEX_HOME") {
        return vec![Path::new(home).join("auth.json")];
    }
    if let Some(home) = env.get("HOME") {
        files.push(Path::new(home).join(".gg/codex/auth.json"));
        files.push(Path::new(home).join(".codex/auth.json"));
    }
    files.push(providers_dir.join("codex").join("home").join("auth.json"));
    files
}

fn config_file(env: &BTreeMap<String, String>) -> Option<PathBuf> {
    let own = env.get("CODEX_HOME").map(PathBuf::from);
    let home = own.or_else(|| env.get("HOME").map(|home| Path::new(home).join(".codex")));
    home.map(|home| home.join("config.toml"))
}

/// Whether a login of Codex is on this machine, as far as its files tell.
pub(super) fn has_login_file(providers_dir: &Path, env: &BTreeMap<String, String>) -> bool {
    login_files(providers_dir, env).iter().any(|path| path.is_file())
}

/// Asks the program. It is there; all else may be wrong.
pub(super) fn probe(scene: &Scene<'_>, program: &Path) -> Report {
    let mut report = Report {
        program: Some(program.to_owned()),
        minimum_version: Some(VERSION_MIN.map(|number| number.to_string()).join(".")),
        ..Report::default()
    };
    report.problem = ask(scene, program, &mut report).err();
    report
}

fn ask(scene: &Scene<'_>, program: &Path, report: &mut Report) -> Result<(), Problem> {
    let mut said = String::new();
    let mut hear = |line: &[u8]| {
        said = String::from_utf8_lossy(line).trim().to_owned();
        Next::Done
    };
    let args = ["--version".to_owned()];
    command::talk(&scene.ask(program, &args, &scene.env), b"", &mut hear)
        .map_err(|failure| no_answer(program, &failure.to_string()))?;
    let Some(numbers) = version_numbers(&said) else {
        return Err(no_answer(program, "tells no version"));
    };
    report.version = Some(numbers.map(|number| number.to_string()).join("."));
    if numbers < VERSION_MIN {
        return Err(Problem::new(
            ProblemKind::ProgramTooOld,
            format!(
                "{} is Codex {}, and the oldest that works is {}",
                program.display(),
                report.version.as_deref().unwrap_or_default(),
                report.minimum_version.as_deref().unwrap_or_default(),
            ),
            "update it: npm install -g @openai/codex@latest",
        ));
    }
    let mut env = scene.env.clone();
    if !env.contains_key("CODEX_HOME") {
        let home = make_home(scene.providers_dir, &scene.env)
            .map_err(|error| no_answer(program, &format!("has no home to be asked in: {error}")))?;
        env.insert("CODEX_HOME".to_owned(), home.to_string_lossy().into_owned());
    }
    let mut talk = Talk::default();
    // Nothing of what Codex does beside the answer is wanted: no list of plugins is fetched, no use is reported.
    let quiet = ["-c", "features.plugins=false", "-c", "analytics.enabled=false", "app-server"];
    let args: Vec<String> = quiet.iter().map(|arg| (*arg).to_owned()).collect();
    let spoken =
        command::talk(&scene.ask(program, &args, &env), &first(), &mut |line| talk.hear(line));
    talk.tell(report);
    match spoken {
        // The catalog may be fetched from a server that is far away; the rest stands without it.
        Err(Failure::TimedOut) if talk.account.is_some() => {}
        Err(failure) => return Err(no_answer(program, &failure.to_string())),
        Ok(()) => {}
    }
    if report.login == Login::Missing && scene.has_variable("OPENAI_API_KEY") {
        // A session may log in with it; that is seen only there.
        report.login = Login::Unknown;
    }
    match report.login {
        Login::Missing => Err(login_missing()),
        _ => Ok(()),
    }
}

fn no_answer(program: &Path, what: &str) -> Problem {
    Problem::new(
        ProblemKind::NoAnswer,
        format!("{} {what}", program.display()),
        "run `codex --version` and `codex login status` by hand and see what they say",
    )
}

fn login_missing() -> Problem {
    Problem::new(
        ProblemKind::LoginMissing,
        "Codex is not logged in",
        "run `codex login` as the user that runs the server, or put an auth.json into ~/.gg/codex",
    )
}

/// All that is asked at once; the app server answers in its own order.
fn first() -> Vec<u8> {
    let client = json!({"name": "gooselake", "version": env!("CARGO_PKG_VERSION")});
    let hello = json!({"clientInfo": client, "capabilities": {}});
    let mut bytes = Vec::new();
    for line in [
        json!({"id": INITIALIZE, "method": "initialize", "params": hello}),
        json!({"method": "initialized"}),
        json!({"id": ACCOUNT, "method": "account/read", "params": {"refreshToken": false}}),
        json!({"id": MODELS, "method": "model/list", "params": {}}),
    ] {
        bytes.extend_from_slice(line.to_string().as_bytes());
        bytes.push(b'\n');
    }
    bytes
}

/// What the app server has answered so far.
#[derive(Default)]
struct Talk {
    /// The result, or null for an error.
    account: Option<Value>,
    models: Vec<Model>,
    pages: usize,
    has_all_models: bool,
}

impl Talk {
    /// Lines that are no answers are none of our business: notices, warnings, noise.
    fn hear(&mut self, line: &[u8]) -> Next {
        let message: Value = serde_json::from_slice(line).unwrap_or(Value::Null);
        match message["id"].as_i64() {
            Some(ACCOUNT) if message.get("method").is_none() => {
                self.account = Some(message["result"].clone());
            }
            Some(id) if id >= MODELS && message.get("method").is_none() => {
                if let Some(next) = self.hear_models(&message["result"]) {
                    return next;
                }
            }
            _ => {}
        }
        if self.account.is_some() && self.has_all_models { Next::Done } else { Next::Listen }
    }

    /// Takes a page; asks for the next one when there is one.
    fn hear_models(&mut self, page: &Value) -> Option<Next> {
        let models = page["data"].as_array().map(Vec::as_slice).unwrap_or_default();
        self.models.extend(models.iter().filter_map(model));
        self.pages += 1;
        let cursor = page["nextCursor"].as_str().filter(|_| self.pages < PAGES_MAX);
        let Some(cursor) = cursor else {
            self.has_all_models = true;
            return None;
        };
        let id = MODELS + i64::try_from(self.pages).unwrap_or_default();
        let next = json!({"id": id, "method": "model/list", "params": {"cursor": cursor}});
        Some(Next::Say(format!("{next}\n").into_bytes()))
    }

    fn tell(&mut self, report: &mut Report) {
        report.models = std::mem::take(&mut self.models);
        let Some(account) = self.account.as_ref().filter(|account| account.is_object()) else {
            return;
        };
        report.auth_method = account["account"]["type"].as_str().map(str::to_owned);
        report.login = match (&account["account"], &account["requiresOpenaiAuth"]) {
            (Value::Object(_), _) => Login::There,
            (_, Value::Bool(true)) => Login::Missing,
            (_, Value::Bool(false)) => Login::NotNeeded,
            _ => Login::Unknown,
        };
    }
}

/// A model that people choose from; hidden ones are for the program itself.
fn model(model: &Value) -> Option<Model> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let id = text(&model["id"])?;
    if model["hidden"] == true {
        return None;
    }
    let levels = model["supportedReasoningEfforts"].as_array();
    let level = |level: &Value| text(&level["reasoningEffort"]);
    Some(Model {
        display_name: text(&model["displayName"]).unwrap_or_else(|| id.clone()),
        description: text(&model["description"]),
        reasoning_levels: levels.into_iter().flatten().filter_map(level).collect(),
        is_default: model["isDefault"] == true,
        id,
    })
}

/// The private home for questions, with copies of what is there now.
fn make_home(providers_dir: &Path, env: &BTreeMap<String, String>) -> io::Result<PathBuf> {
    let home = providers_dir.join("codex/probe");
    DirBuilder::new().recursive(true).mode(0o700).create(&home)?;
    fs::set_permissions(&home, Permissions::from_mode(0o700))?;
    let login = login_files(providers_dir, env).into_iter().find(|path| path.is_file());
    let login = login.map(fs::read).transpose()?;
    place(&home.join("auth.json"), login.as_deref().map(without_renewal))?;
    let config = config_file(env).filter(|path| path.is_file());
    let config = config.map(fs::read).transpose()?;
    place(&home.join("config.toml"), config)?;
    Ok(home)
}

/// The login without its refresh token. What is no JSON is passed on as it is: Codex says what it thinks of it.
fn without_renewal(login: &[u8]) -> Vec<u8> {
    let Ok(mut json) = serde_json::from_slice::<Value>(login) else { return login.to_vec() };
    if let Some(token) = json.pointer_mut("/tokens/refresh_token") {
        *token = Value::from("");
    }
    json.to_string().into_bytes()
}

/// Makes the file have these bytes, or not be there.
fn place(path: &Path, bytes: Option<Vec<u8>>) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let Some(bytes) = bytes else { return Ok(()) };
    let mut file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(path)?;
    file.write_all(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hear_all(lines: &[Value]) -> (Talk, Vec<String>) {
        let (mut talk, mut said) = (Talk::default(), Vec::new());
        for line in lines {
            match talk.hear(line.to_string().as_bytes()) {
                Next::Listen => {}
                Next::Say(bytes) => said.push(String::from_utf8(bytes).unwrap()),
                Next::Done => said.push("done".to_owned()),
            }
        }
        (talk, said)
    }

    #[test]
    fn answers_come_in_any_order_and_models_in_pages() {
        let level = json!({"reasoningEffort": "low", "description": "fast"});
        let first = json!({"id": "a", "displayName": "A", "supportedReasoningEfforts": [level]});
        let hidden = json!({"id": "h", "hidden": true});
        let second = json!({"id": "b", "isDefault": true});
        let lines = [
            json!({"method": "configWarning", "params": {}}),
            json!({"id": 3, "result": {"data": [first, hidden], "nextCursor": "c"}}),
            json!({"id": 3, "method": "item/tool/call", "params": {}}),
            json!({"id": 2, "result": {"account": null, "requiresOpenaiAuth": true}}),
            json!({"id": 4, "result": {"data": [second], "nextCursor": null}}),
        ];
        let (mut talk, said) = hear_all(&lines);
        assert_eq!(said.len(), 2, "{said:?}");
        assert!(said[0].contains(r#""cursor":"c""#) && said[0].contains(r#""id":4"#), "{said:?}");
        assert_eq!(said[1], "done");
        let mut report = Report::default();
        talk.tell(&mut report);
        let ids: Vec<&str> = report.models.iter().map(|model| model.id.as_str()).collect();
        assert_eq!((ids, report.login), (vec!["a", "b"], Login::Missing));
        assert_eq!(report.models[0].reasoning_levels, ["low"]);
        assert!(report.models[1].is_default);
    }

    #[test]
    fn an_account_is_a_login_and_another_provider_needs_none() {
        for (account, login) in [
            (json!({"account": {"type": "apiKey"}, "requiresOpenaiAuth": true}), Login::There),
            (json!({"account": null, "requiresOpenaiAuth": false}), Login::NotNeeded),
            (json!({"unknown": 1}), Login::Unknown),
        ] {
            let (mut talk, _) = hear_all(&[json!({"id": 2, "result": account})]);
            let mut report = Report::default();
            talk.tell(&mut report);
            assert_eq!(report.login, login);
        }
        // An app server that does not know the question.
        let (mut talk, said) = hear_all(&[
            json!({"id": 2, "error": {"code": -32601, "message": "no"}}),
            json!({"id": 3, "error": {"code": -32601, "message": "no"}}),
        ]);
        assert_eq!(said, ["done"]);
        let mut report = Report::default();
        talk.tell(&mut report);
        assert_eq!(report.login, Login::Unknown);
    }

    #[test]
    fn a_question_can_not_use_up_a_login() {
        let login = br#"{"tokens":{"access_token":"a","refresh_token":"r"},"OPENAI_API_KEY":null}"#;
        let copy: Value = serde_json::from_slice(&without_renewal(login)).unwrap();
        assert_eq!(copy["tokens"], json!({"access_token": "a", "refresh_token": ""}));
        assert_eq!(without_renewal(b"no json"), b"no json");
    }
}
