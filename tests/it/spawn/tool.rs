//! `gg_team_manage`, called by agents: who may, what is made, what ends, and what is refused.

use super::scene::{Nest, slow_agent};
use crate::crew::prompts;
use crate::mcp::prompt;
use crate::stage::{JSON, check_error, list, text};
use crate::worktree::scene::is_there;
use gooselake_harness::{thread, wait};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(30);
const MANAGE: &str = "gg_team_manage";

impl Nest {
    /// The arguments of a call about this team, with these on top.
    fn arguments(&self, fields: &Value) -> Value {
        let mut arguments = json!({"team_id": self.crew.id});
        arguments.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        arguments
    }

    /// What the agent is answered when the call works.
    fn managed(&self, caller: &str, fields: &Value) -> Value {
        self.stage().called(caller, MANAGE, &self.arguments(fields))
    }

    fn refused(&self, caller: &str, fields: &Value, told: (&str, &str)) {
        self.stage().refused(caller, MANAGE, &self.arguments(fields), told);
    }

    /// A member that has joined, whose agent works where the lead's does.
    fn joined(&self) -> String {
        let session = json!({"mode": "auto", "cwd": self.repo().path});
        let session_id = text(&self.stage().create(&session), "id");
        let body = json!({"agent_id": session_id});
        self.stage().client.post(&self.crew.path("members"), &body).expect(200);
        session_id
    }
}

#[test]
fn a_lead_adds_a_teammate_that_answers_and_takes_it_away_again() {
    let config = "[providers.demo]\nenabled = true\n[[teams.model_presets]]\nname = \"deep\"\n\
        provider = \"demo\"\nmodel = \"demo-large\"\nthinking_effort = \"high\"\n";
    let nest = Nest::with_config(config);
    let lead = nest.lead().to_owned();
    let answer =
        json!({"team_id": nest.crew.id, "recipient_agent_id": lead, "message": "say done"});
    let task = format!("run touch started.ignored\n{}", prompt("gg_team_message", &answer));
    std::fs::write(nest.repo().path.join("dot.png.ignored"), b"\x89PNG\r\n\x1a\n").unwrap();
    let made = nest.managed(
        &lead,
        &json!({
            "title": "Builder", "prompt": task, "worktree_name": "feature", "model_preset": "Deep",
            "image_paths": ["dot.png.ignored"], "creator_compaction_subscription": "unsubscribed",
        }),
    );
    let member = text(&made, "spawned_agent_id");
    for (field, value) in [
        ("operation", json!("add")),
        ("team_id", json!(nest.crew.id)),
        ("worktree_assignment_mode", json!("created")),
        ("worktree_created_by_operation", json!(true)),
        ("journal_stage", json!("completed")),
        ("model_preset", json!("deep")),
        ("image_count", json!(1)),
    ] {
        assert_eq!(made[field], value, "{field} of {made}");
    }
    let session = nest.stage().record(&member);
    assert_eq!(
        (&session["model"], &session["reasoning_level"]),
        (&json!("demo-large"), &json!("high"))
    );
    let path = nest.repo().path.join("dot.png.ignored");
    assert_eq!(
        session["metadata"],
        json!({
            "model_preset": "deep", "thinking_effort": "high",
            "gg_team_manage_add_image_paths": [path],
        })
    );
    let record = &made["spawned_member"];
    assert_eq!(
        (&record["added_by"], &record["creator_agent_id"], &record["title"]),
        (&json!(lead), &json!(lead), &json!("Builder"))
    );
    assert_eq!(record["creator_compaction_subscription"], "unsubscribed");
    // It has done its task in its worktree, and its answer is a turn of the lead.
    let delivery = wait::until(SOON, "it has answered", || {
        let to_lead = format!("deliveries?recipient_agent_id={lead}&status=injected");
        list(nest.stage().get(&nest.crew.path(&to_lead))).pop()
    });
    let turn = nest.stage().ended(&lead, &text(&delivery, "injected_turn_id"));
    assert_eq!(text(&turn, "assistant_text").trim(), "done");
    assert!(prompts(&turn)[0].contains("sender_title=\"Builder\""), "{turn}");
    let cwd = text(&made["worktree"], "worktree_cwd");
    assert!(std::path::Path::new(&cwd).join("started.ignored").exists());
    nest.onboarded(&made);
    let gone = nest.managed(&lead, &json!({"remove_agent_ids": [member, "sess_none"]}));
    assert_eq!((&gone["removed_count"], &gone["failed_count"]), (&json!(1), &json!(1)), "{gone}");
    let [taken, unknown] = &gone["results"].as_array().unwrap()[..] else { panic!("{gone}") };
    assert_eq!(list(taken["team"]["members"].clone()).len(), 1);
    let cleanup = &taken["cleanup"];
    assert_eq!(
        (&cleanup["ok"], &cleanup["released_claim_count"], &cleanup["cleanup_result_count"]),
        (&json!(true), &json!(1), &json!(1)),
        "{cleanup}"
    );
    assert_eq!(cleanup["cleanup_results"][0]["status"], "deleted");
    assert_eq!((&unknown["ok"], &unknown["error"]["code"]), (&json!(false), &json!("not_found")));
    assert!(!is_there(&made["worktree"]));
    assert_eq!(nest.stage().record(&member)["status"], "closed");
}

