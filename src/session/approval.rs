//! Approvals: asked, answered once, withdrawn, run out.
//!
//! Runs on the session's thread. Two origins: the gate (before a prompt is sent) and the agent's own question in the
//! middle of a turn. The choice is committed together with the bytes that tell it to the agent.

use super::actor::{AGENT_TURN_QUIET, Actor, Choice, Decision, LiveApproval};
use super::command::Answer;
use super::step::Step;
use crate::error::{Error, Result};
use crate::ledger::approval::{self, ApprovalRecord, NewApproval, Resolution};
use crate::ledger::to_json;
use crate::limits;
use crate::model::event::EventKind;
use crate::model::input::joined_text;
use crate::model::{ApprovalOrigin, ApprovalStatus, OptionKind, TurnStatus, id};
use crate::provider::{self, Adapter, ApprovalOption, Command, Effects};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Instant;

/// What a gate offers.
const GATE_ACCEPT: &str = "accept";
const GATE_DECLINE: &str = "decline";
/// What is answered when nobody does.
const DECLINE: Choice = Choice::Meant { is_accept: false, is_session: false };

impl Actor {
    /// Asks a person whether the turn may be sent to the agent at all.
    pub(super) fn ask_gate(&mut self, step: &mut Step) {
        let Some(turn) = &mut self.state.turn else { return };
        let approval_id = id::new("apr");
        turn.gate = Some(approval_id.clone());
        let text = joined_text(&turn.input);
        let cut = text.floor_char_boundary(2000);
        let subject = json!({"type": "other", "prompt": &text[..cut]});
        let options = json!([
            {"id": GATE_ACCEPT, "label": "Send it to the agent", "kind": "allow_once"},
            {"id": GATE_DECLINE, "label": "Do not send it", "kind": "reject_once"},
        ]);
        let turn_id = Arc::clone(&turn.turn_id);
        let asked = Asked {
            approval_id,
            origin: ApprovalOrigin::Gate,
            title: "This session asks before each turn is sent to the agent".to_owned(),
            subject: subject.to_string(),
            options: options.to_string(),
            item_id: None,
            adapter_key: None,
        };
        self.insert_approval(asked, turn_id, step);
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the fields of AgentEvent::ApprovalAsked, unpacked"
    )]
    pub(super) fn approval_asked(
        &mut self,
        key: String,
        item: Option<String>,
        title: String,
        subject: Map<String, Value>,
        options: Vec<ApprovalOption>,
        adapter: &mut Box<dyn Adapter>,
        step: &mut Step,
    ) {
        let turn = self.state.turn.as_ref().map(|turn| Arc::clone(&turn.turn_id));
        let is_full = self.state.approvals.len() >= limits::PENDING_APPROVALS;
        let (Some(turn_id), false) = (turn, is_full) else {
            let mut effects = Effects::default();
            let answer = provider::Answer::Cancelled;
            adapter.command(Command::Answer { key, answer }, &mut effects);
            return self.apply_all(&mut effects, adapter, step);
        };
        let item_id =
            item.and_then(|item| self.state.items.get(&item)).map(|item| item.item_id.to_string());
        let approval_id = id::new("apr");
        let id: Arc<str> = Arc::clone(&turn_id);
        step.change(move |tx| tx.set_turn_status(&id, TurnStatus::WaitingForApproval));
        let asked = Asked {
            approval_id,
            origin: ApprovalOrigin::Tool,
            title,
            subject: to_json(&subject),
            options: to_json(&options),
            item_id,
            adapter_key: Some(key),
        };
        self.insert_approval(asked, turn_id, step);
    }

    fn insert_approval(&mut self, asked: Asked, turn_id: Arc<str>, step: &mut Step) {
        let timeout = self.shared.config.approval_timeout;
        let expires_at = timeout.map(|timeout| {
            id::now_ms() + i64::try_from(timeout.as_millis()).unwrap_or(i64::MAX / 2)
        });
        let live = LiveApproval {
            adapter_key: asked.adapter_key.clone().unwrap_or_default(),
            expires_at: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        };
        self.state.approvals.insert(asked.approval_id.clone(), live);
        let (session_key, turn) = (self.session_key, Arc::clone(&turn_id));
        let (kind, approval_id) = (EventKind::ApprovalRequested, asked.approval_id.clone());
        step.change(move |tx| {
            tx.insert_approval(&NewApproval {
                approval_id: &asked.approval_id,
                session_key,
                turn_id: &turn,
                origin: asked.origin,
                title: &asked.title,
                subject: &asked.subject,
                options: &asked.options,
                item_id: asked.item_id.as_deref(),
                adapter_key: asked.adapter_key.as_deref(),
                expires_at,
            })
        });
        self.tell_approval(kind, turn_id, approval_id, step);
    }

    /// An event with the whole record, as the transaction has it by then.
    fn tell_approval(
        &self,
        kind: EventKind,
        turn_id: Arc<str>,
        approval_id: String,
        step: &mut Step,
    ) {
        step.is_visible = true;
        let provider = step.agent_offset.map(|offset| (Arc::clone(&self.provider), offset));
        let session_id = Arc::clone(&self.session_id);
        step.change(move |tx| {
            let record = tx.approval(&approval_id)?;
            let payload = format!(
                "{{\"approval_id\":{},\"approval\":{}}}",
                to_json(&approval_id),
                to_json(&record)
            );
            let from =
                provider.as_ref().map(|(name, offset)| (&**name, super::step::offset_of(*offset)));
            let event = crate::ledger::event::NewEvent::session(&session_id, kind, payload);
            tx.append(event.turn(&turn_id).provider(from)).map(|_seq| ())
        });
    }

    /// A client's answer.
    pub(super) fn decide(&mut self, approval_id: &str, decision: Decision, answer: &Answer<()>) {
        let outcome = self.try_decide(approval_id, decision);
        drop(answer.send(outcome));
        self.start_next();
    }

    fn try_decide(&mut self, approval_id: &str, decision: Decision) -> Result<()> {
        self.ready_for_commands()?;
        let record = self.shared.ledger.read(|db| approval::get(db, approval_id))?;
        // Two answers may be on their way at once; the second must not cost the session its copy of the ledger.
        record.check_pending()?;
        let options: Vec<ApprovalOption> =
            serde_json::from_str(record.options.get()).unwrap_or_default();
        let option = choose(&options, &decision.choice)?;
        let is_accept = !is_refusal(&option);
        let status = if is_accept { ApprovalStatus::Accept } else { ApprovalStatus::Decline };
        let is_always = matches!(
            option.option_kind(),
            Some(OptionKind::AllowAlways | OptionKind::RejectAlways)
        );
        let mut response = decision.payload.clone().unwrap_or(Value::Null);
        if let (Some(message), Value::Null) = (&decision.message, &response) {
            response = json!({"message": message});
        }
        let resolution = Resolution {
            decision: Some(option.id.clone()),
            scope: Some(if is_always { "session" } else { "once" }.to_owned()),
            decided_by: Some("user".to_owned()),
            response: (!response.is_null()).then(|| response.to_string()),
            withdrawn_reason: None,
        };
        let mut step = self.step();
        let live = self.state.approvals.remove(approval_id);
        self.resolve(&record, status, resolution, EventKind::ApprovalResolved, &mut step);
        if record.origin == ApprovalOrigin::Gate.as_str() {
            self.gate_decided(is_accept, decision, &mut step);
        } else if let Some(live) = live {
            self.back_to_progress(&mut step);
            let (option_id, message) = (option.id.clone(), decision.message);
            let answer = provider::Answer::Option { option_id, message, payload: decision.payload };
            self.command(Command::Answer { key: live.adapter_key, answer }, &mut step);
        }
        self.commit(step)?;
        self.after_output();
        Ok(())
    }

    fn gate_decided(&mut self, is_accept: bool, decision: Decision, step: &mut Step) {
        if !is_accept {
            return self.end_gated(ApprovalStatus::Decline, step);
        }
        let Some(turn) = &mut self.state.turn else { return };
        turn.gate = None;
        let turn_id = Arc::clone(&turn.turn_id);
        if let Some(input) = decision.input {
            let (stored, id) = (to_json(&input), Arc::clone(&turn_id));
            turn.input = input;
            step.change(move |tx| tx.set_turn_input(&id, &stored));
        }
        step.change(move |tx| tx.set_turn_status(&turn_id, TurnStatus::InProgress));
        self.tell_start(Some("approval.accepted"), step);
        self.dispatch(step);
    }

    /// Writes the end of an approval down and tells it. The condition in the statement makes it once.
    fn resolve(
        &mut self,
        record: &ApprovalRecord,
        status: ApprovalStatus,
        resolution: Resolution,
        kind: EventKind,
        step: &mut Step,
    ) {
        let approval_id = record.id.clone();
        let turn_id: Arc<str> = Arc::from(record.turn_id.as_str());
        step.change(move |tx| tx.resolve_approval(&approval_id, status, &resolution));
        self.tell_approval(kind, turn_id, record.id.clone(), step);
    }

    /// The turn waits no more when nobody has to be asked.
    fn back_to_progress(&mut self, step: &mut Step) {
        let Some(turn) = &mut self.state.turn else { return };
        if self.state.approvals.is_empty() && turn.gate.is_none() {
            // The agent has only now heard.
            turn.quiet_at = turn.quiet_at.map(|_| Instant::now() + AGENT_TURN_QUIET);
            let turn_id = Arc::clone(&turn.turn_id);
            step.change(move |tx| tx.set_turn_status(&turn_id, TurnStatus::InProgress));
        }
    }

    /// The agent does not wait for an answer any more.
    pub(super) fn approval_withdrawn(&mut self, key: &str, reason: &str, step: &mut Step) {
        let found = self
            .state
            .approvals
            .iter()
            .find(|(_, live)| live.adapter_key == key)
            .map(|(approval_id, _)| approval_id.clone());
        if let Some(approval_id) = found {
            self.withdraw(&approval_id, reason, step);
            self.back_to_progress(step);
        }
    }

    /// Nobody can answer what is still open in the turn.
    pub(super) fn withdraw_all(&mut self, reason: &str, step: &mut Step) {
        let mut open: Vec<String> = self.state.approvals.keys().cloned().collect();
        open.sort();
        for approval_id in open {
            self.withdraw(&approval_id, reason, step);
        }
        if let Some(turn) = &mut self.state.turn {
            turn.gate = None;
        }
    }

    /// Those that the agent has asked for; a gate is not its own.
    pub(super) fn withdraw_asked(&mut self, reason: &str, step: &mut Step) {
        let gate = self.state.turn.as_ref().and_then(|turn| turn.gate.clone());
        let mut asked: Vec<String> = self.state.approvals.keys().cloned().collect();
        asked.retain(|approval_id| Some(approval_id) != gate.as_ref());
        asked.sort();
        let has_asked = !asked.is_empty();
        for approval_id in asked {
            self.withdraw(&approval_id, reason, step);
        }
        if has_asked {
            self.back_to_progress(step);
        }
    }

    fn withdraw(&mut self, approval_id: &str, reason: &str, step: &mut Step) {
        self.state.approvals.remove(approval_id);
        let Some(turn) = &self.state.turn else { return };
        let turn_id = Arc::clone(&turn.turn_id);
        let resolution =
            Resolution { withdrawn_reason: Some(reason.to_owned()), ..Resolution::default() };
        let id = approval_id.to_owned();
        step.change(move |tx| tx.resolve_approval(&id, ApprovalStatus::Withdrawn, &resolution));
        let kind = EventKind::ApprovalWithdrawn;
        self.tell_approval(kind, turn_id, approval_id.to_owned(), step);
    }

    /// Whether the time of an approval is over.
    pub(super) fn is_expiry_due(&self) -> bool {
        self.next_expiry().is_some_and(|at| at <= Instant::now())
    }

    pub(super) fn next_expiry(&self) -> Option<Instant> {
        self.state.approvals.values().filter_map(|live| live.expires_at).min()
    }

    /// Approvals whose time is over are declined, as `approvals.on_timeout` says.
    pub(super) fn expire_approvals(&mut self) {
        let now = Instant::now();
        let mut due: Vec<String> = self
            .state
            .approvals
            .iter()
            .filter(|(_, live)| live.expires_at.is_some_and(|at| at <= now))
            .map(|(approval_id, _)| approval_id.clone())
            .collect();
        due.sort();
        for approval_id in due {
            if let Err(error) = self.expire(&approval_id) {
                log::warn!("approval {approval_id} is over its time, but: {error}");
                self.unreadable(&error);
                return;
            }
        }
        self.start_next();
    }

    fn expire(&mut self, approval_id: &str) -> Result<()> {
        let record = self.shared.ledger.read(|db| approval::get(db, approval_id))?;
        let Some(live) = self.state.approvals.remove(approval_id) else { return Ok(()) };
        let mut step = self.step();
        let options: Vec<ApprovalOption> =
            serde_json::from_str(record.options.get()).unwrap_or_default();
        let option = choose(&options, &DECLINE).ok();
        let resolution = Resolution {
            decision: option.as_ref().map(|option| option.id.clone()),
            decided_by: Some("timeout".to_owned()),
            ..Resolution::default()
        };
        let (status, kind) = (ApprovalStatus::Expired, EventKind::ApprovalExpired);
        self.resolve(&record, status, resolution, kind, &mut step);
        if record.origin == ApprovalOrigin::Gate.as_str() {
            self.end_gated(status, &mut step);
        } else {
            self.back_to_progress(&mut step);
            let answer = match option {
                Some(option) => {
                    let option_id = option.id;
                    provider::Answer::Option { option_id, message: None, payload: None }
                }
                None => provider::Answer::Cancelled,
            };
            self.command(Command::Answer { key: live.adapter_key, answer }, &mut step);
        }
        self.commit(step)?;
        self.after_output();
        Ok(())
    }
}

