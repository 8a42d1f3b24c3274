//! What only Claude has: a plan that a person accepts, and questions with answers to choose from.

use super::native::count;
use super::{Scenario, Stage, must, said};
use serde_json::json;

/// In the order in which they run.
pub(crate) const SCENARIOS: &[(&str, Scenario)] =
    &[("plan, accepted", plan), ("question", question), ("work of its own", own_work)];

fn plan(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open_as_configured(&json!({"permission_mode": "read_only"}))?;
    let path = format!("/v1/sessions/{session}");
    let record = stage.client.get(&path).json();
    must(record["mode"] == "plan", "read_only is the mode plan", &record)?;
    let turn = stage.start(&session, "TOOL ExitPlanMode {\"plan\": \"1. do it\"}")?;
    let asked = stage.pending(&session, 1);
    let options = asked[0]["options"].as_array().map_or(0, Vec::len);
    must(options == 3, "with and without asking, or not at all", &asked[0])?;
    stage.decide(&session, &asked[0], &json!({"option_id": "accept_edits"}));
    let ended = stage.ended(&session, &turn)?;
    must(ended["status"] == "completed", "the turn completes", &ended)?;
    let record = stage.client.get(&path).json();
    must(record["mode"] == "acceptEdits", "the mode is the chosen one", &record)?;
    stage.close(&session);
    Ok("accepted into acceptEdits".to_owned())
}

fn question(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let options =
        json!([{"label": "Red", "description": "r"}, {"label": "Blue", "description": "b"}]);
    let questions = json!({"questions": [{"question": "Which colour?", "header": "Colour",
        "multiSelect": false, "options": options}]});
    let turn = stage.start(&session, &format!("TOOL AskUserQuestion {questions}"))?;
    let asked = stage.pending(&session, 1);
    must(asked[0]["title"] == "Which colour?", "the question is the title", &asked[0])?;
    stage.decide(&session, &asked[0], &json!({"option_id": "answer_1"}));
    let ended = stage.ended(&session, &turn)?;
    must(said(&ended).contains("Blue"), "the answer reaches the model", &ended)?;
    stage.close(&session);
    Ok("asked with its labels, answered".to_owned())
}

fn own_work(stage: &mut Stage) -> Result<String, String> {
    let session = stage.open(&json!({}))?;
    let call = json!({"command": "sleep 2; echo bg-done", "description": "bg",
        "run_in_background": true});
    let (turn, _) = stage.turn(&session, &format!("TOOL Bash {call}"), "accept")?;
    must(turn["status"] == "completed", "the turn does not wait for it", &turn)?;
    let turns = || stage.client.get(&format!("/v1/sessions/{session}/turns")).json();
    let own = gooselake_harness::wait::until(super::PATIENCE, "a turn of the agent's own", || {
        let turns = turns();
        let is_own = |turn: &serde_json::Value| {
            turn["source"] == "agent" && turn["completed_at"].is_number()
        };
        (count(&turns, is_own) == 1).then_some(turns)
    });
    must(own.as_array().map(Vec::len) == Some(2), "one turn each", &own)?;
    stage.close(&session);
    Ok("a turn of the agent's own".to_owned())
}
