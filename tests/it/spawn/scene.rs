//! A team whose lead works in a repository, and the words to spawn members for it.

use crate::crew::Crew;
use crate::stage::{SOON, Stage, list, text};
use crate::worktree::scene::{Repo, Scene};
use gooselake_harness::client::Reply;
use gooselake_harness::stream::Record;
use gooselake_harness::thread::{self, Thread};
use gooselake_harness::wait;
use serde_json::{Map, Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;

pub(crate) struct Nest {
    pub(crate) scene: Scene,
    pub(crate) crew: Crew,
}

impl Nest {
    pub(crate) fn new() -> Nest {
        Nest::with_config("")
    }

    pub(crate) fn with_config(config_toml: &str) -> Nest {
        Nest::of(Scene::with_config(config_toml))
    }

    pub(crate) fn of(scene: Scene) -> Nest {
        let lead = scene.stage.create(&json!({"mode": "auto", "cwd": scene.repo.path}));
        let crew = Crew::of(&scene.stage, vec![text(&lead, "id")]);
        Nest { scene, crew }
    }

    pub(crate) fn stage(&self) -> &Stage {
        &self.scene.stage
    }

    pub(crate) fn repo(&self) -> &Repo {
        &self.scene.repo
    }

    pub(crate) fn lead(&self) -> &str {
        &self.crew.members[0]
    }

    /// The body of a request of the lead's, with these fields on top.
    pub(crate) fn body(&self, fields: Value) -> Value {
        let mut body = json!({"source_session_id": self.lead()});
        let fields: Map<String, Value> = serde_json::from_value(fields).unwrap();
        body.as_object_mut().unwrap().extend(fields);
        body
    }

    pub(crate) fn try_spawn(&self, fields: Value) -> Reply {
        self.stage().client.post(&self.crew.path("members/spawn"), &self.body(fields))
    }

    pub(crate) fn spawn(&self, fields: Value) -> Value {
        self.try_spawn(fields).expect(200).json()
    }

    /// Asks for a member in a worktree of that name, and does not wait. The answer is what the client sees, which is an
    /// error when the server dies.
    pub(crate) fn spawning(&self, fields: Value) -> Thread<Result<Reply, String>> {
        let (client, path) = (self.stage().client.clone(), self.crew.path("members/spawn"));
        let body = self.body(fields).to_string();
        thread::spawn("spawning", move || {
            let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "spawning")];
            client
                .try_request("POST", &path, &headers, body.as_bytes())
                .map_err(|error| error.to_string())
        })
        .unwrap()
    }

    pub(crate) fn operations(&self) -> Vec<Value> {
        list(self.stage().get(&self.crew.path("operations")))
    }

    /// The newest operation, once it is at this stage.
    pub(crate) fn operation_at(&self, stage: &str) -> Value {
        wait::until(SOON, &format!("an operation is {stage}"), || {
            self.operations().pop().filter(|operation| operation["stage"] == stage)
        })
    }

    pub(crate) fn remove(&self, agent_id: &str) -> Value {
        let path = self.crew.path(&format!("members/{agent_id}"));
        self.stage().client.delete(&path).expect(200).json()
    }

    /// The ids of the members.
    pub(crate) fn members(&self) -> Vec<String> {
        let path = self.crew.path("").trim_end_matches('/').to_owned();
        let members = list(self.stage().get(&path)["members"].clone());
        members.iter().map(|member| text(member, "agent_id")).collect()
    }

    pub(crate) fn worktrees(&self) -> Vec<Value> {
        list(self.stage().get("/v1/worktrees"))
    }

    pub(crate) fn sessions(&self) -> Vec<Value> {
        list(self.stage().get("/v1/sessions"))
    }

    /// The whole log but what is told of items and agents, as kinds.
    pub(crate) fn log(&self, after: i64) -> Vec<Record> {
        let path = format!("/v1/events?limit=10000&after_seq={after}");
        list(self.stage().get(&path)).into_iter().map(Record::new).collect()
    }

    /// The row of the newest event.
    pub(crate) fn head(&self) -> i64 {
        let newest = list(self.stage().get("/v1/events?order=desc&limit=1"));
        newest[0]["row_id"].as_i64().unwrap()
    }

    /// The record of the turn in which a member reads its onboarding.
    pub(crate) fn onboarded(&self, answer: &Value) -> Value {
        let delivery = json!({
            "id": answer["onboarding"]["delivery_ids"][0],
            "message_id": answer["onboarding"]["message_id"],
        });
        let turn_id = self.crew.injected(self.stage(), &delivery);
        self.stage().ended(&text(&answer["spawned_session"], "id"), &turn_id)
    }

    /// New worktrees run this first.
    pub(crate) fn init_script(&self, script: &str) {
        self.repo().write(".agents/gg/worktree-init.sh", &format!("#!/bin/sh\n{script}\n"));
        let path = self.repo().path.join(".agents/gg/worktree-init.sh");
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        self.repo().commit("script");
    }

    pub(crate) fn crash(&mut self) {
        self.scene.crash();
    }
}

/// A configuration in which `acp` is the demo agent behind a shell, which does this first.
pub(crate) fn slow_agent(before: &str, more: &str) -> String {
    shell_agent(&format!("{before}\nexec {}", demo_agent()), more)
}

/// The same with a shell that does this when the agent has ended.
pub(crate) fn agent_with_end(end: &str, more: &str) -> String {
    shell_agent(&format!("{}; {end}", demo_agent()), more)
}

fn demo_agent() -> String {
    let demo = gooselake_harness::server::program("GG_TEST_DEMO_AGENT", "gg-demo-agent");
    demo.unwrap().display().to_string()
}

fn shell_agent(script: &str, more: &str) -> String {
    let arguments = json!(["-c", script]);
    format!(
        "[providers.demo]\nenabled = true\n[providers.acp]\nenabled = true\ncommand = \"/bin/sh\"\n\
         args = {arguments}\n{more}\n"
    )
}
