//! The part of the configuration that is about processes.
//!
//! Owns: the defaults and the checks of `[processes]`. It knows nothing of how a process is run.

use super::{CENTURY_SECS, Check};
use std::time::Duration;

/// How processes are run, and how much of them is kept.
#[derive(Clone, Debug)]
pub struct Processes {
    /// Whether new ones may be started; those that are there are looked after in any case.
    pub enabled: bool,
    pub running_max: i64,
    /// None = no limit.
    pub timeout_ms: Option<i64>,
    /// The cap of the log of each stream.
    pub output_bytes_max: i64,
    /// Whether a `command` goes to the shell; otherwise it is split at white space.
    pub is_shell_allowed: bool,
    pub env_passthrough: Vec<String>,
    pub kill_grace_ms: i64,
    /// How long the records, logs and events of ended ones are kept; None = for ever.
    pub log_retention: Option<Duration>,
}

const OUTPUT_BYTES_MAX: u64 = 20_000_000;
const TIMEOUT_MS: u64 = 600_000;
const KILL_GRACE_MS: u64 = 5_000;
const LOG_RETENTION_HOURS: f64 = 168.0;

/// A century: no retention needs more, and none can overflow a clock.
pub(super) const HOURS_MAX: f64 = 876_000.0;

impl Check<'_> {
    pub(super) fn processes(&mut self) -> Processes {
        let file = &self.file.processes;
        let running_max =
            self.within("processes.max_concurrent", file.max_concurrent, 1..=10_000, 32);
        let timeout_ms = self.within(
            "processes.default_timeout_ms",
            file.default_timeout_ms,
            0..=CENTURY_SECS * 1000,
            TIMEOUT_MS,
        );
        let output_bytes_max = self.within(
            "processes.max_output_bytes_per_process",
            file.max_output_bytes_per_process,
            0..=1 << 40,
            OUTPUT_BYTES_MAX,
        );
        let kill_grace_ms = self.within(
            "processes.kill_grace_ms",
            file.kill_grace_ms,
            0..=3_600_000,
            KILL_GRACE_MS,
        );
        let hours = file.log_retention_hours.unwrap_or(LOG_RETENTION_HOURS);
        let log_retention = self.span("processes.log_retention_hours", Some(hours), 1.0);
        let whole = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Processes {
            enabled: file.enabled.unwrap_or(true),
            running_max: whole(running_max),
            timeout_ms: (timeout_ms > 0).then(|| whole(timeout_ms)),
            output_bytes_max: whole(output_bytes_max),
            is_shell_allowed: file.allow_shell.unwrap_or(true),
            env_passthrough: file.env_passthrough.clone(),
            kill_grace_ms: whole(kill_grace_ms),
            log_retention: log_retention.filter(|span| !span.is_zero()),
        }
    }
}
