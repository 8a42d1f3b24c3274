//! Sessions: make, list, show, resume, close, delete, read back.

use super::body::{check_length, check_words, texts};
use super::worktree::WishBody;
use super::{Api, Call, json, page};
use crate::environment;
use crate::error::{Error, Result};
use crate::http::{Answer, Response};
use crate::ledger::event;
use crate::ledger::item;
use crate::ledger::session::{self, NewSession, SessionQuery};
use crate::ledger::to_json;
use crate::limits;
use crate::model::{ScopeKind, SessionStatus, id};
use crate::process::end_wait;
use crate::provider::check_permission_mode;
use crate::session::{GATEWAY_SERVER, SessionRequest};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SessionCreate"))]
pub(super) struct CreateBody {
    provider: String,
    agent: Option<String>,
    title: Option<String>,
    cwd: Option<String>,
    model: Option<String>,
    mode: Option<String>,
    reasoning_level: Option<String>,
    permission_mode: Option<String>,
    system_prompt: Option<String>,
    #[cfg_attr(test, schemars(with = "Option<Value>"))]
    metadata: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "texts")]
    env: BTreeMap<String, String>,
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Vec<crate::model::shape::McpServer>"))]
    mcp_servers: Vec<Value>,
    #[serde(default = "yes")]
    wait: bool,
    worktree: Option<WishBody>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SessionResume"))]
pub(super) struct ResumeBody {
    #[cfg_attr(test, schemars(length(min = 1)))]
    provider_session_ref: Option<String>,
    #[cfg_attr(test, schemars(length(min = 1)))]
    canonical_provider_session_ref: Option<String>,
}

#[derive(Default, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema), schemars(rename = "SessionClose"))]
pub(super) struct CloseBody {
    reason: Option<String>,
}

fn yes() -> bool {
    true
}

pub(super) fn create(api: &Api, call: &Call) -> Result<Answer> {
    let body: CreateBody = call.body()?;
    body.check_lengths()?;
    let idempotency = call.idempotency(api)?;
    // Before the machine is looked at: folders and programs may be gone since.
    if let Some(made) = api.sessions.made_before(idempotency.as_ref(), body.wait)? {
        return Ok(json(200, api.ledger.session_json(&made)?));
    }
    let (provider_name, provider) = api.config.enabled_provider(&body.provider)?;
    let agent = body.agent.unwrap_or_else(|| "default".to_owned());
    provider.check_agent(provider_name, &agent)?;
    let cwd = body.cwd.map(|cwd| environment::folder(&cwd)).transpose()?;
    environment::check(&body.env)?;
    let mcp_servers = body
        .mcp_servers
        .into_iter()
        .enumerate()
        .map(|(place, server)| mcp_server(place, server))
        .collect::<Result<Vec<Value>>>()?;
    if let Some(permission_mode) = &body.permission_mode {
        check_permission_mode(provider_name, permission_mode)?;
    }
    let metadata = body.metadata.as_deref().map(RawValue::get).filter(|text| *text != "null");
    if let Some(text) = metadata {
        // It is kept as it came, on one line; but what a JSON parser with a bound on nesting refuses would spoil every
        // list that it is in.
        serde_json::from_str::<Value>(text)
            .map_err(|error| Error::bad_request(format!("metadata: {error}")))?;
    }
    let session = NewSession {
        session_id: id::new("sess"),
        provider: provider_name.to_owned(),
        agent,
        title: body.title,
        agent_cwd: cwd.clone().map_or_else(environment::server_folder, Ok)?,
        cwd,
        model: body.model,
        mode: body.mode,
        reasoning_level: body.reasoning_level,
        permission_mode: body.permission_mode,
        system_prompt: body.system_prompt,
        metadata: metadata.unwrap_or("{}").to_owned(),
        env: to_json(&body.env),
        mcp_servers: to_json(&mcp_servers),
    };
    let worktree = body.worktree.map(WishBody::into_wish).transpose()?;
    let request = SessionRequest { session, wait: body.wait, worktree, accept: None, idempotency };
    let session_id = api.sessions.create(request)?;
    Ok(json(200, api.ledger.session_json(&session_id)?))
}

