//! Programs that stand for Codex and for the bridge of Claude, and a server that finds them.
//!
//! Owns: a folder that is first on the server's PATH, and the scripts in it. Each script writes down how it was called,
//! one line a call, so a test can say how often and with what. What a script answers is the test's to write.

use crate::stage::{SOON, Stage};
use gooselake_harness::server::{Options, Server};
use gooselake_harness::temp::TempDir;
use gooselake_harness::wait;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

pub(crate) struct Lab {
    pub(crate) stage: Stage,
    /// First on the PATH.
    pub(crate) bin: TempDir,
}

/// A Codex that is new enough; logged in when there is a login in its home.
pub(crate) const CODEX: &str = r#"
case "$*" in
    *--version*) echo "codex-cli 0.170.1"; exit;;
esac
account=null
if [ -f "$CODEX_HOME/auth.json" ]; then account='{"type":"chatgpt","email":"who@example.org"}'; fi
echo '{"id":1,"result":{"userAgent":"x/0.170.1"}}'
echo 'a line that is no JSON'
echo '{"id":3,"result":{"data":[
  {"id":"m-one","displayName":"One","description":"The first.","isDefault":true,
   "supportedReasoningEfforts":[{"reasoningEffort":"low"},{"reasoningEffort":"high"}]},
  {"id":"m-hidden","hidden":true}],"nextCursor":null}}' | tr -d '\n'; echo
echo '{"id":2,"result":{"account":'$account',"requiresOpenaiAuth":true}}'
cat > /dev/null"#;

/// What the bridge of Claude tells of one that is logged in.
pub(crate) const CLAUDE: &str = concat!(
    r#"{"program":"/opt/claude","version":"2.1.330","minimum_version":"2.1.0","models":[{"id":"opus","#,
    r#""name":"Opus","description":"Large.","reasoning_levels":["low","max"],"is_default":true}],"#,
    r#""account":{"email":"who@example.org"},"logged_in":true,"auth_method":"claude.ai","error":null}"#,
);

impl Lab {
    /// A server with these scripts on its PATH, by name.
    pub(crate) fn new(config_toml: &str, scripts: &[(&str, &str)], env: &[(&str, &str)]) -> Lab {
        let bin = TempDir::new("gg-lab");
        for (name, script) in scripts {
            write_script(&bin.path().join(name), script);
        }
        let path = std::env::var("PATH").unwrap();
        let mut env: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        env.push(("PATH".to_owned(), format!("{}:{path}", bin.path().display())));
        if scripts.iter().any(|(name, _)| *name == "claude-bridge") {
            let bridge = bin.path().join("claude-bridge").to_string_lossy().into_owned();
            env.push(("GG_CLAUDE_BRIDGE_COMMAND".to_owned(), bridge));
        }
        let config_toml = config_toml.to_owned();
        let server = Server::start(Options { config_toml, env, ..Options::default() });
        let cwd = server.folder().join("work");
        fs::create_dir(&cwd).unwrap();
        Lab { stage: Stage { client: crate::contract::client(&server), server, cwd }, bin }
    }

    /// Puts another script in the place of one, as an update does.
    pub(crate) fn replace(&self, name: &str, script: &str) {
        let new = self.bin.path().join(format!("{name}.new"));
        write_script(&new, script);
        fs::rename(new, self.bin.path().join(name)).unwrap();
    }

    /// How the scripts of this name were called so far: their arguments.
    pub(crate) fn calls(&self, name: &str) -> Vec<String> {
        let text = fs::read_to_string(self.bin.path().join(format!("{name}.calls")));
        text.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The user's home.
    pub(crate) fn home(&self) -> PathBuf {
        self.stage.server.folder().join("home")
    }

    /// The record of a provider in the list, once something is known of it.
    pub(crate) fn provider(&self, kind: &str) -> Value {
        wait::until(SOON, "the provider is known", || {
            let list = self.stage.get("/v1/providers");
            let providers = list["providers"].as_array().unwrap();
            let found = providers.iter().find(|provider| provider["kind"] == kind);
            let found = found.unwrap_or_else(|| panic!("{kind} is not in {list}")).clone();
            (!found["ready"].is_null()).then_some(found)
        })
    }
}

fn write_script(path: &Path, script: &str) {
    let name = path.file_stem().unwrap().to_string_lossy();
    let calls = path.with_file_name(format!("{name}.calls"));
    let text = format!("#!/bin/sh\necho \"$*\" >> '{}'\n{script}\n", calls.display());
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The permission bits of a file or folder.
pub(crate) fn mode_of(path: &Path) -> u32 {
    let metadata = fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    metadata.permissions().mode() & 0o777
}
