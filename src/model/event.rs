//! The kinds of events, and the choice of events that a client asks for.

use super::words;

words! {
    /// What happened. A part before the dot names the thing that it happened to.
    EventKind {
        SessionCreated = "session.created",
        SessionUpdated = "session.updated",
        SessionResumed = "session.resumed",
        SessionFailed = "session.failed",
        SessionClosed = "session.closed",
        AgentStarted = "agent.started",
        AgentExited = "agent.exited",
        AgentSlept = "agent.slept",
        AgentWoken = "agent.woken",
        AgentUnparsed = "agent.unparsed",
        TurnQueued = "turn.queued",
        TurnStarted = "turn.started",
        TurnSteered = "turn.steered",
        TurnInterruptRequested = "turn.interrupt_requested",
        TurnCompleted = "turn.completed",
        TurnInterrupted = "turn.interrupted",
        TurnFailed = "turn.failed",
        ProviderError = "provider.error",
        ItemStarted = "item.started",
        ItemDelta = "item.delta",
        ItemCompleted = "item.completed",
        PlanUpdated = "plan.updated",
        UsageUpdated = "usage.updated",
        ApprovalRequested = "approval.requested",
        ApprovalResolved = "approval.resolved",
        ApprovalWithdrawn = "approval.withdrawn",
        ApprovalExpired = "approval.expired",
        ProcessQueued = "process.queued",
        ProcessStarted = "process.started",
        ProcessAdopted = "process.adopted",
        ProcessOutput = "process.output",
        ProcessKillRequested = "process.kill_requested",
        ProcessCompleted = "process.completed",
        ProcessFailed = "process.failed",
        ProcessTimedOut = "process.timed_out",
        ProcessKilled = "process.killed",
        McpToolBegun = "mcp.tool_begun",
        McpToolCalled = "mcp.tool_called",
        WorktreeCreated = "worktree.created",
        WorktreeClaimed = "worktree.claimed",
        WorktreeReleased = "worktree.released",
        WorktreeCleanedUp = "worktree.cleaned_up",
        WorktreeCleanupFailed = "worktree.cleanup_failed",
        WorktreeKept = "worktree.kept",
        WorktreeRepaired = "worktree.repaired",
        TeamCreated = "team.created",
        TeamMemberJoined = "team.member_joined",
        TeamMemberLeft = "team.member_left",
        TeamLeadChanged = "team.lead_changed",
        TeamInterruptAll = "team.interrupt_all",
        TeamDeleted = "team.deleted",
        TeamMessageCreated = "team_message.created",
        TeamMessageCompleted = "team_message.completed",
        TeamDeliveryPending = "team_delivery.pending",
        TeamDeliveryDeferred = "team_delivery.deferred",
        TeamDeliveryInjecting = "team_delivery.injecting",
        TeamDeliveryInjected = "team_delivery.injected",
        TeamDeliveryFailed = "team_delivery.failed",
        TeamDeliveryCancelled = "team_delivery.cancelled",
        TeamOperationStarted = "team_operation.started",
        TeamOperationCompleted = "team_operation.completed",
        TeamOperationRolledBack = "team_operation.rolled_back",
        RuntimeStarted = "runtime.started",
        RuntimeStartupRecovered = "runtime.startup_recovered",
        RuntimeStopped = "runtime.stopped",
    }
}

impl EventKind {
    /// Whether a client may live without it: what it tells is told again, whole, by a later event, or is in a log file.
    pub fn is_droppable(self) -> bool {
        matches!(self, EventKind::ItemDelta | EventKind::ProcessOutput)
    }
}

/// Which events of a scope a client wants; the default wants all.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EventFilter {
    /// Kinds (`turn.completed`) and families (`item.*`); empty = all.
    pub kinds: Vec<String>,
    pub critical_only: bool,
    pub turn_id: Option<String>,
}

impl EventFilter {
    pub fn is_all(&self) -> bool {
        *self == EventFilter::default()
    }

    pub fn takes(&self, kind: &str, droppable: bool, turn_id: Option<&str>) -> bool {
        if self.critical_only && droppable {
            return false;
        }
        if self.turn_id.is_some() && self.turn_id.as_deref() != turn_id {
            return false;
        }
        self.kinds.is_empty() || self.kinds.iter().any(|pattern| pattern_takes(pattern, kind))
    }

    /// Parses the `kinds=` parameter: names and `family.*`, separated by commas. Returns the first word that can not
    /// name an event.
    pub fn parse_kinds(text: &str) -> Result<Vec<String>, String> {
        let mut kinds = Vec::new();
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let body = word.strip_suffix(".*").unwrap_or(word);
            let is_name = !body.is_empty()
                && body
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'.');
            if !is_name {
                return Err(word.to_owned());
            }
            if !kinds.iter().any(|kind| kind == word) {
                kinds.push(word.to_owned());
            }
        }
        Ok(kinds)
    }
}

fn pattern_takes(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => kind.starts_with(family),
        None => kind == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_takes_names_and_families() {
        let filter = EventFilter {
            kinds: EventFilter::parse_kinds("turn.completed, item.*").unwrap(),
            ..EventFilter::default()
        };
        assert!(filter.takes("turn.completed", false, None));
        assert!(filter.takes("item.delta", true, None));
        assert!(!filter.takes("turn.started", false, None));
        assert!(!filter.takes("items.delta", false, None));
        assert_eq!(EventFilter::parse_kinds("a,B;c"), Err("B;c".to_owned()));
    }
}
