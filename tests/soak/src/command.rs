//! Commands: a short one, one with much output, one that is killed.

use crate::load::{Counts, Player, text};
use serde_json::json;

pub(crate) fn round(player: &mut Player) {
    let folder = player.folder("commands");
    let (command, status) = match player.rng.below(3) {
        0 => ("echo hello".to_owned(), "completed"),
        1 => (format!("seq 1 {}", 1000 + player.rng.below(60_000)), "completed"),
        _ => ("sleep 1000 & echo up; wait".to_owned(), "killed"),
    };
    let made = player.post("/v1/processes", &json!({"command": command, "cwd": folder}));
    let id = text(&made["process"], "process_id");
    let path = format!("/v1/processes/{id}");
    if status == "killed" {
        player.rest(500, 4000);
        let reply = player.client.post(&format!("{path}/kill"), &json!({"reason": "soak"}));
        assert!([200, 202].contains(&reply.status), "{reply}");
    }
    let record = player.until(&format!("{path}?wait_ms=20000"), "/process/ended_at");
    assert_eq!(record["process"]["status"], status, "{record}");
    Counts::add(&player.board.counts.processes, 1);
    player.rest(500, 5000);
}
