//! Plays of sessions: turns, floods, queues, questions, refusals, terminals, agents that die by themselves.

use crate::play::{ENDS, Play, text};
use gooselake_harness::demo::{OUTCOME, flood_text, slow_text};
use gooselake_harness::stream::Record;
use serde_json::json;

/// Words of a turn that does not end by itself.
const SLOW: u64 = 100_000;

const MARK: &str = "run echo once >> marks";

/// Many chunks; none may be lost or doubled.
pub(crate) fn flood(play: &mut Play) {
    let (count, bytes) = (100 + play.rng.below(3000), 20 + play.rng.below(80) as usize);
    let said = flood_text(count, bytes);
    one_turn(play, &format!("flood {count} {bytes}"), "completed", &said, &[]);
}

/// Several turns, one behind the other, each with a mark of its own.
pub(crate) fn queue(play: &mut Play) {
    let Some(session) = play.session(json!({})) else { return };
    let count = 1 + play.rng.below(5);
    let mut turns = Vec::new();
    for number in 0..count {
        let prompt = format!("slow 5 5\nrun echo {number} >> marks\nslow 5 5");
        turns.extend(play.turn_when(&session, &prompt, "queue"));
    }
    for turn in &turns {
        let said = format!("{0}\n\n{OUTCOME}\n\n{0}", slow_text(5));
        play.check_end(&session, turn, "completed", &said);
    }
    let marks: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let folder = play.folder.clone();
    play.check_marks(&folder, &marks);
    end(play, &session, &turns);
}

/// The agent asks in the middle.
pub(crate) fn ask(play: &mut Play) {
    asked(play, json!({"mode": "default"}), ("completed", "Declined: echo once >> marks"));
}

/// A person is asked before the prompt is sent.
pub(crate) fn gate(play: &mut Play) {
    asked(play, json!({"permission_mode": "require_approval"}), ("interrupted", ""));
}

/// A question, and an answer of both kinds; `declined` is how the turn ends after a no, and what is said then.
fn asked(play: &mut Play, fields: serde_json::Value, declined: (&str, &str)) {
    let Some(session) = play.session(fields) else { return };
    let Some(turn) = play.turn(&session, MARK) else { return };
    let kinds = format!("approval.requested,{}", ENDS.join(","));
    let event = play.event(&session, &kinds);
    let is_accept = play.rng.chance(70);
    if event.kind == "approval.requested" {
        let approval = text(&event.payload, "approval_id");
        let path = format!("/v1/sessions/{session}/approvals/{approval}");
        let decision = if is_accept { "accept" } else { "decline" };
        let answered = play.act(&path, &json!({"decision": decision}));
        let status = answered.reply.status;
        let is_fine = status == 200 || status == 409 && (answered.was_cut || play.is_rough);
        assert!(is_fine, "{}: {}", play.name, answered.reply);
        // What was acknowledged stays.
        if status == 200 {
            let kept = if is_accept { "accept" } else { "decline" };
            assert_eq!(play.get(&path)["status"], kept, "{}", play.name);
        }
    } else {
        assert!(play.is_rough, "{}: nobody was asked: {}", play.name, event.json);
    }
    let (status, said) = if is_accept { ("completed", OUTCOME) } else { declined };
    play.check_end(&session, &turn, status, said);
    let folder = play.folder.clone();
    let marks = if is_accept { vec!["once".to_owned()] } else { Vec::new() };
    play.check_marks(&folder, &marks);
    end(play, &session, &[turn]);
}

