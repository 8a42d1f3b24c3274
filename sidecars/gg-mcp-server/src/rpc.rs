//! MCP as JSON-RPC messages: what one asks for, and the shape of the answer.
//!
//! Two eras of the protocol are spoken. Up to 2025-11-25 a client begins with `initialize`; since 2026-07-28 there is
//! no handshake: each request names its version in `_meta`, `server/discover` tells what there is, and each result
//! says that it is complete. No state is kept between messages, so one reader serves both and any transport.
//!
//! [`read`] answers by itself what needs no tools; [`Request`] is what is left, with the functions that make its
//! answer. Any bytes may come. Batches (only ever part of 2025-03-26) are refused. Cancellations are not obeyed: what
//! a tool has begun it ends.

#[cfg(test)]
mod tests;

use serde_json::{Map, Value, json};

/// The versions that are spoken, newest first.
pub const VERSIONS: &[&str] = &[MODERN, "2025-11-25", "2025-06-18", "2025-03-26", "2024-11-05"];
/// The first version without a handshake.
const MODERN: &str = "2026-07-28";

const VERSION_KEY: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES_KEY: &str = "io.modelcontextprotocol/clientCapabilities";
const SERVER_KEY: &str = "io.modelcontextprotocol/serverInfo";

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const UNSUPPORTED_VERSION: i64 = -32022;
/// The server can not take one more call now.
pub const BUSY: i64 = -32000;

/// How long a client of the new era may keep the list of tools and the answer to `server/discover`.
const KEEP_MS: u64 = 60_000;

/// Who answers.
pub struct Identity {
    pub name: &'static str,
    pub version: &'static str,
    /// For the model: what the tools are for.
    pub instructions: &'static str,
    /// Whether `notifications/tools/list_changed` may come. Only clients with a handshake take it unasked.
    pub is_list_changing: bool,
}

/// What the HTTP request said beside its body; the new era demands that both say the same.
pub struct Headers<'a> {
    pub version: Option<&'a str>,
    pub method: Option<&'a str>,
    pub name: Option<&'a str>,
}

/// What a message comes to.
#[derive(Debug)]
pub enum Read {
    /// This is the answer; the status is for HTTP.
    Answer { status: u16, body: Value },
    /// Tools are needed for the answer.
    Request(Request),
    /// A notification, or an answer to something that was never asked.
    Nothing,
}

/// A request that needs tools.
#[derive(Debug)]
pub struct Request {
    pub id: Value,
    pub ask: Ask,
    era: Era,
    server_info: Value,
}

#[derive(Debug, PartialEq)]
pub enum Ask {
    ListTools,
    CallTool { name: String, arguments: Map<String, Value> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Era {
    /// With `initialize`.
    Handshake,
    /// With a version in each request.
    Stateless,
}

/// A refusal on its way to becoming an answer.
struct Refusal {
    status: u16,
    code: i64,
    message: String,
    data: Value,
}

/// Works out one message. `headers` is None on a transport that has none.
pub fn read(text: &[u8], identity: &Identity, headers: Option<&Headers<'_>>) -> Read {
    let message = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(message)) => message,
        Ok(Value::Array(_)) => {
            let told = "batches are not taken: send each message by itself";
            return refuse(Value::Null, bad_request(told));
        }
        Ok(_) => return refuse(Value::Null, bad_request("a message is an object")),
        Err(error) => {
            let refusal = Refusal { code: PARSE_ERROR, ..bad_request(&error.to_string()) };
            return refuse(Value::Null, refusal);
        }
    };
    let id = match message.get("id") {
        None => None,
        Some(id) if id.is_string() || id.is_number() => Some(id.clone()),
        Some(_) => return refuse(Value::Null, bad_request("id must be a text or a number")),
    };
    let is_answer = message.contains_key("result") || message.contains_key("error");
    let method = match message.get("method").and_then(Value::as_str) {
        Some(method) => method,
        None if is_answer => return Read::Nothing,
        None => {
            return refuse(id.unwrap_or_default(), bad_request("method is missing, or no text"));
        }
    };
    let Some(id) = id else { return Read::Nothing };
    if message.get("jsonrpc") != Some(&json!("2.0")) {
        return refuse(id, bad_request("jsonrpc must be \"2.0\""));
    }
    let nothing = Map::new();
    let params = match message.get("params") {
        None | Some(Value::Null) => &nothing,
        Some(Value::Object(params)) => params,
        Some(_) => return refuse(id, invalid("params must be an object")),
    };
    let call = Call { method, params, identity };
    match call.work(&id, headers) {
        Ok(read) => read,
        Err(refusal) => refuse(id, refusal),
    }
}