#[test]
fn only_the_lead_manages_unless_the_configuration_lets_others() {
    let nest = Nest::new();
    let (lead, member) = (nest.lead().to_owned(), nest.joined());
    let stranger = nest.stage().session();
    let removal = json!({"remove_agent_ids": [lead]});
    nest.refused(&stranger, &json!({}), ("unauthorized", "not a member"));
    nest.refused(&stranger, &removal, ("unauthorized", "not a member"));
    nest.refused(&member, &json!({}), ("unauthorized", "only the lead"));
    nest.refused(&member, &removal, ("unauthorized", "only the lead"));
    assert_eq!(nest.members().len(), 2);
    let config = "[teams]\nnon_lead_can_add_members = true\nnon_lead_can_remove_members = true\n";
    let nest = Nest::with_config(config);
    let member = nest.joined();
    let made = nest.managed(&member, &json!({}));
    assert_eq!(made["spawned_member"]["added_by"], json!(member));
    let gone = nest.managed(&member, &json!({"remove_agent_ids": [made["spawned_agent_id"]]}));
    assert_eq!(gone["removed_count"], 1, "{gone}");
    let capabilities = nest.stage().get("/v1/mcp/capabilities")["result"].clone();
    assert_eq!(
        capabilities["ggTeamManagePermissions"],
        json!({"nonLeadCanAddMembers": true, "nonLeadCanRemoveMembers": true})
    );
}

#[test]
fn what_is_wrong_with_a_call_is_told_and_makes_nothing() {
    let nest = Nest::new();
    let lead = nest.lead().to_owned();
    nest.managed(&lead, &json!({"worktree_name": "taken"}));
    for (fields, code, told) in [
        (json!({"title": " "}), "bad_request", "title: is blank"),
        (json!({"prompt": ""}), "bad_request", "prompt: must not be shorter"),
        (json!({"model": "gpt-5.5"}), "bad_request", "model: there is no such argument"),
        (json!({"agent_id": lead}), "bad_request", "agent_id: there is no such argument"),
        (json!({"creator_compaction_subscription": "x"}), "bad_request", "must be one of"),
        (json!({"use_existing_worktree": true}), "bad_request", "worktree_name"),
        (json!({"model_preset": "shallow"}), "unknown_model_preset", "planner, designer"),
        (json!({"model_preset": "opus"}), "not_found", "claude is not enabled"),
        (json!({"image_paths": ["none.png"]}), "bad_request", "none.png"),
        (json!({"worktree_name": "taken"}), "unauthorized", "gg/taken"),
        (json!({"worktree_name": "none", "use_existing_worktree": true}), "not_found", "gg/none"),
        (json!({"remove_agent_ids": []}), "bad_request", "remove_agent_ids: must have 1"),
        (
            json!({"remove_agent_ids": ["x"], "prompt": "say hi"}),
            "bad_request",
            "prompt: does not go together",
        ),
        (json!({"team_id": "team_none"}), "not_found", "team_none"),
    ] {
        nest.refused(&lead, &fields, (code, told));
    }
    assert_eq!((nest.members().len(), nest.operations().len()), (2, 1));
    assert_eq!(nest.worktrees().len(), 1);
    // What is null is as good as left out; a worktree that is there is shared when that is said.
    let shared = nest.managed(
        &lead,
        &json!({
            "title": null, "prompt": null, "image_paths": null, "model_preset": null,
            "remove_agent_ids": null, "worktree_name": "taken", "use_existing_worktree": true,
        }),
    );
    assert_eq!(
        (&shared["worktree_assignment_mode"], &shared["model_preset"]),
        (&json!("reused"), &Value::Null)
    );
}

