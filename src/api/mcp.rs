//! The MCP gateway over HTTP: what it has, a call by JSON, and MCP itself.
//!
//! The caller is the session of the agent's token; the operator names one. Errors of tools are answers (status 200,
//! `ok: false`); errors of HTTP are requests that reach no tool.

use super::access::Bearer;
use super::{Api, Call, json};
use crate::error::{Code, Error, Result};
use crate::http::{Answer, Response};
use crate::ledger::{session, to_json};
use crate::mcp::{CalledBy, Invocation};
use gg_mcp_server::envelope_text;
use gg_mcp_server::rpc::{self, Ask, Headers, Identity, Read};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct InvokeBody {
    namespace: Option<String>,
    #[serde(alias = "toolName")]
    tool_name: String,
    #[serde(alias = "callerAgentId")]
    caller_agent_id: Option<String>,
    #[serde(alias = "invocationId")]
    invocation_id: Option<String>,
    #[serde(default)]
    args: Value,
}

const IDENTITY: Identity = Identity {
    name: "gooselake",
    version: env!("CARGO_PKG_VERSION"),
    instructions: "Tools of the runtime server that this session runs on. Every call is recorded \
        in the session's event log.",
    is_list_changing: false,
};

pub(super) fn capabilities(api: &Api, _call: &Call) -> Result<Answer> {
    api.mcp.check_enabled()?;
    Ok(json(200, to_json(&json!({"ok": true, "result": api.mcp.capabilities()}))))
}

pub(super) fn invoke(api: &Api, call: &Call) -> Result<Answer> {
    api.mcp.check_enabled()?;
    let body: InvokeBody = call.body()?;
    let tool = body.tool_name.trim();
    if tool.is_empty() {
        return Err(Error::bad_request("tool_name is blank")
            .hint("GET /v1/mcp/capabilities lists the tools"));
    }
    if let Some(namespace) = &body.namespace
        && !tool.strip_prefix(namespace.as_str()).is_some_and(|rest| rest.starts_with('_'))
    {
        return Err(Error::bad_request(format!(
            "namespace is {namespace:?}, but the tool is {tool:?}"
        ))
        .hint("leave namespace out, or send what the tool's name begins with"));
    }
    let (session_id, called_by) = caller(api, call, body.caller_agent_id.as_deref())?;
    let envelope = api.mcp.invoke(Invocation {
        session_id: session_id.clone(),
        called_by,
        tool: tool.to_owned(),
        invocation_id: body.invocation_id.filter(|id| !id.trim().is_empty()),
        arguments: body.args,
    })?;
    Ok(json(200, to_json(&envelope)))
}

/// MCP over HTTP: one message in, one JSON answer out, no session and no stream.
pub(super) fn message(api: &Api, call: &Call) -> Result<Answer> {
    api.mcp.check_enabled()?;
    let head = call.head();
    let headers = Headers {
        version: head.header("mcp-protocol-version"),
        method: head.header("mcp-method"),
        name: head.header("mcp-name"),
    };
    let request = match rpc::read(&call.request.body, &IDENTITY, Some(&headers)) {
        Read::Answer { status, body } => return Ok(json(status, body.to_string())),
        Read::Nothing => return Ok(Answer::Whole(Response::new(202))),
        Read::Request(request) => request,
    };
    let answer = match &request.ask {
        Ask::ListTools => request.listed(&api.mcp.tools()),
        Ask::CallTool { name, arguments } => {
            let (session_id, called_by) = caller(api, call, call.text("caller_agent_id"))?;
            let envelope = api.mcp.invoke(Invocation {
                session_id: session_id.clone(),
                called_by,
                tool: name.clone(),
                invocation_id: None,
                arguments: Value::Object(arguments.clone()),
            })?;
            let (text, is_error) = envelope_text(envelope, Some(&session_id));
            request.called(text, is_error)
        }
    };
    Ok(json(200, answer.to_string()))
}

/// In whose name a tool is called. Errors: an agent names another session, or the operator none that goes on.
fn caller(api: &Api, call: &Call, named: Option<&str>) -> Result<(String, CalledBy)> {
    let named = named.map(str::trim).filter(|named| !named.is_empty());
    match api.bearer(call.head())? {
        Bearer::Agent { session_id } if named.is_none_or(|named| named == session_id) => {
            Ok((session_id, CalledBy::Agent))
        }
        Bearer::Agent { session_id } => Err(Error::new(
            Code::Forbidden,
            format!("caller_agent_id is not {session_id}, whose token this is"),
        )
        .hint("leave it out: the token says who calls")),
        Bearer::Operator => {
            let named = named.ok_or_else(|| {
                Error::bad_request("caller_agent_id is missing")
                    .hint("name the session in whose name the tool is called")
            })?;
            let record = api.ledger.read(|db| session::get(db, named))?;
            match record.status.as_str() {
                "closed" | "failed" => Err(Error::new(
                    Code::SessionClosed,
                    format!("session {named} is {}", record.status),
                )
                .hint("call in the name of a session that goes on")),
                _ => Ok((record.id, CalledBy::Operator)),
            }
        }
    }
}
