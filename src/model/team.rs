//! The words of team mail and of spawning, and which state of a delivery or an operation may follow which.

use super::words;

words! {
    /// To one member, or to all.
    MessageScope { Direct = "direct", Broadcast = "broadcast", }
}

words! {
    /// What goes first when several messages wait for one recipient.
    Priority { High = "high", Normal = "normal", Low = "low", }
}

impl Priority {
    /// The number that queues are ordered by: the lowest goes first.
    pub fn rank(self) -> i64 {
        match self {
            Priority::High => 0,
            Priority::Normal => 1,
            Priority::Low => 2,
        }
    }
}

words! {
    /// What a message does to a recipient that is busy.
    Policy {
        /// Waits for the end of the turn; all such messages then share one new turn.
        NonInterrupting = "non_interrupting",
        /// Waits for the end of the turn and gets one of its own.
        StartNewTurnOnly = "start_new_turn_only",
        /// Waits until no tool call, command or file change is in progress; then it joins the turn, or ends it.
        InterruptAfterToolBoundary = "interrupt_after_tool_boundary",
        /// Joins the turn, or ends it, at once.
        ImmediateInterrupt = "immediate_interrupt",
    }
}

impl Policy {
    /// Whether it may end a turn that runs.
    pub fn is_interrupting(self) -> bool {
        matches!(self, Policy::InterruptAfterToolBoundary | Policy::ImmediateInterrupt)
    }
}

words! {
    /// How far a message has come on its way to one recipient.
    DeliveryStatus {
        /// Written down, not looked at yet.
        Pending = "pending",
        /// It waits for something; `deferred_reason` says for what.
        Deferred = "deferred",
        /// An attempt is under way.
        Injecting = "injecting",
        /// A turn carries it.
        Injected = "injected",
        Failed = "failed",
        Cancelled = "cancelled",
    }
}

impl DeliveryStatus {
    /// The states that this one may come from. Whatever changes a delivery asks this table.
    pub fn comes_from(self) -> &'static [DeliveryStatus] {
        use DeliveryStatus::{Deferred, Failed, Injecting, Pending};
        match self {
            // A person asks for another try.
            DeliveryStatus::Pending => &[Deferred, Failed],
            DeliveryStatus::Deferred => &[Pending, Deferred, Injecting],
            DeliveryStatus::Injecting => &[Pending, Deferred],
            DeliveryStatus::Injected => &[Injecting],
            DeliveryStatus::Failed => &[Pending, Deferred, Injecting],
            DeliveryStatus::Cancelled => &[Pending, Deferred],
        }
    }

    /// The one way back: the session gives back what was to join a turn and was not heard. Nobody else may.
    pub fn comes_back_from(self) -> &'static [DeliveryStatus] {
        match self {
            DeliveryStatus::Deferred => &[DeliveryStatus::Injected],
            _ => &[],
        }
    }

    /// Whether the message has no way to go any more, as long as nothing is given back.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            DeliveryStatus::Injected | DeliveryStatus::Failed | DeliveryStatus::Cancelled
        )
    }
}

words! {
    /// What a delivery waits for.
    DeferredReason {
        TurnRunning = "turn_running",
        WaitingForApproval = "waiting_for_approval",
        ToolRunning = "tool_running",
        /// A turn that carries mail of the same or a higher priority runs, or is about to.
        MailTurn = "mail_turn",
        /// Other mail to the same recipient goes first.
        MailAhead = "mail_ahead",
        SessionStarting = "session_starting",
        /// An attempt failed; `last_error_code` says why, `next_attempt_at` when the next one is due.
        Retry = "retry",
        /// An attempt was cut off before anything had reached the recipient; it is made again.
        CutOff = "cut_off",
        /// It was to join a turn, and its agent says that it has not heard it.
        SteerRefused = "steer_refused",
    }
}

words! {
    /// How a message came into its turn.
    InjectionStrategy {
        /// A new turn begins with it.
        SendTurn = "runtime_send_turn",
        /// It joined a running one.
        SteerTurn = "runtime_steer_turn",
    }
}

words! {
    /// What changes who is in a team in more than one step.
    OperationKind {
        /// A session is made for the team and becomes a member, in a worktree or not.
        Spawn = "spawn_member_with_worktree",
        /// A member that was made for the team has left: what was made for it ends.
        Remove = "remove_spawned_member",
    }
}

words! {
    /// How far an operation has come. Each says what there is, for whoever has to go on after a crash.
    OperationStage {
        /// Written down. A worktree may be under way, but nothing that would stay after a crash.
        Planned = "planned",
        /// There are the session, its worktree and its claim; the agent is being opened.
        SessionCreated = "session_created",
        /// It has failed; what was made is being taken away.
        RollingBack = "rolling_back",
        /// The member is out; its session and its worktree are being ended.
        MemberLeft = "member_left",
        Completed = "completed",
        RolledBack = "rolled_back",
    }
}

impl OperationStage {
    /// The stages that this one may come from. Whatever changes an operation asks this table.
    pub fn comes_from(self) -> &'static [OperationStage] {
        use OperationStage::{MemberLeft, Planned, RollingBack, SessionCreated};
        match self {
            OperationStage::Planned | OperationStage::MemberLeft => &[],
            OperationStage::SessionCreated => &[Planned],
            OperationStage::RollingBack => &[SessionCreated],
            OperationStage::Completed => &[SessionCreated, MemberLeft],
            OperationStage::RolledBack => &[Planned, RollingBack],
        }
    }

    /// Whether there is nothing left to do.
    pub fn is_terminal(self) -> bool {
        matches!(self, OperationStage::Completed | OperationStage::RolledBack)
    }
}

words! {
    /// How a spawned session came to its worktree.
    AssignmentMode { Created = "created", Reused = "reused", None = "none", }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stage_of_an_operation_leads_to_an_end() {
        for from in OperationStage::ALL {
            let leads_on = OperationStage::ALL.iter().any(|to| to.comes_from().contains(from));
            assert_eq!(leads_on, !from.is_terminal(), "{from:?}");
        }
    }

    #[test]
    fn what_is_over_only_comes_back_when_a_person_asks() {
        for to in DeliveryStatus::ALL {
            for from in to.comes_from() {
                let is_retry = (*from, *to) == (DeliveryStatus::Failed, DeliveryStatus::Pending);
                assert!(!from.is_terminal() || is_retry, "{from:?} -> {to:?}");
            }
        }
    }

    #[test]
    fn every_state_can_be_left_or_is_the_end() {
        for from in DeliveryStatus::ALL {
            let leads_on =
                DeliveryStatus::ALL.iter().any(|to| to != from && to.comes_from().contains(from));
            assert_eq!(leads_on, !from.is_terminal() || *from == DeliveryStatus::Failed);
        }
    }
}
