//! The one error type.
//!
//! Owns: the closed list of codes that clients see, and the one `match` that gives each its HTTP status. An error has a
//! message for the person who called (what failed, on which thing), a hint (what to do), and a source that only the log
//! sees. The layer that touches the file, socket, child or statement adds the context. This file deliberately knows no
//! JSON and no HTTP beyond the number.

use crate::limits;
use std::fmt;

/// What kind of failure it is. Part of the API: clients branch on it, so a code is never renamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    /// Malformed JSON, shape, query or value.
    BadRequest,
    /// The agent cannot take this kind of input.
    UnsupportedInput,
    /// The init script of a new worktree failed; the worktree was taken back.
    InitScriptFailed,
    /// No token, or not the right one.
    Unauthorized,
    /// The token is good, but not for this.
    Forbidden,
    /// The `Host` header names a host that this server does not answer to.
    HostNotAllowed,
    /// The `Origin` header names an origin that is not on the list.
    OriginNotAllowed,
    NotFound,
    MethodNotAllowed,
    /// The state of the thing forbids it.
    Conflict,
    /// The session already runs a turn.
    TurnActive,
    /// The turn that was named is not the one that runs.
    TurnMismatch,
    /// The agent cannot take input in the middle of a turn.
    SteerUnsupported,
    /// The approval was answered before.
    AlreadyResolved,
    /// The session is closed.
    SessionClosed,
    /// The cursor is ahead of the log.
    CursorAhead,
    /// The idempotency key was used with another body.
    IdempotencyMismatch,
    PayloadTooLarge,
    UnsupportedMediaType,
    /// The request head is larger than the limit.
    HeadTooLarge,
    /// Too many requests of the caller wait.
    TooManyRequests,
    /// The request did not arrive in time.
    RequestTimeout,
    /// A defect of ours.
    Internal,
    /// The agent or its program failed.
    AgentFailed,
    /// At a limit of the machine or the config; try again later.
    Capacity,
    /// The server is shutting down.
    ShuttingDown,
    /// The agent did not answer in time.
    AgentTimeout,
}

impl Code {
    /// Every code, in the order of the declaration.
    pub const ALL: &'static [Code] = &[
        Code::BadRequest,
        Code::UnsupportedInput,
        Code::InitScriptFailed,
        Code::Unauthorized,
        Code::Forbidden,
        Code::HostNotAllowed,
        Code::OriginNotAllowed,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::Conflict,
        Code::TurnActive,
        Code::TurnMismatch,
        Code::SteerUnsupported,
        Code::AlreadyResolved,
        Code::SessionClosed,
        Code::CursorAhead,
        Code::IdempotencyMismatch,
        Code::PayloadTooLarge,
        Code::UnsupportedMediaType,
        Code::HeadTooLarge,
        Code::TooManyRequests,
        Code::RequestTimeout,
        Code::Internal,
        Code::AgentFailed,
        Code::Capacity,
        Code::ShuttingDown,
        Code::AgentTimeout,
    ];

    /// The stable text of the code, and its HTTP status.
    pub fn parts(self) -> (&'static str, u16) {
        match self {
            Code::BadRequest => ("bad_request", 400),
            Code::UnsupportedInput => ("unsupported_input", 400),
            Code::InitScriptFailed => ("init_script_failed", 400),
            Code::Unauthorized => ("unauthorized", 401),
            Code::Forbidden => ("forbidden", 403),
            Code::HostNotAllowed => ("host_not_allowed", 403),
            Code::OriginNotAllowed => ("origin_not_allowed", 403),
            Code::NotFound => ("not_found", 404),
            Code::MethodNotAllowed => ("method_not_allowed", 405),
            Code::RequestTimeout => ("request_timeout", 408),
            Code::Conflict => ("conflict", 409),
            Code::TurnActive => ("turn_active", 409),
            Code::TurnMismatch => ("turn_mismatch", 409),
            Code::SteerUnsupported => ("steer_unsupported", 409),
            Code::AlreadyResolved => ("already_resolved", 409),
            Code::SessionClosed => ("session_closed", 409),
            Code::CursorAhead => ("cursor_ahead", 409),
            Code::IdempotencyMismatch => ("idempotency_mismatch", 409),
            Code::PayloadTooLarge => ("payload_too_large", 413),
            Code::UnsupportedMediaType => ("unsupported_media_type", 415),
            Code::TooManyRequests => ("too_many_requests", 429),
            Code::HeadTooLarge => ("head_too_large", 431),
            Code::Internal => ("internal", 500),
            Code::AgentFailed => ("agent_failed", 502),
            Code::Capacity => ("capacity", 503),
            Code::ShuttingDown => ("shutting_down", 503),
            Code::AgentTimeout => ("agent_timeout", 504),
        }
    }

    pub fn as_str(self) -> &'static str {
        self.parts().0
    }

    pub fn status(self) -> u16 {
        self.parts().1
    }
}

/// A failure, told once: it is returned or logged, never both.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    /// What failed, on which thing.
    pub message: String,
    /// What to do about it. Empty when the message says it all.
    pub hint: String,
    /// The record or number that helps the caller to go on (the resolved approval, the head of the log), as
    /// `(name, JSON text)`.
    pub detail: Option<(&'static str, String)>,
    /// For the log alone.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), hint: String::new(), detail: None, source: None }
    }

    /// A value that the caller sent is not one that we take.
    pub fn bad_request(message: impl Into<String>) -> Error {
        Error::new(Code::BadRequest, message)
    }

    /// There is no such thing: `what` is the kind, `id` the one that was asked for.
    pub fn not_found(what: &str, id: &str) -> Error {
        Error::new(Code::NotFound, format!("there is no {what} {id}"))
    }

    /// A defect of ours, or a part of the machine that failed us.
    pub fn internal(message: impl Into<String>) -> Error {
        Error::new(Code::Internal, message)
    }

    /// What whoever called is told: the message, and the hint behind it. A message may quote what was sent, so it is
    /// cut where no person would read on.
    pub fn told(&self) -> String {
        let end = self.message.floor_char_boundary(limits::ERROR_BYTES);
        let (message, rest) = self.message.split_at(end);
        let dots = if rest.is_empty() { "" } else { "…" };
        match self.hint.as_str() {
            "" => format!("{message}{dots}"),
            hint => format!("{message}{dots}; {hint}"),
        }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = hint.into();
        self
    }

    pub fn detail(mut self, name: &'static str, json: String) -> Error {
        self.detail = Some((name, json));
        self
    }

    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        self.source = Some(source.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.told())?;
        if let Some(source) = &self.source {
            write!(f, " ({source})")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_quotes_a_flood_is_cut_and_keeps_its_hint() {
        let error = Error::bad_request("ä".repeat(1_000_000)).hint("send less");
        let told = error.told();
        assert!(told.len() < limits::ERROR_BYTES + 20 && told.ends_with("…; send less"));
        assert_eq!(Error::bad_request("short").told(), "short");
    }

    #[test]
    fn the_list_of_codes_has_each_arm_of_the_match() {
        let arms = include_str!("error.rs").lines().filter(|line| line.contains("=> (\"")).count();
        let mut listed: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
        listed.sort_unstable();
        listed.dedup();
        assert_eq!(listed.len(), Code::ALL.len(), "a code is listed twice");
        assert_eq!(listed.len(), arms);
    }
}
