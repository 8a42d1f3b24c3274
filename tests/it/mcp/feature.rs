//! Tools of what the configuration has switched off.

use crate::stage::{Stage, each, list};
use serde_json::{Value, json};

fn capabilities(stage: &Stage) -> Value {
    stage.get("/v1/mcp/capabilities")["result"].clone()
}

#[test]
fn everything_is_there_unless_it_is_switched_off() {
    let stage = Stage::with_config("[teams]\nnon_lead_can_add_members = true\n");
    let all = capabilities(&stage);
    assert_eq!((&all["ggProcessEnabled"], &all["ggTeamEnabled"]), (&json!(true), &json!(true)));
    let permissions = json!({"nonLeadCanAddMembers": true, "nonLeadCanRemoveMembers": false});
    assert_eq!(all["ggTeamManagePermissions"], permissions);
    assert_eq!(all["supportedNamespaces"], json!(["gg_process", "gg_team", "gg_worktree"]));
    let tools = list(all["tools"].clone());
    for tool in [
        "gg_ping",
        "gg_process_run",
        "gg_process_status",
        "gg_process_logs",
        "gg_process_kill",
        "gg_worktree_status",
        "gg_team_status",
        "gg_team_message",
        "gg_team_interrupt",
        "gg_team_activity",
    ] {
        assert!(tools.contains(&json!(tool)), "{tool} is not in {tools:?}");
    }
}

#[test]
fn teams_and_worktrees_that_are_off_have_no_tools() {
    let stage = Stage::with_config("[teams]\nenabled = false\n[worktrees]\nenabled = false\n");
    let session_id = stage.session();
    let left = capabilities(&stage);
    assert_eq!(left["ggTeamEnabled"], false);
    assert_eq!(left["supportedNamespaces"], json!(["gg_process"]));
    let tools = each(&list(left["toolSchemas"].clone()), "name");
    let is_gone = |tool: &String| tool.starts_with("gg_team") || tool.starts_with("gg_worktree");
    assert!(tools.len() == 5 && !tools.iter().any(is_gone), "{tools:?}");
    let team = json!({"team_id": "team_x"});
    let off = ("feature_disabled", "teams.enabled");
    stage.refused(&session_id, "gg_team_status", &team, off);
    // Also with arguments that it would not take.
    stage.refused(&session_id, "gg_team_message", &json!({}), off);
    let off = ("feature_disabled", "worktrees.enabled");
    stage.refused(&session_id, "gg_worktree_status", &json!({}), off);
}

#[test]
fn processes_that_are_off_can_be_looked_at_and_not_started() {
    let stage = Stage::with_config("[processes]\nenabled = false\n");
    let session_id = stage.session();
    let left = capabilities(&stage);
    assert_eq!((&left["ggProcessEnabled"], &left["ggTeamEnabled"]), (&json!(false), &json!(true)));
    assert_eq!(left["supportedNamespaces"][0], "gg_process");
    let off = ("tool_failed", "processes are turned off");
    stage.refused(&session_id, "gg_process_run", &json!({"command": "ls"}), off);
    let running = stage.called(&session_id, "gg_process_status", &json!({}));
    assert_eq!(running["running"], json!([]));
}
