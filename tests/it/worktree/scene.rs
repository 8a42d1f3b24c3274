//! A server and a repository, and the words to work with both.
//!
//! Git is the real one, with a configuration of its own. Every call checks its answer.

use crate::stage::{SOON, Stage, list, text};
use gooselake_harness::client::Reply;
use gooselake_harness::server::{Options, Server};
use gooselake_harness::stream::Record;
use gooselake_harness::temp::TempDir;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

pub(crate) struct Scene {
    pub(crate) stage: Stage,
    pub(crate) repo: Repo,
    /// Where the server's own git is, if the story gave it one.
    pub(crate) git: TempDir,
}

/// A folder that git knows.
#[derive(Clone)]
pub(crate) struct Repo {
    pub(crate) path: PathBuf,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        Scene::with_config("")
    }

    pub(crate) fn with_config(config_toml: &str) -> Scene {
        let git = TempDir::new("gooselake-no-git");
        Scene::of(Stage::with_config(config_toml), git)
    }

    /// The server's git is a script: these cases of a `case` over its arguments (`$HERE` is the script's folder), and
    /// then the real one.
    pub(crate) fn with_git(config_toml: &str, cases: &str) -> Scene {
        let config_toml = config_toml.to_owned();
        Scene::with_options(Options { config_toml, ..Options::default() }, cases)
    }

    /// The same with a server of these options.
    pub(crate) fn with_options(mut options: Options, cases: &str) -> Scene {
        let git = TempDir::new("gooselake-git");
        let (here, path) = (git.path().display(), std::env::var("PATH").unwrap());
        let script = format!(
            "#!/bin/sh\nHERE='{here}'\ncase \"$*\" in {cases} esac\nPATH='{path}' exec git \"$@\"\n"
        );
        let program = git.path().join("git");
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        options.env.push(("PATH".to_owned(), format!("{here}:{path}")));
        let server = Server::start(options);
        let cwd = server.folder().join("work");
        fs::create_dir(&cwd).unwrap();
        Scene::of(Stage { client: crate::contract::client(&server), server, cwd }, git)
    }

    fn of(stage: Stage, git: TempDir) -> Scene {
        let repo = Repo::new(&stage.server.folder().join("repo"));
        Scene { stage, repo, git }
    }

    /// Asks for a worktree of the repository, with these fields on top.
    pub(crate) fn try_create(&self, name: &str, fields: &Value) -> Reply {
        self.try_create_in(&self.repo, name, fields)
    }

    pub(crate) fn try_create_in(&self, repo: &Repo, name: &str, fields: &Value) -> Reply {
        let mut body = json!({"repo_root": repo.path, "worktree_name": name});
        body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        self.stage.client.post("/v1/worktrees", &body)
    }

    /// The record of a new worktree.
    pub(crate) fn create(&self, name: &str) -> Value {
        self.create_with(name, &json!({}))
    }

    pub(crate) fn create_with(&self, name: &str, fields: &Value) -> Value {
        let reply = self.try_create(name, fields).expect(200).json();
        assert_eq!(reply["created"], true, "{reply}");
        reply["worktree"].clone()
    }

    pub(crate) fn record(&self, worktree: &Value) -> Value {
        self.stage.get(&path(worktree, ""))
    }

    pub(crate) fn status(&self, worktree: &Value) -> Value {
        self.stage.get(&path(worktree, "/status"))
    }

    pub(crate) fn cleanup(&self, worktree: &Value, fields: &Value) -> Value {
        self.stage.client.post(&path(worktree, "/cleanup"), fields).expect(200).json()
    }

    pub(crate) fn force(&self, worktree: &Value) -> Value {
        self.cleanup(worktree, &json!({"force": true}))
    }

    pub(crate) fn claim(&self, worktree: &Value, session_id: &str) -> Reply {
        let body = json!({"session_id": session_id, "claim_role": "owner"});
        self.stage.client.post(&path(worktree, "/claims"), &body)
    }

    /// A claim by a session of its own.
    pub(crate) fn claim_at_once(&self, worktree: &Value) -> Reply {
        self.claim(worktree, &self.stage.session())
    }

    pub(crate) fn release(&self, worktree: &Value, session_id: &str) -> Reply {
        self.stage.client.post(&path(worktree, "/release"), &json!({"session_id": session_id}))
    }

    /// All events of a worktree so far.
    pub(crate) fn events(&self, worktree: &Value) -> Vec<Record> {
        let events = self.stage.get(&path(worktree, "/events?limit=10000"));
        list(events).into_iter().map(Record::new).collect()
    }

    pub(crate) fn kinds(&self, worktree: &Value) -> Vec<String> {
        self.events(worktree).into_iter().map(|event| event.kind).collect()
    }

    /// The first event of the kind behind `after_seq`, after waiting for it.
    pub(crate) fn event(&self, worktree: &Value, kind: &str, after_seq: i64) -> Record {
        let query = format!("?control=false&after_seq={after_seq}&until={kind}&kinds={kind}");
        let path = path(worktree, &format!("/events/stream{query}"));
        self.stage.client.stream(&path, &[]).expect(SOON).record()
    }

    /// Kill -9, and a new server.
    pub(crate) fn crash(&mut self) {
        self.stage.server.kill9();
        self.stage.restart();
    }
}

