//! What Codex tells without being asked.
//!
//! Owns: the sorting of its notifications: items, turns, plans, usage, settings, notices. Some are known and
//! harmless, by a list; what is on no list is kept as not understood, so that a newer Codex loses nothing silently.

use super::open::{is_usable, told_word};
use super::turn::turn_error;
use super::{Codex, body, notice, unparsed};
use crate::provider::rpc::{KEPT_BYTES_MAX, cut, list, object, text};
use crate::provider::sent::hash;
use crate::provider::{AgentEvent, Effects};
use serde_json::{Map, Value, json};

/// Known, and nothing that a person has to hear or that is not told in another way.
const HARMLESS: &[&str] = &[
    "account/login/completed",
    "account/updated",
    "app/list/updated",
    "command/exec/outputDelta",
    "deprecationNotice",
    "hook/completed",
    "hook/started",
    "item/commandExecution/terminalInteraction",
    "item/fileChange/outputDelta",
    "model/safetyBuffering/updated",
    "model/verification",
    "modelProvider/authRecoveryCompleted",
    "process/exited",
    "process/outputDelta",
    "project/changed",
    "rawResponse/completed",
    "rawResponseItem/completed",
    "remoteControl/status/changed",
    "skills/changed",
    "thread/archived",
    "thread/attachment/updated",
    "thread/closed",
    // The item contextCompaction tells the same.
    "thread/compacted",
    "thread/environment/connected",
    "thread/environment/disconnected",
    "thread/goal/cleared",
    "thread/goal/updated",
    "thread/prediction/updated",
    "thread/project/updated",
    "thread/queue/changed",
    "thread/readState/changed",
    "thread/section/changed",
    "thread/started",
    "thread/status/changed",
    "thread/unarchived",
    // The changes are in the items.
    "turn/diff/updated",
    "turn/moderationMetadata",
];
/// Notices that are remembered, so that none is told at every turn.
const TOLD_MAX: usize = 32;
/// Entries of a plan.
const PLAN_MAX: usize = 200;

impl Codex {
    pub(super) fn notification(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        line: &[u8],
        out: &mut Effects,
    ) {
        if method == "serverRequest/resolved" {
            // Also of a sub-agent's thread, whose questions are told.
            return self.resolved(params.get("requestId"), out);
        }
        let thread = params.get("threadId").and_then(Value::as_str);
        if thread.is_some_and(|thread| self.is_anothers(thread)) {
            return;
        }
        match method {
            "item/started" => self.item_told(params, false, line, out),
            "item/completed" => self.item_told(params, true, line, out),
            "item/reasoning/summaryPartAdded" => self.summary_part(params, out),
            "item/fileChange/patchUpdated" => {
                let changes = body::changes(params);
                self.set(text(params, "itemId"), "changes", changes, out);
            }
            "item/mcpToolCall/progress" => {
                let message = json!(cut(text(params, "message"), KEPT_BYTES_MAX));
                self.set(text(params, "itemId"), "progress", message, out);
            }
            "turn/started" => self.turn_started(params, out),
            "turn/completed" => self.turn_completed(params, out),
            "turn/plan/updated" => plan(params, out),
            "thread/tokenUsage/updated" => self.token_usage(params, out),
            "thread/settings/updated" => self.settings_told(params, out),
            "thread/name/updated" => {
                let title = text(params, "threadName").to_owned();
                if !title.is_empty() {
                    out.events.push(AgentEvent::TitleChanged { title });
                }
            }
            "account/rateLimits/updated" => self.rate_limits_told(params, out),
            "error" => self.error_told(params, out),
            _ if HARMLESS.contains(&method) => {}
            _ if self.notice_told(method, params, out) => {}
            _ => unparsed(line, out),
        }
    }

