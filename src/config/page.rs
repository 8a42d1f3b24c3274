//! The page of the configuration, docs/CONFIGURATION.md, made and compared by a test.
//!
//! Owns: what the page says beside the meanings, which are the comments of the types in `file`. Types come from the
//! schema of those types. Defaults come from the configuration that an empty file makes, and what a key may be from the
//! answers of the check to values that it may not be: so neither can be told wrongly. The example file is held to the
//! page. `UPDATE=1 cargo test --lib config::page` (or `make api-docs-refresh`) writes the page anew.

use super::{Config, Overrides};
use crate::model::worktree::DeletionPolicy;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{Display, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATH: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
const PAGE: &str = include_str!("../../docs/CONFIGURATION.md");
const EXAMPLE: &str = include_str!("../../docs/examples/runtime-server.toml");

/// What stands above the tables.
const HEAD: &str = "\
# Configuration

Every key is optional. [The example file](examples/runtime-server.toml) has them all and is the
place to start from; `gg-runtime-server --config F` takes it. Unknown keys, bad values and
impossible combinations are errors that name the key, the line and the nearest good key, all of
them at once; `gg-runtime-server --check-config --config F` finds them without starting anything.
A change is read at the next start. What `--bind`, `--data-dir` and `GG_CLAUDE_AUTH_MODE` say is
stronger than the file.

\"none\" in the third column means that there is no such thing unless the key is set. A path that
is relative starts where its row says. `<name>` stands for a name of your own, `[]` for each entry
of a list (`[[teams.model_presets]]`). This page is made from the types of `src/config/file.rs` and
from what the check says: `make api-docs-refresh`.
";

/// Keys that are there for files of other servers.
const WITHOUT_MEANING: [&str; 4] = [
    "events.critical_queue_capacity",
    "events.live_queue_capacity",
    "events.team_queue_capacity",
    "providers.acp.wait_timeout_secs",
];

/// A key as the page shows it.
struct Key {
    /// The whole path, with `<name>` and `[]`.
    path: String,
    /// The name of its type in JSON.
    sort: String,
    meaning: String,
}

/// A table of the file with its keys.
struct Section {
    path: String,
    meaning: String,
    keys: Vec<Key>,
}

/// What a text makes when nothing is on PATH.
fn checked(text: &str) -> Result<Config, super::Problems> {
    Config::parse(text, Path::new(""), "", &Overrides::default())
}

fn config(text: &str) -> Config {
    checked(text).unwrap_or_else(|problems| panic!("{text}: {problems:?}"))
}

/// All tables, in the order of their names.
fn sections() -> Vec<Section> {
    let schema = schemars::schema_for!(super::file::File).to_value();
    let mut sections = Vec::new();
    collect(&schema, &schema, "", &mut sections);
    sections
}

fn collect(root: &Value, table: &Value, path: &str, into: &mut Vec<Section>) {
    let mut section = Section { path: path.to_owned(), meaning: text_of(table), keys: Vec::new() };
    let place = into.len();
    let joint = if path.is_empty() { "" } else { "." };
    for (name, shape) in table["properties"].as_object().expect("a table has keys") {
        let path = format!("{path}{joint}{name}");
        let many = [(&shape["additionalProperties"], ".<name>"), (&shape["items"], "[]")];
        let inner = many.into_iter().find_map(|(inner, end)| Some((table_of(root, inner)?, end)));
        match table_of(root, shape).map(|table| (table, "")).or(inner) {
            Some((table, end)) => collect(root, table, &format!("{path}{end}"), into),
            None => {
                let sorts = shape["type"].as_array().cloned().unwrap_or_default();
                let sort = sorts.first().unwrap_or(&shape["type"]);
                let sort = sort.as_str().unwrap_or_else(|| panic!("{path} has no type: {shape}"));
                section.keys.push(Key { path, sort: sort.to_owned(), meaning: text_of(shape) });
            }
        }
    }
    if !section.keys.is_empty() {
        into.insert(place, section);
    }
}

/// The table that a shape refers to, itself or in one of its forms.
fn table_of<'a>(root: &'a Value, shape: &Value) -> Option<&'a Value> {
    let forms = shape["anyOf"].as_array().map_or(&[][..], Vec::as_slice);
    let refer = forms.iter().chain([shape]).find_map(|form| form["$ref"].as_str())?;
    root.pointer(refer.trim_start_matches('#'))
}