impl CreateBody {
    /// The record is in every list of sessions, in events and in answers: what it holds has a size.
    fn check_lengths(&self) -> Result<()> {
        let metadata = self.metadata.as_deref().map(RawValue::get);
        check_length("title", self.title.as_deref(), limits::LINE_BYTES)?;
        check_length("system_prompt", self.system_prompt.as_deref(), limits::PROMPT_BYTES)?;
        check_length("metadata", metadata, limits::METADATA_BYTES)?;
        check_words([
            ("model", &self.model),
            ("mode", &self.mode),
            ("reasoning_level", &self.reasoning_level),
            ("permission_mode", &self.permission_mode),
        ])?;
        let (count, most) = (self.mcp_servers.len(), limits::MCP_SERVERS);
        if count > most {
            let text = format!("mcp_servers: there are {count}, at most {most}");
            return Err(Error::bad_request(text));
        }
        Ok(())
    }
}

/// An MCP server in ACP's shape: `env` and `headers` are lists of pairs there; an object is taken too.
fn mcp_server(place: usize, mut server: Value) -> Result<Value> {
    let wrong = |what: &str| Error::bad_request(format!("mcp_servers[{place}]: {what}"));
    let fields = server.as_object_mut().ok_or_else(|| wrong("must be an object"))?;
    let name = fields.get("name").and_then(Value::as_str).unwrap_or_default();
    if name.is_empty() {
        return Err(wrong("name is missing"));
    }
    if name == GATEWAY_SERVER {
        return Err(
            wrong("the name \"gg\" is that of the server's own tools").hint("choose another")
        );
    }
    let has = |name: &str| fields.get(name).is_some_and(Value::is_string);
    if !has("command") && !has("url") {
        return Err(wrong("needs a command (stdio) or a url (http, sse)"));
    }
    let is_stdio = has("command");
    for list in ["env", "headers"] {
        if let Some(Value::Object(pairs)) = fields.get(list) {
            let pairs = pairs.iter().map(|(name, value)| json!({"name": name, "value": value}));
            let pairs = Value::Array(pairs.collect());
            fields.insert(list.to_owned(), pairs);
        }
    }
    check_mcp_lists(fields).map_err(|what| wrong(&what))?;
    if is_stdio {
        fields.entry("args").or_insert_with(|| json!([]));
        fields.entry("env").or_insert_with(|| json!([]));
    }
    Ok(server)
}

/// What agents would choke on: arguments that are no texts, pairs that are no pairs.
fn check_mcp_lists(fields: &Map<String, Value>) -> std::result::Result<(), String> {
    let is_text = |value: Option<&Value>| value.is_some_and(Value::is_string);
    let is_pair = |pair: &Value| is_text(pair.get("name")) && is_text(pair.get("value"));
    let list_of = |list: &str, check: &dyn Fn(&Value) -> bool| match fields.get(list) {
        None => true,
        Some(value) => value.as_array().is_some_and(|values| values.iter().all(check)),
    };
    if !list_of("args", &Value::is_string) {
        return Err("args must be a list of texts".to_owned());
    }
    for list in ["env", "headers"] {
        if !list_of(list, &is_pair) {
            return Err(format!(
                "{list} must be an object of texts, or a list of names and values"
            ));
        }
    }
    Ok(())
}

pub(super) fn get(api: &Api, call: &Call) -> Result<Answer> {
    Ok(json(200, api.ledger.session_json(call.part(0))?))
}

pub(super) fn list(api: &Api, call: &Call) -> Result<Answer> {
    let statuses: Vec<&str> = SessionStatus::ALL.iter().map(|status| status.as_str()).collect();
    let query = SessionQuery {
        status: call.one_of("status", &statuses)?.map(str::to_owned),
        provider: call.text("provider").map(str::to_owned),
        team_id: call.text("team_id").map(str::to_owned),
        after: call.text("cursor").map(list_place).transpose()?,
        most: call.most(1000)?,
    };
    let sessions = api.ledger.read(|db| session::list(db, &query))?;
    Ok(Answer::Whole(page(&sessions, |last| format!("{}.{}", last.updated_at, last.session_key))))
}