/// A request whose shape is good.
struct Call<'a> {
    method: &'a str,
    params: &'a Map<String, Value>,
    identity: &'a Identity,
}

impl Call<'_> {
    fn work(&self, id: &Value, headers: Option<&Headers<'_>>) -> Result<Read, Refusal> {
        let era = self.era()?;
        if let Some(headers) = headers {
            self.check_headers(era, headers)?;
        }
        let result = match (self.method, era) {
            ("initialize", Era::Handshake) => self.initialize()?,
            ("ping", Era::Handshake) => json!({}),
            ("server/discover", _) => self.discover(),
            ("tools/list", _) => {
                if self.params.get("cursor").is_some_and(|cursor| !cursor.is_null()) {
                    return Err(invalid("cursor: there is one page only"));
                }
                return Ok(Read::Request(self.request(id, era, Ask::ListTools)));
            }
            ("tools/call", _) => {
                let ask = self.tool_call()?;
                return Ok(Read::Request(self.request(id, era, ask)));
            }
            _ => {
                // A client of the new era tells by the status an endpoint that has no such method from none at all.
                let status = if era == Era::Stateless { 404 } else { 200 };
                let message = format!("there is no method {:?} here", self.method);
                return Err(Refusal { status, code: METHOD_NOT_FOUND, message, data: Value::Null });
            }
        };
        Ok(Read::Answer { status: 200, body: answer(id, &Ok(result)) })
    }

    /// Which era the request is of: the new one says so in each request.
    fn era(&self) -> Result<Era, Refusal> {
        let nothing = Map::new();
        let meta = match self.params.get("_meta") {
            None | Some(Value::Null) => &nothing,
            Some(Value::Object(meta)) => meta,
            Some(_) => return Err(invalid("_meta must be an object")),
        };
        match meta.get(VERSION_KEY) {
            None if self.method == "server/discover" => Ok(Era::Stateless),
            None => Ok(Era::Handshake),
            Some(Value::String(version)) if version == MODERN => {
                if !meta.get(CAPABILITIES_KEY).is_some_and(Value::is_object) {
                    return Err(invalid(&format!("_meta: {CAPABILITIES_KEY} must be an object")));
                }
                Ok(Era::Stateless)
            }
            Some(Value::String(version)) if VERSIONS.contains(&version.as_str()) => {
                Ok(Era::Handshake)
            }
            Some(Value::String(version)) => Err(unsupported(version)),
            Some(_) => Err(invalid(&format!("_meta: {VERSION_KEY} must be a text"))),
        }
    }

    /// What stands in the headers for those who do not read bodies must be what the body says.
    fn check_headers(&self, era: Era, headers: &Headers<'_>) -> Result<(), Refusal> {
        if era == Era::Handshake {
            return match headers.version {
                Some(version) if !VERSIONS.contains(&version) => Err(unsupported(version)),
                Some(MODERN) => Err(mismatch("MCP-Protocol-Version", MODERN, "an older version")),
                _ => Ok(()),
            };
        }
        let name = if self.method == "tools/call" { self.params.get("name") } else { None };
        let wanted = [
            ("MCP-Protocol-Version", headers.version, Some(MODERN)),
            ("Mcp-Method", headers.method, Some(self.method)),
            ("Mcp-Name", headers.name, name.and_then(Value::as_str)),
        ];
        for (header, given, said) in wanted {
            if said.is_some() && given != said {
                let given = given.unwrap_or("missing");
                return Err(mismatch(header, given, said.unwrap_or_default()));
            }
        }
        Ok(())
    }

    fn initialize(&self) -> Result<Value, Refusal> {
        let Some(wanted) = self.params.get("protocolVersion").and_then(Value::as_str) else {
            return Err(invalid("protocolVersion is missing, or no text"));
        };
        // The new version has no handshake, so a client that asks for one is offered the newest that has.
        let version = VERSIONS[1..].iter().find(|version| **version == wanted);
        Ok(json!({
            "protocolVersion": version.unwrap_or(&VERSIONS[1]),
            "capabilities": {"tools": {"listChanged": self.identity.is_list_changing}},
            "serverInfo": self.server_info(),
            "instructions": self.identity.instructions,
        }))
    }

    fn discover(&self) -> Value {
        json!({
            "resultType": "complete",
            "supportedVersions": VERSIONS,
            "capabilities": {"tools": {}},
            "instructions": self.identity.instructions,
            "ttlMs": KEEP_MS,
            "cacheScope": "private",
            "_meta": {SERVER_KEY: self.server_info()},
        })
    }

    fn tool_call(&self) -> Result<Ask, Refusal> {
        let name = match self.params.get("name").and_then(Value::as_str) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => return Err(invalid("name: the tool to call is missing, or no text")),
        };
        let arguments = match self.params.get("arguments") {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(arguments)) => arguments.clone(),
            Some(_) => return Err(invalid("arguments must be an object")),
        };
        Ok(Ask::CallTool { name, arguments })
    }

    fn server_info(&self) -> Value {
        json!({"name": self.identity.name, "version": self.identity.version})
    }

    fn request(&self, id: &Value, era: Era, ask: Ask) -> Request {
        Request { id: id.clone(), ask, era, server_info: self.server_info() }
    }
}