/// Another provider knows other words, but a limit that all of them know is not left behind with the provider.
#[test]
fn a_teammate_of_another_provider_may_do_no_more_than_its_lead() {
    let preset = "[[teams.model_presets]]\nname = \"other\"\nprovider = \"acp\"\n";
    let nest = Nest::with_config(&slow_agent("", preset));
    for (mode, held) in [("require_approval", "require_approval"), ("read-only", "read_only")] {
        let body = json!({"permission_mode": mode, "cwd": nest.repo().path});
        let lead = text(&nest.stage().create(&body), "id");
        let crew = crate::crew::Crew::of(nest.stage(), vec![lead.clone()]);
        let arguments = json!({"team_id": crew.id, "model_preset": "other"});
        let call = json!({"tool_name": MANAGE, "caller_agent_id": lead, "args": arguments});
        let made = nest.stage().client.post("/v1/mcp/invoke", &call).expect(200).json();
        let session = nest.stage().record(&text(&made["result"], "spawned_agent_id"));
        assert_eq!(
            (&session["provider"], &session["permission_mode"]),
            (&json!("acp"), &json!(held))
        );
        let body =
            json!({"source_session_id": lead, "provider": "acp", "permission_mode": "full_auto"});
        let spawned = nest.stage().client.post(&crew.path("members/spawn"), &body).expect(200);
        assert_eq!(spawned.json()["spawned_session"]["permission_mode"], "full_auto");
    }
}

/// A turn that is held to less than its session does not make one that is not.
#[test]
fn a_teammate_may_do_no_more_than_the_turn_that_asks_for_it() {
    let nest = Nest::new();
    let body = json!({"input": ["slow 100000 20"], "permission_mode": "read_only"});
    nest.stage().post_turn(nest.lead(), &body).expect(200);
    let arguments = json!({"team_id": nest.crew.id});
    let call = json!({"tool_name": MANAGE, "caller_agent_id": nest.lead(), "args": arguments});
    let made = nest.stage().client.post("/v1/mcp/invoke", &call).expect(200).json();
    let session = nest.stage().record(&text(&made["result"], "spawned_agent_id"));
    assert_eq!(session["permission_mode"], "read_only", "{session}");
}

#[test]
fn an_agent_that_takes_no_images_is_not_added_with_some() {
    let demo = gooselake_harness::server::program("GG_TEST_DEMO_AGENT", "gg-demo-agent").unwrap();
    let blind = format!("{} | sed -u 's/\"image\":true/\"image\":false/'; exit", demo.display());
    let nest = Nest::with_config(&slow_agent(&blind, ""));
    let body = json!({"provider": "acp", "mode": "auto", "cwd": nest.repo().path});
    let lead = text(&nest.stage().create(&body), "id");
    let crew = crate::crew::Crew::of(nest.stage(), vec![lead.clone()]);
    let nest = Nest { crew, scene: nest.scene };
    std::fs::write(nest.repo().path.join("dot.ignored"), b"\x89PNG\r\n\x1a\n").unwrap();
    let fields = json!({"image_paths": ["dot.ignored"]});
    nest.refused(&lead, &fields, ("unsupported_provider_images", "images"));
    assert_eq!(nest.members(), [lead]);
}

#[test]
fn a_call_that_is_made_again_adds_one_teammate() {
    let nest = Nest::new();
    let gate = nest.stage().server.folder().join("gate");
    nest.init_script(&format!("until [ -e {} ]; do sleep 0.02; done", gate.display()));
    let body = json!({
        "tool_name": MANAGE, "caller_agent_id": nest.lead(), "invocation_id": "call-1",
        "args": nest.arguments(&json!({"worktree_name": "one"})),
    });
    let client = nest.stage().client.clone();
    let bytes = body.to_string();
    let first = gooselake_harness::thread::spawn("adding", move || {
        client.request("POST", "/v1/mcp/invoke", &[JSON], bytes.as_bytes()).json()
    })
    .unwrap();
    nest.operation_at("planned");
    let invoke = |body: &Value| nest.stage().client.post("/v1/mcp/invoke", body).expect(200).json();
    let twice = invoke(&body);
    assert_eq!(twice["error"]["code"], "duplicate_tool_invocation_in_progress", "{twice}");
    std::fs::write(&gate, "").unwrap();
    let first = first.join();
    assert_eq!(first["ok"], true, "{first}");
    let again = invoke(&body);
    for field in ["operation_id", "spawned_agent_id", "onboarding"] {
        assert_eq!(again["result"][field], first["result"][field], "{field}");
    }
    let mut other = body.clone();
    other["args"]["worktree_name"] = json!("two");
    let told = invoke(&other);
    assert_eq!(told["error"]["code"], "bad_request", "{told}");
    assert_eq!(nest.members().len(), 2);
}

