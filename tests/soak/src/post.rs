//! A team's life: three sessions, some mail among them, and its end.

use crate::load::{Counts, Player, text};
use serde_json::json;
use std::time::Duration;

const MEMBERS: usize = 3;
const MESSAGES_MAX: u64 = 20;
const SOON: Duration = Duration::from_secs(120);

pub(crate) fn round(player: &mut Player) {
    let folder = player.folder("teams");
    let members: Vec<String> = (0..MEMBERS).map(|_| player.open(&folder, "auto")).collect();
    let body = json!({
        "name": "soak", "lead_agent_id": members[0], "member_agent_ids": members[1..],
    });
    let team = text(&player.post("/v1/teams", &body)["team"], "id");
    let count = 1 + player.rng.below(MESSAGES_MAX);
    for number in 0..count {
        let to = 1 + player.rng.below(MEMBERS as u64 - 1) as usize;
        let body = json!({
            "sender_agent_id": members[0], "recipient_agent_id": members[to],
            "input": [format!("say message {number}")], "policy": "start_new_turn_only",
        });
        player.post(&format!("/v1/teams/{team}/messages"), &body);
        player.rest(0, 3000);
    }
    let completed = format!(
        "/v1/teams/{team}/events/stream?control=false&kinds=team_message.completed&limit={count}"
    );
    let mut stream = player.client.stream(&completed, &[]);
    for _ in 0..count {
        stream.expect(SOON);
    }
    Counts::add(&player.board.counts.messages, count);
    player.client.delete(&format!("/v1/teams/{team}")).expect(204);
    for member in &members {
        player.close(member);
    }
    player.rest(500, 4000);
}