/// The place in the list that `X-Next-Cursor` named.
fn list_place(cursor: &str) -> Result<(i64, i64)> {
    cursor
        .split_once('.')
        .and_then(|(at, key)| Some((at.parse().ok()?, key.parse().ok()?)))
        .ok_or_else(|| {
            Error::bad_request(format!("cursor is {cursor:?}"))
                .hint("send the X-Next-Cursor of the page before")
        })
}

pub(super) fn resume(api: &Api, call: &Call) -> Result<Answer> {
    let body: ResumeBody = call.optional_body()?;
    for (field, text) in [
        ("provider_session_ref", &body.provider_session_ref),
        ("canonical_provider_session_ref", &body.canonical_provider_session_ref),
    ] {
        check_length(field, text.as_deref(), limits::LINE_BYTES)?;
        if text.as_ref().is_some_and(String::is_empty) {
            return Err(Error::bad_request(format!("{field} is empty"))
                .hint("leave it out to resume the native session that is stored"));
        }
    }
    let native_ref = body.provider_session_ref.or(body.canonical_provider_session_ref);
    api.sessions.resume(call.part(0), native_ref)?;
    Ok(json(200, api.ledger.session_json(call.part(0))?))
}

pub(super) fn close(api: &Api, call: &Call) -> Result<Answer> {
    let body: CloseBody = call.optional_body()?;
    check_length("reason", body.reason.as_deref(), limits::LINE_BYTES)?;
    let reason = body.reason.unwrap_or_else(|| "closed_by_request".to_owned());
    end(api, call, &reason)?;
    Ok(json(200, api.ledger.session_json(call.part(0))?))
}

pub(super) fn delete(api: &Api, call: &Call) -> Result<Answer> {
    let is_purge = call.is_on("purge", false)?;
    end(api, call, "deleted")?;
    if is_purge {
        api.sessions.purge(call.part(0))?;
    }
    Ok(Answer::Whole(Response::new(204)))
}

/// Ends the session and all that it owns, and waits for that as long as its client does: whatever was told to end ends
/// also when nobody waits.
fn end(api: &Api, call: &Call, reason: &str) -> Result<()> {
    let ending = api.sessions.begin_close(call.part(0), reason)?;
    // Without a place nobody waits for what ends all the same.
    let Ok(_place) = api.waits.take(call) else { return Ok(()) };
    for process_id in &ending {
        let at_most = end_wait(&api.processes.get(process_id)?);
        super::process::await_end(api, call, process_id, at_most)?;
    }
    Ok(())
}

/// The whole conversation as items, and the seq from which a stream goes on without a gap.
pub(super) fn transcript(api: &Api, call: &Call) -> Result<Answer> {
    let session_id = call.part(0);
    let most = call.most(1000)?;
    let after = call.number("cursor")?;
    let (items, as_of_seq) = api.ledger.read(|db| {
        // One snapshot for both, so that they fit together.
        let snapshot = db.unchecked_transaction()?;
        let items = item::list_grown(&snapshot, session_id, None, after, most)?;
        let scope_key = event::scope_key(&snapshot, ScopeKind::Session, session_id)?;
        Ok((items, event::newest_seq(&snapshot, scope_key)?))
    })?;
    let response = page(&items, |last| last.item_key.to_string());
    Ok(Answer::Whole(response.header("X-As-Of-Seq", as_of_seq.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mcp_server_gets_the_shape_that_agents_take() {
        let given = json!({"name": "echo", "command": "echo", "env": {"A": "b"}});
        let made = mcp_server(0, given).unwrap();
        let env = json!([{"name": "A", "value": "b"}]);
        assert_eq!(made, json!({"name": "echo", "command": "echo", "env": env, "args": []}));
        let error = mcp_server(3, json!({"command": "x"})).unwrap_err();
        assert!(error.message.contains("mcp_servers[3]"), "{error}");
        let error = mcp_server(0, json!({"name": "gg", "command": "x"})).unwrap_err();
        assert!(error.message.contains("\"gg\""), "{error}");
    }

    #[test]
    fn a_list_cursor_is_two_numbers() {
        assert_eq!(list_place("12.3").unwrap(), (12, 3));
        assert!(list_place("12").is_err());
    }
}
