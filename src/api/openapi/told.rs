//! What the document tells of a route beside its method, path, access and body rule: the words of the table in
//! `src/api/route.rs`.
//!
//! What holds for every route of a sort (401 with a token, 404 with a name in the path, 415 with a body) is not told
//! here but added in [`super::document`].

use crate::error::Code;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

/// How a type becomes a schema: into which generator, and what then stands in its place.
pub(super) type Shape = fn(&mut SchemaGenerator) -> Value;

pub(in crate::api) struct Told {
    /// The name of the operation for generated clients.
    pub(super) name: &'static str,
    pub(super) summary: &'static str,
    pub(super) query: Vec<Query>,
    /// The schema of the body and an example.
    pub(super) body: Option<(Shape, Value)>,
    pub(super) answers: Vec<Told200>,
    pub(super) errors: Vec<Code>,
    pub(super) is_idempotent: bool,
    pub(super) is_stream: bool,
    /// Names of paths that the answer holds, and where.
    pub(super) makes: Vec<(&'static str, &'static str)>,
    /// Operations whose body can be put together from the answer.
    pub(super) leads: Vec<(&'static str, Value)>,
}

/// One way to succeed.
pub(super) struct Told200 {
    pub(super) status: u16,
    pub(super) media_type: &'static str,
    /// None = no body.
    pub(super) shape: Option<Shape>,
    pub(super) headers: Vec<&'static str>,
}

pub(in crate::api) struct Query {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: Value,
}

fn shape_of<T: JsonSchema>(to: &mut SchemaGenerator) -> Value {
    to.subschema_for::<T>().into()
}

/// An operation: its name for programs and what it does.
pub(in crate::api) fn op(name: &'static str, summary: &'static str) -> Told {
    Told {
        name,
        summary,
        query: Vec::new(),
        body: None,
        answers: Vec::new(),
        errors: Vec::new(),
        is_idempotent: false,
        is_stream: false,
        makes: Vec::new(),
        leads: Vec::new(),
    }
}

impl Told {
    /// 200 with this record.
    pub(in crate::api) fn answers<T: JsonSchema>(self) -> Told {
        self.with_status::<T>(200)
    }

    pub(in crate::api) fn with_status<T: JsonSchema>(mut self, status: u16) -> Told {
        let (media_type, shape) = ("application/json", Some(shape_of::<T> as Shape));
        self.answers.push(Told200 { status, media_type, shape, headers: Vec::new() });
        self
    }

    /// The status of the answer before (200 if there is none) in another media type.
    pub(in crate::api) fn also<T: JsonSchema>(mut self, media_type: &'static str) -> Told {
        let shape = Some(shape_of::<T> as Shape);
        let status = self.answers.last().map_or(200, |answer| answer.status);
        self.answers.push(Told200 { status, media_type, shape, headers: Vec::new() });
        self
    }

    /// A status without a body.
    pub(in crate::api) fn empty(mut self, status: u16) -> Told {
        let answer = Told200 { status, media_type: "", shape: None, headers: Vec::new() };
        self.answers.push(answer);
        self
    }

    /// 200 with an array of records in pages.
    pub(in crate::api) fn pages<T: JsonSchema>(self) -> Told {
        self.pages_by::<T>("^[0-9]{1,18}$")
    }

    /// The same with cursors of this look.
    pub(in crate::api) fn pages_by<T: JsonSchema>(self, cursor: &str) -> Told {
        let told = self.answers::<Vec<T>>().header("X-Next-Cursor");
        told.query(limit(1000)).query(Query {
            name: "cursor",
            description: "The `X-Next-Cursor` of the page before.",
            schema: json!({"type": "string", "pattern": cursor}),
        })
    }

