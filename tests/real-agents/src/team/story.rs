//! The last step: what the team's view and the log tell, put side by side. Nothing of what the other steps saw counts.

use super::{Team, must, text, watch};
use gooselake_harness::stream::Record;
use serde_json::{Value, json};

/// What is told of the team, in two ways.
struct Story<'a> {
    view: &'a Value,
    log: Vec<Record>,
}

pub(super) fn check(team: &mut Team) -> Result<String, String> {
    let pages = format!("{}&limit=10000", watch::path(""));
    let log = team.client.get(&pages).expect(200).json();
    let log = log.as_array().ok_or("the log is a list")?;
    let log = log.iter().cloned().map(Record::new).collect();
    let story = Story { view: &team.view, log };
    let messages = story.messages()?;
    let mut deliveries = Vec::new();
    for message in messages {
        story.is_of_one_call(message)?;
        deliveries.extend(story.deliveries(message)?);
    }
    for delivery in &deliveries {
        story.is_injected_once(delivery)?;
        story.is_in_its_turn(delivery)?;
    }
    for member in [&team.lead, &team.builder, &team.reviewer] {
        story.is_in_order(member, &deliveries)?;
    }
    story.tells_of_the_members(team)?;
    story.tells_of_the_worktree(team)?;
    let (messages, deliveries) = (messages.len(), deliveries.len());
    Ok(format!("{messages} messages, {deliveries} deliveries, each once, in order, in its turn"))
}

