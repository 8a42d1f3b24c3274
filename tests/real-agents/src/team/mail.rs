//! The steps of the story in which mail goes: under each policy, to members that are idle and to members that are busy.
//!
//! Claude takes input while a turn runs, OpenCode does not: what joins the turn of the one ends that of the other.

use super::{COMMAND_TIME, Team, call, must, text, wait};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::Path;

const WAITS: &str = "non_interrupting";
const OWN_TURN: &str = "start_new_turn_only";
const BOUNDARY: &str = "interrupt_after_tool_boundary";
const AT_ONCE: &str = "immediate_interrupt";

/// What a command waits on until somebody writes into it.
const FIFO: &str = "go-on";

/// Messages of the lead to the busy: to the builder alone, and to both.
struct Letters {
    direct: String,
    broadcast: String,
}

/// The turns that the two members are busy with.
struct Busy {
    builder: String,
    reviewer: String,
}

impl Team {
    /// Has an agent write through the gateway; gives the messages' ids.
    fn write(&mut self, from: &str, letters: &[Value]) -> Result<Vec<String>, String> {
        let lines: Vec<String> = letters.iter().map(|letter| self.letter(letter)).collect();
        let calls = self.told(from, &lines.join("\n"))?;
        let mut ids = Vec::new();
        for made in calls {
            must(made["is_error"] == false, "the gateway takes the message", &made)?;
            ids.push(text(&made["result"], "message_id").to_owned());
        }
        Ok(ids)
    }

    fn letter(&self, letter: &Value) -> String {
        let mut arguments = letter.clone();
        arguments["team_id"] = json!(self.id);
        call("gg_team_message", &arguments)
    }

    /// The turn of an idle member that carries the message, once it is over.
    fn read_at_once(&mut self, message: &str, to: &str, words: &str) -> Result<(), String> {
        let delivery = self.injected(message, to)?;
        let is_plain = delivery["injection_strategy"] == "runtime_send_turn"
            && delivery["deferred_reason"].is_null();
        must(is_plain, "an idle member has it at once, as a turn", &delivery)?;
        let end = self.completed(text(&delivery, "injected_turn_id"))?;
        must(text(&end.payload, "assistant_text") == words, "it is read", &end.payload)
    }

    /// The lead writes to the builder, and to all.
    fn write_to_the_busy(&mut self, policy: &str) -> Result<Letters, String> {
        let (lead, builder) = (self.lead.clone(), self.builder.clone());
        let letters = [(builder.as_str(), "alone"), ("broadcast", "all")].map(|(to, whom)| {
            let message = format!("SAY {policy}, {whom}, busy");
            json!({"recipient_agent_id": to, "policy": policy, "message": message})
        });
        let mut ids = self.write(&lead, &letters)?.into_iter();
        let mut next = || ids.next().unwrap_or_default();
        Ok(Letters { direct: next(), broadcast: next() })
    }

    /// Both members say one word, and then nothing until the gate opens.
    fn hold(&mut self) -> Result<Busy, String> {
        let (builder, reviewer) = (self.builder.clone(), self.reviewer.clone());
        let busy =
            Busy { builder: self.say(&builder, "HOLD")?, reviewer: self.say(&reviewer, "HOLD")? };
        self.speaks(&busy.builder)?;
        self.speaks(&busy.reviewer)?;
        Ok(busy)
    }

    /// Waits for the first word of a turn.
    fn speaks(&mut self, turn: &str) -> Result<(), String> {
        let found = self.watch.find(&format!("a word of {turn}"), |event| {
            event.kind == "item.started"
                && event.json["turn_id"] == turn
                && event.payload["item"]["type"] == "assistant_message"
        });
        found.map(drop)
    }

    /// The agent runs a command that waits; behind it the model waits, too.
    fn run_and_wait(&mut self, session: &str, folder: &Path) -> Result<String, String> {
        let prompt = format!("BASH mkfifo {FIFO}; read word < {FIFO}; echo $word\nHOLD");
        let turn = self.say(session, &prompt)?;
        self.watch.find(&format!("the question of {turn}"), |event| {
            event.kind == "approval.resolved" && event.json["turn_id"] == turn.as_str()
        })?;
        let fifo = folder.join(FIFO);
        let runs = wait::try_until(COMMAND_TIME, || fifo.exists().then_some(()));
        must(runs.is_some(), "the command runs", &json!(fifo))?;
        Ok(turn)
    }

