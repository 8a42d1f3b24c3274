//! A play of team mail: what was accepted arrives once, and in the order in which it was written.

use crate::line::{Answered, Line};
use crate::play::{Play, list, text};
use gooselake_harness::demo::OUTCOME;
use serde_json::{Value, json};
use std::path::PathBuf;

const POLICIES: [&str; 2] = ["non_interrupting", "start_new_turn_only"];

/// The lead writes to the others; each message leaves a mark of its own in its reader's folder.
pub(crate) fn mail(play: &mut Play) {
    let size = 2 + play.rng.below(2) as usize;
    let mut members: Vec<(String, PathBuf, Vec<String>)> = Vec::new();
    for number in 0..size {
        let folder = play.folder.join(number.to_string());
        let Some(session) = play.session_in(&folder, json!({})) else { return };
        members.push((session, folder, Vec::new()));
    }
    let others: Vec<&String> = members[1..].iter().map(|(session, ..)| session).collect();
    let body = json!({
        "name": play.name, "lead_agent_id": members[0].0, "member_agent_ids": others,
    });
    let Ok(made) = play.make("/v1/teams", &body) else { return };
    let team = text(&made["team"], "id");
    for number in 0..3 + play.rng.below(8) {
        let to = 1 + play.rng.below(size as u64 - 1) as usize;
        let policy = *play.rng.pick(&POLICIES);
        let body = json!({
            "sender_agent_id": members[0].0, "recipient_agent_id": members[to].0,
            "input": [format!("run echo {number} >> marks")], "policy": policy,
        });
        let made = play.make(&format!("/v1/teams/{team}/messages"), &body);
        if made.is_ok() {
            members[to].2.push(number.to_string());
        }
    }
    let sent: usize = members.iter().map(|(_, _, marks)| marks.len()).sum();
    let completed = format!(
        "/v1/teams/{team}/events/stream?control=false&kinds=team_message.completed&limit={sent}"
    );
    // The stream ends behind the last one; one that a death cuts is read again.
    play.until("the last message", || {
        let (mut stream, _) = play.line.stream(&completed, "0").expect("plays end first");
        let mut count = 0;
        while count < sent && stream.next(crate::play::SOON).is_some() {
            count += 1;
        }
        (count == sent).then_some(())
    });
    let deliveries = list(play.get(&format!("/v1/teams/{team}/deliveries?limit=1000")));
    for delivery in &deliveries {
        let is_failed = play.is_rough && delivery["status"] == "failed";
        assert!(delivery["status"] == "injected" || is_failed, "{}: {delivery}", play.name);
        if let Some(turn) = delivery["injected_turn_id"].as_str() {
            // A turn may bring several messages.
            let is_in_it = |other: &&Value| other["injected_turn_id"] == turn;
            let said = vec![OUTCOME; deliveries.iter().filter(is_in_it).count()].join("\n\n");
            play.check_end(&text(delivery, "recipient_agent_id"), turn, "completed", &said);
        }
    }
    let Answered { reply, was_cut } =
        play.line.call("DELETE", &format!("/v1/teams/{team}"), &[], b"");
    assert!(reply.status == 204 || was_cut && reply.status == 404, "{}: {reply}", play.name);
    for (session, folder, marks) in &members {
        play.check_marks(folder, marks);
        play.close(session, folder);
    }
}

/// Purges a team that an earlier round has deleted, over any number of deaths.
pub(crate) fn purge(line: &Line, team: &str) {
    let path = format!("/v1/teams/{team}");
    let Answered { reply, was_cut } = line.call("DELETE", &format!("{path}?purge=true"), &[], b"");
    assert!(reply.status == 204 || was_cut && reply.status == 404, "{team}: {reply}");
    for rest in ["", "/events", "/messages", "/deliveries"] {
        let Answered { reply, .. } = line.call("GET", &format!("{path}{rest}"), &[], b"");
        assert_eq!(reply.status, 404, "{path}{rest}: {reply}");
    }
}
