//! What a command found: good, doubtful or wrong, each with a remedy where there is one.
//!
//! One line each for people, one object for programs (`--json`). A single `fail` makes the exit code 1.

use super::tell;
use serde_json::{Value, json};
use std::process::ExitCode;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Ok,
    Warn,
    Fail,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Level::Ok => "ok",
            Level::Warn => "warn",
            Level::Fail => "fail",
        }
    }
}

struct Finding {
    level: Level,
    /// What was looked at, a word or two.
    check: String,
    message: String,
    /// Empty for what is good.
    remedy: String,
}

/// Findings in the order in which they were made.
#[derive(Default)]
pub(super) struct Findings {
    all: Vec<Finding>,
}

impl Findings {
    pub(super) fn ok(&mut self, check: &str, message: impl Into<String>) {
        self.add(Level::Ok, check, message.into(), "");
    }

    pub(super) fn warn(&mut self, check: &str, message: impl Into<String>, remedy: &str) {
        self.add(Level::Warn, check, message.into(), remedy);
    }

    pub(super) fn fail(&mut self, check: &str, message: impl Into<String>, remedy: &str) {
        self.add(Level::Fail, check, message.into(), remedy);
    }

    /// Good when nothing is wrong, else one failure for each fault.
    pub(super) fn judge(&mut self, check: &str, good: &str, faults: Vec<String>, remedy: &str) {
        if faults.is_empty() {
            self.ok(check, good);
        }
        for fault in faults {
            self.fail(check, fault, remedy);
        }
    }

    fn add(&mut self, level: Level, check: &str, message: String, remedy: &str) {
        let (check, remedy) = (check.to_owned(), remedy.to_owned());
        self.all.push(Finding { level, check, message, remedy });
    }

    /// Prints them all, and gives the exit code of the command.
    pub(super) fn report(&self, is_json: bool) -> ExitCode {
        let worst = self.all.iter().map(|finding| finding.level).max().unwrap_or(Level::Ok);
        if is_json {
            let findings: Vec<Value> = self.all.iter().map(Finding::json).collect();
            tell(&json!({"status": worst.as_str(), "findings": findings}).to_string());
        } else {
            for finding in &self.all {
                tell(&finding.line());
            }
        }
        if worst == Level::Fail { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

impl Finding {
    fn line(&self) -> String {
        let head = format!("{:<4} {:<12} {}", self.level.as_str(), self.check, self.message);
        // A message of a library may have lines.
        let head = head.replace('\n', " ");
        if self.remedy.is_empty() { head } else { format!("{head}; {}", self.remedy) }
    }

    fn json(&self) -> Value {
        json!({
            "level": self.level.as_str(),
            "check": self.check,
            "message": self.message,
            "remedy": Some(&self.remedy).filter(|remedy| !remedy.is_empty()),
        })
    }
}