    /// Lets such a command end, and waits until the agent has told that it did.
    fn let_go(&mut self, turn: &str, folder: &Path) -> Result<(), String> {
        let fifo = folder.join(FIFO);
        // Open for both, it does not wait for the other side, and keeps the word until that has come.
        let open = fs::OpenOptions::new().read(true).write(true).open(&fifo);
        let mut open = open.map_err(|error| format!("{}: {error}", fifo.display()))?;
        writeln!(open, "released").map_err(|error| error.to_string())?;
        self.watch.find(&format!("the end of the command of {turn}"), |event| {
            let item = &event.payload["item"];
            event.kind == "item.completed"
                && event.json["turn_id"] == turn
                && matches!(text(item, "type"), "command" | "tool_call")
        })?;
        fs::remove_file(&fifo).map_err(|error| error.to_string())
    }

    /// Mail has joined the turn of the one and ended that of the other, and both have read it.
    fn joined_and_ended(&mut self, busy: &Busy, letters: &Letters) -> Result<(), String> {
        let (builder, reviewer) = (self.builder.clone(), self.reviewer.clone());
        let first = self.injected(&letters.direct, &builder)?;
        let is_joined = first["injection_strategy"] == "runtime_steer_turn"
            && first["injected_turn_id"] == busy.builder.as_str();
        must(is_joined, "it joins the turn of the agent that takes input", &first)?;
        let other = self.injected(&letters.broadcast, &reviewer)?;
        must(other["injection_strategy"] == "runtime_send_turn", "it has its turn", &other)?;
        let cut = self.ended(&busy.reviewer)?;
        must(cut.kind == "turn.interrupted", "the turn makes way for it", &cut.json)?;
        let end = self.completed(text(&other, "injected_turn_id"))?;
        let said = text(&end.payload, "assistant_text");
        must(said.ends_with("all, busy"), "it is read", &end.payload)?;
        self.speaks(&busy.builder)?;
        let second = self.injected(&letters.broadcast, &builder)?;
        self.mock.open_gate();
        self.completed(&busy.builder)?;
        let end = self.completed(text(&second, "injected_turn_id"))?;
        let said = text(&end.payload, "assistant_text");
        must(said.ends_with("all, busy"), "the last is read last", &end.payload)
    }

    /// All of the mail waits, the gate opens, and the turns complete; gives the builder's two deliveries.
    fn waited(&mut self, busy: &Busy, letters: &Letters) -> Result<[Value; 2], String> {
        let (builder, reviewer) = (self.builder.clone(), self.reviewer.clone());
        let all = [
            (&letters.direct, &builder, "turn_running"),
            (&letters.broadcast, &reviewer, "turn_running"),
            (&letters.broadcast, &builder, "mail_ahead"),
        ];
        for (message, to, reason) in all {
            let delivery = self.delivery(message, to, "deferred")?;
            must(delivery["deferred_reason"] == reason, "it says why it waits", &delivery)?;
        }
        self.mock.open_gate();
        self.completed(&busy.builder)?;
        self.completed(&busy.reviewer)?;
        let mut deliveries = Vec::new();
        for (message, to, _) in all {
            let delivery = self.injected(message, to)?;
            must(delivery["injection_strategy"] == "runtime_send_turn", "a turn", &delivery)?;
            self.completed(text(&delivery, "injected_turn_id"))?;
            deliveries.push(delivery);
        }
        // The reviewer's is between them.
        Ok([deliveries.swap_remove(0), deliveries.swap_remove(0)])
    }
}

pub(super) fn to_the_idle(team: &mut Team) -> Result<String, String> {
    let (lead, builder, reviewer) =
        (team.lead.clone(), team.builder.clone(), team.reviewer.clone());
    for policy in [WAITS, OWN_TURN, BOUNDARY, AT_ONCE] {
        let words = format!("{policy}, alone, idle");
        let letter = json!({"recipient_agent_id": reviewer, "policy": policy,
            "message": format!("SAY {words}")});
        let message = team.write(&lead, &[letter])?.swap_remove(0);
        team.read_at_once(&message, &reviewer, &words)?;
        let words = format!("{policy}, all, idle");
        let letter = json!({"recipient_agent_id": "broadcast", "policy": policy,
            "message": format!("SAY {words}")});
        let message = team.write(&lead, &[letter])?.swap_remove(0);
        team.read_at_once(&message, &builder, &words)?;
        team.read_at_once(&message, &reviewer, &words)?;
    }
    Ok("direct and to all, under each policy, at once".to_owned())
}

pub(super) fn waits_and_shares(team: &mut Team) -> Result<String, String> {
    let busy = team.hold()?;
    let letters = team.write_to_the_busy(WAITS)?;
    let [direct, all] = team.waited(&busy, &letters)?;
    let is_shared = direct["injected_turn_id"] == all["injected_turn_id"];
    must(is_shared, "what waited shares a turn", &json!([direct, all]))?;
    Ok("two messages in one turn behind the running one".to_owned())
}

