//! Logins: whether agents have one, and the routes that give Claude one.
//!
//! What a client sends here is a secret: it goes into the file and nowhere else. Errors name the field, never a value.

use super::body::check_values;
use super::multipart;
use super::{Api, Call, json};
use crate::error::{Code, Error, Result};
use crate::http::Answer;
use crate::ledger::to_json;
use crate::provider::claude::auth::{Auth, Import};
use crate::provider::readiness::{FIRST_ANSWER, Login, Report};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Instant;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "ApiKey"))]
pub(super) struct KeyBody {
    api_key: Option<Value>,
}

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "LoginImport"))]
pub(super) struct ImportBody {
    auth_json: Option<Value>,
    auth_json_text: Option<Value>,
}

pub(super) fn status(api: &Api, call: &Call) -> Result<Answer> {
    let (name, _) = api.provider_named(call.part(0))?;
    let report = api.readiness.look(name, "default", Instant::now() + FIRST_ANSWER);
    Ok(json(200, to_json(&record(api, name, report.as_deref()))))
}

/// The login of a provider, by its files and by what its program has said.
pub(super) fn record(api: &Api, name: &str, report: Option<&Report>) -> Value {
    match name {
        "claude" => of_claude(api, report),
        "codex" => of_codex(api, report),
        "demo" => {
            json!({"authenticated": true, "mode": null, "detail": "the demo agent needs no login"})
        }
        _ => {
            let detail = "the agent keeps its own login; it says so when a turn needs one";
            json!({"authenticated": false, "mode": "agent_managed", "detail": detail})
        }
    }
}

fn of_claude(api: &Api, report: Option<&Report>) -> Value {
    let status = Auth::of_config(&api.config).status();
    // The program knows more than files tell: a helper of the user's own, a login that is of no use.
    let (is_in, mode) = match report.map(|report| report.login) {
        Some(Login::There) => {
            let method = report.and_then(|report| report.auth_method.as_deref());
            let is_key = method.is_some_and(|method| method.to_lowercase().contains("key"));
            let told = if is_key { "api_key" } else { "claude_code_oauth" };
            (true, Some(status.mode.unwrap_or(told)))
        }
        Some(Login::Missing) => (false, None),
        _ => (status.authenticated, status.mode),
    };
    json!({"authenticated": is_in, "mode": mode, "detail": status.detail})
}

fn of_codex(api: &Api, report: Option<&Report>) -> Value {
    let has_file = api.readiness.has_codex_login();
    let login = report.map(|report| report.login).unwrap_or_default();
    let is_in = match login {
        Login::Unknown => has_file,
        Login::Missing => false,
        Login::There | Login::NotNeeded => true,
    };
    let detail = match login {
        Login::NotNeeded => Some("the configured model provider needs no login".to_owned()),
        Login::There => report.and_then(|report| report.auth_method.clone()),
        _ => report
            .and_then(|report| report.problem.as_ref())
            .map(|problem| format!("{}; {}", problem.message, problem.remedy)),
    };
    let mode = (is_in && has_file).then_some("auth_json");
    json!({"authenticated": is_in, "mode": mode, "detail": detail})
}

pub(super) fn set_api_key(api: &Api, call: &Call) -> Result<Answer> {
    change(api, |auth| {
        let body: KeyBody = secret_body(call)?;
        let key = body.api_key.as_ref().and_then(Value::as_str);
        let key = key.ok_or_else(|| Error::bad_request("api_key is missing or no text"))?;
        auth.set_api_key(key)
    })
}

pub(super) fn import_json(api: &Api, call: &Call) -> Result<Answer> {
    change(api, |auth| {
        let body: ImportBody = secret_body(call)?;
        let given = body.auth_json.filter(|value| !value.is_null());
        let text = body.auth_json_text.filter(|value| !value.is_null());
        let value = match (given, text) {
            (Some(value), _) => value,
            (None, Some(Value::String(text))) => parse("auth_json_text", &text)?,
            (None, Some(_)) => return Err(Error::bad_request("auth_json_text must be a text")),
            (None, None) => {
                return Err(Error::bad_request("auth_json is missing")
                    .hint("send auth_json (an object) or auth_json_text (the same as a text)"));
            }
        };
        auth.import(&Import::of_json(value)?)
    })
}

pub(super) fn import_file(api: &Api, call: &Call) -> Result<Answer> {
    change(api, |auth| {
        let content_type = call.head().header("content-type").unwrap_or_default();
        let text = multipart::text_field(content_type, &call.request.body, "file")?;
        auth.import(&Import::of_json(parse("file", text)?)?)
    })
}

pub(super) fn log_out(api: &Api, _call: &Call) -> Result<Answer> {
    change(api, Auth::log_out)
}

/// Changes Claude's login, has its agents started anew, and answers with what the files say now.
fn change(api: &Api, change: impl FnOnce(&Auth) -> Result<()>) -> Result<Answer> {
    api.config.enabled_provider("claude")?;
    let changed = change(&Auth::of_config(&api.config));
    // What has failed in its middle may have changed something too; what was refused has not.
    if changed.as_ref().err().is_none_or(|error| error.code == Code::Internal) {
        api.readiness.forget("claude");
        let renewed = api.sessions.renew_agents("claude");
        changed.and(renewed)?;
    } else {
        changed?;
    }
    Ok(json(200, to_json(&of_claude(api, None))))
}

/// A body whose values may not be told again: what is wrong with its shape is said before its values are looked at.
fn secret_body<T: DeserializeOwned>(call: &Call) -> Result<T> {
    let value: Value = call.body()?;
    if !value.is_object() {
        return Err(Error::bad_request("the body must be an object"));
    }
    call.body()
}

/// The position of a mistake is told, not what stands there.
fn parse(field: &str, text: &str) -> Result<Value> {
    check_values(field, text.as_bytes())?;
    serde_json::from_str(text)
        .map_err(|error| Error::bad_request(format!("{field} is no JSON: {error}")))
}
