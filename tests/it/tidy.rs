//! The rules of this repository, as tests.
//!
//! They read the sources as text and know no types: each rule is one that a reviewer would otherwise have to watch for.
//! What is looked at is everything that `.gitignore` does not name. Recordings under `testdata/` are other programs'
//! words and only have to be used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The floors of the house (see src/lib.rs), lowest first. `main` is the program that stands on it.
const FLOORS: &[&[&str]] = &[
    &[
        "error",
        "limits",
        "thread",
        "model",
        "config",
        "environment",
        "folder",
        "secret",
        "signals",
        "sync",
        "tries",
        "watchdog",
    ],
    &["ledger"],
    &["keeper", "http"],
    &["provider", "process", "worktree"],
    &["session", "housekeeper"],
    &["team"],
    &["mcp"],
    &["api"],
    &["server"],
    &["cli"],
    &["lib", "main"],
];

/// Uses that go up a floor, each with its reason. Nothing is added here without a better plan in writing.
const UPWARD: &[(&str, &str)] = &[
    // The setting is the ledger's own word, and a copy of it in `config` would be a second source of the truth.
    ("config", "ledger"),
];

const CODE_COLUMNS_MAX: usize = 100;
const COMMENT_COLUMNS_MAX: usize = 120;
const FILE_LINES_MAX: usize = 600;

/// A file of ours, with its path from the root.
struct Source {
    path: String,
    text: String,
}

/// All files of the repository that are text, sorted by path.
fn sources() -> Vec<Source> {
    let ignored =
        std::fs::read_to_string(Path::new(ROOT).join(".gitignore")).expect("there is a .gitignore");
    let mut ignored: Vec<&str> = ignored.lines().map(|line| line.trim_matches('/')).collect();
    ignored.push(".git");
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder was listed") {
            let path = entry.expect("the folder can be read").path();
            let from_root =
                path.strip_prefix(ROOT).expect("it lies below").to_string_lossy().into_owned();
            if ignored.contains(&from_root.as_str()) || path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                // A package below has a target folder of its own when it is built alone.
                if !path.ends_with("target") {
                    folders.push(path);
                }
            } else if let Ok(text) = std::fs::read_to_string(&path) {
                found.push(Source { path: from_root, text });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 100, "{} files under {ROOT}", found.len());
    found
}

