//! What is known of one agent's program: where it is, whether it is new enough and logged in, what it offers.
//!
//! Values without behaviour beyond a question or two. Made by the probes, read by the API and by the making of a
//! session; never changed.

use crate::error::{Code, Error};
use serde_json::json;
use std::path::PathBuf;

/// What a look at an agent's program found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The file that is started; None = there is none.
    pub program: Option<PathBuf>,
    /// None = not told, or not asked for.
    pub version: Option<String>,
    /// The oldest version that we can drive; None where any will do.
    pub minimum_version: Option<String>,
    pub login: Login,
    /// How it is logged in, in the program's own words.
    pub auth_method: Option<String>,
    /// What it offers; empty where it tells that only in a session.
    pub models: Vec<Model>,
    /// Why it can not be used, and what to do.
    pub problem: Option<Problem>,
    /// Milliseconds since the epoch.
    pub checked_at: i64,
}

/// Whether the program is logged in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Login {
    /// It does not tell, or has its own ways.
    #[default]
    Unknown,
    /// It is needed and not there.
    Missing,
    There,
    /// As it is configured it needs none.
    NotNeeded,
}

/// A model that an agent offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    pub id: String,
    pub display_name: String,
    pub description: Option<String>,
    /// Empty where the model has no such levels.
    pub reasoning_levels: Vec<String>,
    pub is_default: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: ProblemKind,
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    ProgramMissing,
    ProgramTooOld,
    LoginMissing,
    /// The program is there and did not tell what it was asked.
    NoAnswer,
}

impl ProblemKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ProblemKind::ProgramMissing => "program_missing",
            ProblemKind::ProgramTooOld => "program_too_old",
            ProblemKind::LoginMissing => "login_missing",
            ProblemKind::NoAnswer => "no_answer",
        }
    }
}

impl Problem {
    pub fn new(
        kind: ProblemKind,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Problem {
        Problem { kind, message: message.into(), remedy: remedy.into() }
    }

    /// The problem as the answer to somebody who wants to use the agent.
    pub fn error(&self, provider: &str) -> Error {
        let detail = json!({
            "provider": provider, "problem": self.kind.as_str(), "remedy": self.remedy,
        });
        Error::new(Code::AgentFailed, self.message.clone())
            .hint(self.remedy.clone())
            .detail("readiness", detail.to_string())
    }
}

impl Report {
    pub fn is_ready(&self) -> bool {
        self.problem.is_none()
    }

    /// Whether a session would fail for certain. A program that did not answer in time may do so the next time.
    pub fn is_hopeless(&self) -> bool {
        self.problem.as_ref().is_some_and(|problem| problem.kind != ProblemKind::NoAnswer)
    }
}

/// The numbers of a version, as they are compared: the first word of three numbers, without what follows them.
pub(super) fn version_numbers(text: &str) -> Option<[u64; 3]> {
    text.split(|c: char| c.is_whitespace() || c == '/').find_map(|word| {
        let mut numbers = word.trim_start_matches('v').splitn(3, '.');
        let mut next = || {
            let part = numbers.next()?;
            let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
            part[..end].parse().ok()
        };
        Some([next()?, next()?, next()?])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        for (text, numbers) in [
            ("codex-cli 0.169.0", Some([0, 169, 0])),
            ("2.1.330 (Claude Code)", Some([2, 1, 330])),
            ("client/0.169.0 (Debian 12.0.0; x86_64)", Some([0, 169, 0])),
            ("v1.2.3-alpha.4", Some([1, 2, 3])),
            ("1.2", None),
            ("hello there", None),
            ("", None),
            ("99999999999999999999999.1.1", None),
        ] {
            assert_eq!(version_numbers(text), numbers, "{text:?}");
        }
        assert!(version_numbers("0.99.0") < version_numbers("0.169.0"));
    }
}