impl Request {
    /// Whether the client takes notifications that it did not ask for.
    pub fn takes_notifications(&self) -> bool {
        self.era == Era::Handshake
    }

    /// The answer to [`Ask::ListTools`].
    pub fn listed(&self, tools: &[Value]) -> Value {
        let mut result = Map::from_iter([("tools".to_owned(), json!(tools))]);
        if self.era == Era::Stateless {
            result.insert("ttlMs".to_owned(), json!(KEEP_MS));
            result.insert("cacheScope".to_owned(), json!("private"));
        }
        self.answer(result)
    }

    /// The answer to [`Ask::CallTool`].
    pub fn called(&self, text: String, is_error: bool) -> Value {
        let content = json!([{"type": "text", "text": text}]);
        let fields = [("content".to_owned(), content), ("isError".to_owned(), json!(is_error))];
        self.answer(Map::from_iter(fields))
    }

    /// An answer that is an error of the protocol.
    pub fn refused(&self, code: i64, message: &str) -> Value {
        answer(&self.id, &Err(json!({"code": code, "message": message})))
    }

    fn answer(&self, mut result: Map<String, Value>) -> Value {
        if self.era == Era::Stateless {
            result.insert("resultType".to_owned(), json!("complete"));
            result.insert("_meta".to_owned(), json!({SERVER_KEY: self.server_info}));
        }
        answer(&self.id, &Ok(Value::Object(result)))
    }
}

/// An answer to a line that can not even be read.
pub fn unreadable(message: &str) -> Value {
    answer(&Value::Null, &Err(json!({"code": PARSE_ERROR, "message": message})))
}

/// What tells a client to ask for the tools again.
pub fn list_changed() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"})
}

fn answer(id: &Value, result: &Result<Value, Value>) -> Value {
    match result {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(error) => json!({"jsonrpc": "2.0", "id": id, "error": error}),
    }
}

fn refuse(id: Value, refusal: Refusal) -> Read {
    let mut error = json!({"code": refusal.code, "message": refusal.message});
    if !refusal.data.is_null() {
        error["data"] = refusal.data;
    }
    Read::Answer { status: refusal.status, body: answer(&id, &Err(error)) }
}

fn bad_request(message: &str) -> Refusal {
    Refusal { status: 400, code: INVALID_REQUEST, message: message.to_owned(), data: Value::Null }
}

fn invalid(message: &str) -> Refusal {
    Refusal { status: 200, code: INVALID_PARAMS, ..bad_request(message) }
}

fn mismatch(header: &str, given: &str, said: &str) -> Refusal {
    let message = format!("the header {header} is {given}, but the body says {said}");
    Refusal { code: HEADER_MISMATCH, ..bad_request(&message) }
}

fn unsupported(version: &str) -> Refusal {
    Refusal {
        code: UNSUPPORTED_VERSION,
        data: json!({"supported": VERSIONS, "requested": version}),
        ..bad_request(&format!("the version {version:?} of MCP is not spoken here"))
    }
}
