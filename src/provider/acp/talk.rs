//! A conversation with the adapter for the stories: say what the agent says, see what comes out.

use super::Acp;
use crate::model::input::Input;
use crate::model::{ItemStatus, TurnStatus};
use crate::provider::{Adapter, AgentEvent, Command, Effects, Open};
use serde_json::{Value, json};

/// An adapter and what came out of it last.
pub(super) struct Talk {
    pub(super) acp: Acp,
    pub(super) out: Effects,
}

impl Talk {
    pub(super) fn open(open: &Open) -> Talk {
        let mut talk = Talk { acp: Acp::new(), out: Effects::default() };
        talk.acp.open(open, &mut talk.out);
        talk
    }

    /// A session that takes turns, of an agent with these capabilities and this `session/new`
    /// answer.
    pub(super) fn ready_with(open: &Open, session: Value) -> Talk {
        let mut talk = Talk::open(open);
        talk.hear(initialized(json!({"sessionCapabilities": {"close": {}}})));
        let mut result = session;
        result["sessionId"] = json!("s1");
        talk.hear(json!({"id": 2, "result": result}));
        talk
    }

    pub(super) fn ready() -> Talk {
        let open = Open { client_fs: true, client_terminal: true, ..Open::default() };
        Talk::ready_with(&open, json!({}))
    }

    /// Ready, with a running turn whose prompt has the id 3.
    pub(super) fn busy() -> Talk {
        let mut talk = Talk::ready();
        talk.tell(turn("hello"));
        talk
    }

    pub(super) fn hear(&mut self, message: Value) -> &mut Talk {
        self.hear_text(&message.to_string())
    }

    pub(super) fn hear_text(&mut self, line: &str) -> &mut Talk {
        self.out = Effects::default();
        self.acp.line(line.as_bytes(), &mut self.out);
        self
    }

    pub(super) fn tell(&mut self, command: Command) -> &mut Talk {
        self.out = Effects::default();
        self.acp.command(command, &mut self.out);
        self
    }

    pub(super) fn update(&mut self, update: Value) -> &mut Talk {
        let params = json!({"sessionId": "s1", "update": update});
        self.hear(json!({"method": "session/update", "params": params}))
    }

    pub(super) fn say(&mut self, text: &str) -> &mut Talk {
        self.update(json!({
            "sessionUpdate": "agent_message_chunk", "content": {"type": "text", "text": text},
        }))
    }

    pub(super) fn ask(&mut self, id: u64, tool: &str) -> &mut Talk {
        let call = json!({"toolCallId": tool, "kind": "execute", "title": "ls"});
        let options = json!([
            {"optionId": "yes", "name": "Yes", "kind": "allow_once"},
            {"optionId": "no", "kind": "reject_once"},
        ]);
        let params = json!({"sessionId": "s1", "toolCall": call, "options": options});
        self.hear(json!({"id": id, "method": "session/request_permission", "params": params}))
    }

    /// What was written to the agent, without the envelope.
    pub(super) fn sent(&self) -> Vec<Value> {
        let lines = self.out.stdin.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| {
                let mut line: Value = serde_json::from_slice(line).unwrap();
                assert_eq!(line.as_object_mut().unwrap().remove("jsonrpc"), Some(json!("2.0")));
                line
            })
            .collect()
    }

    /// The methods that were written to the agent.
    pub(super) fn methods(&self) -> Vec<String> {
        let sent = self.sent();
        sent.iter().filter_map(|line| Some(line["method"].as_str()?.to_owned())).collect()
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn is_unparsed(&self) -> bool {
        matches!(self.out.events[..], [AgentEvent::Unparsed { .. }])
    }

    pub(super) fn notices(&self) -> Vec<&str> {
        let events = self.out.events.iter();
        events
            .filter_map(|event| match event {
                AgentEvent::Notice { text, .. } => Some(text.as_str()),
                _ => None,
            })
            .collect()
    }

    pub(super) fn failed_open(&self) -> (&str, bool) {
        match self.out.events.last() {
            Some(AgentEvent::OpenFailed { error, gone }) => (&error.code, *gone),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn turn_ended(&self) -> (TurnStatus, Option<&str>) {
        match self.out.events.last() {
            Some(AgentEvent::TurnEnded { status, error, .. }) => {
                (*status, error.as_ref().map(|error| error.code.as_str()))
            }
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn completed(&self) -> Vec<(&str, ItemStatus)> {
        let one = |event| match event {
            &AgentEvent::ItemCompleted { ref item, status, .. } => Some((item.as_str(), status)),
            _ => None,
        };
        self.out.events.iter().filter_map(one).collect()
    }
}

pub(super) fn initialized(capabilities: Value) -> Value {
    json!({"id": 1, "result": {"protocolVersion": 1, "agentCapabilities": capabilities}})
}

pub(super) fn turn(text: &str) -> Command {
    Command::StartTurn {
        turn_id: "turn_1".to_owned(),
        input: vec![Input::Text { text: text.to_owned() }],
        model: None,
        mode: None,
        reasoning_level: None,
        permission_mode: None,
    }
}

pub(super) fn settings() -> Value {
    json!({
        "modes": {"currentModeId": "default", "availableModes": [
            {"id": "default", "name": "Default"}, {"id": "plan", "name": "Plan"}]},
        "configOptions": [
            {"id": "model", "category": "model", "currentValue": "small",
                "options": [{"value": "small", "name": "Small"}, {"value": "large"}]},
            {"id": "effort", "currentValue": "low",
                "options": [{"value": "low"}, {"value": "high"}]},
        ],
    })
}