    /// What a person should hear; false for a notification that is none of these.
    fn notice_told(
        &mut self,
        method: &str,
        params: &Map<String, Value>,
        out: &mut Effects,
    ) -> bool {
        let said = match method {
            "warning" | "guardianWarning" | "modelProvider/authRecoveryStarted" => {
                text(params, "message").to_owned()
            }
            "configWarning" => {
                let summary = text(params, "summary");
                // Codex brings one of its own and says so at each start.
                if summary.contains("bubblewrap") {
                    return true;
                }
                summary.to_owned()
            }
            "model/rerouted" => format!(
                "{} answers instead of {}",
                text(params, "toModel"),
                text(params, "fromModel")
            ),
            "mcpServer/startupStatus/updated" => {
                if text(params, "status") != "failed" {
                    return true;
                }
                format!(
                    "the MCP server {} did not start: {}",
                    text(params, "name"),
                    text(params, "error")
                )
            }
            "mcpServer/oauthLogin/completed" => return true,
            _ => return false,
        };
        self.say_once(&said, out);
        true
    }

    /// Tells a person, unless the same was told a short while ago.
    fn say_once(&mut self, said: &str, out: &mut Effects) {
        let hash = hash(said);
        if said.is_empty() || self.state.told.contains(&hash) {
            return;
        }
        if self.state.told.len() >= TOLD_MAX {
            self.state.told.pop_front();
        }
        self.state.told.push_back(hash);
        notice(cut(said, KEPT_BYTES_MAX), Value::Null, out);
    }

    /// An error that is tried again is a notice; another one ends the turn, which tells it.
    fn error_told(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let nothing = Map::new();
        let error = turn_error(object(params, "error").unwrap_or(&nothing));
        let is_retry = params.get("willRetry") == Some(&Value::Bool(true));
        if is_retry || self.state.native_turn.is_none() {
            notice(error.message, json!({"will_retry": is_retry, "data": error.data}), out);
        }
    }

    fn settings_told(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let Some(settings) = object(params, "threadSettings") else { return };
        let word = |field: &str| told_word(settings, field);
        let (model, effort) = (word("model"), word("effort"));
        let mode = object(settings, "collaborationMode").map(|mode| text(mode, "mode").to_owned());
        let mode = mode.filter(|mode| is_usable(mode) && *mode != self.state.mode);
        let model = model.filter(|model| self.state.model.as_ref() != Some(model));
        let effort = effort.filter(|effort| self.state.effort.as_ref() != Some(effort));
        if model.is_none() && effort.is_none() && mode.is_none() {
            return;
        }
        if model.is_some() {
            self.state.model.clone_from(&model);
        }
        if effort.is_some() {
            self.state.effort.clone_from(&effort);
        }
        if let Some(mode) = &mode {
            self.state.mode.clone_from(mode);
        }
        let reasoning_level = effort;
        out.events.push(AgentEvent::SettingsChanged { model, mode, reasoning_level });
    }

    /// The account's limits come along with the usage; a limit that is reached is told.
    fn rate_limits_told(&mut self, params: &Map<String, Value>, out: &mut Effects) {
        let limits = params.get("rateLimits").cloned().unwrap_or_default();
        let has_figures = ["primary", "secondary", "credits"]
            .iter()
            .any(|field| limits.get(field).is_some_and(|value| !value.is_null()));
        if has_figures {
            self.state.rate_limits = body::bounded(limits.clone());
        }
        let reached = limits["rateLimitReachedType"].as_str().unwrap_or_default();
        if !reached.is_empty() {
            self.say_once(&format!("a limit of the account is reached: {reached}"), out);
        }
    }
}

fn plan(params: &Map<String, Value>, out: &mut Effects) {
    let steps = list(params, "plan").iter().filter_map(Value::as_object).take(PLAN_MAX);
    let entry = |step: &Map<String, Value>| {
        let status = match text(step, "status") {
            "inProgress" => "in_progress",
            "completed" => "completed",
            _ => "pending",
        };
        let content = cut(text(step, "step"), KEPT_BYTES_MAX);
        json!({"content": content, "priority": "medium", "status": status})
    };
    out.events.push(AgentEvent::Plan { entries: steps.map(entry).collect() });
}