/// While a turn runs another is refused, and so is steering; an interrupt ends it, and what was queued runs.
pub(crate) fn refused(play: &mut Play) {
    let Some(session) = play.session(json!({})) else { return };
    let Some(turn) = play.turn(&session, &format!("slow {SLOW} 5")) else { return };
    play.event(&session, &format!("item.delta,{}", ENDS.join(",")));
    let path = format!("/v1/sessions/{session}/turns");
    let mut turns = vec![turn.clone()];
    for (when, code) in [("steer", "steer_unsupported"), ("now", "turn_active")] {
        let reply = play.act(&path, &json!({"input": ["say no"], "when": when})).reply;
        if reply.status == 200 {
            // Its agent was killed, so that it is free.
            assert!(play.is_rough, "{}: {reply}", play.name);
            play.ended(&session, &text(&reply.json(), "turn_id"));
            end_unchecked(play, &session);
            return;
        }
        assert_eq!((reply.status, reply.json()["code"].as_str()), (409, Some(code)), "{reply}");
    }
    turns.extend(play.turn_when(&session, MARK, "queue"));
    let answered = play.act(&format!("{path}/{turn}/interrupt"), &json!({}));
    let status = answered.reply.status;
    let is_over = status == 409 && (answered.was_cut || play.is_rough);
    assert!(status == 202 || is_over, "{}: {}", play.name, answered.reply);
    play.check_end(&session, &turn, "interrupted", &slow_text(SLOW));
    for queued in &turns[1..] {
        play.check_end(&session, queued, "completed", OUTCOME);
    }
    let folder = play.folder.clone();
    play.check_marks(&folder, &["once".to_owned()]);
    end(play, &session, &turns);
}

/// A command in a terminal of the server.
pub(crate) fn terminal(play: &mut Play) {
    one_turn(play, "terminal echo once >> marks; sleep 0.1", "completed", OUTCOME, &["once"]);
}

/// The agent takes its time to start, and a turn waits for it.
pub(crate) fn opening(play: &mut Play) {
    let fields = json!({"wait": false, "env": {"GG_DEMO_DELAY_MS": "150"}});
    let Some(session) = play.session(fields) else { return };
    let Some(turn) = play.turn(&session, &format!("say up\n{MARK}")) else { return };
    play.check_end(&session, &turn, "completed", &format!("up\n\n{OUTCOME}"));
    let folder = play.folder.clone();
    play.check_marks(&folder, &["once".to_owned()]);
    end(play, &session, &[turn]);
}

/// The agent dies by itself; the next turn has a new one.
pub(crate) fn crash(play: &mut Play) {
    let Some(session) = play.session(json!({})) else { return };
    let Some(turn) = play.turn(&session, "slow 8 5\ncrash") else { return };
    let mut turns = vec![turn.clone()];
    turns.extend(play.turn_when(&session, MARK, "queue"));
    play.check_end(&session, &turn, "failed", &slow_text(8));
    for queued in &turns[1..] {
        play.check_end(&session, queued, "completed", OUTCOME);
    }
    let folder = play.folder.clone();
    play.check_marks(&folder, &["once".to_owned()]);
    end(play, &session, &turns);
}

fn one_turn(play: &mut Play, prompt: &str, status: &str, said: &str, marks: &[&str]) {
    let Some(session) = play.session(json!({})) else { return };
    let Some(turn) = play.turn(&session, prompt) else { return };
    play.check_end(&session, &turn, status, said);
    let folder = play.folder.clone();
    let marks: Vec<String> = marks.iter().map(|mark| (*mark).to_owned()).collect();
    play.check_marks(&folder, &marks);
    end(play, &session, &[turn]);
}

/// The session has the turns that were asked for, in their order, and no other; then it is closed.
fn end(play: &Play, session: &str, turns: &[String]) {
    let all = crate::play::list(play.get(&format!("/v1/sessions/{session}/turns")));
    let ids: Vec<String> = all.iter().map(|turn| text(turn, "id")).collect();
    assert_eq!(ids, turns, "{}: other turns than were asked for", play.name);
    let events = end_unchecked(play, session);
    let starts = events.iter().filter(|event| event.kind == "agent.started").count();
    // One whose keeper was killed before it could say so has only an end.
    assert!(starts > 0 || play.is_rough, "{}: no agent was ever started: {events:?}", play.name);
}

fn end_unchecked(play: &Play, session: &str) -> Vec<Record> {
    play.close(session, &play.folder)
}