impl Repo {
    /// A repository with one commit on `main`.
    pub(crate) fn new(path: &Path) -> Repo {
        let repo = Repo::empty(path);
        repo.write("README", "hello\n");
        repo.write(".gitignore", "*.ignored\nignored/\n");
        repo.commit("first");
        repo
    }

    /// A repository without a commit.
    pub(crate) fn empty(path: &Path) -> Repo {
        fs::create_dir_all(path).unwrap();
        let repo = Repo { path: path.to_owned() };
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo
    }

    /// The worktree of a record, to work in.
    pub(crate) fn of(worktree: &Value) -> Repo {
        Repo { path: text(worktree, "worktree_cwd").into() }
    }

    pub(crate) fn write(&self, name: &str, content: &str) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits all there is; gives the commit.
    pub(crate) fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "-m", message]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// What git says. Panics: it fails.
    #[track_caller]
    pub(crate) fn git(&self, args: &[&str]) -> String {
        let output = self.try_git(args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "git {args:?} in {}: {told}", self.path.display());
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    pub(crate) fn try_git(&self, args: &[&str]) -> Output {
        Command::new("git")
            .args(["-c", "protocol.file.allow=always"])
            .args(args)
            .current_dir(&self.path)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_AUTHOR_NAME", "Someone")
            .env("GIT_AUTHOR_EMAIL", "someone@example.org")
            .env("GIT_COMMITTER_NAME", "Someone")
            .env("GIT_COMMITTER_EMAIL", "someone@example.org")
            .env("GIT_EDITOR", "true")
            .output()
            .unwrap()
    }

    pub(crate) fn has(&self, commit: &str) -> bool {
        self.try_git(&["cat-file", "-e", commit]).status.success()
    }

    /// Whether some ref leads to the commit.
    pub(crate) fn holds(&self, commit: &str) -> bool {
        let found = self.git(&["for-each-ref", "--contains", commit, "--format=%(refname)"]);
        !found.is_empty()
    }

    /// A file as a commit has it; None = it has none of that name.
    pub(crate) fn show(&self, commit: &str, name: &str) -> Option<String> {
        let output = self.try_git(&["cat-file", "blob", &format!("{commit}:{name}")]);
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }

    pub(crate) fn is_branch(&self, name: &str) -> bool {
        self.try_git(&["rev-parse", "--verify", "--quiet", &format!("refs/heads/{name}")])
            .status
            .success()
    }
}

/// A path of the API below a worktree.
pub(crate) fn path(worktree: &Value, rest: &str) -> String {
    format!("/v1/worktrees/{}{rest}", text(worktree, "id"))
}

pub(crate) fn is_there(worktree: &Value) -> bool {
    Path::new(&text(worktree, "worktree_cwd")).exists()
}
