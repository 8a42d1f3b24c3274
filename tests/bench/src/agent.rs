//! `bench agent`: an ACP agent whose chunks carry the time at which they were written.
//!
//! It answers `initialize`, `session/new` and `session/prompt`, and everything else with an empty
//! result. The prompt `rate HZ COUNT` writes COUNT chunks, HZ of them a second, each one exactly
//! [`STAMP_BYTES`] bytes: nanoseconds since the epoch and a space. It ends when its stdin does.

use crate::sample::now_ns;
use gooselake_harness::wait::pause_until;
use serde_json::{Value, json};
use std::io::{self, BufRead, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Nineteen digits (until the year 2286) and a space.
pub(crate) const STAMP_BYTES: usize = 20;

pub(crate) fn serve() -> ExitCode {
    for line in io::stdin().lock().lines() {
        let Ok(line) = line else { break };
        let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
        if message.get("id").is_some()
            && message.get("method").is_some()
            && answer(&message).is_err()
        {
            // Nobody reads any more.
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn answer(message: &Value) -> io::Result<()> {
    let result = match message["method"].as_str().unwrap_or_default() {
        "initialize" => json!({
            "protocolVersion": 1,
            "agentCapabilities": {"loadSession": false},
            "authMethods": [],
        }),
        "session/new" => json!({"sessionId": "bench"}),
        "session/prompt" => {
            let text = message["params"]["prompt"][0]["text"].as_str().unwrap_or_default();
            write_chunks(text)?;
            json!({"stopReason": "end_turn"})
        }
        _ => json!({}),
    };
    write_line(&json!({"jsonrpc": "2.0", "id": message["id"], "result": result}).to_string())
}

fn write_chunks(prompt: &str) -> io::Result<()> {
    let mut words = prompt.split_whitespace().skip(1).map(|word| word.parse().unwrap_or(1));
    let (hz, count): (u32, u32) = (words.next().unwrap_or(1), words.next().unwrap_or(1));
    let step = Duration::from_secs(1) / hz.max(1);
    let begun = Instant::now();
    for number in 0..count {
        pause_until(begun + step * number);
        let stamp = now_ns();
        write_line(&format!(
            "{{\"jsonrpc\":\"2.0\",\"method\":\"session/update\",\"params\":{{\
             \"sessionId\":\"bench\",\"update\":{{\"sessionUpdate\":\"agent_message_chunk\",\
             \"content\":{{\"type\":\"text\",\"text\":\"{stamp:019} \"}}}}}}}}"
        ))?;
    }
    Ok(())
}

fn write_line(line: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    stdout.write_all(b"\n")?;
    stdout.flush()
}