/// An approval on its way into the ledger.
struct Asked {
    approval_id: String,
    origin: ApprovalOrigin,
    title: String,
    subject: String,
    options: String,
    item_id: Option<String>,
    adapter_key: Option<String>,
}

/// Whether the choice of this option is a no. The agent is told that it was chosen, so one of a kind that is not known
/// here, which only its id can name, is none.
fn is_refusal(option: &ApprovalOption) -> bool {
    option.kind.starts_with("reject")
}

/// The offered option that is meant: the named one, or the one of the fitting kind.
fn choose(options: &[ApprovalOption], choice: &Choice) -> Result<ApprovalOption> {
    let offered = || {
        let ids: Vec<String> =
            options.iter().map(|option| format!("{:?} ({})", option.id, option.kind)).collect();
        format!("the agent offers {}", ids.join(", "))
    };
    let (is_accept, is_session) = match choice {
        Choice::Meant { is_accept, is_session } => (*is_accept, *is_session),
        Choice::Option(option_id) => {
            let named = options.iter().find(|option| option.id == *option_id);
            return named.cloned().ok_or_else(|| {
                Error::bad_request(format!("option_id {option_id:?} is not offered"))
                    .hint(offered())
            });
        }
    };
    let wanted: &[OptionKind] = match (is_accept, is_session) {
        (true, true) => &[OptionKind::AllowAlways],
        // Without a scope the narrowest permission is given, never more than was asked for.
        (true, false) => &[OptionKind::AllowOnce],
        (false, true) => &[OptionKind::RejectAlways, OptionKind::RejectOnce],
        (false, false) => &[OptionKind::RejectOnce, OptionKind::RejectAlways],
    };
    wanted
        .iter()
        .find_map(|kind| options.iter().find(|option| option.option_kind() == Some(*kind)))
        .cloned()
        .ok_or_else(|| {
            let what = if is_accept { "accept" } else { "decline" };
            let scope = if is_session { "session" } else { "once" };
            Error::bad_request(format!("no offered option means {what} with scope {scope:?}"))
                .hint(format!("{}; name one with option_id", offered()))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(id: &str, kind: &str) -> ApprovalOption {
        ApprovalOption { id: id.to_owned(), label: id.to_owned(), kind: kind.to_owned() }
    }

    #[test]
    fn accept_gives_the_narrowest_permission() {
        let options = [option("always", "allow_always"), option("once", "allow_once")];
        let accept = |is_session| {
            choose(&options, &Choice::Meant { is_accept: true, is_session }).unwrap().id
        };
        assert_eq!(accept(false), "once");
        assert_eq!(accept(true), "always");
    }

    #[test]
    fn an_option_of_an_unknown_kind_is_named_and_is_no_refusal() {
        let options = [option("later", "defer_once"), option("never", "reject_for_good")];
        for (id, is_no) in [("later", false), ("never", true)] {
            let chosen = choose(&options, &Choice::Option(id.to_owned())).unwrap();
            assert_eq!(is_refusal(&chosen), is_no, "{id}");
        }
        for is_accept in [true, false] {
            let meant = Choice::Meant { is_accept, is_session: false };
            assert!(choose(&options, &meant).is_err(), "nobody knows what they mean");
        }
        for (kind, is_no) in [
            ("allow_once", false),
            ("allow_always", false),
            ("reject_once", true),
            ("reject_always", true),
            ("", false),
        ] {
            assert_eq!(is_refusal(&option("o", kind)), is_no, "{kind}");
        }
    }

    #[test]
    fn an_option_that_is_not_offered_is_named_with_those_that_are() {
        let options = [option("once", "allow_once")];
        let error = choose(&options, &Choice::Option("x".to_owned())).unwrap_err();
        assert!(error.to_string().contains("\"once\" (allow_once)"), "{error}");
    }
}
