//! Floor 0: the words of the contract as types.
//!
//! Owns: ids, times, the closed lists of states and kinds, and the parsing of what a client may put into a turn. No
//! behaviour beyond parsing and state tables, no I/O but the clock. Each word here is the same in SQL, JSON and Rust.

pub mod event;
pub mod id;
pub mod input;
#[cfg(test)]
pub mod shape;
pub mod team;
pub mod worktree;

/// Declares a closed list of words, each once: the Rust name and the text that SQL and JSON carry.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident {
        $($(#[$variant_meta:meta])* $variant:ident = $text:literal,)+
    }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every word, in the order of the declaration.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            pub fn as_str(self) -> &'static str {
                match self { $($name::$variant => $text,)+ }
            }

            /// The word for this text, or None for a text that is not one of ours.
            pub fn parse(text: &str) -> Option<$name> {
                match text { $($text => Some($name::$variant),)+ _ => None }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.serialize_str(self.as_str())
            }
        }

        #[cfg(test)]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
                let words: Vec<&str> = $name::ALL.iter().map(|word| word.as_str()).collect();
                schemars::json_schema!({"type": "string", "enum": words})
            }
        }
    };
}
pub(crate) use words;

words! {
    /// What a session is doing, as clients see it.
    SessionStatus {
        /// The agent is being started for the first time.
        Starting = "starting",
        Ready = "ready",
        TurnRunning = "turn_running",
        WaitingForApproval = "waiting_for_approval",
        Closed = "closed",
        /// The native session can not be had any more.
        Failed = "failed",
    }
}

words! {
    TurnStatus {
        /// Accepted, waits for the turn before it.
        Queued = "queued",
        InProgress = "in_progress",
        WaitingForApproval = "waiting_for_approval",
        Completed = "completed",
        Interrupted = "interrupted",
        Failed = "failed",
    }
}

impl TurnStatus {
    /// Whether the turn is over.
    pub fn is_terminal(self) -> bool {
        matches!(self, TurnStatus::Completed | TurnStatus::Interrupted | TurnStatus::Failed)
    }
}

words! {
    /// Who started a turn.
    TurnSource { User = "user", Team = "team", Agent = "agent", }
}

words! {
    ItemType {
        UserMessage = "user_message",
        AssistantMessage = "assistant_message",
        Reasoning = "reasoning",
        Command = "command",
        FileChange = "file_change",
        ToolCall = "tool_call",
        WebSearch = "web_search",
        Plan = "plan",
        Image = "image",
        Notice = "notice",
        Other = "other",
    }
}

words! {
    ItemStatus {
        InProgress = "in_progress",
        Completed = "completed",
        Failed = "failed",
        Declined = "declined",
        Interrupted = "interrupted",
    }
}

words! {
    ApprovalStatus {
        Pending = "pending",
        Accept = "accept",
        Decline = "decline",
        Expired = "expired",
        Withdrawn = "withdrawn",
    }
}

words! {
    /// Who asks: the runtime before it sends the prompt, or the agent in the middle of a turn.
    ApprovalOrigin { Gate = "gate", Tool = "tool", }
}

words! {
    /// What choosing an option means, in the words of ACP v1 `PermissionOptionKind`.
    OptionKind {
        AllowOnce = "allow_once",
        AllowAlways = "allow_always",
        RejectOnce = "reject_once",
        RejectAlways = "reject_always",
    }
}

words! {
    /// What a runtime-managed process is doing, or how it ended.
    ProcessStatus {
        /// Waits until one of those that run has ended.
        Queued = "queued",
        Running = "running",
        /// It ended by itself with exit code 0.
        Completed = "completed",
        /// Another exit code, a signal of its own, or it never started.
        Failed = "failed",
        TimedOut = "timed_out",
        Killed = "killed",
    }
}

impl ProcessStatus {
    /// Whether it is over.
    pub fn is_terminal(self) -> bool {
        !matches!(self, ProcessStatus::Queued | ProcessStatus::Running)
    }
}

words! {
    /// Who ended a process that did not end by itself.
    KilledBy {
        /// A client.
        Request = "request",
        /// Its own time limit.
        Timeout = "timeout",
        /// Its session was closed.
        Session = "session",
        /// The server was stopped with all that it runs.
        Shutdown = "shutdown",
        /// No server came for longer than the lease.
        Lease = "lease",
        /// Somebody told its keeper to end.
        KeeperSignal = "keeper_signal",
    }
}

words! {
    /// The log that an event belongs to; together with the scope id it is the space in which `seq` counts.
    ScopeKind {
        Session = "session",
        Team = "team",
        Process = "process",
        Worktree = "worktree",
        System = "system",
    }
}