    /// 200 with a page of the log.
    pub(in crate::api) fn log(self) -> Told {
        let after = integer(
            "after_seq",
            "Only behind this position: a `seq`, in the whole log a `row_id`.",
        );
        let order = one_of("order", "Oldest first, or newest.", &["asc", "desc"]);
        self.answers::<Vec<EventRef>>()
            .header("X-Next-Cursor")
            .query(limit(500))
            .query(after)
            .query(integer("before_seq", "Only before this position."))
            .query(order)
            .query(Query {
                name: "cursor",
                description: "The `X-Next-Cursor` of the page before: as `after_seq`, with \
                    `order=desc` as `before_seq`; of two the nearer one holds.",
                schema: json!({"type": "string", "pattern": "^[0-9]{1,18}$"}),
            })
            .filters()
    }

    /// A stream of the log.
    pub(in crate::api) fn stream(mut self) -> Told {
        self.is_stream = true;
        let after = Query {
            name: "after_seq",
            description: "Begin behind this position, or at the head. `Last-Event-ID` wins.",
            schema: json!({"anyOf": [{"type": "integer", "format": "int64"}, {"const": "latest"}]}),
        };
        self.also::<Frame>("text/event-stream")
            .also::<EventRef>("application/x-ndjson")
            .query(after)
            .query(kinds("until", "Ends behind the first event of these kinds; commas between."))
            .query(Query {
                name: "limit",
                description: "Ends behind so many events.",
                schema: json!({"type": "integer", "format": "int64", "minimum": 0}),
            })
            .query(flag("control", "False: no control frames.", true))
            .filters()
            .fails(&[Code::CursorAhead, Code::Capacity])
    }

    fn filters(self) -> Told {
        self.query(kinds("kinds", "Only these kinds and families, as `turn.completed,item.*`."))
            .query(text("turn_id", "Only events of this turn."))
            .query(flag("critical_only", "Without deltas and output.", false))
    }

    /// The last answer has this header.
    pub(in crate::api) fn header(mut self, name: &'static str) -> Told {
        self.answers.last_mut().expect("an answer is told before its header").headers.push(name);
        self
    }

    pub(in crate::api) fn query(mut self, query: Query) -> Told {
        self.query.push(query);
        self
    }

    /// The body, with an example of it.
    pub(in crate::api) fn takes<T: JsonSchema>(mut self, example: Value) -> Told {
        self.body = Some((shape_of::<T>, example));
        self
    }

    /// `Idempotency-Key` is heeded.
    pub(in crate::api) fn idempotent(mut self) -> Told {
        self.is_idempotent = true;
        self.fails(&[Code::IdempotencyMismatch])
    }

    /// The answer holds what stands for `name` in paths, at this place.
    pub(in crate::api) fn makes(mut self, name: &'static str, place: &'static str) -> Told {
        self.makes.push((name, place));
        self
    }

    /// The answer leads to this operation with this body, in which there are runtime expressions.
    pub(in crate::api) fn leads(mut self, name: &'static str, body: Value) -> Told {
        self.leads.push((name, body));
        self
    }