#[test]
fn the_tool_names_the_presets_of_the_configuration() {
    let nest = Nest::new();
    let capabilities = nest.stage().get("/v1/mcp/capabilities")["result"].clone();
    let built_in = ["planner", "designer", "frontend", "fast", "codex", "deep", "opus", "sonnet"];
    assert_eq!(capabilities["ggTeamModelPresets"], json!(built_in));
    let tools = list(capabilities["toolSchemas"].clone());
    let manage = tools.iter().find(|tool| tool["name"] == MANAGE).unwrap();
    let named = list(manage["inputSchema"]["properties"]["model_preset"]["enum"].clone());
    assert_eq!(named[..8], built_in.map(Value::from));
    assert_eq!(named[8], Value::Null);
    let config = "[[teams.model_presets]]\nname = \"a b\"\nmodel = \"claude-x\"\n";
    let nest = Nest::with_config(config);
    let capabilities = nest.stage().get("/v1/mcp/capabilities")["result"].clone();
    assert_eq!(capabilities["ggTeamModelPresets"], json!(["a_b"]));
}

/// A worktree with which nobody of the team has to do is not the agent's to take, and is not lost with a member that
/// leaves it.
#[test]
fn a_worktree_of_strangers_is_not_found_by_an_agent() {
    let nest = Nest::new();
    let lead = nest.lead().to_owned();
    let foreign = nest.scene.create("foreign");
    let wish = json!({"name": "taken", "repo_root": nest.repo().path});
    let stranger = nest.stage().create(&json!({"mode": "auto", "worktree": wish}));
    for name in ["foreign", "taken"] {
        let fields = json!({"worktree_name": name, "use_existing_worktree": true});
        nest.refused(&lead, &fields, ("not_found", &format!("gg/{name}")));
    }
    assert_eq!(nest.members(), [lead.as_str()]);
    assert!(is_there(&foreign));
    // A person may say so, and so may the agent as soon as its team works there.
    let wish = json!({"name": "foreign", "mode": "reuse"});
    let first = nest.spawn(json!({"worktree": wish}));
    let body = json!({"agent_id": stranger["id"]});
    nest.stage().client.post(&nest.crew.path("members"), &body).expect(200);
    for name in ["foreign", "taken"] {
        let fields = json!({"worktree_name": name, "use_existing_worktree": true});
        let shared = nest.managed(&lead, &fields);
        assert_eq!(shared["worktree_assignment_mode"], "reused");
    }
    nest.remove(&text(&first["spawned_session"], "id"));
    assert!(is_there(&foreign), "another one works there");
}

/// It waits in its line behind a spawn while the session is closed in whose name it is made.
#[test]
fn a_call_that_waits_is_not_made_for_a_session_that_was_closed_meanwhile() {
    let preset = "[[teams.model_presets]]\nname = \"slow\"\nprovider = \"acp\"\n";
    let nest = Nest::with_config(&slow_agent(": < open.ignored", preset));
    let open = nest.repo().path.join("open.ignored");
    assert!(std::process::Command::new("mkfifo").arg(&open).status().unwrap().success());
    let (lead, member) = (nest.lead().to_owned(), nest.joined());
    let call = |name: &str, tool: &str, arguments: Value| {
        let body = json!({"tool_name": tool, "caller_agent_id": lead, "args": arguments});
        let client = nest.stage().client.clone();
        thread::spawn(name, move || client.post("/v1/mcp/invoke", &body)).unwrap()
    };
    let spawn = call("spawn", MANAGE, nest.arguments(&json!({"model_preset": "slow"})));
    nest.operation_at("session_created");
    let message = json!({"recipient_agent_id": member, "message": "say never"});
    let before = connections(&nest);
    let waits = call("message", "gg_team_message", nest.arguments(&message));
    wait::until(SOON, "it is made", || (connections(&nest) > before).then_some(()));
    nest.stage().close(&lead);
    std::fs::write(&open, "").unwrap();
    spawn.join();
    let reply = waits.join();
    check_error(&reply, 409, "session_closed");
    let messages = nest.stage().get(&nest.crew.path("messages"))["messages"].clone();
    let told = messages.to_string();
    assert!(!told.contains("say never"), "{told}");
}

fn connections(nest: &Nest) -> i64 {
    nest.stage().get("/v1/diagnostics")["connections"]["accepted"].as_i64().unwrap()
}
