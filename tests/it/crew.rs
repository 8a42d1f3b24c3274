//! A team on a stage: its members are sessions of the demo agent, and this is how stories about their mail are told.

use crate::stage::{SOON, Stage, list, records, text};
use gooselake_harness::client::Reply;
use gooselake_harness::stream::{Record, Stream};
use serde_json::{Map, Value, json};

pub(crate) struct Crew {
    pub(crate) id: String,
    /// The first one leads.
    pub(crate) members: Vec<String>,
}

impl Crew {
    /// A team of so many members whose agents ask nobody.
    pub(crate) fn new(stage: &Stage, size: usize) -> Crew {
        Crew::of(stage, (0..size).map(|_| stage.session()).collect())
    }

    pub(crate) fn of(stage: &Stage, members: Vec<String>) -> Crew {
        let body = json!({
            "name": "crew", "lead_agent_id": members[0], "member_agent_ids": members[1..],
        });
        let made = stage.client.post("/v1/teams", &body).expect(200).json();
        Crew { id: text(&made["team"], "id"), members }
    }

    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/v1/teams/{}/{rest}", self.id)
    }

    /// Asks to send a message from the lead to a member, with these fields on top.
    pub(crate) fn post(&self, stage: &Stage, to: usize, prompt: &str, fields: Value) -> Reply {
        let mut body = json!({
            "sender_agent_id": self.members[0], "recipient_agent_id": self.members[to],
            "input": [{"type": "text", "text": prompt}],
        });
        let fields: Map<String, Value> = serde_json::from_value(fields).unwrap();
        body.as_object_mut().unwrap().extend(fields);
        stage.client.post(&self.path("messages"), &body)
    }

    /// Sends a message that is accepted; gives its delivery.
    pub(crate) fn send(&self, stage: &Stage, to: usize, prompt: &str, fields: Value) -> Value {
        let ack = self.post(stage, to, prompt, fields).expect(200).json();
        assert_eq!(ack["disposition"], "created");
        assert_eq!(ack["deliveries"].as_array().unwrap().len(), 1, "{ack}");
        ack["deliveries"][0].clone()
    }

    /// The same with this policy.
    pub(crate) fn send_by(&self, stage: &Stage, to: usize, prompt: &str, policy: &str) -> Value {
        self.send(stage, to, prompt, json!({"policy": policy}))
    }

    /// Sends a broadcast of the lead; gives the answer.
    pub(crate) fn broadcast(&self, stage: &Stage, prompt: &str, fields: Value) -> Reply {
        let mut body = json!({"sender_agent_id": self.members[0], "input": [prompt]});
        let fields: Map<String, Value> = serde_json::from_value(fields).unwrap();
        body.as_object_mut().unwrap().extend(fields);
        stage.client.post(&self.path("broadcasts"), &body)
    }

    /// A delivery as it is now.
    pub(crate) fn delivery(&self, stage: &Stage, delivery: &Value) -> Value {
        let message_id = text(delivery, "message_id");
        let path = self.path(&format!("deliveries?message_id={message_id}"));
        let found = list(stage.get(&path)).into_iter().find(|found| found["id"] == delivery["id"]);
        found.unwrap()
    }

    pub(crate) fn stream(&self, stage: &Stage) -> Stream {
        stage.client.stream(&self.path("events/stream?control=false"), &[])
    }

    /// Waits until the delivery is told to be in this state with this field, and gives its record then.
    pub(crate) fn told(
        &self,
        stage: &Stage,
        delivery: &Value,
        status: &str,
        reason: &str,
    ) -> Value {
        let kind = format!("team_delivery.{status}");
        let id = text(delivery, "id");
        let mut stream = self.stream(stage);
        let seen = stream.until_match(&format!("{kind} {reason} of {id}"), SOON, |frame| {
            let record = frame.record();
            let told = &record.payload["delivery"];
            let is_reason = reason.is_empty() || told["deferred_reason"] == reason;
            record.kind == kind && told["id"] == id.as_str() && is_reason
        });
        seen.last().unwrap().record().payload["delivery"].clone()
    }

    /// Waits until the delivery is in a turn, and gives the turn's id.
    pub(crate) fn injected(&self, stage: &Stage, delivery: &Value) -> String {
        text(&self.told(stage, delivery, "injected", ""), "injected_turn_id")
    }

    /// Waits until it has failed, and gives the code.
    pub(crate) fn failed(&self, stage: &Stage, delivery: &Value) -> String {
        text(&self.told(stage, delivery, "failed", ""), "last_error_code")
    }

    /// The team's log so far.
    pub(crate) fn events(&self, stage: &Stage) -> Vec<Record> {
        let events = list(stage.get(&self.path("events?limit=10000")));
        events.into_iter().map(Record::new).collect()
    }

    /// The team's log up to the first event of the kind, that one included.
    pub(crate) fn until(&self, stage: &Stage, kind: &str) -> Vec<Record> {
        records(&self.stream(stage).until(kind, SOON))
    }
}

pub(crate) fn kinds(records: &[Record]) -> Vec<&str> {
    records.iter().map(|record| record.kind.as_str()).collect()
}

/// What the user's side of a turn says, text by text.
pub(crate) fn prompts(turn: &Value) -> Vec<String> {
    list(turn["input"].clone())
        .iter()
        .filter_map(|item| item["text"].as_str().map(str::to_owned))
        .collect()
}
