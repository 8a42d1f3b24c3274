//! What documents quote is there: messages, commands, targets of make, keys of the configuration.
//!
//! Documents and sources are read as text. A message is quoted in backticks; `…` in it stands for what is put in.
//! Whether it is said at the right moment is not looked at here: the tests of the thing do that.

use crate::command;
use std::collections::BTreeSet;
use std::path::Path;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(ROOT).join(path))
        .unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All pages with their names.
fn pages() -> Vec<(String, String)> {
    let mut pages = vec![("README.md".to_owned(), read("README.md"))];
    for entry in std::fs::read_dir(Path::new(ROOT).join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            pages.push((name.clone(), read(&format!("docs/{name}"))));
        }
    }
    pages
}

/// The sources of the programs, with texts that are broken over lines put together.
fn sources() -> String {
    let mut text = String::new();
    let mut folders = vec![Path::new(ROOT).join("src"), Path::new(ROOT).join("sidecars")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let mut rest = std::fs::read_to_string(&path).unwrap();
                while let Some((before, behind)) = rest.split_once("\\\n") {
                    rest = format!("{before}{}", behind.trim_start());
                }
                text.push_str(&rest);
            }
        }
    }
    text
}

/// Whether one text of the sources has these pieces in their order.
fn is_said(sources: &str, quote: &str) -> bool {
    let pieces: Vec<&str> = quote.split('…').map(str::trim).filter(|p| !p.is_empty()).collect();
    sources.match_indices(pieces[0]).any(|(start, _)| {
        let mut rest = sources[start..].split(['"', '\n']).next().unwrap_or_default();
        pieces.iter().all(|piece| match rest.split_once(piece) {
            Some((_, behind)) => {
                rest = behind;
                true
            }
            None => false,
        })
    })
}

/// The words in backticks in the first cell of each row of a page.
fn first_cells(page: &str) -> Vec<&str> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| "));
    let cells = rows.filter_map(|row| row.split(" | ").next());
    cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn quoted_messages_and_codes_are_what_the_programs_say() {
    let sources = sources();
    let troubles = read("docs/TROUBLESHOOTING.md");
    let deployment = read("docs/DEPLOYMENT.md");
    let (_, of_deployment) = deployment.split_once("## When something is wrong").unwrap();
    let quotes = [first_cells(&troubles), first_cells(of_deployment)].concat();
    // Of commands and fields the names are looked for, as `streams.readers[].lag`.
    let wrong: Vec<&str> = quotes
        .iter()
        .filter(|quote| !quote.starts_with("make "))
        .flat_map(|quote| match quote.contains(' ') {
            true => vec![*quote],
            false => quote.split(['.', '[', ']']).filter(|name| !name.is_empty()).collect(),
        })
        .filter(|quote| !is_said(&sources, quote))
        .collect();
    assert!(quotes.len() > 15, "{quotes:?}");
    assert!(wrong.is_empty(), "nobody says {wrong:?}");
    assert!(!is_said(&sources, "another server runs on the moon …"));
}

/// The pieces of a page that are code: lines of blocks, and what stands in backticks.
fn code(page: &str) -> Vec<&str> {
    let mut code = Vec::new();
    for (place, part) in page.split("```").enumerate() {
        match place % 2 {
            0 => code.extend(part.split('`').skip(1).step_by(2)),
            _ => code.extend(part.lines().map(|line| line.trim_start_matches("$ "))),
        }
    }
    code
}

/// The word behind `program`, where a piece of code begins with it, and the options behind that.
fn calls<'a>(code: &'a str, program: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let rest = code.strip_prefix(program)?;
    let rest = rest.split(['|', ';', '&', '#', '>']).next().unwrap_or_default();
    let mut words = rest.split_whitespace();
    let options = rest.split_whitespace().filter(|word| word.starts_with("--")).collect();
    Some((words.next().unwrap_or_default(), options))
}

#[test]
fn quoted_commands_and_their_options_are_there() {
    // Without a word it is `serve`.
    let help = [&["--help"][..], &["serve", "--help"]]
        .map(|words| command::run(words).expect(0).stdout)
        .concat();
    let mut wrong = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (name, page) in pages() {
        for (word, options) in
            code(&page).into_iter().filter_map(|code| calls(code, "gg-runtime-server "))
        {
            let is_word = word.chars().all(|letter| letter.is_ascii_lowercase());
            let page_of_help = match word {
                word if word.starts_with("--") => help.clone(),
                word if is_word => {
                    seen.insert(word.to_owned());
                    let said = command::run(&[word, "--help"]);
                    format!("{}{help}", said.stdout)
                }
                _ => continue,
            };
            for told in options.into_iter().chain([word]) {
                if !page_of_help.contains(told) {
                    wrong.insert(format!("{name}: gg-runtime-server {word}: {told}"));
                }
            }
        }
    }
    assert!(seen.len() >= 6, "{seen:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn quoted_targets_of_make_are_there() {
    let makefile = read("Makefile");
    let mut wrong = BTreeSet::new();
    let mut seen = BTreeSet::new();
    for (name, page) in pages() {
        for (target, _) in code(&page).into_iter().filter_map(|code| calls(code, "make ")) {
            seen.insert(target.to_owned());
            if !makefile.contains(&format!("\n{target}:")) {
                wrong.insert(format!("{name}: make {target}"));
            }
        }
    }
    assert!(seen.len() > 10, "{seen:?}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn quoted_keys_of_the_configuration_are_there() {
    let keys = read("docs/CONFIGURATION.md");
    let kinds = read("docs/EVENTS.md");
    let sections: BTreeSet<&str> = first_cells(&keys)
        .into_iter()
        .filter_map(|key| Some(key.split_once('.')?.0))
        .filter(|section| *section != "data")
        .collect();
    let mut wrong = BTreeSet::new();
    let mut seen = 0;
    for (name, page) in pages() {
        for code in code(&page) {
            let code = code.split([' ', '=']).next().unwrap_or_default();
            // Kinds of events and names of files look alike.
            let is_other = kinds.contains(&format!("| `{code}` |"))
                || [".json", ".log"].iter().any(|end| code.ends_with(end));
            let is_key = !is_other
                && code
                    .split_once('.')
                    .is_some_and(|(section, key)| sections.contains(section) && is_path(key));
            seen += usize::from(is_key);
            let forms = [format!("`{code}`"), format!("`[{code}]`"), format!("`[[{code}]]`")];
            if is_key && !forms.iter().any(|form| keys.contains(form)) {
                wrong.insert(format!("{name}: {code}"));
            }
        }
    }
    assert!(seen > 80, "{seen}");
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn is_path(key: &str) -> bool {
    !key.is_empty()
        && key.chars().all(|letter| letter.is_ascii_lowercase() || "_.<>[]".contains(letter))
}
