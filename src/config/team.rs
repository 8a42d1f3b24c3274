//! `[teams]`: whether there are any, and how often mail is tried again.

use super::Check;
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct Teams {
    pub is_enabled: bool,
    /// Members that do not lead may add and remove others through their tools.
    pub non_lead_can_add_members: bool,
    pub non_lead_can_remove_members: bool,
    /// After so many attempts that failed a delivery has failed.
    pub attempts_max: i64,
    /// After the first attempt that failed; twice as long after each further one.
    pub retry_pause: Duration,
}

impl Check<'_> {
    pub(super) fn teams(&mut self) -> Teams {
        let teams = &self.file.teams;
        let attempts_max = teams.max_attempts.unwrap_or(5);
        if attempts_max == 0 {
            self.problem("teams.max_attempts is 0; it must be at least 1");
        }
        let retry_pause_ms = teams.retry_pause_ms.unwrap_or(1000);
        if retry_pause_ms == 0 {
            self.problem("teams.retry_pause_ms is 0; it must be at least 1");
        }
        Teams {
            is_enabled: teams.enabled.unwrap_or(true),
            non_lead_can_add_members: teams.non_lead_can_add_members.unwrap_or(false),
            non_lead_can_remove_members: teams.non_lead_can_remove_members.unwrap_or(false),
            attempts_max: i64::try_from(attempts_max).unwrap_or(i64::MAX),
            retry_pause: Duration::from_millis(retry_pause_ms),
        }
    }
}