    /// What it refuses beside what every route of its sort does.
    pub(in crate::api) fn fails(mut self, codes: &[Code]) -> Told {
        self.errors.extend(codes);
        self
    }
}

pub(in crate::api) fn text(name: &'static str, description: &'static str) -> Query {
    Query { name, description, schema: json!({"type": "string"}) }
}

pub(in crate::api) fn integer(name: &'static str, description: &'static str) -> Query {
    Query { name, description, schema: json!({"type": "integer", "format": "int64"}) }
}

/// Kinds and families of events.
fn kinds(name: &'static str, description: &'static str) -> Query {
    const PATTERN: &str = r"^([a-z][a-z_.]*(\.\*)?(,[a-z][a-z_.]*(\.\*)?)*)?$";
    Query { name, description, schema: json!({"type": "string", "pattern": PATTERN}) }
}

/// A number that is never below nothing.
pub(in crate::api) fn count(name: &'static str, description: &'static str) -> Query {
    Query { name, description, schema: json!({"type": "integer", "format": "int64", "minimum": 0}) }
}

pub(in crate::api) fn flag(name: &'static str, description: &'static str, default: bool) -> Query {
    Query { name, description, schema: json!({"type": "boolean", "default": default}) }
}

pub(in crate::api) fn one_of(
    name: &'static str,
    description: &'static str,
    words: &[&str],
) -> Query {
    Query { name, description, schema: json!({"type": "string", "enum": words}) }
}

/// A filter by the words of a closed list.
pub(in crate::api) fn word<T: JsonSchema>(name: &'static str, description: &'static str) -> Query {
    let mut generator = SchemaGenerator::default();
    Query { name, description, schema: T::json_schema(&mut generator).into() }
}

fn limit(default: u32) -> Query {
    Query {
        name: "limit",
        description: "At most so many; more than 10000 are never given.",
        schema: json!({
            "type": "integer", "format": "int64", "minimum": 0, "default": default,
        }),
    }
}

/// A frame of an SSE stream: an event, or a control frame, which has no id.
#[derive(JsonSchema, serde::Serialize)]
#[schemars(rename = "StreamFrame")]
pub(super) struct Frame {
    /// The kind of the event, or the name of the control frame.
    event: String,
    /// The cursor to come back with.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9]+$"))]
    id: Option<String>,
    #[schemars(with = "FrameData")]
    data: String,
}

/// JSON in the text of a frame.
struct FrameData;

impl JsonSchema for FrameData {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FrameData".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        let names = ["Event", "StreamOpened", "StreamCaughtUp", "StreamClosing"];
        let refer = |name| json!({"$ref": format!("#/components/schemas/{name}")});
        schemars::json_schema!({
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": {"anyOf": names.map(refer)},
        })
    }
}

/// Stands for the union of events.
pub(super) struct EventRef;

impl JsonSchema for EventRef {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "EventRef".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"$ref": "#/components/schemas/Event"})
    }
}

/// A form with one file.
pub(in crate::api) struct FileForm;

impl JsonSchema for FileForm {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "LoginFile".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "required": ["file"],
            "properties": {"file": {"type": "string", "contentMediaType": "application/json"}},
        })
    }
}

/// A message of MCP, which has its own document.
pub(in crate::api) struct McpMessage;

impl JsonSchema for McpMessage {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "McpMessage".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A message of JSON-RPC 2.0 as the Model Context Protocol has it.",
            "type": "object",
            "required": ["jsonrpc"],
            "properties": {"jsonrpc": {"const": "2.0"}},
            "additionalProperties": true,
        })
    }
}

/// A call or a notification of MCP.
pub(in crate::api) struct McpCall;

impl JsonSchema for McpCall {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "McpCall".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "description": "A call, or without `id` a notification, of the Model Context Protocol.",
            "type": "object",
            "required": ["jsonrpc", "method"],
            "properties": {
                "jsonrpc": {"const": "2.0"},
                "method": {"type": "string"},
                "id": {"type": ["string", "integer", "null"]},
                "params": {"type": "object"},
            },
            "additionalProperties": true,
        })
    }
}

/// The OpenAPI document: this one.
pub(in crate::api) struct Document;

impl JsonSchema for Document {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Document".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "object"})
    }
}

/// A call of a tool: each field in one of two spellings.
pub(in crate::api) struct ToolInvoke;

impl JsonSchema for ToolInvoke {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ToolInvoke".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> schemars::Schema {
        let maybe = json!({"type": ["string", "null"]});
        schemars::json_schema!({
            "type": "object",
            "anyOf": [{"required": ["tool_name"]}, {"required": ["toolName"]}],
            "properties": {
                "tool_name": {"type": "string", "pattern": "[!-~]"},
                "toolName": {
                    "type": "string", "pattern": "[!-~]", "description": "The same as `tool_name`.",
                },
                "args": {"description": "Checked against the schema of the tool."},
                "caller_agent_id": maybe,
                "callerAgentId": maybe,
                "invocation_id": maybe,
                "invocationId": maybe,
                "namespace": maybe,
            },
        })
    }
}