fn text_of(shape: &Value) -> String {
    let text = shape["description"].as_str().unwrap_or_else(|| panic!("no comment: {shape}"));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// What a key takes, with the unit that its name ends in.
fn takes(key: &Key) -> String {
    let units =
        [("_secs", "seconds"), ("_ms", "milliseconds"), ("_hours", "hours"), ("_days", "days")];
    let unit = units.iter().find(|(end, _)| key.path.ends_with(end)).map(|(_, unit)| *unit);
    let bytes = key.path.contains("_bytes").then_some("bytes");
    match (key.sort.as_str(), unit.or(bytes)) {
        ("integer", Some(unit)) => unit.to_owned(),
        ("number", Some(unit)) => format!("{unit}, also parts"),
        ("integer", None) => "number".to_owned(),
        ("string", _) => "text".to_owned(),
        ("boolean", _) => "true, false".to_owned(),
        ("array", _) => "list of texts".to_owned(),
        ("object", _) => "table of texts".to_owned(),
        (other, _) => panic!("{} is of the type {other}", key.path),
    }
}

/// What the check says that a value must be, when it is given one that can not be good. Empty: it takes all.
fn bounds(key: &Key) -> String {
    let bad = match key.sort.as_str() {
        "integer" => i64::MAX.to_string(),
        "number" => "1e300".to_owned(),
        "string" => "\"?\"".to_owned(),
        _ => return String::new(),
    };
    let path = key.path.replace("<name>", "other");
    let (table, name) = path.rsplit_once('.').expect("a key is in a table");
    let (path, head) = match table.strip_suffix("[]") {
        // A preset needs its name, wherever it is not what is looked at.
        Some(list) => {
            let named = if name == "name" { "" } else { "name = \"x\"\n" };
            (format!("{list}[0].{name}"), format!("[[{list}]]\n{named}"))
        }
        // Agents of this kind are only looked at when there is one.
        None if table == "providers.acp" && name != "command" => {
            (path.clone(), format!("[{table}]\ncommand = \"x\"\n"))
        }
        None => (path.clone(), format!("[{table}]\n")),
    };
    let Err(super::Problems(problems)) = checked(&format!("{head}{name} = {bad}\n")) else {
        return String::new();
    };
    let mine = problems.iter().find_map(|problem| problem.split_once(&format!("{path} is ")));
    let Some((_, told)) = mine else { return String::new() };
    let (_, rule) = told.split_once("; ").unwrap_or_else(|| panic!("no remedy: {told}"));
    // Other remedies are advice, and the meaning says what they say.
    ["it must be from ", "it can be ", "it can only be "]
        .iter()
        .find_map(|start| rule.strip_prefix(start))
        .unwrap_or_default()
        .replace('"', "`")
}

/// The value of each key where a file does not set it, as the program has it.
fn defaults() -> BTreeMap<String, String> {
    let plain = config("");
    let root_dir = plain.root_dir.as_path();
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let home = std::path::absolute(home).unwrap_or_default();
    let below_root = |path: &Path| text(path.strip_prefix(root_dir).expect("below").display());
    let below_home = root_dir.strip_prefix(home).expect("the data folder is in the home");
    let number = |number: &dyn Display| format!("`{number}`");
    let processes = &plain.processes;
    let (teams, worktrees) = (&plain.teams, &plain.worktrees);
    let synchronous = format!("{:?}", plain.synchronous).to_lowercase();
    let mut defaults = BTreeMap::new();
    let rows = [
        ("server.bind_address", text(plain.bind)),
        ("server.public_base_url", option(plain.public_base_url.as_ref())),
        ("server.base_path", option(Some(&plain.base_path).filter(|path| !path.is_empty()))),
        ("server.allowed_hosts", list(&plain.allowed_hosts)),
        ("server.cors_origins", list(&plain.cors_origins)),
        ("server.max_connections", number(&plain.connections_max)),
        ("server.max_streams", number(&plain.streams_max)),
        ("server.shutdown_grace_secs", number(&plain.shutdown_grace.as_secs())),
        ("server.stuck_after_secs", number(&plain.stuck_after.as_secs())),
        ("auth.mode", bounds_of("auth.mode")),
        ("auth.token", option(plain.token.as_ref())),
        ("auth.token_file", below_root(&plain.token_file)),
        ("data.root_dir", format!("`~/{}`", below_home.display())),
        ("data.sqlite_path", below_root(&plain.sqlite_path)),
        ("data.logs_dir", below_root(&plain.logs_dir)),
        ("data.providers_dir", below_root(&plain.providers_dir)),
        ("data.synchronous", text(synchronous)),
        ("data.max_database_bytes", option(plain.database_bytes_max)),
        ("providers.claude_auth_mode", text(plain.claude_auth_mode.as_str())),
        ("approvals.timeout_secs", span(plain.approval_timeout)),
        ("approvals.on_timeout", bounds_of("approvals.on_timeout")),
        ("events.delta_retention_hours", span(plain.delta_retention)),
        ("events.heartbeat_secs", number(&plain.heartbeat.as_secs())),
        ("sessions.retention_days", span(plain.session_retention)),
        ("keeper.lease_secs", number(&plain.keeper_lease.as_secs())),
        ("keeper.grace_ms", number(&plain.keeper_grace.as_millis())),
        ("keeper.journal_bytes_max", number(&plain.journal_bytes_max)),
        ("limits.max_image_bytes", number(&plain.image_bytes_max)),
        ("mcp.enabled", number(&plain.is_mcp_enabled)),
        ("processes.enabled", number(&processes.enabled)),
        ("processes.max_concurrent", number(&processes.running_max)),
        ("processes.default_timeout_ms", number(&processes.timeout_ms.unwrap_or(0))),
        ("processes.max_output_bytes_per_process", number(&processes.output_bytes_max)),
        ("processes.allow_shell", number(&processes.is_shell_allowed)),
        ("processes.env_passthrough", list(&processes.env_passthrough)),
        ("processes.kill_grace_ms", number(&processes.kill_grace_ms)),
        (
            "processes.log_retention_hours",
            number(&processes.log_retention.map_or(0, |span| span.as_secs() / 3600)),
        ),
        ("teams.enabled", number(&teams.is_enabled)),
        ("teams.non_lead_can_add_members", number(&teams.non_lead_can_add_members)),
        ("teams.non_lead_can_remove_members", number(&teams.non_lead_can_remove_members)),
        ("teams.max_attempts", number(&teams.attempts_max)),
        ("teams.retry_pause_ms", number(&teams.retry_pause.as_millis())),
        ("teams.retention_days", span(teams.retention)),
        ("teams.model_presets[].name", teams.preset_names().join(", ")),
        ("worktrees.enabled", number(&worktrees.is_enabled)),
        ("worktrees.root_dir", below_root(&worktrees.root_dir)),
        ("worktrees.init_script_path", text(worktrees.init_script_path.display())),
        ("worktrees.deletion_policy_default", text(worktrees.deletion_policy_default.as_str())),
        ("worktrees.init_timeout_secs", number(&worktrees.init_timeout.as_secs())),
        ("worktrees.git_timeout_secs", number(&worktrees.git_timeout.as_secs())),
        ("worktrees.lock_wait_secs", number(&worktrees.lock_wait.as_secs())),
    ];
    defaults.extend(rows.map(|(path, value)| (path.to_owned(), value)));
    defaults.extend(WITHOUT_MEANING.map(|path| (path.to_owned(), String::new())));
    for name in ["provider", "model", "thinking_effort"] {
        defaults.insert(format!("teams.model_presets[].{name}"), "none".to_owned());
    }
    for name in super::PROVIDER_NAMES {
        provider_defaults(name, &mut defaults);
    }
    for name in ["args", "command", "env", "title", "transport"] {
        let default = defaults[&format!("providers.acp.{name}")].clone();
        defaults.insert(format!("providers.acp.agents.<name>.{name}"), default);
    }
    defaults
}

/// Of one provider that has nothing but what it needs.
fn provider_defaults(name: &str, into: &mut BTreeMap<String, String>) {
    let head = format!("[providers.{name}]\nenabled = true\n");
    let head = if name == "acp" { format!("{head}command = \"x\"\n") } else { head };
    let of = |more: &str| config(&format!("{head}{more}")).providers[name].clone();
    let provider = of("");
    let agent = &provider.agents["default"];
    let env: Vec<String> = agent.env.keys().cloned().collect();
    let command = match name {
        "acp" => "none".to_owned(),
        _ => agent.command.as_ref().map_or(String::new(), text),
    };
    // The two bounds are only there as their product.
    let instances = of("max_sessions_per_instance = 1\n").live_max;
    let each = of("max_instances = 1\n").live_max;
    assert_eq!(provider.live_max, instances * each);
    let secs = |span: Option<Duration>| format!("`{}`", span.unwrap_or_default().as_secs());
    for (key, value) in [
        ("enabled", "see there".to_owned()),
        ("max_instances", format!("`{instances}`")),
        ("max_sessions_per_instance", format!("`{each}`")),
        ("turn_timeout_secs", secs(provider.turn_timeout)),
        ("request_timeout_secs", secs(Some(provider.request_timeout))),
        ("idle_sleep_secs", secs(provider.idle_sleep)),
        ("env_passthrough", list(&provider.env_passthrough)),
        ("client_fs", format!("`{}`", provider.client_fs)),
        ("client_terminal", format!("`{}`", provider.client_terminal)),
        ("command", command),
        ("args", list(&agent.args)),
        ("env", if env.is_empty() { "`{}`".to_owned() } else { list(&env) }),
        ("title", option(agent.title.as_ref())),
        ("transport", bounds_of("providers.acp.transport")),
    ] {
        into.insert(format!("providers.{name}.{key}"), value);
    }
}

/// The only value that a key may have, from what is said to all others.
fn bounds_of(path: &str) -> String {
    let key = Key { path: path.to_owned(), sort: "string".to_owned(), meaning: String::new() };
    text(bounds(&key).trim_matches('`'))
}

fn text(value: impl Display) -> String {
    format!("`\"{value}\"`")
}

fn option(value: Option<impl Display>) -> String {
    value.map_or("none".to_owned(), |value| format!("`{value}`"))
}

fn list(values: &[String]) -> String {
    format!("`{values:?}`")
}

fn span(value: Option<Duration>) -> String {
    option(value.map(|span| span.as_secs()))
}

fn page() -> String {
    let defaults = defaults();
    let mut page = HEAD.to_owned();
    for Section { path, meaning, keys } in sections() {
        let head = match path.strip_suffix("[]") {
            Some(list) => format!("[[{list}]]"),
            None => format!("[{path}]"),
        };
        write!(
            page,
            "\n## `{head}`\n\n{meaning}\n\n| Key | Takes | Left out | Bounds | Meaning |\n\
             |---|---|---|---|---|\n",
        )
        .expect("a string takes any text");
        for key in keys {
            let default =
                defaults.get(&key.path).unwrap_or_else(|| panic!("tell {} in defaults", key.path));
            let path = format!("`{}`", key.path);
            let cells = [&path, &takes(&key), default, &bounds(&key), &key.meaning];
            assert!(cells.iter().all(|cell| !cell.contains('|')), "{cells:?} does not fit a table");
            let cells =
                cells.map(|cell| if cell.is_empty() { " ".into() } else { format!(" {cell} ") });
            writeln!(page, "|{}|", cells.join("|")).expect("a string takes any text");
        }
    }
    page
}

#[test]
fn the_page_is_what_the_types_and_the_check_tell() {
    let made = page();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(PATH, made).expect("the page can be written");
        return;
    }
    for (made, kept) in made.lines().zip(PAGE.lines()) {
        assert_eq!(made, kept, "make api-docs-refresh writes docs/CONFIGURATION.md anew");
    }
    assert_eq!(made, PAGE, "make api-docs-refresh writes docs/CONFIGURATION.md anew");
}

