//! What the program says beside the conversation.
//!
//! Owns: which of it a person should hear of: retries, compaction, denials, limits. The rest is bookkeeping.

use super::Session;
use crate::bridge::Out;
use crate::wire::text;
use serde_json::Value;

impl Session {
    pub(super) fn system(&mut self, message: &Value, out: &mut Out) {
        match text(message, "subtype") {
            "init" => {
                self.is_busy = true;
                self.is_kept = true;
                self.told_settings(message, out);
            }
            "status" => {
                self.told_settings(message, out);
                if text(message, "status") == "compacting" {
                    out.notice("info", "the conversation is being compacted");
                }
                if text(message, "compact_result") == "failed" {
                    out.notice("warning", "the conversation could not be compacted");
                }
            }
            "compact_boundary" => {
                let figures = &message["compact_metadata"];
                let tokens = |field: &str| figures[field].as_u64().unwrap_or_default();
                let (before, after) = (tokens("pre_tokens"), tokens("post_tokens"));
                let text = format!("the conversation was compacted: {before} to {after} tokens");
                out.notice("info", &text);
            }
            "api_retry" => out.notice("warning", &retry(message)),
            "permission_denied" => {
                let (tool, why) = (text(message, "tool_name"), text(message, "decision_reason"));
                out.notice("warning", &format!("{tool} was denied: {why}"));
            }
            "informational" => {
                let severity = if text(message, "level") == "warning" { "warning" } else { "info" };
                out.notice(severity, text(message, "content"));
            }
            _ => {}
        }
    }

    pub(super) fn rate_limit(&mut self, limit: &Value, out: &mut Out) {
        let status = text(limit, "status");
        if !matches!(status, "" | "allowed") {
            let kind = text(limit, "rateLimitType").replace('_', " ");
            let status = status.replace('_', " ");
            out.notice("warning", &format!("the limit of the account: {status} {kind}"));
        }
    }
}

fn retry(message: &Value) -> String {
    let number = |field: &str| message[field].as_u64();
    let (attempt, most) = (number("attempt"), number("max_retries"));
    let status = number("error_status").map_or_else(|| "no answer".to_owned(), |s| s.to_string());
    let kind = text(message, "error").replace('_', " ");
    let pause = message["retry_delay_ms"].as_f64().unwrap_or_default() / 1000.0;
    let (attempt, most) = (attempt.unwrap_or_default(), most.unwrap_or_default());
    format!("the model failed ({status}, {kind}); try {attempt} of {most} again in {pause:.1} s")
}
