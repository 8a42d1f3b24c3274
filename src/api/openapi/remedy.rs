//! What to do about each code of an error, for the document and for docs/API.md: told once, here.

use crate::error::Code;

/// What it means, and what whoever called can do.
pub(super) fn told(code: Code) -> (&'static str, &'static str) {
    match code {
        Code::BadRequest => (
            "Malformed JSON, shape, query or value.",
            "Mend the request; `error` names the field. The same request fails again.",
        ),
        Code::UnsupportedInput => {
            ("The agent cannot take this kind of input.", "Send text, or choose another agent.")
        }
        Code::InitScriptFailed => (
            "The init script of a new worktree failed; the worktree was taken back.",
            "Read `init_script.output`, mend the script, or send `run_init_script: false`.",
        ),
        Code::Unauthorized => (
            "No token, or not the right one.",
            "Send the token that the server names at its start.",
        ),
        Code::Forbidden => (
            "The token is good, but not for this.",
            "Use the operator's token; an agent's opens `/v1/mcp` alone.",
        ),
        Code::HostNotAllowed => (
            "The `Host` header names a host that this server does not answer to.",
            "Add it to `server.allowed_hosts`, or set `server.public_base_url`.",
        ),
        Code::OriginNotAllowed => (
            "The `Origin` header names an origin that is not on the list.",
            "Add it to `server.cors_origins`.",
        ),
        Code::NotFound => (
            "There is no such path or thing.",
            "List what there is; what was purged does not come back.",
        ),
        Code::MethodNotAllowed => (
            "The path does not take this method; `Allow` names those it takes.",
            "Use one of them.",
        ),
        Code::RequestTimeout => ("The request did not arrive in time.", "Send it again, whole."),
        Code::Conflict => {
            ("The state of the thing forbids it.", "Read the thing anew and decide again.")
        }
        Code::TurnActive => (
            "The session already runs a turn.",
            "Send `when: queue` or `when: steer`, wait for its end, or interrupt it.",
        ),
        Code::TurnMismatch => (
            "The turn that was named is not the one that runs.",
            "Read the session's `active_turn_id` and decide again.",
        ),
        Code::SteerUnsupported => (
            "The agent cannot take input in the middle of a turn.",
            "Send `when: queue`, or interrupt the turn first.",
        ),
        Code::AlreadyResolved => {
            ("The approval was answered before.", "Take the answer that is in `approval`.")
        }
        Code::SessionClosed => ("The session is closed.", "Make a new one; this one can be read."),
        Code::CursorAhead => (
            "The cursor is ahead of the log.",
            "Drop the cursor and read the state anew: it is another log, or an older backup of it.",
        ),
        Code::IdempotencyMismatch => (
            "The idempotency key was used with another body.",
            "Use a new key for a new thing, the same body for the same.",
        ),
        Code::PayloadTooLarge => {
            ("The body is larger than the limit.", "Send less; `error` names the limit.")
        }
        Code::UnsupportedMediaType => (
            "The body is not declared as JSON.",
            "Send `Content-Type: application/json` (a form where the route takes one).",
        ),
        Code::TooManyRequests => (
            "Too many requests of the caller wait.",
            "Let some end, or follow a stream; try again after `Retry-After` seconds.",
        ),
        Code::HeadTooLarge => {
            ("The request head is larger than the limit.", "Send fewer or shorter headers.")
        }
        Code::Internal => (
            "A defect of ours.",
            "Look for the request's `X-Request-Id` in the server's log, and report it.",
        ),
        Code::AgentFailed => (
            "The agent or its program failed.",
            "Read `error` and `readiness`; `GET /v1/providers` tells the remedy.",
        ),
        Code::Capacity => (
            "At a limit of the machine or the config; try again later.",
            "Try again after `Retry-After` seconds, with the same `Idempotency-Key`.",
        ),
        Code::ShuttingDown => (
            "The server is shutting down.",
            "Try again after `Retry-After` seconds; streams go on from their cursor.",
        ),
        Code::AgentTimeout => (
            "The agent did not answer in time.",
            "Read the session: what was asked may still happen. Then try again.",
        ),
    }
}

/// The rows of the table, one for each code, in the order of their status.
pub(super) fn rows() -> Vec<String> {
    let mut codes = Code::ALL.to_vec();
    codes.sort_by_key(|code| code.status());
    let row = |code: &Code| {
        let (meaning, remedy) = told(*code);
        format!("| `{}` | {} | {meaning} | {remedy} |", code.as_str(), code.status())
    };
    codes.iter().map(row).collect()
}

#[test]
fn the_page_for_people_has_the_same_table() {
    const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/API.md");
    let page = std::fs::read_to_string(PATH).expect("the page can be read");
    let wanted = format!("{}\n", rows().join("\n"));
    assert!(page.contains(&wanted), "the table of errors in docs/API.md should be\n{wanted}");
}