impl Story<'_> {
    fn messages(&self) -> Result<&Vec<Value>, String> {
        let messages = self.view["messages"].as_array().ok_or("the view has messages")?;
        // The onboarding, 8 to the idle, 2 under each policy to the busy, 4 with results, 2 among members.
        let is_all = messages.len() == 1 + 8 + 8 + 4 + 2;
        must(is_all, "the view has every message", &json!(messages.len()))?;
        must(self.view["next_message_cursor"].is_null(), "on one page", self.view)?;
        let events = self.of_kind("team_message.created", |_| true);
        let told: Vec<&str> = events.iter().map(|e| text(&e.payload["message"], "id")).collect();
        let ids: Vec<&str> = messages.iter().map(|message| text(message, "id")).collect();
        must(told == ids, "the log has the same messages in the same order", &json!([told, ids]))?;
        Ok(messages)
    }

    fn of_kind(&self, kind: &str, wanted: impl Fn(&Record) -> bool) -> Vec<&Record> {
        self.log.iter().filter(|event| event.kind == kind && wanted(event)).collect()
    }

    /// An agent wrote it by one call of a tool, in a turn of its own.
    fn is_of_one_call(&self, message: &Value) -> Result<(), String> {
        let id = text(message, "id");
        let calls = self.of_kind("mcp.tool_called", |event| {
            let result = &event.payload["result"];
            result["message_id"] == id || result["onboarding"]["message_id"] == id
        });
        must(calls.len() == 1, "one call has made the message", message)?;
        let (call, payload) = (&calls[0].json, &calls[0].payload);
        let is_agents = payload["called_by"] == "agent" && payload["is_error"] == false;
        must(is_agents, "an agent has made the call", call)?;
        let is_own = call["session_id"] == message["sender_agent_id"];
        must(is_own, "the call is in the log of the sender", call)?;
        must(!self.start_of(&call["turn_id"]).is_empty(), "the call is of a turn", call)
    }

    fn deliveries(&self, message: &Value) -> Result<Vec<Value>, String> {
        let made = &self.view["deliveries_by_message_id"][text(message, "id")];
        let made = made.as_array().cloned().unwrap_or_default();
        let expected = if message["scope"] == "broadcast" { 2 } else { 1 };
        must(made.len() == expected, "each has one delivery for each recipient", message)?;
        Ok(made)
    }

    fn is_injected_once(&self, delivery: &Value) -> Result<(), String> {
        must(delivery["status"] == "injected", "it was delivered", delivery)?;
        let injections = self.injections(delivery);
        must(injections.len() == 1, "it was injected once", delivery)?;
        let injection = &injections[0].json;
        let is_same = injection["turn_id"] == delivery["injected_turn_id"];
        must(is_same, "the log names the turn that the view names", injection)?;
        let mark = format!("id=\"{}\"", text(delivery, "message_id"));
        let read = self.of_kind("item.completed", |event| {
            let item = &event.payload["item"];
            let is_heard = item["type"] == "user_message"
                && item["text"].to_string().contains(
                    // As it stands in JSON.
                    &mark.replace('"', "\\\""),
                );
            is_heard && event.json["session_id"] == delivery["recipient_agent_id"]
        });
        must(read.len() == 1, "its text was given to the agent once", delivery)?;
        let turn = &read[0].json["turn_id"];
        must(*turn == delivery["injected_turn_id"], "in that turn", &read[0].json)
    }

    fn injections(&self, delivery: &Value) -> Vec<&Record> {
        self.of_kind("team_delivery.injected", |event| {
            event.payload["delivery"]["id"] == delivery["id"]
        })
    }

    fn start_of(&self, turn: &Value) -> Vec<&Record> {
        self.of_kind("turn.started", |event| event.json["turn_id"] == *turn)
    }

    /// It began the turn, or joined one that ran.
    fn is_in_its_turn(&self, delivery: &Value) -> Result<(), String> {
        let turn = &delivery["injected_turn_id"];
        let starts = self.start_of(turn);
        must(starts.len() == 1, "its turn began once", delivery)?;
        let source = text(&starts[0].payload, "source");
        let joined = self.of_kind("turn.steered", |event| {
            event.json["turn_id"] == *turn && event.payload["source"] == "team"
        });
        let is_right = match text(delivery, "injection_strategy") {
            "runtime_send_turn" => source == "team",
            "runtime_steer_turn" => {
                let row = self.injections(delivery)[0].row_id;
                !joined.is_empty() && starts[0].row_id < row
            }
            _ => false,
        };
        must(is_right, "its strategy is what the log tells of the turn", delivery)
    }

    /// Of each recipient the deliveries were injected in the order in which they were made.
    fn is_in_order(&self, member: &str, deliveries: &[Value]) -> Result<(), String> {
        let own = deliveries.iter().filter(|delivery| delivery["recipient_agent_id"] == member);
        let rows: Vec<i64> = own.map(|delivery| self.injections(delivery)[0].row_id).collect();
        must(!rows.is_empty() && rows.is_sorted(), "in the order of writing", &json!(rows))
    }

    fn tells_of_the_members(&self, team: &Team) -> Result<(), String> {
        let wanted = [
            "team.created",
            "team.member_joined",
            "team_operation.started",
            "team.member_joined",
            "team_operation.completed",
            "team_operation.started",
            "team.member_left",
            "team_operation.completed",
            "team.deleted",
        ];
        let is_roster = |event: &&Record| {
            event.json["scope"] == "team" && wanted.contains(&event.kind.as_str())
        };
        let roster = self.log.iter().filter(is_roster);
        let told: Vec<&str> = roster.map(|event| event.kind.as_str()).collect();
        must(told == wanted, "who came and went, and why", &json!(told))?;
        let closed = self
            .of_kind("session.closed", |event| event.json["session_id"] == team.builder.as_str());
        let left = self.of_kind("team.member_left", |event| {
            event.payload["agent_id"] == team.builder.as_str()
        });
        must(closed.len() == 1 && left.len() == 1, "the spawned one has ended", &json!(told))
    }

    fn tells_of_the_worktree(&self, team: &Team) -> Result<(), String> {
        let of_it = self.log.iter().filter(|event| {
            event.json["scope"] == "worktree" && event.json["scope_id"] == team.worktree["id"]
        });
        let told: Vec<&Record> = of_it.collect();
        let kinds: Vec<&str> = told.iter().map(|event| event.kind.as_str()).collect();
        let wanted = ["worktree.created", "worktree.claimed", "worktree.released", "worktree.kept"];
        must(kinds == wanted, "the life of the worktree", &json!(kinds))?;
        let claim = &told[1].json;
        must(claim["session_id"] == team.builder.as_str(), "the builder's", claim)?;
        let kept = &told[3].payload;
        must(kept["dirty_count"] == 1, "kept for the one new file", kept)
    }
}