fn rust_sources() -> Vec<Source> {
    sources().into_iter().filter(|source| source.path.ends_with(".rs")).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Fails with every violation at once.
fn must_be_empty(rule: &str, violations: &[String]) {
    assert!(violations.is_empty(), "{rule}:\n  {}", violations.join("\n  "));
}

#[test]
fn each_source_file_says_what_it_is() {
    let wrong: Vec<String> = rust_sources()
        .into_iter()
        .filter(|source| !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    must_be_empty("these files do not begin with //!", &wrong);
}

#[test]
fn files_and_lines_have_a_size_that_can_be_read() {
    let mut wrong = Vec::new();
    for source in rust_sources() {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!("{}: {lines} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (place, line) in source.text.lines().enumerate() {
            // Tests hold recorded shapes, which are not broken.
            let is_test = source.path.contains("tests/");
            let is_wide = is_test || is_comment(line);
            let most = if is_wide { COMMENT_COLUMNS_MAX } else { CODE_COLUMNS_MAX };
            let columns = line.chars().count();
            if columns > most {
                let place = place + 1;
                wrong.push(format!("{}:{place}: {columns} columns, at most {most}", source.path));
            }
        }
    }
    must_be_empty("these are too large", &wrong);
}

#[test]
fn only_the_ledger_speaks_sql() {
    let allowed = ["src/ledger.rs", "src/ledger/", "tests/", "bench/"];
    let wrong: Vec<String> = rust_sources()
        .into_iter()
        .filter(|source| !allowed.iter().any(|place| source.path.starts_with(place)))
        .filter(|source| code(&source.text).any(|line| line.contains("rusqlite")))
        .map(|source| source.path)
        .collect();
    must_be_empty("these files use rusqlite", &wrong);
}

#[test]
fn threads_start_in_one_place() {
    let mut wrong = Vec::new();
    for source in rust_sources() {
        // The mock model stands alone: its threads live in the scope of its server.
        let is_mock = source.path.starts_with("tests/mock-model/");
        if is_mock || source.path.ends_with("/thread.rs") || source.path == "tests/it/tidy.rs" {
            continue;
        }
        let has_std_thread = code(&source.text).any(|line| line == "use std::thread;");
        for line in code(&source.text) {
            let is_std = ["std::thread::spawn", "thread::Builder", "thread::scope"]
                .iter()
                .any(|call| line.contains(call));
            if is_std || has_std_thread && line.contains(" thread::spawn(") {
                wrong.push(format!("{}: {}", source.path, line.trim()));
            }
        }
    }
    must_be_empty("threads start in a thread.rs only", &wrong);
}

/// The lines of a source that are no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !is_comment(line))
}

/// The module of the root package that a path belongs to.
fn module(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("src/")?;
    Some(rest.split(['/', '.']).next().unwrap_or(rest))
}

fn floor(module: &str) -> usize {
    FLOORS
        .iter()
        .position(|floor| floor.contains(&module))
        .unwrap_or_else(|| panic!("the module {module} has no floor; give it one in FLOORS"))
}

/// Which modules each module of the root package uses.
fn uses() -> BTreeMap<String, BTreeSet<String>> {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for source in rust_sources() {
        let Some(user) = module(&source.path) else { continue };
        let used = uses.entry(user.to_owned()).or_default();
        for line in code(&source.text) {
            for behind in line.split("crate::").skip(1) {
                let name: String =
                    behind.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                if FLOORS.iter().any(|floor| floor.contains(&name.as_str())) && name != user {
                    used.insert(name);
                }
            }
        }
    }
    uses
}

#[test]
fn arrows_point_down() {
    let mut wrong = Vec::new();
    for (user, used) in uses() {
        for name in used {
            let is_named = UPWARD.contains(&(user.as_str(), name.as_str()));
            let is_ground = floor(&user) == 0 && floor(&name) == 0;
            if floor(&name) >= floor(&user) && !is_ground && !is_named {
                wrong.push(format!("{user} uses {name}"));
            }
        }
    }
    must_be_empty("a module only uses what lies beneath it", &wrong);
}

#[test]
fn there_is_no_circle() {
    let uses = uses();
    for start in uses.keys() {
        let mut reached: BTreeSet<&str> = BTreeSet::new();
        let mut open = vec![start.as_str()];
        while let Some(name) = open.pop() {
            for next in uses.get(name).into_iter().flatten() {
                // The one arrow upward is a single type; a circle through it would be seen by `arrows_point_down`.
                if UPWARD.contains(&(name, next.as_str())) {
                    continue;
                }
                assert_ne!(next, start, "{start} uses itself by way of {name}");
                if reached.insert(next) {
                    open.push(next);
                }
            }
        }
    }
}

#[test]
fn the_map_names_every_module_in_the_order_of_the_floors() {
    let map = read("src/lib.rs");
    let mut last = 0;
    for line in map.lines() {
        let Some(name) = line.strip_prefix("//! - [`").and_then(|rest| rest.split('`').next())
        else {
            continue;
        };
        let name = name.trim_start_matches("mod@");
        assert!(floor(name) >= last, "{name} stands behind a higher floor in src/lib.rs");
        last = floor(name);
    }
    let wrong: Vec<String> = map
        .lines()
        .filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'))
        .filter(|name| !map.contains(&format!("//! - [`{name}`")))
        .filter(|name| !map.contains(&format!("//! - [`mod@{name}`")))
        .map(str::to_owned)
        .collect();
    must_be_empty("these modules are not in the map of src/lib.rs", &wrong);
}

#[test]
fn every_migration_and_every_recording_is_used() {
    // Programs of ours: tests read recordings, scripts read lists.
    let is_program = |path: &str| path.ends_with(".rs") || path.ends_with(".sh");
    let programs: String =
        sources().into_iter().filter(|s| is_program(&s.path)).map(|s| s.text).collect();
    let mut wrong = Vec::new();
    for source in sources() {
        let path = source.path.as_str();
        if path.starts_with("sql/") {
            if !programs.contains(&format!("include_str!(\"../../{path}\")")) {
                wrong.push(format!("{path} is included nowhere"));
            }
        } else if let Some(recording) = path.strip_suffix(".events.txt") {
            if !Path::new(ROOT).join(format!("{recording}.jsonl")).is_file() {
                wrong.push(format!("{path} is the golden file of no recording"));
            }
        } else if path.starts_with("testdata/") && !path.ends_with(".md") {
            // Whoever reads a folder names it; what lies deeper is found by reading it.
            let folder: Vec<&str> = path.split('/').take(2).collect();
            if !programs.contains(&folder.join("/")) {
                wrong.push(format!("{path} lies where no test and no script looks"));
            }
        }
    }
    must_be_empty("unused files", &wrong);
}

/// The pages that people read.
fn pages() -> Vec<Source> {
    sources()
        .into_iter()
        .filter(|source| source.path.ends_with(".md") && !source.path.starts_with("testdata/"))
        .collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let folder = Path::new(ROOT).join(&page.path).parent().unwrap().to_owned();
        for behind in page.text.split("](").skip(1) {
            let target = behind.split(')').next().unwrap_or_default();
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let path =
                if file.is_empty() { Path::new(ROOT).join(&page.path) } else { folder.join(file) };
            if !path.exists() {
                wrong.push(format!("{}: {target} is not there", page.path));
            } else if !anchor.is_empty() && !anchors(&path).contains(anchor) {
                wrong.push(format!("{}: {target} has no such heading", page.path));
            }
        }
    }
    must_be_empty("links that lead nowhere", &wrong);
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Path) -> BTreeSet<String> {
    std::fs::read_to_string(page)
        .unwrap_or_default()
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

/// The routes of the table in src/api/route.rs, as `METHOD /path`.
pub(crate) fn routes() -> Vec<String> {
    let source = read("src/api/route.rs");
    let table = source.split("\nroutes! {\n").nth(1).expect("the table of routes");
    let mut routes = Vec::new();
    for row in table.split(';') {
        // `get("/path", handler) => what is told of it`; nothing behind the last row.
        let Some((route, _)) = row.split_once("=>") else { continue };
        let method = ["post(", "delete("].into_iter().find(|word| route.contains(word));
        let method = method.unwrap_or("get(").trim_end_matches('(').to_uppercase();
        let path = route.split('"').nth(1).expect("a path in quotes");
        routes.push(format!("{method} {path}"));
    }
    assert!(routes.len() > 20, "{routes:?}");
    routes
}

#[test]
fn the_api_page_has_every_route() {
    let page = read("docs/API.md");
    let wrong: Vec<String> =
        routes().into_iter().filter(|route| !page.contains(&format!("`{route}`"))).collect();
    must_be_empty("routes that docs/API.md does not have", &wrong);
    let known = routes();
    let invented: Vec<String> = page
        .split('`')
        .filter(|text| ["GET /", "POST /", "DELETE /"].iter().any(|m| text.starts_with(m)))
        .filter(|text| !text.contains('?') && !known.iter().any(|route| route == text))
        .map(str::to_owned)
        .collect();
    must_be_empty("routes of docs/API.md that the server does not have", &invented);
}

#[test]
fn the_api_page_has_every_error_code() {
    let page = read("docs/API.md");
    let source = read("src/error.rs");
    let mut wrong = Vec::new();
    let mut count = 0;
    for line in source.lines().filter(|line| line.contains("=> (\"")) {
        let name = line.split('"').nth(1).unwrap();
        let status = line.split(", ").nth(1).unwrap().trim_end_matches("),");
        count += 1;
        if !page.contains(&format!("| `{name}` | {status} |")) {
            wrong.push(format!("{name} {status}"));
        }
    }
    assert!(count > 20, "{count} codes were found");
    must_be_empty("error codes that docs/API.md does not have", &wrong);
}

#[test]
fn the_api_page_has_every_event() {
    let rows = |page: &str| -> Vec<String> {
        let page = read(page);
        let rows = page.lines().filter(|line| line.starts_with("| `"));
        rows.map(str::to_owned).collect()
    };
    let (api, events) = (rows("docs/API.md"), rows("docs/EVENTS.md"));
    let mut wrong = Vec::new();
    for kind in gooselake::model::event::EventKind::ALL {
        let row = |rows: &[String]| {
            let start = format!("| `{}` |", kind.as_str());
            rows.iter().find(|row| row.starts_with(&start)).cloned()
        };
        match (row(&api), row(&events)) {
            (None, _) => wrong.push(format!("{} is not in docs/API.md", kind.as_str())),
            (api, events) if api != events => {
                wrong.push(format!("{} is told otherwise in docs/EVENTS.md", kind.as_str()));
            }
            _ => {}
        }
    }
    must_be_empty("events that the pages do not have", &wrong);
}

#[test]
fn limits_in_the_pages_are_those_of_the_code() {
    let limits = read("src/limits.rs");
    let mut wrong = Vec::new();
    let mut count = 0;
    for page in pages() {
        for line in page.text.lines() {
            // A row of a table that quotes one: | `NAME` | value | …
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let [_, name, value, ..] = cells[..] else { continue };
            let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else {
                continue;
            };
            let declared = limits.lines().find(|line| line.contains(&format!("const {name}: ")));
            let Some(declared) = declared else { continue };
            count += 1;
            if !declared.ends_with(&format!("= {value};")) {
                wrong.push(format!("{}: {name} is {value}, but: {declared}", page.path));
            }
        }
    }
    assert!(count > 10, "{count} limits are quoted");
    must_be_empty("limits that are quoted wrongly", &wrong);
}

/// A promise whose test was renamed or taken away is one that nobody proves.
#[test]
fn the_tests_that_the_page_of_reliability_names_are_there() {
    let page = read("docs/RELIABILITY.md");
    let sources = rust_sources();
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3
            && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let names: BTreeSet<&str> = page.split('`').skip(1).step_by(2).filter(is_name).collect();
    assert!(names.len() > 50, "{} names", names.len());
    let is_test = |name: &str| {
        let head = format!("#[test]\nfn {name}()");
        let inner = format!("#[test]\n    fn {name}()");
        sources.iter().any(|source| source.text.contains(&head) || source.text.contains(&inner))
    };
    let missing: Vec<String> =
        names.into_iter().filter(|name| !is_test(name)).map(str::to_owned).collect();
    must_be_empty("no test has these names", &missing);
}

#[test]
fn nothing_names_one_machine_and_nothing_is_put_off_without_a_number() {
    // Put together here, so that this file does not find itself.
    let places =
        [["/wo", "rk/"], ["/ro", "ot/"], ["/ho", "me/"], ["/Us", "ers/"]].map(|p| p.concat());
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|word| word.concat());
    let mut wrong = Vec::new();
    for source in sources() {
        if source.path.starts_with("testdata/") || source.path == "Cargo.lock" {
            continue;
        }
        for (place, line) in source.text.lines().enumerate() {
            let at = format!("{}:{}", source.path, place + 1);
            if let Some(path) = places.iter().find(|path| line.contains(path.as_str())) {
                wrong.push(format!("{at}: {path}"));
            }
            for word in &words {
                for behind in line.split(word.as_str()).skip(1) {
                    // A word of its own, not the middle of another, and no number behind it.
                    let is_word = !behind.starts_with(|c: char| c.is_ascii_alphanumeric());
                    let has_number = behind.trim_start_matches([' ', '(']).starts_with('#');
                    if is_word && !has_number {
                        wrong.push(format!("{at}: {word} without a number"));
                    }
                }
            }
        }
    }
    must_be_empty("words that must not be here", &wrong);
}
