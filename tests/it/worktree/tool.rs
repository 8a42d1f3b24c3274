//! The tool for worktrees, called by agents: their own, their teammates', and no others.

use super::scene::Scene;
use crate::crew::Crew;
use crate::stage::{list, text};
use serde_json::{Value, json};

const STATUS: &str = "gg_worktree_status";

#[test]
fn an_agent_sees_where_it_works_and_where_its_teammates_do() {
    let scene = Scene::new();
    let stage = &scene.stage;
    let wish = json!({"name": "one", "repo_root": scene.repo.path});
    let session = stage.create(&json!({"mode": "auto", "worktree": wish}));
    let worker = text(&session, "id");
    stage.run(&worker, "write new.txt something");
    let own = stage.called(&worker, STATUS, &json!({}));
    assert_eq!(own["worktree"]["id"], session["worktree_id"]);
    assert_eq!(own["worktree"]["worktree_cwd"], session["cwd"]);
    assert_eq!(
        (&own["status"]["branch"], &own["status"]["dirty"]),
        (&json!("gg/one"), &json!(true))
    );
    // It is what people are told.
    let path = format!("/v1/worktrees/{}/status", text(&session, "worktree_id"));
    assert_eq!(own["status"], stage.get(&path));
    let (mate, stranger) = (stage.session(), stage.session());
    let named = json!({"worktree_id": session["worktree_id"]});
    let foreign = ("unauthorized", "nobody in a team of yours");
    stage.refused(&mate, STATUS, &named, foreign);
    let crew = Crew::of(stage, vec![mate.clone(), worker.clone()]);
    let seen = stage.called(&mate, STATUS, &named);
    assert_eq!(seen["status"], own["status"]);
    stage.refused(&stranger, STATUS, &named, foreign);
    stage.refused(&mate, STATUS, &json!({}), ("not_found", "works in no worktree"));
    let unknown = json!({"worktree_id": "wt_x"});
    stage.refused(&mate, STATUS, &unknown, ("not_found", "wt_x"));
    // The team knows it too, as long as somebody works there.
    let status = stage.called(&mate, "gg_team_status", &json!({"team_id": crew.id}));
    let members = list(status["members"].clone());
    let of = |id: &str| members.iter().find(|member| member["agent_id"] == id).unwrap();
    let place = [&of(&worker)["worktree_cwd"], &of(&worker)["worktree_name"]];
    assert_eq!(place, [&session["cwd"], &json!("one")]);
    assert_eq!(of(&mate)["worktree_cwd"], Value::Null);
    stage.close(&worker);
    stage.refused(&mate, STATUS, &named, foreign);
}