/// The example with all that is switched off in it switched on.
fn whole_example() -> String {
    let is_key = |line: &str| {
        line.starts_with('[')
            || line.split_once(" = ").is_some_and(|(name, _)| {
                name.chars().all(|letter| letter.is_ascii_lowercase() || letter == '_')
            })
    };
    let lines = EXAMPLE.lines().map(|line| match line.strip_prefix("# ") {
        Some(rest) if is_key(rest) => rest,
        _ => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The values of a table by their whole path, as the page writes it.
fn values(table: &toml::Table, path: &str, into: &mut Vec<(String, toml::Value)>) {
    for (name, value) in table {
        let path = match path {
            "" => name.clone(),
            "providers.acp.agents" => format!("{path}.<name>"),
            _ => format!("{path}.{name}"),
        };
        let is_texts = path.ends_with(".env");
        match value {
            toml::Value::Table(table) if !is_texts => values(table, &path, into),
            toml::Value::Array(entries) if entries.iter().any(toml::Value::is_table) => {
                for entry in entries.iter().filter_map(toml::Value::as_table) {
                    values(entry, &format!("{path}[]"), into);
                }
            }
            _ => into.push((path, value.clone())),
        }
    }
}

#[test]
fn the_example_is_good_and_has_every_key_with_its_default() {
    config(EXAMPLE);
    let text = whole_example();
    config(&text);
    let table: toml::Table = toml::from_str(&text).expect("the check has read it");
    let mut told = Vec::new();
    values(&table, "", &mut told);
    let defaults = defaults();
    for (path, value) in &told {
        let default = defaults.get(path).unwrap_or_else(|| panic!("{path} is no key"));
        let default = default.trim_matches('`');
        // What has no value of its own is shown with one that it could have.
        let is_free = ["none", "", "see there", "[]", "{}", "0"].contains(&default)
            || path == "teams.model_presets[].name"
            || path == "data.root_dir";
        let value = serde_json::to_string(value).expect("TOML without a date is JSON");
        assert!(is_free || value == default, "{path} = {value}, but {default}");
    }
    let told: BTreeSet<&str> = told.iter().map(|(path, _)| path.as_str()).collect();
    let keys = sections().into_iter().flat_map(|section| section.keys);
    let missing: Vec<String> = keys
        .map(|key| key.path)
        .filter(|path| !told.contains(path.as_str()) && !WITHOUT_MEANING.contains(&path.as_str()))
        .collect();
    assert!(missing.is_empty(), "the example has no {missing:?}");
}

#[test]
fn the_words_of_a_policy_are_told() {
    let told = bounds_of("worktrees.deletion_policy_default");
    for policy in DeletionPolicy::ALL {
        assert!(told.contains(policy.as_str()), "{told}");
    }
}

#[test]
fn every_number_has_bounds() {
    let keys = sections().into_iter().flat_map(|section| section.keys);
    let numbers = keys.filter(|key| ["integer", "number"].contains(&key.sort.as_str()));
    let free: Vec<String> = numbers
        .filter(|key| bounds(key).is_empty() && !WITHOUT_MEANING.contains(&key.path.as_str()))
        .map(|key| key.path)
        .collect();
    assert!(free.is_empty(), "any number is taken for {free:?}");
}