pub(super) fn waits_for_its_own(team: &mut Team) -> Result<String, String> {
    let busy = team.hold()?;
    let letters = team.write_to_the_busy(OWN_TURN)?;
    let [direct, all] = team.waited(&busy, &letters)?;
    let is_shared = direct["injected_turn_id"] == all["injected_turn_id"];
    must(!is_shared, "each has a turn of its own", &json!([direct, all]))?;
    Ok("two messages, two turns, in order".to_owned())
}

pub(super) fn at_a_tool_boundary(team: &mut Team) -> Result<String, String> {
    let (builder, reviewer) = (team.builder.clone(), team.reviewer.clone());
    let (worktree, repo) = (team.worktree_path(), team.repo.clone());
    let busy = Busy {
        builder: team.run_and_wait(&builder, &worktree)?,
        reviewer: team.run_and_wait(&reviewer, &repo)?,
    };
    let letters = team.write_to_the_busy(BOUNDARY)?;
    for (message, to) in [(&letters.direct, &builder), (&letters.broadcast, &reviewer)] {
        let delivery = team.delivery(message, to, "deferred")?;
        let waits = delivery["deferred_reason"] == "tool_running";
        must(waits, "it waits for the command", &delivery)?;
    }
    team.let_go(&busy.builder, &worktree)?;
    team.let_go(&busy.reviewer, &repo)?;
    team.joined_and_ended(&busy, &letters)?;
    Ok("behind the command: joined Claude's turn, ended OpenCode's".to_owned())
}

pub(super) fn at_once(team: &mut Team) -> Result<String, String> {
    let busy = team.hold()?;
    let letters = team.write_to_the_busy(AT_ONCE)?;
    team.joined_and_ended(&busy, &letters)?;
    Ok("in mid-speech: joined Claude's turn, ended OpenCode's".to_owned())
}

pub(super) fn results(team: &mut Team) -> Result<String, String> {
    let (lead, builder, reviewer) =
        (team.lead.clone(), team.builder.clone(), team.reviewer.clone());
    // The order to report is itself a message, and so is the report.
    let report = team.letter(&json!({"recipient_agent_id": lead, "message": "SAY heard"}));
    let order = json!({"recipient_agent_id": "broadcast", "message": report});
    let order = team.write(&lead, &[order])?.swap_remove(0);
    for member in [&builder, &reviewer] {
        let turn = text(&team.injected(&order, member)?, "injected_turn_id").to_owned();
        team.completed(&turn)?;
        let called = team.watch.find("the report", |event| {
            event.kind == "mcp.tool_called" && event.json["turn_id"] == turn.as_str()
        })?;
        must(called.payload["is_error"] == false, "it is sent", &called.payload)?;
        let result = text(&called.payload["result"], "message_id").to_owned();
        let heard = team.injected(&result, &lead)?;
        let end = team.completed(text(&heard, "injected_turn_id"))?;
        let said = text(&end.payload, "assistant_text");
        must(said.ends_with("heard"), "the lead reads it", &end.payload)?;
    }
    // A lead that is busy is not disturbed,.
    let held = team.say(&lead, "HOLD")?;
    team.speaks(&held)?;
    let letter =
        json!({"recipient_agent_id": lead, "policy": OWN_TURN, "message": "SAY heard later"});
    let late = team.write(&builder, &[letter])?.swap_remove(0);
    let delivery = team.delivery(&late, &lead, "deferred")?;
    must(delivery["deferred_reason"] == "turn_running", "it waits", &delivery)?;
    team.mock.open_gate();
    team.completed(&held)?;
    let delivery = team.injected(&late, &lead)?;
    let end = team.completed(text(&delivery, "injected_turn_id"))?;
    must(text(&end.payload, "assistant_text") == "heard later", "it is read", &end.payload)?;
    Ok("from both, while the lead was idle and while it was busy".to_owned())
}

pub(super) fn among_members(team: &mut Team) -> Result<String, String> {
    let (lead, builder, reviewer) =
        (team.lead.clone(), team.builder.clone(), team.reviewer.clone());
    let letter = json!({"recipient_agent_id": builder, "message": "SAY reviewed"});
    let message = team.write(&reviewer, &[letter])?.swap_remove(0);
    team.read_at_once(&message, &builder, "reviewed")?;
    let letter = json!({"recipient_agent_id": "Broadcast", "priority": "high",
        "reply_to_message_id": message, "message": "SAY thanks to all"});
    let message = team.write(&builder, &[letter])?.swap_remove(0);
    team.read_at_once(&message, &lead, "thanks to all")?;
    team.read_at_once(&message, &reviewer, "thanks to all")?;
    let letter = json!({"recipient_agent_id": lead, "policy": AT_ONCE, "message": "SAY now"});
    let refused = team.told(&builder, &team.letter(&letter))?;
    let is_refused = refused[0]["error"]["code"] == "unauthorized";
    must(is_refused, "only the lead interrupts", &refused[0])?;
    Ok("direct and to all; an interrupt of the lead refused".to_owned())
}
