//! What to do about one recipient's mail: a pure function of what the recipient does and what waits for it.
//!
//! The rules of delivery are here and nowhere else; docs/ARCHITECTURE.md has them as a table. Nothing is remembered
//! between two looks, so a restarted server decides as the one before would have.

#[cfg(test)]
mod tests;

use crate::ledger::team::delivery::Waiting;
use crate::ledger::team::recipient::{ActiveTurn, Recipient};
use crate::limits;
use crate::model::team::{DeferredReason, DeliveryStatus, Policy};
use crate::session::Way;

/// What a look at a recipient leads to.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Plan {
    /// Nobody will ever take this mail.
    Fail { code: &'static str, message: &'static str },
    /// So many from the front of the queue go now.
    Inject { count: usize, way: Way },
    /// Whatever it waits for tells of itself, or comes at this time (milliseconds since the epoch).
    Wait { until: Option<i64> },
}

/// The plan for a queue that is not empty, in the order of delivery. `recipient` is None for a session that is gone.
pub(super) fn plan(
    recipient: Option<&Recipient>,
    can_steer: bool,
    queue: &[Waiting],
    now_ms: i64,
) -> Plan {
    let Some(recipient) = recipient else {
        let message = "the recipient's session is gone";
        return Plan::Fail { code: "recipient_session_not_found", message };
    };
    match recipient.state.as_str() {
        "closed" => {
            let message = "the recipient's session is closed";
            return Plan::Fail { code: "recipient_session_closed", message };
        }
        "failed" => {
            let message = "the recipient's session has failed";
            return Plan::Fail { code: "recipient_session_failed", message };
        }
        "starting" => return Plan::Wait { until: None },
        _ => {}
    }
    // What waits for a further attempt holds up what is behind it: the order is kept.
    let due = queue.iter().take_while(|waiting| waiting.is_due(now_ms)).count();
    let due = &queue[..due];
    let Some(first) = due.first() else {
        return Plan::Wait { until: queue.first().and_then(|waiting| waiting.next_attempt_at) };
    };
    let Some(active) = &recipient.active else {
        if recipient.queued > 0 {
            return Plan::Wait { until: None };
        }
        let last = due.iter().position(|waiting| waiting.policy.is_interrupting());
        let count = front(due, last.unwrap_or(due.len() - 1));
        return Plan::Inject { count, way: Way::NewTurn };
    };
    if recipient.has_queued_mail {
        return Plan::Wait { until: None };
    }
    let is_alone = first.policy == Policy::StartNewTurnOnly;
    let is_open_to_more =
        active.is_told && !active.is_waiting_for_approval && !active.is_interrupted;
    let can_join = can_steer && !recipient.is_gated && is_open_to_more;
    for (place, waiting) in due.iter().enumerate() {
        let Some(at_tool_boundary) = boundary(waiting, active) else { continue };
        let turn_id = active.turn_id.clone();
        let count = front(due, place);
        let was_refused = due[..count].iter().any(|waiting| waiting.is_steer_refused);
        if can_join && !is_alone && !was_refused {
            return Plan::Inject { count, way: Way::Steer { turn_id, at_tool_boundary } };
        }
        if may_end(waiting, active) {
            return Plan::Inject { count, way: Way::Interrupt { turn_id, at_tool_boundary } };
        }
    }
    Plan::Wait { until: None }
}

/// Why the first of the queue waits when the plan is to wait.
pub(super) fn reason(recipient: &Recipient, first: &Waiting, now_ms: i64) -> DeferredReason {
    if recipient.state == "starting" {
        return DeferredReason::SessionStarting;
    }
    if !first.is_due(now_ms) {
        return DeferredReason::Retry;
    }
    let Some(active) = &recipient.active else {
        return if recipient.has_queued_mail {
            DeferredReason::MailTurn
        } else {
            DeferredReason::TurnRunning
        };
    };
    let is_early = first.policy == Policy::InterruptAfterToolBoundary && active.has_tool;
    if recipient.has_queued_mail || first.policy.is_interrupting() && !may_end(first, active) {
        DeferredReason::MailTurn
    } else if is_early {
        DeferredReason::ToolRunning
    } else if active.is_waiting_for_approval {
        DeferredReason::WaitingForApproval
    } else {
        DeferredReason::TurnRunning
    }
}

/// Whether this message may act on the running turn now, and if so, whether only between tools.
fn boundary(waiting: &Waiting, active: &ActiveTurn) -> Option<bool> {
    match waiting.policy {
        Policy::ImmediateInterrupt => Some(false),
        Policy::InterruptAfterToolBoundary if !active.has_tool => Some(true),
        _ => None,
    }
}

/// A turn that mail began is not ended for mail of the same or a lower priority, and not before its agent has been
/// told: what it carries would never be read.
fn may_end(waiting: &Waiting, active: &ActiveTurn) -> bool {
    active.mail_rank.is_none_or(|rank| active.is_told && waiting.rank < rank)
}

/// How many from the front share a turn, up to the one at `last`: one that wants a turn of its own shares none, and a
/// turn has a bound.
fn front(due: &[Waiting], last: usize) -> usize {
    if due[0].policy == Policy::StartNewTurnOnly {
        return 1;
    }
    let mut bytes = 0;
    let shares = |waiting: &&Waiting| {
        bytes += waiting.bytes;
        waiting.policy != Policy::StartNewTurnOnly && bytes <= limits::MAIL_TURN_BYTES
    };
    due[..=last].iter().take(limits::MAIL_TURN).take_while(shares).count().max(1)
}

impl Waiting {
    fn is_due(&self, now_ms: i64) -> bool {
        self.next_attempt_at.is_none_or(|at| at <= now_ms)
    }

    /// Left behind by an attempt whose end nobody has written down.
    pub(super) fn is_cut_off(&self) -> bool {
        self.status == DeliveryStatus::Injecting
    }
}
